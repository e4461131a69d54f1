package upload

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, Spec, "testdata/*.txtar") }

var attacker = netip.MustParseAddr("10.0.0.1")

func send(n int, bytes int64) flow.Flow {
	return flow.Flow{
		Kind: flow.Conn, Src: attacker, Dst: modtest.Public(n), SrcPort: 40000, DstPort: 443, HasPorts: true, Proto: flow.TCP,
		State: flow.Established, OrigBytes: bytes, UID: "C1",
	}
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		c    Config
		want string
	}{
		{Config{FlowMB: 0, DataExfiltrationThreshold: 500}, "module upload: flow_mb: 0 is not in 1..9223372036854"},
		{Config{FlowMB: 100, DataExfiltrationThreshold: -1}, "module upload: data_exfiltration_threshold: -1 is not in 1..9223372036854"},
	} {
		if _, err := Spec.New(&tt.c, modules.Env{}); err == nil || err.Error() != tt.want {
			t.Errorf("%+v: got %v, want %s", tt.c, err, tt.want)
		}
	}
}

func list(es []evidence.Evidence) string {
	var s []string
	for _, e := range es {
		s = append(s, fmt.Sprintf("%s@%d %s:%d", e.Subject, e.Step, e.Level, e.Count))
	}
	return strings.Join(s, ", ")
}

func TestSteps(t *testing.T) {
	for _, tt := range []struct {
		name string
		feed func(h func(flow.Flow))
		want string // subject@step level:flows
	}{
		{"one flow, a byte short", func(h func(flow.Flow)) { h(send(1, 100*mb-1)) }, ""},
		{"one flow", func(h func(flow.Flow)) { h(send(1, 100*mb)) }, "20.0.0.1|flow@1 low:1"},
		{"one flow as large again", func(h func(flow.Flow)) {
			h(send(1, 100*mb))
			h(send(1, 101*mb))
			h(send(1, 200*mb))
		}, "20.0.0.1|flow@1 low:1, 20.0.0.1|flow@2 low:1"},
		{"many flows, a byte short", func(h func(flow.Flow)) {
			h(send(1, 10*mb-1))
			for range 49 {
				h(send(1, 10*mb))
			}
		}, ""},
		{"many flows", func(h func(flow.Flow)) {
			for range 200 {
				h(send(1, 10*mb))
			}
		}, "20.0.0.1|total@1 medium:50, 20.0.0.1|total@2 medium:100, 20.0.0.1|total@3 medium:200"},
		{"one flow that is both is told once", func(h func(flow.Flow)) {
			h(send(1, 700*mb))
			h(send(1, 150*mb))
		}, "20.0.0.1|total@1 medium:1"},
		{"hosts apart", func(h func(flow.Flow)) {
			for i := range 98 {
				h(send(i%2, 10*mb))
			}
		}, ""},
		{"to a file server", func(h func(flow.Flow)) {
			f := send(1, 600*mb)
			f.Dst = netip.MustParseAddr("192.168.1.5")
			h(f)
		}, "192.168.1.5|total@1 info:1"},
		{"gateway, multicast, broadcast, link-local, reserved, none", func(h func(flow.Flow)) {
			for _, a := range []string{"10.0.0.254", "239.1.1.1", "255.255.255.255", "169.254.1.1", "fe80::1", "241.0.0.1", "ff02::1"} {
				f := send(1, 600*mb)
				f.Dst = netip.MustParseAddr(a)
				h(f)
			}
			f := send(1, 600*mb)
			f.Dst = netip.Addr{}
			h(f)
		}, ""},
		{"received, not sent", func(h func(flow.Flow)) {
			f := send(1, 0)
			f.RespBytes = 600 * mb
			h(f)
		}, ""},
		{"payload out of thin air", func(h func(flow.Flow)) {
			f := send(1, 4_294_967_000)
			f.OrigIPBytes = 1200
			h(f)
		}, ""},
		{"payload smaller than its packets", func(h func(flow.Flow)) {
			f := send(1, 120*mb)
			f.OrigIPBytes = 125 * mb
			h(f)
		}, "20.0.0.1|flow@1 low:1"},
		{"open and growing, then ended, is added up once", func(h func(flow.Flow)) {
			for i := range 5 {
				f := send(1, int64(i)*90*mb)
				f.Open = true
				h(f)
			}
			h(send(1, 370*mb))
			h(send(1, 129*mb))
			h(send(1, 1*mb))
		}, "20.0.0.1|flow@1 low:1, 20.0.0.1|flow@2 low:1, 20.0.0.1|total@1 medium:3"},
		{"as much as a log can say", func(h func(flow.Flow)) {
			h(send(1, math.MaxInt64))
			h(send(1, math.MaxInt64))
			h(send(1, math.MinInt64))
		}, "20.0.0.1|total@35 medium:1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, reload := range []bool{false, true} {
				b := modtest.NewBench[State](t, Spec, Spec.Defaults())
				b.Host.Net = &profile.Network{Gateway: netip.MustParseAddr("10.0.0.254")}
				tt.feed(func(f flow.Flow) {
					b.Handle(&f)
					if reload {
						b.Reload()
					}
				})
				if got := list(b.Evidence); got != tt.want {
					t.Errorf("reload %v: got %s\nwant %s", reload, got, tt.want)
				}
			}
		})
	}
}

