// Package host finds out what must go on working on this machine (own
// addresses, gateways, DNS and DHCP servers) and follows it as it changes.
package host

import (
	"bufio"
	"bytes"
	"cmp"
	"io"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/slips-go/slips/alerts/block"
)

// maxFile is how much of a configuration file is read, bytes. Leases of months
// in one file take less.
const maxFile = 1 << 20

// resolvConfs are the files with the DNS servers in use, below the root. The
// first may name a stub of this machine that asks those of the others.
func resolvConfs() []string {
	return []string{"etc/resolv.conf", "run/systemd/resolve/resolv.conf", "run/NetworkManager/resolv.conf", "run/NetworkManager/no-stub-resolv.conf"}
}

// leases are patterns of files in which DHCP clients keep what they were told.
func leases() []string {
	return []string{
		"run/systemd/netif/leases/*", "var/lib/dhcp/dhclient*.lease*", "var/lib/dhclient/*.lease*", "var/lib/NetworkManager/*.lease",
	}
}

// files adds the servers that the files below root name to n. What cannot be
// read is left out: the rest protects what it can.
func files(root fs.FS, n *block.Network) {
	for _, name := range resolvConfs() {
		n.DNS = append(n.DNS, nameservers(read(root, name))...)
	}
	for _, pattern := range leases() {
		names, err := fs.Glob(root, pattern)
		if err != nil {
			continue
		}
		for _, name := range names {
			dhcp, dns := lease(read(root, path.Clean(name)))
			n.DHCP = append(n.DHCP, dhcp...)
			n.DNS = append(n.DNS, dns...)
		}
	}
}

// read returns the beginning of a file; nothing if it cannot be read.
func read(root fs.FS, name string) []byte {
	f, err := root.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close() //nolint:errcheck // nothing was written
	if s, err := f.Stat(); err != nil || !s.Mode().IsRegular() {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil
	}
	return b
}

// nameservers reads resolv.conf(5).
func nameservers(b []byte) []netip.Addr {
	var list []netip.Addr
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) >= 2 && f[0] == "nameserver" {
			list = add(list, f[1])
		}
	}
	return list
}

// lease reads what dhclient writes (option dhcp-server-identifier 10.0.0.1;)
// and what systemd-networkd and NetworkManager do (SERVER_ADDRESS=10.0.0.1).
func lease(b []byte) (dhcp, dns []netip.Addr) {
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		line := strings.TrimSuffix(strings.TrimSpace(s.Text()), ";")
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			if key, value, ok = strings.Cut(strings.TrimPrefix(line, "option "), " "); !ok {
				continue
			}
		}
		words := strings.FieldsFunc(value, func(r rune) bool { return r == ' ' || r == ',' || r == '"' })
		for _, w := range words {
			switch key {
			case "SERVER_ADDRESS", "dhcp-server-identifier":
				dhcp = add(dhcp, w)
			case "DNS", "domain-name-servers", "dhcp6.name-servers":
				dns = add(dns, w)
			}
		}
	}
	return dhcp, dns
}

func add(list []netip.Addr, text string) []netip.Addr {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return list
	}
	return append(list, a.WithZone("").Unmap())
}

// normal sorts the lists of n and drops what is there twice, so that two
// snapshots of the same network are equal.
func normal(n block.Network) block.Network {
	for _, l := range []*[]netip.Addr{&n.Own, &n.Gateways, &n.DNS, &n.DHCP} {
		slices.SortFunc(*l, netip.Addr.Compare)
		*l = slices.Compact(*l)
	}
	slices.SortFunc(n.Local, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	n.Local = slices.Compact(n.Local)
	return n
}
