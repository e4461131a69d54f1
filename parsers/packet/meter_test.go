package packet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/parsers/flow"
)

// TestStates has each of Zeek's states.
func TestStates(t *testing.T) {
	open := []string{">S", "<SA", ">A"}
	for _, c := range []struct {
		name    string
		script  []string
		state   string
		history string
		orig    int64
		resp    int64
	}{
		{"SYN alone", []string{">S"}, "S0", "S", 0, 0},
		{"established", open, "S1", "ShA", 0, 0},
		{"closed by both", append(open, ">PA:hello", "<PA:you", "<FA", ">FA", "<A"), "SF", "ShADdfFa", 5, 3},
		{"refused", []string{">S", "<RA"}, "REJ", "Sr", 0, 0},
		{"closed by the originator", append(open, ">FA", "<A"), "S2", "ShAFa", 0, 0},
		{"closed by the responder", append(open, "<FA", ">A"), "S3", "ShAf", 0, 0},
		{"reset by the originator", append(open, ">PA:x", ">R"), "RSTO", "ShADR", 1, 0},
		{"reset by the responder", append(open, "<PA:x", "<R"), "RSTR", "ShAdr", 0, 1},
		{"taken back", []string{">S", ">R"}, "RSTOS0", "SR", 0, 0},
		{"answer to an unseen SYN, reset", []string{"<SA", "<R"}, "RSTRH", "^hr", 0, 0},
		{"SYN and FIN", []string{">S", ">F"}, "SH", "SF", 0, 0},
		{"answer to an unseen SYN, closed", []string{"<SA", "<FA"}, "SHR", "^hf", 0, 0},
		{"mid-stream", []string{">PA:abc", "<PA:de"}, "OTH", "Dd", 3, 2},
		{"all flags", []string{">FSRPA"}, "OTH", "I", 0, 0},
		{"SYN with FIN", []string{">SF"}, "SH", "Q", 0, 0},
		{"null scan", []string{">"}, "OTH", "", 0, 0},
		{"again and again", append(open, ">PA:a", ">FA", "<A", "<FA", ">A"), "SF", "ShADFaf", 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(Options{})
			newTalk(b, 40000, 80).say(c.script...)
			f := b.one(t)
			if f.RawState != c.state || f.History != c.history || f.OrigBytes != c.orig || f.RespBytes != c.resp {
				t.Errorf("%s %q %d/%d, want %s %q %d/%d", f.RawState, f.History, f.OrigBytes, f.RespBytes, c.state, c.history, c.orig, c.resp)
			}
			if f.Src != client || f.Dst != server || f.SrcPort != 40000 || f.DstPort != 80 || f.Time != t0+1e6 {
				t.Errorf("%v:%d > %v:%d at %d", f.Src, f.SrcPort, f.Dst, f.DstPort, f.Time)
			}
		})
	}
}

// TestRecord has a connection with everything that a record says.
func TestRecord(t *testing.T) {
	b := newBench(Options{})
	feed := func(ms int64, p []byte) {
		b.now += ms * 1e6
		tag := append([]byte{0, 12, 0x81, 0, 0, 13, 8, 0}, p...)
		f := ether(etherQinQ, tag)
		b.Feed(Packet{b.now, f, len(f), LinkEthernet})
	}
	c := raw{src: client, dst: server, sport: 40000, dport: 80}
	s := raw{src: server, dst: client, sport: 80, dport: 40000}
	send := func(p raw, flags string, seq, ack uint32, data string) []byte {
		p.flags, p.seq, p.ack, p.data = flags, seq, ack, data
		return tcp(p)
	}
	feed(0, send(c, "S", 9, 0, ""))
	feed(10, send(s, "SA", 99, 10, ""))
	feed(10, send(c, "PA", 10, 100, "12345"))
	feed(10, send(s, "PA", 100, 15, "123"))
	feed(10, send(c, "FA", 15, 103, ""))
	feed(10, send(s, "FA", 103, 16, ""))
	b.End()
	want := &flow.Flow{
		Time: t0, Duration: 50e6, Src: client, Dst: server, SrcPort: 40000, DstPort: 80, HasPorts: true, Kind: flow.Conn,
		Proto: flow.TCP, State: flow.Established, LocalOrig: flow.True, LocalResp: flow.True, UID: b.got[0].UID, RawState: "SF",
		History: "ShDdFf", CommunityID: b.got[0].CommunityID, SrcMAC: "00:00:5e:00:53:01", DstMAC: "00:00:5e:00:53:02",
		VLAN: 12, InnerVLAN: 13, OrigBytes: 5, RespBytes: 3, OrigPkts: 3, RespPkts: 3, OrigIPBytes: 125, RespIPBytes: 123,
	}
	got := *b.got[0]
	if len(got.UID) != 18 || got.UID[0] != 'C' {
		t.Errorf("uid %q", got.UID)
	}
	if d := cmp.Diff(want, &got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.FilterPath(func(p cmp.Path) bool {
		return p.Last().String() == ".Parts" || p.Last().String() == ".scratch"
	}, cmp.Ignore())); d != "" {
		t.Error(d)
	}
}

