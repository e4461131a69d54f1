package online

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/parsers/flow"
)

func limits() Limits {
	return Limits{Timeout: 10 * time.Second, RatePerMinute: 60_000, Queue: 16, Cache: time.Hour, Negative: 300 * time.Second, CacheEntries: 100}
}

// host returns one of many hosts inside, peer one of many outside.
func host(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
func peer(i int) string     { return fmt.Sprintf("8.8.%d.%d", i>>8, i&255) }

func asking(src netip.Addr, peer string, at time.Time) Question {
	return Question{Of: intel.Address, Subject: peer, Why: Evidence, Src: src, Dst: netip.MustParseAddr(peer), DstPort: 443, UID: "C1", Time: at.UnixNano()}
}

func found(names ...string) flow.LookupPart { return flow.LookupPart{Found: flow.True, Names: names} }

// Four a minute means that no minute sees a fifth.
func TestRateIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []time.Time
		l := limits()
		l.RatePerMinute = 4
		a := fakes(t, Options{Recorder: newCollector()}, l, func(context.Context, subject) (flow.LookupPart, error) {
			asked = append(asked, time.Now())
			return found("a.example"), nil
		})
		for i := range 12 {
			a.Ask(asking(host(1), peer(i), time.Now()))
		}
		stop := running(t, a)
		start := time.Now()
		time.Sleep(10 * time.Minute)
		stop()
		if len(asked) != 12 {
			t.Fatalf("%d requests", len(asked))
		}
		for i := range asked {
			if i >= 4 && asked[i].Sub(asked[i-4]) < time.Minute {
				t.Errorf("requests %d to %d within %v", i-4, i, asked[i].Sub(asked[i-4]))
			}
		}
		if took := asked[11].Sub(start); took != 165*time.Second {
			t.Errorf("the last one after %v", took)
		}
	})
}

func TestPaceBursts(t *testing.T) {
	p := newPace(600) // ten a second, so ten may go at once
	now := time.Unix(1000, 0)
	n := 0
	for p.take(now) == 0 {
		n++
	}
	if n != 10 {
		t.Errorf("%d at once", n)
	}
	if d := p.take(now); d != 100*time.Millisecond {
		t.Errorf("the next after %v", d)
	}
	if d := p.take(now.Add(100 * time.Millisecond)); d != 0 {
		t.Errorf("and then still %v", d)
	}
}

// times are those of requests.
type times struct {
	mu sync.Mutex
	at []time.Duration
}

func (x *times) add(d time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.at = append(x.at, d)
}

func (x *times) all() []time.Duration {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.at)
}

func TestBreakerOpensAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var well atomic.Bool
		var at times
		start := time.Now()
		c := newCollector()
		a := fakes(t, Options{Recorder: c, Log: slog.New(slog.NewTextHandler(&log, nil))}, limits(), func(context.Context, subject) (flow.LookupPart, error) {
			at.add(time.Since(start).Truncate(time.Second))
			if !well.Load() {
				return flow.LookupPart{}, errors.New("connection refused")
			}
			return found("a.example"), nil
		})
		stop := running(t, a)
		for i := range 10 {
			a.Ask(asking(host(1), peer(i), time.Now()))
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if asked := at.all(); len(asked) != breakAfter {
			t.Errorf("%d requests before the circuit opened", len(asked))
		}
		if s := a.Status()[0]; s.State != "paused" || s.Reason != "connection refused" || s.Queued != 5 || s.Failed != breakAfter {
			t.Errorf("status %+v", s)
		}
		time.Sleep(60 * time.Second) // the first probe fails
		synctest.Wait()
		if asked := at.all(); len(asked) != breakAfter+1 || asked[breakAfter] != time.Minute {
			t.Errorf("requests at %v", asked)
		}
		well.Store(true)
		time.Sleep(120 * time.Second) // the next is two minutes after it
		synctest.Wait()
		if asked := at.all(); len(asked) != 10 || asked[breakAfter+1] != 3*time.Minute {
			t.Errorf("requests at %v", asked)
		}
		if s := a.Status()[0]; s.State != "on" || s.Found != 4 || s.Queued != 0 {
			t.Errorf("status %+v", s)
		}
		stop()
		for _, want := range []string{"level=WARN msg=\"an online service does not answer and is left alone\" service=fake for=1m0s", "answers again"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("log without %q:\n%s", want, log.String())
			}
		}
		if n := len(c.all()); n != 10 {
			t.Errorf("%d answers", n)
		}
	})
}

func TestQuotaIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []time.Duration
		start := time.Now()
		c := newCollector()
		replies := []error{&quotaError{}, &quotaError{}, &quotaError{after: 7 * time.Second}, nil}
		a := fakes(t, Options{Recorder: c}, limits(), func(context.Context, subject) (flow.LookupPart, error) {
			asked = append(asked, time.Since(start))
			return found(), replies[len(asked)-1]
		})
		stop := running(t, a)
		a.Ask(asking(host(1), publicV4, start))
		time.Sleep(time.Second)
		if s := a.Status()[0]; s.State != "paused" || s.Quota != 1 {
			t.Errorf("status %+v", s)
		}
		time.Sleep(10 * time.Minute)
		stop()
		if d := cmp.Diff([]time.Duration{0, time.Minute, 3 * time.Minute, 3*time.Minute + 7*time.Second}, asked); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
		if got := c.all(); len(got) != 1 || got[0].Time != start.Add(187*time.Second).UnixNano() {
			t.Errorf("answers %+v", got)
		}
	})
}

func TestRefusalStopsTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		a := fakes(t, Options{Recorder: newCollector()}, limits(), func(context.Context, subject) (flow.LookupPart, error) {
			n++
			return flow.LookupPart{}, &refusedError{"the key is wrong"}
		})
		stop := running(t, a)
		for i := range 4 {
			a.Ask(asking(host(1), peer(i), time.Now()))
		}
		synctest.Wait()
		a.Ask(asking(host(1), peer(9), time.Now()))
		time.Sleep(time.Hour)
		synctest.Wait()
		s := a.Status()[0]
		if n != 1 || s.State != "stopped" || s.Reason != "the key is wrong" || s.Dropped["stopped"] != 5 || s.Queued != 0 {
			t.Errorf("%d requests, %+v", n, s)
		}
		stop()
	})
}

// Questions about one subject are one request; each host gets its answer, and
// gets it once.
func TestMergedCachedRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		c := newCollector()
		a := fakes(t, Options{Recorder: c}, limits(), func(context.Context, subject) (flow.LookupPart, error) {
			n++
			return found("a.example"), nil
		})
		start := time.Now()
		a.Ask(asking(host(1), publicV4, start))
		a.Ask(asking(host(2), publicV4, start))
		a.Ask(asking(host(2), publicV4, start.Add(59*time.Minute)))
		stop := running(t, a)
		synctest.Wait()
		a.Ask(asking(host(3), publicV4, start))
		a.Ask(asking(host(1), publicV4, start.Add(time.Second)))
		a.Ask(asking(host(1), publicV4, start.Add(time.Hour))) // another window
		synctest.Wait()
		want := Counts{Questions: 6, Asked: 1, Found: 1, Merged: 1, Cached: 2, Repeated: 2, Dropped: map[string]int64{}}
		if d := cmp.Diff(want, a.Status()[0].Counts); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
		if n != 1 || len(c.all()) != 4 {
			t.Errorf("%d requests, %d answers", n, len(c.all()))
		}
		time.Sleep(61 * time.Minute) // the answer is old
		a.Ask(asking(host(1), publicV4, start.Add(5*time.Hour)))
		synctest.Wait()
		if n != 2 {
			t.Errorf("%d requests after the cache's time", n)
		}
		stop()
	})
}

func TestFailuresAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		c := newCollector()
		a := fakes(t, Options{Recorder: c}, limits(), func(context.Context, subject) (flow.LookupPart, error) {
			if n++; n == 1 {
				return flow.LookupPart{}, errors.New("it answered 500")
			}
			return unknown(), nil
		})
		stop := running(t, a)
		ask := func(i int) {
			a.Ask(asking(host(i), publicV4, time.Now()))
			synctest.Wait()
		}
		ask(1)
		time.Sleep(299 * time.Second)
		ask(1)
		ask(2)
		if n != 1 {
			t.Errorf("%d requests within the time of a failure", n)
		}
		time.Sleep(2 * time.Second)
		ask(1)
		if n != 2 {
			t.Errorf("%d requests after the time of a failure", n)
		}
		time.Sleep(301 * time.Second)
		ask(3)
		if n != 3 {
			t.Errorf("%d requests after the time of not knowing", n)
		}
		stop()
		var said []string
		for _, x := range c.all() {
			said = append(said, fmt.Sprint(x.Src, x.Found, x.Error))
		}
		// The second of 10.0.0.1 was within five minutes of its first.
		want := []string{fmt.Sprint(host(1), flow.Unset, "it answered 500"), fmt.Sprint(host(2), flow.Unset, "it answered 500"), fmt.Sprint(host(1), flow.False, ""), fmt.Sprint(host(3), flow.False, "")}
		if d := cmp.Diff(want, said); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
	})
}

func TestAskNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		a := fakes(t, Options{Recorder: newCollector()}, limits(), func(ctx context.Context, _ subject) (flow.LookupPart, error) {
			select {
			case <-ctx.Done():
			case <-hang:
			}
			return flow.LookupPart{}, ctx.Err()
		})
		stop := running(t, a)
		a.Ask(asking(host(1), peer(0), time.Now()))
		synctest.Wait() // it is on its way
		for i := range 20 {
			a.Ask(asking(host(1), peer(1+i), time.Now())) // 16 have room
		}
		for i := range 70 {
			a.Ask(asking(host(2+i), peer(0), time.Now())) // 63 may wait with the first one
		}
		s := a.Status()[0]
		if d := cmp.Diff(map[string]int64{"queue full": 4, "waiting full": 7}, s.Dropped); d != "" || s.Queued != 17 {
			t.Errorf("queued %d, dropped (-want +got)\n%s", s.Queued, d)
		}
		stop()
		s = a.Status()[0]
		if s.Dropped["shutdown"] != 80 || s.Queued != 0 {
			t.Errorf("at the end: %+v", s)
		}
		a.Ask(asking(host(1), peer(77), time.Now()))
		if s = a.Status()[0]; s.Dropped["stopped"] != 1 {
			t.Errorf("after the end: %+v", s)
		}
	})
}

func TestSlowServiceTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCollector()
		a := fakes(t, Options{Recorder: c}, limits(), func(ctx context.Context, _ subject) (flow.LookupPart, error) {
			<-ctx.Done()
			return flow.LookupPart{}, ctx.Err()
		})
		stop := running(t, a)
		a.Ask(asking(host(1), publicV4, time.Now()))
		time.Sleep(time.Minute)
		stop()
		if got := c.all(); len(got) != 1 || got[0].Error != "no answer within 10s" || got[0].Found != flow.Unset {
			t.Errorf("answers %+v", got)
		}
	})
}

// The same questions give the same bytes, with the times of the questions in
// any order.
func TestLogIsDeterministic(t *testing.T) {
	run := func() string {
		var out bytes.Buffer
		synctest.Test(t, func(t *testing.T) {
			l := limits()
			l.RatePerMinute = 60
			a := fakes(t, Options{Recorder: NewWriter(&out)}, l, func(_ context.Context, s subject) (flow.LookupPart, error) {
				time.Sleep(250 * time.Millisecond)
				return found(s.addr.String() + ".example"), nil
			})
			base := time.Unix(1700000000, 0)
			for _, i := range []int{3, 1, 2, 1} {
				a.Ask(asking(host(i), peer(i), base.Add(time.Duration(i)*time.Millisecond)))
			}
			stop := running(t, a)
			time.Sleep(time.Minute)
			stop()
		})
		return out.String()
	}
	got := run()
	want := `{"_path":"lookup","ts":1700000000.253,"uid":"C1","id.orig_h":"10.0.0.3","id.resp_h":"8.8.0.3","id.resp_p":443,"service":"fake","of":"ip","subject":"8.8.0.3","found":true,"names":["8.8.0.3.example"]}
{"_path":"lookup","ts":1700000001.251,"uid":"C1","id.orig_h":"10.0.0.1","id.resp_h":"8.8.0.1","id.resp_p":443,"service":"fake","of":"ip","subject":"8.8.0.1","found":true,"names":["8.8.0.1.example"]}
{"_path":"lookup","ts":1700000002.252,"uid":"C1","id.orig_h":"10.0.0.2","id.resp_h":"8.8.0.2","id.resp_p":443,"service":"fake","of":"ip","subject":"8.8.0.2","found":true,"names":["8.8.0.2.example"]}
`
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if again := run(); again != got {
		t.Errorf("then\n%s", again)
	}
}

// Times never go back, though questions do.
func TestAnswersAreMonotone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCollector()
		a := fakes(t, Options{Recorder: c}, limits(), func(context.Context, subject) (flow.LookupPart, error) { return unknown(), nil })
		base := time.Unix(1700000000, 0)
		a.Ask(asking(host(1), peer(1), base))
		a.Ask(asking(host(1), peer(2), base.Add(-time.Hour)))
		stop := running(t, a)
		synctest.Wait()
		stop()
		if got := c.all(); len(got) != 2 || got[0].Time != base.UnixNano() || got[1].Time != got[0].Time {
			t.Errorf("answers %+v", got)
		}
	})
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestUnwrittenAnswersAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		o := Options{Recorder: NewWriter(full{}), Log: slog.New(slog.NewTextHandler(&log, nil))}
		a := fakes(t, o, limits(), func(context.Context, subject) (flow.LookupPart, error) { return unknown(), nil })
		for i := range 3 {
			a.Ask(asking(host(1), peer(i), time.Now()))
		}
		stop := running(t, a)
		synctest.Wait()
		stop()
		if a.Unwritten() != 3 || strings.Count(log.String(), "no space left") != 1 {
			t.Errorf("%d unwritten, log\n%s", a.Unwritten(), log.String())
		}
	})
}

// What a service says is cut to size before it is kept.
func TestAnswersAreBounded(t *testing.T) {
	long := strings.Repeat("ř", 400)
	got := bound(flow.LookupPart{
		Found: flow.True, Verdict: long, Names: strings.Split(strings.Repeat("a,", 99), ","), Score: 7, Malicious: -1,
		Lists: []string{"\xff", " b "},
	})
	want := flow.LookupPart{Found: flow.True, Verdict: strings.Repeat("ř", 256), Names: strings.Split(strings.Repeat("a,", 31)+"a", ","), Lists: []string{"b"}}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
