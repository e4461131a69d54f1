// Package dnsinvalid reports names of the public DNS that resolved to an
// address which is none there.
package dnsinvalid

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Invalid is the evidence this module emits.
const Invalid evidence.Type = "INVALID_DNS_RESOLUTION"

// Config holds the threshold.
type Config struct {
	// LocalNames is the number of names below one domain with private addresses that make it a domain of the local network, at least 2.
	LocalNames int `yaml:"local_names"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "dnsinvalid",
	Doc:   "public names that resolve to private addresses",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.DNS),
	Needs: flow.Of(flow.DNS),
	Emits: []evidence.Spec{{
		Type: Invalid, Level: evidence.Info, Tactic: evidence.Context, MITRE: []string{"T1071.004"}, Subject: "name", Over: "window",
		Doc: "a name of the public DNS resolved to a private address",
	}},
}, Config{LocalNames: 3}, New)

const (
	// maxNames bounds the names remembered for one host and window. Below
	// domains of the local network all but the first few are not.
	maxNames = 100
	// maxMember bounds the domains remembered as those of the network; a host
	// is member of one, a server of a forest asks for a few.
	maxMember = 50
)

// State is what the module remembers of one profile in one window.
type State struct {
	Names  []Name   // in the order of their first look-ups
	Member []string // registered domains that the host is a member of, or that the network's own server has
}

// Name is a name that resolved to a private address.
type Name struct {
	Name, Domain string
	Addr         netip.Addr
	Time         int64
	UID          string
	Proto        flow.Proto
	Port         uint16
}

type rule struct{ local int }

var (
	_ modules.Rule[State]         = rule{}
	_ modules.Chooser             = rule{}
	_ modules.WindowCloser[State] = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.LocalNames < 2 || c.LocalNames > 1000 {
		return nil, fmt.Errorf("local_names: %d is not between 2 and 1000", c.LocalNames)
	}
	return rule{c.LocalNames}, nil
}

// Wants implements modules.Chooser.
func (r rule) Wants(f *flow.Flow) bool {
	d := f.DNS
	switch d.QType {
	case "A", "AAAA", "":
		return private(d.Answers).IsValid()
	case "SRV":
		return directory(d.Query) != ""
	}
	return false
}

// private returns the first private address among the answers.
func private(answers []string) netip.Addr {
	for _, a := range answers {
		if len(a) > 1 && (a[0] >= '0' && a[0] <= '9' || strings.IndexByte(a, ':') >= 0) {
			if ip, err := netip.ParseAddr(a); err == nil && profile.IsPrivate(ip) {
				return ip.Unmap()
			}
		}
	}
	return netip.Addr{}
}

// directory returns the domain whose directory server the name asks for, as
// members of a Windows domain do: _ldap._tcp.dc._msdcs.DOMAIN.
func directory(query string) string {
	if query == "" || query[0] != '_' {
		return ""
	}
	if _, domain, ok := strings.Cut(query, "._msdcs."); ok {
		return domain
	}
	for _, service := range [...]string{"_ldap._tcp.", "_kerberos._tcp.", "_kerberos._udp.", "_gc._tcp."} {
		if rest, ok := strings.CutPrefix(query, service); ok {
			return rest
		}
	}
	return ""
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client {
		return
	}
	name := strings.ToLower(strings.TrimSuffix(f.DNS.Query, "."))
	local := directory(name)
	if f.DNS.AA == flow.True && profile.IsPrivate(f.Dst) {
		local = name // the zone is one of the network's own server
	}
	if local != "" {
		if d := registered(local); d != "" && !slices.Contains(st.Member, d) && len(st.Member) < maxMember {
			st.Member = append(st.Member, strings.Clone(d))
		}
		return
	}
	domain, ip := registered(name), private(f.DNS.Answers)
	if domain == "" || len(st.Names) >= maxNames || r.isLocal(st, domain) || expected(name, ip) ||
		slices.ContainsFunc(st.Names, func(n Name) bool { return n.Name == name }) {
		return
	}
	st.Names = append(st.Names, Name{
		Name: strings.Clone(name), Domain: strings.Clone(domain), Addr: ip, Time: f.Time, UID: strings.Clone(f.UID), Proto: f.Proto, Port: f.DstPort,
	})
}

// isLocal reports whether the domain has shown itself as one of the local network.
func (r rule) isLocal(st *State, domain string) bool {
	count := 0
	for i := range st.Names {
		if st.Names[i].Domain == domain {
			count++
		}
	}
	return count >= r.local || slices.Contains(st.Member, domain)
}

// CloseWindow implements modules.WindowCloser: only now it is known which
// domains are those of the local network.
func (r rule) CloseWindow(cx *modules.Context, st *State, _ profile.Window) {
	for _, n := range st.Names {
		if r.isLocal(st, n.Domain) {
			continue
		}
		e := evidence.Evidence{
			Type: Invalid, Time: n.Time, Attacker: evidence.IPEntity(cx.Profile(), evidence.Src, 0),
			Victim: evidence.Entity{Kind: evidence.Domain, Value: n.Name, Direction: evidence.Dst},
			Level:  evidence.Info, Confidence: 0.8,
			Description: fmt.Sprintf("%s resolved %q to %s, which is no address of the public Internet.", cx.Profile(), n.Name, n.Addr),
			Proto:       n.Proto.String(), DstPort: n.Port, Count: 1, Subject: n.Name, Step: 1,
		}
		if n.UID != "" {
			e.UIDs = []string{n.UID}
		}
		cx.Emit(e)
	}
}

// registered returns the registered domain of a name; empty when it is not of
// the public DNS.
func registered(name string) string {
	suffix, icann := publicsuffix.PublicSuffix(name)
	if suffix == "arpa" || strings.HasSuffix(suffix, ".arpa") || suffix == "onion" || !icann && !strings.Contains(suffix, ".") ||
		len(name) < len(suffix)+2 {
		return ""
	}
	return name[strings.LastIndexByte(name[:len(name)-len(suffix)-1], '.')+1:]
}

// expected reports whether a name says itself that its address is private: a
// name for the host itself, one with the address in it
// (192-168-1-5.example.net), or Microsoft's test for Internet access, whose
// IPv6 address is documented as unique local.
func expected(name string, ip netip.Addr) bool {
	first, _, _ := strings.Cut(name, ".")
	if strings.HasPrefix(first, "localhost") || name == "dns.msftncsi.com" {
		return true
	}
	var b [40]byte
	text := ip.AppendTo(b[:0])
	for i, c := range text {
		if c == '.' || c == ':' {
			text[i] = '-'
		}
	}
	return strings.Contains(strings.ReplaceAll(name, ".", "-"), string(text))
}
