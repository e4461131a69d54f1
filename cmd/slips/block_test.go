package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/block"
	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/internal/service"
)

// answerWith has somebody listen at path who answers everything with text, and
// tells what was asked.
func answerWith(t *testing.T, path, text string) (asked chan string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	must(t, err)
	asked = make(chan string, 10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			line := make([]byte, 1<<16)
			n, _ := c.Read(line)
			asked <- string(line[:n])
			_, _ = io.WriteString(c, text)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return asked
}

// What a running slips answers is printed so that no terminal obeys it.
func TestBlockAnswersAreHarmless(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	evil := "192.0.2.1\x1b[2J\x1b]0;x\x07\n10.9.9.9 is blocked\u009b\u202e"
	text, err := json.Marshal(block.Reply{
		Blocks: []block.Listed{{Prefix: evil, Until: time.Now(), Offences: 1, Alert: evil}}, Errors: []string{evil},
	})
	must(t, err)
	answerWith(t, path, string(text))
	for _, args := range [][]string{{"blocks"}, {"blocks", "--json"}, {"block", "192.0.2.1"}, {"unblock", "192.0.2.1"}} {
		var out, errs bytes.Buffer
		code := Main(context.WithoutCancel(t.Context()), append(args, "--set", "block.socket="+path), nil, strings.NewReader(""), &out, &errs)
		if code != exitBlock {
			t.Errorf("slips %s: exit code %d: %s", strings.Join(args, " "), code, errs.String())
		}
		for name, s := range map[string]string{"output": out.String(), "errors": errs.String()} {
			if !strings.Contains(s, "192.0.2.1") || strings.ContainsAny(s, "\x1b\x07\u009b") || strings.Contains(s, "\n10.9.9.9") {
				t.Errorf("slips %s: %s %q", strings.Join(args, " "), name, s)
			}
		}
	}
}

// A socket in somebody else's folder is not asked, and the error says whose it
// is; one of ours behind it is.
func TestBlockAsksNoStranger(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: it takes root to make a folder of somebody else")
	}
	const stranger = 65534
	his, ours := filepath.Join(t.TempDir(), "his"), t.TempDir()
	must(t, os.Mkdir(his, 0o755))
	must(t, os.Chown(his, stranger, -1))
	his, ours = filepath.Join(his, "s"), filepath.Join(ours, "s")
	const lie, truth = `{"blocks":[{"prefix":"192.0.2.1"}]}`, `{"blocks":[{"prefix":"192.0.2.2"}]}`
	asked := answerWith(t, his, lie)
	var out, errs bytes.Buffer
	code := Main(context.WithoutCancel(t.Context()), []string{"block", "192.0.2.1", "--set", "block.socket=" + his}, nil, strings.NewReader(""), &out, &errs)
	if <-asked != "" || code != exitBlock || out.Len() != 0 {
		t.Errorf("exit code %d, %q", code, out.String())
	}
	for _, want := range []string{his, "uid " + strconv.Itoa(stranger), "neither root nor you", "block.socket"} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("it does not say %q: %s", want, errs.String())
		}
	}
	heard := answerWith(t, ours, truth)
	r, err := askAny(t.Context(), []string{his, ours}, block.Command{Do: block.DoList})
	if err != nil || len(r.Blocks) != 1 || r.Blocks[0].Prefix != "192.0.2.2" || <-heard == "" {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err = askAny(t.Context(), []string{his, ours + "2"}, block.Command{Do: block.DoList}); !errors.Is(err, block.ErrStranger) {
		t.Errorf("a stranger and nobody: %v", err)
	}
}

// A run does not make its socket behind a link that somebody else may have made.
func TestBlockSocketBehindLink(t *testing.T) {
	dir := t.TempDir()
	shared, ours := filepath.Join(dir, "shared"), filepath.Join(dir, "ours")
	for _, d := range []string{shared, ours} {
		must(t, os.Mkdir(d, 0o755))
	}
	must(t, os.Chmod(shared, 0o777|os.ModeSticky)) // as /tmp is
	for _, link := range []string{filepath.Join(shared, "slips"), filepath.Join(dir, "slips")} {
		must(t, os.Symlink(ours, link))
		l, err := listen(t.Context(), &runOptions{Socket: filepath.Join(link, "control.sock")})
		if err == nil {
			must(t, l.Close())
		}
		if others := filepath.Dir(link) == shared; others != errors.Is(err, service.ErrNotPrivate) {
			t.Errorf("%s: %v", link, err)
		}
	}
}

