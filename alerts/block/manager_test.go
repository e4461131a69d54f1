package block

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a manager that runs in a bubble of synctest, with a firewall that
// can be made to fail.
type bench struct {
	t     *testing.T
	m     *Manager
	fw    *fake
	audit bytes.Buffer
	log   bytes.Buffer
	stop  func()
}

// fake is a Memory whose calls are recorded, can fail, and can be harmed.
type fake struct {
	*Memory
	ops    []string
	fail   error
	damage bool
	cuts   []netip.Prefix
	looks  int
	cutErr []error // of the calls of Cut, the first first
}

func (f *fake) record(op Op) error {
	var what []string
	for _, e := range op.Entries {
		what = append(what, Text(e.Prefix))
	}
	for _, p := range op.Prefixes {
		what = append(what, Text(p))
	}
	if op.Name == "list" {
		f.looks++
	} else {
		f.ops = append(f.ops, strings.TrimSpace(op.Name+" "+strings.Join(what, " ")))
	}
	if f.fail == nil && op.Name == "block" {
		f.damage = false
	}
	return f.fail
}

func (f *fake) List(ctx context.Context) ([]Entry, error) {
	list, err := f.Memory.List(ctx)
	if err == nil && f.damage {
		err = fmt.Errorf("%w: no table", ErrDamaged)
	}
	return list, err
}

func (f *fake) Cut(_ context.Context, p []netip.Prefix) (int, error) {
	f.cuts = append(f.cuts, p...)
	if len(f.cutErr) == 0 {
		return len(p), nil
	}
	err := f.cutErr[0]
	f.cutErr = f.cutErr[1:]
	return 1, err
}

// watched is a fake that tells of changes.
type watched struct {
	*fake
	changed func() // of the call of Watch
	err     error  // what that returns, at once if not nil
}

func (w *watched) Watch(ctx context.Context, changed func()) error {
	w.changed = changed
	if w.err == nil {
		<-ctx.Done()
	}
	return w.err
}

// start runs a manager on fw, a new one if nil.
func start(t *testing.T, fw *fake, change func(*Options)) *bench {
	t.Helper()
	if fw == nil {
		fw = &fake{Memory: NewMemory(time.Now)}
		fw.Hook = fw.record
	}
	b := &bench{t: t, fw: fw}
	o := Options{
		Config: Defaults(), Blocker: fw, Guard: guard(t, "203.0.113.0/24"), Audit: &b.audit, Now: time.Now,
		Log: slog.New(slog.NewTextHandler(&b.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	if change != nil {
		change(&o)
	}
	m, err := NewManager(o)
	if err != nil {
		t.Fatal(err)
	}
	b.m = m
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	b.stop = func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	synctest.Wait()
	return b
}

// in runs f where it races with nothing: in the goroutine of Run, or when that
// has ended.
func (b *bench) in(f func()) {
	b.t.Helper()
	if err := b.m.call(b.t.Context(), func(context.Context) { f() }); errors.Is(err, ErrStopped) {
		f()
	} else if err != nil {
		b.t.Fatal(err)
	}
}

// took returns the calls of the firewall since the last took that changed
// something.
func (b *bench) took() (ops []string) {
	b.t.Helper()
	b.in(func() { ops, b.fw.ops = b.fw.ops, nil })
	return ops
}

// logged returns what was logged so far.
func (b *bench) logged() (s string) {
	b.t.Helper()
	b.in(func() { s = b.log.String() })
	return s
}

// failing makes the firewall fail, or work again.
func (b *bench) failing(err error) {
	b.t.Helper()
	b.in(func() { b.fw.fail = err })
}

func (b *bench) submit(ip string, change func(*Request)) {
	b.t.Helper()
	r := Request{Prefix: prefix(b.t, ip), Window: time.Hour, Reason: "score 20", AlertID: "a-" + ip, EvidenceIDs: []string{"e1", "e2"}}
	if change != nil {
		change(&r)
	}
	if err := b.m.Submit(r); err != nil {
		b.t.Fatal(err)
	}
}

// records returns what was written to the audit log since the last call, one
// line each: action, prefix and what else is asked for.
func (b *bench) records(more ...func(Record) string) []string {
	b.t.Helper()
	var text string
	b.in(func() {
		text = b.audit.String()
		b.audit.Reset()
	})
	var lines []string
	for line := range strings.Lines(text) {
		var r Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			b.t.Fatalf("%q: %v", line, err)
		}
		words := []string{string(r.Action), r.Prefix}
		for _, f := range more {
			words = append(words, f(r))
		}
		lines = append(lines, strings.Join(words, " "))
	}
	return lines
}

func reason(r Record) string { return r.Reason }

func (b *bench) want(what string, got, want []string) {
	b.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		b.t.Errorf("%s (-want +got)\n%s", what, diff)
	}
}

// TestBlock follows a host through two blocks.
func TestBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, nil)
		began := time.Now()
		b.want("at the start", b.took(), []string{"block"}) // puts the table in place
		b.in(func() {                                       // so that they are taken together
			b.submit("192.0.2.1", nil)
			b.submit("192.0.2.2", nil)
			b.submit("192.0.2.1", nil) // a second alert
		})
		synctest.Wait()
		b.want("one step", b.took(), []string{"block 192.0.2.1 192.0.2.2"})
		var text string
		b.in(func() { text = b.audit.String() })
		for _, want := range []string{`"action":"block"`, `"evidence":["e1","e2"]`, `"alert":"a-192.0.2.1"`, `"offences":1`, `"reason":"score 20"`, `"until":"` + began.UTC().Add(time.Hour).Format(time.RFC3339)} {
			if !strings.Contains(text, want) {
				t.Errorf("the audit log has no %s:\n%s", want, text)
			}
		}
		b.records()

		time.Sleep(30 * time.Minute)
		b.submit("192.0.2.1", func(r *Request) { r.AlertID = "later" })
		synctest.Wait()
		b.want("a later alert", b.records(func(r Record) string {
			return r.Alert + " " + r.Until.Sub(began).String() + fmt.Sprint(" ", r.Offences)
		}),
			[]string{"extend 192.0.2.1 later 1h30m0s 1"})
		b.submit("192.0.2.1", func(r *Request) { r.At = began })
		synctest.Wait()
		b.want("an alert about the past changes nothing", b.records(), nil)

		time.Sleep(31 * time.Minute)
		synctest.Wait()
		b.want("the first end", b.records(), []string{"expire 192.0.2.2"})
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		b.want("the second end", b.records(), []string{"expire 192.0.2.1"})

		b.submit("192.0.2.1", nil)
		again := time.Now()
		synctest.Wait()
		b.want("again", b.records(func(r Record) string { return r.Until.Sub(again).String() + fmt.Sprint(" ", r.Offences) }), []string{"block 192.0.2.1 2h0m0s 2"})
		list, err := b.m.Blocks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != 1 || list[0] != (Entry{Prefix: prefix(t, "192.0.2.1"), Until: again.Add(2 * time.Hour), Offences: 2, Alert: "a-192.0.2.1"}) {
			t.Errorf("blocks: %+v", list)
		}
		b.stop()
		if got := b.m.Stats(); got.Blocked != 1 || got.Expired != 2 || got.Unchanged != 2 || got.Extended != 1 || got.Failures != 0 || got.Cut == 0 {
			t.Errorf("stats %+v", got)
		}
		if !slices.Contains(b.fw.cuts, prefix(t, "192.0.2.2")) {
			t.Errorf("connections cut: %v", b.fw.cuts)
		}
		if err := b.m.Submit(Request{}); !errors.Is(err, ErrStopped) {
			t.Errorf("Submit at the end: %v", err)
		}
		if _, err := b.m.Blocks(t.Context()); !errors.Is(err, ErrStopped) {
			t.Errorf("Blocks at the end: %v", err)
		}
	})
}

