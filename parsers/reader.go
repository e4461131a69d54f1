package parsers

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/tail"
)

const (
	// Blocks begin small, so that the first record of a file comes out at
	// once, and double up to where reading in larger ones gains nothing.
	firstBlock = 16 << 10
	lastBlock  = 256 << 10
	// All sources together hold no more than this in blocks, as long as that
	// leaves each firstBlock.
	allBlocks = 128 << 20

	keepData = 1 << 20 // a batch's memory is given back when a long line made it larger

	// A file that was replaced under its name is finished once it has not
	// grown for this long: a writer of several threads may still hold lines
	// for it.
	quiet = 50 * time.Millisecond

	// Who rotates by copying gives a row of copies new names one after the other,
	// in far less than this.
	renaming = 200 * time.Millisecond
)

// reader reads one source. It serves one goroutine.
type reader struct {
	s   *Set
	src *source
	log throttle

	pool chan *flow.Batch
	made int
	b    *flow.Batch // being filled; nil: none in hand
	max  int         // largest block

	seg  flow.Segment // what batches carry
	dec  Decoder
	form *format // that dec is of
	line int64   // lines of the segment seen
	idle bool    // Idle was sent since the last lines
	pump *pump   // of a stream

	timer *time.Timer
}

func (s *Set) newReader(src *source) *reader {
	s.mu.Lock()
	n := max(1, len(s.sources))
	s.mu.Unlock()
	r := &reader{
		s: s, src: src, pool: make(chan *flow.Batch, s.opts.Batches), max: max(firstBlock, min(lastBlock, allBlocks/(s.opts.Batches*n))),
		log: throttle{log: s.log, level: slog.LevelWarn, now: s.opts.Now, source: src.name},
	}
	if s.owns(src.root) {
		r.log.level = slog.LevelDebug
	}
	return r
}

// run reads the source to its end, or until ctx is done.
func (r *reader) run(ctx context.Context) {
	defer close(r.src.c)
	defer r.log.flush()
	r.timer = time.NewTimer(r.s.opts.Poll)
	defer r.timer.Stop()
	for ctx.Err() == nil {
		seg, final := r.take()
		switch {
		case seg != nil:
			r.read(ctx, seg)
			r.leave()
		case final:
			if r.batch(ctx) {
				r.send(flow.Ended)
			}
			return
		default:
			r.wait(ctx, r.s.opts.Poll)
		}
	}
}

// take makes the next segment the current one.
func (r *reader) take() (seg *segment, final bool) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	src := r.src
	if len(src.queue) == 0 {
		return nil, src.final
	}
	if src.queue[0].cut {
		// A reader that is behind may have missed more than one rotation: what was
		// copied in between is older than what the file holds now.
		r.s.look(src.root)
	}
	seg = src.queue[0]
	src.queue[0] = nil
	src.queue = src.queue[1:]
	src.cur = seg
	seg.opened = seg.path
	n := src.next
	if seg.again > 0 {
		n = seg.again - 1
	} else {
		src.next++
	}
	r.seg = flow.Segment{Path: seg.path, Print: seg.print, N: n}
	r.line = 0
	if r.b != nil {
		r.b.End = 0 // leave has sent what came of the file before
	}
	return seg, src.final
}

// leave ends the current segment. What it did not deliver goes out with the
// next batch, except that a batch never spans two segments.
func (r *reader) leave() {
	if r.b != nil && (len(r.b.Flows)+len(r.b.Rejects) > 0 || r.b.End > 0) {
		r.send(flow.More)
	}
}

// batch takes an empty batch in hand, waiting for one to come back when all
// are out. It reports false when ctx ends first.
func (r *reader) batch(ctx context.Context) bool {
	if r.b != nil {
		return true
	}
	select {
	case r.b = <-r.pool:
	default:
		if r.made < cap(r.pool) {
			r.made++
			pool := r.pool
			r.b = flow.NewBatch(func(b *flow.Batch) { pool <- b })
			return true
		}
		select {
		case r.b = <-r.pool:
		case <-ctx.Done():
			return false
		}
	}
	if cap(r.b.Data) > keepData {
		r.b.Data = nil
	}
	r.b.Reuse()
	return true
}

