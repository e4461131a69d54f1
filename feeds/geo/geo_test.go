package geo

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/oschwald/maxminddb-golang/v2"
)

type (
	m = mmdbtype.Map
	s = mmdbtype.String
)

// network is one entry of a database made for a test.
type network struct {
	prefix string
	record m
}

func build(t testing.TB, databaseType string, built int64, networks ...network) []byte {
	t.Helper()
	w, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: databaseType, BuildEpoch: built, RecordSize: 24})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range networks {
		_, prefix, err := net.ParseCIDR(n.prefix)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Insert(prefix, n.record); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func write(t testing.TB, path string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func city(country, name string) m {
	return m{
		"country":  m{"iso_code": s(country), "names": m{"en": s("The country"), "de": s("Das Land")}},
		"city":     m{"names": m{"de": s(name + "burg"), "en": s(name)}},
		"location": m{"latitude": mmdbtype.Float64(50)},
	}
}

func as(n uint32, org string) m {
	return m{"autonomous_system_number": mmdbtype.Uint32(n), "autonomous_system_organization": s(org)}
}

func must(t testing.TB, paths ...string) *DB {
	t.Helper()
	d, err := Open(t.Context(), paths...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// TestLayouts reads one record of each maker's layout.
func TestLayouts(t *testing.T) {
	for _, c := range []struct {
		name   string
		record m
		want   Place
		what   string
	}{
		{"GeoLite2-City", city("CZ", "Prague"), Place{Country: "CZ", City: "Prague"}, "country, city"},
		{"GeoLite2-ASN", as(2852, "CESNET z.s.p.o."), Place{ASN: 2852, AS: "CESNET z.s.p.o."}, "AS"},
		{"GeoIP2-Enterprise", m{"country": m{"iso_code": s("GB")}, "traits": as(20712, "Andrews")}, Place{Country: "GB", ASN: 20712, AS: "Andrews"}, "country, AS"},
		{"DBIP-Country-Lite", m{"continent": m{"code": s("EU")}, "country": m{"iso_code": s("CZ"), "is_in_european_union": mmdbtype.Bool(true)}}, Place{Country: "CZ"}, "country"},
		{
			"ipinfo bundle_lite.mmdb",
			m{"country": s("Czechia"), "country_code": s("CZ"), "continent": s("Europe"), "asn": s("AS2852"), "as_name": s("CESNET"), "as_domain": s("cesnet.cz")},
			Place{Country: "CZ", ASN: 2852, AS: "CESNET"},
			"country, AS",
		},
		{"ipinfo country_asn", m{"country": s("CZ"), "country_name": s("Czechia"), "asn": s("AS2852"), "as_name": s("CESNET")}, Place{Country: "CZ", ASN: 2852, AS: "CESNET"}, "country, AS"},
		{"city ipv4", m{"country_code": s("CZ"), "city": s("Prague"), "postcode": s("110 00")}, Place{Country: "CZ", City: "Prague"}, "country, city"},
		{"asn number", m{"asn": mmdbtype.Uint32(2852)}, Place{ASN: 2852}, "AS"},
		{"lower case", m{"country_code": s("cz")}, Place{Country: "CZ"}, "country"},
		{"fit for a terminal", m{"country_code": s("CZ"), "city": s("  Pra\x1b[31mgue\n\u202e ")}, Place{Country: "CZ", City: "Pra[31mgue"}, "country, city"},
		{"long", as(1, strings.Repeat("é", 100)), Place{ASN: 1, AS: strings.Repeat("é", 64)}, "AS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, filepath.Join(t.TempDir(), "a.mmdb"), build(t, c.name, 1700000000, network{"147.32.0.0/15", c.record}))
			d := must(t, path)
			for _, a := range []string{"147.32.80.2", "::ffff:147.33.0.1", "147.32.80.2"} { // the last from the cache
				if diff := gocmp.Diff(c.want, d.Lookup(addr(a))); diff != "" {
					t.Errorf("Lookup(%s): %s", a, diff)
				}
				if n, org := d.AS(addr(a)); n != c.want.ASN || org != c.want.AS {
					t.Errorf("AS(%s) = %d %q", a, n, org)
				}
			}
			if p := d.Lookup(addr("147.34.0.1")); p != (Place{}) {
				t.Errorf("outside: %+v", p)
			}
			want := []Source{{Path: path, Type: c.name, Built: 1700000000, What: c.what, Networks: 1, Credit: credit(c.name)}}
			if diff := gocmp.Diff(want, d.Sources()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestLayoutShownLate has a flat layout that the first records don't show.
func TestLayoutShownLate(t *testing.T) {
	d := must(t, write(t, filepath.Join(t.TempDir(), "a.mmdb"), build(t, "city", 1,
		network{"1.0.0.0/24", m{"country_code": s("AU")}}, network{"2.0.0.0/24", m{"country_code": s("FR"), "city": s("Paris")}})))
	if got := d.Lookup(addr("1.0.0.1")); got != (Place{Country: "AU"}) {
		t.Errorf("%+v", got)
	}
	if got := d.Lookup(addr("2.0.0.1")); got != (Place{Country: "FR", City: "Paris"}) {
		t.Errorf("%+v", got)
	}
}

func TestSeveralComplementEachOther(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "1-country.mmdb"), build(t, "country", 1, network{"1.0.0.0/8", m{"country_code": s("AU")}}))
	write(t, filepath.Join(dir, "2-city.mmdb"), build(t, "city", 1,
		network{"1.1.0.0/16", city("AU", "Sydney")}, network{"1.2.0.0/16", city("NZ", "Wellington")}, network{"9.0.0.0/16", city("US", "Boston")}))
	write(t, filepath.Join(dir, "3-asn.mmdb"), build(t, "asn", 1,
		network{"1.1.0.0/16", m{"autonomous_system_number": mmdbtype.Uint32(7018)}}, network{"1.2.0.0/16", as(1, "one")}))
	write(t, filepath.Join(dir, "4-asn.mmdb"), build(t, "asn", 1,
		network{"1.1.0.0/16", as(7018, "AT&T")}, network{"1.2.0.0/16", as(2, "two")}, network{"1.3.0.0/16", as(3, "three")}))
	write(t, filepath.Join(dir, "notes.txt"), []byte("no database"))
	write(t, filepath.Join(dir, ".hidden.mmdb"), []byte("a download under way"))
	d := must(t, dir)
	var order []string
	for _, src := range d.Sources() {
		order = append(order, filepath.Base(src.Path))
	}
	if diff := gocmp.Diff([]string{"1-country.mmdb", "2-city.mmdb", "3-asn.mmdb", "4-asn.mmdb"}, order); diff != "" {
		t.Fatal(diff)
	}
	for a, want := range map[string]Place{
		"1.1.0.1": {"AU", "Sydney", 7018, ""}, // the file that has its AS is not asked twice
		"1.2.0.1": {"AU", "", 1, "one"},       // a city of another country is left out
		"1.3.0.1": {"AU", "", 3, "three"},     // the first AS file doesn't know it
		"9.0.0.1": {"US", "Boston", 0, ""},    //
		"8.8.8.8": {},                         //
	} {
		if diff := gocmp.Diff(want, d.Lookup(addr(a))); diff != "" {
			t.Errorf("%s: %s", a, diff)
		}
	}
	if n, org := d.AS(addr("1.3.0.1")); n != 3 || org != "three" {
		t.Errorf("AS = %d %q", n, org)
	}
}

// TestNotPublic asks a database that has an opinion about all addresses.
func TestNotPublic(t *testing.T) {
	w, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "all", IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	_, all, _ := net.ParseCIDR("::/0")
	if err := w.Insert(all, m{"country_code": s("XX"), "asn": s("AS1")}); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	d := must(t, write(t, filepath.Join(t.TempDir(), "all.mmdb"), b.Bytes()))
	if p := d.Lookup(addr("8.8.8.8")); p.Country != "XX" {
		t.Fatalf("8.8.8.8: %+v", p)
	}
	for _, a := range []string{"10.1.2.3", "192.168.0.1", "::ffff:172.16.0.1", "127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255", "0.0.0.0", "::1", "fe80::1%eth0", "fd00::1", "ff02::1"} {
		if p := d.Lookup(addr(a)); p != (Place{}) {
			t.Errorf("%s: %+v", a, p)
		}
		if n, _ := d.AS(addr(a)); n != 0 {
			t.Errorf("%s: AS%d", a, n)
		}
	}
	if p := d.Lookup(netip.Addr{}); p != (Place{}) {
		t.Errorf("zero address: %+v", p)
	}
}

func TestNil(t *testing.T) {
	var d *DB
	if n, _ := d.AS(addr("8.8.8.8")); n != 0 || d.Lookup(addr("8.8.8.8")) != (Place{}) || d.Sources() != nil {
		t.Error("the nil DB knows something")
	}
}

func TestOpenReports(t *testing.T) {
	dir := t.TempDir()
	good := write(t, filepath.Join(dir, "good.mmdb"), build(t, "c", 1, network{"1.0.0.0/8", m{"country_code": s("AU")}}))
	bad := write(t, filepath.Join(dir, "bad.mmdb"), []byte("<html>"))
	empty := write(t, filepath.Join(dir, "empty.mmdb"), nil)
	useless := write(t, filepath.Join(dir, "useless.mmdb"), build(t, "GeoIP2-Domain", 1, network{"1.0.0.0/8", m{"domain": s("a.example")}}))
	missing := filepath.Join(dir, "missing.mmdb")
	d, err := Open(t.Context(), good, bad, empty, useless, missing)
	if len(d.Sources()) != 1 || d.Lookup(addr("1.1.1.1")).Country != "AU" {
		t.Errorf("the good one is not used: %+v", d.Sources())
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v does not wrap fs.ErrNotExist", err)
	}
	for _, want := range []string{bad, empty, useless, missing, "GeoIP2-Domain"} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("no word of %s in: %v", want, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if d, err := Open(ctx, good); !errors.Is(err, context.Canceled) || len(d.Sources()) != 0 {
		t.Errorf("cancelled: %v", err)
	}
	many := t.TempDir()
	one, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxFiles + 2 {
		write(t, filepath.Join(many, fmt.Sprintf("%02d.mmdb", i)), one)
	}
	if d, err = Open(t.Context(), many); len(d.Sources()) != maxFiles || !strings.Contains(fmt.Sprint(err), "2 of 18 files") {
		t.Errorf("%d of %d files: %v", len(d.Sources()), maxFiles+2, err)
	}
}

// TestCutWhileInUse cuts a file below a DB, as an editor or a full disk would.
func TestCutWhileInUse(t *testing.T) {
	var networks []network
	for i := range 2000 { // some pages of the file
		networks = append(networks, network{fmt.Sprintf("9.%d.%d.0/24", i/250, i%250), as(uint32(i+1), fmt.Sprintf("Organisation %d", i))})
	}
	path := write(t, filepath.Join(t.TempDir(), "a.mmdb"), build(t, "asn", 1, networks...))
	d := must(t, path)
	if n, _ := d.AS(addr("9.1.1.1")); n != 252 {
		t.Fatalf("AS%d", n)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if p := d.Lookup(addr(fmt.Sprintf("9.7.%d.1", i))); p != (Place{}) {
			t.Errorf("%+v from an empty file", p)
		}
	}
	if got := d.Sources()[0].Failed; got != 1 {
		t.Errorf("%d failed lookups, want the first", got)
	}
}

// sharedTree is a database of 128 nodes, each of whose branches lead both to
// the next: 2^128 networks.
func sharedTree(t testing.TB) []byte {
	t.Helper()
	b := build(t, "shared", 1, network{"::/1", m{"country_code": s("AU")}})
	start := bytes.LastIndex(b, []byte("\xab\xcd\xefMaxMind.com"))
	db, err := maxminddb.OpenBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	data := b[db.Metadata.NodeCount*6 : start]
	const nodes = 128
	var tree []byte
	for i := range uint32(nodes) {
		next := i + 1 // of the last: nodes, which means empty
		var rec [4]byte
		binary.BigEndian.PutUint32(rec[:], next)
		tree = append(append(tree, rec[1:]...), rec[1:]...)
	}
	out := append(tree, data...)
	meta := b[start:]
	at := bytes.Index(meta, []byte("node_count")) + len("node_count")
	size := int(meta[at] & 0x1f) // an unsigned integer of so many bytes follows
	meta = slices.Concat(meta[:at], []byte{0xc1, nodes}, meta[at+1+size:])
	return append(out, meta...)
}

func TestTooManyNetworks(t *testing.T) {
	b := sharedTree(t)
	// IPv4 starts at node 96. Where it has no networks, all others are aliases.
	hidden := slices.Clone(b)
	copy(hidden[96*6:], []byte{0, 0, 128, 0, 0, 128})
	for _, b := range [][]byte{b, hidden} {
		_, err := Open(t.Context(), write(t, filepath.Join(t.TempDir(), "a.mmdb"), b))
		if err == nil || !strings.Contains(err.Error(), "networks in a tree of 128 nodes") {
			t.Errorf("err = %v", err)
		}
	}
}

// TestAliases has the IPv4 networks in IPv6 once more, as MaxMind's databases.
func TestAliases(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "a.mmdb"), build(t, "c", 1, network{"9.0.0.0/24", m{"country_code": s("US")}}, network{"2a00::/32", m{"country_code": s("CZ")}}))
	d := must(t, path)
	if n := d.Sources()[0].Networks; n != 2 {
		t.Errorf("%d networks, want 2", n)
	}
	if p := d.Lookup(addr("2002:900:1::1")); p.Country != "US" {
		t.Errorf("6to4 of 9.0.0.1: %+v", p)
	}
}

func TestConcurrent(t *testing.T) {
	var networks []network
	for i := range 200 {
		networks = append(networks, network{fmt.Sprintf("9.0.%d.0/24", i), as(uint32(i+1), fmt.Sprint("AS of ", i))})
	}
	d := must(t, write(t, filepath.Join(t.TempDir(), "a.mmdb"), build(t, "asn", 1, networks...)))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 2000 {
				want := i % 200
				if n, org := d.AS(addr(fmt.Sprintf("9.0.%d.7", want))); n != uint32(want+1) || org != fmt.Sprint("AS of ", want) {
					t.Errorf("AS%d %q for %d", n, org, want)
				}
			}
		})
	}
	wg.Wait()
}

func feedsDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(cmp.Or(os.Getenv("SLIPS_FEEDS"), "../../../shared/feeds"), "maxmind")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no real databases: %v", err)
	}
	return dir
}

