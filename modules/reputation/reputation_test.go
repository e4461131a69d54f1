package reputation_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/reputation"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, reputation.Spec, "testdata/*.txtar") }

func bench(t testing.TB) *modtest.Bench[reputation.State] {
	t.Helper()
	return modtest.NewBench[reputation.State](t, reputation.Spec, reputation.Spec.Defaults())
}

func caller(i int) *flow.Flow {
	f := modtest.Record(flow.Conn, float64(i)/1000, fmt.Sprintf("C%017d", i))
	f.Dst = f.Src
	f.Src, f.State, f.RespBytes = modtest.Public(i), flow.Established, 100
	return f
}

func download(i int) *flow.Flow {
	f := modtest.Record(flow.HTTP, float64(i)/1000, fmt.Sprintf("H%017d", i))
	f.HTTP.Method, f.HTTP.Host, f.HTTP.URI = "GET", "Dl.Example.com", fmt.Sprintf("/%d.exe", i)
	return f
}

func file(i int) *flow.Flow {
	f := modtest.Record(flow.Files, float64(i)/1000, fmt.Sprintf("F%017d", i))
	f.Src, f.Dst = f.Dst, f.Src
	f.Files.MIMEType, f.Files.MD5 = "application/x-dosexec", fmt.Sprintf("%032x", i)
	return f
}

func answer(i int) *flow.Flow {
	f := modtest.Record(flow.Lookup, float64(i)/1000, fmt.Sprintf("L%017d", i))
	f.Lookup.Service, f.Lookup.Of, f.Lookup.Found = "virustotal", "url", flow.True
	f.Lookup.Subject, f.Lookup.Malicious, f.Lookup.Total = fmt.Sprintf("example.com/%d?%s", i, strings.Repeat("x", 500)), 20, 90
	return f
}

// TestBounds shows the network a hundred thousand callers, downloads, files
// and answers within one window.
func TestBounds(t *testing.T) {
	b := bench(t)
	asked := map[modules.Why]int{}
	b.Host.Ask = func(q modules.Question) { asked[q.Why]++ }
	const start = 2000 // s, so that all lie in one hour of the clock
	for i := start * 1000; i < start*1000+100_000; i++ {
		for _, f := range []*flow.Flow{caller(i), download(i), file(i), answer(i)} {
			b.Handle(f)
		}
	}
	for _, why := range []modules.Why{modules.Inbound, modules.Request, modules.File} {
		if asked[why] != 500 {
			t.Errorf("%d questions of sort %s, want 500", asked[why], why)
		}
	}
	if len(b.Evidence) != 20 {
		t.Errorf("%d pieces of evidence, want 20", len(b.Evidence))
	}
	if n := b.Size(); n > 1<<20 {
		t.Errorf("the state has %d bytes", n)
	}
	b.Reload()
	b.Handle(caller(start*1000 + 3_600_000))
	if asked[modules.Inbound] != 501 {
		t.Errorf("the next window has no questions of its own")
	}
}

// Where nobody is there to be asked nothing is remembered.
func TestNobodyToAsk(t *testing.T) {
	b := bench(t)
	for i := range 1000 {
		for _, f := range []*flow.Flow{caller(i), download(i), file(i)} {
			b.Handle(f)
		}
	}
	if b.State.Asked.Len()+b.State.Questions.Len()+b.State.Told.Len() != 0 {
		t.Error("the state is not empty")
	}
}

// What Wants is asked of every record of a network, and of most it has to say
// no for nothing.
func TestWants(t *testing.T) {
	w := bench(t).Runner.Chooser()
	html := download(1)
	html.HTTP.URI, html.HTTP.RespMIMETypes = "/a/b.html?x=y.exe", []string{"text/html; charset=utf-8"}
	out := caller(1)
	out.Src, out.Dst = out.Dst, out.Src
	page := file(1)
	page.Files.MIMEType = "text/html"
	tls := modtest.Record(flow.SSL, 0, "S")
	tls.SSL.ServerName = "www.example.com"
	nothing := answer(1)
	nothing.Lookup.Found = flow.False
	for name, f := range map[string]*flow.Flow{"page": html, "outgoing": out, "file of a page": page, "tls": tls, "no answer": nothing} {
		if w.Wants(f) {
			t.Errorf("%s: wanted", name)
		}
		if n := testing.AllocsPerRun(100, func() { w.Wants(f) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	for name, f := range map[string]*flow.Flow{"download": download(1), "caller": caller(1), "file": file(1), "answer": answer(1)} {
		if !w.Wants(f) {
			t.Errorf("%s: not wanted", name)
		}
	}
}

// Every URL that is asked about is in intel's canonical form, whatever the
// request looks like.
func TestCanonical(t *testing.T) {
	for _, host := range []string{"", "a.Example.com.", "a.example.com:8080", "a.example.com:80", "a..example.com", "[2606:4700::1]", "[2606:4700::1]:81", "2606:4700::1", "198.51.101.7:099999", "198.51.101.7:x", "a b", ":", "[", "é.example.com", "a.example.com:"} {
		for _, uri := range []string{"/x.exe", "http://b.example.com:81/x.exe", "http://u@b.example.com/x.exe#f", "http://", "x.exe", "/é.exe", "/a\x00.exe", "?/x.exe", "https://198.51.101.7/x.exe"} {
			b := bench(t)
			b.Host.Ask = func(q modules.Question) {
				in := intel.Indicator{Kind: q.Of, Value: q.Subject, Level: intel.FeedLevel}
				if err := in.Check(); err != nil {
					t.Errorf("host %q uri %q: %v", host, uri, err)
				}
			}
			f := download(1)
			f.HTTP.Host, f.HTTP.URI = host, uri
			b.Handle(f)
		}
	}
}

// TestNeverAlone holds the weight of any single answer below that of an alert:
// a service may be wrong. An alert is at 15 × level × confidence = 15.
func TestNeverAlone(t *testing.T) {
	for _, service := range []string{"hashlookup", "urlhaus", "virustotal", "abuseipdb", "greynoise", "dnsbl", "jarm"} {
		for of, subject := range map[string]string{
			"md5": strings.Repeat("a", 32), "url": "example.com/x", "domain": "example.com", "ip": "203.0.114.9",
		} {
			for _, lists := range [][]string{nil, {"SBL"}, {"DROP", "SBL", "XBL", "PBL"}} {
				b := bench(t)
				f := answer(1)
				l := f.Lookup
				l.Service, l.Of, l.Subject, l.Malicious, l.Total, l.Score, l.Lists = service, of, subject, 90, 90, 1, lists
				b.Handle(f)
				b.Host.Role = profile.Client
				for _, e := range b.Evidence {
					if w := 15 * e.Level.Value() * e.Confidence; w >= 15 || e.Level > evidence.High {
						t.Errorf("%s about %s weighs %v", service, of, w)
					}
				}
			}
		}
	}
}

// Without answers there is nothing to say about real traffic.
func TestRealTraffic(t *testing.T) {
	paths := modtest.Datasets(t, "zeek/isc-2021-10/conn.log", "zeek/isc-2021-10/http.log", "zeek/isc-2021-10/ssl.log", "zeek/isc-2021-10/files.log")
	if got := modtest.Evidence(t, reputation.Spec, paths...); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []reputation.Config{{0, 1, 1}, {101, 1, 1}, {1, -1, 1}, {1, 100_001, 1}, {1, 0, 0}, {1, 0, 1001}} {
		if _, err := reputation.New(c, modules.Env{}); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
	if _, err := reputation.New(reputation.Config{MinEngines: 1, MaxPerWindow: 1}, modules.Env{}); err != nil {
		t.Error(err)
	}
}

// BenchmarkWants is what a record costs that the module has no use for.
func BenchmarkWants(b *testing.B) {
	w := bench(b).Runner.Chooser()
	conn, page, file := caller(1), download(1), file(1)
	conn.Src, conn.Dst = conn.Dst, conn.Src
	page.HTTP.URI, page.HTTP.RespMIMETypes = "/a/b.html", []string{"text/html"}
	file.Files.MIMEType = "text/html"
	for name, f := range map[string]*flow.Flow{"conn": conn, "http": page, "files": file} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				w.Wants(f)
			}
		})
	}
}
