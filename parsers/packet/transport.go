package packet

import "slices"

// transport takes the payload of an IP packet.
func (m *Meter) transport(f *frame, b []byte) {
	switch f.proto {
	case 6:
		m.tcpPacket(f, b)
	case 17:
		m.udpPacket(f, b)
	case 1, 58:
		m.icmpPacket(f, b)
	case 4, 41:
		m.ipTunnel(f, b)
	case 47:
		m.greTunnel(f, b)
	case 59:
		m.count(Mobility)
	default:
		m.otherPacket(f)
	}
}

// short reports whether a transport header of n bytes is not there, and counts it.
func (m *Meter) short(f *frame, b []byte, n int) bool {
	if f.size < n || len(b) < n {
		m.count(ShortTransport)
		return true
	}
	return false
}

// serverTCP and serverUDP are the ports by which Zeek takes a side for the
// server when it did not see the connection begin: those of the protocols that
// it analyses.
func serverTCP(p uint16) bool {
	switch p {
	case 21, 22, 25, 53, 79, 80, 81, 88, 135, 139, 143, 389, 443, 445, 502, 563, 585, 587, 614, 631, 636,
		989, 990, 992, 993, 995, 1080, 1883, 2811, 3128, 3268, 3389, 5222, 5223, 5269, 5432, 6379,
		6666, 6667, 6668, 6669, 8000, 8080, 8888, 20000:
		return true
	}
	return false
}

func serverUDP(p uint16) bool {
	switch p {
	case 53, 67, 88, 123, 137, 161, 162, 389, 443, 514, 1812, 2123, 2152, 3389, 3544, 4789, 5060, 5072, 5353,
		5355, 6081, 20000:
		return true
	}
	return false
}

// otherPacket takes a packet of a protocol without ports.
func (m *Meter) otherPacket(f *frame) {
	k := keyOf(f, 0, 0, false)
	c := m.conns[k]
	if c == nil {
		c = m.create(k, f, 0, 0, false, 0)
		c.idle = int64(m.opts.UDPInactivity)
		m.arm(c)
	}
	m.carried(f)
	orig := c.fromOrig(f, 0)
	c.last = f.t
	c.sent(f, orig)
	m.touch(c, orig)
}

// sent counts a packet.
func (c *conn) sent(f *frame, orig bool) {
	s := &c.side[1]
	if orig {
		s = &c.side[0]
	}
	s.pkts++
	s.ipBytes += int64(f.total)
}

// icmpPacket takes an ICMP packet. A connection is told by the type of the
// message and that of its answer, which stand for the ports; of messages that
// have no answer by type and code.
func (m *Meter) icmpPacket(f *frame, b []byte) {
	if m.short(f, b, 8) {
		return
	}
	if !m.checked(f, b) {
		m.count(BadChecksum)
		return
	}
	typ, code := b[0], b[1]
	answer, ok := answer4(typ)
	if f.proto == 58 {
		answer, ok = answer6(typ)
	}
	if !ok {
		answer = code
	}
	sp, dp := uint16(typ), uint16(answer)
	k := keyOf(f, sp, dp, !ok)
	c := m.conns[k]
	if c == nil {
		c = m.create(k, f, sp, dp, false, 0)
		c.idle = int64(m.opts.UDPInactivity)
		m.arm(c)
	}
	m.carried(f)
	orig := c.fromOrig(f, sp)
	c.last = f.t
	side := &c.side[1]
	if orig {
		side = &c.side[0]
	}
	side.bytes = max(0, side.bytes) + int64(f.size-8)
	if len(b) >= f.size {
		c.sent(f, orig)
	}
	m.touch(c, orig)
	if m.opts.RefusedDelay > 0 && (f.proto == 1 && typ == 3 && code != needsFragments || f.proto == 58 && typ == 1) { // unreachable
		m.refused(f, b[8:min(len(b), f.size)])
	}
}

// needsFragments is the code of an ICMP message that is no refusal: the packet
// was too large for the way, and comes again in pieces (RFC 1191).
const needsFragments = 4

// refused takes what an ICMP message quotes of a packet that could not be
// delivered: its headers, and eight bytes behind them at least.
func (m *Meter) refused(f *frame, b []byte) {
	q := frame{}
	head := 40
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		head = int(b[0]&15) * 4
		q.proto = b[9]
		q.from.v4(b[12:])
		q.to.v4(b[16:])
		if be16(b[6:])&0x1fff != 0 { // not the first fragment, in which the ports are
			return
		}
	case len(b) >= 40 && b[0]>>4 == 6:
		q.proto = b[6]
		copy(q.from[:], b[8:])
		copy(q.to[:], b[24:])
	default:
		return
	}
	if head < 20 || len(b) < head+4 || q.proto != 6 && q.proto != 17 || q.from != f.to {
		return
	}
	sp := be16(b[head:])
	c := m.conns[keyOf(&q, sp, be16(b[head+2:]), false)]
	if c == nil || c.flags&isInBoth != 0 || !c.fromOrig(&q, sp) || c.tcp != nil && !c.tcp.attempting() {
		return
	}
	c.refusedAt = f.t + int64(m.opts.RefusedDelay)
	m.sooner(c)
}

