package p2p_test

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/p2p"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, p2p.Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for want, change := range map[string]func(*p2p.Config){
		`min_peers: 9 is`:        func(c *p2p.Config) { c.MinPeers = 9 },
		`min_peers: 2049 is`:     func(c *p2p.Config) { c.MinPeers = 2049 },
		`min_bot_peers: 63 is`:   func(c *p2p.Config) { c.MinBotPeers = 63 },
		`min_bot_peers: 2049 is`: func(c *p2p.Config) { c.MinBotPeers = 2049 },
	} {
		c := p2p.Spec.Defaults().(*p2p.Config)
		change(c)
		_, err := p2p.Spec.New(c, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), "module p2p: "+want) {
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

var user = netip.MustParseAddr("10.0.0.7")

// TestBounds talks to 100,000 peers.
func TestBounds(t *testing.T) {
	n := 0
	b := modtest.NewBench[p2p.State](t, p2p.Spec, p2p.Spec.Defaults())
	b.Host.Emit = func(evidence.Evidence) { n++ }
	for i := range 100_000 {
		b.Handle(conn(float64(i)/1000, user, modtest.Public(i), uint16(1024+i*7%60000), []flow.State{flow.Established, flow.NotEstablished}[i%2]))
	}
	if s := b.State.Many; s.Pairs.Len() > 4096 || s.Hosts.Len() > 4096 || s.Ports.Len() > 4096 || n != 7 {
		t.Errorf("%d pairs, %d hosts, %d ports, %d pieces of evidence", s.Pairs.Len(), s.Hosts.Len(), s.Ports.Len(), n)
	}
	if n := b.Size(); n > 1<<18 {
		t.Errorf("the state takes %d bytes", n)
	}
}

func TestDoesNotAllocate(t *testing.T) {
	b := modtest.NewBench[p2p.State](t, p2p.Spec, p2p.Spec.Defaults())
	f := conn(0, user, modtest.Public(1), 50000, flow.Established)
	b.Handle(f)
	if n := testing.AllocsPerRun(100, func() { b.Handle(f) }); n != 0 {
		t.Errorf("%v allocations for a peer seen before", n)
	}
}

// TestBotBounds knocks 100,000 times at 3,000 peers, an hour long.
func TestBotBounds(t *testing.T) {
	var bots []evidence.Evidence
	b := modtest.NewBench[p2p.State](t, p2p.Spec, p2p.Spec.Defaults())
	b.Host.Emit = func(e evidence.Evidence) {
		if e.Type == p2p.Bot {
			bots = append(bots, e)
		}
	}
	for i := range 100_000 {
		f := conn(float64(i)*0.036, user, modtest.Public(i%3000), uint16(1024+i%3000*7), flow.NotEstablished)
		f.Proto, f.OrigBytes = flow.UDP, 34
		if i%3000%10 == 0 {
			f.RespPkts, f.RespBytes = 1, 600
		}
		f.Sensor = flow.Zeek
		b.Handle(f)
	}
	if s := b.State.Many; len(s.Sizes) != 50 || s.Pairs.Len() > 4096 || len(bots) != 2 {
		t.Errorf("%d sizes, %d pairs, %d pieces of evidence", len(s.Sizes), s.Pairs.Len(), len(bots))
	}
}

// TestRealTraffic recognises BitTorrent, and nothing in scans, malware and
// benign hosts without such a program.
func TestRealTraffic(t *testing.T) {
	got := modtest.Evidence(t, p2p.Spec, modtest.Datasets(t, "argus/benign-bittorrent-normal-7.binetflow")...)
	if len(got) == 0 {
		t.Fatal("BitTorrent is not recognised")
	}
	for _, e := range got {
		if e.Type != p2p.Traffic || e.Profile.String() != "10.0.0.46" {
			t.Errorf("%s", e.Description)
		}
	}
	for _, name := range []string{
		"zeek/portscan/conn.log", "zeek/horizontal-scan/conn.log", "pcap/zeek-logs/test7-malicious/conn.log", "argus/test11-portscan.binetflow",
		"argus/labelled-tabs.binetflow", "zeek/isc-2021-10/conn.log", "suricata/eve-scanned-home.json", "benign/ubuntu-2023-02-25/conn.log.labeled",
	} {
		for _, e := range modtest.Evidence(t, p2p.Spec, modtest.Datasets(t, name)...) {
			t.Errorf("%s: %s", name, e.Description)
		}
	}
}

// The only pair of a host is kept small, and counts in the end as it would
// have from the beginning.
func TestFirstPair(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 2000 {
		lazy := modtest.NewBench[p2p.State](t, p2p.Spec, p2p.Spec.Defaults())
		eager := modtest.NewBench[p2p.State](t, p2p.Spec, p2p.Spec.Defaults())
		eager.State.Many = new(p2p.Counts)
		for range r.IntN(4) {
			f := conn(0, user, modtest.Public(1), 6881, []flow.State{flow.Established, flow.NotEstablished}[r.IntN(2)])
			f.OrigBytes = []int64{10, 1e6}[r.IntN(2)]
			if r.IntN(2) == 0 {
				f.Proto = flow.UDP
			}
			lazy.Handle(f)
			eager.Handle(f)
			if r.IntN(4) == 0 {
				lazy.Reload()
			}
		}
		if lazy.State.Many != nil {
			t.Fatalf("run %d: one pair is kept as many", n)
		}
		f := conn(1, user, modtest.Public(2), 7000, flow.Established)
		f2 := conn(1, user, modtest.Public(1), 7000, flow.Established)
		for _, f := range []*flow.Flow{f, f2} {
			lazy.Handle(f)
			eager.Handle(f)
		}
		if diff := cmp.Diff(eager.State, lazy.State, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("run %d: the states differ: %s", n, diff)
		}
	}
}
