package dnsnoconn_test

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
	"github.com/slips-go/slips/modules/dnsnoconn"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, dnsnoconn.Spec, "testdata/*.txtar") }

const (
	base = 1_700_000_000 // s
	min  = 60.0
)

// conn is a connection of 10.0.0.1 that lasts dur seconds.
func conn(sec, dur float64, dst string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.Conn)
	f.Time, f.Duration = base*1e9+int64(sec*1e9), int64(dur*1e9)
	f.Src, f.Dst, f.DstPort, f.Proto = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr(dst), 443, flow.TCP
	f.State, f.UID = flow.Established, fmt.Sprintf("C%v", sec)
	return f
}

func dns(sec float64, name string, answers ...string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.DNS)
	f.Time = base*1e9 + int64(sec*1e9)
	f.Src, f.Dst, f.DstPort, f.Proto = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.53"), 53, flow.UDP
	f.UID = fmt.Sprintf("D%v", sec)
	f.DNS.Query, f.DNS.QType, f.DNS.RCode, f.DNS.Response = name, "A", "NOERROR", true
	f.DNS.Answers = append(f.DNS.Answers, answers...)
	return f
}

// reported returns the names reported, with the second of the look-up.
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

// look is a connection to the resolver: conn.log has it even for a host that
// connects to nothing else.
func look(sec float64) *flow.Flow {
	f := conn(sec, 0, "10.0.0.53")
	f.DstPort, f.Proto, f.Service = 53, flow.UDP, "dns"
	return f
}

