//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/slips-go/slips/feeds"
	"github.com/slips-go/slips/internal/idmeftest"
)

// machine is what a run knows besides its traffic: a server that publishes
// feeds, a directory to keep them in, and lists of one's own.
type machine struct {
	url              string
	dir, file, local string

	mu    sync.Mutex
	pages map[string]string // by path
	asked map[string]int
}

// newMachine returns a machine with the feeds that are given as YAML, in which
// URL stands for the server's. All built-in feeds are switched off.
func newMachine(t testing.TB, yaml string) *machine {
	t.Helper()
	base := t.TempDir()
	w := &machine{
		dir: filepath.Join(base, "feeds"), file: filepath.Join(base, "feeds.yaml"), local: filepath.Join(base, "local"),
		pages: map[string]string{}, asked: map[string]int{},
	}
	server := httptest.NewServer(w)
	t.Cleanup(server.Close)
	w.url = server.URL
	var b strings.Builder
	b.WriteString("feeds:\n")
	builtIn, err := feeds.Sources("")
	must(t, err)
	for _, s := range builtIn {
		fmt.Fprintf(&b, "  %s: { enabled: false }\n", s.Name)
	}
	b.WriteString(strings.ReplaceAll(yaml, "URL", w.url))
	writeFile(t, w.file, b.String())
	must(t, os.Mkdir(w.local, 0o755))
	return w
}

// ServeHTTP publishes the pages, with an ETag for each.
func (w *machine) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[r.URL.Path]++
	text, ok := w.pages[r.URL.Path]
	if !ok {
		http.NotFound(rw, r)
		return
	}
	rw.Header().Set("ETag", fmt.Sprintf("%q", fmt.Sprint(len(text))))
	http.ServeContent(rw, r, "", time.Time{}, strings.NewReader(text))
}

func (w *machine) publish(path, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pages[path] = text
}

// args are the settings that put a run onto the machine.
func (w *machine) args(more ...string) []string {
	own := []string{"--set", "feeds.directory=" + w.dir, "--set", "feeds.file=" + w.file, "--set", "feeds.local=" + w.local}
	if i := slices.Index(more, "--set"); i >= 0 { // what a test sets counts
		return slices.Insert(slices.Clone(more), i, own...)
	}
	return append(more, own...)
}

// slips runs a command on the machine.
func (w *machine) slips(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return runMain(t, nil, w.args(args...)...)
}

// expect runs a command and checks its exit code, texts that standard output
// must hold, and one that standard error must hold; "" is for silence.
func (w *machine) expect(t *testing.T, code int, stderr string, stdout []string, args ...string) string {
	t.Helper()
	got, out, err := w.slips(t, args...)
	var wrong []string
	if got != code {
		wrong = append(wrong, fmt.Sprintf("exit code %d, want %d", got, code))
	}
	if !strings.Contains(err, stderr) || stderr == "" && err != "" {
		wrong = append(wrong, fmt.Sprintf("standard error lacks %q", stderr))
	}
	for _, s := range stdout {
		if !strings.Contains(out, s) {
			wrong = append(wrong, fmt.Sprintf("standard output lacks %q", s))
		}
	}
	if wrong != nil {
		t.Errorf("slips %s: %s\n%.3000s%s", strings.Join(args, " "), strings.Join(wrong, "; "), out, err)
	}
	return out
}

// rowOf returns the cells of the line of a table that begins with a name.
func rowOf(t testing.TB, table, name string) []string {
	t.Helper()
	for line := range strings.Lines(table) {
		if cells := strings.Fields(line); len(cells) > 0 && cells[0] == name {
			return cells
		}
	}
	t.Fatalf("the table has no line %q:\n%s", name, table)
	return nil
}

// addressList is a feed of n addresses from 198.51.101.1 on.
func addressList(n int) string {
	var b strings.Builder
	b.WriteString("# made for a test\n")
	for i := range n {
		fmt.Fprintf(&b, "198.51.101.%d\n", i+1)
	}
	return b.String()
}

const twoFeeds = `
  c2list:
    url: URL/c2.txt
    format: lines
    level: high
    tags: [c2]
    period: 1h
  names:
    provider: example
    url: URL/names.txt
    format: lines
    kinds: [domain, ip, range, url, ja3, md5]
    level: medium
`

