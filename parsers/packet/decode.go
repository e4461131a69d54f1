package packet

import (
	"encoding/binary"
)

// frame is what is known of a packet while it is decoded, from outside in.
type frame struct {
	t     int64             // by Meter.clock
	cut   int               // bytes that were on the wire behind the captured ones
	depth int               // tunnels around
	via   [maxDepth]*tunnel // the tunnels, the outermost first

	mac         bool // both of
	src, dst    [6]byte
	vlan, inner uint16
	tags        int
	ethers      int // Ethernet headers so far

	// Of IP.
	from, to addr
	v6       bool
	proto    uint8
	total    int // length of the IP packet as its header says
	size     int // length of the IP payload as the header says; more than was captured when the packet was cut
}

// The numbers of protocols behind Ethernet.
const (
	etherIPv4  = 0x0800
	etherARP   = 0x0806
	etherTEB   = 0x6558 // Ethernet in GRE
	etherVLAN  = 0x8100
	etherIPv6  = 0x86dd
	etherMPLS  = 0x8847
	etherMPLSm = 0x8848
	etherPPPoE = 0x8864
	etherQinQ  = 0x88a8
	etherPBB   = 0x88e7 // IEEE 802.1ah, Ethernet in Ethernet
	etherPath  = 0x8903 // Cisco FabricPath
	etherVNTag = 0x8926 // Cisco VN-Tag
	etherQinQ2 = 0x9100
)

func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// link decodes a frame of a capture.
func (m *Meter) link(f *frame, l Link, b []byte) {
	switch l {
	case LinkEthernet:
		m.ethernet(f, b)
	case LinkRaw, LinkRawBSD, LinkRawOBSD, LinkIPv4, LinkIPv6:
		m.ip(f, b)
	case LinkNull, LinkLoop:
		m.loopback(f, b)
	case LinkSLL:
		if len(b) < 16 {
			m.count(ShortFrame)
			return
		}
		if be16(b[4:]) == 6 { // only the sender's address is there
			copy(f.src[:], b[6:])
			f.mac = true
		}
		m.ether(f, be16(b[14:]), b[16:])
	case LinkSLL2:
		if len(b) < 20 {
			m.count(ShortFrame)
			return
		}
		if b[11] == 6 {
			copy(f.src[:], b[12:])
			f.mac = true
		}
		m.ether(f, be16(b), b[20:])
	case LinkPPP, LinkPPPHDLC:
		if len(b) >= 4 && b[0] == 0xff && b[1] == 0x03 {
			b = b[2:]
		} else if l == LinkPPPHDLC { // Cisco HDLC has an Ethernet type in that place
			if len(b) < 4 {
				m.count(ShortFrame)
				return
			}
			m.ether(f, be16(b[2:]), b[4:])
			return
		}
		m.ppp(f, b)
	case LinkPPPoE:
		m.ether(f, etherPPPoE, b)
	case LinkFDDI:
		if len(b) < 13 {
			m.count(ShortFrame)
			return
		}
		copy(f.dst[:], b[1:])
		copy(f.src[:], b[7:])
		f.mac = true
		m.llc(f, b[13:])
	case LinkNFLOG:
		m.nflog(f, b)
	case LinkWiFi:
		m.wifi(f, b)
	case LinkRadiotap:
		if len(b) < 4 || len(b) < int(binary.LittleEndian.Uint16(b[2:])) {
			m.count(ShortFrame)
			return
		}
		m.wifi(f, b[binary.LittleEndian.Uint16(b[2:]):])
	default:
		m.count(UnknownLink)
	}
}

// ethernet decodes an Ethernet frame.
func (m *Meter) ethernet(f *frame, b []byte) {
	if f.ethers++; len(b) >= 16 && be16(b[12:]) == etherPath {
		b = b[16:] // the frame follows
	}
	if len(b) < 14 || f.ethers > maxEthers {
		m.count(ShortFrame)
		return
	}
	copy(f.dst[:], b)
	copy(f.src[:], b[6:])
	f.mac = true
	m.ether(f, be16(b[12:]), b[14:])
}

