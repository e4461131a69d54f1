package packet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/parsers/flow"
)

// forged feeds one segment from the middle of a connection that does not exist,
// of a source of its own.
func (b *bench) forged(i int, data string) {
	src := netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)})
	b.step(1, tcp(raw{src: src, dst: server, sport: 1024, dport: 80, flags: "S", seq: 4}))
	b.step(1, tcp(raw{src: src, dst: server, sport: 1024, dport: 80, flags: "PA", seq: 5, ack: 9, data: data}))
}

// TestMidway has packets that belong to nothing: one of them is not enough for
// a record of what its sender is said to have asked for, unless it is one of DNS.
func TestMidway(t *testing.T) {
	for _, c := range []struct {
		port uint16
		data string
		want int
	}{
		{80, "GET /evil HTTP/1.1\r\nHost: evil.example\r\n\r\n", 0},
		{53, "\x00\x1e\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04evil\x07example\x00\x00\x01\x00\x01", 1},
	} {
		for _, syn := range []bool{false, true} {
			b := newBench(Options{})
			if syn {
				b.step(1, tcp(raw{src: client, dst: server, sport: 1024, dport: c.port, flags: "S", seq: 4}))
			}
			b.step(1, tcp(raw{src: client, dst: server, sport: 1024, dport: c.port, flags: "PA", seq: 5, ack: 9, data: c.data}))
			b.End()
			want := c.want
			if syn {
				want = 1
			}
			if got := len(b.got) - len(b.of(flow.Conn)); got != want {
				t.Errorf("port %d, SYN %t: %d records, want %d", c.port, syn, got, want)
			}
		}
	}
}

// TestBlinding fills the places for analyzers with forged connections, which
// take those of their own like: who talks to a server is read all the same.
func TestBlinding(t *testing.T) {
	const room = 64
	var told []int64
	b := newBench(Options{MaxAnalyzed: room, TCPInactivity: time.Hour, Full: func(r Reason, n int64) {
		if r != NotAnalyzed {
			t.Errorf("told of %q", r)
		}
		told = append(told, n)
	}})
	const request = "GET /%s HTTP/1.1\r\nHost: example.com\r\n\r\n"
	const answer = "<PA:HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	old := newTalk(b, 2000, 80).say(">S", "<SA", ">A", ">PA:"+fmt.Sprintf(request, "before"), answer)
	for i := range 10 * room {
		b.forged(i, "GET ")
	}
	check(t, b.Meter)
	newTalk(b, 2001, 80).say(">S", "<SA", ">A", ">PA:"+fmt.Sprintf(request, "new"), answer)
	old.say(">PA:"+fmt.Sprintf(request, "after"), answer)
	query := "\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04evil\x07example\x00\x00\x01\x00\x01"
	b.step(1, udp(client, server, 4000, 53, query))
	b.step(1, udp(server, client, 53, 4000, strings.Replace(query, "\x01\x00\x00\x01", "\x81\x80\x00\x01", 1)))
	var uris []string
	for _, f := range b.of(flow.HTTP) {
		if f.Src == client {
			uris = append(uris, f.HTTP.URI)
		}
	}
	if d := cmp.Diff([]string{"/before", "/new", "/after"}, uris); d != "" {
		t.Error(d)
	}
	if n := b.of(flow.DNS); len(n) != 1 || !n[0].DNS.Response {
		t.Errorf("%d records of DNS", len(n))
	}
	if n := b.Stats().Counts[NotAnalyzed]; n != 9*room+3 {
		t.Errorf("%d were not read to their end", n)
	}
	if d := cmp.Diff([]int64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512}, told); d != "" {
		t.Error(d)
	}
	b.End()
	check(t, b.Meter)

	b = newBench(Options{MaxAnalyzed: 2}) // where all have answers, it is the one used longest ago
	talks := []*talk{newTalk(b, 1, 80), newTalk(b, 2, 80), newTalk(b, 3, 80)}
	for i, c := range talks {
		c.say(">S", "<SA", ">A", ">PA:"+fmt.Sprintf(request, fmt.Sprint(i)), answer)
	}
	talks[1].say(">PA:"+fmt.Sprintf(request, "more"), answer)
	talks[0].say(">PA:"+fmt.Sprintf(request, "lost"), answer)
	if n := len(b.of(flow.HTTP)); n != 4 || b.Stats().Counts[NotAnalyzed] != 1 {
		t.Errorf("%d records, %v", n, b.Stats().Reasons())
	}
}

