package export

import (
	"net/netip"
	"strconv"
	"unicode/utf8"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// appendHeader appends the first line of the TSV file: the names of the columns.
func appendHeader(b []byte) []byte {
	for i, c := range columns {
		if i > 0 {
			b = append(b, '\t')
		}
		b = append(b, c...)
	}
	return append(b, '\n')
}

// fields appends the values of a line one after the other, in TSV or JSON.
// In TSV an absent value is "-", as in Zeek's logs, and characters that would
// end a field are escaped; in JSON it is null.
type fields struct {
	b    []byte
	json bool
	n    int // of the next column
}

func (w *fields) next() {
	switch {
	case w.json && w.n == 0:
		w.b = append(w.b, `{"`...)
	case w.json:
		w.b = append(w.b, `,"`...)
	case w.n > 0:
		w.b = append(w.b, '\t')
	}
	if w.json {
		w.b = append(append(w.b, columns[w.n]...), `":`...)
	}
	w.n++
}

func (w *fields) none() {
	w.next()
	if w.json {
		w.b = append(w.b, "null"...)
	} else {
		w.b = append(w.b, '-')
	}
}

func (w *fields) text(s string) {
	switch {
	case s == "":
		w.none()
	case w.json:
		w.next()
		w.b = appendString(w.b, s)
	default:
		w.next()
		w.b = appendField(w.b, s)
	}
}

func (w *fields) addr(a netip.Addr) {
	switch {
	case !a.IsValid() || a.Zone() != "":
		w.text(zoned(a))
	case w.json:
		w.next()
		w.b = append(a.AppendTo(append(w.b, '"')), '"')
	default:
		w.next()
		w.b = a.AppendTo(w.b)
	}
}

// zoned returns an address whose zone may be any text; "" for none.
func zoned(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func (w *fields) int(v int64) {
	w.next()
	w.b = strconv.AppendInt(w.b, v, 10)
}

func (w *fields) time(t int64) {
	w.next()
	if w.json {
		w.b = appendJSONTime(w.b, t)
	} else {
		w.b = appendTime(w.b, t)
	}
}

// seconds appends a duration of ns as seconds with nine decimals.
func (w *fields) seconds(ns int64) {
	w.next()
	u := uint64(ns)
	if ns < 0 {
		w.b = append(w.b, '-')
		u = -u
	}
	w.b = append(strconv.AppendUint(w.b, u/1e9, 10), '.')
	frac := u % 1e9
	for d := uint64(1e8); d > 0; d /= 10 {
		w.b = append(w.b, '0'+byte(frac/d%10))
	}
}

// appendField appends s as the value of a TSV field.
func appendField(b []byte, s string) []byte {
	if s == "-" {
		return append(b, `\x2d`...) // not the mark of an absent value
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			b = append(b, '\\', '\\')
		case c < 0x20 || c == 0x7f:
			b = append(b, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(b, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
				continue
			}
			b = append(b, s[i:i+n]...)
			i += n - 1
		}
	}
	return b
}

// appendRecord appends the columns of f up to the label, without the end of
// the line.
func (w *FlowWriter) appendRecord(b []byte, f *flow.Flow, win profile.Window) []byte {
	o := fields{b: b, json: w.format == FlowsJSONL}
	o.time(f.Time)
	o.text(f.UID)
	o.text(f.Kind.String())
	o.addr(f.Src)
	o.port(f, f.SrcPort)
	o.addr(f.Dst)
	o.port(f, f.DstPort)
	o.text(f.Proto.String())
	o.text(f.State.String())
	o.text(f.Service)
	o.seconds(f.Duration)
	o.int(f.OrigBytes)
	o.int(f.RespBytes)
	o.int(f.OrigPkts)
	o.int(f.RespPkts)
	o.addr(f.Src) // the profile a record belongs to in the direction "out"
	o.int(win.N)
	o.text(f.Label)
	o.text(f.DetailedLabel)
	return o.b
}

func (w *fields) port(f *flow.Flow, p uint16) {
	if f.HasPorts || p != 0 {
		w.int(int64(p))
	} else {
		w.none()
	}
}

// appendLabel completes the line of a record.
func (w *FlowWriter) appendLabel(b []byte, malicious bool, by []*mention) []byte {
	o := fields{b: b, json: w.format == FlowsJSONL, n: len(columns) - 2}
	if malicious {
		o.text("malicious")
	} else {
		o.text("benign")
	}
	if len(by) == 0 && !o.json {
		o.none()
		return append(o.b, '\n')
	}
	o.next()
	if o.json {
		o.b = append(o.b, '[')
	}
	for i, m := range by {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		if o.json {
			o.b = appendString(o.b, m.ID)
		} else {
			o.b = appendField(o.b, m.ID)
		}
	}
	if o.json {
		return append(o.b, "]}\n"...)
	}
	return append(o.b, '\n')
}
