package whitelist

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
)

// index finds the entries that may match. Each different condition is an atom,
// and a thing that is looked up (an address, a name) yields the atoms that
// hold of it. A rule matches when all its atoms hold where they must. The
// tables are laid out so that a miss, which is what nearly every look-up is,
// reads one or two places in memory. It does not change.
type index struct {
	atoms []atom
	rules []rule // in the order of their lines

	nodes []node // of prefixes
	v4    intervals4
	v6    []interval6 // by start

	names        []node     // of domains
	texts        []string   // of names
	slots        []nameSlot // open addressing, a power of two, at most half in use
	fewest, most int        // labels that a listed domain has

	macs     map[uint64]int32
	asns     map[uint32][]int32
	ports    map[uint64]int32  // by cond.number; without protocol, by the port alone
	portBits []uint64          // of the ports in ports, 65536 bits; nil when there are none
	words    map[textKey]int32 // the conditions without a side
}

// atom is a condition, and the rules that name it first.
type atom struct {
	kind  Type
	rules []int32 // ascending
}

// rule is an entry of the index.
type rule struct {
	entry   int32
	dirs    uint8
	broad   bool // it rests on an organisation or AS
	expires int64
	needs   []need
}

// need is an atom and where it must hold.
type need struct {
	atom int32
	at   uint8
}

// node is a prefix or a domain. Its atoms hold of all that lies within it, and
// so do those of its parents.
type node struct {
	atoms  []int32
	parent int32 // the next that holds this one; -1: none
}

type textKey struct {
	kind Type
	text string
}

// newIndex makes the index of the entries that want chooses; nil when there
// are none.
func newIndex(entries []entry, want func(*Rule) bool) (*index, error) {
	x := &index{
		macs: make(map[uint64]int32), asns: make(map[uint32][]int32), ports: make(map[uint64]int32), words: make(map[textKey]int32),
	}
	byCond := make(map[textKey]int32)
	prefixes := make(map[netip.Prefix][]int32)
	domains := make(map[string][]int32)
	for i := range entries {
		e := &entries[i]
		if !want(&e.rule) {
			continue
		}
		r := rule{entry: int32(i), dirs: e.dirs, expires: e.rule.Expires}
		for j, c := range e.conds {
			k := textKey{c.kind, c.value}
			a, ok := byCond[k]
			if !ok {
				a = int32(len(x.atoms))
				byCond[k] = a
				x.atoms = append(x.atoms, atom{kind: c.kind})
				if err := x.add(a, c, prefixes, domains); err != nil {
					return nil, err
				}
			}
			if j == 0 {
				x.atoms[a].rules = append(x.atoms[a].rules, int32(len(x.rules)))
			}
			r.broad = r.broad || c.kind == Organization || c.kind == ASN
			r.needs = append(r.needs, need{a, c.at})
		}
		x.rules = append(x.rules, r)
	}
	if len(x.rules) == 0 {
		return nil, nil
	}
	x.buildPrefixes(prefixes)
	x.buildDomains(domains)
	return x, nil
}

// add notes where atom a is found.
func (x *index) add(a int32, c cond, prefixes map[netip.Prefix][]int32, domains map[string][]int32) error {
	switch c.kind {
	case IP:
		prefixes[c.prefix] = append(prefixes[c.prefix], a)
	case Domain:
		domains[c.value] = append(domains[c.value], a)
	case MAC:
		x.macs[c.number] = a
	case ASN:
		x.asns[uint32(c.number)] = append(x.asns[uint32(c.number)], a)
	case Port:
		x.ports[c.number] = a
		if x.portBits == nil {
			x.portBits = make([]uint64, 1<<16/64)
		}
		port := c.number & 0xffff
		x.portBits[port/64] |= 1 << (port % 64)
	case Organization:
		o, err := LoadOrganization(c.value)
		if err != nil {
			return err
		}
		for _, p := range o.Prefixes {
			prefixes[p] = append(prefixes[p], a)
		}
		for _, d := range o.Domains {
			domains[d] = append(domains[d], a)
		}
		for _, n := range o.ASNs {
			x.asns[n] = append(x.asns[n], a)
		}
	case JA3, Evidence, Module:
		x.words[textKey{c.kind, c.value}] = a
	default: // noType is no condition
	}
	return nil
}

