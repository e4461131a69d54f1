package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/internal/eval"
)

// onlyPortscan switches all other modules off, so that the outcome depends on
// the evaluation and not on what modules there are.
func onlyPortscan() string {
	var off []string
	for _, s := range specs() {
		if s.Name != "portscan" {
			off = append(off, s.Name)
		}
	}
	return "modules.disable=" + strings.Join(off, ",")
}

func evaluateJSON(t *testing.T, args ...string) (r eval.Report, text string) {
	t.Helper()
	code, text, stderr := runMain(t, nil, append([]string{"eval", "--json"}, args...)...)
	if code != 0 || stderr != "" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	must(t, json.Unmarshal([]byte(text), &r))
	return r, text
}

// TestGoldenEval: in testdata/eval 10.9.0.5 scans (found), 10.9.0.8 talks to its
// controller once (missed), and 10.9.0.7 takes an inventory (taken for a scan).
// The log is there twice, labelled and not.
func TestGoldenEval(t *testing.T) {
	r, text := evaluateJSON(t, "--truth", filepath.Join("testdata", "eval", "truth.json"), "--sweep", "--set", onlyPortscan())
	golden := filepath.Join("testdata", "eval", "golden.json")
	if *update {
		writeFile(t, golden, text)
	}
	if d := cmp.Diff(strings.Split(readFile(t, golden), "\n"), strings.Split(text, "\n")); d != "" {
		t.Errorf("golden.json (-golden +got; -update rewrites):\n%s", d)
	}
	want := map[string]eval.Counts{
		"labels": {TP: 1, FP: 1, TN: 5, FN: 1}, "rule": {TP: 1, FP: 1, TN: 5, FN: 1}, "monitored": {TN: 2},
		"pcap": {TP: 1, TN: 1, FN: 1}, "total": {TP: 3, FP: 2, TN: 13, FN: 3},
	}
	got := map[string]eval.Counts{"total": r.Total.Counts}
	for _, s := range r.Scenarios {
		got[s.ID] = s.Counts
		if records := map[bool]int64{true: 43, false: 100}[s.ID == "pcap"]; s.Records != records {
			t.Errorf("%s: %d records were read, want %d", s.ID, s.Records, records)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("counts (-want +got):\n%s", d)
	}
}

// TestEvalLabelled: labels alone are enough, and settings make a difference.
func TestEvalLabelled(t *testing.T) {
	log := filepath.Join("testdata", "eval", "zeek", "conn.log.labeled")
	r, _ := evaluateJSON(t, log, filepath.Dir(log), "--set", onlyPortscan())
	want := eval.Counts{TP: 1, FP: 1, TN: 5, FN: 2} // who knocks from outside is bad too
	if len(r.Scenarios) != 2 || r.Scenarios[0].ID != "conn.log.labeled" || r.Scenarios[0].Counts != want || r.Scenarios[1].Counts != want {
		t.Errorf("scenarios: %+v, want %+v twice", r.Scenarios, want)
	}
	r, _ = evaluateJSON(t, log, "--set", onlyPortscan(), "--set", "detection.evidence_detection_threshold=100")
	if r.Total.TP != 0 || r.Total.FP != 0 || r.Threshold != 6000 {
		t.Errorf("no alert can be that high: %+v", r.Total.Counts)
	}
}

// TestEvalKeepsResults: with -o each run leaves what slips -f would.
func TestEvalKeepsResults(t *testing.T) {
	out, log := t.TempDir(), filepath.Join("testdata", "eval", "zeek", "conn.log.labeled")
	evaluateJSON(t, log, "-o", out, "--set", onlyPortscan())
	analyseFiles(t, filepath.Join(out, "same"), log, "--set", onlyPortscan())
	if d := cmp.Diff(bytesOf(t, filepath.Join(out, "same")), bytesOf(t, filepath.Join(out, "conn.log.labeled"))); d != "" {
		t.Errorf("eval and -f differ (-f +eval):\n%s", d)
	}
	if code, _, stderr := runMain(t, nil, "eval", log, "-o", out); code != exitOutput {
		t.Errorf("earlier results were replaced: exit code %d: %s", code, stderr)
	}
	evaluateJSON(t, log, "-o", out, "--overwrite")
}

func TestEvalErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		writeFile(t, filepath.Join(dir, name), text)
		return filepath.Join(dir, name)
	}
	scenario := func(path, format string) string {
		return `{"id": "` + path + `", "path": "` + path + `", "format": "` + format + `", "label_kind": "scenario"}`
	}
	plain := filepath.Join("testdata", "eval", "zeek", "conn.log")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "nothing to do"},
		{[]string{plain, "--truth", "x"}, exitUsage, "cannot be combined"},
		{[]string{plain, "--json", "--markdown"}, exitUsage, "cannot be combined"},
		{[]string{plain, "--base", "x"}, exitUsage, "--base is of no use"},
		{[]string{"-"}, exitUsage, `"-" is no path`},
		{[]string{plain, "--scenario", "zz"}, exitUsage, "there is none with such an id"},
		{[]string{plain, "--set", "detection.corroboration_weight=-1"}, exitUsage, "detection.corroboration_weight"},
		{[]string{plain}, exitInput, plain + ": no record carries a label"},
		{[]string{filepath.Join(dir, "none.log")}, exitInput, "none.log: no such file"},
		{[]string{"--truth", filepath.Join(dir, "none.json")}, exitInput, "none.json: no such file"},
		{[]string{"--truth", file("bad.json", `[{"id": "a", "path": "p", "label_kind": "rule", "infected": ["x"]}]`)}, exitUsage, `bad.json: scenario 0 (a): infected: "x" is no IP address`},
		{[]string{"--truth", file("gone.json", "["+scenario("gone.log", "zeek-tsv")+"]")}, exitInput, "scenario gone.log: "},
		{[]string{"--truth", file("pcap.json", "["+scenario("gone.pcap", "pcap")+"]")}, exitInput, filepath.Join("zeek-logs", "gone")},
		{[]string{"--truth", file("text.json", "["+scenario("text.json", "")+"]")}, exitInput, "scenario text.json: "},
	} {
		code, stdout, stderr := runMain(t, nil, append([]string{"eval"}, c.args...)...)
		if code != c.code || !strings.Contains(stderr, c.want) || stdout != "" {
			t.Errorf("slips eval %s: exit code %d, want %d; %q on standard error, want %q; standard output %q", strings.Join(c.args, " "), code, c.code, stderr, c.want, stdout)
		}
	}

	// One capture that is not there does not keep the others from being evaluated.
	abs, err := filepath.Abs(plain)
	must(t, err)
	some := file("some.json", "["+scenario("gone.log", "zeek-tsv")+`, {"id": "here", "path": "`+filepath.ToSlash(abs)+`", "label_kind": "scenario"}]`)
	code, stdout, stderr := runMain(t, nil, "eval", "--truth", some)
	if code != exitInput || !strings.Contains(stdout, "here") || !strings.Contains(stderr, "gone.log") {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
}

