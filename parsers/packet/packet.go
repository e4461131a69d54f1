// Package packet is the built-in meter: it turns packets into the records that
// Zeek would log of them, for machines without Zeek. Connections have Zeek's
// states, histories, counts and timeouts; what is inside them is read by the
// package proto.
//
// A Meter is fed with packets in the order of a capture and calls back with
// records in the order in which Zeek would write them: a connection when it
// has ended or was idle for long, with the time at which it began. Its clock
// is that of the packets alone, so the same packets give the same records,
// byte for byte.
//
// Whatever the traffic, a Meter with the default options holds less than 350 MB:
// up to 1.2 KB for each of its connections, Options.MaxBuffered for what is kept
// of their payload, 8 MiB for fragments, less than 50 MB in analyzers that are
// free, and some for tables. When there is more, forged connections take the
// place of their own like.
package packet

import (
	"net/netip"
	"time"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/packet/proto"
)

// Link is the type of the frames of a capture, by the numbers of
// https://www.tcpdump.org/linktypes.html.
type Link uint32

// The link types that are understood.
const (
	LinkNull     Link = 0 // BSD loopback, the family in the byte order of the host
	LinkEthernet Link = 1
	LinkPPP      Link = 9
	LinkFDDI     Link = 10
	LinkRawBSD   Link = 12 // IP; 14 on OpenBSD
	LinkRawOBSD  Link = 14
	LinkPPPHDLC  Link = 50
	LinkPPPoE    Link = 51
	LinkRaw      Link = 101 // IP
	LinkWiFi     Link = 105 // IEEE 802.11
	LinkLoop     Link = 108 // OpenBSD loopback, the family in network byte order
	LinkSLL      Link = 113 // Linux cooked
	LinkRadiotap Link = 127 // IEEE 802.11 behind a radiotap header
	LinkIPv4     Link = 228
	LinkIPv6     Link = 229
	LinkNFLOG    Link = 239
	LinkSLL2     Link = 276 // Linux cooked, version 2
)

// Packet is one captured packet.
type Packet struct {
	Time   int64  // unix ns
	Data   []byte // what was captured; not kept, not changed
	Length int    // on the wire; less than len(Data) counts as len(Data)
	Link   Link
}

// Options are what a Meter may be told. The zero value of each field means its
// default, which is Zeek's where Zeek has one.
type Options struct {
	// Next returns the record to write the next one into, which the Meter
	// resets. Each goes to Emit before Next is called again. By default there is
	// one, and it is valid until Emit returns.
	Next func(k flow.Kind) *flow.Flow
	// Emit takes a record that is complete. All of its text is its own.
	Emit func(f *flow.Flow)
	// Keep says which packets are looked at; by default all are. The others are
	// counted as filtered and move no clock.
	Keep func(p Packet) bool

	TCPInactivity time.Duration // 5 min
	UDPInactivity time.Duration // 1 min; also of ICMP and what is neither
	AttemptDelay  time.Duration // 5 s: how long a SYN waits for any answer
	CloseDelay    time.Duration // 5 s: how long a closed connection is kept
	Interactive   time.Duration // 1 h: inactivity of FTP, SSH, Telnet, rlogin

	// RefusedDelay is how long a connection without any answer is kept when an
	// ICMP message says that its last packet could not be delivered, so that a
	// scan is told of at once and not after UDPInactivity. Whatever else comes of
	// the connection takes it back. 0: such messages mean nothing, as in Zeek. A
	// forged one must quote the ports, and can end a record early at worst: what
	// comes later is a connection of its own.
	RefusedDelay time.Duration

	// LocalNets are the networks of this site, for local_orig and local_resp.
	// By default the private ones.
	LocalNets []netip.Prefix

	MaxConns    int // connections at a time, 131,072; each takes 0.9 KB, and what its analyzer keeps
	MaxAnalyzed int // connections at a time whose payload is read, 32,768; most need it for their first packets only
	MaxBuffered int // bytes that their analyzers take, and what waits for a missing piece in streams, 64 MiB

	// Full, which may be nil, is told that a bound was reached: of the first
	// connection or packet that was not analysed for it, and whenever there are
	// twice as many. It is called while a packet is fed.
	Full func(r Reason, n int64)

	// Checksums makes packets with a wrong checksum count as such ("C" in the
	// history) and not as anything else. Captures made on a host have many: the
	// network card computes them.
	Checksums bool
}

