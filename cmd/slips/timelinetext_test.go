package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/export"
)

func decode(t testing.TB, line string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(line), v); err != nil {
		t.Fatalf("%v in %.300q", err, line)
	}
}

func sec(n int) time.Time { return time.Unix(1_700_000_000+int64(n), 0).UTC() }

// Names count from when they were resolved; up to three are told, or the last.
func TestResolved(t *testing.T) {
	var r resolved
	answer := func(at int, query string, answers ...string) {
		var d dnsAnswer
		d.At, d.Info.Query, d.Info.Answers = sec(at), query, answers
		r.add(&d)
	}
	answer(30, "c.example", "192.0.2.1")
	answer(10, "a.example", "alias.example", "192.0.2.1", "2001:DB8::1")
	answer(50, "a.example", "192.0.2.1")
	answer(20, "b.example", "192.0.2.1")
	answer(40, "d.example", "192.0.2.1")
	answer(10, "1.2.0.192.in-addr.arpa.", "192.0.2.7")
	answer(10, "sink.example", "0.0.0.0", "127.0.0.1", "::")
	answer(10, "", "192.0.2.8")
	r.settle()
	for at, want := range map[int]string{9: "", 10: "a.example", 20: "a.example b.example", 39: "a.example b.example c.example", 40: "d.example"} {
		if got := strings.Join(r.of("192.0.2.1", sec(at)), " "); got != want {
			t.Errorf("at %d: %q, want %q", at, got, want)
		}
	}
	if got := r.of("2001:db8::1", sec(99)); len(got) != 1 || len(r.names) != 2 {
		t.Errorf("IPv6: %v; all: %v", got, r.names)
	}
	for i := range 100 {
		answer(60, fmt.Sprint(i, ".example"), "192.0.2.1")
	}
	if n := len(r.names["192.0.2.1"]); n != maxAliases {
		t.Errorf("%d names of one address", n)
	}
}

// told returns the account of some lines.
func told(t testing.TB, names *resolved, activities, evidence, alerts []string) string {
	t.Helper()
	a := newAccount(hostWindow{"10.0.0.1", 1}, "desk\x1b", names, false)
	for _, l := range activities {
		must(t, a.activity([]byte(l)))
	}
	for _, l := range evidence {
		must(t, a.evidence([]byte(l)))
	}
	for _, l := range alerts {
		must(t, a.alert([]byte(l)))
	}
	a.settle()
	var b strings.Builder
	w := bufio.NewWriter(&b)
	a.writeText(w)
	must(t, w.Flush())
	return b.String()
}

func someLines() (activities, evidence, alerts []string) {
	at := func(n int) string { return sec(n).Format("2006-01-02T15:04:05.000000000Z07:00") }
	activities = []string{
		`{"ts":"` + at(0) + `","uid":"C1","kind":"conn","dport_name":"HTTP","preposition":"to","daddr":"192.0.2.1","dport/proto":"80/tcp","state":"Established","sent":1200,"recv":34,"tot":1234,"duration":1.500}`,
		`{"ts":"` + at(1) + `","uid":"C1","kind":"http","preposition":"to","daddr":"192.0.2.1","info":{"request":"GET http://a.example/ HTTP/1.1","status":"200 OK","mime":["text/html"],"user_agent":"x\u001b[31m","recv":2048}}`,
		`{"ts":"` + at(2) + `","uid":"C1","kind":"files","preposition":"from","daddr":"192.0.2.1","info":{"mime":"x/y","bytes":2048,"names":["a","b"]}}`,
		`{"ts":"` + at(1) + `","uid":"C2","kind":"dns","preposition":"to","daddr":"192.0.2.53","dport/proto":"53/udp","info":{"query":"b.example","type":"A","rcode":"NXDOMAIN"}}`,
		`{"ts":"` + at(3) + `","uid":"C3","kind":"conn","dport_name":"ICMP","preposition":"to","daddr":"192.0.2.2","dport/proto":"icmp","state":"ICMP Echo","sent":56,"recv":0,"tot":56,"duration":0.000,"info":{"message":"echo"}}`,
		`{"ts":"` + at(3) + `","kind":"arp","info":{"operation":"request"}}`,
		`{"ts":"` + at(3) + `","kind":"arp","info":{"operation":"reply"}}`,
		`{"ts":"` + at(4) + `","uid":"C4","kind":"conn","dport_name":"????","preposition":"from","daddr":"192.0.2.2","warning":"protocol not recognised; No data exchange!","sent":0,"recv":0,"tot":0,"duration":0.000}`,
		`{"ts":"` + at(5) + `","uid":"C5","kind":"dns","info":{"query":"c.example","answers":["192.0.2.3","192.0.2.4"]}}`,
		`{"ts":"` + at(5) + `","uid":"C6","kind":"weird"}`,
	}
	evidence = []string{`{"type":"X","time":"` + at(3) + `","threat_level":"high","confidence":0.75,"description":"bad\nthing."}`}
	alerts = []string{`{"time":"` + at(3) + `","score":18.004,"threshold":15,"tactics":["impact","discovery"]}`}
	return
}

