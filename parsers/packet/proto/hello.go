package proto

import (
	"crypto/md5" //nolint:gosec // JA3 is defined by MD5
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"

	"github.com/slips-go/slips/parsers/flow"
)

// Bounds of a TLS handshake.
const (
	maxCerts   = 16  // certificates of a chain that are logged
	maxCiphers = 512 // ciphers and extensions of a hello that are fingerprinted
)

// The versions that matter.
const (
	sslv2   = 0x0002
	tls12   = 0x0303
	tls13   = 0x0304
	dtls10  = 0xfeff
	dtls12  = 0xfefd
	dtls13  = 0xfefc
	retryed = "\xCF\x21\xAD\x74\xE5\x9A\x61\x11\xBE\x1D\x8C\x02\x1E\x65\xB8\x91\xC2\xA2\x11\x16\x7A\xBB\x8C\x5E\x07\x9E\x09\xE2\xC8\xA8\x33\x9C"
)

// handshake is what the messages of a TLS, DTLS or QUIC handshake said.
type handshake struct {
	t              int64 // of the first message
	client, server bool  // the hello was seen
	version        uint16
	cipher, curve  uint16
	hasCurve       bool
	sni            []byte
	hasSNI         bool
	alpn           []byte // that the server chose
	asked          []byte // the first that the client offered
	ja3, ja3s      [md5.Size]byte
	ja4            []byte
	session        []byte // id that the client offered
	ticket         bool   // the client sent a ticket and no session id
	psk            bool
	keyExchange    bool
	resumed        bool
	established    bool
	alert          int // -1: none
	chain          [2]chain
	judged         bool // a chain of the server
}

// chain is what is logged of the certificates of one side.
type chain struct {
	n       int
	sha256  [maxCerts][sha256.Size]byte
	sha1    []byte // of the first
	subject []byte
	issuer  []byte
	serial  []byte
	from    int64
	to      int64
	match   flow.Tri // the server's name is one of the certificate's
	status  string   // the verdict about a server's chain, empty if there is none
}

// reset empties h, keeping its memory.
func (h *handshake) reset() {
	o := *h
	*h = handshake{alert: -1, sni: o.sni[:0], alpn: o.alpn[:0], asked: o.asked[:0], ja4: o.ja4[:0], session: o.session[:0]}
	for i := range h.chain {
		c := &o.chain[i]
		h.chain[i] = chain{subject: spare(c.subject), issuer: spare(c.issuer), serial: spare(c.serial), sha1: c.sha1[:0]}
	}
}

// held returns the bytes of memory behind h.
func (h *handshake) held() int {
	n := cap(h.sni) + cap(h.alpn) + cap(h.asked) + cap(h.ja4) + cap(h.session)
	for i := range h.chain {
		c := &h.chain[i]
		n += cap(c.sha1) + cap(c.subject) + cap(c.issuer) + cap(c.serial)
	}
	return n
}

// cursor reads fields; after the first that is not there, bad is set and
// everything is empty.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if n > len(c.b) {
		c.bad, c.b = true, nil
		return nil
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

