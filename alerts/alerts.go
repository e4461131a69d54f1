// Package alerts adds evidence up, for each profile and time window, and
// raises an alert when the sum is high enough. It knows no clock, no chance
// and no goroutine: the same evidence in the same order gives the same alerts.
//
// # Score
//
// Evidence is worth FirstEvidenceWeight × level × confidence. Of one type in one
// window the greatest weighs 1, the next 1/2, the next 1/4 and so on, so a type
// adds less than twice what its best evidence is worth, however often it
// comes. The sum over types is the base. It is multiplied by
//
//	1 + CorroborationWeight × (k−1)
//
// where k is the number of tactics (evidence.Tactic) whose evidence alone is
// worth a fifth of the threshold or more; without any the factor is 1. What
// raises a score is thus evidence of different types, and most of all of
// different kinds of behaviour.
//
// The score depends on what was found and never on the order in which it came:
// sums are taken in the order of type, value and id.
//
// Evidence counts when the attacker is the profile itself, whichever side of
// the flow it was on. Evidence about somebody else that is kept under this
// profile, evidence of level info, and evidence of the tactic Context adds
// nothing.
//
// # Threshold
//
// An alert is raised at evidence_detection_threshold × width in minutes, where
// a window wider than one hour counts as one hour: 15 for the defaults. The
// score saturates, so a wider window does not collect proportionally more and
// a bar that grew with it would never be reached. Later alerts of the same
// window come at 2, 4, 8 … times that: a host that goes on is reported on a log
// scale, as every subject is. Each alert lists all that its window's score is
// made of at that time.
//
// # Bounds
//
// The manager keeps the windows that ended at most keepWidths widths ago, at most
// maxAccounts of them with maxHeld pieces of evidence between them, the perType
// greatest of each type, and the ids of the last maxIDs pieces of evidence. What
// leaves early is counted.
package alerts

import (
	"cmp"
	"container/heap"
	"encoding/gob"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
)

// Config holds the settings of the section "detection".
type Config struct {
	// EvidenceDetectionThreshold is the score per minute of window width at
	// which an alert is raised: 0.08 is sensitive, 0.43 insensitive.
	EvidenceDetectionThreshold float64 `yaml:"evidence_detection_threshold"`
	// FirstEvidenceWeight is what the greatest evidence of a type in a window
	// is multiplied with; each further one weighs half of the one before.
	FirstEvidenceWeight float64 `yaml:"first_evidence_weight"`
	// CorroborationWeight is what each tactic beyond the first adds to the
	// factor of a score; 0 makes the score the plain sum.
	CorroborationWeight float64 `yaml:"corroboration_weight"`
	// DisabledDetections names types of evidence that are dropped (and
	// counted) as if they had not been found.
	DisabledDetections []string `yaml:"disabled_detections"`
}

// Defaults returns the settings that slips.yaml ships with.
func Defaults() Config {
	return Config{EvidenceDetectionThreshold: 0.25, FirstEvidenceWeight: 15, CorroborationWeight: 0.25}
}

// Validate reports the first setting that makes no sense, by its key and
// value. When types are given, a disabled detection must be one of them.
func (c Config) Validate(known ...evidence.Type) error {
	if v := c.EvidenceDetectionThreshold; !(v > 0 && v <= 1000) {
		return fmt.Errorf("evidence_detection_threshold is %v, want more than 0 and at most 1000", v)
	}
	if v := c.FirstEvidenceWeight; !(v > 0 && v <= 1000) {
		return fmt.Errorf("first_evidence_weight is %v, want more than 0 and at most 1000", v)
	}
	if v := c.CorroborationWeight; !(v >= 0 && v <= 10) {
		return fmt.Errorf("corroboration_weight is %v, want 0 to 10", v)
	}
	for i, name := range c.DisabledDetections {
		if name == "" {
			return fmt.Errorf("disabled_detections[%d] is empty, want the name of a type of evidence", i)
		}
		if len(known) > 0 && !slices.Contains(known, evidence.Type(name)) {
			return fmt.Errorf("disabled_detections[%d] is %q, which is no type of evidence", i, name)
		}
	}
	return nil
}

// Threshold returns the score at which the first alert of a window of the
// given width is raised.
func (c Config) Threshold(width time.Duration) float64 {
	return c.EvidenceDetectionThreshold * min(width, time.Hour).Minutes()
}

