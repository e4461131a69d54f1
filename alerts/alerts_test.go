package alerts

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/evidence"
)

const hour = int64(time.Hour)

// recorder is a Sink that keeps everything.
type recorder struct {
	lines  []string // "E <id> <accumulated>" and "A <id>"
	alerts []*Alert
	err    error
}

func (r *recorder) Evidence(e *evidence.Evidence, acc float64) error {
	r.lines = append(r.lines, fmt.Sprintf("E %s %.9f", e.ID, acc))
	return r.err
}

func (r *recorder) Alert(a *Alert) error {
	r.lines = append(r.lines, "A "+a.ID)
	r.alerts = append(r.alerts, a)
	return r.err
}

var host = netip.MustParseAddr("10.0.0.5")

// ev makes evidence number n of a type against host in window w (from 1).
func ev(typ string, n int, level evidence.Level, conf float64, w int64) *evidence.Evidence {
	e := &evidence.Evidence{
		Type: evidence.Type(typ), Profile: host, Level: level, Confidence: conf,
		Attacker: evidence.IPEntity(host, evidence.Src, 0), Subject: fmt.Sprint(n),
		Window: w, WindowStart: (w - 1) * hour, WindowEnd: w * hour, Time: (w-1)*hour + int64(n),
		Description: fmt.Sprintf("%s %d", typ, n),
	}
	e.Key.At = e.Time + 1000
	e.Derive()
	return e
}

// of gives a type of evidence its tactic.
func of(tactic evidence.Tactic, e *evidence.Evidence) *evidence.Evidence { e.Tactic = tactic; return e }

func newManager(t *testing.T, width time.Duration, change func(*Config)) (*Manager, *recorder) {
	t.Helper()
	c, r := Defaults(), new(recorder)
	if change != nil {
		change(&c)
	}
	m, err := New(c, width, r)
	if err != nil {
		t.Fatal(err)
	}
	return m, r
}

func give(t *testing.T, m *Manager, list ...*evidence.Evidence) {
	t.Helper()
	for _, e := range list {
		if err := m.Evidence(e); err != nil {
			t.Fatal(err)
		}
	}
}

