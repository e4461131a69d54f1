package proto

import (
	"bytes"
	gocrypto "crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"iter"
	"math/big"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// day is a day of the calendar of the tests, in which certificates are valid
// from day 100 to day 1000 unless said otherwise.
func day(n int) time.Time { return time.Date(2024, 1, 1+n, 0, 0, 0, 0, time.UTC) }

// party is a name with a key.
type party struct {
	name string
	key  gocrypto.Signer
}

func newParty(t testing.TB, name string) *party {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &party{name, key}
}

// sign returns a certificate of p by the issuer by.
func (p *party) sign(t testing.TB, by *party, ca bool, change ...func(*x509.Certificate)) []byte {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: n, Subject: pkix.Name{CommonName: p.name}, NotBefore: day(100), NotAfter: day(1000),
		BasicConstraintsValid: ca, IsCA: ca, MaxPathLen: -1,
	}
	if ca {
		c.KeyUsage = x509.KeyUsageCertSign
	}
	for _, f := range change {
		f(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, &x509.Certificate{Subject: pkix.Name{CommonName: by.name}}, p.key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// trusting returns a judge with these roots.
func trusting(roots ...bundle.Root) *judge {
	j := new(judge)
	j.trust(each(roots))
	return j
}

func each(roots []bundle.Root) iter.Seq[bundle.Root] {
	return func(yield func(bundle.Root) bool) {
		for _, r := range roots {
			if !yield(r) {
				return
			}
		}
	}
}

func prints(ders [][]byte) [][sha256.Size]byte {
	fps := make([][sha256.Size]byte, len(ders))
	for i, d := range ders {
		fps[i] = sha256.Sum256(d)
	}
	return fps
}

// ask returns the verdict about a chain on a day.
func (j *judge) ask(d int, ders ...[]byte) string {
	fps := prints(ders)
	if word, ok := j.seen(fps, day(d).UnixNano()); ok {
		return word
	}
	return j.judge(fps, ders, day(d).UnixNano())
}

func TestChain(t *testing.T) {
	root, mid, low, site, other := newParty(t, "Root"), newParty(t, "Mid"), newParty(t, "Low"), newParty(t, "Site"), newParty(t, "Other")
	anchor := root.sign(t, root, true)
	midCA, lowCA := mid.sign(t, root, true), low.sign(t, mid, true)
	leaf := site.sign(t, mid, false)
	forged := &party{"Mid", other.key}
	rsaKey := func(bits int) *rsa.PrivateKey {
		t.Setenv("GODEBUG", "rsa1024min=0")
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	oldMid, weakMid := &party{"Mid", rsaKey(1024)}, &party{"Mid", rsaKey(768)}
	oldCA, weakCA := oldMid.sign(t, root, true), weakMid.sign(t, root, true)
	until := func(d int) func(*x509.Certificate) { return func(c *x509.Certificate) { c.NotAfter = day(d) } }
	for _, c := range []struct {
		what string
		day  int
		want string
		ders [][]byte
	}{
		{"all is well", 500, chainOK, [][]byte{leaf, midCA}},
		{"in any order, with more", 500, chainOK, [][]byte{leaf, lowCA, anchor, midCA}},
		{"the root itself", 500, chainOK, [][]byte{anchor}},
		{"the first second", 100, chainOK, [][]byte{leaf, midCA}},
		{"the last second", 1000, chainExpired, [][]byte{leaf, midCA}},
		{"before it", 99, chainEarly, [][]byte{leaf, midCA}},
		{"an expired certificate", 500, chainExpired, [][]byte{site.sign(t, mid, false, until(400)), midCA}},
		{"an expired authority", 500, chainExpired, [][]byte{leaf, mid.sign(t, root, true, until(400))}},
		{"expired, and another that is not", 500, chainOK, [][]byte{leaf, mid.sign(t, root, true, until(400)), midCA}},
		{"signed by itself", 500, chainSelf, [][]byte{site.sign(t, site, false)}},
		{"signed by itself and expired", 1500, chainSelf, [][]byte{site.sign(t, site, false)}},
		{"with an authority's name", 500, chainSelf, [][]byte{forgedRoot(t, other)}},
		{"a root of its own", 500, chainSelfRoot, [][]byte{site.sign(t, other, false), other.sign(t, other, true)}},
		{"nobody knows", 500, chainNoIssuer, [][]byte{site.sign(t, other, false)}},
		{"an authority left out", 500, chainNoIssuer, [][]byte{leaf}},
		{"one of others left out", 500, chainNoIssuer, [][]byte{site.sign(t, low, false), lowCA}},
		{"a forged signature", 500, chainSignature, [][]byte{site.sign(t, forged, false), midCA}},
		{"a forged authority", 500, chainSignature, [][]byte{site.sign(t, forged, false), forged.sign(t, &party{"Root", other.key}, true)}},
		{"no authority", 500, chainNotCA, [][]byte{site.sign(t, low, false), low.sign(t, mid, false), midCA}},
		{"one that is only said to sign", 500, chainNotCA, [][]byte{leaf, mid.sign(t, root, false, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })}},
		{"one that may not sign", 500, chainNotCA, [][]byte{leaf, mid.sign(t, root, true, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })}},
		{"too deep", 500, chainTooDeep, [][]byte{site.sign(t, low, false), lowCA, mid.sign(t, root, true, func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true })}},
		{"not too deep", 500, chainOK, [][]byte{site.sign(t, low, false), lowCA, mid.sign(t, root, true, func(c *x509.Certificate) { c.MaxPathLen = 1 })}},
		{"another key of the name", 500, chainNoIssuer, [][]byte{
			site.sign(t, mid, false, func(c *x509.Certificate) { c.AuthorityKeyId = []byte("another") }), midCA,
		}},
		{"a name in other letters", 500, chainOK, [][]byte{site.sign(t, &party{"mID  ", mid.key}, false), midCA}},
		{"SHA-1", 500, chainOK, [][]byte{site.sign(t, oldMid, false, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }), oldCA}},
		{"the same key with SHA-256", 500, chainOK, [][]byte{site.sign(t, oldMid, false), oldCA}},
		{"a key too small", 500, chainUnsure, [][]byte{site.sign(t, weakMid, false), weakCA}},
		{"limits of names", 500, chainUnsure, [][]byte{leaf, mid.sign(t, root, true, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.com"} })}},
		{"an unknown extension that may not be passed over", 500, chainUnsure, [][]byte{site.sign(t, mid, false, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}), midCA}},
		{"an unknown algorithm", 500, chainUnsure, [][]byte{bytes.ReplaceAll(site.sign(t, site, false), []byte("\x2a\x86\x48\xce\x3d\x04\x03\x02"), []byte("\x2a\x86\x48\xce\x3d\x04\x03\x09"))}},
		{"no certificate", 500, chainUnsure, [][]byte{[]byte("no certificate"), midCA}},
		{"no authority's certificate", 500, chainUnsure, [][]byte{leaf, []byte("no certificate")}},
	} {
		if got := trusting(bundle.Root{Certificate: anchor}).ask(c.day, c.ders...); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

// forgedRoot returns a certificate with the name of the root of TestChain that
// p signed itself.
func forgedRoot(t *testing.T, p *party) []byte {
	t.Helper()
	q := &party{"Root", p.key}
	return q.sign(t, q, true)
}

// TestChainLong checks that a way of too many steps is given up.
func TestChainLong(t *testing.T) {
	by := newParty(t, "0")
	anchor := by.sign(t, by, true)
	var all [][]byte
	for i := 1; i <= maxSteps+1; i++ {
		p := newParty(t, fmt.Sprint(i))
		all = append([][]byte{p.sign(t, by, true)}, all...)
		by = p
		want := chainOK
		if i > maxSteps {
			want = chainUnsure
		}
		j := trusting(bundle.Root{Certificate: anchor})
		if got := j.ask(500, all...); got != want || j.checked > maxSteps {
			t.Errorf("%d certificates: %q, want %q; %d signatures", i, got, want, j.checked)
		}
	}
}

// TestChainMemory checks what is remembered: verdicts as long as the dates
// allow, and authorities for servers that do not show them.
func TestChainMemory(t *testing.T) {
	root, mid, site := newParty(t, "Root"), newParty(t, "Mid"), newParty(t, "Site")
	anchor, midCA, leaf := root.sign(t, root, true), mid.sign(t, root, true), site.sign(t, mid, false, func(c *x509.Certificate) { c.NotAfter = day(600) })
	j := trusting(bundle.Root{Certificate: anchor})
	if got := j.ask(500, leaf); got != chainNoIssuer {
		t.Errorf("without its authority: %q", got)
	}
	if got := j.ask(500, leaf, midCA); got != chainOK || j.checked != 2 {
		t.Errorf("with its authority: %q by %d signatures", got, j.checked)
	}
	if got := j.ask(500, leaf); got != chainOK || j.checked != 3 {
		t.Errorf("without it again: %q by %d signatures in all", got, j.checked)
	}
	for d, want := range map[int]string{99: chainEarly, 100: chainOK, 599: chainOK, 600: chainExpired, 2000: chainExpired} {
		if got := j.ask(d, leaf, midCA); got != want {
			t.Errorf("day %d: %q, want %q", d, got, want)
		}
	}
	fps := prints([][]byte{leaf, midCA})
	j.ask(500, leaf, midCA)
	for d, want := range map[int]bool{99: false, 100: true, 599: true, 600: false} {
		if _, ok := j.seen(fps, day(d).UnixNano()); ok != want {
			t.Errorf("the verdict of day 500 holds on day %d: %v", d, ok)
		}
	}
	for i := range maxKnown + 10 {
		if i%maxNamesake == 0 {
			mid = newParty(t, fmt.Sprint("Mid ", i))
		}
		midCA = mid.sign(t, root, true)
		if got := j.ask(500, site.sign(t, mid, false), midCA); got != chainOK {
			t.Fatalf("authority %d: %q", i, got)
		}
	}
	for i := range 2*maxVerdicts + 10 {
		j.judge([][sha256.Size]byte{{byte(i), byte(i >> 8), 1}}, [][]byte{leaf}, day(500).UnixNano())
	}
	if len(j.known) != maxKnown || len(j.verdicts) > maxVerdicts {
		t.Errorf("%d authorities and %d verdicts are remembered", len(j.known), len(j.verdicts))
	}
	for name, all := range j.named {
		if len(all) > maxNamesake {
			t.Errorf("%d authorities of the name %q", len(all), name)
		}
	}
}

// TestChainDistrust checks that a root which Mozilla trusts for old
// certificates alone does not make others good.
func TestChainDistrust(t *testing.T) {
	root, site := newParty(t, "Root"), newParty(t, "Site")
	j := trusting(bundle.Root{Certificate: root.sign(t, root, true), Constraint: func(chain []*x509.Certificate) error {
		for _, c := range chain {
			if c.NotBefore.After(day(300)) {
				return errors.New("too new")
			}
		}
		return nil
	}})
	if got := j.ask(500, site.sign(t, root, false)); got != chainOK {
		t.Errorf("old: %q", got)
	}
	if got := j.ask(500, site.sign(t, root, false, func(c *x509.Certificate) { c.NotBefore = day(301) })); got != chainUnsure {
		t.Errorf("new: %q", got)
	}
}

// TestChainRecord checks that the verdict is in the record, and that a second
// chain in a connection costs nothing.
func TestChainRecord(t *testing.T) {
	root, site := newParty(t, "Root"), newParty(t, "Site")
	leaf := site.sign(t, root, false)
	set := NewSet()
	set.judge.trust(each([]bundle.Root{{Certificate: root.sign(t, root, true)}}))
	m := newTestMeter()
	m.set = set
	var h handshake
	h.reset()
	list := func(der []byte) []byte { return []byte(vec24(string(der))) }
	h.certificates(set, &testConn{m: m}, list(leaf), true, day(500).UnixNano())
	if h.chain[0].status != chainOK || set.judge.checked != 1 {
		t.Errorf("%q by %d signatures", h.chain[0].status, set.judge.checked)
	}
	h.certificates(set, &testConn{m: m}, list(site.sign(t, root, false)), true, day(500).UnixNano())
	if h.chain[0].status != chainUnsure || set.judge.checked != 1 {
		t.Errorf("a second chain: %q by %d signatures", h.chain[0].status, set.judge.checked)
	}
	h.certificates(set, &testConn{m: m}, list(leaf), true, day(500).UnixNano())
	if h.chain[0].status != chainOK {
		t.Errorf("the first once more: %q", h.chain[0].status)
	}
	h.certificates(set, &testConn{m: m}, list(leaf), false, day(500).UnixNano())
	if h.chain[1].status != chainUnsure {
		t.Errorf("a client's: %q", h.chain[1].status)
	}
	h.reset()
	h.certificates(set, &testConn{m: m}, list(site.sign(t, site, false)), true, day(500).UnixNano())
	if h.chain[0].status != chainSelf {
		t.Errorf("the next connection: %q", h.chain[0].status)
	}
}

// TestChainBundle checks that each of Mozilla's roots is taken, and those of
// former times for their time.
func TestChainBundle(t *testing.T) {
	var j judge
	j.trust(bundle.Roots())
	j.retire([]byte(retired))
	n, useless := 0, 0
	for r := range bundle.Roots() {
		n++
		c, err := x509.ParseCertificate(r.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		at := c.NotBefore.Add(time.Hour).UnixNano()
		if got := j.judge([][sha256.Size]byte{sha256.Sum256(r.Certificate)}, [][]byte{r.Certificate}, at); got != chainOK {
			t.Errorf("%s: %q", c.Subject, got)
		}
		if !usable(c.PublicKey) {
			useless++
		}
	}
	if useless > 1 {
		t.Errorf("%d roots have keys that are not used", useless)
	}
	total, gone := 0, 0
	for _, all := range j.roots {
		for _, l := range all {
			total++
			if l.until == 0 {
				continue
			}
			gone++
			fps, before := [][sha256.Size]byte{l.fp}, min(l.until-1, l.NotAfter.Unix()-1)
			if got := j.judge(fps, [][]byte{l.Raw}, before*1e9); got != chainOK {
				t.Errorf("%s, before it was taken out: %q", l.Subject, got)
			}
			if got := j.judge(fps, [][]byte{l.Raw}, l.until*1e9); got != chainSelf {
				t.Errorf("%s, since it was taken out: %q", l.Subject, got)
			}
		}
	}
	if want := strings.Count(retired, "\nUntil: "); total != n+gone || n < 100 || gone != want || gone < 40 {
		t.Errorf("%d roots of %d, and %d of %d that were taken out", total-gone, n, gone, want)
	}
}

// TestChainOpenSSL compares the words about chains made by chance with those
// of OpenSSL.
func TestChainOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not on this machine: ", err)
	}
	version, err := exec.CommandContext(t.Context(), openssl, "version").Output() // #nosec G204 -- the program is openssl
	if err != nil || !bytes.HasPrefix(version, []byte("OpenSSL 3.")) {
		t.Skipf("openssl is not OpenSSL 3: %q, %v", version, err)
	}
	dir := t.TempDir()
	write := func(name string, ders ...[]byte) string {
		var b bytes.Buffer
		for _, d := range ders {
			if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: d}); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	r := mrand.New(mrand.NewPCG(1, 2)) //nolint:gosec // chance that can be repeated
	var all []*party
	for _, name := range []string{"A", "B", "C", "B", "D"} {
		all = append(all, newParty(t, name))
	}
	chance := func(percent int) bool { return r.IntN(100) < percent }
	// made returns a certificate of p by the issuer by, with one thing or
	// another that is not as it should be.
	made := func(p, by *party, ca bool) []byte {
		key := by.key
		if chance(5) {
			key = all[r.IntN(len(all))].key
		}
		return p.sign(t, &party{by.name, key}, ca, func(c *x509.Certificate) {
			if chance(8) {
				c.NotBefore = day(r.IntN(1000))
			}
			if chance(8) {
				c.NotAfter = day(200 + r.IntN(800))
				c.NotBefore = day(r.IntN(200))
			}
			if ca && chance(8) {
				c.MaxPathLen = r.IntN(3)
				c.MaxPathLenZero = c.MaxPathLen == 0
			}
			if ca && chance(6) {
				c.BasicConstraintsValid, c.IsCA, c.MaxPathLen, c.MaxPathLenZero = chance(50), false, -1, false
			}
			if chance(6) {
				c.KeyUsage = []x509.KeyUsage{0, x509.KeyUsageCRLSign, x509.KeyUsageCertSign}[r.IntN(3)]
			}
			if ca && chance(20) {
				c.SubjectKeyId = []byte{byte(r.IntN(2))}
			}
			if chance(15) && p != by { // a root that does not fit itself is none
				c.AuthorityKeyId = []byte{byte(r.IntN(2))}
			}
		})
	}
	words := make(map[string]int)
	for range 500 {
		root := all[r.IntN(3)]
		anchor := made(root, root, true)
		by := root
		shown := [][]byte{}
		for range r.IntN(3) {
			p := all[r.IntN(len(all))]
			shown = append(shown, made(p, by, true))
			by = p
		}
		site := newParty(t, "Site")
		if chance(10) {
			by = site
		}
		shown = append(shown, made(site, by, false))
		for i, k := 0, len(shown)-1; i < k; i, k = i+1, k-1 {
			shown[i], shown[k] = shown[k], shown[i]
		}
		if chance(20) {
			shown = append(shown, anchor)
		}
		if chance(20) {
			shown = append(shown, made(all[r.IntN(5)], all[r.IntN(5)], true))
		}
		if chance(15) {
			anchor = made(all[r.IntN(5)], all[4], true)
			if c, err := x509.ParseCertificate(anchor); err != nil || c.Subject.CommonName != c.Issuer.CommonName {
				anchor = made(all[4], all[4], true)
			}
		}
		d := 500
		if chance(10) {
			d = r.IntN(1200)
		}
		// #nosec G204 -- the program is openssl
		cmd := exec.CommandContext(t.Context(), openssl, "verify", "-no-CApath", "-no-CAstore", "-CAfile", write("roots", anchor),
			"-untrusted", write("shown", shown...), "-attime", fmt.Sprint(day(d).Unix()), write("leaf", shown[0]))
		out, err := cmd.CombinedOutput()
		want := chainOK
		if _, after, found := strings.Cut(string(out), "depth lookup: "); found {
			want, _, _ = strings.Cut(after, "\n")
		} else if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if want == "self-signed certificate" {
			want = chainSelf
		}
		got := trusting(bundle.Root{Certificate: anchor}).ask(d, shown...)
		if words[got]++; got != want {
			t.Errorf("%q, openssl %q: day %d, %s", got, want, d, chainText(append(shown, anchor)))
		}
	}
	if len(words) < 8 || words[chainUnsure] > 0 {
		t.Errorf("chance was no good: %v", words)
	}
	t.Log(words)
}

func chainText(ders [][]byte) string {
	var b strings.Builder
	for _, d := range ders {
		c, err := x509.ParseCertificate(d)
		if err != nil {
			return err.Error()
		}
		fmt.Fprintf(&b, "\n  %s by %s, %s to %s, CA %v %v, length %d, usage %d, key %x of %x", c.Subject.CommonName, c.Issuer.CommonName,
			c.NotBefore.Format(time.DateOnly), c.NotAfter.Format(time.DateOnly), c.BasicConstraintsValid, c.IsCA, c.MaxPathLen, c.KeyUsage, c.SubjectKeyId, c.AuthorityKeyId)
	}
	return b.String()
}

// FuzzChain reads any list of certificates and checks that the verdict is one
// of the words, costs a bounded number of signatures, and is found again.
func FuzzChain(f *testing.F) {
	root, mid, site := newParty(f, "Root"), newParty(f, "Mid"), newParty(f, "Site")
	anchor, midCA, leaf := root.sign(f, root, true), mid.sign(f, root, true), site.sign(f, mid, false)
	join := func(ders ...[]byte) []byte {
		var b []byte
		for _, d := range ders {
			b = append(b, vec24(string(d))...)
		}
		return b
	}
	f.Add(join(leaf, midCA), day(500).UnixNano())
	f.Add(join(leaf, anchor, midCA), day(50).UnixNano())
	f.Add(join(site.sign(f, site, false)), day(500).UnixNano())
	f.Add(join(midCA, midCA, leaf), int64(-1))
	f.Add(join(nil, leaf), int64(1)<<62)
	words := []string{
		chainUnsure, chainOK, chainSelf, chainSelfRoot, chainNoIssuer, chainNotCA, chainTooDeep, chainExpired, chainEarly, chainSignature,
	}
	f.Fuzz(func(t *testing.T, list []byte, at int64) {
		var ders [][]byte
		for l := (cursor{b: list}); len(l.b) > 0 && len(ders) < maxCerts; {
			if d := l.vec24(); !l.bad {
				ders = append(ders, d)
			}
		}
		if len(ders) == 0 {
			return
		}
		j, fps := trusting(bundle.Root{Certificate: anchor}), prints(ders)
		word := j.judge(fps, ders, at)
		if !slices.Contains(words, word) || j.checked > maxSteps {
			t.Fatalf("%q by %d signatures", word, j.checked)
		}
		if again, ok := j.seen(fps, at); !ok || again != word {
			t.Fatalf("%q, then %q, %v", word, again, ok)
		}
		if again := trusting(bundle.Root{Certificate: anchor}).judge(fps, ders, at); again != word {
			t.Fatalf("%q, then %q", word, again)
		}
	})
}

// FuzzChainKey checks a signature with any key that a certificate can have.
func FuzzChainKey(f *testing.F) {
	for _, k := range nastyKeys() {
		b, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, byte(x509.SHA256WithRSA), make([]byte, 128))
	}
	for _, curve := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			f.Fatal(err)
		}
		b, err := x509.MarshalPKIXPublicKey(k.Public())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, byte(x509.ECDSAWithSHA256), []byte("\x30\x06\x02\x01\x01\x02\x01\x01"))
		f.Add(b, byte(x509.ECDSAWithSHA256), []byte("\x30\x06\x02\x01\x00\x02\x01\xff"))
	}
	f.Fuzz(func(t *testing.T, spki []byte, alg byte, sig []byte) {
		key, err := x509.ParsePKIXPublicKey(spki)
		if err != nil {
			return
		}
		j := new(judge)
		c := &link{Certificate: &x509.Certificate{SignatureAlgorithm: x509.SignatureAlgorithm(alg % 18), RawTBSCertificate: []byte("signed"), Signature: sig}}
		x := &link{Certificate: &x509.Certificate{PublicKey: key, RawSubjectPublicKeyInfo: spki}}
		switch word := j.signed(c, x); word {
		case chainOK:
			if c.by == nil {
				t.Error("a proof is not remembered")
			}
		case chainUnsure, chainSignature:
			if c.by != nil {
				t.Error("a failure is remembered as a proof")
			}
		default:
			t.Errorf("%q", word)
		}
	})
}

