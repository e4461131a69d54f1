// Package gre reports GRE tunnels, and hosts that try to set up such tunnels
// with many others.
package gre

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// The evidence this module emits.
const (
	Tunnel evidence.Type = "GRE_TUNNEL"
	Scan   evidence.Type = "GRE_SCAN"
)

// Config holds the threshold.
type Config struct {
	MinHosts int64 `yaml:"min_hosts"` // hosts that GRE was sent to in a window for the first report of a scan
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "gre",
	Doc:   "GRE tunnels, and GRE sent to many hosts",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.Tunnel, flow.Conn),
	Emits: []evidence.Spec{
		{Type: Tunnel, Level: evidence.Low, Tactic: evidence.CommandAndControl, MITRE: []string{"T1572"}, Subject: "address, log", Over: "window", Doc: "a host has a GRE tunnel to another"},
		{Type: Scan, Level: evidence.Medium, Tactic: evidence.Discovery, MITRE: []string{"T1046"}, Subject: "log", Over: "window", Method: "Recon", Doc: "a host sent GRE to many others"},
	},
}, Config{MinHosts: 5}, New)

const (
	// maxPeers bounds the peers told apart in one window.
	maxPeers = 4096
	// maxTold bounds the tunnels reported one by one: from there on the scan
	// says all there is to say.
	maxTold = 16
)

// State is what a host did in one window. Zeek tells tunnels in a log of
// their own and the other sensors as connections; the two are kept apart, so
// that it does not matter which of them is ahead.
type State struct{ Tunnels, Conns Peers }

// Peers are the hosts at the other end.
type Peers struct {
	Seen map[netip.Addr]bool
	Step int
	UIDs []string
}

type rule struct{ min int64 }

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MinHosts < 2 || c.MinHosts > maxPeers {
		return nil, fmt.Errorf("min_hosts: %d is not in 2..%d", c.MinHosts, maxPeers)
	}
	return rule{c.MinHosts}, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	if f.Kind == flow.Tunnel {
		return strings.HasSuffix(f.Tunnel.Type, "GRE")
	}
	return f.Proto == flow.GRE
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client || !f.Src.IsValid() || !profile.IsScannable(f.Dst) {
		return
	}
	p := &st.Conns
	if f.Kind == flow.Tunnel {
		p = &st.Tunnels
	}
	if p.Seen[f.Dst] || len(p.Seen) >= maxPeers {
		return
	}
	if p.Seen == nil {
		p.Seen = make(map[netip.Addr]bool)
	}
	p.Seen[f.Dst] = true
	uid := strings.Clone(f.UID)
	if uid != "" && len(p.UIDs) < evidence.MaxUIDs {
		p.UIDs = append(p.UIDs, uid)
	}
	n := int64(len(p.Seen))
	if n <= maxTold {
		tell(cx, f, uid)
	}
	step := modules.Step(n, r.min)
	if step <= p.Step {
		return
	}
	p.Step = step
	cx.Emit(evidence.Evidence{
		Type: Scan, Level: evidence.Medium, Confidence: math.Round(100*min(1, float64(n)/20)) / 100,
		Attacker:    evidence.IPEntity(f.Src, evidence.Src, 0),
		Description: fmt.Sprintf("%s sent GRE to %d different hosts, the last one %s", f.Src, n, f.Dst),
		Proto:       "gre", Count: n, UIDs: append([]string(nil), p.UIDs...), Subject: f.Kind.String(), Step: step,
	})
}

// tell reports one tunnel. Inside of a network tunnels carry mirrored traffic
// and join sites; towards the Internet they are rarer.
func tell(cx *modules.Context, f *flow.Flow, uid string) {
	e := evidence.Evidence{
		Type: Tunnel, Level: evidence.Low, Confidence: 0.2,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Victim: evidence.IPEntity(f.Dst, evidence.Dst, 0),
		Description: fmt.Sprintf("%s has a GRE tunnel to %s", f.Src, f.Dst),
		Proto:       "gre", Count: 1, Subject: f.Dst.String() + "|" + f.Kind.String(), Step: 1,
	}
	if profile.IsPublic(f.Dst) {
		e.Confidence = 0.6
	}
	if uid != "" {
		e.UIDs = []string{uid}
	}
	cx.Emit(e)
}
