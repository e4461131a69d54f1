package packet

import (
	"bytes"
	"encoding/binary"

	"github.com/slips-go/slips/parsers/flow"
)

// tunnel is a tunnel that was seen: of two addresses, or what a connection of
// UDP carries.
type tunnel struct {
	from, to addr
	v6       bool
	kind     string
	c        *conn // nil: of two addresses
	gone     bool  // it, or c, had to make room for what is in it
	start    int64 // of the clock of the packets, unix ns
	last     int64 // by Meter.clock, when a connection began in it or moved into it; 0: none did, and nothing was told of it

	prev, next *tunnel // in tunnels.empty or tunnels.used
}

// tunnels are those of two addresses, in two rings whose heads are no tunnels:
// those in which no connection began, and those in which one did. The one seen
// longest ago comes first.
type tunnels struct {
	m           map[addrPair]*tunnel
	empty, used *tunnel
}

func newTunnels() tunnels {
	ring := func() *tunnel {
		t := new(tunnel)
		t.prev, t.next = t, t
		return t
	}
	return tunnels{m: make(map[addrPair]*tunnel), empty: ring(), used: ring()}
}

// push puts a tunnel at the end of a ring.
func (t *tunnel) push(ring *tunnel) {
	t.prev, t.next = ring.prev, ring
	t.prev.next, ring.prev = t, t
}

// drop takes a tunnel out of its ring.
func (t *tunnel) drop() { t.prev.next, t.next.prev = t.next, t.prev }

// move puts a tunnel, which was seen, at the end of the ring where it belongs.
func (x *tunnels) move(t *tunnel) {
	t.drop()
	if t.last != 0 {
		t.push(x.used)
	} else {
		t.push(x.empty)
	}
}

// tunnelRest is for how long no connection may begin in a tunnel for it to
// remain the same, in ns: Zeek's Tunnel::expiration_interval.
const tunnelRest = 3600 * 1e9

// inner decodes what is in a tunnel of two addresses, as an Ethernet type says.
func (m *Meter) inner(f *frame, kind string, typ uint16, b []byte) {
	if f.depth >= maxDepth {
		m.count(DeepTunnel)
		return
	}
	g := m.within(f, m.ipTunnelOf(f, kind))
	m.ether(&g, typ, b)
}

// within returns the frame of what is in a tunnel, less than maxDepth deep.
func (m *Meter) within(f *frame, t *tunnel) frame {
	g := frame{t: f.t, cut: f.cut, depth: f.depth + 1, via: f.via}
	g.via[f.depth] = t
	return g
}

// ipTunnelOf returns the tunnel between two addresses.
func (m *Meter) ipTunnelOf(f *frame, kind string) *tunnel {
	k := pairOf(f.from, f.to)
	if t := m.tunnels.m[k]; t != nil {
		m.tunnels.move(t)
		return t
	}
	if len(m.tunnels.m) >= maxTunnels {
		m.dropTunnel()
	}
	t := &tunnel{from: f.from, to: f.to, v6: f.v6, kind: kind, start: m.told(f.t)}
	m.tunnels.m[k] = t
	t.push(m.tunnels.empty)
	return t
}

// pairOf returns two addresses in order.
func pairOf(a, b addr) addrPair {
	if bytes.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	return addrPair{a, b}
}

// dropTunnel forgets the tunnel that was seen longest ago, one without
// connections before the others: forged ones take the place of their own like.
func (m *Meter) dropTunnel() {
	x := &m.tunnels
	t := x.empty.next
	if t == x.empty {
		t = x.used.next
	}
	t.drop()
	delete(x.m, pairOf(t.from, t.to))
	m.endTunnel(t, "Tunnel::EXPIRE")
	t.gone = true
}

// begins notes that a connection begins in a tunnel, of which Zeek tells with
// the first.
func (m *Meter) begins(t *tunnel) {
	if t.gone {
		return
	}
	if t.c == nil && t.last != 0 && m.clock-t.last > tunnelRest {
		m.endTunnel(t, "Tunnel::EXPIRE")
	}
	if t.last == 0 {
		m.tunnelRecord(t, "Tunnel::DISCOVER")
	}
	t.last = max(m.clock, 1)
	if t.c == nil {
		m.tunnels.move(t)
	}
}

