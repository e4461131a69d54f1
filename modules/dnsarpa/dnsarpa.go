// Package dnsarpa reports hosts that ask for the names of many addresses in a
// moment, which maps a network without touching it.
package dnsarpa

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Scan is the evidence this module emits.
const Scan evidence.Type = "DNS_ARPA_SCAN"

// Config holds the thresholds.
type Config struct {
	// MinNames is the number of addresses asked for within Within for the first report, 2 to 100.
	MinNames int `yaml:"min_names"`
	// Within is how far apart those may be, 100 ms to 1 h.
	Within time.Duration `yaml:"within"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "dnsarpa",
	Doc:   "the names of many addresses asked for at once",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.DNS),
	Needs: flow.Of(flow.DNS),
	Emits: []evidence.Spec{{
		Type: Scan, Level: evidence.Medium, Tactic: evidence.Discovery, MITRE: []string{"T1018"}, Subject: "host", Over: "2 s",
		Doc: "a host asked for the names of many addresses within seconds",
	}},
}, Config{MinNames: 10, Within: 2 * time.Second}, New)

const (
	// maxRecent bounds the look-ups remembered that were in no report; the
	// oldest go first.
	maxRecent = 256
	// maxSeen bounds the names remembered because they were in a report.
	maxSeen = 8192
)

// State is what the module remembers of one profile in one window.
type State struct {
	Recent []Lookup            // in the order of their times
	Seen   modules.Table[bool] // hashes of names that were counted
	Names  int64               // of those
	Near   int64               // of those, with an address near to others
	Step   int
	UIDs   []string
}

// Lookup is one address asked for.
type Lookup struct {
	Time int64 // unix ns
	Name uint32
	Net  uint32 // hash of the network: what stands behind the first label (IPv4), the first sixteen (IPv6)
	UID  string
}

type rule struct{ min, within int64 }

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MinNames < 2 || c.MinNames > 100 {
		return nil, fmt.Errorf("min_names: %d is not between 2 and 100", c.MinNames)
	}
	if c.Within < 100*time.Millisecond || c.Within > time.Hour {
		return nil, fmt.Errorf("within: %v is not between 100ms and 1h", c.Within)
	}
	return rule{int64(c.MinNames), int64(c.Within)}, nil
}

// Wants implements modules.Chooser. In mDNS, hosts announce themselves so;
// names with an underscore are those under which services are looked for.
func (r rule) Wants(f *flow.Flow) bool {
	q := strings.TrimSuffix(f.DNS.Query, ".")
	return len(q) > 12 && strings.EqualFold(q[len(q)-5:], ".arpa") && f.DstPort != 5353 && strings.IndexByte(q, '_') < 0
}

// network returns what names of neighbouring addresses have in common; it is
// empty when the name is not that of an address.
func network(name string) string {
	labels := 1
	switch {
	case strings.HasSuffix(name, ".in-addr.arpa"):
		if strings.Count(name, ".") != 5 {
			return ""
		}
	case strings.HasSuffix(name, ".ip6.arpa"):
		if strings.Count(name, ".") != 33 {
			return ""
		}
		labels = 16
	default:
		return ""
	}
	for range labels {
		_, name, _ = strings.Cut(name, ".")
	}
	return name
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client {
		return
	}
	name := strings.ToLower(strings.TrimSuffix(f.DNS.Query, "."))
	net := network(name)
	if net == "" {
		return
	}
	h := modules.HashText(name)
	if st.Seen.Get(h) != nil || st.Seen.Len() >= maxSeen {
		return
	}
	if !st.remember(Lookup{Time: f.Time, Name: h, Net: modules.HashText(net), UID: f.UID}, r.within) {
		return
	}
	from, to := st.burst(f.Time, r.within)
	if int64(to-from) < r.min {
		return
	}
	burst := st.Recent[from:to]
	for _, l := range burst {
		*st.Seen.Put(l.Name) = true
		if slices.ContainsFunc(burst, func(o Lookup) bool { return o.Net == l.Net && o.Name != l.Name }) {
			st.Near++
		}
		if len(st.UIDs) < evidence.MaxUIDs && l.UID != "" {
			st.UIDs = append(st.UIDs, l.UID)
		}
	}
	st.Names += int64(len(burst))
	st.Recent = slices.Delete(st.Recent, from, to)
	step := modules.Step(st.Names, r.min)
	if step <= st.Step {
		return
	}
	st.Step = step
	e := evidence.Evidence{
		Type: Scan, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Level: evidence.Medium, Confidence: 0.7,
		Proto: f.Proto.String(), DstPort: f.DstPort, UIDs: append([]string(nil), st.UIDs...), Count: st.Names, Subject: "arpa", Step: step,
	}
	how := "most of them neighbours"
	if 2*st.Near < st.Names { // who walks through a network asks for neighbours; who reads a log does not
		e.Level, how = evidence.Low, "scattered"
	}
	e.Description = fmt.Sprintf("%s asked for the names of %d different addresses, %s, at least %d of them within %v.",
		f.Src, st.Names, how, r.min, time.Duration(r.within))
	cx.Emit(e)
}

// remember adds l, and reports whether its name is new. A name asked for again
// counts at the later time. What is too old to come together with anything,
// even for a log that is two spans behind itself, is forgotten.
func (st *State) remember(l Lookup, within int64) bool {
	if i := slices.IndexFunc(st.Recent, func(o Lookup) bool { return o.Name == l.Name }); i >= 0 {
		if st.Recent[i].Time >= l.Time {
			return false
		}
		l.UID = st.Recent[i].UID
		st.Recent = slices.Delete(st.Recent, i, i+1)
	} else {
		l.UID = strings.Clone(l.UID)
	}
	at, _ := slices.BinarySearchFunc(st.Recent, l.Time+1, func(o Lookup, t int64) int {
		if o.Time < t {
			return -1
		}
		return 1
	})
	st.Recent = slices.Insert(st.Recent, at, l)
	old := 0
	for newest := st.Recent[len(st.Recent)-1].Time; st.Recent[old].Time < newest-3*within; {
		old++
	}
	old = max(old, len(st.Recent)-maxRecent)
	st.Recent = slices.Delete(st.Recent, 0, old)
	return at >= old
}

// burst returns the place of the most look-ups around t that lie within a span.
func (st *State) burst(t, within int64) (from, to int) {
	i := 0
	for j := range st.Recent {
		for st.Recent[j].Time-st.Recent[i].Time > within {
			i++
		}
		if st.Recent[i].Time <= t && t <= st.Recent[j].Time && j+1-i > to-from {
			from, to = i, j+1
		}
	}
	return from, to
}
