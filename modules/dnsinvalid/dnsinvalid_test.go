package dnsinvalid_test

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/dnsinvalid"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, dnsinvalid.Spec, "testdata/*.txtar") }

// run resolves each name=address and returns the state and the names reported
// at the end of the window.
func run(t *testing.T, names ...string) (any, []string) {
	t.Helper()
	r, err := dnsinvalid.Spec.New(dnsinvalid.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	st := r.NewState()
	cx := modules.NewContext(&modules.Host{
		Profile: netip.MustParseAddr("10.0.0.1"), Emit: func(e evidence.Evidence) { got = append(got, e.Subject) },
	})
	for _, n := range names {
		f := new(flow.Flow)
		f.Reset(flow.DNS)
		f.Src, f.UID, f.DNS.QType = netip.MustParseAddr("10.0.0.1"), "Cabcdefghijkl", "A"
		name, answer, _ := strings.Cut(n, "=")
		f.DNS.Query, f.DNS.Answers = name, strings.Split(answer, ",")
		if r.Chooser().Wants(f) {
			r.Handle(cx, st, f)
		}
	}
	r.CloseWindow(cx, st, profile.Window{})
	return st, got
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		name, names, want string
	}{
		{
			"every block that is not global", "a.one.com=10.0.0.1 a.two.com=127.0.0.1 a.three.com=169.254.1.1 a.four.com=0.0.0.0 a.five.com=::1 a.six.com=fe80::1",
			"a.one.com a.two.com a.three.com a.four.com a.five.com a.six.com",
		},
		{"public addresses, shared ones, no addresses", "a.one.com=93.184.216.34 a.two.com=100.64.0.1 a.three.com=b.three.com a.four.com=", ""},
		{"one private address among others", "a.one.com=b.one.com,93.184.216.34,10.0.0.1", "a.one.com"},
		{"three names of one domain", "a.one.com=10.0.0.1 b.one.com=10.0.0.2 c.one.com=10.0.0.3 d.one.com=10.0.0.4", ""},
		{"two names of one domain, one of them often", "a.one.com=10.0.0.1 A.one.com.=10.0.0.1 a.one.com=10.0.0.2 b.one.com=10.0.0.3", "a.one.com b.one.com"},
		{"domains of one service", "a.ddns.net=10.0.0.1 b.ddns.net=10.0.0.2 c.ddns.net=10.0.0.3", "a.ddns.net b.ddns.net c.ddns.net"},
		{"names that say it", "localhost.one.com=127.0.0.1 x-10-0-0-7.two.com=10.0.0.7 a.10.0.0.8.three.com=10.0.0.8", ""},
		{"names that say something else", "x-10-0-0-9.two.com=10.0.0.7", "x-10-0-0-9.two.com"},
		{"private zones and the like", "a.local=10.0.0.1 nas=10.0.0.2 a.home.arpa=10.0.0.3 a.internal=10.0.0.4 com=10.0.0.5 .=10.0.0.6", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, got := run(t, strings.Fields(c.names)...); strings.Join(got, " ") != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

// TestStateIsBounded resolves many names of many domains.
func TestStateIsBounded(t *testing.T) {
	var names []string
	for i := range 50_000 {
		names = append(names, fmt.Sprintf("a.d%d.com=10.0.0.1", i))
	}
	st, got := run(t, names...)
	if len(got) != 100 {
		t.Errorf("%d names reported", len(got))
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(st); err != nil || b.Len() > 50_000 {
		t.Errorf("the state takes %d bytes, %v", b.Len(), err)
	}
}

func TestConfig(t *testing.T) {
	for _, n := range []int{-1, 1, 1001} {
		_, err := dnsinvalid.Spec.New(&dnsinvalid.Config{LocalNames: n}, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("local_names: %d", n)) {
			t.Errorf("%d: error %v", n, err)
		}
	}
}

// TestRealTraffic finds the names that those who fight Simda gave the address
// of the host itself, and no server of a Windows domain.
func TestRealTraffic(t *testing.T) {
	if got := modtest.Evidence(t, dnsinvalid.Spec, modtest.Datasets(t, "zeek/simda-dga/dns.log")...); len(got) < 20 {
		t.Errorf("Simda: %d names", len(got))
	}
	for _, log := range []string{"zeek/isc-2021-10/dns.log", "zeek/test10-mixed/dns.log", "suricata/eve-scanned-home.json"} {
		for _, e := range modtest.Evidence(t, dnsinvalid.Spec, modtest.Datasets(t, log)...) {
			if !strings.Contains(e.Description, "255.255.255.255") { // an answer of Microsoft's own measurements
				t.Errorf("%s: %s", log, e.Description)
			}
		}
	}
}
