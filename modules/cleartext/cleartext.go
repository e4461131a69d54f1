// Package cleartext reports hosts that send credentials over protocols
// without encryption.
package cleartext

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Credentials is the evidence this module emits.
const Credentials evidence.Type = "CLEARTEXT_CREDENTIALS"

// Config is empty.
type Config struct{}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "cleartext",
	Doc:   "credentials sent without encryption over HTTP, FTP, telnet",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.HTTP, flow.FTP, flow.Login),
	Emits: []evidence.Spec{{
		Type: Credentials, Level: evidence.Low, Tactic: evidence.CredentialAccess, MITRE: []string{"T1040"}, Subject: "protocol, server, port", Over: "window", Method: "Policy",
		Doc: "a host sent credentials without encryption, for anybody on the way to read",
	}},
}, Config{}, New)

const (
	// maxServers bounds the servers of one protocol that are reported for one
	// host in a window. Who logs in at more guesses passwords, which others report.
	maxServers = 100
	// maxSessions bounds the FTP sessions of which the user is remembered
	// until the password comes.
	maxSessions = 256
	// maxUser bounds the user's name in a description, in bytes.
	maxUser = 60
)

// State is what the module remembers of one profile in one window. Each
// protocol has a log of its own, and so a list of its own: what one log says
// must not depend on how far the others are.
type State struct {
	HTTP, FTP, Login map[netip.AddrPort]bool
	Users            modules.Recent[string, string] // who logs in over FTP, by uid; only where user and password come apart
}

type rule struct{}

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New returns the rule.
func New(Config, modules.Env) (modules.Rule[State], error) { return rule{}, nil }

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	switch f.Kind {
	case flow.HTTP:
		return f.HTTP.Username != "" || f.HTTP.HasPassword
	case flow.FTP:
		return f.FTP.HasPassword || f.Sensor == flow.Suricata && f.FTP.User != ""
	case flow.Login:
		return f.Login.User != "" || f.Login.HasPassword
	default:
		return false
	}
}

// Handle implements modules.Rule.
func (rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if !f.Dst.IsValid() {
		return
	}
	switch f.Kind {
	case flow.HTTP:
		report(cx, f, &st.HTTP, "HTTP", "http", f.HTTP.Username)
	case flow.FTP:
		user := f.FTP.User
		if f.Sensor == flow.Suricata && f.UID != "" { // it logs each command by itself
			if !f.FTP.HasPassword {
				st.Users.Put(strings.Clone(f.UID), strings.Clone(modules.Clip(user, maxUser)), maxSessions)
				return
			}
			user, _ = st.Users.Get(f.UID)
		}
		if f.FTP.HasPassword && !anonymous(user) {
			report(cx, f, &st.FTP, "FTP", "ftp", user)
		}
	case flow.Login:
		report(cx, f, &st.Login, "telnet or rlogin", "login", f.Login.User)
	default: // no other kind is delivered
	}
}

// anonymous reports whether a user of FTP is the public: the password is then
// a courtesy. It is so too when no user was seen.
func anonymous(user string) bool {
	for _, a := range [...]string{"anonymous", "ftp", "guest", "<unknown>", ""} {
		if strings.EqualFold(user, a) {
			return true
		}
	}
	return false
}

func report(cx *modules.Context, f *flow.Flow, seen *map[netip.AddrPort]bool, proto, short, user string) {
	server := netip.AddrPortFrom(f.Dst, f.DstPort)
	if (*seen)[server] || len(*seen) >= maxServers {
		return
	}
	if *seen == nil {
		*seen = make(map[netip.AddrPort]bool)
	}
	(*seen)[server] = true
	// In one's own network fewer can listen, and printers, cameras and
	// routers know no better.
	confidence := 0.5
	if !profile.IsPublic(f.Dst) {
		confidence = 0.3
	}
	who := "credentials"
	if user != "" {
		who = fmt.Sprintf("credentials of %q", modules.Clip(user, maxUser))
	}
	e := evidence.Evidence{
		Type: Credentials, Level: evidence.Low, Confidence: confidence,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, f.SrcPort), Victim: evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
		Description: fmt.Sprintf("%s sent %s to %s over %s, which does not encrypt them.", f.Src, who, server, proto),
		Proto:       f.Proto.String(), SrcPort: f.SrcPort, DstPort: f.DstPort,
		Count: 1, Subject: short + " " + f.Dst.String() + " " + strconv.Itoa(int(f.DstPort)), Step: 1,
	}
	e.UIDs = modules.UID(f.UID)
	cx.Emit(e)
}
