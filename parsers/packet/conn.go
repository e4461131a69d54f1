package packet

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/packet/proto"
)

// key is what tells connections apart: both ends, the smaller first, so that
// both directions have the same; of ICMP messages without an answer the sender
// first.
type key struct {
	a, b   addr
	pa, pb uint16
	proto  uint8
	oneWay bool
}

// keyOf returns the key of a packet.
func keyOf(f *frame, sp, dp uint16, oneWay bool) key {
	k := key{f.from, f.to, sp, dp, f.proto, oneWay}
	if c := bytes.Compare(k.a[:], k.b[:]); !oneWay && (c > 0 || c == 0 && sp > dp) {
		k.a, k.b, k.pa, k.pb = k.b, k.a, dp, sp
	}
	return k
}

// counts are what one side sent.
type counts struct {
	pkts, ipBytes int64
	bytes         int64 // payload, of UDP and ICMP; -1: nothing came
}

// flags of a connection.
type connFlags uint16

const (
	isV6       connFlags = 1 << iota
	hasMAC               // of the first packet
	hasUID               // uid is computed
	noAnalyzer           // nothing in the payload is of use any more
	isInBoth             // in the lists of those of which both sides spoke
	hasMessage           // a datagram was looked into
	hasTurned            // a datagram showed that the sides are the other way round
)

// The bits of history that are noted once, of the originator; those of the
// responder are 16 higher.
const (
	histSYN uint32 = 1 << iota
	histFIN
	histRST
	histFINRST
	histMulti
	histData
	histACK
	histUnknown // of either side
)

// conn is a connection: what Zeek takes for one, of TCP, UDP, ICMP, or of two
// addresses and a protocol.
type conn struct {
	m   *Meter
	key key

	orig, resp   addr
	origP, respP uint16
	flags        connFlags
	number       int64  // of the connections of the Meter
	repeat       uint16 // connections before with the same ends and start
	srcMAC       [6]byte
	dstMAC       [6]byte
	vlan, inner  uint16

	start, last int64 // by Meter.clock, as all times
	ahead       int64 // Meter.ahead when it began
	idle        int64 // ns of silence after which it is over; 0: not by silence
	dnsAt       int64 // when to look whether a DNS session is over; 0: never
	refusedAt   int64 // when it is over because it was refused; 0: it was not

	side   [2]counts // of the originator, the responder
	missed int64
	chk    [2]uint32 // packets with a wrong checksum

	tcp *tcpState

	hist     []byte
	histBuf  [12]byte
	histSeen uint32
	looks    uint8 // datagrams in which a protocol was looked for

	uid       [uidLen]byte
	analyzer  proto.Analyzer
	services  []string
	announced string  // the service for which it was announced; empty: it was not
	tunnel    *tunnel // that it is; nil: none

	at    int64 // time of its entry in Meter.due, not after what dueAt says
	place int   // in Meter.due

	held   int // bytes of its streams and its analyzer
	weight int // of them, its analyzer's

	links [2]link // in a list of Meter.all, of Meter.holders; the next of the first also in Meter.free
}

// link is the place of a connection in a list.
type link struct{ prev, next *conn }

// list is a list of connections, the one used longest ago first.
type list struct {
	head, tail *conn
	n          int
	of         uint8 // which of the connections' links are its
}

func (l *list) push(c *conn) {
	c.links[l.of] = link{prev: l.tail}
	if l.tail != nil {
		l.tail.links[l.of].next = c
	} else {
		l.head = c
	}
	l.tail = c
	l.n++
}

func (l *list) drop(c *conn) {
	x := c.links[l.of]
	if x.prev != nil {
		x.prev.links[l.of].next = x.next
	} else {
		l.head = x.next
	}
	if x.next != nil {
		x.next.links[l.of].prev = x.prev
	} else {
		l.tail = x.prev
	}
	c.links[l.of] = link{}
	l.n--
}

// renew makes a connection that is in the list the one used last.
func (l *list) renew(c *conn) {
	if l.tail != c {
		l.drop(c)
		l.push(c)
	}
}

// lists are those of which one side spoke, and those of which both did.
type lists struct{ lone, both list }

// listsOf returns lists that use the connections' links of a number.
func listsOf(n uint8) lists { return lists{list{of: n}, list{of: n}} }

// of returns the list that a connection belongs to.
func (l *lists) of(c *conn) *list {
	if c.flags&isInBoth != 0 {
		return &l.both
	}
	return &l.lone
}

