package agree

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/packet"
	"github.com/slips-go/slips/zeekscripts"
)

// The environment of TestCompareZeek:
//
//	SLIPS_DATASETS    the shared data sets, ../shared/datasets beside the project by default
//	SLIPS_ZEEK        the zeek to run; without it one in PATH or the usual folders
//	SLIPS_PCAPS       further captures: files and folders, separated by colons
//	SLIPS_ZEEK_LOGS   a folder that keeps what zeek wrote, for the next run not to run it again
//	SLIPS_DIFF        how many examples of each sort of difference are printed

// meter returns what the built-in meter makes of a capture.
func meter(t *testing.T, path string) []*flow.Flow {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []*flow.Flow
	_, err = packet.Read(t.Context(), f, packet.Options{
		Next: func(flow.Kind) *flow.Flow {
			f := new(flow.Flow)
			all = append(all, f)
			return f
		},
	})
	if err != nil {
		t.Logf("%s: %v", filepath.Base(path), err)
	}
	return all
}

// isCapture reports whether a file is one by its name.
func isCapture(name string) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".pcap", ".pcapng", ".cap", ".trace":
		return true
	}
	return false
}

// found returns the captures in files and folders, sorted.
func found(t *testing.T, places ...string) []string {
	t.Helper()
	var all []string
	for _, p := range places {
		err := filepath.WalkDir(p, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && (path == p || isCapture(path)) {
				all = append(all, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(all)
	return all
}

// zeekLogs runs zeek on a capture and returns the folder of its logs. With
// keep, the folder is that, and what is there is not made again.
func zeekLogs(t *testing.T, z zeekscripts.Zeek, path, keep string) (string, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "logs")
	if keep != "" {
		dir = keep
		if _, err := os.Stat(dir); err == nil {
			return dir, nil
		}
	}
	s, err := zeekscripts.New(zeekscripts.Options{
		Zeek: z, Pcap: path, Dir: dir, Log: slog.New(slog.DiscardHandler),
		// Zeek's own timeouts, which the meter's defaults are.
		TCPInactivity: 5 * time.Minute, Extra: []string{"tcp_attempt_delay=5sec"},
	})
	if err != nil {
		return "", err
	}
	if err := s.Run(t.Context()); err != nil && !errors.Is(err, context.Canceled) {
		return "", err
	}
	return dir, nil
}

// report prints a table and fails when it misses a bar.
func report(t *testing.T, table *Table) {
	t.Helper()
	if len(table.Captures) == 0 {
		t.Fatal("no captures")
	}
	t.Logf("%d captures\n%s", len(table.Captures), table)
	if os.Getenv("SLIPS_DIFF") != "" {
		n := 0
		for _, c := range os.Getenv("SLIPS_DIFF") {
			n = n*10 + int(c-'0')
		}
		t.Logf("differences\n%s", table.Differences(n))
	}
	for _, m := range table.Missed() {
		t.Error(m)
	}
}

// datasets returns the folder of captures, or skips the test.
func datasets(t *testing.T) string {
	t.Helper()
	dir := cmp.Or(os.Getenv("SLIPS_DATASETS"), "../../../shared/datasets")
	dir = filepath.Join(dir, "pcap")
	if _, err := os.Stat(filepath.Join(dir, "zeek-logs")); err != nil {
		t.Skipf("NOT COMPARED with Zeek's logs: %v; SLIPS_DATASETS names the folder of the data sets", err)
	}
	return dir
}

// live returns the zeek of this machine, or skips the test.
func live(t *testing.T) zeekscripts.Zeek {
	t.Helper()
	z, err := zeekscripts.Find(t.Context(), os.Getenv("SLIPS_ZEEK"))
	if err != nil {
		t.Skipf("NOT COMPARED with a live zeek: %v; SLIPS_ZEEK is the path of one", err)
	}
	return z
}

// name is that of a capture without folder and ending.
func name(path string) string {
	return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
}

// TestCompareZeek prints how far the meter agrees with Zeek.
func TestCompareZeek(t *testing.T) {
	t.Run("logs", func(t *testing.T) {
		dir := datasets(t)
		table := new(Table)
		for _, path := range found(t, dir) {
			logs := filepath.Join(dir, "zeek-logs", name(path))
			if _, err := os.Stat(logs); err != nil {
				continue // Zeek had nothing to say
			}
			c, err := Compare(name(path), meter(t, path), logs)
			if err != nil {
				t.Fatal(err)
			}
			table.Add(c)
		}
		report(t, table)
	})
	t.Run("live", func(t *testing.T) {
		z := live(t)
		compareLive(t, z, found(t, datasets(t)))
	})
	t.Run("made", func(t *testing.T) {
		z := live(t)
		compareLive(t, z, made(t))
	})
	t.Run("more", func(t *testing.T) {
		more := os.Getenv("SLIPS_PCAPS")
		if more == "" {
			t.Skip("NOT COMPARED on further captures: SLIPS_PCAPS names none")
		}
		z := live(t)
		compareLive(t, z, found(t, filepath.SplitList(more)...))
	})
}

// compareLive runs zeek and the meter on captures.
func compareLive(t *testing.T, z zeekscripts.Zeek, paths []string) {
	t.Helper()
	table := new(Table)
	keep := os.Getenv("SLIPS_ZEEK_LOGS")
	for _, path := range paths {
		k := ""
		if keep != "" {
			k = filepath.Join(keep, filepath.Base(path))
		}
		logs, err := zeekLogs(t, z, path, k)
		if err != nil {
			t.Logf("%s: %v", filepath.Base(path), err) // some are no captures at all
			continue
		}
		c, err := Compare(filepath.Base(path), meter(t, path), logs)
		if err != nil {
			t.Fatal(err)
		}
		table.Add(c)
	}
	report(t, table)
}
