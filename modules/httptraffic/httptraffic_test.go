package httptraffic_test

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"net/netip"
	"slices"
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
	if *n != 2 || st.Servers.Len() != 49 || size(t, r, st) > 10_000 {
		t.Errorf("%d reported, %d kept, %d bytes", *n, st.Servers.Len(), size(t, r, st))
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

// TestRealTraffic looks at an infected network that fetches from public servers.
func TestRealTraffic(t *testing.T) {
	hosts := make(map[string]int)
	for _, e := range modtest.Evidence(t, httptraffic.Spec, modtest.Datasets(t, "zeek/isc-2021-10/http.log")...) {
		if a := netip.MustParseAddr(e.Victim.Value); !profile.IsPublic(a) {
			t.Errorf("not public: %s", e.Description)
		}
		hosts[fmt.Sprintf("%s window %d step %d", e.Attacker.Value, e.Window, e.Step)]++
	}
	if len(hosts) == 0 {
		t.Error("no host")
	}
	for h, n := range hosts {
		if n > 1 {
			t.Errorf("%s: told %d times", h, n)
		}
	}
}

// TestSteps feeds as many servers as can be counted.
func TestSteps(t *testing.T) {
	r, err := httptraffic.Spec.New(&httptraffic.Config{MaxPerWindow: 1000}, modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	var steps []int64
	st := r.NewState()
	cx := modules.NewContext(&modules.Host{Net: &profile.Network{}, Emit: func(e evidence.Evidence) { steps = append(steps, int64(e.Step), e.Count) }})
	for i := range 3000 {
		f := record(flow.HTTP, 0, "H")
		f.Dst = netip.AddrFrom4([4]byte{20, 1, byte(i >> 8), byte(i)})
		r.Handle(cx, st, f)
	}
	if want := []int64{1, 1, 2, 8, 3, 64, 4, 512}; !slices.Equal(steps, want) {
		t.Errorf("steps and counts %v, want %v", steps, want)
	}
}
