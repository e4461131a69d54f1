package packet

import "math"

// TCP flags.
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
)

// endState is what one side of a TCP connection was last seen to be in, in
// Zeek's terms.
type endState uint8

const (
	inactive endState = iota // nothing came
	synSent
	synAckSent // a SYN with ACK from the originator
	partial    // traffic without a SYN
	established
	closed // sent a FIN
	reset  // sent a RST
)

// handshake reports whether a state is before that of a connection.
func (s endState) handshake() bool { return s <= synAckSent }

// largeJump is how far the number of a SYN or RST may be from what was seen
// before it is not believed, as in Zeek.
const largeJump = 1 << 20

// end is one side of a TCP connection. Numbers are counted from the SYN, or
// from where one would have been: the first byte of payload has number 1.
type end struct {
	state, prev endState
	done        bool // counted as closed
	finSeen     bool

	startSeq           uint32 // number of the SYN
	lastSeq, ackSeq    uint32 // behind the last that was sent, that was acknowledged
	seqWraps, ackWraps uint32 // how often they went round
	finSeq             int64  // number behind the FIN

	lastSYN, lastFIN, lastRST int64 // numbers of the last of their sort
	rxmt, zeroWin, gaps       uint32

	stream stream
}

// tcpState is what TCP adds to a connection.
type tcpState struct {
	end [2]end // of the originator, the responder

	attemptAt int64    // when a SYN without answer is given up; 0: not
	expireAt  [2]int64 // when to look whether a closing connection is over; 0: not
	deleteAt  int64    // when a closed one goes; 0: it is not closed

	isPartial     bool    // numbers were made up
	seen          [2]bool // a packet of the originator, the responder
	over          bool    // finished or reset: not looked at by expireAt
	postponed     bool    // a close waits for missing data
	postponedOver bool    // and will end the connection
	next          *tcpState
}

// state returns a fresh tcpState.
func (m *Meter) newState() *tcpState {
	t := m.freeTCP
	if t == nil {
		t = new(tcpState)
	} else {
		m.freeTCP = t.next
		*t = tcpState{}
	}
	t.end[0].stream.next, t.end[0].stream.trim = 1, 1
	t.end[1].stream.next, t.end[1].stream.trim = 1, 1
	return t
}

// freeState takes that of a connection back.
func (m *Meter) freeState(c *conn) {
	t := c.tcp
	t.end[0].stream.clear(c)
	t.end[1].stream.clear(c)
	c.tcp = nil
	t.next, m.freeTCP = m.freeTCP, t
}

// flip makes the originator the responder.
func (t *tcpState) flip() {
	t.end[0], t.end[1] = t.end[1], t.end[0]
	t.seen[0], t.seen[1] = t.seen[1], t.seen[0]
	t.isPartial = false
}

// dueAt returns when a timer is due.
func (t *tcpState) dueAt() int64 {
	at := int64(math.MaxInt64)
	for _, x := range [...]int64{t.attemptAt, t.expireAt[0], t.expireAt[1], t.deleteAt} {
		if x != 0 {
			at = min(at, x)
		}
	}
	return at
}

// attempting reports whether a SYN found no answer.
func (t *tcpState) attempting() bool {
	o := t.end[0].state
	return !t.over && (o == synSent || o == synAckSent) && t.end[1].state == inactive
}

// stays looks at the timer that is due at a time. It reports whether the
// connection goes on.
func (t *tcpState) stays(c *conn, at int64) bool {
	now := c.m.clock
	switch at {
	case t.deleteAt:
		return false
	case t.attemptAt:
		t.attemptAt = 0
		return !t.attempting()
	}
	for i := range t.expireAt {
		if t.expireAt[i] != at {
			continue
		}
		if t.over {
			t.expireAt[i] = 0
			return true
		}
		if c.last+linger < now && t.idleClosed() {
			return false
		}
		t.expireAt[i] = now + sessionTimer
		return true
	}
	return false // by silence
}

// idleClosed reports whether a connection that is silent is likely to be over,
// or never was one.
func (t *tcpState) idleClosed() bool {
	o, r := &t.end[0], &t.end[1]
	dead := o.state == inactive || r.state == inactive
	if (o.done || r.done) && (o.done && r.done || o.state == reset || r.state == reset || dead) {
		return true
	}
	return o.state == inactive && r.state == inactive
}

