package packet

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/slips-go/slips/parsers/flow"
)

// check holds what must be true of a Meter at any time.
func check(t *testing.T, m *Meter) {
	t.Helper()
	if n := len(m.conns); n != len(m.due) || n != m.all.lone.n+m.all.both.n || n > m.opts.MaxConns {
		t.Fatalf("%d connections, %d timers, %d and %d in lists, room for %d", n, len(m.due), m.all.lone.n, m.all.both.n, m.opts.MaxConns)
	}
	held, holders, analyzed := 0, 0, 0
	for _, c := range m.conns {
		if c.held > 0 {
			holders++
		}
		mine := c.weight
		if c.analyzer != nil {
			if analyzed++; c.weight != c.analyzer.Held() {
				t.Fatalf("an analyzer of %d bytes counts as %d", c.analyzer.Held(), c.weight)
			}
		}
		held += c.held
		if c.tcp == nil {
			continue
		}
		for i := range c.tcp.end {
			at := c.tcp.end[i].stream.next
			mine += blockSize * cap(c.tcp.end[i].stream.blocks)
			for _, b := range c.tcp.end[i].stream.blocks {
				if b.at <= at || b.end <= b.at || b.data != nil && int64(len(b.data)) != b.end-b.at {
					t.Fatalf("block %d..%d with %d bytes behind %d", b.at, b.end, len(b.data), at)
				}
				at = b.end - 1
				mine += cap(b.data)
			}
		}
		if mine != c.held {
			t.Fatalf("a connection holds %d bytes, %d counted", mine, c.held)
		}
	}
	if holders != m.holders.lone.n+m.holders.both.n || analyzed != m.proto.n || analyzed > m.opts.MaxAnalyzed {
		t.Fatalf("%d hold something, %d and %d in lists; %d are analysed, %d counted", holders, m.holders.lone.n, m.holders.both.n, analyzed, m.proto.n)
	}
	rings := 0
	for _, ring := range []*tunnel{m.tunnels.empty, m.tunnels.used} {
		for x := ring.next; x != ring; x = x.next {
			if rings++; m.tunnels.m[pairOf(x.from, x.to)] != x || x.prev.next != x || (x.last != 0) != (ring == m.tunnels.used) {
				t.Fatalf("tunnel %+v is out of place", x)
			}
		}
	}
	if rings != len(m.tunnels.m) || rings > maxTunnels {
		t.Fatalf("%d tunnels in rings, %d in the map", rings, len(m.tunnels.m))
	}
	if held != m.held || held > m.opts.MaxBuffered || m.frags.bytes > maxFragBytes {
		t.Fatalf("%d bytes held, %d counted, %d of fragments", held, m.held, m.frags.bytes)
	}
}

// checkFlow holds what must be true of a record.
func checkFlow(t *testing.T, f *flow.Flow) {
	t.Helper()
	if f.Duration < 0 || f.OrigBytes < 0 || f.RespBytes < 0 || f.OrigPkts < 0 || f.MissedBytes < 0 || len(f.History) > maxHistory {
		t.Fatalf("%+v", f)
	}
	if f.Kind == flow.Conn && (!f.Src.IsValid() || len(f.UID) != uidLen || f.RawState == "") {
		t.Fatalf("%+v", f)
	}
}