// TestCommunityID has the examples of the specification's baseline.
func TestCommunityID(t *testing.T) {
	for _, c := range []struct {
		packet []byte
		want   string
	}{
		{tcp(raw{src: netip.MustParseAddr("128.232.110.120"), dst: netip.MustParseAddr("66.35.250.204"), sport: 34855, dport: 80, flags: "S"}), "1:LQU9qZlK+B5F3KDmev6m5PMibrg="},
		{udp(netip.MustParseAddr("192.168.1.52"), netip.MustParseAddr("8.8.8.8"), 54585, 53, "x"), "1:d/FP5EW3wiY1vCndhwleRRKHowQ="},
		{icmp(netip.MustParseAddr("192.168.0.89"), netip.MustParseAddr("192.168.0.1"), 8, 0, ""), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="},
		{icmp(netip.MustParseAddr("fe80::200:86ff:fe05:80da"), netip.MustParseAddr("fe80::260:97ff:fe07:69ea"), 135, 0, ""), "1:dGHyGvjMfljg6Bppwm3bg0LO8TY="},
	} {
		b := newBench(Options{})
		b.raw(c.packet)
		if f := b.one(t); f.CommunityID != c.want {
			t.Errorf("%v:%d > %v:%d: %s, want %s", f.Src, f.SrcPort, f.Dst, f.DstPort, f.CommunityID, c.want)
		}
	}
}

// TestTimeouts has the ways in which connections end by time.
func TestTimeouts(t *testing.T) {
	tick := func(b *bench, after time.Duration) int {
		b.Advance(b.now + int64(after))
		return len(b.of(flow.Conn))
	}
	for _, c := range []struct {
		name  string
		begin func(b *bench)
		after time.Duration
	}{
		{"SYN without answer", func(b *bench) { newTalk(b, 1, 80).say(">S") }, 5 * time.Second},
		{"established and silent", func(b *bench) { newTalk(b, 1, 80).say(">S", "<SA", ">A") }, 5 * time.Minute},
		{"SSH, established and silent", func(b *bench) { newTalk(b, 1, 22).say(">S", "<SA", ">A") }, time.Hour},
		{"closed", func(b *bench) { newTalk(b, 1, 80).say(">S", "<SA", ">A", ">FA", "<FA") }, 5 * time.Second},
		{"refused", func(b *bench) { newTalk(b, 1, 80).say(">S", "<RA") }, 5 * time.Second},
		{"mid-stream", func(b *bench) { newTalk(b, 1, 80).say(">PA:x") }, 5 * time.Minute},
		{"UDP", func(b *bench) { b.raw(udp(client, server, 1, 2, "x")) }, time.Minute},
		{"DNS", func(b *bench) { b.raw(udp(client, server, 1, 53, "x")) }, 10 * time.Second},
		{"ICMP", func(b *bench) { b.raw(icmp(client, server, 8, 0, "x")) }, time.Minute},
		{"SCTP", func(b *bench) { b.raw(ip4(client, server, 132, []byte("12345678"))) }, time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(Options{})
			c.begin(b)
			if n := tick(b, c.after-1); n != 0 {
				t.Errorf("%d connections ended before %v", n, c.after)
			}
			if n := tick(b, c.after); n != 1 {
				t.Errorf("%d connections ended after %v, want 1", n, c.after)
			}
			if s := b.Stats(); s.Active != 0 || len(b.due) != 0 || b.all.lone.n+b.all.both.n != 0 {
				t.Errorf("left behind: %+v", s)
			}
		})
	}
	t.Run("options", func(t *testing.T) {
		b := newBench(Options{AttemptDelay: time.Minute, TCPInactivity: time.Hour})
		newTalk(b, 1, 80).say(">S")
		newTalk(b, 2, 80).say(">S", "<SA", ">A")
		if n := tick(b, 59*time.Second); n != 0 {
			t.Error("a SYN was given up too early")
		}
		if n := tick(b, 61*time.Second); n != 1 {
			t.Errorf("%d connections ended, want the SYN's", n)
		}
		if n := tick(b, time.Hour); n != 2 {
			t.Errorf("%d connections ended, want both", n)
		}
	})
}

// TestReuse has ports that are used again before the first connection is gone.
func TestReuse(t *testing.T) {
	b := newBench(Options{})
	newTalk(b, 1, 80).say(">S", "<RA")
	c := newTalk(b, 1, 80)
	c.seq[0] = 77777
	c.say(">S", "<SA", ">A")
	b.End()
	got := b.of(flow.Conn)
	if len(got) != 2 || got[0].RawState != "REJ" || got[1].RawState != "S1" || got[0].UID == got[1].UID {
		t.Fatalf("%d connections, want REJ and S1", len(got))
	}

	b = newBench(Options{})
	for range 3 { // the same SYN sent three times is one attempt
		c := newTalk(b, 1, 80)
		c.say(">S")
	}
	if f := b.one(t); f.History != "S" || f.OrigPkts != 3 {
		t.Errorf("%q with %d packets", f.History, f.OrigPkts)
	}

	b = newBench(Options{})
	same := raw{src: client, dst: server, sport: 1, dport: 80, flags: "S", seq: 1}
	b.raw(tcp(same))
	same.seq = 2
	b.raw(tcp(same)) // at the same time
	b.End()
	if got := b.of(flow.Conn); len(got) != 2 || got[0].UID == got[1].UID {
		t.Error("two connections with the same ends and start have the same uid")
	}
}

// TestFlip has packets from which it is to be guessed who the server is.
func TestFlip(t *testing.T) {
	for _, c := range []struct {
		name    string
		feed    func(b *bench)
		history string
	}{
		{"mid-stream from a server port", func(b *bench) { newTalk(b, 40000, 443).say("<PA:x") }, "^d"},
		{"answer first", func(b *bench) { newTalk(b, 40000, 9999).say("<SA", ">A", ">PA:x") }, "^hAD"},
		{"answer captured before the SYN", func(b *bench) {
			x := newTalk(b, 40000, 9999)
			x.seq[1]++
			x.b.raw(tcp(raw{server, client, 9999, 40000, "SA", 5000, 1001, "", 0}))
			x.say(">S", ">A")
		}, "Hs^A"},
		{"NTP answer", func(b *bench) { b.raw(udp(server, client, 123, 123, "\x24"+strings.Repeat("x", 47))) }, "D^"},
		{"DNS answer between like ports", func(b *bench) { b.raw(udp(server, client, 53, 53, "\x00\x01\x81"+strings.Repeat("\x00", 9))) }, "D^"},
		{"DNS answer", func(b *bench) { b.raw(udp(server, client, 53, 40000, "x")) }, "^d"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(Options{})
			c.feed(b)
			f := b.one(t)
			if f.Src != client || f.Dst != server || f.SrcPort != 40000 && f.SrcPort != 123 && f.SrcPort != 53 {
				t.Errorf("%v:%d > %v:%d", f.Src, f.SrcPort, f.Dst, f.DstPort)
			}
			if f.History != c.history {
				t.Errorf("history %q, want %q", f.History, c.history)
			}
		})
	}
}

// TestICMP has pairs of messages, and those that have no answer.
func TestICMP(t *testing.T) {
	b := newBench(Options{})
	b.raw(icmp(client, server, 8, 0, "abcd"))
	b.step(5, icmp(server, client, 0, 0, "abcd"))
	f := b.one(t)
	if f.SrcPort != 8 || f.DstPort != 0 || f.OrigPkts != 1 || f.RespPkts != 1 || f.OrigBytes != 4 || f.RespBytes != 4 || f.RawState != "OTH" || f.Proto != flow.ICMP {
		t.Errorf("echo: %+v", f)
	}
	b = newBench(Options{})
	b.raw(icmp(client, server, 3, 1, ""))
	b.raw(icmp(client, server, 3, 3, ""))
	b.raw(icmp(server, client, 3, 1, ""))
	b.End()
	if got := b.of(flow.Conn); len(got) != 3 {
		t.Errorf("%d connections of unreachables, want 3", len(got))
	}
	b = newBench(Options{})
	a6, b6 := netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::2")
	b.raw(icmp(a6, b6, 135, 0, ""))
	b.step(5, icmp(b6, a6, 136, 0, ""))
	if f := b.one(t); f.SrcPort != 135 || f.DstPort != 136 || f.RespPkts != 1 {
		t.Errorf("neighbour: %+v", f)
	}
}

