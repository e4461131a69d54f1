package intel

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

var le = binary.LittleEndian

// mix adds a word to a hash: a multiplication to 128 bits whose halves are folded,
// as in wyhash. Only places in tables depend on hashes: keys are always compared.
func mix(h, w uint64) uint64 {
	hi, lo := bits.Mul64(h^w, 0x9e3779b97f4a7c15) // 2^64 divided by the golden ratio
	return hi ^ lo
}

// hash is that of text. It is read from the right in words of 8 bytes, so that the
// hash of each suffix of a name comes by on the way: what is left of the last
// word, with the number of its bytes, is mixed in at the end.
func hash(seed uint64, s []byte) uint64 {
	for ; len(s) >= 8; s = s[:len(s)-8] {
		seed = mix(seed, le.Uint64(s[len(s)-8:]))
	}
	return last(seed, short(s), len(s))
}

func last(h, w uint64, n int) uint64 { return mix(h, w|uint64(n)<<56) }

// short returns up to 7 bytes as a word.
func short(s []byte) (w uint64) {
	for i := len(s) - 1; i >= 0; i-- {
		w = w<<8 | uint64(s[i])
	}
	return w
}

// Eight bytes at a time, after "Hacker's Delight": ones has a 1 in each byte, highs
// the upper bit of each.
const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// lower8 is the bytes of w in lower case.
func lower8(w uint64) uint64 {
	low := w &^ highs
	fromA, afterZ := low+(0x80-'A')*ones, low+(0x80-'Z'-1)*ones
	return w | (fromA&^afterZ&^w&highs)>>2
}

// dots8 has the upper bit of each byte of w that is a dot.
func dots8(w uint64) uint64 {
	x := w ^ '.'*ones
	return ^(x&^highs + 0x7f*ones | x) & highs
}

// lower is without a branch: the case of letters in a query may be random.
func lower(c byte) byte {
	return c | byte(((0x40-int32(c))&(int32(c)-0x5b))>>31)&0x20
}

// copyLower copies s, which has room there, in lower case and returns its length.
func copyLower(b []byte, s string) int {
	n := copy(b, s)
	i := 0
	for ; i+8 <= n; i += 8 {
		le.PutUint64(b[i:], lower8(le.Uint64(b[i:])))
	}
	for ; i < n; i++ {
		b[i] = lower(b[i])
	}
	return n
}

// sameLower reports whether key is s in lower case.
func sameLower(key []byte, s string) bool {
	if len(key) != len(s) {
		return false
	}
	for i, c := range key {
		if lower(s[i]) != c {
			return false
		}
	}
	return true
}

func hash4(seed uint64, a uint32) uint64 { return mix(seed, uint64(a)) }

func hash16(seed, hi, lo uint64) uint64 { return mix(mix(seed, hi), lo) }

// hashURL is of its parts: the host in lower case with its port, the path and the
// query.
func hashURL(seed uint64, host, path []byte) uint64 { return hash(hash(seed, host), path) }

func hashQuery(h uint64, query []byte) uint64 { return hash(h, query) }

// hashKey is the hash of a stored key of the kind.
func hashKey(k Kind, seed uint64, key []byte) uint64 {
	switch {
	case k == Address && len(key) == 4:
		return hash4(seed, binary.BigEndian.Uint32(key))
	case k == Address && len(key) == 16:
		return hash16(seed, binary.BigEndian.Uint64(key), binary.BigEndian.Uint64(key[8:]))
	case k == URL:
		slash := max(bytes.IndexByte(key, '/'), 0)
		path, _, query := bytes.Cut(key[slash:], []byte("?"))
		h := hashURL(seed, key[:slash], path)
		if query {
			h = hashQuery(h, key[slash+len(path):])
		}
		return h
	default:
		return hash(seed, key)
	}
}

// table finds the nodes of one kind by the hash of their key. A filter stands in
// front, since nearly all that is looked up is not there: 16 bits a key, in
// words of 64 of which a key sets four bits, say no to all but some 0.5 % of the
// unknown with one access to memory. Behind it are slots with linear probing,
// three in four of them taken: half of the hash, and the number of the node plus
// one, 0 in an empty slot. At least one is empty.
type table struct {
	filter, slots []byte
	words, size   uint64 // words of filter, slots
	seed          uint64
}

// filterWords and slotCount are the sizes for n keys.

func filterWords(n uint32) uint64 {
	if n == 0 {
		return 0
	}
	return uint64(n)/4 + 1
}

func slotCount(n uint32) uint64 {
	if n == 0 {
		return 0
	}
	return uint64(n) + uint64(n)/3 + 1
}

// pattern is the bits that a hash sets in a word of the filter. They come from
// its lower half, and the places of word and slot from its upper half.
func pattern(h uint64) uint64 {
	return 1<<(h&63) | 1<<(h>>6&63) | 1<<(h>>12&63) | 1<<(h>>18&63)
}

func (t *table) word(h uint64) uint64 { return (h >> 32) * t.words >> 32 * 8 }

// maybe reports false when no key has the hash. The table has keys.
func (t *table) maybe(h uint64) bool {
	p := pattern(h)
	return le.Uint64(t.filter[t.word(h):])&p == p
}

// insert adds a node to a table that has room for it.
func (t *table) insert(h uint64, node uint32) {
	w := t.filter[t.word(h):]
	le.PutUint64(w, le.Uint64(w)|pattern(h))
	i := (h >> 32) * t.size >> 32
	for le.Uint64(t.slots[i*8:]) != 0 {
		if i++; i == t.size {
			i = 0
		}
	}
	le.PutUint64(t.slots[i*8:], h<<32|uint64(node+1))
}

// find returns the node with the hash whose key is the same; false if there is none.
func (t *table) find(h uint64, same func(node uint32) bool) (uint32, bool) {
	for i := (h >> 32) * t.size >> 32; ; {
		s := le.Uint64(t.slots[i*8:])
		if s == 0 {
			return 0, false
		}
		if uint32(s>>32) == uint32(h) && same(uint32(s)-1) {
			return uint32(s) - 1, true
		}
		if i++; i == t.size {
			i = 0
		}
	}
}
