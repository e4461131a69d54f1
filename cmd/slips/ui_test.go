package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/config"
)

const second = int64(time.Second)

func someEvidence() *evidence.Evidence {
	ip := netip.MustParseAddr("10.0.0.5")
	e := &evidence.Evidence{
		Type: "VERTICAL_PORT_SCAN", Profile: ip, Time: 1700000000*second + 123456789, Attacker: evidence.IPEntity(ip, evidence.Src, 0),
		Victim: evidence.IPEntity(netip.MustParseAddr("2001:db8::9"), evidence.Dst, 443), Level: evidence.High, Confidence: 1.0 / 3,
		Description: "scan of \x1b]0;evil\x07 \u009bname \u202e <b> \"q\"", Proto: "tcp", DstPort: 443, UIDs: []string{"C1", "C2"},
		Module: "portscan", MITRE: []string{"T1046"}, Window: 1, WindowStart: 1700000000 * second, WindowEnd: 1700003600 * second,
	}
	e.Derive()
	return e
}

func someAlert() *alerts.Alert {
	return &alerts.Alert{
		ID: evidence.UUID("a"), Profile: netip.MustParseAddr("10.0.0.5"), Window: 1, WindowStart: 1700000000 * second,
		WindowEnd: 1700003600 * second, Time: 1700000100 * second, Threshold: 15, Confidence: 0.5,
		Sum:   alerts.Sum{Base: 12.098765431, Factor: 1.25, Score: 15.123456789, Tactics: []evidence.Tactic{evidence.Discovery, evidence.Impact}},
		Level: evidence.Critical, EvidenceIDs: []string{"x"}, Omitted: 2,
		Contributions: []alerts.Contribution{{ID: "x", Type: "DGA_NXDOMAINS", Level: evidence.High, Weight: 10.0 / 3, Value: 8.0 / 3, Description: "many names"}},
	}
}

func newHuman(out, err io.Writer) *humanUI {
	return &humanUI{out: out, err: err, width: 155, names: map[netip.Addr]string{}, start: time.Unix(0, 0), now: func() time.Time { return time.Unix(0, 0) }}
}

func TestAlertText(t *testing.T) {
	var out bytes.Buffer
	h := newHuman(&out, io.Discard)
	h.Host(netip.MustParseAddr("10.0.0.5"), "desk\n1")
	if err := h.Alert(someAlert()); err != nil {
		t.Fatal(err)
	}
	want := `2023-11-14T22:15:00Z IP 10.0.0.5 (desk\n1) detected as malicious in timewindow 1 (start 2023-11-14T22:13:20Z, stop 2023-11-14T23:13:20Z) given the
following evidence:
    - Detected many names. Threat level: high, adds 2.67.
    - and 2 more that add nothing, in alerts/evidence.jsonl
    score 15.12 = 12.1 × 1.25 (discovery + impact), threshold 15
`
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Error(d)
	}
	out.Reset()
	h.color, h.width = true, 60
	if err := h.Alert(someAlert()); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		line = strings.TrimSuffix(line, "\n")
		if !(strings.HasPrefix(line, red) || strings.HasPrefix(line, cyan)) || !strings.HasSuffix(line, reset) {
			t.Errorf("line is not coloured by itself: %q", line)
		}
	}
}

func TestEvidenceOnlyWhenVerbose(t *testing.T) {
	var out bytes.Buffer
	h := newHuman(&out, io.Discard)
	if err := h.Evidence(someEvidence(), 3); err != nil || out.Len() != 0 {
		t.Errorf("printed %q, %v", &out, err)
	}
	h.verbose = true
	if err := h.Evidence(someEvidence(), 3); err != nil {
		t.Fatal(err)
	}
	want := `2023-11-14T22:13:20Z (TW 1) IP 10.0.0.5: scan of \x1b]0;evil\a \u009bname \u202e <b> "q" [VERTICAL_PORT_SCAN, high, confidence 0.333]` + "\n"
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Error(d)
	}
}

