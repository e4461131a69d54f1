package arpoutside_test

import (
	"net/netip"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules/arpoutside"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, arpoutside.Spec, "testdata/*.txtar") }

// TestBounds asks for 100,000 addresses.
func TestBounds(t *testing.T) {
	n := 0
	b := modtest.NewBench[arpoutside.State](t, arpoutside.Spec, arpoutside.Spec.Defaults())
	b.Host.Emit = func(evidence.Evidence) { n++ }
	for i := range 100_000 {
		f := new(flow.Flow)
		f.Reset(flow.ARP)
		f.Time, f.UID, f.ARP.Operation = int64(i)*1e6, "U", "request"
		f.Src, f.Dst = netip.MustParseAddr("10.0.0.1"), modtest.Public(i)
		b.Handle(f)
	}
	s := b.State
	if len(s.Targets) != 1024 || len(s.UIDs) != evidence.MaxUIDs || s.Flows != 100_000 || n != 11 {
		t.Errorf("%d targets, %d uids, %d flows, %d pieces of evidence", len(s.Targets), len(s.UIDs), s.Flows, n)
	}
	if n := b.Size(); n > 1<<20 {
		t.Errorf("the state takes %d bytes", n)
	}
}

// TestHome knows a home network of public addresses.
func TestHome(t *testing.T) {
	n := 0
	b := modtest.NewBench[arpoutside.State](t, arpoutside.Spec, arpoutside.Spec.Defaults())
	b.Host.Emit = func(evidence.Evidence) { n++ }
	f := new(flow.Flow)
	f.Reset(flow.ARP)
	f.ARP.Operation, f.Src, f.Dst = "request", netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("20.1.2.3")
	b.Host.Net = &profile.Network{Home: []netip.Prefix{netip.MustParsePrefix("20.1.0.0/16")}}
	b.Handle(f)
	if n != 0 {
		t.Error("an address of a home network is reported")
	}
	b.Host.Net = &profile.Network{}
	b.Handle(f)
	if n != 1 {
		t.Error("the same address outside of one is not")
	}
}

func TestRealTraffic(t *testing.T) {
	for _, name := range []string{"zeek/test16-malicious/arp.log", "zeek/test9-mixed/arp.log"} {
		got := modtest.Evidence(t, arpoutside.Spec, modtest.Datasets(t, name)...)
		if len(got) != 1 || got[0].Profile.String() != "192.168.1.15" || got[0].Victim.Value != "69.220.152.0" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, e := range modtest.Evidence(t, arpoutside.Spec, modtest.Datasets(t, "argus/labelled-tabs.binetflow")...) {
		t.Errorf("benign: %s", e.Description)
	}
}
