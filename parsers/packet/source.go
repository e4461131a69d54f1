package packet

import (
	"context"
	"io"

	"github.com/slips-go/slips/parsers/flow"
)

const (
	batches      = 4   // of a Source in flight, as of the readers of logs
	batchRecords = 256 // of a batch that is sent without being asked to
)

// Source delivers what a Meter emits in batches, as the readers of logs do.
// All kinds of records come through the one input, in the Meter's order: one
// Meter makes them, and were they sorted into several inputs, who merges those
// could wait for one kind while the Meter waits to get rid of another.
//
// The goroutine that feeds it calls all of its methods but Input.
type Source struct {
	m    *Meter
	in   flow.Input
	c    chan *flow.Batch
	pool chan *flow.Batch
	made int
	b    *flow.Batch // being filled; nil: none in hand
	lost flow.Flow   // what is written once the context has ended
	seg  flow.Segment
	wake func()
	done <-chan struct{}
}

// NewSource returns a Source of the name with a Meter of the options, whose
// Next and Emit it sets. path is what messages call it. wake, which may be
// nil, is called when a batch was queued and must not wait.
func NewSource(name, path string, o Options, wake func()) *Source {
	s := &Source{
		c: make(chan *flow.Batch, batches), pool: make(chan *flow.Batch, batches), seg: flow.Segment{Path: path}, wake: wake,
	}
	if wake == nil {
		s.wake = func() {}
	}
	o.Next = s.next
	o.Emit = func(*flow.Flow) {
		if s.b != nil && len(s.b.Flows) >= batchRecords {
			s.send(flow.More)
		}
	}
	s.m = New(o)
	s.in = flow.Input{Name: name, C: s.c, Kinds: flow.Of(
		flow.Conn, flow.DNS, flow.HTTP, flow.SSL, flow.X509, flow.Files, flow.SSH, flow.SMTP, flow.FTP, flow.DHCP, flow.ARP,
		flow.Software, flow.Tunnel, flow.QUIC,
	)}
	return s
}

// Input returns where the batches come out.
func (s *Source) Input() flow.Input { return s.in }

// Stats returns what the Meter saw so far.
func (s *Source) Stats() Stats { return s.m.Stats() }

// Feed takes the next packet. It waits while all batches are out, until ctx
// is done.
func (s *Source) Feed(ctx context.Context, p Packet) {
	s.done = ctx.Done()
	s.m.Feed(p)
}

// Idle moves the clock to t, unix ns, and delivers what there is: to be called
// when no packet has come for a while.
func (s *Source) Idle(ctx context.Context, t int64) {
	s.done = ctx.Done()
	s.m.Advance(t)
	if s.b != nil || s.take() {
		s.send(flow.Idle)
	}
}

// Close emits what is left, marks the end and closes the input's channel.
// Nothing may be called after it but Stats.
func (s *Source) Close(ctx context.Context) {
	s.done = ctx.Done()
	s.m.End()
	if s.b != nil || s.take() {
		s.send(flow.Ended)
	}
	close(s.c)
}

// Read feeds a capture to its end or until ctx is done, and closes the Source.
// Its errors are those of the function Read.
func (s *Source) Read(ctx context.Context, r io.Reader) (Stats, error) {
	err := readAll(ctx, r, func(p Packet) { s.Feed(ctx, p) })
	s.Close(ctx)
	return s.m.Stats(), err
}

// next is the Meter's Options.Next.
func (s *Source) next(flow.Kind) *flow.Flow {
	if s.b != nil || s.take() {
		return s.b.Next()
	}
	return &s.lost
}

// take takes an empty batch in hand. It reports false when the context ends
// first.
func (s *Source) take() bool {
	select {
	case s.b = <-s.pool:
	default:
		if s.made < batches {
			s.made++
			s.b = flow.NewBatch(func(b *flow.Batch) { s.pool <- b })
			return true
		}
		select {
		case s.b = <-s.pool:
		case <-s.done:
			return false
		}
	}
	s.b.Reuse()
	return true
}

// send queues the batch in hand. The channel has room for all there are.
func (s *Source) send(mark flow.Mark) {
	s.b.Segment, s.b.Mark = s.seg, mark
	s.c <- s.b
	s.b = nil
	s.wake()
}
