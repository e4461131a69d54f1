package bpf

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/net/bpf"

	"github.com/slips-go/slips/parsers/packet"
)

// The opcodes of classic BPF that are used, by linux/filter.h.
const (
	opLdW   = 0x20 // A = 4 bytes at k
	opLdH   = 0x28
	opLdB   = 0x30
	opLdLen = 0x80 // A = length of the packet
	opIndW  = 0x40 // A = 4 bytes at X + k
	opLdImm = 0x00
	opLdMem = 0x60
	opMshX  = 0xb1 // X = 4 * (byte at k & 15), the length of an IPv4 header
	opSt    = 0x02
	opTax   = 0x07
	opAlu   = 0x04 // with one of the operations below; +8: with X, not k
	opNeg   = 0x84
	opJa    = 0x05
	opJeq   = 0x15 // the jumps likewise
	opJgt   = 0x25
	opJge   = 0x35
	opJset  = 0x45
	opRet   = 0x06
	withX   = 0x08
)

// aluOps are the operations of opAlu.
var aluOps = map[string]uint16{
	"+": 0x00, "-": 0x10, "*": 0x20, "/": 0x30, "|": 0x40, "&": 0x50, "<<": 0x60, ">>": 0x70, "%": 0x90, "^": 0xa0,
}

// What Linux tells of a packet beside its bytes, read as bytes at these
// offsets: SKF_AD_OFF of linux/filter.h and behind.
const (
	adOff        = 0xfffff000
	adProtocol   = adOff + 0
	adPktType    = adOff + 4
	adVLAN       = adOff + 44
	adVLANThere  = adOff + 48
	pktOutgoing  = 4 // PACKET_OUTGOING of linux/if_packet.h
	scratchWords = 16
)

// cond is a condition as tests of a packet's bytes.
type cond any

type (
	truth bool
	not   struct{ c cond }
	and   struct{ a, b cond }
	or    struct{ a, b cond }
)

// test loads a value and compares it.
type test struct {
	x    []bpf.RawInstruction // sets X for a; may be left out where X has it
	a    []bpf.RawInstruction // sets A; may be left out where A has it
	wild bool                 // a changes X, or the comparison is with X
	op   uint16
	k    uint32
}

func allOf(c ...cond) cond { return join(true, c, func(a, b cond) cond { return and{a, b} }) }

func anyOf(c ...cond) cond { return join(false, c, func(a, b cond) cond { return or{a, b} }) }

// join joins conditions from the right. One that has the value unit adds
// nothing, and one that has the other decides.
func join(unit truth, all []cond, two func(a, b cond) cond) cond {
	var r cond = unit
	for _, c := range slices.Backward(all) {
		a, aConst := c.(truth)
		b, bConst := r.(truth)
		switch {
		case aConst && a != unit || bConst && b != unit:
			r = !unit
		case aConst:
		case bConst:
			r = c
		default:
			r = two(c, r)
		}
	}
	return r
}

func no(c cond) cond {
	switch c := c.(type) {
	case truth:
		return !c
	case not:
		return c.c
	}
	return not{c}
}

// linkKind says how a link header tells what is in the packet.
type linkKind uint8

const (
	ethernet linkKind = iota // an Ethernet type or a length
	cooked                   // an Ethernet type, or 4 before LLC
	ppp                      // a PPP protocol number
	family                   // an address family, in either byte order
	rawIP                    // nothing: the IP header does
	onlyIPv4
	onlyIPv6
)

// layout is where the parts of a frame are.
type layout struct {
	name string
	kind linkKind
	hdr  uint32 // offset of the link header
	typ  uint32 // of its type field
	net  uint32 // of what it carries
}

