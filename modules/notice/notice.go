// Package notice turns the notices of Zeek's own scripts into evidence.
package notice

import (
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// The evidence this module emits.
const (
	VerticalScan     evidence.Type = "VERTICAL_PORT_SCAN"
	HorizontalScan   evidence.Type = "HORIZONTAL_PORT_SCAN"
	AddressScan      evidence.Type = "ICMP_ADDRESS_SCAN"
	TimestampScan    evidence.Type = "ICMP_TIMESTAMP_SCAN"
	AddressMaskScan  evidence.Type = "ICMP_ADDRESS_MASK_SCAN"
	PasswordGuessing evidence.Type = "PASSWORD_GUESSING"
	ZeekNotice       evidence.Type = "ZEEK_NOTICE"
)

// Config holds the settings.
type Config struct {
	// Ignore lists notices that say nothing about a host. A name that ends in
	// "*" stands for all that begin with what is before it; one that begins
	// with "*" for all that end with what is behind it.
	Ignore []string `yaml:"ignore"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "notice",
	Doc:   "notices of Zeek's own scripts",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.Notice),
	Needs: flow.Of(flow.Notice),
	Emits: []evidence.Spec{
		{Type: VerticalScan, Level: evidence.High, Tactic: evidence.Discovery, MITRE: []string{"T1046"}, Subject: "note and what it names", Over: "window", Doc: "Zeek noticed a scan of many ports of one host"},
		{Type: HorizontalScan, Level: evidence.High, Tactic: evidence.Discovery, MITRE: []string{"T1046"}, Subject: "note and what it names", Over: "window", Doc: "Zeek noticed a scan of one port on many hosts"},
		{Type: AddressScan, Level: evidence.Medium, Tactic: evidence.Discovery, MITRE: []string{"T1018"}, Subject: "note and what it names", Over: "window", Doc: "Zeek noticed echo requests to many hosts"},
		{Type: TimestampScan, Level: evidence.Medium, Tactic: evidence.Discovery, MITRE: []string{"T1018"}, Subject: "note and what it names", Over: "window", Doc: "Zeek noticed ICMP timestamp requests to many hosts"},
		{Type: AddressMaskScan, Level: evidence.Medium, Tactic: evidence.Discovery, MITRE: []string{"T1018"}, Subject: "note and what it names", Over: "window", Doc: "Zeek noticed ICMP address mask requests to many hosts"},
		{Type: PasswordGuessing, Level: evidence.Medium, Tactic: evidence.CredentialAccess, MITRE: []string{"T1110.001"}, Subject: "note and what it names", Over: "window", Doc: "Zeek noticed password guessing"},
		{Type: ZeekNotice, Level: evidence.Info, Tactic: evidence.Context, Subject: "note and what it names", Over: "window", Doc: "any other notice; the level depends on which it is"},
	},
}, Config{Ignore: []string{
	"Broker::*", "CaptureLoss::*", "Cluster::*", "Conn::Content_Gap", "Notice::Tally", "PacketFilter::*", "Reporter::*",
	"*Gateway_addr_identified",
}}, New)

const (
	// maxSubjects bounds the different notices about one host in a window.
	maxSubjects = 2048
	// maxText bounds Zeek's own words in a description, in bytes.
	maxText = 400
	// maxName bounds the name of a notice, in bytes.
	maxName = 100
	// firstHosts is the number of hosts at which Zeek's ICMP scripts speak first.
	firstHosts = 5
)

// State is what the module remembers of one profile in one window.
type State struct {
	Seen    map[string]*Hits // by subject
	Dropped int64            // notices not reported because Seen was full
}

// Hits counts the notices of one subject.
type Hits struct {
	N    int64
	Step int
	UIDs []string // at most evidence.MaxUIDs
}

type rule struct {
	ignore []string
	log    *slog.Logger
}

var _ modules.Rule[State] = rule{}

// New checks the config and returns the rule.
func New(c Config, env modules.Env) (modules.Rule[State], error) {
	for i, p := range c.Ignore {
		if strings.Trim(p, "*") == "" || strings.Contains(strings.Trim(p, "*"), "*") {
			return nil, fmt.Errorf("ignore: entry %d: %q is not the name of a notice with at most a * at either end", i+1, p)
		}
	}
	return rule{ignore: append([]string(nil), c.Ignore...), log: env.Log}, nil
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	n := f.Notice
	if n.Note == "" || !f.Src.IsValid() || cx.Role() != profile.Client || r.ignored(n.Note) {
		return
	}
	name := strings.Clone(modules.Clip(n.Note, maxName))
	e := evidence.Evidence{
		Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Confidence: 1,
		Description: describe(name, n), Proto: f.Proto.String(), SrcPort: f.SrcPort, DstPort: port(f),
	}
	victim, size, first := target(f), int64(0), int64(1)
	subject := name
	switch {
	case strings.HasSuffix(n.Note, "Port_Scan"):
		if a, ok := addrAfter(n.Msg, "of host "); ok {
			victim = a
		}
		e.Type, e.Level, e.DstPort = VerticalScan, evidence.High, 0
	case strings.HasSuffix(n.Note, "Address_Scan"):
		e.Type, e.Level = HorizontalScan, evidence.High
		victim = netip.Addr{}
		subject += " port " + strconv.Itoa(int(e.DstPort)) + "/" + e.Proto
	case strings.Contains(n.Note, "ICMPAddressScan"):
		e.Type, size = AddressScan, hosts(n)
	case strings.Contains(n.Note, "TimestampScan"):
		e.Type, size = TimestampScan, hosts(n)
	case strings.Contains(n.Note, "AddressMaskScan"):
		e.Type, size = AddressMaskScan, hosts(n)
	case strings.HasSuffix(n.Note, "Password_Guessing"):
		e.Type, e.Level = PasswordGuessing, evidence.Medium
		victim = netip.Addr{}
	default:
		e.Type = ZeekNotice
		e.Level, e.Confidence = rank(n.Note)
		subject += " port " + strconv.Itoa(int(e.DstPort))
	}
	if size > 0 {
		// A sweep grows by the hosts in the message, not by the messages.
		e.Level, e.Confidence, first = evidence.Medium, sweep(size), firstHosts
		victim = netip.Addr{}
	}
	if victim.IsValid() {
		e.Victim = evidence.IPEntity(victim, evidence.Dst, e.DstPort)
		subject += " " + victim.String()
	}
	h := st.Seen[subject]
	if h == nil {
		if len(st.Seen) >= maxSubjects {
			if st.Dropped++; st.Dropped&(st.Dropped-1) == 0 {
				r.log.Warn("too many different notices about one host in a window", "profile", cx.Profile(), "not_reported", st.Dropped)
			}
			return
		}
		if st.Seen == nil {
			st.Seen = make(map[string]*Hits)
		}
		h = new(Hits)
		st.Seen[subject] = h
	}
	h.N++
	if len(h.UIDs) < evidence.MaxUIDs && f.UID != "" {
		h.UIDs = append(h.UIDs, strings.Clone(f.UID))
	}
	step := modules.Step(h.N, 1)
	e.Count = h.N
	switch {
	case e.Type == PasswordGuessing:
		step = 1 // once for a source in a window
	case size > 0:
		step, e.Count = max(modules.Step(size, first), 1), size
	}
	if step <= h.Step {
		return
	}
	h.Step = step
	e.UIDs, e.Subject, e.Step = append([]string(nil), h.UIDs...), subject, step
	cx.Emit(e)
}

func (r rule) ignored(note string) bool {
	for _, p := range r.ignore {
		head, open := strings.CutSuffix(p, "*")
		tail, floating := strings.CutPrefix(head, "*")
		switch {
		case open && floating && strings.Contains(note, tail),
			open && !floating && strings.HasPrefix(note, head),
			!open && floating && strings.HasSuffix(note, tail),
			note == p:
			return true
		}
	}
	return false
}

func describe(name string, n *flow.NoticePart) string {
	d := "Zeek noticed " + name
	if n.Msg != "" {
		d += ": " + modules.Clip(n.Msg, maxText)
	}
	if n.Sub != "" {
		d += " (" + modules.Clip(n.Sub, maxText) + ")"
	}
	return d
}

// target returns the other side of the notice; invalid when there is none or
// when the notice is about one host.
func target(f *flow.Flow) netip.Addr {
	if f.Dst.IsValid() && f.Dst != f.Src {
		return f.Dst
	}
	return netip.Addr{}
}

func port(f *flow.Flow) uint16 {
	if f.Notice.Port != 0 {
		return f.Notice.Port
	}
	return f.DstPort
}

// hosts returns the number of hosts that a sweep has reached: the one in
// "… on 130 hosts", else the notice's own counter, at least 1.
func hosts(n *flow.NoticePart) int64 {
	head, _, ok := strings.Cut(n.Msg, " hosts")
	if ok {
		num := head[strings.LastIndexByte(head, ' ')+1:]
		if v, err := strconv.ParseInt(num, 10, 64); err == nil && v > 0 {
			return v
		}
	}
	return max(n.N, 1)
}

// sweep returns the confidence of an ICMP sweep: 1 from 255 hosts on, half of
// that at 130, and never so little that the first notice counts for nothing.
func sweep(hosts int64) float64 {
	c := min(max(float64(hosts-firstHosts)/250, 0.3), 1)
	return math.Round(100*c) / 100
}

// addrAfter returns the address behind the first word in s.
func addrAfter(s, word string) (netip.Addr, bool) {
	_, rest, ok := strings.Cut(s, word)
	if !ok {
		return netip.Addr{}, false
	}
	if i := strings.IndexAny(rest, " ,;"); i >= 0 {
		rest = rest[:i]
	}
	a, err := netip.ParseAddr(strings.TrimRight(rest, ".:"))
	return a, err == nil
}

// grade is the level and confidence of a notice, by its name or by the script
// it comes from.
type grade struct {
	name       string // ends in "::" when it stands for all of a script
	level      evidence.Level
	confidence float64
}

// grades are the notices that weigh something. All others are info.
var grades = [...]grade{
	{"ATTACK::", evidence.Medium, 0.8},
	{"EternalSafety::", evidence.Medium, 0.8},
	{"FTP::Bruteforcing", evidence.Medium, 0.8},
	{"FTP::Site_Exec_Success", evidence.Medium, 0.8},
	{"HTTP::SQL_Injection_Attacker", evidence.Medium, 0.8},
	{"Heartbleed::", evidence.Medium, 0.8},
	{"Intel::Notice", evidence.Medium, 0.8},
	{"SMTP::Suspicious_Origination", evidence.Low, 0.5},
	{"SSH::Interesting_Hostname_Login", evidence.Low, 0.5},
	{"SSL::Invalid_Server_Cert", evidence.Low, 0.3},
	{"Scan::", evidence.Low, 0.8},
	{"Signatures::Count_Signature", evidence.Medium, 0.5},
	{"Signatures::Multiple_Sig_Responders", evidence.Medium, 0.8},
	{"Signatures::Multiple_Signatures", evidence.Medium, 0.8},
	{"Signatures::Sensitive_Signature", evidence.Medium, 0.5},
	{"TeamCymruMalwareHashRegistry::Match", evidence.Medium, 0.8},
	{"Traceroute::Detected", evidence.Low, 0.5},
}

func rank(note string) (evidence.Level, float64) {
	for _, g := range grades {
		if note == g.name || (strings.HasSuffix(g.name, "::") && strings.HasPrefix(note, g.name)) {
			return g.level, g.confidence
		}
	}
	return evidence.Info, 0.8
}
