// Package parsers turns paths into streams of records: it finds the logs
// behind them, recognises their formats, sorts rotated files into sources,
// and reads each source in its own goroutine, following it where asked to.
package parsers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/tail"
)

// What may be wrong with a path. Problem wraps one of them, or an error of
// the operating system.
var (
	ErrUnrecognised = errors.New("neither a log of a known format (Zeek, Suricata, Argus, nfdump; --format overrides) nor a packet capture (pcap, pcapng)")
	ErrNoLogs       = errors.New("no logs in this directory")
	ErrPackets      = errors.New("a packet capture: those are read with -f, which names them, their directory or standard input (-), and are not followed")
	ErrBinaryNfdump = errors.New(`a binary nfdump file: run "nfdump -r FILE -o csv" and give what it prints`)
	ErrSpecial      = errors.New("neither a file nor a directory")
	ErrTooMany      = errors.New("too many sources")
	ErrLost         = errors.New("gone before all of it was read: records may be lost")
)

// Problem says what is wrong with a path. The rest of the input is analysed
// all the same; a caller may turn it into an exit code.
type Problem struct { //nolint:errname // Set.Problems holds them, and that is how users call them
	Path string // as given, or the file found behind it
	Err  error
}

// Error implements error.
func (p *Problem) Error() string {
	var corrupt *tail.CorruptError
	if errors.As(p.Err, &corrupt) && corrupt.Path == p.Path {
		return fmt.Sprintf("%s: cannot read on from offset %d: %v", p.Path, corrupt.Offset, corrupt.Err)
	}
	var pathErr *os.PathError
	if errors.As(p.Err, &pathErr) {
		return fmt.Sprintf("%s: %v", p.Path, pathErr.Err)
	}
	return fmt.Sprintf("%s: %v", p.Path, p.Err)
}

// Unwrap gives the reason.
func (p *Problem) Unwrap() error { return p.Err }

const (
	maxSources  = 4096    // each has a goroutine, an open file and buffers
	maxProblems = 100     // kept for the report; more are only logged
	maxPrints   = 1 << 16 // fingerprints remembered, so that no copy is read again
	defaultPoll = 250 * time.Millisecond
	maxPatience = 2 * time.Second // for files that are being compressed when Open finds them
	inFlight    = 4               // batches of a source between its reader and those who use them
)

// Options says what to read and how.
type Options struct {
	Paths  []string  // files, directories, "-" for standard input
	Format string    // "auto" or "" to recognise it, else "zeek", "suricata", "argus" or "nfdump"
	Follow bool      // go on as the logs grow, rotate and appear, until Drain
	Stdin  io.Reader // what "-" reads

	// Resume holds how far each source was read, by Input.Name.
	Resume map[string]flow.Position

	Poll time.Duration // how often to look at followed files without notice of the system; 0: 250 ms

	// Batches is how many batches of a source may be held by its users at
	// once; 0: 4. The reader waits for one to be released when all are out,
	// so who collects records before he releases them needs more.
	Batches int

	// Wake is sent to, without waiting, after every batch that was queued.
	Wake chan<- struct{}

	// Others says that records come from elsewhere too, so that no paths at all
	// are fine.
	Others bool
	// Own are those of Paths, absolute, that a program of the caller's writes. Who
	// started it tells what is wrong with it: that there are no logs yet, and lines
	// that are no records, are not warned of.
	Own []string

	Log *slog.Logger     // nil: no log
	Now func() time.Time // wall clock for throttling the log; nil: time.Now
}

// Set is what Open found to read.
type Set struct {
	// Inputs are the sources known from the start, sorted by name. They are
	// read once Run runs.
	Inputs []flow.Input
	// More gives the sources that are found while following, and is closed
	// when no more can come: at once when not following, else in Run. Who
	// calls Run with Follow must receive from it until then.
	More <-chan flow.Input
	// Problems says what could not be read, each a *Problem.
	Problems []error

	opts    Options
	log     *slog.Logger
	formats []format
	forced  *format
	more    chan flow.Input
	roots   []*root
	stop    chan struct{} // closed by Drain
	drain   sync.Once
	poke    chan struct{} // tells the discovery to look again
	places  map[string]place

	patience time.Time         // until when Open waits for files that are being compressed
	owners   map[string]*entry // logs by the path that links lead to, when there are several roots

	pollOnly bool // as where the system does not tell of changes; for tests

	mu      sync.Mutex // guards all below, the roots, and the queues of the sources
	sources map[string]*source
	failed  []error
	skipped int

	read, total atomic.Int64
}

// Open looks at the paths, recognises what is there and sorts it into
// sources. It starts nothing and keeps no file open. The error is about the
// options; what is wrong with a path is in Problems.
func Open(o Options) (*Set, error) { return open(o, formats()) }

