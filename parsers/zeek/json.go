package zeek

import (
	"strings"

	"github.com/valyala/fastjson"

	"github.com/slips-go/slips/parsers/flow"
)

// The bounds of a JSON record. Zeek's are flat; shippers nest a level or two.
// The number of values bounds the memory of the parser, which is a hundred
// times that of an element such as "0,".
const (
	maxDepth  = 32
	maxValues = 1 << 16
	keepJSON  = 1 << 14 // bytes of a line above which the parser's memory is not kept
)

// object decodes a line that begins with '{'. Flat objects as Zeek writes them
// are read in one pass that knows the log's fields; what is unusual about a
// line, or wrong, is for fastjson. Both give the same record for every line.
func (d *Decoder) object(f *flow.Flow, s string) error {
	if len(s) > 2*maxValues { // may have too many of them
		return d.careful(f, s)
	}
	l := d.last
	if l == nil {
		if l = d.hint; l == nil {
			l = logs["conn"]
		}
	}
	other, err := d.quick(f, s, l, false)
	if err == errOther { //nolint:errorlint // decoders return it bare, and this is the hot path
		_, err = d.quick(f, s, other, true)
	}
	if err == errSlow || err == errOther { //nolint:errorlint // decoders return it bare, and this is the hot path
		return d.careful(f, s)
	}
	return err
}

// choose decides which log a record comes from: by what it says itself, else
// by the name of the file, else by the fields it has. It returns nil when
// nothing tells.
func (d *Decoder) choose(path *log, seen marks) *log {
	switch {
	case path != nil:
		return path
	case d.hint != nil:
		return d.hint
	}
	return guess(seen)
}

// named returns the log that a record names in a field of op o; nil when the
// name says nothing. Zeek's own _path is never wrong: a log that is not known
// is one that no detector uses.
func named(o op, name string) (l *log, open bool) {
	l, open = find(name)
	if l == nil && o == opPath {
		l = ignored
	}
	return l, open
}

// quick decodes a flat object as a record of log l. It gives up with errSlow
// on anything it does not expect, errors included, and with errOther and the
// right log when the record belongs to another. sure says that l is right.
func (d *Decoder) quick(f *flow.Flow, s string, l *log, sure bool) (*log, error) {
	d.start(f, l)
	next := d.next[l.id]
	if next == nil {
		next = make([]uint8, len(l.schema.fields)+1)
		d.next[l.id] = next
	}
	fields := l.schema.fields
	var path *log
	open := d.hintOpen && l == d.hint
	seen := marks(0)
	prev := uint8(0)
	i := 1
	for {
		// The key. Zeek writes fields in a fixed order, so the one that came
		// behind the last one before comes mostly again.
		if i = skipBlanks(s, i); i >= len(s) || s[i] != '"' {
			return nil, errSlow
		}
		i++
		var fl *field
		if k := next[prev]; k != 0 && strings.HasPrefix(s[i:], fields[k-1].key) {
			fl, prev = &fields[k-1], k
			i += len(fl.key)
		} else {
			j := closing(s, i)
			if j < 0 {
				return nil, errSlow
			}
			if k := l.schema.index(s[i:j]); k != 0 {
				fl, next[prev], prev = &fields[k-1], k, k
			}
			if i = skipBlanks(s, j+1); i >= len(s) || s[i] != ':' {
				return nil, errSlow
			}
			i++
		}
		if i = skipBlanks(s, i); i >= len(s) {
			return nil, errSlow
		}

		var v string
		switch c := s[i]; {
		case c == '"':
			if j := closing(s, i+1); j >= 0 {
				v, i = s[i+1:j], j+1
			} else if v, i = d.unquote(f, s, i+1); i < 0 {
				return nil, errSlow
			}
		case c-'0' <= 9 || c == '-':
			j := numberEnd(s, i)
			if j < 0 {
				return nil, errSlow
			}
			v, i = s[i:j], j
		case c == '[':
			if i = d.quickList(f, fl, s, i+1); i < 0 {
				return nil, errSlow
			}
			if fl != nil {
				seen |= fl.mark
			}
		case strings.HasPrefix(s[i:], "true"):
			v, i = s[i:i+4], i+4
		case strings.HasPrefix(s[i:], "false"):
			v, i = s[i:i+5], i+5
		case strings.HasPrefix(s[i:], "null"):
			i += 4
		default:
			return nil, errSlow
		}

		if fl != nil && !unsaid(v) {
			seen |= fl.mark
			if fl.op == opPath || fl.op == opStream {
				if path == nil {
					var op bool
					if path, op = named(fl.op, v); path != nil && path != l && !sure {
						return path, errOther
					}
					open = open || op
				}
			} else if d.set(f, fl, v) != nil {
				return nil, errSlow
			}
		}

		if i = skipBlanks(s, i); i >= len(s) {
			return nil, errSlow
		}
		if s[i] == ',' {
			i++
			continue
		}
		if s[i] != '}' || skipBlanks(s, i+1) != len(s) {
			return nil, errSlow
		}
		break
	}
	switch right := d.choose(path, seen); {
	case right == nil:
		return nil, errSlow
	case right != l:
		return right, errOther
	}
	d.last = l
	if !l.used {
		return nil, flow.ErrIgnored
	}
	d.seen = seen
	return nil, d.finish(f, l, open)
}

