package dnsflood

import (
	"net/netip"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for want, c := range map[string]Config{
		"module dnsflood: min_queries: 9 is not in 10..2147483647": {MinQueries: 9, TunnelKB: 1000},
		"module dnsflood: tunnel_kb: 99 is not in 100..2147483647": {MinQueries: 1000, TunnelKB: 99},
	} {
		if _, err := Spec.New(&c, modules.Env{}); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// A network of a million clients stays within bounds.
func TestBounds(t *testing.T) {
	b := modtest.NewBench[State](t, Spec, &Config{MinQueries: 1000, TunnelKB: 1000})
	b.Host.Emit = func(evidence.Evidence) { t.Error("a query each is no flood") }
	for i := range 200_000 {
		f := flow.Flow{
			Kind: flow.Conn, Proto: flow.UDP, HasPorts: true, SrcPort: 40000, DstPort: 53, RespPkts: 1, UID: "CUM0KZ3MLUfNB0cl11",
			Src: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), Dst: netip.AddrFrom4([4]byte{10, 200, 0, 1}),
		}
		b.Handle(&f)
	}
	if b.Size() > 1<<20 {
		t.Errorf("the state takes %d bytes saved", b.Size())
	}
}

// Of all real captures the one with thousands of queries a minute is told.
func TestRealTraffic(t *testing.T) {
	for name, want := range map[string]string{
		"argus/labelled-tabs.binetflow":              "10.0.2.15",
		"argus/benign-bittorrent-normal-7.binetflow": "",
		"benign/ubuntu-2023-02-25/conn.log.labeled":  "",
		"benign/win7ad-2023-02-26/conn.log.labeled":  "",
		"zeek/isc-2021-10/conn.log":                  "",
		"zeek/mixed-008/data/conn.log.labeled":       "",
	} {
		t.Run(name, func(t *testing.T) {
			p := modtest.Datasets(t, name)
			best := 0.0
			for _, e := range modtest.Evidence(t, Spec, p...) {
				if e.Attacker.Value != want {
					t.Errorf("%s is blamed: %s", e.Attacker.Value, e.Description)
				}
				best = max(best, e.Confidence)
			}
			if want != "" && best < 0.9 {
				t.Errorf("told with confidence %v", best)
			}
		})
	}
}
