package portscan

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, Spec, "testdata/*.txtar") }

var defaults = Config{MinPorts: 6, MinHosts: 6}

var attacker = netip.MustParseAddr("10.0.0.1")

func syn(dst netip.Addr, port uint16) flow.Flow {
	return flow.Flow{
		Kind: flow.Conn, Src: attacker, Dst: dst, SrcPort: 40000, DstPort: port, HasPorts: true, Proto: flow.TCP,
		State: flow.NotEstablished, RawState: "S0", History: "S", OrigPkts: 1, UID: "C1",
	}
}

func ok(f flow.Flow) flow.Flow {
	f.State, f.RawState, f.History, f.RespPkts, f.RespBytes = flow.Established, "SF", "ShADadFf", 5, 300
	return f
}

func udp(f flow.Flow) flow.Flow {
	f.Proto, f.History = flow.UDP, "D"
	return f
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		c    Config
		want string
	}{
		{Config{MinPorts: 1, MinHosts: 6}, "module portscan: min_ports: 1 is not in 2..65535"},
		{Config{MinPorts: 6, MinHosts: 70000}, "module portscan: min_hosts: 70000 is not in 2..65535"},
		{Config{MinPorts: -6, MinHosts: 6}, "module portscan: min_ports: -6 is not in 2..65535"},
	} {
		if _, err := Spec.New(&tt.c, modules.Env{}); err == nil || err.Error() != tt.want {
			t.Errorf("%+v: got %v, want %s", tt.c, err, tt.want)
		}
	}
}

