package profiler

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
)

// These tests look inside the engine, at what it keeps. Each is about
// something that once grew, moved or stayed when it should not have.

type counted struct{ N int }

// picky counts the records it wants.
type picky struct{ want func(*flow.Flow) bool }

func (p picky) Wants(f *flow.Flow) bool { return p.want(f) }

func (picky) Handle(cx *modules.Context, st *counted, _ *flow.Flow) {
	st.N++
	cx.Emit(evidence.Evidence{Type: "N", Subject: "n", Step: st.N, Count: int64(st.N)})
}

// waiting sets a timer for each record.
type waiting struct{ d time.Duration }

func (w waiting) Handle(cx *modules.Context, st *counted, _ *flow.Flow) {
	st.N++
	cx.After(w.d, uint64(st.N))
}

func (waiting) Fire(cx *modules.Context, _ *counted, key uint64) {
	cx.Emit(evidence.Evidence{Type: "N", Subject: fmt.Sprint(key), Time: cx.Now()})
}

func counting(name string, sc modules.Scope, r modules.Rule[counted], kinds ...flow.Kind) Loaded {
	s := modules.Define(modules.Meta{Name: name, Scope: sc, Kinds: flow.Of(kinds...), Emits: []evidence.Spec{{Type: "N"}}}, struct{}{},
		func(struct{}, modules.Env) (modules.Rule[counted], error) { return r, nil })
	run, err := s.New(s.Defaults(), modules.Env{})
	if err != nil {
		panic(err)
	}
	return Loaded{Spec: s, Run: run}
}

// watcher is a Sink that calls round after each round.
type watcher struct {
	ev    []evidence.Evidence
	lows  []int64
	round func() error
}

func (w *watcher) Evidence(e *evidence.Evidence) error { w.ev = append(w.ev, *e); return nil }
func (w *watcher) News(News) error                     { return nil }
func (w *watcher) Checkpoint(*Checkpoint) error        { return nil }
func (w *watcher) Round(low int64) error {
	w.lows = append(w.lows, low)
	if w.round != nil {
		return w.round()
	}
	return nil
}

const start = int64(1_700_000_000e9)

