package packet

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/slips-go/slips/parsers/flow"
)

// second is the unit in which the tests tell time.
const second = int64(1e9)

// t0 is when the packets of the tests begin.
const t0 = 1_700_000_000 * second

var (
	client = netip.MustParseAddr("10.0.0.1")
	server = netip.MustParseAddr("192.0.2.80")
)

// raw are the parts of a packet that the tests choose.
type raw struct {
	src, dst     netip.Addr
	sport, dport uint16
	flags        string // of TCP, as "SA"
	seq, ack     uint32
	data         string
	window       uint16 // 0: 1024; 1: none
}

// ip4 returns an IPv4 packet.
func ip4(src, dst netip.Addr, proto byte, body []byte) []byte {
	b := make([]byte, 20, 20+len(body))
	b[0], b[8], b[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(body)))
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(b[10:], ^sum(b, 0))
	return append(b, body...)
}

// ip6 returns an IPv6 packet.
func ip6(src, dst netip.Addr, next byte, body []byte) []byte {
	b := make([]byte, 40, 40+len(body))
	b[0], b[6], b[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return append(b, body...)
}

// tcp returns a TCP packet in IP.
func tcp(p raw) []byte {
	b := make([]byte, 20, 20+len(p.data))
	binary.BigEndian.PutUint16(b, p.sport)
	binary.BigEndian.PutUint16(b[2:], p.dport)
	binary.BigEndian.PutUint32(b[4:], p.seq)
	binary.BigEndian.PutUint32(b[8:], p.ack)
	b[12] = 5 << 4
	for _, l := range p.flags {
		b[13] |= 1 << strings.IndexRune("FSRPA", l)
	}
	switch p.window {
	case 0:
		binary.BigEndian.PutUint16(b[14:], 1024)
	case 1:
	default:
		binary.BigEndian.PutUint16(b[14:], p.window)
	}
	return wrap(p.src, p.dst, 6, append(b, p.data...), 16)
}

// udp returns a UDP packet in IP.
func udp(src, dst netip.Addr, sport, dport uint16, data string) []byte {
	b := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint16(b, sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(data)))
	return wrap(src, dst, 17, append(b, data...), 6)
}

// icmp returns an ICMP packet in IP.
func icmp(src, dst netip.Addr, typ, code byte, data string) []byte {
	b := append([]byte{typ, code, 0, 0, 0, 1, 0, 1}, data...)
	if src.Is6() {
		return wrap(src, dst, 58, b, 2)
	}
	binary.BigEndian.PutUint16(b[2:], ^sum(b, 0))
	return ip4(src, dst, 1, b)
}

// wrap puts the right checksum into a transport payload, and IP around it.
func wrap(src, dst netip.Addr, proto byte, b []byte, at int) []byte {
	s := uint32(proto) + uint32(len(b)) + uint32(sum(src.AsSlice(), 0)) + uint32(sum(dst.AsSlice(), 0))
	binary.BigEndian.PutUint16(b[at:], ^sum(b, s))
	if src.Is4() {
		return ip4(src, dst, proto, b)
	}
	return ip6(src, dst, proto, b)
}

// ether returns an Ethernet frame.
func ether(typ uint16, body []byte) []byte {
	b := []byte{0, 0, 0x5e, 0, 0x53, 2, 0, 0, 0x5e, 0, 0x53, 1, byte(typ >> 8), byte(typ)}
	return append(b, body...)
}

// bench feeds a Meter and keeps copies of what it emits.
type bench struct {
	*Meter
	now int64
	got []*flow.Flow
}

func newBench(o Options) *bench {
	b := &bench{now: t0}
	o.Next = func(flow.Kind) *flow.Flow { return new(flow.Flow) }
	o.Emit = func(f *flow.Flow) { b.got = append(b.got, f) }
	b.Meter = New(o)
	return b
}

// raw feeds an IP packet at the bench's time.
func (b *bench) raw(p []byte) { b.Feed(Packet{Time: b.now, Data: p, Length: len(p), Link: LinkRaw}) }

// step lets a time pass, in ms, and feeds an IP packet.
func (b *bench) step(ms int64, p []byte) {
	b.now += ms * 1e6
	b.raw(p)
}

// of returns the records of a kind so far.
func (b *bench) of(k flow.Kind) []*flow.Flow {
	return slices.DeleteFunc(slices.Clone(b.got), func(f *flow.Flow) bool { return f.Kind != k })
}

// talk is a TCP connection between client and server, written as a script.
type talk struct {
	b        *bench
	sp, dp   uint16
	from, to netip.Addr
	seq      [2]uint32
}

func newTalk(b *bench, sp, dp uint16) *talk {
	return &talk{b: b, sp: sp, dp: dp, from: client, to: server, seq: [2]uint32{1000, 5000}}
}

// say sends packets: ">S" from the client, "<SA" from the server; with
// payload after a colon, ">PA:GET". Numbers go on by themselves. A "!" in
// front keeps the packet from being captured.
func (t *talk) say(script ...string) *talk {
	for _, s := range script {
		s, lost := strings.CutPrefix(s, "!")
		dir := 0
		if s[0] == '<' {
			dir = 1
		}
		flags, data, _ := strings.Cut(s[1:], ":")
		p := raw{t.from, t.to, t.sp, t.dp, flags, t.seq[dir], t.seq[1-dir], data, 0}
		if dir == 1 {
			p.src, p.dst, p.sport, p.dport = t.to, t.from, t.dp, t.sp
		}
		if !strings.Contains(flags, "A") {
			p.ack = 0
		}
		t.seq[dir] += uint32(len(data))
		if strings.ContainsAny(flags, "SF") {
			t.seq[dir]++
		}
		t.b.now += 1e6
		if !lost {
			t.b.raw(tcp(p))
		}
	}
	return t
}

// one returns the only connection of a Meter that has ended.
func (b *bench) one(t *testing.T) *flow.Flow {
	t.Helper()
	b.End()
	c := b.of(flow.Conn)
	if len(c) != 1 {
		t.Fatalf("%d connections, want 1: %v", len(c), c)
	}
	return c[0]
}
