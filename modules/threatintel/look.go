package threatintel

import (
	"net/netip"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// found is something in a record that a feed lists.
type found struct {
	what   What
	m      intel.Match
	name   string     // what was looked up: a name, URL, fingerprint or hash; for an address in an answer the query
	asked  string     // the query, when name is an alias
	addr   netip.Addr // an address that was looked up
	grade  uint8
	byAddr bool
}

// look calls yield with all in a record that the feeds list, until it returns
// false. It is called for every record, so it looks nothing up of a kind that
// no feed has, and does not allocate.
func look(v *intel.View, f *flow.Flow, yield func(found) bool) {
	switch f.Kind {
	case flow.Conn:
		lookConn(v, f, yield)
	case flow.DNS:
		lookDNS(v, f, yield)
	case flow.SSL, flow.QUIC:
		lookTLS(v, f, yield)
	case flow.HTTP:
		lookHTTP(v, f, yield)
	case flow.SMTP:
		lookMail(v, f, yield)
	case flow.Files:
		lookFile(v, f, yield)
	default: // no other kind is delivered
	}
}

func hasAddresses(v *intel.View) bool { return v.Has(intel.Address) || v.Has(intel.Range) }

func lookConn(v *intel.View, f *flow.Flow, yield func(found) bool) {
	addresses, systems := hasAddresses(v), v.Has(intel.ASN)
	if !addresses && !systems {
		return
	}
	// Hosts are pinged and traced for no harm (reference 3.6.4).
	if !f.Proto.IsICMP() {
		if addresses {
			if m := at(v, f.Dst); m.OK() && !yield(found{what: toAddress, m: m, addr: f.Dst, grade: reached(f)}) {
				return
			}
		}
		if systems && reached(f) == exchanged {
			if m := system(v, f.Dst); m.OK() && !yield(found{what: toSystem, m: m, addr: f.Dst, grade: served}) {
				return
			}
		}
	}
	grade := uint8(knocked)
	if reached(f) == exchanged {
		grade = served
	}
	if addresses {
		if m := at(v, f.Src); m.OK() && !yield(found{what: fromAddress, m: m, addr: f.Src, grade: grade}) {
			return
		}
	}
	if systems && grade == served {
		if m := system(v, f.Src); m.OK() {
			yield(found{what: fromSystem, m: m, addr: f.Src, grade: grade})
		}
	}
}

// at looks an address up. One that is not public is found when it or a range of
// such addresses is listed, which operators do; never because a range of public
// ones reaches over it.
func at(v *intel.View, a netip.Addr) intel.Match {
	if profile.IsPublic(a) {
		return v.Address(a)
	}
	if v.Private() {
		if m := v.Address(a); m.Private() {
			return m
		}
	}
	return intel.Match{}
}

func system(v *intel.View, a netip.Addr) intel.Match {
	if !profile.IsPublic(a) {
		return intel.Match{}
	}
	n, _ := v.AS(a)
	if n == 0 {
		return intel.Match{}
	}
	return v.ASN(n)
}

// reached says how far a connection got.
func reached(f *flow.Flow) uint8 {
	switch {
	case f.State != flow.Established:
		return unanswered
	case f.OrigBytes > 0 && f.RespBytes > 0:
		return exchanged
	case f.RawState == "OTH": // one packet from the middle: what scanners cause
		return unanswered
	}
	return empty
}

func lookDNS(v *intel.View, f *flow.Flow, yield func(found) bool) {
	domains, addresses := v.Has(intel.Domain), hasAddresses(v)
	if !domains && !addresses {
		return
	}
	d := f.DNS
	q := bare(d.Query)
	if q == "" || below(q, ".arpa") || below(q, ".local") {
		return
	}
	var query intel.Match
	if domains {
		if query = v.Domain(q); query.OK() && !yield(found{what: domain, m: query, name: q, grade: asked}) {
			return
		}
	}
	for _, s := range d.Answers[:min(len(d.Answers), maxAnswers)] {
		if a, ok := modules.Address(s); ok {
			if !addresses {
				continue
			}
			if m := at(v, a); m.OK() {
				grade := uint8(unpopular)
				if isPopular(v, q) {
					grade = popular
				}
				if !yield(found{what: addrAnswer, m: m, name: q, addr: a, grade: grade}) {
					return
				}
			}
			continue
		}
		if !domains || strings.IndexByte(s, ' ') >= 0 {
			continue // text, and not a name
		}
		// An alias below the same listed name says nothing new.
		if m := v.Domain(s); m.OK() && m != query && (!query.OK() || m.Indicator() != query.Indicator()) {
			if !yield(found{what: aliasAnswer, m: m, name: bare(s), asked: q, grade: asked}) {
				return
			}
		}
	}
}

func lookTLS(v *intel.View, f *flow.Flow, yield func(found) bool) {
	s := f.SSL
	if s.ServerName != "" && v.Has(intel.Domain) {
		if m := v.Domain(s.ServerName); m.OK() && !yield(found{what: domain, m: m, name: bare(s.ServerName), grade: contacted}) {
			return
		}
	}
	if !lookFingerprint(v, f, ja3, intel.JA3, s.JA3, yield) || !lookFingerprint(v, f, ja3s, intel.JA3S, s.JA3S, yield) ||
		!lookFingerprint(v, f, ja4, intel.JA4, s.JA4, yield) {
		return
	}
	if v.Has(intel.CertSHA1) {
		if m := v.Text(intel.CertSHA1, s.SHA1); s.SHA1 != "" && m.OK() && !yield(found{what: cert, m: m, name: s.SHA1, grade: had}) {
			return
		}
		for _, fp := range s.CertFPs {
			if len(fp) != 40 || fp == s.SHA1 {
				continue // SHA-256, the id of a file, or what Suricata gave above
			}
			if m := v.Text(intel.CertSHA1, fp); m.OK() && !yield(found{what: cert, m: m, name: fp, grade: had}) {
				return
			}
		}
	}
	lookServer(v, f, s.ServerName, yield)
}

// lookFingerprint looks up a fingerprint of a client or a server. It returns
// what yield does.
func lookFingerprint(v *intel.View, f *flow.Flow, what What, kind intel.Kind, text string, yield func(found) bool) bool {
	if text == "" || !v.Has(kind) {
		return true
	}
	m := v.Text(kind, text)
	if !m.OK() {
		return true
	}
	grade := uint8(unpopular)
	if isPopular(v, f.SSL.ServerName) {
		grade = popular
	}
	return yield(found{what: what, m: m, name: text, grade: grade})
}

// lookServer finds a listed server that was asked for by a name, which tells
// what else is at its address.
func lookServer(v *intel.View, f *flow.Flow, name string, yield func(found) bool) {
	if name == "" || !hasAddresses(v) {
		return
	}
	if m := at(v, f.Dst); m.OK() {
		yield(found{what: server, m: m, addr: f.Dst})
	}
}

func lookHTTP(v *intel.View, f *flow.Flow, yield func(found) bool) {
	domains, addresses := v.Has(intel.Domain), hasAddresses(v)
	if !domains && !addresses && !v.Has(intel.URL) {
		return
	}
	h := f.HTTP
	name := host(h)
	if name != "" && domains {
		if m := v.Domain(name); m.OK() && !yield(found{what: domain, m: m, name: bare(name), grade: contacted}) {
			return
		}
	}
	if v.Has(intel.URL) && h.URI != "" {
		of := h.Host
		if of == "" && f.Dst.IsValid() {
			of = f.Dst.String()
		}
		if m := v.URL(of, f.DstPort, h.URI); m.OK() {
			grade := uint8(fetched)
			if h.StatusCode >= 400 {
				grade = refused
			}
			if !yield(found{what: url, m: m, name: h.URI, grade: grade}) {
				return
			}
		}
	}
	// A proxy is asked for other addresses than its own.
	if a, ok := modules.Address(name); ok {
		if a == f.Dst || !addresses {
			return
		}
		if m := at(v, a); m.OK() {
			grade := uint8(unanswered)
			if h.StatusCode/100 == 2 || h.StatusCode/100 == 3 {
				grade = exchanged
			}
			yield(found{what: toAddress, m: m, addr: a, grade: grade})
		}
		return
	}
	lookServer(v, f, name, yield)
}

// host returns the name or the address that an HTTP client asked for.
func host(h *flow.HTTPPart) string {
	name := h.Host
	if strings.HasPrefix(name, "[") {
		name, _, _ = strings.Cut(name[1:], "]")
	} else if i := strings.IndexByte(name, ':'); i >= 0 && strings.LastIndexByte(name, ':') == i {
		name = name[:i]
	}
	return name
}

func lookMail(v *intel.View, f *flow.Flow, yield func(found) bool) {
	domains, emails := v.Has(intel.Domain), v.Has(intel.Email)
	if !domains && !emails {
		return
	}
	s := f.SMTP
	one := func(text string, grade uint8) bool {
		box := mailbox(text)
		at := strings.LastIndexByte(box, '@')
		if emails && at > 0 {
			if m := v.Text(intel.Email, box); m.OK() {
				return yield(found{what: mail, m: m, name: box, grade: grade})
			}
		}
		if domains {
			if m := v.Domain(box[at+1:]); m.OK() {
				return yield(found{what: mail, m: m, name: box, grade: grade})
			}
		}
		return true
	}
	if !one(s.MailFrom, had) || !one(s.From, had) || !one(s.Helo, had) {
		return
	}
	for _, list := range [...][]string{s.RcptTo, s.To} {
		for _, to := range list[:min(len(list), maxAnswers)] {
			if !one(to, mailed) {
				return
			}
		}
	}
}

// mailbox returns the address in a header line such as "Name" <user@example.com>.
func mailbox(s string) string {
	if i := strings.LastIndexByte(s, '<'); i >= 0 {
		s = s[i+1:]
		if j := strings.IndexByte(s, '>'); j >= 0 {
			s = s[:j]
		}
	}
	return strings.TrimSpace(s)
}

func lookFile(v *intel.View, f *flow.Flow, yield func(found) bool) {
	p := f.Files
	if strings.HasPrefix(p.MIMEType, "application/x-x509-") || p.MIMEType == "application/pkix-cert" {
		if p.SHA1 == "" || !v.Has(intel.CertSHA1) {
			return
		}
		if m := v.Text(intel.CertSHA1, p.SHA1); m.OK() {
			yield(found{what: cert, m: m, name: p.SHA1, grade: had})
		}
		return
	}
	for _, x := range [...]struct {
		kind intel.Kind
		text string
	}{{intel.SHA256, p.SHA256}, {intel.SHA1, p.SHA1}, {intel.MD5, p.MD5}} {
		if x.text == "" || !v.Has(x.kind) {
			continue
		}
		if m := v.Text(x.kind, x.text); m.OK() && !yield(found{what: received, m: m, name: x.text, grade: had}) {
			return
		}
	}
}

// maxName is the length of the longest name of DNS in text, in bytes.
const maxName = 253

// bare removes the dot at the end of a name.
func bare(name string) string { return strings.TrimSuffix(name, ".") }

// below reports whether a name ends with suffix, in any case.
func below(name, suffix string) bool {
	return len(name) >= len(suffix) && strings.EqualFold(name[len(name)-len(suffix):], suffix)
}

// maxRank is how far down the list of popular domains one still is popular:
// malware gets into the tail of a list of a million.
const maxRank = 100_000

// isPopular reports whether many visit the domain of a name, and all names in
// it are its owner's. Below a suffix that is lent to customers (a dynamic DNS,
// a hosting platform) anybody may have the name.
func isPopular(v *intel.View, name string) bool {
	if name == "" || !v.Has(intel.Popular) {
		return false
	}
	if rank := v.Rank(name); rank <= 0 || rank > maxRank {
		return false
	}
	_, icann := publicsuffix.PublicSuffix(strings.ToLower(bare(name)))
	return icann
}
