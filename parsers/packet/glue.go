package packet

import (
	"math"
	"net/netip"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/packet/proto"
)

// protocols reads what is inside of connections.
type protocols struct {
	set  *proto.Set
	dhcp *proto.DHCP
	n    int // analyzers at work
}

func (p *protocols) init(m *Meter) {
	p.set = proto.NewSet()
	p.dhcp = proto.NewDHCP(sink{m})
}

// sink takes the records of DHCP, whose exchanges are of several connections.
type sink struct{ m *Meter }

// Record implements proto.Sink.
func (s sink) Record(k flow.Kind, t int64) *flow.Flow {
	f := s.m.record(k)
	f.Time = t
	return f
}

// Emit implements proto.Sink.
func (s sink) Emit(f *flow.Flow) {
	if f.Src.IsValid() {
		f.LocalOrig = s.m.local(f.Src)
	}
	if f.Dst.IsValid() {
		f.LocalResp = s.m.local(f.Dst)
	}
	s.m.emit(f)
}

// Record implements proto.Conn.
func (c *conn) Record(k flow.Kind, t int64) *flow.Flow {
	f := c.m.record(k)
	c.base(f, t)
	return f
}

// Emit implements proto.Conn.
func (c *conn) Emit(f *flow.Flow) {
	if f.Kind == flow.Software { // of either side
		f.LocalOrig = c.m.local(f.Src)
	}
	c.m.emit(f)
}

// Hosts implements proto.Conn.
func (c *conn) Hosts() (orig, resp netip.Addr) {
	v6 := c.flags&isV6 != 0
	return c.orig.netip(v6), c.resp.netip(v6)
}

// Service implements proto.Conn.
func (c *conn) Service(name string) {
	c.serve(name)
	if name == "ssh" || name == "ftp" { // people use them, and people pause
		c.idle = max(c.idle, int64(c.m.opts.Interactive))
	}
}

// Expect implements proto.Conn.
func (c *conn) Expect(orig, resp netip.Addr, port uint16, service string) {
	m := c.m
	k := channel{orig.As16(), resp.As16(), port}
	if _, known := m.expects[k]; !known && len(m.expects) >= maxExpected && !m.forget() {
		m.count(NotExpected)
		return
	}
	m.expects[k] = expectation{service, m.clock + expectFor}
}

// forget makes room among the announced connections, of those whose time is
// over. It reports whether there were any, and looks only when there may be.
func (m *Meter) forget() bool {
	if m.clock < m.crowded {
		return false
	}
	m.crowded = math.MaxInt64
	for k, x := range m.expects {
		if x.until <= m.clock {
			delete(m.expects, k)
		} else {
			m.crowded = min(m.crowded, x.until)
		}
	}
	return len(m.expects) < maxExpected
}

// expected notes that a connection was announced, and as what. That holds when
// nothing else is found in it, for who announces it may lie: it is looked into
// like any other.
func (c *conn) expected() {
	if x, ok := c.m.expects[channel{c.orig, c.resp, c.respP}]; ok && x.until > c.m.clock {
		c.announced = x.service
	}
}

// wants reports whether the payload of a side is of use.
func (c *conn) wants(i int) bool {
	if c.analyzer == nil {
		return c.flags&noAnalyzer == 0 && !c.midway()
	}
	return c.analyzer.Wants(proto.Dir(i))
}

// midway reports whether the beginning of a connection is missing, and with it
// the sense of its payload. One forged packet would be enough for a record of
// what somebody is said to have asked for. DNS and FTP are read all the same,
// as Zeek does: a message of theirs stands for itself.
func (c *conn) midway() bool {
	return c.tcp.isPartial && c.origP != 53 && c.respP != 53 && c.respP != 21
}

// deliver gives the payload of a stream to its analyzer, which is made by the
// first byte: a connection that never says anything costs nothing.
func (c *conn) deliver(i int, data []byte, t int64) {
	if len(data) == 0 || c.flags&noAnalyzer != 0 {
		return
	}
	if c.analyzer == nil && (c.midway() || !c.attach(c.m.proto.set.TCP(c, c.origP, c.respP))) {
		return
	}
	if d := proto.Dir(i); c.analyzer.Wants(d) {
		c.analyzer.Data(d, data, c.m.told(t))
		c.read(t)
	}
}

