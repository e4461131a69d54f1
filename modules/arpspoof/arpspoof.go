// Package arpspoof reports stations that claim by ARP addresses of others, and
// those that answer what nobody asked.
package arpspoof

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
)

// The evidence this module emits.
const (
	MITM        evidence.Type = "MITM_ARP_ATTACK"
	Unsolicited evidence.Type = "UNSOLICITED_ARP"
)

// Config holds the threshold.
type Config struct {
	MinUnasked int64 `yaml:"min_unasked"` // replies about one address to stations that did not ask, in a window
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name: "arpspoof",
	Doc:  "stations that claim by ARP the addresses of others",
	// The claim comes under the address of the victim, so no profile holds it all.
	Scope: modules.Network,
	Kinds: flow.Of(flow.ARP),
	Needs: flow.Of(flow.ARP),
	Emits: []evidence.Spec{
		{Type: MITM, Level: evidence.Critical, Tactic: evidence.CredentialAccess, MITRE: []string{"T1557.002"}, Subject: "hardware address", Over: "window", Doc: "a station claims the address of another, as for an attack from the middle"},
		{Type: Unsolicited, Level: evidence.Low, Tactic: evidence.CredentialAccess, MITRE: []string{"T1557.002"}, Subject: "hardware address, claimed address", Over: "window", Doc: "a station sends ARP replies that nobody asked for"},
	},
}, Config{MinUnasked: 10}, New)

const (
	// fresh is how long the owner of an address keeps it without a word: the
	// time after which stations ask again. Who takes it later has a new lease.
	fresh = int64(10 * time.Minute)
	// known is how long a station's own address is remembered.
	known = int64(time.Hour)
	// soon is how long after a request its answer may come.
	soon = int64(5 * time.Second)
	// The bounds are for the stations of one segment, which are at most a few
	// thousand; a flood of invented ones makes the module forget.
	maxAddrs, maxStations, maxAsked, maxRivals, maxClaims = 8192, 8192, 16384, 512, 2048
	// maxVictims bounds the victims that one rival's evidence is about.
	maxVictims = 8
	// contested is how often the owner of an address speaks up between the
	// claims of the other before it counts. A service that moves to a stand-by
	// host, and back, does so once.
	contested = 3
)

// State is what the module remembers of the network.
type State struct {
	Owners   modules.Recent[Addr, Owner]
	Stations modules.Recent[string, Station] // by hardware address
	Asked    modules.RecentTable[int64]      // time of the last request, by hash of who asked for whom
	Rivals   modules.Recent[string, Rival]   // by hardware address
	Claims   modules.Recent[Claim, Replies]
}

// Addr is an address in one virtual network.
type Addr struct {
	IP   netip.Addr
	VLAN uint16
}

// Owner is the station that an address belongs to, or belonged to.
type Owner struct {
	MAC   string
	Seen  int64  // when it last used the address, unix ns
	Prev  string // the owner before, who may come back
	Rival string // who claimed the address since; empty: none
}

// Station is a hardware address.
type Station struct {
	Own  netip.Addr // the address it is known by
	Seen int64
}

// Rival is a station that claims addresses of others in one window.
type Rival struct {
	Window  int64
	Victims []Victim
	Claims  int64
	Rounds  int64 // how often an owner spoke up between two claims
	Gateway bool
	Step    int
	UIDs    []string
}

// Victim is an address and its owner.
type Victim struct {
	IP  netip.Addr
	MAC string
}

// Claim is an address as claimed by a station.
type Claim struct {
	MAC string
	IP  netip.Addr
}

// Replies counts the replies that nobody asked for, in one window.
type Replies struct {
	Window  int64
	Unasked int64 // to stations that did not ask
	All     int64 // to all, about an address of another or as if another had asked
	Step    int
	UIDs    []string
}

type rule struct{ min int64 }

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MinUnasked < 3 || c.MinUnasked > 10_000 {
		return nil, fmt.Errorf("min_unasked: %d is not in 3..10000", c.MinUnasked)
	}
	return rule{c.MinUnasked}, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	return f.Src.IsValid() && f.Dst.IsValid() && (f.ARP.SenderHW != "" || f.SrcMAC != "")
}

// message is what a record says, in the words of this module.
type message struct {
	mac       string
	request   bool
	broadcast bool // a reply to all, or an announcement of the own address
	unasked   bool // a reply to one station that did not ask
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	m := message{mac: f.ARP.SenderHW, request: f.ARP.Operation == "request"}
	if m.mac == "" {
		m.mac = f.SrcMAC
	}
	m.mac = strings.ToLower(m.mac) // gives back what it got when that is in lower case
	if m.request && f.Src != f.Dst {
		*st.Asked.Put(pair(f.Src, f.Dst), maxAsked) = f.Time
		*st.Asked.Put(pair(f.Src, netip.Addr{}), maxAsked) = f.Time
	}
	if !station(m.mac) || f.Src.IsUnspecified() || !m.request && f.ARP.Operation != "reply" {
		return
	}
	switch {
	case f.Src == f.Dst:
		m.broadcast = true
	case !m.request && (all(f.ARP.TargetHW) || all(f.DstMAC)):
		m.broadcast = true
	case !m.request:
		m.unasked = st.unasked(f)
	}
	thief := r.claim(cx, st, f, m)
	if !m.request && !virtual(m.mac) {
		r.unsolicited(cx, st, f, m, thief)
	}
}

