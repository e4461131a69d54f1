package online

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/parsers/flow"
)

// testKey is as long as VirusTotal wants it.
const testKey = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// keyFile writes lines into a file and returns its path.
func keyFile(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// configured returns the settings of all services with keys, pointed at one
// local server.
func configured(t *testing.T, base string) *Options {
	t.Helper()
	c := DefaultConfig()
	for _, s := range []*Service{&c.VirusTotal, &c.PassiveDNS, &c.URLhaus, &c.Hashlookup, &c.AbuseIPDB, &c.GreyNoise} {
		s.URL, s.Enabled = base, true
		if s != &c.Hashlookup {
			s.KeyFile = keyFile(t, testKey)
		}
	}
	c.PassiveDNS.KeyFile = keyFile(t, "me@example.org", testKey)
	c.RDAP.URL = base
	return &Options{Config: c, Now: time.Now, Log: slog.New(slog.DiscardHandler), dial: new(net.Dialer).DialContext}
}

// builders make the services by name.
func builders() map[string]func(*Options) (service, error) {
	m := make(map[string]func(*Options) (service, error))
	for _, s := range specs() {
		m[s.name] = s.build
	}
	return m
}

// built makes one service that ends with the test.
func built(t *testing.T, name string, o *Options) service {
	t.Helper()
	s, err := builders()[name](o)
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := s.(interface{ close() }); ok {
		t.Cleanup(c.close)
	}
	return s
}

// What each service is sent, and what is made of what it says.
func TestServices(t *testing.T) {
	const vt = `{"data":{"type":"x","attributes":{"last_analysis_stats":{"malicious":5,"suspicious":1,"undetected":20,"harmless":64,"timeout":0},` +
		`"as_owner":"Example Net","asn":4200000001,"country":"CZ","tags":["tor"],"popular_threat_classification":{"suggested_threat_label":"trojan.x"},"creation_date":1600000000}}}`
	vtPart := flow.LookupPart{
		Found: flow.True, Malicious: 6, Total: 90, Score: 6.0 / 90, Verdict: "trojan.x", Tags: []string{"tor"}, ASN: 4200000001,
		ASOrg: "Example Net", Country: "CZ",
	}
	with := func(p flow.LookupPart, change func(*flow.LookupPart)) flow.LookupPart {
		change(&p)
		return p
	}
	const page = "http://example.com/a"
	for _, c := range []struct {
		name, service string
		about         subject
		status        int
		reply         string
		request       string // "method path?query"
		form          url.Values
		header        string // "Name: value"
		want          flow.LookupPart
		err           string
	}{
		{
			"address", "virustotal", about(intel.Address, publicV6), 200, vt, "GET /ip_addresses/2001:4860:4860::8888", nil, "X-Apikey: " + testKey,
			with(vtPart, func(p *flow.LookupPart) {
				p.Link = "https://www.virustotal.com/gui/ip-address/2001:4860:4860::8888"
			}), "",
		},
		{
			"domain", "virustotal", about(intel.Domain, publicName), 200, vt, "GET /domains/" + publicName, nil, "",
			with(vtPart, func(p *flow.LookupPart) {
				p.Link, p.Registered = "https://www.virustotal.com/gui/domain/"+publicName, 1600000000e9
			}), "",
		},
		{
			"url", "virustotal", about(intel.URL, page), 200, vt, "GET /urls/" + base64.RawURLEncoding.EncodeToString([]byte(page)), nil, "",
			vtPart, "",
		},
		{"file", "virustotal", about(intel.MD5, someMD5), 404, `{"error":{"code":"NotFoundError"}}`, "GET /files/" + someMD5, nil, "", unknown(), ""},
		{"nothing known of it", "virustotal", about(intel.Address, publicV4), 200, `{"data":{"attributes":{}}}`, "", nil, "", flow.LookupPart{
			Found: flow.True, Link: "https://www.virustotal.com/gui/ip-address/8.8.8.8",
		}, ""},

		{
			"names", "pdns", about(intel.Address, publicV4), 200,
			`{"totalRecords":4,"results":[{"resolve":"old.example.com","lastSeen":"2020-01-01 00:00:00"},{"resolve":"New.example.com","lastSeen":"2024-01-01 00:00:00"},{"resolve":"8.8.8.8","lastSeen":"2025-01-01 00:00:00"},{"resolve":"new.example.com","lastSeen":"2023-01-01 00:00:00"}]}`,
			"GET /dns/passive?query=8.8.8.8", nil, "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("me@example.org:"+testKey)),
			flow.LookupPart{Found: flow.True, Names: []string{"new.example.com", "old.example.com"}},
			"",
		},
		{"no names", "pdns", about(intel.Address, publicV4), 200, `{"results":[]}`, "", nil, "", unknown(), ""},

		{
			"url", "urlhaus", about(intel.URL, page), 200,
			`{"query_status":"ok","urlhaus_reference":"https://urlhaus.abuse.ch/url/1/","url_status":"online","threat":"malware_download","tags":["emotet","exe"],"payloads":[{"signature":"Heodo","virustotal":{"result":"15 / 60","percent":"25.00"}}]}`,
			"POST /url/",
			url.Values{"url": {page}},
			"Auth-Key: " + testKey,
			flow.LookupPart{
				Found: flow.True, Verdict: "malware_download, online, Heodo", Tags: []string{"emotet", "exe"}, Malicious: 15, Total: 60,
				Score: 0.25, Link: "https://urlhaus.abuse.ch/url/1/",
			},
			"",
		},
		{"tags and payloads are null", "urlhaus", about(intel.URL, page), 200, `{"query_status":"ok","threat":"malware_download","tags":null,"payloads":null}`, "", nil, "", flow.LookupPart{
			Found: flow.True, Verdict: "malware_download",
		}, ""},
		{
			"host", "urlhaus", about(intel.Domain, publicName), 200,
			`{"query_status":"ok","urlhaus_reference":"https://urlhaus.abuse.ch/host/x/","url_count":"7","blacklists":{"surbl":"listed","spamhaus_dbl":"not listed"},"urls":[{"tags":["exe"]},{"tags":null},{"tags":["exe","elf"]}]}`,
			"POST /host/",
			url.Values{"host": {publicName}},
			"",
			flow.LookupPart{
				Found: flow.True, Verdict: "7 URLs", Tags: []string{"exe", "elf"}, Lists: []string{"surbl"}, Malicious: 1, Total: 2,
				Link: "https://urlhaus.abuse.ch/host/x/",
			},
			"",
		},
		{
			"payload", "urlhaus", about(intel.MD5, someMD5), 200, `{"query_status":"ok","file_type":"exe","signature":null,"virustotal":{"result":"20 / 60","percent":33.33}}`,
			"POST /payload/",
			url.Values{"md5_hash": {someMD5}},
			"",
			flow.LookupPart{Found: flow.True, Verdict: "exe", Malicious: 20, Total: 60, Score: 0.3333},
			"",
		},
		{"unknown", "urlhaus", about(intel.URL, page), 200, `{"query_status":"no_results"}`, "", nil, "", unknown(), ""},
		{"wrong key", "urlhaus", about(intel.URL, page), 200, `{"query_status":"unknown_auth_key"}`, "", nil, "", flow.LookupPart{}, "it does not know the key"},
		{"other status", "urlhaus", about(intel.URL, page), 200, `{"query_status":"http_post_expected"}`, "", nil, "", flow.LookupPart{}, `it answered with the status "http_post_expected"`},

		{
			"bad file", "hashlookup", about(intel.MD5, someMD5), 200, `{"KnownMalicious":"malshare.com vx-underground","hashlookup:trust":30,"FileName":"x","source":"s"}`,
			"GET /lookup/md5/" + someMD5, nil, "",
			flow.LookupPart{
				Found: flow.True, Verdict: "known malicious", Malicious: 1, Total: 1, Score: 0.7, Lists: []string{"malshare.com", "vx-underground"},
			},
			"",
		},
		{"bad file without trust", "hashlookup", about(intel.MD5, someMD5), 200, `{"KnownMalicious":["a"]}`, "", nil, "", flow.LookupPart{
			Found: flow.True, Verdict: "known malicious", Malicious: 1, Total: 1, Score: 1, Lists: []string{"a"},
		}, ""},
		{"good file", "hashlookup", about(intel.MD5, someMD5), 200, `{"source":"NSRL","hashlookup:trust":60}`, "", nil, "", flow.LookupPart{
			Found: flow.True, Verdict: "known, NSRL", Total: 1,
		}, ""},
		{"unknown file", "hashlookup", about(intel.MD5, someMD5), 404, `{"message":"Non existing MD5"}`, "", nil, "", unknown(), ""},
		{"not a hash", "hashlookup", about(intel.MD5, someMD5), 400, `{"message":"MD5 is not in hex format"}`, "", nil, "", flow.LookupPart{}, "it answered 400 Bad Request"},

		{
			"reported", "abuseipdb", about(intel.Address, publicV4), 200,
			`{"data":{"ipAddress":"8.8.8.8","isPublic":true,"isWhitelisted":null,"abuseConfidenceScore":85,"countryCode":"us","usageType":"Data Center","isp":"Example","domain":"example.com","hostnames":["a.example.com"],"isTor":true,"totalReports":12,"numDistinctUsers":4}}`,
			"GET /check?ipAddress=8.8.8.8&maxAgeInDays=90", nil, "Key: " + testKey,
			flow.LookupPart{
				Found: flow.True, Score: 0.85, Verdict: "12 reports by 4 users in 90 days", Country: "US", ASOrg: "Example", Names: []string{"a.example.com"},
				Tags: []string{"Data Center", "tor"}, Link: "https://www.abuseipdb.com/check/8.8.8.8",
			},
			"",
		},
		{"never reported", "abuseipdb", about(intel.Address, publicV4), 200, `{"data":{"abuseConfidenceScore":0,"totalReports":0}}`, "", nil, "", flow.LookupPart{
			Found: flow.False, Link: "https://www.abuseipdb.com/check/8.8.8.8",
		}, ""},
		{"no data", "abuseipdb", about(intel.Address, publicV4), 200, `{"errors":[]}`, "", nil, "", flow.LookupPart{}, "the answer has no data"},

		{
			"scanner", "greynoise", about(intel.Address, publicV4), 200,
			`{"ip":"8.8.8.8","noise":true,"riot":false,"classification":"malicious","name":"unknown","link":"https://viz.greynoise.io/ip/8.8.8.8","message":"Success"}`,
			"GET /community/8.8.8.8", nil, "Key: " + testKey,
			flow.LookupPart{
				Found: flow.True, Verdict: "malicious", Malicious: 1, Total: 1, Score: 1, Tags: []string{"noise"}, Link: "https://viz.greynoise.io/ip/8.8.8.8",
			},
			"",
		},
		{"known good", "greynoise", about(intel.Address, publicV4), 200, `{"noise":false,"riot":true,"classification":"benign","name":"Google Public DNS"}`, "", nil, "", flow.LookupPart{
			Found: flow.True, Verdict: "benign", Total: 1, Tags: []string{"riot"}, ASOrg: "Google Public DNS",
		}, ""},
		{"not seen", "greynoise", about(intel.Address, publicV4), 404, `{"noise":false,"riot":false,"message":"IP not observed"}`, "", nil, "", unknown(), ""},
	} {
		t.Run(c.service+" "+c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if got := r.Method + " " + r.URL.String(); c.request != "" && got != c.request {
					t.Errorf("request %q, want %q", got, c.request)
				}
				if r.ParseForm(); c.form != nil && cmp.Diff(c.form, r.PostForm) != "" {
					t.Errorf("form %v, want %v", r.PostForm, c.form)
				}
				if k, v, ok := strings.Cut(c.header, ": "); ok && r.Header.Get(k) != v {
					t.Errorf("header %s: %q, want %q", k, r.Header.Get(k), v)
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.status)
				io.WriteString(w, c.reply)
			}))
			defer server.Close()
			got, err := built(t, c.service, configured(t, server.URL)).ask(t.Context(), c.about)
			if (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
				t.Fatalf("error %v, want %q", err, c.err)
			}
			if d := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

// errKind says what the worker will make of an error.
func errKind(err error) string {
	var q *quotaError
	var r *refusedError
	var s *subjectError
	switch {
	case err == nil:
		return "none"
	case errors.As(err, &q):
		return fmt.Sprint("quota ", q.after)
	case errors.As(err, &r):
		return "refused"
	case errors.As(err, &s):
		return "subject"
	}
	return "failure"
}

// Every service over HTTP against servers that misbehave in every way.
func TestMisbehavingServers(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("redirected to another host with %v", r.Header)
		io.WriteString(w, `{}`)
	}))
	defer elsewhere.Close()
	answer := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			io.WriteString(w, body)
		}
	}
	for name, c := range map[string]struct {
		handle http.HandlerFunc
		kind   string // of the error
		text   string // in the error
	}{
		"slow": {func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); <-r.Context().Done() }, "failure", "deadline exceeded"},
		"slow in the body": {func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte("{"))
			w.(http.Flusher).Flush()
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}, "failure", "reading the answer"},
		"429 with seconds": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Retry-After", "17"); w.WriteHeader(429) }, "quota 17s", "quota"},
		"429 with a date": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", "Mon, 02 Jan 2006 15:04:05 GMT")
			w.Header().Set("Retry-After", "Mon, 02 Jan 2006 15:05:05 GMT")
			w.WriteHeader(429)
		}, "quota 1m0s", "quota"},
		"429 with nonsense": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "soon")
			w.WriteHeader(429)
		}, "quota 0s", "quota"},
		"429 with too much": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "99999999999")
			w.WriteHeader(429)
		}, "quota 24h0m0s", "quota"},
		"204":       {answer(204, ""), "quota 0s", "quota"},
		"401":       {answer(401, "you sent "+testKey), "refused", "401 Unauthorized"},
		"403":       {answer(403, ""), "refused", "403 Forbidden"},
		"500":       {answer(500, "<html>"+testKey), "failure", "500 Internal Server Error"},
		"418":       {answer(418, ""), "failure", "418"},
		"garbage":   {answer(200, "\x00\x01\x02\xff"), "failure", "no JSON"},
		"empty":     {answer(200, ""), "failure", "no JSON"},
		"truncated": {answer(200, `{"data":{"attributes":{"last_`), "failure", "no JSON"},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99")
			io.WriteString(w, `{"data`)
		}, "failure", "reading the answer: unexpected EOF"},
		"HTML":          {answer(200, "<!DOCTYPE html><title>Log in to the network</title>"), "failure", "no JSON, at byte 1 of 51"},
		"a list":        {answer(200, `[1,2]`), "failure", "array"},
		"deeply nested": {answer(200, strings.Repeat(`{"data":`, 100_000)), "failure", ""},
		"huge":          {answer(200, `{"x":"`+strings.Repeat("x", maxBody)+`"}`), "failure", "longer than"},
		"redirect loop": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) }, "failure", "too many redirects"},
		"redirect elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, "failure", "redirected"},
		"redirect to ftp": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "ftp://127.0.0.1/", http.StatusFound)
		}, "failure", "redirected to what is not encrypted"},
		"hangs up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "failure", "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(c.handle)
			defer server.Close()
			o := configured(t, server.URL)
			for service, x := range map[string]subject{
				"virustotal": about(intel.Domain, publicName), "pdns": about(intel.Address, publicV4), "urlhaus": about(intel.MD5, someMD5),
				"hashlookup": about(intel.MD5, someMD5), "abuseipdb": about(intel.Address, publicV4), "greynoise": about(intel.Address, publicV4),
			} {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				if strings.HasPrefix(name, "slow") {
					cancel()
					ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
				}
				_, err := built(t, service, o).ask(ctx, x)
				cancel()
				if errKind(err) != c.kind || !strings.Contains(err.Error(), c.text) {
					t.Errorf("%s: %s: %v; want %s with %q", service, errKind(err), err, c.kind, c.text)
				}
				if err != nil && (strings.Contains(err.Error(), testKey) || strings.Contains(err.Error(), "Log in")) {
					t.Errorf("%s: the error holds foreign text or a key: %v", service, err)
				}
			}
		})
	}
	t.Run("connection refused", func(t *testing.T) {
		server := httptest.NewServer(nil)
		server.Close()
		_, err := built(t, "virustotal", configured(t, server.URL)).ask(t.Context(), about(intel.Domain, publicName))
		if errKind(err) != "failure" || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), publicName) {
			t.Errorf("%v", err)
		}
	})
	t.Run("a certificate nobody vouches for", func(t *testing.T) {
		server := httptest.NewTLSServer(answer(200, `{}`))
		defer server.Close()
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		_, err := built(t, "virustotal", configured(t, server.URL)).ask(t.Context(), about(intel.Domain, publicName))
		if errKind(err) != "failure" || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%v", err)
		}
	})
}

