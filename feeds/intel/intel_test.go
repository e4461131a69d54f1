package intel

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// item is an indicator of a feed.
type item struct {
	feed int
	in   Indicator
}

func ip(s string) Indicator {
	p, err := netip.ParsePrefix(s)
	if err == nil {
		return Indicator{Kind: Range, Prefix: p, Level: FeedLevel}
	}
	a := netip.MustParseAddr(s)
	return Indicator{Kind: Address, Prefix: netip.PrefixFrom(a, a.BitLen()), Level: FeedLevel}
}

func text(k Kind, s string) Indicator { return Indicator{Kind: k, Value: s, Level: FeedLevel} }

var testFeeds = []Feed{
	{Name: "zeta", Provider: "one", URL: "https://feeds.example/zeta", Level: 3, Tags: []string{"c2"}, Updated: 1700000000},
	{Name: "alpha", Provider: "two", URL: "/lists/alpha", Level: 1},
	{Name: "mid", Provider: "one", Level: 2, Tags: []string{"tor-exit", "anonymiser"}},
}

func compile(tb testing.TB, items ...item) []byte {
	tb.Helper()
	b := NewBuilder()
	for _, f := range testFeeds {
		b.AddFeed(f)
	}
	for _, it := range items {
		if err := b.Add(it.feed, it.in); err != nil {
			tb.Fatal(err)
		}
	}
	return b.Compile(1710000000)
}

