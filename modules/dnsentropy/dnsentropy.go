// Package dnsentropy reports text in DNS answers that is too even to be text:
// keys, ciphered orders, programs.
package dnsentropy

import (
	"fmt"
	"math"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// HighEntropy is the evidence this module emits.
const HighEntropy evidence.Type = "HIGH_ENTROPY_DNS_ANSWER"

// Config holds the threshold.
type Config struct {
	// Threshold is the entropy, in bits per character, from which on a text is reported, above 0 and up to 8.
	Threshold float64 `yaml:"entropy_threshold"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "dnsentropy",
	Doc:   "text with high entropy in DNS answers",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.DNS),
	Needs: flow.Of(flow.DNS),
	Emits: []evidence.Spec{{
		Type: HighEntropy, Level: evidence.Low, Tactic: evidence.CommandAndControl, MITRE: []string{"T1071.004"}, Subject: "name", Over: "window",
		Doc: "a host got an answer to a TXT query whose text has a high entropy",
	}},
}, Config{Threshold: 5}, New)

const (
	// maxNames bounds the names reported for one host in a window.
	maxNames = 20
	// quoted is how much of the text the description shows.
	quoted = 60
)

// State is what the module remembers of one profile in one window.
type State struct {
	Names map[string]int // lower-case names that were reported, and as what
}

// What a name was reported as.
const (
	known = iota + 1
	suspect
)

type rule struct{ threshold float64 }

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if !(c.Threshold > 0 && c.Threshold <= 8) {
		return nil, fmt.Errorf("entropy_threshold: %v is not above 0 and at most 8", c.Threshold)
	}
	return rule{c.Threshold}, nil
}

// Wants implements modules.Chooser. mDNS answers come without a type.
func (r rule) Wants(f *flow.Flow) bool {
	d := f.DNS
	switch d.QType {
	case "TXT", "*", "ANY", "":
		return len(d.Answers) > 0 && d.Query != ""
	}
	return false
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	d := f.DNS
	if cx.Role() != profile.Client || f.Src.IsMulticast() {
		return
	}
	for _, a := range d.Answers {
		text, ok := txt(a)
		if !ok {
			if f.Sensor != flow.Suricata || d.QType != "TXT" {
				continue // an answer of another type
			}
			text = a
		}
		if h := entropy(text); h >= r.threshold {
			r.report(cx, st, f, text, h)
		}
	}
}

// report reports a name once as known, and once as suspect: what became of a
// host's names must not depend on which of its answers came first.
func (r rule) report(cx *modules.Context, st *State, f *flow.Flow, text string, h float64) {
	as := suspect
	if benign(f.DNS.Query, text) {
		as = known
	}
	name := strings.ToLower(f.DNS.Query)
	was := st.Names[name]
	if was >= as || was == 0 && len(st.Names) >= maxNames {
		return
	}
	if st.Names == nil {
		st.Names = make(map[string]int)
	}
	name = strings.Clone(name)
	st.Names[name] = as
	e := evidence.Evidence{
		Type: HighEntropy, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
		Victim: evidence.Entity{Kind: evidence.Domain, Value: name, Direction: evidence.Dst},
		Level:  evidence.Low, Confidence: 0.6,
		Proto: f.Proto.String(), DstPort: f.DstPort, Count: 1, Subject: name, Step: as,
	}
	what := ""
	if as == known {
		e.Level = evidence.Info
		what = ", of a form that services publish"
	}
	short := strings.ToValidUTF8(text[:min(len(text), quoted)], "?")
	e.Description = fmt.Sprintf("%s asked for %q and got text with an entropy of %.2f bits per character%s: %q.", f.Src, name, h, what, short)
	e.UIDs = modules.UID(f.UID)
	cx.Emit(e)
}

// txt returns the text of an answer as Zeek prints it: TXT, the length, the
// text, and so on for each string of the record.
func txt(answer string) (text string, ok bool) {
	rest, ok := strings.CutPrefix(answer, "TXT ")
	if !ok {
		return "", false
	}
	n, text, ok := strings.Cut(rest, " ")
	for i := range len(n) {
		ok = ok && n[i] >= '0' && n[i] <= '9'
	}
	if !ok || n == "" {
		return rest, true
	}
	return text, true
}

// entropy is Shannon's, of the bytes of s, in bits.
func entropy(s string) float64 {
	if len(s) == 0 {
		return 0
	}
	var n [256]int
	for i := range len(s) {
		n[s[i]]++
	}
	h := 0.0
	for _, c := range n {
		if c > 0 {
			p := float64(c) / float64(len(s))
			h -= p * math.Log2(p)
		}
	}
	return h
}

// forms are beginnings of text that domains publish for all to read: policies
// and keys for mail (RFC 7208, 6376, 7489, 8460, 8461, BIMI), and tokens that
// prove to a service who owns the domain.
var forms = [...]string{
	"v=spf1", "v=dkim1", "v=dmarc1", "v=stsv1", "v=tlsrptv1", "v=bimi1", "v=verifydomain", "spf2.0/", "k=rsa", "k=ed25519", "p=", "ms=",
	"docusign=", "adobe-idp-site", "adobe-sign", "apple-domain=", "knowbe4-", "stripe-", "cisco-ci-", "mgverify=", "pardot", "yandex-",
	"sendinblue-code", "brevo-code", "zoom", "notion-", "slack-", "status-page", "amazonses", "_github-", "keybase-", "blitz=", "google-site",
	"heritage=",
}

// benign reports whether text with a high entropy is to be expected: below a
// name that begins with an underscore (RFC 8552: services, keys, challenges),
// in the local network, or in a form of those above.
func benign(query, text string) bool {
	if strings.HasPrefix(query, "_") || strings.Contains(query, "._") || strings.Contains(query, "domainkey") ||
		hasSuffixFold(query, ".local") || hasSuffixFold(query, ".arpa") {
		return true
	}
	for _, f := range forms {
		if len(text) >= len(f) && strings.EqualFold(text[:len(f)], f) {
			return true
		}
	}
	// facebook-domain-verification=, globalsign-domain-verification=, …
	key, _, ok := strings.Cut(text[:min(len(text), 64)], "=")
	return ok && (strings.Contains(key, "verif") || strings.Contains(key, "validation"))
}

func hasSuffixFold(s, suffix string) bool {
	return len(s) >= len(suffix) && strings.EqualFold(s[len(s)-len(suffix):], suffix)
}
