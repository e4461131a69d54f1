package ipcheck

import (
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for want, n := range map[string]int{"max_per_window: 0 is not in 1..64": 0, "max_per_window: 65 is not in 1..64": 65} {
		if _, err := Spec.New(&Config{MaxPerWindow: n}, modules.Env{}); err == nil || err.Error() != "module ipcheck: "+want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// Each site has a bit of its own.
func TestBits(t *testing.T) {
	r, err := New(Config{MaxPerWindow: 3}, modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[uint64]string)
	for name := range strings.FieldsSeq(programs + pages) {
		_, s := r.(rule).sites.Find(name)
		if s.bit == 0 || seen[s.bit] != "" {
			t.Errorf("%s has bit %x, as has %q", name, s.bit, seen[s.bit])
		}
		seen[s.bit] = name
	}
}

func TestWantsDoesNotAllocate(t *testing.T) {
	r, err := New(Config{MaxPerWindow: 3}, modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{"www.example.com", "api.ipify.org"} {
		f := &flow.Flow{Kind: flow.DNS, Parts: &flow.Parts{DNS: &flow.DNSPart{Query: q}}}
		if n := testing.AllocsPerRun(100, func() { r.(rule).Wants(f) }); n != 0 {
			t.Errorf("%s: %v allocations", q, n)
		}
	}
}

// On real traffic it weighs little.
func TestRealTraffic(t *testing.T) {
	for _, dir := range []string{"benign/ubuntu-2023-02-25", "benign/win7ad-2023-02-26", "zeek/isc-2021-10"} {
		t.Run(dir, func(t *testing.T) {
			n := make(map[string]int)
			for _, e := range modtest.Evidence(t, Spec, modtest.Datasets(t, dir+"/dns.log")...) {
				k := e.Profile.String() + e.Victim.Value
				if n[k]++; n[k] > 24 || e.Level != evidence.Low {
					t.Errorf("told too often or too high: %s", e.Description)
				}
			}
		})
	}
}
