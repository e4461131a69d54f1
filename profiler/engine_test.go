package profiler_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler"
	"github.com/slips-go/slips/profiler/profile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The modules of these tests between them use every ability of the contract.

type none struct{}

// fanout counts the destinations of a profile in a window, reports each fifth
// and, when the window closes, the sum.
type fanout struct{}

type fanoutState struct {
	Dsts map[netip.Addr]int
}

func (fanout) Handle(cx *modules.Context, st *fanoutState, f *flow.Flow) {
	if st.Dsts == nil {
		st.Dsts = make(map[netip.Addr]int)
	}
	st.Dsts[f.Dst]++
	if n := len(st.Dsts); n%5 == 0 && st.Dsts[f.Dst] == 1 {
		cx.Emit(evidence.Evidence{Type: "FANOUT", Subject: "n", Step: n, UIDs: []string{strings.Clone(f.UID)}, Count: int64(n)})
	}
}

func (fanout) CloseWindow(cx *modules.Context, st *fanoutState, w profile.Window) {
	cx.Emit(evidence.Evidence{Type: "FANOUT_END", Subject: "end", Time: w.Start, Count: int64(len(st.Dsts))})
}

// echo repeats each tenth record of a profile twice, some time later.
type echo struct{}

type echoState struct {
	N    uint64
	Left map[uint64]int64 // timer key to start time
}

func (echo) Handle(cx *modules.Context, st *echoState, f *flow.Flow) {
	st.N++
	if st.N%10 != 0 {
		return
	}
	if st.Left == nil {
		st.Left = make(map[uint64]int64)
	}
	st.Left[st.N] = f.Time
	cx.After(time.Duration(st.N)*time.Second, st.N)
	cx.After(7*time.Second, st.N+1<<32)
}

func (echo) Fire(cx *modules.Context, st *echoState, key uint64) {
	cx.Emit(evidence.Evidence{Type: "ECHO", Subject: fmt.Sprint(key), Time: st.Left[key&(1<<32-1)], Description: fmt.Sprint(cx.Now())})
}

// unresolved is a join of two kinds on the network lane: a connection to an
// address that no DNS answer within 30 s of it named.
type unresolved struct{}

type unresolvedState struct {
	Names map[netip.Addr][]named
	Wait  map[uint64]pendingConn
	Next  uint64
}

// named is when an answer was given, and when the stream showed it.
type named struct{ Time, Seen int64 }

type pendingConn struct {
	Src, Dst netip.Addr
	Time     int64
	UID      string
}

func (unresolved) Handle(cx *modules.Context, st *unresolvedState, f *flow.Flow) {
	if st.Names == nil {
		st.Names, st.Wait = make(map[netip.Addr][]named), make(map[uint64]pendingConn)
	}
	if f.Kind == flow.DNS {
		st.Names[f.Dst] = append(st.Names[f.Dst], named{f.Time, cx.Now()})
		return
	}
	st.Next++
	if st.Wait == nil {
		st.Wait = make(map[uint64]pendingConn)
	}
	st.Wait[st.Next] = pendingConn{f.Src, f.Dst, f.Time, strings.Clone(f.UID)}
	cx.After(30*time.Second, st.Next)
}

func (unresolved) Fire(cx *modules.Context, st *unresolvedState, key uint64) {
	p := st.Wait[key]
	delete(st.Wait, key)
	for _, t := range st.Names[p.Dst] {
		// What the stream showed later must not count, or the result would
		// depend on how far the other log was ahead.
		if t.Seen < cx.Now() && t.Time >= p.Time-30e9 && t.Time <= p.Time+30e9 {
			return
		}
	}
	cx.Emit(evidence.Evidence{Type: "UNRESOLVED", Profile: p.Src, Time: p.Time, Subject: p.UID, UIDs: []string{p.UID}})
}

// seek waits for an address that the feeds list and then counts what the
// profile does in that window.
type seek struct{}

type seekState struct{ N int64 }

func (seek) Looks(v *intel.View, f *flow.Flow) bool { return v.Address(f.Dst).OK() }

