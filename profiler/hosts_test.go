package profiler

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/slips-go/slips/parsers/flow"
)

func conn(src, dst, srcMAC, dstMAC string) *flow.Flow {
	return &flow.Flow{Kind: flow.Conn, Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), SrcMAC: srcMAC, DstMAC: dstMAC}
}

func record(k flow.Kind, fill func(*flow.Flow)) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(k)
	fill(f)
	return f
}

func TestHomeIsTheFirstPrivateBlock(t *testing.T) {
	h := newHosts(nil, 100)
	h.observe(conn("8.8.8.8", "10.0.0.1", "", ""))
	if n := h.net.Home; len(n) != 0 {
		t.Fatalf("a public source made %v the home network", n)
	}
	for _, src := range []string{"172.20.1.1", "10.0.0.1", "192.168.1.1", "fd00::1", "2001:db8::1"} {
		h.observe(conn(src, "8.8.8.8", "", ""))
	}
	if got := fmt.Sprint(h.net.Home); got != "[172.16.0.0/12 fc00::/7]" {
		t.Errorf("home is %s", got)
	}
	c := newHosts([]netip.Prefix{netip.MustParsePrefix("147.32.80.0/22")}, 100)
	c.observe(conn("10.0.0.1", "8.8.8.8", "", ""))
	if got := fmt.Sprint(c.net.Home); got != "[147.32.80.0/22]" {
		t.Errorf("the configured home became %s", got)
	}
}

func TestGatewayFromMACs(t *testing.T) {
	const host, gw = "08:00:27:00:00:01", "52:54:00:00:00:FE"
	h := newHosts(nil, 100)
	_, ev := h.observe(conn("10.0.0.5", "8.8.8.8", host, gw))
	if h.net.GatewayMAC != "52:54:00:00:00:fe" || h.net.Gateway.IsValid() {
		t.Fatalf("gateway is %v %v", h.net.Gateway, h.net.GatewayMAC)
	}
	if len(ev) != 1 || ev[0].MAC != host || ev[0].IP.String() != "10.0.0.5" {
		t.Errorf("known about hosts: %+v", ev)
	}
	// An address behind the gateway's MAC tells which address the gateway has.
	net, _ := h.observe(conn("10.0.0.5", "10.0.0.1", host, gw))
	if net == nil || net.Gateway.String() != "10.0.0.1" {
		t.Errorf("the gateway's address is not known: %+v", net)
	}
	if n, ev := h.observe(conn("10.0.0.5", "10.0.0.1", host, gw)); n != nil || ev != nil {
		t.Error("the same again is no news")
	}
	// What lies behind the gateway is not the gateway.
	for _, far := range []string{"10.9.9.9", "192.168.77.1", "10.9.9.8"} {
		if n, ev := h.observe(conn("10.0.0.5", far, host, gw)); n != nil || ev != nil || h.net.Gateway.String() != "10.0.0.1" {
			t.Errorf("%s made the gateway %v", far, h.net.Gateway)
		}
	}
	net, _ = h.observe(record(flow.ARP, func(f *flow.Flow) { f.Src, f.ARP.SenderHW = netip.MustParseAddr("10.0.0.254"), gw }))
	if net == nil || net.Gateway.String() != "10.0.0.254" {
		t.Errorf("ARP says otherwise: %+v", net)
	}
	// Broadcast, multicast and empty hardware addresses belong to nobody.
	for _, mac := range []string{"ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:fb", "33:33:00:00:00:01", "00:00:00:00:00:00"} {
		if h.observe(conn("10.0.0.6", "10.0.0.255", mac, mac)); h.byIP[netip.MustParseAddr("10.0.0.6")] != nil {
			t.Errorf("%s was taken for a host's", mac)
		}
	}
}

func TestOtherIPVersion(t *testing.T) {
	const mac = "08:00:27:00:00:01"
	h := newHosts(nil, 100)
	h.observe(conn("10.0.0.5", "10.0.0.9", mac, ""))
	_, ev := h.observe(conn("fd00::5", "fd00::9", mac, ""))
	if len(ev) != 2 || ev[0].Other.String() != "fd00::5" || ev[1].Other.String() != "10.0.0.5" {
		t.Fatalf("events %+v", ev)
	}
	h.forget(netip.MustParseAddr("10.0.0.5"))
	h.forget(netip.MustParseAddr("fd00::5"))
	if len(h.byIP)+len(h.byMAC) != 0 {
		t.Error("forgotten hosts are still there")
	}
}

func TestDHCP(t *testing.T) {
	h := newHosts(nil, 100)
	net, ev := h.observe(record(flow.DHCP, func(f *flow.Flow) {
		f.DHCP.Server, f.DHCP.Assigned = netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.77")
		f.DHCP.Router = netip.MustParseAddr("10.0.0.1")
		f.DHCP.HostName, f.DHCP.MAC, f.DHCP.VendorClass = "printer", "08:00:27:AA:00:01", "HP LaserJet"
	}))
	if net == nil || !net.IsDHCPServer(netip.MustParseAddr("10.0.0.2")) || net.Gateway.String() != "10.0.0.1" {
		t.Errorf("network: %+v", net)
	}
	if len(ev) == 0 {
		t.Fatal("nothing is known about the client")
	}
	if x := ev[len(ev)-1]; x.Name != "printer" || x.MAC != "08:00:27:aa:00:01" || x.Vendor != "HP LaserJet" {
		t.Errorf("client: %+v", x)
	}
	n, ev := h.observe(record(flow.Notice, func(f *flow.Flow) {
		f.Notice.Note, f.Notice.Src = "Local::Gateway_addr_identified", netip.MustParseAddr("10.0.0.3")
	}))
	if n == nil || n.Gateway.String() != "10.0.0.3" || len(ev) != 2 || ev[0].Gate || !ev[1].Gate {
		t.Errorf("the notice was not understood: %+v %+v", n, ev)
	}
}

// Whoever invents addresses cannot fill the memory.
func TestHostsAreBounded(t *testing.T) {
	h := newHosts(nil, 50)
	for i := range 1000 {
		h.observe(conn(fmt.Sprintf("10.0.%d.%d", i/250, i%250), "8.8.8.8", fmt.Sprintf("08:00:27:00:%02x:%02x", i/256, i%256), ""))
	}
	if len(h.byIP) > 50 || len(h.byMAC) > 50 {
		t.Errorf("%d hosts, %d hardware addresses", len(h.byIP), len(h.byMAC))
	}
}
