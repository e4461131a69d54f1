package profiler

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Checkpoint is a state of the engine between two records. It can be encoded
// with gob. docs/decisions/0003 says how it is used.
type Checkpoint struct {
	Clean    bool // all inputs had ended: what comes behind it is the end of input, not news
	Modules  []string
	Seq      uint64
	Now, Low int64
	Origin   int64
	First    int64
	Width    int64
	Inputs   map[string]savedInput
	Profiles []netip.Addr // the one idle longest first
	Moved    []uint64     // for each, when it last became the youngest
	Bare     bool         // positions alone: see Positions and Strip
	Network  profile.Network
	HostList []Host
	GateMAC  string
	Counters savedCounters
	Lanes    [][]byte // one for each lane, the network's last
}

// Positions returns where each input goes on.
func (c *Checkpoint) Positions() map[string]flow.Position {
	p := make(map[string]flow.Position, len(c.Inputs))
	for n, in := range c.Inputs {
		p[n] = in.Pos
	}
	return p
}

// Strip returns a checkpoint that knows where each input goes on and nothing
// else: an engine restored from it begins with empty windows.
func (c *Checkpoint) Strip() *Checkpoint {
	d := &Checkpoint{Bare: true, Inputs: make(map[string]savedInput, len(c.Inputs))}
	for n, in := range c.Inputs {
		d.Inputs[n] = savedInput{Clock: minTime, Pos: in.Pos}
	}
	return d
}

type savedInput struct {
	Clock int64
	Leapt int64
	Kinds flow.KindSet
	Pos   flow.Position
}

type savedCounters struct {
	Late, Evicted, Seen, Cut, Ignored int64
	Sources                           []SourceStats
	Modules                           []ModuleStats
}

// checkpoint returns the sequencer's part. The lanes add theirs on the way.
func (s *sequencer) checkpoint() *Checkpoint {
	s.e.stats.sequenced(s.seq, s.now, s.first, s.began, true)
	x := s.e.stats.Snapshot()
	c := &Checkpoint{
		Clean: s.ended, Seq: s.seq, Now: s.now, Low: s.low, Origin: s.origin.Load(), First: s.first,
		Width: int64(s.e.cfg.Width), Inputs: make(map[string]savedInput), Network: *s.hosts.net, GateMAC: s.hosts.gwMAC,
		Counters: savedCounters{Late: x.Late, Evicted: x.Evicted, Seen: x.ProfilesSeen, Cut: x.WindowsCut, Ignored: x.Ignored, Sources: x.Sources, Modules: x.Modules},
	}
	for _, m := range s.e.mods {
		c.Modules = append(c.Modules, m.Spec.Name)
	}
	maps.Copy(c.Inputs, s.restored) // inputs that have not come back yet
	for _, in := range s.ins {
		p := in.pos
		p.Done = slices.Clone(p.Done)
		c.Inputs[in.Name] = savedInput{Clock: in.clock, Leapt: in.leapt, Kinds: in.kinds, Pos: p}
	}
	for p := s.profs[0].prev; p != 0; p = s.profs[p].prev {
		c.Profiles, c.Moved = append(c.Profiles, s.profs[p].addr), append(c.Moved, s.profs[p].moved)
	}
	c.HostList = s.hosts.list()
	return c
}

// What a lane writes, one after the other: savedLane, then for each owner a
// savedOwner followed by its states, then the states of the Network modules.
type savedLane struct {
	Owners int
	Dues   []savedDue
	Net    []int   // modules that have a Network state
	Panics []uint8 // of the Network modules
}

type savedOwner struct {
	ID     netip.Addr
	Mods   []int // modules with a PerProfile state
	Panics []uint8
	Wins   []savedWindow
}

type savedWindow struct {
	W    profile.Window
	Open uint64
	Gens [flow.NumKinds + 1]uint8
	Mods []int
}

type savedDue struct {
	Key    evidence.Key
	K      uint64
	Domain int
	Owner  netip.Addr // invalid on the network lane
	Win    int64      // number of the window when InWin
	InWin  bool
	Gen    uint8
}

