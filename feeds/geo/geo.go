// Package geo tells where an address is: the country, the city and the
// autonomous system, from databases in MaxMind's format on the local disk.
// Nothing is asked over the network but by Fetch.
package geo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/oschwald/maxminddb-golang/v2"
)

const (
	// maxSize of a database file. The largest that anybody gives away, cities
	// of both IP versions, have 130 MB.
	maxSize = 1 << 30
	// maxFiles bounds the work of a lookup, which may ask each.
	maxFiles = 16
	// leavesPerNode bounds the networks of a search tree by its nodes. A binary
	// tree of n nodes has n+1 leaves, and more only where writers share equal
	// subtrees. Without a bound, 128 nodes can spell 2^128 networks.
	leavesPerNode = 64
	// checkTime is for one file; the largest need seconds. Only a file made to
	// take long does.
	checkTime = time.Minute
	// maxText is the longest name kept, in bytes. Registries have shorter ones.
	maxText = 128
	// maxError is for what the library says of a file, which quotes it.
	maxError = 240
	// cacheBits says how many answers of AS are kept: traffic has few addresses
	// at a time, and asks for each with every flow. 2^13 take 1 MB.
	cacheBits = 13
)

// Place is what is known of an address. Fields that are not known are zero.
type Place struct {
	Country string // ISO 3166-1 alpha-2
	City    string // in English
	ASN     uint32
	AS      string // who runs the autonomous system
}

// Source is a database in use.
type Source struct {
	Path     string
	Type     string // as its maker calls it: "GeoLite2-City"
	Built    int64  // unix s; 0: not said
	What     string // "country, city, AS"
	Networks int
	Credit   string // what its licence asks to be shown with results; "" when nothing
	Failed   int64  // lookups that found the file damaged since it was opened
}

// DB looks addresses up. It may be used by any goroutine. The nil DB knows
// nothing.
type DB struct {
	sources []*source
	// cache holds answers of AS by a hash of the address. Which of them it
	// holds changes no answer, so goroutines need not agree.
	cache [1 << cacheBits]atomic.Pointer[answered]
}

type answered struct {
	addr netip.Addr
	asn  uint32
	org  string
}

// Open opens databases: each path is a file, or a folder of *.mmdb files. Of
// what several know, the first counts: paths in the order given, files of a
// folder by name. Later ones fill in what is missing.
//
// Each file is read through once before it is used. The error joins one for
// each path that can't be used, and wraps fs.ErrNotExist where it isn't there;
// the DB has the others and is never nil.
func Open(ctx context.Context, paths ...string) (*DB, error) {
	var files []string
	var refused []error
	for _, p := range paths {
		info, err := os.Stat(p)
		switch {
		case err != nil:
			refused = append(refused, fmt.Errorf("opening geo database: %w", err))
		case !info.IsDir():
			files = append(files, p)
		default:
			entries, err := os.ReadDir(p) // sorted by name
			if err != nil {
				refused = append(refused, fmt.Errorf("listing geo databases: %w", err))
			}
			for _, e := range entries {
				if strings.HasSuffix(e.Name(), ".mmdb") && !strings.HasPrefix(e.Name(), ".") {
					files = append(files, filepath.Join(p, e.Name()))
				}
			}
		}
	}
	d := &DB{}
	for i, f := range files {
		if len(d.sources) == maxFiles {
			refused = append(refused, fmt.Errorf("opening geo database %q: %d of %d files are more than the %d that are used", f, len(files)-i, len(files), maxFiles))
			break
		}
		s, err := open(ctx, f)
		if err != nil {
			refused = append(refused, err)
			continue
		}
		d.sources = append(d.sources, s)
	}
	return d, errors.Join(refused...)
}

// Lookup returns what is known of a, which may be an IPv4 address mapped into
// IPv6. Addresses that are not for the public internet have no place.
func (d *DB) Lookup(a netip.Addr) Place {
	var p Place
	a = a.Unmap()
	if d == nil || !public(a) {
		return p
	}
	for _, s := range d.sources {
		if s.gives&^known(p) != 0 {
			p.fill(s.find(a))
		}
	}
	return p
}