func (seek) Handle(cx *modules.Context, st *seekState, f *flow.Flow) {
	st.N++
	if m := cx.Intel().Address(f.Dst); m.OK() {
		cx.Emit(evidence.Evidence{Type: "SEEK", Subject: f.UID, Count: st.N, Description: m.Indicator()})
		cx.Ask(modules.Question{Why: modules.Suspect, Of: intel.Address, Subject: m.Indicator(), UID: strings.Clone(f.UID)})
	}
}

// listed is what the feeds of these tests list.
func listed(addrs ...string) *intel.View {
	b := intel.NewBuilder()
	n := b.AddFeed(intel.Feed{Name: "test", Provider: "test"})
	for _, a := range addrs {
		if err := b.Add(n, intel.Indicator{Kind: intel.Address, Prefix: netip.PrefixFrom(netip.MustParseAddr(a), 32), Level: intel.FeedLevel}); err != nil {
			panic(err)
		}
	}
	v, err := intel.Open(b.Compile(1))
	if err != nil {
		panic(err)
	}
	return v
}

func define[S any](m modules.Meta, r modules.Rule[S], types ...evidence.Type) modules.Spec {
	for _, t := range types {
		m.Emits = append(m.Emits, evidence.Spec{Type: t})
	}
	return modules.Define(m, none{}, func(none, modules.Env) (modules.Rule[S], error) { return r, nil })
}

func load(tb testing.TB) []profiler.Loaded {
	tb.Helper()
	var ms []profiler.Loaded
	for _, s := range []modules.Spec{
		define(modules.Meta{Name: "fanout", Scope: modules.PerWindow, Kinds: flow.Of(flow.Conn)}, modules.Rule[fanoutState](fanout{}), "FANOUT", "FANOUT_END"),
		define(modules.Meta{Name: "echo", Scope: modules.PerProfile, Kinds: flow.Of(flow.DNS)}, modules.Rule[echoState](echo{}), "ECHO"),
		define(modules.Meta{Name: "echowin", Scope: modules.PerWindow, Kinds: flow.Of(flow.Conn)}, modules.Rule[echoState](echo{}), "ECHO"),
		define(modules.Meta{Name: "unresolved", Scope: modules.Network, Kinds: flow.Of(flow.Conn, flow.DNS)}, modules.Rule[unresolvedState](unresolved{}), "UNRESOLVED"),
		define(modules.Meta{Name: "seek", Scope: modules.PerWindow, Kinds: flow.Of(flow.Conn)}, modules.Rule[seekState](seek{}), "SEEK"),
	} {
		r, err := s.New(s.Defaults(), modules.Env{})
		if err != nil {
			tb.Fatal(err)
		}
		ms = append(ms, profiler.Loaded{Spec: s, Run: r})
	}
	return ms
}

// rec is a record before it is put into a batch.
type rec struct {
	kind     flow.Kind
	time     int64
	src, dst netip.Addr
	uid      string
}

// traffic makes two logs of n records each over several windows, with records
// that come up to 90 s late.
func traffic(seed uint64, n int) map[string][]rec {
	r := rand.New(rand.NewPCG(seed, 2))
	logs := make(map[string][]rec)
	for i, name := range []string{"conn", "dns"} {
		now := int64(1_700_000_000e9) + int64(i)*3e9
		for j := range n {
			now += r.Int64N(6e9)
			t := now
			if r.IntN(4) == 0 {
				t -= r.Int64N(90e9)
			}
			if r.IntN(200) == 0 {
				t -= 3 * 3600e9 // its window has closed
			}
			logs[name] = append(logs[name], rec{
				[]flow.Kind{flow.Conn, flow.DNS}[i], t, netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(30))}),
				netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(60))}), fmt.Sprintf("%c%d", "CD"[i], j),
			})
		}
	}
	return logs
}

func fill(b *flow.Batch, recs []rec, from int) {
	for i, x := range recs {
		f := b.Next()
		f.Reset(x.kind)
		at := len(b.Data)
		b.Data = append(b.Data, x.uid...)
		f.Time, f.Src, f.Dst, f.UID = x.time, x.src, x.dst, flow.Alias(b.Data[at:])
		f.End = int64(from + i + 1)
	}
}

