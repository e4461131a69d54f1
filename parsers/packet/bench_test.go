package packet

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/slips-go/slips/parsers/flow"
)

// keep copies the packets of a capture, for the reading of files to stay out
// of a measurement.
func keep(b testing.TB, path string) (all []Packet, bytes int64) {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	r, err := NewReader(f)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for {
		p, err := r.Next()
		if err != nil {
			return all, bytes
		}
		p.Data = append([]byte(nil), p.Data...)
		all = append(all, p)
		bytes += int64(len(p.Data))
	}
}

// chain returns the captures of the data sets as one, each a second behind the
// one before, from a time on, and a second behind the last. Captures whose first
// packet is not ok are left out.
func chain(b *testing.B, at int64, ok func(Packet) bool) (all []Packet, end int64) {
	b.Helper()
	for _, path := range fileNames(b, captures(b)) {
		f, _ := keep(b, path)
		if len(f) == 0 || !ok(f[0]) {
			continue
		}
		first, last := f[0].Time, at
		for _, p := range f {
			p.Time = max(last, at+p.Time-first) // never back, whatever the capture
			last = p.Time
			all = append(all, p)
		}
		at = last + second
	}
	return all, at
}

// feed feeds packets again and again, each time later.
func feed(b *testing.B, all []Packet, bytes int64) {
	b.Helper()
	m := New(Options{})
	span := all[len(all)-1].Time - all[0].Time + 600*second
	b.SetBytes(bytes)
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	for i := range b.N {
		for _, p := range all {
			p.Time += int64(i) * span
			m.Feed(p)
		}
		n += len(all)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "packets/s")
}

// BenchmarkCapture meters the captures of the data sets.
func BenchmarkCapture(b *testing.B) {
	dir := captures(b)
	for _, name := range []string{"test-cc-capture-1.pcap", "test7-malicious.pcap", "protocols/markofu_portscan.pcap", "protocols/dce-rpc_mapi.pcap", "protocols/http_http-post-large.pcap"} {
		b.Run(base(name), func(b *testing.B) {
			all, bytes := keep(b, filepath.Join(dir, name))
			feed(b, all, bytes)
		})
	}
	b.Run("all", func(b *testing.B) {
		all, _ := chain(b, t0, func(Packet) bool { return true })
		bytes := int64(0)
		for _, p := range all {
			bytes += int64(len(p.Data))
		}
		feed(b, all, bytes)
	})
}

// web returns packets of web traffic: connections of 3 + n + 4 packets.
func web(conns, n int) (all []Packet, bytes int64) {
	m := &bench{now: t0}
	m.Meter = New(Options{})
	add := func(p []byte) {
		all = append(all, Packet{m.now, ether(etherIPv4, p), 14 + len(p), LinkEthernet})
		bytes += int64(14 + len(p))
		m.now += 1e5
	}
	body := strings.Repeat("x", 1400)
	for i := range conns {
		c := raw{src: client, dst: server, sport: uint16(1024 + i), dport: 8443}
		s := raw{src: server, dst: client, sport: 8443, dport: uint16(1024 + i)}
		send := func(p raw, flags string, seq, ack uint32, data string) {
			p.flags, p.seq, p.ack, p.data = flags, seq, ack, data
			add(tcp(p))
		}
		send(c, "S", 99, 0, "")
		send(s, "SA", 499, 100, "")
		send(c, "A", 100, 500, "")
		for j := range n {
			send(s, "A", 500+uint32(j*1400), 100, body)
			if j%2 == 1 {
				send(c, "A", 100, 500+uint32(j*1400+1400), "")
			}
		}
		end := 500 + uint32(n*1400)
		send(s, "FA", end, 100, "")
		send(c, "FA", 100, end+1, "")
		send(s, "A", end+1, 101, "")
	}
	return all, bytes
}

// BenchmarkWeb meters synthetic connections.
func BenchmarkWeb(b *testing.B) {
	for _, n := range []int{0, 10, 100} {
		b.Run(fmt.Sprint(n, "-segments"), func(b *testing.B) {
			all, bytes := web(500, n)
			feed(b, all, bytes)
		})
	}
}