const webPage = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in to go on.</body></html>\n"

// Feeds are fetched, kept, shown and looked up, and each thing that can go
// wrong has its message and exit code and leaves what was there in use.
func TestFeedsCommands(t *testing.T) {
	t.Parallel()
	w := newMachine(t, twoFeeds)
	if out := w.expect(t, 0, "", []string{"more feeds are disabled", "index: empty"}, "feeds", "status"); !strings.Contains(out, "not fetched yet") {
		t.Errorf("feeds that were never fetched are not told of:\n%s", out)
	}
	list := w.expect(t, 0, "", []string{w.url + "/c2.txt", "iptoasn-country"}, "feeds", "list")
	if row := rowOf(t, list, "c2list"); row[1] != "yes" || row[2] != "high" || row[3] != "1h" || row[4] != "c2" {
		t.Errorf("c2list is listed as %q", row)
	}
	if row := rowOf(t, list, "feodo"); row[1] != "no" {
		t.Errorf("feodo is listed as %q", row)
	}

	// One feed is there and the other is not.
	w.publish("/c2.txt", addressList(100))
	out := w.expect(t, exitInput, "1 could not be updated", []string{"404"}, "feeds", "update")
	if row := rowOf(t, out, "c2list"); !slices.Equal(row, []string{"c2list", "new", "100", "0", "0"}) {
		t.Errorf("update says %q", row)
	}
	if row := rowOf(t, out, "names"); row[1] != "failed" || row[2] != "0" {
		t.Errorf("update says %q", row)
	}
	w.expect(t, 0, "", []string{"last check failed", "404", "index: 100 indicators (ip 100)"}, "feeds", "status")

	w.publish("/names.txt", "evil.example.net\nhttp://dl.example.org/bins/x.exe\n203.0.114.0/24\n"+someJA3+"\n"+"good.example.com and more\n")
	out = w.expect(t, 0, "", nil, "feeds", "update")
	if row := rowOf(t, out, "c2list"); row[1] != "unchanged" || row[2] != "100" {
		t.Errorf("update says %q", row)
	}
	if row := rowOf(t, out, "names"); row[1] != "new" {
		t.Errorf("update says %q", row)
	}

	// A version that does not look like the feed leaves the one before in use.
	for _, c := range []struct{ what, text, why string }{
		{"a web page", webPage, "web page"},
		{"too short", addressList(10), "shrank from 100 to 10 entries"},
		{"empty", "# nothing\n", "no entries"},
	} {
		w.publish("/c2.txt", c.text)
		out := w.expect(t, exitInput, "1 could not be updated", []string{c.why}, "feeds", "update", "c2list")
		if row := rowOf(t, out, "c2list"); row[1] != "refused" || row[2] != "100" {
			t.Errorf("%s: update says %q", c.what, row)
		}
		if strings.Contains(out, "names") {
			t.Errorf("%s: another feed than c2list was updated:\n%s", c.what, out)
		}
		w.expect(t, 0, "", []string{"newest version refused", c.why, "ip 100"}, "feeds", "status")
		w.expect(t, 0, "", []string{"c2list lists 198.51.101.77, level high"}, "lookup", "198.51.101.77")
	}
	w.publish("/c2.txt", addressList(10))
	w.expect(t, 0, "", []string{"changed"}, "feeds", "update", "--force", "c2list")
	w.expect(t, exitInput, "", []string{"no feed lists it"}, "lookup", "198.51.101.77")

	t.Run("lookup", func(t *testing.T) { lookups(t, w) })
	t.Run("check", func(t *testing.T) { checks(t, w) })
	t.Run("mistakes", func(t *testing.T) { feedMistakes(t, w) })
}

const someJA3 = "51c64c77e60f3980eea90869b68c58a8"

