package feeds

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/slips-go/slips/feeds/intel"
)

const (
	localPrefix = "local-" // of the names of local lists in the store
	localTag    = "local TI file"
	maxLocal    = 64 << 20 // bytes of a local list, which is read whole
	maxLocals   = 1000     // files
	// fresh is how long a file may still change without its time of change
	// telling: the coarsest file systems count it in 2 s.
	fresh = 2 * time.Second
)

// ownFormat returns how the lists of the original are read, which are known by
// their names; nothing for other names.
func ownFormat(name string) string {
	switch name {
	case "own_malicious_iocs.csv":
		return "slips_iocs"
	case "own_malicious_JA3.csv":
		return "slips_ja3"
	case "own_malicious_JARM.csv":
		return "slips_jarm"
	case "known_fp_md5_hashes.csv":
		return "slips_fp_hashes"
	}
	return ""
}

// isList reports whether a file of the directory of local lists is one.
func isList(name string) bool {
	switch filepath.Ext(name) {
	case ".intel", ".netset", ".ipset", ".txt", ".csv":
		return !strings.HasPrefix(name, ".")
	}
	return false
}

// stored is the name of the source in the store.
func (s *Source) stored() string {
	if !s.local {
		return s.Name
	}
	sum := sha256.Sum256([]byte(s.Name))
	return localPrefix + hex.EncodeToString(sum[:8])
}

// localFile is a local list as it was last read.
type localFile struct {
	size    int64
	changed time.Time
	read    time.Time
	sum     string // of the text that was last read, good or bad
	entry   entry  // of the version in use
	good    bool   // that version has no fault
}

// readLocals reads the local lists that changed. A version with a fault is not
// used: the last good one stays, from the store if need be; where there is
// none, the entries that are fine are used. With keep the good versions go
// into the store.
func (m *Manager) readLocals(keep bool) {
	if m.o.Local == "" {
		return
	}
	list, err := os.ReadDir(m.o.Local)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		m.complain("local lists", err) // and go on with what there is
		return
	}
	next := make(map[string]*localFile)
	for _, e := range list {
		name := e.Name()
		if !isList(name) || e.IsDir() {
			continue
		}
		if len(next) == maxLocals {
			err = fmt.Errorf("%s: more than %d files", m.o.Local, maxLocals)
			break
		}
		old := m.locals[name]
		f, ferr := m.readLocal(name, old, keep)
		if ferr != nil {
			err = errors.Join(err, ferr)
			if f = old; f == nil {
				continue
			}
		}
		next[name] = f
	}
	m.locals = next
	m.complain("local lists", err)
}

// localKinds returns what the entries of a local list may be. Lists of all
// sorts do not say what a hash is of, so it is taken for all that it can be: of a
// file, a certificate, or a fingerprint of TLS.
func localKinds(how string) []intel.Kind {
	if how != "lines" && how != "slips_iocs" && how != "csv" {
		return nil
	}
	return []intel.Kind{
		intel.Domain, intel.Address, intel.Range, intel.URL, intel.MD5, intel.JA3, intel.JA3S, intel.SHA1, intel.CertSHA1, intel.SHA256,
		intel.JA4, intel.JARM, intel.ASN, intel.Email,
	}
}

// localSource is how a list is read that begins with head.
func localSource(name, path string, head []byte) *Source {
	how, columns := guess(name, head)
	return &Source{
		Name: name, Provider: "local", Path: path, Format: how, Columns: columns, Kinds: localKinds(how), Level: 2, Tags: []string{localTag},
		Enabled: true, Private: true, MayBeEmpty: true, local: true,
	}
}

