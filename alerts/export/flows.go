package export

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// FlowFormat says how labelled flows are written.
type FlowFormat string

// The formats.
const (
	NoFlows    FlowFormat = ""
	FlowsTSV   FlowFormat = "tsv"
	FlowsJSONL FlowFormat = "jsonl"
)

// ParseFlowFormat returns the format of a name as given on the command line.
func ParseFlowFormat(s string) (FlowFormat, error) {
	switch f := FlowFormat(s); f {
	case NoFlows, FlowsTSV, FlowsJSONL:
		return f, nil
	}
	return NoFlows, fmt.Errorf("unknown format of labelled flows %q, want tsv or jsonl", s)
}

func flowsPath(f FlowFormat) string { return "flows/labeled_flows." + string(f) }

// columns are the columns of labelled flows, in order. Those from label to
// evidence_ids are known when the window closes, the others at once.
var columns = [...]string{
	"ts", "uid", "kind", "src", "sport", "dst", "dport", "proto", "state", "service", "duration", "orig_bytes", "resp_bytes",
	"orig_pkts", "resp_pkts", "profile", "window", "label_truth", "detailed_label_truth", "label", "evidence_ids",
}

// The bounds of a FlowWriter.
const (
	maxSpools   = 64      // windows open at once; the one that was not used longest is closed early
	maxMentions = 200_000 // uids named by evidence; further ones are not labelled, and counted
	spoolBuffer = 64 << 10
)

// FlowStats counts what a FlowWriter did since the run began.
type FlowStats struct {
	Records     int64 `json:"records"`   // written
	Malicious   int64 `json:"malicious"` // of these
	Pending     int64 `json:"pending"`   // waiting for their window to close
	DroppedUIDs int64 `json:"dropped_uids"`
	ClosedEarly int64 `json:"windows_closed_early"`
	Lost        int64 `json:"lost_lines"`
}

// FlowWriter writes each input record with its label: "malicious" when
// evidence that counts towards a window with an alert names its uid, "benign" otherwise, and the ids of all
// evidence that names it. The ground truth of the log, where it has one, is in
// columns of its own.
//
// The label is not known when the record passes, so records wait in a spool
// for each window until CloseWindow, which is to come when no more alerts are
// expected for the window. A record that is later than that is labelled with
// what is known and written when the window is closed again.
//
// Flow may be called by one goroutine while another one calls the other
// methods. A FlowWriter is an alerts.Sink, which its Dir feeds.
type FlowWriter struct {
	mu       sync.Mutex
	format   FlowFormat
	name     string // relative to the output directory
	dir      string // of spools
	out      *outFile
	spools   map[int64]*spool // by start of window
	tick     uint64           // counts spool uses, to find the one not used longest
	next     int              // number of the next spool file
	evidence map[string]*mention
	alerted  map[incident]int64 // windows with alerts, and their ends
	uids     map[string][]*mention
	entries  int  // uid and evidence pairs in uids
	saved    bool // a checkpoint exists, so closed spools must stay for a while
	closed   []string
	dying    []string
	line     []byte
	stats    FlowStats
	err      error // sticky, of the spools
	max      struct{ spools, mentions int }
}

var _ alerts.Sink = (*FlowWriter)(nil)

// spool holds the records of one window: first in memory, then in a file.
type spool struct {
	Start int64
	N     int64 // number of the window
	File  string
	Size  int64 // bytes in the file
	Count int64 // records
	used  uint64
	dirty bool // written since the last sync
	buf   []byte
}

// mention is one piece of evidence and the uids it names.
type mention struct {
	ID     string
	In     incident
	End    int64 // of its window
	Counts bool  // it adds to a score
	UIDs   []string
}

// incident is a profile in a window.
type incident struct {
	Profile netip.Addr
	Start   int64 // of the window
}

func newFlowWriter(path string, format FlowFormat) (*FlowWriter, error) {
	w := &FlowWriter{
		format: format, name: flowsPath(format), dir: filepath.Join(path, filepath.FromSlash(spoolDir)),
		spools: make(map[int64]*spool), evidence: make(map[string]*mention), uids: make(map[string][]*mention),
		alerted: make(map[incident]int64),
	}
	w.max.spools, w.max.mentions = maxSpools, maxMentions
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return nil, fmt.Errorf("output directory is not writable: %w", &WriteError{w.dir, err})
	}
	list, err := w.files()
	if err != nil {
		return nil, err
	}
	for _, name := range list {
		// Names that are no numbers are not ours and do not collide with ours.
		n, _ := strconv.Atoi(name)
		w.next = max(w.next, n+1)
	}
	if w.out, err = openFile(filepath.Join(path, filepath.FromSlash(w.name)), wholeLine); err != nil {
		return nil, fmt.Errorf("output directory is not writable: %w", err)
	}
	return w, nil
}

