package zeek

import (
	"fmt"
	"strings"

	"github.com/slips-go/slips/parsers/flow"
)

// The bounds of a header. Zeek's widest log has some 80 columns.
const (
	maxColumns = 1024
	maxMarker  = 64 // bytes of a separator or of the words for unset and empty
)

// header is what the '#' lines have said so far.
type header struct {
	sep, setSep  string
	unset, empty string
	path         string
	fields       string // the latest #fields line, to plan again when #path comes late

	planned bool
	log     *log // nil: cannot tell
	open    bool
	plan    []*field // one for each column, nil where it is not used
}

// reset sets what holds when a log does not say otherwise.
func (h *header) reset() {
	*h = header{sep: "\t", setSep: ",", unset: "-", empty: "(empty)", plan: h.plan[:0]}
}

// directive splits a '#' line into its name and what comes behind it. Which
// character stands between them is only known once the name is, so any does
// that cannot be part of a name.
func directive(t string) (name, rest string) {
	i := 1
	for i < len(t) && (t[i] >= 'a' && t[i] <= 'z' || t[i] == '_') {
		i++
	}
	return t[:i], t[i:]
}

// header takes in a '#' line. Lines that are no directive are comments.
func (d *Decoder) header(t string) error {
	h := &d.head
	name, rest := directive(t)
	if name == "#separator" {
		// A header begins: what an earlier one said is void.
		sep, ok := unescapeSeparator(strings.Trim(rest, " \t"))
		h.reset()
		if !ok {
			return fault(name, rest, flow.ErrBadHeader)
		}
		h.sep = sep
		return flow.ErrHeader
	}
	if name == "#types" || name == "#open" || name == "#close" {
		return flow.ErrHeader
	}
	value, ok := strings.CutPrefix(rest, h.sep)
	if !ok {
		value = strings.TrimLeft(rest, " \t")
	}
	var at *string
	switch name {
	case "#set_separator":
		at = &h.setSep
	case "#unset_field":
		at = &h.unset
	case "#empty_field":
		at = &h.empty
	case "#path":
		at = &h.path
	case "#fields":
		h.fields = strings.Clone(value)
		return d.plan()
	default:
		return flow.ErrHeader
	}
	if value == "" && (name == "#path" || name == "#set_separator") || len(value) > maxMarker {
		return fault(name, value, flow.ErrBadHeader)
	}
	*at = strings.Clone(value)
	if name == "#path" && h.planned {
		return d.plan()
	}
	return flow.ErrHeader
}

// unescapeSeparator reads "\x09", a sequence of such, or the characters as
// they are.
func unescapeSeparator(s string) (string, bool) {
	if len(s) == 0 {
		return "\t", true // the line was "#separator<TAB>" and lost its value to trimming
	}
	sep := string(unescape(nil, s))
	return sep, len(sep) <= maxMarker && !strings.ContainsAny(sep, "#\n")
}

// plan decides once for each column where its values go, so that lines need
// no look-up.
func (d *Decoder) plan() error {
	h := &d.head
	h.planned, h.plan, h.log, h.open = false, h.plan[:0], nil, false
	if n := strings.Count(h.fields, h.sep) + 1; n > maxColumns {
		return fault("#fields", fmt.Sprintf("%d columns", n), flow.ErrBadHeader)
	}
	names := strings.Split(h.fields, h.sep)
	if len(names) == 1 || strings.Contains(h.fields, "  ") {
		names = strings.FieldsFunc(h.fields, func(r rune) bool { return r == ' ' || r == '\t' || string(r) == h.sep })
	}
	if len(names) == 0 || len(names) > maxColumns {
		return fault("#fields", fmt.Sprintf("%d columns", len(names)), flow.ErrBadHeader)
	}
	switch l, open := find(h.path); {
	case l != nil:
		h.log, h.open = l, open || d.hintOpen && l == d.hint
	case h.path != "":
		h.log = ignored
	case d.hint != nil:
		h.log, h.open = d.hint, d.hintOpen
	default:
		var m marks
		for _, n := range names {
			if f := sniffSchema.lookup(n); f != nil {
				m |= f.mark
			}
		}
		h.log = guess(m)
	}
	h.planned = true
	if h.log == nil {
		return fault("#fields", h.fields, flow.ErrUnknownKind)
	}
	for _, n := range names {
		f := h.log.schema.lookup(n)
		if f != nil && (f.op == opSkip || f.op == opPath || f.op == opStream) {
			f = nil
		}
		h.plan = append(h.plan, f)
	}
	return flow.ErrHeader
}

// row decodes one line of columns.
func (d *Decoder) row(f *flow.Flow, s string) error {
	h := &d.head
	switch {
	case !h.planned:
		// Columns without a header could be anybody's; other text is no log.
		if strings.Contains(s, h.sep) {
			return fault("", s, flow.ErrNoHeader)
		}
		return fault("", s, flow.ErrNotRecord)
	case h.log == nil:
		return fault("", s, flow.ErrUnknownKind)
	case !h.log.used:
		return flow.ErrIgnored
	}
	if len(h.sep) == 1 {
		if err := d.quickRow(f, s); err != errSlow { //nolint:errorlint // decoders return it bare, and this is the hot path
			return err
		}
	}
	return d.carefulRow(f, s)
}

