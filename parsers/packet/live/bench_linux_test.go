package live_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/packet"
	"github.com/slips-go/slips/parsers/packet/live"
)

// mmsghdr is one message of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// blast sends n UDP frames of the size on the interface of the thread's
// namespace, each from another port, or without end until stop when n is 0.
func blast(name string, n, size int, stop *atomic.Bool) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	i, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: i.Index}); err != nil {
		return err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 64<<20)
	const at = 64
	frames := make([][]byte, at)
	iov := make([]unix.Iovec, at)
	msgs := make([]mmsghdr, at)
	for k := range frames {
		frames[k] = udpFrame(string(make([]byte, max(size-42, 0))))
		iov[k].Base = &frames[k][0]
		iov[k].SetLen(len(frames[k]))
		msgs[k].hdr.Iov = &iov[k]
		msgs[k].hdr.SetIovlen(1)
	}
	port := uint16(0)
	for sent := 0; n == 0 || sent < n; {
		if stop != nil && stop.Load() {
			return nil
		}
		m := at
		if n > 0 {
			m = min(m, n-sent)
		}
		for _, f := range frames[:m] {
			port++
			binary.BigEndian.PutUint16(f[34:], port&1023)
		}
		got, _, e := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(m), 0, 0, 0)
		switch e {
		case 0:
			sent += int(got)
		case unix.EAGAIN, unix.ENOBUFS, unix.EINTR:
		default:
			return fmt.Errorf("sendmmsg: %w", e)
		}
	}
	return nil
}

// threadCPU returns the CPU time of the calling thread.
func threadCPU() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// reader is a way of capturing.
type reader struct {
	name string
	run  func(ctx context.Context, b *testing.B, s *space, ready chan<- struct{}, take func(packet.Packet)) (dropped int64, err error)
}

func ringReader(ctx context.Context, b *testing.B, s *space, ready chan<- struct{}, take func(packet.Packet)) (int64, error) {
	b.Helper()
	var c *live.Capture
	if err := s.Do(func() (err error) { c, err = live.Open(live.Options{Interface: "v0"}); return err }); err != nil {
		return 0, err
	}
	close(ready)
	err := c.Run(ctx, take, func(int64) {})
	return c.Stats().Dropped, err
}

func pcapgoReader(ctx context.Context, b *testing.B, s *space, ready chan<- struct{}, take func(packet.Packet)) (int64, error) {
	b.Helper()
	var h *pcapgo.EthernetHandle
	if err := s.Do(func() (err error) { h, err = pcapgo.NewEthernetHandle("v0"); return err }); err != nil {
		return 0, err
	}
	close(ready)
	stop := context.AfterFunc(ctx, func() { _ = h.Close() })
	defer stop()
	var dropped int64
	for n := 0; ; n++ {
		d, ci, err := h.ZeroCopyReadPacketData()
		if err != nil {
			return dropped, nil //nolint:nilerr // it was closed
		}
		take(packet.Packet{Time: ci.Timestamp.UnixNano(), Data: d, Length: ci.Length, Link: packet.LinkEthernet})
		if n%10000 == 0 {
			if st, err := h.Stats(); err == nil {
				dropped += int64(st.Drops)
			}
		}
	}
}

// BenchmarkCapture floods a veth pair from its other end and measures what is
// captured. CPU per packet is the reader's thread alone, the kernel's work in
// it included; that of the sender and of the kernel's delivery is not. On few
// processors the sender limits the rate: it does the kernel's delivery too.
func BenchmarkCapture(b *testing.B) {
	meter := func(b *testing.B) func(packet.Packet) {
		b.Helper()
		m := packet.New(packet.Options{Emit: func(*flow.Flow) {}})
		return m.Feed
	}
	for _, r := range []reader{{"ring", ringReader}, {"pcapgo", pcapgoReader}} {
		for _, size := range []int{64, 1514} {
			b.Run(fmt.Sprintf("%s/%d", r.name, size), func(b *testing.B) { benchmark(b, r, size, func(packet.Packet) {}) })
			b.Run(fmt.Sprintf("%s/%d/meter", r.name, size), func(b *testing.B) { benchmark(b, r, size, meter(b)) })
		}
	}
}

// benchmark captures b.N packets.
func benchmark(b *testing.B, r reader, size int, take func(packet.Packet)) {
	b.Helper()
	a, s := newSpace(b), newSpace(b)
	a.Link(s.Space, "v0", nil, nil)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var stop atomic.Bool
	ready := make(chan struct{})
	sender := make(chan error, 1)
	go func() {
		<-ready
		sender <- s.Do(func() error { return blast("v0", 0, size, &stop) })
	}()
	type result struct {
		n              int
		dropped        int64
		elapsed, spent time.Duration
		err            error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var x result
		var begin time.Time
		var cpu time.Duration
		x.dropped, x.err = r.run(ctx, b, a, ready, func(p packet.Packet) {
			if x.n == 0 {
				begin, cpu = time.Now(), threadCPU()
			}
			take(p)
			if x.n++; x.n == b.N {
				x.elapsed, x.spent = time.Since(begin), threadCPU()-cpu
				stop.Store(true)
				cancel()
			}
		})
		done <- x
	}()
	x := <-done
	stop.Store(true)
	if err := <-sender; err != nil {
		b.Fatal(err)
	}
	if x.err != nil {
		b.Fatal(x.err)
	}
	if x.elapsed > 0 {
		b.ReportMetric(float64(b.N)/x.elapsed.Seconds(), "packets/s")
		b.ReportMetric(float64(x.spent.Nanoseconds())/float64(b.N), "cpu-ns/packet")
		b.ReportMetric(100*float64(x.dropped)/float64(int64(b.N)+x.dropped), "%dropped")
	}
}

// BenchmarkLatency measures from the sending of a lone packet to its being fed.
func BenchmarkLatency(b *testing.B) {
	a, s := pair(b)
	r := a.capture(live.Options{Interface: "v0", Filter: "udp port 7000"})
	for i := range b.N {
		s.send("10.77.0.1:7000", fmt.Sprintf("number %d.", i))
		r.first(fmt.Sprintf("number %d.", i))
	}
}
