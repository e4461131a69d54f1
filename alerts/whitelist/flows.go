package whitelist

import (
	"encoding/gob"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/slips-go/slips/parsers/flow"
)

// Flows decides about records. It remembers which addresses the listed names
// resolved to and which have a listed MAC, so one goroutine must show it every
// record, in order.
type Flows struct {
	// Listed, if it is set, is asked before an organisation drops a record. A
	// record about which it says true, because a feed names something in it, is
	// kept.
	Listed func(*flow.Flow) bool

	list  *List
	x     *index // nil: no entry ignores records
	tally *Tally
	hits  hits
	known addrTable
}

const (
	// maxKnown bounds the addresses that are remembered; the half that was not
	// named for longest is forgotten when there are more. One takes some 100
	// bytes and its name.
	maxKnown = 1 << 16
	// knownFor is how long an address goes by a name after the last answer that
	// said so, in ns: long connections outlive the answer they rest on, and a
	// day is more than nearly all TTLs.
	knownFor = int64(24 * time.Hour)
)

// NewFlows returns what decides by l, which may be nil, and counts in t, which
// may not.
func NewFlows(l *List, t *Tally) *Flows {
	w := &Flows{tally: t}
	w.Replace(l)
	return w
}

// Replace makes w decide by l from the next record on. What is remembered of
// addresses is kept as far as l lists it. It is called by the goroutine that
// calls Ignore.
func (w *Flows) Replace(l *List) {
	w.list, w.x = l, nil
	if l != nil {
		w.x = l.flows
	}
	w.known.keep(func(k *known) bool { return w.resolve(k) })
}

// resolve finds what the list says about k, and reports whether it says
// anything.
func (w *Flows) resolve(k *known) bool {
	k.name, k.mac = -1, -1
	if w.x == nil {
		return false
	}
	if k.Name != "" {
		if k.name = w.x.domain(k.Name); k.name < 0 {
			k.Name, k.Mixed = "", false
		}
	}
	if a, ok := w.x.macs[k.MAC]; ok && k.HasMAC {
		k.mac = a
	} else {
		k.MAC, k.HasMAC = 0, false
	}
	return k.name >= 0 || k.mac >= 0
}

// Ignore reports whether a record is to be dropped, and counts it if so. It
// keeps nothing of the record.
func (w *Flows) Ignore(f *flow.Flow) bool {
	if w.x == nil {
		return false
	}
	at := f.At
	if at == 0 {
		at = f.Time
	}
	w.look(f, at)
	if w.hits.empty() {
		return false
	}
	var refuse func(*rule) bool
	if w.Listed != nil {
		refuse = func(r *rule) bool { return r.broad && w.Listed(f) }
	}
	r := w.x.first(&w.hits, at, refuse)
	if r == nil {
		return false
	}
	w.tally.flow(&w.list.entries[r.entry].rule)
	return true
}

// look finds what holds of a record, and learns from it.
func (w *Flows) look(f *flow.Flow, at int64) {
	x, h := w.x, &w.hits
	h.reset()
	own, name := ownName(f), int32(-1)
	if own != "" {
		name = x.domain(own)
		x.gather(h, dst, x.names, name, true)
	}
	from, to := sidesOf(f)
	if len(x.nodes) > 0 {
		x.gatherAddr(h, from, f.Src, true)
		x.gatherAddr(h, to, f.Dst, true)
	}
	if x.portBits != nil && f.HasPorts && !f.Proto.IsICMP() {
		p := protoNumber(f.Proto)
		x.gatherPort(h, from, p, f.SrcPort)
		x.gatherPort(h, to, p, f.DstPort)
	}
	if len(x.macs) > 0 {
		if f.SrcMAC != "" {
			x.gatherMAC(h, from, f.SrcMAC)
		}
		if f.DstMAC != "" {
			x.gatherMAC(h, to, f.DstMAC)
		}
	}
	switch f.Kind {
	case flow.DNS:
		w.answers(f, at, name)
	case flow.SSL, flow.QUIC:
		if len(x.words) > 0 && f.SSL.JA3 != "" {
			x.gatherWord(h, JA3, strings.ToLower(f.SSL.JA3))
		}
		if own != "" && name < 0 {
			w.share(f.Dst)
		}
	case flow.HTTP:
		if own != "" && name < 0 {
			w.share(f.Dst)
		}
	case flow.ARP:
		mac := f.ARP.SenderHW
		if mac == "" {
			mac = f.SrcMAC
		}
		x.gatherMAC(h, src, mac)
		w.learnMAC(f.Src, mac, at)
	case flow.DHCP:
		a := f.DHCP.Assigned
		if !a.IsValid() {
			a = f.DHCP.Client
		}
		x.gatherMAC(h, src, f.DHCP.MAC)
		w.learnMAC(a, f.DHCP.MAC, at)
	default: // the others have nothing but what all have
	}
	if len(w.known.All) > 0 {
		w.remember(from, f.Src, at, true)
		// A record that says its name goes by that, not by what the address was called before.
		w.remember(to, f.Dst, at, own == "")
	}
}

