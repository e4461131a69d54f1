// Package portscan reports hosts that try many ports of one host, or one port
// of many hosts, and get nowhere.
package portscan

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// The evidence this module emits.
const (
	Vertical   evidence.Type = "VERTICAL_PORT_SCAN"
	Horizontal evidence.Type = "HORIZONTAL_PORT_SCAN"
)

// Config holds the thresholds.
type Config struct {
	MinPorts int64 `yaml:"min_ports"` // failed ports of one host for the first report
	MinHosts int64 `yaml:"min_hosts"` // hosts that failed on one port for the first report
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "portscan",
	Doc:   "many ports of one host, or one port of many hosts, tried without success",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.Conn),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{
		{Type: Vertical, Level: evidence.High, Tactic: evidence.Discovery, MITRE: []string{"T1046"}, Subject: "victim/protocol", Over: "window", Method: "Recon", Doc: "one host was tried on many ports"},
		{Type: Horizontal, Level: evidence.High, Tactic: evidence.Discovery, MITRE: []string{"T1046"}, Subject: "port/protocol", Over: "window", Method: "Recon", Doc: "one port was tried on many hosts"},
	},
}, Config{MinPorts: 6, MinHosts: 6}, New)

const (
	// maxPairs bounds the (host, port) pairs that one state tells apart. At 9
	// bytes a slot the map of them stays below 2.5 MB.
	maxPairs = 110_000
	// maxTallies bounds the hosts, and the ports, that are counted at one time.
	// When there are more, those touched least are forgotten.
	maxTallies = 4096
	// freeSubjects bounds the hosts (and the ports) of one state that are
	// reported from the first step on; see reach.
	freeSubjects = 32
	// firstUnprivileged is the first port that peer-to-peer programs pick from.
	firstUnprivileged = 1024
)

// The bits of a value of Counts.Pairs.
const (
	tried    = 1 << iota // a flow to the pair failed
	answered             // a flow to the pair succeeded
)

// State is what a host did in one window.
type State struct {
	Many *Counts // of a host with several pairs; nil: there is only One
	One  First
}

// First is the only pair of a host so far. Most hosts of the Internet that
// turn up never have another, and a flood forges a hundred thousand of them.
type First struct {
	Try
	Pair     uint32 // fingerprint as in Counts.Pairs
	Flows    uint32 // that failed
	Packets  uint32 // of those flows
	Answered bool
}

// Counts is what a host did whose flows went to several pairs. All its maps are
// made when the first flow needs them.
type Counts struct {
	// Pairs holds the 32-bit fingerprints of the (protocol, host, port)
	// triples seen. When it is full, Depth grows by one and only the
	// fingerprints divisible by 2^Depth stay and are let in, each then
	// standing for 2^Depth pairs.
	Pairs modules.Table[uint8]
	Depth uint8

	Hosts map[uint64]Tally     // by fingerprint of protocol and host
	Ports modules.Table[Tally] // by protocol and port

	Spread   [2]Spread // TCP, UDP
	Subjects [2]uint32 // vertical, horizontal: how many reached the first step

	Recent []Try // ring of the latest new pairs, for the uids
	Next   int   // where the ring goes on once it is full
}

// Tally counts the failed pairs of one host or one port.
type Tally struct {
	Pairs    uint32 // distinct pairs that failed
	High     uint32 // those of them with an unprivileged port
	Answered uint32 // distinct pairs that succeeded (ports only)
	Flows    uint32 // failed flows, repetitions included
	Packets  uint32 // of those flows, both directions
	Rank     uint32 // the place among the subjects reported, from 1
	Step     uint8  // the last step reached
}

// Spread tells a scan from peer-to-peer noise: how many pairs failed in all,
// over how many hosts and ports.
type Spread struct{ Pairs, Hosts, Ports uint32 }

// Try is a failed flow to a new pair.
type Try struct {
	Host uint64
	Port uint32
	Time int64 // unix ns
	UID  string
}

type rule struct{ c Config }