// links are the link types that filters can be compiled for.
var links = map[packet.Link]layout{
	packet.LinkEthernet: {"Ethernet", ethernet, 0, 12, 14},
	packet.LinkSLL:      {"Linux cooked", cooked, 0, 14, 16},
	packet.LinkSLL2:     {"Linux cooked v2", cooked, 0, 0, 20},
	packet.LinkNull:     {"BSD loopback", family, 0, 0, 4},
	packet.LinkLoop:     {"OpenBSD loopback", family, 0, 0, 4},
	packet.LinkRaw:      {"raw IP", rawIP, 0, 0, 0},
	packet.LinkRawBSD:   {"raw IP", rawIP, 0, 0, 0},
	packet.LinkRawOBSD:  {"raw IP", rawIP, 0, 0, 0},
	packet.LinkIPv4:     {"raw IPv4", onlyIPv4, 0, 0, 0},
	packet.LinkIPv6:     {"raw IPv6", onlyIPv6, 0, 0, 0},
	packet.LinkPPP:      {"PPP", ppp, 0, 2, 4},
	packet.LinkPPPHDLC:  {"PPP", ppp, 0, 2, 4},
	packet.LinkPPPoE:    {"PPPoE", ppp, 0, 6, 8},
}

// lowering turns an expression into tests. Tags move the layout for all that
// is written behind them, as in tcpdump, so it goes from left to right.
type lowering struct {
	text string
	layout
	first  layout
	live   bool
	beside bool // the outer VLAN tag is not in the frame
	vlans  int
	labels int
	asked  bool // for the outer VLAN tag
	err    error
}

// lower returns the tests of an expression.
func (l layout) lower(text string, e expr, live bool) (cond, error) {
	w := &lowering{text: text, layout: l, first: l, live: live}
	c := w.expr(e)
	if w.err != nil {
		return nil, w.err
	}
	if !live || !w.asked {
		return c, nil
	}
	// Linux takes the outer tag out of the frame, but not always: whether it is
	// beside it is looked at first, and there is a condition for either case.
	b := &lowering{text: text, layout: l, first: l, live: true, beside: true}
	d := b.expr(e)
	inFrame := load(opLdB, adVLANThere, opJeq, 0)
	return anyOf(allOf(inFrame, c), allOf(no(inFrame), d)), b.err
}

func (w *lowering) fail(pos int, format string, a ...any) cond {
	if w.err == nil {
		w.err = &Error{w.text, pos, fmt.Sprintf(format, a...)}
	}
	return truth(false)
}

// load is the test of some bytes at an offset.
func load(size uint16, off uint32, op uint16, k uint32) cond {
	return test{a: []bpf.RawInstruction{{Op: size, K: off}}, op: op, k: k}
}

// masked is the test that some bytes have a value under a mask.
func masked(size uint16, off, k, mask uint32) cond {
	full := uint32(1<<32 - 1)
	if size == opLdH {
		full = 0xffff
	}
	switch mask {
	case 0:
		return truth(k == 0)
	case full:
		return load(size, off, opJeq, k)
	}
	return test{a: []bpf.RawInstruction{{Op: size, K: off}, {Op: opAlu | aluOps["&"], K: mask}}, op: opJeq, k: k}
}

func (w *lowering) expr(e expr) cond {
	switch e := e.(type) {
	case all:
		return truth(true)
	case joined:
		a := w.expr(e.a)
		b := w.expr(e.b)
		if e.or {
			return anyOf(a, b)
		}
		return allOf(a, b)
	case negation:
		return no(w.expr(e.e))
	case protocol:
		return w.protocol(e.pos, e.name)
	case cast:
		return w.cast(e)
	case direction:
		return w.direction(e)
	case tag:
		return w.tag(e)
	case length:
		op, k := uint16(opJgt), e.n
		if e.greater {
			op = opJge
		}
		c := cond(test{a: []bpf.RawInstruction{{Op: opLdLen}}, op: op, k: k})
		if !e.greater {
			c = no(c)
		}
		return c
	case relation:
		return w.relation(e)
	case ident:
		return w.ident(e)
	}
	return truth(false)
}

