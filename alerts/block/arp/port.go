package arp

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/slips-go/slips/alerts/block"
)

// wire is a socket for ARP on one interface.
type wire interface {
	send(frame []byte) error
	// receive waits for a frame. The error after close, or when the interface is
	// gone, is the last thing it returns.
	receive(b []byte) (int, error)
	// look returns what the kernel knows of the interface as it is now.
	look() (view, error)
	close() error
}

// view is what the kernel knows of an interface.
type view struct {
	mac    MAC
	addrs  []netip.Prefix     // own addresses, with the lengths of their networks
	cached map[netip.Addr]MAC // its neighbour table: what it thinks is true
}

// host is what is known of a machine in the local network.
type host struct {
	mac    MAC
	known  bool // mac is
	asking bool
	tries  int
	next   time.Time // to ask, or to give up
	failed time.Time // when it did not answer the last time
	heard  time.Time // when it answered the last time
}

// port is an interface on which hosts are isolated. It belongs to the
// goroutine of Run.
type port struct {
	name string
	dial func() (wire, error)
	wire wire // nil while the interface is gone
	view
	hosts map[netip.Addr]*host
	retry time.Time // of open
	down  string    // the failure that was reported last
}

// open opens the socket and looks at the interface.
func (p *port) open() error {
	w, err := p.dial()
	if err != nil {
		return fmt.Errorf("arp isolation on %q: %w", p.name, err)
	}
	v, err := w.look()
	if err != nil {
		_ = w.close() // nothing was written
		return fmt.Errorf("arp isolation on %q: %w", p.name, err)
	}
	p.wire, p.view = w, v
	return nil
}

func (p *port) close() error {
	if p.wire == nil {
		return nil
	}
	w := p.wire
	p.wire = nil
	return w.close()
}

// local returns the narrowest own network that holds a, as an own address with
// a length; not ok if there is none.
func (p *port) local(a netip.Addr) (best netip.Prefix, ok bool) {
	for _, q := range p.addrs {
		if q.Contains(a) && (!ok || q.Bits() > best.Bits()) {
			best, ok = q, true
		}
	}
	return best, ok
}

// own reports whether a is an address of the interface.
func (p *port) own(a netip.Addr) bool {
	for _, q := range p.addrs {
		if q.Addr() == a {
			return true
		}
	}
	return false
}

// neighbour reports whether a can be another machine of the local network.
func (p *port) neighbour(a netip.Addr) bool {
	q, ok := p.local(a)
	if !ok || !a.Is4() || p.own(a) {
		return false
	}
	return q.Bits() >= 31 || a != q.Masked().Addr() && a != block.Last(q)
}

// host returns what is known of a, from the neighbour table if need be, and
// asks for it if that says nothing. It returns nil when there are too many.
func (p *port) host(a netip.Addr, now time.Time) *host {
	h, ok := p.hosts[a]
	if !ok {
		if len(p.hosts) >= maxHosts {
			return nil
		}
		h = &host{}
		h.mac, h.known = p.cached[a]
		p.hosts[a] = h
	}
	if !h.known && !h.asking && (h.failed.IsZero() || now.Sub(h.failed) >= silence) {
		h.ask(now)
	}
	return h
}

func (h *host) ask(now time.Time) { h.asking, h.tries, h.next = true, 0, now }

// sure reports whether it was found out lately who has the address, if anybody.
func (h *host) sure(now time.Time) bool {
	return !h.asking && (now.Sub(h.heard) < refresh || now.Sub(h.failed) < silence)
}

// also returns the other addresses than a that are known to be at m, in order.
func (p *port) also(m MAC, a netip.Addr) (list []netip.Addr) {
	for b, c := range p.cached {
		if c == m && b != a {
			list = append(list, b)
		}
	}
	for b, h := range p.hosts {
		if h.known && h.mac == m && b != a && p.cached[b] != m {
			list = append(list, b)
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

// asking returns how many hosts are asked for.
func (p *port) asking() (n int) {
	for _, h := range p.hosts {
		if h.asking {
			n++
		}
	}
	return n
}
