package dossier

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/feeds/geo"
	"github.com/slips-go/slips/feeds/intel"
)

const second = int64(time.Second)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// places says the same of every address, those of the own network too.
type places struct{}

func (places) Lookup(netip.Addr) geo.Place {
	return geo.Place{Country: "CZ", City: "Prague", ASN: 2852, AS: "CESNET"}
}

func view(t testing.TB) *intel.View {
	t.Helper()
	b := intel.NewBuilder()
	for _, f := range []struct {
		name string
		in   []intel.Indicator
	}{
		{"feodo", []intel.Indicator{
			{Kind: intel.Address, Prefix: netip.MustParsePrefix("9.1.1.1/32")},
			{Kind: intel.URL, Value: "shop.example/evil.exe"},
			{Kind: intel.Domain, Value: "bad.example"},
		}},
		{"ipsum", []intel.Indicator{
			{Kind: intel.Address, Prefix: netip.MustParsePrefix("9.1.1.1/32")},
			{Kind: intel.Range, Prefix: netip.MustParsePrefix("9.1.0.0/16")},
			{Kind: intel.Domain, Value: "shop.example"},
		}},
		{"tranco", []intel.Indicator{
			{Kind: intel.Popular, Value: "example.org", Rank: 70},
			{Kind: intel.Popular, Value: "example.net", Rank: 7},
		}},
	} {
		n := b.AddFeed(intel.Feed{Name: f.name, Level: 3})
		for _, in := range f.in {
			in.Level = intel.FeedLevel
			if err := b.Add(n, in); err != nil {
				t.Fatal(err)
			}
		}
	}
	v, err := intel.Open(b.Compile(1))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// known is what a book says of a value.
func known(b *Book, kind evidence.IOC, value string, at int64) *evidence.Known {
	e := &evidence.Evidence{Time: at, Attacker: evidence.Entity{Kind: kind, Value: value}}
	b.Describe(e)
	return e.Attacker.Known
}

func TestDescribe(t *testing.T) {
	b := New(Options{})
	b.Use(places{}, view(t))
	b.Sighting(addr("9.1.1.1"), "WWW.Example.org.", "dns", 20*second)
	b.Sighting(addr("9.1.1.1"), "cdn.example.net", "sni", 10*second)
	b.Sighting(addr("::ffff:9.1.1.1"), "www.example.ORG", "http", 30*second) // a name that is known
	b.Sighting(addr("9.1.1.1"), "9.1.1.1", "http", 30*second)                // no name
	b.Sighting(addr("9.1.1.1"), "[2a00::1]", "http", 30*second)
	b.Sighting(addr("9.1.1.1"), "", "sni", 30*second)
	b.Sighting(addr("9.1.1.1"), strings.Repeat("a", 254), "sni", 30*second)
	b.MAC(addr("9.1.1.1"), "b8:27:eb:00:00:01") // the router's
	b.Seen(addr("192.168.1.5"), 40*second)
	b.MAC(addr("192.168.1.5"), "B8-27-EB-00-00-01")
	b.Sighting(addr("192.168.1.5"), "laptop", "dhcp", 50*second)
	b.Seen(addr("fe80::1%eth0"), 1*second)
	b.MAC(addr("fe80::1"), "02:11:22:33:44:55")

	for _, c := range []struct {
		kind  evidence.IOC
		value string
		want  *evidence.Known
	}{
		{evidence.IP, "9.1.1.1", &evidence.Known{
			Country: "CZ", City: "Prague", ASN: 2852, AS: "CESNET", Feeds: []string{"feodo", "ipsum"}, Rank: 7,
			Names: []evidence.Name{{Name: "www.example.org", From: "dns"}, {Name: "cdn.example.net", From: "sni"}}, FirstSeen: 10 * second, LastSeen: 35 * second,
		}},
		{evidence.IP, "192.168.1.5", &evidence.Known{
			MAC: "b8:27:eb:00:00:01", Vendor: "Raspberry Pi Foundation", Names: []evidence.Name{{Name: "laptop", From: "dhcp"}}, FirstSeen: 40 * second, LastSeen: 50 * second,
		}},
		{evidence.IP, "fe80::1%wlan0", &evidence.Known{MAC: "02:11:22:33:44:55", FirstSeen: second, LastSeen: 35 * second}},
		{evidence.IP, "9.1.2.3", &evidence.Known{Country: "CZ", City: "Prague", ASN: 2852, AS: "CESNET", Feeds: []string{"ipsum"}}}, // never seen
		{evidence.IP, "10.0.0.9", nil},
		{evidence.IP, "garbage", nil},
		{evidence.None, "", nil},
		{evidence.Hash, "d41d8cd98f00b204e9800998ecf8427e", nil},
		{evidence.Domain, "www.BAD.example.", &evidence.Known{Feeds: []string{"feodo"}}},
		{evidence.Domain, "www.example.org", &evidence.Known{Rank: 70}},
		{evidence.Domain, "unknown.example", nil},
		{evidence.URL, "http://shop.example/evil.exe", &evidence.Known{Feeds: []string{"feodo", "ipsum"}}}, // the URL, then its host
		{evidence.URL, "shop.example/", &evidence.Known{Feeds: []string{"ipsum"}}},
		{evidence.URL, "https://www.example.org:8443/a?b", &evidence.Known{Rank: 70}},
		{evidence.URL, "http://10.0.0.9/x", nil},
		{evidence.URL, "http://192.168.1.5/x", &evidence.Known{
			MAC: "b8:27:eb:00:00:01", Vendor: "Raspberry Pi Foundation", Names: []evidence.Name{{Name: "laptop", From: "dhcp"}}, FirstSeen: 40 * second, LastSeen: 50 * second,
		}},
		{evidence.URL, "http://[2a00::1]:80/", &evidence.Known{Country: "CZ", City: "Prague", ASN: 2852, AS: "CESNET"}},
		{evidence.URL, "http://\x7f/%zz", nil},
		{evidence.URL, "", nil},
	} {
		if diff := cmp.Diff(c.want, known(b, c.kind, c.value, 35*second)); diff != "" {
			t.Errorf("%v %q: %s", c.kind, c.value, diff)
		}
	}

	e := &evidence.Evidence{Time: second, Attacker: evidence.IPEntity(addr("192.168.1.5"), evidence.Src, 0), Victim: evidence.IPEntity(addr("9.1.2.3"), evidence.Dst, 80)}
	b.Describe(e)
	if e.Attacker.Known == nil || e.Attacker.Known.MAC == "" || e.Victim.Known == nil || e.Victim.Known.Country != "CZ" {
		t.Errorf("attacker %+v, victim %+v", e.Attacker.Known, e.Victim.Known)
	}
}

// TestNothingToAsk has neither places nor feeds.
func TestNothingToAsk(t *testing.T) {
	b := New(Options{})
	b.Seen(addr("9.1.1.1"), second)
	if diff := cmp.Diff(&evidence.Known{FirstSeen: second, LastSeen: second}, known(b, evidence.IP, "9.1.1.1", 0)); diff != "" {
		t.Error(diff)
	}
	if k := known(b, evidence.Domain, "bad.example", 0); k != nil {
		t.Errorf("%+v", k)
	}
	b.Use(places{}, nil)
	if k := known(b, evidence.IP, "9.1.1.1", 0); k == nil || k.Country != "CZ" {
		t.Errorf("places given later are not asked: %+v", k)
	}
}

// TestKnownIsNotChanged keeps what Describe gave while more is told.
func TestKnownIsNotChanged(t *testing.T) {
	b := New(Options{})
	a := addr("10.0.0.1")
	b.Sighting(a, "one", "dns", 10)
	first := known(b, evidence.IP, "10.0.0.1", 5)
	was := *first
	was.Names = append([]evidence.Name(nil), first.Names...)
	for i, tell := range []func(){
		func() { b.Sighting(a, "two", "sni", 10) },
		func() { b.Seen(a, 20) },
		func() { b.Seen(a, 5) },
		func() { b.MAC(a, "b8:27:eb:00:00:01") },
		func() { known(b, evidence.IP, "10.0.0.1", 99) },
	} {
		before := known(b, evidence.IP, "10.0.0.1", 0)
		tell()
		if i < 4 && cmp.Equal(before, known(b, evidence.IP, "10.0.0.1", 0)) {
			t.Errorf("what call %d tells is not in what is known", i)
		}
	}
	if diff := cmp.Diff(&was, first); diff != "" {
		t.Error(diff)
	}
	if got := known(b, evidence.IP, "10.0.0.1", 0); got.LastSeen != 20 || got.FirstSeen != 5 {
		t.Errorf("describing changed the book: %+v", got)
	}
}

// TestStringsAreCloned tells names from memory that is used again.
func TestStringsAreCloned(t *testing.T) {
	b := New(Options{})
	batch := []byte("host.example dns 02:11:22:33:44:55")
	text := string(batch) // what a record has is a part of a larger text
	b.Sighting(addr("10.0.0.1"), text[:12], text[13:16], 1)
	b.MAC(addr("10.0.0.1"), text[17:])
	k := known(b, evidence.IP, "10.0.0.1", 0)
	for _, s := range []string{k.Names[0].Name, k.Names[0].From, k.MAC} {
		if s == "" || within(text, s) {
			t.Errorf("%q is kept in the memory of the record", s)
		}
	}
}

// within reports whether part lies in the memory of whole.
func within(whole, part string) bool {
	start := uintptr(unsafe.Pointer(unsafe.StringData(whole)))
	at := uintptr(unsafe.Pointer(unsafe.StringData(part)))
	return start <= at && at < start+uintptr(len(whole))
}

func TestNamesAreBounded(t *testing.T) {
	b := New(Options{})
	for round := range 2 {
		for i := range 10 {
			b.Sighting(addr("10.0.0.1"), fmt.Sprintf("h%d.example", i), "dns", 1)
		}
		k := known(b, evidence.IP, "10.0.0.1", 0)
		if len(k.Names) != maxNames || k.Names[0].Name != "h0.example" || k.Names[3].Name != "h3.example" {
			t.Errorf("round %d: %v", round, k.Names)
		}
		if diff := cmp.Diff(Stats{Addresses: 1, Crowded: 1}, b.Stats()); diff != "" {
			t.Errorf("round %d: %s", round, diff)
		}
	}
}

func TestForgetsTheFirst(t *testing.T) {
	b := New(Options{Max: 3})
	for i := range 4 {
		b.Seen(addr(fmt.Sprintf("10.0.0.%d", i)), second)
		b.Seen(addr("10.0.0.0"), 2*second) // comes back when it was forgotten, and is the youngest then
	}
	// 0, 1, 2, then 3 in the place of 0, then 0 in that of 1.
	for i, want := range []bool{true, false, true, true} {
		if k := known(b, evidence.IP, fmt.Sprintf("10.0.0.%d", i), 0); (k != nil) != want {
			t.Errorf("10.0.0.%d: %+v", i, k)
		}
	}
	if diff := cmp.Diff(Stats{Addresses: 3, Forgotten: 2}, b.Stats()); diff != "" {
		t.Error(diff)
	}
}

func TestNoHosts(t *testing.T) {
	b := New(Options{})
	for _, a := range []netip.Addr{{}, addr("0.0.0.0"), addr("::"), addr("255.255.255.255"), addr("224.0.0.251"), addr("ff02::fb")} {
		b.Sighting(a, "x.example", "dns", 1)
		b.Seen(a, 1)
		b.MAC(a, "02:11:22:33:44:55")
	}
	if n := b.Stats().Addresses; n != 0 {
		t.Errorf("%d addresses", n)
	}
}

func TestMAC(t *testing.T) {
	for mac, want := range map[string]string{
		"B8:27:EB:00:00:01":    "b8:27:eb:00:00:01",
		"b8-27-eb-00-00-01":    "b8:27:eb:00:00:01",
		"00:00:00:00:00:00":    "",
		"ff:ff:ff:ff:ff:ff":    "",
		"01:00:5e:00:00:fb":    "",
		"b8:27:eb:00:00":       "",
		"b8:27:eb:00:00:0g":    "",
		"b8:27:eb:00:00:\x1a":  "",
		"b8:27:eb:00:00:01 ":   "",
		"b8.27.eb.00.00.01":    "",
		"b8:27:eb:00:00:\x1a1": "",
		"":                     "",
	} {
		if got, ok := canonicalMAC(mac); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q %v, want %q", mac, got, ok, want)
		}
	}
	b := New(Options{Local: func(a netip.Addr) bool { return a == addr("147.32.80.2") }})
	for _, a := range []string{"147.32.80.2", "10.0.0.1"} {
		b.Seen(addr(a), 1)
		b.MAC(addr(a), "b8:27:eb:00:00:01")
	}
	if k := known(b, evidence.IP, "147.32.80.2", 0); k.MAC == "" {
		t.Error("a local address has no MAC")
	}
	if k := known(b, evidence.IP, "10.0.0.1", 0); k.MAC != "" {
		t.Error("an address that is not local has a MAC")
	}
	b.MAC(addr("147.32.80.2"), "b8:27:eb:00:00:02")
	if k := known(b, evidence.IP, "147.32.80.2", 0); k.MAC != "b8:27:eb:00:00:02" {
		t.Errorf("the last MAC does not count: %s", k.MAC)
	}
}