// carries is the test of what the link header says is in the frame: an
// Ethernet type, or up to 1500 an LLC service access point.
func (w *lowering) carries(pos int, t uint32) cond {
	if w.labels > 0 {
		// The last label has its bottom bit set, and no label says what follows.
		v := map[uint32]uint32{etherIP: 0x40, etherIPv6: 0x60}[t]
		if v == 0 {
			return w.fail(pos, "of what MPLS carries only IP can be told")
		}
		bottom := load(opLdB, w.net-2, opJset, 1)
		return allOf(bottom, masked(opLdB, w.net, v, 0xf0))
	}
	switch w.kind {
	case ethernet, cooked:
		isLLC := no(load(opLdH, w.typ, opJgt, maxLength))
		if w.kind == cooked {
			isLLC = load(opLdH, w.typ, opJeq, 4) // LINUX_SLL_P_802_2
		}
		snap := func(org, proto uint32) cond {
			return allOf(load(opLdW, w.net+4, opJeq, org<<16|proto), load(opLdW, w.net, opJeq, 0xaaaa0300|org>>16))
		}
		switch t {
		case sapISO, sapNetBEUI:
			return allOf(isLLC, load(opLdH, w.net, opJeq, t<<8|t))
		case sapIPX:
			novell := load(opLdH, w.net, opJeq, 0xffff)
			llc := allOf(isLLC, anyOf(snap(0, etherIPX), load(opLdB, w.net, opJeq, sapIPX), novell))
			if w.kind == cooked { // which has a type of its own for Novell's frames
				llc = anyOf(load(opLdH, w.typ, opJeq, 1), allOf(isLLC, anyOf(load(opLdB, w.net, opJeq, sapIPX), snap(0, etherIPX))))
			}
			return anyOf(load(opLdH, w.typ, opJeq, etherIPX), llc)
		case etherATalk:
			return anyOf(load(opLdH, w.typ, opJeq, t), allOf(isLLC, snap(0x080007, t)))
		case etherAARP:
			return anyOf(load(opLdH, w.typ, opJeq, t), allOf(isLLC, snap(0, t)))
		}
		if t <= maxLength {
			return allOf(isLLC, load(opLdB, w.net, opJeq, t))
		}
		return load(opLdH, w.typ, opJeq, t)
	case ppp:
		if v, ok := map[uint32]uint32{
			etherIP: 0x21, etherIPv6: 0x57, 0x6003: 0x27, etherATalk: 0x29, sapISO: 0x23, sapSTP: 0x31, sapIPX: 0x2b,
			etherMPLS: 0x281,
		}[t]; ok {
			t = v
		}
		return load(opLdH, w.typ, opJeq, t)
	case family:
		// Linux, NetBSD and OpenBSD, FreeBSD and macOS number IPv6 differently.
		numbers := map[uint32][]uint32{etherIP: {2}, etherIPv6: {10, 24, 28, 30}}[t]
		var c []cond
		for _, n := range numbers {
			var b [4]byte
			binary.LittleEndian.PutUint32(b[:], n)
			c = append(c, load(opLdW, w.typ, opJeq, n), load(opLdW, w.typ, opJeq, binary.BigEndian.Uint32(b[:])))
		}
		return anyOf(c...)
	case rawIP:
		switch t {
		case etherIP:
			return masked(opLdB, w.net, 0x40, 0xf0)
		case etherIPv6:
			return masked(opLdB, w.net, 0x60, 0xf0)
		}
	case onlyIPv4:
		return truth(t == etherIP)
	case onlyIPv6:
		return truth(t == etherIPv6)
	}
	return truth(false)
}

// protocol is a protocol's keyword alone.
func (w *lowering) protocol(pos int, name string) cond {
	if t, ok := transport[name]; ok {
		return w.ipProto(pos, t.proto, t.family)
	}
	return w.carries(pos, ethertypes[name])
}

// ipProto is the test of what IP carries. In IPv6 a fragment header may come
// before it, and no other is looked behind.
func (w *lowering) ipProto(pos int, proto uint32, version int) cond {
	var c []cond
	if version != 6 {
		c = append(c, allOf(w.carries(pos, etherIP), load(opLdB, w.net+9, opJeq, proto)))
	}
	if version != 4 {
		fragment := allOf(load(opLdB, w.net+6, opJeq, 44), load(opLdB, w.net+40, opJeq, proto))
		c = append(c, allOf(w.carries(pos, etherIPv6), anyOf(load(opLdB, w.net+6, opJeq, proto), fragment)))
	}
	return anyOf(c...)
}