// With every service on, nothing private is sent to any of them, and neither
// log nor answers hold a key.
func TestNothingPrivateLeaves(t *testing.T) {
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.WriteHeader(http.StatusForbidden)
	}))
	defer server.Close()
	var mu sync.Mutex
	var log bytes.Buffer
	o := configured(t, server.URL)
	o.Log = slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(b)
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	o.dial = func(_ context.Context, network, address string) (net.Conn, error) {
		requests.Add(1)
		return nil, fmt.Errorf("%s to %s is not for tests", network, address)
	}
	c := &o.Config
	c.RDNS.Enabled, c.DNSBL.Enabled, c.JARM.Enabled, c.RDAP.Enabled = true, true, true, true
	answers := newCollector()
	o.Recorder = answers
	a, err := New(*o)
	if err != nil {
		t.Fatal(err)
	}
	stop := running(t, a)
	why := []Why{Evidence, NewDomain, NewURL, File, Inbound, C2}
	n := 0
	for kind, subjects := range map[intel.Kind][]string{
		intel.Address: {"10.0.0.1", "192.168.1.1", "127.0.0.1", "fe80::1", "fd00::1", "224.0.0.1", "100.64.0.1", "x"},
		intel.Domain:  {"printer.local", "1.0.0.10.in-addr.arpa", "dc.corp", "wpad", "a.onion"},
		intel.URL:     {"http://10.0.0.1/x", "http://printer.local/x", "router/login"},
		intel.MD5:     {"", "x"},
	} {
		for _, s := range subjects {
			for _, w := range why {
				if a.Wants(w, kind) {
					n++
				}
				a.Ask(Question{Of: kind, Subject: s, Why: w, Src: host(1), DstPort: 443})
			}
		}
	}
	stop()
	refused := int64(0)
	for _, k := range a.Refused() {
		refused += k
	}
	if requests.Load() != 0 || refused != int64(n) || n == 0 {
		t.Errorf("%d requests; %d of %d questions refused", requests.Load(), refused, n)
	}
	if strings.Contains(log.String(), testKey) {
		t.Errorf("the log holds a key:\n%s", log.String())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// From the question to the line, through a service that comes with the package.
func TestAskerWithHTTP(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"KnownMalicious":"a b","hashlookup:trust":50}`)
	}))
	defer server.Close()
	c := DefaultConfig()
	c.Hashlookup.Enabled, c.Hashlookup.URL = true, server.URL
	answers := newCollector()
	now := time.Unix(1700000100, 0)
	a, err := New(Options{Config: c, Recorder: answers, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	stop := running(t, a)
	a.Ask(Question{Of: intel.MD5, Subject: strings.ToUpper(someMD5), Why: File, Src: host(1), UID: "C1", Time: 1700000000e9})
	a.Ask(Question{Of: intel.MD5, Subject: someMD5, Why: Evidence, Src: host(1)}) // for that no service is asked
	got := answers.wait(t, 1)
	stop()
	want := []Answer{{Time: 1700000000e9, UID: "C1", Src: host(1), LookupPart: flow.LookupPart{
		Service: "hashlookup", Of: "md5", Subject: someMD5, Found: flow.True, Malicious: 1, Total: 1, Score: 0.5, Verdict: "known malicious", Lists: []string{"a", "b"},
	}}}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(host(1))); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// A real service behind the breaker and its negative cache.
func TestRefusedKeyStopsRequests(t *testing.T) {
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	c := DefaultConfig()
	c.VirusTotal.Enabled, c.VirusTotal.URL, c.VirusTotal.KeyFile = true, server.URL, keyFile(t, testKey)
	warned := make(chan string, 1)
	a, err := New(Options{Config: c, Recorder: newCollector(), Log: slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		warned <- string(b)
		return len(b), nil
	}), nil))})
	if err != nil {
		t.Fatal(err)
	}
	stop := running(t, a)
	a.Ask(asking(host(1), publicV4, time.Now()))
	if w := <-warned; !strings.Contains(w, "virustotal") || !strings.Contains(w, "the key is wrong") || strings.Contains(w, testKey) {
		t.Errorf("warned with %q", w)
	}
	stop()
	if s := a.Status()[0]; s.State != "stopped" || requests.Load() != 1 {
		t.Errorf("%d requests, %+v", requests.Load(), s)
	}
}

func BenchmarkAsk(b *testing.B) {
	c := DefaultConfig()
	c.RDNS.Enabled, c.RDAP.Enabled = true, true
	a, err := New(Options{Config: c, Recorder: newCollector()})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("repeated", func(b *testing.B) {
		b.ReportAllocs()
		q := Question{Of: intel.Domain, Subject: publicName, Why: NewDomain, Src: host(1), UID: "C1"}
		for b.Loop() {
			a.Ask(q)
		}
	})
	b.Run("private", func(b *testing.B) {
		b.ReportAllocs()
		q := Question{Of: intel.Address, Subject: "10.0.0.1", Why: Evidence, Src: host(1), UID: "C1"}
		for b.Loop() {
			a.Ask(q)
		}
	})
	b.Run("nobody", func(b *testing.B) {
		b.ReportAllocs()
		q := Question{Of: intel.MD5, Subject: someMD5, Why: File, Src: host(1), UID: "C1"}
		for b.Loop() {
			a.Ask(q)
		}
	})
}
