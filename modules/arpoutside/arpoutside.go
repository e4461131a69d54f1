// Package arpoutside reports hosts that ask by ARP for addresses that cannot
// lie in their network.
package arpoutside

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Outside is the evidence this module emits.
const Outside evidence.Type = "ARP_OUTSIDE_LOCALNET"

// Config has no settings.
type Config struct{}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "arpoutside",
	Doc:   "addresses outside of the local network asked for by ARP",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.ARP),
	Needs: flow.Of(flow.ARP),
	Emits: []evidence.Spec{{
		Type: Outside, Level: evidence.Low, Tactic: evidence.Discovery, MITRE: []string{"T1016", "T1018"}, Subject: "host", Over: "window",
		Doc: "a host asked by ARP for an address outside of the local network",
	}},
}, Config{}, New)

// maxTargets bounds the addresses told apart in one state. More of them say
// nothing new.
const maxTargets = 1024

// State is what a host asked for in one window.
type State struct {
	Targets map[netip.Addr]bool
	Flows   int64
	Step    int
	UIDs    []string
}

type rule struct{}

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New returns the rule.
func New(Config, modules.Env) (modules.Rule[State], error) { return rule{}, nil }

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	// A host without an address of its own (169.254.0.0/16) may ask for any
	// address: RFC 3927, section 2.6.2.
	return f.ARP.Operation == "request" && profile.IsPublic(f.Dst) && f.Src.IsValid() && !f.Src.IsUnspecified() &&
		!f.Src.IsLinkLocalUnicast() && f.Src != f.Dst && !sameBlock(f.Src, f.Dst)
}

// sameBlock reports whether two addresses have the first octet in common, as
// those of one network of public addresses have.
func sameBlock(a, b netip.Addr) bool {
	return a.Is4() && b.Is4() && a.As4()[0] == b.As4()[0]
}

// Handle implements modules.Rule.
func (rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Network().IsHome(f.Dst) {
		return
	}
	st.Flows++
	if st.Targets[f.Dst] || len(st.Targets) >= maxTargets {
		return
	}
	if st.Targets == nil {
		st.Targets = make(map[netip.Addr]bool)
	}
	st.Targets[f.Dst] = true
	if f.UID != "" && len(st.UIDs) < evidence.MaxUIDs {
		st.UIDs = append(st.UIDs, strings.Clone(f.UID))
	}
	n := int64(len(st.Targets))
	step := modules.Step(n, 1)
	if step <= st.Step {
		return
	}
	st.Step = step
	what := "an address"
	if n > 1 {
		what = fmt.Sprintf("%d addresses", n)
	}
	cx.Emit(evidence.Evidence{
		Type: Outside, Level: evidence.Low, Confidence: 0.6,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Victim: evidence.IPEntity(f.Dst, evidence.Dst, 0),
		Description: fmt.Sprintf("%s asked by ARP for %s outside of the local network, the last one %s", f.Src, what, f.Dst),
		Proto:       "arp", Count: st.Flows, UIDs: append([]string(nil), st.UIDs...), Subject: "outside", Step: step,
	})
}
