package p2p_test

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
	"github.com/slips-go/slips/modules/p2p"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
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

// bench runs the module on one state, without the engine.
func bench(t *testing.T, emit func(evidence.Evidence)) (handle func(*flow.Flow), st any, h *modules.Host) {
	t.Helper()
	run, err := p2p.Spec.New(p2p.Spec.Defaults(), modules.Env{Width: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	st = run.NewState()
	h = &modules.Host{
		Net: &profile.Network{}, Emit: emit, After: func(time.Duration, uint64) {},
		At: func(at int64) profile.Window { return profile.WindowOf(at, 0, int64(time.Hour)) },
	}
	cx := modules.NewContext(h)
	return func(f *flow.Flow) {
		h.Now, h.Record, h.Window = f.Time, f.Time, h.At(f.Time)
		h.Profile = f.Src
		run.Handle(cx, st, f)
	}, st, h
}

// size returns the bytes that a saved state takes.
func size(t *testing.T, st any) int {
	t.Helper()
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(st); err != nil {
		t.Fatal(err)
	}
	return b.Len()
}

func host(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{20, byte(n >> 16), byte(n >> 8), byte(n)})
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
	handle, st, _ := bench(t, func(evidence.Evidence) { n++ })
	for i := range 100_000 {
		handle(conn(float64(i)/1000, user, host(i), uint16(1024+i*7%60000), []flow.State{flow.Established, flow.NotEstablished}[i%2]))
	}
	if s := st.(*p2p.State); s.Pairs.Len() > 4096 || s.Hosts.Len() > 4096 || s.Ports.Len() > 4096 || n != 7 {
		t.Errorf("%d pairs, %d hosts, %d ports, %d pieces of evidence", s.Pairs.Len(), s.Hosts.Len(), s.Ports.Len(), n)
	}
	if n := size(t, st); n > 1<<18 {
		t.Errorf("the state takes %d bytes", n)
	}
}

func TestDoesNotAllocate(t *testing.T) {
	handle, _, _ := bench(t, func(evidence.Evidence) {})
	f := conn(0, user, host(1), 50000, flow.Established)
	handle(f)
	if n := testing.AllocsPerRun(100, func() { handle(f) }); n != 0 {
		t.Errorf("%v allocations for a peer seen before", n)
	}
}

// TestBotBounds knocks 100,000 times at 3,000 peers, an hour long.
func TestBotBounds(t *testing.T) {
	var bots []evidence.Evidence
	handle, st, _ := bench(t, func(e evidence.Evidence) {
		if e.Type == p2p.Bot {
			bots = append(bots, e)
		}
	})
	for i := range 100_000 {
		f := conn(float64(i)*0.036, user, host(i%3000), uint16(1024+i%3000*7), flow.NotEstablished)
		f.Proto, f.OrigBytes = flow.UDP, 34
		if i%3000%10 == 0 {
			f.RespPkts, f.RespBytes = 1, 600
		}
		f.Sensor = flow.Zeek
		handle(f)
	}
	if s := st.(*p2p.State); len(s.Sizes) != 50 || s.Pairs.Len() > 4096 || len(bots) != 2 {
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
