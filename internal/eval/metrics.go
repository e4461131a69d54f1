package eval

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/evidence"
)

// Counts is a confusion matrix of host-windows.
type Counts struct {
	TP int `json:"tp"`
	FP int `json:"fp"`
	TN int `json:"tn"`
	FN int `json:"fn"`
}

func (c *Counts) add(bad, alerted bool) {
	switch {
	case bad && alerted:
		c.TP++
	case alerted:
		c.FP++
	case bad:
		c.FN++
	default:
		c.TN++
	}
}

// Metrics are what a confusion matrix is worth. Those that would divide by
// zero are nil.
type Metrics struct {
	Precision *float64 `json:"precision"`
	Recall    *float64 `json:"recall"`
	F1        *float64 `json:"f1"`
	FPR       *float64 `json:"false_positive_rate"`
	MCC       *float64 `json:"mcc"` // Matthews' correlation coefficient
}

func (c Counts) metrics() Metrics {
	tp, fp, tn, fn := float64(c.TP), float64(c.FP), float64(c.TN), float64(c.FN)
	return Metrics{
		Precision: ratio(tp, tp+fp),
		Recall:    ratio(tp, tp+fn),
		F1:        ratio(2*tp, 2*tp+fp+fn),
		FPR:       ratio(fp, fp+tn),
		MCC:       ratio(tp*tn-fp*fn, math.Sqrt((tp+fp)*(tp+fn)*(tn+fp)*(tn+fn))),
	}
}

func ratio(a, b float64) *float64 {
	if b == 0 {
		return nil
	}
	v := a / b
	return &v
}

// Report is the evaluation of one or more scenarios.
type Report struct {
	Width     float64   `json:"time_window_seconds"`
	Setting   float64   `json:"evidence_detection_threshold"`
	Threshold float64   `json:"threshold"`
	Scenarios []*Result `json:"scenarios"`
	Total     Result    `json:"total"` // sums over the scenarios, and metrics of the sums
	Sweep     []Row     `json:"sweep,omitempty"`

	config alerts.Config
	width  time.Duration
}

// Result is the evaluation of a scenario.
type Result struct {
	ID          string   `json:"id"`
	Path        string   `json:"path,omitempty"`
	Kind        Kind     `json:"label_kind,omitempty"`
	Expect      []string `json:"expect,omitempty"`
	Records     int64    `json:"records"`
	Hosts       int      `json:"hosts"`
	HostWindows int      `json:"host_windows"`
	Counts
	Metrics
	BenignHostDays         float64  `json:"benign_host_days"` // host-windows of hosts that are no targets, times the width, or the length of the capture if that is less
	AlertsOnBenign         int      `json:"alerts_on_benign"`
	AlertsPerBenignHostDay *float64 `json:"alerts_per_benign_host_day"`
	Targets                []Target `json:"targets"`
	Outside                Outside  `json:"outside"`
	Errors                 []Error  `json:"errors"`
	Notes                  []string `json:"notes,omitempty"`

	windows []judged
}

// judged is what Sweep needs of a host-window.
type judged struct {
	host           netip.Addr
	n              int64
	bad            bool
	active, target bool // the host sent a record in it; is infected or attacks
	tally          alerts.Tally
}

// Moment is a window.
type Moment struct {
	Window int64  `json:"window"`
	Start  string `json:"start"`
}

// Target is an infected or attacking host.
type Target struct {
	Host       netip.Addr `json:"host"`
	Attacker   bool       `json:"attacker"`
	FirstBad   *Moment    `json:"first_bad"`
	FirstAlert *Moment    `json:"first_alert"` // none before FirstBad counts
	Delay      *int64     `json:"delay"`       // in windows
	Met        bool       `json:"met"`         // Delay is 0 or 1
}

// Outside counts the addresses that are not judged.
type Outside struct {
	Sources      int `json:"sources"` // that sent records, or that evidence is about
	WithEvidence int `json:"with_evidence"`
	WithAlerts   int `json:"with_alerts"`
}

func (o *Outside) add(h *host) {
	o.Sources++
	if h.evidence > 0 {
		o.WithEvidence++
	}
	if h.alerts > 0 {
		o.WithAlerts++
	}
}

