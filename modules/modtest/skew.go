package modtest

import (
	"bytes"
	"cmp"
	"encoding/gob"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Skew runs a module that joins logs over all of them at once, in step and
// with each log ahead of the others by more and more records, up to all. It
// fails the test when the evidence differs, and returns that of the run in
// step as lines of text, sorted.
//
// The scope of spec must be Network or PerProfile and cfg one of its configs.
// Each log is in the order of its file. Windows are an hour long, from the
// first record on. Skew stands in for the engine with the one rule that
// matters here: a timer fires when every log has reached it, or at the end.
func Skew(t testing.TB, spec modules.Spec, cfg any, logs ...[]*flow.Flow) []string {
	t.Helper()
	if spec.Scope == modules.PerWindow {
		t.Fatal("modtest.Skew: the module has a state per window, so it joins nothing")
	}
	run, err := spec.New(cfg, modules.Env{Width: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for ahead := -1; ahead < len(logs); ahead++ {
		for _, by := range []int{1, 2, 3, 5, 10, 100, 1 << 30} {
			s := skewed{spec: spec, run: run, logs: logs, states: map[profile.ID]any{}}
			s.all(t, ahead, by)
			slices.Sort(s.out)
			if ahead < 0 {
				want = s.out
				break
			}
			if d := gocmp.Diff(want, s.out); d != "" {
				t.Errorf("log %d ahead by %d records (-in step +ahead):\n%s", ahead, by, d)
			}
		}
	}
	return want
}

type skewed struct {
	spec   modules.Spec
	run    modules.Runner
	logs   [][]*flow.Flow
	states map[profile.ID]any
	clocks []int64
	timers []skewTimer
	n      int
	out    []string
}

type skewTimer struct {
	at  int64
	n   int
	id  profile.ID
	key uint64
}

// all runs the records of all logs in the order of their times. A record of
// the log that is ahead comes when the one that is by places before it should.
func (s *skewed) all(t testing.TB, ahead, by int) {
	t.Helper()
	pos := make([]int, len(s.logs))
	s.clocks = make([]int64, len(s.logs))
	for i := range s.clocks {
		s.clocks[i] = -1 << 62
	}
	for {
		next, at := -1, int64(0)
		for i, l := range s.logs {
			if pos[i] == len(l) {
				continue
			}
			when := l[pos[i]].Time
			if i == ahead {
				if when = -1 << 62; pos[i] >= by {
					when = l[pos[i]-by].Time
				}
			}
			if next < 0 || when < at {
				next, at = i, when
			}
		}
		if next < 0 {
			break
		}
		f := s.logs[next][pos[next]]
		pos[next]++
		s.clocks[next] = max(s.clocks[next], f.Time)
		s.fire(t, slices.Min(s.clocks))
		s.call(t, f.Src, s.clocks[next], f.Time, func(cx *modules.Context, st any) { s.run.Handle(cx, st, f) })
	}
	s.fire(t, 1<<62)
}

// fire runs the timers that are due, oldest first.
func (s *skewed) fire(t testing.TB, now int64) {
	t.Helper()
	for len(s.timers) > 0 {
		x := slices.MinFunc(s.timers, func(a, b skewTimer) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.n, b.n)) })
		if x.at > now {
			return
		}
		s.timers = slices.DeleteFunc(s.timers, func(y skewTimer) bool { return y == x })
		s.call(t, x.id, x.at, x.at, func(cx *modules.Context, st any) { s.run.Fire(cx, st, x.key) })
	}
}

// call runs one call of the module on a state that has gone through gob.
func (s *skewed) call(t testing.TB, id profile.ID, now, record int64, fn func(*modules.Context, any)) {
	t.Helper()
	owner := id
	if s.spec.Scope == modules.Network {
		owner = profile.ID{}
	}
	st := s.states[owner]
	if st == nil {
		st = s.run.NewState()
	}
	var b bytes.Buffer
	if err := s.run.Save(gob.NewEncoder(&b), st); err != nil {
		t.Fatal(err)
	}
	st, err := s.run.Load(gob.NewDecoder(&b))
	if err != nil {
		t.Fatal(err)
	}
	s.states[owner] = st
	origin := s.logs[0][0].Time
	for _, l := range s.logs {
		if len(l) > 0 {
			origin = min(origin, l[0].Time)
		}
	}
	at := func(ts int64) profile.Window { return profile.WindowOf(ts, origin, int64(time.Hour)) }
	h := modules.Host{
		Now: now, Record: record, Profile: id, Window: at(record), Net: &profile.Network{}, At: at,
		Emit: func(e evidence.Evidence) {
			s.out = append(s.out, fmt.Sprintf("%s %s %d w%d %q step=%d count=%d uids=%s %s", e.Type, e.Profile, e.Time/1e9, at(e.Time).N,
				e.Subject, e.Step, e.Count, strings.Join(e.UIDs, ","), e.Description))
		},
		After: func(d time.Duration, key uint64) {
			s.n++
			s.timers = append(s.timers, skewTimer{now + max(int64(d), 1), s.n, id, key})
		},
	}
	fn(modules.NewContext(&h), st)
}
