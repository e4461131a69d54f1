package modules

// Recent is a map of bounded size for use in a module's state. It forgets in
// the order of last use, by halves: when the young half is full, the old half
// goes. What it forgets depends on the calls alone, never on the order in
// which Go walks a map, so two runs forget the same. The zero value is ready;
// gob saves it.
type Recent[K comparable, V any] struct {
	Young, Old map[K]V // no key is in both
}

// Get returns the value of k and whether there is one. It does not count as use.
func (r *Recent[K, V]) Get(k K) (V, bool) {
	if v, ok := r.Young[k]; ok {
		return v, true
	}
	v, ok := r.Old[k]
	return v, ok
}

// Put sets the value of k and makes it the youngest. It returns how many
// entries were forgotten to keep at most limit (at least 2) of them.
func (r *Recent[K, V]) Put(k K, v V, limit int) (forgotten int) {
	if _, ok := r.Young[k]; !ok {
		delete(r.Old, k)
		if len(r.Young) >= max(limit/2, 1) {
			forgotten = r.Age()
		}
		if r.Young == nil {
			r.Young = make(map[K]V)
		}
	}
	r.Young[k] = v
	return forgotten
}

// Delete removes k.
func (r *Recent[K, V]) Delete(k K) {
	delete(r.Young, k)
	delete(r.Old, k)
}

// Len returns the number of entries.
func (r *Recent[K, V]) Len() int { return len(r.Young) + len(r.Old) }

// Age forgets the old half and makes the young half old. Put calls it for the
// size; a module may call it for the time. It returns how many were forgotten.
func (r *Recent[K, V]) Age() (forgotten int) {
	forgotten = len(r.Old)
	r.Young, r.Old = nil, r.Young
	return forgotten
}
