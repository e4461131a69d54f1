// Package useragent reports what the names that HTTP clients give themselves
// tell: tools of attackers, hosts that change their system, and hosts whose
// browser is not one of the system they run.
package useragent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	parser "github.com/mileusna/useragent"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/feeds/oui"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
)

// The types of evidence this module emits.
const (
	Suspicious   evidence.Type = "SUSPICIOUS_USER_AGENT"
	Multiple     evidence.Type = "MULTIPLE_USER_AGENT"
	Incompatible evidence.Type = "INCOMPATIBLE_USER_AGENT"
)

// Config is empty.
type Config struct{}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "useragent",
	Doc:   "user agents of attackers, of several systems, and of another system than the host's",
	Scope: modules.PerProfile,
	Kinds: flow.Of(flow.HTTP, flow.DHCP),
	Needs: flow.Of(flow.HTTP),
	Emits: []evidence.Spec{{
		Type: Suspicious, Level: evidence.High, Tactic: evidence.CommandAndControl, MITRE: []string{"T1071.001"}, Subject: "agent's name", Over: "window", Method: "Signature",
		Doc: "the user agent is that of malware, of a tool for attacks, or carries an exploit",
	}, {
		Type: Multiple, Level: evidence.Info, Tactic: evidence.Context, MITRE: []string{"T1071.001"}, Subject: "system", Over: "window",
		Doc: "the user agents of a host name different operating systems",
	}, {
		Type: Incompatible, Level: evidence.High, Tactic: evidence.DefenseEvasion, MITRE: []string{"T1036"}, Subject: "system", Over: "window",
		Doc: "the user agent names another operating system than the host has by its DHCP requests or the maker of its interface",
	}},
}, Config{}, New)

const (
	// maxWindows bounds the windows of one host that are remembered: records
	// at the edge of two come mixed.
	maxWindows = 4
	// maxWaiting bounds the agents of one host that wait for the DHCP log;
	// each window has one for each system.
	maxWaiting = 64
	// maxAgents bounds the agents of a host that are told apart in a window.
	// Desktops have some dozens, of which few are browsers; who has more is a
	// proxy or a router, and what its clients are says nothing about it.
	maxAgents = 256
	// maxBrowsers is how many different browsers are on one host at most.
	maxBrowsers = 24
	// maxReports bounds the agents of attackers remembered as reported.
	maxReports = 256
	// maxFacts bounds what is remembered of a host's system. An address goes
	// from one host to another, and late logs ask for what was.
	maxFacts = 8
	// wait is how long a decision that needs the DHCP log waits for it.
	wait = time.Minute
	// maxParse bounds how much of an agent is parsed, and maxText what is quoted, in bytes.
	maxParse, maxText = 512, 300
)

// State is what the module remembers of one profile.
type State struct {
	Windows  []Window // at most maxWindows
	Reported modules.Recent[Subject, bool]
	Facts    []Fact  // the newest last
	Waiting  []Asked // for the DHCP log
	Next     uint64  // running number of the next that waits
}

// Window is what a host's agents said in one window. Most hosts have one
// agent, so the table is made for the second.
type Window struct {
	Start    int64
	One      uint32              // hash of the first agent; 0: none
	OneBad   bool                // there is something of an attacker in it
	Agents   modules.Table[bool] // the others, by hash: whether there is something of an attacker in them
	First    string              // the first agent that names its system
	FirstIs  System
	Told     uint16 // systems reported as different from it, a bit each
	Browsers int    // agents that name their system
	Shared   bool   // there were too many for one host
	SharedAt int64  // stream time at which they were, unix ns
	Asked    uint16 // systems that were compared with the host's, a bit each
}

// get returns what is known of an agent, and whether it is known.
func (w *Window) get(key uint32) (bad, known bool) {
	if w.One == key {
		return w.OneBad, true
	}
	if b := w.Agents.Get(key); b != nil {
		return *b, true
	}
	return false, false
}

func (w *Window) put(key uint32, bad bool) {
	if w.One == 0 {
		w.One, w.OneBad = key, bad
		return
	}
	*w.Agents.Put(key) = bad
}

