package remoteaccess_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/remoteaccess"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, remoteaccess.Spec, "testdata/*.txtar") }

func dns(name string) *flow.Flow {
	f := modtest.Record(flow.DNS, 0, "D")
	f.DstPort, f.DNS.Query = 53, name
	return f
}

func conn(src, dst string, port uint16) *flow.Flow {
	f := modtest.Record(flow.Conn, 0, "C")
	f.Src, f.Dst, f.DstPort, f.State = netip.MustParseAddr(src), netip.MustParseAddr(dst), port, flow.Established
	f.Duration, f.OrigBytes, f.RespBytes = int64(time.Hour), 50_000, 900_000
	return f
}

// TestHome says which side is one's own: private addresses and the home
// networks, which may be public.
func TestHome(t *testing.T) {
	for _, c := range []struct{ src, dst, want string }{
		{"10.0.0.7", "203.0.114.9", "low"},
		{"203.0.114.9", "10.0.0.7", "medium"},
		{"10.0.0.7", "198.51.101.9", ""},          // both at home
		{"203.0.114.9", "203.0.114.10", ""},       // neither is
		{"203.0.114.9", "198.51.101.9", "medium"}, // from the Internet
		{"198.51.101.9", "203.0.114.9", "low"},    // to the Internet
		{"fd00::7", "2a00:1450::1", "low"},
	} {
		b := modtest.NewBench[remoteaccess.State](t, remoteaccess.Spec, remoteaccess.Spec.Defaults())
		b.Host.Net.Home = []netip.Prefix{netip.MustParsePrefix("198.51.101.0/24")}
		got := ""
		b.Host.Emit = func(e evidence.Evidence) { got += e.Level.String() }
		b.Handle(conn(c.src, c.dst, 3389))
		if got != c.want {
			t.Errorf("%s to %s: %q, want %q", c.src, c.dst, got, c.want)
		}
	}
}

// TestBound connects to 100,000 servers.
func TestBound(t *testing.T) {
	b := modtest.NewBench[remoteaccess.State](t, remoteaccess.Spec, remoteaccess.Spec.Defaults())
	for i := range 100_000 {
		b.Handle(conn("10.0.0.7", netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}).String(), 3389))
	}
	if n := b.Size(); n > 60_000 {
		t.Errorf("%d bytes", n)
	}
}

func TestNamesDoNotAllocate(t *testing.T) {
	b := modtest.NewBench[remoteaccess.State](t, remoteaccess.Spec, remoteaccess.Spec.Defaults())
	for _, n := range []string{"www.example.com", "", ".", "com", "a.b.c.d.e.f.example.co.uk", strings.Repeat("a.", 120) + "com", "..", "a..b", "google.com", "WWW.AnyDesk.com"} {
		f := dns(n)
		if b.Runner.Chooser().Wants(f) {
			t.Errorf("%q is wanted", n)
		}
		if a := testing.AllocsPerRun(100, func() { b.Runner.Chooser().Wants(f) }); a != 0 {
			t.Errorf("%q: %v allocations", n, a)
		}
	}
	for _, n := range []string{"anydesk.com", "a.anydesk.com", "A.B.AnyDesk.COM.", "remotedesktop.google.com", "x.remotedesktop.google.com"} {
		if !b.Runner.Chooser().Wants(dns(n)) {
			t.Errorf("%q is not wanted", n)
		}
	}
}

func TestConfig(t *testing.T) {
	if _, err := remoteaccess.Spec.New(&remoteaccess.Config{Allowed: []string{"VNC", "nothing"}}, modules.Env{}); err == nil || !strings.Contains(err.Error(), `allowed: "nothing"`) {
		t.Error(err)
	}
}

// TestRealTraffic: hosts are scanned there, on 3389 and 5900 too, and none
// is controlled.
func TestRealTraffic(t *testing.T) {
	for _, log := range []string{
		"zeek/mixed-008/data/conn.log.labeled", "zeek/mixed-012/data/conn.log.labeled", "zeek/isc-2021-10/dns.log", "zeek/isc-2021-10/conn.log",
		"benign/ubuntu-2023-02-25/conn.log.labeled", "benign/win7ad-2023-02-26/conn.log.labeled", "argus/benign-bittorrent-normal-7.binetflow",
		"suricata/eve-scanned-home.json",
	} {
		for _, e := range modtest.Evidence(t, remoteaccess.Spec, modtest.Datasets(t, log)...) {
			t.Errorf("%s: %s", log, e.Description)
		}
	}
}
