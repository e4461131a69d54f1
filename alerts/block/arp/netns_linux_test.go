package arp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	nl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/slips-go/slips/alerts/block"
	"github.com/slips-go/slips/alerts/block/nft"
)

// space is a network namespace of a test's own.
type space struct {
	t  testing.TB
	fd int
}

// newSpace makes a namespace. The test is skipped where that is not allowed.
func newSpace(t testing.TB) *space {
	t.Helper()
	type result struct {
		fd  int
		err error
	}
	c := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine, and its namespace stays here
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			c <- result{0, err}
			return
		}
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		c <- result{fd, err}
	}()
	r := <-c
	if r.err != nil {
		t.Skipf("SKIPPED, nothing of ARP isolation is tested on a real network: a network namespace cannot be made (root is needed): %v", r.err)
	}
	t.Cleanup(func() { unix.Close(r.fd) })
	s := &space{t, r.fd}
	s.up("lo")
	return s
}

// with runs f with a handle to the namespace.
func (s *space) with(f func(h *nl.Handle) error) {
	s.t.Helper()
	h, err := nl.NewHandleAt(netns.NsHandle(s.fd))
	if err != nil {
		s.t.Fatal(err)
	}
	defer h.Close()
	if err := f(h); err != nil {
		s.t.Fatal(err)
	}
}

func (s *space) up(name string) {
	s.t.Helper()
	s.with(func(h *nl.Handle) error {
		l, err := h.LinkByName(name)
		if err != nil {
			return err
		}
		return h.LinkSetUp(l)
	})
}

func (s *space) do(f func() error) error { return within(s.fd, f) }

// network4 is four machines on a switch.
type network4 struct{ sw, us, gateway, attacker, printer *space }

// newNetwork makes one: 192.0.2.0/24, where the gateway is at .1 and leads to
// 198.51.100.1, we are at .9, the attacker at .66, and a printer at .70.
func newNetwork(t testing.TB) network4 {
	t.Helper()
	n := network4{newSpace(t), newSpace(t), newSpace(t), newSpace(t), newSpace(t)}
	n.sw.with(func(h *nl.Handle) error {
		if err := h.LinkAdd(&nl.Bridge{LinkAttrs: nl.LinkAttrs{Name: "br0"}}); err != nil {
			t.Skipf("SKIPPED, nothing of ARP isolation is tested on a real network: a bridge cannot be made: %v", err)
		}
		return nil
	})
	n.sw.up("br0")
	n.plug(n.us, "us", ownMAC, "192.0.2.9/24")
	n.plug(n.gateway, "gateway", gatewayMAC, "192.0.2.1/24")
	n.plug(n.attacker, "attacker", attackerMAC, "192.0.2.66/24")
	n.plug(n.printer, "printer", printerMAC, "192.0.2.70/24")
	n.gateway.address("lo", "198.51.100.1/32")
	for _, s := range []*space{n.us, n.attacker, n.printer} {
		s.with(func(h *nl.Handle) error { return h.RouteAdd(&nl.Route{Gw: net.ParseIP("192.0.2.1")}) })
	}
	return n
}

// plug links s to the switch.
func (n network4) plug(s *space, port string, mac MAC, addr string) {
	s.t.Helper()
	n.sw.with(func(h *nl.Handle) error {
		veth := &nl.Veth{
			LinkAttrs: nl.LinkAttrs{Name: port}, PeerName: "eth0", PeerNamespace: nl.NsFd(s.fd), PeerHardwareAddr: mac[:],
		}
		if err := h.LinkAdd(veth); err != nil {
			s.t.Skipf("SKIPPED, nothing of ARP isolation is tested on a real network: a veth pair cannot be made: %v", err)
		}
		br, err := h.LinkByName("br0")
		if err != nil {
			return err
		}
		return h.LinkSetMaster(veth, br)
	})
	n.sw.up(port)
	s.address("eth0", addr)
	s.up("eth0")
}

func (s *space) address(name, addr string) {
	s.t.Helper()
	s.with(func(h *nl.Handle) error {
		l, err := h.LinkByName(name)
		if err != nil {
			return err
		}
		a, err := nl.ParseAddr(addr)
		if err != nil {
			return err
		}
		return h.AddrAdd(l, a)
	})
}

