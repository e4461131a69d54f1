// Package modtest runs a module over small written cases, the way the program
// runs it.
package modtest

import (
	"bytes"
	"encoding/gob"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/tools/txtar"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/argus"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/nfdump"
	"github.com/slips-go/slips/parsers/suricata"
	"github.com/slips-go/slips/parsers/zeek"
	"github.com/slips-go/slips/profiler"
)

var update = flag.Bool("update", false, "rewrite the want section of each case")

// Run runs spec over each txtar case of the glob. The comment of a case says
// what it shows and why. Its files are
//
//   - config.yaml (optional): the module's config, decoded strictly
//   - feeds (optional): what the feeds list, see View
//   - logs in real formats under real names: conn.log and other Zeek logs,
//     eve.json, *.binetflow (Argus), *.nfdump (nfdump's CSV or text)
//   - want: the evidence, one line each, and behind it the questions
//
// Windows are an hour long from the first record on. Each case runs on 1 and
// on 3 lanes, and following in one go with a restart behind each record; all
// have to give the evidence of want. The memory of a record is overwritten as
// soon as the engine has done with it, so a module that kept a string of it
// shows. With -update the first run rewrites want.
func Run(t *testing.T, spec modules.Spec, glob string) {
	t.Helper()
	paths, err := filepath.Glob(glob)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases at %s (%v)", glob, err)
	}
	for _, p := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(p), ".txtar"), func(t *testing.T) { run(t, spec, p) })
	}
}

// Evidence runs spec with its defaults over a log file on disk, for tests on
// whole captures, and returns what it finds.
func Evidence(t *testing.T, spec modules.Spec, paths ...string) []evidence.Evidence {
	t.Helper()
	var logs []log
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		logs = append(logs, split(filepath.Base(p), data))
	}
	s := &sink{}
	replay(t, setup{spec: spec, cfg: spec.Defaults()}, logs, 2, s)
	return s.all
}

func run(t *testing.T, spec modules.Spec, path string) {
	t.Helper()
	ar, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(ar.Comment)) == "" {
		t.Error("the case does not say what it shows")
	}
	c := setup{spec: spec, cfg: spec.Defaults()}
	var logs []log
	want := -1
	for i, f := range ar.Files {
		switch f.Name {
		case "config.yaml":
			d := yaml.NewDecoder(bytes.NewReader(f.Data))
			d.KnownFields(true)
			if err := d.Decode(c.cfg); err != nil {
				t.Fatalf("config.yaml: %v", err)
			}
		case "feeds":
			if c.view, err = View(string(f.Data)); err != nil {
				t.Fatalf("feeds: %v", err)
			}
		case "want":
			want = i
		default:
			logs = append(logs, split(f.Name, f.Data))
		}
	}
	if want < 0 {
		ar.Files = append(ar.Files, txtar.File{Name: "want"})
		want = len(ar.Files) - 1
	}
	var one sink
	replay(t, c, logs, 1, &one)
	if *update {
		ar.Files[want].Data = []byte(one.text())
		if err := os.WriteFile(path, txtar.Format(ar), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	differs := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s:\n got:\n%swant:\n%s", what, got, want)
		}
	}
	differs("1 lane", one.text(), string(ar.Files[want].Data))
	seen := make(map[string]bool)
	for _, e := range one.all {
		if seen[e.ID] {
			t.Errorf("two pieces of evidence have the same subject %q and step %d, so the second would be dropped", e.Subject, e.Step)
		}
		seen[e.ID] = true
		if len(e.UIDs) > evidence.MaxUIDs {
			t.Errorf("%s has %d uids", e.Type, len(e.UIDs))
		}
	}
	var three sink
	replay(t, c, logs, 3, &three)
	differs("3 lanes", three.text(), one.text())
	differs("a restart behind each record", sorted(restarts(t, c, logs)), sorted(one.all))
}

// log is one log of a case. A record that was decoded is of a batch of its own.
type log struct {
	name  string
	lines [][]byte
}

func split(name string, data []byte) log {
	l := log{name: name}
	for line := range bytes.Lines(data) {
		l.lines = append(l.lines, bytes.TrimSuffix(line, []byte("\n")))
	}
	return l
}

func decoder(t testing.TB, name string) interface {
	Decode(*flow.Flow, []byte) error
} {
	t.Helper()
	switch {
	case strings.HasPrefix(name, "eve"):
		return suricata.New()
	case strings.HasSuffix(name, ".binetflow"):
		return argus.New()
	case strings.HasSuffix(name, ".nfdump"):
		return nfdump.New()
	}
	n, ok := zeek.LogName(name)
	if !ok {
		t.Fatalf("%s is no name of a log that a case can hold", name)
	}
	return zeek.New(n)
}

// batches decodes a log into batches of one record, whose memory is
// overwritten when they are released.
func (l log) batches(t testing.TB) []*flow.Batch {
	t.Helper()
	d := decoder(t, l.name)
	var out []*flow.Batch
	for i, line := range l.lines {
		b := flow.NewBatch(func(b *flow.Batch) {
			for i := range b.Data {
				b.Data[i] = '!'
			}
		})
		b.Data = bytes.Clone(line)
		b.Segment = flow.Segment{Path: l.name, Print: l.name}
		f := b.Next()
		err := d.Decode(f, b.Data)
		switch {
		case err == nil:
			f.End = int64(i + 1)
			out = append(out, b)
		case errors.Is(err, flow.ErrHeader), errors.Is(err, flow.ErrIgnored):
		default:
			t.Fatalf("%s:%d: %v", l.name, i+1, err)
		}
	}
	return out
}

// setup is a module with its settings and what the feeds list.
type setup struct {
	spec modules.Spec
	cfg  any
	view *intel.View
}