// TestMapped has addresses of IPv4 in packets of IPv6, which are the same.
func TestMapped(t *testing.T) {
	b := newBench(Options{})
	in6 := func(a netip.Addr) netip.Addr { return netip.AddrFrom16(a.As16()) }
	b.raw(udp(in6(client), in6(server), 40000, 9999, "x"))
	f := b.one(t)
	if f.Src != client || f.Dst != server {
		t.Errorf("%v > %v, want %v > %v", f.Src, f.Dst, client, server)
	}
	want := newBench(Options{})
	want.raw(udp(client, server, 40000, 9999, "x"))
	if w := want.one(t); f.CommunityID != w.CommunityID {
		t.Errorf("id %s, want %s", f.CommunityID, w.CommunityID)
	}
}

// TestShortLength has datagrams whose length is below that of their header:
// then nothing was sent.
func TestShortLength(t *testing.T) {
	for _, c := range []struct {
		lengths []uint16
		state   string
		bytes   int64
	}{
		{[]uint16{5}, "OTH", 0},
		{[]uint16{8}, "S0", 0},
		{[]uint16{5, 20}, "S0", 12},
		{[]uint16{20, 5}, "S0", 9},
	} {
		b := newBench(Options{})
		for _, n := range c.lengths {
			p := udp(client, server, 40000, 9999, "payload of 20 bytes!")
			binary.BigEndian.PutUint16(p[24:], n)
			b.step(1, p)
		}
		if f := b.one(t); f.RawState != c.state || f.OrigBytes != c.bytes {
			t.Errorf("lengths %d: %s, %d bytes, want %s and %d", c.lengths, f.RawState, f.OrigBytes, c.state, c.bytes)
		}
	}
}

// TestNumbers has retransmissions, zero windows, gaps and numbers that go round.
func TestNumbers(t *testing.T) {
	t.Run("retransmissions and windows", func(t *testing.T) {
		b := newBench(Options{})
		c := newTalk(b, 1, 80).say(">S", "<SA", ">A", ">PA:abc")
		for range 12 {
			b.step(1, tcp(raw{client, server, 1, 80, "PA", 1001, 5001, "abc", 0}))
		}
		b.step(1, tcp(raw{server, client, 80, 1, "A", 5001, c.seq[0], "", 1}))
		f := b.one(t)
		if f.History != "ShADTTwa" && f.History != "ShADTTaw" || f.OrigBytes != 3 || f.OrigPkts != 15 {
			t.Errorf("%q %d bytes %d packets", f.History, f.OrigBytes, f.OrigPkts)
		}
	})
	t.Run("gap", func(t *testing.T) {
		b := newBench(Options{})
		newTalk(b, 1, 80).say(">S", "<SA", ">A", ">PA:abc", "!>PA:lost!", ">PA:def", "<A")
		if f := b.one(t); f.MissedBytes != 5 || f.History != "ShADaG" && f.History != "ShADGa" || f.OrigBytes != 11 {
			t.Errorf("%d missed of %d, %q", f.MissedBytes, f.OrigBytes, f.History)
		}
	})
	t.Run("out of order is no gap", func(t *testing.T) {
		b := newBench(Options{})
		c := newTalk(b, 1, 80).say(">S", "<SA", ">A")
		for _, p := range []int{3, 0, 2, 1, 4} {
			b.step(1, tcp(raw{client, server, 1, 80, "PA", c.seq[0] + uint32(p), c.seq[1], string(rune('a' + p)), 0}))
		}
		c.seq[0] += 5
		c.say("<A")
		if f := b.one(t); f.MissedBytes != 0 || strings.Contains(f.History, "G") || f.OrigBytes != 5 {
			t.Errorf("%d missed of %d, %q", f.MissedBytes, f.OrigBytes, f.History)
		}
	})
	t.Run("round", func(t *testing.T) {
		b := newBench(Options{})
		c := newTalk(b, 1, 80)
		c.seq[0] = 0xfffffff0
		c.say(">S", "<SA", ">A")
		for range 10 {
			c.say(">PA:"+strings.Repeat("x", 1000), "<A")
		}
		c.say(">FA", "<FA", ">A")
		if f := b.one(t); f.OrigBytes != 10000 || f.MissedBytes != 0 || f.RawState != "SF" {
			t.Errorf("%d bytes, %d missed, %s", f.OrigBytes, f.MissedBytes, f.RawState)
		}
	})
}

// TestStream checks that what reaches the analyzers is the stream, whatever the
// order and overlap of the segments: the request of HTTP is found.
func TestStream(t *testing.T) {
	request := "GET /path HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: tester\r\n\r\n"
	reply := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 200 {
		b := newBench(Options{})
		c := newTalk(b, 40000, 80).say(">S", "<SA", ">A")
		type piece struct{ at, end int }
		var pieces []piece
		for at := 0; at < len(request); {
			end := min(len(request), at+1+r.IntN(20))
			pieces = append(pieces, piece{max(0, at-r.IntN(4)), end})
			at = end
		}
		r.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
		for _, p := range pieces {
			b.step(1, tcp(raw{client, server, 40000, 80, "PA", c.seq[0] + uint32(p.at), c.seq[1], request[p.at:p.end], 0}))
		}
		c.seq[0] += uint32(len(request))
		c.say("<PA:"+reply, ">FA", "<FA", ">A")
		b.End()
		h := b.of(flow.HTTP)
		if len(h) != 1 || h[0].HTTP.Host != "www.example.com" || h[0].HTTP.URI != "/path" || h[0].HTTP.StatusCode != 200 {
			t.Fatalf("round %d with pieces %v: %d HTTP records", n, pieces, len(h))
		}
		if f := b.of(flow.Conn)[0]; f.Service != "http" || f.MissedBytes != 0 || f.UID != h[0].UID {
			t.Fatalf("round %d: service %q, %d missed", n, f.Service, f.MissedBytes)
		}
		if s := b.Stats(); s.Buffered != 0 {
			t.Fatalf("%d bytes are held", s.Buffered)
		}
	}
}

