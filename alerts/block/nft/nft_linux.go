package nft

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/slips-go/slips/alerts/block"
)

const (
	priority = -10 // of the chains; filter is 0

	// What goes into one message. The length of its list of elements has 16 bits;
	// the library does not check it, and drops what is beyond without an error.
	chunkElements = 1000
	chunkBytes    = 60_000

	// The socket's buffers. One transaction is one datagram: 100,000 elements
	// are 8 MB. The kernel reserves what is used, not what is allowed.
	sendBuffer    = 256 << 20
	receiveBuffer = 16 << 20

	attempts = 5 // of a transaction, when elements end or are removed meanwhile

	// overdue is how long after its end an element may still be in the kernel:
	// timeouts are counted in ticks, of at most 10 ms.
	overdue = time.Second
	// minTimeout is the shortest timeout. None at all would mean for ever.
	minTimeout = time.Second
)

// Firewall is a block.Blocker that uses nftables. Its methods may be called by
// any goroutine; they wait for each other, but for Cut and Watch.
type Firewall struct {
	cfg   Config
	guard *block.Guard

	mu   sync.Mutex
	conn *nftables.Conn
	raw  *netlink.Conn // conn's socket

	// What is known about the kernel.
	ready   bool                         // our parts are in place
	been    bool                         // our table has been there, so that it is damage when it is not
	entries map[netip.Prefix]block.Entry // what is in the sets; some may have ended
	endless map[netip.Prefix]bool        // what somebody else put into the sets, without an end
	gen     uint32                       // number of the rule set at which that was true; 0: not known

	cannotClose atomic.Bool // the kernel cannot close sockets, and that has been said
}

var (
	_ block.Blocker = (*Firewall)(nil)
	_ block.Cutter  = (*Firewall)(nil)
	_ block.Watcher = (*Firewall)(nil)
)

// Open returns a Firewall and changes nothing. It fails when the kernel has no
// nftables or does not let us use it; the error says what is missing.
func Open(cfg Config) (*Firewall, error) {
	if cfg.Now == nil {
		return nil, errors.New("nftables: a firewall needs a clock")
	}
	if cfg.Table == "" {
		cfg.Table = DefaultTable
	}
	guard, err := block.NewGuard(block.Network{}, nil)
	if err != nil {
		return nil, err
	}
	f := &Firewall{cfg: cfg, guard: guard, entries: make(map[netip.Prefix]block.Entry), endless: make(map[netip.Prefix]bool)}
	if err := f.dial(); err != nil {
		return nil, explain("open nftables", err)
	}
	if _, err := f.generation(); err != nil {
		f.hangUp()
		return nil, explain("open nftables", err)
	}
	return f, nil
}

// Close closes the socket and leaves the blocks in place.
func (f *Firewall) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hangUp()
	return nil
}

func (f *Firewall) dial() error {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(f.cfg.NetNS), nftables.WithSockOptions(func(c *netlink.Conn) error {
		f.raw = c
		// Without CAP_NET_ADMIN in the first user namespace the system's limits
		// hold; they are enough for some thousand elements.
		return errors.Join(c.SetWriteBuffer(sendBuffer), c.SetReadBuffer(receiveBuffer))
	}))
	if err != nil {
		return err
	}
	f.conn = conn
	return nil
}

// hangUp closes the socket. It is also what follows an error: answers that
// nobody took would be read as those to the next question.
func (f *Firewall) hangUp() {
	if f.conn != nil {
		_ = f.conn.CloseLasting() // there is nothing to lose in a socket of netlink
	}
	f.conn, f.raw, f.gen = nil, nil, 0
}

// use runs do on the connection, which it opens if need be, until ctx is done.
func (f *Firewall) use(ctx context.Context, what string, do func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if f.conn == nil {
		if err := f.dial(); err != nil {
			return explain(what, err)
		}
	}
	deadline, _ := ctx.Deadline()
	if err := f.raw.SetDeadline(deadline); err != nil {
		return explain(what, err)
	}
	err := do()
	if err != nil && !errors.Is(err, block.ErrDamaged) && !errors.Is(err, block.ErrRefused) {
		f.hangUp()
		f.ready = false
	}
	return explain(what, err)
}

