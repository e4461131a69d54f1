package portproto_test

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/portproto"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, portproto.Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for _, n := range []int{-1, 0, 1001} {
		_, err := portproto.Spec.New(&portproto.Config{MaxPerWindow: n}, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("max_per_window: %d is not in 1..1000", n)) {
			t.Errorf("%d: error %v", n, err)
		}
	}
}

// base is the beginning of a slot of five minutes, in seconds.
const base = 1_700_000_100

func record(k flow.Kind, sec float64, dst string, port uint16) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(k)
	f.Time = base*1e9 + int64(sec*1e9)
	f.Src, f.Dst, f.SrcPort, f.DstPort, f.Proto = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr(dst), 40000, port, flow.TCP
	f.UID = fmt.Sprint(k, sec)
	return f
}

func conn(sec float64, dst string, port uint16, service string) *flow.Flow {
	f := record(flow.Conn, sec, dst, port)
	f.State, f.Service, f.OrigBytes, f.RespBytes, f.History = flow.Established, service, 100, 100, "ShADadFf"
	return f
}

func ssl(sec float64, dst string) *flow.Flow  { return record(flow.SSL, sec, dst, 443) }
func http(sec float64, dst string) *flow.Flow { return record(flow.HTTP, sec, dst, 80) }

// long lasts some seconds.
func long(f *flow.Flow, sec float64) *flow.Flow {
	f.Duration = int64(sec * 1e9)
	return f
}

