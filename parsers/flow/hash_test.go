package flow

import (
	"hash/fnv"
	"net/netip"
	"testing"
)

func TestHash(t *testing.T) {
	for _, s := range []string{"", "a", "certificate"} {
		f := fnv.New64a()
		_, _ = f.Write([]byte(s))
		if got := Hash(HashSeed, s); got != f.Sum64() {
			t.Errorf("Hash(%q) = %x, want %x", s, got, f.Sum64())
		}
	}
	if Hash(Hash(HashSeed, "ab"), "c") != Hash(HashSeed, "abc") {
		t.Error("Hash does not continue")
	}
	if HashLower(HashLower(HashSeed, "A@"), "[zÉ") != Hash(HashSeed, "a@[zÉ") {
		t.Error("HashLower is not Hash of the text in lower case")
	}
}

// Neighbours must not collide, nor must a connection and its reverse.
func TestHashAddr(t *testing.T) {
	seen := make(map[uint64]netip.Addr)
	for _, first := range []string{"10.0.0.0", "2001:db8::"} {
		a := netip.MustParseAddr(first)
		for range 100_000 {
			h := HashAddr(a)
			if b, ok := seen[h]; ok {
				t.Fatalf("%v and %v have the same hash", a, b)
			}
			seen[h] = a
			a = a.Next()
		}
	}
	a, b := HashAddr(netip.MustParseAddr("10.0.0.1")), HashAddr(netip.MustParseAddr("10.0.0.2"))
	if HashMix(a, b) == HashMix(b, a) {
		t.Error("HashMix does not tell the order")
	}
	if HashAddr(netip.MustParseAddr("::ffff:10.0.0.1")) != a {
		t.Error("a mapped address has a hash of its own")
	}
}
