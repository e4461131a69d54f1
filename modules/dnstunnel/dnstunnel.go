// Package dnstunnel reports domains whose sub-domains carry data: each name
// asked for is a message to the domain's own server, each answer one back.
package dnstunnel

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Tunnel is the evidence this module emits.
const Tunnel evidence.Type = "DNS_TUNNEL"

// Config holds the thresholds.
type Config struct {
	// MinEncoded is the number of different names that look like data below one domain, in a window, for the first report.
	MinEncoded int `yaml:"min_encoded"`
	// MinNames is the same for names that only lead to no host.
	MinNames int `yaml:"min_names"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "dnstunnel",
	Doc:   "data carried in the names of DNS look-ups",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.DNS),
	Needs: flow.Of(flow.DNS),
	Emits: []evidence.Spec{{
		Type: Tunnel, Level: evidence.High, Tactic: evidence.CommandAndControl, MITRE: []string{"T1071.004", "T1572"}, Subject: "domain", Over: "window",
		Doc: "a host asked for many names below one domain that look like data or lead to no host",
	}},
}, Config{MinEncoded: 50, MinNames: 100}, New)

const (
	// maxDomains bounds the domains counted for one profile and window. A
	// resolver of a million names keeps those with the most names.
	maxDomains = 128
	// maxReports bounds the domains reported for one profile and window.
	maxReports = 20
	// minShort is how many letters and digits of data a name needs where
	// the answer is one that hosts do not get; minLong where the answer could
	// be a host's, or failed. Names of servers, even of clouds, are shorter.
	minShort, minLong = 16, 40
	// minLabel is the longest label that such a long name needs: names that
	// fail under a search list are long, but their labels are not.
	minLabel = 30
	// volume is how many names that all lead to the same few hosts weigh as
	// much as one that leads nowhere: advertisers hash pages into names.
	volume = 10
	// manyNames is the number of names, by RITA's scale, that is more than low.
	manyNames = 500
)

// State is what the module remembers of one profile in one window.
type State struct {
	Domains map[uint32]*Domain // by hash
	Reports int
}

// Domain is what is known of the names below one registered domain.
type Domain struct {
	Name    string
	Plain   Sketch // names that lead to no host
	Encoded Sketch // of these, and of those without an answer, the ones that look like data
	Hosted  Sketch // names that look like data and lead to a host
	Addrs   Sketch // the addresses that those lead to
	Chars   int64  // letters in Encoded and Hosted names
	Down    int64  // bytes of text in answers
	Carrier int64  // look-ups of types that carry data: TXT, NULL …
	Lookups int64
	Listed  int64 // answers in 127.0.0.0/8, as lists of bad files and addresses give (RFC 5782)
	Step    int
	UIDs    []string // of the latest names; few while the domain is harmless
}

type rule struct{ encoded, names int64 }

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MinEncoded < 10 || c.MinEncoded > 10_000 {
		return nil, fmt.Errorf("min_encoded: %d is not between 10 and 10000", c.MinEncoded)
	}
	if c.MinNames < 10 || c.MinNames > 10_000 {
		return nil, fmt.Errorf("min_names: %d is not between 10 and 10000", c.MinNames)
	}
	return rule{encoded: int64(c.MinEncoded), names: int64(c.MinNames)}, nil
}

// carrier reports whether a type is one that tunnels use for the room it has
// in answers, and that programs of a host hardly ask for.
func carrier(qtype string) bool {
	switch qtype {
	case "TXT", "NULL", "CNAME", "MX", "KEY", "10", "25", "65399", "PRIVATE":
		return true
	}
	return false
}

// Wants implements modules.Chooser. Most look-ups are of a short name that
// leads to a host.
func (r rule) Wants(f *flow.Flow) bool {
	d := f.DNS
	if len(d.Query) < 8 || f.DstPort == 5353 || !f.DNS.Response && f.Sensor == flow.Suricata {
		return false // Suricata logs the answer apart, and that has the name too
	}
	switch d.QType {
	case "A", "AAAA", "":
		return len(d.Query) > minLong || d.RCode == "NOERROR" && len(d.Answers) > 0 && !host(d.Answers).IsValid()
	}
	return carrier(d.QType)
}

// host returns the last address among the answers that a host can have;
// invalid when there is none.
func host(answers []string) netip.Addr {
	for i := len(answers) - 1; i >= 0; i-- {
		if a := answers[i]; len(a) > 1 && (a[0] >= '0' && a[0] <= '9' || strings.IndexByte(a, ':') >= 0) {
			if ip, err := netip.ParseAddr(a); err == nil && profile.IsScannable(ip) {
				return ip
			}
		}
	}
	return netip.Addr{}
}

// fewListed is the number of answers of a list that make a domain one.
const fewListed = 2

// listed reports whether an answer is what a list gives for what is on it.
func listed(answers []string) bool {
	return slices.ContainsFunc(answers, func(a string) bool { return strings.HasPrefix(a, "127.") })
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client {
		return
	}
	name := strings.ToLower(strings.TrimSuffix(f.DNS.Query, "."))
	sub, domain := split(name)
	if sub == "" || reversed(sub) || strings.HasPrefix(sub, "_") || strings.Contains(sub, "._") ||
		strings.Contains(sub, "domainkey") || slices.Contains(services[:], domain) {
		return
	}
	d := f.DNS
	odd, to := carrier(d.QType), netip.Addr{}
	if !odd {
		to = host(d.Answers)
	}
	nowhere := d.RCode == "NOERROR" && len(d.Answers) > 0 && !to.IsValid()
	chars, longest, data := measure(sub)
	encoded := data && ((odd || nowhere) && chars >= minShort || chars >= minLong && longest >= minLabel)
	if !encoded && !nowhere {
		return
	}
	k := modules.HashText(domain)
	x := st.Domains[k]
	if x == nil {
		x = &Domain{Name: strings.Clone(domain)}
		modules.PutLargest(&st.Domains, k, x, maxDomains, (*Domain).weight)
	}
	x.Lookups++
	if !odd && listed(d.Answers) {
		x.Listed++
	}
	if odd {
		x.Carrier++
		for _, a := range d.Answers {
			x.Down += int64(len(a))
		}
	}
	h := modules.HashText(sub)
	fresh := false
	if nowhere {
		fresh = x.Plain.Add(h)
	}
	switch {
	case !encoded:
	case to.IsValid():
		if x.Hosted.Add(h) {
			fresh = true
			x.Chars += int64(chars)
		}
		x.Addrs.Add(modules.Hash(to, 0))
	case x.Encoded.Add(h):
		fresh = true
		x.Chars += int64(chars)
	}
	if !fresh {
		return
	}
	if len(x.UIDs) < evidence.MaxUIDs && f.UID != "" {
		x.UIDs = append(x.UIDs, strings.Clone(f.UID))
	}
	r.judge(cx, st, x, f)
}

// judge reports the domain when enough has come together since the last time.
func (r rule) judge(cx *modules.Context, st *State, x *Domain, f *flow.Flow) {
	n, plain := x.encoded(), x.Plain.Count()
	level, confidence, what := evidence.High, 0.0, ""
	// What looks like data counts for more than any number of names.
	step := modules.Step(n, r.encoded)
	count := n
	if step > 0 {
		confidence = 0.4 + 0.2*float64(step)
		switch {
		case 2*x.Carrier >= x.Lookups:
			confidence += 0.2
		case x.Listed >= fewListed && x.Hosted.Count() == 0:
			confidence /= 4 // a service that is asked about hashes
		}
		confidence = math.Round(100*min(1, confidence)) / 100
		what = fmt.Sprintf("about %d different names below %q that look like data, %d letters in all, and got %d bytes of text back",
			n, x.Name, x.Chars, x.Down)
		step += 32
	} else if step = modules.Step(plain, r.names); step > 0 {
		count = plain
		level, confidence = evidence.Low, 0.8
		if plain >= manyNames {
			level = evidence.Medium
		}
		what = fmt.Sprintf("about %d different names below %q that lead to no host", plain, x.Name)
	}
	if step <= x.Step {
		return
	}
	if x.Step == 0 {
		if st.Reports >= maxReports {
			return
		}
		st.Reports++
	}
	x.Step = step
	cx.Emit(evidence.Evidence{
		Type: Tunnel, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
		Victim: evidence.Entity{Kind: evidence.Domain, Value: x.Name, Direction: evidence.Dst},
		Level:  level, Confidence: confidence,
		Description: fmt.Sprintf("%s asked %s for %s.", f.Src, f.Dst, what),
		Proto:       f.Proto.String(), DstPort: f.DstPort,
		UIDs: append([]string(nil), x.UIDs...), Count: count, Subject: x.Name, Step: step,
	})
}

// encoded returns how many names carry data. Those that lead to a host count
// once for each host, for a tunnel makes up addresses too, or in bulk.
func (d *Domain) encoded() int64 {
	return d.Encoded.Count() + max(d.Addrs.Count(), d.Hosted.Count()/volume)
}

// weight decides which domains are kept. One that was reported is.
func (d *Domain) weight() int64 {
	return d.Encoded.Count() + d.Hosted.Count() + d.Plain.Count() + int64(d.Step)<<32
}

// split parts a name into its registered domain and what stands before it,
// which is empty when there is nothing, or when the name is not of the public
// DNS.
func split(name string) (sub, domain string) {
	suffix, icann := publicsuffix.PublicSuffix(name)
	if suffix == "arpa" || strings.HasSuffix(suffix, ".arpa") || !icann && !strings.Contains(suffix, ".") || len(name) < len(suffix)+4 {
		return "", ""
	}
	i := strings.LastIndexByte(name[:len(name)-len(suffix)-1], '.')
	if i <= 0 {
		return "", ""
	}
	return name[:i], name[i+1:]
}

// reversed reports whether the name below the domain begins as an address
// does in block lists: with four octets, or with eight nibbles.
func reversed(sub string) bool {
	n, long := 0, false
	for label := range strings.SplitSeq(sub, ".") {
		if len(label) > 3 {
			break
		}
		hex := true
		for i := range len(label) {
			c := label[i]
			hex = hex && (c >= '0' && c <= '9' || len(label) == 1 && c >= 'a' && c <= 'f')
		}
		if !hex || label == "" {
			break
		}
		long = long || label[0] >= 'a'
		n++
	}
	return n >= 8 || n >= 4 && !long
}

// measure counts the letters and digits of the name below the domain and of
// its longest label, and says whether it looks like data: words have more
// vowels and fewer digits.
func measure(sub string) (chars, longest int, data bool) {
	digits, vowels, label := 0, 0, 0
	for i := range len(sub) {
		switch c := sub[i]; {
		case c == '.':
			longest, label = max(longest, label), 0
			continue
		case c == '-':
			label++
			continue
		case c >= '0' && c <= '9':
			digits++
		case c == 'a', c == 'e', c == 'i', c == 'o', c == 'u':
			vowels++
		}
		chars++
		label++
	}
	return chars, max(longest, label), 8*digits >= chars || 4*vowels < chars-digits
}

// services are domains below which names are questions to a reputation service
// by design: block lists, and antivirus look-ups by hash, by their operators'
// public documentation (2025).
var services = [...]string{
	"abuseat.org", "abusix.zone", "barracudacentral.org", "bitdefender.net", "brightcloud.com", "clamav.net", "cymru.com", "dnsbl.info",
	"dnswl.org", "e5.sk", "eset.com", "fortiguard.net", "fortinet.net", "gbudb.net", "invaluement.com", "isipp.com", "junkemailfilter.com",
	"kaspersky-labs.com", "kaspersky.com", "mailspike.net", "mcafee.com", "njabl.org", "rspamd.com", "senderbase.org", "senderscore.com",
	"sophosxl.com", "sophosxl.net", "sorbs.net", "spamcop.net", "spameatingmonkey.net", "spamhaus.net", "spamhaus.org",
	"support-intelligence.net", "surbl.org", "symantec.com", "trellix.com", "trendmicro.com", "trustedsource.org", "uceprotect.net",
	"uribl.com", "webroot.com",
}

// bits is the size of a Sketch. It tells 50 names from 55, and 30,000 from
// more it does not.
const bits = 4096

// Sketch counts different things without remembering them, by linear counting
// (Whang, Vander-Zanden, Taylor, 1990). The first few it keeps, as most
// domains have no more.
type Sketch struct {
	Few  []uint32
	Bits []uint64
	Set  int64
}

// Add counts h unless it was counted before.
func (s *Sketch) Add(h uint32) bool {
	if s.Bits == nil {
		if slices.Contains(s.Few, h) {
			return false
		}
		if len(s.Few) < 8 {
			s.Few = append(s.Few, h)
			return true
		}
		few := s.Few
		s.Few, s.Bits = nil, make([]uint64, bits/64)
		for _, x := range few {
			s.Add(x)
		}
	}
	w, b := &s.Bits[h/64%(bits/64)], uint64(1)<<(h%64)
	if *w&b != 0 {
		return false
	}
	*w |= b
	s.Set++
	return true
}

// Count estimates how many were added.
func (s *Sketch) Count() int64 {
	if s.Bits == nil {
		return int64(len(s.Few))
	}
	return int64(math.Round(bits * math.Log(bits/float64(max(1, bits-s.Set)))))
}