// The bounds that are not configurable.
const (
	maxTags         = 4        // VLAN tags of a frame; two is what networks use
	maxLabels       = 8        // MPLS labels of a frame
	maxEthers       = 4        // Ethernet headers in each other: MPLS can carry Ethernet that carries MPLS
	maxDepth        = 4        // tunnels in each other, as in Zeek
	maxExtensions   = 16       // IPv6 extension headers of a packet
	maxHistory      = 128      // letters of a history; normal ones have 6 to 12
	maxExpected     = 1024     // connections that a control connection announced
	expectFor       = 5 * 60e9 // ns that such an announcement holds, as in Zeek
	stepBack        = 60 * 1e9 // ns by which time may go back before the clock of the packets counts as set back
	maxAhead        = 3 * 1e18 // ns, 95 years, by which it may be set back in all: keeps times in 64 bits
	synTimeout      = 5 * 1e9  // ns, Zeek's tcp_SYN_timeout: first look at whether a connection is over
	sessionTimer    = 6 * 1e9  // ns, Zeek's tcp_session_timer: the further looks
	linger          = 5 * 1e9  // ns, Zeek's tcp_connection_linger
	dnsSession      = 10 * 1e9 // ns, Zeek's dns_session_timeout
	defaultConns    = 1 << 17  // an office has some thousands; a flood drives out its own
	defaultBuffer   = 64 << 20 // bytes
	defaultAnalyzed = 1 << 15  // analyzers keep up to 64 KiB each, nearly all of them next to nothing
	maxTunnels      = 1024     // tunnels at a time that are told apart
)

// Reason says why a packet, or a part of one, was not analysed.
type Reason uint8

// The reasons.
const (
	UnknownLink      Reason = iota // link type that is not understood
	ShortFrame                     // the link header is not whole
	NotIP                          // neither IP nor ARP: STP, LLDP, Wi-Fi management …
	ShortIP                        // the IP header is not whole
	BadIPHeader                    // header lengths that contradict each other
	BadIPVersion                   // neither 4 nor 6
	BeyondFrame                    // the IP length is larger than the frame
	CutFragment                    // a fragment that was not captured whole
	LostFragments                  // a datagram some fragments of which did not come in time
	FragmentOverflow               // a datagram given up because of the bounds
	ShortTransport                 // the transport header is not whole
	BadChecksum                    // see Options.Checksums
	BadARP                         // ARP for other hardware or protocols, or not whole
	Encrypted                      // ESP, nothing to see
	Mobility                       // IPv6 mobility and packets without content
	DeepTunnel                     // a tunnel in tunnels beyond maxDepth
	BadTunnel                      // a tunnel header or what is inside makes no sense
	BadTime                        // before 1970 or after 2100
	TimeWentBack                   // counted only; the packet is analysed
	EarlyEviction                  // a connection written out early because of MaxConns
	StreamOverflow                 // a stream in which what is behind a hole was not waited for because of MaxBuffered or too many holes
	NotAnalyzed                    // a connection whose payload was not read to the end because of MaxAnalyzed or MaxBuffered
	NotExpected                    // a connection that FTP announced and that is not remembered because of maxExpected
	numReasons
)

var reasonNames = [numReasons]string{
	"unknown link type", "frame cut short", "neither IP nor ARP", "IP header cut short", "IP header lengths",
	"IP version", "IP length beyond the frame", "fragment not captured whole", "fragments missing",
	"too many fragments", "transport header cut short", "checksum", "ARP malformed", "encrypted", "IPv6 mobility or no content",
	"tunnels too deep", "tunnel malformed", "time out of range", "time went back", "connections evicted early",
	"stream buffers full", "connections not analysed to the end", "too many announced connections",
}

