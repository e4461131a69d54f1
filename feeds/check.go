package feeds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/slips-go/slips/feeds/format"
	"github.com/slips-go/slips/feeds/intel"
)

// Outcome is what came of a check of a feed.
type Outcome string

// The outcomes.
const (
	Added     Outcome = "new"       // its first version
	Changed   Outcome = "changed"   // another version
	Unchanged Outcome = "unchanged" // the server says so, or it sent the same again
	Refused   Outcome = "refused"   // the new version is not to be believed
	Failed    Outcome = "failed"    // there was nothing to look at
)

// Result is the report of one check.
type Result struct {
	Name     string
	Outcome  Outcome
	Count    int            // entries in use after it
	Was      int            // and before
	Rejected map[string]int // entries of the new version that were not taken, by reason
	Reason   string         // why it was refused or failed
	Size     int64          // bytes of the new version, uncompressed
	Took     time.Duration
}

const (
	firstRetry = 5 * time.Minute // until a failed feed is checked again, doubled with each further failure up to its period
	// spread is by how much of its period a check may come early or late, so
	// that the feeds of all installations are not fetched at once.
	spread = 0.1
)

// due says when a feed is to be checked next.
func (m *Manager) due(s *Source, meta Meta, err error) int64 {
	wait := s.Period
	if err != nil {
		wait = min(firstRetry<<min(max(meta.Fails-1, 0), 12), s.Period)
		if status := (*statusError)(nil); errors.As(err, &status) {
			wait = max(wait, status.after)
		}
	}
	return m.now().Add(wait + time.Duration((m.o.Jitter()*2-1)*spread*float64(wait))).Unix()
}

// check fetches one feed and puts the new version in place if it is good. With
// force a version is taken although it looks wrong, as long as it can be read.
// The caller has the lock.
func (m *Manager) check(ctx context.Context, s *Source, force bool) (res Result) {
	begin := m.now()
	meta, err := m.store.meta(s.Name)
	if err != nil {
		m.log.Warn("what is known about a feed is damaged, it is fetched anew", "err", err)
	}
	if m.broken[s.Name] || meta.Content != "" && !exists(m.store.path(meta.Content)) {
		meta = Meta{Name: s.Name}
	}
	res = Result{Name: s.Name, Was: meta.Count, Count: meta.Count}
	defer func() { res.Took = m.now().Sub(begin) }()

	next, rep, unchanged, err := m.fetch(ctx, s, meta, force)
	if ctx.Err() != nil {
		res.Outcome, res.Reason = Failed, context.Cause(ctx).Error()
		return res // and as if it had not been tried
	}
	now := m.now().Unix()
	res.Size, res.Rejected = next.Size, rep.Rejected
	var refused *refusedError
	switch {
	case errors.As(err, &refused):
		res.Outcome, res.Reason = Refused, err.Error()
		meta.Refused, meta.Error = err.Error(), ""
		err = nil // it is the period that is kept to
	case err != nil:
		res.Outcome, res.Reason = Failed, err.Error()
		meta.Error = err.Error()
	case unchanged:
		res.Outcome = Unchanged
		meta = next
	case meta.Content == "":
		res.Outcome, meta = Added, next
	default:
		res.Outcome, meta = Changed, next
	}
	if res.Reason != "" {
		if meta.Fails++; meta.Fails == 1 {
			meta.Since = now
		}
	} else {
		meta.Error, meta.Refused, meta.Fails, meta.Since = "", "", 0, 0
	}
	meta.Checked, meta.Next = now, m.due(s, meta, err)
	res.Count = meta.Count
	if err := m.store.save(meta); err != nil {
		res.Outcome, res.Reason = Failed, err.Error()
	}
	return res
}

