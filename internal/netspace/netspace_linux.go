// Package netspace makes network namespaces for tests: hosts on one machine,
// with real kernels between them and nothing of the machine's own network.
package netspace

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	nl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// Space is a network namespace of a test's own. It is gone when the test is.
type Space struct {
	t    testing.TB
	what string // is tested
	fd   int
}

// New makes a namespace with loopback up. The test is skipped where that is
// not allowed; what says what is not tested then.
func New(t testing.TB, what string) *Space {
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
		t.Skipf("NOT TESTED: %s: a network namespace cannot be made (root is needed): %v", what, r.err)
	}
	t.Cleanup(func() {
		if err := unix.Close(r.fd); err != nil {
			t.Errorf("close a namespace: %v", err)
		}
	})
	s := &Space{t, what, r.fd}
	s.Up("lo", true)
	return s
}

// FD is the namespace's descriptor, open until the test ends.
func (s *Space) FD() int { return s.fd }

// Handle returns a handle of netlink in the namespace, to be closed by the caller.
func (s *Space) Handle() *nl.Handle {
	s.t.Helper()
	h, err := nl.NewHandleAt(netns.NsHandle(s.fd))
	if err != nil {
		s.t.Fatal(err)
	}
	return h
}

// With runs f with such a handle. An error of f ends the test.
func (s *Space) With(f func(h *nl.Handle) error) {
	s.t.Helper()
	h := s.Handle()
	defer h.Close()
	if err := f(h); err != nil {
		s.t.Fatal(err)
	}
}

// On does the same with an interface.
func (s *Space) On(name string, f func(h *nl.Handle, l nl.Link) error) {
	s.t.Helper()
	s.With(func(h *nl.Handle) error {
		l, err := h.LinkByName(name)
		if err == nil {
			err = f(h, l)
		}
		if err != nil {
			return fmt.Errorf("interface %q: %w", name, err)
		}
		return nil
	})
}

// Do runs f on a thread in the namespace. Sockets that f makes and processes
// that it starts stay there.
func (s *Space) Do(f func() error) error {
	c := make(chan error)
	go func() {
		runtime.LockOSThread() // as in New
		if err := unix.Setns(s.fd, unix.CLONE_NEWNET); err != nil {
			c <- fmt.Errorf("enter the namespace: %w", err)
			return
		}
		c <- f()
	}()
	return <-c
}

// Start starts a process in the namespace.
func (s *Space) Start(cmd *exec.Cmd) error { return s.Do(cmd.Start) }

// Nobody runs this test program once more in the namespace, as nobody, with
// env alone in its environment, and returns what it prints and how it ends.
func (s *Space) Nobody(env string, args ...string) (string, error) {
	s.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	data, err := os.ReadFile(exe)
	if err != nil {
		s.t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "netspace") // nobody cannot enter what TempDir of a test makes
	if err != nil {
		s.t.Fatal(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // nothing depends on it
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(dir+"/test", data, 0o755)); err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(s.t.Context(), dir+"/test", args...)
	cmd.Dir, cmd.Env = "/", []string{env}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var out []byte
	err = s.Do(func() (err error) { out, err = cmd.CombinedOutput(); return err })
	return string(out), err
}

// Link joins s and o by a veth pair that has the name on both sides, with the
// given addresses such as "10.0.0.1/24", and sets it up.
func (s *Space) Link(o *Space, name string, own, others []string) {
	s.t.Helper()
	s.With(func(h *nl.Handle) error {
		veth := &nl.Veth{LinkAttrs: nl.LinkAttrs{Name: name}, PeerName: name, PeerNamespace: nl.NsFd(o.fd)}
		if err := h.LinkAdd(veth); err != nil {
			s.t.Skipf("NOT TESTED: %s: a veth pair cannot be made: %v", s.what, err)
		}
		return nil
	})
	s.Address(name, own...)
	o.Address(name, others...)
	s.Up(name, true)
	o.Up(name, true)
}

// Address gives an interface addresses such as "10.0.0.1/24".
func (s *Space) Address(name string, addrs ...string) {
	s.t.Helper()
	s.On(name, func(h *nl.Handle, l nl.Link) error {
		for _, text := range addrs {
			addr, err := nl.ParseAddr(text)
			if err != nil {
				return err
			}
			if addr.IP.To4() == nil {
				addr.Flags = unix.IFA_F_NODAD // or it is not usable for a second
			}
			if err := h.AddrAdd(l, addr); err != nil {
				return fmt.Errorf("add %s: %w", text, err)
			}
		}
		return nil
	})
}

// Up sets an interface up or down.
func (s *Space) Up(name string, up bool) {
	s.t.Helper()
	s.On(name, func(h *nl.Handle, l nl.Link) error {
		if up {
			return h.LinkSetUp(l)
		}
		return h.LinkSetDown(l)
	})
}

// Route adds a default route.
func (s *Space) Route(gateway string) {
	s.t.Helper()
	s.With(func(h *nl.Handle) error { return h.RouteAdd(&nl.Route{Gw: net.ParseIP(gateway)}) })
}

// Sysctl sets a value below /proc/sys/net of the namespace.
func (s *Space) Sysctl(name, value string) {
	s.t.Helper()
	if err := s.Do(func() error { return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0) }); err != nil {
		s.t.Fatal(err)
	}
}

