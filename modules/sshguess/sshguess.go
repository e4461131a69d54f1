// Package sshguess reports hosts that try many passwords on an SSH server.
package sshguess

import (
	"fmt"
	"log/slog"
	"math"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// PasswordGuessing is the evidence this module emits.
const PasswordGuessing evidence.Type = "PASSWORD_GUESSING"

// Config holds the threshold.
type Config struct {
	// Threshold is the number of failed attempts on one server and port in a
	// window that is reported first, at least 1.
	Threshold int `yaml:"ssh_attempt_threshold"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "sshguess",
	Doc:   "many failed SSH logins on one server",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.SSH),
	Needs: flow.Of(flow.SSH),
	Emits: []evidence.Spec{{
		Type: PasswordGuessing, Level: evidence.Medium, Tactic: evidence.CredentialAccess, MITRE: []string{"T1110.001"}, Subject: "victim, port", Over: "window",
		Doc: "a host failed to log in to one SSH server many times",
	}},
}, Config{Threshold: 9}, New)

const (
	// maxTargets bounds the servers counted for one profile and window. Who
	// tries one password on each of more hosts is seen by the scan modules.
	maxTargets = 4096
	// maxAttempts bounds what one record may add: a server ends a connection
	// long before, so more is a broken log.
	maxAttempts = 10_000
	// maxBanner bounds the client's banner, which RFC 4253 limits to 255 bytes.
	maxBanner = 255
	// sure is the number of attempts from which on there is no doubt.
	sure = 30
)

// State is what the module remembers of one profile in one window.
type State struct {
	Campaigns map[Target]*Campaign
	Dropped   int64 // records not counted because Campaigns was full
}

// Target is a server.
type Target struct {
	Addr netip.Addr
	Port uint16
}

// Campaign counts failures on one Target.
type Campaign struct {
	Attempts int64
	Sessions int64
	Step     int
	UIDs     []string // at most evidence.MaxUIDs
	Banner   string   // the client's latest
}

type rule struct {
	threshold int64
	log       *slog.Logger
}

var _ modules.Rule[State] = rule{}

// New checks the config and returns the rule.
func New(c Config, env modules.Env) (modules.Rule[State], error) {
	if c.Threshold < 1 || c.Threshold > 1_000_000 {
		return nil, fmt.Errorf("ssh_attempt_threshold: %d is not between 1 and 1000000", c.Threshold)
	}
	if env.Log == nil {
		env.Log = slog.New(slog.DiscardHandler)
	}
	return rule{threshold: int64(c.Threshold), log: env.Log}, nil
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	s := f.SSH
	// Suricata does not look at the authentication: its sessions are no failures.
	if s.AuthSuccess == flow.True || f.Sensor == flow.Suricata || cx.Role() != profile.Client || !f.Dst.IsValid() {
		return
	}
	t := Target{f.Dst, f.DstPort}
	c := st.Campaigns[t]
	if c == nil {
		if len(st.Campaigns) >= maxTargets {
			if st.Dropped++; st.Dropped&(st.Dropped-1) == 0 {
				r.log.Warn("too many SSH servers tried by one host in a window", "profile", cx.Profile(), "not_counted", st.Dropped)
			}
			return
		}
		if st.Campaigns == nil {
			st.Campaigns = make(map[Target]*Campaign)
		}
		c = new(Campaign)
		st.Campaigns[t] = c
	}
	// No attempt or none logged still is a session that ended without a login.
	c.Attempts += int64(min(max(s.AuthAttempts, 1), maxAttempts))
	c.Sessions++
	if len(c.UIDs) < evidence.MaxUIDs && f.UID != "" {
		c.UIDs = append(c.UIDs, strings.Clone(f.UID))
	}
	if b := s.Client[:min(len(s.Client), maxBanner)]; b != "" && b != c.Banner {
		c.Banner = strings.Clone(b)
	}
	step := r.step(c.Attempts)
	if step <= c.Step {
		return
	}
	c.Step = step
	confidence := r.confidence(c.Attempts, c.Banner)
	banner := "no client banner"
	if c.Banner != "" {
		banner = fmt.Sprintf("client banner %q from ssh.log", c.Banner)
	}
	cx.Emit(evidence.Evidence{
		Type: PasswordGuessing, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
		Victim: evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort), Level: evidence.Medium, Confidence: confidence,
		Description: fmt.Sprintf("%s is guessing passwords of the SSH server %s: %d failed attempts in %d sessions; %s; "+
			"not confirmed by Zeek; confidence %.2f.", f.Src, netip.AddrPortFrom(f.Dst, f.DstPort), c.Attempts, c.Sessions, banner, confidence),
		Proto: "tcp", DstPort: f.DstPort,
		UIDs: append([]string(nil), c.UIDs...), Count: c.Attempts,
		Subject: f.Dst.String() + " " + strconv.Itoa(int(f.DstPort)), Step: step,
	})
}

// step is 0 below the threshold T, and then grows each time that n-T+1 doubles.
func (r rule) step(n int64) int {
	if n < r.threshold {
		return 0
	}
	return bits.Len64(uint64(n - r.threshold + 1))
}

// confidence grows from 0.5 at the threshold to 0.9 at sure, and is higher
// for the clients that guessing tools use.
func (r rule) confidence(n int64, banner string) float64 {
	full := max(r.threshold, sure)
	if n >= full {
		return 1
	}
	c := 0.5 + 0.4*min(1, float64(n-r.threshold)/float64(max(1, full-r.threshold))) + bonus(banner)
	return math.Round(100*min(c, 0.99)) / 100
}

var (
	// automation are names of SSH libraries and guessing tools in banners.
	automation = [...]string{
		"libssh", "paramiko", "hydra", "medusa", "ncrack", "net::ssh", "net-ssh", "asyncssh", "jsch", "sshj",
	}
	// common are names of the clients that people use.
	common = [...]string{"openssh", "putty", "dropbear", "winscp"}
)

// bonus is what a client's banner adds to the confidence.
func bonus(banner string) float64 {
	b := strings.ToLower(banner)
	for _, a := range automation {
		if strings.Contains(b, a) {
			return 0.07
		}
	}
	for _, c := range common {
		if strings.Contains(b, c) {
			return 0.02
		}
	}
	return 0
}