// scrambled makes a batch whose memory is spoilt as soon as it is given back,
// so that a module which kept a string shows.
func scrambled() *flow.Batch {
	b := flow.NewBatch(func(b *flow.Batch) {
		for i := range b.Data {
			b.Data[i] = '!'
		}
	})
	b.Data = make([]byte, 0, 1<<16)
	return b
}

// feed sends the records of one log in batches.
func feed(name string, recs []rec, batch int) flow.Input {
	c := make(chan *flow.Batch, len(recs)/batch+2)
	n := 0
	for part := range slices.Chunk(recs, batch) {
		b := scrambled()
		b.Segment = flow.Segment{Path: name, Print: name}
		fill(b, part, n)
		n += len(part)
		c <- b
	}
	b := scrambled()
	b.Mark = flow.Ended
	c <- b
	close(c)
	return flow.Input{Name: name, C: c}
}

// record is a Sink that writes down all it is given, up to a checkpoint if
// there is one.
type record struct {
	lines []string
	saved *profiler.Checkpoint
	hosts int
}

func (r *record) Evidence(e *evidence.Evidence) error {
	if r.saved == nil || !r.saved.Clean {
		r.lines = append(r.lines, fmt.Sprintf("%s %s %s w%d %d n=%d %s %s\n", e.ID, e.Type, e.Profile, e.Window, e.Time, e.Count, e.UIDs, e.Description))
	}
	return nil
}

func (r *record) News(n profiler.News) error {
	if n.Host != nil {
		r.hosts++
	}
	if q := n.Question; q != nil && (r.saved == nil || !r.saved.Clean) {
		r.lines = append(r.lines, fmt.Sprintf("asks %s %s %s for %s at %d\n", q.Why, q.Of, q.Subject, q.Src, n.At))
	}
	return nil
}
func (r *record) Round(int64) error { return nil }
func (r *record) Checkpoint(c *profiler.Checkpoint) error {
	r.saved = c
	return nil
}

// odd ignores what goes to one address.
type odd struct{}

var ignored = netip.MustParseAddr("192.0.2.13")

func (odd) Ignore(f *flow.Flow) bool { return f.Dst == ignored }

func config(lanes, round int) profiler.Config {
	v := listed("192.0.2.7", "192.0.2.13", "192.0.2.40")
	return profiler.Config{
		Lanes: lanes, Width: time.Hour, Round: round, Strict: true, Now: time.Now, Intel: func() *intel.View { return v }, Ask: true,
		Ignore: odd{},
	}
}

func replay(tb testing.TB, cfg profiler.Config, logs map[string][]rec, batch int) string {
	tb.Helper()
	e, err := profiler.New(cfg, load(tb), nil)
	if err != nil {
		tb.Fatal(err)
	}
	var in profiler.Inputs
	for name, recs := range logs {
		in.Initial = append(in.Initial, feed(name, recs, batch))
	}
	var out record
	if err := e.Run(tb.Context(), in, &out); err != nil {
		tb.Fatal(err)
	}
	return strings.Join(out.lines, "")
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			t.Fatalf("%s: differs at line %d of %d (%d):\nwant %s\n got %s", what, i+1, len(a), len(b), a[i], b[min(i, len(b)-1)])
		}
	}
	t.Fatalf("%s: %d lines too many", what, len(b)-len(a))
}

// The property that everything rests on: lanes, batches and rounds do not show.
func TestSameBytesForAnyLanesBatchesAndRounds(t *testing.T) {
	for seed := range uint64(3) {
		logs := traffic(seed, 4000)
		want := replay(t, config(1, 1024), logs, 256)
		if n := strings.Count(want, "\n"); n < 1000 {
			t.Fatalf("only %d lines of evidence: the test shows nothing", n)
		}
		for _, lanes := range []int{1, 2, 3, 8, 16} {
			for _, batch := range []int{1, 64, 1000} {
				for _, round := range []int{1, 100, 1024} {
					if batch == 1 && round != 100 {
						continue
					}
					same(t, fmt.Sprintf("seed %d lanes %d batch %d round %d", seed, lanes, batch, round),
						replay(t, config(lanes, round), logs, batch), want)
				}
			}
		}
	}
}

func sorted(s string) string {
	l := strings.SplitAfter(s, "\n")
	slices.Sort(l)
	return strings.Join(l, "")
}

