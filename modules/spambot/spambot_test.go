package spambot_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/spambot"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, spambot.Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for want, change := range map[string]func(*spambot.Config){
		`min_networks: 2 is`:       func(c *spambot.Config) { c.MinNetworks = 2 },
		`min_senders: 513 is`:      func(c *spambot.Config) { c.MinSenders = 513 },
		`min_domains: 0 is`:        func(c *spambot.Config) { c.MinDomains = 0 },
		`mail_servers: "mx" is no`: func(c *spambot.Config) { c.MailServers = []string{"mx"} },
	} {
		c := spambot.Spec.Defaults().(*spambot.Config)
		change(c)
		_, err := spambot.Spec.New(c, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), "module spambot: "+want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func conn(sec float64, src, dst netip.Addr, port uint16, state flow.State) *flow.Flow {
	f := &flow.Flow{
		Kind: flow.Conn, Time: int64(sec * 1e9), Src: src, Dst: dst, SrcPort: 40000, DstPort: port, HasPorts: true, Proto: flow.TCP,
		State: state, RawState: "S0", OrigPkts: 1, UID: "C",
	}
	if state == flow.Established {
		f.RawState, f.OrigPkts, f.RespPkts, f.RespBytes = "SF", 5, 5, 500
	}
	return f
}

var bot = netip.MustParseAddr("10.0.0.66")

func smtp(sec float64, src, dst netip.Addr, from string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.SMTP)
	f.Time, f.Src, f.Dst, f.DstPort, f.Proto, f.UID = int64(sec*1e9), src, dst, 25, flow.TCP, "S"
	f.SMTP.MailFrom, f.SMTP.LastReply = from, "250 ok"
	return f
}

// TestOrderOfLogs holds the module to the same evidence whichever log is
// ahead.
func TestOrderOfLogs(t *testing.T) {
	spam := func() (l []*flow.Flow) {
		for i := range 20 {
			l = append(l, conn(float64(10*i), bot, modtest.Public(i<<8), 25, flow.Established))
		}
		return l
	}
	peer := netip.MustParseAddr("20.99.9.9")
	for _, c := range []struct {
		name string
		smtp []*flow.Flow
		want int
	}{
		{"a spambot", []*flow.Flow{smtp(0, bot, peer, ""), smtp(5000, bot, peer, "")}, 2},
		{"a mail server, as the other log says", []*flow.Flow{smtp(300, peer, bot, ""), smtp(5000, bot, peer, "")}, 0},
		{"as it says ten minutes after the first report was due", []*flow.Flow{smtp(695, peer, bot, ""), smtp(5000, bot, peer, "")}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := modtest.Skew(t, spambot.Spec, spambot.Spec.Defaults(), spam(), c.smtp)
			if len(got) != c.want {
				t.Errorf("%d reports, want %d: %v", len(got), c.want, got)
			}
		})
	}
}

// TestBounds lets one host send to 100,000 networks, and 3,000 hosts to many.
func TestBounds(t *testing.T) {
	b := modtest.NewBench[spambot.State](t, spambot.Spec, spambot.Spec.Defaults())
	for i := range 100_000 {
		b.Handle(conn(float64(i)/100, bot, modtest.Public(i<<8), 25, flow.NotEstablished))
	}
	if n := b.Size(); n > 1<<20 {
		t.Errorf("one host takes %d bytes", n)
	}
	for i := range 200_000 {
		b.Handle(conn(float64(i)/100, modtest.Public(i%3000), modtest.Public(i<<5), 25, flow.Established))
		b.Handle(smtp(float64(i)/100, modtest.Public(i%3000), modtest.Public(i), fmt.Sprintf("a@%d", i)))
	}
	s := b.State
	if s.Hosts.Len() > 1024 || s.Servers.Len() > 4096 || len(s.Pending) > 1024 {
		t.Errorf("%d hosts, %d servers, %d pending", s.Hosts.Len(), s.Servers.Len(), len(s.Pending))
	}
}

// TestWants keeps the module free for what is not about mail.
func TestWants(t *testing.T) {
	run, err := spambot.Spec.New(spambot.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	c := run.Chooser()
	dns := new(flow.Flow)
	dns.Reset(flow.DNS)
	dns.DNS.QType = "A"
	if c.Wants(conn(0, bot, modtest.Public(1), 443, flow.Established)) || c.Wants(dns) {
		t.Error("a web connection or a look-up of an address is wanted")
	}
	dns.DNS.QType = "MX"
	if !c.Wants(conn(0, bot, modtest.Public(1), 587, flow.NotEstablished)) || !c.Wants(dns) {
		t.Error("mail or a look-up of a mail server is not wanted")
	}
}

// TestRealTraffic finds the one host that sends spam, and no other.
func TestRealTraffic(t *testing.T) {
	dir := "zeek/isc-2021-10/"
	most := 0.0
	for _, e := range modtest.Evidence(t, spambot.Spec, modtest.Datasets(t, dir+"conn.log", dir+"smtp.log", dir+"dns.log")...) {
		if e.Profile.String() != "10.10.22.156" || e.Level != evidence.High {
			t.Errorf("%s", e.Description)
		}
		most = max(most, e.Confidence)
	}
	if most != 1 {
		t.Errorf("confidence %v in the spambot, want 1", most)
	}
	for _, dir := range []string{"zeek/test14-malicious/", "zeek/test9-mixed/"} { // bad logins at one server, a few mails
		for _, e := range modtest.Evidence(t, spambot.Spec, modtest.Datasets(t, dir+"conn.log", dir+"smtp.log")...) {
			t.Errorf("%s: %s", dir, e.Description)
		}
	}
	for _, name := range []string{"benign/ubuntu-2023-02-25/conn.log.labeled", "benign/win7ad-2023-02-26/conn.log.labeled"} {
		for _, e := range modtest.Evidence(t, spambot.Spec, modtest.Datasets(t, name)...) {
			t.Errorf("%s: %s", name, e.Description)
		}
	}
}
