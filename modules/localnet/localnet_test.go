package localnet_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/localnet"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, localnet.Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for want, c := range map[string]localnet.Config{
		"max_per_window: 0 is not in 1..1000":    {DNSAnswers: 1},
		"max_per_window: 1001 is not in 1..1000": {MaxPerWindow: 1001, DNSAnswers: 1},
		"dns_answers: 0 is not in 1..1000":       {MaxPerWindow: 1},
		"dns_answers: 1001 is not in 1..1000":    {MaxPerWindow: 1, DNSAnswers: 1001},
	} {
		if _, err := localnet.Spec.New(&c, modules.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %s", c, err, want)
		}
	}
}

func conn(src, dst string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.Conn)
	f.Src, f.Dst, f.DstPort, f.HasPorts, f.Proto = netip.MustParseAddr(src), netip.MustParseAddr(dst), 445, true, flow.TCP
	return f
}

// bench runs the module on one state in a network of which home is known.
func bench(t *testing.T, home ...string) (run modules.Runner, h *modules.Host, got *[]string) {
	t.Helper()
	run, err := localnet.Spec.New(localnet.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	n := &profile.Network{}
	for _, p := range home {
		n.Home = append(n.Home, netip.MustParsePrefix(p))
	}
	got = new([]string)
	h = &modules.Host{
		Net: n, At: func(t int64) profile.Window { return profile.WindowOf(t, 0, int64(time.Hour)) },
		After: func(time.Duration, uint64) {},
		Emit: func(e evidence.Evidence) {
			*got = append(*got, fmt.Sprintf("%s %.1f %s", e.Level, e.Confidence, e.Victim.Value))
		},
	}
	return run, h, got
}

// TestHome shows what the home networks make of a connection from 10.1.0.1 to
// 10.2.0.1: it weighs something only when they were told, or at least when
// they are no whole block.
func TestHome(t *testing.T) {
	for _, c := range []struct {
		home []string
		want string
	}{
		{nil, "[]"},
		{[]string{"fc00::/7"}, "[]"},
		{[]string{"10.0.0.0/8"}, "[]"},
		{[]string{"10.1.0.0/16"}, "[low 0.5 10.2.0.1]"},
		{[]string{"10.1.0.0/16", "10.2.0.0/16"}, "[]"},
		{[]string{"10.2.0.0/16"}, "[low 0.5 10.2.0.1]"}, // the source is outside
		{[]string{"10.3.0.0/16"}, "[]"},                 // both are
		{[]string{"10.1.0.0/16", "192.168.0.0/16"}, "[low 0.5 10.2.0.1]"},
	} {
		run, h, got := bench(t, c.home...)
		run.Handle(modules.NewContext(h), run.NewState(), conn("10.1.0.1", "10.2.0.1"))
		if s := fmt.Sprint(*got); s != c.want {
			t.Errorf("home %v: got %s, want %s", c.home, s, c.want)
		}
	}
	for home, want := range map[string]string{"192.168.0.0/16": "[info 0.3 10.2.0.1]", "192.168.1.0/24": "[low 0.5 10.2.0.1]"} {
		run, h, got := bench(t, home)
		run.Handle(modules.NewContext(h), run.NewState(), conn("192.168.1.1", "10.2.0.1"))
		if s := fmt.Sprint(*got); s != want {
			t.Errorf("home %v: got %s, want %s", home, s, want)
		}
	}
}

// TestBounds has a host scan 65,536 addresses outside and ask as many servers.
func TestBounds(t *testing.T) {
	run, h, got := bench(t, "10.1.0.0/16")
	cx, st := modules.NewContext(h), run.NewState().(*localnet.State)
	d := new(flow.Flow)
	d.Reset(flow.DNS)
	d.Src, d.DstPort, d.Proto = netip.MustParseAddr("10.1.0.1"), 53, flow.UDP
	f := conn("10.1.0.1", "10.2.0.1")
	for i := range 1 << 16 {
		f.Dst = netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)})
		d.Dst = f.Dst
		run.Handle(cx, st, f)
		run.Handle(cx, st, d)
	}
	if len(*got) != 10 || st.Seen.Len() != 10 || st.Asked.Len() != 64 || len(st.Pending) != 64 {
		t.Errorf("%d reports, %d addresses, %d servers, %d look-ups", len(*got), st.Seen.Len(), st.Asked.Len(), len(st.Pending))
	}
	if n := testing.AllocsPerRun(100, func() { run.Handle(cx, st, f); run.Handle(cx, st, d) }); n != 0 {
		t.Errorf("%v allocations for one more address", n)
	}
}

