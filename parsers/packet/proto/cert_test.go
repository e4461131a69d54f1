package proto

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slips-go/slips/parsers/flow"
)

func cut3(t *testing.T, s string) (a, b, c []byte) {
	t.Helper()
	var out [3][]byte
	for i, f := range strings.Fields(s) {
		x, err := hex.DecodeString(f)
		if err != nil {
			t.Fatal(err)
		}
		out[i] = x
	}
	return out[0], out[1], out[2]
}

func aesBlock(t *testing.T, key []byte) cipher.Block {
	t.Helper()
	b, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func gcm(t *testing.T, key []byte) cipher.AEAD {
	t.Helper()
	a, err := cipher.NewGCM(aesBlock(t, key))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// testCert is a certificate for *.example.com.
func testCert(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber:          big.NewInt(0x0badcafe),
		Subject:               pkix.Name{CommonName: "x, \"y\" é", Organization: []string{"#o "}, Country: []string{"DE"}},
		NotBefore:             time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC),
		NotAfter:              time.Date(2060, 1, 2, 3, 4, 5, 0, time.UTC),
		DNSNames:              []string{"*.example.com", "other.example"},
		IPAddresses:           []net.IP{net.IPv4(1, 2, 3, 4), net.ParseIP("2001:db8::1")},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestCertificate(t *testing.T) {
	set := NewSet()
	m := newTestMeter()
	m.set = set
	tc := &testConn{m: m}
	var h handshake
	h.reset()
	h.sni, h.hasSNI = []byte("WWW.example.com"), true
	der := testCert(t)
	h.certificates(set, tc, []byte(vec24(string(der))), true, 5)
	if len(m.records) != 1 {
		t.Fatalf("%d records", len(m.records))
	}
	p := m.records[0].X509
	const dn = `CN=x\, \"y\" \C3\A9,O=\#o\ ,C=DE`
	if p.Subject != dn || p.Issuer != dn || p.Serial != "0BADCAFE" || p.Version != 3 || p.KeyAlg != "id-ecPublicKey" || p.KeyType != "ecdsa" ||
		p.KeyLength != 256 || p.SigAlg != "ecdsa-with-SHA256" || p.CA != flow.True || p.HostCert != flow.True || p.ClientCert != flow.False {
		t.Errorf("%+v", p)
	}
	if !slices.Equal(p.SANDNS, []string{"*.example.com", "other.example"}) || !slices.Equal(p.SANIP, []string{"1.2.3.4", "2001:db8::1"}) {
		t.Errorf("names %q, addresses %q", p.SANDNS, p.SANIP)
	}
	if p.NotBefore != time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano() || p.NotAfter != time.Date(2060, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano() {
		t.Errorf("from %d to %d", p.NotBefore, p.NotAfter)
	}
	if h.chain[0].match != flow.True {
		t.Error("the name does not match")
	}
	h.sni = []byte("a.b.example.com")
	if c, ok := parseCertificate(der); !ok || h.matches(&c) {
		t.Error("a wildcard matches two labels")
	}
}

func TestSerial(t *testing.T) {
	for in, want := range map[string]string{"\x00": "00", "\x00\xff": "FF", "\x01\x02": "0102", "\xff": "-01", "\xff\x00": "-0100", "": ""} {
		if got := string(appendSerial(nil, []byte(in))); got != want {
			t.Errorf("%x: %q, want %q", in, got, want)
		}
	}
}

func TestOID(t *testing.T) {
	for in, want := range map[string]string{"\x2a\x86\x48\x86\xf7\x0d": "1.2.840.113549", "\x55\x04\x03": "2.5.4.3", "\x88\x37\x03": "2.999.3", "": ""} {
		if got := string(appendOID(nil, []byte(in))); got != want {
			t.Errorf("%x: %q, want %q", in, got, want)
		}
	}
}
