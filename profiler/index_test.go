package profiler

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// An addrIndex does what a map does.
func TestAddrIndexIsAMap(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var x addrIndex
	want := map[netip.Addr]int32{}
	addr := func() netip.Addr {
		if r.IntN(3) == 0 {
			var b [16]byte
			b[0], b[15], b[7] = 0xfd, byte(r.IntN(40)), byte(r.IntN(10))
			return netip.AddrFrom16(b)
		}
		return netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(4)), byte(r.IntN(256))})
	}
	for i := range int32(50_000) {
		a := addr()
		switch r.IntN(3) {
		case 0:
			x.put(a, i+1)
			want[a] = i + 1
		case 1:
			x.del(a)
			delete(want, a)
		default:
			if got := x.get(a); got != want[a] {
				t.Fatalf("step %d: %v is %d, want %d", i, a, got, want[a])
			}
		}
		if x.n != len(want) {
			t.Fatalf("step %d: %d entries, want %d", i, x.n, len(want))
		}
	}
	for a, v := range want {
		if x.get(a) != v {
			t.Errorf("%v was lost", a)
		}
	}
}