// touch notes that a packet of a connection came, of either side.
func (m *Meter) touch(c *conn, orig bool) {
	c.refusedAt = 0
	other := &c.side[0]
	if orig {
		other = &c.side[1]
	}
	if c.flags&isInBoth == 0 && other.pkts > 0 {
		m.all.lone.drop(c)
		if c.held > 0 {
			m.holders.lone.drop(c)
			m.holders.both.push(c)
		}
		c.flags |= isInBoth
		m.all.both.push(c)
		return
	}
	m.all.of(c).renew(c)
	if c.held > 0 {
		m.holders.of(c).renew(c)
	}
}

// hold notes that a connection takes n bytes more than before, for what waits
// in its streams and for its analyzer.
func (c *conn) hold(n int) {
	if n == 0 {
		return
	}
	m := c.m
	before := c.held
	c.held += n
	m.held += n
	switch {
	case before == 0:
		m.holders.of(c).push(c)
	case c.held == 0:
		m.holders.of(c).drop(c)
	}
}

// relieve gives up the reading of connections while they are too many or take
// too much: of those of which only one side spoke, the one used longest ago
// first. What is made up without an answer takes the place of its own like.
func (m *Meter) relieve() {
	for m.held > m.opts.MaxBuffered || m.proto.n > m.opts.MaxAnalyzed {
		c := m.holders.lone.head
		if c == nil {
			c = m.holders.both.head
		}
		if c.analyzer != nil {
			m.count(NotAnalyzed)
			c.flags |= noAnalyzer
			c.detach(c.last)
		}
		if c.held > 0 {
			m.count(StreamOverflow)
			for i := range c.tcp.end {
				c.tcp.end[i].stream.giveUp(c)
			}
		}
	}
}

// entry is a connection and a time at which to look at it.
type entry struct {
	at int64
	c  *conn
}

// heap has the connections by the time at which they may be over, as a 4-ary
// heap. A time may be too early: whoever takes the first one looks.
type heap []entry

// before orders entries; those of the same time by their connections, so that
// the order of removal depends on the packets alone.
func (h heap) before(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && older(h[i].c, h[j].c) < 0
}

// older orders connections by their start, those of one time as they came.
func older(a, b *conn) int {
	return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.number, b.number))
}

func (h heap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].c.place, h[j].c.place = i, j
}

func (h heap) up(i int) {
	for i > 0 {
		p := (i - 1) / 4
		if !h.before(i, p) {
			return
		}
		h.swap(i, p)
		i = p
	}
}

func (h heap) down(i int) {
	for {
		first := i
		for j := 4*i + 1; j < min(len(h), 4*i+5); j++ {
			if h.before(j, first) {
				first = j
			}
		}
		if first == i {
			return
		}
		h.swap(i, first)
		i = first
	}
}

func (h *heap) push(c *conn, at int64) {
	c.at, c.place = at, len(*h)
	*h = append(*h, entry{at, c})
	h.up(c.place)
}

func (h *heap) remove(c *conn) {
	i, n := c.place, len(*h)-1
	h.swap(i, n)
	(*h)[n] = entry{}
	*h = (*h)[:n]
	if i < n {
		h.down(i)
		h.up(i)
	}
}

// move changes the time of an entry.
func (h heap) move(c *conn, at int64) {
	earlier := at < c.at
	c.at, h[c.place].at = at, at
	if earlier {
		h.up(c.place)
	} else {
		h.down(c.place)
	}
}

// sooner makes sure that a connection is looked at when it is due: to be
// called when that may have become earlier. Later times need no call.
func (m *Meter) sooner(c *conn) {
	if at := c.dueAt(); at < c.at {
		m.due.move(c, at)
	}
}

// dueAt returns when a connection is over if nothing comes, unix ns.
func (c *conn) dueAt() int64 {
	at := int64(math.MaxInt64)
	if c.idle > 0 {
		at = c.last + c.idle
	}
	if c.dnsAt != 0 {
		at = min(at, c.dnsAt)
	}
	if c.refusedAt != 0 {
		at = min(at, c.refusedAt)
	}
	if c.tcp != nil {
		at = min(at, c.tcp.dueAt())
	}
	return at
}

