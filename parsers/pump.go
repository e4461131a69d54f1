package parsers

import (
	"context"
	"io"
	"os"
	"sync/atomic"
)

// pump reads a stream in a goroutine of its own, so that its reader can tell
// whether more has come, and can stop while a read blocks.
type pump struct {
	ctx  context.Context
	stop <-chan struct{}
	data chan []byte
	free chan []byte
	rest []byte
	buf  []byte
	err  error // valid once data is closed
	cut  atomic.Bool
}

const (
	pumpSize = 64 << 10
	pumpBufs = 4
)

// newPump starts to read path, "-" being standard input.
func newPump(ctx context.Context, s *Set, path string) *pump {
	p := &pump{ctx: ctx, stop: s.stop, data: make(chan []byte, pumpBufs), free: make(chan []byte, pumpBufs)}
	for range pumpBufs {
		p.free <- nil
	}
	go func() {
		defer close(p.data)
		r := s.opts.Stdin
		if path != "-" {
			f, err := os.Open(path)
			if err != nil {
				p.err = err
				return
			}
			// Closing it twice is harmless, and there is nothing to lose in a reader.
			defer func() { _ = f.Close() }()
			defer context.AfterFunc(ctx, func() { _ = f.Close() })()
			r = f
		}
		for {
			var buf []byte
			select {
			case buf = <-p.free:
			case <-ctx.Done():
				return
			case <-p.stop:
				p.cut.Store(true)
				return
			}
			if buf == nil {
				buf = make([]byte, pumpSize)
			}
			n, err := r.Read(buf[:pumpSize])
			if n > 0 {
				p.data <- buf[:n] // has room for all buffers there are
			} else {
				p.free <- buf
			}
			if err != nil {
				if err != io.EOF {
					p.err = err
				}
				return
			}
		}
	}()
	return p
}

// Read waits for data, the end, or the order to stop, which is an end too
// once all that came is delivered.
func (p *pump) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		if p.buf != nil {
			p.free <- p.buf
			p.buf = nil
		}
		var data []byte
		var ok bool
		select {
		case data, ok = <-p.data:
		default:
			select {
			case data, ok = <-p.data:
			case <-p.ctx.Done():
				return 0, p.ctx.Err()
			case <-p.stop:
				p.cut.Store(true)
				return 0, io.EOF
			}
		}
		if !ok {
			if p.err != nil {
				return 0, p.err
			}
			return 0, io.EOF
		}
		p.buf, p.rest = data, data
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// empty reports whether nothing is at hand.
func (p *pump) empty() bool { return len(p.rest) == 0 && len(p.data) == 0 }

// stopped reports whether the stream was cut off rather than having ended.
func (p *pump) stopped() bool { return p.cut.Load() || p.ctx.Err() != nil }
