package nft_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	nl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/slips-go/slips/alerts/block"
	"github.com/slips-go/slips/alerts/block/nft"
	"github.com/slips-go/slips/internal/netspace"
)

func TestMain(m *testing.M) {
	if os.Getenv("NFT_TEST_OPEN") != "" {
		_, err := nft.Open(nft.Config{Now: time.Now})
		os.Stdout.WriteString(errors.Join(err).Error())
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const uuid = "0f8fad5b-d9cb-469f-a165-70867728950e"

func entry(p string, d time.Duration) block.Entry {
	prefix, err := block.ParsePrefix(p)
	if err != nil {
		panic(err)
	}
	return block.Entry{Prefix: prefix, Until: time.Now().Add(d), Offences: 2, Alert: uuid}
}

// near compares entries whose ends are within a second of each other.
func near() cmp.Options {
	return cmp.Options{
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b time.Time) bool { return a.Sub(b).Abs() < time.Second }),
	}
}

func list(t *testing.T, f *nft.Firewall) []block.Entry {
	t.Helper()
	l, err := f.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(l, func(a, b block.Entry) int { return a.Prefix.Compare(b.Prefix) })
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestTraffic blocks a neighbour: what passed before stops in both directions,
// also on a connection that stands, and passes again when the block has ended.
func TestTraffic(t *testing.T) {
	us, attacker := newSpace(t), newSpace(t)
	us.Link(attacker.Space, "v0", []string{"192.0.2.1/24", "2001:db8::1/64"}, []string{"192.0.2.2/24", "192.0.2.3/24", "2001:db8::2/64"})
	f := us.open()
	us.Echo("192.0.2.1:7")
	attacker.Echo("192.0.2.2:7")
	in, err := attacker.Dial("tcp", "192.0.2.1:7", 2*time.Second)
	must(t, err)
	defer in.Close()
	out, err := us.Dial("tcp", "192.0.2.2:7", 2*time.Second)
	must(t, err)
	defer out.Close()
	pass := func(want bool) {
		t.Helper()
		for _, dst := range []string{"192.0.2.1", "2001:db8::1"} {
			attacker.pings(dst, want)
		}
		for _, dst := range []string{"192.0.2.2", "2001:db8::2"} {
			us.pings(dst, want)
		}
		wait := 300 * time.Millisecond
		if want {
			wait = 10 * time.Second // the sender tries again less and less often
		}
		if got := netspace.Talk(in, wait); got != want {
			t.Errorf("the connection to us passes: %v, want %v", got, want)
		}
		if got := netspace.Talk(out, wait); got != want {
			t.Errorf("the connection from us passes: %v, want %v", got, want)
		}
	}
	pass(true)
	must(t, f.Block(t.Context(), []block.Entry{entry("192.0.2.2", time.Hour), entry("2001:db8::2", time.Hour)}))
	pass(false)
	us.pings("192.0.2.3", true) // another address of the same host
	for _, side := range []struct {
		from, to *space
		v4, v6   string
	}{{us, attacker, "192.0.2.2", "2001:db8::2"}, {attacker, us, "192.0.2.1", "2001:db8::1"}} {
		for _, dst := range []string{side.v4, side.v6} {
			if side.from.arrives(side.to, dst, 1) {
				t.Errorf("a datagram to %s arrives", dst)
			}
		}
	}
	if n := us.dropped(); n < 6 {
		t.Errorf("the rules count %d packets, want those that were dropped", n)
	}
	const lasts = 1500 * time.Millisecond
	start := time.Now()
	must(t, f.Block(t.Context(), []block.Entry{entry("192.0.2.2", lasts), entry("2001:db8::2", lasts)}))
	for !us.Ping("192.0.2.2", 1, 100*time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatal("the block does not end")
		}
	}
	if d := time.Since(start); d < lasts-100*time.Millisecond {
		t.Errorf("the block ended after %v, want %v", d, lasts)
	}
	pass(true)
	if l := list(t, f); len(l) != 0 {
		t.Errorf("%v is still listed", l)
	}
}

// TestForward blocks hosts whose traffic this machine forwards.
func TestForward(t *testing.T) {
	inside, router, outside := forwarding(t)
	f := router.open()
	c := through(t, inside, outside)
	inside.pings("198.51.100.2", true)
	must(t, f.Block(t.Context(), []block.Entry{entry("198.51.100.2", time.Hour)}))
	if netspace.Talk(c, 300*time.Millisecond) {
		t.Error("the connection passes")
	}
	if inside.arrives(outside, "198.51.100.2", 1) || outside.arrives(inside, "10.1.0.2", 1) {
		t.Error("a datagram arrives")
	}
	if !inside.arrives(outside, "198.51.100.3", 5) {
		t.Error("no datagram arrives at another host")
	}
	inside.pings("198.51.100.2", false)
	outside.pings("10.1.0.2", false)
	inside.pings("198.51.100.3", true)
	if c, err := outside.Dial("tcp", "10.1.0.2:7", 400*time.Millisecond); err == nil {
		c.Close()
		t.Error("a new connection passes")
	}
	must(t, f.Unblock(t.Context(), []netip.Prefix{netip.MustParsePrefix("198.51.100.2/32")}))
	inside.pings("198.51.100.2", true)
	must(t, f.Block(t.Context(), []block.Entry{entry("198.51.100.0/25", time.Hour)}))
	inside.pings("198.51.100.3", false)
	must(t, f.Remove(t.Context()))
	inside.pings("198.51.100.3", true)
}

