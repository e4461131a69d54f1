package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
)

const (
	aSecond = 1000 // ms
	aMinute = 60 * aSecond
	anHour  = 60 * aMinute
)

// actor is a host of the network with a part of the Internet of its own, so
// that scenes do not mix.
type actor struct {
	n    int
	list *[]exchange
	port int
}

func (a *actor) addr() string         { return fmt.Sprintf("10.0.%d.10", a.n) }
func (a *actor) inside(i int) string  { return fmt.Sprintf("10.0.%d.%d", a.n, i) }
func (a *actor) outside(i int) string { return fmt.Sprintf("20.%d.%d.%d", a.n, i/200, i%200+1) }

// six returns a public address of IPv6.
func (a *actor) six(i int) string { return fmt.Sprintf("2001:470:%x::%x", a.n, i) }

// do adds an exchange. What is left out is that of a host that connects by
// TCP, from one of its high ports, for half a aSecond.
func (a *actor) do(x exchange) {
	if x.proto == "" {
		x.proto = "tcp"
	}
	if x.src == "" {
		x.src = a.addr()
	}
	if x.sport == 0 && (x.proto == "tcp" || x.proto == "udp") {
		a.port++
		x.sport = 30000 + a.port%20000
	}
	if x.sport < 0 {
		x.sport = 0
	}
	answered := x.end != silent && x.end != refused
	if x.pkts == 0 {
		x.pkts = 1
		if answered && x.proto == "tcp" {
			x.pkts = 8
		}
	}
	if x.back == 0 && x.end != silent {
		x.back = 1
		if answered && x.proto == "tcp" {
			x.back = 7
		}
	}
	if x.ms == 0 && x.pkts+x.back > 1 {
		x.ms = 500
		if x.end == refused {
			x.ms = 1
		}
	}
	switch {
	case answered && x.sent == 0:
		x.sent, x.got = 700, 4000
	case x.proto == "udp" && x.end == silent && x.sent == 0, strings.HasPrefix(x.proto, "icmp") && x.sent == 0:
		x.sent = 56
	}
	*a.list = append(*a.list, x)
}

// scenario plays all that connections alone tell of, each by a host of its
// own, and some of what they must not tell of.
func scenario() []exchange {
	var list []exchange
	for i, s := range tripleScenes() {
		s.play(&actor{n: i + 1, list: &list})
	}
	return list
}

// tripleScene is one host's doing.
type tripleScene struct {
	expect string // types of evidence that must be found about its hosts
	play   func(*actor)
}

