package tail

import (
	"errors"
	"log/slog"
	"os"

	"github.com/fsnotify/fsnotify"
)

// Watcher tells at once when something happens in a set of directories. It is
// a help, not a promise: where the system gives no notice, as on network file
// systems or when its limits are reached, polling has to do. It serves one
// goroutine. The zero Watcher tells nothing.
type Watcher struct {
	log    *slog.Logger
	fs     *fsnotify.Watcher // nil when the system has none to give
	dirs   map[string]os.FileInfo
	warned bool
}

// Event is a change of a file.
type Event struct {
	Path string // within the directory as it was given to Sync; empty: events were lost, look at everything
	// Grown means that only the content changed; else names may have come or gone.
	Grown bool
}

// NewWatcher returns a watcher of nothing yet. The caller closes it.
func NewWatcher(log *slog.Logger) *Watcher {
	w := &Watcher{log: log, dirs: make(map[string]os.FileInfo)}
	fs, err := fsnotify.NewBufferedWatcher(256)
	if err != nil {
		w.failed(err)
		return w
	}
	w.fs = fs
	return w
}

func (w *Watcher) failed(err error) {
	if !w.warned {
		w.warned = true
		w.log.Warn("the system does not tell of file changes; polling only", "err", err)
	}
}

// Sync makes the watched directories those of dirs. One that was replaced
// under its name is watched anew; one that is not there is tried again at the
// next call.
func (w *Watcher) Sync(dirs map[string]bool) {
	if w.fs == nil {
		return
	}
	for dir, was := range w.dirs {
		now, err := os.Stat(dir)
		if dirs[dir] && err == nil && os.SameFile(was, now) {
			continue
		}
		// It fails when the directory is gone, and the watch with it.
		_ = w.fs.Remove(dir)
		delete(w.dirs, dir)
	}
	for dir := range dirs {
		if _, ok := w.dirs[dir]; ok {
			continue
		}
		st, err := os.Stat(dir)
		if err != nil || !st.IsDir() {
			continue
		}
		if err := w.fs.Add(dir); err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				w.failed(err)
			}
			continue
		}
		w.dirs[dir] = st
	}
}

// Events returns the channel of the raw events, for a select; Translate makes
// sense of them. It is nil, and so never ready, without notification.
func (w *Watcher) Events() <-chan fsnotify.Event {
	if w.fs == nil {
		return nil
	}
	return w.fs.Events
}

// Errors returns the channel of the watcher's errors, most often that events
// were lost: look at everything then. It may be nil.
func (w *Watcher) Errors() <-chan error {
	if w.fs == nil {
		return nil
	}
	return w.fs.Errors
}

// Translate makes an Event of what came from Events.
func Translate(e fsnotify.Event) Event {
	return Event{Path: e.Name, Grown: !e.Has(fsnotify.Create) && !e.Has(fsnotify.Remove) && !e.Has(fsnotify.Rename)}
}

// Close ends the watching.
func (w *Watcher) Close() {
	if w.fs != nil {
		_ = w.fs.Close()
	}
}