// led returns what led to a record.
func led(r Record) string { return r.Alert + " " + strings.Join(r.Evidence, " ") }

// TestTogether has several alerts about a host in one step: the firewall is told
// of the last, and the audit log has each with its evidence.
func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, nil)
		b.took()
		alert := func(ip, id string, ago time.Duration, evidence ...string) {
			b.submit(ip, func(r *Request) { r.AlertID, r.At, r.EvidenceIDs = id, time.Now().Add(-ago), evidence })
		}
		b.in(func() {
			alert("192.0.2.1", "A1", 20*time.Second, "e1", "e2")
			alert("192.0.2.1", "A2", 10*time.Second, "e3")
			alert("192.0.2.2", "B1", 0, "e4")
			alert("192.0.2.1", "A3", 5*time.Second, "e5")
		})
		synctest.Wait()
		b.want("one step", b.took(), []string{"block 192.0.2.1 192.0.2.2"})
		b.want("audit", b.records(led), []string{"block 192.0.2.1 A1 e1 e2", "extend 192.0.2.1 A2 e3", "extend 192.0.2.1 A3 e5", "block 192.0.2.2 B1 e4"})
		if s := b.m.Stats(); s.Blocks != 2 || s.Extended != 2 || s.Blocked != 2 {
			t.Errorf("stats %+v", s)
		}
		list, err := b.m.Blocks(t.Context())
		if err != nil || len(list) != 2 || list[0].Alert != "A3" || time.Until(list[0].Until) != time.Hour-5*time.Second {
			t.Errorf("blocks: %+v, %v", list, err)
		}

		// What the firewall refuses is refused for each of them, and what was there
		// before stays.
		b.in(func() {
			b.fw.Hook = func(Op) error { return fmt.Errorf("%w: new gateway, says the firewall", ErrRefused) }
			alert("192.0.2.2", "B2", -time.Minute, "e6")
			time.Sleep(time.Second)
			alert("192.0.2.2", "B3", 0, "e7")
			alert("192.0.2.3", "C1", 2*time.Second, "e8")
			alert("192.0.2.3", "C2", 0, "e9")
		})
		synctest.Wait()
		b.want("refused", b.records(led), []string{"refuse 192.0.2.2 B2 e6", "refuse 192.0.2.3 C1 e8", "refuse 192.0.2.3 C2 e9"})
		if list, err = b.m.Blocks(t.Context()); err != nil || len(list) != 2 || list[1].Alert != "B1" {
			t.Errorf("blocks: %+v, %v", list, err)
		}
		b.stop()
	})
}