// An account is in the order of time, whatever that of the lines.
func TestAccount(t *testing.T) {
	var names resolved
	names.note("192.0.2.1", "a.example", sec(-5))
	names.note("192.0.2.2", "later.example", sec(9))
	names.settle()
	activities, evidence, alerts := someLines()
	want := `10.0.0.1 (desk\x1b), timewindow 1: 2023-11-14 22:13:20.000 to 2023-11-14 22:13:25.000 UTC
  2023-11-14 22:13:20.000  HTTP to 192.0.2.1 (a.example) 80/tcp, Established, sent 1.2 kB, received 34 B, 1.500 s
                             http: GET http://a.example/ HTTP/1.1 -> 200 OK, text/html, 2.0 kB, x\x1b[31m
                             files: mime x/y, bytes 2.0 kB, names a, b
  2023-11-14 22:13:21.000  DNS to 192.0.2.53 53/udp: asked for b.example (A) -> NXDOMAIN
  2023-11-14 22:13:23.000  ARP: operation reply
  2023-11-14 22:13:23.000  ARP: operation request
  2023-11-14 22:13:23.000  ICMP (echo) to 192.0.2.2, ICMP Echo, sent 56 B, received 0 B, 0.000 s
  2023-11-14 22:13:23.000  >> evidence: X, high, confidence 0.75: bad\nthing.
  2023-11-14 22:13:23.000  !! ALERT: score 18, threshold 15 (impact + discovery)
  2023-11-14 22:13:24.000  ???? from 192.0.2.2, sent 0 B, received 0 B, 0.000 s [protocol not recognised; No data exchange!]
  2023-11-14 22:13:25.000  DNS: asked for c.example -> 192.0.2.3, 192.0.2.4
  2023-11-14 22:13:25.000  WEIRD
  total: 3 flows, 1.3 kB sent, 34 B received, 3 peers, 1 piece of evidence, 1 alert
`
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		if d := cmp.Diff(want, told(t, &names, activities, evidence, alerts)); d != "" {
			t.Fatal(d)
		}
		rnd.Shuffle(len(activities), func(i, j int) { activities[i], activities[j] = activities[j], activities[i] })
	}
}

func TestAccountRefusesGarbage(t *testing.T) {
	a := newAccount(hostWindow{}, "", &resolved{}, false)
	for _, f := range []func([]byte) error{a.activity, a.evidence, a.alert} {
		if f([]byte(`{"time":7,"ts":7}`)) == nil {
			t.Error("a line of nonsense was taken")
		}
	}
}

