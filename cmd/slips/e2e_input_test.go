package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tsvHeader begins a conn.log in TSV with few columns.
const tsvHeader = "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n" +
	"#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tconn_state\n" +
	"#types\ttime\tstring\taddr\tport\taddr\tport\tenum\tstring\n"

// tsvLine is a good line below it.
func tsvLine(i int) string {
	return fmt.Sprintf("%d.5\tC%d\t10.0.0.5\t40001\t10.0.1.%d\t445\ttcp\tS0\n", 1700000000+i, i, i)
}

// pressed returns a text as gzip.
func pressed(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.WriteString(z, text)
	if err := z.Close(); err != nil {
		panic(err)
	}
	if err != nil {
		panic(err)
	}
	return b.String()
}

// Whatever is wrong with lines and files is said and counted, and the rest of
// the input is analysed.
func TestBadInput(t *testing.T) {
	good := connLines(0, 10) // a scan: one piece of evidence at its sixth line
	change := func(old, new string) string { return strings.Replace(connLines(10, 11), old, new, 1) }
	long := 100 << 20
	if testing.Short() {
		long = 20 << 20
	}
	cut := pressed(connLines(20, 5000))
	cut = cut[:len(cut)/2]
	damaged := []byte(pressed(strings.Repeat(connLines(20, 2000), 3)))
	damaged[len(damaged)/2] ^= 0xff
	damaged[len(damaged)/2+1] ^= 0xff
	for _, c := range []struct {
		name     string
		file     string // its name, beside conn.log; empty: the text comes behind the lines of conn.log
		text     string
		code     int
		records  int64 // besides the ten of conn.log; -1: some
		rejected int64 // -1: some
		ignored  int64
		said     string // on standard error
	}{
		{name: "nothing wrong"},
		{name: "truncated line", text: connLines(10, 11)[:90] + "\n", rejected: 1, said: "conn.log:11: "},
		{name: "last line cut", text: connLines(10, 11)[:90], rejected: 1, said: "conn.log:11: "},
		{name: "last line without newline", text: strings.TrimSuffix(connLines(10, 11), "\n"), records: 1},
		{name: "garbage", text: "\x00\x01\xff\xfe\n%%%\nhello world\n[]\n42\n\"x\"\nnull\n", rejected: 7, said: "conn.log:11: "},
		{name: "blank lines", text: "\n\n   \n\r\n" + connLines(10, 11), records: 1, rejected: -1},
		{name: "carriage returns", text: strings.ReplaceAll(connLines(10, 13), "\n", "\r\n"), records: 3},
		{name: "time is no number", text: change(`"ts":1700000010.5`, `"ts":"soon"`), rejected: 1, said: "ts"},
		{name: "time is an object", text: change(`"ts":1700000010.5`, `"ts":{}`), rejected: 1, said: "ts"},
		{name: "no time", text: change(`"ts":1700000010.5,`, ``), rejected: 1, said: "ts"},
		{name: "negative time", text: change(`"ts":1700000010.5`, `"ts":-5`), rejected: 1, said: "ts"},
		{name: "time far off", text: change(`"ts":1700000010.5`, `"ts":1e300`), rejected: 1, said: "ts"},
		{name: "time in 2260", text: change(`"ts":1700000010.5`, `"ts":9300000000`), rejected: 1, said: "ts"},
		{name: "1970", text: change(`"ts":1700000010.5`, `"ts":0.5`), records: 1},
		{name: "no address", text: change(`"id.orig_h":"10.0.0.5"`, `"id.orig_h":"10.0.0.256"`), rejected: 1, said: "id.orig_h"},
		{name: "address is a number", text: change(`"id.resp_h":"10.0.1.10"`, `"id.resp_h":7`), rejected: 1, said: "id.resp_h"},
		{name: "port too large", text: change(`40001`, `70000`), rejected: 1, said: "id.orig_p"},
		{name: "negative port", text: change(`"id.resp_p":445`, `"id.resp_p":-1`), rejected: 1, said: "id.resp_p"},
		{name: "port is text", text: change(`40001`, `"many"`), rejected: 1, said: "id.orig_p"},
		{name: "count is text", text: change(`"orig_pkts":1`, `"orig_pkts":"many"`), rejected: 1, said: "orig_pkts"},
		{name: "negative count", text: change(`"orig_pkts":1`, `"orig_pkts":-1`), rejected: 1, said: "orig_pkts"},
		{name: "fields that nobody knows", text: change(`"proto"`, `"x":[1,{"y":null}],"proto"`), records: 1},
		{name: "a field twice", text: change(`"proto"`, `"proto":"udp","proto"`), records: 1},
		{name: "NUL in a name", text: change(`"C10"`, `"C\u000010"`), records: 1},
		{name: "deep nesting", text: change(`"proto"`, `"x":`+strings.Repeat(`{"x":`, 100_000)+`1`+strings.Repeat(`}`, 100_000)+`,"proto"`), rejected: 1},
		{name: "deep arrays", text: strings.Repeat("[", 1_000_000) + "\n", rejected: 1},
		{name: "enormous line", text: change(`"C10"`, `"`+strings.Repeat("x", long)+`"`) + connLines(11, 13), records: 2, rejected: 1, said: "too long"},

		{name: "TSV", file: "conn.1.log", text: tsvHeader + tsvLine(20) + tsvLine(21), records: 2},
		{name: "missing column", file: "conn.1.log", text: tsvHeader + tsvLine(20) + strings.Replace(tsvLine(21), "\ttcp", "", 1) + tsvLine(22), records: 2, rejected: 1, said: "conn.1.log:9: "},
		{name: "extra column", file: "conn.1.log", text: tsvHeader + tsvLine(20) + strings.Replace(tsvLine(21), "\ttcp", "\ttcp\t1\t2", 1) + tsvLine(22), records: 2, rejected: 1, said: "conn.1.log:9: "},
		{name: "no header", file: "conn.1.log", text: tsvLine(20) + tsvLine(21), code: exitInput, said: "#fields"},
		{name: "header cut", file: "conn.1.log", text: tsvHeader[:120], rejected: 0},
		{name: "NUL in TSV", file: "conn.1.log", text: tsvHeader + tsvLine(20) + "x\x00y\n" + tsvLine(22), records: 2, rejected: 1},
		{name: "a hole in TSV", file: "conn.1.log", text: tsvHeader + tsvLine(20) + strings.Repeat("\x00", 9999) + tsvLine(22), records: 2},
		{name: "wrong types in TSV", file: "conn.1.log", text: tsvHeader + tsvLine(20) + strings.Replace(tsvLine(21), "40001", "x", 1) + strings.Replace(tsvLine(22), "1700000022.5", "-3", 1), records: 1, rejected: 2},

		{name: "truncated gzip", file: "conn.1.log.gz", text: cut, code: exitInput, records: -1, rejected: 1, said: "conn.1.log.gz"},
		{name: "corrupt gzip", file: "conn.1.log.gz", text: string(damaged), code: exitInput, records: -1, rejected: -1, said: "conn.1.log.gz"},
		{name: "gzip of nothing", file: "conn.1.log.gz", text: pressed(""), records: 0},
		{name: "gzip cut in its header", file: "conn.1.log.gz", text: pressed("x")[:5], records: 0},
		{name: "no gzip at all", file: "conn.1.log.gz", text: connLines(20, 22), records: 2},
		{name: "empty file", file: "dns.log", text: ""},
		{name: "other files", file: "notes.txt", text: "Buy milk.\n"},
		{name: "an image named as a log", file: "dns.log", text: "\x89PNG\r\n\x1a\n" + strings.Repeat("\x00\xff\n", 3000)},
		{name: "a log that is not used", file: "stats.log", text: `{"ts":1700000000.0,"peer":"zeek","mem":1}` + "\n", ignored: 1},
		{name: "a line that is not used", file: "all.log", text: `{"_path":"stats","ts":1700000000.0,"mem":1}` + "\n" + `{"_path":"conn",` + connLines(20, 21)[1:], records: 1, ignored: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
			text := good
			if c.file == "" {
				text += c.text
			} else {
				writeFile(t, filepath.Join(dir, c.file), c.text)
			}
			writeFile(t, filepath.Join(dir, "conn.log"), text)
			code, said := runProgram(t, "-f", dir, "-o", out)
			if code != c.code {
				t.Errorf("exit code %d, want %d: %s", code, c.code, said)
			}
			got := results(t, out)
			s := got.summary
			rejected := int64(0)
			for reason, n := range s.Rejected {
				rejected += n
				if reason == "" {
					t.Error("a reason is empty")
				}
			}
			if n := s.Records - 10; n != c.records && (c.records >= 0 || n <= 0) {
				t.Errorf("%d records besides the good ones, want %d; rejected %v", n, c.records, s.Rejected)
			}
			if rejected != c.rejected && (c.rejected >= 0 || c.name != "blank lines" && rejected <= 0) {
				t.Errorf("%d lines rejected, want %d: %v", rejected, c.rejected, s.Rejected)
			}
			if s.Ignored != c.ignored {
				t.Errorf("%d records ignored, want %d", s.Ignored, c.ignored)
			}
			log := said + readFile(t, filepath.Join(out, "slips.log"))
			if where, line, ok := strings.Cut(c.said, ":"); ok {
				if !strings.Contains(log, where) || !strings.Contains(log, "line="+strings.Trim(line, ": ")) {
					t.Errorf("the message does not name %s: %.2000s", c.said, log)
				}
			} else if !strings.Contains(log, c.said) {
				t.Errorf("the message does not say %q: %.2000s", c.said, log)
			}
			if got.evidence.types("10.0.0.5")["HORIZONTAL_PORT_SCAN"] == 0 {
				t.Errorf("the good lines were not analysed: %v", got.evidence)
			}
		})
	}
}

