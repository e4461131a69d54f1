package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	nl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/slips-go/slips/alerts/block"
)

const (
	// settle is how long changes may go on before they are looked at: an
	// interface that comes up brings a dozen.
	settle = 200 * time.Millisecond
	// pauses is how many times as long as a look the pause before the next one is.
	pauses = 10
	// look is how often the files are read, which tell nobody that they have
	// changed.
	look = 10 * time.Second
)

// Host looks at this machine's network. It needs no privilege.
type Host struct {
	root  string // of the file system
	netNS int    // descriptor of a network namespace; 0: the caller's
	log   *slog.Logger
	files memory
}

// New returns a Host. It does nothing yet.
func New(log *slog.Logger) *Host { return &Host{root: "/", log: log} }

// LogTo replaces the logger. It may be called until Watch is.
func (h *Host) LogTo(log *slog.Logger) { h.log = log }

// Snapshot returns the network as it is now.
func (h *Host) Snapshot() (block.Network, error) {
	var n block.Network
	handle, err := h.handle()
	if err != nil {
		return n, fmt.Errorf("look at the network: %w", err)
	}
	defer handle.Close()
	addrs, err := handle.AddrList(nil, nl.FAMILY_ALL)
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return n, fmt.Errorf("list own addresses: %w", err)
	}
	for _, a := range addrs {
		if a.IPNet == nil {
			continue
		}
		own, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		own = own.Unmap()
		n.Own = append(n.Own, own)
		if ones, bits := a.Mask.Size(); bits == own.BitLen() && !own.IsLoopback() {
			n.Local = append(n.Local, netip.PrefixFrom(own, ones).Masked())
		}
	}
	// Gateways of all tables: with several uplinks, or a VPN, some are not in the
	// main one.
	routes, err := handle.RouteListFiltered(nl.FAMILY_ALL, &nl.Route{Table: unix.RT_TABLE_UNSPEC}, nl.RT_FILTER_TABLE)
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return n, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		n.Gateways = gateway(n.Gateways, r.Gw, r.Via)
		for _, hop := range r.MultiPath {
			n.Gateways = gateway(n.Gateways, hop.Gw, hop.Via)
		}
	}
	h.files.add(os.DirFS(h.root), &n)
	return normal(n), nil
}

func gateway(list []netip.Addr, ip net.IP, via nl.Destination) []netip.Addr {
	if v, ok := via.(*nl.Via); ok && v != nil {
		ip = v.Addr // an IPv4 route by way of an IPv6 router
	}
	if a, ok := netip.AddrFromSlice(ip); ok && !a.IsUnspecified() {
		list = append(list, a.Unmap())
	}
	return list
}

func (h *Host) handle() (*nl.Handle, error) {
	if h.netNS == 0 {
		return nl.NewHandle(unix.NETLINK_ROUTE)
	}
	return nl.NewHandleAt(netns.NsHandle(h.netNS), unix.NETLINK_ROUTE)
}

// Watch calls changed with the network as it is now, and again whenever it has
// become another one, until ctx is done. A look that fails is reported and
// leaves the last one in force.
func (h *Host) Watch(ctx context.Context, changed func(block.Network)) error {
	last, err := h.Snapshot()
	if err != nil {
		return err
	}
	changed(last)
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{
		NetNS:  h.netNS,
		Groups: unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE,
	})
	if err != nil {
		return fmt.Errorf("follow the network: %w", err)
	}
	events := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.receive(ctx, c, events)
	}()
	defer func() {
		_ = c.SetReadDeadline(time.Unix(1, 0)) // ends receive; a past time is all it takes
		<-done
		_ = c.Close()
	}()
	timer := time.NewTicker(look) //nolint:forbidigo // what is followed is the machine, by its clock
	defer timer.Stop()
	var settled <-chan time.Time
	var took time.Duration // by the last look: seconds where there are a million routes, which change all the time
	failed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-events:
			if settled == nil {
				settled = time.After(max(settle, pauses*took)) //nolint:forbidigo // see above
			}
			continue
		case <-settled:
			settled = nil
		case <-timer.C:
		}
		start := time.Now() //nolint:forbidigo // see above
		n, err := h.Snapshot()
		took = time.Since(start) //nolint:forbidigo // see above
		if err != nil {
			if !failed {
				h.log.Warn("the network cannot be looked at; what was known of it still holds", "err", err)
			}
			failed = true
			continue
		}
		failed = false
		if !n.Equal(last) {
			h.log.Info("the network has changed", "own", n.Own, "gateways", n.Gateways, "dns", n.DNS, "dhcp", n.DHCP)
			last = clone(n)
			changed(n)
		}
	}
}

func clone(n block.Network) block.Network {
	return block.Network{
		Own: slices.Clone(n.Own), Local: slices.Clone(n.Local), Gateways: slices.Clone(n.Gateways), DNS: slices.Clone(n.DNS), DHCP: slices.Clone(n.DHCP),
	}
}

// receive tells events of every message, whatever it says.
func (h *Host) receive(ctx context.Context, c *netlink.Conn, events chan<- struct{}) {
	for ctx.Err() == nil {
		_, err := c.Receive()
		switch {
		case err == nil, errors.Is(err, unix.ENOBUFS): // some were lost
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		default:
			h.log.Warn("changes of the network are seen late, every 10 s", "err", err)
			return
		}
		select {
		case events <- struct{}{}:
		default:
		}
	}
}