// cached returns where s takes a machine to be; "" if it does not know.
func (s *space) cached(addr string) (mac string) {
	s.t.Helper()
	s.with(func(h *nl.Handle) error {
		list, err := h.NeighList(0, nl.FAMILY_V4)
		for _, n := range list {
			if n.IP.String() == addr && n.State&(nl.NUD_FAILED|nl.NUD_INCOMPLETE) == 0 {
				mac = n.HardwareAddr.String()
			}
		}
		return err
	})
	return mac
}

// forget makes s ask again for addr.
func (s *space) forget(addr string) {
	s.t.Helper()
	s.with(func(h *nl.Handle) error {
		list, err := h.NeighList(0, nl.FAMILY_V4)
		for _, n := range list {
			if n.IP.String() == addr {
				err = errors.Join(err, h.NeighDel(&n))
			}
		}
		return err
	})
}

// ping reports whether dst answers one of n echo requests, each within wait.
func (s *space) ping(dst string, n int, wait time.Duration) bool {
	s.t.Helper()
	var c *icmp.PacketConn
	if err := s.do(func() (err error) { c, err = icmp.ListenPacket("ip4:icmp", "0.0.0.0"); return err }); err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 1500)
	for seq := range n {
		m, err := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 77, Seq: seq, Data: []byte("slips")}}).Marshal(nil)
		if err != nil {
			s.t.Fatal(err)
		}
		if _, err := c.WriteTo(m, &net.IPAddr{IP: net.ParseIP(dst)}); err != nil && !errors.Is(err, unix.EHOSTUNREACH) {
			s.t.Fatalf("ping %s: %v", dst, err)
		}
		c.SetReadDeadline(time.Now().Add(wait))
		for {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				break
			}
			if r, err := icmp.ParseMessage(1, buf[:n]); err == nil && r.Type == ipv4.ICMPTypeEchoReply {
				return true
			}
		}
	}
	return false
}

// echo starts a TCP server in the namespace that sends back what it gets.
func (s *space) echo(addr string) {
	s.t.Helper()
	var l net.Listener
	if err := s.do(func() (err error) { l, err = net.Listen("tcp", addr); return err }); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 64)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					c.Write(buf[:n])
				}
			}()
		}
	}()
	s.t.Cleanup(func() { l.Close(); <-done })
}

func (s *space) dial(addr string) net.Conn {
	s.t.Helper()
	var c net.Conn
	if err := s.do(func() (err error) { c, err = net.DialTimeout("tcp", addr, 5*time.Second); return err }); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// talk reports whether something comes back over c within wait.
func talk(c net.Conn, wait time.Duration) bool {
	c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte("x")); err != nil {
		return false
	}
	_, err := c.Read(make([]byte, 64))
	return err == nil
}

// pause lets the real network go on for d: what is waited for is that nothing
// happens.
func pause(d time.Duration) { <-time.After(d) }

// until returns when f is true, with how long that took.
func (n network4) until(what string, limit time.Duration, f func() bool) time.Duration {
	n.us.t.Helper()
	start := time.Now()
	for !f() {
		if time.Since(start) > limit {
			n.us.t.Fatalf("%s: not within %v", what, limit)
		}
		pause(20 * time.Millisecond)
	}
	return time.Since(start)
}