// files returns the names of the spool files.
func (w *FlowWriter) files() ([]string, error) {
	list, err := os.ReadDir(w.dir)
	if err != nil {
		return nil, fmt.Errorf("spool of labelled flows: %w", err)
	}
	var names []string
	for _, e := range list {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Flow takes a record in stream order; w is the window it starts in. Nothing
// of f is kept.
func (w *FlowWriter) Flow(f *flow.Flow, win profile.Window) error {
	if f.Kind == flow.Lookup {
		return nil // an answer of a service is no traffic
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		w.stats.Lost++
		return w.err
	}
	s := w.spools[win.Start]
	if s == nil {
		if len(w.spools) >= w.max.spools {
			if err := w.closeOldest(); err != nil {
				return err
			}
		}
		s = &spool{Start: win.Start, N: win.N, File: fmt.Sprintf("%08d", w.next)}
		w.next++
		w.spools[win.Start] = s
	}
	w.tick++
	s.used = w.tick
	s.Count++
	w.stats.Pending++
	w.line = w.appendRecord(w.line[:0], f, win)
	s.buf = binary.AppendUvarint(s.buf, uint64(len(f.UID)))
	s.buf = append(s.buf, f.UID...)
	s.buf = binary.AppendUvarint(s.buf, uint64(len(w.line)))
	s.buf = append(s.buf, w.line...)
	if len(s.buf) >= spoolBuffer {
		return w.spill(s)
	}
	return nil
}

func (w *FlowWriter) closeOldest() error {
	var old *spool
	for _, s := range w.spools {
		if old == nil || s.used < old.used {
			old = s
		}
	}
	w.stats.ClosedEarly++
	return w.finish(old)
}

// spill moves what s has in memory to its file.
func (w *FlowWriter) spill(s *spool) error {
	if len(s.buf) == 0 || w.err != nil {
		return w.err
	}
	path := filepath.Join(w.dir, s.File)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err == nil {
		_, err = f.Write(s.buf)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		w.stats.Lost += s.Count
		w.err = &WriteError{path, err}
		return w.err
	}
	s.Size += int64(len(s.buf))
	s.buf, s.dirty = s.buf[:0], true
	return nil
}

// Evidence implements alerts.Sink: it notes which uids e names.
func (w *FlowWriter) Evidence(e *evidence.Evidence, _ float64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(e.UIDs) == 0 || w.evidence[e.ID] != nil {
		return nil
	}
	m := &mention{ID: e.ID, In: incident{e.Profile, e.WindowStart}, End: e.WindowEnd, Counts: alerts.Counts(e)}
	for _, u := range e.UIDs {
		if u == "" || slices.Contains(m.UIDs, u) {
			continue
		}
		if w.entries >= w.max.mentions {
			w.stats.DroppedUIDs++
			continue
		}
		w.entries++
		m.UIDs = append(m.UIDs, u)
		w.refer(u, m)
	}
	w.evidence[e.ID] = m
	return nil
}

// refer notes that m names a uid. Mentions lie in the order of their ids: that in which
// evidence is found differs when logs are followed.
func (w *FlowWriter) refer(uid string, m *mention) {
	list := w.uids[uid]
	i, _ := slices.BinarySearchFunc(list, m, func(x, y *mention) int { return cmp.Compare(x.ID, y.ID) })
	w.uids[uid] = slices.Insert(list, i, m)
}

// Alert implements alerts.Sink: what the evidence of an alerted window names is
// malicious, whether it came before the alert or after it, so that the order in
// which logs were read does not matter.
func (w *FlowWriter) Alert(a *alerts.Alert) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alerted[incident{a.Profile, a.WindowStart}] = a.WindowEnd
	return nil
}

// CloseWindow writes the records of the window with the labels known now, and
// forgets evidence of the windows before it. The lines are in the file after
// the next Flush.
func (w *FlowWriter) CloseWindow(win profile.Window) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.spools[win.Start]; s != nil {
		if err := w.finish(s); err != nil {
			return err
		}
	}
	maps.DeleteFunc(w.alerted, func(_ incident, end int64) bool { return end < win.Start })
	for id, m := range w.evidence {
		// Evidence of the window before may still name a record whose
		// connection went on into the next one.
		if m.End < win.Start {
			w.forget(id, m)
		}
	}
	return w.errLocked()
}

