package export

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// script is a run as a list of writes; the same every time.
type script []func(*Dir) error

// newScript makes n writes: evidence, alerts, and lines of alerts.log that
// are equal although their evidence differs.
func newScript(seed uint64, n int) script {
	rnd := rand.New(rand.NewPCG(seed, 7))
	var s script
	for i := range n {
		e := sample(i)
		switch rnd.IntN(5) {
		case 0: // same text and time as others, another id
			e = sample(1)
			e.Subject = fmt.Sprint("again ", i)
			e.Derive()
		case 1:
			a := sampleAlert(e)
			s = append(s, func(d *Dir) error { return d.Alert(a) })
			continue
		case 2:
			e.Description = strings.Repeat("long ", rnd.IntN(3000))
		}
		s = append(s, func(d *Dir) error { return d.Evidence(e, float64(i)) })
	}
	return s
}

func (s script) run(t *testing.T, d *Dir, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		must(t, s[i](d))
	}
	must(t, d.Flush())
}

func contents(t *testing.T, path string) map[string]string {
	t.Helper()
	m := make(map[string]string)
	for _, n := range names {
		m[n] = read(t, filepath.Join(path, n))
	}
	return m
}

// TestKillAtAnyByte: whatever prefix of each file the crash leaves, and
// whichever checkpoint it goes back to, the files are in the end what they
// would have been.
func TestKillAtAnyByte(t *testing.T) {
	s := newScript(1, 60)
	ref := t.TempDir()
	d := create(t, ref, Options{})
	s.run(t, d, 0, len(s))
	closeDir(t, d)
	want := contents(t, ref)

	rnd := rand.New(rand.NewPCG(2, 2))
	path := t.TempDir()
	for round := range 150 {
		d := create(t, path, Options{Mode: Overwrite})
		point := rnd.IntN(len(s) + 1) // of the checkpoint
		dead := point + rnd.IntN(len(s)-point+1)
		var marks map[string]int64
		s.run(t, d, 0, point)
		if point > 0 || rnd.IntN(2) == 0 {
			var err error
			marks, err = d.Marks()
			must(t, err)
		}
		s.run(t, d, point, dead)
		closeDir(t, d)
		for range 1 + rnd.IntN(3) { // it may crash again, before or behind the next checkpoint
			for _, n := range names {
				p := filepath.Join(path, n)
				size := int64(len(read(t, p)))
				must(t, os.Truncate(p, marks[n]+rnd.Int64N(size-marks[n]+1)))
				if rnd.IntN(8) == 0 { // a power cut may leave zeros
					f, err := os.OpenFile(p, os.O_APPEND|os.O_WRONLY, 0)
					must(t, err)
					_, err = f.Write(make([]byte, rnd.IntN(3)*100))
					must(t, errors.Join(err, f.Close()))
				}
			}
			d = create(t, path, Options{Mode: Continue})
			must(t, d.Resume(marks, false))
			next := point + rnd.IntN(len(s)-point+1)
			s.run(t, d, point, next)
			if rnd.IntN(2) == 0 {
				var err error
				marks, err = d.Marks()
				must(t, err)
				point = next
				s.run(t, d, point, point+rnd.IntN(len(s)-point+1))
			}
			closeDir(t, d)
		}
		if rnd.IntN(3) == 0 { // in the end a clean stop, behind a checkpoint or on its way there
			d = create(t, path, Options{Mode: Continue})
			must(t, d.Resume(marks, true))
			closeDir(t, d)
		}
		d = create(t, path, Options{Mode: Continue})
		must(t, d.Resume(marks, false))
		s.run(t, d, point, len(s))
		closeDir(t, d)
		if diff := cmp.Diff(want, contents(t, path)); diff != "" {
			t.Fatalf("round %d, checkpoint at %d, dead at %d (-want +got):\n%.2000s", round, point, dead, diff)
		}
	}
}

