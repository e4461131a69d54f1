package beacon

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"math"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, Spec, "testdata/*.txtar") }

const start = int64(1_700_000_000)

// play runs records in the order of their times, windows an hour long, and
// the timers between them.
type play struct {
	run    modules.Runner
	st     any
	h      modules.Host
	cx     *modules.Context
	got    []evidence.Evidence
	timers []timer
}

type timer struct {
	at  int64
	key uint64
}

func newPlay(t testing.TB) *play {
	t.Helper()
	run, err := Spec.New(Spec.Defaults(), modules.Env{Width: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	p := &play{run: run, st: run.NewState()}
	p.h.Net = &profile.Network{}
	p.h.Emit = func(e evidence.Evidence) { p.got = append(p.got, e) }
	p.h.At = func(t int64) profile.Window { return profile.WindowOf(t, start*1e9, int64(time.Hour)) }
	p.h.After = func(d time.Duration, k uint64) { p.timers = append(p.timers, timer{p.h.Now + int64(d), k}) }
	p.cx = modules.NewContext(&p.h)
	return p
}

func (p *play) until(now int64) {
	for len(p.timers) > 0 && p.timers[0].at <= now {
		x := p.timers[0]
		p.timers = p.timers[1:]
		p.h.Now, p.h.Record = x.at, x.at
		p.run.Fire(p.cx, p.st, x.key)
	}
}

func (p *play) handle(f *flow.Flow) {
	if !p.run.Chooser().Wants(f) {
		return
	}
	p.until(f.Time)
	p.h.Now, p.h.Record, p.h.Profile, p.h.Window = max(p.h.Now, f.Time), f.Time, f.Src, p.h.At(f.Time)
	p.run.Handle(p.cx, p.st, f)
}

func (p *play) all(flows []*flow.Flow) []evidence.Evidence {
	slices.SortStableFunc(flows, func(a, b *flow.Flow) int { return int(a.Time/1e6) - int(b.Time/1e6) })
	for _, f := range flows {
		p.handle(f)
	}
	p.until(math.MaxInt64)
	return p.got
}

var (
	host  = netip.MustParseAddr("10.0.0.5")
	there = netip.MustParseAddr("20.1.2.3")
)

// conn is an answered connection s seconds from the start, with a source port
// that was not used lately.
func conn(s float64, dst netip.Addr, port uint16, sent int64) *flow.Flow {
	return &flow.Flow{
		Kind: flow.Conn, Src: host, Dst: dst, DstPort: port, SrcPort: 1024 + uint16(int64(s*10)%60_000), HasPorts: true, Proto: flow.TCP,
		Time: start*1e9 + int64(s*1e9), State: flow.Established, RawState: "SF", UID: fmt.Sprintf("C%.1f", s),
		OrigBytes: sent, OrigIPBytes: sent + 300, OrigPkts: 6, RespBytes: 900, RespIPBytes: 1200, RespPkts: 5,
	}
}

func tls(s float64, dst netip.Addr, port uint16, name string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.SSL)
	f.Src, f.Dst, f.DstPort, f.SrcPort, f.Time = host, dst, port, 1024+uint16(int64(s*10)%60_000), start*1e9+int64(s*1e9)
	f.SSL.ServerName, f.UID = name, fmt.Sprintf("C%.1f", s)
	return f
}

// score is what the evidence of the worst window comes to, by the rules for
// alerts: 15 x level x confidence, each further piece counting half as much.
func score(all []evidence.Evidence) float64 {
	by := map[int64][]float64{}
	for _, e := range all {
		w := e.Time / int64(time.Hour)
		by[w] = append(by[w], 15*e.Level.Value()*e.Confidence)
	}
	worst := 0.0
	for _, l := range by {
		slices.Sort(l)
		sum, part := 0.0, 1.0
		for _, v := range slices.Backward(l) {
			sum, part = sum+part*v, part/2
		}
		worst = max(worst, sum)
	}
	return worst
}

// every makes n calls at an interval of s seconds, off by up to jitter of it.
func every(seed random, n int, s, jitter float64, call func(at float64) []*flow.Flow) []*flow.Flow {
	var all []*flow.Flow
	at := 30.0
	for range n {
		all = append(all, call(at)...)
		at += s * (1 + seed.between(-jitter, jitter))
	}
	return all
}

func odd(at float64) []*flow.Flow { return []*flow.Flow{conn(at, there, 8745, 200)} }

func rat(at float64) []*flow.Flow { return []*flow.Flow{conn(at, there, 4444, 200)} }

// words are a few bytes, not always the same, over a few packets or some more.
func words(at float64) []*flow.Flow {
	n := int64(at*10) % 16
	f := conn(at, there, 8745, 15+n)
	f.OrigIPBytes, f.RespBytes, f.RespIPBytes = 200+10*n, n, 180+8*n
	return []*flow.Flow{f}
}

func bare(at float64) []*flow.Flow {
	return []*flow.Flow{conn(at, there, 443, 700), tls(at+0.1, there, 443, "")}
}

func named(name string) func(float64) []*flow.Flow {
	return func(at float64) []*flow.Flow {
		return []*flow.Flow{conn(at, there, 443, 700), tls(at+0.1, there, 443, name)}
	}
}

// post is a request to one of two addresses of a name, without its connection.
func post(at float64) []*flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.HTTP)
	f.Src, f.Dst, f.DstPort, f.SrcPort, f.Time = host, there, 80, 1024+uint16(int64(at*10)%60_000), start*1e9+int64(at*1e9)
	if f.SrcPort%3 == 0 {
		f.Dst = there.Next()
	}
	f.HTTP.Method, f.HTTP.Host, f.HTTP.URI, f.HTTP.RequestLen, f.UID = "POST", "cc.example.net", "/gate", int64(f.SrcPort%200), fmt.Sprintf("C%.1f", at)
	return []*flow.Flow{f}
}

