package parsers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slips-go/slips/parsers/flow"
)

func TestFollowGrowth(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "conn.log")
	write(t, path, lines(0, 3))
	r := start(t, Options{Paths: []string{path}, Follow: true}, testFormats())
	r.records(3)
	r.idle("conn.log", 1)
	appendTo(t, path, lines(3, 5))
	r.records(5)
	appendTo(t, path, "5 half")
	appendTo(t, path, " a line")
	appendTo(t, path, " and its end\n")
	r.records(6)
	appendTo(t, path, "6 never ended")
	g := r.drain()["conn.log"]
	r.want("conn.log", seq(0, 6))
	if len(g.rejects) > 0 {
		t.Errorf("rejects %v", g.rejects)
	}
	st, _ := os.Stat(path)
	if want := st.Size() - int64(len("6 never ended")); g.ends[5] != want {
		t.Errorf("record 5 ends at %d, want %d", g.ends[5], want)
	}
}

// A line written byte by byte comes out once, whole, and the reader says
// that it is idle once for each line, not for each byte.
func TestFollowByteByByte(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "conn.log")
	write(t, path, "")
	r := start(t, Options{Paths: []string{path}, Follow: true, Poll: 10 * time.Millisecond}, testFormats())
	r.idle("conn.log", 1)
	for i := range 20 {
		for _, c := range fmt.Appendf(nil, "%d text\n", i) {
			appendTo(t, path, string(c))
		}
		r.records(i + 1)
	}
	r.idle("conn.log", 1)
	g := r.drain()["conn.log"]
	r.want("conn.log", seq(0, 20))
	if len(g.rejects) > 0 || g.idles > 21 || g.doubled > 0 {
		t.Errorf("rejects %v, idle marks %d, want at most 21, %d of them without news", g.rejects, g.idles, g.doubled)
	}
}

// A written line is there within milliseconds, without waiting for a poll.
func TestFollowLatency(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "conn.log")
	write(t, path, lines(0, 1))
	r := start(t, Options{Paths: []string{dir}, Follow: true, Poll: time.Hour}, testFormats())
	r.records(1)
	var worst time.Duration
	for i := range 50 {
		begun := time.Now()
		appendTo(t, path, lines(i+1, i+2))
		r.records(i + 2)
		worst = max(worst, time.Since(begun))
	}
	t.Logf("slowest of 50 lines: %v", worst)
	if worst > time.Second { // no poll helps here, so it would be much longer
		t.Errorf("a line took %v", worst)
	}
	r.drain()
}

func TestFollowLateFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "conn.log")
	r := start(t, Options{Paths: []string{path}, Follow: true}, testFormats())
	r.idle("conn.log", 1) // nobody need wait for it
	write(t, path, "")
	appendTo(t, path, "# header\n")
	appendTo(t, path, lines(0, 2))
	r.records(2)
	r.drain()
	r.want("conn.log", seq(0, 2))
}

func TestFollowDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	write(t, filepath.Join(dir, "conn.log"), "# h\n"+lines(0, 2))
	write(t, filepath.Join(dir, "notes.txt"), "hello\n")
	r := start(t, Options{Paths: []string{dir}, Follow: true}, testFormats())
	r.records(2)
	write(t, filepath.Join(dir, "dns.log"), "# h\n")
	r.until("the new source", func(by map[string]*got) bool { return by["logs/dns"] != nil })
	appendTo(t, filepath.Join(dir, "dns.log"), lines(10, 13))
	r.records(5)
	write(t, filepath.Join(dir, "late.txt"), "x")
	appendTo(t, filepath.Join(dir, "conn.log"), lines(2, 4))
	r.records(7)
	r.drain()
	r.want("logs/conn", seq(0, 4))
	r.want("logs/dns", seq(10, 13))
	if len(r.by) != 2 {
		t.Errorf("sources %v", sortedKeys(r.by))
	}
}