// TestFragments has datagrams in pieces, in all orders, with pieces missing
// and too many of them.
func TestFragments(t *testing.T) {
	payload := strings.Repeat("0123456789abcdef", 20)
	whole := udp(client, server, 40000, 9999, payload)[20:]
	piece := func(id uint16, at, end int) []byte {
		b := ip4(client, server, 17, whole[at:end])
		binary.BigEndian.PutUint16(b[4:], id)
		off := uint16(at / 8)
		if end < len(whole) {
			off |= 0x2000
		}
		binary.BigEndian.PutUint16(b[6:], off)
		return b
	}
	cuts := [][2]int{{0, 80}, {80, 160}, {120, 240}, {240, len(whole)}}
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}, {1, 1, 0, 0, 3, 2}} {
		b := newBench(Options{Checksums: true})
		for _, i := range order {
			p := piece(7, cuts[i][0], cuts[i][1])
			binary.BigEndian.PutUint16(p[10:], 0)
			binary.BigEndian.PutUint16(p[10:], ^sum(p[:20], 0))
			b.raw(p)
		}
		f := b.one(t)
		if f.OrigPkts != 1 || f.OrigIPBytes != int64(20+len(whole)) || f.History != "D" {
			t.Errorf("%v: %d packets, %d bytes, %q, %v", order, f.OrigPkts, f.OrigIPBytes, f.History, b.stats.Reasons())
		}
	}
	b := newBench(Options{})
	b.raw(piece(1, 0, 80))
	b.Advance(b.now + fragTimeout)
	if n := b.Stats().Counts[LostFragments]; n != 1 || b.Stats().Buffered != 0 {
		t.Errorf("%d lost, %d bytes held", n, b.Stats().Buffered)
	}
	for i := range 10 * maxDatagrams {
		b.raw(piece(uint16(i), 80, 160))
	}
	if s := b.Stats(); len(b.frags.m) > maxDatagrams || s.Buffered > maxFragBytes+maxDatagram || s.Counts[FragmentOverflow] == 0 {
		t.Errorf("%d datagrams, %d bytes, %d given up", len(b.frags.m), s.Buffered, s.Counts[FragmentOverflow])
	}

	// IPv6: two fragments behind an options header.
	a6, b6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	whole6 := udp(a6, b6, 40000, 9999, payload)[40:]
	piece6 := func(at, end int, more byte) []byte {
		h := []byte{44, 0, 1, 4, 0, 0, 0, 0, 17, 0, byte(at >> 8), byte(at) | more, 0, 0, 0, 9}
		return ip6(a6, b6, 60, append(h, whole6[at:end]...))
	}
	b = newBench(Options{})
	b.raw(piece6(160, len(whole6), 0))
	b.raw(piece6(0, 160, 1))
	if f := b.one(t); f.OrigIPBytes != int64(40+8+len(whole6)) || f.Src != a6 {
		t.Errorf("IPv6: %d bytes from %v", f.OrigIPBytes, f.Src)
	}
}

// TestLinks has the same packet in all sorts of frames.
func TestLinks(t *testing.T) {
	ip := udp(client, server, 40000, 9999, "hello")
	a6, b6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	v6 := udp(a6, b6, 40000, 9999, "hello")
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	gre := func(head []byte, in []byte) []byte { return ip4(client, server, 47, cat(head, in)) }
	sll := make([]byte, 16)
	sll[5], sll[14] = 6, 8
	sll2 := make([]byte, 20)
	sll2[0], sll2[11] = 8, 6
	for _, c := range []struct {
		name string
		link Link
		data []byte
	}{
		{"Ethernet", LinkEthernet, ether(etherIPv4, ip)},
		{"Ethernet, padded", LinkEthernet, cat(ether(etherIPv4, ip), make([]byte, 20))},
		{"IPv6", LinkEthernet, ether(etherIPv6, v6)},
		{"VLAN", LinkEthernet, ether(etherVLAN, cat([]byte{0, 5, 8, 0}, ip))},
		{"QinQ", LinkEthernet, ether(etherQinQ, cat([]byte{0, 5, 0x81, 0, 0, 6, 8, 0}, ip))},
		{"MPLS", LinkEthernet, ether(etherMPLS, cat([]byte{0, 0, 0, 64, 0, 0, 1, 64}, ip))},
		{"PPPoE", LinkEthernet, ether(etherPPPoE, cat([]byte{0x11, 0, 0, 1, 0, 0, 0, 0x21}, ip))},
		{"FabricPath", LinkEthernet, cat(ether(etherPath, []byte{0, 1}), ether(etherIPv4, ip))},
		{"PBB", LinkEthernet, ether(etherPBB, cat([]byte{0, 0, 0, 1}, ether(etherIPv4, ip)))},
		{"VN-Tag", LinkEthernet, ether(etherVNTag, cat([]byte{0, 0, 0, 1, 8, 0}, ip))},
		{"VN-Tag and VLAN", LinkEthernet, ether(etherVNTag, cat([]byte{0, 0, 0, 1, 0x81, 0, 0, 5, 8, 0}, ip))},
		{"SNAP", LinkEthernet, ether(uint16(8+len(ip)), cat([]byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0}, ip))},
		{"raw", LinkRaw, ip},
		{"raw IPv6", LinkIPv6, v6},
		{"null", LinkNull, cat([]byte{2, 0, 0, 0}, ip)},
		{"null, other byte order", LinkNull, cat([]byte{0, 0, 0, 2}, ip)},
		{"null, IPv6 on macOS", LinkNull, cat([]byte{30, 0, 0, 0}, v6)},
		{"SLL", LinkSLL, cat(sll, ip)},
		{"SLL2", LinkSLL2, cat(sll2, ip)},
		{"PPP", LinkPPP, cat([]byte{0xff, 3, 0, 0x21}, ip)},
		{"PPP, compressed", LinkPPP, cat([]byte{0x21}, ip)},
		{"HDLC", LinkPPPHDLC, cat([]byte{0x0f, 0, 8, 0}, ip)},
		{"NFLOG", LinkNFLOG, cat([]byte{2, 0, 0, 0, 8, 0, 1, 0, 9, 9, 9, 9, byte(4 + len(ip)), 0, 9, 0}, ip)},
		{"Wi-Fi", LinkWiFi, cat([]byte{0x08, 0x01}, make([]byte, 22), []byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0}, ip)},
		{"radiotap", LinkRadiotap, cat([]byte{0, 0, 8, 0, 0, 0, 0, 0, 0x88, 0x01}, make([]byte, 24), []byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0}, ip)},
		{"IP in IP", LinkRaw, ip4(netip.MustParseAddr("203.0.113.1"), server, 4, ip)},
		{"IPv6 in IPv4", LinkRaw, ip4(client, server, 41, v6)},
		{"GRE", LinkRaw, gre([]byte{0, 0, 8, 0}, ip)},
		{"GRE with key and sequence", LinkRaw, gre([]byte{0x30, 0, 8, 0, 1, 2, 3, 4, 0, 0, 0, 1}, ip)},
		{"GRE, Ethernet", LinkRaw, gre([]byte{0, 0, 0x65, 0x58}, ether(etherIPv4, ip))},
		{"ERSPAN", LinkRaw, gre([]byte{0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1}, ether(etherIPv4, ip))},
		{"PPTP", LinkRaw, gre([]byte{0x30, 1, 0x88, 0x0b, 0, 1, 0, 1, 0, 0, 0, 1, 0xff, 3, 0, 0x21}, ip)},
		{"VXLAN", LinkRaw, udp(client, server, 50000, 4789, string(cat([]byte{8, 0, 0, 0, 0, 0, 1, 0}, ether(etherIPv4, ip))))},
		{"Geneve", LinkRaw, udp(client, server, 50000, 6081, string(cat([]byte{0, 0, 0x65, 0x58, 0, 0, 1, 0}, ether(etherIPv4, ip))))},
		{"GTP", LinkRaw, udp(client, server, 2152, 2152, string(cat([]byte{0x30, 0xff, 0, byte(len(ip)), 0, 0, 0, 1}, ip)))},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(Options{})
			b.Feed(Packet{t0, c.data, len(c.data), c.link})
			b.End()
			found := 0
			for _, f := range b.of(flow.Conn) {
				if f.SrcPort == 40000 && f.DstPort == 9999 && f.OrigPkts == 1 {
					found++
				}
			}
			if found != 1 {
				t.Fatalf("found %d times in %d records, %v", found, len(b.got), b.stats.Reasons())
			}
			for n := range c.data { // cut anywhere it does no harm
				b.Feed(Packet{t0, c.data[:n], n, c.link})
				b.Feed(Packet{t0, c.data[:n], len(c.data), c.link})
			}
		})
	}
}

