package parsers

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/parsers/flow"
)

// columns gives a Zeek log in columns: its header, and records of the seconds
// from..to-1.
func columns(from, to int, more ...string) (header, rows string) {
	header = "#separator \\x09\n#set_separator\t,\n#path\tconn\n" + strings.Join(more, "") +
		"#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tduration\tconn_state\n"
	var b strings.Builder
	for ; from < to; from++ {
		fmt.Fprintf(&b, "%d.5\t%d\t10.0.0.1\t1000\t10.0.0.2\t80\ttcp\t0.1\tSF\n", 1600000000+from, from)
	}
	return header, b.String()
}

func zeekLog(from, to int, more ...string) string {
	header, rows := columns(from, to, more...)
	return header + rows
}

func rows(from, to int) string {
	_, rows := columns(from, to)
	return rows
}

// A log that was rotated and compressed just before the start belongs before
// the live one, as it does in a replay.
func TestFollowFreshlyPacked(t *testing.T) {
	t.Parallel()
	for name, pack := range map[string]func(*testing.T, string) string{"gz": gz, "zst": zst} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "logs")
			write(t, filepath.Join(dir, "conn.log"), lines(100, 110))
			write(t, filepath.Join(dir, "conn.10_00.log."+name), pack(t, lines(0, 50)))
			r := start(t, Options{Paths: []string{dir}, Follow: true, Poll: time.Minute}, testFormats())
			r.records(60)
			r.drain()
			replay := start(t, Options{Paths: []string{dir}}, testFormats())
			replay.finish()
			for _, r := range []*run{r, replay} {
				r.want("logs/conn", append(seq(0, 50), seq(100, 110)...))
				if len(r.by) != 1 {
					t.Errorf("sources %v", sortedKeys(r.by))
				}
			}
		})
	}
}

// One that is still being compressed at the start is waited for.
func TestFollowPackingAtStart(t *testing.T) {
	t.Parallel()
	for _, had := range []int{0, 2, 30} {
		dir := filepath.Join(t.TempDir(), "logs")
		write(t, filepath.Join(dir, "conn.log"), lines(100, 110))
		packed := gz(t, lines(0, 50))
		path := filepath.Join(dir, "conn.10_00.log.gz")
		write(t, path, packed[:had])
		done := make(chan struct{})
		timer := time.AfterFunc(100*time.Millisecond, func() {
			defer close(done)
			appendTo(t, path, packed[had:])
		})
		defer timer.Stop()
		r := start(t, Options{Paths: []string{dir}, Follow: true, Poll: 500 * time.Millisecond}, testFormats())
		<-done
		r.records(60)
		r.drain()
		r.want("logs/conn", append(seq(0, 50), seq(100, 110)...))
	}
}

// A damaged one is not waited for longer than a moment, and is no source of
// its own either.
func TestFollowDamagedAtStart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	write(t, filepath.Join(dir, "conn.log"), lines(9000, 9010))
	write(t, filepath.Join(dir, "conn.10_00.log.gz"), gz(t, lines(0, 5000))[:5000])
	begun := time.Now()
	r := start(t, Options{Paths: []string{dir}, Follow: true}, testFormats())
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("waited %v", d)
	}
	r.idle("logs/conn", 1)
	g := r.drain()["logs/conn"]
	if n := len(g.records); n < 1010 || g.records[0] != 0 || g.records[n-1] != 9009 || len(r.by) != 1 {
		t.Errorf("%s", r.summary())
	}
}

