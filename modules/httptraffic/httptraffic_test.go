package httptraffic_test

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/httptraffic"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, httptraffic.Spec, "testdata/*.txtar") }

func record(k flow.Kind, sec float64, uid string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(k)
	f.Time = 1_700_000_000*1e9 + int64(sec*1e9)
	f.Src, f.Dst = netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("203.0.114.9")
	f.SrcPort, f.DstPort, f.HasPorts, f.Proto, f.UID = 50000, 80, true, flow.TCP, uid
	return f
}

// run makes a rule with its defaults, a state and a context that counts what
// is emitted.
func run(t *testing.T) (modules.Runner, *httptraffic.State, *modules.Context, *modules.Host, *int) {
	t.Helper()
	r, err := httptraffic.Spec.New(httptraffic.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	n := new(int)
	h := &modules.Host{
		Net: &profile.Network{}, Profile: netip.MustParseAddr("10.0.0.7"), At: func(int64) profile.Window { return profile.Window{N: 1} },
		Emit: func(evidence.Evidence) { *n++ }, After: func(time.Duration, uint64) {},
	}
	return r, r.NewState().(*httptraffic.State), modules.NewContext(h), h, n
}

// size returns how many bytes a state takes when it is saved.
func size(t *testing.T, r modules.Runner, st any) int {
	t.Helper()
	var b bytes.Buffer
	if err := r.Save(gob.NewEncoder(&b), st); err != nil {
		t.Fatal(err)
	}
	return b.Len()
}

// TestBound feeds more servers than are reported.
func TestBound(t *testing.T) {
	r, st, cx, _, n := run(t)
	for i := range 100_000 {
		f := record(flow.HTTP, 0, "H")
		f.Dst = netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)})
		if r.Chooser().Wants(f) {
			r.Handle(cx, st, f)
		}
	}
	if *n != 50 || len(st.Servers) != 50 || size(t, r, st) > 10_000 {
		t.Errorf("%d reported, %d kept, %d bytes", *n, len(st.Servers), size(t, r, st))
	}
	f := record(flow.HTTP, 0, "H")
	if a := testing.AllocsPerRun(100, func() { r.Handle(cx, st, f) }); a != 0 {
		t.Errorf("%v allocations for a record that is not reported", a)
	}
}

func TestConfig(t *testing.T) {
	for _, n := range []int{-1, 0, 1001} {
		if _, err := httptraffic.Spec.New(&httptraffic.Config{MaxPerWindow: n}, modules.Env{}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("max_per_window: %d", n)) {
			t.Errorf("max_per_window %d: %v", n, err)
		}
	}
}

// TestRealTraffic counts the public servers that an infected network talks to.
func TestRealTraffic(t *testing.T) {
	servers := make(map[string]bool)
	for _, e := range modtest.Evidence(t, httptraffic.Spec, modtest.Datasets(t, "zeek/isc-2021-10/http.log")...) {
		if a := netip.MustParseAddr(e.Victim.Value); !profile.IsPublic(a) {
			t.Errorf("not public: %s", e.Description)
		}
		servers[e.Victim.Value] = true
	}
	if !servers["190.14.37.244"] || !servers["172.67.139.101"] {
		t.Errorf("servers: %v", servers)
	}
}