// send queues the batch in hand. It never waits: the channel has room for all
// batches there are.
func (r *reader) send(mark flow.Mark) {
	r.b.Segment, r.b.Mark = r.seg, mark
	r.idle = mark == flow.Idle
	r.src.c <- r.b
	r.b = nil
	r.s.wake()
}

// wait waits for news, having said that there is nothing to do. It reports
// false when ctx ends.
func (r *reader) wait(ctx context.Context, d time.Duration) bool {
	if r.s.opts.Follow && !r.idle {
		if !r.batch(ctx) {
			return false
		}
		r.send(flow.Idle)
	}
	return r.pause(ctx, d)
}

func (r *reader) pause(ctx context.Context, d time.Duration) bool {
	r.timer.Reset(d)
	select {
	case <-ctx.Done():
		return false
	case <-r.src.wake:
	case <-r.timer.C:
	}
	return true
}

// reject notes a line that was not decoded in the batch in hand.
func (r *reader) reject(err error) {
	if err == flow.ErrIgnored || errors.Is(err, flow.ErrIgnored) { //nolint:errorlint // nearly always bare
		r.b.Rejects = append(r.b.Rejects, flow.Reject{Before: len(r.b.Flows), Ignored: true})
		return
	}
	reason := flow.Reason(err)
	r.b.Rejects = append(r.b.Rejects, flow.Reject{Before: len(r.b.Flows), Reason: reason})
	r.log.reject(reason, err, r.seg.Path, r.line)
}

// lost notes that the rest of a file cannot be read.
func (r *reader) lost(ctx context.Context, path string, err error) {
	if !r.batch(ctx) {
		return
	}
	r.b.Rejects = append(r.b.Rejects, flow.Reject{Before: len(r.b.Flows), Reason: flow.Reason(flow.ErrTruncated)})
	level := slog.LevelDebug // who replays reads it at once among the problems
	if r.s.opts.Follow {
		level = slog.LevelError
	}
	var corrupt *tail.CorruptError
	reason := err
	if errors.As(err, &corrupt) {
		reason = corrupt.Err // the path is said
	}
	r.s.log.Log(ctx, level, "the rest of the file cannot be read",
		"source", r.src.name, "file", path, "after_line", r.line, "err", reason)
	r.fail(path, err)
}

// fail notes what is wrong with the input.
func (r *reader) fail(path string, err error) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.s.problem(path, err)
}

// decode decodes the lines in the batch's data, which begin at offset at.
func (r *reader) decode(at int64) {
	b, data := r.b, r.b.Data
	b.End = at + int64(len(data))
	for len(data) > 0 {
		line := data
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			line, data = data[:i], data[i+1:]
			at += int64(i) + 1
		} else {
			data = nil
			at += int64(len(line))
		}
		r.line++
		f := b.Next()
		err := decodeLine(r.dec, f, line)
		if err == nil {
			f.End = at
			continue
		}
		b.Drop()
		if err != flow.ErrHeader { //nolint:errorlint // decoders return it bare
			r.reject(err)
		}
	}
}

// read reads one segment to its end, and does not return before a growing one
// has one.
func (r *reader) read(ctx context.Context, seg *segment) {
	f := r.open(ctx, seg)
	if f == nil {
		r.s.total.Add(-seg.size)
		return
	}
	c := cursor{reader: r, seg: seg, f: f, size: firstBlock, grown: time.Now()}
	defer c.end()
	if !c.begin(ctx) {
		return
	}
	for c.step(ctx) {
	}
}

