package threatintel

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/profiler/profile"
)

const (
	// opinion is how far one provider's word is trusted. Lists of a million
	// entries name benign hosts every day.
	opinion = 0.6
	// A feed is fresh for a week. From then on what it says is worth half as
	// much every month, because addresses and names change hands; the floor is
	// for lists that are right and no longer kept.
	fresh    = 7 * 24 * time.Hour
	halfLife = 30 * 24 * time.Hour
	stale    = 0.25
	// What the indicators around the thing itself leave of an opinion: a parent
	// of a name (reference 3.6.5), a range with an address, a URL without its query.
	ofParent = 0.7
	ofRange  = 0.6
	ofPath   = 0.8
	// sighting is what it adds that a host resolved a name and then connected to
	// it: a name that was looked up by a mail filter or an analyst is not
	// connected to.
	sighting = 0.3
	// maxSaid bounds the feeds that a description tells about.
	maxSaid = 5
)

// Words in the tags of feeds and of their entries. Tags are compared in lower
// case, with "_" and blanks as "-".
const (
	torTag = "tor-exit"
	// scanTags are of lists of those who come from outside: scanners, guessers of
	// passwords, senders of spam, and what honeypots see.
	scanTags = " honeypot honeypots scanner scanners scan scans scanning portscan port-scan bruteforce brute-force bruteforcer ssh-bruteforce ssh login " +
		"attack attacks attacker attackers abuse spam mail hacked compromised webattack ddos dshield crawler bot-crawler "
	// harmTags are of lists of what infected hosts connect to.
	harmTags = " c2 c&c cc cnc c2-server botnet-cc botnet malware malware-download malicious phishing apt spyware stalkerware ransomware trojan rat stealer loader exploit " +
		"cobaltstrike cobalt-strike cryptominer mining sinkhole "
)

// verdict is what the feeds say of a match.
type verdict struct {
	level evidence.Level
	trust float64 // 0: nothing that counts
	part  float64 // of it that is left, because what is listed lies around the thing itself
	lone  string  // the provider, when one alone has it
	said  string
	tor   string // likewise, of the lists of exit nodes of Tor; "" when there is none
	good  bool   // a list of known good things has it
}

// weigh adds up what the feeds say. It allocates, so it is for what was found
// for the first time.
func weigh(v *intel.View, x found) (w verdict) {
	built := v.Snapshot().Built
	all := make([]entry, 0, 4)
	var exits, good []entry
	for i := range x.m.Len() {
		e := entry{Listing: x.m.At(i), of: x.m.IndicatorAt(i)}
		switch {
		case e.Expires != 0 && e.Expires < built:
		case x.m.Private() && public(e.of): // it says nothing about this address
		case e.Harmless:
			good = append(good, e)
		case e.tagged(" " + torTag + " "):
			exits = append(exits, e)
		default:
			all = append(all, e)
			w.level = max(w.level, min(evidence.Level(e.Level), evidence.Critical))
		}
	}
	if len(exits) > 0 {
		w.tor = said(exits)
	}
	if w.good = len(good) > 0; w.good && hashes(x.m.Kind()) {
		return verdict{good: true}
	}
	if w.level > evidence.Info {
		// Who says that it shows advertisements does not say that it is bad.
		all = slices.DeleteFunc(all, func(e entry) bool { return e.Level == intel.Level(evidence.Info) })
	}
	if len(all) == 0 {
		return w
	}
	exact := x.exact() && all[0].of == x.m.Indicator() // and not by those that do not count
	scanners := true
	var who []string
	var trusted []float64 // by provider
	for i := range all {
		e := &all[i]
		p := opinion
		if !hashes(x.m.Kind()) { // what is bad by its content stays so
			p *= freshness(built - e.Feed.Updated)
		}
		if exact && e.of != all[0].of {
			p *= around(x.m.Kind())
		}
		provider := e.Feed.Provider
		if provider == "" {
			provider = e.Feed.Name
		}
		if n := slices.Index(who, provider); n >= 0 {
			trusted[n] = max(trusted[n], p)
		} else {
			who, trusted = append(who, provider), append(trusted, p)
		}
		scanners = scanners && e.tagged(scanTags) && !e.tagged(harmTags)
	}
	doubt := 1.0
	for _, p := range trusted {
		doubt *= 1 - p
	}
	w.trust, w.part, w.said = 1-doubt, 1, said(all)
	if len(who) == 1 {
		w.lone = modules.Clip(who[0], maxText)
	}
	if !exact {
		w.part = around(x.m.Kind())
	}
	switch x.what {
	case toAddress, addrAnswer:
		// A server that knocks at doors may be rented by the hour, or share its
		// address with a thousand web sites.
		if scanners {
			w.level = lower(w.level)
		}
	case domain, answerOf, aliasAnswer, mail:
		// A name that many visit was listed for one user of it, or by mistake.
		if isPopular(v, x.m.Indicator()) {
			w.level = lower(w.level)
		}
	default:
	}
	if w.good {
		w.level = min(w.level, evidence.Low)
		w.said += ", and also on a list of harmless things (" + names(good) + ")"
	}
	return w
}

