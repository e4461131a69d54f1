package proto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"unsafe"

	"github.com/slips-go/slips/parsers/flow"
)

// Bounds of QUIC.
const (
	maxCrypto    = 16 << 10 // bytes of a hello; with post-quantum keys they are 1.5 KB to 4 KB
	maxPieces    = 64       // pieces in which it comes
	maxQUICTries = 32       // datagrams of a direction after which the handshake is given up
	quicV1       = 0x00000001
	quicV2       = 0x6b3343cf
	quicDraft29  = 0xff00001d
)

// quicSalts are the salts of the initial secrets: RFC 9001, RFC 9369, draft 29.
func quicSalt(version uint32) []byte {
	switch version {
	case quicV1:
		return []byte("\x38\x76\x2c\xf7\xf5\x59\x34\xb3\x4d\x17\x9a\xe6\xa4\xc8\x0c\xad\xcc\xbb\x7f\x0a")
	case quicV2:
		return []byte("\x0d\xed\xe3\xde\xf7\x00\xa6\xdb\x81\x93\x81\xbe\x6e\x26\x9d\xcb\xf9\xbd\x2e\xd9")
	case quicDraft29:
		return []byte("\xaf\xbf\xec\x28\x99\x93\xd2\x4c\x9e\x97\x86\xf1\x9c\x61\x11\xe0\x43\x90\xa8\x99")
	}
	return nil
}

// isQUICInitial reports whether b is a datagram that begins with an Initial
// packet of a version that can be opened.
func isQUICInitial(b []byte) bool {
	if len(b) < 64 || b[0]&0xc0 != 0xc0 {
		return false
	}
	v := binary.BigEndian.Uint32(b[1:])
	return quicSalt(v) != nil && isInitial(b[0], v) && b[5] <= 20
}

// isInitial reports whether the first byte of a long header is an Initial's.
func isInitial(first byte, version uint32) bool {
	if version == quicV2 {
		return first>>4&3 == 1
	}
	return first>>4&3 == 0
}

// quicKeys open the Initial packets of one direction.
type quicKeys struct {
	aead cipher.AEAD
	hp   cipher.Block
	iv   [12]byte
}

// quicSide is one direction.
type quicSide struct {
	keys      quicKeys
	crypto    []byte
	pieces    [maxPieces][2]uint32 // of crypto that came, from and to
	npieces   int
	whole     uint32 // how far they reach without a hole
	datagrams int
	hello     bool
	short     bool // a packet of the established connection came
}

// quicAnalyzer opens the Initial packets of QUIC, whose keys follow from what
// is in the clear, and reads the hellos in them.
type quicAnalyzer struct {
	set     *Set
	conn    Conn
	side    [2]quicSide
	h       handshake
	t       int64
	version uint32
	client  Dir
	id      [20]byte // destination id of the client's first Initial
	nid     int
	keyed   bool
	secret  [sha256.Size]byte
	said    bool
	done    bool
	buf     []byte // scratch for an opened packet
}

func (s *Set) newQUIC(c Conn) *quicAnalyzer {
	a := s.quic.get()
	a.reset()
	a.set, a.conn = s, c
	return a
}

// reset empties a, keeping a bounded part of its memory.
func (a *quicAnalyzer) reset() {
	h, buf, crypto := a.h, spare(a.buf), [2][]byte{spare(a.side[0].crypto), spare(a.side[1].crypto)}
	h.reset()
	*a = quicAnalyzer{h: h, buf: buf}
	a.side[0].crypto, a.side[1].crypto = crypto[0], crypto[1]
}

// Wants implements Analyzer.
func (a *quicAnalyzer) Wants(d Dir) bool { return !a.done && a.side[d].datagrams < maxQUICTries }

// Held implements Analyzer.
func (a *quicAnalyzer) Held() int {
	const keys = 2 << 10 // bytes that the ciphers of a direction take
	n := int(unsafe.Sizeof(*a)) + cap(a.buf) + a.h.held()
	for d := range a.side {
		if n += cap(a.side[d].crypto); a.side[d].keys.aead != nil {
			n += keys
		}
	}
	return n
}

// Gap implements Analyzer; datagrams have none.
func (a *quicAnalyzer) Gap(Dir, int64, int64) {}

// End implements Analyzer.
func (a *quicAnalyzer) End(int64) { a.write() }

// write writes two records, as Zeek does: what QUIC says, and the handshake
// of TLS inside.
func (a *quicAnalyzer) write() {
	if a.done {
		return
	}
	a.done = true
	if !a.keyed {
		return
	}
	f := a.conn.Record(flow.QUIC, a.t)
	switch a.version {
	case quicV1:
		f.SSL.Version = "1"
	case quicV2:
		f.SSL.Version = "quicv2"
	case quicDraft29:
		f.SSL.Version = "draft-29"
	}
	f.SSL.ServerName = a.set.text(f, a.h.sni)
	f.SSL.NextProtocol = a.set.text(f, a.h.asked)
	if a.h.client {
		f.SSL.JA3, f.SSL.JA4 = held(f, a.h.ja3[:]), a.set.text(f, a.h.ja4)
	}
	a.conn.Emit(f)
	if a.h.client || a.h.server {
		f := a.conn.Record(flow.SSL, a.h.t)
		a.h.fill(a.set, f)
		a.conn.Emit(f)
	}
}

