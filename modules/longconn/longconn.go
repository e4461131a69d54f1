// Package longconn reports connections that last long, and those that are kept
// up for orders that may come.
package longconn

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Long is the evidence this module emits.
const Long evidence.Type = "LONG_CONNECTION"

// Config holds the thresholds.
type Config struct {
	LongConnectionThreshold int64 `yaml:"long_connection_threshold"` // s; only what lasts longer is reported
	TotalThreshold          int64 `yaml:"total_threshold"`           // s; several connections to one host together, in a day
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name: "longconn",
	Doc:  "connections that last long, by themselves or together, ended or still open; those kept up at uncommon ports",
	// Long flows reach us when their window is long past; their state must not
	// be gone by then.
	Scope: modules.PerProfile,
	Kinds: flow.Of(flow.Conn),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{{
		Type: Long, Level: evidence.Low, Tactic: evidence.CommandAndControl, MITRE: []string{"T1071", "T1095", "T1571"}, Subject: "address, port, protocol; or address", Over: "flow; 24 h", Method: "Threshold",
		Doc: "a connection, or several to one host together, lasts longer than the threshold, or is kept up at an uncommon port with hardly any traffic",
	}},
}, Config{LongConnectionThreshold: 1500, TotalThreshold: 3600}, New)

const (
	// maxPeers bounds the peers that one state remembers. Those forgotten first
	// were reported longest ago; when their connections grow on, they may be
	// reported again, which is better than never.
	maxPeers = 1024
	// piece is the shortest connection that counts towards a total. Shorter
	// ones are most of the traffic and little of the time.
	piece = 60 * int64(time.Second)
	// day is how long a total is added up before it begins anew.
	day = 24 * int64(time.Hour)
)

// State is what is known of a host.
type State struct {
	Peers  modules.Recent[Peer, int]  // the last step reported
	Totals modules.RecentTable[Total] // by the hash of the other end: two that share one are taken for one
	Kept   Kept
}

// Peer is one end that the host talked to in one window.
type Peer struct {
	Window int64
	Dst    netip.Addr
	Port   uint16
	Proto  flow.Proto
}

// Total is the time in which the host was connected to another. What lies
// between From and Until is taken for covered, so connections at the same time
// count once, and one that fills a gap later does not count.
type Total struct {
	From, Until int64 // unix ns
	Sum         int64 // ns
	Flows       int64
	Longest     int64 // ns
	Step        int
	UIDs        []string // of the latest connections, the oldest first
}

// maxUIDs bounds the uids of a total.
const maxUIDs = 10

type rule struct{ threshold, total int64 } // ns

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// maxThreshold is where the nanoseconds of a duration are about to overflow.
const maxThreshold = math.MaxInt64 / int64(time.Second)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	for _, v := range []struct {
		key string
		n   int64
	}{{"long_connection_threshold", c.LongConnectionThreshold}, {"total_threshold", c.TotalThreshold}} {
		if v.n < 1 || v.n > maxThreshold {
			return nil, fmt.Errorf("%s: %d is not in 1..%d", v.key, v.n, maxThreshold)
		}
	}
	return rule{c.LongConnectionThreshold * int64(time.Second), c.TotalThreshold * int64(time.Second)}, nil
}

// Wants implements modules.Chooser.
func (r rule) Wants(f *flow.Flow) bool {
	return f.Duration > min(r.threshold, piece)
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client || !f.Dst.IsValid() || f.Dst.IsMulticast() || f.Src.IsMulticast() {
		return
	}
	if f.Duration > r.threshold {
		r.single(cx, st, f)
	}
	if f.Duration >= piece {
		r.sum(cx, st, f)
		if f.Proto == flow.TCP && !common(f.DstPort) {
			st.Kept.add(cx, f)
		}
	}
}

// single reports one connection.
func (r rule) single(cx *modules.Context, st *State, f *flow.Flow) {
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
		UIDs: modules.UID(f.UID), Count: 1,
		Subject: fmt.Sprintf("%s|%d|%s", p.Dst, p.Port, p.Proto), Step: step,
	})
}

// sum adds a connection to the total of its pair and reports what that comes to.
// A total that is one connection's is left to single.
func (r rule) sum(cx *modules.Context, st *State, f *flow.Flow) {
	start, end := f.Time, f.Time+f.Duration
	t := st.Totals.Put(modules.Hash(f.Dst, 0), maxPeers)
	if t.From == 0 || end-t.From > day {
		*t = Total{From: max(1, start), Until: start, UIDs: t.UIDs[:0]}
	}
	t.Sum += max(0, min(end, t.From)-start) + max(0, end-max(start, t.Until))
	t.From, t.Until = min(t.From, start), max(t.Until, end)
	t.Longest = max(t.Longest, f.Duration)
	if !f.Open {
		t.Flows++
	}
	if t.Sum < r.total/2 {
		return // most totals never get there
	}
	t.UIDs = remember(t.UIDs, f.UID)
	step := modules.Step(t.Sum, r.total)
	if step <= t.Step || t.Flows < 2 || t.Sum <= t.Longest*5/4 {
		return
	}
	t.Step = step
	cx.Emit(evidence.Evidence{
		Type: Long, Level: evidence.Low,
		Confidence: math.Round(100*min(1, float64(t.Sum)/float64(day))) / 100,
		Attacker:   evidence.IPEntity(f.Src, evidence.Src, 0),
		Victim:     evidence.IPEntity(f.Dst, evidence.Dst, 0),
		Description: fmt.Sprintf("long connections from %s to %s: %d of them together lasted %d minutes within a day",
			f.Src, f.Dst, t.Flows, t.Sum/int64(time.Minute)),
		Proto: f.Proto.String(), UIDs: append([]string(nil), t.UIDs...), Count: t.Flows,
		Subject: f.Dst.String() + "|total", Step: step,
	})
}

// remember adds a uid to the latest ones.
func remember(uids []string, uid string) []string {
	if len(uids) > 0 && uids[len(uids)-1] == uid {
		return uids
	}
	return modules.KeepUID(uids, uid, maxUIDs)
}

// where writes the other end: its port too, where it has one.
func where(p Peer) string {
	if p.Port == 0 {
		return fmt.Sprintf("%s (%s)", p.Dst, p.Proto)
	}
	return fmt.Sprintf("%s port %d/%s", p.Dst, p.Port, p.Proto)
}
