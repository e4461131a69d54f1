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

// Cut implements block.Cutter: it closes this machine's own sockets that are
// connected to prefixes, and makes the kernel forget the connections that it
// tracks. Blocked packets are dropped anyway; without this a connection would
// wait for the end of the block and go on. A forwarded one is not ours to close
// and may do so: see the README.
func (f *Firewall) Cut(ctx context.Context, prefixes []netip.Prefix) (int, error) {
	match := newMatcher(prefixes)
	// In this order, or the goodbye of a socket, which is dropped, would be
	// tracked as a connection of its own.
	var err error
	match.closed, err = f.closeSockets(ctx, kinds(), match)
	forgotten, e := f.forget(ctx, match)
	return len(match.closed) + forgotten - match.both, errors.Join(err, e)
}

// forget makes the kernel forget the tracked connections that match has. From
// Linux 6.4 on that also ends what a flow table forwards past the chains; older
// ones refuse it. Where the kernel does not track connections there is nothing
// to do.
func (f *Firewall) forget(ctx context.Context, match *matcher) (int, error) {
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
	total := 0
	for _, family := range []struct {
		wanted bool
		family nl.InetFamily
	}{{match.v4, unix.AF_INET}, {match.v6, unix.AF_INET6}} {
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

// absent reports whether err says that the kernel has no such part.
func absent(err error) bool {
	return errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) ||
		errors.Is(err, unix.ENOENT)
}

// matcher finds the connections of hosts and networks, on either side and
// before or after translation of addresses.
type matcher struct {
	hosts  map[netip.Addr]bool
	nets   []netip.Prefix
	v4, v6 bool // of which families they are

	closed map[pair]bool // sockets
	both   int           // found connections whose socket is one of closed
}

func newMatcher(prefixes []netip.Prefix) *matcher {
	m := &matcher{hosts: make(map[netip.Addr]bool)}
	for _, p := range prefixes {
		if p.IsSingleIP() {
			m.hosts[p.Addr()] = true
		} else {
			m.nets = append(m.nets, p)
		}
		m.v4, m.v6 = m.v4 || p.Addr().Is4(), m.v6 || p.Addr().Is6()
	}
	return m
}

// families returns those of the sockets that may be connected to what m has. A
// socket of IPv6 may have an IPv4 address at the other end.
func (m *matcher) families() []byte {
	if m.v4 {
		return []byte{unix.AF_INET, unix.AF_INET6}
	}
	return []byte{unix.AF_INET6}
}

// MatchConntrackFlow reports whether c is one of them.
func (m *matcher) MatchConntrackFlow(c *nl.ConntrackFlow) bool {
	if !m.has(c.Forward.SrcIP) && !m.has(c.Forward.DstIP) && !m.has(c.Reverse.SrcIP) && !m.has(c.Reverse.DstIP) {
		return false
	}
	for _, t := range []nl.IPTuple{c.Forward, c.Reverse} {
		src, dst := addrPort(t.SrcIP, t.SrcPort), addrPort(t.DstIP, t.DstPort)
		if m.closed[pair{src, dst}] || m.closed[pair{dst, src}] {
			m.both++
			break
		}
	}
	return true
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip) // one that is not valid is nobody's
	return netip.AddrPortFrom(a.Unmap(), port)
}

func (m *matcher) has(ip net.IP) bool {
	a, ok := netip.AddrFromSlice(ip)
	return ok && m.hasAddr(a.Unmap())
}

func (m *matcher) hasAddr(a netip.Addr) bool {
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
