package profiler

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// round is a run of records on its way through the lanes. It keeps the
// batches alive that the records lie in.
type round struct {
	n       uint64
	batches []*flow.Batch
	news    []placed
	nets    []*profile.Network // snapshots for the network lane, one for each nil among its records
	pending atomic.Int32       // lanes that are not done
	save    *Checkpoint        // the sequencer's part of a checkpoint
	saved   chan struct{}      // closed when the checkpoint is done
	low     int64              // stream time that all inputs have reached, for the sink
}

// done is called by each lane when it will not look at the round's records again.
func (r *round) done() {
	if r.pending.Add(-1) == 0 {
		for _, b := range r.batches {
			b.Release()
		}
		r.batches = nil
	}
}

// input is one source as the sequencer sees it.
type input struct {
	flow.Input
	clock int64 // latest start time seen, unix ns
	batch *flow.Batch
	i     int // next record of batch
	rej   int // next reject of batch
	head  int64
	leapt int64     // start of the last record when it leapt ahead; 0: it did not
	leaps bool      // the next record does
	mark  flow.Mark // of what was received last: Idle means caught up
	since time.Time // when it became idle
	gone  bool      // ended, or its channel was closed
	kinds flow.KindSet
	cnt   *sourceCount
	pos   flow.Position
}

// prof is an entry in the table of profiles: a node of the list that puts
// them in the order of their last use.
type prof struct {
	addr       netip.Addr
	prev, next int32
	moved      uint64 // Seq when it last became the youngest
}

// sequencer merges the inputs and decides where each record goes. One
// goroutine runs it.
type sequencer struct {
	e      *Engine
	ins    []*input
	seq    uint64
	now    int64 // greatest At so far
	low    int64 // what all inputs have reached; see lower
	origin atomic.Int64
	began  bool
	first  int64

	index addrIndex
	profs []prof // 0 is the head of the list: next is the youngest, prev the oldest
	last  int32  // profile of the last record

	hosts   *hosts
	around  *profile.Network // what the machine said last
	names   *sightings       // nil when nobody wants them
	netWant flow.KindSet     // kinds that Network modules read
	expect  flow.KindSet     // kinds of a replay in which modules are off; 0: all
	waking  bool             // the next round wakes them

	items    [][]item
	flows    []*flow.Flow
	rnd      *round
	touched  int32  // see addrIndex.touch
	fresh    uint64 // see maxFresh
	count    int
	rounds   uint64
	saved    time.Time // when the last checkpoint was made
	savedSeq uint64
	started  time.Time
	wall     time.Time // the last reading of the wall clock, when following
	ended    bool      // all inputs have ended
	restored map[string]savedInput
	done     <-chan struct{} // of the run's context
}

func newSequencer(e *Engine) *sequencer {
	s := &sequencer{
		e: e, profs: make([]prof, 1), hosts: newHosts(e.cfg.Home, 2*e.cfg.MaxProfiles),
		items: make([][]item, e.cfg.Lanes), fresh: min(maxFresh, uint64(e.cfg.MaxProfiles/2)), low: minTime, now: minTime, last: -1,
	}
	if e.cfg.Names {
		s.names = newSightings()
	}
	s.choose(make([]bool, len(e.mods)))
	return s
}

// choose sets which records the network lane gets. off has a value for each module.
func (s *sequencer) choose(off []bool) {
	s.netWant = 0
	for j, m := range s.e.mods {
		if m.Spec.Scope == modules.Network && !off[j] {
			s.netWant |= m.Spec.Kinds
		}
	}
}

// wake switches all modules on again: a record came of a kind that no input
// seemed to bear.
func (s *sequencer) wake(f *flow.Flow) {
	s.flush(false, false)
	s.expect, s.waking = 0, true
	s.choose(make([]bool, len(s.e.mods)))
	s.e.cfg.Log.Warn("a log holds records that it did not begin with; modules that were off are on from here", "kind", f.Kind.String())
}

// minTime is a stream time before all records.
const minTime = int64(-1) << 62

// window returns the window of time t.
func (s *sequencer) window(t int64) profile.Window {
	return profile.WindowOf(t, s.origin.Load(), int64(s.e.cfg.Width))
}

