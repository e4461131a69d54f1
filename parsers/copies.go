package parsers

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/tail"
)

// Two files are copies of each other when the records of one are, but for
// their labels, all of the other's or the first of them. That two begin alike
// only makes it worth a look: sensors write the same connection into many
// files, as Zeek does with the dumps of its open connections. Even dumps that
// are all alike are none: they were begun at different times, as #open says, or
// are beside each other under names with different times or numbers.
//
// The files are read side by side. Lines of the same bytes are the same
// record; where they differ, because one is labelled or written otherwise,
// both are decoded: each of the first exactRecords, then one in sampleRecords,
// and the last that both have. It costs to read the copies once more, but
// hardly any decoding.
const (
	exactRecords  = 1024
	sampleRecords = 64
	maxCompared   = 64 // files that begin alike which one is compared with
)

// relation is what one file is to another.
type relation uint8

const (
	different relation = iota
	equal              // all of one is all of the other
	shorter            // the first is the beginning of the second
	longer             // the second is the beginning of the first
)

// findCopies notes at each of the entries, which stand in the order of
// preference, the file that has all its records. One that lacks records of a
// later one gives way to it.
func (s *Set) findCopies(r *root, fresh []*entry) {
	kept, prints := make(map[dirKey][]*entry), make(map[string][]*entry)
	gone := make(map[*entry]bool)
	for _, e := range fresh {
		if e.format == nil || e.opening.print == "" {
			continue
		}
		key, print := dirKey{filepath.Dir(e.path), e.opening.copy}, e.group+e.opening.print
		alike := prints[print]
		if e.opening.known {
			alike = append(alike[:len(alike):len(alike)], kept[key]...)
		}
		if s.copyIn(e, alike, gone) {
			continue
		}
		if r.prints[print] && s.wasQueued(r, e) {
			continue
		}
		prints[print] = append(prints[print], e)
		if e.opening.known {
			kept[key] = append(kept[key], e)
		}
	}
}

// copyIn compares an entry with those that begin alike and are not queued yet,
// and reports whether it is a copy.
func (s *Set) copyIn(e *entry, alike []*entry, gone map[*entry]bool) bool {
	n := 0
	for _, k := range alike {
		if gone[k] {
			continue
		}
		if n++; n > maxCompared {
			break
		}
		if !e.root.begun && rotations(e, k) {
			continue
		}
		switch compare(e, k) {
		case equal, shorter:
			e.copied, e.twin = true, k.path
			return true
		case longer:
			k.copied, k.twin, gone[k] = true, e.path, true
		case different:
		}
	}
	return false
}

// rotations reports whether two files of a directory are by their names
// different rotations of a log. Once they are watched that is no help: what is
// renamed may get another time.
func rotations(a, b *entry) bool {
	x, y := stamp(a), stamp(b)
	return x != "" && y != "" && x != y && filepath.Dir(a.path) == filepath.Dir(b.path)
}

// stamp returns the digits of a file's name that are not part of the log's.
func stamp(e *entry) string {
	name := filepath.Base(e.path)
	name = strings.Replace(name, hint(logOf(e.format.name, name)), "", 1)
	return strings.Map(func(c rune) rune {
		if c < '0' || c > '9' {
			return -1
		}
		return c
	}, name)
}

// wasQueued compares an entry with the files that begin with the same bytes
// and were queued before. When none of them is there any more as it was, it
// is what one of them was renamed or compressed to.
func (s *Set) wasQueued(r *root, e *entry) bool {
	n := 0
	for _, path := range sortedKeys(r.entries) {
		k := r.entries[path]
		if k == e || k.seg == nil || k.seg.print != e.opening.print || k.group != e.group || !begins(k.seg, k.path) {
			continue
		}
		if n++; n > maxCompared {
			break
		}
		if compare(e, k) != different {
			e.copied, e.twin = true, k.path
			return true
		}
		if !begins(k.seg, k.path) {
			n-- // it was truncated while it was read, as who rotates by copying does next
		}
	}
	if n == 0 {
		e.copied = true
	}
	return e.copied
}

// compare reads two files side by side. What cannot be read of a file is not
// in it.
func compare(a, b *entry) relation {
	x, err := newSide(a)
	if err != nil {
		return different
	}
	defer x.f.Close()
	y, err := newSide(b)
	if err != nil {
		return different
	}
	defer y.f.Close()
	unsure := false // the last two lines differ and were not decoded
	for n := 1; ; n++ {
		keep := unsure
		if keep {
			x.keep()
			y.keep()
		}
		okX, okY := x.next(), y.next()
		if !okX || !okY {
			if keep && !alike(x, y, x.last, y.last) {
				return different
			}
			switch {
			case okX:
				return longer
			case okY:
				return shorter
			}
			return equal
		}
		unsure = false
		if n == 1 && x.open != "" && y.open != "" && x.open != y.open {
			return different
		}
		switch {
		case bytes.Equal(x.line, y.line):
		case x.cut && bytes.HasPrefix(y.line, x.line):
			return shorter
		case y.cut && bytes.HasPrefix(x.line, y.line):
			return longer
		case n > exactRecords && n%sampleRecords != 0:
			unsure = true
		case !alike(x, y, x.line, y.line):
			return different
		}
	}
}

// alike reports whether two lines are the same record but for the labels.
func alike(x, y *side, a, b []byte) bool {
	if decodeLine(x.dec, &x.flow, a) != nil || decodeLine(y.dec, &y.flow, b) != nil {
		return false
	}
	return keyOf(&x.flow) == keyOf(&y.flow)
}

// side is one of two files that are compared.
type side struct {
	f    *tail.File
	dec  Decoder
	flow flow.Flow
	buf  []byte
	rest []byte // lines of buf that were not looked at
	line []byte // the record at hand
	last []byte // a copy of the one before
	open string // the header line that says when the file was begun
	cut  bool   // line is the last of the file and has no newline
}

func newSide(e *entry) (*side, error) {
	f, err := tail.Open(e.path)
	if err != nil {
		return nil, err
	}
	return &side{f: f, dec: e.decoder()}, nil
}

func (s *side) keep() { s.last = append(s.last[:0], s.line...) }

// next goes on to the next line that is no header.
func (s *side) next() bool {
	for {
		if len(s.rest) == 0 {
			data, err := s.f.Next(s.buf, firstBlock)
			s.buf, s.rest = data, data
			switch {
			case errors.Is(err, tail.ErrTooLong):
				s.line = nil
				return true
			case err != nil:
				if data, err = s.f.Last(s.buf); err != nil || len(data) == 0 {
					return false
				}
				s.buf, s.rest, s.cut = data, data, true
			}
		}
		line, rest, _ := bytes.Cut(s.rest, []byte{'\n'})
		s.rest = rest
		line = bytes.TrimLeft(line, "\x00")
		if len(line) == 0 || line[0] == '#' || s.dec.IsHeader(line) {
			if s.dec.Decode(&s.flow, line) == flow.ErrHeader { //nolint:errorlint // decoders return it bare
				if s.open == "" && bytes.HasPrefix(line, []byte("#open")) {
					s.open = string(line)
				}
				continue
			}
		}
		s.line = line
		return true
	}
}
