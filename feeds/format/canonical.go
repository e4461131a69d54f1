package format

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/profiler/profile"
)

// Reasons to refuse an entry. Their texts are what Report.Rejected counts by.
var (
	ErrUnrecognised = errors.New("not an indicator")
	ErrAddress      = errors.New("bad address")
	ErrNotPublic    = errors.New("not a public address")
	ErrBroad        = errors.New("range too broad")
	ErrDomain       = errors.New("bad domain name")
	ErrWildcard     = errors.New("wildcard inside a name")
	ErrSingleLabel  = errors.New("name of one label")
	ErrPublicSuffix = errors.New("public suffix")
	ErrURL          = errors.New("bad url")
	ErrHash         = errors.New("bad hash")
	ErrJA4          = errors.New("bad ja4")
	ErrASN          = errors.New("bad as number")
	ErrEmail        = errors.New("bad e-mail address")

	ErrKind      = errors.New("kind not wanted")
	ErrType      = errors.New("type of entry not supported")
	ErrColumns   = errors.New("columns missing")
	ErrQuotes    = errors.New("quote not closed")
	ErrTooLong   = errors.New("line too long")
	ErrJSON      = errors.New("bad json")
	ErrPattern   = errors.New("bad pattern")
	ErrCondition = errors.New("bad only together with others")
	ErrExpired   = errors.New("expired")
	ErrRevoked   = errors.New("revoked")
	ErrBenign    = errors.New("marked as harmless")
	ErrLocalName = errors.New("local name")
)

const (
	maxURL   = 8 << 10 // bytes; servers refuse longer ones
	maxName  = 253     // bytes of a domain name as text, RFC 1035
	maxLabel = 63
	maxLocal = 64  // bytes of the part of an e-mail address before the @, RFC 5321
	maxEmail = 254 // bytes of an e-mail address, RFC 5321
)

// The broadest ranges that are taken, in bits. No more than an IPv4 /8 was
// ever given to one party, nor more than an IPv6 /16. An operator's own list
// may name whole special blocks, of which 240.0.0.0/4 and fc00::/7 are the
// broadest.
const (
	least4, least4Private = 8, 4
	least6, least6Private = 16, 7
)

type ipAddr = netip.Addr

// canon is an indicator in canonical form and how it came to be.
type canon struct {
	ind  intel.Indicator
	host netip.Addr // of a URL, when it is an address
	note string     // what was changed, if that is worth a count
}

// Canonical returns text as an indicator of kind k, its level that of the feed.
// The text decides between Address and Range. Defanged spellings (hxxp, [.])
// are understood. Whether an address is public is not asked; a public suffix
// or a name of one label is no Domain.
func Canonical(k intel.Kind, text string) (intel.Indicator, error) {
	c, err := canonical(k, refang(strings.TrimSpace(text)))
	if err != nil {
		return intel.Indicator{}, fmt.Errorf("taking %q as %v: %w", clean(text, maxExample), k, err)
	}
	c.ind.Value = strings.Clone(c.ind.Value)
	return c.ind, nil
}

// Detect returns the kind and canonical form of an indicator as a person types
// it. What it cannot tell apart it takes for the file hash; see Alike.
func Detect(text string) (intel.Kind, string, error) {
	s := refang(strings.TrimSpace(text))
	k := look(s)
	if k == intel.NoKind {
		return intel.NoKind, "", fmt.Errorf("reading %q: %w", clean(text, maxExample), ErrUnrecognised)
	}
	ind, err := Canonical(k, s)
	if err != nil {
		return intel.NoKind, "", err
	}
	switch ind.Kind {
	case intel.Address:
		return ind.Kind, ind.Prefix.Addr().String(), nil
	case intel.Range:
		return ind.Kind, ind.Prefix.String(), nil
	default:
		return ind.Kind, ind.Value, nil
	}
}

// Alike returns the kinds whose texts look like those of k, k first.
func Alike(k intel.Kind) []intel.Kind {
	for _, set := range [...][]intel.Kind{
		{intel.Address, intel.Range},
		{intel.Range, intel.Address},
		{intel.MD5, intel.JA3, intel.JA3S},
		{intel.JA3, intel.MD5, intel.JA3S},
		{intel.JA3S, intel.MD5, intel.JA3},
		{intel.SHA1, intel.CertSHA1},
		{intel.CertSHA1, intel.SHA1},
		{intel.Domain, intel.Popular},
		{intel.Popular, intel.Domain},
	} {
		if set[0] == k {
			return set
		}
	}
	return []intel.Kind{k}
}

