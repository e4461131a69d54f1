package zeek

import (
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/slips-go/slips/parsers/flow"
)

// parseAddr reads an address. IPv4 is done by hand because two of them stand
// in nearly every record; an IPv4 address in IPv6 clothes becomes IPv4, so
// that a host has one identity.
func parseAddr(s string) (netip.Addr, bool) {
	var a [4]byte
	var v, digits, dots int
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case '0' <= c && c <= '9':
			if digits > 0 && v == 0 {
				return netip.Addr{}, false // a leading zero may mean octal: nobody can tell
			}
			v = v*10 + int(c-'0')
			digits++
			if v > 255 {
				return parseAddr6(s)
			}
		case c == '.' && digits > 0 && dots < 3:
			a[dots] = byte(v)
			dots++
			v, digits = 0, 0
		default:
			return parseAddr6(s)
		}
	}
	if dots != 3 || digits == 0 {
		return parseAddr6(s)
	}
	a[3] = byte(v)
	return netip.AddrFrom4(a), true
}

// parseAddr6 reads what has a colon. The zone is dropped: it names an
// interface of the sensor, not the host.
func parseAddr6(s string) (netip.Addr, bool) {
	if len(s) > 64 || strings.IndexByte(s, ':') < 0 {
		return netip.Addr{}, false
	}
	s, _, _ = strings.Cut(s, "%")
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err == nil
}

// parsePort reads a port, or the type or code of ICMP.
func parsePort(s string) (uint16, bool) {
	if len(s) == 0 || len(s) > 5 {
		return parseUint16(s)
	}
	v := 0
	for i := 0; i < len(s); i++ {
		c := s[i] - '0'
		if c > 9 {
			return parseUint16(s)
		}
		v = v*10 + int(c)
	}
	return uint16(v), v <= math.MaxUint16
}

// parseUint16 reads a number of up to 16 bits in any spelling.
func parseUint16(s string) (uint16, bool) {
	v, ok := parseCount(s)
	return uint16(v), ok && v <= math.MaxUint16
}

// parseCount reads a whole number that is not negative. Some shippers write
// counts as 12.0 or 1.2e+01, so a fraction of zero is accepted.
func parseCount(s string) (int64, bool) {
	if len(s) == 0 || len(s) > 18 {
		return parseCountSlow(s)
	}
	var v int64
	for i := 0; i < len(s); i++ {
		c := s[i] - '0'
		if c > 9 {
			return parseCountSlow(s)
		}
		v = v*10 + int64(c)
	}
	return v, true
}

func parseCountSlow(s string) (int64, bool) {
	v, rest, ok := decimal(s, 0)
	return v, ok && !rest && v >= 0
}

// parseShare reads a number from 0 to 1 in decimal.
func parseShare(s string) (float64, bool) {
	v, err := strconv.ParseFloat(s, 64)
	return v, err == nil && v >= 0 && v <= 1
}

// parseInterval reads seconds as nanoseconds; it must not be negative.
func parseInterval(s string) (int64, bool) {
	v, ok := seconds(s)
	return v, ok && v >= 0
}

// parseTime reads a time as unix nanoseconds: seconds since the epoch or ISO
// 8601 in the spellings of the reference, 4.9.
func parseTime(s string) (int64, bool) {
	v, ok := seconds(s)
	if !ok {
		v, ok = parseISO(s)
	}
	return v, ok && v >= flow.MinTime && v <= flow.MaxTime
}

// parseWhen reads a time that a certificate or a ticket carries. Such times
// may lie anywhere (the year 9999 is common), so they saturate.
func parseWhen(s string) (int64, bool) {
	if v, ok := seconds(s); ok {
		return v, true
	}
	if v, ok := parseISO(s); ok {
		return v, true
	}
	v, _, ok := decimal(s, 0)
	switch {
	case !ok:
		return 0, false
	case v < 0:
		return math.MinInt64, true
	}
	return math.MaxInt64, true
}

