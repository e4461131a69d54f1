// Package nft blocks with nftables, in a table of its own: "inet slips".
//
//	set hosts4, hosts6   single addresses, each with its end          (hash)
//	set nets4, nets6     networks, each with its end                  (interval)
//	chain input          from a blocked host to us                    drop
//	chain output         from us to a blocked host                    drop
//	chain forward        from or to a blocked host                    drop
//
// The chains stand at priority -10, before the usual filter at 0 (ufw, docker,
// iptables) and firewalld's at 10, and behind the translation of destinations
// at -100. A drop is final, so it holds whatever the others accept; what these
// chains let through, the others still judge. Loopback is always let through.
// No other table is touched, or needed.
//
// Hosts are not in the interval set because the kernel looks through all of
// such a set at every change: 14 ms for one more among 100,000, where the hash
// takes 0.06 ms (measured, kernel 6.18).
//
// Every change is one transaction of the kernel, whatever its size. Elements
// carry a timeout, so that blocks end without us, and a comment with the
// number of the offence and the id of the alert, or the operator and his reason.
//
// Traffic that a bridge passes on does not go through these chains unless
// br_netfilter is loaded; nor does DHCP that reads raw packets, and ARP.
package nft

import (
	"net/netip"
	"time"
)

// Config is what a Firewall needs to know. The zero value will do but for Now.
type Config struct {
	// Now is the clock that ends are measured by.
	Now func() time.Time
	// Refuse says why a prefix must not be blocked, empty if it may. It is the
	// last line, behind the Manager's guard; nil refuses what NewGuard refuses
	// without knowing the network.
	Refuse func(netip.Prefix) string
	// Table is the name of the table, "slips" if empty.
	Table string
	// NetNS is a descriptor of the network namespace to work in; 0 is that of
	// the caller.
	NetNS int
}

// DefaultTable is the name of the table in the family inet.
const DefaultTable = "slips"