// look returns what s looks like; of kinds that look alike the first of these:
// Domain, MD5, SHA1. It may turn out not to be one.
func look(s string) intel.Kind {
	if s == "" || len(s) > maxURL {
		return intel.NoKind
	}
	switch {
	case hasScheme(s):
		return intel.URL
	case isASN(s):
		return intel.ASN
	case isJA4(s):
		return intel.JA4
	}
	if h := plainHex(s); isHex(h) {
		switch len(h) {
		case 32:
			return intel.MD5
		case 40:
			return intel.SHA1
		case 62:
			return intel.JARM
		case 64:
			return intel.SHA256
		}
	}
	head, rest, slash := strings.Cut(s, "/")
	if _, port, err := address(head); err == nil {
		if slash && (!isDigits(rest) || port != "" || head[0] == '[') {
			return intel.URL
		}
		return intel.Address
	}
	switch {
	case mayBeIP(s) && strings.ContainsAny(s, ".:"):
		return intel.Address // a bad one
	case slash || strings.Contains(s, "?"):
		if !strings.Contains(head, ".") || strings.ContainsAny(s, " \t") {
			return intel.NoKind
		}
		return intel.URL
	case strings.Contains(s, "@"):
		return intel.Email
	case strings.Contains(s, ".") && !strings.ContainsAny(s, " \t,;=|\"'<>()"):
		return intel.Domain
	}
	return intel.NoKind
}

// canonical is Canonical for text without defanging, blanks around it and
// words around the error.
func canonical(k intel.Kind, s string) (c canon, err error) {
	c.ind = intel.Indicator{Kind: k, Level: intel.FeedLevel}
	switch k {
	case intel.Address, intel.Range:
		return network(s)
	case intel.Domain, intel.Popular:
		if name, port, ok := strings.Cut(s, ":"); ok && isDigits(port) {
			s, c.note = name, "port dropped"
		}
		c.ind.Value, err = listed(s)
	case intel.URL:
		c.ind.Value, c.host, err = location(s)
	case intel.JA3, intel.JA3S, intel.MD5:
		c.ind.Value, err = hash(s, 32)
	case intel.SHA1, intel.CertSHA1:
		c.ind.Value, err = hash(s, 40)
	case intel.JARM:
		c.ind.Value, err = hash(s, 62)
	case intel.SHA256:
		c.ind.Value, err = hash(s, 64)
	case intel.JA4:
		if c.ind.Value = s; !isJA4(s) {
			err = ErrJA4
		}
	case intel.ASN:
		n, perr := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(s), "as"), 10, 32)
		if c.ind.Value = strconv.FormatUint(n, 10); perr != nil || n == 0 {
			err = ErrASN
		}
	case intel.Email:
		c.ind.Value, err = mailbox(s)
	default:
		err = ErrType
	}
	return c, err
}

// usable refuses what is not on the public Internet, and what is too much of it.
func (c *canon) usable(private bool) error {
	switch c.ind.Kind {
	case intel.Address:
		if !private && !profile.IsPublic(c.ind.Prefix.Addr()) {
			return ErrNotPublic
		}
	case intel.Range:
		return usableRange(c.ind.Prefix, private)
	case intel.URL:
		if !private && c.host.IsValid() && !profile.IsPublic(c.host) {
			return ErrNotPublic
		}
	default:
	}
	return nil
}

func usableRange(n netip.Prefix, private bool) error {
	least := least4
	switch v4 := n.Addr().Is4(); {
	case v4 && private:
		least = least4Private
	case !v4 && private:
		least = least6Private
	case !v4:
		least = least6
	}
	if !private && slices.ContainsFunc(intel.Special(), n.Overlaps) {
		return ErrNotPublic
	}
	if n.Bits() < least {
		return ErrBroad
	}
	return nil
}

