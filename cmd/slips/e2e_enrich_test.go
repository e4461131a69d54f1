//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/feeds/online"
)

// internet is a server that is IANA, a registry, hashlookup and URLhaus at once.
type internet struct {
	url string

	mu    sync.Mutex
	asked []string // "service subject", in the order of the requests
	down  bool     // the registry and hashlookup answer with 500
}

func newInternet(t testing.TB) *internet {
	t.Helper()
	n := &internet{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /iana/dns.json", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"services":[[["net","org","com"],[%q]]]}`, n.url+"/registry/")
	})
	mux.HandleFunc("GET /iana/ipv4.json", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"services":[[["198.0.0.0/8"],[%q]]]}`, n.url+"/registry/")
	})
	mux.HandleFunc("GET /registry/ip/{address}", func(w http.ResponseWriter, r *http.Request) {
		if n.ask("rdap "+r.PathValue("address"), w) {
			_, _ = fmt.Fprint(w, `{"objectClassName":"ip network","name":"EXAMPLE-NET","country":"CZ"}`)
		}
	})
	mux.HandleFunc("GET /registry/domain/{name}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		if !n.ask("rdap "+name, w) {
			return
		}
		registered := "2015-01-01T00:00:00Z"
		if name == "example.net" { // four days before the traffic
			registered = "2023-11-10T00:00:00Z"
		}
		w.Header().Set("Content-Type", "application/rdap+json")
		_, _ = fmt.Fprintf(w, `{"objectClassName":"domain","ldhName":%q,"events":[{"eventAction":"registration","eventDate":%q}]}`, name, registered)
	})
	mux.HandleFunc("GET /hashes/lookup/md5/{md5}", func(w http.ResponseWriter, r *http.Request) {
		if md5 := r.PathValue("md5"); n.ask("hashlookup "+md5, w) && md5 == someMD5 {
			_, _ = fmt.Fprint(w, `{"KnownMalicious":"malshare.com vx-underground","hashlookup:trust":0}`)
		}
	})
	mux.HandleFunc("POST /urlhaus/{what}/", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Auth-Key") != "0123456789secret" {
			t.Errorf("the key is %q", r.Header.Get("Auth-Key"))
		}
		subject := r.PostFormValue("url") + r.PostFormValue("md5_hash") + r.PostFormValue("host")
		if !n.ask("urlhaus "+subject, w) {
			return
		}
		if strings.HasSuffix(subject, "/bins/x.exe") {
			_, _ = fmt.Fprint(w, `{"query_status":"ok","url_status":"online","threat":"malware_download"}`)
			return
		}
		_, _ = fmt.Fprint(w, `{"query_status":"no_results"}`)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	n.url = server.URL
	return n
}

// ask notes a request, and reports whether it is to be answered.
func (n *internet) ask(what string, w http.ResponseWriter) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, what)
	if n.down {
		http.Error(w, "out of order", http.StatusInternalServerError)
	}
	return !n.down
}

// requests returns what was asked, in order.
func (n *internet) requests() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := slices.Clone(n.asked)
	slices.Sort(list)
	return list
}

func (n *internet) fail(yes bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = yes
}

// settings switch the three services on.
func (n *internet) settings(t testing.TB) []string {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	writeFile(t, key, "0123456789secret\n")
	var args []string
	for _, s := range []string{
		"enrichment.rdap.enabled=true", "enrichment.rdap.url=" + n.url + "/iana/", "enrichment.rdap.whois=", "enrichment.rdap.rate_per_minute=60000",
		"enrichment.hashlookup.enabled=true", "enrichment.hashlookup.url=" + n.url + "/hashes/", "enrichment.hashlookup.rate_per_minute=60000",
		"enrichment.urlhaus.enabled=true", "enrichment.urlhaus.url=" + n.url + "/urlhaus/", "enrichment.urlhaus.key_file=" + key,
		"enrichment.urlhaus.rate_per_minute=60000", "enrichment.never=example.com", "feeds.directory=" + filepath.Join(t.TempDir(), "feeds"),
	} {
		args = append(args, "--set", s)
	}
	return args
}

// What a host does that makes questions: a young and an old name, one that
// nobody is to be told of, two of the own network, a program, and a URL.
func askingLogs(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "logs")
	var dns strings.Builder
	for i, name := range []string{"www.example.net", "www.example.org", "a.secret.example.com", "printer.local", "dc01"} {
		fmt.Fprintf(&dns, `{"ts":%d,"uid":"D%d","id.orig_h":"10.0.0.7","id.orig_p":50001,"id.resp_h":"10.0.0.53","id.resp_p":53,"proto":"udp","query":%q,`+
			`"qtype_name":"A","rcode_name":"NOERROR","answers":["198.51.101.%d"],"TTLs":[60.0]}`+"\n", 1700000000+i*5, i, name, i+1)
	}
	writeFile(t, filepath.Join(dir, "dns.log"), dns.String())
	writeFile(t, filepath.Join(dir, "ssl.log"), `{"ts":1700000001,"uid":"S1","id.orig_h":"10.0.0.7","id.orig_p":50001,"id.resp_h":"198.51.101.1","id.resp_p":443,`+
		`"version":"TLSv13","established":true,"server_name":"www.example.net"}`+"\n")
	writeFile(t, filepath.Join(dir, "http.log"), `{"ts":1700000030,"uid":"H1","id.orig_h":"10.0.0.7","id.orig_p":50003,"id.resp_h":"198.51.101.2","id.resp_p":80,`+
		`"method":"GET","host":"www.example.org","uri":"/bins/x.exe?user=me","status_code":200,"resp_mime_types":["application/x-dosexec"]}`+"\n")
	writeFile(t, filepath.Join(dir, "files.log"), strings.ReplaceAll(badFiles, `"C2"`, `"H1"`))
	return dir
}

// asked is what askingLogs has services be asked: about what is new, and about
// the server of the program, which stands in evidence. A query string, the
// never list and the own network are held back.
func asked() []string {
	return []string{
		"hashlookup " + someMD5, "rdap 198.51.101.2", "rdap example.net", "rdap example.org", "urlhaus " + someMD5, "urlhaus 198.51.101.2",
		"urlhaus http://www.example.org/bins/x.exe",
	}
}

// rested are the types of evidence that rest on the answers to asked.
func rested() []string {
	return []string{"MALICIOUS_DOWNLOADED_FILE", "THREAT_INTELLIGENCE_MALICIOUS_URL", "YOUNG_DOMAIN"}
}

func (o *outcome) tells() []string {
	var list []string
	for typ, n := range o.evidence.types("10.0.0.7") {
		if n > 0 && slices.Contains(rested(), typ) {
			list = append(list, typ)
		}
	}
	slices.Sort(list)
	return list
}

// A replay writes down what it would ask, slips enrich asks, and a replay with
// the answers reports what they say.
func TestEnrich(t *testing.T) {
	t.Parallel()
	n, logs := newInternet(t), askingLogs(t)
	set := n.settings(t)
	first := replayed(t, logs, set...)
	if got := n.requests(); len(got) > 0 {
		t.Fatalf("a replay has asked %v", got)
	}
	if got := first.tells(); len(got) > 0 {
		t.Fatalf("evidence without answers: %v", got)
	}
	questions := readFile(t, filepath.Join(first.dir, "enrichment", "questions.jsonl"))
	if !strings.Contains(questions, someMD5) || !strings.Contains(questions, `"uid":"D0"`) {
		t.Fatalf("questions.jsonl: %s", questions)
	}

	enrich := func(want int, stderr string) string {
		t.Helper()
		code, out, err := runMain(t, nil, append([]string{"enrich", first.dir}, set...)...)
		if code != want || !strings.Contains(err, stderr) || stderr == "" && err != "" {
			t.Errorf("slips enrich: exit code %d, want %d: %s%s", code, want, out, err)
		}
		return out
	}
	out := enrich(0, "")
	if d := cmp.Diff(asked(), n.requests()); d != "" {
		t.Errorf("what was asked (-want +got):\n%s", d)
	}
	for service, want := range map[string][]string{"rdap": {"on", "3", "3", "0", "0"}, "hashlookup": {"on", "1", "1", "0", "0"}, "urlhaus": {"on", "3", "1", "2", "0"}} {
		if row := rowOf(t, out, service); !slices.Equal(row[1:6], want) {
			t.Errorf("%s: %q, want %q", service, row, want)
		}
	}
	if !strings.Contains(out, "not sent: 1, listed in never") {
		t.Errorf("what was held back is not told:\n%s", out)
	}
	answers := filepath.Join(first.dir, "enrichment", "lookup.log")
	lines := strings.Count(readFile(t, answers), "\n")
	if lines != len(asked()) {
		t.Errorf("lookup.log has %d lines, want one for each request:\n%s", lines, readFile(t, answers))
	}
	second := replayed(t, logs, answers)
	if d := cmp.Diff(rested(), second.tells()); d != "" {
		t.Errorf("evidence with the answers (-want +got):\n%s\n%v", d, second.evidence)
	}

	// A second time nobody is asked, and the answers are those that are there.
	enrich(0, "")
	if d := cmp.Diff(asked(), n.requests()); d != "" {
		t.Errorf("what was asked after the second time (-want +got):\n%s", d)
	}
	if got := strings.Count(readFile(t, answers), "\n"); got != lines {
		t.Errorf("lookup.log has %d lines after the second time, and had %d", got, lines)
	}
	for _, args := range [][]string{nil, {"--lanes", "1"}, {"--lanes", "3"}} {
		again := replayed(t, logs, append([]string{answers}, args...)...)
		if d := cmp.Diff(bytesOf(t, second.dir), bytesOf(t, again.dir)); d != "" {
			t.Errorf("%v: the same answers give other results:\n%s", args, d)
		}
	}
}

// Mistakes with slips enrich, and services that do not answer.
func TestEnrichMistakes(t *testing.T) {
	t.Parallel()
	n, logs := newInternet(t), askingLogs(t)
	set := n.settings(t)
	first := replayed(t, logs, set...)
	plain := replayed(t, logs)
	damaged := filepath.Join(t.TempDir(), "damaged")
	questions := readFile(t, filepath.Join(first.dir, "enrichment", "questions.jsonl"))
	writeFile(t, filepath.Join(damaged, "enrichment", "questions.jsonl"), questions+`{"of":"md5","subj`)
	odd := filepath.Join(t.TempDir(), "odd")
	writeFile(t, filepath.Join(odd, "enrichment", "questions.jsonl"), `{"of":"thing"}`+"\n")
	for _, c := range []struct {
		what   string
		code   int
		stderr string
		args   []string
	}{
		{"no service", exitUsage, "no online service is switched on", []string{first.dir}},
		{"no questions", exitInput, "no questions", append([]string{plain.dir}, set...)},
		{"no output", exitInput, "no questions", append([]string{filepath.Join(odd, "none")}, set...)},
		{"damaged", exitInput, "questions.jsonl: question", append([]string{damaged}, set...)},
		{"of no kind", exitInput, `question 1: of is "thing"`, append([]string{odd}, set...)},
		{"no key", exitUsage, "enrichment: urlhaus: ", append([]string{first.dir}, append(set, "--set", "enrichment.urlhaus.key_file=")...)},
		{"a bad setting", exitUsage, "enrichment.rdap.rate_per_minute", append([]string{first.dir}, append(set, "--set", "enrichment.rdap.rate_per_minute=0")...)},
		{"no directory", exitUsage, "want the output directory", set},
	} {
		t.Run(c.what, func(t *testing.T) {
			code, out, stderr := runMain(t, nil, append([]string{"enrich"}, c.args...)...)
			if code != c.code || !strings.Contains(stderr, c.stderr) {
				t.Errorf("exit code %d, want %d, and standard error lacks %q: %s%s", code, c.code, c.stderr, out, stderr)
			}
		})
	}
	if got := n.requests(); len(got) > 0 {
		t.Fatalf("mistakes have led to requests: %v", got)
	}

	// What fails is told, stands in the log, and is asked again the next time.
	n.fail(true)
	code, out, stderr := runMain(t, nil, append([]string{"enrich", first.dir}, set...)...)
	if code != exitInput || !strings.Contains(stderr, "7 questions have no answer") {
		t.Errorf("exit code %d, want %d: %s%s", code, exitInput, out, stderr)
	}
	n.fail(false)
	if code, out, stderr := runMain(t, nil, append([]string{"enrich", first.dir}, set...)...); code != 0 {
		t.Errorf("exit code %d: %s%s", code, out, stderr)
	}
	answers := filepath.Join(first.dir, "enrichment", "lookup.log")
	if got := replayed(t, logs, answers).tells(); !slices.Equal(got, rested()) {
		t.Errorf("evidence %v, want %v; lookup.log:\n%s", got, rested(), readFile(t, answers))
	}
}

