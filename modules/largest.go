package modules

import "slices"

// PutLargest stores v under k in the map at m, which it makes when it is nil.
// A map that has no room for a new key first forgets its smaller half by
// weight, and with it all entries as small as the middle one, so what it
// forgets depends on the entries alone, never on the order in which Go walks a
// map. It returns how many were forgotten. For use in a module's state.
func PutLargest[K comparable, V any](m *map[K]V, k K, v V, limit int, weight func(V) int64) (forgotten int) {
	if *m == nil {
		*m = make(map[K]V)
	}
	if len(*m) >= max(limit, 1) {
		if _, ok := (*m)[k]; !ok {
			forgotten = forgetSmaller(*m, weight)
		}
	}
	(*m)[k] = v
	return forgotten
}

func forgetSmaller[K comparable, V any](m map[K]V, weight func(V) int64) int {
	w := make([]int64, 0, len(m))
	for _, v := range m {
		w = append(w, weight(v))
	}
	slices.Sort(w)
	n, middle := len(m), w[(len(w)-1)/2]
	for k, v := range m {
		if weight(v) <= middle {
			delete(m, k)
		}
	}
	return n - len(m)
}
