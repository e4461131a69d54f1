package main

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return string(text)
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

// testdata returns a path in the repository's testdata.
func testdata(elem ...string) string {
	return filepath.Join(append([]string{"..", "..", "testdata"}, elem...)...)
}

// dataset returns a path in the shared data sets, which are not part of the
// repository. Without them the test is skipped.
func dataset(t testing.TB, name string) string {
	t.Helper()
	root := os.Getenv("SLIPS_DATASETS")
	if root == "" {
		root = filepath.Join("..", "..", "..", "shared", "datasets")
	}
	path := filepath.Join(root, filepath.FromSlash(name))
	if _, err := os.Stat(path); err != nil {
		t.Skipf("NOT TESTED: the data set is not there; set SLIPS_DATASETS to its directory: %v", err)
	}
	return path
}

// analyseFiles runs the program on complete files, in this process.
func analyseFiles(t testing.TB, out string, args ...string) {
	t.Helper()
	if code, text := runProgram(t, append([]string{"-f"}, append(args, "-o", out)...)...); code != 0 {
		t.Fatalf("slips -f %s: exit code %d: %s", strings.Join(args, " "), code, text)
	}
}

// runProgram runs the program in this process and returns its exit code and
// what it told on standard error.
func runProgram(t testing.TB, args ...string) (code int, stderr string) {
	t.Helper()
	var out, text bytes.Buffer
	code = Main(context.WithoutCancel(t.Context()), append(args, "--quiet"), nil, strings.NewReader(""), &out, &text)
	return code, text.String()
}

// lines are the lines of a file in alerts/, without their newlines.
type lines []string