func dead(at float64) []*flow.Flow {
	f := conn(at, there, 1177, 0)
	f.State, f.RawState, f.RespBytes, f.RespPkts, f.RespIPBytes = flow.NotEstablished, "S0", 0, 0, 0
	return []*flow.Flow{f}
}

// TestBeacons shows what is found, how surely, and its period.
func TestBeacons(t *testing.T) {
	for _, c := range []struct {
		name   string
		flows  []*flow.Flow
		period float64
		level  evidence.Level
		least  float64 // score of the worst window
	}{
		{"every minute, bare", every(1, 60, 60, 0, bare), 60, evidence.High, 12},
		{"every minute, dead", every(1, 60, 60, 0, dead), 60, evidence.High, 12},
		{"every 2 s, named", every(1, 300, 2, 0, named("a.example.net")), 2, evidence.High, 12},
		{"every 10 min, off by 10 %, bare", every(2, 36, 600, 0.1, bare), 600, evidence.High, 10.5},
		{"every 10 min, off by 30 %, bare", every(3, 72, 600, 0.3, bare), 600, evidence.High, 10},
		{"every 10 min, off by 50 %, bare", every(4, 144, 600, 0.5, bare), 600, evidence.High, 9},
		{"every 10 min, off by 50 %, dead", every(5, 144, 600, 0.5, dead), 600, evidence.High, 9},
		{"every 10 min, off by 50 %, unusual port", every(6, 144, 600, 0.5, odd), 600, evidence.High, 4.5},
		{"every 10 min, off by 50 %, port of malware", every(6, 144, 600, 0.5, rat), 600, evidence.High, 9},
		{"every minute, off by 2 %, 800 bytes, port of malware", every(6, 60, 60, 0.02, rat), 60, evidence.High, 18},
		{"every 15 min, off by 50 %, 8 calls, unusual port", every(4, 10, 900, 0.5, odd), 900, evidence.Medium, 3},
		{"every 15 min, off by 50 %, 8 calls, bare", every(4, 10, 900, 0.5, bare), 900, evidence.High, 7},
		{"every 63 s, off by 2 %, a few bytes, unusual port", every(10, 60, 63, 0.02, words), 63, evidence.High, 18},
		{"every 5 min, off by 2 %, a few bytes, unusual port", every(10, 60, 300, 0.02, words), 300, evidence.High, 12},
		{"every hour of a day, bare", every(7, 24, 3600, 0.02, bare), 3600, evidence.High, 11.5},
		{"every 5 min, off by 20 %, posts to a name", every(9, 40, 300, 0.2, post), 300, evidence.Medium, 3},
		{"every minute, named", every(8, 60, 60, 0.05, named("a.example.net")), 60, evidence.Medium, 3.75},
		{"every 62 s, named", every(8, 60, 62, 0.05, named("a.example.net")), 62, evidence.Medium, 3.75},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := newPlay(t).all(c.flows)
			if len(all) == 0 {
				t.Fatal("nothing found")
			}
			last, worst := all[len(all)-1], evidence.Info
			for _, e := range all {
				worst = max(worst, e.Level)
			}
			if s := score(all); worst != c.level || s < c.least {
				t.Errorf("level %s, score %.2f, want %s and %v: %s", worst, s, c.level, c.least, last.Description)
			}
			_, rest, _ := strings.Cut(last.Description, " every ")
			every, _, _ := strings.Cut(rest, ",")
			p, err := time.ParseDuration(every)
			if err != nil || math.Abs(p.Seconds()-c.period) > 0.2*c.period {
				t.Errorf("period %v (%v), want %v s", p, err, c.period)
			}
		})
	}
}

