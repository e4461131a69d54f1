package proto

import (
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/parsers/flow"
)

// maxFootprint bounds the memory that an analyzer holds, whatever it is
// given; ordinary connections take a hundredth.
const maxFootprint = 1 << 20

// maxFreeFootprint bounds the memory of one that waits to be used again.
const maxFreeFootprint = 100 << 10

// footprint adds up the memory behind the slices of an analyzer.
func footprint(v reflect.Value) int {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() || v.Type() == reflect.TypeFor[*Set]() || v.Type() == reflect.TypeFor[Conn]() {
			return 0
		}
		if p := v.Type().PkgPath(); v.Kind() == reflect.Interface && p != "" && !strings.HasSuffix(p, "proto") {
			return 0 // ciphers
		}
		return footprint(v.Elem())
	case reflect.Struct:
		n := 0
		for _, x := range v.Fields() {
			n += footprint(x)
		}
		return n
	case reflect.Slice:
		n := v.Cap() * int(v.Type().Elem().Size())
		all := v.Slice(0, v.Cap())
		for i := range all.Len() {
			if k := v.Type().Elem().Kind(); k == reflect.Uint8 {
				break
			}
			n += footprint(all.Index(i))
		}
		return n
	case reflect.Array:
		n := 0
		for i := range v.Len() {
			if k := v.Type().Elem().Kind(); k == reflect.Uint8 {
				break
			}
			n += footprint(v.Index(i))
		}
		return n
	}
	return 0
}

// sound checks that the texts of a record can be printed.
func sound(t *testing.T, f *flow.Flow) {
	t.Helper()
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.String:
			s := v.String()
			if !utf8.ValidString(s) {
				t.Errorf("%v: text is not UTF-8: %q", f.Kind, s)
			}
			for _, r := range s {
				if r < ' ' || r == 0x7f {
					t.Errorf("%v: control character in %q", f.Kind, s)
					break
				}
			}
		case reflect.Struct:
			if v.Type() == reflect.TypeFor[netip.Addr]() {
				return
			}
			for _, x := range v.Fields() {
				walk(x)
			}
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i))
			}
		}
	}
	walk(reflect.ValueOf(part(f)))
}

// part returns the part of a record.
func part(f *flow.Flow) any {
	switch f.Kind {
	case flow.DNS:
		return *f.DNS
	case flow.HTTP:
		return *f.HTTP
	case flow.SSL, flow.QUIC:
		return *f.SSL
	case flow.X509:
		return *f.X509
	case flow.SSH:
		return *f.SSH
	case flow.SMTP:
		return *f.SMTP
	case flow.FTP:
		return *f.FTP
	case flow.DHCP:
		return *f.DHCP
	case flow.Software:
		return *f.Software
	case flow.Weird:
		return *f.Weird
	case flow.Files:
		return *f.Files
	}
	return nil
}

// print lists records; without those of software, which are told once in the
// life of a Set.
func print(records []*flow.Flow) string {
	var b strings.Builder
	for _, f := range records {
		if f.Kind != flow.Software {
			fmt.Fprintf(&b, "%v %d %+v\n", f.Kind, f.Time, part(f))
		}
	}
	return b.String()
}

// script packs a conversation for the fuzzer: for each chunk a byte that
// tells the direction, whether there is a gap before it, and with what the
// length in the next byte is multiplied.
func script(all ...say) []byte {
	var b []byte
	for _, x := range all {
		for len(x.b) > 0 {
			n := min(len(x.b), 255)
			b = append(b, byte(x.d), byte(n))
			b = append(b, x.b[:n]...)
			x.b = x.b[n:]
		}
	}
	return b
}

// run plays a packed conversation.
func run(t *testing.T, set *Set, port uint16, udp bool, b []byte) string {
	t.Helper()
	m := newTestMeter()
	m.set = set
	tc := &testConn{tuple: tuple{netip.MustParseAddrPort("10.0.0.1:40000"), netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), port), flow.TCP}, m: m}
	if udp {
		tc.proto = flow.UDP
	}
	at := int64(1e18)
	for len(b) >= 2 {
		op, n := b[0], int(b[1])
		b = b[2:]
		chunk := b[:min(n, len(b))]
		b = b[len(chunk):]
		at += 1e8
		if tc.a != nil && op&6 == 6 && !udp {
			tc.a.Gap(Dir(op&1), int64(n)+1, at)
		}
		for range 1 + int(op>>4)*int(op>>4) {
			tc.data(Dir(op&1), chunk, at)
		}
		if tc.a != nil {
			if n := footprint(reflect.ValueOf(tc.a)); n > maxFootprint {
				t.Fatalf("an analyzer holds %d bytes", n)
			}
		}
	}
	if tc.a != nil {
		tc.a.End(at)
		for d := range Resp + 1 {
			if s, ok := tc.a.(*sniffer); ok && s.inner == nil && s.Wants(d) {
				t.Error("more is wanted after the end")
			}
		}
		set.Free(tc.a)
		if n := footprint(reflect.ValueOf(tc.a)); n > maxFreeFootprint {
			t.Errorf("an analyzer that is free holds %d bytes", n)
		}
	}
	if tc.open {
		t.Error("a record was not emitted")
	}
	for _, f := range m.records {
		sound(t, f)
	}
	return print(m.records)
}