func (w *lowering) cast(e cast) cond {
	switch e.name {
	case "ip":
		if e.multi {
			return allOf(w.carries(e.pos, etherIP), load(opLdB, w.net+16, opJge, 224))
		}
		if w.live {
			return w.fail(e.pos, `"ip broadcast" needs the network's mask: write "dst host" and the broadcast address`)
		}
		// No mask is known of a file, so a network's own broadcast address is none.
		all := anyOf(load(opLdW, w.net+16, opJeq, 0), load(opLdW, w.net+16, opJeq, 1<<32-1))
		return allOf(w.carries(e.pos, etherIP), all)
	case "ip6":
		return allOf(w.carries(e.pos, etherIPv6), load(opLdB, w.net+24, opJeq, 0xff))
	}
	if w.kind != ethernet {
		return w.fail(e.pos, "%s has no hardware addresses: write ip or ip6 before it", w.name)
	}
	if e.multi {
		return load(opLdB, w.hdr, opJset, 1)
	}
	return w.mac([6]byte{255, 255, 255, 255, 255, 255}, w.hdr)
}

// mac is the test of a hardware address at an offset.
func (w *lowering) mac(m [6]byte, off uint32) cond {
	return allOf(load(opLdW, off+2, opJeq, binary.BigEndian.Uint32(m[2:])),
		load(opLdH, off, opJeq, uint32(binary.BigEndian.Uint16(m[:]))))
}

func (w *lowering) direction(e direction) (c cond) {
	switch {
	case w.first.kind == cooked && w.first.net == 16:
		c = load(opLdH, 0, opJeq, pktOutgoing)
	case w.first.kind == cooked:
		c = load(opLdB, 10, opJeq, pktOutgoing)
	case w.live:
		c = load(opLdH, adPktType, opJeq, pktOutgoing)
	default:
		return w.fail(e.pos, "a file of %s does not tell the direction of packets", w.name)
	}
	if !e.out {
		c = no(c)
	}
	return c
}

func (w *lowering) tag(e tag) (c cond) {
	switch e.name {
	case "vlan":
		if w.kind != ethernet || w.labels > 0 {
			return w.fail(e.pos, "VLAN tags are of Ethernet, not of %s", w.inside())
		}
		if w.vlans++; w.vlans == 1 {
			if w.asked = true; w.beside {
				c = truth(true)
				if e.has {
					c = masked(opLdH, adVLAN, e.num, 0xfff)
				}
				return c
			}
		}
		c = anyOf(w.carries(e.pos, etherVLAN), w.carries(e.pos, etherQinQ), w.carries(e.pos, etherOldQ))
		if e.has {
			c = allOf(c, masked(opLdH, w.net, e.num, 0xfff))
		}
		w.typ += 4
		w.net += 4
	case "mpls":
		switch {
		case w.labels > 0:
			c = no(load(opLdB, w.net-2, opJset, 1))
		case w.kind == ethernet || w.kind == ppp:
			c = w.carries(e.pos, etherMPLS)
		default:
			return w.fail(e.pos, "MPLS is of Ethernet and PPP, not of %s", w.name)
		}
		if e.has {
			c = allOf(c, masked(opLdW, w.net, e.num<<12, 0xfffff000))
		}
		w.net += 4
		w.labels++
	default:
		if w.kind != ethernet && w.kind != cooked || w.labels > 0 {
			return w.fail(e.pos, "PPPoE is of Ethernet, not of %s", w.inside())
		}
		if e.name == "pppoed" {
			return w.carries(e.pos, etherPPPoD)
		}
		c = w.carries(e.pos, etherPPPoS)
		if e.has {
			c = allOf(c, load(opLdH, w.net+2, opJeq, e.num))
		}
		at := w.net + 6
		w.layout = layout{"PPPoE", ppp, at, at, at + 2}
	}
	return c
}

// inside names what the layout has come to.
func (w *lowering) inside() string {
	if w.labels > 0 {
		return "MPLS"
	}
	return w.name
}