// TestSharedCorrupt opens the databases known to have broken readers.
func TestSharedCorrupt(t *testing.T) {
	dir := feedsDir(t)
	files, err := filepath.Glob(filepath.Join(dir, "bad-data/*/*.mmdb"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"GeoIP2-City-Test-Broken-Double-Format", "GeoIP2-City-Test-Invalid-Node-Count", "MaxMind-DB-test-broken-pointers-24", "MaxMind-DB-test-broken-search-tree-24"} {
		files = append(files, filepath.Join(dir, "test-data", name+".mmdb"))
	}
	if len(files) < 20 {
		t.Errorf("only %d files", len(files))
	}
	for _, f := range files {
		d, err := Open(t.Context(), f)
		if err == nil || !strings.Contains(err.Error(), f) || len(d.Sources()) != 0 {
			t.Errorf("%s: err = %v, %+v", f, err, d.Sources())
		}
		if len(fmt.Sprint(err)) > len(f)+2*maxError {
			t.Errorf("%s: an error of %d bytes", f, len(fmt.Sprint(err)))
		}
	}
}

// TestSharedSource compares databases with the JSON that they were made from.
func TestSharedSource(t *testing.T) {
	dir := feedsDir(t)
	type record struct {
		Country struct {
			ISO string `json:"iso_code"`
		} `json:"country"`
		City struct {
			Names map[string]string `json:"names"`
		} `json:"city"`
		ASN    uint32 `json:"autonomous_system_number"`
		AS     string `json:"autonomous_system_organization"`
		Traits struct {
			ASN uint32 `json:"autonomous_system_number"`
			AS  string `json:"autonomous_system_organization"`
		} `json:"traits"`
	}
	for _, name := range []string{"GeoLite2-ASN-Test", "GeoLite2-City-Test", "GeoLite2-Country-Test", "GeoIP2-City-Test", "GeoIP2-Country-Test", "GeoIP2-Enterprise-Test", "GeoIP2-ISP-Test"} {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join(dir, "source-data", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			var entries []map[netip.Prefix]record
			if err := json.Unmarshal(b, &entries); err != nil {
				t.Fatal(err)
			}
			of := make(map[netip.Prefix]record)
			for _, e := range entries {
				maps.Copy(of, e)
			}
			d := must(t, filepath.Join(dir, "test-data", name+".mmdb"))
			checked := 0
			for p, r := range of {
				a := p.Addr()
				if v4, ok := v4Below96(p); ok {
					a = v4
				}
				inner := false // a more specific entry may answer for a
				for q := range of {
					inner = inner || q != p && q.Bits() > p.Bits() && q.Contains(p.Addr())
				}
				if inner || !public(a) {
					continue
				}
				want := Place{Country: r.Country.ISO, City: r.City.Names["en"], ASN: cmp.Or(r.ASN, r.Traits.ASN), AS: cmp.Or(r.AS, r.Traits.AS)}
				if want.ASN == 0 {
					want.AS = ""
				}
				if diff := gocmp.Diff(want, d.Lookup(a)); diff != "" {
					t.Errorf("%s: %s", p, diff)
				}
				checked++
			}
			if checked < 20 {
				t.Errorf("only %d of %d networks checked", checked, len(of))
			}
		})
	}
}

