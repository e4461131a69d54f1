package whitelist

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/parsers/flow"
)

// generator makes entries, records and evidence over few enough addresses and
// names that they meet.
type generator struct{ *rand.Rand }

func (g generator) addr() netip.Addr {
	switch g.IntN(8) {
	case 0:
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(g.IntN(3)), 15: byte(g.IntN(64))})
	case 1:
		return netip.AddrFrom4([4]byte{17, byte(g.IntN(256)), 1, 1}) // Apple
	default:
		return netip.AddrFrom4([4]byte{byte(10 + g.IntN(2)), byte(g.IntN(8)), byte(g.IntN(64)), byte(g.IntN(256))})
	}
}

func (g generator) prefix() netip.Prefix {
	a := g.addr()
	lo := a.BitLen() / 2
	return netip.PrefixFrom(a, lo+g.IntN(a.BitLen()-lo+1)).Masked()
}

func (g generator) name() string {
	labels := make([]string, 1+g.IntN(3))
	for i := range labels {
		labels[i] = []string{"a", "b", "mail", "a-long-label", "x"}[g.IntN(5)] + []string{"", "1", "2"}[g.IntN(3)]
	}
	return strings.Join(labels, ".") + []string{".example", ".test", ".icloud.com"}[g.IntN(3)]
}

func (g generator) mac() string { return fmt.Sprintf("00:1b:44:11:%02x:%02x", g.IntN(4), g.IntN(256)) }

func (g generator) ja3() string { return fmt.Sprintf("%032x", g.IntN(2000)) }

func (g generator) cond(alerts bool) string {
	switch n := g.IntN(10); {
	case n < 3:
		return "ip=" + g.addr().String()
	case n < 5:
		return "ip=" + g.prefix().String()
	case n < 7:
		return "domain=" + g.name()
	case n == 7:
		return "mac=" + g.mac()
	case n == 8:
		return fmt.Sprintf("port=%d%s", 1+g.IntN(3000), []string{"", "/tcp", "/udp"}[g.IntN(3)])
	case !alerts || g.IntN(4) == 0:
		return "ja3=" + g.ja3()
	default:
		return []string{
			fmt.Sprintf("evidence=TYPE_%d", g.IntN(50)), fmt.Sprintf("module=module%d", g.IntN(50)), fmt.Sprintf("asn=%d", 1+g.IntN(50)), "organization=apple",
		}[g.IntN(4)]
	}
}

func (g generator) line() string {
	ignore := []string{"flows", "alerts", "both"}[g.IntN(3)]
	// An organisation, an AS or a type alone would match so much that nothing else is tried.
	first := g.cond(false)
	values := []string{strings.Replace(first, "=", ",", 1)}
	for g.IntN(4) == 0 {
		c := g.cond(ignore == "alerts")
		if sided := !strings.HasPrefix(c, "ja3") && !strings.HasPrefix(c, "evidence") && !strings.HasPrefix(c, "module"); sided && g.IntN(2) == 0 {
			c = []string{"src.", "dst."}[g.IntN(2)] + c
		}
		values = append(values, c)
	}
	line := strings.Join(values, "&") + "," + []string{"src", "dst", "both"}[g.IntN(3)] + "," + ignore
	if g.IntN(10) == 0 {
		line += []string{",2020-01-01", ",2030-01-01"}[g.IntN(2)]
	}
	return line
}