// TestList reads back what was blocked, on the same firewall and on another
// one, as after a restart.
func TestList(t *testing.T) {
	s := newSpace(t)
	f := s.open()
	want := []block.Entry{
		entry("192.0.2.7", time.Minute), entry("198.51.100.0/25", time.Hour), entry("198.51.100.128/25", 30*time.Minute), entry("198.51.100.9", 2*time.Hour),
		entry("203.0.113.255", 300*24*time.Hour), entry("2001:db8::7", time.Minute), entry("2001:db8:1::/64", time.Hour), entry("2001:db8:1::1", time.Hour),
	}
	slices.SortFunc(want, func(a, b block.Entry) int { return a.Prefix.Compare(b.Prefix) })
	must(t, f.Block(t.Context(), want))
	if diff := cmp.Diff(want, list(t, f), near()); diff != "" {
		t.Error("the same firewall", diff)
	}
	if diff := cmp.Diff(want, list(t, s.open()), near()); diff != "" {
		t.Error("another firewall", diff)
	}
	// An end can be put off and brought forward, by a firewall that did not set it.
	g := s.open()
	list(t, g)
	for i := range want {
		want[i].Until = time.Now().Add(time.Duration(i+1) * 10 * time.Minute)
		want[i].Offences, want[i].Alert = 3, "op"
	}
	must(t, g.Block(t.Context(), want))
	if diff := cmp.Diff(want, list(t, s.open()), near()); diff != "" {
		t.Error("other ends", diff)
	}
	if diff := cmp.Diff(want, list(t, f), near()); diff != "" {
		t.Error("the first firewall has not seen the other's change", diff)
	}
	var all []netip.Prefix
	for _, e := range want {
		all = append(all, e.Prefix)
	}
	must(t, f.Unblock(t.Context(), append(all, all[0], netip.MustParsePrefix("192.0.2.200/32"))))
	for _, f := range []*nft.Firewall{f, g, s.open()} {
		if l := list(t, f); len(l) != 0 {
			t.Errorf("left: %v", l)
		}
	}
}