// explain says what an error means and what would help.
func explain(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s: %w: it takes CAP_NET_ADMIN (run as root, or \"setcap cap_net_raw,cap_net_admin+ep\" the program): %w",
			what, block.ErrPermission, err)
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EOPNOTSUPP),
		errors.Is(err, unix.ESOCKTNOSUPPORT):
		return fmt.Errorf("%s: %w: the kernel has no nftables (\"modprobe nf_tables\", or CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET): %w",
			what, block.ErrUnsupported, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// generation asks for the number of the rule set. Each transaction that
// anybody makes adds one; elements that end do not.
func (f *Firewall) generation() (uint32, error) { return generation(f.raw, unix.NFNL_SUBSYS_NFTABLES) }

// generation asks the subsystem of netfilter that nftables is. A kernel without
// one finds the question invalid.
func generation(c *netlink.Conn, subsystem netlink.HeaderType) (uint32, error) {
	reply, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: subsystem<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if errors.Is(err, unix.EINVAL) {
		err = fmt.Errorf("%w (%w)", unix.EOPNOTSUPP, err)
	}
	if err != nil {
		return 0, err
	}
	for _, m := range reply {
		if len(m.Data) < 4 {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return 0, err
		}
		ad.ByteOrder = binary.BigEndian
		for ad.Next() {
			if ad.Type() == unix.NFTA_GEN_ID {
				return ad.Uint32(), ad.Err()
			}
		}
	}
	return 0, errors.New("the kernel did not tell the number of its rule set")
}

// layout is our part of the rule set.
type layout struct {
	table  *nftables.Table
	chains []*nftables.Chain
	rules  []*nftables.Rule
	sets   [4]*nftables.Set
}

// The places in layout.sets.
const (
	hosts4 = iota
	hosts6
	nets4
	nets6
)

// sets returns our sets without what is around them, which is all that most
// changes need.
func (f *Firewall) sets() (sets [4]*nftables.Set) {
	table := &nftables.Table{Name: f.cfg.Table, Family: nftables.TableFamilyINet}
	for i, s := range []struct {
		name     string
		key      nftables.SetDatatype
		interval bool
	}{
		{"hosts4", nftables.TypeIPAddr, false},
		{"hosts6", nftables.TypeIP6Addr, false},
		{"nets4", nftables.TypeIPAddr, true},
		{"nets6", nftables.TypeIP6Addr, true},
	} {
		sets[i] = &nftables.Set{
			Table: table, Name: s.name, KeyType: s.key, Interval: s.interval, HasTimeout: true, KeyByteOrder: binaryutil.BigEndian,
		}
	}
	return sets
}

func (f *Firewall) layout() *layout {
	l := &layout{sets: f.sets()}
	l.table = l.sets[0].Table
	accept := nftables.ChainPolicyAccept
	for _, c := range []struct {
		name     string
		hook     *nftables.ChainHook
		loopback expr.MetaKey // interface that is compared with lo; 0: none
		src, dst bool
	}{
		{"input", nftables.ChainHookInput, expr.MetaKeyIIFNAME, true, false},
		{"output", nftables.ChainHookOutput, expr.MetaKeyOIFNAME, false, true},
		{"forward", nftables.ChainHookForward, 0, true, true},
	} {
		chain := &nftables.Chain{
			Name: c.name, Table: l.table, Type: nftables.ChainTypeFilter, Hooknum: c.hook,
			Priority: nftables.ChainPriorityRef(priority), Policy: &accept,
		}
		l.chains = append(l.chains, chain)
		add := func(name string, exprs ...expr.Any) {
			l.rules = append(l.rules, &nftables.Rule{
				Table: l.table, Chain: chain, Exprs: exprs,
				UserData: userdata.AppendString(nil, userdata.TypeComment, "slips: "+name),
			})
		}
		if c.loopback != 0 {
			lo := make([]byte, unix.IFNAMSIZ)
			copy(lo, "lo")
			add("loopback", &expr.Meta{Key: c.loopback, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: lo},
				&expr.Verdict{Kind: expr.VerdictAccept})
		}
		for _, s := range l.sets {
			if c.src {
				add("from "+s.Name, match(s, false)...)
			}
			if c.dst {
				add("to "+s.Name, match(s, true)...)
			}
		}
	}
	return l
}

// match returns the expressions of a rule that counts and drops packets whose
// source or destination is in s.
func match(s *nftables.Set, dst bool) []expr.Any {
	family, offset, length := byte(unix.NFPROTO_IPV4), uint32(12), uint32(4) // of the source address, RFC 791
	if s.KeyType == nftables.TypeIP6Addr {
		family, offset, length = unix.NFPROTO_IPV6, 8, 16 // RFC 8200
	}
	if dst {
		offset += length
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

// set returns the place of the set that p belongs to.
func set(p netip.Prefix) int {
	switch {
	case p.Addr().Is4() && p.IsSingleIP():
		return hosts4
	case p.IsSingleIP():
		return hosts6
	case p.Addr().Is4():
		return nets4
	}
	return nets6
}

// behind returns the address behind the last one of p; invalid when there is
// none.
func behind(p netip.Prefix) netip.Addr { return block.Last(p).Next() }

// chunks gathers elements of a set and sends as many at a time as go into one
// message.
type chunks struct {
	send func([]nftables.SetElement) error // may not keep the slice
	list []nftables.SetElement
	size int
	err  error // of the first send that failed
}

// add appends what stands for p: an element, or the start and the end of an
// interval. Timeout and comment are for elements that are added.
func (c *chunks) add(p netip.Prefix, timeout time.Duration, comment string) {
	c.element(nftables.SetElement{Key: p.Addr().AsSlice(), Timeout: timeout, Comment: comment})
	if p.IsSingleIP() {
		return
	}
	if end := behind(p); end.IsValid() {
		c.element(nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
	}
}

func (c *chunks) element(e nftables.SetElement) {
	// Each attribute has a header of 4 bytes and ends at a multiple of 4: the
	// element, key and value, flags, timeout, comment with type, length and zero.
	size := 4 + 8 + len(e.Key) + 8 + 12 + 4 + (len(e.Comment)+3+3)&^3
	if len(c.list) == chunkElements || c.size+size > chunkBytes {
		c.flush()
	}
	c.list = append(c.list, e)
	c.size += size
}

func (c *chunks) flush() {
	if len(c.list) > 0 && c.err == nil {
		c.err = c.send(c.list)
	}
	c.list, c.size = c.list[:0], 0
}

// queue calls fill with chunks for each of the sets, and adds what it gathers
// to the transaction.
func queue(sets [4]*nftables.Set, send func(*nftables.Set, []nftables.SetElement) error, fill func(*[4]chunks)) error {
	var c [len(sets)]chunks
	for i, s := range sets {
		c[i].send = func(list []nftables.SetElement) error { return send(s, list) }
	}
	fill(&c)
	var errs []error
	for i := range c {
		c[i].flush()
		errs = append(errs, c[i].err)
	}
	return errors.Join(errs...)
}

// Block implements block.Blocker. Without entries it puts our parts in place.
func (f *Firewall) Block(ctx context.Context, entries []block.Entry) error {
	clean := make([]block.Entry, 0, len(entries))
	for _, e := range entries {
		p, err := block.Canonical(e.Prefix)
		if err != nil {
			return fmt.Errorf("block with nftables: %w", err)
		}
		if e.Until.IsZero() {
			return fmt.Errorf("block %s with nftables: %w: it has no end", block.Text(p), block.ErrRefused)
		}
		why := f.guard.Protects(p, true)
		if why == "" && f.cfg.Refuse != nil {
			why = f.cfg.Refuse(p)
		}
		if why != "" {
			return fmt.Errorf("%w: %s, says the firewall about %s", block.ErrRefused, why, block.Text(p))
		}
		e.Prefix = p
		clean = append(clean, e)
	}
	clean = normal(clean)
	return f.use(ctx, "block with nftables", func() error {
		return f.transact(func() error { return f.queueBlock(clean) }, func() {
			if !f.ready { // all is new
				clear(f.endless)
			}
			for _, e := range clean {
				f.entries[e.Prefix] = e
				delete(f.endless, e.Prefix)
			}
			f.ready, f.been = true, true
		})
	})
}

// queueBlock adds to the transaction what blocks entries, and our parts of the
// rule set when they are not in place. entries are in the order of their
// prefixes, each once.
func (f *Firewall) queueBlock(entries []block.Entry) error {
	sets := f.sets()
	now := f.cfg.Now()
	if !f.ready {
		l := f.layout()
		left := make([]block.Entry, 0, len(f.entries)+len(entries))
		for _, e := range f.entries {
			if e.Until.After(now) {
				left = append(left, e)
			}
		}
		entries = normal(append(left, entries...))
		// Whatever is there is replaced, in one transaction: a table that lacks a
		// chain, or has another one's set of the same name, cannot be mended.
		f.conn.AddTable(l.table)
		f.conn.DelTable(l.table)
		f.conn.AddTable(l.table)
		for _, s := range l.sets {
			if err := f.conn.AddSet(s, nil); err != nil {
				return err
			}
		}
		for _, c := range l.chains {
			f.conn.AddChain(c)
		}
		for _, r := range l.rules {
			f.conn.AddRule(r)
		}
	}
	if f.ready {
		if err := queue(sets, f.conn.SetDeleteElements, func(c *[4]chunks) {
			for _, e := range entries {
				if old, ok := f.entries[e.Prefix]; f.endless[e.Prefix] || ok && old.Until.After(now.Add(-overdue)) {
					// Adding it again would not change its end before Linux 6.12.
					c[set(e.Prefix)].add(e.Prefix, 0, "")
				}
			}
		}); err != nil {
			return err
		}
	}
	return queue(sets, f.conn.SetAddElements, func(c *[4]chunks) {
		for _, e := range entries {
			c[set(e.Prefix)].add(e.Prefix, max(e.Until.Sub(now), minTimeout).Round(time.Millisecond), comment(e))
		}
	})
}

// normal returns entries in the order of their prefixes, the last of those
// with the same prefix.
func normal(entries []block.Entry) []block.Entry {
	byPrefix := func(a, b block.Entry) int { return a.Prefix.Compare(b.Prefix) }
	if !slices.IsSortedFunc(entries, byPrefix) {
		slices.SortStableFunc(entries, byPrefix)
	}
	n := 0
	for i, e := range entries {
		if i+1 < len(entries) && entries[i+1].Prefix == e.Prefix {
			continue
		}
		entries[n] = e
		n++
	}
	return entries[:n]
}

// transact sends what fill queues as one transaction, and calls done when the
// kernel has taken it. When the kernel's sets are not what we thought, it
// looks and tries again.
func (f *Firewall) transact(fill func() error, done func()) error {
	var err error
	for range attempts {
		if !f.ready {
			if _, e := f.look(); e != nil && !errors.Is(e, block.ErrDamaged) {
				return e
			}
		}
		if err = fill(); err != nil {
			return err
		}
		if err = f.conn.Flush(); err == nil {
			gen, e := f.generation()
			if e != nil {
				return e
			}
			if f.gen != 0 && gen != f.gen { // an empty transaction is none
				if f.gen++; gen != f.gen {
					f.gen = 0 // somebody else's came between
				}
			}
			done()
			return nil
		}
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.EINTR) {
			return err
		}
		f.hangUp()
		if e := f.dial(); e != nil {
			return e
		}
		f.ready = false
	}
	return err
}

// Unblock implements block.Blocker.
func (f *Firewall) Unblock(ctx context.Context, prefixes []netip.Prefix) error {
	clean := make([]netip.Prefix, len(prefixes))
	for i, p := range prefixes {
		var err error
		if clean[i], err = block.Canonical(p); err != nil {
			return fmt.Errorf("unblock with nftables: %w", err)
		}
	}
	return f.use(ctx, "unblock with nftables", func() error {
		gone := make(map[netip.Prefix]bool, len(prefixes))
		first := true
		return f.transact(func() error {
			defer func() { first = false }()
			clear(gone)
			now := f.cfg.Now()
			return queue(f.sets(), f.conn.SetDeleteElements, func(c *[4]chunks) {
				for _, p := range clean {
					// The first try takes the caller at his word; when something is not
					// there, the next one goes by what is.
					if e, ok := f.entries[p]; !gone[p] && (first || ok && e.Until.After(now.Add(-overdue))) {
						c[set(p)].add(p, 0, "")
					}
					gone[p] = true
				}
			})
		}, func() {
			for p := range gone {
				delete(f.entries, p)
			}
		})
	})
}

// List implements block.Blocker. It asks the kernel for the elements only
// when somebody has changed the rule set. That there is no table is damage only
// when this Firewall has made or seen it.
func (f *Firewall) List(ctx context.Context) ([]block.Entry, error) {
	var list []block.Entry
	err := f.use(ctx, "list the blocks of nftables", func() error {
		gen, err := f.generation()
		if err != nil {
			return err
		}
		var damage error
		if !f.ready || f.gen == 0 || gen != f.gen {
			if damage, err = f.lookAt(gen); err != nil {
				return err
			}
		}
		now := f.cfg.Now()
		for p, e := range f.entries {
			if !e.Until.After(now.Add(-overdue)) {
				delete(f.entries, p)
			} else if e.Until.After(now) {
				list = append(list, e)
			}
		}
		return damage
	})
	return list, err
}

// Remove deletes our table and with it every block.
func (f *Firewall) Remove(ctx context.Context) error {
	return f.use(ctx, "remove our table from nftables", func() error {
		l := f.layout()
		f.conn.AddTable(l.table) // so that there is one to delete
		f.conn.DelTable(l.table)
		if err := f.conn.Flush(); err != nil {
			return err
		}
		f.ready, f.been, f.gen = false, false, 0
		clear(f.entries)
		clear(f.endless)
		return nil
	})
}

// look reads what the kernel has. See lookAt.
func (f *Firewall) look() (damage, err error) {
	gen, err := f.generation()
	if err != nil {
		return nil, err
	}
	return f.lookAt(gen)
}

// lookAt reads what the kernel has, and whether our parts are in place:
// damage, an ErrDamaged, says what is not. Where they have never been there is
// no damage, but f.ready is not set. gen is the number of the rule set.
func (f *Firewall) lookAt(gen uint32) (damage, err error) {
	f.ready, f.gen = false, 0
	clear(f.entries)
	clear(f.endless)
	l := f.layout()
	tables, err := f.conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == l.table.Name })
	if at < 0 && !f.been {
		return nil, nil
	}
	if at < 0 {
		return fmt.Errorf("%w: there is no table inet %s", block.ErrDamaged, l.table.Name), nil
	}
	f.been = true
	if tables[at].Flags != 0 { // ours has none; the usual one is "dormant"
		damage = fmt.Errorf("%w: table inet %s is switched off", block.ErrDamaged, l.table.Name)
	}
	for i, want := range l.sets {
		got, err := f.conn.GetSetByName(l.table, want.Name)
		if err != nil && !f.answers() {
			return nil, err
		}
		if err != nil || !sameSet(got, want) {
			damage = fmt.Errorf("%w: set %s is not ours", block.ErrDamaged, want.Name)
			continue
		}
		list, err := f.dump(want)
		if err != nil {
			return nil, err
		}
		f.take(i, list)
	}
	if damage == nil {
		if damage, err = f.checkChains(l); err != nil {
			return nil, err
		}
	}
	after, err := f.generation()
	if err != nil {
		return nil, err
	}
	f.ready = damage == nil
	if after == gen {
		f.gen = gen
	}
	return damage, nil
}

// answers reports whether the kernel answers in order. After a question that
// failed it says that there is no such thing, or that the library cannot read
// what is there; either way it is not ours.
func (f *Firewall) answers() bool {
	_, err := f.generation()
	return err == nil
}

// sameSet reports whether a set takes and matches what ours does. The type of
// its key is only what "nft list" shows; the kernel goes by the length.
func sameSet(got, want *nftables.Set) bool {
	return got.KeyType.Bytes == want.KeyType.Bytes && got.Interval == want.Interval && got.HasTimeout && !got.IsMap &&
		!got.Concatenation && got.Size == 0
}

// sameRule reports whether the kernel gives a rule of ours back: what it does,
// and its comment.
func sameRule(got, want *nftables.Rule) bool {
	return bytes.Equal(got.UserData, want.UserData) && slices.EqualFunc(got.Exprs, want.Exprs, sameExpr)
}

func sameExpr(got, want expr.Any) bool {
	switch g := got.(type) {
	case *expr.Counter: // it has counted
		_, ok := want.(*expr.Counter)
		return ok
	case *expr.Lookup:
		w, ok := want.(*expr.Lookup)
		if !ok {
			return false
		}
		a, b := *g, *w
		a.SetID, b.SetID = 0, 0 // of the transaction that made it
		return a == b
	}
	return reflect.DeepEqual(got, want)
}

// checkChains compares chains and rules with ours: where they hook in, in which
// order, and what each does. A comment alone would be easy to keep.
func (f *Firewall) checkChains(l *layout) (damage, err error) {
	chains, err := f.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, err
	}
	chains = slices.DeleteFunc(chains, func(c *nftables.Chain) bool { return c.Table == nil || c.Table.Name != l.table.Name })
	if len(chains) > len(l.chains) {
		return fmt.Errorf("%w: table inet %s has %d chains, and ours has %d", block.ErrDamaged, l.table.Name, len(chains), len(l.chains)), nil
	}
	for _, want := range l.chains {
		at := slices.IndexFunc(chains, func(c *nftables.Chain) bool { return c.Name == want.Name })
		if at < 0 || chains[at].Hooknum == nil || *chains[at].Hooknum != *want.Hooknum || chains[at].Priority == nil ||
			*chains[at].Priority != *want.Priority || chains[at].Type != want.Type || chains[at].Policy == nil || *chains[at].Policy != *want.Policy {
			return fmt.Errorf("%w: chain %s is not ours", block.ErrDamaged, want.Name), nil
		}
		rules, err := f.conn.GetRules(l.table, want)
		if err != nil && !f.answers() {
			return nil, err
		}
		ours := slices.DeleteFunc(slices.Clone(l.rules), func(r *nftables.Rule) bool { return r.Chain != want })
		if err != nil || !slices.EqualFunc(rules, ours, sameRule) {
			return fmt.Errorf("%w: the rules of chain %s are not ours", block.ErrDamaged, want.Name), nil
		}
	}
	return nil, nil
}

