package nft_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	nl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/slips-go/slips/alerts/block"
	"github.com/slips-go/slips/alerts/block/nft"
)

// space is a network namespace of a test's own.
type space struct {
	t  testing.TB
	fd int
}

// newSpace makes a namespace with loopback up. The test is skipped where that
// is not allowed.
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
		t.Skipf("SKIPPED, nothing of nftables is tested: a network namespace cannot be made (root is needed): %v", r.err)
	}
	t.Cleanup(func() { unix.Close(r.fd) })
	s := &space{t, r.fd}
	h := s.handle()
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *space) handle() *nl.Handle {
	s.t.Helper()
	h, err := nl.NewHandleAt(netns.NsHandle(s.fd))
	if err != nil {
		s.t.Fatal(err)
	}
	return h
}

// do runs f on a thread in the namespace. Sockets that f makes stay there.
func (s *space) do(f func() error) error {
	c := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(s.fd, unix.CLONE_NEWNET); err != nil {
			c <- fmt.Errorf("enter the namespace: %w", err)
			return
		}
		c <- f()
	}()
	return <-c
}

// join links a and b by a veth pair with the given addresses.
func join(a, b *space, name string, addrsA, addrsB []string) {
	a.t.Helper()
	h := a.handle()
	defer h.Close()
	veth := &nl.Veth{LinkAttrs: nl.LinkAttrs{Name: name}, PeerName: name, PeerNamespace: nl.NsFd(b.fd)}
	if err := h.LinkAdd(veth); err != nil {
		a.t.Skipf("SKIPPED, no traffic is tested: a veth pair cannot be made: %v", err)
	}
	for _, side := range []struct {
		s     *space
		addrs []string
	}{{a, addrsA}, {b, addrsB}} {
		h := side.s.handle()
		defer h.Close()
		l, err := h.LinkByName(name)
		if err != nil {
			a.t.Fatal(err)
		}
		for _, text := range side.addrs {
			addr, err := nl.ParseAddr(text)
			if err != nil {
				a.t.Fatal(err)
			}
			if addr.IP.To4() == nil {
				addr.Flags = unix.IFA_F_NODAD
			}
			if err := h.AddrAdd(l, addr); err != nil {
				a.t.Fatalf("add %s: %v", text, err)
			}
		}
		if err := h.LinkSetUp(l); err != nil {
			a.t.Fatal(err)
		}
	}
}

// via adds a default route.
func (s *space) via(gateway string) {
	s.t.Helper()
	h := s.handle()
	defer h.Close()
	if err := h.RouteAdd(&nl.Route{Gw: net.ParseIP(gateway)}); err != nil {
		s.t.Fatal(err)
	}
}

// ping reports whether dst answers one of n echo requests, each within wait.
func (s *space) ping(dst string, n int, wait time.Duration) bool {
	s.t.Helper()
	ip := netip.MustParseAddr(dst)
	network, local, proto := "ip4:icmp", "0.0.0.0", 1
	var echo, reply icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if ip.Is6() {
		network, local, proto, echo, reply = "ip6:ipv6-icmp", "::", 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	var c *icmp.PacketConn
	if err := s.do(func() (err error) { c, err = icmp.ListenPacket(network, local); return err }); err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 1500)
	for seq := range n {
		m, err := (&icmp.Message{Type: echo, Body: &icmp.Echo{ID: 77, Seq: seq, Data: []byte("slips")}}).Marshal(nil)
		if err != nil {
			s.t.Fatal(err)
		}
		if _, err := c.WriteTo(m, &net.IPAddr{IP: ip.AsSlice()}); err != nil && !errors.Is(err, unix.EPERM) {
			s.t.Fatalf("ping %s: %v", dst, err) // EPERM is what a drop in the chain output looks like
		}
		if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
			s.t.Fatal(err)
		}
		for {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				break
			}
			if r, err := icmp.ParseMessage(proto, buf[:n]); err == nil && r.Type == reply {
				return true
			}
		}
	}
	return false
}

// pings expects dst to answer, or not to.
func (s *space) pings(dst string, want bool) {
	s.t.Helper()
	n := 1
	if want {
		n = 30
	}
	if got := s.ping(dst, n, 300*time.Millisecond); got != want {
		s.t.Errorf("ping %s: answered %v, want %v", dst, got, want)
	}
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
		var conns []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				for _, c := range conns {
					c.Close()
				}
				return
			}
			conns = append(conns, c)
			go func() {
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

func (s *space) dial(addr string, wait time.Duration) (net.Conn, error) {
	var c net.Conn
	err := s.do(func() (err error) { c, err = net.DialTimeout("tcp", addr, wait); return err })
	return c, err
}

// arrives reports whether one of n datagrams that s sends reaches the address
// of to. Nothing comes back, so it tells one direction from the other.
func (s *space) arrives(to *space, addr string, n int) bool {
	s.t.Helper()
	var in net.PacketConn
	if err := to.do(func() (err error) { in, err = net.ListenPacket("udp", net.JoinHostPort(addr, "9")); return err }); err != nil {
		s.t.Fatal(err)
	}
	defer in.Close()
	var out net.Conn
	if err := s.do(func() (err error) { out, err = net.Dial("udp", net.JoinHostPort(addr, "9")); return err }); err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	buf := make([]byte, 10)
	for range n {
		out.Write([]byte("x")) // an error is what a drop in the chain output looks like
		in.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if _, _, err := in.ReadFrom(buf); err == nil {
			return true
		}
	}
	return false
}

// talk reports whether text comes back over c within wait.
func talk(c net.Conn, wait time.Duration) bool {
	c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte("x")); err != nil {
		return false
	}
	buf := make([]byte, 1)
	_, err := c.Read(buf)
	return err == nil
}

// open returns a firewall in the namespace.
func (s *space) open() *nft.Firewall {
	s.t.Helper()
	f, err := nft.Open(nft.Config{Now: time.Now, NetNS: s.fd})
	if errors.Is(err, block.ErrUnsupported) || errors.Is(err, block.ErrPermission) {
		s.t.Skipf("SKIPPED, nothing of nftables is tested: %v", err)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { f.Close() })
	return f
}

// sysctl sets a value below /proc/sys/net of the namespace.
func (s *space) sysctl(name, value string) {
	s.t.Helper()
	if err := s.do(func() error { return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0) }); err != nil {
		s.t.Fatal(err)
	}
}
