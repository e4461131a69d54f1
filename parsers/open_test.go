package parsers

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/parsers/flow"
)

func names(s *Set) []string {
	var n []string
	for _, in := range s.Inputs {
		n = append(n, in.Name)
	}
	return n
}

// wantProblem checks that there is one problem, with the path's last element
// and the reason.
func wantProblem(t *testing.T, problems []error, base string, reason error) {
	t.Helper()
	for _, err := range problems {
		var p *Problem
		if !errors.As(err, &p) {
			t.Errorf("%v is no *Problem", err)
			continue
		}
		if filepath.Base(p.Path) == base && errors.Is(err, reason) {
			if !strings.Contains(err.Error(), p.Path) {
				t.Errorf("%q does not name the path", err)
			}
			return
		}
	}
	t.Errorf("problems %v, want one of %s: %v", problems, base, reason)
}

func TestOpenOptions(t *testing.T) {
	if _, err := Open(Options{}); err == nil {
		t.Error("no paths: no error")
	}
	if _, err := Open(Options{Paths: []string{"x"}, Format: "pcap"}); err == nil || !strings.Contains(err.Error(), `"pcap"`) {
		t.Errorf("unknown format: %v", err)
	}
	if _, err := Open(Options{Paths: []string{"-"}}); err == nil {
		t.Error("no standard input: no error")
	}
}

func TestOpenProblems(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good", "conn.log")
	write(t, good, lines(0, 3))
	write(t, filepath.Join(dir, "capture.pcap"), "\xd4\xc3\xb2\xa1\x02\x00\x04\x00"+strings.Repeat("\x00", 100))
	write(t, filepath.Join(dir, "capture.pcapng"), "\x0a\x0d\x0d\x0a"+strings.Repeat("\x00", 100))
	write(t, filepath.Join(dir, "nfcapd.1"), "\x0c\xa5\x02\x00"+strings.Repeat("\x00", 300))
	write(t, filepath.Join(dir, "text.log"), "hello\nworld\n")
	write(t, filepath.Join(dir, "empty.log"), "")
	write(t, filepath.Join(dir, "nothing", "README"), "hello\n")
	write(t, filepath.Join(dir, "caps", "a.pcap"), "\xd4\xc3\xb2\xa1\x02\x00\x04\x00")
	write(t, filepath.Join(dir, "secret.log"), lines(0, 1))
	if err := os.Chmod(filepath.Join(dir, "secret.log"), 0); err != nil {
		t.Fatal(err)
	}
	paths := []string{good}
	for _, n := range []string{"capture.pcap", "capture.pcapng", "nfcapd.1", "text.log", "empty.log", "nothing", "caps", "secret.log", "missing"} {
		paths = append(paths, filepath.Join(dir, n))
	}
	r := start(t, Options{Paths: paths}, testFormats())
	p := r.set.Problems
	wantProblem(t, p, "capture.pcap", ErrPackets)
	wantProblem(t, p, "capture.pcapng", ErrPackets)
	wantProblem(t, p, "nfcapd.1", ErrBinaryNfdump)
	wantProblem(t, p, "text.log", ErrUnrecognised)
	wantProblem(t, p, "nothing", ErrNoLogs)
	wantProblem(t, p, "caps", ErrPackets)
	wantProblem(t, p, "missing", fs.ErrNotExist)
	want, sources := 7, []string{"conn.log", "empty.log"}
	if os.Geteuid() == 0 {
		sources = append(sources, "secret.log") // root may read it
	} else {
		wantProblem(t, p, "secret.log", fs.ErrPermission)
		want++
	}
	if len(p) != want {
		t.Errorf("%d problems, want %d: %v", len(p), want, p)
	}
	if diff := cmp.Diff(sources, names(r.set)); diff != "" {
		t.Error(diff)
	}
	r.finish()
	r.want("conn.log", seq(0, 3))
	r.want("empty.log", nil)
}

