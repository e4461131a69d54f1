package bpf

import (
	"fmt"
	"net/netip"
	"strings"
)

// expr is a condition as it was written.
type expr any

type (
	joined struct { // a and b, a or b
		or   bool
		a, b expr
	}
	negation struct{ e expr }
	all      struct{} // the empty expression
	protocol struct { // a protocol's keyword alone
		pos  int
		name string
	}
	cast struct { // broadcast, multicast
		pos   int
		name  string // "", "ether", "ip", "ip6"
		multi bool
	}
	direction struct { // inbound, outbound
		pos int
		out bool
	}
	tag struct { // vlan, mpls, pppoed, pppoes
		pos  int
		name string
		num  uint32
		has  bool // a number was given
	}
	length struct { // less, greater: inclusive, both
		n       uint32
		greater bool
	}
	relation struct {
		op   string
		a, b arith
	}
	ident struct { // what stands behind qualifiers
		q  quals
		id token
		// Of an address with a mask.
		bits int // behind a slash; -1: none
		mask token
	}
)

// arith is a 32-bit value.
type arith any

type (
	constant uint32
	pktlen   struct{}
	unary    struct{ a arith } // minus
	operator struct {
		op   string
		a, b arith
	}
	access struct { // proto[index:size]
		pos   int
		proto string
		index arith
		size  int
	}
)

// quals are the qualifiers of an identifier, which hold for those that follow
// without any.
type quals struct {
	proto string // a keyword; "": any
	dir   string // "", "src", "dst", "or", "and"
	kind  string // "host", "net", "port", "portrange", "proto"; "": host
	set   bool   // there are any
}

// parser reads an expression by descent. The grammar's one ambiguity, that a
// parenthesis may open a condition or a calculation, is solved by trying both.
// After a mistake it stands at the end, where everything returns at once, and
// what it returns is thrown away.
type parser struct {
	text  string
	t     []token
	i     int
	depth int
	dead  bool
	far   *Error // of the mistakes the one furthest on, which is the one to tell
}

func parse(s string) (expr, error) {
	if len(s) > maxText {
		return nil, fmt.Errorf("packet filter: it has %d bytes; the limit is %d", len(s), maxText)
	}
	t, err := scan(s)
	if err != nil {
		return nil, err
	}
	p := &parser{text: s, t: t}
	if p.cur().kind == end {
		return all{}, nil
	}
	e, _ := p.expr(quals{})
	if p.cur().kind != end {
		p.fail(`expected "and", "or" or the end`)
	}
	if p.dead {
		return nil, p.far
	}
	return e, nil
}

func (p *parser) failAt(pos int, format string, a ...any) {
	if p.dead {
		return
	}
	if p.far == nil || pos > p.far.Pos {
		p.far = &Error{p.text, pos, fmt.Sprintf(format, a...)}
	}
	p.dead, p.i = true, len(p.t)-1
}

func (p *parser) fail(format string, a ...any) { p.failAt(p.cur().pos, format, a...) }

func (p *parser) cur() token { return p.peek(0) }

// peek returns the token n behind the next one.
func (p *parser) peek(n int) token { return p.t[min(p.i+n, len(p.t)-1)] }

// skip takes n tokens.
func (p *parser) skip(n int) { p.i = min(p.i+n, len(p.t)-1) }

// accept takes the operator or keyword if it is next.
func (p *parser) accept(s string) bool {
	if p.cur().is(s) {
		p.skip(1)
		return true
	}
	return false
}

func (p *parser) expect(s string) {
	if !p.accept(s) {
		p.fail("expected %q", s)
	}
}

// enter counts what is nested; leave is to be called behind it.
func (p *parser) enter() {
	if p.depth++; p.depth > maxDepth {
		p.fail("more than %d parentheses and negations in each other", maxDepth)
	}
}

func (p *parser) leave() { p.depth-- }

// expr reads terms joined by and and or, which bind equally. It returns the
// qualifiers of the last term, which are those of an identifier alone.
func (p *parser) expr(q quals) (expr, quals) {
	e, q := p.term(q, false)
	for {
		or := p.cur().is("or")
		if !or && !p.cur().is("and") {
			return e, q
		}
		p.skip(1)
		var b expr
		b, q = p.term(q, true)
		e = joined{or, e, b}
	}
}

