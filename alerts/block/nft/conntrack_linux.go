package nft

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	nl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// maxTracked is how many connections the kernel may track for Cut to look
	// through them: the library holds them all in memory, some 400 bytes each.
	maxTracked = 500_000
	trackedNow = "/proc/sys/net/netfilter/nf_conntrack_count"

	cutTimeout = 10 * time.Second // for one answer of the kernel
)

// Cut implements block.Cutter: it makes the kernel forget the connections of
// prefixes. Blocked packets are dropped anyway; this ends also what a flow
// table forwards past the chains, and leaves no state for when the block ends.
// Where the kernel does not track connections there is nothing to do.
func (f *Firewall) Cut(ctx context.Context, prefixes []netip.Prefix) (int, error) {
	if b, err := os.ReadFile(trackedNow); err == nil && f.cfg.NetNS == 0 {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && n > maxTracked {
			return 0, fmt.Errorf("end connections: the kernel tracks %d, and at most %d are looked through", n, maxTracked)
		}
	}
	h, err := f.conntrack()
	if err != nil {
		if absent(err) {
			return 0, nil
		}
		return 0, explain("end connections", err)
	}
	defer h.Close()
	if err := h.SetSocketTimeout(cutTimeout); err != nil {
		return 0, fmt.Errorf("end connections: %w", err)
	}
	match := matcher{hosts: make(map[netip.Addr]bool)}
	var v4, v6 bool
	for _, p := range prefixes {
		if p.IsSingleIP() {
			match.hosts[p.Addr()] = true
		} else {
			match.nets = append(match.nets, p)
		}
		v4, v6 = v4 || p.Addr().Is4(), v6 || p.Addr().Is6()
	}
	total := 0
	for _, family := range []struct {
		wanted bool
		family nl.InetFamily
	}{{v4, unix.AF_INET}, {v6, unix.AF_INET6}} {
		if !family.wanted || ctx.Err() != nil {
			continue
		}
		n, err := h.ConntrackDeleteFilters(nl.ConntrackTable, family.family, match)
		total += int(n)
		if err != nil && !absent(err) {
			return total, explain("end connections", err)
		}
	}
	return total, nil
}

func (f *Firewall) conntrack() (*nl.Handle, error) {
	if f.cfg.NetNS == 0 {
		return nl.NewHandle(unix.NETLINK_NETFILTER)
	}
	return nl.NewHandleAt(netns.NsHandle(f.cfg.NetNS), unix.NETLINK_NETFILTER)
}

// absent reports whether err says that the kernel does not track connections.
func absent(err error) bool {
	return errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) ||
		errors.Is(err, unix.ENOENT)
}

// matcher finds the connections of hosts and networks, on either side and
// before or after translation of addresses.
type matcher struct {
	hosts map[netip.Addr]bool
	nets  []netip.Prefix
}

// MatchConntrackFlow reports whether c is one of them.
func (m matcher) MatchConntrackFlow(c *nl.ConntrackFlow) bool {
	return m.has(c.Forward.SrcIP) || m.has(c.Forward.DstIP) || m.has(c.Reverse.SrcIP) || m.has(c.Reverse.DstIP)
}

func (m matcher) has(ip net.IP) bool {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return false
	}
	a = a.Unmap()
	if m.hosts[a] {
		return true
	}
	for _, p := range m.nets {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
