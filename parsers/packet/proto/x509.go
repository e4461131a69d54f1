package proto

import (
	"crypto/sha1" //nolint:gosec // feeds of certificates list SHA-1 fingerprints
	"crypto/sha256"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/slips-go/slips/parsers/flow"
)

// Certificates are read here and not by crypto/x509, which refuses those that
// break the rules. Malware's certificates break them, and what is in them
// matters all the same. What verifies them is in chain.go.

// Bounds of what is logged of a certificate.
const (
	maxSANs = 256     // alternative names
	maxDN   = 4 << 10 // bytes of a distinguished name as printed
)

// certificate is what is logged of a certificate. The slices alias it.
type certificate struct {
	version         int
	serial          []byte
	sigAlg, keyAlg  []byte // object identifiers
	curve           []byte
	keyLength       int
	issuer, subject []byte // the elements of the names
	from, to        int64  // unix ns
	sans            []byte // the elements of the extension
	ca              flow.Tri
}

// element cuts one DER element off b. Lengths in the indefinite form do not
// occur in DER.
func element(b []byte) (tag byte, body, rest []byte, ok bool) {
	if len(b) < 2 || b[0]&0x1f == 0x1f {
		return 0, nil, nil, false
	}
	tag = b[0]
	n, off := int(b[1]), 2
	if n >= 0x80 {
		k := n & 0x7f
		if k == 0 || k > 4 || len(b) < 2+k {
			return 0, nil, nil, false
		}
		n = 0
		for _, c := range b[2 : 2+k] {
			n = n<<8 | int(c)
		}
		off += k
	}
	if n < 0 || n > len(b)-off {
		return 0, nil, nil, false
	}
	return tag, b[off : off+n], b[off+n:], true
}

// The tags of ASN.1 that are looked for.
const (
	derBool       = 0x01
	derInteger    = 0x02
	derBits       = 0x03
	derOctets     = 0x04
	derOID        = 0x06
	derUTF8       = 0x0c
	derSequence   = 0x30
	derSet        = 0x31
	derUTCTime    = 0x17
	derTime       = 0x18
	derBMP        = 0x1e
	derUniversal  = 0x1c
	derLatin      = 0x14
	derVersion    = 0xa0
	derExtensions = 0xa3
)

// parseCertificate reads a certificate as far as it can. ok says that the
// names were found.
func parseCertificate(der []byte) (c certificate, ok bool) {
	c.version = 1
	_, cert, _, ok := element(der)
	if !ok {
		return c, false
	}
	tag, tbs, rest, ok := element(cert)
	if !ok || tag != derSequence {
		return c, false
	}
	if _, alg, _, ok := element(rest); ok {
		_, c.sigAlg, _, _ = element(alg)
	}
	tag, body, rest, ok := element(tbs)
	if ok && tag == derVersion {
		if _, v, _, ok := element(body); ok && len(v) == 1 {
			c.version = int(v[0]) + 1
		}
		tag, body, rest, ok = element(rest)
	}
	if !ok || tag != derInteger {
		return c, false
	}
	c.serial = body
	if _, _, rest, ok = element(rest); !ok { // the algorithm again
		return c, false
	}
	if _, c.issuer, rest, ok = element(rest); !ok {
		return c, false
	}
	if _, body, rest, ok = element(rest); !ok {
		return c, false
	}
	if tag, at, more, ok := element(body); ok {
		c.from, _ = derToTime(tag, at)
		if tag, at, _, ok := element(more); ok {
			c.to, _ = derToTime(tag, at)
		}
	}
	if _, c.subject, rest, ok = element(rest); !ok {
		return c, false
	}
	if _, body, rest, ok = element(rest); !ok {
		return c, true
	}
	c.key(body)
	for len(rest) > 0 {
		tag, body, more, ok := element(rest)
		if !ok {
			break
		}
		if tag == derExtensions {
			c.extensions(body)
		}
		rest = more
	}
	return c, true
}

