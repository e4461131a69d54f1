package longconn

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, Spec, "testdata/*.txtar") }

func conn(n int, d time.Duration) flow.Flow {
	return flow.Flow{
		Kind: flow.Conn, Src: attacker, Dst: host(n), SrcPort: 40000, DstPort: 443, HasPorts: true, Proto: flow.TCP,
		State: flow.Established, Duration: int64(d), UID: "C1",
	}
}

func TestConfig(t *testing.T) {
	for _, n := range []int64{0, -1, 1 << 40} {
		want := fmt.Sprintf("module longconn: long_connection_threshold: %d is not in 1..9223372036", n)
		if _, err := Spec.New(&Config{n, 3600}, modules.Env{}); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func steps(es []evidence.Evidence) string {
	var s []string
	for _, e := range es {
		s = append(s, fmt.Sprintf("%d/%.2f", e.Step, e.Confidence))
	}
	return strings.Join(s, " ")
}

func TestSteps(t *testing.T) {
	for _, tt := range []struct {
		name string
		feed func(b *bench, h func(flow.Flow))
		want string // step/confidence
	}{
		{"the threshold itself is not long", func(_ *bench, h func(flow.Flow)) {
			h(conn(1, 1500*time.Second))
		}, ""},
		{"a bit more is", func(_ *bench, h func(flow.Flow)) {
			h(conn(1, 1500*time.Second+time.Microsecond))
		}, "1/0.02"},
		{"half a day is half sure", func(_ *bench, h func(flow.Flow)) {
			h(conn(1, 12*time.Hour))
		}, "5/0.50"},
		{"a day is sure, a week no surer", func(_ *bench, h func(flow.Flow)) {
			h(conn(1, 24*time.Hour))
			h(conn(1, 7*24*time.Hour))
		}, "6/1.00 9/1.00"},
		{"only when it doubles", func(_ *bench, h func(flow.Flow)) {
			for m := range 200 {
				f := conn(1, time.Duration(m)*time.Minute)
				f.Open = true
				h(f)
			}
		}, "1/0.02 2/0.03 3/0.07"},
		{"a shorter one to the same place is not told", func(_ *bench, h func(flow.Flow)) {
			h(conn(1, 2*time.Hour))
			h(conn(1, time.Hour))
		}, "3/0.08"},
		{"other places are", func(_ *bench, h func(flow.Flow)) {
			h(conn(1, time.Hour))
			h(conn(2, time.Hour))
			f := conn(1, time.Hour)
			f.DstPort = 80
			h(f)
			f.Proto = flow.UDP
			h(f)
		}, "2/0.04 2/0.04 2/0.04 2/0.04"},
		{"each window anew, in any order", func(b *bench, h func(flow.Flow)) {
			for _, w := range []int64{5, 1, 5, 1} {
				b.h.Window.N = w
				h(conn(1, time.Hour))
			}
		}, "2/0.04 2/0.04"},
		{"multicast on either side", func(_ *bench, h func(flow.Flow)) {
			f := conn(1, time.Hour)
			f.Dst = netip.MustParseAddr("224.0.0.251")
			h(f)
			f = conn(1, time.Hour)
			f.Src = netip.MustParseAddr("ff02::fb")
			h(f)
		}, ""},
		{"no addresses", func(_ *bench, h func(flow.Flow)) {
			f := conn(1, time.Hour)
			f.Dst = netip.Addr{}
			h(f)
		}, ""},
		{"the side that was called", func(b *bench, h func(flow.Flow)) {
			b.h.Role = profile.Server
			h(conn(1, time.Hour))
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, reload := range []bool{false, true} {
				b := newBench(t)
				tt.feed(b, func(f flow.Flow) {
					b.handle(f)
					if reload {
						b.reload(t)
					}
				})
				if got := steps(b.got); got != tt.want {
					t.Errorf("reload %v: got %s\nwant %s", reload, got, tt.want)
				}
			}
		})
	}
}

// A ping that goes on for hours is told without its type and code as ports.
func TestICMP(t *testing.T) {
	b := newBench(t)
	f := conn(1, time.Hour)
	f.Proto, f.SrcPort, f.DstPort = flow.ICMP, 8, 0
	b.handle(f)
	e := b.got[0]
	if e.SrcPort != 0 || e.Attacker.Port != 0 || e.Subject != "20.0.0.1|0|icmp" {
		t.Errorf("got %+v", e)
	}
	if want := "long connection from 10.0.0.1 to 20.0.0.1 (icmp) lasted 60 minutes"; e.Description != want {
		t.Errorf("got %s\nwant %s", e.Description, want)
	}
}

func TestBounds(t *testing.T) {
	b := newBench(t)
	for i := range 10_000 {
		b.h.Window.N = int64(i / 1000)
		b.handle(conn(i, time.Hour))
	}
	if n := b.st.(*State).Peers.Len(); n > maxPeers {
		t.Errorf("%d peers kept, at most %d wanted", n, maxPeers)
	}
	if len(b.got) != 10_000 {
		t.Errorf("%d evidence for 10000 long connections", len(b.got))
	}
}

// slow is half an hour at an uncommon port with hardly any traffic.
func slow(n int, at time.Duration) flow.Flow {
	f := conn(n, 31*time.Minute)
	f.Time, f.DstPort, f.OrigBytes, f.RespBytes = day+int64(at), 34241, 900, 900
	return f
}

func channels(es []evidence.Evidence) (n int) {
	for _, e := range es {
		if e.Level == evidence.Medium {
			n++
		}
	}
	return n
}

// Peers of yesterday and of today make a host one that has peers; those of the
// day before do not.
func TestPeers(t *testing.T) {
	for _, tt := range []struct {
		later time.Duration // from the peers to the channel
		want  int
	}{{time.Hour, 0}, {25 * time.Hour, 0}, {50 * time.Hour, 1}} {
		b := newBench(t)
		for i := range 2 * maxPlaces { // some share a place in the set
			f := slow(i+1, time.Duration(i)*time.Minute)
			f.Duration = int64(2 * time.Minute)
			b.handle(f)
		}
		b.reload(t)
		b.handle(slow(99, tt.later))
		if got := channels(b.got); got != tt.want {
			t.Errorf("%v later: %d channels, want %d", tt.later, got, tt.want)
		}
	}
}

// A host with thousands of peers costs little, and few of them are told before
// it shows what it is.
func TestManyChannels(t *testing.T) {
	b := newBench(t)
	for i := range 10_000 {
		b.handle(slow(i, time.Duration(i)*time.Second))
	}
	if n := b.st.(*State).Kept.Channels.Len(); n > maxChannels {
		t.Errorf("%d channels kept, at most %d wanted", n, maxChannels)
	}
	if got := channels(b.got); got > 2*maxPlaces { // some share a place in the set
		t.Errorf("%d channels told, at most %d wanted", got, 2*maxPlaces)
	}
}

// A connection that is open is told with what it has lasted, and counts once.
func TestChannelGrows(t *testing.T) {
	b := newBench(t)
	for m := range 300 {
		f := slow(1, 0)
		f.Duration, f.Open = int64(time.Duration(m)*time.Minute), true
		b.h.Window.N = int64(m / 100) // as if it were another connection
		b.handle(f)
	}
	if got := channels(b.got); got != 3 {
		t.Errorf("%d told, want one in each of 3 windows", got)
	}
	if c := b.st.(*State).Kept.Channels.Get(modules.Hash(host(1), 1)); c.Sum != int64(299*time.Minute) || c.Conns != 0 {
		t.Errorf("%v in %d connections, want 299 min in none that ended", time.Duration(c.Sum), c.Conns)
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

func TestRealTraffic(t *testing.T) {
	for file, want := range map[string]int{
		"argus/test2-malicious.binetflow":           10,
		"argus/test5-mixed.binetflow":               1,
		"benign/win7ad-2023-02-26/conn.log.labeled": 0,
	} {
		t.Run(file, func(t *testing.T) {
			if got := len(modtest.Evidence(t, Spec, datasets(t, file))); got < want || want == 0 && got > 0 {
				t.Errorf("%d long connections, want %d", got, want)
			}
		})
	}
}

// What is benign keeps up no channel.
func TestRealChannels(t *testing.T) {
	for _, file := range []string{
		"benign/ubuntu-2023-02-25/conn.log.labeled", "benign/win7ad-2023-02-26/conn.log.labeled", "argus/benign-bittorrent-normal-7.binetflow",
	} {
		t.Run(file, func(t *testing.T) {
			for _, e := range modtest.Evidence(t, Spec, datasets(t, file)) {
				if e.Level > evidence.Low {
					t.Error(e.Description)
				}
			}
		})
	}
}