func (m *Manager) score(w int64) float64 {
	if a := m.accounts[key{host, (w - 1) * hour}]; a != nil {
		return a.Score
	}
	return 0
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestScore(t *testing.T) {
	other := netip.MustParseAddr("10.0.0.6")
	with := func(e *evidence.Evidence, f func(*evidence.Evidence)) *evidence.Evidence { f(e); return e }
	for _, c := range []struct {
		name string
		list []*evidence.Evidence
		want float64
	}{
		{"one", []*evidence.Evidence{ev("A", 1, evidence.High, 1, 1)}, 12},
		{"medium at half confidence", []*evidence.Evidence{ev("A", 1, evidence.Medium, 0.5, 1)}, 3.75},
		{"the second of a type weighs half", []*evidence.Evidence{ev("A", 1, evidence.High, 1, 1), ev("A", 2, evidence.High, 1, 1)}, 18},
		{"the third a quarter", []*evidence.Evidence{ev("A", 1, evidence.Low, 1, 1), ev("A", 2, evidence.Low, 1, 1), ev("A", 3, evidence.Low, 1, 1)}, 5.25},
		{"another type weighs in full", []*evidence.Evidence{ev("A", 1, evidence.Low, 1, 1), ev("B", 2, evidence.Low, 1, 1)}, 6},
		{"weights go by size, not by arrival", []*evidence.Evidence{ev("A", 1, evidence.Low, 1, 1), ev("A", 2, evidence.High, 1, 1)}, 13.5},
		{"another window", []*evidence.Evidence{ev("A", 1, evidence.High, 1, 1), ev("A", 1, evidence.High, 1, 2)}, 12},
		{"info adds nothing and takes no place", []*evidence.Evidence{ev("A", 1, evidence.Info, 1, 1), ev("A", 2, evidence.High, 1, 1)}, 12},
		{"context adds nothing", []*evidence.Evidence{of(evidence.Context, ev("A", 1, evidence.High, 1, 1))}, 0},
		{"two types of one tactic do not corroborate", []*evidence.Evidence{
			of(evidence.Discovery, ev("A", 1, evidence.Medium, 1, 1)), of(evidence.Discovery, ev("B", 1, evidence.Medium, 1, 1)),
		}, 15},
		{"two tactics do", []*evidence.Evidence{
			of(evidence.Discovery, ev("A", 1, evidence.Medium, 1, 1)), of(evidence.Impact, ev("B", 1, evidence.Low, 1, 1)),
		}, 10.5 * 1.25},
		{"a tactic with less than a fifth of the threshold does not", []*evidence.Evidence{
			of(evidence.Discovery, ev("A", 1, evidence.Medium, 1, 1)), of(evidence.Impact, ev("B", 1, evidence.Low, 0.9, 1)),
		}, 10.2},
		{"types of one tactic reach the fifth together", []*evidence.Evidence{
			of(evidence.Discovery, ev("A", 1, evidence.Medium, 1, 1)),
			of(evidence.Impact, ev("B", 1, evidence.Low, 0.5, 1)), of(evidence.Impact, ev("C", 1, evidence.Low, 0.5, 1)),
		}, 10.5 * 1.25},
		{"three tactics", []*evidence.Evidence{
			of(evidence.Discovery, ev("A", 1, evidence.Low, 1, 1)), of(evidence.Impact, ev("B", 1, evidence.Low, 1, 1)),
			of(evidence.Execution, ev("C", 1, evidence.Low, 1, 1)),
		}, 9 * 1.5},
		{"no tactic corroborates nothing", []*evidence.Evidence{
			ev("A", 1, evidence.Medium, 1, 1), of(evidence.Impact, ev("B", 1, evidence.Medium, 1, 1)), of("magic", ev("C", 1, evidence.Medium, 1, 1)),
		}, 22.5},
		{"the attacker is somebody else", []*evidence.Evidence{with(ev("A", 1, evidence.High, 1, 1), func(e *evidence.Evidence) {
			e.Attacker = evidence.IPEntity(other, evidence.Src, 0)
		})}, 0},
		{"the attacker is a domain", []*evidence.Evidence{with(ev("A", 1, evidence.High, 1, 1), func(e *evidence.Evidence) {
			e.Attacker = evidence.Entity{Kind: evidence.Domain, Value: host.String()}
		})}, 0},
		{"the attacker is the profile as responder", []*evidence.Evidence{with(ev("A", 1, evidence.High, 1, 1), func(e *evidence.Evidence) {
			e.Attacker.Direction = evidence.Dst
		})}, 12},
		{"the attacker is the profile, mapped into IPv6", []*evidence.Evidence{with(ev("A", 1, evidence.High, 1, 1), func(e *evidence.Evidence) {
			e.Attacker.Value = "::ffff:10.0.0.5"
		})}, 12},
		{"confidence above 1 is 1", []*evidence.Evidence{ev("A", 1, evidence.High, 7, 1)}, 12},
		{"confidence that is no number is 0", []*evidence.Evidence{ev("A", 1, evidence.High, math.NaN(), 1)}, 0},
		{"negative confidence is 0", []*evidence.Evidence{ev("A", 1, evidence.High, -1, 1)}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, r := newManager(t, time.Hour, nil)
			give(t, m, c.list...)
			if got := m.score(1); !near(got, c.want) {
				t.Errorf("score is %v, want %v", got, c.want)
			}
			if n := len(r.lines) - len(r.alerts); n != len(c.list) {
				t.Errorf("%d of %d pieces of evidence came through", n, len(c.list))
			}
		})
	}
}

func TestThreshold(t *testing.T) {
	for _, c := range []struct {
		width time.Duration
		want  float64
	}{{time.Minute, 0.25}, {5 * time.Minute, 1.25}, {time.Hour, 15}, {24 * time.Hour, 15}, {1 << 62, 15}} {
		if got := Defaults().Threshold(c.width); got != c.want {
			t.Errorf("threshold of %v is %v, want %v", c.width, got, c.want)
		}
	}
}