func TestNamesAreBounded(t *testing.T) {
	h := newHuman(io.Discard, io.Discard)
	for i := range maxNames + 5 {
		h.Host(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), "x")
	}
	if len(h.names) != maxNames {
		t.Errorf("%d names", len(h.names))
	}
	h.Host(netip.AddrFrom4([4]byte{10, 0, 0, 0}), "new")
	if h.names[netip.AddrFrom4([4]byte{10, 0, 0, 0})] != "new" {
		t.Error("a known host does not get its new name")
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text   string
		width  int
		indent string
		want   []string
	}{
		{"", 10, "  ", []string{""}},
		{"short", 10, "  ", []string{"short"}},
		{"exactly te", 10, "  ", []string{"exactly te"}},
		{"one two three four", 10, "  ", []string{"one two", "  three", "  four"}},
		{"0123456789abcdefghij", 10, "  ", []string{"0123456789", "  abcdefgh", "  ij"}},
		{"ääääääääää öööö", 10, "", []string{"ääääääääää", "öööö"}},
		{"    - Detected xxxxxxxxxxxxxxxxxxxx", 16, "  ", []string{"    - Detected", "  xxxxxxxxxxxxxx", "  xxxxxx"}},
		{"a          b", 5, "  ", []string{"a", "  b"}},
	} {
		if d := cmp.Diff(c.want, wrap(c.text, c.width, c.indent)); d != "" {
			t.Errorf("%q: %s", c.text, d)
		}
	}
}

