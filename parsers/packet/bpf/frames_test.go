package bpf_test

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/slips-go/slips/parsers/packet"
)

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// ipv4 returns an IPv4 packet. options are 4-byte words of header options.
func ipv4(src, dst string, proto byte, frag uint16, options int, body []byte) []byte {
	b := make([]byte, 20+4*options)
	b[0], b[8], b[9] = byte(0x45+options), 64, proto
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(body)))
	binary.BigEndian.PutUint16(b[6:], frag)
	s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
	copy(b[12:], s[:])
	copy(b[16:], d[:])
	for i := 20; i < len(b); i++ {
		b[i] = 1
	}
	return append(b, body...)
}

// ipv6 returns an IPv6 packet.
func ipv6(src, dst string, next byte, body []byte) []byte {
	b := make([]byte, 40)
	b[0], b[6], b[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
	s, d := netip.MustParseAddr(src).As16(), netip.MustParseAddr(dst).As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
	return append(b, body...)
}

// seg returns a TCP segment.
func seg(sport, dport uint16, flags byte, data string) []byte {
	b := slices.Concat(be16(sport), be16(dport), be32(1), be32(2), []byte{5 << 4, flags}, be16(1024), be32(0))
	return append(b, data...)
}

// dgram returns a UDP datagram.
func dgram(sport, dport uint16, data string) []byte {
	return append(slices.Concat(be16(sport), be16(dport), be16(uint16(8+len(data))), be16(0)), data...)
}

// proto is what a link header carries.
type proto struct {
	ether uint16
	body  []byte
}

// arpOf returns an ARP packet.
func arpOf(op uint16, src, dst string) []byte {
	s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
	return slices.Concat(be16(1), be16(0x800), []byte{6, 4}, be16(op), []byte{2, 0, 0, 0, 0, 1}, s[:], make([]byte, 6), d[:])
}

// content are the packets that the filters of the tests tell apart.
func content() []proto {
	const a, b, c = "10.0.0.1", "192.0.2.80", "10.0.0.2"
	var p []proto
	four := func(body []byte) { p = append(p, proto{0x800, body}) }
	for _, f := range []byte{2, 18, 16, 24, 4, 17, 0, 255} {
		four(ipv4(a, b, 6, 0x4000, 0, seg(40000, 80, f, "GET / HTTP/1.1\r\n")))
		four(ipv4(b, a, 6, 0, 0, seg(80, 40000, f, "")))
	}
	four(ipv4(a, b, 6, 0, 2, seg(443, 22, 2, "x")))
	four(ipv4(a, c, 6, 0, 10, seg(1, 80, 2, "GET ")))
	four(ipv4(c, a, 17, 0, 0, dgram(53, 53, "\x81\x80 an answer")))
	four(ipv4(a, c, 17, 0, 1, dgram(5353, 53, "\x01\x00 a question")))
	four(ipv4(a, c, 17, 0x2000, 0, dgram(5353, 53, "first piece")))
	four(ipv4(a, c, 17, 0x0003, 0, dgram(5353, 53, "later piece")))
	four(ipv4(a, c, 132, 0, 0, dgram(80, 443, "sctp")))
	four(ipv4(a, c, 1, 0, 0, []byte{8, 0, 1, 2, 0, 1, 0, 1}))
	four(ipv4(c, a, 1, 0, 0, []byte{0, 0, 1, 2, 0, 1, 0, 1}))
	four(ipv4(c, a, 1, 0, 0, []byte{3, 3, 1, 2, 0, 0, 0, 0, 0x45}))
	for _, n := range []byte{2, 9, 47, 50, 51, 103, 112, 41} {
		four(ipv4(a, "224.0.0.5", n, 0, 0, make([]byte, 30)))
	}
	four(ipv4(a, "255.255.255.255", 17, 0, 0, dgram(68, 67, "dhcp")))
	four(ipv4("0.0.0.0", "10.0.0.255", 17, 0, 0, dgram(137, 137, "name")))
	four(ipv4("172.16.5.5", "10.0.0.3", 6, 0, 0, seg(65535, 0, 2, string(make([]byte, 1300)))))
	four(ipv4("1.2.3.4", "5.6.7.8", 6, 0, 0, seg(5, 6, 2, "")))
	const v6a, v6b = "2001:db8::1", "2001:db8::2"
	six := func(body []byte) { p = append(p, proto{0x86dd, body}) }
	six(ipv6(v6a, v6b, 6, seg(40000, 80, 2, "GET ")))
	six(ipv6(v6b, v6a, 6, seg(80, 40000, 18, "")))
	six(ipv6(v6a, v6b, 17, dgram(53, 53, "dns")))
	six(ipv6(v6a, v6b, 132, dgram(80, 53, "sctp")))
	six(ipv6(v6a, v6b, 44, append([]byte{6, 0, 0, 1, 0, 0, 0, 1}, seg(1, 80, 2, "")...)))
	six(ipv6(v6a, v6b, 44, append([]byte{17, 0, 0, 8, 0, 0, 0, 1}, "later"...)))
	six(ipv6(v6a, v6b, 0, append([]byte{6, 0, 1, 4, 0, 0, 0, 0}, seg(1, 80, 2, "")...)))
	six(ipv6("fe80::1", "ff02::1:ff00:2", 58, []byte{135, 0, 0, 0, 0, 0, 0, 0}))
	six(ipv6("fe80::1", "fe80::2", 58, []byte{128, 0, 0, 0, 0, 1, 0, 1}))
	six(ipv6("::ffff:1.2.3.4", "2001:db9::1", 51, make([]byte, 24)))
	six(ipv6("2001:db8:8000::1", "::", 50, make([]byte, 24)))
	six(ipv6(v6a, v6b, 103, make([]byte, 24)))
	p = append(p, proto{0x806, arpOf(1, a, c)}, proto{0x806, arpOf(2, c, a)}, proto{0x806, arpOf(1, b, "10.9.9.9")},
		proto{0x8035, arpOf(3, a, a)})
	for _, t := range []uint16{0x8863, 0x88cc, 0x6003, 0x6004, 0x809b, 0x80f3, 0x8137, 0x9000} {
		p = append(p, proto{t, make([]byte, 40)})
	}
	return p
}

// builtFrames puts the content into frames of all link types, whole and cut.
func builtFrames() []frames {
	var sets []frames
	add := func(link packet.Link, all ...[]byte) {
		s := frames{link: link}
		for _, d := range all {
			n := len(d)
			for _, cut := range []int{n, 0, 1, 10, 13, 14, 15, 20, 23, 24, 26, 30, 33, 34, 35, 36, 38, 40, 42, 46, 54, 55, 56, 58} {
				if cut <= n {
					s.all = append(s.all, packet.Packet{Time: 1e9 * int64(len(s.all)), Data: d[:cut], Length: n, Link: link})
				}
			}
		}
		sets = append(sets, s)
	}
	macs := [][]byte{
		{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1},
		{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2},
		{2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8},
		{255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1},
		{1, 0, 0x5e, 0, 0, 5, 2, 0, 0, 0, 0, 1},
		{0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2},
	}
	label := func(n uint32, bottom byte) []byte {
		l := be32(n << 12)
		l[2] |= bottom
		return append(l[:3:3], 64)
	}
	var eth, raw, sll, sll2, null, loop, ppp [][]byte
	for i, c := range content() {
		m := macs[i%len(macs)]
		eth = append(eth, slices.Concat(m, be16(c.ether), c.body),
			slices.Concat(m, be16(0x8100), be16(0x6007), be16(c.ether), c.body),
			slices.Concat(m, be16(0x88a8), be16(0x0007), be16(0x8100), be16(8), be16(c.ether), c.body),
			slices.Concat(m, be16(0x9100), be16(8), be16(c.ether), c.body),
			slices.Concat(m, be16(0x8847), label(100, 1), c.body),
			slices.Concat(m, be16(0x8847), label(100, 0), label(200, 1), c.body),
			slices.Concat(m, be16(0x8100), be16(7), be16(0x8847), label(300, 1), c.body))
		ppptype := map[uint16]uint16{0x800: 0x21, 0x86dd: 0x57}[c.ether]
		if ppptype == 0 {
			ppptype = c.ether
		}
		for _, session := range []uint16{5, 6} {
			eth = append(eth, slices.Concat(m, be16(0x8864), []byte{0x11, 0}, be16(session), be16(uint16(len(c.body))), be16(ppptype), c.body))
		}
		ppp = append(ppp, slices.Concat([]byte{255, 3}, be16(ppptype), c.body), slices.Concat([]byte{255, 3}, be16(0x281), label(100, 1), c.body))
		sll = append(sll, slices.Concat(be16(uint16(i%5)), be16(1), be16(6), make([]byte, 8), be16(c.ether), c.body))
		sll2 = append(sll2, slices.Concat(be16(c.ether), be16(0), be32(2), be16(1), []byte{byte(i % 5), 6}, make([]byte, 8), c.body))
		raw = append(raw, c.body)
		if c.ether == 0x800 {
			null = append(null, slices.Concat([]byte{2, 0, 0, 0}, c.body))
			loop = append(loop, slices.Concat([]byte{0, 0, 0, 2}, c.body))
		}
		if c.ether == 0x86dd {
			null = append(null, slices.Concat([]byte{10, 0, 0, 0}, c.body))
			loop = append(loop, slices.Concat([]byte{0, 0, 0, 10}, c.body))
		}
	}
	llc := func(b ...byte) []byte { return append(b, make([]byte, 30)...) }
	for _, l := range [][]byte{
		llc(0x42, 0x42, 3), llc(0xe0, 0xe0, 3), llc(0xff, 0xff), llc(0xfe, 0xfe, 3), llc(0xf0, 0xf0, 3), llc(6, 6, 3), llc(0xfe, 0, 3),
		llc(0xaa, 0xaa, 3, 8, 0, 7, 0x80, 0x9b), llc(0xaa, 0xaa, 3, 0, 0, 0, 0x80, 0xf3), llc(0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0x37),
	} {
		eth = append(eth, slices.Concat(macs[0], be16(uint16(len(l))), l))
		for _, t := range []uint16{1, 4} {
			sll = append(sll, slices.Concat(be16(0), be16(1), be16(6), make([]byte, 8), be16(t), l))
		}
	}
	add(packet.LinkEthernet, eth...)
	add(packet.LinkRaw, raw...)
	add(packet.LinkSLL, sll...)
	add(packet.LinkSLL2, sll2...)
	add(packet.LinkNull, null...)
	add(packet.LinkLoop, loop...)
	add(packet.LinkPPP, ppp...)
	return sets
}