// full returns a sequence number with how often it went round.
func full(seq, wraps uint32) int64 { return int64(wraps)<<32 + int64(seq) }

// begin sets all numbers of a side.
func (e *end) begin(start, last uint32) { e.startSeq, e.ackSeq, e.lastSeq = start, start, last }

// noneAcked reports whether no payload of a side was acknowledged.
func (e *end) noneAcked() bool {
	n := full(e.ackSeq, e.ackWraps) - int64(e.startSeq)
	return n == 0 || n == 1
}

// bytes returns how much payload a side sent by its numbers.
func (e *end) bytes(peer *end) int64 {
	if e.prev == synSent && e.state == reset && peer.state == inactive && !e.noneAcked() {
		return 0 // the numbers belong to another connection
	}
	n := max(full(e.lastSeq, e.seqWraps), full(e.ackSeq, e.ackWraps)) - int64(e.startSeq)
	if n > 0 {
		n-- // the SYN
	}
	if e.finSeen && n > 0 {
		n--
	}
	return max(0, n)
}

// relative returns a number counted from the start of a side, near the last
// one seen; under says that it lies before the start.
func (e *end) relative(seq, last, wraps uint32) (n int64, under bool) {
	switch d := int32(seq - last); {
	case d < 0 && wraps > 0 && seq > last:
		wraps--
	case d > 0 && seq < last:
		wraps++
	}
	if wraps == 0 {
		n = int64(int32(seq - e.startSeq))
		return n, n < 0
	}
	return full(seq, wraps) - int64(e.startSeq), false
}

// set changes the state of a side.
func (c *conn) set(e, peer *end, s endState) {
	if s == e.state {
		return
	}
	if !s.handshake() && e.state.handshake() && peer.state.handshake() && c.idle == 0 {
		c.idle = int64(c.m.opts.TCPInactivity)
	}
	e.prev, e.state = e.state, s
}

// state returns Zeek's conn_state.
func (t *tcpState) state(c *conn) string {
	o, r := &t.end[0], &t.end[1]
	none := func(s endState) bool { return s == inactive || s == partial }
	switch {
	case r.state == reset:
		switch {
		case o.state == synSent, o.state == synAckSent, o.state == reset && o.bytes(r) == 0 && r.bytes(o) == 0:
			return "REJ"
		case none(o.state):
			return "RSTRH"
		}
		return "RSTR"
	case o.state == reset:
		switch {
		case !none(r.state):
			return "RSTO"
		case synThenReset(c.hist):
			return "RSTOS0"
		}
		return "OTH"
	case o.state == closed && r.state == closed:
		return "SF"
	case o.state == closed:
		if none(r.state) {
			return "SH"
		}
		return "S2"
	case r.state == closed:
		if none(o.state) {
			return "SHR"
		}
		return "S3"
	case o.state == synSent && r.state == inactive:
		return "S0"
	case o.state == established && r.state == established:
		return "S1"
	}
	return "OTH"
}

// synThenReset reports whether a history is that of an originator who took its
// SYN back: ^?S[^HAFGIQ]*R.*.
func synThenReset(h []byte) bool {
	if len(h) > 0 && h[0] == '^' {
		h = h[1:]
	}
	if len(h) == 0 || h[0] != 'S' {
		return false
	}
	for _, l := range h[1:] {
		switch l {
		case 'R':
			return true
		case 'H', 'A', 'F', 'G', 'I', 'Q':
			return false
		}
	}
	return false
}

// segment is a TCP packet.
type segment struct {
	seq, ack uint32
	flags    uint8
	window   uint16
	len      int    // of the payload as sent
	data     []byte // of it what was captured, at most len
}

func (s *segment) has(flag uint8) bool { return s.flags&flag != 0 }

