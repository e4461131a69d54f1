package dga_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/dga"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, dga.Spec, "testdata/*.txtar") }

func missing(name string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.DNS)
	f.Src, f.UID, f.DNS.Query, f.DNS.RCode = netip.MustParseAddr("10.0.0.1"), "D"+name, name, "NXDOMAIN"
	return f
}

// TestNames says of each list of names how many of them count.
func TestNames(t *testing.T) {
	for _, c := range []struct {
		name  string
		names string
		want  int64
	}{
		{"different names", "a.example.com b.example.com c.example.org", 3},
		{"the same in other letters, and with a dot", "a.example.com A.EXAMPLE.com a.example.com.", 1},
		{"with and without www", "xq.com www.xq.com", 1},
		{"www alone is a label", "www.com", 1},
		{"different names behind www", "www.xq.com www.yq.com", 2},
		{"a search list", "a.b.c.d a.c.d a.d.e a.e.f a.f.g a.g.h", 1},
		{"more suffixes than a search list has", "a.b1.c a.b2.c a.b3.c a.b4.c a.b5.c a.b6.c a.b7.c a.b8.c", 3},
		{"single labels", "wpad qwertz com", 0},
		{"service names", "_ldap._tcp.dc.example.com _kerberos.example.com", 0},
		{"private zones", "a.local b.LOCAL c.lan d.in-addr.arpa e.corp f.internal g.home.arpa", 0},
		{"a name that only looks private", "local.example.com mylan", 1},
		{"block lists", "1.2.3.4.zen.example.org 255.255.0.1.list.example.com", 0},
		{"numbers that are no address", "1.2.3.example.org 1.2.3.256.example.com 1234.1.1.1.example.net", 2},
		{"nothing", " . .. .com", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			run, err := dga.Spec.New(dga.Spec.Defaults(), modules.Env{})
			if err != nil {
				t.Fatal(err)
			}
			st, cx := run.NewState().(*dga.State), modules.NewContext(&modules.Host{})
			for n := range strings.SplitSeq(c.names, " ") {
				run.Handle(cx, st, missing(n))
			}
			if st.N != c.want {
				t.Errorf("%q: %d count, want %d", c.names, st.N, c.want)
			}
		})
	}
}

// TestStateIsBounded feeds more names than the limit allows.
func TestStateIsBounded(t *testing.T) {
	run, err := dga.Spec.New(dga.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	var last evidence.Evidence
	st, n := run.NewState().(*dga.State), 0
	cx := modules.NewContext(&modules.Host{Emit: func(e evidence.Evidence) { last, n = e, n+1 }})
	for i := range 50_000 {
		run.Handle(cx, st, missing(fmt.Sprintf("n%d.example.com", i)))
	}
	if len(st.Names) != 20_000 || st.Dropped != 30_000 || len(st.UIDs) != evidence.MaxUIDs {
		t.Errorf("%d names, %d uids, %d dropped", len(st.Names), len(st.UIDs), st.Dropped)
	}
	if n != 11 || last.Count != 10240 || last.Confidence != 1 || last.Step != 11 {
		t.Errorf("%d evidence, the last of %d names with confidence %v, step %d", n, last.Count, last.Confidence, last.Step)
	}
}

func TestConfig(t *testing.T) {
	for _, n := range []int{-1, 0, 1, 20_001} {
		_, err := dga.Spec.New(&dga.Config{MinNames: n}, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("min_names: %d", n)) {
			t.Errorf("min_names %d: error %v", n, err)
		}
	}
}

// TestRealTraffic finds the host that has Simda under both of its addresses,
// and nothing in a network whose malware has no such algorithm.
func TestRealTraffic(t *testing.T) {
	most := make(map[string]float64)
	for _, e := range modtest.Evidence(t, dga.Spec, modtest.Datasets(t, "zeek/simda-dga/dns.log")...) {
		most[e.Attacker.Value] = max(most[e.Attacker.Value], e.Confidence)
	}
	if len(most) != 2 || most["192.168.1.116"] < 0.1 || most["fd77:48a1:c0bb:0:b96c:506d:6c7f:e8be"] < 0.8 {
		t.Errorf("Simda: confidence by host: %v", most)
	}
	for _, e := range modtest.Evidence(t, dga.Spec, modtest.Datasets(t, "zeek/isc-2021-10/dns.log")...) {
		t.Errorf("no such malware there: %s", e.Description)
	}
}