// told makes some calls of all sorts.
func told(b *Book, from, to int) {
	for i := from; i < to; i++ {
		a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i * 7 % 40)})
		switch i % 3 {
		case 0:
			b.Sighting(a, fmt.Sprintf("h%d.example", i%11), "dns", int64(1000+i*i%97))
		case 1:
			b.Seen(a, int64(1000+i))
		case 2:
			b.MAC(a, fmt.Sprintf("02:00:00:00:00:%02x", i%5))
		}
	}
}

// all is what the book says of all addresses that told names.
func all(b *Book) []*evidence.Known {
	var out []*evidence.Known
	for i := range 40 {
		out = append(out, known(b, evidence.IP, fmt.Sprintf("10.0.0.%d", i), 0))
	}
	return out
}

func save(t testing.TB, b *Book) []byte {
	t.Helper()
	var w bytes.Buffer
	if err := b.Save(gob.NewEncoder(&w)); err != nil {
		t.Fatal(err)
	}
	return w.Bytes()
}

// TestRestart saves and loads at every point, in a ring that is full and not.
func TestRestart(t *testing.T) {
	for _, size := range []int{1, 5, 30, 1000} {
		whole := New(Options{Max: size})
		told(whole, 0, 120)
		for cut := 0; cut < 120; cut += 7 {
			b := New(Options{Max: size})
			told(b, 0, cut)
			state := save(t, b)
			b = New(Options{Max: size})
			told(b, 50, 60) // gone with Load
			if err := b.Load(gob.NewDecoder(bytes.NewReader(state))); err != nil {
				t.Fatal(err)
			}
			told(b, cut, 120)
			if diff := cmp.Diff(all(whole), all(b)); diff != "" {
				t.Fatalf("size %d, cut at %d: %s", size, cut, diff)
			}
			if diff := cmp.Diff(whole.Stats(), b.Stats()); diff != "" {
				t.Fatalf("size %d, cut at %d: %s", size, cut, diff)
			}
		}
	}
}

