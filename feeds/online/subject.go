package online

import (
	"net/netip"
	"strings"

	"golang.org/x/net/idna"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/feeds/suffix"
)

// subject is what may be sent: public, canonical, of bounded length. It is
// comparable and owns its text.
type subject struct {
	kind intel.Kind
	addr netip.Addr // of an Address
	text string     // what is sent; a URL with its scheme
	port uint16     // of the peer; 0 where the service is not asked about it
}

// The reasons for which a question stays on the machine.
const (
	refusedForm    = "malformed"
	refusedPrivate = "private address"
	refusedOwn     = "own address"
	refusedNever   = "listed in never"
	refusedSuffix  = "no public suffix"
	refusedKind    = "kind nobody is asked about"
)

// The longest texts, in bytes. What is longer is not sent: services take URLs
// of about this length, and RFC 1035 bounds names.
const (
	maxURL   = 2048
	maxName  = 253
	maxLabel = 63
)

// filter decides what may leave the machine.
type filter struct {
	networks []netip.Prefix
	domains  []string
	own      func(netip.Addr) bool
	queries  bool
}

func newFilter(c *Config, own func(netip.Addr) bool) filter {
	f := filter{own: own, queries: c.URLQueries}
	for _, n := range c.Never {
		switch p, d, _ := parseNever(n); {
		case d != "":
			f.domains = append(f.domains, d)
		default:
			f.networks = append(f.networks, p)
		}
	}
	return f
}

// parseNever reads an entry of Config.Never: a network, or else a domain.
func parseNever(s string) (netip.Prefix, string, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), "", true
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), "", true
	}
	d, ok := asciiName(strings.TrimPrefix(s, "*."))
	return netip.Prefix{}, d, ok
}

// look returns what of a subject may be sent, and its canonical form for the
// answer; or why it stays.
func (f *filter) look(kind intel.Kind, text string) (s subject, canonical, refusal string) {
	s.kind = kind
	switch kind {
	case intel.Address:
		a, err := netip.ParseAddr(text)
		if err != nil {
			return s, "", refusedForm
		}
		a = a.Unmap().WithZone("")
		s.addr, s.text = a, a.String()
		return s, s.text, f.address(a)
	case intel.Domain:
		name, ok := asciiName(text)
		if !ok {
			return s, "", refusedForm
		}
		s.text = strings.Clone(name)
		return s, s.text, f.domain(name)
	case intel.URL:
		return f.url(s, text)
	case intel.MD5, intel.SHA1, intel.SHA256:
		digits := 64
		switch kind {
		case intel.MD5:
			digits = 32
		case intel.SHA1:
			digits = 40
		default:
		}
		s.text = strings.Clone(strings.ToLower(text))
		if len(text) != digits || strings.Trim(s.text, "0123456789abcdef") != "" {
			return s, "", refusedForm
		}
		return s, s.text, ""
	default: // what no service is asked about
	}
	return s, "", refusedKind
}

func (f *filter) address(a netip.Addr) string {
	if !public(a) {
		return refusedPrivate
	}
	if f.own != nil && f.own(a) {
		return refusedOwn
	}
	for _, p := range f.networks {
		if p.Contains(a) {
			return refusedNever
		}
	}
	return ""
}

func (f *filter) domain(name string) string {
	if icannSuffix(name) == "" {
		return refusedSuffix
	}
	for _, d := range f.domains {
		if name == d || strings.HasSuffix(name, "."+d) {
			return refusedNever
		}
	}
	return ""
}

// url cuts what identifies people: user, fragment and, unless it is wanted,
// the query. The canonical form for the answer keeps the query.
func (f *filter) url(s subject, text string) (subject, string, string) {
	scheme, rest, ok := strings.Cut(text, "://")
	switch {
	case !ok || strings.ContainsAny(scheme, "/?#"):
		scheme, rest = "http", text // intel's form has none, and a sensor sees the URLs of HTTP only
	case !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https"):
		return s, "", refusedForm
	}
	scheme = strings.ToLower(scheme)
	rest, _, _ = strings.Cut(rest, "#")
	host, tail := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		host, tail = rest[:i], rest[i:]
	}
	if !strings.HasPrefix(tail, "/") {
		tail = "/" + tail
	}
	host = host[strings.LastIndexByte(host, '@')+1:]
	for i := range len(tail) {
		if tail[i] <= ' ' || tail[i] == 0x7f {
			return s, "", refusedForm
		}
	}
	host, refusal := f.host(host, scheme)
	if refusal != "" {
		return s, "", refusal
	}
	if len(scheme)+len(host)+len(tail) > maxURL {
		return s, "", refusedForm
	}
	path := tail
	if !f.queries {
		path, _, _ = strings.Cut(tail, "?")
	}
	s.text = scheme + "://" + host + path
	return s, host + tail, ""
}

