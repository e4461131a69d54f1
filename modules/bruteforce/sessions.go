package bruteforce

import (
	"fmt"
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

// limits of a session in which a password was tried and did not fit.
const (
	maxSent     = 4000             // bytes: after the handshake there is no more to say
	maxSSH      = 6000             // bytes both ways: the keys are exchanged, and no shell follows
	maxFTP      = 1000             // bytes: a name and a password, a few times over
	maxBoth     = 12_000           // bytes both ways: a TLS server sends its certificates
	minSent     = 300              // bytes: before a password come versions and keys; a monitor that only looks sends less
	maxDuration = 90 * time.Second // servers hang up on those who do not get in
	// tcpHeaders is what Argus and Suricata count per packet besides the
	// payload: Ethernet, IPv4 and TCP headers with time stamps; nfdump has no
	// Ethernet.
	tcpHeaders, ethernet = 52, 14
)

// port says how a port is judged.
type port uint8

const (
	noLogin port = iota
	shell        // people log in there, programs seldom in quick succession
	backend      // programs log in there for each request, in their own network
)

func portOf(p uint16) port {
	switch p {
	case 21, 22, 23, 2222, 2323, 445, 3389, 5900:
		return shell
	case 110, 143, 465, 587, 993, 995, 1433, 3306, 5432, 5985, 5986, 6379:
		return backend
	}
	return noLogin
}

// small reports whether a connection may be one failed login. That a server
// resets it is no sign against it.
func small(f *flow.Flow) bool {
	if f.Proto != flow.TCP || f.Open || f.Duration > int64(maxDuration) || portOf(f.DstPort) == noLogin {
		return false
	}
	sent, got := payload(f)
	if sent <= 0 || got <= 0 || sent > maxSent || sent+got > maxBoth {
		return false
	}
	switch f.DstPort {
	case 22, 2222:
		return sent >= minSent && sent+got <= maxSSH
	case 445, 3389:
		return sent >= minSent
	case 21:
		return sent <= maxFTP
	}
	return true
}

// payload returns the bytes of each direction without the headers that some
// sensors count.
func payload(f *flow.Flow) (sent, got int64) {
	h := int64(0)
	switch f.Sensor {
	case flow.Suricata, flow.Argus:
		h = tcpHeaders + ethernet
	case flow.Nfdump:
		h = tcpHeaders
	case flow.Zeek:
	}
	return f.OrigBytes - h*f.OrigPkts, f.RespBytes - h*f.RespPkts
}

// session counts a connection that looks like one failed login: short, small,
// of the size of those before, and soon after the last. What a program does
// for its work differs in size, or comes at its own pace.
func (r rule) session(cx *modules.Context, st *State, f *flow.Flow) {
	if !small(f) || portOf(f.DstPort) == backend && profile.IsPrivate(f.Src) && profile.IsPrivate(f.Dst) {
		return // a web server opens such a connection for each page
	}
	k := Key{Target{f.Dst, f.DstPort, Sessions}, cx.Window().Start}
	c, known := st.campaign(cx, k, f.Time)
	sent, _ := payload(f)
	alone := known && far(f.Time-c.Last, pace)
	attempts := c.Attempts
	switch {
	case !known:
		c.Size, c.Attempts = sent, 1
	case alone:
	case sent > 2*c.Size || 2*sent < c.Size:
		c.Worked++ // of another size
	default:
		c.Size += (sent - c.Size) / 8
		c.Attempts++
	}
	if c.Attempts > attempts {
		c.try(f.Time)
		if c.Attempts == 2 && r.servers > 1 && manyServers(f.DstPort) && public(cx, f.Dst) {
			st.door(cx, f)
		}
	}
	c.Last = max(c.Last, f.Time) // connections are logged when they end
	if !alone {
		c.UIDs = named(c.UIDs, f.UID)
	}
	step := 0
	if c.Attempts > 2*c.Worked {
		step = modules.Step(c.Attempts, r.sessions)
	}
	report := step > c.Step
	c.Step = max(c.Step, step)
	st.Campaigns.Put(k, c, maxCampaigns)
	if !report {
		return
	}
	if len(st.Pending) >= maxPending {
		st.Dropped++
		return
	}
	n := c.tries(Sessions)
	confidence := r.confidence(Sessions, n, "")
	level := evidence.Medium
	if n >= sureSessions {
		level = evidence.High
	}
	if st.Pending == nil {
		st.Pending = make(map[uint64]Pending)
	}
	key := st.Next
	st.Next++
	st.Pending[key] = Pending{
		Key: SeenKey{f.Dst, f.DstPort, cx.Window().Start},
		Evidence: evidence.Evidence{
			Type: PasswordGuessing, Time: f.Time, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
			Victim: evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort), Level: level, Confidence: confidence, MITRE: []string{"T1110.001"},
			Description: fmt.Sprintf("%s opened %d short connections of about %d bytes each to the login port %s in quick succession%s, as password guessing does; confidence %.2f.",
				f.Src, c.Attempts, c.Size, netip.AddrPortFrom(f.Dst, f.DstPort), c.inOneGo(Sessions), confidence),
			Proto: "tcp", DstPort: f.DstPort, UIDs: slices.Clone(c.UIDs), Count: c.Attempts, Subject: subject(k.Target), Step: step,
		},
	}
	cx.After(wait, key)
}

// manyServers reports whether nobody has small sessions on the port of many
// servers of others: FTP is left out, for crawlers visit mirrors.
func manyServers(port uint16) bool { return portOf(port) == shell && port != 21 }

// door waits for the protocol's own log to tell of a server at which sessions
// look like tries. A host with more of them than there is room for is reported
// with those that there is.
func (st *State) door(cx *modules.Context, f *flow.Flow) {
	if len(st.Doors) >= maxPending {
		st.Dropped++
		return
	}
	if st.Doors == nil {
		st.Doors = make(map[uint64]Door)
	}
	key := st.Next
	st.Next++
	st.Doors[key] = Door{SeenKey{f.Dst, f.DstPort, cx.Window().Start}, f.Time, strings.Clone(f.UID)}
	cx.After(wait, key)
}

// Fire implements modules.TimerFirer. It reports connections unless the
// protocol's own log has told of the server by then: records from behind that
// moment may be there or not, so they do not count.
func (r rule) Fire(cx *modules.Context, st *State, key uint64) {
	if p, ok := st.Pending[key]; ok {
		delete(st.Pending, key)
		if !st.told(p.Key, p.Evidence.Time) {
			cx.Emit(p.Evidence)
		}
		return
	}
	d, ok := st.Doors[key]
	if !ok {
		return
	}
	delete(st.Doors, key)
	if st.told(d.Key, d.Time) {
		return
	}
	e, ok := r.server(st, SpreadKey{Sessions, d.Key.Port, d.Key.Window}, d.UID, true)
	if !ok {
		return
	}
	src := cx.Profile()
	e.Time, e.Attacker, e.Proto, e.DstPort = d.Time, evidence.IPEntity(src, evidence.Src, 0), "tcp", d.Key.Port
	e.Description = fmt.Sprintf("%s opened a few short connections to port %d/tcp of each of %d public servers, as somebody does who tries a few passwords on each.",
		src, d.Key.Port, e.Count)
	e.Subject = "servers " + strconv.Itoa(int(d.Key.Port))
	cx.Emit(e)
}

// told reports whether the protocol's own log told of a server no later than
// the time that a report waits.
func (st *State) told(k SeenKey, from int64) bool {
	t, seen := st.Seen.Get(k)
	return seen && t <= from+int64(wait)
}
