// Package raresig reports programs that one host of the network alone uses,
// for one destination alone.
package raresig

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Rare is the evidence this module emits.
const Rare evidence.Type = "RARE_SIGNATURE"

// Config holds the thresholds.
type Config struct {
	// MinHosts is how many hosts of the network must have shown signatures of
	// the same sort before that of one can be rare, 2 to 50.
	MinHosts int `yaml:"min_hosts"`
	// MinUses is how often a signature must have been used, 2 to 1000.
	MinUses int `yaml:"min_uses"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "raresig",
	Doc:   "TLS fingerprints and user agents of one host for one destination",
	Scope: modules.Network,
	Kinds: flow.Of(flow.SSL, flow.QUIC, flow.HTTP),
	Emits: []evidence.Spec{{
		Type: Rare, Level: evidence.Low, Tactic: evidence.CommandAndControl, MITRE: []string{"T1071.001"}, Subject: "signature", Over: "window",
		Doc: "a TLS fingerprint or user agent that only one host of the network uses, and towards one destination only",
	}},
}, Config{MinHosts: 3, MinUses: 5}, New)

const (
	// maxSigs bounds the signatures remembered. A program has one or a few; a
	// browser that shuffles its extensions has a new JA3 each time, and those
	// that are used once are forgotten first.
	maxSigs = 1 << 14
	// maxDests bounds the destinations remembered.
	maxDests = 1 << 14
	// maxCandidates bounds the signatures that may yet turn out to be rare.
	maxCandidates = 1024
	// maxHosts bounds the hosts whose first signature is remembered. More than
	// min_hosts are not needed.
	maxHosts = 64
	// maxText bounds a user agent, in bytes.
	maxText = 150
)

// The sorts of signature, which are counted apart: one host may have sent no
// request in clear text at all.
const (
	ja4 = iota
	ja3
	agent
	sorts
)

// State is what the module remembers of the network.
type State struct {
	Sigs       modules.RecentTable[Sig]  // by hash of sort and signature
	Dests      modules.RecentTable[Dest] // by hash of sort and address
	Hosts      [sorts][]Host             // that have shown a signature, the first of them
	Candidates map[uint64]Candidate      // by running number
	Next       uint64                    // running number of the next
	Dropped    uint64                    // signatures not judged because Candidates was full
}

// Sig is a signature. Hashes stand for the host, the address and the name.
type Sig struct {
	Host, Dst, Name uint32
	Common          int64  // stream time at which a second of one of them came, unix ns; 0: never
	Candidate       uint64 // the latest, by running number plus 1; 0: none
	Due             int64  // when it is judged
	Told            int64  // start of the window it was reported in last, plus 1; 0: none
}

// Dest is a destination.
type Dest struct {
	Host   uint32 // who was first there
	Shared int64  // stream time at which a second host came, unix ns; 0: never
}

// Host is a host that has shown a signature.
type Host struct {
	Addr netip.Addr
	At   int64 // stream time, unix ns
}

// Candidate is a signature that may turn out to be rare.
type Candidate struct {
	Sort     int
	Text     string
	Key      uint32 // in Sigs
	Src, Dst netip.Addr
	Port     uint16
	Proto    flow.Proto
	Name     string // of the destination; "" when it has none
	Due      int64  // when it is judged, unix ns
	Time     int64  // of its last use, unix ns
	N        int64  // uses
	UIDs     []string
}

// maxUIDs bounds the uids of one candidate: they show, they need not prove.
const maxUIDs = 20

type rule struct {
	hosts int
	uses  int64
	width int64 // ns, how long a signature is watched
	log   *slog.Logger
}

var (
	_ modules.Rule[State]       = rule{}
	_ modules.TimerFirer[State] = rule{}
	_ modules.Chooser           = rule{}
)

// maxWidth is how long a signature is watched at most: windows may be endless.
const maxWidth = 24 * time.Hour

// New checks the config and returns the rule.
func New(c Config, env modules.Env) (modules.Rule[State], error) {
	if c.MinHosts < 2 || c.MinHosts > maxHosts-14 {
		return nil, fmt.Errorf("min_hosts: %d is not between 2 and %d", c.MinHosts, maxHosts-14)
	}
	if c.MinUses < 2 || c.MinUses > 1000 {
		return nil, fmt.Errorf("min_uses: %d is not between 2 and 1000", c.MinUses)
	}
	width := env.Width
	if width <= 0 || width > maxWidth {
		width = maxWidth
	}
	return rule{hosts: c.MinHosts, uses: int64(c.MinUses), width: int64(width), log: env.Log}, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	if f.Kind == flow.HTTP {
		return f.HTTP.UserAgent != ""
	}
	return f.SSL.JA3 != "" || f.SSL.JA4 != ""
}

// signature returns the best signature of a record and its sort, and the name
// that the client asked for. JA4 is preferred: it does not change when a
// browser shuffles its extensions.
func signature(f *flow.Flow) (sort int, text, name string) {
	switch {
	case f.Kind == flow.HTTP:
		return agent, f.HTTP.UserAgent, f.HTTP.Host
	case f.SSL.JA4 != "":
		return ja4, f.SSL.JA4, f.SSL.ServerName
	}
	return ja3, f.SSL.JA3, f.SSL.ServerName
}

// Handle implements modules.Rule. All is noted with its time, so that a log
// that is ahead changes nothing of what is true when a signature is judged.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if !f.Src.IsValid() || !f.Dst.IsValid() || !(cx.Network().IsHome(f.Src) || profile.IsPrivate(f.Src)) {
		return
	}
	now := cx.Now()
	sort, text, name := signature(f)
	host, dst := modules.Hash(f.Src, 0), modules.Hash(f.Dst, 0)
	st.host(sort, f.Src, now)
	d := st.Dests.Put(modules.Hash(f.Dst, uint64(sort+1)), maxDests)
	switch {
	case d.Host == 0:
		d.Host = host
	case d.Host != host && d.Shared == 0:
		d.Shared = now
	}
	key := hash(text, uint32(sort+1))
	s := st.Sigs.Put(key, maxSigs)
	if s.Common != 0 {
		return
	}
	at := hash(name, 1)
	if s.Host == 0 {
		s.Host, s.Dst, s.Name = host, dst, at
	}
	if s.Host != host || s.Dst != dst || s.Name != at {
		s.Common = now
		return
	}
	if profile.IsPublic(f.Dst) && !cx.Network().IsHome(f.Dst) {
		r.use(cx, st, s, f, Candidate{Sort: sort, Text: text, Key: key, Name: name})
	}
}

// host notes that a host has shown a signature of a sort.
func (st *State) host(sort int, a netip.Addr, now int64) {
	l := st.Hosts[sort]
	if len(l) == maxHosts {
		return
	}
	for i := range l {
		if l[i].Addr == a {
			return
		}
	}
	st.Hosts[sort] = append(l, Host{a, now})
}

// use counts a use of a signature that one host has for one destination.
func (r rule) use(cx *modules.Context, st *State, s *Sig, f *flow.Flow, c Candidate) {
	now := cx.Now()
	if s.Candidate == 0 || now > s.Due {
		if len(st.Candidates) >= maxCandidates {
			if st.Dropped++; st.Dropped&(st.Dropped-1) == 0 {
				r.log.Debug("too many signatures may turn out to be rare", "not_judged", st.Dropped)
			}
			return
		}
		if st.Candidates == nil {
			st.Candidates = make(map[uint64]Candidate)
		}
		c.Text, c.Name = strings.Clone(modules.Clip(c.Text, maxText)), strings.Clone(modules.Clip(c.Name, maxText))
		c.Src, c.Dst, c.Port, c.Proto, c.Due = f.Src, f.Dst, f.DstPort, f.Proto, now+r.width
		st.Next++
		s.Candidate, s.Due = st.Next, c.Due
		st.Candidates[st.Next] = c
		cx.After(time.Duration(r.width)+1, st.Next)
	}
	k := s.Candidate
	c, ok := st.Candidates[k]
	if !ok {
		return
	}
	c.N++
	c.Time = max(c.Time, f.Time)
	if f.UID != "" && len(c.UIDs) < maxUIDs {
		c.UIDs = append(c.UIDs, strings.Clone(f.UID))
	}
	st.Candidates[k] = c
}

// Fire implements modules.TimerFirer.
func (r rule) Fire(cx *modules.Context, st *State, key uint64) {
	c, ok := st.Candidates[key]
	if !ok {
		return
	}
	delete(st.Candidates, key)
	hosts := 0
	for _, h := range st.Hosts[c.Sort] {
		if h.At <= c.Due {
			hosts++
		}
	}
	if c.N < r.uses || hosts < r.hosts {
		return
	}
	s := st.Sigs.Get(c.Key)
	if s == nil || s.Common != 0 && s.Common <= c.Due {
		return
	}
	// A destination that others of the network go to is no secret of one.
	if d := st.Dests.Get(modules.Hash(c.Dst, uint64(c.Sort+1))); d == nil || d.Shared != 0 && d.Shared <= c.Due {
		return
	}
	w := cx.WindowAt(c.Time).Start + 1
	if s.Told == w {
		return
	}
	s.Told = w
	confidence, where := 0.5, netip.AddrPortFrom(c.Dst, c.Port).String()
	level := evidence.Low
	if bare(c.Name) {
		// Programs of the public ask for a name.
		level, confidence = evidence.Medium, 0.4
	} else {
		where = fmt.Sprintf("%s (%s)", c.Name, where)
	}
	what := [sorts]string{"TLS fingerprint (JA4)", "TLS fingerprint (JA3)", "user agent"}[c.Sort]
	cx.Emit(evidence.Evidence{
		Type: Rare, Profile: c.Src, Time: c.Time, Level: level, Confidence: confidence,
		Attacker: evidence.IPEntity(c.Src, evidence.Src, 0), Victim: evidence.IPEntity(c.Dst, evidence.Dst, c.Port),
		Description: fmt.Sprintf("%s alone of %s hosts uses the %s %q, and only towards %s; %d uses.",
			c.Src, many(hosts), what, c.Text, where, c.N),
		Proto: c.Proto.String(), DstPort: c.Port, UIDs: c.UIDs, Count: c.N, Subject: what + " " + c.Text, Step: 1,
	})
}

// many writes a number of hosts, of which at most maxHosts are counted.
func many(n int) string {
	if n == maxHosts {
		return "at least " + strconv.Itoa(n)
	}
	return strconv.Itoa(n)
}

// bare reports whether a client asked for no name: for nothing, or an address.
func bare(name string) bool {
	if i := strings.LastIndexByte(name, ':'); i >= 0 && strings.IndexByte(name, ':') == i {
		name = name[:i] // a port
	}
	if name == "" || strings.IndexByte(name, ':') >= 0 {
		return true
	}
	_, err := netip.ParseAddr(name)
	return err == nil
}

// hash reads eight bytes at a time, because user agents are long and every
// request has one. 0 stands for none.
func hash(s string, start uint32) uint32 {
	h := uint64(start) * 0x9e3779b97f4a7c15
	for ; len(s) >= 8; s = s[8:] {
		h = mix(h, uint64(s[0])|uint64(s[1])<<8|uint64(s[2])<<16|uint64(s[3])<<24|uint64(s[4])<<32|uint64(s[5])<<40|uint64(s[6])<<48|uint64(s[7])<<56)
	}
	tail := uint64(len(s)) << 56
	for i := range len(s) {
		tail |= uint64(s[i]) << (8 * i)
	}
	h = mix(h, tail)
	return cmp.Or(uint32(h>>32), 1)
}

// mix joins two hashes.
func mix(a, b uint64) uint64 {
	h := (a ^ b) * 0xff51afd7ed558ccd
	return (h ^ h>>32) * 0xc4ceb9fe1a85ec53
}
