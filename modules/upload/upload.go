// Package upload reports hosts that send much data to one destination.
package upload

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Upload is the evidence this module emits.
const Upload evidence.Type = "DATA_UPLOAD"

// Config holds the thresholds, in MB of 10^6 bytes.
type Config struct {
	FlowMB                    int64 `yaml:"flow_mb"`                     // sent in one flow
	DataExfiltrationThreshold int64 `yaml:"data_exfiltration_threshold"` // sent to one host in a window
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "upload",
	Doc:   "much data sent in one flow, or to one host within a window",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.Conn),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{{
		Type: Upload, Level: evidence.Medium, Tactic: evidence.Exfiltration, MITRE: []string{"T1048", "T1041", "T1567"}, Subject: "victim", Over: "window", Method: "Threshold",
		Doc: "much data was sent to one host",
	}},
}, Config{FlowMB: 100, DataExfiltrationThreshold: 500}, New)

const (
	mb = 1_000_000
	// minBytes is the least that a flow must send to be added up: a host would
	// have to make 120,000 smaller flows to one destination to send 500 MB.
	// Most flows of most hosts send less, and cost no look-up.
	minBytes = 4096
	// maxHosts bounds the destinations added up at one time. When there are
	// more, those that got least are forgotten.
	maxHosts = 1024
	// maxUIDs bounds the uids kept for one destination, and minUID is the
	// least a flow must send for its uid to be kept.
	maxUIDs = 20
	minUID  = 1 * mb
)

// State is what a host sent in one window.
type State struct {
	Hosts map[netip.Addr]Sent
}

// Sent is what one destination got.
type Sent struct {
	Bytes, Flows      int64
	FlowStep, SumStep int      // last reported
	UIDs              []string // of the newest flows with at least minUID, the oldest first
}

type rule struct{ flow, sum int64 } // bytes

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	for _, v := range []struct {
		key string
		n   int64
	}{{"flow_mb", c.FlowMB}, {"data_exfiltration_threshold", c.DataExfiltrationThreshold}} {
		if v.n < 1 || v.n > math.MaxInt64/mb {
			return nil, fmt.Errorf("%s: %d is not in 1..%d", v.key, v.n, int64(math.MaxInt64/mb))
		}
	}
	return rule{flow: c.FlowMB * mb, sum: c.DataExfiltrationThreshold * mb}, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	return f.OrigBytes >= minBytes
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if f.OrigBytes < minBytes || cx.Role() != profile.Client {
		return
	}
	n := bytesSent(f)
	if n < minBytes || !profile.IsScannable(f.Dst) || cx.Network() != nil && f.Dst == cx.Network().Gateway {
		return
	}
	h := st.Hosts[f.Dst]
	if !f.Open { // the flow comes again when it ends, with all its bytes
		h.Bytes = min(h.Bytes, math.MaxInt64-n) + n
		h.Flows++
	}
	if n >= minUID {
		h.remember(f.UID)
	}
	flowStep, sumStep := modules.Step(n, r.flow), modules.Step(h.Bytes, r.sum)
	newFlow, newSum := flowStep > h.FlowStep, sumStep > h.SumStep
	h.FlowStep, h.SumStep = max(h.FlowStep, flowStep), max(h.SumStep, sumStep)
	switch { // one flow that does both is told once, as what weighs more
	case newSum:
		r.report(cx, f, fmt.Sprintf("%s sent %d MB to %s in this window, flows: %d", f.Src, h.Bytes/mb, f.Dst, h.Flows),
			"total", sumStep, h, evidence.Medium)
	case newFlow:
		one := Sent{Flows: 1}
		one.remember(f.UID)
		r.report(cx, f, fmt.Sprintf("%s sent %d MB to %s in one flow", f.Src, n/mb, f.Dst),
			"flow", flowStep, one, evidence.Low)
	}
	modules.PutLargest(&st.Hosts, f.Dst, h, maxHosts, Sent.weight)
}

func (r rule) report(cx *modules.Context, f *flow.Flow, text, what string, step int, s Sent, l evidence.Level) {
	if profile.IsPrivate(f.Dst) {
		l = evidence.Info // to a file server or a backup; still worth a line
	}
	e := evidence.Evidence{
		Type: Upload, Level: l, Confidence: 0.6,
		Attacker:    evidence.IPEntity(f.Src, evidence.Src, 0),
		Victim:      evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
		Description: "data upload: " + text,
		Proto:       f.Proto.String(), Count: s.Flows, UIDs: append([]string(nil), s.UIDs...),
		Subject: f.Dst.String() + "|" + what, Step: step,
	}
	if !f.Proto.IsICMP() {
		e.DstPort = f.DstPort
	}
	cx.Emit(e)
}

// bytesSent returns what the originator sent. Zeek takes the payload of TCP
// from sequence numbers, and a stray packet can make gigabytes of them: there
// cannot be more payload than there were bytes of IP.
func bytesSent(f *flow.Flow) int64 {
	if f.Sensor == flow.Zeek && f.OrigIPBytes > 0 {
		return min(f.OrigBytes, f.OrigIPBytes)
	}
	return f.OrigBytes
}

func (s Sent) weight() int64 { return s.Bytes }

func (s *Sent) remember(uid string) {
	if uid == "" || slices.Contains(s.UIDs, uid) { // an open flow comes several times
		return
	}
	if len(s.UIDs) == maxUIDs {
		copy(s.UIDs, s.UIDs[1:])
		s.UIDs = s.UIDs[:maxUIDs-1]
	}
	s.UIDs = append(s.UIDs, strings.Clone(uid))
}
