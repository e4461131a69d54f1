package packet

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/slips-go/slips/parsers/flow"
)

// order is a byte order in which tests write.
type order interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// orders are both byte orders, by name.
func orders() map[string]order {
	return map[string]order{"little": binary.LittleEndian, "big": binary.BigEndian}
}

// pcapFile writes a pcap; nano makes its times ns. Each packet has its time in
// the units of the file.
func pcapFile(o order, nano bool, link uint32, packets ...pcapPacket) []byte {
	magic := uint32(0xa1b2c3d4)
	if nano {
		magic = 0xa1b23c4d
	}
	b := o.AppendUint32(nil, magic)
	b = o.AppendUint16(b, 2)
	b = o.AppendUint16(b, 4)
	b = o.AppendUint64(b, 0)
	b = o.AppendUint32(b, 65535)
	b = o.AppendUint32(b, link)
	for _, p := range packets {
		b = o.AppendUint32(b, p.sec)
		b = o.AppendUint32(b, p.frac)
		b = o.AppendUint32(b, p.caplen())
		b = o.AppendUint32(b, p.wire())
		b = append(b, p.data...)
	}
	return b
}

// oldPcap is pcapFile, of an old version.
func oldPcap(minor uint16, packets ...pcapPacket) []byte {
	b := pcapFile(binary.BigEndian, false, 1, packets...)
	binary.BigEndian.PutUint16(b[6:], minor)
	return b
}

// pcapPacket is a packet of a file.
type pcapPacket struct {
	sec, frac   uint32
	data        []byte
	cap, length uint32 // what the file says, if not what is true
}

func (p pcapPacket) caplen() uint32 {
	if p.cap != 0 {
		return p.cap
	}
	return uint32(len(p.data))
}

func (p pcapPacket) wire() uint32 {
	if p.length != 0 {
		return p.length
	}
	return uint32(len(p.data))
}

// ngBlock writes a block of pcapng.
func ngBlock(o order, typ uint32, body []byte) []byte {
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	n := uint32(len(body) + 12)
	b := o.AppendUint32(nil, typ)
	b = o.AppendUint32(b, n)
	b = append(b, body...)
	return o.AppendUint32(b, n)
}

