package useragent_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/useragent"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, useragent.Spec, "testdata/*.txtar") }

func http(sec float64, uid, agent string) *flow.Flow {
	f := modtest.Record(flow.HTTP, sec, uid)
	f.HTTP.Host, f.HTTP.URI, f.HTTP.UserAgent = "a.example.com", "/", agent
	return f
}

func dhcp(sec float64, mac, class string) *flow.Flow {
	f := modtest.Record(flow.DHCP, sec, "D")
	f.DHCP.MAC, f.DHCP.VendorClass = mac, class
	return f
}

const (
	windows = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0"
	linux   = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
)

// TestOrderOfLogs holds the module to the same evidence whichever log is
// ahead: the address is that of a Windows host first, and then of a Linux host.
func TestOrderOfLogs(t *testing.T) {
	got := modtest.Skew(t, useragent.Spec, useragent.Spec.Defaults(),
		[]*flow.Flow{http(10, "H0", windows), http(20, "H1", linux), http(4000, "H2", linux), http(4100, "H3", windows), http(9000, "H4", "curl/8")},
		[]*flow.Flow{dhcp(0, "02:00:00:00:00:01", "MSFT 5.0"), dhcp(1000, "02:00:00:00:00:01", ""), dhcp(3000, "02:00:00:00:00:02", "android-dhcp-14"), dhcp(8000, "02:00:00:00:00:01", "MSFT 5.0")})
	var uids []string
	for _, l := range got {
		if strings.HasPrefix(l, "INCOMPATIBLE") {
			_, uid, _ := strings.Cut(l, "uids=")
			uid, _, _ = strings.Cut(uid, " ")
			uids = append(uids, uid)
		}
	}
	slices.Sort(uids)
	if d := cmp.Diff([]string{"H1", "H3"}, uids); d != "" {
		t.Error(d)
	}
}

// TestBound sends 10,000 agents, as the clients of a proxy do, each twice.
func TestBound(t *testing.T) {
	for name, agent := range map[string]string{
		"browsers": "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:%d.0) Gecko/20100101 Firefox/1",
		"programs": "Program/%d " + strings.Repeat("x", 1000),
		"attacks":  "sqlmap/%d ${jndi:a} " + strings.Repeat("x", 1000),
	} {
		b := modtest.NewBench[useragent.State](t, useragent.Spec, useragent.Spec.Defaults())
		types := make(map[evidence.Type]int)
		b.Host.Emit = func(e evidence.Evidence) { types[e.Type]++ }
		for i := range 20_000 {
			b.Handle(http(0, "H", fmt.Sprintf(agent, i%10_000)))
			b.Handle(dhcp(0, fmt.Sprintf("02:00:00:00:%02x:%02x", i>>8&255, i&255), "MSFT "+strings.Repeat("x", i%1000)))
		}
		if n := b.Size(); n > 30_000 || types[useragent.Multiple] != 1 {
			t.Errorf("%s: %d bytes, %v", name, n, types)
		}
	}
}

func TestKnownAgentDoesNotAllocate(t *testing.T) {
	b := modtest.NewBench[useragent.State](t, useragent.Spec, useragent.Spec.Defaults())
	f := http(0, "H", windows)
	b.Handle(f)
	if a := testing.AllocsPerRun(100, func() { b.Handle(f) }); a != 0 {
		t.Errorf("%v allocations for an agent that is known", a)
	}
}

// TestOddAgents feeds what a parser might stumble over.
func TestOddAgents(t *testing.T) {
	b := modtest.NewBench[useragent.State](t, useragent.Spec, useragent.Spec.Defaults())
	for _, a := range []string{
		"Mozilla/5.0 (", "Mozilla/5.0 ()", "Mozilla/5.0 (Linux; Android", "Mozilla/ (;;;)", "Opera/(/", "Mozilla/5.0 (CrOS x86_64 )", "Mozilla/(\xff\xfe)",
		"server-bag", "server-bag [", "server-bag []", "server-bag [,]", "Mozilla/5.0 (http://", "Mozilla/5.0 (a:", strings.Repeat("(", 70_000), "$", "%", "%2", "%24", "%24%7", "${", "<", "<?", "(",
	} {
		b.Handle(http(0, "H", a))
	}
	if len(b.Evidence) != 0 {
		t.Errorf("%d reported", len(b.Evidence))
	}
}

// TestRealTraffic finds an exploit, malware and scanners, and nothing worse
// than a script on hosts that are clean.
func TestRealTraffic(t *testing.T) {
	for _, c := range []struct{ log, host, level string }{
		{"zeek/test14-malicious/http.log", "10.0.2.15", "high 1"},
		{"pcap/zeek-logs/http_ctu-62604-80/http.log", "192.168.1.108", "high 1"},
		{"suricata/eve-scanned-home.json", "109.74.21.48", "high 0.8"},
	} {
		found := false
		for _, e := range modtest.Evidence(t, useragent.Spec, modtest.Datasets(t, c.log)...) {
			found = found || e.Type == useragent.Suspicious && e.Attacker.Value == c.host && fmt.Sprint(e.Level, " ", e.Confidence) == c.level
		}
		if !found {
			t.Errorf("%s: %s is not reported as %s", c.log, c.host, c.level)
		}
	}
	for _, log := range []string{"zeek/mixed-008/data/http.log.labeled", "zeek/mixed-012/data/http.log.labeled"} {
		for _, e := range modtest.Evidence(t, useragent.Spec, modtest.Datasets(t, log)...) {
			if e.Level > evidence.Info {
				t.Errorf("%s: %s", log, e.Description)
			}
		}
	}
}