// refusedError says why a version that came is not used.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// fetch gets the content of a feed and, if it is new and good, commits it.
func (m *Manager) fetch(ctx context.Context, s *Source, meta Meta, force bool) (next Meta, rep format.Report, unchanged bool, err error) {
	next = meta
	d, err := m.store.draft()
	if err != nil {
		return next, rep, false, err
	}
	defer func() { err = errors.Join(err, d.discard()) }()
	switch {
	case s.URL != "":
		unchanged, err = m.client.receive(ctx, s, m.store, &next, d)
	default:
		unchanged, err = readPath(s, m.store, &next, d)
	}
	if refused := (*contentError)(nil); errors.As(err, &refused) || errors.As(err, new(tooLargeError)) {
		err = &refusedError{err}
	}
	if err != nil || unchanged {
		return next, rep, unchanged, err
	}
	if err := d.finish(); err != nil {
		return next, rep, false, err
	}
	m.count(func(c *Counts) { c.Bytes += d.size })
	same := meta.Content != "" && d.sum() == meta.SHA256
	if t, err := http.ParseTime(next.Modified); err == nil && !t.After(m.now()) {
		next.Updated = t.Unix()
	} else if !same || next.Updated == 0 {
		next.Updated = m.now().Unix()
	}
	if same {
		return next, rep, true, nil
	}
	next.Kinds = make(map[string]int)
	r, err := d.read()
	if err != nil {
		return next, rep, false, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	rep, err = s.parse(r, m.now(), next.Updated, func(in intel.Indicator) error {
		next.Kinds[in.Kind.String()]++
		return ctx.Err()
	})
	next.Size, next.Count, next.Rejected = d.size, rep.Indicators, rep.Rejected
	if err != nil {
		return next, rep, false, &refusedError{err}
	}
	if why := s.suspicious(rep, meta.Count); why != "" && !force {
		return next, rep, false, &refusedError{errors.New(why)}
	}
	if err := m.store.commit(d, next); err != nil {
		return next, rep, false, err
	}
	next, err = m.store.meta(s.Name)
	return next, rep, false, err
}

// receive gets a feed from its server within the time that it may take.
func (c *client) receive(ctx context.Context, s *Source, st store, m *Meta, d *draft) (unchanged bool, err error) {
	get, limit := c.download, fileTimeout
	switch {
	case s.taxii():
		get, limit = c.pull, partsTimeout
	case s.misp():
		get, limit = c.events, partsTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no whole answer within %s", limit))
	defer cancel()
	return get(ctx, s, st, m, d)
}

// download fetches a feed that is one file on a web server.
func (c *client) download(ctx context.Context, s *Source, st store, m *Meta, d *draft) (unchanged bool, err error) {
	r := request{src: s, url: s.URL, limit: s.MaxSize}
	if r.key, err = s.key(); err != nil {
		return false, err
	}
	if m.Content != "" && m.Place == s.URL {
		r.etag, r.changed = m.ETag, m.Modified
	}
	a, err := c.get(ctx, r, func(body io.Reader) error {
		if err := d.restart(); err != nil {
			return err
		}
		return unpack(d, body, s.MaxSize, st.temp)
	})
	if err == nil && !a.unchanged {
		m.Place, m.ETag, m.Modified = s.URL, a.etag, a.changed
	}
	return a.unchanged, err
}

// readPath reads a feed that is a file on this machine. Its size and time of
// change stand for the ETag.
func readPath(s *Source, st store, m *Meta, d *draft) (unchanged bool, err error) {
	f, err := openRegular(s.Path)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	tag := fmt.Sprintf("%d-%d", info.Size(), info.ModTime().UnixNano())
	if m.Content != "" && m.Place == s.Path && m.ETag == tag {
		return true, nil
	}
	if err := unpack(d, &limited{r: f, left: s.MaxSize, limit: s.MaxSize}, s.MaxSize, st.temp); err != nil {
		return false, fmt.Errorf("%s: %w", s.Path, err)
	}
	m.Place, m.ETag, m.Modified = s.Path, tag, info.ModTime().UTC().Format(http.TimeFormat)
	return false, nil
}

// CheckReport is what Check found in a file.
type CheckReport struct {
	Format   string
	Columns  format.Columns // of format csv
	Report   format.Report
	Kinds    map[string]int    // entries by kind
	Examples []intel.Indicator // the first few entries
	Verdict  string            // why a feed of this content would be refused; empty: it would be taken
}

// checkShows is how many entries a CheckReport shows.
const checkShows = 5

// Check reads a file as Read does and reports what is in it.
func Check(path string, s Source, now time.Time) (CheckReport, error) {
	rep := CheckReport{Kinds: make(map[string]int)}
	var err error
	rep.Report, err = Read(path, &s, now, func(in intel.Indicator) error {
		rep.Kinds[in.Kind.String()]++
		if len(rep.Examples) < checkShows {
			rep.Examples = append(rep.Examples, in)
		}
		return nil
	})
	if rep.Format, rep.Columns = s.Format, s.Columns; err != nil {
		return rep, err
	}
	rep.Verdict = s.suspicious(rep.Report, 0)
	return rep, nil
}

// Read reads a file as a feed or a local list, packed or not, and calls add
// for each indicator. s says how: at least Format, or nothing at all for a file
// whose name or content tells, which Read then fills in. The error is for a
// file that cannot be read as that at all, or what add has returned.
func Read(path string, s *Source, now time.Time, add func(intel.Indicator) error) (rep format.Report, err error) {
	f, err := openRegular(path)
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	tmp, err := os.CreateTemp("", "slips-check-*")
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, tmp.Close(), os.Remove(tmp.Name())) }()
	if s.MaxSize == 0 {
		s.MaxSize = maxMaxSize
	}
	spool := func() (*os.File, error) { return os.CreateTemp("", "slips-check-*") }
	if err := unpack(tmp, f, s.MaxSize, spool); err != nil {
		return rep, fmt.Errorf("%s: %w", path, err)
	}
	if s.Format == "" {
		if s.Format, s.Columns, err = guessFile(path, tmp); err != nil {
			return rep, err
		}
		s.Private, s.MayBeEmpty, s.Kinds = true, true, localKinds(s.Format)
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return rep, err
	}
	if rep, err = s.parse(tmp, now, now.Unix(), add); err != nil {
		return rep, fmt.Errorf("%s: %w", path, err)
	}
	return rep, nil
}
