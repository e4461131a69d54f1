package proto

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"math"
	"slices"
	"time"
	"unicode/utf16"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// The words of OpenSSL 3 for what it finds of a chain, as Zeek logs them.
// None is said where this program cannot be sure.
const (
	chainUnsure    = ""
	chainOK        = "ok"
	chainSelf      = "self signed certificate" // without the hyphen, alone of all
	chainSelfRoot  = "self-signed certificate in certificate chain"
	chainNoIssuer  = "unable to get local issuer certificate"
	chainNotCA     = "invalid CA certificate"
	chainTooDeep   = "path length constraint exceeded"
	chainExpired   = "certificate has expired"
	chainEarly     = "certificate is not yet valid"
	chainSignature = "certificate signature failure"
)

// Bounds of judging chains. The costs are of one core of an AMD EPYC.
const (
	maxSteps    = 8       // certificates from the server's to the root; chains on the Web have 2 to 4
	maxKnown    = 512     // intermediate authorities that are remembered, together some MB; some 2,000 exist
	maxNamesake = 8       // of them with one name
	maxKnownLen = 8 << 10 // bytes of one; they have 1 to 2 KB
	maxVerdicts = 4096    // chains whose verdict is remembered, together some 500 KB
	minRSA      = 1024    // bits; crypto/rsa refuses fewer
	maxRSA      = 8192    // bits; checking a signature takes 0.3 ms
	maxCurve    = 384     // bits; 0.7 ms. One root has 521, where anyone could make us spend 3 ms
)

// judge tells what OpenSSL would say of the chains that servers show, as far as
// names, dates, signatures and the right to sign go. The name of the server and
// revocation are not asked.
//
// The authorities that are trusted are Mozilla's, of the version of
// golang.org/x/crypto/x509roots/fallback that go.mod names, and not those of the
// machine: the same capture gets the same verdict everywhere. The list ages with
// the binary: an authority that came later is unknown. One that Mozilla took out
// since 2023 is trusted in captures of the time before (retired.pem); one that
// went earlier is unknown, as it is to Zeek.
//
// The way up is OpenSSL's: at each step the first issuer that fits and is of the
// day, a trusted one before those shown, and never back. So a chain costs at
// most maxSteps signatures, and those of authorities that were seen before cost
// nothing. What is not under a trusted authority costs none.
//
// The zero value is ready for use.
type judge struct {
	roots    map[string][]*link             // by subject; nil until the first chain comes
	known    map[[sha256.Size]byte]*link    // intermediate authorities that were proven, by fingerprint
	named    map[string][]*link             // the same by subject
	verdicts map[[sha256.Size]byte]*verdict // by the fingerprints of the chain
	checked  int64                          // signatures
}

// verdict is a word about a chain and when it holds, from and before, in unix s.
type verdict struct {
	word        string
	from, until int64
}

// link is a certificate with what decides on its place in a chain. The names
// are in canonical form.
type link struct {
	*x509.Certificate
	fp              [sha256.Size]byte
	subject, issuer string
	authority       authorityKey
	self            bool   // it is its own issuer, by name and key
	by              []byte // the public key under which its signature was proven
	trust           func([]*x509.Certificate) error
	until           int64 // unix s, when Mozilla took it out; 0: it did not
}

// authorityKey is the extension that tells an issuer from others of its name.
// What is missing is nil.
type authorityKey struct {
	id, serial []byte
	issuer     *string // of the issuer, canonical
}

// seen returns the verdict about the chain with these fingerprints at t (unix
// ns), if it is remembered.
func (j *judge) seen(fps [][sha256.Size]byte, t int64) (word string, ok bool) {
	v := j.verdicts[chainKey(fps)]
	s := seconds(t)
	if v == nil || s < v.from || s >= v.until {
		return "", false
	}
	return v.word, true
}

