package intel

import (
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math"
)

// The compiled form, all numbers little-endian:
//
//	0    8 bytes  magic; the last is the version of the form
//	8    uint32   CRC-32C of all that follows
//	12   uint32   NumKinds
//	16   int64    when it was built, unix s
//	24   16 bytes the first of a SHA-256 over the sections feeds to keys: the
//	              snapshot's id; its first 8 bytes are the seed of the tables
//	40   uint32…  sizes of sections, see header
//
// Then come the sections, in the order of View.sections, each at a multiple of
// 8 bytes. A node is an indicator: where its key begins in the section of keys,
// its first listing, and the number plus one of its parent (0: none), which is
// the nearest indicator that covers it too: the range around an address or a
// range, the listed parent of a domain, the URL without its query. So one node
// stands for all that matches. A Popular name has its rank in place of a parent.
// Nodes are in the order of their kinds, and within one of the lengths and bytes
// of their keys. A node that follows the last ends the last key.
//
// The listings of a node follow each other, by the name of the feed; the last has
// a flag. Nodes whose listings are equal share them.
//
// Keys: Address has the 4 or 16 bytes of the address, Range the same and a byte
// with the length of the prefix, all others their text.
const (
	magic   = "slipsti"
	version = 2

	headerSize  = 40 + 4*(7+int(NumKinds)) + 4 // and 4 bytes to a multiple of 8
	feedSize    = 32                           // name, provider, URL, tags, level, count: uint32; updated: int64
	listingSize = 20                           // feed uint16, level, flags: byte; description, tags, since, expires: uint32
	nodeSize    = 12                           // key, listing, parent: uint32

	lastListing = 1             // flag: the last of a node
	harmless    = 2             // flag: says that the indicator is no bad one
	maxFeeds    = 1 << 16       // the number of a feed has 16 bits
	maxSize     = math.MaxInt32 // of what is counted or addressed with uint32; so it fits an int everywhere
	maxTime     = math.MaxUint32
	// maxDepth bounds a chain of parents: the labels of a name, or the prefixes
	// from 1 to 127 bits around an IPv6 address.
	maxDepth = 128
)

// FormatError says why bytes are not a usable compiled form.
type FormatError struct{ Reason string }

func (e *FormatError) Error() string { return "compiled indicators: " + e.Reason }

func damaged(format string, args ...any) error {
	return &FormatError{fmt.Sprintf(format, args...)}
}

// header has the sizes of sections: texts, feeds, listings and bounds as counts,
// the others in bytes.
type header struct {
	Feeds, Texts, TextBytes, Listings, KeyBytes, Bounds4, Bounds6 uint32
	Counts                                                        [NumKinds]uint32 // nodes
}

func (h *header) nodes() (n uint64) {
	for _, c := range h.Counts {
		n += uint64(c)
	}
	return n
}

// hashed reports whether there is a table for the kind.
func (k Kind) hashed() bool { return k != NoKind && k != Range }

type section struct {
	at   *[]byte
	size uint64
}

// sections lists them in their order, with their sizes.
func (v *View) sections(h *header) []section {
	s := []section{
		{&v.feedTable, uint64(h.Feeds) * feedSize},
		{&v.textIndex, (uint64(h.Texts) + 1) * 4}, // where each begins, and the end of the last
		{&v.texts, uint64(h.TextBytes)},
		{&v.listings, uint64(h.Listings) * listingSize},
		{&v.nodes, (h.nodes() + 1) * nodeSize},
		{&v.keys, uint64(h.KeyBytes)},
	}
	for k := range NumKinds {
		if n := h.Counts[k]; k.hashed() && n > 0 {
			t := &v.tables[k]
			t.words, t.size = filterWords(n), slotCount(n)
			s = append(s, section{&t.filter, t.words * 8}, section{&t.slots, t.size * 8})
		}
	}
	v.v4.width, v.v6.width = 4, 16
	for _, f := range []struct {
		r *intervals
		n uint64
	}{{&v.v4, uint64(h.Bounds4)}, {&v.v6, uint64(h.Bounds6)}} {
		if f.n > 0 {
			s = append(s, section{&f.r.index, (buckets + 1) * 8}, section{&f.r.starts, f.n * uint64(f.r.width)}, section{&f.r.nodes, f.n * 4})
		}
	}
	return s
}

func pad(n uint64) uint64 { return (n + 7) &^ 7 }

// size returns the bytes of the whole form. No sum of sizes overflows: there are
// some 40, each below 2^32 times 20.
func (v *View) size(h *header) uint64 {
	n := uint64(headerSize)
	for _, s := range v.sections(h) {
		n += pad(s.size)
	}
	return n
}

