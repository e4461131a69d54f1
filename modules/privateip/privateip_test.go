package privateip_test

import (
	"net/netip"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/privateip"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, privateip.Spec, "testdata/*.txtar") }

// TestBounds has a host talk to 65,536 others.
func TestBounds(t *testing.T) {
	run, err := privateip.Spec.New(privateip.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	st, n := run.NewState().(*privateip.State), 0
	cx := modules.NewContext(&modules.Host{Emit: func(evidence.Evidence) { n++ }})
	f := new(flow.Flow)
	f.Reset(flow.Conn)
	f.Src, f.DstPort, f.HasPorts, f.Proto, f.UID = netip.MustParseAddr("10.0.0.1"), 445, true, flow.TCP, "C1"
	for i := range 1 << 16 {
		f.Dst = netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		run.Handle(cx, st, f)
	}
	if n != 4 || st.Seen.Len() != 512 {
		t.Errorf("%d reports, %d addresses kept, want 4 and 512", n, st.Seen.Len())
	}
	if n := testing.AllocsPerRun(100, func() { run.Handle(cx, st, f) }); n != 0 {
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
