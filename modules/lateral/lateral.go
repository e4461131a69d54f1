// Package lateral reports hosts that spread to others of their own network:
// by Windows' administrative shares, services, tasks and WMI, and by sessions
// on the ports of administration.
package lateral

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// The evidence this module emits.
const (
	AdminShareWrite evidence.Type = "ADMIN_SHARE_WRITE"
	RemoteService   evidence.Type = "REMOTE_SERVICE"
	RemoteExecution evidence.Type = "REMOTE_EXECUTION"
	Fanout          evidence.Type = "LATERAL_FANOUT"
)

// Config holds the thresholds.
type Config struct {
	// MinHosts is the number of hosts reached for the first time on one port
	// of administration within an hour that is reported first, at least 2.
	MinHosts int `yaml:"min_hosts"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "lateral",
	Doc:   "a host that spreads to others: administrative shares, services, tasks, WMI, WinRM, many sessions on ports of administration",
	Scope: modules.PerProfile,
	Kinds: flow.Of(flow.Conn, flow.DCERPC, flow.SMB, flow.HTTP),
	Emits: []evidence.Spec{
		{
			Type: AdminShareWrite, Level: evidence.Medium, Tactic: evidence.LateralMovement, MITRE: []string{"T1021.002", "T1570"},
			Subject: "victim", Over: "window", Doc: "a program was put on the administrative share of another host",
		},
		{
			Type: RemoteService, Level: evidence.Medium, Tactic: evidence.Execution, MITRE: []string{"T1569.002", "T1543.003"},
			Subject: "victim, call", Over: "window", Doc: "a service, a task or the registry of another host was changed",
		},
		{
			Type: RemoteExecution, Level: evidence.Medium, Tactic: evidence.Execution, MITRE: []string{"T1047"},
			Subject: "victim, means", Over: "window", Doc: "a command was run on another host by WMI, WinRM or PsExec",
		},
		{
			Type: Fanout, Level: evidence.Medium, Tactic: evidence.LateralMovement, MITRE: []string{"T1021"},
			Subject: "port", Over: "1 h", Method: "Threshold", Doc: "a host opened sessions on the same port of administration of many hosts new to it",
		},
	},
}, Config{MinHosts: 8}, New)

const (
	// maxKnown bounds the hosts that a host is known to administer, besides the
	// first few, to those used last. With more of them forgotten ones look new, which a large fan-out is
	// anyway.
	maxKnown = 4096
	// maxSubjects bounds what is remembered as reported.
	maxSubjects = 1024
	// maxWindows bounds the windows in which service managers are counted.
	maxWindows = 64
	// slices of an hour are what the hosts of the last hour are counted in: who
	// goes from host to host does not stop because a window ends.
	slicesOfHour = 12
	slice        = int64(time.Hour) / slicesOfHour
	// maxExamples bounds the records named.
	maxExamples = 20
	// learning is how long a host is watched before what it reaches can be
	// called new: a management server shows all it manages in that time.
	learning = 2 * time.Hour
)

// State is what the module remembers of one profile. Most hosts have sessions
// with a few servers, the same all day: those are in Few, which is looked at
// first and lies with the rest in one piece of memory.
type State struct {
	Few      [6]uint32                   // the first ports of other hosts, as hashes; 0: free
	First    int64                       // time of the first session on a port of administration, unix ns
	Known    modules.RecentTable[uint32] // the others; the values say nothing
	Counts   []Port                      // at most as many as there are ports of administration
	Subjects modules.Recent[Subject, Count]
	Managers modules.Recent[int64, Count] // hosts whose services were asked for, by window
}

// Port counts the hosts on which a port was new within the last hour.
type Port struct {
	Port   uint16
	Step   uint8 // reported in Window
	Window int64 // start of the newest, unix ns
	Newest int64 // time, unix ns
	N      [slicesOfHour]uint32
	UIDs   []string // once there are nearly enough to report
}

// Subject is what is reported once in a window.
type Subject struct {
	Type   evidence.Type
	Addr   netip.Addr
	What   string
	Window int64
}

// Count counts what is behind a report.
type Count struct {
	N    int64
	Step int
	UIDs []string
}

type rule struct{ hosts int64 }

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MinHosts < 2 || c.MinHosts > maxKnown/2 {
		return nil, fmt.Errorf("min_hosts: %d is not between 2 and %d", c.MinHosts, maxKnown/2)
	}
	return rule{int64(c.MinHosts)}, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	switch f.Kind {
	case flow.Conn:
		return administers(f)
	case flow.DCERPC:
		return callOf(f.DCERPC).what != ""
	case flow.SMB:
		return shareOf(f.SMB) != none
	case flow.HTTP:
		return winRM(f)
	default:
		return false
	}
}

// Handle implements modules.Rule. Each kind of record is judged by itself.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client || !f.Dst.IsValid() || f.Dst == f.Src || !inside(cx, f.Src) || !inside(cx, f.Dst) {
		return
	}
	switch f.Kind {
	case flow.Conn:
		if administers(f) {
			r.session(cx, st, f)
		}
	case flow.DCERPC:
		r.call(cx, st, f, callOf(f.DCERPC))
	case flow.SMB:
		r.share(cx, st, f)
	case flow.HTTP:
		if winRM(f) {
			emit(cx, st, f, finding{
				Type: RemoteExecution, Level: evidence.Low, Confidence: 0.4, MITRE: []string{"T1021.006"}, what: "WinRM",
				text: "sent commands over WinRM (" + strconv.Itoa(int(f.DstPort)) + "/tcp) to",
			})
		}
	default: // not of a kind that is delivered
	}
}

// inside reports whether an address is one of the own network.
func inside(cx *modules.Context, a netip.Addr) bool {
	return profile.IsScannable(a) && (profile.IsPrivate(a) || cx.Network().IsHome(a))
}

// administers reports whether a connection is a session on a port of
// administration: one in which both sides said something.
func administers(f *flow.Flow) bool {
	if f.Proto != flow.TCP || f.State != flow.Established || f.RespBytes == 0 && f.RespPkts < 3 || f.OrigBytes == 0 && f.OrigPkts < 3 {
		return false
	}
	switch f.DstPort {
	case 22, 23, 135, 445, 3389, 5900, 5985, 5986:
		return true
	}
	return false
}

// session counts the hosts on which a port of administration was new to a host.
func (r rule) session(cx *modules.Context, st *State, f *flow.Flow) {
	if st.First == 0 || f.Time < st.First {
		st.First = f.Time
	}
	if st.known(modules.Hash(f.Dst, uint64(f.DstPort))) {
		return
	}
	c := st.count(f.DstPort)
	n := c.add(f.Time, cx.Window().Start)
	if 2*n >= r.hosts {
		c.UIDs = named(c.UIDs, f.UID)
	} else {
		c.UIDs = nil
	}
	step := modules.Step(n, r.hosts)
	if step <= int(c.Step) {
		return
	}
	c.Step = uint8(step)
	confidence, usual := 0.4, "; what it usually reaches is not known yet"
	if f.Time-st.First >= int64(learning) {
		confidence, usual = 0.7, ", none of which it reached before"
	}
	cx.Emit(evidence.Evidence{
		Type: Fanout, Time: c.Newest, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Level: evidence.Medium, Confidence: confidence,
		MITRE: []string{technique(f.DstPort)},
		Description: fmt.Sprintf("%s opened sessions on port %d/tcp of %d hosts of the network within an hour%s.",
			f.Src, f.DstPort, n, usual),
		Proto: "tcp", DstPort: f.DstPort, UIDs: slices.Clone(c.UIDs), Count: n, Subject: "port " + strconv.Itoa(int(f.DstPort)), Step: step,
	})
}

// known reports whether a host was reached on a port before, and notes that it
// was now.
func (st *State) known(k uint32) bool {
	for i, p := range st.Few {
		switch p {
		case k:
			return true
		case 0:
			st.Few[i] = k
			return false
		}
	}
	n := st.Known.Put(k, maxKnown)
	was := *n != 0
	*n = 1
	return was
}

// count returns the count of a port.
func (st *State) count(port uint16) *Port {
	for i := range st.Counts {
		if c := &st.Counts[i]; c.Port == port {
			return c
		}
	}
	st.Counts = append(st.Counts, Port{Port: port})
	return &st.Counts[len(st.Counts)-1]
}

// add counts a new host and returns how many there are in the hour up to the
// newest. Those of a report are told and do not count in the next window.
// Connections are logged when they end, so some are of before.
func (c *Port) add(t, window int64) int64 {
	if window > c.Window {
		if c.Step > 0 {
			*c = Port{Port: c.Port}
		}
		c.Window = window
	}
	if t > c.Newest {
		for i := max(c.Newest/slice, t/slice-slicesOfHour) + 1; i <= t/slice; i++ {
			c.N[i%slicesOfHour] = 0
		}
		c.Newest = t
	}
	if c.Newest/slice-t/slice < slicesOfHour {
		c.N[(t/slice)%slicesOfHour]++
	}
	n := int64(0)
	for _, k := range c.N {
		n += int64(k)
	}
	return n
}

func technique(port uint16) string {
	switch port {
	case 22:
		return "T1021.004"
	case 445:
		return "T1021.002"
	case 3389:
		return "T1021.001"
	case 5900:
		return "T1021.005"
	case 5985, 5986:
		return "T1021.006"
	case 135:
		return "T1021.003"
	}
	return "T1021"
}

// winRM reports whether a request is one of Windows' remote management.
func winRM(f *flow.Flow) bool {
	return f.HTTP.Method == "POST" && strings.HasPrefix(f.HTTP.URI, "/wsman") && f.HTTP.StatusCode != 401
}

// finding is what a record says, for emit to fill in the rest.
type finding struct {
	Type       evidence.Type
	Level      evidence.Level
	Confidence float64
	MITRE      []string
	what       string // part of the subject
	text       string // between the two hosts
}

// emit reports a finding once for each victim and subject in a window, and
// again when it has doubled.
func emit(cx *modules.Context, st *State, f *flow.Flow, d finding) {
	k := Subject{d.Type, f.Dst, d.what, cx.Window().Start}
	c, _ := st.Subjects.Get(k)
	c.N++
	c.UIDs = named(c.UIDs, f.UID)
	step := modules.Step(c.N, 1)
	// Many calls to one host are one deed: only much more is told again.
	report := c.Step == 0 || step >= c.Step+4
	if report {
		c.Step = step
	}
	st.Subjects.Put(k, c, maxSubjects)
	if !report {
		return
	}
	times := ""
	if c.N > 1 {
		times = fmt.Sprintf(", %d times", c.N)
	}
	cx.Emit(evidence.Evidence{
		Type: d.Type, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Victim: evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
		Level: d.Level, Confidence: d.Confidence, MITRE: d.MITRE,
		Description: fmt.Sprintf("%s %s %s%s%s.", f.Src, d.text, f.Dst, file(f), times),
		Proto:       "tcp", DstPort: f.DstPort, UIDs: slices.Clone(c.UIDs), Count: c.N,
		Subject: strings.TrimSpace(f.Dst.String() + " " + d.what), Step: step,
	})
}

func named(uids []string, uid string) []string {
	if uid == "" || len(uids) >= maxExamples || len(uids) > 0 && uids[len(uids)-1] == uid {
		return uids
	}
	return append(slices.Clone(uids), strings.Clone(uid))
}