// What is given by name and cannot be read is an error; the rest is analysed.
func TestUnreadableInput(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good", "conn.log")
	writeFile(t, good, connLines(0, 10))
	must(t, os.Mkdir(filepath.Join(dir, "empty"), 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "dns.log"), 0o755))
	must(t, os.Symlink("nowhere", filepath.Join(dir, "link.log")))
	writeFile(t, filepath.Join(dir, "nothing.log"), "")
	writeFile(t, filepath.Join(dir, "notes.txt"), "Buy milk.\n")
	writeFile(t, filepath.Join(dir, "packets.pcap"), "\xd4\xc3\xb2\xa1\x02\x00\x04\x00"+strings.Repeat("\x00", 100))
	for name, code := range map[string]int{
		"missing.log": exitInput, "empty": exitInput, "dns.log": exitInput, "link.log": exitInput, "notes.txt": exitInput, "packets.pcap": exitInput,
		"nothing.log": exitOK,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "out")
			got, said := runProgram(t, "-f", filepath.Join(dir, name), "-f", good, "-o", out)
			if got != code || code != exitOK && !strings.Contains(said, name) {
				t.Errorf("exit code %d, want %d: %s", got, code, said)
			}
			if s := results(t, out).summary; s.Records != 10 {
				t.Errorf("%d records, want 10", s.Records)
			}
		})
	}
}

