package feeds

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Meta is what is known about the content of a feed: the file NAME.feed.json.
type Meta struct {
	Name    string `json:"name"`
	Content string `json:"content,omitempty"` // file beside this one; empty: there is none
	SHA256  string `json:"sha256,omitempty"`  // of the content, uncompressed
	Size    int64  `json:"size,omitempty"`    // bytes, uncompressed

	ETag     string `json:"etag,omitempty"`
	Modified string `json:"last_modified,omitempty"`
	Place    string `json:"place,omitempty"` // URL or path that the two are of

	// Updated is when the content was published (Last-Modified) or, where
	// nobody says, when it last changed. Unix s, like all times here.
	Updated int64 `json:"updated,omitempty"`
	Checked int64 `json:"checked,omitempty"` // last check, whatever came of it
	Next    int64 `json:"next,omitempty"`    // not to be checked before

	Count    int            `json:"count"` // entries of the content
	Kinds    map[string]int `json:"kinds,omitempty"`
	Rejected map[string]int `json:"rejected,omitempty"` // by reason

	Refused string `json:"refused,omitempty"` // why the newest version is not in use
	Faults  string `json:"faults,omitempty"`  // what is wrong with the version in use: a local list of which the rest is taken
	Error   string `json:"error,omitempty"`   // why the last check failed
	Fails   int    `json:"fails,omitempty"`   // checks in a row that failed or were refused
	Since   int64  `json:"since,omitempty"`   // of the first of them

	AddedAfter string           `json:"added_after,omitempty"` // of TAXII: where the next pull begins
	Events     map[string]int64 `json:"events,omitempty"`      // of MISP: change of each event that is in the content
}

const (
	maxMeta  = 16 << 20 // bytes of a meta file: a MISP feed has a line for each event
	tempName = ".tmp-*" // of files that are not whole yet

	metaSuffix    = ".feed.json"
	contentSuffix = ".feed.zst"
)

// store is the directory of the last good versions.
type store struct{ dir string }

func (s store) path(name string) string { return filepath.Join(s.dir, name) }

// meta reads what is known about a feed. A feed without a file is new, and one
// whose file is damaged is told from a new one by the error.
func (s store) meta(name string) (Meta, error) {
	fresh := Meta{Name: name}
	if s.dir == "" {
		return fresh, nil
	}
	text, err := readFile(s.path(name+metaSuffix), maxMeta)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return fresh, fmt.Errorf("feed %s: %w", name, err)
	}
	var m Meta
	if err := json.Unmarshal(text, &m); err != nil {
		return fresh, fmt.Errorf("feed %s: %s: %w", name, s.path(name+metaSuffix), err)
	}
	if m.Name != name || (m.Content != "" && !strings.HasPrefix(m.Content, name+".")) || filepath.Base(m.Content) != m.Content && m.Content != "" {
		return fresh, fmt.Errorf("feed %s: %s: belongs to another feed", name, s.path(name+metaSuffix))
	}
	return m, nil
}

// open gives the content that m names.
func (s store) open(m Meta) (io.ReadCloser, error) {
	f, err := openRegular(s.path(m.Content))
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &unpacked{z, f}, nil
}

// head gives the first guessBytes of the content that m names.
func (s store) head(m Meta) (head []byte, err error) {
	r, err := s.open(m)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(io.LimitReader(r, guessBytes))
}

// unpacked is a compressed file.
type unpacked struct {
	*zstd.Decoder
	f *os.File
}

func (u *unpacked) Close() error {
	u.Decoder.Close()
	return u.f.Close()
}

// draft is a version of a feed that is not in use yet: a temporary file.
type draft struct {
	f    *os.File
	z    *zstd.Encoder
	hash hash.Hash
	size int64
}