var pow10 = [...]int64{1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9}

// seconds reads decimal seconds as nanoseconds. Digits behind the ninth are
// cut, never rounded through a float: the same text gives the same time
// everywhere.
func seconds(s string) (int64, bool) {
	var v int64
	i := 0
	for i < len(s) {
		c := s[i] - '0'
		if c > 9 {
			break
		}
		v = v*10 + int64(c)
		i++
	}
	if i == 0 || i > 10 {
		return secondsSlow(s)
	}
	if i == len(s) {
		return v * 1e9, v <= math.MaxInt64/1_000_000_000
	}
	if s[i] != '.' {
		return secondsSlow(s)
	}
	i++
	n := 0
	for i < len(s) {
		c := s[i] - '0'
		if c > 9 {
			return secondsSlow(s)
		}
		if n < 9 {
			v = v*10 + int64(c)
			n++
		}
		i++
	}
	if n == 0 || v > math.MaxInt64/pow10[9-n] {
		return secondsSlow(s)
	}
	return v * pow10[9-n], true
}

func secondsSlow(s string) (int64, bool) {
	v, _, ok := decimal(s, 9)
	return v, ok
}

// decimal reads a decimal number with an optional exponent and returns it
// times 10^scale. Digits that do not fit behind the point are cut, and rest
// tells whether one of them was not zero. It fails on anything else and on
// overflow.
func decimal(s string, scale int) (v int64, rest, ok bool) {
	neg := false
	if s != "" && (s[0] == '-' || s[0] == '+') {
		neg = s[0] == '-'
		s = s[1:]
	}
	mantissa, exp := s, 0
	if e := strings.IndexAny(s, "eE"); e >= 0 {
		mantissa = s[:e]
		if exp, ok = parseExp(s[e+1:]); !ok {
			return 0, false, false
		}
	}
	whole, frac, dotted := strings.Cut(mantissa, ".")
	if whole == "" && frac == "" || dotted && frac == "" {
		return 0, false, false
	}
	keep := len(whole) + exp + scale // so many digits count
	n := 0
	for _, part := range [2]string{whole, frac} {
		for i := 0; i < len(part); i++ {
			c := part[i] - '0'
			if c > 9 {
				return 0, false, false
			}
			if n >= keep {
				rest = rest || c != 0
			} else if v, ok = times10(v, int64(c)); !ok {
				return 0, false, false
			}
			n++
		}
	}
	for ; n < keep && v != 0; n++ {
		if v, ok = times10(v, 0); !ok {
			return 0, false, false
		}
	}
	if neg {
		v = -v
	}
	return v, rest, true
}

func times10(v, d int64) (int64, bool) {
	if v > (math.MaxInt64-d)/10 {
		return 0, false
	}
	return v*10 + d, true
}

func parseExp(s string) (int, bool) {
	neg := false
	if s != "" && (s[0] == '-' || s[0] == '+') {
		neg = s[0] == '-'
		s = s[1:]
	}
	if s == "" || len(s) > 4 {
		return 0, false
	}
	v := 0
	for i := 0; i < len(s); i++ {
		c := s[i] - '0'
		if c > 9 {
			return 0, false
		}
		v = v*10 + int(c)
	}
	if neg {
		v = -v
	}
	return v, true
}

