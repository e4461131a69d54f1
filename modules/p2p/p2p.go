// Package p2p recognises hosts that run a peer-to-peer program, so that a
// reader knows why other evidence about them weighs little, and bots that keep
// a peer-to-peer network of their own.
package p2p

import (
	"fmt"
	"math"
	"math/bits"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// The evidence this module emits.
const (
	Traffic evidence.Type = "P2P_TRAFFIC"
	Bot     evidence.Type = "P2P_BOT"
)

// Config holds the thresholds.
type Config struct {
	MinPeers    int64 `yaml:"min_peers"`     // peers in a window for the first report
	MinBotPeers int64 `yaml:"min_bot_peers"` // peers sent the same few bytes over UDP, most of them gone, in a window
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "p2p",
	Doc:   "traffic of peer-to-peer programs",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.Conn),
	Needs: flow.Of(flow.Conn),
	Emits: []evidence.Spec{{
		Type: Traffic, Level: evidence.Info, Tactic: evidence.Context, Subject: "host", Over: "window", Doc: "a host talks to many peers, as peer-to-peer programs do",
	}, {
		Type: Bot, Level: evidence.Medium, Tactic: evidence.CommandAndControl, MITRE: []string{"T1095", "T1571"}, Method: "Statistical", Subject: "host", Over: "window",
		Doc: "a host keeps sending many peers the same few bytes, as bots of a peer-to-peer network do",
	}},
}, Config{MinPeers: 40, MinBotPeers: 100}, New)

const (
	// maxPeers bounds the peers told apart in one window: three tables of
	// 64 KB each. What one host does with 4,096 peers says enough.
	maxPeers = 4096
	// firstUnprivileged is the first port that peers pick from.
	firstUnprivileged = 1024
	// The ports that BitTorrent programs use unless told otherwise.
	firstTorrent, lastTorrent = 6881, 6889
	// maxKnock is the most bytes that a bot's message to a peer has here. Those
	// of BitTorrent's DHT have 56 and more: two ids of 20 bytes, or one, in the
	// text of a dictionary.
	maxKnock = 48
	// headers are the bytes that sensors other than Zeek count in each packet:
	// Ethernet, IP and UDP. The others are those of IP and UDP.
	headers, headers4, headers6 = 42, 28, 48
	// bulk is from how many bytes a flow moves files. Programs that share files
	// move some with a part of their peers, bots of this kind with none.
	bulk = 20_000
	// spans is how many parts a window has, each marked when a peer was sent
	// something. A bot never rests, so it must mark early, and weighs more from
	// long on; who looks for a server to play on is done in minutes.
	spans, early, long = 64, 16, 32
	// firstSizes is the number of peers from which sizes are counted.
	firstSizes = 32
)

// The bits of a value of Counts.Pairs.
const (
	answered = 1 << iota
	failed
	torrent
	udp
	large
)

// State is what a host did in one window.
type State struct {
	Many *Counts // of a host that talked to several pairs; nil: there is only One
	One  First
}

// First is the only pair of address and port so far. It is all there is of
// most hosts of the Internet that turn up.
type First struct {
	Pair, Host uint32 // hashes; 0: there is none
	Flows      int32
	Port       uint16
	Marks      uint8 // as in Counts.Pairs
	TCP        bool
}

// Counts is what a host did that talked to several pairs.
type Counts struct {
	Pairs    modules.Table[uint8] // by hash of address and port
	Hosts    modules.Table[bool]
	Ports    modules.Table[bool]
	Answered int64 // pairs that answered
	Failed   int64 // pairs that did not, at least once
	Torrent  int64 // pairs that the sensor or the port shows to be BitTorrent's
	TCP, UDP bool
	Flows    int64
	Step     int
	UIDs     []string

	UDPPairs int64    // pairs over UDP
	Large    int64    // pairs with a flow that moved files
	Sizes    []uint16 // flows over UDP by the mean bytes of a packet sent; the last for longer ones
	Spans    uint64   // parts of the window with flows over UDP, a bit each
	BotStep  int
}

type rule struct {
	min, bot int64
	width    int64 // of a window, ns
}

var (
	_ modules.Rule[State]    = rule{}
	_ modules.Chooser        = rule{}
	_ modules.Toucher[State] = rule{}
)

// New checks the config and returns the rule.
func New(c Config, env modules.Env) (modules.Rule[State], error) {
	if c.MinPeers < 10 || c.MinPeers > maxPeers/2 {
		return nil, fmt.Errorf("min_peers: %d is not in 10..%d", c.MinPeers, maxPeers/2)
	}
	if c.MinBotPeers < 2*firstSizes || c.MinBotPeers > maxPeers/2 {
		return nil, fmt.Errorf("min_bot_peers: %d is not in %d..%d", c.MinBotPeers, 2*firstSizes, maxPeers/2)
	}
	return rule{c.MinPeers, c.MinBotPeers, int64(env.Width)}, nil
}

