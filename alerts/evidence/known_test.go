package evidence

import (
	"net/netip"
	"testing"
)

func TestKnownText(t *testing.T) {
	for _, c := range []struct {
		k    *Known
		want string
	}{
		{nil, ""},
		{&Known{}, ""},
		{&Known{FirstSeen: 1, LastSeen: 2}, ""},
		{&Known{Country: "CZ", ASN: 2852, AS: "CESNET", FirstSeen: 1_700_000_000e9}, "CZ, AS2852 CESNET, first seen 2023-11-14 22:13:20"},
		{
			&Known{Country: "CZ", City: "Prague", Names: []Name{{"a.example", "dns"}, {"b.example", "sni"}}, Feeds: []string{"x", "y"}, Rank: 7},
			"Prague CZ, named a.example b.example, listed by x y, popular #7",
		},
		{&Known{MAC: "00:17:f2:00:00:01", Vendor: "Apple"}, "MAC 00:17:f2:00:00:01 Apple"},
	} {
		if got := c.k.Text(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestSelfAndPeer(t *testing.T) {
	us, them := netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("192.0.2.1")
	mine, theirs := &Known{Country: "A"}, &Known{Country: "B"}
	with := func(e Entity, k *Known) Entity { e.Known = k; return e }
	for _, c := range []struct {
		name             string
		attacker, victim Entity
		self             *Known
		peer             string
	}{
		{"attacks", with(IPEntity(us, Src, 0), mine), with(IPEntity(them, Dst, 0), theirs), mine, "192.0.2.1"},
		{"is attacked", with(IPEntity(them, Dst, 0), theirs), with(IPEntity(us, Src, 0), mine), mine, "192.0.2.1"},
		{"alone", with(IPEntity(us, Src, 0), mine), Entity{}, mine, ""},
		{"a name", with(IPEntity(us, Src, 0), mine), Entity{Kind: Domain, Value: "bad.example"}, mine, "bad.example"},
		{"mapped", with(IPEntity(netip.MustParseAddr("::ffff:10.0.0.5"), Src, 0), mine), Entity{}, mine, ""},
	} {
		e := Evidence{Profile: us, Attacker: c.attacker, Victim: c.victim}
		if e.Self() != c.self || e.Peer().Value != c.peer {
			t.Errorf("%s: self %+v, peer %q", c.name, e.Self(), e.Peer().Value)
		}
	}
}
