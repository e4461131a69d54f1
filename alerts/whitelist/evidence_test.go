package whitelist

import (
	"net/netip"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
)

func ip(a string, d evidence.Direction, k *evidence.Known) evidence.Entity {
	return evidence.Entity{Kind: evidence.IP, Value: a, Direction: d, Known: k}
}

func names(from string, n ...string) *evidence.Known {
	k := new(evidence.Known)
	for _, x := range n {
		k.Names = append(k.Names, evidence.Name{Name: x, From: from})
	}
	return k
}

// to is evidence against 10.0.0.1 whose peer is a destination.
func to(peer evidence.Entity) evidence.Evidence {
	peer.Direction = evidence.Dst
	return evidence.Evidence{
		Type: "BEACON", Module: "beacon", Profile: netip.MustParseAddr("10.0.0.1"), Time: now, Proto: "tcp", DstPort: 443,
		Attacker: ip("10.0.0.1", evidence.Src, &evidence.Known{MAC: "00:1b:44:11:3a:b7", Names: []evidence.Name{{Name: "host.good.example", From: "dns"}}}), Victim: peer,
	}
}

func of(e evidence.Evidence, fn func(*evidence.Evidence)) evidence.Evidence { fn(&e); return e }

func TestEvidence(t *testing.T) {
	plain := to(ip("1.2.3.4", evidence.Dst, nil))
	named := to(ip("1.2.3.4", evidence.Dst, names("dns", "www.good.example")))
	apple := to(ip("17.0.0.1", evidence.Dst, nil))
	domain := to(evidence.Entity{Kind: evidence.Domain, Value: "www.good.example"})
	feeds := func(e evidence.Evidence) evidence.Evidence {
		k := evidence.Known{}
		if e.Victim.Known != nil {
			k = *e.Victim.Known
		}
		k.Feeds = []string{"feodo"}
		e.Victim.Known = &k
		return e
	}
	// Evidence against a host outside, as the twin of one against the host that talked to it.
	twin := evidence.Evidence{
		Type: "SELF_SIGNED_CERTIFICATE", Profile: netip.MustParseAddr("17.0.0.1"), Time: now,
		Attacker: ip("17.0.0.1", evidence.Dst, names("sni", "www.good.example")), Victim: ip("10.0.0.1", evidence.Src, nil),
	}
	// A server of the own network that attacks.
	server := evidence.Evidence{
		Type: "HORIZONTAL_PORT_SCAN", Profile: netip.MustParseAddr("203.0.113.5"), Time: now,
		Attacker: ip("203.0.113.5", evidence.Src, names("dns", "www.good.example")),
	}
	for _, c := range []struct {
		what  string
		value string // type,value
		e     evidence.Evidence
		side  string // "src", "dst", "both", "any" for a thing without a side, "" for no match
	}{
		{"attacker", "ip,10.0.0.1", plain, "src"},
		{"victim", "ip,1.2.3.4", plain, "dst"},
		{"range", "range,1.2.3.0/24", plain, "dst"},
		{"other", "ip,1.2.3.5", plain, ""},
		{"mapped", "ip,1.2.3.4", to(ip("::ffff:1.2.3.4", evidence.Dst, nil)), "dst"},
		{"no address", "ip,1.2.3.4", to(ip("1.2.3", evidence.Dst, nil)), ""},
		{"URL with an address", "ip,1.2.3.4", to(evidence.Entity{Kind: evidence.URL, Value: "http://1.2.3.4:8080/x"}), "dst"},
		{"MAC", "mac,00:1b:44:11:3a:b7", plain, "src"},
		{"port", "port,443", plain, "dst"},
		{"port and protocol", "port,443/tcp", plain, "dst"},
		{"other protocol", "port,443/udp", plain, ""},
		{"port of an entity", "port,8443", to(evidence.Entity{Kind: evidence.IP, Value: "1.2.3.4", Port: 8443}), "dst"},
		{"source port", "port,1234", of(plain, func(e *evidence.Evidence) { e.SrcPort = 1234 }), "src"},
		{"type", "evidence,BEACON", plain, "any"},
		{"other type", "evidence,BEACONS", plain, ""},
		{"module", "module,beacon", plain, "any"},
		{"JA3 in the subject", "ja3,6734f37431670b3ab4292b8f60f29984", of(plain, func(e *evidence.Evidence) { e.Subject = "JA3 6734f37431670b3ab4292b8f60f29984" }), "any"},
		{"JA3 as entity", "ja3,6734f37431670b3ab4292b8f60f29984", to(evidence.Entity{Kind: evidence.Hash, Value: "6734f37431670b3ab4292b8f60f29984"}), "any"},

		{"domain", "domain,good.example", domain, "dst"},
		{"domain by sub-string", "domain,ood.example", domain, ""},
		{"child listed alone", "domain,a.www.good.example", domain, ""},
		{"URL", "domain,good.example", to(evidence.Entity{Kind: evidence.URL, Value: "https://u:p@www.Good.example:8443/x?y"}), "dst"},
		{"URL without scheme", "domain,good.example", to(evidence.Entity{Kind: evidence.URL, Value: "good.example/x"}), "dst"},
		{"URL that names it elsewhere", "domain,good.example", to(evidence.Entity{Kind: evidence.URL, Value: "evil.example/good.example"}), ""},
		{"name of the peer, and of the profile, which does not count", "domain,good.example", named, "dst"},
		{"server name", "domain,good.example", to(ip("1.2.3.4", evidence.Dst, names("sni", "good.example"))), "dst"},
		{"reverse DNS", "domain,good.example", to(ip("1.2.3.4", evidence.Dst, names("ptr", "good.example"))), ""},
		{"DHCP", "domain,good.example", to(ip("10.0.0.2", evidence.Dst, names("dhcp", "good.example"))), ""},
		{"shared address", "domain,good.example", to(ip("1.2.3.4", evidence.Dst, names("dns", "good.example", "evil.example"))), ""},
		{"two listed names", "domain,good.example", to(ip("1.2.3.4", evidence.Dst, names("dns", "good.example", "www.good.example"))), "dst"},
		{"own host as peer", "domain,good.example", to(ip("10.0.0.2", evidence.Dst, names("dns", "nas.good.example"))), "dst"},
		{"the profile itself", "domain,host.good.example", plain, ""},
		{"listed address by its name", "domain,good.example", feeds(named), ""},
		{"listed name", "domain,good.example", feeds(domain), "dst"},
		{"listed address itself", "ip,1.2.3.4", feeds(plain), "dst"},
		{"own server with a MAC", "domain,good.example", of(server, func(e *evidence.Evidence) {
			k := *e.Attacker.Known
			k.MAC = "00:00:00:00:00:01"
			e.Attacker.Known = &k
		}), ""},
		{"foreign scanner", "domain,good.example", server, "src"},

		{"organisation by prefix", "organization,apple", apple, "dst"},
		{"organisation not named", "organization,google", apple, ""},
		{"organisation by domain", "organization,apple", to(evidence.Entity{Kind: evidence.Domain, Value: "p1.icloud.com"}), "dst"},
		{"organisation by name", "organization,apple", to(ip("1.2.3.4", evidence.Dst, names("dns", "p1.icloud.com"))), "dst"},
		{"organisation by a name that only contains it", "organization,apple", to(evidence.Entity{Kind: evidence.Domain, Value: "icloud.com.evil.example"}), ""},
		{"organisation by AS", "organization,apple", to(ip("1.2.3.4", evidence.Dst, &evidence.Known{ASN: 714})), "dst"},
		{"organisation by its text", "organization,apple", to(ip("1.2.3.4", evidence.Dst, &evidence.Known{ASN: 64496, AS: "APPLE-ENGINEERING"})), ""},
		{"organisation and feed", "organization,apple", feeds(apple), ""},
		{"organisation and intelligence", "organization,apple", of(apple, func(e *evidence.Evidence) { e.Type = "MALICIOUS_JA3" }), ""},
		{"organisation as source", "organization,apple", evidence.Evidence{
			Profile: netip.MustParseAddr("10.0.0.1"), Attacker: ip("17.0.0.1", evidence.Src, nil), Victim: ip("10.0.0.1", evidence.Dst, nil),
		}, "src"},
		{"twin", "organization,apple", twin, "dst"},
		{"twin by name", "domain,good.example", twin, "dst"},
		{"own host in the cloud", "organization,apple", evidence.Evidence{
			Profile: netip.MustParseAddr("17.0.0.9"), Attacker: ip("17.0.0.9", evidence.Src, &evidence.Known{MAC: "00:00:00:00:00:01"}),
		}, ""},
		{"own host in the cloud, by its address", "ip,17.0.0.9", evidence.Evidence{
			Profile: netip.MustParseAddr("17.0.0.9"), Attacker: ip("17.0.0.9", evidence.Src, &evidence.Known{MAC: "00:00:00:00:00:01"}),
		}, "src"},
		{"AS", "asn,64496", to(ip("1.2.3.4", evidence.Dst, &evidence.Known{ASN: 64496})), "dst"},
		{"AS and feed", "asn,64496", to(ip("1.2.3.4", evidence.Dst, &evidence.Known{ASN: 64496, Feeds: []string{"x"}})), ""},

		{"type from a host", "ip,10.0.0.1&evidence=BEACON", plain, "src"},
		{"another type from it", "ip,10.0.0.1&evidence=ARP_SCAN", plain, ""},
		{"type, host and peer", "evidence,BEACON&src.ip=10.0.0.1&dst.range=1.2.0.0/16", plain, "any"},
		{"type and another host", "evidence,BEACON&src.ip=10.0.0.2", plain, ""},
		{"type with a host on the entry's side", "evidence,BEACON&ip=1.2.3.4", plain, "dst"},
		{"type to an organisation", "organization,apple&evidence=BEACON", apple, "dst"},
	} {
		for _, dir := range []string{"src", "dst", "both"} {
			for _, ignore := range []string{"flows", "alerts", "both"} {
				line := c.value + "," + dir + "," + ignore
				if _, err := parseEntry(line); err != nil && err.Field == "ignore" {
					continue // alerts only
				}
				want := ignore != "flows" && (c.side == "any" || c.side != "" && (dir == "both" || dir == c.side))
				r, got := mustParse(t, "", line).Evidence(&c.e)
				if got != want || got && (r.Line != 2 || r.Text == "") {
					t.Errorf("%s: %s: dropped %v by %+v, want %v", c.what, line, got, r, want)
				}
			}
		}
	}
}

