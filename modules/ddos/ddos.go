// Package ddos reports hosts that flood another with connections or packets.
package ddos

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

// Source is the evidence this module emits.
const Source evidence.Type = "DDOS_SOURCE"

// Config holds the thresholds.
type Config struct {
	MinConnections int64 `yaml:"min_connections"` // failed connections to one port of one host within a minute
	MinRequests    int64 `yaml:"min_requests"`    // the same of short ones that were answered, and of flows of UDP that were not
	MinPackets     int64 `yaml:"min_packets"`     // packets of UDP to one host within a minute that it does not answer; of ICMP a tenth
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "ddos",
	Doc:   "one host flooded with connections or packets",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.Conn),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{{
		Type: Source, Level: evidence.High, Tactic: evidence.Impact, MITRE: []string{"T1498", "T1499"}, Subject: "victim, port, protocol, sort", Over: "1 min", Method: "Threshold",
		Doc: "a host flooded another with connections or packets",
	}},
}, Config{MinConnections: 600, MinRequests: 3000, MinPackets: 120_000}, New)

const (
	// maxTargets bounds the targets counted at one time. A flood is what is
	// counted most, so those with the least are forgotten.
	maxTargets = 512
	// slot is the width of a place in Target.Slots: two of them are a minute.
	slot = int64(30 * time.Second)
	// short is how long an answered connection may last to count as a mere
	// request: a flood wants the server's work, not its answer.
	short = int64(5 * time.Second)
	// bulk is the number of packets from which a flow of its own is looked at
	// as a flood. Fewer do not add up to one.
	bulk = 1000
	// pingUnit is how many packets of small flows of ICMP count as one. A packet
	// of more than pingBytes counts for several, since those that measure a
	// path send small ones, and a flow for pingLeast packets at the least.
	pingUnit, pingBytes, pingLeast = 20, 250, 4
	// minSample is how many of the flows of a flood are looked at before it is
	// reported, where one in two, four … is enough for that; at most one in
	// maxSkip+1. The rate is then known to an eighth (one standard deviation).
	minSample, maxSkip = 64, 31
	// maxSaved bounds the uids kept of one target.
	maxSaved = 20
)

// The sorts of floods.
const (
	attempts = iota // connections that fail
	requests        // short connections that are answered
	silence         // flows of UDP without an answer
	pings           // packets of ICMP in small flows without an answer, in twenties
	packets         // packets that are not answered, in thousands; of ICMP in hundreds
	sorts
)

// State is what a host did in one window.
type State struct {
	Targets modules.Table[Target]
	// UIDs are those of the targets that are about to be a flood, which are few.
	UIDs map[uint32][]string
}

// Target is what one target of one sort got.
type Target struct {
	Slots [8]uint16 // by half minute; the place is its number modulo 8
	Slot  uint32    // number of the newest half minute
	Total uint32
	Step  uint8
}

type rule struct {
	first [sorts]int64
	skip  [sorts]uint64 // of skip+1 flows, a power of two, one is looked at
}

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	for _, v := range []struct {
		key    string
		n      int64
		lo, hi int64
	}{
		{"min_connections", c.MinConnections, 10, 10_000},
		{"min_requests", c.MinRequests, 10, 10_000},
		{"min_packets", c.MinPackets, 10_000, 10_000_000},
	} {
		if v.n < v.lo || v.n > v.hi {
			return nil, fmt.Errorf("%s: %d is not in %d..%d", v.key, v.n, v.lo, v.hi)
		}
	}
	r := rule{first: [sorts]int64{c.MinConnections, c.MinRequests, c.MinRequests, c.MinPackets / 10 / pingUnit, c.MinPackets / 1000}}
	for s, n := range r.first[:packets] {
		for n /= 2; n >= minSample && r.skip[s] < maxSkip; n /= 2 {
			r.skip[s] = 2*r.skip[s] + 1
		}
	}
	return r, nil
}

