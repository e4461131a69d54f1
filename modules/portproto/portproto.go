// Package portproto reports connections to the ports of HTTP and of TLS on
// which something else is spoken.
package portproto

import (
	"fmt"
	"log/slog"
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

// The evidence this module emits.
const (
	NonSSL  evidence.Type = "NON_SSL_PORT_443_CONNECTION"
	NonHTTP evidence.Type = "NON_HTTP_PORT_80_CONNECTION"
)

// Config holds the settings.
type Config struct {
	// MaxPerWindow bounds the servers reported for one host in a window, 1 to 1000.
	MaxPerWindow int `yaml:"max_per_window"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name: "portproto",
	Doc:  "connections to ports 80 and 443 that are not HTTP and TLS",
	// Whether the sensor names protocols at all shows in the traffic of others.
	Scope: modules.Network,
	Kinds: flow.Of(flow.Conn, flow.SSL, flow.HTTP),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{
		{Type: NonSSL, Level: evidence.Medium, Tactic: evidence.CommandAndControl, MITRE: []string{"T1571", "T1095"}, Subject: "victim", Over: "5 min", Doc: "a connection to port 443 is not TLS"},
		{Type: NonHTTP, Level: evidence.Low, Tactic: evidence.CommandAndControl, MITRE: []string{"T1571", "T1095"}, Subject: "victim", Over: "5 min", Doc: "a connection to port 80 is not HTTP"},
	},
}, Config{MaxPerWindow: 20}, New)

const (
	// slot is the grain of time, in ns: a recognised connection of the same two
	// hosts in the same slot or one beside it explains one that is not, so all
	// within five minutes do.
	slot = int64(5 * time.Minute)
	// grace is how long after the end of its slot a recognised connection may
	// be logged, and how much longer the others wait.
	grace = int64(time.Minute)
	// maxSlots bounds the slots remembered: two hours of them. A connection
	// that comes with its duration before it has ended counts for ahead more.
	maxSlots, ahead = 24, 12
	// words is the size of a slot's filter in words: 64 KB.
	words = 1 << 13
	// maxPending bounds the connections that wait: some 20 a second.
	maxPending = 1 << 14
	// maxReported bounds the servers, and the hosts, remembered as reported.
	maxReported = 1 << 14
	// maxUIDs bounds the uids kept for one server.
	maxUIDs = 10
	// header is the most that a sensor which counts whole frames counts for
	// one packet besides its payload: Ethernet, IPv4, and TCP with all the
	// options of a SYN. IPv6 adds extra.
	header, extra = 14 + 20 + 44, 20
)

// State is what the module remembers of the network.
type State struct {
	Slots    []Slot          // the latest of those with recognised connections, in order
	NamedAt  int64           // when the sensor first named a protocol, in stream time of the log; 0: not yet
	Pending  map[uint64]Conn // by running number
	Next     uint64          // running number of the next
	Reported modules.Recent[Target, Hits]
	Sources  modules.Recent[Source, int] // servers reported, by host and window
	Dropped  int64                       // connections not judged because Pending was full
}

// Slot says which pairs of hosts had a recognised connection in a slot that was
// logged within grace of it. So what it says is the same for a connection that
// is judged then, however far the logs are ahead.
type Slot struct {
	N int64
	// Pairs is a Bloom filter of words words, for nearly each connection of a
	// network is one of two hosts that had none before. Each key has two bits
	// of one word. With 10,000 pairs three keys in a thousand seem to be there
	// that are not.
	Pairs []uint64
}

func (s *Slot) add(k uint32) { s.Pairs[k%words] |= pair(k) }

func (s *Slot) has(k uint32) bool { return s.Pairs[k%words]&pair(k) == pair(k) }

func pair(k uint32) uint64 { return 1<<(k>>13&63) | 1<<(k>>19&63) }

// Conn is a connection that waits to be judged.
type Conn struct {
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Time             int64 // start, unix ns
	End              int64 // slot in which it was logged
	Orig, Resp       bool  // who sent something
	Service          string
	UID              string
}

// Target is a server in a window.
type Target struct {
	Src, Dst netip.Addr
	Port     uint16
	Window   int64 // start
}

// Hits counts the connections to a Target.
type Hits struct {
	N    int64
	Step int
	UIDs []string
}

// Source is a host in a window.
type Source struct {
	Addr   netip.Addr
	Window int64 // start
}

type rule struct {
	max int
	log *slog.Logger
}

var (
	_ modules.Rule[State]       = rule{}
	_ modules.TimerFirer[State] = rule{}
	_ modules.Chooser           = rule{}
)

// New checks the config and returns the rule.
func New(c Config, env modules.Env) (modules.Rule[State], error) {
	if c.MaxPerWindow < 1 || c.MaxPerWindow > 1000 {
		return nil, fmt.Errorf("max_per_window: %d is not in 1..1000", c.MaxPerWindow)
	}
	return rule{c.MaxPerWindow, env.Log}, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	return f.Kind != flow.Conn ||
		(f.DstPort == 80 || f.DstPort == 443) && f.Proto == flow.TCP && f.State == flow.Established
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	switch {
	case !r.Wants(f) || !f.Src.IsValid() || !f.Dst.IsValid():
	case f.Kind == flow.SSL:
		st.recognised(cx, f, 443)
	case f.Kind == flow.HTTP:
		st.recognised(cx, f, 80)
	case f.Service != "" && strings.Contains(f.Service, name(f.DstPort)):
		st.recognised(cx, f, f.DstPort)
	default:
		if f.Service != "" {
			st.named(cx.Now())
		}
		r.conn(cx, st, f)
	}
}

// name returns the service that belongs to a port.
func name(port uint16) string {
	if port == 80 {
		return "http"
	}
	return "ssl"
}

func (st *State) named(at int64) {
	if st.NamedAt == 0 || at < st.NamedAt {
		st.NamedAt = at
	}
}

// recognised notes a connection that is what its port says, for as long as it
// lasted.
func (st *State) recognised(cx *modules.Context, f *flow.Flow, port uint16) {
	now := cx.Now()
	st.named(now)
	k := key(f.Src, f.Dst, port)
	last := min((f.Time+min(max(f.Duration, 0), maxSlots*slot))/slot, now/slot+ahead)
	for i := max(f.Time, now-grace) / slot; i <= last; i++ {
		if s := st.slot(i); s != nil {
			s.add(k)
		}
	}
}

// slot returns a slot, which is made if it is not there; nil when it is too old.
func (st *State) slot(n int64) *Slot {
	i := len(st.Slots)
	for i > 0 && st.Slots[i-1].N > n {
		i--
	}
	if i > 0 && st.Slots[i-1].N == n {
		return &st.Slots[i-1]
	}
	if len(st.Slots) >= maxSlots {
		if i == 0 {
			return nil
		}
		i--
		st.Slots = slices.Delete(st.Slots, 0, 1)
	}
	st.Slots = slices.Insert(st.Slots, i, Slot{n, make([]uint64, words)})
	return &st.Slots[i]
}

// explained reports whether two hosts had a recognised connection around the
// start or the end of one that is not.
func (st *State) explained(k uint32, start, end int64) bool {
	for i := range st.Slots {
		s := &st.Slots[i]
		if (near(s.N, start) || near(s.N, end)) && s.has(k) {
			return true
		}
	}
	return false
}

func near(a, b int64) bool { return a-b <= 1 && b-a <= 1 }

func (r rule) conn(cx *modules.Context, st *State, f *flow.Flow) {
	orig, resp := payload(f)
	if f.Open || !orig && !resp || !isWhole(f) || !profile.IsScannable(f.Dst) {
		return
	}
	start, end := f.Time/slot, max(f.Time, cx.Now())/slot
	if st.explained(key(f.Src, f.Dst, f.DstPort), start, end) {
		return
	}
	if len(st.Pending) >= maxPending {
		if st.Dropped++; st.Dropped&(st.Dropped-1) == 0 {
			r.log.Warn("too many connections that are not HTTP or TLS at a time", "not_judged", st.Dropped)
		}
		return
	}
	if st.Pending == nil {
		st.Pending = make(map[uint64]Conn)
	}
	st.Next++
	st.Pending[st.Next] = Conn{
		Src: f.Src, Dst: f.Dst, SrcPort: f.SrcPort, DstPort: f.DstPort, Time: f.Time, End: end, Orig: orig, Resp: resp,
		Service: strings.Clone(f.Service), UID: strings.Clone(f.UID),
	}
	cx.After(time.Duration((end+2)*slot+grace-cx.Now()), st.Next)
}

// isWhole reports whether the sensor saw how the connection began, in order
// and without holes: else it can tell no protocol. Where it says more than that
// the client began, the server must have been next, and no packet may have been
// missed or thrown away for its checksum.
func isWhole(f *flow.Flow) bool {
	h := f.History
	if f.MissedBytes > 0 || h == "" {
		return h == "" && f.MissedBytes == 0 && f.RawState != "OTH"
	}
	return strings.HasPrefix(h, "Sh") && !strings.ContainsAny(h, "cCgG") || h == "S"
}

// payload reports who sent something besides the headers. Only Zeek counts the
// payload itself.
func payload(f *flow.Flow) (orig, resp bool) {
	if f.Sensor == flow.Zeek {
		return f.OrigBytes > 0, f.RespBytes > 0
	}
	h := int64(header)
	if !f.Dst.Is4() {
		h += extra
	}
	return f.OrigBytes > h*f.OrigPkts, f.RespBytes > h*f.RespPkts
}

// Fire implements modules.TimerFirer: it judges a connection.
func (r rule) Fire(cx *modules.Context, st *State, n uint64) {
	c, ok := st.Pending[n]
	if !ok {
		return
	}
	delete(st.Pending, n)
	if st.NamedAt == 0 || st.NamedAt >= cx.Now() {
		return // a sensor that names no protocol says nothing by naming none
	}
	if st.explained(key(c.Src, c.Dst, c.DstPort), c.Time/slot, c.End) {
		return
	}
	w := cx.WindowAt(c.Time).Start
	t := Target{c.Src, c.Dst, c.DstPort, w}
	h, known := st.Reported.Get(t)
	more := ""
	if !known {
		src := Source{c.Src, w}
		k, _ := st.Sources.Get(src)
		if k >= r.max {
			return
		}
		if k++; k == r.max {
			more = " Further servers in this window are not reported."
		}
		st.Sources.Put(src, k, maxReported)
	}
	h.N++
	if c.UID != "" && len(h.UIDs) < maxUIDs {
		h.UIDs = append(h.UIDs, c.UID)
	}
	step := modules.Step(h.N, 1)
	grown := step > h.Step
	h.Step = max(h.Step, step)
	st.Reported.Put(t, h, maxReported)
	if grown {
		cx.Emit(c.evidence(h, more))
	}
}

func (c *Conn) evidence(h Hits, more string) evidence.Evidence {
	what := "an unknown protocol"
	if c.Service != "" {
		what = strconv.Quote(c.Service)
	}
	times := ""
	if h.N > 1 {
		times = fmt.Sprintf(" It is connection %d of the kind there in this window.", h.N)
	}
	e := evidence.Evidence{
		Profile: c.Src, Time: c.Time,
		Attacker: evidence.IPEntity(c.Src, evidence.Src, c.SrcPort), Victim: evidence.IPEntity(c.Dst, evidence.Dst, c.DstPort),
		Proto: "tcp", SrcPort: c.SrcPort, DstPort: c.DstPort, UIDs: slices.Clone(h.UIDs), Count: h.N,
		Subject: c.Dst.String(), Step: h.Step,
	}
	want := "HTTP"
	e.Type, e.Level, e.Confidence = NonHTTP, evidence.Low, 0.8
	if c.DstPort == 443 {
		want = "TLS"
		e.Type, e.Level, e.Confidence = NonSSL, evidence.Medium, 0.5
	}
	if !c.Orig || !c.Resp {
		// One side alone may just have been refused what it asked for.
		e.Level, e.Confidence = evidence.Low, 0.4
	}
	e.Description = fmt.Sprintf("%s connected to %s port %d and spoke %s there instead of %s.%s%s",
		c.Src, c.Dst, c.DstPort, what, want, times, more)
	return e
}

// key returns a hash of two hosts and a port.
func key(src, dst netip.Addr, port uint16) uint32 {
	return modules.Hash(dst, uint64(modules.Hash(src, uint64(port))))
}
