package reconnect

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
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

func rej(n int, port uint16) flow.Flow {
	return flow.Flow{
		Kind: flow.Conn, Src: attacker, Dst: host(n), SrcPort: 40000, DstPort: port, HasPorts: true, Proto: flow.TCP,
		State: flow.NotEstablished, RawState: "REJ", OrigPkts: 1, RespPkts: 1, UID: "C1",
	}
}

func silent(n int, port uint16) flow.Flow {
	f := rej(n, port)
	f.RawState, f.RespPkts = "S0", 0
	return f
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		c    Config
		want string
	}{
		{Config{Refused: 1, Telnet: 4, Silent: 20}, "module reconnect: refused: 1 is not in 2..2147483647"},
		{Config{Refused: 5, Telnet: -4, Silent: 20}, "module reconnect: telnet: -4 is not in 2..2147483647"},
		{Config{Refused: 5, Telnet: 4, Silent: 1}, "module reconnect: silent: 1 is not in 2..2147483647"},
	} {
		if _, err := Spec.New(&tt.c, modules.Env{}); err == nil || err.Error() != tt.want {
			t.Errorf("%+v: got %v, want %s", tt.c, err, tt.want)
		}
	}
}

func TestRefused(t *testing.T) {
	suri := func(op, rp, bytes int64) flow.Flow {
		return flow.Flow{Sensor: flow.Suricata, RawState: "closed", Dst: host(1), OrigPkts: op, RespPkts: rp, RespBytes: bytes}
	}
	v6 := suri(1, 1, 74)
	v6.Dst = netip.MustParseAddr("2001:db8::1")
	for _, tt := range []struct {
		name string
		f    flow.Flow
		want bool
	}{
		{"zeek REJ", flow.Flow{RawState: "REJ"}, true},
		{"zeek S0", flow.Flow{RawState: "S0"}, false},
		{"zeek RSTOS0, given up by the originator", flow.Flow{RawState: "RSTOS0"}, false},
		{"argus refused", flow.Flow{Sensor: flow.Argus, RawState: "S_RA"}, true},
		{"argus silent", flow.Flow{Sensor: flow.Argus, RawState: "S_"}, false},
		{"argus half-open scan of an open port", flow.Flow{Sensor: flow.Argus, RawState: "SR_SA"}, false},
		{"argus reset of a connection that stood", flow.Flow{Sensor: flow.Argus, RawState: "PA_R"}, false},
		{"argus word", flow.Flow{Sensor: flow.Argus, RawState: "RST"}, true},
		{"argus with zeek's word", flow.Flow{Sensor: flow.Argus, RawState: "REJ"}, true},
		{"suricata, a reset for the SYN", suri(1, 1, 60), true},
		{"suricata, a reset for each of three", suri(3, 3, 180), true},
		{"suricata over IPv6", v6, true},
		{"suricata half-open scan", suri(2, 1, 60), false},
		{"suricata data came back", suri(2, 2, 900), false},
		{"suricata nothing came back", suri(1, 0, 0), false},
		{"suricata a long exchange", suri(20, 20, 1200), false},
	} {
		if got := refused(&tt.f); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func steps(es []evidence.Evidence) string {
	var s []string
	for _, e := range es {
		s = append(s, fmt.Sprintf("%s@%d:%d/%.4g", e.Subject, e.Step, e.Count, e.Confidence))
	}
	return strings.Join(s, " ")
}

func TestSteps(t *testing.T) {
	for _, tt := range []struct {
		name string
		feed func(h func(flow.Flow))
		want string // subject@step:flows/confidence
	}{
		{"four refusals", func(h func(flow.Flow)) {
			for range 4 {
				h(rej(1, 1177))
			}
		}, ""},
		{"five, then each time four times as many", func(h func(flow.Flow)) {
			for range 237 {
				h(rej(1, 1177))
			}
		}, "20.0.0.1|1177@1:5/0.3 20.0.0.1|1177@2:20/0.4 20.0.0.1|1177@3:80/0.5"},
		{"the more targets on unprivileged ports, the less", func(h func(flow.Flow)) {
			for i := range 60 {
				for range 5 {
					h(rej(i, 1024))
				}
			}
			for range 5 {
				h(rej(0, 1024))
			}
			for range 5 {
				h(rej(1, 1023))
			}
			for range 4 {
				h(rej(1, 2323))
			}
		}, func() string {
			var s []string
			first := 0.3 // a variable, so that it rounds as the module does
			for i := range 60 {
				s = append(s, fmt.Sprintf("20.0.0.%d|1024@1:5/%.2g", i, max(0.05, math.Round(100*(first*3/max(3, float64(i+1))))/100)))
			}
			return strings.Join(append(s, "20.0.0.1|1023@1:5/0.5", "20.0.0.1|telnet@1:4/0.5"), " ")
		}()},
		{"a single target keeps its weight", func(h func(flow.Flow)) {
			for range 20 {
				h(rej(1, 50000))
			}
		}, "20.0.0.1|50000@1:5/0.3 20.0.0.1|50000@2:20/0.4"},
		{"ports apart, hosts apart", func(h func(flow.Flow)) {
			for i := range 16 {
				h(rej(i%2, uint16(1000+i/2%2)))
			}
		}, ""},
		{"silence is no refusal", func(h func(flow.Flow)) {
			for range 19 {
				h(silent(1, 1177))
			}
		}, ""},
		{"silence of a public host, at length", func(h func(flow.Flow)) {
			for range 50 {
				h(silent(1, 1177))
			}
		}, "20.0.0.1|1177|silent@1:20/0.4"},
		{"silence of a private host", func(h func(flow.Flow)) {
			for range 50 {
				f := silent(1, 9100)
				f.Dst = netip.MustParseAddr("192.168.7.7")
				h(f)
			}
		}, ""},
		{"telnet: three", func(h func(flow.Flow)) {
			for range 3 {
				h(silent(1, 23))
			}
		}, ""},
		{"telnet: four on both ports, silence included", func(h func(flow.Flow)) {
			for i := range 8 {
				h([]flow.Flow{silent(1, 23), rej(1, 2323)}[i%2])
			}
		}, "20.0.0.1|telnet@1:4/0.5"},
		{"telnet over udp is none", func(h func(flow.Flow)) {
			for range 8 {
				f := silent(1, 23)
				f.Proto = flow.UDP
				h(f)
			}
		}, ""},
		{"telnet that works", func(h func(flow.Flow)) {
			for range 8 {
				f := rej(1, 23)
				f.State, f.RawState = flow.Established, "SF"
				h(f)
			}
		}, ""},
		{"telnet in a Zeek log without states", func(h func(flow.Flow)) {
			for range 8 {
				f := rej(1, 23)
				f.RawState = ""
				h(f)
			}
		}, ""},
		{"not over yet, no ports, no target", func(h func(flow.Flow)) {
			for range 8 {
				f := rej(1, 80)
				f.Open = true
				h(f)
				f = rej(1, 80)
				f.HasPorts = false
				h(f)
				f = rej(1, 80)
				f.Dst = netip.Addr{}
				h(f)
			}
		}, ""},
		{"a scan in between does not hide it", func(h func(flow.Flow)) {
			for i := range 5000 {
				h(rej(100+i, 445))
				if i%500 == 0 {
					h(rej(1, 1177))
					h(rej(1, 1177))
				}
			}
		}, "20.0.0.1|1177@1:5/0.3 20.0.0.1|1177@2:20/0.4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, every := range []int{0, 7} {
				b, n := newBench(t), 0
				tt.feed(func(f flow.Flow) {
					b.handle(f)
					if n++; every > 0 && n%every == 0 {
						b.reload(t)
					}
				})
				if got := steps(b.got); got != tt.want {
					t.Errorf("reload each %d: got %s\nwant %s", every, got, tt.want)
				}
			}
		})
	}
}

