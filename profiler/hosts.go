package profiler

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Host is what traffic has told about a host.
type Host struct {
	IP     netip.Addr `json:"ip"`
	MAC    string     `json:"mac"`         // lower case, as logged
	Vendor string     `json:"vendor"`      // what the host calls itself in DHCP (option 60); the IEEE registry is not asked here
	Name   string     `json:"name"`        // from DHCP
	Other  netip.Addr `json:"other_ip"`    // of the other IP version with the same MAC; invalid when not known
	DHCP   bool       `json:"dhcp_server"` // it answers DHCP
	Gate   bool       `json:"gateway"`     // it is the gateway
}

// maxDHCPServers bounds the list of DHCP servers; a network has a few.
const maxDHCPServers = 64

// macIPs are the addresses seen under one hardware address.
type macIPs struct {
	V4, V6 netip.Addr // the latest of each version
}

// hosts keeps what is known about hosts and the network. The sequencer's
// goroutine owns it.
type hosts struct {
	net    *profile.Network
	fixed  bool // home networks are configured
	byIP   map[netip.Addr]*Host
	byMAC  map[string]*macIPs
	gwMAC  string
	told   bool // the gateway is the machine's, whatever traffic says
	events []Host
	max    int // hosts to remember
}

func newHosts(home []netip.Prefix, limit int) *hosts {
	return &hosts{
		max: limit, net: &profile.Network{Home: home}, fixed: len(home) > 0,
		byIP: make(map[netip.Addr]*Host), byMAC: make(map[string]*macIPs),
	}
}

var rfc1918 = []netip.Prefix{
	netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("10.0.0.0/8"),
}

var uniqueLocal = netip.MustParsePrefix("fc00::/7")

// observe learns from a record. It returns a new snapshot of the network if
// that changed, and the hosts about which something new is known; both are
// nil for nearly all records.
func (h *hosts) observe(f *flow.Flow) (*profile.Network, []Host) {
	if f.SrcMAC == "" && f.Kind == flow.Conn && (h.fixed || len(h.net.Home) == 2) {
		return nil, nil
	}
	h.events = h.events[:0]
	old := h.net
	if !h.fixed {
		h.home(f.Src)
	}
	if f.SrcMAC != "" && f.Src.IsValid() && f.Kind != flow.Files {
		h.mac(f)
	}
	switch f.Kind {
	case flow.DHCP:
		h.dhcp(f)
	case flow.ARP:
		if f.ARP.SenderHW != "" {
			if strings.EqualFold(f.ARP.SenderHW, h.gwMAC) && !f.Src.IsUnspecified() {
				h.gateway(f.Src) // ARP does not cross the gateway, so the address is its own
			}
			h.learnMAC(f.Src, f.ARP.SenderHW)
		}
	case flow.Notice:
		// Written by the project's own Zeek script with the giaddr of DHCP as dst or src.
		if strings.HasSuffix(f.Notice.Note, "Gateway_addr_identified") {
			for _, a := range []netip.Addr{f.Notice.Dst, f.Notice.Src, f.Dst} {
				if a.IsValid() && !a.IsUnspecified() {
					h.gateway(a)
					break
				}
			}
		}
	default: // the others say nothing about the network
	}
	if h.net == old && len(h.events) == 0 {
		return nil, nil
	}
	var ev []Host
	if len(h.events) > 0 {
		ev = slices.Clone(h.events)
	}
	if h.net == old {
		return nil, ev
	}
	return h.net, ev
}

// adopt takes over what the machine itself knows about its network. It returns
// what observe does.
func (h *hosts) adopt(n *profile.Network) (*profile.Network, []Host) {
	h.events = h.events[:0]
	old := h.net
	if !h.fixed && len(n.Home) > 0 && !slices.Equal(h.net.Home, n.Home) {
		h.change(func(x *profile.Network) { x.Home = slices.Clone(n.Home) })
	}
	for _, a := range n.DHCPServers {
		h.server(a)
	}
	if h.told = false; n.Gateway.IsValid() {
		h.gateway(n.Gateway)
		h.told = h.net.Gateway == n.Gateway
	}
	if h.net == old {
		return nil, slices.Clone(h.events)
	}
	return h.net, slices.Clone(h.events)
}

// server learns that a answers DHCP.
func (h *hosts) server(a netip.Addr) {
	if !a.IsValid() || a.IsUnspecified() || h.net.IsDHCPServer(a) || len(h.net.DHCPServers) >= maxDHCPServers {
		return
	}
	h.change(func(n *profile.Network) {
		n.DHCPServers = append(n.DHCPServers, a)
		slices.SortFunc(n.DHCPServers, netip.Addr.Compare)
	})
	x := h.host(a)
	x.DHCP = true
	h.events = append(h.events, *x)
}

// change replaces the snapshot by a copy that fn has changed.
func (h *hosts) change(fn func(*profile.Network)) {
	n := *h.net
	n.Home, n.DHCPServers = slices.Clone(n.Home), slices.Clone(n.DHCPServers)
	fn(&n)
	h.net = &n
}

// home takes the private block of the first private source of each IP version
// for the home network.
func (h *hosts) home(a netip.Addr) {
	if !a.IsValid() || !a.IsPrivate() {
		return
	}
	for _, p := range h.net.Home {
		if p.Addr().Is4() == a.Is4() {
			return
		}
	}
	for _, p := range append(rfc1918[:3:3], uniqueLocal) {
		if p.Contains(a) {
			h.change(func(n *profile.Network) { n.Home = append(n.Home, p) })
			return
		}
	}
}

