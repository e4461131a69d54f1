// Package spambot reports hosts that are no mail servers and yet send mail to
// many of them.
package spambot

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Spam is the evidence this module emits.
const Spam evidence.Type = "SPAMBOT"

// Config holds the thresholds.
type Config struct {
	MinNetworks int64    `yaml:"min_networks"` // networks with mail servers that a host turned to in a window
	MinSenders  int64    `yaml:"min_senders"`  // domains of senders, or names given to the server, in a window
	MinDomains  int64    `yaml:"min_domains"`  // domains whose mail servers it looked up in a window
	MailServers []string `yaml:"mail_servers"` // addresses or networks of those who may
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name: "spambot",
	Doc:  "mail sent to many servers by a host that is none",
	// That a host is a mail server shows in what others send to it.
	Scope: modules.Network,
	Kinds: flow.Of(flow.Conn, flow.SMTP, flow.DNS),
	Emits: []evidence.Spec{{
		Type: Spam, Level: evidence.High, Tactic: evidence.Impact, MITRE: []string{"T1496", "T1566"}, Subject: "servers, senders or domains", Over: "window", Method: "Threshold",
		Doc: "a host that is no mail server sends mail to many servers",
	}},
}, Config{MinNetworks: 10, MinSenders: 10, MinDomains: 20, MailServers: []string{}}, New)

const (
	// wait is how long a report waits for the host to turn out a mail server.
	wait = 10 * time.Minute
	// maxHosts bounds the hosts and windows counted at one time, maxValues
	// what is told apart for each of them: about 8 KB for each sort.
	maxHosts  = 1024
	maxValues = 512
	// maxServers bounds the hosts that are known to accept mail or look-ups.
	maxServers = 4096
	// maxPending bounds the reports that wait.
	maxPending = 1024
)

// The sorts of signs.
const (
	networks = iota
	senders
	names
	domains
	sorts
)

// State is what the module remembers of the network.
type State struct {
	Hosts   modules.Recent[uint64, *Host] // by hash of address and window
	Servers modules.Recent[Server, int64] // when each was first seen to serve, unix ns
	Pending map[uint64]Report             // by running number
	Next    uint64
}

// Server is a host that accepts mail, or look-ups.
type Server struct {
	Addr netip.Addr
	DNS  bool
}

// Host is what one host did in one window.
type Host struct{ Signs [sorts]Sign }

// Sign counts the different values of one sort.
type Sign struct {
	Seen   modules.Table[bool]
	Flows  int64
	Failed int64
	Step   int
	UIDs   []string
}

// Report is evidence that waits. It holds what was known when the step was
// reached, so that it does not matter how far the other logs are by then.
type Report struct {
	Src           netip.Addr
	Sort, Step    int
	Time          int64
	N             int64
	Flows, Failed int64
	Port          uint16
	UIDs          []string
}

type rule struct {
	first  [sorts]int64
	exempt []netip.Prefix
}

var (
	_ modules.Rule[State]       = rule{}
	_ modules.Chooser           = rule{}
	_ modules.TimerFirer[State] = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	for _, v := range []struct {
		key string
		n   int64
	}{{"min_networks", c.MinNetworks}, {"min_senders", c.MinSenders}, {"min_domains", c.MinDomains}} {
		if v.n < 3 || v.n > maxValues {
			return nil, fmt.Errorf("%s: %d is not in 3..%d", v.key, v.n, maxValues)
		}
	}
	r := rule{first: [sorts]int64{c.MinNetworks, c.MinSenders, c.MinSenders, c.MinDomains}}
	for _, s := range c.MailServers {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, err := netip.ParseAddr(s)
			if err != nil {
				return nil, fmt.Errorf("mail_servers: %q is no address and no network", s)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		r.exempt = append(r.exempt, p.Masked())
	}
	return r, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	switch f.Kind {
	case flow.Conn:
		return f.Proto == flow.TCP && mailPort(f.DstPort) && !f.Open
	case flow.DNS:
		return f.DNS.QType == "MX"
	default:
		return f.Kind == flow.SMTP
	}
}

func mailPort(p uint16) bool { return p == 25 || p == 465 || p == 587 || p == 2525 }

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if !f.Src.IsValid() || !f.Dst.IsValid() || r.exempted(f.Src) {
		return
	}
	switch f.Kind {
	case flow.Conn:
		failed := f.State == flow.NotEstablished && f.RespBytes == 0
		if !failed && f.State == flow.Established && (f.RespBytes > 0 || f.RespPkts > 1) {
			st.serves(f)
		}
		if profile.IsPublic(f.Dst) {
			// Providers answer from many addresses of one network.
			r.count(cx, st, f, networks, network(f.Dst), failed)
		}
	case flow.SMTP:
		s := f.SMTP
		if s.LastReply != "" {
			st.serves(f)
		}
		if d := domain(s.MailFrom); d != "" {
			r.count(cx, st, f, senders, modules.HashLower(d), false)
		}
		if s.Helo != "" {
			r.count(cx, st, f, names, modules.HashLower(s.Helo), false)
		}
	case flow.DNS:
		st.serves(f) // a resolver asks for its clients
		r.count(cx, st, f, domains, modules.HashLower(registered(f.DNS.Query)), false)
	default:
	}
}

