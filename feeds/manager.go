package feeds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/slips-go/slips/feeds/intel"
)

const (
	parallel  = 4                // feeds fetched at a time
	pollLocal = 5 * time.Second  // between two looks at the local lists
	pollIndex = time.Minute      // between two looks at what another process did
	gather    = time.Minute      // feeds that are due within this are fetched in one round, so that there is one index for them
	retryLock = 30 * time.Second // until the directory is tried again
)

// Options say what a Manager works on.
type Options struct {
	// Dir is the directory of the store, its own and nobody else's. It is made
	// when something is to be kept. Empty: nothing is kept, so there are local
	// lists only.
	Dir     string
	Sources []Source // from Sources
	Local   string   // directory of local lists; empty: none
	Version string   // of the program: part of the User-Agent and of the key of the index
	Offline bool     // nothing is fetched from servers by Run; files still are

	Transport http.RoundTripper // nil: straight or through the proxies of the environment
	Now       func() time.Time  // nil: the clock
	Jitter    func() float64    // in [0, 1), spreads checks and tries over time; nil: chance
	Log       *slog.Logger      // nil: silent
}

// Manager keeps feeds fresh. Its methods may be called from any goroutine;
// those that change something take turns.
type Manager struct {
	o       Options
	sources []Source
	store   store
	client  *client
	log     *slog.Logger
	view    atomic.Pointer[intel.View]

	turn chan struct{} // holds one token while somebody works

	// Touched by who has the turn.
	opened indexInfo // of the view; its Key is empty when there is none
	maps   int       // indexes mapped so far
	locals map[string]*localFile
	said   map[string]string // last complaint by subject
	broken map[string]bool   // names in the store whose content cannot be read, and is fetched anew
	tried  map[string]int64  // unix s before which a feed is not tried again, should its meta file not say

	mu      sync.Mutex
	counts  Counts
	shown   []entry           // local lists, for Status
	missing map[string]string // feeds that the view was made without, and why; replaced, never changed
}

// Counts are what a Manager has done since it was made.
type Counts struct {
	Checks, Added, Changed, Unchanged, Refused, Failed int64 // of feeds; Refused also of local lists
	Bytes                                              int64 // fetched, uncompressed
	Compiled, Opened                                   int64 // indexes made, and taken as they were
	Damaged                                            int64 // feeds left out of an index as their stored content could not be read
	Busy                                               int64 // rounds left to another process
}

// New returns a Manager. It starts nothing and touches no file.
func New(o Options) (*Manager, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	sources := slices.Clone(o.Sources)
	slices.SortFunc(sources, func(a, b Source) int { return cmp.Compare(a.Name, b.Name) })
	for i := range sources {
		if s := &sources[i]; !isName(s.Name) || i > 0 && s.Name == sources[i-1].Name {
			return nil, fmt.Errorf("feeds: %q is no name of a feed or there twice", s.Name)
		} else if err := s.check(); err != nil {
			return nil, fmt.Errorf("feeds: feed %s: %w", s.Name, err)
		}
	}
	m := &Manager{
		o: o, sources: sources, store: store{o.Dir}, log: o.Log, turn: make(chan struct{}, 1), said: make(map[string]string),
		tried: make(map[string]int64), broken: make(map[string]bool),
		client: newClient(o.Transport, o.Version, o.Now, o.Jitter),
	}
	m.view.Store(intel.Empty())
	return m, nil
}

// View returns the newest snapshot: what Load, Run or Update made last. It is
// never nil.
func (m *Manager) View() *intel.View { return m.view.Load() }

// Counts returns what was done so far.
func (m *Manager) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counts
}

func (m *Manager) count(fn func(*Counts)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn(&m.counts)
}

func (m *Manager) now() time.Time { return m.o.Now() }

// complain logs an error of a subject once, and again when it changes.
func (m *Manager) complain(subject string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && m.said[subject] != text {
		m.log.Warn("feeds: "+subject, "err", err)
	}
	m.said[subject] = text
}

