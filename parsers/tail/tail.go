// Package tail reads files as blocks of whole lines, plain or compressed,
// finished or still written, and says when they are rewritten or replaced. It
// knows no log format.
package tail

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// MaxLine is the longest line that is kept, in bytes with its newline. The
// longest honest lines are Suricata events with a payload and Zeek's DNS
// answers, well under 1 MiB; a longer line is passed over as it streams by, so
// that a file without newlines cannot take all memory.
const MaxLine = 16 << 20

const (
	chunk     = 64 << 10  // read at a time once a line is longer than a block
	headSize  = 4 << 10   // first bytes kept of a file to see that it was rewritten
	keepHeld  = 1 << 20   // a larger buffer is given back once its long line has passed
	maxWindow = 128 << 20 // zstd window, what --long=27 asks for: bounds the memory a file can claim
	maxHole   = 1 << 30   // bytes of a hole that Head looks beyond
)

// ErrTooLong is what File.Next and File.Last return for a line longer than
// MaxLine. The line was passed over; reading goes on behind it.
var ErrTooLong = errors.New("line too long")

// CorruptError says that the rest of a file cannot be read: a compressed
// stream that is cut or damaged, or a failing disk. What came before it was
// delivered.
type CorruptError struct {
	Path   string
	Offset int64 // of the first byte that could not be delivered, uncompressed
	Err    error
}

// Error implements error.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s: cannot read on from offset %d: %v", e.Path, e.Offset, e.Err)
}

// Unwrap gives the cause.
func (e *CorruptError) Unwrap() error { return e.Err }

// Compression is how a file is packed.
type Compression uint8

// The compressions. They are told by the first bytes, never by the name.
const (
	Plain Compression = iota
	Gzip
	Zstd
)

// Detect tells the compression from the first bytes of a file.
func Detect(head []byte) Compression {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return Gzip
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return Zstd
	case len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}):
		return Zstd // begins with a skippable frame, as pzstd writes
	}
	return Plain
}

// Head returns the first up to n bytes of the file at path, uncompressed and
// without the NUL bytes that it may begin with. Of a damaged file it returns
// what can be read; the error is for files that cannot be opened or read at all.
func Head(path string, n int) ([]byte, Compression, error) {
	f, err := Open(path)
	if err != nil {
		return nil, Plain, err
	}
	defer f.Close()
	buf, err := head(f.r, n)
	if len(buf) == 0 && err != nil && f.packing == Plain && !errors.Is(err, io.EOF) {
		return nil, Plain, err
	}
	return buf, f.packing, nil
}

// head reads n bytes behind the hole that a file begins with whose writer went
// on at his old place after it was truncated.
func head(r io.Reader, n int) ([]byte, error) {
	buf := make([]byte, n)
	m, err := io.ReadFull(r, buf)
	got := bytes.TrimLeft(buf[:m], "\x00")
	for hole := m; len(got) == 0 && err == nil && hole < maxHole; hole += m {
		m, err = io.ReadFull(r, buf)
		got = bytes.TrimLeft(buf[:m], "\x00")
	}
	if len(got) < m && err == nil { // fill up what the hole took
		m = copy(buf, got)
		var more int
		more, err = io.ReadFull(r, buf[m:])
		got = buf[:m+more]
	}
	return got, err
}

// Complete reports whether a compressed file is whole: it can be read to its
// end. It reads all of it.
func Complete(path string) (bool, error) {
	f, err := Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if f.err != nil {
		return false, nil
	}
	_, err = io.Copy(io.Discard, f.r)
	return err == nil, nil
}

// File is one file, or one stream, read line by line. It serves one goroutine.
type File struct {
	path    string
	f       *os.File // nil for a stream
	raw     raw
	r       io.Reader // uncompressed
	close   func()
	packing Compression
	stream  bool // hand over what there is instead of filling the block

	off   int64  // uncompressed, behind the last line returned
	held  []byte // the beginning of a line whose end has not come
	whole bool   // held has whole lines in it
	skip  int64  // bytes passed over of a line that is too long; 0: none
	short bool   // the last read found the end of what there is
	err   error  // what ends the file for good
}

