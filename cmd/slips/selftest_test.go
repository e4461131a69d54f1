package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/internal/selftest"
)

// selftestOf runs the self-test with --json.
func selftestOf(t *testing.T, args ...string) (code int, r *selftest.Report) {
	t.Helper()
	code, stdout, stderr := runMain(t, nil, append([]string{"selftest", "--json"}, args...)...)
	r = new(selftest.Report)
	if err := json.Unmarshal([]byte(stdout), r); err != nil {
		t.Fatalf("exit code %d, %v: %s", code, err, stderr)
	}
	return code, r
}

// Every type of evidence of every module is found with the settings of the
// program.
func TestSelftest(t *testing.T) {
	t.Parallel()
	code, r := selftestOf(t)
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	i, types := 0, map[string]bool{}
	for _, s := range specs() {
		for _, e := range s.Emits {
			types[string(e.Type)] = true
			if i >= len(r.Results) {
				t.Fatalf("only %d results", len(r.Results))
			}
			x := r.Results[i]
			i++
			if x.Module != s.Name || x.Type != e.Type || x.Status != selftest.Fired || x.Description == "" || x.What == "" {
				t.Errorf("%s of %s: %+v", e.Type, s.Name, x)
			}
		}
	}
	if want := (selftest.Count{Fired: i, Of: i}); r.Pairs != want || len(r.Results) != i {
		t.Errorf("pairs: %+v, %d results, want %+v", r.Pairs, len(r.Results), want)
	}
	if want := (selftest.Count{Fired: len(types), Of: len(types)}); r.Types != want {
		t.Errorf("types: %+v, want %+v", r.Types, want)
	}
	code, stdout, stderr := runMain(t, nil, "selftest")
	if want := fmt.Sprintf("\n%d of %d evidence types fired\n", len(types), len(types)); code != 0 || !strings.HasSuffix(stdout, want) {
		t.Errorf("exit code %d, %sthe table does not end with %q:\n%s", code, stderr, want, stdout)
	}
}

// What the configuration switches off is off, with the reason; what it makes
// impossible has failed, with the setting.
func TestSelftestShowsTheConfiguration(t *testing.T) {
	t.Parallel()
	result := func(r *selftest.Report, module, typ string) selftest.Result {
		for _, x := range r.Results {
			if x.Module == module && string(x.Type) == typ {
				return x
			}
		}
		t.Fatalf("no %s of %s", typ, module)
		return selftest.Result{}
	}
	code, r := selftestOf(t, "--set", "modules.disable=dga,notice", "--set", "DisabledAlerts.disabled_detections=PORT_0_CONNECTION",
		"--set", "parameters.client_ips=192.168.0.0/16")
	if code != 0 || r.Types.Off != 3 || r.Types.Fired != r.Types.Of-3 { // DGA, other notices, port 0
		t.Errorf("exit code %d, %+v", code, r.Types)
	}
	for _, c := range []struct{ module, typ, reason string }{
		{"dga", "DGA_NXDOMAINS", "modules.disable"},
		{"notice", "HORIZONTAL_PORT_SCAN", "modules.disable"},
		{"portzero", "PORT_0_CONNECTION", "disabled_detections"},
	} {
		if x := result(r, c.module, c.typ); x.Status != selftest.Off || !strings.Contains(x.Reason, c.reason) {
			t.Errorf("%+v", x)
		}
	}
	if x := result(r, "portscan", "HORIZONTAL_PORT_SCAN"); x.Status != selftest.Fired {
		t.Errorf("%+v", x)
	}

	file := filepath.Join(t.TempDir(), "my.yaml")
	writeFile(t, file, "modules:\n  dga:\n    min_names: 1000\n")
	code, r = selftestOf(t, "-c", file)
	if x := result(r, "dga", "DGA_NXDOMAINS"); code != exitInput || x.Status != selftest.Failed || !strings.Contains(x.Reason, "modules.dga ("+file) {
		t.Errorf("exit code %d, %+v", code, x)
	}
	if r.Types.Fired != r.Types.Of-1 || r.Types.Off != 0 {
		t.Errorf("%+v", r.Types)
	}
	code, stdout, _ := runMain(t, nil, "selftest", "-c", file)
	table := strings.Join(strings.Fields(stdout), " ") // however wide the columns are
	if code != exitInput || !strings.Contains(table, "DGA_NXDOMAINS dga FAILED not found in the capture") {
		t.Errorf("exit code %d:\n%s", code, stdout)
	}
}