// waiting returns a manager that does not run, and tells of its records.
func waiting(t *testing.T, tell func(block.Record)) *block.Manager {
	t.Helper()
	g, err := block.NewGuard(block.Network{}, nil)
	must(t, err)
	m, err := block.NewManager(block.Options{
		Config: block.Defaults(), Blocker: block.NewMemory(time.Now), Guard: g, Log: slog.New(slog.DiscardHandler), Now: time.Now, Tell: tell,
	})
	must(t, err)
	return m
}

// idle is blocking whose manager does not run, and that knows maxBlocked
// offenders at most.
func idle(t *testing.T, maxBlocked int) *firewall {
	t.Helper()
	w := &firewall{cfg: defaultBlockConfig(), offenders: map[netip.Addr]offender{}, manager: waiting(t, nil), ending: func() bool { return false }}
	w.cfg.MaxBlocked = maxBlocked
	return w
}

// fill leaves no room in the manager's queue.
func fill(t *testing.T, w *firewall) {
	t.Helper()
	for a := netip.MustParseAddr("203.0.113.1"); ; {
		if err := w.manager.Submit(block.Request{Prefix: block.Single(a), Window: time.Hour}); err != nil {
			if !errors.Is(err, block.ErrFull) {
				t.Fatal(err)
			}
			return
		}
	}
}

// drain has the manager carry out what waits.
func drain(t *testing.T, w *firewall) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, w.manager.Run(ctx))
}

// TestFollow knows until when an offender is blocked, by every way to be.
func TestFollow(t *testing.T) {
	a := netip.MustParseAddr("203.0.113.9")
	until := time.Now().Add(time.Hour)
	for _, c := range []struct {
		actions []block.Action
		known   bool
	}{
		{[]block.Action{block.ActBlock}, true},
		{[]block.Action{block.ActFail}, false},
		{[]block.Action{block.ActFail, block.ActBlock}, true},
		{[]block.Action{block.ActFail, block.ActRestore}, true},
		{[]block.Action{block.ActFail, block.ActExpire}, true},
		{[]block.Action{block.ActFind}, true},
		{[]block.Action{block.ActBlock, block.ActRestore, block.ActUnblock}, false},
		{[]block.Action{block.ActBlock, block.ActRelease}, false},
	} {
		w := &firewall{offenders: map[netip.Addr]offender{a: {alert: "A", window: 1, width: time.Hour, lost: &block.Request{}}}}
		for _, act := range c.actions {
			w.follow(block.Record{Action: act, Prefix: a.String(), Until: until})
		}
		if o := w.offenders[a]; c.known != o.until.Equal(until) || o.until.IsZero() == c.known {
			t.Errorf("after %v: until %v", c.actions, o.until)
		}
		if freed := c.actions[len(c.actions)-1] == block.ActUnblock; freed && w.offenders[a].lost != nil {
			t.Error("an operator has freed it, and it is asked for again")
		}
	}
}

// A request that does not fit into the queue is made again when the host goes
// on, with all that led to it.
func TestLostRequests(t *testing.T) {
	al, e := someAlert(), someEvidence()
	al.At, e.Time = time.Now().UnixNano(), time.Now().UnixNano()
	if al.Profile != e.Profile || al.Window != e.Window || !alerts.Counts(e) {
		t.Fatal("the alert and the evidence do not fit together")
	}
	w := idle(t, 100)
	fill(t, w)
	must(t, w.Alert(al))
	must(t, w.Evidence(e, 0)) // still full
	if o := w.offenders[al.Profile]; o.lost == nil || !cmp.Equal(o.lost.EvidenceIDs, al.EvidenceIDs) {
		t.Fatalf("lost: %+v", o.lost)
	}
	var got []block.Record
	keep := func(r block.Record) { got = append(got, r); w.follow(r) }
	w.manager = waiting(t, keep) // there is room again
	must(t, w.Evidence(e, 0))
	must(t, w.Evidence(e, 0)) // it is asked for once
	drain(t, w)
	if len(got) != 1 || got[0].Action != block.ActBlock || got[0].Alert != al.ID || !cmp.Equal(got[0].Evidence, append([]string{"x"}, e.ID)) {
		t.Errorf("records %+v", got)
	}

	// One that goes on after its block is not forgotten either.
	w = idle(t, 100)
	past := time.Now().Add(-time.Minute)
	w.offenders[al.Profile] = offender{alert: al.ID, window: e.Window, width: time.Hour, until: past}
	fill(t, w)
	must(t, w.Evidence(e, 0))
	if o := w.offenders[al.Profile]; o.lost == nil {
		t.Fatal("the host goes free until its next alert")
	}
	got = nil
	w.manager = waiting(t, keep)
	must(t, w.Evidence(e, 0))
	drain(t, w)
	if len(got) != 1 || !strings.HasPrefix(got[0].Reason, "goes on after a block") || !w.offenders[al.Profile].until.After(time.Now()) {
		t.Errorf("records %+v, offender %+v", got, w.offenders[al.Profile])
	}
}