// answer4 returns the type of the answer to an ICMP message, or of what it
// answers.
func answer4(typ uint8) (uint8, bool) {
	switch typ {
	case 0:
		return 8, true
	case 8:
		return 0, true
	case 9, 10: // router
		return 19 - typ, true
	case 13, 15, 17: // timestamp, information, mask
		return typ + 1, true
	case 14, 16, 18:
		return typ - 1, true
	}
	return 0, false
}

// answer6 is answer4 for ICMPv6.
func answer6(typ uint8) (uint8, bool) {
	switch typ {
	case 128, 130, 133, 135, 144: // echo, listener, router, neighbour, home agent
		return typ + 1, true
	case 129, 131, 134, 136, 145:
		return typ - 1, true
	case 139: // node information
		return 140, true
	case 140:
		return 139, true
	}
	return 0, false
}

// udpPacket takes a UDP datagram.
func (m *Meter) udpPacket(f *frame, b []byte) {
	if m.short(f, b, 8) {
		return
	}
	sp, dp := be16(b), be16(b[2:])
	k := keyOf(f, sp, dp, false)
	c := m.conns[k]
	if c == nil {
		c = m.create(k, f, sp, dp, serverUDP(sp) && !serverUDP(dp), 0)
		c.idle = int64(m.opts.UDPInactivity)
		if isDNSPort(c.respP) {
			c.dnsAt = f.t + dnsSession
		}
		m.arm(c)
	}
	m.carried(f)
	orig := c.fromOrig(f, sp)
	side, i := &c.side[1], 1
	if orig {
		side, i = &c.side[0], 0
	}
	if be16(b[6:]) != 0 && !m.checked(f, b[:min(len(b), f.size)]) || f.v6 && be16(b[6:]) == 0 && !m.checked(f, b) {
		m.count(BadChecksum)
		c.scaled(&c.chk[i], 'C', orig)
		m.touch(c, orig)
		return
	}
	c.last = f.t
	c.once(histData, 'D', orig)
	if n := int64(be16(b[4:])) - 8; side.bytes < 0 { // a length below that of the header says that nothing came
		side.bytes = max(-1, n)
	} else {
		side.bytes = max(0, side.bytes+n)
	}
	c.sent(f, orig)
	m.touch(c, orig)
	payload := b[8:]
	if isDNSPort(c.respP) && c.respP != 137 && len(payload) >= 12 {
		if op := payload[2] >> 3 & 15; op != 0 && op != 5 {
			c.unknown() // an operation that Zeek's analyzer of DNS does not know: neither a query nor an update
		}
	}
	if orig && c.flags&hasTurned == 0 && c.answers(payload) {
		c.turn()
		orig = false
	}
	c.flags |= hasMessage
	c.datagram(f, orig, payload)
	m.udpTunnel(f, c, payload)
}

// isDNSPort reports whether Zeek attaches its DNS analyzer to a port, which
// ends a session after ten seconds of silence.
func isDNSPort(p uint16) bool { return slices.Contains([]uint16{53, 137, 5353, 5355}, p) }

// answers reports whether a datagram of the originator shows that it is the
// server: the first of a DNS session when it is an answer, unless it went to
// many, for those of multicast DNS come unasked; any of NTP in server mode.
func (c *conn) answers(b []byte) bool {
	switch {
	case c.respP == 123:
		return isNTP(c.respP, b) && b[0]&7 == 4
	case isDNSPort(c.respP):
		many := c.resp[0] == 0xff || c.flags&isV6 == 0 && c.resp[12]>>4 == 14
		return c.flags&hasMessage == 0 && !many && len(b) >= 12 && b[2]&0x80 != 0 && (b[2]&0x78 == 0 || c.respP == 137)
	}
	return false
}

// unknown notes that there was something in a packet that is not understood.
func (c *conn) unknown() {
	if c.histSeen&histUnknown == 0 {
		c.histSeen |= histUnknown
		c.note('X')
	}
}

// turn makes the originator the responder, as Zeek does it when a datagram
// shows that it is: what was counted so far stays with the originator's side.
func (c *conn) turn() {
	c.flags |= hasTurned
	c.orig, c.resp = c.resp, c.orig
	c.origP, c.respP = c.respP, c.origP
	c.srcMAC, c.dstMAC = c.dstMAC, c.srcMAC
	c.note('^')
}
