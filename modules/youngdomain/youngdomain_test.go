package youngdomain_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/youngdomain"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, youngdomain.Spec, "testdata/*.txtar") }

const day = 86400

func dns(sec float64, uid, name string) *flow.Flow {
	f := modtest.Record(flow.DNS, sec, uid)
	f.DNS.Query, f.DNS.RCode, f.DNS.Answers = name, "NOERROR", []string{"203.0.114.9"}
	return f
}

func ssl(sec float64, uid, name string) *flow.Flow {
	f := modtest.Record(flow.SSL, sec, uid)
	f.SSL.ServerName = name
	return f
}

func http(sec float64, uid, name string) *flow.Flow {
	f := modtest.Record(flow.HTTP, sec, uid)
	f.HTTP.Host = name
	return f
}

// answer is that of a registry: the domain is so many days old at second 0.
func answer(sec float64, domain string, days int64) *flow.Flow {
	f := modtest.Record(flow.Lookup, sec, "")
	f.Lookup.Service, f.Lookup.Of, f.Lookup.Subject, f.Lookup.Found = "rdap", "domain", domain, flow.True
	f.Lookup.Registered = (1_700_000_000 - days*day) * 1e9
	return f
}

// TestOrderOfLogs holds the module to the same evidence whichever log is
// ahead, that of the answers among them.
func TestOrderOfLogs(t *testing.T) {
	got := modtest.Skew(t, youngdomain.Spec, youngdomain.Spec.Defaults(),
		[]*flow.Flow{
			dns(0, "D1", "www.example.com"), dns(1, "D2", "www.example.net"), dns(2, "D3", "www.example.org"), dns(3, "D4", "www.example.co.uk"),
			dns(1000, "D5", "www.example.com"), dns(4200, "D6", "www.example.com"),
		},
		[]*flow.Flow{
			ssl(5, "S1", "www.example.com"), ssl(400, "S2", "www.example.net"), ssl(401, "S3", "api.example.net"), ssl(4100, "S6", "www.example.com"),
		},
		[]*flow.Flow{http(4, "H1", "img.example.com"), http(70, "H2", "img.example.com"), http(402, "H4", "www.example.co.uk")},
		[]*flow.Flow{answer(6, "example.com", 30), answer(500, "example.net", 5), answer(501, "example.org", 100), answer(502, "example.co.uk", 59)},
	)
	for i, l := range got {
		p := strings.Fields(l)
		got[i] = strings.Join([]string{p[1], p[3], p[4], p[5], p[6], p[7]}, " ")
	}
	slices.Sort(got)
	want := []string{
		`10.0.0.7 w1 "example.co.uk" step=1 count=1 uids=D4`,
		`10.0.0.7 w1 "example.co.uk" step=2 count=2 uids=D4,H4`,
		`10.0.0.7 w1 "example.com" step=2 count=3 uids=D1,S1,H1`,
		`10.0.0.7 w1 "example.net" step=1 count=1 uids=D2`,
		`10.0.0.7 w1 "example.net" step=2 count=2 uids=D2,S2`,
		`10.0.0.7 w2 "example.com" step=2 count=1 uids=S6`,
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestBounds lets one host have to do with a hundred thousand domains, of
// which every second is answered.
func TestBounds(t *testing.T) {
	b := modtest.NewBench[youngdomain.State](t, youngdomain.Spec, youngdomain.Spec.Defaults())
	asked := 0
	b.Host.Ask = func(modules.Question) { asked++ }
	for i := range 100_000 {
		name, sec := fmt.Sprintf("www.site%d.com", i), float64(i)/10
		b.Handle(dns(sec, fmt.Sprintf("D%017d", i), name))
		b.Handle(ssl(sec, fmt.Sprintf("S%017d", i), name))
		if i%2 == 0 {
			b.Handle(answer(sec, name[len("www."):], 10))
		}
	}
	if n := b.Size(); n > 300<<10 {
		t.Errorf("the state has %d bytes", n)
	}
	// 100,000 s are in four windows of the clock.
	if limit := 4 * 100; asked == 0 || asked > limit {
		t.Errorf("%d questions, want some and at most %d", asked, limit)
	}
	b.Reload()
	b.Handle(ssl(10_001, "S", "www.site1.com"))
}

// A name that was looked at in its window costs nothing more.
func TestRepeatedNamesAllocateNothing(t *testing.T) {
	b := modtest.NewBench[youngdomain.State](t, youngdomain.Spec, youngdomain.Spec.Defaults())
	f := ssl(0, "S1", "www.example.com")
	b.Handle(f)
	if n := testing.AllocsPerRun(100, func() { b.Handle(f) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The answer for a host that serves others is none for them: only the role of
// a client counts.
func TestServer(t *testing.T) {
	b := modtest.NewBench[youngdomain.State](t, youngdomain.Spec, youngdomain.Spec.Defaults())
	b.Host.Net.Home = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	b.Host.Role = 1
	b.Handle(answer(0, "example.com", 1))
	if b.State.Domains.Len() != 0 {
		t.Error("the peer of a question took its answer")
	}
}

// TestRealTraffic looks at an infection of October 2021 with answers as a
// registry gave them then: the domain that the loader came from was new, the
// next most contacted one was not. Without answers there is nothing to say.
func TestRealTraffic(t *testing.T) {
	paths := modtest.Datasets(t, "zeek/isc-2021-10/dns.log", "zeek/isc-2021-10/ssl.log", "zeek/isc-2021-10/http.log")
	if got := modtest.Evidence(t, youngdomain.Spec, paths...); len(got) != 0 {
		t.Errorf("without answers: %v", got)
	}
	const at = 1_634_913_400 // 22 October 2021
	line := `{"ts":%d,"id.orig_h":"10.10.22.158","service":"rdap","of":"domain","subject":"%s","found":true,"registered":%d}` + "\n"
	log := filepath.Join(t.TempDir(), "lookup.log")
	text := fmt.Sprintf(line, at, "sobolpand.top", at-4*day) + fmt.Sprintf(line, at+1, "microsoft.com", at-11_000*day)
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := modtest.Evidence(t, youngdomain.Spec, append(paths, log)...)
	if len(got) != 1 || got[0].Subject != "sobolpand.top" || got[0].Profile.String() != "10.10.22.158" || len(got[0].UIDs) != 2 {
		t.Errorf("want one about sobolpand.top with its look-up and its request, got %+v", got)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []youngdomain.Config{{0, 1, 1}, {3651, 1, 1}, {1, -1, 1}, {1, 10_001, 1}, {1, 0, 0}, {1, 0, 1001}} {
		if _, err := youngdomain.New(c, modules.Env{}); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
	if _, err := youngdomain.New(youngdomain.Config{Days: 1, MaxPerWindow: 1}, modules.Env{}); err != nil {
		t.Error(err)
	}
}

// BenchmarkHandle is what a record costs: of a name that was looked at in its
// window, and of a new one.
func BenchmarkHandle(b *testing.B) {
	for _, bb := range []struct {
		name  string
		names int
	}{{"known", 1}, {"new", 1 << 14}} {
		b.Run(bb.name, func(b *testing.B) {
			m := modtest.NewBench[youngdomain.State](b, youngdomain.Spec, youngdomain.Spec.Defaults())
			m.Host.Ask = func(modules.Question) {}
			flows := make([]*flow.Flow, bb.names)
			for i := range flows {
				flows[i] = ssl(1, "S", fmt.Sprintf("www.site%d.com", i))
			}
			w, i := m.Runner.Chooser(), 0
			b.ReportAllocs()
			for b.Loop() {
				f := flows[i%len(flows)]
				if i++; w.Wants(f) {
					m.Handle(f)
				}
			}
		})
	}
}