// TestRepeated tells everything twice, as a restart from an older state does.
func TestRepeated(t *testing.T) {
	once, twice := New(Options{}), New(Options{})
	told(once, 0, 120)
	for i := range 120 {
		told(twice, i, i+1)
		told(twice, i, i+1)
	}
	if diff := cmp.Diff(all(once), all(twice)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(once.Stats(), twice.Stats()); diff != "" {
		t.Error(diff)
	}
	if !bytes.Equal(save(t, once), save(t, twice)) {
		t.Error("the states differ")
	}
}

func TestLoadSmaller(t *testing.T) {
	b := New(Options{Max: 10})
	for i := range 10 {
		b.Seen(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 1)
	}
	small := New(Options{Max: 4})
	if err := small.Load(gob.NewDecoder(bytes.NewReader(save(t, b)))); err != nil {
		t.Fatal(err)
	}
	small.Seen(addr("10.0.0.99"), 1)
	for i, want := range map[int]bool{5: false, 6: false, 7: true, 9: true, 99: true} {
		if k := known(small, evidence.IP, fmt.Sprintf("10.0.0.%d", i), 0); (k != nil) != want {
			t.Errorf("10.0.0.%d: %+v", i, k)
		}
	}
	if diff := cmp.Diff(Stats{Addresses: 4, Forgotten: 7}, small.Stats()); diff != "" {
		t.Error(diff)
	}
}

func TestLoadDamaged(t *testing.T) {
	encode := func(s saved) []byte {
		var w bytes.Buffer
		if err := gob.NewEncoder(&w).Encode(s); err != nil {
			t.Fatal(err)
		}
		return w.Bytes()
	}
	b := New(Options{})
	b.Seen(addr("10.0.0.1"), 1)
	for name, state := range map[string][]byte{
		"empty":   nil,
		"cut":     save(t, b)[:20],
		"twice":   encode(saved{Others: []page{{Addr: addr("10.0.0.2")}, {Addr: addr("10.0.0.2")}}}),
		"zero":    encode(saved{Others: []page{{}}}),
		"mapped":  encode(saved{Others: []page{{Addr: addr("::ffff:10.0.0.2")}}}),
		"crowded": encode(saved{Others: []page{{Addr: addr("10.0.0.2"), Names: make([]evidence.Name, 5)}}}),
	} {
		if err := b.Load(gob.NewDecoder(bytes.NewReader(state))); err == nil || !strings.HasPrefix(err.Error(), "loading what is known") {
			t.Errorf("%s: %v", name, err)
		}
		if known(b, evidence.IP, "10.0.0.1", 0) == nil || b.Stats().Addresses != 1 {
			t.Errorf("%s: the book is not as it was", name)
		}
	}
}

func FuzzSighting(f *testing.F) {
	f.Add("www.example.org.", "dns", "b8:27:eb:00:00:01", "http://www.example.org:80/")
	f.Add("[::1]", "\xff", "", "http://[::1%25a]:99999/%")
	f.Add("\x1b[2J", "sni", "01:00:5e:00:00:fb", "a:b@c/d?e#f")
	v := view(f)
	f.Fuzz(func(t *testing.T, name, from, mac, url string) {
		b := New(Options{})
		b.Use(places{}, v)
		a := addr("10.0.0.1")
		for range 2 {
			b.Sighting(a, name, from, 1)
			b.MAC(a, mac)
		}
		k := known(b, evidence.IP, "10.0.0.1", 1)
		if len(k.Names) > 1 || len(k.Names) == 1 && (len(k.Names[0].Name) > maxName || strings.ContainsAny(k.Names[0].Name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")) {
			t.Errorf("%q", k.Names)
		}
		if k.MAC != "" && k.MAC != lower(mac) && k.MAC != strings.ReplaceAll(lower(mac), "-", ":") {
			t.Errorf("%q is %q", mac, k.MAC)
		}
		known(b, evidence.URL, url, 1)
		known(b, evidence.Domain, name, 1)
	})
}

func BenchmarkSighting(b *testing.B) {
	addrs := make([]netip.Addr, 1<<15)
	names := make([]string, len(addrs))
	for i := range addrs {
		addrs[i] = netip.AddrFrom4([4]byte{9, byte(i >> 14), byte(i >> 7), byte(i)})
		names[i] = fmt.Sprintf("host%d.example.org", i)
	}
	b.Run("known", func(b *testing.B) {
		book := New(Options{})
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			book.Sighting(addrs[i&(1<<15-1)], names[i&(1<<15-1)], "dns", int64(i+1))
		}
	})
	b.Run("forgetting", func(b *testing.B) { // each address is new
		book := New(Options{Max: 1 << 10})
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			book.Sighting(addrs[i&(1<<15-1)], names[i&(1<<15-1)], "dns", int64(i+1))
		}
	})
}

