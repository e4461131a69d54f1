package parsers

import (
	"cmp"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/slips-go/slips/parsers/flow"
)

// source is one log with its rotations: files that are read one after the
// other. Set.mu guards its queue and what the discovery may touch.
type source struct {
	name string
	log  string // see logOf
	root *root
	c    chan *flow.Batch
	wake chan struct{} // something changed that the reader may wait for

	queue     []*segment // in the order in which they will be read
	cur       *segment   // being read; nil before the first
	next      int        // number of the next segment
	final     bool       // no more segments will come
	announced bool       // in Inputs or given to More

	pos     *flow.Position // where to go on
	missing bool           // the segment of pos has not been found
}

// segment is one file of a source.
type segment struct {
	path   string      // where it is now
	opened string      // as first opened, for messages
	info   os.FileInfo // when it was last looked at
	print  string
	group  string // of directories whose fingerprints are compared
	end    int64  // unix ns at which its first record ended; math.MaxInt64 when not known
	format *format
	kinds  flow.KindSet // of its records; 0: not known
	size   int64        // bytes on disk counted in Set.total
	offset int64        // where to begin
	again  int          // number it had before the restart, plus one; 0: it is new
	stream bool

	cut    bool   // what a followed file holds behind a truncation
	bare   bool   // it may go on without a header where the file before it ended
	header []byte // what to read it with when there is none before it

	done bool // read to its end; offset is where that was
	lent bool // for good: it cannot have grown, or its end was read from a copy
}

func (s *Set) newSource(r *root, name, log string) *source {
	if len(s.sources) >= maxSources {
		return nil
	}
	src := &source{
		name: name, log: log, root: r, c: make(chan *flow.Batch, s.opts.Batches), wake: make(chan struct{}, 1),
	}
	if p, ok := s.opts.Resume[name]; ok {
		src.pos, src.missing, src.next = &p, p.Segment.Print != "", p.Segment.N+1
	}
	s.sources[name] = src
	return src
}

// kinds returns which kinds of record the files of the queue seem to hold; 0
// when that is not known of all.
func (src *source) kinds() flow.KindSet {
	var k flow.KindSet
	for _, seg := range src.queue {
		if seg.kinds == 0 {
			return 0
		}
		k |= seg.kinds
	}
	return k
}

// add queues segments that were found, in the order in which they will be
// read: the one that was being read before a restart, then by the time their
// first records ended, for that is when a sensor writes them.
func (s *Set) add(src *source, segs ...*segment) {
	for _, seg := range segs {
		seg.size = seg.info.Size()
		s.total.Add(seg.size)
	}
	src.queue = append(src.queue, segs...)
	slices.SortStableFunc(src.queue, func(a, b *segment) int {
		if c := cmp.Compare(min(b.again, 1), min(a.again, 1)); c != 0 {
			return c
		}
		if s.opts.Follow { // only the last one goes on being followed
			if c := cmp.Compare(rank(src.isLive(a.path)), rank(src.isLive(b.path))); c != 0 {
				return c
			}
		}
		return cmp.Or(cmp.Compare(a.end, b.end), cmp.Compare(a.path, b.path))
	})
	src.poke()
}

func rank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// isLive reports whether path is where the log is written, as opposed to
// where it is rotated to.
func (src *source) isLive(path string) bool {
	if !src.root.dir {
		return path == src.root.path
	}
	dir, name := filepath.Split(path)
	name, plain := strings.CutSuffix(name, ".log")
	return name == src.log && plain && (filepath.Clean(dir) == src.root.path || !isArchive(filepath.Base(dir)))
}

// poke makes the reader look again.
func (src *source) poke() {
	select {
	case src.wake <- struct{}{}:
	default:
	}
}

// gone reports whether the file that a source was being read from before the
// restart has not been found.
func (s *Set) gone(name string) bool {
	src := s.sources[name]
	return s.opts.Resume[name].Segment.Print != "" && (src == nil || src.missing)
}

// resume says which sources cannot go on where they stopped, and until when
// records of them may be missing.
func (s *Set) resume() {
	for _, name := range sortedKeys(s.opts.Resume) {
		if !s.gone(name) {
			continue
		}
		until := int64(unknownEnd)
		if src := s.sources[name]; src != nil {
			for _, seg := range src.queue {
				until = min(until, seg.end)
			}
		}
		p := s.opts.Resume[name]
		attrs := []any{"source", name, "file", p.Segment.Path, "offset", p.Offset}
		if until != unknownEnd {
			attrs = append(attrs, "until", time.Unix(0, until).UTC().Format(time.RFC3339))
		}
		s.log.Warn("the file that was being read before the restart is gone; records behind the offset may be lost", attrs...)
	}
}

// place is what Options.Resume knows about a file.
type place struct {
	source string
	done   bool // all of it was read
}

// places indexes the files of Options.Resume by their fingerprints.
func places(resume map[string]flow.Position) map[string]place {
	m := make(map[string]place)
	for _, name := range sortedKeys(resume) {
		for _, print := range resume[name].Done {
			m[print] = place{name, true}
		}
	}
	for _, name := range sortedKeys(resume) {
		if print := resume[name].Segment.Print; print != "" {
			m[print] = place{name, false}
		}
	}
	return m
}

// placeOf returns what is known of a file of the root by its fingerprint.
func (s *Set) placeOf(r *root, print string) (place, bool) {
	p, ok := s.places[print]
	return p, ok && print != "" && under(r.label, p.source)
}

// under reports whether a source's name is of the root with the label.
func under(label, name string) bool {
	return name == label || len(name) > len(label) && name[:len(label)] == label && name[len(label)] == '/'
}

const unknownEnd = math.MaxInt64
