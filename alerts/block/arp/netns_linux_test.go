package arp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	nl "github.com/vishvananda/netlink"

	"github.com/slips-go/slips/alerts/block"
	"github.com/slips-go/slips/alerts/block/nft"
	"github.com/slips-go/slips/internal/netspace"
)

// onWire is what these tests are about, for those who read why they are skipped.
const onWire = "ARP isolation on a real network"

// space is a network namespace of a test's own.
type space struct {
	*netspace.Space
	t testing.TB
}

func newSpace(t testing.TB) *space {
	t.Helper()
	return &space{netspace.New(t, onWire), t}
}

// network4 is four machines on a switch.
type network4 struct{ sw, us, gateway, attacker, printer *space }

// newNetwork makes one: 192.0.2.0/24, where the gateway is at .1 and leads to
// 198.51.100.1, we are at .9, the attacker at .66, and a printer at .70.
func newNetwork(t testing.TB) network4 {
	t.Helper()
	n := network4{newSpace(t), newSpace(t), newSpace(t), newSpace(t), newSpace(t)}
	n.sw.With(func(h *nl.Handle) error {
		if err := h.LinkAdd(&nl.Bridge{LinkAttrs: nl.LinkAttrs{Name: "br0"}}); err != nil {
			t.Skipf("NOT TESTED: %s: a bridge cannot be made: %v", onWire, err)
		}
		return nil
	})
	n.sw.Up("br0", true)
	n.plug(n.us, "us", ownMAC, "192.0.2.9/24")
	n.plug(n.gateway, "gateway", gatewayMAC, "192.0.2.1/24")
	n.plug(n.attacker, "attacker", attackerMAC, "192.0.2.66/24")
	n.plug(n.printer, "printer", printerMAC, "192.0.2.70/24")
	n.gateway.Address("lo", "198.51.100.1/32")
	for _, s := range []*space{n.us, n.attacker, n.printer} {
		s.Route("192.0.2.1")
	}
	return n
}

// plug links s to the switch.
func (n network4) plug(s *space, port string, mac MAC, addr string) {
	s.t.Helper()
	n.sw.On("br0", func(h *nl.Handle, br nl.Link) error {
		veth := &nl.Veth{
			LinkAttrs: nl.LinkAttrs{Name: port}, PeerName: "eth0", PeerNamespace: nl.NsFd(s.FD()), PeerHardwareAddr: mac[:],
		}
		if err := h.LinkAdd(veth); err != nil {
			s.t.Skipf("NOT TESTED: %s: a veth pair cannot be made: %v", onWire, err)
		}
		return h.LinkSetMaster(veth, br)
	})
	n.sw.Up(port, true)
	s.Address("eth0", addr)
	s.Up("eth0", true)
}

