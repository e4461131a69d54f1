package live

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	xbpf "golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/slips-go/slips/parsers/packet"
	"github.com/slips-go/slips/parsers/packet/bpf"
)

// How the kernel lays out a block of a TPACKET_V3 ring and a packet in it
// (linux/if_packet.h, Documentation/networking/packet_mmap.rst). In front of a
// packet's first byte there is room for what reserve says and more.
const (
	statusAt  = 8  // of a block: who it belongs to
	countAt   = 12 // packets in it
	firstAt   = 16 // offset of the first
	addressAt = 48 // of a packet: its sockaddr_ll
	dataAt    = addressAt + unix.SizeofSockaddrLinklayer
	reserve   = 16
	frameSize = 2048 // the kernel wants one and does not use it
	snapLen   = maxBlock
	tagLen    = 4
	sllLen    = 16
	macsLen   = 12
	dot1Q     = 0x8100
	ctxEvery  = 64 // packets between looks at whether to end
)

// Capture takes packets from an interface. One goroutine calls Run, or Close
// when Run is not called; Stats may be called by any.
type Capture struct {
	o      Options
	log    *slog.Logger
	how    how
	user   *bpf.Program // the filter, when the kernel cannot run it
	fd     int
	index  int
	ring   []byte
	block  int // bytes of one
	blocks int
	next   int // block that is filled next
	gap    *Gap
	last   int64 // time of the latest packet

	packets, bytes, skipped, cut, gaps atomic.Int64

	mu             sync.Mutex // fd against Stats, and these
	closed         bool
	drops, freezes int64
	seen           int64 // by the kernel, those that it dropped among them
}

// how says how the frames of an interface are taken.
type how struct {
	link   packet.Link
	cooked bool // without the link header, which the kernel tells apart from them
	onlyIP bool // whatever else there is has no header that tells it
	hw     uint16
}

// kinds are the hardware types of interfaces by linux/if_arp.h. Those that
// carry IP alone are taken without a link header: what is there differs, and
// says nothing.
func kindOf(hw uint16) (how, error) {
	switch hw {
	case unix.ARPHRD_ETHER, unix.ARPHRD_LOOPBACK:
		return how{link: packet.LinkEthernet, hw: hw}, nil
	case unix.ARPHRD_NONE, unix.ARPHRD_RAWIP, unix.ARPHRD_PPP, unix.ARPHRD_TUNNEL, unix.ARPHRD_TUNNEL6, unix.ARPHRD_SIT,
		unix.ARPHRD_IPGRE, unix.ARPHRD_IP6GRE, unix.ARPHRD_SLIP, unix.ARPHRD_CSLIP, unix.ARPHRD_SLIP6, unix.ARPHRD_CSLIP6:
		return how{link: packet.LinkRaw, cooked: true, onlyIP: true, hw: hw}, nil
	case unix.ARPHRD_IEEE80211:
		return how{link: packet.LinkWiFi, hw: hw}, nil
	case unix.ARPHRD_IEEE80211_RADIOTAP:
		return how{link: packet.LinkRadiotap, hw: hw}, nil
	}
	name := map[uint16]string{
		unix.ARPHRD_INFINIBAND: " (InfiniBand)", unix.ARPHRD_CAN: " (CAN)", unix.ARPHRD_NETLINK: " (netlink)",
		unix.ARPHRD_IEEE1394: " (FireWire)", unix.ARPHRD_IEEE802154: " (IEEE 802.15.4)", unix.ARPHRD_ATM: " (ATM)",
		unix.ARPHRD_FDDI: " (FDDI)", unix.ARPHRD_AX25: " (AX.25)", unix.ARPHRD_VSOCKMON: " (vsock)",
	}[hw]
	return how{}, fmt.Errorf("%w: hardware type %d%s", ErrLink, hw, name)
}

// Open opens the capture: from its return on the kernel collects packets. This
// is all that needs a privilege, so the caller may drop those it has before Run.
func Open(o Options) (*Capture, error) {
	c := &Capture{o: o, log: o.Log, fd: -1}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if err := c.open(); err != nil {
		c.Close()
		return nil, fmt.Errorf("capture on %q: %w", o.Interface, err)
	}
	return c, nil
}