// public reports whether a range begins on the public Internet.
func public(of string) bool {
	p, err := netip.ParsePrefix(of)
	return err == nil && profile.IsPublic(p.Addr())
}

// names lists the feeds of entries, each once.
func names(all []entry) string {
	var out []string
	for i := range all {
		if n := modules.Clip(all[i].Feed.Name, maxText); !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	if n := len(out); n > maxSaid {
		out = append(out[:maxSaid], fmt.Sprintf("%d more", n-maxSaid))
	}
	return strings.Join(out, ", ")
}

// entry is a listing and the indicator that it is of.
type entry struct {
	intel.Listing
	of string
}

// tagged reports whether a tag of the entry or its feed is among words, which
// have a blank before and behind each.
func (e *entry) tagged(words string) bool {
	has := func(tag string) bool {
		tag = strings.NewReplacer("_", "-", " ", "-").Replace(strings.ToLower(tag))
		return tag != "" && strings.Contains(words, " "+tag+" ")
	}
	return slices.ContainsFunc(e.Tags, has) || slices.ContainsFunc(e.Feed.Tags, has)
}

// exact reports whether the thing itself is listed. www in front of a name is
// the name.
func (x *found) exact() bool {
	return x.m.Exact() || len(x.name) > 4 && strings.EqualFold(x.name[:4], "www.") && strings.EqualFold(x.name[4:], x.m.Indicator())
}

// around is what an indicator of a kind leaves that is not the thing itself.
func around(k intel.Kind) float64 {
	switch k {
	case intel.Address, intel.Range:
		return ofRange
	case intel.URL:
		return ofPath
	default: // Domain; the others are exact
		return ofParent
	}
}

// hashes reports whether a kind names something by its content.
func hashes(k intel.Kind) bool {
	switch k {
	case intel.MD5, intel.SHA1, intel.SHA256, intel.CertSHA1, intel.JA3, intel.JA3S, intel.JA4:
		return true
	default:
		return false
	}
}

// freshness is what the age of a feed, in seconds when the snapshot was built,
// leaves of its opinion.
func freshness(age int64) float64 {
	months := float64(age-int64(fresh/time.Second)) / halfLife.Seconds()
	return max(stale, math.Exp2(-max(0, months)))
}

func lower(l evidence.Level) evidence.Level {
	if l == evidence.Info {
		return l
	}
	return l - 1
}

// said puts into words which feeds list something and what they say about it.
func said(all []entry) string {
	var parts []string
	for i := range all {
		e := &all[i]
		if i == maxSaid {
			parts = append(parts, fmt.Sprintf("%d more", len(all)-maxSaid))
			break
		}
		var about []string
		if e.of != all[0].of {
			about = append(about, "as "+modules.Clip(e.of, maxText))
		}
		if e.Description != "" {
			about = append(about, fmt.Sprintf("%q", modules.Clip(e.Description, maxText)))
		}
		tags := slices.Concat(e.Feed.Tags, e.Tags)
		slices.Sort(tags)
		if tags = slices.Compact(tags); len(tags) > 0 {
			about = append(about, "tags "+modules.Clip(strings.Join(tags, " "), maxText))
		}
		if e.Since > 0 {
			about = append(about, "since "+time.Unix(e.Since, 0).UTC().Format(time.DateOnly))
		}
		name := modules.Clip(e.Feed.Name, maxText)
		if len(about) > 0 {
			name += " (" + strings.Join(about, ", ") + ")"
		}
		parts = append(parts, name)
	}
	return modules.Clip(all[0].of, 2*maxText) + " is listed by " + strings.Join(parts, ", ")
}

// peer writes the other end of an event: with its port, where it has one.
func (e *Event) peer() string {
	if !e.Peer.IsValid() {
		return "a server"
	}
	return modules.Where(e.Peer, e.Port)
}

// ip returns an entity for an address, none when it is not known.
func ip(a netip.Addr, d evidence.Direction, port uint16) evidence.Entity {
	if !a.IsValid() {
		return evidence.Entity{}
	}
	return evidence.IPEntity(a, d, port)
}
