package format

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/profiler/profile"
)

func TestDetect(t *testing.T) {
	for _, c := range []struct {
		in   string
		kind intel.Kind
		want string
	}{
		{" 1.2.3.4 ", intel.Address, "1.2.3.4"},
		{"10.0.0.1", intel.Address, "10.0.0.1"},
		{"1[.]2[.]3[.]4:80", intel.Address, "1.2.3.4"},
		{"2001:DB8::1", intel.Address, "2001:db8::1"},
		{"[2606:4700::1]:443", intel.Address, "2606:4700::1"},
		{"::ffff:1.2.3.4", intel.Address, "1.2.3.4"},
		{"1.2.3.4/24", intel.Range, "1.2.3.0/24"},
		{"::ffff:1.2.3.4/120", intel.Range, "1.2.3.0/24"},
		{"1.2.3.4/32", intel.Address, "1.2.3.4"},
		{"EVIL.Example.com.", intel.Domain, "evil.example.com"},
		{"evil[.]example(.)com", intel.Domain, "evil.example.com"},
		{"hxxk.example.com", intel.Domain, "hxxk.example.com"},
		{"_dmarc.exam--ple.com", intel.Domain, "_dmarc.exam--ple.com"},
		{"B\u00dcCHER.example", intel.Domain, "xn--bcher-kva.example"},
		{"hXXps[://]evil[.]example[.]com/a(dot)b", intel.URL, "evil.example.com/a(dot)b"},
		{"https://evil.example.com:443?x=1#y", intel.URL, "evil.example.com/?x=1"},
		{"http://evil.example.com:443", intel.URL, "evil.example.com:443/"},
		{"HTTP://User:Pw@EVIL.example.com:080/P%20a th/\u00fc", intel.URL, "evil.example.com/P%20a%20th/%C3%BC"},
		{"http://[::ffff:1.2.3.4]:8080/x", intel.URL, "1.2.3.4:8080/x"},
		{"ftp://[2606:4700::1]:21/x", intel.URL, "[2606:4700::1]/x"},
		{"evil.example.com/?u=http://x.com", intel.URL, "evil.example.com/?u=http://x.com"},
		{"1.2.3.4/index.html", intel.URL, "1.2.3.4/index.html"},
		{"1.2.3.4:80/x", intel.URL, "1.2.3.4:80/x"},
		{"1.2.3.4:80/8", intel.URL, "1.2.3.4:80/8"},
		{"http://1.2.3.4/24", intel.URL, "1.2.3.4/24"},
		{strings.ToUpper(md5a), intel.MD5, md5a},
		{sha1a, intel.SHA1, sha1a},
		{"00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF", intel.MD5, md5a},
		{"00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33", intel.SHA1, sha1a},
		{"00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF", intel.SHA256, sha2a},
		{sha2a, intel.SHA256, sha2a},
		{jarma, intel.JARM, jarma},
		{ja4a, intel.JA4, ja4a},
		{"as64500", intel.ASN, "64500"},
		{"Joe[at]Example[.]com", intel.Email, "joe@example.com"},
	} {
		k, v, err := Detect(c.in)
		if err != nil || k != c.kind || v != c.want {
			t.Errorf("%q: %v %q %v, want %v %q", c.in, k, v, err, c.kind, c.want)
		}
	}
	for in, want := range map[string]error{
		"": ErrUnrecognised, "hello": ErrUnrecognised, "com": ErrUnrecognised, "co.uk": ErrPublicSuffix, "1.2.3.4/33": ErrAddress,
		"fe80::1%eth0": ErrUnrecognised, "AS0": ErrASN, "AS4294967296": ErrASN, "1.2.3": ErrAddress, "01.2.3.4": ErrAddress, "a b.com": ErrUnrecognised, "x@y@": ErrEmail,
		"http://": ErrDomain, "http://a.example.com:99999/": ErrURL, "http://a.example.com/\x01": ErrURL, "\uff11.\uff12.\uff13.\uff14": ErrDomain, "::/80": nil,
	} {
		if _, _, err := Detect(in); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", in, err, want)
		}
	}
}