// key reads the description of the public key.
func (c *certificate) key(b []byte) {
	_, alg, rest, ok := element(b)
	if !ok {
		return
	}
	_, c.keyAlg, alg, _ = element(alg)
	_, bits, _, ok := element(rest)
	if !ok || len(bits) < 1 {
		return
	}
	bits = bits[1:]
	switch oidName(c.keyAlg) {
	case "rsaEncryption":
		_, seq, _, _ := element(bits)
		if _, n, _, ok := element(seq); ok {
			c.keyLength = bitLength(n)
		}
	case "dsaEncryption":
		_, seq, _, _ := element(alg)
		if _, p, _, ok := element(seq); ok {
			c.keyLength = bitLength(p)
		}
	case "id-ecPublicKey":
		if tag, oid, _, ok := element(alg); ok && tag == derOID {
			c.curve = oid
			c.keyLength = curveBits(oid)
		}
	}
}

// bitLength returns the length of a positive integer in bits.
func bitLength(n []byte) int {
	for len(n) > 0 && n[0] == 0 {
		n = n[1:]
	}
	if len(n) == 0 {
		return 0
	}
	l := len(n) * 8
	for m := byte(0x80); n[0]&m == 0; m >>= 1 {
		l--
	}
	return l
}

func curveBits(oid []byte) int {
	switch string(oid) {
	case "\x2a\x86\x48\xce\x3d\x03\x01\x07":
		return 256
	case "\x2b\x81\x04\x00\x22":
		return 384
	case "\x2b\x81\x04\x00\x23":
		return 521
	case "\x2b\x81\x04\x00\x21":
		return 224
	case "\x2b\x81\x04\x00\x0a":
		return 256
	}
	return 0
}

// extensions reads the list of extensions for the two that are logged.
func (c *certificate) extensions(b []byte) {
	_, list, _, ok := element(b)
	for ok && len(list) > 0 {
		var ext []byte
		if _, ext, list, ok = element(list); !ok {
			return
		}
		tag, oid, rest, found := element(ext)
		if !found || tag != derOID {
			continue
		}
		tag, body, rest, found := element(rest)
		if found && tag == derBool { // critical
			tag, body, _, found = element(rest)
		}
		if !found || tag != derOctets {
			continue
		}
		switch string(oid) {
		case "\x55\x1d\x13": // basic constraints
			c.ca = flow.False
			if _, seq, _, ok := element(body); ok {
				if tag, v, _, ok := element(seq); ok && tag == derBool && len(v) == 1 && v[0] != 0 {
					c.ca = flow.True
				}
			}
		case "\x55\x1d\x11": // subject alternative names
			_, c.sans, _, _ = element(body)
		}
	}
}

// derToTime reads the two forms of time. Offsets from UTC do not occur in DER.
func derToTime(tag byte, b []byte) (ns int64, ok bool) {
	var year int
	ok = true
	digits := func(n int) int {
		if len(b) < n {
			ok = false
			return 0
		}
		v := 0
		for _, c := range b[:n] {
			if c < '0' || c > '9' {
				ok = false
				return 0
			}
			v = v*10 + int(c-'0')
		}
		b = b[n:]
		return v
	}
	switch tag {
	case derUTCTime:
		if year = 1900 + digits(2); year < 1950 {
			year += 100
		}
	case derTime:
		year = digits(4)
	default:
		return 0, false
	}
	month, day, hour, minute := digits(2), digits(2), digits(2), digits(2)
	second := 0
	if len(b) >= 2 && b[0] != 'Z' {
		second = digits(2)
	}
	if !ok || month < 1 || month > 12 || day < 1 || day > 31 {
		return 0, false
	}
	sec := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC).Unix()
	const bound = 9_000_000_000 // s; beyond it ns do not fit, in the year 2255
	return min(max(sec, -bound), bound) * 1e9, true
}

// appendDN prints a distinguished name as RFC 2253 says, which is how Zeek
// logs it: the last part first, bytes that are not ASCII as \HH.
func appendDN(b, name []byte) []byte {
	var parts [64][]byte
	n := 0
	for len(name) > 0 && n < len(parts) {
		_, rdn, rest, ok := element(name)
		if !ok {
			break
		}
		parts[n], n, name = rdn, n+1, rest
	}
	start := len(b)
	for i := n - 1; i >= 0 && len(b)-start < maxDN; i-- {
		if i < n-1 {
			b = append(b, ',')
		}
		first := true
		for rdn := parts[i]; len(rdn) > 0 && len(b)-start < maxDN; {
			_, attr, rest, ok := element(rdn)
			if !ok {
				break
			}
			if !first {
				b = append(b, '+')
			}
			first = false
			b = appendAttribute(b, attr)
			rdn = rest
		}
	}
	return b
}

