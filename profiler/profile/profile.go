// Package profile defines the identity of a profile, of its time windows, and
// what is known about the monitored network. It imports the standard library
// only.
package profile

import (
	"net/netip"
	"slices"
)

// ID identifies a profile: it is the address of the host.
type ID = netip.Addr

// Window is one time window: [Start, End) in unix ns of flow start times.
// N counts from 1 for the window that begins with the first flow of the run;
// traffic from before that has N <= 0 (reference 1.2).
type Window struct {
	N          int64
	Start, End int64
}

// WindowOf returns the window of time t for windows of width ns whose number 1
// starts at origin. All are unix ns.
func WindowOf(t, origin, width int64) Window {
	d := t - origin
	n := d / width
	if d%width < 0 {
		n--
	}
	s := origin + n*width
	return Window{N: n + 1, Start: s, End: s + width}
}

// Role says which side of the flow the profile at hand is.
type Role uint8

// The roles. In the analysis direction "out" every profile is a Client.
const (
	Client Role = iota // the originator
	Server             // the responder, in the analysis direction "all"
)

// Network is what is known about the monitored network: an immutable
// snapshot. The zero value knows nothing.
type Network struct {
	Home        []netip.Prefix // configured, or the private block of the first private source
	Gateway     netip.Addr     // invalid when not known
	GatewayMAC  string
	DHCPServers []netip.Addr // sorted
}

// IsHome reports whether a lies in a home network.
func (n *Network) IsHome(a netip.Addr) bool {
	if n == nil {
		return false
	}
	for _, p := range n.Home {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// IsOurs reports whether a is of the own network: in a home network, or not on
// the public Internet at all.
func (n *Network) IsOurs(a netip.Addr) bool { return n.IsHome(a) || !IsPublic(a) }

// IsDHCPServer reports whether a was seen to answer DHCP.
func (n *Network) IsDHCPServer(a netip.Addr) bool {
	if n == nil {
		return false
	}
	return slices.Contains(n.DHCPServers, a)
}

var specialV6 = []netip.Prefix{
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("fe80::/10"),
}

// IsPrivate reports whether a is private in the reference's sense: RFC 1918,
// unique local, and the special blocks that are not globally reachable.
func IsPrivate(a netip.Addr) bool {
	a = a.Unmap()
	if a.Is4() {
		return private4(a.As4())
	}
	for _, p := range specialV6 {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// private4 knows the blocks that Python's ipaddress calls private (IANA's
// special-purpose registry, not globally reachable), which the reference's
// rules build on. 100.64.0.0/10 is neither private nor global there. It is
// asked several times for each record, so it is a switch and no list.
func private4(b [4]byte) bool {
	switch b[0] {
	case 0, 10, 127:
		return true
	case 169:
		return b[1] == 254
	case 172:
		return b[1]&0xf0 == 16
	case 192:
		switch b[1] {
		case 168:
			return true
		case 0: // 192.0.0.0/29, 192.0.0.170/31 and 192.0.2.0/24
			return b[2] == 2 || b[2] == 0 && (b[3] < 8 || b[3]&^1 == 170)
		}
	case 198: // 198.18.0.0/15 and 198.51.100.0/24
		return b[1]&^1 == 18 || b[1] == 51 && b[2] == 100
	case 203:
		return b[1] == 0 && b[2] == 113
	}
	return b[0] >= 240
}

// IsBroadcast reports whether a is the limited broadcast address.
func IsBroadcast(a netip.Addr) bool { return a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) }

// IsPublic reports whether a is an address on the public Internet: valid and
// not one of those that the reference ignores (multicast, private,
// link-local, loopback, reserved, and shared address space).
func IsPublic(a netip.Addr) bool {
	if !a.IsValid() || a.IsMulticast() || IsPrivate(a) {
		return false
	}
	if a = a.Unmap(); a.Is4() {
		b := a.As4()
		return !(b[0] == 100 && b[1]&0xc0 == 64)
	}
	return true
}

// IsScannable reports whether a may be the target of a scan: a unicast
// address that is not link-local, loopback, unspecified or reserved.
func IsScannable(a netip.Addr) bool {
	if !a.IsValid() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsLoopback() || a.IsUnspecified() {
		return false
	}
	a = a.Unmap()
	return !a.Is4() || a.As4()[0] < 240
}
