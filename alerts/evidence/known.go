package evidence

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Known is what is known about an address or a name, for those who read the
// evidence. It is shared and must not be changed.
type Known struct {
	Country, City       string // ISO 3166-1 alpha-2, and the name in English
	ASN                 uint32 // 0 when not known
	AS                  string // who runs it
	Names               []Name // the first seen first
	More                bool   // there are names that are not kept
	MAC, Vendor         string // of hosts of the own network
	Feeds               []string
	Rank                int   // of its name in the list of popular domains; 0: not in it
	FirstSeen, LastSeen int64 // unix ns, stream time; 0 when not known
}

// Name is a name of an address.
type Name struct {
	Name string
	From string // what it was seen in: "dns", "sni", "http", "ptr", "dhcp"
}

// Text says it to people in one line, for a terminal or a log:
// "CZ, AS2852 CESNET, named www.example.org, listed by feodo". It is empty when
// nothing is known but when it was seen. Names come from the network: they may
// hold anything.
func (k *Known) Text() string {
	if k == nil {
		return ""
	}
	var parts []string
	switch {
	case k.City != "" && k.Country != "":
		parts = append(parts, k.City+" "+k.Country)
	case k.Country != "":
		parts = append(parts, k.Country)
	}
	if k.ASN != 0 {
		parts = append(parts, strings.TrimRight("AS"+strconv.FormatUint(uint64(k.ASN), 10)+" "+k.AS, " "))
	}
	var names []string
	for _, n := range k.Names {
		names = append(names, n.Name)
	}
	if len(names) > 0 {
		parts = append(parts, "named "+strings.Join(names, " "))
	}
	if k.MAC != "" {
		parts = append(parts, strings.TrimRight("MAC "+k.MAC+" "+k.Vendor, " "))
	}
	if len(k.Feeds) > 0 {
		parts = append(parts, "listed by "+strings.Join(k.Feeds, " "))
	}
	if k.Rank > 0 {
		parts = append(parts, "popular #"+strconv.Itoa(k.Rank))
	}
	if len(parts) > 0 && k.FirstSeen != 0 {
		parts = append(parts, "first seen "+time.Unix(0, k.FirstSeen).UTC().Format(time.DateTime))
	}
	return strings.Join(parts, ", ")
}

// Peer returns the side of e that is not the profile; Kind None when there is
// none. An evidence may name the profile on either side.
func (e *Evidence) Peer() Entity {
	for _, x := range [...]Entity{e.Victim, e.Attacker} {
		if x.Kind == None {
			continue
		}
		if a, err := netip.ParseAddr(x.Value); x.Kind != IP || err != nil || a.Unmap() != e.Profile.Unmap() {
			return x
		}
	}
	return Entity{}
}

// Self returns what is known about the profile of e; nil for nothing.
func (e *Evidence) Self() *Known {
	for _, x := range [...]Entity{e.Attacker, e.Victim} {
		if a, err := netip.ParseAddr(x.Value); x.Kind == IP && err == nil && a.Unmap() == e.Profile.Unmap() {
			return x.Known
		}
	}
	return nil
}
