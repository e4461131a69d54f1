package beacon

import "math"

// Pair is a source that called a place: an address and port, or a name. Four
// of them fill a line of the cache.
type Pair struct {
	K     uint32    // hash; 0: free
	Last  uint32    // the latest check-in
	Gap   uint16    // s, from the first check-in to the latest
	Ports [2]uint16 // source ports used last, the newest first
	N     uint16    // check-ins; from promote on, promote and the place of its series
}

// Pairs is a table of all pairs of late, in which a pair has its place in one
// group of ways. It is not exact: a group that is full loses the pair that
// promises least, which costs nothing and which a scan cannot turn against the
// pairs that come back.
type Pairs struct {
	Slots []Pair
}

const (
	ways     = 4
	minPairs = 1 << 10
	maxPairs = 1 << 17
)

func (t *Pairs) group(k uint32) []Pair {
	groups := uint64(len(t.Slots) / ways)
	i := ways * (uint64(k*2654435769) * groups >> 32)
	return t.Slots[i : i+ways : i+ways]
}

// find returns the pair of k, and whether it was there already. The table
// grows up to its bound when it would lose a pair that was called within the
// time of memory.
func (t *Pairs) find(k, now uint32) (*Pair, bool) {
	if k == 0 {
		k = 1
	}
	if len(t.Slots) == 0 {
		t.Slots = make([]Pair, minPairs)
	}
	for {
		g := t.group(k)
		least := &g[0]
		for i := range g {
			p := &g[i]
			if p.K == k {
				return p, true
			}
			if p.worth() < least.worth() {
				least = p
			}
		}
		if least.K == 0 || len(t.Slots) >= maxPairs || now > least.Last && now-least.Last > memory {
			*least = Pair{K: k}
			return least, false
		}
		t.grow()
	}
}

// worth orders pairs by check-ins, then by time. A free place is worth nothing.
func (p *Pair) worth() uint64 { return uint64(min(p.N, promote))<<32 | uint64(p.Last) }

func (t *Pairs) grow() {
	old := t.Slots
	t.Slots = make([]Pair, 2*len(old))
	for _, p := range old {
		if p.K == 0 {
			continue
		}
		g := t.group(p.K) // a group's pairs go to two new ones, so there is room
		for i := range g {
			if g[i].K == 0 {
				g[i] = p
				break
			}
		}
	}
}

// call notes a call at t, and returns the times of the first check-in and the
// latest before it, and whether the call is a check-in of its own. The one that
// makes promote of them does not count: then the pair is to be followed.
func (p *Pair) call(t uint32) (first, last uint32, own bool) {
	last = p.Last
	first = last - min(last, uint32(p.Gap))
	p.Last = max(last, t)
	p.Gap = uint16(min(p.Last-min(first, t), math.MaxUint16))
	if own = t != first && t != last; own && p.N < promote-1 {
		p.N++
	}
	return first, last, own
}

// Followed are the series of the pairs that come back. The one that promises
// least among a few makes room for a new one.
type Followed struct {
	All  []Series
	Hand uint32 // place of the next to be looked at
}

const (
	maxSeries = 6 << 10
	// among is how many places are looked at to find one.
	among = 16
)

// place returns the place of a new series.
func (l *Followed) place() int {
	if len(l.All) < maxSeries {
		l.All = append(l.All, Series{})
		return len(l.All) - 1
	}
	least := int(l.Hand)
	for range among {
		if i := int(l.Hand); l.All[i].worth() < l.All[least].worth() {
			least = i
		}
		l.Hand = (l.Hand + 1) % maxSeries
	}
	return least
}

// worth orders series by score, then by time. What was not judged yet is worth
// more than what was judged bad.
func (s *Series) worth() uint64 {
	score := s.Score
	if score < 0 {
		score = 0.5
	}
	return uint64(1000*score)<<32 | uint64(s.Events[len(s.Events)-1].T)
}
