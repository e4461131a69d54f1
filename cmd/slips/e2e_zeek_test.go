//go:build unix

package main

import (
	"bytes"
	"compress/gzip"
	"encoding/gob"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/config"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/packet"
	"github.com/slips-go/slips/profiler"
)

// realZeek returns the Zeek to test with.
func realZeek(t testing.TB) string {
	t.Helper()
	path := os.Getenv("SLIPS_ZEEK")
	if path == "" {
		t.Skip("NOT TESTED: runs of a real Zeek; set SLIPS_ZEEK to the program")
	}
	return path
}

// fakeZeek writes a program that gives its version as Zeek does, and otherwise
// runs the lines of shell.
func fakeZeek(t testing.TB, version, lines string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "zeek")
	must(t, os.WriteFile(path, []byte("#!/bin/sh\nif [ \"$1\" = --version ]; then echo \"zeek version "+version+"\"; exit 0; fi\n"+lines+"\n"), 0o755))
	return path
}

// A capture is read by Zeek, packed or not; the results are the same bytes
// again, and Zeek's logs are kept or not, as the configuration says.
func TestZeekReadsCapture(t *testing.T) {
	t.Parallel()
	zeek := realZeek(t)
	dir := t.TempDir()
	capture := filepath.Join(dir, "scan.pcap")
	writeFile(t, capture, string(scanCapture(t, 30)))
	var first string
	for _, name := range []string{"one", "two"} {
		out := filepath.Join(dir, name)
		keep := name == "one"
		args := []string{"-f", capture, "-o", out, "--engine", "zeek", "--set", "zeekscripts.zeek=" + zeek}
		if !keep {
			args = append(args, "--set", "parameters.delete_zeek_files=true", "--lanes", "3")
		}
		if code, said := runProgram(t, args...); code != exitOK {
			t.Fatalf("exit code %d: %s", code, said)
		}
		got := results(t, out)
		if got.summary.Kinds["conn"] != 30 || got.evidence.types("10.0.0.5")["HORIZONTAL_PORT_SCAN"] == 0 || len(got.alerts) == 0 {
			t.Errorf("%v, %d alerts, %v", got.summary.Kinds, len(got.alerts), got.evidence.types("10.0.0.5"))
		}
		text := readFile(t, filepath.Join(out, "alerts", "evidence.jsonl"))
		if !keep && text != first {
			t.Error("two runs of Zeek on one capture give other bytes")
		}
		first = text
		if _, err := os.Stat(filepath.Join(out, zeekFiles, "scan.pcap", "conn.log")); (err == nil) != keep {
			t.Errorf("Zeek's logs, with delete_zeek_files %v: %v", !keep, err)
		}
		if run := readFile(t, filepath.Join(out, "metadata", "run.json")); !strings.Contains(run, `"engine": "zeek `) {
			t.Errorf("run.json does not name the engine: %s", run)
		}
	}
}

// A Zeek that cannot work gives way to the meter, unless it was asked for.
func TestBrokenZeek(t *testing.T) {
	t.Parallel()
	capture := filepath.Join(t.TempDir(), "scan.pcap")
	writeFile(t, capture, string(scanCapture(t, 30)))
	dies := fakeZeek(t, "8.0.1", "echo 'fatal error: cannot work' >&2; exit 1")
	for _, c := range []struct {
		name, zeek, engine string
		code               int
		says               string
	}{
		{"dies, auto", dies, "auto", exitOK, "built-in meter"},
		{"dies, asked for", dies, "zeek", exitSensor, `zeek says "fatal error: cannot work"`},
		{"too old", fakeZeek(t, "5.2.0", ""), "zeek", exitSensor, "is version 5.2.0, and versions 6 to 9 are supported"},
		{"too old but named", fakeZeek(t, "5.2.0", ""), "auto", exitSensor, "--engine builtin does without"},
		{"no Zeek at all", fakeZeek(t, "x", ""), "zeek", exitSensor, "which is not what zeek answers"},
		{"missing", "/no/such/zeek", "zeek", exitSensor, `the configured zeek "/no/such/zeek" cannot be run`},
		{"not wanted", "/no/such/zeek", "builtin", exitOK, "built-in meter"},
		{"nonsense", fakeZeek(t, "8.0.1", "echo 'slips: zeek is ready' >&2; echo '{\"ts\": nonsense' > conn.log; exit 0"), "zeek", exitInput, "no logs in this directory"},
		{"dies on the way", fakeZeek(t, "8.0.1", "echo 'slips: zeek is ready' >&2; kill -9 $$"), "zeek", exitInput, "ended by the signal killed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "out")
			code, said := runProgram(t, "-f", capture, "-o", out, "--engine", c.engine, "--set", "zeekscripts.zeek="+c.zeek)
			if log, err := os.ReadFile(filepath.Join(out, "slips.log")); err == nil {
				said += string(log)
			}
			if code != c.code || !strings.Contains(said, c.says) {
				t.Errorf("exit code %d, want %d and %q in: %s", code, c.code, c.says, said)
			}
		})
	}
}