// A writer whose log is truncated under him does not repeat the header.
func TestFollowTruncatedColumns(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	path := filepath.Join(dir, "conn.log")
	write(t, path, zeekLog(0, 10))
	r := start(t, Options{Paths: []string{dir}, Follow: true}, formats())
	r.records(10)
	copyTruncate(t, path, path+".1")
	appendTo(t, path, rows(10, 15))
	r.records(15)
	appendTo(t, path, zeekLog(15, 20))
	r.records(20)
	g := r.drain()["logs/conn"]
	r.want("logs/conn", seq(0, 20))
	if len(g.rejects) > 0 || len(r.by) != 1 {
		t.Errorf("rejects %v, sources %v", g.rejects, sortedKeys(r.by))
	}
	pos := flow.Position{Segment: g.segs[12], Offset: g.ends[12], Done: []string{g.segs[0].Print}}

	replay := readAll(t, dir)
	replay.want("logs/conn", seq(0, 20))
	again := start(t, Options{Paths: []string{dir}, Follow: true, Resume: map[string]flow.Position{"logs/conn": pos}}, formats())
	again.records(7)
	again.drain()
	again.want("logs/conn", seq(13, 20))
}

// Files without a header have that of the one before them, or the next.
func TestInheritedHeader(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	write(t, filepath.Join(dir, "conn.log"), rows(30, 40))
	write(t, filepath.Join(dir, "conn.log.1"), rows(20, 30))
	write(t, filepath.Join(dir, "conn.log.2.gz"), gz(t, zeekLog(10, 20)))
	write(t, filepath.Join(dir, "conn.log.3"), rows(0, 10))
	write(t, filepath.Join(dir, "dns.log"), rows(0, 3)) // nothing to inherit
	r := readAll(t, dir)
	r.want("logs/conn", seq(0, 40))
	if len(r.by) != 1 || len(r.by["logs/conn"].rejects) > 0 {
		t.Errorf("%s", r.summary())
	}
	if len(r.set.Problems) != 1 {
		t.Errorf("problems %v", r.set.Problems)
	}
	wantProblem(t, r.set.Problems, "dns.log", flow.ErrNoHeader)
	if !strings.Contains(r.log.String(), "level=WARN msg=\"not read: named like a log") {
		t.Error("no warning")
	}
}

// A writer that goes on at his old place leaves a hole of NUL bytes.
func TestHole(t *testing.T) {
	t.Parallel()
	for _, hole := range []int{100, 70_000, 17 << 20} {
		dir := filepath.Join(t.TempDir(), "logs")
		path := filepath.Join(dir, "conn.log")
		write(t, path, zeekLog(0, 10))
		r := start(t, Options{Paths: []string{dir}, Follow: true}, formats())
		r.records(10)
		// As a writer leaves it that kept its place in a file cut to nothing.
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte(rows(10, 15)), int64(hole)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		r.records(15)
		g := r.drain()["logs/conn"]
		r.want("logs/conn", seq(0, 15))
		if st, _ := os.Stat(path); len(g.rejects) > 0 || g.ends[14] != st.Size() || g.end != st.Size() {
			t.Errorf("rejects %v, ends at %d and %d, want %d", g.rejects, g.ends[14], g.end, st.Size())
		}
		write(t, filepath.Join(dir, "conn.log.1"), zeekLog(0, 10))
		readAll(t, dir).want("logs/conn", seq(0, 15))
	}
}