// unsaid reports whether a value means that there is none: what shippers that
// began with columns leave of Zeek's unset and empty.
func unsaid(v string) bool { return v == "" || v == "-" || v == "(empty)" }

// quickList reads a list of strings and numbers that begins at i and returns
// the position behind it, or -1 when there is anything else in it.
func (d *Decoder) quickList(f *flow.Flow, fl *field, s string, i int) int {
	used := fl != nil && fl.op != opSkip && fl.op != opPath && fl.op != opStream
	if used {
		if !fl.op.listed() {
			return -1
		}
		d.begin(f, fl)
	}
	if i = skipBlanks(s, i); i < len(s) && s[i] == ']' {
		return i + 1
	}
	for i < len(s) {
		var v string
		switch c := s[i]; {
		case c == '"':
			if j := closing(s, i+1); j >= 0 {
				v, i = s[i+1:j], j+1
			} else if v, i = d.unquote(f, s, i+1); i < 0 {
				return -1
			}
		case c-'0' <= 9 || c == '-':
			j := numberEnd(s, i)
			if j < 0 {
				return -1
			}
			v, i = s[i:j], j
		default:
			return -1
		}
		if used {
			if unsaid(v) {
				v = ""
			}
			if d.item(f, fl, v) != nil {
				return -1
			}
		}
		if i = skipBlanks(s, i); i >= len(s) {
			return -1
		}
		if s[i] == ']' {
			return i + 1
		}
		if s[i] != ',' {
			return -1
		}
		i = skipBlanks(s, i+1)
	}
	return -1
}

// skipBlanks returns the position of the first character from i on that is
// not a blank.
func skipBlanks(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r') {
		i++
	}
	return i
}

// closing returns the position of the quote that ends the string at i, or -1
// when it has an escape or no end.
func closing(s string, i int) int {
	for ; i < len(s); i++ {
		if c := s[i]; c == '"' {
			return i
		} else if c == '\\' {
			return -1
		}
	}
	return -1
}

// unquote reads the string at i, which has escapes: the names of companies in
// certificates and the paths of shares mostly do. It returns the text, in
// memory of f, and the position behind the string; -1 when the string has no
// end or an escape by number.
func (d *Decoder) unquote(f *flow.Flow, s string, i int) (string, int) {
	b := d.buf[:0]
	for ; i < len(s); i++ {
		c := s[i]
		if c == '"' {
			d.buf = b
			return f.Hold(b), i + 1
		}
		if c == '\\' {
			if i++; i == len(s) {
				break
			}
			switch c = s[i]; c {
			case '"', '\\', '/':
			case 'n':
				c = '\n'
			case 't':
				c = '\t'
			case 'r':
				c = '\r'
			case 'b':
				c = '\b'
			case 'f':
				c = '\f'
			default:
				return "", -1
			}
		}
		b = append(b, c)
	}
	d.buf = b
	return "", -1
}

// numberEnd returns the position behind the number at i, or -1 when it is odd.
// Whether it makes sense is for the field to say.
func numberEnd(s string, i int) int {
	if s[i] == '-' {
		i++
		if i >= len(s) || s[i]-'0' > 9 {
			return -1
		}
	}
	for i < len(s) {
		switch c := s[i]; {
		case c-'0' <= 9, c == '.', c == 'e', c == 'E', c == '+', c == '-':
			i++
		default:
			return i
		}
	}
	return -1
}

