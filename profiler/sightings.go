package profiler

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/slips-go/slips/parsers/flow"
)

// Sighting says that an address was seen to have a name or, without one, that
// a host was heard of for the first time.
type Sighting struct {
	IP   netip.Addr
	Name string // lower case, without a dot at its end
	From string // what it was seen in: "dns", "sni", "http", "ptr"
}

// sightings finds the names of addresses in records and passes each on once,
// or again when another took its place in the table: who takes them must not
// mind. The sequencer's goroutine owns it.
type sightings struct {
	told [toldSize]uint32 // hashes of what was passed on, by their low bits
}

// toldSize is the number of places in the table: 256 KB, which is more names
// than most networks see in an hour.
const toldSize = 1 << 16

func newSightings() *sightings { return new(sightings) }

// observe passes on the names in f that are news.
func (s *sightings) observe(f *flow.Flow, tell func(*flow.Flow, News)) {
	switch f.Kind {
	case flow.DNS:
		d := f.DNS
		if d.Query == "" || len(d.Answers) == 0 {
			return
		}
		if strings.Contains(d.Query, "._") || d.Query[0] == '_' {
			return // a service, which mDNS announces with the addresses of its hosts
		}
		if d.QType == "PTR" {
			if a, ok := reverse(d.Query); ok && !isAddress(d.Answers[0]) {
				s.tell(f, tell, a, d.Answers[0], "ptr")
			}
			return
		}
		if strings.HasSuffix(d.Query, ".arpa") {
			return
		}
		q := flow.HashLower(flow.HashSeed, d.Query)
		for _, text := range d.Answers {
			if !isAddress(text) || s.known(flow.Hash(q, text)) {
				continue
			}
			a, err := netip.ParseAddr(text)
			// An answer of 0.0.0.0 or ::1 says that the name is blocked.
			if err == nil && !a.IsUnspecified() && !a.IsLoopback() {
				s.pass(f, tell, a.Unmap(), d.Query, "dns")
			}
		}
	case flow.SSL, flow.QUIC:
		s.tell(f, tell, f.Dst, f.SSL.ServerName, "sni")
	case flow.HTTP:
		// A request in full form goes to a proxy, which is not the host it names.
		if h := f.HTTP; !strings.Contains(h.URI, "://") {
			name := h.Host
			if i := strings.LastIndexByte(name, ':'); i > 0 {
				name = name[:i]
			}
			s.tell(f, tell, f.Dst, name, "http")
		}
	default: // the others name nobody
	}
}

// tell passes on that a is called name, unless that was done.
func (s *sightings) tell(f *flow.Flow, tell func(*flow.Flow, News), a netip.Addr, name, from string) {
	if name == "" || !a.IsValid() || isAddress(name) || s.known(flow.HashMix(flow.HashLower(flow.HashSeed, name), flow.HashAddr(a))) {
		return
	}
	s.pass(f, tell, a, name, from)
}

func (s *sightings) pass(f *flow.Flow, tell func(*flow.Flow, News), a netip.Addr, name, from string) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	tell(f, News{Sighting: &Sighting{IP: a, Name: strings.Clone(name), From: from}})
}

// known reports whether h is in the table, and puts it there.
func (s *sightings) known(h uint64) bool {
	h ^= h >> 29 // FNV's low bits alone tell similar texts apart badly
	p, v := &s.told[h%toldSize], uint32(h>>32)|1
	if *p == v {
		return true
	}
	*p = v
	return false
}

// isAddress reports whether text looks like an address rather than a name: no
// name in use ends with a digit, and no other name has a colon.
func isAddress(text string) bool {
	if text == "" {
		return false
	}
	c := text[len(text)-1]
	return '0' <= c && c <= '9' || strings.IndexByte(text, ':') >= 0
}

// reverse returns the address that a name below in-addr.arpa or ip6.arpa
// stands for.
func reverse(name string) (netip.Addr, bool) {
	name = strings.TrimSuffix(name, ".")
	const v4, v6 = ".in-addr.arpa", ".ip6.arpa"
	cut := func(suffix string) (string, bool) {
		n := len(name) - len(suffix)
		if n <= 0 || !strings.EqualFold(name[n:], suffix) {
			return "", false
		}
		return name[:n], true
	}
	if rest, ok := cut(v4); ok {
		var b [4]byte
		for i := 3; i >= 0; i-- {
			label, more, _ := strings.Cut(rest, ".")
			v, err := strconv.ParseUint(label, 10, 8)
			if err != nil {
				return netip.Addr{}, false
			}
			b[i], rest = byte(v), more
		}
		return netip.AddrFrom4(b), rest == ""
	}
	if rest, ok := cut(v6); ok && len(rest) == 63 {
		var b [16]byte
		for i := range 32 {
			v, err := strconv.ParseUint(rest[2*i:2*i+1], 16, 4)
			if err != nil || i < 31 && rest[2*i+1] != '.' {
				return netip.Addr{}, false
			}
			b[15-i/2] |= byte(v) << (4 * (i % 2))
		}
		return netip.AddrFrom16(b), true
	}
	return netip.Addr{}, false
}
