// Package dnsflood reports hosts that ask resolvers far more often than people
// and programs do, or that carry data past them. It reads connections alone, for
// sensors that log no names.
package dnsflood

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// The evidence this module emits; the second is of the same type as dnstunnel's.
const (
	Flood  evidence.Type = "DNS_FLOOD"
	Tunnel evidence.Type = "DNS_TUNNEL"
)

// Config holds the thresholds.
type Config struct {
	MinQueries int64 `yaml:"min_queries"` // flows to resolvers within ten minutes for the first report
	TunnelKB   int64 `yaml:"tunnel_kb"`   // 1000 bytes sent in messages too long for questions, in a window; received, five times as many
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name: "dnsflood",
	Doc:  "far more DNS queries, or bytes in them, than a client makes",
	// Whether a host is itself a resolver shows in the flows of others.
	Scope: modules.Network,
	Kinds: flow.Of(flow.Conn),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{{
		Type: Flood, Level: evidence.High, Tactic: evidence.CommandAndControl, MITRE: []string{"T1568.002", "T1071.004"},
		Method: "Threshold", Subject: "host", Over: "10 min", Doc: "a host that serves no DNS sends far more DNS queries than a client does",
	}, {
		Type: Tunnel, Level: evidence.High, Tactic: evidence.CommandAndControl, MITRE: []string{"T1071.004", "T1572"},
		Method: "Threshold", Subject: "sent or received", Over: "window", Doc: "a host that serves no DNS moves much data to or from port 53",
	}},
}, Config{MinQueries: 1000, TunnelKB: 1000}, New)

const (
	// maxClients and maxServers bound the hosts remembered, those used last.
	maxClients = 8192
	maxServers = 4096
	// slots of a minute make the span that queries are counted over.
	slots  = 10
	minute = int64(time.Minute)
	// maxResolvers is how many servers a client may ask. Who asks more walks
	// the tree of names itself.
	maxResolvers = 8
	// maxUIDs bounds the uids kept for one client, the newest ones.
	maxUIDs = 20
	// longQuery and longAnswer are the mean bytes of a message from which a flow
	// carries data. A question is 12 bytes, the name and 4 more, with options 30
	// more: 50 to 70 for the names of hosts, 120 for one of 80 letters. Clients'
	// answers hold a few addresses; large ones are rare.
	longQuery, longAnswer = 120, 400
	// headers are the bytes that sensors other than Zeek count in each packet:
	// Ethernet, IP and UDP.
	headers = 42
	// maxPacket is the most that a packet of TCP carries on Ethernet.
	maxPacket = 1500
	// answerShare is how many bytes received weigh as much as one sent.
	answerShare = 5
)

// The ways that data goes.
const (
	sent = iota
	received
	ways
)

// State is what the module remembers of the network.
type State struct {
	// Both are keyed by the hash of the address; two that share one are taken
	// for one. Servers answered queries of others.
	Servers modules.RecentTable[bool]
	Clients modules.RecentTable[*Client]
}

// Client counts the queries of one host.
type Client struct {
	Window int64 // start of the window that Total and Step are of, unix ns
	Total  int64
	Step   int
	// Minutes and Counts are the minutes counted last and their queries.
	Minutes [slots]int64
	Counts  [slots]int64
	// Resolvers lists those asked in the window; one more than maxResolvers stands for many.
	Resolvers []netip.Addr
	Silent    int64 // of Total, queries without an answer
	UIDs      []string
	// Bytes are those of messages that carry data, and Told the steps reported.
	Bytes [ways]int64
	Told  [ways]int
	Heavy []string // the uids of flows with such messages
}

// sampleFrom is the threshold from which one query in 4 is looked at: chosen by
// its time, and standing for 4. Of 1,000 queries it then sees 250 ± 14.
const (
	sampleFrom = 400
	sampleMask = 3
)

type rule struct {
	c    Config
	mask uint64 // 0: every query is looked at
}

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MinQueries < 10 || c.MinQueries > math.MaxInt32 {
		return nil, fmt.Errorf("min_queries: %d is not in 10..%d", c.MinQueries, math.MaxInt32)
	}
	if c.TunnelKB < 100 || c.TunnelKB > math.MaxInt32 {
		return nil, fmt.Errorf("tunnel_kb: %d is not in 100..%d", c.TunnelKB, math.MaxInt32)
	}
	r := rule{c: c}
	if c.MinQueries >= sampleFrom {
		r.mask = sampleMask
	}
	return r, nil
}

// Wants implements modules.Chooser.
func (r rule) Wants(f *flow.Flow) bool {
	return f.DstPort == 53 && f.HasPorts && (f.Proto == flow.UDP || f.Proto == flow.TCP) && (r.sampled(f) || heavy(f))
}

// heavy reports whether the messages of a flow are longer than questions and
// their answers are.
func heavy(f *flow.Flow) bool {
	out, in := data(f)
	return out|in != 0
}

// data returns the bytes of a flow sent and received in messages that carry
// data. A secondary name server fetches its zones over TCP, so what comes by
// TCP is not counted.
func data(f *flow.Flow) (out, in int64) {
	head := int64(headers)
	if f.Sensor == flow.Zeek {
		head = 0
	}
	if n := f.OrigBytes - head*f.OrigPkts; f.OrigPkts > 0 && n >= longQuery*f.OrigPkts {
		out = n
	}
	if n := f.RespBytes - head*f.RespPkts; f.RespPkts > 0 && f.Proto == flow.UDP && n >= longAnswer*f.RespPkts {
		in = n
	}
	return out, in
}

