package block

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestControl talks to a running manager as the command line does.
func TestControl(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "control")
	if _, err := Ask(ctx, path, Command{Do: DoList}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nobody there: %v", err)
	}
	var audit bytes.Buffer
	m, err := NewManager(Options{
		Config: Defaults(), Blocker: NewMemory(time.Now), Guard: guard(t), Audit: &audit, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen(ctx, path, -1, -1)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := os.Stat(path); err != nil || s.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the socket: %v, %v", s.Mode(), err)
	}
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 1 {
		t.Errorf("left behind: %v, %v", names, err)
	}
	running, cancel := context.WithCancel(ctx)
	done := make(chan error, 2)
	go func() { done <- m.Run(running) }()
	go func() { done <- m.Serve(running, l) }()

	if l, err := Listen(ctx, path, -1, -1); err == nil {
		l.Close()
		t.Error("two of them listen")
	}
	ask := func(c Command) Reply {
		t.Helper()
		r, err := Ask(ctx, path, c)
		if err != nil {
			t.Fatal(err)
		}
		for i := range r.Blocks {
			if u := r.Blocks[i].Until; !u.IsZero() {
				if d := time.Until(u); d < 9*time.Minute || d > 10*time.Minute {
					t.Errorf("ends in %v", d)
				}
				r.Blocks[i].Until = time.Time{}
			}
		}
		return r
	}
	for _, c := range []struct {
		name string
		cmd  Command
		want Reply
	}{
		{"nothing yet", Command{Do: DoList}, Reply{Blocks: []Listed{}}},
		{
			"block",
			Command{Do: DoBlock, Prefixes: []string{"192.0.2.1", "192.168.1.1", "10.1.1.0/24", "ten"}, For: 10 * time.Minute, By: "root", Reason: "test"},
			Reply{
				Blocks: []Listed{{Prefix: "192.0.2.1", Offences: 1}, {Prefix: "10.1.1.0/24", Offences: 1}},
				Errors: []string{`"ten" is neither an address nor a network`, "192.168.1.1: refused: gateway"},
			},
		},
		{"list", Command{Do: DoList}, Reply{Blocks: []Listed{
			{Prefix: "10.1.1.0/24", Offences: 1, By: "root", Reason: "test"}, {Prefix: "192.0.2.1", Offences: 1, By: "root", Reason: "test"},
		}}},
		{"unblock a part of a network", Command{Do: DoUnblock, Prefixes: []string{"10.1.1.7"}}, Reply{
			Blocks: []Listed{}, Errors: []string{"10.1.1.7 is still blocked, as a part of 10.1.1.0/24: unblock that"},
		}},
		{"unblock what holds a host", Command{Do: DoUnblock, Prefixes: []string{"192.0.2.0/24"}}, Reply{
			Blocks: []Listed{}, Errors: []string{"192.0.2.1, a part of 192.0.2.0/24, is still blocked by itself"},
		}},
		{"unblock what cannot be read", Command{Do: DoUnblock, Prefixes: []string{"ten"}}, Reply{Blocks: []Listed{}, Errors: []string{`"ten" is neither an address nor a network`}}},
		{"unblock one", Command{Do: DoUnblock, Prefixes: []string{"192.0.2.1", "192.0.2.2"}}, Reply{Blocks: []Listed{{Prefix: "192.0.2.1"}}}},
		{"unblock nothing", Command{Do: DoUnblock}, Reply{Blocks: []Listed{}, Errors: []string{`"unblock" with 0 prefixes, all false: want block or unblock of prefixes, unblock of all, or blocks`}}},
		{"unblock all", Command{Do: DoUnblock, All: true}, Reply{Blocks: []Listed{{Prefix: "10.1.1.0/24"}}}},
		{"for less than nothing", Command{Do: DoBlock, Prefixes: []string{"192.0.2.1"}, For: -1}, Reply{Blocks: []Listed{}, Errors: []string{"the duration is -1ns, want more than 0"}}},
		{"another verb", Command{Do: "stop"}, Reply{Blocks: []Listed{}, Errors: []string{`"stop" with 0 prefixes, all false: want block or unblock of prefixes, unblock of all, or blocks`}}},
	} {
		if diff := cmp.Diff(c.want, ask(c.cmd)); diff != "" {
			t.Errorf("%s\n%s", c.name, diff)
		}
	}
	for text, want := range map[string]string{"{\"do\":1}\n": "read the command", "{\"what\":1}\n": "unknown field", "nonsense\n": "invalid character"} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		c.Write([]byte(text))
		buf := make([]byte, 1000)
		n, _ := c.Read(buf)
		c.Close()
		if !strings.Contains(string(buf[:n]), want) {
			t.Errorf("%q is answered by %q", text, buf[:n])
		}
	}
	silent, err := net.Dial("unix", path) // must not keep it from stopping
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	stopped := time.Now()
	cancel()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if d := time.Since(stopped); d > talkTimeout-time.Second {
		t.Errorf("it stopped after %v", d)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	if !strings.Contains(audit.String(), `"reason":"test","by":"root"`) {
		t.Error(audit.String())
	}

	// After a crash the socket is there, and nobody behind it.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if l, err = Listen(ctx, path, -1, -1); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := Listen(ctx, path, -1, -1); err == nil {
		l.Close()
		t.Error("a file was replaced")
	}
}

// crowded is a listener that has no descriptor left at first.
type crowded struct {
	net.Listener
	refusals int
}

func (c *crowded) Accept() (net.Conn, error) {
	if c.refusals > 0 {
		c.refusals--
		return nil, &net.OpError{Op: "accept", Net: "unix", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return c.Listener.Accept()
}

// TestCrowded is reached again when the process has descriptors again.
func TestCrowded(t *testing.T) {
	m, err := NewManager(Options{Config: Defaults(), Blocker: NewMemory(time.Now), Guard: guard(t), Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	path := filepath.Join(t.TempDir(), "control")
	l, err := Listen(ctx, path, -1, -1)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	go func() { done <- m.Run(ctx) }()
	go func() { done <- m.Serve(ctx, &crowded{l, 1}) }()
	if r, err := Ask(ctx, path, Command{Do: DoList}); err != nil || len(r.Errors) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	cancel()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