// numbered returns window n.
func (s *sequencer) numbered(n int64) profile.Window {
	w := int64(s.e.cfg.Width)
	at := s.origin.Load() + (n-1)*w
	return profile.Window{N: n, Start: at, End: at + w}
}

// run merges until all inputs have ended.
func (s *sequencer) run(ctx context.Context, in Inputs) error {
	for _, i := range in.Initial {
		s.addInput(i)
	}
	later := in.Later
	s.done = ctx.Done()
	defer s.abandon()
	s.saved = s.e.cfg.Now()
	s.started, s.wall = s.saved, s.saved
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		blocked, ready, open := s.fill()
		if blocked == nil && ready {
			s.merge()
			continue
		}
		if !open && later == nil {
			break
		}
		// Nothing can be decided now: what there is goes to the lanes.
		s.idle()
		if err := s.wait(ctx, blocked, &later, in); err != nil {
			return err
		}
	}
	s.flush(false, false)
	if s.e.cfg.Follow && s.e.cfg.Checkpoint > 0 && s.began {
		s.ended = true
		s.flush(true, false)
	}
	s.flush(false, true)
	return nil
}

func (s *sequencer) addInput(i flow.Input) {
	in := &input{Input: i, clock: minTime, cnt: s.e.stats.source(i.Name)}
	if r, ok := s.restored[i.Name]; ok {
		in.clock, in.leapt, in.kinds, in.pos = r.Clock, r.Leapt, r.Kinds, r.Pos
		delete(s.restored, i.Name)
	}
	s.ins = append(s.ins, in)
	slices.SortFunc(s.ins, func(a, b *input) int { return cmp.Compare(a.Name, b.Name) })
}

// fill takes a batch for each input that has none. It returns an input that
// must be waited for, if there is one, whether a record is at hand, and
// whether any input is still open.
func (s *sequencer) fill() (blocked *input, ready, open bool) {
	for _, in := range s.ins {
		for in.batch == nil && !in.gone {
			select {
			case b, ok := <-in.C:
				s.receive(in, b, ok)
				continue
			default:
			}
			if in.mark != flow.Idle {
				blocked = in
			}
			break
		}
		ready = ready || in.batch != nil
		open = open || !in.gone
	}
	return blocked, ready, open
}

// receive makes b the input's batch. Its empty ones are done with at once.
func (s *sequencer) receive(in *input, b *flow.Batch, ok bool) {
	if !ok {
		in.gone, in.since = true, s.e.cfg.Now()
		return
	}
	if in.mark = b.Mark; in.mark == flow.Idle {
		in.since = s.e.cfg.Now()
	}
	// A batch without a fingerprint is of a file that has no record yet, or of
	// none: the position stays behind the last record of the file before.
	if p := b.Segment.Print; p != "" && p != in.pos.Segment.Print {
		if in.pos.Segment.Print != "" {
			in.pos.Done = append(in.pos.Done, in.pos.Segment.Print)
			if n := len(in.pos.Done); n > maxDone {
				in.pos.Done = slices.Delete(in.pos.Done, 0, n-maxDone)
			}
		}
		in.pos.Offset = 0
	}
	if b.Segment.Print != "" {
		in.pos.Segment = b.Segment
	}
	in.batch, in.i, in.rej = b, 0, 0
	s.settle(in)
}

// maxDone bounds the files of a source that a checkpoint remembers as read:
// 13 months of hourly rotation.
const maxDone = 10_000

// settle counts the rejects in front of the next record, and gives the batch
// back when no record is left.
func (s *sequencer) settle(in *input) {
	b := in.batch
	for ; in.rej < len(b.Rejects) && b.Rejects[in.rej].Before <= in.i; in.rej++ {
		s.e.stats.reject(in.cnt, b.Rejects[in.rej])
	}
	if in.i < len(b.Flows) {
		t := b.Flows[in.i].Time
		in.head = max(in.clock, t)
		if in.leaps = in.clock > minTime && t > add(in.clock, leap) && (in.leapt == 0 || t < in.leapt-int64(leap)); in.leaps {
			in.head = in.clock
		}
		return
	}
	if b.End > 0 && b.Segment.Print != "" {
		in.pos.Offset = b.End
	}
	if b.Mark == flow.Ended {
		in.gone, in.since = true, s.e.cfg.Now()
	}
	in.batch = nil
	b.Release()
}