func TestOutcome(t *testing.T) {
	with := func(edit func(*flow.Flow)) flow.Flow {
		f := syn(modtest.Public(1), 80)
		edit(&f)
		return f
	}
	for _, tt := range []struct {
		name string
		f    flow.Flow
		want outcome
	}{
		{"no answer", syn(modtest.Public(1), 80), failure},
		{"established", ok(syn(modtest.Public(1), 80)), success},
		{"state not logged", with(func(f *flow.Flow) { f.State = flow.StateUnknown }), ignored},
		{"a Zeek log without states", with(func(f *flow.Flow) { f.RawState = "" }), ignored},
		{"suricata judges by packets", with(func(f *flow.Flow) { f.Sensor, f.RawState, f.History = flow.Suricata, "", "" }), failure},
		{"still open", with(func(f *flow.Flow) { f.Open = true }), ignored},
		{"turned round by Zeek", with(func(f *flow.Flow) { f.History = "^hA" }), ignored},
		{"only the responder seen", with(func(f *flow.Flow) { f.OrigPkts, f.RespPkts, f.RawState = 0, 1, "SHR" }), ignored},
		{"no packets logged", with(func(f *flow.Flow) { f.OrigPkts = 0 }), failure},
		{"reset after payload", with(func(f *flow.Flow) { f.RespBytes, f.RespPkts = 500, 4 }), success},
		{"refused", with(func(f *flow.Flow) { f.RawState, f.History, f.RespPkts = "REJ", "Sr", 1 }), failure},
		{"argus refused", with(func(f *flow.Flow) {
			f.Sensor, f.RawState, f.History, f.RespPkts, f.RespBytes = flow.Argus, "S_RA", "", 1, 60
		}), failure},
		{"argus tail of a connection", with(func(f *flow.Flow) {
			f.Sensor, f.RawState, f.History, f.RespPkts, f.RespBytes = flow.Argus, "FA_FA", "", 1, 60
		}), success},
		{"argus server pushed", with(func(f *flow.Flow) {
			f.Sensor, f.RawState, f.History, f.RespPkts, f.RespBytes = flow.Argus, "FRPA_PA", "", 9, 900
		}), success},
		{"udp silent", udp(syn(modtest.Public(1), 53)), failure},
		{"udp answered whatever the state says", with(func(f *flow.Flow) { *f = udp(*f); f.RespPkts = 1 }), success},
		{"dns server answers unseen queries", with(func(f *flow.Flow) { *f = udp(*f); f.SrcPort, f.DstPort = 53, 5353 }), ignored},
		{"ssdp answers", with(func(f *flow.Flow) { *f = udp(*f); f.SrcPort, f.DstPort = 1900, 44232 }), ignored},
		{"udp scan from a low port of a low port", with(func(f *flow.Flow) { *f = udp(*f); f.SrcPort, f.DstPort = 53, 161 }), failure},
		{"web server's leftovers", with(func(f *flow.Flow) { f.SrcPort, f.DstPort, f.History = 443, 51000, "A" }), ignored},
		{"syn from a low port", with(func(f *flow.Flow) { f.SrcPort, f.DstPort = 20, 8080 }), failure},
		{"syn from a low port, no history", with(func(f *flow.Flow) { f.SrcPort, f.DstPort, f.History = 20, 8080, "" }), failure},
		{"argus syn from a low port", with(func(f *flow.Flow) {
			f.Sensor, f.History, f.RawState, f.SrcPort, f.DstPort = flow.Argus, "", "S_", 20, 8080
		}), failure},
		{"suricata from a low port", with(func(f *flow.Flow) {
			f.Sensor, f.History, f.RawState, f.SrcPort, f.DstPort = flow.Suricata, "", "new", 80, 8080
		}), ignored},
	} {
		if got := outcomeOf(&tt.f); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}

// What may not be counted at all leaves no trace in the state.
func TestIgnored(t *testing.T) {
	for _, tt := range []struct {
		name string
		role profile.Role
		edit func(*flow.Flow)
	}{
		{"server side", profile.Server, func(*flow.Flow) {}},
		{"icmp", profile.Client, func(f *flow.Flow) { f.Proto = flow.ICMP }},
		{"no ports", profile.Client, func(f *flow.Flow) { f.HasPorts = false }},
		{"multicast", profile.Client, func(f *flow.Flow) { f.Dst = netip.MustParseAddr("239.1.1.1") }},
		{"broadcast", profile.Client, func(f *flow.Flow) { f.Dst = netip.MustParseAddr("255.255.255.255") }},
		{"broadcast of a home network", profile.Client, func(f *flow.Flow) {
			*f = udp(*f)
			f.Dst = netip.MustParseAddr("10.1.2.255")
		}},
		{"link-local target", profile.Client, func(f *flow.Flow) { f.Dst = netip.MustParseAddr("fe80::1") }},
		{"link-local source", profile.Client, func(f *flow.Flow) { f.Src = netip.MustParseAddr("169.254.1.1") }},
		{"no target", profile.Client, func(f *flow.Flow) { f.Dst = netip.Addr{} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := modtest.NewBench[State](t, Spec, &defaults)
			b.Host.Role = tt.role
			b.Host.Net = &profile.Network{Home: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
			for _, o := range []flow.State{flow.NotEstablished, flow.Established} {
				f := syn(modtest.Public(1), 80)
				f.State = o
				tt.edit(&f)
				b.Handle(&f)
			}
			if diff := cmp.Diff(&State{}, b.State); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A .255 is no broadcast to TCP, outside the home networks, or when they are
// not known.
func TestBroadcastIsNotForAll(t *testing.T) {
	home := &profile.Network{Home: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	in, out := netip.MustParseAddr("10.1.2.255"), netip.MustParseAddr("20.1.2.255")
	for _, tt := range []struct {
		name string
		net  *profile.Network
		f    flow.Flow
	}{
		{"TCP", home, syn(in, 80)},
		{"foreign network", home, udp(syn(out, 161))},
		{"no home network", &profile.Network{}, udp(syn(in, 161))},
		{"nothing known", nil, udp(syn(in, 161))},
		{"another host", home, udp(syn(in.Prev(), 161))},
	} {
		b := modtest.NewBench[State](t, Spec, &defaults)
		b.Host.Net = tt.net
		b.Handle(&tt.f)
		if b.State.One.Flows != 1 {
			t.Errorf("%s: not counted", tt.name)
		}
	}
}

func steps(es []evidence.Evidence) string {
	var s []string
	for _, e := range es {
		s = append(s, fmt.Sprintf("%c%d:%d/%.2f", e.Type[0], e.Step, e.Count, e.Confidence))
	}
	return strings.Join(s, " ")
}

func TestSteps(t *testing.T) {
	for _, tt := range []struct {
		name string
		feed func(handle func(flow.Flow))
		want string // type and step : flows / confidence
	}{
		{"vertical, at 6 9, 12, 18, 24 …", func(h func(flow.Flow)) {
			for p := range 48 {
				h(syn(modtest.Public(1), uint16(p+1)))
			}
		}, "V1:6/0.50 V2:9/0.75 V3:12/1.00 V4:18/1.00 V5:24/1.00 V6:36/1.00 V7:48/1.00"},
		{"horizontal, at 6 9, 12, 18, 24 …", func(h func(flow.Flow)) {
			for n := range 48 {
				h(syn(modtest.Public(n), 445))
			}
		}, "H1:6/0.50 H2:9/0.75 H3:12/1.00 H4:18/1.00 H5:24/1.00 H6:36/1.00 H7:48/1.00"},
		{"five are no scan, however often", func(h func(flow.Flow)) {
			for i := range 500 {
				h(syn(modtest.Public(i%5), 445))
				h(syn(modtest.Public(9), uint16(1000+i%5)))
			}
		}, ""},
		{"repetitions count as flows", func(h func(flow.Flow)) {
			for i := range 11 {
				h(syn(modtest.Public(i/2), 445))
			}
		}, "H1:11/0.50"},
		{"protocols apart", func(h func(flow.Flow)) {
			for n := range 10 {
				f := syn(modtest.Public(n), 53)
				if n%2 == 0 {
					f = udp(f)
				}
				h(f)
			}
		}, ""},
		{"tcp does not hide udp", func(h func(flow.Flow)) {
			for p := range 6 {
				h(syn(modtest.Public(1), uint16(p+1)))
			}
			for p := range 6 {
				h(udp(syn(modtest.Public(1), uint16(p+1))))
			}
		}, "V1:6/0.50 V1:6/0.50"},
		{"a pair that worked before is no target", func(h func(flow.Flow)) {
			for n := range 6 {
				h(ok(syn(modtest.Public(n), 445)))
				h(syn(modtest.Public(n), 445))
			}
		}, ""},
		{"a pair that works later is taken back", func(h func(flow.Flow)) {
			for n := range 5 {
				h(syn(modtest.Public(n), 445))
			}
			h(ok(syn(modtest.Public(0), 445)))
			h(syn(modtest.Public(5), 445))
			h(syn(modtest.Public(6), 445))
		}, "H1:7/0.50"},
		{"a resolver's dead servers", func(h func(flow.Flow)) {
			for n := range 1000 {
				f := udp(syn(modtest.Public(n), 53))
				if n%20 != 0 {
					f = ok(f)
				}
				h(f)
			}
		}, ""},
		{"half of the web servers dead: doubt", func(h func(flow.Flow)) {
			for n := range 12 {
				f := syn(modtest.Public(n), 443)
				if n%2 == 0 {
					f = ok(f)
				}
				h(f)
			}
		}, "H1:6/0.50"},
		{"peers that went away", func(h func(flow.Flow)) {
			for n := range 500 {
				f := udp(syn(modtest.Public(n), uint16(20000+n*7)))
				f.SrcPort, f.OrigPkts = 59370, 2
				if n%50 == 0 {
					f.DstPort = 6881
				}
				h(f)
			}
		}, "H1:6/0.05 H2:9/0.05"},
		{"a block of hosts by ports, all unprivileged", func(h func(flow.Flow)) {
			for n := range 6 {
				for p := range 6 {
					h(syn(modtest.Public(n), uint16(8000+p)))
				}
			}
		}, "V1:6/0.50 V1:6/0.50 V1:6/0.50 V1:6/0.50 V1:6/0.50 " +
			"H1:6/0.50 H1:6/0.50 H1:6/0.50 H1:6/0.50 H1:6/0.50 V1:6/0.50 H1:6/0.50"},
		{"no packets in the log", func(h func(flow.Flow)) {
			for n := range 6 {
				f := syn(modtest.Public(n), 22)
				f.OrigPkts = 0
				h(f)
			}
		}, "H1:6/0.15"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, every := range []int{0, 5} {
				b, n := modtest.NewBench[State](t, Spec, &defaults), 0
				tt.feed(func(f flow.Flow) {
					b.Handle(&f)
					if n++; every > 0 && n%every == 0 {
						b.Reload()
					}
				})
				if got := steps(b.Evidence); got != tt.want {
					t.Errorf("reload each %d: got %s\nwant %s", every, got, tt.want)
				}
			}
		})
	}
}

// A scanner of 100,000 targets is counted well, in little memory.
func TestBounds(t *testing.T) {
	const targets = 100_000
	for _, tt := range []struct {
		name string
		f    func(i int) flow.Flow
	}{
		{"hosts", func(i int) flow.Flow { return syn(modtest.Public(i), 23) }},
		{"ports of two hosts", func(i int) flow.Flow { return syn(modtest.Public(i%2), uint16(i/2)) }},
		{"blocks", func(i int) flow.Flow { return syn(modtest.Public(i/100), uint16(1+i%100)) }},
		{"scattered", func(i int) flow.Flow { return syn(modtest.Public(i), uint16(i*7919)) }},
		{"all answer", func(i int) flow.Flow { return ok(syn(modtest.Public(i), uint16(i*7919))) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := modtest.NewBench[State](t, Spec, &defaults)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			for i := range targets {
				f := tt.f(i)
				f.UID = "CUM0KZ3MLUfNB0cl11"
				b.Handle(&f)
			}
			n := len(b.Evidence)
			b.Evidence = nil
			runtime.GC()
			runtime.ReadMemStats(&after)
			got := int64(after.HeapAlloc) - int64(before.HeapAlloc)
			t.Logf("%d KB, %d evidence", got>>10, n)
			if got > 4_000_000 {
				t.Errorf("state takes %d bytes, more than 4 MB", got)
			}
			if n > 3000 {
				t.Errorf("%d evidence", n)
			}
			runtime.KeepAlive(b)
		})
	}
}

// Beyond what the state can tell apart, counts are estimates, and close ones.
func TestEstimate(t *testing.T) {
	const targets = 300_000
	b := modtest.NewBench[State](t, Spec, &defaults)
	for i := range targets {
		f := syn(modtest.Public(i), 23)
		b.Handle(&f)
		if i%4 == 0 {
			b.Handle(&f) // again, which is no other host
		}
	}
	p := b.State.Many.Ports.Get(uint32(flow.TCP)<<16 | 23)
	if e := math.Abs(float64(p.Pairs)/targets - 1); e > 0.02 {
		t.Errorf("counted %d of %d, off by %.3f", p.Pairs, targets, e)
	}
	if n := b.State.Many.Pairs.Len(); n > maxPairs {
		t.Errorf("%d pairs kept, at most %d wanted", n, maxPairs)
	}
	if last := b.Evidence[len(b.Evidence)-1]; !strings.Contains(last.Description, "about ") {
		t.Errorf("an estimate is not called one: %s", last.Description)
	}
}

// Two runs over traffic that overflows every bound say the same.
func TestDeterministic(t *testing.T) {
	run := func() []evidence.Evidence {
		b := modtest.NewBench[State](t, Spec, &defaults)
		for i := range 150_000 {
			n := i * 2654435761 % 1000003
			f := syn(modtest.Public(n%20000), uint16(n%97))
			if n%5 == 0 {
				f = ok(f)
			}
			f.UID = fmt.Sprint("C", i)
			b.Handle(&f)
		}
		return b.Evidence
	}
	a, c := run(), run()
	if len(a) == 0 {
		t.Fatal("no evidence")
	}
	if diff := cmp.Diff(a, c, cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
		t.Error(diff)
	}
}

func TestUIDs(t *testing.T) {
	b := modtest.NewBench[State](t, Spec, &defaults)
	for i := range 384 {
		f := syn(modtest.Public(i), 22)
		f.UID = fmt.Sprint("C", i)
		b.Handle(&f)
	}
	for _, e := range b.Evidence {
		n := int(e.Count)
		if want := min(n, evidence.MaxUIDs); len(e.UIDs) != want {
			t.Errorf("at %d: %d uids, want %d", n, len(e.UIDs), want)
		}
		if got, want := e.UIDs[len(e.UIDs)-1], fmt.Sprint("C", n-1); got != want {
			t.Errorf("at %d: newest uid %s, want %s", n, got, want)
		}
	}
}

// Flows that are fine cost nothing once their pair is known.
func TestNoAllocation(t *testing.T) {
	b := modtest.NewBench[State](t, Spec, &defaults)
	good, bad := ok(syn(modtest.Public(1), 443)), syn(modtest.Public(2), 443)
	b.Handle(&good)
	b.Handle(&bad)
	for name, f := range map[string]*flow.Flow{"established": &good, "repeated failure": &bad} {
		if n := testing.AllocsPerRun(100, func() { b.Handle(f) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkBenign(b *testing.B) {
	m := modtest.NewBench[State](b, Spec, &defaults)
	var fs []flow.Flow
	for i := range 64 {
		fs = append(fs, ok(syn(modtest.Public(i*31), 443)))
	}
	for i := 0; b.Loop(); i++ {
		m.Handle(&fs[i%64])
	}
}

func BenchmarkScan(b *testing.B) {
	m := modtest.NewBench[State](b, Spec, &defaults)
	for i := 0; b.Loop(); i++ {
		f := syn(modtest.Public(i), 23)
		m.Handle(&f)
	}
}

// What is known to be a scan is told, of the scanner alone.
func TestRealScans(t *testing.T) {
	for _, tt := range []struct {
		file, attacker string
		typ            evidence.Type
		subject        string
		least          float64 // confidence of the surest evidence
	}{
		{"zeek/portscan/conn.log", "172.16.1.11", Vertical, "", 1},
		{"zeek/portscan/conn.log", "172.16.1.11", Horizontal, "", 1},
		{"zeek/horizontal-scan/conn.log", "10.0.2.112", Horizontal, "80/tcp", 0.1},
		{"pcap/zeek-logs/test7-malicious/conn.log", "192.168.2.16", Horizontal, "23/tcp", 1},
		{"argus/test11-portscan.binetflow", "10.8.0.69", Vertical, "14.1.11.113/tcp", 1},
	} {
		t.Run(tt.file, func(t *testing.T) {
			most := 0.0
			for _, e := range modtest.Evidence(t, Spec, modtest.Datasets(t, tt.file)...) {
				if e.Attacker.Value != tt.attacker {
					t.Errorf("%s is blamed: %s", e.Attacker.Value, e.Description)
				}
				if e.Type == tt.typ && (tt.subject == "" || e.Subject == tt.subject) {
					most = max(most, e.Confidence)
				}
			}
			if most < tt.least {
				t.Errorf("%s %s told with confidence %.2f, want at least %.2f", tt.typ, tt.subject, most, tt.least)
			}
		})
	}
}

// The host that is scanned from outside is not the scanner.
func TestRealVictim(t *testing.T) {
	es := modtest.Evidence(t, Spec, modtest.Datasets(t, "suricata/eve-scanned-home.json")...)
	if len(es) == 0 {
		t.Error("no scan found")
	}
	for _, e := range es {
		if strings.HasPrefix(e.Attacker.Value, "192.168.") {
			t.Errorf("%s is blamed: %s", e.Attacker.Value, e.Description)
		}
	}
}

// What benign hosts do in a day weighs next to nothing.
func TestRealBenign(t *testing.T) {
	for file, hosts := range map[string]string{
		"benign/ubuntu-2023-02-25/conn.log.labeled":  "",
		"benign/win7ad-2023-02-26/conn.log.labeled":  "",
		"zeek/mixed-008/data/conn.log.labeled":       "147.32.81.167",
		"zeek/mixed-012/data/conn.log.labeled":       "147.32.83.161",
		"argus/benign-bittorrent-normal-7.binetflow": "10.0.0.46",
	} {
		t.Run(file, func(t *testing.T) {
			sum := 0.0
			for _, e := range modtest.Evidence(t, Spec, modtest.Datasets(t, file)...) {
				if hosts == "" || e.Attacker.Value == hosts {
					sum += e.Level.Value() * e.Confidence
					t.Log(e.Description)
				}
			}
			if sum > 1 {
				t.Errorf("weight %.2f, want at most 1", sum)
			}
		})
	}
}

// The only pair of a host is kept small, and counts in the end as it would
// have from the beginning.
func TestFirstPair(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 2000 {
		lazy := modtest.NewBench[State](t, Spec, &Config{MinPorts: 2, MinHosts: 2})
		eager := modtest.NewBench[State](t, Spec, &Config{MinPorts: 2, MinHosts: 2})
		eager.State.Many = new(Counts)
		pairs := map[netip.AddrPort]bool{}
		for i := range 1 + r.IntN(6) {
			f := syn(modtest.Public(r.IntN(2)), []uint16{80, 80, 80, 5000}[r.IntN(4)])
			if f.UID = fmt.Sprint("C", i); r.IntN(4) == 0 {
				f = ok(f)
			}
			f.OrigPkts = r.Int64N(5)
			pairs[netip.AddrPortFrom(f.Dst, f.DstPort)] = true
			lazy.Handle(&f)
			eager.Handle(&f)
			if r.IntN(4) == 0 {
				lazy.Reload()
			}
		}
		if diff := cmp.Diff(eager.Evidence, lazy.Evidence, cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
			t.Fatalf("run %d: the evidence differs: %s", n, diff)
		}
		if lazy.State.Many == nil {
			if len(pairs) > 1 {
				t.Fatalf("run %d: %d pairs are kept as one", n, len(pairs))
			}
			lazy.State.unfold()
		}
		if diff := cmp.Diff(eager.State, lazy.State, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("run %d: the states differ: %s", n, diff)
		}
	}
}