// live feeds logs to a following engine in pieces of random size, one log at
// a time in random turns, with Idle marks between; it stops after stop records
// of each log, if stop is not negative.
func live(tb testing.TB, cfg profiler.Config, logs map[string][]rec, from map[string]int, stop map[string]int, saved *profiler.Checkpoint, r *rand.Rand) *record {
	tb.Helper()
	cfg.Follow, cfg.Checkpoint, cfg.IdleAfter = true, time.Hour, time.Hour
	e, err := profiler.New(cfg, load(tb), saved)
	if err != nil {
		tb.Fatal(err)
	}
	type src struct {
		name string
		recs []rec
		at   int
		c    chan *flow.Batch
	}
	var srcs []*src
	wake := make(chan struct{}, 1)
	in := profiler.Inputs{Wake: wake}
	for _, name := range []string{"conn", "dns"} {
		end := len(logs[name])
		if stop != nil {
			end = stop[name]
		}
		s := &src{name: name, recs: logs[name][:end], at: from[name], c: make(chan *flow.Batch, 2)}
		srcs = append(srcs, s)
		in.Initial = append(in.Initial, flow.Input{Name: name, C: s.c})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		send := func(s *src, b *flow.Batch) {
			b.Segment = flow.Segment{Path: s.name, Print: s.name}
			s.c <- b
			select {
			case wake <- struct{}{}:
			default:
			}
		}
		for _, s := range srcs { // the first record of all decides where windows begin
			n := min(1, len(s.recs)-s.at)
			b := scrambled()
			fill(b, s.recs[s.at:s.at+n], s.at)
			s.at += n
			b.Mark = flow.Idle
			send(s, b)
		}
		for len(srcs) > 0 {
			i := r.IntN(len(srcs))
			s := srcs[i]
			n := min(1+r.IntN(400), len(s.recs)-s.at)
			b := scrambled()
			fill(b, s.recs[s.at:s.at+n], s.at)
			s.at += n
			b.Mark = flow.Idle
			if s.at == len(s.recs) {
				b.Mark = flow.Ended
				srcs = slices.Delete(srcs, i, i+1)
			}
			send(s, b)
			if b.Mark == flow.Ended {
				close(s.c)
			}
		}
	}()
	out := &record{}
	if err := e.Run(tb.Context(), in, out); err != nil {
		tb.Fatal(err)
	}
	<-done
	return out
}

// Whatever the skew between two growing logs, following finds what reading
// the finished logs finds.
func TestFollowEqualsReplay(t *testing.T) {
	logs := traffic(7, 3000)
	want := sorted(replay(t, config(1, 1024), logs, 256))
	for seed := range uint64(6) {
		cfg := config(1+int(seed%3), 50)
		cfg.Checkpoint = 0
		out := live2(t, cfg, logs, rand.New(rand.NewPCG(seed, 9)))
		same(t, fmt.Sprint("seed ", seed), sorted(out), want)
	}
}

func live2(tb testing.TB, cfg profiler.Config, logs map[string][]rec, r *rand.Rand) string {
	tb.Helper()
	out := live(tb, cfg, logs, nil, nil, nil, r)
	if out.saved == nil || !out.saved.Clean {
		tb.Fatal("no clean checkpoint at the end")
	}
	// What came behind the clean checkpoint is found again from it.
	rest := live(tb, cfg, logs, map[string]int{"conn": len(logs["conn"]), "dns": len(logs["dns"])}, nil, roundTrip(tb, out.saved), r)
	tail := finish(tb, cfg, out.saved)
	if len(rest.lines) != 0 {
		tb.Fatalf("%d lines of evidence without a record", len(rest.lines))
	}
	return strings.Join(append(out.lines, tail...), "")
}

// finish restores a checkpoint and ends at once: what comes is the end of input.
func finish(tb testing.TB, cfg profiler.Config, c *profiler.Checkpoint) []string {
	tb.Helper()
	cfg.Follow = true
	cfg.Checkpoint = 0
	e, err := profiler.New(cfg, load(tb), roundTrip(tb, c))
	if err != nil {
		tb.Fatal(err)
	}
	var out record
	if err := e.Run(context.Background(), profiler.Inputs{}, &out); err != nil {
		tb.Fatal(err)
	}
	return out.lines
}