// judge returns the verdict about a chain at t (unix ns), the server's
// certificate first, and remembers it. It keeps nothing of ders.
func (j *judge) judge(fps [][sha256.Size]byte, ders [][]byte, t int64) string {
	if j.roots == nil {
		j.trust(bundle.Roots())
		j.retire([]byte(retired))
	}
	w := walk{j: j, shown: make([]shown, len(ders)), t: seconds(t), from: math.MinInt64, until: math.MaxInt64}
	for i, der := range ders {
		w.shown[i] = shown{der: der, fp: fps[i]}
	}
	word := w.verdict()
	if len(j.verdicts) >= maxVerdicts {
		clear(j.verdicts)
	}
	j.verdicts[chainKey(fps)] = &verdict{word, w.from, w.until}
	return word
}

// trust makes j ready, with these authorities.
func (j *judge) trust(roots func(yield func(bundle.Root) bool)) {
	j.roots = make(map[string][]*link)
	j.known = make(map[[sha256.Size]byte]*link)
	j.named = make(map[string][]*link)
	j.verdicts = make(map[[sha256.Size]byte]*verdict)
	for r := range roots {
		if l := newLink(r.Certificate, sha256.Sum256(r.Certificate)); l != nil && l.self { // as all of Mozilla's are
			l.trust = r.Constraint
			j.roots[l.subject] = append(j.roots[l.subject], l)
		}
	}
}

//go:embed retired.pem
var retired string

// retire adds the roots of a PEM file, each of which was trusted until a day.
func (j *judge) retire(file []byte) {
	for {
		var b *pem.Block
		if b, file = pem.Decode(file); b == nil {
			return
		}
		until, err := time.Parse(time.DateOnly, b.Headers["Until"])
		if l := newLink(b.Bytes, sha256.Sum256(b.Bytes)); err == nil && l != nil && l.self {
			l.until = until.Unix()
			j.roots[l.subject] = append(j.roots[l.subject], l)
		}
	}
}

// remember keeps an authority that was proven, for servers that do not show it.
// Every verdict may be another then.
func (j *judge) remember(l *link) {
	if j.known[l.fp] != nil || len(j.known) >= maxKnown || len(j.named[l.subject]) >= maxNamesake || len(l.Raw) > maxKnownLen {
		return
	}
	j.known[l.fp] = l
	j.named[l.subject] = append(j.named[l.subject], l)
	clear(j.verdicts)
}

func chainKey(fps [][sha256.Size]byte) [sha256.Size]byte {
	var b [maxCerts * sha256.Size]byte
	n := 0
	for i := range fps {
		n += copy(b[n:], fps[i][:])
	}
	return sha256.Sum256(b[:n])
}

// seconds rounds unix ns down, as OpenSSL takes time.
func seconds(t int64) int64 {
	s := t / 1e9
	if t%1e9 < 0 {
		s--
	}
	return s
}

// shown is a certificate that the server showed. It is read when it is needed.
type shown struct {
	der     []byte
	fp      [sha256.Size]byte
	looked  bool
	subject string
	unnamed bool // it has no name that can be read
	parsed  bool
	link    *link // nil: crypto/x509 refuses it
}

// name returns the canonical name of the subject.
func (s *shown) name() (string, bool) {
	if !s.looked {
		c, ok := parseCertificate(s.der)
		s.looked, s.unnamed, s.subject = true, !ok, canonical(c.subject)
	}
	return s.subject, !s.unnamed
}

// read returns the certificate, nil if crypto/x509 refuses it.
func (s *shown) read(j *judge) *link {
	if !s.parsed {
		s.parsed = true
		if s.link = j.known[s.fp]; s.link == nil {
			s.link = newLink(bytes.Clone(s.der), s.fp)
		}
	}
	return s.link
}

// walk is one way up from a server's certificate.
type walk struct {
	j           *judge
	shown       []shown
	t           int64 // unix s
	from, until int64 // what was found holds for all of this time
	unsure      bool  // there was something that could not be read
	chain       []*link
}