func TestCopies(t *testing.T) {
	label := func(from, to int) string {
		var b strings.Builder
		for ; from < to; from++ {
			fmt.Fprintf(&b, "%d label=bad\n", from)
		}
		return b.String()
	}
	for name, c := range map[string]struct {
		files map[string]string
		want  []int
		skip  int
	}{
		"alike only in the first":    {map[string]string{"conn.1.log": "0 a\n1 b\n", "conn.log": "0 a\n2 c\n"}, []int{0, 2, 0, 1}, 0},
		"alike in many":              {map[string]string{"conn.a.log": lines(0, 20000) + "50000 x\n", "conn.log": lines(0, 20000) + "60000 x\n"}, append(append(seq(0, 20000), 50000), append(seq(0, 20000), 60000)...), 0},
		"same dump twice":            {map[string]string{"conn.1.log": "0 a\n", "conn.2.log": "0 a\n"}, []int{0, 0}, 0},
		"prefix":                     {map[string]string{"conn.log": lines(0, 9), "conn.log.old": lines(0, 7)}, seq(0, 9), 1},
		"cut prefix":                 {map[string]string{"conn.log": lines(0, 9), "conn.log.old": lines(0, 7) + "7 som"}, seq(0, 9), 1},
		"labelled":                   {map[string]string{"conn.log": lines(0, 5000), "labeled-conn.log": label(0, 5000)}, seq(0, 5000), 1},
		"labelled lacks the end":     {map[string]string{"conn.log": lines(0, 5000), "labeled-conn.log": label(0, 4000)}, seq(0, 5000), 1},
		"labelled ends otherwise":    {map[string]string{"conn.log": lines(0, 5000), "labeled-conn.log": label(0, 4998) + "7000 label=x\n"}, append(append(seq(0, 4998), 7000), seq(0, 5000)...), 0},
		"packed has more than plain": {map[string]string{"conn.log": lines(0, 5), "conn.log.gz": gz(t, lines(0, 9))}, seq(0, 9), 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "logs")
			for file, text := range c.files {
				write(t, filepath.Join(dir, file), text)
			}
			r := start(t, Options{Paths: []string{dir}}, testFormats())
			r.finish()
			got := r.by["logs/conn"]
			if len(got.records) != len(c.want) || r.set.Skipped() != c.skip || strings.Count(r.log.String(), "taken for a copy") != c.skip {
				t.Fatalf("%d records, want %d, %d skipped, want %d", len(got.records), len(c.want), r.set.Skipped(), c.skip)
			}
			sum := 0
			for i := range c.want {
				sum += got.records[i] - c.want[i]
			}
			if sum != 0 {
				t.Errorf("other records than %v: %v", c.want[:min(len(c.want), 20)], got.records[:min(len(got.records), 20)])
			}
		})
	}
}

// A rotation that begins like the log beside it is not taken for it while following.
func TestFollowDumps(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	write(t, filepath.Join(dir, "conn.1.log"), "0 a\n1 b\n")
	r := start(t, Options{Paths: []string{dir}, Follow: true}, testFormats())
	r.records(2)
	write(t, filepath.Join(dir, "conn.2.log"), "0 a\n2 b\n3 c\n")
	r.records(5)
	r.drain()
	if len(r.by["logs/conn"].records) != 5 {
		t.Errorf("%s", r.summary())
	}
}

// A file is read once however often and in whatever way it is given.
func TestGivenTwice(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "in")
	write(t, filepath.Join(dir, "conn.log"), lines(0, 10))
	write(t, filepath.Join(dir, "dns.log"), lines(10, 20))
	if err := os.Symlink(dir, filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	conn := filepath.Join(dir, "conn.log")
	for _, follow := range []bool{false, true} {
		for name, c := range map[string]struct {
			paths []string
			want  []string
		}{
			"directory first": {[]string{dir, conn}, []string{"in/conn", "in/dns"}},
			"file first":      {[]string{conn, dir}, []string{"conn.log", "in/dns"}},
			"link":            {[]string{dir, filepath.Join(base, "link")}, []string{"in/conn", "in/dns"}},
			"below a link":    {[]string{filepath.Join(base, "link"), conn}, []string{"link/conn", "link/dns"}},
			"spelled twice":   {[]string{conn, dir + "/./conn.log"}, []string{"conn.log"}},
		} {
			t.Run(fmt.Sprintf("%s, follow=%t", name, follow), func(t *testing.T) {
				r := start(t, Options{Paths: c.paths, Follow: follow}, testFormats())
				if diff := cmp.Diff(c.want, names(r.set)); diff != "" {
					t.Error(diff)
				}
				n := 10 * len(c.want)
				r.records(n)
				r.drain()
				sum := 0
				for _, g := range r.by {
					sum += len(g.records)
				}
				if sum != n || len(r.set.Problems) > 0 || !strings.Contains(r.log.String(), "level=WARN") || !strings.Contains(r.log.String(), "twice") {
					t.Errorf("%d records, want %d; problems %v", sum, n, r.set.Problems)
				}
			})
		}
	}
}

