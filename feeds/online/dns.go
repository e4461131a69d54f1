package online

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/slips-go/slips/parsers/flow"
)

// newResolver returns a resolver that asks one server, or with an empty
// address those of the system.
func newResolver(server string, dial dialer) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if server != "" {
			address = server
		}
		c, err := dial(ctx, network, address)
		if err == nil { // the resolver reads on when nobody waits any more, and closes a second time
			context.AfterFunc(ctx, func() { _ = c.Close() })
		}
		return c, err
	}}
}

// dnsFault returns what an error of the resolver means, without the name that
// was asked for: it may hold a key. It is errNotFound for a name that does not
// exist.
func dnsFault(err error) error {
	var e *net.DNSError
	switch {
	case !errors.As(err, &e):
		return err
	case e.IsNotFound:
		return errNotFound
	case strings.Contains(e.Err, "invalid names"): // who owns an address decides what it is called, and may talk nonsense
		return errNotFound
	case e.IsTimeout:
		return errors.New("the resolver does not answer")
	case strings.Contains(e.Err, "misbehaving"): // what Go makes of SERVFAIL: some zone is broken, the resolver is not
		return oddly("the resolver found no answer")
	}
	return errors.New("asking the resolver: " + e.Err)
}

// reverse asks the DNS for the names of an address.
type reverse struct{ resolver *net.Resolver }

func newReverse(o *Options) (service, error) {
	return reverse{newResolver(o.Config.RDNS.Server, o.dial)}, nil
}

func (r reverse) ask(ctx context.Context, s subject) (p flow.LookupPart, err error) {
	names, err := r.resolver.LookupAddr(ctx, s.text)
	if err != nil && len(names) == 0 {
		if err = dnsFault(err); errors.Is(err, errNotFound) {
			return unknown(), nil
		}
		return p, err
	}
	for _, n := range names {
		if n, ok := asciiName(n); ok && !slices.Contains(p.Names, n) { // addresses are no names
			p.Names = append(p.Names, n)
		}
	}
	slices.Sort(p.Names) // servers rotate them
	p.Found = flow.False
	if len(p.Names) > 0 {
		p.Found = flow.True
	}
	return p, nil
}

// blockList asks a block list in the DNS, with the return codes of Spamhaus.
type blockList struct {
	resolver *net.Resolver
	zone     string // with the key before it, if there is one
}

func newDNSBL(o *Options) (service, error) {
	c := &o.Config.DNSBL
	zone := strings.TrimSuffix(c.Zone, ".") + "."
	lines, err := readKey(c.KeyFile, c.KeyEnv)
	if err != nil {
		return nil, err
	}
	if lines != nil {
		if _, ok := asciiName(lines[0] + ".x"); !ok || strings.Contains(lines[0], ".") {
			return nil, errors.New("its key cannot be part of a name")
		}
		zone = lines[0] + "." + zone
	}
	return blockList{newResolver(c.Server, o.dial), zone}, nil
}

func (b blockList) ask(ctx context.Context, s subject) (p flow.LookupPart, err error) {
	codes, err := b.resolver.LookupNetIP(ctx, "ip4", reversed(s.addr)+"."+b.zone)
	if err != nil {
		if err = dnsFault(err); errors.Is(err, errNotFound) {
			p = unknown()
			p.Total = 1
			return p, nil
		}
		return p, err
	}
	p.Found, p.Total = flow.True, 1
	policyOnly := true
	for _, c := range codes {
		list, err := listOf(c.Unmap())
		if err != nil {
			return flow.LookupPart{}, err
		}
		if !slices.Contains(p.Lists, list) {
			p.Lists = append(p.Lists, list)
		}
		policyOnly = policyOnly && list == "PBL"
	}
	slices.Sort(p.Lists)
	p.Tags = []string{"spam"}
	p.Verdict = "listed"
	if policyOnly { // addresses that should not send mail, such as those of homes: nothing bad was seen
		p.Verdict = "policy only"
		return p, nil
	}
	p.Malicious = 1
	return p, nil
}

// listOf returns which of Spamhaus's lists a return code stands for. The codes
// from 127.255.255.0 on are no listing but a complaint.
func listOf(c netip.Addr) (string, error) {
	if !c.Is4() {
		return "", errors.New("the block list answers with no code")
	}
	b := c.As4()
	switch {
	case b == [4]byte{127, 255, 255, 252}:
		return "", &refusedError{"the block list has no such zone"}
	case b == [4]byte{127, 255, 255, 254}:
		return "", &refusedError{"the block list does not answer to public resolvers: configure a server of your own, or a key"}
	case b[0] == 127 && b[1] == 255 && b[2] == 255:
		return "", &quotaError{}
	case b[0] != 127 || b[1] != 0 || b[2] != 0:
		return "", errors.New("the resolver answers for the block list with an address")
	}
	switch n := b[3]; n {
	case 2:
		return "SBL", nil
	case 3:
		return "CSS", nil
	case 4, 5, 6, 7:
		return "XBL", nil
	case 9:
		return "DROP", nil
	case 10, 11:
		return "PBL", nil
	default:
		return fmt.Sprintf("code %d", n), nil
	}
}

// reversed returns an address as it stands before the zone of a block list,
// RFC 5782: the bytes of IPv4 or the nibbles of IPv6, the last one first.
func reversed(a netip.Addr) string {
	b := a.AsSlice()
	slices.Reverse(b)
	parts := make([]string, 0, 32)
	for _, x := range b {
		if a.Is4() {
			parts = append(parts, strconv.Itoa(int(x)))
		} else {
			parts = append(parts, strconv.FormatInt(int64(x&15), 16), strconv.FormatInt(int64(x>>4), 16))
		}
	}
	return strings.Join(parts, ".")
}