// appendAttribute prints type=value.
func appendAttribute(b, attr []byte) []byte {
	_, oid, rest, ok := element(attr)
	if !ok {
		return b
	}
	tag, value, _, ok := element(rest)
	if !ok {
		return b
	}
	name := attributeName(oid)
	if name == "" {
		b = appendOID(b, oid)
		b = append(b, '=', '#')
		return hexText(b, rest[:min(len(rest), 256)])
	}
	b = append(b, name...)
	b = append(b, '=')
	start := len(b)
	value = value[:min(len(value), maxDN)]
	switch tag {
	case derBMP:
		for ; len(value) >= 2; value = value[2:] {
			r := rune(value[0])<<8 | rune(value[1])
			if utf16.IsSurrogate(r) && len(value) >= 4 {
				r = utf16.DecodeRune(r, rune(value[2])<<8|rune(value[3]))
				value = value[2:]
			}
			b = appendRune(b, start, r)
		}
	case derUniversal:
		for ; len(value) >= 4; value = value[4:] {
			b = appendRune(b, start, rune(value[0])<<24|rune(value[1])<<16|rune(value[2])<<8|rune(value[3]))
		}
	case derUTF8:
		for _, c := range value {
			b = appendDNByte(b, start, c)
		}
	default: // Latin-1 and its subsets
		for _, c := range value {
			b = appendRune(b, start, rune(c))
		}
	}
	if n := len(b); n > start && b[n-1] == ' ' && (n-start == 1 || b[n-2] != '\\') {
		b = append(b[:n-1], '\\', ' ')
	}
	return b
}

func appendRune(b []byte, start int, r rune) []byte {
	var u [utf8.UTFMax]byte
	for _, c := range u[:utf8.EncodeRune(u[:], r)] {
		b = appendDNByte(b, start, c)
	}
	return b
}

func appendDNByte(b []byte, start int, c byte) []byte {
	const upper = "0123456789ABCDEF"
	switch {
	case c < ' ' || c >= 0x7f:
		return append(b, '\\', upper[c>>4], upper[c&15])
	case c == ',', c == '+', c == '"', c == '\\', c == '<', c == '>', c == ';', len(b) == start && (c == '#' || c == ' '):
		return append(b, '\\', c)
	}
	return append(b, c)
}

// attributeName returns the short name of an attribute type; empty if it has none.
func attributeName(oid []byte) string {
	switch string(oid) {
	case "\x55\x04\x03":
		return "CN"
	case "\x55\x04\x04":
		return "SN"
	case "\x55\x04\x05":
		return "serialNumber"
	case "\x55\x04\x06":
		return "C"
	case "\x55\x04\x07":
		return "L"
	case "\x55\x04\x08":
		return "ST"
	case "\x55\x04\x09":
		return "street"
	case "\x55\x04\x0a":
		return "O"
	case "\x55\x04\x0b":
		return "OU"
	case "\x55\x04\x0c":
		return "title"
	case "\x55\x04\x0d":
		return "description"
	case "\x55\x04\x0f":
		return "businessCategory"
	case "\x55\x04\x11":
		return "postalCode"
	case "\x55\x04\x12":
		return "postOfficeBox"
	case "\x55\x04\x29":
		return "name"
	case "\x55\x04\x2a":
		return "GN"
	case "\x55\x04\x2b":
		return "initials"
	case "\x55\x04\x2e":
		return "dnQualifier"
	case "\x55\x04\x41":
		return "pseudonym"
	case "\x55\x04\x61":
		return "organizationIdentifier"
	case "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01":
		return "emailAddress"
	case "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x02":
		return "unstructuredName"
	case "\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x01":
		return "UID"
	case "\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x19":
		return "DC"
	case "\x2b\x06\x01\x04\x01\x82\x37\x3c\x02\x01\x01":
		return "jurisdictionL"
	case "\x2b\x06\x01\x04\x01\x82\x37\x3c\x02\x01\x02":
		return "jurisdictionST"
	case "\x2b\x06\x01\x04\x01\x82\x37\x3c\x02\x01\x03":
		return "jurisdictionC"
	}
	return ""
}