// AS returns the autonomous system of a and who runs it; 0 when not known. It
// is cheap enough to be called for each flow.
func (d *DB) AS(a netip.Addr) (asn uint32, org string) {
	a = a.Unmap()
	if d == nil || len(d.sources) == 0 || !public(a) {
		return 0, ""
	}
	slot := &d.cache[hash(a)]
	if c := slot.Load(); c != nil && c.addr == a {
		return c.asn, c.org
	}
	for _, s := range d.sources {
		if s.gives&givesAS == 0 {
			continue
		}
		if p := s.find(a); p.ASN != 0 {
			asn, org = p.ASN, p.AS
			break
		}
	}
	slot.Store(&answered{addr: a, asn: asn, org: org})
	return asn, org
}

// hash returns the place of a in the cache. The multiplier is 2^64 by the
// golden ratio, as in Fibonacci hashing; one round leaves networks of equal
// size in a lattice.
func hash(a netip.Addr) uint64 {
	const phi = 0x9e3779b97f4a7c15
	b := a.As16()
	h := (binary.BigEndian.Uint64(b[:8])*phi ^ binary.BigEndian.Uint64(b[8:])) * phi
	return (h ^ h>>32) * phi >> (64 - cacheBits)
}

// Sources returns the databases in use, in the order in which they are asked.
func (d *DB) Sources() []Source {
	if d == nil {
		return nil
	}
	out := make([]Source, len(d.sources))
	for i, s := range d.sources {
		out[i] = s.describe()
	}
	return out
}

func public(a netip.Addr) bool { return a.IsGlobalUnicast() && !a.IsPrivate() }

// gives is a set of the things that a database has.
type gives uint8

const (
	givesCountry gives = 1 << iota
	givesCity
	givesAS
)

func (g gives) String() string {
	var has []string
	for i, name := range [...]string{"country", "city", "AS"} {
		if g&(1<<i) != 0 {
			has = append(has, name)
		}
	}
	return strings.Join(has, ", ")
}

func known(p Place) (g gives) {
	if p.Country != "" {
		g |= givesCountry
	}
	if p.City != "" {
		g |= givesCity
	}
	if p.ASN != 0 {
		g |= givesAS
	}
	return g
}

// fill adds what q knows and p does not. A city in another country than p's is
// an opinion of its own and left out; so is the name of another system.
func (p *Place) fill(q Place) {
	if p.Country == "" {
		p.Country = q.Country
	}
	if p.City == "" && (q.Country == "" || q.Country == p.Country) {
		p.City = q.City
	}
	if p.ASN == 0 {
		p.ASN, p.AS = q.ASN, q.AS
	} else if p.AS == "" && q.ASN == p.ASN {
		p.AS = q.AS
	}
}

// source is one file.
type source struct {
	path     string
	db       *maxminddb.Reader
	gives    gives
	flat     bool // how its records are laid out
	networks int
	failed   atomic.Int64
	lost     atomic.Bool // the file was cut under us
}

// open opens the file and reads it through.
func open(ctx context.Context, path string) (*source, error) {
	fail := func(err error) (*source, error) { return nil, fmt.Errorf("opening geo database %q: %w", path, err) }
	info, err := os.Stat(path)
	if err != nil {
		return fail(err)
	}
	if !info.Mode().IsRegular() {
		return fail(errors.New("it is no file"))
	}
	if info.Size() > maxSize {
		return fail(fmt.Errorf("%d bytes, more than %d", info.Size(), maxSize))
	}
	// The file is mapped: the kernel keeps in memory what is asked for. The
	// mapping goes with the last reference to the Reader.
	db, err := maxminddb.Open(path)
	if err != nil {
		var gone *fs.PathError
		if errors.As(err, &gone) {
			return fail(err)
		}
		return fail(fmt.Errorf("corrupt or no database: %s", clean(err.Error(), maxError)))
	}
	s := &source{path: path, db: db}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	if err := s.check(ctx, info.Size()); err != nil {
		return fail(err)
	}
	return s, nil
}

