package nft_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"github.com/slips-go/slips/alerts/block"
	"github.com/slips-go/slips/internal/netspace"
)

// accepts returns a connection that o makes to a listener of s at addr, both
// ends of it.
func (s *space) accepts(o *space, addr, dial string) (ours, theirs net.Conn) {
	s.t.Helper()
	l := s.Listen(addr)
	theirs, err := o.Dial("tcp", dial, 2*time.Second)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { theirs.Close() })
	if ours, err = l.Accept(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { ours.Close() })
	return ours, theirs
}

// cut says how a connection of ours has ended; nil when it is still there.
func cut(c net.Conn) error {
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		return nil
	}
	return err
}

// TestCutSockets has no connection tracking anywhere: what ends the
// connections is that our ends of them are gone, which is for good.
func TestCutSockets(t *testing.T) {
	us, attacker := newSpace(t), newSpace(t)
	us.Link(attacker.Space, "v0", []string{"192.0.2.1/24", "2001:db8::1/64", "2001:db8:5::1/64"}, []string{"192.0.2.2/24", "192.0.2.3/24", "2001:db8::2/64", "2001:db8:5::2/64"})
	f := us.open()
	us.pings("2001:db8::2", true) // neighbours are found
	us.pings("2001:db8:5::2", true)
	attacker.Echo("192.0.2.2:7")
	attacker.Echo("192.0.2.3:7")
	attacker.Echo("[2001:db8::2]:7")
	attacker.Echo("[2001:db8:5::2]:7")
	dial := func(network, addr string) net.Conn {
		t.Helper()
		c, err := us.Dial(network, addr, 2*time.Second)
		must(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	ours, theirs := map[string]net.Conn{}, map[string]net.Conn{}
	ours["in, IPv4"], theirs["in, IPv4"] = us.accepts(attacker, "192.0.2.1:8001", "192.0.2.1:8001")
	ours["in, IPv4 in IPv6"], theirs["in, IPv4 in IPv6"] = us.accepts(attacker, "[::]:8002", "192.0.2.1:8002")
	ours["in, IPv6"], theirs["in, IPv6"] = us.accepts(attacker, "[2001:db8::1]:8003", "[2001:db8::1]:8003")
	ours["out, IPv4"] = dial("tcp", "192.0.2.2:7")
	ours["out, IPv6"] = dial("tcp", "[2001:db8::2]:7")
	ours["UDP, IPv4"] = dial("udp", "192.0.2.2:9")
	ours["UDP, IPv6"] = dial("udp", "[2001:db8::2]:9")
	others := map[string]net.Conn{"IPv4": dial("tcp", "192.0.2.3:7"), "IPv6": dial("tcp", "[2001:db8:5::2]:7"), "UDP": dial("udp", "192.0.2.3:9")}
	var open net.PacketConn
	must(t, us.Do(func() (err error) { open, err = net.ListenPacket("udp", ":9"); return err }))
	defer open.Close()

	blocked := []netip.Prefix{netip.MustParsePrefix("192.0.2.2/32"), netip.MustParsePrefix("2001:db8::/64")}
	if n, err := f.Cut(t.Context(), []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:1::/64")}); n != 0 || err != nil {
		t.Errorf("Cut of hosts without connections: %d, %v", n, err)
	}
	must(t, f.Block(t.Context(), []block.Entry{entry("192.0.2.2", time.Hour), entry("2001:db8::/64", time.Hour)}))
	n, err := f.Cut(t.Context(), blocked)
	if n != len(ours) || err != nil {
		t.Errorf("Cut: %d, %v; want %d", n, err, len(ours))
	}
	for name, c := range ours {
		if err := cut(c); !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("%s: the socket says %v, want that the connection was aborted", name, err)
		}
	}
	for name, c := range others {
		if err := cut(c); err != nil {
			t.Errorf("another host's, %s: %v", name, err)
		}
	}
	open.SetReadDeadline(time.Now())
	if _, _, err := open.ReadFrom(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a socket that is not connected: %v", err)
	}
	if n, err := f.Cut(t.Context(), blocked); n != 0 || err != nil {
		t.Errorf("once more: %d, %v", n, err)
	}

	// A connection that we begin, and whose answer never comes.
	ended := make(chan error, 1)
	go func() {
		c, err := us.Dial("tcp", "192.0.2.2:7", time.Minute)
		if err == nil {
			c.Close()
		}
		ended <- err
	}()
	until := time.Now().Add(20 * time.Second)
	for n = 0; n == 0 && time.Now().Before(until); {
		n, err = f.Cut(t.Context(), []netip.Prefix{blocked[0]})
		must(t, err)
	}
	if err := <-ended; n != 1 || !errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("a connection that was begun: %d cut, %v", n, err)
	}

	must(t, f.Unblock(t.Context(), blocked))
	attacker.pings("192.0.2.1", true)
	for name, c := range theirs { // the other end finds nobody
		c.SetDeadline(time.Now().Add(20 * time.Second))
		c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
			t.Errorf("%s goes on after the block: %v", name, err)
		}
	}
	for name, c := range map[string]net.Conn{"IPv4": others["IPv4"], "IPv6": others["IPv6"]} {
		if !netspace.Talk(c, 2*time.Second) {
			t.Errorf("another host's, %s, does not go on", name)
		}
	}
}