// appendOID prints an object identifier in dots.
func appendOID(b, oid []byte) []byte {
	n := uint64(0)
	first := true
	for _, c := range oid {
		if n > 1<<56 {
			return b
		}
		if n = n<<7 | uint64(c&0x7f); c&0x80 != 0 {
			continue
		}
		if first {
			x := min(n/40, 2)
			b = strconv.AppendUint(b, x, 10)
			n -= 40 * x
			first = false
		}
		b = append(b, '.')
		b = strconv.AppendUint(b, n, 10)
		n = 0
	}
	return b
}

// oidName returns OpenSSL's name of an algorithm, as Zeek logs it; empty if
// it is not known.
func oidName(oid []byte) string {
	switch string(oid) {
	case "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01":
		return "rsaEncryption"
	case "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x02":
		return "md2WithRSAEncryption"
	case "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04":
		return "md5WithRSAEncryption"
	case "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05":
		return "sha1WithRSAEncryption"
	case "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a":
		return "rsassaPss"
	case "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b":
		return "sha256WithRSAEncryption"
	case "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c":
		return "sha384WithRSAEncryption"
	case "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d":
		return "sha512WithRSAEncryption"
	case "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0e":
		return "sha224WithRSAEncryption"
	case "\x2a\x86\x48\xce\x38\x04\x01":
		return "dsaEncryption"
	case "\x2a\x86\x48\xce\x38\x04\x03":
		return "dsaWithSHA1"
	case "\x60\x86\x48\x01\x65\x03\x04\x03\x02":
		return "dsa_with_SHA256"
	case "\x2a\x86\x48\xce\x3d\x02\x01":
		return "id-ecPublicKey"
	case "\x2a\x86\x48\xce\x3d\x04\x01":
		return "ecdsa-with-SHA1"
	case "\x2a\x86\x48\xce\x3d\x04\x03\x02":
		return "ecdsa-with-SHA256"
	case "\x2a\x86\x48\xce\x3d\x04\x03\x03":
		return "ecdsa-with-SHA384"
	case "\x2a\x86\x48\xce\x3d\x04\x03\x04":
		return "ecdsa-with-SHA512"
	case "\x2b\x65\x70":
		return "ED25519"
	case "\x2b\x65\x71":
		return "ED448"
	}
	return ""
}

// algorithm returns the name of an algorithm, or its number.
func algorithm(f *flow.Flow, oid []byte) string {
	if name := oidName(oid); name != "" {
		return name
	}
	var b [64]byte
	return f.Hold(appendOID(b[:0], oid))
}

// appendSerial prints a serial number in capital hexadecimal digits.
func appendSerial(b, n []byte) []byte {
	const upper = "0123456789ABCDEF"
	if len(n) > 0 && n[0]&0x80 != 0 {
		b = append(b, '-')
		var m [64]byte
		k := copy(m[:], n[:min(len(n), len(m))])
		carry := true
		for i := k - 1; i >= 0; i-- { // two's complement
			if m[i] = ^m[i]; carry {
				m[i]++
				carry = m[i] == 0
			}
		}
		n = m[:k]
	}
	for len(n) > 1 && n[0] == 0 {
		n = n[1:]
	}
	for _, c := range n[:min(len(n), 64)] {
		b = append(b, upper[c>>4], upper[c&15])
	}
	return b
}

// eachSAN calls do for the alternative names: tag 2 is a DNS name, 7 an
// address.
func eachSAN(sans []byte, do func(tag byte, value []byte)) {
	for range maxSANs {
		tag, value, rest, ok := element(sans)
		if !ok {
			return
		}
		do(tag&0x1f, value)
		sans = rest
	}
}

// fits reports whether a name from a certificate, which may begin with *.,
// is that of the server.
func fits(pattern, server []byte) bool {
	if len(pattern) > 2 && pattern[0] == '*' && pattern[1] == '.' {
		dot := indexByte(server, '.')
		return dot > 0 && is(server[dot:], string(pattern[1:]))
	}
	return len(server) > 0 && is(pattern, string(server))
}

