// Package portzero reports TCP, UDP and SCTP flows from or to port 0.
package portzero

import (
	"fmt"
	"math/bits"
	"net/netip"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Port0 is the evidence this module emits.
const Port0 evidence.Type = "PORT_0_CONNECTION"

// Config is empty: there is no amount of port 0 that is normal.
type Config struct{}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "portzero",
	Doc:   "flows from or to port 0 of a protocol that has ports",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.Conn),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{{
		Type: Port0, Level: evidence.High, Tactic: evidence.DefenseEvasion, MITRE: []string{"T1571"}, Subject: "victim", Over: "window", Doc: "port 0 was used, which no service or client does",
	}},
}, Config{}, New)

const (
	// maxPairs bounds what one state tells apart. When there are more, those
	// not seen for longest are forgotten.
	maxPairs = 1024
	// freeSubjects bounds the pairs that are reported from the first flow on.
	freeSubjects = 64
	// sure is the number of flows from which it is no accident.
	sure = 4
)

// State counts the flows of a host with port 0 in one window.
type State struct {
	Pairs    modules.Recent[Pair, Count]
	Subjects uint32 // pairs seen; not lowered when one is forgotten
}

// Pair is another host, and which side of the flows to it used port 0.
type Pair struct {
	Peer  netip.Addr
	Proto flow.Proto
	Orig  bool // the originator is to blame; else the responder
}

// Count is how often.
type Count struct {
	Flows int64
	Rank  uint32 // its place among the subjects, from 1
	Step  int
}

type rule struct{}

var _ modules.Rule[State] = rule{}

// New returns the rule.
func New(Config, modules.Env) (modules.Rule[State], error) { return rule{}, nil }

// Wants implements modules.Chooser. A flow that is open is told again and
// again, and counts when it ends.
func (rule) Wants(f *flow.Flow) bool {
	return f.HasPorts && (f.SrcPort == 0 || f.DstPort == 0) && !f.Open &&
		(f.Proto == flow.TCP || f.Proto == flow.UDP || f.Proto == flow.SCTP) // the others have no ports, whatever the log shows in their place
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if !r.Wants(f) || cx.Role() != profile.Client {
		return
	}
	if !f.Src.IsValid() || !f.Dst.IsValid() || f.Dst.IsMulticast() {
		return
	}
	// Whoever sends to port 0 and gets no answer, or a refusal, probes; only a
	// responder that answers from there uses it.
	p := Pair{Peer: f.Dst, Proto: f.Proto, Orig: f.SrcPort == 0 || f.RespPkts == 0 || f.State == flow.NotEstablished}
	c, _ := st.Pairs.Get(p)
	c.Flows++
	if c.Rank == 0 {
		st.Subjects++
		c.Rank = st.Subjects
	}
	step := modules.Step(c.Flows, 1)
	// The first 63 pairs are told from their first flow on, later ones from a
	// higher step, one more for each doubling of their number.
	if step > c.Step {
		c.Step = step
		if step > bits.Len32(c.Rank/freeSubjects) {
			r.report(cx, f, p, c)
		}
	}
	st.Pairs.Put(p, c, maxPairs)
}

func (r rule) report(cx *modules.Context, f *flow.Flow, p Pair, c Count) {
	src, dst := evidence.IPEntity(f.Src, evidence.Src, f.SrcPort), evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort)
	e := evidence.Evidence{
		Type: Port0, Level: evidence.High, Confidence: 0.8,
		Profile: f.Src, Attacker: src, Victim: dst,
		Description: fmt.Sprintf("connection on port 0 from %s to %s/%s",
			netip.AddrPortFrom(f.Src, f.SrcPort), netip.AddrPortFrom(f.Dst, f.DstPort), f.Proto),
		Proto: f.Proto.String(), SrcPort: f.SrcPort, DstPort: f.DstPort,
		Count: c.Flows, Subject: fmt.Sprintf("to %s|%s", f.Dst, f.Proto), Step: c.Step,
	}
	if c.Flows < sure {
		// A single one may be a fragment without its ports, or damage.
		e.Level, e.Confidence = evidence.Medium, 0.5
	}
	if !p.Orig {
		e.Profile, e.Attacker, e.Victim = f.Dst, dst, src
		e.Subject = fmt.Sprintf("with %s|%s", f.Src, f.Proto)
	}
	e.UIDs = modules.UID(f.UID)
	cx.Emit(e)
}