// TestManyHosts has 20,000 hosts go outside and ask 20,000 servers there.
func TestManyHosts(t *testing.T) {
	run, h, got := bench(t, "10.1.0.0/16")
	cx, st := modules.NewContext(h), run.NewState().(*localnet.State)
	d := new(flow.Flow)
	d.Reset(flow.DNS)
	d.DstPort, d.Proto, d.DNS.RCode, d.DNS.Response = 53, flow.UDP, "NOERROR", true
	f := conn("10.1.0.1", "10.2.0.1")
	for i := range 20_000 {
		d.Src = netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		d.Dst = netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)})
		f.Src = d.Src
		run.Handle(cx, st, f)
		run.Handle(cx, st, d)
	}
	if len(*got) != 20_000 || st.Seen.Len() > 4096 || st.Hosts.Len() > 4096 || st.Asked.Len() > 4096 || len(st.Pending) > 4096 || st.Servers.Len() > 1024 {
		t.Errorf("%d reports, %d addresses, %d hosts, %d asked, %d look-ups, %d servers", len(*got), st.Seen.Len(), st.Hosts.Len(), st.Asked.Len(), len(st.Pending), st.Servers.Len())
	}
	for k := range st.Next {
		run.Fire(cx, st, k+1)
	}
	if len(st.Pending) != 0 || len(*got) != 24_096 {
		t.Errorf("%d look-ups wait, %d reports", len(st.Pending), len(*got))
	}
}

// TestDNSAhead has the log of DNS be read to its end before the timers run:
// what it says later than the moment of a decision must not count.
func TestDNSAhead(t *testing.T) {
	run, h, got := bench(t, "10.1.0.0/16")
	cx, st := modules.NewContext(h), run.NewState().(*localnet.State)
	type timer struct {
		at  int64
		key uint64
	}
	var timers []timer
	h.After = func(d time.Duration, key uint64) { timers = append(timers, timer{h.Now + int64(d), key}) }
	for i := range 8 {
		f := conn("10.1.0.1", "10.2.0.53")
		f.Reset(flow.DNS)
		f.Src, f.Dst, f.DstPort, f.Proto = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.53"), 53, flow.UDP
		f.Time = int64(i) * int64(20*time.Minute)
		f.DNS.RCode, f.DNS.Response = "NOERROR", true
		h.Now, h.Record = f.Time, f.Time
		run.Handle(cx, st, f)
	}
	for _, x := range timers {
		h.Now = x.at
		run.Fire(cx, st, x.key)
	}
	if s := fmt.Sprint(*got); s != "[low 0.5 10.2.0.53]" || len(timers) != 2 {
		t.Errorf("got %s from %d look-ups, want the first one of two: by the other the server had answered five times", s, len(timers))
	}
}

// TestRealTraffic sees honest hosts stay within their network.
func TestRealTraffic(t *testing.T) {
	for _, file := range []string{
		"benign/ubuntu-2023-02-25/conn.log.labeled", "benign/win7ad-2023-02-26/conn.log.labeled",
		"argus/benign-bittorrent-normal-7.binetflow", "zeek/isc-2021-10/conn.log",
	} {
		for _, e := range modtest.Evidence(t, localnet.Spec, modtest.Datasets(t, file)...) {
			t.Errorf("%s: %s", file, e.Description)
		}
	}
	n := 0
	for _, e := range modtest.Evidence(t, localnet.Spec, modtest.Datasets(t, "zeek/portscan/conn.log")...) {
		if n++; e.Level != evidence.Info {
			t.Errorf("home was not told: %s %s", e.Level, e.Description)
		}
	}
	if n == 0 {
		t.Error("a scan of other private networks is not told")
	}
}
