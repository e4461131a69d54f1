// Package eval compares what a run found with what is known to be true. It
// does no input or output: it is told of records, evidence and alerts, and
// returns a Report.
//
// # Definitions
//
// A host-window is a host and a time window in which it sent at least one
// record, or on which there was an alert. The hosts are those that the truth
// calls monitored; where it names none, all private and home addresses that
// are the source of a record, and the infected and attacking hosts.
//
// A host-window is bad when the host is infected or attacks, and
//
//   - label_kind "rule": a connection that it sent in that window matches one of the rules;
//   - label_kind "per-flow": a record that it sent is labelled as malicious;
//   - label_kind "scenario": the window is that of the first connection that
//     matches a rule, or a later one; without rules every window of the host.
//
// It is predicted to be bad when there was an alert on that host in that window.
// From these come true and false positives and negatives.
//
// A target is an infected or attacking host with a bad window. The bar is
// met when there is an alert in its first bad window or the one after that.
package eval

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Observer watches the run of one scenario. It takes the records and windows
// of the engine and is the alerts' sink. It may be called by several
// goroutines.
type Observer struct {
	truth  *Scenario
	home   []netip.Prefix
	config alerts.Config
	width  time.Duration

	mu      sync.Mutex
	hosts   map[netip.Addr]*host
	records int64
	labels  int64   // records with a label
	matched []int64 // by rule
	first   int64   // of the records, unix ns
	last    int64
}

// host is what was seen of one address.
type host struct {
	windows  map[int64]*window // by start
	evidence int
	alerts   int
}

// window is what was seen of one host in one window.
type window struct {
	n       int64
	start   int64
	records int64
	bad     int64 // records that match the truth
	alerts  int
	tally   alerts.Tally
	other   map[evidence.Type]int // evidence that adds nothing
}

var _ alerts.Sink = (*Observer)(nil)

// NewObserver returns an Observer for a run with the given settings. home are
// the networks that are configured as monitored, if any.
func NewObserver(truth *Scenario, home []netip.Prefix, cfg alerts.Config, width time.Duration) *Observer {
	return &Observer{
		truth: truth, home: home, config: cfg, width: width, hosts: make(map[netip.Addr]*host), matched: make([]int64, len(truth.Rules)),
	}
}

func (o *Observer) at(a netip.Addr, n, start int64) (*host, *window) {
	a = a.Unmap()
	h := o.hosts[a]
	if h == nil {
		h = &host{windows: make(map[int64]*window)}
		o.hosts[a] = h
	}
	w := h.windows[start]
	if w == nil {
		w = &window{n: n, start: start, other: make(map[evidence.Type]int)}
		h.windows[start] = w
	}
	return h, w
}

// Flow takes a record and its window.
func (o *Observer) Flow(f *flow.Flow, w profile.Window) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.records == 0 {
		o.first, o.last = f.Time, f.Time
	}
	o.first, o.last = min(o.first, f.Time), max(o.last, f.Time)
	o.records++
	labelled := f.Label != "" || f.DetailedLabel != ""
	if labelled {
		o.labels++
	}
	if !f.Src.IsValid() {
		return
	}
	_, at := o.at(f.Src, w.N, w.Start)
	at.records++
	if o.truth.Kind == PerFlow {
		if labelled && Malicious(f.Label, f.DetailedLabel) {
			at.bad++
		}
		return
	}
	hit := false
	for i := range o.truth.Rules {
		if o.truth.Rules[i].match(f) {
			o.matched[i]++
			hit = true
		}
	}
	if hit {
		at.bad++
	}
}

// Evidence implements alerts.Sink.
func (o *Observer) Evidence(e *evidence.Evidence, _ float64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	h, w := o.at(e.Profile, e.Window, e.WindowStart)
	h.evidence++
	if alerts.Counts(e) {
		w.tally.Add(e)
	} else {
		w.other[e.Type]++
	}
	return nil
}

// Alert implements alerts.Sink.
func (o *Observer) Alert(a *alerts.Alert) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	h, w := o.at(a.Profile, a.Window, a.WindowStart)
	h.alerts++
	w.alerts++
	return nil
}

// Labelled reports whether any record carried a label.
func (o *Observer) Labelled() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.labels > 0
}