// ether decodes what follows an Ethernet type or, up to 1,500, a length.
func (m *Meter) ether(f *frame, typ uint16, b []byte) {
	for {
		switch typ {
		case etherIPv4, etherIPv6:
			m.ip(f, b)
			return
		case etherARP:
			m.arp(f, b)
			return
		case etherVLAN, etherQinQ, etherQinQ2:
			if len(b) < 4 || f.tags == maxTags {
				m.count(ShortFrame)
				return
			}
			if id := be16(b) & 0xfff; f.tags == 0 {
				f.vlan = id
			} else { // the last one, as in Zeek
				f.inner = id
			}
			f.tags++
			typ, b = be16(b[2:]), b[4:]
		case etherMPLS, etherMPLSm:
			m.mpls(f, b)
			return
		case etherPPPoE:
			if len(b) < 8 {
				m.count(ShortFrame)
				return
			}
			m.ppp(f, b[6:])
			return
		case etherTEB:
			m.ethernet(f, b)
			return
		case etherPBB: // the frame follows flags and the service
			if len(b) < 4 {
				m.count(ShortFrame)
				return
			}
			m.ethernet(f, b[4:])
			return
		case etherVNTag:
			if len(b) < 6 {
				m.count(ShortFrame)
				return
			}
			typ, b = be16(b[4:]), b[6:]
		default:
			if typ <= 1500 {
				if len(b) > int(typ) && typ > 0 {
					b = b[:typ] // the rest fills the frame up
				}
				m.llc(f, b)
				return
			}
			m.count(NotIP)
			return
		}
	}
}

// mpls decodes the packet behind a stack of labels, which says nothing about
// what it is but for its first four bits.
func (m *Meter) mpls(f *frame, b []byte) {
	for range maxLabels {
		if len(b) < 5 {
			break
		}
		last := b[2]&1 != 0
		if b = b[4:]; !last {
			continue
		}
		switch b[0] >> 4 {
		case 4, 6:
			m.ip(f, b)
		case 0: // a pseudowire with a control word, mostly Ethernet
			if len(b) < 4 {
				break
			}
			m.ethernet(f, b[4:])
		default:
			m.count(NotIP)
		}
		return
	}
	m.count(ShortFrame)
}

// ppp decodes what follows a PPP protocol field.
func (m *Meter) ppp(f *frame, b []byte) {
	if len(b) >= 1 && b[0]&1 != 0 { // compressed to one byte
		switch b[0] {
		case 0x21, 0x57:
			m.ip(f, b[1:])
		default:
			m.count(NotIP)
		}
		return
	}
	if len(b) < 2 {
		m.count(ShortFrame)
		return
	}
	switch be16(b) {
	case 0x0021, 0x0057:
		m.ip(f, b[2:])
	case 0x0281:
		m.mpls(f, b[2:])
	default:
		m.count(NotIP)
	}
}

// llc decodes IEEE 802.2, of interest only with a SNAP header.
func (m *Meter) llc(f *frame, b []byte) {
	if len(b) < 8 {
		m.count(NotIP)
		return
	}
	if b[0] != 0xaa || b[1] != 0xaa || b[2] != 3 {
		m.count(NotIP)
		return
	}
	if typ := be16(b[6:]); typ > 1500 {
		m.ether(f, typ, b[8:])
		return
	}
	m.count(NotIP)
}

// loopback decodes what follows the address family of a loopback interface.
// Each system has its own number for IPv6 and the byte order of its machine,
// so the first bits of the packet decide.
func (m *Meter) loopback(f *frame, b []byte) {
	if len(b) < 5 {
		m.count(ShortFrame)
		return
	}
	fam := be32(b)
	if fam > 0xffff {
		fam = binary.LittleEndian.Uint32(b)
	}
	switch fam {
	case 2, 10, 23, 24, 28, 30:
		m.ip(f, b[4:])
	default:
		m.count(NotIP)
	}
}

// nflog decodes the records of Linux' netfilter log: the family, and the
// packet in one of the attributes.
func (m *Meter) nflog(f *frame, b []byte) {
	if len(b) < 4 {
		m.count(ShortFrame)
		return
	}
	family := b[0]
	for b = b[4:]; len(b) >= 4; {
		n, typ := int(binary.LittleEndian.Uint16(b)), binary.LittleEndian.Uint16(b[2:])
		if n < 4 || n > len(b) {
			break
		}
		if typ == 9 { // NFULA_PAYLOAD
			if family == 2 || family == 10 {
				m.ip(f, b[4:n])
				return
			}
			break
		}
		b = b[min(len(b), (n+3)&^3):]
	}
	m.count(NotIP)
}

