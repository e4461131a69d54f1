package bpf

import (
	"encoding/binary"
	"slices"

	"golang.org/x/net/bpf"
)

// node is a test and where to go from it, or one of the two ends.
type node struct {
	test   *test
	jt, jf *node
	accept bool // of an end

	a, x  int   // numbers of what it loads into A and X; 0: nothing
	facts *fact // what is known before the test

	reached    bool
	inA, inX   int // what A and X hold before it; 0: not known
	outA, outX int
	code       []bpf.RawInstruction // that sets A and X
	pos        int                  // of its first instruction
	far        [2]bool              // its jt and jf need an instruction of their own
	visited    bool
}

// fact is the outcome of a test, and those before it. Where paths meet, what
// is known is what all of them have in common from their beginning.
type fact struct {
	before *fact
	depth  int
	n      *node
	held   bool
}

// emit returns the program of a condition. Tests whose outcome is known from
// those before them are jumped over, and what A and X hold already is not
// loaded again.
func emit(c cond, snaplen uint32) []bpf.RawInstruction {
	b := &builder{loads: make(map[string]int)}
	yes, nope := &node{accept: true}, &node{}
	root := b.build(c, yes, nope)
	if root.test == nil {
		k := uint32(0)
		if root.accept {
			k = snaplen
		}
		return []bpf.RawInstruction{{Op: opRet, K: k}}
	}
	order := topological(root)
	thread(order)
	var live []*node
	for _, n := range order {
		if n.reached && n.test != nil {
			live = append(live, n)
		}
	}
	live = merge(live)
	elide(live)
	return layOut(live, yes, nope, snaplen)
}

// builder makes nodes of conditions.
type builder struct{ loads map[string]int }

// number returns the number of a sequence of instructions.
func (b *builder) number(i []bpf.RawInstruction) int {
	if len(i) == 0 {
		return 0
	}
	k := make([]byte, 0, 8*len(i))
	for _, r := range i {
		k = binary.BigEndian.AppendUint16(k, r.Op)
		k = binary.BigEndian.AppendUint32(k, r.K)
	}
	n, ok := b.loads[string(k)]
	if !ok {
		n = len(b.loads) + 1
		b.loads[string(k)] = n
	}
	return n
}

// build returns the node at which the condition begins, which goes to t when
// it holds and to f otherwise.
func (b *builder) build(c cond, t, f *node) *node {
	switch c := c.(type) {
	case truth:
		if c {
			return t
		}
		return f
	case not:
		return b.build(c.c, f, t)
	case and:
		return b.build(c.a, b.build(c.b, t, f), f)
	case or:
		return b.build(c.a, t, b.build(c.b, t, f))
	case test:
		return &node{
			test: &c, jt: t, jf: f, x: b.number(c.x),
			a: b.number(append(append([]bpf.RawInstruction{}, c.x...), c.a...)),
		}
	}
	return f
}

// topological returns the nodes, each before those it goes to.
func topological(root *node) []*node {
	var order []*node
	var walk func(n *node)
	walk = func(n *node) {
		if n == nil || n.visited {
			return
		}
		n.visited = true
		walk(n.jt)
		walk(n.jf)
		order = append(order, n)
	}
	walk(root)
	slices.Reverse(order)
	return order
}

// thread makes each node go past the tests whose outcome is known behind it.
func thread(order []*node) {
	order[0].reached = true
	for _, n := range order {
		if !n.reached || n.test == nil {
			continue
		}
		for _, held := range [...]bool{true, false} {
			f := &fact{before: n.facts, n: n, held: held}
			if f.depth = 1; n.facts != nil {
				f.depth += n.facts.depth
			}
			to := &n.jt
			if !held {
				to = &n.jf
			}
			for (*to).test != nil {
				known, is := f.tells(*to)
				if !known {
					break
				}
				if is {
					*to = (*to).jt
				} else {
					*to = (*to).jf
				}
			}
			if (*to).test != nil {
				(*to).arrive(f)
			}
		}
	}
}