// An operator who frees a host knows what it has done by then: only evidence of
// another type, or another alert, blocks it again in that window.
func TestBlockAfterUnblock(t *testing.T) {
	al, e := someAlert(), someEvidence()
	al.At, e.Time = time.Now().UnixNano(), time.Now().UnixNano()
	al.Contributions[0].Type = "DGA_NXDOMAINS"
	w := idle(t, 100)
	var got []block.Record
	found := func(typ evidence.Type) []block.Record {
		t.Helper()
		got = nil
		w.manager = waiting(t, func(r block.Record) { got = append(got, r); w.follow(r) })
		x := *e
		x.Type = typ
		x.Derive()
		must(t, w.Evidence(&x, 0))
		drain(t, w)
		return got
	}
	unblock := func() {
		w.follow(block.Record{Action: block.ActUnblock, Prefix: al.Profile.String(), By: "root"})
	}
	must(t, w.Alert(al))
	w.follow(block.Record{Action: block.ActBlock, Prefix: al.Profile.String(), Until: time.Now().Add(time.Hour)})
	if got := found("LONG_CONNECTION"); got != nil {
		t.Fatalf("while it is blocked: %+v", got)
	}
	unblock()
	for _, known := range []evidence.Type{"DGA_NXDOMAINS", "LONG_CONNECTION"} {
		if got := found(known); got != nil {
			t.Errorf("the operator knew of %s: %+v", known, got)
		}
	}
	got = found("VERTICAL_PORT_SCAN")
	if len(got) != 1 || got[0].Action != block.ActBlock || got[0].Reason != "new after an unblock: VERTICAL_PORT_SCAN" || got[0].Alert != al.ID {
		t.Fatalf("new evidence: %+v", got)
	}
	unblock()
	if got := found("VERTICAL_PORT_SCAN"); got != nil {
		t.Errorf("freed again: %+v", got)
	}
	e.Window++
	if got := found("ARP_SCAN"); got != nil {
		t.Errorf("in a later window, without an alert: %+v", got)
	}
	al.Window++
	al.Contributions[0].Type = "ARP_SCAN"
	must(t, w.Alert(al))
	unblock()
	if got := found("DGA_NXDOMAINS"); len(got) != 1 {
		t.Errorf("what it did in a former window is new: %+v", got)
	}
}

// A block that is decided while the run ends says so, for nobody is there to end
// it as usual.
func TestBlockWhileStopping(t *testing.T) {
	al := someAlert()
	al.At = time.Now().UnixNano()
	for _, c := range []struct {
		dry, ending bool
		want        string
	}{
		{false, false, al.Explain()},
		{false, true, al.Explain() + "; blocked while stopping: it ends by itself, and \"slips unblock 10.0.0.5\" frees it before"},
		{true, true, al.Explain()}, // nobody is blocked
	} {
		var got []block.Record
		w := idle(t, 100)
		w.cfg.DryRun, w.ending = c.dry, func() bool { return c.ending }
		w.manager = waiting(t, func(r block.Record) { got = append(got, r) })
		must(t, w.Alert(al))
		drain(t, w)
		if len(got) != 1 || got[0].Reason != c.want {
			t.Errorf("%+v: %+v", c, got)
		}
	}
}

