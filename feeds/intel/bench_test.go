package intel

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strconv"
	"testing"

	"github.com/gaissmai/bart"
)

// The mix: 1.5 million indicators of ten feeds.
const (
	benchDomains, benchAddrs, benchRanges, benchURLs, benchHashes = 1_000_000, 300_000, 50_000, 100_000, 50_000

	benchProbes = 1 << 20 // different questions, a power of two
)

// load makes indicators that look like those of feeds: a fifth of them with a date
// of its own, the others with one of few descriptions.
type load struct {
	*rand.Rand
	domains []string
	addrs   []netip.Addr
	ranges  []netip.Prefix
}

func (l *load) name() string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	b := make([]byte, 0, 40)
	if l.IntN(3) == 0 {
		b = append(b, []string{"www.", "cdn.", "update.", "mail."}[l.IntN(4)]...)
	}
	for range 7 + l.IntN(10) {
		b = append(b, letters[l.IntN(len(letters))])
	}
	return string(append(b, []string{".com", ".net", ".top", ".example", ".co.uk", ".duckdns.org"}[l.IntN(6)]...))
}

func (l *load) addr() netip.Addr {
	n := l.Uint32()
	return netip.AddrFrom4([4]byte{byte(n>>24)%223 + 1, byte(n >> 16), byte(n >> 8), byte(n)})
}

func (l *load) add(tb testing.TB, b *Builder, in Indicator) {
	tb.Helper()
	in.Level, in.Description, in.Tags = FeedLevel, "malware family "+strconv.Itoa(l.IntN(300)), []string{"c2"}
	if l.IntN(5) == 0 {
		in.Since = 1_700_000_000 + int64(l.IntN(10_000_000))
	}
	if err := b.Add(l.IntN(10), in); err != nil {
		tb.Fatal(err)
	}
}

func newLoad(tb testing.TB) (*load, *Builder) {
	tb.Helper()
	l := &load{Rand: rand.New(rand.NewPCG(1, 1))}
	b := NewBuilder()
	for i := range 10 {
		b.AddFeed(Feed{Name: fmt.Sprintf("feed%d", i), Level: Level(i % 5)})
	}
	for range benchDomains {
		n := l.name()
		l.domains = append(l.domains, n)
		l.add(tb, b, Indicator{Kind: Domain, Value: n})
	}
	for range benchAddrs {
		a := l.addr()
		l.addrs = append(l.addrs, a)
		l.add(tb, b, Indicator{Kind: Address, Prefix: netip.PrefixFrom(a, 32)})
	}
	for range benchRanges {
		p, _ := l.addr().Prefix(16 + l.IntN(16))
		l.ranges = append(l.ranges, p)
		l.add(tb, b, Indicator{Kind: Range, Prefix: p})
	}
	for range benchURLs {
		l.add(tb, b, Indicator{Kind: URL, Value: l.name() + "/" + strconv.FormatUint(l.Uint64(), 36) + "/" + strconv.FormatUint(l.Uint64(), 36) + ".exe"})
	}
	for range benchHashes {
		var h [32]byte
		for i := range h {
			h[i] = byte(l.Uint32())
		}
		l.add(tb, b, Indicator{Kind: SHA256, Value: hex.EncodeToString(h[:])})
	}
	return l, b
}