// FuzzFrames feeds frames of all link types: data is a run of frames, each
// behind two bytes of length, one of time, one that cuts it short.
func FuzzFrames(f *testing.F) {
	run := func(frames ...[]byte) []byte {
		var b []byte
		for i, p := range frames {
			b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
			b = append(b, byte(i), 0)
			b = append(b, p...)
		}
		return b
	}
	request := raw{client, server, 40000, 80, "PA", 1, 1, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0}
	f.Add(uint32(LinkRaw), run(tcp(raw{src: client, dst: server, sport: 40000, dport: 80, flags: "S"}), tcp(request), icmp(client, server, 8, 0, "x")))
	f.Add(uint32(LinkEthernet), run(ether(etherVLAN, append([]byte{0, 1, 8, 0}, udp(client, server, 40000, 53, "x")...)), ether(etherARP, make([]byte, 28))))
	f.Add(uint32(LinkRaw), run(ip4(client, server, 47, append([]byte{0, 0, 8, 0}, tcp(request)...))))
	f.Add(uint32(LinkRaw), run(lease(1, false), lease(1, true)))
	f.Add(uint32(LinkNull), run(append([]byte{2, 0, 0, 0}, tcp(request)...)))
	f.Add(uint32(LinkWiFi), run(make([]byte, 60)))
	f.Add(uint32(LinkNFLOG), run(make([]byte, 60)))
	f.Fuzz(func(t *testing.T, link uint32, data []byte) {
		m := New(Options{MaxConns: 16, MaxBuffered: 4096, MaxAnalyzed: 8, Emit: func(f *flow.Flow) { checkFlow(t, f) }})
		now := t0
		for len(data) >= 4 {
			n, step, cut := int(binary.BigEndian.Uint16(data)), int64(int8(data[2])), int(data[3])
			n = min(n, len(data)-4)
			now += step * second
			p := Packet{now, data[4 : 4+max(0, n-cut)], n, Link(link)}
			m.Feed(p)
			data = data[4+n:]
			check(t, m)
		}
		m.End()
		check(t, m)
		if s := m.Stats(); s.Active != 0 || s.Buffered != 0 {
			t.Fatalf("left behind: %+v", s)
		}
	})
}

// FuzzTCP feeds segments of a few connections, which random frames hardly
// ever are: six bytes make one.
func FuzzTCP(f *testing.F) {
	f.Add([]byte("\x00\x02\x00\x00\x00\x01\x80\x12\x00\x01\x00\x01\x00\x18\x01\x01\x09\x01"))
	f.Add([]byte("\x00\x02\x00\x00\x00\x01\x80\x12\x00\x01\x00\x01\x00\x18\x05\x01\x09\x01\x80\x10\x01\x0f\x00\x01\x00\x18\x01\x01\x04\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := New(Options{MaxConns: 3, MaxBuffered: 1500, MaxAnalyzed: 2, Emit: func(f *flow.Flow) { checkFlow(t, f) }})
		now := t0
		for ; len(data) >= 6; data = data[6:] {
			p := raw{src: client, dst: server, sport: uint16(data[0]&3) + 1000, dport: 80, seq: uint32(data[2]) - 16, ack: uint32(data[3]) - 16, data: string(make([]byte, data[4]))}
			if data[0]&0x40 != 0 {
				p.seq, p.ack = p.seq*0x01000001, p.ack*0x01000001
			}
			if data[0]&0x80 != 0 {
				p.src, p.dst, p.sport, p.dport = p.dst, p.src, p.dport, p.sport
			}
			b := tcp(p)
			b[33] = data[1] & 0x1f
			now += int64(data[5]) * second / 16
			m.Feed(Packet{now, b, len(b), LinkRaw})
			check(t, m)
		}
		m.End()
		check(t, m)
	})
}

// FuzzRead reads files.
func FuzzRead(f *testing.F) {
	f.Add(capture(f, false, 3))
	f.Add(capture(f, true, 3))
	f.Add([]byte("\x1f\x8b\x08\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Read(t.Context(), bytes.NewReader(data), Options{MaxConns: 64, MaxBuffered: 4096, MaxAnalyzed: 8, Emit: func(f *flow.Flow) { checkFlow(t, f) }})
		if s.Packets > int64(len(data)) && err == nil && len(data) > 0 && data[0] != 0x1f && data[0] != 0x28 {
			t.Fatalf("%d packets in %d bytes", s.Packets, len(data))
		}
	})
}

// capture returns a file with n datagrams.
func capture(t testing.TB, ng bool, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	var w interface {
		WritePacket(gopacket.CaptureInfo, []byte) error
	}
	if ng {
		x, err := pcapgo.NewNgWriter(&b, layers.LinkTypeEthernet)
		if err != nil {
			t.Fatal(err)
		}
		defer x.Flush()
		w = x
	} else {
		x := pcapgo.NewWriterNanos(&b)
		if err := x.WriteFileHeader(65536, layers.LinkTypeEthernet); err != nil {
			t.Fatal(err)
		}
		w = x
	}
	for i := range n {
		p := ether(etherIPv4, udp(client, server, uint16(40000+i), 9999, "hello"))
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: unix(t0 + int64(i)*second), CaptureLength: len(p), Length: len(p)}, p); err != nil {
			t.Fatal(err)
		}
	}
	if x, ok := w.(*pcapgo.NgWriter); ok {
		if err := x.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}