// sampled picks queries by a hash of their start in µs and their source port.
// It is the multiplication of Knuth, volume 3, section 6.4.
func (r rule) sampled(f *flow.Flow) bool {
	return (uint64(f.Time)/1000^uint64(f.SrcPort))*0x9e3779b97f4a7c15>>60&r.mask == 0
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if !r.Wants(f) || !profile.IsScannable(f.Src) || !profile.IsScannable(f.Dst) || f.Open {
		return
	}
	answered := f.RespPkts > 0 || f.RespBytes > 0
	if answered && !profile.IsPublic(f.Dst) {
		*st.Servers.Put(modules.Hash(f.Dst, 0), maxServers) = true
	}
	// Public clients of our own name servers are resolvers.
	if profile.IsPublic(f.Src) && !cx.Network().IsHome(f.Src) {
		return
	}
	at := st.Clients.Put(modules.Hash(f.Src, 0), maxClients)
	if *at == nil {
		*at = new(Client)
	}
	c := *at
	if w := cx.Window().Start; w != c.Window {
		*c = Client{Window: w, Minutes: c.Minutes, Counts: c.Counts}
	}
	r.carry(cx, st, c, f)
	if !r.sampled(f) {
		return
	}
	n := int64(r.mask) + 1
	c.Total += n
	if !answered {
		c.Silent += n
	}
	c.minute(f.Time/minute, n)
	c.resolver(f.Dst)
	if c.Total+maxUIDs*n > r.c.MinQueries {
		c.UIDs = modules.KeepUID(c.UIDs, f.UID, maxUIDs)
	}
	if c.Total < r.c.MinQueries {
		return
	}
	step := modules.Step(c.rate(f.Time/minute), r.c.MinQueries)
	if step <= c.Step || len(c.Resolvers) > maxResolvers {
		return
	}
	if st.Servers.Get(modules.Hash(f.Src, 0)) != nil {
		return
	}
	c.Step = step
	cx.Emit(evidence.Evidence{
		Type: Flood, Level: evidence.High, Confidence: confidence(step),
		Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
		Description: fmt.Sprintf("dns flood: %s sent %s%d queries to %d resolvers, %d of them unanswered, and %d within ten minutes",
			f.Src, r.about(), c.Total, len(c.Resolvers), c.Silent, c.rate(f.Time/minute)),
		Proto: f.Proto.String(), DstPort: 53, Count: c.Total, Subject: "queries", Step: step,
		UIDs: append([]string(nil), c.UIDs...),
	})
}

// carry adds up what a client moves in messages that carry data.
func (r rule) carry(cx *modules.Context, st *State, c *Client, f *flow.Flow) {
	out, in := data(f)
	if out|in == 0 {
		return
	}
	c.Heavy = modules.KeepUID(c.Heavy, f.UID, maxUIDs)
	for way, n := range [ways]int64{out, in} {
		first, did, to, what := r.c.TunnelKB*1000, "sent", "to", "questions"
		if way == received {
			first, did, to, what = answerShare*first, "received", "from", "answers"
		}
		if f.Proto == flow.TCP { // Zeek's count can be a sequence number gone wrong
			n = min(n, maxPacket*f.OrigPkts)
		}
		c.Bytes[way] += n
		step := modules.Step(c.Bytes[way], first)
		if step <= c.Told[way] || len(c.Resolvers) > maxResolvers || st.Servers.Get(modules.Hash(f.Src, 0)) != nil {
			continue
		}
		c.Told[way] = step
		cx.Emit(evidence.Evidence{
			Type: Tunnel, Level: evidence.High, Confidence: min(1, 0.7+0.1*float64(step)),
			Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Victim: evidence.IPEntity(f.Dst, evidence.Dst, 53),
			Description: fmt.Sprintf("dns tunnel: %s %s %d kB %s port 53, at last of %s, in messages that are longer than %s usually are",
				f.Src, did, c.Bytes[way]/1000, to, f.Dst, what),
			Proto: f.Proto.String(), DstPort: 53, Count: c.Bytes[way], Subject: did, Step: step,
			UIDs: append([]string(nil), c.Heavy...),
		})
	}
}

// about says in front of a number that it is an estimate.
func (r rule) about() string {
	if r.mask == 0 {
		return ""
	}
	return "about "
}

// confidence grows with each doubling: a thousand queries in ten minutes may be
// a crawler or the forwarder of a house, four thousand are a program that makes
// names up.
func confidence(step int) float64 { return [...]float64{0.4, 0.7, 0.9, 1}[min(step, 4)-1] }

// minute counts n queries of minute m. Those older than all ten are left out.
func (c *Client) minute(m, n int64) {
	i := int(m % slots)
	if i < 0 {
		i += slots
	}
	if c.Minutes[i] < m {
		c.Minutes[i], c.Counts[i] = m, 0
	}
	if c.Minutes[i] == m {
		c.Counts[i] += n
	}
}

// rate returns the queries of the ten minutes that end with m.
func (c *Client) rate(m int64) (n int64) {
	for i, at := range c.Minutes {
		if at > m-slots && at <= m {
			n += c.Counts[i]
		}
	}
	return n
}

func (c *Client) resolver(a netip.Addr) {
	if len(c.Resolvers) <= maxResolvers && !slices.Contains(c.Resolvers, a) {
		c.Resolvers = append(c.Resolvers, a)
	}
}
