// Package dossier collects what is known about addresses and names, and puts
// it beside the evidence that names them.
package dossier

import (
	"encoding/gob"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/feeds/geo"
	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/feeds/oui"
)

const (
	// DefaultMax is how many addresses of each shelf are kept unless told
	// otherwise, of a few hundred bytes each.
	DefaultMax = 20_000
	// maxNames is how many names of an address are kept: the hosts of a cloud
	// have thousands, and a reader takes in few.
	maxNames = 4
	// maxName is the longest name of the DNS, in text (RFC 1035, 2.3.4).
	maxName = 253
)

// Places tells where addresses are; *geo.DB does.
type Places interface {
	Lookup(addr netip.Addr) geo.Place
}

// Options of a Book.
type Options struct {
	Max int // addresses of the own network, and as many others; 0: DefaultMax
	// Local says which addresses are of the own network. Only those have the
	// MAC address seen with them: that of others is a router's. They have a
	// shelf of their own, so that the names of the Internet do not push the
	// hosts out that evidence is about. nil: private and link-local ones.
	Local func(netip.Addr) bool
}

// Book is what the traffic told of addresses. It belongs to one goroutine.
//
// What it holds depends on the calls and their order alone. A call that is
// repeated changes nothing, but where the address was forgotten in between.
type Book struct {
	max    int
	local  func(netip.Addr) bool
	places Places
	intel  *intel.View

	own, others shelf
	forgotten   int64
}

// shelf is a ring of pages in the order of first insertion: when it is full the
// next address takes the place of the oldest, seen again or not.
type shelf struct {
	index map[netip.Addr]int32 // into pages
	pages []page
	next  int // the oldest, once the ring is full
}

// oldestFirst returns the pages in the order of their insertion.
func (s *shelf) oldestFirst() []page { return slices.Concat(s.pages[s.next:], s.pages[:s.next]) }

// shelf returns the one that addr belongs on.
func (b *Book) shelf(addr netip.Addr) *shelf {
	if b.local(addr) {
		return &b.own
	}
	return &b.others
}

// page is what is known of one address. It is saved as it is.
type page struct {
	Addr        netip.Addr
	Names       []evidence.Name
	More        bool // there are names that are not kept
	MAC         string
	First, Last int64 // unix ns; both 0 when no time was told
}

// Stats says how full a Book is.
type Stats struct {
	Addresses int
	Forgotten int64 // addresses, to make room
	Crowded   int   // addresses with more names than are kept
}

// New returns an empty Book.
func New(o Options) *Book {
	b := &Book{max: o.Max, local: o.Local}
	b.own.index, b.others.index = make(map[netip.Addr]int32), make(map[netip.Addr]int32)
	if b.max <= 0 {
		b.max = DefaultMax
	}
	b.max = min(b.max, math.MaxInt32) // what index can say
	if b.local == nil {
		b.local = func(a netip.Addr) bool { return a.IsPrivate() || a.IsLinkLocalUnicast() }
	}
	return b
}

// Use sets where places and feeds are looked up from now on. Either may be nil.
func (b *Book) Use(places Places, view *intel.View) {
	b.places, b.intel = places, view
}

// Sighting says that addr was called name at a time (unix ns, stream time).
// from is what it was seen in: "dns", "sni", "http", "ptr", "dhcp". The strings
// may alias the record; what is kept is copied.
func (b *Book) Sighting(addr netip.Addr, name, from string, at int64) {
	p := b.page(addr)
	if p == nil {
		return
	}
	p.seen(at)
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > maxName {
		return
	}
	for i := range p.Names {
		if sameName(p.Names[i].Name, name) {
			return
		}
	}
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return // an address is no name, as in a Host header
	}
	if len(p.Names) == maxNames {
		p.More = true
		return
	}
	// A Known that somebody reads may share the slice; it ends before the new name.
	p.Names = append(p.Names, evidence.Name{Name: lower(name), From: strings.Clone(from)})
}

// sameName reports whether name in lower case is kept.
func sameName(kept, name string) bool {
	if len(kept) != len(name) {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != kept[i] {
			return false
		}
	}
	return true
}

// lower returns a copy of a name in lower case, as the DNS compares: in ASCII.
// Other bytes stay, whatever they are.
func lower(name string) string {
	b := []byte(name)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}

// Seen says that there was traffic of addr at a time (unix ns, stream time).
func (b *Book) Seen(addr netip.Addr, at int64) {
	if p := b.page(addr); p != nil {
		p.seen(at)
	}
}

