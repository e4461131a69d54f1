package export

import (
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// timeLayout is the one format of times in the JSON and flow outputs: RFC
// 3339 in UTC with nine decimals, so no precision is lost, all have the same
// width, and they sort as text.
const timeLayout = "2006-01-02T15:04:05.000000000Z07:00"

// appendTime appends t, unix ns, in timeLayout without quotes.
func appendTime(b []byte, t int64) []byte { return time.Unix(0, t).UTC().AppendFormat(b, timeLayout) }

// appendJSONTime appends t, unix ns, as a JSON string.
func appendJSONTime(b []byte, t int64) []byte {
	b = append(b, '"')
	return append(appendTime(b, t), '"')
}

// appendFloat appends v as a JSON number, rounded to six decimals so that
// sums print as people expect. JSON has no NaN and no infinity; they become 0.
func appendFloat(b []byte, v float64) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(b, '0')
	}
	if math.Abs(v) < 1e15 { // above that there are no decimals to round
		v = math.Round(v*1e6) / 1e6
	}
	if v == 0 {
		return append(b, '0') // not "-0"
	}
	f := byte('f')
	if math.Abs(v) >= 1e21 {
		f = 'e'
	}
	return strconv.AppendFloat(b, v, f, -1, 64)
}

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string. Control characters are escaped,
// those of Latin-1 and DEL included, so a line is safe to print on a
// terminal; so are the two line separators that JavaScript trips over.
// Invalid UTF-8 becomes U+FFFD.
func appendString[S string | []byte](b []byte, s S) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' && c != 0x7f {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, n := decodeRune(s, i)
		switch {
		case r == utf8.RuneError && n == 1:
			b = append(append(b, s[start:i]...), `\ufffd`...)
		case r < 0xa0, r == 0x2028, r == 0x2029:
			b = append(append(b, s[start:i]...), '\\', 'u', hexDigits[r>>12], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
		default:
			i += n
			continue
		}
		i += n
		start = i
	}
	return append(append(b, s[start:]...), '"')
}

// decodeRune decodes the character of s that starts at i.
func decodeRune[S string | []byte](s S, i int) (rune, int) {
	// A character has at most four bytes; converting no more than these
	// keeps the copy off the heap.
	return utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
}

// appendStrings appends a JSON array of strings; [] for none.
func appendStrings[S ~string](b []byte, list []S) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, string(s))
	}
	return append(b, ']')
}

// appendText appends s as text for one line that people read: what cannot be
// printed is shown as an escape, so that traffic can neither break the line
// nor command the terminal.
func appendText(b []byte, s string) []byte {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b = append(b, '\\', 'x', hexDigits[s[i]>>4], hexDigits[s[i]&15])
		case strconv.IsPrint(r):
			b = append(b, s[i:i+n]...)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b = append(b, q[1:len(q)-1]...)
		}
		i += n
	}
	return b
}
