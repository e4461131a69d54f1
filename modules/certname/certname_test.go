package certname_test

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/certname"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, certname.Spec, "testdata/*.txtar") }

const base = 1_700_000_000 // s

func record(k flow.Kind, sec float64) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(k)
	f.Time = base*1e9 + int64(sec*1e9)
	return f
}

func ssl(sec float64, uid, dst, sni, fp string) *flow.Flow {
	f := record(flow.SSL, sec)
	f.Src, f.Dst, f.DstPort, f.Proto, f.UID = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr(dst), 443, flow.TCP, uid
	f.SSL.ServerName, f.SSL.CertFPs = sni, []string{fp}
	return f
}

func x509(sec float64, fp, subject, issuer string, names ...string) *flow.Flow {
	f := record(flow.X509, sec)
	f.X509.Fingerprint, f.X509.Subject, f.X509.Issuer, f.X509.SANDNS = fp, subject, issuer, names
	return f
}

const ca = "CN=R3,O=Let's Encrypt,C=US"

// TestOrderOfLogs holds the module to the same evidence whichever log is ahead.
func TestOrderOfLogs(t *testing.T) {
	got := modtest.Skew(t, certname.Spec, certname.Spec.Defaults(),
		[]*flow.Flow{
			ssl(0, "S1", "198.51.101.1", "www.example.com", "other"), ssl(1, "S2", "198.51.101.2", "www.example.com", "good"),
			ssl(2, "S3", "198.51.101.3", "", "fake"), ssl(3, "S4", "198.51.101.4", "www.example.com", "late"),
			ssl(300, "S5", "198.51.101.1", "www.example.com", "other"), ssl(4000, "S6", "198.51.101.1", "www.example.com", "other"),
		},
		[]*flow.Flow{
			x509(0, "other", "CN=a.example.net", ca, "a.example.net"), x509(1, "good", "CN=x", ca, "x.example.org", "*.example.com"),
			x509(2.5, "fake", "CN=google.com", "CN=google.com"), x509(100, "late", "CN=d", ca), x509(5000, "x", "CN=x", ca),
		})
	for i, l := range got {
		p := strings.Fields(l)
		got[i] = fmt.Sprint(p[0], " ", p[3], " ", l[strings.Index(l, "uids="):strings.Index(l, "uids=")+7])
	}
	want := []string{"CN_URL_MISMATCH w1 uids=S1", "CN_URL_MISMATCH w2 uids=S6", "INCOMPATIBLE_CN w1 uids=S3"}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// registrant is an answer to who a domain belongs to.
func registrant(sec float64, domain, name string) *flow.Flow {
	f := record(flow.Lookup, sec)
	f.Src = netip.MustParseAddr("10.0.0.1")
	f.Lookup.Service, f.Lookup.Of, f.Lookup.Subject, f.Lookup.Found, f.Lookup.Registrant = "rdap", "domain", domain, flow.True, name
	return f
}

// TestOrderOfAnswers holds the module to the same evidence whether the owners
// of the domains are known before the mismatch or after.
func TestOrderOfAnswers(t *testing.T) {
	got := modtest.Skew(t, certname.Spec, certname.Spec.Defaults(),
		[]*flow.Flow{
			ssl(0, "S1", "198.51.101.1", "www.example.com", "F1"), ssl(1, "S2", "198.51.101.2", "www.example.com", "F2"),
			ssl(200, "S3", "198.51.101.3", "www.example.net", "F2"), ssl(4000, "S4", "198.51.101.1", "www.example.com", "F1"),
		},
		[]*flow.Flow{
			x509(0.1, "F1", "CN=a.example.net", "CN=Some CA", "a.example.net"), x509(1.1, "F2", "CN=b.example.org", ca, "b.example.org"),
			x509(5000, "x", "CN=x", ca),
		},
		[]*flow.Flow{
			registrant(40, "example.com", "Robin"), registrant(41, "example.org", "Robin, Inc."), registrant(300, "example.net", "Sparrow"),
			registrant(301, "example.net", "Robin"),
		})
	for i, l := range got {
		p := strings.Fields(l)
		got[i] = strings.Join([]string{p[0], p[3], p[6], p[8]}, " ")
	}
	want := []string{
		"CN_URL_MISMATCH w1 step=1 uids=S1", "CN_URL_MISMATCH w1 step=1 uids=S2", "CN_URL_MISMATCH w1 step=1 uids=S3",
		"CN_URL_MISMATCH w1 step=2 uids=S1", "CN_URL_MISMATCH w1 step=2 uids=S3", "CN_URL_MISMATCH w2 step=1 uids=S4", "CN_URL_MISMATCH w2 step=2 uids=S4",
	}
	slices.Sort(got)
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestLateLog holds the module to the evidence of complete logs when x509.log
// turns up minutes behind ssl.log: what it says takes the place of what the
// handshake says by itself, and both orders forget the same.
func TestLateLog(t *testing.T) {
	handshakes := []*flow.Flow{
		ssl(0, "S1", "198.51.101.1", "www.example.com", "F1"), ssl(1, "S2", "198.51.101.2", "www.example.com", "F2"),
		ssl(2, "S3", "198.51.101.3", "www.netflix.com", "F3"), ssl(3, "S4", "198.51.101.4", "www.example.com", "F4"),
		ssl(4, "S5", "198.51.101.5", "www.example.com", "none"), ssl(5, "S6", "198.51.101.6", strings.Repeat("a.", 60)+"example.com", "F6"),
		ssl(100, "S7", "198.51.101.1", "www.example.com", "F7"),
	}
	// The record claims Netflix, the certificate says Microsoft; a common name
	// that does not fit, with others that do; one that stays without a certificate.
	for i, subject := range map[int]string{2: "CN=support.netflix.com", 3: "CN=default", 4: "CN=default"} {
		handshakes[i].SSL.Subject, handshakes[i].SSL.Issuer = subject, "CN=Some CA"
	}
	certs := []*flow.Flow{
		x509(0.1, "F1", "CN=a", ca, "*.example.com"), x509(1.1, "F2", "CN=b", ca, "*.example.net"), x509(2.1, "F3", "CN=support.microsoft.com", ca),
		x509(3.1, "F4", "CN=default", "CN=Some CA", "www.example.com"), x509(5.1, "F6", "CN=a", ca, "example.com"), x509(100.1, "F7", "CN=c", ca, "c.example.org"),
	}
	want := []string{
		`CN_URL_MISMATCH [S2] "10.0.0.1 asked 198.51.101.2:443 for \"www.example.com\" and was shown a certificate for \"b\"."`,
		`CN_URL_MISMATCH [S3] "10.0.0.1 asked 198.51.101.3:443 for \"www.netflix.com\" and was shown a certificate for \"support.microsoft.com\"."`,
		`CN_URL_MISMATCH [S5] "10.0.0.1 asked 198.51.101.5:443 for \"www.example.com\" and was shown a certificate for \"default\"."`,
	}
	if d := gocmp.Diff(want, tardy(t, handshakes, certs)); d != "" {
		t.Errorf("x509.log late:\n%s", d)
	}
	if d := gocmp.Diff(want, tardy(t, certs, handshakes)); d != "" {
		t.Errorf("ssl.log late:\n%s", d)
	}
	if got := modtest.Skew(t, certname.Spec, certname.Spec.Defaults(), handshakes, certs); len(got) != len(want) {
		t.Errorf("in step: %q", got)
	}
}

// tardy runs the module over one log alone, with the timers of the time that
// it covers, then over the other, which turns up only then, and to the end.
func tardy(t *testing.T, one, other []*flow.Flow) []string {
	t.Helper()
	type timer struct {
		at  int64
		key uint64
	}
	run, err := certname.Spec.New(certname.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	var timers []timer
	var out []string
	h := &modules.Host{Net: &profile.Network{}, At: func(t int64) profile.Window { return profile.WindowOf(t, base*1e9, int64(time.Hour)) }}
	h.Emit = func(e evidence.Evidence) { out = append(out, fmt.Sprintf("%v %s %q", e.Type, e.UIDs, e.Description)) }
	h.After = func(d time.Duration, key uint64) { timers = append(timers, timer{h.Now + int64(d), key}) }
	st, cx := run.NewState(), modules.NewContext(h)
	fire := func(now int64) {
		slices.SortStableFunc(timers, func(a, b timer) int { return cmp.Compare(a.at, b.at) })
		for len(timers) > 0 && timers[0].at <= now {
			h.Now, h.Record = timers[0].at, 0
			key := timers[0].key
			timers = timers[1:]
			run.Fire(cx, st, key)
		}
	}
	for _, log := range [][]*flow.Flow{one, other} {
		clock := int64(0)
		for _, f := range log {
			clock = max(clock, f.Time)
			fire(clock)
			h.Now, h.Record, h.Profile, h.Window = clock, f.Time, f.Src, h.At(f.Time)
			run.Handle(cx, st, f)
		}
	}
	fire(math.MaxInt64)
	slices.Sort(out)
	return out
}

// TestNames compares what was asked for with what a certificate says.
func TestNames(t *testing.T) {
	for _, c := range []struct {
		sni, names string
		fires      bool
	}{
		{"example.com", "example.com", false},
		{"a.b.example.com", "*.example.com", false},
		{"a.example.com", "b.example.com", false},
		{"example.com", "example.net", true},
		{"notexample.com", "example.com", true},
		{"a.co.uk", "b.co.uk", true},
		{"x.a.co.uk", "y.z.a.co.uk", false},
		{"a.kawasaki.jp", "b.kawasaki.jp", true},
		{"me.github.io", "*.github.io", false},
		{"d1.cloudfront.net", "*.cloudfront.net", false},
		{"s3.eu-west-1.amazonaws.com", "*.s3.amazonaws.com", false},
		{"example.lan", "example.lan", false},
		{"box.example.lan", "www.example.org,example.lan", false},
		{"EXAMPLE.co.UK", "www.example.CO.uk", false},
		{"example.com.", "example.com", false},
	} {
		x := x509(0, "fp", "CN=", ca, strings.Split(c.names, ",")...)
		got := modtest.Skew(t, certname.Spec, certname.Spec.Defaults(), []*flow.Flow{ssl(0, "S1", "198.51.101.1", c.sni, "fp")}, []*flow.Flow{x})
		if len(got) > 0 != c.fires {
			t.Errorf("%s for %s: %q", c.names, c.sni, got)
		}
	}
}

// TestStateIsBounded feeds a scanner of 40,000 servers, each with a
// certificate of its own, some with a thousand names.
func TestStateIsBounded(t *testing.T) {
	b := modtest.NewBench[certname.State](t, certname.Spec, certname.Spec.Defaults())
	told := 0
	var many []string
	b.Host.Emit = func(evidence.Evidence) { told++ }
	for i := range 1000 {
		many = append(many, fmt.Sprintf("www.n%d.example%d.org", i, i))
	}
	for i := range 40_000 {
		x := x509(float64(i)/200, fmt.Sprintf("K%d", i), "CN=a", "CN=a")
		if i%1000 == 0 {
			x.X509.SANDNS = many
		}
		for _, f := range []*flow.Flow{x, ssl(float64(i)/200, "S", fmt.Sprintf("198.51.%d.%d", i>>8, i&255), "www.example.com", fmt.Sprintf("%c%d", "KU"[i&1], i))} {
			b.Handle(f)
		}
		if i%3 == 0 {
			b.Fire(1)
		}
	}
	if b.State.Certs.Len() > 4096 || len(b.State.Queue.Slots) > 4096 || b.State.Queue.Mid-b.State.Queue.Head > 1024 || b.State.Queue.Mid-b.State.Queue.Head < 1000 || b.State.Seen.Len() > 1<<14 || b.State.Told.Len() > 1<<13 || b.State.Hosts.Len() > 4096 {
		t.Errorf("%d certificates, %d places, %d late, %d seen, %d told, %d hosts", b.State.Certs.Len(), len(b.State.Queue.Slots), b.State.Queue.Mid-b.State.Queue.Head, b.State.Seen.Len(), b.State.Told.Len(), b.State.Hosts.Len())
	}
	names := 0
	for _, c := range b.State.Certs.Young {
		names = max(names, len(c.Domains))
	}
	if names > 128 {
		t.Errorf("%d names kept of one certificate", names)
	}
	if b.State.Dropped == 0 || told == 0 || told > 500 {
		t.Errorf("%d dropped, %d told", b.State.Dropped, told)
	}
}

// TestManyLate: of the handshakes that wait for a log that does not come, one
// too many makes the oldest be judged by what it says itself.
func TestManyLate(t *testing.T) {
	b := modtest.NewBench[certname.State](t, certname.Spec, certname.Spec.Defaults())
	var told []string
	b.Host.Emit = func(e evidence.Evidence) { told = append(told, e.UIDs...) }
	a := netip.MustParseAddr("10.0.0.0")
	for i := range 1026 {
		f := ssl(float64(i)/100, fmt.Sprintf("S%d", i), "198.51.101.1", "", fmt.Sprintf("F%d", i))
		f.Src, f.SSL.Subject, f.SSL.Issuer = a, "CN=www.google.com", "CN=www.google.com"
		a = a.Next()
		b.Handle(f)
	}
	b.Host.Now += 15 * int64(time.Second)
	b.Fire(1)
	if d := gocmp.Diff([]string{"S0", "S1"}, told); d != "" {
		t.Error(d)
	}
}

func TestKnownServerDoesNotAllocate(t *testing.T) {
	b := modtest.NewBench[certname.State](t, certname.Spec, certname.Spec.Defaults())
	good, other := ssl(2, "S1", "198.51.101.1", "www.example.com", "good"), ssl(2, "S2", "198.51.101.2", "www.example.com", "other")
	b.Handle(x509(1, "good", "CN=b", ca, "*.example.com"))
	b.Handle(x509(1, "other", "CN=b", ca, "*.example.net"))
	for _, f := range []*flow.Flow{good, other} {
		b.Handle(f)
		if n := testing.AllocsPerRun(100, func() { b.Handle(f) }); n != 0 {
			t.Errorf("%v allocations for %s", n, f.UID)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, n := range []int{0, -1, 1001} {
		if _, err := certname.Spec.New(&certname.Config{MaxPerWindow: n}, modules.Env{}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("max_per_window: %d", n)) {
			t.Errorf("%d: error %v", n, err)
		}
	}
}

// TestRealTraffic finds the two servers of a capture that show a certificate
// of another organisation than the one asked for, and nothing of weight in two
// days of a benign host and beside infected ones.
func TestRealTraffic(t *testing.T) {
	for dir, want := range map[string]string{
		"zeek/test9-mixed/": "netflix.com 22.22.33.22:443, www.netflix.com 123.33.22.11:443", "zeek/isc-2021-10/": "", "zeek/mixed-012/data/": "", "zeek/test10-mixed/": "",
	} {
		ext := ""
		if strings.Contains(dir, "data") {
			ext = ".labeled"
		}
		var got []string
		for _, e := range modtest.Evidence(t, certname.Spec, modtest.Datasets(t, dir+"ssl.log"+ext, dir+"x509.log"+ext)...) {
			if e.Level > evidence.Low {
				got = append(got, e.Subject)
			}
		}
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("%s: %q, want %q", dir, got, want)
		}
	}
}

// TestWants leaves out what the sensor has compared, but for the names of big
// organisations, which a made-up certificate may fit.
func TestWants(t *testing.T) {
	run, err := certname.Spec.New(certname.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		sni, subject, word string
		match              flow.Tri
		want               bool
	}{
		{"www.example.com", "", "", flow.True, false},
		{"login.Microsoft.com", "", "", flow.True, true},
		{"x.googleusercontent.com", "", "", flow.True, true},
		{"x.googleusercontents.com", "", "", flow.True, false},
		{"login.microsoft.com", "", "ok", flow.True, false},
		{"www.example.com", "CN=a,O=Google", "", flow.True, true},
		{"www.example.com", "", "", flow.False, true},
		{"www.example.com", "", "ok", flow.False, true},
		{"www.example.com", "", "", 0, true},
	} {
		f := ssl(0, "S1", "198.51.101.1", c.sni, "fp")
		f.SSL.Subject, f.SSL.Validation, f.SSL.SNIMatchesCert = c.subject, c.word, c.match
		if got := run.Chooser().Wants(f); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