// cut points the View's sections into b, which has the right size.
func (v *View) cut(b []byte, h *header) {
	at := uint64(headerSize)
	for _, s := range v.sections(h) {
		*s.at = b[at : at+s.size : at+s.size]
		at += pad(s.size)
	}
	n := uint32(0)
	for k := range NumKinds {
		v.first[k] = n
		n += h.Counts[k]
	}
	v.first[NumKinds] = n
}

// fields are the uint32 of the header from byte 40 on.
func (h *header) fields() []*uint32 {
	f := []*uint32{&h.Feeds, &h.Texts, &h.TextBytes, &h.Listings, &h.KeyBytes, &h.Bounds4, &h.Bounds6}
	for k := range h.Counts {
		f = append(f, &h.Counts[k])
	}
	return f
}

func (v *View) putHeader(b []byte, h *header) {
	copy(b, magic)
	b[len(magic)] = version
	le.PutUint32(b[12:], uint32(NumKinds))
	le.PutUint64(b[16:], uint64(v.built))
	copy(b[24:], v.id[:])
	for i, f := range h.fields() {
		le.PutUint32(b[40+4*i:], *f)
	}
	le.PutUint32(b[8:], checksum(b))
}

func checksum(b []byte) uint32 {
	return crc32.Checksum(b[12:], crc32.MakeTable(crc32.Castagnoli))
}

func (v *View) setID(id [16]byte) {
	v.id = id
	seed := le.Uint64(id[:])
	for k := range v.tables {
		v.tables[k].seed = seed
	}
}

// Open makes a View over compiled bytes without copying them: they must stay as
// they are for as long as the View or a Match of it is in use, and may be a file
// mapped read only. All of them are read once, for the checksum and so that every
// number in them that points somewhere points into them. Bytes that are not the
// compiled form, or are no more, are refused with a *FormatError.
func Open(compiled []byte) (*View, error) {
	b := compiled
	switch {
	case len(b) < headerSize || string(b[:len(magic)]) != magic:
		return nil, damaged("not the compiled form")
	case b[len(magic)] != version || le.Uint32(b[12:]) != uint32(NumKinds):
		return nil, damaged("version %d with %d kinds, this program reads version %d with %d: compile them anew",
			b[len(magic)], le.Uint32(b[12:]), version, NumKinds)
	}
	var h header
	for i, f := range h.fields() {
		if *f = le.Uint32(b[40+4*i:]); *f > maxSize {
			return nil, damaged("damaged: field %d of the header is %d", i, *f)
		}
	}
	v := &View{}
	if n := v.size(&h); n != uint64(len(b)) {
		return nil, damaged("damaged: %d bytes, the header says %d", len(b), n)
	}
	if sum := checksum(b); sum != le.Uint32(b[8:]) {
		return nil, damaged("damaged: checksum %08x, the header says %08x", sum, le.Uint32(b[8:]))
	}
	v.built = int64(le.Uint64(b[16:]))
	v.setID([16]byte(b[24:]))
	if h.nodes() > maxSize {
		return nil, damaged("damaged: %d indicators", h.nodes())
	}
	v.cut(b, &h)
	if err := v.verify(&h); err != nil {
		return nil, err
	}
	v.readFeeds(int(h.Feeds))
	v.private = v.hasPrivate()
	return v, nil
}

// verify checks that whatever points, points to something.
func (v *View) verify(h *header) error {
	if h.Feeds > maxFeeds || h.Counts[NoKind] != 0 {
		return damaged("damaged: %d feeds, %d indicators of no kind", h.Feeds, h.Counts[NoKind])
	}
	if !ascending(v.textIndex, 4, h.TextBytes) {
		return damaged("damaged: a text is not in its section")
	}
	for b := v.feedTable; len(b) > 0; b = b[feedSize:] {
		if max(le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[8:]), le.Uint32(b[12:])) >= h.Texts {
			return damaged("damaged: a feed without its name")
		}
	}
	for b := v.listings; len(b) > 0; b = b[listingSize:] {
		if uint32(le.Uint16(b)) >= h.Feeds || b[2] > 4 || max(le.Uint32(b[4:]), le.Uint32(b[8:])) >= h.Texts {
			return damaged("damaged: a listing without its feed, level or text")
		}
	}
	if n := len(v.listings); n > 0 && v.listings[n-listingSize+3]&lastListing == 0 {
		return damaged("damaged: the last listing has no end")
	}
	if err := v.verifyNodes(h); err != nil {
		return err
	}
	for k := range NumKinds {
		t := &v.tables[k]
		first, n, free := v.first[k], h.Counts[k], false
		for b := t.slots; len(b) > 0; b = b[8:] {
			s := le.Uint64(b)
			free = free || s == 0
			if s != 0 && uint32(s)-1-first >= n {
				return damaged("damaged: the table of kind %s leads out of it", k)
			}
		}
		if n > 0 && t.size > 0 && !free {
			return damaged("damaged: the table of kind %s is full", k)
		}
	}
	return v.verifyRanges()
}

