// Package host finds out what must go on working on this machine (own
// addresses, gateways, DNS and DHCP servers) and follows it as it changes.
package host

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"

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

// memory keeps what files said. A program that drops its privileges may not
// read all of them any more (NetworkManager's leases are root's), and the
// servers that they named must go on being protected.
type memory struct {
	mu    sync.Mutex
	files map[string][]byte
}

// maxKept is how many files are kept; a host has a handful.
const maxKept = 64

// add adds the servers that the files below root name to n. What was never
// readable is left out: the rest protects what it can.
func (m *memory) add(root fs.FS, n *block.Network) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range resolvConfs() {
		n.DNS = append(n.DNS, nameservers(m.read(root, name))...)
	}
	for _, pattern := range leases() {
		for _, name := range m.glob(root, pattern) {
			dhcp, dns := lease(m.read(root, name))
			n.DHCP = append(n.DHCP, dhcp...)
			n.DNS = append(n.DNS, dns...)
		}
	}
}

// glob returns the files that match a pattern, those of before when the folder
// cannot be read.
func (m *memory) glob(root fs.FS, pattern string) []string {
	if _, err := fs.ReadDir(root, path.Dir(pattern)); errors.Is(err, fs.ErrPermission) {
		var names []string
		for name := range m.files {
			if ok, err := path.Match(pattern, name); ok && err == nil {
				names = append(names, name)
			}
		}
		return names
	}
	names, err := fs.Glob(root, pattern)
	if err != nil {
		return nil
	}
	return names
}

// read returns the beginning of a file, or what it said before when it may not
// be read; nothing if it cannot be.
func (m *memory) read(root fs.FS, name string) []byte {
	name = path.Clean(name)
	b, err := read(root, name)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return m.files[name]
	case err != nil:
		delete(m.files, name)
		return nil
	}
	if _, ok := m.files[name]; ok || len(m.files) < maxKept {
		if m.files == nil {
			m.files = make(map[string][]byte)
		}
		m.files[name] = b
	}
	return b
}

// read returns the beginning of a file.
func read(root fs.FS, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	s, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !s.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is no file", name)
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
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
