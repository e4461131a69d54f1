package whitelist

import (
	"embed"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// The data of the organisations, a file for each: AS numbers, domains and
// prefixes, one a line, under a head that says where they are from and of
// which date.
//
//go:embed organizations/*.txt
var organizationFiles embed.FS

// Published is what is published about an organisation.
type Published struct {
	Name     string
	About    string   // what its addresses and names are, in a sentence
	Sources  []string // with dates
	Prefixes []netip.Prefix
	Domains  []string
	ASNs     []uint32
}

// OrganizationNames returns the names that an entry may give, sorted.
func OrganizationNames() []string {
	files, err := organizationFiles.ReadDir("organizations")
	if err != nil {
		return nil // cannot be: the folder is embedded
	}
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = strings.TrimSuffix(f.Name(), ".txt")
	}
	return names
}

// LoadOrganization returns the data of the organisation of that name.
func LoadOrganization(name string) (Published, error) {
	text, err := organizationFiles.ReadFile("organizations/" + name + ".txt")
	if err != nil {
		return Published{}, fmt.Errorf("load organization %q: %w", name, err)
	}
	o := Published{Name: name}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if comment, ok := strings.CutPrefix(line, "# "); ok {
			if s, ok := strings.CutPrefix(comment, "Source: "); ok {
				o.Sources = append(o.Sources, s)
			} else if n == 1 {
				o.About = comment
			}
			continue
		}
		if digits, ok := strings.CutPrefix(line, "AS"); ok {
			asn, err := strconv.ParseUint(digits, 10, 32)
			if err != nil {
				return o, fmt.Errorf("load organization %q: line %d: %w", name, n, err)
			}
			o.ASNs = append(o.ASNs, uint32(asn))
			continue
		}
		if strings.Contains(line, "/") {
			p, err := netip.ParsePrefix(line)
			if err != nil || p != p.Masked() {
				return o, fmt.Errorf("load organization %q: line %d: bad prefix %q", name, n, line)
			}
			o.Prefixes = append(o.Prefixes, p)
			continue
		}
		if !validName(line) {
			return o, fmt.Errorf("load organization %q: line %d: bad domain %q", name, n, line)
		}
		o.Domains = append(o.Domains, line)
	}
	return o, nil
}
