package whitelist

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"github.com/slips-go/slips/alerts/evidence"
)

// Type says what a condition is about.
type Type uint8

// The types of conditions. An address is stored as the IP range that holds it
// alone, and "range" in a file is another word for "ip".
const (
	noType Type = iota
	IP
	Domain
	MAC
	Organization
	ASN
	Port
	JA3
	Evidence
	Module
	numTypes
)

var typeNames = [numTypes]string{"", "ip", "domain", "mac", "organization", "asn", "port", "ja3", "evidence", "module"}

// String returns the word for the type in a file.
func (t Type) String() string {
	if t < numTypes {
		return typeNames[t]
	}
	return ""
}

// noun returns what the type is in a sentence.
func (t Type) noun() string {
	switch t {
	case Evidence:
		return "type of evidence"
	case ASN:
		return "AS"
	default:
		return t.String()
	}
}

// sided reports whether values of the type sit on a side of the flow.
func (t Type) sided() bool { return t != JA3 && t != Evidence && t != Module }

// ofFlows reports whether a record says anything about the type.
func (t Type) ofFlows() bool { return t != ASN && t != Evidence && t != Module }

// Where a condition must hold.
const (
	src  = uint8(evidence.Src)
	dst  = uint8(evidence.Dst)
	none = 2 // on no side: the type has none
	same = 3 // on the side that the entry is tried on
)

// cond is one condition in canonical form: value says all, the other fields
// are what it was parsed into.
type cond struct {
	kind   Type
	at     uint8 // src, dst, same or none
	value  string
	prefix netip.Prefix
	number uint64 // MAC, ASN, or protocol<<16 | port
}

// String returns the condition as a file has it behind "&".
func (c cond) String() string {
	s := c.kind.String() + "=" + c.value
	if c.at < none {
		s = sideNames[c.at] + "." + s
	}
	return s
}

var sideNames = [...]string{"src", "dst"}

// entry is one line.
type entry struct {
	rule  Rule
	dirs  uint8  // bit src, bit dst
	conds []cond // the first is that of the type column
}

const (
	// maxLine bounds a line: a reason of a few sentences fits.
	maxLine = 4096
	// maxEntries bounds the entries: a list that long is made by a program, and
	// one that is longer by mistake.
	maxEntries = 100_000
	// maxConds bounds the conditions of an entry: there are not more types.
	maxConds = 8
	// maxErrors bounds how many errors of one file are told.
	maxErrors = 20
	// maxNotices bounds how many notices are kept.
	maxNotices = 100
)

// Error says what is wrong with a line.
type Error struct {
	File  string
	Line  int
	Field string // "type", "value", "direction", "ignore", "expiry", "reason", "line"
	Text  string // what stands there
	Want  string // what is wrong with it
}

// Error returns "file:line: field "text": what is wrong".
func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d: %s %q: %s", e.File, e.Line, e.Field, clip(e.Text), e.Want)
}

// clip bounds foreign text in a message.
func clip(s string) string {
	if len(s) <= 80 {
		return s
	}
	return s[:80] + "…"
}

// Parse reads a list. A single error refuses the whole file, so that a bad
// edit cannot open a hole or make noise unseen; the error tells of the first
// maxErrors lines.
//
// Conditions are joined to the value with "&" and hold together:
//
//	ip,10.0.0.5&evidence=HORIZONTAL_PORT_SCAN,src,alerts
//	ip,10.0.0.5&dst.port=443/tcp,src,flows
//
// A condition without "src." or "dst." is on the same side as the entry's
// first. The last line of equal type and value, conditions included, wins. An
// expiry is a date, the last on which the entry holds (UTC), or a time in the
// form of RFC 3339. The reason may be quoted.
//
// A line behind "#" is a comment even if it is a full entry. In the original
// such a line takes an earlier one back; a notice tells where that would be.
func Parse(name string, r io.Reader) (*List, error) {
	text, digest, err := readAll(name, r)
	if err != nil {
		return nil, err
	}
	l := &List{name: name, digest: digest}
	p := parser{list: l, at: make(map[string]int)}
	n := 0
	for line := range strings.Lines(strings.TrimPrefix(string(text), "\ufeff")) {
		n++
		p.line(n, strings.TrimRight(line, "\r\n"))
		if len(p.errs) >= maxErrors {
			p.errs = append(p.errs, fmt.Errorf("%s: there may be more errors behind line %d", name, n))
			break
		}
	}
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	l.entries = slices.DeleteFunc(l.entries, func(e entry) bool { return e.conds == nil })
	if more := p.noticed - len(l.notices); more > 0 {
		l.notices = append(l.notices, fmt.Sprintf("%s: %d more notices", name, more))
	}
	if l.flows, err = newIndex(l.entries, func(r *Rule) bool { return r.Flows }); err != nil {
		return nil, err
	}
	if l.alerts, err = newIndex(l.entries, func(r *Rule) bool { return r.Alerts }); err != nil {
		return nil, err
	}
	return l, nil
}

