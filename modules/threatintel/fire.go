package threatintel

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
)

// batch is what is decided at one time about one finding.
type batch struct {
	key  uint64
	it   Finding
	best *Event // the first of those with the highest grade
	with Name   // the name behind best, if one is known
}

// Fire implements modules.TimerFirer. What is due is put in an order that the
// records alone set. A name counts when its log had come to it by the time of
// decision, or of the event that rests on it, so that a log that is ahead makes
// no difference.
func (r rule) Fire(cx *modules.Context, st *State, upTo uint64) {
	var events []Event
	st.Pending = slices.DeleteFunc(st.Pending, func(e Event) bool {
		if due(e.At) > int64(upTo) {
			return false
		}
		events = append(events, e)
		return true
	})
	if len(st.Pending) == 0 {
		st.Pending = nil // a scanner comes once, and its state stays
	}
	slices.SortFunc(events, func(a, b Event) int {
		return cmp.Or(cmp.Compare(due(a.At), due(b.At)), cmp.Compare(a.Time, b.Time), cmp.Compare(a.At, b.At), cmp.Compare(a.UID, b.UID),
			cmp.Compare(a.What, b.What), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Grade, b.Grade), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Detail, b.Detail),
			a.Peer.Compare(b.Peer), boolCompare(a.ByAddr, b.ByAddr))
	})
	var found []batch
	for i := range events {
		e := &events[i]
		n := slices.IndexFunc(found, func(b batch) bool { return b.key == e.Key })
		if n < 0 {
			it, ok := st.Findings.Get(e.Key)
			if !ok {
				continue // forgotten, because there are so many
			}
			found, n = append(found, batch{key: e.Key, it: it}), len(found)
		}
		st.take(&found[n], e, cx.Now())
	}
	for i := range found {
		if b := &found[i]; b.best != nil {
			r.report(cx, st, b)
			st.Findings.Put(b.key, b.it, maxFindings)
		}
	}
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// take adds an event to its finding.
func (st *State) take(b *batch, e *Event, now int64) {
	var with Name
	switch b.it.What {
	case domain, answerOf, aliasAnswer:
		if e.Grade == asked {
			break
		}
		with = st.resolved(e)
		if e.ByAddr && (with.UID == "" && with.Name == "" || st.otherwise(e, now)) {
			return
		}
		if with.Name != "" && e.Grade == contacted {
			e.Grade = confirmed
		}
	case toAddress, toSystem:
		with = st.nameOf(e, now)
	default:
	}
	if e.UID == "" || !slices.Contains(b.it.UIDs, e.UID) {
		b.it.N++
	}
	for _, uid := range []string{with.UID, e.UID} {
		if uid != "" && !slices.Contains(b.it.UIDs, uid) {
			b.it.UIDs = modules.KeepUID(b.it.UIDs, uid, maxUIDs)
		}
	}
	if b.best == nil || e.Grade > b.best.Grade {
		b.best, b.with = e, with
	}
}

// resolved returns the look-up that led to a contact, if there was one.
func (st *State) resolved(e *Event) (last Name) {
	for i := range st.Names {
		n := &st.Names[i]
		if n.Listed && n.At <= e.At && n.counts(e.Time) && strings.EqualFold(n.Name, e.Name) && (!e.ByAddr || n.Addr == e.Peer) && n.later(&last) {
			last = *n
		}
	}
	return last
}

// later reports whether n is the later look-up, or last is none. It does not
// depend on which was remembered first.
func (n *Name) later(last *Name) bool {
	return last.Name == "" || cmp.Or(cmp.Compare(n.Time, last.Time), cmp.Compare(n.At, last.At), cmp.Compare(n.UID, last.UID),
		n.Addr.Compare(last.Addr), cmp.Compare(n.Asked, last.Asked)) > 0
}

// otherwise reports whether the client is known to have asked for another name
// on the connection of e.
func (st *State) otherwise(e *Event, now int64) bool {
	return slices.ContainsFunc(st.Names, func(n Name) bool {
		return n.Seen != inDNS && n.At <= now && e.UID != "" && n.UID == e.UID && !strings.EqualFold(n.Name, e.Name) &&
			!strings.EqualFold(n.Name, e.Detail)
	})
}

// nameOf returns the name by which the peer of a connection was known: what was
// resolved to it last, or else what was asked for on the connection.
func (st *State) nameOf(e *Event, now int64) (last Name) {
	for i := range st.Names {
		n := &st.Names[i]
		if n.Addr != e.Peer || n.At > now || !n.counts(e.Time) || n.Seen != inDNS && (n.UID != e.UID || e.UID == "") {
			continue
		}
		if last.Name == "" || n.Seen < last.Seen || n.Seen == last.Seen && n.later(&last) {
			last = *n
		}
	}
	return last
}

// popular returns a name of the peer that many visit, when there is one and no
// other name of it is known.
func (st *State) popular(e *Event, now int64) string {
	name := ""
	for i := range st.Names {
		n := &st.Names[i]
		if n.Addr != e.Peer || n.At > now || !n.counts(e.Time) {
			continue
		}
		if !n.Popular {
			return ""
		}
		if name == "" || n.Name < name {
			name = n.Name
		}
	}
	return name
}

