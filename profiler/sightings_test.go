package profiler

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/parsers/flow"
)

func TestSightings(t *testing.T) {
	s := newSightings()
	var got []string
	tell := func(_ *flow.Flow, n News) {
		got = append(got, fmt.Sprint(n.Sighting.IP, " ", n.Sighting.Name, " ", n.Sighting.From))
	}
	dns := func(query, qtype string, answers ...string) *flow.Flow {
		f := new(flow.Flow)
		f.Reset(flow.DNS)
		f.DNS.Query, f.DNS.QType, f.DNS.Answers = query, qtype, answers
		return f
	}
	web := func(kind flow.Kind, dst, name, uri string) *flow.Flow {
		f := new(flow.Flow)
		f.Reset(kind)
		f.Dst = netip.MustParseAddr(dst)
		if kind == flow.HTTP {
			f.HTTP.Host, f.HTTP.URI = name, uri
		} else {
			f.SSL.ServerName = name
		}
		return f
	}
	for _, c := range []struct {
		f    *flow.Flow
		want string
	}{
		{dns("WWW.Example.org.", "A", "alias.example.net", "192.0.2.7", "2001:db8::7"), "192.0.2.7 www.example.org dns, 2001:db8::7 www.example.org dns"},
		{dns("www.example.org.", "A", "192.0.2.7"), ""},
		{dns("www.example.org", "A", "192.0.2.8"), "192.0.2.8 www.example.org dns"},
		{dns("ads.example.org", "A", "0.0.0.0"), ""},
		{dns("ads.example.org", "TXT", "v=spf1 ip4:192.0.2.9"), ""},
		{dns("desk._workstation._tcp.local", "SRV", "192.0.2.9"), ""},
		{dns("_http._tcp.local", "PTR", "192.0.2.9"), ""},
		{dns("9.2.0.192.in-addr.arpa", "*", "192.0.2.9"), ""},
		{dns("9.2.0.192.in-addr.arpa", "PTR", "mail.example.org"), "192.0.2.9 mail.example.org ptr"},
		{dns("2.0.192.in-addr.arpa", "PTR", "mail.example.org"), ""},
		{dns("300.2.0.192.in-addr.arpa", "PTR", "mail.example.org"), ""},
		{dns("7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "PTR", "six.example.org"), "2001:db8::7 six.example.org ptr"},
		{web(flow.SSL, "192.0.2.7", "shop.example.org", ""), "192.0.2.7 shop.example.org sni"},
		{web(flow.QUIC, "192.0.2.7", "shop.example.org", ""), ""},
		{web(flow.HTTP, "192.0.2.7", "shop.example.com:8080", "/"), "192.0.2.7 shop.example.com http"},
		{web(flow.HTTP, "192.0.2.7", "192.0.2.7", "/"), ""},
		{web(flow.HTTP, "10.0.0.1", "proxied.example.com", "http://proxied.example.com/"), ""},
	} {
		got = nil
		s.observe(c.f, tell)
		if g := strings.Join(got, ", "); g != c.want {
			t.Errorf("%v: got %q, want %q", c.f.Kind, g, c.want)
		}
	}
}