// arrive notes a way to the node.
func (n *node) arrive(f *fact) {
	if !n.reached {
		n.reached, n.facts = true, f
		return
	}
	g := n.facts
	for f != g {
		switch {
		case g == nil || f != nil && f.depth > g.depth:
			f = f.before
		case f == nil || g.depth > f.depth:
			g = g.before
		default:
			f, g = f.before, g.before
		}
	}
	n.facts = f
}

// lookBack is how many facts are asked. A program that may be run has no more
// tests on a path; one that is far too large should be found so soon.
const lookBack = maxProgram / 2

// tells reports whether the facts decide the node's test, and how.
func (f *fact) tells(n *node) (known, is bool) {
	for i := 0; f != nil && i < lookBack; f, i = f.before, i+1 {
		if f.n.a != n.a {
			continue
		}
		t, u := f.n.test, n.test
		if t.op == u.op && t.k == u.k {
			return true, f.held
		}
		if f.held && t.op == opJeq && u.op&withX == 0 {
			return true, compare(u.op, t.k, u.k)
		}
	}
	return false, false
}

// merge makes one of nodes that test the same and go to the same.
func merge(live []*node) []*node {
	type key struct {
		a      int
		op     uint16
		k      uint32
		jt, jf *node
	}
	one := make(map[key]*node, len(live))
	same := make(map[*node]*node)
	for _, n := range slices.Backward(live) {
		for _, to := range [...]**node{&n.jt, &n.jf} {
			if m := same[*to]; m != nil {
				*to = m
			}
		}
		k := key{n.a, n.test.op, n.test.k, n.jt, n.jf}
		if m := one[k]; m != nil {
			same[n] = m
		} else {
			one[k] = n
		}
	}
	return slices.DeleteFunc(live, func(n *node) bool { return same[n] != nil })
}

// elide leaves out the loads of what A and X hold whichever way a node was
// reached.
func elide(live []*node) {
	met := make(map[*node]bool, len(live))
	for _, n := range live {
		t := n.test
		n.outA, n.outX = n.a, n.inX
		switch {
		case n.inA == n.a && t.op&withX == 0:
		case n.x != 0 && n.inX == n.x:
			n.code = t.a
		default:
			n.code = append(append([]bpf.RawInstruction{}, t.x...), t.a...)
			if n.x != 0 {
				n.outX = n.x
			}
		}
		if t.wild && len(n.code) > 0 {
			n.outX = 0
		}
		for _, m := range [...]*node{n.jt, n.jf} {
			if !met[m] {
				met[m], m.inA, m.inX = true, n.outA, n.outX
				continue
			}
			if m.inA != n.outA {
				m.inA = 0
			}
			if m.inX != n.outX {
				m.inX = 0
			}
		}
	}
}

// layOut puts the nodes in a row, with the ends behind them. A conditional
// jump reaches 255 instructions; one that goes further goes to a plain one.
func layOut(live []*node, yes, nope *node, snaplen uint32) []bpf.RawInstruction {
	for again := true; again; {
		again = false
		at := 0
		for _, n := range live {
			n.pos = at
			at += len(n.code) + 1
			for _, far := range n.far {
				if far {
					at++
				}
			}
		}
		yes.pos, nope.pos = at, at+1
		for _, n := range live {
			jump := n.pos + len(n.code)
			for i, to := range [...]*node{n.jt, n.jf} {
				if !n.far[i] && to.pos-jump-1 > 255 {
					n.far[i], again = true, true
				}
			}
		}
	}
	var p []bpf.RawInstruction
	for _, n := range live {
		p = append(p, n.code...)
		j := bpf.RawInstruction{Op: n.test.op, K: n.test.k}
		at, extra := len(p), 0
		var more []bpf.RawInstruction
		for i, to := range [...]*node{n.jt, n.jf} {
			by := to.pos - at - 1
			if n.far[i] {
				more = append(more, bpf.RawInstruction{Op: opJa, K: uint32(by - extra - 1)}) //nolint:gosec // forward
				by = extra
				extra++
			}
			if i == 0 {
				j.Jt = uint8(by) //nolint:gosec // up to 255
			} else {
				j.Jf = uint8(by) //nolint:gosec // up to 255
			}
		}
		p = append(append(p, j), more...)
	}
	return append(p, bpf.RawInstruction{Op: opRet, K: snaplen}, bpf.RawInstruction{Op: opRet})
}