// A follower asks by itself, and the answers come back as evidence. Stopped and
// started again it asks nobody twice and reports nothing twice.
func TestFollowerAsks(t *testing.T) {
	t.Parallel()
	n, from := newInternet(t), askingLogs(t)
	logs, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	for _, name := range []string{"dns.log", "ssl.log", "http.log", "files.log"} {
		writeFile(t, filepath.Join(logs, name), readFile(t, filepath.Join(from, name)))
	}
	args := followArgs(append([]string{logs}, n.settings(t)...)...)
	f := follow(t, out, args...)
	answers := filepath.Join(out, "enrichment", "lookup.log")
	answered := func(subject string) bool {
		text, err := os.ReadFile(answers)
		return err == nil && strings.Contains(string(text), `"subject":"`+subject)
	}
	for _, q := range asked() { // the answers come before the traffic goes on
		_, subject, _ := strings.Cut(q, " ")
		wait(t, "the answer to "+q, func() bool { return answered(strings.TrimPrefix(subject, "http://")) })
	}
	later := filepath.Join(logs, "conn.log")
	writeFile(t, later, visit(100, "C9", "10.0.0.9", "198.51.102.7"))
	for _, typ := range rested() {
		wait(t, typ, has(t, out, "evidence.jsonl", `"type":"`+typ+`"`))
	}
	f.stop(t)
	requests := n.requests()
	for _, want := range asked() {
		if !slices.Contains(requests, want) {
			t.Errorf("nobody was asked %q: %q", want, requests)
		}
	}
	for _, r := range requests { // what evidence names is asked about too
		for _, never := range []string{"example.com", "local", "dc01", "user=me", " 10."} {
			if strings.Contains(r, never) {
				t.Errorf("%q was sent", r)
			}
		}
	}
	before := results(t, out)
	if st, err := os.Stat(answers); err != nil || st.Mode().Perm()&0o077 != 0 {
		t.Errorf("lookup.log names what hosts met, and has mode %v: %v", st.Mode(), err)
	}
	if !strings.Contains(readFile(t, filepath.Join(out, "summary.json")), `"service": "rdap"`) {
		t.Error("summary.json does not say how the services did")
	}
	if strings.Contains(readFile(t, filepath.Join(out, "slips.log")), "0123456789secret") || strings.Contains(readFile(t, filepath.Join(out, "metadata", "slips.yaml")), "0123456789secret") {
		t.Error("the key of a service stands in the output")
	}

	f = follow(t, out, args...)
	wait(t, "the follower to go on", logged(t, out, "continuing"))
	appendFile(t, filepath.Join(logs, "ssl.log"), `{"ts":1700000200,"uid":"S2","id.orig_h":"10.0.0.8","id.orig_p":50001,"id.resp_h":"198.51.101.1","id.resp_p":443,`+
		`"version":"TLSv13","established":true,"server_name":"www.example.net"}`+"\n")
	appendFile(t, later, visit(300, "C9", "10.0.0.9", "198.51.102.7"))
	wait(t, "the other host to be told of", has(t, out, "evidence.jsonl", `"profile":"10.0.0.8"`))
	f.stop(t)
	// What evidence names is asked about too, and its answer may be under way when
	// the follower stops, so only what is known to be answered must not be asked again.
	for _, q := range asked() {
		times := 0
		for _, r := range n.requests() {
			if r == q {
				times++
			}
		}
		if times != 1 {
			t.Errorf("%q was answered before the restart, and was asked %d times", q, times)
		}
	}
	got := results(t, out)
	if a, b := before.evidence.types("10.0.0.7"), got.evidence.types("10.0.0.7"); !cmp.Equal(a, b) {
		t.Errorf("evidence about the first host was %v and is %v", a, b)
	}
	if got.evidence.ofType("YOUNG_DOMAIN", "10.0.0.8") == nil {
		t.Errorf("the answer that was there is not used for another host: %v", got.evidence.types("10.0.0.8"))
	}

	// Given its log of answers, a replay finds the same and asks nobody.
	again := replayed(t, logs, filepath.Join(out, "enrichment", "lookup.log"))
	if d := cmp.Diff(got.evidence.types(""), again.evidence.types("")); d != "" {
		t.Errorf("a replay with the answers (-follower +replay):\n%s", d)
	}

	// One that starts afresh does not take the answers of the run before for its own.
	must(t, os.Remove(later))
	f = follow(t, filepath.Join(out), append(args, "--overwrite", "--set", "enrichment.rdap.enabled=false")...)
	wait(t, "the follower to start afresh", func() bool { return begun(out) && !logged(t, out, "continuing")() })
	f.stop(t)
	if text := readFile(t, filepath.Join(out, "enrichment", "lookup.log")); strings.Contains(text, `"rdap"`) {
		t.Errorf("lookup.log holds answers of the run before: %s", text)
	}
}