func FuzzWrap(f *testing.F) {
	f.Add("one two three", 40, 10)
	f.Add("    - Detected \xff\xfe", 40, 0)
	f.Fuzz(func(t *testing.T, text string, width, indent int) {
		width, indent = minWidth+(width&0xff), (indent&0xff)%(minWidth/2)
		text = printable(text)
		lines := wrap(text, width, strings.Repeat(" ", indent))
		for _, l := range lines {
			if utf8.RuneCountInString(l) > width {
				t.Fatalf("line longer than %d: %q", width, l)
			}
		}
		squeeze := func(s string) string { return strings.ReplaceAll(s, " ", "") }
		if got := squeeze(strings.Join(lines, "")); got != squeeze(text) {
			t.Fatalf("%q became %q", text, got)
		}
	})
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain text": "plain text", "grüße 漢字": "grüße 漢字", "\x1b[31m": `\x1b[31m`, "a\nb": `a\nb`, "\x00": `\x00`,
		"\xff\xfe": `\xff\xfe`, "\u009b": `\u009b`, "\u202eevil": `\u202eevil`, "\ufffd": `\ufffd`, "\u2028": `\u2028`,
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

// lockedBuffer is a terminal's stand-in: mpb writes from its own goroutine.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// The bar comes after a second, lines go above it, nothing is lost when it is
// taken away, and no goroutine is left.
func TestProgressBar(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var out lockedBuffer
	now := time.Unix(0, 0)
	h := newHuman(&out, io.Discard)
	h.screen, h.outTerminal, h.now = &out, true, func() time.Time { return now }
	h.Progress(10, 100, 5)
	now = now.Add(999 * time.Millisecond)
	h.Progress(20, 100, 10)
	if h.progress != nil {
		t.Error("a bar within the first second")
	}
	now = now.Add(time.Second)
	h.Progress(50, 100, 25)
	look, deadline := time.NewTicker(5*time.Millisecond), time.After(10*time.Second)
	defer look.Stop()
	for !strings.Contains(out.String(), " 50 %  50 B of 100 B") {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("no bar came: %q", out.String())
		}
	}
	for i := range 100 {
		h.write(h.out, fmt.Sprintf("alert %d\n", i))
	}
	h.Progress(100, 100, 50) // the end of the input is not the end of the run
	h.close()
	h.close()
	h.write(h.out, "summary\n")
	text := out.String()
	for i := range 100 {
		if !strings.Contains(text, fmt.Sprintf("alert %d\n", i)) {
			t.Errorf("alert %d is lost", i)
		}
	}
	if !strings.HasSuffix(text, "summary\n") {
		t.Errorf("the bar came back: %q", text[max(0, len(text)-100):])
	}
}

func TestNoProgressWithoutTerminal(t *testing.T) {
	var out lockedBuffer
	h := newHuman(&out, &out)
	h.now = func() time.Time { return time.Unix(100, 0) }
	h.Progress(50, 100, 5)
	h.close()
	if out.String() != "" {
		t.Errorf("printed %q", out.String())
	}
}

func TestProgressText(t *testing.T) {
	for _, c := range []struct {
		read, total int64
		records     uint64
		want        string
	}{
		{500_000_000, 2_000_000_000, 1_234_567, " 25 %  500 MB of 2.0 GB  50.0 MB/s  123,456 records/s  30s left"},
		{0, 100, 0, "  0 %  0 B of 100 B  0 B/s  0 records/s"},
		{100, 100, 1, "100 %  100 B of 100 B  10 B/s  0 records/s"},
		{200, 100, 1, "100 %  200 B of 100 B  20 B/s  0 records/s"},
	} {
		if got := progressText(c.read, c.total, c.records, 10*time.Second); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -12: "-12"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "1.0 MB", 1_500_000: "1.5 MB", 143_000_000: "143 MB", math.MaxInt64: "9.2 EB",
	} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
	for s, want := range map[float64]string{0: "0.00 s", 12.345: "12.35 s", 3725: "1h2m5s"} {
		if got := seconds(s); got != want {
			t.Errorf("seconds(%v) = %s, want %s", s, got, want)
		}
	}
}

func TestSummaryText(t *testing.T) {
	s := &export.Summary{
		Records: 1234567, Kinds: map[string]int64{"conn": 1234000, "dns": 567}, Rejected: map[string]int64{"invalid JSON": 3},
		Sources: []export.SourceSummary{
			{Name: "a/conn", Records: 1234000, Rejected: map[string]int64{"invalid JSON": 3}, Late: 2},
			{Name: "a/dns", Records: 567, Error: "truncated input"},
		},
		Late: 2, Dropped: 1, Profiles: export.ProfileSummary{Seen: 1000, Evicted: 4},
		Evidence: export.EvidenceSummary{Total: 7, Types: map[evidence.Type]int64{"DGA_NXDOMAINS": 3, "DATA_UPLOAD": 3, "LONG_CONNECTION": 1}},
		Alerts:   1, Modules: []export.ModuleSummary{{Name: "dga", Panics: 2}}, Wall: 12.3, Rate: 100371.3, PeakRSS: 143_000_000,
	}
	want := `
Records                            1,234,567
  conn                             1,234,000
  dns                              567
Sources                            2
  a/conn                           1,234,000, 3 rejected, 2 late
  a/dns                            567: truncated input
Rejected lines                     3
  invalid JSON                     3
Profiles                           1,000
Evidence                           7
  DATA_UPLOAD                      3
  DGA_NXDOMAINS                    3
  LONG_CONNECTION                  1
Alerts                             1
Late records (analysed)            2
Records lost                       1
Profiles forgotten early           4
Faults in module dga (see slips.log)  2
Time                               12.30 s, 100,371 records/s
Peak memory                        143 MB
Results                            out
`
	got := summaryText(&runOptions{Output: "out"}, s)
	got, want = strings.Join(strings.Fields(got), " "), strings.Join(strings.Fields(want), " ")
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	many := &export.Summary{}
	for i := range 100 {
		many.Sources = append(many.Sources, export.SourceSummary{Name: fmt.Sprint("s", i)})
	}
	if got := summaryText(&runOptions{}, many); !strings.Contains(got, "80 more, in summary.json") || strings.Contains(got, "s20") {
		t.Errorf("sources are not bounded:\n%s", got)
	}
}

// The lines on standard output mean the same as those in the files.
func TestJSONEqualsFiles(t *testing.T) {
	var out bytes.Buffer
	j := &jsonUI{out: &out, err: io.Discard}
	dir := filepath.Join(t.TempDir(), "out")
	d, err := export.Create(dir, export.Options{})
	if err != nil {
		t.Fatal(err)
	}
	bare := &evidence.Evidence{Type: "X", Profile: netip.MustParseAddr("10.0.0.5"), Confidence: math.NaN()}
	bare.Derive()
	both := alerts.Tee(d, j)
	for _, e := range []*evidence.Evidence{someEvidence(), bare} {
		if err := both.Evidence(e, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := both.Alert(someAlert()); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	var files []byte
	for _, name := range []string{"alerts/evidence.jsonl", "alerts/alerts.jsonl"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, text...)
	}
	if d := cmp.Diff(objects(t, files), objects(t, out.Bytes())); d != "" {
		t.Errorf("-files +standard output:\n%s", d)
	}
	for _, r := range out.String() {
		if r != '\n' && (r < 0x20 || 0x7f <= r && r < 0xa0) {
			t.Errorf("control character %q reaches the terminal", r)
		}
	}
}

func objects(t *testing.T, text []byte) (out []map[string]any) {
	t.Helper()
	for line := range bytes.Lines(text) {
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		out = append(out, m)
	}
	return out
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

// A reader that went away ends a run that exists for it, and no other.
func TestBrokenPipe(t *testing.T) {
	j := &jsonUI{out: brokenPipe{}, err: brokenPipe{}}
	if err := j.Evidence(someEvidence(), 0); codeOf(err) != exitOutput {
		t.Errorf("%v leads to exit code %d", err, codeOf(err))
	}
	h := newHuman(brokenPipe{}, brokenPipe{})
	h.verbose = true
	h.Note("x")
	if err := errors.Join(h.Evidence(someEvidence(), 0), h.Alert(someAlert())); err != nil {
		t.Error(err)
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errors.New("x"), exitInternal},
		{fmt.Errorf("x: %w", badFlags("y")), exitUsage},
		{&codeError{exitInput, errors.New("x")}, exitInput},
		{errors.Join(errors.New("x"), &export.WriteError{Path: "p", Err: os.ErrPermission}), exitOutput},
		{fmt.Errorf("x: %w", &export.OccupiedError{}), exitOutput},
		{fmt.Errorf("x: %w", export.ErrInUse), exitOutput},
		{&outputError{io.ErrClosedPipe}, exitOutput},
	} {
		if got := codeOf(c.err); got != c.want {
			t.Errorf("%v leads to %d, want %d", c.err, got, c.want)
		}
	}
}

// notes records what a UI is told.
type notes struct {
	quietUI
	lines []string
}

func (n *notes) Note(text string) { n.lines = append(n.lines, text) }

func TestLog(t *testing.T) {
	var file bytes.Buffer
	ui := &notes{}
	log := newLog(&file, 1, ui).With("source", "a/conn.log")
	log.Debug("nobody sees this")
	log.Info("opened", "bytes", 12)
	log.Warn("line rejected", "line", 7, "field", "id.orig_p", "reason", "invalid port")
	log.WithGroup("g").With("k", "v").Error("gone", slog.Int("n", 1))
	want := []string{
		"warning: a/conn.log:7: line rejected, field id.orig_p, reason \"invalid port\"",
		"error: a/conn.log: gone, g.k v, g.n 1",
	}
	if d := cmp.Diff(want, ui.lines); d != "" {
		t.Error(d)
	}
	if n := strings.Count(file.String(), "\n"); n != 3 || strings.Contains(file.String(), "nobody") {
		t.Errorf("slips.log has %d lines:\n%s", n, &file)
	}
	file.Reset()
	newLog(&file, 0, ui).Info("x")
	if file.Len() != 0 {
		t.Error("level 0 logs info")
	}
	newLog(&file, 3, ui).Debug("x")
	if file.Len() == 0 {
		t.Error("level 3 does not log debug")
	}
}

func TestPeakRSS(t *testing.T) {
	if n := peakRSS(); n < 1<<20 || n > 1<<40 {
		t.Errorf("peak memory of %d bytes", n)
	}
}

func TestOutputName(t *testing.T) {
	now := time.Date(2026, 11, 21, 1, 2, 3, 0, time.UTC)
	for want, paths := range map[string][]string{
		"stdin_2026-11-21_01:02:03": {"-"}, "conn.log_2026-11-21_01:02:03": {"/x/conn.log"},
		"logs+2_2026-11-21_01:02:03": {"logs/", "a", "b"}, "slips_2026-11-21_01:02:03": {"."}, "root_2026-11-21_01:02:03": {"/"},
	} {
		if got := outputName(paths, now); got != want {
			t.Errorf("%v: %s, want %s", paths, got, want)
		}
	}
}

// What flags do to a run's options.
func TestOptions(t *testing.T) {
	p := &program{specs: specs(), set: []string{"modules.disable=dga", "output.directory=/tmp/x"}}
	var f runFlags
	f.files, f.disable, f.verbose, f.flows, f.lanes = []string{"a"}, []string{"notice"}, 5, "tsv", 3
	f.format = "auto"
	f.letters = true
	f.changed = func(name string) bool {
		return name == "export-flows" || name == "lanes" || name == "export-letters" || name == "export-timeline"
	}
	o, err := p.options(&f, []string{"b"}, []string{"slips"})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"a", "b"}, o.Paths); d != "" {
		t.Error(d)
	}
	c := o.Config
	if c.Profiler.Lanes != 3 || c.Parameters.Verbose != 3 || !c.Parameters.ExportLabeledFlows || c.Parameters.ExportFormat != config.TSV {
		t.Errorf("flags did not reach the configuration: %+v %+v", c.Profiler, c.Parameters)
	}
	if !c.Parameters.ExportLetters || c.Parameters.ExportTimeline {
		t.Errorf("letters %v, timeline %v, want only letters", c.Parameters.ExportLetters, c.Parameters.ExportTimeline)
	}
	if !strings.HasPrefix(o.Output, "/tmp/x/a+1_") {
		t.Errorf("output in %s", o.Output)
	}
	for _, m := range o.Modules {
		if m.Spec.Name == "dga" || m.Spec.Name == "notice" {
			t.Errorf("%s is on", m.Spec.Name)
		}
	}
	if len(o.Modules) != len(p.specs)-2 {
		t.Errorf("%d modules on", len(o.Modules))
	}
}