func tripleScenes() []tripleScene {
	each := func(n int, gap int64, x func(*actor, int) exchange) func(*actor) {
		return func(a *actor) {
			for i := range n {
				e := x(a, i)
				e.at += int64(i) * gap
				a.do(e)
			}
		}
	}
	one := func(x func(*actor) exchange) func(*actor) { return func(a *actor) { a.do(x(a)) } }
	// hourly spreads what has four a window over windows.
	hourly := func(n int, x func(*actor, int) exchange) func(*actor) {
		return func(a *actor) {
			for i := range n {
				e := x(a, i)
				e.at = int64(i/4)*anHour + int64(i%4)*10*aMinute
				a.do(e)
			}
		}
	}
	sweep := func(n, typ, reply int, how func(int) end) func(*actor) {
		return each(n, aSecond, func(a *actor, i int) exchange {
			return exchange{proto: "icmp", sport: typ, reply: reply, dst: a.outside(i), end: how(i)}
		})
	}
	never := func(int) end { return silent }
	return []tripleScene{
		// Scans.
		{"VERTICAL_PORT_SCAN", each(40, 100, func(a *actor, i int) exchange { return exchange{dst: a.inside(20), dport: 20 + i, end: refused} })},
		{"VERTICAL_PORT_SCAN", each(40, aSecond, func(a *actor, i int) exchange { return exchange{dst: a.outside(1), dport: 20 + i, end: silent} })},
		{"HORIZONTAL_PORT_SCAN", each(40, 100, func(a *actor, i int) exchange { return exchange{dst: a.inside(20 + i), dport: 22, end: refused} })},
		{"HORIZONTAL_PORT_SCAN", each(40, aSecond, func(a *actor, i int) exchange {
			return exchange{dst: a.outside(i), dport: 445, end: silent, pkts: 3, ms: 3 * aSecond}
		})},
		{"VERTICAL_PORT_SCAN", each(40, 100, func(a *actor, i int) exchange {
			return exchange{proto: "udp", dst: a.inside(20), dport: 100 + i, end: silent}
		})},
		{"HORIZONTAL_PORT_SCAN", each(40, aSecond, func(a *actor, i int) exchange {
			return exchange{proto: "udp", dst: a.outside(i), dport: 161, end: silent}
		})},
		{"VERTICAL_PORT_SCAN", hourly(16, func(a *actor, i int) exchange { return exchange{dst: a.outside(1), dport: 1000 + 17*i, end: silent} })},
		{"HORIZONTAL_PORT_SCAN", hourly(16, func(a *actor, i int) exchange { return exchange{dst: a.outside(i), dport: 22, end: silent} })},
		{"ICMP_ADDRESS_SCAN", sweep(30, 8, 0, func(i int) end {
			if i%2 == 0 {
				return worked
			}
			return silent
		})},
		{"ICMP_ADDRESS_SCAN", sweep(30, 8, 0, never)},
		{"ICMP_TIMESTAMP_SCAN", sweep(20, 13, 14, never)},
		{"ICMP_ADDRESS_MASK_SCAN", sweep(20, 17, 18, never)},

		// Connections by themselves.
		{"LONG_CONNECTION", one(func(a *actor) exchange {
			return exchange{dst: a.outside(1), dport: 443, service: "ssl", ms: 2*anHour + 5*aMinute, pkts: 900, back: 800, sent: 90_000, got: 200_000}
		})},
		{"LONG_CONNECTION", each(8, 20*aMinute, func(a *actor, _ int) exchange {
			return exchange{dst: a.outside(1), dport: 443, service: "ssl", ms: 15 * aMinute, pkts: 90, back: 80, sent: 9000, got: 20_000}
		})},
		{"PORT_0_CONNECTION", one(func(a *actor) exchange {
			return exchange{proto: "udp", sport: -1, dst: a.outside(1), dport: 80, end: silent}
		})},
		{"PORT_0_CONNECTION", one(func(a *actor) exchange { return exchange{dst: a.outside(1), dport: 0, end: silent} })},
		{"DATA_UPLOAD", one(func(a *actor) exchange {
			return exchange{dst: a.outside(1), dport: 443, service: "ssl", ms: 10 * aMinute, pkts: 150_000, back: 70_000, sent: 210e6, got: 9000}
		})},
		{"DATA_UPLOAD", each(10, 2*aMinute, func(a *actor, _ int) exchange {
			return exchange{dst: a.outside(1), dport: 443, service: "ssl", ms: aMinute, pkts: 43_000, back: 20_000, sent: 60e6, got: 9000}
		})},
		{"UNKNOWN_PORT", one(func(a *actor) exchange { return exchange{dst: a.outside(1), dport: 50001} })},
		{"CONNECTION_TO_MULTIPLE_PORTS UNKNOWN_PORT", each(4, aSecond, func(a *actor, i int) exchange {
			return exchange{dst: a.outside(1), dport: 50001 + i}
		})},
		{"CONNECTION_TO_PRIVATE_IP", one(func(a *actor) exchange { return exchange{dst: a.inside(20), dport: 22, service: "ssh"} })},
		{"DIFFERENT_LOCALNET", one(func(*actor) exchange { return exchange{dst: "192.168.7.7", dport: 443, service: "ssl"} })},
		{"DOH_CONNECTION", one(func(a *actor) exchange { return exchange{dst: a.outside(1), dport: 853, service: "ssl"} })},

		// Again and again.
		{"MULTIPLE_RECONNECTION_ATTEMPTS", each(24, 30*aSecond, func(a *actor, _ int) exchange {
			return exchange{dst: a.outside(1), dport: 1177, end: refused}
		})},
		{"MULTIPLE_RECONNECTION_ATTEMPTS", each(12, 20*aSecond, func(a *actor, i int) exchange {
			return exchange{dst: a.inside(20), dport: 23, end: []end{refused, silent}[i%2]}
		})},
		{"MULTIPLE_RECONNECTION_ATTEMPTS", each(50, 40*aSecond, func(a *actor, _ int) exchange {
			return exchange{dst: a.outside(1), dport: 443, end: silent, pkts: 3, ms: 3 * aSecond}
		})},
		{"BEACON", each(70, aMinute, func(a *actor, _ int) exchange {
			return exchange{dst: a.outside(1), dport: 8899, pkts: 6, back: 5, sent: 300, got: 200}
		})},
		{"BEACON", each(70, aMinute, func(a *actor, _ int) exchange { return exchange{dst: a.outside(1), dport: 443, end: refused} })},
		{"STROBE", each(900, 800, func(a *actor, _ int) exchange { return exchange{dst: a.outside(1), dport: 443, service: "ssl"} })},

		// Floods.
		{"DDOS_SOURCE", each(1500, 30, func(a *actor, _ int) exchange { return exchange{dst: a.outside(1), dport: 80, end: silent} })},
		{"DDOS_SOURCE", each(3600, 10, func(a *actor, _ int) exchange {
			return exchange{proto: "udp", dst: a.outside(1), dport: 123, end: silent}
		})},
		{"DDOS_SOURCE", one(func(a *actor) exchange {
			return exchange{proto: "udp", dst: a.outside(1), dport: 4444, end: silent, pkts: 300_000, sent: 300e6, ms: 50 * aSecond}
		})},
		{"DDOS_SOURCE", one(func(a *actor) exchange {
			return exchange{proto: "icmp", sport: 8, reply: 0, dst: a.outside(1), pkts: 40_000, back: 40_000, sent: 2e6, got: 2e6, ms: 50 * aSecond}
		})},
		{"DDOS_SOURCE", each(3600, 10, func(a *actor, _ int) exchange { return exchange{dst: a.outside(1), dport: 80, service: "http"} })},
		{"DNS_FLOOD", each(2200, 250, func(_ *actor, i int) exchange {
			return exchange{proto: "udp", dst: "8.8.8.8", dport: 53, service: "dns", end: []end{worked, silent}[i%2], sent: 40, got: 0}
		})},

		// Many others.
		{"SPAMBOT", each(25, 20*aSecond, func(a *actor, i int) exchange {
			return exchange{dst: fmt.Sprintf("20.%d.%d.25", 100+i, a.n), dport: 25, service: "smtp"}
		})},
		{"P2P_TRAFFIC", each(90, aSecond, func(a *actor, i int) exchange {
			x := exchange{proto: "udp", sport: 51413, dst: fmt.Sprintf("20.%d.%d.7", a.n, i), dport: 10007 + 37*i, pkts: 5, back: 5}
			if i%3 == 0 {
				x.proto, x.end, x.back, x.pkts = "tcp", silent, 0, 1
			}
			return x
		})},
		{"LATERAL_FANOUT", each(17, 5*aSecond, func(a *actor, i int) exchange {
			return exchange{dst: a.inside(20 + i), dport: 445, pkts: 12, back: 11, sent: 2000, got: 2000}
		})},
		{"PASSWORD_GUESSING", each(45, 2*aSecond, func(a *actor, i int) exchange {
			return exchange{dst: a.inside(20), dport: 22, ms: 2 * aSecond, pkts: 12, back: 11, sent: 1400 + 40*int64(i%5), got: 1900}
		})},
		{"REMOTE_ACCESS_TOOL", one(func(a *actor) exchange {
			return exchange{dst: a.outside(1), dport: 3389, ms: 10 * aMinute, pkts: 700, back: 900, sent: 50_000, got: 900_000}
		})},
		{"MINING_POOL", each(2, 5*aMinute, func(a *actor, i int) exchange { // the second pool, for the first may be anything
			return exchange{dst: a.outside(1 + i), dport: 3333, ms: 20 * aMinute, pkts: 200, back: 300, sent: 40_000, got: 90_000}
		})},
		{"DEVICE_CHANGING_IP", each(6, 5*aMinute, func(a *actor, i int) exchange {
			x := exchange{dst: a.outside(1), dport: 443, service: "ssl", srcMAC: "00:1b:21:00:00:0a", dstMAC: "00:1b:21:00:00:01"}
			if i < 3 {
				x.src = a.inside(9)
			}
			return x
		})},
		{"GRE_TUNNEL", one(func(a *actor) exchange {
			return exchange{proto: "gre", dst: a.outside(1), pkts: 100, back: 90, sent: 50_000, got: 60_000, ms: aMinute}
		})},

		{"NON_SSL_PORT_443_CONNECTION", one(func(a *actor) exchange { return exchange{dst: a.outside(1), dport: 443} })},

		// From outside, and over IPv6.
		{"HORIZONTAL_PORT_SCAN", each(40, 100, func(a *actor, i int) exchange {
			return exchange{src: a.outside(0), dst: a.inside(20 + i), dport: 3389, end: silent}
		})},
		{"PASSWORD_GUESSING", each(45, 3*aSecond, func(a *actor, i int) exchange {
			return exchange{
				src: a.outside(0), dst: a.inside(20), dport: 3389, ms: 2 * aSecond, pkts: 12, back: 11, sent: 1400 + 40*int64(i%5), got: 1900,
			}
		})},
		{"REMOTE_ACCESS_TOOL", one(func(a *actor) exchange {
			return exchange{src: a.outside(0), dst: a.inside(20), dport: 5900, ms: 10 * aMinute, pkts: 700, back: 900, sent: 50_000, got: 900_000}
		})},
		{"VERTICAL_PORT_SCAN", each(40, 100, func(a *actor, i int) exchange {
			return exchange{src: a.six(1), dst: a.six(2), dport: 20 + i, end: refused}
		})},
		{"ICMP_ADDRESS_SCAN", each(30, aSecond, func(a *actor, i int) exchange {
			return exchange{proto: "icmp6", src: a.six(1), sport: 128, reply: 129, dst: a.six(10 + i), end: silent}
		})},

		// What everybody does.
		{"", each(200, 15*aSecond, func(a *actor, i int) exchange {
			return exchange{at: int64(i*i*7919) % 9000, dst: a.outside(i * i % 30), dport: 443, service: "ssl", pkts: int64(10 + i%40), back: int64(20 + i%90), sent: int64(900 + i*37%4000), got: int64(9000 + i*1237%90000), ms: int64(200 + i*i%20000)}
		})},
		{"", each(60, 47*aSecond, func(a *actor, i int) exchange {
			return exchange{at: int64(i*i*104729) % 30000, proto: "udp", dst: a.inside(53), dport: 53, service: "dns", sent: 40, got: 120, ms: 20}
		})},
		{"", each(20, 3*aMinute, func(a *actor, i int) exchange {
			return exchange{dst: a.inside(80), dport: 80, service: "http", end: []end{worked, wasReset, gone}[i%3]}
		})},
	}
}

