// Package threatintel reports what hosts had to do with things that feeds
// list: addresses, names, URLs, fingerprints, certificates, files, mailboxes.
package threatintel

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// The evidence this module emits.
const (
	JA3       evidence.Type = "MALICIOUS_JA3"
	JA3S      evidence.Type = "MALICIOUS_JA3S"
	JA4       evidence.Type = "MALICIOUS_JA4"
	Cert      evidence.Type = "MALICIOUS_SSL_CERT"
	ASN       evidence.Type = "THREAT_INTELLIGENCE_BLACKLISTED_ASN"
	From      evidence.Type = "THREAT_INTELLIGENCE_FROM_BLACKLISTED_IP"
	To        evidence.Type = "THREAT_INTELLIGENCE_TO_BLACKLISTED_IP"
	DNSAnswer evidence.Type = "THREAT_INTELLIGENCE_BLACKLISTED_DNS_ANSWER"
	Domain    evidence.Type = "THREAT_INTELLIGENCE_BLACKLISTED_DOMAIN"
	AnswerOf  evidence.Type = "THREAT_INTELLIGENCE_ANSWER_OF_BLACKLISTED_QUERY"
	File      evidence.Type = "MALICIOUS_DOWNLOADED_FILE"
	URL       evidence.Type = "THREAT_INTELLIGENCE_MALICIOUS_URL"
	Email     evidence.Type = "THREAT_INTELLIGENCE_MALICIOUS_EMAIL"
	Tor       evidence.Type = "TOR_EXIT_NODE"
)