// raw counts what is taken from the disk and keeps the first bytes of it.
type raw struct {
	r     io.Reader
	n     int64
	limit int64 // do not read beyond; -1: no limit
	head  []byte
	keep  bool
}

func (r *raw) Read(p []byte) (int, error) {
	if r.limit >= 0 {
		left := r.limit - r.n
		if left <= 0 {
			return 0, io.EOF
		}
		p = p[:min(int64(len(p)), left)]
	}
	n, err := r.r.Read(p)
	if r.keep && len(r.head) < headSize && int64(len(r.head)) == r.n {
		r.head = append(r.head, p[:min(n, headSize-len(r.head))]...)
	}
	r.n += int64(n)
	return n, err
}

// Open opens the file at path. The caller closes it.
func Open(path string) (*File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if st, err := file.Stat(); err != nil || st.IsDir() {
		_ = file.Close()
		if err == nil {
			err = fmt.Errorf("%s: is a directory", path)
		}
		return nil, err
	}
	f := &File{path: path, f: file, raw: raw{r: file, limit: -1}}
	var magic [4]byte
	n, err := file.ReadAt(magic[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		_ = file.Close()
		return nil, err
	}
	if err := f.unpack(magic[:n]); err != nil {
		f.Close()
		return nil, err
	}
	f.raw.keep = f.packing == Plain
	return f, nil
}

// Stream reads from r, which the caller closes. Next returns the lines that
// have come instead of waiting for a full block. It blocks until r has given
// its first bytes, which say whether it is compressed.
func Stream(name string, r io.Reader) (*File, error) {
	f := &File{path: name, stream: true, raw: raw{limit: -1}}
	var magic [4]byte
	n, err := io.ReadFull(r, magic[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	f.raw.r = io.MultiReader(bytes.NewReader(magic[:n]), r)
	if err := f.unpack(magic[:n]); err != nil {
		return nil, err
	}
	return f, nil
}

// unpack puts the decompressor in place that the first bytes ask for. Zstd
// runs without goroutines of its own; the reader's is one per source already.
func (f *File) unpack(magic []byte) error {
	f.packing = Detect(magic)
	f.r = &f.raw
	switch f.packing {
	case Plain:
	case Gzip:
		z, err := gzip.NewReader(&f.raw)
		if err != nil { // cut within its header: nothing to deliver, but a file all the same
			f.err = &CorruptError{Path: f.path, Err: eof(err)}
			f.r = bytes.NewReader(nil)
			return nil
		}
		f.r = z
	case Zstd:
		z, err := zstd.NewReader(&f.raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return fmt.Errorf("%s: %w", f.path, err)
		}
		f.r, f.close = z, z.Close
	}
	return nil
}

// eof gives the end of a file that should not have ended its proper name.
func eof(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Close gives up the file.
func (f *File) Close() {
	if f.close != nil {
		f.close()
	}
	if f.f != nil {
		_ = f.f.Close() // it was only read
	}
}

// Packing returns how the file is compressed. Only plain files grow.
func (f *File) Packing() Compression { return f.packing }

// Offset returns where the last line returned ends, in uncompressed bytes.
func (f *File) Offset() int64 { return f.off }

// Consumed returns how many bytes were taken from the disk.
func (f *File) Consumed() int64 { return f.raw.n }

// Held returns how many bytes of a line have come whose end has not.
func (f *File) Held() int64 { return int64(len(f.held)) + f.skip }

// AtEnd reports whether the last call of Next saw the end of what there is,
// so that the next one will most likely return io.EOF.
func (f *File) AtEnd() bool { return f.short && !f.whole }

// Limit makes Next take the first n bytes on disk for the whole file, however
// much it grows. It is for plain files.
func (f *File) Limit(n int64) { f.raw.limit = n }

// Stat describes the open file, wherever its name points by now.
func (f *File) Stat() (os.FileInfo, error) {
	if f.f == nil {
		return nil, os.ErrInvalid
	}
	return f.f.Stat()
}

// Head returns what the function of that name does of an open plain file as it
// is now, wherever its name points; of other files it returns nothing.
func (f *File) Head(n int) ([]byte, error) {
	if f.f == nil || f.packing != Plain {
		return nil, nil
	}
	buf, err := head(io.NewSectionReader(f.f, 0, math.MaxInt64), n)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return buf, nil
}

// Begin returns the first bytes of a plain file as they were read, up to a few
// KiB, whatever the file begins with by now. They must not be changed.
func (f *File) Begin() []byte { return f.raw.head }

// Rewritten reports whether a plain file is no longer the one that was read:
// it is shorter than what was read of it, or begins with other bytes.
func (f *File) Rewritten() (bool, error) {
	if f.f == nil || f.packing != Plain {
		return false, nil
	}
	st, err := f.f.Stat()
	if err != nil {
		return false, err
	}
	if st.Size() < f.raw.n {
		return true, nil
	}
	var now [headSize]byte
	n, err := f.f.ReadAt(now[:len(f.raw.head)], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return !bytes.Equal(now[:n], f.raw.head), nil
}

// Next reads whole lines into buf, which it grows to about size bytes, more
// for a line that is longer, and returns them, each with its newline. It
// reports io.EOF when there is no whole line: a growing plain file or one
// with a line half written may have more later. It reports ErrTooLong in the
// place of a line that is too long, and a *CorruptError when the rest of the
// file cannot be read; buf comes back empty then.
func (f *File) Next(buf []byte, size int) ([]byte, error) {
	if f.whole { // what came behind a line that was too long
		f.whole = false
		if i := bytes.LastIndexByte(f.held, '\n'); i >= 0 {
			buf = append(buf[:0], f.held[:i+1]...)
			f.held = append(f.held[:0], f.held[i+1:]...)
			f.off += int64(len(buf))
			return buf, nil
		}
	}
	if f.skip > 0 {
		return f.pass(buf)
	}
	if len(f.held) >= max(chunk, size) {
		return f.long(buf)
	}
	if cap(buf) < size {
		buf = make([]byte, 0, size)
	}
	buf = append(buf[:0], f.held...)
	for {
		n, err := f.fill(buf[len(buf):cap(buf)])
		fresh := buf[len(buf) : len(buf)+n]
		buf = buf[:len(buf)+n]
		if i := bytes.LastIndexByte(fresh, '\n'); i >= 0 {
			cut := len(buf) - n + i + 1
			f.held = append(f.held[:0], buf[cut:]...)
			f.off += int64(cut)
			return buf[:cut], nil
		}
		f.held = append(f.held, fresh...)
		if err != nil {
			return buf[:0], err
		}
		if len(buf) == cap(buf) {
			return f.long(buf)
		}
	}
}

// fill reads until p is full or the end, a stream only once. It returns an
// error only with no bytes.
func (f *File) fill(p []byte) (int, error) {
	if f.err != nil {
		f.short = true
		return 0, f.err
	}
	n, idle := 0, 0
	for n < len(p) {
		m, err := f.r.Read(p[n:])
		n += m
		if err != nil {
			f.short = true
			f.end(n, err)
			if n > 0 {
				return n, nil
			}
			if f.err != nil {
				return 0, f.err
			}
			return 0, io.EOF
		}
		if m == 0 {
			if idle++; idle > 100 {
				f.err = &CorruptError{Path: f.path, Offset: f.off, Err: io.ErrNoProgress}
				return n, nil
			}
			continue
		}
		if f.stream {
			break
		}
	}
	f.short = false
	return n, nil
}

// end notes what a read error means for the reads to come. The end of a plain
// file is not for good: it may grow.
func (f *File) end(n int, err error) {
	switch {
	case errors.Is(err, io.EOF) && f.packing == Plain && !f.stream:
	case errors.Is(err, io.EOF):
		f.err = io.EOF
	default:
		f.err = &CorruptError{Path: f.path, Offset: f.off + int64(len(f.held)+n), Err: err}
	}
}

// long goes on with a line that is longer than a block, collecting it in held
// so that each piece is copied once.
func (f *File) long(buf []byte) ([]byte, error) {
	for {
		n := len(f.held)
		if n >= MaxLine && f.held[0] == 0 { // a hole is no part of the line behind it
			rest := bytes.TrimLeft(f.held, "\x00")
			f.off += int64(n - len(rest))
			f.held = append(f.held[:0], rest...)
			n = len(rest)
		}
		if n >= MaxLine {
			f.skip, f.held = int64(n), nil
			return f.pass(buf)
		}
		want := min(chunk, MaxLine-n)
		if cap(f.held) < n+want {
			f.held = append(make([]byte, 0, min(2*(n+want), MaxLine)), f.held...)
		}
		m, err := f.fill(f.held[n : n+want])
		f.held = f.held[:n+m]
		if i := bytes.LastIndexByte(f.held[n:], '\n'); i >= 0 {
			cut := n + i + 1
			buf = append(buf[:0], f.held[:cut]...)
			rest := f.held[cut:]
			if cap(f.held) > keepHeld {
				f.held = nil
			}
			f.held = append(f.held[:0], rest...)
			f.off += int64(cut)
			return buf, nil
		}
		if err != nil {
			return buf[:0], err
		}
	}
}

// pass goes over the rest of a line that is too long.
func (f *File) pass(buf []byte) ([]byte, error) {
	if cap(buf) < chunk {
		buf = make([]byte, 0, chunk)
	}
	for {
		n, err := f.fill(buf[:chunk])
		if i := bytes.IndexByte(buf[:n], '\n'); i >= 0 {
			f.off += f.skip + int64(i) + 1
			f.skip = 0
			f.held = append(f.held[:0], buf[i+1:n]...)
			f.whole = len(f.held) > 0
			return buf[:0], ErrTooLong
		}
		f.skip += int64(n)
		if err != nil {
			return buf[:0], err
		}
	}
}

// Last returns the line that has no newline at the end of a file that will
// not grow any more, or nothing. Call it after Next has reported io.EOF.
func (f *File) Last(buf []byte) ([]byte, error) {
	if f.skip > 0 {
		f.off += f.skip
		f.skip = 0
		return buf[:0], ErrTooLong
	}
	buf = append(buf[:0], f.held...)
	f.off += int64(len(buf))
	f.held = nil
	return buf, nil
}

// Skip reads up to offset, in uncompressed bytes, and gives each line before
// it to line, without its newline and valid during the call only. With a nil
// line the lines are only counted. It returns how many there were, and an
// error when the file ends before.
func (f *File) Skip(offset int64, line func([]byte)) (lines int64, err error) {
	buf := make([]byte, 0, 4*chunk)
	for f.off < offset {
		block, err := f.Next(buf, 4*chunk)
		if errors.Is(err, ErrTooLong) {
			lines++
			continue
		}
		if err != nil {
			return lines, fmt.Errorf("%s: ends before offset %d: %w", f.path, offset, err)
		}
		if f.off > offset { // give back what lies behind
			cut := int64(len(block)) - (f.off - offset)
			f.held = append(append(make([]byte, 0, f.off-offset+int64(len(f.held))), block[cut:]...), f.held...)
			f.whole, f.off = true, offset
			block = block[:cut]
		}
		if line == nil {
			lines += int64(bytes.Count(block, []byte{'\n'}))
			continue
		}
		for len(block) > 0 {
			n := bytes.IndexByte(block, '\n')
			if n < 0 { // the offset does not begin a line
				n = len(block) - 1
				line(block)
			} else {
				line(block[:n])
			}
			lines++
			block = block[n+1:]
		}
	}
	return lines, nil
}