// Data implements Analyzer.
func (a *quicAnalyzer) Data(d Dir, b []byte, t int64) {
	if a.done {
		return
	}
	s := &a.side[d]
	s.datagrams++
	first := longID(b)
	for len(b) > 0 {
		if b[0]&0x80 == 0 { // a short header
			if s.short = true; a.side[d.other()].short && a.h.server {
				a.h.established = true
				a.write()
			}
			break
		}
		// Packets to another id than the first are for nobody, RFC 9000 section
		// 12.2. So keys, which cost most, are derived for one id of a datagram.
		if !bytes.Equal(longID(b), first) {
			break
		}
		n := a.packet(d, b, t)
		if n == 0 {
			break
		}
		b = b[n:]
	}
	if a.side[Orig].datagrams >= maxQUICTries && a.side[Resp].datagrams >= maxQUICTries {
		a.write()
	}
}

// varint reads a number of variable length, RFC 9000 section 16.
func (c *cursor) varint() uint64 {
	if len(c.b) == 0 {
		c.bad = true
		return 0
	}
	n := 1 << (c.b[0] >> 6)
	b := c.take(n)
	if b == nil {
		return 0
	}
	v := uint64(b[0] & 0x3f)
	for _, x := range b[1:] {
		v = v<<8 | uint64(x)
	}
	return v
}

// longID returns the destination id in a long header; nil if it is not whole.
func longID(b []byte) []byte {
	if len(b) < 6 || len(b) < 6+int(b[5]) {
		return nil
	}
	return b[6 : 6+int(b[5])]
}

// packet takes the packet with a long header at the beginning of b and
// returns its length; 0 when what follows cannot be read.
func (a *quicAnalyzer) packet(d Dir, b []byte, t int64) int {
	c := cursor{b: b}
	first := byte(c.u8())
	version := uint32(c.u32())
	dcid := c.vec8()
	scid := c.vec8()
	if c.bad || len(dcid) > 20 || len(scid) > 20 || version == 0 || quicSalt(version) == nil {
		return 0
	}
	if !isInitial(first, version) {
		typ := first >> 4 & 3
		if version == quicV2 {
			typ = (typ + 3) & 3
		}
		if typ == 3 { // Retry
			if d != a.client && len(scid) <= len(a.id) {
				a.nid, a.keyed = copy(a.id[:], scid), false // the client's next Initial goes there, with keys from it
			}
			return 0
		}
		n := c.varint() // 0-RTT, Handshake
		if c.bad || n > uint64(len(c.b)) {
			return 0
		}
		return len(b) - len(c.b) + int(n)
	}
	token := c.varint()
	if token > uint64(len(c.b)) {
		return 0
	}
	c.take(int(token))
	n := c.varint()
	if c.bad || n > uint64(len(c.b)) || n < 20 {
		return 0
	}
	at := len(b) - len(c.b) // of the packet number
	total := at + int(n)
	if a.side[d].hello {
		return total
	}
	if !a.keyed {
		if a.nid == 0 || a.t == 0 {
			if a.t == 0 {
				a.client = d
			}
			a.nid = copy(a.id[:], dcid)
		}
		if !a.derive(version) {
			return total
		}
	}
	payload, ok := a.open(d, b[:total], at)
	if !ok && d == a.client && len(dcid) > 0 && !a.h.client && !bytes.Equal(dcid, a.id[:a.nid]) { // another id, as after a Retry that was not seen
		a.nid = copy(a.id[:], dcid)
		if a.derive(version) {
			payload, ok = a.open(d, b[:total], at)
		}
	}
	if !ok {
		a.set.Stats.Undecrypted++
		return total
	}
	if a.t == 0 {
		a.t = t
	}
	if !a.said {
		a.said = true
		a.conn.Service("quic")
	}
	a.frames(d, payload, t)
	return total
}

// derive computes the secret of both directions from the client's id. The
// keys follow when they are needed.
func (a *quicAnalyzer) derive(version uint32) bool {
	secret, err := hkdf.Extract(sha256.New, a.id[:a.nid], quicSalt(version))
	if err != nil {
		return false
	}
	a.secret, a.version, a.keyed = [sha256.Size]byte(secret), version, true
	a.side[Orig].keys, a.side[Resp].keys = quicKeys{}, quicKeys{}
	return true
}

// keys returns the keys of a direction; nil if there are none.
func (a *quicAnalyzer) keys(d Dir) *quicKeys {
	k := &a.side[d].keys
	name := "client in"
	if d != a.client {
		name = "server in"
	}
	if k.aead == nil && !k.derive(a.secret[:], name, a.version) {
		return nil
	}
	return k
}

