// Package dhcpscan reports clients that ask a DHCP server for one address
// after the other, and servers that are asked by ever new clients.
package dhcpscan

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
	Scan       evidence.Type = "DHCP_SCAN"
	Starvation evidence.Type = "DHCP_STARVATION"
)

// Config holds the thresholds.
type Config struct {
	MinAddresses int64 `yaml:"min_addresses"` // different addresses one client asked for in a window
	MinClients   int64 `yaml:"min_clients"`   // new clients within a minute
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name: "dhcpscan",
	Doc:  "many addresses asked for by one DHCP client, or many DHCP clients that turn up at once",
	// A client is its hardware address: the address that a record names is the
	// one it asks for, another one each time, or there is none.
	Scope: modules.Network,
	Kinds: flow.Of(flow.DHCP),
	Needs: flow.Of(flow.DHCP),
	Emits: []evidence.Spec{
		{Type: Scan, Level: evidence.Medium, Tactic: evidence.Discovery, MITRE: []string{"T1018"}, Subject: "hardware address", Over: "window", Method: "Recon", Doc: "a client asked the DHCP server for many different addresses"},
		{Type: Starvation, Level: evidence.Medium, Tactic: evidence.Impact, MITRE: []string{"T1498"}, Subject: "server", Over: "1 min", Method: "Threshold", Doc: "many DHCP clients never seen before asked for addresses at once"},
	},
}, Config{MinAddresses: 4, MinClients: 100}, New)

const (
	// maxClients bounds the clients remembered; a starvation makes up new ones.
	maxClients = 8192
	// maxAddresses bounds the addresses told apart for one client and window.
	maxAddresses = 128
	// maxScanning bounds the clients with addresses asked for.
	maxScanning = 2048
	// minute is the time over which new clients are counted.
	minute = int64(time.Minute)
)

// State is what the module remembers of the network.
type State struct {
	Clients modules.Recent[string, Client]
	Known   modules.RecentTable[bool] // hashes of hardware addresses seen
	Fresh   Fresh
}

// Client is what one hardware address asked for in one window.
type Client struct {
	Window int64
	Own    netip.Addr // the address it has, as far as it is known
	Asked  []netip.Addr
	Step   int
	UIDs   []string
}

// Fresh counts the clients seen for the first time.
type Fresh struct {
	Slots  [12]int64 // by 5 s of stream time
	Slot   int64     // number of the newest one
	Window int64
	Step   int
	UIDs   []string
}

type rule struct{ c Config }

var _ modules.Rule[State] = rule{}

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MinAddresses < 2 || c.MinAddresses > maxAddresses {
		return nil, fmt.Errorf("min_addresses: %d is not in 2..%d", c.MinAddresses, maxAddresses)
	}
	if c.MinClients < 10 || c.MinClients > 100_000 {
		return nil, fmt.Errorf("min_clients: %d is not in 10..100000", c.MinClients)
	}
	return rule{c}, nil
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	d := f.DHCP
	mac := d.MAC
	if mac == "" {
		mac = f.SrcMAC
	}
	if mac != "" {
		r.fresh(cx, st, f, mac)
	}
	if !some(d.Requested) {
		return
	}
	key := mac
	if key == "" {
		if !some(f.Src) {
			return
		}
		key = f.Src.String() // the log has no hardware addresses
	}
	w := cx.Window().N
	c, ok := st.Clients.Get(key)
	switch {
	case ok && w < c.Window:
		return // a late record of a window that is told
	case ok && w > c.Window:
		c = Client{Own: c.Own, Asked: c.Asked[:0]}
	}
	c.Window = w
	for _, a := range [...]netip.Addr{d.Assigned, d.Client} {
		if some(a) && a != d.Requested {
			c.Own = a
		}
	}
	if c.add(d.Requested, f.UID) {
		r.scan(cx, f, key, &c)
	}
	st.Clients.Put(strings.Clone(key), c, maxScanning)
}

// some reports whether a record names an address.
func some(a netip.Addr) bool { return a.IsValid() && !a.IsUnspecified() }

// add notes an address asked for and reports whether it is new.
func (c *Client) add(a netip.Addr, uid string) bool {
	if len(c.Asked) >= maxAddresses || slices.Contains(c.Asked, a) {
		return false
	}
	c.Asked = append(c.Asked, a)
	if uid != "" && len(c.UIDs) < evidence.MaxUIDs {
		c.UIDs = append(c.UIDs, strings.Clone(uid))
	}
	return true
}

func (r rule) scan(cx *modules.Context, f *flow.Flow, mac string, c *Client) {
	n := int64(len(c.Asked))
	step := modules.Step(n, r.c.MinAddresses)
	if step <= c.Step {
		return
	}
	c.Step = step
	who := c.Own
	if !some(who) {
		who = f.Src
	}
	e := evidence.Evidence{
		Type: Scan, Profile: who, Level: evidence.Medium, Confidence: min(1, float64(n)/10),
		Attacker: evidence.IPEntity(who, evidence.Src, 0),
		Description: fmt.Sprintf("%s (%s) asked by DHCP for %d different addresses, from %s to %s",
			who, mac, n, c.Asked[0], c.Asked[len(c.Asked)-1]),
		Proto: "udp", DstPort: 67, Count: n, UIDs: append([]string(nil), c.UIDs...),
		Subject: strings.ToLower(strings.Clone(mac)), Step: step,
	}
	if some(f.DHCP.Server) {
		e.Victim = evidence.IPEntity(f.DHCP.Server, evidence.Dst, 67)
	}
	cx.Emit(e)
}

// fresh counts a client that was not seen before.
func (r rule) fresh(cx *modules.Context, st *State, f *flow.Flow, mac string) {
	h := modules.HashLower(mac)
	if st.Known.Get(h) != nil {
		return
	}
	*st.Known.Put(h, maxClients) = true
	x := &st.Fresh
	if w := cx.Window().N; w > x.Window {
		x.Window, x.Step = w, 0
	}
	const width = minute / int64(len(x.Slots))
	slot := f.Time / width
	switch size := int64(len(x.Slots)); {
	case slot <= x.Slot-size:
		return
	case slot > x.Slot:
		for s := max(x.Slot+1, slot-size+1); s <= slot; s++ {
			x.Slots[s%size] = 0
		}
		x.Slot = slot
	}
	x.Slots[slot%int64(len(x.Slots))]++
	var n int64
	for _, v := range x.Slots {
		n += v
	}
	if n < r.c.MinClients/2 {
		x.UIDs = x.UIDs[:0]
	} else if f.UID != "" && len(x.UIDs) < evidence.MaxUIDs {
		x.UIDs = append(x.UIDs, strings.Clone(f.UID))
	}
	step := modules.Step(n, r.c.MinClients)
	if step <= x.Step {
		return
	}
	s := f.DHCP.Server
	if known := cx.Network().DHCPServers; !some(s) && len(known) > 0 {
		s = known[0]
	}
	if !some(s) {
		return // nobody answers, so there is nobody to be starved
	}
	x.Step = step
	e := evidence.Evidence{Type: Starvation, Profile: s, Victim: evidence.IPEntity(s, evidence.Dst, 67)}
	e.Level, e.Confidence = evidence.Medium, min(1, 0.2*float64(step+1))
	e.Description = fmt.Sprintf("%d DHCP clients never seen before asked %s for addresses within a minute, as if to use up all it has", n, s)
	e.Proto, e.DstPort, e.Count, e.UIDs = "udp", 67, n, append([]string(nil), x.UIDs...)
	e.Subject, e.Step = "starvation", step
	cx.Emit(e)
}