// term reads one condition. bare says that identifiers may stand here without
// qualifiers, those of q being meant.
func (p *parser) term(q quals, bare bool) (expr, quals) {
	t := p.cur()
	if p.accept("!") {
		p.enter()
		defer p.leave()
		e, q := p.term(q, bare)
		return negation{e}, q
	}
	if e, ok := p.relation(); ok {
		return e, quals{}
	}
	switch {
	case bare && p.bareNext():
		if !q.set {
			p.fail("expected qualifiers such as host, net or port: there are none before it to carry over")
		}
		return p.id(q), q
	case t.is("("):
		p.skip(1)
		p.enter()
		defer p.leave()
		e, _ := p.expr(q)
		p.expect(")")
		return e, q
	case t.kind == word:
		return p.primitive()
	}
	p.fail("expected a condition such as host, net, port, tcp or vlan")
	return nil, quals{}
}

// bareNext reports whether an identifier without qualifiers comes next, also
// behind parentheses.
func (p *parser) bareNext() bool {
	for n := 0; ; n++ {
		switch t := p.peek(n); {
		case t.is("(") || t.is("!"):
		case t.kind == word:
			return !keyword(t.text)
		default:
			return t.kind != end && t.kind != punct
		}
	}
}

// keyword reports whether the word has a meaning of its own.
func keyword(s string) bool {
	switch s {
	case "src", "dst", "host", "net", "mask", "port", "portrange", "proto", "less", "greater", "broadcast", "multicast", "and", "or",
		"!", "len", "inbound", "outbound", "vlan", "mpls", "pppoed", "pppoes":
		return true
	}
	return protoName(s) || unsupported[s]
}

// protoName reports whether the keyword is that of a protocol.
func protoName(s string) bool {
	if _, ok := transport[s]; ok || s == "ether" {
		return true
	}
	_, ok := ethertypes[s]
	return ok && s != "ipv6" && s != "loopback"
}

// id reads an identifier, or several in parentheses.
func (p *parser) id(q quals) expr {
	t := p.cur()
	switch {
	case p.accept("!"):
		p.enter()
		defer p.leave()
		return negation{p.id(q)}
	case p.accept("("):
		p.enter()
		defer p.leave()
		e := p.id(q)
		for p.cur().is("and") || p.cur().is("or") {
			or := p.cur().is("or")
			p.skip(1)
			e = joined{or, e, p.id(q)}
		}
		p.expect(")")
		return e
	case t.kind == end, t.kind == punct:
		p.fail("expected %s", wanted(q))
	case t.kind == word && keyword(t.text):
		p.fail(`expected %s; %s is a keyword: write \%s for the name`, wanted(q), t.text, t.text)
	}
	p.skip(1)
	e := ident{q: q, id: t, bits: -1}
	switch {
	case t.kind == dotted || t.kind == six:
		if p.accept("/") {
			n := p.cur()
			most := uint32(32)
			if t.kind == six {
				most = 128
			}
			if n.kind != number || n.num > most {
				p.fail("expected a prefix length up to %d", most)
			}
			p.skip(1)
			e.bits = int(n.num)
		} else if t.kind == dotted && p.accept("mask") {
			if e.mask = p.cur(); e.mask.kind != dotted {
				p.fail("expected a mask such as 255.255.255.0")
			}
			p.skip(1)
		}
	case t.kind == number && p.cur().is("/"):
		p.fail("expected a network of at least two parts before the slash, such as 10.0/16")
	}
	if !p.dead {
		p.check(e)
	}
	return e
}

// wanted names what may stand behind the qualifiers.
func wanted(q quals) string {
	switch {
	case q.kind == "port":
		return "a port"
	case q.kind == "portrange":
		return "ports such as 1000-2000"
	case q.kind == "proto":
		return "a protocol's number, or its name behind a backslash"
	case q.proto == "ether":
		return "a hardware address"
	case q.kind == "net":
		return "a network"
	}
	return "an address"
}

