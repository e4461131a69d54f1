// Package live captures the packets of a network interface for the built-in
// meter: through a memory-mapped ring of the Linux kernel, without cgo.
//
// A Capture sees what the host sends and receives on the interface, on a
// mirror port everything that the port is given. It needs CAP_NET_RAW to be
// opened and no privilege from then on, also when the interface disappears and
// comes back.
package live

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/slips-go/slips/parsers/packet"
)

var (
	// ErrUnsupported is what Open returns on systems other than Linux.
	ErrUnsupported = errors.New("live capture is for Linux")
	// ErrPermission is what Open returns when the program may not capture.
	ErrPermission = errors.New("capturing packets needs CAP_NET_RAW: run it with sudo, " +
		`or allow it once with "sudo setcap cap_net_raw+ep" and the path of slips, ` +
		"or in a systemd unit with AmbientCapabilities=CAP_NET_RAW")
	// ErrNoInterface is what Open returns when there is no interface of the name.
	ErrNoInterface = errors.New("no such interface")
	// ErrDown is what Open returns when the interface is down.
	ErrDown = errors.New("the interface is down")
	// ErrLink is what Open returns when the interface's frames are not understood.
	ErrLink = errors.New("frames of this kind are not understood")
)

// Any is the name that stands for all interfaces at a time. A packet that
// passes several of them, such as a bridge and its port, is seen on each.
const Any = "any"

// The bounds of the ring.
const (
	DefaultRing = 32 << 20 // bytes; a quarter of a second of 1 Gbit/s
	minRing     = 512 << 10
	maxRing     = 1 << 30
	maxBlock    = 1 << 20   // bytes that the kernel fills before it hands them over
	minBlock    = 128 << 10 // a packet must fit; offloading makes up to 64 KiB, rarely more
)

// What the latency is made of. A packet waits up to retire for its block to be
// handed over, and what the meter made of it up to flush for delivery.
const (
	retire  = 40 * time.Millisecond
	patient = 50 * time.Millisecond  // waiting for packets; also how soon the end of a context is seen
	flush   = 100 * time.Millisecond // between calls of idle
	account = time.Second            // between looks at the kernel's counters, which are 32 bits wide
	grace   = 500 * time.Millisecond // for what is in the ring at the end
)

// Options are what a Capture is told.
type Options struct {
	Interface string // or Any
	// Filter is an expression of tcpdump's language; the kernel drops what does
	// not match before it is copied.
	Filter string
	// Promiscuous asks the network card for the frames to other stations too. A
	// mirror port needs it. It means nothing for Any.
	Promiscuous bool
	// Ring is the size of the buffer in bytes that the kernel fills while the
	// meter is busy, DefaultRing by default, at least 512 KiB and at most 1 GiB.
	// It is allocated at once, in kernel memory.
	Ring int
	// OnGap, which may be nil, is called by Run when a gap begins and again, with
	// its end, when it is over.
	OnGap func(Gap)
	// OnDrop, which may be nil, is called by Run, at most once a second, when the
	// kernel has dropped further packets because the ring was full: how many, and
	// how many in all.
	OnDrop func(n, total int64)
	Log    *slog.Logger // nil: none
}

// Gap is a time in which nothing was captured because the interface was down
// or gone.
type Gap struct {
	Interface string
	Reason    string
	Start     int64 // unix ns, when it was noticed
	End       int64 // 0: it lasts
}

// Stats are what a Capture saw so far. Dropped of all that passed the filter is
// Dropped / (Packets + Skipped + Dropped), but for what waits in the ring.
type Stats struct {
	Packets int64 // handed on
	Bytes   int64 // of them, as captured
	Dropped int64 // by the kernel, because the ring was full, or in it when there was no more time for them
	Freezes int64 // how often the ring was full
	Skipped int64 // second sights of loopback packets, and what is not IP on links that carry IP alone
	Cut     int64 // packets that were not captured whole; they are handed on
	Gaps    int64
}

// Meter runs the Capture into a Source and closes that: all that the lead of a
// live run has to do. run ends the capture. What the meter holds by then is
// still delivered, until drain is done, which must not be before run: it is for
// when nobody takes the records any more.
func (c *Capture) Meter(run, drain context.Context, s *packet.Source) error {
	err := c.Run(run, func(p packet.Packet) { s.Feed(drain, p) }, func(now int64) { s.Idle(drain, now) })
	s.Close(drain)
	return err
}
