package eval

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

const hour = int64(time.Hour)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// bench feeds an Observer by hand.
type bench struct {
	*Observer
	t       *testing.T
	manager *alerts.Manager
	n       int
}

func newBench(t *testing.T, s *Scenario, home ...netip.Prefix) *bench {
	t.Helper()
	o := NewObserver(s, home, alerts.Defaults(), time.Hour)
	m, err := alerts.New(alerts.Defaults(), time.Hour, o)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{o, t, m, 0}
}

// conn gives a connection in window w, from 1.
func (b *bench) conn(w int64, src, dst string, port uint16, label string) {
	f := &flow.Flow{Kind: flow.Conn, Proto: flow.TCP, Time: (w-1)*hour + hour/2, Dst: addr(dst), DstPort: port, Label: label}
	if src != "" {
		f.Src = addr(src)
	}
	b.Flow(f, profile.Window{N: w, Start: (w - 1) * hour, End: w * hour})
}

// find gives evidence about a host to the manager, and so perhaps an alert to
// the observer.
func (b *bench) find(w int64, host string, typ evidence.Type, level evidence.Level) {
	b.t.Helper()
	b.n++
	e := &evidence.Evidence{
		Type: typ, Profile: addr(host), Attacker: evidence.IPEntity(addr(host), evidence.Src, 0), Level: level, Confidence: 1,
		Tactic: evidence.Discovery, Subject: fmt.Sprint(b.n), Description: fmt.Sprintf("%s number %d", typ, b.n),
		Window: w, WindowStart: (w - 1) * hour, WindowEnd: w * hour, Time: (w - 1) * hour,
	}
	e.Derive()
	if err := b.manager.Evidence(e); err != nil {
		b.t.Fatal(err)
	}
}

// alert gives evidence that is enough for an alert.
func (b *bench) alert(w int64, host string) { b.t.Helper(); b.find(w, host, "SURE", evidence.Critical) }

func near(t *testing.T, what string, want float64, got *float64) {
	t.Helper()
	if got == nil || math.Abs(*got-want) > 1e-9 {
		t.Errorf("%s is %v, want %v", what, optional(got), want)
	}
}

func TestMetrics(t *testing.T) {
	m := Counts{TP: 6, FP: 2, TN: 90, FN: 4}.metrics()
	near(t, "precision", 0.75, m.Precision)          // 6/8
	near(t, "recall", 0.6, m.Recall)                 // 6/10
	near(t, "F1", 2.0/3, m.F1)                       // 12/18
	near(t, "FPR", 1.0/46, m.FPR)                    // 2/92
	near(t, "MCC", 532/math.Sqrt(8*10*92*94), m.MCC) // (6·90 − 2·4) / √691840
	m = Counts{TN: 5}.metrics()                      // nothing bad, nothing said
	if m.Precision != nil || m.Recall != nil || m.F1 != nil || m.MCC != nil {
		t.Errorf("of no positives: %+v", m)
	}
	near(t, "FPR", 0, m.FPR)
	m = Counts{FN: 3}.metrics() // everything missed
	near(t, "recall", 0, m.Recall)
	near(t, "F1", 0, m.F1)
	if m.Precision != nil || m.FPR != nil {
		t.Errorf("of nothing said: %+v", m)
	}
	m = Counts{TP: 1, TN: 1}.metrics()
	near(t, "MCC", 1, m.MCC)
	m = Counts{FP: 1, FN: 1}.metrics()
	near(t, "MCC", -1, m.MCC)
}

// counts of a result, to compare.
func confusion(c Counts) [4]int { return [4]int{c.TP, c.FP, c.TN, c.FN} }