// Rotations are one source, in the order of time, whatever their names; the
// rest is left alone.
func TestOpenDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	write(t, filepath.Join(dir, "conn.z.log"), "# h\n"+lines(0, 10))
	write(t, filepath.Join(dir, "conn.m.log.gz"), gz(t, "# h\n"+lines(10, 20)))
	write(t, filepath.Join(dir, "conn.a.log.zst"), zst(t, lines(20, 30)))
	write(t, filepath.Join(dir, "conn.log"), "# h\n"+lines(30, 40)+"40 without newline")
	write(t, filepath.Join(dir, "dns.log"), "# only a header\n")
	write(t, filepath.Join(dir, "eve.json.2.gz"), gz(t, lines(50, 52)))
	write(t, filepath.Join(dir, "eve.json.1"), lines(52, 54))
	write(t, filepath.Join(dir, "eve.json"), lines(54, 56))
	write(t, filepath.Join(dir, "http.log"), "")
	write(t, filepath.Join(dir, ".hidden.log"), lines(70, 80))
	write(t, filepath.Join(dir, "README.md"), "words\n")
	write(t, filepath.Join(dir, "sub", "conn.log"), lines(80, 90))
	if err := os.Symlink("/nowhere", filepath.Join(dir, "x.log")); err != nil {
		t.Fatal(err)
	}
	r := start(t, Options{Paths: []string{dir}}, testFormats())
	if diff := cmp.Diff([]string{"logs/conn", "logs/dns", "logs/eve.json"}, names(r.set)); diff != "" {
		t.Fatal(diff)
	}
	if len(r.set.Problems) > 0 || r.set.Skipped() != 2 {
		t.Errorf("problems %v, %d files skipped, want 2", r.set.Problems, r.set.Skipped())
	}
	g := r.finish()["logs/conn"]
	r.want("logs/conn", seq(0, 41))
	r.want("logs/dns", nil)
	r.want("logs/eve.json", seq(50, 56))
	if diff := cmp.Diff([]int{0, 1, 2, 3}, g.numbers); diff != "" {
		t.Error(diff)
	}
	if g.idles > 0 {
		t.Errorf("%d idle marks when not following", g.idles)
	}
	if read, total := r.set.Progress(); read != total || read == 0 {
		t.Errorf("read %d of %d bytes", read, total)
	}
}

func TestOpenCopies(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	var labelled strings.Builder
	for i := range 5 {
		fmt.Fprintf(&labelled, "%d label=bad\n", i)
	}
	write(t, filepath.Join(dir, "conn.log"), lines(0, 5))
	write(t, filepath.Join(dir, "labeled-conn.log"), labelled.String())
	write(t, filepath.Join(dir, "ORIGINALdns.log"), lines(10, 12))
	write(t, filepath.Join(dir, "dns.log"), lines(10, 12))
	write(t, filepath.Join(dir, "http.log"), lines(20, 22))
	write(t, filepath.Join(dir, "http.log.gz"), gz(t, lines(20, 22)))
	r := start(t, Options{Paths: []string{dir}}, testFormats())
	r.finish()
	if diff := cmp.Diff([]string{"logs/conn", "logs/dns", "logs/http"}, names(r.set)); diff != "" {
		t.Fatal(diff)
	}
	if !strings.HasSuffix(r.by["logs/conn"].segs[0].Path, "labeled-conn.log") {
		t.Errorf("read %s, not the labelled log", r.by["logs/conn"].segs[0].Path)
	}
	r.want("logs/dns", seq(10, 12))
	r.want("logs/http", seq(20, 22))
	if n := strings.Count(r.log.String(), "taken for a copy"); n != 3 || r.set.Skipped() != 3 {
		t.Errorf("%d warnings and %d files skipped, want 3", n, r.set.Skipped())
	}
}

func TestOpenBelow(t *testing.T) {
	base := t.TempDir()
	for day := range 3 {
		write(t, filepath.Join(base, "arc", fmt.Sprintf("2021-10-1%d", day), "conn.00:00:00-00:00:00.log.gz"), gz(t, lines(day*10, day*10+10)))
	}
	write(t, filepath.Join(base, "set", "data", "conn.log.labeled"), lines(0, 5))
	write(t, filepath.Join(base, "set", "README.md"), "x")
	write(t, filepath.Join(base, "two", "sensor1", "conn.log"), lines(0, 5))
	write(t, filepath.Join(base, "two", "sensor2", "conn.log"), lines(3, 8))
	r := start(t, Options{Paths: []string{filepath.Join(base, "arc"), filepath.Join(base, "set"), filepath.Join(base, "two")}}, testFormats())
	r.finish()
	if diff := cmp.Diff([]string{"arc/conn", "set/data/conn", "two/sensor1/conn", "two/sensor2/conn"}, names(r.set)); diff != "" {
		t.Fatal(diff)
	}
	r.want("arc/conn", seq(0, 30))
	r.want("two/sensor2/conn", seq(3, 8))
}