// verdict walks up and tells what was found: what is wrong with the way first,
// then, from the root down, signatures and dates, as OpenSSL does.
func (w *walk) verdict() string {
	leaf := w.shown[0].read(w.j)
	if leaf == nil {
		return chainUnsure
	}
	w.chain = append(make([]*link, 0, maxSteps+1), leaf)
	trusted := w.climb()
	last := w.chain[len(w.chain)-1]
	word := chainUnsure
	switch {
	case trusted:
		if word = w.rights(); word == chainOK {
			word = w.proof()
		}
		if word == chainOK {
			return word
		}
	case len(w.chain) > maxSteps:
	case !last.self:
		word = chainNoIssuer
	case len(w.chain) == 1:
		word = chainSelf
	default:
		word = chainSelfRoot
	}
	if w.unsure {
		return chainUnsure
	}
	return word
}

// climb builds the chain and reports whether it ends at a root that is trusted.
func (w *walk) climb() bool {
	for len(w.chain) <= maxSteps {
		top := w.chain[len(w.chain)-1]
		if keyOf(top.SignatureAlgorithm) == x509.UnknownPublicKeyAlgorithm { // nor can be told if it signed itself
			w.unsure = true
			return false
		}
		roots := w.j.roots[top.issuer]
		if top.self { // it is one of them or none: a name and a key's number can be copied
			i := slices.IndexFunc(roots, func(x *link) bool { return x.fp == top.fp })
			if i < 0 || w.best(top, roots[i:i+1], nil) == nil {
				return false
			}
			w.chain[len(w.chain)-1] = roots[i]
			return true
		}
		if root := w.best(top, roots, nil); root != nil {
			w.chain = append(w.chain, root)
			return true
		}
		next := w.best(top, w.j.named[top.issuer], w.shown[1:])
		if next == nil {
			return false
		}
		w.chain = append(w.chain, next)
	}
	return false
}

// best returns the issuer of c: the first that fits and is of the day, else
// that which was valid last. Those shown go before others.
func (w *walk) best(c *link, others []*link, shown []shown) *link {
	var late *link
	try := func(x *link) bool {
		if !w.issued(c, x) || w.has(x) || x.until != 0 && !w.before(x.until) {
			return false
		}
		if w.early(x) || w.expired(x) {
			if late == nil || x.NotAfter.After(late.NotAfter) {
				late = x
			}
			return false
		}
		return true
	}
	for i := range shown {
		name, ok := shown[i].name()
		if ok && name != c.issuer {
			continue
		}
		if x := shown[i].read(w.j); x == nil {
			w.unsure = true
		} else if try(x) {
			return x
		}
	}
	for _, x := range others {
		if try(x) {
			return x
		}
	}
	return late
}

// has reports whether a certificate is part of the chain already. One that
// signed itself is its end, and looked for again among the roots.
func (w *walk) has(x *link) bool {
	for _, c := range w.chain {
		if c.fp == x.fp && !c.self {
			return true
		}
	}
	return false
}

// issued reports whether x may have issued c, the signature aside.
func (w *walk) issued(c, x *link) bool {
	if c.issuer != x.subject || !c.authority.fits(x) {
		return false
	}
	if x.PublicKeyAlgorithm == x509.UnknownPublicKeyAlgorithm {
		w.unsure = true
		return false
	}
	return keyOf(c.SignatureAlgorithm) == x.PublicKeyAlgorithm
}

// early reports whether a certificate is not valid yet.
func (w *walk) early(c *link) bool { return w.before(c.NotBefore.Unix()) }

// expired reports whether a certificate is not valid any more. It is not at
// the very second of its end.
func (w *walk) expired(c *link) bool { return !w.before(c.NotAfter.Unix()) }

// before reports whether the time is before s, and notes until when that is so.
func (w *walk) before(s int64) bool {
	if w.t < s {
		w.until = min(w.until, s)
		return true
	}
	w.from = max(w.from, s)
	return false
}