// TestStale works on elements that have ended or were removed meanwhile.
func TestStale(t *testing.T) {
	s := newSpace(t)
	f, g := s.open(), s.open()
	must(t, f.Block(t.Context(), []block.Entry{entry("192.0.2.1", time.Hour), entry("192.0.2.2", time.Hour), entry("192.0.2.3", time.Hour)}))
	list(t, g)
	must(t, g.Unblock(t.Context(), []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.2/32")}))
	must(t, f.Unblock(t.Context(), []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}))
	must(t, f.Block(t.Context(), []block.Entry{entry("192.0.2.2", 2*time.Hour)}))
	want := []block.Entry{entry("192.0.2.2", 2*time.Hour), entry("192.0.2.3", time.Hour)}
	if diff := cmp.Diff(want, list(t, g), near()); diff != "" {
		t.Error(diff)
	}
	must(t, g.Remove(t.Context()))
	must(t, f.Block(t.Context(), []block.Entry{entry("192.0.2.9", time.Hour)}))
	if diff := cmp.Diff([]block.Entry{entry("192.0.2.9", time.Hour)}, list(t, s.open()), near()); diff != "" {
		t.Error("after the table was removed", diff)
	}
	// Again and again around the end of an element, which may come at any step.
	must(t, f.Block(t.Context(), []block.Entry{entry("192.0.2.9", time.Second)}))
	deadline := time.Now().Add(1500 * time.Millisecond)
	for i := 0; time.Now().Before(deadline); i++ {
		must(t, f.Unblock(t.Context(), []netip.Prefix{netip.MustParsePrefix("192.0.2.9/32")}))
		must(t, f.Block(t.Context(), []block.Entry{{Prefix: netip.MustParsePrefix("192.0.2.9/32"), Until: time.Now()}}))
	}
}

// conn returns a connection of the library in the namespace, as another
// program has one.
func (s *space) conn() *nftables.Conn {
	s.t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(s.FD()))
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// dropped returns how many packets our rules count, as "nft list" shows them.
func (s *space) dropped() (n uint64) {
	s.t.Helper()
	c := s.conn()
	table := &nftables.Table{Name: nft.DefaultTable, Family: nftables.TableFamilyINet}
	for _, name := range []string{"input", "output", "forward"} {
		rules, err := c.GetRules(table, &nftables.Chain{Name: name, Table: table})
		if err != nil {
			s.t.Fatal(err)
		}
		for _, r := range rules {
			for _, e := range r.Exprs {
				if c, ok := e.(*expr.Counter); ok {
					n += c.Packets
				}
			}
		}
	}
	return n
}

// changeRule puts another rule in place of rule i of a chain, with its comment.
func changeRule(c *nftables.Conn, chain *nftables.Chain, i int, change func(*nftables.Rule)) {
	rules, err := c.GetRules(chain.Table, chain)
	if err != nil {
		panic(err)
	}
	r := rules[i]
	change(r)
	r.Chain, r.Table = chain, chain.Table
	c.ReplaceRule(r)
}

// remake replaces a table by one with the same chains and rules, and with sets
// that change has seen.
func remake(c *nftables.Conn, table *nftables.Table, change func(*nftables.Set)) {
	sets, err := c.GetSets(table)
	chains, e := c.ListChainsOfTableFamily(table.Family)
	if err = errors.Join(err, e); err != nil {
		panic(err)
	}
	rules := make(map[*nftables.Chain][]*nftables.Rule)
	for _, chain := range chains {
		if rules[chain], err = c.GetRules(table, chain); err != nil {
			panic(err)
		}
	}
	c.DelTable(table)
	c.AddTable(table)
	for _, s := range sets {
		change(s)
		s.KeyByteOrder = binaryutil.BigEndian
		if err := c.AddSet(s, nil); err != nil {
			panic(err)
		}
	}
	for _, chain := range chains {
		chain.Table = table
		c.AddChain(chain)
		for _, r := range rules[chain] {
			r.Chain, r.Table, r.Handle, r.Position = chain, table, 0, 0
			c.AddRule(r)
		}
	}
}

// lookup returns the part of a rule that asks a set.
func lookup(r *nftables.Rule) *expr.Lookup {
	for _, e := range r.Exprs {
		if l, ok := e.(*expr.Lookup); ok {
			return l
		}
	}
	panic("the rule asks no set")
}

// TestEndless blocks what somebody else has put into a set for ever. On Linux
// before 6.12 that would stay without an end, and be missed at every look.
func TestEndless(t *testing.T) {
	s := newSpace(t)
	f := s.open()
	must(t, f.Block(t.Context(), nil))
	conn := s.conn()
	table := &nftables.Table{Name: "slips", Family: nftables.TableFamilyINet}
	for name, e := range map[string][]nftables.SetElement{
		"hosts4": {{Key: []byte{192, 0, 2, 9}}},
		"nets4":  {{Key: []byte{198, 51, 100, 0}}, {Key: []byte{198, 51, 101, 0}, IntervalEnd: true}},
	} {
		must(t, conn.SetAddElements(&nftables.Set{Table: table, Name: name, KeyType: nftables.TypeIPAddr, Interval: name == "nets4", HasTimeout: true}, e))
	}
	must(t, conn.Flush())
	if l := list(t, f); len(l) != 0 {
		t.Errorf("what has no end is listed: %v", l)
	}
	want := []block.Entry{entry("192.0.2.9", time.Hour), entry("198.51.100.0/24", time.Hour)}
	must(t, f.Block(t.Context(), want))
	for name, f := range map[string]*nft.Firewall{"same": f, "another": s.open()} {
		if diff := cmp.Diff(want, list(t, f), near()); diff != "" {
			t.Error(name, diff)
		}
	}
}

// TestDamage changes our part behind our back: List says so, and the next
// Block mends it and keeps what is left.
func TestDamage(t *testing.T) {
	table := &nftables.Table{Name: "slips", Family: nftables.TableFamilyINet}
	chain := func(name string) *nftables.Chain { return &nftables.Chain{Name: name, Table: table} }
	kept := []block.Entry{entry("192.0.2.1", time.Hour), entry("198.51.100.0/24", time.Hour)}
	for _, c := range []struct {
		name   string
		change func(c *nftables.Conn)
		left   []block.Entry
	}{
		{"flush ruleset", func(c *nftables.Conn) { c.FlushRuleset() }, nil},
		{"delete table", func(c *nftables.Conn) { c.DelTable(table) }, nil},
		{"another policy", func(c *nftables.Conn) {
			drop, at := nftables.ChainPolicyDrop, nftables.ChainPriority(-10)
			c.AddChain(&nftables.Chain{
				Name: "forward", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: &at, Policy: &drop,
			})
		}, kept},
		{"flush table", func(c *nftables.Conn) { c.FlushTable(table) }, kept},
		{"flush chain", func(c *nftables.Conn) { c.FlushChain(chain("forward")) }, kept},
		{"delete chain", func(c *nftables.Conn) { c.FlushChain(chain("output")); c.DelChain(chain("output")) }, kept},
		{"rule added", func(c *nftables.Conn) {
			c.InsertRule(&nftables.Rule{Table: table, Chain: chain("input"), Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}})
		}, kept},
		{"empty table", func(c *nftables.Conn) { c.DelTable(table); c.AddTable(table) }, nil},
		{"set of another type", func(c *nftables.Conn) {
			c.DelTable(table)
			c.AddTable(table)
			c.AddSet(&nftables.Set{Table: table, Name: "hosts4", KeyType: nftables.TypeIP6Addr}, nil)
		}, nil},
		{"all as it was, but for the size of a set", func(c *nftables.Conn) { remake(c, table, func(s *nftables.Set) { s.Size = 1 }) }, nil},
		{"set of a type that the library does not know", func(c *nftables.Conn) {
			unknown := nftables.TypeIPAddr
			unknown.SetNFTMagic(61)
			c.DelTable(table)
			c.AddTable(table)
			c.AddSet(&nftables.Set{Table: table, Name: "hosts4", KeyType: unknown, HasTimeout: true}, nil)
		}, nil},
		{"another verdict, the same comment", func(c *nftables.Conn) {
			changeRule(c, chain("input"), 2, func(r *nftables.Rule) { r.Exprs[len(r.Exprs)-1] = &expr.Verdict{Kind: expr.VerdictAccept} })
		}, kept},
		{"another set, the same comment", func(c *nftables.Conn) {
			changeRule(c, chain("forward"), 0, func(r *nftables.Rule) { lookup(r).SetName = "nets4" })
		}, kept},
		{"all but those in the set, the same comment", func(c *nftables.Conn) {
			changeRule(c, chain("output"), 1, func(r *nftables.Rule) { lookup(r).Invert = true })
		}, kept},
		{"an expression more, the same comment", func(c *nftables.Conn) {
			changeRule(c, chain("input"), 1, func(r *nftables.Rule) {
				r.Exprs = append([]expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: 1, Unit: expr.LimitTimeHour, Burst: 1}}, r.Exprs...)
			})
		}, kept},
		{"loopback is another interface, the same comment", func(c *nftables.Conn) {
			changeRule(c, chain("input"), 0, func(r *nftables.Rule) {
				r.Exprs[1] = &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: append([]byte("v0"), make([]byte, unix.IFNAMSIZ-2)...)}
			})
		}, kept},
		{"another priority", func(c *nftables.Conn) {
			rules, _ := c.GetRules(table, chain("output"))
			accept, at := nftables.ChainPolicyAccept, nftables.ChainPriority(300)
			c.FlushChain(chain("output"))
			c.DelChain(chain("output"))
			c.AddChain(&nftables.Chain{
				Name: "output", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: &at, Policy: &accept,
			})
			for _, r := range rules {
				c.AddRule(&nftables.Rule{Table: table, Chain: chain("output"), Exprs: r.Exprs, UserData: r.UserData})
			}
		}, kept},
		{"a chain more", func(c *nftables.Conn) { c.AddChain(chain("input2")) }, kept},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSpace(t)
			f := s.open()
			must(t, f.Block(t.Context(), kept))
			list(t, f)
			conn := s.conn()
			c.change(conn)
			must(t, conn.Flush())
			left, err := f.List(t.Context())
			if !errors.Is(err, block.ErrDamaged) {
				t.Fatalf("List: %v, want ErrDamaged", err)
			}
			slices.SortFunc(left, func(a, b block.Entry) int { return a.Prefix.Compare(b.Prefix) })
			if diff := cmp.Diff(c.left, left, near()); diff != "" {
				t.Error("left", diff)
			}
			must(t, f.Block(t.Context(), []block.Entry{entry("192.0.2.2", time.Hour)}))
			want := append(slices.Clone(c.left), entry("192.0.2.2", time.Hour))
			slices.SortFunc(want, func(a, b block.Entry) int { return a.Prefix.Compare(b.Prefix) })
			for name, f := range map[string]*nft.Firewall{"same": f, "another": s.open()} {
				if diff := cmp.Diff(want, list(t, f), near()); diff != "" {
					t.Error("mended, "+name, diff)
				}
			}
		})
	}
	t.Run("switched off", func(t *testing.T) { // all is there, and nothing of it works
		path, err := exec.LookPath("nft")
		if err != nil {
			t.Skip("SKIPPED: nft is not installed")
		}
		s := newSpace(t)
		f := s.open()
		must(t, f.Block(t.Context(), kept))
		must(t, s.Do(func() error { return exec.Command(path, "add table inet slips { flags dormant; }").Run() }))
		if left, err := f.List(t.Context()); len(left) != 2 || !errors.Is(err, block.ErrDamaged) {
			t.Fatalf("List: %v, %v; want ErrDamaged", left, err)
		}
		must(t, f.Block(t.Context(), nil))
		if diff := cmp.Diff(kept, list(t, f), near()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("flush set", func(t *testing.T) { // nothing is broken, but it lists nothing
		s := newSpace(t)
		f := s.open()
		must(t, f.Block(t.Context(), kept))
		conn := s.conn()
		conn.FlushSet(&nftables.Set{Table: table, Name: "hosts4"})
		must(t, conn.Flush())
		if diff := cmp.Diff(kept[1:], list(t, f), near()); diff != "" {
			t.Error(diff)
		}
	})
}

// TestOthers lives beside tables that accept everything and drop something,
// before us and behind us, and leaves them as they are.
func TestOthers(t *testing.T) {
	us, attacker := newSpace(t), newSpace(t)
	us.Link(attacker.Space, "v0", []string{"192.0.2.1/24"}, []string{"192.0.2.2/24", "192.0.2.3/24"})
	f := us.open()
	c := us.conn()
	accept := nftables.ChainPolicyAccept
	for _, o := range []struct {
		name     string
		priority nftables.ChainPriority
	}{{"firewalld", 10}, {"filter", 0}, {"early", -20}} {
		table := c.AddTable(&nftables.Table{Name: o.name, Family: nftables.TableFamilyINet})
		set := &nftables.Set{Table: table, Name: "hosts4", KeyType: nftables.TypeIPAddr}
		must(t, c.AddSet(set, []nftables.SetElement{{Key: []byte{192, 0, 2, 3}}}))
		chain := c.AddChain(&nftables.Chain{
			Name: "input", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: &o.priority, Policy: &accept,
		})
		// What drops stands at the end of the line; the others accept everything.
		if o.name == "firewalld" {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
				&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
				&expr.Verdict{Kind: expr.VerdictDrop},
			}})
		}
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}})
	}
	must(t, c.Flush())
	others := func() string {
		t.Helper()
		path, err := exec.LookPath("nft")
		if err != nil {
			return "" // then the traffic below has to do
		}
		var text bytes.Buffer
		must(t, us.Do(func() error {
			for _, name := range []string{"firewalld", "filter", "early"} {
				cmd := exec.Command(path, "list", "table", "inet", name)
				cmd.Stdout, cmd.Stderr = &text, &text
				if err := cmd.Run(); err != nil {
					return err
				}
			}
			return nil
		}))
		return text.String()
	}
	before := others()
	attacker.pings("192.0.2.1", true)
	must(t, f.Block(t.Context(), []block.Entry{entry("192.0.2.2", time.Hour)}))
	us.pings("192.0.2.2", false)
	us.pings("192.0.2.3", false) // by "firewalld", still
	must(t, f.Unblock(t.Context(), []netip.Prefix{netip.MustParsePrefix("192.0.2.2/32")}))
	us.pings("192.0.2.2", true)
	must(t, f.Remove(t.Context()))
	must(t, f.Remove(t.Context()))
	us.pings("192.0.2.2", true)
	if after := others(); after != before {
		t.Errorf("other tables have changed:\n%s\nwere\n%s", after, before)
	}
}