// TestARP has a request and a reply.
func TestARP(t *testing.T) {
	b := newBench(Options{})
	msg := []byte{0, 1, 8, 0, 6, 4, 0, 1, 0, 0, 0x5e, 0, 0x53, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 9}
	f := ether(etherARP, msg)
	b.Feed(Packet{t0, f, len(f), LinkEthernet})
	f = bytes.Clone(f)
	f[21] = 2
	b.Feed(Packet{t0 + 1, f, len(f), LinkEthernet})
	f = bytes.Clone(f)
	f[21] = 9
	b.Feed(Packet{t0 + 2, f, len(f), LinkEthernet})
	got := b.of(flow.ARP)
	if len(got) != 2 || got[0].ARP.Operation != "request" || got[1].ARP.Operation != "reply" ||
		got[0].Src != client || got[0].Dst.String() != "10.0.0.9" || got[0].SrcMAC != "00:00:5e:00:53:01" ||
		got[0].ARP.SenderHW != "00:00:5e:00:53:01" || got[0].ARP.TargetHW != "" || b.Stats().Counts[BadARP] != 1 {
		t.Errorf("%d records: %+v", len(got), got)
	}
}

// TestTunnelRecord has one record for each tunnel in which a connection
// begins, and one for the end of those that are connections themselves.
func TestTunnelRecord(t *testing.T) {
	inside := udp(netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2"), 1, 2, "x")
	for _, c := range []struct {
		name    string
		packets [][]byte
		want    []string
	}{
		{"GRE", [][]byte{ip4(client, server, 47, append([]byte{0, 0, 8, 0}, inside...))}, []string{"GRE DISCOVER 10.0.0.1:0 > 192.0.2.80:0"}},
		{"GRE, the other way", [][]byte{
			ip4(client, server, 47, append([]byte{0, 0, 8, 0}, inside...)), ip4(server, client, 47, append([]byte{0, 0, 8, 0}, inside...)),
		}, []string{"GRE DISCOVER 10.0.0.1:0 > 192.0.2.80:0"}},
		{"VXLAN, the answer comes first", [][]byte{
			udp(server, client, 4789, 40000, "\x08\x00\x00\x00\x00\x00\x01\x00x"),
			udp(client, server, 40000, 4789, "\x08\x00\x00\x00\x00\x00\x01\x00"+string(ether(etherIPv4, inside))),
		}, []string{"VXLAN DISCOVER 10.0.0.1:40000 > 192.0.2.80:4789", "VXLAN CLOSE 10.0.0.1:40000 > 192.0.2.80:4789"}},
		{"each side sends through its own", [][]byte{
			ip4(client, server, 47, append([]byte{0, 0, 8, 0}, inside...)),
			ip4(netip.MustParseAddr("10.8.0.1"), netip.MustParseAddr("10.8.0.2"), 4, udp(netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("10.9.0.1"), 2, 1, "y")),
		}, []string{"GRE DISCOVER 10.0.0.1:0 > 192.0.2.80:0", "IP DISCOVER 10.8.0.1:0 > 10.8.0.2:0"}},
		{"nothing begins in it", [][]byte{ip4(client, server, 47, append([]byte{0, 0, 8, 6}, make([]byte, 28)...))}, nil},
		{"one in the other", [][]byte{
			ip4(client, server, 47, append([]byte{0, 0, 8, 0}, ip4(netip.MustParseAddr("10.8.0.1"), client, 4, inside)...)),
		}, []string{"GRE DISCOVER 10.0.0.1:0 > 192.0.2.80:0", "IP DISCOVER 10.8.0.1:0 > 10.0.0.1:0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(Options{})
			for range 5 {
				for _, p := range c.packets {
					b.step(1, p)
				}
			}
			b.End()
			var got []string
			uids := make(map[string]string)
			for _, f := range b.of(flow.Tunnel) {
				kind := strings.TrimPrefix(f.Tunnel.Type, "Tunnel::")
				got = append(got, fmt.Sprintf("%s %s %v:%d > %v:%d", kind, strings.TrimPrefix(f.Tunnel.Action, "Tunnel::"), f.Src, f.SrcPort, f.Dst, f.DstPort))
				if u := uids[kind]; u != "" && u != f.UID || len(f.UID) != uidLen {
					t.Errorf("uid %q behind %q", f.UID, u)
				}
				uids[kind] = f.UID
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}

	deep := udp(client, server, 40000, 9999, "x")
	for range maxDepth + 2 {
		deep = ip4(client, server, 4, deep)
	}
	b := newBench(Options{})
	b.raw(deep)
	if n := b.Stats().Counts[DeepTunnel]; n != 1 {
		t.Errorf("%d tunnels were too deep, want 1", n)
	}
}

// TestFTPData has a data connection that the control connection announced.
func TestFTPData(t *testing.T) {
	b := newBench(Options{})
	newTalk(b, 40000, 21).say(">S", "<SA", ">A", "<PA:220 ready\r\n", ">PA:USER anonymous\r\n", "<PA:331 password\r\n",
		">PA:PASS x@\r\n", "<PA:230 in\r\n", ">PA:PASV\r\n", "<PA:227 Entering Passive Mode (192,0,2,80,200,0)\r\n")
	newTalk(b, 40001, 200<<8).say(">S", "<SA", ">A", "<PA:secret data", "<FA", ">FA", "<A")
	b.End()
	var services []string
	for _, f := range b.of(flow.Conn) {
		services = append(services, f.Service)
	}
	if d := cmp.Diff([]string{"ftp", "ftp-data"}, services); d != "" {
		t.Error(d)
	}
}

// TestFTPAnnounced has what a control connection announces and is none of FTP's
// data: it is looked into like any other, and between other hosts it is not of
// FTP at all.
func TestFTPAnnounced(t *testing.T) {
	const get, ok = ">PA:GET /evil HTTP/1.1\r\nHost: c2\r\n\r\n", "<PA:HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	third := netip.MustParseAddr("10.0.0.3")
	for _, c := range []struct {
		name     string
		announce string
		from, to netip.Addr
		port     uint16
		script   []string
		service  string
		requests int
	}{
		{"data to the client", ">PA:PORT 10,0,0,1,200,0\r\n", server, client, 200 << 8, []string{">PA:some data"}, "ftp-data", 0},
		{"HTTP to the server", ">PA:PORT 192,0,2,80,0,80\r\n", client, server, 80, []string{get, ok}, "http", 1},
		{"HTTP to the client", ">PA:PORT 10,0,0,1,200,0\r\n", server, client, 200 << 8, []string{get, ok}, "http", 1},
		{"from the client, not the server", ">PA:PORT 10,0,0,1,200,0\r\n", third, client, 200 << 8, []string{">PA:some data"}, "", 0},
		{"to a third host", ">PA:PORT 10,0,0,3,0,80\r\n", client, third, 80, []string{get, ok}, "http", 1},
		{"another port", ">PA:PORT 10,0,0,1,200,0\r\n", server, client, 200<<8 + 1, []string{">PA:some data"}, "", 0},
		{"the client's SYN was not captured", ">PA:PORT 10,0,0,1,200,0\r\n", server, client, 200 << 8, []string{"<PA:x", ">PA:some data"}, "ftp-data", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(Options{})
			newTalk(b, 40000, 21).say(">S", "<SA", ">A", "<PA:220 ready\r\n", ">PA:USER x\r\n", "<PA:331 password\r\n", c.announce)
			x := newTalk(b, 20, c.port)
			x.from, x.to = c.from, c.to
			open := []string{">S", "<SA", ">A"}
			if c.script[0][0] == '<' {
				open[0] = "!>S"
			}
			x.say(append(open, c.script...)...)
			b.End()
			for _, f := range b.of(flow.Conn) {
				if f.DstPort == c.port && f.Service != c.service {
					t.Errorf("service %q, want %q", f.Service, c.service)
				}
			}
			if n := len(b.of(flow.HTTP)); n != c.requests {
				t.Errorf("%d requests, want %d", n, c.requests)
			}
		})
	}
}

// TestMaxExpected bounds what FTP announces, counts the rest, and has room
// again when its time is over.
func TestMaxExpected(t *testing.T) {
	b := newBench(Options{})
	c := newTalk(b, 40000, 21).say(">S", "<SA", ">A", "<PA:220 ready\r\n", ">PA:USER x\r\n", "<PA:331 password\r\n")
	ports := func(n int) {
		for i := range n {
			c.say(fmt.Sprintf(">PA:PORT 10,0,0,1,%d,%d\r\n", 100+i/256, i%256), "<PA:200 noted\r\n")
		}
	}
	ports(maxExpected + 10)
	if n := b.Stats().Counts[NotExpected]; n != 10 || len(b.expects) != maxExpected {
		t.Errorf("%d were dropped, want 10; %d are kept", n, len(b.expects))
	}
	ports(10) // once more, which takes no room
	b.now += expectFor
	ports(maxExpected)
	if n := b.Stats().Counts[NotExpected]; n != 10 || len(b.expects) != maxExpected {
		t.Errorf("%d were dropped, want 10 as before; %d are kept", n, len(b.expects))
	}
}

// TestMaxTunnels forgets the tunnel that was seen longest ago, those in which
// nothing begins first.
func TestMaxTunnels(t *testing.T) {
	b := newBench(Options{})
	end := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}) }
	used := func(i int) { // a connection begins in it
		b.step(1, ip4(end(i), server, 4, udp(client, server, uint16(b.now/1e6), 9999, "x")))
	}
	empty := func(i int) { b.step(1, ip4(end(i), server, 47, append([]byte{0, 0, 8, 6}, make([]byte, 28)...))) }
	ended := func() (src []netip.Addr) {
		for _, f := range b.of(flow.Tunnel) {
			if f.Tunnel.Action == "Tunnel::EXPIRE" {
				src = append(src, f.Src)
			}
		}
		return src
	}
	for i := range maxTunnels / 2 {
		used(i)
	}
	for i := range 10 * maxTunnels {
		empty(10000 + i)
	}
	if got := ended(); len(got) != 0 || len(b.tunnels.m) != maxTunnels {
		t.Errorf("empty tunnels drove out %d; there are %d", len(got), len(b.tunnels.m))
	}
	for i := range maxTunnels / 2 {
		used(maxTunnels/2 + i)
	}
	used(0) // the next that was seen longest ago
	used(2000)
	used(2001)
	if d := cmp.Diff([]netip.Addr{end(1), end(2)}, ended(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Error(d)
	}
	// Both of one packet are new, or the outer one is the next to go.
	for i := range 3 * maxTunnels {
		b.step(1, ip4(end(3000+i), server, 4, ip4(end(9000+i), server, 4, udp(client, server, uint16(i), 9999, "x"))))
		check(t, b.Meter)
	}
}

// TestChecksums counts what is wrong only when asked to.
func TestChecksums(t *testing.T) {
	p := tcp(raw{src: client, dst: server, sport: 1, dport: 80, flags: "S"})
	p[36] ^= 0xff
	u := udp(client, server, 1, 2, "x")
	u[26] ^= 0xff
	for _, check := range []bool{false, true} {
		b := newBench(Options{Checksums: check})
		b.raw(p)
		b.raw(u)
		b.raw(icmp(client, server, 8, 0, "x"))
		b.End()
		var h []string
		for _, f := range b.of(flow.Conn) {
			h = append(h, f.History)
		}
		want := []string{"S", "D", ""}
		if check {
			want = []string{"C", "C", ""}
		}
		if d := cmp.Diff(want, h); d != "" {
			t.Errorf("checked %v: %s", check, d)
		}
	}
}

// TestBad counts bad packets by their reasons.
func TestBad(t *testing.T) {
	good := udp(client, server, 1, 2, "hello")
	change := func(at int, v byte) []byte {
		b := bytes.Clone(good)
		b[at] = v
		return b
	}
	for _, c := range []struct {
		reason Reason
		p      Packet
	}{
		{UnknownLink, Packet{t0, good, len(good), 9999}},
		{ShortFrame, Packet{t0, good[:5], 5, LinkEthernet}},
		{NotIP, Packet{t0, ether(0x88cc, good), 60, LinkEthernet}},
		{ShortIP, Packet{t0, good[:10], 10, LinkRaw}},
		{BadIPVersion, Packet{t0, change(0, 0x55), len(good), LinkRaw}},
		{BadIPHeader, Packet{t0, change(0, 0x42), len(good), LinkRaw}},
		{BeyondFrame, Packet{t0, good[:22], 22, LinkRaw}},
		{ShortTransport, Packet{t0, good[:22], len(good), LinkRaw}},
		{BadTime, Packet{-1, good, len(good), LinkRaw}},
		{BadTime, Packet{flow.MaxTime + 1, good, len(good), LinkRaw}},
		{BadTunnel, Packet{t0, ip4(client, server, 4, []byte("nothing of this is an IP header")), 51, LinkRaw}},
		{Encrypted, Packet{t0, ip6(netip.IPv6Loopback(), netip.IPv6Loopback(), 50, make([]byte, 20)), 60, LinkRaw}},
		{Mobility, Packet{t0, ip6(netip.IPv6Loopback(), netip.IPv6Loopback(), 59, nil), 40, LinkRaw}},
	} {
		b := newBench(Options{})
		b.Feed(c.p)
		b.End()
		if s := b.Stats(); s.Counts[c.reason] != 1 || len(s.Reasons()) != 1 || len(b.got) != 0 {
			t.Errorf("%s: %v, %d records", c.reason, s.Reasons(), len(b.got))
		}
	}
}

// TestReasons has a text for each reason and what the analyzers count; packets
// that nobody wants are no loss.
func TestReasons(t *testing.T) {
	texts := make(map[string]bool)
	var all Stats
	for r := range numReasons {
		all.Counts[r] = 1
		texts[r.String()] = true
	}
	all.Filtered, all.Proto.Undecrypted, all.Proto.LongHandshakes = 7, 2, 3
	got, remarks := all.Reasons(), all.Remarks()
	if len(texts) != int(numReasons) || texts[""] || len(got)+len(remarks) != int(numReasons)+2 || len(remarks) != 2 || got["QUIC packets not decrypted"] != 2 || got["handshakes too long"] != 3 {
		t.Errorf("%d texts, %v, %v", len(texts), got, remarks)
	}
	b := newBench(Options{Keep: func(Packet) bool { return false }})
	b.raw(udp(client, server, 1, 2, "x"))
	if s := b.Stats(); s.Filtered != 1 || len(s.Reasons()) != 0 {
		t.Errorf("%d filtered, %v", s.Filtered, s.Reasons())
	}
	b = newBench(Options{})
	b.raw(udp(client, server, 68, 67, "no DHCP"))
	b.raw(tcp(raw{src: client, dst: server, sport: 1, dport: 80, flags: "S", seq: 4}))
	b.raw(tcp(raw{src: client, dst: server, sport: 1, dport: 80, flags: "PA", seq: 5, data: "GET / HTTP/1.1\r\n" + strings.Repeat("x", 1<<16-100)[:40000]}))
	if d := cmp.Diff(map[string]int64{"messages malformed": 1, "lines of text cut": 1}, b.Stats().Reasons()); d != "" {
		t.Error(d)
	}
}

// TestTimeGoesBack counts it, and follows when it goes far.
func TestTimeGoesBack(t *testing.T) {
	b := newBench(Options{})
	newTalk(b, 1, 80).say(">S", "<SA", ">A")
	b.step(-2000, udp(client, server, 1, 2, "x"))
	if b.clock != t0+3e6 || b.Stats().Counts[TimeWentBack] != 1 {
		t.Errorf("clock %d, %v", b.clock-t0, b.Stats().Reasons())
	}
	b.step(-3600_000, udp(client, server, 3, 4, "x"))
	if b.told(b.clock) != b.now || b.clock != t0+3e6 {
		t.Error("the clock did not go on from the new time")
	}
	b.End()
	for _, f := range b.got {
		if f.Duration < 0 || f.Time < 0 {
			t.Errorf("%+v", f)
		}
	}
}

// TestFlood keeps the established connection when a flood of forged sources
// fills the table.
func TestFlood(t *testing.T) {
	const room = 1000
	b := newBench(Options{MaxConns: room})
	mine := newTalk(b, 40000, 443).say(">S", "<SA", ">A")
	for i := range 20 * room {
		a := netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)})
		b.now++
		b.raw(tcp(raw{src: a, dst: server, sport: uint16(i), dport: 80, flags: "S", seq: uint32(i)}))
	}
	mine.say(">FA", "<FA", ">A")
	b.End()
	s := b.Stats()
	if s.Peak > room || s.Counts[EarlyEviction] < 18*room {
		t.Errorf("peak %d, %d evicted", s.Peak, s.Counts[EarlyEviction])
	}
	states := make(map[string]int)
	for _, f := range b.of(flow.Conn) {
		states[f.RawState]++
	}
	if d := cmp.Diff(map[string]int{"SF": 1, "S0": 20 * room}, states); d != "" {
		t.Error(d)
	}
}