// The sum of many small flows is estimated: of whatever size they are, it is
// right to a few per cent when it reaches the threshold.
func TestSmallFlows(t *testing.T) {
	for _, size := range []int64{700, 6000, 70_000, 499_999} {
		b := modtest.NewBench[State](t, Spec, Spec.Defaults())
		at, calls, c := int64(0), 0, b.Runner.Chooser()
		for ; len(b.Evidence) == 0 && at*size < 1000*mb; at++ {
			f := send(1, size)
			f.Time = at * 1e6
			if c.Wants(&f) {
				calls++
				b.Handle(&f)
			}
		}
		if sent := at * size; sent < 450*mb || sent > 550*mb {
			t.Errorf("flows of %d bytes: %d bytes are taken for 500 MB", size, sent)
		}
		if calls > 1100 {
			t.Errorf("flows of %d bytes: %d were looked at", size, calls)
		}
		if n := b.Evidence[0].Count; n < at*8/10 || n > at*12/10 {
			t.Errorf("flows of %d bytes: %d are taken for %d", size, at, n)
		}
	}
}

// Nothing known about the network is no reason to fall over.
func TestNoNetwork(t *testing.T) {
	b := modtest.NewBench[State](t, Spec, Spec.Defaults())
	f := send(1, 600*mb)
	b.Handle(&f)
	if len(b.Evidence) != 1 {
		t.Errorf("got %v", b.Evidence)
	}
}

func TestServerSide(t *testing.T) {
	b := modtest.NewBench[State](t, Spec, Spec.Defaults())
	b.Host.Role = profile.Server
	f := send(1, 600*mb)
	b.Handle(&f)
	if len(b.Evidence) != 0 {
		t.Errorf("the host that received is blamed: %v", b.Evidence)
	}
}

func TestUIDs(t *testing.T) {
	b := modtest.NewBench[State](t, Spec, Spec.Defaults())
	for i := range 60 {
		f := send(1, 10*mb)
		f.UID = fmt.Sprint("C", i)
		b.Handle(&f)
		f = send(1, 5000) // too small to be named
		b.Handle(&f)
	}
	var want []string
	for i := 30; i < 50; i++ {
		want = append(want, fmt.Sprint("C", i))
	}
	if diff := cmp.Diff(want, b.Evidence[0].UIDs); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// The destinations that got most are kept.
func TestBounds(t *testing.T) {
	b := modtest.NewBench[State](t, Spec, Spec.Defaults())
	f := send(0, 400*mb)
	b.Handle(&f)
	for i := range 100_000 {
		f := send(1+i, 10_000)
		b.Handle(&f)
	}
	f = send(0, 99*mb)
	b.Handle(&f)
	f = send(0, 1*mb)
	b.Handle(&f)
	if n := b.State.Hosts.Len(); n > maxHosts {
		t.Errorf("%d hosts kept, at most %d wanted", n, maxHosts)
	}
	if got, want := list(b.Evidence), "20.0.0.0|flow@3 low:1, 20.0.0.0|total@1 medium:3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNoAllocation(t *testing.T) {
	b := modtest.NewBench[State](t, Spec, Spec.Defaults())
	f := send(1, 20_000)
	b.Handle(&f)
	if n := testing.AllocsPerRun(100, func() { b.Handle(&f) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
