// Package download reports what hosts fetch over HTTP and should not:
// programs, files that are not what their name says, and the pages of paste
// sites.
package download

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// The types of evidence this module emits.
const (
	Executable evidence.Type = "EXECUTABLE_MIME_TYPE"
	Mismatch   evidence.Type = "MIME_MISMATCH"
	Paste      evidence.Type = "PASTEBIN_DOWNLOAD"
)

// Config holds the threshold.
type Config struct {
	// Threshold is how many bytes in a response of a paste site are a download, at least 1.
	Threshold int64 `yaml:"pastebin_download_threshold"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "download",
	Doc:   "programs, disguised files and pastes fetched from the web",
	Scope: modules.PerProfile,
	Kinds: flow.Of(flow.HTTP, flow.SSL),
	Emits: []evidence.Spec{{
		Type: Executable, Level: evidence.Low, Tactic: evidence.CommandAndControl, MITRE: []string{"T1105"}, Subject: "server", Over: "window",
		Doc: "a program was downloaded over HTTP without encryption",
	}, {
		Type: Mismatch, Level: evidence.Medium, Tactic: evidence.DefenseEvasion, MITRE: []string{"T1036.008"}, Subject: "server, extension", Over: "window",
		Doc: "the content of a download is not what the name says: a program as a picture, a picture as a program",
	}, {
		Type: Paste, Level: evidence.Info, Tactic: evidence.Context, MITRE: []string{"T1102.001"}, Subject: "site, protocol", Over: "window", Method: "Threshold",
		Doc: "something was downloaded from a paste site, or a TLS session with one was opened",
	}},
}, Config{Threshold: 700}, New)

const (
	// maxReports bounds what one state remembers as reported. What is
	// forgotten first was reported longest ago.
	maxReports = 512
	// maxText bounds the words of others in a description, in bytes.
	maxText = 200
)

// State is what the module remembers of one profile.
type State struct {
	Reported modules.Recent[Subject, int] // the last step
}

// Subject is what is reported once in a window.
type Subject struct {
	Window int64 // start
	Kind   uint8
	Name   string
}

// The kinds of Subject.
const (
	executable uint8 = iota + 1
	mismatch
	paste
)

type rule struct{ threshold int64 }

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.Threshold < 1 {
		return nil, fmt.Errorf("pastebin_download_threshold: %d is not at least 1", c.Threshold)
	}
	return rule{c.Threshold}, nil
}

// Wants implements modules.Chooser.
func (r rule) Wants(f *flow.Flow) bool {
	switch f.Kind {
	case flow.HTTP:
		return len(f.HTTP.RespMIMETypes) > 0 && judge(f.HTTP).what != 0 || r.pasted(f.HTTP)
	case flow.SSL:
		return f.SSL.Established != flow.False && pasteSite(f.SSL.ServerName) != ""
	default:
		return false
	}
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if !f.Dst.IsValid() || cx.Role() != profile.Client {
		return
	}
	switch f.Kind {
	case flow.HTTP:
		r.http(cx, st, f)
	case flow.SSL:
		r.ssl(cx, st, f)
	default: // no other kind is delivered
	}
}

// verdict is what a response is.
type verdict struct {
	what      uint8 // 0: nothing to report; executable or mismatch
	mime, ext string
}

// judge compares the types of a response with the name that was asked for.
func judge(h *flow.HTTPPart) verdict {
	if h.StatusCode != 0 && h.StatusCode/100 != 2 {
		return verdict{} // the page that explains an error is no download
	}
	for _, m := range h.RespMIMETypes {
		m = bare(m)
		group := mimes[m]
		if group == 0 {
			continue
		}
		ext := extension(h.URI)
		named := extensions[lower(ext)]
		switch {
		case group == program && named == document:
			return verdict{mismatch, m, ext}
		case group == program, group == bytes && named == program:
			return verdict{executable, m, ext}
		case group == picture && named == program:
			return verdict{mismatch, m, ext}
		}
	}
	return verdict{}
}

// http reports what one response tells by itself.
func (r rule) http(cx *modules.Context, st *State, f *flow.Flow) {
	h := f.HTTP
	server := h.Host
	if server == "" {
		server = f.Dst.String()
	}
	server = modules.Clip(server, maxText)
	v := judge(h)
	if v.what == mismatch {
		r.mismatch(cx, st, f, server, v)
	}
	if v.what != 0 && mimes[v.mime] != picture {
		r.executable(cx, st, f, server, v)
	}
	if r.pasted(h) {
		r.paste(cx, st, f, "http", pasteSite(h.Host), "downloaded "+megabytes(h.ResponseLen)+" MB from")
	}
}

// executable reports a program. Programs come over plain HTTP every day, from
// the servers of those who update them; but not from an address without a name.
func (r rule) executable(cx *modules.Context, st *State, f *flow.Flow, server string, v verdict) {
	level, confidence, step, from := evidence.Low, 0.5, 1, ""
	switch h := f.HTTP; {
	case strings.HasPrefix(h.UserAgent, "Microsoft-Delivery-Optimization/"):
		// Windows fetches its updates from caches of providers, by address.
	case profile.IsPublic(hostAddr(h.Host)) || h.Host == "" && profile.IsPublic(f.Dst):
		level, confidence, step, from = evidence.Medium, 0.9, 3, " It is a server without a name."
	case extensions[lower(v.ext)] == program:
	case h.UserAgent == "":
		level, step, from = evidence.Medium, 2, " Neither does the name say that it is one, nor the client what it is."
	default:
		confidence, step, from = 0.8, 2, " The name does not say that it is one."
	}
	if !st.first(cx, f.Time, executable, server, step) {
		return
	}
	e := base(f, Executable, level, confidence)
	e.Description = fmt.Sprintf("%s downloaded a program (%s) from %s over HTTP without encryption: %s.%s", f.Src, v.mime, f.Dst, url(f, server), from)
	e.Subject, e.Step = server, step
	cx.Emit(e)
}

func (r rule) mismatch(cx *modules.Context, st *State, f *flow.Flow, server string, v verdict) {
	ext := strings.ToLower(v.ext)
	subject := server + " " + ext
	if !st.first(cx, f.Time, mismatch, subject, 1) {
		return
	}
	confidence, is := 0.9, "a program"
	if mimes[v.mime] == picture {
		confidence, is = 0.5, "a picture"
	}
	e := base(f, Mismatch, evidence.Medium, confidence)
	e.Description = fmt.Sprintf("%s downloaded %s (%s) from %s under a name that ends in .%s: %s.", f.Src, is, v.mime, f.Dst, ext, url(f, server))
	e.Subject, e.Step = subject, 1
	cx.Emit(e)
}

// url writes where a download is from.
func url(f *flow.Flow, server string) string {
	if strings.Contains(f.HTTP.URI, "://") { // to a proxy
		return fmt.Sprintf("%q", modules.Clip(f.HTTP.URI, maxText))
	}
	return fmt.Sprintf("%q", modules.Clip("http://"+server+f.HTTP.URI, maxText))
}

func base(f *flow.Flow, t evidence.Type, l evidence.Level, confidence float64) evidence.Evidence {
	e := evidence.Evidence{
		Type: t, Level: l, Confidence: confidence,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, f.SrcPort), Victim: evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
		Proto: f.Proto.String(), SrcPort: f.SrcPort, DstPort: f.DstPort, Count: 1,
	}
	e.UIDs = modules.UID(f.UID)
	return e
}

// first reports whether a subject has not been reported at this step yet in
// the window of time t, and notes that it is now.
func (st *State) first(cx *modules.Context, t int64, kind uint8, name string, step int) bool {
	s := Subject{cx.WindowAt(t).Start, kind, name}
	if last, _ := st.Reported.Get(s); step <= last {
		return false
	}
	s.Name = strings.Clone(name)
	st.Reported.Put(s, step, maxReports)
	return true
}

// pasted reports whether an HTTP record is a download from a paste site.
func (r rule) pasted(h *flow.HTTPPart) bool {
	return h.ResponseLen >= r.threshold && h.Method == "GET" && pasteSite(h.Host) != ""
}

// ssl reports a session with a paste site. How much came in it is not asked: a
// handshake alone is more than a page of text.
func (r rule) ssl(cx *modules.Context, st *State, f *flow.Flow) {
	if site := pasteSite(f.SSL.ServerName); site != "" && f.SSL.Established != flow.False {
		r.paste(cx, st, f, "tls", site, "opened a TLS session with")
	}
}

func (rule) paste(cx *modules.Context, st *State, f *flow.Flow, proto, site, did string) {
	if !st.first(cx, f.Time, paste, proto+" "+site, 1) {
		return
	}
	e := base(f, Paste, evidence.Info, 1)
	e.Description = fmt.Sprintf("%s %s the paste site %s.", f.Src, did, site)
	e.Proto, e.Subject, e.Step = "tcp", proto+" "+site, 1
	cx.Emit(e)
}

// megabytes writes 10^6 bytes with as many digits as a page of text needs.
func megabytes(n int64) string {
	return strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.4f", math.Ceil(float64(n)/100)/1e4), "0"), ".")
}

// hostAddr returns the address that a Host header consists of; invalid when
// it is a name.
func hostAddr(host string) netip.Addr {
	if len(host) < 2 || !(host[0] == '[' || '0' <= host[0] && host[0] <= '9') {
		return netip.Addr{} // most are names, and a parse that fails allocates
	}
	if p, err := netip.ParseAddrPort(host); err == nil {
		return p.Addr()
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		return netip.Addr{}
	}
	return a
}

// bare returns a media type without its parameters.
func bare(m string) string {
	if i := strings.IndexByte(m, ';'); i >= 0 {
		m = m[:i]
	}
	return strings.TrimSpace(m)
}

// extension returns the extension of the last part of a URI's path, without
// the dot; empty when it has none that looks like one.
func extension(uri string) string {
	if i := strings.IndexAny(uri, "?#;"); i >= 0 {
		uri = uri[:i]
	}
	uri = uri[strings.LastIndexByte(uri, '/')+1:]
	dot := strings.LastIndexByte(uri, '.')
	if dot < 0 || len(uri)-dot-1 > len(short{}) {
		return ""
	}
	return uri[dot+1:]
}

// short is an extension in lower case, at most five letters, so that it can
// be looked up without allocation.
type short [5]byte

func lower(ext string) (s short) {
	for i := range min(len(ext), len(s)) {
		c := ext[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		s[i] = c
	}
	return s
}

// group is a sort of content or of name.
type group uint8

const (
	program  group = iota + 1
	document       // pictures, texts, media: nothing that runs
	picture
	bytes // says nothing
)

// mimes are the media types that matter: those that Zeek finds in the content
// and those that servers give.
var mimes = map[string]group{
	"application/x-dosexec": program, "application/x-msdownload": program, "application/x-ms-dos-executable": program,
	"application/x-msdos-program": program, "application/x-ms-exe": program, "application/x-exe": program, "application/exe": program,
	"application/x-winexe": program, "application/x-winhlp": program, "application/x-winhelp": program,
	"application/vnd.microsoft.portable-executable": program, "application/x-ms-installer": program, "application/x-msi": program,
	"application/x-executable": program, "application/x-elf": program, "application/x-sharedlib": program, "application/x-pie-executable": program,
	"application/x-mach-o-executable": program, "application/x-mach-binary": program, "application/hta": program,

	"application/octet-stream": bytes, "binary/octet-stream": bytes, "application/binary": bytes, "application/x-binary": bytes,

	"image/jpeg": picture, "image/png": picture, "image/gif": picture, "image/bmp": picture, "image/x-ms-bmp": picture, "image/webp": picture,
}

// extensions are the ends of names that matter. "com" is no program here: a
// path often ends in the name of a site.
var extensions = makeExtensions()

func makeExtensions() map[short]group {
	m := make(map[short]group)
	for e := range strings.FieldsSeq("exe dll scr msi pif cpl sys ocx elf hta msix appx") {
		m[lower(e)] = program
	}
	for e := range strings.FieldsSeq(`jpg jpeg png gif bmp ico svg webp tif tiff txt csv log css js json xml rss html htm
		pdf doc docx xls xlsx ppt pptx rtf odt zip rar 7z gz mp3 mp4 avi mov wav ogg woff woff2 ttf eot`) {
		m[lower(e)] = document
	}
	return m
}

// isPaste reports whether a name is that of a site where anybody can leave text
// without a name on it. The list is common knowledge of 2025, written down by
// hand and not checked against a published one. Each TLS session asks, so it is
// a switch and no map.
func isPaste(name []byte) bool {
	switch string(name) {
	case "pastebin.com", "paste.ee", "hastebin.com", "ghostbin.com", "ghostbin.co", "rentry.co", "rentry.org", "controlc.com",
		"dpaste.com", "dpaste.org", "justpaste.it", "ix.io", "sprunge.us", "termbin.com", "pastes.io", "paste.rs", "0bin.net",
		"privatebin.net", "textbin.net", "pastecode.io", "bpa.st", "paste2.org", "pastebin.pl", "pastebin.fr", "snippet.host",
		"pasteio.com", "pst.klgrth.io", "paste.mozilla.org", "paste.debian.net":
		return true
	}
	return false
}

// pasteSite returns the paste site that a host name belongs to, by itself or
// with the labels in front that sites use for raw text; empty if none.
func pasteSite(host string) string {
	if i := strings.IndexByte(host, ':'); i >= 0 { // the port
		host = host[:i]
	}
	host = strings.TrimSuffix(host, ".")
	const longest = 24
	if len(host) < 5 || len(host) > longest+12 {
		return ""
	}
	var buf [longest + 12]byte
	for i := range len(host) {
		c := host[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		buf[i] = c
	}
	// The name itself, and what is behind its first label.
	name := buf[:len(host)]
	if isPaste(name) {
		return string(name)
	}
	for i, c := range name {
		if c == '.' {
			if isPaste(name[i+1:]) {
				return string(name[i+1:])
			}
			break
		}
	}
	return ""
}