var (
	_ modules.Rule[State]    = rule{}
	_ modules.Chooser        = rule{}
	_ modules.Toucher[State] = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	for _, v := range []struct {
		key string
		n   int64
	}{{"min_ports", c.MinPorts}, {"min_hosts", c.MinHosts}} {
		if v.n < 2 || v.n > math.MaxUint16 {
			return nil, fmt.Errorf("%s: %d is not in 2..%d", v.key, v.n, math.MaxUint16)
		}
	}
	return rule{c}, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	return (f.Proto == flow.TCP || f.Proto == flow.UDP) && f.HasPorts && f.Dst.IsValid()
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	o := outcomeOf(f)
	if o == ignored || !r.Wants(f) || cx.Role() != profile.Client {
		return
	}
	host, pair, port := fingerprints(f)
	n := st.Many
	var bit uint8
	if n != nil {
		if b := n.Pairs.Get(pair); b != nil {
			bit = *b
		}
	} else if st.One.Answered && st.One.Pair == pair {
		bit = answered
	}
	if bit&answered != 0 {
		return
	}
	if !profile.IsScannable(f.Dst) || !profile.IsScannable(f.Src) || toBroadcast(cx.Network(), f) {
		return
	}
	if n == nil {
		if st.One.take(f, o, host, pair, port) {
			return
		}
		n = st.unfold()
		if b := n.Pairs.Get(pair); b != nil {
			bit = *b
		}
	}
	if o == success {
		n.answer(pair, bit, host, port)
		return
	}
	r.try(cx, n, f, pair, bit, host, port)
}

// take counts f where there is only one pair, which reports nothing, because
// nothing is reported of fewer than two. It returns false when f makes it more.
func (t *First) take(f *flow.Flow, o outcome, host uint64, pair, port uint32) bool {
	switch {
	case t.Port == 0 && o == success:
		*t = First{Try: Try{Port: port}, Pair: pair, Answered: true}
		return true
	case t.Port == 0:
		*t = First{Try: Try{Host: host, Port: port, Time: f.Time, UID: strings.Clone(f.UID)}, Pair: pair}
	case t.Pair != pair || t.Host != host || t.Port != port || o == success:
		return false
	}
	t.Flows++
	t.Packets += packets(f)
	return true
}

// unfold makes room for several pairs, and counts the first as if it came now.
func (st *State) unfold() *Counts {
	n, t := new(Counts), st.One
	st.Many, st.One = n, First{}
	switch {
	case t.Port == 0:
	case t.Answered:
		n.answer(t.Pair, 0, t.Host, t.Port)
	default:
		n.admit(t.Pair, 0, tried)
		c := Tally{Pairs: 1, Flows: t.Flows, Packets: t.Packets}
		if uint16(t.Port) >= firstUnprivileged {
			c.High = 1
		}
		n.Spread[side(t.Port)] = Spread{1, 1, 1}
		n.remember(t.Try)
		n.Hosts = map[uint64]Tally{t.Host: c}
		*n.Ports.Put(t.Port) = c
	}
	return n
}

// packets returns how many packets a flow had, up to a number that cannot
// make the sums overflow soon.
func packets(f *flow.Flow) uint32 { return uint32(min(max(f.OrigPkts+f.RespPkts, 0), math.MaxUint16)) }

// toBroadcast reports whether f looks like one to the broadcast address of a
// home network. Programs that look for others of their kind send UDP there, on
// ports of their own, and nobody answers from that address. The width of the
// networks is not known, but most are a /24.
func toBroadcast(n *profile.Network, f *flow.Flow) bool {
	if f.Proto != flow.UDP {
		return false
	}
	a := f.Dst.Unmap()
	return a.Is4() && a.As4()[3] == 255 && n.IsHome(a)
}

// fingerprints returns the hashes of protocol and host, and of protocol, host
// and port, and the protocol and port.
func fingerprints(f *flow.Flow) (host uint64, pair, port uint32) {
	a := f.Dst.As16()
	host = mix(binary.BigEndian.Uint64(a[:8])^uint64(f.Proto), binary.BigEndian.Uint64(a[8:]))
	return host, uint32(mix(host, uint64(f.DstPort)+1)), uint32(f.Proto)<<16 | uint32(f.DstPort)
}

// Touch implements modules.Toucher.
func (rule) Touch(st *State, f *flow.Flow) uint32 {
	n := st.Many
	if n == nil {
		return 0
	}
	_, pair, port := fingerprints(f)
	return n.Pairs.Touch(pair) + n.Ports.Touch(port)
}

// answer notes that the pair works, so it is no target of a scan, now or before.
func (st *Counts) answer(pair uint32, bit uint8, host uint64, port uint32) {
	n := st.admit(pair, bit, answered)
	if n == 0 {
		return
	}
	p := st.Ports.PutLargest(port, maxTallies, (*Tally).mass)
	p.Answered += n
	if bit&tried != 0 {
		drop(p, port)
		if h, ok := st.Hosts[host]; ok {
			drop(&h, port)
			st.Hosts[host] = h
		}
		if s := &st.Spread[side(port)]; s.Pairs > 0 {
			s.Pairs--
		}
	}
}