// Rotation by rename while the reader is busy: nothing is lost, nothing comes
// twice, whatever is left in the old file, and compressing it changes nothing.
func TestFollowRotation(t *testing.T) {
	t.Parallel()
	for _, single := range []bool{false, true} {
		t.Run(fmt.Sprintf("single=%t", single), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "logs")
			path := filepath.Join(dir, "conn.log")
			write(t, path, "# h\n")
			o := Options{Paths: []string{dir}, Follow: true}
			name := "logs/conn"
			if single {
				o.Paths, name = []string{path}, "conn.log"
			}
			r := start(t, o, testFormats())
			n := 0
			for round := range 6 {
				for range 40 {
					appendTo(t, path, lines(n, n+50))
					n += 50
				}
				old := filepath.Join(dir, fmt.Sprintf("conn.%02d_00.log", round))
				// The writer still holds the old file when it is renamed.
				f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				rename(t, path, old)
				if round%2 == 0 {
					write(t, path, "") // made by the one who rotates, before the writer knows
				}
				if _, err := f.WriteString(lines(n, n+10) + fmt.Sprintf("%d no newline", n+10)); err != nil {
					t.Fatal(err)
				}
				f.Close()
				n += 11
				appendTo(t, path, "# h\n")
				appendTo(t, path, lines(n, n+5))
				n += 5
				r.records(n)
				text, err := os.ReadFile(old)
				if err != nil {
					t.Fatal(err)
				}
				write(t, old+".gz", gz(t, string(text)))
				settle(t, old+".gz")
				if err := os.Remove(old); err != nil {
					t.Fatal(err)
				}
			}
			r.records(n)
			r.drain()
			r.want(name, seq(0, n))
			g := r.by[name]
			if len(r.by) != 1 || len(g.rejects) > 0 {
				t.Errorf("sources %v, rejects %v", sortedKeys(r.by), g.rejects)
			}
			for i, num := range g.numbers {
				if i != num || g.prints[i] == "" {
					t.Errorf("segments %v, prints %q", g.numbers, g.prints)
					break
				}
			}
		})
	}
}

// Two rotations between two looks: the file in the middle is not lost.
func TestFollowDoubleRotation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "eve.json")
	write(t, path, lines(0, 5))
	r := start(t, Options{Paths: []string{path}, Follow: true}, testFormats())
	r.records(5)
	rename(t, path, path+".1")
	write(t, path, lines(5, 10))
	rename(t, path+".1", path+".2")
	rename(t, path, path+".1")
	write(t, path, lines(10, 15))
	r.records(15)
	r.drain()
	r.want("eve.json", seq(0, 15))
}

func TestFollowCopyTruncate(t *testing.T) {
	t.Parallel()
	for _, single := range []bool{false, true} {
		t.Run(fmt.Sprintf("single=%t", single), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "logs")
			path := filepath.Join(dir, "eve.json")
			write(t, path, lines(0, 10))
			o := Options{Paths: []string{dir}, Follow: true}
			name := "logs/eve.json"
			if single {
				o.Paths, name = []string{path}, "eve.json"
			}
			r := start(t, o, testFormats())
			r.records(10)
			n := 10
			for round := range 4 {
				// Lines that the reader has no chance to see before they are cut away.
				appendTo(t, path, lines(n, n+500))
				n += 500
				copyTruncate(t, path, fmt.Sprintf("%s.%d", path, 4-round))
				// Sometimes the new content is already longer than the old was.
				more := 3
				if round%2 == 1 {
					more = 2000
				}
				appendTo(t, path, lines(n, n+more))
				n += more
				r.records(n)
			}
			r.drain()
			r.want(name, seq(0, n))
		})
	}
}

