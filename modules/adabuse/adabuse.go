// Package adabuse reports abuse of a Windows domain: credentials drawn from
// its controllers, and the search for accounts.
package adabuse

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
)

// The evidence this module emits.
const (
	DCSync        evidence.Type = "DCSYNC"
	Zerologon     evidence.Type = "ZEROLOGON"
	Kerberoasting evidence.Type = "KERBEROASTING"
	Enumeration   evidence.Type = "DOMAIN_ENUMERATION"
)

// Config holds the thresholds.
type Config struct {
	// MinTickets is the number of hosts or accounts for whose services a
	// client asks weak tickets within a minute that is reported first.
	MinTickets int `yaml:"min_tickets"`
	// MinHosts is the number of hosts asked for users, sessions or shares in
	// a window that is reported first.
	MinHosts int `yaml:"min_hosts"`
	// MinTries is the number of netlogon log-ons tried on one server within a
	// minute that is reported first.
	MinTries int `yaml:"min_tries"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name: "adabuse",
	Doc:  "abuse of a Windows domain: DCSync, Zerologon, Kerberoasting, accounts enumerated",
	// Which hosts are controllers shows in what others ask of them.
	Scope: modules.Network,
	Kinds: flow.Of(flow.DCERPC, flow.Kerberos, flow.Conn),
	Emits: []evidence.Spec{
		{
			Type: DCSync, Level: evidence.Critical, Tactic: evidence.CredentialAccess, MITRE: []string{"T1003.006"}, Subject: "victim", Over: "window",
			Doc: "a host that is no domain controller had the domain's secrets replicated to it",
		},
		{
			Type: Zerologon, Level: evidence.High, Tactic: evidence.CredentialAccess, MITRE: []string{"T1210", "T1068"}, Subject: "victim", Over: "1 min",
			Method: "Threshold", Doc: "a host tried netlogon's log-on again and again, as the attack on its flaw does",
		},
		{
			Type: Kerberoasting, Level: evidence.High, Tactic: evidence.CredentialAccess, MITRE: []string{"T1558.003"}, Subject: "host", Over: "1 min",
			Method: "Threshold", Doc: "a client asked for weak tickets of many services at once",
		},
		{
			Type: Enumeration, Level: evidence.Low, Tactic: evidence.Discovery, MITRE: []string{"T1087.002", "T1018", "T1135"},
			Subject: "victim or host", Over: "window", Doc: "a host listed accounts, groups, sessions or shares of others",
		},
	},
}, Config{MinTickets: 6, MinHosts: 5, MinTries: 20}, New)

const (
	// maxHosts bounds the controllers, and the clients watched at a time.
	maxHosts, maxClients = 1024, 4096
	// maxAsked bounds the hosts told apart that one client asked, and the
	// services within a minute.
	maxAsked = 256
	// maxPending bounds the replications that wait for word of who is a
	// controller, maxExamples the records named.
	maxPending, maxExamples = 256, 20
	// wait is how long it may take until others have asked something of a
	// controller that came up with the capture.
	wait = 10 * time.Minute
	// burst is the time in which tickets and log-ons are added up.
	burst = int64(time.Minute)
	// many is the number of log-ons tried that leaves no doubt: a machine
	// needs one, the attack some 256.
	many = 100
)

// State is what the module remembers of the network.
type State struct {
	Controllers modules.Recent[netip.Addr, int64] // time of the first request of another host, unix ns
	Pending     map[uint64]Pending
	Next        uint64
	Dropped     uint64 // replications not judged because Pending was full
	Syncs       modules.Recent[Sync, bool]
	Tries       modules.Recent[Pair, Tries]
	Tickets     modules.Recent[netip.Addr, Tickets]
	Lists       modules.Recent[Lister, List]
}

// Pair is two hosts, in a window where that matters.
type Pair struct {
	Src, Dst netip.Addr
	Window   int64
}

// Sync is a replication between two hosts in a window.
type Sync struct {
	Pair
	Drawn bool // the secrets came; otherwise the controller was only told to fetch changes itself
}

// Pending is a replication.
type Pending struct {
	Sync
	Port uint16
	Time int64 // unix ns
	UID  string
}

// Tries are log-ons tried.
type Tries struct {
	Start  int64 // of the minute, unix ns
	N      int64
	Reset  bool  // a new password was set behind them
	Window int64 // start, unix ns
	Step   int
	UIDs   []string
}

// Tickets are the weak tickets of one client.
type Tickets struct {
	Start  int64 // of the minute, unix ns
	Hashes []uint32
	Own    int64 // of Hashes, those of accounts that people chose the passwords of
	Window int64
	Step   int
	UIDs   []string
}

// Lister is a host that lists, in a window.
type Lister struct {
	Addr   netip.Addr
	Window int64
}

// List is what a Lister has asked.
type List struct {
	Hosts []uint32 // hashes
	Step  int
	Deep  []uint32 // those whose accounts or groups were listed
	UIDs  []string
}

type rule struct{ tickets, hosts, tries int64 }

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
	}{{"min_tickets", c.MinTickets}, {"min_hosts", c.MinHosts}, {"min_tries", c.MinTries}} {
		if k.n < 2 || k.n > maxAsked/2 {
			return nil, fmt.Errorf("%s: %d is not between 2 and %d", k.name, k.n, maxAsked/2)
		}
	}
	return rule{int64(c.MinTickets), int64(c.MinHosts), int64(c.MinTries)}, nil
}

// act is what a record says.
type act uint8

const (
	nothing act = iota
	asks        // something that only a controller is asked
	replicates
	prompts  // a controller to fetch changes from another, as administrators do
	logsOn   // over netlogon
	resets   // the password of a machine
	lists    // sessions, users or shares that programs look at too
	searches // accounts or members of groups
	ticket   // a weak one
)

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool { return judge(f) != nothing }

// judge says what a record is about. The operations are those of Microsoft's
// open specifications MS-DRSR, MS-NRPC, MS-SAMR, MS-LSAD, MS-SRVS and MS-WKST;
// sensors that do not know one log its number.
func judge(f *flow.Flow) act {
	switch f.Kind {
	case flow.Conn:
		if f.State == flow.Established && (f.DstPort == 88 || f.DstPort == 389 || f.DstPort == 636 || f.DstPort == 3268 || f.DstPort == 3269) {
			return asks
		}
	case flow.Kerberos:
		k := f.Kerberos
		if k.RequestType == "TGS" && k.Success == flow.True && strings.HasPrefix(k.Cipher, "rc4") && account(k.Service) != "" {
			return ticket
		}
		if f.DstPort == 88 { // a ticket shown to any other server is logged too
			return asks
		}
	case flow.DCERPC:
		return operation(f.DCERPC)
	default: // not of a kind that is delivered
	}
	return nothing
}

func operation(d *flow.DCERPCPart) act {
	op := strings.TrimPrefix(d.Operation, "unknown-")
	switch strings.ToLower(d.Endpoint) {
	case "drsuapi", "e3514235-4b06-11d1-ab04-00c04fc2dcd2":
		switch op {
		case "DRSGetNCChanges", "3":
			return replicates
		case "DRSReplicaSync", "2":
			return prompts
		}
		return asks
	case "netlogon", "12345678-1234-abcd-ef00-01234567cffb":
		switch op {
		case "NetrServerReqChallenge", "4", "NetrServerAuthenticate", "5", "NetrServerAuthenticate2", "15", "NetrServerAuthenticate3", "26":
			return logsOn
		case "NetrServerPasswordSet", "6", "NetrServerPasswordSet2", "30":
			return resets
		}
	case "samr", "12345778-1234-abcd-ef00-0123456789ac":
		switch {
		case strings.HasPrefix(op, "SamrEnumerateUsers") || strings.HasPrefix(op, "SamrEnumerateGroups") || strings.HasPrefix(op, "SamrEnumerateAliases") ||
			strings.HasPrefix(op, "SamrQueryDisplayInformation") || strings.HasPrefix(op, "SamrGetMembersIn"):
			return searches
		case op == "13" || op == "11" || op == "15" || op == "40" || op == "48" || op == "51" || op == "25" || op == "33":
			return searches
		}
	case "lsarpc", "12345778-1234-abcd-ef00-0123456789ab":
		if strings.HasPrefix(op, "LsarEnumerateAccounts") || op == "11" {
			return searches
		}
	case "srvsvc", "4b324fc8-1670-01d3-1278-5a47bf6ee188":
		if op == "NetrSessionEnum" || op == "12" || op == "NetrShareEnum" || op == "15" || op == "NetrConnectionEnum" || op == "8" {
			return lists
		}
	case "wkssvc", "6bffd098-a112-3610-9833-46c3f87e345a":
		if op == "NetrWkstaUserEnum" || op == "2" {
			return lists
		}
	}
	return nothing
}

// account returns whose password protects a ticket of a service: that of the
// service's host or account. That of the domain itself and of machines, whose
// names end in $, is no use to who guesses.
func account(service string) string {
	class, rest, ok := strings.Cut(service, "/")
	if strings.EqualFold(class, "krbtgt") || strings.HasSuffix(class, "$") {
		return ""
	}
	if !ok {
		return class
	}
	rest, _, _ = strings.Cut(rest, "/")
	rest, _, _ = strings.Cut(rest, ":")
	return rest
}

// ofMachine reports whether a service is one that Windows itself offers on each
// machine. Its password is the machine's: 120 characters of chance, which nobody
// can guess, so programs for Kerberoasting leave such services out.
func ofMachine(service string) bool {
	class, _, ok := strings.Cut(service, "/")
	if !ok {
		return false
	}
	for _, c := range [...]string{"host", "cifs", "RestrictedKrbHost", "ldap", "GC", "DNS", "TERMSRV", "WSMAN", "RPC", "RPCSS"} {
		if strings.EqualFold(class, c) {
			return true
		}
	}
	return false
}

// Handle implements modules.Rule. All but replication is judged by records of
// one kind, at once; who is a controller shows in several.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if !f.Src.IsValid() || !f.Dst.IsValid() || f.Src == f.Dst {
		return
	}
	switch judge(f) {
	case asks:
		st.controller(f)
	case replicates:
		st.controller(f) // whoever has it to give
		r.replicates(cx, st, f, true)
	case prompts:
		st.controller(f)
		r.replicates(cx, st, f, false)
	case logsOn:
		r.logsOn(cx, st, f, false)
	case resets:
		r.logsOn(cx, st, f, true)
	case lists:
		r.list(cx, st, f, false)
	case searches:
		r.list(cx, st, f, true)
	case ticket:
		st.controller(f)
		r.ticket(cx, st, f)
	case nothing:
	}
}

// controller takes note of a host that was asked for what only domain
// controllers have.
func (st *State) controller(f *flow.Flow) {
	t, known := st.Controllers.Get(f.Dst)
	if known && t <= f.Time {
		return
	}
	st.Controllers.Put(f.Dst, f.Time, maxHosts)
}

func (rule) replicates(cx *modules.Context, st *State, f *flow.Flow, drawn bool) {
	p := Sync{Pair{f.Src, f.Dst, cx.Window().Start}, drawn}
	if _, told := st.Syncs.Get(p); told {
		return
	}
	st.Syncs.Put(p, true, maxClients)
	if len(st.Pending) >= maxPending {
		st.Dropped++
		return
	}
	if st.Pending == nil {
		st.Pending = make(map[uint64]Pending)
	}
	key := st.Next
	st.Next++
	st.Pending[key] = Pending{p, f.DstPort, f.Time, strings.Clone(f.UID)}
	cx.After(wait, key)
}

// Fire implements modules.TimerFirer. Controllers replicate from each other
// all day; who has not served anybody until now is none. Requests of later
// may be known or not, so they do not count.
func (rule) Fire(cx *modules.Context, st *State, key uint64) {
	p, ok := st.Pending[key]
	if !ok {
		return
	}
	delete(st.Pending, key)
	if t, is := st.Controllers.Get(p.Src); is && t <= p.Time+int64(wait) {
		return
	}
	level, confidence, text, step := evidence.Critical, 1.0, "had the domain controller %s replicate secrets to it (DRSGetNCChanges)", 2
	if !p.Drawn {
		level, confidence, text, step = evidence.Low, 0.8, "had the domain controller %s fetch changes from another (DRSReplicaSync)", 1
	}
	cx.Emit(evidence.Evidence{
		Type: DCSync, Profile: p.Src, Time: p.Time, Attacker: evidence.IPEntity(p.Src, evidence.Src, 0),
		Victim: evidence.IPEntity(p.Dst, evidence.Dst, p.Port), Level: level, Confidence: confidence,
		Description: fmt.Sprintf("%s, which serves no domain, "+text+".", p.Src, p.Dst),
		Proto:       "tcp", DstPort: p.Port, UIDs: named(nil, p.UID), Count: 1, Subject: p.Dst.String(), Step: step,
	})
}

// logsOn adds up log-ons over netlogon. Each takes two calls, and a machine
// makes one in many minutes; the attack goes on until zeros happen to fit.
func (r rule) logsOn(cx *modules.Context, st *State, f *flow.Flow, reset bool) {
	k := Pair{f.Src, f.Dst, 0}
	c, known := st.Tries.Get(k)
	if !known && reset {
		return // machines change their passwords once a month
	}
	w := cx.Window().Start
	if far(f.Time-c.Start) || c.Window != w {
		c = Tries{Start: f.Time, Window: w, Step: stepIn(c.Step, c.Window == w)}
	}
	c.UIDs = named(c.UIDs, f.UID)
	if !reset {
		c.N++
	}
	step := modules.Step(c.N, 2*r.tries)
	level, confidence, end := evidence.High, 0.6, ""
	if c.N >= 2*many {
		confidence = 0.9
	}
	if reset && step > 0 && !c.Reset {
		c.Reset = true
		step = max(step, c.Step) + 1
		level, confidence, end = evidence.Critical, 1, ", and then set a new password"
	}
	report := step > c.Step
	c.Step = max(c.Step, step)
	st.Tries.Put(k, c, maxClients)
	if !report {
		return
	}
	cx.Emit(evidence.Evidence{
		Type: Zerologon, Profile: f.Src, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Victim: evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
		Level: level, Confidence: confidence,
		Description: fmt.Sprintf("%s made %d calls to log on to %s by netlogon within a minute%s.", f.Src, c.N, f.Dst, end),
		Proto:       "tcp", DstPort: f.DstPort, UIDs: slices.Clone(c.UIDs), Count: c.N, Subject: f.Dst.String(), Step: step,
	})
}

// stepIn keeps the step reported for as long as the window lasts.
func stepIn(step int, same bool) int {
	if same {
		return step
	}
	return 0
}

func far(gap int64) bool { return gap > burst || gap < -burst }

// ticket counts the accounts whose services' weak tickets a client asks for
// within a minute. Who uses services asks for them one at a time, and gets
// AES unless they are old.
func (r rule) ticket(cx *modules.Context, st *State, f *flow.Flow) {
	c, _ := st.Tickets.Get(f.Src)
	w := cx.Window().Start
	if far(f.Time-c.Start) || c.Window != w {
		c = Tickets{Start: f.Time, Window: w, Step: stepIn(c.Step, c.Window == w)}
	}
	h := modules.HashLower(account(f.Kerberos.Service))
	if slices.Contains(c.Hashes, h) || len(c.Hashes) >= maxAsked {
		return
	}
	c.Hashes = append(slices.Clone(c.Hashes), h)
	if !ofMachine(f.Kerberos.Service) {
		c.Own++
	}
	c.UIDs = named(c.UIDs, f.UID)
	n := int64(len(c.Hashes))
	step := modules.Step(n, r.tickets)
	report := step > c.Step
	c.Step = max(c.Step, step)
	st.Tickets.Put(f.Src, c, maxHosts)
	if !report {
		return
	}
	cx.Emit(evidence.Evidence{
		Type: Kerberoasting, Profile: f.Src, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Victim: evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
		Level: evidence.High, Confidence: r.roasts(n, c.Own),
		Description: fmt.Sprintf("%s asked %s for RC4 tickets of %d services' accounts within a minute, the last for %q.", f.Src, f.Dst, n,
			f.Kerberos.Service[:min(len(f.Kerberos.Service), 100)]),
		Proto: proto(f), DstPort: f.DstPort, UIDs: slices.Clone(c.UIDs), Count: n, Subject: "tickets", Step: step,
	})
}

// roasts is the confidence in n tickets, of which own are of accounts. Twice
// the first report's number within a minute leaves no doubt: no program uses so
// many services at once.
func (r rule) roasts(n, own int64) float64 {
	if own >= 2*r.tickets {
		return 1
	}
	return math.Round(100*min(0.9, 0.4+float64(n)/40)) / 100
}

// list counts the hosts that one host asked for lists. One that is asked for
// all accounts or the members of groups is told of its own: people look at
// shares, programs of administrators at groups.
func (r rule) list(cx *modules.Context, st *State, f *flow.Flow, deep bool) {
	k := Lister{f.Src, cx.Window().Start}
	c, _ := st.Lists.Get(k)
	h := modules.Hash(f.Dst, 0)
	first := !slices.Contains(c.Hosts, h)
	deep = deep && !slices.Contains(c.Deep, h) && len(c.Deep) < maxExamples
	if !first && !deep || len(c.Hosts) >= maxAsked && first {
		return
	}
	if first {
		c.Hosts = append(slices.Clone(c.Hosts), h)
	}
	c.UIDs = named(c.UIDs, f.UID)
	n := int64(len(c.Hosts))
	step := modules.Step(n, r.hosts)
	report := step > c.Step
	c.Step = max(c.Step, step)
	if deep {
		c.Deep = append(slices.Clone(c.Deep), h)
	}
	st.Lists.Put(k, c, maxHosts)
	if deep {
		cx.Emit(evidence.Evidence{
			Type: Enumeration, Profile: f.Src, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Victim: evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
			Level: evidence.Low, Confidence: 0.4, MITRE: []string{"T1087.002", "T1069.002"},
			Description: fmt.Sprintf("%s listed accounts or members of groups of %s (%s).", f.Src, f.Dst, f.DCERPC.Operation[:min(len(f.DCERPC.Operation), 60)]),
			Proto:       "tcp", DstPort: f.DstPort, UIDs: named(nil, f.UID), Count: 1, Subject: f.Dst.String(), Step: 1,
		})
	}
	if report {
		cx.Emit(evidence.Evidence{
			Type: Enumeration, Profile: f.Src, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Level: evidence.Medium, Confidence: 0.7,
			MITRE:       []string{"T1018", "T1135", "T1087.002"},
			Description: fmt.Sprintf("%s asked %d hosts for their accounts, sessions or shares.", f.Src, n),
			Proto:       "tcp", DstPort: f.DstPort, UIDs: slices.Clone(c.UIDs), Count: n, Subject: "hosts", Step: step,
		})
	}
}

func proto(f *flow.Flow) string {
	if f.Proto == flow.ProtoUnknown {
		return "tcp"
	}
	return f.Proto.String()
}

func named(uids []string, uid string) []string {
	if uid == "" || len(uids) >= maxExamples || len(uids) > 0 && uids[len(uids)-1] == uid {
		return uids
	}
	return append(slices.Clone(uids), strings.Clone(uid))
}