// v4Below96 returns the IPv4 address that a network in ::/96 stands for.
func v4Below96(p netip.Prefix) (netip.Addr, bool) {
	b := p.Addr().As16()
	if !p.Addr().Is6() || p.Bits() < 96 || [12]byte(b[:12]) != ([12]byte{}) {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte(b[12:])), true
}

func FuzzOpen(f *testing.F) {
	f.Add(build(f, "GeoLite2-City", 1, network{"1.0.0.0/24", city("CZ", "Prague")}))
	f.Add(build(f, "asn", 1, network{"1.0.0.0/24", as(1, "one")}, network{"2a00::/32", m{"asn": s("AS2")}}))
	f.Add(build(f, "city", 1, network{"1.0.0.0/24", m{"city": s("Paris"), "country": s("FR")}}))
	f.Add(sharedTree(f))
	f.Add([]byte("\xab\xcd\xefMaxMind.com"))
	f.Fuzz(func(t *testing.T, b []byte) {
		db, err := maxminddb.OpenBytes(b)
		if err != nil {
			return
		}
		src := &source{path: "fuzz", db: db}
		if err := src.check(t.Context(), int64(len(b))); err != nil {
			if src.lost.Load() {
				t.Fatalf("a panic: %v", err)
			}
			return
		}
		d := &DB{sources: []*source{src}}
		for _, a := range []string{"1.0.0.1", "2.2.2.2", "2a00::1", "::ffff:9.9.9.9"} {
			p := d.Lookup(addr(a))
			if p.Country != countryCode(p.Country) || p.City != clean(p.City, maxText) || p.AS != clean(p.AS, maxText) {
				t.Errorf("not canonical: %+v", p)
			}
			if n, org := d.AS(addr(a)); n != p.ASN || org != p.AS {
				t.Errorf("AS = %d %q, Lookup %+v", n, org, p)
			}
		}
		if src.lost.Load() || src.failed.Load() != 0 {
			t.Error("a lookup failed in a database that was read through")
		}
	})
}