type parser struct {
	list    *List
	at      map[string]int // place of the entry with these conditions
	errs    []error
	noticed int
}

func (p *parser) notice(line int, format string, args ...any) {
	if p.noticed++; p.noticed <= maxNotices {
		p.list.notices = append(p.list.notices, fmt.Sprintf("%s:%d: ", p.list.name, line)+fmt.Sprintf(format, args...))
	}
}

func (p *parser) line(n int, text string) {
	bad := func(err *Error) {
		err.File, err.Line = p.list.name, n
		p.errs = append(p.errs, err)
	}
	trimmed := strings.TrimSpace(text)
	switch {
	case len(text) > maxLine:
		bad(&Error{Field: "line", Text: text, Want: fmt.Sprintf("longer than %d bytes", maxLine)})
		return
	case !utf8.ValidString(text):
		bad(&Error{Field: "line", Text: text, Want: "not UTF-8"})
		return
	case strings.ContainsFunc(strings.ReplaceAll(text, "\t", " "), unicode.IsControl):
		bad(&Error{Field: "line", Text: text, Want: "has control characters"}) // they would reach terminals
		return
	case trimmed == "", trimmed[0] == ';', isHeader(trimmed):
		return
	case trimmed[0] == '#':
		if e, err := parseEntry(strings.TrimLeft(trimmed, "# ")); err == nil {
			if i, ok := p.at[e.key()]; ok {
				p.notice(n, "this is a comment and leaves line %d in force; the original would take it back", p.list.entries[i].rule.Line)
			}
		}
		return
	}
	e, err := parseEntry(trimmed)
	if err != nil {
		bad(err)
		return
	}
	e.rule.Line = n
	key := e.key()
	if i, ok := p.at[key]; ok {
		old := &p.list.entries[i]
		p.notice(old.rule.Line, "replaced by line %d", n)
		*old = entry{}
	}
	if len(p.at) >= maxEntries {
		bad(&Error{Field: "line", Text: text, Want: fmt.Sprintf("more than %d entries", maxEntries)})
		return
	}
	p.at[key] = len(p.list.entries)
	if e.rule.Flows && slices.ContainsFunc(e.conds, func(c cond) bool { return c.kind == Organization }) {
		p.notice(n, "records of an organisation are dropped unseen, what is hosted there included; \"alerts\" keeps what feeds name")
	}
	p.list.entries = append(p.list.entries, e)
}

// isHeader reports whether a line is the original's line of column names.
func isHeader(s string) bool {
	s = strings.TrimPrefix(s, `"`)
	return len(s) >= 7 && strings.EqualFold(s[:7], "IoCType")
}

// key is the same for entries of the same conditions.
func (e *entry) key() string {
	parts := make([]string, len(e.conds))
	for i, c := range e.conds {
		parts[i] = c.String()
	}
	slices.Sort(parts)
	return strings.Join(parts, "&")
}

// unblank removes all blanks.
func unblank(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s)
}

