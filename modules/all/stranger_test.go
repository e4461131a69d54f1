package all

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler"
)

// stranger is a host of the Internet that sends one flow and is never heard of
// again. A scan of the Internet brings one every few seconds; a flood with
// forged sources brings as many as profiles are kept.
type stranger struct {
	name string
	most float64 // bytes that the engine and all modules may keep of it
	flow func(i int, f *flow.Flow)
}

func strangers() []stranger {
	public := netip.MustParseAddr("93.184.216.34")
	syn := func(f *flow.Flow, port uint16) {
		f.DstPort, f.State, f.RawState, f.History, f.OrigPkts = port, flow.NotEstablished, "S0", "S", 1
	}
	answered := func(f *flow.Flow, port uint16) {
		f.DstPort, f.State, f.RawState, f.History, f.OrigPkts, f.RespPkts = port, flow.Established, "RSTO", "ShR", 2, 1
		f.Duration = 1e5
	}
	udp := func(f *flow.Flow) {
		f.Proto, f.DstPort, f.State, f.RawState, f.History, f.OrigPkts, f.OrigBytes = flow.UDP, 53413, flow.NotEstablished, "S0", "D", 1, 40
	}
	// A quarter more than was measured, at least.
	const few, some, many = 850, 1400, 1850
	return []stranger{
		{"syn", few, func(_ int, f *flow.Flow) { syn(f, 80) }},
		{"syn to an unknown port", some, func(_ int, f *flow.Flow) { syn(f, 48123) }},
		{"syn to any port", some, func(i int, f *flow.Flow) { syn(f, uint16(1+i*7919%65535)) }},
		{"syn to a public host", some, func(_ int, f *flow.Flow) { syn(f, 80); f.Dst = public }},
		{"syn to an unknown port of a public host", many, func(_ int, f *flow.Flow) { syn(f, 48123); f.Dst = public }},
		{"answered", few, func(_ int, f *flow.Flow) { answered(f, 80) }},
		{"answered by a public host", some, func(_ int, f *flow.Flow) { answered(f, 443); f.Dst = public }},
		{"answered at an unknown port", many, func(_ int, f *flow.Flow) { answered(f, 48123) }},
		{"ssh", some, func(_ int, f *flow.Flow) { answered(f, 22) }},
		{"smb", few, func(_ int, f *flow.Flow) { answered(f, 445) }},
		{"udp", few, func(_ int, f *flow.Flow) { udp(f) }},
		{"udp to a public host", some, func(_ int, f *flow.Flow) { udp(f); f.Dst = public }},
		{"ping", few, func(_ int, f *flow.Flow) {
			f.Proto, f.SrcPort, f.DstPort, f.State, f.RawState = flow.ICMP, 8, 0, flow.Established, "OTH"
			f.OrigPkts, f.RespPkts, f.OrigBytes, f.RespBytes = 1, 1, 56, 56
		}},
	}
}

// arrival is a Sink that says when all of the stream up to a time was looked at.
type arrival struct {
	at    int64
	there chan struct{}
}

func (*arrival) Evidence(*evidence.Evidence) error     { return nil }
func (*arrival) News(profiler.News) error              { return nil }
func (*arrival) Checkpoint(*profiler.Checkpoint) error { return nil }
func (a *arrival) Round(low int64) error {
	if low == a.at {
		a.at = 0
		close(a.there)
	}
	return nil
}

// live returns the bytes of the heap that are in use.
func live() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// keep runs all modules over one flow of each of n strangers, and returns how
// many bytes of the heap each then takes. No log is missing, so no module is
// off, and no window is over.
func keep(tb testing.TB, s stranger, n int) float64 {
	tb.Helper()
	var mods []profiler.Loaded
	for _, spec := range Specs() {
		run, err := spec.New(spec.Defaults(), modules.Env{Width: time.Hour})
		if err != nil {
			tb.Fatal(err)
		}
		mods = append(mods, profiler.Loaded{Spec: spec, Run: run})
	}
	cfg := profiler.Config{Lanes: 2, Width: time.Hour, Names: true, Strict: true, Now: time.Now}
	e, err := profiler.New(cfg, mods, nil)
	if err != nil {
		tb.Fatal(err)
	}
	const start, gap, size = int64(1_700_000_000e9), int64(200_000), 500
	sink := &arrival{at: start + int64(n-1)*gap, there: make(chan struct{})}
	c, ended := make(chan *flow.Batch), make(chan error)
	pool := make(chan *flow.Batch, 8)
	for range cap(pool) { // made before anything is measured, and used again and again
		b := flow.NewBatch(func(b *flow.Batch) { b.Reuse(); pool <- b })
		b.Flows = make([]flow.Flow, 0, size)
		pool <- b
	}
	before := live()
	go func() {
		ended <- e.Run(tb.Context(), profiler.Inputs{Initial: []flow.Input{{Name: "conn", C: c}}}, sink)
	}()
	for from := 0; from < n; from += size {
		b := <-pool
		b.Segment = flow.Segment{Path: "conn.log", Print: "x"}
		for i := from; i < min(from+size, n); i++ {
			f := b.Next()
			f.Reset(flow.Conn)
			f.Time, f.UID = start+int64(i)*gap, fmt.Sprintf("C%017d", i)
			h := uint32(i) * 2654435761 // each address once, in no order
			f.Src = netip.AddrFrom4([4]byte{20, byte(h >> 24), byte(h >> 16), byte(h >> 8)})
			f.Dst, f.SrcPort, f.HasPorts, f.Proto = netip.MustParseAddr("192.168.1.10"), uint16(1024+i%60000), true, flow.TCP
			s.flow(i, f)
		}
		c <- b
	}
	<-sink.there
	held := live() - before
	if got := e.Stats().Snapshot().Profiles; got < int64(n)*9/10 {
		tb.Fatalf("%d profiles of %d hosts", got, n)
	}
	close(c)
	if err := <-ended; err != nil {
		tb.Fatal(err)
	}
	return float64(held) / float64(n)
}

// TestStrangers keeps what a host costs that was seen once from growing back
// into kilobytes: a flood with forged sources makes as many as profiles.max_profiles
// allows, and each of the modules only adds a little.
func TestStrangers(t *testing.T) {
	for _, s := range strangers() {
		t.Run(s.name, func(t *testing.T) {
			if per := keep(t, s, 16_000); per > s.most {
				t.Errorf("a host that sent one flow takes %.0f bytes, more than %.0f", per, s.most)
			}
		})
	}
}

// BenchmarkStrangers tells how many bytes a host takes that sent one flow.
func BenchmarkStrangers(b *testing.B) {
	for _, s := range strangers() {
		b.Run(s.name, func(b *testing.B) {
			var per float64
			for b.Loop() {
				per = keep(b, s, 16_000)
			}
			b.ReportMetric(per, "B/host")
		})
	}
}
