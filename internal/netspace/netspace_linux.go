// Package netspace makes network namespaces for tests: hosts on one machine,
// with real kernels between them and nothing of the machine's own network.
package netspace

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	nl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Space is a network namespace of a test's own. It is gone when the test is.
type Space struct {
	t  testing.TB
	fd int
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
	s := &Space{t, r.fd}
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

// Link joins s and o by a veth pair that has the name on both sides, with the
// given addresses such as "10.0.0.1/24", and sets it up.
func (s *Space) Link(o *Space, name string, own, others []string) {
	s.t.Helper()
	h := s.Handle()
	defer h.Close()
	veth := &nl.Veth{LinkAttrs: nl.LinkAttrs{Name: name}, PeerName: name, PeerNamespace: nl.NsFd(o.fd)}
	if err := h.LinkAdd(veth); err != nil {
		s.t.Skipf("NOT TESTED: a veth pair cannot be made: %v", err)
	}
	s.address(name, own)
	o.address(name, others)
	s.Up(name, true)
	o.Up(name, true)
}

func (s *Space) address(name string, addrs []string) {
	s.t.Helper()
	h := s.Handle()
	defer h.Close()
	l, err := h.LinkByName(name)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, text := range addrs {
		addr, err := nl.ParseAddr(text)
		if err != nil {
			s.t.Fatal(err)
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(l, addr); err != nil {
			s.t.Fatalf("add %s: %v", text, err)
		}
	}
}

// Up sets an interface up or down.
func (s *Space) Up(name string, up bool) {
	s.t.Helper()
	h := s.Handle()
	defer h.Close()
	l, err := h.LinkByName(name)
	if err != nil {
		s.t.Fatal(err)
	}
	set := h.LinkSetDown
	if up {
		set = h.LinkSetUp
	}
	if err := set(l); err != nil {
		s.t.Fatal(err)
	}
}

// Route adds a default route.
func (s *Space) Route(gateway string) {
	s.t.Helper()
	h := s.Handle()
	defer h.Close()
	if err := h.RouteAdd(&nl.Route{Gw: net.ParseIP(gateway)}); err != nil {
		s.t.Fatal(err)
	}
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