// drop takes one failed pair of the port back.
func drop(t *Tally, port uint32) {
	if t.Pairs > 0 {
		t.Pairs--
	}
	if uint16(port) >= firstUnprivileged && t.High > 0 {
		t.High--
	}
}

// try counts a failed flow and reports what it completes.
func (r rule) try(cx *modules.Context, st *Counts, f *flow.Flow, pair uint32, bit uint8, host uint64, port uint32) {
	h, hostKnown := st.Hosts[host]
	var p Tally
	known := st.Ports.Get(port)
	if known != nil {
		p = *known
	}
	h.more(packets(f))
	p.more(packets(f))
	var n uint32
	if bit&tried == 0 {
		n = st.admit(pair, bit, tried)
	}
	if n == 0 {
		// A repetition adds to what is counted already, and starts nothing.
		if hostKnown {
			st.Hosts[host] = h
		}
		if known != nil {
			*known = p
		}
		return
	}
	sp := &st.Spread[side(port)]
	sp.Pairs += n
	if h.Pairs == 0 {
		sp.Hosts += n
	}
	if p.Pairs == 0 {
		sp.Ports += n
	}
	h.Pairs += n
	p.Pairs += n
	if f.DstPort >= firstUnprivileged {
		h.High += n
		p.High += n
	}
	st.remember(Try{Host: host, Port: port, Time: f.Time, UID: strings.Clone(f.UID)})

	if st.reach(0, &h, r.c.MinPorts) {
		r.vertical(cx, st, f, &h, host, port)
	}
	if share(&p) > minShare && st.reach(1, &p, r.c.MinHosts) {
		r.horizontal(cx, st, f, &p, port)
	}
	modules.PutLargest(&st.Hosts, host, h, maxTallies, Tally.weight)
	*st.Ports.PutLargest(port, maxTallies, (*Tally).mass) = p
}

func (t Tally) weight() int64 { return int64(t.Pairs) + int64(t.Answered) }

func (t *Tally) mass() int64 { return t.weight() }

func (t *Tally) more(packets uint32) {
	t.Flows++
	t.Packets += packets
}

// admit sets the bit of the pair and returns how many pairs it stands for,
// 0 when it lies outside the sample.
func (st *Counts) admit(pair uint32, have, bit uint8) uint32 {
	if have == 0 {
		if pair&(1<<st.Depth-1) != 0 {
			return 0
		}
		for st.Pairs.Len() >= maxPairs && st.Depth < 31 {
			st.Depth++
			st.Pairs.Keep(func(k uint32, _ *uint8) bool { return k&(1<<st.Depth-1) == 0 })
		}
		if pair&(1<<st.Depth-1) != 0 {
			return 0
		}
	}
	*st.Pairs.Put(pair) = have | bit
	return 1 << st.Depth
}

// remember keeps the try for the uids of evidence to come.
func (st *Counts) remember(t Try) {
	if len(st.Recent) < evidence.MaxUIDs {
		st.Recent = append(st.Recent, t)
		return
	}
	st.Recent[st.Next] = t
	st.Next = (st.Next + 1) % len(st.Recent)
}

// uids returns the uids of the recent tries that match, the oldest first.
func (st *Counts) uids(match func(Try) bool) []string {
	var u []string
	for i := range st.Recent {
		if t := st.Recent[(st.Next+i)%len(st.Recent)]; t.UID != "" && match(t) {
			u = append(u, t.UID)
		}
	}
	return u
}

// burst counts the tries of new hosts on a port in the burstSpan around now,
// as far as they are among the latest.
func (st *Counts) burst(port uint32, now int64) (n int) {
	for i := range st.Recent {
		if t := &st.Recent[i]; t.Port == port && t.Time > now-burstSpan && t.Time < now+burstSpan {
			n++
		}
	}
	return n
}

// reach reports whether t got to a step that is to be told. The first 31
// subjects of a state are told from their first step on, later ones only from
// a higher step, one more for each doubling of their number: whoever scans a
// thousand ports of a network does not fill the log with a thousand lines.
func (st *Counts) reach(which int, t *Tally, first int64) bool {
	step := modules.FineStep(int64(t.Pairs), first)
	if step <= int(t.Step) {
		return false
	}
	if t.Rank == 0 {
		st.Subjects[which]++
		t.Rank = st.Subjects[which]
	}
	t.Step = uint8(step)
	return step > 2*bits.Len32(t.Rank/freeSubjects)
}

