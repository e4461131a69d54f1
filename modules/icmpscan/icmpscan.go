// Package icmpscan reports hosts that ask many others by ICMP: echo, timestamp
// and address mask requests.
package icmpscan

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// The evidence this module emits.
const (
	Address   evidence.Type = "ICMP_ADDRESS_SCAN"
	Timestamp evidence.Type = "ICMP_TIMESTAMP_SCAN"
	Mask      evidence.Type = "ICMP_ADDRESS_MASK_SCAN"
)

// Config holds the threshold.
type Config struct {
	MinHosts int64 `yaml:"min_hosts"` // hosts asked in a window for the first report
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "icmpscan",
	Doc:   "many hosts asked by ICMP echo, timestamp or address mask requests",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.Conn),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{
		{Type: Address, Level: evidence.Medium, Tactic: evidence.Discovery, MITRE: []string{"T1018"}, Subject: "host", Over: "window", Method: "Recon", Doc: "echo requests to many hosts"},
		{Type: Timestamp, Level: evidence.Medium, Tactic: evidence.Discovery, MITRE: []string{"T1018"}, Subject: "host", Over: "window", Method: "Recon", Doc: "timestamp requests to many hosts"},
		{Type: Mask, Level: evidence.Medium, Tactic: evidence.Discovery, MITRE: []string{"T1018", "T1016"}, Subject: "host", Over: "window", Method: "Recon", Doc: "address mask requests to many hosts"},
	},
}, Config{MinHosts: 6}, New)

// maxSeen bounds the hosts that one sweep tells apart: 65,536 fingerprints
// take about 1.2 MB.
const maxSeen = 1 << 16

// The sorts of sweeps.
const (
	echo = iota
	timestamp
	mask
	none
)

// sweeps say how each sweep is told.
var sweeps = [none]struct {
	typ  evidence.Type
	what string
}{{Address, "echo"}, {Timestamp, "timestamp"}, {Mask, "address mask"}}

// State is what a host asked in one window.
type State struct {
	Sweeps []Sweep // at most one of each sort, in the order of their first request
}

// Sweep counts the hosts asked by one sort of request.
type Sweep struct {
	// Seen holds 32-bit fingerprints of the hosts. When it is full, Depth
	// grows by one and only the fingerprints divisible by 2^Depth stay and are
	// let in, each standing for 2^Depth hosts. Repeats is true for a host
	// asked before.
	Seen  modules.Table[bool]
	Depth uint8
	Sort  uint8
	Hosts int64 // distinct hosts asked
	// Silent counts those of Hosts whose first flow had no answer.
	Silent int64
	Flows  int64
	Step   int
	Latest []Ask // ring of the latest new hosts
	Next   int
}

// Ask is the first request to a host.
type Ask struct {
	Time int64 // unix ns
	UID  string
}

type rule struct{ c Config }

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MinHosts < 2 || c.MinHosts > maxSeen {
		return nil, fmt.Errorf("min_hosts: %d is not in 2..%d", c.MinHosts, maxSeen)
	}
	return rule{c}, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	return f.Proto.IsICMP()
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if !f.Proto.IsICMP() || cx.Role() != profile.Client {
		return
	}
	kind := request(f)
	if kind == none || !profile.IsScannable(f.Dst) {
		return
	}
	s := st.sweep(kind)
	s.Flows++
	n := s.admit(modules.Hash(f.Dst, 0))
	if n == 0 {
		return
	}
	s.Hosts += n
	if f.RespPkts == 0 && f.OrigPkts > 0 {
		s.Silent += n
	}
	s.remember(Ask{Time: f.Time, UID: strings.Clone(f.UID)})
	step := modules.FineStep(s.Hosts, r.c.MinHosts)
	if step <= s.Step {
		return
	}
	s.Step = step
	about := ""
	if s.Depth > 0 {
		about = "about "
	}
	level, c := s.judge(f.Time, r.c.MinHosts)
	cx.Emit(evidence.Evidence{
		Type: sweeps[kind].typ, Level: level, Confidence: c,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
		Description: fmt.Sprintf("icmp %s scan: %s sent %s requests to %s%d hosts, %d of them silent, confidence %.2f",
			sweeps[kind].what, f.Src, sweeps[kind].what, about, s.Hosts, s.Silent, c),
		Proto: f.Proto.String(), Count: s.Flows, Step: step,
		Subject: sweeps[kind].what,
		UIDs:    s.recent(),
	})
}

