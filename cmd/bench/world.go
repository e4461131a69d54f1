//go:build unix

package main

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strconv"
)

// kind is the log that a record goes to.
type kind uint8

const (
	connLog kind = iota
	dnsLog
	httpLog
	sslLog
	numLogs
)

// String returns the name of the log.
func (k kind) String() string { return [...]string{"conn", "dns", "http", "ssl"}[k&3] }

// record is one line to be. Times are in µs of the Unix epoch. What only fills
// the line is made of extra when it is written.
type record struct {
	kind                             kind
	ts, dur                          int64 // dur < 0: the connection never got so far as to have one
	uid, extra                       uint64
	src, dst                         netip.Addr
	sp, dp                           uint16
	proto, service, state, history   string
	origBytes, respBytes             int64
	origPkts, respPkts               int64
	origHeader, respHeader, reported int64 // bytes of the headers of one packet; bytes of the HTTP body
	server                           int32 // index in world.servers; -1: none
	nx                               bool
}

// The sizes of the network. They do not depend on how many records are made,
// so that five million records come from the same hosts as one million.
const (
	numHosts   = 10_000
	numServers = 20_000
	scanned    = 100_000 // targets of the big scanner
)

// server is a public server with a name.
type server struct {
	name   string
	v4, v6 netip.Addr
	looked int64 // when anybody asked for the name last, µs
}

// addr returns the address at which src reaches the server.
func (s *server) addr(src netip.Addr) netip.Addr {
	if src.Is6() {
		return s.v6
	}
	return s.v4
}

// world makes the traffic of one network, always the same for a seed.
type world struct {
	rng     *rand.Rand
	all     bool  // dns, http and ssl records too
	gap     int64 // mean time between records, µs
	now     int64 // µs
	made    int64
	limit   int64
	uid     uint64
	hosts   []netip.Addr
	servers []server
	probes  int64           // of the big scanner
	tries   [numHosts]int64 // of each hostile host
	names   int64           // made up by infected hosts
	calm    bool            // hosts act one by one, not in bursts
	acting  [busyHosts]struct{ host, left int64 }
	emit    func(at int64, r *record)
	tick    func(now int64)
}

var (
	gateway  = netip.AddrFrom4([4]byte{10, 0, 0, 1}) // resolver, and all guests behind NAT
	upstream = netip.AddrFrom4([4]byte{9, 9, 9, 9})
	scanner  = netip.AddrFrom4([4]byte{10, 0, 9, 9})
	fileHost = netip.AddrFrom4([4]byte{10, 0, 1, 10})
	dcHost   = netip.AddrFrom4([4]byte{10, 0, 1, 5})
	sshHost  = netip.AddrFrom4([4]byte{10, 0, 1, 22})
	mailHost = netip.AddrFrom4([4]byte{10, 0, 1, 25})
)

// newWorld returns a world that will make limit records, rate for each second
// of its time. It gives each to emit with the time at which Zeek would write
// its line, and before that tells tick the time before which no more will be.
func newWorld(seed uint64, limit, rate int64, all bool, emit func(at int64, r *record), tick func(now int64)) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 0x51195)), all: all, limit: limit, gap: 1_000_000 / rate, emit: emit, tick: tick,
		now: 1_760_000_400_000_000, // 2025-10-09
	}
	for i := range numHosts {
		if i%32 == 5 {
			w.hosts = append(w.hosts, v6(0xfd12_3456_789a_0000, uint64(i)+0x10))
			continue
		}
		w.hosts = append(w.hosts, netip.AddrFrom4([4]byte{10, byte(1 + i>>8), byte(i), byte(10 + i%200)}))
	}
	words := []string{"news", "shop", "cloud", "media", "static", "video", "mail", "play", "data", "maps", "bank", "travel", "photo"}
	for i := range numServers {
		name := words[i%13] + "-" + strconv.Itoa(i/13) + "." + words[(i/7)%13] + "site.example.org"
		h := scramble(uint64(i) + 77)
		w.servers = append(w.servers, server{
			name:   name,
			v4:     netip.AddrFrom4([4]byte{[...]byte{23, 34, 52, 104, 142, 151, 185, 199}[h&7], byte(h >> 8), byte(h >> 16), byte(1 + h>>24%250)}),
			v6:     v6(0x2a00_1450_4000_0000|h>>40, uint64(i)+1),
			looked: -1 << 60,
		})
	}
	return w
}