// run starts a Manager and an Isolator in the namespace of us.
func (n network4) run(inner block.Blocker, change func(*Options)) (*block.Manager, *Isolator, *locked, func()) {
	t := n.us.t
	t.Helper()
	var audit locked
	log := slog.New(slog.NewTextHandler(testWriter{t}, nil))
	o := Options{
		Config: Defaults(), Interfaces: []string{"eth0"}, Network: network(), Guard: allow(t), Audit: &audit, Log: log, Now: time.Now, NetNS: n.us.fd,
	}
	if change != nil {
		change(&o)
	}
	i, err := New(inner, o)
	if err != nil {
		t.Fatal(err)
	}
	m, err := block.NewManager(block.Options{Config: block.Defaults(), Blocker: i, Guard: allow(t), Audit: &audit, Log: log, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- m.Run(ctx) }()
	go func() { done <- i.Run(ctx) }()
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			cancel()
			if err := errors.Join(<-done, <-done); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return m, i, &audit, stop
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// TestTraffic blocks an attacker on a real network: what passed before stops,
// also over connections that stand, and passes again when the block has ended.
// The firewall blocks besides, and sees nothing of that traffic.
func TestTraffic(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	n.gateway.echo("198.51.100.1:7")
	n.attacker.echo("192.0.2.66:7")
	n.printer.echo("192.0.2.70:7")
	var inner block.Blocker = block.NewMemory(time.Now)
	if fw, err := nft.Open(nft.Config{Now: time.Now, NetNS: n.us.fd}); err == nil {
		defer fw.Close()
		inner = fw
	} else {
		t.Logf("SKIPPED: that nftables blocks besides: %v", err)
	}
	m, i, audit, stop := n.run(inner, func(o *Options) {
		o.Peers = func(netip.Addr) []netip.Addr { return []netip.Addr{ip("192.0.2.70")} }
	})
	conns := []struct {
		what string
		net.Conn
	}{
		{"to the world", n.attacker.dial("198.51.100.1:7")},
		{"to the printer", n.attacker.dial("192.0.2.70:7")},
		{"from the printer", n.printer.dial("192.0.2.66:7")},
	}
	other := n.printer.dial("198.51.100.1:7")
	passes := func(when string, limit time.Duration) {
		t.Helper()
		for _, c := range conns {
			if !talk(c, limit) {
				t.Errorf("%s: nothing passes %s", when, c.what)
			}
		}
		for _, dst := range []string{"192.0.2.1", "198.51.100.1", "192.0.2.70", "192.0.2.9"} {
			if !n.attacker.ping(dst, 10, time.Second) {
				t.Errorf("%s: the attacker does not reach %s", when, dst)
			}
		}
	}
	passes("before", 5*time.Second)
	fake := fake(ownMAC, ip("192.0.2.66"), 0).String()
	req := block.Request{Prefix: netip.MustParsePrefix("192.0.2.66/32"), Window: time.Hour, AlertID: "alert-1", EvidenceIDs: []string{"e1"}}
	submit := func() {
		t.Helper()
		if _, err := m.Block(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	submit()
	d := n.until("isolation", 10*time.Second, func() bool {
		return n.attacker.cached("192.0.2.1") == fake && n.gateway.cached("192.0.2.66") == fake &&
			n.attacker.cached("192.0.2.70") == fake && n.printer.cached("192.0.2.66") == fake
	})
	t.Logf("isolated within %v", d.Round(time.Millisecond))
	for _, c := range conns {
		if talk(c, 500*time.Millisecond) {
			t.Errorf("isolated: something passes %s", c.what)
		}
	}
	for _, dst := range []string{"192.0.2.1", "198.51.100.1", "192.0.2.70"} {
		if n.attacker.ping(dst, 3, 300*time.Millisecond) {
			t.Errorf("isolated: the attacker reaches %s", dst)
		}
	}
	if n.gateway.ping("192.0.2.66", 3, 300*time.Millisecond) || n.printer.ping("192.0.2.66", 3, 300*time.Millisecond) {
		t.Error("isolated: the attacker is reached")
	}
	if _, ok := inner.(*nft.Firewall); ok && n.attacker.ping("192.0.2.9", 2, 300*time.Millisecond) {
		t.Error("the attacker reaches us")
	}
	// Nobody else notices.
	if !talk(other, 2*time.Second) || !n.printer.ping("192.0.2.1", 3, time.Second) || !n.us.ping("192.0.2.1", 3, time.Second) {
		t.Error("the printer, or we, do not reach the gateway")
	}
	if got := n.us.cached("192.0.2.66"); got != "" && got != attackerMAC.String() {
		t.Errorf("we take the attacker to be at %s", got)
	}
	// Each side forgets, asks, and is told again. One ping may get through before.
	for range 3 {
		n.attacker.forget("192.0.2.1")
		n.attacker.ping("192.0.2.1", 1, 100*time.Millisecond)
		n.until("the attacker asks", 2*time.Second, func() bool { return n.attacker.cached("192.0.2.1") == fake })
		if n.attacker.ping("192.0.2.1", 2, 300*time.Millisecond) {
			t.Error("the attacker asks, and reaches the gateway")
		}
		n.gateway.forget("192.0.2.66")
		n.gateway.ping("192.0.2.66", 1, 100*time.Millisecond)
		n.until("the gateway asks", 2*time.Second, func() bool { return n.gateway.cached("192.0.2.66") == fake })
	}
	// An attacker who enters the gateway's address by hand is not heard by it.
	n.attacker.with(func(h *nl.Handle) error {
		l, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		return h.NeighSet(&nl.Neigh{LinkIndex: l.Attrs().Index, State: nl.NUD_PERMANENT, IP: net.ParseIP("192.0.2.1"), HardwareAddr: gatewayMAC[:]})
	})
	if n.attacker.ping("192.0.2.1", 3, 300*time.Millisecond) {
		t.Error("with an entry by hand the attacker reaches the gateway")
	}
	n.attacker.forget("192.0.2.1")

	start := time.Now()
	if _, err := m.Unblock(t.Context(), "test", "", req.Prefix); err != nil {
		t.Fatal(err)
	}
	passes("released", 15*time.Second)
	t.Logf("all passes %v after the release", time.Since(start).Round(time.Millisecond))
	if s := i.Stats(); s.Isolations != 1 || s.Rejoined != 1 || s.Failures != 0 {
		t.Errorf("stats %+v", s)
	}
	// A block that ends by itself, and the end of the program.
	req.For = 3 * time.Second
	submit()
	n.until("isolation", 10*time.Second, func() bool { return n.gateway.cached("192.0.2.66") == fake })
	n.until("the end of the block", 10*time.Second, func() bool { return n.attacker.ping("198.51.100.1", 1, 200*time.Millisecond) })
	pause(3 * time.Second)
	req.For = time.Hour
	submit()
	n.until("isolation", 10*time.Second, func() bool { return n.gateway.cached("192.0.2.66") == fake })
	stop()
	if err := inner.Unblock(t.Context(), []netip.Prefix{req.Prefix}); err != nil { // the firewall's part is left to expire
		t.Fatal(err)
	}
	passes("stopped", 15*time.Second)
	for _, want := range []string{`"action":"isolate","prefix":"192.0.2.66"`, `"action":"rejoin"`, `"alert":"alert-1"`, "the program stops", "the block has ended"} {
		if !strings.Contains(audit.String(), want) {
			t.Errorf("the audit log has no %s\n%s", want, audit)
		}
	}
}

// TestHeard isolates from neighbours that nobody named: the attacker's own
// question is what tells.
func TestHeard(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	m, i, _, _ := n.run(block.NewMemory(time.Now), nil)
	if _, err := m.Block(t.Context(), block.Request{Prefix: netip.MustParsePrefix("192.0.2.66/32"), Window: time.Hour}); err != nil {
		t.Fatal(err)
	}
	n.until("isolation", 10*time.Second, func() bool { return i.Stats().Isolated == 1 })
	fake := fake(ownMAC, ip("192.0.2.66"), 0).String()
	n.attacker.ping("192.0.2.70", 1, 100*time.Millisecond) // one may get through
	d := n.until("the printer", 3*time.Second, func() bool {
		return n.attacker.cached("192.0.2.70") == fake && n.printer.cached("192.0.2.66") == fake
	})
	t.Logf("isolated from the printer %v after the attacker asked for it", d.Round(time.Millisecond))
	if n.attacker.ping("192.0.2.70", 3, 300*time.Millisecond) || n.printer.ping("192.0.2.66", 3, 300*time.Millisecond) {
		t.Error("the attacker and the printer reach each other")
	}
	if n.attacker.ping("192.0.2.1", 3, 300*time.Millisecond) {
		t.Error("the attacker reaches the gateway")
	}
}

// TestHeal kills the program that isolates: what it told is forgotten.
func TestHeal(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("SKIPPED: it takes up to a minute until caches heal")
	}
	n := newNetwork(t)
	if !n.attacker.ping("198.51.100.1", 3, time.Second) {
		t.Fatal("the attacker does not reach the world")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"=run")
	cmd.Stdout = testWriter{t}
	if err := n.us.do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	fake := fake(ownMAC, ip("192.0.2.66"), 0).String()
	n.until("isolation", 10*time.Second, func() bool {
		return n.attacker.cached("192.0.2.1") == fake && n.gateway.cached("192.0.2.66") == fake
	})
	if n.attacker.ping("198.51.100.1", 2, 300*time.Millisecond) {
		t.Error("the attacker reaches the world")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // it was killed
	d := n.until("healing", 3*time.Minute, func() bool { return n.attacker.ping("198.51.100.1", 1, time.Second) })
	t.Logf("the attacker reaches the world %v after the kill", d.Round(time.Second))
}

// TestProxy refuses a second address of the gateway.
func TestProxy(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	n.gateway.address("eth0", "192.0.2.2/24")
	m, i, audit, _ := n.run(block.NewMemory(time.Now), nil)
	if _, err := m.Block(t.Context(), block.Request{Prefix: netip.MustParsePrefix("192.0.2.2/32"), Window: time.Hour}); err != nil {
		t.Fatal(err)
	}
	n.until("the refusal", 5*time.Second, func() bool { return strings.Contains(audit.String(), "proxy ARP") })
	if s := i.Stats(); s.Isolated != 0 || s.Isolations != 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestInterface takes the interface away and gives it back.
func TestInterface(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	m, i, _, _ := n.run(block.NewMemory(time.Now), func(o *Options) { o.Config.Every = time.Second })
	if _, err := m.Block(t.Context(), block.Request{Prefix: netip.MustParsePrefix("192.0.2.66/32"), Window: time.Hour}); err != nil {
		t.Fatal(err)
	}
	n.until("isolation", 10*time.Second, func() bool { return i.Stats().Isolated == 1 })
	n.sw.with(func(h *nl.Handle) error {
		l, err := h.LinkByName("us")
		if err != nil {
			return err
		}
		return h.LinkDel(l)
	})
	n.until("its end is seen", 10*time.Second, func() bool { return i.Stats().Failures > 0 })
	n.plug(n.us, "us", ownMAC, "192.0.2.9/24")
	before := i.Stats().Frames
	n.until("frames", 10*time.Second, func() bool { return i.Stats().Frames > before+4 })
	fake := fake(ownMAC, ip("192.0.2.66"), 0).String()
	n.attacker.ping("192.0.2.1", 1, 100*time.Millisecond)
	n.until("isolation", 5*time.Second, func() bool { return n.attacker.cached("192.0.2.1") == fake })
}

// TestNew says what is wrong with interfaces, and which capability is missing.
func TestNew(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	try := func(name, want string) {
		t.Helper()
		i, err := New(nil, Options{
			Config: Defaults(), Interfaces: []string{name}, Network: network(), Guard: allow(t), Log: slog.New(slog.DiscardHandler), Now: time.Now, NetNS: n.us.fd,
		})
		if err == nil {
			i.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	try("eth7", `on "eth7": there is no such interface; there are lo, eth0`)
	try("lo", "no interface to work on: arp isolation on \"lo\": it has no ARP")
	n.us.with(func(h *nl.Handle) error {
		return h.LinkAdd(&nl.Veth{LinkAttrs: nl.LinkAttrs{Name: "v0"}, PeerName: "v1"})
	})
	try("v0", `it is down ("ip link set dev v0 up")`)

	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "arp") //nolint:usetesting // nobody cannot enter what t.TempDir makes
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(dir+"/test", data, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(dir+"/test", "eth0")
	cmd.Dir, cmd.Env = "/", []string{childEnv + "=open"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var out []byte
	if err := n.us.do(func() error { out, _ = cmd.CombinedOutput(); return nil }); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`arp isolation on "eth0": no permission`, "CAP_NET_RAW"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("as nobody: %q, want %q in it", out, want)
		}
	}
}
