package proto

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/parsers/flow"
)

// sinkConn throws the records away, reusing one, as a batch reuses its own.
type sinkConn struct {
	f       flow.Flow
	records int
}

func (c *sinkConn) Record(k flow.Kind, t int64) *flow.Flow {
	c.f.Reset(k)
	c.f.Time = t
	return &c.f
}
func (c *sinkConn) Emit(*flow.Flow) { c.records++ }
func (c *sinkConn) Hosts() (orig, resp netip.Addr) {
	return netip.AddrFrom4([4]byte{10, 0, 0, 1}), netip.AddrFrom4([4]byte{10, 0, 0, 2})
}
func (c *sinkConn) Service(string)                             {}
func (c *sinkConn) Expect(_, _ netip.Addr, _ uint16, _ string) {}

// bench plays a conversation over and over, each time as a new connection.
func bench(b *testing.B, port uint16, udp bool, script ...say) {
	b.Helper()
	set := NewSet()
	var conn sinkConn
	n := 0
	data := make([][]byte, len(script))
	for i, x := range script {
		n += len(x.b)
		data[i] = []byte(x.b)
	}
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for b.Loop() {
		var a Analyzer
		if udp {
			a = set.UDP(&conn, 40000, port, data[0])
		} else {
			a = set.TCP(&conn, 40000, port)
		}
		for i, x := range script {
			if a.Wants(x.d) {
				a.Data(x.d, data[i], int64(i))
			}
		}
		a.End(100)
		set.Free(a)
	}
	if conn.records == 0 {
		b.Fatal("nothing was found")
	}
}

func BenchmarkDNS(b *testing.B) {
	q := dnsMessage(1, 0x100, "www.example.com", 1)
	bench(b, 53, true, c(q), s(answered(q, 0, rr(5, 300, labels("cdn.example")), rr(1, 30, "\x01\x02\x03\x04"), rr(1, 30, "\x01\x02\x03\x05"))))
}

func BenchmarkHTTP(b *testing.B) {
	body := strings.Repeat("<p>some text</p>\n", 80)
	script := []say{
		c("GET /index.html?a=b HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: text/html,application/xhtml+xml\r\nAccept-Language: en\r\nCookie: a=b; c=d\r\n\r\n"),
		s("HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/html\r\nContent-Length: 13600\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n\r\n"),
	}
	for range 10 {
		script = append(script, s(body))
	}
	bench(b, 80, false, script...)
}

// BenchmarkHTTPPipelined is a segment of requests without answers, again and
// again in one connection.
func BenchmarkHTTPPipelined(b *testing.B) {
	var conn sinkConn
	data := []byte(strings.Repeat("GET / HTTP/1.1\r\n\r\n", 81))
	a := NewSet().TCP(&conn, 40000, 80)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		a.Data(Orig, data, 1)
	}
	b.ReportMetric(float64(conn.records)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkTLS13(b *testing.B) {
	bench(b, 443, false, c(record(22, ja4Hello())),
		s(record(22, serverHello("0303", strings.Repeat("i", 32), "1301", ext("002b", codes("0304"))+ext("0033", codes("001d")+vec16("key"))))+record(20, "\x01")+record(23, strings.Repeat("e", 900))),
		c(record(20, "\x01")+record(23, strings.Repeat("f", 60))))
}

func BenchmarkTLS12(b *testing.B) {
	finished := record(20, "\x01") + record(22, strings.Repeat("z", 40))
	der := string(testCert(b))
	bench(b, 443, false, c(record(22, clientHello("0303", "session1", "c02f", ext("0000", vec16("\x00"+vec16("www.example.com")))))),
		s(record(22, serverHello("0303", "session2", "c02f", "")+"\x0b"+vec24(vec24(vec24(der)+vec24(der)+vec24(der)))+"\x0e"+vec24(""))),
		c(record(22, "\x10"+vec24("key"))+finished), s(finished))
}

func BenchmarkSSH(b *testing.B) {
	bench(b, 22, false, s("SSH-2.0-OpenSSH_9.6p1\r\n"), c("SSH-2.0-Go\r\n"), c(kexInit("k1,k2", "h1", "c1,c2", "c2", "m1", "m1", "none", "none")),
		s(kexInit("k2", "h1", "c2", "c2", "m1", "m1", "none", "none")+packetSSH([]byte{sshNewKeys})), c(packetSSH([]byte{sshNewKeys})+"x"),
		s(strings.Repeat("x", 48)), c("x"), s(strings.Repeat("x", 32)))
}

func BenchmarkQUIC(b *testing.B) {
	bench(b, 443, true, c(initial(b, quicV1, "12345678", 0, crypto(0, ja4Hello()))))
}

// BenchmarkQUICForged is a datagram of 24 Initials to as many ids.
func BenchmarkQUICForged(b *testing.B) {
	var data []byte
	for i := range 24 {
		data = append(data, "\xc0\x00\x00\x00\x01"+vec8(string([]byte{'f', 'o', 'r', 'g', 'e', 'd', '0', byte(i)}))+vec8("")+"\x00\x2a"...)
		data = append(data, make([]byte, 42)...)
	}
	set := NewSet()
	var conn sinkConn
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		a := set.UDP(&conn, 40000, 443, data)
		a.Data(Orig, data, 1)
		a.End(2)
		set.Free(a)
	}
}

// BenchmarkUnknown is what a connection costs that is none of the protocols.
func BenchmarkUnknown(b *testing.B) {
	set := NewSet()
	var conn sinkConn
	data := []byte(strings.Repeat("\x17binary", 200))
	b.SetBytes(int64(20 * len(data)))
	b.ReportAllocs()
	for b.Loop() {
		a := set.TCP(&conn, 40000, 9999)
		for i := range 20 {
			if d := Dir(i & 1); a.Wants(d) {
				a.Data(d, data, int64(i))
			}
		}
		a.End(100)
		set.Free(a)
	}
}