// Alert says that a profile's behaviour within a window is an incident.
type Alert struct {
	ID          string // UUIDv5 over profile, window start and step
	Profile     netip.Addr
	Window      int64
	WindowStart int64 // unix ns
	WindowEnd   int64
	Time        int64 // of the evidence that crossed the bar, unix ns
	At          int64 // stream time at which that was found, unix ns
	Step        int   // 0 for the first bar, 1 for twice, 2 for four times …
	Sum
	Threshold  float64 // the bar that was crossed
	Confidence float64 // 0 to 1
	Level      evidence.Level

	// Contributions lists what the score of the window is made of, the greatest
	// value first; EvidenceIDs are their ids. The values add up to Base.
	Contributions []Contribution
	EvidenceIDs   []string
	Known         *evidence.Known // about the profile, as of the evidence that crossed the bar; nil for nothing
	Omitted       int             // evidence that counts but adds next to nothing: not among the greatest of its type
}

// Explain says in one line why the alert was raised: the score, how it comes
// about, and the bar.
func (a *Alert) Explain() string {
	return "score " + a.Text() + ", threshold " + number(a.Threshold)
}

// Sink takes what the manager lets through. It is called by the goroutine
// that calls the Manager, evidence before the alert it causes. It must not
// change e or a; it may keep a, and the strings of e. An error does not stop
// the manager from counting; it is returned to the Manager's caller.
type Sink interface {
	// Evidence takes evidence that is new, with the score of its window
	// after it was added.
	Evidence(e *evidence.Evidence, accumulated float64) error
	Alert(a *Alert) error
}

// Tee returns a Sink that passes everything on to each of sinks, in order,
// and joins their errors.
func Tee(sinks ...Sink) Sink { return tee(sinks) }

type tee []Sink

var _ Sink = tee(nil)

