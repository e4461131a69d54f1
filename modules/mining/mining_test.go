package mining_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/mining"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, mining.Spec, "testdata/*.txtar") }

func dns(sec float64, name, answer string) *flow.Flow {
	f := modtest.Record(flow.DNS, sec, "D"+name)
	f.DstPort, f.DNS.Query, f.DNS.Answers = 53, name, []string{answer}
	return f
}

func conn(sec float64, uid, dst string, port uint16, d time.Duration) *flow.Flow {
	f := modtest.Record(flow.Conn, sec, uid)
	f.Dst, f.DstPort, f.State, f.Duration, f.OrigBytes, f.RespBytes = netip.MustParseAddr(dst), port, flow.Established, int64(d), 9000, 9000
	return f
}

// TestOrderOfLogs holds the module to the same evidence whichever log is ahead.
func TestOrderOfLogs(t *testing.T) {
	const min = time.Minute
	got := modtest.Skew(t, mining.Spec, mining.Spec.Defaults(),
		[]*flow.Flow{
			dns(0, "pool.supportxmr.com", "203.0.114.20"), dns(10, "example.com", "203.0.114.22"),
			dns(2000, "xmr.2miners.com", "203.0.114.21"), dns(5000, "a.example.com", "203.0.114.23"),
		},
		[]*flow.Flow{
			conn(5, "C0", "203.0.114.20", 9000, 20*min), conn(20, "C1", "203.0.114.21", 9000, 20*min), conn(30, "C2", "203.0.114.22", 9000, 20*min),
			conn(40, "C3", "203.0.114.23", 14433, 20*min), conn(2100, "C4", "203.0.114.21", 9000, 20*min), conn(6000, "C5", "203.0.114.9", 80, 20*min),
		})
	var what []string
	for _, l := range got {
		_, subject, _ := strings.Cut(l, `"`)
		subject, _, _ = strings.Cut(subject, `"`)
		what = append(what, subject)
	}
	want := []string{"dns supportxmr.com", "pool supportxmr.com", "conn 203.0.114.23:14433", "dns 2miners.com", "pool 2miners.com"}
	slices.Sort(what)
	slices.Sort(want)
	if d := cmp.Diff(want, what); d != "" {
		t.Error(d)
	}
}

// TestBound feeds names and addresses of 100,000 pools.
func TestBound(t *testing.T) {
	b := modtest.NewBench[mining.State](t, mining.Spec, mining.Spec.Defaults())
	for i := range 100_000 {
		a := netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}).String()
		b.Handle(dns(0, fmt.Sprintf("stratum.h%d.example", i), a))
		b.Handle(dns(0, strings.Repeat("x", 300)+fmt.Sprintf("%d.nanopool.org", i), a))
		b.Handle(conn(0, fmt.Sprint("C", i), a, 3333, time.Hour))
	}
	if n := b.Size(); n > 300_000 || len(b.State.Waiting) != 256 {
		t.Errorf("%d bytes, %d waiting", n, len(b.State.Waiting))
	}
}

func TestNamesDoNotAllocate(t *testing.T) {
	b := modtest.NewBench[mining.State](t, mining.Spec, mining.Spec.Defaults())
	for _, n := range []string{"www.example.com", "", ".", "com", "a.b.c.d.e.f.example.co.uk", strings.Repeat("a.", 120) + "com", "Pool.NTP.org.", "..", "a..b", ".a"} {
		f := dns(0, n, "")
		if b.Runner.Chooser().Wants(f) {
			t.Errorf("%q is wanted", n)
		}
		if a := testing.AllocsPerRun(100, func() { b.Runner.Chooser().Wants(f) }); a != 0 {
			t.Errorf("%q: %v allocations", n, a)
		}
	}
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]mining.Config{
		"min_duration: 1s":       {MinDuration: time.Second},
		"min_duration: 25h0m0s":  {MinDuration: 25 * time.Hour},
		`pools: "a.example.com"`: {MinDuration: time.Hour, Pools: []string{"a.example.com"}},
		`pools: "x"`:             {MinDuration: time.Hour, Pools: []string{"x"}},
		"pools: 1001 names":      {MinDuration: time.Hour, Pools: make([]string, 1001)},
	} {
		if _, err := mining.Spec.New(&c, modules.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", c, err, want)
		}
	}
}

// TestRealTraffic: no miner is in these, but long connections, time servers
// and a host that looks up thousands of names are.
func TestRealTraffic(t *testing.T) {
	for _, logs := range [][]string{
		{"zeek/isc-2021-10/dns.log", "zeek/isc-2021-10/conn.log", "zeek/isc-2021-10/ssl.log"},
		{"zeek/simda-dga/dns.log", "zeek/simda-dga/conn.log"},
		{"benign/ubuntu-2023-02-25/conn.log.labeled"},
		{"benign/win7ad-2023-02-26/conn.log.labeled"},
		{"argus/benign-bittorrent-normal-7.binetflow"},
	} {
		for _, e := range modtest.Evidence(t, mining.Spec, modtest.Datasets(t, logs...)...) {
			t.Errorf("%s: %s", logs[0], e.Description)
		}
	}
}