func (c *Capture) open() error {
	program, err := c.prepare()
	if err != nil {
		return err
	}
	kind := unix.SOCK_RAW
	if c.how.cooked {
		kind = unix.SOCK_DGRAM
	}
	// With no protocol the socket gets nothing until it is bound, so no packet
	// comes by the filter or from another interface.
	c.fd, err = unix.Socket(unix.AF_PACKET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w (%w)", ErrPermission, err)
	case errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("this kernel has no packet sockets: %w", err)
	case err != nil:
		return fmt.Errorf("open a packet socket: %w", err)
	}
	if err := c.mapRing(); err != nil {
		return err
	}
	if err := c.attach(program); err != nil {
		return err
	}
	if c.how.hw == unix.ARPHRD_LOOPBACK {
		// Each packet is sent and received here; once is enough. Kernels before
		// 4.20 do not know this, and take skips them.
		_ = unix.SetsockoptInt(c.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	}
	return c.bind()
}

// prepare looks at the interface and compiles the filter, without a privilege.
func (c *Capture) prepare() (filter []xbpf.RawInstruction, err error) {
	c.how = how{link: packet.LinkSLL, cooked: true}
	if c.o.Interface != Any {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open a socket to look at interfaces: %w", err)
		}
		defer unix.Close(s) //nolint:errcheck // nothing was written
		i, err := look(s, c.o.Interface)
		if err != nil {
			if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
				return nil, fmt.Errorf("%w; there are %q", ErrNoInterface, names())
			}
			return nil, fmt.Errorf("look at the interface: %w", err)
		}
		if c.how, err = kindOf(i.hw); err != nil {
			return nil, err
		}
		if !i.up {
			return nil, fmt.Errorf(`%w: bring it up with "ip link set dev %s up"`, ErrDown, c.o.Interface)
		}
		c.index = i.index
	}
	if c.o.Filter == "" {
		return nil, nil
	}
	if filter, err = bpf.CompileLive(c.o.Filter, c.how.link, snapLen); err != nil {
		return nil, err
	}
	if c.o.Interface != Any {
		return filter, nil
	}
	// The kernel filters before the cooked header is made.
	if beneath, ok := uncook(filter); ok {
		return beneath, nil
	}
	if c.user, err = bpf.NewProgram(filter); err != nil {
		return nil, fmt.Errorf("on all interfaces at a time: %w", err)
	}
	return nil, nil
}

// uncook turns a filter of cooked frames into one of what they carry. What the
// header says of direction and protocol the kernel tells in another way; of the
// sender's address and the hardware it does not.
func uncook(p []xbpf.RawInstruction) ([]xbpf.RawInstruction, bool) {
	const adOff = 0xfffff000 // SKF_AD_OFF of linux/filter.h
	q := append([]xbpf.RawInstruction{}, p...)
	for i, c := range q {
		switch c.Op {
		case 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0xb1: // loads of the packet
			indirect := c.Op >= 0x40 && c.Op != 0xb1
			switch {
			case c.K >= adOff:
			case c.K >= sllLen:
				q[i].K -= sllLen
			case indirect:
				return nil, false
			case c.K == 0 && c.Op == 0x28:
				q[i].K = adOff + 4 // SKF_AD_PKTTYPE
			case c.K == 14 && c.Op == 0x28:
				q[i].K = adOff // SKF_AD_PROTOCOL
			default:
				return nil, false
			}
		}
	}
	for _, c := range q {
		if c.Op == 0x80 || c.Op == 0x81 { // the length, which the header is part of
			return nil, false
		}
	}
	return q, true
}

// seen is what an interface looks like.
type seen struct {
	index int
	up    bool
	hw    uint16
}

// look looks at the interface through any socket of its namespace.
func look(fd int, name string) (s seen, err error) {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return s, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r); err != nil {
		return s, err
	}
	s.index = int(r.Uint32())
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, r); err != nil {
		return s, err
	}
	s.up = r.Uint16()&unix.IFF_UP != 0
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFHWADDR, r); err != nil {
		return s, err
	}
	s.hw = r.Uint16()
	return s, nil
}

// names returns the interfaces that there are.
func names() []string {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	n := make([]string, len(all))
	for i := range all {
		n[i] = all[i].Name
	}
	return n
}