// benchDB has 100,000 networks of /24 with 20,000 systems and 2,000 cities.
func benchDB(b *testing.B) *DB {
	b.Helper()
	var asn, cities []network
	for i := range 100_000 {
		p := fmt.Sprintf("%d.%d.%d.0/24", 20+i>>16, i>>8&255, i&255)
		asn = append(asn, network{p, as(uint32(i*7919%20_000+1), fmt.Sprintf("Organisation %d", i*7919%20_000))})
		cities = append(cities, network{p, city("CZ", fmt.Sprintf("City %d", i*7919%2_000))})
	}
	dir := b.TempDir()
	write(b, filepath.Join(dir, "asn.mmdb"), build(b, "asn", 1, asn...))
	write(b, filepath.Join(dir, "city.mmdb"), build(b, "city", 1, cities...))
	return must(b, dir)
}

func benchAddrs(distinct int) []netip.Addr {
	addrs := make([]netip.Addr, 1<<16)
	for i := range addrs {
		n := i % distinct * 40503 % 100_000
		addrs[i] = netip.AddrFrom4([4]byte{byte(20 + n>>16), byte(n >> 8), byte(n), 1})
	}
	return addrs
}

func BenchmarkLookup(b *testing.B) {
	d := benchDB(b)
	for _, distinct := range []int{1000, 1 << 16} {
		addrs := benchAddrs(distinct)
		b.Run(fmt.Sprintf("AS/%d", distinct), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if n, _ := d.AS(addrs[i&(1<<16-1)]); n == 0 {
					b.Fatal("not found")
				}
			}
		})
		b.Run(fmt.Sprintf("Place/%d", distinct), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if p := d.Lookup(addrs[i&(1<<16-1)]); p.City == "" || p.ASN == 0 {
					b.Fatal("not found")
				}
			}
		})
	}
	b.Run("AS/private", func(b *testing.B) {
		a := addr("192.168.1.1")
		for b.Loop() {
			d.AS(a)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	d := benchDB(b)
	for b.Loop() {
		if _, err := Open(b.Context(), d.sources[0].path, d.sources[1].path); err != nil {
			b.Fatal(err)
		}
	}
}