// begin waits for the turn.
func (m *Manager) begin(ctx context.Context) (end func(), err error) {
	select {
	case m.turn <- struct{}{}:
		return func() { <-m.turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Load returns the view of what is on this machine, without asking anybody. It
// opens the index if that is current, which takes no parsing, and otherwise
// compiles it anew; where the directory cannot be written to, or another
// process works on it, the new one is in memory only. A machine without any
// feeds and lists has an empty view.
func (m *Manager) Load(ctx context.Context) (*intel.View, error) {
	end, err := m.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	keep := false
	if m.o.Dir != "" && (exists(m.o.Dir) || m.o.Local != "" && exists(m.o.Local)) {
		unlock, err := m.store.lock(ctx)
		switch {
		case err == nil:
			keep = true
			defer unlock()
		case errors.Is(err, ErrBusy), errors.Is(err, fs.ErrPermission):
			m.log.Debug("the feeds are only read", "err", err)
		default:
			m.complain("the feeds are only read", err)
		}
	}
	m.readLocals(keep)
	if _, err := m.settle(ctx, keep); err != nil {
		return nil, err
	}
	return m.View(), nil
}

// entries returns the content of all sources in use.
func (m *Manager) entries() []entry {
	var out []entry
	for i := range m.sources {
		s := &m.sources[i]
		if !s.Enabled {
			continue
		}
		meta, err := m.store.meta(s.Name)
		m.complain("meta file of "+s.Name, err)
		if meta.Content != "" {
			out = append(out, entry{src: s, meta: meta})
		}
	}
	local := m.localEntries()
	m.mu.Lock()
	m.shown = local
	m.mu.Unlock()
	for _, e := range local {
		if e.text != nil || e.meta.Content != "" {
			out = append(out, e)
		}
	}
	sortEntries(out)
	return out
}

// settle makes the view that of what is stored now, and reports whether it is
// another one. With keep, which is for who has the lock, a new index goes into
// the store. Without it another process may replace files between two looks;
// then it looks again.
func (m *Manager) settle(ctx context.Context, keep bool) (changed bool, err error) {
	for try := 1; ; try++ {
		changed, err = m.settleOnce(ctx, keep, try == settleTries)
		if !errors.Is(err, errMoved) {
			return changed, err
		}
	}
}

const settleTries = 3

// errMoved says that a file was there a moment ago.
var errMoved = errors.New("stored content has moved")

func (m *Manager) settleOnce(ctx context.Context, keep, last bool) (changed bool, err error) {
	entries := m.entries()
	key, err := indexKey(m.o.Version, entries)
	if err != nil {
		return false, fmt.Errorf("feeds: %w", err)
	}
	now := m.now()
	if m.opened.Key == key && !m.opened.stale(now) {
		return false, nil
	}
	if len(entries) == 0 {
		m.opened = indexInfo{Key: key}
		m.view.Store(intel.Empty())
		m.leftOut(nil)
		return true, nil
	}
	saved, err := m.store.index()
	m.complain("index", err)
	if saved.Key == key && !saved.stale(now) {
		err := m.publish(saved)
		switch {
		case err == nil:
			m.count(func(c *Counts) { c.Opened++ })
			m.leftOut(nil)
			return true, nil
		case !errors.Is(err, fs.ErrNotExist):
			m.log.Warn("the index is made anew", "err", err)
		case !keep && !last:
			return false, errMoved
		}
	}
	return true, m.recompile(ctx, entries, key, keep, keep || last)
}

// recompile makes the index anew. Feeds whose content is damaged are left out;
// content that is not there is an error unless it is sure to be gone.
func (m *Manager) recompile(ctx context.Context, entries []entry, key string, keep, sure bool) error {
	begin := m.now()
	skip := make(map[string]error)
	var compiled []byte
	var info indexInfo
	for compiled == nil {
		var err error
		compiled, info, err = compile(ctx, m.store, entries, skip, begin)
		var damaged *damagedError
		if errors.As(err, &damaged) && errors.Is(err, fs.ErrNotExist) && !sure {
			return errMoved
		}
		if errors.As(err, &damaged) && skip[damaged.name] == nil {
			skip[damaged.name] = damaged
			m.broken[damaged.stored] = true
			delete(m.locals, damaged.name) // read again in the next round
			m.count(func(c *Counts) { c.Damaged++ })
			m.log.Error("a feed is left out", "err", damaged)
			continue
		}
		if err != nil {
			return fmt.Errorf("feeds: compiling the index: %w", err)
		}
	}
	m.count(func(c *Counts) { c.Compiled++ })
	info.Key = key
	if info.Unfit > 0 {
		m.log.Warn("entries that the index has no place for", "entries", info.Unfit, "first", info.unfit)
	}
	m.leftOut(skip)
	if keep && len(skip) == 0 && m.store.dir != "" {
		saved, err := m.store.saveIndex(info, compiled)
		if err == nil {
			err = m.publish(saved)
		}
		if err == nil {
			return nil
		}
		m.log.Warn("the index is kept in memory only", "err", err)
	}
	v, err := intel.Open(compiled)
	if err != nil {
		return fmt.Errorf("feeds: %w", err)
	}
	m.opened = info
	m.view.Store(v)
	return nil
}

// leftOut notes which feeds the view was made without.
func (m *Manager) leftOut(skip map[string]error) {
	missing := make(map[string]string, len(skip))
	for name, err := range skip {
		missing[name] = err.Error()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.missing = missing
}

// publish makes the saved index, which no feed is left out of, the view.
func (m *Manager) publish(saved indexInfo) error {
	v, mapped, err := m.store.openIndex(saved, m.maps < maxMaps)
	if mapped {
		m.maps++
	}
	if err != nil {
		return err
	}
	m.opened = saved
	m.view.Store(v)
	return nil
}

// UpdateOptions say what Update does.
type UpdateOptions struct {
	Names []string // of feeds; none: all that are enabled
	// Force takes a version that looks wrong, as long as it can be read: for a
	// feed that really shrank.
	Force bool
}

// Update checks feeds now, whether they are due or not, makes the index of
// what came, and reports feed by feed, in the order of their names. The error
// is about the whole; ErrBusy when another process is at it.
func (m *Manager) Update(ctx context.Context, o UpdateOptions) ([]Result, error) {
	end, err := m.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	var which []*Source
	for _, name := range o.Names {
		i, ok := slices.BinarySearchFunc(m.sources, name, func(s Source, n string) int { return cmp.Compare(s.Name, n) })
		if !ok {
			return nil, fmt.Errorf("feeds: there is no feed %q", name)
		}
		which = append(which, &m.sources[i])
	}
	if len(o.Names) == 0 {
		for i := range m.sources {
			if m.sources[i].Enabled {
				which = append(which, &m.sources[i])
			}
		}
	}
	return m.refresh(ctx, which, o.Force)
}

// refresh checks the given feeds and brings the view up to date. The caller
// has the turn.
func (m *Manager) refresh(ctx context.Context, which []*Source, force bool) ([]Result, error) {
	if m.o.Dir == "" {
		return nil, errors.New("feeds: no directory to keep feeds in")
	}
	unlock, err := m.store.lock(ctx)
	if err != nil {
		return nil, fmt.Errorf("feeds: %w", err)
	}
	defer unlock()
	defer m.client.close()
	results := make([]Result, len(which))
	var g errgroup.Group
	g.SetLimit(parallel)
	for i, s := range which {
		g.Go(func() error {
			results[i] = m.check(ctx, s, force)
			return nil
		})
	}
	_ = g.Wait() // results hold the errors
	for i, r := range results {
		m.record(r)
		m.tried[r.Name] = m.now().Add(min(firstRetry, which[i].Period)).Unix()
		if r.Outcome == Added {
			m.mended(r.Name)
		}
	}
	slices.SortFunc(results, func(a, b Result) int { return cmp.Compare(a.Name, b.Name) })
	if ctx.Err() != nil {
		return results, context.Cause(ctx)
	}
	m.readLocals(true)
	if _, err := m.settle(ctx, true); err != nil {
		return results, err
	}
	known := make(map[string]bool)
	for i := range m.sources {
		known[m.sources[i].Name] = true
	}
	for _, f := range m.locals {
		known[f.entry.src.stored()] = true
	}
	gone, err := m.store.sweep(known, m.now())
	m.complain("clearing up", err)
	for _, name := range gone {
		m.log.Info("stored content is removed: nobody has configured or checked the feed for long", "feed", name, "days", int(keepUnknown/(24*time.Hour)))
	}
	return results, nil
}

// mended notes that the store has good content of that name, so that the
// index is made anew if the content was damaged.
func (m *Manager) mended(stored string) {
	if m.broken[stored] {
		delete(m.broken, stored)
		m.opened.Key = ""
	}
}

// record counts and logs what came of a check.
func (m *Manager) record(r Result) {
	log := m.log.With("feed", r.Name, "entries", r.Count, "before", r.Was)
	m.count(func(c *Counts) {
		c.Checks++
		switch r.Outcome {
		case Added:
			c.Added++
		case Changed:
			c.Changed++
		case Unchanged:
			c.Unchanged++
		case Refused:
			c.Refused++
		case Failed:
			c.Failed++
		}
	})
	switch r.Outcome {
	case Refused:
		log.Warn("the new version of a feed is refused, the old one stays", "reason", r.Reason)
	case Failed:
		log.Warn("a feed cannot be fetched", "reason", r.Reason)
	default:
		log.Debug("feed checked", "outcome", r.Outcome)
	}
}

// Run keeps the view fresh until ctx is done: feeds by their periods, local
// lists and what other processes do to the directory every few seconds. It
// returns nil then.
func (m *Manager) Run(ctx context.Context) error {
	for {
		wait := m.round(ctx)
		if sleep(ctx, wait) != nil {
			return nil
		}
	}
}

// round does what is due and returns how long nothing will be.
func (m *Manager) round(ctx context.Context) time.Duration {
	end, err := m.begin(ctx)
	if err != nil {
		return 0
	}
	defer end()
	which, next := m.pending()
	if len(which) > 0 {
		_, err := m.refresh(ctx, which, false)
		if errors.Is(err, ErrBusy) {
			m.count(func(c *Counts) { c.Busy++ })
		}
		if ctx.Err() != nil {
			return 0
		}
		if err == nil {
			_, next = m.pending()
			m.complain("refresh", nil)
			return m.pause(next)
		}
		m.complain("refresh", err)
		next = retryLock
	}
	keep := false
	if m.o.Dir != "" && m.o.Local != "" && exists(m.o.Local) {
		if unlock, err := m.store.lock(ctx); err == nil {
			keep = true
			defer unlock()
		}
	}
	m.readLocals(keep)
	if _, err := m.settle(ctx, keep); err != nil && ctx.Err() == nil {
		m.complain("index", err)
	}
	return m.pause(next)
}

// pause shortens a wait to the next look at the directories.
func (m *Manager) pause(next time.Duration) time.Duration {
	if m.o.Local != "" {
		next = min(next, pollLocal)
	}
	return max(min(next, pollIndex), time.Second)
}

// pending returns the feeds that are due, and how long until the next one is.
func (m *Manager) pending() (which []*Source, next time.Duration) {
	next = maxPeriod
	if m.o.Dir == "" {
		return nil, next
	}
	now, soon := m.now(), false
	for i := range m.sources {
		s := &m.sources[i]
		if !s.Enabled || m.o.Offline && s.URL != "" {
			continue
		}
		meta, err := m.store.meta(s.Name)
		if err != nil || m.broken[s.Name] {
			meta.Next = 0 // damaged: fetched anew
		}
		wait := time.Unix(meta.Next, 0).Sub(now)
		if meta.Next-meta.Checked > int64(2*maxPeriod/time.Second) || meta.Checked > now.Unix() {
			wait = 0 // the clock was wrong when that was written
		}
		wait = max(wait, time.Unix(m.tried[s.Name], 0).Sub(now))
		if next = min(next, max(wait, 0)); wait <= 0 {
			soon = true
		}
		if wait <= gather {
			which = append(which, s)
		}
	}
	if !soon {
		which = nil
	}
	return which, next
}