// parseEntry parses a line. File and line of the error are left to the caller.
func parseEntry(line string) (entry, *Error) {
	var e entry
	cols := strings.SplitN(line, ",", 6)
	if len(cols) < 4 {
		return e, &Error{Field: "line", Text: line, Want: "want type,value,direction,ignore"}
	}
	for i := range min(len(cols), 5) {
		cols[i] = unblank(cols[i])
	}
	kind, words := strings.ToLower(cols[0]), strings.Split(cols[1], "&")
	if len(words) > maxConds {
		return e, &Error{Field: "value", Text: cols[1], Want: fmt.Sprintf("more than %d conditions", maxConds)}
	}
	for i, w := range words {
		at := uint8(same)
		if i > 0 {
			k, v, ok := strings.Cut(w, "=")
			if !ok {
				return e, &Error{Field: "value", Text: w, Want: "want type=value behind &"}
			}
			kind, w = strings.ToLower(k), v
			if rest, ok := strings.CutPrefix(kind, "src."); ok {
				kind, at = rest, src
			} else if rest, ok := strings.CutPrefix(kind, "dst."); ok {
				kind, at = rest, dst
			}
		}
		c, err := parseCond(kind, w)
		if err != nil {
			return e, err
		}
		if !c.kind.sided() {
			if at != same {
				return e, &Error{Field: "value", Text: words[i], Want: "the " + c.kind.noun() + " is on neither side"}
			}
			at = none
		}
		c.at = at
		if slices.Contains(e.conds, c) {
			return e, &Error{Field: "value", Text: words[i], Want: "said twice"}
		}
		e.conds = append(e.conds, c)
	}
	r := &e.rule
	switch r.Direction = strings.ToLower(cols[2]); r.Direction {
	case "src":
		e.dirs = 1 << src
	case "dst":
		e.dirs = 1 << dst
	case "both":
		e.dirs = 1<<src | 1<<dst
	default:
		return e, &Error{Field: "direction", Text: cols[2], Want: "want src, dst or both"}
	}
	ignore := strings.ToLower(cols[3])
	switch ignore {
	case "flows":
		r.Flows = true
	case "alerts":
		r.Alerts = true
	case "both":
		r.Flows, r.Alerts = true, true
	default:
		return e, &Error{Field: "ignore", Text: cols[3], Want: "want flows, alerts or both"}
	}
	for _, c := range e.conds {
		if r.Flows && !c.kind.ofFlows() {
			return e, &Error{Field: "ignore", Text: cols[3], Want: "a record does not say its " + c.kind.noun() + ": want alerts"}
		}
	}
	r.Text = e.conds[0].kind.String() + "," + e.conds[0].value
	for _, c := range e.conds[1:] {
		r.Text += "&" + c.String()
	}
	r.Text += "," + r.Direction + "," + ignore
	if len(cols) > 4 && cols[4] != "" {
		t, ok := expiry(cols[4])
		if !ok {
			return e, &Error{Field: "expiry", Text: cols[4], Want: "want a date (2026-12-31) or a time (2026-12-31T18:00:00Z) from 1970 to 2261"}
		}
		r.Expires = t
	}
	if len(cols) > 5 {
		reason, ok := unquote(strings.TrimSpace(cols[5]))
		if !ok {
			return e, &Error{Field: "reason", Text: cols[5], Want: "the quotes do not match"}
		}
		r.Reason = reason
	}
	return e, nil
}

// expiry returns the time from which an entry does not hold, in unix ns.
func expiry(s string) (int64, bool) {
	t, err := time.Parse(time.DateOnly, s)
	if err == nil {
		t = t.AddDate(0, 0, 1) // it holds on that day
	} else if t, err = time.Parse(time.RFC3339Nano, s); err != nil {
		return 0, false
	}
	// What int64 holds, and 0 is never.
	if t.Year() < 1970 || t.Year() > 2261 || t.UnixNano() <= 0 {
		return 0, false
	}
	return t.UnixNano(), true
}

// stamp is the reverse of expiry.
func stamp(t int64) string {
	if t == 0 {
		return ""
	}
	return time.Unix(0, t).UTC().Format(time.RFC3339Nano)
}

// unquote takes the quotes off a text that has them, with "" for one inside.
func unquote(s string) (string, bool) {
	if !strings.HasPrefix(s, `"`) {
		return s, true
	}
	if len(s) < 2 || !strings.HasSuffix(s, `"`) {
		return "", false
	}
	s = strings.ReplaceAll(s[1:len(s)-1], `""`, "\x00")
	if strings.Contains(s, `"`) {
		return "", false
	}
	return strings.TrimSpace(strings.ReplaceAll(s, "\x00", `"`)), true
}