// ident is an address, network, port or protocol behind its qualifiers.
func (w *lowering) ident(e ident) cond {
	pos := e.id.pos
	switch e.q.kind {
	case "port", "portrange":
		lo, hi, proto, _ := portsOf(e.id, e.q)
		return w.port(pos, lo, hi, proto, e.q.dir)
	case "proto":
		v, _ := protoOf(e.id, e.q.proto)
		switch e.q.proto {
		case "ether":
			return w.carries(pos, v)
		case "ip":
			return w.ipProto(pos, v, 4)
		case "ip6":
			return w.ipProto(pos, v, 6)
		}
		return w.ipProto(pos, v, 0)
	}
	if e.id.kind == mac {
		if w.kind != ethernet {
			return w.fail(pos, "%s has no hardware addresses", w.inside())
		}
		return sides(e.q.dir, w.mac(e.id.mac, w.hdr+6), w.mac(e.id.mac, w.hdr))
	}
	if e.id.kind == six {
		at := func(off uint32) cond {
			c := make([]cond, 4)
			bits := e.bits
			if bits < 0 {
				bits = 128
			}
			b := e.id.addr.As16()
			for i := range c {
				n := min(max(bits-32*i, 0), 32)
				c[i] = masked(opLdW, off+uint32(4*i), binary.BigEndian.Uint32(b[4*i:]), uint32(uint64(1<<32-1)<<(32-n))) //nolint:gosec // 0 to 3
			}
			return allOf(c...)
		}
		return allOf(w.carries(pos, etherIPv6), sides(e.q.dir, at(w.net+8), at(w.net+24)))
	}
	a, mask, _ := e.ipv4()
	host := func(t, src, dst uint32) cond {
		return allOf(w.carries(pos, t), sides(e.q.dir, masked(opLdW, w.net+src, a, mask), masked(opLdW, w.net+dst, a, mask)))
	}
	var c []cond
	if e.q.proto == "" || e.q.proto == "ip" {
		c = append(c, host(etherIP, 12, 16))
	}
	if e.q.proto == "arp" || e.q.proto == "" && w.labels == 0 {
		c = append(c, host(etherARP, 14, 24))
	}
	if e.q.proto == "rarp" || e.q.proto == "" && w.labels == 0 {
		c = append(c, host(etherRARP, 14, 24))
	}
	return anyOf(c...)
}

// sides joins the tests of source and destination.
func sides(dir string, src, dst cond) cond {
	switch dir {
	case "src":
		return src
	case "dst":
		return dst
	case "and":
		return allOf(src, dst)
	}
	return anyOf(src, dst)
}

// port is the test of ports: of IPv6 right behind its header, of IPv4 in what
// is no later fragment.
func (w *lowering) port(pos int, lo, hi uint32, proto, dir string) cond {
	protos := []uint32{132, 6, 17}
	if proto != "" {
		protos = []uint32{transport[proto].proto}
	}
	which := func(off uint32) cond {
		var c []cond
		for _, p := range protos {
			c = append(c, load(opLdB, off, opJeq, p))
		}
		return anyOf(c...)
	}
	between := func(t test) cond {
		if lo == hi {
			t.op, t.k = opJeq, lo
			return t
		}
		t.op, t.k = opJge, lo
		u := t
		u.op, u.k = opJgt, hi
		return allOf(t, no(u))
	}
	v6 := func(off uint32) cond {
		return between(test{a: []bpf.RawInstruction{{Op: opLdH, K: w.net + 40 + off}}})
	}
	v4 := func(off uint32) cond {
		return between(test{x: []bpf.RawInstruction{{Op: opMshX, K: w.net}}, a: []bpf.RawInstruction{{Op: opIndW | 8, K: w.net + off}}})
	}
	return anyOf(
		allOf(w.carries(pos, etherIPv6), which(w.net+6), sides(dir, v6(0), v6(2))),
		allOf(w.carries(pos, etherIP), which(w.net+9), no(load(opLdH, w.net+6, opJset, 0x1fff)), sides(dir, v4(0), v4(2))),
	)
}

// value is what computes A.
type value struct {
	x, a []bpf.RawInstruction
	wild bool   // a changes X
	need []cond // what must hold for the bytes to be those that were meant
}

// code returns the instructions of a value in a row.
func (v value) code() []bpf.RawInstruction {
	return append(append([]bpf.RawInstruction{}, v.x...), v.a...)
}

// then returns v with further instructions that do not change X.
func (v value) then(i ...bpf.RawInstruction) value {
	v.a = append(append([]bpf.RawInstruction{}, v.a...), i...)
	return v
}