func (c *cursor) u8() int {
	if b := c.take(1); b != nil {
		return int(b[0])
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) u24() int {
	if b := c.take(3); b != nil {
		return int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	}
	return 0
}

func (c *cursor) u32() int {
	if b := c.take(4); b != nil {
		return int(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (c *cursor) vec8() []byte  { return c.take(c.u8()) }
func (c *cursor) vec16() []byte { return c.take(int(c.u16())) }
func (c *cursor) vec24() []byte { return c.take(c.u24()) }

// grease reports whether v is one of the values of RFC 8701 that clients put
// in at random.
func grease(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

// clientHello takes the body of a ClientHello. kind is JA4's letter of the
// transport: t, d or q.
func (h *handshake) clientHello(s *Set, body []byte, kind byte) bool {
	c := cursor{b: body}
	version := c.u16()
	c.take(32)
	session := c.vec8()
	if kind == 'd' {
		c.vec8() // cookie
	}
	ciphers := c.vec16()
	c.vec8() // compression
	if c.bad {
		return false
	}
	exts := c.vec16()
	again := h.client // asked to by the server; the fingerprints are those of the first
	h.client = true
	h.session = append(h.session[:0], session...)
	if len(session) > 0 {
		h.ticket = false
	}

	var curves, algs, versions []byte
	var formats []byte
	var order [maxCiphers]uint16 // the extensions
	n := 0
	h.hasSNI = false
	h.asked = h.asked[:0]
	for e := (cursor{b: exts}); len(e.b) > 0; {
		code := e.u16()
		v := e.vec16()
		if e.bad {
			break
		}
		if n < maxCiphers {
			order[n] = code
			n++
		}
		x := cursor{b: v}
		switch code {
		case 0:
			h.hasSNI = true
			h.takeSNI(x.vec16())
		case 10:
			curves = x.vec16()
		case 11:
			formats = x.vec8()
		case 13:
			algs = x.vec16()
		case 16:
			l := cursor{b: x.vec16()}
			h.asked = append(h.asked[:0], l.vec8()...)
		case 35:
			if len(v) > 0 && len(session) == 0 {
				h.ticket = true
			}
		case 41:
			h.psk = true
		case 43:
			versions = x.vec8()
		}
	}
	if !again {
		h.printJA3(s, version, ciphers, order[:n], curves, formats)
		h.printJA4(s, kind, version, versions, ciphers, order[:n], algs)
	}
	return true
}

// takeSNI takes the first name of the server name extension.
func (h *handshake) takeSNI(list []byte) {
	h.sni = h.sni[:0]
	for l := (cursor{b: list}); len(l.b) > 0; {
		typ, name := l.u8(), l.vec16()
		if l.bad {
			return
		}
		if typ == 0 && len(name) > 0 {
			h.sni = append(h.sni, name[:min(len(name), 1024)]...)
			return
		}
	}
}

// dashed appends the 16-bit numbers of list in decimal with dashes between
// them, without GREASE.
func dashed(b, list []byte) []byte {
	for first := true; len(list) >= 2; list = list[2:] {
		v := binary.BigEndian.Uint16(list)
		if grease(v) {
			continue
		}
		if !first {
			b = append(b, '-')
		}
		first = false
		b = strconv.AppendUint(b, uint64(v), 10)
	}
	return b
}

// dashedCodes is dashed for numbers that are decoded.
func dashedCodes(b []byte, list []uint16) []byte {
	first := true
	for _, v := range list {
		if grease(v) {
			continue
		}
		if !first {
			b = append(b, '-')
		}
		first = false
		b = strconv.AppendUint(b, uint64(v), 10)
	}
	return b
}

// printJA3 computes the client's JA3: version, ciphers, extensions, curves
// and point formats in decimal, all without GREASE.
func (h *handshake) printJA3(s *Set, version uint16, ciphers []byte, exts []uint16, curves, formats []byte) {
	b := strconv.AppendUint(s.buf[:0], uint64(version), 10)
	b = append(b, ',')
	b = dashed(b, ciphers)
	b = append(b, ',')
	b = dashedCodes(b, exts)
	b = append(b, ',')
	b = dashed(b, curves)
	b = append(b, ',')
	for i, f := range formats {
		if i > 0 {
			b = append(b, '-')
		}
		b = strconv.AppendUint(b, uint64(f), 10)
	}
	h.ja3 = md5.Sum(b) //nolint:gosec // JA3 is defined by MD5
	s.buf = b[:0]
}

// printJA4 computes the client's JA4 as FoxIO's specification of it says.
func (h *handshake) printJA4(s *Set, kind byte, version uint16, versions, ciphers []byte, exts []uint16, algs []byte) {
	for v := versions; len(v) >= 2; v = v[2:] {
		if o := binary.BigEndian.Uint16(v); !grease(o) && (version == 0 || newer(o, version)) {
			version = o
		}
	}
	var list [maxCiphers]uint16
	n := 0
	for ; len(ciphers) >= 2 && n < maxCiphers; ciphers = ciphers[2:] {
		if v := binary.BigEndian.Uint16(ciphers); !grease(v) {
			list[n] = v
			n++
		}
	}
	ncipher := n
	next := 0
	for _, e := range exts {
		if !grease(e) {
			next++
		}
	}
	b := append(h.ja4[:0], kind)
	b = append(b, ja4Version(version)...)
	if h.hasSNI {
		b = append(b, 'd')
	} else {
		b = append(b, 'i')
	}
	b = append(b, byte('0'+min(ncipher, 99)/10), byte('0'+min(ncipher, 99)%10))
	b = append(b, byte('0'+min(next, 99)/10), byte('0'+min(next, 99)%10))
	if a := h.asked; len(a) == 0 {
		b = append(b, '0', '0')
	} else if first, last := a[0], a[len(a)-1]; alnum(first) && alnum(last) {
		b = append(b, first, last)
	} else {
		b = append(b, hexDigits[first>>4], hexDigits[last&15])
	}
	b = append(b, '_')
	slices.Sort(list[:n])
	text := hexList(s.buf[:0], list[:n])
	b = appendJA4Hash(b, text)
	b = append(b, '_')
	n = 0
	for _, e := range exts {
		if !grease(e) && e != 0 && e != 16 {
			list[n] = e
			n++
		}
	}
	slices.Sort(list[:n])
	text = hexList(text[:0], list[:n])
	if len(algs) >= 2 && n > 0 {
		sep := byte('_')
		for ; len(algs) >= 2; algs = algs[2:] {
			if v := binary.BigEndian.Uint16(algs); !grease(v) {
				text = append(text, sep)
				text = hexText(text, algs[:2])
				sep = ','
			}
		}
	}
	h.ja4 = appendJA4Hash(b, text)
	s.buf = text[:0]
}

// newer compares versions; those of DTLS count down.
func newer(a, b uint16) bool {
	if a>>8 == 0xfe && b>>8 == 0xfe {
		return a < b
	}
	return a > b
}

func alnum(c byte) bool { return '0' <= c && c <= '9' || 'a' <= lower(c) && lower(c) <= 'z' }

// hexList appends numbers in four hexadecimal digits with commas between them.
func hexList(b []byte, list []uint16) []byte {
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, hexDigits[v>>12], hexDigits[v>>8&15], hexDigits[v>>4&15], hexDigits[v&15])
	}
	return b
}

// appendJA4Hash appends the first 12 hexadecimal digits of the SHA-256 of
// text; zeros when it is empty.
func appendJA4Hash(b, text []byte) []byte {
	if len(text) == 0 {
		return append(b, "000000000000"...)
	}
	sum := sha256.Sum256(text)
	return hexText(b, sum[:6])
}

func ja4Version(v uint16) string {
	switch v {
	case tls13:
		return "13"
	case tls12:
		return "12"
	case 0x0302:
		return "11"
	case 0x0301:
		return "10"
	case 0x0300:
		return "s3"
	case sslv2:
		return "s2"
	case dtls10:
		return "d1"
	case dtls12:
		return "d2"
	case dtls13:
		return "d3"
	}
	return "00"
}

// serverHello takes the body of a ServerHello. The request to try again with
// another key, which has the same form, is one too.
func (h *handshake) serverHello(s *Set, body []byte) bool {
	c := cursor{b: body}
	version := c.u16()
	random := c.take(32)
	var session []byte
	draft := version>>8 == 0x7f && version < 0x7f16 // before draft 22 there was no session
	if !draft {
		session = c.vec8()
	}
	cipher := c.u16()
	if !draft {
		c.u8() // compression
	}
	if c.bad {
		return false
	}
	legacy := version
	again := string(random) == retryed
	var order [maxCiphers]uint16
	n := 0
	exts := c.vec16()
	for e := (cursor{b: exts}); len(e.b) > 0; {
		code := e.u16()
		v := e.vec16()
		if e.bad {
			break
		}
		if n < maxCiphers {
			order[n] = code
			n++
		}
		x := cursor{b: v}
		switch code {
		case 16:
			l := cursor{b: x.vec16()}
			h.alpn = append(h.alpn[:0], l.vec8()...)
		case 41:
			h.resumed = h.resumed || h.psk
		case 43:
			if v := x.u16(); !x.bad {
				version = v
			}
		case 51, 40:
			if v := x.u16(); !x.bad {
				h.curve, h.hasCurve = v, true
			}
		}
	}
	h.server = true
	h.version, h.cipher = version, cipher
	if len(session) > 0 && string(session) == string(h.session) && !modern(version) {
		h.resumed = true
	}
	if again {
		return true
	}
	b := strconv.AppendUint(s.buf[:0], uint64(legacy), 10)
	b = append(b, ',')
	b = strconv.AppendUint(b, uint64(cipher), 10)
	b = append(b, ',')
	b = dashedCodes(b, order[:n])
	h.ja3s = md5.Sum(b) //nolint:gosec // JA3S is defined by MD5
	s.buf = b[:0]
	return true
}

// modern reports whether a version is 1.3 or a draft of it: what follows the
// hellos is encrypted.
func modern(v uint16) bool { return v == tls13 || v>>8 == 0x7f || v == dtls13 }

// keyShare takes the body of a ServerKeyExchange, for its curve.
func (h *handshake) keyShare(body []byte) {
	if len(body) >= 4 && body[0] == 3 && s2ecdhe(h.cipher) { // a named curve
		h.curve, h.hasCurve = binary.BigEndian.Uint16(body[1:]), true
	}
}

// s2ecdhe reports whether a cipher of TLS 1.2 and before exchanges keys by
// elliptic curves: only then is the first byte of the message a curve type.
func s2ecdhe(c uint16) bool {
	switch {
	case c>>8 == 0xc0:
		n := c & 0xff
		return n >= 0x01 && n <= 0x19 || n >= 0x23 && n <= 0x3b || n >= 0x48 && n <= 0x4f || n >= 0x5c && n <= 0x63 ||
			n >= 0x70 && n <= 0x79 || n >= 0x86 && n <= 0x8d || n >= 0x9a && n <= 0x9b || n >= 0xac && n <= 0xaf
	case c == 0xcca8, c == 0xcca9, c == 0xccac, c == 0xcc13, c == 0xcc14, c>>8 == 0xd0:
		return true
	}
	return false
}

// fill sets what the handshake says in an SSL or QUIC record.
func (h *handshake) fill(s *Set, f *flow.Flow) {
	p := f.SSL
	if h.server {
		p.Version = versionName(f, h.version)
		p.Cipher = s.cipherName(f, h.cipher)
		if h.ja3s != ([md5.Size]byte{}) {
			p.JA3S = held(f, h.ja3s[:])
		}
	}
	if h.hasCurve {
		p.Curve = curveName(f, h.curve)
	}
	p.ServerName = s.text(f, h.sni)
	p.NextProtocol = s.text(f, h.alpn)
	if h.alert >= 0 {
		p.LastAlert = alertName(f, h.alert)
	}
	p.Resumed, p.Established = flow.TriOf(h.resumed), flow.TriOf(h.established)
	if h.client {
		p.JA3 = held(f, h.ja3[:])
		p.JA4 = s.text(f, h.ja4)
	}
	for i := range h.chain {
		c := &h.chain[i]
		for j := range c.n {
			fp := held(f, c.sha256[j][:])
			if i == 0 {
				p.CertFPs = append(p.CertFPs, fp)
			} else {
				p.ClientCertFPs = append(p.ClientCertFPs, fp)
			}
		}
	}
	if c := &h.chain[0]; c.n > 0 {
		p.Subject, p.Issuer, p.Serial = f.Hold(c.subject), f.Hold(c.issuer), f.Hold(c.serial)
		p.SHA1 = held(f, c.sha1)
		p.NotBefore, p.NotAfter = c.from, c.to
		p.SNIMatchesCert, p.Validation = c.match, c.status
	}
	if c := &h.chain[1]; c.n > 0 {
		p.ClientSubject, p.ClientIssuer = f.Hold(c.subject), f.Hold(c.issuer)
	}
}

// held returns the hexadecimal digits of a digest, held by f.
func held(f *flow.Flow, digest []byte) string {
	var b [2 * sha256.Size]byte
	return f.Hold(b[:hex.Encode(b[:], digest)])
}

func (s *Set) cipherName(f *flow.Flow, n uint16) string {
	if name := s.ciphers[n]; name != "" {
		return name
	}
	return numbered(f, "unknown-", n)
}

func versionName(f *flow.Flow, v uint16) string {
	switch v {
	case sslv2:
		return "SSLv2"
	case 0x0300:
		return "SSLv3"
	case 0x0301:
		return "TLSv10"
	case 0x0302:
		return "TLSv11"
	case tls12:
		return "TLSv12"
	case tls13:
		return "TLSv13"
	case dtls10:
		return "DTLSv10"
	case dtls12:
		return "DTLSv12"
	case dtls13:
		return "DTLSv13"
	}
	if v>>8 == 0x7f {
		return numbered(f, "TLSv13-draft", v&0xff)
	}
	return numbered(f, "unknown-", v)
}

// curves are the names of the groups in IANA's registry.
var curves = map[uint16]string{
	1: "sect163k1", 2: "sect163r1", 3: "sect163r2", 4: "sect193r1", 5: "sect193r2", 6: "sect233k1", 7: "sect233r1",
	8: "sect239k1", 9: "sect283k1", 10: "sect283r1", 11: "sect409k1", 12: "sect409r1", 13: "sect571k1", 14: "sect571r1",
	15: "secp160k1", 16: "secp160r1", 17: "secp160r2", 18: "secp192k1", 19: "secp192r1", 20: "secp224k1",
	21: "secp224r1", 22: "secp256k1", 23: "secp256r1", 24: "secp384r1", 25: "secp521r1", 26: "brainpoolP256r1",
	27: "brainpoolP384r1", 28: "brainpoolP512r1", 29: "x25519", 30: "x448", 31: "brainpoolP256r1tls13",
	32: "brainpoolP384r1tls13", 33: "brainpoolP512r1tls13", 34: "GC256A", 35: "GC256B", 36: "GC256C", 37: "GC256D",
	38: "GC512A", 39: "GC512B", 40: "GC512C", 41: "curveSM2", 256: "ffdhe2048", 257: "ffdhe3072", 258: "ffdhe4096",
	259: "ffdhe6144", 260: "ffdhe8192", 512: "MLKEM512", 513: "MLKEM768", 514: "MLKEM1024", 4587: "SecP256r1MLKEM768",
	4588: "X25519MLKEM768", 4589: "SecP384r1MLKEM1024", 4590: "curveSM2MLKEM768", 16696: "CECPQ2",
	25497: "X25519Kyber768Draft00", 25498: "SecP256r1Kyber768Draft00", 0xff01: "arbitrary_explicit_prime_curves",
	0xff02: "arbitrary_explicit_char2_curves",
}

func curveName(f *flow.Flow, n uint16) string {
	if name := curves[n]; name != "" {
		return name
	}
	return numbered(f, "unknown-", n)
}

// alerts are the names of TLS alerts.
var alerts = map[int]string{
	0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 21: "decryption_failed", 22: "record_overflow",
	30: "decompression_failure", 40: "handshake_failure", 41: "no_certificate", 42: "bad_certificate",
	43: "unsupported_certificate", 44: "certificate_revoked", 45: "certificate_expired", 46: "certificate_unknown",
	47: "illegal_parameter", 48: "unknown_ca", 49: "access_denied", 50: "decode_error", 51: "decrypt_error",
	60: "export_restriction", 70: "protocol_version", 71: "insufficient_security", 80: "internal_error",
	86: "inappropriate_fallback", 90: "user_canceled", 100: "no_renegotiation", 109: "missing_extension",
	110: "unsupported_extension", 111: "certificate_unobtainable", 112: "unrecognized_name",
	113: "bad_certificate_status_response", 114: "bad_certificate_hash_value", 115: "unknown_psk_identity",
	116: "certificate_required", 117: "general_error", 120: "no_application_protocol", 121: "ech_required",
}

func alertName(f *flow.Flow, n int) string {
	if name := alerts[n]; name != "" {
		return name
	}
	return numbered(f, "unknown-", uint16(n))
}
