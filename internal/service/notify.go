// Package service makes a program one that runs by itself: it tells systemd
// how it is (Notifier), and it detaches from the terminal and is stopped again
// (Detach, Attach, Stop).
package service

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// sendTimeout is how long systemd may leave a message untaken. It reads them
// as soon as it gets its turn.
const sendTimeout = 5 * time.Second

// Notifier speaks the protocol of sd_notify(3). Its methods may be called by
// any goroutine, and do nothing when nobody is to be notified.
type Notifier struct {
	addr     *net.UnixAddr // nil: nobody
	watchdog time.Duration // systemd gives us up after this long without a word; 0: never
	log      *slog.Logger
}

// NewNotifier reads from the environment whom to notify (NOTIFY_SOCKET) and
// whether a watchdog waits (WATCHDOG_USEC, WATCHDOG_PID).
func NewNotifier(env func(string) string, log *slog.Logger) (*Notifier, error) {
	n := &Notifier{log: log}
	name := env("NOTIFY_SOCKET")
	if name == "" {
		return n, nil
	}
	if name[0] != '/' && name[0] != '@' { // @ stands for the abstract name space, in package net too
		return nil, fmt.Errorf("NOTIFY_SOCKET %q is no path and no abstract socket", name)
	}
	n.addr = &net.UnixAddr{Name: name, Net: "unixgram"}
	usec := env("WATCHDOG_USEC")
	if usec == "" {
		return n, nil
	}
	us, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || us <= 0 || us > int64(time.Duration(1<<63-1)/time.Microsecond) {
		return nil, fmt.Errorf("WATCHDOG_USEC %q is no number of microseconds", usec)
	}
	if pid := env("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) { // else it is for the process that started us
		n.watchdog = time.Duration(us) * time.Microsecond
	}
	return n, nil
}

// Enabled reports whether there is somebody to notify.
func (n *Notifier) Enabled() bool { return n.addr != nil }

// Ready says that the start, or a reload, is done, and what the program does.
func (n *Notifier) Ready(status string) error { return n.send("READY=1\nSTATUS=" + line(status)) }

// Status says in a few words what the program does, for "systemctl status".
func (n *Notifier) Status(text string) error { return n.send("STATUS=" + line(text)) }

// Reloading says that the configuration is being read again. Ready ends it.
func (n *Notifier) Reloading() error {
	us, err := monotonic()
	if err != nil {
		return err
	}
	return n.send("RELOADING=1\nMONOTONIC_USEC=" + strconv.FormatInt(us, 10))
}

// Stopping says that the program is on its way out. From then on systemd's
// watchdog is off.
func (n *Notifier) Stopping() error { return n.send("STOPPING=1") }

// Run keeps systemd's watchdog quiet until ctx ends, by a word at half of its
// time, but only while alive says that the work goes on. alive is called by
// Run alone. Run returns nil.
func (n *Notifier) Run(ctx context.Context, alive func() bool) error {
	if n.addr == nil || n.watchdog == 0 {
		<-ctx.Done()
		return nil
	}
	t := time.NewTicker(max(n.watchdog/2, time.Millisecond))
	defer t.Stop()
	stuck, mute := false, false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if !alive() {
			if !stuck {
				n.log.Error("nothing moves; systemd is not told that all is well, and will end the program", "watchdog", n.watchdog)
			}
			stuck = true
			continue
		}
		if stuck {
			n.log.Info("it moves again")
		}
		stuck = false
		err := n.send("WATCHDOG=1")
		if err != nil && !mute {
			n.log.Warn("the watchdog cannot be told that all is well", "err", err)
		}
		mute = err != nil
	}
}

// send hands a message to systemd. A socket is opened for each, so that one
// that went away and came back does not matter.
func (n *Notifier) send(msg string) error {
	if n.addr == nil {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, n.addr)
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	defer func() { _ = c.Close() }() // the message is sent or it is not
	if err := c.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	if _, err := c.Write([]byte(msg)); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// line makes one line of a text: in the protocol a line is a message.
func line(s string) string { return strings.Join(strings.FieldsFunc(s, lineEnd), " ") }

func lineEnd(r rune) bool { return r == '\n' || r == '\r' }

// Pulse says whether a loop still turns. Its zero value is ready.
type Pulse struct{ beats atomic.Uint64 }

// Beat says that the loop has come round. Any goroutine may call it.
func (p *Pulse) Beat() { p.beats.Add(1) }

// Watch returns a function that reports whether Beat was called since the
// function was called last. It may be called by one goroutine at a time; who
// else wants to know has a function of its own.
func (p *Pulse) Watch() (alive func() bool) {
	var seen uint64
	return func() bool {
		n := p.beats.Load()
		moved := n != seen
		seen = n
		return moved
	}
}
