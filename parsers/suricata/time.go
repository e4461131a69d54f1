package suricata

import "math"

// parseTime returns the unix ns of a timestamp as Suricata writes them:
// 2021-06-06T15:57:37.272281+0200, with or without fraction, the zone as
// +0200, +02:00, +02, Z, or left out for UTC. Digits beyond the nanosecond
// are dropped. Years outside 1678 to 2261 do not fit and come out as the
// nearest time that does.
func parseTime(b []byte) (ns int64, ok bool) {
	const layout = "0000-00-00T00:00:00"
	if len(b) < len(layout) {
		return 0, false
	}
	for i := range len(layout) {
		switch c := b[i]; {
		case layout[i] == '0' && !isDigit(c):
			return 0, false
		case layout[i] == 'T' && c != 'T' && c != 't' && c != ' ':
			return 0, false
		case (layout[i] == '-' || layout[i] == ':') && c != layout[i]:
			return 0, false
		}
	}
	year, month, day := two(b)*100+two(b[2:]), two(b[5:]), two(b[8:])
	hour, minute, second := two(b[11:]), two(b[14:]), two(b[17:])
	if month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || hour > 23 || minute > 59 || second > 60 {
		return 0, false
	}
	rest := b[len(layout):]
	var frac int64
	if len(rest) > 0 && rest[0] == '.' {
		i := 1
		for unit := int64(100_000_000); i < len(rest) && isDigit(rest[i]); i, unit = i+1, unit/10 {
			frac += int64(rest[i]-'0') * unit
		}
		if i == 1 {
			return 0, false
		}
		rest = rest[i:]
	}
	offset, ok := zone(rest)
	if !ok {
		return 0, false
	}
	s := daysSince1970(year, month, day)*86400 + int64(hour)*3600 + int64(minute)*60 + int64(second) - offset
	const limit = math.MaxInt64/1_000_000_000 - 1
	switch {
	case s > limit:
		return math.MaxInt64, true
	case s < -limit:
		return math.MinInt64, true
	}
	return s*1_000_000_000 + frac, true
}

// zone returns how many seconds the zone b is ahead of UTC.
func zone(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) == 1 && (b[0] == 'Z' || b[0] == 'z') {
		return 0, true
	}
	sign := int64(1)
	switch b[0] {
	case '+':
	case '-':
		sign = -1
	default:
		return 0, false
	}
	b = b[1:]
	var hour, minute int
	switch {
	case len(b) == 2 && isDigit(b[0]) && isDigit(b[1]):
		hour = two(b)
	case len(b) == 4 && isDigit(b[0]) && isDigit(b[1]) && isDigit(b[2]) && isDigit(b[3]):
		hour, minute = two(b), two(b[2:])
	case len(b) == 5 && isDigit(b[0]) && isDigit(b[1]) && b[2] == ':' && isDigit(b[3]) && isDigit(b[4]):
		hour, minute = two(b), two(b[3:])
	default:
		return 0, false
	}
	if hour > 23 || minute > 59 {
		return 0, false
	}
	return sign * int64(hour*3600+minute*60), true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// two returns the number that the first two digits of b write.
func two(b []byte) int { return int(b[0]-'0')*10 + int(b[1]-'0') }

func isLeap(year int) bool { return year%4 == 0 && (year%100 != 0 || year%400 == 0) }

func daysIn(year, month int) int {
	switch month {
	case 2:
		if isLeap(year) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// daysSince1970 counts days in the Gregorian calendar. It starts years in
// March, so that the leap day is the last of its year.
func daysSince1970(year, month, day int) int64 {
	y, m := int64(year), int64(month)
	if m < 3 {
		y, m = y-1, m+12
	}
	const toEpoch = 719469 // days from 0000-03-01 to 1970-01-01, and one since days count from 1
	return y*365 + y/4 - y/100 + y/400 + (153*(m-3)+2)/5 + int64(day) - toEpoch
}
