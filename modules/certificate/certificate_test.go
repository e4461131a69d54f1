package certificate_test

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
	"github.com/slips-go/slips/modules/certificate"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, certificate.Spec, "testdata/*.txtar") }

const base = 1_700_000_000 // s

func record(k flow.Kind, sec float64) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(k)
	f.Time = base*1e9 + int64(sec*1e9)
	return f
}

func ssl(sec float64, uid, dst, fp string) *flow.Flow {
	f := record(flow.SSL, sec)
	f.Src, f.Dst, f.DstPort, f.Proto, f.UID = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr(dst), 443, flow.TCP, uid
	f.SSL.CertFPs = []string{fp}
	return f
}

func x509(sec float64, fp, subject, issuer string, days int64) *flow.Flow {
	f := record(flow.X509, sec)
	x := f.X509
	x.Fingerprint, x.Subject, x.Issuer, x.NotBefore, x.NotAfter = fp, subject, issuer, 1_600_000_000e9, f.Time+days*86400e9
	return f
}

// TestOrderOfLogs holds the module to the same evidence whichever log is ahead.
func TestOrderOfLogs(t *testing.T) {
	got := modtest.Skew(t, certificate.Spec, certificate.Spec.Defaults(),
		[]*flow.Flow{
			ssl(0, "S1", "198.51.101.1", "self"), ssl(1, "S2", "198.51.101.2", "good"), ssl(2, "S3", "198.51.101.3", "old"),
			ssl(3, "S4", "198.51.101.4", "late"), ssl(300, "S5", "198.51.101.1", "self"), ssl(301, "S6", "198.51.101.5", "self"),
			ssl(4000, "S7", "198.51.101.1", "self"),
		},
		[]*flow.Flow{
			x509(0, "self", "CN=a", "CN=a", 90), x509(1, "good", "CN=b", "CN=R3", 90), x509(2.5, "old", "CN=c", "CN=R3", -90),
			x509(100, "late", "CN=d", "CN=d", 90), x509(5000, "x", "CN=x", "CN=y", 1),
		})
	for i, l := range got {
		p := strings.Fields(l)
		got[i] = fmt.Sprint(p[0], " ", p[1], " ", p[3], " ", l[strings.Index(l, "uids="):strings.Index(l, "uids=")+7])
	}
	want := []string{
		"INVALID_CERTIFICATE 10.0.0.1 w1 uids=S3",
		"SELF_SIGNED_CERTIFICATE 10.0.0.1 w1 uids=S1", "SELF_SIGNED_CERTIFICATE 10.0.0.1 w1 uids=S6", "SELF_SIGNED_CERTIFICATE 10.0.0.1 w2 uids=S7",
		"SELF_SIGNED_CERTIFICATE 198.51.101.1 w1 uids=S1", "SELF_SIGNED_CERTIFICATE 198.51.101.1 w2 uids=S7", "SELF_SIGNED_CERTIFICATE 198.51.101.5 w1 uids=S6",
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestLateLog holds the module to the evidence of complete logs when x509.log
// turns up minutes behind ssl.log.
func TestLateLog(t *testing.T) {
	handshakes := []*flow.Flow{
		ssl(0, "S1", "198.51.101.1", "F1"), ssl(1, "S2", "198.51.101.2", "F2"), ssl(2, "S3", "198.51.101.3", "F3"),
		ssl(3, "S4", "198.51.101.4", "F4"), ssl(4, "S5", "198.51.101.5", "none"), ssl(100, "S6", "198.51.101.1", "F6"),
	}
	// Roots that have expired, over a good certificate and over one that is not
	// known; a chain with a root of its own that is the certificate itself; and
	// one whose name only x509.log knows.
	for i, word := range map[int]string{1: "certificate has expired", 2: "self signed certificate in certificate chain", 3: "self signed certificate", 4: "certificate has expired"} {
		handshakes[i].SSL.Validation = word
	}
	certs := []*flow.Flow{
		x509(0.1, "F1", "CN=a", "CN=R3", 90), x509(1.1, "F2", "CN=b", "CN=R3", 90), x509(2.1, "F3", "CN=c", "CN=c", 90),
		x509(3.1, "F4", "CN=d", "CN=d", 90), x509(100.1, "F6", "CN=f", "CN=f", 90),
	}
	want := []string{
		`INVALID_CERTIFICATE [S5] "10.0.0.1 connected to 198.51.101.5:443, which showed a certificate that has expired, by the sensor's word."`,
		`SELF_SIGNED_CERTIFICATE [S3] "10.0.0.1 connected to 198.51.101.3:443, which showed a certificate that it signed itself, for \"c\"."`,
		`SELF_SIGNED_CERTIFICATE [S3] "198.51.101.3:443 showed 10.0.0.1 a certificate that it signed itself, for \"c\"."`,
		`SELF_SIGNED_CERTIFICATE [S4] "10.0.0.1 connected to 198.51.101.4:443, which showed a certificate that it signed itself, for \"d\"."`,
		`SELF_SIGNED_CERTIFICATE [S4] "198.51.101.4:443 showed 10.0.0.1 a certificate that it signed itself, for \"d\"."`,
	}
	if d := gocmp.Diff(want, tardy(t, handshakes, certs)); d != "" {
		t.Errorf("x509.log late:\n%s", d)
	}
	if d := gocmp.Diff(want, tardy(t, certs, handshakes)); d != "" {
		t.Errorf("ssl.log late:\n%s", d)
	}
	if got := modtest.Skew(t, certificate.Spec, certificate.Spec.Defaults(), handshakes, certs); len(got) != len(want) {
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
	run, err := certificate.Spec.New(certificate.Spec.Defaults(), modules.Env{})
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

// TestStateIsBounded feeds a scanner of 40,000 servers, each with a
// certificate of its own that never comes or came before.
func TestStateIsBounded(t *testing.T) {
	run, err := certificate.Spec.New(certificate.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	st, told := run.NewState().(*certificate.State), 0
	h := &modules.Host{
		At:   func(t int64) profile.Window { return profile.WindowOf(t, 0, int64(time.Hour)) },
		Emit: func(evidence.Evidence) { told++ }, After: func(time.Duration, uint64) {},
	}
	cx := modules.NewContext(h)
	for i := range 40_000 {
		for _, f := range []*flow.Flow{
			x509(float64(i)/200, fmt.Sprintf("K%d", i), "CN=a", "CN=a", 1), ssl(float64(i)/200, "S", fmt.Sprintf("198.51.%d.%d", i>>8, i&255), fmt.Sprintf("%c%d", "KU"[i&1], i)),
		} {
			h.Now = f.Time
			run.Handle(cx, st, f)
		}
		if i%3 == 0 {
			run.Fire(cx, st, 1)
		}
	}
	if st.Certs.Len() > 4096 || len(st.Queue.Slots) > 4096 || st.Queue.Mid-st.Queue.Head > 1024 || st.Queue.Mid-st.Queue.Head < 1000 || st.Seen.Len() > 1<<14 || st.Told.Len() > 1<<13 || st.Hosts.Len() > 4096 {
		t.Errorf("%d certificates, %d places, %d late, %d seen, %d told, %d hosts", st.Certs.Len(), len(st.Queue.Slots), st.Queue.Mid-st.Queue.Head, st.Seen.Len(), st.Told.Len(), st.Hosts.Len())
	}
	if st.Dropped == 0 || told == 0 || told > 500 {
		t.Errorf("%d dropped, %d told", st.Dropped, told)
	}
}

func TestKnownServerDoesNotAllocate(t *testing.T) {
	run, err := certificate.Spec.New(certificate.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	h := &modules.Host{After: func(time.Duration, uint64) {}}
	st, cx := run.NewState(), modules.NewContext(h)
	good, self := ssl(2, "S1", "198.51.101.1", "good"), ssl(2, "S2", "198.51.101.2", "self")
	h.Now = good.Time
	run.Handle(cx, st, x509(1, "good", "CN=b", "CN=R3", 90))
	run.Handle(cx, st, x509(1, "self", "CN=a", "CN=a", 90))
	for _, f := range []*flow.Flow{good, self} {
		run.Handle(cx, st, f)
		if n := testing.AllocsPerRun(100, func() { run.Handle(cx, st, f) }); n != 0 {
			t.Errorf("%v allocations for %s", n, f.UID)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, n := range []int{0, -1, 1001} {
		if _, err := certificate.Spec.New(&certificate.Config{MaxPerWindow: n}, modules.Env{}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("max_per_window: %d", n)) {
			t.Errorf("%d: error %v", n, err)
		}
	}
}

// TestRealTraffic finds the servers of two infected hosts, and leaves alone
// the clean ones beside them and a benign host whose sensor calls a verified
// site expired.
func TestRealTraffic(t *testing.T) {
	dir := "zeek/isc-2021-10/"
	hosts := make(map[string]int)
	for _, e := range modtest.Evidence(t, certificate.Spec, modtest.Datasets(t, dir+"ssl.log", dir+"x509.log")...) {
		if e.Attacker.Direction == evidence.Src && e.Level == evidence.Medium {
			hosts[e.Attacker.Value]++
		}
	}
	if len(hosts) != 2 || hosts["10.10.22.156"] < 5 || hosts["10.10.22.158"] < 1 {
		t.Errorf("self-signed: %v", hosts)
	}
	for _, name := range []string{"zeek/mixed-008/data/ssl.log.labeled", "zeek/mixed-012/data/ssl.log.labeled", "zeek/test9-mixed/ssl.log"} {
		for _, e := range modtest.Evidence(t, certificate.Spec, modtest.Datasets(t, name)...) {
			if e.Level > evidence.Low || e.Confidence > 0.2 {
				t.Errorf("%s: %s", name, e.Description)
			}
		}
	}
}