// unasked reports whether a reply answers no request that was seen. Of a
// station that was never seen to ask, requests may not reach the sensor.
func (st *State) unasked(f *flow.Flow) bool {
	if t := st.Asked.Get(pair(f.Dst, f.Src)); t != nil && f.Time-*t <= soon {
		return false
	}
	return st.Asked.Get(pair(f.Dst, netip.Addr{})) != nil
}

// claim looks at the sender's claim to its address. It returns whether the
// address belongs to another.
func (r rule) claim(cx *modules.Context, st *State, f *flow.Flow, m message) (thief bool) {
	k := Addr{f.Src, f.VLAN}
	o, ok := st.Owners.Get(k)
	switch {
	case ok && o.MAC == m.mac:
		if o.Rival != "" {
			if v, ok := st.Rivals.Get(o.Rival); ok {
				v.Rounds++
				st.Rivals.Put(o.Rival, v, maxRivals)
			}
			o.Rival = ""
		}
		o.Seen = max(o.Seen, f.Time)
	case ok && o.Prev == m.mac:
		o = Owner{MAC: strings.Clone(m.mac), Seen: f.Time}
	case ok && f.Time-o.Seen <= fresh:
		if virtual(m.mac) || !m.broadcast && !m.unasked {
			return false // two that answer one request may be one host with two cards
		}
		o.Rival = strings.Clone(m.mac)
		st.Owners.Put(k, o, maxAddrs)
		r.rival(cx, st, f, m, o.MAC)
		return true
	default:
		o = Owner{MAC: strings.Clone(m.mac), Seen: f.Time, Prev: o.MAC}
	}
	st.Owners.Put(k, o, maxAddrs)
	s, ok := st.Stations.Get(m.mac)
	if !ok || s.Own == f.Src || f.Time-s.Seen > known {
		st.Stations.Put(strings.Clone(m.mac), Station{Own: f.Src, Seen: max(f.Time, s.Seen)}, maxStations)
		return false
	}
	// A second address of its own, which is what an attack looks like when the
	// owner was never seen.
	if m.broadcast && !m.request && !virtual(m.mac) {
		r.rival(cx, st, f, m, "")
	}
	return false
}

// rival counts a claim to the address of owner, and to a further address of
// its own when there is none.
func (r rule) rival(cx *modules.Context, st *State, f *flow.Flow, m message, owner string) {
	w := cx.Window().N
	v, ok := st.Rivals.Get(m.mac)
	if ok && w < v.Window {
		return // a late record of a window that is told
	}
	if w > v.Window {
		v = Rival{}
	}
	v.Window = w
	v.Claims++
	if f.UID != "" && len(v.UIDs) < evidence.MaxUIDs {
		v.UIDs = append(v.UIDs, strings.Clone(f.UID))
	}
	if owner != "" {
		v.victim(Victim{f.Src, owner})
		n := cx.Network()
		v.Gateway = v.Gateway || f.Src == n.Gateway || n.GatewayMAC != "" && owner == n.GatewayMAC
	}
	s, _ := st.Stations.Get(m.mac)
	own := s.Own
	if f.Time-s.Seen > known || own == f.Src {
		own = netip.Addr{}
	}
	if step := v.strength(own.IsValid()); step > v.Step {
		v.Step = step
		report(cx, f, m, &v, own, owner)
	}
	st.Rivals.Put(strings.Clone(m.mac), v, maxRivals)
}

func (v *Rival) victim(x Victim) {
	if len(v.Victims) < maxVictims && !slices.Contains(v.Victims, x) {
		v.Victims = append(v.Victims, x)
	}
}

// owners returns how many stations the addresses belong to.
func (v *Rival) owners() int {
	n := 0
	for i, x := range v.Victims {
		first := true
		for _, y := range v.Victims[:i] {
			first = first && y.MAC != x.MAC
		}
		if first {
			n++
		}
	}
	return n
}

// strength returns how sure it is that the claims are an attack: 0 not at
// all, 1 that an address was added, 2 to 5 for signs that come together.
func (v *Rival) strength(own bool) int {
	n := v.owners()
	if n == 0 {
		return 1
	}
	if !own && n < 2 {
		return 0 // two hosts have one address, or it has passed from one to the other
	}
	s := 2
	for _, sign := range [...]bool{n >= 2, v.Gateway, v.Rounds >= contested} {
		if sign {
			s++
		}
	}
	return s
}

// confidence of a report by its strength. That of a single claim stays small:
// a service that moves to a stand-by host looks like it.
var confidence = [...]float64{1: 0.2, 2: 0.15, 3: 0.5, 4: 0.8, 5: 1}

