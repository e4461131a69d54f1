// Package letters describes the behaviour of a tuple, which is one host, one
// peer, one port and one protocol, as a string with a symbol for each flow
// (reference 3.9). It imports the standard library only.
//
// A symbol is a letter, with what stands around it:
//
//	zeros   one for each whole hour between this flow and the one before
//	letter  periodicity, size and duration: see the table
//	mark    of the time between this flow and the one before:
//	        . up to 5 s, "," up to 60 s, + up to 5 min, * up to an hour
//
// The letter compares T1, the time between the two flows before this one, with
// T2, the time since the last. r is the longer by the shorter, and 1 when the
// shorter is 0.
//
//	             up to 250 bytes   up to 1100     more
//	             0.1 s  10 s more
//	no T1          1     2    3     4  5  6      7  8  9
//	r <= 1.05      a     b    c     d  e  f      g  h  i
//	r <= 1.3       A     B    C     D  E  F      G  H  I
//	r <= 5         r     s    t     u  v  w      x  y  z
//	r > 5          R     S    T     U  V  W      X  Y  Z
//
// T1 and T2 are distances: sensors write flows in the order in which they end,
// so a flow may have begun before the last one, and that is no sign of
// anything. A first and a second flow have no T2, so they get no zeros and no
// mark; neither does a flow that began with the last one get a mark.
package letters

import (
	"net/netip"
	"strconv"
)

// MaxZeros bounds the zeros of one symbol. It is 41 days: no window that is in
// use has more, and a damaged time would otherwise make a million of them.
const MaxZeros = 1000

const (
	second = int64(1e9)
	hour   = 3600 * second
	// table has the letters of a periodicity in a row, sizes in it, durations in these.
	table = "123456789" + "abcdefghi" + "ABCDEFGHI" + "rstuvwxyz" + "RSTUVWXYZ"
)

// Tuple is what has to be remembered of a tuple. The zero value has seen
// nothing. It is meant to be part of states that are saved.
type Tuple struct {
	Seen   uint8 // flows, as far as it matters: 0, 1, or 2 for more
	Last   int64 // start of the flow that was added last, unix ns
	Before int64 // start of the one before it
}

// Add appends the symbol of the next flow to b: one that began at start, unix
// ns, took duration ns and carried size bytes in both directions.
func (t *Tuple) Add(b []byte, start, duration, size int64) []byte {
	row, mark := 0, byte(0)
	if t.Seen >= 2 {
		t1, t2 := distance(t.Last, t.Before), distance(start, t.Last)
		for range min(t2/uint64(hour), MaxZeros) {
			b = append(b, '0')
		}
		row, mark = periodicity(t1, t2), markOf(t2)
	} else {
		t.Seen++
	}
	t.Before, t.Last = t.Last, start
	b = append(b, table[9*row+3*rank(size, 250, 1100)+rank(duration, second/10, 10*second)])
	if mark != 0 {
		b = append(b, mark)
	}
	return b
}

// distance is the time between two moments. It does not overflow.
func distance(a, b int64) uint64 {
	return uint64(max(a, b)) - uint64(min(a, b))
}

// periodicity returns the row of the table for two intervals.
func periodicity(t1, t2 uint64) int {
	short, long := min(t1, t2), max(t1, t2)
	r := 1.0
	if short > 0 {
		r = float64(long) / float64(short)
	}
	switch {
	case r <= 1.05:
		return 1
	case r <= 1.3:
		return 2
	case r <= 5:
		return 3
	}
	return 4
}

// markOf returns the mark for an interval; 0 for none.
func markOf(t uint64) byte {
	switch {
	case t == 0 || t > uint64(hour):
		return 0
	case t <= uint64(5*second):
		return '.'
	case t <= uint64(60*second):
		return ','
	case t <= uint64(300*second):
		return '+'
	}
	return '*'
}

// rank returns 0, 1 or 2: in which of three classes v is.
func rank(v, first, second int64) int {
	switch {
	case v <= first:
		return 0
	case v <= second:
		return 1
	}
	return 2
}

// AppendID appends the name of a tuple within its profile, such as
// "192.0.2.1-443-tcp": peer is the other host, the destination of the flows
// that the profile opened or the source of those that it received.
func AppendID(b []byte, peer netip.Addr, port uint16, proto string) []byte {
	b = append(peer.AppendTo(b), '-')
	b = append(strconv.AppendUint(b, uint64(port), 10), '-')
	return append(b, proto...)
}