// missing tells the analyzer that bytes are missing.
func (c *conn) missing(i int, n, t int64) {
	if c.analyzer == nil {
		return
	}
	if d := proto.Dir(i); c.analyzer.Wants(d) {
		c.analyzer.Gap(d, n, c.m.told(t))
		c.read(t)
	}
}

// read lets the analyzer go when it has seen all that it wants to, and notes
// what it takes otherwise.
func (c *conn) read(t int64) {
	if a := c.analyzer; !a.Wants(proto.Orig) && !a.Wants(proto.Resp) {
		c.flags |= noAnalyzer
		c.detach(t)
		return
	}
	c.weigh(c.analyzer.Held())
}

// weigh notes how many bytes the analyzer takes.
func (c *conn) weigh(n int) {
	c.hold(n - c.weight)
	c.weight = n
}

// attach gives a connection its analyzer, which may be nil. It reports whether
// it has one now.
func (c *conn) attach(a proto.Analyzer) bool {
	if a == nil {
		c.flags |= noAnalyzer
		return false
	}
	c.m.proto.n++
	c.analyzer = a
	c.weigh(a.Held())
	return true
}

// detach lets the analyzer end.
func (c *conn) detach(t int64) {
	if a := c.analyzer; a != nil {
		c.analyzer = nil
		c.weigh(0)
		a.End(c.m.told(t))
		c.m.proto.set.Free(a)
		c.m.proto.n--
	}
}

// datagram gives the payload of UDP to its analyzer.
func (c *conn) datagram(f *frame, orig bool, data []byte) {
	if len(data) == 0 || c.flags&noAnalyzer != 0 {
		return
	}
	p := &c.m.proto
	if isDHCP(c.origP, c.respP) {
		c.uidText(&c.m.scratch)
		src, port := c.orig, c.origP
		if !orig {
			src, port = c.resp, c.respP
		}
		from := netip.AddrPortFrom(src.netip(c.flags&isV6 != 0), port)
		if p.dhcp.Datagram(string(c.uid[:]), from, data, c.m.told(f.t), f.t) {
			c.serve("dhcp")
		}
		return
	}
	if isNTP(c.respP, data) {
		c.serve("ntp")
		c.flags |= noAnalyzer
		return
	}
	if c.analyzer == nil && !c.look(data) {
		return
	}
	if d := proto.Dir(sideOf(orig)); c.analyzer.Wants(d) {
		c.analyzer.Data(d, data, c.m.told(f.t))
		c.read(f.t)
	}
}

// maxLooks is in how many datagrams of a flow a protocol is looked for.
const maxLooks = 8

// look finds the analyzer of a flow of UDP by a datagram, or the name of its
// service. It reports whether there is an analyzer.
func (c *conn) look(data []byte) bool {
	set := c.m.proto.set
	a := set.LaterUDP(c, data)
	if c.looks++; c.looks == 1 {
		a = set.UDP(c, c.origP, c.respP, data)
	}
	if a != nil {
		return c.attach(a)
	}
	if name := proto.UDPService(c.respP, data); name != "" {
		c.serve(name)
		c.flags |= noAnalyzer
	}
	if c.looks >= maxLooks {
		c.flags |= noAnalyzer
	}
	return false
}

// isNTP reports whether a datagram is of NTP (RFC 5905), or of its control
// messages, of which nothing but that is logged.
func isNTP(port uint16, b []byte) bool {
	if port != 123 || len(b) < 8 {
		return false
	}
	version, mode := b[0]>>3&7, b[0]&7
	return version >= 1 && version <= 4 && mode >= 1 && (mode >= 6 || len(b) >= 48)
}

// isDHCP reports whether ports are those of DHCP: of its servers, its clients
// and of network boot.
func isDHCP(a, b uint16) bool {
	return a == 67 || a == 68 || a == 4011 || b == 67 || b == 68 || b == 4011
}
