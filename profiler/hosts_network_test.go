package profiler

import (
	"net/netip"
	"testing"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// What the machine knows about its network comes before what is guessed from
// traffic, and behind what is configured.
func TestAdopt(t *testing.T) {
	lan, office := netip.MustParsePrefix("10.1.2.0/24"), netip.MustParsePrefix("172.16.0.0/12")
	gate, server := netip.MustParseAddr("10.1.2.1"), netip.MustParseAddr("10.1.2.9")
	n := &profile.Network{Home: []netip.Prefix{lan}, Gateway: gate, DHCPServers: []netip.Addr{server}}

	h := newHosts(nil, 100)
	net, events := h.adopt(n)
	if net == nil || !net.IsHome(gate) || net.IsHome(netip.MustParseAddr("10.9.9.9")) || net.Gateway != gate || !net.IsDHCPServer(server) {
		t.Fatalf("the network is %+v", net)
	}
	if len(events) != 2 || !events[0].DHCP || !events[1].Gate {
		t.Errorf("news of hosts: %+v", events)
	}
	if again, _ := h.adopt(n); again != nil {
		t.Error("the same again is a change")
	}
	// What traffic says of a gateway may be forged; the machine knows its own.
	h.observe(record(flow.DHCP, func(f *flow.Flow) { f.Src, f.DHCP.Router = server, netip.MustParseAddr("10.1.2.66") }))
	if h.net.Gateway != gate {
		t.Errorf("DHCP made %s the gateway", h.net.Gateway)
	}
	// A private source of another block does not widen what is known.
	h.observe(&flow.Flow{Kind: flow.Conn, Src: netip.MustParseAddr("192.168.7.7")})
	if h.net.IsHome(netip.MustParseAddr("192.168.7.7")) {
		t.Error("a source outside the interface's network makes a home")
	}
	n = &profile.Network{Home: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}}
	if net, _ := h.adopt(n); net == nil || net.IsHome(gate) || !net.IsHome(netip.MustParseAddr("10.5.1.1")) {
		t.Errorf("after a change of the interface the network is %+v", net)
	}

	fixed := newHosts([]netip.Prefix{office}, 100)
	if net, _ := fixed.adopt(&profile.Network{Home: []netip.Prefix{lan}}); net != nil || fixed.net.IsHome(gate) {
		t.Error("configured home networks were replaced")
	}
}