// leap is how far ahead of all before it in its source a record may start. One
// that lies further ahead is analysed, but it does not move the clock until
// the next record confirms it: a single damaged time would otherwise close
// every window and let every timer fire.
const leap = 24 * time.Hour

// merge passes records on in the order of their inputs' clocks until an input
// has none at hand.
func (s *sequencer) merge() {
	for {
		var first, second *input
		for _, in := range s.ins {
			switch {
			case in.batch == nil:
			case first == nil || in.head < first.head:
				first, second = in, first
			case second == nil || in.head < second.head:
				second = in
			}
		}
		limit, tie := int64(endOfTime), true
		if second != nil {
			limit, tie = second.head, first.Name < second.Name
		}
		for first.batch != nil && (first.head < limit || (first.head == limit && tie)) {
			s.pass(first)
			if s.count >= s.e.cfg.Round {
				s.flush(false, false)
				if s.e.cfg.Follow {
					s.maybeCheckpoint()
				}
				select {
				case <-s.done:
					return
				default:
				}
			}
		}
		if first.batch == nil {
			return
		}
	}
}

// pass sends the next record of in on its way.
func (s *sequencer) pass(in *input) {
	b := in.batch
	if in.i%ahead == 0 {
		s.touched = s.index.touch(b.Flows[in.i:min(in.i+ahead, len(b.Flows))])
	}
	f := &b.Flows[in.i]
	if s.expect != 0 && !s.expect.Has(f.Kind) {
		s.wake(f)
	}
	if !s.began {
		s.began = true
		s.first = f.Time
		o := cmp.Or(s.e.cfg.Origin, f.Time)
		if s.e.cfg.Width == OneWindow {
			o -= int64(OneWindow / 2)
		}
		s.origin.Store(o)
	}
	in.clock = in.head
	in.leapt = 0
	if in.leaps {
		in.leapt = f.Time
		s.e.stats.leaps.Add(1)
	}
	s.now = max(s.now, in.head)
	s.seq++
	f.Seq, f.At = s.seq, in.head
	in.kinds |= flow.Of(f.Kind)
	f.Low, f.Own = in.head, in.head
	if s.e.cfg.Follow {
		s.lower()
		f.Low, f.Own = s.low, s.reached(f.Kind, in.head)
	}
	if s.rnd == nil {
		s.rnd = &round{}
	}
	if n := len(s.rnd.batches); n == 0 || s.rnd.batches[n-1] != b {
		b.Hold()
		s.rnd.batches = append(s.rnd.batches, b)
	}
	in.pos.Offset = f.End
	in.cnt.kinds[f.Kind]++
	if s.e.cfg.Ignore == nil || !s.e.cfg.Ignore.Ignore(f) {
		s.dispatch(f, in)
	} else {
		s.e.stats.ignored.Add(1)
	}
	s.count++
	in.i++
	s.settle(in)
}

// lower sets s.low to what all inputs have reached that are not silent. One
// that has ended counts as one that is idle: when following, an input ends
// because the program stops, and goes on after the next start. When a log
// turns up late s.low goes back to where that log begins: what was decided
// stays decided, and what was not waits for it.
func (s *sequencer) lower() {
	low := int64(endOfTime)
	for _, in := range s.ins {
		if !s.silent(in) {
			low = min(low, in.clock)
		}
	}
	if s.wall.Sub(s.started) < s.e.cfg.IdleAfter {
		for _, r := range s.restored { // they will be back
			low = min(low, r.Clock)
		}
	}
	if low == endOfTime {
		low = s.now
	}
	s.low = low
}

// silent reports whether an input has been idle long enough not to hold up the
// others.
func (s *sequencer) silent(in *input) bool {
	return in.batch == nil && (in.gone || in.mark == flow.Idle) && s.wall.Sub(in.since) >= s.e.cfg.IdleAfter
}

// reached returns the time that all inputs with records of kind k have
// reached, but for silent ones; none if there is no such input.
func (s *sequencer) reached(k flow.Kind, none int64) int64 {
	t := int64(endOfTime)
	for _, in := range s.ins {
		if in.kinds.Has(k) && !s.silent(in) {
			t = min(t, in.clock)
		}
	}
	if t == endOfTime {
		return none
	}
	return t
}

