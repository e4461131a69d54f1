// Package dnsnoconn reports names that a host resolved without then
// connecting to any of the answers.
package dnsnoconn

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// WithoutConnection is the evidence this module emits.
const WithoutConnection evidence.Type = "DNS_WITHOUT_CONNECTION"

// Config holds the settings.
type Config struct {
	// Wait is how long a connection may come after the answer, 1 s to 24 h.
	Wait time.Duration `yaml:"wait"`
	// MaxPerWindow bounds the names reported for one host in a window, 1 to 10000.
	MaxPerWindow int `yaml:"max_per_window"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "dnsnoconn",
	Doc:   "names resolved without a connection to the answers",
	Scope: modules.PerProfile,
	Kinds: flow.Of(flow.DNS, flow.Conn),
	Needs: flow.Of(flow.Conn, flow.DNS),
	Emits: []evidence.Spec{{
		Type: WithoutConnection, Level: evidence.Info, Tactic: evidence.Context, MITRE: []string{"T1071.004"}, Subject: "name", Over: "30 min",
		Doc: "a host resolved a name and connected to none of its addresses",
	}},
}, Config{Wait: 30 * time.Minute, MaxPerWindow: 50}, New)

const (
	// before is how long before the answer a connection may have ended and
	// still count, in seconds: programs ask again for names they are using.
	before = 3600
	// maxContacts and maxNames bound what is remembered of one host. Who talks
	// to more addresses in a few hours is a scanner, and no evidence of this
	// module would say more about it.
	maxContacts = 2048
	maxNames    = 1024
	// maxPending bounds the names that wait for a connection to them.
	maxPending = 256
	// maxAddrs bounds the addresses that one name may wait for.
	maxAddrs = 32
	// maxName bounds a name, in bytes; DNS has none that are longer.
	maxName = 255
	// giveUp is how much longer a name that waited for the first connection
	// record of the host waits for the others.
	giveUp = int64(time.Hour)
)

// State is what the module remembers of one profile. Times are whole seconds
// of unix time, addresses and names are hashes, because every host that
// resolves names has such a state.
//
// What every connection needs comes first, so that it lies close together.
type State struct {
	SawConn  bool
	AgedC    int64                      // when Contacts last aged
	Contacts modules.RecentTable[Span]  // public addresses connected to
	Earlier  *modules.RecentTable[Span] // what came before the span in Contacts; nil: nothing
	FirstRec int64                      // start of the first connection record, unix ns
	*Lookups                            // nil until a name was resolved
}

// Lookups are the names that a host resolved. The hosts of the Internet, which
// only connect, have none.
type Lookups struct {
	Pending []Query                     // in the order in which they came
	Names   modules.RecentTable[Round]  // names resolved
	AgedN   int64                       // when Names last aged
	Reports int                         // names reported in Window
	Window  int64                       // start
	Told    modules.RecentTable[uint32] // window in which a name was reported last
	Dropped uint64                      // names not judged because Pending was full
}

// Span covers the connections to an address that lie near enough to each
// other to make no difference. To is 0 when there was none. What came before
// is kept for look-ups that are logged late, as one: a look-up far back, in a
// gap between connections, is rather not reported than reported wrongly.
type Span struct{ From, To uint32 }

// contact notes a connection. Those no more than gap seconds apart are together.
func (st *State) contact(key, from, to uint32, gap uint64) {
	s := st.Contacts.Put(key, maxContacts)
	switch {
	case s.To == 0:
		*s = Span{from, to}
	case uint64(from) > uint64(s.To)+gap:
		st.earlier(key, *s)
		*s = Span{from, to}
	case uint64(to)+gap >= uint64(s.From):
		*s = Span{min(s.From, from), max(s.To, to)}
	default:
		st.earlier(key, Span{from, to})
	}
	if st.Earlier == nil {
		return
	}
	if e := st.Earlier.Get(key); e != nil && e.To != 0 && uint64(e.To)+gap >= uint64(s.From) {
		s.From = min(s.From, e.From)
		*e = Span{}
	}
}

func (st *State) earlier(key uint32, s Span) {
	if st.Earlier == nil {
		st.Earlier = new(modules.RecentTable[Span])
	}
	e := st.Earlier.Put(key, maxContacts)
	if e.To == 0 {
		*e = s
	}
	*e = Span{min(e.From, s.From), max(e.To, s.To)}
}

// Round is one name: from its first look-up in a window on until Until all
// answers count together. Windows are given by their start plus 1; 0: none.
type Round struct {
	Until  uint32
	Window uint32    // of the first look-up
	Addrs  [4]uint32 // the latest addresses, the newest first; 0: none
}

// Query is a name that waits for a connection.
type Query struct {
	Time  int64  // of the look-up, unix ns
	Text  []byte // name and uid; bytes, so that the next one takes the place
	Addrs []uint32
	Hash  uint32 // of the name
	Name  uint16 // length of the name in Text
	Port  uint16
	Proto flow.Proto
	Held  bool // it waited for the first connection record
}

type rule struct {
	wait int64 // ns
	step int64 // ns, between the times at which names are judged
	max  int
	// keep is the age, in seconds, at which contacts and names may be
	// forgotten: the time before and after an answer that matters, and the
	// same again for logs that are not in step.
	keep int64
	log  *slog.Logger
}

var (
	_ modules.Rule[State]       = rule{}
	_ modules.TimerFirer[State] = rule{}
	_ modules.Chooser           = rule{}
)

// New checks the config and returns the rule.
func New(c Config, env modules.Env) (modules.Rule[State], error) {
	if c.Wait < time.Second || c.Wait > 24*time.Hour {
		return nil, fmt.Errorf("wait: %v is not between 1s and 24h", c.Wait)
	}
	if c.MaxPerWindow < 1 || c.MaxPerWindow > 10_000 {
		return nil, fmt.Errorf("max_per_window: %d is not between 1 and 10000", c.MaxPerWindow)
	}
	return rule{
		wait: int64(c.Wait), step: int64(c.Wait) / 4, max: c.MaxPerWindow, keep: 2 * (before + int64(c.Wait/time.Second)), log: env.Log,
	}, nil
}

// Wants implements modules.Chooser. Of the connections that go to no public
// address only those to a resolver count: every host that resolves names has
// them, and they show that its connections are seen.
func (rule) Wants(f *flow.Flow) bool {
	if f.Kind == flow.DNS {
		d := f.DNS
		return len(d.Answers) > 0 && d.RCode == "NOERROR" && (d.QType == "A" || d.QType == "AAAA")
	}
	return f.DstPort == 53 || profile.IsPublic(f.Dst)
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client {
		return
	}
	if f.Kind == flow.DNS {
		r.dns(cx, st, f)
		return
	}
	if f.Kind == flow.Conn {
		r.conn(cx, st, f)
	}
}

func (r rule) conn(cx *modules.Context, st *State, f *flow.Flow) {
	if !st.SawConn {
		st.SawConn, st.FirstRec = true, f.Time
		r.release(cx, st)
	}
	if !profile.IsPublic(f.Dst) {
		return
	}
	key := modules.Hash(f.Dst, 0)
	if st.Contacts.Young.Len() >= maxContacts/2 && st.Contacts.Young.Get(key) == nil {
		r.settle(st) // before the oldest contacts are forgotten
	}
	end := f.Time + min(max(f.Duration, 0), math.MaxInt64-max(f.Time, 0))
	st.contact(key, sec(f.Time), sec(end)+1, uint64(r.wait/int64(time.Second))+before)
	switch now := f.Time / int64(time.Second); {
	case st.AgedC == 0:
		st.AgedC = now
	case now-st.AgedC >= r.keep:
		st.AgedC = now
		r.settle(st)
		st.Contacts.Age()
		if st.Earlier != nil {
			st.Earlier.Age()
		}
	}
}

// settle forgets the queries that a connection satisfies.
func (r rule) settle(st *State) {
	if st.Lookups == nil {
		return
	}
	n := 0
	for i := range st.Pending {
		if q := &st.Pending[i]; !r.contacted(st, q.Time, q.Addrs) {
			// They change places, so that the memory of none is lost.
			st.Pending[n], st.Pending[i] = st.Pending[i], st.Pending[n]
			n++
		}
	}
	st.Pending = st.Pending[:n]
}

// near reports whether the connections count for a look-up that is decided at until.
func (s *Span) near(asked, until int64) bool {
	return s.To != 0 && int64(s.To)+before >= asked/int64(time.Second) && int64(s.From) <= until/int64(time.Second)
}

func (r rule) dns(cx *modules.Context, st *State, f *flow.Flow) {
	d := f.DNS
	if !r.Wants(f) || !considered(d.Query) {
		return
	}
	// The host's address of the other family is another profile, so what it
	// connects to is not seen here.
	var buf [maxAddrs]uint32
	addrs, other, sunk := addresses(buf[:0], d.Answers, cx.Profile().Unmap().Is4())
	if sunk || (len(addrs) == 0 && !other) {
		return
	}
	until := f.Time + r.wait
	if st.SawConn && until < st.FirstRec {
		return
	}
	if st.Lookups == nil {
		st.Lookups = new(Lookups)
	}
	switch now := f.Time / int64(time.Second); {
	case st.AgedN == 0:
		st.AgedN = now
	case now-st.AgedN >= r.keep:
		st.AgedN = now
		st.Names.Age()
	}
	h := hashName(d.Query)
	n := st.Names.Put(h, maxNames)
	if w := sec(cx.Window().Start) + 1; sec(f.Time) > n.Until || n.Window != w {
		// A new round: what the name and its aliases stood for before counts too.
		n.Until, n.Window = sec(until), w
		want := known(addrs, n.Addrs)
		for _, a := range d.Answers {
			if _, ok := modules.Address(a); ok {
				continue
			}
			if alias := st.Names.Get(hashName(a)); alias != nil {
				want = known(want, alias.Addrs)
			}
		}
		if !other && !st.told(h, w) && !r.contacted(st, f.Time, want) {
			r.await(cx, st, f, h, want)
		}
	} else if i := r.asked(st, h, n.Until); i >= 0 {
		q := &st.Pending[i]
		q.Addrs = merge(q.Addrs, addrs)
		if other || r.contacted(st, q.Time, q.Addrs) {
			last := *q
			copy(st.Pending[i:], st.Pending[i+1:])
			st.Pending[len(st.Pending)-1] = last
			st.Pending = st.Pending[:len(st.Pending)-1]
		}
	}
	n.Addrs = newest(addrs, n.Addrs)
}

// told reports whether a name was reported in a window.
func (st *State) told(h, window uint32) bool {
	if st.Reports == 0 {
		return false
	}
	t := st.Told.Get(h)
	return t != nil && *t == window
}

// asked returns the place in Pending of the name whose round ends at until, -1 if it is not there.
func (r rule) asked(st *State, h, until uint32) int {
	for i := range st.Pending {
		if q := &st.Pending[i]; q.Hash == h && sec(q.Time+r.wait) == until {
			return i
		}
	}
	return -1
}

// contacted reports whether the host is known to have connected to one of the addresses.
func (r rule) contacted(st *State, asked int64, addrs []uint32) bool {
	for _, a := range addrs {
		if s := st.Contacts.Get(a); s != nil && s.near(asked, asked+r.wait) {
			return true
		}
		if st.Earlier == nil {
			continue
		}
		if s := st.Earlier.Get(a); s != nil && s.near(asked, asked+r.wait) {
			return true
		}
	}
	return false
}

// await puts the name of f among those that wait. Those that a connection has
// satisfied go when there is no more room.
func (r rule) await(cx *modules.Context, st *State, f *flow.Flow, h uint32, addrs []uint32) {
	if n := len(st.Pending); n == cap(st.Pending) || n >= maxPending {
		if r.settle(st); len(st.Pending) >= n*3/4 && n < maxPending {
			st.Pending = slices.Grow(st.Pending, n-len(st.Pending)+1)
		}
	}
	n := len(st.Pending)
	if n >= maxPending {
		if st.Dropped++; st.Dropped&(st.Dropped-1) == 0 {
			r.log.Debug("too many names of one host wait for a connection", "profile", cx.Profile(), "not_judged", st.Dropped)
		}
		return
	}
	st.Pending = st.Pending[:n+1]
	q := &st.Pending[n]
	text := append(append(q.Text[:0], f.DNS.Query...), f.UID...)
	*q = Query{
		Time: f.Time, Text: text, Name: uint16(len(f.DNS.Query)), Hash: h, Addrs: append(q.Addrs[:0], addrs...),
		Proto: f.Proto, Port: f.DstPort, Held: !st.SawConn,
	}
	if st.SawConn {
		r.timer(cx, st.Pending[:n], f.Time, 0)
	}
}

// timer sees to it that a name resolved at time t is judged. Names are judged
// together, some times in each wait, and those of others serve.
func (r rule) timer(cx *modules.Context, others []Query, t, late int64) {
	due := r.due(t)
	for i := range others {
		if q := &others[i]; q.Held == (late != 0) && r.due(q.Time) == due {
			return
		}
	}
	key := uint64(due) << 1
	if late != 0 {
		key |= 1
	}
	cx.After(time.Duration(max(due*r.step-cx.Now(), 1)+late), key)
}

// due returns when a name resolved at time t is judged, in steps.
func (r rule) due(t int64) int64 { return (t+r.wait)/r.step + 1 }

// release sets timers for the names that came before the first connection
// record, and forgets those that cannot be judged. The timers leave time for
// a log that turns up late; its records settle the names when they come.
func (r rule) release(cx *modules.Context, st *State) {
	if st.Lookups == nil {
		return
	}
	n := 0
	for i := range st.Pending {
		q := &st.Pending[i]
		if q.Time+r.wait < st.FirstRec {
			continue
		}
		r.timer(cx, st.Pending[:n], q.Time, giveUp)
		st.Pending[n], st.Pending[i] = st.Pending[i], st.Pending[n]
		n++
	}
	st.Pending = st.Pending[:n]
}

// Fire implements modules.TimerFirer. All that is due by the time of those at
// hand is decided with them, in order of time: so the same look-up of a name
// is reported whether it waited for the first connection record or not.
func (r rule) Fire(cx *modules.Context, st *State, key uint64) {
	if st.Lookups == nil {
		return // a timer is set for a name
	}
	r.settle(st)
	at, held := int64(key>>1), key&1 != 0
	if !slices.ContainsFunc(st.Pending, func(q Query) bool { return q.Held == held && r.due(q.Time) == at }) {
		return
	}
	var due []Query
	n := 0
	for i := range st.Pending {
		if q := &st.Pending[i]; r.due(q.Time) > at {
			st.Pending[n], st.Pending[i] = st.Pending[i], st.Pending[n]
			n++
		} else {
			due = append(due, *q)
		}
	}
	slices.SortStableFunc(due, func(a, b Query) int { return cmp.Compare(a.Time, b.Time) })
	for i := range due {
		r.report(cx, st, &due[i])
	}
	st.Pending = st.Pending[:n]
}

// report reports a name that has seen no connection in time.
func (r rule) report(cx *modules.Context, st *State, q *Query) {
	w := cx.WindowAt(q.Time).Start
	told := st.Told.Put(q.Hash, maxNames)
	if mark := sec(w) + 1; *told == mark {
		return
	}
	if st.Window != w {
		st.Window, st.Reports = w, 0
	}
	if st.Reports >= r.max {
		return
	}
	st.Reports++
	*told = sec(w) + 1
	more := ""
	if st.Reports == r.max {
		more = " Further names of this host in this window are not reported."
	}
	name, uid := string(q.Text[:q.Name]), string(q.Text[q.Name:])
	e := evidence.Evidence{
		Type: WithoutConnection, Time: q.Time, Attacker: evidence.IPEntity(cx.Profile(), evidence.Src, 0),
		Victim: evidence.Entity{Kind: evidence.Domain, Value: name, Direction: evidence.Dst},
		Level:  evidence.Info, Confidence: 0.8,
		Description: fmt.Sprintf("%s resolved %q and connected to none of its addresses within %v.%s",
			cx.Profile(), name, time.Duration(r.wait), more),
		Proto: q.Proto.String(), DstPort: q.Port, Count: 1, Subject: strings.ToLower(name), Step: 1,
	}
	if uid != "" {
		e.UIDs = []string{uid}
	}
	cx.Emit(e)
}

// sec returns whole seconds; flow.MaxTime keeps them within 32 bits.
func sec(ns int64) uint32 {
	return uint32(min(max(ns/int64(time.Second), 0), 1<<32-2))
}

// local are the domains whose names lead to no connection to the Internet:
// those of private zones, a registry that is asked by DNS, and the name by
// which Windows tests whether DNS works.
var local = [...]string{
	".arpa", ".local", ".localdomain", ".lan", ".home", ".internal", ".intranet", ".corp", ".workgroup",
	".cymru.com", ".dns.msftncsi.com",
}

// considered reports whether a look-up of the name should lead to a
// connection: not reverse look-ups, names of the local network, wildcards, and
// look-ups that are themselves the message.
func considered(name string) bool {
	name = strings.TrimSuffix(name, ".")
	first, _, dotted := strings.Cut(name, ".")
	if !dotted || len(name) > maxName || strings.Contains(name, "*") || strings.EqualFold(first, "wpad") {
		return false
	}
	for _, s := range local {
		if dot := len(name) - len(s); dot >= 0 && strings.EqualFold(name[dot:], s) || strings.EqualFold(name, s[1:]) {
			return false
		}
	}
	return true
}

// addresses adds the public addresses of one family among the answers to to, as
// hashes, at most maxAddrs, and returns whether there is one of the other family. sunk
// is true when an answer blocks the name, as 0.0.0.0 does.
func addresses(to []uint32, answers []string, v4 bool) (addrs []uint32, other, sunk bool) {
	addrs = to
	for _, s := range answers {
		a, ok := modules.Address(s)
		switch {
		case !ok:
		case a.IsUnspecified() || a.IsLoopback():
			return nil, false, true
		case !profile.IsPublic(a):
		case a.Is4() != v4:
			other = true
		case len(addrs) < maxAddrs:
			addrs = append(addrs, modules.Hash(a, 0))
		}
	}
	return addrs, other, false
}

// merge adds the addresses that to lacks, up to maxAddrs.
func merge(to, add []uint32) []uint32 {
next:
	for _, a := range add {
		for _, b := range to {
			if a == b {
				continue next
			}
		}
		if len(to) < maxAddrs {
			to = append(to, a)
		}
	}
	return to
}

// known adds the remembered addresses of a name.
func known(to []uint32, add [4]uint32) []uint32 {
	for i, a := range add {
		if a != 0 {
			to = merge(to, add[i:i+1])
		}
	}
	return to
}

// newest returns the latest addresses, those of the answer at hand first.
func newest(answer []uint32, old [4]uint32) (out [4]uint32) {
	var buf [maxAddrs]uint32
	copy(out[:], known(merge(buf[:0], answer), old))
	return out
}

// hashName returns a key of a name: resolvers mix the case to protect the query.
func hashName(s string) uint32 { return modules.HashLower(strings.TrimSuffix(s, ".")) }
