package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// connections gives a conn.log of n connections within a time, whose service is
// dns.
func connections(n int, within time.Duration) string {
	var b strings.Builder
	for i := range n {
		at := 1_700_000_000 + within.Seconds()*float64(i)/float64(n-1)
		fmt.Fprintf(&b, `{"ts":%.3f,"uid":"C%d","id.orig_h":"10.0.0.7","id.orig_p":%d,"id.resp_h":"10.0.0.53","id.resp_p":53,"proto":"udp","service":"dns","duration":0.01,"orig_bytes":40,"resp_bytes":90,"conn_state":"SF","history":"Dd","orig_pkts":1,"orig_ip_bytes":68,"resp_pkts":1,"resp_ip_bytes":118}`+"\n", at, i, 20000+i)
	}
	return b.String()
}

// coverageOf returns what summary.json says about the input.
func coverageOf(t testing.TB, out string) map[string]any {
	t.Helper()
	extra, _ := object(readFile(t, filepath.Join(out, "summary.json")))["extra"].(map[string]any)
	c, _ := extra["coverage"].(map[string]any)
	return c
}

// A run says which logs and fields are not there and what cannot be found
// without them: before it begins on the terminal, all of it in slips.log, and
// in summary.json.
func TestCoverage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	logs, out := filepath.Join(dir, "logs"), filepath.Join(dir, "out")
	writeFile(t, filepath.Join(logs, "conn.log"), connections(200, time.Minute))
	code, stdout, stderr := runMain(t, nil, "-f", logs, "-o", out, "-v")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for _, want := range []string{"no dns log, though 200 records of others go with one: ", "DGA_NXDOMAINS", "no arp, login log: ", "conn log without orig_l2_addr: DEVICE_CHANGING_IP off", "mac-logging"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("the terminal does not say %q:\n%s", want, stderr)
		}
	}
	if n := strings.Count(stderr, "\n"); n > 12 {
		t.Errorf("%d lines on the terminal, which has the table too: %s", n, stdout)
	}
	text := readFile(t, filepath.Join(out, "slips.log"))
	for _, want := range []string{`msg="a log is not there" part=coverage log=dns why=suppressed`, `msg="a type of evidence cannot be found" part=coverage type=DGA_NXDOMAINS`} {
		if strings.Count(text, want) != 1 {
			t.Errorf("slips.log has %q not once:\n%s", want, text)
		}
	}
	c := coverageOf(t, out)
	if c["sensor"] != "zeek" || len(fmt.Sprint(c["off"])) < 100 || !strings.Contains(fmt.Sprint(c["missing_fields"]), "orig_l2_addr") {
		t.Errorf("summary.json has %v", c)
	}
}

// A follower says so after ten minutes of connections, once.
func TestCoverageFollow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	logs, out := filepath.Join(dir, "logs"), filepath.Join(dir, "out")
	writeFile(t, filepath.Join(logs, "conn.log"), connections(200, 30*time.Minute))
	f := follow(t, out, logs)
	wait(t, "the report", func() bool {
		return begun(out) && strings.Contains(readFile(t, filepath.Join(out, "slips.log")), "part=coverage")
	})
	f.stop(t)
	if n := strings.Count(readFile(t, filepath.Join(out, "slips.log")), "what the input has"); n != 1 {
		t.Errorf("told %d times", n)
	}
	if coverageOf(t, out)["sensor"] != "zeek" {
		t.Error("summary.json has nothing of it")
	}
}