// parseCond parses the value of a condition.
func parseCond(kind, v string) (c cond, err *Error) {
	bad := func(want string) (cond, *Error) { return c, &Error{Field: "value", Text: v, Want: want} }
	c.value = v
	switch kind {
	case "ip", "range":
		c.kind = IP
		var p netip.Prefix
		if a, err := netip.ParseAddr(v); err == nil && kind == "ip" && a.Zone() == "" {
			a = a.Unmap()
			p = netip.PrefixFrom(a, a.BitLen())
		} else if p, err = netip.ParsePrefix(v); err != nil {
			if kind == "range" {
				return bad("want a range such as 192.0.2.0/24")
			}
			return bad("want an address or a range such as 192.0.2.0/24")
		}
		switch {
		case p.Addr().Is4In6():
			return bad("write it as IPv4")
		case p != p.Masked():
			return bad("has bits set behind its length: want " + p.Masked().String())
		case p.Bits() == 0:
			return bad("covers everything")
		}
		c.prefix, c.value = p, p.String()
		if p.IsSingleIP() {
			c.value = p.Addr().String()
		}
	case "domain":
		c.kind = Domain
		d, want := canonicalDomain(v)
		if want != "" {
			return bad(want)
		}
		c.value = d
	case "mac":
		c.kind = MAC
		m, err := net.ParseMAC(v)
		if err != nil || len(m) != 6 {
			return bad("want six bytes such as 00:1b:44:11:3a:b7")
		}
		c.value = m.String()
		c.number, _ = parseMAC(c.value)
	case "organization":
		c.kind, c.value = Organization, strings.ToLower(v)
		if !slices.Contains(OrganizationNames(), c.value) {
			return bad("want one of " + strings.Join(OrganizationNames(), ", "))
		}
	case "asn":
		c.kind = ASN
		digits := v
		if len(v) > 2 && strings.EqualFold(v[:2], "as") {
			digits = v[2:]
		}
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || n == 0 {
			return bad("want a number such as AS64496")
		}
		c.number, c.value = n, "AS"+strconv.FormatUint(n, 10)
	case "port":
		c.kind = Port
		number, proto, named := strings.Cut(strings.ToLower(v), "/")
		n, err := strconv.ParseUint(number, 10, 16)
		k := portProto(proto)
		if err != nil || n == 0 || named != (proto != "") || named && k == 0 {
			return bad("want a port such as 443, 443/tcp, 53/udp or 5060/sctp")
		}
		c.number = k<<16 | n
		if c.value = strconv.FormatUint(n, 10); named {
			c.value += "/" + proto
		}
	case "ja3":
		c.kind, c.value = JA3, strings.ToLower(v)
		if !isMD5(c.value) {
			return bad("want 32 hexadecimal digits")
		}
	case "evidence":
		c.kind, c.value = Evidence, strings.ToUpper(v)
		if !isWord(c.value) {
			return bad("want the name of a type of evidence")
		}
	case "module":
		c.kind, c.value = Module, strings.ToLower(v)
		if !isWord(c.value) {
			return bad("want the name of a module")
		}
	default:
		return c, &Error{Field: "type", Text: kind, Want: "want ip, range, " + strings.Join(typeNames[Domain:], ", ")}
	}
	return c, nil
}

// The protocols that have ports, as a cond has them; 0 stands for any.
const (
	tcp = uint64(iota + 1)
	udp
	sctp
)

// portProto returns the number of a protocol by its name; 0 if it has none.
func portProto(name string) uint64 {
	switch name {
	case "tcp":
		return tcp
	case "udp":
		return udp
	case "sctp":
		return sctp
	}
	return 0
}

// isWord reports whether s is letters, digits and underscores.
func isWord(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 100
}

func isMD5(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) == 32
}

// canonicalDomain returns a name in lower case and ASCII without a dot at its
// end, or what is wrong with it.
func canonicalDomain(v string) (d, want string) {
	if strings.HasPrefix(v, "*.") || strings.HasPrefix(v, ".") {
		return "", "a domain covers all below it: write it without the star or dot"
	}
	d = strings.ToLower(strings.TrimSuffix(v, "."))
	for i := range len(d) {
		if d[i] >= utf8.RuneSelf {
			ascii, err := idna.Lookup.ToASCII(d)
			if err != nil {
				return "", "not a name of a host"
			}
			d = ascii
			break
		}
	}
	if !validName(d) {
		return "", "not a name of a host"
	}
	if _, err := netip.ParseAddr(d); err == nil {
		return "", "is an address: use ip"
	}
	if s, icann := publicsuffix.PublicSuffix(d); icann && s == d {
		return "", "is a public suffix: all that is registered below it would be covered"
	}
	return d, ""
}

// maxName is the longest name of DNS in text (RFC 1035, section 2.3.4).
const maxName = 253

// validName reports whether s is labels of letters, digits, "-" and "_" in
// lower case.
func validName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			if c := label[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}