// Standard input, several inputs and a named format, and what the exit code says.
func TestInputsAndExitCodes(t *testing.T) {
	demo, eve := testdata("captures", "demo"), testdata("captures", "suricata", "eve.json")
	flows := testdata("captures", "argus", "flows.binetflow")
	records := map[string]int64{}
	for _, path := range []string{demo, eve, flows} {
		records[path] = replayed(t, path).summary.Records
	}
	for _, c := range []struct {
		name    string
		args    []string
		stdin   string
		code    int
		records int64
	}{
		{name: "several", args: []string{"-f", demo, "-f", eve, flows}, records: records[demo] + records[eve] + records[flows]},
		{name: "twice", args: []string{"-f", demo, "-f", demo}, records: records[demo]},
		{name: "stdin", args: []string{"-f", "-"}, stdin: readFile(t, eve), records: records[eve]},
		{name: "stdin packed", args: []string{"-f", "-"}, stdin: pressed(readFile(t, flows)), records: records[flows]},
		{name: "stdin and more", args: []string{"-f", "-", demo}, stdin: readFile(t, flows), records: records[flows] + records[demo]},
		{name: "empty stdin", args: []string{"-f", "-"}, records: 0, code: -1},
		{name: "format", args: []string{"-f", flows, "--format", "argus"}, records: records[flows]},
		{name: "wrong format", args: []string{"-f", flows, "--format", "suricata"}, records: 0, code: -1},
		{name: "alert", args: []string{"-f", demo, "--exit-code-on-alert", "10"}, records: records[demo], code: 10},
		{name: "no alert", args: []string{"-f", testdata("captures", "benign"), "--exit-code-on-alert", "10"}, code: 0, records: -1},
		{name: "alert and a missing file", args: []string{"-f", demo, "missing", "--exit-code-on-alert", "10"}, records: records[demo], code: exitInput},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "out")
			var text bytes.Buffer
			code := Main(context.WithoutCancel(t.Context()), append(c.args, "-o", out, "--quiet"), nil, strings.NewReader(c.stdin), &text, &text)
			if code != c.code && (c.code >= 0 || code != exitOK && code != exitInput) {
				t.Errorf("exit code %d, want %d: %s", code, c.code, text.String())
			}
			if s := results(t, out).summary; s.Records != c.records && c.records >= 0 {
				t.Errorf("%d records, want %d", s.Records, c.records)
			}
		})
	}
}

