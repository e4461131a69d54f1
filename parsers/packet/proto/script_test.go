package proto

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slips-go/slips/parsers/flow"
)

// say is what one side of a connection says.
type say struct {
	d Dir
	b string
}

func c(b string) say { return say{Orig, b} }
func s(b string) say { return say{Resp, b} }

// play gives a conversation to the analyzer of a TCP connection, in pieces of
// at most n bytes, one second apart, and returns the connection.
func play(port uint16, n int, script ...say) *testConn {
	m := newTestMeter()
	m.small = n
	tc := &testConn{tuple: tuple{netip.MustParseAddrPort("10.0.0.1:40000"), netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), port), flow.TCP}, m: m, uid: "C1"}
	t := int64(1e18)
	for _, x := range script {
		t += 1e9
		tc.data(x.d, []byte(x.b), t)
	}
	if tc.a != nil {
		tc.a.End(t)
		m.set.Free(tc.a)
	}
	return tc
}

// of returns the parts of a kind.
func of[T any](tc *testConn, k flow.Kind, part func(*flow.Flow) *T) []T {
	var all []T
	for _, f := range tc.m.records {
		if f.Kind == k {
			all = append(all, *part(f))
		}
	}
	return all
}

func httpParts(tc *testConn) []flow.HTTPPart {
	return of(tc, flow.HTTP, func(f *flow.Flow) *flow.HTTPPart { return f.HTTP })
}

// pieces are the sizes in which conversations are given: whole, and in parts
// that cut through everything.
var pieces = []int{0, 1, 7, 100}