// Malicious reports whether a label says that the source of a flow did
// something bad. It knows the words of the Stratosphere and CTU captures:
// Malicious, Malware, Botnet, Attack. A flow to a botnet's host is not its
// source's doing.
func Malicious(label, detailed string) bool {
	text := strings.ToLower(label + " " + detailed)
	if strings.HasPrefix(text, "to-botnet") {
		return false
	}
	for _, word := range [...]string{"malicious", "malware", "botnet", "attack"} {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}

// inScope reports whether a is one of the hosts that are judged.
func (o *Observer) inScope(a netip.Addr) bool {
	switch {
	case o.truth.isTarget(a):
		return true
	case len(o.truth.Monitored) > 0:
		return slices.Contains(o.truth.Monitored, a)
	case !a.IsValid(), a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), profile.IsBroadcast(a):
		return false
	case len(o.home) > 0:
		return slices.ContainsFunc(o.home, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	return profile.IsPrivate(a)
}

// Result returns what the run of the scenario was worth.
func (o *Observer) Result() *Result {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.truth.Kind == PerFlow && o.truth.ByLabel {
		o.targetsByLabel()
	}
	r := &Result{
		ID: o.truth.ID, Path: o.truth.Path, Kind: o.truth.Kind, Expect: o.truth.Expect, Records: o.records,
		Targets: []Target{}, Errors: []Error{},
	}
	r.Notes = append(r.Notes, o.truth.Notes...)
	r.Notes = append(r.Notes, o.doubts()...)
	for _, a := range slices.SortedFunc(maps.Keys(o.hosts), netip.Addr.Compare) {
		h := o.hosts[a]
		if !o.inScope(a) {
			r.Outside.add(h)
			continue
		}
		o.judge(r, a, h)
	}
	for _, a := range slices.Concat(o.truth.Infected, o.truth.Attackers) {
		if !slices.ContainsFunc(r.Targets, func(t Target) bool { return t.Host == a }) {
			r.Notes = append(r.Notes, a.String()+" is infected or attacks, and no window of it is bad by the truth's own rules")
		}
	}
	r.Metrics = r.metrics()
	r.AlertsPerBenignHostDay = ratio(float64(r.AlertsOnBenign), r.BenignHostDays)
	return r
}

// targetsByLabel names the hosts that are bad by their labels alone.
func (o *Observer) targetsByLabel() {
	o.truth.Infected = nil
	for _, a := range slices.SortedFunc(maps.Keys(o.hosts), netip.Addr.Compare) {
		for _, w := range o.hosts[a].windows {
			if w.bad > 0 {
				o.truth.Infected = append(o.truth.Infected, a)
				break
			}
		}
	}
}

// doubts says where the truth and the input do not fit each other.
func (o *Observer) doubts() (notes []string) {
	if o.records == 0 {
		return []string{"no record could be read"}
	}
	if o.truth.Kind == PerFlow && o.labels == 0 {
		notes = append(notes, "no record carries a label")
	}
	for i, r := range o.truth.Rules {
		switch {
		case o.truth.Kind == PerFlow:
		case o.matched[i] == 0:
			notes = append(notes, "rule "+r.name(i)+" matches no connection")
		case r.Flows > 0 && o.matched[i] != r.Flows:
			notes = append(notes, "rule "+r.name(i)+" matches "+strconv.FormatInt(o.matched[i], 10)+" connections, the truth says "+strconv.FormatInt(r.Flows, 10))
		}
	}
	return notes
}

// judge adds the windows of a host to the result.
func (o *Observer) judge(r *Result, a netip.Addr, h *host) {
	theta := o.config.Threshold(o.width)
	list := slices.SortedFunc(maps.Values(h.windows), func(x, y *window) int { return cmp.Compare(x.start, y.start) })
	target := o.truth.isTarget(a)
	t := Target{Host: a, Attacker: slices.Contains(o.truth.Attackers, a)}
	onset := false
	counted := false
	for _, w := range list {
		onset = onset || w.bad > 0
		bad := target && (w.bad > 0 || o.truth.Kind == Whole && (onset || len(o.truth.Rules) == 0))
		sum := w.tally.Weigh(o.config, theta)
		if bad && t.FirstBad == nil {
			t.FirstBad = &Moment{w.n, stamp(w.start)}
		}
		if t.FirstBad != nil && t.FirstAlert == nil && w.alerts > 0 {
			t.FirstAlert = &Moment{w.n, stamp(w.start)}
		}
		r.windows = append(r.windows, judged{host: a, bad: bad, active: w.records > 0, n: w.n, tally: w.tally, target: target})
		if w.records == 0 && w.alerts == 0 {
			continue // there is evidence about it, and that is all
		}
		counted = true
		r.HostWindows++
		r.add(bad, w.alerts > 0)
		if !target {
			r.AlertsOnBenign += w.alerts
			r.BenignHostDays += min(o.width, o.span()).Hours() / 24
		}
		if bad != (w.alerts > 0) {
			r.Errors = append(r.Errors, o.explain(a, w, bad, sum))
		}
	}
	if counted {
		r.Hosts++
	}
	if t.FirstBad == nil {
		return
	}
	if t.FirstAlert != nil {
		delay := t.FirstAlert.Window - t.FirstBad.Window
		t.Delay, t.Met = &delay, delay <= 1
	}
	r.Targets = append(r.Targets, t)
}

// span is the time that the input covers, at least a second.
func (o *Observer) span() time.Duration { return max(time.Duration(o.last-o.first), time.Second) }

// explain says what there was behind a wrong verdict, or was not.
func (o *Observer) explain(a netip.Addr, w *window, bad bool, sum alerts.Sum) Error {
	e := Error{
		Host: a, Window: w.n, Start: stamp(w.start), Missed: bad, Records: w.records, Bad: w.bad, Alerts: w.alerts,
		Score: sum.Score, Sum: sum.Text(), Evidence: []Behind{},
	}
	for _, c := range w.tally.Contributions() {
		i := slices.IndexFunc(e.Evidence, func(b Behind) bool { return b.Type == c.Type })
		if i < 0 {
			i = len(e.Evidence)
			e.Evidence = append(e.Evidence, Behind{Type: c.Type, Tactic: c.Tactic, Level: c.Level.String(), Confidence: c.Confidence, Example: c.Description})
		}
		e.Evidence[i].Count++
		e.Evidence[i].Value += c.Value
	}
	slices.SortStableFunc(e.Evidence, func(x, y Behind) int { return cmp.Compare(y.Value, x.Value) })
	for _, t := range slices.Sorted(maps.Keys(w.other)) {
		e.Evidence = append(e.Evidence, Behind{Type: t, Count: w.other[t]})
	}
	return e
}

// stamp shows stream time, unix ns.
func stamp(t int64) string { return time.Unix(0, t).UTC().Format("2006-01-02T15:04:05Z") }
