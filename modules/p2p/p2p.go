// Package p2p recognises hosts that run a peer-to-peer program, so that a
// reader knows why other evidence about them weighs little.
package p2p

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Traffic is the evidence this module emits.
const Traffic evidence.Type = "P2P_TRAFFIC"

// Config holds the threshold.
type Config struct {
	MinPeers int64 `yaml:"min_peers"` // peers in a window for the first report
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "p2p",
	Doc:   "traffic of peer-to-peer programs",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.Conn),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{{
		Type: Traffic, Level: evidence.Info, Tactic: evidence.Context, Subject: "host", Over: "window", Doc: "a host talks to many peers, as peer-to-peer programs do",
	}},
}, Config{MinPeers: 40}, New)

const (
	// maxPeers bounds the peers told apart in one window: three tables of
	// 64 KB each. What one host does with 4,096 peers says enough.
	maxPeers = 4096
	// firstUnprivileged is the first port that peers pick from.
	firstUnprivileged = 1024
	// The ports that BitTorrent programs use unless told otherwise.
	firstTorrent, lastTorrent = 6881, 6889
)

// The bits of a value of State.Pairs.
const (
	answered = 1 << iota
	failed
	torrent
)

// State is what a host did in one window.
type State struct {
	Pairs    modules.Table[uint8] // by hash of address and port
	Hosts    modules.Table[bool]
	Ports    modules.Table[bool]
	Answered int64 // pairs that answered
	Failed   int64 // pairs that did not, at least once
	Torrent  int64 // pairs that the sensor or the port shows to be BitTorrent's
	TCP, UDP bool
	Flows    int64
	Step     int
	UIDs     []string
}

type rule struct{ min int64 }

var (
	_ modules.Rule[State]    = rule{}
	_ modules.Chooser        = rule{}
	_ modules.Toucher[State] = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MinPeers < 10 || c.MinPeers > maxPeers/2 {
		return nil, fmt.Errorf("min_peers: %d is not in 10..%d", c.MinPeers, maxPeers/2)
	}
	return rule{c.MinPeers}, nil
}

// Wants implements modules.Chooser. What comes from a port below 1024 is a
// service that answers; QUIC and the like are below 1024 on the other side.
func (rule) Wants(f *flow.Flow) bool {
	return f.DstPort >= firstUnprivileged && f.SrcPort >= firstUnprivileged && f.HasPorts &&
		(f.Proto == flow.TCP || f.Proto == flow.UDP) && profile.IsPublic(f.Dst)
}

func hashes(f *flow.Flow) (pair, host uint32) {
	a := f.Dst.As16()
	h := (binary.BigEndian.Uint64(a[:8]) ^ 0x9e3779b97f4a7c15) * 0xff51afd7ed558ccd
	h = (h ^ h>>32 ^ binary.BigEndian.Uint64(a[8:])) * 0xc4ceb9fe1a85ec53
	p := (h ^ uint64(f.DstPort)<<16) * 0x9fb21c651e98df25
	return uint32(p>>32) ^ uint32(p), uint32(h >> 32)
}

// Touch implements modules.Toucher.
func (rule) Touch(st *State, f *flow.Flow) uint32 {
	pair, host := hashes(f)
	return st.Pairs.Touch(pair) + st.Hosts.Touch(host)
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client || f.State == flow.StateUnknown {
		return
	}
	bits := uint8(failed)
	if f.State == flow.Established || f.RespPkts > 0 && f.RespBytes > 0 {
		bits = answered
	}
	if f.DstPort >= firstTorrent && f.DstPort <= lastTorrent || strings.HasPrefix(f.Service, "bittorrent") {
		bits |= torrent
	}
	pair, host := hashes(f)
	v := st.Pairs.Get(pair)
	if v == nil {
		if st.Pairs.Len() >= maxPeers {
			return
		}
		v = st.Pairs.Put(pair)
		*st.Hosts.Put(host) = true
		*st.Ports.Put(uint32(f.DstPort)) = true
		if f.UID != "" && len(st.UIDs) < evidence.MaxUIDs && int64(st.Hosts.Len()) > r.min/2 {
			st.UIDs = append(st.UIDs, strings.Clone(f.UID))
		}
	}
	st.Flows++
	st.TCP, st.UDP = st.TCP || f.Proto == flow.TCP, st.UDP || f.Proto == flow.UDP
	added := bits &^ *v
	if added == 0 {
		return
	}
	*v |= added
	st.Answered += int64(added & answered)
	st.Failed += int64(added & failed / failed)
	st.Torrent += int64(added & torrent / torrent)
	step := modules.Step(int64(st.Hosts.Len()), r.min)
	if step <= st.Step || !st.peers() {
		return
	}
	st.Step = step
	r.report(cx, st, f)
}

// peers reports whether the traffic looks like that of a peer-to-peer
// program. Each peer listens on a port of its own choice, so there are about
// as many ports as hosts and as many pairs of them; a scan has few hosts, few
// ports, or tries each port on each host. Some peers answer and some went away.
func (st *State) peers() bool {
	pairs, hosts, ports := int64(st.Pairs.Len()), int64(st.Hosts.Len()), int64(st.Ports.Len())
	if st.Answered*10 < pairs || pairs > 2*hosts {
		return false
	}
	if st.Torrent*10 >= hosts { // many peers have kept the usual ports
		return true
	}
	return ports*2 >= hosts && st.Failed*20 >= pairs
}

func (r rule) report(cx *modules.Context, st *State, f *flow.Flow) {
	hosts := int64(st.Hosts.Len())
	over := "UDP"
	switch {
	case st.TCP && st.UDP:
		over = "TCP and UDP"
	case st.TCP:
		over = "TCP"
	}
	name := "a peer-to-peer program"
	if st.Torrent*10 >= hosts {
		name = "a BitTorrent program"
	}
	cx.Emit(evidence.Evidence{
		Type: Traffic, Level: evidence.Info, Confidence: math.Round(100*min(1, 0.5+float64(hosts)/1000)) / 100,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
		Description: fmt.Sprintf("%s runs %s: it talks over %s to %d hosts on %d different high ports, %d of %d answered",
			f.Src, name, over, hosts, st.Ports.Len(), st.Answered, st.Pairs.Len()),
		Proto: f.Proto.String(), Count: st.Flows, UIDs: append([]string(nil), st.UIDs...), Subject: "p2p", Step: st.Step,
	})
}