// lookups asks about what the feeds of TestFeedsCommands list and do not.
func lookups(t *testing.T, w *machine) {
	t.Helper()
	for _, c := range []struct {
		what  string
		code  int
		want  []string
		query string
	}{
		{"listed", 0, []string{"198.51.101.7 (ip)", "c2list lists 198.51.101.7, level high", "tags c2", "(feed of 20"}, "198.51.101.7"},
		{"defanged", 0, []string{"c2list lists 198.51.101.7"}, "198[.]51.101[.]7"},
		{"name", 0, []string{"names lists evil.example.net, level medium"}, "evil.example.net"},
		{"below a name", 0, []string{"a.b.evil.example.net (domain)", "names lists evil.example.net"}, "A.b.EVIL[.]example.net"},
		{"sibling", exitInput, []string{"no feed lists it"}, "notevil.example.net"},
		{"parent of a listed name", exitInput, []string{"no feed lists it"}, "example.net"},
		{"in a range", 0, []string{"names lists 203.0.114.0/24"}, "203.0.114.9"},
		{"overlapping range", 0, []string{"names lists 203.0.114.0/24"}, "203.0.112.0/20"},
		{"URL", 0, []string{"names lists dl.example.org/bins/x.exe"}, "hxxp://dl[.]example[.]org/bins/x.exe"},
		{"URL of a listed host", 0, []string{"names lists evil.example.net"}, "https://evil.example.net/anything?q=1"},
		{"JA3", 0, []string{"names lists " + someJA3}, strings.ToUpper(someJA3)},
		{"unknown", exitInput, []string{"192.0.2.1 (ip)", "no feed lists it"}, "192.0.2.1"},
	} {
		t.Run(c.what, func(t *testing.T) { w.expect(t, c.code, "", c.want, "lookup", c.query) })
	}
	w.expect(t, exitInput, "", []string{"c2list lists 198.51.101.7", "no feed lists it"}, "lookup", "198.51.101.7", "192.0.2.1")
	w.expect(t, exitInput, `"!!"`, []string{"c2list lists 198.51.101.7"}, "lookup", "!!", "198.51.101.7")
	w.expect(t, exitUsage, "want an indicator", nil, "lookup")
}

// checks reads files as feeds.
func checks(t *testing.T, w *machine) {
	t.Helper()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		writeFile(t, path, text)
		return path
	}
	good := file("good.txt", addressList(20))
	w.expect(t, 0, "", []string{"format lines", "20 indicators: ip 20", "198.51.101.1"}, "feeds", "check", good)
	mixed := file("mixed.txt", "198.51.101.1\nevil.example.net\n\x01bad line\n")
	w.expect(t, 0, "", []string{"2 indicators: domain 1, ip 1", "rejected: 1", "mixed.txt:line 3"}, "feeds", "check", mixed)
	w.expect(t, exitInput, "web page", nil, "feeds", "check", file("page.txt", webPage))
	w.expect(t, exitInput, "would be refused: it has no entries", []string{"0 indicators: none"}, "feeds", "check", file("empty.txt", "# nothing\n"), "--format", "lines")
	w.expect(t, exitInput, "would be refused: 3 of 4 entries were rejected", nil, "feeds", "check", file("noise.txt", "198.51.101.1\n? ?\n? ?\n? ?\n"))
	w.expect(t, 0, "", []string{"format hosts", "domain 1"}, "feeds", "check", file("hosts.txt", "0.0.0.0 evil.example.net\n"), "--format", "hosts")
	w.expect(t, exitInput, "no such file", nil, "feeds", "check", filepath.Join(dir, "none"))
	w.expect(t, exitUsage, `--format "nonsense": want one of`, nil, "feeds", "check", good, "--format", "nonsense")
	w.expect(t, exitUsage, "want one file", nil, "feeds", "check")
}

// feedMistakes makes the mistakes that are to be had.
func feedMistakes(t *testing.T, w *machine) {
	t.Helper()
	w.expect(t, exitUsage, `there is no feed "c2lits"`, nil, "feeds", "update", "c2lits")
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	writeFile(t, bad, "feeds:\n  mine:\n    url: ftp://example.org/list\n    format: lines\n  yours:\n    url: https://example.org/list\n    formt: lines\n")
	for _, args := range [][]string{{"feeds", "list"}, {"feeds", "status"}, {"feeds", "update"}, {"lookup", "198.51.101.7"}, {"-f", testdata("captures", "benign"), "-o", filepath.Join(t.TempDir(), "out")}} {
		args = append(args, "--set", "feeds.file="+bad)
		w.expect(t, exitUsage, "bad.yaml:3: feed mine: url", nil, args...)
		w.expect(t, exitUsage, `bad.yaml:7: feed yours: unknown key "formt"`, nil, args...)
	}
	w.expect(t, exitUsage, "no such file", nil, "feeds", "status", "--set", "feeds.file="+bad+"x")
	w.expect(t, exitUsage, "feeds.local: ", nil, "feeds", "status", "--set", "feeds.local="+w.local+"x")
	w.expect(t, exitUsage, "is no directory", nil, "feeds", "status", "--set", "feeds.local="+bad)
	w.expect(t, exitUsage, `"nonsense": no such database`, nil, "feeds", "status", "--set", "feeds.databases=nonsense")
	w.expect(t, exitOutput, "bad.yaml", nil, "feeds", "update", "--set", "feeds.directory="+filepath.Join(bad, "below"))
	w.expect(t, exitUsage, `unexpected argument "c2list"`, nil, "feeds", "status", "c2list")
}