// TestCrashKeepsLines: a whole line that was in a file is still there right
// after the restart, so a reader that follows the file sees none vanish.
func TestCrashKeepsLines(t *testing.T) {
	path, s := t.TempDir(), newScript(3, 30)
	s[29] = func(d *Dir) error { return d.Evidence(sample(29), 1) } // whose lines are unlike all others
	d := create(t, path, Options{})
	s.run(t, d, 0, 10)
	marks, err := d.Marks()
	must(t, err)
	s.run(t, d, 10, 30)
	closeDir(t, d)
	before := contents(t, path)
	d = create(t, path, Options{Mode: Continue})
	must(t, d.Resume(marks, false))
	if diff := cmp.Diff(before, contents(t, path)); diff != "" {
		t.Error("lines vanished")
	}
	// What does not come again stays; what comes twice is written once more.
	must(t, s[29](d))
	must(t, s[29](d))
	closeDir(t, d)
	lines := 0
	for _, n := range names {
		lines += strings.Count(read(t, d.Path(n)), "\n") - strings.Count(before[n], "\n")
	}
	if lines != 3 { // one write is a line in three files
		t.Errorf("%d more lines, want 3", lines)
	}
}

// TestMarkWhileLinesComeAgain: a checkpoint between a crash and the end of
// what it left must not count lines that have yet to come; one behind a new
// line counts everything, because what has not come by then will not.
func TestMarkWhileLinesComeAgain(t *testing.T) {
	path := t.TempDir()
	d := create(t, path, Options{})
	var ends []int64
	for n := range 4 {
		must(t, d.Evidence(sample(n), 1))
		must(t, d.Flush())
		ends = append(ends, d.files[fileEvidence].size)
	}
	closeDir(t, d)
	for _, c := range []struct {
		again []int
		want  int64
	}{
		{nil, 0},
		{[]int{0}, ends[0]},
		{[]int{0, 1}, ends[1]},
		{[]int{0, 1, 2, 3}, ends[3]},
		{[]int{1}, ends[3]},
		{[]int{0, 3}, ends[3]}, // out of order
	} {
		d := create(t, path, Options{Mode: Continue})
		must(t, d.Resume(nil, false))
		for _, n := range c.again {
			must(t, d.Evidence(sample(n), 1))
		}
		marks, err := d.Marks()
		must(t, err)
		if marks[evidenceJSONL] != c.want {
			t.Errorf("after %v the mark is %d, want %d of %v", c.again, marks[evidenceJSONL], c.want, ends)
		}
		closeDir(t, d)
	}
	d = create(t, path, Options{Mode: Continue})
	must(t, d.Resume(nil, false))
	must(t, d.Evidence(sample(9), 1))
	marks, err := d.Marks()
	must(t, err)
	if marks[evidenceJSONL] <= ends[3] {
		t.Errorf("behind a new line the mark is %d", marks[evidenceJSONL])
	}
	must(t, d.Evidence(sample(2), 1)) // late, and still not written twice
	closeDir(t, d)
	if n := strings.Count(read(t, d.Path(evidenceJSONL)), "\n"); n != 5 {
		t.Errorf("%d lines, want 5", n)
	}
}

// TestAlertRaisedAgain: after a crash the same alert may be raised by other
// evidence and so at another time. It is in no file twice for that.
func TestAlertRaisedAgain(t *testing.T) {
	path := t.TempDir()
	d := create(t, path, Options{})
	must(t, d.Alert(sampleAlert(sample(1))))
	must(t, d.Evidence(sample(1), 1))
	closeDir(t, d)
	before := contents(t, path)
	d = create(t, path, Options{Mode: Continue})
	must(t, d.Resume(nil, false))
	again := sampleAlert(sample(2))
	again.ID = sampleAlert(sample(1)).ID
	again.Time, again.At, again.Score = again.Time+7e9, again.At+9e9, again.Score+1
	must(t, d.Alert(again))
	must(t, d.Flush())
	if diff := cmp.Diff(before, contents(t, path)); diff != "" {
		t.Errorf("it is told again (-before +after):\n%s", diff)
	}
	other := sampleAlert(sample(1)) // one of the next window is another one
	other.ID, other.Window = "", other.Window+1
	must(t, d.Alert(other))
	closeDir(t, d)
	if n := strings.Count(read(t, d.Path(alertsLog)), "\n"); n != 3 {
		t.Errorf("%d lines in alerts.log, want 3", n)
	}
}