// TestOneTypeAlone pins what one detector can do by itself: alert when it is
// sure of something bad, and never by repeating what is not.
func TestOneTypeAlone(t *testing.T) {
	first := func(level evidence.Level, conf float64) int {
		m, r := newManager(t, time.Hour, nil)
		for n := 1; n <= 1000; n++ {
			give(t, m, ev("A", n, level, conf, 1))
			if len(r.alerts) > 0 {
				return n
			}
		}
		return 0
	}
	got := []int{first(evidence.Critical, 1), first(evidence.High, 1), first(evidence.High, 0.6), first(evidence.Medium, 1), first(evidence.Low, 1)}
	if diff := cmp.Diff([]int{1, 2, 0, 0, 0}, got); diff != "" {
		t.Errorf("evidence until the alert (-want +got):\n%s", diff)
	}
}

// TestThresholdKeepsItsMeaning: what is worth reporting at the sensitive
// setting is not at the others.
func TestThresholdKeepsItsMeaning(t *testing.T) {
	for _, c := range []struct {
		threshold float64
		want      int // pieces of evidence until the alert
	}{{0.08, 1}, {0.25, 2}, {0.43, 3}} {
		m, r := newManager(t, time.Hour, func(cfg *Config) { cfg.EvidenceDetectionThreshold = c.threshold })
		for n := 1; len(r.alerts) == 0 && n < 10; n++ {
			give(t, m, of(evidence.Discovery, ev(string(rune('A'+n)), n, evidence.High, 0.8, 1)))
			if len(r.alerts) == 1 && n != c.want {
				t.Errorf("at %v the alert came with %d pieces of evidence, want %d", c.threshold, n, c.want)
			}
		}
		if len(r.alerts) == 0 {
			t.Errorf("at %v there was no alert", c.threshold)
		}
	}
}

