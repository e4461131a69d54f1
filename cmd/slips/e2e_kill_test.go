//go:build unix

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is slips --follow as a process of its own, which can be killed.
type process struct {
	cmd  *exec.Cmd
	text bytes.Buffer
	done chan struct{}
	err  error // valid once done is closed
	run  string
	was  string // what run held before the start
}

// launch starts the program that TestMain has put into the path.
func launch(t testing.TB, out string, args ...string) *process {
	t.Helper()
	p := &process{
		cmd: exec.CommandContext(t.Context(), "slips", append(args, "-o", out, "--quiet")...), done: make(chan struct{}),
		run: filepath.Join(out, "metadata", "run.json"),
	}
	p.was = p.metadata()
	p.cmd.Stdout, p.cmd.Stderr = &p.text, &p.text
	must(t, p.cmd.Start())
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p
}

func (p *process) metadata() string {
	text, err := os.ReadFile(p.run)
	if err != nil {
		return "" // not written yet
	}
	return string(text)
}

// ready waits until the process has written its metadata, which it does after
// it began to handle signals.
func (p *process) ready(t testing.TB) {
	t.Helper()
	wait(t, "the process to begin", func() bool { return p.metadata() != p.was })
}

// end sends a signal, waits for the process and returns its exit code, or
// minus the signal that ended it.
func (p *process) end(t testing.TB, sig syscall.Signal) int {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		t.Fatalf("the process does not end: %s", p.text.String())
	}
	var exit *exec.ExitError
	switch {
	case p.err == nil:
		return 0
	case errors.As(p.err, &exit):
		if s := exit.Sys().(syscall.WaitStatus); s.Signaled() {
			return -int(s.Signal())
		}
		return exit.ExitCode()
	}
	t.Fatal(p.err)
	return 0
}

// stop ends a process in good order.
func (p *process) stop(t testing.TB) {
	t.Helper()
	p.ready(t)
	if code := p.end(t, syscall.SIGTERM); code != 0 {
		t.Fatalf("exit code %d: %s", code, p.text.String())
	}
}

// violence is how a follower is interrupted.
type violence struct {
	kills    int
	soon     bool // often within milliseconds of its start
	graceful bool // by SIGTERM, not SIGKILL
}

// However often a follower is killed or stopped while the logs are written,
// and started again, the evidence is that of one run that nothing disturbed.
// SLIPS_SEED=n tries other moments, and more combinations.
func TestKillEqualsNoKill(t *testing.T) {
	for name, input := range sources() {
		for how, s := range map[string]style{"pieces": {}, "rename": {rename: true}, "late": {late: true}, "copytruncate": {copied: true}} {
			// Rotated files that were written while nobody followed are read in
			// the order of the times in their first lines. Here lines tell of
			// times minutes apart, more than there are between rotations.
			if (s.rename || s.copied) && (name == "simda-dga" || name == "suricata") {
				continue
			}
			for end, v := range map[string]violence{
				"kill": {kills: 6}, "kill at once": {kills: 10, soon: true}, "stop": {kills: 5, graceful: true},
			} {
				// Killing takes time, so the usual run tries the inputs that have
				// the most to lose.
				usual := (name == "demo" || name == "isc-2021-10") && (how == "pieces" || how == "rename")
				if os.Getenv("SLIPS_SEED") == "" && !usual || testing.Short() && (name != "demo" || end == "stop") {
					continue
				}
				t.Run(strings.Join([]string{name, how, end}, "/"), func(t *testing.T) {
					t.Parallel()
					disturb(t, input(t), s, v, seedOf(name+how+end))
				})
			}
		}
	}
}

// disturb follows logs while they are written and interrupts the follower now and then.
func disturb(t *testing.T, path string, s style, v violence, seed uint64, extra ...string) {
	t.Helper()
	want := replayed(t, path, extra...)
	dir, out := filepath.Join(t.TempDir(), filepath.Base(path)), filepath.Join(t.TempDir(), "out")
	w := newWriter(t, dir, loadLogs(t, path), s, seed)
	intervals := []string{"100ms", "300ms", "10s"}
	args := []string{"--follow", dir, "--set", "follow.poll_interval=20ms", "--set", "profiler.idle_after=1m", "--set", "profiler.checkpoint_interval=" + intervals[w.rnd.IntN(3)]}
	args = append(args, extra...)
	p := launch(t, out, args...)
	sig := syscall.SIGKILL
	if v.graceful {
		sig = syscall.SIGTERM
	}
	for all, n := total(w.logs), v.kills; n > 0; n-- {
		for total(w.logs) > all*n/(v.kills+1) && w.step() {
			w.pause(5 * time.Millisecond)
		}
		if v.soon && w.rnd.IntN(2) == 0 {
			w.pause(40 * time.Millisecond)
		} else {
			w.pause(200 * time.Millisecond)
		}
		if code := p.end(t, sig); code > 0 {
			t.Fatalf("exit code %d: %s", code, p.text.String())
		}
		for range w.rnd.IntN(3) { // what is written while nobody follows must keep its place too
			w.step()
		}
		p = launch(t, out, args...)
		w.calm()
	}
	for w.step() {
		w.pause(5 * time.Millisecond)
	}
	for cut := cutShort(t, out); ; {
		p.stop(t)
		now := cutShort(t, out)
		if now == cut {
			break
		}
		cut = now
		p = launch(t, out, args...)
		p.ready(t)
	}
	got := results(t, out)
	sameSet(t, "evidence", want.evidence, got.evidence)
	sameKinds(t, want, got)
	sameFlows(t, want, got)
	sameRecorded(t, want, got)
	reportAlerts(t, want, got)
	if t.Failed() {
		t.Fatalf("seed %d; slips.log:\n%s", seed, tailOf(readFile(t, filepath.Join(out, "slips.log"))))
	}
}

func total(logs []*growing) (n int) {
	for _, g := range logs {
		n += g.left()
	}
	return n
}

// tailOf returns the last lines of a text.
func tailOf(s string) string { return s[max(0, len(s)-4000):] }
