package online

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/parsers/flow"
)

// rdap asks the registries: RDAP (RFC 9082, 9083) at the server that IANA's
// bootstrap files (RFC 9224) name, else WHOIS.
type rdap struct {
	*web
	now       func() time.Time
	whois     *whois // nil: no fallback
	bootstrap map[string]*bootstrap
}

// bootstrap is one of IANA's files, as it is in use.
type bootstrap struct {
	services map[string]string // TLD or prefix -> base URL
	fetched  time.Time
	tried    time.Time
}

// The lives of a bootstrap file: a day as its headers say, and the time after
// which a fetch that failed is tried again. Stale beats none.
const (
	bootstrapLife  = 24 * time.Hour
	bootstrapRetry = 10 * time.Minute
)

func newRDAP(o *Options) (service, error) {
	w, err := newWeb(o.Config.RDAP.URL, nil)
	if err != nil {
		return nil, err
	}
	r := &rdap{web: w, now: o.Now, bootstrap: make(map[string]*bootstrap)}
	if o.Config.RDAP.Whois != "" {
		r.whois = &whois{root: o.Config.RDAP.Whois, dial: o.dial, servers: newLRU[string, string](maxWhoisServers)}
	}
	return r, nil
}

func (r *rdap) ask(ctx context.Context, s subject) (flow.LookupPart, error) {
	first := ctx
	if by, ok := ctx.Deadline(); ok && r.whois != nil { // half of the time is for the fallback
		var cancel context.CancelFunc
		first, cancel = context.WithDeadline(ctx, by.Add(-time.Until(by)/2))
		defer cancel()
	}
	p, err := r.rdap(first, s)
	if err == nil || r.whois == nil || isRefusal(err) {
		return p, err
	}
	q, err2 := r.whois.ask(ctx, s)
	if err2 != nil {
		return p, fmt.Errorf("%w; whois: %w", err, err2)
	}
	return q, nil
}

// isRefusal reports whether asking elsewhere would only get round a limit.
func isRefusal(err error) bool {
	var q *quotaError
	return errors.As(err, &q)
}

// rdap asks without the fallback.
func (r *rdap) rdap(ctx context.Context, s subject) (p flow.LookupPart, err error) {
	base, err := r.server(ctx, s)
	if err != nil {
		return p, err
	}
	path := "domain/"
	if s.kind == intel.Address {
		path = "ip/"
	}
	var o rdapObject
	err = r.fetch(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+"/"+path+url.PathEscape(s.text), nil, &o)
	var refused *refusedError
	switch {
	case errors.Is(err, errNotFound):
		return unknown(), nil
	case errors.As(err, &refused): // one registry of many: the others are not meant
		return p, oddly("the registry refuses: %s", refused.why)
	case err != nil:
		return p, err
	case s.kind == intel.Address:
		return o.network()
	}
	return o.domain()
}

// server returns the base URL of the server for a subject.
func (r *rdap) server(ctx context.Context, s subject) (string, error) {
	file := "dns.json"
	if s.kind == intel.Address {
		file = "ipv4.json"
		if s.addr.Is6() {
			file = "ipv6.json"
		}
	}
	b := r.bootstrap[file]
	if b == nil {
		b = new(bootstrap)
		r.bootstrap[file] = b
	}
	if now := r.now(); now.Sub(b.fetched) > bootstrapLife && (b.tried.IsZero() || now.Sub(b.tried) > bootstrapRetry) {
		b.tried = now
		if m, err := r.fetchBootstrap(ctx, file); err == nil {
			b.services, b.fetched = m, now
		} else if b.services == nil {
			b.tried = time.Time{} // there is nothing to go by: each question tries, and the breaker opens
			return "", fmt.Errorf("fetching IANA's %s: %w", file, err)
		}
	}
	base := ""
	if s.kind == intel.Address {
		for bits := s.addr.BitLen(); bits > 0 && base == ""; bits-- {
			base = b.services[netip.PrefixFrom(s.addr, bits).Masked().String()]
		}
	} else {
		for name, more := s.text, true; more && base == ""; _, name, more = strings.Cut(name, ".") {
			base = b.services[name]
		}
	}
	if base == "" {
		return "", oddly("no RDAP server is known")
	}
	return base, nil
}

// maxBootstrap bounds the entries of a file: there are some 1,500 TLDs.
const maxBootstrap = 20_000

func (r *rdap) fetchBootstrap(ctx context.Context, file string) (map[string]string, error) {
	var f struct{ Services [][][]string } // [[entries…], [URLs…]]…
	if err := r.get(ctx, &f, nil, file); err != nil {
		return nil, err
	}
	m := make(map[string]string)
	for _, s := range f.Services {
		if len(s) < 2 {
			continue
		}
		i := slices.IndexFunc(s[1], func(u string) bool {
			return strings.HasPrefix(u, "https://") || r.base.Scheme == "http" && strings.HasPrefix(u, "http://")
		})
		if i < 0 {
			continue
		}
		for _, e := range s[0] {
			if len(m) < maxBootstrap {
				m[strings.ToLower(e)] = s[1][i]
			}
		}
	}
	if len(m) == 0 {
		return nil, errors.New("it names no server")
	}
	return m, nil
}