// nastyKeys returns RSA keys that are not as they should be.
func nastyKeys() []*rsa.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), 2047)
	odd := new(big.Int).Add(n, big.NewInt(1))
	huge := new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 16383), big.NewInt(1))
	return []*rsa.PublicKey{
		{N: n, E: 65537},
		{N: odd, E: 1},
		{N: odd, E: 2},
		{N: odd, E: 1<<31 - 1},
		{N: odd, E: 1<<31 + 1},
		{N: big.NewInt(15), E: 3},
		{N: huge, E: 3},
		{N: odd, E: 65537},
	}
}

// TestChainKeys checks which keys are used.
func TestChainKeys(t *testing.T) {
	want := []bool{false, false, false, true, false, false, false, true}
	for i, k := range nastyKeys() {
		if got := usable(k); got != want[i] {
			t.Errorf("key %d: %v, want %v", i, got, want[i])
		}
	}
}

// rootOf returns the name of a root of the bundle with the most expensive key
// of a kind.
func rootOf(b *testing.B, rsaKey bool) *x509.Certificate {
	b.Helper()
	var best *x509.Certificate
	size, most := 0, 0
	for r := range bundle.Roots() {
		c, err := x509.ParseCertificate(r.Certificate)
		if err != nil {
			b.Fatal(err)
		}
		switch k := c.PublicKey.(type) {
		case *rsa.PublicKey:
			if size = k.N.BitLen(); !rsaKey {
				continue
			}
		case *ecdsa.PublicKey:
			if size = k.Params().BitSize; rsaKey || !usable(k) {
				continue
			}
		}
		if size > most {
			best, most = c, size
		}
	}
	return best
}