// What is beyond the bound is counted and not kept.
func TestAccountIsBounded(t *testing.T) {
	a := newAccount(hostWindow{"10.0.0.1", 1}, "", &resolved{}, false)
	for i := range maxTold + 5 {
		must(t, a.activity(fmt.Appendf(nil, `{"ts":"2024-03-12T09:00:00Z","uid":"C%d","kind":"conn","daddr":"a%d","sent":1}`, i, i)))
	}
	a.settle()
	if len(a.entries) != maxTold || a.LeftOut != 5 || a.Flows != maxTold+5 || a.Sent != maxTold+5 || a.Peers != maxPeers {
		t.Errorf("%d entries, totals %+v", len(a.entries), a.totals)
	}
	var b strings.Builder
	w := bufio.NewWriter(&b)
	a.writeText(w)
	must(t, w.Flush())
	if end := b.String()[b.Len()-300:]; !strings.Contains(end, "and 5 more activities") || !strings.Contains(end, "at least 100,000 peers") {
		t.Errorf("it ends with %s", end)
	}
}

// Sensors that miss packets count more bytes than there are; a sum does not
// wrap around for that.
func TestAccountOfTooMuch(t *testing.T) {
	line := `{"ts":"2024-03-12T09:00:00Z","kind":"conn","sent":9223372036854775807,"recv":1}`
	if text := told(t, &resolved{}, []string{line, line}, nil, nil); !strings.Contains(text, "total: 2 flows, 9.2 EB sent, 2 B received") {
		t.Error(text)
	}
}

func TestOffsets(t *testing.T) {
	var o offsets
	want := []int64{0, 1, 300, 301, 1 << 40}
	for _, n := range want {
		o.add(n)
	}
	var got []int64
	must(t, o.each(func(n int64) error { got = append(got, n); return nil }))
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// A run that is under way, or was cut by a power failure, can be read.
func TestTimelineOfDamagedRun(t *testing.T) {
	dir := t.TempDir()
	activities, evidence, _ := someLines()
	head := func(lines []string, window int) string {
		var b strings.Builder
		for _, l := range lines {
			fmt.Fprintf(&b, `{"profile":"10.0.0.1","window":%d,%s`+"\n", window, l[1:])
		}
		return b.String()
	}
	one, two := head(activities, 1), head(activities, -1)
	writeFile(t, filepath.Join(dir, filepath.FromSlash(export.TimelineFile)), one+"\x00\x00\n"+strings.Repeat(two, 400)+one[:30])
	writeFile(t, filepath.Join(dir, "alerts", "evidence.jsonl"), head(evidence, 1))
	writeFile(t, filepath.Join(dir, "alerts", "alerts.jsonl"), "")
	code, stdout, stderr := runMain(t, nil, "timeline", dir)
	if code != 0 || !strings.Contains(stderr, "1 lines in") || strings.Count(stdout, "total: 3 flows") != 1 || strings.Count(stdout, "total: 1,200 flows") != 1 {
		t.Errorf("exit code %d, stderr %q:\n%.500s", code, stderr, stdout)
	}
	if i, j := strings.Index(stdout, "timewindow -1"), strings.Index(stdout, "timewindow 1"); i != len("10.0.0.1, ") || j < i {
		t.Errorf("windows begin at %d and %d", i, j)
	}
	// What is JSON and yet no activity is left out as well, and told.
	odd := strings.Replace(one, `"sent":1200`, `"sent":"many"`, 1)
	writeFile(t, filepath.Join(dir, filepath.FromSlash(export.TimelineFile)), odd+"\x00\x00\n"+two)
	code, stdout, stderr = runMain(t, nil, "timeline", dir)
	if code != 0 || !strings.Contains(stderr, "2 lines in") || strings.Count(stdout, "total: 2 flows") != 1 || strings.Count(stdout, "total: 3 flows") != 1 {
		t.Errorf("exit code %d, stderr %q:\n%.500s", code, stderr, stdout)
	}
	must(t, os.Remove(filepath.Join(dir, "alerts", "alerts.jsonl")))
	if code, _, stderr := runMain(t, nil, "timeline", dir); code != exitInput || !strings.Contains(stderr, "alerts.jsonl") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