// mapRing makes the ring. Where memory is short it makes a smaller one.
func (c *Capture) mapRing() error {
	size := c.o.Ring
	if size <= 0 {
		size = DefaultRing
	}
	size = min(max(size, minRing), maxRing)
	if err := unix.SetsockoptInt(c.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return fmt.Errorf("ask the kernel for a TPACKET_V3 ring: %w", err)
	}
	if err := unix.SetsockoptInt(c.fd, unix.SOL_PACKET, unix.PACKET_RESERVE, reserve); err != nil {
		return fmt.Errorf("reserve room for VLAN tags: %w", err)
	}
	for {
		c.block = min(max(1<<(bits.Len(uint(size/8))-1), minBlock), maxBlock)
		c.blocks = size / c.block
		req := unix.TpacketReq3{
			Block_size: uint32(c.block), Block_nr: uint32(c.blocks), Frame_size: frameSize, //nolint:gosec // within maxRing
			Frame_nr: uint32(c.block / frameSize * c.blocks), Retire_blk_tov: uint32(retire.Milliseconds()), //nolint:gosec // within maxRing
		}
		err := unix.SetsockoptTpacketReq3(c.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req)
		if errors.Is(err, unix.ENOMEM) && size > minRing {
			c.log.Warn("no memory for the capture ring; a smaller one is tried", "interface", c.o.Interface, "bytes", size)
			size = max(size/2, minRing)
			continue
		}
		if err != nil {
			return fmt.Errorf("make a capture ring of %d bytes: %w", size, err)
		}
		break
	}
	ring, err := unix.Mmap(c.fd, 0, c.block*c.blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the capture ring of %d bytes: %w", c.block*c.blocks, err)
	}
	c.ring = ring
	return nil
}

// attach gives the filter to the kernel.
func (c *Capture) attach(p []xbpf.RawInstruction) error {
	if len(p) == 0 {
		return nil
	}
	f := make([]unix.SockFilter, len(p))
	for i, r := range p {
		f[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]} //nolint:gosec // at most 4096
	if err := unix.SetsockoptSockFprog(c.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fmt.Errorf("give the filter %q to the kernel: %w", c.o.Filter, err)
	}
	return nil
}

// bind lets packets of the interface of c.index in.
func (c *Capture) bind() error {
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if err := unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: c.index}); err != nil {
		return fmt.Errorf("bind to the interface: %w", err)
	}
	if !c.o.Promiscuous || c.o.Interface == Any || c.how.hw == unix.ARPHRD_LOOPBACK {
		return nil
	}
	m := unix.PacketMreq{Ifindex: int32(c.index), Type: unix.PACKET_MR_PROMISC} //nolint:gosec // of the kernel
	if err := unix.SetsockoptPacketMreq(c.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &m); err != nil {
		c.log.Warn("the interface does not become promiscuous: only what is for this host is seen", "interface", c.o.Interface, "err", err)
	}
	return nil
}

// Link returns the type of the frames.
func (c *Capture) Link() packet.Link { return c.how.link }

// Close gives everything back. Run does it at its end.
func (c *Capture) Close() {
	c.collect()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	if c.ring != nil {
		_ = unix.Munmap(c.ring)
		c.ring = nil
	}
	if c.fd >= 0 {
		_ = unix.Close(c.fd)
	}
}

// Stats returns what was seen so far.
func (c *Capture) Stats() Stats {
	c.collect()
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{
		Packets: c.packets.Load(), Bytes: c.bytes.Load(), Dropped: c.drops, Freezes: c.freezes,
		Skipped: c.skipped.Load(), Cut: c.cut.Load(), Gaps: c.gaps.Load(),
	}
}

// collect adds up the kernel's counters, which begin anew with each look.
func (c *Capture) collect() (dropped int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.ring == nil {
		return c.drops
	}
	if s, err := unix.GetsockoptTpacketStatsV3(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		c.seen += int64(s.Packets)
		c.drops += int64(s.Drops)
		c.freezes += int64(s.Freeze_q_cnt)
	}
	return c.drops
}

