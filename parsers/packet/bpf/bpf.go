// Package bpf compiles packet filters, in the language of tcpdump that
// pcap-filter(7) describes, to classic BPF programs for the kernel, and runs
// such programs on the packets of files.
//
// A filter means what it means to tcpdump: one for a file sees the frames as
// they were stored, VLAN tags included, and one for live capture sees them as
// the kernel hands them over, with the outer VLAN tag beside the frame. So
// "port 80" takes tagged packets live and not from a file; "vlan and port 80"
// takes them from both. What tcpdump knows and this package does not is an
// error: host names, gateway, protochain, 802.11, ATM, LLC, Geneve, VXLAN and
// the fields of pf.
//
// It goes its own way in four places. On BSD loopback it knows the numbers of
// IPv6 of all systems. In a calculation such as "ip[2:2] - tcp[12]" it sees to
// it that both are there; libpcap forgets the right one. On Linux cooked v2 it
// finds LLC as on v1. And "^" and "%" beside other operators need parentheses,
// because libpcap gives them no rank.
package bpf

import (
	"errors"
	"fmt"

	"golang.org/x/net/bpf"

	"github.com/slips-go/slips/parsers/packet"
)

// The bounds of a filter.
const (
	maxText     = 64 << 10 // bytes of an expression; more than the 4,096 instructions can hold
	maxDepth    = 100      // parentheses and negations in each other
	maxProgram  = 4096     // instructions, BPF_MAXINSNS of Linux
	wholePacket = 262144   // bytes, what tcpdump asks for
)

// ErrNothing is what an expression gives that no packet of the link type can
// match, such as "arp" on raw IP.
var ErrNothing = errors.New("the filter accepts no packet")

// Error is an expression that was not understood.
type Error struct {
	Expr string
	Pos  int // byte offset into Expr
	Msg  string
}

// Error tells where the expression is wrong and what was expected.
func (e *Error) Error() string {
	near := e.Expr[e.Pos:]
	if near == "" {
		return fmt.Sprintf("packet filter, at its end: %s", e.Msg)
	}
	if len(near) > 20 {
		near = near[:20]
	}
	return fmt.Sprintf("packet filter, character %d, at %q: %s", e.Pos+1, near, e.Msg)
}

// Check reports whether the expression is well formed. Whether a link type has
// what it asks for only Compile can tell.
func Check(expr string) error {
	_, err := parse(expr)
	return err
}

// Compile returns the program that accepts those packets of a file that match
// the expression. An empty one accepts all. The program returns snaplen for a
// packet that it accepts; none or a negative one means 256 KiB.
func Compile(expr string, link packet.Link, snaplen int) ([]bpf.RawInstruction, error) {
	return compile(expr, link, snaplen, false)
}

// CompileLive is Compile for a program that the Linux kernel runs on the
// packets of an interface. It can ask for the direction of a packet and knows
// that the outer VLAN tag is not in the frame.
func CompileLive(expr string, link packet.Link, snaplen int) ([]bpf.RawInstruction, error) {
	return compile(expr, link, snaplen, true)
}

func compile(expr string, link packet.Link, snaplen int, live bool) ([]bpf.RawInstruction, error) {
	if snaplen <= 0 {
		snaplen = wholePacket
	}
	e, err := parse(expr)
	if err != nil {
		return nil, err
	}
	l, ok := links[link]
	if !ok {
		return nil, fmt.Errorf("packet filter: link type %d is not supported", link)
	}
	root, err := l.lower(expr, e, live)
	if err != nil {
		return nil, err
	}
	p := emit(root, uint32(snaplen)) //nolint:gosec // a length
	if len(p) == 1 && p[0].K == 0 {
		return nil, fmt.Errorf("packet filter %q: %w of %s", expr, ErrNothing, l.name)
	}
	if len(p) > maxProgram {
		return nil, fmt.Errorf("packet filter: it takes %d instructions; the kernel runs %d", len(p), maxProgram)
	}
	return p, nil
}

// Filter filters the packets of files, whose link types may differ from packet
// to packet. One goroutine uses it.
type Filter struct {
	expr string
	by   map[packet.Link]compiled
}

// compiled is what a Filter keeps of a link type.
type compiled struct {
	p   *Program
	err error
}

// NewFilter returns a Filter of the expression.
func NewFilter(expr string) (*Filter, error) {
	if err := Check(expr); err != nil {
		return nil, err
	}
	return &Filter{expr: expr, by: make(map[packet.Link]compiled)}, nil
}

// Match reports whether the packet matches. The error, which is the same for
// all packets of a link type, says that the expression asks for what that type
// does not have; one that can never match is none.
func (f *Filter) Match(p packet.Packet) (bool, error) {
	c, ok := f.by[p.Link]
	if !ok {
		raw, err := Compile(f.expr, p.Link, 0)
		switch {
		case errors.Is(err, ErrNothing):
		case err != nil:
			c.err = err
		default:
			c.p, c.err = NewProgram(raw)
		}
		f.by[p.Link] = c
	}
	if c.p == nil {
		return false, c.err
	}
	return c.p.Match(p.Data, p.Length), nil
}
