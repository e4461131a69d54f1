package profiler

import (
	"math/bits"
	"slices"
)

// maxPlaces is how many modules of one scope there can be: states has a bit
// for each.
const maxPlaces = 64

// states are the states of the modules of one scope that have one. Most hosts
// of the Internet are seen once and wake two or three of sixty modules, so
// there is no room for the others.
type states struct {
	has  uint64 // a bit for each place that has a state
	list []any  // by place
}

// index returns where in the list place i is, or would be.
func (s *states) index(i int) int { return bits.OnesCount64(s.has & (1<<i - 1)) }

// get returns the state at place i, nil when there is none. s may be nil.
func (s *states) get(i int) any {
	if s == nil || s.has&(1<<i) == 0 {
		return nil
	}
	return s.list[s.index(i)]
}

// put sets the state at place i, where there is none.
func (s *states) put(i int, st any) {
	s.list = slices.Insert(s.list, s.index(i), st)
	s.has |= 1 << i
}

// drop takes away the state at place i, if there is one.
func (s *states) drop(i int) {
	if s.has&(1<<i) == 0 {
		return
	}
	k := s.index(i)
	s.has &^= 1 << i
	if s.list = slices.Delete(s.list, k, k+1); s.has == 0 {
		s.list = nil
	}
}

// places returns the places that have a state.
func (s *states) places() []int {
	var p []int
	for b := s.has; b != 0; b &= b - 1 {
		p = append(p, bits.TrailingZeros64(b))
	}
	return p
}