// buildPrefixes makes the nodes and intervals of the prefixes.
func (x *index) buildPrefixes(prefixes map[netip.Prefix][]int32) {
	sorted := make([]netip.Prefix, 0, len(prefixes))
	for p := range prefixes {
		sorted = append(sorted, p)
	}
	slices.SortFunc(sorted, func(a, b netip.Prefix) int { // those that hold others first
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	// The prefixes cut the addresses into intervals, in each of which the same
	// ones hold. The innermost stands for all.
	type interval struct {
		start netip.Addr
		node  int32
	}
	var cuts []interval
	cut := func(start netip.Addr, n int32) {
		if k := len(cuts) - 1; k >= 0 && cuts[k].start == start {
			cuts[k].node = n
			return
		}
		cuts = append(cuts, interval{start, n})
	}
	var open []int32 // nodes that the place at hand lies in
	leave := func() {
		n := open[len(open)-1]
		open = open[:len(open)-1]
		if next := last(sorted[n]).Next(); next.IsValid() {
			cut(next, x.nodes[n].parent)
		}
	}
	for i, p := range sorted {
		for len(open) > 0 && !sorted[open[len(open)-1]].Contains(p.Addr()) {
			leave()
		}
		parent := int32(-1)
		if len(open) > 0 {
			parent = open[len(open)-1]
		}
		x.nodes = append(x.nodes, node{prefixes[p], parent})
		cut(p.Addr(), int32(i))
		open = append(open, int32(i))
	}
	for len(open) > 0 {
		leave()
	}
	var v4 []interval4
	for _, c := range cuts {
		if c.start.Is4() {
			b := c.start.As4()
			v4 = append(v4, interval4{binary.BigEndian.Uint32(b[:]), c.node})
		} else {
			hi, lo := halves(c.start)
			x.v6 = append(x.v6, interval6{hi, lo, c.node})
		}
	}
	x.v4 = newIntervals4(v4)
}

// last returns the last address of p.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// halves returns an address as two numbers, IPv4 in the form that is mapped
// into IPv6.
func halves(a netip.Addr) (hi, lo uint64) {
	if a.Is4() { // As16 would do, and stall on its bytes
		b := a.As4()
		return 0, 0xffff<<32 | uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

// intervals4 finds the interval of an IPv4 address. A first level by the upper
// half of the address leaves a handful to search; it takes 256 KiB.
type intervals4 struct {
	cuts  []interval4 // by start, the first at 0.0.0.0
	first []uint32    // of the cuts whose upper half is that or more
}

type interval4 struct {
	start uint32
	node  int32 // -1: none
}

func newIntervals4(cuts []interval4) intervals4 {
	if len(cuts) == 0 {
		return intervals4{}
	}
	if cuts[0].start != 0 {
		cuts = slices.Insert(cuts, 0, interval4{0, -1})
	}
	t := intervals4{cuts, make([]uint32, 1<<16+1)}
	k := 0
	for half := range t.first {
		for k < len(cuts) && int(cuts[k].start>>16) < half {
			k++
		}
		t.first[half] = uint32(k)
	}
	return t
}

func (t *intervals4) find(a uint32) int32 {
	lo, hi := int(t.first[a>>16]), int(t.first[a>>16+1])
	for hi-lo > 8 {
		if m := (lo + hi) / 2; t.cuts[m].start <= a {
			lo = m
		} else {
			hi = m
		}
	}
	for hi > lo && t.cuts[hi-1].start > a {
		hi--
	}
	return t.cuts[hi-1].node
}

type interval6 struct {
	hi, lo uint64 // start
	node   int32
}

// prefix returns the innermost prefix that holds a, -1 when none does.
func (x *index) prefix(a netip.Addr) int32 {
	if a.Is4() || a.Is4In6() {
		if len(x.v4.cuts) == 0 {
			return -1
		}
		b := a.As4()
		return x.v4.find(binary.BigEndian.Uint32(b[:]))
	}
	if len(x.v6) == 0 || !a.IsValid() {
		return -1
	}
	hi, lo := halves(a)
	i, j := 0, len(x.v6) // the first that starts behind a
	for i < j {
		m := int(uint(i+j) >> 1)
		if c := &x.v6[m]; c.hi < hi || c.hi == hi && c.lo <= lo {
			i = m + 1
		} else {
			j = m
		}
	}
	if i == 0 {
		return -1
	}
	return x.v6[i-1].node
}

// nameSlot is a place in the table of domains. The hash tells nearly all
// others apart; the text decides.
type nameSlot struct {
	hash uint64
	name int32 // 0: free; otherwise one more than the place in names
}

func (x *index) buildDomains(domains map[string][]int32) {
	if len(domains) == 0 {
		return
	}
	sorted := make([]string, 0, len(domains))
	for d := range domains {
		sorted = append(sorted, d)
	}
	slices.SortFunc(sorted, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	x.slots = make([]nameSlot, 2<<bits.Len(uint(len(sorted))))
	for _, d := range sorted { // parents are shorter, so they are there
		parent := x.domain(d)
		x.names = append(x.names, node{domains[d], parent})
		x.texts = append(x.texts, d)
		n := 1 + strings.Count(d, ".")
		x.most = max(x.most, n)
		if x.fewest == 0 || n < x.fewest {
			x.fewest = n
		}
		h := nameSeed
		for end := len(d); end > 0; {
			from := strings.LastIndexByte(d[:end], '.') + 1
			h = hashLabel(h, d[from:end])
			end = from - 1
		}
		i := int(h) & (len(x.slots) - 1)
		for x.slots[i].name != 0 {
			i = (i + 1) & (len(x.slots) - 1)
		}
		x.slots[i] = nameSlot{h, int32(len(x.names))}
	}
}

// domain returns the longest listed domain that s is or lies below, -1 when
// there is none. Case does not matter, nor does a dot at the end. It does not
// allocate.
func (x *index) domain(s string) int32 {
	if n := len(s); n > 0 && s[n-1] == '.' {
		s = s[:n-1]
	}
	if s == "" || len(s) > maxName || x.slots == nil {
		return -1
	}
	best, mask := int32(-1), len(x.slots)-1
	h, end := nameSeed, len(s)
	for n := range x.most {
		from := end
		for from > 0 && s[from-1] != '.' {
			from--
		}
		h = hashLabel(h, s[from:end])
		for i := int(h) & mask; n+1 >= x.fewest && x.slots[i].name != 0; i = (i + 1) & mask {
			if x.slots[i].hash == h && sameName(x.texts[x.slots[i].name-1], s[from:]) {
				best = x.slots[i].name - 1
				break
			}
		}
		if from == 0 {
			break
		}
		end = from - 1
	}
	return best
}

const nameSeed = uint64(0x9e3779b97f4a7c15)

// hashLabel continues the hash of a name by the label to the left. Bit 5 is set
// in all bytes, which makes letters of both cases the same, and some other
// bytes too: the text decides. The multiplier is that of splitmix64.
func hashLabel(h uint64, s string) uint64 {
	const fold = 0x2020202020202020
	h ^= uint64(len(s))
	for len(s) >= 8 {
		w := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		h = (h ^ (w | fold)) * 0xbf58476d1ce4e5b9
		h ^= h >> 31
		s = s[8:]
	}
	w := uint64(0)
	for i := range len(s) {
		w = w<<8 | uint64(s[i])
	}
	h = (h ^ (w | fold)) * 0xbf58476d1ce4e5b9
	return h ^ h>>31
}

// sameName reports whether s is the listed name, which is in lower case.
func sameName(listed, s string) bool {
	if len(listed) != len(s) {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != listed[i] {
			return false
		}
	}
	return true
}

// parseMAC returns a hardware address of six bytes, written with ":" or "-", as
// a number. It does not allocate.
func parseMAC(s string) (uint64, bool) {
	if len(s) != 17 {
		return 0, false
	}
	v := uint64(0)
	for i := range len(s) {
		c := s[i]
		switch {
		case i%3 == 2:
			if c != ':' && c != '-' {
				return 0, false
			}
			continue
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		v = v<<4 | uint64(c)
	}
	return v, true
}

// hits are the atoms that hold: on the source's side, on the destination's, and
// those of no side.
type hits [3][]int32

func (h *hits) reset() {
	for i := range h {
		h[i] = h[i][:0]
	}
}

func (h *hits) empty() bool { return len(h[src])+len(h[dst])+len(h[none]) == 0 }

// has reports whether atom a holds on a side.
func (h *hits) has(side uint8, a int32) bool { return slices.Contains(h[side], a) }

// gather adds what a node and its parents say to a side; without broad,
// organisations are left out.
func (x *index) gather(h *hits, side uint8, nodes []node, n int32, broad bool) {
	for ; n >= 0; n = nodes[n].parent {
		for _, a := range nodes[n].atoms {
			if !h.has(side, a) && (broad || x.atoms[a].kind != Organization) {
				h[side] = append(h[side], a)
			}
		}
	}
}

func (x *index) gatherAddr(h *hits, side uint8, a netip.Addr, broad bool) {
	x.gather(h, side, x.nodes, x.prefix(a), broad)
}

func (x *index) gatherName(h *hits, side uint8, name string, broad bool) {
	x.gather(h, side, x.names, x.domain(name), broad)
}

func (x *index) gatherMAC(h *hits, side uint8, mac string) {
	if len(x.macs) == 0 {
		return
	}
	if m, ok := parseMAC(mac); ok {
		if a, ok := x.macs[m]; ok && !h.has(side, a) {
			h[side] = append(h[side], a)
		}
	}
}

func (x *index) gatherASN(h *hits, side uint8, asn uint32) {
	for _, a := range x.asns[asn] {
		if !h.has(side, a) {
			h[side] = append(h[side], a)
		}
	}
}

// gatherPort takes the protocol by its number, see portProto.
func (x *index) gatherPort(h *hits, side uint8, proto uint64, port uint16) {
	if x.portBits == nil || x.portBits[port/64]&(1<<(port%64)) == 0 {
		return
	}
	for _, k := range [2]uint64{uint64(port), proto<<16 | uint64(port)} {
		if a, ok := x.ports[k]; ok && !h.has(side, a) {
			h[side] = append(h[side], a)
		}
	}
}

func (x *index) gatherWord(h *hits, k Type, text string) {
	if a, ok := x.words[textKey{k, text}]; ok && !h.has(none, a) {
		h[none] = append(h[none], a)
	}
}

// holds reports whether the rule's conditions hold, entry's direction given by
// dirs, and on which side.
func (r *rule) holds(h *hits, dirs uint8) (side uint8, ok bool) {
	for side := src; side <= dst; side++ {
		if dirs&(1<<side) != 0 && !slices.ContainsFunc(r.needs, func(n need) bool { return !n.holds(h, side) }) {
			return side, true
		}
	}
	return 0, false
}

func (n need) holds(h *hits, side uint8) bool {
	if n.at != same {
		side = n.at
	}
	return h.has(side, n.atom)
}

func (r *rule) expired(at int64) bool { return r.expires != 0 && at >= r.expires }

// first returns the rule of the lowest line that matches at a time, nil when
// none does. refuse may turn down a rule; nil turns none down.
func (x *index) first(h *hits, at int64, refuse func(*rule) bool) *rule {
	best := int32(len(x.rules))
	for _, side := range h {
		for _, a := range side {
			for _, i := range x.atoms[a].rules {
				if i >= best {
					break
				}
				r := &x.rules[i]
				if _, ok := r.holds(h, r.dirs); ok && !r.expired(at) && (refuse == nil || !refuse(r)) {
					best = i
					break
				}
			}
		}
	}
	if int(best) == len(x.rules) {
		return nil
	}
	return &x.rules[best]
}
