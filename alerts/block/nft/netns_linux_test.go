package nft_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/slips-go/slips/alerts/block"
	"github.com/slips-go/slips/alerts/block/nft"
	"github.com/slips-go/slips/internal/netspace"
)

// space is a network namespace of a test's own, with a firewall to open.
type space struct {
	*netspace.Space
	t testing.TB
}

func newSpace(t testing.TB) *space {
	t.Helper()
	return &space{netspace.New(t, "nftables"), t}
}

// pings expects dst to answer, or not to.
func (s *space) pings(dst string, want bool) {
	s.t.Helper()
	n := 1
	if want {
		n = 30
	}
	if got := s.Ping(dst, n, 300*time.Millisecond); got != want {
		s.t.Errorf("ping %s: answered %v, want %v", dst, got, want)
	}
}

// arrives reports whether one of n datagrams that s sends reaches the address
// of to. Nothing comes back, so it tells one direction from the other.
func (s *space) arrives(to *space, addr string, n int) bool {
	s.t.Helper()
	var in net.PacketConn
	if err := to.Do(func() (err error) { in, err = net.ListenPacket("udp", net.JoinHostPort(addr, "9")); return err }); err != nil {
		s.t.Fatal(err)
	}
	defer in.Close()
	var out net.Conn
	if err := s.Do(func() (err error) { out, err = net.Dial("udp", net.JoinHostPort(addr, "9")); return err }); err != nil {
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

// open returns a firewall in the namespace.
func (s *space) open() *nft.Firewall {
	s.t.Helper()
	f, err := nft.Open(nft.Config{Now: time.Now, NetNS: s.FD()})
	if errors.Is(err, block.ErrUnsupported) || errors.Is(err, block.ErrPermission) {
		s.t.Skipf("SKIPPED, nothing of nftables is tested: %v", err)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { f.Close() })
	return f
}

// forwarding makes a network, 10.1.0.2, another, 198.51.100.2 and .3, and a
// machine between them that forwards.
func forwarding(t *testing.T) (inside, router, outside *space) {
	t.Helper()
	inside, router, outside = newSpace(t), newSpace(t), newSpace(t)
	inside.Link(router.Space, "in", []string{"10.1.0.2/24"}, []string{"10.1.0.1/24"})
	outside.Link(router.Space, "out", []string{"198.51.100.2/24", "198.51.100.3/24"}, []string{"198.51.100.1/24"})
	inside.Route("10.1.0.1")
	outside.Route("198.51.100.1")
	router.Sysctl("ipv4/ip_forward", "1")
	return inside, router, outside
}

// through is a connection from outside to inside over which both have talked.
func through(t *testing.T, inside, outside *space) net.Conn {
	t.Helper()
	inside.Echo("10.1.0.2:7")
	c, err := outside.Dial("tcp", "10.1.0.2:7", 2*time.Second)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	if !netspace.Talk(c, 2*time.Second) {
		t.Fatal("nothing is forwarded")
	}
	return c
}
