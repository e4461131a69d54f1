package whitelist

import (
	"fmt"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/parsers/flow"
)

// Finding is what one entry says about a record, an evidence or a value.
type Finding struct {
	Rule    Rule
	Applies bool   // it drops what is asked about, or a lower line already has; of a value: it speaks about it and is in force
	Side    string // "src", "dst" or "both": where its value was found; "" when it has no side
	Why     string // a sentence without its dot
}

// ExplainFlow says which entries match a record, or nearly do, by line. What
// earlier records tell about its addresses is not known here.
func (l *List) ExplainFlow(f *flow.Flow) []Finding {
	at := f.At
	if at == 0 {
		at = f.Time
	}
	return l.explain(question{what: "the record", at: at, flows: true, fill: func(x *index, h *hits, _ bool) {
		w := Flows{x: x}
		w.look(f, at)
		*h = w.hits
	}})
}

// ExplainEvidence says which entries match an evidence, or nearly do, by line.
func (l *List) ExplainEvidence(e *evidence.Evidence) []Finding {
	return l.explain(question{what: "the evidence", at: e.Time, alerts: true, fill: func(x *index, h *hits, strict bool) {
		l.gatherEvidence(x, h, e, strict)
	}})
}

// ExplainValue says which entries speak about an address, a domain, a MAC, an
// AS ("AS64496"), a port ("443/tcp"), a JA3, a type of evidence or the name of
// a module, at a time in unix ns. Conditions on other things are taken to hold,
// and told.
func (l *List) ExplainValue(text string, at int64) ([]Finding, error) {
	c, err := valueOf(text)
	if err != nil {
		return nil, err
	}
	return l.explain(question{what: text, at: at, flows: true, alerts: true, value: true, fill: func(x *index, h *hits, _ bool) {
		for side := src; side <= dst; side++ {
			switch c.kind {
			case IP:
				x.gatherAddr(h, side, c.prefix.Addr(), true)
			case Domain:
				x.gatherName(h, side, c.value, true)
			case MAC:
				x.gatherMAC(h, side, c.value)
			case ASN:
				x.gatherASN(h, side, uint32(c.number))
			case Port:
				x.gatherPort(h, side, c.number>>16, uint16(c.number))
			default:
				x.gatherWord(h, c.kind, c.value)
			}
		}
	}}), nil
}

// valueOf finds out what sort of thing a text is.
func valueOf(text string) (cond, error) {
	text = strings.TrimSpace(text)
	for _, kind := range []string{"ip", "mac", "ja3", "asn", "port"} {
		if kind == "asn" && !strings.HasPrefix(strings.ToLower(text), "as") {
			continue // a mere number is a port
		}
		if c, err := parseCond(kind, text); err == nil && (c.kind != IP || c.prefix.IsSingleIP()) {
			return c, nil
		}
	}
	if !strings.Contains(text, ".") && isWord(text) {
		if text == strings.ToUpper(text) {
			return cond{kind: Evidence, value: text}, nil
		}
		return cond{kind: Module, value: text}, nil
	}
	name := strings.ToLower(strings.TrimSuffix(text, "."))
	if d, want := canonicalDomain(text); want == "" {
		name = d
	}
	if !validName(name) {
		return cond{}, fmt.Errorf("explain %q: want an address, a domain, a MAC, an AS, a port, a JA3, a type of evidence or a module", clip(text))
	}
	return cond{kind: Domain, value: name}, nil
}

// question is what explain is asked about.
type question struct {
	what          string
	at            int64
	flows, alerts bool // what it concerns
	value         bool // it is one value, and the other conditions are open
	fill          func(x *index, h *hits, strict bool)
}

// explain tries all entries, those in force and the others.
func (l *List) explain(q question) []Finding {
	if l == nil {
		return nil
	}
	x, err := newIndex(l.entries, func(*Rule) bool { return true })
	if err != nil || x == nil {
		return nil // no entry, for Parse has loaded the same data
	}
	var strict, loose hits
	q.fill(x, &strict, true)
	q.fill(x, &loose, false)
	var found []Finding
	for i := range x.rules {
		r := &x.rules[i]
		e := &l.entries[r.entry]
		fd := Finding{Rule: e.rule}
		fd.Applies, fd.Side, fd.Why = r.judge(&q, e, &strict, &loose)
		if fd.Why != "" {
			found = append(found, fd)
		}
	}
	return found
}

// judge says whether a rule applies, where, and why or why not. An empty why
// means that it has nothing to do with the question.
func (r *rule) judge(q *question, e *entry, strict, loose *hits) (applies bool, side, why string) {
	if q.value {
		return r.judgeValue(q, e, loose)
	}
	both := uint8(1<<src | 1<<dst)
	at, ok := r.holds(strict, r.dirs)
	switch {
	case ok && r.expired(q.at):
		return false, e.side(at), "it expired at " + stamp(r.expires)
	case ok && (q.flows && !e.rule.Flows || q.alerts && !e.rule.Alerts):
		return false, e.side(at), "its conditions hold, but it ignores " + e.ignores() + " and not " + q.what
	case ok:
		return true, e.side(at), "all its conditions hold"
	}
	if at, ok := r.holds(loose, r.dirs); ok {
		return false, e.side(at), "it says who the peer is, and that does not count here: a feed names something, " +
			"the address has names that are not listed, or it is the profile's own"
	}
	if at, ok := r.holds(loose, both); ok {
		return false, e.side(at), fmt.Sprintf("its value is on the %s side, and it is about %s", sideNames[at], e.rule.Direction)
	}
	for side := src; side <= dst; side++ {
		if !r.needs[0].holds(loose, side) {
			continue
		}
		for i, n := range r.needs {
			if !n.holds(loose, side) {
				return false, e.side(side), "not so: " + e.conds[i].String()
			}
		}
	}
	return false, "", ""
}

// judgeValue is judge for a single value.
func (r *rule) judgeValue(q *question, e *entry, h *hits) (applies bool, side, why string) {
	var open []string
	about := -1
	for i, n := range r.needs {
		if n.holds(h, src) {
			about = i
		} else {
			open = append(open, e.conds[i].String())
		}
	}
	if about < 0 {
		return false, "", ""
	}
	switch c := e.conds[about]; c.at {
	case none:
	case same:
		side = e.rule.Direction
	default:
		side = sideNames[c.at]
	}
	if r.expired(q.at) {
		return false, side, "it expired at " + stamp(r.expires)
	}
	why = "it ignores " + e.ignores()
	if side == "src" || side == "dst" {
		why += " that have it as " + side
	}
	if len(open) > 0 {
		why += ", if also " + strings.Join(open, " and ")
	}
	if r.broad {
		why += ", and no feed names it"
	}
	return true, side, why
}

// side returns the name of the side on which the entry was found to hold; ""
// when it is about a thing that has none.
func (e *entry) side(at uint8) string {
	if e.conds[0].at == none {
		return ""
	}
	return sideNames[at]
}

// ignores says what the entry ignores, in the words of a sentence.
func (e *entry) ignores() string {
	switch {
	case e.rule.Flows && e.rule.Alerts:
		return "records and evidence"
	case e.rule.Flows:
		return "records"
	default:
		return "evidence"
	}
}
