package profiler

import (
	"container/heap"

	"github.com/slips-go/slips/alerts/evidence"
)

// The classes of a due and of a key: at one time timers come first, then the
// ends of windows, then records.
const (
	classTimer uint8 = iota
	classWindow
	classRecord
)

// due is something to do at a stream time: fire a module's timer, or close a
// window for the modules of a domain.
type due struct {
	evidence.Key
	key  uint64
	own  *owner // nil on the network lane
	slot *slot  // nil for a timer of a PerProfile or Network module
	gen  uint8  // of slot's domain: how often it had been closed
}

// void reports whether the profile or the window of d is gone, the latter also
// when a late record has opened it again since.
func (d *due) void(domain int) bool {
	return (d.own != nil && d.own.gone) || (d.slot != nil && (d.slot.open&(1<<domain) == 0 || d.slot.gens[domain] != d.gen))
}

type dues []due

func (d dues) Len() int           { return len(d) }
func (d dues) Less(i, j int) bool { return d[i].Compare(d[j].Key) < 0 }
func (d dues) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *dues) Push(x any)        { *d = append(*d, x.(due)) } //nolint:errcheck // only lanes push, and only dues
func (d *dues) Pop() any {
	o := *d
	x := o[len(o)-1]
	o[len(o)-1] = due{}
	*d = o[:len(o)-1]
	return x
}

func (d *dues) put(x due) { heap.Push(d, x) }

func (d *dues) take() due { return heap.Pop(d).(due) } //nolint:errcheck // only lanes push, and only dues