// TestNoCliff compares beacons that differ in a second of their period: what
// they are worth differs as little.
func TestNoCliff(t *testing.T) {
	for port, least := range map[uint16]float64{443: 1.21, 8745: 10} {
		last := math.Inf(1)
		for period := 58.0; period < 320; period++ {
			v := judge(events(period))
			v.Total = 1
			level, confidence, _ := weigh(&Verdict{Scores: v, Port: port, Proto: flow.TCP, Calls: 30}, false, minEvents)
			s := 15 * level.Value() * confidence
			if s > last+0.25 || // half a point for hours begins at 187 s here
				s < last-1 && !math.IsInf(last, 1) {
				t.Errorf("port %d: %.2f points at %v s, %.2f a second before", port, s, period, last)
			}
			last = s
		}
		if last > least {
			t.Errorf("port %d: %.2f points for one that is slow", port, last)
		}
	}
}

// events are 30 check-ins of the same few bytes.
func events(period float64) []Event {
	var all []Event
	for i := range 30 {
		all = append(all, Event{T: uint32(float64(i) * period), Sent: 300, Got: 300})
	}
	return all
}

// TestBenign shows that what honest programs do comes to nothing or to
// little: less than the 3 points from which a tactic counts.
func TestBenign(t *testing.T) {
	seed := random(11)
	burst := func(port uint16, name string, alpha float64) []*flow.Flow { // human: bursts, pauses of all lengths
		var all []*flow.Flow
		for at := 1.0; at < 8*3600; at += 20 * math.Pow(1-seed.float(), -1/alpha) {
			for range 1 + int(seed.between(0, 8)) {
				x := at + seed.between(0, 5)
				all = append(all, conn(x, there, port, int64(seed.between(300, 9000))))
				if name != "" {
					all = append(all, tls(x+.1, there, port, name))
				}
			}
		}
		return all
	}
	chance := func(n int, mean float64, call func(float64) []*flow.Flow) []*flow.Flow {
		var all []*flow.Flow
		for at := 1.0; len(all) < n; at -= mean * math.Log(1-seed.float()) {
			all = append(all, call(at)...)
		}
		return all
	}
	same := func(port uint16, proto flow.Proto) func(float64) []*flow.Flow {
		return func(at float64) []*flow.Flow {
			f := conn(at, there, port, 48)
			f.Proto = proto
			return []*flow.Flow{f}
		}
	}
	keepAlive := func(at float64) []*flow.Flow {
		f := conn(at, there, 5228, 30)
		f.SrcPort = 51234
		return []*flow.Flow{f}
	}
	longPoll := func(at float64) []*flow.Flow { // requests over one connection
		f := new(flow.Flow)
		f.Reset(flow.HTTP)
		f.Src, f.Dst, f.SrcPort, f.DstPort, f.Time = host, there, 51000, 80, start*1e9+int64(at*1e9)
		f.HTTP.Host, f.HTTP.URI, f.HTTP.Method = "chat.example.com", "/poll", "GET"
		return []*flow.Flow{f}
	}
	stream := func(at float64) []*flow.Flow { // pieces of music, each a connection
		f := conn(at, there, 443, 900)
		f.RespBytes, f.RespIPBytes = 400_000, 420_000
		return []*flow.Flow{f, tls(at+.1, there, 443, "audio.example.com")}
	}
	portal := func(at float64) []*flow.Flow { // five hosts ask whether they are online
		var all []*flow.Flow
		for h := range byte(5) {
			f := conn(at+float64(h)*7, there, 80, 90)
			f.Src = netip.AddrFrom4([4]byte{10, 0, 0, h + 1})
			all = append(all, f)
		}
		return all
	}
	tracker := func(at float64) []*flow.Flow { // where are others?
		f := new(flow.Flow)
		f.Reset(flow.HTTP)
		f.Src, f.Dst, f.DstPort, f.SrcPort, f.Time = host, there, 6969, 1024+uint16(int64(at*10)%60_000), start*1e9+int64(at*1e9)
		f.HTTP.Method, f.HTTP.Host, f.HTTP.URI = "GET", "tracker.example.org:6969", "/announce"
		return []*flow.Flow{conn(at, there, 6969, 300), f}
	}
	for _, c := range []struct {
		name  string
		flows []*flow.Flow
		most  float64
	}{
		{"browsing", burst(443, "www.example.com", 0.9), 0},
		{"browsing at an unusual port", burst(8899, "", 1.1), 0},
		{"calls at random, of one size", chance(300, 120, odd), 0},
		{"calls at random, bare", chance(600, 90, bare), 0},
		{"time", every(1, 300, 64, 0, same(123, flow.UDP)), 0},
		{"names", every(1, 300, 10, 0, same(53, flow.UDP)), 0},
		{"mail every 5 minutes", every(2, 96, 300, 0.01, same(993, flow.TCP)), 2.99},
		{"updates every 15 minutes", every(3, 96, 900, 0.001, named("update.example.com")), 2.99},
		{"is there a network, every 5 minutes", every(4, 96, 300, 0, portal), 2.99},
		{"push, kept alive", every(5, 96, 300, 0, keepAlive), 0},
		{"a page that polls over one connection", every(6, 500, 25, 0.02, longPoll), 0},
		{"is there a network, every 2 minutes, by address", every(4, 96, 120.06, 0, same(443, flow.TCP)), 2.99},
		{"a thing's keep-alive every 2 minutes, named", every(4, 96, 120, 0.02, named("things.example.com")), 2.99},
		{"a thing's keep-alive every 110 s at a port of things", every(4, 96, 110, 0.02, same(8883, flow.TCP)), 2.99},
		{"holes kept open by UDP, every 5 minutes", every(4, 96, 300, 0, same(3478, flow.UDP)), 2.99},
		{"calls at random, of one size, slow", chance(30, 900, odd), 0},
		{"calls at random, bare, slow", chance(60, 900, bare), 0},
		{"where are those who share a file, every half an hour", every(4, 40, 1800, 0.02, tracker), 11},
		{"where are those who share a file, every quarter of an hour", every(4, 40, 900, 0.02, tracker), 11},
		{"music", every(7, 300, 10, 0.02, stream), 2.99},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := newPlay(t).all(c.flows)
			if s := score(all); s > c.most {
				t.Errorf("score %.2f, at most %v wanted: %s", s, c.most, all[len(all)-1].Description)
			}
		})
	}
}

