package dnsentropy_test

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/dnsentropy"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, dnsentropy.Spec, "testdata/*.txtar") }

// noise has 64 different characters, so six bits for each.
const noise = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

func answer(query, text string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.DNS)
	f.Src, f.Dst = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	f.DNS.Query, f.DNS.QType, f.DNS.Answers = query, "TXT", []string{fmt.Sprintf("TXT %d %s", len(text), text)}
	return f
}

// TestForms says which text is of a published form.
func TestForms(t *testing.T) {
	for _, c := range []struct {
		query, text string
		want        evidence.Level
	}{
		{"a.example.com", noise, evidence.Low},
		{"a.example.com", "v=2;" + noise, evidence.Low},
		{"a.example.com", "cmd=" + noise, evidence.Low},
		{"a_b.example.com", noise, evidence.Low},
		{"a.example.com", "V=SPF1 " + noise, evidence.Info},
		{"a.example.com", "v=DKIM1; p=" + noise, evidence.Info},
		{"a.example.com", "p=" + noise, evidence.Info},
		{"example.com", "google-site-verification=" + noise, evidence.Info},
		{"example.com", "globalsign-domain-verification=" + noise, evidence.Info},
		{"example.com", "MS=" + noise, evidence.Info},
		{"_acme-challenge.example.com", noise, evidence.Info},
		{"k1._domainkey.example.com", noise, evidence.Info},
		{"k1.domainkey.u1.example.net", noise, evidence.Info},
		{"tv.LOCAL", noise, evidence.Info},
	} {
		if got := all(t, answer(c.query, c.text)); len(got) != 1 || got[0].Level != c.want {
			t.Errorf("%s %q: %v, want one of level %v", c.query, c.text, got, c.want)
		}
	}
}

// all runs the module over the records.
func all(t *testing.T, flows ...*flow.Flow) (got []evidence.Evidence) {
	t.Helper()
	r, err := dnsentropy.Spec.New(dnsentropy.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	st, cx := r.NewState(), modules.NewContext(&modules.Host{Emit: func(e evidence.Evidence) { got = append(got, e) }})
	for _, f := range flows {
		if r.Chooser().Wants(f) {
			r.Handle(cx, st, f)
		}
	}
	return got
}

// TestBounded feeds more names than are reported, and text of every length and
// of bytes that are no characters.
func TestBounded(t *testing.T) {
	var flows []*flow.Flow
	for i := range 1000 {
		flows = append(flows, answer(fmt.Sprintf("n%d.example.com", i), strings.Repeat("\xff\xe2\x82"+noise, i%5)))
	}
	got := all(t, flows...)
	if len(got) != 20 {
		t.Errorf("%d reported, want 20", len(got))
	}
	for _, e := range got {
		if len(e.Description) > 300 {
			t.Errorf("long: %s", e.Description)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, v := range []float64{-1, 0, 8.1, math.NaN()} {
		_, err := dnsentropy.Spec.New(&dnsentropy.Config{Threshold: v}, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), "entropy_threshold: ") {
			t.Errorf("%v: error %v", v, err)
		}
	}
}

// TestRealTraffic finds the printer that says much about itself, and knows it for one.
func TestRealTraffic(t *testing.T) {
	got := modtest.Evidence(t, dnsentropy.Spec, modtest.Datasets(t, "zeek/test10-mixed/dns.log")...)
	if len(got) == 0 {
		t.Error("nothing in test10")
	}
	for _, e := range got {
		if e.Level != evidence.Info {
			t.Errorf("%v: %s", e.Level, e.Description)
		}
	}
	for _, log := range []string{"zeek/simda-dga/dns.log", "zeek/isc-2021-10/dns.log", "zeek/test9-mixed/dns.log", "parsers/json_with_all_fields/dns.log"} {
		for _, e := range modtest.Evidence(t, dnsentropy.Spec, modtest.Datasets(t, log)...) {
			t.Errorf("%s: %s", log, e.Description)
		}
	}
}