// TestOrderOfLogs holds the module to the same evidence whichever of the three
// logs is ahead.
func TestOrderOfLogs(t *testing.T) {
	const a, b, other = "20.0.0.1", "20.0.0.2", "20.9.9.9"
	for _, c := range []struct {
		name            string
		conn, ssl, http []*flow.Flow
		want            []string // types and seconds
	}{
		{
			"five minutes before and after count, ten do not",
			[]*flow.Flow{conn(1000, a, 443, ""), conn(1000, b, 443, ""), conn(5000, a, 443, ""), conn(9000, b, 443, ""), conn(20000, other, 443, "ssl")},
			[]*flow.Flow{ssl(0, other), ssl(700, a), ssl(1300, b), ssl(4400, a), ssl(9600, b), ssl(20000, other)},
			[]*flow.Flow{http(0, other), http(20000, other)},
			[]string{"NON_SSL 5000", "NON_SSL 9000"},
		},
		{
			"each port has its own protocol",
			[]*flow.Flow{conn(1000, a, 443, ""), conn(1000, a, 80, ""), conn(20000, other, 443, "ssl")},
			[]*flow.Flow{ssl(0, other), ssl(1000, a), ssl(20000, other)},
			[]*flow.Flow{http(0, other), http(20000, other)},
			[]string{"NON_HTTP 1000"},
		},
		{
			"before the first name nothing is judged",
			[]*flow.Flow{conn(0, a, 443, ""), conn(9000, b, 443, ""), conn(20000, other, 443, "")},
			[]*flow.Flow{ssl(8000, other), ssl(20000, other)},
			[]*flow.Flow{http(8000, other), http(20000, other)},
			[]string{"NON_SSL 9000"},
		},
		{
			"hours of recognised connections around one that is not",
			[]*flow.Flow{
				conn(0, other, 443, "ssl"), conn(0, a, 443, "ssl"), conn(100, a, 443, ""), long(conn(7000, a, 443, "ssl"), 4000), conn(9000, a, 443, ""),
				conn(13000, a, 443, ""), conn(40000, a, 443, "ssl"), conn(80000, other, 443, "ssl"),
			},
			[]*flow.Flow{ssl(0, other), ssl(80000, other)},
			[]*flow.Flow{http(0, other), http(80000, other)},
			[]string{"NON_SSL 13000"},
		},
		{
			"what is logged long after it began does not count for what was judged by then",
			[]*flow.Flow{conn(1000, a, 443, ""), conn(20000, other, 443, "ssl")},
			[]*flow.Flow{ssl(0, other), ssl(6000, other), ssl(1000, a), ssl(20000, other)},
			[]*flow.Flow{http(0, other), http(20000, other)},
			[]string{"NON_SSL 1000"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, l := range modtest.Skew(t, portproto.Spec, portproto.Spec.Defaults(), c.conn, c.ssl, c.http) {
				p := strings.Fields(l)
				var sec int64
				fmt.Sscan(p[2], &sec)
				kind, _, _ := strings.Cut(p[0], "_PORT")
				got = append(got, fmt.Sprintf("%s %d", kind, sec-base))
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestBounds feeds as many connections as a scanner makes, of either kind.
func TestBounds(t *testing.T) {
	b := modtest.NewBench[portproto.State](t, portproto.Spec, portproto.Spec.Defaults())
	n := 0
	b.Host.Emit = func(evidence.Evidence) { n++ }
	for i := range 100_000 {
		ip := netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}).String()
		for _, f := range []*flow.Flow{conn(1, ip, 443, ""), conn(1, ip, 80, "http")} {
			b.Handle(f)
		}
	}
	// A filter as full as that takes some connections for explained.
	if len(b.State.Slots) != 1 || len(b.State.Pending) != 1<<14 || b.State.Dropped < 70_000 {
		t.Errorf("%d slots, %d pending, %d dropped", len(b.State.Slots), len(b.State.Pending), b.State.Dropped)
	}
	b.Host.Now += int64(time.Hour)
	for k := range uint64(1 << 14) {
		b.Fire(k + 1)
	}
	if n != 20 || b.State.Reported.Len() > 1<<14 {
		t.Errorf("%d reports of one host, want 20; %d servers kept", n, b.State.Reported.Len())
	}
	f := conn(2, "20.0.0.1", 443, "ssl")
	b.Handle(f)
	if n := testing.AllocsPerRun(100, func() { b.Handle(f) }); n != 0 {
		t.Errorf("%v allocations for a recognised connection", n)
	}
}

// TestFilter has a network of 10,000 pairs in five minutes: what was recognised
// explains itself, and next to nothing else.
func TestFilter(t *testing.T) {
	b := modtest.NewBench[portproto.State](t, portproto.Spec, portproto.Spec.Defaults())
	feed := func(from, to int, service string) {
		for i := from; i < to; i++ {
			f := conn(1, netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}).String(), 443, service)
			b.Handle(f)
		}
	}
	feed(0, 10_000, "ssl")
	feed(0, 10_000, "")
	if n := len(b.State.Pending); n != 0 {
		t.Errorf("%d connections wait although they are explained", n)
	}
	feed(10_000, 20_000, "")
	if n := len(b.State.Pending); n < 9900 {
		t.Errorf("%d of 10,000 connections wait", n)
	}
}

// TestLongAgo has a day of recognised connections, and logs that are hours
// ahead: no more than two hours are kept, the last ones.
func TestLongAgo(t *testing.T) {
	b := modtest.NewBench[portproto.State](t, portproto.Spec, portproto.Spec.Defaults())
	for i := range 24 * 60 {
		f := conn(float64(i)*60, "20.0.0.1", 443, "ssl")
		b.Handle(f)
	}
	last := int64(base+24*3600)/300 - 1
	for i, s := range b.State.Slots {
		if want := last - 23 + int64(i); s.N != want {
			t.Errorf("slot %d is number %d, want %d", i, s.N, want)
		}
	}
	f := ssl(60, "20.0.0.1") // of a log that is far behind
	if b.Handle(f); len(b.State.Slots) != 24 || b.State.Slots[0].N != last-23 {
		t.Errorf("%d slots from %d on", len(b.State.Slots), b.State.Slots[0].N)
	}
}

// TestEndlessConnection feeds a duration that no time can hold.
func TestEndlessConnection(t *testing.T) {
	c := conn(0, "20.0.0.1", 443, "ssl")
	c.Duration = math.MaxInt64
	if got := modtest.Skew(t, portproto.Spec, portproto.Spec.Defaults(), []*flow.Flow{c, conn(60, "20.0.0.1", 443, "")}); len(got) > 0 {
		t.Errorf("reported: %v", got)
	}
}

// TestRealTraffic finds the connections that are not what their port says, and
// none on honest days, even where packets were lost or came out of order.
func TestRealTraffic(t *testing.T) {
	for _, c := range []struct {
		dir, victim string
		typ         evidence.Type
		logs        []string
	}{
		{"zeek/test9-mixed/", "194.132.197.198", portproto.NonHTTP, []string{"conn.log", "ssl.log", "http.log"}},
		{"zeek/test9-mixed/", "194.132.197.198", portproto.NonHTTP, []string{"conn.log"}},
		{"zeek/test10-mixed/", "185.247.224.89", portproto.NonSSL, []string{"conn.log", "ssl.log"}},
		{"zeek/test10-mixed/", "185.247.224.89", portproto.NonSSL, []string{"conn.log"}},
		{"zeek/isc-2021-10/", "45.153.241.142", portproto.NonSSL, []string{"conn.log", "ssl.log", "http.log"}},
	} {
		var paths []string
		for _, l := range c.logs {
			paths = append(paths, c.dir+l)
		}
		found := false
		for _, e := range modtest.Evidence(t, portproto.Spec, modtest.Datasets(t, paths...)...) {
			found = found || e.Type == c.typ && e.Victim.Value == c.victim
			if e.Victim.Value != c.victim && len(c.logs) > 1 { // conn.log alone has lost the name of one that http.log knows
				t.Errorf("%s: %s", c.dir, e.Description)
			}
		}
		if !found {
			t.Errorf("%s%v: no %s", c.dir, c.logs, c.typ)
		}
	}
	for _, paths := range [][]string{
		{"benign/ubuntu-2023-02-25/conn.log.labeled"},
		{"benign/win7ad-2023-02-26/conn.log.labeled"},
		{"argus/benign-bittorrent-normal-7.binetflow"},
		{"zeek/mixed-008/data/conn.log.labeled", "zeek/mixed-008/data/ssl.log.labeled", "zeek/mixed-008/data/http.log.labeled"},
		{"zeek/mixed-012/data/conn.log.labeled", "zeek/mixed-012/data/ssl.log.labeled", "zeek/mixed-012/data/http.log.labeled"},
	} {
		for _, e := range modtest.Evidence(t, portproto.Spec, modtest.Datasets(t, paths...)...) {
			t.Errorf("%s: %s", paths[0], e.Description)
		}
	}
}