// take enters the elements of set i.
func (f *Firewall) take(i int, list []nftables.SetElement) {
	now := f.cfg.Now()
	enter := func(p netip.Prefix, e nftables.SetElement) {
		if e.Timeout == 0 || e.Expires == 0 {
			f.endless[p] = true // somebody else's: not ours to judge, and restored by nobody
			return
		}
		x := block.Entry{Prefix: p, Until: now.Add(e.Expires)}
		parseComment(e.Comment, &x)
		f.entries[p] = x
	}
	if i == hosts4 || i == hosts6 {
		for _, e := range list {
			if a, ok := netip.AddrFromSlice(e.Key); ok {
				enter(netip.PrefixFrom(a, a.BitLen()), e)
			}
		}
		return
	}
	// Starts and ends in the order of addresses, the end of one interval before
	// the start of the next.
	slices.SortFunc(list, func(a, b nftables.SetElement) int {
		if c := bytes.Compare(a.Key, b.Key); c != 0 {
			return c
		}
		switch {
		case a.IntervalEnd == b.IntervalEnd:
			return 0
		case a.IntervalEnd:
			return -1
		}
		return 1
	})
	for j := 0; j+1 < len(list); j++ {
		if list[j].IntervalEnd || !list[j+1].IntervalEnd {
			continue
		}
		first, ok1 := netip.AddrFromSlice(list[j].Key)
		end, ok2 := netip.AddrFromSlice(list[j+1].Key)
		if !ok1 || !ok2 {
			continue
		}
		for bits := range first.BitLen() {
			if p := netip.PrefixFrom(first, bits); p.Masked() == p && behind(p) == end {
				enter(p, list[j])
				break
			}
		}
	}
}