// answers looks at the addresses in an answer of DNS, and remembers them when
// the name that was asked for, whose node is name, is listed.
func (w *Flows) answers(f *flow.Flow, at int64, name int32) {
	if len(w.x.nodes) == 0 && name < 0 && len(w.known.All) == 0 {
		return
	}
	for _, s := range f.DNS.Answers {
		a, ok := answer(s)
		if !ok || a.IsUnspecified() {
			continue
		}
		w.x.gatherAddr(&w.hits, dst, a, true)
		if name < 0 {
			w.share(a)
			continue
		}
		if !w.believes(f.Dst) {
			continue
		}
		k := w.known.put(a)
		if k.name != name {
			k.Name, k.name = strings.Clone(f.DNS.Query), name
		}
		k.Seen = max(k.Seen, at)
	}
}

// believes reports whether a resolver is one of ours. Whoever runs a resolver on
// the Internet could have any address go by a listed name, for all hosts.
func (w *Flows) believes(resolver netip.Addr) bool {
	return resolver.IsPrivate() || resolver.IsLoopback() || resolver.IsLinkLocalUnicast() ||
		slices.ContainsFunc(w.list.home, func(p netip.Prefix) bool { return p.Contains(resolver) })
}

// remember adds what earlier records have said about an address; its name only
// if that counts.
func (w *Flows) remember(side uint8, a netip.Addr, at int64, counts bool) {
	k := w.known.get(a)
	if k == nil {
		return
	}
	if k.mac >= 0 && !w.hits.has(side, k.mac) {
		w.hits[side] = append(w.hits[side], k.mac)
	}
	if counts && k.name >= 0 && !k.Mixed && at-k.Seen < knownFor {
		w.x.gather(&w.hits, side, w.x.names, k.name, true)
	}
}

// sidesOf returns on which side of the connection the record's Src and Dst are.
// They are swapped for a file that the responder sent, because the Src of a
// file is its sender.
func sidesOf(f *flow.Flow) (from, to uint8) {
	if f.Kind == flow.Files && f.Files.IsOrig == flow.False {
		return dst, src
	}
	return src, dst
}

// ownName returns the name that a record is about, "" when it has none.
func ownName(f *flow.Flow) string {
	switch f.Kind {
	case flow.DNS:
		return f.DNS.Query
	case flow.SSL, flow.QUIC:
		return f.SSL.ServerName
	case flow.HTTP:
		return hostName(f.HTTP.Host)
	case flow.Lookup:
		if f.Lookup.Of == "domain" {
			return f.Lookup.Subject
		}
	default: // the others name no peer
	}
	return ""
}

// hostName takes the port off a host.
func hostName(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		return host[:i]
	}
	return host
}

func protoNumber(p flow.Proto) uint64 {
	switch p {
	case flow.TCP:
		return tcp
	case flow.UDP:
		return udp
	case flow.SCTP:
		return sctp
	default: // no ports
		return 0
	}
}

// answer returns the address that an answer of DNS is. Most are IPv4 addresses
// or names, so these are told apart before the costlier look.
func answer(s string) (netip.Addr, bool) {
	var b [4]byte
	part, v, digits := 0, 0, 0
	for i := range len(s) {
		c := s[i]
		switch {
		case '0' <= c && c <= '9' && (digits == 0 || v > 0): // no leading zeros
			v = v*10 + int(c-'0')
			digits++
		case c == '.' && digits > 0 && part < 3:
			b[part] = byte(v)
			part, v, digits = part+1, 0, 0
		default:
			return answer6(s)
		}
		if v > 255 {
			return answer6(s)
		}
	}
	b[3] = byte(v)
	return netip.AddrFrom4(b), part == 3 && digits > 0
}

func answer6(s string) (netip.Addr, bool) {
	if strings.IndexByte(s, ':') < 0 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err == nil && a.Zone() == ""
}

// share notes that a has a name that is not listed: it goes by none from here.
func (w *Flows) share(a netip.Addr) {
	if k := w.known.get(a); k != nil && k.Name != "" {
		k.Mixed = true
	}
}

