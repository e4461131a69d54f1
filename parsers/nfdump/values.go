package nfdump

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/slips-go/slips/parsers/flow"
)

// trim takes blanks, TABs and line ends off both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t' || b[0] == '\r' || b[0] == '\n') {
		b = b[1:]
	}
	for n := len(b); n > 0 && (b[n-1] == ' ' || b[n-1] == '\t' || b[n-1] == '\r' || b[n-1] == '\n'); n = len(b) {
		b = b[:n-1]
	}
	return b
}

// address reads an IP address.
func address(cell []byte) (netip.Addr, error) {
	switch {
	case len(cell) == 0:
		return netip.Addr{}, flow.ErrMissing
	case bytes.IndexByte(cell, '%') >= 0: // a zone is not part of one here
		return netip.Addr{}, flow.ErrAddress
	case bytes.Contains(cell, []byte("..")): // 2001:db..00:1234
		return netip.Addr{}, errShortened
	}
	a, err := netip.ParseAddr(flow.Alias(cell))
	if err != nil {
		return netip.Addr{}, flow.ErrAddress
	}
	return a, nil
}

// mac returns a MAC address; nfdump prints zeros for none.
func mac(cell []byte) string {
	if string(cell) == "00:00:00:00:00:00" {
		return ""
	}
	return flow.Alias(cell)
}

// parsePort reads a decimal number up to 65535.
func parsePort(b []byte) (uint16, bool) {
	n, ok := parseInt(b)
	return uint16(n), ok && n <= 0xffff
}

// parseInt reads a number of decimal digits alone.
func parseInt(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 18 { // 18 digits cannot overflow
		return 0, false
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

func isUnit(c byte) bool { return c == 'K' || c == 'M' || c == 'G' || c == 'T' }

// parseCount reads a count: digits, or "1.2 M" with a decimal unit.
func parseCount(b []byte) (int64, bool) {
	n := len(b)
	if n == 0 || !isUnit(b[n-1]) {
		return parseInt(b)
	}
	scale := int64(1e3)
	switch b[n-1] {
	case 'M':
		scale = 1e6
	case 'G':
		scale = 1e9
	case 'T':
		scale = 1e12
	}
	whole, frac, dotted := bytes.Cut(trim(b[:n-1]), []byte{'.'})
	v, ok := parseInt(whole)
	if !ok || v > 1e6 { // 10^18, and a million is written with the next unit
		return 0, false
	}
	v *= scale
	if dotted {
		if len(frac) == 0 {
			return 0, false
		}
		for _, c := range frac {
			if c < '0' || c > '9' {
				return 0, false
			}
			scale /= 10
			v += int64(c-'0') * scale
		}
	}
	return v, true
}

const (
	second      = int64(1e9)
	millisecond = int64(1e6)
)

// parseSeconds reads seconds with an optional fraction as ns, up to
// flow.MaxTime; digits behind the ninth are cut.
func parseSeconds(b []byte) (int64, bool) {
	whole, frac, dotted := bytes.Cut(b, []byte{'.'})
	s, ok := parseInt(whole)
	if !ok || s > flow.MaxTime/second {
		return 0, false
	}
	t := s * second
	if dotted {
		if len(frac) == 0 {
			return 0, false
		}
		scale := second
		for _, c := range frac {
			if c < '0' || c > '9' {
				return 0, false
			}
			scale /= 10
			t += int64(c-'0') * scale
		}
	}
	return t, t <= flow.MaxTime
}

// parseClock reads "15:04:05.000" as ns.
func parseClock(b []byte) (int64, bool) {
	if len(b) < 8 || b[2] != ':' || b[5] != ':' {
		return 0, false
	}
	h, ok1 := parseInt(b[:2])
	m, ok2 := parseInt(b[3:5])
	s, ok3 := parseSeconds(b[6:])
	if !ok1 || !ok2 || !ok3 || b[6] > '5' || h > 23 || m > 59 || s >= 60*second || len(b) > 8 && b[8] != '.' {
		return 0, false
	}
	return (h*60+m)*60*second + s, true
}

// parseDuration reads a duration as ns: "12.345", "00:00:12.345" or
// "1d 02:03:04.567".
func parseDuration(b []byte) (int64, bool) {
	if bytes.IndexByte(b, ':') < 0 {
		return parseSeconds(b)
	}
	var days int64
	if n := bytes.IndexByte(b, 'd'); n >= 0 {
		var ok bool
		if days, ok = parseInt(b[:n]); !ok || days > flow.MaxTime/(24*3600*second)-1 {
			return 0, false
		}
		b = trim(b[n+1:])
	}
	ns, ok := parseClock(b)
	return days*24*3600*second + ns, ok
}

// parseTime reads a time as unix ns: a date and a time of day with blanks,
// TABs or a "T" between, in UTC; seconds since the epoch; or ms, which are
// told by being too many for seconds.
func parseTime(b []byte) (int64, bool) {
	if len(b) < 5 || b[4] != '-' {
		if ms, ok := parseInt(b); ok && ms > flow.MaxTime/second {
			return ms * millisecond, ms <= flow.MaxTime/millisecond
		}
		return parseSeconds(b)
	}
	if len(b) < len("dddd-dd-dd dd:dd:dd") || b[7] != '-' {
		return 0, false
	}
	switch b[10] {
	case ' ', '\t', 'T':
	default:
		return 0, false
	}
	year, ok1 := parseInt(b[:4])
	month, ok2 := parseInt(b[5:7])
	day, ok3 := parseInt(b[8:10])
	clock, ok4 := parseClock(trim(b[11:]))
	if !ok1 || !ok2 || !ok3 || !ok4 || year < 1970 || year > 2100 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return 0, false
	}
	t := daysSince1970(year, month, day)*24*3600*second + clock
	return t, t >= flow.MinTime && t <= flow.MaxTime
}

func daysIn(year, month int64) int64 {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// daysSince1970 counts days of the Gregorian calendar. The year is taken to
// begin in March, so that the day that comes and goes is its last.
func daysSince1970(year, month, day int64) int64 {
	month -= 3
	if month < 0 {
		month, year = month+12, year-1
	}
	return year*365 + year/4 - year/100 + year/400 + (month*153+2)/5 + day - 1 - 719468
}

// uid derives an identifier from what tells one flow from another, so that
// every run, and every decoder, gives a record the same one.
func uid(f *flow.Flow) string {
	h := fnv(14695981039346656037)
	h.add(uint64(f.Time))
	for _, a := range [...][16]byte{f.Src.As16(), f.Dst.As16()} {
		h.add(binary.BigEndian.Uint64(a[:8]))
		h.add(binary.BigEndian.Uint64(a[8:]))
	}
	h.add(uint64(f.SrcPort)<<32 | uint64(f.DstPort)<<16 | uint64(f.Proto))
	const digits = "0123456789abcdef"
	b := [17]byte{'N'}
	for i := range 16 {
		b[16-i] = digits[h>>(4*i)&15]
	}
	return f.Hold(b[:])
}

// fnv is the 64-bit FNV-1a hash.
type fnv uint64

func (h *fnv) add(v uint64) {
	for range 8 {
		*h = (*h ^ fnv(v&0xff)) * 1099511628211
		v >>= 8
	}
}
