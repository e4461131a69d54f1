package profiler

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
)

// States are kept like those in a list with room for all.
func TestStates(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var s states
	var want [maxPlaces]any
	for n := range 100_000 {
		i := r.IntN(maxPlaces)
		switch {
		case want[i] == nil && n%4 != 3:
			want[i] = n
			s.put(i, n)
		case n%2 == 0:
			want[i] = nil
			s.drop(i)
		}
		j := r.IntN(maxPlaces)
		if got := s.get(j); got != want[j] {
			t.Fatalf("after %d steps there is %v at place %d, want %v", n, got, j, want[j])
		}
	}
	var places []int
	for i, st := range want {
		if st != nil {
			places = append(places, i)
		}
	}
	if got := s.places(); !slices.Equal(got, places) {
		t.Errorf("places %v, want %v", got, places)
	}
	for i := range want {
		s.drop(i)
	}
	if s.has != 0 || s.list != nil {
		t.Errorf("%d states are left of none", len(s.list))
	}
	if none := (*states)(nil); none.get(3) != nil {
		t.Error("a window that is not open has a state")
	}
}

// What is due comes in the order of its keys, however it was put in.
func TestDuesComeInOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var owners []*owner
	for range 3 {
		owners = append(owners, &owner{id: netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(4))})})
	}
	key := func() (evidence.Key, *owner) {
		k := evidence.Key{
			At: r.Int64N(3), Class: uint8(r.IntN(2)), Seq: r.Uint64N(3), Role: uint8(r.IntN(2)), Module: r.IntN(3), Ord: r.IntN(1000) << r.IntN(40),
		}
		if n := r.IntN(4); n < 3 {
			k.Owner = owners[n].id
			return k, owners[n]
		}
		if r.IntN(2) == 0 {
			k.Owner = netip.MustParseAddr("fe80::1")
		}
		return k, nil
	}
	var d dues
	var want []evidence.Key
	for range 500 {
		k, o := key()
		x := newDue(k, o)
		if x.place() != k {
			t.Fatalf("%+v became %+v", k, x.place())
		}
		if d.put(x); len(d)%100 == 0 {
			r.Shuffle(len(d), func(i, j int) { d[i], d[j] = d[j], d[i] })
			d.order()
		}
		want = append(want, k)
	}
	slices.SortFunc(want, evidence.Key.Compare)
	for i := range want {
		x := d.take()
		if x.place().Compare(want[i]) != 0 {
			t.Fatalf("%d: %+v, want %+v", i, x.place(), want[i])
		}
	}
	if len(d) != 0 {
		t.Errorf("%d are left", len(d))
	}
}