// TestLiveHeap attacks the memory of a Meter in several ways. What it takes stays
// near what its options allow: a fraction of what is thrown at it.
func TestLiveHeap(t *testing.T) {
	const (
		conns    = 2048
		buffered = 1 << 20
		bound    = 16 << 20 // 1.5 KB for each connection, twice what may be held, the fragments, and some analyzers that are free
	)
	segments := func(port uint16, text string) func(feed func([]byte)) {
		return func(feed func([]byte)) {
			for i := range uint32(conns / 2) {
				seq := uint32(1)
				for rest := text; len(rest) > 0; {
					n := min(len(rest), 8000)
					src := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
					feed(tcp(raw{src: src, dst: server, sport: 1024, dport: port, flags: "A", seq: seq, data: rest[:n]}))
					seq += uint32(n)
					rest = rest[n:]
				}
			}
		}
	}
	record := func(n int) string { return string([]byte{22, 3, 3, byte(n >> 8), byte(n)}) }
	var hello strings.Builder
	hello.WriteString(record(16000) + "\x01\x00\xfd\xe0" + strings.Repeat("x", 15996))
	for range 3 {
		hello.WriteString(record(16000) + strings.Repeat("x", 16000))
	}
	for name, attack := range map[string]func(feed func([]byte)){
		"streams full of holes": func(feed func([]byte)) {
			p := tcp(raw{src: client, dst: server, sport: 1024, dport: 80, flags: "A", data: "x"})
			for i := range uint32(conns) {
				for k := range uint32(200) {
					binary.BigEndian.PutUint32(p[12:], 0x0a010000+i)
					binary.BigEndian.PutUint32(p[24:], 10+2*k)
					feed(p)
				}
			}
		},
		"streams behind a hole": func(feed func([]byte)) {
			p := tcp(raw{src: client, dst: server, sport: 1024, dport: 80, flags: "A", data: strings.Repeat("x", 8000)})
			for i := range uint32(conns) {
				for k := range uint32(3) {
					binary.BigEndian.PutUint32(p[12:], 0x0a010000+i)
					binary.BigEndian.PutUint32(p[24:], 10+8001*k)
					feed(p)
				}
			}
		},
		"TLS, a message of 64 KB":   segments(443, hello.String()),
		"HTTP, requests unanswered": segments(80, strings.Repeat("GET /"+strings.Repeat("a", 500)+" HTTP/1.1\r\n\r\n", 95)+"GET / HTTP/1.1\r\nX: "+strings.Repeat("b", 15000)),
		"FTP, commands unanswered":  segments(21, strings.Repeat("STOR "+strings.Repeat("a", 4000)+"\r\n", 16)),
		"SMTP, a long head":         segments(25, "EHLO a\r\nMAIL FROM:<a@b>\r\nDATA\r\n"+strings.Repeat("Subject: "+strings.Repeat("b", 10000)+"\r\n", 4)),
		"SSH, key exchanges":        segments(22, "SSH-2.0-x\r\n\x00\x00\x90\x00\x00\x14"+strings.Repeat("x", 36000)),
		"DNS, queries unanswered": func(feed func([]byte)) {
			for i := range uint32(conns) {
				q := []byte("\x00\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + strings.Repeat("\x3d"+strings.Repeat("a", 0x3d), 4) + "\x00\x00\x01\x00\x01")
				for k := range uint16(45) {
					binary.BigEndian.PutUint16(q, k)
					feed(udp(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), server, 1024, 53, string(q)))
				}
			}
		},
		"fragments": func(feed func([]byte)) {
			for _, off := range []uint16{0, 8000} {
				for id := range uint16(4 * maxDatagrams) {
					p := ip4(client, server, 17, make([]byte, 8))
					binary.BigEndian.PutUint16(p[4:], id)
					binary.BigEndian.PutUint16(p[6:], 0x2000|off)
					feed(p)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			live := func() int64 {
				runtime.GC()
				runtime.GC() // what finalizers and pools let go
				var s runtime.MemStats
				runtime.ReadMemStats(&s)
				return int64(s.HeapAlloc)
			}
			before := live()
			m := New(Options{MaxConns: conns, MaxBuffered: buffered})
			now, fed := t0, 0
			attack(func(p []byte) {
				now += 1000
				fed += len(p)
				m.Feed(Packet{now, p, len(p), LinkRaw})
				if m.held > buffered || m.frags.bytes > maxFragBytes {
					t.Fatalf("%d bytes held, %d of fragments", m.held, m.frags.bytes)
				}
			})
			check(t, m)
			n := live() - before
			t.Logf("%d MB fed, %.1f MB taken, %v", fed>>20, float64(n)/(1<<20), m.Stats().Reasons())
			if n > bound {
				t.Errorf("%d bytes are taken, want at most %d", n, bound)
			}
			m.End()
			check(t, m)
			runtime.KeepAlive(m)
		})
	}
}

// TestFragmentBytes grows many datagrams at a time: what they take is looked at
// whenever one grows, and they go on to be put together.
func TestFragmentBytes(t *testing.T) {
	b := newBench(Options{})
	piece := func(id, off uint16, more bool, n int) {
		p := ip4(client, server, 17, make([]byte, n))
		binary.BigEndian.PutUint16(p[4:], id)
		binary.BigEndian.PutUint16(p[6:], off/8)
		if more {
			p[6] |= 0x20
		}
		b.raw(p)
		if n := b.Stats().Buffered; n > maxFragBytes {
			t.Fatalf("%d bytes held", n)
		}
	}
	for id := range uint16(maxDatagrams) {
		piece(id, 0, true, 8)
	}
	for id := range uint16(maxDatagrams) {
		piece(id, 65000, true, 8)
	}
	piece(5000, 0, true, 1400)
	piece(5000, 1400, false, 100)
	if n := b.Stats().Counts[FragmentOverflow]; n == 0 || b.Stats().Conns != 1 {
		t.Errorf("%d given up, %d connections", n, b.Stats().Conns)
	}
}

// TestRefused has an ICMP message end what got no other answer.
func TestRefused(t *testing.T) {
	v6, peer6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	router := netip.MustParseAddr("192.0.2.1")
	datagram := udp(client, server, 4000, 161, "hello")
	answer := udp(server, client, 161, 4000, "hello")
	syn := tcp(raw{src: client, dst: server, sport: 4000, dport: 161, flags: "S", seq: 1})
	synAck := tcp(raw{src: server, dst: client, sport: 161, dport: 4000, flags: "SA", seq: 1, ack: 2})
	datagram6 := udp(v6, peer6, 4000, 161, "hello")
	refuse := func(p []byte) []byte { return icmp(server, client, 3, 3, string(p[:28])) }
	fragment := bytes.Clone(datagram)
	fragment[7] = 1
	for _, c := range []struct {
		name  string
		delay time.Duration
		fed   [][]byte
		ended bool // after the delay, and 10 ms for each packet
	}{
		{"a datagram", time.Second, [][]byte{datagram, refuse(datagram)}, true},
		{"a datagram, by a router", time.Second, [][]byte{datagram, icmp(router, client, 3, 13, string(datagram))}, true},
		{"a SYN", time.Second, [][]byte{syn, refuse(syn)}, true},
		{"IPv6", time.Second, [][]byte{datagram6, icmp(peer6, v6, 1, 4, string(datagram6))}, true},
		{"two datagrams, the second refused", time.Second, [][]byte{datagram, datagram, refuse(datagram)}, true},
		{"as in Zeek", 0, [][]byte{datagram, refuse(datagram)}, false},
		{"not refused", time.Second, [][]byte{datagram}, false},
		{"a datagram behind it", time.Second, [][]byte{datagram, refuse(datagram), datagram}, false},
		{"an answer before it", time.Second, [][]byte{datagram, answer, refuse(datagram)}, false},
		{"an answer behind it", time.Second, [][]byte{datagram, refuse(datagram), answer}, false},
		{"a SYN with an answer", time.Second, [][]byte{syn, synAck, refuse(syn)}, false},
		{"what nobody sent", time.Second, [][]byte{datagram, refuse(answer)}, false},
		{"of another port", time.Second, [][]byte{datagram, refuse(udp(client, server, 4000, 162, "hello"))}, false},
		{"to another host", time.Second, [][]byte{datagram, icmp(server, router, 3, 3, string(datagram))}, false},
		{"another message", time.Second, [][]byte{datagram, icmp(server, client, 11, 0, string(datagram))}, false},
		{"too large for the way", time.Second, [][]byte{datagram, icmp(router, client, 3, 4, string(datagram))}, false},
		{"a later fragment", time.Second, [][]byte{datagram, refuse(fragment)}, false},
		{"cut short", time.Second, [][]byte{datagram, icmp(server, client, 3, 3, string(datagram[:23]))}, false},
		{"nothing in it", time.Second, [][]byte{datagram, icmp(server, client, 3, 3, "")}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(Options{RefusedDelay: c.delay})
			for _, p := range c.fed {
				b.step(10, p)
			}
			last := b.now
			b.Advance(last + second - 1)
			if n := len(b.of(flow.Conn)); n != 0 {
				t.Fatalf("%d ended early", n)
			}
			b.Advance(last + second)
			if n := len(b.of(flow.Conn)); n == 1 != c.ended {
				t.Errorf("%d ended", n)
			}
			check(t, b.Meter)
			b.End()
		})
	}
}

// TestMobileIP goes by the addresses of mobile hosts, as Zeek does: a source by
// its option, a destination by its routing header, as long as there is a way to go.
func TestMobileIP(t *testing.T) {
	from, to, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8::99")
	content := udp(from, to, 1000, 2000, "hello")[40:]
	home := append([]byte{17, 2, 1, 2, 0, 0, 201, 16}, other.AsSlice()...)
	route := append([]byte{17, 2, 2, 1, 0, 0, 0, 0}, other.AsSlice()...)
	done := append([]byte{17, 2, 2, 0, 0, 0, 0, 0}, other.AsSlice()...)
	for _, c := range []struct {
		name     string
		next     byte
		header   []byte
		src, dst netip.Addr
	}{
		{"home address", 60, home, other, to},
		{"route", 43, route, from, other},
		{"route at its end", 43, done, from, to},
	} {
		b := newBench(Options{})
		b.raw(ip6(from, to, c.next, append(bytes.Clone(c.header), content...)))
		if f := b.one(t); f.Src != c.src || f.Dst != c.dst || f.DstPort != 2000 {
			t.Errorf("%s: %v to %v:%d, want %v to %v", c.name, f.Src, f.Dst, f.DstPort, c.src, c.dst)
		}
	}
}