// Wants implements modules.Chooser. What comes from a port below 1024 is a
// service that answers; QUIC and the like are below 1024 on the other side.
func (rule) Wants(f *flow.Flow) bool {
	return f.DstPort >= firstUnprivileged && f.SrcPort >= firstUnprivileged && f.HasPorts &&
		(f.Proto == flow.TCP || f.Proto == flow.UDP) && profile.IsPublic(f.Dst)
}

func hashes(f *flow.Flow) (pair, host uint32) {
	return modules.Hash(f.Dst, uint64(f.DstPort)), modules.Hash(f.Dst, 0)
}

// Touch implements modules.Toucher.
func (rule) Touch(st *State, f *flow.Flow) uint32 {
	if st.Many == nil {
		return 0
	}
	pair, host := hashes(f)
	return st.Many.Pairs.Touch(pair) + st.Many.Hosts.Touch(host)
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client || f.State == flow.StateUnknown {
		return
	}
	marks := uint8(failed)
	if f.State == flow.Established || f.RespPkts > 0 && f.RespBytes > 0 {
		marks = answered
	}
	if f.DstPort >= firstTorrent && f.DstPort <= lastTorrent || strings.HasPrefix(f.Service, "bittorrent") {
		marks |= torrent
	}
	if f.Proto == flow.UDP {
		marks |= udp
	}
	if f.OrigBytes >= bulk || f.RespBytes >= bulk {
		marks |= large
	}
	pair, host := hashes(f)
	if st.Many == nil {
		if st.One.take(f, pair, host, marks) {
			return
		}
		st.unfold()
	}
	r.count(cx, st.Many, f, pair, host, marks)
}

// take counts f where there is only one pair, which is far too few to report
// anything. It returns false when f makes it more.
func (t *First) take(f *flow.Flow, pair, host uint32, marks uint8) bool {
	if t.Pair == 0 {
		*t = First{Pair: pair, Host: host, Port: f.DstPort}
	} else if t.Pair != pair || t.Flows == math.MaxInt32 {
		return false
	}
	t.Flows++
	t.Marks |= marks
	t.TCP = t.TCP || f.Proto == flow.TCP
	return true
}

// unfold makes room for several pairs, and counts the first.
func (st *State) unfold() {
	t, n := st.One, new(Counts)
	st.Many, st.One = n, First{}
	*n.Pairs.Put(t.Pair) = t.Marks
	*n.Hosts.Put(t.Host) = true
	*n.Ports.Put(uint32(t.Port)) = true
	n.Flows, n.TCP, n.UDP = int64(t.Flows), t.TCP, t.Marks&udp != 0
	n.add(t.Marks)
}

// add counts what became known of a pair.
func (st *Counts) add(marks uint8) {
	st.Answered += int64(marks & answered)
	st.Failed += int64(marks & failed / failed)
	st.Torrent += int64(marks & torrent / torrent)
	st.UDPPairs += int64(marks & udp / udp)
	st.Large += int64(marks & large / large)
}

// count counts a flow, and reports what it completes.
func (r rule) count(cx *modules.Context, st *Counts, f *flow.Flow, pair, host uint32, marks uint8) {
	v := st.Pairs.Get(pair)
	if v == nil {
		if st.Pairs.Len() >= maxPeers {
			return
		}
		v = st.Pairs.Put(pair)
		*st.Hosts.Put(host) = true
		*st.Ports.Put(uint32(f.DstPort)) = true
		if f.UID != "" && len(st.UIDs) < evidence.MaxUIDs && int64(st.Hosts.Len()) > r.min/2 {
			st.UIDs = append(st.UIDs, strings.Clone(f.UID))
		}
	}
	st.Flows++
	st.TCP, st.UDP = st.TCP || f.Proto == flow.TCP, st.UDP || f.Proto == flow.UDP
	added := marks &^ *v
	*v |= added
	if marks&udp != 0 {
		r.knock(cx, st, f)
	}
	if added == 0 {
		return
	}
	st.add(added)
	step := modules.Step(int64(st.Hosts.Len()), r.min)
	if step <= st.Step || !st.peers() {
		return
	}
	st.Step = step
	r.report(cx, st, f)
}

// peers reports whether the traffic looks like that of a peer-to-peer
// program. Each peer listens on a port of its own choice, so there are about
// as many ports as hosts and as many pairs of them; a scan has few hosts, few
// ports, or tries each port on each host. Some peers answer and some went away.
func (st *Counts) peers() bool {
	pairs, hosts, ports := int64(st.Pairs.Len()), int64(st.Hosts.Len()), int64(st.Ports.Len())
	if st.Answered*10 < pairs || pairs > 2*hosts {
		return false
	}
	if st.Torrent*10 >= hosts { // many peers have kept the usual ports
		return true
	}
	return ports*2 >= hosts && st.Failed*20 >= pairs
}

