package httpmethod_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/slips-go/slips/modules/httpmethod"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, httpmethod.Spec, "testdata/*.txtar") }

func http(sec float64, uid, method string) *flow.Flow {
	f := modtest.Record(flow.HTTP, sec, uid)
	f.HTTP.Method, f.HTTP.URI = method, "/"
	return f
}

func weird(sec float64, uid, method string) *flow.Flow {
	f := modtest.Record(flow.Weird, sec, uid)
	f.Weird.Name, f.Weird.Addl = "unknown_HTTP_method", method
	return f
}

// TestOrderOfLogs holds the module to the same evidence whichever log is ahead.
func TestOrderOfLogs(t *testing.T) {
	got := modtest.Skew(t, httpmethod.Spec, httpmethod.Spec.Defaults(),
		[]*flow.Flow{http(0, "C0", "FOO"), http(1, "C1", "GET"), http(5, "C2", "FOO"), http(100, "C4", "FOO"), http(4000, "C5", "FOO")},
		[]*flow.Flow{weird(0, "C0", "FOO"), weird(3, "C3", "FOO"), weird(5, "C2", "FOO"), weird(300, "C6", "BAR")})
	if len(got) != 5 { // FOO 1, 2, 4; BAR; and FOO of the next window
		t.Errorf("%d: %s", len(got), strings.Join(got, "\n"))
	}
}

// TestBound sends 100,000 methods at once, and again.
func TestBound(t *testing.T) {
	b := modtest.NewBench[httpmethod.State](t, httpmethod.Spec, httpmethod.Spec.Defaults())
	for i := range 100_000 {
		f := http(0, fmt.Sprintf("C%d", i), fmt.Sprintf("%0200d", i))
		if !b.Runner.Chooser().Wants(f) {
			t.Fatal("not wanted")
		}
		b.Handle(f)
	}
	if len(b.State.Waiting) != 256 || b.State.Dropped != 100_000-256 {
		t.Errorf("%d waiting, %d dropped", len(b.State.Waiting), b.State.Dropped)
	}
	for i := range 100_000 {
		b.Handle(http(0, fmt.Sprintf("C%d", i%2000), fmt.Sprintf("M%d", i)))
		b.Fire(uint64(i))
	}
	if n := b.Size(); n > 600_000 {
		t.Errorf("%d bytes", n)
	}
}

func TestWants(t *testing.T) {
	b := modtest.NewBench[httpmethod.State](t, httpmethod.Spec, httpmethod.Spec.Defaults())
	for _, f := range []*flow.Flow{http(0, "C", "GET"), http(0, "C", "HEAD"), http(0, "C", ""), weird(0, "C", ""), weird(0, "C", "PATCH")} {
		if b.Runner.Chooser().Wants(f) {
			t.Errorf("wanted: %+v", f)
		}
		if a := testing.AllocsPerRun(100, func() { b.Runner.Chooser().Wants(f) }); a != 0 {
			t.Errorf("%v allocations", a)
		}
	}
}

// TestRealTraffic finds what fuzzers sent, and nothing in networks of users.
func TestRealTraffic(t *testing.T) {
	dir := "pcap/zeek-logs/http_http-inner-transfer-encoding-ossfuzz/"
	es := modtest.Evidence(t, httpmethod.Spec, modtest.Datasets(t, dir+"http.log", dir+"weird.log")...)
	if len(es) != 1 || !strings.Contains(es[0].Description, `"ETA"`) {
		t.Errorf("%+v", es)
	}
	for _, d := range []string{"zeek/mixed-008/data/%s.log.labeled", "zeek/mixed-012/data/%s.log.labeled", "zeek/isc-2021-10/%s.log"} {
		for _, e := range modtest.Evidence(t, httpmethod.Spec, modtest.Datasets(t, fmt.Sprintf(d, "http"), fmt.Sprintf(d, "weird"))...) {
			t.Errorf("%s: %s", d, e.Description)
		}
	}
}
