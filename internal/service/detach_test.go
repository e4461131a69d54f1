package service

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// bench is a pid file and a log of a test's own.
type bench struct {
	t        *testing.T
	pid, log string
}

func newBench(t *testing.T) bench {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask of who runs the test
		t.Fatal(err)
	}
	b := bench{t, filepath.Join(dir, "run", "slips.pid"), filepath.Join(dir, "log", "slips.out")}
	t.Cleanup(func() {
		if pid, err := Running(b.pid); err == nil && pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL) // one that this test has left
		}
	})
	return b
}

func (b bench) options(role string) Options {
	return Options{Args: []string{"-i", "eth0"}, Env: append(os.Environ(), "TEST_SERVICE="+role), PIDFile: b.pid, Log: b.log}
}

func (b bench) start(role string) int {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	pid, err := Detach(ctx, b.options(role))
	if err != nil {
		b.t.Fatal(err)
	}
	return pid
}

func (b bench) output() string {
	b.t.Helper()
	text, err := os.ReadFile(b.log)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

func TestDetachAndStop(t *testing.T) {
	b := newBench(t)
	pid := b.start("obeys")
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("pid %d\nleader true\nterminal false\nnull true\ndir %s\nleft false\nargs -i eth0\n", pid, dir)
	if d := cmp.Diff(want, b.output()); d != "" {
		t.Error(d)
	}
	text, err := os.ReadFile(b.pid)
	if d := cmp.Diff(strconv.Itoa(pid)+"\n", string(text)); d != "" || err != nil {
		t.Errorf("pid file: %v %s", err, d)
	}

	_, err = Detach(t.Context(), b.options("obeys"))
	var running *RunningError
	if !errors.As(err, &running) || running.PID != pid {
		t.Errorf("a second one: %v", err)
	}

	got, err := Stop(b.pid, time.Minute)
	if got != pid || err != nil {
		t.Errorf("stop: %d, %v; want %d", got, err, pid)
	}
	if !strings.HasSuffix(b.output(), "ended\n") {
		t.Errorf("it did not end in good order: %q", b.output())
	}
	if _, err := os.Stat(b.pid); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pid file is left: %v", err)
	}
	if _, err := Stop(b.pid, time.Minute); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a second stop: %v", err)
	}
}