// answer is what DNS says about a name, s seconds from the start.
func answer(s float64, name string, to ...netip.Addr) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.DNS)
	f.Src, f.Dst, f.DstPort, f.Proto, f.Time = host, netip.MustParseAddr("10.0.0.1"), 53, flow.UDP, start*1e9+int64(s*1e9)
	f.DNS.Query = name
	for _, a := range to {
		f.DNS.Answers = append(f.DNS.Answers, a.String())
	}
	return f
}

// TestKeepAlives sets what things and programs do beside what bots do that
// look like them: the score of the worst window, and of the last.
func TestKeepAlives(t *testing.T) {
	beat := func(n int, s float64, port uint16) []*flow.Flow {
		return every(3, n, s, 0.01, func(at float64) []*flow.Flow {
			f := words(1000 + at)[0]
			f.DstPort = port
			return []*flow.Flow{f}
		})
	}
	with := func(flows []*flow.Flow, more ...*flow.Flow) []*flow.Flow { return append(more, flows...) }
	udp := func(flows []*flow.Flow) []*flow.Flow {
		for _, f := range flows {
			f.Proto = flow.UDP
		}
		return flows
	}
	dead := func(n int) []*flow.Flow {
		return every(3, n, 30, 0.01, func(at float64) []*flow.Flow { return dead(1000 + at) })
	}
	before := func() []*flow.Flow { // another place, called before
		return every(5, 40, 20, 0.01, func(at float64) []*flow.Flow { return []*flow.Flow{conn(at, there.Next(), 443, 90)} })
	}
	many := func(port uint16) []*flow.Flow {
		return every(3, 500, 60, 0.01, func(at float64) []*flow.Flow {
			var all []*flow.Flow
			for i := range byte(24) {
				a := netip.AddrFrom4([4]byte{20, 9, 1, i})
				f := conn(at+float64(i), a, port, 500)
				all = append(all, f, tls(at+float64(i), a, port, fmt.Sprintf("c%d.example.com", i)))
			}
			return all
		})
	}
	other := netip.MustParseAddr("20.7.7.7")
	for _, c := range []struct {
		name        string
		flows       []*flow.Flow
		worst, last float64
		orMore      bool // at least; otherwise at most
		once        bool // in the first window only
	}{
		{name: "a bot", flows: beat(120, 60, 8745), worst: 18, orMore: true},
		{name: "the same, and DNS names others", flows: with(beat(120, 60, 8745), answer(1, "a.example.com", other)), worst: 18, orMore: true},
		{name: "a thing with a name", flows: with(beat(120, 60, 8745), answer(990, "a.example.com", there)), worst: 3.75},
		{name: "a name that came later", flows: with(beat(120, 60, 8745), answer(9000, "a.example.com", there)), worst: 18, orMore: true},
		{name: "a thing over UDP", flows: udp(beat(120, 25, 32100)), worst: 3},
		{name: "a thing of long standing", flows: beat(600, 60, 8745), worst: 24, last: 3.75},
		{name: "a bot that came later", flows: append(before(), beat(600, 60, 8745)...), worst: 18, last: 22, orMore: true},
		{name: "a dead server, for long", flows: dead(1000), worst: 18, last: 18, orMore: true},
		{name: "a service that was closed", flows: dead(1700), worst: 24, last: 3.75},
		{name: "a dead service at a usual port", flows: every(3, 200, 20, 0, func(at float64) []*flow.Flow {
			f := dead(1)[0]
			f.DstPort, f.Time, f.SrcPort = 443, start*1e9+int64(at*1e9), uint16(2000+at)
			return []*flow.Flow{f}
		}), worst: 1.21},
		{name: "who watches others", flows: many(443), worst: 7.5, once: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := newPlay(t).all(c.flows)
			if len(all) == 0 {
				t.Fatal("nothing found")
			}
			end := all[len(all)-1].Time / int64(time.Hour)
			if c.once && end > all[0].Time/int64(time.Hour) {
				t.Errorf("told on: %s", all[len(all)-1].Description)
			}
			if c.last != 0 {
				var late []evidence.Evidence
				for _, e := range all {
					if e.Time/int64(time.Hour) >= end-1 {
						late = append(late, e)
					}
				}
				if s := score(late); c.orMore && s < c.last || !c.orMore && s > c.last {
					t.Errorf("in the end %.2f, want %v: %s", s, c.last, late[len(late)-1].Description)
				}
			}
			if s := score(all); c.orMore && s < c.worst || !c.orMore && s > c.worst {
				t.Errorf("score %.2f, want %v: %s", s, c.worst, all[len(all)-1].Description)
			}
		})
	}
}