// BenchmarkView has the figures of this package on 1.5 million indicators, with
// the baselines beside them: a map for names and addresses, bart for ranges. The
// questions are more than caches hold, and in no order.
func BenchmarkView(b *testing.B) {
	l, builder := newLoad(b)
	b.Run("Compile", func(b *testing.B) {
		for b.Loop() {
			builder.Compile(0)
		}
	})
	compiled := builder.Compile(0)
	builder = nil
	b.Run("Open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Open(compiled); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(compiled))/1e6, "MB")
	})
	v := open(b, compiled)

	// Names stand one behind the other, as in a log: reading them is not what is measured.
	var text []byte
	names := func(next func() string) []string {
		text = text[:0]
		ends := make([]int, benchProbes)
		for i := range ends {
			text = append(text, next()...)
			ends[i] = len(text)
		}
		all, out, from := string(text), make([]string, benchProbes), 0
		for i, end := range ends {
			out[i], from = all[from:end], end
		}
		return out
	}
	missNames := names(l.name)
	hitNames := names(func() string { return l.domains[l.IntN(len(l.domains))] })
	missAddrs, hitAddrs, rangeAddrs := make([]netip.Addr, benchProbes), make([]netip.Addr, benchProbes), make([]netip.Addr, benchProbes)
	for i := range benchProbes {
		hitAddrs[i] = l.addrs[l.IntN(len(l.addrs))]
		rangeAddrs[i] = l.ranges[l.IntN(len(l.ranges))].Addr().Next()
		for missAddrs[i] = l.addr(); v.Address(missAddrs[i]).OK(); {
			missAddrs[i] = l.addr()
		}
	}
	addresses := func(name string, probes []netip.Addr, find func(netip.Addr) bool, want bool) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i, found := 0, 0
			for b.Loop() {
				if find(probes[i&(benchProbes-1)]) {
					found++
				}
				i++
			}
			if (found > i/2) != want {
				b.Errorf("%d of %d found", found, i)
			}
		})
	}
	domains := func(name string, probes []string, find func(string) bool, want bool) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i, found := 0, 0
			for b.Loop() {
				if find(probes[i&(benchProbes-1)]) {
					found++
				}
				i++
			}
			if (found > i/2) != want {
				b.Errorf("%d of %d found", found, i)
			}
		})
	}
	address := func(a netip.Addr) bool { return v.Address(a).OK() }
	addresses("AddressMiss", missAddrs, address, false)
	addresses("AddressHit", hitAddrs, address, true)
	addresses("RangeHit", rangeAddrs, address, true)
	domain := func(s string) bool { return v.Domain(s).OK() }
	domains("DomainMiss", missNames, domain, false)
	domains("DomainHit", hitNames, domain, true)
	url := func(s string) bool { return v.URL(s, 80, "/download/setup.php?session=0123456789").OK() }
	domains("URLMiss", missNames, url, false)
	hashes := names(func() string {
		return fmt.Sprintf("%016x%016x%016x%016x", l.Uint64(), l.Uint64(), l.Uint64(), l.Uint64())
	})
	domains("HashMiss", hashes, func(s string) bool { return v.Text(SHA256, s).OK() }, false)
	domains("HitAt", hitNames, func(s string) bool { return v.Domain(s).At(0).Feed != nil }, true)

	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	byName := make(map[string]uint32, len(l.domains))
	for i, s := range l.domains {
		byName[s] = uint32(i)
	}
	b.Logf("map of names: %d MB without the names", (heap()-before)>>20)
	inMap := func(s string) bool { _, ok := byName[s]; return ok }
	domains("baseline/MapNameMiss", missNames, inMap, false)
	domains("baseline/MapNameHit", hitNames, inMap, true)
	before = heap()
	byAddr := make(map[netip.Addr]uint32, len(l.addrs))
	for i, a := range l.addrs {
		byAddr[a] = uint32(i)
	}
	b.Logf("map of addresses: %d MB", (heap()-before)>>20)
	inAddrs := func(a netip.Addr) bool { _, ok := byAddr[a]; return ok }
	addresses("baseline/MapAddressMiss", missAddrs, inAddrs, false)
	addresses("baseline/MapAddressHit", hitAddrs, inAddrs, true)
	before = heap()
	var ranges bart.Table[uint32]
	for i, p := range l.ranges {
		ranges.Insert(p, uint32(i))
	}
	b.Logf("bart of ranges: %d MB", (heap()-before)>>20)
	inRanges := func(a netip.Addr) bool { _, ok := ranges.Lookup(a); return ok }
	addresses("baseline/BartRangeMiss", missAddrs, inRanges, false)
	addresses("baseline/BartRangeHit", rangeAddrs, inRanges, true)
	runtime.KeepAlive(compiled)
}