// Killed again and again, a follower that asks ends with what a replay with its
// answers finds.
func TestKillWhileAsking(t *testing.T) {
	t.Parallel()
	n, from := newInternet(t), askingLogs(t)
	writeFile(t, filepath.Join(from, "conn.log"), visit(2, "C0", "10.0.0.9", "198.51.102.7")+visit(900, "C1", "10.0.0.9", "198.51.102.7"))
	logs, out := filepath.Join(t.TempDir(), "logs"), filepath.Join(t.TempDir(), "out")
	w := newWriter(t, logs, loadLogs(t, from), style{}, seedOf(t.Name()))
	args := followArgs(append([]string{"--follow", logs}, n.settings(t)...)...)
	p := launch(t, out, args...)
	for more := true; more; {
		p.ready(t)
		for range 3 {
			more = w.step()
			w.pause(50 * time.Millisecond)
		}
		if code := p.end(t, syscall.SIGKILL); code > 0 {
			t.Fatalf("exit code %d: %s", code, p.text.String())
		}
		p = launch(t, out, args...)
	}
	for _, typ := range rested() {
		wait(t, typ, has(t, out, "evidence.jsonl", `"type":"`+typ+`"`))
	}
	p.stop(t)
	got := results(t, out)
	again := replayed(t, logs, filepath.Join(out, "enrichment", "lookup.log"))
	sameSet(t, "evidence", again.evidence, got.evidence)
}