// save encodes all that the lane knows.
func (l *lane) save() ([]byte, error) {
	var b bytes.Buffer
	enc := gob.NewEncoder(&b)
	var h savedLane
	for _, o := range l.owners {
		if o != nil {
			h.Owners++
		}
	}
	for d := range l.dues {
		for _, x := range l.dues[d] {
			if x.void(d) {
				continue
			}
			y := savedDue{Key: x.place(), K: x.key, Domain: d, Gen: x.gen}
			if x.own != nil {
				y.Owner = x.own.id
			}
			if x.slot != nil {
				y.Win, y.InWin = x.slot.n, true
			}
			h.Dues = append(h.Dues, y)
		}
	}
	if l.netst != nil {
		h.Net, h.Panics = l.netst.places(), l.panics[nil]
	}
	err := enc.Encode(h)
	states := func(scope modules.Scope, places []int, st *states) {
		for _, i := range places {
			if err == nil {
				m := &l.e.mods[l.e.scoped[scope][i]]
				if err = m.Run.Save(enc, st.get(i)); err != nil {
					err = fmt.Errorf("module %s: %w", m.Spec.Name, err)
				}
			}
		}
	}
	for _, o := range l.owners {
		if o == nil || err != nil {
			continue
		}
		so := savedOwner{ID: o.id, Mods: o.st.places(), Panics: l.panics[o]}
		for _, w := range o.wins {
			so.Wins = append(so.Wins, savedWindow{W: l.e.seq.numbered(w.n), Open: w.open, Gens: w.gens, Mods: w.st.places()})
		}
		if err = enc.Encode(so); err != nil {
			break
		}
		states(modules.PerProfile, so.Mods, &o.st)
		for i, w := range o.wins {
			states(modules.PerWindow, so.Wins[i].Mods, &w.st)
		}
	}
	states(modules.Network, h.Net, l.netst)
	if err != nil {
		return nil, fmt.Errorf("cannot save the state of lane %d: %w", l.n, err)
	}
	return b.Bytes(), nil
}

// restore brings the engine to the state of c. The number of lanes may differ.
func (e *Engine) restore(c *Checkpoint) error {
	e.seq.restored = make(map[string]savedInput)
	maps.Copy(e.seq.restored, c.Inputs)
	if c.Bare {
		return nil
	}
	var names []string
	for _, m := range e.mods {
		names = append(names, m.Spec.Name)
	}
	if !slices.Equal(names, c.Modules) {
		return fmt.Errorf("it was made with the modules %s, not %s", strings.Join(c.Modules, " "), strings.Join(names, " "))
	}
	if c.Width != int64(e.cfg.Width) {
		return errors.New("it was made with another width of the time window")
	}
	if len(c.Profiles) > e.cfg.MaxProfiles {
		return errors.New("it holds more profiles than max_profiles allows")
	}
	s := e.seq
	s.seq, s.now, s.low, s.first, s.began = c.Seq, c.Now, c.Low, c.First, c.Seq > 0
	s.origin.Store(c.Origin)
	if len(c.Moved) != len(c.Profiles) {
		return errors.New("damaged: the order of profiles")
	}
	for i, a := range c.Profiles {
		s.profs[s.profile(a, nil)].moved = c.Moved[i]
	}
	s.last = -1
	e.stats.restore(c)
	net := c.Network
	s.hosts.net, s.hosts.gwMAC = &net, c.GateMAC
	for _, h := range c.HostList {
		x := h
		s.hosts.byIP[h.IP] = &x
		if h.MAC == "" {
			continue
		}
		m := s.hosts.byMAC[h.MAC]
		if m == nil {
			m = &macIPs{}
			s.hosts.byMAC[h.MAC] = m
		}
		if h.IP.Is4() {
			m.V4 = h.IP
		} else {
			m.V6 = h.IP
		}
	}
	for i, b := range c.Lanes {
		if err := e.restoreLane(b, i == len(c.Lanes)-1); err != nil {
			return err
		}
	}
	for _, l := range e.lanes {
		l.host.Net = s.hosts.net
	}
	return nil
}

