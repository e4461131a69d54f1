package proto

import (
	"encoding/binary"
	"unsafe"

	"github.com/slips-go/slips/parsers/flow"
)

// The types of TLS records and the messages of the handshake that are read.
const (
	recCCS       = 20
	recAlert     = 21
	recHandshake = 22
	recData      = 23
	recHeartbeat = 24

	msgClientHello = 1
	msgServerHello = 2
	msgCertificate = 11
	msgServerKey   = 12
	msgClientKey   = 16

	maxRecord = 1<<14 + 2048 // bytes, RFC 5246
)

// tlsSide is one direction of a TLS connection.
type tlsSide struct {
	head      [5]byte // header of the record
	nhead     int
	typ       byte
	remain    int    // bytes of the record that are to come
	hs        []byte // a handshake message that is not whole
	skip      int    // bytes of one that is too long
	alert     [2]byte
	nalert    int
	early     bool // it changed the cipher before the server's hello
	encrypted bool
	off       bool
}

// tlsAnalyzer reads the handshake of TLS over a stream, and of DTLS.
type tlsAnalyzer struct {
	set    *Set
	conn   Conn
	dtls   bool
	side   [2]tlsSide
	client Dir // who sends the ClientHello
	h      handshake
	said   bool // the service
	done   bool // the record was written
}

func (s *Set) newTLS(c Conn, dtls bool) *tlsAnalyzer {
	a := s.tls.get()
	a.reset()
	a.set, a.conn, a.dtls = s, c, dtls
	return a
}

// reset empties a, keeping a bounded part of its memory.
func (a *tlsAnalyzer) reset() {
	hs := [2][]byte{spare(a.side[0].hs), spare(a.side[1].hs)}
	a.h.reset()
	a.set, a.conn, a.dtls, a.client, a.said, a.done = nil, nil, false, Orig, false, false
	a.side = [2]tlsSide{{hs: hs[0]}, {hs: hs[1]}}
}

// Wants implements Analyzer.
func (a *tlsAnalyzer) Wants(d Dir) bool { return !a.done && !a.side[d].off }

// Held implements Analyzer.
func (a *tlsAnalyzer) Held() int {
	return int(unsafe.Sizeof(*a)) + cap(a.side[0].hs) + cap(a.side[1].hs) + a.h.held()
}

// Gap implements Analyzer. A gap inside of what is encrypted does no harm.
func (a *tlsAnalyzer) Gap(d Dir, n, _ int64) {
	s := &a.side[d]
	if s.remain > 0 && n <= int64(s.remain) && s.nhead == len(s.head) && (s.encrypted || s.typ == recData) {
		if s.remain -= int(n); s.remain == 0 {
			s.nhead = 0
		}
		return
	}
	s.off = true
}

// End implements Analyzer.
func (a *tlsAnalyzer) End(int64) { a.write() }

// write writes the record, once, if there was a handshake.
func (a *tlsAnalyzer) write() {
	if !a.done && (a.h.client || a.h.server) {
		f := a.conn.Record(flow.SSL, a.h.t)
		a.h.fill(a.set, f)
		a.conn.Emit(f)
	}
	a.done = true
}

// Data implements Analyzer.
func (a *tlsAnalyzer) Data(d Dir, data []byte, t int64) {
	if a.dtls {
		a.datagram(d, data, t)
		return
	}
	s := &a.side[d]
	for len(data) > 0 && !a.done && !s.off {
		if s.nhead < len(s.head) {
			if s.nhead == 0 && !a.h.client && len(data) >= 3 && data[0]&0x80 != 0 && data[2] == 1 {
				a.sslv2(d, data, t)
				return
			}
			n := copy(s.head[s.nhead:], data)
			s.nhead += n
			data = data[n:]
			if s.nhead < len(s.head) {
				return
			}
			s.typ, s.remain = s.head[0], int(binary.BigEndian.Uint16(s.head[3:]))
			if s.typ < recCCS || s.typ > recHeartbeat || s.head[1] != 3 && s.head[1] != 0x7f || s.remain > maxRecord {
				a.violation(d, t)
				return
			}
			if a.begin(d, t); s.remain == 0 {
				s.nhead = 0
			}
			continue
		}
		n := min(len(data), s.remain)
		a.fragment(d, data[:n], t)
		data = data[n:]
		if s.remain -= n; s.remain == 0 {
			s.nhead, s.nalert = 0, 0
		}
	}
}

// violation ends what is not TLS.
func (a *tlsAnalyzer) violation(d Dir, _ int64) {
	a.side[d].off = true
	a.set.Stats.Malformed++
	if !a.h.client && !a.h.server {
		a.side[d.other()].off = true
	}
}