// check reports what an identifier and its qualifiers do not allow.
func (p *parser) check(e ident) {
	t, q := e.id, e.q
	fail := func(format string, a ...any) { p.failAt(t.pos, format, a...) }
	isAddr := t.kind == dotted || t.kind == six || t.kind == mac
	switch q.kind {
	case "port", "portrange":
		if q.proto != "" && q.proto != "tcp" && q.proto != "udp" && q.proto != "sctp" {
			fail("ports are of tcp, udp and sctp, not of %s", q.proto)
		}
		if isAddr {
			fail("expected %s, not an address", wanted(q))
		}
		if _, _, _, err := portsOf(t, q); err != "" {
			fail("%s", err)
		}
		return
	case "proto":
		if isAddr {
			fail("expected %s, not an address", wanted(q))
		}
		if _, err := protoOf(t, q.proto); err != "" {
			fail("%s", err)
		}
		return
	}
	if t.kind == word || t.kind == quoted {
		fail("expected %s: names are not looked up", wanted(q))
		return
	}
	if q.proto == "ether" {
		if t.kind != mac {
			fail("expected a hardware address such as 00:11:22:33:44:55")
		}
		if q.kind == "net" {
			fail("a hardware address is no network")
		}
		return
	}
	switch t.kind {
	case mac:
		fail(`a hardware address stands behind "ether host", "ether src" or "ether dst"`)
	case six:
		if q.proto != "" && q.proto != "ip6" {
			fail("an IPv6 address stands behind ip6 or no protocol, not behind %s", q.proto)
		}
		if e.bits >= 0 && e.bits < 128 {
			if q.kind != "net" {
				fail(`a prefix stands behind "net"`)
			}
			if pre := netip.PrefixFrom(t.addr, e.bits); pre.Masked() != pre {
				fail("the address has bits beyond its prefix length")
			}
		}
	default:
		if q.proto != "" && q.proto != "ip" && q.proto != "arp" && q.proto != "rarp" {
			fail("an IPv4 address stands behind ip, arp, rarp or no protocol, not behind %s", q.proto)
		}
		if _, _, err := e.ipv4(); err != "" {
			fail("%s", err)
		}
	}
}

// ipv4 returns the address and mask of an IPv4 host or network.
func (e ident) ipv4() (a, mask uint32, err string) {
	if e.id.kind == number {
		a, mask = e.id.num, 1<<32-1
		for e.q.kind == "net" && a != 0 && a>>24 == 0 {
			a, mask = a<<8, mask<<8
		}
		return a, mask, ""
	}
	a, bits, ok := ipv4(e.id.text)
	if !ok {
		return 0, 0, "this is no IPv4 address"
	}
	mask = uint32(uint64(1<<32-1) << (32 - bits))
	switch {
	case e.bits >= 0:
		mask = uint32(uint64(1<<32-1) << (32 - e.bits))
	case e.mask.kind == dotted:
		if mask, _, ok = ipv4(e.mask.text); !ok {
			return 0, 0, "its mask is none"
		}
	default:
		return a, mask, ""
	}
	if a&^mask != 0 {
		return 0, 0, "the address has bits beyond its mask"
	}
	if e.q.kind != "net" {
		return 0, 0, `a mask stands behind "net"`
	}
	return a, mask, ""
}

// portsOf returns the ports of an identifier and the protocol of a name.
func portsOf(t token, q quals) (lo, hi uint32, proto, err string) {
	proto = q.proto
	one := func(s string) (uint32, string) {
		var n token
		if n.text = s; n.classify() == "" && n.kind == number {
			if n.num > 65535 {
				return 0, "a port is a number up to 65535"
			}
			proto = q.proto
			return n.num, ""
		}
		v, ok := ports[s]
		if !ok {
			return 0, fmt.Sprintf("no service is called %q here: give the port's number", s)
		}
		if v.proto != "" && q.proto != "" && v.proto != q.proto {
			return 0, fmt.Sprintf("the service %s is one of %s", s, v.proto)
		}
		if q.proto == "" {
			proto = v.proto
		}
		return uint32(v.port), ""
	}
	switch {
	case t.kind == number:
		if t.num > 65535 {
			return 0, 0, "", "a port is a number up to 65535"
		}
		return t.num, t.num, proto, ""
	case q.kind == "port":
		lo, err = one(t.text)
		return lo, lo, proto, err
	}
	a, b, ok := strings.Cut(t.text, "-")
	if !ok || strings.Contains(b, "-") || a == "" || b == "" {
		return 0, 0, "", "expected two ports with a dash between, such as 1000-2000"
	}
	if lo, err = one(a); err != "" {
		return 0, 0, "", err
	}
	first := proto
	if hi, err = one(b); err != "" {
		return 0, 0, "", err
	}
	if first != proto {
		proto = "" // two services, one of TCP and one of UDP
	}
	return min(lo, hi), max(lo, hi), proto, ""
}

