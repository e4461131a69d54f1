package dnstunnel_test

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/dnstunnel"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, dnstunnel.Spec, "testdata/*.txtar") }

// TestSketch counts within a few hundredths, whatever is added twice.
func TestSketch(t *testing.T) {
	var s dnstunnel.Sketch
	x, n := uint32(1), int64(0)
	for range 12_000 {
		x = x*1664525 + 1013904223
		s.Add(x >> 8)
		if s.Add(x >> 8) {
			t.Fatalf("%d was counted twice", x>>8)
		}
		n++
		if got := s.Count(); n <= 8 && got != n || n > 8 && (got < n*93/100-1 || got > n*107/100+1) {
			t.Fatalf("%d different, counted %d", n, got)
		}
	}
}

// TestStateIsBounded feeds a resolver's names: a million domains with one name
// each, and a tunnel between them, which is still found.
func TestStateIsBounded(t *testing.T) {
	r, err := dnstunnel.Spec.New(dnstunnel.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	var found []evidence.Evidence
	cx := modules.NewContext(&modules.Host{Emit: func(e evidence.Evidence) { found = append(found, e) }})
	st := r.NewState()
	look := func(name string) {
		f := new(flow.Flow)
		f.Reset(flow.DNS)
		f.Src, f.UID = netip.MustParseAddr("10.0.0.1"), "Cabcdefghijklmnop"
		f.DNS.Query, f.DNS.QType, f.DNS.RCode, f.DNS.Response, f.DNS.Answers = name, "TXT", "NOERROR", true, []string{"TXT 1 x"}
		if r.Chooser().Wants(f) {
			r.Handle(cx, st, f)
		}
	}
	for i := range 200_000 {
		look(fmt.Sprintf("a.d%d.com", i))
		if i%100 == 0 {
			look(fmt.Sprintf("%032x.tunnel.net", i*7919))
		}
	}
	if len(found) == 0 || found[0].Subject != "tunnel.net" || found[0].Level != evidence.High {
		t.Errorf("found %v", found)
	}
	for d := range 200 { // many domains at once, each large
		for i := range 300 {
			look(fmt.Sprintf("%032x.t%d.net", i*7919, d))
		}
	}
	subjects := make(map[string]bool)
	for _, e := range found {
		subjects[e.Subject] = true
	}
	if len(subjects) != 20 {
		t.Errorf("%d domains reported", len(subjects))
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(st); err != nil || b.Len() > 1<<20 {
		t.Errorf("the state takes %d bytes, %v", b.Len(), err)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		cfg  dnstunnel.Config
		want string
	}{
		{dnstunnel.Config{MinEncoded: 9, MinNames: 100}, "min_encoded: 9"},
		{dnstunnel.Config{MinEncoded: 10_001, MinNames: 100}, "min_encoded: 10001"},
		{dnstunnel.Config{MinEncoded: 50, MinNames: 9}, "min_names: 9"},
		{dnstunnel.Config{MinEncoded: 50, MinNames: 10_001}, "min_names: 10001"},
	} {
		if _, err := dnstunnel.Spec.New(&c.cfg, modules.Env{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want %s", c.cfg, err, c.want)
		}
	}
}

// TestRealTraffic finds dnscat2 when its few names in an excerpt are enough,
// and nothing anywhere else.
func TestRealTraffic(t *testing.T) {
	run := func(log string, min int) map[string]bool {
		spec := dnstunnel.Spec
		spec.Defaults = func() any { return &dnstunnel.Config{MinEncoded: min, MinNames: 100} }
		found := make(map[string]bool)
		for _, e := range modtest.Evidence(t, spec, modtest.Datasets(t, log)...) {
			found[e.Subject] = true
		}
		return found
	}
	if got := run("parsers/json_with_all_fields/dns.log", 20); len(got) != 1 || !got["r-1x.com"] {
		t.Errorf("dnscat2: %v", got)
	}
	for _, log := range []string{
		"zeek/simda-dga/dns.log", "zeek/isc-2021-10/dns.log", "zeek/test9-mixed/dns.log", "zeek/test10-mixed/dns.log",
		"suricata/eve-scanned-home.json",
	} {
		if got := run(log, 10); len(got) > 0 {
			t.Errorf("%s: %v", log, got)
		}
	}
}
