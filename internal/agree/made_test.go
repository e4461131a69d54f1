package agree

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// second is the unit in which these captures tell time.
const second = int64(1e9)

// pkt is a packet of a capture that is made.
type pkt struct {
	at   int64 // unix ns
	data []byte
	cut  int // bytes that are captured; 0: all
}

// writeCapture writes packets in the order of their times, as pcap with µs.
func writeCapture(t *testing.T, name string, all []pkt) string {
	t.Helper()
	slices.SortStableFunc(all, func(a, b pkt) int { return int(a.at/1000 - b.at/1000) })
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xa1b2c3d4)
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, 4)
	b = le.AppendUint64(b, 0)
	b = le.AppendUint32(b, 262144)
	b = le.AppendUint32(b, 1)
	for _, p := range all {
		n := len(p.data)
		if p.cut > 0 {
			n = min(n, p.cut)
		}
		b = le.AppendUint32(b, uint32(p.at/second))
		b = le.AppendUint32(b, uint32(p.at%second/1000))
		b = le.AppendUint32(b, uint32(n))
		b = le.AppendUint32(b, uint32(len(p.data)))
		b = append(b, p.data[:n]...)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// host is one end of a connection that is made.
type host struct {
	ip   [4]byte
	port uint16
	seq  uint32 // of what it sends next
	ack  uint32 // of what it takes next
}

const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
)

// network returns an IP packet in Ethernet from a to b: IPv6 of a client in
// 11/8, with a VLAN tag of one in 12/8.
func network(a, b *host, proto byte, payload []byte) []byte {
	be := binary.BigEndian
	p := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}
	low := min(a.ip[0], b.ip[0]) // the inner host's net
	if low == 12 {
		p = append(p, 0x81, 0, 0, 7)
	}
	if low == 11 {
		p = append(p, 0x86, 0xdd, 0x60, 0, 0, 0)
		p = be.AppendUint16(p, uint16(len(payload)))
		if proto == 1 {
			proto = 58
		}
		p = append(p, proto, 64)
		for _, h := range [2]*host{a, b} {
			p = append(p, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0)
			p = append(p, h.ip[:]...)
		}
		return append(p, payload...)
	}
	p = append(p, 8, 0, 0x45, 0)
	p = be.AppendUint16(p, uint16(20+len(payload)))
	p = append(p, 0, 0, 0x40, 0, 64, proto, 0, 0)
	p = append(p, a.ip[:]...)
	p = append(p, b.ip[:]...)
	return append(p, payload...)
}

// segment returns a TCP packet in Ethernet from a to b.
func segment(a, b *host, flags byte, seq, acked uint32, payload []byte) []byte {
	be := binary.BigEndian
	p := be.AppendUint16(nil, a.port)
	p = be.AppendUint16(p, b.port)
	p = be.AppendUint32(p, seq)
	p = be.AppendUint32(p, acked)
	p = append(p, 0x50, flags, 0x20, 0, 0, 0, 0, 0)
	return network(a, b, 6, append(p, payload...))
}

// datagram returns a UDP packet in Ethernet from a to b.
func datagram(a, b *host, payload []byte) []byte {
	be := binary.BigEndian
	p := be.AppendUint16(nil, a.port)
	p = be.AppendUint16(p, b.port)
	p = be.AppendUint16(p, uint16(8+len(payload)))
	p = append(p, 0, 0)
	return network(a, b, 17, append(p, payload...))
}

// talker makes the packets of one TCP connection, with all that a network and
// whoever captures there can do to them.
type talker struct {
	r    *rand.Rand
	now  int64
	c, s host
	out  []pkt

	lose, twice, swap float64 // chances of a packet
	snap              int
}

// put captures a packet, or not.
func (k *talker) put(b []byte) {
	k.now += 1 + k.r.Int64N(40e6)
	if k.r.Float64() < k.lose {
		return
	}
	p := pkt{k.now, b, k.snap}
	if k.r.Float64() < k.swap {
		p.at += k.r.Int64N(100e6)
	}
	k.out = append(k.out, p)
	if k.r.Float64() < k.twice {
		k.out = append(k.out, pkt{p.at + 1 + k.r.Int64N(300e6), b, k.snap})
	}
}

// send sends a segment with the right numbers.
func (k *talker) send(a, b *host, flags byte, n int) {
	payload := make([]byte, n)
	for i := range payload {
		payload[i] = byte('a' + k.r.IntN(26))
	}
	acked := a.ack
	if flags&ack == 0 {
		acked = 0
	}
	k.put(segment(a, b, flags, a.seq, acked, payload))
	a.seq += uint32(n)
	if flags&(syn|fin) != 0 {
		a.seq++
	}
	b.ack = a.seq
}