func open(o Options, known []format) (*Set, error) {
	if len(o.Paths) == 0 && !o.Others {
		return nil, errors.New("no input given")
	}
	if o.Poll <= 0 {
		o.Poll = defaultPoll
	}
	if o.Batches <= 0 {
		o.Batches = inFlight
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Set{
		opts: o, log: o.Log, formats: known, more: make(chan flow.Input), stop: make(chan struct{}),
		poke: make(chan struct{}, 1), sources: make(map[string]*source),
		places: places(o.Resume), owners: make(map[string]*entry),
		patience: time.Now().Add(min(5*o.Poll/2, maxPatience)),
	}
	s.More = s.more
	if o.Format != "" && o.Format != "auto" {
		i := slices.IndexFunc(known, func(f format) bool { return f.name == o.Format })
		if i < 0 {
			return nil, fmt.Errorf("unknown format %q: want auto, zeek, suricata, argus or nfdump", o.Format)
		}
		s.forced = &known[i]
	}
	if err := s.addRoots(); err != nil {
		return nil, err
	}
	for _, r := range s.roots {
		s.first(r)
	}
	s.roots = slices.DeleteFunc(s.roots, func(r *root) bool { return r.twice })
	for _, r := range s.roots {
		s.catchUp(r)
	}
	s.resume()
	s.Problems, s.failed = s.failed, nil
	for _, name := range sortedKeys(s.sources) {
		src := s.sources[name]
		src.announced = true
		s.Inputs = append(s.Inputs, flow.Input{Name: name, Kinds: src.kinds(), C: src.c})
	}
	if !o.Follow {
		close(s.more)
		for _, src := range s.sources {
			src.final = true
		}
	}
	return s, nil
}

// addRoots makes a root of each path and gives it a label that does not
// depend on how the path was spelled.
func (s *Set) addRoots() error {
	bases := make(map[string]int)
	seen := make(map[string]bool)
	for _, path := range s.opts.Paths {
		r := newRoot(path)
		if path == "-" {
			if s.opts.Stdin == nil {
				return errors.New(`"-" given, but there is no standard input`)
			}
			r.stream, r.label = true, "-"
		} else {
			abs, err := filepath.Abs(path)
			if err != nil {
				return fmt.Errorf("%q: %w", path, err)
			}
			r.path, r.label = abs, filepath.Base(abs)
		}
		if seen[r.path] {
			s.log.Warn("path given twice; read once", "path", path)
			continue
		}
		seen[r.path] = true
		bases[r.label]++
		s.roots = append(s.roots, r)
	}
	for _, r := range s.roots {
		if bases[r.label] > 1 {
			r.label = r.path
		}
	}
	return nil
}

// Run reads all sources, each in a goroutine of its own, and returns when
// they have ended or ctx is done, nil in both cases. It closes the channel of
// every source, and More. Call it once.
//
// A source whose reader waits for bytes of a pipe leaves a goroutine behind
// when ctx ends, until that read returns.
func (s *Set) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	start := func(src *source) {
		r := s.newReader(src)
		wg.Go(func() { r.run(ctx) })
	}
	var known []*source
	s.mu.Lock()
	for _, name := range sortedKeys(s.sources) {
		known = append(known, s.sources[name])
	}
	s.mu.Unlock()
	for _, src := range known {
		start(src)
	}
	if s.opts.Follow {
		s.discover(ctx, start)
	}
	wg.Wait()
	return nil
}

// Drain makes followed sources end where their files end now, and streams
// with what has come; all that is there is still read and delivered, but for
// a last line without newline. Any goroutine may call it, also before Run and
// more than once. It does not wait.
func (s *Set) Drain() { s.drain.Do(func() { close(s.stop) }) }

// Progress returns how many bytes on disk were read, and how many there are
// to read as far as known. Any goroutine may call it.
func (s *Set) Progress() (read, total int64) { return s.read.Load(), s.total.Load() }

// Failed returns what went wrong since Open, each a *Problem: corrupt files,
// files that vanished. Any goroutine may call it; all is there once Run has
// returned.
func (s *Set) Failed() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.failed)
}

// Finished reports whether a file need not be read any more: all that is in it
// was read, or it is no log. Any goroutine may call it.
func (s *Set) Finished(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.roots {
		switch e := r.entries[path]; {
		case e == nil:
		case e.seg != nil:
			return e.seg.done
		default:
			return (e.src != nil || e.err != nil || e.copied) && r.pending[path] == nil
		}
	}
	return false
}

// Skipped returns how many files of directories were passed over because
// they are no logs, or copies of others. Any goroutine may call it.
func (s *Set) Skipped() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.skipped
}

// problem notes what went wrong with a path. The caller holds s.mu or is Open.
func (s *Set) problem(path string, err error) {
	if len(s.failed) < maxProblems {
		s.failed = append(s.failed, &Problem{Path: path, Err: err})
		return
	}
	s.log.Error("input problem", "path", path, "err", err)
}

// wake tells the consumer that a batch was queued.
func (s *Set) wake() {
	select {
	case s.opts.Wake <- struct{}{}:
	default:
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
