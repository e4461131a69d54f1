package gre_test

import (
	"bytes"
	"encoding/gob"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/gre"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, gre.Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for want, change := range map[string]func(*gre.Config){
		`min_hosts: 1 is`:    func(c *gre.Config) { c.MinHosts = 1 },
		`min_hosts: 4097 is`: func(c *gre.Config) { c.MinHosts = 4097 },
	} {
		c := gre.Spec.Defaults().(*gre.Config)
		change(c)
		_, err := gre.Spec.New(c, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), "module gre: "+want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// bench runs the module on one state, without the engine.
func bench(t *testing.T, emit func(evidence.Evidence)) (handle func(*flow.Flow), st any, h *modules.Host) {
	t.Helper()
	run, err := gre.Spec.New(gre.Spec.Defaults(), modules.Env{})
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

// TestBounds sends GRE to 100,000 hosts.
func TestBounds(t *testing.T) {
	var tunnels, scans int
	handle, st, _ := bench(t, func(e evidence.Evidence) {
		if e.Type == gre.Tunnel {
			tunnels++
		} else {
			scans++
		}
	})
	for i := range 100_000 {
		handle(&flow.Flow{Kind: flow.Conn, Proto: flow.GRE, Src: netip.MustParseAddr("10.0.0.1"), Dst: host(i), UID: "G", Time: int64(i) * 1e6})
	}
	if tunnels != 16 || scans != 10 {
		t.Errorf("told of %d tunnels and %d scans, want 16 and 10", tunnels, scans)
	}
	if n := size(t, st); n > 1<<18 {
		t.Errorf("the state takes %d bytes", n)
	}
}

func TestRealTraffic(t *testing.T) {
	dir := "zeek/test14-malicious/"
	got := modtest.Evidence(t, gre.Spec, modtest.Datasets(t, dir+"tunnel.log", dir+"conn.log")...)
	if len(got) != 1 || got[0].Type != gre.Tunnel || got[0].Profile.String() != "10.0.2.15" || got[0].Victim.Value != "115.112.11.30" {
		t.Errorf("%+v", got)
	}
	for _, name := range []string{"benign/win7ad-2023-02-26/conn.log.labeled", "argus/benign-bittorrent-normal-7.binetflow"} {
		for _, e := range modtest.Evidence(t, gre.Spec, modtest.Datasets(t, name)...) {
			t.Errorf("%s: %s", name, e.Description)
		}
	}
}
