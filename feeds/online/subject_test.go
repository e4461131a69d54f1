package online

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/feeds/intel"
)

func TestWhatMayLeave(t *testing.T) {
	c := DefaultConfig()
	c.Never = []string{"9.9.9.0/24", "2620:fe::fe", "*.secret.org", "intern.cz"}
	f := newFilter(&c, func(a netip.Addr) bool { return a == netip.MustParseAddr("1.1.1.1") })
	for _, x := range []struct {
		of      intel.Kind
		text    string
		sent    string // empty: refused
		answer  string // what the answer is about
		refusal string
	}{
		{intel.Address, "8.8.8.8", "8.8.8.8", "8.8.8.8", ""},
		{intel.Address, "::ffff:8.8.8.8", "8.8.8.8", "8.8.8.8", ""},
		{intel.Address, "2001:4860:4860::8888", "2001:4860:4860::8888", "2001:4860:4860::8888", ""},
		{intel.Address, "172.32.0.1", "172.32.0.1", "172.32.0.1", ""},
		{intel.Address, "10.0.0.1", "", "", refusedPrivate},
		{intel.Address, "172.16.5.1", "", "", refusedPrivate},
		{intel.Address, "192.168.1.1", "", "", refusedPrivate},
		{intel.Address, "::ffff:192.168.1.1", "", "", refusedPrivate},
		{intel.Address, "127.0.0.1", "", "", refusedPrivate},
		{intel.Address, "169.254.0.9", "", "", refusedPrivate},
		{intel.Address, "100.64.0.1", "", "", refusedPrivate},
		{intel.Address, "100.127.255.255", "", "", refusedPrivate},
		{intel.Address, "100.128.0.1", "100.128.0.1", "100.128.0.1", ""},
		{intel.Address, "198.18.0.1", "", "", refusedPrivate},
		{intel.Address, "192.0.2.1", "", "", refusedPrivate},
		{intel.Address, "198.51.100.7", "", "", refusedPrivate},
		{intel.Address, "203.0.113.7", "", "", refusedPrivate},
		{intel.Address, "192.0.0.9", "", "", refusedPrivate},
		{intel.Address, "224.0.0.251", "", "", refusedPrivate},
		{intel.Address, "240.0.0.1", "", "", refusedPrivate},
		{intel.Address, "255.255.255.255", "", "", refusedPrivate},
		{intel.Address, "0.0.0.0", "", "", refusedPrivate},
		{intel.Address, "0.1.2.3", "", "", refusedPrivate},
		{intel.Address, "::1", "", "", refusedPrivate},
		{intel.Address, "fe80::1", "", "", refusedPrivate},
		{intel.Address, "fd00::1", "", "", refusedPrivate},
		{intel.Address, "ff02::fb", "", "", refusedPrivate},
		{intel.Address, "2001:db8::1", "", "", refusedPrivate},
		{intel.Address, "3fff::1", "", "", refusedPrivate},
		{intel.Address, "2002:c0a8:101::1", "", "", refusedPrivate},   // 6to4 of 192.168.1.1
		{intel.Address, "64:ff9b::c0a8:101", "", "", refusedPrivate},  // NAT64 of the same
		{intel.Address, "2001:0:1::c0a8:101", "", "", refusedPrivate}, // Teredo
		{intel.Address, "1.1.1.1", "", "", refusedOwn},
		{intel.Address, "9.9.9.9", "", "", refusedNever},
		{intel.Address, "2620:fe::fe", "", "", refusedNever},
		{intel.Address, "8.8.8", "", "", refusedForm},
		{intel.Domain, "WWW.Example.CO.UK.", "www.example.co.uk", "www.example.co.uk", ""},
		{intel.Domain, "bücher.de", "xn--bcher-kva.de", "xn--bcher-kva.de", ""},
		{intel.Domain, "_dmarc.example.com", "_dmarc.example.com", "_dmarc.example.com", ""},
		{intel.Domain, "me.blogspot.com", "me.blogspot.com", "me.blogspot.com", ""},
		{intel.Domain, "printer.local", "", "", refusedSuffix},
		{intel.Domain, "dc01.corp", "", "", refusedSuffix},
		{intel.Domain, "host.lan", "", "", refusedSuffix},
		{intel.Domain, "nas.home.arpa", "", "", refusedSuffix},
		{intel.Domain, "4.3.2.1.in-addr.arpa", "", "", refusedSuffix},
		{intel.Domain, "abcdef.onion", "", "", refusedSuffix},
		{intel.Domain, "a.test", "", "", refusedSuffix},
		{intel.Domain, "localhost", "", "", refusedSuffix},
		{intel.Domain, "com", "", "", refusedSuffix},
		{intel.Domain, "co.uk", "", "", refusedSuffix},
		{intel.Domain, "a.secret.org", "", "", refusedNever},
		{intel.Domain, "secret.org", "", "", refusedNever},
		{intel.Domain, "notsecret.org", "notsecret.org", "notsecret.org", ""},
		{intel.Domain, "10.0.0.1", "", "", refusedForm},
		{intel.Domain, "a..com", "", "", refusedForm},
		{intel.Domain, "a b.com", "", "", refusedForm},
		{intel.Domain, strings.Repeat("a", 64) + ".com", "", "", refusedForm},
		{intel.Domain, "", "", "", refusedForm},
		{intel.URL, "example.com/a/b?user=me&token=1", "http://example.com/a/b", "example.com/a/b?user=me&token=1", ""},
		{intel.URL, "https://me:pw@Example.com:443/a#top", "https://example.com/a", "example.com/a", ""},
		{intel.URL, "http://example.com:8080", "http://example.com:8080/", "example.com:8080/", ""},
		{intel.URL, "example.com?x", "http://example.com/", "example.com/?x", ""},
		{intel.URL, "8.8.8.8:80/x", "http://8.8.8.8/x", "8.8.8.8/x", ""},
		{intel.URL, "[2001:4860:4860::8888]/x", "http://[2001:4860:4860::8888]/x", "[2001:4860:4860::8888]/x", ""},
		{intel.URL, "http://192.168.1.1/admin", "", "", refusedPrivate},
		{intel.URL, "http://[::1]/", "", "", refusedPrivate},
		{intel.URL, "http://router.lan/", "", "", refusedSuffix},
		{intel.URL, "http://intern.cz/x", "", "", refusedNever},
		{intel.URL, "ftp://example.com/", "", "", refusedForm},
		{intel.URL, "http://example.com/a b", "", "", refusedForm},
		{intel.URL, "http://example.com:http/", "", "", refusedForm},
		{intel.URL, "example.com/" + strings.Repeat("a", maxURL), "", "", refusedForm},
		{intel.MD5, strings.ToUpper(someMD5), someMD5, someMD5, ""},
		{intel.MD5, someMD5[1:], "", "", refusedForm},
		{intel.SHA1, someMD5, "", "", refusedForm},
		{intel.SHA256, someMD5[1:] + "g", "", "", refusedForm},
		{intel.JA3, someMD5, "", "", refusedKind},
		{intel.Email, "a@example.com", "", "", refusedKind},
	} {
		s, canonical, refusal := f.look(x.of, x.text)
		if refusal != x.refusal {
			t.Errorf("%v %q: refused for %q, want %q", x.of, x.text, refusal, x.refusal)
		}
		if refusal == "" && (s.text != x.sent || canonical != x.answer) {
			t.Errorf("%v %q: sends %q for %q, want %q for %q", x.of, x.text, s.text, canonical, x.sent, x.answer)
		}
	}
}