// TestNeighbours: a site whose addresses are public is no Internet.
func TestNeighbours(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"147.32.80.37", "147.32.1.1", true},
		{"147.32.80.37", "147.33.80.37", false},
		{"2001:db8:5::33", "2001:db8:5:1::1", true},
		{"2001:db8:5::33", "2001:db8:6::33", false},
		{"2001:db8:5::33", "20.1.2.3", false},
	} {
		if got := neighbours(netip.MustParseAddr(c.a), netip.MustParseAddr(c.b)); got != c.want {
			t.Errorf("%s and %s: %v", c.a, c.b, got)
		}
	}
	f := conn(1, netip.MustParseAddr("147.32.1.1"), 4444, 100)
	if f.Src = netip.MustParseAddr("147.32.80.37"); (rule{}).Wants(f) {
		t.Error("a neighbour is wanted")
	}
}

func TestStrobe(t *testing.T) {
	strobes := func(n int, gap float64) (all []evidence.Evidence) {
		var flows []*flow.Flow
		for i := range n {
			flows = append(flows, conn(float64(i)*gap, there, 443, 300))
		}
		for _, e := range newPlay(t).all(flows) {
			if e.Type == Strobe {
				all = append(all, e)
			}
		}
		return all
	}
	if all := strobes(620, 1.1); len(all) != 0 {
		t.Errorf("54 a minute: %s", all[0].Description)
	}
	if all := strobes(590, 0.9); len(all) != 0 {
		t.Errorf("nine minutes: %s", all[0].Description)
	}
	if all := strobes(900, 0.9); len(all) != 1 || all[0].Level != evidence.Medium || all[0].Confidence != 0.5 {
		t.Errorf("13 minutes: %v", all)
	}
	if all := strobes(5000, 0.2); len(all) != 2 || all[1].Count != 3600 {
		t.Errorf("five a second for a quarter of an hour: %v", all)
	}
}

