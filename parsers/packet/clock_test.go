package packet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/parsers/flow"
)

// lease returns a DHCP message: a request, or a server's answer to it.
func lease(id uint32, answer bool) []byte {
	b := make([]byte, 240)
	b[0], b[1], b[2] = 1, 1, 6
	binary.BigEndian.PutUint32(b[4:], id)
	copy(b[236:], "\x63\x82\x53\x63")
	if !answer {
		return udp(netip.IPv4Unspecified(), netip.MustParseAddr("255.255.255.255"), 68, 67, string(b)+"\x35\x01\x03\xff")
	}
	b[0] = 2
	copy(b[16:], client.AsSlice())
	return udp(server, client, 67, 68, string(b)+"\x35\x01\x05\xff")
}

// idle lets time pass as a live source does it.
func (b *bench) idle(d time.Duration) {
	for end := b.now + int64(d); b.now < end; b.now += second / 10 {
		b.Advance(b.now)
	}
}

// TestStepBack sets the clock of the host back by two hours: what was open goes
// on and what is new is told as before, with the times that the clock showed.
func TestStepBack(t *testing.T) {
	b := newBench(Options{})
	fragment := func(id byte) []byte { // the first of a datagram
		p := udp(client, server, 1, 2, "12345678")
		p[5], p[6] = id, 0x20
		return p
	}
	web := newTalk(b, 40000, 80).say(">S", "<SA", ">A", ">PA:GET /1 HTTP/1.1\r\n\r\n")
	began := t0 + 1e6
	b.step(1, fragment(1))
	b.step(1, lease(1, false))
	b.step(1, lease(1, true))
	b.idle(time.Second)
	set := b.now - 7200*second
	b.now = set
	b.idle(time.Second)

	web.say("<PA:HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ">PA:GET /2 HTTP/1.1\r\n\r\n", ">FA", "<FA")
	b.idle(20 * time.Second)
	conns := b.of(flow.Conn)
	if len(conns) != 1 || conns[0].Time != began || conns[0].Duration < second || conns[0].Duration > 3*second || conns[0].OrigBytes != 38 || conns[0].RawState != "SF" {
		t.Errorf("%d connections were open: %+v", len(conns), *conns[0])
	}
	var told []string
	for _, f := range b.of(flow.HTTP) {
		told = append(told, fmt.Sprintf("%s %d %v", f.HTTP.URI, f.HTTP.StatusCode, f.Time < set+60*second))
	}
	if d := cmp.Diff([]string{"/1 200 false", "/2 0 true"}, told); d != "" {
		t.Error("requests before and behind the step: ", d)
	}
	if got := b.of(flow.DHCP); len(got) != 1 || got[0].Time < t0 || got[0].DHCP.Server != server {
		t.Errorf("%d exchanges that were open", len(got))
	}
	b.idle(2 * time.Minute)
	if n := b.Stats().Counts[LostFragments]; n != 1 {
		t.Errorf("%d datagrams were given up, want 1", n)
	}
	for i := range uint32(20) {
		at := b.now
		b.raw(lease(100+i, false))
		b.step(1, lease(100+i, true))
		b.step(1, udp(client, server, 5000+uint16(i), 53, "x"))
		b.idle(time.Minute)
		got, q := b.of(flow.DHCP), b.of(flow.Conn)
		if len(got) != 2+int(i) || got[1+i].Time != at {
			t.Fatalf("%d exchanges behind the step, want %d", len(got)-1, i+1)
		}
		if last := q[len(q)-1]; last.SrcPort != 5000+uint16(i) || last.Time != at+2e6 {
			t.Fatalf("connection %d behind the step was not told", i)
		}
	}
	if n := b.Stats().Counts[TimeWentBack]; n != 1 {
		t.Errorf("time went back %d times, want once", n)
	}
}

// TestStepForward lets the clock leap by six hours, as behind a suspend: each
// connection and exchange is told, and what is lost is counted.
func TestStepForward(t *testing.T) {
	b := newBench(Options{})
	newTalk(b, 40000, 80).say(">S", "<SA", ">A", ">PA:GET / HTTP/1.1\r\n\r\n")
	b.step(1, lease(1, false))
	p := udp(client, server, 1, 2, "12345678")
	p[6] = 0x20
	b.step(1, p)
	before := b.now
	b.now += 6 * 3600 * second
	b.Advance(b.now)
	s := b.Stats()
	if s.Active != 0 || len(b.of(flow.Conn)) != 2 || len(b.of(flow.HTTP)) != 1 || len(b.of(flow.DHCP)) != 1 || s.Counts[LostFragments] != 1 {
		t.Errorf("%d are open, %d records, %v", s.Active, len(b.got), s.Reasons())
	}
	for _, f := range b.got {
		if f.Time+f.Duration > before {
			t.Errorf("%v at %d for %d", f.Kind, f.Time-t0, f.Duration)
		}
	}
	b.step(1, lease(2, false))
	b.idle(20 * time.Second)
	if n := len(b.of(flow.DHCP)); n != 2 {
		t.Errorf("%d exchanges, want another one", n)
	}
}

// TestTwoClocks has packets by turns of two clocks a year apart: connections
// neither end nor go on for ever by that.
func TestTwoClocks(t *testing.T) {
	const year = 365 * 24 * 3600 * second
	b := newBench(Options{})
	other := &bench{Meter: b.Meter, now: t0 - year}
	one, two := newTalk(b, 40000, 80), newTalk(other, 40001, 80)
	one.say(">S", "<SA", ">A")
	two.say(">S", "<SA", ">A")
	for range 100 {
		one.say(">PA:x")
		two.say(">PA:x")
	}
	if s := b.Stats(); s.Active != 2 || len(b.got) != 0 {
		t.Fatalf("%d connections, want 2; %d records", s.Active, len(b.got))
	}
	b.Advance(other.now + 400*second) // the second clock goes on alone
	if len(b.got) != 2 || b.got[0].Time != t0+1e6 || b.got[1].Time != t0-year+1e6 {
		t.Errorf("%d connections ended", len(b.got))
	}
}

// TestFarBack goes to and fro by more than the clock can hold.
func TestFarBack(t *testing.T) {
	b := newBench(Options{})
	feed := func(at int64, port uint16) {
		b.now = at
		b.raw(udp(client, server, port, 9999, "x"))
		if b.clock < at || b.clock > flow.MaxTime+maxAhead {
			t.Fatalf("clock %d at %d", b.clock, at)
		}
	}
	for i := range uint16(50) { // each round may gain years
		feed(t0, i)
		feed(t0-int64(i%7)*5*365*24*3600*second, i+100)
		feed(flow.MinTime, i+200)
	}
	feed(flow.MaxTime, 1000)
	feed(flow.MinTime, 1001)
	b.End()
	if n := len(b.of(flow.Conn)); n != 152 {
		t.Errorf("%d connections, want 152", n)
	}
	for _, f := range b.got {
		if f.Time < flow.MinTime || f.Time > flow.MaxTime || f.Duration < 0 {
			t.Errorf("%d for %d", f.Time, f.Duration)
		}
	}
}