// check plays a conversation twice, the second time with the analyzers that
// the first time left: nothing of it may show.
func check(t *testing.T, port uint16, udp bool, b []byte) {
	t.Helper()
	set := NewSet()
	first := run(t, set, port, udp, b)
	if d := cmp.Diff(first, run(t, set, port, udp, b)); d != "" {
		t.Errorf("an analyzer that is used again finds something else: -first +second\n%s", d)
	}
}

func FuzzTCP(f *testing.F) {
	x := strings.Repeat("x", 48)
	for port, all := range map[uint16][]say{
		80:   {c("GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Basic YTpi\r\n\r\n"), s("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n5\r\n\x1f\x8b\x08\x00\x00\r\n0\r\n\r\n")},
		25:   {s("220 x\r\n"), c("EHLO y\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 20 LAST\r\nSubject: hi\r\n\r\nxyz."), s("250 a\r\n250 b\r\n250 c\r\n250 d\r\n")},
		21:   {s("220 x\r\n"), c("USER a\r\nPASS b\r\nPASV\r\n"), s("331 x\r\n230 y\r\n227 (1,2,3,4,5,6)\r\n"), c("AUTH TLS\r\n"), s("234 x\r\n"), c(record(22, ja4Hello()))},
		22:   {s("SSH-2.0-x\r\n"), c("SSH-2.0-y\r\n" + kexInit("a", "b")), s(kexInit("a", "b") + packetSSH([]byte{21}) + x), c(packetSSH([]byte{21}) + x)},
		443:  {c(record(22, ja4Hello())), s(record(22, serverHello("0303", "", "c02f", "")+"\x0b"+vec24(vec24(vec24("0\x030\x01x")))) + record(20, "\x01")), c(record(20, "\x01") + record(22, x))},
		444:  {c("\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10" + "\x00\x00\x04\x00\x00\x05\x00\x00\x0a\x01\x00\x80\x07\x00\xc0\x03\x00\x80\x00\x00\x09" + "0123456789abcdef")},
		53:   {c(vec16(dnsMessage(1, 0x100, "a.example", 1))), s(vec16(answered(dnsMessage(1, 0x100, "a.example", 1), 0, rr(16, 1, vec8("x")), rr(46, 1, x))))},
		1080: {c("\x05\x01\x00"), s("\x05\x00"), c("\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50"), s("\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"), c("GET / HTTP/1.0\r\n\r\n")},
		1081: {c("\x05\x02\x00\x02"), s("\x05\x02"), c("\x01\x01a\x01b"), s("\x01\x00"), c("\x05\x01\x00\x03\x01a\x00\x50"), s("\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"), c(record(22, ja4Hello()))},
		1082: {c("\x04\x01\x00\x50\x01\x02\x03\x04a\x00"), s("\x00\x5a\x00\x50\x01\x02\x03\x04"), c("GET / HTTP/1.0\r\n\r\n")},
		445:  {c("\x00\x00\x00\x30\xfeSMB" + x + "NTLMSSP\x00"), s("\x00\x00\x00\x30\xfeSMB" + x + "\x05\x00\x0b\x03\x10\x00\x00\x00")},
		81:   {c("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"), s("HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n"), c("\x81\x85" + x)},
		3128: {c("CONNECT a:1 HTTP/1.1\r\n\r\n"), s("HTTP/1.1 200 OK\r\n\r\n"), c("GET / HTTP/1.0\r\n\r\n")},
	} {
		f.Add(port, script(all...))
	}
	f.Fuzz(func(t *testing.T, port uint16, b []byte) { check(t, port, false, b) })
}

func FuzzUDP(f *testing.F) {
	q := dnsMessage(1, 0x100, "a.example", 16)
	f.Add(uint16(53), script(c(q), s(answered(q, 0, rr(16, 1, vec8("x")), rr(5, 1, "\xc0\x0c"), rr(6, 1, labels("b"))))))
	f.Add(uint16(137), script(c(dnsMessage(2, 0x110, "FHEPFCELEHFCEPFFFACACACACACACAAA", 33))))
	f.Add(uint16(5353), script(s(answered(dnsMessage(0, 0x8400, "_x._tcp.local", 12), 0, rr(12, 1, "\xc0\x0c"), rr(47, 1, "\xc0\x0c\x00\x01\x40")))))
	f.Add(uint16(443), []byte(initial(f, quicV1, "12345678", 0, crypto(0, ja4Hello()))))
	hello := clientHello("feff", "", "c02f", "")
	dtls := "\x16\xfe\xff\x00\x00\x00\x00\x00\x00\x00\x00" + vec16("\x01"+hello[1:4]+"\x00\x00\x00\x00\x00"+hello[1:4]+hello[4:])
	f.Add(uint16(4433), script(c(dtls), s("\x16\xfe\xff\x00\x01"+strings.Repeat("\x00", 6)+vec16("xx"))))
	f.Add(uint16(88), script(c("\x6a\x10\x30\x0e\xa1\x03\x02\x01\x05\xa2\x03\x02\x01\x0a")))
	f.Add(uint16(5060), script(c("REGISTER sip:a SIP/2.0\r\n")))
	f.Fuzz(func(t *testing.T, port uint16, b []byte) {
		if n := UDPService(port, b); len(n) > 8 {
			t.Errorf("service %q", n)
		}
		check(t, port, true, b)
	})
}

