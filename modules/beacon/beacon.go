// Package beacon reports hosts that call one place again and again: at steady
// intervals, as malware does that asks for orders, or all the time.
package beacon

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// The evidence this module emits.
const (
	Beacon evidence.Type = "BEACON"
	Strobe evidence.Type = "STROBE"
)

// Config holds the thresholds.
type Config struct {
	// MinCheckIns is the number of check-ins that are judged first, 6 to 96.
	MinCheckIns int `yaml:"min_check_ins"`
	// MinScore is the score from which a series is a beacon, 0.5 to 1.
	MinScore float64 `yaml:"min_score"`
	// StrobePerMinute is how many connections a minute, for ten minutes on end, make a strobe, 10 to 100000.
	StrobePerMinute int `yaml:"strobe_per_minute"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name: "beacon",
	Doc:  "calls to one place at steady intervals, or all the time",
	// How many hosts call a place is half of what tells malware from a service.
	Scope: modules.Network,
	Kinds: flow.Of(flow.Conn, flow.SSL, flow.QUIC, flow.HTTP, flow.DNS),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{{
		Type: Beacon, Level: evidence.High, Tactic: evidence.CommandAndControl, MITRE: []string{"T1071", "T1571"},
		Method: "Statistical", Subject: "name or address, port, protocol", Over: "96 check-ins",
		Doc: "a host calls a public address or name at steady intervals, as malware that asks for orders",
	}, {
		Type: Strobe, Level: evidence.Medium, Tactic: evidence.CommandAndControl, MITRE: []string{"T1071"},
		Method: "Threshold", Subject: "address, port, protocol", Over: "window",
		Doc: "a host makes a new connection to one public address every second, for minutes",
	}},
}, Config{MinCheckIns: minEvents, MinScore: 0.7, StrobePerMinute: 60}, New)

const (
	minEvents = 8
	// maxEvents is how many check-ins are judged: four for each bin of the histogram.
	maxEvents = bins * perBin
	// minTime is the timestamp score from which intervals are steady. Calls at
	// random, one independent of the other, have 0.52; those that are off by up
	// to half of the interval 0.87.
	minTime = 0.7
	// maxOff is the share of the interval by which half of them are off at most.
	// That of calls at random is 0.69, that of calls off by up to a half 0.25.
	// Few calls look steady by chance, so they must be more so.
	maxOff, fewOff = 0.4, 0.15
	// minShare is the part of its time for which a beacon keeps up its interval,
	// at least. The rest is pauses: a machine is on for a third of the day.
	minShare = 0.1
	// minPeriod is in seconds, the resolution of times here: in a burst, all
	// pauses are one second.
	minPeriod = 2
	// wait is how long after the newest check-in a series is decided. Until
	// then the names of its handshakes and requests are logged.
	wait = int64(time.Minute)
	// memory is for how many seconds a pair that is silent is remembered.
	memory = 24 * 3600
	daily  = 24 * 3600
	// promote is the number of check-ins from which on a pair is followed in
	// full, and apart how many seconds lie between each two of them at least: the
	// connections that load a page are one.
	promote, apart = 3, 8
	// maxReply is the answer, in bytes, that no check-in has: most connections
	// of people bring more. One in bigSample of those is looked at all the same,
	// to tell who sends much besides.
	maxReply, bigSample = 32 << 10, 8
	// minPosts is how many posts to a place there must be before it counts that nothing else was asked.
	minPosts = 8

	// The bounds of the state, most of which fill three quarters of a power of
	// two: pairs 2 MB, series 9 MB at most, the others 1 MB each.
	maxHosts   = 48 << 10
	maxNames   = 16 << 10
	maxAsked   = 32 << 10
	maxPending = 4 << 10
	maxTold    = 16 << 10
	// maxUIDs is how many records one series names, the latest.
	maxUIDs = 16
)

// State is what is remembered of the network. Times are whole seconds of unix
// time. Keys are hashes: a pair that shares one with another hides it, which
// happens to one in 100,000.
type State struct {
	Pairs   Pairs                 // all that was called of late
	Series  Followed              // those of Pairs that come back
	Sources modules.Table[Source] // the hosts that call, for each kind of log
	Dests   modules.Table[Dest]   // the places called
	Hosts   [flow.NumKinds]uint32 // number of our hosts among Sources
	Names   modules.RecentTable[Name]
	Asked   modules.RecentTable[uint32] // the addresses that DNS gave names, by hash: when first, plus 1
	DNS     uint32                      // the first answer, plus 1; 0: none
	Pending map[uint64]Verdict          // by running number
	Next    uint64                      // running number of the next
	Told    modules.Recent[Subject, int]
	Dropped uint64 // series not decided because Pending was full
}

// Source is one host as it appears in one kind of log.
type Source struct {
	Ports, Before uint64 // set of the unusual ports it called today, and yesterday
	Steady        uint64 // set of the places it called today as beacons do that have a trait
	Day           uint32
	First         uint32 // when it was first seen, plus 1
	Ours          bool   // it is counted in Hosts
}

// Dest is a place as it appears in one kind of log.
type Dest struct {
	Hosts uint64 // set of our hosts that call it
	Last  uint32
}

// Name is what handshakes and requests of a pair say about the other side,
// from the second on. Its times are when something was first so, plus 1; 0: never.
type Name struct {
	Name  string // of the earliest that has one
	Named uint32
	Bare  uint32 // one came without a name
	Other uint32 // a request was no post
	Posts uint32 // minPosts requests were posts
	N     uint8  // posts, up to minPosts
}

// Series is a pair that comes back.
type Series struct {
	K        uint32 // of its Pair
	Src, Dst netip.Addr
	Name     string // of a series of calls to a name that has several addresses
	Other    bool   // requests, and not all of them posts
	Port     uint16
	Proto    flow.Proto
	Kind     flow.Kind
	Began    uint32
	N        uint32 // check-ins
	Events   []Event
	Score    float64  // when it was last judged; -1: not yet
	Again    uint32   // check-ins before which it is not judged again
	Big      uint32   // connections with a big answer, one in bigSample of them
	UIDs     []string // the latest, once it looks like a beacon
	Window   int64    // start of the window that InWindow counts, unix ns
	InWindow uint32   // check-ins
	Conns    int64    // connections in the window
	Minute   uint32   // the one that PerMin counts
	PerMin   uint32   // connections
	Run      uint32   // minutes on end with enough of them, up to Minute
	Strobe   int      // step reported in the window
}

// Verdict is a beacon that waits for its name.
type Verdict struct {
	Scores
	Src, Dst netip.Addr
	Name     string
	Port     uint16
	Proto    flow.Proto
	At       int64  // unix ns, of the newest check-in
	Calls    uint32 // all check-ins since the series began
	Began    uint32
	First    uint32 // when the source was first seen
	Kind     flow.Kind
	Step     int
	Callers  int // our hosts that call the place, and all of them; 0: not known
	Of       int
	Old      bool // it has been called for a week
	Swarm    bool // the source talks to many unusual ports
	Many     bool // the source calls many places as steadily
	Asked    bool // DNS named the address
	Unnamed  bool // it never did, though its answers are logged
	Loose    bool // slow, and of few check-ins that are off by much
	Posts    bool // requests, and all of them posts
	Sure     bool // two points or more
	UIDs     []string
}

// Subject is what is told once.
type Subject struct {
	Src    netip.Addr
	What   string
	Window int64 // start, unix ns
}

type rule struct {
	min    int
	score  float64
	strobe uint32
	log    *slog.Logger
}

var (
	_ modules.Rule[State]       = rule{}
	_ modules.Chooser           = rule{}
	_ modules.TimerFirer[State] = rule{}
)

// New checks the config and returns the rule.
func New(c Config, env modules.Env) (modules.Rule[State], error) {
	if c.MinCheckIns < 6 || c.MinCheckIns > maxEvents {
		return nil, fmt.Errorf("min_check_ins: %d is not between 6 and %d", c.MinCheckIns, maxEvents)
	}
	if !(c.MinScore >= 0.5 && c.MinScore <= 1) { // not a number is refused too
		return nil, fmt.Errorf("min_score: %v is not between 0.5 and 1", c.MinScore)
	}
	if c.StrobePerMinute < 10 || c.StrobePerMinute > 100_000 {
		return nil, fmt.Errorf("strobe_per_minute: %d is not between 10 and 100000", c.StrobePerMinute)
	}
	return rule{min: c.MinCheckIns, score: c.MinScore, strobe: uint32(c.StrobePerMinute), log: env.Log}, nil
}

// Wants implements modules.Chooser. What stays inside the network is not
// looked at, also where its addresses are public: domain members, printers and
// storage are polled all day. Neither
// are name and time servers, the shares of Windows that only worms look for on
// the Internet, pieces of connections that began before, and what is too big.
func (rule) Wants(f *flow.Flow) bool {
	if f.Kind == flow.DNS {
		return len(f.DNS.Answers) > 0
	}
	switch f.DstPort {
	case 0, 53, 67, 68, 123, 135, 137, 138, 139, 445, 1900, 5353, 5355:
		return false
	}
	switch f.Kind {
	case flow.Conn:
		if f.Open || f.Proto != flow.TCP && f.Proto != flow.UDP || f.RespBytes > maxReply && !sampled(f) ||
			f.RawState == "OTH" && f.Sensor == flow.Zeek || f.OrigPkts == 0 && f.OrigBytes == 0 && f.RespPkts > 0 {
			return false
		}
	case flow.HTTP:
		if f.HTTP.TransDepth > 1 { // the connection is no new one
			return false
		}
	default: // of handshakes, all
	}
	return f.Src.IsValid() && profile.IsPublic(f.Dst) && !neighbours(f.Src, f.Dst)
}

// neighbours reports whether two addresses are of one site: networks of the
// size that sites are given, /16 and for IPv6 /48.
func neighbours(a, b netip.Addr) bool {
	if a.Is4() && b.Is4() {
		x, y := a.As4(), b.As4()
		return x[0] == y[0] && x[1] == y[1]
	}
	if a.Is4() || b.Is4() {
		return false
	}
	x, y := a.As16(), b.As16()
	return [6]byte(x[:6]) == [6]byte(y[:6])
}

// sampled picks one in bigSample of connections by when they began.
func sampled(f *flow.Flow) bool {
	return hash32(uint64(f.Time/1000)<<16|uint64(f.SrcPort))%bigSample == 0
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	e := Event{T: sec(f.Time)}
	switch f.Kind {
	case flow.DNS:
		st.asked(f)
	case flow.Conn:
		k := hashAddrs(f.Src, f.Dst, f.DstPort, f.Proto)
		if f.RespBytes > maxReply {
			if s := st.followed(st.Pairs.get(k), k); s != nil {
				s.Big++
			}
			return
		}
		e.Sent, e.Got = clip(f.OrigIPBytes), clip(max(f.RespIPBytes, f.RespBytes))
		if e.Sent == 0 {
			e.Sent = clip(f.OrigBytes)
		}
		// Sensors other than Zeek count the headers of a reset, too.
		e.Failed = f.State == flow.NotEstablished && f.RawState != "" && (f.RespBytes == 0 || f.Sensor != flow.Zeek && f.Proto == flow.TCP)
		p, known := st.Pairs.find(k, e.T)
		if !known && !usual(f.DstPort) {
			src := st.source(f, e.T)
			src.Ports |= 1 << (hash32(uint64(f.DstPort)+1) >> 26)
		}
		if p.again(e.T, f.SrcPort) {
			r.visit(cx, st, f, p, k, "", e)
		}
		if !e.Failed {
			p.Flags |= answered
		}
	case flow.SSL, flow.QUIC:
		r.speak(cx, st, f, f.SSL.ServerName, false, e)
	case flow.HTTP:
		h := f.HTTP
		e.Sent = clip(int64(len(h.Method)+len(h.Host)+len(h.URI)+len(h.UserAgent)) + max(h.RequestLen, 0))
		e.Got = clip(h.ResponseLen)
		r.speak(cx, st, f, h.Host, h.Method != "POST", e)
	default: // not asked for
	}
}

// speak counts a handshake or request that gives the other side as host.
// other says that it is a request and no post.
func (r rule) speak(cx *modules.Context, st *State, f *flow.Flow, host string, other bool, e Event) {
	name := trimPort(host)
	var k uint32
	if bare := name == "" || isAddr(name); !bare {
		k = hashName(f, name)
	} else if relay(f.DstPort) {
		return
	} else {
		name, k = "", hashAddrs(f.Src, f.Dst, f.DstPort, 0) // these logs do not all give the protocol
	}
	p, _ := st.Pairs.find(k, e.T)
	again := p.again(e.T, f.SrcPort)
	if other {
		p.Flags |= asked
	}
	if name != "" {
		p.to(f.Dst)
	}
	if !again {
		return
	}
	switch {
	case p.N != promote-1 && name != "" || p.Flags&several != 0:
		r.visit(cx, st, f, p, k, name, e)
	case p.N == promote-1: // the series of the address tells all of it
		p.Flags |= more
	default:
		p.call(e.T)
	}
	if p.N >= promote-1 {
		st.note(f, name, p.Flags&asked != 0)
	}
}

// asked notes the addresses in an answer of DNS, whoever asked.
func (st *State) asked(f *flow.Flow) {
	at := sec(f.Time) + 1
	for _, s := range f.DNS.Answers {
		if a, err := netip.ParseAddr(s); err == nil && profile.IsPublic(a) {
			if t := st.Asked.Put(hash32(hashAddr(6, a)), maxAsked); *t == 0 || at < *t {
				*t = at
			}
			if st.DNS == 0 || at < st.DNS {
				st.DNS = at
			}
		}
	}
}

// note keeps what a handshake or request says about the other side.
func (st *State) note(f *flow.Flow, name string, other bool) {
	at := sec(f.Time) + 1
	n := st.Names.Put(hashAddrs(f.Src, f.Dst, f.DstPort, 0), maxNames)
	first := func(t *uint32) {
		if *t == 0 || at < *t {
			*t = at
		}
	}
	if name == "" {
		first(&n.Bare)
	} else if n.Named == 0 || at < n.Named || at == n.Named && name < n.Name {
		n.Name, n.Named = lower(name), at
	}
	switch {
	case f.Kind != flow.HTTP:
	case other:
		first(&n.Other)
	case n.N < minPosts:
		if n.N++; n.N == minPosts {
			n.Posts = at
		}
	}
}

// visit counts a call by a new connection of the pair p, whose key is k.
func (r rule) visit(cx *modules.Context, st *State, f *flow.Flow, p *Pair, k uint32, name string, e Event) {
	if p.N < promote {
		before, enough := p.call(e.T)
		if !enough {
			return
		}
		st.follow(cx, f, k, p, name, before)
	}
	s := st.followed(p, k)
	if s == nil { // it had to make room
		*p = Pair{K: p.K, Last: e.T, N: 1, Ports: p.Ports, Flags: p.Flags &^ more}
		return
	}
	p.Last = max(p.Last, e.T)
	s.Other = p.Flags&asked != 0
	r.checkIn(cx, st, s, f, name, e)
}

// followed returns the series of a pair, nil when it has none.
func (st *State) followed(p *Pair, k uint32) *Series {
	if p == nil || p.N < promote {
		return nil
	}
	if s := &st.Series.All[p.Gap]; s.K == k {
		return s
	}
	return nil
}

// source returns what is known of the source of f.
func (st *State) source(f *flow.Flow, t uint32) *Source {
	s := st.Sources.PutLargest(hash32(hashAddr(uint64(f.Kind), f.Src)), maxHosts, func(s *Source) int64 {
		if s.Ours {
			return int64(s.Day) + 1<<32 // or it would be counted twice
		}
		return int64(s.Day)
	})
	if s.First == 0 || t < s.First {
		s.First = t + 1
	}
	if day := t / daily; day > s.Day {
		s.Ports, s.Before, s.Steady = 0, s.Ports, 0
		if day > s.Day+1 {
			s.Before = 0
		}
		s.Day = day
	}
	return s
}

// follow begins the series of a pair, with the check-ins before if these are
// all there were, and counts it for its source and its destination.
func (st *State) follow(cx *modules.Context, f *flow.Flow, k uint32, p *Pair, name string, before [promote - 1]uint32) {
	place := st.Series.place()
	s := &st.Series.All[place]
	*s = Series{
		K: k, Src: f.Src, Dst: f.Dst, Name: lower(name), Port: f.DstPort, Proto: proto(f), Kind: f.Kind,
		Began: before[0], Score: -1, Events: s.Events[:0], Window: cx.Window().Start,
	}
	src := st.source(f, before[0])
	if profile.IsPrivate(f.Src) || cx.Network().IsHome(f.Src) {
		if !src.Ours {
			src.Ours = true
			st.Hosts[f.Kind]++
		}
		d := st.Dests.PutLargest(whereTo(f.Kind, f.Dst, f.DstPort, name), maxHosts, func(d *Dest) int64 { return int64(d.Last) })
		d.Hosts |= 1 << (hash32(hashAddr(0, f.Src)) >> 26)
		d.Last = max(d.Last, before[1])
	}
	for _, t := range before {
		if p.Flags&more != 0 {
			break
		}
		s.Events, _ = add(s.Events, Event{T: t, Failed: f.Kind == flow.Conn && p.Flags&answered == 0})
		s.N++
		if t >= sec(s.Window) {
			s.InWindow++
		}
	}
	p.N, p.Gap = promote, uint16(place)
}

// checkIn adds a call to a series, and judges it when it is time to.
func (r rule) checkIn(cx *modules.Context, st *State, s *Series, f *flow.Flow, name string, e Event) {
	if s.Src != f.Src || s.Port != f.DstPort || s.Kind != f.Kind || name == "" && s.Dst != f.Dst || !strings.EqualFold(name, s.Name) {
		return // another pair of the same hash
	}
	if w := cx.Window(); w.Start > s.Window {
		s.Window, s.InWindow, s.Conns, s.Strobe = w.Start, 0, 0, 0
	}
	if f.Kind == flow.Conn {
		r.strobes(cx, s, f, e.T)
	}
	var own bool
	if s.Events, own = add(s.Events, e); !own {
		return
	}
	s.N++
	s.InWindow++
	if s.Score >= r.score && f.UID != "" {
		if len(s.UIDs) >= maxUIDs {
			s.UIDs = append(s.UIDs[:0], s.UIDs[1:]...)
		}
		s.UIDs = append(s.UIDs, strings.Clone(f.UID))
	}
	if n, w := int(s.N), int(s.InWindow); n < r.min || !(n == r.min || n == 2*r.min || w == 1 || w >= r.min && w&(w-1) == 0) ||
		s.N < s.Again {
		return
	}
	v := judge(s.Events)
	s.Score = v.Total
	off := maxOff
	loose := false
	if int(s.N) < 2*r.min {
		off = fewOff
		if loose = v.Jitter > fewOff && v.Jitter <= someJitter && v.Period >= slow && v.Span >= hours; loose {
			off = someJitter
		}
	}
	if v.Time < minTime || v.Jitter > off || v.Period < minPeriod || float64(v.Span)*minShare > v.Period*float64(v.N-1) {
		s.Score = 0
	}
	if s.Score < r.score {
		s.UIDs = nil
		// Little changes before the half of what is judged does, but that takes
		// slow ones hours.
		if int(s.N) > 2*r.min && (v.Period < slow || s.Proto != flow.TCP) {
			s.Again = s.N + min(s.N, maxEvents)/2
		}
		return
	}
	r.await(cx, st, s, f, v, loose)
}

// await keeps a beacon until the logs that may name it have come.
func (r rule) await(cx *modules.Context, st *State, s *Series, f *flow.Flow, v Scores, loose bool) {
	if len(st.Pending) >= maxPending {
		if st.Dropped++; st.Dropped&(st.Dropped-1) == 0 {
			r.log.Warn("too many beacons at a time", "not_reported", st.Dropped)
		}
		return
	}
	if s.UIDs == nil && f.UID != "" {
		s.UIDs = []string{strings.Clone(f.UID)}
	}
	x := Verdict{
		Scores: v, Src: s.Src, Dst: s.Dst, Name: s.Name, Port: s.Port, Proto: s.Proto, At: f.Time, Calls: s.N,
		Began: s.Began, First: s.Began, Kind: s.Kind,
		Step: 1 + 2*modules.Step(int64(s.InWindow), int64(r.min)), UIDs: slices.Clone(s.UIDs),
		Old: s.Events[len(s.Events)-1].T-s.Began > 7*daily, Posts: s.Kind == flow.HTTP && !s.Other, Loose: loose,
	}
	if s.Big > 1 && 2*bigSample*s.Big > s.N { // other answers are big
		x.Small = false
	}
	if int(s.N) >= 2*r.min {
		x.Step++
	}
	if src := st.Sources.Get(hash32(hashAddr(uint64(s.Kind), s.Src))); src != nil {
		x.Swarm = bits.OnesCount64(src.Ports|src.Before) >= swarmPorts
		x.First = min(x.First, src.First-1)
	}
	if d := st.Dests.Get(whereTo(s.Kind, s.Dst, s.Port, s.Name)); d != nil {
		x.Callers, x.Of = distinct(d.Hosts), int(st.Hosts[s.Kind])
	}
	if st.Pending == nil {
		st.Pending = make(map[uint64]Verdict)
	}
	st.Pending[st.Next] = x
	cx.After(time.Duration(max(f.Time-cx.Now(), 0)+wait), st.Next)
	st.Next++
}

// Fire implements modules.TimerFirer.
func (r rule) Fire(cx *modules.Context, st *State, key uint64) {
	v, ok := st.Pending[key]
	if !ok {
		return
	}
	delete(st.Pending, key)
	bare := false
	if v.Name == "" {
		// Only what was said by the time of the check-in counts, for the other
		// log may be ahead of it by any amount.
		if n := st.Names.Get(hashAddrs(v.Src, v.Dst, v.Port, 0)); n != nil {
			by := sec(v.At) + 1
			if n.Named != 0 && n.Named <= by {
				v.Name = n.Name
			} else {
				bare = n.Bare != 0 && n.Bare <= by
			}
			v.Posts = n.Posts != 0 && n.Posts <= by && (n.Other == 0 || n.Other > by)
		}
	}
	if v.Loose && !bare && (usual(v.Port) || v.Proto != flow.TCP) {
		return
	}
	if st.DNS != 0 {
		by := sec(v.At) + 1
		at := st.Asked.Get(hash32(hashAddr(6, v.Dst)))
		v.Asked = at != nil && *at <= by
		v.Unnamed = !v.Asked && v.Name == "" && st.DNS+settled < v.Began
	}
	what := v.Name
	if what == "" {
		what = v.Dst.String()
	}
	what = fmt.Sprintf("%s|%d|%s", what, v.Port, v.Proto)
	level, confidence, why := weigh(&v, bare, r.min)
	if src := st.Sources.Get(hash32(hashAddr(uint64(v.Kind), v.Src))); src != nil {
		if level != evidence.Low {
			src.Steady |= 1 << (hash32(hashText(7, what)) >> 26)
		}
		if v.Many = distinct(src.Steady) > manySteady; v.Many {
			level, confidence, why = weigh(&v, bare, r.min)
		}
	}
	if level == evidence.Low {
		if v.Total < plainScore || v.Swarm || v.Many {
			return
		}
	}
	if !v.Sure {
		v.Step = 1 // said once is enough
	}
	// Two series may have one name, so a worse one must be of a higher step.
	step := v.Step<<2 | int(level&3)
	told := Subject{Src: v.Src, What: what, Window: cx.WindowAt(v.At).Start}
	if last, _ := st.Told.Get(told); step <= last {
		return
	}
	st.Told.Put(told, step, maxTold)
	cx.Emit(evidence.Evidence{
		Type: Beacon, Profile: v.Src, Time: v.At, Level: level, Confidence: confidence,
		Attacker: evidence.IPEntity(v.Src, evidence.Src, 0), Victim: evidence.IPEntity(v.Dst, evidence.Dst, v.Port),
		Description: describe(&v, why), Proto: v.Proto.String(), DstPort: v.Port, UIDs: v.UIDs, Count: int64(v.Calls),
		Subject: what, Step: step,
	})
}

const (
	// swarmPorts is how many unusual ports a host calls in two days that shares
	// files, and whose peers are therefore all unusual.
	swarmPorts = 8
	// nobody is the share of failed check-ins from which nobody is there.
	nobody = 0.75
	// gone is for how many seconds nobody must be there: a network that fails
	// comes back.
	gone = 300
	// The ways in which the popularity of a place counts, as with RITA.
	minHosts, manyHosts = 4, 50
	// modifier is what age and popularity change the confidence by, as with
	// RITA, and perTrait what each point of weight does.
	modifier, perTrait = 0.15, 0.2
	// someJitter is that of a beacon that is off by up to half of its interval.
	someJitter = 0.3
	// plain and short bound the confidence in a beacon without any trait, so
	// that however many of them never amount to a tactic, and in one of few check-ins.
	plain, short = 0.4, 0.6
	// shortBare is that in one of few that are steady and give no name.
	shortBare = 0.8
	// half bounds the confidence in a medium one, and rise is what that is worth
	// of a high one: between one point and two it goes from the one to the other.
	half, rise = 0.5, 0.625
	// evenly makes a confidence in a low one that in a medium one of the same worth.
	evenly = 0.4
	// settled is how many seconds after the first that is seen, of a host or of
	// DNS, are its beginning still: nobody knows what was before. habitual is how
	// many after that are long enough to tell habits, and habitualAlone those of
	// a host that calls what is gone: bots do that for days, and services that
	// were closed are called for good.
	settled                 = 600
	habitual, habitualAlone = 4 * 3600, 12 * 3600
	// manySteady is above how many beacons with a trait a host watches others.
	manySteady = 8
	// soon is the period, in seconds, up to which the same few bytes are no
	// keep-alive: routers keep what is silent for longer than that.
	soon = 10
	// sooner is that up to which it makes no difference that DNS names the other side.
	sooner = 5
	// postPeriod is the period, in seconds, up to which posts alone count:
	// programs that guard a computer post to their makers, but less often.
	postPeriod = 600
	// quick is the period, in seconds, up to which the same few bytes are a point.
	// There is none from lull on, or from unusualLull at unusual ports.
	quick, lull, unusualLull = 60, 120, 300
	// slow is the period, in seconds, from which a series is judged by few
	// check-ins that are off by much, once they have gone on for hours.
	slow, hours = 300, 5400
	// slowest is the period, in seconds, up to which the same few bytes for hours
	// at an unusual port are half a point. Programs that share files ask where
	// others are every half an hour.
	slowest = 1200
	// plainScore is the score that a beacon without any trait must have.
	plainScore = 0.9
)

// weigh says how bad a beacon is, by what benign ones do not do.
func weigh(v *Verdict, bare bool, minimum int) (evidence.Level, float64, []string) {
	weight := 0.0
	var why []string
	trait := func(w float64, text string) { weight, why = weight+w, append(why, text) }
	confidence := severity(v.Total)
	// What nobody answers at a usual port is told by others, and mostly a
	// service that is gone. Much of UDP expects no answer.
	alone := v.Failed >= nobody && v.Proto == flow.TCP && v.Span >= gone && !usual(v.Port)
	known := v.Proto == flow.TCP && remote(v.Port)
	switch {
	case bare:
		trait(2, "without the name of a server")
	case v.Swarm, v.Many:
	case alone:
		trait(1, fmt.Sprintf("%.0f %% unanswered", 100*v.Failed))
	}
	switch {
	case v.Swarm:
		why = append(why, "the host calls many unusual ports")
	case v.Many:
		why = append(why, "the host calls many places like that")
	default:
		if !usual(v.Port) && v.Proto == flow.TCP {
			trait(1, "an unusual port")
		} else if !usual(v.Port) { // things and calls keep holes in routers open
			trait(0.5, "an unusual port")
		}
		if known {
			trait(0.5, "where remote control malware listens by default")
		}
		if v.Failed <= 1-nobody && v.Proto == flow.TCP {
			sameBytes(v, minimum, trait)
		}
		if v.Unnamed && v.Proto == flow.TCP && (bare || !usual(v.Port)) {
			trait(0.5, "an address that DNS never named")
		}
	}
	most := 1.0
	if v.Posts && !v.Swarm && !v.Many && v.Period <= postPeriod && int(v.Calls) >= 2*minimum {
		if why = append(why, "posts and nothing else"); weight == 0 {
			weight, most = 1, plain
		}
	}
	// What somebody asked DNS for and got an answer from has an owner who does
	// not hide: the things at home are like that.
	if limit := 1.0; (v.Name != "" || v.Asked) && !bare && !alone && !known {
		if v.Period <= soon { // who wants news that fast keeps a connection up
			limit += (soon - v.Period) / (soon - sooner)
			if !usual(v.Port) {
				limit++
			}
		}
		weight = min(weight, limit)
	}
	if age := v.Began - min(v.First, v.Began); age <= settled {
		// What a host has done since it is there, for hours, is what it is for.
		habit := sec(v.At) - min(v.Began, sec(v.At))
		if weight > 1 && v.Calls >= maxEvents && (habit >= habitual && !alone || habit >= habitualAlone) {
			weight = 1
			why = append(why, "since the host was first seen")
		}
	}
	if v.Of >= minHosts {
		text := fmt.Sprintf("called by %d of %d hosts", v.Callers, v.Of)
		switch {
		case 2*v.Callers >= v.Of:
			trait(-1, text)
			confidence -= modifier
		case v.Of >= manyHosts && 50*v.Callers <= v.Of:
			confidence += modifier
			fallthrough
		default:
			why = append(why, text)
		}
	}
	if v.Many {
		weight--
	}
	if v.Old {
		confidence -= modifier
		why = append(why, "called for a week")
	}
	if int(v.Calls) < 2*minimum {
		if bare && v.Jitter <= maxJitter {
			most = min(most, shortBare)
		} else {
			most = min(most, short)
		}
	}
	confidence = max(0, min(most, confidence+perTrait*weight))
	v.Sure = weight >= 2
	level, medium := evidence.High, min(half, confidence)
	switch {
	case weight < 0.2: // what is left would be less than that
		level, confidence = evidence.Low, min(confidence, plain)
	case weight <= 1:
		level, confidence = evidence.Medium, max(medium*weight, evenly*min(confidence, plain))
	case weight < 2:
		confidence = rise*medium + (confidence-rise*medium)*(weight-1)
	}
	return level, math.Round(100*confidence) / 100, why
}

// sameBytes gives points for check-ins by TCP in which no more is said than
// that all is well.
func sameBytes(v *Verdict, minimum int, trait func(float64, string)) {
	odd := !usual(v.Port)
	few, n := v.Small || odd && v.Tiny, int(v.Calls)
	end := float64(lull)
	if odd {
		end = unusualLull
	}
	// From quick on, the slower the less.
	part := min(1, math.Round(100*(end-v.Period)/(end-quick))/100)
	if odd && !v.Tiny {
		part *= 0.5 // reports of things and programs are of that size
	}
	if odd && v.Small && v.Name == "" && v.Period <= slowest && v.Span >= hours {
		part = max(part, 0.5)
	}
	switch {
	case !few:
	case v.Small && v.Period <= soon && v.Jitter <= maxJitter && n >= 4*minimum:
		trait(2, "the same few bytes each time, and soon again")
	case part > 0 && v.Jitter <= someJitter && n >= 2*minimum:
		trait(part, "the same few bytes each time")
	}
	if odd && v.Tiny && v.Period > soon && v.Period <= postPeriod && v.Jitter <= maxJitter && n >= 4*minimum {
		trait(1, "like clockwork")
	}
}

func describe(v *Verdict, why []string) string {
	name, size := "", "unknown"
	if v.Name != "" {
		name = fmt.Sprintf(" (%q)", v.Name)
	}
	if v.Size >= 0 {
		size = strconv.FormatFloat(v.Size, 'f', 2, 64)
	}
	more := ""
	if len(why) > 0 {
		more = "; " + strings.Join(why, ", ")
	}
	return fmt.Sprintf("%s called %s port %d/%s%s every %s, half of the pauses within %.0f %% of it: %d check-ins, the last %d in %s, "+
		"score %.2f (times %.2f, sizes %s, histogram %.2f, duration %.2f)%s.",
		v.Src, v.Dst, v.Port, v.Proto, name, seconds(v.Period), 100*v.Jitter, v.Calls, v.N, seconds(float64(v.Span)),
		v.Total, v.Time, size, v.Hist, v.Duration, more)
}

// seconds writes a duration so that it is read at a glance.
func seconds(s float64) string {
	return time.Duration(math.Round(s) * float64(time.Second)).String()
}

const (
	// sustained is for how many minutes on end a strobe must go on: no page,
	// however many parts it has, loads for so long.
	sustained = 10
	hour      = 60 // minutes
)

// strobes counts a connection and reports when there are too many of them.
func (r rule) strobes(cx *modules.Context, s *Series, f *flow.Flow, t uint32) {
	s.Conns++
	if m := t / 60; m > s.Minute {
		if s.PerMin >= r.strobe && m == s.Minute+1 {
			s.Run++
		} else {
			s.Run = 0
		}
		s.Minute, s.PerMin = m, 0
	}
	s.PerMin++
	many := int64(r.strobe) * hour
	if s.Conns < many && (s.Run < sustained || s.Conns < sustained*int64(r.strobe)) {
		return
	}
	step := 1 + modules.Step(s.Conns, many)
	if step <= s.Strobe {
		return
	}
	s.Strobe = step
	confidence := 0.5
	if !usual(f.DstPort) {
		confidence = 0.8
	}
	e := evidence.Evidence{
		Type: Strobe, Profile: f.Src, Level: evidence.Medium, Confidence: confidence,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Victim: evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
		Description: fmt.Sprintf("%s made %d connections to %s port %d/%s in this window, %d minutes on end at least %d in each.",
			f.Src, s.Conns, f.Dst, f.DstPort, f.Proto, s.Run, r.strobe),
		Proto: f.Proto.String(), DstPort: f.DstPort, Count: s.Conns,
		Subject: fmt.Sprintf("%s|%d|%s", f.Dst, f.DstPort, f.Proto), Step: step,
	}
	e.UIDs = modules.UID(f.UID)
	cx.Emit(e)
}

// usual reports whether honest programs call hosts on the Internet on the
// port: services with a name that are offered to the public.
func usual(port uint16) bool {
	switch port {
	case 21, 22, 25, 43, 80, 110, 119, 143, 194, 389, 443, 465, 554, 563, 587, 636, 853, 873, 989, 990, 993, 995, // IANA
		500, 1194, 1701, 1723, 4500, 51820, // VPN
		1863, 1883, 5222, 5223, 5228, 5229, 5230, 5269, 8883, // messages and push
		3478, 3479, 3480, 3481, 5060, 5061, 5349, 19302, 19305, 19307, 19309, // calls
		1935, 3128, 8000, 8008, 8080, 8443, 2053, 2083, 2087, 2096, // the web by other doors
		3389, 5938, 7070, 9418, 11371, 22000:
		return true
	}
	return false
}

// remote reports whether malware for remote control listens on the TCP port
// unless its owner says otherwise, by what has been published about it:
// njRAT, DarkComet, Remcos, NetWire, Poison Ivy, Metasploit, VenomRAT, Quasar,
// AsyncRAT, DCRat, Orcus, NanoCore.
func remote(port uint16) bool {
	switch port {
	case 1177, 5552, 1604, 2404, 3360, 3460, 4444, 4449, 4782, 6606, 7707, 8808, 8848, 10134, 54984:
		return true
	}
	return false
}

// relay reports whether servers talk to each other on the port, and do not
// name whom they call.
func relay(port uint16) bool {
	switch port {
	case 25, 465, 587, 110, 143, 993, 995, 853, 21, 990, 5269:
		return true
	}
	return false
}

// trimPort returns a host name without port and final dot.
func trimPort(host string) string {
	if i := strings.IndexByte(host, ':'); i >= 0 && strings.IndexByte(host[i+1:], ':') < 0 {
		host = host[:i]
	}
	return strings.TrimSuffix(host, ".")
}

// isAddr reports whether a host is given by its address. A name ends in a
// letter.
func isAddr(host string) bool {
	if strings.IndexByte(host, ':') >= 0 {
		return true
	}
	for i := range len(host) {
		if c := host[i]; (c < '0' || c > '9') && c != '.' {
			return false
		}
	}
	return true
}

// distinct estimates how many hosts are in a set of 64 bits (linear counting).
// It is within a quarter up to 100 hosts, and means "as many" above 180.
func distinct(set uint64) int {
	free := 64 - bits.OnesCount64(set)
	return int(math.Round(64 * math.Log(64/max(float64(free), 1))))
}

// sec returns whole seconds; flow.MaxTime keeps them within 32 bits.
func sec(ns int64) uint32 { return uint32(min(max(ns/int64(time.Second), 0), 1<<32-2)) }

// lower returns a copy of s in lower case; strings.ToLower returns s itself
// when it is so already.
func lower(s string) string { return strings.Clone(strings.ToLower(s)) }

func clip(n int64) uint32 { return uint32(min(max(n, 0), math.MaxUint32)) }

func mix(h, v uint64) uint64 {
	h = (h ^ v) * 0x9e3779b97f4a7c15
	return h ^ h>>29
}

func hash32(h uint64) uint32 { return uint32(mix(h, 0x2545f4914f6cdd1d) >> 32) }

func hashAddr(h uint64, a netip.Addr) uint64 {
	if a.Is4() {
		b := a.As4()
		return mix(h, uint64(binary.BigEndian.Uint32(b[:])))
	}
	b := a.As16()
	return mix(mix(h, binary.BigEndian.Uint64(b[:8])), binary.BigEndian.Uint64(b[8:]))
}

func hashAddrs(src, dst netip.Addr, port uint16, proto flow.Proto) uint32 {
	return hash32(mix(hashAddr(hashAddr(1, src), dst), uint64(port)<<8|uint64(proto)))
}

// proto returns the transport of a record: not all logs give it.
func proto(f *flow.Flow) flow.Proto {
	switch f.Kind {
	case flow.QUIC:
		return flow.UDP
	case flow.SSL, flow.HTTP:
		return flow.TCP
	default:
		return f.Proto
	}
}

// hashText hashes a name, eight bytes at a time. Letters hash as small ones,
// and so do a few other bytes that no two names differ in.
func hashText(h uint64, s string) uint64 {
	const small = 0x2020202020202020
	n := uint64(len(s))
	for ; len(s) >= 8; s = s[8:] {
		h = mix(h, small|uint64(s[0])|uint64(s[1])<<8|uint64(s[2])<<16|uint64(s[3])<<24|
			uint64(s[4])<<32|uint64(s[5])<<40|uint64(s[6])<<48|uint64(s[7])<<56)
	}
	var rest uint64
	for i := range len(s) {
		rest = rest<<8 | uint64(s[i])
	}
	return mix(mix(h, small|rest), n)
}

func hashName(f *flow.Flow, name string) uint32 {
	return hash32(mix(hashText(hashAddr(2, f.Src), name), uint64(f.DstPort)<<8|uint64(f.Kind)))
}

// whereTo is the key of a destination.
func whereTo(k flow.Kind, dst netip.Addr, port uint16, name string) uint32 {
	if name == "" {
		return hash32(mix(hashAddr(3, dst), uint64(port)))
	}
	return hash32(mix(hashText(4, name), uint64(port)<<8|uint64(k)))
}
