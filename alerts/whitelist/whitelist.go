// Package whitelist says which records and which evidence the operator does
// not want to hear about, and why. A List is a file of entries, checked and
// compiled; Flows asks it about records, List.Evidence about evidence, and
// Explain says what it would do and what it nearly did. It does no I/O but
// reading its file, and knows no clock: time is that of the stream.
//
// # File
//
// The original's format, one entry a line, blanks removed:
//
//	type,value,direction,ignore[,expiry[,reason]]
//
// The type is ip, range, domain, mac, organization, asn, port, ja3, evidence
// or module; the direction src, dst or both; ignore says flows, alerts or
// both. Further conditions are joined to the value with "&": see Parse. Lines
// that begin with ";" or "#" are comments.
//
// # Sides
//
// The direction says on which side of the flow the value must be:
//
//	thing           of a record                             of evidence
//	ip, range       source, destination, DNS answers (dst)  attacker and victim, by their direction
//	domain          server name, HTTP host, DNS query       a name, the host of a URL, names known for
//	                (dst), names known for an address       an address
//	mac             of the record, ARP and DHCP             known for an address
//	organization    addresses and names as above            the same, and the AS
//	asn             not known                               known for an address
//	port            source and destination port             the same, and the entities' own
//	ja3             no side                                 no side: the subject, or a hash
//	evidence,module not known                               no side
//
// A record is dropped before anything sees it; evidence is dropped before it
// counts.
//
// # What an entry cannot do
//
// Ranges, addresses and MACs are taken at their word. Names, organisations and
// AS numbers say who a peer is, and that is less:
//
//   - They never match the profile at hand when it is a host of the own
//     network, so an infected server is not excused by its own name.
//   - An address goes by its names only when all that are known for it are
//     listed. Many sites share the address of a cloud.
//   - A name from reverse DNS or DHCP is what its owner says; it does not count.
//   - An organisation or AS excuses nothing that a feed names, and neither do
//     the names of an address that a feed names.
//
// A listed domain covers the names below it; never others that merely contain
// its text.
package whitelist

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
)

//go:embed whitelist.conf
var defaultText string

// DefaultText returns the file that Slips ships with.
func DefaultText() string { return defaultText }

// Default returns the list that Slips ships with.
func Default() (*List, error) { return Parse("whitelist.conf", strings.NewReader(defaultText)) }

// List is a whitelist. It does not change, so any number of goroutines may use
// it. The nil List ignores nothing.
type List struct {
	name    string
	digest  string
	entries []entry // in the order of their lines
	notices []string
	home    []netip.Prefix

	flows, alerts *index // of the entries that ignore such; nil when there is none
}

// Rule is an entry as the outputs show it.
type Rule struct {
	Line      int
	Text      string // type, value, direction and ignore in canonical form
	Direction string // "src", "dst", "both"
	Flows     bool   // it ignores records
	Alerts    bool   // it ignores evidence
	Expires   int64  // unix ns from which it does not match; 0: never
	Reason    string
}

// Load reads the list at path.
func Load(path string) (*List, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open whitelist: %w", err)
	}
	l, err := Parse(path, f)
	if e := f.Close(); err == nil && e != nil {
		return nil, fmt.Errorf("close whitelist: %w", e)
	}
	return l, err
}

// Name returns where the list comes from, as given to Parse.
func (l *List) Name() string {
	if l == nil {
		return ""
	}
	return l.name
}

// Digest returns the SHA-256 of the file, in hex: it names the list in the
// metadata of a run.
func (l *List) Digest() string {
	if l == nil {
		return ""
	}
	return l.digest
}

// Len returns the number of entries.
func (l *List) Len() int {
	if l == nil {
		return 0
	}
	return len(l.entries)
}

// Rules returns the entries in the order of their lines.
func (l *List) Rules() []Rule {
	if l == nil {
		return nil
	}
	r := make([]Rule, len(l.entries))
	for i := range l.entries {
		r[i] = l.entries[i].rule
	}
	return r
}

// Notices returns what is worth knowing about the file though it is no error,
// each with file and line: entries that a later line replaces, for instance.
func (l *List) Notices() []string {
	if l == nil {
		return nil
	}
	return slices.Clone(l.notices)
}

// Expired returns the entries that have no effect at a time, in unix ns,
// because they have expired.
func (l *List) Expired(at int64) []Rule {
	var r []Rule
	for _, x := range l.Rules() {
		if x.Expires != 0 && at >= x.Expires {
			r = append(r, x)
		}
	}
	return r
}

// WithHome returns a copy of l that also takes the addresses in nets for hosts
// of the own network. Private addresses, and those whose MAC is known, always
// are.
func (l *List) WithHome(nets []netip.Prefix) *List {
	if l == nil {
		return nil
	}
	c := *l
	c.home = slices.Clone(nets)
	return &c
}

// Check reports the first condition on a type of evidence or a module that
// does not exist: it would never match, which is hardly what was meant.
func (l *List) Check(types []evidence.Type, modules []string) error {
	if l == nil {
		return nil
	}
	for i := range l.entries {
		e := &l.entries[i]
		for _, c := range e.conds {
			if c.kind == Evidence && !slices.Contains(types, evidence.Type(c.value)) ||
				c.kind == Module && !slices.Contains(modules, c.value) {
				return &Error{l.name, e.rule.Line, "value", c.value, "there is no such " + c.kind.noun()}
			}
		}
	}
	return nil
}

// String returns the entries as a file that Parse reads again.
func (l *List) String() string {
	var b strings.Builder
	for _, r := range l.Rules() {
		b.WriteString(r.Text)
		if r.Expires != 0 || r.Reason != "" {
			b.WriteString("," + stamp(r.Expires))
		}
		if r.Reason != "" {
			b.WriteString(`,"` + strings.ReplaceAll(r.Reason, `"`, `""`) + `"`)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// maxFile bounds a file: 16 MiB are ten times maxEntries lines of usual length.
const maxFile = 16 << 20

// readAll reads a file of bounded size and returns it with its digest.
func readAll(name string, r io.Reader) ([]byte, string, error) {
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, "", fmt.Errorf("read whitelist %q: %w", name, err)
	}
	if n > maxFile {
		return nil, "", fmt.Errorf("read whitelist %q: it is larger than %d bytes", name, maxFile)
	}
	sum := sha256.Sum256(b.Bytes())
	return b.Bytes(), hex.EncodeToString(sum[:]), nil
}
