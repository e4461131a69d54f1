package icmpscan

import (
	"fmt"
	"math"
	"net/netip"
	"runtime"
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

func ask(n int, typ uint16) flow.Flow {
	return flow.Flow{
		Kind: flow.Conn, Src: attacker, Dst: modtest.Public(n), SrcPort: typ, HasPorts: true, Proto: flow.ICMP,
		State: flow.NotEstablished, OrigPkts: 1, UID: fmt.Sprint("C", n),
	}
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		c    Config
		want string
	}{
		{Config{MinHosts: 1}, "module icmpscan: min_hosts: 1 is not in 2..65536"},
		{Config{MinHosts: 1 << 40}, "module icmpscan: min_hosts: 1099511627776 is not in 2..65536"},
	} {
		if _, err := Spec.New(&tt.c, modules.Env{}); err == nil || err.Error() != tt.want {
			t.Errorf("%+v: got %v, want %s", tt.c, err, tt.want)
		}
	}
}

func TestJudge(t *testing.T) {
	asks := func(n int, apart int64) (a []Ask) {
		for i := range n {
			a = append(a, Ask{Time: int64(i) * apart})
		}
		return a
	}
	const sec = int64(1e9)
	for _, tt := range []struct {
		name          string
		hosts, silent int64
		latest        []Ask
		level         evidence.Level
		want          float64
	}{
		{"few", 6, 1, asks(6, 60*sec), evidence.Medium, 0.3},
		{"few that answer", 6, 0, asks(6, sec), evidence.Low, 0.3},
		{"the reference at 100", 100, 10, asks(100, sec), evidence.Medium, 0.38},
		{"the reference at 130", 130, 13, asks(100, 60*sec), evidence.Medium, 0.5},
		{"the reference at 255", 255, 30, asks(100, 60*sec), evidence.Medium, 1},
		{"a burst into silence", 12, 3, asks(12, sec/2), evidence.High, 1},
		{"half as large", 6, 2, asks(6, sec/2), evidence.High, 0.5},
		{"a list of hosts that answer, but one", 12, 1, asks(12, sec/2), evidence.Low, 0.3},
		{"silence, slowly", 12, 12, asks(12, 60*sec), evidence.Medium, 0.3},
	} {
		s := Sweep{Hosts: tt.hosts, Silent: tt.silent, Latest: tt.latest}
		level, c := s.judge(tt.latest[len(tt.latest)-1].Time, 6)
		if level != tt.level || c != tt.want {
			t.Errorf("%s: got %s %v, want %s %v", tt.name, level, c, tt.level, tt.want)
		}
	}
}

func TestRequest(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    flow.Flow
		want int
	}{
		{"echo", flow.Flow{Proto: flow.ICMP, SrcPort: 8, HasPorts: true}, echo},
		{"echo of IPv6", flow.Flow{Proto: flow.ICMP6, SrcPort: 128, HasPorts: true}, echo},
		{"echo of IPv6 as Zeek writes it", flow.Flow{Proto: flow.ICMP, Dst: netip.MustParseAddr("2001:db8::1"), SrcPort: 128, HasPorts: true}, echo},
		{"type 8 of IPv6, which is not assigned", flow.Flow{Proto: flow.ICMP, Dst: netip.MustParseAddr("2001:db8::1"), SrcPort: 8, HasPorts: true}, none},
		{"type 128 of IPv4", flow.Flow{Proto: flow.ICMP, Dst: modtest.Public(1), SrcPort: 128, HasPorts: true}, none},
		{"echo of Argus without a type", flow.Flow{Proto: flow.ICMP, State: flow.ICMPEcho}, echo},
		{"timestamp", flow.Flow{Proto: flow.ICMP, SrcPort: 13, DstPort: 14, HasPorts: true}, timestamp},
		{"address mask", flow.Flow{Proto: flow.ICMP, SrcPort: 17, DstPort: 18, HasPorts: true}, mask},
		{"code in the upper byte", flow.Flow{Proto: flow.ICMP, SrcPort: 0x0108, HasPorts: true}, echo},
		{"echo reply", flow.Flow{Proto: flow.ICMP, SrcPort: 0, HasPorts: true}, none},
		{"timestamp reply", flow.Flow{Proto: flow.ICMP, SrcPort: 14, HasPorts: true}, none},
		{"unreachable", flow.Flow{Proto: flow.ICMP, SrcPort: 3, DstPort: 3, HasPorts: true}, none},
		{"neighbour solicitation", flow.Flow{Proto: flow.ICMP6, SrcPort: 135, HasPorts: true}, none},
		{"packet too big, which is no timestamp there", flow.Flow{Proto: flow.ICMP6, SrcPort: 13, HasPorts: true}, none},
		{"type not logged", flow.Flow{Proto: flow.ICMP}, none},
	} {
		if got := request(&tt.f); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}

func steps(es []evidence.Evidence) string {
	var s []string
	for _, e := range es {
		s = append(s, fmt.Sprintf("%s%d:%d/%.2f", strings.SplitAfter(string(e.Type), "_")[1][:1], e.Step, e.Count, e.Confidence))
	}
	return strings.Join(s, " ")
}