// parseISO reads 2021-10-21T11:08:00.5+02:00 and its relatives: '/' between
// the parts of the date, a blank or '-' before the time, no fraction, no zone
// (which means UTC). It returns unix nanoseconds, the ends of int64 for what
// lies beyond.
func parseISO(s string) (int64, bool) {
	if len(s) < 19 || (s[4] != '-' && s[4] != '/') || s[7] != s[4] || s[13] != ':' || s[16] != ':' {
		return 0, false
	}
	if s[10] != 'T' && s[10] != 't' && s[10] != ' ' && !(s[10] == '-' && s[4] == '/') {
		return 0, false
	}
	year, ok0 := twoDigits(s[0:2])
	y2, ok1 := twoDigits(s[2:4])
	month, ok2 := twoDigits(s[5:7])
	day, ok3 := twoDigits(s[8:10])
	hour, ok4 := twoDigits(s[11:13])
	minute, ok5 := twoDigits(s[14:16])
	second, ok6 := twoDigits(s[17:19])
	if !(ok0 && ok1 && ok2 && ok3 && ok4 && ok5 && ok6) {
		return 0, false
	}
	year = year*100 + y2
	// A leap second reads 60; it counts as the next minute's first.
	if month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || hour > 23 || minute > 59 || second > 60 {
		return 0, false
	}
	frac := int64(0)
	s = s[19:]
	if s != "" && (s[0] == '.' || s[0] == ',') {
		n := 1
		for n < len(s) && s[n]-'0' <= 9 {
			if n < 10 {
				frac += int64(s[n]-'0') * pow10[9-n]
			}
			n++
		}
		if n == 1 {
			return 0, false
		}
		s = s[n:]
	}
	off, ok := parseZone(s)
	t := days(year, month, day)*86400 + int64(hour*3600+minute*60+second) - off
	switch limit := int64(math.MaxInt64/1_000_000_000 - 1); {
	case t > limit:
		return math.MaxInt64, ok
	case t < -limit:
		return math.MinInt64, ok
	}
	return t*1e9 + frac, ok
}

// parseZone reads "", "Z", "+02", "+0200" or "+02:00" as seconds.
func parseZone(s string) (int64, bool) {
	if s == "" || s == "Z" || s == "z" {
		return 0, true
	}
	sign := int64(1)
	switch s[0] {
	case '-':
		sign = -1
	case '+':
	default:
		return 0, false
	}
	hh, mm := s[1:], "00"
	switch {
	case len(hh) == 5 && hh[2] == ':':
		hh, mm = hh[:2], hh[3:]
	case len(hh) == 4:
		hh, mm = hh[:2], hh[2:]
	}
	h, ok1 := twoDigits(hh)
	m, ok2 := twoDigits(mm)
	return sign * int64(h*3600+m*60), ok1 && ok2 && h < 24 && m < 60
}

func twoDigits(s string) (int, bool) {
	if len(s) != 2 || s[0]-'0' > 9 || s[1]-'0' > 9 {
		return 0, false
	}
	return int(s[0]-'0')*10 + int(s[1]-'0'), true
}

func daysIn(year, month int) int {
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

// days counts the days from 1970-01-01 to a date of the Gregorian calendar.
// Years begin in March here, which puts the leap day at their end.
func days(year, month, day int) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	return int64(365*year + year/4 - year/100 + year/400 + (153*(month-3)+2)/5 + day - 719469)
}

// parseBool reads Zeek's T and F and JSON's true and false.
func parseBool(s string) (flow.Tri, bool) {
	switch s {
	case "T", "true", "1", "True":
		return flow.True, true
	case "F", "false", "0", "False":
		return flow.False, true
	}
	return flow.Unset, false
}

// interpret reduces Zeek's conn_state to the reference's two words (1.4).
//
// RSTR, "established, the responder aborted", is in neither of the
// reference's lists, so the Python falls through to a rule for Argus and ends
// with Not Established. That contradicts Zeek's own definition, by which the
// handshake was completed, and turns every service that closes with a reset
// into a scan target. Here it is Established, like RSTO, its mirror image.
// OTH (traffic joined in the middle) stays Established as in the reference.
//
// UDP and ICMP carry the same words: S0 means that nothing came back, SF that
// both sides spoke. A state that Zeek does not know, or none, is Not
// Established, which is where the reference's last rule ends as well.
func interpret(s string) flow.State {
	switch s {
	case "SF", "S1", "S2", "S3", "RSTO", "RSTR", "RSTP", "OTH":
		return flow.Established
	}
	return flow.NotEstablished
}
