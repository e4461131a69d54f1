// Package certificate reports servers whose certificate nobody vouches for:
// self-signed, expired, or not valid yet.
package certificate

import (
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
)

// The evidence this module emits.
const (
	SelfSigned evidence.Type = "SELF_SIGNED_CERTIFICATE"
	Invalid    evidence.Type = "INVALID_CERTIFICATE"
)

// Config holds the settings.
type Config struct {
	// MaxPerWindow bounds the servers of each type and level reported for one host in a window, 1 to 1000.
	MaxPerWindow int `yaml:"max_per_window"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name: "certificate",
	Doc:  "certificates that are self-signed, expired or not valid yet",
	// A certificate in x509.log belongs to no host: only the fingerprint in
	// ssl.log leads to the two ends.
	Scope: modules.Network,
	Kinds: flow.Of(flow.SSL, flow.X509),
	Needs: flow.Of(flow.SSL),
	Emits: []evidence.Spec{
		{
			Type: SelfSigned, Level: evidence.Low, Tactic: evidence.CommandAndControl, MITRE: []string{"T1573.002"}, Subject: "server, port", Over: "flow",
			Doc: "a server showed a certificate that it had signed itself",
		},
		{
			Type: Invalid, Level: evidence.Low, Tactic: evidence.CommandAndControl, MITRE: []string{"T1573.002"}, Subject: "server, port", Over: "flow",
			Doc: "a server showed a certificate that had expired or was not valid yet",
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
	// slack is what a clock or a time zone may be off before a date is wrong.
	slack = int64(24 * time.Hour)
	// stale is how long after its end a certificate is forgotten rather than neglected.
	stale = int64(30 * 24 * time.Hour)
	// ancient is a time before which no clock can be right: a capture whose
	// times begin at 0 says nothing about the dates of certificates.
	ancient = int64(946684800) * int64(time.Second) // 2000-01-01
	// maxCerts bounds the certificates remembered; Zeek logs each once a day.
	maxCerts = 4096
	// maxPending bounds the handshakes that wait for their certificate: a
	// server is asked about once in a window, so few do.
	maxPending = 2048
	// maxLate bounds those that go on waiting. One too many makes the oldest be
	// judged at once.
	maxLate = 1024
	// maxSeen bounds the servers remembered as judged, maxTold those as reported.
	maxSeen = 1 << 14
	maxTold = 1 << 13
	// maxText bounds a name out of a certificate, in bytes.
	maxText = 100
	// tick is the time between two looks at what is due.
	tick = 5 * int64(time.Second)
	// sweep is the key of the timer that ends the patience.
	sweep = math.MaxUint64
)

// State is what the module remembers of the network.
type State struct {
	Certs   modules.Recent[uint64, Cert] // by hash of the fingerprint or file id
	Queue   Queue
	Tick    int64                        // of the last timer that is set
	Sweep   int64                        // time of the last sweep that is set, unix ns
	Seen    modules.RecentTable[bool]    // by hash: client, server, name, certificate and window that were judged
	Told    modules.Recent[uint64, bool] // what was reported
	Hosts   modules.Recent[Host, int]    // reports
	Dropped uint64                       // handshakes not judged because Queue was full
}

// Queue holds the handshakes that wait for their certificate, in the order in
// which they came: those whose certificate was not there in time, or that are
// done, and behind them those whose certificate may yet come in time.
type Queue struct {
	Slots           []Handshake // a power of two of them; number n is at n modulo their count
	Head, Mid, Tail uint64      // numbers: the first, the first that is in time, one behind the last
}

func (q *Queue) at(n uint64) *Handshake { return &q.Slots[n&uint64(len(q.Slots)-1)] }

// push adds a handshake with its uid and the name asked for.
func (q *Queue) push(h *Handshake, uid, name string) {
	if n := len(q.Slots); q.Tail-q.Head == uint64(n) {
		old := *q
		q.Slots = make([]Handshake, max(16, 2*n))
		for i := q.Head; i != q.Tail; i++ {
			*q.at(i) = *old.at(i)
		}
	}
	slot := q.at(q.Tail)
	h.Text, h.UIDLen = append(append(slot.Text[:0], uid...), name...), len(uid)
	*slot = *h
	q.Tail++
}

// clear empties a place but for its memory.
func (h *Handshake) clear() {
	*h = Handshake{Due: h.Due, Done: true, Text: h.Text[:0]}
}

func (h *Handshake) uid() string { return string(h.Text[:h.UIDLen]) }

func (h *Handshake) sni() string { return string(h.Text[h.UIDLen:]) }

// late returns how many handshakes there are before Mid.
func (q *Queue) late() uint64 { return q.Mid - q.Head }

// inTime returns how many there are from Mid on.
func (q *Queue) inTime() uint64 { return q.Tail - q.Mid }

// Cert is what matters of a certificate.
type Cert struct {
	At                  int64 // stream time of its log when it was first logged, unix ns
	NotBefore, NotAfter int64 // unix ns, 0 when not logged
	Self                bool
	Name                string // its common name, when there may be something to report
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
	Datagram bool // DTLS
	Time     int64
	Due      int64  // stream time of x509.log until which the certificate may have been logged
	Near     bool   // the server is of the own network
	Text     []byte // uid and the name asked for; bytes, so that the next one takes the place
	UIDLen   int    // of Text
	FP       uint64 // hash of the fingerprint or file id; 0: none
	Done     bool   // it has been judged
	Own      *Cert  // what the record itself says; nil: nothing
	Verdict  Verdict
}

// Verdict is what the sensor found when it checked the chain.
type Verdict uint8

// The verdicts. Chain means that the chain ends in a root that the sensor does
// not trust, which says nothing about who signed the server's certificate.
const (
	None Verdict = iota
	Self
	Chain
	Expired
	Early
	Unknown // the sensor does not know the issuer
)

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

// Wants implements modules.Chooser: most handshakes are resumed, of TLS 1.3,
// or were checked by the sensor and found good.
func (rule) Wants(f *flow.Flow) bool {
	if f.Kind == flow.X509 {
		return f.X509.HostCert != flow.False
	}
	s := f.SSL
	return s.Validation != "ok" && (len(s.CertFPs) > 0 || s.Validation != "" || s.Subject != "")
}

// Handle implements modules.Rule. What there is to report is reported from
// Fire, in the order of ssl.log, whichever log is ahead.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if f.Kind == flow.X509 {
		st.learn(cx.Now(), f)
		return
	}
	r.handshake(cx, st, f)
}

// learn remembers a certificate.
func (st *State) learn(now int64, f *flow.Flow) {
	x := f.X509
	fp := x.Fingerprint
	if fp == "" {
		fp = x.ID
	}
	if fp == "" {
		return
	}
	k := fingerprint(fp)
	c, known := st.Certs.Get(k)
	if !known {
		c = Cert{At: now, NotBefore: x.NotBefore, NotAfter: x.NotAfter, Self: flow.SelfIssued(x.Subject, x.Issuer)}
		// It is of use for a day.
		if c.Self || c.late(f.Time+slack) > 0 || c.early(f.Time) {
			c.Name = name(x.Subject)
		}
	}
	st.Certs.Put(k, c, maxCerts)
}

// late returns by how much the certificate is out of date at t, 0 if it is not.
func (c *Cert) late(t int64) int64 {
	if c.NotAfter == 0 || t < ancient || t <= c.NotAfter+slack {
		return 0
	}
	return t - c.NotAfter
}

// early reports whether the certificate is not valid yet at t.
func (c *Cert) early(t int64) bool { return c.NotBefore != 0 && t >= ancient && t < c.NotBefore-slack }

// good reports whether there is nothing to say about the certificate at t.
func (c *Cert) good(t int64) bool { return !c.Self && c.late(t) == 0 && !c.early(t) }

func (r rule) handshake(cx *modules.Context, st *State, f *flow.Flow) {
	s := f.SSL
	if !f.Src.IsValid() || !f.Dst.IsValid() || !r.considered(cx, f) {
		return
	}
	h := Handshake{
		Src: f.Src, Dst: f.Dst, Port: f.DstPort, Proto: f.Proto, Time: f.Time, Due: cx.Now() + int64(wait), Near: cx.Network().IsOurs(f.Dst),
		Verdict: verdict(s.Validation),
	}
	if h.Verdict == Unknown && (s.ServerName != "" || h.Near || f.Proto == flow.UDP || flow.IsMail(h.Port)) {
		h.Verdict = None // who left out a certificate of the chain, or has an issuer of its own
	}
	own := Cert{NotBefore: s.NotBefore, NotAfter: s.NotAfter, Self: flow.SelfIssued(s.Subject, s.Issuer)}
	dated := s.NotAfter != 0
	nothing := h.Verdict == None && own.good(f.Time)
	if len(s.CertFPs) > 0 {
		h.FP = fingerprint(s.CertFPs[0])
	}
	if nothing && (h.FP == 0 || dated && s.Subject != "") {
		return
	}
	// One handshake of a kind stands for its window, also when there is nothing
	// to say about it: else the next would count in one order of logs only. File
	// ids differ from connection to connection, so they do not tell certificates
	// apart.
	kind := flow.HashMix(flow.HashMix(flow.HashAddr(f.Src), flow.HashAddr(f.Dst)), uint64(f.DstPort)^uint64(cx.Window().Start))
	if kind = flow.Hash(kind, s.ServerName); h.FP != 0 && len(s.CertFPs[0]) >= 32 {
		kind = flow.HashMix(kind, h.FP)
	}
	k := uint32(kind >> 32)
	if st.Seen.Get(k) != nil {
		return
	}
	if c, ok := st.cert(&h); ok && nothing && c.good(f.Time) {
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
	h.Datagram = f.Proto == flow.UDP || strings.HasPrefix(s.Version, "DTLS")
	if s.Subject != "" || dated || s.NotBefore != 0 {
		kept := own
		kept.Name = name(s.Subject)
		h.Own = &kept
	}
	q.push(&h, f.UID, modules.Clip(s.ServerName, maxText))
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

// cert returns the certificate of a handshake, if it has come. One that was
// logged too late does not count even when it is there: whether it is depends
// on which log is ahead.
func (st *State) cert(h *Handshake) (Cert, bool) {
	c, ok := st.Certs.Get(h.FP)
	return c, ok && h.FP != 0 && c.At <= h.Due
}

// considered reports whether the client is one whose servers matter. Those who
// look at our servers from outside learn how ours are certified, and that
// says nothing about them.
func (rule) considered(cx *modules.Context, f *flow.Flow) bool {
	return cx.Network().IsOurs(f.Src) || !cx.Network().IsOurs(f.Dst)
}

// fingerprint returns the hash of a fingerprint, of which half is more than
// enough, or of a file id. It is never 0.
func fingerprint(s string) uint64 {
	return max(flow.Hash(flow.HashSeed, s[max(len(s)-32, 0):]), 1)
}

// verdict reads OpenSSL's word, in the spelling of old and new versions.
func verdict(s string) Verdict {
	switch {
	case s == "":
	case strings.Contains(s, "in certificate chain"):
		return Chain
	case strings.Contains(s, "self signed"), strings.Contains(s, "self-signed"):
		return Self
	case strings.Contains(s, "unable to get local issuer"):
		return Unknown
	case strings.Contains(s, "has expired"):
		return Expired
	case strings.Contains(s, "not yet valid"):
		return Early
	}
	return None
}

// Fire implements modules.TimerFirer.
func (r rule) Fire(cx *modules.Context, st *State, key uint64) {
	q := &st.Queue
	for ; q.Mid < q.Tail && q.at(q.Mid).Due <= cx.Now(); q.Mid++ {
		h := q.at(q.Mid)
		if _, ok := st.cert(h); ok || h.FP == 0 {
			r.judge(cx, st, h)
			h.clear()
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
		h.clear()
	}
}

// judge reports what there is to report about a handshake. What its
// certificate says goes before what the sensor says of it.
func (r rule) judge(cx *modules.Context, st *State, h *Handshake) {
	var c Cert
	if h.Own != nil {
		c = *h.Own
	}
	if x, ok := st.cert(h); ok {
		c.Self = c.Self || x.Self
		if x.NotAfter != 0 {
			c.NotBefore, c.NotAfter = x.NotBefore, x.NotAfter
		}
		if c.Name == "" {
			c.Name = x.Name
		}
	}
	r.signer(cx, st, h, &c)
	r.dates(cx, st, h, &c)
}

// signer reports who signed his own certificate.
func (r rule) signer(cx *modules.Context, st *State, h *Handshake, c *Cert) {
	self := c.Self || h.Verdict == Self
	if !self && h.Verdict != Chain && h.Verdict != Unknown {
		return
	}
	what := "a certificate that it signed itself"
	level, confidence := evidence.Low, 0.5
	switch {
	case !self && h.Verdict == Unknown:
		// One that the server made itself may name an issuer made up as well.
		what, confidence = "a certificate whose issuer the sensor does not know", 0.4
		if !usual(h.Port) {
			level = evidence.Medium
		}
	case !self:
		what, level, confidence = "a certificate whose chain ends in a self-signed root that is not trusted", evidence.Info, 0.3
	case h.Near || h.Datagram:
		level = evidence.Info
	case flow.IsMail(h.Port):
		confidence = 0.2
	case len(h.Text) == h.UIDLen:
		// Programs that verify their server send its name; one that asks an
		// address for an unsigned certificate knows what it will get.
		level, confidence = evidence.Medium, 0.4
		if !usual(h.Port) { // no program that people know speaks TLS there
			confidence = 0.8
		}
	}
	if !r.report(cx, st, h, SelfSigned, level, confidence, what+named(c.Name)) || level < evidence.Low || !self {
		return
	}
	// The server is told of too, once in a window for each port.
	w := cx.WindowAt(h.Time).Start
	k := flow.HashMix(flow.HashMix(flow.HashAddr(h.Dst), uint64(h.Port)), uint64(w)^1)
	if _, ok := st.Told.Get(k); ok {
		return
	}
	st.Told.Put(k, true, maxTold)
	cx.Emit(evidence.Evidence{
		Type: SelfSigned, Profile: h.Dst, Time: h.Time, Level: evidence.Low, Confidence: min(confidence, 0.5),
		Attacker: evidence.IPEntity(h.Dst, evidence.Dst, h.Port), Victim: evidence.IPEntity(h.Src, evidence.Src, 0),
		Description: fmt.Sprintf("%s showed %s %s%s.", modules.Where(h.Dst, h.Port), h.Src, what, named(c.Name)),
		Proto:       h.Proto.String(), DstPort: h.Port, UIDs: modules.UID(h.uid()), Count: 1, Subject: "server " + strconv.Itoa(int(h.Port)), Step: 1,
	})
}

// dates reports a certificate that is not of this day. The dates of the
// certificate itself decide where they are known: a sensor also calls a chain
// expired when the time of a root is over that clients no longer use.
func (r rule) dates(cx *modules.Context, st *State, h *Handshake, c *Cert) {
	if h.Time < ancient {
		return
	}
	var what string
	confidence := 0.4
	late := c.late(h.Time)
	switch {
	case late > 0:
		what = fmt.Sprintf("a certificate that expired %d days before", late/slack)
		if late <= stale {
			confidence = 0.2
		}
	case c.early(h.Time):
		what = fmt.Sprintf("a certificate that is valid only %d days later", (c.NotBefore-h.Time)/slack)
	case c.NotAfter != 0:
		return
	case h.Verdict == Expired:
		what, confidence = "a certificate that has expired, by the sensor's word", 0.2
	case h.Verdict == Early:
		what, confidence = "a certificate that is not valid yet, by the sensor's word", 0.2
	default:
		return
	}
	level := evidence.Low
	if h.Near || h.Datagram || flow.IsMail(h.Port) {
		level = evidence.Info
	}
	r.report(cx, st, h, Invalid, level, confidence, what+named(c.Name))
}

// report tells of the server a client met, once in a window. It returns
// whether it did.
func (r rule) report(cx *modules.Context, st *State, h *Handshake, t evidence.Type, level evidence.Level, confidence float64, what string) bool {
	w := cx.WindowAt(h.Time).Start
	k := flow.Hash(flow.HashMix(flow.HashMix(flow.HashAddr(h.Src), flow.HashAddr(h.Dst)), uint64(h.Port)^uint64(w)), string(t))
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
	more, asked := "", ""
	if n+1 == r.max {
		more = " Further servers of this kind are not reported for this host in this window."
	}
	if sni := h.sni(); sni != "" {
		asked = fmt.Sprintf(" (asked for as %q)", sni)
	}
	server := modules.Where(h.Dst, h.Port)
	cx.Emit(evidence.Evidence{
		Type: t, Profile: h.Src, Time: h.Time, Level: level, Confidence: confidence,
		Attacker: evidence.IPEntity(h.Src, evidence.Src, 0), Victim: evidence.IPEntity(h.Dst, evidence.Dst, h.Port),
		Description: fmt.Sprintf("%s connected to %s%s, which showed %s.%s", h.Src, server, asked, what, more),
		Proto:       h.Proto.String(), DstPort: h.Port, UIDs: modules.UID(h.uid()), Count: 1, Subject: server, Step: 1,
	})
	return true
}

// usual reports whether services with a name speak TLS to the Internet at the
// port. 0 is a port that was not logged.
func usual(port uint16) bool {
	switch port {
	case 0, 21, 443, 563, 636, 853, 989, 990, 992, 3269, 3389, 5986, // by the registry
		8443, 9443, 4443, 4433, 4434, 10443, 2053, 2083, 2087, 2096, 2078, 8080, 8006, 8834, 6443, 10000, // the web by other doors, consoles
		1194, 5061, 5222, 5223, 5228, 5229, 5230, 5269, 5349, 8883, 8884, 6514, 6697, 5671, 6380, // VPN, calls, messages
		1433, 3306, 5432, 9093, 9200, 27017, // databases
		9001: // Tor
		return true
	}
	return flow.IsMail(port)
}

// name returns what a certificate calls itself, as a copy.
func name(subject string) string {
	return strings.Clone(modules.Clip(flow.CommonName(subject), maxText))
}

func named(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf(", for %q", name)
}
