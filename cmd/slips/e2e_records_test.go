//go:build unix

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// exportFlags are the flags for letters and timeline, of both sides.
func exportFlags() []string {
	return []string{"--export-letters", "--export-timeline", "--analysis-direction", "all"}
}

// recorded returns the lines of letters and timeline; nil when they were not
// asked for. It checks what must be true of any such files.
func (o *outcome) recorded(t testing.TB) (letters, timeline lines) {
	t.Helper()
	read := func(name string) lines {
		text, err := os.ReadFile(filepath.Join(o.dir, "flows", name))
		if os.IsNotExist(err) {
			return nil
		}
		must(t, err)
		if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
			t.Errorf("%s ends in the middle of a line", name)
		}
		return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	}
	letters, timeline = read("letters.tsv"), read("timeline.jsonl")
	if s := o.summary.Letters; s != nil {
		rows := 0
		for i, line := range letters {
			switch name, row, ok := strings.Cut(line, "\t"); {
			case i == 0 && line != "Outtuple\tLetters":
				t.Errorf("header is %q", line)
			case !ok, row == "", i > 0 && !strings.Contains(name, "-timewindow"):
				t.Errorf("row is %q", line)
			case i > 0 && !strings.HasSuffix(name, "-in"):
				rows++
			}
		}
		if rows != s.Tuples || s.Pending != 0 {
			t.Errorf("summary.json counts %d tuples and %d that wait, the file has %d", s.Tuples, s.Pending, rows)
		}
	}
	n := 0
	for _, line := range timeline {
		v := object(line)
		if v == nil || text(v["ts"]) == "" || text(v["kind"]) == "" {
			t.Errorf("timeline: %q", line)
		}
		if v["kind"] != "conn" || v["preposition"] != "from" {
			n++
		}
	}
	if timeline != nil && int64(n) != o.summary.Records {
		t.Errorf("%d activities of %d records", n, o.summary.Records)
	}
	return letters, timeline
}

// sameRecorded checks that two runs wrote the same letters and timeline, if any.
func sameRecorded(t testing.TB, want, got *outcome) {
	t.Helper()
	a, b := want.recorded(t)
	c, d := got.recorded(t)
	sameSet(t, "letters", a, c)
	sameSet(t, "timeline", b, d)
}

// Letters and timeline are the same for any number of lanes, and byte for byte.
func TestRecordsOnLanes(t *testing.T) {
	for _, name := range []string{"demo", "suricata", "argus"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := testdata("captures", name)
			one, three := replayed(t, path, append(exportFlags(), "--lanes", "1")...), replayed(t, path, append(exportFlags(), "--lanes", "3")...)
			one.recorded(t)
			for _, file := range []string{"letters.tsv", "timeline.jsonl"} {
				if readFile(t, filepath.Join(one.dir, "flows", file)) != readFile(t, filepath.Join(three.dir, "flows", file)) {
					t.Errorf("%s differs", file)
				}
			}
		})
	}
}

// Whatever way logs are written while they are followed, letters and timeline
// are those of the complete logs.
func TestFollowedRecordsEqualReplay(t *testing.T) {
	for name, input := range sources() {
		for how, s := range map[string]style{"pieces": {}, "late rename": {late: true, rename: true}} {
			if testing.Short() && (name != "demo" || s.late) {
				continue
			}
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				path := input(t)
				want := replayed(t, path, exportFlags()...)
				dir, out := filepath.Join(t.TempDir(), filepath.Base(path)), filepath.Join(t.TempDir(), "out")
				w := newWriter(t, dir, loadLogs(t, path), s, seedOf(name+how+"records"))
				f := follow(t, out, append([]string{
					dir, "--set", "follow.poll_interval=20ms", "--set", "profiler.idle_after=1m", "--set", "profiler.checkpoint_interval=100ms",
				}, exportFlags()...)...)
				wait(t, "the first record, which decides where windows begin", func() bool { return begun(out) })
				for w.step() {
					w.pause(5 * 1e6)
				}
				f.stop(t)
				sameRecorded(t, want, results(t, out))
			})
		}
	}
}

// So it is when the follower was killed and stopped on the way.
func TestRecordsAfterKills(t *testing.T) {
	for name, input := range sources() {
		for end, v := range map[string]violence{"kill": {kills: 6}, "stop": {kills: 4, graceful: true}} {
			if name != "demo" && name != "isc-2021-10" && name != "argus" || testing.Short() && (name != "demo" || v.graceful) {
				continue
			}
			t.Run(name+"/"+end, func(t *testing.T) {
				t.Parallel()
				disturb(t, input(t), style{}, v, seedOf(name+end+"records"), exportFlags()...)
			})
		}
	}
}

// The account of a small capture, with one module, so that it does not change
// whenever others do.
func TestGoldenRecords(t *testing.T) {
	args := []string{testdata("captures", "demo"), "--export-letters", "--export-timeline"}
	for _, s := range specs() {
		if s.Name != "portscan" {
			args = append(args, "--disable", s.Name)
		}
	}
	out := filepath.Join(t.TempDir(), "out")
	analyseFiles(t, out, args...)
	files := map[string]string{"letters.tsv": readFile(t, filepath.Join(out, "flows", "letters.tsv"))}
	for name, args := range map[string][]string{
		"timeline.txt": {"192.168.10.21"}, "timeline-scan.txt": {"192.168.10.66", "--window", "2"}, "timeline.jsonl": {"192.168.10.22", "--json"},
	} {
		code, stdout, stderr := runMain(t, nil, append([]string{"timeline", out}, args...)...)
		if code != 0 || stderr != "" {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
		files[name] = stdout
	}
	for name, text := range files {
		golden := testdata("golden", "demo", name)
		if *update {
			writeFile(t, golden, text)
		}
		if d := cmp.Diff(strings.Split(readFile(t, golden), "\n"), strings.Split(text, "\n")); d != "" {
			t.Errorf("%s (-golden +got; -update rewrites):\n%s", name, d)
		}
	}
}

// The account of all hosts has each record once, and all evidence.
func TestTimelineIsComplete(t *testing.T) {
	for _, name := range []string{"demo", "suricata", "argus"} {
		out := filepath.Join(t.TempDir(), "out")
		analyseFiles(t, out, testdata("captures", name), "--export-timeline")
		o := results(t, out)
		code, stdout, stderr := runMain(t, nil, "timeline", out, "--json")
		if code != 0 || stderr != "" {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
		_, want := o.recorded(t)
		want = slices.Concat(want, o.evidence, o.alerts)
		var got lines
		kinds := make(map[string]int)
		for line := range strings.Lines(stdout) {
			var v entryJSON
			decode(t, line, &v)
			kinds[v.Kind]++
			for _, r := range v.Records {
				got = append(got, string(r))
			}
		}
		sameSet(t, name+": records and evidence", want, got)
		if kinds["evidence"] != len(o.evidence) || kinds["alert"] != len(o.alerts) || kinds["activity"] == 0 || kinds["totals"] == 0 {
			t.Errorf("%s: %v", name, kinds)
		}
		if code, text, _ := runMain(t, nil, "timeline", out); code != 0 || strings.Count(text, "!! ALERT") != len(o.alerts) || strings.Count(text, ">> evidence") != len(o.evidence) {
			t.Errorf("%s: as text it is not all there (exit code %d)", name, code)
		}
	}
}
