// Package unknownport reports connections to ports that no service is known for.
package unknownport

import (
	"encoding/binary"
	"fmt"
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

// Unknown is the evidence this module emits.
const Unknown evidence.Type = "UNKNOWN_PORT"

// Config holds the settings.
type Config struct {
	// KnownPorts are known besides those that IANA has assigned: "5938/tcp", "19302-19309/udp".
	KnownPorts []string `yaml:"known_ports"`
	// MaxPorts is how many different unknown ports a host may use in a window
	// before none of them says anything, 1 to 64.
	MaxPorts int `yaml:"max_ports"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "unknownport",
	Doc:   "connections to ports that no service is known for",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.Conn, flow.FTP),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{{
		Type: Unknown, Level: evidence.Low, Tactic: evidence.CommandAndControl, MITRE: []string{"T1571"},
		Subject: "port/protocol", Over: "window", Doc: "a host used a port that no service is known for",
	}},
}, Config{KnownPorts: defaultPorts(), MaxPorts: 10}, New)

// disused are TCP ports that IANA has assigned to what hardly anyone offers to
// the Internet, while malware for remote control listens there unless told
// otherwise: njRAT, DarkComet, Remcos, NetWire, Poison Ivy, Metasploit, VenomRAT, AsyncRAT.
// Who has such a service on purpose lists its port as known.
var disused = [...]uint16{1177, 1604, 2404, 3360, 3460, 4444, 4449, 7707}

// defaultPorts returns ports that are not assigned and yet in use everywhere.
func defaultPorts() []string {
	return []string{
		"5938/tcp", "5938/udp", // TeamViewer
		"6000-6063/tcp",                  // X11
		"8801-8810/tcp", "8801-8810/udp", // Zoom
		"16384-16472/udp",                    // FaceTime
		"19302-19309/udp",                    // Google's STUN
		"27000-27050/tcp", "27000-27050/udp", // Steam
		"41641/udp", // Tailscale
		"51820/udp", // WireGuard
	}
}

const (
	// wait is how long after a port was used it is judged. The FTP command
	// that announced it may be logged later, and a program that talks to peers
	// has shown its other ports by then.
	wait = 5 * time.Minute
	// minUses and minSpan tell a port that is kept in use from one that was
	// used: connections and the time from the first to the last of them, or
	// how long one connection lasted. As many attempts without success tell a
	// host that wants to get there from one that is looking around.
	minUses = 3
	minSpan = int64(5 * time.Minute)
	// maxHosts is how many hosts one unknown port may lead to: above, over
	// UDP, it is that of peers, and what failed there is a scan.
	maxHosts = 5
	// maxUIDs bounds the uids kept for one port.
	maxUIDs = 10
	// maxData bounds the FTP data ports remembered.
	maxData = 512
	// firstDynamic is the first of the ports that are never assigned, but
	// handed out: inside a site those of remote procedure calls.
	firstDynamic = 49152
	// firstUnprivileged is the first port that any program may listen on.
	firstUnprivileged = 1024
	// firstEphemeral is the first of the ports that Linux gives to clients.
	firstEphemeral = 32768
	ftpData        = 20
)

// State is what a host did with unknown ports in one window. The times called
// At are stream times of the connection log: what it says later than the
// moment of a decision does not count, however far it is ahead.
type State struct {
	Ports    []Port                         // at most Config.MaxPorts, in the order of their first use
	SpreadAt int64                          // when there was one port too many; 0: not yet
	Data     modules.Recent[Channel, int64] // FTP data ports, and when their log first announced them
}

// Port is one unknown port.
type Port struct {
	Num   uint16
	Proto flow.Proto
	Dst   netip.Addr // the host of the first connection, of the first attempt while none worked
	Time  int64      // start of that flow, unix ns
	Hosts []uint32   // hashes of the hosts, at most maxHosts+1
	UIDs  []string
	Tries int64 // flows that failed
	Uses  int64 // connections
	Last  int64 // start of the latest connection

	UsedAt  int64 // when the first connection was seen; 0: none
	ManyAt  int64 // when there was one host too many; 0: not yet
	KeptAt  int64 // when it turned out to be kept in use; 0: not yet
	Kept    Use   // how, at that time
	Private bool  // Dst is a private address

	UseJudged, KeptJudged bool
}

// Use says how a port was kept in use.
type Use struct {
	Uses, Span int64 // connections, and ns
	UIDs       int   // of Port.UIDs, those up to then
}

// Channel is where an FTP data connection goes.
type Channel struct {
	Addr netip.Addr
	Port uint16
}

type rule struct {
	max      int
	tcp, udp *flow.PortSet // known ports
}

var (
	_ modules.Rule[State]         = (*rule)(nil)
	_ modules.Chooser             = (*rule)(nil)
	_ modules.TimerFirer[State]   = (*rule)(nil)
	_ modules.WindowCloser[State] = (*rule)(nil)
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MaxPorts < 1 || c.MaxPorts > 64 {
		return nil, fmt.Errorf("max_ports: %d is not in 1..64", c.MaxPorts)
	}
	r := &rule{max: c.MaxPorts, tcp: flow.AssignedPorts(flow.TCP), udp: flow.AssignedPorts(flow.UDP)}
	for _, port := range disused {
		r.tcp[port>>6] &^= 1 << (port & 63)
	}
	for _, s := range c.KnownPorts {
		if !r.know(s) {
			return nil, fmt.Errorf("known_ports: %q is not a port or range with its protocol, such as 5938/tcp or 19302-19309/udp", s)
		}
	}
	return r, nil
}

// know adds the ports of one line of the config.
func (r *rule) know(s string) bool {
	ports, proto, _ := strings.Cut(s, "/")
	set := r.tcp
	switch proto {
	case "tcp":
	case "udp":
		set = r.udp
	default:
		return false
	}
	from, to, isRange := strings.Cut(ports, "-")
	if !isRange {
		to = from
	}
	a, errA := strconv.ParseUint(from, 10, 16)
	b, errB := strconv.ParseUint(to, 10, 16)
	if errA != nil || errB != nil || a == 0 || a > b {
		return false
	}
	for p := a; p <= b; p++ {
		set.Add(uint16(p))
	}
	return true
}

// Wants implements modules.Chooser.
func (r *rule) Wants(f *flow.Flow) bool {
	switch {
	case f.Kind == flow.FTP:
		return f.FTP.DataPort != 0
	case f.Service != "" || !f.HasPorts || f.DstPort == 0 || f.SrcPort == ftpData:
		return false
	case f.Proto == flow.TCP:
		return !r.tcp.Has(f.DstPort)
	}
	return f.Proto == flow.UDP && !r.udp.Has(f.DstPort)
}

// Handle implements modules.Rule.
func (r *rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	switch {
	case cx.Role() != profile.Client || !r.Wants(f):
	case f.Kind == flow.FTP:
		a := f.FTP.DataResp
		if !a.IsValid() || a.IsUnspecified() {
			a = f.Dst
		}
		c, at := Channel{a, f.FTP.DataPort}, cx.Now()
		if was, ok := st.Data.Get(c); ok {
			at = min(at, was)
		}
		st.Data.Put(c, at, maxData)
	case st.SpreadAt != 0, f.State != flow.Established && f.State != flow.NotEstablished,
		!profile.IsScannable(f.Src), !profile.IsScannable(f.Dst), isReply(f), isLocal(f):
	default:
		r.conn(cx, st, f)
	}
}

// isReply reports whether the flow looks like the answer of a service to a
// client whose question was not seen: its originator is a guess. A log that
// tells how the connection began leaves nothing to guess.
func isReply(f *flow.Flow) bool {
	if f.Proto == flow.TCP {
		if f.History != "" {
			return !strings.Contains(f.History, "S") || strings.Contains(f.History, "^")
		}
		if f.Sensor == flow.Argus {
			src, _, _ := strings.Cut(f.RawState, "_")
			return !strings.Contains(src, "S")
		}
	}
	return f.SrcPort < firstUnprivileged && f.DstPort >= firstUnprivileged ||
		f.Proto == flow.UDP && f.SrcPort < 16384 && f.DstPort >= firstEphemeral // below every range of ephemeral ports
}

// isLocal reports whether the flow is of the kind that every network has
// inside: remote procedure calls on dynamic ports, and datagrams that nobody
// answers because they go to a broadcast address, of a /24 in most networks.
func isLocal(f *flow.Flow) bool {
	if f.DstPort >= firstDynamic && profile.IsPrivate(f.Dst) && profile.IsPrivate(f.Src) {
		return true
	}
	a := f.Dst.Unmap()
	return f.Proto == flow.UDP && f.RespPkts == 0 && a.Is4() && a.As4()[3] == 255
}

func (r *rule) conn(cx *modules.Context, st *State, f *flow.Flow) {
	i := slices.IndexFunc(st.Ports, func(p Port) bool { return p.Num == f.DstPort && p.Proto == f.Proto })
	if i < 0 {
		if len(st.Ports) >= r.max {
			st.SpreadAt = cx.Now()
			return
		}
		i = len(st.Ports)
		st.Ports = append(st.Ports, Port{Num: f.DstPort, Proto: f.Proto})
	}
	p := &st.Ports[i]
	if h := hash(f.Dst); p.ManyAt == 0 && !slices.Contains(p.Hosts, h) {
		if p.Hosts = append(p.Hosts, h); len(p.Hosts) > maxHosts {
			p.ManyAt = cx.Now()
		}
	}
	worked := f.State == flow.Established
	first := p.Tries+p.Uses == 0
	if worked && p.UsedAt == 0 {
		first, p.UIDs, p.UsedAt = true, nil, cx.Now()
		cx.After(wait, uint64(i)<<1)
	}
	if first {
		p.Dst, p.Time, p.Last, p.Private = f.Dst, f.Time, f.Time, profile.IsPrivate(f.Dst)
	}
	if worked == (p.UsedAt != 0) && len(p.UIDs) < maxUIDs && f.UID != "" && !slices.Contains(p.UIDs, f.UID) {
		p.UIDs = append(p.UIDs, strings.Clone(f.UID))
	}
	if !worked {
		p.Tries++
		return
	}
	if !f.Open || first { // one that is still open is told again and again
		p.Uses++
	}
	p.Last = max(p.Last, f.Time)
	span := max(p.Last-p.Time, f.Duration)
	if p.KeptAt == 0 && span >= minSpan && (p.Uses >= minUses || f.Duration >= minSpan) {
		p.KeptAt, p.Kept = cx.Now(), Use{p.Uses, span, len(p.UIDs)}
		cx.After(wait, uint64(i)<<1|1)
	}
}

// Fire implements modules.TimerFirer.
func (r *rule) Fire(cx *modules.Context, st *State, key uint64) {
	if i := key >> 1; i < uint64(len(st.Ports)) {
		r.judge(cx, st, &st.Ports[i], key&1 == 1)
	}
}

// judge judges the use of a port, or that it was kept in use.
func (r *rule) judge(cx *modules.Context, st *State, p *Port, kept bool) {
	now := cx.Now()
	told := &p.UseJudged
	if kept {
		told = &p.KeptJudged
	}
	many := before(p.ManyAt, now)
	if *told || before(st.SpreadAt, now) || st.announced(p, now) || many && p.Proto == flow.UDP {
		return
	}
	*told = true
	counts := p.Proto == flow.TCP && !p.Private && !many && before(p.KeptAt, now)
	switch {
	case kept && counts:
		r.report(cx, p, evidence.Medium, 0.5, 2, p.UIDs[:min(p.Kept.UIDs, len(p.UIDs))], p.Kept.Uses,
			fmt.Sprintf("%s keeps using %s port %s, which no service is known for: connections %d, minutes %d",
				cx.Profile(), p.Dst, p, p.Kept.Uses, p.Kept.Span/int64(time.Minute)))
	case !kept && !counts: // else the other judgement tells more
		confidence := 0.5
		if p.Private {
			confidence = 0.3
		}
		r.report(cx, p, evidence.Low, confidence, 1, p.UIDs[:min(1, len(p.UIDs))], 1,
			fmt.Sprintf("%s connected to %s port %s, which no service is known for", cx.Profile(), p.Dst, p))
	}
}

// before reports whether something happened by the time of a decision.
func before(at, now int64) bool { return at != 0 && at < now }

// announced reports whether an FTP command named the port by a time.
func (st *State) announced(p *Port, by int64) bool {
	at, _ := st.Data.Get(Channel{p.Dst, p.Num})
	return before(at, by)
}

// CloseWindow implements modules.WindowCloser: what failed is told when it is
// certain that it was no scan, and what was to be judged later is judged now.
func (r *rule) CloseWindow(cx *modules.Context, st *State, _ profile.Window) {
	if st.SpreadAt != 0 {
		return
	}
	for i := range st.Ports {
		switch p := &st.Ports[i]; {
		case p.UsedAt != 0:
			r.judge(cx, st, p, false)
			if p.KeptAt != 0 {
				r.judge(cx, st, p, true)
			}
		case p.Tries >= minUses && p.ManyAt == 0 && !st.announced(p, cx.Now()):
			r.report(cx, p, evidence.Low, 0.3, 1, p.UIDs, p.Tries,
				fmt.Sprintf("%s tried %s port %s, which no service is known for, and got no connection: attempts %d",
					cx.Profile(), p.Dst, p, p.Tries))
		}
	}
}

// String returns the port as in "50001/tcp".
func (p *Port) String() string { return strconv.Itoa(int(p.Num)) + "/" + p.Proto.String() }

func (r *rule) report(cx *modules.Context, p *Port, l evidence.Level, confidence float64, step int, uids []string, n int64, text string) {
	cx.Emit(evidence.Evidence{
		Type: Unknown, Time: p.Time, Level: l, Confidence: confidence, Description: text,
		Attacker: evidence.IPEntity(cx.Profile(), evidence.Src, 0), Victim: evidence.IPEntity(p.Dst, evidence.Dst, p.Num),
		Proto: p.Proto.String(), DstPort: p.Num, UIDs: slices.Clone(uids), Count: n, Subject: p.String(), Step: step,
	})
}

// hash returns a hash of an address that is the same in every run.
func hash(a netip.Addr) uint32 {
	b := a.As16()
	hi, lo := bits.Mul64(binary.BigEndian.Uint64(b[:8])^0xa0761d6478bd642f, binary.BigEndian.Uint64(b[8:])^0xe7037ed1a0b428db)
	return uint32(hi ^ lo)
}
