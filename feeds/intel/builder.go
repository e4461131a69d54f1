package intel

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// What feeds write about an indicator is for people to read, and kept short: a
// feed must not fill the memory with it. What is longer is cut.
const (
	maxDescription = 1024 // bytes
	maxTag         = 128  // bytes
	maxTags        = 32
)

// Builder collects indicators of feeds and makes the compiled form. It is for one
// goroutine, and keeps nothing of what it is given.
type Builder struct {
	feeds   []feed
	entries [NumKinds][]entry
	count   int
	keys    []byte
	texts   []string          // descriptions and tags, by number
	numbers map[string]uint32 // of texts
	size    int               // bytes of texts
	scratch []byte
}

// entry is an indicator as one feed lists it.
type entry struct {
	key                  uint32 // where it begins in keys
	size, feed           uint16 // of the key; the feed's number
	level                Level
	description, tags    uint32 // texts
	since, expires, rank uint32
}

// feed is a Feed whose texts are numbers.
type feed struct {
	name, provider, url, tags uint32
	level                     Level
	updated                   int64
}

// NewBuilder returns an empty one.
func NewBuilder() *Builder {
	b := &Builder{numbers: map[string]uint32{}}
	b.intern("") // text 0: nothing said
	return b
}

// AddFeed adds a feed and returns its number for Add. Names should differ: feeds of
// one name stay in the order in which they were added. Count is not read. A level
// that is none counts as medium, as in the reference (3.6.2).
func (b *Builder) AddFeed(f Feed) int {
	if f.Level > 4 {
		f.Level = 2
	}
	b.feeds = append(b.feeds, feed{
		name: b.intern(shorten(f.Name, maxDescription)), provider: b.intern(shorten(f.Provider, maxDescription)), url: b.intern(shorten(f.URL, maxURL)),
		tags: b.internTags(f.Tags), level: f.Level, updated: f.Updated,
	})
	return len(b.feeds) - 1
}

// Add adds an indicator that a feed lists. An indicator that the feed has listed
// already is one listing with it: of the higher level, from the earliest time
// given to the latest, with the tags of both and the first description in the
// order of bytes, so that the order of a feed's entries does not matter. The error
// says why the indicator is not in canonical form, or that there is no room.
func (b *Builder) Add(feed int, in Indicator) error {
	if feed < 0 || feed >= len(b.feeds) || feed >= maxFeeds {
		return fmt.Errorf("add %q: there is no feed %d", in.text(), feed)
	}
	if in.Kind == Range && in.Prefix.IsSingleIP() {
		in.Kind = Address
	}
	if err := in.Check(); err != nil {
		return err
	}
	if b.count >= maxSize-1 || len(b.keys) > maxSize-maxURL || b.size > maxSize/4 {
		return fmt.Errorf("add %q: no more room for indicators", in.text())
	}
	e := entry{
		key: uint32(len(b.keys)), feed: uint16(feed), level: in.Level, description: b.intern(shorten(in.Description, maxDescription)),
		since: uint32(in.Since), expires: uint32(min(in.Expires, maxTime)),
	}
	if e.level == FeedLevel {
		e.level = b.feeds[feed].level
	}
	if len(in.Tags) > 0 {
		e.tags = b.internTags(in.Tags)
	}
	switch in.Kind {
	case Address, Range:
		b.keys = addrKey(b.keys, in.Prefix.Addr())
		if in.Kind == Range {
			b.keys = append(b.keys, byte(in.Prefix.Bits()))
		}
	case URL:
		// Neither the schemes nor their ports are told apart.
		slash := strings.IndexByte(in.Value, '/')
		host := in.Value[:slash]
		if h, port := splitPort(host); port == "80" || port == "443" {
			host = h
		}
		b.keys = append(append(b.keys, host...), in.Value[slash:]...)
	case Popular:
		e.rank = uint32(in.Rank)
		b.keys = append(b.keys, in.Value...)
	default:
		b.keys = append(b.keys, in.Value...)
	}
	e.size = uint16(len(b.keys) - int(e.key))
	b.entries[in.Kind] = append(b.entries[in.Kind], e)
	b.count++
	return nil
}

// shorten cuts s to so many bytes, at the edge of a character.
func shorten(s string, size int) string {
	if len(s) <= size {
		return s
	}
	for size > 0 && !utf8.RuneStart(s[size]) {
		size--
	}
	return s[:size]
}

