package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The bounds of what is told of a host and window, and of names. What is
// beyond them is counted.
const (
	maxTold     = 100_000 // activities
	maxPeers    = 100_000
	maxResolved = 200_000 // addresses that have a name
	maxAliases  = 16      // names of an address
)

// dnsAnswer is what an activity tells about names.
type dnsAnswer struct {
	Kind string    `json:"kind"`
	At   time.Time `json:"ts"`
	Info struct {
		Query   string   `json:"query"`
		Answers []string `json:"answers"`
	} `json:"info"`
}

// resolved has the names that addresses were resolved from.
type resolved struct {
	names map[string][]resolvedName
}

type resolvedName struct {
	at   time.Time // first
	name string
}

// add notes the addresses in an answer. Sink-holed names and reverse lookups
// name nobody.
func (r *resolved) add(d *dnsAnswer) {
	if d.Info.Query == "" || strings.HasSuffix(strings.TrimSuffix(d.Info.Query, "."), ".arpa") {
		return
	}
	for _, s := range d.Info.Answers {
		a, err := netip.ParseAddr(s)
		if err != nil || a.IsUnspecified() || a.IsLoopback() {
			continue
		}
		r.note(a.String(), d.Info.Query, d.At)
	}
}

func (r *resolved) note(addr, name string, at time.Time) {
	if r.names == nil {
		r.names = make(map[string][]resolvedName)
	}
	list := r.names[addr]
	if i := slices.IndexFunc(list, func(n resolvedName) bool { return n.name == name }); i >= 0 {
		if at.Before(list[i].at) {
			list[i].at = at
		}
		return
	}
	if list == nil && len(r.names) >= maxResolved || len(list) >= maxAliases {
		return
	}
	r.names[addr] = append(list, resolvedName{at, name})
}

// settle is called behind the last answer.
func (r *resolved) settle() {
	for _, list := range r.names {
		slices.SortFunc(list, func(a, b resolvedName) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.name, b.name)) })
	}
}

// of returns the names that an address had at a time: up to three, or the
// last one of more.
func (r *resolved) of(addr string, at time.Time) (names []string) {
	for _, n := range r.names[addr] {
		if !n.at.After(at) {
			names = append(names, n.name)
		}
	}
	if len(names) > 3 {
		names = names[len(names)-1:]
	}
	return names
}

// activity is a line of flows/timeline.jsonl.
type activity struct {
	Time        time.Time       `json:"ts"`
	UID         string          `json:"uid"`
	Kind        string          `json:"kind"`
	Name        string          `json:"dport_name"`
	Preposition string          `json:"preposition"`
	Peer        string          `json:"daddr"`
	Port        string          `json:"dport/proto"`
	State       string          `json:"state"`
	Warning     string          `json:"warning"`
	Sent        int64           `json:"sent"`
	Recv        int64           `json:"recv"`
	Duration    float64         `json:"duration"`
	Info        json.RawMessage `json:"info"`

	raw json.RawMessage
}

// entry is what happened at one moment: the activities of one connection, a
// piece of evidence, or an alert.
type entry struct {
	at         time.Time
	kind       string // "activity", "evidence" or "alert"
	rank       int    // of the kind, for entries of one time
	activities []*activity
	text       string          // of evidence and alerts
	raw        json.RawMessage // of these
}

// account is what a host did in a window.
type account struct {
	hostWindow
	name    string // of the host
	names   *resolved
	keep    bool // the lines themselves are wanted
	entries []*entry
	byUID   map[string]*entry
	told    int // activities in entries
	peers   map[string]bool
	totals
}

// totals close an account.
type totals struct {
	First      *time.Time `json:"first"`
	Last       *time.Time `json:"last"`
	Activities int        `json:"activities"`
	LeftOut    int        `json:"left_out"` // of these
	Flows      int        `json:"flows"`
	Sent       int64      `json:"sent"`
	Recv       int64      `json:"recv"`
	Peers      int        `json:"peers"`
	Evidence   int        `json:"evidence"`
	Alerts     int        `json:"alerts"`
}

