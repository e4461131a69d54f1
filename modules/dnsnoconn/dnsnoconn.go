// Package dnsnoconn reports names that a host resolved without then
// connecting to any of the answers.
package dnsnoconn

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
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
	// giveUp is how much longer a name that waited for the first connection
	// record of the host waits for the others.
	giveUp = int64(time.Hour)
)

// State is what the module remembers of one profile. Times are whole seconds
// of unix time, addresses and names are hashes, because every host that
// resolves names has such a state.
type State struct {
	Contacts modules.RecentTable[Span]     // public addresses connected to
	Names    modules.Recent[uint64, Round] // names resolved
	AgedC    int64                         // when Contacts last aged
	AgedN    int64                         // when Names last aged
	Pending  map[uint64]Query              // by running number
	Next     uint64                        // running number of the next
	SawConn  bool
	FirstRec int64  // start of the first connection record, unix ns
	Window   int64  // start of the window that Reports counts
	Reports  int    // names reported in it
	Dropped  uint64 // names not judged because Pending was full
}

// Span covers the connections to an address that lie near enough to each
// other to make no difference. To is 0 when there was none. What came before
// is kept for look-ups that are logged late, as one: a look-up far back, in a
// gap between connections, is rather not reported than reported wrongly.
type Span struct {
	From, To         uint32
	PrevFrom, PrevTo uint32
	Awaited          bool // a Query waits for the address
}

// add notes a connection. Those no more than gap seconds apart are together.
func (s *Span) add(from, to uint32, gap uint64) {
	switch {
	case s.To == 0:
		s.From, s.To = from, to
	case uint64(from) > uint64(s.To)+gap:
		s.addPrev(s.From, s.To)
		s.From, s.To = from, to
	case uint64(to)+gap >= uint64(s.From):
		s.From, s.To = min(s.From, from), max(s.To, to)
	default:
		s.addPrev(from, to)
	}
	if s.PrevTo != 0 && uint64(s.PrevTo)+gap >= uint64(s.From) {
		s.From = min(s.From, s.PrevFrom)
		s.PrevFrom, s.PrevTo = 0, 0
	}
}

func (s *Span) addPrev(from, to uint32) {
	if s.PrevTo == 0 {
		s.PrevFrom = from
	}
	s.PrevFrom, s.PrevTo = min(s.PrevFrom, from), max(s.PrevTo, to)
}

// near reports whether one of the connections counts for q.
func (s *Span) near(q Query) bool {
	return near(s.From, s.To, q.Time, q.Until) || near(s.PrevFrom, s.PrevTo, q.Time, q.Until)
}

// Round is one name: from its first look-up in a window on until Until all
// answers count together. Windows are given by their start plus 1; 0: none.
type Round struct {
	Until    uint32
	Window   uint32    // of the first look-up
	Reported uint32    // in which it was reported last
	Pending  uint64    // of the Query plus 1; 0: none, or decided
	Addrs    [4]uint32 // the latest addresses, the newest first; 0: none
}

// Query is a name that waits for a connection.
type Query struct {
	Name  string
	UID   string
	Time  int64 // of the look-up, unix ns
	Until int64 // when it is decided, unix ns
	Proto flow.Proto
	Port  uint16
	Addrs []uint32
}

type rule struct {
	wait int64 // ns
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
)

// New checks the config and returns the rule.
func New(c Config, env modules.Env) (modules.Rule[State], error) {
	if c.Wait < time.Second || c.Wait > 24*time.Hour {
		return nil, fmt.Errorf("wait: %v is not between 1s and 24h", c.Wait)
	}
	if c.MaxPerWindow < 1 || c.MaxPerWindow > 10_000 {
		return nil, fmt.Errorf("max_per_window: %d is not between 1 and 10000", c.MaxPerWindow)
	}
	if env.Log == nil {
		env.Log = slog.New(slog.DiscardHandler)
	}
	return rule{
		wait: int64(c.Wait), max: c.MaxPerWindow, keep: 2 * (before + int64(c.Wait/time.Second)), log: env.Log,
	}, nil
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
	key := hashAddr(f.Dst)
	end := f.Time + min(max(f.Duration, 0), math.MaxInt64-max(f.Time, 0))
	from, to := sec(f.Time), sec(end)+1
	s := st.Contacts.Put(key, maxContacts)
	if s.Awaited {
		s.Awaited = st.settle(key, from, to)
	}
	s.add(from, to, uint64(r.wait/int64(time.Second))+before)
	st.AgedC = age(st.Contacts.Age, st.AgedC, f.Time, r.keep)
}