// String returns the text under which the reason is counted.
func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return "other"
}

// Stats are what a Meter saw.
type Stats struct {
	Packets  int64 // that were fed
	Bytes    int64 // of them, as captured
	Filtered int64 // of them, those that Options.Keep did not want
	Conns    int64 // connections begun
	Records  int64 // emitted, of all kinds
	Active   int   // connections at the moment
	Peak     int   // the most there were at a time
	Buffered int   // bytes of streams and fragments held at the moment
	Counts   [numReasons]int64
	Proto    proto.Stats // what the analyzers could not take
}

// Reasons returns the counts that are not zero by their texts: of all that was
// not analysed, but for what Options.Keep did not want.
func (s Stats) Reasons() map[string]int64 {
	m := s.Proto.Reasons()
	for r, n := range s.Counts {
		if n != 0 && !Reason(r).remark() {
			m[Reason(r).String()] = n
		}
	}
	return m
}

// Remarks returns the counts that are not zero, by their texts, of what was
// analysed and is worth to be known all the same.
func (s Stats) Remarks() map[string]int64 {
	m := make(map[string]int64)
	for r, n := range s.Counts {
		if n != 0 && Reason(r).remark() {
			m[Reason(r).String()] = n
		}
	}
	return m
}

// remark reports whether what r counts was analysed.
func (r Reason) remark() bool { return r == TimeWentBack || r == EarlyEviction }

// Meter turns packets into records. One goroutine uses it at a time.
type Meter struct {
	opts  Options
	stats Stats

	// clock never goes back, so that nothing waits for it to catch up when that of
	// the packets is set back. It is ahead of that by as much as that was, and 0
	// before the first packet. All times that the Meter compares are by it, those
	// that it tells are of the packets.
	clock int64 // ns
	ahead int64 // ns; 0 while they go together, which then is unix time

	nets    [2][]netip.Prefix // of this site, IPv4 and IPv6
	conns   map[key]*conn
	due     heap
	all     lists // of connections, by last use
	holders lists // of those that hold something
	held    int   // bytes that they hold
	free    *conn
	freeTCP *tcpState

	frags   fragments
	tunnels tunnels
	expects map[channel]expectation
	crowded int64 // the first time at which one of expects ends, when there was no room
	proto   protocols

	scratch flow.Flow
	text    []byte
}

// addr is an IP address in 16 bytes, IPv4 in its mapped form.
type addr [16]byte

// addrPair are two addresses, the smaller first.
type addrPair struct{ a, b addr }

// channel is a connection as it can be announced: who begins it, and with
// which TCP port.
type channel struct {
	orig, resp addr
	port       uint16
}

// expectation is a connection that was announced.
type expectation struct {
	service string
	until   int64 // by Meter.clock
}

// New returns a Meter. It starts nothing.
func New(o Options) *Meter {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.TCPInactivity, 5*time.Minute)
	def(&o.UDPInactivity, time.Minute)
	def(&o.AttemptDelay, 5*time.Second)
	def(&o.CloseDelay, 5*time.Second)
	def(&o.Interactive, time.Hour)
	if o.MaxConns <= 0 {
		o.MaxConns = defaultConns
	}
	if o.MaxAnalyzed <= 0 {
		o.MaxAnalyzed = defaultAnalyzed
	}
	if o.MaxBuffered <= 0 {
		o.MaxBuffered = defaultBuffer
	}
	if o.LocalNets == nil {
		o.LocalNets = privateNets()
	}
	if o.Emit == nil {
		o.Emit = func(*flow.Flow) {}
	}
	m := &Meter{
		opts: o, conns: make(map[key]*conn), all: listsOf(0), holders: listsOf(1), frags: newFragments(), tunnels: newTunnels(), expects: make(map[channel]expectation),
	}
	for _, p := range o.LocalNets {
		m.nets[family(p.Addr())] = append(m.nets[family(p.Addr())], p)
	}
	if m.opts.Next == nil {
		m.opts.Next = func(flow.Kind) *flow.Flow { return &m.scratch }
	}
	m.proto.init(m)
	return m
}

