package zeekscripts

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// capture builds a pcap of Ethernet frames, a millisecond apart. Checksums are
// zero, as on a card that computes them: Zeek runs with -C.
type capture struct {
	b   []byte
	now time.Time
}

func newCapture() *capture {
	c := &capture{now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	c.b = binary.LittleEndian.AppendUint32(c.b, 0xa1b2c3d4)
	c.b = binary.LittleEndian.AppendUint16(c.b, 2)
	c.b = binary.LittleEndian.AppendUint16(c.b, 4)
	c.b = append(c.b, make([]byte, 8)...)
	c.b = binary.LittleEndian.AppendUint32(c.b, 65535)
	c.b = binary.LittleEndian.AppendUint32(c.b, 1) // Ethernet
	return c
}

// write writes the capture to a file.
func (c *capture) write(t *testing.T) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "made.pcap")
	if err := os.WriteFile(p, c.b, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// The hardware addresses of all frames.
var macA, macB = []byte{2, 0, 0, 0, 0, 0xa}, []byte{2, 0, 0, 0, 0, 0xb}

// frame adds a frame with the given VLAN tags, outermost first.
func (c *capture) frame(ethertype uint16, payload []byte, vlans ...uint16) {
	f := append(append([]byte{}, macB...), macA...)
	for _, v := range vlans {
		f = binary.BigEndian.AppendUint16(f, 0x8100)
		f = binary.BigEndian.AppendUint16(f, v)
	}
	f = binary.BigEndian.AppendUint16(f, ethertype)
	f = append(f, payload...)
	c.now = c.now.Add(time.Millisecond)
	c.b = binary.LittleEndian.AppendUint32(c.b, uint32(c.now.Unix()))
	c.b = binary.LittleEndian.AppendUint32(c.b, uint32(c.now.Nanosecond()/1000))
	c.b = binary.LittleEndian.AppendUint32(c.b, uint32(len(f)))
	c.b = binary.LittleEndian.AppendUint32(c.b, uint32(len(f)))
	c.b = append(c.b, f...)
}

// ip adds an IPv4 packet.
func (c *capture) ip(proto byte, src, dst string, payload []byte, vlans ...uint16) {
	h := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0}
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	for _, s := range []string{src, dst} {
		a := netip.MustParseAddr(s).As4()
		h = append(h, a[:]...)
	}
	c.frame(0x0800, append(h, payload...), vlans...)
}

// udp adds a datagram.
func (c *capture) udp(src, dst netip.AddrPort, payload []byte, vlans ...uint16) {
	var h []byte
	h = binary.BigEndian.AppendUint16(h, src.Port())
	h = binary.BigEndian.AppendUint16(h, dst.Port())
	h = binary.BigEndian.AppendUint16(h, uint16(8+len(payload)))
	h = append(h, 0, 0)
	c.ip(17, src.Addr().String(), dst.Addr().String(), append(h, payload...), vlans...)
}

// icmp adds an ICMP message.
func (c *capture) icmp(typ byte, src, dst string) {
	c.ip(1, src, dst, []byte{typ, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
}

// arp adds an ARP message: op is 1 for a request, 2 for a reply.
func (c *capture) arp(op uint16, senderHW []byte, sender string, targetHW []byte, target string) {
	m := []byte{0, 1, 8, 0, 6, 4}
	m = binary.BigEndian.AppendUint16(m, op)
	s, d := netip.MustParseAddr(sender).As4(), netip.MustParseAddr(target).As4()
	m = append(append(m, senderHW...), s[:]...)
	m = append(append(m, targetHW...), d[:]...)
	c.frame(0x0806, m)
}

// talk is a connection of TCP that the capture holds in full.
type talk struct {
	c        *capture
	src, dst netip.AddrPort
	seq      [2]uint32 // of the client, of the server
}

const (
	fin = 1
	syn = 2
	psh = 8
	ack = 16
)

// connect adds a handshake.
func (c *capture) connect(src, dst string) *talk {
	k := &talk{c: c, src: netip.MustParseAddrPort(src), dst: netip.MustParseAddrPort(dst), seq: [2]uint32{1000, 9000}}
	k.segment(0, syn, nil)
	k.segment(1, syn|ack, nil)
	k.segment(0, ack, nil)
	return k
}

// segment adds one segment of the client (0) or the server (1).
func (k *talk) segment(side int, flags byte, payload []byte) {
	src, dst := k.src, k.dst
	if side == 1 {
		src, dst = dst, src
	}
	var h []byte
	h = binary.BigEndian.AppendUint16(h, src.Port())
	h = binary.BigEndian.AppendUint16(h, dst.Port())
	h = binary.BigEndian.AppendUint32(h, k.seq[side])
	h = binary.BigEndian.AppendUint32(h, k.seq[1-side])
	h = append(h, 5<<4, flags, 0xff, 0xff, 0, 0, 0, 0)
	if k.seq[side] += uint32(len(payload)); flags&(syn|fin) != 0 {
		k.seq[side]++
	}
	k.c.ip(6, src.Addr().String(), dst.Addr().String(), append(h, payload...))
}

// says adds data of the client (0) or the server (1), and the acknowledgement.
func (k *talk) says(side int, s string) {
	k.segment(side, psh|ack, []byte(s))
	k.segment(1-side, ack, nil)
}

// close adds the end.
func (k *talk) close() {
	k.segment(0, fin|ack, nil)
	k.segment(1, fin|ack, nil)
	k.segment(0, ack, nil)
}

// communityID is version 1 of the community id with seed 0, for an originator
// that sorts before the responder.
func communityID(orig, resp string, proto byte, sport, dport uint16) string {
	b := []byte{0, 0}
	for _, s := range []string{orig, resp} {
		a := netip.MustParseAddr(s).As4()
		b = append(b, a[:]...)
	}
	b = append(b, proto, 0)
	b = binary.BigEndian.AppendUint16(b, sport)
	b = binary.BigEndian.AppendUint16(b, dport)
	sum := sha1.Sum(b)
	return "1:" + base64.StdEncoding.EncodeToString(sum[:])
}
