package parsers

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/tail"
)

// zeekFormat returns the format of Zeek's logs, nil when another one is forced.
func (s *Set) zeekFormat() *format {
	if s.forced != nil && s.forced.name != "zeek" {
		return nil
	}
	for i := range s.formats {
		if s.formats[i].name == "zeek" {
			return &s.formats[i]
		}
	}
	return nil
}

// byName recognises what the content alone does not tell: a JSON log of Zeek
// that has nothing in it but a time which other programs do not write too, as
// ocsp and stats. It takes the first record and the name of the file together.
func (s *Set) byName(e *entry, head []byte, whole bool) *format {
	f := s.zeekFormat()
	name := filepath.Base(e.path)
	line, ok := firstLine(head, whole)
	if f == nil || !ok || !hints(f.name, name) {
		return nil
	}
	var keys map[string]json.RawMessage
	if json.Unmarshal(line, &keys) != nil || keys["event_type"] != nil {
		return nil
	}
	log := logOf(f.name, name)
	if keys["ts"] == nil && (log != "loaded_scripts" || keys["name"] == nil) { // the one without a time
		return nil
	}
	var dst flow.Flow
	if err := f.fresh(hint(log)).Decode(&dst, line); err != nil && !errors.Is(err, flow.ErrIgnored) {
		return nil
	}
	return f
}

// firstLine returns the first line of a file that ends within its head.
func firstLine(head []byte, whole bool) ([]byte, bool) {
	line, _, ended := bytes.Cut(head, []byte{'\n'})
	return line, len(line) > 0 && (ended || whole)
}

// isBare reports whether a file begins with columns as Zeek writes them, a
// time before all, without the header that says what they are.
func isBare(head []byte, whole bool) bool {
	line, ok := firstLine(head, whole)
	if !ok || bytes.Count(line, []byte{'\t'}) < 3 {
		return false
	}
	first, _, _ := bytes.Cut(line, []byte{'\t'})
	_, err := strconv.ParseFloat(string(first), 64)
	return err == nil
}

// namedLog reports whether a file is named like a log, be it one of Zeek's or not.
func namedLog(name string) bool { return strings.Contains(strings.ToLower(name)+".", ".log.") }

// inherit gives logs without a header the one of the file of the same log
// beside them that was written before, else of the next: a writer whose log is
// copied and truncated does not know, and does not repeat its header.
func (s *Set) inherit(r *root, fresh []*entry) {
	for _, e := range fresh {
		f := s.zeekFormat()
		if !e.bare || f == nil || !hints(f.name, filepath.Base(e.path)) {
			continue
		}
		log := logOf(f.name, filepath.Base(e.path))
		var donors []*entry
		for _, d := range r.entries {
			if d.format == f && !d.bare && filepath.Dir(d.path) == filepath.Dir(e.path) && logOf(f.name, filepath.Base(d.path)) == log {
				donors = append(donors, d)
			}
		}
		slices.SortFunc(donors, func(a, b *entry) int {
			return cmp.Or(cmp.Compare(a.opening.end, b.opening.end), cmp.Compare(a.path, b.path))
		})
		for i := range min(len(donors), maxCompared) { // the first only tells when the file was written
			if !s.adopt(r, e, f, headerOf(f, donors[i])) {
				continue
			}
			before := -1
			for n, d := range donors {
				if d.opening.end <= e.opening.end {
					before = n
				}
			}
			if n := max(before, 0); n != i {
				_ = s.adopt(r, e, f, headerOf(f, donors[n])) // it keeps what it has when this one does not fit
			}
			s.log.Info("a log without a header is read with that of the file before it", "path", e.path)
			break
		}
	}
}

// adopt reads the first record of a file with the header of another one, and
// reports whether that was possible.
func (s *Set) adopt(r *root, e *entry, f *format, header []byte) bool {
	if len(header) == 0 {
		return false
	}
	head, _, err := tail.Head(e.path, headSize)
	if err != nil {
		return false
	}
	log := hint(logOf(f.name, filepath.Base(e.path)))
	dec := f.fresh(log)
	prime(dec, header)
	o := opening{end: unknownEnd}
	o.read(dec, head, !s.opts.Follow && len(head) < headSize)
	if !o.known {
		return false
	}
	o.kinds = f.kinds(append(slices.Clip(header), head...), log)
	e.format, e.err, e.opening, e.header = f, nil, o, header
	delete(r.pending, e.path)
	return true
}

// headerOf returns the header lines that a log begins with.
func headerOf(f *format, e *entry) []byte {
	head, _, err := tail.Head(e.path, headSize)
	if err != nil {
		return nil
	}
	dec := f.fresh(hint(logOf(f.name, filepath.Base(e.path))))
	var header []byte
	var dst flow.Flow
	for len(head) > 0 {
		line, rest, _ := bytes.Cut(head, []byte{'\n'})
		if dec.Decode(&dst, line) != flow.ErrHeader { //nolint:errorlint // decoders return it bare
			break
		}
		if dec.IsHeader(line) {
			header = append(append(header, line...), '\n')
		}
		head = rest
	}
	return header
}

// prime tells a decoder a header.
func prime(dec Decoder, header []byte) {
	var dst flow.Flow
	for line := range bytes.Lines(header) {
		_ = dec.Decode(&dst, bytes.TrimSuffix(line, []byte{'\n'})) // it was understood before
	}
}

// decoder returns one for a file from its beginning.
func (e *entry) decoder() Decoder {
	dec := e.format.fresh(hint(logOf(e.format.name, filepath.Base(e.path))))
	prime(dec, e.header)
	return dec
}
