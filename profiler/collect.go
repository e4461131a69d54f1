package profiler

import (
	"cmp"
	"slices"

	"github.com/slips-go/slips/alerts/evidence"
)

// placed is news with its place in the order.
type placed struct {
	key evidence.Key
	News
}

// event is what the collector passes on: evidence or news.
type event struct {
	key  evidence.Key
	ev   *evidence.Evidence
	news *placed
}

// collector puts what the lanes found into one order.
type collector struct {
	out     Sink
	stats   *Stats
	follow  bool
	lanes   int
	rounds  map[uint64][]found // rounds that not all lanes have reported
	pending []event
}

func newCollector(lanes int, follow bool, out Sink, stats *Stats) *collector {
	return &collector{out: out, stats: stats, follow: follow, lanes: lanes, rounds: make(map[uint64][]found)}
}

// take adds what one lane found in one round. Once all lanes have reported a
// round, evidence goes on: in a replay all that comes before the time which
// every lane has reached, when following all there is.
func (c *collector) take(f found) error {
	if f.err != nil {
		return f.err
	}
	n := f.round.n
	got := append(c.rounds[n], f)
	if len(got) < c.lanes {
		c.rounds[n] = got
		return nil
	}
	delete(c.rounds, n)
	low := f.upTo
	for i := range got {
		low = min(low, got[i].upTo)
		for j := range got[i].ev {
			e := &got[i].ev[j]
			c.pending = append(c.pending, event{key: e.Key, ev: e})
		}
		for j := range got[i].asked {
			q := &got[i].asked[j]
			c.pending = append(c.pending, event{key: q.key, news: q})
		}
	}
	for i := range f.round.news {
		n := &f.round.news[i]
		c.pending = append(c.pending, event{key: n.key, news: n})
	}
	slices.SortStableFunc(c.pending, func(a, b event) int {
		return cmp.Or(a.key.Compare(b.key), cmp.Compare(b2i(a.ev != nil), b2i(b.ev != nil)))
	})
	i := 0
	for ; i < len(c.pending) && (c.follow || c.pending[i].key.At < low || low == endOfTime); i++ {
		var err error
		if e := c.pending[i]; e.ev != nil {
			err = c.out.Evidence(e.ev)
		} else {
			err = c.out.News(e.news.News)
		}
		if err != nil {
			return err
		}
	}
	c.pending = slices.Delete(c.pending, 0, i)
	if err := c.out.Round(f.round.low); err != nil {
		return err
	}
	if ck := f.round.save; ck != nil {
		slices.SortFunc(got, func(a, b found) int { return cmp.Compare(a.lane, b.lane) })
		for _, g := range got {
			ck.Lanes = append(ck.Lanes, g.state)
		}
		// The sequencer waits, so these are the counters of this very moment.
		x := c.stats.Snapshot()
		ck.Counters.Modules, ck.Counters.Cut = x.Modules, x.WindowsCut
		err := c.out.Checkpoint(ck)
		close(f.round.saved)
		return err
	}
	return nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