// TestStalePIDFile: what stands in the file counts for nothing. The number may
// be that of somebody else by now.
func TestStalePIDFile(t *testing.T) {
	b := newBench(t)
	other := exec.Command("sleep", "60")
	if err := other.Start(); err != nil {
		t.Skipf("SKIPPED, there is no process to be spared: %v", err)
	}
	defer func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	}()
	if err := os.MkdirAll(filepath.Dir(b.pid), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.pid, []byte(strconv.Itoa(other.Process.Pid)+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if pid, err := Running(b.pid); pid != 0 || err != nil {
		t.Errorf("running: %d, %v", pid, err)
	}
	if _, err := Stop(b.pid, time.Minute); !errors.Is(err, ErrNotRunning) {
		t.Errorf("stop: %v", err)
	}
	pid := b.start("obeys")
	// Nor while the lock is held: the file says one process, the kernel another.
	if err := os.WriteFile(b.pid, []byte(strconv.Itoa(other.Process.Pid)+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := Stop(b.pid, time.Minute); got != pid || err != nil {
		t.Errorf("stop: %d, %v; want %d", got, err, pid)
	}
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the other process is gone: %v", err)
	}
}

func TestDetachFails(t *testing.T) {
	b := newBench(t)
	if err := os.MkdirAll(filepath.Dir(b.log), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.log, []byte("of an earlier run\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Detach(t.Context(), b.options("fails"))
	var start *StartError
	if !errors.As(err, &start) {
		t.Fatalf("got %v", err)
	}
	want := &StartError{Code: 3, State: "exit status 3", Output: `interface "eth9" is not there`, Log: b.log}
	if d := cmp.Diff(want, start); d != "" {
		t.Error(d)
	}
	if first, _, _ := strings.Cut(err.Error(), "\n"); first != want.Output {
		t.Errorf("the error begins with %q", first)
	}
	if _, err := Detach(t.Context(), Options{Program: "/nowhere/slips", PIDFile: b.pid, Log: b.log}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that is not there: %v", err)
	}
}

func TestDetachGivesUp(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := Detach(ctx, b.options("hangs"))
		done <- err
	}()
	deadline := time.Now().Add(time.Minute)
	for !strings.Contains(tail(b.log, 0), "still starting") {
		if time.Now().After(deadline) {
			t.Fatal("the process does not start")
		}
		select {
		case err := <-done:
			t.Fatalf("ended too early: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	pid, err := Running(b.pid)
	if pid == 0 || err != nil {
		t.Errorf("while it starts: %d, %v", pid, err)
	}
	cancel()
	err = <-done
	var start *StartError
	if !errors.As(err, &start) || !errors.Is(err, context.Canceled) || start.Output != "still starting" {
		t.Errorf("got %v", err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the process is left: %v", err)
	}
}

// TestStopStubborn: Stop says so, and does not kill; the lock of who was
// killed is free, and the file does not stand in the way.
func TestStopStubborn(t *testing.T) {
	b := newBench(t)
	pid := b.start("stubborn")
	got, err := Stop(b.pid, 50*time.Millisecond)
	if got != pid || err == nil || !strings.Contains(err.Error(), "has not ended within 50ms") {
		t.Errorf("stop: %d, %v", got, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		if now, err := Running(b.pid); now == 0 && err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the lock outlives the process")
		}
	}
	if _, err := os.Stat(b.pid); err != nil {
		t.Fatal(err)
	}
	b.start("obeys")
	if _, err := Stop(b.pid, time.Minute); err != nil {
		t.Error(err)
	}
}

func TestDetachOnlyOne(t *testing.T) {
	b := newBench(t)
	var wg sync.WaitGroup
	pids, errs := make([]int, 6), make([]error, 6)
	for i := range pids {
		wg.Go(func() { pids[i], errs[i] = Detach(t.Context(), b.options("obeys")) })
	}
	wg.Wait()
	winner, err := Running(b.pid)
	if err != nil {
		t.Fatal(err)
	}
	won := 0
	for i, pid := range pids {
		var running *RunningError
		switch {
		case errs[i] == nil && pid == winner:
			won++
		case !errors.As(errs[i], &running) || running.PID != winner:
			t.Errorf("pid %d, error %v; the one that runs is %d", pid, errs[i], winner)
		}
	}
	if won != 1 {
		t.Errorf("%d processes run", won)
	}
	if _, err := Stop(b.pid, time.Minute); err != nil {
		t.Error(err)
	}
}

func TestDetachOutlivesItsParent(t *testing.T) {
	b := newBench(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "TEST_SERVICE=parent", "TEST_PIDFILE="+b.pid, "TEST_LOG="+b.log)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr // a pipe that would stay open if the daemon had it
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	if pid, err := Stop(b.pid, time.Minute); pid == 0 || err != nil {
		t.Errorf("stop: %d, %v", pid, err)
	}
}

// TestChildrenHoldNothing: a child that outlives the daemon holds neither the
// lock nor the pipe by which the daemon says that it is ready.
func TestChildrenHoldNothing(t *testing.T) {
	if _, err := exec.LookPath("sleep"); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	end := func(b bench) {
		child := 0
		for s := bufio.NewScanner(strings.NewReader(b.output())); s.Scan(); {
			if v, ok := strings.CutPrefix(s.Text(), "child "); ok {
				child, _ = strconv.Atoi(v)
			}
		}
		if child <= 1 {
			t.Fatalf("no child in %q", b.output())
		}
		if err := syscall.Kill(child, syscall.SIGKILL); err != nil {
			t.Errorf("the child did not outlive the daemon, so nothing was tested: %v", err)
		}
	}
	b := newBench(t)
	b.start("child")
	if _, err := Stop(b.pid, time.Minute); err != nil {
		t.Error(err)
	}
	end(b)

	b = newBench(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := Detach(ctx, b.options("fails with a child"))
	var start *StartError
	if !errors.As(err, &start) || start.Code != 3 || start.Err != nil {
		t.Errorf("got %v", err)
	}
	end(b)
}

func TestAttach(t *testing.T) {
	d, env, err := Attach([]string{"A=1", "B=2"})
	if d != nil || err != nil || !cmp.Equal(env, []string{"A=1", "B=2"}) {
		t.Errorf("not detached: %v %q %v", d, env, err)
	}
	if err := errors.Join(d.Ready(), d.Close()); err != nil {
		t.Errorf("nothing to do, and yet: %v", err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "TEST_SERVICE=obeys", detachedEnv+"=/run/slips.pid")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "was not started detached") {
		t.Errorf("the variable alone: %v: %s", err, out)
	}
}

func TestPIDFileInBadPlaces(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if _, err := take(filepath.Join(open, "slips.pid")); err == nil || !strings.Contains(err.Error(), "written to by others") {
		t.Errorf("a folder for all: %v", err)
	}
	own := filepath.Join(dir, "own")
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	victim, link := filepath.Join(dir, "victim"), filepath.Join(own, "slips.pid")
	if err := os.WriteFile(victim, []byte("of value"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	if _, err := take(link); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a link: %v", err)
	}
	if b, err := os.ReadFile(victim); string(b) != "of value" || err != nil {
		t.Errorf("what the link leads to was changed: %q, %v", b, err)
	}
	if _, err := Stop(link, time.Second); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("stop: %v", err)
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	text := strings.Repeat("a line of some length\n", 1000) + "the last\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := tail(path, 0)
	if len(got) > maxOutput || !strings.HasPrefix(got, "a line of some length\n") || !strings.HasSuffix(got, "\nthe last") {
		t.Errorf("%d bytes, %q ... %q", len(got), got[:30], got[len(got)-30:])
	}
	if got := tail(path, int64(len(text)-9)); got != "the last" {
		t.Errorf("got %q", got)
	}
}

func TestPlaces(t *testing.T) {
	none := func(string) string { return "" }
	env := func(name string) string {
		return map[string]string{"XDG_RUNTIME_DIR": "/run/user/7", "XDG_STATE_HOME": "relative", "HOME": "/home/a"}[name]
	}
	for _, c := range []struct {
		env  func(string) string
		uid  int
		goos string
		want Places
	}{
		{env, 0, "linux", Places{"/run/slips/slips.pid", "/var/log/slips"}},
		{env, 0, "darwin", Places{"/var/run/slips/slips.pid", "/var/log/slips"}},
		{env, 7, "linux", Places{"/run/user/7/slips/slips.pid", "/home/a/.local/state/slips"}},
		{none, 7, "linux", Places{"/tmp/slips-7/slips.pid", "/tmp/slips-7/output"}},
	} {
		if d := cmp.Diff(c.want, places(c.env, c.uid, "/tmp", c.goos)); d != "" {
			t.Errorf("uid %d on %s: %s", c.uid, c.goos, d)
		}
	}
}
