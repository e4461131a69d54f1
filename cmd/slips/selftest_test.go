package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
	if code != exitInput || !strings.Contains(stdout, "DGA_NXDOMAINS                   dga           FAILED  not found in the capture") {
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
	if o := results(t, filepath.Join(keep, "results")); len(o.evidence) == 0 || o.summary.Ignored > 0 || len(o.summary.Rejected) > 0 {
		t.Errorf("%d pieces of evidence, %+v", len(o.evidence), o.summary)
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

// All detections together give the same bytes on any number of lanes.
func TestSelftestOnAnyLanes(t *testing.T) {
	t.Parallel()
	logs := filepath.Join(t.TempDir(), "logs")
	must(t, os.Mkdir(logs, 0o755))
	must(t, selftest.Unpack(logs))
	for _, direction := range []string{"out", "all"} {
		var want map[string]string
		for _, lanes := range []string{"1", "2", "3", "8"} {
			out := filepath.Join(t.TempDir(), "out")
			analyseFiles(t, out, logs, "--lanes", lanes, "--analysis-direction", direction)
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
