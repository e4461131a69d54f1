package ddos_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/ddos"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, ddos.Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for want, change := range map[string]func(*ddos.Config){
		`min_connections: 9 is`:  func(c *ddos.Config) { c.MinConnections = 9 },
		`min_requests: 10001 is`: func(c *ddos.Config) { c.MinRequests = 10_001 },
		`min_packets: 1000 is`:   func(c *ddos.Config) { c.MinPackets = 1000 },
	} {
		c := ddos.Spec.Defaults().(*ddos.Config)
		change(c)
		_, err := ddos.Spec.New(c, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), "module ddos: "+want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func conn(sec float64, src, dst netip.Addr, port uint16, state flow.State) *flow.Flow {
	f := &flow.Flow{
		Kind: flow.Conn, Time: int64(sec * 1e9), Src: src, Dst: dst, SrcPort: 40000, DstPort: port, HasPorts: true, Proto: flow.TCP,
		State: state, RawState: "S0", OrigPkts: 1, UID: "C",
	}
	if state == flow.Established {
		f.RawState, f.OrigPkts, f.RespPkts, f.RespBytes = "SF", 5, 5, 500
	}
	return f
}

var bot = netip.MustParseAddr("10.0.0.66")

// TestRate says how many failed connections in which time are a flood. They
// are counted by a sample, so the numbers keep their distance to the threshold.
func TestRate(t *testing.T) {
	for _, c := range []struct {
		name   string
		n      int
		gap    float64 // s
		state  flow.State
		change func(*flow.Flow)
		want   string // step/confidence
	}{
		{"700 in a minute", 700, 0.08, flow.NotEstablished, nil, "1/0.6"},
		{"500", 500, 0.1, flow.NotEstablished, nil, ""},
		{"seven in a second, for half an hour", 12_600, 1.0 / 7, flow.NotEstablished, nil, ""},
		{"a hundred in a second", 6000, 0.01, flow.NotEstablished, nil, "1/0.6 2/0.8 3/1 4/1"},
		{"answered: 2500", 2500, 0.01, flow.Established, nil, ""},
		{"answered: 3500", 3500, 0.01, flow.Established, nil, "1/0.3"},
		{"answered, but not short", 6000, 0.005, flow.Established, func(f *flow.Flow) { f.Duration = 6e9 }, ""},
		{"still open", 6000, 0.005, flow.NotEstablished, func(f *flow.Flow) { f.Open = true }, ""},
		{"silent UDP to one port", 3500, 0.01, flow.NotEstablished, func(f *flow.Flow) { f.Proto = flow.UDP }, "1/0.6"},
		{"answered UDP", 9000, 0.005, flow.Established, func(f *flow.Flow) { f.Proto = flow.UDP }, ""},
		{"silent UDP to port after port", 9000, 0.005, flow.NotEstablished, func(f *flow.Flow) { f.Proto, f.DstPort = flow.UDP, uint16(f.Time/1e6) }, ""},
		{"answers of a web server", 9000, 0.005, flow.NotEstablished, func(f *flow.Flow) { f.Proto, f.SrcPort, f.DstPort = flow.UDP, 443, 50000 }, ""},
		{"to a group", 9000, 0.005, flow.NotEstablished, func(f *flow.Flow) { f.Dst = netip.MustParseAddr("239.1.2.3") }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			b := modtest.NewBench[ddos.State](t, ddos.Spec, ddos.Spec.Defaults())
			b.Host.Emit = func(e evidence.Evidence) { got = append(got, fmt.Sprintf("%d/%.1g", e.Step, e.Confidence)) }
			run, _ := ddos.Spec.New(ddos.Spec.Defaults(), modules.Env{})
			for i := range c.n {
				f := conn(30+float64(i)*c.gap, bot, modtest.Public(1), 80, c.state)
				if c.change != nil {
					c.change(f)
				}
				if run.Chooser().Wants(f) {
					b.Handle(f)
				}
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got %s, want %s", s, c.want)
			}
		})
	}
}

