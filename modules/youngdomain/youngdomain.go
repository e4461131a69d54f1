// Package youngdomain reports contact with domains that were registered only
// days before: those of campaigns live that long, those of others for years.
package youngdomain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/feeds/suffix"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// YoungDomain is the type of evidence this module emits.
const YoungDomain evidence.Type = "YOUNG_DOMAIN"

// Config holds the settings.
type Config struct {
	// Days is the age below which a domain is young, 1 to 3650.
	Days int `yaml:"days"`
	// MaxQuestions bounds the domains that are asked about for one host in a window, 0 to 10000.
	MaxQuestions int `yaml:"max_questions"`
	// MaxPerWindow bounds the domains reported for one host in a window, 1 to 1000.
	MaxPerWindow int `yaml:"max_per_window"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "youngdomain",
	Doc:   "names of domains that were registered a short time before",
	Scope: modules.PerProfile,
	Kinds: flow.Of(flow.DNS, flow.SSL, flow.QUIC, flow.HTTP, flow.Lookup),
	Needs: flow.Of(flow.Lookup),
	Emits: []evidence.Spec{{
		Type: YoungDomain, Level: evidence.Low, Tactic: evidence.CommandAndControl, MITRE: []string{"T1583.001"}, Subject: "domain", Over: "window",
		Doc: "a host resolved or contacted a name of a domain that was registered less than 60 days before",
	}},
}, Config{Days: 60, MaxQuestions: 100, MaxPerWindow: 20}, New)

const (
	// fresh is the age below which a domain is not just young: registries find
	// and suspend most of those that are made for abuse within days.
	fresh = 7 * day
	day   = 24 * time.Hour
	// wait is how long the logs of one visit, which begins with its look-up,
	// may be apart.
	wait = time.Minute
	// maxDomains bounds the domains remembered of a host, and maxSeen the names
	// known to have been looked at in a window.
	maxDomains = 512
	maxSeen    = 1024
	// maxVisits bounds the windows remembered of one domain. An answer takes
	// seconds, so the visit it is for is in this window or the one before.
	maxVisits = 2
	// maxWindows bounds the windows whose questions and reports are counted.
	maxWindows = 4
	// maxName is the length of the longest name in the DNS, bytes of text.
	maxName = 253
	// maxUID bounds a uid that is kept, bytes. Zeek's have 18.
	maxUID = 64
)

// State is what the module remembers of one host.
type State struct {
	Domains modules.Recent[uint64, *Domain] // by hash of their names
	Seen    modules.RecentTable[Mark]       // by hash of kind and name
	Asked   modules.Recent[int64, int]      // questions, by start of window
	Told    modules.Recent[int64, int]      // reports, by start of window
}

// Mark says when a name was last looked at.
type Mark struct {
	Check  uint32 // the other half of the hash
	Window uint32 // start, s
}

// Domain is a registered domain.
type Domain struct {
	Asked      int64   // start of the window of the last question, plus 1; 0: none yet
	Answered   bool    // there is no more to learn
	Registered int64   // unix ns; 0: not known
	Visits     []Visit // at most maxVisits, by window
}

// Visit is what a host had to do with a domain in one window.
type Visit struct {
	Window int64  // start
	Step   int    // last one reported
	Signs  []Sign // the first of each sort
}

// Sign is a record that shows a visit.
type Sign struct {
	Sort  uint8
	Time  int64
	Name  string
	UID   string
	Proto flow.Proto
	Port  uint16
}

// The sorts of signs, in the order in which they come in a visit.
const (
	resolved uint8 = iota
	tls
	web
)

var sorts = [...]string{resolved: "DNS", tls: "TLS", web: "HTTP"}

// The steps of a report.
const (
	onlyResolved = iota + 1
	contacted
)

type rule struct {
	age           int64
	asks, reports int
}

var (
	_ modules.Rule[State]       = rule{}
	_ modules.TimerFirer[State] = rule{}
	_ modules.Chooser           = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	switch {
	case c.Days < 1 || c.Days > 3650:
		return nil, fmt.Errorf("days: %d is not between 1 and 3650", c.Days)
	case c.MaxQuestions < 0 || c.MaxQuestions > 10_000:
		return nil, fmt.Errorf("max_questions: %d is not between 0 and 10000", c.MaxQuestions)
	case c.MaxPerWindow < 1 || c.MaxPerWindow > 1000:
		return nil, fmt.Errorf("max_per_window: %d is not between 1 and 1000", c.MaxPerWindow)
	}
	return rule{age: int64(c.Days) * int64(day), asks: c.MaxQuestions, reports: c.MaxPerWindow}, nil
}

// Wants implements modules.Chooser: what names something in the public DNS.
func (rule) Wants(f *flow.Flow) bool {
	if f.Kind == flow.Lookup {
		l := f.Lookup
		return l.Found != flow.Unset && l.Of == intel.Domain.String() && (l.Service == "rdap" || l.Service == "whois")
	}
	_, name := sign(f)
	return len(name) <= maxName+len(":65535") && strings.IndexByte(name, '.') > 0 && !strings.HasSuffix(name, ".arpa")
}

// sign returns the name in a record and the sort of sign it is; no name when
// there is none or nobody answered.
func sign(f *flow.Flow) (sort uint8, name string) {
	switch f.Kind {
	case flow.DNS:
		if len(f.DNS.Answers) > 0 && (f.DNS.RCode == "" || f.DNS.RCode == "NOERROR") {
			return resolved, f.DNS.Query
		}
		return resolved, ""
	case flow.SSL, flow.QUIC:
		return tls, f.SSL.ServerName
	case flow.HTTP:
		return web, f.HTTP.Host
	default: // no other kind is delivered
	}
	return 0, ""
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client {
		return
	}
	if f.Kind == flow.Lookup {
		r.answer(cx, st, f.Lookup)
		return
	}
	if n := cx.Network(); !n.IsOurs(f.Src) && n.IsOurs(f.Dst) {
		return // somebody outside names a server of ours
	}
	sort, name := sign(f)
	if !st.first(cx, sort, name) {
		return
	}
	domain := registered(name)
	if domain == "" || cx.Intel().Rank(domain) > 0 {
		return
	}
	key := flow.Hash(flow.HashSeed, domain)
	d := st.domain(key)
	r.ask(cx, st, f, d, domain)
	if d.Registered != 0 && !r.young(d, f.Time) {
		return
	}
	d.visit(cx.Window().Start).add(sort, name, f)
	if d.Registered != 0 {
		cx.After(wait, key)
	}
}

// first reports whether a name is new in the window at hand. One record of a
// sort stands for all.
func (st *State) first(cx *modules.Context, sort uint8, name string) bool {
	h := flow.HashMix(flow.HashLower(flow.HashSeed, name), uint64(sort))
	m, w := st.Seen.Put(uint32(h), maxSeen), uint32(cx.Window().Start/int64(time.Second))
	if m.Check == uint32(h>>32) && m.Window == w {
		return false
	}
	*m = Mark{uint32(h >> 32), w}
	return true
}

// domain returns what is known of a domain, which becomes the one used last.
func (st *State) domain(key uint64) *Domain {
	d, ok := st.Domains.Get(key)
	if !ok {
		d = new(Domain)
	}
	st.Domains.Put(key, d, maxDomains)
	return d
}

// ask asks when a domain was registered, again in each window until there is an
// answer: questions get lost. A resolver or a crawler may not use up what the
// services give to all.
func (r rule) ask(cx *modules.Context, st *State, f *flow.Flow, d *Domain, domain string) {
	w := cx.Window().Start
	if d.Answered || d.Asked == w+1 || !cx.Asks() {
		return
	}
	n, _ := st.Asked.Get(w)
	if n >= r.asks {
		return
	}
	st.Asked.Put(w, n+1, maxWindows)
	d.Asked = w + 1
	cx.Ask(modules.Question{
		Why: modules.NewDomain, Of: intel.Domain, Subject: strings.Clone(domain), Dst: f.Dst, DstPort: f.DstPort, UID: strings.Clone(f.UID),
	})
}

// visit returns the visit of a window. The oldest is forgotten when there are
// too many.
func (d *Domain) visit(window int64) *Visit {
	i, ok := slices.BinarySearchFunc(d.Visits, window, func(v Visit, w int64) int { return cmp.Compare(v.Window, w) })
	if ok {
		return &d.Visits[i]
	}
	d.Visits = slices.Insert(d.Visits, i, Visit{Window: window})
	if len(d.Visits) > maxVisits && i > 0 {
		d.Visits = slices.Delete(d.Visits, 0, 1)
		i--
	} else if len(d.Visits) > maxVisits {
		d.Visits = d.Visits[:maxVisits]
		return new(Visit) // older than all that are remembered
	}
	return &d.Visits[i]
}

// add notes a sign. The first of its sort by time stands for all, so that it
// does not matter which log is ahead.
func (v *Visit) add(sort uint8, name string, f *flow.Flow) {
	i, ok := slices.BinarySearchFunc(v.Signs, sort, func(s Sign, x uint8) int { return cmp.Compare(s.Sort, x) })
	if ok && v.Signs[i].Time <= f.Time {
		return
	}
	s := Sign{Sort: sort, Time: f.Time, Name: strings.Clone(host(name)), UID: strings.Clone(f.UID[:min(len(f.UID), maxUID)]), Proto: f.Proto, Port: f.DstPort}
	if ok {
		v.Signs[i] = s
		return
	}
	v.Signs = slices.Insert(v.Signs, i, s)
}

// answer takes the answer of a registry.
func (r rule) answer(cx *modules.Context, st *State, l *flow.LookupPart) {
	domain := registered(l.Subject)
	if domain == "" {
		return
	}
	key := flow.Hash(flow.HashSeed, domain)
	d := st.domain(key)
	d.Answered = true
	if l.Registered == 0 {
		return // another service may know
	}
	d.Registered = l.Registered
	d.Visits = slices.DeleteFunc(d.Visits, func(v Visit) bool { return !r.young(d, v.Signs[0].Time) })
	for i := range d.Visits {
		for _, s := range d.Visits[i].Signs {
			// Those of a log that is ahead of the answers.
			cx.After(wait+time.Duration(max(s.Time-cx.Now(), 0)), key)
		}
	}
}

// young reports whether a domain was registered a short time before t. One that
// was registered after t was somebody else's then.
func (r rule) young(d *Domain, t int64) bool {
	age := t - d.Registered
	return age >= 0 && age < r.age
}

// Fire implements modules.TimerFirer. By now all logs have reached the time of
// the signs that are judged.
func (r rule) Fire(cx *modules.Context, st *State, key uint64) {
	d, ok := st.Domains.Get(key)
	if !ok || d.Registered == 0 {
		return
	}
	for i := range d.Visits {
		r.judge(cx, st, d, &d.Visits[i])
	}
}

// judge reports a visit: at once that the host is in contact, when that
// followed the look-up, else the look-up and, when it comes, the contact.
func (r rule) judge(cx *modules.Context, st *State, d *Domain, v *Visit) {
	if len(v.Signs) == 0 {
		return
	}
	looked, touched := -1, -1
	for i, s := range v.Signs {
		if s.Sort == resolved {
			looked = i
		} else if touched < 0 || s.Time < v.Signs[touched].Time {
			touched = i
		}
	}
	alone := looked >= 0 && (touched < 0 || v.Signs[touched].Time > v.Signs[looked].Time+int64(wait))
	if alone && v.Step < onlyResolved && v.Signs[looked].Time+int64(wait) <= cx.Now() {
		r.report(cx, st, d, v, looked, onlyResolved)
	}
	if touched >= 0 && v.Step < contacted && v.Signs[touched].Time+int64(wait) <= cx.Now() {
		r.report(cx, st, d, v, touched, contacted)
	}
}

// report tells of a visit.
func (r rule) report(cx *modules.Context, st *State, d *Domain, v *Visit, first, step int) {
	s := &v.Signs[first]
	if !r.young(d, s.Time) {
		return
	}
	if v.Step == 0 {
		n, _ := st.Told.Get(v.Window)
		if n >= r.reports {
			return
		}
		st.Told.Put(v.Window, n+1, maxWindows)
	}
	v.Step = step
	age := time.Duration(s.Time - d.Registered)
	// Young domains are also those of new shops, and a look-up alone is also
	// what a mail filter does: what else the host did decides.
	level, confidence := evidence.Low, 0.6
	switch {
	case step == contacted && age < fresh:
		level, confidence = evidence.Medium, 0.4
	case step == onlyResolved && age < fresh:
		confidence = 0.5
	case step == onlyResolved:
		confidence = 0.3
	}
	did, by := "resolved", ""
	var uids []string
	if step == onlyResolved {
		uids = modules.KeepUID(uids, s.UID, evidence.MaxUIDs)
	} else {
		var with []string
		for _, x := range v.Signs {
			if x.Time <= s.Time+int64(wait) {
				uids = modules.KeepUID(uids, x.UID, evidence.MaxUIDs)
				if x.Sort != resolved {
					with = append(with, sorts[x.Sort])
				}
			}
		}
		did, by = "contacted", " by "+strings.Join(with, " and ")
	}
	name := strings.ToLower(s.Name)
	domain := registered(name)
	cx.Emit(evidence.Evidence{
		Type: YoungDomain, Time: s.Time, Level: level, Confidence: confidence,
		Attacker: evidence.IPEntity(cx.Profile(), evidence.Src, 0),
		Victim:   evidence.Entity{Kind: evidence.Domain, Value: name, Direction: evidence.Dst},
		Description: fmt.Sprintf("%s %s %q%s; %s was registered %s before, on %s.",
			cx.Profile(), did, name, by, domain, days(age), time.Unix(0, d.Registered).UTC().Format(time.DateOnly)),
		Proto: s.Proto.String(), DstPort: s.Port, UIDs: uids, Count: int64(max(len(uids), 1)), Subject: domain, Step: step,
	})
}

func days(age time.Duration) string {
	switch n := int(age / day); n {
	case 0:
		return "less than a day"
	case 1:
		return "1 day"
	default:
		return fmt.Sprintf("%d days", n)
	}
}

// host cuts the port of a Host header and the dot at the end of a name.
func host(name string) string {
	if i := strings.IndexByte(name, ':'); i >= 0 {
		name = name[:i]
	}
	return strings.TrimSuffix(name, ".")
}

// registered returns the domain that somebody registered at a registry, in
// lower case: example.co.uk for shop.example.co.uk. It is empty for what is no
// name of the public DNS. Suffixes that a company lends to its customers
// (github.io) are domains of the company, for that is what the registry knows.
func registered(name string) string {
	name = strings.ToLower(host(name))
	if intel.CheckName(name) != nil {
		return ""
	}
	public, listed := suffix.Registry(name)
	if !listed || public == "arpa" || strings.HasSuffix(public, ".arpa") || public == "onion" {
		return "" // of the rest there is no such top-level domain: local, lan, corp
	}
	return suffix.Below(name, public)
}
