package httptraffic_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/httptraffic"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, httptraffic.Spec, "testdata/*.txtar") }

// TestBound feeds more servers than are reported.
func TestBound(t *testing.T) {
	b := modtest.NewBench[httptraffic.State](t, httptraffic.Spec, httptraffic.Spec.Defaults())
	for i := range 100_000 {
		f := modtest.Record(flow.HTTP, 0, "H")
		f.Dst = netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)})
		if b.Runner.Chooser().Wants(f) {
			b.Handle(f)
		}
	}
	if len(b.Evidence) != 2 || b.State.Servers.Len() != 49 || b.Size() > 10_000 {
		t.Errorf("%d reported, %d kept, %d bytes", len(b.Evidence), b.State.Servers.Len(), b.Size())
	}
	f := modtest.Record(flow.HTTP, 0, "H")
	if a := testing.AllocsPerRun(100, func() { b.Handle(f) }); a != 0 {
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
	b := modtest.NewBench[httptraffic.State](t, httptraffic.Spec, &httptraffic.Config{MaxPerWindow: 1000})
	var steps []int64
	b.Host.Emit = func(e evidence.Evidence) { steps = append(steps, int64(e.Step), e.Count) }
	for i := range 3000 {
		f := modtest.Record(flow.HTTP, 0, "H")
		f.Dst = netip.AddrFrom4([4]byte{20, 1, byte(i >> 8), byte(i)})
		b.Handle(f)
	}
	if want := []int64{1, 1, 2, 8, 3, 64, 4, 512}; !slices.Equal(steps, want) {
		t.Errorf("steps and counts %v, want %v", steps, want)
	}
}