func (r rule) vertical(cx *modules.Context, st *Counts, f *flow.Flow, t *Tally, host uint64, port uint32) {
	c := round(max(minConfidence, bySize(t, f.Proto)*st.focus(t, port)))
	cx.Emit(evidence.Evidence{
		Type: Vertical, Level: evidence.High, Confidence: c,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Victim: evidence.IPEntity(f.Dst, evidence.Dst, 0),
		Description: fmt.Sprintf("vertical port scan of %s by %s: %s%d %s ports, %d packets, confidence %.2f",
			f.Dst, f.Src, st.about(), t.Pairs, f.Proto, t.Packets, c),
		Proto: f.Proto.String(), Count: int64(t.Flows), Step: int(t.Step),
		Subject: f.Dst.String() + "/" + f.Proto.String(),
		UIDs:    st.uids(func(o Try) bool { return o.Host == host }),
	})
}

func (r rule) horizontal(cx *modules.Context, st *Counts, f *flow.Flow, t *Tally, port uint32) {
	// From the smallest share of failures to the full one the doubt fades.
	full, burst := fullShare, st.burst(port, f.Time) >= burstTries
	if burst && f.Proto == flow.TCP {
		full = burstShare
	}
	grade := min(1, (share(t)-minShare)/(full-minShare))
	switch f.DstPort {
	case 6881, 7680, 8333: // peers of BitTorrent, of Windows' updates and of Bitcoin are tried in bursts too
		grade *= patient
	case 80, 443:
		if !burst {
			grade *= patient
		}
	default:
		if !burst && f.DstPort >= firstUnprivileged && share(t) < 1-minPeers {
			grade *= patient
		}
	}
	c := round(max(minConfidence, bySize(t, f.Proto)*grade*st.focus(t, port)))
	subject := fmt.Sprintf("%d/%s", f.DstPort, f.Proto)
	cx.Emit(evidence.Evidence{
		Type: Horizontal, Level: evidence.High, Confidence: c,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
		Description: fmt.Sprintf("horizontal port scan of %sport %s by %s: %s%d hosts, %d packets, confidence %.2f",
			name(f.Proto, f.DstPort), subject, f.Src, st.about(), t.Pairs, t.Packets, c),
		Proto: f.Proto.String(), DstPort: f.DstPort, Count: int64(t.Flows), Step: int(t.Step),
		Subject: subject,
		UIDs:    st.uids(func(o Try) bool { return o.Port == port }),
	})
}

// about says in front of a number that it is an estimate.
func (st *Counts) about() string {
	if st.Depth > 0 {
		return "about "
	}
	return ""
}

const (
	// minShare is the share of hosts that failed among all that were tried on
	// a port, below which they are the dead ends of normal work: of the servers
	// that a browser or a resolver turns to, now and then one in six is silent.
	minShare = 0.2
	// fullShare is the share from which they are no dead ends any more.
	fullShare = 0.6
	// burstShare takes its place when burstTries new hosts failed on the port
	// within burstSpan: nobody meets so many dead ends at once.
	burstShare = 0.35
	burstTries = 6
	burstSpan  = 10 * int64(time.Second)
	// patient is what a scan of an everyday port is worth that comes without a
	// burst: a network that lets no IPv6 or no QUIC out fails on as many hosts as
	// its users visit.
	// So do the peers of a program on a port of its own, of whom minPeers and
	// more answer; a bot that scans for open ports meets fewer.
	patient  = 0.3
	minPeers = 0.1
	// minConfidence keeps what looks like noise visible.
	minConfidence = 0.05
)

// share returns the failed part of the hosts tried on a port.
func share(t *Tally) float64 { return float64(t.Pairs) / float64(max(1, t.Pairs+t.Answered)) }

// sureTargets is the number of failed pairs from which their number leaves no
// doubt: retries make ten packets of three dead servers.
const sureTargets = 12

// bySize is the reference's confidence, packets/10, or 0.3 when the log has no
// packets, as far as there are targets enough.
// Peers of a peer-to-peer program are tried over UDP, and one behind a NAT on
// port after port: it takes twice as many of those.
func bySize(t *Tally, proto flow.Proto) float64 {
	sure := sureTargets * (1 + float64(t.High)/float64(max(1, t.Pairs)))
	if proto != flow.UDP {
		sure = sureTargets
	}
	targets := min(1, float64(t.Pairs)/sure)
	if t.Packets == 0 {
		return 0.3 * targets
	}
	return min(targets, float64(t.Packets)/10)
}

