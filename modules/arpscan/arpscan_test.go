package arpscan_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/arpscan"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, arpscan.Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for want, change := range map[string]func(*arpscan.Config){
		`min_targets: 1 is`:   func(c *arpscan.Config) { c.MinTargets = 1 },
		`min_targets: 257 is`: func(c *arpscan.Config) { c.MinTargets = 257 },
		`period: 0s is`:       func(c *arpscan.Config) { c.Period = 0 },
		`period: 2h0m0s is`:   func(c *arpscan.Config) { c.Period = 2 * time.Hour },
	} {
		c := arpscan.Spec.Defaults().(*arpscan.Config)
		change(c)
		_, err := arpscan.Spec.New(c, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), "module arpscan: "+want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func arp(sec float64, op, src, dst, mac, target string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.ARP)
	f.Time, f.Src, f.Dst = int64(sec*1e9), netip.MustParseAddr(src), netip.MustParseAddr(dst)
	f.ARP.Operation, f.ARP.SenderHW, f.ARP.TargetHW = op, mac, target
	f.SrcMAC = mac
	return f
}

// TestSweepOfAll asks for 100,000 addresses: what is kept stays small, and so
// does what is told.
func TestSweepOfAll(t *testing.T) {
	var got []evidence.Evidence
	b := modtest.NewBench[arpscan.State](t, arpscan.Spec, arpscan.Spec.Defaults())
	b.Host.Emit = func(e evidence.Evidence) { got = append(got, e) }
	for i := range 100_000 {
		f := arp(float64(i)/1000, "request", "10.0.0.1", modtest.Public(i).String(), "00:0a:00:00:00:01", "")
		f.UID = "U"
		b.Handle(f)
	}
	if n := b.State.Targets.Len(); n != 1<<15 {
		t.Errorf("%d targets kept", n)
	}
	last := got[len(got)-1]
	if len(got) != 13 || last.Step != 13 || last.Level != evidence.Medium || len(last.UIDs) != evidence.MaxUIDs {
		t.Errorf("%d pieces of evidence, the last one %+v", len(got), last)
	}
	if n := b.Size(); n > 1<<20 {
		t.Errorf("the state takes %d bytes", n)
	}
}

func TestAskingAgainDoesNotAllocate(t *testing.T) {
	b := modtest.NewBench[arpscan.State](t, arpscan.Spec, arpscan.Spec.Defaults())
	b.Host.Emit = func(evidence.Evidence) { t.Error("evidence") }
	f := arp(0, "request", "10.0.0.1", "10.0.0.2", "00:0a:00:00:00:01", "")
	b.Handle(f)
	if n := testing.AllocsPerRun(100, func() { b.Handle(f) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestRealTraffic holds the module to silence where hosts only talk.
func TestRealTraffic(t *testing.T) {
	for _, name := range []string{"zeek/test16-malicious/arp.log", "zeek/test9-mixed/arp.log", "argus/labelled-tabs.binetflow"} {
		for _, e := range modtest.Evidence(t, arpscan.Spec, modtest.Datasets(t, name)...) {
			t.Errorf("%s: %s", name, e.Description)
		}
	}
}