// address reads an IP address, also with a port behind it. IPv4 is never
// mapped into IPv6, and zones are refused: they mean something on one machine.
func address(s string) (a netip.Addr, note string, err error) {
	host := s
	if i := strings.LastIndexByte(s, ':'); i > 0 && isDigits(s[i+1:]) {
		if strings.IndexByte(s, ':') == i {
			host, note = s[:i], "port dropped"
		} else if s[0] == '[' && s[i-1] == ']' {
			host, note = s[1:i-1], "port dropped"
		}
	}
	if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	if !mayBeIP(host) {
		return a, "", ErrAddress
	}
	a, perr := netip.ParseAddr(host)
	if perr != nil || a.Zone() != "" {
		return netip.Addr{}, "", ErrAddress
	}
	return a.Unmap(), note, nil
}

// mayBeIP is a quick look that spares most names the error of netip.
func mayBeIP(s string) bool {
	colon := strings.IndexByte(s, ':') >= 0
	for i := range len(s) {
		if c := s[i]; c != '.' && c != ':' && !isDigit(c) && (!colon || !isHexDigit(c)) {
			return false
		}
	}
	return s != ""
}

// network reads an address or a range.
func network(s string) (c canon, err error) {
	head, bits, ok := strings.Cut(s, "/")
	if !ok {
		a, note, err := address(head)
		if err != nil {
			return c, err
		}
		return canon{ind: ofPrefix(netip.PrefixFrom(a, a.BitLen())), note: note}, nil
	}
	if !mayBeIP(head) || !isDigits(bits) {
		return c, ErrAddress
	}
	a, perr := netip.ParseAddr(head)
	n, nerr := strconv.Atoi(bits)
	if perr != nil || nerr != nil || a.Zone() != "" || n > a.BitLen() {
		return c, ErrAddress
	}
	if a.Is4In6() {
		if n < 96 {
			return c, ErrAddress
		}
		a, n = a.Unmap(), n-96
	}
	p := netip.PrefixFrom(a, n).Masked()
	if p.Addr() != a {
		c.note = "host bits cleared"
	}
	if p.Addr().Is4In6() { // ::ffff:0:0/90 and the like are both and neither
		return c, ErrAddress
	}
	c.ind = ofPrefix(p)
	return c, nil
}

// ofPrefix returns the indicator of one address or a range.
func ofPrefix(p netip.Prefix) intel.Indicator {
	ind := intel.Indicator{Kind: intel.Range, Prefix: p, Level: intel.FeedLevel}
	if p.IsSingleIP() {
		ind.Kind = intel.Address
	}
	return ind
}

// span reads "a-b", two addresses, with or without blanks.
func span(s string) (lo, hi netip.Addr, ok bool) {
	i := strings.IndexByte(s, '-')
	if i < 2 || !isDigit(s[0]) && strings.IndexByte(s[:i], ':') < 0 {
		return lo, hi, false
	}
	a, b := strings.TrimSpace(s[:i]), strings.TrimSpace(s[i+1:])
	if !mayBeIP(a) || !mayBeIP(b) {
		return lo, hi, false
	}
	lo, err := netip.ParseAddr(a)
	if err != nil {
		return lo, hi, false
	}
	hi, err = netip.ParseAddr(b)
	return lo.Unmap(), hi.Unmap(), err == nil
}

// networks returns the fewest networks that hold the addresses from lo to hi
// and no other. What is true of ranges is asked of the whole.
func networks(lo, hi netip.Addr, private bool) ([]netip.Prefix, error) {
	if lo.BitLen() != hi.BitLen() || hi.Less(lo) {
		return nil, ErrAddress
	}
	if !private && tooFar(lo, hi) {
		return nil, ErrBroad
	}
	var all []netip.Prefix
	for a := lo; ; {
		p := netip.PrefixFrom(a, a.BitLen())
		for p.Bits() > 0 {
			wider := netip.PrefixFrom(a, p.Bits()-1)
			if wider.Masked().Addr() != a || hi.Less(last(wider)) {
				break
			}
			p = wider
		}
		if err := usableRange(p, private); err != nil {
			return nil, err
		}
		all = append(all, p)
		end := last(p)
		if end == hi {
			return all, nil
		}
		a = end.Next()
	}
}