// The traffic of a host that meets one listed thing of each of four sorts, and
// of one beside it that does not.
const (
	badConn = `{"ts":1700000001,"uid":"C1","id.orig_h":"10.0.0.7","id.orig_p":50000,"id.resp_h":"203.0.114.1","id.resp_p":1177,"proto":"tcp","duration":1.0,"orig_bytes":500,"resp_bytes":4000,"conn_state":"SF","orig_pkts":5,"resp_pkts":5}
{"ts":1700000020,"uid":"C2","id.orig_h":"10.0.0.7","id.orig_p":50002,"id.resp_h":"198.51.101.7","id.resp_p":443,"proto":"tcp","duration":1.0,"orig_bytes":500,"resp_bytes":4000,"conn_state":"SF","orig_pkts":5,"resp_pkts":5}
{"ts":1700000030,"uid":"C3","id.orig_h":"198.51.101.9","id.orig_p":50003,"id.resp_h":"10.0.0.8","id.resp_p":80,"proto":"tcp","duration":1.0,"orig_bytes":500,"resp_bytes":4000,"conn_state":"SF","orig_pkts":5,"resp_pkts":5}
{"ts":1700000040,"uid":"C4","id.orig_h":"10.0.0.9","id.orig_p":50004,"id.resp_h":"198.51.102.7","id.resp_p":443,"proto":"tcp","duration":1.0,"orig_bytes":500,"resp_bytes":4000,"conn_state":"SF","orig_pkts":5,"resp_pkts":5}
{"ts":1700000100,"uid":"C5","id.orig_h":"10.0.0.9","id.orig_p":50005,"id.resp_h":"198.51.102.7","id.resp_p":443,"proto":"tcp","duration":1.0,"orig_bytes":500,"resp_bytes":4000,"conn_state":"SF","orig_pkts":5,"resp_pkts":5}
`
	badDNS = `{"ts":1700000000,"uid":"D1","id.orig_h":"10.0.0.7","id.orig_p":50001,"id.resp_h":"10.0.0.53","id.resp_p":53,"proto":"udp","query":"www.evil.example.net","qtype_name":"A","rcode_name":"NOERROR","answers":["203.0.114.1"],"TTLs":[60.0]}
{"ts":1700000039,"uid":"D2","id.orig_h":"10.0.0.9","id.orig_p":50001,"id.resp_h":"10.0.0.53","id.resp_p":53,"proto":"udp","query":"www.example.org","qtype_name":"A","rcode_name":"NOERROR","answers":["198.51.102.7"],"TTLs":[60.0]}
`
	badSSL = `{"ts":1700000021,"uid":"C2","id.orig_h":"10.0.0.7","id.orig_p":50002,"id.resp_h":"198.51.101.7","id.resp_p":443,"version":"TLSv12","established":true,"ja3":"` + someJA3 + `"}
`
	badFiles = `{"ts":1700000022,"fuid":"F1","uid":"C2","id.orig_h":"10.0.0.7","id.orig_p":50002,"id.resp_h":"198.51.101.7","id.resp_p":443,"source":"HTTP","depth":0,"mime_type":"application/x-dosexec","duration":0.1,"is_orig":false,"seen_bytes":4000,"md5":"` + someMD5 + `"}
`
	someMD5 = "0123456789abcdef0123456789abcdef"
)

// badLogs writes the logs with listed things into a directory.
func badLogs(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "logs")
	for name, text := range map[string]string{"conn.log": badConn, "dns.log": badDNS, "ssl.log": badSSL, "files.log": badFiles} {
		writeFile(t, filepath.Join(dir, name), text)
	}
	return dir
}

