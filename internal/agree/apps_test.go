package agree

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// turn is what one side says next.
type turn struct {
	fromServer bool
	data       []byte
}

func says(s string) turn    { return turn{false, []byte(s)} }
func answers(s string) turn { return turn{true, []byte(s)} }

// converse has a connection in which the turns are said, in segments of any
// size, and which is closed as most are.
func (k *talker) converse(port uint16, turns []turn) {
	c, s, r := &k.c, &k.s, k.r
	s.port = port
	k.send(c, s, syn, 0)
	k.send(s, c, syn|ack, 0)
	k.send(c, s, ack, 0)
	for _, t := range turns {
		a, b := c, s
		if t.fromServer {
			a, b = s, c
		}
		for rest := t.data; len(rest) > 0; {
			n := min(len(rest), 1400)
			if r.IntN(4) == 0 {
				n = 1 + r.IntN(n)
			}
			k.put(segment(a, b, ack|psh, a.seq, a.ack, rest[:n]))
			a.seq += uint32(n)
			b.ack = a.seq
			rest = rest[n:]
		}
		k.send(b, a, ack, 0)
	}
	k.send(c, s, fin|ack, 0)
	k.send(s, c, fin|ack, 0)
	k.send(c, s, ack, 0)
}

// text has HTTP, SMTP, FTP, POP3 or SSH's greetings.
func (k *talker) text() {
	r := k.r
	word := func() string {
		b := make([]byte, 3+r.IntN(8))
		for i := range b {
			b[i] = byte('a' + r.IntN(26))
		}
		return string(b)
	}
	var all []turn
	switch r.IntN(6) {
	case 0, 1, 2:
		for range 1 + r.IntN(4) {
			host, agent := word()+".example", "Test/1."+word()
			body := strings.Repeat(word()+" ", r.IntN(600))
			head := fmt.Sprintf("/%s?q=%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\n", word(), word(), host, agent)
			switch r.IntN(6) {
			case 0:
				all = append(all, says(fmt.Sprintf("POST %sContent-Length: %d\r\n\r\n%s", head, len(body), body)), answers("HTTP/1.1 204 No Content\r\nServer: nginx/1.2.3\r\n\r\n"))
			case 1:
				all = append(all, says("HEAD "+head+"\r\n"), answers("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"))
			case 2:
				var b strings.Builder
				for rest := body; len(rest) > 0; {
					n := 1 + r.IntN(len(rest))
					fmt.Fprintf(&b, "%x\r\n%s\r\n", n, rest[:n])
					rest = rest[n:]
				}
				all = append(all, says("GET "+head+"\r\n"), answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n"+b.String()+"0\r\n\r\n"))
			case 3:
				all = append(all, says("GET "+head+"If-Modified-Since: never\r\n\r\n"), answers("HTTP/1.1 304 Not Modified\r\n\r\n"))
			case 4:
				all = append(all, says("GET "+head+"Expect: 100-continue\r\n\r\n"), answers("HTTP/1.1 100 Continue\r\n\r\n"), answers("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone"))
			default:
				body = "MZ" + strings.Repeat("\x90\x00", 600) + body
				all = append(all, says("GET "+head+"Referer: http://"+word()+"/\r\n\r\n"), answers(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n%s", len(body), body)))
			}
		}
		k.converse([...]uint16{80, 8080, 8001, 49152}[r.IntN(4)], all)
	case 3:
		all = append(all, answers("220 mx ESMTP\r\n"), says("EHLO "+word()+"\r\n"), answers("250-mx\r\n250 8BITMIME\r\n"))
		for range 1 + r.IntN(2) {
			all = append(all,
				says("MAIL FROM:<"+word()+"@a.example>\r\n"), answers("250 ok\r\n"), says("RCPT TO:<"+word()+"@b.example>\r\n"), answers("250 ok\r\n"),
				says("DATA\r\n"), answers("354 go\r\n"),
				says("From: "+word()+" <a@a.example>\r\nTo: b@b.example\r\nSubject: "+word()+" "+word()+"\r\n\r\n"+strings.Repeat(word()+"\r\n", r.IntN(40))+".\r\n"), answers("250 queued\r\n"))
		}
		k.converse([...]uint16{25, 587}[r.IntN(2)], append(all, says("QUIT\r\n"), answers("221 bye\r\n")))
	case 4:
		all = append(all, answers("220 ready\r\n"), says("USER "+word()+"\r\n"), answers("331 password\r\n"), says("PASS "+word()+"\r\n"))
		if r.IntN(3) == 0 {
			all = append(all, answers("530 no\r\n"))
		} else {
			all = append(all, answers("230 in\r\n"), says("CWD /"+word()+"\r\n"), answers("250 there\r\n"), says("PASV\r\n"), answers("227 Entering Passive Mode (192,0,2,9,200,1)\r\n"),
				says("RETR "+word()+"\r\n"), answers("150 comes\r\n"), answers("226 done\r\n"), says("DELE "+word()+"\r\n"), answers("250 gone\r\n"))
		}
		k.converse(21, append(all, says("QUIT\r\n"), answers("221 bye\r\n")))
	default:
		k.converse([...]uint16{22, 2222}[r.IntN(2)], []turn{answers("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"), says("SSH-2.0-libssh_0.9." + fmt.Sprint(r.IntN(9)) + "\r\n")})
	}
}

// names has DNS over UDP.
func (k *talker) names() {
	c, s, r := &k.c, &k.s, k.r
	s.port = [...]uint16{53, 53, 53, 5355, 5300}[r.IntN(5)]
	if r.IntN(10) == 0 {
		c.port = s.port
	}
	for range 1 + r.IntN(3) {
		name := dnsmessage.MustNewName(fmt.Sprintf("h%d.zone%d.example.", r.IntN(1000), r.IntN(50)))
		m := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: uint16(r.IntN(1 << 16)), RecursionDesired: true},
			Questions: []dnsmessage.Question{{Name: name, Type: [...]dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeTXT, dnsmessage.TypeMX}[r.IntN(4)], Class: dnsmessage.ClassINET}},
		}
		ask, err := m.Pack()
		if err != nil {
			panic(err)
		}
		for range 1 + r.IntN(5)/4 {
			k.put(datagram(c, s, ask))
		}
		if r.IntN(8) == 0 {
			continue // no answer
		}
		m.Response, m.RecursionAvailable = true, true
		h := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: uint32(r.IntN(9000))}
		switch {
		case r.IntN(5) == 0:
			m.RCode = dnsmessage.RCodeNameError
		case m.Questions[0].Type == dnsmessage.TypeA:
			for range 1 + r.IntN(5) {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: [4]byte{198, 51, 100, byte(r.IntN(256))}}})
			}
		case m.Questions[0].Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("alias.example.")}},
				dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: [16]byte{0x20, 1, 0x0d, 0xb8, 15: byte(r.IntN(256))}}})
		case m.Questions[0].Type == dnsmessage.TypeTXT:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.TXTResource{TXT: []string{"v=spf1 " + strings.Repeat("x", r.IntN(200)), "two"}}})
		default:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.MXResource{Pref: 10, MX: name}})
		}
		answer, err := m.Pack()
		if err != nil {
			panic(err)
		}
		k.put(datagram(s, c, answer))
		if r.IntN(15) == 0 {
			k.now += int64(r.IntN(30)) * second
		}
	}
}

