package intel

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// View is a snapshot of all indicators. It does not change, any goroutine may look
// something up, and a nil *View knows nothing. It has no clock: an indicator stays
// until a View without it takes its place, and Listing.Expires says when it ended.
//
// No look-up allocates. Whatever is asked need not be in canonical form.
type View struct {
	// The sections of the compiled form, which the View points into.
	feedTable, textIndex, texts, listings, nodes, keys []byte

	tables [NumKinds]table
	v4, v6 intervals
	first  [NumKinds + 1]uint32 // node of each kind, and the number of all
	feeds  []Feed
	built  int64
	id     [16]byte
	as     func(netip.Addr) (asn uint32, org string)

	private bool
}

// Empty returns a View that knows nothing.
func Empty() *View { return &View{} }

// Has reports whether there is any indicator of the kind: callers skip their work
// if not.
func (v *View) Has(k Kind) bool {
	return v != nil && k < NumKinds && v.first[k+1] > v.first[k]
}

// Private reports whether an address or a range is listed that is no part of the
// public Internet, as only an operator's own list has them; harmless ones do not
// count. Callers need not look such addresses up if not.
func (v *View) Private() bool { return v != nil && v.private }

// hasPrivate works out Private. Keys are sorted, so that it looks at few of them.
func (v *View) hasPrivate() bool {
	for _, block := range special {
		from := addrKey(nil, block.Addr())
		for _, k := range []Kind{Address, Range} {
			first := v.first[k]
			n := first + uint32(sort.Search(int(v.first[k+1]-first), func(i int) bool {
				key := v.key(first + uint32(i))
				key = key[:len(key)-int(k-Address)] // without the length of a range
				return cmp.Or(cmp.Compare(len(key), len(from)), bytes.Compare(key, from)) >= 0
			}))
			for ; n < v.first[k+1]; n++ {
				if p := v.prefix(n); !block.Contains(p.Addr()) {
					break
				} else if p.Bits() >= block.Bits() && !(Match{v, n, true}).Harmless() {
					return true
				}
			}
		}
	}
	return false
}

// prefix returns what an Address or a Range names.
func (v *View) prefix(n uint32) netip.Prefix {
	key := v.key(n)
	if n < v.first[Range] {
		a, _, _ := keyAddr(key)
		return netip.PrefixFrom(a, a.BitLen())
	}
	bits := len(key) - 1
	a, _, _ := keyAddr(key[:bits])
	return netip.PrefixFrom(a, int(key[bits]))
}

func (v *View) key(n uint32) []byte {
	b := v.nodes[uint64(n)*nodeSize:]
	return v.keys[le.Uint32(b):le.Uint32(b[nodeSize:])]
}

// parent returns the nearest indicator that covers a node too.
func (v *View) parent(n uint32) (uint32, bool) {
	p := le.Uint32(v.nodes[uint64(n)*nodeSize+8:])
	return p - 1, p != 0 && n < v.first[Popular]
}

func (v *View) family(a netip.Addr) *intervals {
	if a.Is4() {
		return &v.v4
	}
	return &v.v6
}

// exact returns the node of the kind with the key.
func (v *View) exact(k Kind, key []byte) (uint32, bool) {
	t := &v.tables[k]
	if t.size == 0 {
		return 0, false
	}
	h := hashKey(k, t.seed, key)
	if !t.maybe(h) {
		return 0, false
	}
	return t.find(h, func(n uint32) bool { return string(v.key(n)) == string(key) })
}

// Address returns the listings of an address and of all ranges that hold it. An
// IPv4 address may be mapped into IPv6, and a zone does not matter.
func (v *View) Address(a netip.Addr) Match {
	if v == nil || !a.IsValid() {
		return Match{}
	}
	a = a.Unmap()
	var w wide
	var key [16]byte
	var h uint64
	t, r, size := &v.tables[Address], &v.v6, 16
	if a.Is4() {
		x := a.As4()
		r, size = &v.v4, copy(key[:], x[:])
		n := binary.BigEndian.Uint32(x[:])
		w.hi, h = uint64(n)<<32, hash4(t.seed, n)
	} else {
		key = a.As16()
		w = wide{binary.BigEndian.Uint64(key[:]), binary.BigEndian.Uint64(key[8:])}
		h = hash16(t.seed, w.hi, w.lo)
	}
	if t.size > 0 && t.maybe(h) {
		if n, ok := t.find(h, func(n uint32) bool { return string(v.key(n)) == string(key[:size]) }); ok {
			return Match{v, n, true}
		}
	}
	if n := r.find(w); n != 0 {
		return Match{v, n - 1, false}
	}
	return Match{}
}

