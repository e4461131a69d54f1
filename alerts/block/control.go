package block

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// The verbs of a Command.
const (
	DoBlock   = "block"
	DoUnblock = "unblock"
	DoList    = "blocks"
)

// Command is what an operator asks of a running Manager: one JSON object, sent
// over the control socket, answered by one Reply.
type Command struct {
	Do       string        `json:"do"`
	Prefixes []string      `json:"prefixes,omitempty"` // of block and unblock; unblock without any needs All
	All      bool          `json:"all,omitempty"`
	For      time.Duration `json:"for,omitempty"` // of block, ns; 0 leaves it to the policy
	Reason   string        `json:"reason,omitempty"`
	By       string        `json:"by,omitempty"` // who asks, as the audit log shall have it
}

// Reply is the answer to a Command. It may hold both blocks and an error: what
// was done of several prefixes, and what of the others.
type Reply struct {
	Blocks []Listed `json:"blocks"` // blocked, unblocked, or all there are
	DryRun bool     `json:"dry_run,omitempty"`
	Errors []string `json:"errors,omitempty"`
}

// Listed is an Entry as Reply has it. Prefix has no length when it is one
// address, and the rest is empty for one that was unblocked. By and Reason are
// the operator's who asked, Alert is for one that nobody asked for.
type Listed struct {
	Prefix   string    `json:"prefix"`
	Until    time.Time `json:"until,omitzero"`
	Offences int       `json:"offences,omitempty"`
	Alert    string    `json:"alert,omitempty"`
	By       string    `json:"by,omitempty"`
	Reason   string    `json:"reason,omitempty"`
}

// Listed returns e as Reply has it.
func (e Entry) Listed() Listed {
	return Listed{Prefix: Text(e.Prefix), Until: e.Until, Offences: e.Offences, Alert: e.Alert, By: e.By, Reason: e.Reason}
}

// The bounds of a conversation.
const (
	maxCommand   = 1 << 20   // bytes
	maxReply     = 512 << 20 // bytes; maxMaxBlocked take some 150 each, and an operator's reason besides
	maxTalks     = 4         // at a time; more wait
	talkTimeout  = 10 * time.Second
	answerWithin = 2 * time.Minute // the client waits for the firewall
	acceptPause  = time.Second     // when the process has no descriptors left
)

// Listen makes the control socket at path, which its owner alone may use: the
// user and group given, or the process's own where they are -1. A socket that
// nobody listens on is replaced; another running Manager's is an error.
//
// Nobody else may be able to make files in its folder: he could take the socket
// away, or put his own there.
func Listen(ctx context.Context, path string, uid, gid int) (net.Listener, error) {
	var d net.Dialer
	if c, err := d.DialContext(ctx, "unix", path); err == nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: another slips does", path), c.Close())
	}
	if s, err := os.Lstat(path); err == nil && s.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("listen on %s: there is a file that is no socket", path)
	}
	// It is made where nobody else can reach it, and moved when its mode is set.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".slips-")
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // an empty folder of ours
	var c net.ListenConfig
	made := filepath.Join(dir, "s")
	l, err := c.Listen(ctx, "unix", made)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) //nolint:errcheck // what "unix" listens with
	if err = os.Chmod(made, 0o600); err == nil && (uid >= 0 || gid >= 0) {
		err = os.Lchown(made, uid, gid)
	}
	if err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), l.Close())
	}
	return &control{l, path}, nil
}

// control removes its socket when it is closed.
type control struct {
	net.Listener
	path string
}

// Close implements net.Listener. A process that has given up what it needs to
// remove the socket leaves it to the next one, which replaces it.
func (c *control) Close() error {
	err := os.Remove(c.path)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(c.Listener.Close(), err)
}

// Serve answers commands until ctx is done, and closes l.
func (m *Manager) Serve(ctx context.Context, l net.Listener) (err error) {
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var closed error
	wg.Go(func() {
		<-ctx.Done()
		closed = l.Close()
	})
	defer func() {
		stop()
		wg.Wait()
		err = errors.Join(err, closed)
	}()
	talks := make(chan struct{}, maxTalks)
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM),
			errors.Is(err, syscall.ECONNABORTED):
			m.log.Warn("a command was not accepted", "err", err)
			select {
			case <-time.After(acceptPause): //nolint:forbidigo // a pause of the machine, not of the traffic
			case <-ctx.Done():
			}
			continue
		default:
			return fmt.Errorf("accept on the control socket: %w", err)
		}
		talks <- struct{}{}
		wg.Go(func() {
			defer func() { <-talks }()
			if err := m.talk(ctx, c); err != nil {
				m.log.Warn("a command was not answered", "err", err)
			}
		})
	}
}

