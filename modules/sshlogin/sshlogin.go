// Package sshlogin reports SSH logins that succeeded.
package sshlogin

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Successful is the evidence this module emits.
const Successful evidence.Type = "SSH_SUCCESSFUL"

// Config holds the threshold.
type Config struct {
	// Threshold is the number of payload bytes, both ways, above which a
	// session of unknown outcome is a login; at least 1. The key is spelt as
	// in the configuration of the original Slips.
	Threshold int64 `yaml:"ssh_succesful_detection_threshold"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "sshlogin",
	Doc:   "SSH logins that succeeded",
	Scope: modules.PerProfile,
	Kinds: flow.Of(flow.SSH, flow.Conn),
	Needs: flow.Of(flow.SSH),
	Emits: []evidence.Spec{{
		Type: Successful, Level: evidence.Info, Tactic: evidence.Context, MITRE: []string{"T1021.004"}, Subject: "victim, port", Over: "flow",
		Doc: "an SSH login succeeded, by Zeek's word or by the bytes of the session",
	}},
}, Config{Threshold: 4290}, New)

const (
	// wait is how long the connection record of a login may take: it holds the bytes.
	wait = 15 * time.Second
	// maxOpen bounds the sessions and the connections of one host that wait
	// for their other half. The oldest are forgotten first.
	maxOpen = 512
	// maxTargets bounds the servers remembered as reported.
	maxTargets = 1024
	// overhead is what Suricata counts per packet besides the payload, in
	// bytes: Ethernet, IPv4 and TCP headers with time stamps.
	overhead = 14 + 20 + 32
)

// State is what the module remembers of one profile.
type State struct {
	Sessions modules.Recent[string, Session] // of unknown outcome, without their connection, by uid
	Conns    modules.Recent[string, Conn]    // without their session, by uid
	Logins   map[uint64]Session              // that are about to be reported, by running number
	Next     uint64                          // running number of the next
	Targets  modules.Recent[Target, Hits]
	Dropped  uint64 // sessions and connections forgotten without their other half
}

// Session is an SSH session.
type Session struct {
	Dst    netip.Addr
	Port   uint16
	Time   int64 // start, unix ns
	At     int64 // stream time of ssh.log when it was logged, unix ns
	UID    string
	ByZeek bool
	Bytes  int64 // -1: not known
}

// Conn is what the connection record of a session says.
type Conn struct {
	Bytes int64
	At    int64 // stream time of conn.log when it was logged, unix ns
}

// Target is a server in a window.
type Target struct {
	Addr   netip.Addr
	Port   uint16
	Window int64 // start
}

// Hits counts the logins at a Target.
type Hits struct {
	N    int64
	Step int
	UIDs []string // at most evidence.MaxUIDs
}

type rule struct {
	threshold int64
	log       *slog.Logger
}

var (
	_ modules.Rule[State]       = rule{}
	_ modules.TimerFirer[State] = rule{}
	_ modules.Chooser           = rule{}
)

// New checks the config and returns the rule.
func New(c Config, env modules.Env) (modules.Rule[State], error) {
	if c.Threshold < 1 {
		return nil, fmt.Errorf("ssh_succesful_detection_threshold: %d is not at least 1", c.Threshold)
	}
	return rule{threshold: c.Threshold, log: env.Log}, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	return f.Kind == flow.SSH || isSSH(f) && !f.Open
}

// Handle implements modules.Rule. Every login is reported from Fire, at a
// time that the two records set and not the order in which they come: so the
// logins of a host have one order, whichever log is ahead.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	switch {
	case f.UID == "" || cx.Role() != profile.Client:
	case f.Kind == flow.Conn:
		if isSSH(f) && !f.Open {
			r.conn(cx, st, f)
		}
	case f.Kind == flow.SSH:
		r.session(cx, st, f)
	}
}

// isSSH reports whether a connection may have a record in ssh.log. A sensor
// that did not recognise the protocol leaves the port.
func isSSH(f *flow.Flow) bool {
	return f.Proto == flow.TCP && f.State == flow.Established &&
		(strings.Contains(f.Service, "ssh") || (f.DstPort == 22 && f.Service == ""))
}

func (r rule) conn(cx *modules.Context, st *State, f *flow.Flow) {
	c := Conn{Bytes: payload(f), At: cx.Now()}
	if s, ok := st.Sessions.Get(f.UID); ok {
		st.Sessions.Delete(f.UID)
		r.decide(cx, st, s, c)
		return
	}
	r.forgot(cx, st, st.Conns.Put(strings.Clone(f.UID), c, maxOpen))
}

// payload returns the bytes of both directions, without the headers that
// Suricata counts.
func payload(f *flow.Flow) int64 {
	n := f.OrigBytes + f.RespBytes
	if f.Sensor == flow.Suricata {
		n = max(n-overhead*(f.OrigPkts+f.RespPkts), 0)
	}
	return n
}

func (r rule) session(cx *modules.Context, st *State, f *flow.Flow) {
	if !f.Dst.IsValid() {
		return
	}
	s := Session{Dst: f.Dst, Port: f.DstPort, Time: f.Time, At: cx.Now(), UID: f.UID, Bytes: -1}
	switch f.SSH.AuthSuccess {
	case flow.True:
		s.ByZeek = true
		r.put(cx, st, s, int64(wait))
	case flow.False:
		// Zeek saw the login fail. Sessions that fail several times exceed
		// the threshold too, so the bytes are not asked.
		st.Conns.Delete(f.UID)
	default:
		if c, ok := st.Conns.Get(f.UID); ok {
			st.Conns.Delete(f.UID)
			r.decide(cx, st, s, c)
			return
		}
		s.UID = strings.Clone(s.UID)
		r.forgot(cx, st, st.Sessions.Put(s.UID, s, maxOpen))
	}
}

// decide judges a session by its bytes.
func (r rule) decide(cx *modules.Context, st *State, s Session, c Conn) {
	if c.Bytes <= r.threshold {
		return
	}
	s.Bytes = c.Bytes
	r.put(cx, st, s, max(s.At, c.At)+1-cx.Now())
}

// put has s reported after d ns.
func (r rule) put(cx *modules.Context, st *State, s Session, d int64) {
	if len(st.Logins) >= maxOpen {
		r.forgot(cx, st, 1)
		return
	}
	if st.Logins == nil {
		st.Logins = make(map[uint64]Session)
	}
	s.UID = strings.Clone(s.UID)
	key := st.Next
	st.Next++
	st.Logins[key] = s
	cx.After(time.Duration(d), key)
}

func (r rule) forgot(cx *modules.Context, st *State, n int) {
	if n > 0 {
		st.Dropped += uint64(n)
		r.log.Debug("too many SSH sessions of one host at a time", "profile", cx.Profile(), "not_judged", st.Dropped)
	}
}

// Fire implements modules.TimerFirer.
func (r rule) Fire(cx *modules.Context, st *State, key uint64) {
	s, ok := st.Logins[key]
	if !ok {
		return
	}
	delete(st.Logins, key)
	if s.ByZeek {
		// A connection record from behind the moment of decision is there
		// only if conn.log happens to be ahead, so it does not count.
		if c, ok := st.Conns.Get(s.UID); ok {
			st.Conns.Delete(s.UID)
			if c.At <= cx.Now() {
				s.Bytes = c.Bytes
			}
		}
	}
	t := Target{s.Dst, s.Port, cx.WindowAt(s.Time).Start}
	h, _ := st.Targets.Get(t)
	h.N++
	if len(h.UIDs) < evidence.MaxUIDs {
		h.UIDs = append(h.UIDs, s.UID)
	}
	step := modules.Step(h.N, 1)
	report := step > h.Step
	h.Step = step
	st.Targets.Put(t, h, maxTargets)
	if !report {
		return
	}
	size, engine := "", "Slips, by the bytes of the session"
	if s.Bytes >= 0 {
		size = fmt.Sprintf(", %d bytes", s.Bytes)
	}
	if s.ByZeek {
		engine = "Zeek"
	}
	count := ""
	if h.N > 1 {
		count = fmt.Sprintf(" It is login %d there in this window.", h.N)
	}
	cx.Emit(evidence.Evidence{
		Type: Successful, Time: s.Time, Attacker: evidence.IPEntity(cx.Profile(), evidence.Src, 0),
		Victim: evidence.IPEntity(s.Dst, evidence.Dst, s.Port), Level: evidence.Info, Confidence: 0.8,
		Description: fmt.Sprintf("%s logged in to the SSH server %s%s; detected by %s; confidence 0.80.%s",
			cx.Profile(), netip.AddrPortFrom(s.Dst, s.Port), size, engine, count),
		Proto: "tcp", DstPort: s.Port, UIDs: append([]string(nil), h.UIDs...), Count: h.N,
		Subject: s.Dst.String() + " " + strconv.Itoa(int(s.Port)), Step: step,
	})
}
