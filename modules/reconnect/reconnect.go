// Package reconnect reports hosts that try again and again to connect to a
// port that refuses them.
package reconnect

import (
	"bytes"
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Attempts is the evidence this module emits.
const Attempts evidence.Type = "MULTIPLE_RECONNECTION_ATTEMPTS"

// Config holds the thresholds.
type Config struct {
	Refused int64 `yaml:"refused"` // refused connections to one port of one host for the first report
	Telnet  int64 `yaml:"telnet"`  // failed telnet connections to one host for the first report
	Silent  int64 `yaml:"silent"`  // connections to one silent port of one public host for the first report
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "reconnect",
	Doc:   "repeated connections to a port that refuses them or stays silent",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.Conn),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{{
		Type: Attempts, Level: evidence.Medium, Tactic: evidence.CommandAndControl, MITRE: []string{"T1071"}, Subject: "victim, port", Over: "window", Method: "Threshold",
		Doc: "a host connects again and again, and is refused or meets silence",
	}},
}, Config{Refused: 5, Telnet: 4, Silent: 20}, New)

const (
	// maxTargets bounds the targets counted at one time. A scanner touches
	// many more, once each; those with the fewest failures are forgotten.
	maxTargets = 1024
	// maxUIDs bounds the uids kept for one target, the newest ones.
	maxUIDs = 20
	// firstUnprivileged is the first port that peer-to-peer programs pick from.
	firstUnprivileged = 1024
	// fewPeers is the number of targets on such ports up to which nothing is
	// taken off the confidence, and minConfidence what is left in the end.
	fewPeers = 3
	// fewSilent and sketch are the failures at a silent port that are counted
	// in a sketch, and the size of that. They are a few seconds of retries.
	fewSilent     = 4
	sketch        = 256 // no more than a byte can name
	fewTries      = 24
	minConfidence = 0.05
)

// State counts the failures of a host in one window.
type State struct {
	// Targets is keyed by the hash of a target; two that share one are taken for one.
	Targets modules.Table[Count]
	Peers   int64 // targets on unprivileged ports that were reported
	// Silent counts failures at silent ports by the hash of the target, up to
	// fewSilent: only from there on a target is counted by itself, so a scanner
	// does not fill Targets with what it tries once. The first fewTries are
	// listed by their place in the sketch; from then on it holds a number for
	// each place.
	Silent []uint8
}

// Target is a port of a host, or with port 0 the telnet ports of one.
type Target struct {
	Dst    netip.Addr
	Port   uint16
	Silent bool // it does not answer; otherwise it refuses
}

func (t Target) hash() uint32 {
	salt := uint64(t.Port)
	if t.Silent {
		salt |= 1 << 16
	}
	return modules.Hash(t.Dst, salt)
}

// Count is what failed.
type Count struct {
	Flows int64
	Step  int
	UIDs  []string // of the newest flows, the oldest first
}

type rule struct{ c Config }

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	for _, v := range []struct {
		key string
		n   int64
	}{{"refused", c.Refused}, {"telnet", c.Telnet}, {"silent", c.Silent}} {
		if v.n < 2 || v.n > math.MaxInt32 {
			return nil, fmt.Errorf("%s: %d is not in 2..%d", v.key, v.n, math.MaxInt32)
		}
	}
	return rule{c}, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	return f.State == flow.NotEstablished && f.Proto == flow.TCP && !f.Open && failureOf(f) != none
}

// failure is how a connection failed, as far as that is counted.
type failure uint8

const (
	none failure = iota
	telnet
	refusal
	silence
)

// failureOf judges a TCP connection that was not established.
func failureOf(f *flow.Flow) failure {
	switch {
	case f.RawState == "" && f.Sensor == flow.Zeek: // the log does not say how it went
	case !f.HasPorts || !profile.IsScannable(f.Dst):
	case f.DstPort == 23 || f.DstPort == 2323:
		return telnet
	case refused(f):
		return refusal
	case unanswered(f) && profile.IsPublic(f.Dst):
		return silence
	}
	return none
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if f.State != flow.NotEstablished || f.Proto != flow.TCP || f.Open || cx.Role() != profile.Client {
		return
	}
	t, first, how := Target{Dst: f.Dst, Port: f.DstPort}, r.c.Refused, "refused"
	switch failureOf(f) {
	case telnet:
		t.Port, first, how = 0, r.c.Telnet, "failed telnet"
	case refusal:
	case silence:
		if r.c.Silent > fewSilent && !st.often(f) {
			return
		}
		t.Silent, first, how = true, r.c.Silent, "unanswered"
	case none:
		return
	}
	c := st.Targets.PutLargest(t.hash(), maxTargets, (*Count).weight)
	if t.Silent && c.Flows == 0 && first > fewSilent {
		c.Flows = fewSilent
	}
	c.Flows++
	c.UIDs = modules.KeepUID(c.UIDs, f.UID, maxUIDs)
	if step := (modules.Step(c.Flows, first) + 1) / 2; step > c.Step { // four times as many each
		if c.Step == 0 && t.Port >= firstUnprivileged {
			st.Peers++
		}
		c.Step = step
		r.report(cx, f, t, *c, how, st.confidence(t, *c))
	}
}

