package modules

import "strings"

// Names is a set of domain names with a value each. It finds the one that a
// host is, or lies below, and says no to the others at the cost of a few
// bytes, because that is what Wants is asked for millions of times. Make it
// with NewNames in New; it does not change afterwards.
type Names[V any] struct {
	values map[string]V
	tails  [tailBits / 64]uint64 // of the hash of the last tailLen bytes of each name
}

const (
	// tailLen is how much of a name is looked at first. No name is shorter.
	tailLen  = 5
	tailBits = 4096
	// maxName is the longest name of DNS in text, and maxDepth the most labels
	// that a name in the set has.
	maxName  = 253
	maxDepth = 6
)

// NewNames returns the set of the names in values, which are in lower case,
// without a dot at the end, and of two to six labels.
func NewNames[V any](values map[string]V) *Names[V] {
	n := &Names[V]{values: values}
	for name := range values {
		if len(name) < tailLen || strings.ToLower(name) != name || strings.Count(name, ".") >= maxDepth || !strings.Contains(name, ".") {
			panic("BUG: modules.NewNames: " + name)
		}
		h := tail(name)
		n.tails[h/64] |= 1 << (h % 64)
	}
	return n
}

// tail hashes the last tailLen bytes of a name, in either case, by FNV-1a
// (draft-eastlake-fnv).
func tail(name string) uint32 {
	h := uint32(2166136261)
	for _, c := range []byte(name[len(name)-tailLen:]) {
		h = (h ^ uint32(c|0x20)) * 16777619
	}
	return (h ^ h>>16) % tailBits
}

// Find returns the name that host is or lies below, the longest if there are
// several, and its value; "" when there is none. Case does not matter, nor does
// a dot at the end or a port behind a colon. It does not allocate.
func (n *Names[V]) Find(host string) (name string, v V) {
	if i := strings.LastIndexByte(host, ':'); i > 0 && len(host)-i <= 6 {
		host = host[:i]
	}
	if l := len(host); l > 0 && host[l-1] == '.' {
		host = host[:l-1]
	}
	if len(host) < tailLen || len(host) > maxName {
		return "", v
	}
	if h := tail(host); n.tails[h/64]&(1<<(h%64)) == 0 {
		return "", v
	}
	var b [maxName]byte
	for i := range len(host) {
		c := host[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b[i] = c
	}
	from := len(host)
	for range maxDepth {
		from = strings.LastIndexByte(host[:from], '.')
		if x, ok := n.values[string(b[from+1:len(host)])]; ok {
			name, v = host[from+1:], x
		}
		if from < 0 {
			break
		}
	}
	return name, v
}
