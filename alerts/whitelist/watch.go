package whitelist

import (
	"bytes"
	"fmt"
	"os"
	"time"
)

// Watcher tells when the file of a list has changed. One goroutine uses it, at
// whatever pace suits it.
type Watcher struct {
	path   string
	mtime  time.Time
	size   int64
	digest string // of the content last looked at
	sure   bool   // it was the same twice under one mtime, so the mtime can be trusted
	gone   bool   // that it cannot be read has been said
}

// NewWatcher returns what watches the file of path. l is the list in use, which
// the first look is compared with; nil if there is none.
func NewWatcher(path string, l *List) *Watcher {
	return &Watcher{path: path, digest: l.Digest()}
}

// Changed returns the list when the file is another than at the last call, and
// nil when it is not. An error says why a changed file cannot be used, once: the
// caller goes on with the list that it has.
func (w *Watcher) Changed() (*List, error) {
	st, err := os.Stat(w.path)
	if err != nil {
		return nil, w.lost(err)
	}
	same := st.ModTime().Equal(w.mtime) && st.Size() == w.size
	if same && w.sure {
		return nil, nil
	}
	f, err := os.Open(w.path)
	if err != nil {
		return nil, w.lost(err)
	}
	text, digest, err := readAll(w.path, f)
	if e := f.Close(); err == nil && e != nil {
		err = e
	}
	if err != nil {
		return nil, w.lost(err)
	}
	// A file may change twice within the resolution of its time, so a new time
	// is believed only when a second look finds the same content.
	w.sure, w.gone = same && digest == w.digest, false
	w.mtime, w.size = st.ModTime(), st.Size()
	if digest == w.digest {
		return nil, nil
	}
	w.digest = digest
	return Parse(w.path, bytes.NewReader(text))
}

// lost returns the error the first time only.
func (w *Watcher) lost(err error) error {
	w.mtime, w.sure = time.Time{}, false
	if w.gone {
		return nil
	}
	w.gone = true
	return fmt.Errorf("look at whitelist: %w", err)
}
