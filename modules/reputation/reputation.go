// Package reputation asks online services about files, downloads, callers from
// outside and servers without a name, and reports what the services call bad.
package reputation

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// The types of evidence this module emits.
const (
	MaliciousURL  evidence.Type = "THREAT_INTELLIGENCE_MALICIOUS_URL"
	MaliciousFile evidence.Type = "MALICIOUS_DOWNLOADED_FILE"
	From          evidence.Type = "THREAT_INTELLIGENCE_FROM_BLACKLISTED_IP"
	To            evidence.Type = "THREAT_INTELLIGENCE_TO_BLACKLISTED_IP"
	Domain        evidence.Type = "THREAT_INTELLIGENCE_BLACKLISTED_DOMAIN"
	MaliciousJARM evidence.Type = "MALICIOUS_JARM"
)

// Config holds the settings.
type Config struct {
	// MinEngines is how many of VirusTotal's engines have to call something bad, 1 to 100.
	MinEngines int `yaml:"min_engines"`
	// MaxQuestions bounds the questions of each sort in a window, 0 to 100000.
	MaxQuestions int `yaml:"max_questions"`
	// MaxPerWindow bounds the evidence of each type for one host in a window, 1 to 1000.
	MaxPerWindow int `yaml:"max_per_window"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name: "reputation",
	Doc:  "what online services know of files, URLs, addresses and names",
	// One state for all hosts, so that a file which a thousand of them fetch
	// costs one place, and the questions of a window can be counted.
	Scope: modules.Network,
	Kinds: flow.Of(flow.Conn, flow.HTTP, flow.SSL, flow.Files, flow.Lookup),
	Needs: flow.Of(flow.Lookup),
	Emits: []evidence.Spec{{
		Type: MaliciousURL, Level: evidence.Medium, Tactic: evidence.CommandAndControl, MITRE: []string{"T1105"}, Subject: "service, url", Over: "window",
		Method: "Policy", Doc: "a host fetched a URL that a service lists for malware",
	}, {
		Type: MaliciousFile, Level: evidence.High, Tactic: evidence.CommandAndControl, MITRE: []string{"T1105"}, Subject: "service, hash", Over: "window",
		Method: "Policy", Doc: "a file passed that a service knows as malware",
	}, {
		Type: From, Level: evidence.Medium, Tactic: evidence.InitialAccess, MITRE: []string{"T1190"}, Subject: "service, address", Over: "window",
		Method: "Policy", Doc: "an address that a service lists came to a host of ours",
	}, {
		Type: To, Level: evidence.Low, Tactic: evidence.CommandAndControl, MITRE: []string{"T1071"}, Subject: "service, address", Over: "window",
		Method: "Policy", Doc: "a host had to do with an address that a service calls bad",
	}, {
		Type: Domain, Level: evidence.Low, Tactic: evidence.CommandAndControl, MITRE: []string{"T1071"}, Subject: "service, name", Over: "window",
		Method: "Policy", Doc: "a host had to do with a name that a service calls bad",
	}, {
		Type: MaliciousJARM, Level: evidence.Medium, Tactic: evidence.CommandAndControl, MITRE: []string{"T1071.001", "T1573"}, Subject: "server", Over: "window",
		Method: "Policy", Doc: "a TLS server answers like those that feeds list as commanding malware",
	}},
}, Config{MinEngines: 3, MaxQuestions: 500, MaxPerWindow: 20}, New)

const (
	// maxAsked bounds what is remembered as asked, for all hosts, and maxTold
	// what is remembered as reported. What is forgotten is asked again, and the
	// cache of the service answers.
	maxAsked = 1 << 15
	maxTold  = 1 << 13
	// maxCounts bounds the sorts of questions and the hosts that are counted in
	// their windows.
	maxCounts = 1 << 12
	// maxText bounds the words of others in a description, bytes.
	maxText = 200
	// maxURL bounds a URL that is asked about, bytes. Lists have none longer.
	maxURL = 2048
)

// State is what the module remembers of the network.
type State struct {
	Asked     modules.RecentTable[uint32] // half of a hash of what was asked, by the other half
	Questions modules.Recent[Sort, int]
	Told      modules.Recent[uint64, bool]
	Reports   modules.Recent[Host, int]
}

// Sort is a sort of question in a window.
type Sort struct {
	Why    modules.Why
	Window int64 // start
}

// Host is a host, a window and a type of evidence.
type Host struct {
	Addr   netip.Addr
	Window int64 // start
	Type   evidence.Type
}

type rule struct{ engines, asks, reports int }

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	switch {
	case c.MinEngines < 1 || c.MinEngines > 100:
		return nil, fmt.Errorf("min_engines: %d is not between 1 and 100", c.MinEngines)
	case c.MaxQuestions < 0 || c.MaxQuestions > 100_000:
		return nil, fmt.Errorf("max_questions: %d is not between 0 and 100000", c.MaxQuestions)
	case c.MaxPerWindow < 1 || c.MaxPerWindow > 1000:
		return nil, fmt.Errorf("max_per_window: %d is not between 1 and 1000", c.MaxPerWindow)
	}
	return rule{c.MinEngines, c.MaxQuestions, c.MaxPerWindow}, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	switch f.Kind {
	case flow.Conn:
		// The source of a datagram may be anybody's.
		return f.State == flow.Established && f.Proto == flow.TCP && (f.RespBytes > 0 || f.RespPkts > 0) && profile.IsPublic(f.Src)
	case flow.SSL:
		return f.SSL.Established != flow.False && (f.SSL.ServerName == "" || selfSigned(f.SSL)) && f.DstPort != 0 && profile.IsPublic(f.Dst)
	case flow.HTTP:
		return download(f.HTTP)
	case flow.Files:
		k, _ := hash(f.Files)
		return k != intel.NoKind && runs(f.Files)
	case flow.Lookup:
		return f.Lookup.Found == flow.True && f.Src.IsValid()
	default: // no other kind is delivered
	}
	return false
}

// Handle implements modules.Rule. An answer bears all that a report needs, so
// nothing waits for one.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if f.Kind == flow.Lookup {
		r.answer(cx, st, f)
		return
	}
	if !cx.Asks() {
		return
	}
	switch f.Kind {
	case flow.Conn:
		r.caller(cx, st, f)
	case flow.SSL:
		r.server(cx, st, f)
	case flow.HTTP:
		r.url(cx, st, f)
	case flow.Files:
		r.file(cx, st, f)
	default: // no other kind is delivered
	}
}

// ask puts a question once for each key, which tells apart what is asked about.
// It clones the strings.
func (r rule) ask(cx *modules.Context, st *State, key uint64, q modules.Question) {
	mark := uint32(key>>32) | 1
	if m := st.Asked.Get(uint32(key)); m != nil && *m == mark {
		return
	}
	s := Sort{q.Why, cx.Window().Start}
	n, _ := st.Questions.Get(s)
	if n >= r.asks {
		return // it may have its turn in the next window
	}
	st.Questions.Put(s, n+1, maxCounts)
	*st.Asked.Put(uint32(key), maxAsked) = mark
	q.Subject, q.UID = strings.Clone(q.Subject), strings.Clone(q.UID)
	cx.Ask(q)
}

// caller asks about somebody outside who was answered by a host of ours. Those
// who find nobody are the noise of the Internet.
func (r rule) caller(cx *modules.Context, st *State, f *flow.Flow) {
	n := cx.Network()
	if n.IsOurs(f.Src) || !n.IsOurs(f.Dst) || cx.Intel().Address(f.Src).OK() {
		return
	}
	key := flow.HashMix(flow.HashAddr(f.Src), uint64(cx.Window().Start))
	r.ask(cx, st, flow.Hash(key, string(modules.Inbound)), modules.Question{
		Why: modules.Inbound, Of: intel.Address, Subject: f.Src.Unmap().String(), Src: f.Src, Dst: f.Dst, DstPort: f.DstPort, UID: f.UID,
	})
}

// server asks for the fingerprint of a TLS server that has no name, or whose
// certificate nobody vouches for. The question leads to connections to the
// server, so it is put only where there is a list to compare with.
func (r rule) server(cx *modules.Context, st *State, f *flow.Flow) {
	if !cx.Intel().Has(intel.JARM) || cx.Network().IsOurs(f.Dst) {
		return
	}
	key := flow.HashMix(flow.HashAddr(f.Dst), uint64(f.DstPort))
	r.ask(cx, st, flow.Hash(key, string(modules.Suspect)), modules.Question{
		Why: modules.Suspect, Of: intel.Address, Subject: f.Dst.Unmap().String(), Src: f.Src, Dst: f.Dst, DstPort: f.DstPort, UID: f.UID,
	})
}

// url asks about a download from a server without a name, or with one that few
// know.
func (r rule) url(cx *modules.Context, st *State, f *flow.Flow) {
	n := cx.Network()
	if !f.Src.IsValid() || !n.IsOurs(f.Src) && n.IsOurs(f.Dst) {
		return
	}
	u, host, ok := location(f)
	if !ok || cx.Intel().Rank(host) > 0 || cx.Intel().URL(f.HTTP.Host, f.DstPort, f.HTTP.URI).OK() {
		return
	}
	r.ask(cx, st, flow.Hash(flow.HashAddr(f.Src), u), modules.Question{
		Why: modules.Request, Of: intel.URL, Subject: u, Src: f.Src, Dst: f.Dst, DstPort: f.DstPort, UID: f.UID,
	})
}

// file asks about a file for the host that received it, or for the one that
// sent it when the receiver is outside.
func (r rule) file(cx *modules.Context, st *State, f *flow.Flow) {
	kind, text := hash(f.Files)
	host, peer, port := f.Dst, f.Src, f.SrcPort
	if n := cx.Network(); !host.IsValid() || !n.IsOurs(host) && f.Src.IsValid() && n.IsOurs(f.Src) {
		host, peer, port = f.Src, f.Dst, f.DstPort
	}
	if !host.IsValid() || cx.Intel().Text(kind, text).OK() {
		return // nobody to ask for; or a feed knows it already, be it as good
	}
	uid := f.UID
	if uid == "" && len(f.Files.ConnUIDs) > 0 {
		uid = f.Files.ConnUIDs[0]
	}
	text = strings.ToLower(text)
	r.ask(cx, st, flow.Hash(flow.HashAddr(host), text), modules.Question{
		Why: modules.File, Of: kind, Subject: text, Src: host, Dst: peer, DstPort: port, UID: uid,
	})
}

// answer reports what a service says, for the host whose traffic gave rise to
// the question.
func (r rule) answer(cx *modules.Context, st *State, f *flow.Flow) {
	l := f.Lookup
	what := modules.Clip(l.Subject, maxText)
	e := evidence.Evidence{
		Profile: f.Src, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), DstPort: f.DstPort, Count: 1, Step: 1,
		Subject: l.Service + " " + l.Subject,
	}
	if f.Dst.IsValid() {
		e.Victim = evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort)
	}
	var o opinion
	kind := intel.ParseKind(l.Of)
	switch kind {
	case intel.MD5, intel.SHA1, intel.SHA256:
		if cx.Intel().Text(kind, l.Subject).Harmless() {
			return
		}
		o = r.ofFile(l)
		e.Type = MaliciousFile
		with := ""
		if f.Dst.IsValid() {
			with = " with " + f.Dst.String()
		}
		e.Description = fmt.Sprintf("%s exchanged a file%s that %s (%s %s).", f.Src, with, o.says, l.Of, what)
	case intel.URL:
		o = r.ofURL(l)
		e.Type = MaliciousURL
		e.Victim = evidence.Entity{Kind: evidence.URL, Value: what, Direction: evidence.Dst}
		e.Description = fmt.Sprintf("%s fetched %q, which %s.", f.Src, "http://"+what, o.says)
	case intel.Domain:
		o = r.ofDomain(l, cx.Intel().Rank(l.Subject) > 0)
		e.Type = Domain
		e.Victim = evidence.Entity{Kind: evidence.Domain, Value: what, Direction: evidence.Dst}
		e.Description = fmt.Sprintf("%s had to do with %q, which %s.", f.Src, what, o.says)
	case intel.Address:
		a, err := netip.ParseAddr(l.Subject)
		if err != nil {
			return
		}
		if l.Service == "jarm" {
			o = ofServer(cx.Intel(), l.JARM)
			e.Type, e.Subject = MaliciousJARM, modules.Where(a, f.DstPort)
			e.Victim = evidence.IPEntity(a, evidence.Dst, f.DstPort)
			e.Description = fmt.Sprintf("%s connected to the TLS server %s, which %s.", f.Src, modules.Where(a, f.DstPort), o.says)
			break
		}
		if a == f.Src.Unmap() {
			o = ofCaller(l)
			e.Type = From
			to := "hosts of ours"
			if f.Dst.IsValid() {
				to = f.Dst.String()
			}
			e.Description = fmt.Sprintf("%s, which %s, came to %s.", a, o.says, to)
			break
		}
		o = r.ofPeer(l)
		e.Type = To
		e.Victim = evidence.IPEntity(a, evidence.Dst, 0)
		e.Description = fmt.Sprintf("%s had to do with %s, which %s.", f.Src, a, o.says)
	default: // nothing is asked about the others
	}
	if o.says == "" || e.Type == "" || !r.first(cx, st, f, &e) {
		return
	}
	e.Level, e.Confidence = o.level, o.confidence
	e.Subject, e.UIDs = strings.Clone(e.Subject), modules.UID(f.UID)
	e.Victim.Value = strings.Clone(e.Victim.Value)
	cx.Emit(e)
}

// first reports whether evidence is the first of its subject in its window, and
// one that the host has room for, and notes it.
func (r rule) first(cx *modules.Context, st *State, f *flow.Flow, e *evidence.Evidence) bool {
	w := cx.Window().Start
	k := flow.Hash(flow.Hash(flow.HashMix(flow.HashAddr(f.Src), uint64(w)), string(e.Type)), e.Subject)
	if _, ok := st.Told.Get(k); ok {
		return false
	}
	h := Host{f.Src, w, e.Type}
	n, _ := st.Reports.Get(h)
	if n >= r.reports {
		return false
	}
	st.Told.Put(k, true, maxTold)
	st.Reports.Put(h, n+1, maxCounts)
	return true
}

// opinion is what a service thinks. says is empty when that is nothing bad.
type opinion struct {
	says       string
	level      evidence.Level
	confidence float64
}

// many is how many of VirusTotal's engines, of about 70 for files and 90 for
// the rest, leave little doubt. A few are wrong about anything at times.
const many = 10

// votes is VirusTotal's opinion, with one level for some engines and another
// for many.
func (r rule) votes(l *flow.LookupPart, some, sure opinion) opinion {
	o := some
	switch {
	case l.Malicious < r.engines:
		return opinion{}
	case l.Malicious >= max(many, r.engines):
		o = sure
	}
	of := ""
	if l.Total > 0 {
		of = fmt.Sprintf(" of %d", l.Total)
	}
	o.says = fmt.Sprintf("%d%s engines at VirusTotal call bad%s", l.Malicious, of, quoted(l.Verdict))
	return o
}

// quoted returns the words of a service for a description.
func quoted(s string) string {
	if s == "" {
		return ""
	}
	return fmt.Sprintf(" (%q)", modules.Clip(s, maxText))
}

func (r rule) ofFile(l *flow.LookupPart) opinion {
	switch l.Service {
	case "hashlookup":
		if l.Malicious == 0 {
			return opinion{} // most that it knows is good
		}
		o := opinion{"hashlookup knows as malicious", evidence.LevelOf(l.Score), 0.5}
		if len(l.Lists) > 0 {
			o.says += " from " + lists(l)
		}
		switch n := len(l.Lists); {
		case n > 2:
			o.confidence = 1
		case n == 2:
			o.confidence = 0.7
		}
		// It trusts nothing that it was not told about, so no trust is no proof.
		o.level = min(max(o.level, evidence.Low), evidence.High)
		return o
	case "urlhaus":
		return opinion{"URLhaus found at addresses that spread malware" + quoted(l.Verdict), scanned(l, evidence.High), 0.7}
	case "virustotal":
		return r.votes(l, opinion{"", evidence.Medium, 0.6}, opinion{"", evidence.High, 0.8})
	}
	return opinion{}
}

func (r rule) ofURL(l *flow.LookupPart) opinion {
	switch l.Service {
	case "urlhaus":
		return opinion{"URLhaus lists for malware" + quoted(l.Verdict), scanned(l, evidence.Medium), 0.7}
	case "virustotal":
		return r.votes(l, opinion{"", evidence.Medium, 0.5}, opinion{"", evidence.Medium, 0.8})
	}
	return opinion{}
}

// scanned is the level of something that URLhaus lists: by the share of engines
// that found malware in it, otherwise as given. All that it lists was looked at
// by a person or a sandbox, so it is at least medium.
func scanned(l *flow.LookupPart, otherwise evidence.Level) evidence.Level {
	if l.Total == 0 && l.Score == 0 {
		return otherwise
	}
	return min(max(evidence.LevelOf(l.Score), evidence.Medium), evidence.High)
}

func (r rule) ofDomain(l *flow.LookupPart, popular bool) opinion {
	var o opinion
	switch l.Service {
	case "urlhaus":
		o = opinion{"URLhaus lists as a host of malware" + quoted(l.Verdict), evidence.Medium, 0.5}
	case "virustotal":
		o = r.votes(l, opinion{"", evidence.Low, 0.6}, opinion{"", evidence.Medium, 0.6})
	}
	if popular { // what lies there is everybody's, and everybody goes there
		o.level, o.confidence = min(o.level, evidence.Low), min(o.confidence, 0.2)
	}
	return o
}

// ofPeer is about an address that a host of ours goes to. Those that report
// scanners and spammers know little about what is served there.
func (r rule) ofPeer(l *flow.LookupPart) opinion {
	switch l.Service {
	case "urlhaus":
		return opinion{"URLhaus lists as a host of malware" + quoted(l.Verdict), evidence.Low, 0.6} // and of the other sites there
	case "virustotal":
		return r.votes(l, opinion{"", evidence.Low, 0.5}, opinion{"", evidence.Medium, 0.5})
	case "abuseipdb":
		return abused(l, opinion{"", evidence.Low, 0.2}, opinion{"", evidence.Low, 0.4})
	case "greynoise":
		return noisy(l, 0.2)
	case "dnsbl":
		if slices.Contains(l.Lists, "SBL") || slices.Contains(l.Lists, "DROP") {
			return opinion{"Spamhaus lists in " + lists(l), evidence.Low, 0.4}
		}
	}
	return opinion{}
}

// ofCaller is about an address that came to a host of ours. Spamhaus was asked
// about it because it was answered; the others may be because it scanned, as
// those that they list do all day.
func ofCaller(l *flow.LookupPart) opinion {
	switch l.Service {
	case "dnsbl":
		o := opinion{"Spamhaus lists in " + lists(l), evidence.Info, 0.3} // PBL: homes, that should not send mail
		switch {
		case slices.Contains(l.Lists, "SBL") || slices.Contains(l.Lists, "DROP"):
			o.level, o.confidence = evidence.Medium, 0.6
		case slices.Contains(l.Lists, "XBL") || slices.Contains(l.Lists, "CSS"):
			o.level, o.confidence = evidence.Low, 0.6
		}
		return o
	case "abuseipdb":
		return abused(l, opinion{"", evidence.Low, 0.3}, opinion{"", evidence.Low, 0.6})
	case "greynoise":
		return noisy(l, 0.3)
	}
	return opinion{} // VirusTotal's engines judge what an address serves, not whom it calls
}

func lists(l *flow.LookupPart) string { return modules.Clip(strings.Join(l.Lists, ", "), maxText) }

// abused is AbuseIPDB's opinion: 50 % is where it calls an address suspicious,
// 90 % where others block it.
func abused(l *flow.LookupPart, some, sure opinion) opinion {
	o := some
	switch {
	case l.Score < 0.5 || slices.Contains(l.Tags, "whitelisted"):
		return opinion{}
	case l.Score >= 0.9:
		o = sure
	}
	o.says = fmt.Sprintf("AbuseIPDB calls abusive with %.0f %% confidence%s", 100*l.Score, quoted(l.Verdict))
	return o
}

// noisy is GreyNoise's opinion: it sees who scans everybody.
func noisy(l *flow.LookupPart, confidence float64) opinion {
	if l.Malicious == 0 || slices.Contains(l.Tags, "riot") {
		return opinion{}
	}
	return opinion{"GreyNoise knows as a malicious scanner", evidence.Low, confidence}
}

// ofServer compares the fingerprint of a server with those in feeds. It is that
// of the software, which others use too.
func ofServer(v *intel.View, jarm string) opinion {
	m := v.Text(intel.JARM, jarm)
	if !m.OK() {
		return opinion{}
	}
	level, says := evidence.Info, []string(nil)
	for i := range m.Len() {
		x := m.At(i)
		level = max(level, evidence.Level(x.Level))
		says = append(says, strings.TrimSuffix(x.Feed.Name+": "+x.Description, ": "))
	}
	return opinion{
		fmt.Sprintf("has the fingerprint %s that feeds list (%s)", strings.ToLower(jarm), modules.Clip(strings.Join(says, "; "), maxText)),
		min(level, evidence.Medium), 0.7,
	}
}

// hash returns the hash by which a file is asked about: MD5 first, the one that
// all services and old lists know.
func hash(f *flow.FilesPart) (intel.Kind, string) {
	switch {
	case len(f.MD5) == 32:
		return intel.MD5, f.MD5
	case len(f.SHA256) == 64:
		return intel.SHA256, f.SHA256
	case len(f.SHA1) == 40:
		return intel.SHA1, f.SHA1
	}
	return intel.NoKind, ""
}

func selfSigned(s *flow.SSLPart) bool {
	return strings.Contains(s.Validation, "self signed") || strings.Contains(s.Validation, "self-signed") || flow.SelfIssued(s.Subject, s.Issuer)
}

// location returns the URL of a request in intel's canonical form, and its
// host. It says no to hosts that are not on the Internet.
func location(f *flow.Flow) (url, host string, ok bool) {
	h := f.HTTP
	host, uri := h.Host, h.URI
	port := f.DstPort
	if i := strings.Index(uri, "://"); i > 0 && i <= len("https") { // to a proxy
		host, uri, port = uri[i+len("://"):], "", 0
		if j := strings.IndexAny(host, "/?#"); j >= 0 {
			host, uri = host[:j], host[j:]
		}
		host = host[strings.LastIndexByte(host, '@')+1:]
	} else if !profile.IsPublic(f.Dst) {
		return "", "", false
	}
	if host == "" {
		host = f.Dst.Unmap().String()
	}
	host, digits := split(host)
	switch {
	case digits == "" && port != 0:
		digits = fmt.Sprint(port)
	case strings.Trim(digits, "0123456789") != "" || len(digits) > 5:
		return "", "", false
	}
	if digits == "80" || digits == "443" {
		digits = ""
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		a = a.Unmap()
		if host = a.String(); a.Is6() {
			host = "[" + host + "]"
		}
		ok = profile.IsPublic(a) && a.Zone() == ""
	} else {
		ok = strings.IndexByte(host, '.') > 0 && intel.CheckName(host) == nil
	}
	if !ok {
		return "", "", false
	}
	uri, _, _ = strings.Cut(uri, "#")
	if uri == "" || uri[0] == '?' {
		uri = "/" + uri
	}
	if uri[0] != '/' || strings.ContainsFunc(uri, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return "", "", false
	}
	url = host
	if digits != "" {
		url += ":" + digits
	}
	url += uri
	return url, host, len(url) <= maxURL
}

// split splits host:port. An IPv6 address has brackets when there is a port.
func split(s string) (host, port string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.IndexByte(s[i:], ']') >= 0 || s[0] != '[' && strings.IndexByte(s, ':') != i {
		return s, ""
	}
	return s[:i], s[i+1:]
}
