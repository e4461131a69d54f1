package main

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/slips-go/slips/parsers"
)

// A growing is one log on its way to the disk.
type growing struct {
	name   string // of the file that is written now
	header string // what every file of the log begins with
	body   string
	off    int // of body, written so far
	pieces int // files that it was rotated to
	first  int64
	late   bool // it has not been begun
	turned time.Time
	start  int // of the file that is written now, in body
}

// left reports how much of the log is still to come.
func (g *growing) left() int { return len(g.body) - g.off }

// loadLogs reads the logs of a directory, or one log, unpacked. The one whose
// first record is the first of all comes first.
func loadLogs(t testing.TB, path string) []*growing {
	t.Helper()
	files := []string{path}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		var err error
		files, err = filepath.Glob(filepath.Join(path, "*"))
		must(t, err)
	}
	var logs []*growing
	for _, file := range files {
		text := readFile(t, file)
		if z, err := gzip.NewReader(strings.NewReader(text)); err == nil {
			data, err := io.ReadAll(z)
			must(t, err)
			text = string(data)
		}
		g := &growing{name: strings.TrimSuffix(filepath.Base(file), ".gz")}
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "StartTime,") {
				break
			}
			g.header += line
		}
		g.body = text[len(g.header):]
		if !strings.HasSuffix(g.body, "\n") {
			g.body += "\n"
		}
		g.first = firstTime(t, file)
		logs = append(logs, g)
	}
	slices.SortStableFunc(logs, func(a, b *growing) int { return cmp.Compare(a.first, b.first) })
	return logs
}

// firstTime returns the time of a log's first record, unix ns.
func firstTime(t testing.TB, file string) int64 {
	t.Helper()
	set, err := parsers.Open(parsers.Options{Paths: []string{file}})
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	readers.Go(func() { _ = set.Run(ctx) }) // always nil
	first := int64(math.MaxInt64)
	for _, in := range set.Inputs {
		for b := range in.C {
			if len(b.Flows) > 0 {
				first = min(first, b.Flows[0].Time)
				break
			}
			b.Release()
		}
	}
	stop()
	readers.Wait()
	return first
}

// style is how logs are written.
type style struct {
	whole  bool // one file after the other, instead of all in turns
	late   bool // logs appear one by one, the later ones when others are half written
	rename bool // rotation by renaming
	copied bool // rotation by copying and truncating
	packed bool // what was rotated by renaming is compressed
}

// A writer writes logs into a directory as a sensor would, in a way that its
// seed decides.
type writer struct {
	t    testing.TB
	dir  string
	logs []*growing
	rnd  *rand.Rand
	style
}

// newWriter writes the first line of the log that begins first, since the
// first record that a follower sees decides where windows begin.
func newWriter(t testing.TB, dir string, logs []*growing, s style, seed uint64) *writer {
	t.Helper()
	w := &writer{t: t, dir: dir, rnd: rand.New(rand.NewPCG(seed, 77)), style: s}
	must(t, os.MkdirAll(dir, 0o755))
	for _, g := range logs {
		c := *g
		c.late = true
		w.logs = append(w.logs, &c)
	}
	w.put(w.logs[0], strings.IndexByte(w.logs[0].body, '\n')+1)
	return w
}

func (w *writer) path(g *growing) string { return filepath.Join(w.dir, g.name) }

// put writes the next n bytes of a log.
func (w *writer) put(g *growing, n int) {
	g.late = false
	f, err := os.OpenFile(w.path(g), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	must(w.t, err)
	text := g.body[g.off : g.off+n]
	if st, err := f.Stat(); err == nil && st.Size() == 0 {
		text = g.header + text
	}
	_, err = f.WriteString(text)
	must(w.t, err)
	must(w.t, f.Close())
	g.off += n
}

// Sensors rotate by the hour, so there is time and traffic between two
// rotations of a log. With less traffic its files may overlap in time, and
// a follower that finds several of them cannot tell their order: lines are
// written seconds to minutes after what they tell of.
const (
	turnGap   = 300 * time.Millisecond
	turnParts = 5
	turnLeast = 2000 // bytes
)

// step writes a piece of some log, or rotates one. It reports false when all
// is written.
func (w *writer) step() bool {
	var open []*growing
	for i, g := range w.logs {
		if g.left() == 0 || w.late && g.late && i > 0 && w.logs[i-1].left() > len(w.logs[i-1].body)/2 {
			continue
		}
		if open = append(open, g); w.whole {
			break
		}
	}
	if len(open) == 0 {
		return false
	}
	g := open[w.rnd.IntN(len(open))]
	n := 1 + w.rnd.IntN(1+min(len(g.body)/10, 40_000))
	if w.rnd.IntN(3) == 0 {
		n = 1 + w.rnd.IntN(200)
	}
	w.put(g, min(n, g.left()))
	if (w.rename || w.copied) && w.rnd.IntN(2) == 0 && g.left() > 0 && time.Since(g.turned) > turnGap && g.off-g.start > max(len(g.body)/turnParts, turnLeast) {
		if i := strings.IndexByte(g.body[g.off:], '\n'); g.body[g.off-1] != '\n' {
			w.put(g, i+1)
		}
		w.rotate(g)
	}
	return true
}

// rotate puts what was written of a log aside, under the name that a sensor
// or logrotate would give it.
func (w *writer) rotate(g *growing) {
	g.pieces++
	g.turned, g.start = time.Now(), g.off
	stem, ext, _ := strings.Cut(g.name, ".")
	if w.copied {
		for i := g.pieces - 1; i > 0; i-- { // x.log.1 is always the newest
			must(w.t, os.Rename(w.path(g)+"."+strconv.Itoa(i), w.path(g)+"."+strconv.Itoa(i+1)))
		}
		writeFile(w.t, w.path(g)+".1", readFile(w.t, w.path(g)))
		must(w.t, os.Truncate(w.path(g), 0))
		return
	}
	at := captureStart().Add(time.Duration(g.pieces) * time.Minute)
	aside := filepath.Join(w.dir, stem+at.Format(".15:04:05-")+at.Add(time.Minute).Format("15:04:05.")+ext)
	must(w.t, os.Rename(w.path(g), aside))
	if w.packed && w.rnd.IntN(2) == 0 {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := z.Write([]byte(readFile(w.t, aside)))
		must(w.t, err)
		must(w.t, z.Close())
		writeFile(w.t, aside+".tmp", b.String())
		must(w.t, os.Rename(aside+".tmp", aside+".gz"))
		must(w.t, os.Remove(aside))
	}
}

// calm puts off rotations until a follower that was just launched has looked
// at the files.
func (w *writer) calm() {
	for _, g := range w.logs {
		g.turned = time.Now().Add(time.Second)
	}
}

// pause lets the follower have a turn of chance length. What it does in that
// time must not matter, so there is nothing to wait for.
func (w *writer) pause(most time.Duration) {
	select {
	case <-time.After(time.Duration(w.rnd.Int64N(int64(most)))):
	case <-w.t.Context().Done():
	}
}
