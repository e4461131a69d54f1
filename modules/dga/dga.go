// Package dga reports hosts that look up many names that do not exist, as
// malware does that tries a list of generated domains.
package dga

import (
	"fmt"
	"log/slog"
	"math"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// NXDomains is the evidence this module emits.
const NXDomains evidence.Type = "DGA_NXDOMAINS"

// Config holds the threshold.
type Config struct {
	// MinNames is the number of different names in a window that is reported first, at least 2.
	MinNames int `yaml:"min_names"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "dga",
	Doc:   "many different names that do not exist",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.DNS),
	Needs: flow.Of(flow.DNS),
	Emits: []evidence.Spec{{
		Type: NXDomains, Level: evidence.High, Tactic: evidence.CommandAndControl, MITRE: []string{"T1568.002"}, Subject: "host", Over: "window",
		Doc: "a host looked up many different names that do not exist",
	}},
}, Config{MinNames: 10}, New)

const (
	// maxNames bounds the names remembered for one profile and window. Beyond
	// it nothing new is counted; the count then stands for "at least".
	maxNames = 20_000
	// searchList is how many names one label may give before they stop
	// looking like one name tried under each suffix of a search list, which
	// resolvers bound to six.
	searchList = 6
	// examples is how many names the description quotes.
	examples = 3
)

// State is what the module remembers of one profile in one window.
type State struct {
	Names    map[uint64]bool   // hashes of names seen
	Labels   map[uint64]uint32 // names seen for the hash of a leftmost label
	N        int64             // names that count
	Step     int
	UIDs     []string // of the lookups that counted, at most evidence.MaxUIDs
	Examples []string
	Dropped  int64 // lookups not looked at because Names was full
}

type rule struct {
	min int64
	log *slog.Logger
}

var _ modules.Rule[State] = rule{}

// New checks the config and returns the rule.
func New(c Config, env modules.Env) (modules.Rule[State], error) {
	if c.MinNames < 2 || c.MinNames > maxNames {
		return nil, fmt.Errorf("min_names: %d is not between 2 and %d", c.MinNames, maxNames)
	}
	if env.Log == nil {
		env.Log = slog.New(slog.DiscardHandler)
	}
	return rule{min: int64(c.MinNames), log: env.Log}, nil
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	d := f.DNS
	if !strings.Contains(d.RCode, "NXDOMAIN") || cx.Role() != profile.Client {
		return
	}
	name := strings.TrimSuffix(d.Query, ".")
	label := leftmost(name)
	if label == "" || !public(name) {
		return
	}
	h := hash(name)
	if st.Names[h] {
		return
	}
	if len(st.Names) >= maxNames {
		if st.Dropped++; st.Dropped&(st.Dropped-1) == 0 {
			r.log.Warn("too many different names of one host in a window", "profile", cx.Profile(), "not_counted", st.Dropped)
		}
		return
	}
	if st.Names == nil {
		st.Names, st.Labels = make(map[uint64]bool), make(map[uint64]uint32)
	}
	st.Names[h] = true
	l := hash(label)
	st.Labels[l]++
	if n := st.Labels[l]; n > 1 && n <= searchList {
		return
	}
	st.N++
	if len(st.UIDs) < evidence.MaxUIDs && f.UID != "" {
		st.UIDs = append(st.UIDs, strings.Clone(f.UID))
	}
	if len(st.Examples) < examples {
		st.Examples = append(st.Examples, strings.Clone(name))
	}
	step := modules.Step(st.N, r.min)
	if step <= st.Step {
		return
	}
	st.Step = step
	confidence := math.Round(100*min(1, float64(st.N)/100)) / 100
	cx.Emit(evidence.Evidence{
		Type: NXDomains, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
		Level: evidence.High, Confidence: confidence,
		Description: fmt.Sprintf("%s looked up %d different names that do not exist (NXDOMAIN), such as %s; confidence %.2f.",
			f.Src, st.N, strings.Join(quoted(st.Examples), ", "), confidence),
		Proto: f.Proto.String(), DstPort: f.DstPort,
		UIDs: append([]string(nil), st.UIDs...), Count: st.N, Subject: "nxdomain", Step: step,
	})
}

func quoted(names []string) []string {
	q := make([]string, len(names))
	for i, n := range names {
		q[i] = fmt.Sprintf("%q", n)
	}
	return q
}

// leftmost returns the label that a search list leaves alone: the first one,
// or the second behind "www". It is empty for a single label, which is no
// name of the public DNS, and for service names such as _ldap._tcp.
func leftmost(name string) string {
	label, rest, ok := strings.Cut(name, ".")
	if ok && strings.EqualFold(label, "www") && strings.Contains(rest, ".") {
		label, rest, _ = strings.Cut(rest, ".")
	}
	if !ok || rest == "" || strings.HasPrefix(label, "_") {
		return ""
	}
	return label
}

// private are the suffixes that the public DNS does not have, and those under
// which lists answer "not listed" with NXDOMAIN.
var private = [...]string{
	".arpa", ".local", ".localdomain", ".lan", ".home", ".internal", ".intranet", ".workgroup", ".corp", ".cymru.com",
}

// public reports whether a missing name says anything: those of private zones
// and the lookups of mail servers in block lists (4.3.2.1.list.example) do not.
func public(name string) bool {
	for _, s := range private {
		if len(name) > len(s) && strings.EqualFold(name[len(name)-len(s):], s) {
			return false
		}
	}
	rest := name
	for range 4 {
		label, after, ok := strings.Cut(rest, ".")
		if !ok || !octet(label) {
			return true
		}
		rest = after
	}
	return false
}

func octet(s string) bool {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
		n = 10*n + int(s[i]-'0')
	}
	return len(s) > 0 && len(s) <= 3 && n <= 255
}

// hash is FNV-1a over the lower-case text: resolvers mix the case of a name
// to protect the query.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}
