//go:build unix

package main

import (
	"encoding/gob"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/export"
)

// scan is a host that tries a port of n others.
func scan(second, n int, src string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"ts":%d.5,"uid":"%s-%d","id.orig_h":%q,"id.orig_p":40001,"id.resp_h":"10.0.9.%d","id.resp_p":445,"proto":"tcp",`+
			`"conn_state":"S0","history":"S","orig_pkts":1,"orig_ip_bytes":60,"resp_pkts":0,"resp_ip_bytes":0}`+"\n",
			1700000000+second+i, src, second+i, src, i+1)
	}
	return b.String()
}

// whitelisted reads what summary.json says about the whitelist.
func whitelisted(t testing.TB, out string) export.WhitelistSummary {
	t.Helper()
	var s struct{ Whitelist export.WhitelistSummary }
	must(t, json.Unmarshal([]byte(readFile(t, filepath.Join(out, "summary.json"))), &s))
	return s.Whitelist
}

// What the whitelist ignores is gone, and counted by rule: evidence of one
// entry, and with another the records, whose host then does not appear at all.
func TestWhitelist(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	logs, list := filepath.Join(dir, "logs"), filepath.Join(dir, "whitelist.conf")
	writeFile(t, filepath.Join(logs, "conn.log"), scan(0, 30, "10.0.0.5")+scan(40, 30, "10.0.0.6")+scan(80, 30, "10.0.0.7"))
	writeFile(t, list, "; of a test\nip,10.0.0.5&evidence=HORIZONTAL_PORT_SCAN,src,alerts,,our scanner\n\nip,10.0.0.6,src,flows\n"+
		"ip,10.0.0.7,src,both,2023-01-01,has expired\nip,10.0.0.99,both,both\n")
	plain := replayed(t, logs, "--export-flows", "jsonl")
	got := replayed(t, logs, "--export-flows", "jsonl", "--set", "whitelists.local_whitelist_path="+list)

	const typ = "HORIZONTAL_PORT_SCAN"
	for host, want := range map[string]int{"10.0.0.5": 0, "10.0.0.6": 0, "10.0.0.7": plain.evidence.types("10.0.0.7")[typ]} {
		if n := plain.evidence.types(host)[typ]; n == 0 {
			t.Fatalf("without a whitelist %s is not reported: the test shows nothing", host)
		}
		if n := got.evidence.types(host)[typ]; n != want {
			t.Errorf("%d pieces of evidence about %s, want %d", n, host, want)
		}
	}
	want := export.WhitelistSummary{Flows: 30, Evidence: int64(plain.evidence.types("10.0.0.5")[typ]), Rules: []export.RuleSummary{
		{Line: 2, Rule: "ip,10.0.0.5&evidence=HORIZONTAL_PORT_SCAN,src,alerts", Evidence: int64(plain.evidence.types("10.0.0.5")[typ])},
		{Line: 4, Rule: "ip,10.0.0.6,src,flows", Flows: 30},
	}}
	if d := cmp.Diff(want, whitelisted(t, got.dir)); d != "" {
		t.Errorf("summary.json (-want +got):\n%s", d)
	}
	if w := whitelisted(t, plain.dir); w.Flows != 0 || w.Evidence != 0 {
		t.Errorf("without a whitelist of one's own, summary.json says %+v", w)
	}
	for _, name := range []string{"alerts/evidence.jsonl", "alerts/alerts.jsonl", "alerts/alerts.json", "alerts/alerts.log", "flows/labeled_flows.jsonl", "metadata/hosts.jsonl"} {
		if strings.Contains(readFile(t, filepath.Join(got.dir, name)), "10.0.0.6") {
			t.Errorf("%s names a host whose records are ignored", name)
		}
	}
	if a, b := plain.summary.Records, got.summary.Records; a != 90 || b != 90 {
		t.Errorf("%d records with and %d without a whitelist, want 90: what is ignored was read all the same", b, a)
	}
	var run struct{ Whitelist export.WhitelistUsed }
	must(t, json.Unmarshal([]byte(readFile(t, filepath.Join(got.dir, "metadata", "run.json"))), &run))
	if run.Whitelist.Name != list || run.Whitelist.Entries != 4 || len(run.Whitelist.SHA256) != 64 {
		t.Errorf("run.json names the whitelist %+v", run.Whitelist)
	}
	off := replayed(t, logs, "--export-flows", "jsonl", "--set", "whitelists.local_whitelist_path="+list, "--set", "whitelists.enable_local_whitelist=false")
	if d := cmp.Diff(bytesOf(t, plain.dir), bytesOf(t, off.dir)); d != "" {
		t.Errorf("a whitelist that is switched off changes something:\n%s", d)
	}
	for _, lanes := range []string{"1", "3"} {
		again := replayed(t, logs, "--lanes", lanes, "--set", "whitelists.local_whitelist_path="+list)
		if d := cmp.Diff(bytesOf(t, got.dir), bytesOf(t, again.dir)); d != "" {
			t.Errorf("%s lanes:\n%s", lanes, d)
		}
	}
}

// A follower takes up an edit of the whitelist, keeps the one before when the
// edit is bad and says where, and counts on when it is killed and started again.
func TestWhitelistReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	logs, list, out := filepath.Join(dir, "logs"), filepath.Join(dir, "whitelist.conf"), filepath.Join(dir, "out")
	conn := filepath.Join(logs, "conn.log")
	writeFile(t, list, "# nothing yet\n")
	writeFile(t, conn, scan(0, 10, "10.0.0.5"))
	args := followArgs(logs, "--set", "whitelists.local_whitelist_path="+list, "--follow")
	p := launch(t, out, args...)
	wait(t, "the first scan", has(t, out, "evidence.jsonl", `"profile":"10.0.0.5"`))

	writeFile(t, list, "ip,10.0.0.6,src,flows\n")
	wait(t, "the edit", logged(t, out, "the whitelist has changed"))
	appendFile(t, conn, scan(20, 10, "10.0.0.6")+scan(40, 10, "10.0.0.7"))
	wait(t, "the scan that is not in the list", has(t, out, "evidence.jsonl", `"profile":"10.0.0.7"`))

	writeFile(t, list, "ip,10.0.0.6,src,flows\nip,10.0.0.8,src,flows\n\nip,10.0.0.300,src,flows\nevidence,NO_SUCH_TYPE,both,alerts\n")
	wait(t, "the bad edit to be told", logged(t, out, "is not used; the one before stays"))
	if !logged(t, out, "whitelist.conf:4: value")() {
		t.Errorf("slips.log does not say where the whitelist is wrong:\n%s", readFile(t, filepath.Join(out, "slips.log")))
	}
	appendFile(t, conn, scan(60, 10, "10.0.0.6")+scan(80, 10, "10.0.0.8"))
	wait(t, "the scan that the bad edit was to hide", has(t, out, "evidence.jsonl", `"profile":"10.0.0.8"`))
	checkpointed(t, out, 50)
	if code := p.end(t, syscall.SIGKILL); code != -int(syscall.SIGKILL) {
		t.Fatalf("exit code %d: %s", code, p.text.String())
	}

	// A start with a bad list is refused; nothing is lost by that.
	p = launch(t, out, args...)
	<-p.done
	if p.err == nil || p.cmd.ProcessState.ExitCode() != exitUsage || !strings.Contains(p.text.String(), "whitelist.conf:4: value") {
		t.Errorf("a start with a bad list ends with %v: %s", p.err, p.text.String())
	}
	writeFile(t, list, "\nip,10.0.0.6,src,flows\n")
	p = launch(t, out, args...)
	p.ready(t)
	appendFile(t, conn, scan(100, 10, "10.0.0.6"))
	p.stop(t)
	got := results(t, out)
	if n := got.evidence.types("10.0.0.6"); len(n) > 0 {
		t.Errorf("evidence about a host whose records are ignored: %v", n)
	}
	want := export.WhitelistSummary{Flows: 30, Rules: []export.RuleSummary{{Line: 2, Rule: "ip,10.0.0.6,src,flows", Flows: 30}}}
	if d := cmp.Diff(want, whitelisted(t, out)); d != "" {
		t.Errorf("summary.json (-want +got):\n%s", d)
	}
	if got.summary.Records != 60 {
		t.Errorf("%d records, want 60", got.summary.Records)
	}
}

// checkpointed waits until the state on disk has that many records.
func checkpointed(t testing.TB, out string, records uint64) {
	t.Helper()
	wait(t, fmt.Sprintf("a state with %d records", records), func() bool {
		f, err := os.Open(filepath.Join(out, filepath.FromSlash(stateFile)))
		if err != nil {
			return false
		}
		defer func() { _ = f.Close() }() // only read
		var s savedState
		return gob.NewDecoder(f).Decode(&s) == nil && s.Engine != nil && s.Engine.Seq >= records
	})
}

// A killed follower ends with the evidence and the records of a replay,
// whatever the whitelist drops.
func TestKillWithWhitelist(t *testing.T) {
	t.Parallel()
	list := filepath.Join(t.TempDir(), "whitelist.conf")
	writeFile(t, list, "ip,192.168.10.66&evidence=HORIZONTAL_PORT_SCAN,src,alerts\nip,192.168.10.0/26,src,flows\n")
	setting := []string{"--set", "whitelists.local_whitelist_path=" + list}
	before := replayed(t, testdata("captures", "demo"), setting...)
	if w := whitelisted(t, before.dir); w.Flows == 0 || w.Evidence == 0 {
		t.Fatalf("the whitelist drops %+v: the test shows nothing", w)
	}
	disturb(t, testdata("captures", "demo"), style{}, violence{kills: 3}, seedOf(t.Name()), setting...)
}

// slips whitelist test explains what is ignored and why, of values and of
// records as they stand in logs and outputs.
func TestWhitelistCommands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	list := filepath.Join(dir, "whitelist.conf")
	setting := "whitelists.local_whitelist_path=" + list
	writeFile(t, list, "# comment\nip,10.0.0.5&evidence=HORIZONTAL_PORT_SCAN,src,alerts,,our scanner\ndomain,example.org,dst,both\n"+
		"ip,192.0.2.0/24,dst,flows,2026-01-31,until it is gone\nja3,"+someJA3+",both,both\nevidence,LONG_CONNECTION,both,alerts\n"+
		"port,123/udp,dst,flows\nmodule,dga,both,alerts\norganization,google,dst,alerts\nmac,00:1b:44:11:3a:b7,src,both\n")
	logs := filepath.Join(dir, "logs")
	writeFile(t, filepath.Join(logs, "conn.log"), scan(0, 10, "10.0.0.5")+scan(20, 10, "10.0.0.7"))
	plain := replayed(t, logs)
	evidenceOf := func(host string) string {
		for _, line := range plain.evidence {
			if v := object(line); v["profile"] == host && v["type"] == "HORIZONTAL_PORT_SCAN" {
				return line
			}
		}
		t.Fatalf("no evidence about %s", host)
		return ""
	}
	const (
		dns  = `{"ts":1700000000,"uid":"D1","id.orig_h":"10.0.0.7","id.orig_p":50001,"id.resp_h":"10.0.0.53","id.resp_p":53,"proto":"udp","query":"a.example.org","qtype_name":"A"}`
		conn = `{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.7","id.orig_p":50001,"id.resp_h":"192.0.2.9","id.resp_p":443,"proto":"tcp","conn_state":"SF"}`
		ntp  = `{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.7","id.orig_p":123,"id.resp_h":"10.0.0.9","id.resp_p":443,"proto":"udp","conn_state":"SF"}`
		eve  = `{"timestamp":"2024-03-12T09:00:01.000000+0000","flow_id":1,"event_type":"tls","src_ip":"10.0.0.1","src_port":4000,"dest_ip":"10.0.0.2","dest_port":443,"proto":"TCP","tls":{"sni":"www.example.org","version":"TLS 1.2"}}`
	)
	for _, c := range []struct {
		what string
		code int
		want []string
		args []string
	}{
		{"address", 0, []string{"YES " + list + ":2", "if also evidence=HORIZONTAL_PORT_SCAN", "reason: our scanner"}, []string{"10.0.0.5"}},
		{"address of none", exitInterrupted, []string{"10.0.0.77", "no entry speaks about it"}, []string{"10.0.0.77"}},
		{"name below", 0, []string{"YES " + list + ":3", "records and evidence"}, []string{"www.example.org"}},
		{"name beside", exitInterrupted, []string{"no entry speaks about it"}, []string{"notexample.org"}},
		{"expired", exitInterrupted, []string{"no  " + list + ":4", "it expired at 2026-02-01"}, []string{"192.0.2.9", "--at", "2026-06-01T00:00:00Z"}},
		{"not expired", 0, []string{"YES " + list + ":4", "reason: until it is gone"}, []string{"192.0.2.9", "--at", "2026-01-31T23:59:59Z"}},
		{"JA3", 0, []string{"YES " + list + ":5"}, []string{someJA3}},
		{"type", 0, []string{"YES " + list + ":6"}, []string{"LONG_CONNECTION"}},
		{"port", 0, []string{"YES " + list + ":7"}, []string{"123/udp"}},
		{"module", 0, []string{"YES " + list + ":8"}, []string{"dga"}},
		{"organisation", 0, []string{"YES " + list + ":9", "no feed names it"}, []string{"8.8.8.8"}},
		{"MAC", 0, []string{"YES " + list + ":10"}, []string{"00-1B-44-11-3A-B7"}},
		{"DNS record", 0, []string{"YES " + list + ":3", "all its conditions hold"}, []string{dns}},
		{"connection", 0, []string{"YES " + list + ":4"}, []string{conn}},
		{"connection from the port", exitInterrupted, []string{"no  " + list + ":7", "on the src side"}, []string{ntp}},
		{"Suricata", 0, []string{"YES " + list + ":3"}, []string{eve}},
		{"evidence", 0, []string{"YES " + list + ":2", "reason: our scanner"}, []string{evidenceOf("10.0.0.5")}},
		{"evidence about another", exitInterrupted, []string{"no entry speaks about it"}, []string{evidenceOf("10.0.0.7")}},
		{"one of two", 0, []string{"no entry speaks about it", "YES"}, []string{"10.0.0.77", "10.0.0.5"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			code, stdout, stderr := runMain(t, nil, append([]string{"whitelist", "test", "--set", setting}, c.args...)...)
			if code != c.code || stderr != "" {
				t.Errorf("exit code %d, want %d: %s", code, c.code, stderr)
			}
			for _, want := range c.want {
				if !strings.Contains(stdout, want) {
					t.Errorf("the output lacks %q:\n%s", want, stdout)
				}
			}
		})
	}

	bad := filepath.Join(dir, "bad.conf")
	writeFile(t, bad, "evidence,LONG_CONNECTION,both,alerts\nevidence,LONG_CONNEXION,both,alerts\n")
	worse := filepath.Join(dir, "worse.conf")
	writeFile(t, worse, "ip,10.0.0.1,src,flows\nip,10.0.0.1,sideways,flows\nasn,AS1,both,flows\ndomain,com,both,alerts\nip,10.0.0.1\n")
	for _, c := range []struct {
		code           int
		stdout, stderr string
		args           []string
	}{
		{0, "9 entries", "whitelist.conf:4: has expired: ip,192.0.2.0/24,dst,flows", []string{"check", list}},
		{exitUsage, "", "bad.conf:2: ", []string{"check", bad}},
		{exitUsage, "", `"LONG_CONNEXION"`, []string{"check", bad}},
		{exitUsage, "", "bad.conf:2: ", []string{"test", "10.0.0.5", "--set", "whitelists.local_whitelist_path=" + bad}},
		{exitUsage, "", `worse.conf:2: direction "sideways"`, []string{"check", worse}},
		{exitUsage, "", `worse.conf:3: ignore "flows"`, []string{"check", worse}},
		{exitUsage, "", "worse.conf:4: value", []string{"check", worse}},
		{exitUsage, "", "worse.conf:5: line", []string{"check", worse}},
		{exitUsage, "", "no such file", []string{"check", filepath.Join(dir, "none.conf")}},
		{exitUsage, "", "want an address, a domain", []string{"test", "? ?", "--set", setting}},
		{exitUsage, "", "the record is no JSON", []string{"test", "{", "--set", setting}},
		{exitUsage, "", "the record cannot be read", []string{"test", "{}", "--set", setting}},
		{exitUsage, "", `--at "yesterday"`, []string{"test", "10.0.0.5", "--at", "yesterday", "--set", setting}},
		{exitUsage, "", "want a record", []string{"test"}},
		{0, "domain,example.org,dst,both", "", []string{"show", "--set", setting}},
		{0, "abuse.ch", "", []string{"show"}},
	} {
		code, stdout, stderr := runMain(t, nil, append([]string{"whitelist"}, c.args...)...)
		if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) || c.stderr == "" && stderr != "" {
			t.Errorf("slips whitelist %s: exit code %d, want %d:\n%s%s", strings.Join(c.args, " "), code, c.code, stdout, stderr)
		}
	}
	for _, path := range []string{bad, worse} {
		out := filepath.Join(t.TempDir(), "out")
		code, stderr := runProgram(t, "-f", logs, "-o", out, "--set", "whitelists.local_whitelist_path="+path)
		if _, err := os.Stat(out); err == nil {
			t.Error("an output directory was made for nothing")
		}
		if code != exitUsage || !strings.Contains(stderr, filepath.Base(path)+":2: ") {
			t.Errorf("a run with a bad whitelist: exit code %d: %s", code, stderr)
		}
	}
}