// A reader that waits for its consumer while a log is copied and truncated
// twice reads both copies before what the log holds then.
func TestFollowCopyTruncateTwice(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	path := filepath.Join(dir, "eve.json")
	write(t, path, lines(0, 10))
	r := start(t, Options{Paths: []string{dir}, Follow: true}, testFormats())
	r.records(10)
	const many = 200_000 // more than all batches hold
	r.mu.Lock()          // the consumer stops
	n := 10
	for round, more := range []int{many, 1000, 7} {
		if round > 0 {
			if round == 2 {
				rename(t, path+".1", path+".2")
			}
			copyTruncate(t, path, path+".1")
		}
		appendTo(t, path, lines(n, n+more))
		n += more
	}
	r.mu.Unlock()
	r.records(n)
	r.drain()
	r.want("logs/eve.json", seq(0, n))
}

// Truncated with no copy left: said, and read from the beginning.
func TestFollowTruncateWithoutCopy(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "conn.log")
	write(t, path, lines(0, 10))
	r := start(t, Options{Paths: []string{path}, Follow: true}, testFormats())
	r.records(10)
	write(t, path, lines(100, 103)) // os.WriteFile truncates
	r.records(13)
	r.drain()
	r.want("conn.log", append(seq(0, 10), seq(100, 103)...))
	if !strings.Contains(r.log.String(), "lines written just before may be lost") {
		t.Errorf("no warning in the log")
	}
}

func TestFollowDeletedAndMadeAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "conn.log")
	write(t, path, lines(0, 10))
	r := start(t, Options{Paths: []string{path}, Follow: true}, testFormats())
	r.records(10)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, path, lines(10, 20))
	r.records(20)
	r.drain()
	r.want("conn.log", seq(0, 20))
}

// The symbolic link "current" is turned to another directory; then the whole
// directory is replaced.
func TestFollowReplacedDirectory(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	cur := filepath.Join(base, "current")
	write(t, filepath.Join(base, "a", "conn.log"), lines(0, 10))
	write(t, filepath.Join(base, "b", "conn.log"), lines(10, 20))
	if err := os.Symlink(filepath.Join(base, "a"), cur); err != nil {
		t.Fatal(err)
	}
	r := start(t, Options{Paths: []string{cur}, Follow: true}, testFormats())
	r.records(10)
	if err := os.Symlink(filepath.Join(base, "b"), cur+".new"); err != nil {
		t.Fatal(err)
	}
	rename(t, cur+".new", cur)
	r.records(20)
	appendTo(t, filepath.Join(base, "b", "conn.log"), lines(20, 25))
	r.records(25)

	rename(t, filepath.Join(base, "b"), filepath.Join(base, "gone"))
	write(t, filepath.Join(base, "b", "conn.log"), lines(25, 30))
	r.records(30)
	appendTo(t, filepath.Join(base, "b", "conn.log"), lines(30, 31))
	r.records(31)
	r.drain()
	r.want("current/conn", seq(0, 31))
}

func TestFollowSymlinkedFile(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	link := filepath.Join(base, "logs", "conn.log")
	write(t, filepath.Join(base, "x", "conn-1.log"), lines(0, 10))
	write(t, filepath.Join(base, "x", "conn-2.log"), lines(10, 20))
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(base, "x", "conn-1.log"), link); err != nil {
		t.Fatal(err)
	}
	r := start(t, Options{Paths: []string{link}, Follow: true}, testFormats())
	r.records(10)
	if err := os.Symlink(filepath.Join(base, "x", "conn-2.log"), filepath.Join(base, "new")); err != nil {
		t.Fatal(err)
	}
	rename(t, filepath.Join(base, "new"), link)
	r.records(20)
	appendTo(t, filepath.Join(base, "x", "conn-2.log"), lines(20, 21))
	r.records(21)
	r.drain()
	r.want("conn.log", seq(0, 21))
}

func TestFollowBurst(t *testing.T) {
	const n = 1_000_000
	path := filepath.Join(t.TempDir(), "conn.log")
	write(t, path, "")
	r := start(t, Options{Paths: []string{path}, Follow: true}, testFormats())
	go func() {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		for i := 0; i < n; i += 1000 {
			if _, err := f.WriteString(lines(i, i+1000)); err != nil {
				t.Error(err)
			}
		}
	}()
	begun := time.Now()
	r.records(n)
	t.Logf("%d records in %v", n, time.Since(begun))
	r.drain()
	r.want("conn.log", seq(0, n))
}