// Domain returns the listings of a name and of each parent of it that is listed.
// The name may be in any case and end with a dot.
func (v *View) Domain(name string) Match {
	n, whole, ok := v.suffix(Domain, name)
	if !ok {
		return Match{}
	}
	return Match{v, n, whole}
}

// Rank returns the rank of the name, or else of its nearest parent, among the
// Popular ones: 0 when it is not there.
func (v *View) Rank(name string) int {
	n, _, ok := v.suffix(Popular, name)
	if !ok {
		return 0
	}
	return int(le.Uint32(v.nodes[uint64(n)*nodeSize+8:]))
}

// suffix returns the longest name that is known: the whole name, or a parent of
// two labels or more. The name is read once from the right, as hash does.
func (v *View) suffix(k Kind, name string) (node uint32, whole, ok bool) {
	if v == nil || v.tables[k].size == 0 || len(name) > maxName+2 {
		return 0, false, false
	}
	if n := len(name); n > 0 && name[n-1] == '.' {
		name = name[:n-1]
	}
	t, s := &v.tables[k], []byte(name)
	if len(s) == 0 || s[0] == '.' {
		return 0, false, false
	}
	look := func(h uint64, from int) {
		if n, found := t.find(h, func(n uint32) bool { return sameLower(v.key(n), name[from:]) }); found {
			node, whole, ok = n, from == 0, true
		}
	}
	h, labels := t.seed, 0
	right := uint64(1 << 7) // whether the byte behind the word is a dot, or the end
	for rest := len(s); ; {
		n := min(rest, 8)
		rest -= n
		var w uint64
		switch {
		case n == 8:
			w = le.Uint64(s[rest:])
		case len(s) >= 8:
			w = le.Uint64(s) & (1<<(8*n) - 1)
		default:
			w = short(s[:n])
		}
		w = lower8(w)
		dots := dots8(w)
		if n > 0 {
			if (dots>>8|right<<(8*n-8))&dots != 0 {
				return 0, false, false // no name has an empty label
			}
			right = dots & (1 << 7)
		}
		for dots != 0 { // the rightmost first
			at := (bits.Len64(dots) - 1) >> 3
			dots &= 1<<(8*at) - 1
			if labels++; labels > 1 {
				if x := last(h, w>>(8*at+8), n-1-at); t.maybe(x) {
					look(x, rest+at+1)
				}
			}
		}
		if n < 8 {
			if labels > 0 {
				if x := last(h, w, n); t.maybe(x) {
					look(x, 0)
				}
			}
			return node, whole, ok
		}
		h = mix(h, w)
	}
}

// URL returns the listings of what was asked for over HTTP, and of the same
// without its query. host is as in the header of that name and may carry a port;
// if not, port is the flow's. uri is as in the request line; if it names a host of
// its own, as proxies are asked, that counts. Ports 80 and 443 are as good as none.
func (v *View) URL(host string, port uint16, uri string) Match {
	if v == nil || v.tables[URL].size == 0 {
		return Match{}
	}
	if h, path, ok := absolute(uri); ok {
		host, port, uri = h, 0, path
	}
	uri, _, _ = strings.Cut(uri, "#")
	path, query := uri, ""
	if q := strings.IndexByte(uri, '?'); q >= 0 {
		path, query = uri[:q], uri[q:]
	}
	if path == "" {
		path = "/"
	} else if path[0] != '/' {
		return Match{} // "*", or the host and port of CONNECT
	}
	var buf [maxName + len(".:65535")]byte
	where, ok := appendHost(buf[:0], host, port)
	if !ok || len(where)+len(path) > maxURL {
		return Match{}
	}
	t := &v.tables[URL]
	bare := hashURL(t.seed, where, []byte(path))
	if query != "" && len(where)+len(path)+len(query) <= maxURL {
		if n, ok := v.findURL(hashQuery(bare, []byte(query)), where, path, query); ok {
			return Match{v, n, true}
		}
	}
	if n, ok := v.findURL(bare, where, path, ""); ok {
		return Match{v, n, query == ""}
	}
	return Match{}
}

