package remoteaccess_test

import (
	"bytes"
	"encoding/gob"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/remoteaccess"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, remoteaccess.Spec, "testdata/*.txtar") }

func record(k flow.Kind, sec float64, uid string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(k)
	f.Time = 1_700_000_000*1e9 + int64(sec*1e9)
	f.Src, f.Dst = netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("203.0.114.9")
	f.SrcPort, f.DstPort, f.HasPorts, f.Proto, f.UID = 50000, 80, true, flow.TCP, uid
	return f
}

// run makes a rule with its defaults, a state and a context that counts what
// is emitted.
func run(t *testing.T) (modules.Runner, *remoteaccess.State, *modules.Context, *modules.Host, *int) {
	t.Helper()
	r, err := remoteaccess.Spec.New(remoteaccess.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	n := new(int)
	h := &modules.Host{
		Net: &profile.Network{}, Profile: netip.MustParseAddr("10.0.0.7"), At: func(int64) profile.Window { return profile.Window{N: 1} },
		Emit: func(evidence.Evidence) { *n++ }, After: func(time.Duration, uint64) {},
	}
	return r, r.NewState().(*remoteaccess.State), modules.NewContext(h), h, n
}

// size returns how many bytes a state takes when it is saved.
func size(t *testing.T, r modules.Runner, st any) int {
	t.Helper()
	var b bytes.Buffer
	if err := r.Save(gob.NewEncoder(&b), st); err != nil {
		t.Fatal(err)
	}
	return b.Len()
}

func dns(name string) *flow.Flow {
	f := record(flow.DNS, 0, "D")
	f.DstPort, f.DNS.Query = 53, name
	return f
}

func conn(src, dst string, port uint16) *flow.Flow {
	f := record(flow.Conn, 0, "C")
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
		r, st, cx, h, _ := run(t)
		h.Net.Home = []netip.Prefix{netip.MustParsePrefix("198.51.101.0/24")}
		got := ""
		h.Emit = func(e evidence.Evidence) { got += e.Level.String() }
		r.Handle(cx, st, conn(c.src, c.dst, 3389))
		if got != c.want {
			t.Errorf("%s to %s: %q, want %q", c.src, c.dst, got, c.want)
		}
	}
}

// TestBound connects to 100,000 servers.
func TestBound(t *testing.T) {
	r, st, cx, _, _ := run(t)
	for i := range 100_000 {
		r.Handle(cx, st, conn("10.0.0.7", netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}).String(), 3389))
	}
	if n := size(t, r, st); n > 60_000 {
		t.Errorf("%d bytes", n)
	}
}

func TestNamesDoNotAllocate(t *testing.T) {
	r, _, _, _, _ := run(t)
	for _, n := range []string{"www.example.com", "", ".", "com", "a.b.c.d.e.f.example.co.uk", strings.Repeat("a.", 120) + "com", "..", "a..b", "google.com", "WWW.AnyDesk.com"} {
		f := dns(n)
		if r.Chooser().Wants(f) {
			t.Errorf("%q is wanted", n)
		}
		if a := testing.AllocsPerRun(100, func() { r.Chooser().Wants(f) }); a != 0 {
			t.Errorf("%q: %v allocations", n, a)
		}
	}
	for _, n := range []string{"anydesk.com", "a.anydesk.com", "A.B.AnyDesk.COM.", "remotedesktop.google.com", "x.remotedesktop.google.com"} {
		if !r.Chooser().Wants(dns(n)) {
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
