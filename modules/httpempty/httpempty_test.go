package httpempty_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/httpempty"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, httpempty.Spec, "testdata/*.txtar") }

// TestBound counts endless requests to all sites in one state.
func TestBound(t *testing.T) {
	b := modtest.NewBench[httpempty.State](t, httpempty.Spec, httpempty.Spec.Defaults())
	for i := range 100_000 {
		f := modtest.Record(flow.HTTP, 0, fmt.Sprintf("H%d", i))
		f.HTTP.URI, f.HTTP.Host = "/", []string{"google.com", "bing.com", fmt.Sprintf("h%d.example.com", i)}[i%3]
		if b.Runner.Chooser().Wants(f) {
			b.Handle(f)
		}
	}
	// 33,333 requests to each are 14 doublings of 4.
	if len(b.Evidence) != 28 || len(b.State.Sites) != 2 || b.Size() > 10_000 {
		t.Errorf("%d reported, %d sites, %d bytes", len(b.Evidence), len(b.State.Sites), b.Size())
	}
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]httpempty.Config{
		"min_requests: 1":   {MinRequests: 1, Hosts: []string{"a.b"}},
		"hosts: 0 names":    {MinRequests: 4},
		"hosts: 101 names":  {MinRequests: 4, Hosts: make([]string, 101)},
		`hosts: "http://a"`: {MinRequests: 4, Hosts: []string{"http://a"}},
		`hosts: "local"`:    {MinRequests: 4, Hosts: []string{"a.b", "local"}},
	} {
		if _, err := httpempty.Spec.New(&c, modules.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", c, err, want)
		}
	}
}

// TestRealTraffic finds the one host that asks, and none in other networks.
func TestRealTraffic(t *testing.T) {
	es := modtest.Evidence(t, httpempty.Spec, modtest.Datasets(t, "zeek/test14-malicious/http.log")...)
	if len(es) != 1 || es[0].Attacker.Value != "10.0.2.15" || es[0].Subject != "google.com" {
		t.Errorf("%+v", es)
	}
	for _, log := range []string{"zeek/mixed-008/data/http.log.labeled", "zeek/mixed-012/data/http.log.labeled", "zeek/isc-2021-10/http.log"} {
		for _, e := range modtest.Evidence(t, httpempty.Spec, modtest.Datasets(t, log)...) {
			t.Errorf("%s: %s", log, e.Description)
		}
	}
}
