// Package mining reports hosts that work for a pool of cryptocurrency miners.
package mining

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Pool is the evidence this module emits.
const Pool evidence.Type = "MINING_POOL"

// Config holds the settings.
type Config struct {
	// Pools are further pools, by registered domain, at most 1000.
	Pools []string `yaml:"pools"`
	// MinDuration is how long a connection must last to look like mining, 1 min to 24 h.
	MinDuration time.Duration `yaml:"min_duration"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "mining",
	Doc:   "pools of cryptocurrency miners",
	Scope: modules.PerProfile,
	Kinds: flow.Of(flow.DNS, flow.SSL, flow.QUIC, flow.HTTP, flow.Conn),
	Emits: []evidence.Spec{{
		Type: Pool, Level: evidence.Medium, Tactic: evidence.Impact, MITRE: []string{"T1496.001"}, Subject: "protocol, pool", Over: "window",
		Doc: "a host looked up or talked to a pool of cryptocurrency miners",
	}},
}, Config{Pools: []string{}, MinDuration: 5 * time.Minute}, New)

const (
	// maxPools bounds the list in the configuration.
	maxPools = 1000
	// maxReports bounds what one state remembers as reported.
	maxReports = 256
	// maxAddrs bounds the addresses of pools remembered for one host.
	maxAddrs = 256
	// maxWaiting bounds the long connections that wait for the DNS log.
	maxWaiting = 256
	// maxRate is how many bytes a second, both ways, a miner's connection has
	// at most: a job or a share is some hundred bytes, every few seconds.
	maxRate = 1000
	// settle is how long a connection waits for the DNS log before it is
	// judged; what counts is the stream time at which an answer was logged.
	settle = 10 * time.Second
	// maxName bounds a name in a description, in bytes; DNS allows no more.
	maxName = 255
)

// State is what the module remembers of one profile.
type State struct {
	Reported modules.Recent[Subject, bool]
	Addrs    modules.Recent[netip.Addr, Named] // of pools, from DNS answers
	Waiting  map[uint64]Conn                   // by running number
	Next     uint64
	// Server and ServerAt are the last server at a port that not only pools use:
	// a hash of its address and port, and the start of the session, unix ns.
	Server   uint32
	ServerAt int64
	Dropped  int64 // connections not judged because Waiting was full
}

// Subject is what is reported once in a window.
type Subject struct {
	Window int64 // start
	What   string
}

// Named says which pool's address it is.
type Named struct {
	Name string
	At   int64 // stream time of the DNS log when it was first logged, unix ns
}

// Conn is a long connection that may be one with a pool.
type Conn struct {
	Dst           netip.Addr
	Port, SrcPort uint16
	Time          int64 // start, unix ns
	Duration      int64 // ns
	Bytes         int64
	UID           string
	Proto         flow.Proto
}

type rule struct {
	pools map[string]bool
	min   int64 // ns
	log   *slog.Logger
}

var (
	_ modules.Rule[State]       = rule{}
	_ modules.TimerFirer[State] = rule{}
	_ modules.Chooser           = rule{}
)

// New checks the config and returns the rule.
func New(c Config, env modules.Env) (modules.Rule[State], error) {
	if c.MinDuration < time.Minute || c.MinDuration > 24*time.Hour {
		return nil, fmt.Errorf("min_duration: %v is not between 1m and 24h", c.MinDuration)
	}
	if len(c.Pools) > maxPools {
		return nil, fmt.Errorf("pools: %d names, at most %d", len(c.Pools), maxPools)
	}
	r := rule{pools: make(map[string]bool), min: int64(c.MinDuration), log: env.Log}
	for _, p := range c.Pools {
		p = strings.ToLower(p)
		if reg, ok := registered(p, new(buffer)); !ok || string(reg) != p {
			return nil, fmt.Errorf("pools: %q is no registered domain, such as example.com", p)
		}
		r.pools[p] = true
	}
	for p := range strings.FieldsSeq(pools) {
		r.pools[p] = true
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	return r, nil
}

// Wants implements modules.Chooser.
func (r rule) Wants(f *flow.Flow) bool {
	switch f.Kind {
	case flow.DNS:
		return r.judge(f.DNS.Query) != none
	case flow.SSL, flow.QUIC:
		return r.judge(f.SSL.ServerName) != none
	case flow.HTTP:
		return r.judge(host(f.HTTP.Host)) != none
	case flow.Conn:
		return f.Duration >= r.min && f.Proto == flow.TCP && f.State == flow.Established && f.DstPort != 443 && f.DstPort != 80 &&
			f.OrigBytes > 0 && f.RespBytes > 0 && (f.OrigBytes+f.RespBytes)/(f.Duration/int64(time.Second)) <= maxRate
	default:
		return false
	}
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client || !f.Dst.IsValid() {
		return
	}
	switch f.Kind {
	case flow.DNS:
		if r.judge(f.DNS.Query) == pool {
			st.answers(cx, f)
		}
		r.name(cx, st, f, f.DNS.Query, "dns", "looked up")
	case flow.SSL, flow.QUIC:
		r.name(cx, st, f, f.SSL.ServerName, "tls", "talked over TLS to")
	case flow.HTTP:
		r.name(cx, st, f, host(f.HTTP.Host), "http", "talked over HTTP to")
	case flow.Conn:
		r.conn(cx, st, f)
	default: // no other kind is delivered
	}
}

// answers remembers the addresses of a pool.
func (st *State) answers(cx *modules.Context, f *flow.Flow) {
	for i, s := range f.DNS.Answers {
		a, err := netip.ParseAddr(s)
		if err != nil || !profile.IsPublic(a) {
			continue
		}
		if i >= maxAddrs {
			return
		}
		n, ok := st.Addrs.Get(a)
		if !ok {
			n = Named{strings.Clone(clip(strings.ToLower(f.DNS.Query))), cx.Now()}
		}
		st.Addrs.Put(a, n, maxAddrs)
	}
}

// name reports the name of a pool. A look-up may be that of a curious user;
// a session with the pool itself is more.
func (r rule) name(cx *modules.Context, st *State, f *flow.Flow, name, log, did string) {
	v := r.judge(name)
	if v == none {
		return
	}
	name = clip(strings.ToLower(strings.TrimSuffix(name, ".")))
	what := log + " " + domain(name)
	if v == website {
		what = log + " site " + domain(name)
	}
	if !st.first(cx, f.Time, what) {
		return
	}
	level, confidence, is := evidence.Medium, 0.8, "a pool of cryptocurrency miners"
	switch {
	case v == website:
		level, confidence, is = evidence.Low, 0.3, "the web site of a pool of cryptocurrency miners"
	case v == looks:
		confidence, is = 0.5, "by its name a pool of cryptocurrency miners"
	case log != "dns":
		level = evidence.High
	}
	e := evidence.Evidence{
		Type: Pool, Level: level, Confidence: confidence,
		Attacker:    evidence.IPEntity(f.Src, evidence.Src, f.SrcPort),
		Victim:      evidence.Entity{Kind: evidence.Domain, Value: strings.Clone(name), Direction: evidence.Dst},
		Description: fmt.Sprintf("%s %s %q, %s.", f.Src, did, name, is),
		Proto:       f.Proto.String(), SrcPort: f.SrcPort, DstPort: f.DstPort, Count: 1, Subject: what, Step: 1,
	}
	e.UIDs = modules.UID(f.UID)
	cx.Emit(e)
}

// first reports whether a subject has not been reported yet in the window of
// time t, and notes that it is now.
func (st *State) first(cx *modules.Context, t int64, what string) bool {
	s := Subject{cx.WindowAt(t).Start, what}
	if _, done := st.Reported.Get(s); done {
		return false
	}
	s.What = strings.Clone(what)
	st.Reported.Put(s, true, maxReports)
	return true
}

// conn notes a long, quiet connection. Whether its address is a pool's is
// known when the DNS log has come as far.
func (r rule) conn(cx *modules.Context, st *State, f *flow.Flow) {
	if !profile.IsPublic(f.Dst) {
		return
	}
	if len(st.Waiting) >= maxWaiting {
		if st.Dropped++; st.Dropped&(st.Dropped-1) == 0 {
			r.log.Debug("too many long connections of one host at a time", "profile", cx.Profile(), "not_judged", st.Dropped)
		}
		return
	}
	if st.Waiting == nil {
		st.Waiting = make(map[uint64]Conn)
	}
	key := st.Next
	st.Next++
	st.Waiting[key] = Conn{
		Dst: f.Dst, Port: f.DstPort, SrcPort: f.SrcPort, Time: f.Time, Duration: f.Duration, Bytes: f.OrigBytes + f.RespBytes,
		UID: strings.Clone(f.UID), Proto: f.Proto,
	}
	// The end of the connection, not its beginning, is the time by which its
	// name must have been looked up and logged.
	cx.After(max(time.Duration(f.Time+f.Duration-cx.Now()), 0)+settle, key)
}

// Fire implements modules.TimerFirer.
func (r rule) Fire(cx *modules.Context, st *State, key uint64) {
	c, ok := st.Waiting[key]
	if !ok {
		return
	}
	delete(st.Waiting, key)
	server := netip.AddrPortFrom(c.Dst, c.Port)
	what, is := "conn "+server.String(), "at a port that pools of cryptocurrency miners use"
	level, confidence := evidence.Low, 0.4
	// An answer from behind the moment of decision is there only if the DNS
	// log happens to be ahead, so it does not count.
	n, known := st.Addrs.Get(c.Dst)
	switch {
	case known && n.At <= cx.Now():
		level, confidence, is = evidence.High, 1, fmt.Sprintf("the address of %q, a pool of cryptocurrency miners", n.Name)
		what = "pool " + domain(n.Name)
	case !stratum(c.Port), common(c.Port) && !st.second(c):
		return
	}
	if !st.first(cx, c.Time, what) {
		return
	}
	e := evidence.Evidence{
		Type: Pool, Time: c.Time, Level: level, Confidence: confidence,
		Attacker: evidence.IPEntity(cx.Profile(), evidence.Src, c.SrcPort), Victim: evidence.IPEntity(c.Dst, evidence.Dst, c.Port),
		Description: fmt.Sprintf("%s held a connection to %s, %s, for %d minutes with %d bytes, as miners do.",
			cx.Profile(), server, is, c.Duration/int64(time.Minute), c.Bytes),
		Proto: c.Proto.String(), SrcPort: c.SrcPort, DstPort: c.Port, Count: 1, Subject: what, Step: 1,
	}
	if c.UID != "" {
		e.UIDs = []string{c.UID}
	}
	cx.Emit(e)
}

// stratum reports whether a port is one that pools have written into the
// examples that miners copy.
func stratum(port uint16) bool {
	switch port {
	case 3333, 4444, 5555, 7777, 14433, 14444, 45560, 45700:
		return true
	}
	return false
}

// common reports whether a port of stratum's is also one that other programs
// and remote shells take when they take any.
func common(port uint16) bool {
	return port == 3333 || port == 4444 || port == 5555 || port == 7777
}

// second notes the server of a session and reports whether there was another
// one within a day: miners are given several, for the case that one is down.
func (st *State) second(c Conn) bool {
	h := modules.Hash(c.Dst, uint64(c.Port))
	other := st.ServerAt != 0 && st.Server != h && c.Time-st.ServerAt < int64(24*time.Hour)
	st.Server, st.ServerAt = h, max(1, c.Time)
	return other
}

// host returns a Host header without its port.
func host(h string) string {
	h, _, _ = strings.Cut(h, ":")
	return h
}

// verdict says what a name is.
type verdict uint8

const (
	none    verdict = iota
	website         // of a pool
	looks           // like that of a pool
	pool
)

// judge says what a name is. It is asked for every name of the network.
func (r rule) judge(name string) verdict {
	name = strings.TrimSuffix(name, ".")
	var b buffer
	reg, ok := registered(name, &b)
	if !ok {
		return none
	}
	if r.pools[string(reg)] {
		switch sub := name[:len(name)-len(reg)]; {
		case sub == "", site(sub[:len(sub)-1]):
			return website
		}
		return pool
	}
	if minerly(name) {
		return looks
	}
	return none
}

// site reports whether the labels in front of a pool's domain are those of
// its web site.
func site(sub string) bool {
	first, _, _ := strings.Cut(sub, ".")
	for _, s := range [...]string{"www", "api", "api2", "static", "cdn", "blog", "docs", "help", "support", "status", "mail", "forum", "news"} {
		if strings.EqualFold(first, s) {
			return true
		}
	}
	return false
}

// buffer has room for a registered domain.
type buffer [48]byte

// registered returns the last two labels of a name in lower case, in b.
func registered(name string, b *buffer) ([]byte, bool) {
	dots, from := 0, 0
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '.' {
			if dots++; dots == 2 {
				from = i + 1
				break
			}
		}
	}
	reg := name[from:]
	if dots == 0 || len(reg) < 4 || len(reg) > len(b) || reg[0] == '.' {
		return nil, false
	}
	for i := range len(reg) {
		c := reg[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b[i] = c
	}
	return b[:len(reg)], true
}

// domain returns the registered domain of a name, or the name.
func domain(name string) string {
	var b buffer
	if reg, ok := registered(name, &b); ok {
		return string(reg)
	}
	return name
}

// minerly reports whether the words of a name are those of a pool: "stratum"
// alone, or a coin together with a word for mining.
func minerly(name string) bool {
	coin, mine := false, false
	for start := 0; start < len(name); {
		end := start
		for end < len(name) && name[end] != '.' && name[end] != '-' && name[end] != '_' {
			end++
		}
		switch w := name[start:end]; len(w) {
		case 3:
			coin = coin || word(w, "xmr", "etc", "rvn", "zec", "ltc", "btc", "eth")
		case 4:
			mine = mine || word(w, "pool", "mine")
		case 5:
			mine = mine || word(w, "miner", "pools")
		case 6:
			coin = coin || word(w, "monero")
			mine = mine || word(w, "mining", "miners")
		case 7:
			if word(w, "stratum", "xmrpool", "poolxmr", "minexmr", "xmrmine") {
				return true
			}
		case 8:
			if word(w, "stratum1", "stratum2") {
				return true
			}
		case 10:
			if word(w, "moneropool", "poolmonero", "moneromine", "minemonero") {
				return true
			}
		}
		start = end + 1
	}
	return coin && mine
}

func word(w string, list ...string) bool {
	for _, l := range list {
		if strings.EqualFold(w, l) {
			return true
		}
	}
	return false
}

func clip(s string) string {
	if len(s) > maxName {
		return strings.ToValidUTF8(s[:maxName], "")
	}
	return s
}

// pools are the registered domains of public pools. The list is common
// knowledge of 2025, written down by hand and not checked against a published
// one; the configuration adds to it. Those that have closed stay: what was
// built to work for them still looks them up.
const pools = `
	minexmr.com minexmr2.com nanopool.org supportxmr.com f2pool.com ethermine.org 2miners.com nicehash.com moneroocean.stream
	hashvault.pro c3pool.com c3pool.org herominers.com viabtc.com viabtc.net antpool.com p2pool.io xmrpool.eu xmrpool.net monerohash.com
	xmrpool.me xmr.pt crypto-pool.fr minergate.com moneropool.com dwarfpool.com poolto.be skypool.org skypool.xyz
	sparkpool.com hiveon.net flypool.org flexpool.io ezil.me unmineable.com woolypooly.com kryptex.network
	rplant.xyz zergpool.com zpool.ca prohashing.com miningpoolhub.com suprnova.cc coinotron.com slushpool.com
	poolin.com luxor.tech spiderpool.com emcd.io k1pool.com gntl.uk bohemianpool.com
	cruxpool.com crazypool.org mining-dutch.nl aionpool.tech vipor.net coinhive.com coin-hive.com cryptoloot.pro webminepool.com
	xmrminingproxy.com monerpool.org iwanttoearn.money minemonero.pro usxmrpool.com xmrfast.com hashcity.org fairpool.xyz
	solopool.org`