// What is no log at all is named beside logs, and is no problem there.
func TestCapturesBesideLogs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	write(t, filepath.Join(dir, "conn.log"), lines(0, 3))
	write(t, filepath.Join(dir, "a.pcap"), "\xd4\xc3\xb2\xa1\x02\x00\x04\x00")
	write(t, filepath.Join(dir, "nfcapd.1"), "\x0c\xa5\x02\x00"+strings.Repeat("\x00", 300))
	for _, follow := range []bool{false, true} {
		r := start(t, Options{Paths: []string{dir}, Follow: follow}, testFormats())
		r.records(3)
		r.drain()
		for _, err := range []error{ErrPackets, ErrBinaryNfdump} {
			if words, _, _ := strings.Cut(err.Error(), `"`); strings.Count(r.log.String(), words) != 1 {
				t.Errorf("not said once: %v", err)
			}
		}
		if n := strings.Count(r.log.String(), "level=WARN"); n != 2 || len(r.set.Problems) > 0 || r.set.Skipped() != 2 {
			t.Errorf("%d warnings, problems %v", n, r.set.Problems)
		}
	}
}

// Logs that no detector uses are known by their names when they are JSON, and counted.
func TestUnusedJSON(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	for name, line := range map[string]string{
		"ocsp":           `{"ts":1600000000.5,"id":"Fabc","hashAlgorithm":"sha1","certStatus":"good"}`,
		"pe":             `{"ts":1600000000.5,"id":"Fabc","machine":"AMD64","is_exe":true}`,
		"packet_filter":  `{"ts":1600000000.5,"node":"zeek","filter":"ip or not ip","init":true,"success":true}`,
		"stats":          `{"ts":1600000000.5,"peer":"zeek","mem":84,"pkts_proc":1}`,
		"loaded_scripts": `{"name":"/opt/zeek/share/zeek/base/init-bare.zeek"}`,
	} {
		write(t, filepath.Join(dir, name+".log"), line+"\n"+line+"\n")
	}
	write(t, filepath.Join(dir, "conn.log"), "plain words\n")
	write(t, filepath.Join(dir, "reporter.log"), `{"level":"info","msg":"of another program"}`+"\n")
	r := readAll(t, dir)
	if diff := cmp.Diff([]string{"logs/loaded_scripts", "logs/ocsp", "logs/packet_filter", "logs/pe", "logs/stats"}, names(r.set)); diff != "" {
		t.Error(diff)
	}
	for name, g := range r.by {
		if g.ignored != 2 || len(g.rejects) > 0 {
			t.Errorf("%s: %d ignored, rejects %v", name, g.ignored, g.rejects)
		}
	}
	if n := strings.Count(r.log.String(), "named like a log"); n != 2 {
		t.Errorf("%d files named like logs, want 2", n)
	}
}

func TestFollowNothing(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Options{Paths: []string{dir, filepath.Join(dir, "missing")}, Follow: true}, testFormats())
	r.drain()
	if n := strings.Count(r.log.String(), "level=WARN"); n != 2 {
		t.Errorf("%d warnings, want 2:\n%s", n, r.log)
	}
}

// A duration with which times overflow is none.
func TestDuration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "conn.log")
	text := zeekLog(0, 3)
	text = strings.Replace(text, "\t0.1\t", "\t4000000000\t", 1)
	write(t, path, text)
	g := readAll(t, path).by["conn.log"]
	if len(g.records) != 2 || g.rejects[flow.ErrNumber.Error()] != 1 || g.end != int64(len(text)) {
		t.Errorf("%d records, rejects %v, end %d, want %d", len(g.records), g.rejects, g.end, len(text))
	}
	var f flow.Flow
	err := decodeLine(longFlow(-1), &f, nil)
	if want := (&flow.SyntaxError{Field: "duration", Err: flow.ErrNumber}); err == nil || err.Error() != want.Error() {
		t.Errorf("%v, want %v", err, want)
	}
	if err := decodeLine(longFlow(flow.MaxDuration), &f, nil); err != nil {
		t.Error(err)
	}
}

// longFlow decodes to records of that duration.
type longFlow int64

func (d longFlow) Decode(f *flow.Flow, _ []byte) error { f.Duration = int64(d); return nil }
func (longFlow) IsHeader([]byte) bool                  { return false }