// The name of a source does not depend on how its path was written.
func TestOpenNames(t *testing.T) {
	base := t.TempDir()
	write(t, filepath.Join(base, "a", "logs", "conn.log"), lines(0, 1))
	write(t, filepath.Join(base, "b", "logs", "conn.log"), lines(0, 1))
	t.Chdir(filepath.Join(base, "a"))
	for _, path := range []string{"logs", "./logs/", "../a/logs", filepath.Join(base, "a", "logs")} {
		s, err := open(Options{Paths: []string{path}}, testFormats())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"logs/conn"}, names(s)); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
	s, err := open(Options{Paths: []string{"logs", "../b/logs", "logs/"}}, testFormats())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{filepath.Join(base, "a/logs/conn"), filepath.Join(base, "b/logs/conn")}, names(s)); diff != "" {
		t.Error(diff)
	}
}

func TestRejects(t *testing.T) {
	path := filepath.Join(t.TempDir(), "conn.log")
	var b strings.Builder
	b.WriteString("0 a\nbad\n-ignored\n1 b\n\n")
	b.WriteString(strings.Repeat("worse line\n", 1000))
	b.WriteString(strings.Repeat("x", 17<<20) + "\n2 c\n")
	write(t, path, b.String())
	now := time.Unix(1000, 0)
	var log lockedBuffer
	r := start(t, Options{
		Paths: []string{path}, Now: func() time.Time { return now }, Log: slog.New(slog.NewTextHandler(&log, nil)),
	}, testFormats())
	g := r.finish()["conn.log"]
	r.want("conn.log", []int{0, 1, 2})
	want := map[string]int{flow.ErrNumber.Error(): 1001, flow.ErrTooLong.Error(): 1}
	if diff := cmp.Diff(want, g.rejects); diff != "" || g.ignored != 1 {
		t.Errorf("%s ignored %d", diff, g.ignored)
	}
	text := log.String()
	if n := strings.Count(text, "line rejected"); n != 6 || !strings.Contains(text, "suppressed=996") ||
		!strings.Contains(text, "line=2 ") || !strings.Contains(text, "field=n value=bad") || !strings.Contains(text, "line=1006 ") {
		t.Errorf("%d lines logged:\n%s", n, text)
	}
	if want := int64(len(b.String())); g.ends[2] != want {
		t.Errorf("the last record ends at %d, want %d", g.ends[2], want)
	}
}

func TestThrottle(t *testing.T) {
	var b lockedBuffer
	now := time.Unix(0, 0)
	l := throttle{log: slog.New(slog.NewTextHandler(&b, nil)), level: slog.LevelWarn, now: func() time.Time { return now }, source: "s"}
	for range 100 { // ten in each second
		for range 10 {
			l.reject("r", flow.ErrNumber, "f", 1)
		}
		now = now.Add(time.Second)
	}
	l.flush()
	// Five at once, then one each ten seconds: at 10, 20 … 90.
	if n := strings.Count(b.String(), "line rejected"); n != 14 {
		t.Errorf("%d lines, want 14:\n%s", n, b.String())
	}
}

func TestCorruptAndLost(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	write(t, filepath.Join(dir, "conn.1.log.gz"), gz(t, lines(0, 5000))[:5000])
	write(t, filepath.Join(dir, "conn.log"), lines(5000, 5010))
	r := start(t, Options{Paths: []string{dir}}, testFormats())
	g := r.finish()["logs/conn"]
	n := len(g.records) - 10
	if n < 1000 {
		t.Fatalf("%d records of the corrupt file", n)
	}
	r.want("logs/conn", append(seq(0, n), seq(5000, 5010)...))
	if diff := cmp.Diff(map[string]int{flow.ErrTruncated.Error(): 1}, g.rejects); diff != "" {
		t.Error(diff)
	}
	wantProblem(t, r.set.Failed(), "conn.1.log.gz", io.ErrUnexpectedEOF)
	if text := r.set.Failed()[0].Error(); strings.Count(text, "conn.1.log.gz") != 1 {
		t.Errorf("%q: the path is not there once", text)
	}
}