func open(tb testing.TB, compiled []byte) *View {
	tb.Helper()
	v, err := Open(compiled)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func view(tb testing.TB, items ...item) *View {
	tb.Helper()
	return open(tb, compile(tb, items...))
}

// spell writes a match: "!" if it is exact, then indicator@feed of each listing.
func spell(m Match) string {
	var out []string
	for i := range m.Len() {
		out = append(out, m.IndicatorAt(i)+"@"+m.At(i).Feed.Name)
	}
	s := strings.Join(out, " ")
	if m.Exact() {
		s = "!" + s
	}
	return s
}

func TestAddress(t *testing.T) {
	v := view(t,
		item{0, ip("203.0.113.7")}, item{1, ip("203.0.113.7")}, item{2, ip("203.0.113.0/24")}, item{0, ip("203.0.112.0/20")},
		item{1, ip("203.0.112.0/20")}, item{2, ip("198.51.100.0/32")}, item{0, ip("255.255.255.0/24")}, item{1, ip("255.0.0.0/8")},
		item{0, ip("2001:db8::1")}, item{1, ip("2001:db8::/32")}, item{2, ip("2001:db8::/64")}, item{2, ip("2001:db8:0:1::8/125")},
		item{0, ip("ff00::/8")}, item{1, ip("203.0.113.128/25")}, item{0, ip("203.0.113.128/26")},
	)
	for _, c := range []struct{ addr, want string }{
		{"203.0.113.7", "!203.0.113.7@alpha 203.0.113.7@zeta 203.0.113.0/24@mid 203.0.112.0/20@alpha 203.0.112.0/20@zeta"},
		{"::ffff:203.0.113.7", "!203.0.113.7@alpha 203.0.113.7@zeta 203.0.113.0/24@mid 203.0.112.0/20@alpha 203.0.112.0/20@zeta"},
		{"203.0.113.8", "203.0.113.0/24@mid 203.0.112.0/20@alpha 203.0.112.0/20@zeta"},
		{"203.0.113.129", "203.0.113.128/26@zeta 203.0.113.128/25@alpha 203.0.113.0/24@mid 203.0.112.0/20@alpha 203.0.112.0/20@zeta"},
		{"203.0.113.255", "203.0.113.128/25@alpha 203.0.113.0/24@mid 203.0.112.0/20@alpha 203.0.112.0/20@zeta"},
		{"203.0.112.0", "203.0.112.0/20@alpha 203.0.112.0/20@zeta"},
		{"203.0.127.255", "203.0.112.0/20@alpha 203.0.112.0/20@zeta"},
		{"203.0.128.0", ""},
		{"203.0.111.255", ""},
		{"198.51.100.0", "!198.51.100.0@mid"},
		{"198.51.100.1", ""},
		{"255.255.255.255", "255.255.255.0/24@zeta 255.0.0.0/8@alpha"},
		{"0.0.0.0", ""},
		{"2001:db8::1", "!2001:db8::1@zeta 2001:db8::/64@mid 2001:db8::/32@alpha"},
		{"2001:db8::1%eth0", "!2001:db8::1@zeta 2001:db8::/64@mid 2001:db8::/32@alpha"},
		{"2001:db8::2", "2001:db8::/64@mid 2001:db8::/32@alpha"},
		{"2001:db8:0:1::7", "2001:db8::/32@alpha"},
		{"2001:db8:0:1::8", "2001:db8:0:1::8/125@mid 2001:db8::/32@alpha"},
		{"2001:db8:0:1::f", "2001:db8:0:1::8/125@mid 2001:db8::/32@alpha"},
		{"2001:db8:0:1::10", "2001:db8::/32@alpha"},
		{"2001:db9::", ""},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ff00::/8@zeta"},
		{"::", ""},
		{"::cb00:7107", ""}, // the bytes of an IPv4 address make no IPv4 address
	} {
		if got := spell(v.Address(netip.MustParseAddr(c.addr))); got != c.want {
			t.Errorf("%s: %s, want %s", c.addr, got, c.want)
		}
	}
	if v.Address(netip.Addr{}).OK() {
		t.Error("the zero address matches")
	}
}

func TestDomain(t *testing.T) {
	v := view(t,
		item{0, text(Domain, "bad.example")}, item{1, text(Domain, "a.bad.example")}, item{2, text(Domain, "a.bad.example")},
		item{0, text(Domain, "x_y.long-label-of-more-than-eight.test")}, item{1, text(Domain, "co.test")}, item{2, Indicator{Kind: Popular, Value: "pop.example", Rank: 1}},
	)
	for _, c := range []struct{ name, want string }{
		{"bad.example", "!bad.example@zeta"},
		{"BAD.Example.", "!bad.example@zeta"},
		{"www.bad.example", "bad.example@zeta"},
		{"a.bad.example", "!a.bad.example@alpha a.bad.example@mid bad.example@zeta"},
		{"Www.2.A.bad.example.", "a.bad.example@alpha a.bad.example@mid bad.example@zeta"},
		{"notbad.example", ""},
		{"bad.example.com", ""},
		{"example", ""},
		{"", ""},
		{".", ""},
		{"..", ""},
		{".bad.example", ""},
		{"www..bad.example", ""},
		{"bad.example..", ""},
		{"bad..example", ""},
		{"pop.example", ""},
		{"X_Y.Long-Label-Of-More-Than-Eight.TEST", "!x_y.long-label-of-more-than-eight.test@zeta"},
		{strings.Repeat("b.", 121) + "bad.example", "bad.example@zeta"}, // 253 bytes
		{strings.Repeat("b.", 122) + "bad.example.", ""},                // 256
		{"b\x00d.example", ""},
		{"bad.e\xd8ample", ""},
	} {
		if got := spell(v.Domain(c.name)); got != c.want {
			t.Errorf("%q: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestURL(t *testing.T) {
	v := view(t,
		item{0, text(URL, "evil.example/a/b.exe")}, item{1, text(URL, "evil.example/a/b.exe?id=1")}, item{2, text(URL, "evil.example/")},
		item{0, text(URL, "evil.example:8080/x")}, item{0, text(URL, "192.0.2.1/Mozi.m")}, item{0, text(URL, "[2001:db8::1]:81/y")},
		item{1, text(URL, "tls.example:443/z")}, item{1, text(URL, "one/two")},
	)
	for _, c := range []struct {
		host string
		port uint16
		uri  string
		want string
	}{
		{"evil.example", 80, "/a/b.exe", "!evil.example/a/b.exe@zeta"},
		{"EVIL.example.", 443, "/a/b.exe", "!evil.example/a/b.exe@zeta"},
		{"evil.example:80", 3128, "/a/b.exe", "!evil.example/a/b.exe@zeta"},
		{"evil.example", 0, "/a/b.exe#frag", "!evil.example/a/b.exe@zeta"},
		{"evil.example", 80, "/a/b.exe?id=1", "!evil.example/a/b.exe?id=1@alpha evil.example/a/b.exe@zeta"},
		{"evil.example", 80, "/a/b.exe?id=2", "evil.example/a/b.exe@zeta"},
		{"evil.example", 80, "/A/b.exe", ""},
		{"evil.example", 80, "/a/b.exe/", ""},
		{"evil.example", 81, "/a/b.exe", ""},
		{"evil.example", 80, "", "!evil.example/@mid"},
		{"evil.example", 80, "?q", "evil.example/@mid"},
		{"evil.example", 8080, "/x", "!evil.example:8080/x@zeta"},
		{"evil.example:8080", 80, "/x?y", "evil.example:8080/x@zeta"},
		{"evil.example", 80, "/x", ""},
		{"evil.example:99999", 80, "/", ""},
		{"evil.example:", 80, "/", "!evil.example/@mid"},
		{"proxy.test:3128", 3128, "http://Evil.example/a/b.exe?id=1", "!evil.example/a/b.exe?id=1@alpha evil.example/a/b.exe@zeta"},
		{"", 3128, "HTTP://user:pw@evil.example:8080/x", "!evil.example:8080/x@zeta"},
		{"", 3128, "http://evil.example", "!evil.example/@mid"},
		{"", 3128, "http://evil.example?q", "evil.example/@mid"},
		{"evil.example", 80, "evil.example:443", ""},
		{"evil.example", 80, "*", ""},
		{"192.0.2.1", 80, "/Mozi.m", "!192.0.2.1/Mozi.m@zeta"},
		{"[2001:DB8::1]:81", 0, "/y", "![2001:db8::1]:81/y@zeta"},
		{"tls.example", 443, "/z", "!tls.example/z@alpha"},
		{"one", 80, "/two", "!one/two@alpha"},
		{"one/two", 80, "/", ""},
		{"", 0, "", ""},
	} {
		if got := spell(v.URL(c.host, c.port, c.uri)); got != c.want {
			t.Errorf("%q %d %q: %s, want %s", c.host, c.port, c.uri, got, c.want)
		}
	}
}

func TestText(t *testing.T) {
	hex := func(n int) string { return strings.Repeat("0123456789abcdef", 5)[:n] }
	ja4 := "t13d1516h2_8daaf6152771_e5627efa2ab1"
	v := view(t,
		item{0, text(JA3, hex(32))}, item{0, text(JA3S, hex(32))}, item{0, text(JA4, ja4)}, item{0, text(JARM, hex(62))},
		item{0, text(CertSHA1, hex(40))}, item{0, text(MD5, hex(32))}, item{0, text(SHA1, hex(40))}, item{0, text(SHA256, hex(64))},
		item{0, text(Email, "a.b+c@mail.bad.example")}, item{1, text(ASN, "64500")}, item{0, text(ASN, "4294967295")},
	)
	for k, s := range map[Kind]string{
		JA3: hex(32), JA3S: hex(32), JA4: ja4, JARM: hex(62), CertSHA1: hex(40), MD5: hex(32), SHA1: hex(40), SHA256: hex(64),
		Email: "a.b+c@mail.bad.example",
	} {
		for _, ask := range []string{s, strings.ToUpper(s)} {
			if got := spell(v.Text(k, ask)); got != "!"+s+"@zeta" {
				t.Errorf("%s %q: %s", k, ask, got)
			}
		}
		if m := v.Text(k, s); m.Kind() != k {
			t.Errorf("%s: kind %s", k, m.Kind())
		}
		for _, ask := range []string{"", s[1:], s + "0", s[:len(s)-1] + "!", strings.Repeat(s, 20)} {
			if v.Text(k, ask).OK() {
				t.Errorf("%s %q matches", k, ask)
			}
		}
	}
	const colons = "01:23:45:67:89:AB:CD:EF:01:23:45:67:89:ab:cd:ef:01:23:45:67"
	if !v.Text(CertSHA1, colons).Exact() || v.Text(SHA1, colons).OK() {
		t.Errorf("%q: colons are for certificates", colons)
	}
	if got := spell(v.ASN(64500)) + spell(v.ASN(4294967295)) + spell(v.ASN(6450)) + spell(v.ASN(0)); got != "!AS64500@alpha!AS4294967295@zeta" {
		t.Error(got)
	}
	for _, k := range []Kind{NoKind, Address, Range, Domain, URL, ASN, Popular, NumKinds, 200} {
		if v.Text(k, "64500").OK() {
			t.Errorf("%s is no text", k)
		}
	}
}

func TestRank(t *testing.T) {
	pop := func(name string, rank int) Indicator {
		return Indicator{Kind: Popular, Value: name, Rank: rank, Level: FeedLevel}
	}
	v := view(t, item{0, pop("big.example", 7)}, item{1, pop("big.example", 5)}, item{1, pop("big.example", 9)}, item{0, pop("cdn.big.example", 300)})
	for name, want := range map[string]int{
		"big.example": 5, "www.BIG.example.": 5, "x.cdn.big.example": 300, "small.example": 0, "example": 0, "": 0, "xbig.example": 0,
	} {
		if got := v.Rank(name); got != want {
			t.Errorf("%q: %d, want %d", name, got, want)
		}
	}
	if v.Domain("big.example").OK() || v.Has(Domain) || !v.Has(Popular) {
		t.Error("a popular name is not a listed one")
	}
}

// One indicator that a feed has twice, in any order.
func TestMerge(t *testing.T) {
	x := Indicator{Kind: Domain, Value: "bad.example", Level: FeedLevel, Tags: []string{"b", "a"}, Since: 500, Expires: 900}
	y := Indicator{Kind: Domain, Value: "bad.example", Level: 4, Description: "second", Tags: []string{"c", "b"}, Since: 300, Expires: 1 << 40}
	z := Indicator{Kind: Domain, Value: "bad.example", Level: 2, Description: "first", Expires: 950}
	never := Indicator{Kind: Domain, Value: "bad.example", Level: 0}
	for _, c := range []struct {
		all  []Indicator
		want Listing
	}{
		{[]Indicator{x}, Listing{Level: 1, Tags: []string{"a", "b"}, Since: 500, Expires: 900}},
		{[]Indicator{y}, Listing{Level: 4, Description: "second", Tags: []string{"b", "c"}, Since: 300, Expires: 1<<32 - 1}},
		{[]Indicator{x, z}, Listing{Level: 2, Description: "first", Tags: []string{"a", "b"}, Since: 500, Expires: 950}},
		{[]Indicator{x, y, z}, Listing{Level: 4, Description: "first", Tags: []string{"a", "b", "c"}, Since: 300, Expires: 1<<32 - 1}},
		{[]Indicator{never, x}, Listing{Level: 1, Tags: []string{"a", "b"}, Since: 500}},
	} {
		for range len(c.all) {
			c.all = append(c.all[1:], c.all[0])
			var items []item
			for _, in := range c.all {
				items = append(items, item{1, in})
			}
			m := view(t, items...).Domain("bad.example")
			if m.Len() != 1 {
				t.Fatalf("%d listings", m.Len())
			}
			got := m.At(0)
			if got.Feed.Name != "alpha" || got.Feed.Count != 1 {
				t.Errorf("%+v", got.Feed)
			}
			got.Feed = nil
			if d := gocmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		}
	}
}

func TestSnapshot(t *testing.T) {
	items := []item{
		{0, ip("192.0.2.1")}, {1, ip("192.0.2.1")}, {1, ip("192.0.2.1")}, {1, ip("192.0.2.0/24")}, {2, text(ASN, "64500")}, {0, text(Domain, "bad.example")},
	}
	s := view(t, items...).Snapshot()
	want := Snapshot{ID: s.ID, Built: 1710000000}
	for i, n := range map[int]int{1: 2, 2: 1, 0: 2} {
		f := testFeeds[i]
		f.Count, f.Tags = n, canonicalTags(f.Tags)
		if len(f.Tags) == 0 {
			f.Tags = nil
		}
		want.Feeds = append(want.Feeds, f)
	}
	slices.SortFunc(want.Feeds, func(x, y Feed) int { return strings.Compare(x.Name, y.Name) })
	want.Counts[Address], want.Counts[Range], want.Counts[Domain], want.Counts[ASN] = 1, 1, 1, 1
	if d := gocmp.Diff(want, s); d != "" {
		t.Error(d)
	}
	if len(s.ID) != 32 {
		t.Errorf("ID %q", s.ID)
	}
	b := NewBuilder()
	for _, f := range testFeeds {
		b.AddFeed(f)
	}
	for _, it := range items {
		if err := b.Add(it.feed, it.in); err != nil {
			t.Fatal(err)
		}
	}
	if later := open(t, b.Compile(1720000000)).Snapshot(); later.ID == s.ID || later.Built == s.Built {
		t.Error("how fresh a feed is counts from when it was built, and the ID does not show it")
	}
	// The Builder can go on.
	if err := b.Add(2, ip("192.0.2.2")); err != nil {
		t.Fatal(err)
	}
	more := open(t, b.Compile(1710000000)).Snapshot()
	if want := view(t, append(items, item{2, ip("192.0.2.2")})...).Snapshot(); more.ID == s.ID || gocmp.Diff(want, more) != "" {
		t.Error("what is added after Compile", gocmp.Diff(want, more))
	}
}

// A View that is nil, empty or without indicators knows nothing.
func TestNothing(t *testing.T) {
	for name, v := range map[string]*View{"nil": nil, "empty": Empty(), "no indicators": view(t), "no feeds": open(t, NewBuilder().Compile(0))} {
		for k := range NumKinds {
			if v.Has(k) || v.Text(k, "d41d8cd98f00b204e9800998ecf8427e") != (Match{}) {
				t.Errorf("%s: has %s", name, k)
			}
		}
		for _, m := range []Match{
			v.Address(netip.MustParseAddr("192.0.2.1")), v.Address(netip.MustParseAddr("::1")), v.Domain("bad.example"),
			v.URL("bad.example", 80, "/"), v.ASN(1),
		} {
			if m != (Match{}) || m.OK() || m.Len() != 0 || m.Exact() || m.Indicator() != "" || m.Kind() != NoKind || m.Level() != 0 {
				t.Errorf("%s: %+v", name, m)
			}
		}
		if v.Rank("bad.example") != 0 || v.Snapshot().Counts != [NumKinds]int{} {
			t.Errorf("%s: rank or counts", name)
		}
		v.Each(func(k Kind, s string, _ Match) bool { t.Errorf("%s: %s %s", name, k, s); return true })
		if n, org := v.AS(netip.MustParseAddr("192.0.2.1")); n != 0 || org != "" {
			t.Errorf("%s: AS%d", name, n)
		}
		as := v.WithAS(func(a netip.Addr) (uint32, string) { return 64500, a.String() })
		if n, org := as.AS(netip.MustParseAddr("::ffff:192.0.2.1")); n != 64500 || org != "192.0.2.1" {
			t.Errorf("%s: AS%d %s", name, n, org)
		}
		if n, _ := as.AS(netip.Addr{}); n != 0 {
			t.Errorf("%s: the zero address has AS%d", name, n)
		}
	}
	if (Match{}).Len() != 0 {
		t.Error("the zero Match")
	}
}

func TestCheck(t *testing.T) {
	with := func(in Indicator, f func(*Indicator)) Indicator { f(&in); return in }
	prefix := func(k Kind, s string) Indicator {
		return Indicator{Kind: k, Prefix: netip.MustParsePrefix(s)}
	}
	long := strings.Repeat("a", 63)
	for _, in := range []Indicator{
		ip("192.0.2.1"), ip("192.0.2.0/31"), ip("::1"), prefix(Range, "192.0.2.1/32"), prefix(Range, "128.0.0.0/1"),
		text(Domain, "bad.example"), text(Domain, "_dmarc.xn--bcher-kva.example"), text(Domain, "1.2.3.x4"),
		text(Domain, long+"."+long+"."+long+"."+long[:61]),
		text(URL, "h/"), text(URL, "bad.example:8080/a?b=[c]"), text(URL, "192.0.2.1/x"), text(URL, "[2001:db8::1]/x"), text(URL, "bad.example/\u00e9"),
		text(ASN, "1"), text(Email, "x@y"), with(ip("192.0.2.1"), func(in *Indicator) { in.Expires = 1 << 50 }),
		with(text(Popular, "a.b"), func(in *Indicator) { in.Rank = 1 }),
	} {
		if err := in.Check(); err != nil {
			t.Error(err)
		}
	}
	for _, c := range []struct {
		in  Indicator
		why string
	}{
		{Indicator{}, "kind"},
		{Indicator{Kind: NumKinds}, "kind"},
		{Indicator{Kind: Address}, "no address"},
		{prefix(Address, "192.0.2.0/24"), "more than one"},
		{prefix(Range, "192.0.2.1/24"), "behind the prefix"},
		{prefix(Range, "0.0.0.0/0"), "all addresses"},
		{prefix(Range, "::ffff:192.0.2.0/120"), "mapped"},
		{prefix(Address, "::ffff:192.0.2.1/128"), "mapped"},
		{text(Domain, ""), "empty label"},
		{text(Domain, "com"), "one label"},
		{text(Domain, "Bad.example"), "lower case"},
		{text(Domain, "bad.example."), "empty label"},
		{text(Domain, ".bad.example"), "empty label"},
		{text(Domain, "bad..example"), "empty label"},
		{text(Domain, "b\u00fccher.example"), "ASCII"},
		{text(Domain, "bad example.test"), "ASCII"},
		{text(Domain, "bad.exam\x00ple"), "ASCII"},
		{text(Domain, "*.bad.example"), "ASCII"},
		{text(Domain, "192.0.2.1"), "no name"},
		{text(Domain, long+"a.example"), "label of 64"},
		{text(Domain, long+"."+long+"."+long+"."+long[:62]), "254 bytes"},
		{text(URL, "bad.example"), "no path"},
		{text(URL, "http://bad.example/"), "colon"},
		{text(URL, "Bad.example/"), "lower case"},
		{text(URL, "bad.example:0/"), "port"},
		{text(URL, "bad.example:65536/"), "port"},
		{text(URL, "user@bad.example/"), "ASCII"},
		{text(URL, "bad.example/a b"), "blank"},
		{text(URL, "bad.example/a#b"), "fragment"},
		{text(URL, "[2001:DB8::1]/"), "canonical"},
		{text(URL, "[1.2.3.4]/"), "canonical"},
		{text(URL, "/x"), "empty label"},
		{text(URL, "h/"+strings.Repeat("a", 8191)), "8193 bytes"},
		{text(JA3, strings.Repeat("A", 32)), "32 hexa"},
		{text(MD5, "abc"), "32 hexa"},
		{text(JARM, strings.Repeat("0", 61)), "62 hexa"},
		{text(JA4, "t13d 1516"), "fingerprint"},
		{text(JA4, ""), "fingerprint"},
		{text(ASN, "AS1"), "autonomous"},
		{text(ASN, "01"), "autonomous"},
		{text(ASN, "0"), "autonomous"},
		{text(ASN, "4294967296"), "autonomous"},
		{text(Email, "bad.example"), "mailbox"},
		{text(Email, "@bad.example"), "mailbox"},
		{text(Email, "A@bad.example"), "mailbox"},
		{text(Email, "a@"), "empty label"},
		{text(Popular, "a.b"), "rank"},
		{with(ip("192.0.2.1"), func(in *Indicator) { in.Level = 5 }), "level"},
		{with(ip("192.0.2.1"), func(in *Indicator) { in.Since = -1 }), "since"},
		{with(ip("192.0.2.1"), func(in *Indicator) { in.Since = 1 << 32 }), "since"},
		{with(ip("192.0.2.1"), func(in *Indicator) { in.Expires = -1 }), "expiry"},
	} {
		err := c.in.Check()
		if err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s %q %s: %v, want %q", c.in.Kind, c.in.Value, c.in.Prefix, err, c.why)
		}
		b := NewBuilder()
		if got := b.Add(b.AddFeed(Feed{}), c.in); fmt.Sprint(got) != fmt.Sprint(err) {
			t.Errorf("Add says %v, Check %v", got, err)
		}
	}
	b := NewBuilder()
	for _, feed := range []int{-1, 0, 1} {
		if err := b.Add(feed, ip("192.0.2.1")); err == nil {
			t.Errorf("there is no feed %d", feed)
		}
	}
}

// What feeds write is cut at the edge of a character, and levels of feeds that are
// none are medium.
func TestBounds(t *testing.T) {
	b := NewBuilder()
	f := b.AddFeed(Feed{Name: "f", Level: FeedLevel})
	in := ip("192.0.2.1")
	in.Description = strings.Repeat("a", maxDescription-1) + "\u00e9"
	in.Tags = []string{"", strings.Repeat("t", maxTag) + "x"}
	for i := range 2 * maxTags {
		in.Tags = append(in.Tags, strconv.Itoa(i))
	}
	if err := b.Add(f, in); err != nil {
		t.Fatal(err)
	}
	l := open(t, b.Compile(0)).Address(in.Prefix.Addr()).At(0)
	if len(l.Description) != maxDescription-1 || len(l.Tags) != maxTags || l.Level != 2 || slices.Contains(l.Tags, "") {
		t.Errorf("%d bytes, %d tags, level %d", len(l.Description), len(l.Tags), l.Level)
	}
}

// model is a View that is slow and plain.
type model struct {
	feeds []Feed
	items map[string]map[int]Listing // kind, blank, indicator; feed
	ranks map[string]int
}

func newModel(items []item) *model {
	m := &model{testFeeds, map[string]map[int]Listing{}, map[string]int{}}
	for _, it := range items {
		in := it.in
		name := in.Kind.String() + " " + in.Value
		switch {
		case in.Prefix.IsValid() && in.Prefix.IsSingleIP():
			name = "ip " + in.Prefix.Addr().String()
		case in.Prefix.IsValid():
			name = "range " + in.Prefix.String()
		case in.Kind == Popular:
			if r := m.ranks[in.Value]; r == 0 || in.Rank < r {
				m.ranks[in.Value] = in.Rank
			}
		}
		if m.items[name] == nil {
			m.items[name] = map[int]Listing{}
		}
		l := Listing{Level: in.Level, Description: in.Description, Since: in.Since, Expires: in.Expires}
		if l.Level == FeedLevel {
			l.Level = testFeeds[it.feed].Level
		}
		tags := map[string]bool{}
		for _, x := range in.Tags {
			tags[x] = true
		}
		if old, ok := m.items[name][it.feed]; ok {
			l.Level = max(l.Level, old.Level)
			if l.Since == 0 || old.Since != 0 {
				l.Since = cmp.Or(min(l.Since, old.Since), old.Since)
			}
			if l.Expires != 0 {
				l.Expires = max(l.Expires, old.Expires)
				if old.Expires == 0 {
					l.Expires = 0
				}
			}
			if l.Description == "" || old.Description != "" && old.Description < l.Description {
				l.Description = old.Description
			}
			for _, x := range old.Tags {
				tags[x] = true
			}
		}
		for x := range tags {
			l.Tags = append(l.Tags, x)
		}
		slices.Sort(l.Tags)
		m.items[name][it.feed] = l
	}
	return m
}

// spell writes the listings of indicators.
func (m *model) spell(names ...string) string {
	var out []string
	for _, n := range names {
		byName := map[string]Listing{}
		for f, l := range m.items[n] {
			byName[m.feeds[f].Name] = l
		}
		var feeds []string
		for f := range byName {
			feeds = append(feeds, f)
		}
		slices.Sort(feeds)
		_, n, _ = strings.Cut(n, " ")
		for _, f := range feeds {
			out = append(out, fmt.Sprint(n, f, byName[f]))
		}
	}
	return strings.Join(out, "\n")
}

func spellAll(m Match) string {
	var out []string
	level := Level(0)
	for i := range m.Len() {
		l := m.At(i)
		f := l.Feed.Name
		l.Feed = nil
		level = max(level, l.Level)
		out = append(out, fmt.Sprint(m.IndicatorAt(i), f, l))
	}
	if level != m.Level() {
		out = append(out, "the level is wrong")
	}
	return strings.Join(out, "\n")
}

func (m *model) address(a netip.Addr) string {
	var names []string
	if m.items["ip "+a.String()] != nil {
		names = append(names, "ip "+a.String())
	}
	for bits := a.BitLen() - 1; bits > 0; bits-- {
		p, _ := a.Prefix(bits)
		if n := "range " + p.String(); m.items[n] != nil {
			names = append(names, n)
		}
	}
	return m.spell(names...)
}

func (m *model) suffixes(kind, name string) (names []string) {
	labels := strings.Split(strings.ToLower(strings.TrimSuffix(name, ".")), ".")
	for i := range len(labels) - 1 {
		if n := kind + " " + strings.Join(labels[i:], "."); m.items[n] != nil {
			names = append(names, n)
		}
	}
	return names
}

func (m *model) url(host string, port int, uri string) string {
	host = strings.ToLower(host)
	if port != 80 {
		host += ":" + strconv.Itoa(port)
	}
	var names []string
	path, _, query := strings.Cut(uri, "?")
	for _, n := range []string{"url " + host + uri, "url " + host + path} {
		if m.items[n] != nil && (query || len(names) == 0) {
			names = append(names, n)
		}
	}
	return m.spell(slices.Compact(names)...)
}

// generator makes indicators and questions from few values, so that they meet.
type generator struct{ *rand.Rand }

func (g generator) addr() netip.Addr {
	b := make([]byte, []int{4, 16}[g.IntN(2)])
	edge := []byte{0, 0xff, 1, 0x80}
	for i := range b {
		b[i] = edge[g.IntN(2)]
		if g.IntN(8) == 0 {
			b[i] = edge[g.IntN(4)]
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a.Unmap()
}

func (g generator) name() string {
	labels := make([]string, 2+g.IntN(4))
	for i := range labels {
		labels[i] = []string{"a", "b", "longlabel", "eightlet"}[g.IntN(4)]
	}
	return strings.Join(labels, ".")
}

func (g generator) path() string {
	return []string{"/", "/a", "/a/b", "/a?x", "/a?x=1", "/?x"}[g.IntN(6)]
}

func (g generator) items(n int) []item {
	var out []item
	for range n {
		in := Indicator{
			Level: []Level{FeedLevel, 0, 2, 4}[g.IntN(4)], Description: []string{"", "d1", "d2"}[g.IntN(3)],
			Since: int64(g.IntN(4)) * 100, Expires: int64(g.IntN(4)) * 1000, Tags: [][]string{nil, {"x", "a"}, {"x"}, {"b", "c"}}[g.IntN(4)],
		}
		switch g.IntN(4) {
		case 0:
			in.Kind = Range
			a := g.addr()
			in.Prefix, _ = a.Prefix(1 + g.IntN(a.BitLen()))
		case 1:
			in.Kind, in.Value = Domain, g.name()
		case 2:
			port := []string{"", ":8080"}[g.IntN(2)]
			in.Kind, in.Value = URL, g.name()[:3]+port+g.path()
			if in.Check() != nil {
				in.Value = "a.b" + port + g.path()
			}
		case 3:
			in.Kind, in.Value, in.Rank = Popular, g.name(), 1+g.IntN(100)
		}
		out = append(out, item{g.IntN(len(testFeeds)), in})
	}
	return out
}

// A View finds what a model of maps and loops finds.
func TestModel(t *testing.T) {
	found := 0
	for seed := range uint64(60) {
		g := generator{rand.New(rand.NewPCG(seed, 1))}
		items := g.items(1 << g.IntN(11))
		m, v := newModel(items), view(t, items...)
		check := func(what, want, got string) {
			t.Helper()
			if want != got {
				t.Fatalf("seed %d, %s:\n%s\nwant\n%s", seed, what, got, want)
			}
			if got != "" {
				found++
			}
		}
		for range 300 {
			a := g.addr()
			check(a.String(), m.address(a), spellAll(v.Address(a)))
			n := g.name()
			check(n, m.spell(m.suffixes("domain", n)...), spellAll(v.Domain(n)))
			rank := 0
			if names := m.suffixes("popular", n); len(names) > 0 {
				rank = m.ranks[strings.TrimPrefix(names[0], "popular ")]
			}
			check("rank of "+n, strconv.Itoa(rank), strconv.Itoa(v.Rank(strings.ToUpper(n)+".")))
			host, port, path := strings.ToUpper(n[:3]), []int{80, 8080}[g.IntN(2)], g.path()
			check(host+path, m.url(host, port, path), spellAll(v.URL(host, uint16(port), path)))
		}
		// Each names everything once, and finds what a look-up finds.
		all := map[string]bool{}
		v.Each(func(k Kind, s string, x Match) bool {
			name := k.String() + " " + s
			if m.items[name] == nil || all[name] || x.Kind() != k || x.Indicator() != s || !x.Exact() {
				t.Fatalf("seed %d: Each names %s", seed, name)
			}
			all[name] = true
			switch k {
			case Address:
				if v.Address(netip.MustParseAddr(s)) != x {
					t.Fatalf("seed %d: %s", seed, name)
				}
			case Domain:
				if v.Domain(s) != x {
					t.Fatalf("seed %d: %s", seed, name)
				}
			}
			return true
		})
		if len(all) != len(m.items) {
			t.Fatalf("seed %d: Each names %d of %d", seed, len(all), len(m.items))
		}
	}
	if found < 10000 {
		t.Errorf("only %d look-ups found something: the test is not worth much", found)
	}
}

// The order in which indicators and feeds are added does not show in the bytes.
func TestOrder(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(7, 7))}
	items := g.items(3000)
	want := compile(t, items...)
	for range 5 {
		g.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
		if !bytes.Equal(want, compile(t, items...)) {
			t.Fatal("another order gives other bytes")
		}
		perm := g.Perm(len(testFeeds))
		b, numbers := NewBuilder(), make([]int, len(testFeeds))
		for _, f := range perm {
			numbers[f] = b.AddFeed(testFeeds[f])
		}
		for _, it := range items {
			if err := b.Add(numbers[it.feed], it.in); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // compiling leaves the Builder as it was
			if !bytes.Equal(want, b.Compile(1710000000)) {
				t.Fatal("another order of feeds gives other bytes")
			}
		}
	}
}

func TestAllocations(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(3, 3))}
	v := view(t, append(g.items(3000), item{0, text(MD5, strings.Repeat("0a", 16))}, item{0, text(ASN, "1")})...)
	a4, a6 := netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("ffff::1")
	hits := 0
	long := strings.Repeat("long.", 48) + "a.b"
	path, proxied := "/"+long+"?"+long, "http://"+long+"/?x"
	n := testing.AllocsPerRun(100, func() {
		for _, m := range [...]Match{
			v.Address(a4), v.Address(a6), v.Domain("x.A.b."), v.Domain("not.listed"), v.URL("A.b:8080", 80, "/a?x=1"), v.URL("a.b", 80, "/nothing"),
			v.Text(MD5, "0A0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"), v.Text(MD5, "1"), v.ASN(1), v.ASN(2),
			v.Domain(long), v.URL(long, 8080, path), v.URL("proxy", 3128, proxied),
		} {
			if m.OK() && m.Len() > 0 && m.Level() < 5 {
				hits++
			}
		}
		hits += v.Rank("www.a.b")
	})
	if n != 0 || hits == 0 {
		t.Errorf("%v allocations, %d hits", n, hits)
	}
}

func TestKindNames(t *testing.T) {
	for k := Address; k < NumKinds; k++ {
		if k.String() == "" || ParseKind(k.String()) != k {
			t.Errorf("kind %d: %q", k, k)
		}
	}
	if ParseKind("") != NoKind || ParseKind("none") != NoKind || NumKinds.String() != "" {
		t.Error("names that are none")
	}
	var fe *FormatError
	if _, err := Open(nil); !errors.As(err, &fe) {
		t.Error(err)
	}
}

// TestPrivate shows which indicators are outside the public Internet.
func TestPrivate(t *testing.T) {
	good := Indicator{Kind: Range, Prefix: netip.MustParsePrefix("10.0.0.0/8"), Level: FeedLevel, Tags: []string{"Known good"}}
	for _, tt := range []struct {
		name  string
		items []item
		want  bool
		ask   string
		match bool
	}{
		{"nothing", nil, false, "10.0.0.66", false},
		{"a public address", []item{{0, ip("8.8.8.8")}}, false, "8.8.8.8", false},
		{"a private address", []item{{0, ip("8.8.8.8")}, {0, ip("10.0.0.66")}, {0, ip("2001:500::1")}}, true, "10.0.0.66", true},
		{"beside it", []item{{0, ip("9.255.255.255")}, {0, ip("11.0.0.0")}}, false, "11.0.0.0", false},
		{"a private range", []item{{0, ip("192.168.0.0/16")}}, true, "192.168.3.4", true},
		{"the whole of multicast and what is reserved", []item{{0, ip("224.0.0.0/4")}}, true, "239.1.1.1", true},
		{"a range around a private one", []item{{0, ip("8.0.0.0/5")}}, false, "10.0.0.66", false},
		{"a private address in a range around it", []item{{0, ip("8.0.0.0/5")}, {0, ip("10.0.0.66")}}, true, "10.0.0.66", true},
		{"shared addresses", []item{{0, ip("100.64.0.0/12")}}, true, "100.64.1.1", true},
		{"link-local", []item{{0, ip("fe80::1")}}, true, "fe80::1", true},
		{"unique local", []item{{0, ip("fd00:1::/32")}}, true, "fd00:1::9", true},
		{"behind unique local", []item{{0, ip("fe00::1")}}, false, "fe00::1", false},
		{"harmless", []item{{0, good}}, false, "10.0.0.66", true},
		{"harmless and not", []item{{0, good}, {1, ip("10.0.0.0/8")}}, true, "10.0.0.66", true},
		{"in a harmless one", []item{{0, good}, {1, ip("10.9.9.9")}}, true, "10.0.0.66", true},
		{"no address", []item{{0, text(Domain, "a.example")}}, false, "10.0.0.66", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := view(t, tt.items...)
			if got := v.Private(); got != tt.want {
				t.Errorf("the view: %v", got)
			}
			if got := v.Address(netip.MustParseAddr(tt.ask)).Private(); got != tt.match {
				t.Errorf("the match: %v", got)
			}
		})
	}
	if (*View)(nil).Private() || (Match{}).Private() || view(t, item{0, text(Domain, "a.example")}).Domain("a.example").Private() {
		t.Error("what is no address is private")
	}
}

