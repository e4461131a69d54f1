// Package upload reports hosts that send much data to one destination.
package upload

import (
	"fmt"
	"maps"
	"math"
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
	// samples is how many flows are looked at, at the least, until the sum of many
	// small ones is reported: it is then right to three per cent (one standard
	// deviation).
	samples = 1000
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
	Hosts modules.Table[Sent] // by hash of the address
	// UIDs are those of the newest flows with at least minUID, the oldest first.
	UIDs map[uint32][]string
}

// Sent is what one destination got.
type Sent struct {
	Bytes, Flows      int64
	FlowStep, SumStep uint8 // last reported
}

type rule struct {
	flow, sum int64 // bytes
	unit      int64 // a smaller flow counts for as many bytes, when it is drawn
}

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
	r := rule{flow: c.FlowMB * mb, sum: c.DataExfiltrationThreshold * mb}
	r.unit = min(r.flow, r.sum/samples, 1<<30)
	return r, nil
}

// Wants implements modules.Chooser.
func (r rule) Wants(f *flow.Flow) bool {
	n := bytesSent(f)
	if f.Open { // it comes again when it ends, with all its bytes
		return n >= r.flow
	}
	return n >= r.unit || n > 0 && draw(f)*uint64(r.unit) < uint64(n)<<32
}

// draw returns a number of 32 bits, by chance but the same in every run. A flow
// that sends a hundredth of the unit is drawn once in a hundred times, and then
// counts for a unit, so the sum is right on average (Duffield, Lund and Thorup,
// Learn more, sample less, 2005) and most flows cost no look-up.
func draw(f *flow.Flow) uint64 {
	h := (uint64(f.Time) ^ uint64(f.SrcPort)<<48 ^ uint64(f.OrigBytes)<<16 ^ 0x9e3779b97f4a7c15) * 0xff51afd7ed558ccd
	h = (h ^ h>>32 ^ uint64(f.Duration)) * 0xc4ceb9fe1a85ec53
	return h >> 32
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if !r.Wants(f) || cx.Role() != profile.Client || !profile.IsScannable(f.Dst) || cx.Network() != nil && f.Dst == cx.Network().Gateway {
		return
	}
	n, k := bytesSent(f), modules.Hash(f.Dst, 0)
	h := st.Hosts.PutLargest(k, maxHosts, func(s *Sent) int64 { return s.Bytes })
	if !f.Open {
		h.Bytes = min(h.Bytes, math.MaxInt64-max(n, r.unit)) + max(n, r.unit)
		h.Flows += max(1, r.unit/n)
	}
	if n >= minUID {
		st.remember(k, f.UID)
	}
	flowStep, sumStep := modules.Step(n, r.flow), modules.Step(h.Bytes, r.sum)
	newFlow, newSum := flowStep > int(h.FlowStep), sumStep > int(h.SumStep)
	h.FlowStep, h.SumStep = max(h.FlowStep, uint8(flowStep)), max(h.SumStep, uint8(sumStep))
	switch { // one flow that does both is told once, as what weighs more
	case newSum:
		r.report(cx, f, fmt.Sprintf("%s sent %d MB to %s in this window, flows: %d", f.Src, h.Bytes/mb, f.Dst, h.Flows),
			"total", sumStep, h.Flows, slices.Clone(st.UIDs[k]), evidence.Medium, h.Bytes)
	case newFlow:
		var uids []string
		if f.UID != "" {
			uids = []string{strings.Clone(f.UID)}
		}
		r.report(cx, f, fmt.Sprintf("%s sent %d MB to %s in one flow", f.Src, n/mb, f.Dst), "flow", flowStep, 1, uids, evidence.Low, n)
	}
}

func (r rule) report(cx *modules.Context, f *flow.Flow, text, what string, step int, flows int64, uids []string, l evidence.Level, bytes int64) {
	confidence := 0.6
	switch {
	case profile.IsPrivate(f.Dst):
		l = evidence.Info // to a file server or a backup; still worth a line
	case what == "total" && rare(f):
		confidence = 0.8
		if bytes >= 2*r.sum {
			l = evidence.High
		}
	}
	e := evidence.Evidence{
		Type: Upload, Level: l, Confidence: confidence,
		Attacker:    evidence.IPEntity(f.Src, evidence.Src, 0),
		Victim:      evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
		Description: "data upload: " + text,
		Proto:       f.Proto.String(), Count: flows, UIDs: uids,
		Subject: f.Dst.String() + "|" + what, Step: step,
	}
	if !f.Proto.IsICMP() {
		e.DstPort = f.DstPort
	}
	cx.Emit(e)
}

// rare reports whether a flow is one by which next to nobody sends much data to
// the Internet: FTP, without encryption, or a port below 1024 that is for none
// of the web, backups, mail, shells and tunnels. Above, peers have their ports.
func rare(f *flow.Flow) bool {
	if f.Proto != flow.TCP {
		return false
	}
	if f.Service == "ftp-data" || f.Service == "ftp" {
		return true
	}
	switch f.DstPort {
	case 22, 25, 80, 119, 143, 443, 445, 465, 500, 554, 563, 587, 853, 873, 989, 990, 992, 993, 995:
		return false
	}
	return f.DstPort < 1024 && f.DstPort > 0
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

func (st *State) remember(k uint32, uid string) {
	u := st.UIDs[k]
	if uid == "" || slices.Contains(u, uid) { // an open flow comes several times
		return
	}
	if st.UIDs == nil {
		st.UIDs = make(map[uint32][]string)
	}
	if len(st.UIDs) >= 2*maxHosts { // of hosts that were forgotten
		maps.DeleteFunc(st.UIDs, func(k uint32, _ []string) bool { return st.Hosts.Get(k) == nil })
	}
	st.UIDs[k] = modules.KeepUID(u, uid, maxUIDs)
}
