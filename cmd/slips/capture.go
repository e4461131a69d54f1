package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/config"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/packet"
	"github.com/slips-go/slips/zeekscripts"
)

// errUnreadable says that a capture cannot be read as was asked. The problem is
// noted, and the other captures are read.
var errUnreadable = errors.New("the capture cannot be read")

// runZeek runs Zeek over a capture and returns the folder of its logs. When
// the meter shall read the capture instead the folder is empty, and why says
// why, unless Zeek was not wanted.
func (s *packetSet) runZeek(ctx context.Context, r *run, x *trace, name string) (dir, why string, err error) {
	if s.zeek.Path == "" || s.broken || s.stream(x) {
		return "", "", nil
	}
	c := r.o.Config
	auto := c.Parameters.Engine == config.Auto
	ready, err := s.readyForZeek(ctx, x)
	why = ready.why
	if err != nil {
		why = err.Error()
	}
	switch {
	case ctx.Err() != nil:
		return "", "", nil
	case auto && why != "":
		return "", why, nil
	case err != nil:
		s.fail(x.path, err)
		return "", "", errUnreadable
	case why != "":
		r.log.Warn("Zeek misses much of this capture; --engine builtin does not", "path", x.path, "reason", why)
	}
	if dir, err = s.folder(r, name); err != nil {
		return "", "", err
	}
	o := zeekscripts.Options{
		Zeek: s.zeek, Pcap: x.path, Dir: dir, Filter: c.Parameters.PcapFilter, TCPInactivity: c.Parameters.TCPInactivityTimeout.Duration(),
		Extra: c.Zeekscripts.Scripts, Log: r.log,
	}
	rewritten := func() error { return nil }
	if ready.rewrite {
		o.Packets, rewritten = s.rewrite(ctx, x, ready.link)
	}
	sup, err := zeekscripts.New(o)
	if err != nil {
		return "", "", errors.Join(err, rewritten())
	}
	r.ui.Note(fmt.Sprintf("%s: %s, read by Zeek %s", x.path, x, s.zeek.Version))
	err = sup.Run(ctx)
	cut := rewritten()
	var start *zeekscripts.StartError
	switch {
	case errors.As(err, &start) && auto:
		s.broken = !start.Input // it is not tried with the next one
		return "", err.Error(), os.RemoveAll(dir)
	case errors.As(err, &start):
		return "", "", withoutZeek(err)
	case err != nil: // it died on the way; what it has written counts
		s.fail(x.path, err)
	case cut != nil:
		s.fail(x.path, cut)
	}
	s.garbled(x.path, dir)
	for _, d := range ready.damage {
		s.fail(d.path, d.err)
	}
	s.byZeek = true
	return dir, "", nil
}

// folder makes a folder for what Zeek logs about a capture.
func (s *packetSet) folder(r *run, name string) (string, error) {
	base := filepath.Join(r.dir.Path(zeekFiles), cmp.Or(strings.NewReplacer("/", "_", "*", "N").Replace(strings.Trim(name, "/.")), "capture"))
	if err := os.MkdirAll(filepath.Dir(base), 0o755); err != nil {
		return "", &export.WriteError{Path: base, Err: err}
	}
	dir := base
	for i := 2; ; i++ {
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", &export.WriteError{Path: dir, Err: err}
		}
		dir = fmt.Sprintf("%s-%d", base, i)
	}
}

// maxCut is the part of the packets that may have been captured in part, in
// percent. Zeek does not look into those.
const maxCut = 10

// prepared is what Zeek has to know about a capture.
type prepared struct {
	rewrite bool        // it cannot read the files themselves
	link    packet.Link // of all packets then
	damage  []damage
	why     string // why Zeek is not the right one to read it
}

// damage is what is wrong with a file. What comes before it counts.
type damage struct {
	path string
	err  error
}

// readyForZeek looks through a capture. Zeek throws away all that it has
// learned when a capture is damaged or cut short, and neither unpacks nor reads
// on in another file: it gets the packets written anew then, which have to be of
// one link type.
func (s *packetSet) readyForZeek(ctx context.Context, c *trace) (p prepared, err error) {
	p.rewrite, p.link = len(c.files) > 1, packet.LinkEthernet
	var all survey
	for _, f := range c.files {
		packed, err := all.file(ctx, f.path, &p.damage)
		if err != nil {
			return p, err
		}
		p.rewrite = p.rewrite || packed
	}
	p.rewrite = p.rewrite || len(p.damage) > 0
	switch {
	case len(all.links) == 1:
		p.link = all.links[0]
	case len(all.links) > 1 && p.rewrite:
		return p, fmt.Errorf("it has packets of several link types (%d and %d), which Zeek does not read: use --engine builtin", all.links[0], all.links[1])
	}
	if 100*all.cut > maxCut*all.packets {
		p.why = fmt.Sprintf("%d of %d packets were captured in part, which Zeek does not look into", all.cut, all.packets)
	}
	return p, nil
}

// survey is what looking through files shows.
type survey struct {
	packets, cut int64
	links        []packet.Link // each once
}

// file reads a file to its end, its damage, or the end of ctx.
func (x *survey) file(ctx context.Context, path string, bad *[]damage) (packed bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // only read
	r, err := packet.NewReader(f)
	if err != nil {
		return false, fmt.Errorf("reading a capture: %w", err)
	}
	defer r.Close()
	for n := int64(0); n%checkEvery != 0 || ctx.Err() == nil; n++ {
		p, err := r.Next()
		if err == io.EOF { //nolint:errorlint // Next returns it bare
			break
		}
		if err != nil {
			*bad = append(*bad, damage{path, fmt.Errorf("behind packet %d: %w", n, err)})
			break
		}
		x.packets++
		if p.Length > len(p.Data) {
			x.cut++
		}
		if len(x.links) < 2 && !slices.Contains(x.links, p.Link) {
			x.links = append(x.links, p.Link)
		}
	}
	return r.Packed(), nil
}

// checkEvery is how many packets are read between looks at the context.
const checkEvery = 1024

// rewrite returns the packets of a capture as one of their link type, which are
// written as they are read, and what ends that and says why it ended too early,
// other than for who reads. A capture of no packets is one all the same.
func (s *packetSet) rewrite(ctx context.Context, c *trace, link packet.Link) (from io.Reader, end func() error) {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		j := s.join(ctx, c, nil) // what is wrong is known
		defer j.close()
		err := writeAll(w, j, link)
		_ = w.CloseWithError(err) // which returns nil always
		done <- err
	}()
	return r, func() error {
		_ = r.Close() // which returns nil always
		if err := <-done; !errors.Is(err, io.ErrClosedPipe) {
			return err
		}
		return nil
	}
}

// writeAll writes packets as a capture of a link type.
func writeAll(to io.Writer, j *joined, link packet.Link) error {
	w, err := packet.NewWriter(to, link)
	if err != nil {
		return err
	}
	for {
		p, err := j.Next()
		if err == io.EOF { //nolint:errorlint // Next returns it bare
			return w.Flush()
		}
		if err != nil {
			return err
		}
		if p.Time < flow.MinTime || p.Time > flow.MaxTime {
			continue // nonsense, which no engine looks at
		}
		if err := w.Write(p); err != nil {
			return err
		}
	}
}
