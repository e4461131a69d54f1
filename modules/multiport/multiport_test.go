package multiport_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/multiport"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, multiport.Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for _, n := range []int{-1, 1, 65} {
		_, err := multiport.Spec.New(&multiport.Config{MinPorts: n}, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("min_ports: %d is not in 2..64", n)) {
			t.Errorf("%d: error %v", n, err)
		}
	}
}

// TestStateIsBounded feeds all ports of some hosts, and a port of many.
func TestStateIsBounded(t *testing.T) {
	b := modtest.NewBench[multiport.State](t, multiport.Spec, multiport.Spec.Defaults())
	n := 0
	b.Host.Emit = func(evidence.Evidence) { n++ }
	f := new(flow.Flow)
	f.Reset(flow.Conn)
	f.Src, f.SrcPort, f.HasPorts, f.Proto, f.State, f.UID = netip.MustParseAddr("10.0.0.1"), 40000, true, flow.TCP, flow.Established, "C1"
	for i := range 100_000 {
		f.Dst, f.DstPort = netip.AddrFrom4([4]byte{20, 0, byte(i >> 8), byte(i)}), 50001
		b.Handle(f)
		f.Dst, f.DstPort = netip.AddrFrom4([4]byte{20, 1, 0, byte(i >> 10)}), uint16(50001+i%1024)
		b.Handle(f)
	}
	ports, uids := 0, 0
	for _, s := range b.State.Hosts.Slots {
		t := s.V
		ports, uids = max(ports, len(t.Ports)), max(uids, len(t.UIDs))
	}
	if b.State.Hosts.Len() > 512 || ports > 64 || uids > 16 {
		t.Errorf("%d hosts, %d ports and %d uids of one", b.State.Hosts.Len(), ports, uids)
	}
	if n == 0 || n > 50*6 {
		t.Errorf("%d reports", n)
	}
	if n := testing.AllocsPerRun(100, func() { b.Handle(f) }); n != 0 {
		t.Errorf("%v allocations for a known port", n)
	}
}

// TestRealTraffic has two honest days, a BitTorrent program, and none of them
// reaches two unknown ports of one host.
func TestRealTraffic(t *testing.T) {
	for _, file := range []string{
		"benign/ubuntu-2023-02-25/conn.log.labeled", "benign/win7ad-2023-02-26/conn.log.labeled",
		"argus/benign-bittorrent-normal-7.binetflow",
	} {
		for _, e := range modtest.Evidence(t, multiport.Spec, modtest.Datasets(t, file)...) {
			t.Errorf("%s: %s", file, e.Description)
		}
	}
}