// badMachine is a machine that knows what is bad in badLogs, and where it is.
func badMachine(t *testing.T) *machine {
	t.Helper()
	w := newMachine(t, twoFeeds)
	w.publish("/c2.txt", addressList(20)+"evil.example.net\n")
	w.publish("/names.txt", "198.51.101.7\n"+someJA3+"\n"+someMD5+"\n")
	writeFile(t, filepath.Join(w.local, "own_malicious_iocs.csv"), "evil.example.net,high,seen by us\n")
	w.expect(t, 0, "", nil, "feeds", "update")
	geography(t, filepath.Join(w.dir, "geo"))
	return w
}

// geography writes databases of countries, cities and autonomous systems.
func geography(t testing.TB, dir string) {
	t.Helper()
	database := func(name string, record mmdbtype.Map) {
		tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: name, BuildEpoch: 1700000000, RecordSize: 24})
		must(t, err)
		_, network, err := net.ParseCIDR("198.51.101.0/24")
		must(t, err)
		must(t, tree.Insert(network, record))
		var b bytes.Buffer
		_, err = tree.WriteTo(&b)
		must(t, err)
		writeFile(t, filepath.Join(dir, name+".mmdb"), b.String())
	}
	database("Test-City", mmdbtype.Map{
		"country": mmdbtype.Map{"iso_code": mmdbtype.String("CZ")},
		"city":    mmdbtype.Map{"names": mmdbtype.Map{"en": mmdbtype.String("Prague")}},
	})
	database("Test-ASN", mmdbtype.Map{
		"autonomous_system_number": mmdbtype.Uint32(64500), "autonomous_system_organization": mmdbtype.String("Example Hosting"),
	})
}

// replay runs the program on complete logs on the machine and returns what it
// printed.
func (w *machine) replay(t *testing.T, out string, args ...string) (*outcome, string) {
	t.Helper()
	code, text, stderr := w.slips(t, append([]string{"-o", out}, args...)...)
	if code != 0 || stderr != "" {
		t.Fatalf("slips %s: exit code %d: %s", strings.Join(args, " "), code, stderr)
	}
	return results(t, out), text
}

// ofType returns the first line of a type of evidence about a profile.
func (l lines) ofType(typ, profile string) map[string]any {
	for _, line := range l {
		if v := object(line); v["type"] == typ && v["profile"] == profile {
			return v
		}
	}
	return nil
}

