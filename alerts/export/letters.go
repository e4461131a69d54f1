package export

import (
	"cmp"
	"encoding/gob"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/letters"
	"github.com/slips-go/slips/profiler/profile"
)

const (
	lettersFile   = "flows/letters.tsv"
	lettersHeader = "Outtuple\tLetters\n"
)

// The bounds of a LetterWriter.
const (
	maxTuples   = 200_000  // in all open windows: about 50 MB
	maxSymbols  = 10_000   // letters of a tuple in a window; a model reads hundreds
	maxAllBytes = 32 << 20 // letters of all open windows, which a checkpoint writes each time
)

// LetterStats counts what a LetterWriter did since the run began.
type LetterStats struct {
	Tuples      int64 `json:"tuples"`  // written, each in one window
	Flows       int64 `json:"flows"`   // that have a symbol
	Pending     int64 `json:"pending"` // tuples whose window is open
	Dropped     int64 `json:"dropped_flows"`
	ClosedEarly int64 `json:"windows_closed_early"`
	Lost        int64 `json:"lost_lines"`
}

// recordFile is a file of lines that one goroutine writes, while that of the
// Dir flushes it and asks how it is. After a restart it is cut to its mark.
type recordFile struct {
	mu   sync.Mutex
	name string // relative to the output directory
	out  *outFile
}

// openRecords opens the file and makes its folder.
func (w *recordFile) openRecords(dir, name string) error {
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("output directory is not writable: %w", &WriteError{filepath.Dir(path), err})
	}
	var err error
	if w.out, err = openFile(path, wholeLine); err != nil {
		return fmt.Errorf("output directory is not writable: %w", err)
	}
	w.name = name
	return nil
}

// Flush hands the lines written so far to the operating system.
func (w *recordFile) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.flush()
}

// Err returns the error that ended the file; nil for none.
func (w *recordFile) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.err
}

func (w *recordFile) file() string { return w.name }

func (w *recordFile) lost() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.lost
}

func (w *recordFile) mark() (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.out.flush(); err != nil {
		return 0, err
	}
	return w.out.size, w.out.sync()
}

func (w *recordFile) resume(mark int64, _ bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.truncate(mark)
}

func (w *recordFile) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.close()
}

// LetterWriter writes what each tuple did in each window as letters (see
// package letters), one row for each: the name "<src>-<dst>-<dport>-<proto>-
// timewindow<n>" and the letters. When the destinations have profiles too,
// each row is followed by that of the in-tuple, "<dst>-<src>-<dport>-<proto>-
// timewindow<n>-in", which has the same flows and so the same letters.
//
// The rows of a window are written in the order of their first flows, once
// the connections have reached the third window behind it. That is a matter
// of the records alone, so the file does not depend on how they came. A record
// that is even later begins a new row.
//
// Flow may be called by one goroutine while another one calls the other methods.
type LetterWriter struct {
	recordFile
	both    bool
	windows map[profile.Window]*letterWindow
	last    *letterWindow // of the last record
	clock   int64         // stream time of the connections
	next    int64         // stream time at which windows are closed
	tuples  int           // in windows
	bytes   int           // of letters in windows
	line    []byte
	stats   LetterStats
	max     struct{ tuples, symbols, bytes int }
}

// letterWindow has the tuples of one window in the order of their first flows.
type letterWindow struct {
	Window profile.Window
	Tuples []letterTuple
	index  map[tupleKey]int
}

// tupleKey identifies a tuple and the profile it belongs to. The in-tuple of
// the destination's profile has the same key.
type tupleKey struct {
	Src, Dst netip.Addr
	Port     uint16
	Proto    flow.Proto
}

type letterTuple struct {
	Key     tupleKey
	State   letters.Tuple
	Letters []byte
	Cut     bool // it has as many letters as it may
}

func newLetterWriter(path string, both bool) (*LetterWriter, error) {
	w := &LetterWriter{both: both, windows: make(map[profile.Window]*letterWindow), clock: math.MinInt64, next: math.MinInt64}
	w.max.tuples, w.max.symbols, w.max.bytes = maxTuples, maxSymbols, maxAllBytes
	if err := w.openRecords(path, lettersFile); err != nil {
		return nil, err
	}
	return w, nil
}

// Flow takes a record in stream order; win is the window it starts in. Only
// connections that have ended and whose two sides are known count. Nothing of
// f is kept.
func (w *LetterWriter) Flow(f *flow.Flow, win profile.Window) error {
	if f.Kind != flow.Conn || f.Open {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = max(w.clock, f.Own)
	if w.clock >= w.next {
		w.advance(win)
	}
	if !f.Src.IsValid() || !f.Dst.IsValid() {
		return w.out.err
	}
	if w.tuples >= w.max.tuples || w.bytes >= w.max.bytes {
		w.stats.ClosedEarly++
		w.finish(w.sorted()[0])
	}
	w.window(win).add(w, f)
	return w.out.err
}

// advance closes the windows that ended two widths before the one that the
// clock is in. Any window tells where all windows begin.
func (w *LetterWriter) advance(win profile.Window) {
	now := profile.WindowOf(w.clock, win.Start, win.End-win.Start)
	w.next = now.End
	for _, x := range w.sorted() {
		// Halved, because two of the widest window are more than an int64 holds.
		if (now.Start-x.Window.End)/2 >= x.Window.End-x.Window.Start {
			w.finish(x)
		}
	}
}

// sorted returns the open windows, the earliest first.
func (w *LetterWriter) sorted() []*letterWindow {
	list := make([]*letterWindow, 0, len(w.windows))
	for _, x := range w.windows {
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b *letterWindow) int {
		return cmp.Or(cmp.Compare(a.Window.Start, b.Window.Start), cmp.Compare(a.Window.End, b.Window.End), cmp.Compare(a.Window.N, b.Window.N))
	})
	return list
}