// rights reports whether each certificate may issue the one below it. Limits
// of the names that an authority may sign are not judged, nor is what
// crypto/x509 does not know and may not be passed over.
func (w *walk) rights() string {
	depth := 0 // authorities below
	for i, c := range w.chain {
		if len(c.UnhandledCriticalExtensions) > 0 || c.extension(2, 5, 29, 30) != nil {
			return chainUnsure
		}
		if i == 0 {
			continue
		}
		ca := c.BasicConstraintsValid && c.IsCA
		if i == len(w.chain)-1 && !c.BasicConstraintsValid { // roots from before there was the extension
			ca = c.Version == 1 || c.KeyUsage != 0
		}
		if !ca || c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
			return chainNotCA
		}
		if limit := c.MaxPathLen; c.BasicConstraintsValid && (limit > 0 || c.MaxPathLenZero) && i > 1 && depth > limit {
			return chainTooDeep
		}
		if c.subject != c.issuer {
			depth++
		}
	}
	return chainOK
}

// proof checks the signatures and the dates from the root down. What an
// attacker puts under a true authority fails at the first signature.
func (w *walk) proof() string {
	for i := len(w.chain) - 1; i >= 0; i-- {
		c := w.chain[i]
		if i < len(w.chain)-1 {
			if word := w.j.signed(c, w.chain[i+1]); word != chainOK {
				return word
			}
		}
		switch {
		case w.early(c):
			return chainEarly
		case w.expired(c):
			return chainExpired
		}
		if 0 < i && i < len(w.chain)-1 {
			w.j.remember(c)
		}
	}
	root := w.chain[len(w.chain)-1]
	if root.trust != nil {
		all := make([]*x509.Certificate, len(w.chain))
		for i, c := range w.chain {
			all[i] = c.Certificate
		}
		if root.trust(all) != nil { // Mozilla trusts it no more for what is new, and OpenSSL has no word for that
			return chainUnsure
		}
	}
	return chainOK
}

// signed checks the signature of c under the key of x.
func (j *judge) signed(c, x *link) string {
	if c.by != nil && bytes.Equal(c.by, x.RawSubjectPublicKeyInfo) {
		return chainOK
	}
	if !usable(x.PublicKey) {
		return chainUnsure
	}
	j.checked++
	err := x.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
	var insecure x509.InsecureAlgorithmError // MD5, which OpenSSL takes; both take SHA-1 here
	switch {
	case err == nil:
		c.by = x.RawSubjectPublicKeyInfo
		return chainOK
	case errors.As(err, &insecure), errors.Is(err, x509.ErrUnsupportedAlgorithm):
		return chainUnsure
	}
	return chainSignature
}

// usable reports whether a key is of a kind and size that this program and
// OpenSSL judge alike, at a bounded cost.
func usable(key any) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		n := k.N.BitLen()
		return n >= minRSA && n <= maxRSA && k.N.Bit(0) == 1 && k.E >= 3 && k.E&1 == 1 && k.E <= math.MaxInt32
	case *ecdsa.PublicKey:
		return k.Params().BitSize <= maxCurve
	case ed25519.PublicKey:
		return true
	}
	return false // of DSA crypto/x509 checks no signature
}

// keyOf returns the kind of key that makes signatures of an algorithm.
func keyOf(a x509.SignatureAlgorithm) x509.PublicKeyAlgorithm {
	switch a {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS:
		return x509.RSA
	case x509.DSAWithSHA1, x509.DSAWithSHA256:
		return x509.DSA
	case x509.ECDSAWithSHA1, x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
		return x509.ECDSA
	case x509.PureEd25519:
		return x509.Ed25519
	case x509.UnknownSignatureAlgorithm:
	}
	return x509.UnknownPublicKeyAlgorithm
}

// newLink reads a certificate, of which it keeps der; nil when crypto/x509
// refuses it.
func newLink(der []byte, fp [sha256.Size]byte) *link {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	l := &link{Certificate: c, fp: fp, subject: canonicalName(c.RawSubject), issuer: canonicalName(c.RawIssuer)}
	l.authority = readAuthorityKey(l.extension(2, 5, 29, 35))
	l.self = l.subject == l.issuer && l.authority.fits(l) && keyOf(c.SignatureAlgorithm) == c.PublicKeyAlgorithm
	return l
}

