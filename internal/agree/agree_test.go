package agree

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
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
//	SLIPS_ZEEK_TRACES the same: the folder of Zeek's own traces, testing/btest/Traces of its source
//	SLIPS_ZEEK_LOGS   a folder that keeps what zeek wrote, for the next run not to run it again
//	SLIPS_ROUNDS      how many captures of each sort are made
//	SLIPS_DIFF        how many examples of each sort of difference are printed

// meter returns what the built-in meter makes of a capture. Of one that is
// damaged it returns what came before, and the error.
func meter(ctx context.Context, path string) ([]*flow.Flow, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []*flow.Flow
	_, err = packet.Read(ctx, f, packet.Options{
		Next: func(flow.Kind) *flow.Flow {
			f := new(flow.Flow)
			all = append(all, f)
			return f
		},
	})
	return all, err
}

// setBack reports whether the times in a capture go back, by more than UDP may
// rest.
func setBack(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	r, err := packet.NewReader(f)
	if err != nil {
		return false
	}
	defer r.Close()
	for last := int64(0); ; {
		p, err := r.Next()
		if err != nil {
			return false
		}
		if p.Time < last-int64(time.Minute) {
			return true
		}
		last = max(last, p.Time)
	}
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

// zeekLogs runs zeek on a capture, into a folder. When it is there it is left
// as it is.
func zeekLogs(ctx context.Context, z zeekscripts.Zeek, path, dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	s, err := zeekscripts.New(zeekscripts.Options{
		Zeek: z, Pcap: path, Dir: dir, Log: slog.New(slog.DiscardHandler),
		// Zeek's own timeouts, which the meter's defaults are.
		TCPInactivity: 5 * time.Minute, Extra: []string{"tcp_attempt_delay=5sec"},
	})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// report prints a table and fails when it misses a bar.
func report(t *testing.T, table *Table) {
	t.Helper()
	if len(table.Captures) == 0 {
		t.Fatal("no captures")
	}
	t.Logf("%d captures\n%s", len(table.Captures), table)
	if os.Getenv("SLIPS_DIFF") != "" {
		n, err := strconv.Atoi(os.Getenv("SLIPS_DIFF"))
		if err != nil {
			t.Fatal("SLIPS_DIFF: ", err)
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
	z, err := zeekscripts.Find(t.Context(), os.Getenv("SLIPS_ZEEK"), nil)
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
			records, err := meter(t.Context(), path)
			if err != nil {
				t.Logf("%s: %v", name(path), err)
			}
			c, err := Compare(name(path), records, logs)
			if err != nil {
				t.Fatal(err)
			}
			c.SetBack = setBack(path)
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
		more := append(filepath.SplitList(os.Getenv("SLIPS_PCAPS")), filepath.SplitList(os.Getenv("SLIPS_ZEEK_TRACES"))...)
		if len(more) == 0 {
			t.Skip("NOT COMPARED on further captures: SLIPS_PCAPS names none")
		}
		z := live(t)
		compareLive(t, z, found(t, more...))
	})
}

// compareLive runs zeek and the meter on captures, on as many at a time as
// there are cores.
func compareLive(t *testing.T, z zeekscripts.Zeek, paths []string) {
	t.Helper()
	keep := os.Getenv("SLIPS_ZEEK_LOGS")
	all := make([]*Capture, len(paths))
	errs := make([]error, len(paths))
	jobs := make(chan struct{}, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i, path := range paths {
		jobs <- struct{}{}
		wg.Go(func() {
			defer func() { <-jobs }()
			dir := filepath.Join(t.TempDir(), "logs")
			if keep != "" {
				dir = filepath.Join(keep, filepath.Base(path))
			}
			if err := zeekLogs(t.Context(), z, path, dir); err != nil {
				t.Logf("%s: %v", filepath.Base(path), err) // some are no captures at all
				return
			}
			records, err := meter(t.Context(), path)
			if err != nil {
				t.Logf("%s: %v", filepath.Base(path), err)
			}
			if all[i], errs[i] = Compare(filepath.Base(path), records, dir); errs[i] == nil {
				all[i].SetBack = setBack(path)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	table := new(Table)
	for _, c := range all {
		if c != nil {
			table.Add(c)
		}
	}
	report(t, table)
}
