package parsers

import (
	"bytes"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/tail"
	"github.com/slips-go/slips/parsers/zeek"
)

// maxGlances bounds the sources that Glance looks into: more than Zeek has logs.
const maxGlances = 256

// Glance tells what the sources of Open seem to hold, by the beginning of the
// latest file of each: to log the kinds of its records, 0 where that cannot be
// told, and the fields that the header of a log in columns names, nil without
// one; to record the first records, at most 64 KiB of them. Neither may keep
// what it is given. Call it before Run; what cannot be read is left for Run to
// complain of. It reports whether it saw all sources.
func (s *Set) Glance(log func(kinds flow.KindSet, fields []string), record func(f *flow.Flow)) (all bool) {
	all = true
	for n, name := range sortedKeys(s.sources) {
		src := s.sources[name]
		kinds := src.kinds()
		if n >= maxGlances || len(src.queue) == 0 || src.queue[len(src.queue)-1].stream {
			log(kinds, nil)
			all = false
			continue
		}
		seg := src.queue[len(src.queue)-1]
		head, _, err := tail.Head(seg.path, headSize)
		if err != nil {
			log(kinds, nil)
			all = false
			continue
		}
		head = append(bytes.Clone(seg.header), head...)
		var fields []string
		if seg.format.name == "zeek" {
			fields = zeek.Columns(head)
		}
		log(kinds, fields)
		dec := seg.format.fresh(hint(src.log))
		var f flow.Flow
		for line := range bytes.Lines(head) {
			if line, whole := bytes.CutSuffix(line, []byte{'\n'}); whole && decodeLine(dec, &f, line) == nil {
				record(&f)
			}
		}
	}
	return all
}
