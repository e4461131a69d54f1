package all

import (
	"container/heap"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// timer is one that a module set.
type timer struct {
	at, seq int64
	key     uint64
}

type timers []timer

func (h timers) Len() int { return len(h) }
func (h timers) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h timers) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *timers) Push(x any)   { t, _ := x.(timer); *h = append(*h, t) }
func (h *timers) Pop() any {
	t := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return t
}

// hold runs one module over the records of one host, timers included, and
// returns how many bytes it then holds.
func hold(t *testing.T, spec modules.Spec, records func(yield func(*flow.Flow))) (bytes, found int64) {
	t.Helper()
	run, err := spec.New(spec.Defaults(), modules.Env{Width: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var due timers
	st, n := run.NewState(), int64(0)
	h := &modules.Host{Net: &profile.Network{Home: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
	h.Emit = func(evidence.Evidence) { found++ }
	h.At = func(t int64) profile.Window { return profile.WindowOf(t, 0, int64(time.Hour)) }
	h.After = func(d time.Duration, key uint64) {
		n++
		heap.Push(&due, timer{h.Now + int64(d), n, key})
	}
	cx := modules.NewContext(h)
	chooser := run.Chooser()
	records(func(f *flow.Flow) {
		if !spec.Kinds.Has(f.Kind) || chooser != nil && !chooser.Wants(f) {
			return
		}
		for len(due) > 0 && due[0].at <= f.Time {
			x, _ := heap.Pop(&due).(timer)
			h.Now, h.Record, h.Window = x.at, 0, h.At(x.at)
			run.Fire(cx, st, x.key)
		}
		h.Now, h.Record, h.Profile, h.Window = f.Time, f.Time, f.Src, h.At(f.Time)
		run.Handle(cx, st, f)
	})
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(st)
	runtime.KeepAlive(due)
	return int64(after.HeapAlloc) - int64(before.HeapAlloc), found
}

// A single host may do what it wants: all modules with a state per window or
// profile together hold less than 4 MB of it, and one with a state for the whole
// network less than what it is allowed for all hosts. The records come within
// one time window, which is the worst.
func TestBounds(t *testing.T) {
	if testing.Short() {
		t.Skip("millions of records")
	}
	const limit, network = 4 << 20, 16 << 20
	src := netip.MustParseAddr("10.0.0.1")
	resolver := netip.MustParseAddr("10.0.0.53")
	host := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}) }
	base := func(f *flow.Flow, kind flow.Kind, i, of int) {
		f.Reset(kind)
		f.Seq, f.Time = uint64(i)+1, int64(i)*int64(50*time.Minute)/int64(of)
		f.At, f.Own, f.Low = f.Time, f.Time, f.Time
		f.Src, f.SrcPort, f.HasPorts, f.Proto = src, uint16(1024+i%60000), true, flow.TCP
		f.UID = fmt.Sprintf("C%017d", i)
	}
	for _, tt := range []struct {
		name    string
		records func(yield func(*flow.Flow))
	}{
		{"a scanner of 100,000 targets", func(yield func(*flow.Flow)) {
			var f flow.Flow
			for i := range 100_000 {
				base(&f, flow.Conn, i, 100_000)
				f.Dst, f.DstPort, f.State, f.RawState, f.History, f.OrigPkts = host(i), uint16(1+i%7*1000), flow.NotEstablished, "S0", "S", 1
				if i%10 == 0 {
					f.State, f.RawState, f.History, f.RespPkts, f.OrigBytes, f.RespBytes = flow.Established, "SF", "ShADadFf", 3, 100, 100
				}
				yield(&f)
			}
		}},
		{"a resolver of a million names", func(yield func(*flow.Flow)) {
			var f flow.Flow
			for i := range 1_000_000 {
				base(&f, flow.DNS, i, 1_000_000)
				f.Dst, f.DstPort, f.Proto = resolver, 53, flow.UDP
				f.DNS.Query = fmt.Sprintf("n%d.site%d.com", i, i/3)
				f.DNS.QType, f.DNS.Response, f.DNS.RCode = "A", true, "NOERROR"
				if i%4 == 0 {
					f.DNS.RCode = "NXDOMAIN"
				} else {
					f.DNS.Answers = append(f.DNS.Answers[:0], host(i).String())
				}
				yield(&f)
				if i%4 == 1 {
					base(&f, flow.Conn, i, 1_000_000)
					f.Dst, f.DstPort, f.Proto, f.Service = resolver, 53, flow.UDP, "dns"
					f.State, f.RawState, f.OrigPkts, f.RespPkts, f.OrigBytes, f.RespBytes = flow.Established, "SF", 1, 1, 40, 80
					yield(&f)
				}
			}
		}},
		{"a proxy with 10,000 user agents", func(yield func(*flow.Flow)) {
			var f flow.Flow
			for i := range 100_000 {
				base(&f, flow.HTTP, i, 100_000)
				f.Dst, f.DstPort = host(i%20_000), 80
				f.HTTP.Method, f.HTTP.Host, f.HTTP.URI = "GET", fmt.Sprintf("www.site%d.com", i%20_000), fmt.Sprintf("/a/%d", i)
				f.HTTP.UserAgent = fmt.Sprintf("Mozilla/5.0 (Windows NT 10.0; Win64; x64) Thing/%d.0", i%10_000)
				f.HTTP.StatusCode = 200
				yield(&f)
				base(&f, flow.Conn, i, 100_000)
				f.Dst, f.DstPort, f.Service = host(i%20_000), 80, "http"
				f.State, f.RawState, f.History, f.OrigPkts, f.RespPkts, f.OrigBytes, f.RespBytes = flow.Established, "SF", "ShADadFf", 5, 5, 400, 9000
				f.Duration = int64(i%90) * int64(time.Second)
				yield(&f)
				base(&f, flow.SSL, i, 100_000)
				f.Dst, f.DstPort = host(i%20_000), 443
				f.SSL.ServerName, f.SSL.JA3 = fmt.Sprintf("www.site%d.com", i%20_000), fmt.Sprintf("%032x", i%10_000)
				f.SSL.Subject, f.SSL.Issuer = "CN=self", "CN=self"
				yield(&f)
			}
		}},
		{"a peer of 100,000 peers", func(yield func(*flow.Flow)) {
			var f flow.Flow
			for i := range 200_000 {
				base(&f, flow.Conn, i, 200_000)
				f.Dst, f.DstPort, f.State, f.RawState, f.OrigPkts = host(i/2), uint16(20000+i*7%40000), flow.Established, "SF", 3
				f.History, f.RespPkts, f.OrigBytes, f.RespBytes, f.Duration = "Dd", 3, 300, 300, int64(time.Minute)
				if i%2 == 0 {
					f.Proto = flow.UDP
				}
				yield(&f)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			total := int64(0)
			for _, spec := range Specs() {
				n, found := hold(t, spec, tt.records)
				if n > 100<<10 {
					t.Logf("%s, state per %s: %d KB, %d evidence", spec.Name, spec.Scope, n>>10, found)
				}
				if spec.Scope != modules.Network {
					total += max(n, 0)
				} else if n > network {
					t.Errorf("%s holds %d bytes, more than %d", spec.Name, n, network)
				}
			}
			t.Logf("all modules with a state of their own for the host: %d KB", total>>10)
			if total > limit {
				t.Errorf("the modules hold %d bytes of one host, more than %d", total, limit)
			}
		})
	}
}