func v6(hi, lo uint64) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	return netip.AddrFrom16(b)
}

// scramble spreads the bits of x (the finaliser of splitmix64).
func scramble(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (w *world) n(n int64) int64          { return w.rng.Int64N(n) }
func (w *world) between(a, b int64) int64 { return a + w.rng.Int64N(b-a) }

// skewed returns an index below n; low ones come more often.
func (w *world) skewed(n int) int {
	u := w.rng.Float64()
	return int(u * u * u * float64(n))
}

// run makes all records.
func (w *world) run() {
	for w.made < w.limit {
		w.tick(w.now)
		switch r := w.n(1000); {
		case w.probes*10 <= w.made: // a tenth of all records
			w.probe()
		case r < 110:
			w.browse(gateway)
		case r < 170:
			w.hostile()
		default:
			w.normal(w.busy())
		}
	}
}

// The hosts that are busy at one time, and how many acts each does before
// another takes its place: a page, a start-up, a sync is a burst of connections.
// With -calm the next host is always another.
const (
	busyHosts = 60
	burst     = 15
)

// busy returns the host that acts next.
func (w *world) busy() netip.Addr {
	if w.calm {
		return w.hosts[w.n(numHosts)]
	}
	a := &w.acting[w.n(busyHosts)]
	if a.left == 0 {
		a.host, a.left = w.n(numHosts), w.between(1, 2*burst)
	}
	a.left--
	return w.hosts[a.host]
}

// put gives a record out, delay µs after it has ended.
func (w *world) put(r *record, delay int64) {
	if w.made == w.limit {
		return
	}
	w.made++
	r.extra = w.rng.Uint64()
	w.emit(r.ts+max(r.dur, 0)+delay, r)
	w.now += int64(w.rng.ExpFloat64() * float64(w.gap))
}

// conn returns a new connection that begins now.
func (w *world) conn(src, dst netip.Addr, proto string, dp uint16) record {
	w.uid++
	if src.Is6() && dst.Is4() { // the local machines have both
		b := dst.As4()
		dst = v6(0xfd12_3456_789a_0001, uint64(binary.BigEndian.Uint32(b[:])))
	}
	r := record{
		kind: connLog, ts: w.now, uid: w.uid, src: src, dst: dst, proto: proto, dp: dp, server: -1,
		sp: uint16(w.between(32768, 61000)),
	}
	ip := int64(20)
	if src.Is6() {
		ip = 40
	}
	r.origHeader, r.respHeader = ip+8, ip+8
	if proto == "tcp" {
		r.origHeader, r.respHeader = ip+20, ip+20
	}
	return r
}

// The times for which Zeek waits before it takes a connection for ended.
const (
	afterClose   = 5_000_000
	afterReset   = 100_000
	afterSilence = 60_000_000 // UDP and ICMP
)

// tcp finishes a TCP connection with data both ways.
func (w *world) tcp(r *record, orig, resp, dur int64) {
	r.dur, r.origBytes, r.respBytes = dur, orig, resp
	r.origPkts, r.respPkts = 4+orig/1200+resp/2800, 4+resp/1400+orig/2400
	delay := int64(afterClose)
	switch p := w.n(100); {
	case p < 84:
		r.state, r.history = "SF", "ShADadFf"
	case p < 90:
		r.state, r.history, delay = "RSTO", "ShADadR", afterReset
	case p < 94:
		r.state, r.history, delay = "RSTR", "ShADadFr", afterReset
	case p < 97:
		r.state, r.history, delay = "S1", "ShADad", 5*afterSilence
	case p < 98:
		r.state, r.history, delay = "OTH", "DadA", 5*afterSilence
	default:
		r.state, r.history = "SF", "ShADadtTFf"
	}
	w.put(r, delay)
}

// refused finishes a TCP connection that nobody took.
func (w *world) refused(r *record, silent bool) {
	r.service, r.origPkts, r.respPkts = "", 1, 0
	r.dur, r.state, r.history = -1, "S0", "S"
	delay := int64(afterClose)
	switch {
	case !silent:
		r.dur, r.respPkts, r.state, r.history, delay = w.between(80, 3000), 1, "REJ", "Sr", afterReset
	case w.n(3) == 0:
		r.dur, r.origPkts = w.between(3_000_000, 9_200_000), 3
	}
	w.put(r, delay)
}

// udp finishes an exchange of datagrams, or of echoes.
func (w *world) udp(r *record, orig, resp, dur int64) {
	r.dur, r.origBytes, r.respBytes, r.origPkts, r.respPkts = dur, orig, resp, 1+orig/1200, 1+resp/1200
	r.state, r.history = "SF", "Dd"
	switch {
	case r.proto == "icmp":
		r.state, r.history = "OTH", ""
	case resp == 0:
		r.state, r.history = "S0", "D"
	}
	if resp == 0 {
		r.respPkts = 0
	}
	w.put(r, afterSilence)
}

// lookup asks the gateway for a name: of the server, or one that does not exist.
func (w *world) lookup(src netip.Addr, server int32, nx bool) {
	resolver := gateway
	if src == gateway {
		resolver = upstream
	}
	r := w.conn(src, resolver, "udp", 53)
	r.service, r.server, r.nx = "dns", server, nx
	rtt := w.between(400, 60_000)
	if w.all {
		d := r
		d.kind, d.dur = dnsLog, rtt
		w.put(&d, 0)
	}
	w.udp(&r, w.between(28, 60), w.between(60, 300), rtt)
}

// browse fetches something from a public server, with a look-up in front
// unless the name is known.
func (w *world) browse(src netip.Addr) {
	i := int32(w.skewed(numServers))
	s := &w.servers[i]
	if w.now-s.looked > 1800e6 || w.n(100) < 35 {
		s.looked = w.now
		w.lookup(src, i, false)
		w.now += w.between(100, 5000)
	}
	dst := s.addr(src)
	// Most are over in seconds, few last minutes, very few hours.
	dur := w.between(20_000, 4_000_000)
	switch p := w.n(1000); {
	case p < 2:
		dur = w.between(600e6, 9000e6)
	case p < 60:
		dur = w.between(60e6, 600e6)
	case p < 300:
		dur = w.between(4e6, 60e6)
	}
	orig, resp := w.between(300, 4000), w.between(500, 60_000)
	if w.n(40) == 0 {
		resp *= w.between(10, 400)
	}
	switch p := w.n(100); {
	case p < 3:
		r := w.conn(src, dst, "tcp", 443)
		w.refused(&r, p < 2)
	case p < 15:
		r := w.conn(src, dst, "udp", 443)
		r.service, r.server = "quic,ssl", i
		w.udp(&r, orig, resp, dur)
	case p < 28:
		r := w.conn(src, dst, "tcp", 80)
		r.service, r.server = "http", i
		if w.all {
			h := r
			h.kind, h.ts, h.reported = httpLog, r.ts+w.between(1000, 20_000), resp
			w.put(&h, 20_000)
		}
		w.tcp(&r, orig, resp+200, dur)
	default:
		r := w.conn(src, dst, "tcp", 443)
		r.service, r.server = "ssl", i
		if w.all {
			t := r
			t.kind, t.ts = sslLog, r.ts+w.between(1000, 60_000)
			w.put(&t, 30_000)
		}
		w.tcp(&r, orig, resp+3000, dur)
	}
}

// normal is what hosts do all day.
func (w *world) normal(src netip.Addr) {
	switch p := w.n(100); {
	case p < 60:
		w.browse(src)
	case p < 66: // a reverse look-up
		w.lookup(src, -1, false)
	case p < 76:
		r := w.conn(src, gateway, "udp", 123)
		r.service, r.sp = "ntp", 123
		w.udp(&r, 48, 48, w.between(300, 30_000))
	case p < 84:
		r := w.conn(src, fileHost, "tcp", 445)
		r.service = "gssapi,smb"
		w.tcp(&r, w.between(900, 30_000), w.between(900, 90_000), w.between(10_000, 200e6))
	case p < 90:
		r := w.conn(src, dcHost, "tcp", 88)
		r.service = "krb_tcp"
		w.tcp(&r, w.between(900, 3000), w.between(900, 3000), w.between(2_000, 90_000))
	case p < 93:
		r := w.conn(src, sshHost, "tcp", 22)
		r.service = "ssh"
		w.tcp(&r, w.between(2500, 30_000), w.between(3000, 90_000), w.between(1e6, 900e6))
	case p < 96:
		r := w.conn(src, gateway, "icmp", 0)
		r.sp = 8
		w.udp(&r, 56, 56, w.between(100, 3000))
	default:
		r := w.conn(src, mailHost, "tcp", 587)
		r.service = "smtp"
		w.tcp(&r, w.between(900, 90_000), w.between(300, 3000), w.between(100_000, 9e6))
	}
}

// probe is one of the big scanner: 100,000 targets, one after the other.
func (w *world) probe() {
	t := uint32(w.probes % scanned)
	w.probes++
	dst := netip.AddrFrom4([4]byte{91, 192 + byte(t>>16), byte(t >> 8), byte(t)})
	r := w.conn(scanner, dst, "tcp", 445)
	w.refused(&r, w.n(20) > 0)
}

// hostile is what one host in a hundred does, besides being normal.
func (w *world) hostile() {
	i := int(w.n(numHosts/100))*100 + 7
	src := w.hosts[i]
	w.tries[i]++
	n := w.tries[i]
	switch i / 100 % 6 {
	case 0: // one port of many hosts
		r := w.conn(src, netip.AddrFrom4([4]byte{10, 60, byte(n >> 8), byte(n)}), "tcp", 3389)
		w.refused(&r, n%4 > 0)
	case 1: // many ports of one host
		r := w.conn(src, fileHost, "tcp", uint16(1+n%20_000))
		w.refused(&r, n%9 == 0)
	case 2: // passwords, and a server that has had enough of them
		r := w.conn(src, sshHost, "tcp", 22)
		if n%3 > 0 {
			w.refused(&r, false)
			return
		}
		r.service = "ssh"
		w.tcp(&r, w.between(1100, 1500), w.between(1700, 2300), w.between(1e6, 4e6))
	case 3: // much sent out
		if n%20 > 0 {
			w.browse(src)
			return
		}
		s := int32(i % numServers)
		w.lookup(src, s, false)
		r := w.conn(src, w.servers[s].addr(src), "tcp", 443)
		r.service, r.server = "ssl", s
		w.tcp(&r, w.between(20e6, 300e6), w.between(9000, 90_000), w.between(30e6, 900e6))
	case 4: // names that do not exist
		w.names++
		w.lookup(src, -1, true)
	default: // a channel that is held open, and a look around
		if n%15 > 0 {
			r := w.conn(src, netip.AddrFrom4([4]byte{10, 0, 1, byte(n)}), "icmp", 0)
			r.sp = 8
			w.udp(&r, 56, 0, -1)
			return
		}
		s := int32(i % numServers)
		w.lookup(src, s, false)
		r := w.conn(src, w.servers[s].addr(src), "tcp", 8443)
		w.tcp(&r, w.between(9000, 90_000), w.between(9000, 90_000), w.between(1600e6, 10_000e6))
	}
}
