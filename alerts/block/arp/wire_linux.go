package arp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"

	nl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/slips-go/slips/alerts/block"
)

// socket is a wire of Linux: AF_PACKET, bound to one interface and to ARP. It
// receives what is sent to this machine and to all, and not what it sends.
type socket struct {
	file  *os.File
	index int // of the interface
	netNS int
}

var errGone = errors.New("the interface is gone")

// dial opens a socket on the interface called name.
func dial(name string, netNS int) (wire, error) {
	h, err := handle(netNS)
	if err != nil {
		return nil, fmt.Errorf("look at the interfaces: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if errors.As(err, new(nl.LinkNotFoundError)) {
		return nil, fmt.Errorf("there is no such interface; there are %s", names(h))
	}
	if err != nil {
		return nil, fmt.Errorf("look at the interface: %w", err)
	}
	a := link.Attrs()
	if a.EncapType != "ether" || len(a.HardwareAddr) != len(MAC{}) || a.RawFlags&unix.IFF_NOARP != 0 {
		return nil, fmt.Errorf("%w: it is of type %q", errNoARP, a.EncapType)
	}
	if a.RawFlags&unix.IFF_UP == 0 {
		return nil, fmt.Errorf("it is down (\"ip link set dev %s up\")", name)
	}
	var fd int
	if err := within(netNS, func() (err error) {
		// The protocol 0 receives nothing until bind says which interface.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	}); err != nil {
		return nil, explain(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16([]byte{etherARP >> 8, etherARP & 0xff}), Ifindex: a.Index}); err != nil {
		return nil, errors.Join(explain(err), unix.Close(fd))
	}
	return &socket{os.NewFile(uintptr(fd), "arp on "+name), a.Index, netNS}, nil
}

// explain says what an error means and what would help.
func explain(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: it takes CAP_NET_RAW (run as root, or \"setcap cap_net_raw,cap_net_admin+ep\" the program): %w", block.ErrPermission, err)
	}
	return fmt.Errorf("open a socket for ARP: %w", err)
}

func names(h *nl.Handle) string {
	links, err := h.LinkList()
	if err != nil {
		return "others"
	}
	var list []string
	for _, l := range links {
		list = append(list, l.Attrs().Name)
	}
	return strings.Join(list, ", ")
}

func handle(netNS int) (*nl.Handle, error) {
	if netNS == 0 {
		return nl.NewHandle(unix.NETLINK_ROUTE)
	}
	return nl.NewHandleAt(netns.NsHandle(netNS), unix.NETLINK_ROUTE)
}

// within runs f on a thread in the network namespace. Sockets that f makes
// stay there.
func within(netNS int, f func() error) error {
	if netNS == 0 {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Setns(netNS, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

func (s *socket) send(b []byte) error {
	_, err := s.file.Write(b)
	return err
}

// receive implements wire. The kernel tells once that the interface went down;
// when it is deleted nothing more comes, so that is the end.
func (s *socket) receive(b []byte) (int, error) {
	n, err := s.file.Read(b)
	if errors.Is(err, unix.ENETDOWN) {
		return 0, fmt.Errorf("%w: %w", errGone, err)
	}
	return n, err
}

func (s *socket) close() error { return s.file.Close() }

func (s *socket) look() (v view, err error) {
	h, err := handle(s.netNS)
	if err != nil {
		return v, fmt.Errorf("look at the interface: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByIndex(s.index)
	if err != nil {
		return v, fmt.Errorf("look at the interface: %w", err)
	}
	if len(link.Attrs().HardwareAddr) != len(v.mac) {
		return v, fmt.Errorf("%w: its hardware address is %q", errNoARP, link.Attrs().HardwareAddr)
	}
	v.mac = MAC(link.Attrs().HardwareAddr)
	addrs, err := h.AddrList(link, nl.FAMILY_ALL)
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return v, fmt.Errorf("list the addresses of the interface: %w", err)
	}
	for _, a := range addrs {
		if a.IPNet == nil {
			continue
		}
		ip, ok := netip.AddrFromSlice(a.IP)
		ones, bits := a.Mask.Size()
		if ip = ip.Unmap(); ok && bits == ip.BitLen() {
			v.addrs = append(v.addrs, netip.PrefixFrom(ip, ones))
		}
	}
	cached, err := h.NeighList(s.index, nl.FAMILY_V4)
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return v, fmt.Errorf("list the neighbours: %w", err)
	}
	v.cached = make(map[netip.Addr]MAC)
	for _, n := range cached {
		const sure = nl.NUD_REACHABLE | nl.NUD_STALE | nl.NUD_DELAY | nl.NUD_PROBE | nl.NUD_PERMANENT
		if a, ok := addr(n.IP); ok && n.State&sure != 0 && len(n.HardwareAddr) == len(MAC{}) && MAC(n.HardwareAddr).host() {
			v.cached[a] = MAC(n.HardwareAddr)
		}
	}
	return v, nil
}

func addr(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip)
	return a.Unmap(), ok
}