// What is listed is found in each log, and every output says who lists it and
// where it is.
func TestFeedsInOutputs(t *testing.T) {
	t.Parallel()
	w, logs, out := badMachine(t), badLogs(t), filepath.Join(t.TempDir(), "out")
	got, screen := w.replay(t, out, "-f", logs, "-v")
	const victim, visitor = "10.0.0.7", "198.51.101.9"
	for _, c := range []struct {
		typ, profile, role, kind, value, level string
		feeds                                  []any
		place                                  string
	}{
		{"THREAT_INTELLIGENCE_TO_BLACKLISTED_IP", victim, "victim", "ip", "198.51.101.7", "high", []any{"c2list", "names"}, "CZ"},
		{"THREAT_INTELLIGENCE_FROM_BLACKLISTED_IP", visitor, "attacker", "ip", visitor, "high", []any{"c2list"}, "CZ"},
		{"THREAT_INTELLIGENCE_BLACKLISTED_DOMAIN", victim, "victim", "domain", "www.evil.example.net", "high", []any{"c2list", "own_malicious_iocs.csv"}, ""},
		{"MALICIOUS_JA3", victim, "victim", "ip", "198.51.101.7", "medium", []any{"c2list", "names"}, "CZ"},
		{"MALICIOUS_DOWNLOADED_FILE", victim, "victim", "ip", "198.51.101.7", "medium", []any{"c2list", "names"}, "CZ"},
	} {
		e := got.evidence.ofType(c.typ, c.profile)
		if e == nil {
			t.Errorf("no %s about %s: %v", c.typ, c.profile, got.evidence.types(c.profile))
			continue
		}
		who, _ := e[c.role].(map[string]any)
		if who[c.kind] != c.value || !cmp.Equal(who["feeds"], any(c.feeds)) || text(who["country"]) != c.place || e["threat_level"] != c.level {
			t.Errorf("%s: level %v, %s is %v", c.typ, e["threat_level"], c.role, who)
		}
		if c.place != "" && (who["asn"] != 64500.0 || who["as"] != "Example Hosting" || who["city"] != "Prague") {
			t.Errorf("%s: %s is %v", c.typ, c.role, who)
		}
	}
	for typ := range got.evidence.types("10.0.0.9") {
		if strings.HasPrefix(typ, "THREAT_") || strings.HasPrefix(typ, "MALICIOUS_") {
			t.Errorf("%s about a host that met nothing listed", typ)
		}
	}
	if hosts := got.alerts.hosts(); !hosts[victim] || hosts["10.0.0.9"] {
		t.Errorf("alerts on %v", hosts)
	}

	// IDMEFv2: the feeds of a source are its TI, those of a target are in its note.
	x := idmeftest.New()
	var source, target bool
	for _, line := range got.whole(t, "alerts.json") {
		must(t, x.Validate([]byte(line)))
		var m struct{ Source, Target []map[string]any }
		must(t, json.Unmarshal([]byte(line), &m))
		for _, s := range m.Source {
			source = source || s["Location"] == "Prague CZ" && cmp.Equal(s["TI"], any([]any{"c2list"})) && s["IP"] == visitor
		}
		for _, s := range m.Target {
			note := object(text(s["Note"]))
			target = target || s["Location"] == "Prague CZ" && s["IP"] == "198.51.101.7" && cmp.Equal(note["feeds"], any([]any{"c2list", "names"})) &&
				note["as"] == "Example Hosting" && note["first_seen"] != nil
		}
	}
	if !source || !target {
		t.Errorf("alerts.json: the visitor has Location and TI: %v; the server has them in Location and Note: %v", source, target)
	}

	log := strings.Join(got.whole(t, "alerts.log"), "\n")
	for _, want := range []string{"listed by", "c2list", "Prague", "Example Hosting", "AS64500"} {
		if !strings.Contains(log, want) {
			t.Errorf("alerts.log does not say %q:\n%s", want, log)
		}
		if !strings.Contains(screen, want) {
			t.Errorf("the terminal does not say %q:\n%s", want, screen)
		}
	}

	var run struct {
		Feeds struct {
			ID         string
			Indicators map[string]int
			Feeds      []struct {
				Name    string
				Updated time.Time
				Count   int
			}
		}
		Places []struct{ Path, Type string }
	}
	must(t, json.Unmarshal([]byte(readFile(t, filepath.Join(out, "metadata", "run.json"))), &run))
	count := map[string]int{}
	for _, f := range run.Feeds.Feeds {
		count[f.Name] = f.Count
		if f.Updated.IsZero() || f.Updated.After(time.Now().Add(time.Hour)) {
			t.Errorf("run.json: %s is of %v", f.Name, f.Updated)
		}
	}
	if want := map[string]int{"c2list": 21, "names": 5, "own_malicious_iocs.csv": 1}; run.Feeds.ID == "" || run.Feeds.Indicators["ip"] != 20 || !maps.Equal(count, want) {
		t.Errorf("run.json names the snapshot %q with %v of %v, want %v", run.Feeds.ID, run.Feeds.Indicators, count, want)
	}
	if len(run.Places) != 2 {
		t.Errorf("run.json names the databases %v", run.Places)
	}
}

// The same feeds give the same bytes, in any run and on any number of lanes,
// and feeds that are empty or switched off give what no feeds give.
func TestFeedsSameBytes(t *testing.T) {
	t.Parallel()
	w, logs := badMachine(t), badLogs(t)
	run := func(args ...string) map[string]string {
		t.Helper()
		out := filepath.Join(t.TempDir(), "out")
		w.replay(t, out, append([]string{"-f", logs, "-q"}, args...)...)
		return bytesOf(t, out)
	}
	want := run("--lanes", "1")
	if !strings.Contains(want["evidence.jsonl"], "THREAT_INTELLIGENCE_") {
		t.Fatal("no evidence: the test shows nothing")
	}
	for _, lanes := range []string{"1", "3"} {
		for name, text := range run("--lanes", lanes) {
			if text != want[name] {
				t.Errorf("%s lanes: %s differs from that of the first run on one lane", lanes, name)
			}
		}
	}
	for name, text := range run("--set", "feeds.enabled=false", "--set", "feeds.geo="+t.TempDir()) {
		if strings.Contains(text, "THREAT_INTELLIGENCE_") || strings.Contains(text, "MALICIOUS_") || strings.Contains(text, "c2list") || strings.Contains(text, "Prague") {
			t.Errorf("with the feeds switched off, %s names them: %s", name, text)
		}
	}
	off := run("--set", "feeds.enabled=false", "--set", "feeds.geo="+t.TempDir())
	none := filepath.Join(t.TempDir(), "out")
	if code, stderr := runProgram(t, "-f", logs, "-o", none); code != 0 {
		t.Fatal(stderr)
	}
	if d := cmp.Diff(off, bytesOf(t, none)); d != "" {
		t.Errorf("feeds that are off and feeds that never were differ:\n%s", d)
	}
}