// TestOrderOfLogs holds the module to the same evidence whichever log is
// ahead, by a few records or by all of them.
func TestOrderOfLogs(t *testing.T) {
	for _, c := range []struct {
		name string
		dns  []*flow.Flow
		conn []*flow.Flow
		want []string
	}{
		{
			"a name without a connection is reported, one with a connection is not",
			[]*flow.Flow{dns(0, "a.example.com", "1.1.1.1"), dns(1, "b.example.com", "1.1.1.2")},
			[]*flow.Flow{look(0), conn(2, 1, "1.1.1.2"), look(40 * min)},
			[]string{"0 a.example.com"},
		},
		{
			"a connection may come until 30 minutes later, and not afterwards",
			[]*flow.Flow{dns(0, "a.example.com", "1.1.1.1"), dns(1, "b.example.com", "1.1.1.2"), dns(3*60*min, "c.example.com", "1.1.1.2")},
			[]*flow.Flow{look(0), conn(30*min-1, 1, "1.1.1.1"), conn(30*min+2, 1, "1.1.1.2"), conn(3*60*min+1, 1, "1.1.1.2")},
			[]string{"1 b.example.com"},
		},
		{
			"a connection may have ended up to an hour before",
			[]*flow.Flow{dns(70*min, "a.example.com", "1.1.1.1"), dns(70*min, "b.example.com", "1.1.1.2"), dns(120*min, "c.example.com", "1.1.1.2")},
			[]*flow.Flow{conn(0, 11*min, "1.1.1.1"), conn(0, 9*min, "1.1.1.2"), look(70 * min), conn(125*min, 1, "1.1.1.2")},
			[]string{"4200 b.example.com"},
		},
		{
			"any of the answers will do, and those of an alias",
			[]*flow.Flow{
				dns(0, "a.example.com", "edge.example.net", "1.1.1.1", "1.1.1.2"),
				dns(1, "edge.example.net", "1.1.1.8"),
				dns(2, "b.example.com", "edge.example.net", "1.1.1.9"),
			},
			[]*flow.Flow{look(0), conn(5, 1, "1.1.1.2"), conn(6, 1, "1.1.1.8"), look(60 * min)},
			nil,
		},
		{
			"a name with an address of the other family is not judged: the host has another profile for it",
			[]*flow.Flow{
				dns(0, "a.example.com", "1.1.1.1"),
				func() *flow.Flow { f := dns(0.1, "a.example.com", "2606:4700::1"); f.DNS.QType = "AAAA"; return f }(),
				func() *flow.Flow { f := dns(5, "b.example.com", "2606:4700::2"); f.DNS.QType = "AAAA"; return f }(),
				dns(5.1, "b.example.com", "1.1.1.3"),
				dns(6, "c.example.com", "1.1.1.4"),
			},
			[]*flow.Flow{look(0), look(60 * min)},
			[]string{"6 c.example.com"},
		},
		{
			"what the name stood for before counts too",
			[]*flow.Flow{dns(0, "a.example.com", "1.1.1.1"), dns(50*min, "a.example.com", "1.1.1.2")},
			[]*flow.Flow{look(0), conn(1, 10*min, "1.1.1.1"), look(50 * min), conn(2*60*min, 1, "1.1.1.9")},
			nil,
		},
		{
			"once in a window for each name, and again in the next",
			[]*flow.Flow{
				dns(0, "a.example.com", "1.1.1.1"), dns(5*min, "A.example.COM", "1.1.1.1"), dns(35*min, "a.example.com", "1.1.1.1"),
				dns(70*min, "a.example.com", "1.1.1.1"),
			},
			[]*flow.Flow{look(0), look(120 * min)},
			[]string{"0 a.example.com", "4200 a.example.com"},
		},
		{
			"only names with connection records in reach are judged",
			[]*flow.Flow{dns(0, "a.example.com", "1.1.1.1"), dns(100*min, "b.example.com", "1.1.1.2"), dns(200*min, "c.example.com", "1.1.1.1")},
			[]*flow.Flow{look(100 * min), look(200 * min)},
			[]string{"6000 b.example.com", "12000 c.example.com"},
		},
		{
			"connections hours later do not hide an earlier one",
			[]*flow.Flow{dns(10, "a.example.com", "1.1.1.1")},
			[]*flow.Flow{conn(0, 1, "1.1.1.1"), conn(11, 1, "1.1.1.1"), conn(180*min, 1, "1.1.1.1"), conn(360*min, 1, "1.1.1.1")},
			nil,
		},
		{
			"nor do they stand for one that never came",
			[]*flow.Flow{dns(90*min, "a.example.com", "1.1.1.1")},
			[]*flow.Flow{conn(0, 1, "1.1.1.1"), conn(180*min, 1, "1.1.1.1")},
			[]string{"5400 a.example.com"},
		},
		{
			"a connection that was logged late counts, before and between those that are known",
			[]*flow.Flow{dns(10, "a.example.com", "1.1.1.1")},
			[]*flow.Flow{conn(180*min, 1, "1.1.1.1"), conn(11, 1, "1.1.1.1"), conn(0, 1, "1.1.1.1"), conn(181*min, 1, "1.1.1.1")},
			nil,
		},
		{"no connection records at all", []*flow.Flow{dns(0, "a.example.com", "1.1.1.1"), dns(70*min, "b.example.com", "1.1.1.2")}, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			logs := [][]*flow.Flow{c.dns, c.conn}
			if c.conn == nil {
				logs = logs[:1]
			}
			got := reported(modtest.Skew(t, dnsnoconn.Spec, dnsnoconn.Spec.Defaults(), logs...))
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestNotConsidered lists look-ups that need no connection.
func TestNotConsidered(t *testing.T) {
	with := func(change func(*flow.Flow)) *flow.Flow {
		f := dns(0, "a.example.com", "1.1.1.1")
		change(f)
		return f
	}
	for name, f := range map[string]*flow.Flow{
		"text record":      with(func(f *flow.Flow) { f.DNS.QType = "TXT" }),
		"no such name":     with(func(f *flow.Flow) { f.DNS.RCode = "NXDOMAIN" }),
		"no rcode":         with(func(f *flow.Flow) { f.DNS.RCode = "" }),
		"no answers":       with(func(f *flow.Flow) { f.DNS.Answers = nil }),
		"no name":          with(func(f *flow.Flow) { f.DNS.Query = "" }),
		"alias only":       dns(0, "a.example.com", "edge.example.net"),
		"sink-hole":        dns(0, "ads.example.com", "0.0.0.0"),
		"sink-hole, local": dns(0, "ads.example.com", "127.0.0.1", "1.1.1.1"),
		"sink-hole, IPv6":  dns(0, "ads.example.com", "::"),
		"private answer":   dns(0, "nas.example.com", "192.168.1.1"),
		"reverse name":     dns(0, "4.3.2.1.in-addr.ARPA", "1.1.1.1"),
		"local name":       dns(0, "printer.local", "1.1.1.1"),
		"local, with dot":  dns(0, "printer.LAN.", "1.1.1.1"),
		"single label":     dns(0, "printer", "1.1.1.1"),
		"wpad":             dns(0, "WPAD.example.com", "1.1.1.1"),
		"wildcard":         dns(0, "*.example.com", "1.1.1.1"),
		"Windows' test":    dns(0, "dns.msftncsi.com", "131.107.255.255"),
		"hash registry":    dns(0, "d41d8cd9.malware.hash.cymru.com", "1.1.1.1"),
	} {
		t.Run(name, func(t *testing.T) {
			got := modtest.Skew(t, dnsnoconn.Spec, dnsnoconn.Spec.Defaults(), []*flow.Flow{f}, []*flow.Flow{look(0), look(60 * min)})
			if len(got) > 0 {
				t.Errorf("reported: %v", got)
			}
		})
	}
}

func TestReportsAreBounded(t *testing.T) {
	var ds []*flow.Flow
	for i := range 20 {
		ds = append(ds, dns(float64(i), fmt.Sprintf("n%d.example.com", i), fmt.Sprintf("1.1.1.%d", i+1)))
	}
	cfg := &dnsnoconn.Config{Wait: time.Minute, MaxPerWindow: 3}
	got := modtest.Skew(t, dnsnoconn.Spec, cfg, ds, []*flow.Flow{look(0), look(60 * min)})
	if len(got) != 3 || !strings.Contains(got[2], "Further names") {
		t.Errorf("%d reports, want 3 and a word about the rest: %q", len(got), got)
	}
}

// TestStateIsBounded feeds more names and addresses than the limits allow.
func TestStateIsBounded(t *testing.T) {
	b := modtest.NewBench[dnsnoconn.State](t, dnsnoconn.Spec, dnsnoconn.Spec.Defaults())
	b.Host.Emit = func(e evidence.Evidence) { t.Errorf("reported: %v", e) }
	for i := range 20_000 {
		ip := netip.AddrFrom4([4]byte{1, 1, byte(i >> 8), byte(i)}).String()
		for _, f := range []*flow.Flow{dns(float64(i)/100, fmt.Sprintf("n%d.example.com", i), ip), conn(float64(i)/100, 1, "2.2."+ip[4:])} {
			b.Handle(f)
		}
	}
	if b.State.Contacts.Len() > 2048 || b.State.Names.Len() > 1024 || len(b.State.Pending) > 256 || b.State.Dropped != 20_000-256 {
		t.Errorf("%d contacts, %d names, %d pending, %d dropped", b.State.Contacts.Len(), b.State.Names.Len(), len(b.State.Pending), b.State.Dropped)
	}
}

// TestTimers holds names that are due together to one timer, and a name that
// waited for the first connection record to its own, which is later: the timer
// of names that are settled decides nothing.
func TestTimers(t *testing.T) {
	b := modtest.NewBench[dnsnoconn.State](t, dnsnoconn.Spec, dnsnoconn.Spec.Defaults())
	var keys []uint64
	var waits []time.Duration
	var told []string
	b.Host.Emit = func(e evidence.Evidence) { told = append(told, e.Subject) }
	b.Host.After = func(d time.Duration, key uint64) { keys, waits = append(keys, key), append(waits, d) }
	for _, f := range []*flow.Flow{
		dns(0, "a.example.com", "1.1.1.1"), conn(1, 1, "1.1.1.9"), dns(2, "b.example.com", "1.1.1.2"), dns(3, "c.example.com", "1.1.1.3"),
		conn(4, 1, "1.1.1.2"), conn(5, 1, "1.1.1.3"),
	} {
		b.Handle(f)
	}
	if len(keys) != 2 || waits[0] < 90*time.Minute || waits[1] < 30*time.Minute || waits[1] > 38*time.Minute {
		t.Fatalf("timers %v after %v", keys, waits)
	}
	b.Host.Now = (base + 38*60) * 1e9
	if b.Fire(keys[1]); len(told) > 0 {
		t.Errorf("reported with the names that were due: %v", told)
	}
	b.Host.Now = (base + 98*60) * 1e9
	if b.Fire(keys[0]); len(told) != 1 || told[0] != "a.example.com" {
		t.Errorf("reported in the end: %v", told)
	}
}

func TestContactDoesNotAllocate(t *testing.T) {
	b := modtest.NewBench[dnsnoconn.State](t, dnsnoconn.Spec, dnsnoconn.Spec.Defaults())
	f := conn(0, 1, "1.1.1.1")
	b.Handle(f)
	if n := testing.AllocsPerRun(100, func() { b.Handle(f) }); n != 0 {
		t.Errorf("%v allocations for a connection to a known address", n)
	}
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]dnsnoconn.Config{
		"wait: 0s":            {MaxPerWindow: 1},
		"wait: 25h0m0s":       {Wait: 25 * time.Hour, MaxPerWindow: 1},
		"max_per_window: 0":   {Wait: time.Hour},
		"max_per_window: -10": {Wait: time.Hour, MaxPerWindow: -10},
	} {
		if _, err := dnsnoconn.Spec.New(&c, modules.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", c, err, want)
		}
	}
}

// TestRealTraffic looks at a network with an infected host that resolves
// names of its own and connects to none of them.
func TestRealTraffic(t *testing.T) {
	dir := "zeek/isc-2021-10/"
	var names []string
	for _, e := range modtest.Evidence(t, dnsnoconn.Spec, modtest.Datasets(t, dir+"conn.log", dir+"dns.log")...) {
		if e.Attacker.Value == "10.10.22.158" && strings.HasSuffix(e.Victim.Value, ".bazar") {
			names = append(names, e.Victim.Value)
		}
	}
	if len(names) != 4 {
		t.Errorf("names without a connection: %v", names)
	}
}

// TestEndlessConnection feeds a duration that no time can hold.
func TestEndlessConnection(t *testing.T) {
	c := conn(0, 0, "1.1.1.1")
	c.Duration = math.MaxInt64
	got := modtest.Skew(t, dnsnoconn.Spec, dnsnoconn.Spec.Defaults(),
		[]*flow.Flow{dns(120*min, "a.example.com", "1.1.1.1")}, []*flow.Flow{c, look(240 * min)})
	if len(got) > 0 {
		t.Errorf("reported: %v", got)
	}
}