func (t tee) Evidence(e *evidence.Evidence, accumulated float64) error {
	var errs []error
	for _, s := range t {
		if err := s.Evidence(e, accumulated); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (t tee) Alert(a *Alert) error {
	var errs []error
	for _, s := range t {
		if err := s.Alert(a); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Stats counts what went through a Manager since the run began, restarts included.
type Stats struct {
	Evidence   map[evidence.Type]int64 // passed on, by type
	Total      int64                   // the sum of Evidence
	Counting   int64                   // of these, added to a score
	Alerts     int64
	Duplicates int64 // dropped: the id was seen before
	Disabled   int64 // dropped: the type is in disabled_detections
	Omitted    int64 // of Counting, left out of the sum: not among the greatest of their type
	Forgotten  int64 // windows forgotten because they ended long ago
	Evicted    int64 // windows forgotten early because there were too many
	Windows    int   // windows kept now
}

// The bounds. An account takes some 300 bytes and a contribution as much
// again with its description, so the whole stays below 100 MB at worst and
// far below that in practice.
const (
	// keepWidths is how long a score outlives its window. A sensor that reads a
	// capture may log its connections hours late, and they add up all the same.
	keepWidths  = 50
	maxAccounts = 20_000
	maxHeld     = 200_000
	maxIDs      = 1 << 18
)

type limits struct{ accounts, held, ids int }

// uuid is the binary form of an evidence id.
type uuid [16]byte

// key identifies an account. The start, unlike the number, says by itself
// which window is meant.
type key struct {
	Profile netip.Addr
	Start   int64
}

// account is what counts against one profile in one window.
type account struct {
	Key    key
	Window int64
	End    int64
	Seq    int64 // order of creation
	Step   int   // the next alert comes at threshold × 2^Step
	Tally  Tally
	Score  float64 // of Tally
}

// Manager accumulates evidence. One goroutine calls it.
type Manager struct {
	cfg      Config
	theta    float64
	keep     int64 // ns that a window outlives its end
	disabled map[evidence.Type]bool
	out      Sink
	limits   limits

	accounts map[key]*account
	order    ends             // the same accounts, the one that ended first on top
	held     int              // contributions in all accounts
	seq      int64            // of the next account
	ids      fifo[uuid, bool] // evidence seen
	alerted  fifo[key, int]   // Step of forgotten accounts that had alerted
	stats    Stats
}

// New returns a manager for windows of the given width that hands what it
// lets through to out.
func New(cfg Config, width time.Duration, out Sink) (*Manager, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if width <= 0 {
		return nil, fmt.Errorf("time window width is %v, want more than 0", width)
	}
	if out == nil {
		return nil, errors.New("no sink for evidence and alerts")
	}
	m := &Manager{
		cfg: cfg, theta: cfg.Threshold(width), keep: math.MaxInt64, out: out,
		disabled: make(map[evidence.Type]bool),
		limits:   limits{maxAccounts, maxHeld, maxIDs},
	}
	if width < math.MaxInt64/keepWidths {
		m.keep = keepWidths * int64(width)
	}
	for _, name := range cfg.DisabledDetections {
		m.disabled[evidence.Type(name)] = true
	}
	m.reset()
	return m, nil
}

func (m *Manager) reset() {
	m.accounts, m.order, m.held, m.seq = make(map[key]*account), nil, 0, 0
	m.ids, m.alerted = newFIFO[uuid, bool](m.limits.ids), newFIFO[key, int](m.limits.accounts)
	m.stats = Stats{Evidence: make(map[evidence.Type]int64)}
}

// Evidence takes the next evidence in key order. Evidence of a disabled type
// and evidence whose id was seen before is dropped and counted; the rest goes
// to the sink, followed by an alert when it crossed a bar. The strings of e
// are kept; e itself is not. The error is the sink's, or says that the id is
// no UUID.
func (m *Manager) Evidence(e *evidence.Evidence) error {
	if m.disabled[e.Type] {
		m.stats.Disabled++
		return nil
	}
	id, ok := parseUUID(e.ID)
	if !ok {
		return fmt.Errorf("evidence %s of %s: id %q is no UUID", e.Type, e.Profile, e.ID)
	}
	if m.ids.has(id) {
		m.stats.Duplicates++
		return nil
	}
	m.ids.put(id, true)
	m.stats.Evidence[e.Type]++
	m.stats.Total++

	k := key{e.Profile, e.WindowStart}
	a := m.accounts[k]
	if Counts(e) {
		if a == nil {
			a = m.open(k, e)
		}
		m.add(a, e)
	}
	if a == nil {
		return m.out.Evidence(e, 0)
	}
	err := m.out.Evidence(e, a.Score)
	if a.Score >= m.bar(a.Step) {
		err = errors.Join(err, m.out.Alert(m.raise(a, e)))
	}
	m.trim(a)
	return err
}

// bar returns the score at which the alert of a step is raised.
func (m *Manager) bar(step int) float64 { return math.Ldexp(m.theta, step) }

func (m *Manager) open(k key, e *evidence.Evidence) *account {
	a := &account{Key: k, Window: e.Window, End: e.WindowEnd, Seq: m.seq}
	// A window that comes back after it was forgotten starts at zero, but
	// behind the steps it had alerted on, so that no alert id comes twice.
	a.Step, _ = m.alerted.get(k)
	m.seq++
	m.accounts[k] = a
	heap.Push(&m.order, a)
	return a
}

func (m *Manager) add(a *account, e *evidence.Evidence) {
	held, omitted := a.Tally.len(), a.Tally.Omitted
	a.Tally.Add(e)
	m.held += a.Tally.len() - held
	m.stats.Omitted += int64(a.Tally.Omitted - omitted)
	m.stats.Counting++
	a.Score = a.Tally.Weigh(m.cfg, m.theta).Score
}

// raise makes the alert for the highest bar that a has reached.
func (m *Manager) raise(a *account, e *evidence.Evidence) *Alert {
	step := a.Step
	for a.Score >= m.bar(step+1) {
		step++
	}
	al := &Alert{
		ID:      evidence.UUID("alert", a.Key.Profile.String(), strconv.FormatInt(a.Key.Start, 10), strconv.Itoa(step)),
		Profile: a.Key.Profile, Window: a.Window, WindowStart: a.Key.Start, WindowEnd: a.End,
		Time: e.Time, At: cmp.Or(e.Key.At, e.Time), Step: step, Sum: a.Tally.Weigh(m.cfg, m.theta), Threshold: m.bar(step),
		Confidence: confidence(a.Score), Level: evidence.Critical, Contributions: a.Tally.Contributions(), Omitted: a.Tally.Omitted,
		Known: e.Self(),
	}
	for i := range al.Contributions {
		al.EvidenceIDs = append(al.EvidenceIDs, al.Contributions[i].ID)
	}
	a.Step = step + 1
	m.stats.Alerts++
	return al
}

// confidence places a score between those at which the sensitive and the
// insensitive setting of an hour alert (reference 1.7), clipped to 0..1.
func confidence(score float64) float64 { return max(0, min(1, (score-4.8)/(26-4.8))) }

// trim keeps the bounds by forgetting the windows that ended first. The one
// at hand stays: it may be old, but it is in use.
func (m *Manager) trim(hand *account) {
	for len(m.order) > 1 && (len(m.order) > m.limits.accounts || m.held > m.limits.held) {
		i := 0
		if m.order[0] == hand {
			i = 1
			if len(m.order) > 2 && m.order.Less(2, 1) {
				i = 2
			}
		}
		m.forget(i)
		m.stats.Evicted++
	}
}

func (m *Manager) forget(i int) {
	a := m.order[i]
	heap.Remove(&m.order, i)
	delete(m.accounts, a.Key)
	m.held -= a.Tally.len()
	if a.Step > 0 {
		m.alerted.put(a.Key, a.Step)
	}
}

// Advance says that the stream has reached now, unix ns. Windows that ended
// more than keepWidths widths before are forgotten. Where evidence comes in key
// order, now is when the next piece was found: how far the records were by then
// is a matter of timing.
func (m *Manager) Advance(now int64) {
	for len(m.order) > 0 && now-m.order[0].End > m.keep {
		m.forget(0)
		m.stats.Forgotten++
	}
}

// Stats returns the counts so far; the map is a copy.
func (m *Manager) Stats() Stats {
	s := m.stats
	s.Evidence = maps.Clone(s.Evidence)
	s.Windows = len(m.accounts)
	return s
}

// saved is the state of a Manager in a checkpoint.
type saved struct {
	Seq      int64
	Accounts []account
	IDs      []byte // 16 bytes each, oldest first; gob would write arrays byte by byte
	Alerted  []step
	Stats    Stats
}

type step struct {
	Key  key
	Step int
}

// Save writes the state to a checkpoint.
func (m *Manager) Save(enc *gob.Encoder) error {
	s := saved{Seq: m.seq, Stats: m.stats}
	for _, a := range m.order {
		s.Accounts = append(s.Accounts, *a)
	}
	slices.SortFunc(s.Accounts, func(a, b account) int { return cmp.Compare(a.Seq, b.Seq) })
	m.ids.each(func(id uuid, _ bool) { s.IDs = append(s.IDs, id[:]...) })
	m.alerted.each(func(k key, n int) { s.Alerted = append(s.Alerted, step{k, n}) })
	if err := enc.Encode(s); err != nil {
		return fmt.Errorf("save alert state: %w", err)
	}
	return nil
}

// Load replaces the state by what Save wrote. A threshold or weight that has
// changed since then applies to a window when more evidence comes for it; its
// steps stay as they are. After an error the manager is as it was.
func (m *Manager) Load(dec *gob.Decoder) error {
	var s saved
	if err := dec.Decode(&s); err != nil {
		return fmt.Errorf("load alert state: %w", err)
	}
	if len(s.IDs)%len(uuid{}) != 0 {
		return fmt.Errorf("load alert state: %d bytes of ids", len(s.IDs))
	}
	m.reset()
	m.seq = s.Seq
	for i := range s.Accounts {
		a := &s.Accounts[i]
		m.accounts[a.Key] = a
		m.held += a.Tally.len()
		m.order = append(m.order, a)
	}
	heap.Init(&m.order)
	for b := s.IDs; len(b) > 0; b = b[len(uuid{}):] {
		m.ids.put(uuid(b[:len(uuid{})]), true)
	}
	for _, t := range s.Alerted {
		m.alerted.put(t.Key, t.Step)
	}
	ev := m.stats.Evidence
	m.stats = s.Stats
	if m.stats.Evidence == nil { // gob leaves an empty map out
		m.stats.Evidence = ev
	}
	return nil
}

// parseUUID returns the binary form of a UUID in its canonical text form.
func parseUUID(s string) (id uuid, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, false
	}
	var h [32]byte
	n := copy(h[:], s[:8])
	n += copy(h[n:], s[9:13])
	n += copy(h[n:], s[14:18])
	n += copy(h[n:], s[19:23])
	copy(h[n:], s[24:])
	_, err := hex.Decode(id[:], h[:])
	return id, err == nil
}

// ends is a heap of accounts by the end of their windows.
type ends []*account

var _ heap.Interface = (*ends)(nil)

func (h ends) Len() int { return len(h) }
func (h ends) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].End, h[j].End), cmp.Compare(h[i].Seq, h[j].Seq)) < 0
}
func (h ends) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *ends) Push(x any) {
	a, _ := x.(*account) // open pushes nothing else
	*h = append(*h, a)
}

func (h *ends) Pop() any {
	old := *h
	a := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return a
}

// fifo is a map that holds at most max keys and drops the one put first.
type fifo[K comparable, V any] struct {
	max  int
	m    map[K]V
	ring []K
	next int // where the oldest key is once the ring is full
}

func newFIFO[K comparable, V any](limit int) fifo[K, V] {
	return fifo[K, V]{max: limit, m: make(map[K]V)}
}

func (f *fifo[K, V]) has(k K) bool { _, ok := f.m[k]; return ok }

func (f *fifo[K, V]) get(k K) (V, bool) { v, ok := f.m[k]; return v, ok }

func (f *fifo[K, V]) put(k K, v V) {
	if _, ok := f.m[k]; !ok {
		if len(f.ring) < f.max {
			f.ring = append(f.ring, k)
		} else {
			delete(f.m, f.ring[f.next])
			f.ring[f.next] = k
			f.next = (f.next + 1) % f.max
		}
	}
	f.m[k] = v
}

// each calls fn for each key, the oldest first.
func (f *fifo[K, V]) each(fn func(K, V)) {
	for i := range f.ring {
		k := f.ring[(f.next+i)%len(f.ring)]
		fn(k, f.m[k])
	}
}