// option writes an option of pcapng.
func option(o order, code uint16, value string) []byte {
	b := o.AppendUint16(nil, code)
	b = o.AppendUint16(b, uint16(len(value)))
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// sectionHeader, ngInterface and enhanced write blocks of pcapng.
func sectionHeader(o order) []byte {
	b := o.AppendUint32(nil, 0x1a2b3c4d)
	b = o.AppendUint16(b, 1)
	b = o.AppendUint16(b, 0)
	b = o.AppendUint64(b, 1<<64-1)
	return ngBlock(o, 0x0a0d0d0a, append(b, option(o, 4, "a test")...))
}

func ngInterface(o order, link uint16, options ...[]byte) []byte {
	b := o.AppendUint16(nil, link)
	b = o.AppendUint16(b, 0)
	b = o.AppendUint32(b, 65535)
	for _, x := range options {
		b = append(b, x...)
	}
	if len(options) > 0 {
		b = append(b, 0, 0, 0, 0)
	}
	return ngBlock(o, 1, b)
}

func enhanced(o order, iface uint32, t uint64, data []byte) []byte {
	b := o.AppendUint32(nil, iface)
	b = o.AppendUint32(b, uint32(t>>32))
	b = o.AppendUint32(b, uint32(t))
	b = o.AppendUint32(b, uint32(len(data)))
	b = o.AppendUint32(b, uint32(len(data)))
	return ngBlock(o, 6, append(b, data...))
}

// ngFile writes a pcapng with two sections, two interfaces of different links
// and resolutions, names, secrets, statistics and a block that nobody knows.
func ngFile(o order) []byte {
	ip := udp(client, server, 40000, 9999, "hello")
	b := sectionHeader(o)
	b = append(b, ngInterface(o, 1)...)                                                                     // µs
	b = append(b, ngInterface(o, 101, option(o, 9, "\x09"), option(o, 2, "tun0"))...)                       // ns
	b = append(b, ngBlock(o, 4, append(o.AppendUint16(nil, 0), 0, 0))...)                                   // names, none
	b = append(b, ngBlock(o, 10, append(o.AppendUint32(o.AppendUint32(nil, 0x544c534b), 4), "keys"...))...) // secrets
	b = append(b, enhanced(o, 0, uint64(t0/1000), ether(etherIPv4, ip))...)
	b = append(b, ngBlock(o, 0x0bad, []byte("what is this"))...)
	b = append(b, enhanced(o, 1, uint64(t0+second), udp(client, server, 40001, 9999, "hello"))...)
	us := uint64(t0 / 1000)
	stats := o.AppendUint32(o.AppendUint32(o.AppendUint32(nil, 0), uint32(us>>32)), uint32(us&(1<<32-1)))
	b = append(b, ngBlock(o, 5, stats)...)
	b = append(b, sectionHeader(o)...)
	b = append(b, ngInterface(o, 228, option(o, 9, "\x8a"))...) // 2^-10 s
	return append(b, enhanced(o, 0, uint64(t0/second+2)<<10, udp(client, server, 40002, 9999, "hello"))...)
}

// damaged reads what may be damaged and checks what must hold of any input.
func damaged(t *testing.T, data []byte) (Stats, []*flow.Flow, error) {
	t.Helper()
	var got []*flow.Flow
	s, err := Read(t.Context(), bytes.NewReader(data), Options{
		Next: func(flow.Kind) *flow.Flow { got = append(got, new(flow.Flow)); return got[len(got)-1] },
		Emit: func(f *flow.Flow) { checkFlow(t, f) },
	})
	if err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrCorrupt) {
		t.Fatalf("error of no kind: %v", err)
	}
	if s.Active != 0 || s.Buffered != 0 || s.Records != int64(len(got)) {
		t.Fatalf("%+v", s)
	}
	return s, got, err
}

// files are small captures in all forms, each of three datagrams a second
// apart, and how many of them there are.
func files(t testing.TB) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	for name, o := range orders() {
		var us, ns []pcapPacket
		for i := range uint32(3) {
			p := ether(etherIPv4, udp(client, server, uint16(40000+i), 9999, "hello"))
			us = append(us, pcapPacket{sec: uint32(t0/second) + i, data: p})
			ns = append(ns, pcapPacket{sec: uint32(t0/second) + i, frac: 1, data: p})
		}
		all["pcap, µs, "+name] = pcapFile(o, false, 1, us...)
		all["pcap, ns, "+name] = pcapFile(o, true, 1, ns...)
		all["pcapng, "+name] = ngFile(o)
	}
	return all
}

// TestCut cuts captures at each byte: what came before is analysed, and where
// no packet ends it is said.
func TestCut(t *testing.T) {
	for name, whole := range files(t) {
		t.Run(name, func(t *testing.T) {
			s, _, err := damaged(t, whole)
			if err != nil || s.Packets != 3 {
				t.Fatalf("whole: %d packets, %v", s.Packets, err)
			}
			silent := 0
			for n := range whole {
				s, got, err := damaged(t, whole[:n])
				if s.Packets > 3 || int64(len(got)) != s.Packets {
					t.Fatalf("%d bytes: %d packets, %d records", n, s.Packets, len(got))
				}
				switch {
				case n < 24 && !errors.Is(err, ErrFormat):
					t.Errorf("%d bytes: %v", n, err)
				case err == nil:
					silent++
				}
			}
			// Only where a packet or block ends can nobody tell that there was more.
			if silent > 12 {
				t.Errorf("%d cuts were not noticed", silent)
			}
		})
	}
	t.Run("gzip", func(t *testing.T) {
		whole := pack(t, files(t)["pcap, µs, little"], func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })
		for n := range whole {
			if s, _, err := damaged(t, whole[:n]); err == nil || s.Packets > 3 {
				t.Fatalf("%d of %d bytes: %d packets, %v", n, len(whole), s.Packets, err)
			}
		}
	})
}

