package notice_test

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/notice"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, notice.Spec, "testdata/*.txtar") }

func noticed(note, msg string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.Notice)
	f.Src = netip.MustParseAddr("10.0.0.1")
	f.Notice.Note, f.Notice.Msg = note, msg
	return f
}

// handle runs the notices on one state and returns the evidence.
func handle(t *testing.T, fs ...*flow.Flow) []evidence.Evidence {
	t.Helper()
	b := modtest.NewBench[notice.State](t, notice.Spec, notice.Spec.Defaults())
	for _, f := range fs {
		b.Handle(f)
	}
	return b.Evidence
}

// TestHosts reads the number of hosts out of messages, and makes it a confidence.
func TestHosts(t *testing.T) {
	for _, c := range []struct {
		msg        string
		n          int64
		hosts      int64
		confidence float64
	}{
		{"10.0.0.1 performed ICMP timestamp scan on 130 hosts", 0, 130, 0.5},
		{"10.0.0.1 performed ICMP timestamp scan on 5 hosts", 0, 5, 0.3},
		{"10.0.0.1 performed ICMP timestamp scan on 100 hosts", 0, 100, 0.38},
		{"10.0.0.1 performed ICMP timestamp scan on 255 hosts", 0, 255, 1},
		{"10.0.0.1 performed ICMP timestamp scan on 9999 hosts", 0, 9999, 1},
		{"scan on many hosts", 80, 80, 0.3},
		{"scan on -3 hosts", 80, 80, 0.3},
		{"scan on 99999999999999999999 hosts", 0, 1, 0.3},
		{" hosts", 0, 1, 0.3},
		{"", 0, 1, 0.3},
		{"", -7, 1, 0.3},
	} {
		f := noticed("ICMP::TimestampScan", c.msg)
		f.Notice.N = c.n
		got := handle(t, f)
		if len(got) != 1 || got[0].Type != notice.TimestampScan || got[0].Count != c.hosts || math.Abs(got[0].Confidence-c.confidence) > 1e-9 {
			t.Errorf("%q, n %d: %+v, want %d hosts and confidence %v", c.msg, c.n, got, c.hosts, c.confidence)
		}
	}
}

// TestVictim reads the target of a port scan out of messages.
func TestVictim(t *testing.T) {
	for _, c := range []struct{ msg, want string }{
		{"10.0.0.1 scanned at least 15 unique ports of host 192.0.2.9 in 0m1s", "192.0.2.9"},
		{"10.0.0.1 scanned at least 15 unique ports of host 2001:db8::9 in 0m1s", "2001:db8::9"},
		{"15 ports of host 192.0.2.9.", "192.0.2.9"},
		{"15 ports of host example.com", "192.0.2.1"},
		{"15 ports of host ", "192.0.2.1"},
		{"", "192.0.2.1"},
	} {
		f := noticed("Scan::Port_Scan", c.msg)
		f.Dst = netip.MustParseAddr("192.0.2.1")
		if got := handle(t, f); len(got) != 1 || got[0].Victim.Value != c.want || got[0].Level != evidence.High {
			t.Errorf("%q: %+v, want victim %s", c.msg, got, c.want)
		}
	}
	f := noticed("Scan::Port_Scan", "no host named")
	f.Dst = f.Src // where the decoder has nothing better
	if got := handle(t, f); len(got) != 1 || got[0].Victim.Kind != evidence.None {
		t.Errorf("a host that scans itself: %+v", got)
	}
}

// TestBounds feeds long texts and many different notices.
func TestBounds(t *testing.T) {
	f := noticed(strings.Repeat("N", 1000), strings.Repeat("ü", 1000))
	f.Notice.Sub = strings.Repeat("s", 1000)
	if got := handle(t, f); len(got) != 1 || len(got[0].Description) > 1000 || len(got[0].Subject) > 200 ||
		strings.ToValidUTF8(got[0].Description, "?") != got[0].Description {
		t.Errorf("long texts: %+v", got)
	}
	var fs []*flow.Flow
	for i := range 3000 {
		fs = append(fs, noticed(fmt.Sprintf("Custom::N%d", i), ""))
	}
	if got := handle(t, fs...); len(got) != 2048 {
		t.Errorf("%d evidence of 3000 different notices, want 2048", len(got))
	}
}

func TestConfig(t *testing.T) {
	for _, p := range []string{"", "*", "**", "a*b"} {
		_, err := notice.Spec.New(&notice.Config{Ignore: []string{"ok", p}}, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("ignore: entry 2: %q", p)) {
			t.Errorf("ignore %q: error %v", p, err)
		}
	}
	if _, err := notice.Spec.New(&notice.Config{}, modules.Env{}); err != nil {
		t.Errorf("nothing ignored: %v", err)
	}
}

// TestRealScans reads the scans that Zeek noticed.
func TestRealScans(t *testing.T) {
	for _, c := range []struct {
		file, attacker string
		types          []evidence.Type
	}{
		{"zeek/test9-mixed/notice.log", "192.168.1.15", []evidence.Type{notice.AddressScan, notice.TimestampScan, notice.AddressMaskScan}},
		{"parsers/zat/notice.log", "192.168.33.10", []evidence.Type{notice.ZeekNotice}},
	} {
		t.Run(c.file, func(t *testing.T) {
			found := make(map[evidence.Type]int)
			for _, e := range modtest.Evidence(t, notice.Spec, modtest.Datasets(t, c.file)...) {
				if e.Attacker.Value == c.attacker {
					found[e.Type]++
				}
			}
			for _, typ := range c.types {
				if found[typ] == 0 {
					t.Errorf("no %s of %s", typ, c.attacker)
				}
			}
		})
	}
}

// TestRealBenign weighs the notices about benign hosts: next to nothing in any window.
func TestRealBenign(t *testing.T) {
	for host, file := range map[string]string{
		"147.32.81.167": "zeek/mixed-008/data/notice.log.labeled",
		"147.32.83.161": "zeek/mixed-012/data/notice.log.labeled",
	} {
		t.Run(host, func(t *testing.T) {
			weight := make(map[int64]float64)
			for _, e := range modtest.Evidence(t, notice.Spec, modtest.Datasets(t, file)...) {
				if e.Attacker.Value == host {
					weight[e.Window] += e.Level.Value() * e.Confidence
				}
			}
			for w, sum := range weight {
				if sum > 0.5 {
					t.Errorf("weight %.2f in window %d", sum, w)
				}
			}
		})
	}
}
