package profile

import (
	"net/netip"
	"testing"
)

// The conformance checks of the reference, section 7: W 3600, first flow at 1000.
func TestWindowOf(t *testing.T) {
	const s = int64(1e9)
	for _, c := range []struct {
		t, n, start int64
	}{
		{1000 * s, 1, 1000 * s},
		{4599*s + 900e6, 1, 1000 * s},
		{4600 * s, 2, 4600 * s},
		{999 * s, 0, -2600 * s},
		{-2600 * s, 0, -2600 * s},
		{-2601 * s, -1, -6200 * s},
	} {
		w := WindowOf(c.t, 1000*s, 3600*s)
		if w.N != c.n || w.Start != c.start || w.End != c.start+3600*s {
			t.Errorf("%d: %+v, want window %d from %d", c.t, w, c.n, c.start)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		a                          string
		private, public, scannable bool
	}{
		{"10.1.2.3", true, false, true},
		{"172.31.0.1", true, false, true},
		{"172.32.0.1", false, true, true},
		{"192.168.1.1", true, false, true},
		{"169.254.1.1", true, false, false},
		{"127.0.0.1", true, false, false},
		{"192.0.2.1", true, false, true},
		{"100.64.1.1", false, false, true},
		{"8.8.8.8", false, true, true},
		{"224.0.0.251", false, false, false},
		{"255.255.255.255", true, false, false},
		{"0.0.0.0", true, false, false},
		{"fe80::1", true, false, false},
		{"fd00::1", true, false, true},
		{"2001:4860:4860::8888", false, true, true},
		{"ff02::1", false, false, false},
		{"::1", true, false, false},
		{"::ffff:10.0.0.1", true, false, true},
		{"::ffff:8.8.8.8", false, true, true},
		{"192.0.0.7", true, false, true},
		{"192.0.0.8", false, true, true},
		{"192.0.0.171", true, false, true},
		{"192.0.0.172", false, true, true},
		{"192.0.1.1", false, true, true},
		{"192.169.0.1", false, true, true},
		{"198.17.255.255", false, true, true},
		{"198.19.1.1", true, false, true},
		{"198.20.0.0", false, true, true},
		{"198.51.100.9", true, false, true},
		{"203.0.113.1", true, false, true},
		{"203.0.114.1", false, true, true},
		{"169.253.1.1", false, true, true},
		{"239.255.255.255", false, false, false},
		{"240.0.0.1", true, false, false},
	} {
		a := netip.MustParseAddr(c.a)
		if got := IsPrivate(a); got != c.private {
			t.Errorf("IsPrivate(%s) is %v", c.a, got)
		}
		if got := IsPublic(a); got != c.public {
			t.Errorf("IsPublic(%s) is %v", c.a, got)
		}
		if got := IsScannable(a); got != c.scannable {
			t.Errorf("IsScannable(%s) is %v", c.a, got)
		}
	}
	if IsPublic(netip.Addr{}) || IsScannable(netip.Addr{}) {
		t.Error("an address that is not there is public or scannable")
	}
}

func TestNetwork(t *testing.T) {
	var none *Network
	a := netip.MustParseAddr("10.0.0.7")
	if none.IsHome(a) || none.IsDHCPServer(a) {
		t.Error("nothing is known, and yet")
	}
	if !none.IsOurs(a) || none.IsOurs(netip.MustParseAddr("11.0.0.1")) {
		t.Error("a private address is not ours, or a public one is")
	}
	n := &Network{Home: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, DHCPServers: []netip.Addr{a}}
	if !n.IsHome(a) || n.IsHome(netip.MustParseAddr("11.0.0.1")) || !n.IsDHCPServer(a) || n.IsDHCPServer(n.Home[0].Addr()) {
		t.Error("the network is not known right")
	}
}