// privateNets are what Zeek takes for local: the blocks that IANA's
// special-purpose registries say are not routed over the Internet, those of
// IPv4 also as 6to4 prefixes.
func privateNets() []netip.Prefix {
	var p []netip.Prefix
	for _, s := range [...]string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
		"192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/24",
		"239.0.0.0/8", "240.0.0.0/4", "255.255.255.255/32",
	} {
		v4 := netip.MustParsePrefix(s)
		a := v4.Addr().As4()
		v6 := netip.AddrFrom16([16]byte{0x20, 0x02, a[0], a[1], a[2], a[3]})
		p = append(p, v4, netip.PrefixFrom(v6, 16+v4.Bits()))
	}
	for _, s := range [...]string{
		"::/128", "::1/128", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "fc00::/7", "fe80::/10", "fec0::/10",
	} {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

// Stats returns what was seen so far.
func (m *Meter) Stats() Stats {
	s := m.stats
	s.Active, s.Buffered, s.Proto = len(m.conns), m.held+m.frags.bytes, m.proto.set.Stats
	s.Proto.Malformed += m.proto.dhcp.Malformed
	s.Proto.Overflows += m.proto.dhcp.Early
	return s
}

// count notes that something was not analysed.
func (m *Meter) count(r Reason) {
	m.stats.Counts[r]++
	if n := m.stats.Counts[r]; n&(n-1) == 0 && r.bound() && m.opts.Full != nil {
		m.opts.Full(r, n)
	}
}

// bound reports whether r counts what exceeded a bound.
func (r Reason) bound() bool {
	switch r {
	case EarlyEviction, StreamOverflow, NotAnalyzed, NotExpected, FragmentOverflow:
		return true
	default:
		return false
	}
}

// Feed takes the next packet. Connections that are over by its time are
// emitted first. It does not keep p.Data.
func (m *Meter) Feed(p Packet) {
	m.stats.Packets++
	m.stats.Bytes += int64(len(p.Data))
	if m.opts.Keep != nil && !m.opts.Keep(p) {
		m.stats.Filtered++
		return
	}
	if p.Time < flow.MinTime || p.Time > flow.MaxTime {
		m.count(BadTime)
		return
	}
	f := frame{t: m.advance(p.Time), cut: max(0, p.Length-len(p.Data))}
	m.link(&f, p.Link, p.Data)
	m.relieve()
}

// Advance moves the clock of the packets to t, unix ns: what is over by then is
// emitted. A live source calls it when no packets come.
func (m *Meter) Advance(t int64) { m.advance(t) }

// tick moves the clock to a time of the packets and returns what that is by it.
func (m *Meter) tick(t int64) int64 {
	if m.ahead != 0 && t >= m.clock-stepBack { // it is right again, or this is of the capture before
		m.ahead = 0
	}
	at := t + m.ahead
	if at >= m.clock {
		m.clock = at
		return at
	}
	m.stats.Counts[TimeWentBack]++
	if m.clock-at <= stepBack {
		return at
	}
	// Another capture, or the clock of the host was set.
	if m.clock-t > maxAhead {
		m.End()
		m.clock = t
		return t
	}
	m.ahead = m.clock - t
	return m.clock
}

// told returns the time of the packets that a time of the clock is now.
func (m *Meter) told(t int64) int64 { return t - m.ahead }

// advance is Advance, and returns what t is by the clock.
func (m *Meter) advance(t int64) int64 {
	t = m.tick(t)
	for len(m.due) > 0 && m.due[0].at <= m.clock {
		m.expire(m.due[0].c)
	}
	m.frags.expire(m)
	m.proto.dhcp.Advance(m.clock)
	return t
}

// End emits all connections that are left, in the order in which they began,
// and makes the Meter as new.
func (m *Meter) End() {
	for _, c := range m.sorted() {
		m.remove(c)
	}
	m.frags.clear(m)
	m.tunnels = newTunnels()
	m.proto.dhcp.End()
	clear(m.expects)
	m.clock, m.ahead, m.crowded = 0, 0, 0
}
