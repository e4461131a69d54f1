package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/slips-go/slips/parsers"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/packet"
)

// trace is a capture: a file of packets, or several that belong together: a program that
// captures for long begins a new file from time to time, and connections go on
// from one to the next.
type trace struct {
	path  string // for people: of the file, or a pattern of theirs
	files []piece
}

// String says what it is.
func (c *trace) String() string {
	if n := len(c.files); n > 1 {
		return fmt.Sprintf("a packet capture in %d files", n)
	}
	return "a packet capture"
}

// piece is a file of a capture.
type piece struct {
	path  string
	first int64 // time of its first packet, unix ns; math.MaxInt64 without one
	link  packet.Link
}

// stream reports whether it is read as it comes.
func (s *packetSet) stream(c *trace) bool { return s.heads[c.files[0].path] != nil }

// isCapture reports whether a file begins like a capture, packed or not.
func isCapture(path string) (bool, error) {
	st, err := os.Stat(path)
	if err != nil || !st.Mode().IsRegular() {
		return false, err
	}
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // only read
	return holdsCapture(f), nil
}

// holdsCapture reports whether what is read begins like a capture, packed or not.
func holdsCapture(r io.Reader) bool {
	u, err := packet.Unpack(r)
	if err != nil { // it only seems to be packed
		return false
	}
	defer u.Close()
	return packet.IsCapture(u.Head(4))
}

// find sorts the inputs into captures and what is none. Nothing is changed, but
// that streams have begun to be read.
func (s *packetSet) find(ctx context.Context, o *runOptions) (rest []string, err error) {
	if o.Follow || o.Format != "auto" && o.Format != "" {
		return o.Paths, nil
	}
	if err := s.peek(ctx, o); err != nil {
		return nil, err
	}
	var files []piece
	seen := map[string]bool{}
	take := func(paths ...string) {
		for _, path := range paths {
			abs, err := filepath.Abs(path)
			if err != nil || path == stdinPath {
				abs = path
			}
			if !seen[abs] {
				seen[abs] = true
				files = append(files, s.glance(path))
			}
		}
	}
	for _, path := range o.Paths {
		st, err := os.Stat(path)
		pipe, isStream := s.heads[path]
		switch {
		case isStream && pipe != nil:
			take(path)
		case isStream:
			rest = append(rest, s.others[path])
		case err == nil && st.IsDir():
			found, err := s.inFolder(ctx, path)
			if err != nil {
				return nil, err
			}
			if take(found...); len(found) == 0 {
				rest = append(rest, path)
			}
		default:
			if is, err := isCapture(path); err == nil && is {
				take(path)
			} else if st != nil && st.Mode().IsRegular() && st.Size() == 0 && captureName.MatchString(path) {
				s.failed = append(s.failed, &parsers.Problem{Path: path, Err: errors.New("an empty file, and no capture")})
				rest = append(rest, path) // as it may be the only one
			} else {
				rest = append(rest, path)
			}
		}
	}
	s.captures = belongTogether(files)
	return rest, nil
}

// glance reads the first packet of a file. What is wrong with it is told by who
// reads it.
func (s *packetSet) glance(path string) piece {
	p := piece{path: path, first: math.MaxInt64}
	if s.heads[path] != nil {
		return p
	}
	f, err := os.Open(path)
	if err != nil {
		return p
	}
	defer func() { _ = f.Close() }() // only read
	r, err := packet.NewReader(f)
	if err != nil {
		return p
	}
	defer r.Close()
	if x, err := r.Next(); err == nil {
		p.first, p.link = x.Time, x.Link
	}
	return p
}

var digits = regexp.MustCompile(`[0-9]+`)