// The Zeek layout: dated directories of compressed logs beside current, all
// of them one source; what is rotated from current into them is not read again.
func TestFollowArchive(t *testing.T) {
	t.Parallel()
	base := filepath.Join(t.TempDir(), "logs")
	old := filepath.Join(base, "2021-10-10", "conn.15:00:00-16:00:00.log.gz")
	write(t, old, gz(t, lines(0, 10)))
	settle(t, old)
	write(t, filepath.Join(base, "2021-10-10", "dns.15:00:00-16:00:00.log.gz"), gz(t, lines(500, 501)))
	settle(t, filepath.Join(base, "2021-10-10", "dns.15:00:00-16:00:00.log.gz"))
	live := filepath.Join(base, "current", "conn.log")
	write(t, live, lines(10, 20))
	r := start(t, Options{Paths: []string{base}, Follow: true}, testFormats())
	r.records(21)
	rotated := filepath.Join(base, "2021-10-11", "conn.16:00:00-17:00:00.log.gz")
	write(t, rotated, gz(t, lines(10, 20)))
	settle(t, rotated)
	if err := os.Remove(live); err != nil {
		t.Fatal(err)
	}
	write(t, live, lines(20, 30))
	r.records(31)
	r.drain()
	r.want("logs/conn", seq(0, 30))
}

// An old file that is put beside a log that is being written does not stop
// the following of that log.
func TestFollowOldFileAppears(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	write(t, filepath.Join(dir, "conn.log"), lines(100, 110))
	r := start(t, Options{Paths: []string{dir}, Follow: true}, testFormats())
	r.records(10)
	write(t, filepath.Join(dir, "conn.01.log"), lines(0, 5))
	r.records(15)
	appendTo(t, filepath.Join(dir, "conn.log"), lines(110, 120))
	r.records(25)
	r.drain()
	r.want("logs/conn", seq(100, 120))
	r.want("logs/conn@conn.01.log", seq(0, 5))
}

// Two files of one log that are written side by side.
func TestFollowRotatedGrowsAgain(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	a, b := filepath.Join(dir, "conn.a.log"), filepath.Join(dir, "conn.b.log")
	write(t, a, lines(0, 5))
	write(t, b, lines(100, 105))
	settle(t, a)
	r := start(t, Options{Paths: []string{dir}, Follow: true}, testFormats())
	r.records(10)
	r.idle("logs/conn", 1)
	appendTo(t, a, lines(5, 8))
	appendTo(t, b, lines(105, 108))
	r.records(16)
	appendTo(t, a, lines(8, 9))
	r.records(17)
	r.drain()
	r.want("logs/conn", append(seq(0, 5), seq(100, 108)...))
	r.want("logs/conn@conn.a.log", seq(5, 9))
}

