package arp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// MAC is a hardware address of Ethernet.
type MAC [6]byte

// String returns m as people write it.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// host reports whether m is the address of one machine: neither nothing nor
// multicast or broadcast.
func (m MAC) host() bool { return m != MAC{} && m[0]&1 == 0 }

// virtual reports whether m is one that routers share: VRRP and CARP (RFC
// 9568, 00-00-5E-00-01-xx), HSRP 1 (00-00-0C-07-AC-xx) and 2
// (00-00-0C-9F-Fx-xx).
func (m MAC) virtual() bool {
	switch [5]byte(m[:5]) {
	case [5]byte{0, 0, 0x5e, 0, 1}, [5]byte{0, 0, 0x0c, 7, 0xac}:
		return true
	}
	return [4]byte(m[:4]) == [4]byte{0, 0, 0x0c, 0x9f} && m[4]&0xf0 == 0xf0
}

// The operations of ARP (RFC 826).
const (
	opRequest = 1
	opReply   = 2
)

// message is what ARP says for IPv4 over Ethernet.
type message struct {
	op  uint16
	sha MAC // of the sender
	spa netip.Addr
	tha MAC // of the target
	tpa netip.Addr
}

const (
	headerLen = 14 // of Ethernet: destination, source, type
	frameLen  = headerLen + 28
	etherARP  = 0x0806
	etherIPv4 = 0x0800
)

// fixed is what the first eight bytes of a message are, without the operation:
// Ethernet, IPv4, the lengths of their addresses.
func fixed() [6]byte { return [6]byte{0, 1, etherIPv4 >> 8, etherIPv4 & 0xff, 6, 4} }

// frame returns m in a frame of Ethernet.
func frame(dst, src MAC, m message) []byte {
	b := make([]byte, 0, frameLen)
	b = append(b, dst[:]...)
	b = append(b, src[:]...)
	b = binary.BigEndian.AppendUint16(b, etherARP)
	f := fixed()
	b = append(b, f[:]...)
	b = binary.BigEndian.AppendUint16(b, m.op)
	spa, tpa := m.spa.As4(), m.tpa.As4()
	b = append(b, m.sha[:]...)
	b = append(b, spa[:]...)
	b = append(b, m.tha[:]...)
	return append(b, tpa[:]...)
}

// parse reads a frame, which may have padding behind it. It is not ok when
// that is not ARP for IPv4, or the sender is another than its header says.
func parse(b []byte) (m message, ok bool) {
	if len(b) < frameLen || binary.BigEndian.Uint16(b[12:]) != etherARP || [6]byte(b[14:20]) != fixed() {
		return m, false
	}
	m = message{
		op:  binary.BigEndian.Uint16(b[20:]),
		sha: MAC(b[22:28]), spa: netip.AddrFrom4([4]byte(b[28:32])),
		tha: MAC(b[32:38]), tpa: netip.AddrFrom4([4]byte(b[38:42])),
	}
	return m, m.sha == MAC(b[6:12]) && m.sha.host()
}

// tell returns the frames by which the machine at to, whose address is toAddr,
// takes addr to be at mac. They go to that machine alone.
//
// The first asks that machine for its own address, in the name of addr: whoever
// is asked notes who asks (RFC 826), at any time, also one that had no entry.
// The second is an answer: Linux takes the entry for sure then, and asks no
// more for 15 s at least. An answer alone it would not take within a second
// of another one (locktime), nor without an entry.
func tell(own, to MAC, toAddr, addr netip.Addr, mac MAC) [][]byte {
	return [][]byte{
		frame(to, own, message{opRequest, mac, addr, MAC{}, toAddr}),
		frame(to, own, message{opReply, mac, addr, to, toAddr}),
	}
}

// ask returns the frame that asks everybody who has addr, in the name of from.
func ask(own MAC, from, addr netip.Addr) []byte {
	return frame(MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, own, message{opRequest, own, from, MAC{}, addr})
}