// BenchmarkChain is what a chain costs: one that was seen, a new one of a known
// authority, and those with which an attacker makes it as dear as he can.
func BenchmarkChain(b *testing.B) {
	root, mid, site := newParty(b, "Root"), newParty(b, "Mid"), newParty(b, "Site")
	anchor, midCA, leaf := root.sign(b, root, true), mid.sign(b, root, true), site.sign(b, mid, false)
	at := day(500).UnixNano()
	run := func(name string, roots []bundle.Root, ders ...[]byte) {
		b.Run(name, func(b *testing.B) {
			j := new(judge)
			if j.trust(bundle.Roots()); roots != nil {
				j.trust(each(roots))
			}
			fps := prints(ders)
			b.ReportAllocs()
			for b.Loop() {
				j.judge(fps, ders, at)
			}
			b.ReportMetric(float64(j.checked)/float64(b.N), "signatures/op")
		})
	}
	b.Run("seen", func(b *testing.B) {
		j, ders := trusting(bundle.Root{Certificate: anchor}), [][]byte{leaf, midCA}
		fps := prints(ders)
		j.judge(fps, ders, at)
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := j.seen(fps, at); !ok {
				b.Fatal("forgotten")
			}
		}
	})
	run("good", []bundle.Root{{Certificate: anchor}}, leaf, midCA)
	run("self-signed", nil, site.sign(b, site, false))
	run("unknown", nil, leaf, midCA)
	for kind, rsaKey := range map[string]bool{"RSA": true, "ECDSA": false} {
		c := rootOf(b, rsaKey)
		run("forged/"+kind, nil, forge(b, c, rsaKey))
	}
	// As many of one name as fit, each of which is read and none of which is the issuer.
	names := func(n int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprintf("%d.example", i))
		}
		return all
	}
	many := [][]byte{leaf}
	for len(many) < maxCerts {
		many = append(many, mid.sign(b, mid, true, func(c *x509.Certificate) { c.DNSNames, c.SubjectKeyId = names(170), []byte("yes") }))
	}
	many[0] = site.sign(b, mid, false, func(c *x509.Certificate) { c.AuthorityKeyId, c.DNSNames = []byte("no"), names(170) })
	run("many", nil, many...)
	run("long", nil, site.sign(b, mid, false, func(c *x509.Certificate) { c.DNSNames = names(5000) }))
	b.Run("roots", func(b *testing.B) {
		for b.Loop() {
			var j judge
			j.trust(bundle.Roots())
			j.retire([]byte(retired))
		}
	})
}

// forge returns a certificate that says that root issued it.
func forge(b *testing.B, root *x509.Certificate, rsaKey bool) []byte {
	b.Helper()
	key := newParty(b, "").key
	if rsaKey {
		k, err := rsa.GenerateKey(rand.Reader, root.PublicKey.(*rsa.PublicKey).N.BitLen())
		if err != nil {
			b.Fatal(err)
		}
		key = k
	} else if k, err := ecdsa.GenerateKey(root.PublicKey.(*ecdsa.PublicKey).Curve, rand.Reader); err == nil {
		key = k
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Forged"}, NotBefore: day(100), NotAfter: day(1000)}
	der, err := x509.CreateCertificate(rand.Reader, c, &x509.Certificate{RawSubject: root.RawSubject, SubjectKeyId: root.SubjectKeyId}, key.Public(), key)
	if err != nil {
		b.Fatal(err)
	}
	return der
}