// window returns the window that begins at start. When there are too many, the
// oldest gives way.
func (st *State) window(start int64) *Window {
	old := 0
	for i := range st.Windows {
		if st.Windows[i].Start == start {
			return &st.Windows[i]
		}
		if st.Windows[i].Start < st.Windows[old].Start {
			old = i
		}
	}
	if len(st.Windows) < maxWindows {
		st.Windows = append(st.Windows, Window{Start: start})
		return &st.Windows[len(st.Windows)-1]
	}
	st.Windows[old] = Window{Start: start}
	return &st.Windows[old]
}

// Asked is the first agent of a system in a window.
type Asked struct {
	Key              uint64 // running number
	Window           int64  // start
	Is               System
	Agent, Where     string
	Dst              netip.Addr
	DstPort, SrcPort uint16
	Time             int64 // unix ns
	UID              string
}

// Subject is what is reported once in a window.
type Subject struct {
	Window int64 // start
	What   string
}

// Fact is what a host was at one time by its DHCP requests.
type Fact struct {
	At   int64 // stream time of the DHCP log, unix ns
	Is   System
	From string // what says so
	MAC  string
	// ByMAC: only the maker of the interface says so.
	ByMAC bool
}

// System is a family of operating systems. A telephone and a desktop of one
// family are not told apart: their browsers offer to pretend the other.
type System uint8

// The families.
const (
	Unknown System = iota
	Windows
	Apple
	Linux // Android and ChromeOS too
	Other
)

// String returns the name of the family.
func (s System) String() string {
	return [...]string{"unknown", "Windows", "Apple", "Linux or Android", "other"}[min(s, Other)]
}

type rule struct{ log *slog.Logger }

var (
	_ modules.Rule[State]       = rule{}
	_ modules.TimerFirer[State] = rule{}
	_ modules.Chooser           = rule{}
)

// New returns the rule.
func New(_ Config, env modules.Env) (modules.Rule[State], error) {
	return rule{env.Log}, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	if f.Kind == flow.HTTP {
		return f.HTTP.UserAgent != "" || f.HTTP.Username != "" || exploit(f.HTTP.URI) != "" || exploit(f.HTTP.Referrer) != ""
	}
	return f.Kind == flow.DHCP
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	switch f.Kind {
	case flow.HTTP:
		r.http(cx, st, f)
	case flow.DHCP:
		st.learn(cx, f)
	default: // no other kind is delivered
	}
}

func (r rule) http(cx *modules.Context, st *State, f *flow.Flow) {
	h := f.HTTP
	start := cx.Window().Start
	for _, s := range [...]string{h.URI, h.Referrer, h.Host, h.Username} {
		if e := exploit(s); e != "" {
			st.report(cx, f, start, mark{name: e, what: "an exploit", of: attack})
		}
	}
	if h.UserAgent == "" {
		return
	}
	w := st.window(start)
	key := modules.HashText(h.UserAgent)
	if bad, known := w.get(key); known {
		if bad {
			st.report(cx, f, start, judge(h.UserAgent))
		}
		return
	}
	is, usual := usual(h.UserAgent)
	var m mark
	if !usual {
		if m = judge(h.UserAgent); m.name != "" {
			st.report(cx, f, start, m)
		}
		if w.Shared {
			return // nothing more is kept of the agents of a proxy
		}
		is, _ = parse(h.UserAgent)
	} else if w.Shared {
		return
	}
	w.put(key, m.name != "")
	if is != Unknown {
		r.system(cx, st, f, w, is)
	}
	if 1+w.Agents.Len() >= maxAgents || w.Browsers > maxBrowsers {
		w.Shared, w.SharedAt = true, cx.Now()
		w.One, w.OneBad, w.Agents = 0, false, modules.Table[bool]{}
		r.log.Debug("too many user agents for one host; it is a proxy or a router", "profile", cx.Profile())
		e := base(f, Multiple, evidence.Info, 0.5)
		e.Description = fmt.Sprintf("%s sent more different user agents than one host has, the first %s: it speaks for others, as proxies and routers do.",
			f.Src, quote(w.First))
		e.Subject, e.Step = "many", 1
		cx.Emit(e)
	}
}