func newAccount(g hostWindow, name string, names *resolved, keep bool) *account {
	return &account{hostWindow: g, name: name, names: names, keep: keep, byUID: make(map[string]*entry), peers: make(map[string]bool)}
}

// activity takes a line of the timeline.
func (a *account) activity(line []byte) error {
	x := new(activity)
	if err := json.Unmarshal(line, x); err != nil {
		return fmt.Errorf("not an activity: %w", err)
	}
	a.Activities++
	if a.First == nil || x.Time.Before(*a.First) {
		a.First = &x.Time
	}
	if a.Last == nil || x.Time.After(*a.Last) {
		a.Last = &x.Time
	}
	if x.Kind == "conn" {
		a.Flows++
		a.Sent, a.Recv = upTo(a.Sent, x.Sent), upTo(a.Recv, x.Recv)
	}
	if x.Peer != "" && len(a.peers) < maxPeers {
		a.peers[x.Peer] = true
	}
	if a.told == maxTold {
		a.LeftOut++
		return nil
	}
	a.told++
	if a.keep {
		x.raw = bytes.TrimSpace(line)
	}
	e := a.byUID[x.UID]
	if x.UID == "" || e == nil {
		e = &entry{kind: "activity"}
		a.entries = append(a.entries, e)
		if x.UID != "" {
			a.byUID[x.UID] = e
		}
	}
	e.activities = append(e.activities, x)
	return nil
}