// CloseBefore closes, the earliest first, all windows of the given width that
// ended at or before t, unix ns. See CloseWindow.
func (w *FlowWriter) CloseBefore(t int64, width time.Duration) error {
	w.mu.Lock()
	var starts []int64
	for s := range w.spools {
		if s <= t-int64(width) {
			starts = append(starts, s)
		}
	}
	w.mu.Unlock()
	slices.Sort(starts)
	for _, s := range starts {
		if err := w.CloseWindow(profile.Window{Start: s, End: s + int64(width)}); err != nil {
			return err
		}
	}
	return nil
}

func (w *FlowWriter) forget(id string, m *mention) {
	delete(w.evidence, id)
	w.entries -= len(m.UIDs)
	for _, u := range m.UIDs {
		if l := slices.DeleteFunc(w.uids[u], func(o *mention) bool { return o == m }); len(l) > 0 {
			w.uids[u] = l
		} else {
			delete(w.uids, u)
		}
	}
}

// errLocked returns the first error met; the caller holds the lock.
func (w *FlowWriter) errLocked() error { return errors.Join(w.err, w.out.err) }

// finish writes the records of s and forgets it.
func (w *FlowWriter) finish(s *spool) error {
	if w.err != nil {
		return w.err
	}
	delete(w.spools, s.Start)
	w.stats.Pending -= s.Count
	path := filepath.Join(w.dir, s.File)
	var r io.Reader = bytes.NewReader(s.buf)
	if s.Size > 0 {
		f, err := os.Open(path)
		if err != nil {
			w.err = fmt.Errorf("read spool of labelled flows: %w", err)
			return w.err
		}
		defer f.Close() //nolint:errcheck // it was only read
		r = io.MultiReader(io.LimitReader(f, s.Size), r)
	}
	if err := w.label(bufio.NewReaderSize(r, spoolBuffer)); err != nil {
		return err
	}
	switch {
	case s.Size == 0:
	case w.saved:
		w.closed = append(w.closed, s.File)
	default:
		if err := os.Remove(path); err != nil {
			w.err = &WriteError{path, err}
			return w.err
		}
	}
	return nil
}

// label writes the records that r holds. A write error is sticky and makes
// the rest count as lost.
func (w *FlowWriter) label(r *bufio.Reader) error {
	var uid, rec []byte
	for {
		var err error
		if uid, err = readField(r, uid); errors.Is(err, io.EOF) {
			return w.out.err
		}
		if err == nil {
			if rec, err = readField(r, rec); errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
		}
		if err != nil {
			w.err = fmt.Errorf("read spool of labelled flows: %w", err)
			return w.err
		}
		if w.out.size == 0 && len(w.out.buf) == 0 && w.format == FlowsTSV && w.out.err == nil {
			if err := w.out.line(appendHeader(nil)); err != nil {
				return err
			}
		}
		by := w.uids[string(uid)]
		malicious := slices.ContainsFunc(by, func(m *mention) bool { _, yes := w.alerted[m.In]; return m.Counts && yes })
		w.line = w.appendLabel(append(w.line[:0], rec...), malicious, by)
		if w.out.line(w.line) == nil {
			w.stats.Records++
			if malicious {
				w.stats.Malicious++
			}
		}
	}
}

// readField reads a length and as many bytes into buf.
func readField(r *bufio.Reader, buf []byte) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return buf, err // io.EOF only when there is nothing at all
	}
	if n > 1<<30 {
		return buf, fmt.Errorf("field of %d bytes", n)
	}
	buf = slices.Grow(buf[:0], int(n))[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return buf, io.ErrUnexpectedEOF
	}
	return buf, nil
}

// Flush hands the lines written so far to the operating system. Spools are
// not flushed: nobody reads them, and Save does it for a restart.
func (w *FlowWriter) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.err, w.out.flush())
}

// Err returns the errors met so far, joined; nil for none.
func (w *FlowWriter) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.errLocked()
}

// Stats returns the counts so far.
func (w *FlowWriter) Stats() FlowStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.Lost += w.out.lost
	return s
}

func (w *FlowWriter) file() string { return w.name }

func (w *FlowWriter) lost() int64 { return w.Stats().Lost }

// mark flushes and syncs the flows file and returns its size.
func (w *FlowWriter) mark() (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.out.flush(); err != nil {
		return 0, err
	}
	return w.out.size, w.out.sync()
}

