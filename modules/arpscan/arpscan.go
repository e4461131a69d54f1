// Package arpscan reports hosts that ask by ARP for one address after the
// other, as who does not know which of them are in use.
package arpscan

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

// Scan is the evidence this module emits.
const Scan evidence.Type = "ARP_SCAN"

// Config holds the thresholds.
type Config struct {
	MinTargets int64         `yaml:"min_targets"` // different addresses asked for within the period
	Period     time.Duration `yaml:"period"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "arpscan",
	Doc:   "many addresses of the local network asked for by ARP in a short time",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.ARP),
	Needs: flow.Of(flow.ARP),
	Emits: []evidence.Spec{{
		Type: Scan, Level: evidence.Low, Tactic: evidence.Discovery, MITRE: []string{"T1018"}, Subject: "host", Over: "window", Method: "Recon",
		Doc: "a host asked by ARP for many addresses in a short time",
	}},
}, Config{MinTargets: 5, Period: 30 * time.Second}, New)

const (
	// maxMin bounds the requests that are kept to look back on.
	maxMin = 256
	// maxTargets bounds the addresses that one state tells apart: half a MB.
	maxTargets = 1 << 15
	// sweepStep is the step from which no host is left that only talks to
	// many neighbours: 16 times the first threshold.
	sweepStep = 5
)

// State is what a host asked for in one window.
type State struct {
	Last    []Ask // the newest requests, each for another address, the oldest first
	Within  bool  // the last request was part of a scan
	Targets modules.Table[bool]
	Step    int
	UIDs    []string
	First   netip.Addr // the first address of the first scan
}

// Ask is one request.
type Ask struct {
	Target netip.Addr
	Time   int64
	UID    string
}

type rule struct {
	min    int
	period int64
}

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MinTargets < 2 || c.MinTargets > maxMin {
		return nil, fmt.Errorf("min_targets: %d is not in 2..%d", c.MinTargets, maxMin)
	}
	if c.Period < time.Second || c.Period > time.Hour {
		return nil, fmt.Errorf("period: %v is not between 1s and 1h", c.Period)
	}
	return rule{int(c.MinTargets), int64(c.Period)}, nil
}

// Wants implements modules.Chooser. A request from 0.0.0.0 asks whether an
// address is free before it is used, one for the own address announces it, and
// one that goes to a single station confirms a neighbour that is known.
func (rule) Wants(f *flow.Flow) bool {
	return f.ARP.Operation == "request" && f.Src.IsValid() && !f.Src.IsUnspecified() && f.Src != f.Dst &&
		profile.IsScannable(f.Dst) && !unicast(f.DstMAC)
}

// unicast reports whether an Ethernet address in text is of one station. Some
// drivers log zeros where they mean everybody.
func unicast(mac string) bool {
	return len(mac) >= 2 && strings.IndexByte("02468aceACE", mac[1]) >= 0 && strings.Trim(mac, "0:") != ""
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if n := cx.Network(); f.Src == n.Gateway || n.GatewayMAC != "" && strings.EqualFold(f.ARP.SenderHW, n.GatewayMAC) {
		return // whoever scans from outside makes the gateway ask
	}
	st.ask(f, r.min)
	first := st.Last[0].Time
	for _, a := range st.Last {
		first = min(first, a.Time) // the log may be out of order by a little
	}
	if len(st.Last) < r.min || f.Time-first > r.period {
		st.Within = false
		return
	}
	if st.Within {
		st.count(st.Last[len(st.Last)-1])
	} else {
		for _, a := range st.Last {
			st.count(a)
		}
	}
	st.Within = true
	n := int64(st.Targets.Len())
	step := modules.Step(n, int64(r.min))
	if step <= st.Step {
		return
	}
	st.Step = step
	level, more := evidence.Low, ""
	if step >= sweepStep {
		level = evidence.Medium
	}
	if n >= maxTargets {
		more = " or more"
	}
	cx.Emit(evidence.Evidence{
		Type: Scan, Level: level, Confidence: min(0.8, float64(2*step)/10),
		Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
		Description: fmt.Sprintf("%s scanned its network by ARP: it asked for %d%s different addresses, from %s to %s, each %d of them within %v",
			f.Src, n, more, st.First, f.Dst, r.min, time.Duration(r.period)),
		Proto: "arp", Count: n, UIDs: append([]string(nil), st.UIDs...), Subject: "arp", Step: step,
	})
}

// ask notes a request. One for an address asked for before takes its place.
func (st *State) ask(f *flow.Flow, limit int) {
	for i := range st.Last {
		if st.Last[i].Target == f.Dst {
			a := st.Last[i]
			copy(st.Last[i:], st.Last[i+1:])
			a.Time = f.Time
			st.Last[len(st.Last)-1] = a
			return
		}
	}
	if len(st.Last) == limit {
		copy(st.Last, st.Last[1:])
		st.Last = st.Last[:limit-1]
	}
	st.Last = append(st.Last, Ask{Target: f.Dst, Time: f.Time, UID: strings.Clone(f.UID)})
}

// count adds the address of a request to those that were scanned.
func (st *State) count(a Ask) {
	h := modules.Hash(a.Target, 0)
	if st.Targets.Get(h) != nil || st.Targets.Len() >= maxTargets {
		return
	}
	*st.Targets.Put(h) = true
	if !st.First.IsValid() {
		st.First = a.Target
	}
	if a.UID != "" && len(st.UIDs) < evidence.MaxUIDs {
		st.UIDs = append(st.UIDs, a.UID)
	}
}
