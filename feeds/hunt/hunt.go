// Package hunt looks for indicators in records and in what earlier runs wrote:
// everything in them that an indicator can name is looked up, whether a
// detection would report it or not.
package hunt

import (
	"net/netip"
	"strings"

	"github.com/valyala/fastjson"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/parsers/flow"
)

// Hit is an indicator in a field.
type Hit struct {
	Field string // in the words of the log: "id.resp_h", "query", "server_name"; "" in text
	Value string // that was looked up; valid as long as the record is
	Match intel.Match
}

// Flow calls found for each field of f that v knows.
func Flow(v *intel.View, f *flow.Flow, found func(Hit)) {
	h := hunter{v, found}
	h.addr("id.orig_h", f.Src)
	h.addr("id.resp_h", f.Dst)
	if f.Parts == nil {
		return
	}
	switch f.Kind {
	case flow.DNS:
		h.name("query", f.DNS.Query)
		for _, a := range f.DNS.Answers {
			h.text("answers", a)
		}
	case flow.HTTP:
		p := f.HTTP
		host := p.Host
		if host == "" && f.Dst.IsValid() {
			host = f.Dst.String()
		}
		h.text("host", hostOnly(p.Host))
		h.hit("uri", p.URI, v.URL(host, f.DstPort, p.URI))
		if p.Referrer != "" {
			h.text("referrer", p.Referrer)
		}
	case flow.SSL, flow.QUIC:
		p := f.SSL
		h.name("server_name", p.ServerName)
		h.kind("ja3", intel.JA3, p.JA3)
		h.kind("ja3s", intel.JA3S, p.JA3S)
		h.kind("ja4", intel.JA4, p.JA4)
		h.kind("fingerprint", intel.CertSHA1, p.SHA1)
		for _, c := range p.CertFPs {
			h.hashes("cert_chain_fps", c)
		}
		for _, c := range p.ClientCertFPs {
			h.hashes("client_cert_chain_fps", c)
		}
	case flow.X509:
		h.hashes("fingerprint", f.X509.Fingerprint)
		for _, n := range f.X509.SANDNS {
			h.name("san.dns", n)
		}
	case flow.Files:
		p := f.Files
		h.kind("md5", intel.MD5, p.MD5)
		h.hashes("sha1", p.SHA1)
		h.kind("sha256", intel.SHA256, p.SHA256)
	case flow.SMTP:
		p := f.SMTP
		h.text("helo", p.Helo)
		h.mail("mailfrom", p.MailFrom)
		h.mail("from", p.From)
		for _, a := range p.RcptTo {
			h.mail("rcptto", a)
		}
		for _, a := range p.To {
			h.mail("to", a)
		}
		for _, a := range p.Path {
			h.text("path", a)
		}
	case flow.Notice:
		h.addr("src", f.Notice.Src)
		h.addr("dst", f.Notice.Dst)
	case flow.DHCP:
		h.name("host_name", f.DHCP.HostName)
		h.addr("requested_addr", f.DHCP.Requested)
	case flow.FTP:
		h.addr("data_channel.resp_h", f.FTP.DataResp)
	case flow.Lookup:
		h.text("subject", f.Lookup.Subject)
	default: // the others name nobody but the two ends
	}
}

// Text calls found for a text that v knows, whatever it is: an address, a
// name, a URL, a hash.
func Text(v *intel.View, s string, found func(Hit)) {
	hunter{v, found}.text("", s)
}

// JSON calls found for each string of a JSON value that v knows, as Text does.
// Field is its key, or that of the list it is in.
func JSON(v *intel.View, x *fastjson.Value, found func(Hit)) { hunter{v, found}.json("", x, 0) }

// maxDepth bounds how deep values are looked into; our own outputs have four levels.
const maxDepth = 32