// TestBuffers bounds what streams with holes hold.
func TestBuffers(t *testing.T) {
	const room = 50_000
	b := newBench(Options{MaxBuffered: room})
	for p := range uint16(100) {
		c := newTalk(b, 1000+p, 80).say(">S", "<SA", ">A", ">PA:G", "<A", "!>PA:gap")
		for range 10 {
			c.say(">PA:" + strings.Repeat("x", 1000))
		}
		if s := b.Stats(); s.Buffered > room {
			t.Fatalf("%d bytes held", s.Buffered)
		}
	}
	if s := b.Stats(); s.Counts[StreamOverflow] == 0 || s.Buffered < room/2 {
		t.Errorf("%d bytes held, %v", s.Buffered, s.Reasons())
	}
	b.End()
	if s := b.Stats(); s.Buffered != 0 || s.Active != 0 {
		t.Errorf("left behind: %+v", s)
	}

	b = newBench(Options{}) // one stream with very many holes
	c := newTalk(b, 1, 80).say(">S", "<SA", ">A", ">PA:G", "<A")
	for i := range 5 * maxHoles {
		c.seq[0] += uint32(i % 3) // every third segment follows the one before
		c.say(">PA:y")
		for _, x := range b.conns {
			if n := len(x.tcp.end[0].stream.blocks); n > maxHoles {
				t.Fatalf("%d blocks", n)
			}
		}
	}
	b.End()
}