// Killed after any record and started again, a follower gives each record
// once, wherever the files are by then.
func TestResumeEverywhere(t *testing.T) {
	t.Parallel()
	head := "# h\n"
	first, second := head+lines(0, 8)+"# changed\n"+lines(8, 12), head+lines(12, 20)
	layouts := map[string]func(t *testing.T, dir string){
		"unchanged": func(*testing.T, string) {},
		"compressed": func(t *testing.T, dir string) {
			t.Helper()
			old := filepath.Join(dir, "conn.1.log")
			write(t, filepath.Join(dir, "conn.10_00.log.gz"), gz(t, first))
			settle(t, filepath.Join(dir, "conn.10_00.log.gz"))
			if err := os.Remove(old); err != nil {
				t.Fatal(err)
			}
		},
		"rotated": func(t *testing.T, dir string) {
			t.Helper()
			rename(t, filepath.Join(dir, "conn.log"), filepath.Join(dir, "conn.2.log"))
			write(t, filepath.Join(dir, "conn.log"), head+lines(20, 25))
		},
	}
	for layout, change := range layouts {
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			total := 20
			if layout == "rotated" {
				total = 25
			}
			for stop := range 20 {
				dir := filepath.Join(t.TempDir(), "logs")
				write(t, filepath.Join(dir, "conn.1.log"), first)
				write(t, filepath.Join(dir, "conn.log"), second)
				r := start(t, Options{Paths: []string{dir}, Follow: true}, testFormats())
				r.records(20)
				g := r.drain()["logs/conn"]
				pos := flow.Position{Segment: g.segs[stop], Offset: g.ends[stop]}
				for _, seg := range g.segs[:stop] {
					if seg.Print != pos.Segment.Print && (len(pos.Done) == 0 || pos.Done[len(pos.Done)-1] != seg.Print) {
						pos.Done = append(pos.Done, seg.Print)
					}
				}
				change(t, dir)
				again := start(t, Options{Paths: []string{dir}, Follow: true, Resume: map[string]flow.Position{"logs/conn": pos}}, testFormats())
				again.records(total - stop - 1)
				h := again.drain()["logs/conn"]
				again.want("logs/conn", seq(stop+1, total))
				for i, n := range h.records {
					if want := map[bool]int{true: 2, false: 1}[n >= 8 && n < 12]; h.headers[i] != want {
						t.Errorf("stopped after %d: record %d decoded after %d headers, want %d", stop, n, h.headers[i], want)
					}
				}
				if len(again.by) != 1 || h.segs != nil && h.segs[0].N < pos.Segment.N {
					t.Errorf("stopped after %d: sources %v, segment %d after %d", stop, sortedKeys(again.by), h.numbers[0], pos.Segment.N)
				}
				again.cancel()
			}
		})
	}
}

// A single followed file that was rotated while nobody looked.
func TestResumeSingleFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "eve.json")
	write(t, path+".3", lines(0, 4))
	write(t, path, lines(4, 10))
	r := start(t, Options{Paths: []string{path}, Follow: true}, testFormats())
	r.records(6)
	g := r.drain()["eve.json"]
	r.want("eve.json", seq(4, 10))
	pos := flow.Position{Segment: g.segs[2], Offset: g.ends[2]}

	rename(t, path+".3", path+".5")
	rename(t, path, path+".4")
	write(t, path+".2.gz", gz(t, lines(10, 15)))
	settle(t, path+".2.gz")
	write(t, path, lines(15, 18))
	again := start(t, Options{Paths: []string{path}, Follow: true, Resume: map[string]flow.Position{"eve.json": pos}}, testFormats())
	again.records(11)
	again.drain()
	again.want("eve.json", seq(7, 18))
}

func TestResumeGone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	write(t, filepath.Join(dir, "conn.log"), lines(50, 60))
	pos := flow.Position{Segment: flow.Segment{Path: "conn.log", Print: strings.Repeat("ab", 20), N: 6}, Offset: 77}
	r := start(t, Options{Paths: []string{dir}, Follow: true, Resume: map[string]flow.Position{"logs/conn": pos}}, testFormats())
	r.records(10)
	g := r.drain()["logs/conn"]
	r.want("logs/conn", seq(50, 60))
	if !strings.Contains(r.log.String(), "records behind the offset may be lost") || g.numbers[0] != 7 {
		t.Errorf("segment %d, want 7; log: %s", g.numbers[0], r.log)
	}
}

// What is in the files when Drain is called is read, however much it is.
func TestDrainReadsAll(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	write(t, filepath.Join(dir, "conn.log"), lines(0, 100_000))
	write(t, filepath.Join(dir, "conn.01.log"), lines(200_000, 250_000)+"250000 no newline")
	o := Options{Paths: []string{dir}, Follow: true}
	r := start(t, o, testFormats())
	r.drain() // at once
	r.want("logs/conn", append(seq(200_000, 250_001), seq(0, 100_000)...))
}