func TestHTTP(t *testing.T) {
	for name, tt := range map[string]struct {
		script []say
		want   []flow.HTTPPart
	}{
		"keep-alive and pipelined": {
			[]say{
				c("GET /a%20b?x=1 HTTP/1.1\r\nHost: example.com:8080\r\nUser-Agent: test\r\nReferer: http://r/\r\n\r\nPOST /p HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello"),
				s("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n<html></html"),
				s("HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: 1\r\n\r\n"),
				c("HEAD / HTTP/1.0\r\n\r\n"), s("HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\n"),
			},
			[]flow.HTTPPart{
				{Method: "GET", Host: "example.com:8080", URI: "/a b?x=1", Version: "1.1", UserAgent: "test", Referrer: "http://r/", StatusCode: 200, StatusMsg: "OK", ResponseLen: 12, RespMIMETypes: []string{"text/html"}, TransDepth: 1},
				{Method: "POST", Host: "example.com", URI: "/p", Version: "1.1", StatusCode: 404, StatusMsg: "Not Found", RequestLen: 5, ResponseLen: 7, OrigMIMETypes: []string{"text/plain"}, RespMIMETypes: []string{"text/plain"}, TransDepth: 2},
				{Method: "HEAD", URI: "/", Version: "1.0", StatusCode: 200, StatusMsg: "OK", TransDepth: 3},
			},
		},
		"credentials, proxies, an executable up to the end": {
			[]say{
				c("GET http://h/ HTTP/1.1\r\nAuthorization: Basic dXNlcjpzZWNyZXQ=\r\nVia: a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"),
				s("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200\r\n\r\nMZ" + strings.Repeat("\x00", 3000)),
			},
			[]flow.HTTPPart{{
				Method: "GET", URI: "http://h/", Version: "1.1", StatusCode: 200, StatusMsg: "<empty>", Username: "user", HasPassword: true, ResponseLen: 3002,
				RespMIMETypes: []string{"application/x-dosexec"}, Proxied: []string{"VIA -> a", "X-FORWARDED-FOR -> 1.2.3.4"}, TransDepth: 1,
			}},
		},
		"lines that end with CR alone": {
			[]say{
				c("GET /a HTTP/1.1\rHost: h\r\nUser-Agent: x\r\r\n"),
				s("HTTP/1.1 200 ok\rContent-Type: text/plain\rTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
				c("GET /b HTTP/1.1\r\n\r\n"), s("HTTP/1.1 204 no\rX: y\r\n\r\n"),
			},
			[]flow.HTTPPart{
				{Method: "GET", URI: "/a", Host: "h", UserAgent: "x", Version: "1.1", StatusCode: 200, StatusMsg: "ok", ResponseLen: 3, RespMIMETypes: []string{"text/plain"}, TransDepth: 1},
				{Method: "GET", URI: "/b", Version: "1.1", StatusCode: 204, StatusMsg: "no", TransDepth: 2},
			},
		},
		"a value in the next line, a blank behind a name": {
			[]say{
				c("GET / HTTP/1.1\r\nHost:\r a.example\r\nUser-Agent : x\r\nReferer:\r\n\r\n"),
			},
			[]flow.HTTPPart{{Method: "GET", URI: "/", Host: "a.example", UserAgent: "x", TransDepth: 1}},
		},
		"no chunks before version 1.1": {
			[]say{c("GET / HTTP/1.0\r\n\r\n"), s("HTTP/1.0 200 ok\r\nTransfer-Encoding: chunked\r\nContent-Length: 5;\r\n\r\nplain")},
			[]flow.HTTPPart{{Method: "GET", URI: "/", Version: "1.0", StatusCode: 200, StatusMsg: "ok", ResponseLen: 5, RespMIMETypes: []string{"text/plain"}, TransDepth: 1}},
		},
		"no answer": {
			[]say{c("DELETE /x HTTP/1.1\r\nHost: h\r\n\r\n")},
			[]flow.HTTPPart{{Method: "DELETE", Host: "h", URI: "/x", TransDepth: 1}},
		},
		"version 0.9": {
			[]say{c("GET /old\r\n"), s("just text\n")},
			[]flow.HTTPPart{{Method: "GET", URI: "/old", Version: "0.9", ResponseLen: 10, TransDepth: 1, RespMIMETypes: []string{"text/plain"}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range pieces {
				if d := cmp.Diff(tt.want, httpParts(play(80, n, tt.script...)), emptyLists, cmpopts.IgnoreFields(flow.HTTPPart{}, "RespFUIDs", "OrigFUIDs")); d != "" {
					t.Errorf("in pieces of %d: -want +got\n%s", n, d)
				}
			}
		})
	}
}

// emptyLists makes lists without elements equal to none.
var emptyLists = cmp.Transformer("empty", func(l []string) []string {
	if len(l) == 0 {
		return nil
	}
	return slices.Clone(l)
})

func TestHTTPUnknownMethod(t *testing.T) {
	tc := play(80, 0, c("EXPLOIT / HTTP/1.1\r\nHost: h\r\n\r\n"), s("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"))
	got := of(tc, flow.Weird, func(f *flow.Flow) *flow.WeirdPart { return f.Weird })
	if len(got) != 1 || got[0].Name != "unknown_HTTP_method" || got[0].Addl != "EXPLOIT" {
		t.Errorf("weird %+v", got)
	}
}

// TestHTTPGap loses bytes in a body, beyond a body, and finds the way back.
func TestHTTPGap(t *testing.T) {
	m := newTestMeter()
	tc := &testConn{m: m}
	a := m.set.TCP(tc, 40000, 80)
	a.Data(Orig, []byte("GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n"), 1)
	a.Data(Resp, []byte("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nab"), 2)
	a.Gap(Resp, 97, 3)
	a.Data(Resp, []byte("cHTTP/1.1 201 OK\r\nContent-Length: 10\r\n\r\nab"), 4)
	a.Gap(Resp, 50, 5)
	a.Data(Resp, []byte("this is lost\r\n\r\n"), 6)
	a.Data(Resp, []byte("HTTP/1.1 203 OK\r\nContent-Length: 0\r\n\r\n"), 7)
	a.End(8)
	var got []string
	for _, p := range httpParts(tc) {
		got = append(got, fmt.Sprint(p.URI, " ", p.StatusCode, " ", p.ResponseLen))
	}
	if want := []string{"/1 200 100", "/2 201 2", "/3 203 0"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestHTTPLostAnswer has an answer of which nothing came: the one behind it is
// that of the second request.
func TestHTTPLostAnswer(t *testing.T) {
	m := newTestMeter()
	tc := &testConn{m: m}
	a := m.set.TCP(tc, 40000, 80)
	a.Data(Orig, []byte("GET /1 HTTP/1.1\r\n\r\n"), 1)
	a.Gap(Resp, 97, 2)
	a.Data(Orig, []byte("GET /2 HTTP/1.1\r\n\r\n"), 3)
	a.Data(Resp, []byte("HTTP/1.1 404 no\r\nContent-Length: 0\r\n\r\n"), 4)
	a.End(5)
	var got []string
	for _, p := range httpParts(tc) {
		got = append(got, fmt.Sprint(p.URI, " ", p.StatusCode))
	}
	if want := []string{"/1 0", "/2 404"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSMTP(t *testing.T) {
	for _, n := range pieces {
		tc := play(25, n,
			s("220 mail.example.com ESMTP\r\n"), c("EHLO client\r\n"), s("250-mail\r\n250 AUTH LOGIN\r\n"),
			c("AUTH LOGIN\r\n"), s("334 VXNlcm5hbWU6\r\n"), c("dXNlcg==\r\n"), s("334 UGFzc3dvcmQ6\r\n"), c("eA==\r\n"), s("535 5.7.8 bad smtp-auth user\r\n"),
			c("MAIL FROM:<a@b.example> SIZE=10\r\n"), s("250 ok\r\n"), c("RCPT TO:<c@d.example>\r\nRCPT TO:<e@d.example>\r\nDATA\r\n"), s("250 ok\r\n250 ok\r\n354 go\r\n"),
			c("From: A <a@b.example>\r\nTo: C <c@d.example>,\r\n \"E, F\" <e@d.example>\r\nSubject: hi\r\nMessage-ID: <1@b>\r\nX-Mailer: m/1.0\r\nReceived: from x ([192.0.2.9])\r\n\r\nSubject: not this\r\n..\r\n.\r\n"),
			s("250 queued\r\n"), c("QUIT\r\n"), s("221 bye\r\n"))
		got := of(tc, flow.SMTP, func(f *flow.Flow) *flow.SMTPPart { return f.SMTP })
		want := []flow.SMTPPart{
			{Helo: "client", LastReply: "535 5.7.8 bad smtp-auth user", Path: []string{"10.0.0.2", "10.0.0.1"}, TLS: flow.False, TransDepth: 1},
			{
				Helo: "client", MailFrom: "a@b.example", From: "A <a@b.example>", Subject: "hi", LastReply: "250 queued", UserAgent: "m/1.0", MsgID: "<1@b>",
				RcptTo: []string{"c@d.example", "e@d.example"}, To: []string{"C <c@d.example>", `"E, F" <e@d.example>`}, Path: []string{"10.0.0.2", "10.0.0.1", "192.0.2.9"},
				TLS: flow.False, TransDepth: 1,
			},
		}
		if d := cmp.Diff(want, got, emptyLists); d != "" {
			t.Errorf("in pieces of %d: -want +got\n%s", n, d)
		}
	}
}

func TestFTP(t *testing.T) {
	for _, n := range pieces {
		tc := play(21, n,
			s("220-Welcome\r\n220 ready\r\n"), c("USER bob\r\n"), s("331 password\r\n"), c("PASS secret\r\n"), s("530 no\r\n"),
			c("PASS other\r\n"), s("230 in\r\n"), c("CWD pub\r\n"), s("250 ok\r\n"), c("PASV\r\n"), s("227 Entering Passive Mode (10,0,0,2,28,86)\r\n"),
			c("RETR ../x.bin\r\n"), s("150 Opening (1234 bytes).\r\n"), s("226 done\r\n"), c("EPRT |2|2001:db8::1|5282|\r\n"), s("200 ok\r\n"), c("QUIT\r\n"))
		var got []string
		for _, p := range of(tc, flow.FTP, func(f *flow.Flow) *flow.FTPPart { return f.FTP }) {
			got = append(got, fmt.Sprint(p.User, " ", p.HasPassword, " ", p.Command, " ", p.Arg, " ", p.ReplyCode, " ", p.ReplyMsg, " ", p.DataPassive, " ", p.DataResp, " ", p.DataPort))
		}
		want := []string{
			"bob true PASS <hidden> 530 no 0 invalid IP 0", "bob true PASS <hidden> 230 in 0 invalid IP 0",
			"bob true PASV  227 Entering Passive Mode (10,0,0,2,28,86) 2 10.0.0.2 7254",
			"bob true RETR ftp://10.0.0.2/./x.bin 226 done 0 invalid IP 0",
			"bob true EPRT |2|2001:db8::1|5282| 200 ok 1 2001:db8::1 5282",
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("in pieces of %d: -want +got\n%s", n, d)
		}
		for _, f := range tc.m.records {
			if f.Kind == flow.FTP && strings.Contains(f.FTP.Arg+f.FTP.User, "secret") {
				t.Error("a password is in a record")
			}
		}
	}
}

// kexInit is a packet with the algorithms that a side offers.
func kexInit(lists ...string) string {
	b := append([]byte{sshKexInit}, make([]byte, 16)...)
	for i := range sshLists {
		l := ""
		if i < len(lists) {
			l = lists[i]
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(l)))
		b = append(b, l...)
	}
	return packetSSH(append(b, 0, 0, 0, 0, 0))
}

func packetSSH(payload []byte) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(payload)+1+4))
	return string(append(append(append(b, 4), payload...), 0, 0, 0, 0))
}

func TestSSH(t *testing.T) {
	key := "a key"
	reply := append([]byte{sshKexReply, 0, 0, 0, byte(len(key))}, key...)
	hello := []say{
		s("Authorised only\r\nSSH-2.0-OpenSSH_9.6p1 Debian-1\r\n"), c("SSH-2.0-Go\r\n"),
		c(kexInit("k1,k2", "h1", "c1,c2", "c2", "m1", "m1", "none", "none")), s(kexInit("k2", "h1", "c2", "c2", "m1", "m1", "none", "none")),
		s(packetSSH(reply) + packetSSH([]byte{sshNewKeys})), c(packetSSH([]byte{sshNewKeys})),
	}
	x := func(n int) string { return strings.Repeat("x", n) }
	for name, tt := range map[string]struct {
		more     []say
		outcome  flow.Tri
		attempts int
	}{
		"none":                    {nil, flow.Unset, 0},
		"success at once":         {[]say{c(x(48)), s(x(48)), c(x(64)), s(x(32))}, flow.True, 1},
		"two refusals":            {[]say{c(x(48)), s(x(48)), c(x(64)), s(x(80)), c(x(148)), s(x(80)), c(x(148)), s(x(80))}, flow.False, 2},
		"refused, then let in":    {[]say{c(x(48)), s(x(48)), c(x(64)), s(x(80)), c(x(148)), s(x(80)), c(x(148)), s(x(32)), s(x(500))}, flow.True, 2},
		"a message of the day":    {[]say{c(x(48)), s(x(48)), s(x(600)), c(x(64)), s(x(80)), c(x(148)), s(x(80))}, flow.False, 1},
		"the server speaks first": {[]say{s(x(200)), c(x(48)), s(x(48)), c(x(64)), s(x(32))}, flow.True, 1},
	} {
		t.Run(name, func(t *testing.T) {
			tc := play(22, 0, append(slices.Clone(hello), tt.more...)...)
			got := of(tc, flow.SSH, func(f *flow.Flow) *flow.SSHPart { return f.SSH })
			sum := func(s string) string { h := md5.Sum([]byte(s)); return hex.EncodeToString(h[:]) }
			want := []flow.SSHPart{{
				Version: 2, AuthSuccess: tt.outcome, AuthAttempts: tt.attempts, Client: "SSH-2.0-Go", Server: "SSH-2.0-OpenSSH_9.6p1 Debian-1",
				CipherAlg: "c2", MACAlg: "m1", KexAlg: "k2", HostKeyAlg: "h1", CompressionAlg: "none",
				HASSH: sum("k1,k2;c1,c2;m1;none"), HASSHServer: sum("k2;c2;m1;none"), HostKey: got[0].HostKey,
			}}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
			if !strings.HasPrefix(got[0].HostKey, "SHA256:") || len(got[0].HostKey) != 7+43 {
				t.Errorf("host key %q", got[0].HostKey)
			}
		})
	}
	hello[0] = s("SSH-2.0-OpenSSH_9.6p1 Debian-1\r\n")
	tc := play(2222, 1, hello...)
	if got := of(tc, flow.SSH, func(f *flow.Flow) *flow.SSHPart { return f.SSH }); len(got) != 1 || got[0].KexAlg != "k2" {
		t.Errorf("byte by byte on another port: %+v", got)
	}
	if soft := of(tc, flow.Software, func(f *flow.Flow) *flow.SoftwarePart { return f.Software }); len(soft) != 2 || soft[0].Name != "OpenSSH" || soft[0].Major != 9 || soft[0].Minor != 6 || soft[0].Addl != "p1" {
		t.Errorf("software %+v", soft)
	}
}

func vec8(b string) string  { return string(rune8(len(b))) + b }
func vec16(b string) string { return string([]byte{byte(len(b) >> 8), byte(len(b))}) + b }
func vec24(b string) string {
	return string([]byte{byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))}) + b
}
func rune8(n int) []byte { return []byte{byte(n)} }