// followArgs make a follower look often.
func followArgs(args ...string) []string {
	return append(args, "--set", "follow.poll_interval=10ms", "--set", "profiler.idle_after=200ms", "--set", "profiler.checkpoint_interval=100ms")
}

// visit is a connection of a host with a server, with data both ways.
func visit(second int, uid, src, dst string) string {
	return fmt.Sprintf(`{"ts":%d,"uid":%q,"id.orig_h":%q,"id.orig_p":50000,"id.resp_h":%q,"id.resp_p":443,"proto":"tcp","duration":1.0,`+
		`"orig_bytes":500,"resp_bytes":4000,"conn_state":"SF","orig_pkts":5,"resp_pkts":5}`+"\n", 1700000000+second, uid, src, dst)
}

// has reports whether a file in alerts/ holds a text.
func has(t testing.TB, out, name, text string) func() bool {
	t.Helper()
	return func() bool {
		b, err := os.ReadFile(filepath.Join(out, "alerts", name))
		return err == nil && bytes.Contains(b, []byte(text))
	}
}

// A follower takes up changes of the lists without a restart: those of one's
// own, and what "slips feeds update" has fetched. A list with a fault stays as
// it was before, after a restart too.
func TestFeedsReloadWhileFollowing(t *testing.T) {
	t.Parallel()
	w := newMachine(t, twoFeeds)
	logs, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	conn, own := filepath.Join(logs, "conn.log"), filepath.Join(w.local, "own.txt")
	const before = "198.51.102.1\n"
	writeFile(t, own, before)
	writeFile(t, conn, visit(0, "C1", "10.0.0.7", "198.51.102.7")+visit(1, "C2", "10.0.0.7", "198.51.101.9"))
	f := follow(t, out, followArgs(w.args(logs)...)...)
	wait(t, "the first record", func() bool { return begun(out) })

	w.publish("/c2.txt", addressList(20))
	w.expect(t, 0, "", nil, "feeds", "update", "c2list")
	writeFile(t, own, before+"198.51.102.7\n")
	wait(t, "the list to be read again", func() bool { return strings.Count(readFile(t, filepath.Join(out, "slips.log")), "local list read") > 1 })
	w.expect(t, 0, "", []string{"c2list lists"}, "lookup", "198.51.101.9")
	n, reported := 0, has(t, out, "evidence.jsonl", "198.51.102.7")
	wait(t, "evidence of the list", func() bool { // the new view comes between two records, a moment after the list was read
		n++
		appendFile(t, conn, visit(n*20, fmt.Sprintf("C%d", n*2+1), "10.0.0.7", "198.51.102.7")+visit(n*20+1, fmt.Sprintf("C%d", n*2+2), "10.0.0.7", "198.51.101.9"))
		return reported()
	})
	wait(t, "evidence of the feed", has(t, out, "evidence.jsonl", `"feeds":["c2list"]`))
	f.stop(t)

	writeFile(t, own, "198.51.102.8\n? ?\n? ?\n")
	f = follow(t, out, followArgs(w.args(logs)...)...)
	wait(t, "the fault to be told", logged(t, out, "local list has a fault"))
	appendFile(t, conn, visit(2000, "L1", "10.0.0.8", "198.51.102.7")+visit(2001, "L2", "10.0.0.8", "198.51.102.8")+visit(2100, "L3", "10.0.0.8", "198.51.102.9"))
	wait(t, "evidence of the list before the fault", has(t, out, "evidence.jsonl", `"uids":["L1"]`))
	f.stop(t)
	got := results(t, out)
	for _, line := range got.evidence {
		if strings.Contains(line, "198.51.102.8") && strings.Contains(line, "BLACKLISTED") {
			t.Errorf("evidence of a list with a fault: %s", line)
		}
	}
	if want := int64(2 + 2*n + 3); got.summary.Records != want {
		t.Errorf("%d records, want %d", got.summary.Records, want)
	}
}