// settle removes the queries that a connection to the address satisfies, and
// reports whether others still wait for it.
func (st *State) settle(addr, from, to uint32) (awaited bool) {
	for k, q := range st.Pending {
		for _, a := range q.Addrs {
			if a != addr {
				continue
			}
			if near(from, to, q.Time, q.Until) {
				delete(st.Pending, k)
			} else {
				awaited = true
			}
			break
		}
	}
	return awaited
}

// near reports whether a connection from one second to another counts for a
// look-up that is decided at until.
func near(from, to uint32, asked, until int64) bool {
	return to != 0 && int64(to)+before >= asked/int64(time.Second) && int64(from) <= until/int64(time.Second)
}

func (r rule) dns(cx *modules.Context, st *State, f *flow.Flow) {
	d := f.DNS
	if (d.QType != "A" && d.QType != "AAAA") || d.RCode != "NOERROR" || len(d.Answers) == 0 || !considered(d.Query) {
		return
	}
	// The host's address of the other family is another profile, so what it
	// connects to is not seen here.
	addrs, other, sunk := addresses(d.Answers, cx.Profile().Unmap().Is4())
	if sunk || (len(addrs) == 0 && !other) {
		return
	}
	until := f.Time + r.wait
	if st.SawConn && until < st.FirstRec {
		return
	}
	st.AgedN = age(func() { st.Names.Age() }, st.AgedN, f.Time, r.keep)
	h := hashName(d.Query)
	n, _ := st.Names.Get(h)
	if w := windowMark(cx, f.Time); sec(f.Time) > n.Until || n.Window != w {
		// A new round: what the name and its aliases stood for before counts too.
		n.Until, n.Window, n.Pending = sec(until), w, 0
		want := known(addrs, n.Addrs)
		for _, a := range d.Answers {
			if alias, ok := st.Names.Get(hashName(a)); ok {
				want = known(want, alias.Addrs)
			}
		}
		q := Query{Time: f.Time, Until: until, Proto: f.Proto, Port: f.DstPort, Addrs: want}
		if n.Reported != w && !other && !st.contacted(q) {
			n.Pending = r.await(cx, st, q, d.Query, f.UID)
		}
	} else if q, ok := st.Pending[n.Pending-1]; n.Pending != 0 && ok {
		q.Addrs = merge(q.Addrs, addrs)
		if other || st.contacted(q) {
			delete(st.Pending, n.Pending-1)
		} else {
			st.Pending[n.Pending-1] = q
			st.mark(addrs)
		}
	}
	n.Addrs = newest(addrs, n.Addrs)
	st.Names.Put(h, n, maxNames)
}

// windowMark names the window of time t, unix ns, in a Round.
func windowMark(cx *modules.Context, t int64) uint32 { return sec(cx.WindowAt(t).Start) + 1 }

// contacted reports whether the host is known to have connected to an address of q.
func (st *State) contacted(q Query) bool {
	for _, a := range q.Addrs {
		if s := st.Contacts.Get(a); s != nil && s.near(q) {
			return true
		}
	}
	return false
}

// await puts q among those that wait, and returns its number plus 1; 0 if
// there is no room.
func (r rule) await(cx *modules.Context, st *State, q Query, name, uid string) uint64 {
	if len(st.Pending) >= maxPending {
		if st.Dropped++; st.Dropped&(st.Dropped-1) == 0 {
			r.log.Debug("too many names of one host wait for a connection", "profile", cx.Profile(), "not_judged", st.Dropped)
		}
		return 0
	}
	if st.Pending == nil {
		st.Pending = make(map[uint64]Query)
	}
	q.Name, q.UID = strings.Clone(name), strings.Clone(uid)
	key := st.Next
	st.Next++
	st.Pending[key] = q
	st.mark(q.Addrs)
	if st.SawConn {
		cx.After(time.Duration(max(q.Until-cx.Now(), 1)), key)
	}
	return key + 1
}

// mark notes that a query waits for the addresses.
func (st *State) mark(addrs []uint32) {
	for _, a := range addrs {
		st.Contacts.Put(a, maxContacts).Awaited = true
	}
}

// release sets timers for the names that came before the first connection
// record, and forgets those that cannot be judged. The timers leave time for
// a log that turns up late; its records settle the names when they come.
func (r rule) release(cx *modules.Context, st *State) {
	for key := uint64(0); key < st.Next; key++ {
		q, ok := st.Pending[key]
		switch {
		case !ok:
		case q.Until < st.FirstRec:
			delete(st.Pending, key)
		default:
			cx.After(time.Duration(max(q.Until-cx.Now(), 0)+giveUp), key)
		}
	}
}