// codes are 16-bit numbers given in hexadecimal.
func codes(list string) string {
	b, err := hex.DecodeString(strings.ReplaceAll(list, ",", ""))
	if err != nil {
		panic(err)
	}
	return string(b)
}

func ext(code, body string) string { return codes(code) + vec16(body) }

func clientHello(version, session, ciphers, exts string) string {
	body := codes(version) + strings.Repeat("r", 32) + vec8(session) + vec16(codes(ciphers)) + vec8("\x00")
	if exts != "" {
		body += vec16(exts)
	}
	return "\x01" + vec24(body)
}

func serverHello(version, session, cipher, exts string) string {
	return "\x02" + vec24(codes(version)+strings.Repeat("R", 32)+vec8(session)+codes(cipher)+"\x00"+vec16(exts))
}

func record(typ byte, body string) string { return string([]byte{typ, 3, 3}) + vec16(body) }

// ja4Hello has what FoxIO's description of JA4 takes as its example, in
// another order and with GREASE.
func ja4Hello() string {
	var b strings.Builder
	b.WriteString(ext("8a8a", "") + ext("0000", vec16("\x00"+vec16("example.com"))))
	for e := range strings.SplitSeq("001b,0005,ff01,4469,0023,002d,0033,0012,000b,0017,0015", ",") {
		b.WriteString(ext(e, "\x00"))
	}
	exts := b.String() + ext("000a", vec16(codes("dada,001d,0017,0018"))) + ext("0010", vec16(vec8("h2")+vec8("http/1.1")))
	exts += ext("002b", vec8(codes("2a2a,0304,0303"))) + ext("000d", vec16(codes("0403,0804,0401,0503,0805,0501,0806,0601")))
	return clientHello("0303", strings.Repeat("i", 32), "6a6a,1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035", exts)
}

// TestFingerprints checks JA3 and JA4 against the examples of those who
// defined them.
func TestFingerprints(t *testing.T) {
	var h handshake
	h.reset()
	if !h.clientHello(NewSet(), []byte(ja4Hello()[4:]), 't') {
		t.Fatal("the hello is not understood")
	}
	if want := "t13d1516h2_8daaf6152771_e5627efa2ab1"; string(h.ja4) != want {
		t.Errorf("JA4 %s, want %s", h.ja4, want)
	}
	h.reset()
	old := clientHello("0301", "", "002f,0035,0005,000a,c009,c00a,c013,c014,0032,0038,0013,0004",
		ext("0000", vec16("\x00"+vec16("a.example")))+ext("000a", vec16(codes("0017,0018,0019")))+ext("000b", vec8("\x00")))
	h.clientHello(NewSet(), []byte(old[4:]), 't')
	if got := hex.EncodeToString(h.ja3[:]); got != "ada70206e40642a3e4461f35503241d5" {
		t.Errorf("JA3 %s", got)
	}
	h.reset()
	h.clientHello(NewSet(), []byte(clientHello("0301", "", "0004,0005,000a,0009,0064,0062,0003,0006,0013,0012,0063", "")[4:]), 't')
	if got := hex.EncodeToString(h.ja3[:]); got != "de350869b8c85de67a350c8d186f11e6" {
		t.Errorf("JA3 without extensions %s", got)
	}
}

func sslParts(tc *testConn) []flow.SSLPart {
	return of(tc, flow.SSL, func(f *flow.Flow) *flow.SSLPart { return f.SSL })
}

func TestTLS13(t *testing.T) {
	script := []say{
		c(record(22, ja4Hello())), s(record(22, serverHello("0303", strings.Repeat("i", 32), "1301", ext("002b", codes("0304"))+ext("0033", codes("001d")+vec16("key"))))),
		s(record(20, "\x01")), s(record(23, strings.Repeat("e", 900))), c(record(20, "\x01") + record(23, strings.Repeat("f", 60))),
	}
	for _, n := range pieces {
		for _, port := range []uint16{443, 25000} {
			tc := play(port, n, script...)
			got := sslParts(tc)
			if len(got) != 1 {
				t.Fatalf("in pieces of %d: %d records", n, len(got))
			}
			p := got[0]
			if p.Version != "TLSv13" || p.Cipher != "TLS_AES_128_GCM_SHA256" || p.Curve != "x25519" || p.ServerName != "example.com" ||
				p.Established != flow.True || p.Resumed != flow.False || p.JA4 != "t13d1516h2_8daaf6152771_e5627efa2ab1" {
				t.Errorf("port %d, in pieces of %d: %+v", port, n, p)
			}
			sum := md5.Sum([]byte("771,4865,43-51"))
			if p.JA3S != hex.EncodeToString(sum[:]) {
				t.Errorf("JA3S %s", p.JA3S)
			}
		}
	}
}

func TestTLS12(t *testing.T) {
	hello := c(record(22, clientHello("0303", "session1", "c02f", ext("0000", vec16("\x00"+vec16("www.example.com"))))))
	finished := record(20, "\x01") + record(22, strings.Repeat("z", 40))
	for name, tt := range map[string]struct {
		script []say
		want   string
	}{
		"full": {
			[]say{
				hello, s(record(22, serverHello("0303", "session2", "c02f", ext("0010", vec16(vec8("h2"))))+"\x0b"+vec24(vec24(vec24(string(testCert(t)))))+
					"\x0c"+vec24("\x03"+codes("0017")+"key")+"\x0e"+vec24(""))),
				c(record(22, "\x10"+vec24("key")) + finished), s(finished),
			},
			"TLSv12 TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 secp256r1 www.example.com h2  resumed 1 established 2 match 2 certs 1",
		},
		"resumed": {
			[]say{hello, s(record(22, serverHello("0303", "session1", "c02f", "")) + finished), c(finished)},
			"TLSv12 TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256  www.example.com   resumed 2 established 2 match 0 certs 0",
		},
		"data before the server's hello": {
			[]say{
				hello, c(record(20, "\x01") + record(23, "early")),
				s(record(22, serverHello("fb1a", "session1", "1301", ext("0033", "\x00\x1d\x00\x00"))) + finished), c(record(23, "more")),
			},
			"unknown-64282 TLS_AES_128_GCM_SHA256 x25519 www.example.com   resumed 2 established 2 match 0 certs 0",
		},
		"refused": {
			[]say{hello, s(record(21, "\x02\x28"))},
			"   www.example.com  handshake_failure resumed 1 established 1 match 0 certs 0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range pieces {
				got := sslParts(play(443, n, tt.script...))
				if len(got) != 1 {
					t.Fatalf("in pieces of %d: %d records", n, len(got))
				}
				p := got[0]
				line := fmt.Sprintf("%s %s %s %s %s %s resumed %d established %d match %d certs %d", p.Version, p.Cipher, p.Curve, p.ServerName, p.NextProtocol, p.LastAlert, p.Resumed, p.Established, p.SNIMatchesCert, len(p.CertFPs))
				if line != tt.want {
					t.Errorf("in pieces of %d:\n got %s\nwant %s", n, line, tt.want)
				}
			}
		})
	}
}

func TestSTARTTLS(t *testing.T) {
	hello := c(record(22, ja4Hello()))
	for name, tt := range map[string]struct {
		port     uint16
		script   []say
		services string
	}{
		"smtp":    {25, []say{s("220 x ESMTP\r\n"), c("EHLO y\r\n"), s("250-x\r\n250 STARTTLS\r\n"), c("STARTTLS\r\n"), s("220 go\r\n"), hello}, "smtp"},
		"ftp":     {21, []say{s("220 x\r\n"), c("AUTH TLS\r\n"), s("234 go\r\n"), hello}, "ftp"},
		"imap":    {143, []say{s("* OK x\r\n"), c("a STARTTLS\r\n"), s("a OK go\r\n"), hello}, "imap"},
		"pop3":    {110, []say{s("+OK x\r\n"), c("STLS\r\n"), s("+OK go\r\n"), hello}, "pop3"},
		"connect": {3128, []say{c("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"), s("HTTP/1.1 200 OK\r\n\r\n"), hello}, "http"},
		"mysql":   {3306, []say{s("\x0a\x00\x00\x00\x0a8.0.1\x00xyz"), c("\x20\x00\x00\x01" + strings.Repeat("\x00", 32) + hello.b)}, "mysql"},
	} {
		t.Run(name, func(t *testing.T) {
			tc := play(tt.port, 0, tt.script...)
			if got := sslParts(tc); len(got) != 1 || got[0].ServerName != "example.com" {
				t.Errorf("%+v", got)
			}
			if !slices.Equal(tc.services, []string{tt.services, "ssl"}) {
				t.Errorf("services %q", tc.services)
			}
		})
	}
}

