// Package privateip reports which private addresses a private host talks to.
package privateip

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Private is the evidence this module emits.
const Private evidence.Type = "CONNECTION_TO_PRIVATE_IP"

// Config holds the settings.
type Config struct {
	// MaxPerWindow bounds the addresses reported for one host in a window, 1 to 1000.
	MaxPerWindow int `yaml:"max_per_window"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "privateip",
	Doc:   "connections between private addresses",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.Conn),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{{
		Type: Private, Level: evidence.Info, Tactic: evidence.Context, Subject: "victim", Over: "flow",
		Doc: "a host with a private address connected to another one",
	}},
}, Config{MaxPerWindow: 20}, New)

// State is what was reported of a host in one window.
type State struct {
	// Seen holds the hashes of the addresses reported. Two that share one are
	// taken for one, which costs a line of information.
	Seen modules.Table[bool]
}

type rule struct{ max int }

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MaxPerWindow < 1 || c.MaxPerWindow > 1000 {
		return nil, fmt.Errorf("max_per_window: %d is not in 1..1000", c.MaxPerWindow)
	}
	return rule{c.MaxPerWindow}, nil
}

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
	if cx.Role() != profile.Client || st.Seen.Len() >= r.max || !r.Wants(f) {
		return
	}
	k := hash(f.Dst)
	if st.Seen.Get(k) != nil || !profile.IsScannable(f.Src) || !profile.IsScannable(f.Dst) || isBroadcast(cx.Network(), f) {
		return
	}
	*st.Seen.Put(k) = true
	port, where := f.DstPort, fmt.Sprintf("port %d/%s", f.DstPort, f.Proto)
	if f.Proto.IsICMP() || !f.HasPorts {
		port, where = 0, "protocol "+f.Proto.String()
	}
	more := ""
	if st.Seen.Len() == r.max {
		more = " Further addresses in this window are not reported."
	}
	e := evidence.Evidence{
		Type: Private, Level: evidence.Info, Confidence: 1,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Victim: evidence.IPEntity(f.Dst, evidence.Dst, port),
		Description: fmt.Sprintf("%s connected to the private address %s, %s.%s", f.Src, f.Dst, where, more),
		Proto:       f.Proto.String(), DstPort: port, Count: 1, Subject: f.Dst.String(), Step: 1,
	}
	if f.UID != "" {
		e.UIDs = []string{strings.Clone(f.UID)}
	}
	cx.Emit(e)
}

// isBroadcast reports whether a datagram goes to what looks like the broadcast
// address of a home network: most are a /24.
func isBroadcast(n *profile.Network, f *flow.Flow) bool {
	a := f.Dst.Unmap()
	return f.Proto == flow.UDP && a.Is4() && a.As4()[3] == 255 && n.IsHome(a)
}

// hash returns a hash of an address that is the same in every run.
func hash(a netip.Addr) uint32 {
	b := a.As16()
	hi, lo := bits.Mul64(binary.BigEndian.Uint64(b[:8])^0xa0761d6478bd642f, binary.BigEndian.Uint64(b[8:])^0xe7037ed1a0b428db)
	return uint32(hi ^ lo)
}
