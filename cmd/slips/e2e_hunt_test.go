//go:build unix

package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// huntEve are events of Suricata: one with a listed name, one without.
const huntEve = `{"timestamp":"2024-03-12T09:00:01.000000+0000","flow_id":1,"event_type":"tls","src_ip":"10.1.0.1","src_port":4000,"dest_ip":"10.1.0.2","dest_port":443,"proto":"TCP","tls":{"sni":"cdn.evil.example.net","version":"TLS 1.2"}}
{"timestamp":"2024-03-12T09:00:02.000000+0000","flow_id":2,"event_type":"tls","src_ip":"10.1.0.1","src_port":4001,"dest_ip":"10.1.0.2","dest_port":443,"proto":"TCP","tls":{"sni":"www.example.org","version":"TLS 1.2"}}
`

// hunting runs slips hunt and returns its exit code, its finds, the line that
// sums them up, and standard error.
func hunting(t *testing.T, args ...string) (code int, finds []string, sum, stderr string) {
	t.Helper()
	code, out, stderr := runMain(t, nil, append([]string{"hunt"}, args...)...)
	before, sum, _ := strings.Cut(out, " finds in ")
	if i := strings.LastIndexByte(before, '\n'); i >= 0 {
		finds = strings.Split(before[:i], "\n")
	}
	return code, finds, before[strings.LastIndexByte(before, '\n')+1:] + " finds in " + sum, stderr
}

// Indicators are found in the logs of several sensors, in several directories,
// and in the results of an earlier run.
func TestHunt(t *testing.T) {
	t.Parallel()
	w := badMachine(t)
	root := t.TempDir()
	for name, text := range map[string]string{
		"notes.txt": "logs of a test\n", "b/notes.txt": "198.51.101.7 is bad\n", "a/conn.log": badConn, "a/dns.log": badDNS, "b/deep/ssl.log": badSSL, "b/files.log": badFiles, "c/eve.json": huntEve,
	} {
		writeFile(t, filepath.Join(root, name), text)
	}
	out := filepath.Join(t.TempDir(), "out")
	w.replay(t, out, "-f", badLogs(t), "--quiet", "--export-flows", "tsv", "--export-letters", "--export-timeline")
	iocs := filepath.Join(t.TempDir(), "iocs.csv")
	writeFile(t, iocs, "evil.example.net,high,a name\n203.0.114.0/24,low,a network\n")

	for _, c := range []struct {
		what  string
		args  []string
		finds []string // a part of each, in any order; nil: not checked
		lines int      // at least, where finds is nil
	}{
		{"address", []string{"198.51.101.7", "--in", root}, []string{"conn C2", "ssl C2", "files C2"}, 0},
		{"defanged", []string{"198[.]51[.]101[.]7", "--in", root}, []string{"conn C2", "ssl C2", "files C2"}, 0},
		{"visitor", []string{"198.51.101.9", "--in", filepath.Join(root, "a")}, []string{"conn C3 198.51.101.9:50003 > 10.0.0.8:80 id.orig_h 198.51.101.9"}, 0},
		{"network", []string{"203.0.114.0/24", "--in", root}, []string{"conn C1", "dns D1"}, 0},
		{"name and all below", []string{"evil[.]example[.]net", "--in", root}, []string{
			"dns D1 10.0.0.7:50001 > 10.0.0.53:53 query www.evil.example.net (evil.example.net)", "server_name cdn.evil.example.net (evil.example.net)",
		}, 0},
		{"name beside", []string{"vil.example.net", "xample.org", "--in", root}, []string{}, 0},
		{"JA3", []string{strings.ToUpper(someJA3), "--in", root}, []string{"ssl C2"}, 0},
		{"hash", []string{someMD5, "--in", root}, []string{"files C2"}, 0},
		{"list", []string{iocs, "--in", root}, []string{"conn C1", "dns D1", "dns D1", "cdn.evil.example.net"}, 0},
		{"list and another", []string{iocs, someMD5, "--in", root}, []string{"conn C1", "dns D1", "dns D1", "cdn.evil.example.net", "files C2"}, 0},
		{"two places", []string{"evil.example.net", "--in", filepath.Join(root, "a"), "--in", filepath.Join(root, "c", "eve.json")}, []string{"dns D1", "cdn.evil.example.net"}, 0},
		{"earlier run", []string{"198.51.101.7", "--in", out}, nil, 8},
		{"evidence of it", []string{"evil.example.net", "--in", filepath.Join(out, "alerts", "evidence.jsonl")}, nil, 1},
		{"logs and run", []string{"evil.example.net", "--in", root, "--in", out}, nil, 4},
	} {
		t.Run(c.what, func(t *testing.T) {
			code, finds, sum, stderr := hunting(t, c.args...)
			want := exitOK
			if c.finds != nil && len(c.finds) == 0 {
				want = exitInterrupted
			}
			if code != want || stderr != "" {
				t.Errorf("exit code %d, want %d: %s", code, want, stderr)
			}
			all := strings.Join(finds, "\n")
			if c.finds == nil && len(finds) < c.lines || c.finds != nil && len(finds) != len(c.finds) {
				t.Errorf("%d finds, want %d:\n%s\n%s", len(finds), max(len(c.finds), c.lines), all, sum)
			}
			for _, f := range c.finds {
				if !strings.Contains(all, f) {
					t.Errorf("no find %q:\n%s", f, all)
				}
			}
			if !strings.HasPrefix(sum, fmt.Sprintf("%d finds in ", len(finds))) {
				t.Errorf("%d finds, and the sum is %q", len(finds), sum)
			}
		})
	}
	// Each file of the earlier run that can name an address does.
	_, finds, _, _ := hunting(t, "198.51.101.7", "--in", out)
	for _, name := range []string{"evidence.jsonl", "alerts.json", "timeline.jsonl", "labeled_flows.tsv"} {
		if all := strings.Join(finds, "\n"); !strings.Contains(all, name+":") {
			t.Errorf("nothing was found in %s:\n%s", name, all)
		}
	}
	code, finds, sum, _ := hunting(t, "198.51.101.7", "--in", root, "--limit", "1")
	if code != 0 || len(finds) != 1 || !strings.HasPrefix(sum, "3 finds in 11 records") || !strings.Contains(sum, "198.51.101.7: 3") {
		t.Errorf("with a limit of 1: exit code %d, %d lines, %q", code, len(finds), sum)
	}
}

