package proto

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/slips-go/slips/parsers/flow"
)

// Bounds of DHCP, the first four as in Zeek.
const (
	maxDHCPWait  = 30_000e6 // ns that an exchange may take
	minDHCPWait  = 10_000e6 // ns before which it is not looked whether it is over
	maxDHCPQuiet = 5_000e6  // ns after its last message when it is over, and between looks
	maxDHCPUIDs  = 10       // connections of an exchange
	maxDHCPTypes = 50       // messages of an exchange
	maxDHCP      = 4096     // exchanges at a time
	dhcpEach     = 1_000e6  // ns between looks at what is over
)

// Sink takes the records of DHCP, which belong to no one connection.
type Sink interface {
	// Record returns an empty record of kind k that began at t (unix ns).
	Record(k flow.Kind, t int64) *flow.Flow
	Emit(f *flow.Flow)
}

// DHCP joins the messages of an exchange between a client and its servers
// into one record. One goroutine uses it at a time.
type DHCP struct {
	Malformed int64 // datagrams that were no DHCP messages
	Early     int64 // exchanges written out early because there were too many

	sink  Sink
	open  map[uint32]*dhcpExchange // by the id of the transaction
	order []uint32                 // the ids as they came
	free  []*dhcpExchange
	look  int64 // when to look for what is over
	buf   []byte
}

// dhcpExchange is what was said under one transaction id.
type dhcpExchange struct {
	t                                                  int64 // of the first packet, unix ns
	began, last, look                                  int64 // by the clock of Advance
	mac, host, fqdn, domain, toServer, toClient, class []byte
	client, server, requested, assigned, router        netip.Addr
	lease                                              int64
	types                                              []byte
	uids                                               []string
	fromClient                                         bool // mac is the client's own word
	asked                                              bool // a message of the client was seen
}

func (e *dhcpExchange) reset(t, now int64) {
	o := *e
	*e = dhcpExchange{
		t: t, began: now, last: now, look: now + minDHCPWait, mac: o.mac[:0], host: o.host[:0], fqdn: o.fqdn[:0], domain: o.domain[:0], toServer: o.toServer[:0],
		toClient: o.toClient[:0], class: o.class[:0], types: o.types[:0], uids: o.uids[:0],
	}
}

// NewDHCP returns a DHCP that hands its records to s.
func NewDHCP(s Sink) *DHCP { return &DHCP{sink: s, open: make(map[uint32]*dhcpExchange)} }

// dhcpTypes are the names of the messages, as Zeek has them.
var dhcpTypes = [...]string{
	"<unknown>", "DISCOVER", "OFFER", "REQUEST", "DECLINE", "ACK", "NAK", "RELEASE", "INFORM", "FORCERENEW", "LEASEQUERY",
	"LEASEUNASSIGNED", "LEASEUNKNOWN", "LEASEACTIVE", "BULKLEASEQUERY", "LEASEQUERYDONE", "ACTIVELEASEQUERY",
	"LEASEQUERYSTATUS", "TLS",
}

// Datagram takes a UDP payload from or to a port of DHCP. uid is that of the
// connection, src is who sent it, t is the packet's time in unix ns and now
// that by the clock of Advance. It reports whether the payload is a DHCP
// message.
func (d *DHCP) Datagram(uid string, src netip.AddrPort, data []byte, t, now int64) (ok bool) {
	d.Advance(now)
	// RFC 2131: op, hardware type and address length, hops, id, seconds, flags,
	// four addresses, 16 bytes of hardware address, two names, the cookie.
	const fixed, cookie = 240, 0x63825363
	if len(data) < fixed || data[0] < 1 || data[0] > 2 || binary.BigEndian.Uint32(data[236:]) != cookie {
		d.Malformed++
		return false
	}
	options := data[fixed:]
	typ, found := dhcpOption(options, 53)
	if !found || len(typ) != 1 {
		d.Malformed++ // BOOTP
		return false
	}
	id := binary.BigEndian.Uint32(data[4:])
	e := d.open[id]
	if e == nil {
		if len(d.open) >= maxDHCP {
			d.Early++
			d.finish(d.order[0])
		}
		if n := len(d.free); n > 0 {
			e, d.free = d.free[n-1], d.free[:n-1]
		} else {
			e = new(dhcpExchange)
		}
		e.reset(t, now)
		d.open[id] = e
		d.order = append(d.order, id)
	}
	e.last = max(e.last, now)
	e.types = append(e.types, typ[0])
	if !slices.Contains(e.uids, uid) {
		e.uids = append(e.uids, uid)
	}
	e.take(data, options, typ[0], src)
	if len(e.uids) >= maxDHCPUIDs || len(e.types) >= maxDHCPTypes {
		d.finish(id)
	}
	return true
}

// answers reports whether a message is a server's answer: an offer or an
// acknowledgement from the port of servers, to a client that asked under the
// same id. Anybody can send the rest, and it says nothing about the network.
func (e *dhcpExchange) answers(op, typ byte, port uint16) bool {
	const reply, offer, ack, nak, serverPort = 2, 2, 5, 6, 67
	return e.asked && op == reply && port == serverPort && (typ == offer || typ == ack || typ == nak)
}

