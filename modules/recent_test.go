package modules

import (
	"bytes"
	"encoding/gob"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRecentForgetsOldestFirst(t *testing.T) {
	var r Recent[int, string]
	lost := 0
	for i := range 4 {
		lost += r.Put(i, "a", 4)
	}
	if lost != 0 {
		t.Errorf("%d forgotten within the limit", lost)
	}
	lost = r.Put(0, "b", 4) // 0 is used again, so it is younger than 1
	lost += r.Put(4, "a", 4)
	if _, ok := r.Get(1); ok || lost != 1 {
		t.Errorf("1 is the oldest; there: %v, forgotten: %d, want 1", ok, lost)
	}
	if v, ok := r.Get(0); !ok || v != "b" {
		t.Errorf("0 = %q, %v; it was used last but one", v, ok)
	}
	if r.Len() > 4 {
		t.Errorf("%d entries, limit 4", r.Len())
	}
	r.Delete(0)
	if _, ok := r.Get(0); ok {
		t.Error("0 is there after Delete")
	}
}

func TestRecentStaysWithinLimit(t *testing.T) {
	for _, limit := range []int{0, 2, 3, 10} {
		var r Recent[int, int]
		sum := 0
		for i := range 1000 {
			sum += r.Put(i%137, i, limit)
			if r.Len() > max(limit, 2) {
				t.Fatalf("limit %d: %d entries", limit, r.Len())
			}
			if v, ok := r.Get(i % 137); !ok || v != i {
				t.Fatalf("limit %d: %d just put is %d, %v", limit, i, v, ok)
			}
		}
		if sum == 0 {
			t.Errorf("limit %d: nothing was forgotten", limit)
		}
	}
}

func TestRecentSurvivesGob(t *testing.T) {
	type key struct {
		A netip.Addr
		N int64
	}
	var r, got struct{ R Recent[key, []string] }
	r.R.Put(key{netip.MustParseAddr("192.0.2.1"), 1}, []string{"x"}, 2)
	r.R.Put(key{netip.MustParseAddr("2001:db8::1"), -1}, nil, 2)
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(r); err != nil {
		t.Fatal(err)
	}
	if err := gob.NewDecoder(&b).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Error(d)
	}
}