// carried notes the tunnels in which a packet of a connection came: those that
// took a connection over which began elsewhere are told of too.
func (m *Meter) carried(f *frame) {
	for _, t := range f.via[:f.depth] {
		if t.last == 0 {
			m.begins(t)
		}
	}
}

// endTunnel emits the end of a tunnel of which was told.
func (m *Meter) endTunnel(t *tunnel, action string) {
	if t.last != 0 {
		m.tunnelRecord(t, action)
		t.last = 0
	}
}

func (m *Meter) tunnelRecord(t *tunnel, action string) {
	r := m.record(flow.Tunnel)
	if t.c != nil {
		t.c.base(r, m.told(m.clock))
	} else {
		r.Time, r.HasPorts = m.told(m.clock), true
		r.Src, r.Dst = t.from.netip(t.v6), t.to.netip(t.v6)
		r.LocalOrig, r.LocalResp = m.local(r.Src), m.local(r.Dst)
		var b [64]byte
		id := append(b[:0], t.from[:]...)
		id = append(id, t.to[:]...)
		id = binary.BigEndian.AppendUint64(id, uint64(t.start))
		uid := uidOf(append(id, t.kind...))
		r.UID = r.Hold(uid[:])
	}
	r.Tunnel.Type, r.Tunnel.Action = t.kind, action
	m.emit(r)
}

// ipTunnel decodes IP in IP.
func (m *Meter) ipTunnel(f *frame, b []byte) {
	if len(b) < 20 || b[0]>>4 != 4 && b[0]>>4 != 6 || (b[0]>>4 == 4) != (f.proto == 4) {
		m.count(BadTunnel)
		return
	}
	m.inner(f, "Tunnel::IP", etherIPv4, b)
}

// greTunnel decodes GRE (RFC 2784 and 2890) and PPTP's variant (RFC 2637).
func (m *Meter) greTunnel(f *frame, b []byte) {
	if m.short(f, b, 4) {
		return
	}
	flags, typ := be16(b), be16(b[2:])
	n, version := 4, flags&7
	for _, bit := range [...]uint16{0x8000, 0x2000, 0x1000} { // checksum, key, sequence
		if flags&bit != 0 {
			n += 4
		}
	}
	if version == 1 && flags&0x0080 != 0 { // acknowledgement
		n += 4
	}
	if flags&0x4000 != 0 || version > 1 || len(b) < n { // source routes are not in use any more
		m.count(BadTunnel)
		return
	}
	b = b[n:]
	g := *f
	switch {
	case version == 1:
		if typ != 0x880b || len(b) < 4 {
			m.count(BadTunnel)
			return
		}
		if p := be16(b[2:]); b[0] != 0xff || b[1] != 3 || p != 0x21 && p != 0x57 {
			m.count(NotIP) // control messages, and payload that is compressed
			return
		}
		m.inner(&g, "Tunnel::GRE", etherIPv4, b[4:])
	case typ == 0x88be && flags&0x1000 != 0: // ERSPAN, version 2
		m.innerBehind(&g, b, 8)
	case typ == 0x88be:
		m.innerBehind(&g, b, 0)
	case typ == 0x22eb: // ERSPAN, version 3
		skip := 12
		if len(b) >= 12 && b[11]&1 != 0 {
			skip += 8
		}
		m.innerBehind(&g, b, skip)
	case isAruba(typ):
		if f.depth >= maxDepth {
			m.count(DeepTunnel)
			return
		}
		w := m.within(f, m.ipTunnelOf(f, "Tunnel::GRE"))
		m.wifi(&w, b)
	default:
		m.inner(&g, "Tunnel::GRE", typ, b)
	}
}

// isAruba reports whether a GRE type is one by which Aruba's access points
// send Wi-Fi frames.
func isAruba(typ uint16) bool {
	return typ == 0x9000 || typ&0x0f == 0 && (typ&0xff00 == 0x8200 || typ >= 0x8300 && typ <= 0x8370)
}