// Feeds and databases change nothing about restarts: whenever a follower is
// killed, what it reports in the end is what a replay reports.
func TestKillWithFeeds(t *testing.T) {
	t.Parallel()
	w := badMachine(t)
	var conn, dns strings.Builder
	for i := range 200 {
		host := fmt.Sprintf("10.0.1.%d", i%50)
		conn.WriteString(visit(i*10+1, fmt.Sprintf("C%d", i), host, fmt.Sprintf("198.51.101.%d", i%40)))
		fmt.Fprintf(&dns, `{"ts":%d,"uid":"D%d","id.orig_h":%q,"id.orig_p":50001,"id.resp_h":"10.0.0.53","id.resp_p":53,"proto":"udp","query":"h%d.evil.example.net",`+
			`"qtype_name":"A","rcode_name":"NOERROR","answers":["198.51.101.%d"],"TTLs":[60.0]}`+"\n", 1700000000+i*10, i, host, i%3, i%40)
	}
	dir := filepath.Join(t.TempDir(), "logs")
	writeFile(t, filepath.Join(dir, "conn.log"), conn.String())
	writeFile(t, filepath.Join(dir, "dns.log"), dns.String())
	before := w.evidenceOf(t, dir)
	if before.types("")["THREAT_INTELLIGENCE_TO_BLACKLISTED_IP"] < 20 || before.types("")["THREAT_INTELLIGENCE_BLACKLISTED_DOMAIN"] < 20 {
		t.Fatalf("too little evidence to show anything: %v", before.types(""))
	}
	disturb(t, dir, style{}, violence{kills: 4, soon: true}, seedOf(t.Name()), w.args()...)
}

// evidenceOf returns the evidence of a replay on the machine.
func (w *machine) evidenceOf(t *testing.T, args ...string) lines {
	t.Helper()
	return replayed(t, args[0], w.args(args[1:]...)...).evidence
}

// A follower that fetches the feeds itself is not disturbed by a server that is
// gone, and does without the network when nothing is due.
func TestFollowerFetchesFeeds(t *testing.T) {
	t.Parallel()
	w := newMachine(t, twoFeeds)
	w.publish("/c2.txt", addressList(60))
	logs, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	conn := filepath.Join(logs, "conn.log")
	writeFile(t, conn, visit(0, "C1", "10.0.0.7", "192.0.4.1"))
	args := followArgs(w.args(logs, "--set", "feeds.refresh=true")...)
	p := launch(t, out, append([]string{"--follow"}, args...)...)
	wait(t, "the other feed to be found missing", func() bool {
		text, err := os.ReadFile(filepath.Join(out, "slips.log"))
		return err == nil && bytes.Contains(text, []byte("a feed cannot be fetched"))
	})
	w.expect(t, 0, "", []string{"c2list"}, "lookup", "198.51.101.7")
	wait(t, "the first record", func() bool { return begun(out) })
	appendFile(t, conn, visit(10, "C2", "10.0.0.7", "198.51.101.7")+visit(100, "C3", "10.0.0.7", "192.0.4.1"))
	wait(t, "evidence of the feed", has(t, out, "evidence.jsonl", `"uids":["C2"]`))
	if code := p.end(t, syscall.SIGKILL); code > 0 {
		t.Fatal(p.text.String())
	}
	p = launch(t, out, append([]string{"--follow"}, args...)...)
	p.ready(t)
	appendFile(t, conn, visit(200, "C4", "10.0.0.8", "198.51.101.7")+visit(300, "C5", "10.0.0.8", "192.0.4.1"))
	wait(t, "evidence after the restart", has(t, out, "evidence.jsonl", `"uids":["C4"]`))
	p.stop(t)
	results(t, out)
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := w.asked["/c2.txt"]; n != 1 {
		t.Errorf("the feed was fetched %d times, and is due once an hour", n)
	}
}