// begin looks at a record whose header is whole.
func (a *tlsAnalyzer) begin(d Dir, _ int64) {
	s := &a.side[d]
	switch {
	case s.typ == recData && modern(a.h.version) && a.h.server:
		s.encrypted = true
		fallthrough
	case s.encrypted && s.typ != recCCS:
		a.ciphertext()
	}
}

// ciphertext notes that an encrypted record came: with both sides encrypted
// the connection is established, and there is no more to be learnt.
func (a *tlsAnalyzer) ciphertext() {
	if a.side[Orig].encrypted && a.side[Resp].encrypted && !a.h.established {
		a.h.established = true
		a.write()
	}
}

// fragment takes bytes of a record.
func (a *tlsAnalyzer) fragment(d Dir, b []byte, t int64) {
	s := &a.side[d]
	if s.encrypted {
		return
	}
	switch s.typ {
	case recCCS:
		a.changeCipher(d)
	case recAlert:
		if s.nalert < len(s.alert) {
			if s.nalert += copy(s.alert[s.nalert:], b); s.nalert == len(s.alert) {
				a.h.alert = int(s.alert[1])
			}
		}
	case recHandshake:
		a.handshake(d, b, t)
	}
}

// changeCipher notes that a side encrypts from here on. In TLS 1.3 the
// message is there for middleboxes and means nothing. A client that sends data
// at once does not wait for the server to choose the version.
func (a *tlsAnalyzer) changeCipher(d Dir) {
	if !a.h.server {
		a.side[d].early = true
		return
	}
	if modern(a.h.version) {
		return
	}
	a.side[d].encrypted = true
	if d == a.client && a.h.ticket && !a.h.keyExchange {
		a.h.resumed = true
	}
}

// handshake takes bytes of handshake messages, which are not bound to records.
func (a *tlsAnalyzer) handshake(d Dir, b []byte, t int64) {
	s := &a.side[d]
	for len(b) > 0 && !s.off {
		if s.skip > 0 {
			n := min(s.skip, len(b))
			s.skip, b = s.skip-n, b[n:]
			continue
		}
		if len(s.hs) == 0 && len(b) >= 4 { // a whole message needs no copy
			if n := 4 + int(b[1])<<16 + int(b[2])<<8 + int(b[3]); n <= len(b) {
				a.message(d, b[0], b[4:n], t)
				b = b[n:]
				continue
			}
		}
		need := 4
		if len(s.hs) >= 4 {
			need += int(s.hs[1])<<16 + int(s.hs[2])<<8 + int(s.hs[3])
			if need > maxHandshake {
				a.set.Stats.LongHandshakes++
				s.skip, s.hs = need-len(s.hs), s.hs[:0]
				continue
			}
		}
		n := min(need-len(s.hs), len(b))
		s.hs = append(s.hs, b[:n]...)
		b = b[n:]
		if len(s.hs) < 4 || len(s.hs) != 4+int(s.hs[1])<<16+int(s.hs[2])<<8+int(s.hs[3]) {
			continue
		}
		a.message(d, s.hs[0], s.hs[4:], t)
		s.hs = s.hs[:0]
	}
}

// message takes one whole message of the handshake.
func (a *tlsAnalyzer) message(d Dir, typ byte, body []byte, t int64) {
	if !a.h.client && !a.h.server {
		a.h.t = t
	}
	server := d != a.client
	switch typ {
	case msgClientHello:
		kind := byte('t')
		if a.dtls {
			kind = 'd'
		}
		if !a.h.clientHello(a.set, body, kind) {
			a.violation(d, t)
			return
		}
		a.client = d
		a.confirm()
	case msgServerHello:
		if !a.h.client {
			a.client = d.other()
		}
		if !a.h.serverHello(a.set, body) {
			a.violation(d, t)
			return
		}
		if a.side[a.client].early {
			a.changeCipher(a.client)
		}
		a.confirm()
	case msgCertificate:
		if modern(a.h.version) {
			return
		}
		list := cursor{b: body}
		a.h.certificates(a.set, a.conn, list.vec24(), server, t)
	case msgServerKey:
		a.h.keyShare(body)
	case msgClientKey:
		a.h.keyExchange = true
	}
}

func (a *tlsAnalyzer) confirm() {
	if a.said {
		return
	}
	a.said = true
	if a.dtls {
		a.conn.Service("dtls")
	} else {
		a.conn.Service("ssl")
	}
}