func TestCleanStopCutsBack(t *testing.T) {
	path, s := t.TempDir(), newScript(4, 20)
	d := create(t, path, Options{})
	s.run(t, d, 0, 12)
	marks, err := d.Marks()
	must(t, err)
	want := contents(t, path)
	s.run(t, d, 12, 20) // provisional: the end of the input
	closeDir(t, d)
	d = create(t, path, Options{Mode: Continue})
	must(t, d.Resume(marks, true))
	if diff := cmp.Diff(want, contents(t, path)); diff != "" {
		t.Errorf("after a clean stop (-want +got):\n%s", diff)
	}
	s.run(t, d, 12, 20)
	closeDir(t, d)
	if n := strings.Count(read(t, d.Path(alertsLog)), "\n"); n != 20 {
		t.Errorf("%d lines in alerts.log, want 20", n)
	}
}

func TestResumeRefusesShortFiles(t *testing.T) {
	for _, clean := range []bool{true, false} {
		path, s := t.TempDir(), newScript(5, 20)
		d := create(t, path, Options{})
		s.run(t, d, 0, 20)
		marks, err := d.Marks()
		must(t, err)
		closeDir(t, d)
		must(t, os.Truncate(filepath.Join(path, evidenceJSONL), marks[evidenceJSONL]-1))
		d = create(t, path, Options{Mode: Continue})
		if err := d.Resume(marks, clean); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), evidenceJSONL) {
			t.Errorf("clean %v: error is %v", clean, err)
		}
		closeDir(t, d)
	}
}