// Run hands packets on until ctx is done, then those that the kernel has taken
// up to there, and closes the Capture and returns nil. When that takes too long
// the rest counts as dropped. The data of a packet that feed is given is valid
// until feed returns. While feed takes its time the kernel fills the ring, and
// drops and counts what does not fit.
//
// idle is called about every 100 ms, with a time before which everything was
// fed, in unix ns: when packets come the time of the latest, and when none do
// nearly that of the wall clock. So a meter that is fed a trickle delivers too.
//
// An interface that goes down or is deleted is waited for, by its name.
func (c *Capture) Run(ctx context.Context, feed func(packet.Packet), idle func(now int64)) error {
	defer c.Close()
	if c.ring == nil {
		return fmt.Errorf("capture on %q: it is closed", c.o.Interface)
	}
	var told int64
	tell := func() {
		if total := c.collect(); total > told {
			if c.o.OnDrop != nil {
				c.o.OnDrop(total-told, total)
			}
			told = total
		}
	}
	defer tell()
	var end time.Time
	late := func() bool {
		if ctx.Err() == nil {
			return false
		}
		if end.IsZero() {
			end = time.Now().Add(grace)
		}
		return !time.Now().Before(end)
	}
	flushed, counted := time.Now(), time.Now()
	for ctx.Err() == nil {
		quiet := false
		if !c.take(late, feed) {
			var err error
			if quiet, err = c.wait(); err != nil {
				return fmt.Errorf("capture on %q: %w", c.o.Interface, err)
			}
		}
		now := time.Now()
		if now.Sub(flushed) >= flush {
			flushed = now
			t := c.last
			if wall := now.UnixNano(); quiet && (wall-int64(flush) > t || wall < t) { // the clock may have been set back
				t = wall - int64(flush)
			}
			if t != 0 {
				idle(t)
			}
		}
		if now.Sub(counted) >= account {
			counted = now
			tell()
		}
	}
	c.rest(late, feed)
	return nil
}

// rest feeds what is in the ring and lets nothing more in. What is left when it
// is late counts as dropped.
func (c *Capture) rest(late func() bool, feed func(packet.Packet)) {
	_ = c.attach([]xbpf.RawInstruction{{Op: 0x06}}) // take nothing; without it a little more comes
	for {
		for !late() && c.take(late, feed) {
		}
		if c.left() == 0 || late() {
			break
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}, int(retire.Milliseconds())); err != nil { //nolint:gosec // a descriptor
			break
		}
	}
	n := c.left()
	c.mu.Lock()
	c.drops += n
	c.mu.Unlock()
}

// left returns how many packets of the kernel were not looked at.
func (c *Capture) left() int64 {
	dropped := c.collect()
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(0, c.seen-dropped-c.packets.Load()-c.skipped.Load())
}

// take feeds the packets of the next block and gives it back, all of them or
// those up to when it is late. It reports whether there was one.
func (c *Capture) take(late func() bool, feed func(packet.Packet)) bool {
	b := c.ring[c.next*c.block:][:c.block]
	status := (*uint32)(unsafe.Pointer(&b[statusAt]))
	if atomic.LoadUint32(status)&unix.TP_STATUS_USER == 0 {
		return false
	}
	n := binary.NativeEndian.Uint32(b[countAt:])
	at := binary.NativeEndian.Uint32(b[firstAt:])
	var packets, bytes, skipped, cut int64
	for i := range n {
		if i%ctxEvery == ctxEvery-1 && late() {
			break
		}
		if uint64(at)+dataAt > uint64(len(b)) {
			break // a block is never laid out like this
		}
		h := (*unix.Tpacket3Hdr)(unsafe.Pointer(&b[at]))
		if p, ok := c.frame(b[at:], h); ok {
			feed(p)
			c.last = p.Time
			packets++
			bytes += int64(len(p.Data))
			if len(p.Data) < p.Length {
				cut++
			}
		} else {
			skipped++
		}
		if h.Next_offset == 0 {
			break
		}
		at += h.Next_offset
	}
	c.packets.Add(packets)
	c.bytes.Add(bytes)
	c.skipped.Add(skipped)
	c.cut.Add(cut)
	atomic.StoreUint32(status, unix.TP_STATUS_KERNEL)
	c.next = (c.next + 1) % c.blocks
	return true
}