// wifi decodes IEEE 802.11 data frames, alone or as aggregates.
func (m *Meter) wifi(f *frame, b []byte) {
	if len(b) < 24 {
		m.count(ShortFrame)
		return
	}
	if b[0]&0x0c != 0x08 || b[0]&0x40 != 0 || b[1]&0x40 != 0 { // no data, or encrypted
		m.count(NotIP)
		return
	}
	n := 24
	var src, dst []byte
	switch b[1] & 3 {
	case 0:
		dst, src = b[4:10], b[10:16]
	case 1: // to the access point
		src, dst = b[10:16], b[16:22]
	case 2: // from the access point
		dst, src = b[4:10], b[16:22]
	case 3:
		n += 6
		if len(b) < n {
			m.count(ShortFrame)
			return
		}
		dst, src = b[16:22], b[24:30]
	}
	copy(f.src[:], src)
	copy(f.dst[:], dst)
	f.mac = true
	aggregate := false
	if b[0]&0x80 != 0 { // QoS
		if len(b) < n+2 {
			m.count(ShortFrame)
			return
		}
		aggregate = b[n]&0x80 != 0
		if n += 2; b[1]&0x80 != 0 {
			n += 4 // HT control
		}
	}
	if len(b) < n {
		m.count(ShortFrame)
		return
	}
	if b = b[n:]; !aggregate {
		m.llc(f, b)
		return
	}
	for len(b) >= 14 {
		size := int(be16(b[12:]))
		if size > len(b)-14 {
			m.count(ShortFrame)
			return
		}
		g := *f
		copy(g.dst[:], b)
		copy(g.src[:], b[6:])
		m.llc(&g, b[14:14+size])
		b = b[min(len(b), (14+size+3)&^3):]
	}
}

// v4 sets an address to an IPv4 one.
func (a *addr) v4(b []byte) {
	*a = addr{10: 0xff, 11: 0xff}
	copy(a[12:], b[:4])
}

// ip decodes an IP packet.
func (m *Meter) ip(f *frame, b []byte) {
	if len(b) < 20 {
		m.count(ShortIP)
		return
	}
	switch b[0] >> 4 {
	case 4:
		m.ipv4(f, b)
	case 6:
		m.ipv6(f, b)
	default:
		m.count(BadIPVersion)
	}
}

func (m *Meter) ipv4(f *frame, b []byte) {
	head, total := int(b[0]&15)*4, int(be16(b[2:]))
	size := total
	if total == 0 { // the network card was to fill it in: segmentation offload
		size = len(b)
	}
	switch {
	case size > len(b)+f.cut:
		m.count(BeyondFrame)
		return
	case head < 20, head > size:
		m.count(BadIPHeader)
		return
	case head > len(b):
		m.count(ShortIP)
		return
	}
	if m.opts.Checksums && sum(b[:head], 0) != 0xffff {
		m.count(BadChecksum)
		return
	}
	f.v6, f.proto, f.total, f.size = false, b[9], total, size-head
	f.from.v4(b[12:])
	f.to.v4(b[16:])
	body := b[head:min(size, len(b))]
	if frag := be16(b[6:]); frag&0x3fff != 0 {
		if len(b) < size {
			m.count(CutFragment)
			if frag&0x1fff != 0 {
				return
			}
		} else {
			k := fragKey{f.from, f.to, uint32(be16(b[4:]))}
			body = m.frags.add(m, k, int(frag&0x1fff)*8, frag&0x2000 != 0, body)
			if body == nil {
				return
			}
			if head+len(body) > maxDatagram {
				m.count(FragmentOverflow)
				return
			}
			f.size, f.total, f.cut = len(body), head+len(body), 0
		}
	}
	m.transport(f, body)
}

