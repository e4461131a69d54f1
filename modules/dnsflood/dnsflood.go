// Package dnsflood reports hosts that ask resolvers far more often than people
// and programs do. It reads connections alone, for sensors that log no names.
package dnsflood

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Flood is the evidence this module emits.
const Flood evidence.Type = "DNS_FLOOD"

// Config holds the threshold.
type Config struct {
	MinQueries int64 `yaml:"min_queries"` // flows to resolvers within ten minutes for the first report
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name: "dnsflood",
	Doc:  "far more DNS queries than a client makes",
	// Whether a host is itself a resolver shows in the flows of others.
	Scope: modules.Network,
	Kinds: flow.Of(flow.Conn),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{{
		Type: Flood, Level: evidence.High, Tactic: evidence.CommandAndControl, MITRE: []string{"T1568.002", "T1071.004"},
		Method: "Threshold", Subject: "host", Over: "10 min", Doc: "a host that serves no DNS sends far more DNS queries than a client does",
	}},
}, Config{MinQueries: 1000}, New)

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
	r := rule{c: c}
	if c.MinQueries >= sampleFrom {
		r.mask = sampleMask
	}
	return r, nil
}

// Wants implements modules.Chooser.
func (r rule) Wants(f *flow.Flow) bool {
	return f.DstPort == 53 && f.HasPorts && (f.Proto == flow.UDP || f.Proto == flow.TCP) && r.sampled(f)
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
	n := int64(r.mask) + 1
	c.Total += n
	if !answered {
		c.Silent += n
	}
	c.minute(f.Time/minute, n)
	c.resolver(f.Dst)
	if c.Total+maxUIDs*n > r.c.MinQueries {
		c.remember(f.UID)
	}
	step := modules.Step(c.Total, r.c.MinQueries)
	if step <= c.Step || c.rate(f.Time/minute) < r.c.MinQueries || len(c.Resolvers) > maxResolvers {
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

// about says in front of a number that it is an estimate.
func (r rule) about() string {
	if r.mask == 0 {
		return ""
	}
	return "about "
}

// confidence grows with each doubling: a thousand queries may be a crawler,
// four thousand an hour are a program that makes names up.
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

func (c *Client) remember(uid string) {
	if uid == "" {
		return
	}
	if len(c.UIDs) == maxUIDs {
		copy(c.UIDs, c.UIDs[1:])
		c.UIDs = c.UIDs[:maxUIDs-1]
	}
	c.UIDs = append(c.UIDs, strings.Clone(uid))
}