// certificates takes the certificates of one side, from where they are a list
// of lengths and DER, and writes a record of each. server says whose they are.
func (h *handshake) certificates(s *Set, conn Conn, list []byte, server bool, t int64) {
	ch := &h.chain[1]
	if server {
		ch = &h.chain[0]
	}
	*ch = chain{subject: ch.subject[:0], issuer: ch.issuer[:0], serial: ch.serial[:0], sha1: ch.sha1[:0]}
	var ders [maxCerts][]byte
	for l := (cursor{b: list}); len(l.b) > 0; {
		if ch.n == maxCerts {
			s.Stats.LongHandshakes++
			break
		}
		der := l.vec24()
		if l.bad {
			s.Stats.Malformed++
			break
		}
		first := ch.n == 0
		ch.sha256[ch.n], ders[ch.n] = sha256.Sum256(der), der
		ch.n++
		c, ok := parseCertificate(der)
		if first {
			sum := sha1.Sum(der) //nolint:gosec // feeds of certificates list SHA-1 fingerprints
			ch.sha1 = append(ch.sha1, sum[:]...)
			ch.subject = appendDN(ch.subject, c.subject)
			ch.issuer = appendDN(ch.issuer, c.issuer)
			ch.serial = appendSerial(ch.serial, c.serial)
			ch.from, ch.to = c.from, c.to
			if server && h.hasSNI && len(h.sni) > 0 {
				ch.match = flow.TriOf(h.matches(&c))
			}
		}
		if !ok {
			s.Stats.Malformed++
			continue
		}
		f := conn.Record(flow.X509, t)
		p := f.X509
		p.Fingerprint = held(f, ch.sha256[ch.n-1][:])
		p.Version = c.version
		s.buf = appendSerial(s.buf[:0], c.serial)
		p.Serial = f.Hold(s.buf)
		s.buf = appendDN(s.buf[:0], c.subject)
		p.Subject = f.Hold(s.buf)
		s.buf = appendDN(s.buf[:0], c.issuer)
		p.Issuer = f.Hold(s.buf)
		p.NotBefore, p.NotAfter = c.from, c.to
		p.SigAlg, p.KeyAlg, p.KeyLength = algorithm(f, c.sigAlg), algorithm(f, c.keyAlg), c.keyLength
		switch p.KeyAlg {
		case "rsaEncryption", "rsassaPss":
			p.KeyType = "rsa"
		case "dsaEncryption":
			p.KeyType = "dsa"
		case "id-ecPublicKey":
			p.KeyType = "ecdsa"
		default:
			p.KeyType = "unknown"
		}
		eachSAN(c.sans, func(tag byte, v []byte) {
			switch tag {
			case 2:
				p.SANDNS = append(p.SANDNS, s.text(f, v))
			case 7:
				if a, ok := netip.AddrFromSlice(v); ok {
					p.SANIP = append(p.SANIP, f.Hold(a.AppendTo(s.buf[:0])))
				}
			}
		})
		p.CA = c.ca
		p.HostCert, p.ClientCert = flow.TriOf(first), flow.TriOf(!server)
		conn.Emit(f)
	}
	if server && ch.n > 0 {
		ch.status = h.judge(&s.judge, ch.sha256[:ch.n], ders[:ch.n], t)
	}
}

// judge returns the verdict about the chain of a server. A server shows one
// chain in a connection: others are not judged unless their verdict is known,
// which is no work.
func (h *handshake) judge(j *judge, fps [][sha256.Size]byte, ders [][]byte, t int64) string {
	if word, ok := j.seen(fps, t); ok || h.judged {
		return word
	}
	h.judged = true
	return j.judge(fps, ders, t)
}

// matches reports whether the certificate is for the server's name.
func (h *handshake) matches(c *certificate) (yes bool) {
	eachSAN(c.sans, func(tag byte, v []byte) {
		yes = yes || tag == 2 && fits(v, h.sni)
	})
	for name := c.subject; !yes && len(name) > 0; {
		_, rdn, rest, ok := element(name)
		if !ok {
			break
		}
		if _, attr, _, ok := element(rdn); ok {
			if _, oid, v, ok := element(attr); ok && string(oid) == "\x55\x04\x03" {
				_, v, _, _ = element(v)
				yes = fits(v, h.sni)
			}
		}
		name = rest
	}
	return yes
}