// MAC says which hardware address addr was seen with. That of an address
// outside the own network is not taken, nor one that is no host's.
func (b *Book) MAC(addr netip.Addr, mac string) {
	if !b.local(addr.Unmap()) {
		return
	}
	p := b.page(addr)
	if p == nil || p.MAC == mac {
		return
	}
	if mac, ok := canonicalMAC(mac); ok && p.MAC != mac {
		p.MAC = mac
	}
}

// canonicalMAC returns the address in lower case with colons. It is not ok
// when it is none, a group's, or zero.
func canonicalMAC(s string) (string, bool) {
	var out [17]byte
	if len(s) != len(out) {
		return "", false
	}
	zero := true
	for i := range out {
		c := s[i] | 0x20 // lower case; digits have that bit already
		switch {
		case i%3 == 2:
			if s[i] != ':' && s[i] != '-' {
				return "", false
			}
			c = ':'
		case s[i] < '0' || '9' < s[i] && (c < 'a' || 'f' < c):
			return "", false
		default:
			zero = zero && c == '0'
		}
		out[i] = c
	}
	group := strings.IndexByte("13579bdf", out[1]) >= 0
	return string(out[:]), !zero && !group
}

func (p *page) seen(at int64) {
	if at == 0 {
		return
	}
	if p.First == 0 && p.Last == 0 {
		p.First, p.Last = at, at
		return
	}
	if at < p.First {
		p.First = at
	}
	if at > p.Last {
		p.Last = at
	}
}

// page returns the page of addr and makes it if need be; nil for what is no
// address of a host.
func (b *Book) page(addr netip.Addr) *page {
	addr = key(addr)
	s := b.shelf(addr)
	if i, ok := s.index[addr]; ok {
		return &s.pages[i]
	}
	if !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() || addr == broadcast() {
		return nil
	}
	if len(s.pages) < b.max {
		s.index[addr] = int32(len(s.pages))
		s.pages = append(s.pages, page{Addr: addr})
		return &s.pages[len(s.pages)-1]
	}
	p := &s.pages[s.next]
	delete(s.index, p.Addr)
	s.index[addr] = int32(s.next)
	s.next = (s.next + 1) % b.max
	b.forgotten++
	*p = page{Addr: addr}
	return p
}

// key is how an address is kept: without zone, which is the sensor's own, and
// IPv4 as such.
func key(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func broadcast() netip.Addr { return netip.AddrFrom4([4]byte{255, 255, 255, 255}) }

// Stats returns how full the book is.
func (b *Book) Stats() Stats {
	s := Stats{Addresses: len(b.own.pages) + len(b.others.pages), Forgotten: b.forgotten}
	for _, sh := range []*shelf{&b.own, &b.others} {
		for i := range sh.pages {
			if sh.pages[i].More {
				s.Crowded++
			}
		}
	}
	return s
}

// Describe sets Known of the attacker and the victim of e; nil where nothing is
// known. It changes nothing in the book.
func (b *Book) Describe(e *evidence.Evidence) {
	e.Attacker.Known = b.describe(&e.Attacker, e.Time)
	e.Victim.Known = b.describe(&e.Victim, e.Time)
}

func (b *Book) describe(n *evidence.Entity, at int64) *evidence.Known {
	switch n.Kind {
	case evidence.IP:
		if a, err := netip.ParseAddr(n.Value); err == nil {
			return b.address(a, at)
		}
	case evidence.Domain:
		return b.host(n.Value, at)
	case evidence.URL:
		return b.url(n.Value, n.Port, at)
	case evidence.None, evidence.Hash:
	}
	return nil
}

// address returns what is known of a when evidence of a time names it.
func (b *Book) address(a netip.Addr, at int64) *evidence.Known {
	a = key(a)
	s := b.shelf(a)
	i, ok := s.index[a]
	if !ok {
		return b.lookup(&page{Addr: a})
	}
	p := &s.pages[i]
	k := b.lookup(p)
	if k != nil && k.LastSeen != 0 {
		k.LastSeen = max(k.LastSeen, at)
	}
	return k
}

// lookup makes what is known of the address of a page; nil when that is nothing.
func (b *Book) lookup(p *page) *evidence.Known {
	k := &evidence.Known{Names: p.Names, More: p.More, MAC: p.MAC, FirstSeen: p.First, LastSeen: p.Last}
	if p.MAC != "" {
		k.Vendor = oui.Vendor(p.MAC)
	}
	if b.places != nil && p.Addr.IsGlobalUnicast() && !p.Addr.IsPrivate() {
		at := b.places.Lookup(p.Addr)
		k.Country, k.City, k.ASN, k.AS = at.Country, at.City, at.ASN, at.AS
	}
	k.Feeds = feeds(nil, b.intel.Address(p.Addr))
	for _, n := range p.Names { // the best rank of any
		if r := b.intel.Rank(n.Name); r != 0 && (k.Rank == 0 || r < k.Rank) {
			k.Rank = r
		}
	}
	return orNil(k)
}

// host returns what is known of a name, or of an address that stands for one.
func (b *Book) host(name string, at int64) *evidence.Known {
	if a, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return b.address(a, at)
	}
	return orNil(&evidence.Known{Feeds: feeds(nil, b.intel.Domain(name)), Rank: b.intel.Rank(name)})
}