// FuzzQUIC puts any frames into packets that can be opened.
func FuzzQUIC(f *testing.F) {
	f.Add(crypto(0, ja4Hello()), crypto(50, "x"))
	f.Add("\x02\x01\x00\x05\x00\x00\x00\x06\x00\x05hello", "\x01\x1c\x00")
	f.Fuzz(func(t *testing.T, one, two string) {
		if len(one) > 1000 || len(two) > 1000 {
			return
		}
		tc := udp(443, c(initial(t, quicV1, "12345678", 0, one)), c(initial(t, quicV1, "12345678", 1, two)))
		for _, r := range tc.m.records {
			sound(t, r)
		}
	})
}

func FuzzDHCP(f *testing.F) {
	b := make([]byte, 300)
	b[0], b[2] = 1, 6
	copy(b[236:], "\x63\x82\x53\x63\x35\x01\x01\x0c\x04host\x51\x07\x04\x00\x00\x03a.b\xff")
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newTestMeter()
		m.dhcp.Datagram("C1", netip.MustParseAddrPort("10.0.0.1:68"), b, 1, 1)
		m.dhcp.Datagram("C1", netip.MustParseAddrPort("10.0.0.2:67"), b, 2, 2)
		m.dhcp.Datagram("C2", netip.MustParseAddrPort("10.0.0.2:67"), b, -1, 3)
		m.dhcp.End()
		for _, r := range m.records {
			sound(t, r)
		}
	})
}

// FuzzCertificate compares with crypto/x509 what both understand.
func FuzzCertificate(f *testing.F) {
	f.Add(testCert(f))
	f.Add([]byte("0\x030\x01x"))
	f.Fuzz(func(t *testing.T, der []byte) {
		c, ok := parseCertificate(der)
		if n := len(appendDN(nil, c.subject)); n > 4*maxDN {
			t.Errorf("a name of %d bytes", n)
		}
		eachSAN(c.sans, func(byte, []byte) {})
		theirs, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		if !ok {
			t.Fatal("not understood")
		}
		if got, want := string(appendSerial(nil, c.serial)), theirs.SerialNumber; want.Sign() > 0 && len(c.serial) < 60 && !strings.EqualFold(strings.TrimLeft(got, "0"), want.Text(16)) {
			t.Errorf("serial %s, want %s", got, want.Text(16))
		}
		if c.version != theirs.Version {
			t.Errorf("version %d, want %d", c.version, theirs.Version)
		}
		if y := theirs.NotAfter.Year(); y > 1700 && y < 2250 && c.to != theirs.NotAfter.Unix()*1e9 {
			t.Errorf("valid to %d, want %v", c.to, theirs.NotAfter)
		}
	})
}

// TestPieces cuts the segments of real connections into pieces: but for the
// sizes that SSH is judged by, nothing changes.
func TestPieces(t *testing.T) {
	for name, path := range captures(t) {
		if strings.HasPrefix(name, "ssh_") || strings.HasPrefix(name, "tcp_ssh") || strings.HasPrefix(name, "tls_ssl-v2") {
			continue
		}
		whole, cut := print(meter(t, path, 0).records), print(meter(t, path, 97).records)
		if d := cmp.Diff(whole, cut); d != "" {
			t.Errorf("%s: -whole +in pieces\n%s", name, d)
		}
	}
}

// TestSpoilt changes bytes of real connections here and there, and cuts
// segments off: nothing may break, and memory stays within bounds.
func TestSpoilt(t *testing.T) {
	for name, path := range captures(t) {
		for seed := range uint64(6) {
			r := rand.New(rand.NewPCG(seed, 0))
			m := newTestMeter()
			m.spoil = func(b []byte) {
				for range 1 + len(b)/200 {
					if r.IntN(4) > 0 {
						b[r.IntN(len(b))] = byte(r.Uint32())
					}
				}
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			_ = m.read(f) // as far as it can be read
			f.Close()
			for _, x := range m.records {
				sound(t, x)
			}
			for _, c := range m.order {
				if c.a != nil {
					if n := footprint(reflect.ValueOf(c.a)); n > maxFootprint {
						t.Errorf("%s: an analyzer holds %d bytes", name, n)
					}
				}
			}
		}
	}
}