// Wants implements modules.Chooser. Small flows are what all hosts have by the
// hundreds, so it looks at a sample of them.
func (r rule) Wants(f *flow.Flow) bool {
	switch f.Proto {
	case flow.TCP, flow.UDP, flow.ICMP, flow.ICMP6:
	default:
		return false
	}
	h := draw(f)
	if h&r.least() != 0 && f.OrigPkts < bulk {
		return false
	}
	s := sortOf(f)
	return s != sorts && h&r.skip[s] == 0 && !f.Open
}

// least returns what the draw of a flow must not have to be in any sample.
func (r rule) least() uint64 { return r.skip[attempts] & r.skip[requests] & r.skip[pings] }

// draw returns a number made of what differs between the flows of a flood,
// and is the same in every run.
func draw(f *flow.Flow) uint64 {
	h := (uint64(f.Time) ^ uint64(f.SrcPort)<<48 ^ uint64(f.DstPort)<<32 ^ 0x9e3779b97f4a7c15) * 0xff51afd7ed558ccd
	h = (h ^ h>>32 ^ uint64(f.Duration)) * 0xc4ceb9fe1a85ec53
	return h >> 32
}

// sortOf returns the sort of flood that a flow may be part of; sorts if none.
func sortOf(f *flow.Flow) int {
	switch {
	case f.Sensor == flow.Nfdump && f.Proto != flow.TCP && f.RespPkts == 0:
		return sorts // the answers are records of their own
	case f.Proto.IsICMP() && f.OrigPkts >= bulk:
		return packets // answered or not: no ping needs so many
	case f.OrigPkts >= bulk && f.RespPkts*50 < f.OrigPkts && (f.Proto != flow.TCP || f.State == flow.NotEstablished):
		return packets
	case f.Proto == flow.TCP && f.State == flow.NotEstablished:
		return attempts
	case f.Proto == flow.TCP && f.State == flow.Established && f.Duration < short:
		return requests
	case f.Proto != flow.TCP && f.RespPkts == 0 && f.RespBytes == 0:
		if f.Proto.IsICMP() {
			return pings
		}
		return silence
	}
	return sorts
}

// key returns the fingerprint of a target and a sort.
func key(f *flow.Flow, sort int) uint32 {
	port := uint64(f.DstPort)
	if sort == packets || f.Proto.IsICMP() {
		port = 0 // a flood of packets goes to all ports at once, or to none
	}
	return modules.Hash(f.Dst, port<<16|uint64(f.Proto)<<8|uint64(sort))
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	sort := sortOf(f)
	if sort == sorts || cx.Role() != profile.Client || !profile.IsScannable(f.Dst) || !f.Src.IsValid() ||
		f.State == flow.StateUnknown || f.RawState == "" && f.Sensor == flow.Zeek {
		return
	}
	if f.Proto != flow.TCP && (sort == silence || f.Proto.IsICMP()) && answer(f) {
		return
	}
	n := int64(r.skip[sort]) + 1 // those that one in a sample stands for
	switch sort {
	case packets:
		n = rate(f) / unit(f)
	case pings:
		n = pingUnits(f, n)
		if n == 0 {
			return
		}
	}
	k := key(f, sort)
	t := st.Targets.PutLargest(k, maxTargets, func(t *Target) int64 { return int64(t.Total) })
	most := t.add(f.Time, n)
	if most <= r.first[sort]/2 {
		return
	}
	if u := st.UIDs[k]; f.UID != "" && len(u) < maxSaved && len(st.UIDs) < maxTargets {
		if st.UIDs == nil {
			st.UIDs = make(map[uint32][]string)
		}
		st.UIDs[k] = append(u, strings.Clone(f.UID))
	}
	if step := modules.Step(most, r.first[sort]); step > int(t.Step) {
		t.Step = uint8(step)
		r.report(cx, f, sort, most, step, append([]string(nil), st.UIDs[k]...))
	}
}

// answer reports whether an unanswered flow is itself the answer to one that
// was not seen: from a service to a port that clients use.
func answer(f *flow.Flow) bool {
	return f.HasPorts && f.Proto == flow.UDP && f.SrcPort < 1024 && f.DstPort >= 1024 || f.Proto.IsICMP() && f.HasPorts && f.SrcPort&0xff != 8 && f.SrcPort&0xff != 128
}