// extension returns the value of an extension, nil if there is none.
func (l *link) extension(oid ...int) []byte {
	for i := range l.Extensions {
		if e := &l.Extensions[i]; slices.Equal(e.Id, oid) {
			return e.Value
		}
	}
	return nil
}

// readAuthorityKey reads the extension.
func readAuthorityKey(b []byte) (k authorityKey) {
	_, list, _, _ := element(b)
	for len(list) > 0 {
		tag, body, rest, ok := element(list)
		if !ok {
			break
		}
		switch tag {
		case 0x80:
			k.id = body
		case 0xa1:
			for len(body) > 0 && k.issuer == nil {
				t, name, more, ok := element(body)
				if !ok {
					break
				}
				if t == 0xa4 { // a distinguished name, not one of the other kinds
					s := canonicalName(name)
					k.issuer = &s
				}
				body = more
			}
		case 0x82:
			k.serial = body
		}
		list = rest
	}
	return k
}

// fits reports whether x is the issuer that is meant, as far as both tell.
func (k *authorityKey) fits(x *link) bool {
	return (k.id == nil || x.SubjectKeyId == nil || bytes.Equal(k.id, x.SubjectKeyId)) &&
		(k.serial == nil || bytes.Equal(bytes.TrimLeft(k.serial, "\x00"), x.SerialNumber.Bytes())) &&
		(k.issuer == nil || *k.issuer == x.issuer)
}

// canonicalName returns the canonical form of a whole distinguished name.
func canonicalName(raw []byte) string {
	_, name, _, _ := element(raw)
	return canonical(name)
}

// canonical returns a form of the elements of a distinguished name in which
// two are equal that OpenSSL holds to be the same: text in any encoding, of
// which neither case nor the number of spaces counts.
func canonical(name []byte) string {
	b := make([]byte, 0, 2*len(name))
	for len(name) > 0 {
		_, rdn, rest, ok := element(name)
		if !ok {
			break
		}
		b = append(b, derSet)
		for len(rdn) > 0 {
			_, attr, more, ok := element(rdn)
			if !ok {
				break
			}
			_, oid, value, _ := element(attr)
			tag, text, _, _ := element(value)
			b = appendSized(b, func(b []byte) []byte { return append(b, oid...) })
			b = appendSized(b, func(b []byte) []byte { return appendCanonical(b, tag, text) })
			rdn = more
		}
		name = rest
	}
	return string(b)
}

// appendSized appends what do appends, with its length before it.
func appendSized(b []byte, do func([]byte) []byte) []byte {
	at := len(b)
	b = do(append(b, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

// The kinds of text that parts of names may be, beside those of x509.go.
const (
	derPrintable = 0x13
	derIA5       = 0x16
	derVisible   = 0x1a
)

// appendCanonical appends the value of a part of a name.
func appendCanonical(b []byte, tag byte, v []byte) []byte {
	switch tag {
	case derUTF8, derPrintable, derIA5, derVisible:
	case derLatin:
		u := make([]rune, len(v))
		for i, c := range v {
			u[i] = rune(c)
		}
		v = []byte(string(u))
	case derBMP:
		u := make([]uint16, len(v)/2)
		for i := range u {
			u[i] = binary.BigEndian.Uint16(v[2*i:])
		}
		v = []byte(string(utf16.Decode(u)))
	case derUniversal:
		u := make([]rune, len(v)/4)
		for i := range u {
			u[i] = rune(binary.BigEndian.Uint32(v[4*i:]))
		}
		v = []byte(string(u))
	default:
		return append(append(b, tag), v...)
	}
	b = append(b, derUTF8)
	for i, word := range bytes.FieldsFunc(v, func(r rune) bool { return r == ' ' || '\t' <= r && r <= '\r' }) {
		if i > 0 {
			b = append(b, ' ')
		}
		for _, c := range word {
			b = append(b, lower(c))
		}
	}
	return b
}
