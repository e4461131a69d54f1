// Package slowscan reports scans that take their time: too few targets in any
// window for portscan, and many over a day; or just enough for it, in one
// window after another.
package slowscan

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

// The evidence this module emits, of the same types as portscan's.
const (
	Vertical   evidence.Type = "VERTICAL_PORT_SCAN"
	Horizontal evidence.Type = "HORIZONTAL_PORT_SCAN"
)

// Config holds the thresholds.
type Config struct {
	MinTargets int64 `yaml:"min_targets"`  // hosts on one port, or ports of one host, within a day
	MinWindows int64 `yaml:"min_windows"`  // time windows they have to be spread over
	MaxPerHour int64 `yaml:"max_per_hour"` // targets in one window from which it is a fast scan, which portscan tells
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "slowscan",
	Doc:   "scans that are spread over several time windows",
	Scope: modules.PerProfile,
	Kinds: flow.Of(flow.Conn),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{
		{Type: Vertical, Level: evidence.High, Tactic: evidence.Discovery, MITRE: []string{"T1046"}, Method: "Recon", Subject: "slow, victim", Over: "24 h", Doc: "one host was tried on many ports, slowly"},
		{Type: Horizontal, Level: evidence.High, Tactic: evidence.Discovery, MITRE: []string{"T1046"}, Method: "Recon", Subject: "slow or again, port/protocol", Over: "24 h", Doc: "one port was tried on many hosts, slowly or again and again"},
	},
}, Config{MinTargets: 12, MinWindows: 3, MaxPerHour: 6}, New)

const (
	day = 24 * int64(time.Hour)
	// maxPairs and maxTallies bound what is remembered of one host, in entries
	// of 12 and about 200 bytes; what was touched last stays.
	maxPairs   = 2048
	maxTallies = 256
	maxUIDs    = 20
	// fastPairs is the number of new pairs in one window from which the host is
	// a fast scanner, and the rest of the window is left to portscan.
	fastPairs = 64
)

// State is what a host tried over the last day without success.
type State struct {
	Many *Counts // of a host that tried several pairs; nil: there is only One
	One  First
}

// First is the only pair that a host tried so far. Most hosts of the Internet
// that turn up never try another.
type First struct {
	Second     uint32 // of unix time, as in Counts.Pairs; 0: there is none
	Pair, Host uint32 // hashes
	Port       uint32 // the key in Counts.Ports; 0: it is no service
	At         int64  // start of the flow, unix ns
	Window     int64
	Public     bool // the host is one of the Internet
}

// Counts is what a host tried that tried several pairs.
type Counts struct {
	// Window and New say how many new pairs the window at hand brought.
	Window int64
	New    int64

	// All three are keyed by hashes; two things that share one are taken for one.
	Pairs modules.RecentTable[uint32] // host and port: second of unix time it was first tried in
	Hosts modules.RecentTable[Tally]  // a host: its ports
	Ports modules.RecentTable[Tally]  // protocol and port: its hosts
}