// url returns what is known of a URL's host, with the feeds that list the URL
// itself before those that list the host. The scheme may be missing.
func (b *Book) url(value string, port uint16, at int64) *evidence.Known {
	text := value
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return nil
	}
	if port == 0 {
		if port = 80; strings.EqualFold(u.Scheme, "https") {
			port = 443
		}
	}
	known := b.host(u.Hostname(), at)
	listed := feeds(nil, b.intel.URL(u.Host, port, u.RequestURI()))
	if len(listed) == 0 {
		return known
	}
	k := evidence.Known{}
	if known != nil {
		k = *known
	}
	for _, f := range k.Feeds {
		if !slices.Contains(listed, f) {
			listed = append(listed, f)
		}
	}
	k.Feeds = listed
	return &k
}

// feeds appends the names of the feeds in m, each once, in m's order.
func feeds(names []string, m intel.Match) []string {
	if !m.OK() {
		return names
	}
	for i := range m.Len() {
		// That something is on a list of harmless things is no accusation.
		if l := m.At(i); !l.Harmless && !slices.Contains(names, l.Feed.Name) {
			names = append(names, l.Feed.Name)
		}
	}
	return names
}

func orNil(k *evidence.Known) *evidence.Known {
	if k.Country == "" && k.City == "" && k.ASN == 0 && len(k.Names) == 0 && k.MAC == "" && len(k.Feeds) == 0 && k.Rank == 0 &&
		k.FirstSeen == 0 && k.LastSeen == 0 {
		return nil
	}
	return k
}

// saved is the state of a Book: its pages from the oldest on.
type saved struct {
	Own, Others []page
	Forgotten   int64
}

// Save writes the state of the book.
func (b *Book) Save(enc *gob.Encoder) error {
	s := saved{Own: b.own.oldestFirst(), Others: b.others.oldestFirst(), Forgotten: b.forgotten}
	if err := enc.Encode(s); err != nil {
		return fmt.Errorf("saving what is known of addresses: %w", err)
	}
	return nil
}

// Load takes the place of what the book holds. If it was saved by one that
// holds more, the oldest addresses are forgotten. On an error the book is as
// it was.
func (b *Book) Load(dec *gob.Decoder) error {
	var s saved
	if err := dec.Decode(&s); err != nil {
		return fmt.Errorf("loading what is known of addresses: %w", err)
	}
	own, over, err := b.fill(s.Own)
	if err != nil {
		return err
	}
	others, more, err := b.fill(s.Others)
	if err != nil {
		return err
	}
	b.own, b.others, b.forgotten = own, others, s.Forgotten+int64(over+more)
	return nil
}

// fill makes a shelf of saved pages, and says how many had no room.
func (b *Book) fill(pages []page) (sh shelf, over int, err error) {
	over = max(len(pages)-b.max, 0)
	sh = shelf{pages: pages[over:], index: make(map[netip.Addr]int32, len(pages)-over)}
	for i := range sh.pages {
		p := &sh.pages[i]
		if !p.Addr.IsValid() || p.Addr != key(p.Addr) || len(p.Names) > maxNames {
			return sh, 0, fmt.Errorf("loading what is known of addresses: page %d is damaged", i)
		}
		sh.index[p.Addr] = int32(i)
	}
	if len(sh.index) != len(sh.pages) {
		return sh, 0, errors.New("loading what is known of addresses: an address is there twice")
	}
	return sh, over, nil
}