func TestSteps(t *testing.T) {
	for _, tt := range []struct {
		name string
		feed func(h func(flow.Flow))
		want string
	}{
		{"five hosts, often", func(h func(flow.Flow)) {
			for i := range 500 {
				h(ask(i%5, 8))
			}
		}, ""},
		{"6, 9, 12, 18 …", func(h func(flow.Flow)) {
			for i := range 192 {
				h(ask(i, 8))
			}
		}, "A1:6/0.50 A2:9/0.75 A3:12/1.00 A4:18/1.00 A5:24/1.00 A6:36/1.00 A7:48/1.00 A8:72/1.00 A9:96/1.00 A10:144/1.00 A11:192/1.00"},
		{"each sort apart", func(h func(flow.Flow)) {
			for i := range 15 {
				h(ask(i, []uint16{8, 13, 17}[i%3]))
			}
		}, ""},
		{"all three sorts", func(h func(flow.Flow)) {
			for i := range 18 {
				h(ask(i, []uint16{8, 13, 17}[i%3]))
			}
		}, "A1:6/0.50 T1:6/0.50 A1:6/0.50"},
		{"multicast and link-local targets", func(h func(flow.Flow)) {
			for i := range 20 {
				f := ask(i, 128)
				f.Proto = flow.ICMP6
				f.Dst = netip.MustParseAddr(fmt.Sprintf("ff02::%x", i+1))
				h(f)
				f.Dst = netip.MustParseAddr(fmt.Sprintf("fe80::%x", i+1))
				h(f)
			}
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, reload := range []bool{false, true} {
				b := modtest.NewBench[State](t, Spec, Spec.Defaults())
				tt.feed(func(f flow.Flow) {
					b.Handle(&f)
					if reload {
						b.Reload()
					}
				})
				if got := steps(b.Evidence); got != tt.want {
					t.Errorf("reload %v: got %s\nwant %s", reload, got, tt.want)
				}
			}
		})
	}
}

func TestServerSide(t *testing.T) {
	b := modtest.NewBench[State](t, Spec, Spec.Defaults())
	b.Host.Role = profile.Server
	for i := range 10 {
		f := ask(i, 8)
		b.Handle(&f)
	}
	if len(b.Evidence) != 0 {
		t.Errorf("the host that was asked is blamed: %v", b.Evidence)
	}
}

func TestUIDs(t *testing.T) {
	b := modtest.NewBench[State](t, Spec, Spec.Defaults())
	for i := range 384 {
		f := ask(i, 8)
		b.Handle(&f)
		if i%50 == 0 {
			b.Reload()
		}
	}
	last := b.Evidence[len(b.Evidence)-1]
	var want []string
	for i := 284; i < 384; i++ {
		want = append(want, fmt.Sprint("C", i))
	}
	if diff := cmp.Diff(want, last.UIDs); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestBounds(t *testing.T) {
	const targets = 300_000
	b := modtest.NewBench[State](t, Spec, Spec.Defaults())
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range targets {
		f := ask(i, 8)
		b.Handle(&f)
		b.Handle(&f)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if got := int64(after.HeapAlloc) - int64(before.HeapAlloc); got > 4_000_000 {
		t.Errorf("state takes %d bytes, more than 4 MB", got)
	}
	s := b.State.sweep(echo)
	if e := math.Abs(float64(s.Hosts)/targets - 1); e > 0.02 {
		t.Errorf("counted %d of %d, off by %.3f", s.Hosts, targets, e)
	}
	if s.Seen.Len() > maxSeen {
		t.Errorf("%d fingerprints kept, at most %d wanted", s.Seen.Len(), maxSeen)
	}
	if d := b.Evidence[len(b.Evidence)-1].Description; !strings.Contains(d, "about ") {
		t.Errorf("an estimate is not called one: %s", d)
	}
}

// The sweeps of real captures are told, of the host that makes them alone.
func TestRealSweeps(t *testing.T) {
	for _, tt := range []struct {
		file, attacker string
		want           []evidence.Type
	}{
		{"pcap/zeek-logs/test12-icmp-portscan/conn.log", "192.168.1.109", []evidence.Type{Address}},
		{"zeek/portscan/conn.log", "172.16.1.11", []evidence.Type{Address, Timestamp, Mask}},
		{"argus/test11-portscan.binetflow", "10.8.0.69", []evidence.Type{Address}},
		{"argus/benign-bittorrent-normal-7.binetflow", "", nil},
		{"benign/ubuntu-2023-02-25/conn.log.labeled", "", nil},
	} {
		t.Run(tt.file, func(t *testing.T) {
			left := map[evidence.Type]bool{}
			for _, w := range tt.want {
				left[w] = true
			}
			for _, e := range modtest.Evidence(t, Spec, modtest.Datasets(t, tt.file)...) {
				if e.Attacker.Value != tt.attacker {
					t.Errorf("%q is blamed: %s", e.Attacker.Value, e.Description)
				}
				delete(left, e.Type)
			}
			if len(left) > 0 {
				t.Errorf("not told: %v", left)
			}
		})
	}
}
