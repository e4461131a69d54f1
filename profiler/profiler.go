// Package profiler owns stream time, profiles and time windows, and runs the
// modules over the records of all inputs in one order.
//
// Three sorts of goroutine work in it. The sequencer merges the inputs, stamps
// each record with its place and its time, and decides which profile it
// belongs to. Each lane owns some of the profiles and runs the modules over
// their records; one more lane runs the modules that look at the whole
// network. The collector puts what the lanes found back into one order and
// hands it to the Sink. docs/decisions/0002 says what time is here, and why.
package profiler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"sync"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// OneWindow is the Width that puts all traffic into one window. It is 200
// years, and the window begins 100 years before the first flow, so that no
// sum of times overflows.
const OneWindow = 200 * 365 * 24 * time.Hour

// Config of an Engine. The zero value of a field that says so takes a default.
type Config struct {
	Lanes       int           // at least 1
	Width       time.Duration // of a time window, or OneWindow
	Origin      int64         // where window 1 begins, unix ns; default the time of the first record
	Grace       time.Duration // how long a window stays open behind its end; default Width
	Both        bool          // analysis direction "all": flows belong to the destination's profile too
	MaxProfiles int           // profiles in memory; the one idle longest goes first; default 100,000
	MaxWindows  int           // open windows of one profile; the oldest goes first; default 50
	Home        []netip.Prefix
	Round       int // records handed to the lanes at once; default 1024; results do not depend on it

	Follow     bool          // inputs grow: evidence is passed on at once, not in one order over all inputs
	IdleAfter  time.Duration // a growing input that is silent so long does not hold up the others; default 2 s
	Checkpoint time.Duration // time between checkpoints when following; 0: none
	Now        func() time.Time

	Strict     bool // a panic in a module ends the program: for tests
	PanicLimit int  // panics after which a module is off for a profile; default 3

	Flows  Flows              // may be nil
	Ignore Ignorer            // may be nil
	Intel  func() *intel.View // what the feeds list, asked for between two rounds when following and once in a replay; nil: nothing
	// Network returns what the machine itself knows about its network, an
	// immutable snapshot; nil, or a nil result: nothing. It is asked before each
	// record, by the sequencer's goroutine. Home wins over its home networks.
	Network func() *profile.Network
	Ask     bool // modules' questions are passed on
	Names   bool // the names of addresses are passed on
	Log     *slog.Logger
}

// Ignorer says which records are not to be looked at at all. It is called for
// every record in order, by the sequencer's goroutine. While Sink.Checkpoint
// runs it is not called.
type Ignorer interface {
	Ignore(f *flow.Flow) bool
}

// Flows is told of every record in order, by the sequencer's goroutine. While
// Sink.Checkpoint runs it is told nothing.
type Flows interface {
	// Flow must not keep f.
	Flow(f *flow.Flow, w profile.Window)
}

// Loaded is a module ready to run.
type Loaded struct {
	Spec modules.Spec
	Run  modules.Runner
}

// Sink takes what the engine finds. All calls come from one goroutine. An
// error ends the run.
type Sink interface {
	// Evidence is called in the order of the keys in a replay, in the order of
	// discovery when following.
	Evidence(e *evidence.Evidence) error
	// News tells what else became known, in the same order.
	News(n News) error
	// Round ends a run of calls: all evidence before stream time low has been
	// given. It is the moment to flush.
	Round(low int64) error
	// Checkpoint gives a state to go on from; all evidence found so far has
	// been given.
	Checkpoint(c *Checkpoint) error
}

// News is what became known beside evidence. One of its parts is set.
type News struct {
	At       int64 // stream time, unix ns
	Host     *Host
	Sighting *Sighting
	Question *modules.Question
}

// Inputs are the sources of a run.
type Inputs struct {
	// Initial inputs; their channels are buffered when following, since a reader
	// signals Wake only after its batch was queued. All must have at least one
	// batch, if only the one marked Ended or Idle.
	Initial []flow.Input
	Later   <-chan flow.Input // nil or closed when none will come
	Wake    <-chan struct{}   // signalled after a batch was queued on any input; needed when following; buffered
	Tick    <-chan time.Time  // about once a second; needed when following
}

// Engine runs modules over inputs, once.
type Engine struct {
	cfg  Config
	mods []Loaded
	// scoped lists the modules of each scope, and place says where in its list
	// a module is: a window holds no room for modules of other scopes.
	scoped [modules.Network + 1][]int
	place  []int
	seq    *sequencer
	lanes  []*lane // the last one is the network's
	stats  *Stats
	intel  *intel.View // what the feeds list; the sequencer's
}

// look takes up what the feeds list now.
func (e *Engine) look() {
	if e.cfg.Intel != nil {
		e.intel = e.cfg.Intel()
	}
}

