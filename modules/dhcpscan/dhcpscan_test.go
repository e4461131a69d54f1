package dhcpscan_test

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

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

// bench runs the module on one state, without the engine.
func bench(t *testing.T, emit func(evidence.Evidence)) (handle func(*flow.Flow), st any, h *modules.Host) {
	t.Helper()
	run, err := dhcpscan.Spec.New(dhcpscan.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	st = run.NewState()
	h = &modules.Host{
		Net: &profile.Network{}, Emit: emit, After: func(time.Duration, uint64) {},
		At: func(at int64) profile.Window { return profile.WindowOf(at, 0, int64(time.Hour)) },
	}
	cx := modules.NewContext(h)
	return func(f *flow.Flow) {
		h.Now, h.Record, h.Window = f.Time, f.Time, h.At(f.Time)
		h.Profile = f.Src
		run.Handle(cx, st, f)
	}, st, h
}

// size returns the bytes that a saved state takes.
func size(t *testing.T, st any) int {
	t.Helper()
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(st); err != nil {
		t.Fatal(err)
	}
	return b.Len()
}

func host(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{20, byte(n >> 16), byte(n >> 8), byte(n)})
}

// TestBounds feeds clients that are made up, and one that asks for everything.
func TestBounds(t *testing.T) {
	var scans, starved int
	handle, st, h := bench(t, func(e evidence.Evidence) {
		if e.Type == dhcpscan.Scan {
			scans++
		} else {
			starved++
		}
	})
	h.Net = &profile.Network{DHCPServers: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	f := new(flow.Flow)
	for i := range 30_000 {
		f.Reset(flow.DHCP)
		f.Time, f.Src, f.UID = int64(i)*1e7, host(i), "U"
		f.DHCP.Requested = host(i)
		f.DHCP.MAC = fmt.Sprintf("02:00:%02x:%02x:%02x:01", byte(i>>16), byte(i>>8), byte(i))
		handle(f)
		f.DHCP.MAC = "00:0a:00:00:00:66"
		handle(f)
	}
	s := st.(*dhcpscan.State)
	if s.Clients.Len() > 2048 || s.Known.Len() > 8192 || len(s.Fresh.UIDs) > evidence.MaxUIDs {
		t.Errorf("%d clients, %d known, %d uids", s.Clients.Len(), s.Known.Len(), len(s.Fresh.UIDs))
	}
	if scans != 6 || starved < 5 || starved > 8 {
		t.Errorf("told of %d scans, want 6 steps; of %d starvations", scans, starved)
	}
	if n := size(t, st); n > 1<<20 {
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