// found is what is compared between sensors: all that does not come from the
// words of a sensor.
type found struct {
	typ        evidence.Type
	module     string
	host       string
	window     int64
	subject    string
	step       int
	level      evidence.Level
	confidence float64
}

func (f found) String() string {
	return fmt.Sprintf("%s %s by %s w%d %q step %d %s %.2f", f.host, f.typ, f.module, f.window, f.subject, f.step, f.level, f.confidence)
}

// reported runs the program over what a sensor writes about exchanges.
func reported(t *testing.T, s sensor, list []exchange) map[found]bool {
	t.Helper()
	in := filepath.Join(t.TempDir(), s.name)
	for name, text := range s.files(list) {
		writeFile(t, filepath.Join(in, name), text)
	}
	p := &program{specs: specs()}
	o, err := p.options(&runFlags{
		files: []string{in}, format: "auto", output: filepath.Join(t.TempDir(), "out"), changed: func(string) bool { return false },
	}, nil, nil)
	must(t, err)
	ui := new(collectUI)
	res, err := analyse(t.Context(), *o, ui)
	must(t, err)
	if n := int64(len(list)); res.Summary.Records != n || len(res.Problems) > 0 || len(res.Summary.Rejected) > 0 {
		t.Errorf("%s: %d of %d records were read, rejected %v, %v", s.name, res.Summary.Records, n, res.Summary.Rejected, res.Problems)
	}
	m := make(map[found]bool)
	for _, e := range ui.found {
		m[found{e.Type, e.Module, e.Profile.String(), e.Window, e.Subject, e.Step, e.Level, e.Confidence}] = true
	}
	return m
}