// TestHarmless tells entries of what is harmless from others, by the tags of the
// entry or its feed.
func TestHarmless(t *testing.T) {
	b := NewBuilder()
	for i, tags := range [][]string{{"c2"}, {"a", "known-good"}, {"well_known_good", "known_goods"}} {
		b.AddFeed(Feed{Name: fmt.Sprint("f", i), Tags: tags})
	}
	add := func(feed int, in Indicator, tags ...string) {
		if in.Tags = tags; b.Add(feed, in) != nil {
			t.Fatal(in)
		}
	}
	add(0, text(Domain, "bad.example"), "x")
	add(0, text(Domain, "good.example"), "x", KnownGood)
	add(1, text(Domain, "listed.example"))
	add(2, text(Domain, "alike.example"), "known_good_")
	add(0, text(Domain, "both.example"), "y")
	add(1, text(Domain, "both.example"), "y")
	add(0, text(Domain, "sub.listed.example"))
	add(1, text(Domain, "good.bad.example"))
	add(2, text(MD5, strings.Repeat("e", 32)), "KNOWN GOOD")
	v := open(t, b.Compile(1))
	for name, want := range map[string]string{
		"bad.example": "false [false]", "good.example": "true [true]", "www.listed.example": "true [true]", "alike.example": "false [false]",
		"both.example": "false [false true]", "sub.listed.example": "false [false true]", "good.bad.example": "false [true false]",
		"unknown.example": "false []",
	} {
		m := v.Domain(name)
		var of []bool
		for i := range m.Len() {
			of = append(of, m.At(i).Harmless)
		}
		if got := fmt.Sprint(m.Harmless(), " ", of); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if !v.Text(MD5, strings.Repeat("E", 32)).Harmless() {
		t.Error("a hash that is known to be good is not harmless")
	}
}
