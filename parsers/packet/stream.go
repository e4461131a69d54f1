package packet

import (
	"slices"
	"unsafe"
)

// Bounds of reassembly. The first three are Zeek's.
const (
	maxUnacked   = 16384    // bytes sent of which none was acknowledged: the other direction is not seen
	maxAboveHole = 16384    // bytes behind a hole when nothing was acknowledged
	maxHeld      = 10 << 20 // bytes without acknowledgement: it will not come any more
	maxHoles     = 256      // blocks of a direction that wait for a missing piece

	blockSize = int(unsafe.Sizeof(block{})) // bytes, without its data
)

// block is a run of a stream behind a hole.
type block struct {
	at, end int64
	data    []byte // nil when nobody wants it
}

// stream is one direction of a TCP connection: how far it has come without a
// hole, and what came behind. Numbers are those of end.
type stream struct {
	next   int64 // the first number that has not come
	trim   int64 // everything below was acknowledged
	last   int64 // behind the last data that came in order
	skip   bool  // given up
	eof    bool
	blocks []block // in order, not overlapping, all behind next
}

// holds reports whether there is data that was not acknowledged.
func (s *stream) holds() bool { return s.last > s.trim || len(s.blocks) > 0 }

// clear forgets what came behind holes.
func (s *stream) clear(c *conn) {
	n := blockSize * cap(s.blocks)
	for _, b := range s.blocks {
		n += cap(b.data)
	}
	c.hold(-n)
	s.blocks = nil
}

// giveUp clears a stream with holes and has it reassembled no more.
func (s *stream) giveUp(c *conn) {
	if len(s.blocks) > 0 {
		s.skip = true
	}
	s.clear(c)
}

// arrived takes the data of a packet.
func (c *conn) arrived(i int, at int64, data []byte, t int64) {
	e := &c.tcp.end[i]
	s := &e.stream
	if s.skip {
		return
	}
	seen := max(full(e.ackSeq, e.ackWraps)-int64(e.startSeq), s.trim)
	if at+int64(len(data)) <= seen {
		return
	}
	if at < seen {
		data, at = data[seen-at:], seen
	}
	if end := at + int64(len(data)); at <= s.next {
		if end > s.next {
			c.inOrder(i, data[s.next-at:], t)
		}
	} else {
		s.insert(c, at, data, c.wants(i))
		if len(s.blocks) > maxHoles {
			c.m.count(StreamOverflow)
			c.undelivered(i, s.blocks[0].at, t)
			c.follow(i, t)
		}
	}
	switch none := e.noneAcked(); {
	case none && len(s.blocks) > 0 && s.blocks[len(s.blocks)-1].end-s.next > maxAboveHole,
		s.next-s.trim > maxHeld:
		s.clear(c)
		s.skip = true
		c.missing(i, 1, t) // how much, nobody knows
	case none && e.bytes(&c.tcp.end[1-i]) > maxUnacked:
		s.trim = max(s.trim, s.next)
	}
}

// insert puts those parts of data that are new behind a hole.
func (s *stream) insert(c *conn, at int64, data []byte, keep bool) {
	end := at + int64(len(data))
	room := cap(s.blocks)
	defer func() { c.hold(blockSize * (cap(s.blocks) - room)) }()
	j, _ := slices.BinarySearchFunc(s.blocks, at, func(b block, at int64) int {
		if b.end <= at {
			return -1
		}
		return 1
	})
	for at < end {
		stop := end
		if j < len(s.blocks) {
			stop = min(stop, s.blocks[j].at)
		}
		if at < stop {
			b := block{at: at, end: stop}
			if keep {
				b.data = slices.Clone(data[:stop-at])
				c.hold(cap(b.data))
			}
			if j > 0 && s.blocks[j-1].end == at && b.data == nil && s.blocks[j-1].data == nil {
				s.blocks[j-1].end = stop
			} else {
				s.blocks = slices.Insert(s.blocks, j, b)
				j++
			}
			data, at = data[stop-at:], stop
		}
		if at == end {
			return
		}
		skip := min(end, s.blocks[j].end)
		data, at = data[skip-at:], skip
		j++
	}
}

// inOrder delivers data that begins where the stream stands, and what waited
// behind it.
func (c *conn) inOrder(i int, data []byte, t int64) {
	s := &c.tcp.end[i].stream
	s.next += int64(len(data))
	s.last = s.next
	c.deliver(i, data, t)
	c.follow(i, t)
}

// follow delivers the blocks that are not behind a hole any more.
func (c *conn) follow(i int, t int64) {
	s := &c.tcp.end[i].stream
	n := 0
	for ; n < len(s.blocks) && s.blocks[n].at <= s.next; n++ {
		b := s.blocks[n]
		s.blocks[n].data = nil
		c.hold(-cap(b.data))
		if b.end <= s.next {
			continue
		}
		skip := s.next - b.at
		s.next, s.last = b.end, b.end
		if b.data != nil {
			c.deliver(i, b.data[skip:], t)
		} else {
			c.missing(i, b.end-b.at-skip, t)
		}
	}
	if n > 0 {
		s.blocks = slices.Delete(s.blocks, 0, n)
	}
	if len(s.blocks) == 0 && s.blocks != nil {
		s.clear(c)
	}
}

// acknowledged notes that the peer acknowledged what a side sent up to a
// number: what did not come until now was missed.
func (c *conn) acknowledged(i int, seq, t int64) {
	e := &c.tcp.end[i]
	s := &e.stream
	if e.finSeen && seq >= e.finSeq {
		seq = e.finSeq - 1
	}
	if seq <= s.trim {
		return
	}
	if seq > s.next {
		c.undelivered(i, seq, t)
	}
	c.follow(i, t)
	s.trim = seq
	c.endOfData(i)
}

// undelivered gives up what is missing below a number.
func (c *conn) undelivered(i int, upTo, t int64) {
	s := &c.tcp.end[i].stream
	if upTo <= 2 && c.tcp.isPartial {
		return // the number of the SYN was made up
	}
	if !s.skip {
		for len(s.blocks) > 0 && s.blocks[0].at < upTo {
			c.gap(i, s.blocks[0].at-s.next, t)
			s.next = s.blocks[0].at
			c.follow(i, t)
		}
		if upTo > s.next {
			c.gap(i, upTo-s.next, t)
		}
	}
	s.next = max(s.next, upTo)
}

// gap notes missing data. It counts only while the connection is established
// or was closed properly: elsewhere numbers are not to be trusted.
func (c *conn) gap(i int, n, t int64) {
	if n <= 0 {
		return
	}
	clean := func(e *end) bool {
		return e.state == established || e.state == closed && e.prev == established
	}
	if e := &c.tcp.end[i]; clean(e) && clean(&c.tcp.end[1-i]) {
		c.scaled(&e.gaps, 'G', i == 0)
		c.missed += n
	}
	c.missing(i, n, t)
}