// Tally counts the targets of one subject.
type Tally struct {
	First   int64 // start of the first flow that counts, unix ns
	Window  int64 // number of the last window
	Now     int64 // targets new in that window
	Targets int64
	Windows int64
	Fast    bool // it is a fast scan in the window at hand
	Step    int
	Public  int64 // of Now, targets in the Internet
	Scans   int64 // windows with as many of those as a fast scan has
	Last    int64 // number of the last one
	UIDs    []string
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
	}{{"min_targets", c.MinTargets}, {"min_windows", c.MinWindows}, {"max_per_hour", c.MaxPerHour}} {
		if v.n < 2 || v.n > 1000 {
			return nil, fmt.Errorf("%s: %d is not in 2..1000", v.key, v.n)
		}
	}
	return rule{c}, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	return f.State == flow.NotEstablished && f.HasPorts && f.RespBytes == 0 && !f.Open && f.Proto == flow.TCP
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if !r.Wants(f) || cx.Role() != profile.Client || !profile.IsScannable(f.Dst) || !profile.IsScannable(f.Src) ||
		f.RawState == "" && f.Sensor == flow.Zeek || f.OrigPkts == 0 && f.RespPkts > 0 || strings.IndexByte(f.History, '^') >= 0 {
		return
	}
	w := cx.Window().N
	if st.Many != nil && st.Many.in(w) >= fastPairs {
		return
	}
	now := First{
		Second: uint32(f.Time/int64(time.Second)) + 1, Pair: modules.Hash(f.Dst, uint64(f.DstPort)), Host: modules.Hash(f.Dst, 0),
		At: f.Time, Window: w, Public: profile.IsPublic(f.Dst),
	}
	if service(f.DstPort) {
		now.Port = uint32(f.Proto)<<16 | uint32(f.DstPort)
	}
	n := st.Many
	if n == nil {
		if st.One.take(&now, r.c.MinTargets) {
			return
		}
		n = st.unfold()
		n.in(w)
	}
	if !n.admit(&now) {
		return
	}
	if now.Port != 0 {
		t := n.Ports.Put(now.Port, maxTallies)
		if r.add(cx, t, f) {
			r.report(cx, f, t, Horizontal)
		}
		r.again(cx, t, f)
	}
	if t := n.Hosts.Put(now.Host, maxTallies); r.add(cx, t, f) {
		r.report(cx, f, t, Vertical)
	}
}

// in returns how many new pairs window w brought so far.
func (n *Counts) in(w int64) int64 {
	if w != n.Window {
		n.Window, n.New = w, 0
	}
	return n.New
}

// take makes now the only pair, or leaves it at that when it is the same
// again. It returns false when there is more to count: with two targets to
// report, the first already leaves its uid.
func (t *First) take(now *First, targets int64) bool {
	if t.Second == 0 && now.Second != 0 && targets > 2 {
		*t = *now
		return true
	}
	return t.Pair == now.Pair && t.Window == now.Window && t.within(now)
}

// within reports whether now comes within a day of t.
func (t *First) within(now *First) bool {
	return t.Second != 0 && int64(now.Second)-int64(t.Second) < day/int64(time.Second)
}

// admit notes that a pair was tried, and reports whether it was not on the day before.
func (n *Counts) admit(t *First) bool {
	p := n.Pairs.Put(t.Pair, maxPairs)
	if before := (First{Second: *p}); before.within(t) {
		return false
	}
	*p = t.Second
	n.New++
	return true
}

// unfold makes room for several pairs, and counts the first, which completes
// no step.
func (st *State) unfold() *Counts {
	n, t := new(Counts), st.One
	st.Many, st.One = n, First{}
	if t.Second == 0 {
		return n
	}
	n.Window = t.Window
	n.admit(&t)
	c := newTally(t.At, t.Window)
	c.Now, c.Targets = 1, 1
	*n.Hosts.Put(t.Host, maxTallies) = c
	if t.Port != 0 {
		if t.Public {
			c.Public = 1
		}
		*n.Ports.Put(t.Port, maxTallies) = c
	}
	return n
}

// newTally begins with a flow that started at the time, in the window.
func newTally(at, window int64) Tally { return Tally{First: max(1, at), Window: window, Windows: 1} }

// service reports whether a port is one that is only ever tried on purpose.
// Web, name and mail servers that are gone are met by everybody, and so are
// peers on ports of their own: those are left to portscan, which knows how
// many others answered.
func service(port uint16) bool {
	switch port {
	case 25, 53, 80, 110, 123, 143, 443, 465, 587, 993, 995:
		return false
	case 1433, 1521, 2323, 2375, 3306, 3389, 5432, 5555, 5900, 5985, 6379, 7547, 9200, 27017, 37215:
		return true
	}
	return port < 1024
}