// TestBounds feeds a scan, a crowd and many beacons, and looks at the size.
func TestBounds(t *testing.T) {
	p := newPlay(t)
	for i := range 300_000 {
		a := netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)})
		p.handle(conn(float64(i)/1000, a, 443, 100))
	}
	n := 0
	for round := range 20 {
		for i := range 10_000 {
			f := conn(400+float64(round)*60, there, uint16(2000+i%20_000), 100)
			f.Src = netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
			f.SrcPort = uint16(1024 + round)
			p.handle(f)
			n++
		}
	}
	st := p.st.(*State)
	if len(st.Pairs.Slots) > 1<<17 || len(st.Series.All) > 6<<10 || st.Sources.Len() > 48<<10 || st.Dests.Len() > 48<<10 || len(st.Pending) > 4<<10 {
		t.Errorf("%d pairs, %d series, %d sources, %d places, %d pending", len(st.Pairs.Slots), len(st.Series.All), st.Sources.Len(), st.Dests.Len(),
			len(st.Pending))
	}
	for _, s := range st.Series.All {
		if len(s.Events) > 120 || len(s.UIDs) > 16 {
			t.Fatalf("%d events, %d uids", len(s.Events), len(s.UIDs))
		}
	}
	var b bytes.Buffer
	if err := p.run.Save(gob.NewEncoder(&b), p.st); err != nil {
		t.Fatal(err)
	}
	if b.Len() > 16<<20 {
		t.Errorf("the state is %d bytes", b.Len())
	}
	// A beacon is found even while a scan goes on.
	p = newPlay(t)
	var flows []*flow.Flow
	for i := range 100_000 {
		a := netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)})
		flows = append(flows, conn(float64(i)/50, a, 443, 100))
	}
	if all := p.all(append(flows, every(1, 30, 60, 0, dead)...)); score(all) < 12 {
		t.Errorf("beside a scan: score %.1f of %d", score(all), len(all))
	}
}

