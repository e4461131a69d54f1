package argus

import (
	"encoding/binary"

	"github.com/slips-go/slips/parsers/flow"
)

// trim takes blanks off both ends, and the rest of a line end.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\r' || b[0] == '\n') {
		b = b[1:]
	}
	for n := len(b); n > 0 && (b[n-1] == ' ' || b[n-1] == '\r' || b[n-1] == '\n'); n = len(b) {
		b = b[:n-1]
	}
	return b
}

// lower returns b in lower case, copied into f only if it is not already.
func lower(f *flow.Flow, b []byte) string {
	var buf [32]byte
	for i, c := range b {
		if c < 'A' || c > 'Z' {
			continue
		}
		out := append(buf[:0], b...)
		for ; i < len(out); i++ {
			if out[i] >= 'A' && out[i] <= 'Z' {
				out[i] += 'a' - 'A'
			}
		}
		return f.Hold(out)
	}
	return flow.Alias(b)
}

// parseCount reads a count: decimal digits alone.
func parseCount(b []byte) (int64, bool) {
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

// parsePort reads a port: decimal, hexadecimal behind "0x", or one of the
// names that ra prints when it is not told -n.
func parsePort(b []byte) (uint16, bool) {
	if len(b) > 2 && b[0] == '0' && (b[1] == 'x' || b[1] == 'X') {
		var n uint32
		for _, c := range b[2:] {
			v, ok := hexDigit(c)
			if n = n<<4 | uint32(v); !ok || n > 0xffff {
				return 0, false
			}
		}
		return uint16(n), true
	}
	if len(b) > 0 && b[0] >= '0' && b[0] <= '9' {
		n, ok := parseCount(b)
		return uint16(n), ok && n <= 0xffff
	}
	return service(flow.Alias(b))
}

// service gives the port of the names met most. ra takes them from the file
// /etc/services of its machine; one that is not here costs the record, for a
// wrong port is worse.
func service(name string) (uint16, bool) {
	switch name {
	case "ftp-data":
		return 20, true
	case "ftp":
		return 21, true
	case "ssh":
		return 22, true
	case "telnet":
		return 23, true
	case "smtp":
		return 25, true
	case "domain":
		return 53, true
	case "bootps":
		return 67, true
	case "bootpc":
		return 68, true
	case "tftp":
		return 69, true
	case "finger":
		return 79, true
	case "http", "www":
		return 80, true
	case "kerberos":
		return 88, true
	case "pop3", "pop-3":
		return 110, true
	case "sunrpc":
		return 111, true
	case "auth", "ident":
		return 113, true
	case "ntp":
		return 123, true
	case "epmap", "loc-srv":
		return 135, true
	case "netbios-ns":
		return 137, true
	case "netbios-dgm":
		return 138, true
	case "netbios-ssn":
		return 139, true
	case "imap2", "imap":
		return 143, true
	case "snmp":
		return 161, true
	case "snmp-trap", "snmptrap":
		return 162, true
	case "ldap":
		return 389, true
	case "https":
		return 443, true
	case "microsoft-ds":
		return 445, true
	case "printer":
		return 515, true
	case "submission":
		return 587, true
	case "ldaps":
		return 636, true
	case "imaps":
		return 993, true
	case "pop3s":
		return 995, true
	case "ms-sql-s":
		return 1433, true
	case "mysql":
		return 3306, true
	case "ms-wbt-server":
		return 3389, true
	case "sip":
		return 5060, true
	case "mdns":
		return 5353, true
	case "postgresql":
		return 5432, true
	case "x11":
		return 6000, true
	case "http-alt":
		return 8080, true
	}
	return 0, false
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

const second = int64(1e9)

// parseSeconds reads seconds with an optional fraction, exact to the ns;
// digits behind the ninth are cut. It gives ns up to flow.MaxTime.
func parseSeconds(b []byte) (int64, bool) {
	n := 0
	for n < len(b) && b[n] != '.' {
		n++
	}
	s, ok := parseCount(b[:n])
	if !ok || s > flow.MaxTime/second {
		return 0, false
	}
	frac := int64(0)
	if n < len(b) {
		if frac, ok = parseFraction(b[n+1:]); !ok {
			return 0, false
		}
	}
	t := s*second + frac
	return t, t <= flow.MaxTime
}

// parseFraction reads the digits behind a decimal point as ns.
func parseFraction(b []byte) (int64, bool) {
	if len(b) == 0 {
		return 0, false
	}
	var n int64
	scale := second
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		if scale > 1 {
			scale /= 10
			n += int64(c-'0') * scale
		}
	}
	return n, true
}

// parseTime reads a time as unix ns: seconds since the epoch, or a date with
// "-" or "/" and a time of day behind "T", a blank, "-" or ".", with an
// optional fraction and an optional zone (Z, +hh, +hhmm, +hh:mm). Without a
// zone it is UTC.
func parseTime(b []byte) (int64, bool) {
	if len(b) < 5 || b[4] != '-' && b[4] != '/' {
		return parseSeconds(b)
	}
	const shape = "dddd-dd-ddTdd:dd:dd"
	if len(b) < len(shape) || b[7] != b[4] || b[13] != ':' || b[16] != ':' {
		return 0, false
	}
	switch b[10] {
	case 'T', ' ', '-', '.':
	default:
		return 0, false
	}
	var v [6]int64
	for i, at := range [...]int{0, 5, 8, 11, 14, 17} {
		n := 2
		if i == 0 {
			n = 4
		}
		var ok bool
		if v[i], ok = parseCount(b[at : at+n]); !ok {
			return 0, false
		}
	}
	if v[1] < 1 || v[1] > 12 || v[2] < 1 || v[2] > daysIn(v[0], v[1]) || v[3] > 23 || v[4] > 59 || v[5] > 60 {
		return 0, false
	}
	t := ((daysSince1970(v[0], v[1], v[2])*24+v[3])*60+v[4])*60 + v[5]
	b = b[len(shape):]
	var ns int64
	if len(b) > 0 && b[0] == '.' {
		n := 1
		for n < len(b) && b[n] >= '0' && b[n] <= '9' {
			n++
		}
		var ok bool
		if ns, ok = parseFraction(b[1:n]); !ok {
			return 0, false
		}
		b = b[n:]
	}
	off, ok := parseZone(b)
	if t -= off; !ok || t < 0 || t > flow.MaxTime/second {
		return 0, false
	}
	t = t*second + ns
	return t, t >= flow.MinTime && t <= flow.MaxTime
}

// parseZone reads what stands behind a time of day as seconds east of UTC.
func parseZone(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) == 1 && b[0] == 'Z' {
		return 0, true
	}
	if len(b) == 6 && b[3] == ':' {
		b = append(append(make([]byte, 0, 5), b[:3]...), b[4:]...)
	}
	if b[0] != '+' && b[0] != '-' || len(b) != 3 && len(b) != 5 {
		return 0, false
	}
	h, ok := parseCount(b[1:3])
	m := int64(0)
	if ok && len(b) == 5 {
		m, ok = parseCount(b[3:5])
	}
	if !ok || h > 14 || m > 59 {
		return 0, false
	}
	off := (h*60 + m) * 60
	if b[0] == '-' {
		off = -off
	}
	return off, true
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
	b := [17]byte{'A'}
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