// TestOwed has the firewall fail: when it takes the changes later, the audit log
// says so with what led to each, and they are no blocks that were missing.
func TestOwed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, nil)
		b.failing(errors.New("no buffers"))
		one := func(ip, id string) { b.submit(ip, func(r *Request) { r.AlertID = id }); synctest.Wait() }
		one("192.0.2.1", "A1")
		time.Sleep(300 * time.Millisecond)
		one("192.0.2.1", "A2")
		one("192.0.2.2", "B1")
		b.want("failed", b.records(led), []string{"fail 192.0.2.1 A1 e1 e2", "fail 192.0.2.1 A2 e1 e2", "fail 192.0.2.2 B1 e1 e2"})
		if r := b.m.Do(t.Context(), Command{Do: DoList}); len(r.Blocks) != 2 || len(r.Errors) != 1 ||
			r.Errors[0] != "the firewall does not take changes, 2 of these blocks wait for it: no buffers" {
			t.Errorf("while it fails, the list is %+v", r)
		}
		b.failing(nil)
		one("192.0.2.3", "C1") // is taken at once, the others at the next try
		if r := b.m.Do(t.Context(), Command{Do: DoList}); len(r.Errors) != 1 || !strings.Contains(r.Errors[0], "2 of these blocks are not in the firewall yet") {
			t.Errorf("before the next try, the list is %+v", r)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		b.want("taken", b.records(led), []string{
			"block 192.0.2.3 C1 e1 e2", "block 192.0.2.1 A1 e1 e2", "extend 192.0.2.1 A2 e1 e2", "block 192.0.2.2 B1 e1 e2",
		})
		if s := b.m.Stats(); s.Blocks != 3 || s.Extended != 1 || s.Restored != 0 {
			t.Errorf("stats %+v", s)
		}
		if r := b.m.Do(t.Context(), Command{Do: DoList}); len(r.Blocks) != 3 || len(r.Errors) != 0 {
			t.Errorf("at last the list is %+v", r)
		}

		// A call that has failed may have been carried out all the same.
		b.failing(errors.New("no answer"))
		one("192.0.2.4", "D1")
		b.in(func() { b.fw.entries[prefix(t, "192.0.2.4")] = b.m.wanted[prefix(t, "192.0.2.4")] })
		b.failing(nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		b.want("carried out", b.records(led), []string{"fail 192.0.2.4 D1 e1 e2", "block 192.0.2.4 D1 e1 e2"})

		// One that comes before the next try settles what is owed, and what ends
		// meanwhile is owed no more.
		b.failing(errors.New("no buffers"))
		one("192.0.2.5", "E1")
		b.submit("192.0.2.6", func(r *Request) { r.AlertID, r.Window = "F1", 2*time.Second })
		synctest.Wait()
		time.Sleep(500 * time.Millisecond)
		b.in(func() { b.fw.fail = nil; b.submit("192.0.2.5", func(r *Request) { r.AlertID = "E2" }) })
		synctest.Wait()
		b.want("settled", b.records(led), []string{
			"fail 192.0.2.5 E1 e1 e2", "fail 192.0.2.6 F1 e1 e2", "block 192.0.2.5 E1 e1 e2", "extend 192.0.2.5 E2 e1 e2",
		})
		b.failing(errors.New("no buffers"))
		time.Sleep(3 * time.Second)
		b.failing(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		b.want("ended", b.records(), []string{"expire 192.0.2.6"})
		b.in(func() {
			if len(b.m.owed) != 0 {
				t.Errorf("owed %v", b.m.owed)
			}
		})
		b.stop()
	})
}

// TestProtectedAndMissing has a wanted block that must not be put back: it does
// not keep the others out.
func TestProtectedAndMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, nil)
		for _, ip := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
			b.submit(ip, nil)
		}
		synctest.Wait()
		b.records()
		b.took()
		n := network()
		n.Gateways = append(n.Gateways, netip.MustParseAddr("192.0.2.1"))
		g, err := NewGuard(n, nil)
		if err != nil {
			t.Fatal(err)
		}
		b.in(func() { // the guard knows of one that is a gateway now, and the firewall of another
			b.m.guard.Store(g)
			clear(b.fw.entries)
			record := b.fw.Hook
			b.fw.Hook = func(op Op) error {
				for _, e := range op.Entries {
					if Text(e.Prefix) == "192.0.2.2" {
						return fmt.Errorf("%w: gateway, says the firewall about 192.0.2.2", ErrRefused)
					}
				}
				return record(op)
			}
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		b.want("audit", b.records(reason), []string{"release 192.0.2.1 gateway", "release 192.0.2.2 gateway, says the firewall about 192.0.2.2", "restore 192.0.2.3 "})
		if s := b.m.Stats(); s.Released != 2 || s.Restored != 1 || s.Blocked != 1 {
			t.Errorf("stats %+v", s)
		}
		b.stop()
	})
}

// obedient is a firewall that does nothing once its context has ended.
type obedient struct{ *Memory }

func (o obedient) Block(ctx context.Context, entries []Entry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return o.Memory.Block(ctx, entries)
}

func (o obedient) List(ctx context.Context) ([]Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return o.Memory.List(ctx)
}

