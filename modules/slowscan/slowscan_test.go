package slowscan

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for want, c := range map[string]Config{
		"module slowscan: min_targets: 1 is not in 2..1000":     {MinTargets: 1, MinWindows: 3, MaxPerHour: 6},
		"module slowscan: min_windows: 0 is not in 2..1000":     {MinTargets: 12, MaxPerHour: 6},
		"module slowscan: max_per_hour: 1001 is not in 2..1000": {MinTargets: 12, MinWindows: 3, MaxPerHour: 1001},
	} {
		if _, err := Spec.New(&c, modules.Env{}); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// A scanner of 100,000 targets, fast or slow, stays within bounds.
func TestBounds(t *testing.T) {
	for name, apart := range map[string]int64{"fast": 1e6, "slow": 900e9} {
		t.Run(name, func(t *testing.T) {
			b := modtest.NewBench[State](t, Spec, Spec.Defaults())
			n := 0
			b.Host.Emit = func(evidence.Evidence) { n++ }
			for i := range 100_000 {
				f := flow.Flow{
					Kind: flow.Conn, Proto: flow.TCP, HasPorts: true, DstPort: 22, State: flow.NotEstablished, RawState: "S0", OrigPkts: 1,
					UID: "CUM0KZ3MLUfNB0cl11", Src: netip.AddrFrom4([4]byte{10, 0, 0, 1}), Time: int64(i) * apart,
					Dst: netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}),
				}
				b.Handle(&f)
			}
			if b.Size() > 200_000 {
				t.Errorf("the state takes %d bytes saved", b.Size())
			}
			if (n > 0) != (name == "slow") {
				t.Errorf("%d pieces of evidence", n)
			}
		})
	}
}

// What ordinary hosts cannot reach in a day is no scan.
func TestRealTraffic(t *testing.T) {
	for _, name := range []string{
		"benign/ubuntu-2023-02-25/conn.log.labeled", "benign/win7ad-2023-02-26/conn.log.labeled",
		"argus/benign-bittorrent-normal-7.binetflow", "zeek/isc-2021-10/conn.log",
	} {
		t.Run(name, func(t *testing.T) {
			for _, e := range modtest.Evidence(t, Spec, modtest.Datasets(t, name)...) {
				t.Errorf("%s is blamed: %s", e.Attacker.Value, e.Description)
			}
		})
	}
}

// The only pair of a host is kept small, and counts in the end as it would
// have from the beginning.
func TestFirstPair(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	found := 0
	for n := range 2000 {
		c := Config{MinTargets: 2 + r.Int64N(3), MinWindows: 2, MaxPerHour: 2 + r.Int64N(3)}
		lazy, eager := modtest.NewBench[State](t, Spec, &c), modtest.NewBench[State](t, Spec, &c)
		eager.State.Many = new(Counts)
		at := int64(1_700_000_000e9)
		for range 1 + r.IntN(8) {
			at += r.Int64N(3) * int64(30*time.Minute) * []int64{1, 1, 40}[r.IntN(3)]
			f := flow.Flow{
				Kind: flow.Conn, Proto: flow.TCP, HasPorts: true, DstPort: []uint16{22, 22, 80}[r.IntN(3)], State: flow.NotEstablished, RawState: "S0",
				OrigPkts: 1, UID: "C1", Src: netip.AddrFrom4([4]byte{10, 0, 0, 1}), Time: at,
				Dst: []netip.Addr{modtest.Public(1), modtest.Public(2), netip.AddrFrom4([4]byte{10, 0, 0, 2})}[r.IntN(3)],
			}
			lazy.Handle(&f)
			eager.Handle(&f)
			if r.IntN(4) == 0 {
				lazy.Reload()
			}
		}
		if diff := cmp.Diff(eager.Evidence, lazy.Evidence, cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
			t.Fatalf("run %d: the evidence differs: %s", n, diff)
		}
		found += len(lazy.Evidence)
		if lazy.State.Many == nil {
			lazy.State.unfold()
		}
		if diff := cmp.Diff(eager.State, lazy.State, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("run %d: the states differ: %s", n, diff)
		}
	}
	if found == 0 {
		t.Error("no evidence in any run")
	}
}