// A Zeek whose installation is broken is tried once, and the run says who read
// its captures; one that a single capture is too much for reads the others.
func TestBrokenZeekIsTriedOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one.pcap"), filepath.Join(dir, "two.pcap")
	writeFile(t, one, string(scanCapture(t, 30)))
	writeFile(t, two, string(scanCapture(t, 20)))
	tries := filepath.Join(dir, "tries")
	for _, c := range []struct {
		name, fails, engine string
		tries               int
	}{
		{"broken", "echo 'fatal error: can'\\''t find base/init-bare' >&2; exit 1", "builtin", 1},
		{"one capture", "echo 'fatal error: problem with trace file - (odd)' >&2; exit 1", "zeek 8.0.1 (%s) and builtin", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, tries := filepath.Join(t.TempDir(), "out"), tries+c.name
			zeek := fakeZeek(t, "8.0.1", "echo x >> '"+tries+"'; if [ $(wc -l < '"+tries+"') = 1 ]; then "+c.fails+"; fi\n"+
				`echo 'slips: zeek is ready' >&2; echo '{"ts":1700000000.5,"uid":"C1","id.orig_h":"10.0.0.5","id.orig_p":1,"id.resp_h":"10.0.0.9","id.resp_p":80,"proto":"tcp","conn_state":"REJ"}' > conn.log`)
			code, said := runProgram(t, "-f", one, two, "-o", out, "--set", "zeekscripts.zeek="+zeek)
			if n := strings.Count(readFile(t, tries), "x"); code != exitOK || n != c.tries {
				t.Errorf("exit code %d, tried %d times, want %d: %s", code, n, c.tries, said)
			}
			engine := strings.Replace(c.engine, "%s", zeek, 1)
			if got := results(t, out).summary.Extra.Engine; got != engine {
				t.Errorf("summary.json names %q, want %q", got, engine)
			}
			if run := readFile(t, filepath.Join(out, "metadata", "run.json")); !strings.Contains(run, `"engine": "`+engine+`"`) {
				t.Errorf("run.json does not name %q: %s", engine, run)
			}
		})
	}
}