// TestSkew runs the logs out of step.
func TestSkew(t *testing.T) {
	var conns, handshakes []*flow.Flow
	for i := range 40 {
		at := float64(i) * 60
		conns = append(conns, conn(at, there, 443, 500), conn(at+20, netip.MustParseAddr("20.1.2.4"), 443, 500))
		handshakes = append(handshakes, tls(at+.1, there, 443, map[bool]string{true: "late.example.com"}[i > 20]),
			tls(at+20.1, netip.MustParseAddr("20.1.2.4"), 443, ""))
	}
	got := modtest.Skew(t, Spec, Spec.Defaults(), conns, handshakes)
	text := strings.Join(got, "\n")
	if !strings.Contains(text, "20.1.2.4|443") || !strings.Contains(text, "late.example.com") || !strings.Contains(text, "20.1.2.3|443") {
		t.Errorf("got\n%s", text)
	}
}

// TestSkewPosts runs the requests of two beacons out of step with their
// connections: one asks for a page when it has posted for half an hour.
func TestSkewPosts(t *testing.T) {
	var conns, requests []*flow.Flow
	for i := range 24 {
		for j, dst := range []netip.Addr{there, there.Next()} {
			at := float64(i)*120 + float64(j)*20
			r := post(at)[0]
			r.Dst, r.HTTP.Host = dst, fmt.Sprintf("c%d.example.net", j)
			if j == 1 && i >= 15 {
				r.HTTP.Method = "GET"
			}
			conns, requests = append(conns, conn(at, dst, 80, int64(300+i%7*40))), append(requests, r)
		}
	}
	posts := 0
	for _, l := range modtest.Skew(t, Spec, Spec.Defaults(), conns, requests) {
		if strings.Contains(l, "posts and nothing else") {
			if posts++; !strings.Contains(l, "c0.example.net") {
				t.Error(l)
			}
		}
	}
	if posts == 0 {
		t.Error("no posts")
	}
}

// TestPair shows what makes a pair a series.
func TestPair(t *testing.T) {
	var p Pair
	type call struct {
		at    uint32
		port  uint16
		again bool
	}
	run := func(calls []call) (before [2]uint32, enough bool) {
		for _, c := range calls {
			again := p.again(c.at, c.port)
			if again != c.again {
				t.Errorf("at %d from %d: again is %v", c.at, c.port, again)
			}
			if again {
				before, enough = p.call(c.at)
			}
		}
		return before, enough
	}
	if _, enough := run([]call{{100, 1, false}, {100, 1, false}, {100, 2, true}, {120, 1, false}, {120, 3, true}, {120, 4, true}}); enough || p.N != 2 || p.Flags != 0 {
		t.Errorf("%+v", p)
	}
	if before, enough := run([]call{{140, 5, true}}); !enough || before != [2]uint32{100, 120} {
		t.Errorf("%+v, before %v", p, before)
	}
	if _, enough := run([]call{{127, 6, true}}); enough || p.Flags != more {
		t.Errorf("7 s later: %+v", p)
	}
	if before, enough := run([]call{{90, 7, true}}); !enough || before != [2]uint32{100, 120} {
		t.Errorf("from before: %+v, %v", p, before)
	}
	if _, enough := run([]call{{120 + memory + 1, 8, false}}); enough || p.N != 1 || p.Flags != 0 {
		t.Errorf("a day later: %+v", p)
	}
	for range 3 {
		p.to(there)
	}
	if p.Flags&several != 0 {
		t.Error("one address is several")
	}
	if p.to(there.Next()); p.Flags&several == 0 {
		t.Error("two addresses are one")
	}
}

// TestDistinct: the README's figures for the number of callers.
func TestDistinct(t *testing.T) {
	r := random(3)
	for _, n := range []int{0, 1, 2, 5, 20, 60, 100} {
		var sum, off float64
		for range 200 {
			set := uint64(0)
			for range n {
				set |= 1 << (r.next() & 63)
			}
			d := float64(distinct(set))
			sum, off = sum+d/200, off+math.Abs(d-float64(n))/200
		}
		if math.Abs(sum-float64(n)) > 0.05*float64(n) || off > 0.25*float64(n) {
			t.Errorf("%d hosts: %.1f in the mean, off by %.1f", n, sum, off)
		}
	}
}