// open opens a segment, wherever it is by now.
func (r *reader) open(ctx context.Context, seg *segment) *tail.File {
	if seg.stream {
		r.pump = newPump(ctx, r.s, seg.path)
		if r.s.opts.Follow && !r.wait(ctx, 0) {
			return nil
		}
		f, err := tail.Stream(seg.path, r.pump)
		if err != nil {
			if ctx.Err() == nil {
				r.lost(ctx, seg.path, err)
			}
			return nil
		}
		return f
	}
	r.s.mu.Lock()
	path, info, print := seg.path, seg.info, seg.print
	r.s.mu.Unlock()
	f, err := tail.Open(path)
	if err == nil {
		if same(f, info) {
			return f
		}
		p, err := printOf(path, seg.format)
		if err == nil && p == print && print != "" || print == "" && sameFile(f, info) {
			return f
		}
		f.Close()
	}
	// Renamed, compressed, or overwritten since it was found.
	moved, ok := r.s.find(r.src.root, seg, filepath.Base(path))
	if ok {
		if f, err = tail.Open(moved); err == nil {
			r.s.log.Info("log moved", "source", r.src.name, "from", path, "to", moved)
		}
	}
	if !ok || err != nil {
		f = nil
		if print != "" {
			r.lost(ctx, path, errors.Join(ErrLost, err))
		} else {
			r.s.log.Warn("log gone before it was read", "source", r.src.name, "file", path)
		}
	}
	r.s.mu.Lock()
	if e := r.src.root.entries[path]; e != nil && e.seg == seg {
		r.s.forget(r.src.root, e) // what is there now has not been looked at
	}
	r.s.mu.Unlock()
	select {
	case r.s.poke <- struct{}{}:
	default:
	}
	return f
}

// sameFile reports whether an open file is the one that was examined.
func sameFile(f *tail.File, info os.FileInfo) bool {
	st, err := f.Stat()
	return err == nil && os.SameFile(st, info)
}

// same reports whether it is also unchanged.
func same(f *tail.File, info os.FileInfo) bool {
	st, err := f.Stat()
	return err == nil && os.SameFile(st, info) && st.Size() == info.Size() && st.ModTime().Equal(info.ModTime())
}

// cursor is where a reader is in a segment.
type cursor struct {
	*reader
	seg *segment
	f   *tail.File

	size    int       // of the next block
	counted int64     // bytes on disk in Set.read
	grown   time.Time // when lines last came
	over    bool      // the file does not grow any more
	limited bool      // draining: what comes from now on is not read
	broken  bool      // the rest cannot be read
	passed  bool      // something is queued behind; read to the end once more
}

// end closes the segment and leaves behind where it ended, in case it grows
// after all.
func (c *cursor) end() {
	c.s.total.Add(c.counted - c.seg.size) // it shrank, or its end came from a copy
	c.s.mu.Lock()
	c.seg.size, c.seg.offset = c.counted, c.f.Offset()
	c.seg.done, c.seg.lent = true, c.over || c.broken || c.f.Packing() != tail.Plain
	c.s.mu.Unlock()
	c.f.Close()
}

// begin makes the decoder, reads over what was read before the restart, and
// recognises a stream by its first lines.
func (c *cursor) begin(ctx context.Context) bool {
	if c.seg.format == nil {
		return c.recognise(ctx)
	}
	if !c.seg.bare || c.dec == nil || c.form != c.seg.format { // else it goes on as the file before it ended
		c.dec, c.form = c.seg.format.fresh(hint(logOf(c.seg.format.name, filepath.Base(c.seg.opened)))), c.seg.format
		prime(c.dec, c.seg.header)
	}
	if c.seg.offset == 0 {
		return true
	}
	var scratch flow.Flow
	n, err := c.f.Skip(c.seg.offset, func(line []byte) {
		if line = bytes.TrimLeft(line, "\x00"); c.dec.IsHeader(line) {
			_ = c.dec.Decode(&scratch, line) // a header that is wrong was reported when it was new
		}
	})
	c.line = n
	c.count()
	if err != nil {
		c.s.log.Warn("the file is shorter than what was read of it before the restart; records may be lost",
			"source", c.src.name, "file", c.seg.opened, "err", err)
	} else {
		c.s.log.Info("going on where reading stopped", "source", c.src.name, "file", c.seg.opened, "offset", c.seg.offset)
	}
	return true
}

// recognise collects the first lines of a stream until they tell the format,
// and decodes them.
func (c *cursor) recognise(ctx context.Context) bool {
	var head []byte
	for {
		if !c.batch(ctx) {
			return false
		}
		data, err := c.f.Next(c.b.Data, firstBlock)
		c.b.Data = data
		head = append(head, data...)
		ended := err != nil && !errors.Is(err, tail.ErrTooLong)
		if ended {
			if last, err := c.f.Last(nil); err == nil && !c.pump.stopped() {
				head = append(head, last...)
			}
		}
		var reason error
		if len(head) > 0 {
			if c.seg.format, reason = recognise(c.s.formats, head, ""); c.seg.format != nil {
				break
			}
		}
		if ended || len(head) >= headSize {
			var corrupt *tail.CorruptError
			switch {
			case errors.As(err, &corrupt):
				c.lost(ctx, c.seg.opened, err)
			case reason != nil: // nothing of it was taken for a record, so none is counted as lost
				c.fail(c.seg.opened, reason)
			}
			return false
		}
	}
	c.dec = c.seg.format.fresh("")
	c.b.Data = append(c.b.Data[:0], head...)
	c.decode(0)
	c.deliver(flow.More)
	return true
}