// talk has a connection with an ordinary or a less ordinary course.
func (k *talker) talk() {
	c, s, r := &k.c, &k.s, k.r
	switch r.IntN(12) {
	case 0: // no answer
		for range 1 + r.IntN(3) {
			k.send(c, s, syn, 0)
			c.seq--
			k.now += int64(1+r.IntN(8)) * second
		}
		return
	case 1: // refused
		k.send(c, s, syn, 0)
		k.send(s, c, rst|ack, 0)
		return
	case 2: // a scan with half a handshake
		k.send(c, s, syn, 0)
		k.send(s, c, syn|ack, 0)
		k.send(c, s, rst, 0)
		return
	case 3: // picked up in the middle
	default:
		k.send(c, s, syn, 0)
		k.send(s, c, syn|ack, 0)
		k.send(c, s, ack, 0)
	}
	for range r.IntN(8) {
		a, b := c, s
		if r.IntN(2) == 0 {
			a, b = s, c
		}
		for range 1 + r.IntN(4) {
			k.send(a, b, ack|psh, 1+r.IntN(1400))
		}
		k.send(b, a, ack, 0)
		if r.IntN(12) == 0 { // sent again
			a.seq -= 10
			k.send(a, b, ack|psh, 10)
		}
		if r.IntN(20) == 0 {
			k.now += int64(r.IntN(400)) * second
		}
	}
	a, b := c, s
	if r.IntN(2) == 0 {
		a, b = s, c
	}
	switch r.IntN(10) {
	case 0: // left open
	case 1:
		k.send(a, b, rst|ack, 0)
	case 2:
		k.send(a, b, fin|ack, 0)
	case 3:
		k.send(a, b, fin|ack, 0)
		k.send(b, a, rst, 0)
	case 4:
		k.send(a, b, rst, 0)
		k.send(b, a, rst|ack, 0)
	case 5:
		k.send(a, b, fin|ack, 0)
		k.send(b, a, ack, 0)
		k.send(b, a, ack|psh, 200)
		k.send(b, a, fin|ack, 0)
	default:
		k.send(a, b, fin|ack, 0)
		k.send(b, a, fin|ack, 0)
		k.send(a, b, ack, 0)
	}
	if r.IntN(10) == 0 { // the same ends again
		k.now += int64(r.IntN(20)) * second
		c.seq += 100000
		k.send(c, s, syn, 0)
		k.send(s, c, syn|ack, 0)
		k.send(c, s, ack, 0)
	}
}

// noise sends segments without sense: few flags, few numbers.
func (k *talker) noise() {
	flags := [...]byte{syn, syn | ack, ack, ack | psh, fin | ack, rst, rst | ack, fin, syn | fin, 0, syn | rst, fin | rst}
	for range 1 + k.r.IntN(9) {
		a, b := &k.c, &k.s
		if k.r.IntN(2) == 0 {
			a, b = b, a
		}
		n := 0
		if k.r.IntN(3) == 0 {
			n = 1 + k.r.IntN(20)
		}
		f := flags[k.r.IntN(len(flags))]
		seq, acked := a.seq+uint32(k.r.IntN(4)), b.seq+uint32(k.r.IntN(4))
		switch k.r.IntN(24) {
		case 0: // far away
			seq += k.r.Uint32()
		case 1:
			acked = k.r.Uint32()
		case 2:
			seq += uint32(k.r.IntN(1 << 21))
		}
		if f&ack == 0 {
			acked = 0
		}
		k.put(segment(a, b, f, seq, acked, make([]byte, n)))
		if k.r.IntN(6) == 0 {
			k.now += int64(k.r.IntN(12)) * second
		}
	}
}

// conversations returns connections with a seed.
func conversations(seed uint64, n int, each func(k *talker)) []pkt {
	r := rand.New(rand.NewPCG(seed, 1))
	var all []pkt
	for i := range n {
		k := &talker{r: r, now: 1_700_000_000*second + r.Int64N(120*second)}
		k.c = host{[4]byte{byte(10 + r.IntN(3)), 0, byte(i >> 8), byte(i)}, uint16(20000 + r.IntN(40000)), r.Uint32(), 0}
		k.s = host{[4]byte{192, 0, 2, byte(1 + r.IntN(250))}, [...]uint16{7777, 9999, 80, 443, 22, 25}[r.IntN(6)], r.Uint32(), 0}
		if r.IntN(16) == 0 {
			k.c.seq, k.s.seq = -uint32(r.IntN(4000)), -uint32(r.IntN(4000)) // numbers go round
		}
		each(k)
		all = append(all, k.out...)
	}
	return all
}

// made returns captures made for this comparison.
func made(t *testing.T) []string {
	t.Helper()
	const conns = 400
	ordinary := func(k *talker) { k.talk() }
	sessions := handshakes(t)
	var all []string
	for seed := range uint64(rounds(t)) {
		for _, c := range []struct {
			name string
			each func(k *talker)
		}{
			{"ordinary", ordinary},
			{"lossy", func(k *talker) { k.lose = 0.1; k.talk() }},
			{"twice", func(k *talker) { k.twice = 0.1; k.talk() }},
			{"disordered", func(k *talker) { k.swap = 0.2; k.talk() }},
			{"cut", func(k *talker) { k.snap = 96; k.talk() }},
			{"all-of-it", func(k *talker) { k.lose, k.twice, k.swap = 0.1, 0.1, 0.2; k.talk() }},
			{"noise", func(k *talker) { k.noise() }},
			{"datagrams", func(k *talker) { k.datagrams() }},
			{"names", func(k *talker) { k.names() }},
			{"text", func(k *talker) { k.text() }},
			{"text-lossy", func(k *talker) { k.lose = 0.02; k.text() }},
			{"text-disordered", func(k *talker) { k.swap, k.twice = 0.2, 0.1; k.text() }},
			{"secrets", func(k *talker) { k.secrets(sessions) }},
			{"secrets-disordered", func(k *talker) { k.swap, k.twice = 0.2, 0.1; k.secrets(sessions) }},
		} {
			all = append(all, writeCapture(t, fmt.Sprint(c.name, seed, ".pcap"), conversations(seed, conns, c.each)))
		}
	}
	return all
}

// rounds is how many captures of each sort are made: SLIPS_ROUNDS, 1 by default.
func rounds(t *testing.T) int {
	t.Helper()
	v := os.Getenv("SLIPS_ROUNDS")
	if v == "" {
		return 1
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatal("SLIPS_ROUNDS: ", err)
	}
	return n
}