func TestCanonicalKinds(t *testing.T) {
	var pairs []string
	for i := 0; i < 40; i += 2 {
		pairs = append(pairs, strings.ToUpper(sha1a[i:i+2]))
	}
	colons := strings.Join(pairs, ":")
	for _, c := range []struct {
		kind     intel.Kind
		in, want string
	}{{intel.CertSHA1, colons, sha1a}, {intel.JA3S, md5a, md5a}, {intel.ASN, "00123", "123"}, {intel.Popular, "Google.com", "google.com"}} {
		ind, err := Canonical(c.kind, c.in)
		if err != nil || ind.Value != c.want || ind.Kind != c.kind || ind.Level != intel.FeedLevel {
			t.Errorf("%v %q: %+v %v", c.kind, c.in, ind, err)
		}
	}
	for _, k := range []intel.Kind{intel.MD5, intel.JA4, intel.JARM, intel.ASN, intel.Email, intel.URL, intel.Range, intel.NoKind} {
		if _, err := Canonical(k, "?"); err == nil {
			t.Errorf("%v takes a question mark", k)
		}
	}
}

// TestSpecialAgreesWithProfile: at the edges of each block, and just outside,
// the list of blocks and profile.IsPublic say the same.
func TestSpecialAgreesWithProfile(t *testing.T) {
	for _, s := range intel.Special() {
		for _, a := range []netip.Addr{s.Addr(), last(s), s.Addr().Prev(), last(s).Next()} {
			if !a.IsValid() {
				continue
			}
			listed := slices.ContainsFunc(intel.Special(), func(p netip.Prefix) bool { return p.Contains(a) })
			if listed == profile.IsPublic(a) {
				t.Errorf("%v: listed %v, public %v", a, listed, profile.IsPublic(a))
			}
		}
	}
}

// TestNetworks checks the split of a span against the span itself, counted.
func TestNetworks(t *testing.T) {
	for _, c := range [][2]string{{"5.0.0.0", "5.255.255.255"}, {"5.1.2.3", "5.1.9.200"}, {"9.9.9.9", "9.9.9.9"}, {"1.255.255.255", "2.0.0.1"}, {"2606:4700::3", "2606:4700::1:0"}} {
		lo, hi := netip.MustParseAddr(c[0]), netip.MustParseAddr(c[1])
		all, err := networks(lo, hi, false)
		if err != nil {
			t.Fatal(c, err)
		}
		next := lo
		for _, p := range all {
			if p.Addr() != next || p.Masked() != p {
				t.Fatalf("%v: %v begins not at %v", c, p, next)
			}
			next = last(p).Next()
		}
		if next != hi.Next() || len(all) > 2*lo.BitLen() {
			t.Errorf("%v: ends before %v, %v", c, next, all)
		}
	}
	for _, c := range [][2]string{{"1.0.0.0", "2.0.0.0"}, {"9.255.255.0", "10.0.0.1"}, {"2.0.0.1", "1.0.0.1"}, {"1.1.1.1", "2606::1"}, {"2606::", "2608::"}} {
		if all, err := networks(netip.MustParseAddr(c[0]), netip.MustParseAddr(c[1]), false); err == nil {
			t.Errorf("%v: %v", c, all)
		}
	}
}