// system notes an agent that names its system, the first time in a window.
func (rule) system(cx *modules.Context, st *State, f *flow.Flow, w *Window, is System) {
	h := f.HTTP
	w.Browsers++
	agent := ""
	if w.First == "" {
		w.First, w.FirstIs = strings.Clone(modules.Clip(h.UserAgent, maxText)), is
		agent = w.First
	}
	if is != w.FirstIs && w.Told&(1<<is) == 0 {
		w.Told |= 1 << is
		e := base(f, Multiple, evidence.Info, 0.5)
		e.Description = fmt.Sprintf("%s uses the user agent %s (%s), and before that %s (%s).", f.Src, quote(h.UserAgent), is, quote(w.First), w.FirstIs)
		e.Subject, e.Step = is.String(), 1
		cx.Emit(e)
	}
	if w.Asked&(1<<is) != 0 || len(st.Waiting) >= maxWaiting {
		return
	}
	w.Asked |= 1 << is
	if agent == "" {
		agent = strings.Clone(modules.Clip(h.UserAgent, maxText))
	}
	key := st.Next
	st.Next++
	st.Waiting = append(st.Waiting, Asked{
		Key: key, Window: cx.Window().Start, Is: is,
		Agent: agent, Where: strings.Clone(modules.Clip(where(f), maxText)), Dst: f.Dst, DstPort: f.DstPort, SrcPort: f.SrcPort, Time: f.Time,
		UID: strings.Clone(f.UID),
	})
	cx.After(wait, key)
}

// Fire implements modules.TimerFirer: it compares what an agent says with
// what the host is by DHCP, as far as that log tells by now.
func (rule) Fire(cx *modules.Context, st *State, key uint64) {
	i := slices.IndexFunc(st.Waiting, func(q Asked) bool { return q.Key == key })
	if i < 0 {
		return
	}
	q := st.Waiting[i]
	st.Waiting = slices.Delete(st.Waiting, i, i+1)
	if len(st.Waiting) == 0 {
		st.Waiting = nil // for an hour nothing more may come
	}
	// What is from behind this moment is there only if its log happens to be
	// ahead, so it does not count.
	if slices.ContainsFunc(st.Windows, func(w Window) bool { return w.Start == q.Window && w.Shared && w.SharedAt <= cx.Now() }) {
		return
	}
	var fact Fact
	for _, x := range st.Facts {
		if x.At <= cx.Now() {
			fact = x
		}
	}
	if fact.Is == Unknown || fact.Is == q.Is {
		return
	}
	confidence := 0.3
	if fact.ByMAC {
		confidence = 0.2 // their computers run other systems too
	}
	_, browser := parse(q.Agent)
	if browser == "" {
		browser = "unknown"
	}
	e := evidence.Evidence{
		Type: Incompatible, Time: q.Time, Level: evidence.High, Confidence: confidence,
		Attacker: evidence.IPEntity(cx.Profile(), evidence.Src, q.SrcPort), Victim: evidence.IPEntity(q.Dst, evidence.Dst, q.DstPort),
		Description: fmt.Sprintf("%s uses the user agent %s (system %s, browser %s) towards %s, but its system is %s by %s.",
			cx.Profile(), quote(q.Agent), q.Is, browser, quote(q.Where), fact.Is, fact.From),
		Proto: "tcp", SrcPort: q.SrcPort, DstPort: q.DstPort, Count: 1, Subject: q.Is.String(), Step: 1,
	}
	if q.UID != "" {
		e.UIDs = []string{q.UID}
	}
	cx.Emit(e)
}

// learn keeps what a DHCP request says about the host.
func (st *State) learn(cx *modules.Context, f *flow.Flow) {
	d := f.DHCP
	mac := d.MAC
	if mac == "" {
		mac = f.SrcMAC
	}
	x := Fact{At: cx.Now(), MAC: modules.Clip(mac, maxText)}
	switch v := d.VendorClass; {
	case prefix(v, "MSFT "):
		x.Is = Windows
	case prefix(v, "android-dhcp"), prefix(v, "dhcpcd"):
		x.Is = Linux
	case prefix(v, "AAPLBSDPC"):
		x.Is = Apple
	}
	switch {
	case x.Is != Unknown:
		x.From = "the class it names in DHCP, " + quote(d.VendorClass)
	case oui.Vendor(mac) == "Apple":
		x.Is, x.ByMAC, x.From = Apple, true, "the maker of its interface "+strings.ToLower(x.MAC)+", Apple"
	}
	n := len(st.Facts)
	switch {
	case n == 0:
		if x.Is == Unknown {
			return
		}
	case x.Is == Unknown && st.Facts[n-1].MAC == x.MAC:
		return // the same host, whose request said less this time
	case st.Facts[n-1].Is == x.Is && st.Facts[n-1].From == x.From:
		return
	}
	if len(st.Facts) >= maxFacts {
		st.Facts = st.Facts[1:]
	}
	x.MAC = strings.Clone(x.MAC)
	st.Facts = append(st.Facts, x)
}