// innerBehind decodes Ethernet behind a header of GRE's payload.
func (m *Meter) innerBehind(f *frame, b []byte, skip int) {
	if len(b) < skip {
		m.count(BadTunnel)
		return
	}
	m.inner(f, "Tunnel::GRE", etherTEB, b[skip:])
}

// udpTunnel decodes tunnels over UDP: by the port of the server, and by what
// they must look like.
func (m *Meter) udpTunnel(f *frame, c *conn, b []byte) {
	if len(b) < 8 {
		return
	}
	switch c.respP {
	case 4789: // VXLAN, RFC 7348
		if b[0]&8 != 0 && len(b) >= 22 {
			m.udpInner(f, c, "vxlan", "Tunnel::VXLAN", etherTEB, b[8:])
		}
	case 6081: // Geneve, RFC 8926
		n := 8 + int(b[0]&0x3f)*4
		if b[0]>>6 == 0 && len(b) >= n+14 {
			m.udpInner(f, c, "geneve", "Tunnel::GENEVE", be16(b[2:]), b[n:])
		}
	case 2152: // GTP-U, 3GPP TS 29.281
		if b[0]>>5 == 1 && b[0]&0x10 != 0 && b[1] == 0xff {
			if in := gtpInner(b); in != nil {
				m.udpInner(f, c, "gtpv1", "Tunnel::GTPv1", etherIPv4, in)
			}
		}
	case 4754: // GRE, RFC 8086
		g := *f
		g.size = len(b)
		m.greTunnel(&g, b)
	case 5072: // AYIYA
		if b[2]&15 == 1 && (b[3] == 4 || b[3] == 41) {
			n := 8 + 1<<(b[0]>>4) + int(b[1]>>4)*4 // the identity, the signature
			if len(b) > n+20 {
				m.udpInner(f, c, "ayiya", "Tunnel::AYIYA", etherIPv4, b[n:])
			}
		}
	default: // Teredo, RFC 4380: hosts talk to each other on any port
		if b[0] == 0x60 || b[0] == 0 {
			if in := teredoInner(b); in != nil {
				m.udpInner(f, c, "teredo", "Tunnel::TEREDO", etherIPv6, in)
			}
		}
	}
}

// udpInner decodes what is in a datagram of a tunnel.
func (m *Meter) udpInner(f *frame, c *conn, service, kind string, typ uint16, b []byte) {
	if f.depth >= maxDepth {
		m.count(DeepTunnel)
		return
	}
	c.serve(service)
	if c.tunnel == nil {
		c.tunnel = &tunnel{kind: kind, c: c}
	}
	g := m.within(f, c.tunnel)
	m.ether(&g, typ, b)
}

// gtpInner returns the IP packet in a GTP-U message; nil when there is none.
func gtpInner(b []byte) []byte {
	n := 8
	if b[0]&7 != 0 {
		n += 4
		if len(b) < n {
			return nil
		}
		if b[0]&4 != 0 {
			for next := b[n-1]; next != 0; {
				if len(b) < n+4 || b[n] == 0 {
					return nil
				}
				n += int(b[n]) * 4
				if len(b) < n {
					return nil
				}
				next = b[n-1]
			}
		}
	}
	if b = b[n:]; len(b) >= 20 && (b[0]>>4 == 4 || b[0]>>4 == 6) {
		return b
	}
	return nil
}

// teredoInner returns the IPv6 packet in a Teredo datagram.
func teredoInner(b []byte) []byte {
	if len(b) >= 4 && b[0] == 0 && b[1] == 1 { // authentication
		n := 13 + int(b[2]) + int(b[3])
		if len(b) < n {
			return nil
		}
		b = b[n:]
	}
	if len(b) >= 8 && b[0] == 0 && b[1] == 0 { // origin
		b = b[8:]
	}
	if len(b) < 40 || b[0]>>4 != 6 || int(be16(b[4:]))+40 != len(b) {
		return nil
	}
	for _, a := range [...][]byte{b[8:], b[24:]} { // one end has a Teredo address, or is setting itself up
		if be32(a) == 0x20010000 || be16(a) == 0xfe80 {
			return b
		}
	}
	return nil
}
