package main

import (
	"flag"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// update is set by "go test ./cmd/slips -run 'TestCaptures|TestGolden' -update".
var update = flag.Bool("update", false, "write testdata/captures and testdata/golden anew")

// goldenFiles are the files of alerts/ that depend on nothing but the input.
func goldenFiles() []string {
	return []string{"evidence.jsonl", "alerts.jsonl", "alerts.json", "alerts.log"}
}

// analyser is the one place in the outputs that names the build.
var analyser = regexp.MustCompile(`"Model":"slips [^"]*"`)

// The whole program on each capture gives the bytes in testdata/golden.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		name   string
		alerts map[string]bool // hosts that must be alerted on, and no others
		types  string          // evidence that the capture was made to cause
	}{
		{"demo", map[string]bool{"192.168.10.66": true}, "CONNECTION_WITHOUT_DNS DATA_UPLOAD DGA_NXDOMAINS HORIZONTAL_PORT_SCAN ICMP_ADDRESS_SCAN " +
			"LONG_CONNECTION MULTIPLE_RECONNECTION_ATTEMPTS PASSWORD_GUESSING PORT_0_CONNECTION SSH_SUCCESSFUL VERTICAL_PORT_SCAN ZEEK_NOTICE"},
		{"benign", nil, "SSH_SUCCESSFUL DATA_UPLOAD"},
		{"suricata", map[string]bool{"10.20.30.66": true}, "DGA_NXDOMAINS HORIZONTAL_PORT_SCAN SIGNATURE_ALERT VERTICAL_PORT_SCAN"},
		{"argus", map[string]bool{"172.16.4.66": true}, "HORIZONTAL_PORT_SCAN ICMP_ADDRESS_SCAN LONG_CONNECTION MULTIPLE_RECONNECTION_ATTEMPTS VERTICAL_PORT_SCAN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "out")
			analyseFiles(t, out, testdata("captures", c.name))
			got := results(t, out)
			for name := range got.alerts.hosts() {
				if !c.alerts[name] {
					t.Errorf("alert on %s, which did nothing", name)
				}
			}
			for name := range c.alerts {
				if !got.alerts.hosts()[name] {
					t.Errorf("no alert on %s", name)
				}
			}
			types := got.evidence.types("")
			for typ := range strings.FieldsSeq(c.types) {
				if types[typ] == 0 {
					t.Errorf("no %s, which the capture is made to show: %v", typ, types)
				}
			}
			if n := got.summary.Rejected; len(n) > 0 {
				t.Errorf("rejected: %v", n)
			}
			for _, name := range goldenFiles() {
				text := analyser.ReplaceAllString(readFile(t, filepath.Join(out, "alerts", name)), `"Model":"slips VERSION"`)
				golden := testdata("golden", c.name, name)
				if *update {
					writeFile(t, golden, text)
				}
				if d := cmp.Diff(strings.Split(readFile(t, golden), "\n"), strings.Split(text, "\n")); d != "" {
					t.Errorf("%s (-golden +got; -update rewrites):\n%s", name, d)
				}
			}
		})
	}
}
