package threatintel_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/parsers/flow"
)

// million makes a snapshot of a million indicators, none of which the records
// of the benchmark name.
func million(b *testing.B) *intel.View {
	b.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	build := intel.NewBuilder()
	feed := build.AddFeed(intel.Feed{Name: "big", Provider: "big", Level: 3, Tags: []string{"c2"}, Updated: 1_700_000_000})
	add := func(in intel.Indicator) {
		in.Level = intel.FeedLevel
		if err := build.Add(feed, in); err != nil {
			b.Fatal(err)
		}
	}
	addr := func(bits int) netip.Prefix {
		x := rnd.Uint32()
		p, _ := netip.AddrFrom4([4]byte{byte(30 + x>>24%60), byte(x >> 16), byte(x >> 8), byte(x)}).Prefix(bits)
		return p
	}
	for range 300_000 {
		add(intel.Indicator{Kind: intel.Address, Prefix: addr(32)})
	}
	for range 50_000 {
		add(intel.Indicator{Kind: intel.Range, Prefix: addr(24)})
	}
	for i := range 500_000 {
		add(intel.Indicator{Kind: intel.Domain, Value: fmt.Sprintf("n%x.bad%d.com", rnd.Uint32(), i)})
	}
	for i := range 100_000 {
		add(intel.Indicator{Kind: intel.URL, Value: fmt.Sprintf("n%x.bad%d.com/a/%x.exe", rnd.Uint32(), i, rnd.Uint64())})
	}
	for range 25_000 {
		add(intel.Indicator{Kind: intel.MD5, Value: fmt.Sprintf("%016x%016x", rnd.Uint64(), rnd.Uint64())})
		add(intel.Indicator{Kind: intel.CertSHA1, Value: fmt.Sprintf("%016x%016x%08x", rnd.Uint64(), rnd.Uint64(), rnd.Uint32())})
	}
	for range 200 {
		add(intel.Indicator{Kind: intel.JA3, Value: fmt.Sprintf("%016x%016x", rnd.Uint64(), rnd.Uint64())})
	}
	v, err := intel.Open(build.Compile(1_700_000_000))
	if err != nil {
		b.Fatal(err)
	}
	return v
}

// BenchmarkLooks is what the module costs each record that names nothing
// listed, with a million indicators and with none.
func BenchmarkLooks(b *testing.B) {
	full := million(b)
	rnd := rand.New(rand.NewPCG(3, 4))
	const n = 4096
	var conns, names, sessions, requests []*flow.Flow
	for i := range n {
		a := netip.AddrFrom4([4]byte{byte(100 + rnd.IntN(20)), byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32())}).String()
		name := fmt.Sprintf("www.site%d.example%d.com", rnd.Uint32(), i)
		conns = append(conns, conn(0, "C", a, 443))
		names = append(names, dns(0, "D", name, a))
		s := tls(0, "S", a, name)
		s.SSL.JA3, s.SSL.CertFPs = fmt.Sprintf("%016x%016x", rnd.Uint64(), rnd.Uint64()), append(s.SSL.CertFPs, fmt.Sprintf("%064x", rnd.Uint64()))
		sessions = append(sessions, s)
		requests = append(requests, web(0, "H", a, name, fmt.Sprintf("/path/to/page/%x?id=%x", rnd.Uint32(), rnd.Uint32())))
	}
	l := lookerOf(b)
	for _, v := range []struct {
		name string
		view *intel.View
	}{{"none", intel.Empty()}, {"million", full}} {
		for _, r := range []struct {
			name    string
			records []*flow.Flow
		}{{"conn", conns}, {"dns", names}, {"ssl", sessions}, {"http", requests}} {
			b.Run(v.name+"/"+r.name, func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if l.Looks(v.view, r.records[i%n]) {
						b.Fatal("found something")
					}
				}
			})
		}
	}
}

// BenchmarkHandle is what a record costs a host that has had to do with
// something listed: one that is not listed, and one that is.
func BenchmarkHandle(b *testing.B) {
	v := view(b, "feed c2list high tags=c2\nioc c2list ip 203.0.114.1\nioc c2list domain bad.example.net")
	for _, addr := range []string{"203.0.114.2", "203.0.114.1"} {
		b.Run(map[string]string{"203.0.114.2": "miss", "203.0.114.1": "hit"}[addr], func(b *testing.B) {
			x := newBench(b, v)
			f := conn(1, "C1", addr, 443)
			x.run(dns(0, "D1", "bad.example.net", "203.0.114.3"), f)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				x.Handle(f)
				if i%256 == 255 {
					x.fire(1 << 62)
				}
			}
		})
	}
}
