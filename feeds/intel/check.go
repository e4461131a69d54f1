package intel

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

const (
	maxName  = 253  // of a domain in its text form (RFC 1035, 2.3.4: 255 bytes on the wire)
	maxLabel = 63   // RFC 1035, 2.3.4
	maxEmail = 254  // RFC 5321, 4.5.3.1.3, without the angle brackets
	maxURL   = 8192 // servers refuse a longer request line by default
	maxJA4   = 64   // the fingerprint has 36; there are variants
)

// digits is how many hexadecimal digits an indicator of the kind has; 0 when it
// is something else.
func (k Kind) digits() int {
	switch k {
	case JA3, JA3S, MD5:
		return 32
	case CertSHA1, SHA1:
		return 40
	case JARM:
		return 62
	case SHA256:
		return 64
	default:
		return 0
	}
}

// Check says why the indicator is not in canonical form or cannot be looked up;
// nil when Builder.Add would take it. Public suffixes pass: whoever reads a feed
// refuses them.
func (in *Indicator) Check() error {
	if err := in.checkThing(); err != nil {
		return err
	}
	switch {
	case in.Level > 4 && in.Level != FeedLevel:
		return fmt.Errorf("level of %q: %d is not a threat level", in.text(), in.Level)
	case in.Since < 0 || in.Since > maxTime:
		return fmt.Errorf("since of %q: %d is not a time", in.text(), in.Since)
	case in.Expires < 0:
		return fmt.Errorf("expiry of %q: %d is not a time", in.text(), in.Expires)
	}
	return nil
}

func (in *Indicator) text() string {
	if in.Kind == Address || in.Kind == Range {
		return in.Prefix.String()
	}
	return in.Value
}

// checkThing checks what the indicator names.
func (in *Indicator) checkThing() error {
	fail := func(why string) error { return fmt.Errorf("%s %q: %s", in.Kind, in.text(), why) }
	v := in.Value
	switch k := in.Kind; k {
	case Address, Range:
		switch p := in.Prefix; {
		case !p.IsValid():
			return fail("no address")
		case p.Addr().Is4In6():
			return fail("an IPv4 address mapped into IPv6")
		case k == Address && !p.IsSingleIP():
			return fail("more than one address")
		case p.Bits() == 0:
			return fail("all addresses")
		case p != p.Masked():
			return fail("bits set behind the prefix")
		}
		return nil
	case Domain, Popular:
		if err := CheckName(v); err != nil {
			return fail(err.Error())
		}
		if !strings.Contains(v, ".") {
			return fail("a name of one label")
		}
		if k == Popular && (in.Rank < 1 || int64(in.Rank) > maxTime) {
			return fail("no rank")
		}
		return nil
	case URL:
		if err := checkURL(v); err != nil {
			return fail(err.Error())
		}
		return nil
	case JA3, JA3S, JARM, CertSHA1, MD5, SHA1, SHA256:
		if len(v) != k.digits() || !only(v, "0123456789abcdef") {
			return fail(fmt.Sprintf("not %d hexadecimal digits in lower case", k.digits()))
		}
		return nil
	case JA4:
		if v == "" || len(v) > maxJA4 || !only(v, "abcdefghijklmnopqrstuvwxyz0123456789_") {
			return fail("not a fingerprint in lower case")
		}
		return nil
	case ASN:
		if n, err := strconv.ParseUint(v, 10, 32); err != nil || n == 0 || v[0] == '0' {
			return fail("not a number of an autonomous system")
		}
		return nil
	case Email:
		i := strings.LastIndexByte(v, '@')
		if i < 1 || len(v) > maxEmail || !visible(v[:i]) || hasUpper(v[:i]) {
			return fail("not a mailbox in lower case")
		}
		if err := CheckName(v[i+1:]); err != nil {
			return fail(err.Error())
		}
		return nil
	default:
		return fmt.Errorf("indicator %q: %d is not a kind", v, uint8(k))
	}
}

// CheckName says why a name is not the canonical form of a host name: labels of
// lower-case letters, digits, hyphens and underscores, no dot at its end, and no
// address. nil when it is.
func CheckName(s string) error {
	if len(s) > maxName {
		return fmt.Errorf("%d bytes, a name has at most %d", len(s), maxName)
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		switch {
		case label == "":
			return errors.New("an empty label")
		case len(label) > maxLabel:
			return fmt.Errorf("a label of %d bytes, at most %d can be", len(label), maxLabel)
		case !only(label, "abcdefghijklmnopqrstuvwxyz0123456789-_"):
			return errors.New("not in lower case and ASCII letters, digits, hyphens and underscores")
		}
		last = label
	}
	if only(last, "0123456789") {
		return errors.New("a number at its end: an address is no name")
	}
	return nil
}

// checkURL checks a URL without scheme.
func checkURL(s string) error {
	if len(s) > maxURL {
		return fmt.Errorf("%d bytes, at most %d can be", len(s), maxURL)
	}
	slash := strings.IndexByte(s, '/')
	if slash < 0 {
		return errors.New("no path")
	}
	if !visible(s[slash:]) || strings.Contains(s[slash:], "#") {
		return errors.New("a blank, a control byte or a fragment")
	}
	host, port := splitPort(s[:slash])
	if port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
			return errors.New("not a port")
		}
	} else if strings.HasSuffix(s[:slash], ":") {
		return errors.New("a colon without a port")
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
		if a, err := netip.ParseAddr(host); err != nil || !a.Is6() || a.Zone() != "" || a.String() != host {
			return errors.New("not an IPv6 address in its canonical form")
		}
		return nil
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is4() {
		return nil
	}
	return CheckName(host)
}

// splitPort splits host:port; an IPv6 host keeps its brackets.
func splitPort(s string) (host, port string) {
	if i := strings.LastIndexByte(s, ':'); i >= 0 && strings.IndexByte(s[i:], ']') < 0 {
		return s[:i], s[i+1:]
	}
	return s, ""
}

func only(s, set string) bool {
	for i := range len(s) {
		if strings.IndexByte(set, s[i]) < 0 {
			return false
		}
	}
	return true
}

// visible reports whether there is no blank and no control byte in s.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

func hasUpper(s string) bool {
	for i := range len(s) {
		if lower(s[i]) != s[i] {
			return true
		}
	}
	return false
}