// focus grades how far the failures of a host gather on t's subject. A scan
// tries few hosts on many ports, few ports on many hosts, or the whole of a
// block: either t holds much of all failed pairs, or the pairs fill much of
// the rectangle of hosts by ports. Peers that went away are as many hosts as
// ports, each tried once, so both are small. Only unprivileged ports can be
// peers, and a thousand failures on one subject are too many for them.
func (st *Counts) focus(t *Tally, port uint32) float64 {
	s := st.Spread[side(port)]
	of := func(a, b float64) float64 { return 2 * a / max(1, b) }
	n, pairs := float64(t.Pairs), float64(s.Pairs)
	gathered := min(1, max(of(n, pairs), of(pairs, float64(s.Hosts)*float64(s.Ports)), n/1000))
	high := float64(t.High) / max(1, n)
	return 1 - high + high*gathered
}

func round(c float64) float64 { return math.Round(c*100) / 100 }

// side returns the index of a port key's protocol in Counts.Spread.
func side(port uint32) int {
	if flow.Proto(port>>16) == flow.TCP {
		return 0
	}
	return 1
}

// outcome is what a flow says about its pair.
type outcome uint8

const (
	ignored outcome = iota
	success
	failure
)

// outcomeOf judges a TCP or UDP flow.
func outcomeOf(f *flow.Flow) outcome {
	switch {
	case f.State == flow.Established:
		return success
	case f.State != flow.NotEstablished, f.RawState == "" && f.Sensor == flow.Zeek,
		f.Open, f.OrigPkts == 0 && f.RespPkts > 0, strings.IndexByte(f.History, '^') >= 0:
		// It is no connection, or the log does not say how it went; it is not
		// over yet; the originator was never seen to send; or Zeek turned the
		// flow round, so who began is a guess.
		return ignored
	case talked(f):
		return success
	case isReply(f):
		return ignored
	}
	return failure
}

// talked reports whether the responder of a flow that is not established sent
// more than a refusal: the end of a connection that worked.
func talked(f *flow.Flow) bool {
	switch {
	case f.Proto == flow.UDP:
		return f.RespPkts > 0 || f.RespBytes > 0
	case f.Sensor == flow.Zeek:
		return f.RespBytes > 0 // payload only
	case f.Sensor == flow.Argus:
		// A flow that goes on over several records loses its SYN.
		src, dst, both := strings.Cut(f.RawState, "_")
		return both && (strings.Contains(dst, "P") ||
			!strings.Contains(src, "S") && strings.Contains(dst, "A") && !strings.Contains(dst, "R"))
	}
	return false
}

// isReply reports whether the flow looks like a service that answers a client
// whose question was not seen: it comes from a well-known port and goes to one
// that clients use. A TCP flow with the originator's SYN is none.
func isReply(f *flow.Flow) bool {
	if f.Proto == flow.UDP && f.SrcPort < 16384 && f.DstPort >= 32768 {
		return true // below every range of ephemeral ports, into the usual one
	}
	if f.SrcPort >= firstUnprivileged || f.DstPort < firstUnprivileged {
		return false
	}
	if f.Proto == flow.UDP {
		return true
	}
	if f.Sensor == flow.Argus {
		src, _, _ := strings.Cut(f.RawState, "_")
		return !strings.Contains(src, "S")
	}
	if f.History != "" {
		return !strings.Contains(f.History, "S")
	}
	switch f.RawState {
	case "S0", "REJ", "RSTOS0", "SH", "RSTR": // Zeek's states that begin with the originator's SYN
		return false
	}
	return true
}

// mix hashes two words into one. It is the same in every run, unlike
// hash/maphash, and its users are Go maps, which add a secret of their own.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0xa0761d6478bd642f, b^0xe7037ed1a0b428db)
	hi, lo = bits.Mul64(hi^lo^0x8ebc6af09c88c6e3, a+bits.RotateLeft64(b, 32)^0x589965cc75374cc3)
	return hi ^ lo
}

// name returns the registered name of a port and a space, or nothing.
func name(p flow.Proto, port uint16) string {
	if n := flow.PortName(p, port); n != "" {
		return n + " "
	}
	return ""
}
