package nft

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	nl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/slips-go/slips/internal/netspace"
)

// socketMessage is a message of the kernel with one socket.
func socketMessage(t testing.TB, family byte, local, remote netip.AddrPort) []byte {
	t.Helper()
	b := make([]byte, diagMessage+8) // attributes follow
	b[0], b[1] = family, unix.BPF_TCP_ESTABLISHED
	for i, end := range []netip.AddrPort{local, remote} {
		binary.BigEndian.PutUint16(b[4+2*i:], end.Port())
		copy(b[8+16*i:], end.Addr().AsSlice())
	}
	return message(t, unix.SOCK_DIAG_BY_FAMILY, 0, b)
}

func TestParseSockets(t *testing.T) {
	end := netip.MustParseAddrPort
	match := newMatcher([]netip.Prefix{netip.MustParsePrefix("192.0.2.2/32"), netip.MustParsePrefix("2001:db8::/64")})
	var b []byte
	for _, s := range []struct {
		family byte
		remote string
	}{
		{unix.AF_INET, "192.0.2.2:2"},
		{unix.AF_INET, "192.0.2.3:2"},
		{unix.AF_INET6, "[::ffff:192.0.2.2]:3"},
		{unix.AF_INET6, "[2001:db8::1]:4"},
		{unix.AF_INET6, "[2001:db8:1::1]:4"},
		{unix.AF_INET6, "[c000:202::]:5"}, // whose first bytes are those of 192.0.2.2
	} {
		local := end("192.0.2.9:1")
		if s.family == unix.AF_INET6 {
			local = end("[::ffff:192.0.2.9]:1")
		}
		b = append(b, socketMessage(t, s.family, local, end(s.remote))...)
	}
	list, done, err := parseSockets(nil, b, 7, match)
	if done || err != nil {
		t.Errorf("a piece with more to come: done %v, %v", done, err)
	}
	var got []string
	for _, s := range list {
		got = append(got, s.ends.local.String()+" "+s.ends.remote.String())
	}
	if diff := cmp.Diff([]string{"192.0.2.9:1 192.0.2.2:2", "192.0.2.9:1 192.0.2.2:3", "192.0.2.9:1 [2001:db8::1]:4"}, got); diff != "" {
		t.Error(diff)
	}
	last := message(t, unix.NLMSG_DONE, 0, make([]byte, 4))
	if list, done, err = parseSockets(list, last, 7, match); len(list) != 3 || !done || err != nil {
		t.Errorf("the end: %d sockets, done %v, %v", len(list), done, err)
	}
	for _, c := range []struct {
		name string
		b    []byte
		seq  uint32
		want error
	}{
		{"error", message(t, unix.NLMSG_ERROR, 0, []byte{0xfe, 0xff, 0xff, 0xff}), 7, syscall.ENOENT},
		{"another question", last, 8, nil},
		{"another type", message(t, 5, 0, make([]byte, diagMessage)), 7, nil},
		{"short", message(t, unix.SOCK_DIAG_BY_FAMILY, 0, make([]byte, diagMessage-4)), 7, nil},
		{"cut", b[:30], 7, nil},
	} {
		if _, _, err := parseSockets(nil, c.b, c.seq, match); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func FuzzParseSockets(f *testing.F) {
	f.Add(socketMessage(f, unix.AF_INET, netip.MustParseAddrPort("192.0.2.9:1"), netip.MustParseAddrPort("192.0.2.2:2")))
	f.Add(message(f, unix.NLMSG_DONE, 0, make([]byte, 4)))
	f.Add([]byte{})
	match := newMatcher([]netip.Prefix{netip.MustParsePrefix("192.0.0.0/2"), netip.MustParsePrefix("2001::/3")})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, _, err := parseSockets(nil, b, 7, match)
		if err == nil && len(list)*diagMessage > len(b) {
			t.Errorf("%d sockets in %d bytes", len(list), len(b))
		}
		for _, s := range list {
			if !match.hasAddr(s.ends.remote.Addr()) {
				t.Errorf("a socket that is connected to %v", s.ends.remote)
			}
		}
	})
}

// TestKill goes on when a socket has gone by itself, and ends with what the
// kernel cannot do.
func TestKill(t *testing.T) {
	list := make([]socket, 4)
	for i := range list {
		list[i].ends.local = netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(i))
	}
	errs := []error{unix.ENOENT, unix.ESTALE, nil, unix.EOPNOTSUPP}
	closed := make(map[pair]bool)
	err := kill(list, closed, func(s socket) error { return errs[s.ends.local.Port()] })
	if !errors.Is(err, unix.EOPNOTSUPP) || len(closed) != 1 || !closed[list[2].ends] {
		t.Errorf("closed %v, %v", closed, err)
	}
}

// TestCannotClose asks the kernel for sockets of a protocol about which it has
// nothing to tell, as one without CONFIG_INET_DIAG is asked for TCP.
func TestCannotClose(t *testing.T) {
	s := netspace.New(t, "closing of sockets")
	f := &Firewall{cfg: Config{Now: time.Now, NetNS: s.FD()}}
	match := newMatcher([]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")})
	l := s.Listen("127.0.0.1:7")
	c, err := s.Dial("tcp", l.Addr().String(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	nobody := diagKind{"nobody", 253, 1 << unix.BPF_TCP_ESTABLISHED}
	closed, err := f.closeSockets(t.Context(), append([]diagKind{nobody}, kinds()...), match)
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "CONFIG_INET_DIAG_DESTROY: ") || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("%v, want what the kernel lacks", err)
	}
	if len(closed) == 0 { // one end, which takes the other with it
		t.Error("of the others none is closed")
	}
	if _, err := f.closeSockets(t.Context(), []diagKind{nobody}, match); err != nil {
		t.Errorf("it is said again: %v", err)
	}
}

// TestTrackedTwice counts a connection once that is tracked, and whose socket is
// closed.
func TestTrackedTwice(t *testing.T) {
	ip := net.ParseIP
	match := newMatcher([]netip.Prefix{netip.MustParsePrefix("192.0.2.2/32")})
	match.closed = map[pair]bool{{netip.MustParseAddrPort("10.0.0.1:22"), netip.MustParseAddrPort("192.0.2.2:4000")}: true}
	for _, c := range []struct {
		forward, reverse nl.IPTuple
		found            bool
		both             int
	}{
		{nl.IPTuple{SrcIP: ip("192.0.2.2"), SrcPort: 4000, DstIP: ip("10.0.0.1"), DstPort: 22}, nl.IPTuple{}, true, 1},
		{nl.IPTuple{SrcIP: ip("192.0.2.2"), SrcPort: 4001, DstIP: ip("10.0.0.1"), DstPort: 22}, nl.IPTuple{}, true, 0},
		{nl.IPTuple{SrcIP: ip("192.0.2.3"), SrcPort: 4000, DstIP: ip("10.0.0.1"), DstPort: 22}, nl.IPTuple{}, false, 0},
		{
			nl.IPTuple{SrcIP: ip("192.0.2.2"), SrcPort: 4000, DstIP: ip("203.0.113.1"), DstPort: 2222}, // its destination is translated
			nl.IPTuple{SrcIP: ip("10.0.0.1"), SrcPort: 22, DstIP: ip("192.0.2.2"), DstPort: 4000}, true, 1,
		},
	} {
		match.both = 0
		if found := match.MatchConntrackFlow(&nl.ConntrackFlow{Forward: c.forward, Reverse: c.reverse}); found != c.found || match.both != c.both {
			t.Errorf("%+v: found %v, both %d", c, found, match.both)
		}
	}
}
