package profiler

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/slips-go/slips/parsers/flow"
)

// counter counts what one module did on one lane.
type counter struct {
	calls, timers, evidence, panics, sampled, nanos int64
}

// sourceCount counts the records of one source. The sequencer writes it.
type sourceCount struct {
	name    string
	kinds   [flow.NumKinds]int64
	ignored int64
	late    int64
	reject  map[string]int64
}

// Stats are the counters of a run.
type Stats struct {
	records, late, evicted, profiles, profilesSeen, windowsCut, leaps, ignored, now, first atomic.Int64

	names   []string   // of the modules
	off     [][]string // for each module that is off, the kinds it misses; written before the run
	mu      sync.Mutex
	sources []*sourceCount
	base    []counter         // of runs before a restart
	lanes   map[int][]counter // the latest of each lane
	copies  []SourceStats     // of sources, as of the last round
}

func newStats(mods []Loaded) *Stats {
	s := &Stats{lanes: make(map[int][]counter), base: make([]counter, len(mods)), off: make([][]string, len(mods))}
	for _, m := range mods {
		s.names = append(s.names, m.Spec.Name)
	}
	return s
}

// SourceStats counts the records of one source.
type SourceStats struct {
	Name     string
	Kinds    map[string]int64 // records by kind
	Late     int64            // of the records
	Ignored  int64            // whole records of kinds that are not used
	Rejected map[string]int64 // lines that were not decoded, by reason
}

// ModuleStats says what one module did.
type ModuleStats struct {
	Name     string
	Calls    int64
	Timers   int64
	Evidence int64
	Panics   int64
	Missing  []string // the kinds of record it needs and the input does not have: it was off
	Samples  int64    // calls that were timed: those of one record in 256
	Nanos    int64    // spent in them
}

// Snapshot is a copy of all counters.
type Snapshot struct {
	Records      int64
	Late         int64 // records whose window had closed
	Profiles     int64 // in memory
	ProfilesSeen int64 // made since the start, evicted ones counted again when they come back
	Evicted      int64
	WindowsCut   int64 // windows closed early because a profile had too many
	Leaps        int64 // records whose start lay so far ahead that the clock did not follow
	Ignored      int64 // records that a whitelist kept from being looked at
	First, Last  int64 // stream time, unix ns; 0 before the first record
	Sources      []SourceStats
	Modules      []ModuleStats
}

// Records returns the number of records sequenced so far.
func (s *Stats) Records() int64 { return s.records.Load() }

// Snapshot copies the counters. Those of sources may lag until the run ends.
func (s *Stats) Snapshot() Snapshot {
	x := Snapshot{
		Records: s.records.Load(), Late: s.late.Load(), Profiles: s.profiles.Load(), ProfilesSeen: s.profilesSeen.Load(),
		Evicted: s.evicted.Load(), WindowsCut: s.windowsCut.Load(), Leaps: s.leaps.Load(), Ignored: s.ignored.Load(), First: s.first.Load(), Last: s.now.Load(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x.Sources = slices.Clone(s.copies)
	for j, n := range s.names {
		m := ModuleStats{Name: n, Missing: s.off[j]}
		add := func(c *counter) {
			m.Calls += c.calls
			m.Timers += c.timers
			m.Evidence += c.evidence
			m.Panics += c.panics
			m.Samples += c.sampled
			m.Nanos += c.nanos
		}
		add(&s.base[j])
		for _, l := range s.lanes {
			add(&l[j])
		}
		x.Modules = append(x.Modules, m)
	}
	return x
}

func (s *Stats) source(name string) *sourceCount {
	for _, c := range s.sources {
		if c.name == name {
			return c
		}
	}
	c := &sourceCount{name: name, reject: make(map[string]int64)}
	s.sources = append(s.sources, c)
	slices.SortFunc(s.sources, func(a, b *sourceCount) int { return strings.Compare(a.name, b.name) })
	return c
}

func (s *Stats) reject(c *sourceCount, r flow.Reject) {
	if r.Ignored {
		c.ignored++
		return
	}
	c.reject[r.Reason]++
}

// sequenced publishes the sequencer's counters once a round, those of the
// sources now and then.
func (s *Stats) sequenced(records uint64, now, first int64, began, sources bool) {
	s.records.Store(int64(records))
	if began {
		s.now.Store(now)
		s.first.Store(first)
	}
	if !sources {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.copies = s.copies[:0]
	for _, c := range s.sources {
		x := SourceStats{Name: c.name, Kinds: make(map[string]int64), Late: c.late, Ignored: c.ignored, Rejected: make(map[string]int64)}
		for k, n := range c.kinds {
			if n > 0 {
				x.Kinds[flow.Kind(k).String()] = n
			}
		}
		maps.Copy(x.Rejected, c.reject)
		s.copies = append(s.copies, x)
	}
}

// addLane publishes the counters of a lane.
func (s *Stats) addLane(n int, cnt []counter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lanes[n] = append(s.lanes[n][:0], cnt...)
}