// datagrams has UDP to all sorts of ports, ICMP and protocols without ports.
func (k *talker) datagrams() {
	c, s, r := &k.c, &k.s, k.r
	ports := [...]uint16{123, 161, 500, 514, 1900, 5060, 9999, 40001, 443, 67, 5353}
	if s.port = ports[r.IntN(len(ports))]; r.IntN(6) == 0 {
		c.port = s.port
	}
	for range 1 + r.IntN(6) {
		a, b := c, s
		if r.IntN(3) == 0 {
			a, b = s, c
		}
		switch r.IntN(8) {
		case 0:
			types := [...]byte{8, 0, 13, 14, 3, 11, 128, 129, 135, 136}
			t := types[r.IntN(len(types))]
			k.put(network(a, b, 1, append([]byte{t, byte(r.IntN(2)), 0, 0, 0, 1, 0, 1}, make([]byte, 20+r.IntN(40))...)))
		case 1:
			k.put(network(a, b, [...]byte{2, 89, 112, 132}[r.IntN(4)], make([]byte, 8+r.IntN(50))))
		default:
			n := make([]byte, r.IntN(200))
			for i := range n {
				n[i] = byte(r.IntN(256))
			}
			k.put(datagram(a, b, n))
		}
		if r.IntN(6) == 0 {
			k.now += int64(r.IntN(90)) * second
		}
	}
}

// recorder keeps what is written through a connection, and by whom.
type recorder struct {
	net.Conn
	mu     *sync.Mutex
	turns  *[]turn
	server bool
}

func (c recorder) Write(b []byte) (int, error) {
	c.mu.Lock()
	*c.turns = append(*c.turns, turn{c.server, append([]byte(nil), b...)})
	c.mu.Unlock()
	return c.Conn.Write(b)
}

// handshakes are TLS connections of this machine's own library: versions,
// ciphers, with and without a name, resumed, refused.
func handshakes(t *testing.T) [][]turn {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(4711), Subject: pkix.Name{CommonName: "test.example", Organization: []string{"Test"}}, DNSNames: []string{"test.example"},
		NotBefore: time.Unix(1_600_000_000, 0), NotAfter: time.Unix(1_900_000_000, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	server := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12}
	var all [][]turn
	cache := tls.NewLRUClientSessionCache(8)
	for i, client := range []*tls.Config{
		{ServerName: "one.example", MaxVersion: tls.VersionTLS12},
		{ServerName: "two.example", MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}},
		{MaxVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
		{ServerName: "again.example", MaxVersion: tls.VersionTLS12, ClientSessionCache: cache},
		{ServerName: "again.example", MaxVersion: tls.VersionTLS12, ClientSessionCache: cache},
		{ServerName: "curves.example", MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.CurveP384}},
		{ServerName: "old.example", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, // refused
	} {
		client.InsecureSkipVerify = true //nolint:gosec // both ends are ours
		var mu sync.Mutex
		var turns []turn
		a, b := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			c := tls.Server(recorder{b, &mu, &turns, true}, server)
			if _, err := io.ReadFull(c, make([]byte, 5)); err == nil {
				c.Write([]byte("and hello to you"))
			}
			c.Close()
		})
		c := tls.Client(recorder{a, &mu, &turns, false}, client)
		c.SetDeadline(time.Now().Add(10 * time.Second))
		_, err := c.Write([]byte("hello"))
		if (err != nil) != (client.MaxVersion == tls.VersionTLS11) {
			t.Fatalf("handshake %d: %v", i, err)
		}
		if err == nil {
			io.ReadAll(c)
		}
		c.Close()
		wg.Wait()
		all = append(all, turns)
	}
	return all
}

// secrets has one of the connections over TLS, to a port that is known for it
// or not.
func (k *talker) secrets(all [][]turn) {
	k.converse([...]uint16{443, 8443, 993, 4444}[k.r.IntN(4)], all[k.r.IntN(len(all))])
}