// count brings Set.read up to date.
func (c *cursor) count() {
	n := c.f.Consumed()
	c.s.read.Add(n - c.counted)
	if c.seg.stream {
		c.s.total.Add(n - c.counted)
		c.seg.size = n
	} else if n > c.seg.size { // it grew
		c.s.total.Add(n - c.seg.size)
		c.seg.size = n
	}
	c.counted = n
}

// deliver sends the batch in hand if there is anything in it.
func (c *cursor) deliver(mark flow.Mark) {
	if mark == flow.Idle || len(c.b.Flows)+len(c.b.Rejects) > 0 {
		c.send(mark)
	}
}

// step reads one block, or does what is to do at the end of what there is.
// It reports false when the segment is done.
func (c *cursor) step(ctx context.Context) bool {
	if !c.batch(ctx) || ctx.Err() != nil {
		return false
	}
	if c.seg.stream && c.s.opts.Follow && !c.idle && c.pump.empty() {
		c.deliver(flow.Idle)
		return true
	}
	from := c.f.Offset()
	data, err := c.f.Next(c.b.Data, c.size)
	c.b.Data = data
	if c.s.opts.Follow && !c.over && (err == nil || errors.Is(err, io.EOF)) {
		// Looked at behind the read: what passes was read before the file was
		// written over, if it was.
		if rewritten, err := c.f.Rewritten(); err != nil || rewritten {
			return c.rewritten(ctx, from, err)
		}
	}
	c.count()
	var corrupt *tail.CorruptError
	switch {
	case err == nil:
		c.size = min(2*c.size, c.max)
		c.grown = time.Now()
		c.idle, c.passed = false, false
		c.decode(c.f.Offset() - int64(len(data)))
		if c.seg.print == "" && !c.seg.stream {
			c.publish()
		}
		mark := flow.More
		if c.caughtUp() {
			mark = flow.Idle
		}
		c.deliver(mark)
		return true
	case errors.Is(err, tail.ErrTooLong):
		c.line++
		c.b.End = c.f.Offset()
		c.idle = false
		c.reject(&flow.SyntaxError{Source: c.seg.opened, Line: c.line, Err: flow.ErrTooLong})
		return true
	case errors.As(err, &corrupt):
		if ctx.Err() == nil {
			c.broken = true
			c.lost(ctx, c.seg.opened, err)
		}
		return false
	}
	return c.atEnd(ctx)
}

// publish gives a segment its fingerprint as soon as it has a record.
func (c *cursor) publish() {
	for _, n := range []int{firstLook, headSize} {
		head, err := c.f.Head(n)
		if err != nil {
			return
		}
		if over, err := c.f.Rewritten(); err != nil || over {
			head = c.f.Begin() // the records are of what it was, and so is the fingerprint
		}
		var o opening
		o.read(c.seg.format.fresh(hint(logOf(c.seg.format.name, filepath.Base(c.seg.opened)))), head, false)
		if o.print == "" {
			continue
		}
		c.s.mu.Lock()
		c.seg.print = o.print
		c.src.root.remember(c.seg.group, o.print)
		c.s.mu.Unlock()
		c.reader.seg.Print = o.print
		return
	}
}