func BenchmarkDescribe(b *testing.B) {
	book := New(Options{})
	book.Use(places{}, view(b))
	book.Sighting(addr("9.1.1.1"), "www.example.org", "dns", 10)
	book.Seen(addr("10.0.0.1"), 10)
	e := &evidence.Evidence{Time: 5, Attacker: evidence.IPEntity(addr("9.1.1.1"), evidence.Src, 0), Victim: evidence.IPEntity(addr("10.0.0.1"), evidence.Dst, 0)}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i&3 == 0 { // one in four after something new
			book.Seen(addr("9.1.1.1"), int64(10+i))
		}
		book.Describe(e)
	}
}

// The addresses of the Internet, of which there is no end, do not push out the
// hosts of the own network.
func TestShelves(t *testing.T) {
	b := New(Options{Max: 3})
	b.Sighting(addr("10.0.0.1"), "desk.example", "dhcp", second)
	for i := range 100 {
		b.Sighting(netip.AddrFrom4([4]byte{9, 9, 9, byte(i)}), "x.example", "dns", second)
	}
	var saved bytes.Buffer
	if err := b.Save(gob.NewEncoder(&saved)); err != nil {
		t.Fatal(err)
	}
	c := New(Options{Max: 3})
	if err := c.Load(gob.NewDecoder(&saved)); err != nil {
		t.Fatal(err)
	}
	for _, b := range []*Book{b, c} {
		e := evidence.Evidence{Attacker: evidence.IPEntity(addr("10.0.0.1"), evidence.Src, 0), Victim: evidence.IPEntity(addr("9.9.9.1"), evidence.Dst, 0)}
		b.Describe(&e)
		if k := e.Attacker.Known; k == nil || len(k.Names) != 1 || e.Victim.Known != nil {
			t.Errorf("attacker %+v, victim %+v", k, e.Victim.Known)
		}
		if s := b.Stats(); s.Addresses != 4 || s.Forgotten != 97 {
			t.Errorf("%+v", s)
		}
	}
}