// TestStop has requests come while Run is about to stop: it takes either way,
// and loses none.
func TestStop(t *testing.T) {
	for i := range 50 {
		mem := NewMemory(time.Now)
		m, err := NewManager(Options{
			Config: Defaults(), Blocker: obedient{mem}, Guard: guard(t), Log: slog.New(slog.DiscardHandler), Now: time.Now,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		busy, done := make(chan struct{}), make(chan error)
		go func() { done <- m.Run(ctx) }()
		go m.call(t.Context(), func(context.Context) { close(busy); <-ctx.Done() })
		<-busy
		if err := m.Submit(Request{Prefix: prefix(t, "192.0.2.1"), Window: time.Hour}); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if s := m.Stats(); s.Blocks != 1 || len(mem.entries) != 1 {
			t.Fatalf("run %d: stats %+v, %d blocks", i, s, len(mem.entries))
		}
	}
}

// TestTooLate has a request come when the queue is not looked at any more: it is
// counted.
func TestTooLate(t *testing.T) {
	var m *Manager
	late := Request{Prefix: prefix(t, "192.0.2.2"), Window: time.Hour}
	m, err := NewManager(Options{
		Config: Defaults(), Blocker: NewMemory(time.Now), Guard: guard(t), Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Tell: func(Record) {
			if err := m.Submit(late); err != nil {
				t.Error(err)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	busy, done := make(chan struct{}), make(chan error)
	go func() { done <- m.Run(ctx) }()
	go m.call(t.Context(), func(context.Context) {
		if err := m.Submit(Request{Prefix: prefix(t, "192.0.2.1"), Window: time.Hour}); err != nil {
			t.Error(err)
		}
		cancel()
		close(busy)
	})
	<-busy
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// Each block that was carried out has brought one more; the last came too late.
	if s := m.Stats(); s.Dropped != 1 {
		t.Errorf("stats %+v", s)
	}
}

// TestRefuse asks for what must not be blocked.
func TestRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, func(o *Options) { o.Config.MaxBlocked = 2 })
		b.took()
		time.Sleep(10 * time.Second) // so that blocks end between two looks at the firewall
		for _, ip := range []string{"127.0.0.1", "192.168.1.10", "192.168.1.1", "198.51.100.53", "203.0.113.9", "192.168.1.255", "10.1.1.0/24"} {
			b.submit(ip, nil)
		}
		b.submit("192.0.2.9", func(r *Request) { r.At = time.Now().Add(-2 * time.Hour) })
		b.submit("192.0.2.1", nil)
		b.submit("192.0.2.2", nil)
		b.submit("192.0.2.3", nil)
		if err := b.m.Submit(Request{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want := []string{
			"refuse 127.0.0.1 loopback", "refuse 192.168.1.10 own address", "refuse 192.168.1.1 gateway", "refuse 198.51.100.53 DNS server in use",
			"refuse 203.0.113.9 allow-list", "refuse 192.168.1.255 broadcast", "refuse 10.1.1.0/24 a network, and alerts are about hosts",
			"refuse 192.0.2.9 it was too long ago", "refuse 192.0.2.3 max_blocked is reached", "refuse invalid Prefix no address",
			"block 192.0.2.1 score 20", "block 192.0.2.2 score 20",
		}
		got := b.records(reason)
		slices.Sort(got)
		slices.Sort(want)
		b.want("audit", got, want)
		b.submit("203.0.113.9", func(r *Request) { r.AlertID = "a7" })
		synctest.Wait()
		b.want("what led to it", b.records(reason, func(r Record) string { return r.Alert + " " + strings.Join(r.Evidence, " ") }),
			[]string{"refuse 203.0.113.9 allow-list a7 e1 e2"})
		if s := b.m.Stats(); s.Refused["gateway"] != 1 || s.Refused["allow-list"] != 2 || s.Refused["a network"] != 1 || len(s.Refused) != 10 || s.Blocks != 2 {
			t.Errorf("stats %+v", s)
		}
		if !strings.Contains(b.logged(), `msg="not blocked" prefix=203.0.113.9 why=allow-list alert=a-203.0.113.9`) {
			t.Errorf("log\n%s", b.logged())
		}
		for _, op := range b.took() {
			if op != "block 192.0.2.1 192.0.2.2" && op != "block 192.0.2.1" && op != "block 192.0.2.2" {
				t.Errorf("the firewall was told %q", op)
			}
		}
		// There is room again when a block has ended, even before anybody has looked.
		time.Sleep(time.Hour + time.Millisecond)
		b.submit("192.0.2.3", nil)
		synctest.Wait()
		b.want("later", b.took(), []string{"block 192.0.2.3"})
		b.stop()
	})
}

// TestOperator blocks and unblocks by hand.
func TestOperator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, nil)
		ctx := t.Context()
		do := func(ip string) error {
			_, err := b.m.Block(ctx, Request{Prefix: prefix(t, ip), For: 10 * time.Minute, By: "uid 0", Reason: "by hand"})
			return err
		}
		d, err := b.m.Block(ctx, Request{Prefix: prefix(t, "10.1.1.0/24"), For: 10 * time.Minute, By: "uid 0"})
		if err != nil || time.Until(d.Until) != 10*time.Minute || d.Offences != 1 {
			t.Errorf("%+v, %v", d, err)
		}
		for ip, want := range map[string]string{
			"10.1.1.0/25": "overlaps", "10.1.0.0/16": "wider", "192.168.1.0/24": "holds", "192.168.1.1": "gateway",
		} {
			if err := do(ip); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", ip, err)
			}
		}
		for _, ip := range []string{"10.1.1.7", "10.1.2.0/25"} {
			if err := do(ip); err != nil {
				t.Error(err)
			}
		}
		b.records()
		if list, err := b.m.Blocks(ctx); err != nil || list[1].By != "uid 0" || list[1].Reason != "by hand" || list[1].Alert != "" {
			t.Errorf("%+v, %v: want who asked, and why", list, err)
		}
		ended, still, err := b.m.Unblock(ctx, "uid 0", "a mistake", prefix(t, "10.1.1.7"), prefix(t, "10.9.9.9"), prefix(t, "10.1.1.7"))
		if err != nil || len(ended) != 1 || ended[0] != prefix(t, "10.1.1.7") {
			t.Errorf("%v, %v", ended, err)
		}
		if len(still) != 2 || !strings.Contains(still[0].Error(), "10.1.1.7 is still blocked, as a part of 10.1.1.0/24") {
			t.Errorf("what blocks it still: %v", still)
		}
		b.want("audit", b.records(reason, func(r Record) string { return r.By }), []string{"unblock 10.1.1.7 a mistake uid 0"})
		if d, err := b.m.Block(ctx, Request{Prefix: prefix(t, "10.1.1.7"), By: "uid 0"}); err != nil || d.Offences != 1 {
			t.Errorf("an unblocked host is an offender: %+v, %v", d, err)
		}
		if _, still, err := b.m.Unblock(ctx, "uid 0", "", prefix(t, "10.1.1.0/24")); err != nil || len(still) != 1 {
			t.Errorf("%v, %v: want the host that is blocked by itself", still, err)
		}
		if err := do("10.1.1.0/25"); err != nil {
			t.Errorf("overlaps a network that was unblocked: %v", err)
		}
		if ended, still, err = b.m.Unblock(ctx, "uid 0", ""); err != nil || len(ended) != 3 || still != nil {
			t.Errorf("all: %v, %v, %v", ended, still, err)
		}
		b.in(func() {
			if list, err := b.fw.Memory.List(ctx); err != nil || len(list) != 0 {
				t.Errorf("left %v, %v", list, err)
			}
		})
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		b.stop()
		if _, _, err := b.m.Unblock(cancelled, "", ""); err == nil {
			t.Error("no error at the end")
		}
	})
}

