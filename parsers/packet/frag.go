package packet

import "slices"

// Bounds of reassembling fragments.
const (
	maxDatagrams = 1024     // incomplete datagrams at a time
	maxFragBytes = 8 << 20  // of them all; a datagram takes up to 64 KiB
	maxPieces    = 512      // separate pieces of one datagram
	maxDatagram  = 65535    // bytes of one, as its length field can say
	fragTimeout  = 60 * 1e9 // ns, RFC 8200's limit
	minFragAlloc = 4 << 10  // bytes reserved for a datagram at first
	pieceSize    = 16       // bytes
)

// fragKey is what tells datagrams apart.
type fragKey struct {
	from, to addr
	id       uint32
}

// datagram is one of which not all fragments have come.
type datagram struct {
	key    fragKey
	until  int64 // by Meter.clock
	data   []byte
	pieces [][2]int // what of data has come, in order, not touching
	size   int      // -1: the last fragment has not come
}

// fragments are the datagrams of which some have come. What came first stands
// where fragments overlap, as in Zeek.
type fragments struct {
	m     map[fragKey]*datagram
	order []*datagram // the oldest first; finished ones have no data
	bytes int
}

func newFragments() fragments { return fragments{m: make(map[fragKey]*datagram)} }

// add takes a fragment at an offset and returns the payload of the datagram
// once it is whole.
func (x *fragments) add(m *Meter, k fragKey, off int, more bool, b []byte) []byte {
	d := x.m[k]
	if d == nil {
		for len(x.m) >= maxDatagrams {
			x.oldest(m)
		}
		d = &datagram{key: k, until: m.clock + fragTimeout, size: -1}
		x.m[k] = d
		if len(x.order) >= 4*maxDatagrams {
			x.order = slices.DeleteFunc(x.order, func(d *datagram) bool { return d.until == 0 })
		}
		x.order = append(x.order, d)
	}
	end := off + len(b)
	if !more {
		d.size = max(d.size, end)
	} else if d.size >= 0 {
		d.size = max(d.size, end)
	}
	if end > maxDatagram {
		x.drop(d)
		m.count(FragmentOverflow)
		return nil
	}
	if end > cap(d.data) {
		x.grow(d, end)
	}
	d.data = d.data[:max(end, len(d.data))]
	room := cap(d.pieces)
	ok := d.put(off, b)
	x.bytes += pieceSize * (cap(d.pieces) - room)
	if !ok {
		x.drop(d)
		m.count(FragmentOverflow)
		return nil
	}
	if d.size < 0 || len(d.pieces) == 0 || d.pieces[0][0] != 0 || d.pieces[0][1] < d.size {
		if d.size == 0 { // a lone fragment without content
			x.drop(d)
			return []byte{}
		}
		for x.bytes > maxFragBytes { // which may be this one
			x.oldest(m)
		}
		return nil
	}
	whole := d.data[:d.pieces[0][1]]
	x.drop(d)
	return whole
}

// grow makes room for n bytes of a datagram.
func (x *fragments) grow(d *datagram, n int) {
	n = min(max(n, 2*cap(d.data), minFragAlloc), maxDatagram)
	data := make([]byte, len(d.data), n)
	copy(data, d.data)
	x.bytes += n - cap(d.data)
	d.data = data
}

// put copies the parts of b that are new. It reports false when there are too
// many pieces.
func (d *datagram) put(off int, b []byte) bool {
	end := off + len(b)
	if off == end {
		return true
	}
	// What was between the pieces that b spans is new.
	i, _ := slices.BinarySearchFunc(d.pieces, off, func(p [2]int, at int) int {
		if p[1] < at {
			return -1
		}
		return 1
	})
	at, j := off, i
	lo, hi := off, end
	for ; j < len(d.pieces) && d.pieces[j][0] <= end; j++ {
		p := d.pieces[j]
		if at < p[0] {
			copy(d.data[at:p[0]], b[at-off:])
		}
		at = max(at, p[1])
		lo, hi = min(lo, p[0]), max(hi, p[1])
	}
	if at < end {
		copy(d.data[at:end], b[at-off:])
	}
	d.pieces = slices.Replace(d.pieces, i, j, [2]int{lo, hi})
	return len(d.pieces) <= maxPieces
}

// drop forgets a datagram.
func (x *fragments) drop(d *datagram) {
	delete(x.m, d.key)
	x.bytes -= cap(d.data) + pieceSize*cap(d.pieces)
	d.until, d.data, d.pieces = 0, nil, nil
}

// oldest gives the oldest datagram up.
func (x *fragments) oldest(m *Meter) {
	for len(x.order) > 0 {
		d := x.order[0]
		x.order[0] = nil
		x.order = x.order[1:]
		if d.until != 0 {
			x.drop(d)
			m.count(FragmentOverflow)
			return
		}
	}
}

// expire gives up what has waited too long.
func (x *fragments) expire(m *Meter) {
	for len(x.order) > 0 && (x.order[0].until == 0 || x.order[0].until <= m.clock) {
		d := x.order[0]
		x.order[0] = nil
		if x.order = x.order[1:]; d.until != 0 {
			x.drop(d)
			m.count(LostFragments)
		}
	}
}

// clear gives all up.
func (x *fragments) clear(m *Meter) {
	m.stats.Counts[LostFragments] += int64(len(x.m))
	*x = newFragments()
}
