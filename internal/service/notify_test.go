package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// manager is a service manager that listens at a socket.
type manager struct {
	t *testing.T
	c *net.UnixConn
}

func listen(t *testing.T, name string) manager {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return manager{t, c}
}

func (m manager) next() string {
	m.t.Helper()
	if err := m.c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		m.t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := m.c.Read(b)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b[:n])
}

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for _, p := range pairs {
			if v, ok := strings.CutPrefix(p, name+"="); ok {
				return v
			}
		}
		return ""
	}
}

// notebook is a log that a test reads.
type notebook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (n *notebook) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.Write(b)
}

func (n *notebook) count(s string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Count(n.b.String(), s)
}

func notifier(t *testing.T, pairs ...string) (*Notifier, *notebook) {
	t.Helper()
	var book notebook
	n, err := NewNotifier(env(pairs...), slog.New(slog.NewTextHandler(&book, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return n, &book
}

func TestNotify(t *testing.T) {
	names := []string{filepath.Join(t.TempDir(), "notify")}
	if runtime.GOOS == "linux" {
		names = append(names, fmt.Sprintf("@slips/test/%d", os.Getpid()))
	}
	for _, name := range names {
		m := listen(t, name)
		n, _ := notifier(t, "NOTIFY_SOCKET="+name)
		if !n.Enabled() {
			t.Errorf("%s: not enabled", name)
		}
		for _, c := range []struct {
			send func() error
			want string
		}{
			{func() error { return n.Ready("follows eth0") }, "READY=1\nSTATUS=follows eth0"},
			{func() error { return n.Status("two\nlines\r\n") }, "STATUS=two lines"},
			{n.Stopping, "STOPPING=1"},
		} {
			if err := c.send(); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if d := cmp.Diff(c.want, m.next()); d != "" {
				t.Errorf("%s: %s", name, d)
			}
		}
		if err := n.Reloading(); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := m.next(); !regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=[0-9]+$`).MatchString(got) {
			t.Errorf("%s: reloading is %q", name, got)
		}
	}
}

func TestNotifyNobody(t *testing.T) {
	n, _ := notifier(t, "WATCHDOG_USEC=1000")
	if n.Enabled() {
		t.Error("there is nobody, and yet it is enabled")
	}
	for _, err := range []error{n.Ready("a"), n.Status("b"), n.Reloading(), n.Stopping()} {
		if err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Run(ctx, func() bool { t.Error("asked for nobody"); return true }); err != nil {
		t.Error(err)
	}
}

func TestNotifyBadEnvironment(t *testing.T) {
	for _, c := range [][]string{
		{"NOTIFY_SOCKET=vsock:2:1234"},
		{"NOTIFY_SOCKET=/run/notify", "WATCHDOG_USEC=soon"},
		{"NOTIFY_SOCKET=/run/notify", "WATCHDOG_USEC=-1"},
		{"NOTIFY_SOCKET=/run/notify", "WATCHDOG_USEC=9223372036854775807"},
	} {
		if n, err := NewNotifier(env(c...), slog.Default()); err == nil {
			t.Errorf("%q: %+v", c, n)
		}
	}
	n, _ := notifier(t, "NOTIFY_SOCKET="+filepath.Join(t.TempDir(), "gone"))
	if err := n.Ready(""); err == nil {
		t.Error("nobody listens, and yet there is no error")
	}
	other, _ := notifier(t, "NOTIFY_SOCKET=/run/notify", "WATCHDOG_USEC=1000", "WATCHDOG_PID=1")
	if other.watchdog != 0 {
		t.Error("the watchdog of another process is taken for ours")
	}
}

// TestWatchdog: systemd hears from us while the work goes on, hears nothing
// while it does not, and again when it does.
func TestWatchdog(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	m := listen(t, name)
	n, book := notifier(t, "NOTIFY_SOCKET="+name, "WATCHDOG_USEC=4000", fmt.Sprintf("WATCHDOG_PID=%d", os.Getpid()))
	const stuckFor = 5
	var pulse Pulse
	alive := pulse.Watch()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	asked := 0
	go func() {
		done <- n.Run(ctx, func() bool {
			asked++
			if asked <= 3 || asked > 3+stuckFor {
				pulse.Beat()
			}
			if asked == 3+stuckFor { // all that was said until now was said while it was alive
				_ = n.Status("end of the bad time")
			}
			return alive()
		})
	}()
	var got []string
	for len(got) < 6 {
		got = append(got, m.next())
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	want := []string{"WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1", "STATUS=end of the bad time", "WATCHDOG=1", "WATCHDOG=1"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if book.count("nothing moves") != 1 || book.count("it moves again") != 1 {
		t.Errorf("the log: %s", book.b.String())
	}
}

func TestWatchdogThatCannotBeTold(t *testing.T) {
	n, book := notifier(t, "NOTIFY_SOCKET="+filepath.Join(t.TempDir(), "gone"), "WATCHDOG_USEC=2000")
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	err := n.Run(ctx, func() bool {
		if asked++; asked == 4 {
			cancel()
		}
		return true
	})
	if err != nil || book.count("cannot be told") != 1 {
		t.Errorf("%v; the log: %s", err, book.b.String())
	}
}

func TestPulse(t *testing.T) {
	var p Pulse
	one, two := p.Watch(), p.Watch()
	if one() {
		t.Error("alive before the first beat")
	}
	p.Beat()
	p.Beat()
	if !one() || one() {
		t.Error("two beats are to count once, until the next question")
	}
	if !two() {
		t.Error("one who asks takes the answer from another")
	}
}

// TestHealth: the file is fresh while the work goes on, old when it does not,
// and gone at the end.
func TestHealth(t *testing.T) {
	h := Health{Path: filepath.Join(t.TempDir(), "run", "health"), Every: 2 * time.Millisecond}
	if err := h.Check(time.Now()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("before the start: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	var good, bad error
	var touched, stuck time.Time
	err := h.Run(ctx, func() bool {
		st, err := os.Stat(h.Path)
		if err != nil {
			t.Error(err)
			cancel()
			return false
		}
		switch asked++; asked {
		case 1:
			good = h.Check(st.ModTime().Add(h.Every))
		case 3: // what was alive at the second time was written down
			touched = st.ModTime()
		case 10:
			stuck = st.ModTime()
			bad = h.Check(stuck.Add(10 * h.Every))
			cancel()
		}
		return asked < 3
	})
	if err != nil || good != nil {
		t.Errorf("run: %v; while it works: %v", err, good)
	}
	if bad == nil || !touched.Equal(stuck) {
		t.Errorf("while nothing moves: %v; touched at %v, and then at %v", bad, touched, stuck)
	}
	if err := h.Check(time.Now()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("at the end: %v", err)
	}
	h.Path = filepath.Join("/proc", "none", "health")
	if err := h.Run(t.Context(), func() bool { return true }); err == nil {
		t.Error("a file that cannot be made is no error")
	}
}
