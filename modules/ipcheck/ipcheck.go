// Package ipcheck reports hosts that ask a site for their own public address,
// as malware does before it reports to its master.
package ipcheck

import (
	"fmt"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Lookup is the evidence this module emits.
const Lookup evidence.Type = "IP_LOOKUP"

// Config holds the settings.
type Config struct {
	MaxPerWindow int `yaml:"max_per_window"` // sites reported for one host, window and log
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "ipcheck",
	Doc:   "sites that tell a host its public address",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.DNS, flow.HTTP, flow.SSL),
	Emits: []evidence.Spec{{
		Type: Lookup, Level: evidence.Low, Tactic: evidence.Discovery, MITRE: []string{"T1016"}, Method: "Signature", Subject: "log, site", Over: "window",
		Doc: "a program asked a site for the host's public address",
	}},
}, Config{MaxPerWindow: 3}, New)

// The logs that a site shows in, each with a place in State.Told.
const (
	dns = iota
	http
	tls
	logs
)

// State is what a host did in one window: a bit for each site reported.
type State struct{ Told [logs]uint64 }

type rule struct {
	sites *modules.Names[site]
	most  int
}

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// site is a site that tells addresses.
type site struct {
	bit uint64
	// pages of other sites ask it too, for the country of their visitor; then a
	// look-up says nothing.
	pages bool
}

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MaxPerWindow < 1 || c.MaxPerWindow > 64 {
		return nil, fmt.Errorf("max_per_window: %d is not in 1..64", c.MaxPerWindow)
	}
	values := make(map[string]site)
	bit := uint64(1)
	for i, list := range [...]string{programs, pages} {
		for name := range strings.FieldsSeq(list) {
			values[name] = site{bit, i == 1}
			bit <<= 1
		}
	}
	if len(values) > 64 {
		panic("BUG: ipcheck: more sites than bits")
	}
	return rule{modules.NewNames(values), c.MaxPerWindow}, nil
}

// Wants implements modules.Chooser.
func (r rule) Wants(f *flow.Flow) bool {
	name, _, _ := r.find(f)
	return name != ""
}

// find returns the site that a record is about, if it counts, and its log.
func (r rule) find(f *flow.Flow) (name string, s site, log int) {
	switch f.Kind {
	case flow.DNS:
		name, s = r.sites.Find(f.DNS.Query)
	case flow.SSL:
		log = tls
		name, s = r.sites.Find(f.SSL.ServerName)
	case flow.HTTP:
		log = http
		if name, s = r.sites.Find(f.HTTP.Host); browser(f.HTTP.UserAgent) {
			name = ""
		}
	default:
	}
	if s.pages && log != http {
		name = ""
	}
	return name, s, log
}

// browser reports whether an agent calls itself a browser. What does so and is
// none is still seen in DNS.
func browser(agent string) bool {
	return strings.HasPrefix(agent, "Mozilla/") || strings.HasPrefix(agent, "Opera/")
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	name, s, log := r.find(f)
	if name == "" || cx.Role() != profile.Client || !f.Src.IsValid() {
		return
	}
	told := &st.Told[log]
	if *told&s.bit != 0 {
		return
	}
	n := 0
	for b := *told; b != 0; b &= b - 1 {
		n++
	}
	if n >= r.most {
		return
	}
	*told |= s.bit
	name = strings.ToLower(strings.Clone(name))
	confidence, did, what := 0.5, "looked up", "look-up"
	switch log {
	case tls:
		did, what = "talked over TLS to", "tls"
	case http:
		confidence, did, what = 0.8, "asked by a program that is no browser", "request"
	}
	e := evidence.Evidence{
		Type: Lookup, Level: evidence.Low, Confidence: confidence,
		Attacker:    evidence.IPEntity(f.Src, evidence.Src, f.SrcPort),
		Victim:      evidence.Entity{Kind: evidence.Domain, Value: name, Direction: evidence.Dst},
		Description: fmt.Sprintf("%s %s %q, which tells a host its public address.", f.Src, did, name),
		Proto:       f.Proto.String(), SrcPort: f.SrcPort, DstPort: f.DstPort, Count: 1, Subject: what + " " + name, Step: 1,
	}
	e.UIDs = modules.UID(f.UID)
	cx.Emit(e)
}

// The sites, written down from common knowledge: the first are asked by
// programs, the others by pages too.
const (
	programs = `
	api.ipify.org api4.ipify.org api6.ipify.org api64.ipify.org icanhazip.com ipv4.icanhazip.com checkip.amazonaws.com
	checkip.dyndns.org checkip.dyndns.com ident.me v4.ident.me wtfismyip.com ip.anysrc.net myexternalip.com ipecho.net
	bot.whatismyipaddress.com ipv4bot.whatismyipaddress.com curlmyip.net curlmyip.com eth0.me ifcfg.me ipof.in
	ip.tyk.nu l2.io myip.dnsomatic.com trackip.net smart-ip.net ip4.seeip.org ip.seeip.org api.myip.com ip-addr.es
	myip.opendns.com whatismyip.akamai.com checkip.org`
	pages = `
	ifconfig.me ifconfig.co ifconfig.io ipinfo.io ip-api.com api.ipapi.is ipapi.co ipwho.is freegeoip.net freegeoip.app api.ip.sb
	api.db-ip.com freeipapi.com`
)