// tooFar reports whether more addresses lie between than in the broadest range
// that is taken: the pieces may be narrow enough where the whole is not.
func tooFar(lo, hi netip.Addr) bool {
	if lo.Is4() {
		a, b := lo.As4(), hi.As4()
		return (binary.BigEndian.Uint32(b[:])-binary.BigEndian.Uint32(a[:]))>>(32-least4) != 0
	}
	a, b := lo.As16(), hi.As16()
	return (binary.BigEndian.Uint64(b[:8])-binary.BigEndian.Uint64(a[:8]))>>(64-least6) != 0
}

// last returns the highest address of a network.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		if keep := p.Bits() - 8*i; keep <= 0 {
			b[i] = 0xff
		} else if keep < 8 {
			b[i] |= 0xff >> keep
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// listed reads a name that is listed with all below it.
func listed(s string) (string, error) {
	s, err := name(s)
	if err != nil {
		return "", err
	}
	if suffix, _ := publicsuffix.PublicSuffix(s); suffix == s {
		return "", ErrPublicSuffix
	}
	return s, nil
}

// name reads a domain name of at least two labels. Underscores are taken, and
// hyphens anywhere: the DNS has such names. A last label of digits alone would
// be an address.
func name(s string) (string, error) {
	s = strings.TrimSuffix(s, ".")
	s = strings.TrimPrefix(s, "*.")
	s = strings.TrimPrefix(s, ".")
	if strings.Contains(s, "*") {
		return "", ErrWildcard
	}
	if len(s) > 4*maxName {
		return "", ErrDomain
	}
	if !isASCII(s) {
		var err error
		if s, err = idna.Lookup.ToASCII(s); err != nil {
			return "", ErrDomain
		}
		s = strings.TrimSuffix(s, ".")
	}
	s = strings.ToLower(s)
	if s == "" || len(s) > maxName {
		return "", ErrDomain
	}
	label, dots, digits := 0, 0, true // of the label at hand
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.':
			if label == 0 {
				return "", ErrDomain
			}
			label, digits = 0, true
			dots++
			continue
		case isDigit(c):
		case isLetter(c) || c == '-' || c == '_':
			digits = false
		default:
			return "", ErrDomain
		}
		if label++; label > maxLabel {
			return "", ErrDomain
		}
	}
	switch {
	case label == 0 || digits:
		return "", ErrDomain
	case dots == 0:
		return "", ErrSingleLabel
	}
	return s, nil
}

// hasScheme reports whether s begins with a scheme and "://".
func hasScheme(s string) bool {
	i := strings.Index(s, "://")
	if i <= 0 || !isLetter(s[0]) {
		return false
	}
	for _, c := range []byte(s[:i]) {
		if !isLetter(c) && !isDigit(c) && c != '+' && c != '-' {
			return false
		}
	}
	return true
}

// location reads a URL, see intel.Indicator.Value. Without a scheme there is
// no usual port, so that a canonical URL stays as it is. What a client would
// send encoded is encoded. The host may be a public suffix: a URL names one
// page.
func location(s string) (value string, host netip.Addr, err error) {
	if len(s) > maxURL {
		return "", host, ErrURL
	}
	usual := ""
	if hasScheme(s) {
		scheme, rest, _ := strings.Cut(s, "://")
		switch strings.ToLower(scheme) {
		case "http", "ws":
			usual = "80"
		case "https", "wss":
			usual = "443"
		case "ftp":
			usual = "21"
		}
		s = rest
	} else {
		s = strings.TrimPrefix(s, "//")
	}
	s, _, _ = strings.Cut(s, "#")
	end := strings.IndexAny(s, "/?")
	if end < 0 {
		end = len(s)
	}
	authority, path := s[:end], s[end:]
	authority = authority[strings.LastIndexByte(authority, '@')+1:]
	port := ""
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		authority, port = authority[:i], authority[i+1:]
	}
	if host, _, err = address(authority); err == nil {
		if authority = host.String(); host.Is6() {
			authority = "[" + authority + "]"
		}
	} else if authority, err = name(authority); err != nil {
		return "", host, err
	}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return "", host, ErrURL
		}
		if port = strconv.FormatUint(n, 10); port != usual {
			authority += ":" + port
		}
	}
	if path == "" || path[0] == '?' {
		path = "/" + path
	}
	var b strings.Builder
	b.Grow(len(authority) + len(path))
	b.WriteString(authority)
	for _, c := range []byte(path) {
		switch {
		case c < ' ' || c == 0x7f:
			return "", host, ErrURL
		case c == ' ' || c >= 0x80:
			const digits = "0123456789ABCDEF"
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		default:
			b.WriteByte(c)
		}
	}
	if b.Len() > maxURL {
		return "", host, ErrURL
	}
	return b.String(), host, nil
}