func TestAlert(t *testing.T) {
	m, r := newManager(t, time.Hour, nil)
	info := ev("I", 9, evidence.Info, 1, 1)
	a1 := of(evidence.Discovery, ev("A", 1, evidence.Medium, 0.5, 1))
	b1 := of(evidence.Impact, ev("B", 2, evidence.Low, 1, 1))
	b2 := of(evidence.Impact, ev("B", 3, evidence.High, 0.625, 1))
	give(t, m, info, a1, b1) // (3.75 + 3) × 1.25
	if len(r.alerts) != 0 {
		t.Fatal("alert below the threshold")
	}
	give(t, m, b2) // (3.75 + 7.5 + 1.5) × 1.25
	if len(r.alerts) != 1 {
		t.Fatalf("%d alerts, want 1 above the threshold", len(r.alerts))
	}
	want := &Alert{
		ID:      evidence.UUID("alert", "10.0.0.5", "0", "0"),
		Profile: host, Window: 1, WindowStart: 0, WindowEnd: hour, Time: 3, At: 1003, Step: 0,
		Sum:       Sum{Base: 12.75, Tactics: []evidence.Tactic{evidence.Discovery, evidence.Impact}, Factor: 1.25, Score: 15.9375},
		Threshold: 15, Confidence: (15.9375 - 4.8) / 21.2, Level: evidence.Critical,
		EvidenceIDs: []string{b2.ID, a1.ID, b1.ID},
		Contributions: []Contribution{
			{ID: b2.ID, Type: "B", Tactic: evidence.Impact, Level: evidence.High, Confidence: 0.625, Description: "B 3", Time: 3, Weight: 15, Value: 7.5},
			{ID: a1.ID, Type: "A", Tactic: evidence.Discovery, Level: evidence.Medium, Confidence: 0.5, Description: "A 1", Time: 1, Weight: 15, Value: 3.75},
			{ID: b1.ID, Type: "B", Tactic: evidence.Impact, Level: evidence.Low, Confidence: 1, Description: "B 2", Time: 2, Weight: 7.5, Value: 1.5},
		},
	}
	opt := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if diff := cmp.Diff(want, r.alerts[0], opt); diff != "" {
		t.Errorf("alert (-want +got):\n%s", diff)
	}
	if got, want := r.alerts[0].Explain(), "score 15.94 = 12.75 × 1.25 (discovery + impact), threshold 15"; got != want {
		t.Errorf("explained as %q, want %q", got, want)
	}

	// The next comes at 30, and lists all that the score is made of.
	c := of(evidence.Impact, ev("C", 4, evidence.High, 0.9, 1))
	give(t, m, c) // (12.75 + 10.8) × 1.25 = 29.4
	if len(r.alerts) != 1 {
		t.Fatal("second alert below twice the threshold")
	}
	give(t, m, of(evidence.Impact, ev("E", 6, evidence.Low, 0.2, 1))) // + 0.6 × 1.25
	if len(r.alerts) != 2 || r.alerts[1].Threshold != 30 || r.alerts[1].Step != 1 || r.alerts[1].Confidence != 1 {
		t.Fatalf("second alert: %+v", r.alerts)
	}
	if diff := cmp.Diff([]string{c.ID, b2.ID, a1.ID, b1.ID}, r.alerts[1].EvidenceIDs[:4]); diff != "" || len(r.alerts[1].EvidenceIDs) != 5 {
		t.Errorf("second alert lists %v", r.alerts[1].EvidenceIDs)
	}
	if r.alerts[0].Contributions[0].Value != 7.5 {
		t.Error("the first alert changed behind the back of its reader")
	}
	if r.alerts[0].ID == r.alerts[1].ID {
		t.Error("two alerts with one id")
	}
	if s := m.Stats(); s.Alerts != 2 || s.Total != 6 || s.Counting != 5 || s.Evidence["B"] != 2 || s.Windows != 1 {
		t.Errorf("stats: %+v", s)
	}
}

