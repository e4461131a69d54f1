package block

import (
	"net/netip"
	"strings"
	"testing"
)

func network() Network {
	return Network{
		Own:      []netip.Addr{netip.MustParseAddr("192.168.1.10"), netip.MustParseAddr("2001:db8:1::10"), netip.MustParseAddr("fe80::10%eth0")},
		Local:    []netip.Prefix{netip.MustParsePrefix("192.168.1.10/24"), netip.MustParsePrefix("2001:db8:1::10/64"), netip.MustParsePrefix("10.0.0.0/31")},
		Gateways: []netip.Addr{netip.MustParseAddr("192.168.1.1"), netip.MustParseAddr("fe80::1%eth0")},
		DNS:      []netip.Addr{netip.MustParseAddr("198.51.100.53"), netip.MustParseAddr("127.0.0.53")},
		DHCP:     []netip.Addr{netip.MustParseAddr("192.168.1.2"), {}},
	}
}

func guard(t testing.TB, allow ...string) *Guard {
	t.Helper()
	list, err := Config{AllowList: allow}.Allowed()
	if err != nil {
		t.Fatal(err)
	}
	g, err := NewGuard(network(), list)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func prefix(t testing.TB, s string) netip.Prefix {
	t.Helper()
	p, err := ParsePrefix(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestGuard(t *testing.T) {
	g := guard(t, "203.0.113.0/24", "2001:db8:a::/48", "198.51.100.77")
	for _, c := range []struct{ prefix, why string }{
		{"192.168.1.11", ""},
		{"192.168.2.255", ""},
		{"192.168.1.254", ""},
		{"198.51.100.54", ""},
		{"202.0.113.1", ""},
		{"203.0.114.0", ""},
		{"2001:db8:1::11", ""},
		{"2001:db8:b::1", ""},
		{"fe80::2", ""},
		{"10.0.0.0", ""},
		{"10.0.0.1", ""},
		{"::2", ""},
		{"169.254.169.255", ""},

		{"0.0.0.0", "not a host"},
		{"0.1.2.3", "not a host"},
		{"127.0.0.1", "loopback"},
		{"127.0.0.53", "loopback"},
		{"127.255.255.254", "loopback"},
		{"::1", "loopback"},
		{"::", "not a host"},
		{"::ffff:127.0.0.1", "loopback"},
		{"224.0.0.1", "multicast"},
		{"239.255.255.250", "multicast"},
		{"ff02::1", "multicast"},
		{"255.255.255.255", "reserved or broadcast"},
		{"250.1.2.3", "reserved or broadcast"},
		{"169.254.169.254", "service of the cloud provider"},
		{"192.168.1.10", "own address"},
		{"::ffff:192.168.1.10", "own address"},
		{"2001:db8:1::10", "own address"},
		{"fe80::10", "own address"},
		{"192.168.1.0", "address of a network"},
		{"192.168.1.255", "broadcast"},
		{"192.168.1.1", "gateway"},
		{"fe80::1", "gateway"},
		{"198.51.100.53", "DNS server in use"},
		{"192.168.1.2", "DHCP server in use"},
		{"203.0.113.0", "allow-list"},
		{"203.0.113.255", "allow-list"},
		{"198.51.100.77", "allow-list"},
		{"2001:db8:a:ffff::1", "allow-list"},
	} {
		for _, operator := range []bool{false, true} {
			if got := g.Protects(prefix(t, c.prefix), operator); got != c.why {
				t.Errorf("%s (operator %v): %q, want %q", c.prefix, operator, got, c.why)
			}
		}
	}
	for _, c := range []struct{ prefix, why string }{
		{"10.1.2.0/24", ""},
		{"198.51.100.128/25", ""},
		{"2001:db8:b::/64", ""},
		{"10.1.2.0/23", "wider than a /24"},
		{"0.0.0.0/0", "wider than a /24"},
		{"::/0", "wider than a /64"},
		{"2001:db8:b::/63", "wider than a /64"},
		{"192.168.1.0/24", "holds 192.168.1.0, address of a network"},
		{"192.168.1.8/29", "holds 192.168.1.10, own address"},
		{"192.168.1.128/25", "holds 192.168.1.255, broadcast"},
		{"192.168.1.2/31", "holds 192.168.1.2, DHCP server in use"},
		{"198.51.100.0/24", "holds 198.51.100.53, DNS server in use"},
		{"198.51.100.64/26", "holds 198.51.100.77, allow-list"},
		{"203.0.113.0/24", "allow-list"},
		{"203.0.113.128/25", "allow-list"},
		{"2001:db8:1::/64", "holds 2001:db8:1::10, own address"},
		{"fe80::/64", "holds fe80::1, gateway"},
		{"127.0.0.0/24", "loopback"},
		{"224.0.0.0/24", "multicast"},
	} {
		if got := g.Protects(prefix(t, c.prefix), true); got != c.why {
			t.Errorf("%s: %q, want %q", c.prefix, got, c.why)
		}
		if got := g.Protects(prefix(t, c.prefix), false); !strings.HasPrefix(got, "a network") {
			t.Errorf("%s because of an alert: %q", c.prefix, got)
		}
	}
	if g.Protects(netip.Prefix{}, true) == "" {
		t.Error("no prefix may be blocked")
	}
	if _, err := NewGuard(Network{}, []Allowed{{}}); err == nil {
		t.Error("an allow-list with nothing in it is taken")
	}
}

// FuzzGuard compares the guard with a walk through all that is protected.
func FuzzGuard(f *testing.F) {
	for _, s := range []string{"192.168.1.10", "192.168.1.0/24", "203.0.113.9", "2001:db8:a::/64", "::ffff:1.2.3.4/100", "10.0.0.0/8"} {
		f.Add(s)
	}
	g := guard(f, "203.0.113.0/24", "2001:db8:a::/48", "198.51.100.77", "::/3")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePrefix(s)
		if err != nil {
			return
		}
		if p != p.Masked() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			t.Fatalf("%q is read as %v", s, p)
		}
		if q, err := ParsePrefix(Text(p)); err != nil || q != p {
			t.Fatalf("%v is written as %q and read as %v, %v", p, Text(p), q, err)
		}
		protected := p.Addr().Is4() && p.Bits() < 24 || p.Addr().Is6() && p.Bits() < 64
		for q := range g.exact {
			protected = protected || q.Overlaps(p)
		}
		if why := g.Protects(p, true); (why != "") != protected {
			t.Errorf("%v: %q, want protected %v", p, why, protected)
		}
	})
}

func BenchmarkGuard(b *testing.B) {
	g := guard(b, "203.0.113.0/24", "2001:db8:a::/48", "198.51.100.77")
	p := prefix(b, "198.51.100.78")
	for b.Loop() {
		if g.Protects(p, false) != "" {
			b.Fatal("protected")
		}
	}
}
