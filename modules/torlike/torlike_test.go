package torlike_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/torlike"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, torlike.Spec, "testdata/*.txtar") }

const base = 1_700_000_000 // s

func record(k flow.Kind, sec float64) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(k)
	f.Time = base*1e9 + int64(sec*1e9)
	f.Src = netip.MustParseAddr("10.0.0.1")
	return f
}

func ssl(sec float64, uid, dst, sni, fp string) *flow.Flow {
	f := record(flow.SSL, sec)
	f.Dst, f.DstPort, f.Proto, f.UID, f.SSL.ServerName = netip.MustParseAddr(dst), 443, flow.TCP, uid, sni
	if fp != "" {
		f.SSL.CertFPs = []string{fp}
	}
	return f
}

func dns(sec float64, name string) *flow.Flow {
	f := record(flow.DNS, sec)
	f.DNS.Query = name
	return f
}

func x509(sec float64, fp, subject, issuer string) *flow.Flow {
	f := record(flow.X509, sec)
	f.Src = netip.Addr{}
	f.X509.Fingerprint, f.X509.Subject, f.X509.Issuer = fp, subject, issuer
	return f
}

// TestOrderOfLogs holds the module to the same evidence whichever log is ahead.
func TestOrderOfLogs(t *testing.T) {
	const a, b, c, d = "www.xq5zvkt7hwjrp2.com", "www.h4tqzkw3vmbx.net", "www.jzx6qpkvn3wq.com", "www.kx3vbqzjw7tg.com"
	got := modtest.Skew(t, torlike.Spec, torlike.Spec.Defaults(),
		[]*flow.Flow{
			ssl(0, "S1", "198.51.101.1", a, "relay"), ssl(1, "S2", "198.51.101.2", b, ""), ssl(2, "S3", "198.51.101.3", c, ""),
			ssl(3, "S4", "198.51.101.4", d, "late"), ssl(400, "S5", "198.51.101.4", a, ""), ssl(4000, "S6", "198.51.101.1", b, ""),
		},
		[]*flow.Flow{dns(0, "www.zzqx5kv7wqpj.com"), dns(10, c), dns(500, d), dns(4100, c)},
		[]*flow.Flow{x509(1, "relay", "CN="+b, "CN="+c), x509(100, "late", "CN="+b, "CN="+c), x509(5000, "x", "CN="+a, "CN="+c)})
	for i, l := range got {
		p := strings.Fields(l)
		got[i] = fmt.Sprint(p[3], " ", p[4], " ", p[7], l[strings.LastIndex(l, "Tor:")+4:])
	}
	want := []string{
		`w1 "198.51.101.1" uids=S1 both the name it asked for and those in the certificate are invented, as Tor's are.`,
		`w1 "198.51.101.2" uids=S2 it asked for an invented name that nobody has looked up.`,
		`w1 "198.51.101.4" uids=S4 it asked for an invented name that nobody has looked up.`,
		`w1 "198.51.101.4" uids=S4,S5 it asked for several invented names at one address, and nobody has looked them up.`,
		`w2 "198.51.101.1" uids=S6 it asked for an invented name that nobody has looked up.`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestWants separates names that Tor could have drawn from those that people
// have chosen.
func TestWants(t *testing.T) {
	run, err := torlike.Spec.New(torlike.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	wants := func(name string) bool { return run.Chooser().Wants(ssl(0, "S", "198.51.101.1", name, "")) }
	for n := range strings.FieldsSeq(`www.google.com www.facebook.com www.microsoft.com www.linkedin.com www.whatsapp.com www.instagram.com
		www.netflix.com www.wikipedia.com www.booking.com www.salesforce.com www.sharepoint.com www.doubleclick.net www.cloudflare.com
		www.theguardian.com www.nytimes.com www.bloomberg.com www.washingtonpost.com www.huffingtonpost.com www.tripadvisor.com
		www.stackoverflow.com www.wordpress.com www.office365.com www.travel247.com www.schwarzkopf.com www.volkswagen.com
		www.xn--bcher-kva.com www.rhythmbox.com www.lengthstrength.com www.deutschepost.com www.krungsri.com`) {
		if wants(n) {
			t.Errorf("%s looks invented", n)
		}
	}
	for n := range strings.FieldsSeq(`www.xq5zvkt7hwjrp2.com www.h4tqzkw3vmbx.net www.JZX6QPKVN3WQ.com www.b7m2vzqk.com www.zzkqjxvwpfgh3c5wtqnb.net`) {
		if !wants(n) {
			t.Errorf("%s does not look invented", n)
		}
	}
}

// TestStateIsBounded feeds a client that invents names for 30,000 servers, and
// a resolver that looks up as many.
func TestStateIsBounded(t *testing.T) {
	b := modtest.NewBench[torlike.State](t, torlike.Spec, torlike.Spec.Defaults())
	told := 0
	b.Host.Emit = func(evidence.Evidence) { told++ }
	for i := range 30_000 {
		name := fmt.Sprintf("www.zqx%dkvj.com", 22222+i)
		for _, f := range []*flow.Flow{
			ssl(float64(i), "S", fmt.Sprintf("198.51.%d.%d", i>>8, i&255), name, "fp"), dns(float64(i), "no"+name), x509(float64(i), name, "CN="+name, "CN=x"),
		} {
			b.Handle(f)
		}
		if i%2 == 0 {
			b.Fire(uint64(i / 2))
		}
	}
	if b.State.Names.Len() > 4096 || b.State.Certs.Len() > 1024 || len(b.State.Pending) > 1024 || b.State.Servers.Len() > 4096 || b.State.Hosts.Len() > 4096 {
		t.Errorf("%d names, %d certificates, %d pending, %d servers, %d hosts", b.State.Names.Len(), b.State.Certs.Len(), len(b.State.Pending), b.State.Servers.Len(), b.State.Hosts.Len())
	}
	if b.State.Dropped == 0 || told == 0 || told > 200 {
		t.Errorf("%d dropped, %d told", b.State.Dropped, told)
	}
}

func TestWantsDoesNotAllocate(t *testing.T) {
	run, err := torlike.Spec.New(torlike.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	c, f := run.Chooser(), ssl(0, "S", "198.51.101.1", "www.googleadservices.com", "fp")
	if n := testing.AllocsPerRun(100, func() { c.Wants(f) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestConfig(t *testing.T) {
	for _, n := range []int{0, -1, 1001} {
		if _, err := torlike.Spec.New(&torlike.Config{MaxPerWindow: n}, modules.Env{}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("max_per_window: %d", n)) {
			t.Errorf("%d: error %v", n, err)
		}
	}
}

// TestRealTraffic finds the fingerprint of Tor in one capture, and nothing in
// those of benign hosts and of other malware.
func TestRealTraffic(t *testing.T) {
	for dir, want := range map[string]string{
		"zeek/test9-mixed/": "123.33.22.11", "zeek/isc-2021-10/": "", "zeek/mixed-008/data/": "", "zeek/mixed-012/data/": "", "zeek/test10-mixed/": "",
	} {
		ext := ""
		if strings.Contains(dir, "data") {
			ext = ".labeled"
		}
		var got []string
		for _, e := range modtest.Evidence(t, torlike.Spec, modtest.Datasets(t, dir+"ssl.log"+ext, dir+"dns.log"+ext)...) {
			got = append(got, e.Victim.Value)
		}
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("%s: %q, want %q", dir, got, want)
		}
	}
}
