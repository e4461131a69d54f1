// Package login reports logins over telnet, rlogin and rsh.
package login

import (
	"fmt"
	"slices"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Login is the evidence this module emits.
const Login evidence.Type = "LOGIN"

// Config is empty: there is nothing to set.
type Config struct{}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "login",
	Doc:   "logins over telnet, rlogin and rsh",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.Login),
	Needs: flow.Of(flow.Login),
	Emits: []evidence.Spec{{
		Type: Login, Level: evidence.Info, Tactic: evidence.Context, MITRE: []string{"T1021"}, Subject: "victim, port, user, outcome", Over: "window",
		Doc: "somebody logged in, or tried to, over a protocol without encryption",
	}},
}, Config{}, New)

const (
	// maxLogins bounds the users and servers remembered for one window, those
	// seen last: a guesser has many names, which other modules report.
	maxLogins = 256
	// maxName bounds a user's name: what is longer is no name.
	maxName = 64
)

// State is what the module remembers of one profile in one window.
type State struct {
	Logins modules.Recent[string, Count] // by subject
}

// Count counts the records of one subject.
type Count struct {
	N    int64
	Step int
	UIDs []string
}

type rule struct{}

var _ modules.Rule[State] = rule{}

// New returns the rule.
func New(Config, modules.Env) (modules.Rule[State], error) { return rule{}, nil }

// Handle implements modules.Rule. As in the original the attacker is the
// server's side: it never counts against the host that logs in.
func (rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client || !f.Dst.IsValid() {
		return
	}
	l := f.Login
	outcome := "failed"
	switch {
	case l.Success == flow.True:
		outcome = "successful"
	case l.Confused == flow.True:
		outcome = "confused"
	case l.Success == flow.Unset:
		outcome = "unfinished"
	}
	user := l.User
	if user == "" {
		user = l.ClientUser
	}
	user = user[:min(len(user), maxName)]
	k := fmt.Sprintf("%s %d %s %s", f.Dst, f.DstPort, outcome, strings.ToValidUTF8(user, "?"))
	c, _ := st.Logins.Get(k)
	c.N++
	if f.UID != "" && len(c.UIDs) < 20 {
		c.UIDs = append(slices.Clone(c.UIDs), strings.Clone(f.UID))
	}
	step := modules.Step(c.N, 1)
	report := step > c.Step
	c.Step = step
	st.Logins.Put(k, c, maxLogins)
	if !report {
		return
	}
	who := "without a user name"
	if user != "" {
		who = fmt.Sprintf("as user %q", user)
	}
	times := ""
	if c.N > 1 {
		times = fmt.Sprintf(", %d times in this window", c.N)
	}
	cx.Emit(evidence.Evidence{
		Type: Login, Attacker: evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort), Victim: evidence.IPEntity(f.Src, evidence.Src, 0),
		Level: evidence.Info, Confidence: 1,
		Description: fmt.Sprintf("%s %s login from %s to %s %s%s.", outcome, protocol(f.DstPort), f.Src, f.Dst, who, times),
		Proto:       "tcp", DstPort: f.DstPort, UIDs: slices.Clone(c.UIDs), Count: c.N, Subject: k, Step: step,
	})
}

// protocol names what speaks at a port.
func protocol(port uint16) string {
	switch port {
	case 512:
		return "rexec"
	case 513:
		return "rlogin"
	case 514:
		return "rsh"
	}
	return "telnet"
}