// sweep returns the sweep of a sort, valid until the next call.
func (st *State) sweep(sort int) *Sweep {
	for i := range st.Sweeps {
		if s := &st.Sweeps[i]; int(s.Sort) == sort {
			return s
		}
	}
	st.Sweeps = append(st.Sweeps, Sweep{Sort: uint8(sort)})
	return &st.Sweeps[len(st.Sweeps)-1]
}

// request returns the sweep that a flow belongs to, none when it is not led by
// a request. A decoder gives the ICMP type as SrcPort; Argus has the code in
// the upper byte.
func request(f *flow.Flow) int {
	if !f.HasPorts {
		if f.State == flow.ICMPEcho {
			return echo
		}
		return none
	}
	t := f.SrcPort & 0xff
	if f.Proto == flow.ICMP6 || f.Dst.Is6() && !f.Dst.Is4In6() { // Zeek writes icmp for both
		if t == 128 {
			return echo
		}
		return none
	}
	switch t {
	case 8:
		return echo
	case 13:
		return timestamp
	case 17:
		return mask
	}
	return none
}

// admit returns how many new hosts the fingerprint stands for: 0 when it was
// seen before or lies outside the sample.
func (s *Sweep) admit(p uint32) int64 {
	if s.Seen.Get(p) != nil || p&(1<<s.Depth-1) != 0 {
		return 0
	}
	for s.Seen.Len() >= maxSeen && s.Depth < 31 {
		s.Depth++
		s.Seen.Keep(func(k uint32, _ *bool) bool { return k&(1<<s.Depth-1) == 0 })
	}
	if p&(1<<s.Depth-1) != 0 {
		return 0
	}
	*s.Seen.Put(p) = true
	return 1 << s.Depth
}

func (s *Sweep) remember(a Ask) {
	if len(s.Latest) < evidence.MaxUIDs {
		s.Latest = append(s.Latest, a)
		return
	}
	s.Latest[s.Next] = a
	s.Next = (s.Next + 1) % len(s.Latest)
}

// recent returns the uids kept, the oldest first.
func (s *Sweep) recent() []string {
	var u []string
	for i := range s.Latest {
		if a := s.Latest[(s.Next+i)%len(s.Latest)]; a.UID != "" {
			u = append(u, a.UID)
		}
	}
	return u
}

const (
	// burstSpan is the time in which a program that walks through addresses
	// asks many, and a person or a monitoring system with a list asks few.
	burstSpan = 10 * int64(time.Second)
	// sureHosts is the number of hosts from which a burst is a sweep, and
	// sureSilent the share of them that has to be silent: who pings what is
	// known gets answers.
	sureHosts  = 12
	sureSilent = 0.25
)

// judge returns what the sweep is worth. By number alone it is the
// reference's: medium, 1 at 255 hosts, 0.004 less for each one below, but never
// under 0.3, for it was 0 when it mattered first; low when nearly all hosts
// answer. A burst into silence is high, and certain from sureHosts on.
func (s *Sweep) judge(now, first int64) (evidence.Level, float64) {
	level, c := evidence.Medium, min(1, max(0.3, float64(s.Hosts-255)/250+1))
	n := int64(0)
	for i := range s.Latest {
		if t := s.Latest[i].Time; t > now-burstSpan && t < now+burstSpan {
			n++
		}
	}
	silent := min(1, float64(s.Silent)/float64(s.Hosts)/sureSilent)
	if b := min(1, float64(s.Hosts)/sureHosts) * silent; n >= min(first, int64(len(s.Latest))) && b >= 0.5 {
		level, c = evidence.High, max(c, b)
	} else if 10*s.Silent < s.Hosts {
		level = evidence.Low // who asks hosts that answer has a list of them
	}
	return level, math.Round(100*c) / 100
}