// arith computes a value; the words of scratch memory from slot on are free.
func (w *lowering) arith(a arith, slot uint32) value {
	switch a := a.(type) {
	case constant:
		return value{a: []bpf.RawInstruction{{Op: opLdImm, K: uint32(a)}}}
	case pktlen:
		return value{a: []bpf.RawInstruction{{Op: opLdLen}}}
	case unary:
		return w.arith(a.a, slot).then(bpf.RawInstruction{Op: opNeg})
	case access:
		return w.access(a, slot)
	case operator:
		op := opAlu | aluOps[a.op]
		if c, ok := a.b.(constant); ok {
			return w.arith(a.a, slot).then(bpf.RawInstruction{Op: op, K: uint32(c)})
		}
		return w.both(a.a, a.b, slot).then(bpf.RawInstruction{Op: op | withX})
	}
	return value{}
}

// both computes a into A and b into X.
func (w *lowering) both(a, b arith, slot uint32) value {
	if slot >= scratchWords {
		w.fail(0, "the calculation needs more than %d words of memory", scratchWords)
		return value{}
	}
	u := w.arith(a, slot)
	v := w.arith(b, slot+1)
	code := append(u.code(), bpf.RawInstruction{Op: opSt, K: slot})
	code = append(code, v.code()...)
	code = append(code, bpf.RawInstruction{Op: opTax}, bpf.RawInstruction{Op: opLdMem, K: slot})
	return value{a: code, wild: true, need: append(u.need, v.need...)}
}

// access computes the value of bytes of a protocol's header.
func (w *lowering) access(e access, slot uint32) value {
	var v value
	size := map[int]uint16{1: opLdB, 2: opLdH, 4: opLdW}[e.size]
	base, viaIP := w.net, false
	switch t, ok := transport[e.proto]; {
	case e.proto == "ether":
		base = w.hdr
	case ok && t.family == 6:
		base += 40
		v.need = []cond{w.carries(e.pos, etherIPv6), load(opLdB, w.net+6, opJeq, t.proto)}
	case ok:
		viaIP = true
		v.need = []cond{
			w.carries(e.pos, etherIP), load(opLdB, w.net+9, opJeq, t.proto), no(load(opLdH, w.net+6, opJset, 0x1fff)),
		}
	default:
		v.need = []cond{w.carries(e.pos, ethertypes[e.proto])}
	}
	msh := bpf.RawInstruction{Op: opMshX, K: w.net}
	indirect := size&^opLdW | opIndW
	if c, ok := e.index.(constant); ok {
		at := base + uint32(c)
		if at >= adOff || uint32(c) >= adOff {
			w.fail(e.pos, "no packet is that long")
		}
		if viaIP {
			v.x, v.a = []bpf.RawInstruction{msh}, []bpf.RawInstruction{{Op: indirect, K: at}}
		} else {
			v.a = []bpf.RawInstruction{{Op: size, K: at}}
		}
		return v
	}
	i := w.arith(e.index, slot)
	code := i.code()
	if viaIP {
		code = append(code, msh, bpf.RawInstruction{Op: opAlu | aluOps["+"] | withX})
	}
	code = append(code, bpf.RawInstruction{Op: opTax}, bpf.RawInstruction{Op: indirect, K: base})
	return value{a: code, wild: true, need: append(i.need, v.need...)}
}

func (w *lowering) relation(e relation) cond {
	op, neg := uint16(opJeq), false
	switch e.op {
	case "!=":
		neg = true
	case ">":
		op = opJgt
	case "<=":
		op, neg = opJgt, true
	case ">=":
		op = opJge
	case "<":
		op, neg = opJge, true
	}
	var t test
	var v value
	c, isConst := e.b.(constant)
	switch d, both := e.a.(constant); {
	case both && isConst:
		return truth(compare(op, uint32(d), uint32(c)) != neg)
	case isConst:
		v = w.arith(e.a, 0)
		t = test{op: op, k: uint32(c)}
	default:
		v = w.both(e.a, e.b, 0)
		t = test{op: op | withX}
	}
	t.x, t.a, t.wild = v.x, v.a, v.wild
	r := cond(t)
	if neg {
		r = no(r)
	}
	return allOf(append(v.need, r)...)
}

// compare is what a conditional jump does.
func compare(op uint16, a, k uint32) bool {
	switch op {
	case opJeq:
		return a == k
	case opJgt:
		return a > k
	case opJge:
		return a >= k
	}
	return a&k != 0
}