// canonicalTags returns tags that are cut, sorted and different. The first maxTags
// stay, which are the same in whatever order the tags of many entries are joined.
func canonicalTags(tags []string) []string {
	out := make([]string, 0, len(tags))
	for _, t := range tags {
		if t = shorten(t, maxTag); t != "" {
			out = append(out, t)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return out[:min(len(out), maxTags)]
}

func (b *Builder) intern(s string) uint32 {
	n, ok := b.numbers[s]
	if !ok {
		s = strings.Clone(s)
		n = uint32(len(b.texts))
		b.texts = append(b.texts, s)
		b.numbers[s] = n
		b.size += len(s)
	}
	return n
}

// internTags makes one text of the tags in canonical form.
func (b *Builder) internTags(tags []string) uint32 {
	b.scratch = appendTags(b.scratch[:0], canonicalTags(tags))
	if n, ok := b.numbers[string(b.scratch)]; ok {
		return n
	}
	return b.intern(string(b.scratch))
}

func (b *Builder) key(e *entry) []byte { return b.keys[e.key : int(e.key)+int(e.size)] }

// fold sorts the entries of a kind by key and feed, and makes one of those that a
// feed has more than once.
func (b *Builder) fold(all []entry, rank []uint16) []entry {
	slices.SortFunc(all, func(x, y entry) int {
		if x.size != y.size {
			return cmp.Compare(x.size, y.size)
		}
		if c := bytes.Compare(b.key(&x), b.key(&y)); c != 0 {
			return c
		}
		return cmp.Compare(rank[x.feed], rank[y.feed])
	})
	out := all[:0]
	for _, e := range all {
		if n := len(out); n > 0 && out[n-1].feed == e.feed && bytes.Equal(b.key(&out[n-1]), b.key(&e)) {
			b.merge(&out[n-1], e)
		} else {
			out = append(out, e)
		}
	}
	return out
}

// merge adds to x what y says of the same indicator. The order does not matter.
func (b *Builder) merge(x *entry, y entry) {
	x.level = max(x.level, y.level)
	x.rank = min(x.rank, y.rank)
	if x.since == 0 || y.since != 0 && y.since < x.since {
		x.since = y.since
	}
	if x.expires != 0 && (y.expires == 0 || y.expires > x.expires) {
		x.expires = y.expires
	}
	if x.description == 0 || y.description != 0 && b.texts[y.description] < b.texts[x.description] {
		x.description = y.description
	}
	if y.tags != 0 && x.tags != y.tags && b.size < maxSize/2 {
		x.tags = b.internTags(splitTags(b.texts[x.tags] + b.texts[y.tags]))
	}
}

func isKnownGood(tag string) bool {
	return len(tag) == len(KnownGood) && strings.EqualFold(strings.NewReplacer("-", "_", " ", "_").Replace(tag), KnownGood)
}

// node is an indicator that at least one feed lists.
type node struct {
	key     uint32 // where it begins in Builder.keys
	size    uint16
	listing uint32
	link    uint32 // the node's parent plus one, or the rank of a Popular name
}

// Compile returns the compiled form, for Open. The same indicators give the same
// bytes, in whatever order they were added; built is the time, unix s. More can be
// added afterwards, and compiled again.
func (b *Builder) Compile(built int64) []byte {
	order := make([]int, len(b.feeds)) // feeds by name
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(x, y int) int { return strings.Compare(b.texts[b.feeds[x].name], b.texts[b.feeds[y].name]) })
	rank := make([]uint16, len(order))
	for i, f := range order {
		rank[f] = uint16(i)
	}
	var h header
	b.count = 0
	for k := range b.entries {
		b.entries[k] = b.fold(b.entries[k], rank)
		b.count += len(b.entries[k])
	}
	texts, numbers := b.usedTexts()
	nodes, listings, counts := b.group(&h, rank, numbers)
	bounds4, bounds6 := b.flatten(nodes, &h)

	h.Feeds, h.Texts, h.Listings = uint32(len(order)), uint32(len(texts)), uint32(len(listings)/listingSize)
	h.Bounds4, h.Bounds6 = uint32(len(bounds4)), uint32(len(bounds6))
	for _, s := range texts {
		h.TextBytes += uint32(len(s))
	}
	v := &View{built: built}
	out := make([]byte, v.size(&h))
	v.cut(out, &h)
	for i, f := range order {
		x, t := b.feeds[f], v.feedTable[i*feedSize:]
		for j, n := range []uint32{numbers[x.name], numbers[x.provider], numbers[x.url], numbers[x.tags], uint32(x.level), counts[i]} {
			le.PutUint32(t[j*4:], n)
		}
		le.PutUint64(t[24:], uint64(x.updated))
	}
	at := 0
	for i, s := range texts {
		le.PutUint32(v.textIndex[i*4:], uint32(at))
		at += copy(v.texts[at:], s)
	}
	le.PutUint32(v.textIndex[len(texts)*4:], uint32(at))
	copy(v.listings, listings)
	at = 0
	for i, n := range nodes {
		t := v.nodes[i*nodeSize:]
		le.PutUint32(t, uint32(at))
		le.PutUint32(t[4:], n.listing)
		le.PutUint32(t[8:], n.link)
		at += copy(v.keys[at:], b.keys[n.key:int(n.key)+int(n.size)])
	}
	le.PutUint32(v.nodes[len(nodes)*nodeSize:], uint32(at))

	content := sha256.New()
	content.Write(le.AppendUint64(nil, uint64(built))) // how fresh a feed is counts from there
	for _, s := range [][]byte{v.feedTable, v.textIndex, v.texts, v.listings, v.nodes, v.keys} {
		content.Write(s)
	}
	v.setID([16]byte(content.Sum(nil)))
	v.v4.fill(bounds4)
	v.v6.fill(bounds6)
	v.link()
	v.putHeader(out, &h)
	return out
}

// usedTexts returns the texts that feeds and entries have, sorted, and for each of
// the Builder's numbers the place of the text among them.
func (b *Builder) usedTexts() (texts []string, numbers []uint32) {
	used := make([]bool, len(b.texts))
	used[0] = true
	for _, f := range b.feeds {
		used[f.name], used[f.provider], used[f.url], used[f.tags] = true, true, true, true
	}
	for _, entries := range b.entries {
		for i := range entries {
			used[entries[i].description], used[entries[i].tags] = true, true
		}
	}
	var kept []uint32
	for n, u := range used {
		if u {
			kept = append(kept, uint32(n))
		}
	}
	slices.SortFunc(kept, func(x, y uint32) int { return strings.Compare(b.texts[x], b.texts[y]) })
	numbers = make([]uint32, len(b.texts))
	for place, n := range kept {
		numbers[n] = uint32(place)
		texts = append(texts, b.texts[n])
	}
	return texts, numbers
}

// group makes a node of the entries with one key, and their listings, which nodes
// share when they are the same. It fills in the counts of the header, and returns
// how many indicators each feed has in use, by its rank.
func (b *Builder) group(h *header, rank []uint16, numbers []uint32) (nodes []node, listings []byte, counts []uint32) {
	nodes = make([]node, 0, b.count)
	counts = make([]uint32, len(rank))
	known := map[string]uint32{}
	good := map[uint32]bool{} // whether KnownGood is among tags, by their text
	tagged := func(tags uint32) bool {
		is, ok := good[tags]
		if !ok {
			is = slices.ContainsFunc(splitTags(b.texts[tags]), isKnownGood)
			good[tags] = is
		}
		return is
	}
	var list []byte
	for k := range b.entries {
		for entries := b.entries[k]; len(entries) > 0; {
			first := &entries[0]
			n := node{key: first.key, size: first.size}
			list = list[:0]
			for len(entries) > 0 && bytes.Equal(b.key(&entries[0]), b.key(first)) {
				e := &entries[0]
				counts[rank[e.feed]]++
				list = le.AppendUint16(list, rank[e.feed])
				flags := byte(0)
				if tagged(e.tags) || tagged(b.feeds[e.feed].tags) {
					flags = harmless
				}
				list = append(list, byte(e.level), flags)
				for _, x := range []uint32{numbers[e.description], numbers[e.tags], e.since, e.expires} {
					list = le.AppendUint32(list, x)
				}
				if Kind(k) == Popular && (n.link == 0 || e.rank < n.link) {
					n.link = e.rank
				}
				entries = entries[1:]
			}
			list[len(list)-listingSize+3] |= lastListing
			at, ok := known[string(list)]
			if !ok {
				at = uint32(len(listings) / listingSize)
				listings = append(listings, list...)
				known[string(list)] = at
			}
			n.listing = at
			nodes = append(nodes, n)
			h.Counts[k]++
			h.KeyBytes += uint32(n.size)
		}
	}
	return nodes, listings, counts
}

// flatten makes the bounds of the ranges of both families, and sets their parents.
func (b *Builder) flatten(nodes []node, h *header) (bounds4, bounds6 []bound) {
	first := h.Counts[NoKind] + h.Counts[Address]
	end := first + h.Counts[Range]
	middle := first
	for middle < end && nodes[middle].size == 4+1 {
		middle++
	}
	key := func(i uint32) []byte { return b.keys[nodes[i].key : int(nodes[i].key)+int(nodes[i].size)] }
	setParent := func(i, parent uint32) { nodes[i].link = parent + 1 }
	return flatten(first, middle, key, setParent), flatten(middle, end, key, setParent)
}

// link fills the tables, and sets the parents that are found through them.
func (v *View) link() {
	for k := range NumKinds {
		if !k.hashed() {
			continue
		}
		t := &v.tables[k]
		for n := v.first[k]; n < v.first[k+1]; n++ {
			t.insert(hashKey(k, t.seed, v.key(n)), n)
		}
	}
	setParent := func(n, parentPlus1 uint32) { le.PutUint32(v.nodes[uint64(n)*nodeSize+8:], parentPlus1) }
	for n := v.first[Address]; n < v.first[Address+1]; n++ {
		a, w, _ := keyAddr(v.key(n))
		setParent(n, v.family(a).find(w))
	}
	for n := v.first[Domain]; n < v.first[Domain+1]; n++ {
		_, parent, _ := strings.Cut(string(v.key(n)), ".")
		if p, _, ok := v.suffix(Domain, parent); ok {
			setParent(n, p+1)
		}
	}
	for n := v.first[URL]; n < v.first[URL+1]; n++ {
		if path, _, query := strings.Cut(string(v.key(n)), "?"); query {
			if p, ok := v.exact(URL, []byte(path)); ok {
				setParent(n, p+1)
			}
		}
	}
}
