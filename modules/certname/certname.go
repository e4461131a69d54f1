// Package certname reports servers whose certificate is for another name than
// the one asked for, or claims to be of a big organisation without anyone
// vouching for it.
package certname

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/feeds/suffix"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
)

// The evidence this module emits.
const (
	IncompatibleCN evidence.Type = "INCOMPATIBLE_CN"
	Mismatch       evidence.Type = "CN_URL_MISMATCH"
)

// Config holds the settings.
type Config struct {
	// MaxPerWindow bounds the servers of each type and level reported for one host in a window, 1 to 1000.
	MaxPerWindow int `yaml:"max_per_window"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name: "certname",
	Doc:  "certificates for another name, or with a name that is not theirs",
	// A certificate in x509.log belongs to no host: only the fingerprint in
	// ssl.log leads to the two ends.
	Scope: modules.Network,
	Kinds: flow.Of(flow.SSL, flow.X509, flow.Lookup),
	Needs: flow.Of(flow.SSL),
	Emits: []evidence.Spec{
		{
			Type: IncompatibleCN, Level: evidence.Medium, Tactic: evidence.DefenseEvasion, MITRE: []string{"T1036"}, Subject: "organisation, server", Over: "flow",
			Doc: "a certificate claims to be of a big organisation, and no known authority vouches for it",
		},
		{
			Type: Mismatch, Level: evidence.Low, Tactic: evidence.CommandAndControl, MITRE: []string{"T1001.003"}, Subject: "name, server", Over: "flow",
			Doc: "a server showed a certificate for another name than the one the client asked for",
		},
	},
}, Config{MaxPerWindow: 10}, New)

const (
	// wait is how long the certificate of a handshake may take to be logged.
	wait = 15 * time.Second
	// patience is how long a handshake waits whose certificate is not there by
	// then: x509.log may turn up late as a whole. Only then does what the
	// handshake says by itself decide.
	patience = 5 * time.Minute
	// maxCerts bounds the certificates remembered; Zeek logs each once a day.
	maxCerts = 4096
	// maxNames bounds the names kept of one certificate. One with more is
	// taken to be for any name: only hosting platforms have such.
	maxNames = 64
	// maxPending bounds the handshakes that wait for their certificate: a
	// server is asked for a name once in a window, so few do.
	maxPending = 2048
	// maxLate bounds those that go on waiting. One too many makes the oldest be
	// judged at once.
	maxLate = 1024
	// maxSeen bounds the servers remembered as judged, maxTold those as reported.
	maxSeen = 1 << 14
	maxTold = 1 << 13
	// maxText bounds a name out of a certificate and one in a description, in bytes.
	maxText = 100
	// maxName bounds a name that was asked for, in bytes; no name in the DNS is longer.
	maxName = 253
	// tick is the time between two looks at what is due.
	tick = 5 * int64(time.Second)
	// sweep is the key of the timer that ends the patience.
	sweep = math.MaxUint64
)

// State is what the module remembers of the network.
type State struct {
	Certs   modules.Recent[uint64, Cert] // by hash of the fingerprint or file id
	Queue   Queue
	Tick    int64                          // of the last timer that is set
	Sweep   int64                          // time of the last sweep that is set, unix ns
	Seen    modules.RecentTable[bool]      // by hash: client, server, name, certificate and window that were judged
	Told    modules.Recent[uint64, bool]   // what was reported
	Hosts   modules.Recent[Host, int]      // reports
	Dropped uint64                         // handshakes not judged because Queue was full
	Owners  modules.Recent[uint64, string] // registrants, by hash of the domain
	Rivals  []Rival                        // reported mismatches whose owners are not both known, the oldest first
}

// Queue holds the handshakes that wait for their certificate, in the order in
// which they came: those whose certificate was not there in time, or that are
// done, and behind them those whose certificate may yet come in time.
type Queue struct {
	Slots           []Handshake // a power of two of them; number n is at n modulo their count
	Head, Mid, Tail uint64      // numbers: the first, the first that is in time, one behind the last
}

func (q *Queue) at(n uint64) *Handshake { return &q.Slots[n&uint64(len(q.Slots)-1)] }

func (q *Queue) push(h *Handshake) {
	if n := len(q.Slots); q.Tail-q.Head == uint64(n) {
		old := *q
		q.Slots = make([]Handshake, max(16, 2*n))
		for i := q.Head; i != q.Tail; i++ {
			*q.at(i) = *old.at(i)
		}
	}
	*q.at(q.Tail) = *h
	q.Tail++
}

// late returns how many handshakes there are before Mid.
func (q *Queue) late() uint64 { return q.Mid - q.Head }

// inTime returns how many there are from Mid on.
func (q *Queue) inTime() uint64 { return q.Tail - q.Mid }

// Cert is what matters of a certificate.
type Cert struct {
	At      int64    // stream time of its log when it was first logged, unix ns
	Domains []uint32 // hashes of the last two and the last three labels of each of its names, each once
	Many    bool     // it has more names than are kept
	Partial bool     // only its common name is known, and there may be others
	Name    string   // its common name
	Issuer  string   // who signed it
	Trusted bool     // by a known authority
	Self    bool     // by itself
	Brand   int      // the organisation it claims, as index into brands plus 1; 0: none
}

// Host is a host in a window. Its reports of each level are counted apart, so
// that many of no weight do not hide one that has some.
type Host struct {
	Addr   netip.Addr
	Type   evidence.Type
	Level  evidence.Level
	Window int64 // start
}

// Handshake is one that waits for its certificate.
type Handshake struct {
	Src, Dst netip.Addr
	Port     uint16
	Proto    flow.Proto
	Time     int64
	Due      int64  // stream time of x509.log until which the certificate may have been logged
	Near     bool   // the server is of the own network
	UID, SNI string // of the SNI no more than a little over maxName
	FP       uint64 // hash of the fingerprint or file id; 0: none
	Done     bool   // it has been judged
	Own      *Cert  // what the record itself says; nil: nothing
	OK       bool   // the sensor checked the chain and found it good
	Matches  flow.Tri
}

type rule struct {
	max int
	log *slog.Logger
}

var (
	_ modules.Rule[State]       = rule{}
	_ modules.TimerFirer[State] = rule{}
	_ modules.Chooser           = rule{}
)

// New checks the config and returns the rule.
func New(c Config, env modules.Env) (modules.Rule[State], error) {
	if c.MaxPerWindow < 1 || c.MaxPerWindow > 1000 {
		return nil, fmt.Errorf("max_per_window: %d is not between 1 and 1000", c.MaxPerWindow)
	}
	return rule{max: c.MaxPerWindow, log: env.Log}, nil
}

// Wants implements modules.Chooser: most handshakes are resumed or of TLS 1.3
// and show no certificate, or show one that the sensor found good. Of those
// where it only compared the name, all are left out but those for the name of
// a big organisation, which a certificate may fit and yet be made up.
func (rule) Wants(f *flow.Flow) bool {
	switch f.Kind {
	case flow.X509:
		return f.X509.HostCert != flow.False
	case flow.Lookup:
		return names(f.Lookup)
	default: // flow.SSL
	}
	s := f.SSL
	if len(s.CertFPs) == 0 && s.Subject == "" {
		return false
	}
	return s.SNIMatchesCert != flow.True || s.Validation != "ok" && (s.Subject != "" || claims(s.ServerName, "") != 0)
}

// Handle implements modules.Rule. What there is to report is reported from
// Fire, in the order of ssl.log, whichever log is ahead.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	switch f.Kind {
	case flow.X509:
		st.learn(cx.Now(), f)
	case flow.Lookup:
		st.owned(cx, f.Lookup)
	default: // flow.SSL
		r.handshake(cx, st, f)
	}
}

// learn remembers a certificate.
func (st *State) learn(now int64, f *flow.Flow) {
	x := f.X509
	fp := x.Fingerprint
	if fp == "" {
		fp = x.ID
	}
	if fp == "" || x.Subject == "" {
		return
	}
	k := fingerprint(fp)
	c, known := st.Certs.Get(k)
	if !known {
		c = judged(x.Subject, x.Issuer)
		c.At = now
		for _, n := range x.SANDNS {
			c.add(n)
		}
		// The common name counts only where there are no others (RFC 6125).
		// Both are taken, since browsers of the time of a capture may have.
		c.add(flow.Attribute(x.Subject, "CN"))
	}
	st.Certs.Put(k, c, maxCerts)
}

// judged returns a certificate without its names.
func judged(subject, issuer string) Cert {
	cn, org := flow.Attribute(subject, "CN"), flow.Attribute(subject, "O")
	c := Cert{Self: flow.SelfIssued(subject, issuer), Brand: claims(cn, org)}
	// Where the log does not name the issuer there is nobody to distrust.
	c.Trusted = !c.Self && (issuer == "" || authority(flow.Attribute(issuer, "O"), flow.Attribute(issuer, "CN")))
	c.Name = strings.Clone(modules.Clip(flow.CommonName(subject), maxText))
	if !c.Trusted {
		c.Issuer = strings.Clone(modules.Clip(issuer, maxText))
	}
	return c
}

// add notes the ends of a name, of which one is its registered domain.
func (c *Cert) add(name string) {
	name = strings.TrimSuffix(name, ".")
	dots, end := 0, len(name)
	for i := end - 1; i >= -1; i-- {
		if i >= 0 && name[i] != '.' {
			continue
		}
		if dots++; dots == 2 || dots == 3 {
			c.put(modules.HashLower(name[i+1 : end]))
		}
		if dots == 3 {
			return
		}
	}
	if dots == 1 && name != "" { // a single label, as of a box on a local network
		c.put(modules.HashLower(name))
	}
}

func (c *Cert) put(h uint32) {
	if c.has(h) {
		return
	}
	if len(c.Domains) >= 2*maxNames {
		c.Many = true
		return
	}
	c.Domains = append(c.Domains, h)
}

func (c *Cert) has(h uint32) bool {
	return slices.Contains(c.Domains, h)
}

// covers reports whether one of the names of the certificate is of the same
// registered domain as name.
func (c *Cert) covers(name string) bool {
	return c.Many || c.has(modules.HashLower(registered(name)))
}

func (r rule) handshake(cx *modules.Context, st *State, f *flow.Flow) {
	s := f.SSL
	if !f.Src.IsValid() || !f.Dst.IsValid() || (!cx.Network().IsOurs(f.Src) && cx.Network().IsOurs(f.Dst)) {
		return
	}
	fp := uint64(0)
	if len(s.CertFPs) > 0 {
		fp = fingerprint(s.CertFPs[0])
	}
	// One handshake of a kind stands for its window, also when there is nothing
	// to say about it: else the next would count in one order of logs only.
	kind := flow.HashMix(flow.HashMix(flow.HashAddr(f.Src), flow.HashAddr(f.Dst)), uint64(f.DstPort)^uint64(cx.Window().Start))
	if kind = flow.Hash(kind, s.ServerName); fp != 0 && len(s.CertFPs[0]) >= 32 { // file ids are of a connection, not of a certificate
		kind = flow.HashMix(kind, fp)
	}
	k := uint32(kind >> 32)
	if st.Seen.Get(k) != nil {
		return
	}
	h := Handshake{
		Src: f.Src, Dst: f.Dst, Port: f.DstPort, Proto: f.Proto, Time: f.Time, Due: cx.Now() + int64(wait), Near: cx.Network().IsOurs(f.Dst),
		SNI: modules.Clip(strings.TrimSuffix(s.ServerName, "."), maxName), FP: fp, OK: s.Validation == "ok", Matches: s.SNIMatchesCert,
	}
	if c, ok := st.cert(&h); ok && h.fits(&c) {
		*st.Seen.Put(k, maxSeen) = true
		return
	}
	q := &st.Queue
	if q.inTime() >= maxPending {
		if st.Dropped++; st.Dropped&(st.Dropped-1) == 0 {
			r.log.Debug("too many handshakes wait for their certificate", "not_judged", st.Dropped)
		}
		return
	}
	*st.Seen.Put(k, maxSeen) = true
	h.UID, h.SNI = both(f.UID, h.SNI)
	if s.Subject != "" {
		own := judged(s.Subject, s.Issuer)
		own.Partial = true
		own.add(flow.Attribute(s.Subject, "CN"))
		h.Own = &own
	}
	q.push(&h)
	// One timer for all handshakes of some seconds is enough, and one sweep a
	// minute.
	if due := h.Due/tick + 1; due > st.Tick {
		st.Tick = due
		cx.After(time.Duration(due*tick-cx.Now()), uint64(due))
	}
	if until := cx.Now() + int64(patience); h.FP != 0 && until > st.Sweep {
		st.Sweep = until + int64(time.Minute)
		cx.After(patience+time.Minute, sweep)
	}
}

// both returns copies of two strings, at the cost of one.
func both(a, b string) (x, y string) {
	if a == "" || b == "" {
		return strings.Clone(a), strings.Clone(b) // a sum of these would be no copy
	}
	ab := a + b
	return ab[:len(a)], ab[len(a):]
}

// cert returns the certificate of a handshake, if it has come. One that was
// logged too late does not count even when it is there: whether it is depends
// on which log is ahead.
func (st *State) cert(h *Handshake) (Cert, bool) {
	c, ok := st.Certs.Get(h.FP)
	return c, ok && h.FP != 0 && c.At <= h.Due
}

// fits reports whether there is nothing to say about a handshake with the certificate.
func (h *Handshake) fits(c *Cert) bool {
	return (c.Brand == 0 || c.Trusted || h.OK) && (!asks(h.SNI) || h.Matches == flow.True || c.covers(h.SNI))
}

// fingerprint returns the hash of a fingerprint, of which half is more than
// enough, or of a file id. It is never 0.
func fingerprint(s string) uint64 {
	return max(flow.Hash(flow.HashSeed, s[max(len(s)-32, 0):]), 1)
}

// asks reports whether a client asked for a name that a certificate can bear:
// not for an address, and not for a single label.
func asks(sni string) bool {
	dot := strings.LastIndexByte(sni, '.')
	return dot > 0 && len(sni) <= maxName && !strings.Contains(sni, ":") && (dot+1 == len(sni) || sni[dot+1] > '9')
}

// Fire implements modules.TimerFirer.
func (r rule) Fire(cx *modules.Context, st *State, key uint64) {
	q := &st.Queue
	for ; q.Mid < q.Tail && q.at(q.Mid).Due <= cx.Now(); q.Mid++ {
		h := q.at(q.Mid)
		if _, ok := st.cert(h); ok || h.FP == 0 {
			r.judge(cx, st, h)
			*h = Handshake{Due: h.Due, Done: true}
		}
	}
	for ; q.Head < q.Mid; q.Head++ {
		h := q.at(q.Head)
		if !h.Done {
			if over := key == sweep && h.Due-int64(wait)+int64(patience) <= cx.Now(); !over && q.late() <= maxLate {
				return
			}
			r.judge(cx, st, h)
		}
		*h = Handshake{}
	}
}

// judge reports what there is to report about a handshake. The certificate
// takes the place of what the handshake says by itself.
func (r rule) judge(cx *modules.Context, st *State, h *Handshake) {
	c, ok := st.cert(h)
	if !ok {
		if h.Own == nil {
			return
		}
		c = *h.Own
	}
	if c.Name == "" {
		return
	}
	if h.OK {
		c.Trusted = true
	}
	r.brand(cx, st, h, &c)
	r.mismatch(cx, st, h, &c)
}

// brand reports a certificate that claims an organisation without anyone's word.
func (r rule) brand(cx *modules.Context, st *State, h *Handshake, c *Cert) {
	if c.Brand == 0 || c.Trusted {
		return
	}
	b := brands[c.Brand-1]
	level, confidence := evidence.Medium, 0.8
	switch {
	case h.Near:
		level, confidence = evidence.Info, 0.3
	case !c.Self && h.SNI != "" && brandOf(h.SNI) == c.Brand:
		// A proxy that looks into TLS signs what is asked for with its own key.
		level, confidence = evidence.Low, 0.3
	}
	by := "signed by itself"
	if !c.Self {
		by = fmt.Sprintf("signed by %q, which is no known authority", c.Issuer)
	}
	asked := "without asking for a name"
	if h.SNI != "" {
		asked = fmt.Sprintf("asking for %q", modules.Clip(h.SNI, maxText))
	}
	r.report(cx, st, h, IncompatibleCN, level, confidence, b.name,
		fmt.Sprintf("%s connected to %s %s; the certificate there claims to be of %s (%q) and is %s.",
			h.Src, modules.Where(h.Dst, h.Port), asked, b.name, c.Name, by))
}

// mismatch reports a certificate for another name.
func (r rule) mismatch(cx *modules.Context, st *State, h *Handshake, c *Cert) {
	if !asks(h.SNI) || h.Matches == flow.True || c.covers(h.SNI) {
		return
	}
	// What a known authority signed for one name is mostly good for others too.
	if c.Partial && c.Trusted && h.Matches != flow.False {
		return
	}
	level, confidence := evidence.Low, 0.5
	spoofed := brandOf(h.SNI)
	switch {
	case h.Near || flow.IsMail(h.Port):
		// Mail servers answer for all their customers with one certificate.
		level, confidence = evidence.Info, 0.3
	case c.Partial:
		confidence = 0.3
	case spoofed != 0 && spoofed != c.Brand:
		// Whoever asks for a big organisation and is content with something
		// else only wants to look as if.
		if level, confidence = evidence.Medium, 0.4; !c.Trusted {
			confidence = 0.6
		}
	case c.Trusted:
		confidence = 0.2 // the default of a hosting platform
	}
	if r.report(cx, st, h, Mismatch, level, confidence, strings.ToLower(h.SNI),
		fmt.Sprintf("%s asked %s for %q and was shown a certificate for %q.", h.Src, modules.Where(h.Dst, h.Port), modules.Clip(h.SNI, maxText), c.Name)) &&
		level != evidence.Info {
		st.compare(cx, h, c)
	}
}

// report tells of a server once in a window. It returns whether it did now.
func (r rule) report(cx *modules.Context, st *State, h *Handshake, t evidence.Type, level evidence.Level, confidence float64, what, text string) bool {
	w := cx.WindowAt(h.Time).Start
	k := flow.HashMix(flow.HashMix(flow.HashAddr(h.Src), flow.HashAddr(h.Dst)), uint64(h.Port)^uint64(w))
	k = flow.Hash(flow.Hash(k, string(t)), what)
	if _, ok := st.Told.Get(k); ok {
		return false
	}
	host := Host{h.Src, t, level, w}
	n, _ := st.Hosts.Get(host)
	if n >= r.max {
		return false
	}
	st.Told.Put(k, true, maxTold)
	st.Hosts.Put(host, n+1, maxSeen/4)
	if n+1 == r.max {
		text += " Further servers of this kind are not reported for this host in this window."
	}
	e := evidence.Evidence{
		Type: t, Profile: h.Src, Time: h.Time, Level: level, Confidence: confidence,
		Attacker: evidence.IPEntity(h.Src, evidence.Src, 0), Victim: evidence.IPEntity(h.Dst, evidence.Dst, h.Port),
		Description: text, Proto: h.Proto.String(), DstPort: h.Port, Count: 1,
		Subject: subject(what, h.Dst, h.Port), Step: 1,
	}
	if h.UID != "" {
		e.UIDs = []string{h.UID}
	}
	cx.Emit(e)
	return true
}

// subject is what is reported once: a name or an organisation at a server.
func subject(what string, server netip.Addr, port uint16) string {
	return what + " " + modules.Where(server, port)
}

// registered returns the domain that someone has registered under a public
// suffix run by a registry: shop.example.co.uk gives example.co.uk. Suffixes
// that a company lends to its customers (github.io) are domains of the company,
// because it is the company that has the certificate.
func registered(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, ".")) // the list is in lower case
	public, _ := suffix.Registry(name)
	return cmp.Or(suffix.Below(name, public), name)
}

// brand is an organisation that malware likes to be taken for.
type brand struct {
	name   string
	labels []string // of its domains, and the first words of its name
}

// brands are the organisations whose names are seen in certificates that are
// not theirs.
var brands = [...]brand{
	{"Google", []string{"google", "youtube", "gmail", "googleapis", "gstatic", "googleusercontent"}},
	{"Microsoft", []string{"microsoft", "microsoftonline", "windowsupdate", "office365", "skype", "bing"}},
	{"Apple", []string{"apple", "icloud"}},
	{"Facebook", []string{"facebook", "instagram", "whatsapp"}},
	{"Twitter", []string{"twitter"}},
	{"Amazon", []string{"amazon", "amazonaws", "cloudfront"}},
	{"PayPal", []string{"paypal"}},
	{"Netflix", []string{"netflix"}},
	{"LinkedIn", []string{"linkedin"}},
	{"Dropbox", []string{"dropbox"}},
	{"Cloudflare", []string{"cloudflare"}},
	{"Akamai", []string{"akamai"}},
}

// maxLabel is the length of the longest label of a brand, in bytes; the
// shortest has four.
const maxLabel = 17

// initials has for each length of a label of a brand the letters that one of
// that length begins with, a bit each.
var initials = makeInitials()

func makeInitials() (m [maxLabel + 1]uint32) {
	for _, b := range brands {
		for _, l := range b.labels {
			m[len(l)] |= 1 << (l[0] & 31)
		}
	}
	return m
}

// claims returns the brand, plus 1, that a label of the common name or the
// first word of the organisation names.
func claims(cn, org string) int {
	if end := strings.IndexAny(org, " ,.\\"); end > 0 {
		org = org[:end]
	}
	for rest, more := cn, true; more; {
		var label string
		label, rest, more = strings.Cut(rest, ".")
		if b := labelOf(label); b != 0 {
			return b
		}
	}
	return labelOf(org)
}

// brandOf returns the brand, plus 1, whose domain a name is in.
func brandOf(name string) int {
	label, _, _ := strings.Cut(registered(name), ".")
	return labelOf(label)
}

func labelOf(word string) int {
	if len(word) < 4 || len(word) > maxLabel || initials[len(word)]&(1<<(word[0]&31)) == 0 {
		return 0 // nearly all words end here
	}
	for i := range brands {
		for _, l := range brands[i].labels {
			if len(l) == len(word) && strings.EqualFold(l, word) {
				return i + 1
			}
		}
	}
	return 0
}

// authorities are how the names of organisations begin that sign certificates
// for the public and that browsers trust or did trust, in lower case.
var authorities = [...]string{
	"actalis", "addtrust", "affirmtrust", "amazon", "apple inc", "asseco", "atos", "baltimore", "buypass", "camerfirma", "certsign", "certum",
	"certplus", "china financial", "chunghwa", "cloudflare", "comodo", "cpanel", "cybertrust", "d-trust", "deutsche telekom", "dhimyotis", "digicert",
	"digital signature trust", "disig", "e-tugra", "emudhra", "entrust", "equifax", "firmaprofesional", "gandi", "geant", "gehirn", "geotrust",
	"globalsign", "godaddy", "gogetssl", "google inc", "google llc", "google trust", "gts", "harica", "hellenic academic", "hongkong post", "identrust",
	"internet security research", "internet2", "izenpe", "japan cert", "keynectis", "krajowa izba", "let's encrypt", "microsec", "microsoft corporation",
	"national institute of informatics", "netlock", "network solutions", "nijimo", "opentrust", "quovadis", "rapidssl", "secom", "sectigo", "securetrust",
	"soluti", "sonera", "ssl corp", "starfield", "startcom", "swisscom", "swisssign", "symantec", "t-systems", "taiwan-ca", "telia", "terena", "thawte",
	"the go daddy", "the usertrust", "trust provider", "trustasia", "trustcor", "trustwave", "twca", "unizeto", "usertrust", "valicert", "verisign",
	"verokey", "viking cloud", "wisekey", "wosign", "xramp", "yandex", "zerossl",
}

// authority reports whether an issuer is one that public certificates come
// from. Nobody checks the signature here; a lie that goes so far is not seen.
func authority(org, cn string) bool {
	if org == "" {
		org = cn
	}
	for _, a := range authorities {
		if len(org) >= len(a) && strings.EqualFold(org[:len(a)], a) {
			return true
		}
	}
	return false
}