// check walks all networks and decodes each record once and whole, so that
// what is wrong with a file is found before it is used, and what it gives is
// known. (The library's own Verify won't do: it refuses databases without a
// description, as those of ip-location-db are, and can't be stopped.) Its work
// is linear in size, in bytes, but for files made to be slow; ctx ends those.
func (s *source) check(ctx context.Context, size int64) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer s.guard(&err)
	if n := int64(s.db.Metadata.NodeCount); n <= 0 || n > size {
		return fmt.Errorf("corrupt: %d nodes in %d bytes", n, size)
	}
	limit := leavesPerNode * (int(s.db.Metadata.NodeCount) + 1)
	seen := make([]uint64, size/64+1) // a bit for each offset that was decoded
	s.networks, s.gives = 0, 0
	leaves := 0
	// All leaves are asked for, since what the library leaves out it walks all
	// the same, and no limit would hold for that.
	for r := range s.db.Networks(maxminddb.IncludeNetworksWithoutData(), maxminddb.IncludeAliasedNetworks()) {
		if err := r.Err(); err != nil {
			return fmt.Errorf("corrupt: %s", clean(err.Error(), maxError))
		}
		if leaves++; leaves > limit {
			return fmt.Errorf("corrupt: more than %d networks in a tree of %d nodes", limit, s.db.Metadata.NodeCount)
		}
		if leaves%1024 == 0 && ctx.Err() != nil {
			return fmt.Errorf("reading it through: %w", context.Cause(ctx))
		}
		if !r.Found() {
			continue
		}
		if !aliased(r.Prefix().Addr()) {
			s.networks++
		}
		at := r.Offset()
		if int64(at) >= size {
			return fmt.Errorf("corrupt: the record of %s is behind the end of the file", r.Prefix())
		}
		if seen[at/64]&(1<<(at%64)) != 0 {
			continue
		}
		seen[at/64] |= 1 << (at % 64)
		var whole any
		if err := r.Decode(&whole); err != nil {
			return fmt.Errorf("corrupt: the record of %s: %s", r.Prefix(), clean(err.Error(), maxError))
		}
		if ctx.Err() != nil { // decoding one can take as long as a thousand networks
			return fmt.Errorf("reading it through: %w", context.Cause(ctx))
		}
		p, err := s.decode(r)
		if err != nil && !s.flat { // the other layout, from the start
			s.flat = true
			return s.check(ctx, size)
		}
		if err != nil {
			return fmt.Errorf("the record of %s is laid out in no known way: %s", r.Prefix(), clean(err.Error(), maxError))
		}
		s.gives |= known(p)
	}
	if s.gives == 0 {
		return fmt.Errorf("a database of type %q, which has neither countries nor cities nor autonomous systems", clean(s.db.Metadata.DatabaseType, maxText))
	}
	return nil
}

// aliased reports whether a is where databases have their IPv4 networks once
// more: mapped addresses, Teredo (2001::/32) and 6to4 (2002::/16).
func aliased(a netip.Addr) bool {
	if a.Is4() {
		return false
	}
	b := a.As16()
	return a.Is4In6() || b[0] == 0x20 && (b[1] == 2 || b[1] == 1 && b[2] == 0 && b[3] == 0)
}

// guard turns a panic into an error. A mapped file that somebody cuts makes
// reads fault; the file is not asked again.
func (s *source) guard(err *error) {
	if r := recover(); r != nil {
		s.lost.Store(true)
		*err = fmt.Errorf("reading geo database %q: %v", s.path, r)
	}
}

// find returns the record of a.
func (s *source) find(a netip.Addr) Place {
	if s.lost.Load() || a.Is6() && s.db.Metadata.IPVersion == 4 {
		return Place{}
	}
	p, err := s.read(a)
	if err != nil {
		s.failed.Add(1)
		return Place{}
	}
	return p
}

func (s *source) read(a netip.Addr) (p Place, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer s.guard(&err)
	r := s.db.Lookup(a)
	if !r.Found() {
		return Place{}, r.Err()
	}
	return s.decode(r)
}

