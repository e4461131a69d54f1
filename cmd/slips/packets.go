package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/parsers"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/packet"
)

// captureSet is the packet captures among the inputs of a run, each read by a
// meter of its own.
type captureSet struct {
	list []*packetFile

	mu     sync.Mutex // guards what is below
	failed []error
}

// packetFile is a file of packets.
type packetFile struct {
	path string
	src  *packet.Source
}

// findCaptures takes the packet captures out of the paths of a run. What
// cannot be opened is left to the readers of logs, who say why.
func findCaptures(o *runOptions, wake func()) (c *captureSet, rest []string) {
	c = new(captureSet)
	names := map[string]bool{}
	for _, path := range o.Paths {
		if o.Follow || o.Format != "auto" && o.Format != "" || !isCapture(path) {
			rest = append(rest, path)
			continue
		}
		name := filepath.Base(path)
		if names[name] {
			name = path
		}
		if names[name] {
			continue // given twice
		}
		names[name] = true
		src := packet.NewSource(name, path, packet.Options{LocalNets: homes(o.Config.Parameters.ClientIPs)}, wake)
		c.list = append(c.list, &packetFile{path, src})
	}
	return c, rest
}

// isCapture reports whether a file holds packets.
func isCapture(path string) bool {
	st, err := os.Stat(path)
	if err != nil || !st.Mode().IsRegular() {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // only read
	r, err := packet.NewReader(f)
	if r != nil {
		r.Close()
	}
	return err == nil || !errors.Is(err, packet.ErrFormat)
}

// inputs returns where the records come out.
func (c *captureSet) inputs() (in []flow.Input) {
	for _, x := range c.list {
		in = append(in, x.src.Input())
	}
	return in
}

// read reads a capture to its end, or until ctx is done.
func (c *captureSet) read(ctx context.Context, x *packetFile) error {
	f, err := os.Open(x.path)
	if err != nil {
		x.src.Close(ctx)
		c.fail(x, err)
		return nil
	}
	defer func() { _ = f.Close() }() // only read
	// The context may have ended by now because all records were taken.
	if _, err = x.src.Read(ctx, f); err != nil && !errors.Is(err, context.Canceled) {
		c.fail(x, err)
	}
	return nil
}

func (c *captureSet) fail(x *packetFile, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = append(c.failed, &parsers.Problem{Path: x.path, Err: err})
}

// problems returns the captures that could not be read to their end.
func (c *captureSet) problems() []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]error(nil), c.failed...)
}

// summarise adds what the meters did not use to the counts of their sources.
// Called once they have ended.
func (c *captureSet) summarise(s *export.Summary) {
	for _, x := range c.list {
		name := x.src.Input().Name
		for i := range s.Sources {
			if s.Sources[i].Name != name {
				continue
			}
			if s.Sources[i].Rejected == nil {
				s.Sources[i].Rejected = map[string]int64{}
			}
			for reason, n := range x.src.Stats().Reasons() {
				s.Sources[i].Rejected["packets: "+reason] += n
				s.Rejected["packets: "+reason] += n
			}
		}
	}
}

// text says in one line what is read by the meter.
func (c *captureSet) text() string {
	if len(c.list) == 1 {
		return fmt.Sprintf("%s: a packet capture, read by the built-in meter", c.list[0].path)
	}
	return fmt.Sprintf("%d packet captures, read by the built-in meter", len(c.list))
}
