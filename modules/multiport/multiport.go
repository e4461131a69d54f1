// Package multiport reports hosts that reach several ports of one other host
// on which no service is known.
package multiport

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// MultiplePorts is the evidence this module emits.
const MultiplePorts evidence.Type = "CONNECTION_TO_MULTIPLE_PORTS"

// Config holds the threshold.
type Config struct {
	MinPorts int `yaml:"min_ports"` // unknown ports of one host for the first report, 2 to 64
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "multiport",
	Doc:   "connections to several unknown ports of one host",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.Conn),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{{
		Type: MultiplePorts, Level: evidence.Info, Tactic: evidence.Context, MITRE: []string{"T1571"},
		Subject: "victim", Over: "window", Method: "Threshold", Doc: "a host reached several ports of another host on which no service is known",
	}},
}, Config{MinPorts: 2}, New)

const (
	// maxPorts bounds the ports told apart of one host: a description of more
	// would not be read, and the count then stands for "at least".
	maxPorts = 64
	// maxUIDs bounds the uids kept for one host, one for each port.
	maxUIDs = 16
	// maxListed is how many ports a description lists.
	maxListed = 16
	// maxHosts bounds the hosts told apart at one time. When there are more,
	// those with the fewest ports are forgotten: peer-to-peer programs reach
	// thousands of hosts, and one port of each.
	maxHosts = 512
	// maxReports bounds the hosts reported in a window.
	maxReports = 50
)

// State is what a host reached in one window.
type State struct {
	Hosts   modules.Table[Target] // by hash of the address: two that share one are taken for one
	Reports int                   // hosts reported
}

// Target is a host and its unknown ports that were reached.
type Target struct {
	Ports []uint16 // in the order of their first use
	UIDs  []string
	Step  int
}

type rule struct {
	min   int64
	known *flow.PortSet
}

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MinPorts < 2 || c.MinPorts > maxPorts {
		return nil, fmt.Errorf("min_ports: %d is not in 2..%d", c.MinPorts, maxPorts)
	}
	return rule{min: int64(c.MinPorts), known: flow.AssignedPorts(flow.TCP)}, nil
}

// Wants implements modules.Chooser. The source port of FTP data connections
// makes their other one known.
func (r rule) Wants(f *flow.Flow) bool {
	return f.Proto == flow.TCP && f.State == flow.Established && f.Service == "" && f.DstPort != 0 && f.SrcPort != 20 &&
		f.HasPorts && !r.known.Has(f.DstPort)
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if !r.Wants(f) || cx.Role() != profile.Client || !profile.IsScannable(f.Src) || !profile.IsScannable(f.Dst) || isReply(f) {
		return
	}
	host := modules.Hash(f.Dst, 0)
	var t Target
	if known := st.Hosts.Get(host); known != nil {
		t = *known
	}
	if len(t.Ports) >= maxPorts || slices.Contains(t.Ports, f.DstPort) {
		return
	}
	t.Ports = append(t.Ports, f.DstPort)
	if f.UID != "" && len(t.UIDs) < maxUIDs {
		t.UIDs = append(t.UIDs, strings.Clone(f.UID))
	}
	if step := modules.Step(int64(len(t.Ports)), r.min); step > t.Step && (t.Step > 0 || st.Reports < maxReports) {
		if t.Step == 0 {
			st.Reports++
		}
		t.Step = step
		r.report(cx, f, t)
	}
	*st.Hosts.PutLargest(host, maxHosts, (*Target).weight) = t
}

func (t *Target) weight() int64 { return int64(len(t.Ports)) }

// isReply reports whether the flow looks like the answer of a service to a
// client, seen from the middle on: then the port is the client's.
func isReply(f *flow.Flow) bool {
	if f.History != "" {
		return !strings.Contains(f.History, "S") || strings.Contains(f.History, "^")
	}
	return f.SrcPort < 1024 && f.DstPort >= 1024
}

func (r rule) report(cx *modules.Context, f *flow.Flow, t Target) {
	var list []string
	for _, p := range t.Ports[:min(len(t.Ports), maxListed)] {
		list = append(list, strconv.Itoa(int(p)))
	}
	more := ""
	if n := len(t.Ports) - maxListed; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	cx.Emit(evidence.Evidence{
		Type: MultiplePorts, Level: evidence.Info, Confidence: 0.5,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Victim: evidence.IPEntity(f.Dst, evidence.Dst, 0),
		Description: fmt.Sprintf("%s reached %d ports of %s on which no service is known: %s%s",
			f.Src, len(t.Ports), f.Dst, strings.Join(list, ", "), more),
		Proto: "tcp", UIDs: slices.Clone(t.UIDs), Count: int64(len(t.Ports)), Subject: f.Dst.String(), Step: t.Step,
	})
}
