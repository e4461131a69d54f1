package gre_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/gre"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, gre.Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for want, change := range map[string]func(*gre.Config){
		`min_hosts: 1 is`:    func(c *gre.Config) { c.MinHosts = 1 },
		`min_hosts: 4097 is`: func(c *gre.Config) { c.MinHosts = 4097 },
	} {
		c := gre.Spec.Defaults().(*gre.Config)
		change(c)
		_, err := gre.Spec.New(c, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), "module gre: "+want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// TestBounds sends GRE to 100,000 hosts.
func TestBounds(t *testing.T) {
	var tunnels, scans int
	b := modtest.NewBench[gre.State](t, gre.Spec, gre.Spec.Defaults())
	b.Host.Emit = func(e evidence.Evidence) {
		if e.Type == gre.Tunnel {
			tunnels++
		} else {
			scans++
		}
	}
	for i := range 100_000 {
		b.Handle(&flow.Flow{Kind: flow.Conn, Proto: flow.GRE, Src: netip.MustParseAddr("10.0.0.1"), Dst: modtest.Public(i), UID: "G", Time: int64(i) * 1e6})
	}
	if tunnels != 16 || scans != 10 {
		t.Errorf("told of %d tunnels and %d scans, want 16 and 10", tunnels, scans)
	}
	if n := b.Size(); n > 1<<18 {
		t.Errorf("the state takes %d bytes", n)
	}
}

func TestRealTraffic(t *testing.T) {
	dir := "zeek/test14-malicious/"
	got := modtest.Evidence(t, gre.Spec, modtest.Datasets(t, dir+"tunnel.log", dir+"conn.log")...)
	if len(got) != 1 || got[0].Type != gre.Tunnel || got[0].Profile.String() != "10.0.2.15" || got[0].Victim.Value != "115.112.11.30" {
		t.Errorf("%+v", got)
	}
	for _, name := range []string{"benign/win7ad-2023-02-26/conn.log.labeled", "argus/benign-bittorrent-normal-7.binetflow"} {
		for _, e := range modtest.Evidence(t, gre.Spec, modtest.Datasets(t, name)...) {
			t.Errorf("%s: %s", name, e.Description)
		}
	}
}