// BenchmarkHandle is the path of a record of 10,000 hosts: of pairs that are
// followed, that come back more than can be followed, and that are new.
func BenchmarkHandle(b *testing.B) {
	for _, c := range []struct {
		name  string
		pairs uint64
	}{{"5000-pairs", 5000}, {"50000-pairs", 50_000}, {"new", 1 << 31}} {
		b.Run(c.name, func(b *testing.B) {
			p := newPlay(b)
			f := conn(0, there, 443, 500)
			r := random(1)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				x := r.next() % c.pairs
				f.Src = netip.AddrFrom4([4]byte{10, 0, byte(x % 10_000 >> 8), byte(x % 10_000)})
				f.Dst = netip.AddrFrom4([4]byte{20, byte(x >> 16), byte(x >> 8), byte(x)})
				f.Time, f.SrcPort = start*1e9+int64(i)*1e7, uint16(i)
				p.h.Now, p.h.Record, p.h.Profile, p.h.Window = f.Time, f.Time, f.Src, p.h.At(f.Time)
				p.run.Handle(p.cx, p.st, f)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]Config{
		"min_check_ins: 5 is":       {MinCheckIns: 5, MinScore: 0.7, StrobePerMinute: 60},
		"min_check_ins: 97 is":      {MinCheckIns: 97, MinScore: 0.7, StrobePerMinute: 60},
		"min_score: 0.49 is":        {MinCheckIns: 8, MinScore: 0.49, StrobePerMinute: 60},
		"min_score: NaN is":         {MinCheckIns: 8, MinScore: math.NaN(), StrobePerMinute: 60},
		"strobe_per_minute: 9 is":   {MinCheckIns: 8, MinScore: 0.7, StrobePerMinute: 9},
		"strobe_per_minute: 100001": {MinCheckIns: 8, MinScore: 0.7, StrobePerMinute: 100_001},
	} {
		if _, err := Spec.New(&c, modules.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %s", c, err, want)
		}
	}
}

func TestREADME(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(text, []byte("```yaml\n"))
	block, _, _ := bytes.Cut(rest, []byte("```"))
	var c Config
	d := yaml.NewDecoder(bytes.NewReader(block))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil || c != *Spec.Defaults().(*Config) {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestRealTraffic: each of four sorts of command channel is a beacon of high
// level, and no benign host has more than a little.
func TestRealTraffic(t *testing.T) {
	for _, c := range []struct {
		dir, logs string
		bad       map[string]float64 // host: score of its worst window, at least
		others    float64            // at most
	}{
		{"zeek/njrat", "conn.log", map[string]float64{"192.168.1.115": 12}, 0},
		{"zeek/isc-2021-10", "conn.log ssl.log http.log", map[string]float64{"10.10.22.157": 12, "10.10.22.158": 11}, 12},
		{"pcap/zeek-logs/test-cc-capture-1", "conn.log ssl.log", map[string]float64{"147.32.80.37": 12}, 0},
		{"benign/ubuntu-2023-02-25", "conn.log.labeled", nil, 2.99},
		{"benign/win7ad-2023-02-26", "conn.log.labeled", nil, 0},
		{"zeek/mixed-008/data", "conn.log.labeled ssl.log.labeled http.log.labeled", nil, 2.99},
		{"zeek/mixed-012/data", "conn.log.labeled ssl.log.labeled http.log.labeled", nil, 2.99},
		{"argus", "benign-bittorrent-normal-7.binetflow", nil, 0},
	} {
		t.Run(c.dir, func(t *testing.T) {
			var names []string
			for n := range strings.FieldsSeq(c.logs) {
				names = append(names, c.dir+"/"+n)
			}
			by := map[string][]evidence.Evidence{}
			for _, e := range modtest.Evidence(t, Spec, modtest.Datasets(t, names...)...) {
				by[e.Profile.String()] = append(by[e.Profile.String()], e)
			}
			for h, least := range c.bad {
				if s := score(by[h]); s < least {
					t.Errorf("%s: score %.1f, at least %v wanted", h, s, least)
				}
				delete(by, h)
			}
			for h, all := range by {
				if s := score(all); s > c.others || h == "10.10.22.22" {
					t.Errorf("%s: score %.1f: %s", h, s, all[len(all)-1].Description)
				}
			}
		})
	}
}