// careful decodes any object, with fastjson.
func (d *Decoder) careful(f *flow.Flow, s string) error {
	if err := measure(s); err != nil {
		return fault("", s, err)
	}
	p := &d.json
	if len(s) > keepJSON {
		p = new(fastjson.Parser)
	}
	v, err := p.Parse(s)
	if err != nil {
		return fault("", s, flow.ErrJSON)
	}
	var w walk
	d.key = d.key[:0]
	d.survey(&w, v.GetObject())
	l := d.choose(w.path, w.seen)
	if l == nil {
		return fault("", s, flow.ErrUnknownKind)
	}
	if !l.used {
		return flow.ErrIgnored
	}
	d.start(f, l)
	d.key = d.key[:0]
	if err := d.fill(f, l, v.GetObject()); err != nil {
		return err
	}
	return d.finish(f, l, w.open || d.hintOpen && l == d.hint)
}

// measure bounds what fastjson is given: nesting, and the number of values.
func measure(s string) error {
	depth, values := 0, 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			for i++; i < len(s) && s[i] != '"'; i++ {
				if s[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			values++
			if depth++; depth > maxDepth {
				return flow.ErrTooDeep
			}
		case '}', ']':
			depth--
		case ',':
			values++
		}
	}
	if values > maxValues {
		return flow.ErrTooLong
	}
	return nil
}

// walk is what survey finds out.
type walk struct {
	path *log
	open bool
	seen marks
}

// nested appends the name of a field to that of the object it is in and
// returns the length to cut d.key to afterwards.
func (d *Decoder) nested(key []byte) int {
	n := len(d.key)
	if n > 0 {
		d.key = append(d.key, '.')
	}
	d.key = append(d.key, key...)
	return n
}

// survey notes which fields an object has, those of objects in it under names
// joined by dots, as Zeek itself writes them.
func (d *Decoder) survey(w *walk, o *fastjson.Object) {
	o.Visit(func(key []byte, v *fastjson.Value) {
		n := d.nested(key)
		defer func() { d.key = d.key[:n] }()
		if v.Type() == fastjson.TypeObject {
			d.survey(w, v.GetObject())
			return
		}
		fl := ignored.schema.lookup(flow.Alias(d.key))
		if fl == nil {
			return
		}
		if v.Type() == fastjson.TypeArray {
			w.seen |= fl.mark
			return
		}
		s := d.scalar(v)
		if unsaid(s) {
			return
		}
		w.seen |= fl.mark
		if w.path == nil && (fl.op == opPath || fl.op == opStream) {
			var open bool
			w.path, open = named(fl.op, s)
			w.open = w.open || open
		}
	})
}

// fill puts the fields of an object into f.
func (d *Decoder) fill(f *flow.Flow, l *log, o *fastjson.Object) (err error) {
	o.Visit(func(key []byte, v *fastjson.Value) {
		if err != nil {
			return
		}
		n := d.nested(key)
		defer func() { d.key = d.key[:n] }()
		if v.Type() == fastjson.TypeObject {
			err = d.fill(f, l, v.GetObject())
			return
		}
		fl := l.schema.lookup(flow.Alias(d.key))
		if fl == nil || fl.op == opSkip || fl.op == opPath || fl.op == opStream {
			if fl != nil && (v.Type() == fastjson.TypeArray || !unsaid(d.scalar(v))) {
				d.seen |= fl.mark
			}
			return
		}
		if v.Type() == fastjson.TypeArray {
			err = d.fillList(f, fl, v.GetArray())
			d.seen |= fl.mark
			return
		}
		s := d.scalar(v)
		if unsaid(s) {
			return
		}
		d.seen |= fl.mark
		// The parser's memory is gone with the next line, so f gets a copy.
		s = f.Hold([]byte(s))
		if e := d.set(f, fl, s); e != nil {
			err = fault(fl.name, s, e)
		}
	})
	return err
}

func (d *Decoder) fillList(f *flow.Flow, fl *field, vs []*fastjson.Value) error {
	if !fl.op.listed() {
		return fault(fl.name, "[", fl.op.reason())
	}
	d.begin(f, fl)
	for _, v := range vs {
		if t := v.Type(); t == fastjson.TypeObject || t == fastjson.TypeArray {
			return fault(fl.name, "[[", fl.op.reason())
		}
		s := d.scalar(v)
		if unsaid(s) {
			s = ""
		}
		s = f.Hold([]byte(s))
		if err := d.item(f, fl, s); err != nil {
			return fault(fl.name, s, err)
		}
	}
	return nil
}

// scalar returns the text of a value that holds no others, valid until the
// next call.
func (d *Decoder) scalar(v *fastjson.Value) string {
	switch v.Type() {
	case fastjson.TypeString:
		return flow.Alias(v.GetStringBytes())
	case fastjson.TypeNull:
		return ""
	}
	d.buf = v.MarshalTo(d.buf[:0])
	return flow.Alias(d.buf)
}
