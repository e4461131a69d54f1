package modules

import (
	"bytes"
	"encoding/gob"
	"math/rand/v2"
	"testing"
)

// A Table does what a map does, whatever is put, deleted and saved, also when
// many keys want the same place.
func TestTableIsAMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, space := range []uint32{10, 300, 1 << 31} {
		var tab Table[int]
		want := map[uint32]int{}
		for i := range 20_000 {
			k := r.Uint32N(space)
			if r.IntN(2) == 0 {
				k = k<<16 | 5 // all in one place of a small table
			}
			if k == 0 {
				k = 1
			}
			switch r.IntN(4) {
			case 0:
				tab.Delete(k)
				delete(want, k)
			case 1:
				*tab.Put(k) += i
				want[k] += i
			default:
				v, ok := want[k]
				if p := tab.Get(k); (p != nil) != ok || (ok && *p != v) {
					t.Fatalf("key %d: got %v, want %d %v", k, p, v, ok)
				}
			}
			if i%5000 == 4999 {
				var b bytes.Buffer
				if err := gob.NewEncoder(&b).Encode(tab); err != nil {
					t.Fatal(err)
				}
				tab = Table[int]{}
				if err := gob.NewDecoder(&b).Decode(&tab); err != nil {
					t.Fatal(err)
				}
				odd := func(k uint32, _ *int) bool { return k%3 != 0 }
				tab.Keep(odd)
				for k := range want {
					if !odd(k, nil) {
						delete(want, k)
					}
				}
			}
			if tab.Len() != len(want) {
				t.Fatalf("%d keys, want %d", tab.Len(), len(want))
			}
		}
		for k, v := range want {
			if p := tab.Get(k); p == nil || *p != v {
				t.Fatalf("key %d was lost", k)
			}
		}
	}
}

func TestTableZeroKey(t *testing.T) {
	var tab Table[int]
	if tab.Get(0) != nil {
		t.Error("an empty table has a value")
	}
	*tab.Put(0) = 7
	if p := tab.Get(1); p == nil || *p != 7 || tab.Len() != 1 {
		t.Error("0 is not taken for 1")
	}
	tab.Delete(0)
	if tab.Get(0) != nil || tab.Len() != 0 {
		t.Error("0 was not deleted")
	}
}

func TestRecentTableForgetsTheOldest(t *testing.T) {
	var r RecentTable[int]
	for i := range 1000 {
		*r.Put(uint32(i%137+1), 10) = i
		if r.Len() > 10 {
			t.Fatalf("%d entries, limit 10", r.Len())
		}
		if v := r.Get(uint32(i%137 + 1)); v == nil || *v != i {
			t.Fatalf("%d was just put", i)
		}
	}
	if r.Get(900%137+1) != nil {
		t.Error("one that was used long ago is still there")
	}
	old := *r.Get(uint32(998%137 + 1))
	if *r.Put(uint32(998%137+1), 10) != old {
		t.Error("the value was lost when it became young again")
	}
}

func TestTablePutLargestKeepsTheLarge(t *testing.T) {
	var tab Table[int64]
	for i := range int64(1000) {
		*tab.PutLargest(uint32(i+1), 100, func(v *int64) int64 { return *v }) = (i * 7919) % 1000
		if tab.Len() > 100 {
			t.Fatalf("%d entries, limit 100", tab.Len())
		}
	}
	if v := tab.Get(321 + 1); v == nil || *v != 999 {
		t.Error("the largest of all was forgotten")
	}
}
