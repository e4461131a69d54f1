package parsers

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"github.com/slips-go/slips/parsers/flow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// numbers is the format of the tests: a line "12 text" is a record that
// began in second 12, "#" begins a header, "-" an ignored record. A record
// below 0 belongs to an unknown log.
type numbers struct{ headers int }

func (d *numbers) IsHeader(line []byte) bool { return bytes.HasPrefix(line, []byte("#")) }

func (d *numbers) Decode(dst *flow.Flow, line []byte) error {
	dst.Reset(flow.Conn)
	if len(line) == 0 || line[0] == '#' {
		d.headers++
		return flow.ErrHeader
	}
	if line[0] == '-' {
		return flow.ErrIgnored
	}
	first, label, _ := bytes.Cut(line, []byte(" "))
	n, err := strconv.Atoi(string(first))
	if err != nil {
		return &flow.SyntaxError{Field: "n", Value: string(first[:min(len(first), 64)]), Err: flow.ErrNumber}
	}
	if rest, ok := bytes.CutPrefix(label, []byte("label=")); ok {
		dst.Label = flow.Alias(rest)
	}
	dst.Time = int64(n) * 1e9
	dst.UID = flow.Alias(first)
	dst.VLAN = uint16(min(d.headers, 1000))
	dst.Src = netip.AddrFrom4([4]byte{10, 0, 0, 1})
	return nil
}

func testFormats() []format {
	return []format{{
		kinds: anyKind,
		name:  "zeek", // so that file names are grouped as Zeek's are
		sniff: func(head []byte) bool {
			return len(head) > 0 && (head[0] == '#' || head[0] == '-' || head[0] >= '0' && head[0] <= '9')
		},
		fresh: func(string) Decoder { return new(numbers) },
	}}
}

// got is what came out of one source.
type got struct {
	name    string
	records []int
	ends    []int64
	headers []int // header lines the decoder had seen at each record
	rejects map[string]int
	ignored int
	idles   int // Idle marks
	doubled int // Idle marks with nothing since the one before
	resting bool
	ended   bool
	closed  bool
	prints  []string // of the segments, in order
	numbers []int    // of the segments
	batches int
	end     int64 // of the last batch with lines
	// batches that end before their last record, or have lines and no end
	wrongEnd int
	segs     []flow.Segment // of each record
}

// run is a Set at work and what it has given so far.
type run struct {
	t      *testing.T
	set    *Set
	cancel context.CancelFunc
	done   chan struct{}

	mu   sync.Mutex
	by   map[string]*got
	seen chan struct{} // poked after every batch
	log  *lockedBuffer
	wg   sync.WaitGroup
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func start(t *testing.T, o Options, known []format) *run {
	t.Helper()
	r := &run{t: t, by: make(map[string]*got), seen: make(chan struct{}, 1), done: make(chan struct{}), log: new(lockedBuffer)}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if o.Poll == 0 {
		o.Poll = 50 * time.Millisecond
	}
	set, err := open(o, known)
	if err != nil {
		t.Fatal(err)
	}
	r.set = set
	set.pollOnly = known[0].fresh != nil && strings.Contains(t.Name(), "PollOnly")
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	for _, in := range set.Inputs {
		r.take(in)
	}
	r.wg.Go(func() {
		for in := range set.More {
			r.take(in)
		}
	})
	go func() {
		defer close(r.done)
		if err := set.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
		r.wg.Wait()
	}()
	t.Cleanup(func() {
		cancel()
		<-r.done
		if t.Failed() {
			t.Logf("log:\n%s", r.log)
		}
	})
	return r
}

func (r *run) take(in flow.Input) {
	g := &got{name: in.Name, rejects: make(map[string]int)}
	r.mu.Lock()
	if r.by[in.Name] != nil {
		r.t.Errorf("two inputs of the name %q", in.Name)
	}
	r.by[in.Name] = g
	r.mu.Unlock()
	r.wg.Go(func() {
		for b := range in.C {
			r.mu.Lock()
			g.add(b)
			r.mu.Unlock()
			b.Release()
			select {
			case r.seen <- struct{}{}:
			default:
			}
		}
		r.mu.Lock()
		g.closed = true
		r.mu.Unlock()
	})
}

func (g *got) add(b *flow.Batch) {
	g.batches++
	if n := len(b.Flows); n > 0 && b.End < b.Flows[n-1].End || n == 0 && len(b.Data) > 0 && b.Mark == flow.More && b.End == 0 {
		g.wrongEnd++
	}
	if b.End > 0 {
		g.end = b.End
	}
	for i := range b.Flows {
		f := &b.Flows[i]
		n, err := strconv.Atoi(f.UID)
		if err != nil {
			n = -1
		}
		g.records = append(g.records, n)
		g.ends = append(g.ends, f.End)
		g.headers = append(g.headers, int(f.VLAN))
		g.segs = append(g.segs, b.Segment)
	}
	for _, rej := range b.Rejects {
		if rej.Ignored {
			g.ignored++
		} else {
			g.rejects[rej.Reason]++
		}
	}
	if n := len(g.numbers); n == 0 || g.numbers[n-1] != b.Segment.N {
		g.numbers = append(g.numbers, b.Segment.N)
		g.prints = append(g.prints, b.Segment.Print)
	}
	g.prints[len(g.prints)-1] = b.Segment.Print
	if b.Mark == flow.Idle {
		g.idles++
		if g.resting && len(b.Flows)+len(b.Rejects) == 0 {
			g.doubled++
		}
	}
	g.resting = b.Mark == flow.Idle
	g.ended = b.Mark == flow.Ended
}

// until waits for a condition of what has come so far.
func (r *run) until(what string, ok func(by map[string]*got) bool) {
	r.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		r.mu.Lock()
		yes := ok(r.by)
		r.mu.Unlock()
		if yes {
			return
		}
		select {
		case <-r.seen:
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			r.t.Fatalf("waited in vain for %s; got %s\nlog:\n%s", what, r.summary(), r.log)
		}
	}
}