// tcpPacket takes a TCP packet.
func (m *Meter) tcpPacket(f *frame, b []byte) {
	if m.short(f, b, 20) {
		return
	}
	sp, dp := be16(b), be16(b[2:])
	s := segment{seq: be32(b[4:]), ack: be32(b[8:]), flags: b[13], window: be16(b[14:])}
	head := int(b[12]>>4) * 4
	k := keyOf(f, sp, dp, false)
	c := m.conns[k]
	repeat := uint16(0)
	if c != nil && head >= 20 && c.tcp.reused(&s) {
		if c.began() == m.told(f.t) {
			repeat = c.repeat + 1
		}
		m.remove(c)
		c = nil
	}
	if c == nil {
		c = m.create(k, f, sp, dp, serverFirst(sp, dp, s.flags), repeat)
		c.tcp = m.newState()
		c.tcp.expireAt[0] = f.t + synTimeout
		c.expected()
		m.arm(c)
	}
	m.carried(f)
	orig := c.fromOrig(f, sp)
	if head < 20 || head > f.size {
		m.count(ShortTransport)
		return
	}
	if !m.checked(f, b) {
		m.count(BadChecksum)
		i := 1
		if orig {
			i = 0
		}
		c.scaled(&c.chk[i], 'C', orig)
		return
	}
	s.len = f.size - head
	if n := min(len(b), f.size); n > head { // else the options were not captured whole, which nothing needs: Zeek gives up here
		s.data = b[head:n]
	}
	orig = c.segment(f, &s, orig)
	c.sent(f, orig)
	m.touch(c, orig)
	m.sooner(c)
}

// serverFirst reports whether the sender of the first packet seen is likely to
// be the server: when it is no SYN, by the ports. A SYN with ACK from one
// server port to another may be a scan and is left as it is.
func serverFirst(sp, dp uint16, flags uint8) bool {
	if flags&flagSYN != 0 && flags&flagACK == 0 || !serverTCP(sp) {
		return false
	}
	return !serverTCP(dp) || flags&flagSYN == 0 && sp < dp
}

// reused reports whether a packet begins a new connection between the same
// ends.
func (t *tcpState) reused(s *segment) bool {
	if !s.has(flagSYN) {
		return false
	}
	o, r := &t.end[0], &t.end[1]
	e := o
	if s.has(flagACK) {
		if o.state != inactive {
			return false
		}
		e = r
	}
	if o.done || r.done {
		return true
	}
	if s.seq == e.startSeq {
		return false
	}
	// The answer to a SYN seen before it is not a new connection.
	swapped := !s.has(flagACK) && e.state == synAckSent && r.state == inactive && s.seq == r.startSeq
	return !swapped
}

// segment takes a packet of one side, doing things in Zeek's order, on which
// what the history and the counts say depends: history, numbers, state, what
// was acknowledged, the data, the close. It returns which side sent it, for
// the packet may show that the sides are the other way round.
func (c *conn) segment(f *frame, s *segment, orig bool) bool {
	t, i := c.tcp, sideOf(orig)
	if !t.seen[i] {
		if orig {
			t.isPartial = !s.has(flagSYN) || s.has(flagACK)
		} else if !t.isPartial {
			t.isPartial = !s.has(flagSYN)
		}
	}
	length := uint32(s.len) // in numbers
	if s.has(flagRST) {
		length = 0 // what a RST carries is not of the stream
	}
	if s.has(flagSYN) {
		length++
	}
	if s.has(flagFIN) {
		length++
	}
	e := &t.end[i]
	e.start(s, length)
	rel, under := e.relative(s.seq, e.lastSeq, e.seqWraps)
	if c.letters(s, i, rel) {
		i = 1 - i
	}
	e, peer := &t.end[i], &t.end[1-i]
	if s.window == 0 && !s.has(flagRST) && peer.state != closed && e.state != reset {
		c.scaled(&e.zeroWin, 'W', i == 0)
	}
	if !e.done || !peer.done {
		c.last = f.t
	}
	if s.has(flagFIN) {
		e.finSeen, e.finSeq = true, rel+int64(length)
	}
	var acked int64
	if s.has(flagACK) {
		if peer.state == inactive {
			acked = 1
			peer.begin(s.ack-1, s.ack-1)
		} else if n, under := peer.relative(s.ack, peer.ackSeq, peer.ackWraps); !under {
			if acked = n; !s.has(flagRST) {
				peer.acknowledge(s.ack)
			}
		}
	}
	if e.advance(s, length) {
		c.scaled(&e.rxmt, 'T', i == 0)
	}
	// Here Zeek goes by whom it took for the originator when the packet came.
	closes, over, flipped := c.step(f.t, s, i, orig)
	if flipped {
		i = 1 - i
	}
	if s.has(flagACK) {
		c.acknowledged(1-i, acked, f.t)
	}
	t.seen[i] = true
	if s.len > 0 && !s.has(flagRST) && !under && len(s.data) >= s.len {
		if s.has(flagSYN) {
			rel++
		}
		c.arrived(i, rel, s.data, f.t)
	}
	c.endOfData(i)
	if closes {
		c.close(i, over)
	}
	return i == 0
}

