package modules

import (
	"math/bits"
	"slices"
)

// Table is a map from numbers to small values for use in a module's state: it is
// faster than Go's map and smaller, which counts where every host has one and
// every record looks into it. The key 0 is taken for 1, so it is for hashes and
// for numbers that are never 0. The zero value is ready; gob saves it.
type Table[V any] struct {
	Slots []Slot[V] // a power of two of them, at most three quarters in use
	N     int
}

// Slot is a place in a Table. Key and value lie side by side, so that a look-up
// waits for memory once.
type Slot[V any] struct {
	K uint32 // 0: free
	V V
}

const minTable = 2

// home returns the place that k wants, by Fibonacci hashing (Knuth, The Art of
// Computer Programming, volume 3, section 6.4).
func (t *Table[V]) home(k uint32) int {
	return int((k * 2654435769) >> (32 - bits.Len32(uint32(len(t.Slots)-1))))
}

// find returns the place of k, or the free place where it belongs.
func (t *Table[V]) find(k uint32) int {
	mask := len(t.Slots) - 1
	for i := t.home(k); ; i = (i + 1) & mask {
		if x := t.Slots[i].K; x == k || x == 0 {
			return i
		}
	}
}

// Len returns the number of keys.
func (t *Table[V]) Len() int { return t.N }

// Get returns a pointer to the value of k, nil when there is none. It is valid
// until the next Put or Delete.
func (t *Table[V]) Get(k uint32) *V {
	if t.N == 0 {
		return nil
	}
	if k == 0 {
		k = 1
	}
	if i := t.find(k); t.Slots[i].K != 0 {
		return &t.Slots[i].V
	}
	return nil
}

// Put returns a pointer to the value of k, which is zero when k is new. It is
// valid until the next Put or Delete.
func (t *Table[V]) Put(k uint32) *V {
	if k == 0 {
		k = 1
	}
	if t.N >= len(t.Slots)*3/4 {
		t.resize(max(minTable, 2*len(t.Slots)))
	}
	i := t.find(k)
	if t.Slots[i].K == 0 {
		t.Slots[i].K = k
		t.N++
	}
	return &t.Slots[i].V
}

// Touch reads the place that k wants, so that it is in the cache when k is
// looked up. The result means nothing; it keeps the compiler from leaving the
// read out.
func (t *Table[V]) Touch(k uint32) uint32 {
	if t.N == 0 {
		return 0
	}
	return t.Slots[t.home(k)].K
}

// Delete removes k.
func (t *Table[V]) Delete(k uint32) {
	if k == 0 {
		k = 1
	}
	if t.N == 0 {
		return
	}
	i := t.find(k)
	if t.Slots[i].K == 0 {
		return
	}
	t.N--
	// Those behind it that it kept from their place move up.
	mask := len(t.Slots) - 1
	for j := (i + 1) & mask; t.Slots[j].K != 0; j = (j + 1) & mask {
		if (j-t.home(t.Slots[j].K))&mask >= (j-i)&mask {
			t.Slots[i] = t.Slots[j]
			i = j
		}
	}
	t.Slots[i] = Slot[V]{}
}

// Keep removes all keys that keep refuses. keep must give the same answer for
// the same key and value.
func (t *Table[V]) Keep(keep func(k uint32, v *V) bool) {
	old := t.Slots
	n := 0
	for i := range old {
		if x := &old[i]; x.K != 0 && keep(x.K, &x.V) {
			n++
		}
	}
	*t = Table[V]{}
	if n == 0 {
		return
	}
	t.resize(1 << bits.Len(uint(max(minTable-1, n*4/3))))
	for i := range old {
		if x := &old[i]; x.K != 0 && keep(x.K, &x.V) {
			*t.Put(x.K) = x.V
		}
	}
}

func (t *Table[V]) resize(n int) {
	old := t.Slots
	t.Slots = make([]Slot[V], n)
	for _, x := range old {
		if x.K != 0 {
			t.Slots[t.find(x.K)] = x
		}
	}
}

// PutLargest returns a pointer to the value of k in t, as t.Put does. A table
// that has no room for a new key first forgets its smaller half by weight, and
// with it all entries as small as the middle one.
func (t *Table[V]) PutLargest(k uint32, limit int, weight func(*V) int64) *V {
	if v := t.Get(k); v != nil {
		return v
	}
	if t.N >= max(limit, 1) {
		w := make([]int64, 0, t.N)
		for i := range t.Slots {
			if x := &t.Slots[i]; x.K != 0 {
				w = append(w, weight(&x.V))
			}
		}
		slices.Sort(w)
		middle := w[(len(w)-1)/2]
		t.Keep(func(_ uint32, v *V) bool { return weight(v) > middle })
	}
	return t.Put(k)
}

// RecentTable is Recent over a Table: bounded, and forgetting by age halves.
type RecentTable[V any] struct {
	Young, Old Table[V] // no key is in both
}

// Get returns a pointer to the value of k, nil when there is none. It is valid
// until the next Put or Delete. It does not count as use.
func (r *RecentTable[V]) Get(k uint32) *V {
	if v := r.Young.Get(k); v != nil {
		return v
	}
	return r.Old.Get(k)
}

// Put returns a pointer to the value of k, which becomes the youngest and is
// zero when it is new, and keeps at most limit (at least 2) of them. The
// pointer is valid until the next Put or Delete.
func (r *RecentTable[V]) Put(k uint32, limit int) *V {
	if v := r.Young.Get(k); v != nil {
		return v
	}
	var was V
	if v := r.Old.Get(k); v != nil {
		was = *v
		r.Old.Delete(k)
	}
	if r.Young.Len() >= max(limit/2, 1) {
		r.Age()
	}
	v := r.Young.Put(k)
	*v = was
	return v
}

// Len returns the number of entries.
func (r *RecentTable[V]) Len() int { return r.Young.Len() + r.Old.Len() }

// Age forgets the old half and makes the young half old.
func (r *RecentTable[V]) Age() { r.Young, r.Old = Table[V]{}, r.Young }
