package export

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// ErrChanged is what Resume returns, wrapped, when a file is shorter than the
// checkpoint says: somebody else has been at the output directory.
var ErrChanged = errors.New("output was changed behind the last run")

// WriteError says that an output file can no longer be written, for example
// because the disk is full. It is sticky: the file takes nothing more, and
// every later call that would write it returns the same error.
type WriteError struct {
	Path string
	Err  error
}

// Error implements error.
func (e *WriteError) Error() string { return fmt.Sprintf("write %s: %v", e.Path, cause(e.Err)) }

// Unwrap gives the reason, such as syscall.ENOSPC.
func (e *WriteError) Unwrap() error { return e.Err }

// cause takes the operation and path out of err, which WriteError says itself.
func cause(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// bufferSize is what a file collects between two flushes at most.
const bufferSize = 64 << 10

// maxReadBack is the longest line that is recognised after a crash. A longer
// one is cut off with what follows it, and written again.
const maxReadBack = 4 << 20

// hash stands for a line that is already in a file.
type hash [sha1.Size]byte

// lineKey returns what identifies a line (without its newline) when it is
// written again, and whether the line is whole.
type lineKey func(line []byte) (key []byte, whole bool)

// wholeLine identifies a line of text by all of it. NUL bytes are what some
// file systems leave behind a power cut.
func wholeLine(line []byte) ([]byte, bool) {
	return line, len(line) > 0 && bytes.IndexByte(line, 0) < 0
}

// idLine returns a lineKey for JSON lines in which the id follows prefix.
func idLine(prefix string) lineKey {
	return func(line []byte) ([]byte, bool) {
		rest, ok := bytes.CutPrefix(line, []byte(prefix))
		if !ok || !bytes.HasSuffix(rest, []byte{'}'}) || bytes.IndexByte(rest, 0) >= 0 {
			return nil, false
		}
		i := bytes.IndexByte(rest, '"')
		return rest[:max(i, 0)], i > 0
	}
}

// outFile is one append-only file of lines.
type outFile struct {
	path string
	f    *os.File
	key  lineKey
	buf  []byte
	size int64 // bytes in the file, all of them whole lines
	err  error // sticky
	lost int64 // lines not written because of err

	// What a crash left in the file behind the checkpoint: skip says how
	// often each line is still to be left out, kept has them in file order,
	// and base is the size of the file up to the first that has not come again.
	skip map[hash]int
	kept []keptLine
	base int64
}

// keptLine is one line that a crash left in a file.
type keptLine struct {
	h hash
	n int64 // bytes, newline included
}

// openFile opens the file at path for appending, making it when needed.
func openFile(path string, key lineKey) (*outFile, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return nil, &WriteError{path, err}
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(&WriteError{path, err}, f.Close())
	}
	return &outFile{path: path, f: f, key: key, size: st.Size()}, nil
}

// line adds one line; b includes its newline. The file copies b.
func (o *outFile) line(b []byte) error {
	if o.err != nil {
		o.lost++
		return o.err
	}
	if len(o.skip) > 0 && o.again(b[:len(b)-1]) {
		return nil
	}
	o.kept = nil // see mark
	o.buf = append(o.buf, b...)
	if len(o.buf) >= bufferSize {
		return o.flush()
	}
	return nil
}

// again reports whether line is one that a crash left in the file, and that
// is not to be written a second time.
func (o *outFile) again(line []byte) bool {
	k, ok := o.key(line)
	h := hash(sha1.Sum(k))
	if !ok || o.skip[h] == 0 {
		return false
	}
	if o.skip[h]--; o.skip[h] == 0 {
		delete(o.skip, h)
	}
	if len(o.kept) > 0 && o.kept[0].h == h {
		o.base += o.kept[0].n
		o.kept = o.kept[1:]
	} else {
		o.kept = nil
	}
	return true
}