// readLocal reads one list unless it is as old says.
func (m *Manager) readLocal(name string, old *localFile, keep bool) (*localFile, error) {
	path := filepath.Join(m.o.Local, name)
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	now := m.now()
	if old != nil && old.good && old.entry.text != nil && keep && m.store.dir != "" {
		if err := m.keepLocal(&old.entry); err != nil { // could not be kept when it was read
			return nil, err
		}
	}
	if old != nil && old.size == st.Size() && old.changed.Equal(st.ModTime()) && old.read.Sub(old.changed) > fresh {
		return old, nil
	}
	text, err := readFile(path, maxLocal)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	f := &localFile{size: st.Size(), changed: st.ModTime(), read: now, sum: hex.EncodeToString(sum[:])}
	if old != nil && old.sum == f.sum {
		f.entry, f.good = old.entry, old.good
		return f, nil
	}
	src := localSource(name, path, text)
	last := entry{src: src, meta: Meta{Name: src.stored()}}
	switch {
	case old != nil:
		last = old.entry
	case m.broken[src.stored()]: // as if it had never been kept
	default:
		if last.meta, err = m.store.meta(src.stored()); err != nil {
			m.log.Warn("forgetting the last good version of a local list", "err", err)
		}
	}
	if last.meta.Content != "" && last.meta.SHA256 == f.sum && exists(m.store.path(last.meta.Content)) {
		last.meta.Refused, last.meta.Faults = "", ""
		f.entry, f.good = last, true
		return f, nil
	}
	meta := Meta{
		Name: src.stored(), SHA256: f.sum, Size: f.size, Updated: st.ModTime().Unix(), Checked: now.Unix(), Kinds: make(map[string]int),
	}
	rep, err := src.parse(bytes.NewReader(text), now, meta.Updated, func(in intel.Indicator) error {
		meta.Kinds[in.Kind.String()]++
		return nil
	})
	meta.Count, meta.Rejected = rep.Indicators, rep.Rejected
	why := src.suspicious(rep, 0)
	if err != nil {
		why = err.Error()
	}
	f.entry = entry{src: src, meta: meta, text: text}
	switch {
	case why == "":
		f.good = true
		if keep && m.store.dir != "" {
			err = m.keepLocal(&f.entry)
		}
		m.log.Info("local list read", "file", path, "indicators", meta.Count)
		return f, err
	case old != nil && old.good, last.meta.Content != "":
		if old == nil { // the stored version may be of another format
			if head, err := m.store.head(last.meta); err == nil {
				last.src = localSource(name, path, head)
			}
		}
		f.entry, f.good = last, true
		f.entry.meta.Refused = why
		m.log.Error("local list has a fault, its last good version stays in use", "file", path, "fault", why)
	case err != nil:
		f.entry.meta.Count, f.entry.meta.Refused, f.entry.text = 0, why, nil
		m.log.Error("local list cannot be read", "file", path, "fault", why)
	default:
		f.entry.meta.Faults = why
		m.log.Warn("local list has faults, the rest of it is used", "file", path, "fault", why, "indicators", meta.Count)
	}
	m.count(func(c *Counts) { c.Refused++ })
	return f, nil
}

// keepLocal puts a good version into the store, to be had after a bad edit and
// a restart.
func (m *Manager) keepLocal(e *entry) error {
	d, err := m.store.draft()
	if err != nil {
		return err
	}
	_, err = d.Write(e.text)
	if err == nil {
		err = d.finish()
	}
	if err == nil {
		meta := e.meta
		meta.Refused = "" // is about a later version
		err = m.store.commit(d, meta)
	}
	if err = errors.Join(err, d.discard()); err != nil {
		return fmt.Errorf("keeping %s: %w", e.src.Path, err)
	}
	kept, err := m.store.meta(e.meta.Name)
	if err != nil {
		return err
	}
	kept.Refused = e.meta.Refused
	e.meta, e.text = kept, nil
	m.mended(e.meta.Name)
	return nil
}

// localEntries returns the local lists, also those of which nothing is in use.
func (m *Manager) localEntries() []entry {
	out := make([]entry, 0, len(m.locals))
	for _, f := range m.locals {
		out = append(out, f.entry)
	}
	slices.SortFunc(out, func(a, b entry) int { return strings.Compare(a.src.Name, b.src.Name) })
	return out
}