func host(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

// batch holds n connections, filled by fill.
func batch(n int, mark flow.Mark, fill func(i int, f *flow.Flow)) *flow.Batch {
	b := flow.NewBatch(nil)
	b.Mark, b.Segment = mark, flow.Segment{Path: "x", Print: "x"}
	for i := range n {
		f := b.Next()
		f.Reset(flow.Conn)
		f.Time, f.Src, f.Dst = start, host(1), host(2)
		fill(i, f)
	}
	return b
}

func queue(batches ...*flow.Batch) flow.Input {
	c := make(chan *flow.Batch, len(batches))
	for _, b := range batches {
		c <- b
	}
	close(c)
	return flow.Input{Name: "conn", C: c}
}

func run(t *testing.T, cfg Config, in Inputs, out Sink, mods ...Loaded) *Engine {
	t.Helper()
	cfg.Now, cfg.Lanes, cfg.Strict = time.Now, 1, true
	if cfg.Width == 0 {
		cfg.Width = time.Hour
	}
	e, err := New(cfg, mods, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Run(t.Context(), in, out); err != nil {
		t.Fatal(err)
	}
	return e
}

func all(*flow.Flow) bool { return true }

// A window in which no module wanted a record is not kept, and windows that are
// kept are bounded.
func TestWindowsAreBounded(t *testing.T) {
	hours := func(n int) flow.Input {
		return queue(batch(n, flow.Ended, func(i int, f *flow.Flow) { f.Time += int64(i) * 3600e9 }))
	}
	e := run(t, Config{MaxWindows: 5}, Inputs{Initial: []flow.Input{hours(500)}}, &watcher{},
		counting("a", modules.PerWindow, picky{func(*flow.Flow) bool { return false }}, flow.Conn))
	if n := len(e.lanes[0].owners[1].wins); n != 0 {
		t.Errorf("%d windows without a state", n)
	}
	most := 0
	peek := func(*flow.Flow) bool { // called by the lane's goroutine, which owns what it looks at
		if o := e.lanes[0].owners; len(o) > 1 && o[1] != nil {
			most = max(most, len(o[1].wins))
		}
		return true
	}
	cfg := Config{MaxWindows: 5, Grace: 10_000 * time.Hour, Round: 50, Now: time.Now, Lanes: 1, Width: time.Hour, Strict: true}
	e, err := New(cfg, []Loaded{counting("a", modules.PerWindow, picky{peek}, flow.Conn)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Run(t.Context(), Inputs{Initial: []flow.Input{hours(500)}}, &watcher{}); err != nil {
		t.Fatal(err)
	}
	if most > 5 || e.stats.windowsCut.Load() != 495 {
		t.Errorf("%d windows at a time, %d cut", most, e.stats.windowsCut.Load())
	}
}

// What evicted profiles had planned does not stay until its time comes.
func TestDuesOfEvictedProfilesGo(t *testing.T) {
	var batches []*flow.Batch
	for i := range 60 {
		batches = append(batches, batch(1000, flow.More, func(j int, f *flow.Flow) { f.Src, f.Time = host(1000*i+j), start+int64(i)*1e9 }))
	}
	batches = append(batches, batch(0, flow.Ended, nil))
	most := 0
	var e *Engine
	peek := func(*flow.Flow) bool { // as above
		for d := range e.lanes[0].dues {
			most = max(most, len(e.lanes[0].dues[d]))
		}
		return true
	}
	cfg := Config{MaxProfiles: 100, Now: time.Now, Lanes: 1, Width: time.Hour, Strict: true}
	e, err := New(cfg, []Loaded{
		counting("a", modules.PerWindow, picky{peek}, flow.Conn), counting("b", modules.PerProfile, waiting{24 * time.Hour}, flow.Conn),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Run(t.Context(), Inputs{Initial: []flow.Input{queue(batches...)}}, &watcher{}); err != nil {
		t.Fatal(err)
	}
	if most > 4*minDues {
		t.Errorf("%d things due for 100 profiles", most)
	}
}

// A host that is busy all the time is never the one idle longest.
func TestBusyProfileStays(t *testing.T) {
	for _, most := range []int{10, 1000} {
		b := batch(4*most, flow.Ended, func(i int, f *flow.Flow) {
			if i%2 == 1 {
				f.Src = host(1000 + i)
			}
		})
		w := &watcher{}
		run(t, Config{MaxProfiles: most}, Inputs{Initial: []flow.Input{queue(b)}}, w, counting("a", modules.PerWindow, picky{all}, flow.Conn))
		var top int64
		for _, e := range w.ev {
			if e.Profile == host(1) {
				top = max(top, e.Count)
			}
		}
		if top != int64(2*most) {
			t.Errorf("%d profiles: counted to %d of %d, so it was evicted", most, top, 2*most)
		}
	}
}

// When the output fails the run ends soon, whatever is at hand.
func TestFailingSinkEndsTheRun(t *testing.T) {
	var batches []*flow.Batch
	for range 2000 {
		batches = append(batches, batch(256, flow.More, func(int, *flow.Flow) {}))
	}
	e, err := New(Config{Now: time.Now, Lanes: 2, Width: time.Hour}, []Loaded{counting("a", modules.PerWindow, picky{all}, flow.Conn)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	full := errors.New("disk full")
	err = e.Run(t.Context(), Inputs{Initial: []flow.Input{queue(batches...)}}, &watcher{round: func() error { return full }})
	if n := e.Stats().Records(); !errors.Is(err, full) || n > 100_000 {
		t.Errorf("%v after %d of 512,000 records", err, n)
	}
}

// When following, the sink learns how far the stream has come.
func TestFollowTellsTheTime(t *testing.T) {
	var batches []*flow.Batch
	for i := range 50 {
		batches = append(batches, batch(1, flow.Idle, func(_ int, f *flow.Flow) { f.Time += int64(i) * 600e9 }))
	}
	batches = append(batches, batch(0, flow.Ended, nil))
	w := &watcher{}
	run(t, Config{Follow: true, Round: 1}, Inputs{Initial: []flow.Input{queue(batches...)}}, w, counting("a", modules.PerWindow, picky{all}, flow.Conn))
	if got := w.lows[len(w.lows)-2]; got != start+49*600e9 {
		t.Errorf("the last time told is %d, want %d", got, start+49*600e9)
	}
}

// An old capture that grows gets no ticks of the wall clock, however wide its
// window is; live traffic does.
func TestTicksAreForLiveTraffic(t *testing.T) {
	for _, c := range []struct {
		width time.Duration
		at    int64
		ticks bool
	}{
		{time.Hour, start, false}, {OneWindow, start, false}, {time.Hour, time.Now().Add(-10 * time.Minute).UnixNano(), true},
	} {
		in := make(chan *flow.Batch, 4)
		wake, tick := make(chan struct{}, 1), make(chan time.Time)
		in <- batch(1, flow.Idle, func(_ int, f *flow.Flow) { f.Time = c.at })
		w := &watcher{}
		beforeSecond := 0 // timers that fired while only one record had come
		done, fired := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			tick <- time.Now()
			tick <- time.Now()
			tick <- time.Now() // received once the one before was acted on
			if c.ticks {       // what it led to may still be on its way
				select {
				case <-fired:
				case <-time.After(10 * time.Second):
				}
			}
			in <- batch(1, flow.Ended, func(_ int, f *flow.Flow) { f.Time = c.at + 1e9 })
			close(in)
			wake <- struct{}{}
		}()
		e, err := New(Config{Follow: true, Width: c.width, Now: time.Now, Lanes: 1, Strict: true},
			[]Loaded{counting("b", modules.PerProfile, waiting{2 * time.Minute}, flow.Conn)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.round = func() error {
			if e.Stats().Records() == 1 {
				if beforeSecond == 0 && len(w.ev) > 0 {
					close(fired)
				}
				beforeSecond = len(w.ev)
			}
			return nil
		}
		if err := e.Run(t.Context(), Inputs{Initial: []flow.Input{{Name: "conn", C: in}}, Wake: wake, Tick: tick}, w); err != nil {
			t.Fatal(err)
		}
		<-done
		if len(w.ev) != 2 || (beforeSecond > 0) != c.ticks {
			t.Errorf("width %v: %d timers fired, %d of them by a tick", c.width, len(w.ev), beforeSecond)
		}
	}
}

// Addresses of hardware outlive the batch they were read from.
func TestMACsAreKeptAsCopies(t *testing.T) {
	src, dst := []byte("00:11:22:33:44:55"), []byte("02:aa:bb:cc:dd:ee")
	h := newHosts(nil, 10)
	h.observe(conn("192.168.1.5", "8.8.8.8", flow.Alias(src), flow.Alias(dst)))
	for i := range src {
		src[i], dst[i] = '!', '!'
	}
	if l := h.list(); len(l) != 1 || l[0].MAC != "00:11:22:33:44:55" || h.net.GatewayMAC != "02:aa:bb:cc:dd:ee" {
		t.Errorf("hosts %+v, gateway %s", l, h.net.GatewayMAC)
	}
}
