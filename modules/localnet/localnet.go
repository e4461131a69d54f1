// Package localnet reports private addresses that are not of the local network.
package localnet

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Different is the evidence this module emits.
const Different evidence.Type = "DIFFERENT_LOCALNET"

// Config holds the settings.
type Config struct {
	// MaxPerWindow bounds the addresses reported for one host in a window, 1 to 1000.
	MaxPerWindow int `yaml:"max_per_window"`
	// DNSAnswers is how many answers make an outside DNS server one of the network's own, 1 to 1000.
	DNSAnswers int `yaml:"dns_answers"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name: "localnet",
	Doc:  "private addresses that are not of the local network",
	// What the DNS servers of a network are shows in the traffic of all.
	Scope: modules.Network,
	Kinds: flow.Of(flow.Conn, flow.DNS),
	Emits: []evidence.Spec{{
		Type: Different, Level: evidence.Low, Tactic: evidence.Discovery, MITRE: []string{"T1016"}, Subject: "the host, or the victim", Over: "flow",
		Doc: "a private address that is not of the local network was used",
	}},
}, Config{MaxPerWindow: 10, DNSAnswers: 5}, New)

const (
	// learn is how long an outside DNS server has to answer until it is judged.
	learn = time.Hour
	// maxHosts bounds the hosts that go, or come from, outside, and maxServers
	// the DNS servers there.
	maxHosts, maxServers = 4096, 1024
	// maxWaiting bounds the servers that one host asked and that are not judged
	// yet, and maxAsked all that were asked.
	maxWaiting, maxAsked = 64, 4096
	// maxSeen bounds the addresses that are remembered as reported: those of
	// several windows, because records may come late.
	maxSeen = 4096
)

// State is what the module remembers of the network.
type State struct {
	Seen    modules.Recent[Seen, bool]
	Hosts   modules.Recent[netip.Addr, Host]
	Servers modules.Recent[netip.Addr, Server]
	Asked   modules.Recent[Pair, Asked]
	Pending map[uint64]Query // look-ups at servers that are not known yet, by running number
	Next    uint64           // running number of the next
}

// Seen is what was reported of a host in a window.
type Seen struct {
	Src    netip.Addr
	Dst    netip.Addr // invalid: the host itself is outside
	Window int64      // start
}

// Host counts what is reported of a host.
type Host struct {
	Window  int64 // start of the window that Reports counts
	Reports int   // addresses reported in it
	Waiting int   // its look-ups in Pending
}

// Server is a DNS server outside the local network. Its times are stream times
// of the log of DNS, so they do not depend on how far that is ahead of others.
type Server struct {
	Answers int
	KnownAt int64 // when there were enough answers; 0: not yet
}

// Pair is a host and a DNS server that it asked.
type Pair struct{ Src, Dst netip.Addr }

// Asked says what is due of a Pair.
type Asked struct {
	Due      int64 // when the latest Query is judged
	Reported int64 // start of the window in which it was reported last, plus 1
}

// Query is the first look-up at a server that waits to be judged.
type Query struct {
	Pair
	Time  int64 // unix ns
	UID   string
	Port  uint16
	Proto flow.Proto
}

type rule struct {
	max, answers int
}

var (
	_ modules.Rule[State]       = rule{}
	_ modules.TimerFirer[State] = rule{}
	_ modules.Chooser           = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MaxPerWindow < 1 || c.MaxPerWindow > 1000 {
		return nil, fmt.Errorf("max_per_window: %d is not in 1..1000", c.MaxPerWindow)
	}
	if c.DNSAnswers < 1 || c.DNSAnswers > 1000 {
		return nil, fmt.Errorf("dns_answers: %d is not in 1..1000", c.DNSAnswers)
	}
	return rule{c.MaxPerWindow, c.DNSAnswers}, nil
}

// Wants implements modules.Chooser: both addresses must be private ones of
// IPv4. ICMP is left out, because routers on the way answer from addresses of
// their own, and so is DHCP, which serves hosts that have no address yet.
func (rule) Wants(f *flow.Flow) bool {
	if !f.Dst.Is4() || !f.Src.Is4() || !f.Dst.IsPrivate() || !f.Src.IsPrivate() {
		return false
	}
	if f.Kind == flow.DNS {
		return f.DstPort != 5353 && f.DstPort != 5355 && f.DstPort != 137
	}
	return f.HasPorts && (f.Proto == flow.TCP || f.Proto == flow.UDP) && f.DstPort != 67 && f.DstPort != 68
}

// Handle implements modules.Rule. Both addresses in the home networks is what
// nearly all records have.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	n := cx.Network()
	if n.IsHome(f.Src) && n.IsHome(f.Dst) || !r.Wants(f) {
		return
	}
	switch {
	case !hasHome(n), f.Proto == flow.UDP && f.Dst.As4()[3] == 255: // of a broadcast address nothing can be said
	case f.Kind == flow.DNS:
		if !n.IsHome(f.Dst) {
			r.dns(cx, st, f)
		}
	case !n.IsHome(f.Src):
		// A host that is outside itself may well talk to others there.
		if n.IsHome(f.Dst) && r.first(st, Seen{Src: f.Src, Window: cx.Window().Start}) {
			r.report(cx, of(f), "", fmt.Sprintf(
				"%s, which is outside the local network %s, connected to %s port %d/%s", f.Src, homes(n), f.Dst, f.DstPort, f.Proto))
		}
	case f.DstPort != 53:
		if r.first(st, Seen{Src: f.Src, Dst: f.Dst, Window: cx.Window().Start}) {
			r.report(cx, of(f), "to "+f.Dst.String(), fmt.Sprintf(
				"%s connected to the private address %s port %d/%s, which is outside the local network %s",
				f.Src, f.Dst, f.DstPort, f.Proto, homes(n)))
		}
	}
}

// of returns what is kept, and reported, of a record.
func of(f *flow.Flow) Query {
	return Query{Pair{f.Src, f.Dst}, f.Time, strings.Clone(f.UID), f.DstPort, f.Proto}
}

// first reports whether the address is to be told in its window.
func (r rule) first(st *State, s Seen) bool {
	if _, ok := st.Seen.Get(s); ok {
		return false
	}
	h, _ := st.Hosts.Get(s.Src)
	if h.Window != s.Window {
		h.Window, h.Reports = s.Window, 0
	}
	if h.Reports >= r.max {
		return false
	}
	h.Reports++
	st.Hosts.Put(s.Src, h, maxHosts)
	st.Seen.Put(s, true, maxSeen)
	return true
}

// dns notes a look-up at an outside server. A server that goes on answering is
// the one the network uses; one that was asked once or twice is judged.
func (r rule) dns(cx *modules.Context, st *State, f *flow.Flow) {
	s, _ := st.Servers.Get(f.Dst)
	if s.KnownAt != 0 {
		return
	}
	if f.DNS.Response && f.DNS.RCode != "" || len(f.DNS.Answers) > 0 {
		if s.Answers++; s.Answers >= r.answers {
			s.KnownAt = cx.Now()
		}
		st.Servers.Put(f.Dst, s, maxServers)
	}
	p := Pair{f.Src, f.Dst}
	a, _ := st.Asked.Get(p)
	h, _ := st.Hosts.Get(f.Src)
	if cx.Now() < a.Due || h.Waiting >= maxWaiting || len(st.Pending) >= maxAsked {
		return
	}
	a.Due = cx.Now() + int64(learn)
	st.Asked.Put(p, a, maxAsked)
	h.Waiting++
	st.Hosts.Put(f.Src, h, maxHosts)
	if st.Pending == nil {
		st.Pending = make(map[uint64]Query)
	}
	st.Next++
	st.Pending[st.Next] = of(f)
	cx.After(learn, st.Next)
}

// Fire implements modules.TimerFirer: it judges a DNS server.
func (r rule) Fire(cx *modules.Context, st *State, key uint64) {
	q, ok := st.Pending[key]
	if !ok {
		return
	}
	delete(st.Pending, key)
	if h, _ := st.Hosts.Get(q.Src); h.Waiting > 0 {
		h.Waiting--
		st.Hosts.Put(q.Src, h, maxHosts)
	}
	s, _ := st.Servers.Get(q.Dst)
	a, _ := st.Asked.Get(q.Pair)
	n := cx.Network()
	mark := cx.WindowAt(q.Time).Start + 1
	if s.KnownAt != 0 && s.KnownAt < cx.Now() || !hasHome(n) || n.IsHome(q.Dst) || a.Reported == mark {
		return
	}
	a.Reported = mark
	st.Asked.Put(q.Pair, a, maxAsked)
	r.report(cx, q, "dns "+q.Dst.String(), fmt.Sprintf(
		"%s asked the DNS server %s, which is outside the local network %s and did not give %d answers within %d minutes",
		q.Src, q.Dst, homes(n), r.answers, int(learn.Minutes())))
}

// hasHome reports whether a home network of IPv4 is known.
func hasHome(n *profile.Network) bool {
	for _, p := range n.Home {
		if p.Addr().Is4() {
			return true
		}
	}
	return false
}

// homes lists the home networks of IPv4.
func homes(n *profile.Network) string {
	var l []string
	for _, p := range n.Home {
		if p.Addr().Is4() {
			l = append(l, p.String())
		}
	}
	return strings.Join(l, ", ")
}

// configured reports whether the home networks were told and not guessed. The
// engine takes the whole private block of the first private source for home
// when none is configured, and then another block is as likely to be home too.
func configured(n *profile.Network) bool {
	blocks := 0
	for _, p := range n.Home {
		if p.Addr().Is4() {
			if !isBlock(p) {
				return true
			}
			blocks++
		}
	}
	return blocks > 1
}

// isBlock reports whether p is one of the three private blocks as a whole.
func isBlock(p netip.Prefix) bool {
	switch p.Masked().String() {
	case "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16":
		return true
	}
	return false
}

func (rule) report(cx *modules.Context, q Query, subject, text string) {
	e := evidence.Evidence{
		Type: Different, Profile: q.Src, Time: q.Time, Level: evidence.Info, Confidence: 0.3,
		Attacker: evidence.IPEntity(q.Src, evidence.Src, 0), Victim: evidence.IPEntity(q.Dst, evidence.Dst, q.Port),
		Description: text, Proto: q.Proto.String(), DstPort: q.Port, Count: 1, Subject: subject, Step: 1,
	}
	if configured(cx.Network()) {
		e.Level, e.Confidence = evidence.Low, 0.5
	}
	if q.UID != "" {
		e.UIDs = []string{q.UID}
	}
	cx.Emit(e)
}
