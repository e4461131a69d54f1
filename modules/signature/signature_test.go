package signature_test

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
	"github.com/slips-go/slips/modules/signature"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, signature.Spec, "testdata/*.txtar") }

func alert(sid int64, text string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.Alert)
	f.Src, f.Dst, f.SrcPort, f.DstPort = netip.MustParseAddr("198.51.100.66"), netip.MustParseAddr("10.0.0.7"), 50000, 22
	f.Alert.SID, f.Alert.Signature = sid, text
	return f
}

// handle runs the alerts on one state and returns the evidence.
func handle(t *testing.T, fs ...*flow.Flow) []evidence.Evidence {
	t.Helper()
	b := modtest.NewBench[signature.State](t, signature.Spec, signature.Spec.Defaults())
	for _, f := range fs {
		b.Handle(f)
	}
	return b.Evidence
}

func TestTechniques(t *testing.T) {
	for in, want := range map[string][]string{
		"":                      nil,
		"T1190":                 {"T1190"},
		"t1190,T1059.001 T1018": {"T1190", "T1059.001", "T1018"},
		"Exploit_Public_Facing": nil,
		"T119":                  nil,
		"T11900":                nil,
		"T1190.0001":            nil,
		"T1059.0a1":             nil,
		strings.Repeat("T1190 ", 20): {
			"T1190", "T1190", "T1190", "T1190", "T1190", "T1190", "T1190", "T1190",
		},
	} {
		f := alert(1, "x")
		f.Alert.MITRETechnique = in
		got := handle(t, f)
		if len(got) != 1 {
			t.Fatalf("%q: %d evidence", in, len(got))
		}
		if d := cmp.Diff(want, got[0].MITRE); d != "" {
			t.Errorf("%q: %s", in, d)
		}
	}
}

// TestBounds feeds long texts and many different alerts.
func TestBounds(t *testing.T) {
	f := alert(0, strings.Repeat("ü", 1000))
	f.Alert.Category, f.Alert.Action = strings.Repeat("c", 1000), strings.Repeat("a", 1000)
	if got := handle(t, f); len(got) != 1 || len(got[0].Description) > 1200 || len(got[0].Subject) > 400 ||
		strings.ToValidUTF8(got[0].Description, "?") != got[0].Description {
		t.Errorf("long texts: %+v", got)
	}
	var fs []*flow.Flow
	for i := range 5000 {
		fs = append(fs, alert(int64(i+1), "x"))
	}
	if got := handle(t, fs...); len(got) != 4096 {
		t.Errorf("%d evidence of 5000 different alerts, want 4096", len(got))
	}
}

func TestNoAddress(t *testing.T) {
	f := alert(1, "an alert about a frame that is not IP")
	f.Src, f.Dst = netip.Addr{}, netip.Addr{}
	if got := handle(t, f); len(got) != 0 {
		t.Errorf("reported: %+v", got)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []float64{0, -1, 1.01, math.NaN(), math.Inf(1)} {
		_, err := signature.Spec.New(&signature.Config{Confidence: c}, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("confidence: %v", c)) {
			t.Errorf("confidence %v: error %v", c, err)
		}
	}
}

// TestRealTraffic reads the 745 alerts about a host that is scanned from
// outside: none is about the host itself, and all kinds are there.
func TestRealTraffic(t *testing.T) {
	levels := make(map[evidence.Level]int)
	for _, e := range modtest.Evidence(t, signature.Spec, modtest.Datasets(t, "suricata/eve-scanned-home.json")...) {
		levels[e.Level]++
		if e.Attacker.Value == "192.168.1.129" || e.Victim.Value != "192.168.1.129" {
			t.Errorf("attacker %s, victim %s: %s", e.Attacker.Value, e.Victim.Value, e.Description)
		}
	}
	if levels[evidence.High] != 2 || levels[evidence.Low] != 2 || levels[evidence.Medium] < 600 || levels[evidence.Medium] > 741 {
		t.Errorf("evidence by level: %v; the log has 2 alerts of severity 1, 741 of 2 and 2 of 3", levels)
	}
}
