package ipchange_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/ipchange"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, ipchange.Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for _, d := range []time.Duration{0, 59 * time.Second, 25 * time.Hour} {
		_, err := ipchange.Spec.New(&ipchange.Config{Away: d}, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("away: %v is not between 1m and 24h", d)) {
			t.Errorf("%v: error %v", d, err)
		}
	}
}

const base = 1_700_000_000 // s

func conn(sec int64, src, mac string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.Conn)
	f.Time, f.Src, f.SrcMAC, f.UID = (base+sec)*1e9, netip.MustParseAddr(src), mac, fmt.Sprint("C", sec)
	return f
}

func dhcp(sec int64, addr, mac string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.DHCP)
	f.Time, f.Src = (base+sec)*1e9, netip.MustParseAddr(addr)
	f.DHCP.MAC, f.DHCP.Assigned = mac, f.Src
	return f
}

// TestOrderOfLogs holds the module to the same evidence whichever log is ahead.
func TestOrderOfLogs(t *testing.T) {
	const a, b, c = "00:1b:21:00:00:0a", "00:1b:21:00:00:0b", "00:1b:21:00:00:0c"
	conns := []*flow.Flow{
		conn(0, "10.0.0.1", a), conn(5, "10.0.0.11", b), conn(6, "10.0.0.21", c),
		conn(100, "10.0.0.2", a), conn(200, "10.0.0.12", b), conn(250, "10.0.0.22", c), conn(300, "10.0.0.21", c),
		conn(2000, "10.0.0.3", a), conn(2100, "10.0.0.13", b), conn(2200, "10.0.0.23", c),
		conn(9000, "10.0.0.200", "00:1b:21:00:00:99"),
	}
	leases := []*flow.Flow{
		dhcp(90, "10.0.0.2", a), dhcp(150, "10.0.0.99", b),
		dhcp(2500, "10.0.0.3", a),
		dhcp(2800, "10.0.0.13", b), // too late: the change is judged at 2700
		dhcp(9000, "10.0.0.200", "00:1b:21:00:00:99"),
	}
	var got []string
	for _, l := range modtest.Skew(t, ipchange.Spec, ipchange.Spec.Defaults(), conns, leases) {
		_, text, _ := strings.Cut(l, "the device ")
		got = append(got, text)
	}
	want := []string{
		a + ", which had the address 10.0.0.1, goes on as 10.0.0.2; DHCP gave it the address",
		b + ", which had the address 10.0.0.11, goes on as 10.0.0.12; DHCP did not give it the address",
		b + ", which had the address 10.0.0.12, goes on as 10.0.0.13; it was silent for 31 minutes before",
		a + ", which had the address 10.0.0.2, goes on as 10.0.0.3; DHCP gave it the address",
	}
	for _, w := range want {
		if !strings.Contains(strings.Join(got, "\n"), w) {
			t.Errorf("missing: %s", w)
		}
	}
	if len(got) != len(want) {
		t.Error(cmp.Diff(want, got))
	}
}

// TestGateway leaves out the hardware address of the gateway.
func TestGateway(t *testing.T) {
	for _, gw := range []string{"", "00:1B:21:00:00:0A"} {
		b := modtest.NewBench[ipchange.State](t, ipchange.Spec, ipchange.Spec.Defaults())
		n := 0
		b.Host.Net = &profile.Network{GatewayMAC: gw}
		b.Host.Emit = func(evidence.Evidence) { n++ }
		for i, src := range []string{"10.0.0.1", "10.0.0.2"} {
			f := conn(int64(i), src, "00:1b:21:00:00:0a")
			b.Handle(f)
		}
		for k := range b.State.Pending {
			b.Fire(k)
		}
		if (n == 1) != (gw == "") {
			t.Errorf("gateway %q: %d reports", gw, n)
		}
	}
}

// TestBounds feeds 100,000 devices, each with two addresses and a lease.
func TestBounds(t *testing.T) {
	b := modtest.NewBench[ipchange.State](t, ipchange.Spec, ipchange.Spec.Defaults())
	for i := range int64(100_000) {
		mac := fmt.Sprintf("00:1b:21:%02x:%02x:%02x", i>>16, i>>8&255, i&255)
		src := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String()
		b.Handle(conn(0, src, mac))
		b.Handle(conn(9, "192.168.0.1", mac))
		b.Handle(dhcp(9, src, mac))
	}
	if b.State.Devices.Len() > 1<<14 || len(b.State.Pending) > 4096 || b.State.Leases.Len() > 1<<15 {
		t.Errorf("%d devices, %d changes, %d leases", b.State.Devices.Len(), len(b.State.Pending), b.State.Leases.Len())
	}
	f := conn(10, "192.168.0.1", "00:1b:21:00:00:01")
	b.Handle(f)
	if n := testing.AllocsPerRun(100, func() { b.Handle(f) }); n != 0 {
		t.Errorf("%v allocations for a known device", n)
	}
}

// TestRealTraffic finds the host that takes over the address of another, and
// nothing in a network with DHCP.
func TestRealTraffic(t *testing.T) {
	es := modtest.Evidence(t, ipchange.Spec, modtest.Datasets(t, "pcap/zeek-logs/sanders_sessionhijacking/conn.log")...)
	if len(es) != 1 || es[0].Attacker.Value != "172.16.16.154" {
		t.Errorf("got %v", es)
	}
	for _, dir := range []string{"zeek/portscan/", "zeek/test14-malicious/"} {
		for _, e := range modtest.Evidence(t, ipchange.Spec, modtest.Datasets(t, dir+"conn.log")...) {
			t.Errorf("%s: %s", dir, e.Description)
		}
	}
}
