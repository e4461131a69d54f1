// Package remoteaccess reports programs for remote control and tunnels to the
// outside, which administrators use and intruders too.
package remoteaccess

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Tool is the evidence this module emits.
const Tool evidence.Type = "REMOTE_ACCESS_TOOL"

// Config holds the exceptions.
type Config struct {
	// Allowed are the tools that are in use here, by name: they are not reported.
	Allowed []string `yaml:"allowed"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "remoteaccess",
	Doc:   "remote control from or to the Internet, and tunnels",
	Scope: modules.PerProfile,
	Kinds: flow.Of(flow.DNS, flow.SSL, flow.QUIC, flow.HTTP, flow.Conn),
	Emits: []evidence.Spec{{
		Type: Tool, Level: evidence.Low, Tactic: evidence.CommandAndControl, MITRE: []string{"T1219"}, Subject: "protocol, tool, server", Over: "window", Method: "Policy",
		Doc: "a host uses a program for remote control or a tunnel to the outside, or is controlled from there",
	}},
}, Config{Allowed: []string{}}, New)

const (
	// maxReports bounds what one state remembers as reported. What is
	// forgotten first was reported longest ago.
	maxReports = 512
	// minBytes is what either side sends in a session, at least; less is a
	// port that was found open.
	minBytes = 1000
	// Somebody who works at a screen from far away stays longer and sees more
	// than a scanner or one who guesses passwords: those see a handshake.
	workTime  = int64(time.Minute)
	workBytes = 20_000
	// maxName bounds a name in a description, in bytes.
	maxName = 255
)

// State is what the module remembers of one profile.
type State struct {
	Reported modules.Recent[Subject, int] // the last step
}

// Subject is what is reported once in a window.
type Subject struct {
	Window int64 // start
	What   string
}

type rule struct {
	names *modules.Names[*tool]
	agent *tool           // NetSupport, which is known by its HTTP
	allow map[string]bool // tools in lower case
}

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	names := make(map[string]*tool)
	r := rule{allow: make(map[string]bool)}
	for _, a := range c.Allowed {
		if !isTool(a) {
			return nil, fmt.Errorf("allowed: %q is no tool that this module knows", a)
		}
		r.allow[strings.ToLower(a)] = true
	}
	for _, t := range tools {
		if r.allow[strings.ToLower(t.name)] {
			continue
		}
		for n := range strings.FieldsSeq(t.names) {
			names[n] = &t
		}
		if t.name == netSupport {
			r.agent = &t
		}
	}
	r.names = modules.NewNames(names)
	return r, nil
}

func isTool(name string) bool {
	for _, t := range tools {
		if strings.EqualFold(t.name, name) {
			return true
		}
	}
	for _, p := range [...]string{rdp, vnc, radmin} {
		if strings.EqualFold(p, name) {
			return true
		}
	}
	return false
}

// Wants implements modules.Chooser.
func (r rule) Wants(f *flow.Flow) bool {
	switch f.Kind {
	case flow.DNS:
		return r.tool(f.DNS.Query) != nil
	case flow.SSL, flow.QUIC:
		return r.tool(f.SSL.ServerName) != nil
	case flow.HTTP:
		return r.tool(host(f.HTTP.Host)) != nil || r.isNetSupport(f.HTTP)
	case flow.Conn:
		return f.Proto == flow.TCP && f.State == flow.Established && f.OrigBytes >= minBytes && f.RespBytes >= minBytes && service(f) != ""
	default:
		return false
	}
}

func (r rule) isNetSupport(h *flow.HTTPPart) bool {
	return r.agent != nil && strings.HasPrefix(h.UserAgent, "NetSupport Manager/")
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client || !f.Src.IsValid() || !f.Dst.IsValid() {
		return
	}
	switch f.Kind {
	case flow.DNS:
		r.name(cx, st, f, f.DNS.Query, "dns", "looked up")
	case flow.SSL, flow.QUIC:
		r.name(cx, st, f, f.SSL.ServerName, "tls", "talked over TLS to")
	case flow.HTTP:
		if r.isNetSupport(f.HTTP) {
			r.netSupport(cx, st, f)
			return
		}
		r.name(cx, st, f, host(f.HTTP.Host), "http", "talked over HTTP to")
	case flow.Conn:
		r.conn(cx, st, f)
	default: // no other kind is delivered
	}
}

// name reports a tool by the name of its servers.
func (r rule) name(cx *modules.Context, st *State, f *flow.Flow, name, log, did string) {
	t := r.tool(name)
	if t == nil {
		return
	}
	what := log + " " + t.name
	if !st.first(cx, f.Time, what, 1) {
		return
	}
	if len(name) > maxName {
		name = strings.ToValidUTF8(name[:maxName], "")
	}
	e := base(f, evidence.Low, t.confidence)
	e.Victim = evidence.Entity{Kind: evidence.Domain, Value: strings.ToLower(strings.Clone(strings.TrimSuffix(name, "."))), Direction: evidence.Dst}
	e.Description = fmt.Sprintf("%s %s %q, a server of %s, which is %s.", f.Src, did, e.Victim.Value, t.name, t.is)
	e.Subject, e.Step = what, 1
	if t.mitre != "" {
		e.MITRE = []string{t.mitre}
	}
	cx.Emit(e)
}

// netSupport reports the client of NetSupport Manager that calls its gateway.
// On the Internet that is next to always the program as a trojan.
func (rule) netSupport(cx *modules.Context, st *State, f *flow.Flow) {
	level, confidence, where := evidence.Low, 0.5, ""
	if profile.IsPublic(f.Dst) {
		level, confidence, where = evidence.Medium, 0.9, " on the Internet, which is how it is used as a trojan"
	}
	what := "agent " + netSupport + " " + f.Dst.String()
	if !st.first(cx, f.Time, what, 1) {
		return
	}
	e := base(f, level, confidence)
	e.Description = fmt.Sprintf("%s runs the client of %s and reports to %s%s.", f.Src, netSupport, netip.AddrPortFrom(f.Dst, f.DstPort), where)
	e.Subject, e.Step = what, 1
	cx.Emit(e)
}

// conn reports a session of remote control by its protocol or port.
func (r rule) conn(cx *modules.Context, st *State, f *flow.Flow) {
	s := service(f)
	if s == "" || r.allow[strings.ToLower(s)] {
		return
	}
	own := func(a netip.Addr) bool { return !profile.IsPublic(a) || cx.Network().IsHome(a) }
	server := netip.AddrPortFrom(f.Dst, f.DstPort)
	switch {
	case own(f.Src) && !own(f.Dst):
		what := "out " + s + " " + server.String()
		if !st.first(cx, f.Time, what, 1) {
			return
		}
		e := base(f, evidence.Low, 0.5)
		e.Description = fmt.Sprintf("%s controls or is controlled by %s on the Internet over %s: %s.", f.Src, server, s, amount(f))
		e.Subject, e.Step = what, 1
		cx.Emit(e)
	case !own(f.Src) && own(f.Dst):
		level, confidence, step, did := evidence.Info, 0.5, 1, "reached"
		if f.Duration >= workTime && f.RespBytes >= workBytes {
			level, confidence, step, did = evidence.Medium, 0.7, 2, "worked at"
		}
		what := "in " + s + " " + server.String()
		if !st.first(cx, f.Time, what, step) {
			return
		}
		e := base(f, level, confidence)
		e.Tactic, e.MITRE = evidence.InitialAccess, []string{"T1133"}
		e.Description = fmt.Sprintf("%s on the Internet %s %s over %s: %s.", f.Src, did, server, s, amount(f))
		e.Subject, e.Step = what, step
		cx.Emit(e)
	}
}

func amount(f *flow.Flow) string {
	return fmt.Sprintf("%v, %d bytes to it and %d back", time.Duration(f.Duration).Round(time.Second), f.OrigBytes, f.RespBytes)
}

func base(f *flow.Flow, l evidence.Level, confidence float64) evidence.Evidence {
	e := evidence.Evidence{
		Type: Tool, Level: l, Confidence: confidence,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, f.SrcPort), Victim: evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
		Proto: f.Proto.String(), SrcPort: f.SrcPort, DstPort: f.DstPort, Count: 1,
	}
	e.UIDs = modules.UID(f.UID)
	return e
}

// first reports whether a subject has not been reported at this step yet in
// the window of time t, and notes that it is now.
func (st *State) first(cx *modules.Context, t int64, what string, step int) bool {
	s := Subject{cx.WindowAt(t).Start, what}
	if last, _ := st.Reported.Get(s); step <= last {
		return false
	}
	st.Reported.Put(s, step, maxReports)
	return true
}

// Names of protocols, and of the tool that is known by more than names.
const (
	rdp        = "RDP"
	vnc        = "VNC"
	radmin     = "Radmin"
	netSupport = "NetSupport Manager"
)

// service returns what sort of remote control a connection is; empty when it
// is none. The sensor's word counts, and the port where it has none.
func service(f *flow.Flow) string {
	switch s := f.Service; s {
	case "", "failed", "unknown", "ssl", "tls": // not recognised, or hidden
	case "http", "dns", "smtp", "ssh": // most of what there is
		return ""
	default:
		switch {
		case strings.Contains(s, "rdp"):
			return rdp
		case strings.Contains(s, "rfb"), strings.Contains(s, "vnc"):
			return vnc
		case !strings.Contains(s, "ssl"): // "ssl,x" is around something
			return ""
		}
	}
	switch p := f.DstPort; {
	case p == 3389:
		return rdp
	case p >= 5900 && p <= 5909:
		return vnc
	case p == 4899:
		return radmin
	case p == 5405:
		return netSupport
	case p == 5938:
		return "TeamViewer"
	case p == 6568:
		return "AnyDesk"
	case p == 21116, p == 21117:
		return "RustDesk"
	}
	return ""
}

// host returns a Host header without its port.
func host(h string) string {
	h, _, _ = strings.Cut(h, ":")
	return h
}

// tool returns the tool whose server has the name; nil if there is none. It
// is asked for every name of the network.
func (r rule) tool(name string) *tool {
	domain, t := r.names.Find(name)
	if domain == "" {
		return nil
	}
	name = strings.TrimSuffix(name, ".")
	if site(name[:len(name)-len(domain)]) {
		return nil
	}
	return t
}

// site reports whether the labels in front of a domain are those of the web
// site, which anybody may read.
func site(sub string) bool {
	first, _, _ := strings.Cut(sub, ".")
	for _, s := range [...]string{"www", "blog", "docs", "help", "support", "community", "status", "forum", "static", "cdn"} {
		if strings.EqualFold(first, s) {
			return true
		}
	}
	return false
}

// tool is a program for remote control or a service for tunnels.
type tool struct {
	name       string
	names      string // domains of its servers
	is         string
	confidence float64
	mitre      string // "" for that of the type
}

const (
	remote  = "a program for remote control"
	monitor = "a program to manage hosts from afar"
	tunnel  = "a service that opens a way in from the Internet"
)

// tools are the programs and their domains. The list is common knowledge of
// 2025, written down by hand and not checked against the makers' pages. What
// comes with a contract weighs less than what needs none.
var tools = [...]tool{
	{"TeamViewer", "teamviewer.com dyngate.com", remote, 0.3, ""},
	{"AnyDesk", "anydesk.com", remote, 0.4, ""},
	{"RustDesk", "rustdesk.com", remote, 0.5, ""},
	{"ScreenConnect", "screenconnect.com", remote, 0.4, ""},
	{"LogMeIn", "logmein.com logme.in logmeinrescue.com gotomypc.com", remote, 0.3, ""},
	{"GoToAssist", "gotoassist.com gotoassist.me fastsupport.com", remote, 0.3, ""},
	{"Splashtop", "splashtop.com splashtop.eu", remote, 0.3, ""},
	{"Atera", "atera.com", monitor, 0.4, ""},
	{netSupport, "netsupportsoftware.com netsupportmanager.com", remote, 0.5, ""},
	{"Ammyy", "ammyy.com", remote, 0.8, ""},
	{"RemotePC", "remotepc.com", remote, 0.3, ""},
	{"DWService", "dwservice.net", remote, 0.6, ""},
	{"MeshCentral", "meshcentral.com", monitor, 0.5, ""},
	{"Supremo", "nanosystems.it supremocontrol.com", remote, 0.5, ""},
	{"UltraViewer", "ultraviewer.net", remote, 0.5, ""},
	{"AeroAdmin", "aeroadmin.com", remote, 0.6, ""},
	{"Remote Utilities", "remoteutilities.com", remote, 0.6, ""},
	{"Action1", "action1.com", monitor, 0.5, ""},
	{"NinjaOne", "ninjarmm.com ninjarmm.net", monitor, 0.3, ""},
	{"Pulseway", "pulseway.com", monitor, 0.4, ""},
	{"Zoho Assist", "zohoassist.com assist.zoho.com", remote, 0.4, ""},
	{"Chrome Remote Desktop", "remotedesktop.google.com", remote, 0.3, ""},
	{"ngrok", "ngrok.com ngrok.io ngrok.app ngrok.dev ngrok-free.app ngrok-free.dev ngrok-agent.com", tunnel, 0.7, "T1572"},
	{"Serveo", "serveo.net", tunnel, 0.8, "T1572"},
	{"localhost.run", "localhost.run lhr.life", tunnel, 0.8, "T1572"},
	{"localtunnel", "localtunnel.me loca.lt", tunnel, 0.7, "T1572"},
	{"Pinggy", "pinggy.io pinggy.link", tunnel, 0.7, "T1572"},
	{"playit", "playit.gg", tunnel, 0.5, "T1572"},
	{"portmap.io", "portmap.io portmap.host", tunnel, 0.8, "T1572"},
	{"bore", "bore.pub", tunnel, 0.8, "T1572"},
	{"TryCloudflare", "trycloudflare.com argotunnel.com", tunnel, 0.6, "T1572"},
	{"Dev tunnels", "devtunnels.ms", tunnel, 0.4, "T1572"},
}
