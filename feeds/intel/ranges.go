package intel

import (
	"encoding/binary"
	"net/netip"
)

// Special returns the blocks that are no part of the public Internet, those in
// which profile.IsPublic holds for no address: private, shared, link-local,
// loopback, for documentation, reserved and multicast. A test of package format
// compares the two. The list must not be changed.
func Special() []netip.Prefix { return special }

var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/29"), netip.MustParsePrefix("192.0.0.170/31"), netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("224.0.0.0/3"),
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

// wide is an address of 128 bits; an IPv4 address stands in the upper 32, so that
// prefixes have the same length in both.
type wide struct{ hi, lo uint64 }

func (a wide) less(b wide) bool { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }

// past returns the first address behind the network of a with so many bits; false
// when the network reaches the last address. bits is not 0.
func (a wide) past(bits int) (wide, bool) {
	if bits <= 64 {
		a.hi += 1 << (64 - bits)
	} else if a.lo += 1 << (128 - bits); a.lo == 0 {
		a.hi++
	}
	return a, a != wide{}
}

// addrKey appends the key of an address: its 4 or 16 bytes.
func addrKey(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		x := a.As4()
		return append(b, x[:]...)
	}
	x := a.As16()
	return append(b, x[:]...)
}

// keyAddr is the address of a key; false if it is none.
func keyAddr(key []byte) (a netip.Addr, w wide, ok bool) {
	switch len(key) {
	case 4:
		return netip.AddrFrom4([4]byte(key)), wide{hi: uint64(binary.BigEndian.Uint32(key)) << 32}, true
	case 16:
		return netip.AddrFrom16([16]byte(key)), wide{binary.BigEndian.Uint64(key), binary.BigEndian.Uint64(key[8:])}, true
	}
	return netip.Addr{}, wide{}, false
}

// bound says that from an address on, up to the next bound, the most specific
// range that holds an address is a node: its number plus one, 0 for none.
type bound struct {
	from wide
	node uint32
}

// flatten makes the bounds of ranges, and sets the parent of each: the most
// specific range around it. Networks lie within each other or apart, so a stack
// is enough. Keys come in their order: by address, the wider network first.
func flatten(first, end uint32, key func(node uint32) []byte, setParent func(node, parent uint32)) []bound {
	type open struct {
		node  uint32
		past  wide
		ended bool // there is an address behind it
	}
	var bounds []bound
	var stack []open
	add := func(b bound) {
		if n := len(bounds); n > 0 && bounds[n-1].from == b.from {
			bounds[n-1] = b
			return
		}
		bounds = append(bounds, b)
	}
	pop := func() {
		top := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if !top.ended {
			return
		}
		b := bound{from: top.past}
		if n := len(stack); n > 0 {
			b.node = stack[n-1].node + 1
		}
		add(b)
	}
	for node := first; node < end; node++ {
		k := key(node)
		_, from, _ := keyAddr(k[:len(k)-1])
		for len(stack) > 0 && stack[len(stack)-1].ended && !from.less(stack[len(stack)-1].past) {
			pop()
		}
		if n := len(stack); n > 0 {
			setParent(node, stack[n-1].node)
		}
		past, ended := from.past(int(k[len(k)-1]))
		stack = append(stack, open{node, past, ended})
		add(bound{from, node + 1})
	}
	for len(stack) > 0 {
		pop()
	}
	return bounds
}

// buckets is the size of the first level: one for each value of the first 16 bits
// of an address.
const buckets = 1 << 16

// intervals are the bounds of one family in the compiled form. The first level
// has for each bucket, and once more at the end, the number of its first bound
// and the node that holds at its first address. Most buckets have no bound in
// them, and are done with one access to memory.
type intervals struct {
	index  []byte // 8 bytes each; empty when there is no bound
	starts []byte // width bytes each, ascending
	nodes  []byte // 4 bytes each
	width  int    // 4 or 16
}

func (r *intervals) at(i uint32) wide {
	if r.width == 4 {
		return wide{hi: uint64(le.Uint32(r.starts[i*4:])) << 32}
	}
	b := r.starts[uint64(i)*16:]
	return wide{le.Uint64(b), le.Uint64(b[8:])}
}

// find returns the number of the node plus one, or 0.
func (r *intervals) find(a wide) uint32 {
	if len(r.index) == 0 {
		return 0
	}
	e := r.index[a.hi>>48*8:]
	low, high, node := le.Uint32(e), le.Uint32(e[8:]), le.Uint32(e[4:])
	if low >= high {
		return node
	}
	i, j := low, high
	for i < j {
		if m := i + (j-i)/2; a.less(r.at(m)) {
			j = m
		} else {
			i = m + 1
		}
	}
	if i > low {
		node = le.Uint32(r.nodes[uint64(i-1)*4:])
	}
	return node
}

// fill writes the bounds.
func (r *intervals) fill(bounds []bound) {
	if len(bounds) == 0 {
		return
	}
	for i, b := range bounds {
		if r.width == 4 {
			le.PutUint32(r.starts[i*4:], uint32(b.from.hi>>32))
		} else {
			le.PutUint64(r.starts[i*16:], b.from.hi)
			le.PutUint64(r.starts[i*16+8:], b.from.lo)
		}
		le.PutUint32(r.nodes[i*4:], b.node)
	}
	next, node := 0, uint32(0)
	for bucket := range uint64(buckets + 1) {
		for next < len(bounds) && bounds[next].from.hi>>48 < bucket {
			node = bounds[next].node
			next++
		}
		le.PutUint32(r.index[bucket*8:], uint32(next))
		le.PutUint32(r.index[bucket*8+4:], node)
	}
}