// sslv2 takes a hello of SSL 2, in which clients of old offered later
// versions too. It comes in one segment.
func (a *tlsAnalyzer) sslv2(d Dir, data []byte, t int64) {
	s := &a.side[d]
	n := int(data[0]&0x7f)<<8 | int(data[1])
	if n < 9 || 2+n > len(data) {
		a.violation(d, t)
		return
	}
	c := cursor{b: data[3 : 2+n]}
	version := c.u16()
	ciphers, session := int(c.u16()), int(c.u16())
	c.u16() // the challenge
	list := c.take(ciphers)
	c.take(session)
	if c.bad || version != sslv2 && version>>8 != 3 {
		a.violation(d, t)
		return
	}
	a.h.t, a.h.client, a.client = t, true, d
	a.confirm()
	codes := make([]byte, 0, len(list)/3*2)
	for ; len(list) >= 3; list = list[3:] {
		if list[0] == 0 {
			codes = append(codes, list[1], list[2])
		}
	}
	a.h.printJA3(a.set, version, codes, nil, nil, nil)
	a.h.printJA4(a.set, 't', version, nil, codes, nil, nil)
	if version == sslv2 {
		s.off = true
		return
	}
	a.Data(d, data[2+n:], t)
}

// isTLS reports whether b begins like a handshake record with a hello.
func isTLS(b []byte) bool {
	return len(b) >= 6 && b[0] == recHandshake && b[1] == 3 && b[2] <= 4 && b[3] < 0x48 &&
		(b[5] == msgClientHello || b[5] == msgServerHello)
}

// isSSLv2Hello reports whether b begins like a client's hello of SSL 2.
func isSSLv2Hello(b []byte) bool {
	if len(b) < 11 || b[0]&0x80 == 0 || b[2] != 1 || b[3] > 3 || b[3] == 0 && b[4] != 2 {
		return false
	}
	n := int(b[0]&0x7f)<<8 | int(b[1])
	ciphers, session, challenge := int(b[5])<<8|int(b[6]), int(b[7])<<8|int(b[8]), int(b[9])<<8|int(b[10])
	return ciphers%3 == 0 && ciphers > 0 && challenge >= 16 && challenge <= 32 && n == 9+ciphers+session+challenge
}

// The lengths of the headers of DTLS.
const (
	dtlsRecord  = 13
	dtlsMessage = 12
)

// isDTLS reports whether b is a datagram with a hello of DTLS.
func isDTLS(b []byte) bool {
	return len(b) >= dtlsRecord+dtlsMessage && b[0] == recHandshake && b[1] == 0xfe && (b[2] == 0xff || b[2] == 0xfd) &&
		b[3] == 0 && b[4] == 0 && (b[dtlsRecord] == msgClientHello || b[dtlsRecord] == msgServerHello)
}

// datagram takes the records of one datagram of DTLS.
func (a *tlsAnalyzer) datagram(d Dir, b []byte, t int64) {
	s := &a.side[d]
	for len(b) > 0 && !a.done && !s.off {
		if b[0]&0xe0 == 0x20 && a.h.server && a.h.version == dtls13 { // a ciphertext's header, RFC 9147
			s.encrypted = true
			a.ciphertext()
			return
		}
		if len(b) < dtlsRecord || b[0] < recCCS || b[0] > recHeartbeat || b[1] != 0xfe {
			if !a.h.client && !a.h.server {
				a.violation(d, t)
			}
			return
		}
		epoch, n := binary.BigEndian.Uint16(b[3:]), int(binary.BigEndian.Uint16(b[11:]))
		typ := b[0]
		if dtlsRecord+n > len(b) {
			a.set.Stats.Malformed++
			return
		}
		body := b[dtlsRecord : dtlsRecord+n]
		b = b[dtlsRecord+n:]
		switch {
		case epoch > 0:
			s.encrypted = true
			a.ciphertext()
		case typ == recAlert && len(body) >= 2:
			a.h.alert = int(body[1])
		case typ == recCCS:
			a.changeCipher(d)
			s.encrypted = false // the epoch tells
		case typ == recHandshake:
			a.dtlsFragments(d, body, t)
		}
	}
}

// dtlsFragments takes the fragments of handshake messages in a record. They
// are put together when they come in order, as they do but for losses.
func (a *tlsAnalyzer) dtlsFragments(d Dir, b []byte, t int64) {
	s := &a.side[d]
	for len(b) >= dtlsMessage {
		typ := b[0]
		total := int(b[1])<<16 | int(b[2])<<8 | int(b[3])
		off := int(b[6])<<16 | int(b[7])<<8 | int(b[8])
		n := int(b[9])<<16 | int(b[10])<<8 | int(b[11])
		if dtlsMessage+n > len(b) || off+n > total {
			a.set.Stats.Malformed++
			return
		}
		part := b[dtlsMessage : dtlsMessage+n]
		b = b[dtlsMessage+n:]
		switch {
		case total > maxHandshake:
			a.set.Stats.LongHandshakes++
		case n == total:
			a.message(d, typ, part, t)
		case off == 0 || off == len(s.hs):
			if off == 0 {
				s.hs = s.hs[:0]
			}
			if s.hs = append(s.hs, part...); len(s.hs) == total {
				a.message(d, typ, s.hs, t)
				s.hs = s.hs[:0]
			}
		}
	}
}
