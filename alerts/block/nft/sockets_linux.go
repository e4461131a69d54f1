package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What the kernel says about a socket, struct inet_diag_msg of linux/inet_diag.h:
// four bytes, then which one it is, then what is of no use here. The question is
// struct inet_diag_req_v2: family, protocol, two bytes, states, and which one.
const (
	diagHeader  = 4
	diagID      = 48 // ports, addresses of 16 bytes, interface, cookie
	diagMessage = diagHeader + diagID + 20
	diagRequest = 8 + diagID

	diagBuffer = 64 << 10 // of one read; the kernel fills at most 32 KiB
)

// kinds returns the protocols whose sockets are closed, and the states in which
// they have somebody at the other end, by the kernel's numbers for TCP.
func kinds() []diagKind {
	const idle = 1<<unix.BPF_TCP_LISTEN | 1<<unix.BPF_TCP_CLOSE | 1<<unix.BPF_TCP_TIME_WAIT
	return []diagKind{
		{"TCP", unix.IPPROTO_TCP, 1<<(unix.BPF_TCP_NEW_SYN_RECV+1) - 1 - idle},
		{"UDP", unix.IPPROTO_UDP, 1 << unix.BPF_TCP_ESTABLISHED},
	}
}

type diagKind struct {
	name     string
	protocol byte
	states   uint32
}

// socket is one of this machine's that is connected.
type socket struct {
	id     [diagID]byte // the kernel's words, with a cookie that no other socket has
	family byte
	ends   pair
}

// pair is the two ends of a connection.
type pair struct{ local, remote netip.AddrPort }

// closeSockets closes this machine's sockets of some kinds that are connected to
// what match has, and returns whose they were. Their programs are told that the
// connection was aborted. That a kernel cannot do it is an error that wraps
// errors.ErrUnsupported, of the first call.
func (f *Firewall) closeSockets(ctx context.Context, kinds []diagKind, match *matcher) (map[pair]bool, error) {
	const what = "close the sockets of blocked hosts"
	closed := make(map[pair]bool)
	var failed, lacking error
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{NetNS: f.cfg.NetNS})
	if err != nil {
		if !absent(err) {
			return closed, explain(what, err)
		}
		lacking = err
	} else {
		defer conn.Close() //nolint:errcheck // there is nothing to lose in a socket of netlink
		ctx, cancel := context.WithTimeout(ctx, cutTimeout)
		defer cancel()
		stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // the past: ends what waits
		defer stop()
		for _, k := range kinds {
			err := k.closeAll(conn, match, closed)
			if absent(err) {
				lacking = err
			} else if err != nil {
				failed = explain(what, err)
				break
			}
		}
	}
	if lacking != nil && !f.cannotClose.Swap(true) {
		failed = errors.Join(failed, fmt.Errorf("%s: the kernel cannot, it takes CONFIG_INET_DIAG_DESTROY: %w: %w", what, errors.ErrUnsupported, lacking))
	}
	return closed, failed
}

// closeAll closes the sockets of one kind.
func (k diagKind) closeAll(conn *netlink.Conn, match *matcher, closed map[pair]bool) error {
	for _, family := range match.families() {
		list, err := k.connected(conn, family, match)
		if err == nil {
			err = kill(list, closed, func(s socket) error {
				_, err := conn.Execute(netlink.Message{
					Header: netlink.Header{Type: unix.SOCK_DESTROY, Flags: netlink.Request | netlink.Acknowledge}, Data: k.question(s.family, s.id),
				})
				return err
			})
		}
		if err != nil {
			return fmt.Errorf("sockets of %s: %w", k.name, err)
		}
	}
	return nil
}

// kill calls destroy for each socket, and notes those that it has closed.
func kill(list []socket, closed map[pair]bool, destroy func(socket) error) error {
	for _, s := range list {
		err := destroy(s)
		switch {
		case err == nil:
			closed[s.ends] = true
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESTALE): // it has gone by itself
		default:
			return err
		}
	}
	return nil
}

// question asks about the sockets of a family, or about one of them.
func (k diagKind) question(family byte, id [diagID]byte) []byte {
	b := make([]byte, diagRequest)
	b[0], b[1] = family, k.protocol
	binary.NativeEndian.PutUint32(b[4:], k.states)
	copy(b[8:], id[:])
	return b
}

// connected returns the sockets of a kind and family that match has. Others are
// not kept: a busy server has hundreds of thousands.
func (k diagKind) connected(conn *netlink.Conn, family byte, match *matcher) (list []socket, err error) {
	sent, err := conn.Send(netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump}, Data: k.question(family, [diagID]byte{}),
	})
	if err != nil {
		return nil, err
	}
	rc, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	buf := make([]byte, diagBuffer)
	for done := false; !done; {
		n, err := receive(rc, buf)
		if err != nil {
			return nil, err
		}
		if list, done, err = parseSockets(list, buf[:n], sent.Header.Sequence, match); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// parseSockets appends the sockets in a piece of an answer that match has to
// list, and reports whether it was the last piece. It keeps nothing of b.
func parseSockets(list []socket, b []byte, seq uint32, match *matcher) (_ []socket, done bool, err error) {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return nil, false, fmt.Errorf("%d bytes that are no messages: %w", len(b), err)
	}
	for _, m := range messages {
		switch {
		case m.Header.Seq != seq:
			return nil, false, errors.New("an answer to something else")
		case m.Header.Type == unix.NLMSG_DONE, m.Header.Type == unix.NLMSG_ERROR:
			if len(m.Data) >= 4 {
				if code := int32(binary.NativeEndian.Uint32(m.Data)); code < 0 {
					return nil, false, syscall.Errno(-code)
				}
			}
			return list, true, nil
		case m.Header.Type != unix.SOCK_DIAG_BY_FAMILY || len(m.Data) < diagMessage:
			return nil, false, fmt.Errorf("a message of type %#x and %d bytes", m.Header.Type, len(m.Data))
		}
		s := socket{family: m.Data[0], id: [diagID]byte(m.Data[diagHeader:])}
		s.ends = pair{s.end(0), s.end(1)}
		if match.hasAddr(s.ends.remote.Addr()) {
			list = append(list, s)
		}
	}
	return list, false, nil
}

// end returns the local end, 0, or the remote one, 1. IPv4 in IPv6 is IPv4.
func (s *socket) end(i int) netip.AddrPort {
	addr := s.id[4+16*i:][:16]
	if s.family == unix.AF_INET {
		addr = addr[:4]
	}
	a, _ := netip.AddrFromSlice(addr) // it has one of the two lengths
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(s.id[2*i:]))
}