func TestKinds(t *testing.T) {
	// The host is bad by its own deeds in windows 2 and 4, and there is an alert in 2 and 3.
	play := func(s *Scenario) *Result {
		b := newBench(t, s)
		for w := int64(1); w <= 4; w++ {
			port, label := uint16(443), "Benign"
			if w%2 == 0 {
				port, label = 4444, "Malicious"
			}
			b.conn(w, "10.0.0.5", "198.51.100.7", port, label)
			b.conn(w, "10.0.0.6", "198.51.100.7", 443, "Benign")
			b.conn(w, "203.0.114.1", "10.0.0.6", 4444, "Malicious") // from outside
		}
		b.alert(2, "10.0.0.5")
		b.alert(3, "10.0.0.5")
		return b.Result()
	}
	infected := []netip.Addr{addr("10.0.0.5")}
	rules := []Rule{{Orig: infected, Port: []uint16{4444}}}
	for _, c := range []struct {
		name string
		s    Scenario
		want [4]int // TP FP TN FN
	}{
		{"rule", Scenario{Kind: ByRule, Infected: infected, Rules: rules}, [4]int{1, 1, 5, 1}},
		{"attackers count as infected ones do", Scenario{Kind: ByRule, Attackers: infected, Rules: rules}, [4]int{1, 1, 5, 1}},
		{"per flow", Scenario{Kind: PerFlow, Infected: infected}, [4]int{1, 1, 5, 1}},
		{"scenario: from the first on", Scenario{Kind: Whole, Infected: infected, Rules: rules}, [4]int{2, 0, 5, 1}},
		{"scenario without rules: every window", Scenario{Kind: Whole, Infected: infected}, [4]int{2, 0, 4, 2}},
		{"monitored", Scenario{Kind: PerFlow, Monitored: []netip.Addr{addr("10.0.0.6")}}, [4]int{0, 0, 4, 0}},
		{"nobody is bad", Scenario{Kind: Whole}, [4]int{0, 2, 6, 0}},
		{"by the labels alone, outsiders too", *LabelledScenario("x", "x"), [4]int{1, 1, 5, 5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if r := play(&c.s); confusion(r.Counts) != c.want {
				t.Errorf("TP FP TN FN are %v, want %v; errors %+v", confusion(r.Counts), c.want, r.Errors)
			}
		})
	}
}

func TestRule(t *testing.T) {
	f := &flow.Flow{Kind: flow.Conn, Proto: flow.ICMP6, Src: addr("::ffff:10.0.0.5"), Dst: addr("10.0.0.9"), DstPort: 53}
	for _, c := range []struct {
		name string
		rule Rule
		want bool
	}{
		{"empty", Rule{}, true},
		{"source", Rule{Orig: []netip.Addr{addr("10.0.0.5")}}, true},
		{"other source", Rule{Orig: []netip.Addr{addr("10.0.0.9")}}, false},
		{"one of the destinations", Rule{Resp: []netip.Addr{addr("10.0.0.8"), addr("10.0.0.9")}}, true},
		{"other destination", Rule{Resp: []netip.Addr{addr("10.0.0.5")}}, false},
		{"port", Rule{Port: []uint16{25, 53}}, true},
		{"other port", Rule{Port: []uint16{25}}, false},
		{"icmp is both", Rule{Proto: "icmp"}, true},
		{"other protocol", Rule{Proto: "tcp"}, false},
		{"all must match", Rule{Port: []uint16{53}, Proto: "udp"}, false},
	} {
		if c.rule.match(f) != c.want {
			t.Errorf("%s: %v", c.name, !c.want)
		}
	}
	f.Kind = flow.DNS
	if (&Rule{}).match(f) {
		t.Error("a rule is about connections, and matched a record of dns")
	}
}