func TestCancelStops(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	write(t, filepath.Join(dir, "conn.log"), lines(0, 200_000))
	set, err := open(Options{Paths: []string{dir}, Follow: true}, testFormats())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- set.Run(ctx) }()
	in := set.Inputs[0].C
	first := <-in // the reader fills the channel and then waits for batches to come back
	if len(first.Flows) == 0 || first.Segment.Print == "" {
		t.Errorf("first batch %d records, print %q", len(first.Flows), first.Segment.Print)
	}
	cancel()
	for b := range in {
		if b.Mark == flow.Ended {
			t.Error("marked as ended")
		}
	}
	if _, ok := <-set.More; ok {
		t.Error("More is open")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Without notice of the system polling alone does.
func TestFollowPollOnly(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	path := filepath.Join(dir, "conn.log")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := start(t, Options{Paths: []string{dir}, Follow: true, Poll: 10 * time.Millisecond}, testFormats())
	write(t, path, lines(0, 1))
	r.records(1)
	appendTo(t, path, lines(1, 10))
	r.records(10)
	rename(t, path, filepath.Join(dir, "conn.1.log"))
	appendTo(t, filepath.Join(dir, "conn.1.log"), lines(10, 12))
	write(t, path, lines(12, 20))
	r.records(20)
	write(t, filepath.Join(dir, "dns.log"), "")
	r.until("a look at the empty file", func(map[string]*got) bool {
		r.set.mu.Lock()
		defer r.set.mu.Unlock()
		return r.set.roots[0].pending[filepath.Join(dir, "dns.log")] != nil
	})
	appendTo(t, filepath.Join(dir, "dns.log"), lines(30, 32))
	r.records(22)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	appendTo(t, path, lines(40, 42))
	r.records(24)
	r.drain()
	r.want("logs/conn", append(seq(0, 20), 40, 41))
	r.want("logs/dns", []int{30, 31})
}

// A directory that is moved away and back while its log is written.
func TestFollowDirectoryAwayAndBack(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir := filepath.Join(base, "logs")
	path := filepath.Join(dir, "conn.log")
	write(t, path, lines(0, 5))
	r := start(t, Options{Paths: []string{dir}, Follow: true}, testFormats())
	r.records(5)
	rename(t, dir, dir+".away")
	appendTo(t, filepath.Join(dir+".away", "conn.log"), lines(5, 8))
	r.records(8)
	r.until("the loss of the directory", func(map[string]*got) bool {
		r.set.mu.Lock()
		defer r.set.mu.Unlock()
		return len(r.set.roots[0].entries) == 0
	})
	rename(t, dir+".away", dir)
	appendTo(t, path, lines(8, 12))
	r.records(12)
	r.drain()
	r.want("logs/conn", seq(0, 12))
}

// A compressed file that is still being written is left until it is whole.
func TestFollowCompressing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	write(t, filepath.Join(dir, "conn.log"), lines(100, 105))
	r := start(t, Options{Paths: []string{dir}, Follow: true}, testFormats())
	r.records(5)
	packed := gz(t, lines(0, 2000))
	path := filepath.Join(dir, "dns.00.log.gz")
	for i := 0; i < len(packed); i += 1 + len(packed)/7 {
		appendTo(t, path, packed[i:min(len(packed), i+1+len(packed)/7)])
	}
	r.records(2005)
	g := r.drain()["logs/dns"]
	r.want("logs/dns", seq(0, 2000))
	if len(g.rejects) > 0 {
		t.Errorf("rejects %v", g.rejects)
	}
}