func prefix(s, p string) bool { return len(s) >= len(p) && strings.EqualFold(s[:len(p)], p) }

// parse returns the family of systems that an agent names, and its browser.
// It is Unknown for what is no browser: those name a system as they like.
func parse(agent string) (System, string) {
	if len(agent) > maxParse {
		agent = agent[:maxParse]
	}
	if rest, ok := strings.CutPrefix(agent, "server-bag"); ok { // of Apple's services: [OS,version,build,model]
		items := strings.Split(strings.Trim(strings.TrimSpace(rest), "[]"), ",")
		return bag(items[0]), ""
	}
	if !strings.HasPrefix(agent, "Mozilla/") && !strings.HasPrefix(agent, "Opera/") || !strings.Contains(agent, "(") {
		return Unknown, ""
	}
	u := parser.Parse(agent)
	if u.Bot {
		return Unknown, ""
	}
	switch u.OS {
	case "":
		return Unknown, ""
	case parser.Windows, parser.WindowsPhone:
		return Windows, u.Name
	case parser.MacOS, parser.IOS:
		return Apple, u.Name
	case parser.Linux, parser.Android, parser.ChromeOS, parser.Harmony:
		return Linux, u.Name
	}
	return Other, u.Name
}

// bag returns the family of the system that a server-bag names.
func bag(s string) System {
	for _, a := range [...]string{"iPhone", "iPad", "Mac", "Apple", "Watch", "iOS"} {
		if prefix(strings.TrimSpace(s), a) {
			return Apple
		}
	}
	return Unknown
}

// report reports an agent or a request of an attacker, once in a window.
func (st *State) report(cx *modules.Context, f *flow.Flow, start int64, m mark) {
	s := Subject{start, m.name}
	if _, done := st.Reported.Get(s); done {
		return
	}
	st.Reported.Put(s, true, maxReports)
	sort := sorts[m.of]
	e := base(f, Suspicious, sort.level, sort.confidence)
	if m.confidence != 0 {
		e.Confidence = m.confidence
	}
	e.Tactic, e.MITRE = sort.tactic, sort.mitre
	e.Description = fmt.Sprintf("%s sent the user agent %s to %s: it is that of %s.", f.Src, quote(f.HTTP.UserAgent), quote(where(f)), m.what)
	if m.of == attack {
		e.Description = fmt.Sprintf("%s sent an exploit (%s) to %s, with the user agent %s.", f.Src, m.name, quote(where(f)), quote(f.HTTP.UserAgent))
	}
	e.Subject, e.Step = m.name, 1
	cx.Emit(e)
}

func base(f *flow.Flow, t evidence.Type, l evidence.Level, confidence float64) evidence.Evidence {
	e := evidence.Evidence{
		Type: t, Level: l, Confidence: confidence,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, f.SrcPort), Victim: evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
		Proto: f.Proto.String(), SrcPort: f.SrcPort, DstPort: f.DstPort, Count: 1,
	}
	e.UIDs = modules.UID(f.UID)
	return e
}

// where writes what was asked for: host and URI.
func where(f *flow.Flow) string {
	h := f.HTTP.Host
	switch {
	case strings.Contains(f.HTTP.URI, "://"): // to a proxy
		h = ""
	case h == "":
		h = f.Dst.String()
	}
	return h + f.HTTP.URI
}

// quote writes the words of others, cut to a bound.
func quote(s string) string { return fmt.Sprintf("%q", modules.Clip(s, maxText)) }