// TestStillBlocked names what else blocks a host, or a part of a network.
func TestStillBlocked(t *testing.T) {
	blocked := []netip.Prefix{
		prefix(t, "10.1.1.0/24"), prefix(t, "10.1.2.3"), prefix(t, "10.1.3.0/25"), prefix(t, "10.1.3.7"), prefix(t, "10.1.3.9"),
		prefix(t, "2001:db8::/64"), prefix(t, "2001:db8:1::1"),
	}
	for p, want := range map[string]string{
		"10.1.1.7":        "10.1.1.7 is still blocked, as a part of 10.1.1.0/24: unblock that",
		"10.1.1.0/25":     "10.1.1.0/25 is still blocked, as a part of 10.1.1.0/24: unblock that",
		"10.1.1.0/24":     "<nil>",
		"10.1.2.3":        "<nil>",
		"10.1.2.0/24":     "10.1.2.3, a part of 10.1.2.0/24, is still blocked by itself",
		"10.1.3.0/25":     "2 parts of 10.1.3.0/25 are still blocked by themselves, such as 10.1.3.7",
		"10.1.3.200":      "<nil>",
		"10.1.3.0/24":     "3 parts of 10.1.3.0/24 are still blocked by themselves, such as 10.1.3.0/25",
		"10.1.3.9":        "10.1.3.9 is still blocked, as a part of 10.1.3.0/25: unblock that",
		"0.0.0.0/0":       "5 parts of 0.0.0.0/0 are still blocked by themselves, such as 10.1.1.0/24",
		"2001:db8::1":     "2001:db8::1 is still blocked, as a part of 2001:db8::/64: unblock that",
		"2001:db8:2::/48": "<nil>",
		"::/0":            "2 parts of ::/0 are still blocked by themselves, such as 2001:db8::/64",
	} {
		if got := fmt.Sprint(StillBlocked(prefix(t, p), blocked)); got != want {
			t.Errorf("%s: %s\nwant %s", p, got, want)
		}
	}
}

// TestWhoAsked has the operator in the audit log as such, whatever becomes of
// his block, and the alert when that comes after him.
func TestWhoAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, nil)
		who := func(r Record) string { return "alert " + r.Alert + " by " + r.By }
		block := func(ip string, d time.Duration) {
			t.Helper()
			if _, err := b.m.Block(t.Context(), Request{Prefix: prefix(t, ip), For: d, By: "root", Reason: "ticket " + strings.Repeat("é", MaxReason)}); err != nil {
				t.Error(err)
			}
		}
		block("192.0.2.1", time.Minute)
		block("192.0.2.2", time.Hour)
		block("192.0.2.3", time.Minute)
		b.submit("192.0.2.3", func(r *Request) { r.Window = 2 * time.Minute })
		time.Sleep(90 * time.Second)
		b.in(func() { delete(b.fw.entries, prefix(t, "192.0.2.2")) })
		time.Sleep(time.Minute)
		b.want("records", b.records(who), []string{
			"block 192.0.2.1 alert  by root", "block 192.0.2.2 alert  by root", "block 192.0.2.3 alert  by root",
			"extend 192.0.2.3 alert a-192.0.2.3 by ", "expire 192.0.2.1 alert  by root",
			"expire 192.0.2.3 alert a-192.0.2.3 by ", "restore 192.0.2.2 alert  by root",
		})
		list, err := b.m.Blocks(t.Context())
		if err != nil || len(list) != 1 || len(list[0].Reason) > MaxReason || !strings.HasPrefix(list[0].Reason, "ticket é") || !utf8.ValidString(list[0].Reason) {
			t.Errorf("%+v, %v", list, err)
		}
		b.stop()
		b = start(t, b.fw, nil)
		b.want("after a restart", b.records(who), []string{"find 192.0.2.2 alert  by root"})
		if _, _, err := b.m.Unblock(t.Context(), "joe", "", prefix(t, "192.0.2.2")); err != nil {
			t.Error(err)
		}
		b.want("who ended it", b.records(who), []string{"unblock 192.0.2.2 alert  by joe"})
		b.stop()
	})
}

// TestLog has what follows from a change behind it, though it is written before
// the Manager has written the change down.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		log := NewLog(&text)
		done := make(chan error, 2)
		b := start(t, nil, func(o *Options) { o.Audit = log })
		b.in(func() {
			b.fw.Hook = func(op Op) error {
				if log.mu.TryLock() {
					log.mu.Unlock()
					t.Errorf("%s: others may write", op.Name)
				}
				if op.Name != "list" {
					go func() { done <- WriteRecord(log, Record{Action: ActIsolate, Prefix: "after " + op.Name}) }()
				}
				return nil
			}
		})
		b.submit("192.0.2.1", nil)
		synctest.Wait()
		if _, _, err := b.m.Unblock(t.Context(), "root", "", prefix(t, "192.0.2.1")); err != nil {
			t.Error(err)
		}
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
		b.stop()
		var got []string
		for line := range strings.Lines(text.String()) {
			var r Record
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			got = append(got, string(r.Action)+" "+r.Prefix)
		}
		b.want("the log", got, []string{"block 192.0.2.1", "isolate after block", "unblock 192.0.2.1", "isolate after unblock"})
	})
}