// learnMAC remembers which address a listed MAC has.
func (w *Flows) learnMAC(a netip.Addr, mac string, at int64) {
	m, ok := parseMAC(mac)
	if !ok || len(w.x.macs) == 0 || !a.IsValid() || a.IsUnspecified() {
		return
	}
	if atom, ok := w.x.macs[m]; ok {
		k := w.known.put(a)
		k.MAC, k.HasMAC, k.mac = m, true, atom
		k.Seen = max(k.Seen, at)
	} else if k := w.known.get(a); k != nil { // another device has the address now
		k.MAC, k.HasMAC, k.mac = 0, false, -1
	}
}

// Save writes what is remembered of addresses to a checkpoint.
func (w *Flows) Save(enc *gob.Encoder) error {
	if err := enc.Encode(w.known.All); err != nil {
		return fmt.Errorf("save addresses of whitelisted names: %w", err)
	}
	return nil
}

// Load replaces what is remembered by what Save wrote, as far as the list in
// use still names it.
func (w *Flows) Load(dec *gob.Decoder) error {
	var all []known
	if err := dec.Decode(&all); err != nil {
		return fmt.Errorf("load addresses of whitelisted names: %w", err)
	}
	if len(all) > maxKnown {
		return fmt.Errorf("load addresses of whitelisted names: %d of them, want at most %d", len(all), maxKnown)
	}
	w.known = addrTable{All: all}
	w.known.keep(w.resolve)
	return nil
}

// known is what is remembered of an address.
type known struct {
	Addr   netip.Addr
	Name   string // listed, or below a listed one; "" when it has none
	Mixed  bool   // it has other names too
	MAC    uint64 // listed
	HasMAC bool
	Seen   int64 // unix ns, when it was last said

	name, mac int32 // node and atom in the index at hand; -1: none
}

// addrTable finds what is known of an address. It is open addressing because
// every record asks it twice, and Go's map takes five times as long.
type addrTable struct {
	All   []known
	slots []addrSlot // a power of two, at most half in use
}

type addrSlot struct {
	hi, lo uint64
	i      int32 // 0: free; otherwise one more than the place in All
}

func (t *addrTable) find(hi, lo uint64) *addrSlot {
	// The constants are the 64-bit golden ratio and the second multiplier of splitmix64.
	h := (hi*0x94d049bb133111eb ^ lo) * 0x9e3779b97f4a7c15
	mask := len(t.slots) - 1
	for i := int(h >> (64 - bits.Len(uint(mask)))); ; i = (i + 1) & mask {
		if s := &t.slots[i]; s.i == 0 || s.lo == lo && s.hi == hi {
			return s
		}
	}
}

// get returns what is known of a, nil if nothing. It is valid until the next put.
func (t *addrTable) get(a netip.Addr) *known {
	if len(t.All) == 0 || !a.IsValid() {
		return nil
	}
	if s := t.find(halves(a)); s.i > 0 {
		return &t.All[s.i-1]
	}
	return nil
}

// put returns what is known of a, adding it if it is new. It is valid until the
// next put.
func (t *addrTable) put(a netip.Addr) *known {
	if k := t.get(a); k != nil {
		return k
	}
	if len(t.All) >= maxKnown {
		ages := make([]int64, len(t.All))
		for i := range t.All {
			ages[i] = t.All[i].Seen
		}
		slices.Sort(ages)
		middle := ages[len(ages)/2]
		t.keep(func(k *known) bool { return k.Seen > middle })
	}
	t.All = append(t.All, known{Addr: a, name: -1, mac: -1})
	if 2*len(t.All) > len(t.slots) {
		t.index()
	} else {
		hi, lo := halves(a)
		*t.find(hi, lo) = addrSlot{hi, lo, int32(len(t.All))}
	}
	return &t.All[len(t.All)-1]
}

// keep forgets all that fn refuses.
func (t *addrTable) keep(fn func(*known) bool) {
	all := t.All[:0]
	for i := range t.All {
		if fn(&t.All[i]) {
			all = append(all, t.All[i])
		}
	}
	clear(t.All[len(all):])
	t.All = all
	t.index()
}

// index makes the slots anew.
func (t *addrTable) index() {
	if len(t.All) == 0 {
		t.slots = nil
		return
	}
	t.slots = make([]addrSlot, 4<<bits.Len(uint(len(t.All))))
	for i := range t.All {
		hi, lo := halves(t.All[i].Addr)
		*t.find(hi, lo) = addrSlot{hi, lo, int32(i + 1)}
	}
}
