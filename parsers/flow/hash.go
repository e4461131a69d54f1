package flow

import (
	"encoding/binary"
	"math"
	"net/netip"
)

// HashSeed is where Hash begins: the offset basis of FNV-1a.
const HashSeed = uint64(14695981039346656037)

// Hash continues the FNV-1a hash h over the text. Hashes are saved with the
// state of modules, so this one and those below are the same in every run.
func Hash(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// HashLower is Hash over the text in lower case: names of hosts and accounts are
// written in either.
func HashLower(h uint64, s string) uint64 {
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// HashAddr returns a hash of an address. IPv4 addresses have that of their
// mapped form.
func HashAddr(a netip.Addr) uint64 {
	b := a.As16()
	return HashMix(HashMix(binary.BigEndian.Uint64(b[:8]), math.MaxUint32), binary.BigEndian.Uint64(b[8:]))
}

// HashMix joins two hashes; their order matters.
func HashMix(a, b uint64) uint64 {
	h := (a ^ b*0x9e3779b97f4a7c15) * 0xff51afd7ed558ccd
	return h ^ h>>32
}