// Popularity makes evidence about a name weigh half, and hides nothing.
func TestPopularDomains(t *testing.T) {
	t.Parallel()
	w := newMachine(t, "  top: { url: URL/top.csv, format: tranco, level: info }\n")
	w.publish("/top.csv", "1,example.org\n2,example.com\n")
	w.expect(t, 0, "", nil, "feeds", "update")
	logs := t.TempDir()
	dns, conn := "", visit(0, "C0", "10.0.0.7", "198.51.102.1")
	for i, name := range []string{"www.example.org", "www.example.net"} {
		dns += fmt.Sprintf(`{"ts":%d,"uid":"D%d","id.orig_h":"10.0.0.7","id.orig_p":50001,"id.resp_h":"10.0.0.53","id.resp_p":53,"proto":"udp","query":%q,`+
			`"qtype_name":"A","rcode_name":"NOERROR","answers":["198.51.101.%d"],"TTLs":[60.0]}`+"\n", 1700000010+i, i, name, i+1)
	}
	writeFile(t, filepath.Join(logs, "dns.log"), dns)
	writeFile(t, filepath.Join(logs, "conn.log"), conn+visit(9000, "C1", "10.0.0.7", "198.51.102.1"))
	confidence := func(args ...string) map[string]float64 {
		m := map[string]float64{}
		for _, line := range replayed(t, logs, w.args(args...)...).evidence {
			v := object(line)
			victim, _ := v["victim"].(map[string]any)
			if c, ok := v["confidence"].(float64); ok && v["type"] == "DNS_WITHOUT_CONNECTION" {
				m[text(victim["domain"])] = c
			}
		}
		return m
	}
	plain := confidence("--set", "whitelists.enable_online_whitelist=false")
	if plain["www.example.org"] == 0 || plain["www.example.org"] != plain["www.example.net"] {
		t.Fatalf("confidence %v: the test shows nothing", plain)
	}
	want := map[string]float64{"www.example.org": plain["www.example.org"] / 2, "www.example.net": plain["www.example.net"]}
	if d := cmp.Diff(want, confidence()); d != "" {
		t.Errorf("confidence with the list of popular names (-want +got):\n%s", d)
	}
	w.expect(t, exitInput, "", []string{"number 1 of the popular domains", "no feed lists it"}, "lookup", "www.example.org")
}