// frame makes a packet of the one at the beginning of b. What the kernel took
// off is put back in front of it, where there is room.
func (c *Capture) frame(b []byte, h *unix.Tpacket3Hdr) (packet.Packet, bool) {
	from := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&b[addressAt]))
	if from.Hatype == unix.ARPHRD_LOOPBACK && from.Pkttype == unix.PACKET_OUTGOING {
		return packet.Packet{}, false
	}
	proto := binary.BigEndian.Uint16(b[addressAt+2:])
	if c.how.onlyIP && proto != unix.ETH_P_IP && proto != unix.ETH_P_IPV6 {
		return packet.Packet{}, false
	}
	start, end := int(h.Mac), int(h.Mac)+int(h.Snaplen)
	if start < dataAt+sllLen+tagLen && c.how.cooked || start < dataAt+tagLen || end > len(b) {
		return packet.Packet{}, false // a packet is never laid out like this
	}
	length := int(h.Len)
	tagged := h.Status&unix.TP_STATUS_VLAN_VALID != 0
	tpid := uint16(dot1Q)
	if h.Status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		tpid = h.Hv1.Vlan_tpid
	}
	if c.how.link == packet.LinkEthernet && tagged && h.Snaplen >= macsLen {
		start -= tagLen
		length += tagLen
		copy(b[start:], b[start+tagLen:][:macsLen])
		binary.BigEndian.PutUint16(b[start+macsLen:], tpid)
		binary.BigEndian.PutUint16(b[start+macsLen+2:], uint16(h.Hv1.Vlan_tci)) //nolint:gosec // 16 bits are used
	}
	if c.how.link == packet.LinkSLL {
		if tagged {
			start -= tagLen
			length += tagLen
			binary.BigEndian.PutUint16(b[start:], uint16(h.Hv1.Vlan_tci)) //nolint:gosec // 16 bits are used
			binary.BigEndian.PutUint16(b[start+2:], proto)
			proto = tpid
		}
		start -= sllLen
		length += sllLen
		s := b[start:]
		binary.BigEndian.PutUint16(s, uint16(from.Pkttype))
		binary.BigEndian.PutUint16(s[2:], from.Hatype)
		binary.BigEndian.PutUint16(s[4:], uint16(from.Halen))
		copy(s[6:14], from.Addr[:])
		binary.BigEndian.PutUint16(s[14:], proto)
	}
	p := packet.Packet{
		Time: int64(h.Sec)*1e9 + int64(h.Nsec), Data: b[start:end:end], Length: length, Link: c.how.link,
	}
	if c.user != nil && !c.user.Match(p.Data, p.Length) {
		return packet.Packet{}, false
	}
	return p, true
}

// wait waits for a block for a while. It reports whether there is none, and
// sees to it that an interface that went away is found again.
func (c *Capture) wait() (quiet bool, err error) {
	f := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}} //nolint:gosec // a descriptor
	n, err := unix.Poll(f, int(patient.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, fmt.Errorf("wait for packets: %w", err)
	}
	if n > 0 && f[0].Revents&(unix.POLLERR|unix.POLLNVAL|unix.POLLHUP) != 0 {
		code, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil {
			return false, fmt.Errorf("ask the socket what is wrong: %w", err)
		}
		if e := syscall.Errno(code); e != 0 && e != unix.ENETDOWN { //nolint:gosec // of the kernel
			return false, fmt.Errorf("the packet socket: %w", e)
		}
		c.lose()
	}
	if c.gap != nil {
		if err := c.find(); err != nil {
			return false, err
		}
	}
	return n <= 0, nil
}

const removed = "the interface was removed"

// lose begins a gap.
func (c *Capture) lose() {
	if c.gap != nil {
		return
	}
	why := "the interface went down"
	if s, err := look(c.fd, c.o.Interface); err != nil || s.index != c.index {
		why = removed
	}
	c.gap = &Gap{Interface: c.o.Interface, Reason: why, Start: time.Now().UnixNano()}
	c.gaps.Add(1)
	if c.o.OnGap != nil {
		c.o.OnGap(*c.gap)
	}
}

// find ends the gap if the interface is there and up. One that was only down
// delivers by itself; to one that was made anew the socket is bound, for which
// no privilege is needed.
func (c *Capture) find() error {
	s, err := look(c.fd, c.o.Interface)
	if err != nil || !s.up {
		return nil //nolint:nilerr // it is not there yet
	}
	if h, err := kindOf(s.hw); err != nil || h.cooked != c.how.cooked || h.link != c.how.link {
		return fmt.Errorf("the interface came back as another kind: %w: hardware type %d, which was %d", ErrLink, s.hw, c.how.hw)
	}
	was := c.index
	c.index = s.index
	if err := c.bind(); err != nil {
		if c.index = was; errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENXIO) {
			return nil // it went away again
		}
		return err
	}
	if c.index != was { // one that is removed goes down before that, which may be all that lose has seen
		c.gap.Reason = removed
	}
	c.gap.End = time.Now().UnixNano()
	if c.o.OnGap != nil {
		c.o.OnGap(*c.gap)
	}
	c.gap = nil
	return nil
}