// belongTogether puts files together that differ by numbers in their names alone, as
// those do that tcpdump (-C, -G, -W), dumpcap and their like write one after
// the other: in the same folder, of the same link type. They are in the order of
// their first packets, those of the same time in that of their names, and so are
// the captures.
func belongTogether(files []piece) (list []*trace) {
	slices.SortStableFunc(files, func(a, b piece) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(filepath.Base(a.path), filepath.Base(b.path)))
	})
	type kind struct {
		pattern string
		link    packet.Link
	}
	known := map[kind]*trace{}
	for _, f := range files {
		dir, base := filepath.Split(f.path)
		k := kind{dir + strings.TrimRight(digits.ReplaceAllString(base, "*"), "*"), f.link}
		whole := f.first != math.MaxInt64 // else it is a stream, or there is nothing to go on
		if c := known[k]; c != nil && whole {
			c.files, c.path = append(c.files, f), dir+digits.ReplaceAllString(base, "*")
			continue
		}
		c := &trace{path: f.path, files: []piece{f}}
		if list = append(list, c); whole {
			known[k] = c
		}
	}
	return list
}

// firstPacket returns the time of the first packet of all captures, unix ns.
// There windows begin, whoever reads the packets: the first record may be of a
// connection that began later. It is 0 when not all of them tell.
func (s *packetSet) firstPacket() int64 {
	first := int64(math.MaxInt64)
	for _, c := range s.captures {
		if s.stream(c) {
			return 0 // it may begin earlier
		}
		for _, f := range c.files {
			if f.first >= flow.MinTime && f.first <= flow.MaxTime { // no record has another time
				first = min(first, f.first)
			}
		}
	}
	if first == math.MaxInt64 {
		return 0
	}
	return first
}

// inFolder returns the captures in a folder, or where it has neither captures
// nor logs, those one level down, as logs are looked for. None is returned for a
// folder of logs; captures and logs side by side could be the same traffic.
func (s *packetSet) inFolder(ctx context.Context, dir string) ([]string, error) {
	level := []string{dir}
	var failed []error
	for depth := range 2 {
		var captures, others, below []string
		for _, d := range level {
			list, err := os.ReadDir(d)
			if err != nil {
				continue // said by who looks for logs
			}
			for _, f := range list {
				path := filepath.Join(d, f.Name())
				st, err := os.Stat(path)
				if strings.HasPrefix(f.Name(), ".") || err != nil {
					continue
				}
				switch is, err := isCapture(path); {
				case ctx.Err() != nil:
					return nil, nil
				case st.IsDir():
					below = append(below, path)
				case err != nil:
					failed = append(failed, &parsers.Problem{Path: path, Err: err})
				case is:
					captures = append(captures, path)
				case st.Mode().IsRegular() && st.Size() > 0:
					others = append(others, path)
				}
			}
		}
		log, err := firstLog(others)
		switch {
		case err != nil:
			return nil, err
		case len(captures) > 0 && log != "":
			return nil, badFlags("%s has captures (such as %s) and logs (such as %s), which may be of the same traffic: name those of one kind, as in -f %s%c*%s",
				dir, filepath.Base(captures[0]), filepath.Base(log), filepath.Dir(captures[0]), filepath.Separator, filepath.Ext(captures[0]))
		case len(captures) > 0:
			for _, path := range others {
				if captureName.MatchString(path) {
					failed = append(failed, &parsers.Problem{Path: path, Err: packet.ErrFormat})
				}
			}
			s.failed = append(s.failed, failed...)
			return captures, nil
		case log != "" || depth > 0:
			return nil, nil
		}
		level = below
	}
	return nil, nil
}

// captureName matches what captures are called.
var captureName = regexp.MustCompile(`(?i)\.(pcap|pcapng|cap|dmp)[0-9]*(\.gz|\.zst)?$`)

// firstLog returns the first of some files that is a log of which anything is
// used; empty for none.
func firstLog(files []string) (string, error) {
	for _, path := range files {
		set, err := parsers.Open(parsers.Options{Paths: []string{path}})
		if err != nil {
			return "", err
		}
		for _, in := range set.Inputs {
			if in.Kinds != flow.NoKind {
				return path, nil
			}
		}
	}
	return "", nil
}