// TestFirewalls lives beside what firewalld, ufw and docker make, as far as it
// matters: chains that accept at their priorities, connection tracking, address
// translation, sets and maps, iptables' own expressions. Rule sets are loaded
// again while hosts are blocked.
func TestFirewalls(t *testing.T) {
	nftPath, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("SKIPPED: nft is not installed, so no rule sets of others are made")
	}
	iptables, err := exec.LookPath("iptables-nft")
	if err != nil {
		t.Log("SKIPPED: iptables-nft is not installed, so ufw and docker are left out")
	}
	const firewalld = `
table inet firewalld {
	set trusted { type ipv4_addr; flags interval; elements = { 10.9.0.0/16, 192.0.2.0/24 } }
	map zones { type ifname : verdict; elements = { "lo" : accept } }
	chain mangle_PREROUTING { type filter hook prerouting priority mangle + 10; policy accept; }
	chain nat_POSTROUTING { type nat hook postrouting priority srcnat + 10; policy accept; ip saddr 172.17.0.0/16 masquerade; }
	chain filter_INPUT {
		type filter hook input priority filter + 10; policy accept;
		ct state { established, related } accept
		iifname vmap @zones
		ip saddr @trusted accept
		tcp dport { 22, 80, 443 } ct state { new, untracked } accept
		reject with icmpx admin-prohibited
	}
	chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept; ct state established accept; }
	chain filter_OUTPUT { type filter hook output priority filter + 10; policy accept; oifname "lo" accept; }
}
table bridge other { chain f { type filter hook forward priority 0; policy accept; ether type arp accept; }; }
table ip6 filter { chain INPUT { type filter hook input priority filter; policy accept; icmpv6 type { echo-request, nd-neighbor-solicit } accept; }; }
`
	for _, c := range []struct {
		name, nft string
		iptables  []string
	}{
		{"firewalld", firewalld, nil},
		{"nftables.conf", "flush ruleset\n" + firewalld, nil},
		{"ufw", "", []string{
			"-N ufw-before-input", "-A INPUT -j ufw-before-input", "-A ufw-before-input -i lo -j ACCEPT",
			"-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
			"-A ufw-before-input -m conntrack --ctstate INVALID -m limit --limit 3/min -j LOG --log-prefix [UFW]",
			"-A ufw-before-input -p icmp --icmp-type echo-request -j ACCEPT", "-A ufw-before-input -p tcp --dport 7 -j ACCEPT",
			"-A ufw-before-input -s 192.0.2.0/24 -j ACCEPT", "-P INPUT DROP",
		}},
		{"docker", "", []string{
			"-t nat -N DOCKER", "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
			"-t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
			"-t nat -A DOCKER ! -i docker0 -p tcp --dport 8080 -j DNAT --to-destination 192.0.2.1:7",
			"-N DOCKER-USER", "-A FORWARD -j DOCKER-USER", "-A DOCKER-USER -j RETURN",
			"-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-P FORWARD DROP", "-P INPUT ACCEPT",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			us, attacker := newSpace(t), newSpace(t)
			us.Link(attacker.Space, "v0", []string{"192.0.2.1/24"}, []string{"192.0.2.2/24", "192.0.2.3/24"})
			run := func(stdin, name string, args ...string) string {
				t.Helper()
				var out []byte
				if err := us.Do(func() (err error) {
					cmd := exec.Command(name, args...)
					cmd.Stdin = strings.NewReader(stdin)
					out, err = cmd.CombinedOutput()
					return err
				}); err != nil {
					t.Skipf("SKIPPED: %s %s: %v: %s", name, strings.Join(args, " "), err, out)
				}
				return string(out)
			}
			load := func() {
				t.Helper()
				if c.nft != "" {
					run(c.nft, nftPath, "-f", "-")
				}
				for _, rule := range c.iptables {
					run("", iptables, strings.Fields(rule)...)
				}
			}
			if len(c.iptables) > 0 && iptables == "" {
				t.Skip("SKIPPED: iptables-nft is not installed")
			}
			others := func() string { return run("", nftPath, "-s", "list", "ruleset") }
			load()
			before := others()
			f := us.open()
			us.Echo("192.0.2.1:7")
			conn, err := attacker.Dial("tcp", "192.0.2.1:7", 2*time.Second)
			must(t, err)
			defer conn.Close()
			if !netspace.Talk(conn, 2*time.Second) {
				t.Fatal("nothing passes before")
			}
			must(t, f.Block(t.Context(), []block.Entry{entry("192.0.2.2", time.Hour)}))
			_, err = f.Cut(t.Context(), []netip.Prefix{netip.MustParsePrefix("192.0.2.2/32")})
			must(t, err)
			if netspace.Talk(conn, 300*time.Millisecond) {
				t.Error("blocked: the connection passes")
			}
			attacker.pings("192.0.2.1", false)
			if c.name == "docker" {
				if c, err := attacker.Dial("tcp", "192.0.2.1:8080", 300*time.Millisecond); err == nil {
					c.Close()
					t.Error("blocked: a published port is reached")
				}
			}
			us.pings("192.0.2.3", true)
			list(t, f)

			// The other one loads its rules again.
			if c.nft != "" {
				run("delete table inet firewalld; delete table bridge other; delete table ip6 filter", nftPath, "-f", "-")
				load()
			} else {
				run("", iptables, "-I", "INPUT", "-s", "192.0.2.2", "-j", "ACCEPT")
				run("", iptables, "-D", "INPUT", "-s", "192.0.2.2", "-j", "ACCEPT")
			}
			left, err := f.List(t.Context())
			if flushed := strings.HasPrefix(c.nft, "flush"); flushed != errors.Is(err, block.ErrDamaged) || flushed != (len(left) == 0) {
				t.Errorf("after the rules were loaded again: %v, %v", left, err)
			}
			must(t, f.Block(t.Context(), []block.Entry{entry("192.0.2.2", time.Hour)}))
			attacker.pings("192.0.2.1", false)
			must(t, f.Unblock(t.Context(), []netip.Prefix{netip.MustParsePrefix("192.0.2.2/32")}))
			attacker.pings("192.0.2.1", true)
			must(t, f.Remove(t.Context()))
			if after := others(); after != before {
				t.Errorf("the others' rules have changed:\n%s\nwere\n%s", after, before)
			}
		})
	}
}