func TestPatterns(t *testing.T) {
	f := func(k intel.Kind, s string) found { return found{k, s} }
	for _, c := range []struct {
		in   string
		want []found
		err  error
	}{
		{"[ipv4-addr:value='1.1.1.1']", []found{f(intel.Address, "1.1.1.1")}, nil},
		{" [ ( domain-name:value = 'a.b' ) OR url:value IN ('x', 'it\\'s') ] ", []found{f(intel.Domain, "a.b"), f(intel.URL, "x"), f(intel.URL, "it's")}, nil},
		{"[file:hashes.MD5='m' AND file:hashes.'SHA-1'='s' AND file:hashes.\"SHA-256\"='t' AND file:size = 25]", []found{f(intel.MD5, "m"), f(intel.SHA1, "s"), f(intel.SHA256, "t")}, nil},
		{"[network-traffic:dst_ref.type='ipv4-addr' AND network-traffic:dst_ref.value='1.1.1.1' AND network-traffic:dst_port=443]", []found{f(intel.NoKind, "1.1.1.1")}, nil},
		{"[x509-certificate:hashes.'SHA-1'='s'] OR [autonomous-system:number = 64500]", []found{f(intel.CertSHA1, "s"), f(intel.ASN, "64500")}, nil},
		{"([email-addr:value='a@b.c'] WITHIN 30 SECONDS) OR [ipv6-addr:value ISSUBSET '2606::/32'] WITHIN 5 SECONDS", []found{f(intel.Email, "a@b.c"), f(intel.Address, "2606::/32")}, nil},
		{"[file:name NOT = 'x' AND file:created > t'2020-01-01T00:00:00Z' AND file:hashes.MD5 = 'm']", []found{f(intel.MD5, "m")}, nil},
		{"[domain-name:value='a.b' AND ipv4-addr:value='1.1.1.1']", nil, ErrCondition},
		{"[file:hashes.MD5='m'] AND [file:hashes.MD5='n']", nil, ErrCondition},
		{"[ipv4-addr:value='1.1.1.1'] FOLLOWEDBY [ipv4-addr:value='2.2.2.2']", nil, ErrCondition},
		{"[ipv4-addr:value='1.1.1.1'] REPEATS 5 TIMES", nil, ErrCondition},
		{"[domain-name:value LIKE '%.b']", nil, ErrType},
		{"[ipv4-addr:value != '1.1.1.1']", nil, ErrType},
		{"[NOT ipv4-addr:value = '1.1.1.1']", nil, ErrType},
		{"[file:name='x']", nil, ErrType},
		{"", nil, ErrPattern},
		{"[", nil, ErrPattern},
		{"[ipv4-addr:value='1.1.1.1'", nil, ErrPattern},
		{"[ipv4-addr:value='1.1.1.1]", nil, ErrPattern},
		{"[ipv4-addr:value='1.1.1.1'] x", nil, ErrPattern},
		{"[ipv4-addr:value 'x']", nil, ErrPattern},
		{"[ipv4-addr:value = x]", nil, ErrPattern},
		{"[ipv4-addr:value IN ('x'", nil, ErrPattern},
		{"[" + strings.Repeat("(", maxPatternDepth+1) + "url:value='x'" + strings.Repeat(")", maxPatternDepth+1) + "]", nil, ErrPattern},
		{"[" + strings.Repeat("url:value='x' OR ", maxComparisons) + "url:value='x']", nil, ErrPattern},
	} {
		got, err := patternValues(c.in)
		if !errors.Is(err, c.err) || c.err == nil && !slices.Equal(got, c.want) {
			t.Errorf("%.80s: %v %v, want %v %v", c.in, got, err, c.want, c.err)
		}
	}
}

func TestSplit(t *testing.T) {
	p := &parser{}
	for in, want := range map[string][]string{
		"a,b": {"a", "b"}, "": {""}, ",": {"", ""}, ` "a,b" , c `: {"a,b", "c"}, `"a""b",`: {`a"b`, ""}, `a"b,c`: {`a"b`, "c"}, `""`: {""}, `"a"x,b`: {"ax", "b"},
	} {
		got, err := p.split(in, ',')
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%q: %v %s", in, err, d)
		}
	}
	if got, _ := p.split("a\t\tb", '\t'); !slices.Equal(got, []string{"a", "", "b"}) {
		t.Error(got)
	}
	if _, err := p.split(`"a`, ','); !errors.Is(err, ErrQuotes) {
		t.Error(err)
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`a\x2cb\x2C`: "a,b,", `\x`: `\x`, `\x5cx41`: `\x41`, `\xzz\x41`: `\xzzA`, "": ""} {
		if got := unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