// pingUnits returns what a small flow of ICMP counts for when it stands for n.
// What is left of a unit counts as a whole one as often as it should.
func pingUnits(f *flow.Flow, n int64) int64 {
	p := max(rate(f), rate(f)*f.OrigBytes/max(1, f.OrigPkts)/pingBytes, pingLeast)
	return (n*p + int64(draw(f)>>16%pingUnit)) / pingUnit
}

// rate returns the packets of a flow in one minute, or all when it is shorter.
func rate(f *flow.Flow) int64 {
	if f.Duration <= int64(time.Minute) {
		return f.OrigPkts
	}
	return int64(float64(f.OrigPkts) * float64(time.Minute) / float64(f.Duration))
}

// unit returns how many packets count as one. Nothing but a flood sends as many
// by ICMP as video does by UDP, so there a tenth is enough.
func unit(f *flow.Flow) int64 {
	if f.Proto.IsICMP() {
		return 100
	}
	return 1000
}

// add counts n at a time and returns what the minute around it has got. Logs
// are ordered by the end of flows, so a few minutes are kept.
func (t *Target) add(at, n int64) int64 {
	s := uint32(max(at, 0) / slot)
	const size = uint32(len(t.Slots))
	switch {
	case t.Total == 0:
		t.Slot = s
	case s > t.Slot:
		for i := uint32(1); i <= min(s-t.Slot, size); i++ {
			t.Slots[(t.Slot+i)%size] = 0
		}
		t.Slot = s
	case s+size <= t.Slot:
		return 0
	}
	t.Total = uint32(min(int64(t.Total)+n, math.MaxUint32))
	x := &t.Slots[s%size]
	*x = uint16(min(int64(*x)+n, math.MaxUint16))
	var before, after uint16
	if t.Slot-s+1 < size {
		before = t.Slots[(s-1)%size]
	}
	if s < t.Slot {
		after = t.Slots[(s+1)%size]
	}
	return int64(*x) + int64(max(before, after))
}

func (r rule) report(cx *modules.Context, f *flow.Flow, sort int, n int64, step int, uids []string) {
	port := f.DstPort
	if sort == packets || f.Proto.IsICMP() {
		port = 0
	}
	where := f.Dst.String()
	if port != 0 {
		where = fmt.Sprintf("%s port %d", f.Dst, port)
	}
	proto, what, level := f.Proto.String(), "attempts", evidence.High
	confidence := min(1, 0.4+0.2*float64(step))
	var how, about string
	if r.skip[sort] > 0 {
		about = "about "
	}
	switch {
	case sort == packets:
		what = "packets"
		n *= unit(f)
		how = fmt.Sprintf("about %d %s packets in a minute", n, proto)
		if !f.Proto.IsICMP() {
			how += ", next to none of them answered"
		}
	case sort == requests:
		// Programs that connect anew for each request, and tests of a server's
		// strength, look the same.
		what, level, confidence = "requests", evidence.Medium, confidence/2
		how = fmt.Sprintf("%s%d short connections in a minute", about, n)
	case f.Proto == flow.TCP:
		how = fmt.Sprintf("%s%d connections in a minute that failed", about, n)
	case sort == pings:
		what = "pings"
		n *= pingUnit
		how = fmt.Sprintf("as much as about %d small %s packets in a minute, not answered", n, proto)
	default:
		what = "silence"
		how = fmt.Sprintf("%s%d %s flows in a minute without an answer", about, n, proto)
	}
	cx.Emit(evidence.Evidence{
		Type: Source, Level: level, Confidence: math.Round(100*confidence) / 100,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Victim: evidence.IPEntity(f.Dst, evidence.Dst, port),
		Description: fmt.Sprintf("%s floods %s: %s", f.Src, where, how),
		Proto:       proto, DstPort: port, Count: n, UIDs: uids,
		Subject: fmt.Sprintf("%s|%d|%s|%s", f.Dst, port, proto, what), Step: step,
	})
}
