// Package connnodns reports connections to public addresses that no DNS
// answer has named.
package connnodns

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// WithoutDNS is the evidence this module emits.
const WithoutDNS evidence.Type = "CONNECTION_WITHOUT_DNS"

// Config holds the settings.
type Config struct {
	// MaxPerSource bounds the addresses reported for one host in a window, 1 to 10000.
	MaxPerSource int `yaml:"max_per_source"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "connnodns",
	Doc:   "connections to public addresses that no DNS answer has named",
	Scope: modules.Network,
	Kinds: flow.Of(flow.Conn, flow.DNS),
	Needs: flow.Of(flow.Conn, flow.DNS),
	Emits: []evidence.Spec{{
		Type: WithoutDNS, Level: evidence.Info, Tactic: evidence.Context, MITRE: []string{"T1071"}, Subject: "address", Over: "24 h",
		Doc: "a host of the network connected to a public address that no DNS answer of the last 24 hours has named",
	}},
}, Config{MaxPerSource: 50}, New)

const (
	// wait is how long after its start a connection is judged: the answer that
	// led to it may be logged a little later.
	wait = int64(15 * time.Second)
	// memory is how long an answer explains connections, in seconds.
	memory = 24 * 3600
	// maxAnswers bounds the addresses remembered from answers: some days of
	// what a few thousand hosts look up.
	maxAnswers = 1 << 17
	// maxPending bounds the connections that wait to be judged: 15 seconds of a
	// host that scans 4,000 addresses a second.
	maxPending = 1 << 16
	// maxHeld bounds those that wait for the first DNS record of all. A log
	// that does not exist yet is small, or late by minutes.
	maxHeld = 1 << 14
	// maxReported bounds the pairs of hosts remembered as reported.
	maxReported = 1 << 16
	// giveUp is how much longer a connection that waited for the first DNS
	// record waits for the others. They judge it sooner when they come.
	giveUp = int64(time.Hour)
)

// State is what the module remembers of the network.
type State struct {
	Answers  modules.RecentTable[Span] // by hash of the address; a clash hides evidence of level info
	Earlier  modules.RecentTable[Span] // what came before the span in Answers
	FirstDNS int64                     // start of the first DNS record, unix ns
	SawDNS   bool
	DNSClock int64 // stream time of the DNS log, unix ns

	Pending  map[uint64]Conn            // by running number
	Next     uint64                     // running number of the next
	Held     []uint64                   // of Pending, those that came before the first DNS record, oldest first
	Reported modules.RecentTable[bool]  // by hash of host, address and window
	Sources  modules.RecentTable[int32] // reports, by hash of host and window
	Dropped  int64                      // connections not judged because Pending was full
}

// Span says when answers named an address, in whole seconds of unix time:
// within [From, To] never more than 24 hours went by without one. So some
// answer lies in the 24 hours before t exactly if t is in [From, To+24h]. The
// one before it is kept for connections that are judged late. To is 0 when
// there is none.
type Span struct{ From, To uint32 }

// Conn is a connection that waits to be judged.
type Conn struct {
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Proto            flow.Proto
	Time             int64 // start, unix ns
	Due              int64 // when it is judged, unix ns: 15 s after its start, or at once when it was logged later
	UID              string
}

type rule struct {
	max int
	log *slog.Logger
}

var (
	_ modules.Rule[State]       = rule{}
	_ modules.TimerFirer[State] = rule{}
	_ modules.Chooser           = rule{}
)

// New checks the config and returns the rule.
func New(c Config, env modules.Env) (modules.Rule[State], error) {
	if c.MaxPerSource < 1 || c.MaxPerSource > 10_000 {
		return nil, fmt.Errorf("max_per_source: %d is not between 1 and 10000", c.MaxPerSource)
	}
	return rule{max: c.MaxPerSource, log: env.Log}, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	return f.Kind == flow.DNS || !f.Proto.IsICMP() && profile.IsPublic(f.Dst) && !nameServer(f)
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if f.Kind == flow.DNS {
		r.dns(cx, st, f)
		return
	}
	if f.Kind == flow.Conn && r.Wants(f) {
		r.conn(cx, st, f)
	}
}

func (r rule) conn(cx *modules.Context, st *State, f *flow.Flow) {
	if !st.SawDNS && len(st.Held) >= maxHeld {
		// Without any DNS record this goes on for ever. Should the log of DNS
		// turn up, it begins with the oldest, so those are kept.
		st.Dropped++
		return
	}
	if !isHome(cx.Network(), f.Src) || cx.Network().IsDHCPServer(f.Dst) {
		return
	}
	due := f.Time + wait
	if st.SawDNS && (due < st.FirstDNS || st.named(f.Dst, due)) {
		return
	}
	if _, pair := keys(f.Src, f.Dst, cx.Window().Start); st.Reported.Get(pair) != nil {
		return
	}
	if len(st.Pending) >= maxPending {
		if st.Dropped++; st.Dropped&(st.Dropped-1) == 0 {
			r.log.Warn("too many connections without DNS at a time", "not_judged", st.Dropped)
		}
		return
	}
	if st.Pending == nil {
		st.Pending = make(map[uint64]Conn)
	}
	key := st.Next
	st.Next++
	c := Conn{
		Src: f.Src, Dst: f.Dst, SrcPort: f.SrcPort, DstPort: f.DstPort, Proto: f.Proto,
		Time: f.Time, Due: max(due, cx.Now()+1), UID: strings.Clone(f.UID),
	}
	st.Pending[key] = c
	if !st.SawDNS {
		st.Held = append(st.Held, key)
		return
	}
	cx.After(time.Duration(c.Due-cx.Now()), key)
}

// dns notes the addresses of an answer.
func (r rule) dns(cx *modules.Context, st *State, f *flow.Flow) {
	switch f.DstPort {
	case 137, 5353, 5355: // NetBIOS, mDNS and LLMNR do not name public hosts
		return
	}
	first := !st.SawDNS
	if first {
		st.SawDNS, st.FirstDNS = true, f.Time
	}
	st.DNSClock = cx.Now()
	for _, s := range f.DNS.Answers {
		if a, ok := modules.Address(s); ok && profile.IsPublic(a) {
			st.answer(modules.Hash(a, 0), sec(f.Time))
		}
	}
	if first {
		st.release(cx)
	}
	r.judgeHeld(cx, st, st.DNSClock-1)
}

// judgeHeld judges the held connections that are due by time t, unix ns. They
// do not rely on timers alone: a DNS log that turns up late brings records
// from before the time that all logs had reached.
func (r rule) judgeHeld(cx *modules.Context, st *State, t int64) {
	for len(st.Held) > 0 {
		key := st.Held[0]
		c := st.Pending[key]
		if c.Due > t {
			return
		}
		delete(st.Pending, key)
		st.Held = st.Held[1:]
		r.judge(cx, st, c)
	}
	st.Held = nil
}

// release starts the clock for the connections that came before the first DNS
// record, and forgets those that cannot be judged.
func (st *State) release(cx *modules.Context) {
	var held []uint64
	for _, key := range st.Held {
		c := st.Pending[key]
		if c.Time+wait < st.FirstDNS {
			delete(st.Pending, key)
			continue
		}
		held = append(held, key)
		cx.After(time.Duration(max(c.Due-cx.Now(), 0)+giveUp), key)
	}
	// In the order in which timers would have judged them.
	slices.SortFunc(held, func(a, b uint64) int {
		return cmp.Or(cmp.Compare(st.Pending[a].Due, st.Pending[b].Due), cmp.Compare(a, b))
	})
	st.Held = held
}

// Fire implements modules.TimerFirer: it judges a connection.
func (r rule) Fire(cx *modules.Context, st *State, key uint64) {
	c, ok := st.Pending[key]
	if !ok {
		return
	}
	// Those that are due before it come first, so that the same one of a pair
	// is reported whether it was held or not.
	r.judgeHeld(cx, st, c.Due)
	if _, ok := st.Pending[key]; ok {
		delete(st.Pending, key)
		r.judge(cx, st, c)
	}
}

func (r rule) judge(cx *modules.Context, st *State, c Conn) {
	if st.named(c.Dst, c.Time+wait) {
		return
	}
	source, pair := keys(c.Src, c.Dst, cx.WindowAt(c.Time).Start)
	if st.Reported.Get(pair) != nil {
		return
	}
	n := st.Sources.Put(source, maxReported)
	if int(*n) >= r.max {
		return
	}
	*n++
	*st.Reported.Put(pair, maxReported) = true
	more := ""
	if int(*n) == r.max {
		more = fmt.Sprintf(" Further addresses of %s in this window are not reported.", c.Src)
	}
	cx.Emit(evidence.Evidence{
		Type: WithoutDNS, Profile: c.Src, Time: c.Time,
		Attacker: evidence.IPEntity(c.Src, evidence.Src, c.SrcPort), Victim: evidence.IPEntity(c.Dst, evidence.Dst, c.DstPort),
		Level: evidence.Info, Confidence: 0.8,
		Description: fmt.Sprintf("%s connected to %s port %s, which no DNS answer of the last 24 hours has named.%s",
			c.Src, c.Dst, portProto(c), more),
		Proto: c.Proto.String(), SrcPort: c.SrcPort, DstPort: c.DstPort,
		UIDs: modules.UID(c.UID), Count: 1, Subject: c.Dst.String(), Step: 1,
	})
}

func portProto(c Conn) string {
	s := strconv.Itoa(int(c.DstPort))
	if p := c.Proto.String(); p != "" {
		s += "/" + p
	}
	return s
}

// named reports whether an answer named a in the 24 hours before t, unix ns.
func (st *State) named(a netip.Addr, t int64) bool {
	k, at := modules.Hash(a, 0), sec(t)
	if sp := st.Answers.Get(k); sp == nil || sp.covers(at) {
		return sp != nil
	}
	sp := st.Earlier.Get(k)
	return sp != nil && sp.covers(at)
}

func (sp Span) covers(t uint32) bool {
	return sp.To != 0 && sp.From <= t && int64(t) <= int64(sp.To)+memory
}

// answer notes an answer at second t. Answers come almost in order; one that
// is older than both spans is not noted.
func (st *State) answer(k, t uint32) {
	sp := st.Answers.Put(k, maxAnswers)
	if sp.To != 0 && sp.From <= t && t <= sp.To {
		return
	}
	switch early := st.Earlier.Get(k); {
	case sp.To == 0:
		*sp = Span{t, t}
	case int64(t) > int64(sp.To)+memory:
		*st.Earlier.Put(k, maxAnswers) = *sp
		*sp = Span{t, t}
		return
	case int64(t) >= int64(sp.From)-memory:
		*sp = Span{min(sp.From, t), max(sp.To, t)}
	case early == nil || early.To == 0:
		*st.Earlier.Put(k, maxAnswers) = Span{t, t}
	case int64(t) <= int64(early.To)+memory && int64(t) >= int64(early.From)-memory:
		*early = Span{min(early.From, t), max(early.To, t)}
	}
	if early := st.Earlier.Get(k); early != nil && early.To != 0 && int64(early.To)+memory >= int64(sp.From) {
		sp.From = min(sp.From, early.From)
		*early = Span{}
	}
}

// sec returns whole seconds; flow.MaxTime keeps them within 32 bits.
func sec(ns int64) uint32 {
	return uint32(min(max(ns/int64(time.Second), 1), 1<<32-2))
}

// keys returns what a host and a pair of hosts are kept under in a window.
func keys(src, dst netip.Addr, window int64) (source, pair uint32) {
	source = modules.Hash(src, uint64(window))
	return source, modules.Hash(dst, uint64(source))
}

// isHome reports whether a is a host of the monitored network: in the home
// networks, or private as long as none is known.
func isHome(n *profile.Network, a netip.Addr) bool {
	if n == nil || len(n.Home) == 0 {
		return profile.IsPrivate(a)
	}
	return n.IsHome(a)
}

// nameServer reports whether the connection is a look-up: resolvers are
// configured by address, so no answer names them.
func nameServer(f *flow.Flow) bool {
	return f.DstPort == 53 || f.DstPort == 853 || strings.Contains(f.Service, "dns") || f.Service == "icmp"
}