// The capture and the results can be kept, are in the way of the next run,
// and leave nothing behind else.
func TestSelftestOutput(t *testing.T) {
	keep := filepath.Join(t.TempDir(), "kept")
	if code, _, stderr := runMain(t, nil, "selftest", "-o", keep); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	o := results(t, filepath.Join(keep, "results"))
	if len(o.evidence) == 0 || o.summary.Ignored > 0 || len(o.summary.Rejected) > 0 {
		t.Errorf("%d pieces of evidence, %+v", len(o.evidence), o.summary)
	}
	if log := readFile(t, filepath.Join(o.dir, "slips.log")); strings.Contains(log, "level=WARN") || strings.Contains(log, "level=ERROR") {
		t.Errorf("something was wrong: %s", log)
	}
	if _, err := os.Stat(filepath.Join(keep, "capture", "dns.log")); err != nil {
		t.Error(err)
	}
	if code, _, stderr := runMain(t, nil, "selftest", "-o", keep); code != exitOutput {
		t.Errorf("the same directory again: exit code %d: %s", code, stderr)
	}
	if code, _, stderr := runMain(t, nil, "selftest", "-o", ""); code != exitUsage {
		t.Errorf("no directory: exit code %d: %s", code, stderr)
	}
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	if code, _, stderr := runMain(t, nil, "selftest"); code != 0 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

// What an operator knows and asks changes nothing, and nobody is asked.
func TestSelftestHasItsOwnKnowledge(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.NotFound(w, nil)
	}))
	defer server.Close()
	dir := t.TempDir()
	whitelist, file, store := filepath.Join(dir, "whitelist.conf"), filepath.Join(dir, "slips.yaml"), filepath.Join(dir, "store")
	writeFile(t, whitelist, "ip,10.0.0.0/8,both,both\nip,20.0.0.0/8,both,both\n")
	writeFile(t, file, fmt.Sprintf(`
feeds: { enabled: false, directory: %q, file: %q, local: %q, geo: %q, refresh: true, databases: [iptoasn-asn] }
whitelists: { local_whitelist_path: %q }
enrichment: { greynoise: { enabled: true, url: %q } }
`, store, filepath.Join(dir, "no-feeds.yaml"), filepath.Join(dir, "no-lists"), filepath.Join(dir, "no-geo"), whitelist, server.URL))
	keep := filepath.Join(dir, "kept")
	code, r := selftestOf(t, "-c", file, "-o", keep)
	if code != 0 || !r.OK() || r.Types.Fired != r.Types.Of || r.Pairs.Fired != r.Pairs.Of {
		t.Errorf("exit code %d, %+v of types, %+v of pairs", code, r.Types, r.Pairs)
	}
	for _, path := range []string{store, filepath.Join(keep, "results", "enrichment")} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there: %v", path, err)
		}
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("%d questions were asked", n)
	}
}

// All lists are in use, and what rests on them is not found without them.
func TestSelftestLists(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	logs, known := capture(t)
	with, without := filepath.Join(dir, "with"), filepath.Join(dir, "without")
	analyseFiles(t, with, append([]string{logs}, known...)...)
	analyseFiles(t, without, logs, "--set", "feeds.enabled=false")
	var info export.Run
	must(t, json.Unmarshal([]byte(readFile(t, filepath.Join(with, "metadata", "run.json"))), &info))
	if info.Feeds == nil || len(info.Places) != 1 {
		t.Fatalf("%+v", info)
	}
	var got []string
	for _, f := range info.Feeds.Feeds {
		if got = append(got, f.Name); f.Count == 0 {
			t.Errorf("%s is empty", f.Name)
		}
	}
	want := []string{
		"own_malicious_JA3.csv", "own_malicious_JARM.csv", "own_malicious_iocs.csv", "selftest-exits", "selftest-fingerprints", "selftest-names",
		"selftest-systems", "selftest.intel", "selftest.netset",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("lists in use (-want +got):\n%s", d)
	}
	count := func(out string) map[string]int {
		n := make(map[string]int)
		for _, line := range results(t, out).evidence {
			v := object(line)
			n[text(v["module"])]++
			if v["type"] == "MALICIOUS_JARM" {
				n["jarm"]++
			}
		}
		return n
	}
	a, b := count(with), count(without)
	if a["threatintel"] < 14 || a["jarm"] != 1 || b["threatintel"] != 0 || b["jarm"] != 0 || a["youngdomain"] != b["youngdomain"] {
		t.Errorf("evidence by module with the lists: %v, without: %v", a, b)
	}
}

// capture unpacks the capture and what it is looked up in. It returns the
// directory of the logs, and the flags by which a run has the rest.
func capture(t *testing.T) (logs string, known []string) {
	t.Helper()
	dir := t.TempDir()
	logs = filepath.Join(dir, "logs")
	must(t, os.Mkdir(logs, 0o755))
	must(t, selftest.Unpack(logs))
	k, err := selftest.UnpackKnowledge(filepath.Join(dir, "knowledge"))
	must(t, err)
	for _, set := range []string{
		"feeds.directory=" + filepath.Join(dir, "store"), "feeds.file=" + k.File, "feeds.local=" + k.Local, "feeds.geo=" + k.Geo,
	} {
		known = append(known, "--set", set)
	}
	names, err := fileFeeds(k.File)
	must(t, err)
	code, _, stderr := runMain(t, nil, slices.Concat([]string{"feeds", "update"}, names, known)...)
	if code != 0 || len(names) == 0 {
		t.Fatalf("slips feeds update %v: exit code %d: %s", names, code, stderr)
	}
	return logs, known
}

// All detections together give the same bytes on any number of lanes.
func TestSelftestOnAnyLanes(t *testing.T) {
	t.Parallel()
	logs, known := capture(t)
	for _, direction := range []string{"out", "all"} {
		var want map[string]string
		for _, lanes := range []string{"1", "2", "3", "8"} {
			out := filepath.Join(t.TempDir(), "out")
			analyseFiles(t, out, append([]string{logs, "--lanes", lanes, "--analysis-direction", direction}, known...)...)
			got := bytesOf(t, out)
			if want == nil {
				want = got
			}
			for name, text := range got {
				if text != want[name] {
					t.Errorf("%s, %s lanes: %s differs from that of one lane", direction, lanes, name)
				}
			}
		}
		if len(want["evidence.jsonl"]) < 10000 {
			t.Errorf("%s: only %d bytes of evidence", direction, len(want["evidence.jsonl"]))
		}
	}
}