// TestFailure keeps a decision that the firewall did not take, and tries
// again, less and less often.
func TestFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, nil)
		b.took()
		b.failing(errors.New("no buffers"))
		b.submit("192.0.2.1", nil)
		synctest.Wait()
		if got := b.records(func(r Record) string { return r.Error }); len(got) != 1 || got[0] != "fail 192.0.2.1 no buffers" {
			t.Errorf("audit %q", got)
		}
		time.Sleep(40 * time.Second)
		b.submit("192.0.2.2", nil)
		synctest.Wait()
		time.Sleep(40 * time.Second)
		if n := strings.Count(b.logged(), "did not take"); n != 1 {
			t.Errorf("the same failure was reported %d times\n%s", n, b.logged())
		}
		if s := b.m.Stats(); s.Failures < 6 || s.Failures > 12 || s.Blocks != 0 {
			t.Errorf("stats %+v", s)
		}
		b.failing(nil)
		b.took()
		time.Sleep(time.Minute)
		synctest.Wait()
		b.want("caught up", b.took(), []string{"block 192.0.2.1 192.0.2.2"})
		if !strings.Contains(b.logged(), "works again") {
			t.Error(b.logged())
		}
		// A failure is tried again after a second, not at the next minute.
		b.failing(errors.New("once more"))
		b.submit("192.0.2.3", nil)
		synctest.Wait()
		b.failing(nil)
		b.took()
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		b.want("soon", b.took(), []string{"block 192.0.2.3"})
		b.stop()
	})
}

// TestFirewallRefuses has a firewall that knows better than the guard: the
// others of the step are blocked.
func TestFirewallRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, nil)
		b.in(func() {
			record := b.fw.Hook
			b.fw.Hook = func(op Op) error {
				for _, e := range op.Entries {
					if Text(e.Prefix) == "192.0.2.2" {
						return fmt.Errorf("%w: new gateway, says the firewall about 192.0.2.2", ErrRefused)
					}
				}
				return record(op)
			}
			for _, ip := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
				b.submit(ip, nil)
			}
		})
		synctest.Wait()
		got := b.records(reason)
		slices.Sort(got)
		b.want("audit", got, []string{"block 192.0.2.1 score 20", "block 192.0.2.3 score 20", "refuse 192.0.2.2 new gateway, says the firewall about 192.0.2.2"})
		if s := b.m.Stats(); s.Blocked != 2 || s.Failures != 0 || s.Refused["new gateway"] != 1 {
			t.Errorf("stats %+v", s)
		}
		b.stop()
	})
}

// TestReconcile makes the firewall differ from what is wanted, in every way.
func TestReconcile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, nil)
		for _, ip := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"} {
			b.submit(ip, nil)
		}
		synctest.Wait()
		b.records()
		b.took()
		mem := b.fw.Memory
		change := func(f func()) {
			b.in(f)
			time.Sleep(time.Minute + time.Second)
			synctest.Wait()
		}
		until := time.Now().Add(time.Hour)
		change(func() {
			delete(mem.entries, prefix(t, "192.0.2.1"))
			for ip, d := range map[string]time.Duration{"192.0.2.2": -30 * time.Minute, "192.0.2.3": 30 * time.Minute, "192.0.2.4": time.Second, "192.0.2.5": 0, "192.168.1.1": 0} {
				mem.entries[prefix(t, ip)] = Entry{Prefix: prefix(t, ip), Until: until.Add(d), Offences: 4}
			}
		})
		got := b.records(func(r Record) string { return r.Until.Sub(until).String() })
		slices.Sort(got)
		b.want("audit", got, []string{"find 192.0.2.3 30m0s", "find 192.0.2.5 0s", "release 192.168.1.1 0s", "restore 192.0.2.1 0s", "restore 192.0.2.2 0s"})
		b.want("calls", b.took(), []string{"unblock 192.168.1.1", "block 192.0.2.1 192.0.2.2"})
		time.Sleep(61 * time.Minute)
		synctest.Wait()
		b.want("ends", b.records(), []string{"expire 192.0.2.1", "expire 192.0.2.2", "expire 192.0.2.4", "expire 192.0.2.5"})

		change(func() { clear(mem.entries); b.fw.damage = true })
		b.want("rebuilt", b.took(), []string{"block 192.0.2.3"})
		b.want("quiet", b.took(), nil)
		change(func() { b.fw.damage = true }) // the rules are gone, and the blocks are all there
		b.want("rebuilt with nothing missing", b.took(), []string{"block"})
		if s := b.m.Stats(); s.Damaged != 2 || s.Restored != 3 || s.Found != 1 || s.Released != 1 || s.Blocked != 1 {
			t.Errorf("stats %+v", s)
		}
		if !strings.Contains(b.logged(), "removed by somebody else") {
			t.Error(b.logged())
		}
		b.submit("192.0.2.5", nil) // it was found with four offences
		synctest.Wait()
		b.want("found before", b.records(func(r Record) string { return fmt.Sprint(r.Offences) })[1:], []string{"block 192.0.2.5 5"})
		b.stop()
	})
}