// BenchmarkFlood meters a SYN flood of a million forged sources within ten
// seconds, and says how much memory that takes.
func BenchmarkFlood(b *testing.B) {
	p := ether(etherIPv4, tcp(raw{src: client, dst: server, sport: 1, dport: 80, flags: "S"}))
	for range b.N {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		m := New(Options{})
		for i := range uint32(1_000_000) {
			binary.BigEndian.PutUint32(p[26:], 0x01000000+i*7)
			binary.BigEndian.PutUint16(p[34:], uint16(1024+i%60000))
			m.Feed(Packet{t0 + int64(i)*10_000, p, len(p), LinkEthernet})
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		s := m.Stats()
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
		b.ReportMetric(float64(s.Peak), "conns")
		b.ReportMetric(float64(s.Counts[EarlyEviction]), "evicted")
		m.End()
	}
	b.ReportMetric(1e6*float64(b.N)/b.Elapsed().Seconds(), "packets/s")
}

// BenchmarkRead meters a file, reading included.
func BenchmarkRead(b *testing.B) {
	path := filepath.Join(captures(b), "test-cc-capture-1.pcap")
	st, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(st.Size())
	var n int64
	for range b.N {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		s, err := Read(b.Context(), f, Options{Emit: func(*flow.Flow) {}})
		f.Close()
		if err != nil && err != io.EOF {
			b.Fatal(err)
		}
		n += s.Packets
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "packets/s")
}

// large writes a capture of at least n packets: those of the data sets that
// are Ethernet, one capture behind the other, again and again, each later.
func large(b *testing.B, n int) (path string, packets int, size int64) {
	b.Helper()
	all, at := chain(b, 0, func(p Packet) bool { return p.Link == LinkEthernet })
	path = filepath.Join(b.TempDir(), "large.pcap")
	out, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	w := bufio.NewWriter(out)
	le := binary.LittleEndian
	head := le.AppendUint32(nil, 0xa1b2c3d4)
	head = le.AppendUint32(head, 2|4<<16)
	head = le.AppendUint64(head, 0)
	head = le.AppendUint32(head, 262144)
	head = le.AppendUint32(head, uint32(LinkEthernet))
	w.Write(head)
	for start := t0; packets < n; start += at + 600*second {
		for _, p := range all {
			t := start + p.Time
			head = le.AppendUint32(head[:0], uint32(t/second))
			head = le.AppendUint32(head, uint32(t%second/1000))
			head = le.AppendUint32(head, uint32(len(p.Data)))
			head = le.AppendUint32(head, uint32(max(p.Length, len(p.Data))))
			w.Write(head)
			w.Write(p.Data)
		}
		packets += len(all)
	}
	if err := w.Flush(); err != nil { // of all of them
		b.Fatal(err)
	}
	st, err := out.Stat()
	if err != nil {
		b.Fatal(err)
	}
	return path, packets, st.Size()
}

// BenchmarkZeek reads a file of a million packets with the meter and with the
// Zeek that SLIPS_ZEEK names, in turn on the same machine, and says how many
// times as many packets a second the meter takes. Neither writes logs to
// anywhere but a temporary folder. With -cpu 1 the meter has one core, as Zeek.
func BenchmarkZeek(b *testing.B) {
	zeek := os.Getenv("SLIPS_ZEEK")
	if zeek == "" {
		b.Skip("NOT COMPARED with zeek: SLIPS_ZEEK names none")
	}
	path, packets, size := large(b, 1_000_000)
	b.SetBytes(size)
	var meter, theirs time.Duration
	for b.Loop() {
		start := time.Now()
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		s, err := Read(b.Context(), f, Options{})
		f.Close()
		if err != nil || s.Packets != int64(packets) {
			b.Fatalf("%d packets of %d: %v", s.Packets, packets, err)
		}
		meter += time.Since(start)

		start = time.Now()
		c := exec.CommandContext(b.Context(), zeek, "-C", "-r", path)
		c.Dir = b.TempDir()
		if out, err := c.CombinedOutput(); err != nil {
			b.Fatalf("zeek: %v\n%s", err, out)
		}
		theirs += time.Since(start)
	}
	rate := func(d time.Duration) float64 { return float64(b.N) * float64(packets) / d.Seconds() }
	b.ReportMetric(rate(meter), "packets/s")
	b.ReportMetric(rate(theirs), "zeek-packets/s")
	b.ReportMetric(theirs.Seconds()/meter.Seconds(), "times-zeek")
}

// BenchmarkTunnels meters packets each of which is in tunnels of its own, so
// deep in each other.
func BenchmarkTunnels(b *testing.B) {
	for _, depth := range []int{1, maxDepth} {
		b.Run(fmt.Sprint(depth, "-deep"), func(b *testing.B) {
			m := New(Options{})
			p := udp(client, server, 1000, 2000, "hello")
			for range depth {
				p = ip4(client, server, 4, p)
			}
			b.ReportAllocs()
			for i := range b.N {
				for k := range depth + 1 {
					binary.BigEndian.PutUint32(p[20*k+12:], uint32(0x0a000000+i*8+k))
				}
				m.Feed(Packet{t0 + int64(i)*1000, p, len(p), LinkRaw})
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
		})
	}
}