// TestReadable shows our table to nft itself, which prints what operators see.
func TestReadable(t *testing.T) {
	path, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("SKIPPED: nft is not installed, so nothing says how it reads our table")
	}
	s := newSpace(t)
	must(t, s.open().Block(t.Context(), []block.Entry{entry("192.0.2.1", time.Hour), entry("198.51.100.0/25", time.Hour), entry("2001:db8:1::/64", time.Hour)}))
	var out []byte
	must(t, s.Do(func() (err error) {
		out, err = exec.Command(path, "list", "table", "inet", "slips").CombinedOutput()
		return err
	}))
	text := regexp.MustCompile(`(timeout|expires) (1h|59m[0-9a-z]+)`).ReplaceAllString(string(out), "$1 T")
	for _, want := range []string{
		"192.0.2.1 timeout T expires T comment \"offence 2 " + uuid + "\"", "198.51.100.0/25 timeout T", "2001:db8:1::/64 timeout T",
		"type filter hook input priority filter - 10; policy accept;", "iifname \"lo\" accept", "ip saddr @hosts4 counter packets 0 bytes 0 drop",
		"ip6 daddr @nets6 counter packets 0 bytes 0 drop", "hook forward", "hook output",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("nft does not print %q", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// many returns n addresses with the longest comments there can be.
func many(n int, base string) []block.Entry {
	a := netip.MustParseAddr(base)
	until := time.Now().Add(time.Hour)
	list := make([]block.Entry, n)
	for i := range list {
		list[i] = block.Entry{Prefix: block.Single(a), Until: until, Offences: 12, By: strings.Repeat("a", block.MaxBy), Reason: strings.Repeat("b", 128-len("offence 12 by : ")-block.MaxBy)}
		a = a.Next()
	}
	return list
}

// TestMany adds more elements at once than go into one message: the library
// loses those beyond 64 KiB without an error.
func TestMany(t *testing.T) {
	for _, base := range []string{"203.0.0.1", "2001:db8::1"} {
		for _, n := range []int{999, 1000, 1001, 5000, 20_000} {
			s := newSpace(t)
			f := s.open()
			entries := many(n, base)
			must(t, f.Block(t.Context(), entries))
			if got := list(t, s.open()); len(got) != n {
				t.Errorf("%d of %d from %s are in the kernel", len(got), n, base)
			} else if got[n-1].Prefix != entries[n-1].Prefix {
				t.Errorf("the last is %v, want %v", got[n-1], entries[n-1])
			}
			prefixes := make([]netip.Prefix, n)
			for i, e := range entries {
				prefixes[i] = e.Prefix
			}
			must(t, f.Unblock(t.Context(), prefixes))
			if got := list(t, s.open()); len(got) != 0 {
				t.Errorf("%d of %d are left", len(got), n)
			}
		}
	}
	s := newSpace(t)
	var nets []block.Entry
	a := netip.MustParseAddr("11.0.0.0")
	for range 3000 { // /28s, each beside the next: an end is the start of another
		nets = append(nets, block.Entry{Prefix: netip.PrefixFrom(a, 28), Until: time.Now().Add(time.Hour), Alert: uuid})
		for range 16 {
			a = a.Next()
		}
	}
	must(t, s.open().Block(t.Context(), nets))
	if diff := cmp.Diff(nets, list(t, s.open()), near()); diff != "" {
		t.Error("networks", diff)
	}
}

// TestRefuse is the last line: what must not be blocked is not, whoever asks.
func TestRefuse(t *testing.T) {
	s := newSpace(t)
	f, err := nft.Open(nft.Config{Now: time.Now, NetNS: s.FD(), Refuse: func(p netip.Prefix) string {
		if p == netip.MustParsePrefix("192.0.2.1/32") {
			return "gateway"
		}
		return ""
	}})
	must(t, err)
	defer f.Close()
	for _, p := range []string{"127.0.0.1", "::1", "0.0.0.0/0", "::/0", "224.0.0.251", "192.0.2.1", "10.0.0.0/8"} {
		err := f.Block(t.Context(), []block.Entry{entry("192.0.2.2", time.Hour), entry(p, time.Hour)})
		if !errors.Is(err, block.ErrRefused) {
			t.Errorf("block %s: %v, want ErrRefused", p, err)
		}
	}
	if err := f.Block(t.Context(), []block.Entry{{Prefix: netip.MustParsePrefix("192.0.2.2/32")}}); !errors.Is(err, block.ErrRefused) {
		t.Errorf("without an end: %v, want ErrRefused", err)
	}
	if l, err := f.List(t.Context()); len(l) != 0 || err != nil {
		t.Errorf("something was done: %v, %v", l, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Block(ctx, []block.Entry{entry("192.0.2.2", time.Hour)}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is done: %v", err)
	}
}

// TestPermission opens nftables as nobody, in another process.
func TestPermission(t *testing.T) {
	out, err := newSpace(t).Nobody("NFT_TEST_OPEN=1")
	must(t, err)
	for _, want := range []string{"open nftables: no permission", "CAP_NET_ADMIN"} {
		if !strings.Contains(out, want) {
			t.Errorf("got %q, want %q in it", out, want)
		}
	}
}

// TestCut makes the kernel forget connections of a blocked host, and only its.
func TestCut(t *testing.T) {
	us, attacker := newSpace(t), newSpace(t)
	us.Link(attacker.Space, "v0", []string{"192.0.2.1/24"}, []string{"192.0.2.2/24", "192.0.2.3/24"})
	f := us.open()
	if n, err := f.Cut(t.Context(), []netip.Prefix{netip.MustParsePrefix("192.0.2.2/32")}); n != 0 || err != nil {
		t.Errorf("without tracking: %d, %v", n, err)
	}
	c := us.conn() // any rule that asks for the state of a connection switches tracking on
	table := c.AddTable(&nftables.Table{Name: "other", Family: nftables.TableFamilyINet})
	chain := c.AddChain(&nftables.Chain{
		Name: "input", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Ct{Register: 1, Key: expr.CtKeySTATE}}})
	must(t, c.Flush())
	attacker.Echo("192.0.2.2:7")
	attacker.Echo("192.0.2.3:7")
	for _, a := range []string{"192.0.2.2:7", "192.0.2.2:7", "192.0.2.3:7"} {
		c, err := us.Dial("tcp", a, 2*time.Second)
		must(t, err)
		defer c.Close()
		if !netspace.Talk(c, 2*time.Second) {
			t.Fatal("no connection")
		}
	}
	tracked := func() (n int) {
		t.Helper()
		h, err := nl.NewHandleAt(netns.NsHandle(us.FD()), unix.NETLINK_NETFILTER)
		must(t, err)
		defer h.Close()
		flows, err := h.ConntrackTableList(nl.ConntrackTable, unix.AF_INET)
		must(t, err)
		for _, f := range flows {
			if f.Forward.Protocol == unix.IPPROTO_TCP {
				n++
			}
		}
		return n
	}
	if n := tracked(); n != 3 {
		t.Skipf("SKIPPED: the kernel tracks %d connections of 3", n)
	}
	must(t, f.Block(t.Context(), []block.Entry{entry("192.0.2.2", time.Hour)}))
	n, err := f.Cut(t.Context(), []netip.Prefix{netip.MustParsePrefix("192.0.2.2/32")})
	if n != 2 || err != nil {
		t.Errorf("Cut: %d, %v; want 2", n, err)
	}
	if n := tracked(); n != 1 {
		t.Errorf("%d connections are left, want 1", n)
	}
	if n, err := f.Cut(t.Context(), []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64")}); n != 1 || err != nil {
		t.Errorf("Cut of a network: %d, %v; want 1", n, err)
	}
}

// TestManager is the whole of it: a request stops traffic, a second manager
// takes over what the first left, somebody flushes the rule set, an operator
// ends it.
func TestManager(t *testing.T) {
	us, attacker := newSpace(t), newSpace(t)
	us.Link(attacker.Space, "v0", []string{"192.0.2.1/24"}, []string{"192.0.2.2/24"})
	guard, err := block.NewGuard(block.Network{Own: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, nil)
	must(t, err)
	state := t.TempDir() + "/offences.json"
	start := func() (*block.Manager, func()) {
		t.Helper()
		m, err := block.NewManager(block.Options{
			Config: block.Defaults(), Blocker: us.open(), Guard: guard, StateFile: state, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		return m, func() {
			t.Helper()
			cancel()
			must(t, <-done)
		}
	}
	m, stop := start()
	attacker.pings("192.0.2.1", true)
	asked := time.Now()
	must(t, m.Submit(block.Request{Prefix: block.Single(netip.MustParseAddr("192.0.2.2")), Window: time.Hour, AlertID: uuid}))
	must(t, m.Submit(block.Request{Prefix: block.Single(netip.MustParseAddr("192.0.2.1")), Window: time.Hour, AlertID: uuid}))
	if _, err := m.Blocks(t.Context()); err != nil { // waits for what was before it, or almost
		t.Fatal(err)
	}
	for attacker.Ping("192.0.2.1", 1, 50*time.Millisecond) {
		if time.Since(asked) > 20*time.Second {
			t.Fatal("not blocked")
		}
	}
	stop()
	attacker.pings("192.0.2.1", false) // nobody runs, and it holds

	m, stop = start()
	blocks, err := m.Blocks(t.Context())
	must(t, err)
	want := []block.Entry{{Prefix: block.Single(netip.MustParseAddr("192.0.2.2")), Until: asked.Add(time.Hour), Offences: 1, Alert: uuid}}
	if diff := cmp.Diff(want, blocks, near()); diff != "" {
		t.Error("after a restart", diff)
	}
	c := us.conn()
	c.FlushRuleset()
	must(t, c.Flush())
	flushed := time.Now()
	for m.Stats().Restored == 0 { // it is told, and does not wait for the minute
		if time.Since(flushed) > 30*time.Second {
			t.Fatal("not put back")
		}
		attacker.Ping("192.0.2.1", 1, 50*time.Millisecond)
	}
	t.Logf("put back within %v", time.Since(flushed).Round(time.Millisecond))
	attacker.pings("192.0.2.1", false)
	if s := m.Stats(); s.Damaged != 1 || s.Restored != 1 || s.Found != 1 || s.Blocked != 1 {
		t.Errorf("stats %+v", s)
	}
	ended, _, err := m.Unblock(t.Context(), "test", "")
	if err != nil || len(ended) != 1 {
		t.Errorf("unblock all: %v, %v", ended, err)
	}
	attacker.pings("192.0.2.1", true)
	stop()
}