// sideOf returns the index of the originator or the responder.
func sideOf(orig bool) int {
	if orig {
		return 0
	}
	return 1
}

// start sets the numbers of a side by its first packet, or by a SYN that shows
// that they were wrong. Without a SYN it is as if there had been one just
// before.
func (e *end) start(s *segment, length uint32) {
	syn := s.has(flagSYN)
	switch e.state {
	case inactive:
		if !syn {
			e.begin(s.seq-1, s.seq)
			return
		}
	case synSent, synAckSent:
		syn = syn && s.seq != e.startSeq
	case reset:
		syn = syn && e.prev == inactive
	case closed:
		syn = false
	default: // established, partial: the SYN of another attempt
	}
	if syn {
		e.begin(s.seq, s.seq+length)
	}
}

// acknowledge notes how far a side was acknowledged.
func (e *end) acknowledge(ack uint32) {
	d := int32(ack - e.ackSeq)
	if d <= 0 || ack == 0 && d > largeJump { // 0 where no number belongs
		return
	}
	if ack < e.ackSeq {
		e.ackWraps++
	}
	e.ackSeq = ack
}

// advance notes how far a side has sent. It reports whether the payload was
// sent before.
func (e *end) advance(s *segment, length uint32) bool {
	last := s.seq + length
	d := int32(last - e.lastSeq)
	switch {
	case (s.has(flagSYN) || s.has(flagRST)) && (d > largeJump || d < -largeJump):
		return false
	case s.has(flagFIN) && e.lastSeq == e.startSeq+1: // believed even when it jumps: only SYN and FIN were seen
	case e.state == reset:
		return false
	case d <= 0:
		return s.len > 0
	}
	if last < e.lastSeq {
		e.seqWraps++
	}
	e.lastSeq = last
	return false
}

// letters notes a packet in the history. It reports whether it turned the
// sides round.
func (c *conn) letters(s *segment, i int, rel int64) (flipped bool) {
	e := &c.tcp.end[i]
	n := int64(s.len)
	again := func(bit uint32, l byte, at int64, last *int64) {
		if c.once(bit, l, i == 0) && at != *last {
			c.note(letter(l, i == 0))
		}
		*last = at
	}
	switch s.flags & (flagSYN | flagFIN | flagRST) {
	case 0:
		if n == 0 && !s.has(flagACK) {
			return false
		}
		if len(c.hist) == 1 && c.hist[0] == 'H' {
			// A SYN with ACK came first, and it was no scan: the SYN before it
			// was missed.
			c.flip()
			c.hist = append(c.hist[:0], '^', 'h')
			c.tcp.seen[0] = true
			i, flipped = 1-i, true
		}
		if n > 0 {
			c.once(histData, 'D', i == 0)
		} else {
			c.once(histACK, 'A', i == 0)
		}
	case flagSYN:
		if s.has(flagACK) {
			again(histSYN, 'H', rel, &e.lastSYN)
		} else {
			again(histSYN, 'S', rel, &e.lastSYN)
		}
	case flagFIN:
		again(histFIN, 'F', rel+n, &e.lastFIN)
	case flagRST:
		again(histRST, 'R', rel, &e.lastRST)
	case flagSYN | flagRST, flagSYN | flagFIN:
		c.once(histMulti, 'Q', i == 0)
	default:
		c.once(histFINRST, 'I', i == 0)
	}
	return flipped
}

// step moves the states on. It says whether the sender closed the connection,
// whether that ended it, and whether the sides were turned round.
func (c *conn) step(now int64, s *segment, i int, orig bool) (closes, over, flipped bool) {
	t := c.tcp
	e, peer := &t.end[i], &t.end[1-i]
	switch e.state {
	case inactive:
		return c.first(now, s, i, orig)
	case synSent, synAckSent:
		if s.has(flagFIN) {
			c.set(e, peer, closed)
			closes, over = true, true
		}
		if s.has(flagRST) {
			c.set(e, peer, reset)
			t.over, closes = true, true
		}
	case established, partial:
		if s.has(flagSYN) && !s.has(flagACK) && e.state == partial && peer.state == inactive {
			c.set(e, peer, synSent)
		}
		if s.has(flagFIN) && !s.has(flagRST) {
			c.set(e, peer, closed)
			if peer.state == reset && peer.prev == closed {
				c.set(peer, e, closed) // a FIN, then a RST: an ordinary end after all
			}
			closes, over = true, true
		}
		if s.has(flagRST) {
			c.set(e, peer, reset)
			closes = true
			if peer.state != reset || peer.prev != established {
				t.over = true
			}
		}
	case closed:
		if s.has(flagRST) && peer.state != closed {
			c.set(e, peer, reset)
			closes = !e.done
		}
	case reset:
	}
	return closes, over, false
}