func TestURLQueries(t *testing.T) {
	f := filter{queries: true}
	if s, _, _ := f.look(intel.URL, "http://me@example.com/a?b=c#d"); s.text != "http://example.com/a?b=c" {
		t.Errorf("sends %q", s.text)
	}
}

func TestRegistered(t *testing.T) {
	for name, want := range map[string]string{
		"a.b.example.co.uk": "example.co.uk", "example.com": "example.com", "x.example.com": "example.com",
		"me.blogspot.com": "blogspot.com", // the host of blogs has registered it
		"a.me.github.io":  "github.io",
	} {
		if got := registered(about(intel.Domain, name)); got.text != want {
			t.Errorf("%s: %s, want %s", name, got.text, want)
		}
	}
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"8.8.8.8", "10.0.0.1", "::ffff:1.2.3.4", "www.example.com", "a.local", "http://u:p@example.com:80/x?y#z", "[::1]:80/", someMD5} {
		for k := range intel.NumKinds {
			f.Add(uint8(k), s)
		}
	}
	c := DefaultConfig()
	filter := newFilter(&c, nil)
	f.Fuzz(func(t *testing.T, kind uint8, text string) {
		k := intel.Kind(kind)
		s, canonical, refusal := filter.look(k, text)
		if refusal != "" {
			return
		}
		if len(s.text) > maxURL || canonical == "" || strings.ContainsAny(s.text, " \r\n\t") {
			t.Fatalf("%v %q: sends %q for %q", k, text, s.text, canonical)
		}
		if k == intel.Address && !public(s.addr) || k == intel.URL && strings.Contains(s.text, "?") {
			t.Fatalf("%v %q: sends %q", k, text, s.text)
		}
		again, same, refusal := filter.look(k, canonical)
		if refusal != "" || same != canonical || k != intel.URL && again != s {
			t.Fatalf("%v %q: canonical %q, then %q, %q", k, text, canonical, same, refusal)
		}
	})
}