// protoOf returns the number of the protocol that an identifier names.
func protoOf(t token, of string) (uint32, string) {
	names, most := protocols, uint32(255)
	switch of {
	case "", "ip", "ip6":
	case "ether":
		names, most = ethertypes, 65535
	default:
		return 0, `"proto" stands behind ip, ip6, ether or no protocol`
	}
	if t.kind == number {
		if t.num > most {
			return 0, fmt.Sprintf("a protocol's number is at most %d here", most)
		}
		if of == "ether" && t.num > 255 && t.num <= maxLength {
			return 0, "up to 1500 this is an LLC service access point, which is at most 255"
		}
		return t.num, ""
	}
	v, ok := names[t.text]
	if !ok {
		return 0, fmt.Sprintf("no protocol is called %q here: give its number", t.text)
	}
	return v, ""
}

// primitive reads what begins with a keyword.
func (p *parser) primitive() (expr, quals) {
	t := p.cur()
	if unsupported[t.text] {
		p.fail("%q is not supported", t.text)
	}
	switch t.text {
	case "less", "greater":
		p.skip(1)
		n := p.cur()
		if n.kind != number {
			p.fail("expected a length in bytes")
		}
		p.skip(1)
		return length{n.num, t.text == "greater"}, quals{}
	case "inbound", "outbound":
		p.skip(1)
		return direction{t.pos, t.text == "outbound"}, quals{}
	case "vlan", "mpls", "pppoed", "pppoes":
		p.skip(1)
		e := tag{pos: t.pos, name: t.text}
		if t.text != "pppoed" {
			e.num, e.has = p.tagNumber(map[string]uint32{"vlan": 0xfff, "mpls": 0xfffff, "pppoes": 0xffff}[t.text])
		}
		return e, quals{}
	}
	q := quals{set: true}
	if protoName(t.text) {
		p.skip(1)
		q.proto = t.text
	}
	switch n := p.cur(); {
	case n.is("broadcast"), n.is("multicast"):
		p.skip(1)
		multi := n.text == "multicast"
		if q.proto != "" && q.proto != "ether" && q.proto != "ip" && (q.proto != "ip6" || !multi) {
			p.failAt(n.pos, "%s is not of %s", n.text, q.proto)
		}
		return cast{n.pos, q.proto, multi}, quals{}
	case p.accept("proto"):
		q.kind = "proto"
		return p.id(q), q
	case n.is("src"), n.is("dst"):
		q.dir = p.dir()
		if k := p.cur(); k.is("host") || k.is("net") || k.is("port") || k.is("portrange") {
			p.skip(1)
			q.kind = k.text
		}
		return p.id(q), q
	case n.is("host"), n.is("net"), n.is("port"), n.is("portrange"):
		p.skip(1)
		q.kind = n.text
		return p.id(q), q
	case n.kind == word && unsupported[n.text]:
		p.fail("%q is not supported", n.text)
	}
	if q.proto == "" {
		p.fail("expected a condition such as host, net, port, tcp or vlan")
	}
	if q.proto == "ether" {
		p.fail("expected host, src, dst, proto, broadcast, multicast or [ behind ether")
	}
	return protocol{t.pos, q.proto}, quals{}
}

// dir reads src, dst, or both with and or or between.
func (p *parser) dir() string {
	first := p.cur().text
	p.skip(1)
	for _, join := range [...]string{"or", "and"} {
		if p.cur().is(join) {
			if m := p.peek(1); (m.is("src") || m.is("dst")) && m.text != first {
				// "src host a or dst host b" does not come here: the address is
				// between.
				p.skip(2)
				return join
			}
		}
	}
	return first
}

// tagNumber reads the number behind vlan, mpls or pppoes if there is one.
func (p *parser) tagNumber(most uint32) (uint32, bool) {
	open := 0
	for p.peek(open).is("(") {
		open++
	}
	n := p.peek(open)
	if n.kind != number {
		return 0, false
	}
	for i := range open {
		if !p.peek(open + 1 + i).is(")") {
			return 0, false
		}
	}
	if n.num > most {
		p.failAt(n.pos, "expected a number up to %d", most)
	}
	p.skip(2*open + 1)
	return n.num, true
}

