package profiler

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"github.com/slips-go/slips/parsers/flow"
)

// addrIndex maps addresses to small numbers, with open addressing. The
// sequencer asks it for each record, and a look-up in Go's map, which keeps
// its keys apart from what it searches, waits for memory twice. Zones of
// addresses are disregarded, and an IPv4 address is the same as the IPv6
// address it is mapped to; decoders give neither.
type addrIndex struct {
	slots []addrSlot // a power of two of them, at most half in use
	n     int
}

type addrSlot struct {
	hi, lo uint64
	v      int32 // 0: free
}

func halves(a netip.Addr) (hi, lo uint64) {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

// home returns the place that a key wants. The constants are the 64-bit golden
// ratio and the second multiplier of splitmix64.
func (x *addrIndex) home(hi, lo uint64) int {
	h := (hi*0x94d049bb133111eb ^ lo) * 0x9e3779b97f4a7c15
	return int(h >> (64 - bits.Len64(uint64(len(x.slots)-1))))
}

func (x *addrIndex) find(hi, lo uint64) *addrSlot {
	mask := len(x.slots) - 1
	for i := x.home(hi, lo); ; i = (i + 1) & mask {
		if s := &x.slots[i]; s.v == 0 || (s.lo == lo && s.hi == hi) {
			return s
		}
	}
}

// get returns the number of a, 0 when it has none.
func (x *addrIndex) get(a netip.Addr) int32 {
	if x.n == 0 {
		return 0
	}
	return x.find(halves(a)).v
}

// put gives a the number v, which is not 0.
func (x *addrIndex) put(a netip.Addr, v int32) {
	if 2*x.n >= len(x.slots) {
		old := x.slots
		x.slots = make([]addrSlot, max(64, 2*len(old)))
		for _, s := range old {
			if s.v != 0 {
				*x.find(s.hi, s.lo) = s
			}
		}
	}
	hi, lo := halves(a)
	s := x.find(hi, lo)
	if s.v == 0 {
		x.n++
	}
	*s = addrSlot{hi, lo, v}
}

// del takes a's number away.
func (x *addrIndex) del(a netip.Addr) {
	if x.n == 0 {
		return
	}
	hi, lo := halves(a)
	mask := len(x.slots) - 1
	i := x.home(hi, lo)
	for ; x.slots[i].v != 0 && (x.slots[i].lo != lo || x.slots[i].hi != hi); i = (i + 1) & mask {
	}
	if x.slots[i].v == 0 {
		return
	}
	x.n--
	// Those behind it that it kept from their place move up.
	for j := (i + 1) & mask; x.slots[j].v != 0; j = (j + 1) & mask {
		if s := &x.slots[j]; (j-x.home(s.hi, s.lo))&mask >= (j-i)&mask {
			x.slots[i] = *s
			i = j
		}
	}
	x.slots[i] = addrSlot{}
}

// touch reads the places of the sources of the next records, for the reason
// given at lane.touch.
func (x *addrIndex) touch(flows []flow.Flow) (sum int32) {
	if x.n == 0 {
		return 0
	}
	for i := range flows {
		sum += x.slots[x.home(halves(flows[i].Src))].v
	}
	return sum
}