// mark returns the size of the file that goes with what was written so far.
// While lines that a crash left are coming again, that is less than the size
// of the file: a checkpoint taken now must not count those that have yet to
// come. They come in their order; once they do not, or another line comes
// first, the rest is taken for lines that will not come and counts as written.
func (o *outFile) mark() int64 {
	if len(o.kept) > 0 {
		return o.base
	}
	return o.size
}

// flush writes what was collected. After an error the file is cut back to
// its last whole line, as far as that is still possible.
func (o *outFile) flush() error {
	if o.err != nil || len(o.buf) == 0 {
		return o.err
	}
	n, err := o.f.Write(o.buf)
	if err != nil {
		whole := bytes.LastIndexByte(o.buf[:n], '\n') + 1
		o.lost += int64(bytes.Count(o.buf[whole:], []byte{'\n'}))
		o.size += int64(whole)
		o.err = &WriteError{o.path, err}
		if whole != n {
			// The reader sees a half line if this fails, and Resume cuts it;
			// there is nothing better to do on a disk that refuses writes.
			_ = o.f.Truncate(o.size)
		}
		o.buf = nil
		return o.err
	}
	o.size += int64(n)
	o.buf = o.buf[:0]
	return nil
}

// sync makes what was flushed survive a power cut.
func (o *outFile) sync() error {
	if o.err != nil {
		return o.err
	}
	if err := o.f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		o.err = &WriteError{o.path, err}
	}
	return o.err
}

// truncate cuts the file to mark.
func (o *outFile) truncate(mark int64) error {
	if o.size < mark {
		return fmt.Errorf("%s has %d bytes, the last checkpoint says %d: %w", o.path, o.size, mark, ErrChanged)
	}
	if o.size > mark {
		if err := o.f.Truncate(mark); err != nil {
			o.err = &WriteError{o.path, err}
			return o.err
		}
	}
	o.size = mark
	return nil
}

// readBack keeps the whole lines behind mark and remembers them, so that
// writing them again has no effect. What follows the last whole line is cut.
func (o *outFile) readBack(mark int64) (err error) {
	if o.size <= mark {
		return o.truncate(mark) // nothing behind it, or an error
	}
	r, err := os.Open(o.path)
	if err != nil {
		return fmt.Errorf("read back output: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if _, err := r.Seek(mark, io.SeekStart); err != nil {
		return fmt.Errorf("read back output: %w", err)
	}
	o.skip, o.kept, o.base = make(map[hash]int), nil, mark
	br, end := bufio.NewReaderSize(r, bufferSize), mark
	var line []byte
	for {
		if line, err = readLine(br, line[:0]); errors.Is(err, io.EOF) {
			break // a half-written line, none, or one that is too long to be ours
		}
		if err != nil {
			return fmt.Errorf("read back output: %w", err)
		}
		k, whole := o.key(line[:len(line)-1])
		if !whole {
			break
		}
		h := hash(sha1.Sum(k))
		o.skip[h]++
		o.kept = append(o.kept, keptLine{h, int64(len(line))})
		end += int64(len(line))
	}
	return o.truncate(end)
}

// readLine appends the next line, its newline included, to buf. The end of
// the file and a line beyond maxReadBack are io.EOF.
func readLine(r *bufio.Reader, buf []byte) ([]byte, error) {
	for {
		part, err := r.ReadSlice('\n')
		buf = append(buf, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return buf, err
		}
		if len(buf) > maxReadBack {
			return buf, io.EOF
		}
	}
}

// close flushes and closes the file.
func (o *outFile) close() error {
	err := o.flush()
	if cerr := o.f.Close(); cerr != nil && err == nil {
		o.err = &WriteError{o.path, cerr}
		err = o.err
	}
	return err
}

// replaceFile writes data to path so that a reader sees the old or the new
// content and never half of it.
func replaceFile(path string, data []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return &WriteError{path, err}
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		// The temporary file is of no use to anybody; the write error counts.
		_ = os.Remove(tmp)
		return &WriteError{path, err}
	}
	return nil
}