// object returns the line as JSON.
func object(line string) map[string]any {
	var v map[string]any
	if json.Unmarshal([]byte(line), &v) != nil {
		return nil
	}
	return v
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// hosts returns the profiles that the lines are about.
func (l lines) hosts() map[string]bool {
	m := make(map[string]bool)
	for _, line := range l {
		m[text(object(line)["profile"])] = true
	}
	return m
}

// types counts the lines about a host by type of evidence; "" is any host.
func (l lines) types(host string) map[string]int {
	m := make(map[string]int)
	for _, line := range l {
		if v := object(line); host == "" || v["profile"] == host {
			m[text(v["type"])]++
		}
	}
	return m
}

// outcome is what a run left behind.
type outcome struct {
	dir              string
	evidence, alerts lines
	summary          struct {
		Records  int64            `json:"records"`
		Kinds    map[string]int64 `json:"records_by_kind"`
		Rejected map[string]int64 `json:"rejected"`
		Ignored  int64            `json:"ignored"`
		Late     int64            `json:"late"`
		Dropped  int64            `json:"dropped"`
		Alerts   int64            `json:"alerts"`
		Evidence struct {
			Total      int64            `json:"total"`
			Types      map[string]int64 `json:"by_type"`
			Duplicates int64            `json:"duplicates"`
		} `json:"evidence"`
		Sources []struct {
			Name     string           `json:"name"`
			Records  int64            `json:"records"`
			Rejected map[string]int64 `json:"rejected"`
			Error    string           `json:"error"`
		} `json:"sources"`
		Flows *struct {
			Records int64 `json:"records"`
			Pending int64 `json:"pending"`
		} `json:"labeled_flows"`
		Interfaces []struct {
			Packets int64 `json:"packets"`
		} `json:"interfaces"`
		Extra struct {
			Engine string `json:"engine"`
		} `json:"extra"`
		Letters *struct {
			Tuples  int `json:"tuples"`
			Pending int `json:"pending"`
		} `json:"letters"`
	}
}

// results reads what a run left, and checks what must be true of any run:
// whole lines, ids that come once, and counts that agree with the files.
func results(t testing.TB, dir string) *outcome {
	t.Helper()
	o := &outcome{dir: dir}
	must(t, json.Unmarshal([]byte(readFile(t, filepath.Join(dir, "summary.json"))), &o.summary))
	o.evidence = o.unique(t, "evidence.jsonl", "id")
	o.alerts = o.unique(t, "alerts.jsonl", "id")
	idmef := o.unique(t, "alerts.json", "ID")
	log := o.whole(t, "alerts.log")
	s := &o.summary
	total, types := int64(len(o.evidence)), make(map[string]int64)
	for typ, n := range o.evidence.types("") {
		types[typ] = int64(n)
	}
	if s.Evidence.Total != total || !maps.Equal(types, s.Evidence.Types) {
		t.Errorf("summary.json counts %d pieces of evidence, %v; evidence.jsonl has %d, %v", s.Evidence.Total, s.Evidence.Types, total, types)
	}
	if n := int64(len(o.alerts)); s.Alerts != n {
		t.Errorf("summary.json counts %d alerts, alerts.jsonl has %d", s.Alerts, n)
	}
	if n := len(o.evidence) + len(o.alerts); len(idmef) != n || len(log) != n {
		t.Errorf("alerts.json has %d lines and alerts.log %d, want %d:\n%s", len(idmef), len(log), n, strings.Join(slices.Sorted(slices.Values(log)), "\n"))
	}
	if s.Dropped != 0 {
		t.Errorf("%d records were dropped", s.Dropped)
	}
	var kinds, sources int64
	for _, n := range s.Kinds {
		kinds += n
	}
	for _, src := range s.Sources {
		sources += src.Records
	}
	if kinds != s.Records || sources != s.Records {
		t.Errorf("summary.json counts %d records, %d by kind, %d by source", s.Records, kinds, sources)
	}
	return o
}

// whole returns the lines of a file in alerts/, which must end with a newline.
func (o *outcome) whole(t testing.TB, name string) lines {
	t.Helper()
	text := readFile(t, filepath.Join(o.dir, "alerts", name))
	if text == "" {
		return nil
	}
	if !strings.HasSuffix(text, "\n") {
		t.Errorf("%s ends in the middle of a line: %q", name, text[max(0, len(text)-100):])
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// unique is whole for a file of JSON objects in which no id comes twice.
func (o *outcome) unique(t testing.TB, name, id string) lines {
	t.Helper()
	all := o.whole(t, name)
	seen := make(map[string]bool)
	for _, line := range all {
		v := object(line)
		if v == nil || text(v[id]) == "" {
			t.Errorf("%s: not a whole object: %.200q", name, line)
		}
		if seen[text(v[id])] {
			t.Errorf("%s: the id %s comes twice", name, v[id])
		}
		seen[text(v[id])] = true
	}
	return all
}

// bytesOf returns the files in alerts/ as they are.
func bytesOf(t testing.TB, dir string) map[string]string {
	t.Helper()
	m := make(map[string]string)
	for _, name := range goldenFiles() {
		m[name] = readFile(t, filepath.Join(dir, "alerts", name))
	}
	return m
}

// sameSet checks that two lists have the same lines, in any order. It shows
// some of those that only one has.
func sameSet(t testing.TB, what string, want, got lines) bool {
	t.Helper()
	count := make(map[string]int)
	for _, line := range want {
		count[line]++
	}
	for _, line := range got {
		count[line]--
	}
	var missing, extra lines
	for _, line := range slices.Sorted(maps.Keys(count)) {
		for n := count[line]; n > 0; n-- {
			missing = append(missing, line)
		}
		for n := count[line]; n < 0; n++ {
			extra = append(extra, line)
		}
	}
	if len(missing)+len(extra) == 0 {
		return true
	}
	t.Errorf("%s: %d of %d lines are missing, and %d are there that should not be", what, len(missing), len(want), len(extra))
	for i := range min(3, len(missing)) {
		t.Logf("missing: %.2000s", missing[i])
	}
	for i := range min(3, len(extra)) {
		t.Logf("extra:   %.2000s", extra[i])
	}
	return false
}