// mac learns from the Ethernet addresses of a record. A MAC in front of a
// public address is the gateway's, unless the home networks say otherwise.
func (h *hosts) mac(f *flow.Flow) {
	srcHome, dstHome := h.isHome(f.Src), f.Dst.IsValid() && h.isHome(f.Dst)
	if srcHome {
		h.learnMAC(f.Src, f.SrcMAC)
	}
	if f.DstMAC == "" || !f.Dst.IsValid() {
		return
	}
	switch {
	case dstHome && unicast(f.DstMAC):
		h.learnMAC(f.Dst, f.DstMAC)
	case srcHome && h.gwMAC == "" && profile.IsPublic(f.Dst) && unicast(f.DstMAC):
		h.gwMAC = strings.Clone(strings.ToLower(f.DstMAC))
		h.change(func(n *profile.Network) { n.GatewayMAC = h.gwMAC })
		if m := h.byMAC[h.gwMAC]; m != nil {
			if h.net.IsHome(m.V4) {
				h.gateway(m.V4)
			} else if h.net.IsHome(m.V6) {
				h.gateway(m.V6)
			}
		}
	}
}

// unicast reports whether a MAC in text is of one station: the lowest bit of
// the first byte is clear.
func unicast(mac string) bool {
	if len(mac) < 2 {
		return false
	}
	return strings.IndexByte("02468aceACE", mac[1]) >= 0 && mac != "00:00:00:00:00:00"
}

func (h *hosts) isHome(a netip.Addr) bool {
	return h.net.IsHome(a) || a.IsPrivate() || a.IsLinkLocalUnicast()
}

// host returns the entry of a, making it first.
func (h *hosts) host(a netip.Addr) *Host {
	x := h.byIP[a]
	if x == nil {
		x = &Host{IP: a}
		h.byIP[a] = x
	}
	return x
}

func (h *hosts) learnMAC(a netip.Addr, mac string) {
	x := h.byIP[a]
	if (x == nil && len(h.byIP) >= h.max) || (x != nil && strings.EqualFold(x.MAC, mac)) || !unicast(mac) || a.IsUnspecified() || a.IsMulticast() {
		return
	}
	mac = strings.Clone(strings.ToLower(mac)) // ToLower may return what it was given
	if mac == h.gwMAC {
		// Whatever lies behind the gateway has its MAC too: the first address
		// of a home network is taken for its own.
		if !h.net.Gateway.IsValid() && h.net.IsHome(a) {
			h.gateway(a)
		}
		if a != h.net.Gateway {
			return
		}
	}
	x = h.host(a)
	x.MAC = mac
	m := h.byMAC[mac]
	if m == nil {
		m = &macIPs{}
		h.byMAC[mac] = m
	}
	other := m.V6
	if a.Is4() {
		m.V4 = a
	} else {
		other = m.V4
		m.V6 = a
	}
	if other.IsValid() && mac != h.gwMAC {
		x.Other = other
		if y := h.byIP[other]; y != nil && y.Other != a {
			y.Other = a
			h.events = append(h.events, *y)
		}
	}
	h.events = append(h.events, *x)
}

func (h *hosts) dhcp(f *flow.Flow) {
	d := f.DHCP
	h.server(d.Server)
	if d.Router.IsValid() && !d.Router.IsUnspecified() {
		h.gateway(d.Router)
	}
	a := d.Assigned
	if !a.IsValid() {
		a = d.Client
	}
	if !a.IsValid() || a.IsUnspecified() {
		return
	}
	if len(h.byIP) >= h.max && h.byIP[a] == nil {
		return
	}
	x := h.host(a)
	if d.MAC != "" {
		h.learnMAC(a, d.MAC)
	}
	name := d.HostName
	if name == "" {
		name = d.ClientFQDN
	}
	if (name != "" && name != x.Name) || (d.VendorClass != "" && d.VendorClass != x.Vendor) {
		if name != "" {
			x.Name = strings.Clone(name)
		}
		if d.VendorClass != "" {
			x.Vendor = strings.Clone(d.VendorClass)
		}
		h.events = append(h.events, *x)
	}
}

// gateway marks a as the gateway. An IPv4 address is kept before an IPv6 one.
func (h *hosts) gateway(a netip.Addr) {
	g := h.net.Gateway
	if h.told || g == a || (g.IsValid() && g.Is4() && !a.Is4()) {
		return
	}
	if len(h.byIP) >= h.max && h.byIP[a] == nil {
		return
	}
	if old := h.byIP[g]; old != nil {
		old.Gate = false
		h.events = append(h.events, *old)
	}
	h.change(func(n *profile.Network) { n.Gateway = a })
	x := h.host(a)
	x.Gate = true
	h.events = append(h.events, *x)
}

// list returns all that is known, by address.
func (h *hosts) list() []Host {
	l := make([]Host, 0, len(h.byIP))
	for _, x := range h.byIP {
		l = append(l, *x)
	}
	slices.SortFunc(l, func(a, b Host) int { return a.IP.Compare(b.IP) })
	return l
}

// forget drops what is known about a host whose profile was evicted.
func (h *hosts) forget(a netip.Addr) {
	x := h.byIP[a]
	if x == nil {
		return
	}
	delete(h.byIP, a)
	if m := h.byMAC[x.MAC]; m != nil {
		if m.V4 == a {
			m.V4 = netip.Addr{}
		}
		if m.V6 == a {
			m.V6 = netip.Addr{}
		}
		if !m.V4.IsValid() && !m.V6.IsValid() {
			delete(h.byMAC, x.MAC)
		}
	}
}