// appendHost writes a host in canonical form, with its port or else the one given,
// to b, which is empty and has room for it; false if it cannot be one.
func appendHost(b []byte, host string, port uint16) ([]byte, bool) {
	host, own := splitPort(host)
	if own != "" {
		n, err := strconv.ParseUint(own, 10, 16)
		if err != nil {
			return nil, false
		}
		port = uint16(n)
	}
	if n := len(host); n > 1 && host[n-1] == '.' {
		host = host[:n-1]
	}
	if len(host) > maxName {
		return nil, false
	}
	if strings.IndexByte(host, '/') >= 0 {
		return nil, false // or else it would look like the beginning of the path
	}
	b = b[:copyLower(b[:cap(b)], host)]
	if port != 0 && port != 80 && port != 443 {
		b = strconv.AppendUint(append(b, ':'), uint64(port), 10)
	}
	return b, true
}

// findURL returns the node whose key is the parts.
func (v *View) findURL(h uint64, host []byte, path, query string) (uint32, bool) {
	t := &v.tables[URL]
	if !t.maybe(h) {
		return 0, false
	}
	return t.find(h, func(n uint32) bool {
		key := v.key(n)
		a, b := len(host), len(host)+len(path)
		return len(key) == b+len(query) && string(key[:a]) == string(host) && string(key[a:b]) == path && string(key[b:]) == query
	})
}

// absolute splits a URL with its scheme and host into host and the rest.
func absolute(uri string) (host, rest string, ok bool) {
	if uri == "" || uri[0] == '/' {
		return "", "", false
	}
	i := strings.Index(uri, "://")
	if i < 1 || i > len("https") { // no scheme of HTTP is longer
		return "", "", false
	}
	host = uri[i+3:]
	if j := strings.IndexAny(host, "/?#"); j >= 0 {
		host, rest = host[:j], host[j:]
	}
	return host[strings.LastIndexByte(host, '@')+1:], rest, true
}

// Text returns the listings of a fingerprint, a hash or a mailbox: JA3, JA3S, JA4,
// JARM, CertSHA1, MD5, SHA1, SHA256 or Email, in any case. A certificate's hash may
// have colons between its bytes.
func (v *View) Text(k Kind, s string) Match {
	if v == nil || k >= NumKinds || v.tables[k].size == 0 || k.digits() == 0 && k != JA4 && k != Email {
		return Match{}
	}
	digits := k.digits()
	if len(s) > maxEmail || digits > 0 && len(s) != digits && k != CertSHA1 {
		return Match{} // mostly "-" and the like
	}
	var buf [maxEmail]byte
	n := copyLower(buf[:], s)
	if k == CertSHA1 && n > digits {
		n = 0
		for i := range len(s) {
			if s[i] != ':' || i == 0 {
				buf[n] = lower(s[i])
				n++
			}
		}
	}
	if node, ok := v.exact(k, buf[:n]); ok {
		return Match{v, node, true}
	}
	return Match{}
}

// ASN returns the listings of an autonomous system.
func (v *View) ASN(n uint32) Match {
	if !v.Has(ASN) {
		return Match{}
	}
	var buf [10]byte
	if node, ok := v.exact(ASN, strconv.AppendUint(buf[:0], uint64(n), 10)); ok {
		return Match{v, node, true}
	}
	return Match{}
}

// WithAS returns a copy that also knows the autonomous system of addresses. The
// function is called by any goroutine.
func (v *View) WithAS(as func(netip.Addr) (asn uint32, org string)) *View {
	c := View{}
	if v != nil {
		c = *v
	}
	c.as = as
	return &c
}

// AS returns the autonomous system that announces the address and its name; 0 when
// it is not known.
func (v *View) AS(a netip.Addr) (asn uint32, org string) {
	if v == nil || v.as == nil || !a.IsValid() {
		return 0, ""
	}
	return v.as(a.Unmap())
}

// Each calls fn with all indicators, in the order of kinds: what Indicator returns,
// and what looking it up finds.
func (v *View) Each(fn func(Kind, string, Match) bool) {
	if v == nil {
		return
	}
	for n := range v.first[NumKinds] {
		if m := (Match{v, n, true}); !fn(v.kind(n), v.indicator(n), m) {
			return
		}
	}
}