// A file that is gone between Open and its turn is reported and counted.
func TestVanished(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	write(t, filepath.Join(dir, "conn.log"), lines(0, 10))
	write(t, filepath.Join(dir, "conn.1.log"), lines(10, 20))
	write(t, filepath.Join(dir, "dns.log"), lines(20, 30))
	set, err := open(Options{Paths: []string{dir}}, testFormats())
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "conn.1.log.gz"), gz(t, lines(10, 20)))
	if err := os.Remove(filepath.Join(dir, "conn.1.log")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "dns.log")); err != nil {
		t.Fatal(err)
	}
	counts := make(map[string]int)
	done := make(chan error, 1)
	go func() { done <- set.Run(t.Context()) }()
	for _, in := range set.Inputs {
		for b := range in.C {
			counts[in.Name] += len(b.Flows)
			counts[in.Name+" rejects"] += len(b.Rejects)
			b.Release()
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"logs/conn": 20, "logs/conn rejects": 0, "logs/dns": 0, "logs/dns rejects": 1}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Error(diff)
	}
	wantProblem(t, set.Failed(), "dns.log", ErrLost)
}

func TestShrinks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "conn.log")
	write(t, path, lines(0, 300_000))
	set, err := open(Options{Paths: []string{path}, Batches: 1}, testFormats())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- set.Run(t.Context()) }()
	rejects := make(map[string]int)
	n := 0
	for b := range set.Inputs[0].C {
		if n == 0 { // the reader waits for this batch
			if err := os.Truncate(path, 100_000); err != nil {
				t.Fatal(err)
			}
		}
		n += len(b.Flows)
		for _, r := range b.Rejects {
			rejects[r.Reason]++
		}
		b.Release()
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n < 1000 || n > 20_000 || rejects[flow.ErrTruncated.Error()] != 1 {
		t.Errorf("%d records, rejects %v", n, rejects)
	}
}

func TestStdin(t *testing.T) {
	for name, text := range map[string]string{
		"plain": "# h\n" + lines(0, 5000) + "5000 last", "gzip": gz(t, lines(0, 5000)+"5000 last"), "zstd": zst(t, lines(0, 5000)+"5000 last"),
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, Options{Paths: []string{"-"}, Stdin: strings.NewReader(text)}, testFormats())
			g := r.finish()["-"]
			r.want("-", seq(0, 5001))
			if g.idles > 0 || len(g.rejects) > 0 {
				t.Errorf("%d idle marks, rejects %v", g.idles, g.rejects)
			}
		})
	}
	t.Run("unknown", func(t *testing.T) {
		r := start(t, Options{Paths: []string{"-"}, Stdin: strings.NewReader("what is this\n")}, testFormats())
		r.finish()
		wantProblem(t, r.set.Failed(), "-", ErrUnrecognised)
		if n := len(r.by["-"].rejects); n != 0 || len(r.set.Failed()) != 1 {
			t.Errorf("%d rejects, problems %v", n, r.set.Failed())
		}
	})
	t.Run("empty", func(t *testing.T) {
		r := start(t, Options{Paths: []string{"-"}, Stdin: strings.NewReader("")}, testFormats())
		r.finish()
		r.want("-", nil)
	})
}

// A stream that is followed gives each line as it comes, and stops on demand.
func TestStdinFollow(t *testing.T) {
	in, out := io.Pipe()
	defer out.Close()
	r := start(t, Options{Paths: []string{"-"}, Stdin: in, Follow: true}, testFormats())
	r.idle("-", 1)
	for i := range 10 {
		if _, err := io.WriteString(out, lines(i, i+1)); err != nil {
			t.Fatal(err)
		}
		r.records(i + 1)
	}
	r.idle("-", 2)
	if _, err := io.WriteString(out, "10 cut"); err != nil {
		t.Fatal(err)
	}
	r.drain()
	r.want("-", seq(0, 10))
}

func TestPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip("no named pipes here:", err)
	}
	go func() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		if _, err := io.WriteString(f, lines(0, 10)); err != nil {
			t.Error(err)
		}
	}()
	r := start(t, Options{Paths: []string{path}}, testFormats())
	r.finish()
	r.want("pipe", seq(0, 10))
}

// Ten thousand rotated files are one source and one open file at a time.
func TestManyFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	const n = 3000
	for i := range n {
		write(t, filepath.Join(dir, fmt.Sprintf("conn.%05d.log", (i*7919)%n)), lines((i*7919)%n*3, (i*7919)%n*3+3))
	}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 64, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)
	begun := time.Now()
	r := start(t, Options{Paths: []string{dir}}, testFormats())
	t.Logf("opened after %v", time.Since(begun))
	r.finish()
	r.want("logs/conn", seq(0, 3*n))
}

// The reader waits for batches to come back instead of taking more memory.
func TestBackPressure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "conn.log")
	write(t, path, lines(0, 200_000))
	wake := make(chan struct{}, 1)
	set, err := open(Options{Paths: []string{path}, Batches: 3, Wake: wake}, testFormats())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- set.Run(t.Context()) }()
	var held []*flow.Batch
	for range 3 {
		held = append(held, <-set.Inputs[0].C)
	}
	<-wake
	select {
	case <-set.Inputs[0].C:
		t.Error("a fourth batch")
	case <-time.After(50 * time.Millisecond):
	}
	next := 0
	check := func(b *flow.Batch) {
		for i := range b.Flows {
			if b.Flows[i].UID != fmt.Sprint(next) {
				t.Fatalf("record %q, want %d: overwritten while held", b.Flows[i].UID, next)
			}
			next++
		}
		b.Release()
	}
	for _, b := range held {
		check(b)
	}
	for b := range set.Inputs[0].C {
		check(b)
	}
	if next != 200_000 {
		t.Errorf("%d records", next)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func BenchmarkReader(b *testing.B) {
	path := filepath.Join(b.TempDir(), "conn.log")
	text := strings.Repeat(strings.Repeat("x", 300)+"\n", 100_000)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
	known := []format{{"zeek", func([]byte) bool { return true }, func(string) Decoder { return nop{} }, anyKind}}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		set, err := open(Options{Paths: []string{path}}, known)
		if err != nil {
			b.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- set.Run(b.Context()) }()
		n := 0
		for batch := range set.Inputs[0].C {
			n += len(batch.Flows)
			batch.Release()
		}
		if err := <-done; err != nil || n != 100_000 {
			b.Fatal(n, err)
		}
	}
}

// nop decodes nothing, to measure what the reader costs beside its decoder.
type nop struct{}

func (nop) Decode(*flow.Flow, []byte) error { return nil }
func (nop) IsHeader([]byte) bool            { return false }

// What comes into a directory while its files are read is of no concern, also
// where they have no headers and go on as the one before them.
func TestReplayReadsWhatWasThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const head = "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n" +
		"#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\n"
	row := func(n int) string {
		return fmt.Sprintf("17000000%02d.5\tC%d\t10.0.0.5\t1025\t10.0.0.9\t80\ttcp\n", n, n)
	}
	write(t, filepath.Join(dir, "conn.00:00:00-01:00:00.log"), head+row(10))
	for i := 1; i < 4; i++ {
		write(t, filepath.Join(dir, fmt.Sprintf("conn.%02d:00:00-%02d:00:00.log", i, i+1)), row(10+i))
	}
	set, err := Open(Options{Paths: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "conn.05:00:00-06:00:00.log"), row(20))
	write(t, filepath.Join(dir, "http.log"), strings.ReplaceAll(head, "conn", "http")+row(21))
	var wg sync.WaitGroup
	n := 0
	for _, in := range set.Inputs {
		wg.Go(func() {
			for b := range in.C {
				n += len(b.Flows)
				b.Release()
			}
		})
	}
	if err := set.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if read, total := set.Progress(); n != 4 || len(set.Inputs) != 1 || read != total {
		t.Errorf("%d records of %d sources, %d of %d bytes", n, len(set.Inputs), read, total)
	}
}
