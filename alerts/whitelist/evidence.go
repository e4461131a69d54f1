package whitelist

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
)

// Evidence returns the rule that drops e, the one of the lowest line if there
// are several, and whether there is one. It is called when the entities are
// complete (Entity.Known), and changes nothing: count what is dropped with
// Tally.Evidence.
func (l *List) Evidence(e *evidence.Evidence) (Rule, bool) {
	if l == nil || l.alerts == nil {
		return Rule{}, false
	}
	var h hits
	l.gatherEvidence(l.alerts, &h, e, true)
	if r := l.alerts.first(&h, e.Time, nil); r != nil {
		return l.entries[r.entry].rule, true
	}
	return Rule{}, false
}

// gatherEvidence adds what holds of e. Unless it is strict, it disregards what
// the package says an entry cannot do; Explain tells by the difference.
func (l *List) gatherEvidence(x *index, h *hits, e *evidence.Evidence, strict bool) {
	broad := !strict || !named(e)
	proto := portProto(strings.ToLower(e.Proto))
	x.gatherPort(h, src, proto, e.SrcPort)
	x.gatherPort(h, dst, proto, e.DstPort)
	x.gatherWord(h, Evidence, string(e.Type))
	x.gatherWord(h, Module, e.Module)
	if len(x.words) > 0 {
		for w := range strings.FieldsSeq(strings.ToLower(e.Subject)) {
			if isMD5(w) {
				x.gatherWord(h, JA3, w)
			}
		}
	}
	for _, en := range []*evidence.Entity{&e.Attacker, &e.Victim} {
		side := uint8(en.Direction & 1)
		if en.Kind != evidence.None {
			x.gatherPort(h, side, proto, en.Port)
		}
		switch en.Kind {
		case evidence.IP:
			if a, err := netip.ParseAddr(en.Value); err == nil {
				l.gatherHost(x, h, side, a.WithZone("").Unmap(), en.Known, e.Profile, broad, strict)
			}
		case evidence.Domain:
			x.gatherName(h, side, en.Value, broad)
		case evidence.URL:
			host := urlHost(en.Value)
			if a, err := netip.ParseAddr(host); err == nil {
				x.gatherAddr(h, side, a.WithZone("").Unmap(), broad)
			} else {
				x.gatherName(h, side, host, broad)
			}
		case evidence.Hash:
			x.gatherWord(h, JA3, strings.ToLower(en.Value))
		case evidence.None:
		}
	}
}

// gatherHost adds what holds of an address.
func (l *List) gatherHost(x *index, h *hits, side uint8, a netip.Addr, k *evidence.Known, profile netip.Addr, broad, strict bool) {
	own := strict && a == profile.Unmap() && l.isOwn(a, k)
	x.gatherAddr(h, side, a, broad && !own)
	if k == nil {
		return
	}
	x.gatherMAC(h, side, k.MAC)
	if own {
		return
	}
	if broad {
		x.gatherASN(h, side, k.ASN)
	}
	if strict && (len(k.Feeds) > 0 || k.More || !x.allListed(k.Names)) { // of those that are not kept nobody knows
		return
	}
	for _, n := range k.Names {
		if told(n) {
			x.gatherName(h, side, n.Name, broad)
		}
	}
}

// told reports whether a name is what clients called the address, and not what
// its owner says of it: a host can claim any name in reverse DNS and DHCP.
func told(n evidence.Name) bool { return n.From != "ptr" && n.From != "dhcp" }

// allListed reports whether no name of an address is one that nobody listed.
func (x *index) allListed(names []evidence.Name) bool {
	return !slices.ContainsFunc(names, func(n evidence.Name) bool { return told(n) && x.domain(n.Name) < 0 })
}

// isOwn reports whether a is a host of the own network. The engine knows the
// MAC of no others.
func (l *List) isOwn(a netip.Addr, k *evidence.Known) bool {
	return a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsLoopback() || k != nil && k.MAC != "" ||
		slices.ContainsFunc(l.home, func(p netip.Prefix) bool { return p.Contains(a) })
}

// named reports whether a feed names what e is about.
func named(e *evidence.Evidence) bool {
	feeds := func(en *evidence.Entity) bool { return en.Known != nil && len(en.Known.Feeds) > 0 }
	return ofFeed(e.Type) || feeds(&e.Attacker) || feeds(&e.Victim)
}

// ofFeed reports whether evidence of the type says that a feed names something
// (reference 2: types 34, 35, 39, 47, 56 to 63 and 65).
func ofFeed(t evidence.Type) bool {
	return t == "TOR_EXIT_NODE" || strings.HasPrefix(string(t), "THREAT_INTELLIGENCE_") || exact(t)
}

// exact reports whether evidence of the type rests on a match of one thing, a
// fingerprint, a file or a page, that says nothing about the rest of its host.
func exact(t evidence.Type) bool {
	switch t {
	case "MALICIOUS_JA3", "MALICIOUS_JA3S", "MALICIOUS_JA4", "MALICIOUS_JARM", "MALICIOUS_SSL_CERT", "MALICIOUS_DOWNLOADED_FILE",
		"THREAT_INTELLIGENCE_MALICIOUS_URL":
		return true
	}
	return false
}

// urlHost returns the host of a URL, with or without its scheme.
func urlHost(s string) string {
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// PopularWeight is what Weigh returns for evidence about a popular domain. It
// halves: what many visit is less often bad, and C2 over a big cloud or a paste
// site must still show.
const PopularWeight = 0.5

// Weigh returns the factor by which the engine multiplies the confidence of e:
// PopularWeight when the only peer that has a name is a popular domain, 1
// otherwise. A rank is a hint and no whitelist: it drops nothing, and counts
// nothing against a feed or an exact match of a fingerprint, a file or a page.
func Weigh(e *evidence.Evidence) float64 {
	if named(e) {
		return 1
	}
	peers, popular := 0, 0
	for _, en := range []*evidence.Entity{&e.Attacker, &e.Victim} {
		switch en.Kind {
		case evidence.IP:
			a, err := netip.ParseAddr(en.Value)
			if err != nil || a.Unmap() == e.Profile.Unmap() || en.Known == nil || !slices.ContainsFunc(en.Known.Names, told) {
				continue // the profile, or a peer without a name
			}
		case evidence.Domain, evidence.URL:
		case evidence.None, evidence.Hash:
			continue
		}
		peers++
		if en.Known != nil && en.Known.Rank > 0 {
			popular++
		}
	}
	if peers == 1 && popular == 1 {
		return PopularWeight
	}
	return 1
}