// rdapObject is what is used of a domain or a network.
type rdapObject struct {
	Class  string `json:"objectClassName"`
	Name   string
	Events []struct {
		Action string `json:"eventAction"`
		Date   string `json:"eventDate"`
	}
	Entities []rdapEntity
	Country  string
	Origins  []number `json:"arin_originas0_originautnums"` // ARIN alone says who announces a network
}

type rdapEntity struct {
	Roles words
	VCard json.RawMessage `json:"vcardArray"`
}

func (o *rdapObject) domain() (p flow.LookupPart, err error) {
	if o.Class != "domain" {
		return p, fmt.Errorf("the registry answers with an object of class %q", clip(o.Class))
	}
	p.Found = flow.True
	for _, e := range o.Events {
		if e.Action == "registration" {
			p.Registered = date(e.Date)
		}
	}
	p.Registrant, p.Country = o.registrant()
	return p, nil
}

func (o *rdapObject) network() (p flow.LookupPart, err error) {
	if o.Class != "ip network" {
		return p, fmt.Errorf("the registry answers with an object of class %q", clip(o.Class))
	}
	p.Found, p.Country = flow.True, country(o.Country)
	p.Registrant, _ = o.registrant()
	p.ASOrg = p.Registrant
	if p.ASOrg == "" {
		p.ASOrg = o.Name
	}
	if len(o.Origins) > 0 {
		p.ASN = o.Origins[0].asn()
	}
	return p, nil
}

// registrant returns who registered an object, and where that is.
func (o *rdapObject) registrant() (name, where string) {
	for _, e := range o.Entities {
		if slices.Contains(e.Roles, "registrant") {
			if name, where = card(e.VCard); name != "" || where != "" {
				return name, where
			}
		}
	}
	return "", ""
}

// card returns the organisation, else the name, and the country of a jCard
// (RFC 7095): ["vcard", [[property, parameters, type, value…]…]].
func card(raw json.RawMessage) (name, where string) {
	var outer []json.RawMessage
	var properties [][]json.RawMessage
	if json.Unmarshal(raw, &outer) != nil || len(outer) < 2 || json.Unmarshal(outer[1], &properties) != nil {
		return "", ""
	}
	full := ""
	for _, p := range properties {
		var property string
		var value words
		if len(p) < 4 || json.Unmarshal(p[0], &property) != nil || json.Unmarshal(p[3], &value) != nil {
			continue
		}
		switch property {
		case "org":
			name = given(value)
		case "fn":
			full = given(value)
		case "adr": // post box, extension, street, city, region, code, country
			var parameters struct{ CC string }
			if json.Unmarshal(p[1], &parameters) == nil && parameters.CC != "" {
				where = country(parameters.CC)
			} else if len(value) > 0 {
				where = country(value[len(value)-1])
			}
		}
	}
	if name == "" {
		name = full
	}
	return name, where
}

// given returns the first text, unless it stands for one that is withheld.
func given(w words) string {
	if len(w) == 0 || withheld(w[0]) {
		return ""
	}
	return strings.TrimSpace(w[0])
}

// withheld reports whether a text is what registries put in place of a name.
func withheld(s string) bool {
	s = strings.ToLower(s)
	for _, w := range []string{"redacted", "data protected", "not disclosed", "statutory masking", "withheld"} {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

// dateLayouts are how registries write times. Those without a zone are taken
// as UTC: a day more or less does not make a domain young.
func dateLayouts() []string {
	return []string{
		time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700", "2006-01-02T15:04:05", "2006-01-02 15:04:05-07", "2006-01-02 15:04:05Z07:00",
		"2006-01-02 15:04:05", "2006-01-02", "2006/01/02 15:04:05", "2006/01/02", "2006.01.02 15:04:05", "2006.01.02", "2006. 01. 02.",
		"02-Jan-2006", "02-Jan-2006 15:04:05", "2-Jan-2006", "02.01.2006 15:04:05", "2.1.2006", "02/01/2006", "20060102", "January 2 2006", "Mon Jan 2 15:04:05 2006",
	}
}

// date reads a time in any of the layouts, as unix ns; 0 when it is none, or
// none that a domain can have been registered at.
func date(s string) int64 {
	s = strings.TrimSpace(s)
	for _, alt := range []string{s, strings.TrimSpace(cut(s, " (")), cut(s, " #"), strings.TrimSuffix(s, " UTC"), cut(s, " ")} {
		for _, l := range dateLayouts() {
			if t, err := time.Parse(l, alt); err == nil && t.Year() >= 1985 && t.Year() < 2262 { // the first domain; int64 ends
				return t.UnixNano()
			}
		}
	}
	return 0
}

func cut(s, sep string) string {
	s, _, _ = strings.Cut(s, sep)
	return s
}
