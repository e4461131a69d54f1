// Package doh reports DNS inside of TLS, which the sensor cannot read: over
// HTTPS (DoH) and over TLS (DoT) or QUIC (DoQ).
package doh

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Connection is the evidence this module emits.
const Connection evidence.Type = "DOH_CONNECTION"

// Config holds the settings.
type Config struct {
	// MaxPerWindow bounds the resolvers reported for one host in a window, 1 to 1000.
	MaxPerWindow int `yaml:"max_per_window"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "doh",
	Doc:   "encrypted DNS",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.SSL, flow.QUIC, flow.HTTP, flow.Conn),
	Emits: []evidence.Spec{{
		Type: Connection, Level: evidence.Info, Tactic: evidence.Context, MITRE: []string{"T1572"}, Subject: "resolver", Over: "window",
		Doc: "a host used a resolver by DNS over HTTPS, TLS or QUIC",
	}},
}, Config{MaxPerWindow: 20}, New)

// port is that of DNS over TLS and over QUIC (RFC 7858, RFC 9250).
const port = 853

// State is what the module remembers of one profile in one window, for each
// kind of record apart: logs come in any order to each other.
type State struct {
	Told []Told
}

// Told is a resolver that was reported, and the log that named it.
type Told struct {
	Kind flow.Kind
	Name string
}

type rule struct {
	max       int
	providers *modules.Names[bool]
}

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MaxPerWindow < 1 || c.MaxPerWindow > 1000 {
		return nil, fmt.Errorf("max_per_window: %d is not between 1 and 1000", c.MaxPerWindow)
	}
	names := make(map[string]bool)
	for _, p := range providers {
		names[p] = true
	}
	return rule{c.MaxPerWindow, modules.NewNames(names)}, nil
}

// Wants implements modules.Chooser.
func (r rule) Wants(f *flow.Flow) bool {
	switch f.Kind {
	case flow.Conn: // of port 853 every sensor has the connection, few the handshake
		return f.DstPort == port && f.State == flow.Established && (f.Proto == flow.TCP || f.Proto == flow.UDP) && profile.IsPublic(f.Dst)
	case flow.SSL, flow.QUIC:
		return f.DstPort != port && (f.SSL.IsDoH == flow.True || r.provider(f.SSL.ServerName) || f.SSL.ServerName == "" && resolver(f.Dst))
	case flow.HTTP:
		return r.provider(f.HTTP.Host)
	default:
		return false
	}
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client {
		return
	}
	name, how := "", "HTTPS"
	switch f.Kind {
	case flow.Conn:
		if how = "TLS"; f.Proto == flow.UDP {
			how = "QUIC"
		}
	case flow.HTTP:
		if name, how = f.HTTP.Host, "HTTPS"; f.DstPort == 80 {
			how = "HTTP"
		}
	default:
		name = f.SSL.ServerName
	}
	if name == "" {
		name = f.Dst.String()
	}
	name = strings.ToLower(name)
	seen := 0
	for i := range st.Told {
		if t := &st.Told[i]; t.Kind == f.Kind {
			if t.Name == name {
				return
			}
			seen++
		}
	}
	if seen >= r.max {
		return
	}
	name = strings.Clone(name)
	st.Told = append(st.Told, Told{f.Kind, name})
	e := evidence.Evidence{
		Type: Connection, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Victim: evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
		Level: evidence.Info, Confidence: 0.9,
		Description: fmt.Sprintf("%s asks the resolver %s at %s by DNS over %s, so that its look-ups cannot be seen.", f.Src, name, f.Dst, how),
		Proto:       f.Proto.String(), SrcPort: f.SrcPort, DstPort: f.DstPort, Count: 1, Subject: f.Kind.String() + " " + name, Step: 1,
	}
	e.UIDs = modules.UID(f.UID)
	cx.Emit(e)
}

// providers are hosts at which large public resolvers answer DNS over HTTPS,
// and all below them, from what their operators publish (as of 2025). Each
// browser and system that offers DoH by itself uses one of them.
var providers = [...]string{
	"cloudflare-dns.com", "one.one.one.one", "cloudflare-gateway.com", // developers.cloudflare.com/1.1.1.1
	"dns.google", "dns.google.com", "dns64.dns.google", // developers.google.com/speed/public-dns
	"dns.quad9.net", "dns9.quad9.net", "dns10.quad9.net", "dns11.quad9.net", // quad9.net/service
	"doh.opendns.com", "doh.familyshield.opendns.com", "doh.umbrella.com", "dns.umbrella.com", // support.opendns.com
	"dns.adguard.com", "dns.adguard-dns.com", "family.adguard-dns.com", "unfiltered.adguard-dns.com", "d.adguard-dns.com", // adguard-dns.io
	"doh.cleanbrowsing.org", "dns.nextdns.io", "doh.dns.sb", "doh.sb", "dns.sb", "doh.xfinity.com", "dns.controld.com", "freedns.controld.com",
	"dns.mullvad.net", "doh.mullvad.net", "adblock.dns.mullvad.net", "base.dns.mullvad.net", "all.dns.mullvad.net", "extended.dns.mullvad.net",
	"dns0.eu", "zero.dns0.eu", "kids.dns0.eu", "joindns4.eu", "private.canadianshield.cira.ca", "protected.canadianshield.cira.ca",
	"family.canadianshield.cira.ca", "doh.dns.apple.com", "dns.alidns.com", "doh.pub", "dot.pub", "doh.360.cn", "public.dns.iij.jp",
	"ordns.he.net", "odvr.nic.cz", "dns.switch.ch", "dns.digitale-gesellschaft.ch", "doh.libredns.gr", "doh.ffmuc.net",
	"doh.applied-privacy.net", "wikimedia-dns.org", "dns.njal.la", "dnsforge.de", "doh.tiar.app", "dns.twnic.tw", "common.dot.dns.yandex.net",
	"safe.dot.dns.yandex.net", "family.dot.dns.yandex.net", "doh.centraleu.pi-dns.com", "dns.rabbitdns.org",
}

// provider reports whether a host name is one of a provider.
func (r rule) provider(host string) bool {
	name, _ := r.providers.Find(host)
	return name != ""
}

// resolvers are the addresses of the largest, which clients that trust no
// resolver to begin with use without a name.
var resolvers = [...]netip.Addr{
	netip.AddrFrom4([4]byte{1, 1, 1, 1}), netip.AddrFrom4([4]byte{1, 0, 0, 1}), netip.AddrFrom4([4]byte{8, 8, 8, 8}),
	netip.AddrFrom4([4]byte{8, 8, 4, 4}), netip.AddrFrom4([4]byte{9, 9, 9, 9}), netip.AddrFrom4([4]byte{149, 112, 112, 112}),
	netip.AddrFrom4([4]byte{208, 67, 222, 222}), netip.AddrFrom4([4]byte{208, 67, 220, 220}),
	netip.MustParseAddr("2606:4700:4700::1111"), netip.MustParseAddr("2606:4700:4700::1001"), netip.MustParseAddr("2001:4860:4860::8888"),
	netip.MustParseAddr("2001:4860:4860::8844"), netip.MustParseAddr("2620:fe::fe"), netip.MustParseAddr("2620:fe::9"),
}

func resolver(a netip.Addr) bool {
	return slices.Contains(resolvers[:], a)
}