// Without a running slips, unblock says what was there, and what still is.
func TestUnblockLeft(t *testing.T) {
	until := time.Now().Add(time.Hour)
	for _, c := range []struct {
		args, ended, errs []string
	}{
		{[]string{"192.0.2.9"}, nil, nil},
		{[]string{"192.0.2.1", "192.0.2.9"}, []string{"192.0.2.1"}, nil},
		{[]string{"10.95.0.7"}, nil, []string{"10.95.0.7 is still blocked, as a part of 10.95.0.0/24: unblock that"}},
		{[]string{"10.95.0.7", "10.95.0.0/24"}, []string{"10.95.0.0/24"}, nil},
	} {
		b := block.NewMemory(time.Now)
		var list []netip.Prefix
		for _, a := range c.args {
			p, err := block.ParsePrefix(a)
			must(t, err)
			list = append(list, p)
		}
		must(t, b.Block(t.Context(), []block.Entry{
			{Prefix: netip.MustParsePrefix("10.95.0.0/24"), Until: until}, {Prefix: netip.MustParsePrefix("192.0.2.1/32"), Until: until},
		}))
		r, err := freeLeft(t.Context(), b, list)
		var ended []string
		for _, x := range r.Blocks {
			ended = append(ended, x.Prefix)
		}
		left, _ := b.List(t.Context())
		if err != nil || !cmp.Equal(ended, c.ended) || !cmp.Equal(r.Errors, c.errs) || len(left) != 2-len(ended) {
			t.Errorf("%v: ended %v, errors %v, %v; left %v", c.args, ended, r.Errors, err, left)
		}
	}
}

// The list of blocks says who asked, and why.
func TestBlocksBecause(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	answer := block.Reply{Blocks: []block.Listed{
		{Prefix: "192.0.2.1", Until: time.Now(), Offences: 1, By: "root", Reason: "ticket 4711"},
		{Prefix: "192.0.2.2", Until: time.Now(), Offences: 1, By: "joe"},
		{Prefix: "192.0.2.3", Until: time.Now(), Offences: 1, Alert: "some-alert"},
		{Prefix: "192.0.2.4", Until: time.Now()},
	}}
	text, err := json.Marshal(answer)
	must(t, err)
	answerWith(t, path, string(text))
	blocks := func(more ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		args := append([]string{"blocks", "--set", "block.socket=" + path}, more...)
		if code := Main(context.WithoutCancel(t.Context()), args, nil, strings.NewReader(""), &out, &errs); code != 0 {
			t.Fatalf("exit code %d: %s", code, errs.String())
		}
		return out.String()
	}
	list := strings.Split(blocks(), "\n")
	for i, want := range []string{"BECAUSE OF", " root: ticket 4711", " joe", " some-alert", " -"} {
		if !strings.HasSuffix(list[i], want) {
			t.Errorf("line %q, want %q at its end", list[i], want)
		}
	}
	if json := blocks("--json"); !strings.Contains(json, `"by": "root",`) || !strings.Contains(json, `"reason": "ticket 4711"`) || strings.Count(json, `"alert"`) != 1 {
		t.Error(json)
	}
}

// When too many offenders are known, those of former windows are forgotten
// first, and a further alert of a known one makes no room.
func TestManyOffenders(t *testing.T) {
	w := idle(t, 3)
	until := time.Now().Add(time.Hour)
	alert := func(ip string, window int64) {
		al := someAlert()
		al.Profile, al.Window = netip.MustParseAddr(ip), window
		must(t, w.Alert(al))
		w.follow(block.Record{Action: block.ActBlock, Prefix: ip, Until: until})
	}
	known := func(want ...string) {
		t.Helper()
		for _, ip := range want {
			if _, ok := w.offenders[netip.MustParseAddr(ip)]; !ok {
				t.Errorf("%s is forgotten", ip)
			}
		}
		if len(w.offenders) != len(want) {
			t.Errorf("%d are known, want %d", len(w.offenders), len(want))
		}
	}
	alert("192.0.2.1", 1)
	alert("192.0.2.2", 2)
	alert("192.0.2.3", 2)
	alert("192.0.2.2", 2)
	known("192.0.2.1", "192.0.2.2", "192.0.2.3")
	alert("192.0.2.4", 2)
	known("192.0.2.2", "192.0.2.3", "192.0.2.4")
	alert("192.0.2.5", 2) // nobody is of a former window
	known("192.0.2.5")
}