// TestWatch has a firewall that tells when somebody changes it.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w *watched
		watch := func(o *Options) {
			w = &watched{fake: o.Blocker.(*fake)}
			o.Blocker = w
		}
		b := start(t, nil, watch)
		if w.changed == nil {
			t.Fatal("nobody watches")
		}
		b.submit("192.0.2.1", nil)
		synctest.Wait()
		b.took()
		looks := func() (n int) {
			b.t.Helper()
			b.in(func() { n, b.fw.looks = b.fw.looks, 0 })
			return n
		}
		looks()
		time.Sleep(30 * time.Second)
		if n := looks(); n != 0 {
			t.Errorf("%d looks at a firewall that nobody has changed", n)
		}
		flush := func() {
			b.in(func() { clear(b.fw.entries); b.fw.damage = true })
			w.changed()
		}
		flush()
		time.Sleep(time.Second)
		synctest.Wait()
		b.want("put back", b.took(), []string{"block 192.0.2.1"})
		if n := looks(); n != 1 {
			t.Errorf("%d looks after a change", n)
		}

		time.Sleep(30 * time.Second)
		looks()
		for range 10_000 { // somebody who is never done
			w.changed()
			time.Sleep(time.Millisecond)
		}
		flush()
		time.Sleep(time.Second)
		synctest.Wait()
		b.want("put back meanwhile", b.took(), []string{"block 192.0.2.1"})
		if n := looks(); n < 10 || n > 12 {
			t.Errorf("%d looks in 11 seconds", n)
		}
		b.stop()

		b = start(t, nil, func(o *Options) { watch(o); w.err = errors.New("no such group") })
		b.submit("192.0.2.1", nil)
		synctest.Wait()
		b.took()
		b.in(func() { clear(b.fw.entries); b.fw.damage = true })
		time.Sleep(time.Minute)
		synctest.Wait()
		b.want("without being told", b.took(), []string{"block 192.0.2.1"})
		if n := strings.Count(b.logged(), "no such group"); n != 1 {
			t.Errorf("reported %d times", n)
		}
		b.stop()
	})
}

// TestEnd writes the end of a block down when it comes, or when the manager
// stops.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead time.Duration
		b := start(t, nil, func(o *Options) { o.Now = func() time.Time { return time.Now().Add(ahead) } })
		began := time.Now()
		at := func(r Record) string { return r.Time.Sub(began).String() }
		for ip, d := range map[string]time.Duration{"192.0.2.1": 90 * time.Second, "192.0.2.2": 20 * time.Second, "192.0.2.3": 20300 * time.Millisecond} {
			b.submit(ip, func(r *Request) { r.Window = d })
		}
		b.submit("192.0.2.4", nil)
		synctest.Wait()
		b.records()
		time.Sleep(10 * time.Second)
		b.submit("192.0.2.2", func(r *Request) { r.Window = 30 * time.Second }) // later than it was
		synctest.Wait()
		b.records()
		time.Sleep(100 * time.Second)
		synctest.Wait()
		b.want("ends", b.records(at), []string{"expire 192.0.2.3 21s", "expire 192.0.2.2 40s", "expire 192.0.2.1 1m30s"})
		b.in(func() { ahead = 2 * time.Hour }) // as if the machine had slept
		b.stop()
		b.want("at the stop", b.records(), []string{"expire 192.0.2.4"})
		if s := b.m.Stats(); s.Expired != 4 || s.Blocked != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestCutFails says once what cannot be done, and once what has failed.
func TestCutFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, func(o *Options) {
			lacking, failed := fmt.Errorf("sockets: %w", errors.ErrUnsupported), errors.New("no buffers")
			o.Blocker.(*fake).cutErr = []error{lacking, lacking, failed, failed}
		})
		for range 5 {
			b.submit("192.0.2.1", nil)
			time.Sleep(10 * time.Second)
		}
		synctest.Wait()
		for _, what := range []string{"unsupported", "no buffers"} {
			if n := strings.Count(b.logged(), what); n != 1 {
				t.Errorf("%q is reported %d times\n%s", what, n, b.logged())
			}
		}
		b.stop()
		if s := b.m.Stats(); s.Cut != 5 || s.Failures != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestProtect changes the network: a host that was blocked is a gateway now.
func TestProtect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, nil)
		b.submit("192.0.2.1", nil)
		b.submit("192.0.2.2", nil)
		synctest.Wait()
		b.records()
		n := network()
		n.Gateways = append(n.Gateways, netip.MustParseAddr("192.0.2.1"))
		g, err := NewGuard(n, nil)
		if err != nil {
			t.Fatal(err)
		}
		b.m.Protect(g)
		synctest.Wait()
		b.want("audit", b.records(reason), []string{"release 192.0.2.1 gateway"})
		b.submit("192.0.2.1", nil)
		synctest.Wait()
		b.submit("203.0.113.9", nil) // was on the allow-list of the old one
		synctest.Wait()
		b.want("audit", b.records(), []string{"refuse 192.0.2.1", "block 203.0.113.9"})
		b.stop()
	})
}

// TestRestart stops and starts: blocks come from the firewall, offences from
// the file, and what was in the queue at the end is not lost.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "offences.json")
		file := func(o *Options) { o.StateFile = path }
		b := start(t, nil, file)
		b.submit("192.0.2.1", func(r *Request) { r.Window = time.Minute })
		synctest.Wait()
		time.Sleep(5 * time.Minute)
		b.submit("192.0.2.2", nil)
		b.stop()
		fw := b.fw

		b = start(t, fw, file)
		b.want("found", b.records(func(r Record) string { return r.Alert }), []string{"find 192.0.2.2 a-192.0.2.2"})
		b.submit("192.0.2.1", nil)
		synctest.Wait()
		b.want("a repeat offender", b.records(func(r Record) string { return fmt.Sprint(r.Offences) }), []string{"block 192.0.2.1 2"})
		b.stop()

		if err := os.WriteFile(path, []byte("{not json"), 0o600); err != nil {
			t.Fatal(err)
		}
		b = start(t, fw, file)
		if !strings.Contains(b.logged(), "offences of former runs are not known") {
			t.Error(b.logged())
		}
		b.submit("192.0.2.1", nil)
		b.submit("192.0.2.7", nil)
		synctest.Wait()
		b.stop()
		if o, err := loadState(path); err != nil || o[prefix(t, "192.0.2.1")].Count != 2 || o[prefix(t, "192.0.2.7")].Count != 1 {
			t.Errorf("after a file that was no JSON, the kernel's numbers count: %v, %v", o, err)
		}
	})
}