func TestHosts(t *testing.T) {
	play := func(s *Scenario, home ...netip.Prefix) []string {
		b := newBench(t, s, home...)
		for _, src := range []string{"10.0.0.5", "192.168.7.7", "fd00::7", "198.51.99.4", "0.0.0.0", "::", "127.0.0.1", "224.0.0.1", "255.255.255.255", ""} {
			b.conn(1, src, "10.0.0.9", 80, "")
		}
		b.alert(1, "10.0.0.9") // sent nothing
		b.find(1, "10.0.0.10", "WEAK", evidence.Low)
		r := b.Result()
		var hosts []string
		for i := range r.windows {
			if w := &r.windows[i]; w.active || w.tally.Weigh(b.config, 15).Score >= 15 {
				hosts = append(hosts, w.host.String())
			}
		}
		if r.Hosts != len(hosts) || r.HostWindows != len(hosts) {
			t.Errorf("%d hosts, %d windows, want %v", r.Hosts, r.HostWindows, hosts)
		}
		return hosts
	}
	for _, c := range []struct {
		name string
		got  []string
		want string
	}{
		{"private sources, and whoever there is an alert on", play(&Scenario{Kind: Whole}), "10.0.0.5 10.0.0.9 192.168.7.7 fd00::7"},
		{"home networks", play(&Scenario{Kind: Whole}, netip.MustParsePrefix("198.51.99.0/24")), "198.51.99.4"},
		{"monitored", play(&Scenario{Kind: Whole, Monitored: []netip.Addr{addr("192.168.7.7")}}), "192.168.7.7"},
		{"infected, wherever they are", play(&Scenario{Kind: Whole, Infected: []netip.Addr{addr("198.51.99.4")}}), "10.0.0.5 10.0.0.9 192.168.7.7 198.51.99.4 fd00::7"},
	} {
		if got := strings.Join(c.got, " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestBar(t *testing.T) {
	for _, c := range []struct {
		name  string
		alert []int64 // windows; the first bad one is 3
		delay int64   // -1: no alert
		met   bool
	}{
		{"at once", []int64{3}, 0, true},
		{"in the next window", []int64{4}, 1, true},
		{"too late", []int64{5, 6}, 2, false},
		{"never", nil, -1, false},
		{"too early is no merit", []int64{1}, -1, false},
		{"early, and then in time", []int64{1, 4}, 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			host := addr("10.0.0.5")
			b := newBench(t, &Scenario{Kind: ByRule, Infected: []netip.Addr{host}, Rules: []Rule{{Port: []uint16{4444}}}})
			for w := int64(1); w <= 6; w++ {
				b.conn(w, "10.0.0.5", "198.51.100.7", map[bool]uint16{true: 4444, false: 80}[w >= 3], "")
			}
			for _, w := range c.alert {
				b.alert(w, "10.0.0.5")
			}
			r := b.Result()
			if len(r.Targets) != 1 || r.Targets[0].Met != c.met || r.Targets[0].FirstBad.Window != 3 {
				t.Fatalf("targets: %+v", r.Targets)
			}
			if d := r.Targets[0].Delay; c.delay >= 0 && (d == nil || *d != c.delay) || c.delay < 0 && d != nil {
				t.Errorf("delay: %+v, want %d", r.Targets[0], c.delay)
			}
			rep := NewReport(alerts.Defaults(), time.Hour, []*Result{r})
			rep.AddSweep([]float64{0.25})
			if got := rep.Sweep[0].Met == 1; got != c.met {
				t.Errorf("the sweep says %v", got)
			}
		})
	}
}

func TestBenignHostDays(t *testing.T) {
	b := newBench(t, &Scenario{Kind: Whole, Infected: []netip.Addr{addr("10.0.0.5")}})
	for w := int64(1); w <= 12; w++ {
		b.conn(w, "10.0.0.5", "198.51.100.7", 80, "")
		b.conn(w, "10.0.0.6", "198.51.100.7", 80, "")
	}
	b.alert(1, "10.0.0.5")
	b.alert(2, "10.0.0.6")
	b.alert(2, "10.0.0.6")                        // 22.5: no alert yet
	b.alert(2, "10.0.0.6")                        // 26.25
	b.find(2, "10.0.0.6", "OTHER", evidence.High) // 38: the second alert
	r := b.Result()
	if r.BenignHostDays != 0.5 || r.AlertsOnBenign != 2 {
		t.Errorf("%d alerts in %v benign host-days, want 2 in 0.5", r.AlertsOnBenign, r.BenignHostDays)
	}
	near(t, "alerts per benign host-day", 4, r.AlertsPerBenignHostDay)

	short := newBench(t, &Scenario{Kind: Whole}) // ten minutes are no hour
	for _, at := range []int64{0, 600} {
		short.Flow(&flow.Flow{Src: addr("10.0.0.6"), Time: at * int64(time.Second)}, profile.Window{N: 1})
	}
	if r := short.Result(); math.Abs(r.BenignHostDays-10.0/1440) > 1e-12 {
		t.Errorf("%v host-days in ten minutes", r.BenignHostDays)
	}
}

func TestErrorsSayWhy(t *testing.T) {
	b := newBench(t, &Scenario{ID: "x", Kind: PerFlow, Infected: []netip.Addr{addr("10.0.0.5")}})
	b.conn(1, "10.0.0.5", "198.51.100.7", 80, "Malicious")
	b.conn(1, "10.0.0.5", "198.51.100.7", 80, "Benign")
	b.find(1, "10.0.0.5", "WEAK", evidence.Low)
	b.find(1, "10.0.0.5", "WEAK", evidence.Medium)
	b.find(1, "10.0.0.5", "TOLD", evidence.Info)
	r := b.Result()
	want := []Error{{
		Host: addr("10.0.0.5"), Window: 1, Start: "1970-01-01T00:00:00Z", Missed: true, Records: 2, Bad: 1, Score: 9, Sum: "9",
		Evidence: []Behind{
			{Type: "WEAK", Tactic: evidence.Discovery, Level: "medium", Confidence: 1, Count: 2, Value: 9, Example: "WEAK number 2"},
			{Type: "TOLD", Count: 1},
		},
	}}
	if diff := cmp.Diff(want, r.Errors, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
	rep := NewReport(alerts.Defaults(), time.Hour, []*Result{r})
	for _, line := range []string{
		"MISSED WINDOWS", "  x 10.0.0.5 window 1 (1970-01-01T00:00:00Z): score 9, 1 of 2 records are bad",
		"    9: WEAK (2 × medium, discovery, confidence 1.000): WEAK number 2", "    0: 1 × TOLD",
	} {
		if !slices.Contains(strings.Split(rep.Text(), "\n"), line) {
			t.Errorf("no line %q in:\n%s", line, rep.Text())
		}
	}
}

// TestSweepAgrees: at the threshold of the run a sweep finds what the run found.
func TestSweepAgrees(t *testing.T) {
	b := newBench(t, &Scenario{Kind: Whole, Infected: []netip.Addr{addr("10.0.0.1"), addr("10.0.0.2")}})
	for h := 1; h <= 6; h++ {
		host := fmt.Sprintf("10.0.0.%d", h)
		for w := int64(1); w <= 3; w++ {
			b.conn(w, host, "198.51.100.7", 80, "")
			for i := range h * int(w) {
				b.find(w, host, evidence.Type(rune('A'+i%3)), evidence.Level(i%4))
			}
		}
	}
	r := b.Result()
	rep := NewReport(alerts.Defaults(), time.Hour, []*Result{r})
	rep.AddSweep(Settings(0.25))
	if r.TP == 0 || r.FP == 0 || r.TN == 0 || r.FN == 0 {
		t.Fatalf("%+v does not try enough", r.Counts)
	}
	var last Row
	current := 0
	for i, row := range rep.Sweep {
		if row.Current {
			current++
			if row.Counts != r.Counts {
				t.Errorf("the run found %+v, the sweep %+v", r.Counts, row.Counts)
			}
		}
		if i > 0 && (row.TP > last.TP || row.FP > last.FP || row.Setting <= last.Setting) {
			t.Errorf("more alerts at a higher threshold: %+v, then %+v", last, row)
		}
		last = row
	}
	if current != 1 || rep.Sweep[0].TP == last.TP {
		t.Errorf("%d rows for the threshold of the run; first %+v, last %+v", current, rep.Sweep[0], last)
	}
}

func TestNotes(t *testing.T) {
	host := []netip.Addr{addr("10.0.0.5")}
	b := newBench(t, &Scenario{Kind: ByRule, Infected: append(host, addr("10.0.0.6")), Rules: []Rule{
		{Orig: host, Port: []uint16{80}, Tag: "few", Flows: 3}, {Port: []uint16{9}}, {Port: []uint16{80}, Flows: 1},
	}})
	b.conn(1, "10.0.0.5", "198.51.100.7", 80, "")
	want := []string{
		`rule "few" matches 1 connections, the truth says 3`, "rule 1 matches no connection",
		"10.0.0.6 is infected or attacks, and no window of it is bad by the truth's own rules",
	}
	if diff := cmp.Diff(want, b.Result().Notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	if n := newBench(t, &Scenario{Kind: Whole}).Result().Notes; len(n) != 1 || n[0] != "no record could be read" {
		t.Errorf("notes of nothing: %q", n)
	}
}

func TestMalicious(t *testing.T) {
	for text, want := range map[string]bool{
		"Malicious|C&C": true, "malicious|": true, "Malware-UDP-DNS|": true, "From-Botnet-V42-TCP-CC|": true, "|Attack": true,
		"Benign|": false, "Background|": false, "To-Botnet-V42-UDP|": false, "From-Normal-V42|": false, "|": false,
	} {
		label, detailed, _ := strings.Cut(text, "|")
		if Malicious(label, detailed) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}

func TestParseTruth(t *testing.T) {
	list, err := ParseTruth("t.json", []byte(`[{"id": "a", "path": "x/conn.log", "format": "zeek-json", "label_kind": "rule",
		"infected": ["10.0.0.5", "::ffff:10.0.0.6"], "attackers": null, "monitored": "10.0.0.7", "expect": "much", "note": "", "flows_total": 3,
		"rules": [{"orig": "10.0.0.5", "resp": ["1.2.3.4", "1.2.3.5"], "port": [1, 2], "proto": "TCP", "tag": "c2", "flows": 7, "extra": 1}],
		"odd": 1}]`))
	if err != nil {
		t.Fatal(err)
	}
	want := []*Scenario{{
		ID: "a", Path: "x/conn.log", Format: "zeek-json", Kind: ByRule, Infected: []netip.Addr{addr("10.0.0.5"), addr("10.0.0.6")},
		Monitored: []netip.Addr{addr("10.0.0.7")}, Expect: []string{"much"},
		Rules: []Rule{{Orig: []netip.Addr{addr("10.0.0.5")}, Resp: []netip.Addr{addr("1.2.3.4"), addr("1.2.3.5")}, Port: []uint16{1, 2}, Proto: "tcp", Tag: "c2", Flows: 7}},
		Notes: []string{`rules[0]: the field "extra" is not known and was ignored`, `the field "odd" is not known and was ignored`},
	}}
	if diff := cmp.Diff(want, list, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("scenarios (-want +got):\n%s", diff)
	}

	good := `"id": "a", "path": "p", "label_kind": "scenario"`
	for _, c := range [][2]string{
		{"[\n{,", "t.json:2: invalid character"},
		{`{}`, "t.json: want an array of scenarios"},
		{`[]`, "t.json: there is no scenario in it"},
		{`[3]`, "t.json: scenario 0: want an object"},
		{`[null]`, "t.json: scenario 0: want an object"},
		{`[{"path": "p"}]`, "t.json: scenario 0: id: is missing"},
		{`[{"id": "../a", "path": "p"}]`, `scenario 0 (../a): id: "../a" cannot be the name`},
		{`[{"id": 3}]`, "scenario 0: id: number is not what is wanted here (string)"},
		{`[{"id": "a"}]`, "scenario 0 (a): path: is missing"},
		{`[{"id": "a", "path": "p"}]`, `scenario 0 (a): label_kind: "": want rule, per-flow or scenario`},
		{`[{"id": "a", "path": "p", "label_kind": "some"}]`, `label_kind: "some": want`},
		{`[{` + good + `}, {` + good + `}]`, `scenario 1: id: "a" comes twice`},
		{`[{` + good + `, "infected": ["10.0.0"]}]`, `scenario 0 (a): infected: "10.0.0" is no IP address`},
		{`[{` + good + `, "attackers": [7]}]`, "scenario 0 (a): attackers: number is not"},
		{`[{` + good + `, "monitored": {}}]`, "scenario 0 (a): monitored: object is not"},
		{`[{` + good + `, "rules": {}}]`, "scenario 0 (a): rules: object is not"},
		{`[{` + good + `, "rules": [{}, {"port": 70000}]}]`, "scenario 0 (a): rules[1].port: number 70000 is not"},
		{`[{` + good + `, "rules": [{"port": ["a"]}]}]`, "scenario 0 (a): rules[0].port: string is not"},
		{`[{` + good + `, "rules": [{"orig": "host"}]}]`, `rules[0].orig: "host" is no IP address`},
		{`[{` + good + `, "rules": [{"resp": [1]}]}]`, "rules[0].resp: number is not"},
		{`[{` + good + `, "rules": [4]}]`, "rules[0]: want an object"},
		{`[{"id": "a", "path": "p", "label_kind": "rule", "infected": ["10.0.0.5"]}]`, "scenario 0 (a): rules: label_kind is rule"},
	} {
		if _, err := ParseTruth("t.json", []byte(c[0])); err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s: error is %v, want %q", c[0], err, c[1])
		}
	}
}

func TestRendering(t *testing.T) {
	s := LabelledScenario("a|b", "p")
	b := newBench(t, s)
	b.conn(1, "10.0.0.5", "198.51.100.7", 80, "Malicious")
	b.conn(1, "10.0.0.6", "198.51.100.7", 80, "")
	b.find(1, "10.0.0.5", "W<EAK", evidence.Low)
	b.find(1, "203.0.114.7", "WEAK", evidence.Low)
	rep := NewReport(alerts.Defaults(), time.Hour, []*Result{b.Result()})
	rep.AddSweep([]float64{0.25, 0.43})
	md := rep.Markdown()
	for _, want := range []string{"# Evaluation\n", `| a\|b | 2 | 2 | 0 | 0 | 1 | 1 | - | 0.000 |`, "W&lt;EAK", "## Definitions", "| 0.25 | 15 |", "default, this run", "insensitive"} {
		if !strings.Contains(md, want) {
			t.Errorf("no %q in:\n%s", want, md)
		}
	}
	text, err := json.Marshal(rep)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"precision":null`, `"fn":1`, `"errors":[`, `"first_alert":null`, `"outside":{"sources":1,"with_evidence":1,"with_alerts":0}`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	many := &Result{ID: "many", Errors: make([]Error, maxErrors+3)}
	if text := NewReport(alerts.Defaults(), time.Hour, []*Result{many}).Text(); !strings.Contains(text, "many: 3 more") {
		t.Errorf("all errors are shown:\n%s", text)
	}
	if span(90*time.Minute) != "1h30m" || span(time.Hour) != "1h" || span(10*time.Minute) != "10m" || span(5*time.Second) != "5s" {
		t.Error("durations are written in an odd way")
	}
}
