package beacon

import (
	"math"
	"net/netip"
)

// Pair is a source that called a place: an address and port, or a name. Four
// of them fill a line of the cache.
type Pair struct {
	K     uint32    // hash; 0: free
	Last  uint32    // the latest check-in
	Gap   uint16    // s, from the first check-in to the latest; from promote of them on, the place of its series
	Ports [2]uint16 // source ports used last, the newest first
	N     uint8     // check-ins, up to promote
	Flags uint8
}

// The flags of a pair.
const (
	asked    uint8 = 1 << iota // of requests: one was no post
	more                       // there were calls near a check-in, or of a name with one address, that were not counted
	answered                   // of connections: one was
	several                    // of a name: it has several addresses
	// The bits above hold a hash of its first address, 0: none yet.
	addrShift = 4
)

// to notes an address of the name that was called.
func (p *Pair) to(a netip.Addr) {
	switch h := uint8(1 + hash32(hashAddr(5, a))%15); p.Flags >> addrShift {
	case 0:
		p.Flags |= h << addrShift
	case h:
	default:
		p.Flags |= several
	}
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
		for i := range g {
			if g[i].K == k {
				return &g[i], true
			}
		}
		least := &g[0]
		worth := least.worth()
		for i := 1; i < ways; i++ {
			if w := g[i].worth(); w < worth {
				least, worth = &g[i], w
			}
		}
		if least.K == 0 || len(t.Slots) >= maxPairs || now > least.Last && now-least.Last > memory {
			*least = Pair{K: k}
			return least, false
		}
		t.grow()
	}
}

// get returns the pair of k, nil when there is none.
func (t *Pairs) get(k uint32) *Pair {
	if len(t.Slots) == 0 {
		return nil
	}
	g := t.group(max(k, 1))
	for i := range g {
		if g[i].K == max(k, 1) {
			return &g[i]
		}
	}
	return nil
}

// worth orders pairs by check-ins, then by time. A free place is worth nothing.
func (p *Pair) worth() uint64 { return uint64(p.N)<<32 | uint64(p.Last) }

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

// again notes a call at t from a source port, and reports whether the pair was
// called before and this is a new connection: neither the same one, tried
// again, nor a piece of one that is logged in pieces.
func (p *Pair) again(t uint32, port uint16) bool {
	if p.N == 0 || t > p.Last && t-p.Last > memory {
		*p = Pair{K: p.K, Last: t, N: 1, Ports: [2]uint16{port}}
		return false
	}
	if port != 0 && (port == p.Ports[0] || port == p.Ports[1]) {
		return false
	}
	p.Ports = [2]uint16{port, p.Ports[0]}
	return true
}

// call notes a call at t of a pair that is not followed yet. When that makes
// promote check-ins of it, it returns the times of those before.
func (p *Pair) call(t uint32) (before [promote - 1]uint32, enough bool) {
	last := p.Last
	first := last - min(last, uint32(p.Gap))
	if within(t, first) || within(t, last) {
		if t != first && t != last {
			p.Flags |= more
		}
		return before, false
	}
	if p.N+1 == promote {
		return [promote - 1]uint32{first, last}, true
	}
	p.N++
	p.Last = max(last, t)
	p.Gap = uint16(min(p.Last-min(first, t), math.MaxUint16))
	return before, false
}

// within reports whether two times are too close for two check-ins of a pair
// that is not followed.
func within(a, b uint32) bool { return max(a, b)-min(a, b) < apart }

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