// TestMaxAnalyzed bounds the analyzers, and has room again once some ended.
func TestMaxAnalyzed(t *testing.T) {
	b := newBench(Options{MaxAnalyzed: 10})
	for p := range uint16(15) {
		newTalk(b, 1000+p, 80).say(">S", "<SA", ">A", ">PA:GET /")
	}
	if n := b.Stats().Counts[NotAnalyzed]; n != 5 || b.proto.n != 10 {
		t.Errorf("%d not analysed, %d are", n, b.proto.n)
	}
	b.End()
	newTalk(b, 2000, 80).say(">S", "<SA", ">A", ">PA:GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	b.End()
	if b.proto.n != 0 || len(b.of(flow.HTTP)) == 0 {
		t.Errorf("%d analyzers are left, %d records of HTTP", b.proto.n, len(b.of(flow.HTTP)))
	}
}

// TestNested has Ethernet in MPLS in Ethernet in MPLS, on and on.
func TestNested(t *testing.T) {
	p := udp(client, server, 1, 2, "x")
	for range 1000 {
		p = ether(etherMPLS, append([]byte{0, 0, 1, 64, 0, 0, 0, 0}, p...))
	}
	b := newBench(Options{})
	b.Feed(Packet{t0, p, len(p), LinkEthernet})
	if s := b.Stats(); s.Counts[ShortFrame] != 1 || s.Conns != 0 {
		t.Errorf("%v", s.Reasons())
	}
}

// TestSame has the same records from the same packets, whatever the order of
// maps.
func TestSame(t *testing.T) {
	run := func() string {
		var out strings.Builder
		m := New(Options{MaxConns: 300, Emit: func(f *flow.Flow) {
			fmt.Fprintf(&out, "%v %d %v:%d>%v:%d %s %s %s %d\n", f.Kind, f.Time, f.Src, f.SrcPort, f.Dst, f.DstPort, f.UID, f.RawState, f.History, f.Duration)
		}})
		r := rand.New(rand.NewPCG(3, 4))
		now := t0
		for range 20000 {
			now += r.Int64N(100e6)
			p := raw{client, server, uint16(r.IntN(500)), uint16(r.IntN(3)), []string{"S", "SA", "A", "PA", "FA", "R"}[r.IntN(6)], uint32(r.IntN(50)), uint32(r.IntN(50)), strings.Repeat("x", r.IntN(9)), 0}
			if r.IntN(2) == 0 {
				p.src, p.dst, p.sport, p.dport = p.dst, p.src, p.dport, p.sport
			}
			b := tcp(p)
			m.Feed(Packet{now, b, len(b), LinkRaw})
		}
		m.End()
		return out.String()
	}
	a, b := run(), run()
	if a != b || strings.Count(a, "\n") < 1000 {
		t.Errorf("two runs differ, or are empty: %d and %d bytes", len(a), len(b))
	}
}

// TestOwned checks that the record's text stays the record's.
func TestOwned(t *testing.T) {
	batch := flow.NewBatch(nil)
	m := New(Options{Next: func(flow.Kind) *flow.Flow { return batch.Next() }})
	for i := range uint16(100) {
		p := ether(etherIPv4, udp(client, server, 1000+i, 9999, "x"))
		m.Feed(Packet{t0 + int64(i), p, len(p), LinkEthernet})
		clear(p)
	}
	m.End()
	seen := make(map[string]bool)
	for i := range batch.Flows {
		f := &batch.Flows[i]
		if f.SrcPort != 1000+uint16(i) || f.SrcMAC != "00:00:5e:00:53:01" || f.History != "D" || seen[f.UID] {
			t.Fatalf("record %d: %+v", i, f)
		}
		seen[f.UID] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d records", len(seen))
	}
}

// TestServices names services over UDP, some of which show in a later datagram
// only.
func TestServices(t *testing.T) {
	hello := "\xfe\xfd" + strings.Repeat("r", 32) + "\x00\x00\x00\x02\xc0\x2f\x01\x00"
	dtls := "\x16\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x36\x01\x00\x00\x2a\x00\x00\x00\x00\x00\x00\x00\x2a" + hello
	for _, c := range []struct {
		name string
		port uint16
		said []string
		want string
	}{
		{"SNMP", 161, []string{"\x30\x0b\x02\x01\x01\x04\x06public"}, "snmp"},
		{"SNMP's port, other bytes", 161, []string{"hello, world"}, ""},
		{"Kerberos", 88, []string{"\x6a\x10\x30\x0e\xa1\x03\x02\x01\x05\xa2\x03\x02\x01\x0a"}, "krb"},
		{"SIP", 5060, []string{"REGISTER sip:a SIP/2.0\r\n"}, "sip"},
		{"RADIUS", 1812, []string{"\x01\x01\x00\x14" + strings.Repeat("x", 16)}, "radius"},
		{"syslog", 514, []string{"<34>hello"}, "syslog"},
		{"NTP", 123, []string{"\x23" + strings.Repeat("x", 47)}, "ntp"},
		{"DTLS behind STUN", 43044, []string{"\x00\x01\x00\x00\x21\x12\xa4\x42" + strings.Repeat("x", 12), dtls}, "dtls"},
		{"DTLS too late", 43044, append(slices.Repeat([]string{"hello"}, maxLooks), dtls), ""},
		{"nothing", 9999, []string{"hello"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(Options{})
			for _, d := range c.said {
				b.step(1, udp(client, server, 40000, c.port, d))
			}
			if f := b.one(t); f.Service != c.want {
				t.Errorf("service %q, want %q", f.Service, c.want)
			}
		})
	}
}