func TestServerSide(t *testing.T) {
	b := newBench(t)
	b.h.Role = profile.Server
	for range 10 {
		b.handle(rej(1, 80))
	}
	if len(b.got) != 0 {
		t.Errorf("the host that refuses is blamed: %v", b.got)
	}
}

// An evidence keeps its uids when the count goes on.
func TestUIDs(t *testing.T) {
	b := newBench(t)
	for i := range 80 {
		f := rej(1, 80)
		f.UID = fmt.Sprint("C", i)
		b.handle(f)
	}
	if diff := cmp.Diff([]string{"C0", "C1", "C2", "C3", "C4"}, b.got[0].UIDs); diff != "" {
		t.Errorf("first: -want +got:\n%s", diff)
	}
	last := b.got[len(b.got)-1].UIDs
	if len(last) != maxUIDs || last[0] != "C60" || last[maxUIDs-1] != "C79" {
		t.Errorf("last: %q", last)
	}
}

func TestBounds(t *testing.T) {
	b := newBench(t)
	for i := range 100_000 {
		b.handle(rej(i, 445))
	}
	if n := b.st.(*State).Targets.Len(); n > maxTargets {
		t.Errorf("%d targets kept, at most %d wanted", n, maxTargets)
	}
}

// datasets returns the path of a file of real traffic, which is not part of
// the repository.
func datasets(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("SLIPS_DATASETS")
	if dir == "" {
		dir = "../../../shared/datasets"
	}
	p := filepath.Join(dir, name)
	if _, err := os.Stat(p); err != nil {
		t.Skipf("SKIPPED, no real traffic to test on: %v (set SLIPS_DATASETS)", err)
	}
	return p
}

// Real captures: the host, what it cannot reach, and how many pieces of
// evidence about that.
func TestRealTraffic(t *testing.T) {
	for _, tt := range []struct {
		file, attacker, subject string
		want                    int
	}{
		{"zeek/test14-malicious/conn.log", "10.0.2.15", "123.22.123.22|547", 1},
		{"benign/win7ad-2023-02-26/conn.log.labeled", "", "", 0},
		// A public server that went silent for a while: told, and worth little.
		{"benign/ubuntu-2023-02-25/conn.log.labeled", "192.168.1.109", "142.251.36.131|443|silent", 1},
		{"zeek/njrat/labeled-conn.log", "192.168.1.115", "41.108.179.197|1177|silent", 2},
	} {
		t.Run(tt.file, func(t *testing.T) {
			n := 0
			for _, e := range modtest.Evidence(t, Spec, datasets(t, tt.file)) {
				if e.Attacker.Value != tt.attacker {
					t.Errorf("%s is blamed: %s", e.Attacker.Value, e.Description)
				}
				if e.Subject == tt.subject {
					n++
				}
			}
			if n != tt.want {
				t.Errorf("%d evidence about %s, want %d", n, tt.subject, tt.want)
			}
		})
	}
}

// The list of the first failures counts as the sketch does that takes its place.
func TestOften(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	most := 0
	for range 200 {
		var st State
		var all [sketch]uint8
		hosts := 1 + r.IntN(300)
		for i := range 1 + r.IntN(200) {
			f := silent(r.IntN(hosts), 80)
			n := &all[modules.Hash(f.Dst, 80)%sketch]
			want := *n >= fewSilent
			if !want {
				*n++
			}
			if got := st.often(&f); got != want {
				t.Fatalf("failure %d of %d hosts: %v, want %v", i, hosts, got, want)
			}
		}
		most = max(most, len(st.Silent))
	}
	if most != sketch {
		t.Errorf("the list never became a sketch: %d", most)
	}
}