// peek looks how the streams among the inputs begin, all at a time, since they
// may wait for one another. Those of packets, and standard input, are kept with
// what was read; others are handed on under another name. It waits until
// something comes or ctx ends, and leaves a goroutine behind for each that then
// still waits.
func (s *packetSet) peek(ctx context.Context, o *runOptions) error {
	type look struct {
		path   string
		from   *os.File // nil: standard input
		head   *bufio.Reader
		packet bool
		err    error
	}
	looks := make(chan look, len(o.Paths))
	waiting := map[string]bool{}
	for _, path := range o.Paths {
		st, err := os.Stat(path)
		if waiting[path] || path != stdinPath && (err != nil || st.Mode()&fs.ModeNamedPipe == 0) {
			continue
		}
		waiting[path] = true
		from := o.Stdin
		go func() {
			l := look{path: path}
			if path != stdinPath {
				if l.from, l.err = os.Open(path); l.err != nil {
					looks <- l
					return
				}
				from = l.from
			}
			l.head = bufio.NewReaderSize(from, 64<<10)
			l.packet, l.head = begins(l.head)
			looks <- l
		}()
	}
	for range len(waiting) {
		var l look
		select {
		case l = <-looks:
		case <-ctx.Done():
			if waiting[stdinPath] {
				o.Stdin = strings.NewReader("") // what comes is the goroutine's
			}
			return nil
		}
		delete(waiting, l.path)
		switch {
		case l.err != nil: // said by who reads it
		case l.packet:
			s.heads[l.path] = l.head
		case l.path == stdinPath:
			o.Stdin = l.head
		default:
			name, err := s.pass(l.path, l.head, l.from)
			if err != nil {
				return err
			}
			s.heads[l.path], s.others[l.path] = nil, name
		}
		if l.from != nil {
			s.pipes = append(s.pipes, l.from)
		}
	}
	return nil
}

// begins reports whether a stream begins like a capture, packed or not, and
// returns the whole of it.
func begins(r *bufio.Reader) (bool, *bufio.Reader) {
	head, _ := r.Peek(4) // what is shorter is no capture
	if !packet.IsPacked(head) {
		return packet.IsCapture(head), r
	}
	var seen bytes.Buffer
	is := holdsCapture(io.TeeReader(r, &seen))
	return is, bufio.NewReaderSize(io.MultiReader(&seen, r), 64<<10)
}

// pass hands what comes through a pipe, of which some has been read, to another
// one, and returns a path by which that can be opened, with the same last
// element.
func (s *packetSet) pass(path string, from io.Reader, file *os.File) (name string, err error) {
	if s.folders == "" {
		if s.folders, err = os.MkdirTemp("", "slips-pipes-"); err != nil {
			return "", &codeError{exitOutput, err}
		}
	}
	dir, err := os.MkdirTemp(s.folders, "")
	if err != nil {
		return "", &codeError{exitOutput, err}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return "", fmt.Errorf("hand on %q: %w", path, err)
	}
	s.pipes = append(s.pipes, r, w)
	s.passing.Go(func() {
		_, _ = io.Copy(w, from) // an end of either is the end
		_ = w.Close()
		_ = file.Close()
	})
	name = filepath.Join(dir, filepath.Base(path))
	return name, os.Symlink(fmt.Sprintf("/dev/fd/%d", r.Fd()), name)
}

// userPath turns the path of what was passed on into the one that the user knows.
func (s *packetSet) userPath(path string) string {
	for is, name := range s.others {
		if name == path {
			return is
		}
	}
	return path
}

// endStreams gives pipes back.
func (s *packetSet) endStreams() error {
	for _, f := range s.pipes {
		_ = f.Close() // only read
	}
	s.passing.Wait()
	if s.folders == "" {
		return nil
	}
	return os.RemoveAll(s.folders)
}