// absent reports whether a column has no value. Most values are neither as
// long as the word for empty nor a single character, and need no more.
func (h *header) absent(v string) bool {
	switch len(v) {
	case 0:
		return true
	case len(h.empty):
		if v == h.empty {
			return true
		}
	}
	return len(v) == len(h.unset) && v[0] == h.unset[0] && v == h.unset
}

// quickRow decodes a line in one pass. It gives up with errSlow when the
// number of columns or any value is wrong.
func (d *Decoder) quickRow(f *flow.Flow, s string) error {
	h := &d.head
	d.start(f, h.log)
	sep := h.sep[0]
	escaped := strings.IndexByte(s, '\\') >= 0
	seen := marks(0)
	i := 0
	for _, fl := range h.plan {
		if i > len(s) {
			return errSlow
		}
		j := i
		for j < len(s) && s[j] != sep {
			j++
		}
		v := s[i:j]
		i = j + 1
		if fl == nil || h.absent(v) {
			continue
		}
		seen |= fl.mark
		var err error
		switch {
		case fl.op.listed():
			err = d.rowList(f, fl, v)
		case escaped:
			err = d.set(f, fl, d.plain(f, v))
		default:
			err = d.set(f, fl, v)
		}
		if err != nil {
			return errSlow
		}
	}
	if i <= len(s) {
		return errSlow
	}
	d.seen = seen
	return d.finish(f, h.log, h.open)
}

// carefulRow decodes a line that may have its last columns separated by
// blanks, and finds what is wrong with one that cannot be decoded.
func (d *Decoder) carefulRow(f *flow.Flow, s string) error {
	h := &d.head
	if !d.split(s) {
		return fault("", s, fmt.Errorf("%w: %d, want %d", flow.ErrColumns, strings.Count(s, h.sep)+1, len(h.plan)))
	}
	d.start(f, h.log)
	for n, fl := range h.plan {
		v := d.parts[n]
		if fl == nil || h.absent(v) {
			continue
		}
		d.seen |= fl.mark
		var err error
		if fl.op.listed() {
			err = d.rowList(f, fl, v)
		} else {
			err = d.set(f, fl, d.plain(f, v))
		}
		if err != nil {
			return fault(fl.name, v, err)
		}
	}
	return d.finish(f, h.log, h.open)
}

// split cuts a line into as many columns as the header has. Labelled logs of
// IoT-23 have a blank run where the last tabs should be, and logs that went
// through a terminal have them everywhere: two blanks or more separate
// columns when that, and only that, gives the right number.
func (d *Decoder) split(s string) bool {
	h := &d.head
	want := len(h.plan)
	d.parts = d.parts[:0]
	rest := s
	for len(d.parts) < want {
		v, r, more := strings.Cut(rest, h.sep)
		d.parts = append(d.parts, v)
		if !more {
			break
		}
		rest = r
		if len(d.parts) == want {
			return false // columns are left over
		}
	}
	if len(d.parts) == want {
		return true
	}
	last := len(d.parts) - 1
	tail := d.parts[last]
	if d.parts = blanks(d.parts[:last], tail, want); len(d.parts) == want {
		return true
	}
	d.parts = blanks(d.parts[:0], strings.ReplaceAll(s, h.sep, "  "), want)
	return len(d.parts) == want
}

// blanks appends the parts of s between runs of two blanks or more; no more
// than one above want.
func blanks(parts []string, s string, want int) []string {
	for len(parts) <= want {
		v, r, more := strings.Cut(s, "  ")
		parts = append(parts, strings.TrimSpace(v))
		if !more {
			break
		}
		s = strings.TrimLeft(r, " ")
	}
	return parts
}

// rowList takes a set or vector apart.
func (d *Decoder) rowList(f *flow.Flow, fl *field, v string) error {
	h := &d.head
	d.begin(f, fl)
	for more := true; more; {
		var e string
		e, v, more = strings.Cut(v, h.setSep)
		if e == h.unset || e == h.empty {
			e = ""
		}
		if err := d.item(f, fl, d.plain(f, e)); err != nil {
			return err
		}
	}
	return nil
}

// plain returns v without Zeek's escapes, in memory of f when there were any.
func (d *Decoder) plain(f *flow.Flow, v string) string {
	if strings.IndexByte(v, '\\') < 0 {
		return v
	}
	d.buf = unescape(d.buf[:0], v)
	return f.Hold(d.buf)
}

// unescape appends s to b with \xNN and \\ replaced by what they stand for.
// Logs before Zeek 2.6 have single backslashes that stand for themselves.
func unescape(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\\' && i+1 < len(s) {
			switch {
			case s[i+1] == '\\':
				i++
			case s[i+1] == 'x' && i+3 < len(s):
				hi, ok1 := unhex(s[i+2])
				lo, ok2 := unhex(s[i+3])
				if ok1 && ok2 {
					c = hi<<4 | lo
					i += 3
				}
			}
		}
		b = append(b, c)
	}
	return b
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
