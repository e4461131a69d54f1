package certname

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
)

const (
	// maxRivals bounds the mismatches that wait for the owners of both domains.
	// Few are reported, and an answer takes seconds.
	maxRivals = 128
	// maxOwners bounds the registrants remembered. Registries name few.
	maxOwners = 4096
)

// Rival is a reported mismatch between two registered domains.
type Rival struct {
	Src, Dst  netip.Addr
	Port      uint16
	Proto     flow.Proto
	Time      int64
	UID       string
	Asked     string // the name that was asked for
	Shown     string // the one in the certificate
	Of, Other uint64 // hashes of their domains
	Medium    bool   // nobody vouches for the certificate, or the name is of a big organisation
}

// names reports whether an answer says who registered a domain.
func names(l *flow.LookupPart) bool {
	return l.Of == intel.Domain.String() && (l.Service == "rdap" || l.Service == "whois") && owner(l.Registrant) != ""
}

// compare asks who the domains of a mismatch belong to, and reports it again
// when they are known to belong to different ones.
func (st *State) compare(cx *modules.Context, h *Handshake, c *Cert) {
	shown := strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(c.Name, "*."), "."))
	if !asks(shown) || intel.CheckName(shown) != nil {
		return // the name of a box
	}
	a, b := registered(h.SNI), registered(shown)
	if a == b {
		return
	}
	v := Rival{
		Src: h.Src, Dst: h.Dst, Port: h.Port, Proto: h.Proto, Time: h.Time, UID: h.UID, Asked: strings.ToLower(h.SNI), Shown: c.Name,
		Of: flow.Hash(flow.HashSeed, a), Other: flow.Hash(flow.HashSeed, b), Medium: !c.Trusted,
	}
	if spoofed := brandOf(h.SNI); spoofed != 0 && spoofed != c.Brand {
		v.Medium = true
	}
	if st.settle(cx, &v) {
		return
	}
	for _, d := range [...]string{a, b} {
		k := flow.Hash(flow.HashSeed, d)
		if _, known := st.Owners.Get(k); !known && !st.asked(h.Src, k) {
			cx.Ask(modules.Question{
				Why: modules.NewDomain, Of: intel.Domain, Subject: strings.Clone(d), Src: h.Src, Dst: h.Dst, DstPort: h.Port, UID: strings.Clone(h.UID),
			})
		}
	}
	if len(st.Rivals) >= maxRivals {
		st.Rivals = append(st.Rivals[:0], st.Rivals[1:]...)
	}
	st.Rivals = append(st.Rivals, v)
}

// asked reports whether a host waits for the owner of a domain already.
func (st *State) asked(host netip.Addr, domain uint64) bool {
	return slices.ContainsFunc(st.Rivals, func(v Rival) bool { return v.Src == host && (v.Of == domain || v.Other == domain) })
}

// owned takes the answer to who a domain belongs to. The first one counts.
func (st *State) owned(cx *modules.Context, l *flow.LookupPart) {
	k := flow.Hash(flow.HashSeed, registered(l.Subject))
	if _, known := st.Owners.Get(k); known {
		return
	}
	st.Owners.Put(k, strings.Clone(modules.Clip(owner(l.Registrant), maxText)), maxOwners)
	n := 0
	for i := range st.Rivals {
		if !st.settle(cx, &st.Rivals[i]) {
			st.Rivals[n] = st.Rivals[i]
			n++
		}
	}
	clear(st.Rivals[n:])
	st.Rivals = st.Rivals[:n]
}

// settle reports whether the owners of both domains are known, and tells when
// they differ. A platform shows its own certificate for its customers' names,
// and they differ too: where a known authority signed it they prove little.
func (st *State) settle(cx *modules.Context, v *Rival) bool {
	a, ok := st.Owners.Get(v.Of)
	b, ok2 := st.Owners.Get(v.Other)
	if !ok || !ok2 {
		return false
	}
	if sameOwner(a, b) {
		return true
	}
	e := evidence.Evidence{
		Type: Mismatch, Profile: v.Src, Time: v.Time, Level: evidence.Low, Confidence: 0.5,
		Attacker: evidence.IPEntity(v.Src, evidence.Src, 0), Victim: evidence.IPEntity(v.Dst, evidence.Dst, v.Port),
		Description: fmt.Sprintf("%s asked %s for %q, a name of %q, and was shown a certificate for %q, a name of %q.",
			v.Src, modules.Where(v.Dst, v.Port), modules.Clip(v.Asked, maxText), a, v.Shown, b),
		Proto: v.Proto.String(), DstPort: v.Port, Count: 1, UIDs: modules.UID(v.UID), Subject: subject(v.Asked, v.Dst, v.Port), Step: 2,
	}
	if v.Medium {
		e.Level = evidence.Medium
	}
	cx.Emit(e)
	return true
}

// hidden are the words by which registries and registrars say that they do not
// tell the registrant, in lower case.
var hidden = [...]string{
	"redacted", "privacy", "private", "proxy", "withheld", "not disclosed", "undisclosed", "data protected", "protected", "protection", "whoisguard", "whois",
	"gdpr", "masked", "anonym", "not available", "unknown",
}

// owner returns a registrant; empty when it is not one but a word in its place.
func owner(registrant string) string {
	s := strings.TrimSpace(registrant)
	l := strings.ToLower(s)
	for _, h := range hidden {
		if strings.Contains(l, h) {
			return ""
		}
	}
	if len(words(l)) == 0 {
		return "" // "-", "N/A"
	}
	return s
}

// forms are words that many registrants have in their names.
var forms = [...]string{
	"llc", "corp", "corporation", "inc", "incorporated", "ltd", "limited", "org", "organization", "co", "company", "gmbh", "ag", "sa", "srl", "bv", "plc",
	"pty", "oy", "ab", "as", "the", "of", "and", "for", "de", "domain", "domains", "admin", "administrator", "hostmaster", "technology", "technologies",
	"services", "service", "group", "holding", "holdings", "international", "na",
}

// words returns the words of a name in lower case that tell it from others.
func words(name string) []string {
	all := strings.FieldsFunc(strings.ToLower(name), func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) })
	n := 0
	for _, w := range all {
		if len(w) > 1 && !slices.Contains(forms[:], w) {
			all[n] = w
			n++
		}
	}
	return all[:n]
}

// sameOwner reports whether two registrants may be one: equal, or with a word
// in common that is not just a form of company.
func sameOwner(a, b string) bool {
	if strings.EqualFold(a, b) {
		return true
	}
	ours := words(a)
	return slices.ContainsFunc(words(b), func(w string) bool { return slices.Contains(ours, w) })
}
