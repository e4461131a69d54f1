// Package sshversion reports hosts that show several versions of SSH.
package sshversion

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Multiple is the evidence this module emits.
const Multiple evidence.Type = "MULTIPLE_SSH_VERSIONS"

// Config holds the bound from which on many versions are normal.
type Config struct {
	// MaxVersions is the number of versions of one role up to which a host is
	// one computer; one with more is taken for a gateway of many.
	MaxVersions int `yaml:"max_versions"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "sshversion",
	Doc:   "hosts that show several versions of SSH",
	Scope: modules.PerProfile,
	Kinds: flow.Of(flow.Software, flow.SSH),
	Emits: []evidence.Spec{{
		Type: Multiple, Level: evidence.Medium, Tactic: evidence.CredentialAccess, MITRE: []string{"T1563.001"}, Subject: "role", Over: "window",
		Doc: "the SSH client or server of a host is not of the version seen first",
	}},
}, Config{MaxVersions: 5}, New)

const (
	// maxMax is the most that MaxVersions may be: so many names are kept.
	maxMax = 64
	// maxVersion bounds a banner, as RFC 4253 does.
	maxVersion = 255
	// maxWindows bounds the windows in which reports are remembered.
	maxWindows = 16
	// maxPending bounds the banners that wait, each new to the host.
	maxPending = 64
	// wait is how long software.log may take; it knows more than a banner.
	wait = 5 * time.Minute
)

// State is what the module remembers of one profile.
type State struct {
	Clients, Servers Versions // by software.log
	Banners          Versions // of clients, by ssh.log
	Pending          map[uint64]Banner
	Next             uint64
}

// Banner is what a client said, waiting for software.log.
type Banner struct {
	Name, UID string
	Time      int64 // unix ns
}

// Versions lists what one role of a host has shown.
type Versions struct {
	Seen    []Version                  // in the order of appearance, at most max_versions and one
	First   int64                      // time of the earliest record, unix ns
	Windows modules.Recent[int64, int] // step reported, by start of window
}

// Version is one version, with the record that showed it first.
type Version struct{ Name, UID string }

type rule struct{ most int }

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}

	_ modules.TimerFirer[State] = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MaxVersions < 2 || c.MaxVersions > maxMax {
		return nil, fmt.Errorf("max_versions: %d is not between 2 and %d", c.MaxVersions, maxMax)
	}
	return rule{c.MaxVersions}, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	if f.Kind == flow.Software {
		return f.Software.Type == "SSH::CLIENT" || f.Software.Type == "SSH::SERVER"
	}
	return f.SSH.Client != ""
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client || cx.Profile() == cx.Network().Gateway {
		return
	}
	if f.Kind == flow.SSH {
		r.banner(cx, st, f)
		return
	}
	v, role := &st.Clients, "client"
	if f.Software.Type == "SSH::SERVER" {
		v, role = &st.Servers, "server"
	}
	if name := version(f.Software); name != "" {
		r.see(cx, v, role, name, f.UID, f.Time)
	}
}

// version names program, major and minor version, as the reference compares
// them. Patch levels say nothing.
func version(s *flow.SoftwarePart) string {
	if s.Major < 0 {
		return clip(s.Unparsed)
	}
	n := s.Name + " " + strconv.Itoa(s.Major)
	if s.Minor >= 0 {
		n += "." + strconv.Itoa(s.Minor)
	}
	return clip(n)
}

func clip(s string) string {
	return strings.TrimSpace(strings.ToValidUTF8(s[:min(len(s), maxVersion)], "?"))
}

// banner has a client's banner judged in a while, unless it is one of those
// that were: most sessions of a host show the same.
func (r rule) banner(cx *modules.Context, st *State, f *flow.Flow) {
	name := program(f.SSH.Client)
	if name == "" {
		return
	}
	v := &st.Banners
	if len(v.Seen) > 0 && v.Seen[0].Name == name || len(v.Seen) > r.most || len(st.Pending) >= maxPending {
		return
	}
	for _, p := range st.Pending {
		if p.Name == name && cx.WindowAt(p.Time) == cx.Window() {
			return
		}
	}
	if st.Pending == nil {
		st.Pending = make(map[uint64]Banner)
	}
	key := st.Next
	st.Next++
	st.Pending[key] = Banner{strings.Clone(clip(name)), strings.Clone(f.UID), f.Time}
	cx.After(wait, key)
}

// program returns the program of a banner such as "SSH-2.0-OpenSSH_9.6 Debian"
// (RFC 4253, section 4.2).
func program(banner string) string {
	if _, rest, ok := strings.Cut(banner, "-"); ok && strings.HasPrefix(banner, "SSH-") {
		if _, rest, ok = strings.Cut(rest, "-"); ok {
			banner = rest
		}
	}
	banner, _, _ = strings.Cut(banner, " ")
	return banner
}

// Fire implements modules.TimerFirer.
func (r rule) Fire(cx *modules.Context, st *State, key uint64) {
	b, ok := st.Pending[key]
	if !ok {
		return
	}
	delete(st.Pending, key)
	if len(st.Clients.Seen) > 0 && st.Clients.First <= b.Time+int64(wait) {
		return // software.log tells
	}
	r.see(cx, &st.Banners, "client", b.Name, b.UID, b.Time)
}

// see takes note of a version and reports it when it is not the first.
func (r rule) see(cx *modules.Context, v *Versions, role, name, uid string, at int64) {
	if len(v.Seen) == 0 || at < v.First {
		v.First = at
	}
	known := slices.ContainsFunc(v.Seen, func(x Version) bool { return x.Name == name })
	if !known && len(v.Seen) <= r.most {
		v.Seen = append(v.Seen, Version{strings.Clone(name), strings.Clone(uid)})
	}
	if v.Seen[0].Name == name || len(v.Seen) > r.most {
		return
	}
	w := cx.WindowAt(at).Start
	step := modules.Step(int64(len(v.Seen)-1), 1)
	if told, _ := v.Windows.Get(w); told >= step {
		return
	}
	v.Windows.Put(w, step, maxWindows)
	level, confidence := evidence.Medium, 0.6
	if word(name) != word(v.Seen[0].Name) {
		level, confidence = evidence.Low, 0.5
	}
	var names, uids []string
	for _, x := range v.Seen[1:] {
		names = append(names, x.Name)
	}
	for _, u := range []string{v.Seen[0].UID, strings.Clone(uid)} {
		if u != "" && !slices.Contains(uids, u) {
			uids = append(uids, u)
		}
	}
	cx.Emit(evidence.Evidence{
		Type: Multiple, Time: at, Attacker: evidence.IPEntity(cx.Profile(), evidence.Src, 0), Level: level, Confidence: confidence,
		Description: fmt.Sprintf("the SSH %s of %s was %s and now is %s; other than the first were seen: %s.",
			role, cx.Profile(), v.Seen[0].Name, name, strings.Join(names, ", ")),
		Proto: "tcp", UIDs: uids, Count: int64(len(v.Seen)), Subject: role, Step: step,
	})
}

// word returns the program's name in front of its version.
func word(name string) string {
	if i := strings.IndexAny(name, " _-/0123456789"); i > 0 {
		return strings.ToLower(name[:i])
	}
	return strings.ToLower(name)
}