// caughtUp reports whether all that a growing source has was read.
func (c *cursor) caughtUp() bool {
	if !c.s.opts.Follow {
		return false
	}
	if c.seg.stream {
		return c.pump.empty()
	}
	if c.over || c.limited || c.passed || c.f.Packing() != tail.Plain || !c.f.AtEnd() {
		return false
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return len(c.src.queue) == 0 && !c.src.final
}

// atEnd decides what the end of what there is means: that more may come, or
// that the segment is done. It reports false when it is.
func (c *cursor) atEnd(ctx context.Context) bool {
	switch {
	case c.seg.stream:
		if !c.pump.stopped() {
			c.last(ctx)
		}
		return false
	case !c.s.opts.Follow || c.over || c.f.Packing() != tail.Plain:
		if st, err := c.f.Stat(); err == nil && !c.over && c.f.Packing() == tail.Plain && c.f.Consumed() < c.seg.info.Size() {
			c.lost(ctx, c.seg.opened, &tail.CorruptError{Path: c.seg.opened, Offset: st.Size(), Err: errors.New("the file shrank while it was read")})
			return false
		}
		c.last(ctx)
		return false
	case c.limited:
		return false
	}
	c.s.mu.Lock()
	final, next := c.src.final, len(c.src.queue) > 0
	c.s.mu.Unlock()
	switch {
	case next && !c.passed: // read once more what came before the next file began
		c.passed = true
		return true
	case next:
		if !final && time.Since(c.grown) < quiet && !c.still() {
			return c.pause(ctx, quiet)
		}
		c.last(ctx)
		return false
	case final:
		st, err := c.f.Stat()
		if err != nil {
			return false
		}
		c.limited = true
		c.f.Limit(st.Size())
		return true
	}
	return c.wait(ctx, c.s.opts.Poll)
}

// still reports whether the file has not been written for a while.
func (c *cursor) still() bool {
	st, err := c.f.Stat()
	return err != nil || time.Since(st.ModTime()) >= quiet
}

// last delivers the line without newline at the end of a file that has ended.
func (c *cursor) last(ctx context.Context) {
	if c.f.Held() == 0 || !c.batch(ctx) {
		return
	}
	data, err := c.f.Last(c.b.Data)
	c.b.Data = data
	if errors.Is(err, tail.ErrTooLong) {
		c.line++
		c.b.End = c.f.Offset()
		c.reject(&flow.SyntaxError{Source: c.seg.opened, Line: c.line, Err: flow.ErrTooLong})
		return
	}
	c.decode(c.f.Offset() - int64(len(data)))
	c.deliver(flow.More)
}

// rewritten goes on when a followed file was truncated or written over under
// its reader, who has all lines of it up to offset from. Who rotates by copying left a copy: what was not read yet is
// read from there. The new content becomes the next segment.
func (c *cursor) rewritten(ctx context.Context, from int64, err error) bool {
	if err != nil {
		c.lost(ctx, c.seg.opened, err)
		return false
	}
	c.s.mu.Lock()
	path := c.seg.path
	st, err := c.f.Stat()
	if err == nil {
		next := &segment{path: path, group: c.seg.group, info: st, end: unknownEnd, format: c.seg.format, bare: true, cut: true, header: c.seg.header}
		c.s.add(c.src, next)
		if e := c.src.root.entries[path]; e != nil && e.seg == c.seg {
			e.seg, e.info = next, st
		}
	}
	c.s.mu.Unlock()
	if c.seg.print == "" {
		return false // nothing but a header so far
	}
	// The copy may be on its way to another name while it is looked for.
	for begun := time.Now(); ; {
		if copied, ok := c.s.find(c.src.root, c.seg, filepath.Base(path)); ok && copied != path && c.goOnIn(copied, from) {
			c.s.log.Info("log truncated; reading its end from the copy", "source", c.src.name, "file", path, "copy", copied)
			return true
		}
		if time.Since(begun) > renaming || !c.pause(ctx, renaming/8) {
			break
		}
	}
	c.s.log.Warn("log truncated, and no copy of it found; lines written just before may be lost",
		"source", c.src.name, "file", path, "offset", from)
	if c.f.Held() > 0 && c.batch(ctx) {
		c.reject(&flow.SyntaxError{Source: path, Line: c.line + 1, Err: flow.ErrTruncated})
	}
	return false
}

// goOnIn has the segment read to its end from a copy of its file, behind offset
// from.
func (c *cursor) goOnIn(path string, from int64) bool {
	f, err := tail.Open(path)
	if err != nil {
		return false
	}
	if _, err := f.Skip(from, nil); err != nil {
		f.Close()
		return false
	}
	c.f.Close()
	c.f, c.over = f, true
	c.s.read.Add(-c.counted)
	c.counted = 0
	c.count()
	return true
}