// Services that do not answer at all do not hold up slips enrich for hours.
func TestEnrichGivesUp(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	n.fail(true)
	c := online.DefaultConfig()
	c.Hashlookup.Enabled, c.Hashlookup.URL, c.Hashlookup.RatePerMinute = true, n.url+"/hashes/", 60000
	a, err := online.New(online.Options{Config: c, Recorder: &newAnswers{to: online.NewWriter(io.Discard), known: map[answerKey]bool{}}})
	must(t, err)
	var questions []online.Question
	for i := range 50 {
		questions = append(questions, online.Question{Why: online.File, Of: intel.MD5, Subject: fmt.Sprintf("%032x", i), Src: netip.MustParseAddr("10.0.0.7")})
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	err = putQuestions(ctx, a, questions, 50*time.Millisecond)
	stop()
	must(t, <-done)
	if err == nil || !strings.Contains(err.Error(), "45 questions wait in vain (hashlookup: ") {
		t.Errorf("error %v", err)
	}
}

// The file of questions is bounded, has each once, and what is left out is counted.
func TestQuestionFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "questions.jsonl")
	q, err := newQuestionFile(path)
	must(t, err)
	src := netip.MustParseAddr("10.0.0.7")
	for i := range maxQuestions + 3 {
		for range 1 + i%2 {
			q.add(online.Question{Why: online.File, Of: intel.MD5, Subject: fmt.Sprintf("%032x", i), Src: src, Time: int64(i)})
		}
	}
	must(t, q.close())
	list, err := readQuestions(path)
	must(t, err)
	// Of those beyond the bound nothing is remembered, so repetitions count.
	if len(list) != maxQuestions || q.dropped != 4 || list[7].Subject != fmt.Sprintf("%032x", 7) || list[7].Src != src || list[7].Time != 7 {
		t.Errorf("%d questions, %d dropped, the eighth is %+v", len(list), q.dropped, list[7])
	}
}
