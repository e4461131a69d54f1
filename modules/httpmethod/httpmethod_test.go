package httpmethod_test

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
	"github.com/slips-go/slips/modules/httpmethod"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, httpmethod.Spec, "testdata/*.txtar") }

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
func run(t *testing.T) (modules.Runner, *httpmethod.State, *modules.Context, *modules.Host, *int) {
	t.Helper()
	r, err := httpmethod.Spec.New(httpmethod.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	n := new(int)
	h := &modules.Host{
		Net: &profile.Network{}, Profile: netip.MustParseAddr("10.0.0.7"), At: func(int64) profile.Window { return profile.Window{N: 1} },
		Emit: func(evidence.Evidence) { *n++ }, After: func(time.Duration, uint64) {},
	}
	return r, r.NewState().(*httpmethod.State), modules.NewContext(h), h, n
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

func http(sec float64, uid, method string) *flow.Flow {
	f := record(flow.HTTP, sec, uid)
	f.HTTP.Method, f.HTTP.URI = method, "/"
	return f
}

func weird(sec float64, uid, method string) *flow.Flow {
	f := record(flow.Weird, sec, uid)
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
	r, st, cx, _, _ := run(t)
	for i := range 100_000 {
		f := http(0, fmt.Sprintf("C%d", i), fmt.Sprintf("%0200d", i))
		if !r.Chooser().Wants(f) {
			t.Fatal("not wanted")
		}
		r.Handle(cx, st, f)
	}
	if len(st.Waiting) != 256 || st.Dropped != 100_000-256 {
		t.Errorf("%d waiting, %d dropped", len(st.Waiting), st.Dropped)
	}
	for i := range 100_000 {
		r.Handle(cx, st, http(0, fmt.Sprintf("C%d", i%2000), fmt.Sprintf("M%d", i)))
		r.Fire(cx, st, uint64(i))
	}
	if n := size(t, r, st); n > 600_000 {
		t.Errorf("%d bytes", n)
	}
}

func TestWants(t *testing.T) {
	r, _, _, _, _ := run(t)
	for _, f := range []*flow.Flow{http(0, "C", "GET"), http(0, "C", "HEAD"), http(0, "C", ""), weird(0, "C", ""), weird(0, "C", "PATCH")} {
		if r.Chooser().Wants(f) {
			t.Errorf("wanted: %+v", f)
		}
		if a := testing.AllocsPerRun(100, func() { r.Chooser().Wants(f) }); a != 0 {
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