func roundTrip(tb testing.TB, c *profiler.Checkpoint) *profiler.Checkpoint {
	tb.Helper()
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(c); err != nil {
		tb.Fatal(err)
	}
	d := new(profiler.Checkpoint)
	if err := gob.NewDecoder(&b).Decode(d); err != nil {
		tb.Fatal(err)
	}
	return d
}

// Stopping at any point and going on from the checkpoint, with another number
// of lanes, finds what never stopping finds.
func TestRestartEqualsNoRestart(t *testing.T) {
	logs := traffic(11, 1500)
	want := sorted(replay(t, config(1, 1024), logs, 256))
	r := rand.New(rand.NewPCG(5, 6))
	for i := range 8 {
		var lines []string
		var saved *profiler.Checkpoint
		at := map[string]int{}
		for leg := range 4 {
			stop := map[string]int{}
			for n, recs := range logs {
				stop[n] = at[n] + r.IntN(len(recs)-at[n]+1)
				if leg == 3 {
					stop[n] = len(recs)
				}
			}
			cfg := config(1+r.IntN(4), 64)
			out := live(t, cfg, logs, at, stop, saved, r)
			lines = append(lines, out.lines...)
			if out.saved == nil {
				t.Fatal("no checkpoint")
			}
			saved = roundTrip(t, out.saved)
			for n, p := range saved.Positions() {
				if int(p.Offset) != stop[n] && stop[n] > 0 {
					t.Fatalf("run %d: position of %s is %d, want %d", i, n, p.Offset, stop[n])
				}
			}
			at = stop
		}
		lines = append(lines, finish(t, config(2, 64), saved)...)
		same(t, fmt.Sprint("run ", i), sorted(strings.Join(lines, "")), want)
	}
}

// Profiles are bounded, and which one goes does not depend on the lanes.
func TestEvictionIsBoundedAndDeterministic(t *testing.T) {
	logs := traffic(3, 3000)
	var want string
	for _, lanes := range []int{1, 4} {
		for _, round := range []int{3, 512} {
			cfg := config(lanes, round)
			cfg.MaxProfiles = 10
			e, err := profiler.New(cfg, load(t), nil)
			if err != nil {
				t.Fatal(err)
			}
			var out record
			in := profiler.Inputs{Initial: []flow.Input{feed("conn", logs["conn"], 99), feed("dns", logs["dns"], 7)}}
			if err := e.Run(t.Context(), in, &out); err != nil {
				t.Fatal(err)
			}
			s := e.Stats().Snapshot()
			if s.Profiles > 10 || s.Evicted == 0 || s.ProfilesSeen != s.Evicted+s.Profiles {
				t.Fatalf("profiles %d, evicted %d, seen %d", s.Profiles, s.Evicted, s.ProfilesSeen)
			}
			got := strings.Join(out.lines, "")
			if want == "" {
				want = got
			}
			same(t, fmt.Sprint(lanes, " lanes"), got, want)
		}
	}
}

// bomb panics on some records.
type bomb struct{}

func (bomb) Handle(cx *modules.Context, _ *none, f *flow.Flow) {
	if strings.HasSuffix(f.UID, "3") {
		panic("boom")
	}
	cx.Emit(evidence.Evidence{Type: "OK", Subject: strings.Clone(f.UID)})
}

func TestPanicIsIsolated(t *testing.T) {
	sp := define(modules.Meta{Name: "bomb", Scope: modules.PerProfile, Kinds: flow.Of(flow.Conn)}, modules.Rule[none](bomb{}), "OK")
	run, _ := sp.New(sp.Defaults(), modules.Env{})
	mods := append([]profiler.Loaded{{Spec: sp, Run: run}}, load(t)...)
	logs := traffic(1, 500)
	cfg := config(2, 64)
	cfg.Ignore = nil
	cfg.Strict, cfg.PanicLimit = false, 2
	e, err := profiler.New(cfg, mods, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out record
	if err := e.Run(t.Context(), profiler.Inputs{Initial: []flow.Input{feed("conn", logs["conn"], 50)}}, &out); err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Addr]int{}
	var ok, panics int
	for _, x := range logs["conn"] {
		switch {
		case seen[x.src] >= 2:
		case strings.HasSuffix(x.uid, "3"):
			seen[x.src]++
			panics++
		default:
			ok++
		}
	}
	s := e.Stats().Snapshot()
	if m := s.Modules[0]; m.Panics != int64(panics) || m.Evidence != int64(ok) {
		t.Errorf("bomb: %d panics, %d evidence, want %d and %d", m.Panics, m.Evidence, panics, ok)
	}
	if m := s.Modules[1]; m.Calls != 500 {
		t.Errorf("the module behind the one that panicked ran %d times, want 500", m.Calls)
	}
}

