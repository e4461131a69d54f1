package online

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/parsers/flow"
)

// whois asks for registrations with the protocol of RFC 3912: first IANA's
// server, which knows that of the registry, then the registry's. Answers are
// text without a form, so only what many registries write is found in them.
type whois struct {
	root    string // host:port
	dial    dialer
	servers *lru[string, string] // TLD -> server of the registry
}

// The bounds of an answer.
const (
	maxWhois        = 64 << 10 // bytes; those of registries are some KB
	maxWhoisServers = 2000     // there are some 1,500 TLDs
)

func (w *whois) ask(ctx context.Context, s subject) (p flow.LookupPart, err error) {
	server, err := w.server(ctx, s)
	if err != nil {
		return p, err
	}
	text, err := w.query(ctx, server, s.text)
	if err != nil {
		return p, err
	}
	return parseWhois(text, s.kind)
}

// server returns the registry's server as IANA's says it.
func (w *whois) server(ctx context.Context, s subject) (string, error) {
	about := s.text
	if s.kind != intel.Address {
		about = s.text[strings.LastIndexByte(s.text, '.')+1:]
		if server, ok := w.servers.get(about); ok {
			return server, nil
		}
	}
	text, err := w.query(ctx, w.root, about)
	if err != nil {
		return "", err
	}
	for key, value := range whoisLines(text) {
		if key != "whois" && key != "refer" {
			continue
		}
		host, ok := asciiName(value)
		if _, err := netip.ParseAddr(value); !ok || err == nil || icannSuffix(host) == "" { // a name of the public DNS and nothing else
			return "", oddly("the registry's server %q is none", clip(value))
		}
		server := net.JoinHostPort(host, "43")
		if s.kind != intel.Address {
			w.servers.put(about, server)
		}
		return server, nil
	}
	return "", oddly("no server is known for %q", about)
}

func (w *whois) query(ctx context.Context, server, about string) (string, error) {
	c, err := w.dial(ctx, "tcp", server)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()                         // there is nothing to lose
	stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // which ends a read that hangs
	defer stop()
	if _, err := io.WriteString(c, about+"\r\n"); err != nil {
		return "", fmt.Errorf("asking: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(c, maxWhois+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("reading the answer: %w", err)
	case len(b) > maxWhois:
		return "", fmt.Errorf("the answer is longer than %d bytes", maxWhois)
	}
	return strings.ToValidUTF8(string(b), "?"), nil
}

// whoisLines yields the "key: value" and "[key] value" lines of an answer, the
// keys in lower case. Comments are left out.
func whoisLines(text string) func(func(key, value string) bool) {
	return func(yield func(string, string) bool) {
		for l := range strings.Lines(text) {
			l = strings.TrimSpace(l)
			if l == "" || l[0] == '%' || l[0] == '#' {
				continue
			}
			var key, value string
			var ok bool
			if l[0] == '[' {
				key, value, ok = strings.Cut(l[1:], "]")
			} else {
				key, value, ok = strings.Cut(l, ":")
			}
			key, value = strings.ToLower(strings.Trim(key, " .\t")), strings.TrimSpace(value)
			if ok && value != "" && !yield(key, value) {
				return
			}
		}
	}
}

// parseWhois finds in an answer what a LookupPart has room for.
func parseWhois(text string, kind intel.Kind) (p flow.LookupPart, err error) {
	best := 0 // how good the registrant is that was found: an organisation goes before a person
	org := func(rank int, value string) {
		if rank > best && !withheld(value) {
			best, p.Registrant = rank, clip(value)
		}
	}
	said := false
	for key, value := range whoisLines(text) {
		known := true
		switch key {
		case "creation date", "created", "created on", "created date", "registered on", "registered", "registration time", "registration date",
			"registered date", "domain registration date", "domain name commencement date", "domain create date", "登録年月日":
			if p.Registered == 0 && kind == intel.Domain {
				p.Registered = date(value)
			}
		case "registrant organization", "registrant organisation", "orgname", "org-name", "登録者名":
			org(4, value)
		case "org", "organization", "organisation", "owner":
			org(3, value)
		case "registrant", "registrant name", "descr":
			org(2, value)
		case "netname":
			org(1, value)
		case "registrant country", "country":
			if p.Country == "" {
				p.Country = country(value)
			}
		case "origin", "origin" + "as": // of RIPE, of ARIN
			if p.ASN == 0 {
				p.ASN = asn(value)
			}
		case "domain", "domain name", "inetnum", "inet6num", "netrange":
		default:
			known = false
		}
		said = said || known
	}
	switch {
	case isFree(text) && p.Registered == 0 && p.Registrant == "":
		return unknown(), nil
	case !said:
		return p, errors.New("the answer is not understood")
	}
	p.Found = flow.True
	if kind == intel.Address {
		p.ASOrg = p.Registrant
	}
	return p, nil
}

// isFree reports whether an answer says that there is no such domain.
func isFree(text string) bool {
	text = strings.ToLower(text)
	for _, w := range []string{
		"no match", "not found", "no entries found", "no data found", "no object found", "nothing found", "no information available",
		"status: free", "status: available", "is available for", "is free",
	} {
		if strings.Contains(strings.Join(strings.Fields(text), " "), w) {
			return true
		}
	}
	return false
}