// first is step for the first packet of a side.
func (c *conn) first(now int64, s *segment, i int, orig bool) (closes, over, flipped bool) {
	t := c.tcp
	if s.has(flagSYN) && !orig && !s.has(flagACK) && t.end[1-i].state == synAckSent {
		// The answer was captured before the SYN.
		c.flip()
		i, flipped = 1-i, true
		c.set(&t.end[1-i], &t.end[i], established)
		t.seen[0] = true
	}
	e, peer := &t.end[i], &t.end[1-i]
	switch {
	case s.has(flagSYN) && orig:
		if s.has(flagACK) {
			c.set(e, peer, synAckSent)
		} else {
			c.set(e, peer, synSent)
		}
		t.attemptAt = now + int64(c.m.opts.AttemptDelay)
	case s.has(flagSYN):
		if peer.state == synSent {
			c.set(peer, e, established)
		}
		c.set(e, peer, established)
		if peer.state != partial {
			c.established()
		}
	}
	if s.has(flagFIN) {
		c.set(e, peer, closed)
		closes, over = true, true
	}
	if s.has(flagRST) {
		c.set(e, peer, reset)
		closes = true
		if orig {
			over = peer.state != established
		} else {
			over = peer.state != synSent && peer.state != synAckSent
		}
	}
	if e.state != inactive {
		return closes, over, flipped
	}
	switch {
	case !orig && s.len == 0 && t.end[0].state == synSent: // some acknowledge a SYN before they answer it
	case s.has(flagACK) && peer.state == established: // the SYN was missed
		c.set(e, peer, established)
		t.isPartial = false
		t.seen[sideOf(orig)] = true
	default:
		c.set(e, peer, partial)
	}
	return closes, over, flipped
}

// established lets connections to interactive services rest for longer.
func (c *conn) established() {
	p := c.respP
	if c.tcp.end[0].state == inactive && !serverTCP(p) && serverTCP(c.origP) {
		p = c.origP
	}
	switch p {
	case 21, 22, 23, 513:
		c.idle = int64(c.m.opts.Interactive)
	}
}

// close notes that a side closed the connection, or later, when data that was
// sent before is missing.
func (c *conn) close(i int, over bool) {
	t := c.tcp
	e, peer := &t.end[i], &t.end[1-i]
	if t.pending(i) {
		t.postponed, t.postponedOver = true, t.postponedOver || over
		return
	}
	t.postponed = false
	if e.done {
		return
	}
	e.done = true
	if e.state == reset || peer.done || peer.state == inactive {
		if (over || t.postponedOver) && (e.prev != inactive || peer.state != inactive) {
			t.over = true
		}
		t.attemptAt, t.expireAt = 0, [2]int64{}
		t.deleteAt = c.last + int64(c.m.opts.CloseDelay)
	} else if e.prev != inactive && t.expireAt[1] == 0 {
		t.expireAt[1] = c.last + sessionTimer
	}
}

// pending reports whether data of a side is missing.
func (t *tcpState) pending(i int) bool {
	e, peer := &t.end[i], &t.end[1-i]
	if e.stream.skip {
		return false
	}
	got, last := int64(e.startSeq)+e.stream.next, full(e.lastSeq, e.seqWraps)
	switch {
	case last < got:
		return false
	case got != last-1 && got != last: // a FIN takes a number, a RST takes none
		return true
	}
	return e.state != reset && peer.stream.holds()
}

// endOfData closes a side whose close waited for data, once there is no more
// of it.
func (c *conn) endOfData(i int) {
	t := c.tcp
	e := &t.end[i]
	if e.stream.eof || !e.finSeen && e.state != closed && e.state != reset || t.pending(i) {
		return
	}
	e.stream.eof = true
	if t.postponed {
		c.close(i, t.postponedOver)
		t.postponed = false
	}
}
