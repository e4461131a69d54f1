package online

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/parsers/flow"
)

// nameServer answers questions over UDP with what reply makes of them; nil:
// not at all. It returns its address.
func nameServer(t *testing.T, reply func(q dnsmessage.Question) *dnsmessage.Message) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			r := reply(m.Questions[0])
			if r == nil {
				continue
			}
			r.ID, r.Response, r.RecursionAvailable, r.Questions = m.ID, true, true, m.Questions
			if out, err := r.Pack(); err == nil {
				c.WriteTo(out, from)
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return c.LocalAddr().String()
}

// dnsOptions configures both services of the DNS with one server.
func dnsOptions(server string) *Options {
	o := &Options{Config: DefaultConfig(), dial: new(net.Dialer).DialContext}
	o.Config.RDNS.Server, o.Config.DNSBL.Server = server, server
	return o
}

func header(name dnsmessage.Name, typ dnsmessage.Type) dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: name, Type: typ, Class: dnsmessage.ClassINET, TTL: 60}
}

func TestReverseDNS(t *testing.T) {
	asked := make(chan string, 100)
	server := nameServer(t, func(q dnsmessage.Question) *dnsmessage.Message {
		asked <- q.Type.String() + " " + q.Name.String()
		m := new(dnsmessage.Message)
		switch {
		case q.Name.String() == "8.8.8.8.in-addr.arpa.":
			for _, n := range []string{"Dns.Google.", "8.8.8.8.", "alias.google."} {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: header(q.Name, dnsmessage.TypePTR), Body: &dnsmessage.PTRResource{PTR: dnsmessage.MustNewName(n)}})
			}
		case strings.HasPrefix(q.Name.String(), "9."):
			m.RCode = dnsmessage.RCodeServerFailure
		default:
			m.RCode = dnsmessage.RCodeNameError
		}
		return m
	})
	s := built(t, "rdns", dnsOptions(server))
	for addr, want := range map[string]flow.LookupPart{
		publicV4: {Found: flow.True, Names: []string{"alias.google", "dns.google"}}, // what looks like an address is no name
		publicV6: {Found: flow.False},
	} {
		got, err := s.ask(t.Context(), about(intel.Address, addr))
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" || err != nil {
			t.Errorf("%s: %v (-want +got)\n%s", addr, err, d)
		}
	}
	if _, err := s.ask(t.Context(), about(intel.Address, "9.9.9.9")); errKind(err) != "subject" {
		t.Errorf("a broken zone: %s, %v", errKind(err), err)
	}
	for len(asked) > 0 {
		if q := <-asked; !strings.HasPrefix(q, "TypePTR ") {
			t.Errorf("asked for %s", q)
		}
	}
}

func TestDNSFailures(t *testing.T) {
	silent := nameServer(t, func(dnsmessage.Question) *dnsmessage.Message { return nil })
	closed := func() string {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().String()
	}()
	for name, server := range map[string]string{"silent": silent, "nobody there": closed} {
		for _, service := range []string{"rdns", "dnsbl"} {
			o := dnsOptions(server)
			o.Config.DNSBL.KeyFile = keyFile(t, "s3cretkey")
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			_, err := built(t, service, o).ask(ctx, about(intel.Address, publicV4))
			cancel()
			if errKind(err) != "failure" || strings.Contains(err.Error(), "s3cretkey") {
				t.Errorf("%s, %s: %s, %v", service, name, errKind(err), err)
			}
		}
	}
}

func TestBlockList(t *testing.T) {
	listed := func(lists ...string) flow.LookupPart {
		return flow.LookupPart{Found: flow.True, Malicious: 1, Total: 1, Lists: lists, Tags: []string{"spam"}, Verdict: "listed"}
	}
	policy := listed("PBL")
	policy.Malicious, policy.Verdict = 0, "policy only"
	notListed := flow.LookupPart{Found: flow.False, Total: 1}
	for name, c := range map[string]struct {
		codes []string
		want  flow.LookupPart
		err   string
	}{
		"not listed":       {nil, notListed, "none"},
		"SBL":              {[]string{"127.0.0.2"}, listed("SBL"), "none"},
		"CSS and XBL":      {[]string{"127.0.0.4", "127.0.0.3", "127.0.0.5"}, listed("CSS", "XBL"), "none"},
		"DROP":             {[]string{"127.0.0.9"}, listed("DROP"), "none"},
		"PBL":              {[]string{"127.0.0.10", "127.0.0.11"}, policy, "none"},
		"PBL and XBL":      {[]string{"127.0.0.10", "127.0.0.4"}, listed("PBL", "XBL"), "none"},
		"a new code":       {[]string{"127.0.0.20"}, listed("code 20"), "none"},
		"wrong zone":       {[]string{"127.255.255.252"}, flow.LookupPart{}, "refused"},
		"public resolver":  {[]string{"127.255.255.254"}, flow.LookupPart{}, "refused"},
		"too many queries": {[]string{"127.255.255.255"}, flow.LookupPart{}, "quota 0s"},
		"a captive portal": {[]string{"10.1.2.3"}, flow.LookupPart{}, "failure"},
		"listed, and not":  {[]string{"127.0.0.2", "127.255.255.254"}, flow.LookupPart{}, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			server := nameServer(t, func(q dnsmessage.Question) *dnsmessage.Message {
				m := new(dnsmessage.Message)
				if want := "1.2.3.8.zen.spamhaus.org."; q.Name.String() != want || q.Type != dnsmessage.TypeA {
					t.Errorf("asked for %v %s, want %s", q.Type, q.Name, want)
				}
				for _, x := range c.codes {
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: header(q.Name, q.Type), Body: &dnsmessage.AResource{A: netip.MustParseAddr(x).As4()}})
				}
				if c.codes == nil {
					m.RCode = dnsmessage.RCodeNameError
				}
				return m
			})
			got, err := built(t, "dnsbl", dnsOptions(server)).ask(t.Context(), about(intel.Address, "8.3.2.1"))
			if errKind(err) != c.err {
				t.Fatalf("%s: %v; want %s", errKind(err), err, c.err)
			}
			if d := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestReversed(t *testing.T) {
	for a, want := range map[string]string{
		"192.0.2.99":                "99.2.0.192",
		"2001:db8:1:2:3:4:567:89ab": "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2", // RFC 5782, 2.4
	} {
		if got := reversed(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %s, want %s", a, got, want)
		}
	}
}

// A key stands in the name that is asked for, and nowhere else.
func TestBlockListKey(t *testing.T) {
	asked := make(chan string, 10)
	server := nameServer(t, func(q dnsmessage.Question) *dnsmessage.Message {
		asked <- q.Name.String()
		return &dnsmessage.Message{Header: dnsmessage.Header{RCode: dnsmessage.RCodeNameError}}
	})
	o := dnsOptions(server)
	o.Config.DNSBL.Zone, o.Config.DNSBL.KeyFile = "zen.dq.spamhaus.net", keyFile(t, "s3cretkey")
	if _, err := built(t, "dnsbl", o).ask(t.Context(), about(intel.Address, publicV4)); err != nil {
		t.Fatal(err)
	}
	if got := <-asked; got != "8.8.8.8.s3cretkey.zen.dq.spamhaus.net." {
		t.Errorf("asked for %s", got)
	}
	o.Config.DNSBL.KeyFile = keyFile(t, "a.b")
	if _, err := newDNSBL(o); err == nil || strings.Contains(err.Error(), "a.b") {
		t.Errorf("a key with a dot: %v", err)
	}
}
