package download_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/download"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, download.Spec, "testdata/*.txtar") }

func tls(sec float64, uid, name string) *flow.Flow {
	f := modtest.Record(flow.SSL, sec, uid)
	f.DstPort, f.SSL.ServerName = 443, name
	return f
}

func http(uid, host, uri, mime string) *flow.Flow {
	f := modtest.Record(flow.HTTP, 0, uid)
	f.HTTP.Method, f.HTTP.Host, f.HTTP.URI, f.HTTP.RespMIMETypes = "GET", host, uri, []string{mime}
	return f
}

// TestPasteSessions says which TLS sessions are with a paste site.
func TestPasteSessions(t *testing.T) {
	for _, c := range []struct {
		name        string
		established flow.Tri
		want        string
	}{
		{"pastebin.com", flow.True, "tls pastebin.com"},
		{"Pastebin.COM.", flow.Unset, "tls pastebin.com"},
		{"raw.paste.ee", flow.True, "tls paste.ee"},
		{"pst.klgrth.io", flow.True, "tls pst.klgrth.io"},
		{"ix.io", flow.True, "tls ix.io"},
		{"pastebin.com", flow.False, ""},
		{"notpastebin.com", flow.True, ""},
		{"a.b.pastebin.com", flow.True, ""},
		{"pastebin.com.example.org", flow.True, ""},
		{"ix.io.", flow.True, "tls ix.io"},
		{"io", flow.True, ""},
		{"", flow.True, ""},
		{strings.Repeat("x", 100) + ".pastebin.com", flow.True, ""},
	} {
		b := modtest.NewBench[download.State](t, download.Spec, download.Spec.Defaults())
		got := ""
		b.Host.Emit = func(e evidence.Evidence) { got += e.Subject }
		f := tls(0, "S", c.name)
		f.SSL.Established = c.established
		wanted := b.Runner.Chooser().Wants(f)
		b.Handle(f)
		if got != c.want || wanted != (c.want != "") {
			t.Errorf("%s %d: wanted %v, %q, want %q", c.name, c.established, wanted, got, c.want)
		}
	}
}

// TestVerdicts says what each response is: the level of each kind of
// evidence, and nothing for what is harmless.
func TestVerdicts(t *testing.T) {
	const exe = "application/x-dosexec"
	for _, c := range []struct{ host, uri, mime, want string }{
		{"a.example.com", "/a.exe", exe, "EXECUTABLE_MIME_TYPE low 0.5"},
		{"a.example.com", "/A.EXE?x=.jpg", exe, "EXECUTABLE_MIME_TYPE low 0.5"},
		{"a.example.com", "/a.exe/", exe, "EXECUTABLE_MIME_TYPE low 0.8"},
		{"a.example.com", "/a.example.com", exe, "EXECUTABLE_MIME_TYPE low 0.8"},
		{"192.168.1.5", "/a", exe, "EXECUTABLE_MIME_TYPE low 0.8"},
		{"198.51.101.7:8080", "/a.exe", exe, "EXECUTABLE_MIME_TYPE medium 0.9"},
		{"[2a00:1450::1]", "/a.exe", exe, "EXECUTABLE_MIME_TYPE medium 0.9"},
		{"[2a00:1450::1]:80", "/a.exe", exe, "EXECUTABLE_MIME_TYPE medium 0.9"},
		{"1and1.example.com", "/a.exe", exe, "EXECUTABLE_MIME_TYPE low 0.5"},
		{"a.example.com", "/a.png", exe, "MIME_MISMATCH medium 0.9, EXECUTABLE_MIME_TYPE low 0.8"},
		{"a.example.com", "/a.png", "application/x-executable; a=b", "MIME_MISMATCH medium 0.9, EXECUTABLE_MIME_TYPE low 0.8"},
		{"a.example.com", "/a.dll", "image/gif", "MIME_MISMATCH medium 0.5"},
		{"a.example.com", "/a.dll", "application/octet-stream", "EXECUTABLE_MIME_TYPE low 0.5"},
		{"a.example.com", "/a.zip", "application/octet-stream", ""},
		{"a.example.com", "/a", "application/octet-stream", ""},
		{"a.example.com", "/a.exe", "text/html", ""},
		{"a.example.com", "/a.gif", "image/png", ""},
		{"a.example.com", "", "", ""},
	} {
		b := modtest.NewBench[download.State](t, download.Spec, download.Spec.Defaults())
		var got []string
		b.Host.Emit = func(e evidence.Evidence) { got = append(got, fmt.Sprintf("%s %s %v", e.Type, e.Level, e.Confidence)) }
		f := http("H", c.host, c.uri, c.mime)
		f.HTTP.UserAgent = "Mozilla/5.0"
		if b.Runner.Chooser().Wants(f) {
			b.Handle(f)
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("%s%s %s: %s, want %s", c.host, c.uri, c.mime, s, c.want)
		}
	}
}

// TestBound feeds 100,000 servers and sessions to one host.
func TestBound(t *testing.T) {
	b := modtest.NewBench[download.State](t, download.Spec, download.Spec.Defaults())
	for i := range 100_000 {
		uid := fmt.Sprintf("C%d", i)
		b.Handle(http(uid, fmt.Sprintf("h%d.example.com", i)+strings.Repeat("x", 1000), "/a.jpg", "application/x-dosexec"))
		b.Handle(tls(0, uid, "pastebin.com"))
	}
	if n := b.Size(); n > 300_000 || b.State.Reported.Len() > 512 {
		t.Errorf("%d bytes, %d subjects", n, b.State.Reported.Len())
	}
}

func TestDoesNotAllocate(t *testing.T) {
	b := modtest.NewBench[download.State](t, download.Spec, download.Spec.Defaults())
	f := tls(0, "C1", "www.example.com")
	if a := testing.AllocsPerRun(100, func() { b.Runner.Chooser().Wants(f) }); a != 0 {
		t.Errorf("%v allocations for a session", a)
	}
	g := http("H", "a.example.com", "/index.html", "text/html")
	if a := testing.AllocsPerRun(100, func() { b.Runner.Chooser().Wants(g) }); a != 0 {
		t.Errorf("%v allocations for a page", a)
	}
}

func TestConfig(t *testing.T) {
	if _, err := download.Spec.New(&download.Config{}, modules.Env{}); err == nil || !strings.Contains(err.Error(), "pastebin_download_threshold: 0") {
		t.Error(err)
	}
}

// TestRealTraffic finds the programs of Qakbot, which came from bare
// addresses, and that of BazarLoader; and none in networks without malware.
func TestRealTraffic(t *testing.T) {
	got := make(map[string]int)
	for _, e := range modtest.Evidence(t, download.Spec, modtest.Datasets(t, "zeek/isc-2021-10/http.log")...) {
		got[fmt.Sprintf("%s %s %s", e.Type, e.Attacker.Value, e.Level)]++
	}
	if d := cmp.Diff(map[string]int{"EXECUTABLE_MIME_TYPE 10.10.22.156 medium": 3, "EXECUTABLE_MIME_TYPE 10.10.22.158 medium": 1}, got); d != "" {
		t.Error(d)
	}
	for _, log := range []string{"zeek/mixed-008/data/http.log.labeled", "zeek/mixed-012/data/http.log.labeled", "zeek/simda-dga/http.log", "suricata/eve-scanned-home.json"} {
		for _, e := range modtest.Evidence(t, download.Spec, modtest.Datasets(t, log)...) {
			t.Errorf("%s: %s", log, e.Description)
		}
	}
}

func BenchmarkSession(b *testing.B) {
	r, err := download.Spec.New(download.Spec.Defaults(), modules.Env{})
	if err != nil {
		b.Fatal(err)
	}
	c, f := r.Chooser(), tls(0, "C1", "www.example.com")
	for b.Loop() {
		c.Wants(f)
	}
}