// plays reports whether a host is one of actor n's.
func plays(n int, host string) bool {
	return slices.ContainsFunc([]string{"10.0.%d.", "20.%d.", "2001:470:%x::"}, func(f string) bool {
		return strings.HasPrefix(host, fmt.Sprintf(f, n))
	})
}

// exception is a difference that the words of a sensor make.
type exception struct {
	sensor, module string
	host           string // empty: any
	why            string
}

// exceptions are all of them. Each must be needed.
func exceptions() []exception {
	const (
		gre      = "Zeek logs GRE in tunnel.log, and in conn.log as an unknown protocol"
		services = "Argus names no protocols, so none can be missed at a port"
		headers  = "beacon leaves out what has a large answer, and 20,000 acknowledgements are large where headers count"
		macs     = "the columns that are usually asked for hold no hardware addresses"
	)
	return []exception{
		{"suricata", "gre", "", gre},
		{"argus", "gre", "", gre},
		{"argus-usual", "gre", "", gre},
		{"argus", "portproto", "", services},
		{"argus-usual", "portproto", "", services},
		{"argus-usual", "ipchange", "", macs},
		{"suricata", "beacon", "10.0.18.10", headers},
		{"argus", "beacon", "10.0.18.10", headers},
		{"argus-usual", "beacon", "10.0.18.10", headers},
	}
}