// What cannot be searched is told, and what was found all the same is shown.
func TestHuntMistakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	logs, none := filepath.Join(dir, "logs"), filepath.Join(dir, "none")
	writeFile(t, filepath.Join(logs, "conn.log"), badConn)
	garbage := filepath.Join(dir, "garbage")
	writeFile(t, filepath.Join(garbage, "conn.log"), strings.Repeat(strings.ReplaceAll(visit(1, "C1", "10.0.0.7", "198.51.101.7"), `"ts":1700000001`, `"ts":"never"`), 20))
	half := filepath.Join(dir, "half")
	writeFile(t, filepath.Join(half, "conn.log"), badConn+"{\n")
	cut := filepath.Join(dir, "out", "alerts", "evidence.jsonl")
	writeFile(t, cut, `{"id":"1","victim":{"ip":"198.51.101.7"}}`+"\n"+`{"id":"2","vic`+"\n"+`{"id":"3","victim":{"ip":"198.51.101.7"}}`+"\n")
	packed := filepath.Join(dir, "packed")
	var gz bytes.Buffer
	z := gzip.NewWriter(&gz)
	_, err := z.Write([]byte(strings.Repeat(badConn, 100)))
	must(t, err)
	must(t, z.Close())
	writeFile(t, filepath.Join(packed, "conn.log.gz"), gz.String()[:gz.Len()/2])
	empty := filepath.Join(dir, "empty.txt")
	writeFile(t, empty, "# nothing\n")
	for _, c := range []struct {
		what   string
		code   int
		finds  int // -1: any
		stderr string
		args   []string
	}{
		{"nothing there", exitInput, 0, none, []string{"198.51.101.7", "--in", none}},
		{"one of two is there", exitInput, 1, none, []string{"198.51.101.7", "--in", none, "--in", logs}},
		{"nothing found", exitInterrupted, 0, "", []string{"192.0.2.1", "--in", logs}},
		{"nothing to search", exitInput, 0, "no logs or results there", []string{"198.51.101.7", "--in", t.TempDir()}},
		{"no record", exitInput, 0, "20 lines were rejected", []string{"198.51.101.7", "--in", garbage}},
		{"a bad line", 0, 1, "", []string{"198.51.101.7", "--in", half}},
		{"a cut result", exitInput, 2, "evidence.jsonl:2", []string{"198.51.101.7", "--in", cut}},
		{"a damaged archive", exitInput, -1, "conn.log.gz", []string{"198.51.101.7", "--in", packed}},
		{"no place", exitUsage, 0, "say where with --in", []string{"198.51.101.7"}},
		{"nothing to hunt", exitUsage, 0, "want an indicator", []string{"--in", logs}},
		{"no indicator", exitUsage, 0, "there is no file of that name", []string{"! !", "--in", logs}},
		{"one of two is none", exitUsage, 0, "there is no file of that name", []string{"! !", "198.51.101.7", "--in", logs}},
		{"an empty list", exitUsage, 0, "no indicators in it", []string{empty, "--in", logs}},
		{"a bad limit", exitUsage, 0, "--limit -1", []string{"198.51.101.7", "--in", logs, "--limit", "-1"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			code, finds, sum, stderr := hunting(t, c.args...)
			if c.what == "a bad line" && !strings.Contains(sum, "\n1 lines could not be read\n") {
				t.Errorf("the bad line is not told of: %q", sum)
			}
			if code != c.code || c.finds >= 0 && len(finds) != c.finds || !strings.Contains(stderr, c.stderr) || c.stderr == "" && stderr != "" {
				t.Errorf("exit code %d, want %d; %d finds, want %d; standard error lacks %q: %s", code, c.code, len(finds), c.finds, c.stderr, stderr)
			}
		})
	}
}