// TestDryRun decides, writes down and blocks nobody.
func TestDryRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "offences.json")
		var told []string
		b := start(t, nil, func(o *Options) {
			o.Config.DryRun, o.StateFile = true, path
			o.Tell = func(r Record) { told = append(told, fmt.Sprint(r.Action, " ", r.Prefix, " ", r.DryRun)) }
		})
		b.submit("192.0.2.1", nil)
		synctest.Wait()
		b.submit("192.168.1.1", nil)
		synctest.Wait()
		b.want("audit", b.records(func(r Record) string { return fmt.Sprint(r.DryRun) }), []string{"block 192.0.2.1 true", "refuse 192.168.1.1 true"})
		if !strings.Contains(b.logged(), "would have blocked") {
			t.Error(b.logged())
		}
		time.Sleep(time.Hour + 2*time.Minute)
		synctest.Wait()
		b.want("its end", b.records(), []string{"expire 192.0.2.1"})
		b.want("who watches", told, []string{"block 192.0.2.1 true", "refuse 192.168.1.1 true", "expire 192.0.2.1 true"})
		b.stop()
		b.want("the firewall", b.took(), nil)
		if _, err := os.Stat(path); err == nil {
			t.Error("a dry run has saved offences")
		}
	})
}

// TestQueue floods a manager that does not run yet.
func TestQueue(t *testing.T) {
	m, err := NewManager(Options{Config: Defaults(), Blocker: NewMemory(time.Now), Guard: guard(t), Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	a, full := netip.MustParseAddr("10.0.0.0"), 0
	for range queueSize + 100 {
		a = a.Next()
		if err := m.Submit(Request{Prefix: Single(a)}); errors.Is(err, ErrFull) {
			full++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if s := m.Stats(); full != 100 || s.Dropped != 100 {
		t.Errorf("%d did not fit, stats %+v", full, s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Run(ctx); err != nil { // carries out what waits
		t.Fatal(err)
	}
	if s := m.Stats(); s.Blocks != queueSize {
		t.Errorf("stats %+v", s)
	}
}

// TestStartFails says at once what is missing.
func TestStartFails(t *testing.T) {
	fw := NewMemory(time.Now)
	fw.Hook = func(Op) error { return fmt.Errorf("open nftables: %w", ErrPermission) }
	m, err := NewManager(Options{Config: Defaults(), Blocker: fw, Guard: guard(t), Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(t.Context()); !errors.Is(err, ErrPermission) {
		t.Errorf("Run: %v", err)
	}
	if _, err := NewManager(Options{Config: Defaults()}); err == nil {
		t.Error("a manager of nothing")
	}
	if _, err := NewManager(Options{}); err == nil || !strings.Contains(err.Error(), "max_duration") {
		t.Errorf("without a configuration: %v", err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// TestAuditFails blocks all the same, and says so once.
func TestAuditFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, func(o *Options) { o.Audit = broken{} })
		b.submit("192.0.2.1", nil)
		synctest.Wait()
		b.submit("192.0.2.2", nil)
		synctest.Wait()
		b.stop()
		if s := b.m.Stats(); s.Blocked != 2 || s.Unaudited != 2 {
			t.Errorf("stats %+v", s)
		}
		if n := strings.Count(b.logged(), "disk full"); n != 1 {
			t.Errorf("reported %d times", n)
		}
	})
}

// full is a disk that takes half of one Write, and then all.
type full struct {
	bytes.Buffer
	half bool
}

func (f *full) Write(b []byte) (int, error) {
	if f.half {
		f.half = false
		n, _ := f.Buffer.Write(b[:len(b)/2])
		return n, errors.New("disk full")
	}
	return f.Buffer.Write(b)
}

// TestAuditTorn writes whole lines behind half a line.
func TestAuditTorn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &full{}
		b := start(t, nil, func(o *Options) { o.Audit = disk })
		b.in(func() { disk.half = true })
		for _, ip := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
			b.submit(ip, nil)
			synctest.Wait()
		}
		b.stop()
		var got []string
		for line := range strings.Lines(disk.String()) {
			var r Record
			if json.Unmarshal([]byte(line), &r) == nil {
				got = append(got, r.Prefix)
			}
		}
		b.want("whole lines", got, []string{"192.0.2.2", "192.0.2.3"})
	})
}

// BenchmarkDecide is the cost of an alert without that of the kernel.
func BenchmarkDecide(b *testing.B) {
	cfg := Defaults()
	cfg.MaxBlocked = maxMaxBlocked
	m, err := NewManager(Options{Config: cfg, Blocker: NewMemory(time.Now), Guard: guard(b), Audit: &bytes.Buffer{}, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	a := netip.MustParseAddr("10.0.0.0")
	r := []Request{{Window: time.Hour, Reason: "score 20, threshold 15", AlertID: "a", EvidenceIDs: []string{"e1", "e2", "e3"}}}
	for b.Loop() {
		a = a.Next()
		r[0].Prefix = Single(a)
		if out := m.decide(b.Context(), r); out[0].err != nil && !errors.Is(out[0].err, ErrRefused) {
			b.Fatal(out[0].err)
		}
		m.toCut = nil
	}
}