// TestSpoiled changes each byte of captures in turn.
func TestSpoiled(t *testing.T) {
	for name, whole := range files(t) {
		t.Run(name, func(t *testing.T) {
			for i := range whole {
				for _, x := range []byte{0x01, 0x80, 0xff, whole[i]} {
					b := bytes.Clone(whole)
					b[i] ^= x
					if s, _, _ := damaged(t, b); s.Packets > 3 {
						t.Fatalf("byte %d: %d packets of 3", i, s.Packets)
					}
				}
			}
		})
	}
}

// TestBadFiles has files that are wrong in one way each, with what is said of
// them and counted.
func TestBadFiles(t *testing.T) {
	o := binary.LittleEndian
	p := ether(etherIPv4, udp(client, server, 40000, 9999, "hello"))
	sec := uint32(t0 / second)
	good := pcapPacket{sec: sec, data: p}
	ng := func(blocks ...[]byte) []byte { return slices.Concat(append([][]byte{sectionHeader(o)}, blocks...)...) }
	for _, c := range []struct {
		name    string
		data    []byte
		err     error
		says    string
		packets int64
		counts  map[Reason]int64
		records int
	}{
		{"length on the wire below that captured", pcapFile(o, false, 1, good, pcapPacket{sec: sec, data: p, length: 20}, good), nil, "", 3, nil, 1},
		{"the same, and cut", pcapFile(o, false, 1, good, pcapPacket{sec: sec, data: p[:30], cap: uint32(len(p)), length: 20}), ErrCorrupt, "behind packet 1", 1, nil, 1},
		{"sections of both byte orders", slices.Concat(ngFile(o), ngFile(binary.BigEndian)), nil, "", 6, map[Reason]int64{TimeWentBack: 2}, 3},
		{"captured length beyond all", pcapFile(o, false, 1, good, pcapPacket{sec: sec, data: p, cap: 1 << 31, length: 1 << 31}), ErrCorrupt, "behind packet 1", 1, nil, 1},
		{"link type that is not known", pcapFile(o, false, 147, good, good), nil, "", 2, map[Reason]int64{UnknownLink: 2}, 0},
		{"time zero", pcapFile(o, false, 1, pcapPacket{data: p}), nil, "", 1, nil, 1},
		{"version 2.1", oldPcap(1, good, good), nil, "", 2, nil, 1},
		{"version 2.1, the lengths the other way round", oldPcap(1, pcapPacket{sec: sec, data: p[:42], cap: uint32(len(p)), length: 42}, good), nil, "", 2, nil, 1},
		{"version 2.3", oldPcap(3, pcapPacket{sec: sec, data: p[:42], length: uint32(len(p))}, good), nil, "", 2, nil, 1},
		{"version 2.2, cut", oldPcap(2, good, good)[:24+16+len(p)+16+9], ErrCorrupt, "behind packet 1", 1, nil, 1},
		{"time in the future", pcapFile(o, false, 1, pcapPacket{sec: 1<<32 - 1, data: p}), nil, "", 1, map[Reason]int64{BadTime: 1}, 0},
		{"time goes back", pcapFile(o, false, 1, good, pcapPacket{sec: sec - 3600, data: p}, good), nil, "", 3, map[Reason]int64{TimeWentBack: 1}, 1},
		{"fraction above one second", pcapFile(o, false, 1, pcapPacket{sec: sec, frac: 4_000_000, data: p}), nil, "", 1, nil, 1},
		{"version", slices.Concat([]byte{0xd4, 0xc3, 0xb2, 0xa1, 9, 0, 4, 0}, make([]byte, 16)), ErrFormat, "version 9", 0, nil, 0},
		{"pcapng, resolution", ng(ngInterface(o, 1, option(o, 9, "\x64"))), ErrCorrupt, "resolution", 0, nil, 0},
		{"pcapng, resolution that overflows", ng(ngInterface(o, 1, option(o, 9, "\x16")), enhanced(o, 0, 1<<60, p)), nil, "", 1, nil, 1},
		{"pcapng, option of no length", ng(ngInterface(o, 1, option(o, 9, "")), enhanced(o, 0, uint64(t0/1000), p)), nil, "", 1, nil, 1},
		{"pcapng, no interface", ng(enhanced(o, 0, uint64(t0/1000), p)), ErrCorrupt, "nterface", 0, nil, 0},
		{"pcapng, another interface", ng(ngInterface(o, 1), enhanced(o, 7, uint64(t0/1000), p)), ErrCorrupt, "nterface", 0, nil, 0},
		{"pcapng, simple packet", ng(ngInterface(o, 1), ngBlock(o, 3, append(o.AppendUint32(nil, uint32(len(p))), p...))), nil, "", 1, nil, 1},
		{"pcapng, block of no length", ng(ngInterface(o, 1), []byte{6, 0, 0, 0, 0, 0, 0, 0}), ErrCorrupt, "", 0, nil, 0},
		{"pcapng, block beyond the file", ng(ngInterface(o, 1), []byte{0x77, 0, 0, 0, 0, 0, 0, 0x7f}), ErrCorrupt, "", 0, nil, 0},
		{"pcapng, nothing behind the head", ng(), nil, "", 0, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, got, err := damaged(t, c.data)
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("it says %q, want %q in it", err, c.says)
			}
			if s.Packets != c.packets || len(got) != c.records {
				t.Errorf("%d packets, %d records, want %d and %d: %v", s.Packets, len(got), c.packets, c.records, s.Reasons())
			}
			for r := range numReasons {
				if s.Counts[r] != c.counts[r] {
					t.Errorf("%q was counted %d times, want %d", r, s.Counts[r], c.counts[r])
				}
			}
		})
	}
}

