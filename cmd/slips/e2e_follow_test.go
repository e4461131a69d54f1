package main

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// follower is a run of slips --follow in this process.
type follower struct {
	out    string
	cancel context.CancelFunc
	done   chan int
	text   bytes.Buffer
}

func follow(t testing.TB, out string, args ...string) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	f := &follower{out: out, cancel: cancel, done: make(chan int, 1)}
	all := append([]string{"--follow"}, append(args, "-o", out, "--quiet")...)
	go func() { f.done <- Main(ctx, all, nil, strings.NewReader(""), &f.text, &f.text) }()
	t.Cleanup(cancel)
	return f
}

// cutShort returns how many followers of a directory were stopped before they
// had read all, as happens on a machine that is too slow. The next start reads
// the rest.
func cutShort(t testing.TB, out string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(out, "slips.log"))
	if errors.Is(err, fs.ErrNotExist) { // it has just been launched
		return 0
	}
	must(t, err)
	n := bytes.Count(text, []byte(textNotAllRead))
	if n > 0 {
		t.Logf("followers that had no time to read all: %d", n)
	}
	return n
}

// wait waits until something is so, for half a minute at most.
func wait(t testing.TB, what string, so func() bool) {
	t.Helper()
	look, deadline := time.NewTicker(2*time.Millisecond), time.After(30*time.Second)
	defer look.Stop()
	for !so() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// begun reports whether a follower's state on disk has records in it.
func begun(out string) bool {
	f, err := os.Open(filepath.Join(out, filepath.FromSlash(stateFile)))
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // only read
	var s savedState
	return gob.NewDecoder(f).Decode(&s) == nil && s.Engine != nil && s.Engine.Seq > 0
}

// stop asks the follower to end, as SIGTERM does, and waits for it.
func (f *follower) stop(t testing.TB) {
	t.Helper()
	asked := time.Now()
	f.cancel()
	select {
	case code := <-f.done:
		if code != 0 {
			t.Errorf("the follower ended with code %d: %s", code, f.text.String())
		}
	case <-time.After(time.Minute):
		t.Fatal("the follower does not end")
	}
	if d := time.Since(asked); d > 5*time.Second {
		t.Errorf("it took %v to end", d)
	}
}

// styles are the ways in which logs come to the disk.
func styles() map[string]style {
	return map[string]style{
		"pieces": {}, "whole": {whole: true}, "late": {late: true}, "rename": {rename: true}, "packed": {rename: true, packed: true},
		"copytruncate": {copied: true}, "late rename": {late: true, rename: true},
	}
}

// sources are the traffic for the tests of following.
func sources() map[string]func(testing.TB) string {
	return map[string]func(testing.TB) string{
		"demo": captured("demo"), "benign": captured("benign"), "suricata": captured("suricata"), "argus": captured("argus"),
		"isc-2021-10": shared("zeek/isc-2021-10"), "test9-mixed": shared("zeek/test9-mixed"), "simda-dga": shared("zeek/simda-dga"),
		"portscan": shared("zeek/portscan"),
	}
}

// Whatever way logs are written while they are followed, the evidence is that
// of the complete logs.
func TestFollowEqualsReplay(t *testing.T) {
	for name, input := range sources() {
		for how, s := range styles() {
			if testing.Short() && (s.late || s.packed) {
				continue
			}
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				path := input(t)
				want := replayed(t, path)
				dir, out := filepath.Join(t.TempDir(), filepath.Base(path)), filepath.Join(t.TempDir(), "out")
				w := newWriter(t, dir, loadLogs(t, path), s, seedOf(name+how))
				args := []string{dir, "--set", "follow.poll_interval=20ms", "--set", "profiler.idle_after=1m", "--set", "profiler.checkpoint_interval=100ms"}
				f := follow(t, out, args...)
				wait(t, "the first record, which decides where windows begin", func() bool { return begun(out) })
				for w.step() {
					w.pause(5 * time.Millisecond)
				}
				for starts := 1; ; starts++ {
					f.stop(t)
					if cutShort(t, out) < starts {
						break
					}
					f = follow(t, out, args...)
					wait(t, "the follower to go on", func() bool {
						return strings.Count(readFile(t, filepath.Join(out, "slips.log")), "continuing") == starts
					})
				}
				got := results(t, out)
				sameSet(t, "evidence", want.evidence, got.evidence)
				sameRecords(t, want, got)
				reportAlerts(t, want, got)
			})
		}
	}
}

// replayed runs the program on complete logs.
func replayed(t testing.TB, path string, args ...string) *outcome {
	t.Helper()
	out := filepath.Join(t.TempDir(), "replay")
	analyseFiles(t, out, append([]string{path}, args...)...)
	return results(t, out)
}

// sameRecords checks that each record was read, and read once, and that the
// same lines were passed over.
func sameRecords(t testing.TB, want, got *outcome) {
	t.Helper()
	sameKinds(t, want, got)
	a, b := want.summary, got.summary
	if a.Ignored != b.Ignored || !maps.Equal(a.Rejected, b.Rejected) {
		t.Errorf("%d ignored and %v rejected lines, want %d and %v", b.Ignored, b.Rejected, a.Ignored, a.Rejected)
	}
}

// sameKinds is sameRecords without the lines that were passed over.
func sameKinds(t testing.TB, want, got *outcome) {
	t.Helper()
	if a, b := want.summary.Kinds, got.summary.Kinds; !maps.Equal(a, b) {
		t.Errorf("records %v, want %v", b, a)
	}
}

// reportAlerts tells where alerts differ. They may, when evidence was found
// in another order, so this fails nothing but the count of alerted hosts.
func reportAlerts(t testing.TB, want, got *outcome) {
	t.Helper()
	a, b := want.alerts.hosts(), got.alerts.hosts()
	if fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("alerts on %v, want %v", b, a)
	}
	same := make(map[string]bool)
	for _, line := range want.alerts {
		same[line] = true
	}
	n := 0
	for _, line := range got.alerts {
		if !same[line] {
			n++
		}
	}
	if n > 0 || len(got.alerts) != len(want.alerts) {
		t.Logf("%d alerts, %d of them unlike those of the complete logs, which give %d", len(got.alerts), n, len(want.alerts))
	}
}

// seedOf makes a seed of a name; SLIPS_SEED gives others.
func seedOf(name string) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range name + os.Getenv("SLIPS_SEED") {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}