// Config holds the settings.
type Config struct {
	// MaxPerWindow bounds the indicators of each type reported for one host in
	// a window, 1 to 1000; those of level info are counted apart.
	MaxPerWindow int `yaml:"max_per_window"`
	// Tor says whether connections to exit nodes of Tor are reported.
	Tor bool `yaml:"tor"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name: "threatintel",
	Doc:  "what the feeds list: addresses, names, URLs, fingerprints, certificates, files and mailboxes",
	// A name is resolved in one window and its address connected to in the
	// next, and a connection that lasts for hours is logged when its window is
	// long past: a state for each window would tear both apart.
	Scope: modules.PerProfile,
	Kinds: flow.Of(flow.Conn, flow.DNS, flow.HTTP, flow.SSL, flow.QUIC, flow.SMTP, flow.Files),
	Emits: []evidence.Spec{
		spec(To, evidence.Medium, "address or range", "a host connected to a listed address", "T1071"),
		{
			Type: From, Level: evidence.Medium, Tactic: evidence.InitialAccess, MITRE: []string{"T1190", "T1133"}, Method: method,
			Subject: "address or range", Over: "window", Doc: "a listed address connected to a host",
		},
		spec(ASN, evidence.Medium, "autonomous system", "a connection with an address of a listed autonomous system", "T1071"),
		spec(Domain, evidence.High, "domain", "a host asked for a listed name, or connected to it", "T1071.004"),
		spec(AnswerOf, evidence.High, "domain", "a listed name was resolved, and its address perhaps connected to", "T1071.004"),
		spec(DNSAnswer, evidence.Medium, "address, range or domain", "the answer to a DNS query is a listed address, or an alias that is a listed name", "T1071.004"),
		spec(URL, evidence.High, "URL", "a host asked for a listed URL", "T1105"),
		spec(File, evidence.High, "hash", "a listed file was transferred", "T1105"),
		spec(JA3, evidence.High, "fingerprint", "a TLS client has a listed JA3 fingerprint", "T1071.001", "T1573"),
		spec(JA3S, evidence.High, "fingerprint", "a TLS server has a listed JA3S fingerprint", "T1071.001", "T1573"),
		spec(JA4, evidence.High, "fingerprint", "a TLS client has a listed JA4 fingerprint", "T1071.001", "T1573"),
		spec(Cert, evidence.High, "SHA-1", "a TLS server showed a listed certificate", "T1071.001", "T1573.002"),
		{
			Type: Email, Level: evidence.Medium, Tactic: evidence.InitialAccess, MITRE: []string{"T1566"}, Method: method,
			Subject: "mailbox or domain", Over: "window", Doc: "a mail has a listed sender or recipient",
		},
		{
			Type: Tor, Level: evidence.Info, Tactic: evidence.Context, MITRE: []string{"T1090.003"}, Method: method,
			Subject: "address", Over: "window", Doc: "a connection with an exit node of Tor",
		},
	},
}, Config{MaxPerWindow: 30, Tor: true}, New)

// method is IDMEFv2's nearest word for a comparison with lists.
const method = "Signature"

func spec(t evidence.Type, l evidence.Level, subject, doc string, mitre ...string) evidence.Spec {
	return evidence.Spec{
		Type: t, Level: l, Tactic: evidence.CommandAndControl, MITRE: mitre, Method: method, Subject: subject, Over: "window", Doc: doc,
	}
}

const (
	// wait is how long the records that belong together may take to be logged.
	wait = 15 * time.Second
	// tick is the time between two moments at which what waits is decided.
	tick = 5 * int64(time.Second)
	// maxFindings bounds the indicators that one host's state knows of. Those
	// not seen for longest are forgotten first, and would be reported again.
	maxFindings = 512
	// maxPending bounds the events that wait. A host with more of them in
	// seconds asks for others, and what matters comes again.
	maxPending = 512
	// maxNames bounds the names of addresses that are remembered.
	maxNames = 128
	// maxAnswers bounds the answers of one DNS record that are looked at.
	maxAnswers = 32
	// maxUIDs bounds the uids of one indicator.
	maxUIDs = 20
	// maxGroups bounds the counters of reports.
	maxGroups = 128
	// maxWords bounds the providers whose word is counted, and maxWorth the pieces
	// of evidence of one of them; from then on they are information.
	maxWords = 32
	maxWorth = 32
	// maxText bounds the words of others in a description, in bytes.
	maxText = 100
	// memory is how long a name counts for the address that it was resolved to.
	memory = 24 * int64(time.Hour)
)

// What says how a host had to do with an indicator.
type What uint8

const (
	toAddress   What = iota + 1 // connected to a listed address
	fromAddress                 // is a listed address, and came
	visitor                     // was visited from a listed address: the same seen by the other side
	toSystem                    // connected to a listed autonomous system
	fromSystem                  // is in one, and came
	domain                      // asked for a listed name
	answerOf                    // got an address for a listed name
	aliasAnswer                 // got a listed name as an alias
	addrAnswer                  // got a listed address for a name
	url
	received // a listed file
	sent
	ja3
	ja3s
	ja4
	cert
	mail
	tor
	server // of a TLS session or a request is listed: nothing by itself, but its name counts
	numWhats
)

// types are the types of evidence by What.
var types = [numWhats]evidence.Type{
	toAddress: To, fromAddress: From, visitor: From, toSystem: ASN, fromSystem: ASN, domain: Domain, answerOf: AnswerOf,
	aliasAnswer: DNSAnswer, addrAnswer: DNSAnswer, url: URL, received: File, sent: File, ja3: JA3, ja3s: JA3S, ja4: JA4,
	cert: Cert, mail: Email, tor: Tor,
}

// The grades of what the traffic shows, from 1. A higher one is reported anew.
const (
	unanswered = 1 // toAddress
	empty      = 2
	exchanged  = 3

	knocked = 1 // fromAddress, visitor, fromSystem
	served  = 2 // and toSystem

	asked     = 1 // domain, answerOf, aliasAnswer
	tried     = 2
	contacted = 3
	confirmed = 4 // resolved and contacted

	popular   = 1 // addrAnswer, ja3, ja3s, ja4: on the way to a name that many visit
	unpopular = 2

	refused = 1 // url
	fetched = 2

	passed = 1 // received, sent, mail: by a mail server, as is its duty
	had    = 2 // and cert, tor
	mailed = 3 // mail: to a listed recipient outside
)

// weights say how much of the feeds' confidence a grade leaves, as the README
// gives reasons for. 0 stands for level info.
var weights = [numWhats][5]float64{
	toAddress: {unanswered: 0.4, empty: 0.7, exchanged: 1}, fromAddress: {knocked: 0.1, served: 0.6}, visitor: {knocked: 0, served: 0.6},
	toSystem: {served: 0.5}, fromSystem: {served: 0.3},
	domain:      {asked: 0.3, tried: 0.6, contacted: 1, confirmed: 1},
	answerOf:    {asked: 0, tried: 0.6, contacted: 1, confirmed: 1},
	aliasAnswer: {asked: 0.3, tried: 0.6, contacted: 1, confirmed: 1},
	addrAnswer:  {popular: 0, unpopular: 0.3},
	url:         {refused: 0.5, fetched: 1}, received: {passed: 0, had: 1}, sent: {passed: 0, had: 1},
	ja3: {popular: 0.15, unpopular: 0.5}, ja3s: {popular: 0.15, unpopular: 0.5}, ja4: {popular: 0.15, unpopular: 0.5},
	cert: {had: 1}, mail: {passed: 0, had: 0.5, mailed: 0.8}, tor: {had: 1},
}

// State is what the module remembers of one profile. There is none before the
// host has had to do with something that is listed.
type State struct {
	Findings modules.Recent[uint64, Finding] // by hash of what, indicator, host and window
	Pending  []Event
	Names    []Name // of addresses, the oldest first
	Reports  modules.Recent[Group, int]
	Words    modules.Recent[Word, []Worth]
	Dropped  uint64 // events not looked at because Pending was full
}

// Finding is an indicator that a host had to do with in a window. What the
// feeds say is kept as it was when the indicator was first seen there.
type Finding struct {
	What      What
	Indicator string
	Host      netip.Addr // whose evidence it is
	Level     evidence.Level
	Trust     float64 // that the feeds are right, 0 to 1
	Part      float64 // of Trust that is left, when the indicator is not the thing itself
	Lone      string  // the provider, when one alone has it
	Said      string  // what they say
	N         int64   // connections, queries, files …
	Grade     uint8
	Step      int
	UIDs      []string // the newest
}

// Event is one record that bears on a finding.
type Event struct {
	Key           uint64 // of the finding
	What          What   // likewise
	At            int64  // stream time of the record's log, unix ns
	Time          int64  // of the record, unix ns
	Grade         uint8
	ByAddr        bool       // the address alone says that Name was contacted
	Peer          netip.Addr // the other end; invalid when there is none
	Port, SrcPort uint16
	Proto         flow.Proto
	UID           string
	Name          string // what was looked up, as it was seen
	Detail        string // the query that led to Name, where that is an alias; what a file is
}

// Name is a name that an address was seen with.
type Name struct {
	Addr    netip.Addr
	Name    string // in lower case
	Asked   string // the query behind it, when Name is an alias; else Name
	Seen    Seen
	Listed  bool // the name is listed, and not the address alone
	Popular bool
	Time    int64 // of the record, unix ns
	At      int64 // stream time of the record's log, unix ns
	UID     string
}

// Seen says what a Name was seen in.
type Seen uint8

const (
	inDNS Seen = iota
	inTLS
	inHTTP
)

// String returns the name of the protocol.
func (s Seen) String() string { return [...]string{"DNS", "TLS", "HTTP", ""}[s&3] }

// Group is what is counted for the bound on reports.
type Group struct {
	Type   evidence.Type
	Host   netip.Addr
	Window int64 // start
	Info   bool
}

// Word is what one provider alone says of a host in a window.
type Word struct {
	Provider string
	Host     netip.Addr
	Window   int64 // start
}

// Worth is what a piece of evidence is worth, in points.
type Worth struct {
	Type   evidence.Type
	Points float64
}

type rule struct {
	max int
	tor bool
	log *slog.Logger
}

var (
	_ modules.Rule[State]       = rule{}
	_ modules.TimerFirer[State] = rule{}
	_ modules.Looker            = rule{}
)

// New checks the config and returns the rule.
func New(c Config, env modules.Env) (modules.Rule[State], error) {
	if c.MaxPerWindow < 1 || c.MaxPerWindow > 1000 {
		return nil, fmt.Errorf("max_per_window: %d is not between 1 and 1000", c.MaxPerWindow)
	}
	return rule{max: c.MaxPerWindow, tor: c.Tor, log: env.Log}, nil
}

// Looks implements modules.Looker.
func (rule) Looks(v *intel.View, f *flow.Flow) bool {
	hit := false
	look(v, f, func(x found) bool {
		hit = !x.m.Harmless()
		return !hit
	})
	return hit
}

// Handle implements modules.Rule. It decides nothing: what belongs together is
// put together in Fire, whatever the order of the logs.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() == profile.Server {
		look(cx.Intel(), f, func(x found) bool {
			if x.what == fromAddress && !ours(cx.Network(), x) {
				x.what = visitor
				r.note(cx, st, f, x)
			}
			return true
		})
		return
	}
	if f.Kind == flow.Files {
		r.file(cx, st, f)
		return
	}
	look(cx.Intel(), f, func(x found) bool {
		switch {
		case x.what == server || x.m.Harmless() || ours(cx.Network(), x):
		case x.what == mail:
			x.grade = mailGrade(cx.Network(), f, x.grade)
			r.note(cx, st, f, x)
		default:
			switch bad := r.note(cx, st, f, x); {
			case !bad:
			case f.Kind == flow.DNS:
				r.answers(cx, st, f, x)
			case x.what == domain && f.Dst.IsValid():
				// If it turns out that the name was resolved to this server, the answer was used.
				x.what, x.addr, x.byAddr = answerOf, f.Dst, true
				r.note(cx, st, f, x)
			}
		}
		return true
	})
	switch f.Kind {
	case flow.Conn:
		r.contact(cx, st, f, reached(f), "")
	case flow.SSL, flow.QUIC:
		r.contact(cx, st, f, exchanged, f.SSL.ServerName)
		st.named(cx, f, f.SSL.ServerName, inTLS)
	case flow.HTTP:
		r.contact(cx, st, f, exchanged, host(f.HTTP))
		st.named(cx, f, host(f.HTTP), inHTTP)
	default: // the others are no connections
	}
}

// ours reports whether an address of our own was found, which a feed lists by
// mistake. What only an operator can have listed is meant.
func ours(n *profile.Network, x found) bool {
	return x.addr.IsValid() && n.IsHome(x.addr) && !x.m.Private()
}

// mailGrade says how much a mail weighs with a listed sender or recipient. A
// server that passes mail on inside does what it is there for.
func mailGrade(n *profile.Network, f *flow.Flow, grade uint8) uint8 {
	switch {
	case !n.IsOurs(f.Src):
		return had
	case f.Dst.IsValid() && n.IsOurs(f.Dst):
		return passed
	}
	return grade
}

// note makes an event of what was found in a record. It reports whether that
// is more than information.
func (r rule) note(cx *modules.Context, st *State, f *flow.Flow, x found) bool {
	who := cx.Profile()
	e := Event{At: cx.Now(), Time: f.Time, Grade: x.grade, ByAddr: x.byAddr, Peer: f.Dst, Port: f.DstPort, SrcPort: f.SrcPort, Proto: f.Proto}
	switch x.what {
	case toAddress, toSystem:
		if e.Peer = x.addr; x.addr != f.Dst {
			e.Port = 0 // that of a proxy
		}
	case addrAnswer, answerOf:
		if e.Peer = x.addr; !x.byAddr {
			e.Port = 0 // that of the resolver
		}
	case visitor:
		e.Peer = f.Src
	case received:
		who, e.Peer, e.Port, e.SrcPort = f.Dst, f.Src, f.SrcPort, f.DstPort
	case cert:
		// The sender of a certificate is the server; who came to it is the client.
		if f.Kind == flow.Files && f.Files.IsOrig != flow.True {
			who, e.Peer, e.Port, e.SrcPort = f.Dst, f.Src, f.SrcPort, f.DstPort
		}
	default:
	}
	if !who.IsValid() {
		return false
	}
	if f.Proto.IsICMP() { // type and code stand in the place of ports
		e.Port, e.SrcPort = 0, 0
	}
	indicator, window := x.m.Indicator(), cx.Window().Start
	k := key(x.what, indicator, who, window)
	it, ok := st.Findings.Get(k)
	if !ok {
		w := weigh(cx.Intel(), x)
		if w.tor != "" && r.tor && x.what < visitor {
			t, k := e, key(tor, indicator, who, window)
			t.Grade = had
			exit, ok := st.Findings.Get(k)
			if !ok {
				exit = Finding{What: tor, Indicator: indicator, Host: who, Trust: 1, Part: 1, Said: w.tor}
			}
			r.pend(cx, st, f, x, k, t, exit)
		}
		if w.trust == 0 {
			return false
		}
		it = Finding{
			What: x.what, Indicator: indicator, Host: who, Level: w.level, Trust: w.trust, Part: w.part, Lone: w.lone, Said: w.said,
		}
	}
	r.pend(cx, st, f, x, k, e, it)
	return it.Level > evidence.Info
}

// pend has an event wait for what belongs to it. Of what is information, once
// is enough.
func (r rule) pend(cx *modules.Context, st *State, f *flow.Flow, x found, k uint64, e Event, it Finding) {
	st.Findings.Put(k, it, maxFindings)
	room := maxPending
	if it.Level == evidence.Info {
		if it.Step > 0 {
			return
		}
		room /= 4 // so that what matters finds room
	}
	if len(st.Pending) >= room {
		if st.Dropped++; st.Dropped&(st.Dropped-1) == 0 {
			r.log.Debug("too many listed things of one host at a time", "profile", cx.Profile(), "not_looked_at", st.Dropped)
		}
		return
	}
	e.Key, e.What, e.UID = k, it.What, strings.Clone(f.UID)
	e.Name, e.Detail = modules.Clip(strings.Clone(x.name), maxName), strings.Clone(x.asked)
	if f.Kind == flow.Files {
		e.Detail = describe(f.Files)
	}
	at := due(e.At)
	armed := false
	for i := range st.Pending {
		armed = armed || due(st.Pending[i].At) == at
	}
	st.Pending = append(st.Pending, e)
	if !armed {
		cx.After(time.Duration(max(at*tick-cx.Now(), 1)), uint64(at))
	}
}

// due returns when an event is decided of which the log had the time at, in ticks.
func due(at int64) int64 { return (at+int64(wait))/tick + 1 }

// answers notes what a DNS record with something listed says about addresses.
func (r rule) answers(cx *modules.Context, st *State, f *flow.Flow, x found) {
	n := Name{Name: strings.ToLower(bare(x.name)), Time: f.Time, At: cx.Now(), Popular: isPopular(cx.Intel(), x.name)}
	n.Asked = n.Name
	switch x.what {
	case addrAnswer:
		n.Addr = x.addr
		st.remember(n, f.UID)
		return
	case aliasAnswer:
		n.Asked = strings.ToLower(bare(x.asked))
	case domain:
	default:
		return
	}
	n.Listed = true
	first := true
	for _, s := range f.DNS.Answers[:min(len(f.DNS.Answers), maxAnswers)] {
		a, ok := modules.Address(s)
		if !ok || !profile.IsPublic(a) {
			continue
		}
		n.Addr = a
		st.remember(n, f.UID)
		if first && x.what == domain {
			first = false
			x := x
			x.what, x.grade, x.addr = answerOf, asked, a
			r.note(cx, st, f, x)
		}
	}
}

// remember adds a name. Those that are remembered for longest go first.
func (st *State) remember(n Name, uid string) {
	n.Name, n.Asked, n.UID = strings.Clone(n.Name), strings.Clone(n.Asked), strings.Clone(uid)
	if len(st.Names) >= maxNames {
		copy(st.Names, st.Names[1:])
		st.Names = st.Names[:maxNames-1]
	}
	st.Names = append(st.Names, n)
}

// named notes by what name a client asked a server that is listed, or that a
// listed name was resolved to: others may be at that address too.
func (st *State) named(cx *modules.Context, f *flow.Flow, name string, seen Seen) {
	if name == "" || len(name) > maxName {
		return
	}
	m := at(cx.Intel(), f.Dst)
	known := m.OK() && !m.Harmless()
	for i := range st.Names {
		known = known || st.Names[i].Addr == f.Dst
	}
	if known {
		name = strings.ToLower(bare(name))
		st.remember(Name{
			Addr: f.Dst, Name: name, Asked: name, Seen: seen, Time: f.Time, At: cx.Now(), Popular: isPopular(cx.Intel(), name),
		}, f.UID)
	}
}

// contact notes connections to addresses that listed names were resolved to.
// asked is the name that the client asked for, if it is known. Of two records
// that are in the state only because of each other one has to come first: here
// it is the look-up.
func (r rule) contact(cx *modules.Context, st *State, f *flow.Flow, reach uint8, asked string) {
	if len(st.Names) == 0 || f.Proto.IsICMP() || !profile.IsPublic(f.Dst) {
		return
	}
	grade := uint8(contacted)
	if reach == unanswered {
		grade = tried
	}
	asked = bare(asked)
	for i := range st.Names {
		n := &st.Names[i]
		if n.Addr != f.Dst || !n.Listed || n.At > cx.Now() || !n.counts(f.Time+f.Duration) || st.later(i, cx.Now()) {
			continue
		}
		if asked != "" && (strings.EqualFold(asked, n.Name) || !strings.EqualFold(asked, n.Asked)) {
			continue // it was found by that name, or is another one at the same address
		}
		x := found{what: domain, m: cx.Intel().Domain(n.Name), name: n.Name, asked: n.Asked, addr: f.Dst, grade: grade, byAddr: true}
		switch {
		case !x.m.OK(): // no longer listed
		case n.Name != n.Asked:
			x.what = aliasAnswer
			r.note(cx, st, f, x)
		default:
			r.note(cx, st, f, x)
			x.what = answerOf
			r.note(cx, st, f, x)
		}
	}
}

// later reports whether name i was seen again, in the same way, by stream time now.
func (st *State) later(i int, now int64) bool {
	for j := i + 1; j < len(st.Names); j++ {
		a, b := &st.Names[i], &st.Names[j]
		if b.Addr == a.Addr && b.Listed && b.At <= now && b.Name == a.Name && b.Asked == a.Asked {
			return true
		}
	}
	return false
}

// counts reports whether a name was seen in time for something that ended at
// until, or began then.
func (n *Name) counts(until int64) bool {
	return n.Time <= until+int64(time.Second) && until-n.Time < memory
}

// file notes a file, or a certificate that a sensor logs as one.
func (r rule) file(cx *modules.Context, st *State, f *flow.Flow) {
	var best found
	worth := 0.0
	look(cx.Intel(), f, func(x found) bool {
		if x.what == cert {
			r.note(cx, st, f, x)
			return true
		}
		w := weigh(cx.Intel(), x)
		if w.good {
			best = found{}
			return false
		}
		if v := float64(w.level+1) * w.trust * w.part; v > worth {
			best, worth = x, v
		}
		return true
	})
	if best.what != received {
		return
	}
	net := cx.Network()
	byMail := strings.EqualFold(f.Files.Source, "SMTP")
	if best.grade = had; byMail {
		best.grade = passed
	}
	if f.Dst.IsValid() {
		r.note(cx, st, f, best)
	}
	if best.what, best.grade = sent, had; byMail && net.IsOurs(f.Src) && f.Dst.IsValid() && net.IsOurs(f.Dst) {
		best.grade = passed
	}
	r.note(cx, st, f, best)
}

// describe says what a file is, where that is known.
func describe(p *flow.FilesPart) string {
	var parts []string
	if p.Filename != "" {
		parts = append(parts, fmt.Sprintf("%q", modules.Clip(p.Filename, maxText)))
	}
	if p.MIMEType != "" {
		parts = append(parts, modules.Clip(p.MIMEType, maxText))
	}
	if n := max(p.TotalBytes, p.SeenBytes); n > 0 {
		parts = append(parts, fmt.Sprintf("%d bytes", n))
	}
	return strings.Join(parts, ", ")
}

// key returns the key of a finding.
func key(w What, indicator string, who netip.Addr, window int64) uint64 {
	return flow.HashMix(flow.Hash(flow.HashMix(flow.HashAddr(who), uint64(w)), indicator), uint64(window))
}