// take takes the fields of one message.
func (e *dhcpExchange) take(data, options []byte, typ byte, src netip.AddrPort) {
	addr := func(b []byte) netip.Addr {
		a, _ := netip.AddrFromSlice(b[:min(len(b), 4)])
		if !a.Is4() || a.IsUnspecified() {
			return netip.Addr{}
		}
		return a
	}
	request, answer := data[0] == 1, e.answers(data[0], typ, src.Port())
	e.asked = e.asked || request
	hardware := data[28:34]
	your := addr(data[16:20])
	for len(options) > 0 {
		code := options[0]
		if code == 0 {
			options = options[1:]
			continue
		}
		if code == 255 || len(options) < 2 || len(options) < 2+int(options[1]) {
			break
		}
		v := options[2 : 2+int(options[1])]
		options = options[2+len(v):]
		if len(v) == 0 {
			continue
		}
		switch code {
		case 3:
			if a := addr(v); a.IsValid() && answer {
				e.router = a
			}
		case 12:
			if request {
				e.host = append(e.host[:0], v...)
			}
		case 15:
			if answer {
				e.domain = append(e.domain[:0], v...)
			}
		case 50:
			if a := addr(v); a.IsValid() && request {
				e.requested = a
			}
		case 51:
			if len(v) == 4 && answer {
				e.lease = int64(binary.BigEndian.Uint32(v)) * 1e9
			}
		case 56:
			if request {
				e.toServer = append(e.toServer[:0], v...)
			} else if answer {
				e.toClient = append(e.toClient[:0], v...)
			}
		case 60:
			if request {
				e.class = append(e.class[:0], v...)
			}
		case 61:
			if request && len(v) == 7 && v[0] == 1 { // Ethernet
				e.mac, e.fromClient = append(e.mac[:0], v[1:]...), true
			}
		case 81:
			if request && len(v) > 3 {
				e.fqdn = appendFQDN(e.fqdn[:0], v)
			}
		}
	}
	if data[2] == 6 && !e.fromClient && (len(e.mac) == 0 || request) {
		e.mac = append(e.mac[:0], hardware...)
	}
	if request {
		if a := src.Addr(); a.IsValid() && !a.IsUnspecified() {
			e.client = a
		}
		return
	}
	if answer && your.IsValid() { // as in Zeek, who hands out no address is not named
		e.server, e.assigned = src.Addr(), your
		if !e.client.IsValid() {
			e.client = your
		}
	}
}

// appendFQDN appends the name in option 81, RFC 4702: three bytes of flags
// and codes, then text or DNS labels.
func appendFQDN(dst, v []byte) []byte {
	if v[0]&4 == 0 {
		return append(dst, v[3:]...)
	}
	name, _, ok := appendName(dst, append(append([]byte(nil), v[3:]...), 0), 0)
	if !ok {
		return dst[:0]
	}
	return name
}

// dhcpOption returns the first option of a code.
func dhcpOption(b []byte, code byte) (v []byte, ok bool) {
	for len(b) > 0 {
		switch {
		case b[0] == 0:
			b = b[1:]
			continue
		case b[0] == 255 || len(b) < 2 || len(b) < 2+int(b[1]):
			return nil, false
		case b[0] == code:
			return b[2 : 2+int(b[1])], true
		}
		b = b[2+int(b[1]):]
	}
	return nil, false
}

// Advance writes out the exchanges that are over. now is of a clock in ns that
// goes on whatever the times of the packets do.
func (d *DHCP) Advance(now int64) {
	if now < d.look {
		return
	}
	d.look = now + dhcpEach
	for i := 0; i < len(d.order); {
		e := d.open[d.order[i]]
		if now >= e.look {
			if now-e.last > maxDHCPQuiet || now-e.began > maxDHCPWait {
				d.finish(d.order[i])
				continue
			}
			e.look = now + maxDHCPQuiet
		}
		i++
	}
}

// End writes out what is left. The clock may begin anew.
func (d *DHCP) End() {
	for len(d.order) > 0 {
		d.finish(d.order[0])
	}
	d.look = 0
}

// finish writes an exchange out and forgets it.
func (d *DHCP) finish(id uint32) {
	e := d.open[id]
	delete(d.open, id)
	if i := slices.Index(d.order, id); i >= 0 {
		d.order = slices.Delete(d.order, i, i+1)
	}
	f := d.sink.Record(flow.DHCP, e.t)
	p := f.DHCP
	f.Duration = e.last - e.began
	f.Proto = flow.UDP
	text := func(b []byte) string {
		d.buf = appendEscaped(d.buf[:0], bytes.TrimSpace(trimNUL(b)))
		return f.Hold(d.buf)
	}
	if len(e.mac) == 6 {
		b := d.buf[:0]
		for i, c := range e.mac {
			if i > 0 {
				b = append(b, ':')
			}
			b = append(b, hexDigits[c>>4], hexDigits[c&15])
		}
		d.buf = b
		p.MAC = f.Hold(b)
		f.SrcMAC = p.MAC
	}
	p.HostName, p.ClientFQDN, p.Domain = text(e.host), text(e.fqdn), text(e.domain)
	p.ClientMessage, p.ServerMessage, p.VendorClass = text(e.toServer), text(e.toClient), text(e.class)
	p.Client, p.Server, p.Requested, p.Assigned, p.Router = e.client, e.server, e.requested, e.assigned, e.router
	p.LeaseTime = e.lease
	for _, t := range e.types {
		if int(t) < len(dhcpTypes) {
			p.MsgTypes = append(p.MsgTypes, dhcpTypes[t])
		} else {
			p.MsgTypes = append(p.MsgTypes, numbered(f, "Unknown-", uint16(t)))
		}
	}
	for _, u := range e.uids {
		p.UIDs = append(p.UIDs, f.Hold([]byte(u)))
	}
	if len(p.UIDs) > 0 {
		f.UID = p.UIDs[0]
	}
	for _, a := range [3]netip.Addr{p.Client, p.Requested, p.Assigned} {
		if a.IsValid() {
			f.Src = a
			break
		}
	}
	f.Dst = p.Server
	d.sink.Emit(f)
	if len(d.free) < maxFree {
		d.free = append(d.free, e)
	}
}

func trimNUL(b []byte) []byte {
	if i := indexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}
