package threatintel_test

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/feeds/format"
	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/threatintel"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, threatintel.Spec, "testdata/*.txtar") }

// view makes a snapshot as the cases have it.
func view(t testing.TB, feeds string) *intel.View {
	t.Helper()
	v, err := modtest.View(feeds)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// with returns the module with a snapshot of its own, for harnesses that have
// none to give.
func with(v *intel.View) modules.Spec {
	s := threatintel.Spec
	s.New = func(cfg any, env modules.Env) (modules.Runner, error) {
		r, err := threatintel.Spec.New(cfg, env)
		return listed{r, v}, err
	}
	return s
}

type listed struct {
	modules.Runner
	view *intel.View
}

func (l listed) Looker() modules.Looker { return looker{l.Runner.Looker(), l.view} }

func (l listed) Handle(cx *modules.Context, st any, f *flow.Flow) {
	l.Runner.Handle(l.context(cx), st, f)
}

func (l listed) Fire(cx *modules.Context, st any, key uint64) { l.Runner.Fire(l.context(cx), st, key) }

func (l listed) context(cx *modules.Context) *modules.Context {
	return modules.NewContext(&modules.Host{
		Now: cx.Now(), Profile: cx.Profile(), Window: cx.Window(), Role: cx.Role(), Net: cx.Network(), Intel: l.view,
		At: cx.WindowAt, Emit: cx.Emit, After: cx.After, Ask: cx.Ask,
	})
}

type looker struct {
	modules.Looker
	view *intel.View
}

func (l looker) Looks(_ *intel.View, f *flow.Flow) bool { return l.Looker.Looks(l.view, f) }

// record returns a record of 10.0.0.7, or of another host there.
func record(k flow.Kind, sec float64, uid, dst string, port uint16) *flow.Flow {
	f := modtest.Record(k, sec, uid)
	f.Dst, f.DstPort = netip.MustParseAddr(dst), port
	return f
}

func conn(sec float64, uid, dst string, port uint16) *flow.Flow {
	f := record(flow.Conn, sec, uid, dst, port)
	f.State, f.RawState, f.OrigBytes, f.RespBytes, f.OrigPkts, f.RespPkts = flow.Established, "SF", 500, 4000, 5, 5
	return f
}

func dns(sec float64, uid, name string, answers ...string) *flow.Flow {
	f := record(flow.DNS, sec, uid, "10.0.0.53", 53)
	f.Proto = flow.UDP
	f.DNS.Query, f.DNS.QType, f.DNS.RCode, f.DNS.Response = name, "A", "NOERROR", true
	f.DNS.Answers = append(f.DNS.Answers, answers...)
	return f
}

func tls(sec float64, uid, dst, name string) *flow.Flow {
	f := record(flow.SSL, sec, uid, dst, 443)
	f.SSL.ServerName, f.SSL.Established = name, flow.True
	return f
}

func web(sec float64, uid, dst, host, uri string) *flow.Flow {
	f := record(flow.HTTP, sec, uid, dst, 80)
	f.HTTP.Method, f.HTTP.Host, f.HTTP.URI, f.HTTP.StatusCode = "GET", host, uri, 200
	return f
}

// bench is the module over one host's records, with timers.
type bench struct {
	*modtest.Bench[threatintel.State]
	due []int64
}

func newBench(t testing.TB, v *intel.View) *bench {
	t.Helper()
	b := &bench{Bench: modtest.NewBench[threatintel.State](t, threatintel.Spec, threatintel.Spec.Defaults())}
	b.Host.Intel = v
	b.Host.After = func(_ time.Duration, key uint64) { b.due = append(b.due, int64(key)) }
	return b
}

// run handles the records, in their order, and returns the evidence.
func (b *bench) run(records ...*flow.Flow) []evidence.Evidence {
	const tick = 5e9
	for _, f := range records {
		b.fire(f.Time / tick)
		if b.Runner.Looker().Looks(b.Host.Intel, f) || b.State.Names != nil {
			b.Handle(f)
		}
	}
	b.fire(1 << 62)
	return b.Evidence
}

func (b *bench) fire(upTo int64) {
	slices.Sort(b.due)
	for len(b.due) > 0 && b.due[0] <= upTo {
		key := b.due[0]
		b.due = b.due[1:]
		b.Host.Now, b.Host.Record = key*5e9, key*5e9
		b.Fire(uint64(key))
	}
}

// score is what the evidence is worth against its host.
func score(es []evidence.Evidence) float64 {
	var t alerts.Tally
	for i := range es {
		e := &es[i]
		e.ID = fmt.Sprint(i)
		for _, s := range threatintel.Spec.Emits {
			if s.Type == e.Type {
				e.Tactic = s.Tactic
			}
		}
		if !e.Profile.IsValid() {
			e.Profile = netip.MustParseAddr("10.0.0.7")
		}
		if alerts.Counts(e) {
			t.Add(e)
		}
	}
	return t.Weigh(alerts.Defaults(), threshold).Score
}

// threshold is the score of an alert in a window of an hour.
const threshold = 15

// TestScores holds what the evidence adds up to against what it takes for an
// alert: one sure and fresh feed and a real contact.
func TestScores(t *testing.T) {
	const feeds = `
feed high high tags=c2
feed old high tags=c2 age=40
feed medium medium tags=malware
feed second medium tags=malware
feed pots medium tags=honeypot
feed critical critical tags=c2
feed critical2 critical tags=c2
feed critical3 critical tags=c2
ioc high domain high.example.net
ioc old domain old.example.net
ioc medium domain medium.example.net
ioc high domain parent.example.net
ioc pots ip 203.0.114.50
ioc high ip 203.0.114.60
ioc second ip 203.0.114.60
ioc high ip 203.0.114.61
`
	var many strings.Builder
	many.WriteString(feeds)
	var lookups []*flow.Flow
	for i := range 40 {
		for _, f := range []string{"critical", "critical2", "critical3"} {
			fmt.Fprintf(&many, "ioc %s domain n%d.example.org\n", f, i)
		}
		lookups = append(lookups, dns(float64(i), fmt.Sprintf("D%d", i), fmt.Sprintf("n%d.example.org", i), fmt.Sprintf("203.0.114.%d", i)))
	}
	contact := func(name string) []*flow.Flow {
		return []*flow.Flow{dns(0, "D1", name, "203.0.114.1"), conn(1, "C1", "203.0.114.1", 4444)}
	}
	repeat := func(n int, dst string) (fs []*flow.Flow) {
		for i := range n {
			fs = append(fs, conn(float64(5*i), fmt.Sprintf("C%d", i), dst, 443))
		}
		return fs
	}
	for _, tt := range []struct {
		name    string
		feeds   string
		records []*flow.Flow
		from    float64
		below   float64
	}{
		{"a look-up alone", feeds, []*flow.Flow{dns(0, "D1", "high.example.net", "203.0.114.1")}, 2, 3},
		{"a name resolved and connected to", feeds, contact("high.example.net"), threshold, 18},
		{
			"by the name in TLS", feeds,
			[]*flow.Flow{dns(0, "D1", "high.example.net", "203.0.114.1"), tls(1, "C1", "203.0.114.1", "high.example.net")},
			threshold, 18,
		},
		{"the name in TLS alone", feeds, []*flow.Flow{tls(1, "C1", "203.0.114.1", "high.example.net")}, 7, 8},
		{"another name at its address", feeds, []*flow.Flow{
			dns(0, "D1", "high.example.net", "203.0.114.1"), tls(1, "C1", "203.0.114.1", "good.example.org"), conn(1, "C1", "203.0.114.1", 443),
		}, 2, 3},
		{"a feed that is a month old", feeds, contact("old.example.net"), 5, 13},
		{"a name below the listed one", feeds, contact("x.parent.example.net"), 12, 12.5},
		{"a feed of level medium", feeds, contact("medium.example.net"), 5, 6},
		{
			"a feed of level medium, all day", feeds,
			append([]*flow.Flow{dns(0, "D1", "medium.example.net", "203.0.114.1")}, repeat(520, "203.0.114.1")...), 9, 11,
		},
		{"a resolver of many of the worst names", many.String(), lookups, 5, 10},
		{"the web site at the address of a scanner", feeds, repeat(100, "203.0.114.50"), 1, 4},
		{"one feed's server, all day", feeds, repeat(100, "203.0.114.61"), 12, 15},
		{"two providers' server, often", feeds, repeat(10, "203.0.114.60"), threshold, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			es := newBench(t, view(t, tt.feeds)).run(tt.records...)
			if s := score(es); s < tt.from || s >= tt.below {
				t.Errorf("score %.2f, want at least %v and less than %v", s, tt.from, tt.below)
				for _, e := range es {
					t.Logf("%s %s %.2f step %d %s", e.Type, e.Level, e.Confidence, e.Step, e.Description)
				}
			}
		})
	}
}

// TestClumsyFeed holds feeds that list what is benign to no alert of their own,
// whatever a host does all day; and to being heard nonetheless.
func TestClumsyFeed(t *testing.T) {
	const ja3, cert, file = "6734f37431670b3ab4292b8f60f29984", "1111111111111111111111111111111111111111", "22222222222222222222222222222222"
	var everything strings.Builder
	everything.WriteString("feed clumsy medium tags=malware\n")
	for i := range 20 {
		fmt.Fprintf(&everything, "ioc clumsy domain site%d.example.net\nioc clumsy ip 203.0.114.%d\nioc clumsy url site%d.example.net/a\n", i, i, i)
	}
	fmt.Fprintf(&everything, "ioc clumsy ja3 %s\nioc clumsy cert_sha1 %s\nioc clumsy md5 %s\nioc clumsy email a@example.net\n", ja3, cert, file)
	everything.WriteString("ioc clumsy asn 64500\nas 203.0.114.0/24 64500\n")

	// A day of a site: it is resolved, under an alias too, and visited.
	visits := func(n int, name, addr, alias string) (fs []*flow.Flow) {
		for i := range n {
			sec, uid := float64(6*i), func(s string) string { return fmt.Sprint(s, name, i) }
			mail := record(flow.SMTP, sec+4, uid("M"), "203.0.115.25", 25)
			mail.SMTP.From, mail.SMTP.RcptTo = "b@example.org", append(mail.SMTP.RcptTo, "a@"+strings.TrimPrefix(name, "www."))
			f := record(flow.Files, sec+4, uid("F"), addr, 80)
			f.Files.MD5 = file
			s := tls(sec+2, uid("S"), addr, name)
			s.SSL.JA3, s.SSL.SHA1 = ja3, cert
			fs = append(fs,
				dns(sec, uid("D"), name, addr), dns(sec, uid("A"), alias, name, addr), conn(sec+2, uid("S"), addr, 443), s,
				conn(sec+3, uid("H"), addr, 80), web(sec+3, uid("H"), addr, name, "/a"), mail, f)
		}
		return fs
	}
	dayOf := func(dst string, port uint16) (fs []*flow.Flow) {
		for i := range 520 {
			fs = append(fs, conn(float64(6*i), fmt.Sprint("C", i), dst, port))
		}
		return fs
	}
	var many []*flow.Flow
	for i := range 20 {
		many = append(many, visits(10, fmt.Sprintf("site%d.example.net", i), fmt.Sprintf("203.0.114.%d", i), "shop.example.com")...)
	}
	many = append(many, visits(70, "example.net", "203.0.114.1", "shop.example.com")...)
	slices.SortStableFunc(many, func(a, b *flow.Flow) int { return cmp.Compare(a.Time, b.Time) })
	const site = "feed rank info\nioc rank popular example.org\nfeed clumsy high tags=c2\nioc clumsy domain example.org\n"
	for _, tt := range []struct {
		name    string
		feeds   string
		records []*flow.Flow
		from    float64
	}{
		{"medium, sites with their addresses and files", everything.String(), many, 7},
		{"high, a site that many visit", site, visits(520, "www.example.org", "203.0.115.1", "shop.example.com"), 5},
		{"high, such a site and its address", site + "ioc clumsy ip 203.0.115.1", visits(520, "www.example.org", "203.0.115.1", "example.org"), 5},
		{"high, a public resolver", "feed clumsy high tags=c2\nioc clumsy ip 8.8.8.8", dayOf("8.8.8.8", 53), 7},
		{"medium, a public resolver", "feed clumsy medium\nioc clumsy ip 8.8.8.8", dayOf("8.8.8.8", 53), 4},
		{"high, a whole /8", "feed clumsy high\nioc clumsy range 8.0.0.0/8", append(dayOf("8.8.8.8", 53), dayOf("8.8.4.4", 53)...), 4},
		{"medium, a whole /8", "feed clumsy medium\nioc clumsy range 203.0.0.0/8", visits(520, "www.example.org", "203.0.115.1", "shop.example.com"), 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, view(t, tt.feeds))
			windows := map[int64][]evidence.Evidence{}
			for _, e := range b.run(tt.records...) {
				w := b.Host.At(e.Time).Start
				windows[w] = append(windows[w], e)
			}
			best := 0.0
			for _, es := range windows {
				s := score(es)
				if best = max(best, s); s < threshold {
					continue
				}
				t.Errorf("score %.2f, which is an alert", s)
				for _, e := range es {
					t.Logf("%s %s %.2f step %d %s", e.Type, e.Level, e.Confidence, e.Step, e.Description)
				}
			}
			t.Logf("score %.2f", best)
			if best < tt.from {
				t.Errorf("score %.2f, want at least %v", best, tt.from)
			}
		})
	}
	t.Run("our own network", func(t *testing.T) {
		b := newBench(t, view(t, "feed clumsy critical tags=c2\nioc clumsy range 198.51.101.0/24\nioc clumsy ip 198.51.101.7"))
		b.Host.Net = &profile.Network{Home: []netip.Prefix{netip.MustParsePrefix("198.51.101.0/24")}}
		for _, e := range b.run(append(dayOf("198.51.101.7", 443), dns(4000, "D1", "www.example.org", "198.51.101.7"))...) {
			t.Errorf("reported: %s %s", e.Type, e.Description)
		}
	})
}

// TestOperator shows that what an operator lists inside the own network is found
// there, though it is home.
func TestOperator(t *testing.T) {
	b := newBench(t, view(t, "feed own high\nioc own ip 10.0.0.66\nioc own range 172.16.0.0/12"))
	b.Host.Net = &profile.Network{Home: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	var got []string
	for _, e := range b.run(conn(0, "C1", "10.0.0.66", 443), conn(1, "C2", "10.0.0.67", 443), conn(2, "C3", "172.31.0.1", 443)) {
		got = append(got, fmt.Sprintf("%s %s %s", e.Type, e.Level, e.Subject))
	}
	want := []string{"THREAT_INTELLIGENCE_TO_BLACKLISTED_IP high 10.0.0.66", "THREAT_INTELLIGENCE_TO_BLACKLISTED_IP high 172.16.0.0/12"}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestNotPublic compares what packages profile and intel take for the public
// Internet, at the edges of all blocks.
func TestNotPublic(t *testing.T) {
	for _, s := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/29", "192.0.0.170/31", "192.0.2.0/24",
		"192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "::/127", "2001:db8::/32", "fc00::/7",
		"fe80::/10", "ff00::/8", "8.0.0.0/8", "192.88.99.0/24", "2002::/16", "fec0::/10", "64:ff9b::/96",
	} {
		p := netip.MustParsePrefix(s)
		last := p.Addr().AsSlice()
		for i := p.Bits(); i < len(last)*8; i++ {
			last[i/8] |= 0x80 >> (i % 8)
		}
		end, _ := netip.AddrFromSlice(last)
		for _, a := range []netip.Addr{p.Addr().Prev(), p.Addr(), end, end.Next()} {
			if !a.IsValid() {
				continue
			}
			v := view(t, "feed own high\nioc own ip "+a.String())
			if v.Private() == profile.IsPublic(a) || v.Address(a).Private() == profile.IsPublic(a) {
				t.Errorf("%s: private %v, public %v", a, v.Private(), profile.IsPublic(a))
			}
		}
	}
}

// TestLooksPassesTheHarmlessBy shows that what is only known to be harmless makes
// no state: content networks are visited all day.
func TestLooksPassesTheHarmlessBy(t *testing.T) {
	v := view(t, "feed good info tags=known_good\nfeed c2list high\nioc good range 203.0.114.0/24\nioc good range 10.0.0.0/8\nioc good domain example.net\n"+
		"ioc good md5 22222222222222222222222222222222\nioc c2list ip 203.0.114.9\nioc c2list range 192.168.0.0/24")
	l := lookerOf(t)
	for _, f := range all("203.0.114.1", "www.example.net", "22222222222222222222222222222222") {
		if n := testing.AllocsPerRun(100, func() {
			if l.Looks(v, f) {
				t.Errorf("%s: found something", f.Kind)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", f.Kind, n)
		}
	}
	if !l.Looks(v, conn(0, "C", "203.0.114.9", 443)) || !l.Looks(v, conn(0, "C", "192.168.0.9", 443)) || l.Looks(v, conn(0, "C", "10.0.0.9", 443)) {
		t.Error("the listed ones are not found, or the harmless one is")
	}
}

// TestOrderOfLogs holds the module to the same evidence whichever log is
// ahead, by a few records or by all of them.
func TestOrderOfLogs(t *testing.T) {
	v := view(t, `
feed c2list high tags=c2
feed ads info tags=adtrackers
feed rank info
ioc c2list ip 203.0.114.1
ioc c2list ip 203.0.114.2
ioc c2list domain bad.example.net
ioc c2list domain worse.example.net
ioc ads domain ads.example.net
ioc rank popular example.org
feed clumsy medium tags=malware
ioc clumsy domain shop.example.net
ioc clumsy ip 203.0.114.7
`)
	for _, tt := range []struct {
		name string
		logs [][]*flow.Flow
		want []string
	}{
		{
			"a look-up before the connection gives it a name, one after it does not",
			[][]*flow.Flow{
				{dns(0, "D1", "cdn.example.net", "203.0.114.1"), dns(100, "D2", "cdn2.example.net", "203.0.114.2"), dns(500, "D3", "www.example.com")},
				{conn(1, "C1", "203.0.114.1", 443), conn(90, "C2", "203.0.114.2", 443), conn(600, "C3", "203.0.114.99", 443)},
			},
			[]string{
				"THREAT_INTELLIGENCE_BLACKLISTED_DNS_ANSWER 203.0.114.1 1 D1", "THREAT_INTELLIGENCE_BLACKLISTED_DNS_ANSWER 203.0.114.2 1 D2",
				"THREAT_INTELLIGENCE_TO_BLACKLISTED_IP 203.0.114.1 1 D1,C1", "THREAT_INTELLIGENCE_TO_BLACKLISTED_IP 203.0.114.2 1 C2",
			},
		},
		{
			"a listed name in DNS and TLS, from seconds to an hour apart",
			[][]*flow.Flow{
				{dns(0, "D1", "bad.example.net", "203.0.114.5"), dns(50, "D2", "worse.example.net", "203.0.114.6")},
				{tls(1, "C1", "203.0.114.5", "bad.example.net"), tls(2000, "C2", "203.0.114.6", "worse.example.net"), tls(3000, "C3", "203.0.114.5", "bad.example.net")},
			},
			[]string{
				"THREAT_INTELLIGENCE_ANSWER_OF_BLACKLISTED_QUERY bad.example.net 2 D1,C1",
				"THREAT_INTELLIGENCE_ANSWER_OF_BLACKLISTED_QUERY worse.example.net 1 D2",
				"THREAT_INTELLIGENCE_ANSWER_OF_BLACKLISTED_QUERY worse.example.net 2 D2,C2",
				"THREAT_INTELLIGENCE_BLACKLISTED_DOMAIN bad.example.net 2 D1,C1", "THREAT_INTELLIGENCE_BLACKLISTED_DOMAIN worse.example.net 1 D2",
				"THREAT_INTELLIGENCE_BLACKLISTED_DOMAIN worse.example.net 2 D2,C2",
			},
		},
		{
			"one provider alone has a name and its address, at level medium",
			[][]*flow.Flow{
				{dns(0, "D1", "shop.example.net", "203.0.114.7"), dns(500, "D2", "www.example.com")},
				{tls(30, "C1", "203.0.114.7", "shop.example.net"), tls(400, "X", "203.0.114.99", "x.example.com")},
				{conn(30, "C1", "203.0.114.7", 443), conn(600, "X", "203.0.114.99", 443)},
			},
			[]string{
				"THREAT_INTELLIGENCE_ANSWER_OF_BLACKLISTED_QUERY shop.example.net 1 D1", "THREAT_INTELLIGENCE_ANSWER_OF_BLACKLISTED_QUERY shop.example.net 2 D1,C1",
				"THREAT_INTELLIGENCE_BLACKLISTED_DNS_ANSWER 203.0.114.7 1 D1", "THREAT_INTELLIGENCE_BLACKLISTED_DOMAIN shop.example.net 1 D1",
				"THREAT_INTELLIGENCE_BLACKLISTED_DOMAIN shop.example.net 2 D1,C1 lowered",
				"THREAT_INTELLIGENCE_TO_BLACKLISTED_IP 203.0.114.7 1 D1,C1",
			},
		},
		{
			"the popular name of a server comes with the session, and the connection is logged when it ends",
			[][]*flow.Flow{
				{tls(1, "C1", "203.0.114.1", "www.example.org"), tls(400, "X", "203.0.114.99", "x.example.com")},
				{conn(1, "C1", "203.0.114.1", 443), conn(600, "X", "203.0.114.99", 443)},
			},
			[]string{"THREAT_INTELLIGENCE_TO_BLACKLISTED_IP 203.0.114.1 1 C1 popular"},
		},
		{
			"advertisements are told of once",
			[][]*flow.Flow{
				{dns(0, "D1", "ads.example.net", "203.0.114.5"), dns(50, "D2", "ads.example.net", "203.0.114.5")},
				{tls(1, "C1", "203.0.114.5", "ads.example.net"), tls(60, "C2", "203.0.114.5", "ads.example.net")},
			},
			[]string{"THREAT_INTELLIGENCE_BLACKLISTED_DOMAIN ads.example.net 2 D1,C1"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, l := range modtest.Skew(t, with(v), threatintel.Spec.Defaults(), tt.logs...) {
				p := strings.Fields(l)
				s := p[0] + " " + strings.Trim(p[4], `"`) + " " + strings.TrimPrefix(p[6], "count=") + " " + strings.TrimPrefix(p[7], "uids=")
				if strings.Contains(l, "many visit") {
					s += " popular"
				}
				if strings.Contains(l, "alone says so") {
					s += " lowered"
				}
				got = append(got, s)
			}
			if d := gocmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestContactNeedsTheLookUp shows the order that matters: a connection to an
// address that is not listed is looked at from the look-up on.
func TestContactNeedsTheLookUp(t *testing.T) {
	v := view(t, "feed c2list high tags=c2\nioc c2list domain bad.example.net")
	for _, tt := range []struct {
		name string
		conn *flow.Flow
		want evidence.Level
	}{
		{"behind it", conn(1, "C1", "203.0.114.1", 443), evidence.High},
		{"much later", conn(23*3600, "C1", "203.0.114.1", 443), evidence.High},
		{"too late", conn(25*3600, "C1", "203.0.114.1", 443), evidence.Info},
		{"elsewhere", conn(1, "C1", "203.0.114.2", 443), evidence.Info},
	} {
		t.Run(tt.name, func(t *testing.T) {
			level := evidence.Info
			for _, e := range newBench(t, v).run(dns(0, "D1", "bad.example.net", "203.0.114.1"), tt.conn) {
				if e.Type == threatintel.AnswerOf {
					level = max(level, e.Level)
				}
			}
			if level != tt.want {
				t.Errorf("the answer has level %v, want %v", level, tt.want)
			}
		})
	}
}

// TestServer looks at connections from a listed address with the eyes of the
// host that was visited.
func TestServer(t *testing.T) {
	b := newBench(t, view(t, "feed pots medium tags=honeypot\nfeed tor info tags=tor-exit\nioc pots ip 198.51.101.1\nioc tor ip 198.51.101.1"))
	visit := func(sec float64, uid string, s flow.State) {
		f := conn(sec, uid, "10.0.0.7", 22)
		f.Src, f.State = netip.MustParseAddr("198.51.101.1"), s
		b.Host.Now, b.Host.Record, b.Host.Window, b.Host.Profile = f.Time, f.Time, b.Host.At(f.Time), f.Dst
		b.Host.Role = profile.Server
		b.Runner.Handle(modules.NewContext(&b.Host), b.State, f)
	}
	visit(0, "C1", flow.NotEstablished)
	b.fire(1 << 62)
	visit(60, "C2", flow.Established)
	b.fire(1 << 62)
	var got []string
	for _, e := range b.Evidence {
		got = append(got, fmt.Sprintf("%s %s %s %.2f %s->%s", e.Type, e.Profile, e.Level, e.Confidence, e.Attacker.Value, e.Victim.Value))
	}
	want := []string{
		"THREAT_INTELLIGENCE_FROM_BLACKLISTED_IP 10.0.0.7 info 0.60 198.51.101.1->10.0.0.7",
		"THREAT_INTELLIGENCE_FROM_BLACKLISTED_IP 10.0.0.7 medium 0.36 198.51.101.1->10.0.0.7",
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if s := score(b.Evidence); s != 0 {
		t.Errorf("a visit counts %v against the host that was visited", s)
	}
}

// TestOurs shows that a public address of our own is no visitor.
func TestOurs(t *testing.T) {
	b := newBench(t, view(t, "feed pots medium tags=honeypot\nioc pots ip 198.51.101.1\nioc pots ip 203.0.114.1"))
	b.Host.Net = &profile.Network{Home: []netip.Prefix{netip.MustParsePrefix("198.51.101.0/24")}}
	out := conn(0, "C1", "203.0.114.1", 443)
	out.Src = netip.MustParseAddr("198.51.101.1")
	in := conn(1, "C2", "198.51.101.1", 443)
	in.Src = netip.MustParseAddr("192.0.9.1")
	for _, e := range b.run(out, in) {
		if e.Type != threatintel.To || e.Subject != "203.0.114.1" {
			t.Errorf("reported: %s %s", e.Type, e.Description)
		}
	}
	if len(b.Evidence) != 1 {
		t.Errorf("%d pieces of evidence, want one", len(b.Evidence))
	}
}

// TestStateIsBounded feeds more listed things than the limits allow, all in a moment.
func TestStateIsBounded(t *testing.T) {
	b := newBench(t, view(t, "feed c2list high tags=c2\nioc c2list domain example.net\nioc c2list range 20.0.0.0/8\nioc c2list ja3 6734f37431670b3ab4292b8f60f29984"))
	for i := range 30_000 {
		a := modtest.Public(i).String()
		b.Handle(dns(float64(i)/1000, fmt.Sprintf("D%d", i), fmt.Sprintf("n%d.example.net", i), a))
		b.Handle(conn(float64(i)/1000, fmt.Sprintf("C%d", i), a, 443))
		s := tls(float64(i)/1000, fmt.Sprintf("C%d", i), a, fmt.Sprintf("m%d.example.net", i))
		s.SSL.JA3 = "6734f37431670b3ab4292b8f60f29984"
		b.Handle(s)
		if i%1000 == 0 {
			b.Reload()
		}
	}
	if n := b.Size(); n > 512<<10 {
		t.Errorf("the state takes %d bytes", n)
	}
	if st := b.State; len(st.Pending) > 512 || len(st.Names) > 128 || st.Findings.Len() > 512 || st.Dropped == 0 {
		t.Errorf("%d pending, %d names, %d findings, %d dropped", len(st.Pending), len(st.Names), st.Findings.Len(), st.Dropped)
	}
	b.fire(1 << 62)
	if len(b.Evidence) == 0 || len(b.Evidence) > 200 || b.State.Pending != nil {
		t.Errorf("%d pieces of evidence, %d left", len(b.Evidence), len(b.State.Pending))
	}
}

// TestLooksDoesNotAllocate holds what is asked for every record to no
// allocation, with and without something to find.
func TestLooksDoesNotAllocate(t *testing.T) {
	v := view(t, "feed c2list high tags=c2\nfeed rank info\nioc c2list domain bad.example.net\nioc c2list ip 203.0.114.1\nioc c2list url bad.example.com/a\nioc rank popular example.org\n"+
		"ioc c2list md5 11111111111111111111111111111111\nioc c2list email a@example.net\nioc c2list ja3 6734f37431670b3ab4292b8f60f29984")
	l := lookerOf(t)
	for _, f := range all("203.0.114.2", "www.example.org", "22222222222222222222222222222222") {
		if n := testing.AllocsPerRun(100, func() {
			if l.Looks(v, f) {
				t.Errorf("%s: found something", f.Kind)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", f.Kind, n)
		}
	}
	for _, f := range all("203.0.114.1", "bad.example.net", "11111111111111111111111111111111") {
		if !l.Looks(v, f) {
			t.Errorf("%s: found nothing", f.Kind)
		}
		if l.Looks(nil, f) || l.Looks(intel.Empty(), f) {
			t.Errorf("%s: found something where nothing is listed", f.Kind)
		}
	}
}

func lookerOf(t testing.TB) modules.Looker {
	t.Helper()
	r, err := threatintel.Spec.New(threatintel.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Looker()
}

// all returns a record of each kind about an address, a name and a hash.
func all(addr, name, hash string) []*flow.Flow {
	quic := record(flow.QUIC, 0, "Q", addr, 443)
	quic.SSL.ServerName = name
	mail := record(flow.SMTP, 0, "M", "203.0.114.25", 25)
	mail.SMTP.From, mail.SMTP.RcptTo = `"A" <a@`+name+">", append(mail.SMTP.RcptTo, "b@"+name)
	file := record(flow.Files, 0, "F", "203.0.114.80", 80)
	file.Files.MD5 = hash
	return []*flow.Flow{
		conn(0, "C", addr, 443), dns(0, "D", name, addr), tls(0, "S", addr, name), quic, web(0, "H", addr, name, "/x/y?z=1"), mail, file,
	}
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]threatintel.Config{
		"max_per_window: 0 ":    {},
		"max_per_window: 1001 ": {MaxPerWindow: 1001},
	} {
		if _, err := threatintel.Spec.New(&c, modules.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", c, err, want)
		}
	}
}

// TestInfected looks at networks with infected hosts, with indicators that an
// analyst of the malware would have listed.
func TestInfected(t *testing.T) {
	for _, tt := range []struct {
		dir   string
		logs  []string
		feeds string
		want  map[string]float64 // the score that hosts have at least in some window; others have less than 1
	}{
		{
			"zeek/isc-2021-10/", []string{"conn.log", "dns.log", "ssl.log", "http.log"}, `
feed rats high tags=c2
feed loaders high tags=c2
feed servers medium tags=botnet
ioc rats domain kamuchehddhgfgf.ddns.net NanoCore
ioc loaders ip 194.15.112.173 BazarLoader
ioc servers ip 194.15.112.173
`, map[string]float64{"10.10.22.157": threshold, "10.10.22.158": threshold},
		},
		{ // the server is dead: every attempt is in vain
			"zeek/njrat/", []string{"labeled-conn.log"}, `
feed rats high tags=c2
feed more high tags=c2
ioc rats ip 41.108.179.197 njRAT
ioc more ip 41.108.179.197
`, map[string]float64{"192.168.1.115": 7},
		},
	} {
		t.Run(filepath.Base(tt.dir), func(t *testing.T) {
			var names []string
			for _, l := range tt.logs {
				names = append(names, tt.dir+l)
			}
			got := scores(modtest.Evidence(t, with(view(t, tt.feeds)), modtest.Datasets(t, names...)...))
			for host, s := range got {
				if want, infected := tt.want[host]; infected && s < want || !infected && s >= 1 {
					t.Errorf("%s has a score of %.2f, want %v", host, s, want)
				}
			}
			for host := range tt.want {
				if _, ok := got[host]; !ok {
					t.Errorf("nothing was found about %s", host)
				}
			}
		})
	}
}

// scores returns the highest score of each profile in a window.
func scores(es []evidence.Evidence) map[string]float64 {
	type window struct {
		of netip.Addr
		n  int64
	}
	by := map[window][]evidence.Evidence{}
	for _, e := range es {
		by[window{e.Profile, e.Window}] = append(by[window{e.Profile, e.Window}], e)
	}
	out := map[string]float64{}
	for w, es := range by {
		out[w.of.String()] = max(out[w.of.String()], score(es))
	}
	return out
}

// lists are the real files, with the levels and tags that feeds.yaml gives to
// their like.
var lists = []struct {
	file, format, provider string
	level                  evidence.Level
	tags                   string
}{
	{"ipsum/ipsum.txt", "ipsum", "stamparm", evidence.Medium, "honeypot"},
	{"firehol-mirror/blocklist_de.ipset", "netset", "blocklist.de", evidence.Medium, "honeypot"},
	{"firehol-mirror/blocklist_de_ssh.ipset", "netset", "blocklist.de", evidence.Medium, "honeypot ssh"},
	{"firehol-mirror/bruteforceblocker.ipset", "netset", "danger.rulez.sk", evidence.Medium, "bruteforce"},
	{"firehol-mirror/greensnow.ipset", "netset", "greensnow", evidence.Medium, "honeypot"},
	{"firehol-mirror/ciarmy.ipset", "netset", "cinsscore.com", evidence.Low, "scanner"},
	{"firehol-mirror/dshield.netset", "netset", "dshield", evidence.Medium, "scanner"},
	{"firehol-mirror/maltrail_scanners.ipset", "netset", "maltrail", evidence.Low, "scanner"},
	{"firehol-mirror/et_block.netset", "netset", "proofpoint", evidence.Medium, "honeypot"},
	{"firehol-mirror/et_compromised.ipset", "netset", "proofpoint", evidence.Medium, "hacked"},
	{"firehol-mirror/firehol_level1.netset", "netset", "firehol", evidence.Low, "honeypot"},
	{"firehol-mirror/firehol_level2.netset", "netset", "firehol", evidence.Low, "honeypot"},
	{"firehol-mirror/firehol_webserver.netset", "netset", "firehol", evidence.Low, "honeypot"},
	{"firehol-mirror/spamhaus_drop.netset", "netset", "spamhaus", evidence.Medium, "spam malicious"},
	{"firehol-mirror/c2_tracker.ipset", "netset", "montysecurity", evidence.High, "c2"},
	{"firehol-mirror/feodo.ipset", "netset", "abuse.ch", evidence.High, "c2 botnet"},
	{"firehol-mirror/feodo_badips.ipset", "netset", "abuse.ch", evidence.High, "c2 botnet"},
	{"firehol-mirror/iblocklist_abuse_zeus.netset", "netset", "abuse.ch", evidence.High, "c2 botnet"},
	{"firehol-mirror/botvrij_dst.ipset", "netset", "botvrij", evidence.Medium, "malware"},
	{"firehol-mirror/tor_exits.ipset", "netset", "torproject", evidence.Info, "tor-exit"},
	{"sslbl/sslblacklist.csv", "sslbl_cert", "abuse.ch", evidence.High, "c2"},
}

// published makes a snapshot of the real lists, all of them fresh.
func published(t testing.TB) *intel.View {
	t.Helper()
	dir := cmp.Or(os.Getenv("SLIPS_FEEDS"), "../../../shared/feeds")
	const built = 1_700_000_000
	b := intel.NewBuilder()
	for _, l := range lists {
		r, err := os.Open(filepath.Join(dir, filepath.FromSlash(l.file)))
		if errors.Is(err, fs.ErrNotExist) {
			t.Skipf("SKIPPED, no real feeds to test with: %v (set SLIPS_FEEDS)", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		n := b.AddFeed(intel.Feed{
			Name: strings.TrimSuffix(filepath.Base(l.file), filepath.Ext(l.file)), Provider: l.provider, Level: intel.Level(l.level),
			Tags: strings.Fields(l.tags), Updated: built,
		})
		_, err = format.Parse(r, format.Options{Format: l.format}, func(in intel.Indicator) error { return b.Add(n, in) })
		if err := errors.Join(err, r.Close()); err != nil {
			t.Fatalf("%s: %v", l.file, err)
		}
	}
	v, err := intel.Open(b.Compile(built))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestBenign runs real lists of 200,000 addresses and ranges over benign
// traffic: some are listed, and none makes an alert.
func TestBenign(t *testing.T) {
	v := published(t)
	for _, name := range []string{
		"benign/ubuntu-2023-02-25/conn.log.labeled", "benign/win7ad-2023-02-26/conn.log.labeled", "argus/benign-bittorrent-normal-7.binetflow",
		"zeek/mixed-008/data/conn.log.labeled", "zeek/mixed-012/data/conn.log.labeled",
	} {
		t.Run(filepath.Base(strings.TrimSuffix(filepath.Dir(name), "/data"))+" "+filepath.Base(name), func(t *testing.T) {
			es := modtest.Evidence(t, with(v), modtest.Datasets(t, name)...)
			for host, s := range scores(es) {
				if s >= threshold {
					t.Errorf("%s has an alert with a score of %.2f", host, s)
				}
			}
			t.Logf("%d pieces of evidence", len(es))
		})
	}
}