// growth returns a step for the number of records: 1 from the first on, 2 from
// 8, 3 from 64, and so on by eights.
func growth(n int64) int { return (modules.Step(n, 1) + 2) / 3 }

// maxGrowth is more than growth ever returns.
const maxGrowth = 32

// report tells of a finding when it has a higher grade or has grown.
func (r rule) report(cx *modules.Context, st *State, b *batch) {
	it, e := &b.it, b.best
	e.Grade = max(e.Grade, it.Grade)
	step := int(e.Grade-1)*maxGrowth + growth(it.N)
	if step <= it.Step || it.Step > 0 && it.Level == evidence.Info {
		return
	}
	it.Grade, it.Step = e.Grade, step
	weight := weights[it.What][e.Grade]
	level, trust, more := it.Level, it.Trust, ""
	switch it.What {
	case domain, answerOf, aliasAnswer:
		if e.Grade == confirmed {
			trust = 1 - (1-trust)*(1-sighting)
		}
		if it.What == answerOf && it.Lone != "" && level < evidence.High {
			// Its word counts with the name; one such feed makes no second finding.
			level = evidence.Info
		}
	case toAddress:
		if name := st.popular(e, cx.Now()); name != "" {
			level = lower(level)
			more = fmt.Sprintf("; many visit %q, which is all that is known at that address", modules.Clip(name, maxText))
		}
	default:
	}
	if weight == 0 {
		level, weight = evidence.Info, 1
	}
	confidence := math.Round(100*trust*it.Part*weight) / 100
	word := Word{it.Lone, it.Host, cx.WindowAt(e.Time).Start}
	counted, certain, worth := st.counted(cx, it, level, confidence, word)
	if counted < level || certain < confidence {
		level, confidence = counted, certain
		more += fmt.Sprintf("; %s alone says so, and is not to make an alert by itself", it.Lone)
	}
	group := Group{types[it.What], it.Host, word.Window, level == evidence.Info}
	n, _ := st.Reports.Get(group)
	if n >= r.max {
		return
	}
	st.Reports.Put(group, n+1, maxGroups)
	if worth != nil {
		st.Words.Put(word, worth, maxWords)
	}
	text := fmt.Sprintf("%s: %s%s; confidence %.2f.", happened(b), it.Said, more, confidence)
	if it.N > 1 {
		text += fmt.Sprintf(" There are %d such records in this window.", it.N)
	}
	if n+1 == r.max {
		text += " Further ones of this type are not reported for this host in this window."
	}
	out := evidence.Evidence{
		Type: types[it.What], Profile: it.Host, Time: e.Time, Level: level, Confidence: confidence, Description: text,
		Attacker: ip(it.Host, evidence.Src, 0), Victim: ip(e.Peer, evidence.Dst, e.Port),
		Proto: e.Proto.String(), DstPort: e.Port, UIDs: slices.Clone(it.UIDs), Count: it.N, Subject: it.Indicator, Step: step,
	}
	switch it.What { // of two findings of one type and indicator the other is told of by another subject
	case sent, fromSystem:
		out.Subject += "|" + it.Host.String()
	case visitor:
		out.Attacker, out.Victim = ip(e.Peer, evidence.Src, 0), ip(it.Host, evidence.Dst, e.Port)
	case domain, aliasAnswer:
		out.Victim = evidence.Entity{Kind: evidence.Domain, Value: strings.ToLower(e.Name), Direction: evidence.Dst}
	case url:
		out.Victim = evidence.Entity{Kind: evidence.URL, Value: it.Indicator, Direction: evidence.Dst}
	default:
	}
	cx.Emit(out)
}

// One provider that says less than high is to make no alert by itself: a feed that
// goes wrong lists a site, its addresses and its files, and what types of evidence
// are worth is added up. An alert takes 15 points, and a second tactic makes a
// quarter more (package alerts). Files are reported from the state of their
// sender, so some points are kept free for those that a host receives.
const (
	perAlert    = 15
	twoTactics  = 1.25
	tacticFrom  = 3
	lessened    = 0.4                                     // what is left of a confidence that is too much
	keptForFile = 2 * perAlert * 0.5 * opinion * lessened // any number of files at level medium
)

// counted returns the level and the confidence with which evidence of one provider
// alone counts: all, less, or as information, so that what it says of the host in
// the window makes no alert; and what that is worth, nil when it need not be kept.
func (st *State) counted(cx *modules.Context, it *Finding, level evidence.Level, confidence float64, word Word) (evidence.Level, float64, []Worth) {
	less := math.Round(100*lessened*confidence) / 100
	switch {
	case it.Lone == "" || level >= evidence.High || level == evidence.Info || it.What == visitor:
		return level, confidence, nil
	case it.What == received || it.What == sent:
		return level, less, nil
	case it.Host != cx.Profile(): // the certificate of a server, from the server's state
		return evidence.Info, confidence, nil
	}
	before, _ := st.Words.Get(word)
	for _, c := range [...]float64{confidence, less} {
		all := append(slices.Clone(before), Worth{types[it.What], perAlert * level.Value() * c})
		if len(before) < maxWorth && score(all) < perAlert {
			return level, c, all
		}
	}
	return evidence.Info, confidence, nil
}