func TestExplain(t *testing.T) {
	for want, a := range map[string]Alert{
		"score 18, threshold 15":     {Sum: Sum{Base: 18, Factor: 1, Score: 18, Tactics: []evidence.Tactic{evidence.Impact}}, Threshold: 15},
		"score 0.33, threshold 0.25": {Sum: Sum{Base: 1. / 3, Factor: 1, Score: 1. / 3}, Threshold: 0.25},
		"score 31.25, threshold 30":  {Sum: Sum{Base: 31.25, Factor: 1, Score: 31.25}, Threshold: 30},
		"score 31.5 = 21 × 1.5 (discovery + command-and-control + impact), threshold 30": {Sum: Sum{
			Base: 21, Factor: 1.5, Score: 31.5, Tactics: []evidence.Tactic{evidence.Discovery, evidence.CommandAndControl, evidence.Impact},
		}, Threshold: 30},
	} {
		if got := a.Explain(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestSeveralBarsAtOnce: one piece of evidence that takes the score over two
// bars makes one alert, for the higher one.
func TestSeveralBarsAtOnce(t *testing.T) {
	m, r := newManager(t, time.Minute, nil) // threshold 0.25
	give(t, m, ev("A", 1, evidence.High, 1, 1))
	if len(r.alerts) != 1 || r.alerts[0].Step != 5 || r.alerts[0].Threshold != 8 {
		t.Fatalf("alerts: %+v", r.alerts)
	}
	if c := r.alerts[0].Confidence; !near(c, 7.2/21.2) {
		t.Errorf("confidence is %v", c)
	}
	give(t, m, ev("A", 2, evidence.Medium, 0.8, 1))
	if len(r.alerts) != 1 {
		t.Error("alert at 15, want none before 16")
	}
}

func TestConfidenceIsClipped(t *testing.T) {
	for score, want := range map[float64]float64{0.25: 0, 4.8: 0, 15.2: 10.4 / 21.2, 26: 1, 100: 1} {
		if got := confidence(score); !near(got, want) {
			t.Errorf("confidence(%v) is %v, want %v", score, got, want)
		}
	}
}

func TestDropped(t *testing.T) {
	m, r := newManager(t, time.Hour, func(c *Config) { c.DisabledDetections = []string{"OFF"} })
	e := ev("A", 1, evidence.High, 1, 1)
	give(t, m, e, e, ev("OFF", 2, evidence.High, 1, 1))
	if len(r.lines) != 1 {
		t.Errorf("sink saw %q", r.lines)
	}
	if s := m.Stats(); s.Duplicates != 1 || s.Disabled != 1 || s.Total != 1 {
		t.Errorf("stats: %+v", s)
	}
	for _, id := range []string{"", "x", strings.Repeat("g", 36), "5c1e0d6b-7a43-4f2e-9b0a-3d9451d7c86", "5c1e0d6b-7a43-4f2e-9b0a-3d9451d7c86z"} {
		bad := ev("A", 2, evidence.High, 1, 1)
		bad.ID = id
		if err := m.Evidence(bad); err == nil || !strings.Contains(err.Error(), "no UUID") {
			t.Errorf("id %q: error %v", id, err)
		}
	}
}

func TestSinkErrorIsReturned(t *testing.T) {
	m, r := newManager(t, time.Minute, nil)
	r.err = errors.New("disk full")
	if err := m.Evidence(ev("A", 1, evidence.High, 1, 1)); !errors.Is(err, r.err) {
		t.Errorf("error is %v", err)
	}
	if len(r.alerts) != 1 {
		t.Error("the alert was not handed on after the evidence failed")
	}
}

func TestTee(t *testing.T) {
	a, b := &recorder{err: errors.New("a fails")}, new(recorder)
	s := Tee(a, b)
	if err := s.Evidence(ev("A", 1, evidence.High, 1, 1), 12); !errors.Is(err, a.err) {
		t.Errorf("error is %v", err)
	}
	if err := s.Alert(&Alert{ID: "x"}); !errors.Is(err, a.err) {
		t.Errorf("error is %v", err)
	}
	if diff := cmp.Diff(a.lines, b.lines); diff != "" || len(b.lines) != 2 {
		t.Errorf("sinks differ: %s", diff)
	}
}

func TestAdvance(t *testing.T) {
	m, r := newManager(t, time.Hour, nil)
	give(t, m, ev("A", 1, evidence.High, 1, 1), ev("B", 2, evidence.High, 1, 1), ev("A", 1, evidence.High, 1, 2))
	if len(r.alerts) != 1 {
		t.Fatalf("%d alerts", len(r.alerts))
	}
	m.Advance(51 * hour) // fifty widths after the end of window 1
	if m.score(1) != 24 {
		t.Error("window 1 was forgotten fifty widths after its end, want later")
	}
	m.Advance(51*hour + 1)
	if m.score(1) != 0 || m.score(2) != 12 || m.Stats().Forgotten != 1 {
		t.Errorf("scores %v, %v, stats %+v", m.score(1), m.score(2), m.Stats())
	}

	// Late evidence starts a new sum, but neither a duplicate nor the alert
	// that was raised then comes again.
	give(t, m, ev("A", 1, evidence.High, 1, 1), ev("C", 3, evidence.High, 1, 1), ev("D", 4, evidence.High, 1, 1))
	if m.Stats().Duplicates != 1 || len(r.alerts) != 1 || m.score(1) != 24 {
		t.Errorf("stats %+v, %d alerts, score %v", m.Stats(), len(r.alerts), m.score(1))
	}
	give(t, m, ev("E", 5, evidence.High, 1, 1), ev("F", 6, evidence.High, 1, 1))
	if len(r.alerts) != 2 || r.alerts[1].ID == r.alerts[0].ID {
		t.Errorf("alerts: %+v", r.alerts)
	}
}

func TestAdvanceWithEndlessWindow(t *testing.T) {
	m, _ := newManager(t, math.MaxInt64, nil)
	e := ev("A", 1, evidence.High, 1, 1)
	e.WindowEnd = math.MaxInt64
	give(t, m, e)
	m.Advance(math.MaxInt64)
	if m.Stats().Windows != 1 {
		t.Error("the only window was forgotten")
	}
}

// hosts makes one piece of evidence for each of n hosts in window w.
func onHost(i int, w int64, n int) *evidence.Evidence {
	e := ev("A", n, evidence.Low, 0.1, w)
	e.Profile = netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
	e.Attacker = evidence.IPEntity(e.Profile, evidence.Src, 0)
	e.Derive()
	return e
}

func TestBounds(t *testing.T) {
	m, r := newManager(t, time.Hour, nil)
	m.limits = limits{accounts: 10, held: 30, ids: 100}
	m.reset()
	for i := range 50 {
		give(t, m, onHost(i, int64(1+i/10), 1))
		if len(m.accounts) > 10 || len(m.order) != len(m.accounts) {
			t.Fatalf("%d accounts, %d in order", len(m.accounts), len(m.order))
		}
	}
	for k := range m.accounts {
		if k.Start != 4*hour {
			t.Errorf("window from %v is still there, older ones should go first", time.Duration(k.Start))
		}
	}
	if s := m.Stats(); s.Evicted != 40 || s.Total != 50 {
		t.Errorf("stats: %+v", s)
	}
	// Evidence for an old window evicts another one, not its own.
	give(t, m, onHost(7, 1, 2))
	if m.accounts[key{onHost(7, 1, 2).Profile, 0}] == nil {
		t.Error("the window in use was evicted")
	}

	for n := range 200 {
		give(t, m, onHost(n%10, 5, 100+n))
		held := 0
		for _, a := range m.accounts {
			held += a.Tally.len()
		}
		if held > 30 || held != m.held {
			t.Fatalf("%d contributions held, counted as %d", held, m.held)
		}
	}
	if len(m.ids.m) != 100 || len(m.ids.ring) != 100 {
		t.Errorf("%d ids kept", len(m.ids.m))
	}
	if len(r.alerts) != 0 {
		t.Error("alert out of weak evidence")
	}
}

// TestOnlyTheGreatestAreHeld: of each type ten count, whichever came first, and
// the alert says how many more there were.
func TestOnlyTheGreatestAreHeld(t *testing.T) {
	m, r := newManager(t, time.Hour, nil)
	for n := range 20 {
		give(t, m, ev("WEAK", n, evidence.Low, float64(1+n)/100, 1))
	}
	give(t, m, ev("S", 1, evidence.Critical, 1, 1))
	if len(r.alerts) != 1 {
		t.Fatalf("%d alerts", len(r.alerts))
	}
	var listed []string
	for _, c := range r.alerts[0].Contributions {
		listed = append(listed, c.Description)
	}
	want := "S 1,WEAK 19,WEAK 18,WEAK 17,WEAK 16,WEAK 15,WEAK 14,WEAK 13,WEAK 12,WEAK 11,WEAK 10"
	if diff := cmp.Diff(strings.Split(want, ","), listed); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
	if r.alerts[0].Omitted != 10 || m.Stats().Omitted != 10 || m.Stats().Counting != 21 {
		t.Errorf("omitted %d, stats %+v, want 10", r.alerts[0].Omitted, m.Stats())
	}
}

// stream makes a reproducible mix of evidence over many hosts and windows.
func stream(seed uint64, n int) []*evidence.Evidence {
	rnd := rand.New(rand.NewPCG(seed, 1))
	var list []*evidence.Evidence
	for i := range n {
		e := ev(string(rune('A'+rnd.IntN(6))), rnd.IntN(40), evidence.Level(rnd.IntN(5)), float64(rnd.IntN(11))/10, int64(1+i*8/n-rnd.IntN(3)))
		e.Tactic = evidence.Tactics()[(1+int(e.Type[0]))%4]
		e.Profile = netip.AddrFrom4([4]byte{10, 0, 0, byte(rnd.IntN(4))})
		if rnd.IntN(5) > 0 {
			e.Attacker = evidence.IPEntity(e.Profile, evidence.Src, 0)
		}
		e.Derive()
		list = append(list, e)
	}
	return list
}

// TestAlertsAddUp: an alert explains its score to the last bit, and no id
// comes twice.
func TestAlertsAddUp(t *testing.T) {
	m, r := newManager(t, time.Hour, nil)
	give(t, m, stream(1, 3000)...)
	if len(r.alerts) < 10 {
		t.Fatalf("only %d alerts", len(r.alerts))
	}
	ids, factors := map[string]bool{}, map[float64]bool{}
	for _, a := range r.alerts {
		byType, base := map[evidence.Type]int{}, 0.0
		for i, c := range a.Contributions {
			base += c.Value
			byType[c.Type]++
			if a.EvidenceIDs[i] != c.ID || c.Value != c.Weight*c.Level.Value()*c.Confidence && !near(c.Value, c.Weight*c.Level.Value()*c.Confidence) {
				t.Errorf("contribution %+v, id %s", c, a.EvidenceIDs[i])
			}
			if want := math.Ldexp(m.cfg.FirstEvidenceWeight, 1-byType[c.Type]); c.Weight != want {
				t.Errorf("number %d of %s weighs %v, want %v", byType[c.Type], c.Type, c.Weight, want)
			}
			if byType[c.Type] > perType {
				t.Errorf("%d of %s", byType[c.Type], c.Type)
			}
		}
		if !near(base, a.Base) || a.Score != a.Base*a.Factor || a.Score < a.Threshold || a.Score >= 2*a.Threshold {
			t.Errorf("alert of %s window %d: sum %v, base %v, score %v, threshold %v", a.Profile, a.Window, base, a.Base, a.Score, a.Threshold)
		}
		factors[a.Factor] = true
		if ids[a.ID] {
			t.Errorf("alert id %s twice", a.ID)
		}
		ids[a.ID] = true
	}
	if len(factors) < 3 {
		t.Errorf("factors %v: the stream does not try enough", factors)
	}
}

// TestOrderDoesNotMatter: the same evidence in any order leaves the same
// score to the last bit, and alerts on the same windows.
func TestOrderDoesNotMatter(t *testing.T) {
	list := stream(4, 2000)
	first := map[string]bool{}
	list = slices.DeleteFunc(list, func(e *evidence.Evidence) bool { // which of two with one id counts is up to the order
		again := first[e.ID]
		first[e.ID] = true
		return again
	})
	outcome := func() (map[key]float64, map[key]bool) {
		m, r := newManager(t, time.Hour, func(c *Config) { c.EvidenceDetectionThreshold = 1.5 })
		give(t, m, list...)
		scores, alerted := map[key]float64{}, map[key]bool{}
		for k, a := range m.accounts {
			scores[k] = a.Score
		}
		for _, a := range r.alerts {
			alerted[key{a.Profile, a.WindowStart}] = true
		}
		return scores, alerted
	}
	scores, alerted := outcome()
	if len(alerted) == 0 || len(alerted) == len(scores) {
		t.Fatalf("%d of %d windows with alerts: the stream does not try enough", len(alerted), len(scores))
	}
	rnd := rand.New(rand.NewPCG(7, 7))
	for range 5 {
		rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		again, alertedAgain := outcome()
		if diff := cmp.Diff(scores, again, cmp.Comparer(func(a, b key) bool { return a == b })); diff != "" {
			t.Fatalf("scores (-before +after):\n%s", diff)
		}
		if !maps.Equal(alerted, alertedAgain) {
			t.Fatal("other windows have alerts")
		}
	}
}

// TestSaveLoad: stopping and going on at any point changes nothing.
func TestSaveLoad(t *testing.T) {
	list := stream(2, 400)
	now := func(i int) int64 { return list[i].WindowStart }
	run := func(cut int) ([]string, Stats) {
		m, r := newManager(t, time.Hour, nil)
		m.keep, m.limits.ids = 2*hour, 150 // so that windows go and the ring has wrapped
		m.reset()
		var lines []string
		for i, e := range list {
			if i == cut {
				var b bytes.Buffer
				if err := m.Save(gob.NewEncoder(&b)); err != nil {
					t.Fatal(err)
				}
				lines = r.lines
				m, r = newManager(t, time.Hour, nil)
				m.keep, m.limits.ids = 2*hour, 150
				m.reset()
				give(t, m, ev("GONE", 1, evidence.High, 1, 1)) // Load replaces everything
				r.lines = nil
				if err := m.Load(gob.NewDecoder(&b)); err != nil {
					t.Fatal(err)
				}
			}
			give(t, m, e)
			m.Advance(now(i))
		}
		return append(lines, r.lines...), m.Stats()
	}
	want, wantStats := run(-1)
	if wantStats.Forgotten == 0 || wantStats.Alerts == 0 || wantStats.Duplicates == 0 {
		t.Fatalf("the stream does not try enough: %+v", wantStats)
	}
	for _, cut := range []int{0, 1, 57, 200, 399} {
		got, stats := run(cut)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("cut at %d (-want +got):\n%s", cut, diff)
		}
		if diff := cmp.Diff(wantStats, stats); diff != "" {
			t.Errorf("stats when cut at %d (-want +got):\n%s", cut, diff)
		}
	}
}

func TestLoadFailure(t *testing.T) {
	m, _ := newManager(t, time.Hour, nil)
	give(t, m, ev("A", 1, evidence.High, 1, 1))
	if err := m.Load(gob.NewDecoder(strings.NewReader("garbage"))); err == nil {
		t.Error("garbage was loaded")
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(saved{IDs: []byte{1, 2, 3}}); err != nil {
		t.Fatal(err)
	}
	if err := m.Load(gob.NewDecoder(&b)); err == nil || !strings.Contains(err.Error(), "3 bytes of ids") {
		t.Errorf("error is %v", err)
	}
	if m.score(1) != 12 {
		t.Error("a failed load changed the state")
	}
}

func TestConfig(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.EvidenceDetectionThreshold = 0 }, "evidence_detection_threshold is 0"},
		{func(c *Config) { c.EvidenceDetectionThreshold = math.NaN() }, "evidence_detection_threshold is NaN"},
		{func(c *Config) { c.EvidenceDetectionThreshold = math.Inf(1) }, "evidence_detection_threshold is +Inf"},
		{func(c *Config) { c.FirstEvidenceWeight = -1 }, "first_evidence_weight is -1"},
		{func(c *Config) { c.CorroborationWeight = -1 }, "corroboration_weight is -1"},
		{func(c *Config) { c.CorroborationWeight = math.NaN() }, "corroboration_weight is NaN"},
		{func(c *Config) { c.DisabledDetections = []string{"A", ""} }, "disabled_detections[1] is empty"},
		{func(c *Config) { c.DisabledDetections = []string{"B"} }, `disabled_detections[0] is "B", which is no type`},
	} {
		cfg := Defaults()
		c.change(&cfg)
		if err := cfg.Validate("A"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error is %v, want %q", err, c.want)
		}
	}
	if _, err := New(Config{}, time.Hour, new(recorder)); err == nil {
		t.Error("New took an empty config")
	}
	if _, err := New(Defaults(), 0, new(recorder)); err == nil {
		t.Error("New took a width of 0")
	}
	if _, err := New(Defaults(), time.Hour, nil); err == nil {
		t.Error("New took no sink")
	}
}

func BenchmarkEvidence(b *testing.B) {
	m, err := New(Defaults(), time.Hour, Tee())
	if err != nil {
		b.Fatal(err)
	}
	list := stream(3, 20000)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i%len(list) == 0 {
			m.reset()
		}
		if err := m.Evidence(list[i%len(list)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
