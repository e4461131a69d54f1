// Package smtplogin reports refused logins at mail servers.
package smtplogin

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// The evidence this module emits.
const (
	BadLogin   evidence.Type = "BAD_SMTP_LOGIN"
	Bruteforce evidence.Type = "SMTP_LOGIN_BRUTEFORCE"
)

// Config holds the thresholds.
type Config struct {
	// MinLogins is the number of refused logins within Within that is reported first, 2 to 32.
	MinLogins int `yaml:"min_logins"`
	// Within is the time that they lie in.
	Within time.Duration `yaml:"within"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "smtplogin",
	Doc:   "refused logins at mail servers, one or several in seconds",
	Scope: modules.PerProfile,
	Kinds: flow.Of(flow.SMTP),
	Needs: flow.Of(flow.SMTP),
	Emits: []evidence.Spec{
		{
			Type: BadLogin, Level: evidence.Low, Tactic: evidence.CredentialAccess, MITRE: []string{"T1110"}, Subject: "victim", Over: "window",
			Doc: "a mail server refused a login",
		},
		{
			Type: Bruteforce, Level: evidence.High, Tactic: evidence.CredentialAccess, MITRE: []string{"T1110.001"}, Subject: "host", Over: "10 s", Method: "Threshold",
			Doc: "mail servers refused several logins of a host within seconds",
		},
	},
}, Config{MinLogins: 3, Within: 10 * time.Second}, New)

const (
	// maxServers bounds the mail servers remembered for one host, maxWindows
	// the windows with bursts.
	maxServers, maxWindows = 1024, 16
	// maxLogins is the most that MinLogins may be: so many are remembered.
	maxLogins = 32
)

// State is what the module remembers of one profile.
type State struct {
	Servers modules.Recent[Server, Count]
	Recent  []Login // the latest, at most MinLogins
	Bursts  modules.Recent[int64, Count]
}

// Server is a mail server in a window.
type Server struct {
	Addr   netip.Addr
	Window int64
}

// Count counts logins, or bursts of them, by the start of their window.
type Count struct {
	N    int64
	Step int
	UIDs []string
}

// Login is a refused login.
type Login struct {
	Time int64 // unix ns
	UID  string
}

type rule struct {
	n      int
	within int64
}

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MinLogins < 2 || c.MinLogins > maxLogins {
		return nil, fmt.Errorf("min_logins: %d is not between 2 and %d", c.MinLogins, maxLogins)
	}
	if c.Within <= 0 || c.Within > time.Hour {
		return nil, fmt.Errorf("within: %v is not between 0s and 1h", c.Within)
	}
	return rule{c.MinLogins, int64(c.Within)}, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool { return refused(f.SMTP.LastReply) }

// refused reports whether a server's reply says that a login failed: by its
// code (RFC 4954, section 6), or in the words of servers that use another.
func refused(reply string) bool {
	return strings.HasPrefix(reply, "535") || strings.Contains(reply, "bad smtp-auth user") || strings.Contains(reply, "uthentication failed")
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client || !f.Dst.IsValid() || !refused(f.SMTP.LastReply) {
		return
	}
	uid := strings.Clone(f.UID)
	r.one(cx, st, f, uid)
	// Records of one log come in the order of their ends, so the list is kept sorted by start.
	i, _ := slices.BinarySearchFunc(st.Recent, f.Time, func(l Login, t int64) int {
		if l.Time <= t {
			return -1
		}
		return 1
	})
	st.Recent = slices.Insert(st.Recent, i, Login{f.Time, uid})
	if len(st.Recent) > r.n {
		st.Recent = st.Recent[1:]
	}
	if len(st.Recent) < r.n || st.Recent[r.n-1].Time-st.Recent[0].Time > r.within {
		return
	}
	var uids []string
	for _, l := range st.Recent {
		if l.UID != "" && !slices.Contains(uids, l.UID) {
			uids = append(uids, l.UID)
		}
	}
	took := st.Recent[r.n-1].Time - st.Recent[0].Time
	st.Recent = nil // each login belongs to one burst
	w := cx.Window().Start
	c, _ := st.Bursts.Get(w)
	c.N++
	step := modules.Step(c.N, 1)
	report := step > c.Step
	c.Step = step
	st.Bursts.Put(w, c, maxWindows)
	if !report {
		return
	}
	more := ""
	if c.N > 1 {
		more = fmt.Sprintf(" This has happened %d times in this window.", c.N)
	}
	cx.Emit(evidence.Evidence{
		Type: Bruteforce, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Victim: evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
		Level: evidence.High, Confidence: 1,
		Description: fmt.Sprintf("%s is guessing passwords of mail servers: %d logins refused within %.1f seconds, the last by %s.%s",
			f.Src, r.n, time.Duration(took).Seconds(), f.Dst, more),
		Proto: "tcp", DstPort: f.DstPort, UIDs: uids, Count: c.N * int64(r.n), Subject: "bruteforce", Step: step,
	})
}

// one reports the first refused login at a server, and again when their
// number doubles.
func (rule) one(cx *modules.Context, st *State, f *flow.Flow, uid string) {
	s := Server{f.Dst, cx.Window().Start}
	c, _ := st.Servers.Get(s)
	c.N++
	if uid != "" && len(c.UIDs) < 20 && !slices.Contains(c.UIDs, uid) {
		c.UIDs = append(slices.Clone(c.UIDs), uid)
	}
	step := modules.Step(c.N, 1)
	report := step > c.Step
	c.Step = step
	st.Servers.Put(s, c, maxServers)
	if !report {
		return
	}
	times := "a login"
	if c.N > 1 {
		times = fmt.Sprintf("%d logins", c.N)
	}
	cx.Emit(evidence.Evidence{
		Type: BadLogin, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Victim: evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
		Level: evidence.Low, Confidence: 0.5,
		Description: fmt.Sprintf("the mail server %s refused %s of %s (%q).", f.Dst, times, f.Src, f.SMTP.LastReply[:min(len(f.SMTP.LastReply), 80)]),
		Proto:       "tcp", DstPort: f.DstPort, UIDs: slices.Clone(c.UIDs), Count: c.N, Subject: f.Dst.String(), Step: step,
	})
}