// window returns the open window win, which it opens when needed.
func (w *LetterWriter) window(win profile.Window) *letterWindow {
	if w.last != nil && w.last.Window == win {
		return w.last
	}
	x := w.windows[win]
	if x == nil {
		x = &letterWindow{Window: win, index: make(map[tupleKey]int)}
		w.windows[win] = x
	}
	w.last = x
	return x
}

// add appends the symbol of f.
func (x *letterWindow) add(w *LetterWriter, f *flow.Flow) {
	key := tupleKey{f.Src, f.Dst, f.DstPort, f.Proto}
	i, ok := x.index[key]
	if !ok {
		i = len(x.Tuples)
		x.index[key] = i
		x.Tuples = append(x.Tuples, letterTuple{Key: key})
		w.tuples++
		w.stats.Pending++
	}
	t := &x.Tuples[i]
	if t.Cut {
		w.stats.Dropped++
		return
	}
	before := len(t.Letters)
	t.Letters = t.State.Add(t.Letters, f.Time, f.Duration, bytesOf(f))
	if len(t.Letters) > w.max.symbols {
		t.Letters, t.Cut = t.Letters[:before], true
		w.stats.Dropped++
		return
	}
	w.bytes += len(t.Letters) - before
	w.stats.Flows++
}

// bytesOf returns what f carried in both directions. A sensor that missed packets
// may count more than an int64 holds.
func bytesOf(f *flow.Flow) int64 {
	if sum := f.OrigBytes + f.RespBytes; sum >= 0 {
		return sum
	}
	return math.MaxInt64
}

// finish writes the rows of a window and forgets it.
func (w *LetterWriter) finish(x *letterWindow) {
	delete(w.windows, x.Window)
	if w.last == x {
		w.last = nil
	}
	for i := range x.Tuples {
		t := &x.Tuples[i]
		w.tuples--
		w.bytes -= len(t.Letters)
		w.stats.Pending--
		if w.out.size == 0 && len(w.out.buf) == 0 {
			w.row(append(w.line[:0], lettersHeader...))
		}
		if w.row(appendTuple(w.line[:0], x.Window.N, t, false)) {
			w.stats.Tuples++
		}
		if w.both && t.Key.Src != t.Key.Dst {
			w.row(appendTuple(w.line[:0], x.Window.N, t, true))
		}
	}
}

// row writes a row and reports whether the file took it. The file remembers its
// error, and counts what it does not take.
func (w *LetterWriter) row(b []byte) bool {
	w.line = b
	return w.out.line(b) == nil
}

// appendTuple appends a row.
func appendTuple(b []byte, n int64, t *letterTuple, in bool) []byte {
	host, peer, proto := t.Key.Src, t.Key.Dst, t.Key.Proto.String()
	if in {
		host, peer = peer, host
	}
	if proto == "" {
		proto = "unknown"
	}
	if host.Zone() == "" && peer.Zone() == "" {
		b = append(host.AppendTo(b), '-')
		b = letters.AppendID(b, peer, t.Key.Port, proto)
	} else { // a zone may be any text
		b = appendField(b, host.String()+"-"+string(letters.AppendID(nil, peer, t.Key.Port, proto)))
	}
	b = strconv.AppendInt(append(b, "-timewindow"...), n, 10)
	if in {
		b = append(b, "-in"...)
	}
	b = append(b, '\t')
	return append(append(b, t.Letters...), '\n')
}

// Finish writes the rows of all open windows, when no more records come.
func (w *LetterWriter) Finish() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range w.sorted() {
		w.finish(x)
	}
	return w.out.err
}

// Stats returns the counts so far.
func (w *LetterWriter) Stats() LetterStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.Lost = w.out.lost
	return s
}

// savedLetters is the state of a LetterWriter in a checkpoint.
type savedLetters struct {
	Windows     []letterWindow
	Clock, Next int64
	Stats       LetterStats
}

// Save writes the state to a checkpoint, at the same point of the stream as
// Dir.Marks.
func (w *LetterWriter) Save(enc *gob.Encoder) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := savedLetters{Clock: w.clock, Next: w.next, Stats: w.stats}
	for _, x := range w.sorted() {
		s.Windows = append(s.Windows, *x)
	}
	if err := enc.Encode(s); err != nil {
		return fmt.Errorf("save letters: %w", err)
	}
	return nil
}

// Load replaces the state by what Save wrote, before the first record.
func (w *LetterWriter) Load(dec *gob.Decoder) error {
	var s savedLetters
	if err := dec.Decode(&s); err != nil {
		return fmt.Errorf("load letters: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.windows, w.last, w.tuples, w.bytes = make(map[profile.Window]*letterWindow), nil, 0, 0
	for i := range s.Windows {
		x := &s.Windows[i]
		x.index = make(map[tupleKey]int, len(x.Tuples))
		for j := range x.Tuples {
			x.index[x.Tuples[j].Key] = j
			w.bytes += len(x.Tuples[j].Letters)
		}
		w.tuples += len(x.Tuples)
		w.windows[x.Window] = x
	}
	w.clock, w.next, w.stats = s.Clock, s.Next, s.Stats
	return nil
}

// close writes the rows of all open windows and closes the file. What a
// checkpoint has of them is written again after a restart.
func (w *LetterWriter) close() error {
	return errors.Join(w.Finish(), w.recordFile.close())
}
