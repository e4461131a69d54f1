package dhcpscan_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/dhcpscan"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, dhcpscan.Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for want, change := range map[string]func(*dhcpscan.Config){
		`min_addresses: 1 is`:   func(c *dhcpscan.Config) { c.MinAddresses = 1 },
		`min_addresses: 129 is`: func(c *dhcpscan.Config) { c.MinAddresses = 129 },
		`min_clients: 9 is`:     func(c *dhcpscan.Config) { c.MinClients = 9 },
	} {
		c := dhcpscan.Spec.Defaults().(*dhcpscan.Config)
		change(c)
		_, err := dhcpscan.Spec.New(c, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), "module dhcpscan: "+want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// TestBounds feeds clients that are made up, and one that asks for everything.
func TestBounds(t *testing.T) {
	var scans, starved int
	b := modtest.NewBench[dhcpscan.State](t, dhcpscan.Spec, dhcpscan.Spec.Defaults())
	b.Host.Emit = func(e evidence.Evidence) {
		if e.Type == dhcpscan.Scan {
			scans++
		} else {
			starved++
		}
	}
	b.Host.Net = &profile.Network{DHCPServers: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	f := new(flow.Flow)
	for i := range 30_000 {
		f.Reset(flow.DHCP)
		f.Time, f.Src, f.UID = int64(i)*1e7, modtest.Public(i), "U"
		f.DHCP.Requested = modtest.Public(i)
		f.DHCP.MAC = fmt.Sprintf("02:00:%02x:%02x:%02x:01", byte(i>>16), byte(i>>8), byte(i))
		b.Handle(f)
		f.DHCP.MAC = "00:0a:00:00:00:66"
		b.Handle(f)
	}
	s := b.State
	if s.Clients.Len() > 2048 || s.Known.Len() > 8192 || len(s.Fresh.UIDs) > evidence.MaxUIDs {
		t.Errorf("%d clients, %d known, %d uids", s.Clients.Len(), s.Known.Len(), len(s.Fresh.UIDs))
	}
	if scans != 6 || starved < 5 || starved > 8 {
		t.Errorf("told of %d scans, want 6 steps; of %d starvations", scans, starved)
	}
	if n := b.Size(); n > 1<<20 {
		t.Errorf("the state takes %d bytes", n)
	}
}

// TestRealTraffic finds the client that asks for ten addresses, and nothing
// where clients only get theirs.
func TestRealTraffic(t *testing.T) {
	got := modtest.Evidence(t, dhcpscan.Spec, modtest.Datasets(t, "zeek/test13-malicious-dhcpscan/dhcp.log")...)
	if len(got) != 2 || got[1].Profile.String() != "192.168.1.30" || got[1].Count != 8 {
		t.Errorf("%+v", got)
	}
	for _, name := range []string{"zeek/isc-2021-10/dhcp.log", "pcap/zeek-logs/test7-malicious/dhcp.log", "zeek/test9-mixed/dhcp.log"} {
		for _, e := range modtest.Evidence(t, dhcpscan.Spec, modtest.Datasets(t, name)...) {
			t.Errorf("%s: %s", name, e.Description)
		}
	}
}