// score is at least what evidence is worth together as package alerts counts: of
// each type the greatest in full, and each further one half as much as the one
// before.
func score(all []Worth) float64 {
	slices.SortFunc(all, func(a, b Worth) int { return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(b.Points, a.Points)) })
	weight, points, access := 1.0, keptForFile, 0.0
	for i, w := range all {
		if weight /= 2; i == 0 || w.Type != all[i-1].Type {
			weight = 1
		}
		points += float64(weight * w.Points)
		if w.Type == From || w.Type == Email {
			access += float64(weight * w.Points)
		}
	}
	if access >= tacticFrom {
		points *= twoTactics
	}
	return points
}

// happened says what a host did.
func happened(b *batch) string {
	it, e := &b.it, b.best
	name := ""
	if b.with.Name != "" {
		name = fmt.Sprintf(" (%q in %s)", modules.Clip(b.with.Name, maxText), b.with.Seen)
	}
	who := it.Host.String()
	called := fmt.Sprintf("%q", modules.Clip(strings.ToLower(e.Name), maxText))
	var s strings.Builder
	switch it.What {
	case toAddress:
		how := [...]string{unanswered: "tried in vain to connect to", empty: "connected, without data both ways, to", exchanged: "connected to"}
		fmt.Fprintf(&s, "%s %s %s%s", who, how[min(e.Grade, exchanged)], e.peer(), name)
	case toSystem:
		fmt.Fprintf(&s, "%s connected to %s%s", who, e.peer(), name)
	case fromAddress, fromSystem:
		how := [...]string{knocked: "tried in vain to connect to", served: "connected to"}
		fmt.Fprintf(&s, "%s %s %s", who, how[min(e.Grade, served)], e.peer())
	case visitor:
		how := [...]string{knocked: "tried in vain to connect to", served: "connected to"}
		fmt.Fprintf(&s, "%s %s %s", e.Peer, how[min(e.Grade, served)], modules.Where(it.Host, e.Port))
	case domain:
		switch e.Grade {
		case asked:
			fmt.Fprintf(&s, "%s asked in DNS for %s", who, called)
		case tried:
			fmt.Fprintf(&s, "%s resolved %s and tried in vain to connect to it at %s", who, called, e.peer())
		case contacted:
			fmt.Fprintf(&s, "%s connected to %s at %s", who, called, e.peer())
		default:
			fmt.Fprintf(&s, "%s resolved %s and connected to it at %s", who, called, e.peer())
		}
	case answerOf:
		how := [...]string{
			asked: "", tried: " and tried in vain to connect to it", contacted: " and connected to it", confirmed: " and connected to it",
		}
		fmt.Fprintf(&s, "%s got the answer %s to its query for %s%s", who, e.Peer, called, how[min(e.Grade, confirmed)])
	case aliasAnswer:
		how := [...]string{
			asked: "", tried: fmt.Sprintf(" and tried in vain to connect to %s there", e.peer()),
			contacted: fmt.Sprintf(" and connected to %s there", e.peer()), confirmed: fmt.Sprintf(" and connected to %s there", e.peer()),
		}
		fmt.Fprintf(&s, "%s was told that %q is an alias of %s%s", who, modules.Clip(strings.ToLower(e.Detail), maxText), called,
			how[min(e.Grade, confirmed)])
	case addrAnswer:
		fmt.Fprintf(&s, "%s got the answer %s to its query for %s", who, e.Peer, called)
	case url:
		how := [...]string{refused: "and did not get it from", fetched: "at"}
		fmt.Fprintf(&s, "%s asked for the URL %q %s %s", who, modules.Clip(it.Indicator, 2*maxText), how[min(e.Grade, fetched)], e.peer())
	case received:
		fmt.Fprintf(&s, "%s received a file from %s with the hash %s%s", who, e.peer(), it.Indicator, within(e.Detail))
	case sent:
		fmt.Fprintf(&s, "%s sent a file to %s with the hash %s%s", who, e.peer(), it.Indicator, within(e.Detail))
	case ja3, ja4:
		fmt.Fprintf(&s, "%s connected to %s with a TLS client of the fingerprint %s", who, e.peer(), it.Indicator)
	case ja3s:
		fmt.Fprintf(&s, "%s connected to %s, a TLS server of the fingerprint %s", who, e.peer(), it.Indicator)
	case cert:
		fmt.Fprintf(&s, "%s connected to %s, where the certificate has the SHA-1 %s", who, e.peer(), it.Indicator)
	case mail:
		fmt.Fprintf(&s, "%s sent a mail to %s that names %s", who, e.peer(), called)
	case tor:
		if it.Indicator == who {
			who += ", an exit node of Tor,"
		}
		fmt.Fprintf(&s, "%s was connected to %s, or tried to be", who, e.peer())
	default:
	}
	return s.String()
}

// within puts a text into brackets.
func within(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}