// A capture that is cut short, as one of a tcpdump that was killed is, gives what
// was in it also with Zeek, which by itself throws everything away. One whose
// packets were captured in part goes to the meter, unless Zeek was asked for.
func TestZeekOnDamagedCapture(t *testing.T) {
	t.Parallel()
	zeek := realZeek(t)
	dir := t.TempDir()
	whole := scanCapture(t, 60)
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		writeFile(t, path, string(text))
		return path
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write(whole)
	must(t, errors.Join(err, z.Close()))
	snapped := snap(t, whole)
	for _, c := range []struct {
		name, path, engine string
		code               int
		conns              int64
		says               string
	}{
		{"cut", write("cut.pcap", whole[:len(whole)-7]), "zeek", exitInput, 59, "damaged or cut short"},
		{"packed", write("whole.pcap.gz", packed.Bytes()), "zeek", exitOK, 60, "read by Zeek"},
		{"packed and cut", write("cut.pcap.gz", packed.Bytes()[:packed.Len()-20]), "zeek", exitInput, -1, "damaged or cut short"},
		{"in part", write("snap.pcap", snapped), "auto", exitOK, 60, "built-in meter"},
		{"in part, Zeek wanted", write("snap2.pcap", snapped), "zeek", exitOK, -1, "captured in part"},
		{"no head, Zeek wanted", write("head.pcap", whole[:10]), "zeek", exitInput, 0, "not a packet capture"},
		{"no packets", write("empty.pcap", whole[:24]), "zeek", exitOK, 0, "read by Zeek"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "out")
			code, said := runProgram(t, "-f", c.path, "-o", out, "--engine", c.engine, "--set", "zeekscripts.zeek="+zeek)
			said += readFile(t, filepath.Join(out, "slips.log"))
			if code != c.code || !strings.Contains(said, c.says) {
				t.Fatalf("exit code %d, want %d and %q in: %s", code, c.code, c.says, said)
			}
			// The last packet of what is cut may be the answer to the last attempt.
			if got := results(t, out); c.conns >= 0 && got.summary.Kinds["conn"] != c.conns {
				t.Errorf("%v, want %d connections", got.summary.Kinds, c.conns)
			}
			if left, err := filepath.Glob(filepath.Join(out, zeekFiles, "*.pcap")); err != nil || slices.ContainsFunc(left, isFile) {
				t.Errorf("copies are left: %v %v", left, err)
			}
		})
	}
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// snap makes a capture say that its packets were longer than what it has.
func snap(t testing.TB, capture []byte) []byte {
	t.Helper()
	r, err := packet.NewReader(bytes.NewReader(capture))
	must(t, err)
	defer r.Close()
	var b bytes.Buffer
	w, err := packet.NewWriter(&b, packet.LinkEthernet)
	must(t, err)
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		p.Length = len(p.Data) + 10
		must(t, w.Write(p))
	}
	must(t, w.Flush())
	return b.Bytes()
}

// A file of nonsense where Zeek should have written a log is told of and shows in
// the exit code; what the other logs say counts.
func TestZeekWritesNoLog(t *testing.T) {
	t.Parallel()
	capture := filepath.Join(t.TempDir(), "scan.pcap")
	writeFile(t, capture, string(scanCapture(t, 30)))
	zeek := fakeZeek(t, "8.0.1", "echo 'slips: zeek is ready' >&2; head -c 4096 /dev/zero > http.log\n"+
		`echo '{"ts":1700000000.5,"uid":"C1","id.orig_h":"10.0.0.5","id.orig_p":1,"id.resp_h":"10.0.0.9","id.resp_p":80,"proto":"tcp","conn_state":"REJ"}' > conn.log`)
	out := filepath.Join(t.TempDir(), "out")
	code, said := runProgram(t, "-f", capture, "-o", out, "--set", "zeekscripts.zeek="+zeek)
	if code != exitInput || !strings.Contains(said, "scan.pcap: what Zeek wrote as http.log is no log\n") {
		t.Errorf("exit code %d: %s", code, said)
	}
	if got := results(t, out); got.summary.Kinds["conn"] != 1 {
		t.Errorf("%v", got.summary.Kinds)
	}
}

// zeekSet is a run on interfaces whose Zeeks write to folders in dir.
func zeekSet(interfaces ...string) *packetSet {
	s := &packetSet{interfaces: interfaces, told: map[string]*export.InterfaceSummary{}, blind: map[string]time.Time{}, log: discard()}
	for _, name := range interfaces {
		s.told[name] = &export.InterfaceSummary{Name: name}
	}
	return s
}

// Lines of a Zeek of ours that are no records are its fault, but for those that
// it was killed in; those of others are not told of here.
func TestZeekFaults(t *testing.T) {
	t.Parallel()
	s := zeekSet("eth0")
	s.zeekDirs = []string{"/out/zeek_files/eth0"}
	sources := []profiler.SourceStats{
		{Name: "eth0/conn", Kinds: map[string]int64{"conn": 3}, Rejected: map[string]int64{"not JSON": 2, "no time": 1}},
		{Name: "eth0/dns", Kinds: map[string]int64{"dns": 3}},
		{Name: "/out/zeek_files/eth0/ssl", Ignored: 2, Rejected: map[string]int64{"not JSON": 4}},
		{Name: "eth0/http", Rejected: map[string]int64{"not JSON": 4}}, // told of elsewhere
		{Name: "eth0", Kinds: map[string]int64{"conn": 3}, Rejected: map[string]int64{"packets: short": 4}},
		{Name: "logs/conn", Kinds: map[string]int64{"conn": 3}, Rejected: map[string]int64{"not JSON": 9}},
	}
	faults := func(restarts int) (list []string) {
		for _, err := range s.faults(sources, restarts) {
			list = append(list, err.Error())
		}
		return list
	}
	want := []string{"eth0/conn: 3 of the lines that Zeek wrote are no records", "/out/zeek_files/eth0/ssl: 4 of the lines that Zeek wrote are no records"}
	if d := cmp.Diff(want, faults(0)); d != "" {
		t.Error(d)
	}
	s.gap("eth0", time.Second, errors.New("killed"))
	s.gap("eth0", time.Second, errors.New("killed"))
	if d := cmp.Diff(want[1:], faults(1)); d != "" {
		t.Error(d)
	}
}