func TestContentBeatsPort(t *testing.T) {
	get := c("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	for name, tt := range map[string]struct {
		port   uint16
		script []say
		want   flow.Kind
	}{
		"ssh on 443":    {443, []say{s("SSH-2.0-x\r\n"), c("SSH-2.0-y\r\n")}, flow.SSH},
		"http on 22":    {22, []say{get}, flow.HTTP},
		"http on 5555":  {5555, []say{get}, flow.HTTP},
		"tls on 80":     {80, []say{c(record(22, ja4Hello()))}, flow.SSL},
		"smtp on 2525":  {2525, []say{s("220 x ESMTP\r\n"), c("EHLO y\r\n"), s("250 x\r\n"), c("MAIL FROM:<a@b>\r\n")}, flow.SMTP},
		"ftp on 2121":   {2121, []say{s("220 hi\r\n"), c("USER x\r\n"), s("331 y\r\n"), c("PASS z\r\n"), s("230 k\r\n")}, flow.FTP},
		"dns on 5300":   {5300, []say{c(vec16(dnsMessage(7, 0x0100, "a.example", 1)))}, flow.DNS},
		"hello from us": {9000, []say{s(record(22, ja4Hello())), c(record(22, serverHello("0303", "", "c02f", "")))}, flow.SSL},
	} {
		t.Run(name, func(t *testing.T) {
			tc := play(tt.port, 0, tt.script...)
			if len(tc.m.records) == 0 || !slices.ContainsFunc(tc.m.records, func(f *flow.Flow) bool { return f.Kind == tt.want }) {
				t.Errorf("no %v in %d records", tt.want, len(tc.m.records))
			}
		})
	}
	if tc := play(5555, 1, get, s("HTTP/1.1 200 OK\r\n\r\n")); len(httpParts(tc)) != 1 || httpParts(tc)[0].StatusCode != 200 {
		t.Errorf("byte by byte: %+v", httpParts(tc))
	}
	if tc := play(5555, 0, c("\x00\x01\x02binary stuff"), s("more of it")); len(tc.m.records) != 0 || len(tc.services) != 0 {
		t.Errorf("nonsense became %v %q", tc.m.records, tc.services)
	}
}

// dnsMessage is a message with one question.
func dnsMessage(id, flags uint16, name string, qtype uint16) string {
	b := binary.BigEndian.AppendUint16(nil, id)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = append(b, 0, 1, 0, 0, 0, 0, 0, 0)
	b = append(b, labels(name)...)
	b = binary.BigEndian.AppendUint16(b, qtype)
	return string(append(b, 0, 1))
}

func labels(name string) string {
	var b strings.Builder
	for l := range strings.SplitSeq(name, ".") {
		b.WriteString(vec8(l))
	}
	return b.String() + "\x00"
}

// rr is a record whose owner is the name in the question.
func rr(qtype uint16, ttl uint32, data string) string {
	b := binary.BigEndian.AppendUint16([]byte{0xc0, 12}, qtype)
	b = binary.BigEndian.AppendUint32(append(b, 0, 1), ttl)
	return string(b) + vec16(data)
}

// answered turns a question into an answer.
func answered(q string, rcode byte, records ...string) string {
	b := []byte(q)
	b[2] |= 0x80
	b[3] |= 0x80 | rcode
	b[7] = byte(len(records))
	return string(b) + strings.Join(records, "")
}

func udp(port uint16, script ...say) *testConn {
	m := newTestMeter()
	tc := &testConn{tuple: tuple{netip.MustParseAddrPort("10.0.0.1:40000"), netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), port), flow.UDP}, m: m, uid: "C1"}
	t := int64(1e18)
	for _, x := range script {
		t += 1e9
		tc.data(x.d, []byte(x.b), t)
	}
	if tc.a != nil {
		tc.a.End(t)
		m.set.Free(tc.a)
	}
	return tc
}

func dnsParts(tc *testConn) []flow.DNSPart {
	return of(tc, flow.DNS, func(f *flow.Flow) *flow.DNSPart { return f.DNS })
}

func TestDNS(t *testing.T) {
	q := dnsMessage(1, 0x0100, "WWW.Example.COM", 1)
	txt := dnsMessage(2, 0x0100, "t.example", 16)
	pointer := string([]byte{0xc0, 12})
	no := dnsMessage(8, 0x0100, "no.example", 1)
	tc := udp(53, c(q), c(txt), c(dnsMessage(3, 0x0100, "lost.example", 28)), c(no),
		s(answered(txt, 0, rr(16, 60, vec8("hello")+vec8("w\x01rld")), rr(16, 61, vec8("")))),
		s(answered(q, 0, rr(5, 300, labels("cdn.example")), rr(1, 30, "\x01\x02\x03\x04"), rr(28, 31, strings.Repeat("\x00", 15)+"\x01"), rr(15, 5, "\x00\x0amail"[:2]+pointer), rr(46, 9, codes("0001")+strings.Repeat("\x00", 16)+labels("s.example")), rr(99, 1, vec8("v=spf1")), rr(9999, 2, "xx"))),
		s(answered(no, 3)), s(answered(dnsMessage(9, 0x0100, "nx.example", 1), 3)))
	want := []flow.DNSPart{
		{Query: "t.example", QType: "TXT", QClass: "C_INTERNET", RCode: "NOERROR", TransID: 2, RTT: 3e9, AA: 1, TC: 1, RD: 2, RA: 2, Reject: 1, Response: true, Answers: []string{`TXT 5 hello TXT 5 w\x01rld`, "TXT 0 "}, TTLs: []int64{60, 61}},
		{
			Query: "www.example.com", QType: "A", QClass: "C_INTERNET", RCode: "NOERROR", TransID: 1, RTT: 5e9, AA: 1, TC: 1, RD: 2, RA: 2, Reject: 1, Response: true,
			Answers: []string{"cdn.example", "1.2.3.4", "::1", "www.example.com", "RRSIG 1 s.example", "SPF 6 v=spf1", "<unknown type=9999>"},
			TTLs:    []int64{300, 30, 31, 5, 9, 1, 2},
		},
		{Query: "no.example", QType: "A", QClass: "C_INTERNET", RCode: "NXDOMAIN", TransID: 8, AA: 1, TC: 1, RD: 2, RA: 2, Reject: 2, Response: true}, // no RTT: there is no answer
		{Query: "nx.example", QType: "A", QClass: "C_INTERNET", RCode: "NXDOMAIN", TransID: 9, AA: 1, TC: 1, RD: 2, RA: 2, Reject: 2, Response: true},
		{Query: "lost.example", QType: "AAAA", QClass: "C_INTERNET", TransID: 3, AA: 1, TC: 1, RD: 2, RA: 1, Reject: 1},
	}
	if d := cmp.Diff(want, dnsParts(tc), emptyLists, cmp.Transformer("ttl", func(l []int64) []int64 { return append([]int64(nil), l...) })); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if !slices.Equal(tc.services, []string{"dns"}) {
		t.Errorf("services %q", tc.services)
	}
}

func TestDNSNetBIOS(t *testing.T) {
	var b strings.Builder
	for _, ch := range []byte("WORKGROUP      \x00") {
		b.Write([]byte{'A' + ch>>4, 'A' + ch&15})
	}
	name := b.String()
	got := dnsParts(udp(137, c(dnsMessage(1, 0x0110, name, 32)), c(dnsMessage(2, 0x0010, name, 33))))
	if len(got) != 2 || got[0].Query != "WORKGROUP" || got[0].QType != "NIMLOC" || got[1].QType != "NBSTAT" {
		t.Errorf("%+v", got)
	}
}

func TestDNSOverTCP(t *testing.T) {
	q := dnsMessage(5, 0x0100, "big.example", 16)
	a := answered(q, 0, rr(16, 60, vec8(strings.Repeat("x", 200))))
	for _, n := range pieces {
		got := dnsParts(play(53, n, c(vec16(q)+vec16(dnsMessage(6, 0x0100, "two.example", 1))), s(vec16(a))))
		if len(got) != 2 || got[0].Query != "big.example" || len(got[0].Answers) != 1 || len(got[0].Answers[0]) != 208 || got[1].Query != "two.example" {
			t.Errorf("in pieces of %d: %+v", n, got)
		}
	}
}