// TestCutForwarded says what becomes of a forwarded connection when the block has
// ended: that it is forgotten does not end it, unless the machine is set up so.
func TestCutForwarded(t *testing.T) {
	for _, c := range []struct {
		name   string
		strict bool // connections that were not seen from the start are dropped
		goesOn bool
	}{{"as usual", false, true}, {"nf_conntrack_tcp_loose=0 and a rule that drops what is invalid", true, false}} {
		t.Run(c.name, func(t *testing.T) {
			inside, router, outside := forwarding(t)
			router.track(c.strict)
			if c.strict {
				router.Sysctl("netfilter/nf_conntrack_tcp_loose", "0")
			}
			f := router.open()
			conn := through(t, inside, outside)
			blocked := netip.MustParsePrefix("198.51.100.2/32")
			must(t, f.Block(t.Context(), []block.Entry{entry("198.51.100.2", time.Hour)}))
			if n, err := f.Cut(t.Context(), []netip.Prefix{blocked}); n != 1 || err != nil {
				t.Skipf("SKIPPED: the kernel does not track connections: %d, %v", n, err)
			}
			if netspace.Talk(conn, 300*time.Millisecond) {
				t.Error("the connection passes")
			}
			must(t, f.Unblock(t.Context(), []netip.Prefix{blocked}))
			wait := 3 * time.Second
			if c.goesOn {
				wait = 20 * time.Second
			}
			if got := netspace.Talk(conn, wait); got != c.goesOn {
				t.Errorf("after the block it goes on: %v, want %v", got, c.goesOn)
			}
		})
	}
}

// track switches on that connections are tracked, as any rule does that asks
// for their state, and has invalid packets dropped, if asked to.
func (s *space) track(strict bool) {
	s.t.Helper()
	c := s.conn()
	table := c.AddTable(&nftables.Table{Name: "other", Family: nftables.TableFamilyINet})
	chain := c.AddChain(&nftables.Chain{
		Name: "forward", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	exprs := []expr.Any{&expr.Ct{Register: 1, Key: expr.CtKeySTATE}}
	if strict {
		exprs = append(exprs,
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitINVALID), Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
			&expr.Verdict{Kind: expr.VerdictDrop})
	}
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
	if err := c.Flush(); err != nil {
		s.t.Fatal(err)
	}
}

// TestCutZone has somebody else track connections in a zone of its own, as
// is done where addresses overlap: what is to be deleted is named by its zone too.
func TestCutZone(t *testing.T) {
	inside, router, outside := forwarding(t)
	router.track(false)
	c := router.conn()
	table := c.AddTable(&nftables.Table{Name: "zone", Family: nftables.TableFamilyINet})
	c.AddRule(&nftables.Rule{
		Table: table,
		Chain: c.AddChain(&nftables.Chain{
			Name: "prerouting", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
		}),
		Exprs: []expr.Any{
			&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint16(5)},
			&expr.Ct{Register: 1, SourceRegister: true, Key: expr.CtKeyZONE},
		},
	})
	if err := c.Flush(); err != nil {
		t.Skipf("SKIPPED, the kernel has no zones of connections: %v", err)
	}
	f := router.open()
	conn := through(t, inside, outside)
	blocked := []netip.Prefix{netip.MustParsePrefix("198.51.100.2/32")}
	must(t, f.Block(t.Context(), []block.Entry{entry("198.51.100.2", time.Hour)}))
	for _, want := range []int{1, 0} { // what is forgotten is not there the second time
		if n, err := f.Cut(t.Context(), blocked); n != want || err != nil {
			t.Errorf("Cut: %d, %v; want %d", n, err, want)
		}
	}
	if netspace.Talk(conn, 300*time.Millisecond) {
		t.Error("the connection passes")
	}
}
