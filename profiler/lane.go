package profiler

import (
	"cmp"
	"fmt"
	"runtime/debug"
	"slices"
	"time"
	"unsafe"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// owner is a profile as its lane sees it.
type owner struct {
	id   profile.ID
	wins []*slot // open windows, by number
	last *slot   // the one used last
	st   states  // of the PerProfile modules
	gone bool    // evicted: its timers are void
}

// slot holds the states of the PerWindow modules for one window of a profile.
type slot struct {
	own  *owner
	n    int64 // number of the window
	st   states
	open uint64                   // domains that have not closed yet
	gens [flow.NumKinds + 1]uint8 // how often each domain was closed
}

// lane owns some profiles, or the network. One goroutine runs it.
type lane struct {
	e      *Engine
	n      int
	in     chan msg
	out    []evidence.Evidence
	asked  []placed
	byKind [flow.NumKinds][]int // modules to run on a record, in order
	domain []int                // of each module
	wants  []modules.Chooser    // of each module; nil: all records
	looks  []modules.Looker     // of each module; nil: none
	owners []*owner             // by index of the profile / lanes
	panics map[*owner][]uint8   // by module, of those with any; nil is the network
	netst  *states              // of the Network modules; nil: not the network's lane
	dues   [flow.NumKinds + 1]dues
	full   [flow.NumKinds + 1]int // length of dues at which the void ones go
	clock  clocks
	next   int64 // no due of any domain lies before it

	host modules.Host
	cx   *modules.Context

	freeItems chan []item
	freeFlows chan []*flow.Flow
	nets      []*profile.Network
	touched   uint32               // see touch
	touchers  []int                // modules to touch for
	touching  int                  // the one at hand
	frequent  [flow.NumKinds][]int // modules called often, by kind of record
	calls     []int64              // of each module, when frequent was made
	seen      int64                // items

	// What is at hand, for keys and for the report of a panic.
	pos    int  // in the message
	at     int  // next module of the record at hand; -1: the record has not begun
	ending bool // all input has been seen: timers set now are void
	f      *flow.Flow
	own    *owner
	slot   *slot
	class  uint8
	seq    uint64
	mod    int
	ord    int
	cnt    []counter
}

func newLane(e *Engine, n int, network bool) *lane {
	l := &lane{
		e: e, n: n, in: make(chan msg, 4), next: endOfTime, cnt: make([]counter, len(e.mods)), calls: make([]int64, len(e.mods)),
		freeItems: make(chan []item, 8), freeFlows: make(chan []*flow.Flow, 8),
	}
	for j, m := range e.mods {
		l.domain = append(l.domain, domainOf(m.Spec))
		l.wants = append(l.wants, m.Run.Chooser())
		l.looks = append(l.looks, m.Run.Looker())
		if m.Spec.Scope == modules.PerWindow && m.Run.Touches() {
			l.touchers = append(l.touchers, j)
		}
	}
	if network {
		l.netst = new(states)
	}
	l.choose(make([]bool, len(e.mods)))
	l.cx = modules.NewContext(&l.host)
	l.host.Net = &profile.Network{}
	l.host.Intel = e.intel
	if e.cfg.Ask {
		l.host.Ask = l.ask
	}
	l.host.Emit, l.host.After, l.host.At = l.emit, l.after, func(t int64) profile.Window { return e.seq.window(t) }
	return l
}

// choose sets which modules run on which records. off has a value for each.
func (l *lane) choose(off []bool) {
	l.byKind = [flow.NumKinds][]int{}
	for j, m := range l.e.mods {
		if off[j] || (m.Spec.Scope == modules.Network) != (l.netst != nil) {
			continue
		}
		for k := range flow.NumKinds {
			if m.Spec.Kinds.Has(k) {
				l.byKind[k] = append(l.byKind[k], j)
			}
		}
	}
}

// found is what a lane has to say about one round.
type found struct {
	lane  int
	round *round
	upTo  int64 // all evidence with a key before it is in
	ev    []evidence.Evidence
	asked []placed
	state []byte // of a checkpoint
	err   error
}

func (l *lane) run(res chan<- found) {
	for m := range l.in {
		if m.wake {
			l.choose(make([]bool, len(l.e.mods)))
		}
		l.nets, l.host.Intel = m.nets, m.intel
		for l.pos, l.at = 0, -1; l.pos < len(m.flows); {
			l.guard(func() { l.network(m.flows) })
		}
		for l.pos, l.at = 0, -1; l.pos < len(m.items); {
			l.guard(func() { l.records(m.items) })
		}
		if m.end {
			l.ending = true
			for i := range m.clock {
				m.clock[i] = endOfTime
			}
		}
		for d, t := range m.clock {
			l.advance(d, t)
		}
		r := found{lane: l.n, round: m.round, upTo: slices.Min(m.clock[:]), ev: l.out, asked: l.asked}
		l.out, l.asked = nil, nil
		if m.save {
			r.state, r.err = l.save()
		}
		l.e.stats.addLane(l.n, l.cnt)
		m.round.done()
		l.recycle(m)
		res <- r
	}
}

// spare returns an empty list of items, used before if there is one.
func (l *lane) spare() []item {
	select {
	case s := <-l.freeItems:
		return s[:0]
	default:
		return make([]item, 0, l.e.cfg.Round+8)
	}
}

func (l *lane) spareFlows() []*flow.Flow {
	select {
	case s := <-l.freeFlows:
		return s[:0]
	default:
		return make([]*flow.Flow, 0, l.e.cfg.Round+8)
	}
}

// recycle gives the lists of m back to the sequencer.
func (l *lane) recycle(m msg) {
	if m.items != nil {
		select {
		case l.freeItems <- m.items:
		default:
		}
	}
	if m.flows != nil {
		select {
		case l.freeFlows <- m.flows:
		default:
		}
	}
}

// records runs the modules over the items from l.pos on. When a module
// panics, l.pos and l.at already lie behind the call that failed, so calling
// it again goes on with what is left.
func (l *lane) records(items []item) {
	for ; l.pos < len(items); l.pos, l.at = l.pos+1, -1 {
		it := &items[l.pos]
		f := it.f
		if l.at < 0 {
			if l.seen++; l.seen%recount == 0 {
				l.count()
			}
			if l.pos%ahead == 0 {
				l.readAhead(items[l.pos:min(l.pos+ahead, len(items))])
			}
			l.at = 0
			if !l.begin(it) {
				continue
			}
		}
		l.modules(f)
	}
}

const (
	// ahead is how many items touch looks at.
	ahead = 32
	// recount is how many records lie between two looks at which modules are
	// called often. A module that gets one in often records of its kinds is.
	recount = 1 << 14
	often   = 4
)

// count finds the modules whose states touch reads.
func (l *lane) count() {
	for k, mods := range l.byKind {
		l.frequent[k] = l.frequent[k][:0]
		for _, j := range mods {
			if l.e.mods[j].Spec.Scope != modules.Network && (l.cnt[j].calls-l.calls[j])*often >= recount {
				l.frequent[k] = append(l.frequent[k], j)
			}
		}
	}
	for j := range l.cnt {
		l.calls[j] = l.cnt[j].calls
	}
}

// readAhead calls touch. Reading ahead is no part of the result, so a module
// that panics there is left out of it from then on, and no more.
func (l *lane) readAhead(items []item) {
	if !l.e.cfg.Strict {
		defer func() {
			if r := recover(); r != nil {
				l.f, l.own, l.mod = nil, nil, l.touching
				l.panicked(r)
				l.touchers = slices.DeleteFunc(l.touchers, func(j int) bool { return j == l.touching })
			}
		}()
	}
	l.touch(items)
}

// touch reads a little of what the next items will need: profile, window,
// states. With ten thousand hosts none of it is in the cache, and each record
// would wait for one piece after the other. Read in a loop of its own, the
// pieces of many records come at the same time.
func (l *lane) touch(items []item) {
	var owners [ahead]*owner
	var slots [ahead]*slot
	sum := uint32(0)
	for i := range items {
		if k := int(items[i].prof) / l.e.cfg.Lanes; items[i].op == opRecord && k < len(l.owners) {
			if o := l.owners[k]; o != nil {
				owners[i], slots[i] = o, o.last
			}
		}
	}
	for _, s := range slots {
		if s != nil {
			sum += uint32(s.n)
		}
	}
	// The first byte of the state behind the interface.
	first := func(st any) uint32 {
		if st == nil {
			return 0
		}
		return uint32(*(*byte)((*[2]unsafe.Pointer)(unsafe.Pointer(&st))[1]))
	}
	for i, s := range slots {
		if s == nil {
			continue
		}
		for _, j := range l.frequent[items[i].f.Kind] {
			if l.e.mods[j].Spec.Scope == modules.PerWindow {
				sum += first(s.st.get(l.e.place[j]))
			} else {
				sum += first(owners[i].st.get(l.e.place[j]))
			}
		}
	}
	for _, j := range l.touchers {
		l.touching = j
		for i, s := range slots {
			if s == nil || !l.e.mods[j].Spec.Kinds.Has(items[i].f.Kind) {
				continue
			}
			if st := s.st.get(l.e.place[j]); st != nil {
				sum += l.e.mods[j].Run.Touch(st, items[i].f)
			}
		}
	}
	l.touched = sum // so that the compiler keeps the reads
}

// begin makes the item's record what is at hand. It returns false when there
// is nothing to run on it.
func (l *lane) begin(it *item) bool {
	f := it.f
	if it.op == opNetwork {
		l.host.Net = it.net
		return false
	}
	l.time(f)
	if it.op == opEvict {
		l.evict(it.prof, f)
		return false
	}
	if len(l.byKind[f.Kind]) == 0 {
		return false
	}
	o := l.owner(it.prof, f, it.role)
	// A window that is not open yet is opened by the first module that wants
	// the record, for only a window with states is ever closed.
	s := o.last
	if s != nil && s.n != it.win {
		s = nil
	}
	l.host.Window = l.e.seq.numbered(it.win)
	l.f, l.own, l.slot, l.class, l.seq = f, o, s, classRecord, f.Seq
	l.host.Now, l.host.Record, l.host.Profile, l.host.Role = f.At, f.Time, o.id, it.role
	return true
}

// time runs the timers that come before record f.
func (l *lane) time(f *flow.Flow) {
	if !l.e.cfg.Follow {
		if f.At >= l.next {
			l.advanceAll(f.At)
		}
		return
	}
	if d := &l.dues[f.Kind]; len(*d) > 0 && (*d)[0].at <= f.Own {
		l.advance(int(f.Kind), f.Own)
	}
	if d := &l.dues[join]; len(*d) > 0 && (*d)[0].at <= f.Low {
		l.advance(int(join), f.Low)
	}
}

// sampled picks the records whose calls are timed: one in 256.
const sampled = 255

// modules runs the modules from l.at on over the record at hand.
func (l *lane) modules(f *flow.Flow) {
	mods := l.byKind[f.Kind]
	sample := f.Seq&sampled == 0
	for l.at < len(mods) {
		j := mods[l.at]
		l.at++
		l.mod = j
		if w := l.wants[j]; w != nil && !w.Wants(f) {
			continue
		}
		if k := l.looks[j]; k != nil && !l.has(j) && !k.Looks(l.host.Intel, f) {
			continue
		}
		l.call(j, f, sample)
	}
}

// call runs one module on the record at hand.
func (l *lane) call(j int, f *flow.Flow, sample bool) {
	if l.off(j) {
		return
	}
	m := &l.e.mods[j]
	st := l.state(j, m)
	l.ord = 0
	c := &l.cnt[j]
	c.calls++
	if sample {
		t := l.e.cfg.Now()
		m.Run.Handle(l.cx, st, f)
		c.sampled++
		c.nanos += int64(l.e.cfg.Now().Sub(t))
		return
	}
	m.Run.Handle(l.cx, st, f)
}

// off reports whether module j has panicked too often for the owner at hand.
func (l *lane) off(j int) bool {
	if len(l.panics) == 0 {
		return false
	}
	p := l.panics[l.own]
	return p != nil && int(p[j]) >= l.e.cfg.PanicLimit
}

// has reports whether module j has a state for what is at hand.
func (l *lane) has(j int) bool {
	return l.states(l.e.mods[j].Spec.Scope).get(l.e.place[j]) != nil
}

// states returns the states of a scope for what is at hand, nil when there is
// no window yet.
func (l *lane) states(sc modules.Scope) *states {
	switch sc {
	case modules.PerWindow:
		if l.slot == nil {
			return nil
		}
		return &l.slot.st
	case modules.PerProfile:
		return &l.own.st
	default: // modules.Network
	}
	return l.netst
}

// state returns module j's state for what is at hand, making it first.
func (l *lane) state(j int, m *Loaded) any {
	if m.Spec.Scope == modules.PerWindow && l.slot == nil {
		l.slot = l.window(l.own, l.host.Window, l.f)
	}
	in, i := l.states(m.Spec.Scope), l.e.place[j]
	st := in.get(i)
	if st == nil {
		st = m.Run.NewState()
		in.put(i, st)
		if m.Spec.Scope == modules.PerWindow {
			l.keepOpen(l.slot, l.domain[j], l.f.At)
		}
	}
	return st
}

// network is records for the network lane.
func (l *lane) network(flows []*flow.Flow) {
	for ; l.pos < len(flows); l.pos, l.at = l.pos+1, -1 {
		f := flows[l.pos]
		if l.at < 0 {
			l.at = 0
			if f == nil {
				l.host.Net, l.nets = l.nets[0], l.nets[1:]
				continue
			}
			l.time(f)
			l.f, l.own, l.slot, l.class, l.seq = f, nil, nil, classRecord, f.Seq
			l.host.Now, l.host.Record, l.host.Profile, l.host.Role = f.At, f.Time, f.Src, profile.Client
			l.host.Window = l.e.seq.window(f.Time)
		}
		l.modules(f)
	}
}

// guard runs fn. When a module panics there, the panic is reported and
// counted, and the work goes on behind the call that failed.
func (l *lane) guard(fn func()) {
	if l.e.cfg.Strict {
		fn()
		return
	}
	defer func() {
		if r := recover(); r != nil {
			l.panicked(r)
		}
	}()
	fn()
}

func (l *lane) panicked(r any) {
	name, uid := l.e.mods[l.mod].Spec.Name, ""
	l.cnt[l.mod].panics++
	if l.f != nil {
		uid = l.f.UID
	}
	if l.panics[l.own] == nil {
		l.blame(l.own, make([]uint8, len(l.e.mods)))
	}
	l.panics[l.own][l.mod]++
	off := l.off(l.mod)
	l.e.cfg.Log.Error("a module panicked", "module", name, "profile", l.host.Profile, "seq", l.seq, "uid", uid,
		"panic", fmt.Sprint(r), "off_from_here", off, "stack", string(debug.Stack()))
}

// blame sets how often each module panicked for o, or for the network.
func (l *lane) blame(o *owner, panics []uint8) {
	if len(panics) != len(l.e.mods) {
		return
	}
	if l.panics == nil {
		l.panics = make(map[*owner][]uint8)
	}
	l.panics[o] = panics
}

func (l *lane) owner(prof int32, f *flow.Flow, role profile.Role) *owner {
	i := int(prof) / l.e.cfg.Lanes
	for i >= len(l.owners) {
		l.owners = append(l.owners, nil)
	}
	o := l.owners[i]
	if o == nil {
		o = &owner{id: f.Src}
		if role == profile.Server {
			o.id = f.Dst
		}
		l.owners[i] = o
	}
	return o
}

// window returns o's slot of window w, opening it first.
func (l *lane) window(o *owner, w profile.Window, f *flow.Flow) *slot {
	i, ok := slices.BinarySearchFunc(o.wins, w.N, func(s *slot, n int64) int { return cmp.Compare(s.n, n) })
	if !ok {
		if len(o.wins) >= l.e.cfg.MaxWindows {
			old := o.wins[0]
			l.e.stats.windowsCut.Add(1)
			class, seq := l.class, l.seq // closing makes the old window what is at hand
			host, mod, ord := l.host, l.mod, l.ord
			for d := range l.clock {
				l.closeSlot(old, d, f.At, f.Seq)
			}
			l.f, l.own, l.class, l.seq, l.host, l.mod, l.ord = f, o, class, seq, host, mod, ord
			i, _ = slices.BinarySearchFunc(o.wins, w.N, func(s *slot, n int64) int { return cmp.Compare(s.n, n) })
		}
		o.wins = slices.Insert(o.wins, i, &slot{own: o, n: w.N})
	}
	o.last = o.wins[i]
	return o.last
}

// keepOpen sees to it that s is closed for a domain in due time. A window
// that a late record opened again stays open for one width.
func (l *lane) keepOpen(s *slot, domain int, now int64) {
	if s.open&(1<<domain) != 0 {
		return
	}
	s.open |= 1 << domain
	w := l.e.seq.numbered(s.n)
	at := add(w.End, l.e.cfg.Grace)
	if at <= now {
		at = add(now, l.e.cfg.Width)
	}
	d := newDue(evidence.Key{At: at, Class: classWindow, Owner: s.own.id, Seq: uint64(w.Start)}, s.own)
	d.slot, d.gen = s, s.gens[domain]
	l.push(domain, d)
}

func (l *lane) push(domain int, d due) {
	h := &l.dues[domain]
	if len(*h) >= l.full[domain] {
		// Those of evicted profiles and closed windows would stay until their
		// time comes, which may be an hour of ever new profiles away.
		*h = slices.DeleteFunc(*h, func(d due) bool { return d.void(domain) })
		h.order()
		l.full[domain] = len(*h)*3/2 + minDues
	}
	h.put(d)
	l.next = min(l.next, d.at)
}

// minDues is how many things may be due before it pays to look for void ones.
const minDues = 1024

// advanceAll runs every domain to time t: a replay has one clock.
func (l *lane) advanceAll(t int64) {
	next := int64(endOfTime)
	for d := range l.dues {
		if len(l.dues[d]) > 0 && l.dues[d][0].at <= t {
			l.advance(d, t)
		}
		if len(l.dues[d]) > 0 {
			next = min(next, l.dues[d][0].at)
		}
	}
	l.next = next
}

// advance does all that is due in a domain by time t, oldest first.
func (l *lane) advance(domain int, t int64) {
	h := &l.dues[domain]
	for len(*h) > 0 && (*h)[0].at <= t {
		d := h.take()
		l.guard(func() { l.fire(domain, d) })
	}
	l.clock[domain] = max(l.clock[domain], t)
}

func (l *lane) fire(domain int, d due) {
	if d.void(domain) {
		return
	}
	if d.class == classWindow {
		l.closeSlot(d.slot, domain, d.at, d.seq)
		return
	}
	m := &l.e.mods[d.module]
	l.enter(d.place(), d.own, d.slot)
	st := l.states(m.Spec.Scope).get(l.e.place[d.module])
	l.mod, l.ord = int(d.module), d.ord<<16 // keys of two timers set by one call stay apart
	if l.off(l.mod) {
		return
	}
	l.cnt[d.module].timers++
	m.Run.Fire(l.cx, st, d.key)
}

// closeSlot ends a window for the modules of a domain.
func (l *lane) closeSlot(s *slot, domain int, at int64, seq uint64) {
	if s.open&(1<<domain) == 0 {
		return
	}
	s.open &^= 1 << domain
	s.gens[domain]++
	defer func() {
		if s.open == 0 {
			o := s.own
			o.wins = slices.DeleteFunc(o.wins, func(x *slot) bool { return x == s })
			if o.last == s {
				o.last = nil
			}
		}
	}()
	for i, j := range l.e.scoped[modules.PerWindow] {
		if l.domain[j] != domain {
			continue
		}
		st := s.st.get(i)
		if st == nil {
			continue
		}
		l.enter(evidence.Key{At: at, Class: classWindow, Seq: seq}, s.own, s)
		l.mod, l.ord = j, 0
		if !l.off(j) {
			l.guard(func() { l.e.mods[j].Run.CloseWindow(l.cx, st, l.host.Window) })
		}
		s.st.drop(i)
	}
}

// evict forgets a profile to make room: its windows close first.
func (l *lane) evict(prof int32, f *flow.Flow) {
	i := int(prof) / l.e.cfg.Lanes
	if i >= len(l.owners) || l.owners[i] == nil {
		return
	}
	o := l.owners[i]
	for _, s := range slices.Clone(o.wins) {
		for d := range l.clock {
			l.closeSlot(s, d, f.At, f.Seq)
		}
	}
	o.gone, o.wins, o.last, o.st = true, nil, nil, states{} // timers may keep it for a while
	delete(l.panics, o)
	l.owners[i] = nil
}

// enter makes a timer or a window end what is at hand.
func (l *lane) enter(k evidence.Key, o *owner, s *slot) {
	l.f, l.own, l.slot, l.class, l.seq = nil, o, s, k.Class, k.Seq
	l.host.Now, l.host.Record, l.host.Profile, l.host.Role = k.At, k.At, profile.ID{}, profile.Client
	l.host.Window = profile.Window{}
	if o != nil {
		l.host.Profile = o.id
	}
	if s != nil {
		l.host.Window = l.e.seq.numbered(s.n)
	} else if k.At < endOfTime {
		l.host.Window = l.e.seq.window(k.At)
	}
}

func (l *lane) key() evidence.Key {
	return evidence.Key{
		At: l.host.Now, Class: l.class, Seq: l.seq, Owner: l.host.Profile, Role: uint8(l.host.Role),
		Module: l.mod, Ord: l.ord,
	}
}

// emit is Context.Emit.
func (l *lane) emit(e evidence.Evidence) {
	m := &l.e.mods[l.mod]
	i := slices.IndexFunc(m.Spec.Emits, func(s evidence.Spec) bool { return s.Type == e.Type })
	if i < 0 {
		panic(fmt.Sprintf("BUG: module %s emits %s, which is not in its Emits", m.Spec.Name, e.Type))
	}
	sp := &m.Spec.Emits[i]
	if !e.Profile.IsValid() {
		panic(fmt.Sprintf("BUG: module %s emits %s without a profile", m.Spec.Name, e.Type))
	}
	e.Key = l.key()
	l.ord++
	w := l.e.seq.window(e.Time)
	e.Window, e.WindowStart, e.WindowEnd = w.N, w.Start, w.End
	e.Module, e.Method = m.Spec.Name, sp.Method
	if e.Method == "" {
		e.Method = "Heuristic"
	}
	if e.Tactic == "" {
		e.Tactic = sp.Tactic
	}
	if e.MITRE == nil {
		e.MITRE = sp.MITRE
	}
	e.Confidence = min(max(e.Confidence, 0), 1)
	if len(e.UIDs) > evidence.MaxUIDs {
		e.UIDs = e.UIDs[:evidence.MaxUIDs]
	}
	if e.Count == 0 {
		e.Count = int64(len(e.UIDs))
	}
	e.Derive()
	l.cnt[l.mod].evidence++
	l.out = append(l.out, e)
}

// ask is Context.Ask.
func (l *lane) ask(q modules.Question) {
	l.asked = append(l.asked, placed{l.key(), News{At: l.host.Now, Question: &q}})
	l.ord++
}

// after is Context.After.
func (l *lane) after(d time.Duration, key uint64) {
	if l.ending {
		return
	}
	k := l.key()
	k.At, k.Class = add(k.At, max(d, 1)), classTimer
	l.ord++
	x := newDue(k, l.own)
	x.key = key
	if l.e.mods[l.mod].Spec.Scope == modules.PerWindow {
		x.slot, x.gen = l.slot, l.slot.gens[l.domain[l.mod]]
	}
	l.push(l.domain[l.mod], x)
}
