// Package signature turns the signature alerts of a sensor, such as
// Suricata's, into evidence.
package signature

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// SignatureAlert is the evidence this module emits.
const SignatureAlert evidence.Type = "SIGNATURE_ALERT"

// Config holds the settings.
type Config struct {
	// Confidence is what an alert of the sensor is worth, above 0 and at most 1.
	Confidence float64 `yaml:"confidence"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "signature",
	Doc:   "alerts of the sensor's own signatures",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.Alert),
	Needs: flow.Of(flow.Alert),
	Emits: []evidence.Spec{{
		Type: SignatureAlert, Level: evidence.Medium, Tactic: evidence.InitialAccess, Subject: "signature, attacker, victim", Over: "window", Method: "Signature",
		Doc: "a signature of the sensor matched; the level follows the signature's severity",
	}},
}, Config{Confidence: 0.8}, New)

// maxPairs bounds the signature, attacker and victim triples remembered for
// one profile and window. A scanner of a whole network meets a few thousand.
const maxPairs = 4096

// maxText bounds the sensor's own words in a description, in bytes.
const maxText = 300

// State is what the module remembers of one profile in one window.
type State struct {
	Seen    map[Pair]bool
	Dropped int64 // alerts not reported because Seen was full
}

// Pair is what is reported once. Name is empty when the signature has an id.
type Pair struct {
	GID, SID         int64
	Name             string
	Attacker, Victim netip.Addr
}

type rule struct {
	confidence float64
	log        *slog.Logger
}

var _ modules.Rule[State] = rule{}

// New checks the config and returns the rule.
func New(c Config, env modules.Env) (modules.Rule[State], error) {
	if !(c.Confidence > 0 && c.Confidence <= 1) {
		return nil, fmt.Errorf("confidence: %v is not above 0 and at most 1", c.Confidence)
	}
	return rule{confidence: c.Confidence, log: env.Log}, nil
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client || !f.Src.IsValid() || !f.Dst.IsValid() {
		return
	}
	a := f.Alert
	attacker, victim := evidence.IPEntity(f.Src, evidence.Src, f.SrcPort), evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort)
	p := Pair{GID: a.GID, SID: a.SID, Attacker: f.Src, Victim: f.Dst}
	if a.SrcIsTarget {
		// The packet that matched went from the victim to the attacker. The
		// evidence is the attacker's, and its own evidence is that of a source.
		p.Attacker, p.Victim = f.Dst, f.Src
		attacker, victim = evidence.IPEntity(f.Dst, evidence.Src, f.DstPort), evidence.IPEntity(f.Src, evidence.Dst, f.SrcPort)
	}
	if a.SID == 0 {
		p.Name = modules.Clip(a.Signature, maxText)
	}
	if st.Seen[p] {
		return
	}
	if len(st.Seen) >= maxPairs {
		if st.Dropped++; st.Dropped&(st.Dropped-1) == 0 {
			r.log.Warn("too many different alerts of one host in a window", "profile", cx.Profile(), "not_reported", st.Dropped)
		}
		return
	}
	if st.Seen == nil {
		st.Seen = make(map[Pair]bool)
	}
	p.Name = strings.Clone(p.Name)
	st.Seen[p] = true
	e := evidence.Evidence{
		Type: SignatureAlert, Profile: p.Attacker, Attacker: attacker, Victim: victim,
		Level: level(a.Severity), Confidence: r.confidence,
		Description: describe(a, p, f),
		Proto:       f.Proto.String(), SrcPort: attacker.Port, DstPort: victim.Port,
		Count: 1, MITRE: techniques(a.MITRETechnique),
		Subject: strconv.FormatInt(a.GID, 10) + ":" + strconv.FormatInt(a.SID, 10) + " " + p.Name + " " +
			p.Attacker.String() + " " + p.Victim.String(),
		Step: 1,
	}
	e.UIDs = modules.UID(f.UID)
	cx.Emit(e)
}

// level maps Suricata's severity, where 1 is the worst, to a threat level.
func level(severity int) evidence.Level {
	switch severity {
	case 1:
		return evidence.High
	case 2:
		return evidence.Medium
	case 3:
		return evidence.Low
	}
	return evidence.Info
}

func describe(a *flow.AlertPart, p Pair, f *flow.Flow) string {
	var b strings.Builder
	name := modules.Clip(a.Signature, maxText)
	if name == "" {
		name = "unnamed signature"
	}
	fmt.Fprintf(&b, "%s: %s to %s", name, p.Attacker, p.Victim)
	port := f.DstPort
	if a.SrcIsTarget {
		port = f.SrcPort
	}
	if f.HasPorts && !f.Proto.IsICMP() {
		fmt.Fprintf(&b, " port %d", port)
	}
	if s := f.Proto.String(); s != "" {
		b.WriteString(" over " + s)
	}
	fmt.Fprintf(&b, " (signature %d:%d:%d", a.GID, a.SID, a.Rev)
	if a.Category != "" {
		b.WriteString(", category " + modules.Clip(a.Category, maxText))
	}
	if a.Action != "" {
		b.WriteString(", action " + modules.Clip(a.Action, maxText))
	}
	if a.MITRETactic != "" {
		b.WriteString(", tactic " + modules.Clip(a.MITRETactic, maxText))
	}
	b.WriteString(").")
	return b.String()
}

// techniques returns the ATT&CK ids in the metadata of a rule, at most 8; nil
// when it has none.
func techniques(s string) []string {
	var ids []string
	for t := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == ',' || r == ' ' || r == ';' }) {
		if isTechnique(t) && len(ids) < 8 {
			ids = append(ids, strings.ToUpper(strings.Clone(t)))
		}
	}
	return ids
}

// isTechnique reports whether s looks like T1190 or T1190.001.
func isTechnique(s string) bool {
	if len(s) < 5 || len(s) > 9 || (s[0] != 'T' && s[0] != 't') {
		return false
	}
	for i := 1; i < len(s); i++ {
		if (s[i] < '0' || s[i] > '9') && !(i == 5 && s[i] == '.') {
			return false
		}
	}
	return len(s) == 5 || len(s) == 9
}
