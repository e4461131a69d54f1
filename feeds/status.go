package feeds

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/slips-go/slips/feeds/format"
	"github.com/slips-go/slips/feeds/intel"
)

// Status is a feed or a local list as it is configured and as it stands.
type Status struct {
	Source
	Meta  Meta // its Name is that of the files; zero but for it when there is no content yet
	Local bool
	Age   time.Duration // since the content was published or last changed; 0: there is none
	// Damaged says why what is stored cannot be used, so that the view is
	// without it.
	Damaged string
}

// State says in words how the feed stands, the worst first.
func (s *Status) State() string {
	switch {
	case s.Damaged != "":
		return "damaged, left out of the index: " + s.Damaged
	case s.Meta.Error != "":
		return "last check failed: " + s.Meta.Error
	case s.Meta.Refused != "":
		return "newest version refused: " + s.Meta.Refused
	case s.Meta.Faults != "":
		return "in use, with faults: " + s.Meta.Faults
	case !s.Enabled:
		return "disabled"
	case !s.Local && s.Meta.Content == "":
		return "not fetched yet"
	}
	return "in use"
}

// Status returns all feeds, enabled or not, and the local lists as they were
// last read, in the order of their names. The error joins what could not be
// read; those feeds are there without what is known about them.
func (m *Manager) Status() ([]Status, error) {
	var out []Status
	var problems []error
	m.mu.Lock()
	local, missing := slices.Clone(m.shown), m.missing
	m.mu.Unlock()
	add := func(s Source, meta Meta, err error) {
		st := Status{Source: s, Meta: meta, Local: s.local, Damaged: missing[s.Name]}
		if err != nil {
			st.Damaged = err.Error()
			problems = append(problems, err)
		}
		if meta.Updated != 0 {
			st.Age = max(m.now().Sub(time.Unix(meta.Updated, 0)), 0)
		}
		out = append(out, st)
	}
	for _, s := range m.sources {
		meta, err := m.store.meta(s.Name)
		add(s, meta, err)
	}
	for _, e := range local {
		add(*e.src, e.meta, nil)
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return out, errors.Join(problems...)
}

// Answer is what is known about one indicator.
type Answer struct {
	Query string
	Kind  intel.Kind // what it was taken for
	Value string     // its canonical form
	Hits  []Hit      // those on the thing itself first
	Rank  int        // of the domain among those that many visit; 0: not among them
	ASN   uint32     // of the address; 0: not known
	AS    string
}

// Hit is one indicator that matches.
type Hit struct {
	Kind      intel.Kind // what was looked up; of a URL also its host
	Value     string
	Indicator string // what matched, such as the range or the parent
	Exact     bool
	Listings  []intel.Listing
}

// maxHits bounds an answer: a broad range can hold a whole list.
const maxHits = 1000

// Lookup tells what v knows about an indicator as a person types it. 32 and 40
// hexadecimal digits are looked up as all that they can be, a URL also by its
// host, an address also by its autonomous system where that is known. Of a
// range it returns the indicators that overlap it.
func Lookup(v *intel.View, query string) (Answer, error) {
	a := Answer{Query: query}
	var err error
	if a.Kind, a.Value, err = format.Detect(query); err != nil {
		return a, fmt.Errorf("looking up: %w", err)
	}
	switch a.Kind {
	case intel.Address:
		addr, err := netip.ParseAddr(a.Value)
		if err != nil {
			return a, fmt.Errorf("looking up: %w", err)
		}
		a.address(v, addr)
	case intel.Range:
		p, err := netip.ParsePrefix(a.Value)
		if err != nil {
			return a, fmt.Errorf("looking up: %w", err)
		}
		a.network(v, p)
	case intel.Domain, intel.Popular:
		a.domain(v, a.Value)
	case intel.URL:
		host, path, _ := strings.Cut(a.Value, "/")
		a.hit(intel.URL, a.Value, v.URL(host, 0, "/"+path))
		a.host(v, host)
	case intel.ASN:
		var n uint32
		if _, err := fmt.Sscan(a.Value, &n); err != nil {
			return a, fmt.Errorf("looking up %q: %w", a.Value, err)
		}
		a.ASN = n
		a.hit(intel.ASN, a.Value, v.ASN(n))
	default:
		for _, k := range format.Alike(a.Kind) {
			a.hit(k, a.Value, v.Text(k, a.Value))
		}
	}
	slices.SortStableFunc(a.Hits, func(x, y Hit) int {
		if x.Exact == y.Exact {
			return 0
		}
		if x.Exact {
			return -1
		}
		return 1
	})
	return a, nil
}

func (a *Answer) hit(k intel.Kind, value string, m intel.Match) {
	if !m.OK() || len(a.Hits) >= maxHits {
		return
	}
	h := Hit{Kind: k, Value: value, Indicator: m.Indicator(), Exact: m.Exact()}
	for i := range m.Len() {
		h.Listings = append(h.Listings, m.At(i))
	}
	a.Hits = append(a.Hits, h)
}

func (a *Answer) address(v *intel.View, addr netip.Addr) {
	a.hit(intel.Address, addr.String(), v.Address(addr))
	if a.ASN, a.AS = v.AS(addr); a.ASN != 0 {
		a.hit(intel.ASN, fmt.Sprint(a.ASN), v.ASN(a.ASN))
	}
}

func (a *Answer) domain(v *intel.View, name string) {
	a.hit(intel.Domain, name, v.Domain(name))
	a.Rank = v.Rank(name)
}

// host looks up the host of a URL, which may carry a port.
func (a *Answer) host(v *intel.View, host string) {
	if ap, err := netip.ParseAddrPort(host); err == nil {
		a.address(v, ap.Addr())
		return
	}
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		a.address(v, addr)
		return
	}
	name, _, _ := strings.Cut(host, ":")
	a.domain(v, name)
}

// network finds the addresses and ranges that overlap p.
func (a *Answer) network(v *intel.View, p netip.Prefix) {
	hits := make(map[string]intel.Match)
	v.Each(func(k intel.Kind, text string, m intel.Match) bool {
		if k != intel.Address && k != intel.Range {
			return true
		}
		o, err := netip.ParsePrefix(text)
		if err != nil {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return true
			}
			o = netip.PrefixFrom(addr, addr.BitLen())
		}
		if o.Overlaps(p) {
			hits[text] = m
		}
		return len(hits) < maxHits
	})
	for _, text := range slices.Sorted(maps.Keys(hits)) {
		a.hit(intel.Range, p.String(), hits[text])
		if n := len(a.Hits); n > 0 {
			a.Hits[n-1].Indicator, a.Hits[n-1].Exact = text, text == p.String()
		}
	}
}