// TestSample holds the estimate to its promise: the one flow in eight that is
// looked at gives the rate to an eighth, whatever the flows have in common.
func TestSample(t *testing.T) {
	run, err := ddos.Spec.New(ddos.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(i int, f *flow.Flow){
		"times a second apart":          func(i int, f *flow.Flow) { f.Time = int64(i) * 1e9 },
		"times a microsecond apart":     func(i int, f *flow.Flow) { f.Time = int64(i) * 1e3 },
		"one time, port after port":     func(i int, f *flow.Flow) { f.Time, f.SrcPort = 1e18, uint16(i) },
		"one time, ports of the target": func(i int, f *flow.Flow) { f.Time, f.DstPort = 1e18, uint16(i) },
		"one time, durations":           func(i int, f *flow.Flow) { f.Time, f.Duration = 1e18, int64(i)*1e3 },
	} {
		for _, c := range []struct {
			state flow.State
			every int
		}{{flow.NotEstablished, 8}, {flow.Established, 32}} {
			const n = 40_000
			got := 0
			for i := range n {
				f := conn(0, bot, modtest.Public(1), 80, c.state)
				change(i, f)
				if run.Chooser().Wants(f) {
					got += c.every
				}
			}
			if got < n*9/10 || got > n*11/10 {
				t.Errorf("%s, one in %d: %d are taken for %d", name, c.every, n, got)
			}
		}
	}
}

// TestDisorder writes the flows of a flood in the order of their ends.
func TestDisorder(t *testing.T) {
	n := 0
	b := modtest.NewBench[ddos.State](t, ddos.Spec, ddos.Spec.Defaults())
	b.Host.Emit = func(evidence.Evidence) { n++ }
	run, _ := ddos.Spec.New(ddos.Spec.Defaults(), modules.Env{})
	take := func(f *flow.Flow) {
		if run.Chooser().Wants(f) {
			b.Handle(f)
		}
	}
	for i := range 700 {
		late := 0.0
		if i%3 == 0 {
			late = 60
		}
		take(conn(200+float64(i)*0.08-late, bot, modtest.Public(1), 80, flow.NotEstablished))
	}
	for i := range 700 {
		take(conn(200-60+float64(i)*0.08, bot, modtest.Public(1), 80, flow.NotEstablished))
	}
	if n == 0 {
		t.Error("the flood is missed")
	}
}

// TestBounds scans 100,000 hosts.
func TestBounds(t *testing.T) {
	b := modtest.NewBench[ddos.State](t, ddos.Spec, ddos.Spec.Defaults())
	b.Host.Emit = func(e evidence.Evidence) { t.Error(e.Description) }
	for i := range 100_000 {
		b.Handle(conn(float64(i)/1000, bot, modtest.Public(i), 80, flow.NotEstablished))
	}
	if n := b.State.Targets.Len(); n > 512 {
		t.Errorf("%d targets kept", n)
	}
	if n := b.Size(); n > 1<<18 {
		t.Errorf("the state takes %d bytes", n)
	}
}

func TestDoesNotAllocate(t *testing.T) {
	b := modtest.NewBench[ddos.State](t, ddos.Spec, ddos.Spec.Defaults())
	f := conn(0, bot, modtest.Public(1), 443, flow.Established)
	b.Handle(f)
	if n := testing.AllocsPerRun(100, func() { b.Handle(f) }); n != 0 {
		t.Errorf("%v allocations for a connection", n)
	}
}

// TestRealTraffic holds the module to silence on what is no flood: benign
// hosts, BitTorrent, port scans.
func TestRealTraffic(t *testing.T) {
	for _, name := range []string{
		"benign/ubuntu-2023-02-25/conn.log.labeled", "benign/win7ad-2023-02-26/conn.log.labeled", "argus/benign-bittorrent-normal-7.binetflow",
		"zeek/portscan/conn.log", "zeek/isc-2021-10/conn.log", "suricata/eve-scanned-home.json",
	} {
		for _, e := range modtest.Evidence(t, ddos.Spec, modtest.Datasets(t, name)...) {
			t.Errorf("%s: %s", name, e.Description)
		}
	}
}