// Captures of one name are told apart, whatever the others are called: their
// results lie in directories of these names.
func TestEvalNamesCaptures(t *testing.T) {
	f := evalFlags{}
	list, err := f.list([]string{"x/a-2", "y/a", "z/a", "z/a"})
	must(t, err)
	var got []string
	for _, s := range list {
		got = append(got, s.ID)
	}
	if d := cmp.Diff([]string{"a-2", "a", "a-3", "a-4"}, got); d != "" {
		t.Error(d)
	}
}

// TestEvalText: what people read has the same numbers, and Markdown is what
// make eval writes.
func TestEvalText(t *testing.T) {
	truth := filepath.Join("testdata", "eval", "truth.json")
	for _, flag := range []string{"--sweep", "--markdown"} {
		code, text, stderr := runMain(t, nil, "eval", "--truth", truth, flag, "--set", onlyPortscan())
		if code != 0 || stderr != "" {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
		for _, want := range []string{"10.9.0.5", "MET", "MISSED", "0.389", "HORIZONTAL"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in:\n%s", flag, want, text)
			}
		}
		for line := range strings.Lines(text) {
			if strings.HasSuffix(line, " \n") {
				t.Errorf("blanks at the end of %q", line)
			}
		}
	}
}

// TestEvalDatasets: the whole truth about the shared data sets can be read, and
// fits them.
func TestEvalDatasets(t *testing.T) {
	truth := dataset(t, "ground_truth.json")
	r, _ := evaluateJSON(t, "--truth", truth, "--sweep")
	var raw []struct {
		ID       string   `json:"id"`
		Path     string   `json:"path"`
		Infected []string `json:"infected"`
		Attacker []string `json:"attackers"`
	}
	text, err := os.ReadFile(truth)
	must(t, err)
	must(t, json.Unmarshal(text, &raw))
	bad := 0
	for i, s := range r.Scenarios {
		if s.ID != raw[i].ID || s.Records == 0 || s.HostWindows == 0 {
			t.Errorf("scenario %+v, want %s", s, raw[i].ID)
		}
		bad += len(raw[i].Infected) + len(raw[i].Attacker)
		if len(s.Targets) != len(raw[i].Infected)+len(raw[i].Attacker) {
			t.Errorf("%s: targets %+v", s.ID, s.Targets)
		}
		if filepath.Ext(s.Path) != ".pcap" && len(s.Notes) > 0 { // Zeek's connections are not tshark's
			t.Errorf("%s: %q", s.ID, s.Notes)
		}
	}
	if len(r.Scenarios) != len(raw) || len(r.Total.Targets) != bad || bad == 0 {
		t.Errorf("%d scenarios and %d bad hosts, want %d and %d", len(r.Scenarios), len(r.Total.Targets), len(raw), bad)
	}
	i := slices.IndexFunc(r.Sweep, func(x eval.Row) bool { return x.Current })
	if i < 0 || r.Sweep[i].Counts != r.Total.Counts {
		t.Errorf("the sweep does not find what the run found: %+v", r.Sweep)
	}
	met := 0
	for _, x := range r.Total.Targets {
		if x.Met {
			met++
		} else {
			t.Errorf("%s has no alert in its first bad window or the next", x.Host)
		}
	}
	// The bars that the detections are held to, with the defaults and no feeds.
	if f1, fpr := r.Total.F1, r.Total.FPR; f1 == nil || *f1 < 0.9 || fpr == nil || *fpr > 0.01 {
		t.Errorf("F1 and false-positive rate do not reach 0.90 and 0.01: %+v", r.Total.Counts)
	}
	if i >= 0 && r.Sweep[i].Met != met {
		t.Errorf("%d bars met, %d by the sweep", met, r.Sweep[i].Met)
	}
	types := map[string]bool{}
	for _, s := range r.Scenarios {
		for _, e := range s.Errors {
			for _, b := range e.Evidence {
				types[string(b.Type)] = true
			}
		}
	}
	t.Logf("%+v, behind errors %v", r.Total.Counts, slices.Sorted(maps.Keys(types)))
}