func (e *Engine) restoreLane(b []byte, network bool) error {
	dec := gob.NewDecoder(bytes.NewReader(b))
	var h savedLane
	if err := dec.Decode(&h); err != nil {
		return err
	}
	load := func(scope modules.Scope, places []int, st *states) error {
		for _, i := range places {
			if i < 0 || i >= len(e.scoped[scope]) || st.get(i) != nil {
				return errors.New("damaged: no such module")
			}
			m := &e.mods[e.scoped[scope][i]]
			v, err := m.Run.Load(dec)
			if err != nil {
				return fmt.Errorf("module %s: %w", m.Spec.Name, err)
			}
			st.put(i, v)
		}
		return nil
	}
	owners := make(map[netip.Addr]*owner, h.Owners)
	for range h.Owners {
		var so savedOwner
		if err := dec.Decode(&so); err != nil {
			return err
		}
		p := e.seq.index.get(so.ID)
		if p == 0 {
			return errors.New("damaged: a profile is not in the table")
		}
		l := e.lanes[int(p)%e.cfg.Lanes]
		o := l.owner(p, &flow.Flow{Src: so.ID}, profile.Client)
		l.blame(o, so.Panics)
		if err := load(modules.PerProfile, so.Mods, &o.st); err != nil {
			return err
		}
		for _, sw := range so.Wins {
			w := &slot{own: o, n: sw.W.N, open: sw.Open, gens: sw.Gens}
			if err := load(modules.PerWindow, sw.Mods, &w.st); err != nil {
				return err
			}
			o.wins = append(o.wins, w)
		}
		owners[so.ID] = o
	}
	nl := e.lanes[len(e.lanes)-1]
	if network {
		if err := load(modules.Network, h.Net, nl.netst); err != nil {
			return err
		}
		nl.blame(nil, h.Panics)
	}
	for _, y := range h.Dues {
		l, o := nl, (*owner)(nil)
		if y.Owner.IsValid() {
			if o = owners[y.Owner]; o == nil {
				return errors.New("damaged: a timer without a profile")
			}
		}
		d := newDue(y.Key, o)
		d.key, d.gen = y.K, y.Gen
		if o != nil {
			l = e.lanes[int(e.seq.index.get(y.Owner))%e.cfg.Lanes]
			if y.InWin {
				i := slices.IndexFunc(o.wins, func(s *slot) bool { return s.n == y.Win })
				if i < 0 {
					return errors.New("damaged: a timer without a window")
				}
				d.slot = o.wins[i]
			}
		}
		if y.Domain > int(join) {
			return errors.New("damaged: no such clock")
		}
		l.push(y.Domain, d)
	}
	return nil
}

// restore takes the counters of c for the start.
func (s *Stats) restore(c *Checkpoint) {
	s.records.Store(int64(c.Seq))
	s.now.Store(c.Now)
	s.first.Store(c.First)
	s.late.Store(c.Counters.Late)
	s.evicted.Store(c.Counters.Evicted)
	s.profilesSeen.Store(c.Counters.Seen)
	s.windowsCut.Store(c.Counters.Cut)
	s.ignored.Store(c.Counters.Ignored)
	s.copies = c.Counters.Sources
	for _, x := range c.Counters.Sources {
		cnt := s.source(x.Name)
		cnt.ignored, cnt.late = x.Ignored, x.Late
		for k := range flow.NumKinds {
			cnt.kinds[k] = x.Kinds[k.String()]
		}
		maps.Copy(cnt.reject, x.Rejected)
	}
	for j := range s.names {
		for _, m := range c.Counters.Modules {
			if m.Name == s.names[j] {
				s.base[j] = counter{calls: m.Calls, timers: m.Timers, evidence: m.Evidence, panics: m.Panics, sampled: m.Samples, nanos: m.Nanos}
			}
		}
	}
}