// Who asks how the run does hears of a Zeek of which nothing is heard.
func TestUnwatched(t *testing.T) {
	t.Parallel()
	s := zeekSet("a", "b")
	if got := s.unwatched(); got != "" {
		t.Errorf("at first: %q", got)
	}
	s.unheard("b", time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC))
	s.unheard("a", time.Date(2026, 11, 22, 1, 2, 4, 0, time.UTC))
	if got, want := s.unwatched(), "nothing is heard of Zeek on a since 01:02:04; nothing is heard of Zeek on b since 01:02:03"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.unheard("a", time.Time{})
	s.unheard("b", time.Time{})
	if got := s.unwatched(); got != "" {
		t.Errorf("at the end: %q", got)
	}
}

// Logs that Zeek left before a restart without it are read on; where they were
// removed as configured, nobody misses them; and those not read stay.
func TestLogsOfZeekBefore(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "out")
	dir, err := export.Create(out, export.Options{})
	must(t, err)
	defer func() { must(t, dir.Close()) }()
	r := &run{dir: dir, o: runOptions{Config: config.Default()}}
	s := zeekSet("eth0", "eth1:1")
	logs := filepath.Join(out, zeekFiles, "eth1_1")
	must(t, os.MkdirAll(logs, 0o755))
	if got := s.leftByZeek(dir.Path(zeekFiles)); got != nil {
		t.Errorf("empty: %v", got)
	}
	writeFile(t, filepath.Join(logs, "conn.log"), "{}\n")
	if d := cmp.Diff([]string{logs}, s.leftByZeek(dir.Path(zeekFiles))); d != "" {
		t.Error(d)
	}

	type input struct{ Pos flow.Position }
	at := input{flow.Position{Segment: flow.Segment{Path: "x", Print: "p"}, Offset: 7}}
	// forgotten returns the sources whose place is forgotten.
	forgotten := func() (list []string) {
		var text bytes.Buffer // as it is saved
		must(t, gob.NewEncoder(&text).Encode(struct{ Inputs map[string]input }{map[string]input{"eth0/conn": at, "eth1_1/conn": at, "logs/conn": at}}))
		var c profiler.Checkpoint
		must(t, gob.NewDecoder(&text).Decode(&c))
		s.forget(r, &c)
		for name, pos := range c.Positions() {
			if pos.Segment.Print == "" {
				list = append(list, name)
			}
		}
		return list
	}
	s.forget(r, nil) // a run that begins
	if got := forgotten(); got != nil {
		t.Errorf("not removed by us, and forgotten: %v", got)
	}
	r.o.Config.Parameters.DeleteZeekFiles = true
	if d := cmp.Diff([]string{"eth0/conn"}, forgotten()); d != "" {
		t.Error(d)
	}

	if s.wasRead("x") {
		t.Error("a log is read before anybody reads")
	}
	s.follow(func(path string) bool { return path == "x" })
	if !s.wasRead("x") || s.wasRead("y") {
		t.Error("who reads is not asked")
	}
	for _, keep := range []bool{false, true} {
		s.temporary = logs
		if keep {
			s.keepLogs()
		}
		must(t, s.close())
		if _, err := os.Stat(logs); (err == nil) != keep {
			t.Errorf("keep %v: %v", keep, err)
		}
		must(t, os.MkdirAll(logs, 0o755))
	}
}
