// Package intel is what is known to be bad: indicators as feeds publish them,
// and View, the snapshot of all of them that the flows are looked up in. It
// imports the standard library only.
//
// A Builder takes the indicators of all feeds and compiles them into one run of
// bytes. Open makes a View of such bytes without copying them, so that they may
// be a file mapped into memory: it reads them once, to check them, and is ready.
package intel

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Kind says what sort of thing an indicator names.
type Kind uint8

// The kinds. Popular is the one that names nothing bad: domains by their rank
// in a list of the most visited.
const (
	NoKind   Kind = iota
	Address       // one IPv4 or IPv6 address
	Range         // a network of addresses
	Domain        // a name and all below it
	URL           // without scheme, see Indicator.Value
	JA3           // of a TLS client, MD5
	JA3S          // of a TLS server, MD5
	JA4           // of a TLS client, text
	JARM          // of a TLS server, 62 hexadecimal digits
	CertSHA1      // of a certificate
	MD5           // of a file
	SHA1          // of a file
	SHA256        // of a file
	ASN           // of an autonomous system
	Email         // an address of a mailbox
	Popular       // a registered domain that many visit
	NumKinds
)

var kindNames = [NumKinds]string{
	"", "ip", "range", "domain", "url", "ja3", "ja3s", "ja4", "jarm", "cert_sha1", "md5", "sha1", "sha256", "asn", "email", "popular",
}

// String returns the name of the kind as feeds.yaml and the outputs have it.
func (k Kind) String() string {
	if k < NumKinds {
		return kindNames[k]
	}
	return ""
}

// ParseKind returns the kind of that name; NoKind when there is none.
func ParseKind(name string) Kind {
	for k := Address; k < NumKinds; k++ {
		if kindNames[k] == name {
			return k
		}
	}
	return NoKind
}

// Level is a threat level: evidence.Level by its number, 0 info to 4 critical.
type Level uint8

var levelNames = [...]string{"info", "low", "medium", "high", "critical"}

// String returns the name of the level; nothing for what is none.
func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return ""
}

// ParseLevel returns the level of a name in lower case. The error says which
// there are.
func ParseLevel(name string) (Level, error) {
	i := slices.Index(levelNames[:], name)
	if i < 0 {
		return 0, fmt.Errorf("%q is not one of %s", name, strings.Join(levelNames[:], ", "))
	}
	return Level(i), nil
}

// FeedLevel stands for the level of the feed, in an indicator whose entry has
// none of its own.
const FeedLevel Level = 255

// KnownGood is the tag of what is harmless though it turns up among indicators:
// public resolvers, ranges of content networks, common files. An entry that has
// it, or whose feed has it, says nothing bad. Its case does not matter, and "-" or a
// blank may stand for the "_".
const KnownGood = "known_good"

// Indicator is one entry of a feed in canonical form.
type Indicator struct {
	Kind Kind
	// Prefix is the address or the network of Address and Range, masked, IPv4
	// never mapped into IPv6; invalid for other kinds.
	Prefix netip.Prefix
	// Value is the text of the other kinds. A Domain or the host of a URL is in
	// lower case, in ASCII (punycode), without a dot at its end. A URL is host,
	// ":port" unless it is the scheme's own, path ("/" if empty) and query,
	// without scheme, user and fragment. Hashes and JARM are lower-case hex, an
	// ASN its number in decimal, an Email in lower case.
	Value       string
	Level       Level // FeedLevel: that of its feed
	Description string
	Tags        []string
	Since       int64 // unix s when it was first listed; 0: not said
	Expires     int64 // unix s after which it is not to be used; 0: never
	Rank        int   // of Popular, from 1
}

// Feed is where indicators come from.
type Feed struct {
	Name     string // key in feeds.yaml
	Provider string // who runs it: feeds of one provider are one opinion
	URL      string // or path
	Level    Level
	Tags     []string
	Updated  int64 // unix s of the content in use: Last-Modified, or when it was fetched
	Count    int   // indicators in use; Builder.Compile counts them
}

// Listing is one indicator as one feed lists it.
type Listing struct {
	Feed        *Feed // shared, read only
	Level       Level // never FeedLevel
	Description string
	Tags        []string // the entry's own, sorted; the feed's are in Feed
	Since       int64    // unix s; 0: not said
	Expires     int64    // unix s; 0: never
	Harmless    bool     // by KnownGood among the tags of the entry or its feed
}
