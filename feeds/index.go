package feeds

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/slips-go/slips/feeds/intel"
)

const (
	indexMeta   = "index.json"
	indexSuffix = ".index"
	indexLayout = 2 // part of the key: raised when the same content is to give another index

	// maxIndicators bounds the index of all feeds. An indicator takes some 50
	// bytes there, and four times that while it is compiled.
	maxIndicators = 16 << 20

	// maxMaps is how many indexes one process maps. A map is never undone, as
	// Views and texts from them may live anywhere; an index that comes after so
	// many is read into memory instead, which the garbage collector frees.
	maxMaps = 2

	// staleAfter is how old an index gets although some of its entries have
	// ended. Whoever looks them up sees their end; leaving them out saves space.
	staleAfter = 24 * time.Hour
)

// indexInfo says what the index is made of: the file index.json.
type indexInfo struct {
	File       string `json:"file"`
	Key        string `json:"key"`
	Built      int64  `json:"built"`    // unix s
	Earliest   int64  `json:"earliest"` // when the first entry ends; 0: none does
	Indicators int    `json:"indicators"`
	Unfit      int    `json:"unfit,omitempty"` // entries that the index has no place for

	unfit error // the first of them
}

// stale says that the index has entries that are to be left out by now.
func (i indexInfo) stale(now time.Time) bool {
	return i.Earliest != 0 && i.Earliest <= now.Unix() && now.Sub(time.Unix(i.Built, 0)) >= staleAfter
}

// index reads index.json; the zero value when there is none.
func (s store) index() (indexInfo, error) {
	var i indexInfo
	if s.dir == "" {
		return i, nil
	}
	text, err := readFile(s.path(indexMeta), maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return i, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &i)
	}
	if err == nil && filepath.Base(i.File) != i.File {
		err = fmt.Errorf("%q is no file beside it", i.File)
	}
	if err != nil {
		return indexInfo{}, fmt.Errorf("%s: %w", s.path(indexMeta), err)
	}
	return i, nil
}

// saveIndex puts a compiled index in place; index.json is the step that counts.
func (s store) saveIndex(i indexInfo, compiled []byte) (indexInfo, error) {
	i.File = i.Key[:16] + "-" + fmt.Sprint(i.Built) + indexSuffix
	if err := s.replace(i.File, compiled); err != nil {
		return i, err
	}
	text, err := json.MarshalIndent(i, "", "\t")
	if err != nil {
		return i, err
	}
	return i, s.replace(indexMeta, append(text, '\n'))
}

// openIndex opens a compiled index, mapped if mapped says so and the system
// can, and reports whether it is.
func (s store) openIndex(i indexInfo, mapped bool) (v *intel.View, isMap bool, err error) {
	f, err := openRegular(s.path(i.File))
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	var compiled []byte
	if size := int(st.Size()); mapped && size > 0 {
		if compiled, err = mapFile(f, size); err == nil {
			isMap = true
		}
	}
	if compiled == nil {
		if compiled, err = io.ReadAll(f); err != nil {
			return nil, false, err
		}
	}
	if v, err = intel.Open(compiled); err != nil {
		return nil, isMap, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if isMap {
		letGo(compiled) // all of it was read for its checksum
	}
	return v, isMap, nil
}

// entry is the content of one source that goes into the index.
type entry struct {
	src  *Source
	meta Meta
	text []byte // content that is not in the store
}

func (e *entry) open(s store) (io.ReadCloser, error) {
	if e.text != nil {
		return io.NopCloser(bytes.NewReader(e.text)), nil
	}
	return s.open(e.meta)
}

// indexKey is a hash over everything that the index depends on. Entries are in
// order.
func indexKey(version string, entries []entry) (string, error) {
	h := sha256.New()
	e := json.NewEncoder(h)
	err := e.Encode(struct {
		Layout  int
		Version string
	}{indexLayout, version})
	for _, x := range entries {
		s := *x.src // without what does not matter, and the key file is no part of it
		s.Headers, s.KeyFile, s.User, s.Period, s.Note, s.License, s.MaxSize = nil, "", "", 0, "", "", 0
		err = errors.Join(err, e.Encode(struct {
			Source  Source
			SHA256  string
			Updated int64
		}{s, x.meta.SHA256, x.meta.Updated}))
	}
	return hex.EncodeToString(h.Sum(nil)), err
}

// sortEntries puts entries into the order in which they are compiled.
func sortEntries(entries []entry) {
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.src.Name, b.src.Name) })
}

// damagedError says that the stored content of a feed cannot be used.
type damagedError struct {
	name   string
	stored string
	err    error
}

func (e *damagedError) Error() string {
	return fmt.Sprintf("feed %s: stored content: %v", e.name, e.err)
}
func (e *damagedError) Unwrap() error { return e.err }

// compile makes the index of all entries but those in skip.
func compile(ctx context.Context, st store, entries []entry, skip map[string]error, now time.Time) ([]byte, indexInfo, error) {
	b := intel.NewBuilder()
	info := indexInfo{Built: now.Unix()}
	for _, e := range entries {
		if skip[e.src.Name] != nil {
			continue
		}
		feed := b.AddFeed(intel.Feed{
			Name: e.src.Name, Provider: e.src.Provider, URL: e.src.where(), Level: e.src.Level, Tags: e.src.Tags,
			Updated: e.meta.Updated, Count: e.meta.Count,
		})
		add := func(in intel.Indicator) error {
			if info.Indicators++; info.Indicators&0xfff == 0 && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if info.Indicators > maxIndicators {
				return fmt.Errorf("the feeds have more than %d indicators together", maxIndicators)
			}
			if in.Expires != 0 && (info.Earliest == 0 || in.Expires < info.Earliest) {
				info.Earliest = in.Expires
			}
			if err := b.Add(feed, in); err != nil {
				if info.Unfit++; info.unfit == nil {
					info.unfit = fmt.Errorf("feed %s: %w", e.src.Name, err)
				}
			}
			return nil
		}
		if err := addContent(st, e, now, add); err != nil {
			if ctx.Err() != nil {
				return nil, info, context.Cause(ctx)
			}
			return nil, info, &damagedError{e.src.Name, e.src.stored(), err}
		}
	}
	return b.Compile(info.Built), info, nil
}

func addContent(st store, e entry, now time.Time, add func(intel.Indicator) error) (err error) {
	r, err := e.open(st)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	_, err = e.src.parse(r, now, e.meta.Updated, add)
	return err
}

// exists reports whether there is something at path.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