func TestWindows(t *testing.T) {
	// Conformance checks of the reference, section 7.
	for _, c := range []struct {
		at float64
		n  int64
	}{{1000, 1}, {4599.9, 1}, {4600, 2}, {999, 0}} {
		if w := profile.WindowOf(int64(c.at*1e9), 1000e9, 3600e9); w.N != c.n {
			t.Errorf("%v s: window %d, want %d", c.at, w.N, c.n)
		}
	}
}

func BenchmarkEngine(b *testing.B) {
	logs := traffic(1, 20000)
	for _, n := range []int{1, 2} {
		b.Run(fmt.Sprint("lanes=", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				replay(b, config(n, 1024), map[string][]rec{"conn": logs["conn"]}, 1024)
			}
			b.ReportMetric(20000*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// A module that needs a kind no input bears is off, and on again once a record
// of it comes all the same.
func TestModulesSleepAndWake(t *testing.T) {
	logs := traffic(2, 500)
	mods := load(t)
	mods[3].Spec.Needs = flow.Of(flow.Conn, flow.DNS) // unresolved
	run := func(in ...flow.Input) (string, profiler.Snapshot) {
		cfg := config(2, 64)
		cfg.Ignore = nil
		e, err := profiler.New(cfg, mods, nil)
		if err != nil {
			t.Fatal(err)
		}
		var out record
		if err := e.Run(t.Context(), profiler.Inputs{Initial: in}, &out); err != nil {
			t.Fatal(err)
		}
		return strings.Join(out.lines, ""), e.Stats().Snapshot()
	}
	input := func(name string, k flow.KindSet, recs []rec) flow.Input {
		i := feed(name, recs, 50)
		i.Kinds = k
		return i
	}
	got, s := run(input("conn", flow.Of(flow.Conn), logs["conn"]))
	if strings.Contains(got, "UNRESOLVED") || !strings.Contains(got, "FANOUT") || s.Modules[3].Calls != 0 || !slices.Equal(s.Modules[3].Missing, []string{"dns"}) {
		t.Errorf("without DNS: %+v", s.Modules[3])
	}
	if _, s = run(input("conn", 0, logs["conn"])); s.Modules[3].Calls != 500 {
		t.Errorf("of unknown kinds: %+v", s.Modules[3])
	}
	// What seemed to be a log of connections goes on with DNS.
	mixed := append(slices.Clone(logs["conn"][:200]), logs["dns"][200:]...)
	_, s = run(input("conn", flow.Of(flow.Conn), mixed))
	if s.Modules[3].Calls != 300 || s.Modules[1].Calls != 300 {
		t.Errorf("after waking: %+v %+v", s.Modules[1], s.Modules[3])
	}
}

// In the analysis direction "all" a connection counts for its destination too,
// which then is the server; other records do not.
func TestBothDirections(t *testing.T) {
	logs := traffic(4, 300)
	cfg := config(3, 64)
	cfg.Both = true
	got := replay(t, cfg, logs, 50)
	one := replay(t, config(3, 64), logs, 50)
	for l := range strings.SplitSeq(one, "\n") {
		if l != "" && !strings.Contains(got, l) {
			t.Fatalf("missing with both directions: %s", l)
		}
	}
	if !strings.Contains(got, "FANOUT_END 192.0.2.") || strings.Contains(one, "FANOUT_END 192.0.2.") {
		t.Error("destinations have no windows of their own, or have them in the direction out")
	}
	if strings.Contains(got, "ECHO 192.0.2.") && !strings.Contains(got, "ECHO 10.0.0.") {
		t.Error("DNS records went to the destination")
	}
	cfg.Lanes, cfg.Round = 1, 1000
	same(t, "lanes", replay(t, cfg, logs, 7), got)
}

// A module that looks records up sees nothing of a profile until the feeds
// know something in it, and everything of that window from then on. Records
// that are to be ignored are seen by nobody.
func TestLookerAndIgnorer(t *testing.T) {
	at := func(s int64, dst string) rec {
		return rec{flow.Conn, 1_700_000_000e9 + s*1e9, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr(dst), fmt.Sprint("C", s)}
	}
	got := replay(t, config(2, 1), map[string][]rec{"conn": {
		at(0, "192.0.2.1"), at(1, "192.0.2.2"), at(2, "192.0.2.7"), at(3, "192.0.2.1"), at(4, "192.0.2.13"), at(5, "192.0.2.40"),
		at(4000, "192.0.2.40"),
	}}, 2)
	var seen []string
	for line := range strings.SplitSeq(got, "\n") {
		if strings.Contains(line, " SEEK ") {
			seen = append(seen, line[strings.Index(line, "w"):])
		}
	}
	want := []string{"w1 1700000002000000000 n=1 [] 192.0.2.7", "w1 1700000005000000000 n=3 [] 192.0.2.40", "w2 1700004000000000000 n=1 [] 192.0.2.40"}
	if !slices.Equal(seen, want) {
		t.Errorf("got %q\nwant %q", seen, want)
	}
	if n := strings.Count(got, "asks c2 ip 192.0.2.40 for 10.0.0.1"); n != 2 {
		t.Errorf("%d questions about 192.0.2.40, want 2:\n%s", n, got)
	}
}

// When following the snapshot may change between two records, and the next
// ones are judged by the new one, on every lane.
func TestNewIntelWhileFollowing(t *testing.T) {
	var view atomic.Pointer[intel.View]
	view.Store(listed("192.0.2.7"))
	cfg := config(3, 1)
	cfg.Intel = view.Load
	cfg.Follow, cfg.IdleAfter = true, time.Hour
	e, err := profiler.New(cfg, load(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	c, wake := make(chan *flow.Batch, 1), make(chan struct{}, 1)
	send := func(mark flow.Mark, recs ...rec) {
		b := scrambled()
		b.Mark = mark
		fill(b, recs, 0)
		c <- b
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	var out changing
	out.swap = func() {
		view.Store(listed("192.0.2.8"))
		send(flow.Ended, conns(10, "192.0.2.7", "192.0.2.8")...)
		close(c)
	}
	send(flow.Idle, conns(0, "192.0.2.8", "192.0.2.7")...) // the evidence about the last one swaps
	if err := e.Run(t.Context(), profiler.Inputs{Initial: []flow.Input{{Name: "conn", C: c}}, Wake: wake}, &out); err != nil {
		t.Fatal(err)
	}
	var seen []string
	for _, l := range out.lines {
		if strings.Contains(l, " SEEK ") {
			seen = append(seen, strings.Fields(l)[4]+" "+l[strings.LastIndexByte(strings.TrimSpace(l), ' ')+1:len(l)-1])
		}
	}
	if want := []string{"1700000001000000000 192.0.2.7", "1700000011000000000 192.0.2.8"}; !slices.Equal(seen, want) {
		t.Errorf("got %q, want %q", seen, want)
	}
}

// conns makes a connection a second from hosts of their own to each address.
func conns(from int64, dsts ...string) (recs []rec) {
	for i, d := range dsts {
		s := from + int64(i)
		recs = append(recs, rec{flow.Conn, 1_700_000_000e9 + s*1e9, netip.AddrFrom4([4]byte{10, 0, 1, byte(s)}), netip.MustParseAddr(d), fmt.Sprint("C", s)})
	}
	return recs
}

// changing is a record that does something once the first evidence is there.
type changing struct {
	record
	swap func()
}

func (c *changing) Round(low int64) error {
	if c.swap != nil && len(c.lines) > 0 {
		c.swap()
		c.swap = nil
	}
	return c.record.Round(low)
}
