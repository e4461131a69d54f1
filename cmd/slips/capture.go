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
	"strings"

	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/config"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/packet"
	"github.com/slips-go/slips/zeekscripts"
)

// isCapture reports whether a file begins like a capture, packed or not.
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
	u, err := packet.Unpack(f)
	if err != nil {
		return false
	}
	defer u.Close()
	return packet.IsCapture(u.Head(4))
}

// errUnreadable says that a capture cannot be read as was asked. The problem is
// noted, and the other captures are read.
var errUnreadable = errors.New("the capture cannot be read")

// runZeek runs Zeek over a capture and returns the folder of its logs. When
// the meter shall read the capture instead the folder is empty, and why says
// why, unless Zeek was not wanted.
func (s *packetSet) runZeek(ctx context.Context, r *run, path, name string) (dir, why string, err error) {
	if s.zeek.Path == "" || path == stdinPath {
		return "", "", nil
	}
	c := r.o.Config
	auto := c.Parameters.Engine == config.Auto
	if dir, err = s.folder(r, name); err != nil {
		return "", "", err
	}
	ready, err := s.readyForZeek(ctx, path, dir+".pcap")
	if ready.copied {
		defer func() { _ = os.Remove(dir + ".pcap") }() // in the output directory, where a user can see it
	}
	why = ready.why
	if err != nil {
		why = err.Error()
	}
	write := (*export.WriteError)(nil)
	switch {
	case ctx.Err() != nil:
		return "", "", nil
	case errors.As(err, &write):
		return "", "", err
	case auto && why != "":
		return "", why, os.RemoveAll(dir)
	case err != nil:
		s.fail(path, err)
		return "", "", errors.Join(errUnreadable, os.RemoveAll(dir))
	case why != "":
		r.log.Warn("Zeek misses much of this capture; --engine builtin does not", "path", path, "reason", why)
	}
	sup, err := zeekscripts.New(zeekscripts.Options{
		Zeek: s.zeek, Pcap: ready.path, Dir: dir, Filter: c.Parameters.PcapFilter, TCPInactivity: c.Parameters.TCPInactivityTimeout.Duration(),
		Extra: c.Zeekscripts.Scripts, Log: r.log,
	})
	if err != nil {
		return "", "", err
	}
	r.ui.Note(fmt.Sprintf("%s: a packet capture, read by Zeek %s", path, s.zeek.Version))
	err = sup.Run(ctx)
	var start *zeekscripts.StartError
	switch {
	case errors.As(err, &start) && auto:
		return "", err.Error(), os.RemoveAll(dir)
	case errors.As(err, &start):
		return "", "", err
	case err != nil: // it died on the way; what it has written counts
		s.fail(path, err)
	case ready.damage != nil:
		s.fail(path, ready.damage)
	}
	return dir, "", nil
}

// folder makes a folder for what Zeek logs about a capture.
func (s *packetSet) folder(r *run, name string) (string, error) {
	base := filepath.Join(r.dir.Path(zeekFiles), cmp.Or(strings.ReplaceAll(strings.Trim(name, "/."), "/", "_"), "capture"))
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

const (
	// maxCopy is how large the copy of a packed or damaged capture may be that
	// Zeek reads, in bytes. The meter needs none.
	maxCopy = 64 << 30
	// maxCut is the part of the packets that may have been captured in part, in
	// percent. Zeek does not look into those.
	maxCut = 10
)

// prepared is a capture as Zeek can read it.
type prepared struct {
	path   string // of the capture, or of a copy
	copied bool
	damage error  // the capture is damaged; the copy has what is before that
	why    string // why Zeek is not the right one to read it
}

// readyForZeek looks through a capture. Zeek throws away all that it has
// learned when a capture is damaged or cut short, and does not unpack: it gets a
// copy of the packets then.
func (s *packetSet) readyForZeek(ctx context.Context, path, copied string) (p prepared, err error) {
	f, err := os.Open(path)
	if err != nil {
		return p, err
	}
	defer func() { _ = f.Close() }() // only read
	r, err := packet.NewReader(f)
	if err != nil {
		return p, fmt.Errorf("reading a capture: %w", err)
	}
	packed := r.Packed()
	p.path = path
	var x survey
	if packed {
		p.path, p.copied = copied, true
		x, err = copyPackets(ctx, r, copied)
	} else {
		x, err = surveyPackets(ctx, r, nil)
	}
	r.Close()
	if err == nil && x.damage != nil && !packed {
		if _, err = f.Seek(0, io.SeekStart); err != nil {
			return p, err
		}
		if r, err = packet.NewReader(f); err != nil {
			return p, fmt.Errorf("reading a capture: %w", err)
		}
		p.path, p.copied = copied, true
		_, err = copyPackets(ctx, r, copied)
		r.Close()
	}
	p.damage = x.damage
	if 100*x.cut > maxCut*x.packets {
		p.why = fmt.Sprintf("%d of %d packets were captured in part, which Zeek does not look into", x.cut, x.packets)
	}
	return p, err
}

// survey is what looking through a capture shows.
type survey struct {
	packets, cut int64
	damage       error
}

// surveyPackets reads a capture to its end, its damage, or the end of ctx, and
// hands its packets to fn if that is not nil.
func surveyPackets(ctx context.Context, r *packet.Reader, fn func(packet.Packet) error) (x survey, err error) {
	for ; x.packets%1024 != 0 || ctx.Err() == nil; x.packets++ {
		p, err := r.Next()
		if err == io.EOF { //nolint:errorlint // Next returns it bare
			break
		}
		if err != nil {
			x.damage = fmt.Errorf("behind packet %d: %w", x.packets, err)
			break
		}
		if p.Length > len(p.Data) {
			x.cut++
		}
		if fn != nil {
			if err := fn(p); err != nil {
				return x, err
			}
		}
	}
	return x, nil
}

// copyPackets is surveyPackets and writes the packets to a file. A capture of
// several link types, which Zeek would not read either, and one that is too
// large are errors.
func copyPackets(ctx context.Context, r *packet.Reader, path string) (x survey, err error) {
	f, err := os.Create(path)
	if err != nil {
		return x, &export.WriteError{Path: path, Err: err}
	}
	var w *packet.Writer
	var link packet.Link
	var size int64
	x, err = surveyPackets(ctx, r, func(p packet.Packet) error {
		if w == nil {
			link = p.Link
			var err error
			if w, err = packet.NewWriter(f, link); err != nil {
				return &export.WriteError{Path: path, Err: err}
			}
		}
		if size += int64(len(p.Data)); size > maxCopy {
			return fmt.Errorf("unpacked it has more than %d GiB: unpack it yourself, or use --engine builtin, which reads it as it is", maxCopy>>30)
		}
		if p.Link != link {
			return fmt.Errorf("it has packets of several link types (%d and %d), which Zeek does not read: use --engine builtin", link, p.Link)
		}
		if p.Time < flow.MinTime || p.Time > flow.MaxTime {
			return nil // nonsense, which no engine looks at
		}
		if err := w.Write(p); err != nil {
			return &export.WriteError{Path: path, Err: err}
		}
		return nil
	})
	if w == nil && err == nil { // a capture of no packets is one all the same
		w, err = packet.NewWriter(f, packet.LinkEthernet)
	}
	if err == nil {
		err = w.Flush()
	}
	return x, errors.Join(err, f.Close())
}
