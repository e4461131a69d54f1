// Package httptraffic reports which public servers a host talks to over HTTP
// that is not encrypted.
package httptraffic

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Traffic is the evidence this module emits.
const Traffic evidence.Type = "HTTP_TRAFFIC"

// Config holds the bound.
type Config struct {
	// MaxPerWindow is how many servers are reported for one host in a window, 1 to 1000.
	MaxPerWindow int `yaml:"max_per_window"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "httptraffic",
	Doc:   "plain HTTP to public servers",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.HTTP),
	Needs: flow.Of(flow.HTTP),
	Emits: []evidence.Spec{{
		Type: Traffic, Level: evidence.Info, Tactic: evidence.Context, MITRE: []string{"T1071.001"}, Subject: "server", Over: "window", Method: "Policy",
		Doc: "a host talked to a public server over HTTP that is not encrypted",
	}},
}, Config{MaxPerWindow: 50}, New)

// maxPerWindow bounds what the configuration may ask for: a state then stays
// below 100 kB, and nobody reads a thousand lines about one host.
const maxPerWindow = 1000

// State is what was reported of one host in one window.
type State struct {
	Servers map[netip.Addr]bool
}

type rule struct{ max int }

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MaxPerWindow < 1 || c.MaxPerWindow > maxPerWindow {
		return nil, fmt.Errorf("max_per_window: %d is not between 1 and %d", c.MaxPerWindow, maxPerWindow)
	}
	return rule{c.MaxPerWindow}, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool { return profile.IsPublic(f.Dst) }

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if len(st.Servers) >= r.max || st.Servers[f.Dst] {
		return
	}
	if st.Servers == nil {
		st.Servers = make(map[netip.Addr]bool)
	}
	st.Servers[f.Dst] = true
	name, more := "", ""
	if h := f.HTTP.Host; h != "" {
		name = fmt.Sprintf(" (%s)", quote(h))
	}
	if len(st.Servers) == r.max {
		more = " Further servers of this host in this window are not reported."
	}
	e := evidence.Evidence{
		Type: Traffic, Level: evidence.Info, Confidence: 1,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, f.SrcPort), Victim: evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
		Description: fmt.Sprintf("%s talks to %s%s over HTTP without encryption.%s", f.Src, f.Dst, name, more),
		Proto:       f.Proto.String(), SrcPort: f.SrcPort, DstPort: f.DstPort,
		Count: 1, Subject: f.Dst.String(), Step: 1,
	}
	if f.UID != "" {
		e.UIDs = []string{strings.Clone(f.UID)}
	}
	cx.Emit(e)
}

// maxText bounds the words of others in a description, in bytes.
const maxText = 200

// quote writes the words of others, cut to a bound.
func quote(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}