// knock counts what a peer was sent over UDP.
func (r rule) knock(cx *modules.Context, st *Counts, f *flow.Flow) {
	if int64(st.Hosts.Len()) < firstSizes || r.width <= 0 {
		return
	}
	if st.Sizes == nil {
		st.Sizes = make([]uint16, maxKnock+2)
	}
	if n := &st.Sizes[size(f)]; *n < math.MaxUint16 {
		*n++
	}
	span := uint64(1) << uint64(max(0, min(spans-1, (f.Time-cx.Window().Start)/(r.width/spans))))
	if st.Spans&span != 0 {
		return // it is looked at once in each part, so that it costs nothing
	}
	st.Spans |= span
	step := modules.Step(st.UDPPairs, r.bot)
	busy := bits.OnesCount64(st.Spans)
	if step == 0 || busy < early {
		return
	}
	if busy >= long {
		step++
	}
	if step <= st.BotStep {
		return
	}
	if bytes, ok := st.bot(); ok {
		st.BotStep = step
		r.reportBot(cx, st, f, bytes, busy)
	}
}

// size returns the index of a flow's mean bytes sent in Sizes. Zeek counts the
// payload of a packet only when another one followed, but always its bytes of IP.
func size(f *flow.Flow) int64 {
	if f.OrigPkts <= 0 {
		return maxKnock + 1
	}
	n := f.OrigBytes / f.OrigPkts
	switch {
	case f.Sensor != flow.Zeek:
		n -= headers
	case f.OrigIPBytes > 0 && f.Dst.Is6():
		n = f.OrigIPBytes/f.OrigPkts - headers6
	case f.OrigIPBytes > 0:
		n = f.OrigIPBytes/f.OrigPkts - headers4
	}
	if n <= 0 || n > maxKnock {
		return maxKnock + 1
	}
	return n
}

// bot reports whether the peers are those of a bot, and the bytes they are
// sent. A bot's list of peers is old, and most are gone; it knocks at each with
// the same few bytes, and never moves a file over the same ports. Programs that
// share files, call or play send messages of many lengths, and talk over TCP
// too or move something to some of their peers.
func (st *Counts) bot() (bytes int, ok bool) {
	pairs, hosts := int64(st.Pairs.Len()), int64(st.Hosts.Len())
	if st.UDPPairs*20 < pairs*19 || pairs > 2*hosts || st.Torrent*50 >= pairs || st.Large*50 >= pairs ||
		st.Answered*2 > pairs || st.Answered*50 < pairs {
		return 0, false
	}
	var total, best int64
	for _, n := range st.Sizes {
		total += int64(n)
	}
	for i := 1; i <= maxKnock; i++ {
		var near int64
		for j := max(1, i-2); j <= min(maxKnock, i+2); j++ {
			near += int64(st.Sizes[j])
		}
		// Of two with the same neighbours, the one with most of its own.
		if near > best || near == best && st.Sizes[i] > st.Sizes[bytes] {
			best, bytes = near, i
		}
	}
	return bytes, best*10 >= total*9 && !utp(bytes)
}

// utp reports whether a message is as long as the first of BitTorrent's uTP
// (BEP 29), of which a program sends one to each dead peer: a header of 20
// bytes, with the extension bits of the first program that had it 30.
func utp(n int) bool { return n == 20 || n == 30 }

func (r rule) reportBot(cx *modules.Context, st *Counts, f *flow.Flow, bytes, busy int) {
	e := evidence.Evidence{
		Type: Bot, Level: evidence.Medium, Confidence: 0.8,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
		Description: fmt.Sprintf("%s keeps knocking at %d peers over UDP with about %d bytes each time, in %d of %d parts of the window; %d of %d answered, %d moved more than %d kB",
			f.Src, st.Hosts.Len(), bytes, busy, spans, st.Answered, st.Pairs.Len(), st.Large, bulk/1000),
		Proto: f.Proto.String(), Count: st.Flows, UIDs: append([]string(nil), st.UIDs...), Subject: "bot", Step: st.BotStep,
	}
	if st.UDPPairs >= 2*r.bot {
		e.Level = evidence.High
	}
	if st.UDPPairs >= 4*r.bot {
		e.Confidence = 1
	}
	cx.Emit(e)
}

func (r rule) report(cx *modules.Context, st *Counts, f *flow.Flow) {
	hosts := int64(st.Hosts.Len())
	over := "UDP"
	switch {
	case st.TCP && st.UDP:
		over = "TCP and UDP"
	case st.TCP:
		over = "TCP"
	}
	name := "a peer-to-peer program"
	if st.Torrent*10 >= hosts {
		name = "a BitTorrent program"
	}
	cx.Emit(evidence.Evidence{
		Type: Traffic, Level: evidence.Info, Confidence: math.Round(100*min(1, 0.5+float64(hosts)/1000)) / 100,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
		Description: fmt.Sprintf("%s runs %s: it talks over %s to %d hosts on %d different high ports, %d of %d answered",
			f.Src, name, over, hosts, st.Ports.Len(), st.Answered, st.Pairs.Len()),
		Proto: f.Proto.String(), Count: st.Flows, UIDs: append([]string(nil), st.UIDs...), Subject: "p2p", Step: st.Step,
	})
}