// Fire implements modules.TimerFirer. All that is due by the time of the one
// at hand is decided with it, in order of time: so the same look-up of a name
// is reported whether it waited for the first connection record or not.
func (r rule) Fire(cx *modules.Context, st *State, key uint64) {
	last, ok := st.Pending[key]
	if !ok {
		return
	}
	var due []uint64
	for k, q := range st.Pending {
		if q.Until <= last.Until {
			due = append(due, k)
		}
	}
	slices.SortFunc(due, func(a, b uint64) int {
		return cmp.Or(cmp.Compare(st.Pending[a].Until, st.Pending[b].Until), cmp.Compare(a, b))
	})
	for _, k := range due {
		q := st.Pending[k]
		delete(st.Pending, k)
		if !st.contacted(q) { // it is only when the mark on the address was forgotten
			r.report(cx, st, q)
		}
	}
}

// report reports a name that has seen no connection in time.
func (r rule) report(cx *modules.Context, st *State, q Query) {
	w := cx.WindowAt(q.Time).Start
	h := hashName(q.Name)
	n, _ := st.Names.Get(h)
	mark := windowMark(cx, q.Time)
	if n.Reported == mark {
		return
	}
	if st.Window != w {
		st.Window, st.Reports = w, 0
	}
	if st.Reports >= r.max {
		return
	}
	st.Reports++
	n.Reported = mark
	st.Names.Put(h, n, maxNames)
	more := ""
	if st.Reports == r.max {
		more = " Further names of this host in this window are not reported."
	}
	e := evidence.Evidence{
		Type: WithoutConnection, Time: q.Time, Attacker: evidence.IPEntity(cx.Profile(), evidence.Src, 0),
		Victim: evidence.Entity{Kind: evidence.Domain, Value: q.Name, Direction: evidence.Dst},
		Level:  evidence.Info, Confidence: 0.8,
		Description: fmt.Sprintf("%s resolved %q and connected to none of its addresses within %v.%s",
			cx.Profile(), q.Name, time.Duration(r.wait), more),
		Proto: q.Proto.String(), DstPort: q.Port, Count: 1, Subject: strings.ToLower(q.Name), Step: 1,
	}
	if q.UID != "" {
		e.UIDs = []string{q.UID}
	}
	cx.Emit(e)
}

// age forgets what is older than keep seconds. It returns when r last aged.
func age(forget func(), last, now, keep int64) int64 {
	switch s := now / int64(time.Second); {
	case last == 0:
		return s
	case s-last >= keep:
		forget()
		return s
	}
	return last
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
	if !dotted || strings.Contains(name, "*") || strings.EqualFold(first, "wpad") {
		return false
	}
	for _, s := range local {
		if dot := len(name) - len(s); dot >= 0 && strings.EqualFold(name[dot:], s) || strings.EqualFold(name, s[1:]) {
			return false
		}
	}
	return true
}

// addresses returns the public addresses of one family among the answers as
// hashes, at most maxAddrs, and whether there is one of the other family. sunk
// is true when an answer blocks the name, as 0.0.0.0 does.
func addresses(answers []string, v4 bool) (addrs []uint32, other, sunk bool) {
	for _, s := range answers {
		a, ok := address(s)
		switch {
		case !ok:
		case a.IsUnspecified() || a.IsLoopback():
			return nil, false, true
		case !profile.IsPublic(a):
		case a.Is4() != v4:
			other = true
		case len(addrs) < maxAddrs:
			addrs = append(addrs, hashAddr(a))
		}
	}
	return addrs, other, false
}

// address returns the address that an answer consists of. It looks before it
// parses, because names are common and a failed parse allocates.
func address(s string) (netip.Addr, bool) {
	if len(s) < 2 || len(s) > 45 {
		return netip.Addr{}, false
	}
	digits := '0' <= s[0] && s[0] <= '9' && '0' <= s[len(s)-1] && s[len(s)-1] <= '9'
	if !digits && strings.IndexByte(s, ':') < 0 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err == nil
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
	for _, a := range add {
		if a != 0 {
			to = merge(to, []uint32{a})
		}
	}
	return to
}

// newest returns the latest addresses, those of the answer at hand first.
func newest(answer []uint32, old [4]uint32) (out [4]uint32) {
	copy(out[:], known(merge(nil, answer), old))
	return out
}

// hashAddr returns an IPv4 address as it is, and FNV-1a of an IPv6 address. A
// clash hides at most one evidence of level info. 0 stands for none.
func hashAddr(a netip.Addr) uint32 {
	if a = a.Unmap(); a.Is4() {
		b := a.As4()
		return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	}
	h := uint32(2166136261)
	for _, c := range a.As16() {
		h = (h ^ uint32(c)) * 16777619
	}
	return max(h, 1)
}

// hashName is FNV-1a over the lower-case name: resolvers mix the case to
// protect the query.
func hashName(s string) uint64 {
	s = strings.TrimSuffix(s, ".")
	h := uint64(14695981039346656037)
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}
