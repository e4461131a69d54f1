package whitelist

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/parsers/flow"
)

// now is a stream time, in unix ns.
const now = int64(1_750_000_000_000_000_000)

func record(k flow.Kind, from, to string, port uint16) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(k)
	f.At, f.Time, f.Src, f.Dst = now, now, netip.MustParseAddr(from), netip.MustParseAddr(to)
	f.SrcPort, f.DstPort, f.HasPorts, f.Proto = 40000, port, true, flow.TCP
	return f
}

func conn(from, to string, port uint16) *flow.Flow { return record(flow.Conn, from, to, port) }

func with(f *flow.Flow, fn func(*flow.Flow)) *flow.Flow { fn(f); return f }

func dns(query string, answers ...string) *flow.Flow {
	return with(record(flow.DNS, "10.0.0.1", "10.0.0.53", 53), func(f *flow.Flow) {
		f.Proto, f.DNS.Query, f.DNS.Answers, f.DNS.Response = flow.UDP, query, answers, true
	})
}

func tls(to, name string) *flow.Flow {
	return with(record(flow.SSL, "10.0.0.1", to, 443), func(f *flow.Flow) { f.SSL.ServerName = name })
}

func web(to, host string) *flow.Flow {
	return with(record(flow.HTTP, "10.0.0.1", to, 80), func(f *flow.Flow) { f.HTTP.Host = host })
}