// dispatch gives the record to the lanes of its profiles and to the network lane.
func (s *sequencer) dispatch(f *flow.Flow, in *input) {
	w := s.window(f.Time)
	if add(w.End, s.e.cfg.Grace) <= f.At {
		s.e.stats.late.Add(1)
		in.cnt.late++
	}
	if s.e.cfg.Network != nil {
		if n := s.e.cfg.Network(); n != s.around && n != nil {
			s.around = n
			if net, ev := s.hosts.adopt(n); net != nil || ev != nil {
				s.learn(f, net, ev)
			}
		}
	}
	if net, ev := s.hosts.observe(f); net != nil || ev != nil {
		s.learn(f, net, ev)
	}
	if s.names != nil {
		s.names.observe(f, s.tell)
	}
	if s.e.cfg.Flows != nil {
		s.e.cfg.Flows.Flow(f, w)
	}
	if s.netWant.Has(f.Kind) {
		s.flows = append(s.flows, f)
	}
	if f.Src.IsValid() {
		s.send(f, f.Src, w.N, profile.Client)
	}
	if s.e.cfg.Both && f.Kind == flow.Conn && f.Dst.IsValid() && f.Dst != f.Src {
		s.send(f, f.Dst, w.N, profile.Server)
	}
}

func (s *sequencer) send(f *flow.Flow, a netip.Addr, win int64, role profile.Role) {
	p := s.profile(a, f)
	l := int(p) % s.e.cfg.Lanes
	s.items[l] = append(s.items[l], item{f: f, win: win, prof: p, role: role})
}

// learn tells every lane of a new network snapshot, and the collector of what
// became known about a host.
func (s *sequencer) learn(f *flow.Flow, net *profile.Network, ev []Host) {
	if net != nil {
		for l := range s.items {
			s.items[l] = append(s.items[l], item{op: opNetwork, net: net})
		}
		s.flows = append(s.flows, nil)
		s.rnd.nets = append(s.rnd.nets, net)
	}
	for i := range ev {
		s.tell(f, News{Host: &ev[i]})
	}
}

// tell passes n on to the collector. News of a record comes before the
// evidence of that record.
func (s *sequencer) tell(f *flow.Flow, n News) {
	n.At = f.At
	s.rnd.news = append(s.rnd.news, placed{evidence.Key{At: f.At, Class: classRecord, Seq: f.Seq, Module: -1}, n})
}

// profile returns the index of a's profile, which becomes the youngest. It
// makes room first when there is none.
func (s *sequencer) profile(a netip.Addr, f *flow.Flow) int32 {
	if s.last > 0 && s.profs[s.last].addr == a {
		return s.last
	}
	p := s.index.get(a)
	if p != 0 {
		// Moving it for each of its records would cost more than all else here.
		if s.seq-s.profs[p].moved > s.fresh {
			s.unlink(p)
			s.front(p)
		}
		s.last = p
		return p
	}
	if len(s.profs) <= s.e.cfg.MaxProfiles {
		p = int32(len(s.profs))
		s.profs = append(s.profs, prof{})
	} else {
		p = s.profs[0].prev
		s.unlink(p)
		l := int(p) % s.e.cfg.Lanes
		s.items[l] = append(s.items[l], item{f: f, op: opEvict, prof: p})
		s.hosts.forget(s.profs[p].addr)
		s.index.del(s.profs[p].addr)
		s.e.stats.evicted.Add(1)
		s.e.stats.profiles.Add(-1)
	}
	s.profs[p].addr = a
	if s.names != nil && f != nil {
		s.tell(f, News{Sighting: &Sighting{IP: a}})
	}
	s.index.put(a, p)
	s.front(p)
	s.last = p
	s.e.stats.profiles.Add(1)
	s.e.stats.profilesSeen.Add(1)
	return p
}

// maxFresh is the most records that may pass before a profile that is in use
// becomes the youngest again. It is less when few profiles are kept: until as
// many records have passed as half of them, none that is in use can have
// become the oldest.
const maxFresh = 4096

func (s *sequencer) unlink(p int32) {
	x := &s.profs[p]
	s.profs[x.prev].next = x.next
	s.profs[x.next].prev = x.prev
}

func (s *sequencer) front(p int32) {
	x := &s.profs[p]
	x.prev, x.next, x.moved = 0, s.profs[0].next, s.seq
	s.profs[x.next].prev = p
	s.profs[0].next = p
}

