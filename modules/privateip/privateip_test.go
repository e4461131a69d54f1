package privateip_test

import (
	"net/netip"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/privateip"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, privateip.Spec, "testdata/*.txtar") }

// TestBounds has a host talk to 65,536 others.
func TestBounds(t *testing.T) {
	b := modtest.NewBench[privateip.State](t, privateip.Spec, privateip.Spec.Defaults())
	n := 0
	b.Host.Emit = func(evidence.Evidence) { n++ }
	f := new(flow.Flow)
	f.Reset(flow.Conn)
	f.Src, f.DstPort, f.HasPorts, f.Proto, f.UID = netip.MustParseAddr("10.0.0.1"), 445, true, flow.TCP, "C1"
	for i := range 1 << 16 {
		f.Dst = netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		b.Handle(f)
	}
	if n != 4 || b.State.Seen.Len() != 512 {
		t.Errorf("%d reports, %d addresses kept, want 4 and 512", n, b.State.Seen.Len())
	}
	if n := testing.AllocsPerRun(100, func() { b.Handle(f) }); n != 0 {
		t.Errorf("%v allocations for one more address", n)
	}
}

// TestRealTraffic sees the hosts of a site talk to their domain controller.
func TestRealTraffic(t *testing.T) {
	clients := make(map[string]bool)
	for _, e := range modtest.Evidence(t, privateip.Spec, modtest.Datasets(t, "zeek/isc-2021-10/conn.log")...) {
		clients[e.Attacker.Value] = true
	}
	if len(clients) != 3 {
		t.Errorf("hosts that talk to others of the site: %v", clients)
	}
}