func engine(t testing.TB, s setup, lanes int, follow bool, saved *profiler.Checkpoint) *profiler.Engine {
	t.Helper()
	rule, err := s.spec.New(s.cfg, modules.Env{Width: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	c := profiler.Config{
		Lanes: lanes, Width: time.Hour, Round: 1, Strict: true, Now: time.Now, Follow: follow,
		Intel: func() *intel.View { return s.view }, Ask: true,
	}
	if follow {
		c.Checkpoint, c.IdleAfter = time.Hour, time.Hour
	}
	e, err := profiler.New(c, []profiler.Loaded{{Spec: s.spec, Run: rule}}, saved)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// input is an input that ends behind the batches.
func input(name string, batches []*flow.Batch) flow.Input {
	c := make(chan *flow.Batch, len(batches)+1)
	for _, b := range batches {
		c <- b
	}
	end := flow.NewBatch(nil)
	end.Mark = flow.Ended
	c <- end
	close(c)
	return flow.Input{Name: name, C: c}
}

func replay(t testing.TB, c setup, logs []log, lanes int, s *sink) {
	t.Helper()
	var in profiler.Inputs
	for _, l := range logs {
		in.Initial = append(in.Initial, input(l.name, l.batches(t)))
	}
	if err := engine(t, c, lanes, false, nil).Run(t.Context(), in, s); err != nil {
		t.Fatal(err)
	}
}

// maxLegs bounds the restarts of one case, so that a case of many records
// does not take long.
const maxLegs = 60

// restarts follows the logs with a restart behind each record, or behind each
// few when there are many, and returns all the evidence.
func restarts(t testing.TB, c setup, logs []log) []evidence.Evidence {
	t.Helper()
	type source struct {
		log
		left []*flow.Batch
	}
	var srcs []*source
	n := 0
	for _, l := range logs {
		s := &source{log: l, left: l.batches(t)}
		n += len(s.left)
		srcs = append(srcs, s)
	}
	per := n/maxLegs + 1
	var all []evidence.Evidence
	var saved *profiler.Checkpoint
	for n > 0 {
		// Each leg takes the next records in the order of their times.
		leg := make(map[*source][]*flow.Batch)
		for range per {
			var next *source
			for _, s := range srcs {
				if len(s.left) > 0 && (next == nil || s.left[0].Flows[0].Time < next.left[0].Flows[0].Time) {
					next = s
				}
			}
			if next == nil {
				break
			}
			leg[next] = append(leg[next], next.left[0])
			next.left = next.left[1:]
			n--
		}
		wake := make(chan struct{}, 1)
		in := profiler.Inputs{Wake: wake}
		for _, s := range srcs {
			in.Initial = append(in.Initial, input(s.name, leg[s]))
		}
		out := sink{checkpoints: true}
		if err := engine(t, c, 2, true, saved).Run(t.Context(), in, &out); err != nil {
			t.Fatal(err)
		}
		if saved = roundTrip(t, out.saved); saved == nil {
			t.Fatal("no checkpoint at the end")
		}
		all = append(all, out.all...)
	}
	if saved != nil {
		var out sink
		e := engine(t, c, 2, false, saved) // the end of input, as in a replay
		if err := e.Run(t.Context(), profiler.Inputs{}, &out); err != nil {
			t.Fatal(err)
		}
		all = append(all, out.all...)
	}
	return all
}

func roundTrip(t testing.TB, c *profiler.Checkpoint) *profiler.Checkpoint {
	t.Helper()
	if c == nil {
		return nil
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(c); err != nil {
		t.Fatal(err)
	}
	d := new(profiler.Checkpoint)
	if err := gob.NewDecoder(&b).Decode(d); err != nil {
		t.Fatal(err)
	}
	return d
}

// sink keeps evidence; when it waits for checkpoints, what comes behind the
// last one is the end of input, which a restart takes back.
type sink struct {
	all         []evidence.Evidence
	asked       []modules.Question
	checkpoints bool
	saved       *profiler.Checkpoint
}

var _ profiler.Sink = (*sink)(nil)

func (s *sink) Evidence(e *evidence.Evidence) error {
	if s.saved == nil {
		s.all = append(s.all, *e)
	}
	return nil
}

func (s *sink) News(n profiler.News) error {
	if n.Question != nil && s.saved == nil {
		s.asked = append(s.asked, *n.Question)
	}
	return nil
}
func (s *sink) Round(int64) error { return nil }
func (s *sink) Checkpoint(c *profiler.Checkpoint) error {
	if s.checkpoints {
		s.saved = c
	}
	return nil
}

func (s *sink) text() string {
	var b strings.Builder
	for i := range s.all {
		b.WriteString(line(&s.all[i]))
	}
	for _, q := range s.asked {
		fmt.Fprintf(&b, "asks %s %s %s for %s uid=%s\n", q.Why, q.Of, q.Subject, q.Src, q.UID)
	}
	return b.String()
}

// line writes what a reader of a case wants to check.
func line(e *evidence.Evidence) string {
	victim := "-"
	if e.Victim.Kind != evidence.None {
		victim = e.Victim.Value
	}
	return fmt.Sprintf("%s %s w%d %s conf=%.2f n=%d uids=%s attacker=%s/%s victim=%s %q\n", e.Type, e.Profile, e.Window, e.Level,
		e.Confidence, e.Count, strings.Join(e.UIDs, ","), e.Attacker.Value, e.Attacker.Direction, victim, e.Description)
}

func sorted(all []evidence.Evidence) string {
	var l []string
	for i := range all {
		l = append(l, line(&all[i]))
	}
	slices.Sort(l)
	return strings.Join(l, "")
}