// flush sends the round to the lanes, with the time.
func (s *sequencer) flush(save, end bool) {
	if s.count == 0 && !save && !end && !s.e.cfg.Follow {
		return
	}
	r := s.rnd
	if r == nil {
		r = &round{}
	}
	s.rounds++
	r.n, r.low = s.rounds, s.now
	if s.e.cfg.Follow {
		s.wall = s.e.cfg.Now()
	}
	r.pending.Store(int32(len(s.e.lanes)))
	if save {
		r.save, r.saved = s.checkpoint(), make(chan struct{})
	}
	var c clocks
	if s.e.cfg.Follow {
		c = s.clocks()
		r.low = c[join]
	} else {
		for i := range c {
			c[i] = s.now
		}
	}
	if s.e.cfg.Follow {
		s.e.look()
	}
	for i, l := range s.e.lanes {
		m := msg{round: r, clock: c, intel: s.e.intel, wake: s.waking, save: save, end: end}
		if i < len(s.items) {
			m.items = s.items[i]
			s.items[i] = l.spare()
		} else {
			m.flows, m.nets = s.flows, r.nets
			s.flows = l.spareFlows()
		}
		l.in <- m
	}
	s.e.stats.sequenced(s.seq, s.now, s.first, s.began, save || end || s.rounds%64 == 0)
	s.rnd, s.count, s.waking = nil, 0, false
	if save {
		// Nothing may go on meanwhile: what the sink saves has to be of one moment.
		select {
		case <-r.saved:
		case <-s.done:
		}
	}
}

// clocks returns the time that each kind of record has reached in all inputs
// that bear it, and the one that all inputs have reached.
func (s *sequencer) clocks() clocks {
	var c clocks
	for k := range flow.NumKinds {
		c[k] = s.reached(k, minTime)
	}
	s.lower()
	c[join] = s.low
	if t, ok := s.tick(); ok {
		for k := range c {
			c[k] = max(c[k], t)
		}
	}
	return c
}

// tickLag is how far ticks stay behind the wall clock: Zeek writes most
// connections within five minutes of their end, and a tick must not overtake
// them.
const tickLag = 5 * time.Minute

// liveWithin is how far behind the wall clock the inputs' time may be for them
// to count as live.
const liveWithin = time.Hour

// tick returns the stream time that the wall clock stands for when the inputs
// are live. An old capture
// that is merely growing gets none, so its results do not depend on when it
// is read.
func (s *sequencer) tick() (int64, bool) {
	t := s.wall.Add(-tickLag).UnixNano()
	if !s.began || s.wall.IsZero() || t <= s.now || t-s.now > int64(liveWithin) {
		return 0, false
	}
	return t, true
}

// idle is called when there is nothing to merge.
func (s *sequencer) idle() {
	if s.count > 0 {
		s.flush(false, false)
	}
	if s.e.cfg.Follow {
		s.wall = s.e.cfg.Now()
		s.maybeCheckpoint()
	}
}

func (s *sequencer) maybeCheckpoint() {
	if s.e.cfg.Checkpoint <= 0 || s.seq == 0 {
		return
	}
	if now := s.e.cfg.Now(); now.Sub(s.saved) >= s.e.cfg.Checkpoint && s.seq != s.savedSeq {
		s.saved, s.savedSeq = now, s.seq
		s.flush(true, false)
	}
}

// wait returns when there may be something to merge.
func (s *sequencer) wait(ctx context.Context, blocked *input, later *<-chan flow.Input, in Inputs) error {
	var c <-chan *flow.Batch
	wake := in.Wake
	if blocked != nil {
		c, wake = blocked.C, nil
	}
	select {
	case b, ok := <-c:
		s.receive(blocked, b, ok)
	case i, ok := <-*later:
		if !ok {
			*later = nil
		} else {
			s.addInput(i)
		}
	case <-wake:
	case <-in.Tick:
		s.flush(false, false)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// abandon gives back what is left when the run ends early.
func (s *sequencer) abandon() {
	for _, in := range s.ins {
		if in.batch != nil {
			in.batch.Release()
			in.batch = nil
		}
	}
	if s.rnd != nil {
		for _, b := range s.rnd.batches {
			b.Release()
		}
		s.rnd = nil
	}
}
