// Package block carries alerts out: it decides who is blocked and until when,
// keeps the firewall in step with that, and writes down every change.
//
//	alert -> Request -> Guard (never) -> Policy (how long) -> Manager -> Blocker (the kernel)
//
// # What may be blocked
//
// An alert blocks one address, an operator an address or a narrow network.
// Guard refuses what would cut the machine or its network off: see there. The
// Manager asks it before every change, and again whenever the network
// changes; a Blocker for a real firewall refuses what no list can allow.
//
// # How long
//
// Every block ends by itself. The end is one window (or Config.Duration) after
// the last alert, doubled for each time the host has been blocked before, and
// never more than Config.MaxDuration. The kernel keeps the end, so blocks
// expire also when this program is dead.
//
// # What survives
//
// The blocks, their ends, offence numbers and alert ids are in the kernel; the
// offences of hosts that are not blocked now are in a small file. A Manager
// reads both when it starts, and compares the kernel with what it wants whenever
// that tells of a change, and every minute: what somebody else removed is put back and reported.
//
// Blocking acts on the wall clock, not on stream time: the traffic that it
// stops is that of now. The clock is injected.
package block

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Entry is a blocked address or network, and what the firewall keeps about it.
type Entry struct {
	Prefix   netip.Prefix // masked, never IPv4 in IPv6; a single address has all bits
	Until    time.Time    // when the block ends by itself; never zero
	Offences int          // how many times the host has been blocked, this one included; 0: not known
	Alert    string       // id of the last alert; empty when an operator asked after it
	By       string       // the operator who asked; empty when an alert did
	Reason   string       // the operator's, as far as it is kept; an alert has its own
}

// How many bytes an Entry keeps: a UUID has 36, a name of a user 32 at most. A
// Blocker may keep less of the reason.
const (
	MaxAlert  = 64
	MaxBy     = 64
	MaxReason = 256
)

// Blocker is a firewall. The Manager calls it, one call at a time.
//
// List returns what is blocked now, in any order. When parts that make the
// blocks work are missing, it returns what is left and an error that wraps
// ErrDamaged; the next Block puts those parts back.
type Blocker interface {
	// Block makes each entry end at its Until, whether or not it was blocked
	// before, in one step: either all are, or none is and the error says why.
	Block(ctx context.Context, entries []Entry) error
	// Unblock removes prefixes, in one step. One that is not blocked is no error.
	Unblock(ctx context.Context, prefixes []netip.Prefix) error
	List(ctx context.Context) ([]Entry, error)
}

// The kinds of failure that callers tell apart. A Blocker wraps them with what
// it was doing and what would help.
var (
	ErrDamaged     = errors.New("somebody else changed our part of the firewall")
	ErrPermission  = errors.New("no permission to change the firewall")
	ErrUnsupported = errors.New("the firewall is not there")
	ErrRefused     = errors.New("refused")
	ErrFull        = errors.New("the queue of decisions is full")
	ErrStopped     = errors.New("blocking has stopped")
)

// Request asks for a block, because of an alert or by hand.
type Request struct {
	Prefix netip.Prefix
	// At is when the behaviour was seen, in stream time; the block is counted
	// from there. Zero, or a time to come, means now.
	At time.Time
	// Window is the width of the alert's time window, which is how long a first
	// block lasts if Config.Duration does not say.
	Window time.Duration
	// For is how long an operator wants the block to last, from now. It may be
	// shorter or longer than the policy's, but not than Config.MaxDuration. 0
	// leaves it to the policy.
	For         time.Duration
	Reason      string
	AlertID     string
	EvidenceIDs []string
	// By says who asks: empty for an alert, else the operator. An operator may
	// ask for a network.
	By string
}

// Decision is what became of a request that was not refused.
type Decision struct {
	Prefix      netip.Prefix
	Until       time.Time
	Reason      string
	AlertID     string
	EvidenceIDs []string
	By          string
	Offences    int  // this one included
	Extends     bool // it was blocked already
}

// entry returns what the firewall is told of d.
func (d Decision) entry() Entry {
	e := Entry{Prefix: d.Prefix, Until: d.Until, Offences: d.Offences, Alert: cut(d.AlertID, MaxAlert)}
	if d.By != "" {
		e.By, e.Reason = cut(d.By, MaxBy), cut(d.Reason, MaxReason)
	}
	return e
}

// cut returns the first n bytes of s, without a character that they end within.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// Canonical returns p as Entry.Prefix has it: masked, without zone, IPv4 in
// IPv6 as IPv4.
func Canonical(p netip.Prefix) (netip.Prefix, error) {
	a, bits := p.Addr().WithZone(""), p.Bits()
	if !a.IsValid() || bits < 0 {
		return netip.Prefix{}, fmt.Errorf("%w: no address", ErrRefused)
	}
	if a.Is4In6() {
		if bits < 96 {
			return netip.Prefix{}, fmt.Errorf("%w: %s is wider than the IPv4 addresses in it", ErrRefused, p)
		}
		a, bits = a.Unmap(), bits-96
	}
	return netip.PrefixFrom(a, bits).Masked(), nil
}

// Single returns the prefix that is a alone.
func Single(a netip.Addr) netip.Prefix {
	a = a.WithZone("").Unmap()
	return netip.PrefixFrom(a, a.BitLen())
}

// Last returns the last address of a prefix, which of an IPv4 network is the
// one for broadcasts.
func Last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// StillBlocked returns an error that says what else of blocked, which is sorted,
// blocks p or a part of it: a network that holds it, or hosts within it. It is
// nil when nothing does. p itself is passed over.
func StillBlocked(p netip.Prefix, blocked []netip.Prefix) error {
	for bits := p.Bits() - 1; bits >= 0; bits-- {
		q := netip.PrefixFrom(p.Addr(), bits).Masked()
		if _, ok := slices.BinarySearchFunc(blocked, q, netip.Prefix.Compare); ok {
			return fmt.Errorf("%s is still blocked, as a part of %s: unblock that", Text(p), q)
		}
	}
	from, found := slices.BinarySearchFunc(blocked, p, netip.Prefix.Compare)
	if found {
		from++
	}
	to := from
	for to < len(blocked) && p.Contains(blocked[to].Addr()) {
		to++
	}
	switch to - from {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%s, a part of %s, is still blocked by itself", Text(blocked[from]), p)
	}
	return fmt.Errorf("%d parts of %s are still blocked by themselves, such as %s", to-from, p, Text(blocked[from]))
}

// ParsePrefix reads an address or a network as an operator writes it.
func ParsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return Canonical(netip.PrefixFrom(a.WithZone(""), a.BitLen()))
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network", s)
	}
	return Canonical(p)
}