// TestDNSGap loses whole messages of a stream, behind which it goes on, and a
// part of one, behind which nobody knows where the next begins.
func TestDNSGap(t *testing.T) {
	one, two := vec16(dnsMessage(1, 0x0100, "one.example", 1)), vec16(dnsMessage(2, 0x0100, "two.example", 1))
	for cut, want := range map[int][]string{len(one): {"one.example", "two.example"}, 10: nil} {
		m := newTestMeter()
		tc := &testConn{m: m}
		a := m.set.TCP(tc, 40000, 53)
		a.Data(Orig, []byte(one), 1)
		a.Data(Orig, []byte(one[:cut]), 2)
		a.Gap(Orig, 30, 3)
		a.Data(Orig, []byte(two), 4)
		a.End(5)
		var got []string
		for _, p := range dnsParts(tc) {
			if p.Query != "one.example" || cut == len(one) && len(got) == 0 {
				got = append(got, p.Query)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("cut behind %d bytes: %q, want %q", cut, got, want)
		}
	}
}

// TestDNSOperations has what is neither a query nor an update.
func TestDNSOperations(t *testing.T) {
	for _, x := range []struct {
		port, flags uint16
		records     int
	}{{53, 0x0800, 0}, {53, 0x2000, 0}, {5355, 0x7800, 0}, {53, 0x2800, 1}, {137, 0x2910, 1}} {
		tc := udp(x.port, c(dnsMessage(1, x.flags, "a.example", 1)))
		if got := dnsParts(tc); len(got) != x.records || len(tc.services) != x.records {
			t.Errorf("port %d, flags %04x: %d records, services %q", x.port, x.flags, len(got), tc.services)
		}
	}
}

// TestDNSNames holds names that lead nowhere.
func TestDNSNames(t *testing.T) {
	header := strings.Repeat("\x00", 12)
	for name, b := range map[string]string{
		"loop":          "\xc0\x0c",
		"forward":       "\xc0\x20" + strings.Repeat("\x00", 40),
		"reserved":      "\x80abc\x00",
		"label cut":     "\x20abc",
		"pointer cut":   "\xc0",
		"over 255":      strings.Repeat("\x3f"+strings.Repeat("a", 63), 5) + "\x00",
		"loop of two":   "\x01a\xc0\x0c",
		"nothing there": "",
	} {
		if n, _, ok := appendName(nil, []byte(header+b), 12); ok {
			t.Errorf("%s: %q", name, n)
		}
	}
}

func TestQUICKeys(t *testing.T) {
	// The examples of RFC 9001 and RFC 9369, appendix A, have the id 8394c8f03e515708.
	id, _ := hex.DecodeString("8394c8f03e515708")
	for version, want := range map[uint32]string{
		quicV1: "fa044b2f42a3fd3b46fb255c 9f50449e04a0e810283a1e9933adedd2 1f369613dd76d5467730efcbe3b1a22d",
		quicV2: "91f73e2351d8fa91660e909f 45b95e15235d6f45a6b19cbcb0294ba9 8b1a0bc121284290a29e0971b5cd045d",
	} {
		a := NewSet().newQUIC(&testConn{m: newTestMeter()})
		a.nid = copy(a.id[:], id)
		if !a.derive(version) {
			t.Fatal("no keys")
		}
		k := a.keys(Orig)
		iv, hp, key := cut3(t, want)
		if !bytes.Equal(k.iv[:], iv) {
			t.Errorf("version %x: iv %x, want %x", version, k.iv, iv)
		}
		for what, pair := range map[string][2]func([]byte){
			"header protection": {func(b []byte) { k.hp.Encrypt(b, b) }, func(b []byte) { aesBlock(t, hp).Encrypt(b, b) }},
			"packet protection": {func(b []byte) { copy(b, k.aead.Seal(nil, iv, make([]byte, 16), nil)) }, func(b []byte) { copy(b, gcm(t, key).Seal(nil, iv, make([]byte, 16), nil)) }},
		} {
			var x, y [16]byte
			pair[0](x[:])
			pair[1](y[:])
			if x != y {
				t.Errorf("version %x: %s differs", version, what)
			}
		}
	}
}

// initial is an Initial packet of a client with pieces of its hello.
func initial(t testing.TB, version uint32, id string, number byte, frames string) string {
	t.Helper()
	a := NewSet().newQUIC(&testConn{m: newTestMeter()})
	a.nid = copy(a.id[:], id)
	if !a.derive(version) {
		t.Fatal("no keys")
	}
	k := a.keys(Orig)
	frames += strings.Repeat("\x00", max(0, 1000-len(frames)))
	first := byte(0xc0)
	if version == quicV2 {
		first = 0xd0
	}
	head := string([]byte{first}) + string(binary.BigEndian.AppendUint32(nil, version)) + vec8(id) + vec8("") + "\x00"
	n := 1 + len(frames) + 16
	head += string([]byte{0x40 | byte(n>>8), byte(n), number})
	nonce := k.iv
	nonce[11] ^= number
	p := k.aead.Seal([]byte(head), nonce[:], []byte(frames), []byte(head))
	var mask [16]byte
	at := len(head) - 1
	k.hp.Encrypt(mask[:], p[at+4:at+20])
	p[0] ^= mask[0] & 15
	p[at] ^= mask[1]
	return string(p)
}

func crypto(off int, b string) string {
	return string([]byte{6, 0x40 | byte(off>>8), byte(off), 0x40 | byte(len(b)>>8), byte(len(b))}) + b
}

func TestQUIC(t *testing.T) {
	hello := ja4Hello()
	for _, version := range []uint32{quicV1, quicV2, quicDraft29} {
		// The hello comes in three pieces out of order in two packets, as Chrome sends it.
		tc := udp(443, c(initial(t, version, "12345678", 0, crypto(100, hello[100:])+"\x01"+crypto(0, hello[:30]))), c(initial(t, version, "12345678", 1, crypto(30, hello[30:100]))))
		got := of(tc, flow.QUIC, func(f *flow.Flow) *flow.SSLPart { return f.SSL })
		if len(got) != 1 || got[0].ServerName != "example.com" || got[0].NextProtocol != "h2" || got[0].JA4 != "q13d1516h2_8daaf6152771_e5627efa2ab1" {
			t.Errorf("version %x: %+v", version, got)
		}
		if len(sslParts(tc)) != 1 || !slices.Equal(tc.services, []string{"quic"}) {
			t.Errorf("version %x: services %q", version, tc.services)
		}
	}
}

func TestDHCP(t *testing.T) {
	m := newTestMeter()
	mac := "\x02\x00\x00\x00\x00\x01"
	msg := func(op byte, xid uint32, yiaddr, options string) []byte {
		b := make([]byte, 236)
		b[0], b[1], b[2] = op, 1, 6
		binary.BigEndian.PutUint32(b[4:], xid)
		copy(b[16:], yiaddr)
		copy(b[28:], mac)
		return append(append(b, 0x63, 0x82, 0x53, 0x63), options+"\xff"...)
	}
	opt := func(code byte, v string) string { return string([]byte{code}) + vec8(v) }
	zero, srv := netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("10.0.0.254:67")
	send := func(b []byte, src netip.AddrPort, at int64) {
		if !m.dhcp.Datagram("C1", src, b, at, at) {
			t.Error("not understood")
		}
	}
	send(msg(1, 7, "", opt(53, "\x01")+opt(12, "host")+opt(60, "MSFT 5.0")+opt(61, "\x01"+mac)+opt(81, "\x00\x00\x00host.example")), zero, 1e9)
	send(msg(2, 7, "\x0a\x00\x00\x07", opt(53, "\x02")), srv, 2e9)
	send(msg(1, 7, "", opt(53, "\x03")+opt(50, "\x0a\x00\x00\x07")), zero, 3e9)
	send(msg(2, 7, "\x0a\x00\x00\x07", opt(53, "\x05")+opt(51, "\x00\x00\x0e\x10")+opt(3, "\x0a\x00\x00\x01")+opt(15, "example\x00")), srv, 4e9)
	m.dhcp.Advance(5e9)
	if len(m.records) != 0 {
		t.Error("the exchange is written out too soon")
	}
	m.dhcp.Advance(20e9)
	if len(m.records) != 1 {
		t.Fatalf("%d records", len(m.records))
	}
	f := m.records[0]
	a := netip.MustParseAddr
	want := flow.DHCPPart{
		MAC: "02:00:00:00:00:01", HostName: "host", ClientFQDN: "host.example", Domain: "example", VendorClass: "MSFT 5.0", Client: a("10.0.0.7"),
		Server: srv.Addr(), Requested: a("10.0.0.7"), Assigned: a("10.0.0.7"), Router: a("10.0.0.1"), LeaseTime: 3600e9,
		MsgTypes: []string{"DISCOVER", "OFFER", "REQUEST", "ACK"}, UIDs: []string{"C1"},
	}
	if d := cmp.Diff(want, *f.DHCP, cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if f.Src != a("10.0.0.7") || f.Dst != srv.Addr() || f.UID != "C1" || f.Duration != 3e9 || f.Time != 1e9 {
		t.Errorf("%v -> %v uid %q duration %d", f.Src, f.Dst, f.UID, f.Duration)
	}
	for i := range uint32(3 * maxDHCP) {
		send(msg(1, 1000+i, "", opt(53, "\x01")), zero, 30e9)
	}
	if len(m.dhcp.open) > maxDHCP || m.dhcp.Early == 0 {
		t.Errorf("%d exchanges open, %d early", len(m.dhcp.open), m.dhcp.Early)
	}
	m.dhcp.End()
	if len(m.records) != 1+3*maxDHCP {
		t.Errorf("%d records", len(m.records))
	}
}

// TestDHCPServer has what makes a host a DHCP server and a router, and what
// anybody can send.
func TestDHCPServer(t *testing.T) {
	const host = "\x0a\x00\x00\x07"
	type message struct {
		op, typ byte
		from    string
		your    string
	}
	ask := message{1, 3, "0.0.0.0:68", ""}
	ack := message{2, 5, "10.0.0.254:67", host}
	with := func(m message, change func(*message)) message {
		change(&m)
		return m
	}
	for _, c := range []struct {
		name string
		said []message
		want string
	}{
		{"request, acknowledgement", []message{ask, ack}, "10.0.0.254"},
		{"discovery, offer", []message{{1, 1, "0.0.0.0:68", ""}, with(ack, func(m *message) { m.typ = 2 })}, "10.0.0.254"},
		{"nobody asked", []message{ack}, ""},
		{"nobody asked before", []message{ack, ask}, ""},
		{"from a client's port", []message{ask, with(ack, func(m *message) { m.from = "10.0.0.254:68" })}, ""},
		{"from any port", []message{ask, with(ack, func(m *message) { m.from = "10.0.0.254:40000" })}, ""},
		{"a request with an address", []message{ask, with(ask, func(m *message) { m.from, m.your = "10.0.0.9:67", host })}, ""},
		{"a request that says acknowledgement", []message{ask, with(ack, func(m *message) { m.op = 1 })}, ""},
		{"an answer that says request", []message{ask, with(ack, func(m *message) { m.typ = 3 })}, ""},
		{"no address is handed out", []message{ask, with(ack, func(m *message) { m.typ, m.your = 6, "" })}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newTestMeter()
			for i, x := range c.said {
				b := make([]byte, 236)
				b[0], b[1], b[2] = x.op, 1, 6
				copy(b[16:], x.your)
				// The server that option 54 names is not asked for: who answers is whom Zeek names.
				b = append(b, "\x63\x82\x53\x63\x35\x01"+string([]byte{x.typ})+"\x03\x04\x0a\x00\x00\x01\x36\x04\x0a\x00\x00\x63\xff"...)
				if !m.dhcp.Datagram("C1", netip.MustParseAddrPort(x.from), b, int64(i), int64(i)) {
					t.Error("not understood")
				}
			}
			m.dhcp.End()
			var server, router, assigned netip.Addr
			if c.want != "" {
				server, router, assigned = netip.MustParseAddr(c.want), netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.7")
			}
			if p := m.records[0].DHCP; len(m.records) != 1 || p.Server != server || p.Assigned != assigned || c.said[len(c.said)-1].typ != 6 && p.Router != router {
				t.Errorf("%d records, server %v, router %v, assigned %v", len(m.records), p.Server, p.Router, p.Assigned)
			}
		})
	}
}

// TestDHCPClock writes exchanges out by the clock, whatever the times of the
// packets do.
func TestDHCPClock(t *testing.T) {
	m := newTestMeter()
	b := append(make([]byte, 236), "\x63\x82\x53\x63\x35\x01\x01\xff"...)
	b[0] = 1
	from := netip.MustParseAddrPort("0.0.0.0:68")
	m.dhcp.Datagram("C1", from, b, 7200e9, 7200e9)
	m.dhcp.Datagram("C1", from, b, 1e9, 7201e9) // set back by two hours
	m.dhcp.Advance(7220e9)
	if len(m.records) != 1 || m.records[0].Time != 7200e9 || m.records[0].Duration != 1e9 {
		t.Fatalf("%d records", len(m.records))
	}
	m.dhcp.End()
	m.dhcp.Datagram("C1", from, b, 1e9, 1e9) // another capture
	if m.dhcp.Advance(20e9); len(m.records) != 2 {
		t.Error("an exchange behind the end is not written out")
	}
}

// TestDNSClock does not keep a query back when the clock is set back.
func TestDNSClock(t *testing.T) {
	tc := &testConn{tuple: tuple{netip.MustParseAddrPort("10.0.0.1:5353"), netip.MustParseAddrPort("224.0.0.251:5353"), flow.UDP}, m: newTestMeter(), uid: "C1"}
	for i, at := range []int64{7200e9, 1e9, 62e9} {
		tc.data(Orig, []byte(dnsMessage(uint16(i), 0, "a.local", 1)), at)
	}
	if n := len(tc.m.records); n != 2 {
		t.Errorf("%d queries are told, want 2", n)
	}
}

// TestDNSLate has a question asked again and again, which is answered in that
// order once the server knows.
func TestDNSLate(t *testing.T) {
	q := dnsMessage(7, 0x0100, "slow.example", 1)
	tc := &testConn{tuple: tuple{netip.MustParseAddrPort("10.0.0.1:40000"), netip.MustParseAddrPort("192.0.2.53:53"), flow.UDP}, m: newTestMeter(), uid: "C1"}
	for _, at := range []int64{1e9, 3e9, 7e9} {
		tc.data(Orig, []byte(q), at)
	}
	tc.data(Resp, []byte(answered(q, 2)), 15e9)
	if n := len(tc.m.records); n != 1 || tc.m.records[0].Time != 1e9 || tc.m.records[0].DNS.RCode != "SERVFAIL" {
		t.Errorf("%d records: %+v", n, dnsParts(tc))
	}
}

// TestQUICForged has a datagram full of Initials that nobody can open. Only
// those to the first one's id are tried, as a host does it, and what is real
// among them is read.
func TestQUICForged(t *testing.T) {
	forged := func(id string, n int) string {
		return strings.Repeat("\xc0\x00\x00\x00\x01"+vec8(id)+vec8("")+"\x00\x1e"+strings.Repeat("f", 30), n)
	}
	hello := initial(t, quicV1, "12345678", 0, crypto(0, ja4Hello()))
	for _, c := range []struct {
		name        string
		datagram    string
		undecrypted int64
		records     int
	}{
		{"other ids", forged("abcdefgh", 1) + forged("ijklmnop", 20), 1, 0},
		{"the same id", forged("abcdefgh", 20), 20, 0},
		{"a real one behind them", forged("12345678", 3) + hello, 3, 1},
		{"a real one before them", hello + forged("12345678", 1) + forged("abcdefgh", 20), 0, 1},
	} {
		tc := udp(443, say{Orig, c.datagram})
		if n := tc.m.set.Stats.Undecrypted; n != c.undecrypted {
			t.Errorf("%s: %d were tried and not opened, want %d", c.name, n, c.undecrypted)
		}
		if n := len(of(tc, flow.QUIC, func(f *flow.Flow) *flow.SSLPart { return f.SSL })); c.records != 0 && n != c.records {
			t.Errorf("%s: %d records, want %d", c.name, n, c.records)
		}
	}
}

// TestReasons has a text for each count, and counts for what is over a bound.
func TestReasons(t *testing.T) {
	var all Stats
	v := reflect.ValueOf(&all).Elem()
	for i := range v.NumField() {
		v.Field(i).SetInt(int64(i + 1))
	}
	got := make(map[int64]string)
	for text, n := range all.Reasons() {
		got[n] = text
	}
	if len(got) != v.NumField() || len(new(Stats).Reasons()) != 0 {
		t.Errorf("%d counts have the texts %v; none has %v", v.NumField(), got, new(Stats).Reasons())
	}
	mail := "MAIL FROM:<a@b>\r\n" + strings.Repeat("RCPT TO:<c@d>\r\n", maxRecipients+3)
	tc := play(25, 0, s("220 mail\r\n"), c("EHLO a\r\n"), s("250 a\r\n"), c(mail))
	if x := tc.m.set.Stats; x.LongText != 3 || x.Overflows != 1+maxRecipients+3-maxMailCommands {
		t.Errorf("mail: %+v", x)
	}
	if x := udp(443, c(initial(t, quicV1, "12345678", 0, crypto(0, "\x01\x00\xff\xff")+strings.Repeat(crypto(9, "x"), maxPieces)))).m.set.Stats; x.LongHandshakes != 1 {
		t.Errorf("QUIC: %+v", x)
	}
	der := string(testCert(t))
	list := strings.Repeat(vec24(der), maxCerts+1)
	if x := play(443, 0, s(record(22, serverHello("0303", "session", "c02f", ""))), s(record(22, "\x0b"+vec24(vec24(list))))).m.set.Stats; x.LongHandshakes != 1 {
		t.Errorf("certificates: %+v", x)
	}
}

func TestSoftware(t *testing.T) {
	for banner, want := range map[string]string{
		"nginx/1.18.0 (Ubuntu)":           "nginx 1 18 0 Ubuntu",
		"Apache/2.4.7 (Ubuntu)":           "Apache 2 4 7 Ubuntu",
		"OpenSSH_7.6p1 Ubuntu-4ubuntu0.3": "OpenSSH 7 6 -1 p1",
		"curl/8.5.0":                      "curl 8 5 0 ",
		"dropbear_2018.76":                "dropbear 2018 76 -1 ",
		"Microsoft-IIS/10.0":              "Microsoft-IIS 10 0 -1 ",
		"AsyncSSH_2.8.1":                  "AsyncSSH 2 8 1 ",
		"simpleHTTP":                      "simpleHTTP -1 -1 -1 ",
		"Mozilla/5.0 (compatible; bot)":   "<unknown browser> -1 -1 -1 ",
		"Mozilla/5.0 (Linux; Android 5.1) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/56.0.2924.87 Mobile Safari/537.36": "Safari 4 0 -1 ",
		"Mozilla/5.0 (X11; rv:128.0) Gecko/20100101 Firefox/128.0":                                                                     "Firefox 128 0 -1 ",
		"Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/84.0.4147.105 Safari/537.36":                      "Chrome 84 0 4147 ",
		"Mozilla/5.0 (Windows NT 6.1; Trident/7.0; rv:11.0) like Gecko":                                                                "MSIE 11 0 -1 ",
		"": " -1 -1 -1 ",
	} {
		v := parseSoftware([]byte(banner))
		if got := fmt.Sprintf("%s %d %d %d %s", v.name, v.number[0], v.number[1], v.number[2], v.addl); got != want {
			t.Errorf("%q: %q, want %q", banner, got, want)
		}
	}
	if tc := play(80, 0, c("GET / HTTP/1.1\r\nUser-Agent: curl/8.5.0\r\n\r\n"), s("HTTP/1.1 200 OK\r\nServer: nginx/1.18.0\r\nContent-Length: 0\r\n\r\n")); len(tc.m.records) != 3 {
		t.Errorf("%d records", len(tc.m.records))
	} else if f := tc.m.records[1]; f.Src != tc.resp.Addr() || f.SrcPort != 80 || f.Software.Type != "HTTP::SERVER" {
		t.Errorf("%v:%d %+v", f.Src, f.SrcPort, f.Software)
	}
}

func TestMIME(t *testing.T) {
	for b, want := range map[string]string{
		"\x7fELF\x02":                      "application/x-executable",
		"\x89PNG\r\n\x1a\n":                "image/png",
		"PK\x03\x04xxxxMETA-INF/":          "application/java-archive",
		"  <!DOCTYPE html><html>":          "text/html",
		"<?xml version='1.0'?><rss>":       "text/rss",
		`{"a":1}`:                          "text/json",
		"var x = 1;":                       "application/javascript",
		"plain words\n":                    "text/plain",
		"#!/bin/sh\necho":                  "text/x-shellscript",
		"\x00\x01\x02\x03\x04":             "",
		"gr\xc3\xbc\xc3\x9fe":              "text/plain",
		"\xff\xd8\xff\xe0":                 "image/jpeg",
		"MZ\x90\x00":                       "application/x-dosexec",
		"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "application/msword",
	} {
		if got := mimeType([]byte(b)); got != want {
			t.Errorf("%q: %q, want %q", b, got, want)
		}
	}
}

// TestTextIsEscaped has bytes that would break a terminal or a log, and text
// that is none as a whole.
func TestTextIsEscaped(t *testing.T) {
	set := NewSet()
	var f flow.Flow
	f.Reset(flow.DNS)
	for in, want := range map[string]string{
		"plain":              "plain",
		"é und 侽":            "é und 侽",
		"a\x1b[1m":           `a\x1b[1m`,
		"a\x00é":             `a\x00\xc3\xa9`,
		"侽\xff":              `\xe4\xbe\xbd\xff`,
		"\xffé":              `\xff\xc3\xa9`,
		"é\xc3":              `\xc3\xa9\xc3`,
		"é\b\f\n\r\t":        `é\x08\x0c\x0a\x0d\x09`,
		"\u0085":             `\xc2\x85`,
		"\ue000 in é":        `\xee\x80\x80 in \xc3\xa9`,
		"\ufffd":             `\xef\xbf\xbd`,
		"\U0001f600 a smile": "\U0001f600 a smile",
	} {
		if got := set.text(&f, []byte(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	sum := sha256.Sum256(nil)
	if got := held(&f, sum[:]); got[:8] != "e3b0c442" {
		t.Errorf("%q", got)
	}
}

func TestFiles(t *testing.T) {
	body := "MZ" + strings.Repeat("\x90code", 1000)
	sum := md5.Sum([]byte(body))
	head := "HTTP/1.1 200 OK\r\nContent-Disposition: attachment; filename=\"a b.exe\"\r\n"
	for name, answer := range map[string]string{
		"length":  head + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body)) + body,
		"chunked": head + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n10\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", body[:16], len(body)-16, body[16:]),
		"rest":    head + "\r\n" + body,
	} {
		for _, n := range pieces {
			tc := play(80, n, c("GET / HTTP/1.1\r\n\r\n"), s(answer))
			got := of(tc, flow.Files, func(f *flow.Flow) *flow.FilesPart { return f.Files })
			if len(got) != 1 || got[0].MD5 != hex.EncodeToString(sum[:]) || got[0].Filename != "a b.exe" || got[0].MIMEType != "application/x-dosexec" ||
				got[0].SeenBytes != int64(len(body)) || len(got[0].SHA256) != 64 || got[0].IsOrig != flow.False {
				t.Errorf("%s in pieces of %d: %+v", name, n, got)
				continue
			}
			if h := httpParts(tc); len(h) != 1 || !slices.Equal(h[0].RespFUIDs, []string{got[0].FUID}) {
				t.Errorf("%s: the request does not name the file: %+v", name, h)
			}
			for _, f := range tc.m.records {
				if f.Kind == flow.Files && (f.Src != tc.resp.Addr() || f.Dst != tc.orig.Addr() || f.SrcPort != 80) {
					t.Errorf("sent by %v:%d to %v", f.Src, f.SrcPort, f.Dst)
				}
			}
		}
	}
	short := play(80, 0, c("GET / HTTP/1.1\r\n\r\n"), s("HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"+body))
	if got := of(short, flow.Files, func(f *flow.Flow) *flow.FilesPart { return f.Files }); len(got) != 1 || got[0].MD5 != "" || got[0].TotalBytes != 9000 {
		t.Errorf("a file that was cut has a hash: %+v", got)
	}
	if page := play(80, 0, c("GET / HTTP/1.1\r\n\r\n"), s("HTTP/1.1 200 OK\r\n\r\n<html>")); len(of(page, flow.Files, func(f *flow.Flow) *flow.FilesPart { return f.Files })) != 0 {
		t.Error("a page is a file")
	}
}

// TestHTTP2 has clients of HTTP/2, which do not speak what is read here.
func TestHTTP2(t *testing.T) {
	for port, want := range map[uint16]int{80: 1, 443: 0, 12345: 0} {
		tc := play(port, 0, c("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"), s("\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
		if got := httpParts(tc); len(tc.services) != 0 || len(got) != want || want > 0 && got[0].Method != "PRI" {
			t.Errorf("port %d: services %q, %+v", port, tc.services, got)
		}
	}
}

// TestHTTPMidway picks a connection up in the middle of a download.
func TestHTTPMidway(t *testing.T) {
	tc := play(80, 0, s("rest of a body\n"), s("more\n"), c("GET /next HTTP/1.1\r\nHost: h\r\n\r\n"), s("HTTP/1.1 204 No Content\r\n\r\n"))
	if got := httpParts(tc); len(got) != 1 || got[0].URI != "/next" || got[0].StatusCode != 204 {
		t.Errorf("%+v", got)
	}
	junk := make([]say, 2*maxLost)
	for i := range junk {
		junk[i] = s("junk\n")
	}
	m := newTestMeter()
	a := m.set.TCP(&testConn{m: m}, 40000, 80)
	for _, x := range junk {
		a.Data(x.d, []byte(x.b), 1)
	}
	if a.Wants(Orig) || a.Wants(Resp) {
		t.Error("more of it is wanted")
	}
}

// TestTunnelsInTunnels nests without end.
func TestTunnelsInTunnels(t *testing.T) {
	var script []say
	for range 50 {
		script = append(script, c("CONNECT a:80 HTTP/1.1\r\n\r\n"), s("HTTP/1.1 200 OK\r\n\r\n"))
	}
	if got := httpParts(play(3128, 0, script...)); len(got) != maxTunnels+1 {
		t.Errorf("%d requests, want %d", len(got), maxTunnels+1)
	}
}

// TestNamed names services over TCP by their first bytes.
func TestNamed(t *testing.T) {
	x := strings.Repeat("x", 60)
	for _, tt := range []struct {
		name   string
		port   uint16
		script []say
		want   string
	}{
		{"POP3", 110, []say{s("+OK ready\r\n"), c("USER a\r\n")}, "pop3"},
		{"Redis is not POP3", 6379, []say{c("*1\r\n$4\r\nPING\r\n"), s("+OK\r\n")}, ""},
		{"remote desktop", 3389, []say{c("\x03\x00\x00\x21\x1c\xe0\x00\x00\x00\x00\x00Cookie: mstshash=a\r\nxx"), s("\x03\x00\x00\x0b\x06\xd0\x00\x00\x12\x34\x00")}, "rdp"},
		{"X.224 without the cookie", 102, []say{c("\x03\x00\x00\x0b\x06\xe0\x00\x00\x00\x00\x00"), s("\x03\x00\x00\x0b\x06\xd0\x00\x00\x12\x34\x00")}, ""},
		{"IRC", 6667, []say{c("NICK a\r\nUSER a b c :d\r\n")}, "irc"},
		{"IRC, the user first", 6697, []say{c("USER a b c :d\r\nNICK a\r\n")}, "irc"},
		{"a user of something else", 9999, []say{c("USER a\r\n")}, ""},
		{"Modbus", 502, []say{c("\x00\x01\x00\x00\x00\x06\x01\x03\x00\x00\x00\x0a")}, "modbus"},
		{"Modbus on another port", 503, []say{c("\x00\x01\x00\x00\x00\x06\x01\x03\x00\x00\x00\x0a")}, ""},
		{"MQTT", 1883, []say{c("\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04abcd")}, "mqtt"},
		{"DNP3", 20000, []say{c("\x05\x64\x05\xc0\x01\x00\x00\x04\xe9\x21"), s("\x05\x64\x05\x0b\x00\x04\x01\x00\x00\x00")}, "dnp3_tcp"},
		{"Kerberos", 88, []say{c("\x00\x00\x00\x10\x6a\x0e\x30\x0c\xa1\x03\x02\x01\x05\xa2\x03\x02\x01\x0a\x00\x00")}, "krb_tcp"},
		{"SMB with a login", 445, []say{c("\x00\x00\x00\x44\xfeSMB" + x), s("\x00\x00\x00\x44\xfeSMB" + x), c("\x00\x00\x00\x60\xfeSMB" + x + "\x06\x06\x2b\x06\x01\x05\x05\x02NTLMSSP\x00")}, "smb,gssapi,ntlm"},
		{"SMB with a call", 445, []say{c("\x00\x00\x00\x44\xfeSMB" + x), c("\x00\x00\x00\x60\xfeSMB" + x + "\x05\x00\x0b\x03\x10\x00\x00\x00")}, "smb,dce_rpc"},
		{"DCE/RPC", 135, []say{c("\x05\x00\x0b\x03\x10\x00\x00\x00\x48\x00\x00\x00" + x)}, "dce_rpc"},
		{"SOCKS 5", 1080, []say{c("\x05\x01\x00"), s("\x05\x00"), c("\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50"), s("\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"), c("GET / HTTP/1.0\r\n\r\n")}, "socks,http,tunnel"},
		{"SOCKS 5 with a login", 9050, []say{
			c("\x05\x02\x00\x02"), s("\x05\x02"), c("\x01\x01a\x01b"), s("\x01\x00"), c("\x05\x01\x00\x03\x01a\x01\xbb"),
			s("\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"), c(record(22, ja4Hello())),
		}, "socks,ssl,tunnel"},
		{"SOCKS 5, refused", 1080, []say{c("\x05\x01\x00"), s("\x05\x00"), c("\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50"), s("\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00")}, "socks"},
		{"SOCKS 4", 9050, []say{c("\x04\x01\x00\x50\x01\x02\x03\x04a\x00"), s("\x00\x5a\x00\x50\x01\x02\x03\x04"), c("GET / HTTP/1.0\r\n\r\n")}, "socks,http,tunnel"},
		{"not SOCKS", 9050, []say{c("\x05\x01\x00"), s("\x06\x00"), c("\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50")}, ""},
		{"WebSocket", 80, []say{c("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"), s("HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n")}, "http,websocket"},
		{"a proxy", 3128, []say{c("CONNECT a:1 HTTP/1.1\r\n\r\n"), s("HTTP/1.1 200 OK\r\n\r\n")}, "http,tunnel"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tc := play(tt.port, 0, tt.script...)
			said := slices.Clone(tc.services)
			for _, f := range tc.m.records {
				if f.Kind == flow.Tunnel {
					said = append(said, "tunnel")
				}
			}
			if got := strings.Join(said, ","); got != tt.want {
				t.Errorf("services %q, want %q", got, tt.want)
			}
		})
	}
}

// TestFTPPath has the paths of files in a directory that is known and in one
// that is not.
func TestFTPPath(t *testing.T) {
	for name, tt := range map[string]struct {
		before []say
		want   string
	}{
		"of the login":            {nil, "ftp://10.0.0.2/./x"},
		"below that of the login": {[]say{c("CWD a\r\n"), s("250 in\r\n")}, "ftp://10.0.0.2/./a/x"},
		"named from the root":     {[]say{c("CWD /a\r\n"), s("250 in\r\n"), c("CWD b\r\n"), s("250 in\r\n")}, "ftp://10.0.0.2/a/b/x"},
		"asked for":               {[]say{c("PWD\r\n"), s("257 \"/home\"\r\n")}, "ftp://10.0.0.2/home/x"},
		"refused":                 {[]say{c("CWD /a\r\n"), s("550 no\r\n")}, "ftp://10.0.0.2/./x"},
	} {
		t.Run(name, func(t *testing.T) {
			script := append([]say{s("220 x\r\n"), c("USER a\r\n"), s("331 x\r\n")}, tt.before...)
			tc := play(21, 0, append(script, c("RETR x\r\n"), s("226 done\r\n"))...)
			got := ""
			for _, f := range tc.m.records {
				if f.Kind == flow.FTP && f.FTP.Command == "RETR" {
					got = f.FTP.Arg
				}
			}
			if got != tt.want {
				t.Errorf("path %q, want %q", got, tt.want)
			}
		})
	}
}

// TestMailOfHeaders has a message in one chunk that is all header lines, the
// last of which does not end.
func TestMailOfHeaders(t *testing.T) {
	for _, n := range pieces {
		tc := play(25, n, s("220 x ESMTP\r\n"), c("EHLO y\r\n"), s("250-x\r\n250 CHUNKING\r\n"), c("MAIL FROM:<a@b>\r\n"), s("250 ok\r\n"),
			c("RCPT TO:<c@d>\r\n"), s("250 ok\r\n"), c("BDAT 20 LAST\r\nTo: c@d\r\nSubject: hi"), s("250 queued\r\n"), c("QUIT\r\n"))
		got := of(tc, flow.SMTP, func(f *flow.Flow) *flow.SMTPPart { return f.SMTP })
		if len(got) != 1 || got[0].Subject != "hi" || !slices.Equal(got[0].To, []string{"c@d"}) || got[0].LastReply != "250 queued" {
			t.Errorf("in pieces of %d: %+v", n, got)
		}
	}
}

// TestSecondHello has a client that was asked for another hello: its
// fingerprint is that of the first.
func TestSecondHello(t *testing.T) {
	first := c(record(22, ja4Hello()))
	want := sslParts(play(443, 0, first))
	got := sslParts(play(443, 0, first, c(record(22, clientHello("0303", "", "c02f", "")))))
	if len(want) != 1 || len(got) != 1 || want[0].JA3 == "" || got[0].JA3 != want[0].JA3 || got[0].JA4 != want[0].JA4 {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
