// Package ipchange reports devices that go on under another IPv4 address.
package ipchange

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Changing is the evidence this module emits.
const Changing evidence.Type = "DEVICE_CHANGING_IP"

// Config holds the settings.
type Config struct {
	// Away is how long a device may have been silent before it counts as one
	// that left and came back, 1 min to 24 h.
	Away time.Duration `yaml:"away"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "ipchange",
	Doc:   "a device that goes on under another IPv4 address",
	Scope: modules.Network,
	Kinds: flow.Of(flow.Conn, flow.DHCP),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{{
		Type: Changing, Level: evidence.Low, Tactic: evidence.DefenseEvasion, MITRE: []string{"T1036"}, Subject: "device, address before", Over: "flow",
		Doc: "a hardware address left one IPv4 address for another",
	}},
}, Config{Away: 30 * time.Minute}, New)

const (
	// wait is how long after a device appeared under another address it is
	// judged: whoever goes on using the old one has two addresses.
	wait = 10 * time.Minute
	// maxDevices bounds the hardware addresses told apart, those seen least
	// recently are forgotten. No network segment has as many.
	maxDevices = 1 << 14
	// maxLeases bounds the leases remembered: a few for each device.
	maxLeases = 1 << 15
	// maxPending bounds the changes that wait to be judged. Who sends with so
	// many hardware addresses has made them up.
	maxPending = 4096
	// tick is how old the note of a device's last use of an address may be.
	tick = int64(30 * time.Second)
)

// State is what the module remembers of the network.
type State struct {
	Devices modules.Recent[uint64, Device] // by hardware address
	Pending map[uint64]Change              // by running number
	Next    uint64                         // running number of the next
	// Leases tells when the log of DHCP first named a lease, in its stream
	// time: what it says later than the moment of a decision does not count,
	// however far it is ahead.
	Leases modules.Recent[Lease, int64]
	DHCPAt int64 // of the first lease; 0: none yet
}

// Lease is an address that DHCP gave a device.
type Lease struct {
	MAC  uint64
	Addr netip.Addr
}

// Device is a hardware address.
type Device struct {
	Addr   netip.Addr // the address it has
	Last   int64      // when it used it last, to within tick, unix ns
	Since  int64      // start of its first flow from there; 0: it was never seen to have another
	Old    netip.Addr // the one before
	Change uint64     // the change to Addr in Pending
	Due    int64      // until when it may turn out to be none; 0: there was no change
	Router bool       // it stands before several addresses, so none is its own
}

// Change is a change of address that waits to be judged.
type Change struct {
	MAC      uint64
	From, To netip.Addr
	Last     int64 // latest flow from From, unix ns
	Time     int64 // first flow from To, unix ns
	UID      string
}

type rule struct{ away int64 } // ns

var (
	_ modules.Rule[State]       = rule{}
	_ modules.TimerFirer[State] = rule{}
	_ modules.Chooser           = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.Away < time.Minute || c.Away > 24*time.Hour {
		return nil, fmt.Errorf("away: %v is not between 1m and 24h", c.Away)
	}
	return rule{int64(c.Away)}, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool {
	return f.Kind == flow.DHCP || f.SrcMAC != "" && f.Src.Is4()
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if f.Kind == flow.DHCP {
		st.lease(f.DHCP, cx.Now())
		return
	}
	mac, ok := parse(f.SrcMAC)
	if !ok || !f.Src.Is4() || !profile.IsScannable(f.Src) {
		return
	}
	d, known := st.Devices.Get(mac)
	judging := cx.Now() < d.Due
	switch {
	case d.Router:
		return
	case !f.Src.IsPrivate():
		// What comes from the Internet was passed on by a router. A device with
		// a public address of its own is no matter for this module either.
		st.route(&d, judging)
	case !known:
		d.Addr, d.Last = f.Src, f.Time
	case f.Src == d.Addr:
		if f.Time < d.Last+tick {
			return
		}
		d.Last = f.Time
	case f.Time <= d.Since, f.Src != d.Old && f.Time < d.Last:
		return // a flow that began under an address it had
	case f.Src == d.Old, judging:
		// It has both addresses, or a third one by now.
		st.route(&d, judging)
	default:
		if !st.change(cx, mac, &d, f) {
			return
		}
	}
	st.Devices.Put(mac, d, maxDevices)
}

// route notes that d stands before several addresses.
func (st *State) route(d *Device, judging bool) {
	d.Router = true
	if judging {
		delete(st.Pending, d.Change)
	}
}

// change puts the new address of d among those to be judged.
func (st *State) change(cx *modules.Context, mac uint64, d *Device, f *flow.Flow) bool {
	if len(st.Pending) >= maxPending {
		return false
	}
	if st.Pending == nil {
		st.Pending = make(map[uint64]Change)
	}
	st.Next++
	st.Pending[st.Next] = Change{MAC: mac, From: d.Addr, To: f.Src, Last: d.Last, Time: f.Time, UID: strings.Clone(f.UID)}
	*d = Device{Addr: f.Src, Last: f.Time, Since: f.Time, Old: d.Addr, Change: st.Next, Due: cx.Now() + int64(wait)}
	cx.After(wait, st.Next)
	return true
}

// lease notes the addresses that a DHCP record names for a device.
func (st *State) lease(d *flow.DHCPPart, at int64) {
	mac, ok := parse(d.MAC)
	if !ok {
		return
	}
	for _, a := range [...]netip.Addr{d.Assigned, d.Client} {
		if !a.IsValid() || a.IsUnspecified() {
			continue
		}
		l, since := Lease{mac, a}, at
		if was, ok := st.Leases.Get(l); ok {
			since = min(since, was)
		}
		st.Leases.Put(l, since, maxLeases)
		if st.DHCPAt == 0 || at < st.DHCPAt {
			st.DHCPAt = at
		}
	}
}

// Fire implements modules.TimerFirer: it judges a change.
func (r rule) Fire(cx *modules.Context, st *State, key uint64) {
	c, ok := st.Pending[key]
	if !ok {
		return
	}
	delete(st.Pending, key)
	text := write(c.MAC)
	if strings.EqualFold(cx.Network().GatewayMAC, text) {
		return
	}
	level, confidence, how := evidence.Low, 0.4, ""
	given, leased := st.Leases.Get(Lease{c.MAC, c.To})
	switch {
	case leased && given < cx.Now():
		level, confidence, how = evidence.Info, 0.2, "; DHCP gave it the address"
	case c.MAC>>40&2 != 0:
		level, confidence, how = evidence.Info, 0.3, "; the hardware address is not a maker's, but set by software"
	case c.Time-c.Last >= r.away:
		level, confidence, how = evidence.Info, 0.3, fmt.Sprintf("; it was silent for %d minutes before", (c.Time-c.Last)/int64(time.Minute))
	case st.DHCPAt != 0 && st.DHCPAt < cx.Now():
		confidence, how = 0.8, "; DHCP did not give it the address"
	}
	e := evidence.Evidence{
		Type: Changing, Profile: c.To, Time: c.Time, Level: level, Confidence: confidence,
		Attacker:    evidence.IPEntity(c.To, evidence.Src, 0),
		Description: fmt.Sprintf("the device %s, which had the address %s, goes on as %s%s", text, c.From, c.To, how),
		Count:       1, Subject: text + " " + c.From.String(), Step: 1,
	}
	if c.UID != "" {
		e.UIDs = []string{c.UID}
	}
	cx.Emit(e)
}

// parse reads a hardware address of six bytes, in hex with any separator. It
// refuses those of groups and of nobody.
func parse(s string) (uint64, bool) {
	if len(s) != 17 {
		return 0, false
	}
	var v uint64
	for i := range 17 {
		c := s[i]
		switch {
		case i%3 == 2:
			continue
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		v = v<<4 | uint64(c)
	}
	return v, v != 0 && v>>40&1 == 0
}

// write writes a hardware address.
func write(mac uint64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], mac)
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[2], b[3], b[4], b[5], b[6], b[7])
}