func TestHome(t *testing.T) {
	l := mustParse(t, "domain,good.example,both,alerts")
	e := evidence.Evidence{
		Profile: netip.MustParseAddr("203.0.113.5"), Attacker: ip("203.0.113.5", evidence.Src, names("dns", "www.good.example")),
	}
	if _, ok := l.Evidence(&e); !ok {
		t.Error("a host that is not known to be of the own network was not dropped")
	}
	if _, ok := l.WithHome([]netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}).Evidence(&e); ok {
		t.Error("a host of the own network was excused by its name")
	}
}

func TestWeigh(t *testing.T) {
	popular := evidence.Known{Rank: 10, Names: []evidence.Name{{Name: "www.example.com", From: "sni"}}}
	unknown := names("dns", "evil.example")
	for _, c := range []struct {
		what string
		e    evidence.Evidence
		want float64
	}{
		{"popular address", to(ip("1.2.3.4", evidence.Dst, &popular)), 0.5},
		{"popular domain", to(evidence.Entity{Kind: evidence.Domain, Value: "example.com", Known: &popular}), 0.5},
		{"no name", to(ip("1.2.3.4", evidence.Dst, nil)), 1},
		{"reverse DNS alone", to(ip("1.2.3.4", evidence.Dst, &evidence.Known{Rank: 10, Names: []evidence.Name{{Name: "example.com", From: "ptr"}}})), 1},
		{"another name", to(ip("1.2.3.4", evidence.Dst, unknown)), 1},
		{"listed", to(ip("1.2.3.4", evidence.Dst, &evidence.Known{Rank: 10, Names: popular.Names, Feeds: []string{"x"}})), 1},
		{"exact match", of(to(ip("1.2.3.4", evidence.Dst, &popular)), func(e *evidence.Evidence) { e.Type = "MALICIOUS_JA3" }), 1},
		{"two peers", of(to(ip("1.2.3.4", evidence.Dst, &popular)), func(e *evidence.Evidence) {
			e.Attacker = ip("4.3.2.1", evidence.Src, unknown)
		}), 1},
		{"the profile", evidence.Evidence{Profile: netip.MustParseAddr("1.2.3.4"), Attacker: ip("1.2.3.4", evidence.Src, &popular)}, 1},
	} {
		if got := Weigh(&c.e); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}