// add counts a new target and reports whether it completes a step.
func (r rule) add(cx *modules.Context, t *Tally, f *flow.Flow) bool {
	w := cx.Window().N
	if t.First == 0 || f.Time-t.First > day {
		*t = newTally(f.Time, w)
	}
	if w != t.Window {
		t.Window, t.Now, t.Fast, t.Public = w, 0, false, 0
		t.Windows++
	}
	t.Now++
	t.Targets++
	if t.Now >= r.c.MaxPerHour && !t.Fast {
		// What it was so far is told by portscan; only what it does from the
		// next window on can be slow.
		*t = Tally{First: max(1, f.Time), Window: w, Now: t.Now, Fast: true, Public: t.Public, Scans: t.Scans, Last: t.Last}
	}
	if t.Fast {
		t.Targets = 0
		return false
	}
	if 2*t.Targets >= r.c.MinTargets { // most never get that far
		t.UIDs = modules.KeepUID(t.UIDs, f.UID, maxUIDs)
	}
	step := modules.Step(t.Targets, r.c.MinTargets)
	if step <= t.Step || t.Windows < r.c.MinWindows {
		return false
	}
	t.Step = step
	return true
}

func (r rule) report(cx *modules.Context, f *flow.Flow, t *Tally, typ evidence.Type) {
	e := evidence.Evidence{
		Type: typ, Level: evidence.High, Confidence: confidence(t.Step), Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
		Proto: f.Proto.String(), Count: t.Targets, Step: t.Step, UIDs: append([]string(nil), t.UIDs...),
	}
	hours := float64(f.Time-t.First) / float64(time.Hour)
	if typ == Vertical {
		e.Victim = evidence.IPEntity(f.Dst, evidence.Dst, 0)
		e.Subject = "slow|" + f.Dst.String()
		e.Description = fmt.Sprintf("slow vertical port scan of %s by %s: %d %s ports in %.1f hours, over %d time windows",
			f.Dst, f.Src, t.Targets, f.Proto, hours, t.Windows)
	} else {
		e.DstPort = f.DstPort
		e.Subject = fmt.Sprintf("slow|%d/%s", f.DstPort, f.Proto)
		e.Description = fmt.Sprintf("slow horizontal port scan of port %d/%s by %s: %d hosts in %.1f hours, over %d time windows",
			f.DstPort, f.Proto, f.Src, t.Targets, hours, t.Windows)
	}
	cx.Emit(e)
}

// again counts the windows in which a service port was scanned in the
// Internet, and reports each but the first. The dead hosts of one hour may be
// somebody's list; whoever finds as many new ones in another is looking for them.
// In a network of one's own, those are the machines that are switched off.
func (r rule) again(cx *modules.Context, t *Tally, f *flow.Flow) {
	if !profile.IsPublic(f.Dst) {
		return
	}
	if t.Public++; t.Public != r.c.MaxPerHour {
		return
	}
	before := t.Scans
	if t.Last != t.Window {
		t.Scans++
	}
	late := before > 0 && t.Last >= t.Window // it was counted, or a record is late
	t.Last = max(t.Last, t.Window)
	if before == 0 || late {
		return
	}
	e := evidence.Evidence{
		Type: Horizontal, Level: evidence.High, Confidence: 1, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
		Proto: f.Proto.String(), DstPort: f.DstPort, Count: t.Public, Step: 1, Subject: fmt.Sprintf("again|%d/%s", f.DstPort, f.Proto),
		Description: fmt.Sprintf("horizontal port scan of port %d/%s by %s goes on: %d further hosts in the Internet; windows with as many before: %d",
			f.DstPort, f.Proto, f.Src, t.Public, before),
	}
	e.UIDs = modules.UID(f.UID)
	cx.Emit(e)
}

// confidence is 0.5 at the first step and grows to 1 with two doublings.
func confidence(step int) float64 { return math.Min(1, 0.25+0.25*float64(step)) }