func mailbox(s string) (string, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 1 || at > maxLocal {
		return "", ErrEmail
	}
	for _, c := range []byte(s[:at]) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("@\"<>(),:;[]\\", c) >= 0 {
			return "", ErrEmail
		}
	}
	domain, err := name(s[at+1:])
	if err != nil || at+1+len(domain) > maxEmail {
		return "", ErrEmail
	}
	return strings.ToLower(s[:at]) + "@" + domain, nil
}

// plainHex drops the colons between the bytes of a hash, as openssl and
// browsers print fingerprints. A text of another form comes back as it is.
func plainHex(s string) string {
	if len(s) < 3*16-1 || len(s)%3 != 2 { // MD5 is the shortest; no IPv6 address is so long
		return s
	}
	for i := 2; i < len(s); i += 3 {
		if s[i] != ':' {
			return s
		}
	}
	return strings.ReplaceAll(s, ":", "")
}

func hash(s string, digits int) (string, error) {
	s = plainHex(s)
	if len(s) != digits || !isHex(s) {
		return "", ErrHash
	}
	return strings.ToLower(s), nil
}

func isASN(s string) bool {
	return len(s) > 2 && (s[0] == 'A' || s[0] == 'a') && (s[1] == 'S' || s[1] == 's') && isDigits(s[2:])
}

// isJA4 knows the form of a JA4 of TLS: ten characters that describe the
// handshake, and two hashes of 12 digits. The ALPN value (characters 9 and 10)
// may be in either case.
func isJA4(s string) bool {
	if len(s) != 36 || strings.IndexByte("tqd", s[0]) < 0 || s[3] != 'd' && s[3] != 'i' || s[10] != '_' || s[23] != '_' {
		return false
	}
	for i := range 10 {
		switch c := s[i]; {
		case i == 0 || i == 3:
		case i < 3 && !isDigit(c) && !isLetter(c), i > 3 && i < 8 && !isDigit(c), i >= 8 && !isDigit(c) && !isLetter(c):
			return false
		}
	}
	return isLowerHex(s[11:23]) && isLowerHex(s[24:])
}

// refang undoes what people do to indicators so that nobody clicks on them. The
// path of a URL is left alone: there such characters may be meant.
func refang(s string) string {
	if strings.IndexByte(s, '[') >= 0 || strings.IndexByte(s, '(') >= 0 || strings.IndexByte(s, '{') >= 0 {
		end := 0
		if i := strings.Index(s, "//"); i == 0 || i > 0 && i < len("https[://") && (s[i-1] == ':' || s[i-1] == ']') && !strings.ContainsAny(s[:i], "./?#") {
			end = i + 2
		}
		if i := strings.IndexAny(s[end:], "/?#"); i >= 0 {
			end += i
		} else {
			end = len(s)
		}
		s = strings.NewReplacer("[.]", ".", "(.)", ".", "{.}", ".", "[dot]", ".", "(dot)", ".", "[:]", ":", "[://]", "://",
			"[@]", "@", "[at]", "@", "(at)", "@").Replace(s[:end]) + s[end:]
	}
	if len(s) > 7 && strings.EqualFold(s[:4], "hxxp") && (s[4] == ':' || (s[4]|0x20) == 's' && s[5] == ':') {
		s = "http" + s[4:]
	}
	return s
}

func isDigit(c byte) bool    { return '0' <= c && c <= '9' }
func isLetter(c byte) bool   { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isHexDigit(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }

func isDigits(s string) bool   { return s != "" && strings.Trim(s, "0123456789") == "" }
func isHex(s string) bool      { return strings.Trim(s, "0123456789abcdefABCDEF") == "" }
func isLowerHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