// The same traffic gives the same evidence, whichever sensor tells of it: of
// the same type about the same host and subject, of the same weight.
func TestSensorsAgree(t *testing.T) {
	list := scenario()
	all := make(map[string]map[found]bool)
	for _, s := range sensors() {
		all[s.name] = reported(t, s, list)
	}
	first := sensors()[0].name
	for i, s := range tripleScenes() {
		for typ := range strings.FieldsSeq(s.expect) {
			ok := false
			for _, m := range all { // what only some of them find is an exception, or fails below
				for f := range m {
					ok = ok || string(f.typ) == typ && plays(i+1, f.host)
				}
			}
			if !ok {
				t.Errorf("scene %d: no %s", i+1, typ)
			}
		}
	}
	needed := make(map[exception]bool)
	for name, got := range all {
		differs := func(what string, f found) {
			for _, e := range exceptions() {
				if e.sensor == name && e.module == f.module && (e.host == "" || e.host == f.host) {
					needed[e] = true
					return
				}
			}
			t.Errorf("%s: %s %s", name, what, f)
		}
		for f := range all[first] {
			if !got[f] {
				differs("missing", f)
			}
		}
		for f := range got {
			if !all[first][f] {
				differs("only there:", f)
			}
		}
	}
	for _, e := range exceptions() {
		if !needed[e] {
			t.Errorf("%s agrees about %s: the exception is not needed", e.sensor, e.module)
		}
	}
	t.Logf("%d exchanges, %d pieces of evidence", len(list), len(all[first]))
}
