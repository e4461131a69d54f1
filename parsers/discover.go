package parsers

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/tail"
)

const (
	// Directories are not listed more often than this, however many names
	// come and go, and take no more than a tenth of the time when listing
	// them is slow.
	lookGap   = 10 * time.Millisecond
	lookShare = 10
	// The time of a directory's last change is coarse: one that changed this
	// shortly before it was listed may have changed since.
	coarse = 2 * time.Second
	// Files that may become logs are looked at again, so many in each poll.
	pendingPerPoll = 256
)

// discover watches the roots for new files until it is told to stop, starts a
// reader for each new source and announces it. It wakes the readers whose
// files grow.
func (s *Set) discover(ctx context.Context, start func(*source)) {
	defer close(s.more)
	w := new(tail.Watcher) // of nothing
	if !s.pollOnly {
		w = tail.NewWatcher(s.log)
	}
	defer w.Close()
	poll := time.NewTicker(s.opts.Poll)
	defer poll.Stop()
	later := time.NewTimer(0)
	defer later.Stop()
	s.sync(w)
	s.touch() // what came before the watches were in place
	s.wakeAll()
	var looked time.Time
	gap := lookGap
	var fresh []*source
	var stop <-chan struct{} = s.stop
	look := func() {
		begun := time.Now()
		defer func() {
			looked = time.Now()
			gap = max(lookGap, lookShare*looked.Sub(begun))
		}()
		fresh = append(fresh, s.lookAgain()...)
		for _, src := range fresh {
			if !src.announced {
				src.announced = true
				start(src)
			}
		}
		s.sync(w)
	}
	for stop != nil || len(fresh) > 0 {
		var out chan<- flow.Input
		var in flow.Input
		if len(fresh) > 0 {
			out, in = s.more, flow.Input{Name: fresh[0].name, C: fresh[0].c}
		}
		news := false
		select {
		case <-ctx.Done():
			return
		case out <- in:
			fresh = fresh[1:]
		case <-stop:
			stop = nil
			s.touch()
			look()
			s.finish()
		case <-later.C:
			if stop != nil {
				look()
			}
		case <-poll.C:
			news = s.poll()
		case <-s.poke:
			s.touch()
			news = true
		case e := <-w.Events():
			news = s.event(tail.Translate(e))
		case err := <-w.Errors():
			s.log.Debug("file events lost", "err", err)
			s.touch()
			s.wakeAll()
			news = true
		}
		if news && stop != nil {
			if wait := gap - time.Since(looked); wait > 0 {
				later.Reset(wait)
			} else {
				look()
			}
		}
	}
}

// touch marks all roots as to be looked at again.
func (s *Set) touch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.roots {
		r.dirty = !r.stream
	}
}

// lookAgain looks at the roots where something changed and returns the
// sources that are new.
func (s *Set) lookAgain() []*source {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.roots {
		if r.dirty {
			s.look(r)
		}
	}
	var fresh []*source // a reader that looked by itself may have found some too
	for _, src := range s.sources {
		if !src.announced {
			fresh = append(fresh, src)
		}
	}
	slices.SortFunc(fresh, func(a, b *source) int { return strings.Compare(a.name, b.name) })
	return fresh
}

// finish tells the readers that no more files will come.
func (s *Set) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range s.sources {
		src.final = true
		src.poke()
	}
}

func (s *Set) wakeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range s.sources {
		src.poke()
	}
}

// poll looks for changes that were not told of and reports whether there are
// any. The readers poll their own files.
func (s *Set) poll() (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.roots {
		if !r.stream && (r.dirty || s.stale(r)) {
			r.dirty, news = true, true
		}
	}
	for _, src := range s.sources { // a reader that looked may have found it
		news = news || !src.announced
	}
	return news
}

// stale reports whether a directory of the root changed since it was listed,
// or a file that was no log yet.
func (s *Set) stale(r *root) bool {
	for dir, was := range r.dirs {
		now, err := os.Stat(dir)
		if err != nil || !os.SameFile(now, was.info) || !now.ModTime().Equal(was.info.ModTime()) ||
			was.looked.Sub(was.info.ModTime()) < coarse {
			return true
		}
	}
	if len(r.dirs) == 0 || !r.dir && s.replaced(r) {
		return true
	}
	n := 0
	for _, e := range r.pending { // in Go's random order, so that each has its turn
		if n++; n > pendingPerPoll {
			break
		}
		if st, err := os.Stat(e.path); err != nil || s.changed(r, e, st) {
			return true
		}
	}
	return false
}

// replaced reports whether a single followed file is another one now, as when
// a symbolic link of its path leads elsewhere.
func (s *Set) replaced(r *root) bool {
	st, err := os.Stat(r.path)
	e := r.entries[r.path]
	if err != nil || e == nil {
		return (err == nil) != (e != nil)
	}
	return !os.SameFile(st, e.info)
}

// event wakes the reader of a file that grew, and reports whether names
// changed or a file that was no log yet.
func (s *Set) event(ev tail.Event) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.roots {
		if r.stream {
			continue
		}
		e := r.entries[ev.Path]
		if e == nil {
			e = r.aliases[ev.Path]
		}
		if e != nil && e.src != nil {
			e.src.poke()
		}
		if ev.Grown && e != nil && !e.urgent(r) {
			continue
		}
		if s.concerns(r, ev.Path) {
			r.dirty, news = true, true
		}
	}
	return news
}

// urgent reports whether a file that grew has to be looked at before the next
// poll: one that was empty, or one that was thought to be finished.
func (e *entry) urgent(r *root) bool {
	if e.seg != nil {
		return e.seg.done
	}
	return r.pending[e.path] != nil && e.info.Size() == 0
}

// concerns reports whether a path is one that the root lists.
func (s *Set) concerns(r *root, path string) bool {
	dir, name := filepath.Split(path)
	if strings.HasPrefix(name, ".") {
		return false
	}
	if !r.dir {
		base := filepath.Base(r.path)
		return r.aliases[path] != nil || filepath.Clean(dir) == filepath.Dir(r.path) && (name == base || isRotation(base, name))
	}
	dir = filepath.Clean(dir)
	if filepath.Base(dir) == logQueue && dir != r.path {
		dir = filepath.Dir(dir)
	}
	return dir == r.path || filepath.Dir(dir) == r.path
}

// sync has the watcher watch the directories of all roots, and those that
// symbolic links in them lead to.
func (s *Set) sync(w *tail.Watcher) {
	s.mu.Lock()
	dirs := make(map[string]bool)
	for _, r := range s.roots {
		for dir := range r.dirs {
			dirs[dir] = true
		}
		for real := range r.aliases {
			dirs[filepath.Dir(real)] = true
		}
	}
	s.mu.Unlock()
	w.Sync(dirs)
}
