package main

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler"
)

// stateFile holds the last checkpoint of a follower, relative to the output
// directory. docs/decisions/0003 describes it.
const stateFile = "state/checkpoint.gob"

// stateFormat changes whenever an older checkpoint cannot be read.
const stateFormat = 3

// savedState is a checkpoint as it lies on disk.
type savedState struct {
	Format  int
	Paths   []string // inputs of the run, absolute
	Hash    string   // of the configuration that changes results
	Version string
	Resumed int
	Clean   bool             // the run ended in good order
	Exports []string         // flags that stand for what is written into flows/
	Marks   map[string]int64 // sizes of the output files
	Engine  *profiler.Checkpoint
	Alerts  []byte
	Flows   []byte
	Letters []byte
	Known   []byte
}

// inputs returns the run's inputs so that they can be compared.
func (o *runOptions) inputs() []string {
	var in []string
	for _, p := range o.Paths {
		if a, err := filepath.Abs(p); err == nil {
			p = a
		}
		in = append(in, p)
	}
	for _, i := range o.Interfaces {
		in = append(in, "interface "+i)
	}
	slices.Sort(in)
	return in
}

// sources returns the run's inputs as the user has named them.
func (o *runOptions) sources() []string { return slices.Concat(o.Paths, o.Interfaces) }

// loadState returns the checkpoint to go on from: nil for a run that starts
// afresh.
func loadState(o *runOptions) (*savedState, error) {
	if !o.Follow || o.Overwrite {
		return nil, nil
	}
	path := filepath.Join(o.Output, filepath.FromSlash(stateFile))
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &export.WriteError{Path: path, Err: err}
	}
	defer func() { _ = f.Close() }() // only read
	s := new(savedState)
	if err := gob.NewDecoder(f).Decode(s); err != nil {
		return nil, &export.WriteError{Path: path, Err: fmt.Errorf("the saved state is damaged (--overwrite starts afresh): %w", err)}
	}
	if s.Format != stateFormat {
		return nil, &export.WriteError{Path: path, Err: fmt.Errorf("the saved state has format %d, this version reads %d (--overwrite starts afresh)", s.Format, stateFormat)}
	}
	if in := o.inputs(); !slices.Equal(in, s.Paths) {
		return nil, &export.OccupiedError{Path: o.Output, Found: "the state of a run that follows " + strings.Join(s.Paths, " ")}
	}
	now := o.exports()
	for _, e := range s.Exports {
		if !slices.Contains(now, e) {
			// Flows and letters of open windows wait to be written there.
			return nil, &export.OccupiedError{Path: o.Output, Found: "the state of a run with " + e}
		}
	}
	return s, nil
}

// stillborn reports whether an output directory, in which there is no state,
// holds nothing but metadata and empty files. That is what a follower leaves
// that was killed before its first state was saved, and it has to be able to
// start again over it.
func stillborn(output string) bool {
	if _, err := os.Lstat(filepath.Join(output, "summary.json")); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	for _, dir := range []string{"alerts", "flows", "flows/spool"} {
		list, err := os.ReadDir(filepath.Join(output, filepath.FromSlash(dir)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false
		}
		for _, f := range list {
			if st, err := f.Info(); err != nil || !f.IsDir() && st.Size() > 0 {
				return false
			}
		}
	}
	return true
}

// exports returns the flags that stand for what the run writes into flows/.
func (o *runOptions) exports() (flags []string) {
	p := &o.Config.Parameters
	if p.ExportLabeledFlows {
		flags = append(flags, "--export-flows "+string(p.ExportFormat))
	}
	if p.ExportLetters {
		flags = append(flags, "--export-letters")
	}
	if p.ExportTimeline {
		flags = append(flags, "--export-timeline")
	}
	return flags
}

// unfit says why the engine cannot go on from s, or nothing.
func (s *savedState) unfit(o *runOptions) string {
	switch {
	case s.Hash != o.Config.Hash():
		return "the configuration has changed"
	case s.Version != o.Version:
		return fmt.Sprintf("it is of version %s", s.Version)
	}
	return ""
}

func (s *savedState) positions() map[string]flow.Position {
	if s.Engine == nil {
		return nil
	}
	return s.Engine.Positions()
}

// load gives alerts, if their scores still mean the same, and labelled flows
// and letters, which wait for their windows to close in any case, their part of s.
func (s *savedState) load(r *run, scores bool) error {
	if scores {
		if err := r.alerts.Load(gob.NewDecoder(bytes.NewReader(s.Alerts))); err != nil {
			return err
		}
	}
	if s.Known != nil {
		if err := r.know.load(gob.NewDecoder(bytes.NewReader(s.Known))); err != nil {
			return err
		}
	}
	if w := r.dir.Flows(); w != nil && s.Flows != nil {
		if err := w.Load(gob.NewDecoder(bytes.NewReader(s.Flows))); err != nil {
			return err
		}
	}
	if w := r.dir.Letters(); w != nil && s.Letters != nil {
		return w.Load(gob.NewDecoder(bytes.NewReader(s.Letters)))
	}
	return nil
}

// claim marks the output directory of a new follower as its own before anything
// else is there, so that a kill in the first moments is followed by a restart
// and not by a refusal.
func claim(o *runOptions) error {
	if !o.Overwrite {
		found, err := export.Occupied(o.Output)
		if err != nil {
			return err
		}
		if found != "" {
			return &export.OccupiedError{Path: o.Output, Found: found}
		}
	}
	s := &savedState{}
	s.stamp(o)
	return s.write(filepath.Join(o.Output, filepath.FromSlash(stateFile)))
}

// stamp notes which run the state is of.
func (s *savedState) stamp(o *runOptions) {
	s.Format, s.Paths, s.Hash, s.Version, s.Exports = stateFormat, o.inputs(), o.Config.Hash(), o.Version, o.exports()
}

func (s *savedState) write(path string) error {
	if err := replaceFile(path, func(w *os.File) error { return gob.NewEncoder(w).Encode(s) }); err != nil {
		return &export.WriteError{Path: path, Err: err}
	}
	return nil
}

// save writes a checkpoint. The file is replaced as a whole, so there is
// always one that can be read.
func (r *run) save(s *savedState) error {
	s.stamp(&r.o)
	s.Resumed = r.info.Resumed
	var err error
	if s.Marks, err = r.dir.Marks(); err != nil {
		return err
	}
	var a, f, l, k bytes.Buffer
	if err := r.alerts.Save(gob.NewEncoder(&a)); err != nil {
		return fmt.Errorf("cannot save the state of the alerts: %w", err)
	}
	s.Alerts = a.Bytes()
	if err := r.know.save(gob.NewEncoder(&k)); err != nil {
		return err
	}
	s.Known = k.Bytes()
	if w := r.dir.Flows(); w != nil {
		if err := w.Save(gob.NewEncoder(&f)); err != nil {
			return err
		}
		s.Flows = f.Bytes()
	}
	if w := r.dir.Letters(); w != nil {
		if err := w.Save(gob.NewEncoder(&l)); err != nil {
			return err
		}
		s.Letters = l.Bytes()
	}
	return s.write(r.dir.Path(stateFile))
}

// replaceFile writes a file under another name, makes it survive a power cut,
// and puts it in place of path.
func replaceFile(path string, write func(*os.File) error) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), path)
}
