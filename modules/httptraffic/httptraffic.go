// Package httptraffic reports hosts that talk to public servers over HTTP that
// is not encrypted.
package httptraffic

import (
	"fmt"
	"math/bits"
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
	// MaxPerWindow is how many servers are counted for one host in a window, 1 to 1000.
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
		Type: Traffic, Level: evidence.Info, Tactic: evidence.Context, MITRE: []string{"T1071.001"}, Subject: "host", Over: "window", Method: "Policy",
		Doc: "a host talked to public servers over HTTP that is not encrypted",
	}},
}, Config{MaxPerWindow: 50}, New)

// maxPerWindow bounds what the configuration may ask for: a state then stays
// below 20 kB.
const maxPerWindow = 1000

// State is what one host did in one window. Most talk to one server alone, so
// the table is made for the second.
type State struct {
	First   uint32              // hash of the first server; 0: none
	Servers modules.Table[bool] // the others, by hash
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
	key := modules.Hash(f.Dst, 0)
	n := st.Servers.Len() + 1
	switch {
	case st.First == 0:
		st.First = key
	case st.First == key || n >= r.max || st.Servers.Get(key) != nil:
		return
	default:
		st.Servers.Put(key)
		n++
	}
	if n&(n-1) != 0 || bits.TrailingZeros(uint(n))%3 != 0 {
		return // told at the 1st, 8th, 64th, 512th
	}
	name, more := "", ""
	if h := f.HTTP.Host; h != "" {
		name = fmt.Sprintf(" (%s)", quote(h))
	}
	if n > 1 {
		more = fmt.Sprintf(", the %dth public server of this window", n)
	}
	e := evidence.Evidence{
		Type: Traffic, Level: evidence.Info, Confidence: 1,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, f.SrcPort), Victim: evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
		Description: fmt.Sprintf("%s talks to %s%s over HTTP without encryption%s.", f.Src, f.Dst, name, more),
		Proto:       f.Proto.String(), SrcPort: f.SrcPort, DstPort: f.DstPort,
		Count: int64(n), Subject: "servers", Step: 1 + bits.TrailingZeros(uint(n))/3,
	}
	e.UIDs = modules.UID(f.UID)
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