// open opens a file of a capture. Reading from a stream ends with ctx, though the
// goroutine that waits for a silent one stays until something comes.
func (s *packetSet) open(ctx context.Context, path string) (io.ReadCloser, error) {
	head := s.heads[path]
	if head == nil {
		return os.Open(path)
	}
	from, to := io.Pipe()
	go func() {
		_, err := io.Copy(to, head)
		_ = to.CloseWithError(err) // which returns nil always; without an error it is the end of the file
	}()
	stop := context.AfterFunc(ctx, func() { _ = from.CloseWithError(context.Canceled) })
	return &stoppable{from, stop}, nil
}

// stoppable is a pipe that somebody else may end.
type stoppable struct {
	*io.PipeReader
	stop func() bool
}

// Close implements io.Closer.
func (s *stoppable) Close() error {
	s.stop()
	return s.PipeReader.Close()
}

// join returns the packets of a capture. fail, which may be nil, is told of what
// cannot be read.
func (s *packetSet) join(ctx context.Context, c *trace, fail func(path string, err error)) *joined {
	j := &joined{later: c.files, fail: fail, open: func(path string) (io.ReadCloser, error) { return s.open(ctx, path) }}
	if fail == nil {
		j.fail = func(string, error) {}
	}
	return j
}

// joined reads the files of a capture as one, in order of the packets' times: a
// file is opened when its first packet is due. One that cannot be read, or not to
// its end, is told of and left; the others go on.
type joined struct {
	open  func(path string) (io.ReadCloser, error)
	fail  func(path string, err error)
	later []piece
	parts []*part // open, in the order of files
	last  *part   // whose packet was returned
}

// part is a file that is open.
type part struct {
	path string
	file io.Closer
	r    *packet.Reader
	next packet.Packet
	n    int64 // packets read
}

// Next returns the next packet, whose data is valid until the call after it; the
// error is io.EOF.
func (j *joined) Next() (packet.Packet, error) {
	if j.last != nil {
		j.advance(j.last)
		j.last = nil
	}
	for {
		var first *part
		for _, p := range j.parts {
			if first == nil || p.next.Time < first.next.Time {
				first = p
			}
		}
		if len(j.later) == 0 || first != nil && first.next.Time < j.later[0].first {
			if first == nil {
				return packet.Packet{}, io.EOF
			}
			j.last = first
			return first.next, nil
		}
		j.begin(j.later[0].path)
		j.later = j.later[1:]
	}
}

// begin opens a file and reads its first packet.
func (j *joined) begin(path string) {
	f, err := j.open(path)
	if err != nil {
		j.fail(path, err)
		return
	}
	r, err := packet.NewReader(f)
	if err != nil {
		_ = f.Close() // only read
		if !errors.Is(err, context.Canceled) {
			j.fail(path, fmt.Errorf("reading a capture: %w", err))
		}
		return
	}
	p := &part{path: path, file: f, r: r}
	j.parts = append(j.parts, p)
	j.advance(p)
}

// advance reads the next packet of a file, which is closed when there is none.
func (j *joined) advance(p *part) {
	var err error
	if p.next, err = p.r.Next(); err == nil {
		p.n++
		return
	}
	if err != io.EOF && !errors.Is(err, context.Canceled) { //nolint:errorlint // Next returns it bare
		j.fail(p.path, fmt.Errorf("reading a capture behind packet %d: %w", p.n, err))
	}
	j.drop(p)
}

func (j *joined) drop(p *part) {
	p.r.Close()
	_ = p.file.Close() // only read
	j.parts = slices.DeleteFunc(j.parts, func(x *part) bool { return x == p })
}

// close closes what is open.
func (j *joined) close() {
	for len(j.parts) > 0 {
		j.drop(j.parts[0])
	}
}

// streams are what came in through pipes.
type streams struct {
	heads   map[string]*bufio.Reader // of packets, by path; nil: of something else
	others  map[string]string        // where that is passed on, by path
	pipes   []*os.File               // to be closed at the end
	folders string                   // of links to pipes; empty: there is none
	passing sync.WaitGroup
}
