// Package privateip reports which private addresses a private host talks to.
package privateip

import (
	"fmt"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Private is the evidence this module emits.
const Private evidence.Type = "CONNECTION_TO_PRIVATE_IP"

// Config is empty: there is nothing to set.
type Config struct{}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "privateip",
	Doc:   "connections between private addresses",
	Scope: modules.PerProfile,
	Kinds: flow.Of(flow.Conn),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{{
		Type: Private, Level: evidence.Info, Tactic: evidence.Context, Subject: "host", Over: "lifetime of the profile",
		Doc: "a host with a private address connected to others",
	}},
}, Config{}, New)

const (
	// growth is the factor between two reports: the first address, the eighth,
	// the 64th, the 512th. Every file server is one of them, all day.
	growth = 8
	// maxSeen bounds the addresses told apart.
	maxSeen = growth * growth * growth
)

// State is what a host did.
type State struct {
	// Seen holds the hashes of the addresses. Two that share one are taken for
	// one, which costs a line of information at most.
	Seen modules.Table[bool]
	Step int
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
	return profile.IsPrivate(f.Dst) && profile.IsPrivate(f.Src) && !isHousekeeping(f)
}

// isHousekeeping reports whether the flow is one that every host needs in
// order to be on a network at all: names, addresses, and the messages of
// ICMP that are no question to a host.
func isHousekeeping(f *flow.Flow) bool {
	switch f.Proto {
	case flow.UDP, flow.TCP:
		return f.HasPorts && (f.DstPort == 53 || f.DstPort == 67 || f.DstPort == 68 || f.DstPort == 547)
	case flow.ICMP:
		return f.HasPorts && f.SrcPort != 8 // echo; Zeek logs the type as the port
	case flow.ICMP6:
		return f.HasPorts && f.SrcPort != 128
	default:
		return f.Proto == flow.IGMP || f.Proto == flow.ProtoARP
	}
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client || st.Seen.Len() >= maxSeen || !r.Wants(f) {
		return
	}
	k := modules.Hash(f.Dst, 0)
	if st.Seen.Get(k) != nil || !profile.IsScannable(f.Src) || !profile.IsScannable(f.Dst) || isBroadcast(cx.Network(), f) {
		return
	}
	*st.Seen.Put(k) = true
	n, next := st.Seen.Len(), 1
	for range st.Step {
		next *= growth
	}
	if n < next {
		return
	}
	st.Step++
	port, where := f.DstPort, fmt.Sprintf("port %d/%s", f.DstPort, f.Proto)
	if f.Proto.IsICMP() || !f.HasPorts {
		port, where = 0, "protocol "+f.Proto.String()
	}
	what := fmt.Sprintf("%s connected to the private address %s, %s.", f.Src, f.Dst, where)
	if n > 1 {
		what = fmt.Sprintf("%s connected to %d private addresses, the last of them %s, %s.", f.Src, n, f.Dst, where)
	}
	e := evidence.Evidence{
		Type: Private, Level: evidence.Info, Confidence: 1,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Victim: evidence.IPEntity(f.Dst, evidence.Dst, port),
		Description: what, Proto: f.Proto.String(), DstPort: port, Count: int64(n), Subject: "private", Step: st.Step,
	}
	e.UIDs = modules.UID(f.UID)
	cx.Emit(e)
}

// isBroadcast reports whether a datagram goes to what looks like the broadcast
// address of a home network: most are a /24.
func isBroadcast(n *profile.Network, f *flow.Flow) bool {
	a := f.Dst.Unmap()
	return f.Proto == flow.UDP && a.Is4() && a.As4()[3] == 255 && n.IsHome(a)
}