func (v *View) verifyNodes(h *header) error {
	if !ascending(v.nodes, nodeSize, h.KeyBytes) {
		return damaged("damaged: a key is not in its section")
	}
	total := v.first[NumKinds]
	for n := range total {
		b := v.nodes[uint64(n)*nodeSize:]
		if le.Uint32(b[4:]) >= h.Listings || n < v.first[Popular] && le.Uint32(b[8:]) > total {
			return damaged("damaged: indicator %d has no listing or no parent", n)
		}
		if n >= v.first[Address] && n < v.first[Domain] {
			key := v.key(n)
			if n >= v.first[Range] && len(key) > 0 {
				key = key[:len(key)-1]
			}
			if len(key) != 4 && len(key) != 16 {
				return damaged("damaged: indicator %d is no address", n)
			}
		}
	}
	return nil
}

func (v *View) verifyRanges() error {
	total := v.first[NumKinds]
	for _, r := range []*intervals{&v.v4, &v.v6} {
		n := uint32(len(r.nodes) / 4)
		if len(r.index) > 0 && !ascending(r.index, 8, n) {
			return damaged("damaged: the index of ranges")
		}
		for b := r.index; len(b) > 0; b = b[8:] {
			if le.Uint32(b[4:]) > total {
				return damaged("damaged: an interval is of no range")
			}
		}
		for b := r.nodes; len(b) > 0; b = b[4:] {
			if le.Uint32(b) > total {
				return damaged("damaged: an interval is of no range")
			}
		}
	}
	return nil
}

// ascending reports whether the numbers at the start of each record do not fall
// and end at most at the limit.
func ascending(b []byte, size int, limit uint32) bool {
	last := uint32(0)
	for ; len(b) > 0; b = b[size:] {
		n := le.Uint32(b)
		if n < last || n > limit {
			return false
		}
		last = n
	}
	return true
}

// text returns a copy of a text.
func (v *View) text(i uint32) string {
	b := v.textIndex[uint64(i)*4:]
	return string(v.texts[le.Uint32(b):le.Uint32(b[4:])])
}

// splitTags takes apart what appendTags made.
func splitTags(s string) []string {
	var tags []string
	for s != "" {
		n := int(s[0])
		if n >= len(s) {
			break
		}
		tags = append(tags, s[1:1+n])
		s = s[1+n:]
	}
	return tags
}

// appendTags makes one text of tags, each with its length in a byte before it.
func appendTags(b []byte, tags []string) []byte {
	for _, t := range tags {
		b = append(append(b, byte(len(t))), t...) // at most maxTag
	}
	return b
}

func (v *View) readFeeds(n int) {
	v.feeds = make([]Feed, n)
	for i := range v.feeds {
		b := v.feedTable[i*feedSize:]
		v.feeds[i] = Feed{
			Name: v.text(le.Uint32(b)), Provider: v.text(le.Uint32(b[4:])), URL: v.text(le.Uint32(b[8:])),
			Tags: splitTags(v.text(le.Uint32(b[12:]))), Level: Level(le.Uint32(b[16:])), Count: int(le.Uint32(b[20:])),
			Updated: int64(le.Uint64(b[24:])),
		}
	}
}

// Snapshot says what a View was made of.
type Snapshot struct {
	// ID is 32 hexadecimal digits of a hash over feeds, indicators and the time:
	// with the same ID all look-ups give the same. Empty for an empty View.
	ID     string
	Built  int64  // unix s
	Feeds  []Feed // by name; the tags are shared, read only
	Counts [NumKinds]int
}

// Snapshot describes the content.
func (v *View) Snapshot() Snapshot {
	if v == nil || len(v.nodes) == 0 {
		return Snapshot{}
	}
	s := Snapshot{ID: hex.EncodeToString(v.id[:]), Built: v.built, Feeds: append([]Feed(nil), v.feeds...)}
	for k := range NumKinds {
		s.Counts[k] = int(v.first[k+1] - v.first[k])
	}
	return s
}
