package httpempty_test

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/httpempty"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, httpempty.Spec, "testdata/*.txtar") }

func record(k flow.Kind, sec float64, uid string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(k)
	f.Time = 1_700_000_000*1e9 + int64(sec*1e9)
	f.Src, f.Dst = netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("203.0.114.9")
	f.SrcPort, f.DstPort, f.HasPorts, f.Proto, f.UID = 50000, 80, true, flow.TCP, uid
	return f
}

// run makes a rule with its defaults, a state and a context that counts what
// is emitted.
func run(t *testing.T) (modules.Runner, *httpempty.State, *modules.Context, *modules.Host, *int) {
	t.Helper()
	r, err := httpempty.Spec.New(httpempty.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	n := new(int)
	h := &modules.Host{
		Net: &profile.Network{}, Profile: netip.MustParseAddr("10.0.0.7"), At: func(int64) profile.Window { return profile.Window{N: 1} },
		Emit: func(evidence.Evidence) { *n++ }, After: func(time.Duration, uint64) {},
	}
	return r, r.NewState().(*httpempty.State), modules.NewContext(h), h, n
}

// size returns how many bytes a state takes when it is saved.
func size(t *testing.T, r modules.Runner, st any) int {
	t.Helper()
	var b bytes.Buffer
	if err := r.Save(gob.NewEncoder(&b), st); err != nil {
		t.Fatal(err)
	}
	return b.Len()
}

// TestBound counts endless requests to all sites in one state.
func TestBound(t *testing.T) {
	r, st, cx, _, n := run(t)
	for i := range 100_000 {
		f := record(flow.HTTP, 0, fmt.Sprintf("H%d", i))
		f.HTTP.URI, f.HTTP.Host = "/", []string{"google.com", "bing.com", fmt.Sprintf("h%d.example.com", i)}[i%3]
		if r.Chooser().Wants(f) {
			r.Handle(cx, st, f)
		}
	}
	// 33,333 requests to each are 14 doublings of 4.
	if *n != 28 || len(st.Sites) != 2 || size(t, r, st) > 10_000 {
		t.Errorf("%d reported, %d sites, %d bytes", *n, len(st.Sites), size(t, r, st))
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