// TestSnapLength cuts the packets of real captures: nothing but what is not
// there may get lost. States and the counts by headers stay as they were.
func TestSnapLength(t *testing.T) {
	dir := captures(t)
	type conn struct {
		proto        flow.Proto
		state        string
		orig, answer int64 // bytes
	}
	conns := func(path string, snap int) (map[string]conn, Stats) {
		m := make(map[string]conn)
		meter := New(Options{Emit: func(f *flow.Flow) {
			if checkFlow(t, f); f.Kind == flow.Conn {
				m[fmt.Sprint(f.Time, f.Proto, f.Src, f.SrcPort, f.Dst, f.DstPort)] = conn{f.Proto, f.RawState, f.OrigBytes, f.RespBytes}
			}
		}})
		all, _ := keep(t, path)
		for _, p := range all {
			if snap > 0 {
				p.Data = p.Data[:min(snap, len(p.Data))]
			}
			meter.Feed(p)
		}
		meter.End()
		return m, meter.Stats()
	}
	for _, snap := range []int{64, 96, 128} {
		var all, found, tcp, state, bytes, lost int
		for _, path := range fileNames(t, dir) {
			whole, _ := conns(path, 0)
			cut, s := conns(path, snap)
			lost += int(s.Counts[ShortTransport] + s.Counts[ShortIP] + s.Counts[ShortFrame])
			for k, w := range whole {
				all++
				c, ok := cut[k]
				if !ok {
					continue
				}
				if found++; w.proto != flow.TCP {
					continue
				}
				tcp++
				if c.state == w.state {
					state++
				}
				if c.orig == w.orig && c.answer == w.answer {
					bytes++
				}
			}
		}
		t.Logf("%d bytes: %d of %d connections found; of %d over TCP %d have the state and %d the bytes; %d headers not whole",
			snap, found, all, tcp, state, bytes, lost)
		if all == 0 || 100*found < 97*all || 100*state < 99*tcp || 100*bytes < 99*tcp {
			t.Errorf("%d bytes: too many are lost or changed", snap)
		}
	}
}
