package profiler

import (
	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/profiler/profile"
)

// The classes of a due and of a key: at one time timers come first, then the
// ends of windows, then records.
const (
	classTimer uint8 = iota
	classWindow
	classRecord
)

// due is something to do at a stream time: fire a module's timer, or close a
// window for the modules of a domain. Every window of every host has one or
// two, so its key lies here packed.
type due struct {
	at    int64
	seq   uint64
	ord   int
	owner *profile.ID // of the key; the one in own where there is one
	key   uint64      // of the timer
	own   *owner      // nil on the network lane
	slot  *slot       // nil for a timer of a PerProfile or Network module

	module uint16
	class  uint8
	role   uint8
	gen    uint8 // of slot's domain: how often it had been closed
}

// newDue returns what is to be done at the place of k in the order, for own,
// which is k's owner, or for the network when it is nil.
func newDue(k evidence.Key, own *owner) due {
	d := due{at: k.At, seq: k.Seq, ord: k.Ord, own: own, module: uint16(k.Module), class: k.Class, role: k.Role}
	if own != nil {
		d.owner = &own.id
	} else {
		id := k.Owner
		d.owner = &id
	}
	return d
}

// place returns the place of d in the order of all that is due or found.
func (d *due) place() evidence.Key {
	return evidence.Key{At: d.at, Class: d.class, Seq: d.seq, Owner: *d.owner, Role: d.role, Module: int(d.module), Ord: d.ord}
}

// before reports whether d comes before o, as Compare of their places does.
func (d *due) before(o *due) bool {
	switch {
	case d.at != o.at:
		return d.at < o.at
	case d.class != o.class:
		return d.class < o.class
	case d.seq != o.seq:
		return d.seq < o.seq
	}
	if c := d.owner.Compare(*o.owner); c != 0 {
		return c < 0
	}
	switch {
	case d.role != o.role:
		return d.role < o.role
	case d.module != o.module:
		return d.module < o.module
	}
	return d.ord < o.ord
}

// void reports whether the profile or the window of d is gone, the latter also
// when a late record has opened it again since.
func (d *due) void(domain int) bool {
	return (d.own != nil && d.own.gone) || (d.slot != nil && (d.slot.open&(1<<domain) == 0 || d.slot.gens[domain] != d.gen))
}

// dues is a heap (Williams 1964): none comes before the one at half its index.
// It is not container/heap, which moves each by way of an interface.
type dues []due

func (d *dues) put(x due) {
	*d = append(*d, x)
	h := *d
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h[i].before(&h[up]) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
}

// take removes the first, of at least one.
func (d *dues) take() due {
	h := *d
	n := len(h) - 1
	x := h[0]
	h[0], h[n] = h[n], due{}
	*d = h[:n]
	d.sink(0)
	return x
}

// order makes a heap of what lies in any order.
func (d *dues) order() {
	for i := len(*d)/2 - 1; i >= 0; i-- {
		d.sink(i)
	}
}

// sink moves the one at i behind those that come before it.
func (d *dues) sink(i int) {
	h := *d
	for {
		first := 2*i + 1
		if first >= len(h) {
			return
		}
		if next := first + 1; next < len(h) && h[next].before(&h[first]) {
			first = next
		}
		if !h[first].before(&h[i]) {
			return
		}
		h[i], h[first] = h[first], h[i]
		i = first
	}
}