// draft begins a new version. It ends with store.commit or draft.discard.
func (s store) draft() (*draft, error) {
	f, err := s.temp()
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewWriter(f, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return &draft{f: f, z: z, hash: sha256.New()}, nil
}

// temp makes a file that a later sweep removes.
func (s store) temp() (*os.File, error) { return os.CreateTemp(s.dir, tempName) }

// Write implements io.Writer.
func (d *draft) Write(p []byte) (int, error) {
	d.hash.Write(p)
	d.size += int64(len(p))
	return d.z.Write(p)
}

// restart forgets what was written.
func (d *draft) restart() error {
	if err := d.f.Truncate(0); err != nil {
		return err
	}
	if _, err := d.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	d.z.Reset(d.f)
	d.hash.Reset()
	d.size = 0
	return nil
}

// finish ends the writing; the content is on disk then.
func (d *draft) finish() error {
	if err := d.z.Close(); err != nil {
		return err
	}
	return d.f.Sync()
}

func (d *draft) sum() string { return hex.EncodeToString(d.hash.Sum(nil)) }

// read gives what was written, after finish.
func (d *draft) read() (io.ReadCloser, error) {
	z, err := zstd.NewReader(io.NewSectionReader(d.f, 0, 1<<62), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, err
	}
	return z.IOReadCloser(), nil
}

// discard removes the draft. It may be called after commit.
func (d *draft) discard() error {
	err := os.Remove(d.f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, d.f.Close())
}

// commit makes d the content of the feed m.Name. The content goes to its place
// under a name of its own first, then the meta file is replaced, which is the
// step that counts; a crash before it leaves a file that sweep removes.
func (s store) commit(d *draft, m Meta) error {
	m.SHA256, m.Size = d.sum(), d.size
	m.Content = m.Name + "." + m.SHA256[:16] + contentSuffix
	if err := os.Rename(d.f.Name(), s.path(m.Content)); err != nil {
		return fmt.Errorf("feed %s: %w", m.Name, err)
	}
	old, err := s.meta(m.Name)
	if err := s.save(m); err != nil {
		return err
	}
	if err == nil && old.Content != "" && old.Content != m.Content {
		if err := os.Remove(s.path(old.Content)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("feed %s: removing the old version: %w", m.Name, err)
		}
	}
	return nil
}

// save writes the meta file.
func (s store) save(m Meta) error {
	text, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return fmt.Errorf("feed %s: %w", m.Name, err)
	}
	if err := s.replace(m.Name+metaSuffix, append(text, '\n')); err != nil {
		return fmt.Errorf("feed %s: %w", m.Name, err)
	}
	return nil
}

// replace puts a file in place in one step.
func (s store) replace(name string, content []byte) (err error) {
	f, err := s.temp()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = io.Copy(f, bytes.NewReader(content))
	if err == nil {
		err = f.Chmod(0o644) // read by whoever runs slips; keys are never in it
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), s.path(name))
}

// keepUnknown is how long the content of a feed that is not configured stays
// after its last check: other configurations may use the same directory.
const keepUnknown = 90 * 24 * time.Hour

// sweep removes what a killed process left behind, and feeds that are not
// known and were not checked for keepUnknown, whose names it returns. The
// caller has the lock.
func (s store) sweep(known map[string]bool, now time.Time) (gone []string, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	inUse := make(map[string]bool)
	unreadable := make(map[string]bool) // feeds of which nothing is removed
	kept := maps.Clone(known)
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), metaSuffix)
		if !ok || known[name] {
			continue
		}
		m, err := s.meta(name)
		checked := time.Unix(m.Checked, 0)
		if info, ierr := e.Info(); ierr == nil && err != nil {
			checked = info.ModTime() // of the last check
		}
		if kept[name] = now.Sub(checked) < keepUnknown; !kept[name] {
			gone = append(gone, name)
		}
	}
	for name, keep := range kept {
		if keep {
			m, err := s.meta(name)
			inUse[m.Content] = true
			unreadable[name] = err != nil
		}
	}
	idx, _ := s.index() // a damaged one is written anew
	inUse[idx.File] = true
	for _, e := range entries {
		name := e.Name()
		feed, _, _ := strings.Cut(name, ".")
		var drop bool
		switch {
		case strings.HasSuffix(name, contentSuffix), strings.HasSuffix(name, indexSuffix):
			drop = !inUse[name]
		case strings.HasSuffix(name, metaSuffix):
			drop = !kept[feed]
		default:
			drop = strings.HasPrefix(name, strings.TrimSuffix(tempName, "*"))
		}
		if drop && !unreadable[feed] && e.Type().IsRegular() {
			err = errors.Join(err, os.Remove(s.path(name)))
		}
	}
	return gone, err
}

// lock makes this process the one that may change the directory, which it
// makes when it is not there. It does not wait: ErrBusy.
func (s store) lock(ctx context.Context) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.path("lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", s.dir, err), f.Close())
	}
	return func() { _ = f.Close() }, nil // gives up the lock; nothing was written
}