// The layouts of records. MaxMind and DB-IP nest; IPinfo and ip-location-db
// have texts side by side, and country and city among them with other types.
// The library bounds what it decodes, and skips what is not named here.
type (
	nested struct {
		common
		Country struct {
			ISO string `maxminddb:"iso_code"`
		} `maxminddb:"country"`
		City struct {
			Names struct {
				EN string `maxminddb:"en"`
			} `maxminddb:"names"`
		} `maxminddb:"city"`
		Traits struct { // GeoIP2 Enterprise
			ASN uint32 `maxminddb:"autonomous_system_number"`
			AS  string `maxminddb:"autonomous_system_organization"`
		} `maxminddb:"traits"`
	}
	flat struct {
		common
		Country string `maxminddb:"country"` // a code, or the country's name where country_code is there
		City    string `maxminddb:"city"`
	}
	common struct {
		CountryCode string `maxminddb:"country_code"`
		ASN         uint32 `maxminddb:"autonomous_system_number"`
		AS          string `maxminddb:"autonomous_system_organization"`
		ASText      any    `maxminddb:"asn"` // "AS15169", or 15169
		ASName      string `maxminddb:"as_name"`
	}
)

func (s *source) decode(r maxminddb.Result) (Place, error) {
	var c common
	var country, city string
	if s.flat {
		var v flat
		if err := r.Decode(&v); err != nil {
			return Place{}, err
		}
		c, country, city = v.common, v.Country, v.City
	} else {
		var v nested
		if err := r.Decode(&v); err != nil {
			return Place{}, err
		}
		c, country, city = v.common, v.Country.ISO, v.City.Names.EN
		if c.ASN == 0 {
			c.ASN, c.AS = v.Traits.ASN, v.Traits.AS
		}
	}
	if c.CountryCode != "" {
		country = c.CountryCode
	}
	if c.ASN == 0 {
		c.ASN, c.AS = asNumber(c.ASText), c.ASName
	}
	p := Place{Country: countryCode(country), City: clean(city, maxText), ASN: c.ASN}
	if p.ASN != 0 {
		p.AS = clean(c.AS, maxText)
	}
	return p, nil
}

// asNumber reads "AS15169", "15169" or 15169; 0 when it is none.
func asNumber(v any) uint32 {
	switch v := v.(type) {
	case string:
		if len(v) > 2 && strings.EqualFold(v[:2], "AS") {
			v = v[2:]
		}
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			return 0
		}
		return uint32(n)
	case uint64:
		if v <= 1<<32-1 {
			return uint32(v)
		}
	}
	return 0
}

// countryCode returns the two letters in upper case; "" for anything else.
func countryCode(s string) string {
	if len(s) != 2 {
		return ""
	}
	s = strings.ToUpper(s)
	if s[0] < 'A' || s[0] > 'Z' || s[1] < 'A' || s[1] > 'Z' {
		return ""
	}
	return s
}

// clean makes a text of a database fit for terminals and logs: printable, on
// one line, of at most limit bytes.
func clean(s string, limit int) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s))
	for cut := limit; len(s) > limit; cut-- {
		if utf8.RuneStart(s[cut]) {
			s = s[:cut]
		}
	}
	return s
}

func (s *source) describe() Source {
	m := &s.db.Metadata
	out := Source{
		Path: s.path, Type: clean(m.DatabaseType, maxText), What: s.gives.String(), Networks: s.networks, Credit: credit(m.DatabaseType), Failed: s.failed.Load(),
	}
	const year9999 = 253402300799 // what time formats can write
	if m.BuildEpoch <= year9999 {
		out.Built = int64(m.BuildEpoch)
	}
	return out
}

// credit returns what the licence of a database of that type asks to be shown.
func credit(databaseType string) string {
	t := strings.ToLower(databaseType)
	switch {
	case strings.HasPrefix(t, "dbip"):
		return dbipCredit
	case strings.HasPrefix(t, "geolite"):
		return "GeoLite data created by MaxMind, https://www.maxmind.com"
	case strings.HasPrefix(t, "ipinfo"):
		return "IP address data by IPinfo, https://ipinfo.io"
	}
	return ""
}