// TestForeignLinesAreCut: what is behind the mark and is no line of ours is cut.
func TestForeignLinesAreCut(t *testing.T) {
	path := t.TempDir()
	d := create(t, path, Options{})
	must(t, d.Evidence(sample(1), 8))
	marks, err := d.Marks()
	must(t, err)
	closeDir(t, d)
	want := contents(t, path)
	for _, junk := range []string{"\n", "{}\n", "{\"id\":\"\n", "{\"id\":\"\"}\n", "{\"id\":\"abc\n", "\x00\x00\n", strings.Repeat("x", maxReadBack+1) + "\n", "half"} {
		f, err := os.OpenFile(filepath.Join(path, evidenceJSONL), os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteString(junk)
		must(t, errors.Join(err, f.Close()))
		d = create(t, path, Options{Mode: Continue})
		must(t, d.Resume(marks, false))
		closeDir(t, d)
		if diff := cmp.Diff(want, contents(t, path)); diff != "" {
			t.Errorf("junk %.20q stayed: %.300s", junk, diff)
		}
	}
}

// flowStep is one event of a run with labelled flows.
type flowStep func(w *FlowWriter) error

// flowScript makes records, evidence, alerts and window ends, records of a
// window that has ended included.
func flowScript(seed uint64, n int) []flowStep {
	rnd := rand.New(rand.NewPCG(seed, 9))
	var steps []flowStep
	windows := 1
	for i := range n {
		win := window(int64(max(1, windows-rnd.IntN(3))))
		uid := fmt.Sprintf("C%d", i)
		switch k := rnd.IntN(20); {
		case k == 0:
			old := window(int64(windows))
			windows++
			steps = append(steps, func(w *FlowWriter) error { return w.CloseWindow(old) })
		case k < 3:
			e := sample(i)
			e.WindowStart, e.WindowEnd = win.Start, win.End
			e.UIDs = []string{fmt.Sprintf("C%d", rnd.IntN(i+5)), fmt.Sprintf("C%d", rnd.IntN(i+5))}
			steps = append(steps, func(w *FlowWriter) error { return w.Evidence(e, 1) })
			if k == 1 {
				a := &alerts.Alert{Profile: e.Profile, WindowStart: e.WindowStart, WindowEnd: e.WindowEnd, EvidenceIDs: []string{e.ID}}
				steps = append(steps, func(w *FlowWriter) error { return w.Alert(a) })
			}
		default:
			f := &flow.Flow{Time: win.Start + int64(i), UID: uid, Src: netip.MustParseAddr("10.0.0.1"), Service: strings.Repeat("x", rnd.IntN(3000))}
			steps = append(steps, func(w *FlowWriter) error { return w.Flow(f, win) })
		}
	}
	return steps
}

func window(n int64) profile.Window {
	return profile.Window{N: n, Start: start + (n-1)*hour, End: start + n*hour}
}

func runFlows(t *testing.T, w *FlowWriter, steps []flowStep) {
	t.Helper()
	for _, s := range steps {
		must(t, s(w))
	}
	must(t, w.Flush())
}

// TestFlowsSurviveRestart: stopped cleanly or killed at any point, with
// several checkpoints behind it, the flows come out the same.
func TestFlowsSurviveRestart(t *testing.T) {
	for _, format := range []FlowFormat{FlowsTSV, FlowsJSONL} {
		steps := flowScript(1, 400)
		name := flowsPath(format)
		ref := create(t, t.TempDir(), Options{Flows: format})
		runFlows(t, ref.Flows(), steps)
		closeDir(t, ref)
		want, wantStats := read(t, ref.Path(name)), ref.Flows().Stats()
		if wantStats.Malicious == 0 || wantStats.Records < 300 {
			t.Fatalf("the script does not try enough: %+v", wantStats)
		}
		if l, err := os.ReadDir(ref.Path(spoolDir)); err == nil {
			t.Errorf("the spool is still there: %v", l)
		}

		rnd := rand.New(rand.NewPCG(3, 3))
		for round := range 25 {
			path := t.TempDir()
			type checkpoint struct {
				at    int
				marks map[string]int64
				state []byte
			}
			var cp checkpoint
			d := create(t, path, Options{Flows: format})
			at := 0
			for at < len(steps) {
				next := min(len(steps), at+rnd.IntN(120))
				runFlows(t, d.Flows(), steps[at:next])
				at = next
				switch rnd.IntN(3) {
				case 0: // a checkpoint
					marks, err := d.Marks()
					must(t, err)
					var b bytes.Buffer
					must(t, d.Flows().Save(gob.NewEncoder(&b)))
					cp = checkpoint{at, maps.Clone(marks), b.Bytes()}
				case 1: // the end, clean or not
					clean := rnd.IntN(2) == 0
					if clean || rnd.IntN(2) == 0 {
						closeDir(t, d) // which writes what is provisional
					} else {
						must(t, d.lock.Close()) // killed: nothing is flushed
					}
					if !clean {
						p := filepath.Join(path, name)
						m := cp.marks[name]
						must(t, os.Truncate(p, m+rnd.Int64N(int64(len(read(t, p)))-m+1)))
					}
					d = create(t, path, Options{Flows: format, Mode: Continue})
					must(t, d.Resume(cp.marks, clean))
					if cp.state != nil {
						must(t, d.Flows().Load(gob.NewDecoder(bytes.NewReader(cp.state))))
					}
					at = cp.at
				}
			}
			closeDir(t, d)
			if got := read(t, filepath.Join(path, name)); got != want {
				t.Fatalf("%s, round %d: flows differ:\n%.1500s", format, round, cmp.Diff(want, got))
			}
			if diff := cmp.Diff(wantStats, d.Flows().Stats()); diff != "" {
				t.Fatalf("%s, round %d: stats (-want +got):\n%s", format, round, diff)
			}
		}
	}
}