// Followed while it is written and read afterwards, a log gives the same.
func TestFollowEqualsReplay(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	path := filepath.Join(dir, "conn.log")
	write(t, path, "# h\n")
	r := start(t, Options{Paths: []string{dir}, Follow: true}, testFormats())
	n := 0
	for round := range 5 {
		for range 10 {
			appendTo(t, path, lines(n, n+7)+"bad\n-\n")
			n += 7
		}
		r.records(n) // a file that comes and goes unseen would be a source of its own
		rename(t, path, filepath.Join(dir, fmt.Sprintf("conn.%d.log", round)))
		write(t, path, "# h\n")
	}
	r.records(n)
	followed := r.drain()["logs/conn"]
	replay := start(t, Options{Paths: []string{dir}}, testFormats())
	replayed := replay.finish()["logs/conn"]
	r.want("logs/conn", seq(0, n))
	replay.want("logs/conn", seq(0, n))
	if followed.rejects[flow.ErrNumber.Error()] != 50 || replayed.rejects[flow.ErrNumber.Error()] != 50 ||
		followed.ignored != 50 || replayed.ignored != 50 {
		t.Errorf("rejects %v and %v, ignored %d and %d", followed.rejects, replayed.rejects, followed.ignored, replayed.ignored)
	}
	for i := range followed.ends {
		if followed.ends[i] != replayed.ends[i] || followed.segs[i].Print != replayed.segs[i].Print || followed.segs[i].N != replayed.segs[i].N {
			t.Fatalf("record %d: end %d and %d, segment %v and %v", i, followed.ends[i], replayed.ends[i], followed.segs[i], replayed.segs[i])
		}
	}
}

// Rotations may begin with records of the same time that have no uid, as
// x509 and arp have: they are no copies of each other.
func TestRotationsThatBeginAlike(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	arp := func(op string) string {
		return fmt.Sprintf(`{"ts":1665150785.996414,"operation":%q,"src_mac":"50:5b:c2:db:c3:17","dst_mac":"30:30:30:30:30:30","orig_h":"192.168.1.15","resp_h":"69.220.152.0"}`+"\n", op)
	}
	cert := func(id string) string {
		return fmt.Sprintf(`{"ts":1634913065.0168,"fingerprint":%q,"certificate.version":3,"certificate.serial":"0A","certificate.subject":"CN=a","certificate.issuer":"CN=b"}`+"\n", id)
	}
	write(t, filepath.Join(dir, "arp.01.log"), arp("request"))
	write(t, filepath.Join(dir, "arp.log"), arp("reply"))
	write(t, filepath.Join(dir, "x509.log"), cert("aa"))
	r := start(t, Options{Paths: []string{dir}, Follow: true}, formats())
	r.records(3)
	rename(t, filepath.Join(dir, "arp.log"), filepath.Join(dir, "arp.02.log"))
	write(t, filepath.Join(dir, "arp.log"), arp("gratuitous"))
	rename(t, filepath.Join(dir, "x509.log"), filepath.Join(dir, "x509.01.log"))
	write(t, filepath.Join(dir, "x509.log"), cert("bb"))
	r.records(5)
	r.drain()
	if a, c := len(r.by["logs/arp"].records), len(r.by["logs/x509"].records); a != 3 || c != 2 {
		t.Errorf("%d arp and %d x509 records, want 3 and 2", a, c)
	}
}

// A file is finished when its reader is through with it, and so is what is no
// log; the log that is being written is not.
func TestFinished(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	path, aside := filepath.Join(dir, "eve.json"), filepath.Join(dir, "eve.json.1")
	write(t, path, lines(0, 10))
	r := start(t, Options{Paths: []string{dir}, Follow: true}, testFormats())
	r.records(10)
	if r.set.Finished(path) || r.set.Finished(aside) {
		t.Error("a file is finished that grows, or that is not there")
	}
	rename(t, path, aside)
	write(t, path, lines(10, 20))
	r.records(20)
	r.until("the rotated file to be finished", func(map[string]*got) bool { return r.set.Finished(aside) })
	if r.set.Finished(path) {
		t.Error("the new file is finished")
	}
	r.drain()
	r.want("logs/eve.json", seq(0, 20))
}
