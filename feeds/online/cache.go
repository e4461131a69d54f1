package online

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/slips-go/slips/feeds/intel"
)

// cached is a line of the cache on disk. Subject is what was sent.
type cached struct {
	Until int64  `json:"until"` // unix s
	Port  uint16 `json:"port,omitempty"`
	said
}

// The bounds of the cache on disk, in bytes.
const (
	maxCacheLine = 64 << 10 // an answer is cut to much less
	maxCacheFile = 1 << 30
)

// load reads the cache. What is wrong with it costs answers, not the start.
func (a *Asker) load() {
	if a.opts.CacheFile == "" {
		return
	}
	f, err := os.Open(a.opts.CacheFile)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		a.opts.Log.Warn("the cache of online answers is not read", "err", err)
		return
	}
	defer func() { _ = f.Close() }() // it was only read
	workers := make(map[string]*worker, len(a.workers))
	for _, w := range a.workers {
		workers[w.spec.name] = w
	}
	now := a.opts.Now()
	good, bad, size := 0, 0, 0
	s := bufio.NewScanner(f)
	s.Buffer(nil, maxCacheLine)
	for s.Scan() {
		if size += len(s.Bytes()); size > maxCacheFile {
			break
		}
		var c cached
		if err := json.Unmarshal(s.Bytes(), &c); err != nil {
			bad++
			continue
		}
		w := workers[c.Service]
		until := time.Unix(c.Until, 0)
		if w == nil || !now.Before(until) {
			continue
		}
		key := subject{kind: intel.ParseKind(c.Of), text: c.Subject, port: c.Port}
		if key.kind == intel.Address {
			if key.addr, err = netip.ParseAddr(c.Subject); err != nil {
				bad++
				continue
			}
		}
		part := bound(c.part())
		part.Service, part.Of, part.Subject, part.Error = "", "", "", ""
		w.mu.Lock()
		if _, ok := w.cache.get(key); !ok && key.kind != intel.NoKind {
			w.cache.put(key, kept{until: minTime(until, now.Add(w.limits.Cache)), part: part})
		}
		w.mu.Unlock()
		good++
	}
	if err := s.Err(); err != nil {
		a.opts.Log.Warn("the cache of online answers is read in part", "err", err)
	}
	if bad > 0 {
		a.opts.Log.Warn("lines of the cache of online answers make no sense", "path", a.opts.CacheFile, "lines", bad)
	}
	a.opts.Log.Debug("online answers of earlier runs", "answers", good)
}

// minTime bounds what a file says by what the settings of today say.
func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// save writes the cache, in one piece or not at all.
func (a *Asker) save() (err error) {
	path := a.opts.CacheFile
	if path == "" {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing the cache of online answers: %w", err)
		}
	}()
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	w := bufio.NewWriter(f)
	if err := a.encode(w); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(w.Flush(), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// encode writes the answers that hold, service by service, the one that was
// not used for longest first, so that reading them restores the order.
func (a *Asker) encode(out *bufio.Writer) error {
	now := a.opts.Now()
	var buf []byte
	for _, w := range a.workers {
		var lines []cached
		w.mu.Lock()
		for s, k := range w.cache.oldestFirst() {
			if k.failed || !now.Before(k.until) {
				continue
			}
			c := cached{Until: k.until.Unix(), Port: s.port, said: saidOf(&k.part)}
			c.Service, c.Of, c.Subject = w.spec.name, s.kind.String(), s.text
			lines = append(lines, c)
		}
		w.mu.Unlock() // before the writing: Ask waits for it
		for i := range lines {
			var err error
			if buf, err = appendJSON(buf[:0], &lines[i]); err != nil {
				return err
			}
			if _, err := out.Write(buf); err != nil {
				return err
			}
		}
	}
	return nil
}