// cached returns where s takes a machine to be; "" if it does not know.
func (s *space) cached(addr string) (mac string) {
	s.t.Helper()
	s.With(func(h *nl.Handle) error {
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
	s.With(func(h *nl.Handle) error {
		list, err := h.NeighList(0, nl.FAMILY_V4)
		for _, n := range list {
			if n.IP.String() == addr {
				err = errors.Join(err, h.NeighDel(&n))
			}
		}
		return err
	})
}

func (s *space) dial(addr string) net.Conn {
	s.t.Helper()
	c, err := s.Dial("tcp", addr, 5*time.Second)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
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
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	o := Options{
		Config: Defaults(), Interfaces: []string{"eth0"}, Network: network(), Guard: allow(t), Audit: &audit, Log: log, Now: time.Now, NetNS: n.us.FD(),
	}
	if change != nil {
		change(&o)
	}
	both := block.NewLog(&audit)
	o.Audit = both
	i, err := New(inner, o)
	if err != nil {
		t.Fatal(err)
	}
	m, err := block.NewManager(block.Options{Config: block.Defaults(), Blocker: i, Guard: allow(t), Audit: both, Log: log, Now: time.Now})
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

// TestTraffic blocks an attacker on a real network: what passed before stops,
// also over connections that stand, and passes again when the block has ended.
// The firewall blocks besides, and sees nothing of that traffic.
func TestTraffic(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	n.gateway.Echo("198.51.100.1:7")
	n.attacker.Echo("192.0.2.66:7")
	n.printer.Echo("192.0.2.70:7")
	var inner block.Blocker = block.NewMemory(time.Now)
	if fw, err := nft.Open(nft.Config{Now: time.Now, NetNS: n.us.FD()}); err == nil {
		defer fw.Close()
		inner = fw
	} else {
		t.Logf("SKIPPED: that nftables blocks besides: %v", err)
	}
	m, i, audit, stop := n.run(inner, nil)
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
			if !netspace.Talk(c, limit) {
				t.Errorf("%s: nothing passes %s", when, c.what)
			}
		}
		for _, dst := range []string{"192.0.2.1", "198.51.100.1", "192.0.2.70", "192.0.2.9"} {
			if !n.attacker.Ping(dst, 10, time.Second) {
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
		return n.attacker.cached("192.0.2.1") == fake && n.gateway.cached("192.0.2.66") == fake
	})
	t.Logf("isolated within %v", d.Round(time.Millisecond))
	n.attacker.forget("192.0.2.70") // so that it asks everybody
	n.attacker.Ping("192.0.2.70", 1, 100*time.Millisecond)
	n.until("isolation from the printer", 10*time.Second, func() bool {
		return n.attacker.cached("192.0.2.70") == fake && n.printer.cached("192.0.2.66") == fake
	})
	for _, c := range conns {
		if netspace.Talk(c, 500*time.Millisecond) {
			t.Errorf("isolated: something passes %s", c.what)
		}
	}
	for _, dst := range []string{"192.0.2.1", "198.51.100.1", "192.0.2.70"} {
		if n.attacker.Ping(dst, 3, 300*time.Millisecond) {
			t.Errorf("isolated: the attacker reaches %s", dst)
		}
	}
	if n.gateway.Ping("192.0.2.66", 3, 300*time.Millisecond) || n.printer.Ping("192.0.2.66", 3, 300*time.Millisecond) {
		t.Error("isolated: the attacker is reached")
	}
	if _, ok := inner.(*nft.Firewall); ok && n.attacker.Ping("192.0.2.9", 2, 300*time.Millisecond) {
		t.Error("the attacker reaches us")
	}
	// Nobody else notices.
	if !netspace.Talk(other, 2*time.Second) || !n.printer.Ping("192.0.2.1", 3, time.Second) || !n.us.Ping("192.0.2.1", 3, time.Second) {
		t.Error("the printer, or we, do not reach the gateway")
	}
	if got := n.us.cached("192.0.2.66"); got != "" && got != attackerMAC.String() {
		t.Errorf("we take the attacker to be at %s", got)
	}
	// Each side forgets, asks, and is told again. One ping may get through before.
	for range 3 {
		n.attacker.forget("192.0.2.1")
		n.attacker.Ping("192.0.2.1", 1, 100*time.Millisecond)
		n.until("the attacker asks", 2*time.Second, func() bool { return n.attacker.cached("192.0.2.1") == fake })
		if n.attacker.Ping("192.0.2.1", 2, 300*time.Millisecond) {
			t.Error("the attacker asks, and reaches the gateway")
		}
		n.gateway.forget("192.0.2.66")
		n.gateway.Ping("192.0.2.66", 1, 100*time.Millisecond)
		n.until("the gateway asks", 2*time.Second, func() bool { return n.gateway.cached("192.0.2.66") == fake })
	}
	// An attacker who enters the gateway's address by hand is not heard by it.
	n.attacker.On("eth0", func(h *nl.Handle, l nl.Link) error {
		return h.NeighSet(&nl.Neigh{LinkIndex: l.Attrs().Index, State: nl.NUD_PERMANENT, IP: net.ParseIP("192.0.2.1"), HardwareAddr: gatewayMAC[:]})
	})
	if n.attacker.Ping("192.0.2.1", 3, 300*time.Millisecond) {
		t.Error("with an entry by hand the attacker reaches the gateway")
	}
	n.attacker.forget("192.0.2.1")

	start := time.Now()
	if _, _, err := m.Unblock(t.Context(), "test", "", req.Prefix); err != nil {
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
	n.until("the end of the block", 10*time.Second, func() bool { return n.attacker.Ping("198.51.100.1", 1, 200*time.Millisecond) })
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
	n.attacker.Ping("192.0.2.70", 1, 100*time.Millisecond) // one may get through
	d := n.until("the printer", 3*time.Second, func() bool {
		return n.attacker.cached("192.0.2.70") == fake && n.printer.cached("192.0.2.66") == fake
	})
	t.Logf("isolated from the printer %v after the attacker asked for it", d.Round(time.Millisecond))
	if n.attacker.Ping("192.0.2.70", 3, 300*time.Millisecond) || n.printer.Ping("192.0.2.66", 3, 300*time.Millisecond) {
		t.Error("the attacker and the printer reach each other")
	}
	if n.attacker.Ping("192.0.2.1", 3, 300*time.Millisecond) {
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
	if !n.attacker.Ping("198.51.100.1", 3, time.Second) {
		t.Fatal("the attacker does not reach the world")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"=run")
	cmd.Stdout = t.Output()
	if err := n.us.Start(cmd); err != nil {
		t.Fatal(err)
	}
	fake := fake(ownMAC, ip("192.0.2.66"), 0).String()
	n.until("isolation", 10*time.Second, func() bool {
		return n.attacker.cached("192.0.2.1") == fake && n.gateway.cached("192.0.2.66") == fake
	})
	if n.attacker.Ping("198.51.100.1", 2, 300*time.Millisecond) {
		t.Error("the attacker reaches the world")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // it was killed
	d := n.until("healing", 3*time.Minute, func() bool { return n.attacker.Ping("198.51.100.1", 1, time.Second) })
	t.Logf("the attacker reaches the world %v after the kill", d.Round(time.Second))
}

// TestProxy refuses a second address of the gateway.
func TestProxy(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	n.gateway.Address("eth0", "192.0.2.2/24")
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
	n.sw.On("us", func(h *nl.Handle, l nl.Link) error { return h.LinkDel(l) })
	n.until("its end is seen", 10*time.Second, func() bool { return i.Stats().Failures > 0 })
	n.plug(n.us, "us", ownMAC, "192.0.2.9/24")
	before := i.Stats().Frames
	n.until("frames", 10*time.Second, func() bool { return i.Stats().Frames > before+4 })
	fake := fake(ownMAC, ip("192.0.2.66"), 0).String()
	n.attacker.Ping("192.0.2.1", 1, 100*time.Millisecond)
	n.until("isolation", 5*time.Second, func() bool { return n.attacker.cached("192.0.2.1") == fake })
}

// TestNew says what is wrong with interfaces, and which capability is missing.
func TestNew(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	try := func(name, want string) {
		t.Helper()
		i, err := New(nil, Options{
			Config: Defaults(), Interfaces: []string{name}, Network: network(), Guard: allow(t), Log: slog.New(slog.DiscardHandler), Now: time.Now, NetNS: n.us.FD(),
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
	n.us.With(func(h *nl.Handle) error {
		return h.LinkAdd(&nl.Veth{LinkAttrs: nl.LinkAttrs{Name: "v0"}, PeerName: "v1"})
	})
	try("v0", `it is down ("ip link set dev v0 up")`)

	out, _ := n.us.Nobody(childEnv+"=open", "eth0") // it fails, and says why
	for _, want := range []string{`arp isolation on "eth0": no permission`, "CAP_NET_RAW"} {
		if !strings.Contains(out, want) {
			t.Errorf("as nobody: %q, want %q in it", out, want)
		}
	}
}