// The whitelist of an organisation hides its noise, and not what a feed names
// in its networks, neither evidence nor the records behind it.
func TestOrganisationsDoNotHideFeeds(t *testing.T) {
	t.Parallel()
	w := newMachine(t, twoFeeds)
	w.publish("/c2.txt", "8.8.8.77\n")
	w.publish("/names.txt", "8.8.8.77\n")
	w.expect(t, 0, "", nil, "feeds", "update")
	dir := t.TempDir()
	logs := filepath.Join(dir, "logs")
	writeFile(t, filepath.Join(logs, "dns.log"), badDNS)
	writeFile(t, filepath.Join(logs, "conn.log"), visit(100, "C1", "10.0.0.7", "8.8.8.77")+visit(101, "C2", "10.0.0.7", "8.8.8.99")+
		visit(102, "C3", "10.0.0.7", "198.51.102.9")+visit(300, "C4", "10.0.0.7", "198.51.102.9"))
	found := func(out *outcome, typ string) map[string]bool {
		m := map[string]bool{}
		for _, line := range out.evidence {
			if v := object(line); v["type"] == typ {
				victim, _ := v["victim"].(map[string]any)
				m[text(victim["ip"])] = true
			}
		}
		return m
	}
	const noise, hit = "CONNECTION_WITHOUT_DNS", "THREAT_INTELLIGENCE_TO_BLACKLISTED_IP"
	plain := replayed(t, logs, w.args()...)
	if d := cmp.Diff(map[string]bool{"8.8.8.77": true, "8.8.8.99": true, "198.51.102.9": true}, found(plain, noise)); d != "" {
		t.Fatalf("%s without a whitelist (-want +got):\n%s", noise, d)
	}
	for _, ignore := range []string{"alerts", "flows", "both"} {
		list := filepath.Join(dir, ignore+".conf")
		writeFile(t, list, "organization,google,both,"+ignore+"\n")
		out := filepath.Join(t.TempDir(), "out")
		code, _, stderr := w.slips(t, "-f", logs, "-o", out, "--quiet", "--set", "whitelists.local_whitelist_path="+list)
		if warned := logged(t, out, "records of an organisation are dropped")(); code != 0 || warned != (ignore != "alerts") {
			t.Errorf("%s: exit code %d, and the warning about records of organisations was given: %v: %s", ignore, code, warned, stderr)
		}
		got := results(t, out)
		if n := found(got, noise); n["8.8.8.99"] || !n["198.51.102.9"] {
			t.Errorf("%s: the organisation's noise is %v", ignore, n)
		}
		if n := found(got, hit); !n["8.8.8.77"] {
			t.Errorf("%s: the whitelist hides what a feed names: %v", ignore, got.evidence.types(""))
		}
		if s := whitelisted(t, out); len(s.Rules) != 1 || s.Rules[0].Flows+s.Rules[0].Evidence == 0 {
			t.Errorf("%s: summary.json says %+v", ignore, s)
		}
	}
}