// talk answers the command that c brings.
func (m *Manager) talk(ctx context.Context, c net.Conn) (err error) {
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.SetReadDeadline(m.now().Add(talkTimeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) }) // the past: ends what waits
	defer stop()
	var cmd Command
	var r Reply
	d := json.NewDecoder(io.LimitReader(c, maxCommand))
	d.DisallowUnknownFields()
	if err := d.Decode(&cmd); err != nil {
		r.Errors = []string{fmt.Sprintf("read the command: %v", err)}
	} else {
		r = m.Do(ctx, cmd)
	}
	if err := c.SetWriteDeadline(m.now().Add(talkTimeout)); err != nil {
		return err
	}
	return json.NewEncoder(c).Encode(r)
}

// Do carries a command out. It waits for Run.
func (m *Manager) Do(ctx context.Context, cmd Command) Reply {
	r := Reply{DryRun: m.opt.Config.DryRun, Blocks: []Listed{}}
	fail := func(err error) { r.Errors = append(r.Errors, err.Error()) }
	by := cmd.By
	if by == "" {
		by = "operator"
	}
	var prefixes []netip.Prefix
	for _, s := range cmd.Prefixes {
		p, err := ParsePrefix(s)
		if err != nil {
			fail(err)
			continue
		}
		prefixes = append(prefixes, p)
	}
	switch {
	case cmd.Do == DoList:
		list, err := m.Blocks(ctx)
		if err != nil {
			fail(err)
		}
		for _, e := range list {
			r.Blocks = append(r.Blocks, e.Listed())
		}
		if err := m.trouble(ctx); err != nil {
			fail(err)
		}
	case cmd.For < 0:
		fail(fmt.Errorf("the duration is %v, want more than 0", cmd.For))
	case cmd.Do == DoBlock && len(cmd.Prefixes) > 0:
		for _, p := range prefixes {
			d, err := m.Block(ctx, Request{Prefix: p, For: cmd.For, Reason: cmd.Reason, By: by})
			if err != nil {
				fail(fmt.Errorf("%s: %w", Text(p), err))
				continue
			}
			r.Blocks = append(r.Blocks, Listed{Prefix: Text(p), Until: d.Until, Offences: d.Offences})
		}
	case cmd.Do == DoUnblock && (len(cmd.Prefixes) > 0) != cmd.All:
		if len(prefixes) == 0 && !cmd.All {
			break // none of them could be read: that is not all
		}
		ended, still, err := m.Unblock(ctx, by, cmd.Reason, prefixes...)
		for _, err := range still {
			fail(err)
		}
		if err != nil {
			fail(err)
		}
		for _, p := range ended {
			r.Blocks = append(r.Blocks, Listed{Prefix: Text(p)})
		}
	default:
		fail(fmt.Errorf("%q with %d prefixes, all %v: want %s or %s of prefixes, %s of all, or %s", cmd.Do, len(cmd.Prefixes), cmd.All,
			DoBlock, DoUnblock, DoUnblock, DoList))
	}
	return r
}

// trouble says that what is listed is not all in the firewall; nil when it is.
func (m *Manager) trouble(ctx context.Context) (err error) {
	_ = m.call(ctx, func(context.Context) { // a Manager that has stopped has been told of
		if m.failing != "" {
			err = fmt.Errorf("the firewall does not take changes, %d of these blocks wait for it: %s", len(m.owed), m.failing)
		} else if len(m.owed) > 0 {
			err = fmt.Errorf("%d of these blocks are not in the firewall yet; it is tried again", len(m.owed))
		}
	})
	return err
}

// Ask sends a command to the Manager that listens at path. An error that wraps
// fs.ErrNotExist or ECONNREFUSED means that none does; one that wraps
// ErrStranger, that somebody else may have put the socket there, and nothing
// was sent.
func Ask(ctx context.Context, path string, cmd Command) (r Reply, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return r, fmt.Errorf("ask the running slips: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := trust(path, c.(*net.UnixConn)); err != nil { //nolint:errcheck // what "unix" dials
		return r, fmt.Errorf("ask the running slips: %w", err)
	}
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return r, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }) // the past: ends what waits
	defer stop()
	if err := json.NewEncoder(c).Encode(cmd); err != nil {
		return r, fmt.Errorf("ask the running slips: %w", err)
	}
	if err := json.NewDecoder(io.LimitReader(c, maxReply)).Decode(&r); err != nil {
		return r, fmt.Errorf("read the answer of the running slips: %w", err)
	}
	return r, nil
}