// resume cuts the flows file to mark. Spools that no checkpoint speaks of go
// with Load, or now when there is no checkpoint of flows.
func (w *FlowWriter) resume(mark int64, known bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.out.truncate(mark); err != nil {
		return err
	}
	if !known {
		return w.sweep(nil)
	}
	return nil
}

// sweep removes the spool files that are not in keep.
func (w *FlowWriter) sweep(keep map[string]bool) error {
	list, err := w.files()
	if err != nil {
		return err
	}
	for _, n := range list {
		if keep[n] {
			continue
		}
		if err := os.Remove(filepath.Join(w.dir, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return &WriteError{filepath.Join(w.dir, n), err}
		}
	}
	return nil
}

// savedFlows is the state of a FlowWriter in a checkpoint.
type savedFlows struct {
	Format   FlowFormat
	Spools   []spool
	Mentions []mention
	Stats    FlowStats
	Alerted  map[incident]int64
}

// Save writes the state to a checkpoint, at the same point of the stream as
// Dir.Marks. Spool files that the checkpoint names stay until the next but
// one Save, so a checkpoint must be safe on disk before the next Save.
func (w *FlowWriter) Save(enc *gob.Encoder) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := savedFlows{Format: w.format}
	for _, start := range sortedKeys(w.spools) {
		sp := w.spools[start]
		if err := w.spill(sp); err != nil {
			return err
		}
		if err := w.syncSpool(sp); err != nil {
			return err
		}
		s.Spools = append(s.Spools, *sp)
	}
	for _, id := range sortedKeys(w.evidence) {
		s.Mentions = append(s.Mentions, *w.evidence[id])
	}
	s.Alerted = maps.Clone(w.alerted)
	s.Stats = w.stats
	for _, n := range w.dying {
		if err := os.Remove(filepath.Join(w.dir, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.err = &WriteError{filepath.Join(w.dir, n), err}
			return w.err
		}
	}
	w.dying, w.closed, w.saved = w.closed, nil, true
	if err := enc.Encode(s); err != nil {
		return fmt.Errorf("save labelled flows: %w", err)
	}
	return nil
}

func (w *FlowWriter) syncSpool(s *spool) error {
	if !s.dirty {
		return nil
	}
	path := filepath.Join(w.dir, s.File)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		w.err = &WriteError{path, err}
		return w.err
	}
	s.dirty = false
	return nil
}

// Load replaces the state by what Save wrote, before the first record.
func (w *FlowWriter) Load(dec *gob.Decoder) error {
	var s savedFlows
	if err := dec.Decode(&s); err != nil {
		return fmt.Errorf("load labelled flows: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.Format != w.format {
		return fmt.Errorf("load labelled flows: they were saved as %q, the format is %q now", s.Format, w.format)
	}
	keep := make(map[string]bool)
	spools := make(map[int64]*spool)
	for i := range s.Spools {
		sp := &s.Spools[i]
		if sp.Size > 0 {
			path := filepath.Join(w.dir, filepath.Base(sp.File))
			st, err := os.Stat(path)
			if err != nil {
				return fmt.Errorf("load labelled flows: %w: %w", err, ErrChanged)
			}
			if st.Size() < sp.Size {
				return fmt.Errorf("load labelled flows: %s has %d bytes, the last checkpoint says %d: %w",
					path, st.Size(), sp.Size, ErrChanged)
			}
			if err := os.Truncate(path, sp.Size); err != nil {
				return &WriteError{path, err}
			}
			keep[sp.File] = true
		}
		w.tick++
		sp.used = w.tick
		spools[sp.Start] = sp
	}
	if err := w.sweep(keep); err != nil {
		return err
	}
	w.spools, w.saved = spools, true
	w.evidence, w.uids, w.entries = make(map[string]*mention), make(map[string][]*mention), 0
	w.alerted = make(map[incident]int64)
	maps.Copy(w.alerted, s.Alerted)
	for i := range s.Mentions {
		m := &s.Mentions[i]
		w.evidence[m.ID] = m
		w.entries += len(m.UIDs)
		for _, u := range m.UIDs {
			w.refer(u, m)
		}
	}
	w.stats = s.Stats
	return nil
}

// close writes the records of all open windows, the earliest first. Spool
// files that a checkpoint speaks of stay for a restart.
func (w *FlowWriter) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for _, start := range sortedKeys(w.spools) {
		if err := w.finish(w.spools[start]); err != nil {
			errs = append(errs, err)
			break
		}
	}
	if !w.saved && w.err == nil {
		// The directory is empty now; a reader need not wonder what it is for.
		_ = os.Remove(w.dir)
	}
	return errors.Join(append(errs, w.out.close())...)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
