package modules

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"github.com/slips-go/slips/parsers/flow"
)

// Hash returns a key for a Table, of an address and of whatever number tells
// two things about it apart: a port, a protocol, 0. It is never 0, which a
// state may hold for none, and the same in every run, unlike hash/maphash, so
// what a state holds can be saved; whoever knows it can make two addresses
// share a key, so nothing may rest on keys being different. It is a 128-bit
// multiplication folded, as in wyhash (github.com/wangyi-fudan/wyhash, public
// domain).
func Hash(a netip.Addr, salt uint64) uint32 {
	b := a.As16()
	hi, lo := bits.Mul64(binary.BigEndian.Uint64(b[:8])^0xa0761d6478bd642f^salt, binary.BigEndian.Uint64(b[8:])^0xe7037ed1a0b428db)
	hi, lo = bits.Mul64(hi^lo^0x8ebc6af09c88c6e3, binary.BigEndian.Uint64(b[8:])^0x589965cc75374cc3+salt<<32)
	return max(uint32(hi^lo), 1)
}

// HashText returns a key of a text, as Hash does of an address.
func HashText(s string) uint32 { return short(flow.Hash(flow.HashSeed, s)) }

// HashLower returns a key of a text in which upper and lower case are the same.
func HashLower(s string) uint32 { return short(flow.HashLower(flow.HashSeed, s)) }

// short folds an FNV-1a hash, whose low bits alone know little of the text.
func short(h uint64) uint32 {
	h ^= h >> 29
	return max(uint32(h^h>>32), 1)
}