// upTo adds counts of bytes and stops at the greatest number: sensors that miss packets have many too many.
func upTo(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// evidence takes a line of evidence.jsonl.
func (a *account) evidence(line []byte) error {
	var x struct {
		Time        time.Time `json:"time"`
		Type        string    `json:"type"`
		Level       string    `json:"threat_level"`
		Confidence  float64   `json:"confidence"`
		Description string    `json:"description"`
	}
	if err := json.Unmarshal(line, &x); err != nil {
		return fmt.Errorf("not a piece of evidence: %w", err)
	}
	a.Evidence++
	a.mark(&entry{
		at: x.Time, kind: "evidence", rank: 1, raw: bytes.TrimSpace(line),
		text: fmt.Sprintf("%s, %s, confidence %s: %s", x.Type, x.Level, number(x.Confidence), x.Description),
	})
	return nil
}

// alert takes a line of alerts.jsonl.
func (a *account) alert(line []byte) error {
	var x struct {
		Time      time.Time `json:"time"`
		Score     float64   `json:"score"`
		Threshold float64   `json:"threshold"`
		Tactics   []string  `json:"tactics"`
	}
	if err := json.Unmarshal(line, &x); err != nil {
		return fmt.Errorf("not an alert: %w", err)
	}
	a.Alerts++
	text := fmt.Sprintf("score %s, threshold %s", number(x.Score), number(x.Threshold))
	if len(x.Tactics) > 0 {
		text += " (" + strings.Join(x.Tactics, " + ") + ")"
	}
	a.mark(&entry{at: x.Time, kind: "alert", rank: 2, raw: bytes.TrimSpace(line), text: text})
	return nil
}

func (a *account) mark(e *entry) {
	if !a.keep {
		e.raw = nil
	}
	a.entries = append(a.entries, e)
}

// settle puts everything in order, behind the last line. Order must not depend
// on that of the lines, which differs from run to run when logs are followed.
func (a *account) settle() {
	a.Peers = len(a.peers)
	for _, e := range a.entries {
		if len(e.activities) == 0 {
			continue
		}
		slices.SortStableFunc(e.activities, func(x, y *activity) int {
			return cmp.Or(later(x.Kind != "conn", y.Kind != "conn"), x.Time.Compare(y.Time), cmp.Compare(x.Kind, y.Kind), bytes.Compare(x.Info, y.Info))
		})
		e.at = e.activities[0].Time
	}
	slices.SortStableFunc(a.entries, func(x, y *entry) int {
		c := cmp.Or(x.at.Compare(y.at), cmp.Compare(x.rank, y.rank))
		if c == 0 && len(x.activities) > 0 {
			x, y := x.activities[0], y.activities[0]
			return cmp.Or(cmp.Compare(x.UID, y.UID), cmp.Compare(x.Kind, y.Kind), bytes.Compare(x.Info, y.Info))
		}
		return cmp.Or(c, cmp.Compare(x.text, y.text))
	})
}

// later orders false before true.
func later(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// clockLayout is how people are told the time, which is UTC.
const clockLayout = "2006-01-02 15:04:05.000"

// writeText writes the account for people.
func (a *account) writeText(w *bufio.Writer) {
	host := a.profile
	if host == "" {
		host = "no host"
	}
	if a.name != "" {
		host += " (" + printable(a.name) + ")"
	}
	_, _ = fmt.Fprintf(w, "%s, timewindow %d", host, a.window) // w remembers its errors, here and below
	if a.First != nil {
		_, _ = fmt.Fprintf(w, ": %s to %s UTC", a.First.UTC().Format(clockLayout), a.Last.UTC().Format(clockLayout))
	}
	_ = w.WriteByte('\n')
	indent := strings.Repeat(" ", len(clockLayout)+4)
	for _, e := range a.entries {
		lines := a.lines(e)
		_, _ = fmt.Fprintf(w, "  %s  %s\n", e.at.UTC().Format(clockLayout), lines[0])
		for _, l := range lines[1:] {
			_, _ = fmt.Fprintf(w, "%s  %s\n", indent, l)
		}
	}
	if a.LeftOut > 0 {
		_, _ = fmt.Fprintf(w, "  … and %s more activities, in %s\n", thousands(int64(a.LeftOut)), timelineFiles()[inTimeline])
	}
	_, _ = fmt.Fprintf(w, "  %s\n", a.summary())
}

// summary is the line that closes an account.
func (a *account) summary() string {
	peers := counted1(a.Peers, "peer", "peers")
	if a.Peers >= maxPeers {
		peers = "at least " + peers
	}
	return fmt.Sprintf("total: %s, %s sent, %s received, %s, %s of evidence, %s", counted1(a.Flows, "flow", "flows"), size(a.Sent), size(a.Recv),
		peers, counted1(a.Evidence, "piece", "pieces"), counted1(a.Alerts, "alert", "alerts"))
}

func counted1(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(int64(n)) + " " + more
}

// lines is an entry for people; there is at least one.
func (a *account) lines(e *entry) []string {
	switch e.kind {
	case "evidence":
		return []string{">> evidence: " + printable(e.text)}
	case "alert":
		return []string{"!! ALERT: " + printable(e.text)}
	}
	out := []string{a.heading(e.activities[0])}
	for _, x := range e.activities[1:] {
		if x.Kind == "conn" {
			out = append(out, a.heading(x))
		} else {
			out = append(out, x.Kind+": "+cmp.Or(infoText(x), "nothing more is known"))
		}
	}
	return out
}

// heading is an activity in one line, with the other side.
func (a *account) heading(x *activity) string {
	var b strings.Builder
	b.WriteString(printable(cmp.Or(x.Name, strings.ToUpper(x.Kind))))
	info := infoText(x)
	if x.Kind == "conn" && info != "" {
		b.WriteString(" (" + info + ")")
		info = ""
	}
	if x.Peer != "" {
		fmt.Fprintf(&b, " %s %s", x.Preposition, printable(x.Peer))
		if names := a.names.of(x.Peer, x.Time); len(names) > 0 {
			fmt.Fprintf(&b, " (%s)", printable(strings.Join(names, ", ")))
		}
	}
	if x.Port != "" && !strings.EqualFold(x.Port, x.Name) {
		b.WriteString(" " + printable(x.Port))
	}
	if x.Kind == "conn" {
		if x.State != "" {
			b.WriteString(", " + x.State)
		}
		fmt.Fprintf(&b, ", sent %s, received %s, %.3f s", size(x.Sent), size(x.Recv), x.Duration)
	}
	if x.Warning != "" {
		b.WriteString(" [" + x.Warning + "]")
	}
	if info != "" {
		b.WriteString(": " + info)
	}
	return b.String()
}

// infoText is what the record's own kind has to say, for people.
func infoText(x *activity) string {
	m := members(x.Info)
	get := func(key string) string {
		for _, p := range m {
			if p[0] == key {
				return p[1]
			}
		}
		return ""
	}
	switch {
	case x.Kind == "dns" && get("query") != "":
		s := "asked for " + get("query")
		if t := get("type"); t != "" {
			s += " (" + t + ")"
		}
		return s + " -> " + cmp.Or(strings.Join(nonempty(get("answers"), get("rcode")), " "), "no answer")
	case x.Kind == "http" && get("request") != "":
		answer := cmp.Or(get("status"), "no answer")
		return get("request") + " -> " + strings.Join(nonempty(answer, get("mime"), get("recv"), get("user_agent")), ", ")
	case x.Kind == "conn":
		return strings.Join(nonempty(get("message"), strings.Replace(get("open"), "yes", "still open", 1)), ", ")
	}
	var parts []string
	for _, p := range m {
		parts = append(parts, strings.ReplaceAll(p[0], "_", " ")+" "+p[1])
	}
	return strings.Join(parts, ", ")
}

func nonempty(s ...string) []string {
	return slices.DeleteFunc(s, func(s string) bool { return s == "" })
}

// members returns the members of a flat JSON object in their order, as text
// that can be printed.
func members(raw json.RawMessage) (list [][2]string) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return list
		}
		var v any
		if d.Decode(&v) != nil {
			return list
		}
		name := fmt.Sprint(key)
		list = append(list, [2]string{printable(name), printable(valueText(name, v))})
	}
	return list
}