func (h hunter) json(field string, x *fastjson.Value, depth int) {
	if depth > maxDepth {
		return
	}
	switch x.Type() {
	case fastjson.TypeObject:
		if o, err := x.Object(); err == nil {
			o.Visit(func(key []byte, y *fastjson.Value) { h.json(string(key), y, depth+1) })
		}
	case fastjson.TypeArray:
		if l, err := x.Array(); err == nil {
			for _, y := range l {
				h.json(field, y, depth+1)
			}
		}
	case fastjson.TypeString:
		if b, err := x.StringBytes(); err == nil {
			s := string(b)
			h.text(field, s)
			if strings.ContainsAny(s, " ,;()") { // a sentence: its words
				for w := range strings.FieldsFuncSeq(s, func(r rune) bool { return strings.ContainsRune(" ,;()[]{}\"'", r) }) {
					h.text(field, strings.Trim(w, ".:!?"))
				}
			}
		}
	default: // numbers name nobody
	}
}

type hunter struct {
	v     *intel.View
	found func(Hit)
}

func (h hunter) hit(field, value string, m intel.Match) {
	if m.OK() {
		h.found(Hit{field, value, m})
	}
}

func (h hunter) addr(field string, a netip.Addr) {
	if !a.IsValid() {
		return
	}
	if m := h.v.Address(a); m.OK() {
		h.hit(field, a.Unmap().String(), m)
	}
	if h.v.Has(intel.ASN) {
		if n, _ := h.v.AS(a); n != 0 {
			if m := h.v.ASN(n); m.OK() {
				h.hit(field, a.Unmap().String(), m)
			}
		}
	}
}

func (h hunter) name(field, s string) {
	if s != "" {
		h.hit(field, s, h.v.Domain(s))
	}
}

func (h hunter) kind(field string, k intel.Kind, s string) {
	if s != "" {
		h.hit(field, s, h.v.Text(k, s))
	}
}

// hashes looks a fingerprint up as what its length allows: that of a
// certificate is that of a file, too.
func (h hunter) hashes(field, s string) {
	if s == "" {
		return
	}
	for _, k := range [...]intel.Kind{intel.CertSHA1, intel.SHA1, intel.SHA256, intel.MD5, intel.JA3, intel.JA3S} {
		if m := h.v.Text(k, s); m.OK() {
			h.hit(field, s, m)
			return // what it is of is not known, so once is enough
		}
	}
}

func (h hunter) mail(field, s string) {
	s = strings.Trim(s, "<> ")
	if i := strings.LastIndexByte(s, '<'); i >= 0 { // Name <user@host>
		s = s[i+1:]
	}
	h.kind(field, intel.Email, s)
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		h.name(field, s[i+1:])
	}
}

func (h hunter) text(field, s string) {
	if s == "" || len(s) > 4096 {
		return
	}
	if a, err := netip.ParseAddr(s); err == nil {
		h.addr(field, a)
		return
	}
	if scheme, rest, ok := strings.Cut(s, "://"); ok && len(scheme) <= 5 {
		host, path := rest, "/"
		if i := strings.IndexAny(rest, "/?"); i >= 0 {
			host, path = rest[:i], rest[i:]
		}
		port := uint16(80)
		if strings.EqualFold(scheme, "https") {
			port = 443
		}
		h.hit(field, s, h.v.URL(host, port, path))
		h.text(field, hostOnly(host))
		return
	}
	if strings.IndexByte(s, '@') >= 0 {
		h.mail(field, s)
		return
	}
	h.name(field, s)
	h.hashes(field, s)
	if len(s) == 62 {
		h.kind(field, intel.JARM, s)
	}
	if strings.IndexByte(s, '_') >= 0 {
		h.kind(field, intel.JA4, s)
	}
}

// hostOnly cuts the port off.
func hostOnly(s string) string {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().String()
	}
	if i := strings.LastIndexByte(s, ':'); i > 0 && strings.IndexByte(s, ':') == i {
		return s[:i]
	}
	return s
}