func (g generator) list(t testing.TB, n int) *List {
	t.Helper()
	var b strings.Builder
	for range n {
		line := g.line()
		if _, err := parseEntry(line); err == nil { // a condition may be said twice
			b.WriteString(line)
		}
		b.WriteByte('\n')
	}
	l, err := Parse("generated", strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (g generator) record() *flow.Flow {
	f := new(flow.Flow)
	f.Reset([]flow.Kind{flow.Conn, flow.Conn, flow.DNS, flow.HTTP, flow.SSL}[g.IntN(5)])
	f.At, f.Src, f.Dst, f.HasPorts = now, g.addr(), g.addr(), g.IntN(10) > 0
	f.SrcPort, f.DstPort = uint16(g.IntN(4000)), uint16(g.IntN(4000))
	f.Proto = []flow.Proto{flow.TCP, flow.UDP, flow.ICMP}[g.IntN(3)]
	if g.IntN(2) == 0 {
		f.SrcMAC, f.DstMAC = g.mac(), g.mac()
	}
	switch f.Kind {
	case flow.DNS:
		f.DNS.Query = g.name()
		for range g.IntN(3) {
			f.DNS.Answers = append(f.DNS.Answers, g.addr().String(), g.name())
		}
	case flow.HTTP:
		f.HTTP.Host = g.name()
	case flow.SSL:
		f.SSL.ServerName, f.SSL.JA3 = g.name(), g.ja3()
	default:
	}
	return f
}

func (g generator) evidence() *evidence.Evidence {
	e := &evidence.Evidence{
		Type: evidence.Type(fmt.Sprintf("TYPE_%d", g.IntN(100))), Module: fmt.Sprintf("module%d", g.IntN(100)), Time: now, Profile: g.addr(),
		Proto: []string{"tcp", "UDP", ""}[g.IntN(3)], SrcPort: uint16(g.IntN(4000)), DstPort: uint16(g.IntN(4000)), Subject: "JA3 " + g.ja3(),
	}
	for i, en := range []*evidence.Entity{&e.Attacker, &e.Victim} {
		en.Direction = evidence.Direction(g.IntN(2))
		switch n := g.IntN(8); {
		case n == 0:
			en.Kind, en.Value = evidence.Domain, g.name()
		case n == 1:
			en.Kind, en.Value = evidence.URL, "http://"+g.name()+":8080/x"
		case n == 2 && i == 1:
			continue
		default:
			en.Kind, en.Value = evidence.IP, g.addr().String()
			if i == 0 && g.IntN(2) == 0 {
				en.Value = e.Profile.String()
			}
			if g.IntN(3) > 0 {
				k := &evidence.Known{ASN: uint32(g.IntN(100))}
				for range g.IntN(3) {
					k.Names = append(k.Names, evidence.Name{Name: g.name(), From: []string{"dns", "sni", "ptr"}[g.IntN(3)]})
				}
				if g.IntN(4) == 0 {
					k.MAC = g.mac()
				}
				if g.IntN(6) == 0 {
					k.Feeds = []string{"f"}
				}
				en.Known = k
			}
		}
	}
	return e
}

// model is what the package says, in the plainest way: each entry against
// everything, and no index.
type model struct {
	l     *List
	apple Published
}

// thing is what a side, or none, has.
type thing struct {
	addrs []netip.Addr // organisations may say something of these
	bare  []netip.Addr // and not of these
	names []string
	macs  []string
	ports []string
	asns  []uint32
	words []string // type=value
}

func under(name, listed string) bool { return name == listed || strings.HasSuffix(name, "."+listed) }

func (m *model) cond(c cond, th *thing, broad bool) bool {
	any := func(n int, fn func(int) bool) bool {
		for i := range n {
			if fn(i) {
				return true
			}
		}
		return false
	}
	switch c.kind {
	case IP:
		return any(len(th.addrs), func(i int) bool { return c.prefix.Contains(th.addrs[i]) }) || any(len(th.bare), func(i int) bool { return c.prefix.Contains(th.bare[i]) })
	case Domain:
		return any(len(th.names), func(i int) bool { return under(th.names[i], c.value) })
	case MAC:
		return any(len(th.macs), func(i int) bool { return th.macs[i] == c.value })
	case Port:
		return any(len(th.ports), func(i int) bool {
			return th.ports[i] == c.value || strings.HasPrefix(th.ports[i], c.value+"/")
		})
	case ASN:
		return broad && any(len(th.asns), func(i int) bool { return fmt.Sprint("AS", th.asns[i]) == c.value })
	case Organization:
		return broad && (any(len(th.addrs), func(i int) bool {
			return any(len(m.apple.Prefixes), func(j int) bool { return m.apple.Prefixes[j].Contains(th.addrs[i]) })
		}) || any(len(th.names), func(i int) bool {
			return any(len(m.apple.Domains), func(j int) bool { return under(th.names[i], m.apple.Domains[j]) })
		}) || any(len(th.asns), func(i int) bool {
			return any(len(m.apple.ASNs), func(j int) bool { return m.apple.ASNs[j] == th.asns[i] })
		}))
	default:
		return any(len(th.words), func(i int) bool { return th.words[i] == c.String() })
	}
}

// first returns the line of the first entry that matches, 0 if none does.
func (m *model) first(th *[3]thing, broad, flows bool) int {
	for i := range m.l.entries {
		e := &m.l.entries[i]
		if flows && !e.rule.Flows || !flows && !e.rule.Alerts || e.rule.Expires != 0 && now >= e.rule.Expires {
			continue
		}
		for side := range 2 {
			if e.dirs&(1<<side) == 0 {
				continue
			}
			all := true
			for _, c := range e.conds {
				at := int(c.at)
				if at == same {
					at = side
				}
				all = all && m.cond(c, &th[at], broad)
			}
			if all {
				return e.rule.Line
			}
		}
	}
	return 0
}

func (m *model) flow(f *flow.Flow) int {
	var th [3]thing
	s, d := &th[0], &th[1]
	s.addrs, d.addrs = []netip.Addr{f.Src}, []netip.Addr{f.Dst}
	s.macs, d.macs = []string{f.SrcMAC}, []string{f.DstMAC}
	if f.HasPorts && f.Proto != flow.ICMP {
		s.ports, d.ports = []string{fmt.Sprintf("%d/%s", f.SrcPort, f.Proto)}, []string{fmt.Sprintf("%d/%s", f.DstPort, f.Proto)}
	}
	switch f.Kind {
	case flow.DNS:
		d.names = append(d.names, f.DNS.Query)
		for _, a := range f.DNS.Answers {
			if a, err := netip.ParseAddr(a); err == nil {
				d.addrs = append(d.addrs, a)
			}
		}
	case flow.HTTP:
		d.names = append(d.names, f.HTTP.Host)
	case flow.SSL:
		d.names = append(d.names, f.SSL.ServerName)
		th[2].words = []string{"ja3=" + f.SSL.JA3}
	default:
	}
	return m.first(&th, true, true)
}

func (m *model) evidence(e *evidence.Evidence) int {
	var th [3]thing
	proto := "/" + strings.ToLower(e.Proto)
	th[0].ports, th[1].ports = []string{fmt.Sprint(e.SrcPort, proto)}, []string{fmt.Sprint(e.DstPort, proto)}
	th[2].words = []string{"evidence=" + string(e.Type), "module=" + e.Module, "ja3=" + strings.TrimPrefix(e.Subject, "JA3 ")}
	broad := true
	var listed []string
	for i := range m.l.entries {
		if m.l.entries[i].rule.Alerts {
			for _, c := range m.l.entries[i].conds {
				switch c.kind {
				case Domain:
					listed = append(listed, c.value)
				case Organization:
					listed = append(listed, m.apple.Domains...)
				default:
				}
			}
		}
	}
	for _, en := range []*evidence.Entity{&e.Attacker, &e.Victim} {
		s, k := &th[en.Direction], en.Known
		switch en.Kind {
		case evidence.Domain:
			s.names = append(s.names, en.Value)
		case evidence.URL:
			s.names = append(s.names, strings.TrimSuffix(strings.TrimPrefix(en.Value, "http://"), ":8080/x"))
		case evidence.IP:
			a := netip.MustParseAddr(en.Value)
			if k == nil {
				k = &evidence.Known{}
			}
			s.macs = append(s.macs, k.MAC)
			if len(k.Feeds) > 0 {
				broad = false
			}
			if a == e.Profile && (a.IsPrivate() || k.MAC != "") {
				s.bare = append(s.bare, a)
				continue
			}
			s.addrs = append(s.addrs, a)
			s.asns = append(s.asns, k.ASN)
			var names []string
			shared := len(k.Feeds) > 0
			for _, n := range k.Names {
				if n.From == "ptr" {
					continue
				}
				names = append(names, n.Name)
				known := false
				for _, l := range listed {
					known = known || under(n.Name, l)
				}
				shared = shared || !known
			}
			if !shared {
				s.names = append(s.names, names...)
			}
		}
	}
	return m.first(&th, broad, false)
}

// TestModel holds the index of long random lists against the model.
func TestModel(t *testing.T) {
	apple, err := LoadOrganization("apple")
	if err != nil {
		t.Fatal(err)
	}
	for seed, size := range []int{3, 30, 300, 10000, 10000} {
		rounds := 1000
		if size == 10000 {
			rounds = 150
		}
		g := generator{rand.New(rand.NewPCG(uint64(seed), 1))}
		l := g.list(t, size)
		m := &model{l, apple}
		hit := 0
		for range rounds {
			f := g.record()
			var tally Tally
			got := 0
			if NewFlows(l, &tally).Ignore(f) {
				got = tally.Counts()[0].Line
				hit++
			}
			if want := m.flow(f); got != want {
				t.Fatalf("seed %d: record %+v: line %d, want %d", seed, f, got, want)
			}
			e := g.evidence()
			r, ok := l.Evidence(e)
			if want := m.evidence(e); r.Line != want || ok != (want != 0) {
				t.Fatalf("seed %d: evidence %+v: line %d, want %d", seed, e, r.Line, want)
			}
		}
		if size >= 300 && (hit == 0 || hit == rounds) {
			t.Errorf("seed %d: %d of %d records match, so the test says little", seed, hit, rounds)
		}
		// What Explain says applies is what happens.
		for range 20 {
			e := g.evidence()
			r, ok := l.Evidence(e)
			first := 0
			for _, fd := range l.ExplainEvidence(e) {
				if fd.Applies && first == 0 {
					first = fd.Rule.Line
				}
			}
			if first != r.Line || ok != (first > 0) {
				t.Fatalf("seed %d: explained by line %d, dropped by %d: %+v", seed, first, r.Line, e)
			}
		}
	}
}

// BenchmarkFlows asks about a mix of records that match nothing, which is what
// a whitelist costs all traffic.
func BenchmarkFlows(b *testing.B) {
	for _, n := range []int{0, 100, 10000} {
		g := generator{rand.New(rand.NewPCG(7, 7))}
		var lines strings.Builder
		for i := range n {
			switch i % 4 {
			case 0:
				fmt.Fprintf(&lines, "ip,%d.%d.%d.%d,both,both\n", 20+g.IntN(150), g.IntN(256), g.IntN(256), g.IntN(256))
			case 1:
				fmt.Fprintf(&lines, "range,%d.%d.%d.0/24,dst,flows\n", 20+g.IntN(150), g.IntN(256), g.IntN(256))
			case 2:
				fmt.Fprintf(&lines, "domain,host%d.example%d.com,dst,flows\n", i, g.IntN(1000))
			case 3:
				fmt.Fprintf(&lines, "mac,00:1b:%02x:%02x:%02x:%02x,both,both\n", i>>8&255, i&255, g.IntN(256), g.IntN(256))
			}
		}
		l, err := Parse("b", strings.NewReader(lines.String()))
		if err != nil {
			b.Fatal(err)
		}
		w := NewFlows(l, new(Tally))
		records := func(kind flow.Kind) []*flow.Flow {
			fs := make([]*flow.Flow, 512)
			for i := range fs {
				f := new(flow.Flow)
				f.Reset(kind)
				f.At, f.HasPorts, f.Proto = now, true, flow.TCP
				f.Src, f.Dst = netip.AddrFrom4([4]byte{10, 0, byte(g.IntN(4)), byte(g.IntN(256))}), netip.AddrFrom4([4]byte{byte(20 + g.IntN(150)), byte(g.IntN(256)), byte(g.IntN(256)), byte(g.IntN(256))})
				switch kind {
				case flow.DNS:
					f.DNS.Query = fmt.Sprintf("www%d.some-service%d.com", g.IntN(100), g.IntN(10000))
					f.DNS.Answers = []string{"edge.some-cdn.net", f.Dst.String()}
				case flow.SSL:
					f.SSL.ServerName = fmt.Sprintf("api%d.some-service%d.com", g.IntN(100), g.IntN(10000))
				default:
				}
				fs[i] = f
			}
			return fs
		}
		if n > 0 { // some addresses are known, as in a run
			for i := range 1000 {
				f := new(flow.Flow)
				f.Reset(flow.DNS)
				f.At, f.DNS.Query = now, l.entries[2].conds[0].value
				f.DNS.Answers = []string{fmt.Sprintf("198.51.%d.%d", i>>8, i&255)}
				w.Ignore(f)
			}
		}
		for _, kind := range []flow.Kind{flow.Conn, flow.DNS, flow.SSL} {
			fs := records(kind)
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					w.Ignore(fs[i&511])
					i++
				}
			})
		}
	}
}

// BenchmarkFlowsHit asks about records that an entry drops.
func BenchmarkFlowsHit(b *testing.B) {
	l := mustParse(b, "ip,10.0.0.0/8,src,flows")
	w := NewFlows(l, new(Tally))
	f := conn("10.0.0.1", "1.2.3.4", 443)
	b.ReportAllocs()
	for b.Loop() {
		if !w.Ignore(f) {
			b.Fatal("kept")
		}
	}
}

func BenchmarkEvidence(b *testing.B) {
	g := generator{rand.New(rand.NewPCG(7, 7))}
	l := g.list(b, 10000)
	es := make([]*evidence.Evidence, 256)
	for i := range es {
		es[i] = g.evidence()
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		l.Evidence(es[i&255])
		i++
	}
}

func BenchmarkParse(b *testing.B) {
	g := generator{rand.New(rand.NewPCG(7, 7))}
	text := g.list(b, 10000).String()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("b", strings.NewReader(text)); err != nil {
			b.Fatal(err)
		}
	}
}
