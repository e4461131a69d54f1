package packet

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/slips-go/slips/parsers/flow"
)

func unix(ns int64) time.Time { return time.Unix(0, ns).UTC() }

// pack returns b packed.
func pack(t *testing.T, b []byte, w func(io.Writer) io.WriteCloser) []byte {
	t.Helper()
	var out bytes.Buffer
	z := w(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestRead reads captures in all their forms, whole and cut.
func TestRead(t *testing.T) {
	gz := func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }
	zst := func(w io.Writer) io.WriteCloser {
		z, err := zstd.NewWriter(w)
		if err != nil {
			t.Fatal(err)
		}
		return z
	}
	plain, ng := capture(t, false, 5), capture(t, true, 5)
	for _, c := range []struct {
		name string
		data []byte
		want error
		recs int64
	}{
		{"pcap", plain, nil, 5},
		{"pcapng", ng, nil, 5},
		{"pcap, gzip", pack(t, plain, gz), nil, 5},
		{"pcap, zstd", pack(t, plain, zst), nil, 5},
		{"pcapng, gzip", pack(t, ng, gz), nil, 5},
		{"pcap, cut", plain[:len(plain)-3], ErrCorrupt, 4},
		{"pcapng, cut", ng[:len(ng)-3], ErrCorrupt, 4},
		{"gzip, cut", pack(t, plain, gz)[:60], ErrCorrupt, 0},
		{"length too large", append(bytes.Clone(plain), bytes.Repeat([]byte{0xff}, 40)...), ErrCorrupt, 5},
		{"only the head", plain[:24], nil, 0},
		{"head cut", plain[:10], ErrFormat, 0},
		{"text", []byte("hello, world"), ErrFormat, 0},
		{"nothing", nil, ErrFormat, 0},
		{"packed text", pack(t, []byte("hello, world"), gz), ErrFormat, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var n int64
			s, err := Read(t.Context(), bytes.NewReader(c.data), Options{Emit: func(*flow.Flow) { n++ }})
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if n < c.recs || s.Records != n || s.Packets != n {
				t.Errorf("%d records, stats %+v, want %d", n, s, c.recs)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := Read(ctx, bytes.NewReader(plain), Options{}); err != nil || s.Packets != 0 {
		t.Errorf("stopped: %d packets, %v", s.Packets, err)
	}
}

// TestSource delivers batches, the last one marked, and holds still while all
// are out.
func TestSource(t *testing.T) {
	const n = 3000
	data := capture(t, false, n)
	woken := 0
	s := NewSource("capture", "capture.pcap", Options{MaxConns: 100}, func() { woken++ })
	done := make(chan error, 1)
	go func() {
		_, err := s.Read(t.Context(), bytes.NewReader(data))
		done <- err
	}()
	records, ended := 0, 0
	for b := range s.Input().C {
		if b.Segment.Path != "capture.pcap" || ended > 0 {
			t.Fatalf("batch of %q behind %d ends", b.Segment.Path, ended)
		}
		if b.Mark == flow.Ended {
			ended++
		}
		for i := range b.Flows {
			if b.Flows[i].DstPort != 9999 || !s.Input().Kinds.Has(b.Flows[i].Kind) {
				t.Fatalf("record %+v", b.Flows[i])
			}
		}
		records += len(b.Flows)
		b.Release()
	}
	if err := <-done; err != nil || records != n || ended != 1 || woken < 2 {
		t.Errorf("%d records, %d ends, woken %d times, %v", records, ended, woken, err)
	}

	// Nobody takes the batches: it waits, and ends with its context.
	ctx, cancel := context.WithCancel(t.Context())
	s = NewSource("capture", "capture.pcap", Options{MaxConns: 100}, nil)
	go func() {
		_, err := s.Read(ctx, bytes.NewReader(data))
		done <- err
	}()
	for len(s.c) < batches {
		select {
		case err := <-done:
			t.Fatal("it did not wait: ", err)
		default:
			runtime.Gosched()
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	got := 0
	for b := range s.Input().C {
		got++
		b.Release()
	}
	if got != batches {
		t.Errorf("%d batches, want %d", got, batches)
	}

	s = NewSource("live", "eth0", Options{}, nil)
	p := udp(client, server, 1, 9999, "x")
	s.Feed(t.Context(), Packet{t0, p, len(p), LinkRaw})
	s.Idle(t.Context(), t0+60*second)
	b := <-s.Input().C
	if b.Mark != flow.Idle || len(b.Flows) != 1 {
		t.Errorf("mark %d with %d records", b.Mark, len(b.Flows))
	}
	b.Release()
	s.Close(t.Context())
}
