// Package torlike reports TLS handshakes that look like those of Tor.
package torlike

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// TorLike is the evidence this module emits.
const TorLike evidence.Type = "TOR_LIKE_TLS"

// Config holds the settings.
type Config struct {
	// MaxPerWindow bounds the servers reported for one host in a window, 1 to 1000.
	MaxPerWindow int `yaml:"max_per_window"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name: "torlike",
	Doc:  "TLS that looks like Tor's: invented names, known fingerprints",
	// A certificate in x509.log belongs to no host, and the look-up of a name
	// is often made by the resolver of the network.
	Scope: modules.Network,
	Kinds: flow.Of(flow.SSL, flow.X509, flow.DNS),
	Needs: flow.Of(flow.SSL),
	Emits: []evidence.Spec{{
		Type: TorLike, Level: evidence.Medium, Tactic: evidence.CommandAndControl, MITRE: []string{"T1090.003"}, Subject: "server", Over: "window",
		Doc: "a TLS handshake looks like one of Tor",
	}},
}, Config{MaxPerWindow: 10}, New)

const (
	// wait is how long the certificate and the look-up of a name may take to be logged.
	wait = 15 * time.Second
	// minLabel and maxLabel bound the invented label, in letters: Tor draws
	// its length between them (src/lib/tls, crypto_random_hostname).
	minLabel = 8
	maxLabel = 20
	// maxNames bounds the names remembered as looked up, and maxCerts the
	// certificates of Tor's form. Both are rare.
	maxNames = 4096
	maxCerts = 1024
	// maxPending bounds the handshakes that wait to be judged.
	maxPending = 1024
	// maxServers bounds the pairs of client and server that are remembered.
	maxServers = 4096
)

// State is what the module remembers of the network.
type State struct {
	Names   modules.Recent[uint64, int64] // invented names looked up: stream time of the first look-up, unix ns
	Certs   modules.Recent[uint64, int64] // Tor's, by hash of the fingerprint or file id: stream time of its log
	Pending map[uint64]Handshake          // by running number
	Next    uint64                        // running number of the next
	Servers modules.Recent[Server, Hits]
	Hosts   modules.Recent[Host, int] // servers reported
	Dropped uint64                    // handshakes not judged because Pending was full
}

// Server is a server that a client met in a window.
type Server struct {
	Src, Dst netip.Addr
	Window   int64 // start
}

// Host is a client in a window.
type Host struct {
	Addr   netip.Addr
	Window int64 // start
}

// Hits counts what was seen of a Server.
type Hits struct {
	N    int64 // handshakes with different names
	Last uint64
	Step int
	UIDs []string // at most maxUIDs
}

// maxUIDs bounds the uids kept for one server: they show, they need not prove.
const maxUIDs = 10

// Handshake is one that waits to be judged.
type Handshake struct {
	Src, Dst netip.Addr
	Port     uint16
	Proto    flow.Proto
	Time     int64
	UID, SNI string
	FP       uint64 // hash of the fingerprint or file id; 0: none
	Form     bool   // the name has the form of Tor's
	Cert     Look
	Print    bool // a known fingerprint
}

// Look says what the handshake itself shows of the certificate.
type Look uint8

// The looks of a certificate.
const (
	Unseen Look = iota
	Tors        // with invented names
	Other
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

// Wants implements modules.Chooser: only what could be Tor's.
func (rule) Wants(f *flow.Flow) bool {
	if f.Kind == flow.DNS {
		return invented(f.DNS.Query)
	}
	if f.Kind == flow.X509 {
		return torCert(f.X509.Subject, f.X509.Issuer)
	}
	s := f.SSL
	return invented(s.ServerName) || known(s.JA3) || known(s.JA3S) || onionPort(f.DstPort) && s.ServerName == ""
}

// known reports whether a JA3 or JA3S is that of Tor, by the list of the
// authors of JA3. Both are compared with both: some tools swap the fields.
func known(ja3 string) bool {
	return ja3 == "e7d705a3286e19ea42f587b344ee6865" || ja3 == "a95ca7eab4d47d051a5cd4fb7b6005dc"
}

// onionPort reports whether relays of Tor have the port by default: 9001 for
// other relays and clients, 9030 for the directory, 9050 and 9150 for programs.
func onionPort(p uint16) bool { return p == 9001 || p == 9030 || p == 9050 || p == 9150 }

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if f.Kind == flow.DNS {
		first(&st.Names, lowerHash(f.DNS.Query), cx.Now(), maxNames)
		return
	}
	if f.Kind == flow.X509 {
		if fp := cmp.Or(f.X509.Fingerprint, f.X509.ID); fp != "" {
			first(&st.Certs, lowerHash(fp), cx.Now(), maxCerts)
		}
		return
	}
	r.handshake(cx, st, f)
}

// first remembers when k was seen first.
func first(m *modules.Recent[uint64, int64], k uint64, now int64, limit int) {
	if at, ok := m.Get(k); ok {
		now = at
	}
	m.Put(k, now, limit)
}

func (r rule) handshake(cx *modules.Context, st *State, f *flow.Flow) {
	s := f.SSL
	if !f.Src.IsValid() || !profile.IsPublic(f.Dst) || cx.Network().IsHome(f.Dst) {
		return
	}
	if len(st.Pending) >= maxPending {
		if st.Dropped++; st.Dropped&(st.Dropped-1) == 0 {
			r.log.Debug("too many handshakes wait to be judged", "not_judged", st.Dropped)
		}
		return
	}
	h := Handshake{
		Src: f.Src, Dst: f.Dst, Port: f.DstPort, Proto: f.Proto, Time: f.Time, UID: strings.Clone(f.UID),
		Form: invented(s.ServerName), Print: known(s.JA3) || known(s.JA3S),
	}
	if len(s.ServerName) < 256 {
		h.SNI = strings.Clone(s.ServerName)
	}
	if len(s.CertFPs) > 0 {
		h.FP = lowerHash(s.CertFPs[0])
	}
	switch {
	case torCert(s.Subject, s.Issuer):
		h.Cert = Tors
	case s.Subject != "", s.SNIMatchesCert == flow.True:
		h.Cert = Other
	}
	if st.Pending == nil {
		st.Pending = make(map[uint64]Handshake)
	}
	key := st.Next
	st.Next++
	st.Pending[key] = h
	cx.After(wait, key)
}

// Fire implements modules.TimerFirer.
func (r rule) Fire(cx *modules.Context, st *State, key uint64) {
	h, ok := st.Pending[key]
	if !ok {
		return
	}
	delete(st.Pending, key)
	// What was logged behind the moment of decision is there only if its log
	// happens to be ahead, so it does not count.
	if at, ok := st.Certs.Get(h.FP); ok && h.FP != 0 && at <= cx.Now() {
		h.Cert = Tors
	}
	at, asked := st.Names.Get(lowerHash(h.SNI))
	asked = asked && at <= cx.Now()

	w := cx.WindowAt(h.Time).Start
	server := Server{h.Src, h.Dst, w}
	hits, met := st.Servers.Get(server)
	level := evidence.Medium
	var confidence float64
	var why string
	switch name := lowerHash(h.SNI); {
	case h.Form && h.Cert == Tors:
		confidence, why = 0.9, "both the name it asked for and those in the certificate are invented, as Tor's are"
	case h.Print:
		confidence, why = 0.6, "the fingerprint of the handshake is one of Tor"
	case h.Form && h.Cert == Unseen && !asked && onionPort(h.Port):
		confidence, why = 0.7, "it asked for an invented name that nobody has looked up, at a port of Tor"
	case h.Form && h.Cert == Unseen && !asked && met && hits.Last != name:
		confidence, why = 0.7, "it asked for several invented names at one address, and nobody has looked them up"
	case h.Form && h.Cert == Unseen && !asked:
		confidence, why = 0.5, "it asked for an invented name that nobody has looked up"
	case !h.Form && h.SNI == "" && onionPort(h.Port) && h.Cert != Other:
		level, confidence, why = evidence.Low, 0.3, "it is TLS at a port of Tor"
	default:
		return
	}
	if !met {
		host := Host{h.Src, w}
		n, _ := st.Hosts.Get(host)
		if n >= r.max {
			return
		}
		st.Hosts.Put(host, n+1, maxServers)
	}
	if name := lowerHash(h.SNI); !met || hits.Last != name {
		hits.N++
		hits.Last = name
		if h.UID != "" && len(hits.UIDs) < maxUIDs {
			hits.UIDs = append(hits.UIDs, h.UID)
		}
	}
	step := modules.Step(hits.N, 1)
	report := step > hits.Step
	hits.Step = max(hits.Step, step)
	st.Servers.Put(server, hits, maxServers)
	if !report {
		return
	}
	name := ""
	if h.SNI != "" {
		name = fmt.Sprintf(" (%q)", h.SNI)
	}
	cx.Emit(evidence.Evidence{
		Type: TorLike, Profile: h.Src, Time: h.Time, Level: level, Confidence: confidence,
		Attacker: evidence.IPEntity(h.Src, evidence.Src, 0), Victim: evidence.IPEntity(h.Dst, evidence.Dst, h.Port),
		Description: fmt.Sprintf("%s spoke to %s%s in a way that looks like Tor: %s.", h.Src, modules.Where(h.Dst, h.Port), name, why),
		Proto:       h.Proto.String(), DstPort: h.Port, UIDs: append([]string(nil), hits.UIDs...), Count: hits.N, Subject: h.Dst.String(), Step: step,
	})
}

// torCert reports whether a certificate has an invented name, signed by another.
func torCert(subject, issuer string) bool {
	if len(subject) > 64 || len(issuer) > 64 { // Tor's have a common name and nothing else
		return false
	}
	s, ok := strings.CutPrefix(subject, "CN=")
	i, also := strings.CutPrefix(issuer, "CN=")
	return ok && also && s != i && hasForm(s) && hasForm(i) && (invented(s) || invented(i))
}

// label returns what stands between www. and .com or .net; nothing if the name
// has another form.
func label(name string) string {
	n := len(name)
	if n < minLabel+8 || n > maxLabel+8 || !strings.EqualFold(name[:4], "www.") ||
		(!strings.EqualFold(name[n-4:], ".com") && !strings.EqualFold(name[n-4:], ".net")) {
		return ""
	}
	return name[4 : n-4]
}

// hasForm reports whether a name is one that Tor could have drawn.
func hasForm(name string) bool {
	l := label(name)
	for i := range len(l) {
		if c := lower(l[i]); !('a' <= c && c <= 'z') && !('2' <= c && c <= '7') {
			return false
		}
	}
	return l != ""
}

// invented reports whether a name has the form of Tor's, www.<base32>.com or
// .net, and does not look as if someone had chosen it: at least half of its
// pairs of letters are rare in names. That catches 87 in 100 of Tor's and 1 in
// 200 of those that people give.
func invented(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if !hasForm(name) {
		return false
	}
	l := label(name)
	rare := 0
	for i := range len(l) - 1 {
		if a := lower(l[i]); a < 'a' || strings.IndexByte(after[a-'a'], lower(l[i+1])) < 0 {
			rare++
		}
	}
	return 2*rare >= len(l)-1
}

// after holds, for each letter, those that stand behind it in 93 of 100 pairs
// of letters in the words that names of software are made of.
var after = [26]string{
	"abcdefgiklmnprstuvwxyz", "aeilorsu", "acehiklmoprstuy", "abcdefgiklmoprstuy", "abcdefgiklmnopqrstuvwxy", "aefilorstuy",
	"aeghilmnoprsu", "aeiortuy", "abcdefgklmnoprstvxz", "aeos", "aeilosu", "acdeilmopstuy", "abcdeilmopstuy", "abcdefgiklmnopstuvy",
	"abcdfgiklmnoprstuvwx", "acdehiloprstuy", "lu", "abcdefgiklmnoprstuvy", "acdefhiklmnopqrstuwy", "abcdefghiklmoprstuwy",
	"abcdegilmnprst", "aeio", "aeios", "ipt", "abcdefgilmnoprst", "ae",
}

// lowerHash returns the hash of the lower-case text without a dot at the end:
// resolvers mix the case of a name to protect the query.
func lowerHash(s string) uint64 {
	return flow.HashLower(flow.HashSeed, strings.TrimSuffix(s, "."))
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
