package block

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Network is what must go on working on this machine, as of one moment.
// Package host finds it out and follows it.
type Network struct {
	Own      []netip.Addr   // addresses of our interfaces
	Local    []netip.Prefix // their networks, host bits set or not
	Gateways []netip.Addr   // next hops of any route, link-local ones too
	DNS      []netip.Addr   // servers that this machine asks
	DHCP     []netip.Addr   // servers that our leases come from, or that the traffic showed
}

// Equal reports whether n and o say the same in the same order.
func (n Network) Equal(o Network) bool {
	return slices.Equal(n.Own, o.Own) && slices.Equal(n.Local, o.Local) && slices.Equal(n.Gateways, o.Gateways) &&
		slices.Equal(n.DNS, o.DNS) && slices.Equal(n.DHCP, o.DHCP)
}

// The widest networks that an operator may block: what one site usually has,
// and not a provider.
const (
	widest4 = 24
	widest6 = 64
)

// Allowed is an entry of the allow-list, and what to say when it protects.
type Allowed struct {
	Prefix netip.Prefix
	Why    string // "allow-list" if empty
}

// Guard knows what is never blocked, and why. It does not change, so any
// number of goroutines may ask it.
//
// It refuses: what is no address of a host (unspecified, multicast, broadcast,
// reserved); loopback; the metadata service of clouds; own addresses, the
// network and broadcast addresses of our networks; gateways, DNS and DHCP
// servers; the allow-list; every network that holds one of these; networks
// wider than /24 or /64, and any network that an alert asks for.
type Guard struct {
	lens   []int                   // lengths of the prefixes in exact, see length; ascending
	exact  map[netip.Prefix]string // protected prefix -> why
	sorted []netip.Prefix          // keys of exact, by address, for networks that hold one
}

// NewGuard returns the guard for a network and an allow-list. A prefix of the
// list that is none is an error.
func NewGuard(n Network, allow []Allowed) (*Guard, error) {
	g := &Guard{exact: make(map[netip.Prefix]string)}
	for _, w := range []struct{ prefix, why string }{
		{"0.0.0.0/8", "not a host"},
		{"127.0.0.0/8", "loopback"},
		{"169.254.169.253/32", "service of the cloud provider"}, // DNS (AWS)
		{"169.254.169.254/32", "service of the cloud provider"}, // metadata, DHCP, DNS
		{"224.0.0.0/4", "multicast"},
		{"240.0.0.0/4", "reserved or broadcast"},
		{"::/128", "not a host"},
		{"::1/128", "loopback"},
		{"fd00:ec2::254/128", "service of the cloud provider"},
		{"fd00:ec2::253/128", "service of the cloud provider"},
		{"ff00::/8", "multicast"},
	} {
		g.add(netip.MustParsePrefix(w.prefix), w.why)
	}
	for _, s := range []struct {
		addrs []netip.Addr
		why   string
	}{
		{n.Own, "own address"}, {n.Gateways, "gateway"}, {n.DNS, "DNS server in use"}, {n.DHCP, "DHCP server in use"},
	} {
		for _, a := range s.addrs {
			if a.IsValid() && !a.IsUnspecified() {
				g.add(Single(a), s.why)
			}
		}
	}
	for _, p := range n.Local {
		p, err := Canonical(p)
		if err != nil || !p.Addr().Is4() || p.Bits() >= 31 { // RFC 3021: a /31 has neither; IPv6 has no broadcast
			continue
		}
		g.add(Single(p.Addr()), "address of a network")
		g.add(Single(Last(p)), "broadcast")
	}
	for _, a := range allow {
		p, err := Canonical(a.Prefix)
		if err != nil {
			return nil, fmt.Errorf("allow-list: %q is no address or network", a.Prefix)
		}
		why := a.Why
		if why == "" {
			why = "allow-list"
		}
		g.add(p, why)
	}
	lens := make(map[int]bool)
	for p := range g.exact {
		lens[length(p)] = true
	}
	g.lens = slices.Sorted(maps.Keys(lens))
	g.sorted = slices.SortedFunc(maps.Keys(g.exact), func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return g, nil
}

// add enters p unless it is there: the first reason is the strongest.
func (g *Guard) add(p netip.Prefix, why string) {
	if _, ok := g.exact[p]; !ok {
		g.exact[p] = why
	}
}

// length returns the bits of p, those of IPv4 behind those of IPv6 so that one
// list holds both.
func length(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 200 + p.Bits()
	}
	return p.Bits()
}

// Protects returns why p, as Canonical returns it, must not be blocked; empty
// if it may be. Alerts may not ask for networks, operators may.
func (g *Guard) Protects(p netip.Prefix, operator bool) string {
	if !p.IsValid() {
		return "no address"
	}
	widest := widest6
	if p.Addr().Is4() {
		widest = widest4
	}
	switch {
	case p.IsSingleIP():
	case !operator:
		return "a network, and alerts are about hosts"
	case p.Bits() < widest:
		return fmt.Sprintf("wider than a /%d", widest)
	}
	for _, l := range g.lens { // a prefix of the guard that holds p
		if p.Addr().Is4() != (l >= 200) {
			continue
		}
		if l >= 200 {
			l -= 200
		}
		if l > p.Bits() {
			break
		}
		if why, ok := g.exact[netip.PrefixFrom(p.Addr(), l).Masked()]; ok {
			return why
		}
	}
	if p.IsSingleIP() {
		return ""
	}
	i, _ := slices.BinarySearchFunc(g.sorted, p.Addr(), func(q netip.Prefix, a netip.Addr) int { return q.Addr().Compare(a) })
	for ; i < len(g.sorted) && p.Contains(g.sorted[i].Addr()); i++ { // one that p holds
		if q := g.sorted[i]; q.Bits() >= p.Bits() {
			return "holds " + strings.TrimSuffix(strings.TrimSuffix(q.String(), "/32"), "/128") + ", " + g.exact[q]
		}
	}
	return ""
}