// expandLabel is HKDF-Expand-Label of TLS 1.3 with an empty context.
func expandLabel(secret []byte, label string, n int) ([]byte, error) {
	info := append(make([]byte, 0, 32), 0, byte(n), byte(len("tls13 ")+len(label)))
	info = append(append(info, "tls13 "...), label...)
	return hkdf.Expand(sha256.New, secret, string(append(info, 0)), n)
}

func (k *quicKeys) derive(initial []byte, name string, version uint32) bool {
	prefix := "quic "
	if version == quicV2 {
		prefix = "quicv2 "
	}
	secret, err := expandLabel(initial, name, sha256.Size)
	if err != nil {
		return false
	}
	key, err1 := expandLabel(secret, prefix+"key", 16)
	iv, err2 := expandLabel(secret, prefix+"iv", len(k.iv))
	hp, err3 := expandLabel(secret, prefix+"hp", 16)
	if err1 != nil || err2 != nil || err3 != nil {
		return false
	}
	copy(k.iv[:], iv)
	block, err := aes.NewCipher(key)
	if err != nil {
		return false
	}
	if k.aead, err = cipher.NewGCM(block); err != nil {
		return false
	}
	k.hp, err = aes.NewCipher(hp)
	return err == nil
}

// open takes the protection of a packet off, RFC 9001 sections 5.3 and 5.4.
// at is where the packet number is. The result is valid until the next call.
func (a *quicAnalyzer) open(d Dir, packet []byte, at int) (payload []byte, ok bool) {
	k := a.keys(d)
	if k == nil || at+4+16 > len(packet) {
		return nil, false
	}
	var mask [aes.BlockSize]byte
	k.hp.Encrypt(mask[:], packet[at+4:at+4+16])
	a.buf = append(a.buf[:0], packet...)
	b := a.buf
	b[0] ^= mask[0] & 0x0f
	n := int(b[0]&3) + 1
	number := uint64(0)
	for i := range n {
		b[at+i] ^= mask[1+i]
		number = number<<8 | uint64(b[at+i])
	}
	nonce := k.iv
	for i := range 8 {
		nonce[len(nonce)-1-i] ^= byte(number >> (8 * i))
	}
	payload, err := k.aead.Open(b[at+n:at+n], nonce[:], b[at+n:], b[:at+n])
	return payload, err == nil
}

// frames takes the frames that may be in an Initial packet.
func (a *quicAnalyzer) frames(d Dir, b []byte, t int64) {
	c := cursor{b: b}
	for len(c.b) > 0 && !c.bad {
		switch typ := c.varint(); typ {
		case 0: // padding, most of the packet
			c.b = bytes.TrimLeft(c.b, "\x00")
		case 1: // ping
		case 2, 3: // acknowledgement
			c.varint()
			c.varint()
			ranges := c.varint()
			c.varint()
			for range min(ranges, uint64(len(c.b))) {
				c.varint()
				c.varint()
			}
			if typ == 3 {
				c.varint()
				c.varint()
				c.varint()
			}
		case 6: // crypto
			off, n := c.varint(), c.varint()
			if n > uint64(len(c.b)) {
				return
			}
			if piece := c.take(int(n)); !c.bad {
				a.crypto(d, off, piece, t)
			}
		default: // connection close, or nonsense
			return
		}
	}
}

// crypto takes a piece of the hello and reads it when it is whole.
func (a *quicAnalyzer) crypto(d Dir, off uint64, piece []byte, t int64) {
	s := &a.side[d]
	end := off + uint64(len(piece))
	if s.hello || len(piece) == 0 {
		return
	}
	if off > maxCrypto || end > maxCrypto || s.npieces == maxPieces {
		a.set.Stats.LongHandshakes++
		return
	}
	if need := int(end); need > len(s.crypto) {
		s.crypto = append(s.crypto, make([]byte, need-len(s.crypto))...)
	}
	copy(s.crypto[off:], piece)
	s.pieces[s.npieces] = [2]uint32{uint32(off), uint32(end)}
	s.npieces++
	for again := true; again; { // each piece carries it on once at most
		again = false
		for _, p := range s.pieces[:s.npieces] {
			if p[0] <= s.whole && p[1] > s.whole {
				s.whole, again = p[1], true
			}
		}
	}
	if s.whole < 4 {
		return
	}
	n := uint32(s.crypto[1])<<16 | uint32(s.crypto[2])<<8 | uint32(s.crypto[3])
	if s.whole < 4+n {
		return
	}
	if !a.h.client && !a.h.server {
		a.h.t = t
	}
	body := s.crypto[4 : 4+n]
	switch s.crypto[0] {
	case msgClientHello:
		a.h.clientHello(a.set, body, 'q')
	case msgServerHello:
		if a.h.serverHello(a.set, body) {
			a.conn.Service("ssl")
		}
	}
	s.hello = true
}
