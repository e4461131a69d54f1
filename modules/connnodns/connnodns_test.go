package connnodns_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/connnodns"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, connnodns.Spec, "testdata/*.txtar") }

const base = 1_700_000_000 // s

func conn(sec float64, src, dst string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.Conn)
	f.Time = base*1e9 + int64(sec*1e9)
	f.Src, f.Dst, f.DstPort, f.Proto = netip.MustParseAddr(src), netip.MustParseAddr(dst), 443, flow.TCP
	f.State, f.UID = flow.Established, fmt.Sprintf("C%v", sec)
	return f
}

func dns(sec float64, src string, answers ...string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.DNS)
	f.Time = base*1e9 + int64(sec*1e9)
	f.Src, f.Dst, f.DstPort, f.Proto = netip.MustParseAddr(src), netip.MustParseAddr("9.9.9.9"), 53, flow.UDP
	f.DNS.Query, f.DNS.QType, f.DNS.RCode, f.DNS.Response = "www.example.com", "A", "NOERROR", true
	f.DNS.Answers = append(f.DNS.Answers, answers...)
	return f
}

// reported returns the destinations reported, with the second of the connection.
func reported(lines []string) []string {
	var out []string
	for _, l := range lines {
		p := strings.Fields(l)
		var t int64
		fmt.Sscan(p[2], &t)
		out = append(out, fmt.Sprintf("%d %s", t-base, strings.Trim(p[4], `"`)))
	}
	return out
}

// TestOrderOfLogs holds the module to the same evidence whichever log is
// ahead, by a few records or by all of them.
func TestOrderOfLogs(t *testing.T) {
	const h, day = 3600.0, 24 * 3600.0
	for _, c := range []struct {
		name string
		conn []*flow.Flow
		dns  []*flow.Flow
		want []string
	}{
		{
			"an answer before the connection explains it, one for another address does not",
			[]*flow.Flow{conn(10, "10.0.0.1", "8.8.4.4"), conn(11, "10.0.0.1", "1.2.3.4")},
			[]*flow.Flow{dns(1, "10.0.0.2", "8.8.4.4")},
			[]string{"11 1.2.3.4"},
		},
		{
			"an answer within 15 s after the start still counts, a later one does not",
			[]*flow.Flow{conn(10, "10.0.0.1", "1.1.1.4"), conn(10.5, "10.0.0.1", "1.1.1.5")},
			[]*flow.Flow{dns(1, "10.0.0.2", "8.8.4.4"), dns(25, "10.0.0.1", "1.1.1.4"), dns(26, "10.0.0.1", "1.1.1.5")},
			[]string{"10 1.1.1.5"},
		},
		{
			"before the first DNS record nothing is judged",
			[]*flow.Flow{conn(0, "10.0.0.1", "1.1.1.4"), conn(100, "10.0.0.1", "1.1.1.4"), conn(200, "10.0.0.1", "1.1.1.4")},
			[]*flow.Flow{dns(50, "10.0.0.2", "8.8.4.4"), dns(300, "10.0.0.2", "8.8.4.4")},
			[]string{"100 1.1.1.4"},
		},
		{
			"an answer counts for 24 hours, also when the next is known already",
			[]*flow.Flow{
				conn(day, "10.0.0.1", "8.8.4.4"), conn(day+100, "10.0.0.1", "8.8.4.4"), conn(3*day, "10.0.0.1", "8.8.4.4"),
			},
			[]*flow.Flow{dns(50, "10.0.0.2", "8.8.4.4"), dns(2.5*day, "10.0.0.2", "8.8.4.4"), dns(2.6*day, "10.0.0.2", "8.8.8.8")},
			[]string{"86500 8.8.4.4"},
		},
		{
			"answers in between keep the address known",
			[]*flow.Flow{conn(1.9*day, "10.0.0.1", "8.8.4.4")},
			[]*flow.Flow{dns(0, "10.0.0.2", "8.8.4.4"), dns(0.9*day, "10.0.0.2", "8.8.4.4"), dns(1.95*day, "10.0.0.2", "8.8.8.8")},
			[]string{"164160 8.8.4.4"},
		},
		{
			"a pair is reported once in a window and again in the next",
			[]*flow.Flow{
				conn(1, "10.0.0.1", "1.1.1.4"), conn(5, "10.0.0.2", "1.1.1.4"), conn(9, "10.0.0.1", "1.1.1.4"),
				conn(h+5, "10.0.0.1", "1.1.1.4"),
			},
			[]*flow.Flow{dns(0, "10.0.0.2", "8.8.4.4"), dns(2*h, "10.0.0.2", "8.8.4.4")},
			[]string{"1 1.1.1.4", "3605 1.1.1.4", "5 1.1.1.4"},
		},
		{
			"a long connection, logged when it ends, is judged by its start",
			[]*flow.Flow{conn(100, "10.0.0.1", "1.1.1.4"), conn(2000, "10.0.0.1", "1.1.1.5"), conn(50, "10.0.0.1", "1.1.1.6")},
			[]*flow.Flow{dns(0, "10.0.0.2", "1.1.1.4"), dns(90, "10.0.0.2", "1.1.1.6"), dns(3000, "10.0.0.2", "8.8.8.8")},
			[]string{"50 1.1.1.6", "2000 1.1.1.5"},
		},
		{"no DNS at all", []*flow.Flow{conn(0, "10.0.0.1", "1.1.1.4"), conn(900, "10.0.0.1", "1.1.1.4")}, nil, nil},
		{
			"multicast DNS does not show that DNS is seen",
			[]*flow.Flow{conn(0, "10.0.0.1", "1.1.1.4"), conn(900, "10.0.0.1", "1.1.1.4")},
			[]*flow.Flow{func() *flow.Flow { f := dns(0, "10.0.0.1", "10.0.0.9"); f.DstPort = 5353; return f }()},
			nil,
		},
		{
			"IPv6 answers and answers with aliases",
			[]*flow.Flow{conn(1, "fd00::1", "2606:4700::1111"), conn(1, "10.0.0.1", "8.8.4.4"), conn(2, "fd00::1", "2606:4700::2222")},
			[]*flow.Flow{dns(0, "10.0.0.2", "edge.example.net", "2606:4700::1111"), dns(0.5, "10.0.0.2", "a.example.1", "8.8.4.4", "TXT 5 8.8.8")},
			[]string{"2 2606:4700::2222"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			logs := [][]*flow.Flow{c.conn, c.dns}
			if c.dns == nil {
				logs = logs[:1]
			}
			got := reported(modtest.Skew(t, connnodns.Spec, connnodns.Spec.Defaults(), logs...))
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestNotConsidered lists connections that need no name.
func TestNotConsidered(t *testing.T) {
	with := func(f *flow.Flow, change func(*flow.Flow)) *flow.Flow { change(f); return f }
	for name, f := range map[string]*flow.Flow{
		"private destination":   conn(1, "10.0.0.1", "10.0.0.2"),
		"multicast":             conn(1, "10.0.0.1", "239.255.255.250"),
		"shared address space":  conn(1, "10.0.0.1", "100.64.0.1"),
		"broadcast":             conn(1, "10.0.0.1", "255.255.255.255"),
		"foreign originator":    conn(1, "5.6.7.8", "1.2.3.4"),
		"ICMP":                  with(conn(1, "10.0.0.1", "1.2.3.4"), func(f *flow.Flow) { f.Proto = flow.ICMP }),
		"DNS by service":        with(conn(1, "10.0.0.1", "1.2.3.4"), func(f *flow.Flow) { f.Service = "dns" }),
		"DNS by port":           with(conn(1, "10.0.0.1", "1.2.3.4"), func(f *flow.Flow) { f.DstPort = 53 }),
		"DNS over TLS":          with(conn(1, "10.0.0.1", "1.2.3.4"), func(f *flow.Flow) { f.DstPort = 853 }),
		"no destination logged": with(conn(1, "10.0.0.1", "1.2.3.4"), func(f *flow.Flow) { f.Dst = netip.Addr{} }),
		"no source logged":      with(conn(1, "10.0.0.1", "1.2.3.4"), func(f *flow.Flow) { f.Src = netip.Addr{} }),
	} {
		t.Run(name, func(t *testing.T) {
			got := modtest.Skew(t, connnodns.Spec, connnodns.Spec.Defaults(),
				[]*flow.Flow{f}, []*flow.Flow{dns(0, "10.0.0.2", "8.8.4.4"), dns(60, "10.0.0.2", "8.8.4.4")})
			if len(got) > 0 {
				t.Errorf("reported: %v", got)
			}
		})
	}
}

// TestScannerIsBounded shows what a host that tries many addresses costs.
func TestScannerIsBounded(t *testing.T) {
	cfg := &connnodns.Config{MaxPerSource: 3}
	var cs []*flow.Flow
	for i := range 20 {
		c := conn(float64(i), "10.0.0.1", fmt.Sprintf("1.2.3.%d", i+1))
		c.State = flow.NotEstablished
		cs = append(cs, c)
	}
	got := modtest.Skew(t, connnodns.Spec, cfg, cs, []*flow.Flow{dns(0, "10.0.0.2", "8.8.4.4"), dns(600, "10.0.0.2", "8.8.4.4")})
	if len(got) != 3 || !strings.Contains(got[2], "Further addresses") {
		t.Errorf("%d reports, want 3 and a word about the rest: %q", len(got), got)
	}
}

// TestHeldIsBounded feeds connections alone: without DNS nothing is reported,
// and the state stays small.
func TestHeldIsBounded(t *testing.T) {
	b := modtest.NewBench[connnodns.State](t, connnodns.Spec, connnodns.Spec.Defaults())
	b.Host.After = func(time.Duration, uint64) { t.Fatal("a timer without DNS") }
	for i := range 100_000 {
		f := conn(float64(i), "10.0.0.1", netip.AddrFrom4([4]byte{1, byte(i >> 16), byte(i >> 8), byte(i)}).String())
		b.Handle(f)
	}
	if n := len(b.State.Pending); n > 1<<14 || len(b.State.Held) != n || b.State.Dropped != int64(100_000-n) || len(b.Evidence) > 0 {
		t.Errorf("%d pending, %d held, %d dropped, %d reported", n, len(b.State.Held), b.State.Dropped, len(b.Evidence))
	}
}

func TestKnownConnectionDoesNotAllocate(t *testing.T) {
	b := modtest.NewBench[connnodns.State](t, connnodns.Spec, connnodns.Spec.Defaults())
	b.Handle(dns(0, "10.0.0.2", "8.8.4.4"))
	f := conn(1, "10.0.0.1", "8.8.4.4")
	if n := testing.AllocsPerRun(100, func() { b.Handle(f) }); n != 0 {
		t.Errorf("%v allocations for a connection that DNS explains", n)
	}
}

func TestConfig(t *testing.T) {
	for _, n := range []int{0, -1, 10_001} {
		_, err := connnodns.Spec.New(&connnodns.Config{MaxPerSource: n}, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("max_per_source: %d", n)) {
			t.Errorf("max_per_source %d: error %v", n, err)
		}
	}
}

// TestRealTraffic looks at a network with three infected hosts, which connect
// to addresses from a list, and a domain controller that does not.
func TestRealTraffic(t *testing.T) {
	dir := "zeek/isc-2021-10/"
	hosts := make(map[string]int)
	for _, e := range modtest.Evidence(t, connnodns.Spec, modtest.Datasets(t, dir+"conn.log", dir+"dns.log")...) {
		hosts[e.Attacker.Value]++
	}
	if hosts["10.10.22.156"] < 20 || hosts["10.10.22.158"] == 0 || hosts["10.10.22.22"] > 0 {
		t.Errorf("reports by host: %v", hosts)
	}
}
