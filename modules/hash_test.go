package modules

import (
	"fmt"
	"net/netip"
	"testing"
)

// Neighbours, and neighbours in the salt, do not share keys more often than
// chance has it.
func TestHash(t *testing.T) {
	seen := make(map[uint32]bool)
	n := 0
	for i := range 1 << 15 {
		v4 := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		v6 := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(i >> 8), 15: byte(i)})
		for _, h := range []uint32{Hash(v4, 0), Hash(v4, 443), Hash(v6, 0), Hash(v6, 443)} {
			if seen[h] {
				n++
			}
			seen[h] = true
		}
	}
	if n > 10 { // of 2^17 keys 2 are expected to meet
		t.Errorf("%d of %d keys are shared", n, 4<<15)
	}
	a := netip.MustParseAddr("192.0.2.1")
	if Hash(a, 0) != Hash(netip.MustParseAddr("::ffff:192.0.2.1"), 0) {
		t.Error("an IPv4 address and its IPv6 form differ")
	}
}

// Keys of texts that differ in little are as different as those of addresses,
// and upper case counts where it is wanted.
func TestHashText(t *testing.T) {
	seen := make(map[uint32]bool)
	n := 0
	for i := range 1 << 16 {
		for _, h := range []uint32{HashText(fmt.Sprintf("h%d.example.com", i)), HashText(fmt.Sprintf("%04x", i))} {
			if seen[h] {
				n++
			}
			seen[h] = true
		}
	}
	if n > 10 {
		t.Errorf("%d of %d keys are shared", n, 2<<16)
	}
	if HashText("Bob") == HashText("bob") || HashLower("Bob-É[Z") != HashText("bob-É[z") {
		t.Error("case is not what it should be")
	}
	if HashText("") == 0 || HashLower("") != HashText("") {
		t.Error("the empty text has no key")
	}
}