// host returns the host of a URL in canonical form, with its port unless that
// is the scheme's.
func (f *filter) host(host, scheme string) (canonical, refusal string) {
	port := ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 && i > strings.LastIndexByte(host, ']') {
		host, port = host[:i], host[i+1:]
	}
	if len(port) > 5 || strings.Trim(port, "0123456789") != "" {
		return "", refusedForm
	}
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		a = a.Unmap().WithZone("")
		refusal = f.address(a)
		host = a.String()
		if a.Is6() {
			host = "[" + host + "]"
		}
	} else {
		name, ok := asciiName(host)
		if !ok {
			return "", refusedForm
		}
		host, refusal = name, f.domain(name)
	}
	if own := scheme == "http" && port == "80" || scheme == "https" && port == "443"; port != "" && !own {
		host += ":" + port
	}
	return host, refusal
}

// asciiName returns a domain in canonical form: lower case, ASCII, no dot at
// its end. It says no to what is no name, addresses among that.
func asciiName(s string) (string, bool) {
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	for i := range len(s) {
		if s[i] >= 0x80 {
			var err error
			if s, err = idna.Lookup.ToASCII(s); err != nil {
				return "", false
			}
			break
		}
	}
	if s == "" || len(s) > maxName {
		return "", false
	}
	label := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.':
			if label == 0 {
				return "", false
			}
			label = -1
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return "", false
		}
		if label++; label > maxLabel {
			return "", false
		}
	}
	if label == 0 {
		return "", false
	}
	last := s[strings.LastIndexByte(s, '.')+1:]
	return s, strings.Trim(last, "0123456789") != "" // 10.0.0.1 and its broken kin
}

// icannSuffix returns the suffix below which a name was registered: "co.uk" of
// a.b.co.uk, and also of me.blogspot.co.uk, whose suffix blogspot.co.uk is a
// company's. It is empty for names that are none of the public DNS, that are
// suffixes themselves, and for those of special use.
func icannSuffix(name string) string {
	public, listed := suffix.Registry(name)
	top := public[strings.LastIndexByte(public, '.')+1:]
	if !listed || top == "arpa" || top == "onion" || len(name) <= len(public) {
		return "" // where none is listed there is no such top-level domain: local, lan, corp, test, example, invalid …
	}
	return public
}

// registered narrows a name to the domain that was registered, and an address
// to itself: registries know no more, and need to be told no more.
func registered(s subject) subject {
	s.port = 0
	if s.kind == intel.Domain {
		s.text = suffix.Below(s.text, icannSuffix(s.text))
	}
	return s
}

// public reports whether an address is one that anybody on the Internet may
// have: IANA's registries of special-purpose addresses for IPv4 and IPv6 say
// which are not. Addresses that carry another address in them are not sent
// either.
func public(a netip.Addr) bool {
	if !a.IsValid() || !a.IsGlobalUnicast() || a.IsPrivate() || a.Is4In6() {
		return false
	}
	if a.Is4() {
		b := a.As4()
		switch {
		case b[0] == 0, b[0] >= 240,
			b[0] == 100 && b[1]&0xc0 == 64,        // RFC 6598, carrier-grade NAT
			b[0] == 192 && b[1] == 0 && b[2] == 0, // RFC 6890, protocols
			b[0] == 192 && b[1] == 0 && b[2] == 2, // RFC 5737, documentation
			b[0] == 198 && b[1] == 51 && b[2] == 100,
			b[0] == 203 && b[1] == 0 && b[2] == 113,
			b[0] == 192 && b[1] == 88 && b[2] == 99, // RFC 7526, 6to4 relays
			b[0] == 198 && b[1]&0xfe == 18:          // RFC 2544, benchmarks
			return false
		}
		return true
	}
	b := a.As16()
	switch {
	case b[0]&0xe0 != 0x20, // only 2000::/3 is given out
		b[0] == 0x20 && b[1] == 0x01 && b[2]&0xfe == 0,               // RFC 2928, protocols, Teredo among them
		b[0] == 0x20 && b[1] == 0x01 && b[2] == 0x0d && b[3] == 0xb8, // RFC 3849, documentation
		b[0] == 0x20 && b[1] == 0x02,                                 // RFC 3056, 6to4
		b[0] == 0x3f && b[1] == 0xff && b[2]&0xf0 == 0:               // RFC 9637, documentation
		return false
	}
	return true
}