// expire looks at the first connection that may be over.
func (m *Meter) expire(c *conn) {
	at := c.dueAt()
	if at > m.clock {
		m.due.move(c, at)
		return
	}
	// Zeek looks for DNS sessions every ten seconds, and takes silence of nine for the end.
	if c.dnsAt == at && m.clock-c.last < dnsSession-1e9 {
		c.dnsAt = m.clock + dnsSession
		m.due.move(c, c.dueAt())
		return
	}
	if c.tcp != nil && c.tcp.stays(c, at) {
		m.due.move(c, c.dueAt())
		return
	}
	m.remove(c)
}

// create makes the connection of a key, which begins with the packet; flip
// makes the sender the responder. The caller sets its timers and calls arm.
func (m *Meter) create(k key, f *frame, sp, dp uint16, flip bool, repeat uint16) *conn {
	for _, t := range f.via[:f.depth] {
		m.begins(t) // before what carries it may have to make room
	}
	if len(m.conns) >= m.opts.MaxConns {
		m.evict()
	}
	c := m.free
	if c != nil {
		m.free = c.links[0].next
		*c = conn{services: c.services[:0]}
	} else {
		c = new(conn)
	}
	c.m, c.key, c.repeat = m, k, repeat
	c.orig, c.resp, c.origP, c.respP = f.from, f.to, sp, dp
	c.hist = c.histBuf[:0]
	c.side[0].bytes, c.side[1].bytes = -1, -1
	c.vlan, c.inner = f.vlan, f.inner
	if f.mac {
		c.flags |= hasMAC
		c.srcMAC, c.dstMAC = f.src, f.dst
	}
	if f.v6 && !(f.from.is4() && f.to.is4()) {
		c.flags |= isV6
	}
	c.start, c.last, c.ahead = f.t, f.t, m.ahead
	if flip && c.resp != (addr{10: 0xff, 11: 0xff, 12: 0xff, 13: 0xff, 14: 0xff, 15: 0xff}) {
		c.flip()
	}
	m.conns[k] = c
	m.all.lone.push(c)
	c.number = m.stats.Conns
	m.stats.Conns++
	m.stats.Peak = max(m.stats.Peak, len(m.conns))
	return c
}

// arm enters a new connection, whose timers are set, into the heap.
func (m *Meter) arm(c *conn) { m.due.push(c, c.dueAt()) }

// evict makes room: a connection of which only one side spoke, unless they are
// few, the one used longest ago first. So a flood of forged sources takes the
// place of its own like.
func (m *Meter) evict() {
	c := m.all.lone.head
	if c == nil || m.all.lone.n < m.opts.MaxConns/8 && m.all.both.head != nil {
		c = m.all.both.head
	}
	m.count(EarlyEviction)
	m.remove(c)
}

// fromOrig reports whether a packet came from the originator.
func (c *conn) fromOrig(f *frame, sp uint16) bool { return f.from == c.orig && sp == c.origP }

// flip makes the originator the responder.
func (c *conn) flip() {
	c.orig, c.resp = c.resp, c.orig
	c.origP, c.respP = c.respP, c.origP
	c.srcMAC, c.dstMAC = c.dstMAC, c.srcMAC
	c.side[0], c.side[1] = c.side[1], c.side[0]
	c.chk[0], c.chk[1] = c.chk[1], c.chk[0]
	if c.tcp != nil {
		c.tcp.flip()
		c.expected()
	}
	c.note('^')
}

// note appends a letter to the history.
func (c *conn) note(letter byte) {
	if len(c.hist) < maxHistory {
		c.hist = append(c.hist, letter)
	}
}

// letter returns the letter of a side: upper case of the originator.
func letter(l byte, orig bool) byte {
	if orig {
		return l
	}
	return l + 'a' - 'A'
}

// once notes a letter unless the side has it. It reports whether it had.
func (c *conn) once(bit uint32, l byte, orig bool) bool {
	if !orig {
		bit <<= 16
	}
	if c.histSeen&bit != 0 {
		return true
	}
	c.histSeen |= bit
	c.note(letter(l, orig))
	return false
}

// scaled counts an event and notes its letter the 1st, 10th, 100th … time.
func (c *conn) scaled(n *uint32, l byte, orig bool) {
	*n++
	for p := uint64(1); p <= uint64(*n); p *= 10 {
		if p == uint64(*n) {
			c.note(letter(l, orig))
		}
	}
}

// sorted returns the connections by their start.
func (m *Meter) sorted() []*conn {
	all := make([]*conn, 0, len(m.conns))
	for _, e := range m.due {
		all = append(all, e.c)
	}
	slices.SortFunc(all, older)
	return all
}