func valueText(key string, v any) string {
	switch v := v.(type) {
	case []any:
		var all []string
		for _, x := range v {
			all = append(all, fmt.Sprint(x))
		}
		return strings.Join(all, ", ")
	case json.Number:
		if n, err := v.Int64(); err == nil && (key == "bytes" || key == "sent" || key == "recv") {
			return size(n)
		}
	}
	return fmt.Sprint(v)
}

// entryJSON is an entry, or the totals, as "slips timeline --json" prints them.
type entryJSON struct {
	Kind    string            `json:"kind"` // activity, evidence, alert or totals
	Profile string            `json:"profile"`
	Window  int64             `json:"window"`
	Time    *time.Time        `json:"time,omitempty"`
	UID     string            `json:"uid,omitempty"`
	Names   []string          `json:"names,omitempty"` // of the other side
	Text    string            `json:"text"`
	Records []json.RawMessage `json:"records,omitempty"`
	Totals  *totals           `json:"totals,omitempty"`
}

// writeJSON writes the account as JSON lines.
func (a *account) writeJSON(w *bufio.Writer) {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, e := range a.entries {
		x := entryJSON{Kind: e.kind, Profile: a.profile, Window: a.window, Time: &e.at, Text: e.text}
		if len(e.activities) > 0 {
			first := e.activities[0]
			x.UID, x.Names = first.UID, a.names.of(first.Peer, first.Time)
			x.Text = strings.Join(a.lines(e), "; ")
			for _, y := range e.activities {
				x.Records = append(x.Records, y.raw)
			}
		} else {
			x.Records = []json.RawMessage{e.raw}
		}
		_ = enc.Encode(x) // w remembers its errors
	}
	_ = enc.Encode(entryJSON{Kind: "totals", Profile: a.profile, Window: a.window, Text: a.summary(), Totals: &a.totals}) // as above
}
