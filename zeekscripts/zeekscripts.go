// Package zeekscripts finds Zeek on the machine, runs it with Slips' own
// scripts, watches over it, and unpacks those scripts for an operator's Zeek.
//
// It knows Zeek's command line and a few of its logs about itself (reporter,
// stats, capture_loss). What the other logs say is for the parsers to read.
package zeekscripts

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed scripts/*.zeek
var scripts embed.FS

// managed is the script that only a Zeek that we start ourselves loads.
const managed = "managed.zeek"

// Names returns the names of the scripts that Install writes, in order.
func Names() []string {
	entries, err := scripts.ReadDir("scripts")
	if err != nil {
		panic("BUG: zeekscripts: " + err.Error()) // the folder is compiled in
	}
	var names []string
	for _, e := range entries {
		if e.Name() != managed {
			names = append(names, e.Name())
		}
	}
	return names
}

// Install writes the scripts into dir, which it makes when it is not there, so
// that a Zeek of the operator's own loads them with "@load <dir>". Files of
// the same names are replaced, each at once; others are left alone. It does
// not write the settings of a Zeek that Slips starts.
func Install(dir string) error { return install(dir, Names()) }

func install(dir string, names []string) error {
	if dir == "" {
		return errors.New("unpacking zeek scripts: no folder given")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("unpacking zeek scripts: %w", err)
	}
	for _, n := range names {
		b, err := scripts.ReadFile("scripts/" + n)
		if err != nil {
			return fmt.Errorf("unpacking zeek scripts: %w", err)
		}
		if err := replace(filepath.Join(dir, n), b); err != nil {
			return fmt.Errorf("unpacking zeek scripts: %w", err)
		}
	}
	return nil
}

// replace writes b to a file beside path and renames it, so that a Zeek that
// starts meanwhile never loads half a script.
func replace(path string, b []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, b) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".slips-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// quote returns s as a string of Zeek's language.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// logsIn returns the names of the log files directly in dir, in order; none
// when there is no such folder.
func logsIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasSuffix(e.Name(), ".log") {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Garbled returns the names of the logs in dir that begin neither as JSON, which
// a Zeek of ours writes, nor as Zeek's own format: something else has been
// written, and no parser takes such a file for a log.
func Garbled(dir string) ([]string, error) {
	names, err := logsIn(dir)
	if err != nil {
		return nil, fmt.Errorf("looking at zeek's logs: %w", err)
	}
	var bad []string
	for _, name := range names {
		first, err := firstByte(filepath.Join(dir, name))
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, fs.ErrNotExist): // rotated meanwhile
		case err != nil:
			return bad, fmt.Errorf("looking at zeek's logs: %w", err)
		case first != '{' && first != '#':
			bad = append(bad, name)
		}
	}
	return bad, nil
}

func firstByte(path string) (byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // only read
	var b [1]byte
	_, err = io.ReadFull(f, b[:])
	return b[0], err
}