// Listen makes a TCP listener in the namespace, closed when the test ends.
func (s *Space) Listen(addr string) net.Listener {
	s.t.Helper()
	var l net.Listener
	if err := s.Do(func() (err error) { l, err = new(net.ListenConfig).Listen(s.t.Context(), "tcp", addr); return err }); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = l.Close() }) // the test may have closed it
	return l
}

// Dial connects from the namespace.
func (s *Space) Dial(network, addr string, wait time.Duration) (net.Conn, error) {
	var c net.Conn
	err := s.Do(func() (err error) {
		c, err = (&net.Dialer{Timeout: wait}).DialContext(s.t.Context(), network, addr)
		return err
	})
	return c, err
}

// Echo starts a TCP server in the namespace that sends back what it gets, until
// the test ends.
func (s *Space) Echo(addr string) {
	s.t.Helper()
	l := s.Listen(addr)
	var all sync.WaitGroup
	all.Go(func() {
		var conns []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			conns = append(conns, c)
			all.Go(func() {
				buf := make([]byte, 64)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if _, err := c.Write(buf[:n]); err != nil {
						return
					}
				}
			})
		}
		for _, c := range conns {
			_ = c.Close() // which ends its goroutine
		}
	})
	s.t.Cleanup(func() {
		_ = l.Close() // as in Listen
		all.Wait()
	})
}

// Talk reports whether something comes back over a connection to Echo within
// wait.
func Talk(c net.Conn, wait time.Duration) bool {
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		return false
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return false
	}
	_, err := c.Read(make([]byte, 64)) // also what came late, of earlier calls
	return err == nil
}

// Ping reports whether dst answers one of n echo requests, each within wait.
func (s *Space) Ping(dst string, n int, wait time.Duration) bool {
	s.t.Helper()
	ip := netip.MustParseAddr(dst)
	network, local, proto := "ip4:icmp", "0.0.0.0", unix.IPPROTO_ICMP
	var echo, reply icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if ip.Is6() {
		network, local, proto, echo, reply = "ip6:ipv6-icmp", "::", unix.IPPROTO_ICMPV6, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	var c *icmp.PacketConn
	if err := s.Do(func() (err error) { c, err = icmp.ListenPacket(network, local); return err }); err != nil {
		s.t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // nothing is kept of it
	buf := make([]byte, 1500)
	for seq := range n {
		m, err := (&icmp.Message{Type: echo, Body: &icmp.Echo{ID: 77, Seq: seq, Data: []byte("slips")}}).Marshal(nil)
		if err != nil {
			s.t.Fatal(err)
		}
		// EPERM is what a drop in a chain of output looks like, EHOSTUNREACH a
		// neighbour that does not answer.
		if _, err := c.WriteTo(m, &net.IPAddr{IP: ip.AsSlice()}); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EHOSTUNREACH) {
			s.t.Fatalf("ping %s: %v", dst, err)
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