// relation reads a comparison of two values if one comes next. Otherwise
// nothing is taken.
func (p *parser) relation() (expr, bool) {
	first := p.cur()
	switch {
	case first.kind == number, first.is("len"), first.is("("), first.is("-"):
	case first.kind == word && protoName(first.text) && p.peek(1).is("["):
	default:
		return nil, false
	}
	at, depth, far := p.i, p.depth, p.far
	e := relation{a: p.arith()}
	switch t := p.cur(); t.text {
	case ">", "<", "=", ">=", "<=", "!=":
		e.op = t.text
		p.skip(1)
		e.b = p.arith()
	default:
		p.fail("expected a comparison: = != < > <= >=")
		if first.kind == number && p.t[at+1].pos == t.pos {
			p.far = far // a number alone may well be something else
		}
	}
	if p.dead && (first.kind == number || first.is("(")) {
		// It may be an identifier, or a condition in parentheses.
		p.dead, p.i, p.depth = false, at, depth
		return nil, false
	}
	return e, true
}

// rank returns how tightly the operator binds, from 1. "^" and "%" have no
// rank in tcpdump's grammar, so beside others they need parentheses.
func rank(t token) int {
	if t.kind == punct {
		switch t.text {
		case "|":
			return 1
		case "&":
			return 2
		case "<<", ">>":
			return 3
		case "+", "-":
			return 4
		case "*", "/":
			return 5
		}
	}
	return 0
}

func (p *parser) arith() arith {
	a := p.factor()
	if t := p.cur(); t.is("^") || t.is("%") {
		p.skip(1)
		return p.combine(t, a, p.factor())
	}
	return p.climb(a, 1)
}

// climb reads the operators of at least the given rank and what they join to a.
func (p *parser) climb(a arith, least int) arith {
	for {
		t := p.cur()
		if t.is("^") || t.is("%") {
			p.fail("put what %s joins into parentheses", t.text)
		}
		r := rank(t)
		if r < least || r == 0 {
			return a
		}
		p.skip(1)
		b := p.factor()
		for next := rank(p.cur()); next > r; next = rank(p.cur()) {
			b = p.climb(b, next)
		}
		a = p.combine(t, a, b)
	}
}

// combine joins two values, at once when both are constant.
func (p *parser) combine(t token, a, b arith) arith {
	if c, ok := b.(constant); ok {
		switch {
		case c == 0 && (t.text == "/" || t.text == "%"):
			p.failAt(t.pos, "division by zero")
			return a
		case c > 31 && (t.text == "<<" || t.text == ">>"):
			p.failAt(t.pos, "a shift by more than 31 bits")
		}
		if d, ok := a.(constant); ok {
			return constant(calculate(t.text, uint32(d), uint32(c)))
		}
	}
	return operator{t.text, a, b}
}

// calculate is what the program would do. b is not zero where it divides.
func calculate(op string, a, b uint32) uint32 {
	switch op {
	case "|":
		return a | b
	case "&":
		return a & b
	case "^":
		return a ^ b
	case "<<":
		return a << b
	case ">>":
		return a >> b
	case "+":
		return a + b
	case "-":
		return a - b
	case "*":
		return a * b
	case "/":
		return a / b
	}
	return a % b
}

func (p *parser) factor() arith {
	p.enter()
	defer p.leave()
	t := p.cur()
	switch {
	case t.kind == number:
		p.skip(1)
		return constant(t.num)
	case p.accept("len"):
		return pktlen{}
	case p.accept("-"):
		a := p.factor()
		if c, ok := a.(constant); ok {
			return -c
		}
		return unary{a}
	case p.accept("("):
		a := p.arith()
		p.expect(")")
		return a
	case t.kind == word && protoName(t.text):
		p.skip(1)
		p.expect("[")
		e := access{pos: t.pos, proto: t.text, size: 1, index: p.arith()}
		if p.accept(":") {
			n := p.cur()
			if n.kind != number || n.num != 1 && n.num != 2 && n.num != 4 {
				p.fail("expected a size of 1, 2 or 4 bytes")
			}
			p.skip(1)
			e.size = int(n.num)
		}
		p.expect("]")
		switch t.text {
		case "ah", "esp", "stp", "ipx", "netbeui", "iso", "aarp":
			p.failAt(t.pos, "the bytes of %s cannot be asked for", t.text)
		}
		return e
	}
	p.fail("expected a number, len, or bytes such as tcp[13]")
	return constant(0)
}
