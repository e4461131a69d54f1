// Package bruteforce reports hosts that try many passwords.
package bruteforce

import (
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// PasswordGuessing is the evidence this module emits.
const PasswordGuessing evidence.Type = "PASSWORD_GUESSING"

// Config holds the thresholds.
type Config struct {
	// Threshold is the number of failures at one server in a window that is
	// reported first. The key is that of the original Slips, which knew SSH only.
	Threshold int `yaml:"ssh_attempt_threshold"`
	// MinSessions is the same for sessions of which only the size is known.
	MinSessions int `yaml:"min_sessions"`
	// MinServers is the number of servers at which one host fails in a window.
	MinServers int `yaml:"min_servers"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "bruteforce",
	Doc:   "many failed logins: SSH, FTP, SMTP, telnet, RDP, SMB, NTLM, Kerberos, MySQL, HTTP, and by connections alone",
	Scope: modules.PerProfile,
	Kinds: flow.Of(flow.SSH, flow.FTP, flow.SMTP, flow.Login, flow.RDP, flow.SMB, flow.NTLM, flow.Kerberos, flow.MySQL, flow.HTTP, flow.Conn),
	Emits: []evidence.Spec{{
		Type: PasswordGuessing, Level: evidence.Medium, Tactic: evidence.CredentialAccess, MITRE: []string{"T1110"},
		Subject: "victim, port, service", Over: "window", Method: "Threshold",
		Doc: "a host failed to log in many times",
	}},
}, Config{Threshold: 9, MinSessions: 20, MinServers: 10}, New)

const (
	// maxCampaigns bounds the servers remembered for one host, those tried
	// last. A worm tries each once, a guesser comes back to the same.
	maxCampaigns = 2048
	// maxUIDs bounds the records named for one server, maxUsers the accounts
	// told apart there: both times maxCampaigns is what a state may weigh.
	maxUIDs, maxUsers = 20, 32
	// maxAttempts bounds what one record may add: a server ends a connection
	// long before, so more is a broken log.
	maxAttempts = 10_000
	// maxBanner bounds the client's banner, which RFC 4253 limits to 255 bytes.
	maxBanner = 255
	// maxPending bounds what waits for the other logs.
	maxPending = 256
	// sure is the number of failures from which on there is no doubt, sureSessions
	// that of sessions judged by their size.
	sure, sureSessions = 30, 200
	// sustained is the number of tries in one go that no person and no fault
	// makes, where nothing says what came of them.
	sustained = 300
	// pause is the time after which tries are no longer of one go.
	pause = int64(5 * time.Minute)
	// clockwork is the part of the time between two tries by which those of a
	// timer differ at most: network and server make others differ by more.
	clockwork = 16
	// few and several are the public servers, in units of MinServers, at which
	// nobody fails in one window for want of care, and for any other reason.
	few, several = 4, 8
	// someUsers is the number of accounts that one person does not have.
	someUsers = 5
	// pace is the time within which the next try follows: guessing is fast, and
	// what comes more slowly and does not say that it failed is monitoring.
	pace = int64(30 * time.Second)
	// stale is the same for failures: a program with an old password that asks
	// every minute or every five does not guess.
	stale = int64(time.Minute)
	// wait is how long the protocol's own log may take. Where it is there it
	// says what came of a session, and connections alone are not judged.
	wait = 5 * time.Minute
	// slow is the number of failures over all windows that is reported for a
	// host that stays below the threshold in each.
	slow = 40
)

// Service is a protocol that passwords are tried over.
type Service uint8

// The services. Web is a form in a page, HTTP a password that the server asks for.
const (
	SSH Service = iota
	FTP
	SMTP
	Telnet
	RDP
	SMB
	NTLM
	Kerberos
	MySQL
	HTTP
	Web
	Sessions // whatever listens at the port
)

var names = [...]string{"SSH", "FTP", "SMTP", "telnet", "RDP", "SMB", "NTLM", "Kerberos", "MySQL", "HTTP", "web", "login"}

// State is what the module remembers of one profile.
type State struct {
	Campaigns modules.Recent[Key, Campaign]
	Totals    modules.Recent[Target, Total]
	Spread    modules.Recent[SpreadKey, Spread]
	Seen      modules.Recent[SeenKey, int64] // time of the first record of a protocol's own log, unix ns
	Pending   map[uint64]Pending             // sessions about to be reported, by running number
	Doors     map[uint64]Door                // servers about to be counted, likewise
	Next      uint64
	Dropped   uint64 // reports and servers given up because there was no room
}

// Target is one service of a server.
type Target struct {
	Addr    netip.Addr
	Port    uint16
	Service Service
}

// Key is a Target in a window.
type Key struct {
	Target
	Window int64
}

// SeenKey is a server's port in a window.
type SeenKey struct {
	Addr   netip.Addr
	Port   uint16
	Window int64
}

// SpreadKey is a service in a window, and its port where that is all that is known.
type SpreadKey struct {
	Service Service
	Port    uint16
	Window  int64
}

// Campaign counts what was tried at one Target in one window.
type Campaign struct {
	Attempts, Sessions int64
	Worked             int64 // logins that succeeded
	Last               int64 // time of the last record, unix ns
	LastUID            uint32
	Size               int64 // bytes that the client sends in a session, on average
	Run                int64 // tries in one go, those of the windows before included
	Gap, Drift         int64 // the time from one try to the next, and by how much it differs, ns, on average
	Step               int
	UIDs               []string
	Users              []uint32 // hashes
	Banner             string   // the client's latest
}

// Total counts failures over all windows.
type Total struct {
	N     int64
	Step  int
	Quiet bool // no window has been reported
	First int64
}

// Spread counts the servers of one service.
type Spread struct {
	Servers int64
	Public  int64 // of Servers
	Step    int
	UIDs    []string
}

// Pending is a report that waits for the protocol's own log.
type Pending struct {
	Evidence evidence.Evidence
	Key      SeenKey
}

// Door is a public server at which more than one session looked like a try.
type Door struct {
	Key  SeenKey
	Time int64
	UID  string
}

type rule struct{ threshold, sessions, servers int64 }

var (
	_ modules.Rule[State]       = rule{}
	_ modules.Chooser           = rule{}
	_ modules.TimerFirer[State] = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	for _, k := range []struct {
		name string
		n    int
	}{{"ssh_attempt_threshold", c.Threshold}, {"min_sessions", c.MinSessions}, {"min_servers", c.MinServers}} {
		if k.n < 1 || k.n > 1_000_000 {
			return nil, fmt.Errorf("%s: %d is not between 1 and 1000000", k.name, k.n)
		}
	}
	return rule{int64(c.Threshold), int64(c.MinSessions), int64(c.MinServers)}, nil
}

// result is what a record says about a login.
type result uint8

const (
	nothing result = iota
	failed
	worked
	unknown // a session of which nobody knows what came of it
)

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	if f.Kind == flow.Conn {
		return small(f)
	}
	_, r := judge(f)
	return r != nothing
}

// judge says which service a record is about and what came of the login.
func judge(f *flow.Flow) (Service, result) {
	switch f.Kind {
	case flow.SSH:
		switch {
		case f.Sensor == flow.Suricata: // does not look at the authentication
			return SSH, nothing
		case f.SSH.AuthSuccess == flow.True:
			return SSH, worked
		case f.SSH.AuthSuccess == flow.False || f.SSH.AuthAttempts > 0:
			return SSH, failed
		}
		return SSH, unknown
	case flow.FTP:
		switch c := f.FTP.ReplyCode; {
		case f.FTP.Command != "PASS" && f.FTP.Command != "USER":
		case c == 530 || c == 430:
			return FTP, failed
		case c == 230:
			return FTP, worked
		}
	case flow.SMTP:
		if refused(f.SMTP.LastReply) {
			return SMTP, failed
		}
	case flow.Login:
		switch {
		case f.Login.Success == flow.True:
			return Telnet, worked
		case f.Login.Success == flow.False && f.Login.Confused != flow.True:
			return Telnet, failed
		}
	case flow.RDP:
		return RDP, unknown // the log ends where the password begins
	case flow.NTLM:
		switch f.NTLM.Success {
		case flow.True:
			return NTLM, worked
		case flow.False:
			return NTLM, failed
		case flow.Unset:
		}
	case flow.SMB:
		if strings.Contains(f.SMB.Command, "SESSION_SETUP") {
			return SMB, smbResult(f.SMB.Status)
		}
	case flow.Kerberos:
		k := f.Kerberos
		switch {
		case k.RequestType == "AS" && k.Success == flow.True:
			return Kerberos, worked
		case k.Success != flow.True && (strings.Contains(k.ErrorMsg, "PREAUTH_FAILED") || strings.Contains(k.ErrorMsg, "C_PRINCIPAL_UNKNOWN") ||
			strings.Contains(k.ErrorMsg, "CLIENT_REVOKED")):
			return Kerberos, failed
		}
	case flow.MySQL:
		if f.MySQL.Command == "login" {
			switch f.MySQL.Success {
			case flow.True:
				return MySQL, worked
			case flow.False:
				return MySQL, failed
			case flow.Unset:
			}
		}
	case flow.HTTP:
		h := f.HTTP
		switch {
		case h.Username != "" && (h.StatusCode == 401 || h.StatusCode == 403):
			return HTTP, failed
		case h.Username != "" && h.StatusCode >= 200 && h.StatusCode < 400:
			return HTTP, worked
		case h.Method == "POST" && loginPage(h.URI):
			return Web, unknown
		}
	default: // no login
	}
	return 0, nothing
}

// refused reports whether an SMTP server's reply says that a login failed
// (RFC 4954, section 6).
func refused(reply string) bool {
	return strings.HasPrefix(reply, "535") || strings.Contains(reply, "bad smtp-auth user") || strings.Contains(reply, "uthentication failed")
}

func smbResult(status string) result {
	s := strings.TrimPrefix(status, "STATUS_")
	switch strings.ToUpper(s) {
	case "LOGON_FAILURE", "0XC000006D", "WRONG_PASSWORD", "0XC000006A", "NO_SUCH_USER", "0XC0000064", "ACCOUNT_LOCKED_OUT", "0XC0000234",
		"PASSWORD_EXPIRED", "0XC0000071", "ACCOUNT_DISABLED", "0XC0000072":
		return failed
	case "SUCCESS", "0X0", "0X00000000":
		return worked
	}
	return nothing // MORE_PROCESSING_REQUIRED and the like
}

// loginPage reports whether a path is one where forms send passwords to.
func loginPage(uri string) bool {
	uri, _, _ = strings.Cut(uri, "?")
	for _, w := range [...]string{"login", "signin", "sign_in", "logon", "xmlrpc.php", "Login"} {
		if strings.Contains(uri, w) {
			return true
		}
	}
	return false
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client || !f.Dst.IsValid() || f.Dst.IsMulticast() {
		return
	}
	if f.Kind == flow.Conn {
		r.session(cx, st, f)
		return
	}
	s, res := judge(f)
	if res == nothing {
		return
	}
	if s != Web && s != HTTP {
		// Its log tells more than the connection does.
		k := SeenKey{f.Dst, f.DstPort, cx.Window().Start}
		if t, ok := st.Seen.Get(k); !ok || f.Time < t {
			st.Seen.Put(k, f.Time, maxCampaigns)
		}
	}
	if res == worked && (s == SSH || s == SMTP) {
		return
	}
	k := Key{Target{f.Dst, f.DstPort, s}, cx.Window().Start}
	c, known := st.campaign(cx, k, f.Time)
	if res == worked {
		if known { // most who log in have not failed, and need no place here
			c.Worked++
			st.Campaigns.Put(k, c, maxCampaigns)
		}
		return
	}
	if s == RDP && known && c.LastUID == hash(f.UID) { // Suricata logs each step of a session
		return
	}
	n := int64(1)
	if s == SSH { // no attempt or none logged still is a session that ended without a login
		n = int64(min(max(f.SSH.AuthAttempts, 1), maxAttempts))
	}
	user := userOf(f)
	gap := f.Time - c.Last
	alone := known && (res == unknown && far(gap, pace) || res == failed && s != SSH && far(gap, stale) && len(c.Users) < 2 &&
		(user == 0 || slices.Contains(c.Users, user)))
	if !alone {
		c.try(f.Time)
	}
	c.Last, c.LastUID = f.Time, hash(f.UID)
	if user != 0 && len(c.Users) < maxUsers && !slices.Contains(c.Users, user) {
		c.Users = append(slices.Clone(c.Users), user)
	}
	if !alone {
		c.Attempts += n
		c.Sessions++
		c.UIDs = named(c.UIDs, f.UID)
	}
	if s == SSH {
		if b := f.SSH.Client[:min(len(f.SSH.Client), maxBanner)]; b != "" && b != c.Banner {
			c.Banner = strings.Clone(b)
		}
	}
	step := r.step(s, c)
	report := step > c.Step
	c.Step = max(c.Step, step)
	st.Campaigns.Put(k, c, maxCampaigns)
	if report {
		cx.Emit(r.campaign(f, k.Target, c, step))
	}
	if res == failed {
		r.slow(cx, st, f, k.Target, n, c.Step > 0)
	}
	if !known {
		r.spread(cx, st, f, k, res)
	}
}

// campaign returns what was tried at one target in a window. A new one goes on
// with the run of the window before it, unless there was a pause.
func (st *State) campaign(cx *modules.Context, k Key, now int64) (Campaign, bool) {
	c, known := st.Campaigns.Get(k)
	if !guessed(k.Service) {
		return c, known
	}
	if known {
		if far(now-c.Last, pause) {
			c.Run, c.Gap, c.Drift = 0, 0, 0
		}
		return c, true
	}
	k.Window -= cx.Window().End - cx.Window().Start
	if before, ok := st.Campaigns.Get(k); ok && !far(now-before.Last, pause) {
		c = Campaign{Last: before.Last, Run: before.Run, Gap: before.Gap, Drift: before.Drift}
	}
	return c, false
}

// try adds a try to the run.
func (c *Campaign) try(t int64) {
	c.Run++
	gap := t - c.Last
	if c.Run == 1 || gap < 0 || gap > pace {
		return
	}
	if c.Gap == 0 {
		c.Gap = gap
	}
	drift := gap - c.Gap
	c.Gap += drift / 32
	if drift < 0 {
		drift = -drift
	}
	c.Drift += (drift - c.Drift) / 32
}

// tries returns the number that tells how certain it is that a campaign
// guesses. Where nothing says what came of the tries, it is that of all in one
// go; but a timer, such as a monitor's, goes on for ever, and so do pages that
// send a form by themselves.
func (c *Campaign) tries(s Service) int64 {
	switch {
	case !guessed(s):
		return c.Attempts
	case s == Web || c.Drift*clockwork < c.Gap:
		return min(c.Attempts, sustained-1)
	}
	return max(c.Attempts, c.Run)
}

// inOneGo says how many tries there were since a run began, if more than are
// told of.
func (c *Campaign) inOneGo(s Service) string {
	if n := c.tries(s); n > c.Attempts {
		return fmt.Sprintf(", %d in one go", n)
	}
	return ""
}

func far(gap, limit int64) bool { return gap > limit || gap < -limit }

// step is 0 below the threshold T, and then grows each time that n-T+1 doubles,
// or n for services where nothing says what came of a login.
// Where logins also work, as those of a proxy for many people do, only more
// failures than those count.
func (r rule) step(s Service, c Campaign) int {
	t := r.first(s)
	if c.Attempts < t || c.Attempts <= c.Worked {
		return 0
	}
	if guessed(s) {
		return modules.Step(c.Attempts, t)
	}
	return bits.Len64(uint64(c.Attempts - t + 1))
}

// first returns the number that is reported first. Who only sees that somebody
// went to the door needs more to be sure than who heard that the key did not fit.
func (r rule) first(s Service) int64 {
	if guessed(s) {
		return r.sessions
	}
	return r.threshold
}

// guessed reports whether nothing says what came of the logins of a service.
func guessed(s Service) bool { return s == RDP || s == Web || s == Sessions }

func (r rule) campaign(f *flow.Flow, t Target, c Campaign, step int) evidence.Evidence {
	n := c.tries(t.Service)
	confidence := r.confidence(t.Service, n, c.Banner)
	level := evidence.Medium
	switch {
	case guessed(t.Service) && n < sureSessions: // medium
	case windows(t.Service) && len(c.Users) < someUsers: // one account: the machine that has it repeats an old password for its owner
		if c.Attempts < sure {
			level = evidence.Low
		}
	case c.Attempts >= sure:
		level = evidence.High
	}
	var what string
	switch {
	case t.Service == SSH:
		banner := "no client banner"
		if c.Banner != "" {
			banner = fmt.Sprintf("client banner %q from ssh.log", c.Banner)
		}
		what = fmt.Sprintf("%d failed attempts in %d sessions; %s; not confirmed by Zeek", c.Attempts, c.Sessions, banner)
	case guessed(t.Service):
		what = fmt.Sprintf("%d tries in quick succession%s", c.Attempts, c.inOneGo(t.Service))
	default:
		what = fmt.Sprintf("%d failed attempts", c.Attempts)
	}
	if n := len(c.Users); n > 1 {
		more := ""
		if n == maxUsers {
			more = "at least "
		}
		what += fmt.Sprintf("; %s%d accounts", more, n)
	}
	mitre := []string{"T1110.001"}
	if len(c.Users) >= someUsers { // many accounts, few tries each
		mitre = []string{"T1110.003"}
	}
	return evidence.Evidence{
		Type: PasswordGuessing, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
		Victim: evidence.IPEntity(t.Addr, evidence.Dst, t.Port), Level: level, Confidence: confidence, MITRE: mitre,
		Description: fmt.Sprintf("%s is guessing passwords of the %s server %s: %s; confidence %.2f.",
			f.Src, names[t.Service], netip.AddrPortFrom(t.Addr, t.Port), what, confidence),
		Proto: proto(f), DstPort: t.Port, UIDs: slices.Clone(c.UIDs), Count: c.Attempts, Subject: subject(t), Step: step,
	}
}

// proto names the transport. Logs of protocols that have only one leave it out.
func proto(f *flow.Flow) string {
	if f.Proto == flow.ProtoUnknown {
		return "tcp"
	}
	return f.Proto.String()
}

func subject(t Target) string {
	return t.Addr.String() + " " + strconv.Itoa(int(t.Port)) + " " + names[t.Service]
}

// windows reports whether the service is one where Windows itself sends the
// password of its user again and again.
func windows(s Service) bool { return s == SMB || s == NTLM || s == Kerberos || s == HTTP }

// slow reports failures that are few in each window and go on over many.
func (r rule) slow(cx *modules.Context, st *State, f *flow.Flow, t Target, n int64, loud bool) {
	sum, known := st.Totals.Get(t)
	if !known {
		sum.Quiet, sum.First = true, f.Time
	}
	sum.N += n
	sum.Quiet = sum.Quiet && !loud
	step := modules.Step(sum.N, slow)
	report := sum.Quiet && step > sum.Step
	sum.Step = max(sum.Step, step)
	st.Totals.Put(t, sum, maxCampaigns)
	if !report {
		return
	}
	cx.Emit(evidence.Evidence{
		Type: PasswordGuessing, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
		Victim: evidence.IPEntity(t.Addr, evidence.Dst, t.Port), Level: evidence.Low, Confidence: 0.5, MITRE: []string{"T1110.001"},
		Description: fmt.Sprintf("%s fails to log in to the %s server %s over and over, slowly: %d failed attempts in %d minutes.",
			f.Src, names[t.Service], netip.AddrPortFrom(t.Addr, t.Port), sum.N, (f.Time-sum.First)/int64(time.Minute)),
		Proto: proto(f), DstPort: t.Port, UIDs: named(nil, f.UID), Count: sum.N, Subject: subject(t) + " slow", Step: step,
	})
}

// spread counts the servers at which a host failed, and reports one that tries
// few passwords on each of many.
func (r rule) spread(cx *modules.Context, st *State, f *flow.Flow, t Key, res result) {
	if res != failed || windows(t.Service) || t.Service == SMTP {
		return // one Windows account fails on many servers as soon as its password changes
	}
	if e, ok := r.server(st, SpreadKey{Service: t.Service, Window: t.Window}, f.UID, public(cx, t.Addr)); ok {
		e.Attacker, e.Proto, e.DstPort = evidence.IPEntity(f.Src, evidence.Src, 0), proto(f), t.Port
		e.Description = fmt.Sprintf("%s failed to log in to %d different %s servers.", f.Src, e.Count, names[t.Service])
		e.Subject = "servers " + names[t.Service]
		cx.Emit(e)
	}
}

// server counts a server, and returns what there is to report.
func (r rule) server(st *State, k SpreadKey, uid string, public bool) (evidence.Evidence, bool) {
	s, _ := st.Spread.Get(k)
	s.Servers++
	if public {
		s.Public++
	}
	s.UIDs = named(s.UIDs, uid)
	step := modules.Step(s.Servers, r.servers)
	report := step > s.Step
	s.Step = max(s.Step, step)
	st.Spread.Put(k, s, 64) // services times the few windows that are open
	if !report {
		return evidence.Evidence{}, false
	}
	level, confidence := evidence.Medium, round(min(0.9, 0.5+float64(s.Servers)/100))
	switch {
	case s.Public >= several*r.servers:
		level, confidence = evidence.High, 1
	case s.Public >= few*r.servers:
		level, confidence = evidence.High, 0.8
	}
	return evidence.Evidence{
		Type: PasswordGuessing, Level: level, Confidence: confidence, MITRE: []string{"T1110.003"},
		UIDs: slices.Clone(s.UIDs), Count: s.Servers, Step: step,
	}, true
}

// public reports whether an address is none of the own network.
func public(cx *modules.Context, a netip.Addr) bool {
	return !profile.IsPrivate(a) && !cx.Network().IsHome(a)
}

// confidence grows from 0.5 at the threshold to 0.9 at sure, and is higher
// for the clients that guessing tools use. Where nothing says what came of the
// tries it grows from 0.4 to 0.8, and is 1 for those that go on and on.
func (r rule) confidence(s Service, n int64, banner string) float64 {
	first, full, base, top := r.first(s), int64(sure), 0.5, 1.0
	if guessed(s) {
		full, base, top = sureSessions, 0.4, 0.8
	}
	if guessed(s) && n >= max(first, sustained) {
		return 1
	}
	if full = max(first, full); n >= full {
		return top
	}
	c := base + 0.4*float64(n-first)/float64(full-first) + bonus(banner)
	return round(min(c, 0.99))
}

func round(c float64) float64 { return math.Round(100*c) / 100 }

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

// userOf returns a hash of the account tried, 0 where the log does not name it.
func userOf(f *flow.Flow) uint32 {
	switch f.Kind {
	case flow.FTP:
		return hash(f.FTP.User)
	case flow.Login:
		return hash(f.Login.User)
	case flow.RDP:
		return hash(f.RDP.Cookie)
	case flow.SMB:
		return hash(f.SMB.NTLMUser)
	case flow.NTLM:
		return hash(f.NTLM.User)
	case flow.Kerberos:
		return hash(f.Kerberos.Client)
	case flow.MySQL:
		return hash(f.MySQL.Arg)
	case flow.HTTP:
		return hash(f.HTTP.Username)
	default:
		return 0
	}
}

// hash returns a key of the lower-case text; 0 stands for the empty one.
func hash(s string) uint32 {
	if s == "" || s == "<unknown>" {
		return 0
	}
	return modules.HashLower(s)
}

// named returns uids with uid, as long as there is room. It never writes into
// the memory of uids, which a report may hold.
func named(uids []string, uid string) []string {
	if uid == "" || len(uids) >= maxUIDs {
		return uids
	}
	return append(slices.Clone(uids), strings.Clone(uid))
}