// often reports whether more than fewSilent connections to f's target were
// unanswered, or to one that shares its place in the sketch.
func (st *State) often(f *flow.Flow) bool {
	place := uint8(modules.Hash(f.Dst, uint64(f.DstPort)) % sketch)
	if len(st.Silent) < sketch {
		if bytes.Count(st.Silent, []byte{place}) >= fewSilent {
			return true
		}
		if len(st.Silent) < fewTries {
			st.Silent = append(st.Silent, place)
			return false
		}
		listed := st.Silent
		st.Silent = make([]uint8, sketch)
		for _, p := range listed {
			st.Silent[p]++
		}
	}
	n := &st.Silent[place]
	if *n >= fewSilent {
		return true
	}
	*n++
	return false
}

// confidence is the reference's 0.5, and more each time there are four times as
// many: five refusals are a service that restarts, a hundred are a program that
// cannot stop. Silence begins lower, for a blocked port is as silent as a dead
// server. A peer-to-peer program tries many peers again that went away, each on
// an unprivileged port of its own; malware has a few servers. So such targets
// begin lower, and the more of them a host has, the less each of them says.
func (st *State) confidence(t Target, c Count) float64 {
	first := 4
	switch {
	case t.Silent:
		first = 3
	case t.Port >= firstUnprivileged:
		first = 2
	}
	v := min(0.9, float64(first+c.Step)/10)
	if t.Port >= firstUnprivileged && st.Peers > fewPeers {
		v = max(minConfidence, v*fewPeers/float64(st.Peers))
	}
	return math.Round(v*100) / 100
}

func (r rule) report(cx *modules.Context, f *flow.Flow, t Target, c Count, how string, confidence float64) {
	// Who meets closed telnet ports guesses passwords on the open ones.
	where, subject, mitre := t.Dst.String(), t.Dst.String()+"|telnet", []string{"T1110"}
	if t.Port != 0 {
		where = fmt.Sprintf("%s port %d", t.Dst, t.Port)
		subject = fmt.Sprintf("%s|%d", t.Dst, t.Port)
		if t.Silent {
			subject += "|silent"
		}
		mitre = nil
	}
	level := evidence.Medium
	if t.Port != 0 && !profile.IsPublic(t.Dst) { // a service that restarts; who commands malware is elsewhere
		level = evidence.Low
	}
	cx.Emit(evidence.Evidence{
		Type: Attempts, Level: level, Confidence: confidence,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
		Victim:   evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
		Description: fmt.Sprintf("multiple reconnection attempts: %s made %d %s connections to %s",
			f.Src, c.Flows, how, where),
		Proto: f.Proto.String(), DstPort: f.DstPort,
		UIDs: append([]string(nil), c.UIDs...), Count: c.Flows,
		Subject: subject, Step: c.Step, MITRE: mitre,
	})
}

// unanswered reports whether the responder of a TCP connection never said anything.
func unanswered(f *flow.Flow) bool {
	if f.RespPkts != 0 || f.OrigPkts == 0 && f.Sensor != flow.Zeek {
		return false
	}
	switch f.Sensor {
	case flow.Zeek:
		return f.RawState == "S0"
	case flow.Argus:
		src, dst, both := strings.Cut(f.RawState, "_")
		return both && src == "S" && dst == ""
	default:
	}
	return true
}

// refused reports whether the responder turned a TCP connection down.
func refused(f *flow.Flow) bool {
	if f.RawState == "REJ" { // Zeek's word, which hand-edited Argus files use too
		return true
	}
	switch f.Sensor {
	case flow.Suricata:
		// It says closed and no more. A refusal is as many resets as SYNs, few
		// of both, and none is longer than 60 bytes on the wire (78 for IPv6;
		// 4 more with a VLAN tag).
		size := int64(64)
		if f.Dst.Is6() && !f.Dst.Is4In6() {
			size = 82
		}
		return f.RespPkts > 0 && f.OrigPkts == f.RespPkts && f.OrigPkts <= 6 && f.RespBytes <= size*f.RespPkts
	case flow.Argus:
		src, dst, both := strings.Cut(f.RawState, "_")
		if !both {
			return src == "RST" // of at most three packets: longer ones are Established
		}
		return strings.Contains(src, "S") && strings.Contains(dst, "R") && !strings.Contains(dst, "S")
	default: // nothing else says how a connection was refused
	}
	return false
}

func (c *Count) weight() int64 { return c.Flows }
