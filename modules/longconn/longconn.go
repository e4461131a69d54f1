// Package longconn reports connections that last long.
package longconn

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Long is the evidence this module emits.
const Long evidence.Type = "LONG_CONNECTION"

// Config holds the threshold.
type Config struct {
	LongConnectionThreshold int64 `yaml:"long_connection_threshold"` // s; only what lasts longer is reported
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name: "longconn",
	Doc:  "connections that last long, ended or still open",
	// Long flows reach us when their window is long past; their state must not
	// be gone by then.
	Scope: modules.PerProfile,
	Kinds: flow.Of(flow.Conn),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{{
		Type: Long, Level: evidence.Low, Tactic: evidence.CommandAndControl, MITRE: []string{"T1071", "T1095"}, Subject: "address, port, protocol", Over: "flow", Method: "Threshold",
		Doc: "a connection lasts longer than the threshold",
	}},
}, Config{LongConnectionThreshold: 1500}, New)

// maxPeers bounds the peers that one state remembers. Those forgotten first
// were reported longest ago; when their connections grow on, they may be
// reported again, which is better than never.
const maxPeers = 1024

// State is what was reported of a host.
type State struct {
	Peers modules.Recent[Peer, int] // the last step reported
}

// Peer is one end that the host talked to in one window.
type Peer struct {
	Window int64
	Dst    netip.Addr
	Port   uint16
	Proto  flow.Proto
}

type rule struct{ threshold int64 } // ns

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// maxThreshold is where the nanoseconds of a duration are about to overflow.
const maxThreshold = math.MaxInt64 / int64(time.Second)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.LongConnectionThreshold < 1 || c.LongConnectionThreshold > maxThreshold {
		return nil, fmt.Errorf("long_connection_threshold: %d is not in 1..%d", c.LongConnectionThreshold, maxThreshold)
	}
	return rule{c.LongConnectionThreshold * int64(time.Second)}, nil
}

// Wants implements modules.Chooser.
func (r rule) Wants(f *flow.Flow) bool {
	return f.Duration > r.threshold
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if f.Duration <= r.threshold || cx.Role() != profile.Client ||
		!f.Dst.IsValid() || f.Dst.IsMulticast() || f.Src.IsMulticast() {
		return
	}
	p := Peer{Window: cx.Window().N, Dst: f.Dst, Port: f.DstPort, Proto: f.Proto}
	srcPort := f.SrcPort
	if f.Proto.IsICMP() { // type and code stand in their place
		p.Port, srcPort = 0, 0
	}
	step := modules.Step(f.Duration, r.threshold)
	if last, _ := st.Peers.Get(p); step <= last {
		return
	}
	st.Peers.Put(p, step, maxPeers)
	d := time.Duration(f.Duration)
	end := "lasted"
	if f.Open {
		end = "is open for"
	}
	cx.Emit(evidence.Evidence{
		Type: Long, Level: evidence.Low,
		Confidence: math.Round(100*min(1, d.Seconds()/86400)) / 100,
		Attacker:   evidence.IPEntity(f.Src, evidence.Src, srcPort),
		Victim:     evidence.IPEntity(f.Dst, evidence.Dst, p.Port),
		Description: fmt.Sprintf("long connection from %s to %s %s %d minutes",
			f.Src, where(p), end, int64(d/time.Minute)),
		Proto: f.Proto.String(), SrcPort: srcPort, DstPort: p.Port,
		UIDs: uids(f.UID), Count: 1,
		Subject: fmt.Sprintf("%s|%d|%s", p.Dst, p.Port, p.Proto), Step: step,
	})
}

// where writes the other end: its port too, where it has one.
func where(p Peer) string {
	if p.Port == 0 {
		return fmt.Sprintf("%s (%s)", p.Dst, p.Proto)
	}
	return fmt.Sprintf("%s port %d/%s", p.Dst, p.Port, p.Proto)
}

func uids(uid string) []string {
	if uid == "" {
		return nil
	}
	return []string{strings.Clone(uid)}
}