// records waits for n records in all sources together.
func (r *run) records(n int) {
	r.t.Helper()
	r.until(fmt.Sprintf("%d records", n), func(by map[string]*got) bool {
		sum := 0
		for _, g := range by {
			sum += len(g.records)
		}
		return sum >= n
	})
}

// idle waits until the source has said n times that it caught up.
func (r *run) idle(name string, n int) {
	r.t.Helper()
	r.until(fmt.Sprintf("%d idle marks of %s", n, name), func(by map[string]*got) bool {
		return by[name] != nil && by[name].idles >= n
	})
}

func (r *run) summary() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var s strings.Builder
	for _, name := range sortedKeys(r.by) {
		g := r.by[name]
		fmt.Fprintf(&s, "%s: %d records %v… rejects %v idles %d ended %t; ", name, len(g.records), g.records[:min(20, len(g.records))], g.rejects, g.idles, g.ended)
	}
	return s.String()
}

// finish waits for the end and returns what came.
func (r *run) finish() map[string]*got {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(30 * time.Second):
		r.t.Fatalf("does not end; got %s", r.summary())
	}
	for name, g := range r.by {
		if g.wrongEnd > 0 {
			r.t.Errorf("%s: %d batches have a wrong End", name, g.wrongEnd)
		}
		if !g.ended || !g.closed {
			r.t.Errorf("%s: ended %t, closed %t", name, g.ended, g.closed)
		}
	}
	return r.by
}

// drain stops following and returns what came.
func (r *run) drain() map[string]*got {
	r.t.Helper()
	r.set.Drain()
	return r.finish()
}

func (r *run) want(name string, want []int) {
	r.t.Helper()
	g := r.by[name]
	if g == nil {
		r.t.Fatalf("no source %q; have %v", name, sortedKeys(r.by))
	}
	if len(g.records) != len(want) {
		r.t.Fatalf("%s: %d records, want %d: %v", name, len(g.records), len(want), g.records[:min(len(g.records), 50)])
	}
	for i := range want {
		if g.records[i] != want[i] {
			r.t.Fatalf("%s: record %d is %d, want %d", name, i, g.records[i], want[i])
		}
	}
}

func seq(from, to int) []int {
	var s []int
	for ; from < to; from++ {
		s = append(s, from)
	}
	return s
}

// lines gives the lines of the records from..to-1.
func lines(from, to int) string {
	var b strings.Builder
	for ; from < to; from++ {
		fmt.Fprintf(&b, "%d some text\n", from)
	}
	return b.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// copyTruncate rotates a log as logrotate's copytruncate does.
func copyTruncate(t *testing.T, path, to string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, string(text))
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// settle makes a file look as if written a minute ago.
func settle(t *testing.T, path string) {
	t.Helper()
	past := time.Now().Add(-time.Minute)
	if err := os.Chtimes(path, past, past); err != nil {
		t.Fatal(err)
	}
}

func gz(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func zst(t *testing.T, text string) string {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return string(w.EncodeAll([]byte(text), nil))
}