func (v *View) kind(n uint32) Kind {
	k := NoKind
	for n >= v.first[k+1] {
		k++
	}
	return k
}

func (v *View) indicator(n uint32) string {
	key := v.key(n)
	switch v.kind(n) {
	case Address:
		return v.prefix(n).Addr().String()
	case Range:
		return v.prefix(n).String()
	case ASN:
		return "AS" + string(key)
	default:
		return string(key)
	}
}

// Match is what is known about something: one or more indicators, each listed by
// one or more feeds. The zero Match is none. It is valid as long as the View's
// bytes are.
type Match struct {
	v     *View
	node  uint32
	exact bool
}

// OK reports whether anything is known.
func (m Match) OK() bool { return m.v != nil }

// Exact reports whether the most specific indicator is the thing itself, and no
// range around an address, parent of a name or URL without its query.
func (m Match) Exact() bool { return m.exact }

// Kind returns the kind of the most specific indicator.
func (m Match) Kind() Kind {
	if m.v == nil {
		return NoKind
	}
	return m.v.kind(m.node)
}

// Indicator returns the most specific indicator: "1.2.3.0/24", "bad.example",
// "AS64500"; "" if there is none.
func (m Match) Indicator() string {
	if m.v == nil {
		return ""
	}
	return m.v.indicator(m.node)
}

// each calls fn with the node and the number of each listing, the most specific
// first, until it returns false.
func (m Match) each(fn func(node, listing uint32) bool) {
	if m.v == nil {
		return
	}
	node := m.node
	for range maxDepth {
		for l := le.Uint32(m.v.nodes[uint64(node)*nodeSize+4:]); ; l++ {
			if !fn(node, l) {
				return
			}
			if m.v.listings[uint64(l)*listingSize+3]&lastListing != 0 {
				break
			}
		}
		up, ok := m.v.parent(node)
		if !ok {
			return
		}
		node = up
	}
}

// Harmless reports whether something is known, and all of it is that the thing is
// harmless: whoever looks for the bad passes it by.
func (m Match) Harmless() bool {
	all := m.OK()
	m.each(func(_, l uint32) bool {
		all = m.v.listings[uint64(l)*listingSize+3]&harmless != 0
		return all
	})
	return all
}

// Private reports whether the most specific indicator is an address or a range
// that is no part of the public Internet. A range that merely reaches over such
// addresses says nothing about them.
func (m Match) Private() bool {
	if m.v == nil || m.node >= m.v.first[Range+1] {
		return false
	}
	p := m.v.prefix(m.node)
	return slices.ContainsFunc(special, func(block netip.Prefix) bool { return p.Bits() >= block.Bits() && block.Contains(p.Addr()) })
}

// Len returns the number of listings.
func (m Match) Len() int {
	n := 0
	m.each(func(uint32, uint32) bool { n++; return true })
	return n
}

// Level returns the highest level of all listings.
func (m Match) Level() Level {
	level := Level(0)
	m.each(func(_, l uint32) bool {
		level = max(level, Level(m.v.listings[uint64(l)*listingSize+2]))
		return true
	})
	return level
}

// nth returns the node and number of listing i, which there must be.
func (m Match) nth(i int) (node, listing uint32) {
	found := false
	m.each(func(n, l uint32) bool {
		node, listing, found = n, l, i == 0
		i--
		return !found
	})
	if !found {
		panic("intel: no such listing in the match")
	}
	return node, listing
}

// At returns listing i, which is below Len: those of the most specific indicator first,
// and of one indicator by the name of the feed. Its texts are the caller's.
func (m Match) At(i int) Listing {
	_, l := m.nth(i)
	b := m.v.listings[uint64(l)*listingSize:]
	return Listing{
		Feed: &m.v.feeds[le.Uint16(b)], Level: Level(b[2]),
		Description: m.v.text(le.Uint32(b[4:])), Tags: splitTags(m.v.text(le.Uint32(b[8:]))),
		Since: int64(le.Uint32(b[12:])), Expires: int64(le.Uint32(b[16:])), Harmless: b[3]&harmless != 0,
	}
}

// IndicatorAt returns the indicator that listing i is of.
func (m Match) IndicatorAt(i int) string {
	n, _ := m.nth(i)
	return m.v.indicator(n)
}