// TestFlows holds each type against each direction and what to ignore: the
// record's value is where side says, and the entry must match there alone.
func TestFlows(t *testing.T) {
	icmp := with(conn("10.0.0.1", "1.2.3.4", 443), func(f *flow.Flow) { f.Proto = flow.ICMP })
	for _, c := range []struct {
		value string // type,value
		f     *flow.Flow
		side  string // "src", "dst", "any" for a thing without a side, "" for no match
	}{
		{"ip,10.0.0.1", conn("10.0.0.1", "1.2.3.4", 443), "src"},
		{"ip,1.2.3.4", conn("10.0.0.1", "1.2.3.4", 443), "dst"},
		{"ip,1.2.3.5", conn("10.0.0.1", "1.2.3.4", 443), ""},
		{"ip,2001:db8::1", conn("fe80::1", "2001:db8::1", 443), "dst"},
		{"ip,2001:db8::1", conn("fe80::1", "2001:db8::2", 443), ""},
		{"range,1.2.0.0/16", conn("10.0.0.1", "1.2.3.4", 443), "dst"},
		{"range,1.3.0.0/16", conn("10.0.0.1", "1.2.3.4", 443), ""},
		{"range,10.0.0.0/31", conn("10.0.0.1", "1.2.3.4", 443), "src"},
		{"range,128.0.0.0/1", conn("10.0.0.1", "255.255.255.255", 443), "dst"},
		{"range,2001:db8::/32", conn("2001:db8:ffff::1", "fe80::1", 443), "src"},
		{"range,8000::/1", conn("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 443), "dst"},
		{"ip,1.2.3.4", dns("a.example", "other.example", "1.2.3.4"), "dst"},
		{"ip,2001:db8::1", dns("a.example", "2001:DB8::1"), "dst"},
		{"domain,cdn.example", dns("a.example", "cdn.example"), ""}, // who owns a name chooses its aliases
		{"domain,a.example", dns("a.example"), "dst"},
		{"domain,a.example", dns("WWW.A.Example."), "dst"},
		{"domain,a.example", dns("ba.example"), ""},
		{"domain,a.example", dns("a.example.net"), ""},
		{"domain,www.a.example", dns("a.example"), ""},
		{"domain,a.example", dns(""), ""},
		{"domain,a.example", tls("1.2.3.4", "x.y.a.example"), "dst"},
		{"domain,a.example", with(record(flow.QUIC, "10.0.0.1", "1.2.3.4", 443), func(f *flow.Flow) { f.SSL.ServerName = "a.example" }), "dst"},
		{"domain,a.example", web("1.2.3.4", "A.example:8080"), "dst"},
		{"domain,a.example", web("1.2.3.4", "a.example.evil.example"), ""},
		{"domain,a.example", with(tls("1.2.3.4", "evil.example"), func(f *flow.Flow) { f.SSL.Subject = "CN=a.example" }), ""}, // the server's own claim
		{"mac,00:1b:44:11:3a:b7", with(conn("10.0.0.1", "1.2.3.4", 443), func(f *flow.Flow) { f.SrcMAC = "00:1B:44:11:3A:B7" }), "src"},
		{"mac,00:1b:44:11:3a:b7", with(conn("10.0.0.1", "1.2.3.4", 443), func(f *flow.Flow) { f.DstMAC = "00-1b-44-11-3a-b7" }), "dst"},
		{"mac,00:1b:44:11:3a:b7", with(conn("10.0.0.1", "1.2.3.4", 443), func(f *flow.Flow) { f.DstMAC = "00:1b:44:11:3a:b8" }), ""},
		{"mac,00:1b:44:11:3a:b7", with(record(flow.ARP, "10.0.0.1", "10.0.0.2", 0), func(f *flow.Flow) { f.ARP.SenderHW = "00:1b:44:11:3a:b7" }), "src"},
		{"mac,00:1b:44:11:3a:b7", with(record(flow.DHCP, "10.0.0.1", "10.0.0.2", 67), func(f *flow.Flow) { f.DHCP.MAC = "00:1b:44:11:3a:b7" }), "src"},
		{"organization,apple", conn("10.0.0.1", "17.1.2.3", 443), "dst"},
		{"organization,apple", conn("17.1.2.3", "10.0.0.1", 443), "src"},
		{"organization,apple", conn("10.0.0.1", "18.1.2.3", 443), ""},
		{"organization,apple", tls("1.2.3.4", "gateway.icloud.com"), "dst"},
		{"organization,apple", tls("1.2.3.4", "gateway.icloud.com.evil.example"), ""},
		{"organization,google", conn("10.0.0.1", "104.154.128.1", 443), ""}, // rented out
		{"organization,googlecloud", conn("10.0.0.1", "104.154.128.1", 443), "dst"},
		{"port,443", conn("10.0.0.1", "1.2.3.4", 443), "dst"},
		{"port,443/tcp", conn("10.0.0.1", "1.2.3.4", 443), "dst"},
		{"port,443/udp", conn("10.0.0.1", "1.2.3.4", 443), ""},
		{"port,40000/tcp", conn("10.0.0.1", "1.2.3.4", 443), "src"},
		{"port,443", icmp, ""},
		{"ja3,6734f37431670b3ab4292b8f60f29984", with(tls("1.2.3.4", ""), func(f *flow.Flow) { f.SSL.JA3 = "6734F37431670b3ab4292b8f60f29984" }), "any"},
		{"ja3,6734f37431670b3ab4292b8f60f29984", tls("1.2.3.4", ""), ""},
		// Conjunctions.
		{"ip,10.0.0.1&port=40000", conn("10.0.0.1", "1.2.3.4", 443), "src"},
		{"ip,10.0.0.1&port=443", conn("10.0.0.1", "1.2.3.4", 443), ""},
		{"ip,10.0.0.1&dst.port=443&dst.ip=1.2.3.0/24", conn("10.0.0.1", "1.2.3.4", 443), "src"},
		{"ip,10.0.0.1&dst.port=444", conn("10.0.0.1", "1.2.3.4", 443), ""},
		{"domain,a.example&src.ip=10.0.0.1", tls("1.2.3.4", "a.example"), "dst"},
		{"domain,a.example&src.ip=10.0.0.2", tls("1.2.3.4", "a.example"), ""},
		{"ja3,6734f37431670b3ab4292b8f60f29984&src.ip=10.0.0.1", with(tls("1.2.3.4", ""), func(f *flow.Flow) { f.SSL.JA3 = "6734f37431670b3ab4292b8f60f29984" }), "any"},
		// The Src of a file is who sends it; the entry is about the connection.
		{"ip,1.2.3.4", with(record(flow.Files, "1.2.3.4", "10.0.0.1", 0), func(f *flow.Flow) { f.Files.IsOrig = flow.False }), "dst"},
		{"ip,1.2.3.4", with(record(flow.Files, "1.2.3.4", "10.0.0.1", 0), func(f *flow.Flow) { f.Files.IsOrig = flow.True }), "src"},
		{"domain,a.example", with(record(flow.Lookup, "10.0.0.1", "1.2.3.4", 0), func(f *flow.Flow) { f.Lookup.Of, f.Lookup.Subject = "domain", "a.example" }), "dst"},
	} {
		for _, dir := range []string{"src", "dst", "both"} {
			for _, ignore := range []string{"flows", "alerts", "both"} {
				var tally Tally
				line := c.value + "," + dir + "," + ignore
				want := ignore != "alerts" && (c.side == "any" || c.side != "" && (dir == "both" || dir == c.side))
				if got := NewFlows(mustParse(t, line), &tally).Ignore(c.f); got != want {
					t.Errorf("%s: %s %s -> %s: ignored %v, want %v", line, c.f.Kind, c.f.Src, c.f.Dst, got, want)
				}
				if n := tally.Counts(); want != (len(n) == 1 && n[0].Flows == 1 && n[0].Line == 1) {
					t.Errorf("%s: counted %v", line, n)
				}
			}
		}
	}
}

func TestTheLowestLineCounts(t *testing.T) {
	var tally Tally
	w := NewFlows(mustParse(t, "", "port,443,dst,flows", "ip,10.0.0.0/8,src,flows", "domain,a.example,dst,flows", "ip,10.0.0.1,src,flows"), &tally)
	w.Ignore(conn("10.0.0.1", "1.2.3.4", 443))
	w.Ignore(conn("10.0.0.1", "1.2.3.4", 80))
	w.Ignore(tls("1.2.3.4", "a.example"))
	want := []Count{{2, "port,443,dst,flows", 2, 0}, {3, "ip,10.0.0.0/8,src,flows", 1, 0}}
	if d := cmp.Diff(want, tally.Counts()); d != "" {
		t.Error(d)
	}
}

func TestNamesOfAddresses(t *testing.T) {
	l := mustParse(t, "domain,good.example,both,flows", "mac,00:1b:44:11:3a:b7,src,flows")
	w := NewFlows(l, new(Tally))
	step := func(what string, f *flow.Flow, want bool) {
		t.Helper()
		if got := w.Ignore(f); got != want {
			t.Errorf("%s: ignored %v, want %v", what, got, want)
		}
	}
	to, back := conn("10.0.0.1", "1.2.3.4", 443), conn("1.2.3.4", "10.0.0.1", 443)
	step("before the answer", to, false)
	step("the answer", dns("www.good.example", "alias.example", "1.2.3.4", "2001:db8::4"), true)
	step("behind it", to, true)
	step("IPv6", conn("10.0.0.1", "2001:db8::4", 443), true)
	step("from there", back, true)
	step("a day later", with(conn("10.0.0.1", "1.2.3.4", 443), func(f *flow.Flow) { f.At = now + knownFor }), false)
	step("another address", conn("10.0.0.1", "1.2.3.5", 443), false)
	step("a record with a name of its own", tls("2001:db8::4", "evil.example"), false)
	step("IPv6, shared now", conn("10.0.0.1", "2001:db8::4", 443), false)
	step("a listed name there", tls("2001:db8::4", "good.example"), true)

	// State survives a checkpoint, and a list that still names it.
	var b bytes.Buffer
	if err := w.Save(gob.NewEncoder(&b)); err != nil {
		t.Fatal(err)
	}
	saved := b.Bytes()
	w = NewFlows(l, new(Tally))
	if err := w.Load(gob.NewDecoder(bytes.NewReader(saved))); err != nil {
		t.Fatal(err)
	}
	step("restored", to, true)
	step("restored, shared", conn("10.0.0.1", "2001:db8::4", 443), false)
	w.Replace(mustParse(t, "domain,other.example,both,flows", "domain,www.good.example,dst,flows"))
	step("a narrower list", to, true)
	step("and direction", back, false)
	w.Replace(mustParse(t, "domain,other.example,both,flows"))
	step("another list", to, false)
	w.Replace(l)
	step("forgotten", to, false)
	if err := w.Load(gob.NewDecoder(bytes.NewReader(saved[:len(saved)-3]))); err == nil {
		t.Error("a broken checkpoint was loaded")
	}

	// An answer for a name that is not listed.
	step("answer again", dns("www.good.example", "1.2.3.4"), true)
	step("known again", to, true)
	step("a name on the same address", dns("evil.example", "1.2.3.4"), false)
	step("shared", to, false)
	step("answer once more", dns("www.good.example", "1.2.3.4"), true)
	step("still shared", to, false)

	// MACs that ARP or DHCP tell of.
	arp := func(mac string) *flow.Flow {
		return with(record(flow.ARP, "10.0.0.7", "10.0.0.1", 0), func(f *flow.Flow) { f.ARP.SenderHW = mac })
	}
	step("before ARP", conn("10.0.0.7", "9.9.9.9", 1), false)
	step("ARP", arp("00:1b:44:11:3a:b7"), true)
	step("behind it", conn("10.0.0.7", "9.9.9.9", 1), true)
	step("as destination", conn("10.0.0.1", "10.0.0.7", 1), false)
	step("another device", arp("00:1b:44:11:3a:b8"), false)
	step("has the address", conn("10.0.0.7", "9.9.9.9", 1), false)
	step("DHCP", with(record(flow.DHCP, "10.0.0.9", "10.0.0.2", 67), func(f *flow.Flow) {
		f.DHCP.MAC, f.DHCP.Assigned = "00:1b:44:11:3a:b7", netip.MustParseAddr("10.0.0.8")
	}), true)
	step("assigned", conn("10.0.0.8", "9.9.9.9", 1), true)
	step("not that one", conn("10.0.0.9", "9.9.9.9", 1), false)
}

// TestNamesAreCloned writes over the memory of a record after it was seen.
func TestNamesAreCloned(t *testing.T) {
	w := NewFlows(mustParse(t, "domain,good.example,both,flows"), new(Tally))
	line := []byte("www.good.example")
	w.Ignore(dns(flow.Alias(line), "1.2.3.4"))
	copy(line, "www.evil.example")
	w.Replace(w.list)
	if !w.Ignore(conn("10.0.0.1", "1.2.3.4", 443)) {
		t.Error("the name changed with the record's memory")
	}
}

func TestKnownIsBounded(t *testing.T) {
	w := NewFlows(mustParse(t, "domain,good.example,both,flows"), new(Tally))
	for i := range 3 * maxKnown {
		w.Ignore(with(dns("good.example", fmt.Sprintf("20.%d.%d.%d", i>>16, i>>8&255, i&255)), func(f *flow.Flow) { f.At += int64(i) }))
		if len(w.known.All) > maxKnown {
			t.Fatalf("%d addresses are known", len(w.known.All))
		}
	}
	for i, want := range map[int]bool{3*maxKnown - 1: true, 3*maxKnown - maxKnown/3: true, 0: false} {
		to := fmt.Sprintf("20.%d.%d.%d", i>>16, i>>8&255, i&255)
		if got := w.Ignore(conn("10.0.0.1", to, 443)); got != want {
			t.Errorf("the address of answer %d: ignored %v, want %v", i, got, want)
		}
	}
}

func TestListedKeepsWhatAFeedNames(t *testing.T) {
	w := NewFlows(mustParse(t, "organization,apple,dst,flows", "ip,17.0.0.1,dst,flows"), new(Tally))
	bad := true
	w.Listed = func(*flow.Flow) bool { return bad }
	if w.Ignore(conn("10.0.0.1", "17.0.0.2", 443)) {
		t.Error("an organisation dropped what a feed names")
	}
	if !w.Ignore(conn("10.0.0.1", "17.0.0.1", 443)) {
		t.Error("an entry that names the address itself did not hold")
	}
	bad = false
	if !w.Ignore(conn("10.0.0.1", "17.0.0.2", 443)) {
		t.Error("an organisation did not hold")
	}
}

func TestAnswer(t *testing.T) {
	for in, want := range map[string]string{
		"1.2.3.4": "1.2.3.4", "255.255.255.255": "255.255.255.255", "0.0.0.0": "0.0.0.0", "::1": "::1", "fe80::1": "fe80::1",
		"ABCD::1": "abcd::1", "::ffff:1.2.3.4": "1.2.3.4", "2001:db8::1": "2001:db8::1",
		"": "", "1.2.3": "", "1.2.3.": "", "1.2.3.4.5": "", "1.2.3.256": "", "01.2.3.4": "", ".1.2.3": "", "1..2.3": "", "a.example": "", "face.example": "",
		"1.2.3.4 ": "", "1234": "", "300::1": "300::1", "1": "", "0": "", "00.1.2.3": "", "TXT 5 hello": "", "fe80::1%eth0": "", "1.example": "", "1.2.3.4a": "",
	} {
		got, ok := answer(in)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%q: %v, %v; want %q", in, got, ok, want)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"1.2.3.4", "2001:db8::1", "01.2.3.4", "a.example", "::ffff:1.2.3.4", "1::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := netip.ParseAddr(s)
		got, ok := answer(s)
		if ok != (err == nil && want.Zone() == "") || ok && got != want.Unmap() {
			t.Errorf("%q: %v, %v; netip says %v, %v", s, got, ok, want, err)
		}
	})
}
