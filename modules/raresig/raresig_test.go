package raresig_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/raresig"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, raresig.Spec, "testdata/*.txtar") }

const base = 1_700_000_000 // s

func record(k flow.Kind, sec float64, src int, dst string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(k)
	f.Time = base*1e9 + int64(sec*1e9)
	f.Src, f.Dst, f.DstPort, f.UID = netip.MustParseAddr(fmt.Sprintf("10.0.%d.%d", src>>8, src&255)), netip.MustParseAddr(dst), 443, fmt.Sprintf("U%d", int(sec))
	return f
}

func ssl(sec float64, src int, dst, ja string) *flow.Flow {
	f := record(flow.SSL, sec, src, dst)
	f.SSL.JA4 = ja
	return f
}

func http(sec float64, src int, dst, agent string) *flow.Flow {
	f := record(flow.HTTP, sec, src, dst)
	f.HTTP.UserAgent = agent
	return f
}

// TestOrderOfLogs holds the module to the same evidence whichever log is
// ahead: what comes behind the moment of decision does not count.
func TestOrderOfLogs(t *testing.T) {
	var tls, web []*flow.Flow
	for i := range 4 {
		tls = append(tls, ssl(float64(i), i, "203.0.114.1", "common"))
		web = append(web, http(float64(i), i, "203.0.114.1", "common"))
	}
	for i := range 20 {
		tls = append(tls, ssl(float64(100+300*i), 1, "198.51.101.1", "alone"))
		web = append(web, http(float64(150+300*i), 2, "198.51.101.1", "alone"))
	}
	// Behind the first judgement of each, another host comes along.
	tls = append(tls, ssl(9000, 3, "198.51.101.1", "alone"))
	web = append(web, http(9000, 3, "198.51.101.1", "alone"), http(30000, 3, "198.51.101.9", "common"))
	got := modtest.Skew(t, raresig.Spec, raresig.Spec.Defaults(), tls, web)
	for i, l := range got {
		p := strings.Fields(l)
		got[i] = strings.Join(p[1:4], " ") + l[strings.Index(l, ` "`):strings.Index(l, " uids")]
	}
	want := []string{
		`10.0.0.1 1700003700 w2 "TLS fingerprint (JA4) alone" step=1 count=13`,
		`10.0.0.2 1700003750 w2 "user agent alone" step=1 count=13`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestStateIsBounded feeds a proxy with 100,000 user agents and as many
// destinations, and a network of 10,000 hosts.
func TestStateIsBounded(t *testing.T) {
	b := modtest.NewBench[raresig.State](t, raresig.Spec, raresig.Spec.Defaults())
	for i := range 100_000 {
		f := http(float64(i)/100, i%10_000, fmt.Sprintf("198.%d.%d.7", 60+i>>8&63, i&255), fmt.Sprintf("agent %d", i))
		b.Handle(f)
	}
	if b.State.Sigs.Len() > 1<<14 || b.State.Dests.Len() > 1<<14 || len(b.State.Candidates) > 1024 || len(b.State.Hosts[2]) > 64 || b.State.Dropped == 0 {
		t.Errorf("%d signatures, %d destinations, %d candidates, %d hosts, %d dropped",
			b.State.Sigs.Len(), b.State.Dests.Len(), len(b.State.Candidates), len(b.State.Hosts[2]), b.State.Dropped)
	}
}

func TestCommonSignatureDoesNotAllocate(t *testing.T) {
	b := modtest.NewBench[raresig.State](t, raresig.Spec, raresig.Spec.Defaults())
	f := ssl(0, 1, "203.0.114.1", "t13d1516h2_8daaf6152771_02713d6af862")
	b.Handle(f)
	b.Handle(ssl(0, 2, "203.0.114.1", "t13d1516h2_8daaf6152771_02713d6af862"))
	if n := testing.AllocsPerRun(100, func() { b.Handle(f) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]raresig.Config{
		"min_hosts: 1": {MinHosts: 1, MinUses: 5}, "min_hosts: 51": {MinHosts: 51, MinUses: 5},
		"min_uses: 1": {MinHosts: 3, MinUses: 1}, "min_uses: 1001": {MinHosts: 3, MinUses: 1001},
	} {
		if _, err := raresig.Spec.New(&c, modules.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", c, err, want)
		}
	}
}

// TestRealTraffic finds nothing in captures of one or two hosts, where all is
// rare, nor in one of a network whose benign programs are alike.
func TestRealTraffic(t *testing.T) {
	for _, p := range []string{"zeek/test14-malicious/http.log", "zeek/mixed-008/data/http.log.labeled", "zeek/mixed-012/data/http.log.labeled", "zeek/isc-2021-10/http.log"} {
		for _, e := range modtest.Evidence(t, raresig.Spec, modtest.Datasets(t, p)...) {
			t.Errorf("%s: %s", p, e.Description)
		}
	}
}