func (m *Meter) ipv6(f *frame, b []byte) {
	if len(b) < 40 {
		m.count(ShortIP)
		return
	}
	total := 40 + int(be16(b[4:]))
	if total > len(b)+f.cut {
		m.count(BeyondFrame)
		return
	}
	f.v6, f.total = true, total
	copy(f.from[:], b[8:])
	copy(f.to[:], b[24:])
	whole := len(b) >= total
	b = b[:min(total, len(b))]
	next, head := b[6], 40
	for range maxExtensions {
		var size int
		switch next {
		case 0, 43, 60: // hop by hop, routing, options
			if len(b) < head+8 {
				m.count(ShortIP)
				return
			}
			size = 8 + 8*int(b[head+1])
		case 51: // authentication
			if len(b) < head+8 {
				m.count(ShortIP)
				return
			}
			size = 8 + 4*int(b[head+1])
		case 44: // fragment
			if len(b) < head+8 {
				m.count(ShortIP)
				return
			}
			size = 8
		case 50:
			m.count(Encrypted)
			return
		case 59, 135:
			m.count(Mobility)
			return
		default:
			f.proto, f.size = next, total-head
			m.transport(f, b[head:])
			return
		}
		if head+size > total {
			m.count(BadIPHeader)
			return
		}
		if head+size > len(b) {
			m.count(ShortIP)
			return
		}
		x := b[head : head+size]
		switch next {
		case 43:
			f.to.route(x)
		case 60:
			f.from.home(x)
		case 44:
			off, more := int(be16(x[2:])&^7), x[3]&1 != 0
			if !whole {
				m.count(CutFragment)
				if off != 0 {
					return
				}
				break
			}
			k := fragKey{f.from, f.to, be32(x[4:])}
			body := m.frags.add(m, k, off, more, b[head+8:])
			if body == nil {
				return
			}
			if head-40+len(body) > maxDatagram {
				m.count(FragmentOverflow)
				return
			}
			// Headers behind the fragment header were fragmented too.
			f.cut = 0
			m.behindFragments(f, x[0], head, body)
			return
		}
		next, head = x[0], head+size
	}
	m.count(BadIPHeader)
}

// behindFragments goes on with a reassembled IPv6 packet, whose further
// extension headers are in the reassembled part.
func (m *Meter) behindFragments(f *frame, next uint8, head int, body []byte) {
	f.total = head + len(body)
	for range maxExtensions {
		switch next {
		case 0, 43, 60, 51:
			if len(body) < 8 {
				m.count(ShortIP)
				return
			}
			size := 8 + 8*int(body[1])
			if next == 51 {
				size = 8 + 4*int(body[1])
			}
			if size > len(body) {
				m.count(BadIPHeader)
				return
			}
			next, body = body[0], body[size:]
		case 50:
			m.count(Encrypted)
			return
		case 44, 59, 135:
			m.count(Mobility)
			return
		default:
			f.proto, f.size = next, len(body)
			m.transport(f, body)
			return
		}
	}
	m.count(BadIPHeader)
}

// route sets a destination to the last one of a routing header, of the types
// that name it: 0, and 2 of mobile hosts.
func (a *addr) route(x []byte) {
	if len(x) >= 24 && x[3] > 0 && (x[2] == 0 && x[1]%2 == 0 || x[2] == 2 && x[1] == 2) {
		copy(a[:], x[len(x)-16:])
	}
}

// home sets a source to the home address of a mobile host, from the options, as
// Zeek does. Hosts that know nothing of that drop the packet, so it is as easy
// to forge a source by it as by the header.
func (a *addr) home(x []byte) {
	for o := x[2:]; len(o) >= 2; {
		if o[0] == 0 {
			o = o[1:]
			continue
		}
		n := int(o[1]) + 2
		if n > len(o) {
			return
		}
		if o[0] == 201 && n == 18 {
			copy(a[:], o[2:])
			return
		}
		o = o[n:]
	}
}

// sum adds up 16-bit words as Internet checksums do; with a correct checksum
// inside the result is 0xffff.
func sum(b []byte, s uint32) uint16 {
	for len(b) >= 2 {
		s += uint32(be16(b))
		b = b[2:]
		if s >= 1<<30 {
			s = s&0xffff + s>>16
		}
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// checked reports whether the checksum of a transport payload is right, or
// cannot be told because the packet was cut.
func (m *Meter) checked(f *frame, b []byte) bool {
	if !m.opts.Checksums || len(b) < f.size {
		return true
	}
	if f.proto == 1 {
		return sum(b, 0) == 0xffff
	}
	s := uint32(f.proto) + uint32(len(b)&0xffff) + uint32(len(b)>>16)
	from, to := f.from[12:], f.to[12:]
	if f.v6 {
		from, to = f.from[:], f.to[:]
	}
	s += uint32(sum(from, 0)) + uint32(sum(to, 0))
	return sum(b, s) == 0xffff
}