// A run that is stopped before the end of its files says so, and leaves whole
// files behind; so does one whose output is refused.
func TestStoppedAndRefused(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r, w := io.Pipe()
	done := make(chan int, 1)
	var text bytes.Buffer
	go func() { done <- Main(ctx, []string{"-f", "-", "-o", out, "--quiet"}, nil, r, &text, &text) }()
	_, err := io.WriteString(w, connLines(0, 5000))
	must(t, err)
	wait(t, "the run to begin", func() bool { _, err := os.Stat(filepath.Join(out, "slips.log")); return err == nil })
	cancel()
	select {
	case code := <-done:
		if code != exitInterrupted || !strings.Contains(text.String(), "stopped before the end") {
			t.Errorf("exit code %d, want %d: %s", code, exitInterrupted, text.String())
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
	must(t, w.Close())
	results(t, out)

	demo := testdata("captures", "demo")
	if code, said := runProgram(t, "-f", demo, "-o", out); code != exitOutput || !strings.Contains(said, "another run") {
		t.Errorf("directory of another run: exit code %d: %s", code, said)
	}
	if code, said := runProgram(t, "--follow", demo, "-o", out); code != exitOutput || !strings.Contains(said, "another run") {
		t.Errorf("directory of another run, followed: exit code %d: %s", code, said)
	}
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, "x")
	for _, bad := range []string{file, filepath.Join(file, "below")} {
		if code, said := runProgram(t, "-f", demo, "-o", bad); code != exitOutput || !strings.Contains(said, "file") {
			t.Errorf("output %s: exit code %d: %s", bad, code, said)
		}
	}
	if code, _ := runProgram(t, "-f", demo, "--lanes", "-3"); code != exitUsage {
		t.Errorf("wrong flag: exit code %d", code)
	}
}

// A file that shrinks while it is followed, with no copy of what was in it:
// it is said, and what comes then is read.
func TestShrinkingFile(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	log := filepath.Join(dir, "conn.log")
	writeFile(t, log, connLines(0, 10))
	f := follow(t, out, dir, "--set", "follow.poll_interval=5ms", "--set", "profiler.checkpoint_interval=100ms")
	wait(t, "the first records", func() bool { return begun(out) })
	writeFile(t, log, connLines(10, 12))
	wait(t, "the follower to see it", logged(t, out, "truncated"))
	appendFile(t, log, connLines(12, 15))
	f.stop(t)
	if s := results(t, out).summary; s.Records != 15 {
		t.Errorf("%d records, want 15", s.Records)
	}
}
