package online

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"io"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/parsers/flow"
)

// certificate makes one that signs itself.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// listen serves every connection with handle until the test ends.
func listen(t *testing.T, handle func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				stop := context.AfterFunc(t.Context(), func() { c.Close() })
				defer stop()
				handle(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return netip.MustParseAddrPort(l.Addr().String())
}

// zeros stands for chance.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func localProber() prober {
	return prober{new(net.Dialer).DialContext, rand.Reader}
}

func TestJARMOfTLSServer(t *testing.T) {
	c := &tls.Config{Certificates: []tls.Certificate{certificate(t)}, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12}
	server := listen(t, func(conn net.Conn) { tls.Server(conn, c).HandshakeContext(t.Context()) })
	got, err := localProber().fingerprint(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != jarmLength || strings.Trim(got, "0123456789abcdef") != "" || strings.Trim(got, "0") == "" {
		t.Fatalf("fingerprint %q", got)
	}
	if v := got[2]; v != 'd' || got[15:18] != "000" { // TLS 1.2, and none of 1.1
		t.Errorf("fingerprint %q of a server with TLS 1.2 and 1.3", got)
	}
	again, err := localProber().fingerprint(t.Context(), server)
	if err != nil || got != again {
		t.Errorf("first %s, then %s, %v", got, again, err)
	}
}

// The hellos are those that the original sends when all chance in it is zero:
// the sum is over its ten packets for 127.0.0.1, one after the other.
func TestHellosAreTheOriginals(t *testing.T) {
	var all []byte
	for _, p := range probes() {
		b, err := p.hello("127.0.0.1", zeros{})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	sum := sha256.Sum256(all)
	if got, want := hex.EncodeToString(sum[:]), "b06f300c3190b5f706bd7ab3521a20756d479dd269503ebb501b6ed2403504c6"; got != want {
		t.Errorf("sum of the hellos %s, want %s", got, want)
	}
}

// A worked example that other programs test themselves against.
func TestJARMHash(t *testing.T) {
	const full, bare = "c02f|0303|http/1.1|0000-ff01-000b-0023-0010", "c02f|0303||0000-ff01-000b-0023"
	got := jarmHash([]string{full, full, none, bare, bare, none, full, full, full, full})
	if want := "29d29d00029d29d00029d29d29d29d8c9dac4e97f99c7a0e93e9d4d790df0a"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := jarmHash(slices.Repeat([]string{none}, probeCount)); got != strings.Repeat("0", 62) {
		t.Errorf("of no answers: %s", got)
	}
	for cipher, want := range map[string]string{"": "00", "0004": "01", "0005": "02", "c0af": "3c", "cca9": "40", "1301": "41", "1305": "45", "ffff": "46"} {
		if got := cipherDigits(cipher); got != want {
			t.Errorf("cipher %s: %s, want %s", cipher, got, want)
		}
	}
}

func TestArrange(t *testing.T) {
	for o, want := range map[order][2]string{
		forward: {"abcde", "abcd"}, backward: {"edcba", "dcba"}, topHalf: {"cba", "ba"}, bottomHalf: {"de", "cd"}, middleOut: {"cdbea", "cbda"},
	} {
		for i, s := range []string{"abcde", "abcd"} {
			if got := string(arrange([]byte(s), o)); got != want[i] {
				t.Errorf("order %d of %s: %s, want %s", o, s, got, want[i])
			}
		}
	}
}

func TestServerHello(t *testing.T) {
	body := slices.Concat([]byte{3, 3}, make([]byte, 32), []byte{0}, []byte{0xc0, 0x2f, 0}, vector16(
		[]byte{0xff, 1, 0, 1, 0}, []byte{0, 16}, vector16(vector16([]byte("\x08http/1.1"))), []byte{0, 35, 0, 0},
	))
	record := slices.Concat([]byte{22, 3, 3}, vector16([]byte{2, 0}, vector16(body)))
	if got, want := serverHello(record), "c02f|0303|http/1.1|ff01-0010-0023"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	bare := slices.Concat([]byte{3, 3}, make([]byte, 32), []byte{0}, []byte{0xc0, 0x2f, 0})
	record = slices.Concat([]byte{22, 3, 3}, vector16([]byte{2, 0}, vector16(bare), []byte{11, 0, 0, 9, 9, 9}))
	if got, want := serverHello(record), "c02f|0303||"; got != want {
		t.Errorf("without extensions: got %s, want %s", got, want)
	}
	if got := serverHello([]byte{21, 3, 3, 0, 2, 2, 40}); got != none {
		t.Errorf("an alert: %s", got)
	}
}

func TestJARMOfOddServers(t *testing.T) {
	zero := strings.Repeat("0", 62)
	for name, c := range map[string]struct {
		handle func(net.Conn)
		want   flow.LookupPart
	}{
		"hangs up":       {func(net.Conn) {}, flow.LookupPart{Found: flow.False, JARM: zero}},
		"speaks HTTP":    {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }, flow.LookupPart{Found: flow.False, JARM: zero}},
		"cut in a hello": {func(c net.Conn) { c.Write([]byte{22, 3, 3, 0, 80, 2, 0, 0}) }, flow.LookupPart{Found: flow.False, JARM: zero}},
	} {
		t.Run(name, func(t *testing.T) {
			at := listen(t, func(conn net.Conn) {
				conn.Read(make([]byte, 2048)) // a connection with unread bytes is reset, which is another case
				c.handle(conn)
			})
			got, err := localProber().ask(t.Context(), subject{kind: intel.Address, addr: at.Addr(), port: at.Port()})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
	t.Run("silent", func(t *testing.T) {
		at := listen(t, func(c net.Conn) { io.Copy(io.Discard, c) })
		ctx, cancel := context.WithTimeout(t.Context(), 50*1e6)
		defer cancel()
		_, err := localProber().ask(ctx, subject{kind: intel.Address, addr: at.Addr(), port: at.Port()})
		if err == nil || !isSaid(err) {
			t.Errorf("error %v: want one about the subject", err)
		}
	})
	t.Run("no port", func(t *testing.T) {
		if _, err := localProber().ask(t.Context(), subject{}); err == nil {
			t.Error("a probe without a port")
		}
	})
}

func FuzzServerHello(f *testing.F) {
	f.Add([]byte{22, 3, 3, 0, 2, 2, 40})
	f.Add(append([]byte{22, 3, 3, 0, 90, 2}, bytes.Repeat([]byte{0}, 120)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := serverHello(b)
		if strings.Count(got, "|") < 3 {
			t.Errorf("%q has too few parts", got)
		}
		if h := jarmHash(slices.Repeat([]string{got}, probeCount)); len(h) != jarmLength {
			t.Errorf("%q gives %q", got, h)
		}
	})
}