func report(cx *modules.Context, f *flow.Flow, m message, v *Rival, own netip.Addr, owner string) {
	who := own
	if !who.IsValid() {
		who = f.Src
	}
	e := evidence.Evidence{
		Type: MITM, Profile: who, Level: evidence.Critical, Confidence: confidence[v.Step],
		Attacker: evidence.IPEntity(who, evidence.Src, 0), Victim: evidence.IPEntity(f.Src, evidence.Dst, 0),
		Proto: "arp", Count: v.Claims, UIDs: append([]string(nil), v.UIDs...), Subject: strings.Clone(m.mac), Step: v.Step,
	}
	if v.Step == 1 {
		e.Level = evidence.Low
		e.Description = fmt.Sprintf("%s, known as %s, announced by ARP that it also has %s", m.mac, who, f.Src)
		cx.Emit(e)
		return
	}
	what := f.Src.String()
	if f.Src == cx.Network().Gateway {
		what += " of the gateway"
	}
	name := m.mac
	if own.IsValid() {
		name += ", known as " + own.String() + ","
	}
	e.Description = fmt.Sprintf("%s claims by ARP the address %s, which belongs to %s (claims so far: %d, to addresses: %d, of stations: %d; their owners spoke up in between: %d)",
		name, what, owner, v.Claims, len(v.Victims), v.owners(), v.Rounds)
	cx.Emit(e)
}

// unsolicited counts the replies that nobody asked for.
func (r rule) unsolicited(cx *modules.Context, st *State, f *flow.Flow, m message, thief bool) {
	toAll := m.broadcast && all(f.ARP.TargetHW) && (f.DstMAC == "" || all(f.DstMAC))
	if !toAll && !m.unasked {
		return
	}
	k := Claim{m.mac, f.Src}
	w := cx.Window().N
	c, ok := st.Claims.Get(k)
	if ok && w < c.Window {
		return
	}
	if w > c.Window {
		c = Replies{}
	}
	c.Window = w
	level, step := evidence.Info, 1
	switch {
	case m.unasked:
		c.Unasked++
	case thief || f.Src != f.Dst:
		c.All++
	}
	if f.UID != "" && len(c.UIDs) < evidence.MaxUIDs {
		c.UIDs = append(c.UIDs, strings.Clone(f.UID))
	}
	n := max(c.All, c.Unasked/r.min)
	if n > 0 {
		level, step = evidence.Low, 1+modules.Step(n, 1)
	} else if m.unasked {
		step = 0
	}
	k.MAC = strings.Clone(k.MAC)
	if step <= c.Step {
		st.Claims.Put(k, c, maxClaims)
		return
	}
	c.Step = step
	st.Claims.Put(k, c, maxClaims)
	who := f.Src
	if s, ok := st.Stations.Get(m.mac); ok && thief && f.Time-s.Seen <= known {
		who = s.Own
	}
	e := evidence.Evidence{
		Type: Unsolicited, Profile: who, Level: level, Confidence: 0.8,
		Attacker: evidence.IPEntity(who, evidence.Src, 0),
		Proto:    "arp", Count: max(c.All+c.Unasked, 1), UIDs: append([]string(nil), c.UIDs...), Subject: k.MAC + "|" + f.Src.String(), Step: step,
	}
	switch {
	case level == evidence.Info:
		e.Description = fmt.Sprintf("%s announced its address %s to all by an ARP reply that nobody asked for", m.mac, f.Src)
	case m.unasked:
		e.Victim = evidence.IPEntity(f.Dst, evidence.Dst, 0)
		e.Description = fmt.Sprintf("%s keeps telling others by ARP that it is %s: %d replies that nobody asked for, the last one to %s", m.mac, f.Src, c.Unasked, f.Dst)
	case f.Src == f.Dst:
		e.Description = fmt.Sprintf("%s told all by an ARP reply that it is %s, which belongs to another; %d such replies so far", m.mac, f.Src, c.All)
	default:
		e.Victim = evidence.IPEntity(f.Dst, evidence.Dst, 0)
		e.Description = fmt.Sprintf("%s told all by an ARP reply that it is %s, as if %s had asked; %d such replies so far", m.mac, f.Src, f.Dst, c.All)
	}
	cx.Emit(e)
}

// all reports whether a hardware address stands for everybody; replies to all
// have either of the two.
func all(mac string) bool {
	return strings.EqualFold(mac, "ff:ff:ff:ff:ff:ff") || mac == "00:00:00:00:00:00"
}

// station reports whether a hardware address is of one station.
func station(mac string) bool {
	return len(mac) == 17 && strings.IndexByte("02468ace", mac[1]) >= 0 && mac != "00:00:00:00:00:00"
}

// virtual reports whether a hardware address is one that several hosts share,
// so that one takes over when another fails: of VRRP and CARP, HSRP, GLBP,
// Microsoft's load balancing.
func virtual(mac string) bool {
	for _, p := range [...]string{"00:00:5e:00:01:", "00:00:5e:00:02:", "00:00:0c:07:ac:", "00:00:0c:9f:f", "00:05:73:a0:0", "00:07:b4:00:", "02:bf:"} {
		if strings.HasPrefix(mac, p) {
			return true
		}
	}
	return false
}

// pair returns the hash of who asked for whom.
func pair(a, b netip.Addr) uint32 {
	return modules.Hash(a, uint64(modules.Hash(b, 0)))
}
