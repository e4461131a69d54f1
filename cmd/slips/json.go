package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/netip"
	"sync"
	"time"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/alerts/export"
)

// jsonUI writes the objects of alerts/evidence.jsonl and alerts/alerts.jsonl
// to standard output, in one stream and in order; a test holds them equal to
// the files. What people want to know goes to standard error.
type jsonUI struct {
	out, err io.Writer
	quiet    bool
	mu       sync.Mutex // for err
}

var _ screen = (*jsonUI)(nil)

// jsonTimes is the layout of times in the files of package export.
const jsonTimes = "2006-01-02T15:04:05.000000000Z07:00"

type jsonWindow struct {
	Window int64  `json:"window"`
	Start  string `json:"window_start"`
	End    string `json:"window_end"`
}

type jsonEvidence struct {
	ID      string        `json:"id"`
	Type    evidence.Type `json:"type"`
	Time    string        `json:"time"`
	Profile *string       `json:"profile"`
	jsonWindow
	Attacker    map[string]any `json:"attacker"`
	Victim      map[string]any `json:"victim"`
	Level       string         `json:"threat_level"`
	Confidence  float64        `json:"confidence"`
	Description string         `json:"description"`
	Module      string         `json:"module"`
	Proto       string         `json:"proto"`
	DstPort     uint16         `json:"dst_port"`
	SrcPort     uint16         `json:"src_port"`
	UIDs        []string       `json:"uids"`
	Count       int64          `json:"count"`
	MITRE       []string       `json:"mitre"`
}

type jsonAlert struct {
	ID      string  `json:"id"`
	Profile *string `json:"profile"`
	jsonWindow
	Time          string             `json:"time"`
	Score         float64            `json:"score"`
	Threshold     float64            `json:"threshold"`
	Confidence    float64            `json:"confidence"`
	Level         string             `json:"threat_level"`
	EvidenceIDs   []string           `json:"evidence_ids"`
	Contributions []jsonContribution `json:"contributions"`
	Omitted       int                `json:"omitted"`
}

type jsonContribution struct {
	ID     string        `json:"id"`
	Type   evidence.Type `json:"type"`
	Weight float64       `json:"weight"`
	Value  float64       `json:"value"`
}

func (j *jsonUI) Evidence(e *evidence.Evidence, _ float64) error {
	return j.line(jsonEvidence{
		ID: e.ID, Type: e.Type, Time: jsonTime(e.Time), Profile: jsonAddr(e.Profile),
		jsonWindow: jsonWindow{e.Window, jsonTime(e.WindowStart), jsonTime(e.WindowEnd)},
		Attacker:   jsonEntity(e.Attacker), Victim: jsonEntity(e.Victim), Level: e.Level.String(),
		Confidence: rounded(e.Confidence), Description: e.Description, Module: e.Module, Proto: e.Proto,
		DstPort: e.DstPort, SrcPort: e.SrcPort, UIDs: list(e.UIDs), Count: cmp.Or(e.Count, int64(len(e.UIDs))), MITRE: list(e.MITRE),
	})
}

func (j *jsonUI) Alert(a *alerts.Alert) error {
	x := jsonAlert{
		ID: a.ID, Profile: jsonAddr(a.Profile),
		jsonWindow: jsonWindow{a.Window, jsonTime(a.WindowStart), jsonTime(a.WindowEnd)},
		Time:       jsonTime(a.Time), Score: rounded(a.Score), Threshold: rounded(a.Threshold), Confidence: rounded(a.Confidence),
		Level: a.Level.String(), EvidenceIDs: list(a.EvidenceIDs), Contributions: []jsonContribution{}, Omitted: a.Omitted,
	}
	for _, c := range a.Contributions {
		x.Contributions = append(x.Contributions, jsonContribution{c.ID, c.Type, rounded(c.Weight), rounded(c.Value)})
	}
	return j.line(x)
}

func (j *jsonUI) line(v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("BUG: %T cannot be written as JSON: %w", v, err)
	}
	if _, err := j.out.Write(harmless(b.Bytes())); err != nil {
		return &outputError{err}
	}
	return nil
}

// harmless escapes the control characters that JSON allows in strings but
// terminals obey: DEL and those of Latin-1.
func harmless(text []byte) []byte {
	control := func(r rune) bool { return 0x7f <= r && r < 0xa0 }
	if bytes.IndexFunc(text, control) < 0 {
		return text
	}
	var out []byte
	for _, r := range string(text) {
		if control(r) {
			out = fmt.Appendf(out, `\u%04x`, r)
			continue
		}
		out = append(out, string(r)...)
	}
	return out
}

func jsonTime(t int64) string { return time.Unix(0, t).UTC().Format(jsonTimes) }

func jsonAddr(a netip.Addr) *string {
	if !a.IsValid() {
		return nil
	}
	s := a.String()
	return &s
}

func jsonEntity(e evidence.Entity) map[string]any {
	if e.Kind == evidence.None {
		return nil
	}
	return map[string]any{e.Kind.String(): e.Value, "direction": e.Direction.String(), "port": e.Port}
}

// list makes an empty list of a missing one.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// rounded cuts noise behind the sixth decimal. JSON has no NaN and no infinity.
func rounded(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return math.Round(v*1e6) / 1e6
}

// Host does nothing: the stream has addresses only.
func (j *jsonUI) Host(netip.Addr, string) {}

// Progress does nothing: a pipe has no bar.
func (j *jsonUI) Progress(int64, int64, uint64) {}

func (j *jsonUI) close() {}

func (j *jsonUI) Note(text string) {
	if j.quiet {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, _ = fmt.Fprintf(j.err, "slips: %s\n", printable(text)) // when stderr is gone there is nobody to tell
}

func (j *jsonUI) summary(o *runOptions, s *export.Summary) {
	if !j.quiet {
		_, _ = io.WriteString(j.err, summaryText(o, s)) // as above
	}
}