// Error is a host-window with the wrong verdict.
type Error struct {
	Host     netip.Addr `json:"host"`
	Window   int64      `json:"window"`
	Start    string     `json:"start"`
	Missed   bool       `json:"missed"` // a false negative; else a false positive
	Records  int64      `json:"records"`
	Bad      int64      `json:"bad_records"`
	Alerts   int        `json:"alerts"`
	Score    float64    `json:"score"` // at the end of the run
	Sum      string     `json:"sum"`   // how it comes about
	Evidence []Behind   `json:"evidence"`
}

// Behind is the evidence of one type in a host-window.
type Behind struct {
	Type       evidence.Type   `json:"type"`
	Tactic     evidence.Tactic `json:"tactic,omitempty"`
	Level      string          `json:"threat_level,omitempty"` // of the greatest
	Confidence float64         `json:"confidence,omitempty"`   // of the greatest
	Count      int             `json:"count"`                  // that count, ten at most; of a type that adds nothing all
	Value      float64         `json:"value"`
	Example    string          `json:"example,omitempty"` // description of the greatest
}

// Row is the outcome at one threshold.
type Row struct {
	Setting   float64 `json:"evidence_detection_threshold"`
	Threshold float64 `json:"threshold"`
	Current   bool    `json:"current"` // the threshold of the run
	Counts
	Metrics
	BenignAlerted int `json:"benign_host_windows_alerted"`
	Met           int `json:"targets_met"`
	Targets       int `json:"targets"`
}

// NewReport puts results together.
func NewReport(cfg alerts.Config, width time.Duration, results []*Result) *Report {
	r := &Report{
		Width: width.Seconds(), Setting: cfg.EvidenceDetectionThreshold, Threshold: cfg.Threshold(width), Scenarios: results,
		Total: Result{ID: "total", Targets: []Target{}, Errors: []Error{}}, config: cfg, width: width,
	}
	t := &r.Total
	for _, s := range results {
		t.Records += s.Records
		t.Hosts += s.Hosts
		t.HostWindows += s.HostWindows
		t.TP, t.FP, t.TN, t.FN = t.TP+s.TP, t.FP+s.FP, t.TN+s.TN, t.FN+s.FN
		t.BenignHostDays += s.BenignHostDays
		t.AlertsOnBenign += s.AlertsOnBenign
		t.Outside.Sources += s.Outside.Sources
		t.Outside.WithEvidence += s.Outside.WithEvidence
		t.Outside.WithAlerts += s.Outside.WithAlerts
		t.Targets = append(t.Targets, s.Targets...)
	}
	t.Metrics = t.metrics()
	t.AlertsPerBenignHostDay = ratio(float64(t.AlertsOnBenign), t.BenignHostDays)
	return r
}

// Settings returns the thresholds that a sweep tries: the three that are
// documented, a grid around them, and that of the run.
func Settings(current float64) []float64 {
	list := []float64{
		0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.22, 0.24, 0.25, 0.26, 0.28, 0.3, 0.33, 0.36, 0.4, 0.43, 0.5, 0.6, 0.8, 1, current,
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// AddSweep says what the verdicts would be at other thresholds. No new analysis
// is needed: the evidence is the same.
func (r *Report) AddSweep(settings []float64) {
	for _, v := range settings {
		cfg := r.config
		cfg.EvidenceDetectionThreshold = v
		row := Row{Setting: v, Threshold: cfg.Threshold(r.width), Current: v == r.config.EvidenceDetectionThreshold}
		for _, s := range r.Scenarios {
			row.Met += s.sweep(&row, cfg)
			row.Targets += len(s.Targets)
		}
		row.Metrics = row.metrics()
		r.Sweep = append(r.Sweep, row)
	}
}

// sweep adds the windows of a scenario to row and returns how many targets
// would meet the bar.
func (s *Result) sweep(row *Row, cfg alerts.Config) int {
	met := make(map[netip.Addr]bool)
	for i := range s.windows {
		w := &s.windows[i]
		alerted := w.tally.Weigh(cfg, row.Threshold).Score >= row.Threshold
		if !w.active && !alerted {
			continue
		}
		row.add(w.bad, alerted)
		if alerted && !w.target {
			row.BenignAlerted++
		}
		for _, t := range s.Targets {
			if alerted && t.Host == w.host && (w.n == t.FirstBad.Window || w.n == t.FirstBad.Window+1) {
				met[w.host] = true
			}
		}
	}
	return len(met)
}