func (r rule) exempted(a netip.Addr) bool {
	for _, p := range r.exempt {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// serves notes that the responder serves others. Of those on the Internet it
// is known, and they are many.
func (st *State) serves(f *flow.Flow) {
	if profile.IsPublic(f.Dst) && !profile.IsPublic(f.Src) {
		return
	}
	k := Server{f.Dst, f.Kind == flow.DNS}
	first, ok := st.Servers.Get(k)
	if !ok || f.Time < first {
		first = f.Time
	}
	st.Servers.Put(k, first, maxServers)
}

// count adds a value to those of a sort, and prepares the report of a step.
func (r rule) count(cx *modules.Context, st *State, f *flow.Flow, sort int, value uint32, failed bool) {
	k := flow.HashMix(flow.HashAddr(f.Src), uint64(cx.Window().N))
	h, ok := st.Hosts.Get(k)
	if !ok {
		h = new(Host)
		st.Hosts.Put(k, h, maxHosts)
	} else if _, young := st.Hosts.Young[k]; !young {
		st.Hosts.Put(k, h, maxHosts)
	}
	s := &h.Signs[sort]
	s.Flows++
	if failed {
		s.Failed++
	}
	if s.Seen.Get(value) != nil || s.Seen.Len() >= maxValues {
		return
	}
	*s.Seen.Put(value) = true
	if f.UID != "" && len(s.UIDs) < evidence.MaxUIDs {
		s.UIDs = append(s.UIDs, strings.Clone(f.UID))
	}
	n := int64(s.Seen.Len())
	step := modules.Step(n, r.first[sort])
	if step <= s.Step || len(st.Pending) >= maxPending {
		return
	}
	s.Step = step
	if st.Pending == nil {
		st.Pending = make(map[uint64]Report)
	}
	st.Pending[st.Next] = Report{
		Src: f.Src, Sort: sort, Step: step, Time: f.Time, N: n, Flows: s.Flows, Failed: s.Failed, Port: f.DstPort,
		UIDs: append([]string(nil), s.UIDs...),
	}
	cx.After(wait, st.Next)
	st.Next++
}

// Fire implements modules.TimerFirer.
func (r rule) Fire(cx *modules.Context, st *State, number uint64) {
	p, ok := st.Pending[number]
	if !ok {
		return
	}
	delete(st.Pending, number)
	for _, dns := range [...]bool{false, p.Sort == domains} {
		if first, ok := st.Servers.Get(Server{p.Src, dns}); ok && first <= p.Time+int64(wait) {
			return
		}
	}
	e := evidence.Evidence{
		Type: Spam, Profile: p.Src, Time: p.Time, Level: evidence.High,
		Attacker: evidence.IPEntity(p.Src, evidence.Src, 0), Proto: "tcp", DstPort: p.Port,
		Count: p.Flows, UIDs: p.UIDs, Step: p.Step,
	}
	grade := float64(p.N) / float64(2*r.first[p.Sort])
	switch p.Sort {
	case networks:
		e.Subject = "servers"
		e.Description = fmt.Sprintf("%s is no mail server and sends mail to servers in %d different networks: %d connections, %d of them failed",
			p.Src, p.N, p.Flows, p.Failed)
	case senders:
		e.Subject, e.Level = "senders", evidence.Medium
		e.Description = fmt.Sprintf("%s is no mail server and sends mail in the name of %d different domains: %d messages", p.Src, p.N, p.Flows)
	case names:
		e.Subject, e.Level = "names", evidence.Medium
		e.Description = fmt.Sprintf("%s gives %d different names for itself to mail servers: %d messages", p.Src, p.N, p.Flows)
	default:
		e.Subject, e.Level, e.Proto = "domains", evidence.Low, "udp"
		e.Description = fmt.Sprintf("%s is no mail server and looked up the mail servers of %d different domains", p.Src, p.N)
	}
	e.Confidence = math.Round(100*min(1, grade)) / 100
	cx.Emit(e)
}

// registered returns the registered domain of a name: a program that talks
// through names of one domain may ask for their mail servers, but sends no mail.
func registered(name string) string {
	name = strings.TrimSuffix(name, ".")
	if d, err := publicsuffix.EffectiveTLDPlusOne(name); err == nil {
		return d
	}
	return name
}

// domain returns what stands behind the @ of an address.
func domain(s string) string {
	_, d, _ := strings.Cut(s, "@")
	return strings.TrimRight(d, "> ")
}

// network returns the hash of the /24 or /48 that a lies in.
func network(a netip.Addr) uint32 {
	a = a.Unmap()
	b := a.As16()
	keep := 15
	if a.Is6() {
		keep = 6
	}
	clear(b[keep:])
	return modules.Hash(netip.AddrFrom16(b), 0)
}