// remove takes a connection away, emitting what its analyzer still has and its
// record.
func (m *Meter) remove(c *conn) {
	c.detach(c.last)
	f := m.record(flow.Conn)
	c.base(f, c.began())
	c.fill(f)
	m.emit(f)
	if c.tunnel != nil {
		m.endTunnel(c.tunnel, "Tunnel::CLOSE")
		c.tunnel.gone, c.tunnel = true, nil
	}

	delete(m.conns, c.key)
	m.due.remove(c)
	if c.tcp != nil {
		m.freeState(c)
	}
	m.all.of(c).drop(c)
	c.analyzer, c.hist = nil, nil
	c.links[0].next, m.free = m.free, c
}

// record returns the record to fill next.
func (m *Meter) record(k flow.Kind) *flow.Flow {
	f := m.opts.Next(k)
	f.Reset(k)
	f.Sensor = flow.Zeek
	return f
}

// emit passes a record on.
func (m *Meter) emit(f *flow.Flow) {
	m.stats.Records++
	m.opts.Emit(f)
}

// began returns when a connection began by the clock of the packets, unix ns.
func (c *conn) began() int64 { return c.start - c.ahead }

// base fills what all records of a connection have. t is of the clock of the
// packets.
func (c *conn) base(f *flow.Flow, t int64) {
	f.Time = t
	f.Src, f.Dst = c.orig.netip(c.flags&isV6 != 0), c.resp.netip(c.flags&isV6 != 0)
	f.SrcPort, f.DstPort, f.HasPorts = c.origP, c.respP, true
	f.Proto = protoOf(c.key.proto)
	f.UID = c.uidText(f)
	f.LocalOrig, f.LocalResp = c.m.local(f.Src), c.m.local(f.Dst)
	f.VLAN, f.InnerVLAN = c.vlan, c.inner
	if c.flags&hasMAC != 0 {
		f.SrcMAC, f.DstMAC = c.m.mac(f, c.srcMAC), c.m.mac(f, c.dstMAC)
	}
	f.CommunityID = c.m.community(c, f)
}

// protoOf returns the name of an IP protocol. ICMP is the same for both
// versions of IP, as in Zeek's logs.
func protoOf(n uint8) flow.Proto {
	switch n {
	case 1, 58:
		return flow.ICMP
	case 2:
		return flow.IGMP
	case 6:
		return flow.TCP
	case 17:
		return flow.UDP
	case 47:
		return flow.GRE
	case 50:
		return flow.ESP
	case 132:
		return flow.SCTP
	}
	return flow.ProtoOther
}

// fill fills what connections have.
func (c *conn) fill(f *flow.Flow) {
	f.RawState = c.state()
	f.State = flow.NotEstablished
	switch f.RawState { // as the decoder of Zeek's logs has it
	case "SF", "S1", "S2", "S3", "RSTO", "RSTR", "OTH":
		f.State = flow.Established
	}
	if d := c.last - c.start; d > 0 {
		f.Duration = min(d, flow.MaxDuration)
		if c.tcp != nil {
			f.OrigBytes, f.RespBytes = c.tcp.end[0].bytes(&c.tcp.end[1]), c.tcp.end[1].bytes(&c.tcp.end[0])
		} else {
			f.OrigBytes, f.RespBytes = max(0, c.side[0].bytes), max(0, c.side[1].bytes)
		}
	}
	f.OrigPkts, f.OrigIPBytes = c.side[0].pkts, c.side[0].ipBytes
	f.RespPkts, f.RespIPBytes = c.side[1].pkts, c.side[1].ipBytes
	f.MissedBytes = c.missed
	f.History = f.Hold(c.hist)
	switch len(c.services) {
	case 0:
		f.Service = c.announced
	case 1:
		f.Service = c.services[0] // a constant
	default:
		b := c.m.text[:0]
		for i, s := range c.services {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, s...)
		}
		c.m.text = b
		f.Service = f.Hold(b)
	}
}

// state returns Zeek's conn_state.
func (c *conn) state() string {
	switch {
	case c.tcp != nil:
		return c.tcp.state(c)
	case c.key.proto == 17:
		switch o, r := c.side[0].bytes >= 0, c.side[1].bytes >= 0; {
		case o && r:
			return "SF"
		case o:
			return "S0"
		case r:
			return "SHR"
		}
	}
	return "OTH"
}

// serve adds a protocol to those of a connection.
func (c *conn) serve(name string) {
	if !slices.Contains(c.services, name) {
		c.services = append(c.services, name)
	}
}