// New checks cfg and returns an engine that starts afresh, or from saved.
func New(cfg Config, mods []Loaded, saved *Checkpoint) (*Engine, error) {
	if cfg.Lanes < 1 {
		return nil, fmt.Errorf("profiler: lanes is %d, must be at least 1", cfg.Lanes)
	}
	if cfg.Width < time.Second {
		return nil, fmt.Errorf("profiler: window width is %v, must be at least 1s", cfg.Width)
	}
	if cfg.Grace <= 0 {
		cfg.Grace = cfg.Width
	}
	def := func(p *int, v int) {
		if *p <= 0 {
			*p = v
		}
	}
	def(&cfg.MaxProfiles, 100_000)
	def(&cfg.MaxWindows, 50)
	def(&cfg.Round, 1024)
	def(&cfg.PanicLimit, 3)
	if cfg.IdleAfter <= 0 {
		cfg.IdleAfter = 2 * time.Second
	}
	if cfg.Now == nil {
		return nil, errors.New("profiler: no clock given")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{cfg: cfg, mods: mods, stats: newStats(mods)}
	for j, m := range mods {
		of := &e.scoped[m.Spec.Scope]
		e.place = append(e.place, len(*of))
		if *of = append(*of, j); len(*of) > maxPlaces {
			return nil, fmt.Errorf("profiler: more than %d modules with a state per %s", maxPlaces, m.Spec.Scope)
		}
	}
	e.look()
	for i := range cfg.Lanes {
		e.lanes = append(e.lanes, newLane(e, i, false))
	}
	e.lanes = append(e.lanes, newLane(e, cfg.Lanes, true))
	e.seq = newSequencer(e)
	if saved != nil {
		if err := e.restore(saved); err != nil {
			return nil, fmt.Errorf("profiler: cannot restore: %w", err)
		}
	}
	return e, nil
}

// WindowAt returns the window that time t, unix ns, lies in. It may be called
// from Sink.
func (e *Engine) WindowAt(t int64) profile.Window { return e.seq.window(t) }

// Hosts returns what is known about hosts, by address. It may be called once
// Run has returned.
func (e *Engine) Hosts() []Host { return e.seq.hosts.list() }

// Stats returns the counters of the run. They may be read at any time from any goroutine.
func (e *Engine) Stats() *Stats { return e.stats }

// Run works until all inputs have ended and returns nil, or until the sink
// fails or ctx is done. It may be called once. When ctx is done records that
// were read and not yet looked at are given up; to end in good order, end the
// inputs.
func (e *Engine) Run(ctx context.Context, in Inputs, out Sink) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	e.sleep(in)
	res := make(chan found, 2*len(e.lanes))
	var lanes sync.WaitGroup
	for _, l := range e.lanes {
		lanes.Go(func() { l.run(res) })
	}
	var coll sync.WaitGroup
	var failed error
	coll.Go(func() {
		c := newCollector(len(e.lanes), e.cfg.Follow, out, e.stats)
		for f := range res {
			if failed != nil {
				continue // so that the lanes do not block until the sequencer has stopped
			}
			if failed = c.take(f); failed != nil {
				cancel(failed)
			}
		}
	})
	err := e.seq.run(ctx, in)
	for _, l := range e.lanes {
		close(l.in)
	}
	lanes.Wait()
	close(res)
	coll.Wait()
	return errors.Join(failed, err)
}

// sleep switches off the modules that can find nothing in a replay of in,
// because no input bears records of a kind they need. Should one come all the
// same, the sequencer wakes them.
func (e *Engine) sleep(in Inputs) {
	if e.cfg.Follow {
		return // a log may turn up late
	}
	var kinds flow.KindSet
	for _, i := range in.Initial {
		if i.Kinds == 0 {
			return
		}
		kinds |= i.Kinds
	}
	off := make([]bool, len(e.mods))
	any := false
	e.stats.mu.Lock()
	defer e.stats.mu.Unlock()
	for j, m := range e.mods {
		if missing := m.Spec.Needs &^ kinds; missing != 0 {
			off[j], any = true, true
			e.stats.off[j] = missing.Names()
			e.cfg.Log.Info("a module is off: the input has no log that it needs", "module", m.Spec.Name, "missing", missing.Names())
		}
	}
	if !any {
		return
	}
	e.seq.expect = kinds
	e.seq.choose(off)
	for _, l := range e.lanes {
		l.choose(off)
	}
}

// endOfTime is a stream time that no record reaches.
const endOfTime = math.MaxInt64

// add is a sum of times that stops at endOfTime.
func add(t int64, d time.Duration) int64 {
	if t > endOfTime-int64(d) {
		return endOfTime
	}
	return t + int64(d)
}

// msg is what the sequencer sends a lane: records, and the time, so that a
// lane without records moves on too.
type msg struct {
	round *round
	items []item
	flows []*flow.Flow // for the network lane
	nets  []*profile.Network
	intel *intel.View
	clock clocks
	wake  bool // all modules are on from here
	save  bool // encode the state behind this message
	end   bool
}

// The sorts of items.
const (
	opRecord uint8 = iota
	opEvict        // f is the record that needed the room
	opNetwork
)

// item is a piece of work for the lane that owns a profile.
type item struct {
	f    *flow.Flow
	net  *profile.Network // opNetwork
	win  int64            // number of the record's window
	prof int32
	op   uint8
	role profile.Role
}

// clocks are the stream times that lanes run their timers to. A timer of a
// module with one kind of records follows that kind's clock; one of a module
// with several follows the clock that all inputs have reached. In a replay
// all clocks are one.
type clocks [flow.NumKinds + 1]int64

// join is the index of the clock that all inputs have reached.
const join = flow.NumKinds

// domainOf returns the clock a module follows.
func domainOf(s modules.Spec) int {
	if s.Kinds.Single() {
		for k := range flow.NumKinds {
			if s.Kinds.Has(k) {
				return int(k)
			}
		}
	}
	return int(join)
}
