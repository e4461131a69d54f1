package live_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	nl "github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/slips-go/slips/internal/netspace"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/packet"
	"github.com/slips-go/slips/parsers/packet/live"
)

func TestMain(m *testing.M) {
	if os.Getenv("SLIPS_TEST_OPEN") != "" {
		openBare()
		return
	}
	goleak.VerifyTestMain(m)
}

// patience is how long the tests wait for what takes milliseconds.
const patience = 20 * time.Second

// space is a network namespace of a test's own, with captures in it.
type space struct {
	*netspace.Space
	t testing.TB
}

func newSpace(t testing.TB) *space {
	t.Helper()
	return &space{netspace.New(t, "live capture"), t}
}

// pair returns two namespaces with a veth pair between and addresses.
func pair(t testing.TB) (a, b *space) {
	t.Helper()
	a, b = newSpace(t), newSpace(t)
	a.Link(b.Space, "v0", []string{"10.77.0.1/24"}, []string{"10.77.0.2/24"})
	return a, b
}

// running is a capture in its goroutine.
type running struct {
	t      testing.TB
	c      *live.Capture
	stop   func() error // ends Run and returns its error
	ended  func() error // waits for that
	fails  bool         // Run is meant to
	mu     sync.Mutex
	all    []packet.Packet
	gaps   []live.Gap
	idles  []int64
	change chan struct{}
}

// capture opens and runs a capture in the namespace, without privileges from
// its opening on.
func (s *space) capture(o live.Options) *running {
	s.t.Helper()
	r := &running{t: s.t, change: make(chan struct{}, 1)}
	o.OnGap = func(g live.Gap) {
		r.mu.Lock()
		r.gaps = append(r.gaps, g)
		r.mu.Unlock()
		r.wake()
	}
	if err := s.Do(func() (err error) { r.c, err = live.Open(o); return err }); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // whose privileges are lost with it
		if err := noPrivileges(); err != nil {
			done <- err
			return
		}
		done <- r.c.Run(ctx, func(p packet.Packet) {
			p.Data = slices.Clone(p.Data)
			r.mu.Lock()
			r.all = append(r.all, p)
			r.mu.Unlock()
			r.wake()
		}, func(now int64) {
			r.mu.Lock()
			r.idles = append(r.idles, now)
			r.mu.Unlock()
			r.wake()
		})
	}()
	r.ended = sync.OnceValue(func() error {
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			return errors.New("Run does not end")
		}
	})
	r.stop = func() error { cancel(); return r.ended() }
	s.t.Cleanup(func() {
		if err := r.stop(); err != nil && !r.fails {
			s.t.Error(err)
		}
	})
	return r
}

// noPrivileges takes all capabilities from the thread.
func noPrivileges() error {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&h, &none[0])
}

func (r *running) wake() {
	select {
	case r.change <- struct{}{}:
	default:
	}
}

// until waits until ok, which is called under the lock.
func (r *running) until(what string, ok func() bool) {
	r.t.Helper()
	limit := time.After(patience)
	for {
		r.mu.Lock()
		is := ok()
		r.mu.Unlock()
		if is {
			return
		}
		select {
		case <-r.change:
		case <-limit:
			r.mu.Lock()
			defer r.mu.Unlock()
			r.t.Fatalf("%s: not within %v: %d packets, gaps %+v, %+v", what, patience, len(r.all), r.gaps, r.c.Stats())
		}
	}
}

// count returns how many packets contain the text. It is called under the lock.
func (r *running) count(text string) (n int) {
	for _, p := range r.all {
		if bytes.Contains(p.Data, []byte(text)) {
			n++
		}
	}
	return n
}

// first returns the first packet that contains the text, and waits for it.
func (r *running) first(text string) (p packet.Packet) {
	r.t.Helper()
	r.until(text, func() bool {
		i := slices.IndexFunc(r.all, func(p packet.Packet) bool { return bytes.Contains(p.Data, []byte(text)) })
		if i >= 0 {
			p = r.all[i]
		}
		return i >= 0
	})
	return p
}

// send sends a UDP datagram from the namespace.
func (s *space) send(to, text string) {
	s.t.Helper()
	c, err := s.Dial("udp", to, patience)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

// raw sends frames as they are on an interface.
func (s *space) raw(name string, frames ...[]byte) {
	s.t.Helper()
	if err := s.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		i, err := net.InterfaceByName(name)
		for limit := time.Now().Add(patience); err == nil && i.Flags&net.FlagRunning == 0 && time.Now().Before(limit); {
			<-time.After(time.Millisecond) // until the kernel has noticed the carrier, what is sent is lost
			i, err = net.InterfaceByName(name)
		}
		if err != nil {
			return err
		}
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: i.Index, Halen: 6}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
}

// udpFrame returns an Ethernet frame with a UDP datagram between two stations
// that are none of ours, behind VLAN tags of the given types and numbers.
func udpFrame(text string, tags ...uint16) []byte {
	f := []byte{2, 9, 9, 9, 9, 1, 2, 9, 9, 9, 9, 2}
	for _, t := range tags {
		f = binary.BigEndian.AppendUint16(f, t)
	}
	f = binary.BigEndian.AppendUint16(f, 0x800)
	ip := make([]byte, 28)
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(28+len(text)))
	copy(ip[12:], []byte{10, 88, 0, 1, 10, 88, 0, 2})
	binary.BigEndian.PutUint16(ip[20:], 5000)
	binary.BigEndian.PutUint16(ip[22:], 7000)
	binary.BigEndian.PutUint16(ip[24:], uint16(8+len(text)))
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	return append(append(f, ip...), text...)
}

// TestBothWays checks that what is received and what is sent is seen once each,
// with the kernel's time and the link header.
func TestBothWays(t *testing.T) {
	a, b := pair(t)
	begin := time.Now()
	// The refusals, which are ICMP, quote the datagrams.
	r := a.capture(live.Options{Interface: "v0", Filter: "udp"})
	b.send("10.77.0.1:7000", "from the peer")
	a.send("10.77.0.2:7000", "from the host")
	for _, text := range []string{"from the peer", "from the host"} {
		p := r.first(text)
		if p.Link != packet.LinkEthernet || binary.BigEndian.Uint16(p.Data[12:]) != 0x800 || p.Length != len(p.Data) {
			t.Errorf("%s: link %d, length %d, % x", text, p.Link, p.Length, p.Data)
		}
		if at := time.Unix(0, p.Time); at.Before(begin) || at.After(time.Now()) {
			t.Errorf("%s: time %v", text, at)
		}
	}
	b.send("10.77.0.1:7000", "the last")
	r.first("the last")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if n, m := r.count("from the peer"), r.count("from the host"); n != 1 || m != 1 {
		t.Errorf("seen %d and %d times", n, m)
	}
	if s := r.c.Stats(); s.Packets != int64(len(r.all)) || s.Dropped != 0 || s.Bytes == 0 {
		t.Errorf("%+v of %d packets", s, len(r.all))
	}
	if err := r.c.Run(context.Background(), nil, nil); err == nil {
		t.Error("a closed capture ran")
	}
}

// TestLatency checks that a lone packet is handed on and that idle is called
// when none comes and also while a trickle comes. The times themselves are the
// benchmark's matter.
func TestLatency(t *testing.T) {
	a, b := pair(t)
	r := a.capture(live.Options{Interface: "v0", Filter: "udp port 7000"})
	r.until("idle", func() bool { return len(r.idles) > 0 })
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				b.send("10.77.0.1:7000", "trickle")
			}
		}
	}()
	r.first("trickle")
	r.mu.Lock()
	n := len(r.idles)
	r.mu.Unlock()
	r.until("idle amid a trickle", func() bool { return len(r.idles) > n+3 })
	close(stop)
	<-done
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(r.idles) {
		t.Errorf("the time of idle goes back: %v", r.idles)
	}
}

// TestFilter checks that the kernel filters, and what it makes of VLAN tags
// that it took off.
func TestFilter(t *testing.T) {
	// The kernel takes the tag off what is received. What a socket sends with a
	// tag has it in the frame, as in a file.
	for _, c := range []struct {
		filter string
		want   []string
	}{
		{"udp port 7000", []string{"plain", "tagged 5", "tagged 6"}},
		{"vlan", []string{"tagged 5", "tagged 6", "in 5 twice", "outgoing 5"}},
		{"vlan 5", []string{"tagged 5", "in 5 twice", "outgoing 5"}},
		{"vlan and udp port 7000", []string{"tagged 5", "tagged 6", "outgoing 5"}},
		{"vlan 5 and vlan 8 and udp port 7000", []string{"in 5 twice"}},
		{"udp port 7000 and not vlan", []string{"plain"}},
		{"udp port 7000 or vlan 6", []string{"plain", "tagged 5", "tagged 6"}},
		{"inbound and udp port 7000", []string{"plain", "tagged 5", "tagged 6"}},
		{"outbound and vlan and ip", []string{"outgoing 5"}},
		{"net 10.88.0.0/24 and len > 1400", nil},
	} {
		t.Run(c.filter, func(t *testing.T) {
			a, b := newSpace(t), newSpace(t)
			a.Link(b.Space, "v0", nil, nil)
			r := a.capture(live.Options{Interface: "v0", Filter: "(ether[0] = 0xee) or (" + c.filter + ")", Promiscuous: true})
			b.raw("v0", udpFrame("plain"))
			b.raw("v0", udpFrame("tagged 5", 0x8100, 5))
			b.raw("v0", udpFrame("tagged 6", 0x8100, 0x6006))
			b.raw("v0", udpFrame("in 5 twice", 0x88a8, 5, 0x8100, 8))
			a.raw("v0", udpFrame("outgoing 5", 0x8100, 5))
			end := udpFrame("the end")
			end[0] = 0xee
			b.raw("v0", end)
			r.first("the end")
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, text := range []string{"plain", "tagged 5", "tagged 6", "in 5 twice", "outgoing 5"} {
				want := 0
				if slices.Contains(c.want, text) {
					want = 1
				}
				if n := r.count(text); n != want {
					t.Errorf("%q is seen %d times, want %d", text, n, want)
				}
			}
		})
	}
}

// TestTags checks that the frames are as they were on the wire.
func TestTags(t *testing.T) {
	a, b := newSpace(t), newSpace(t)
	a.Link(b.Space, "v0", nil, nil)
	r := a.capture(live.Options{Interface: "v0", Promiscuous: true})
	for _, tags := range [][]uint16{nil, {0x8100, 5}, {0x8100, 0x6fff}, {0x8100, 0}, {0x88a8, 5, 0x8100, 8}, {0x8100, 1, 0x8100, 2, 0x8100, 3}} {
		want := udpFrame(fmt.Sprintf("tags %v", tags), tags...)
		b.raw("v0", want)
		p := r.first(fmt.Sprintf("tags %v", tags))
		if !bytes.Equal(p.Data, want) || p.Length != len(want) {
			t.Errorf("%v: length %d\n% x, want\n% x", tags, p.Length, p.Data, want)
		}
		want = udpFrame(fmt.Sprintf("out with %v", tags), tags...)
		a.raw("v0", want)
		if p := r.first(fmt.Sprintf("out with %v", tags)); !bytes.Equal(p.Data, want) {
			t.Errorf("%v: sent\n% x, want\n% x", tags, p.Data, want)
		}
	}
}

// TestVLANInterface checks tagged traffic of real sockets.
func TestVLANInterface(t *testing.T) {
	a, b := newSpace(t), newSpace(t)
	a.Link(b.Space, "v0", nil, nil)
	for i, s := range []*space{a, b} {
		s.On("v0", func(h *nl.Handle, l nl.Link) error {
			at := nl.LinkAttrs{Name: "v0.7", ParentIndex: l.Attrs().Index}
			if err := h.LinkAdd(&nl.Vlan{LinkAttrs: at, VlanId: 7, VlanProtocol: nl.VLAN_PROTOCOL_8021Q}); err != nil {
				t.Skipf("SKIPPED: this kernel has no VLAN interfaces: %v", err)
			}
			return nil
		})
		s.Address("v0.7", fmt.Sprintf("10.78.0.%d/24", i+1))
		s.Up("v0.7", true)
	}
	r := a.capture(live.Options{Interface: "v0", Filter: "vlan 7 and udp"})
	inside := a.capture(live.Options{Interface: "v0.7", Filter: "udp"})
	b.send("10.78.0.1:7000", "inside")
	p := r.first("inside")
	if v := binary.BigEndian.Uint32(p.Data[12:]); v != 0x81000007 {
		t.Errorf("tag %#x", v)
	}
	if p := inside.first("inside"); binary.BigEndian.Uint16(p.Data[12:]) != 0x800 {
		t.Errorf("on the VLAN's own interface: % x", p.Data)
	}
}

// TestMirrorPort checks an interface without an address: traffic of others is
// seen when the capture is promiscuous, and that it becomes and ceases to be so.
func TestMirrorPort(t *testing.T) {
	a, b := newSpace(t), newSpace(t)
	a.Link(b.Space, "v0", nil, nil)
	promiscuous := func() (n int) {
		a.On("v0", func(_ *nl.Handle, l nl.Link) error { n = l.Attrs().Promisc; return nil })
		return n
	}
	r := a.capture(live.Options{Interface: "v0", Promiscuous: true})
	if promiscuous() != 1 {
		t.Error("it is not promiscuous")
	}
	b.raw("v0", udpFrame("for another"))
	r.first("for another")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if promiscuous() != 0 {
		t.Error("it remains promiscuous")
	}
}

// TestLoopback checks that a packet to oneself is seen once.
func TestLoopback(t *testing.T) {
	a := newSpace(t)
	for _, name := range []string{"lo", live.Any} {
		r := a.capture(live.Options{Interface: name})
		a.send("127.0.0.1:7000", "to myself")
		a.send("[::1]:7000", "also to myself")
		r.first("to myself")
		p := r.first("also to myself")
		want := packet.LinkEthernet
		if name == live.Any {
			want = packet.LinkSLL
		}
		if p.Link != want {
			t.Errorf("%s: link %d", name, p.Link)
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if c := r.count("to myself"); c != 4 {
			t.Errorf("%s: the texts are seen %d times, want 4: two datagrams and two refusals", name, c)
		}
	}
}

// TestAny checks the capture on all interfaces, with filters that the kernel
// can run on it and one that it cannot.
func TestAny(t *testing.T) {
	a, b := pair(t)
	for _, c := range []struct {
		filter string
		want   int
	}{{"udp port 7000", 2}, {"udp dst port 7000 and inbound", 1}, {"len > 50 and udp port 7000", 2}, {"ether[2:2] = 1 and udp", 2}, {"ether[2:2] = 772", 0}} {
		r := a.capture(live.Options{Interface: live.Any, Filter: "(udp port 9) or (" + c.filter + ")", Promiscuous: true})
		b.send("10.77.0.1:7000", "from the peer")
		a.send("10.77.0.2:7000", "from the host")
		b.send("10.77.0.1:9", "the end")
		p := r.first("the end")
		if p.Link != packet.LinkSLL || binary.BigEndian.Uint16(p.Data[14:]) != 0x800 || p.Length != len(p.Data) || p.Data[16] != 0x45 {
			t.Errorf("link %d, length %d, % x", p.Link, p.Length, p.Data)
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, p := range r.all {
			if p.Data[16+9] == 17 && bytes.Contains(p.Data, []byte("from the")) {
				n++
			}
		}
		if n != c.want {
			t.Errorf("%q: %d packets, want %d", c.filter, n, c.want)
		}
	}
	r := a.capture(live.Options{Interface: live.Any})
	b.raw("v0", udpFrame("tagged", 0x8100, 5))
	p := r.first("tagged")
	if v := binary.BigEndian.Uint64(p.Data[14:]); v>>16 != 0x810000050800 {
		t.Errorf("% x", p.Data[:30])
	}
}

// TestOffload checks that segments that the kernel has put together are seen
// whole.
func TestOffload(t *testing.T) {
	a, b := pair(t)
	r := a.capture(live.Options{Interface: "v0", Filter: "tcp port 7001"})
	const size = 4 << 20
	done := make(chan error, 1)
	l := a.Listen("10.77.0.1:7001")
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer c.Close()
		n, buf := 0, make([]byte, 1<<16)
		for n < size {
			m, err := c.Read(buf)
			if err != nil {
				done <- err
				return
			}
			n += m
		}
		done <- nil
	}()
	c, err := b.Dial("tcp", "10.77.0.1:7001", patience)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Write(make([]byte, size))
	if err := errors.Join(err, c.Close()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	payload, largest := 0, 0
	r.until("all bytes", func() bool {
		payload = 0
		for _, p := range r.all {
			if len(p.Data) != p.Length {
				t.Errorf("%d bytes of %d were captured", len(p.Data), p.Length)
			}
			if binary.BigEndian.Uint16(p.Data[36:]) == 7001 {
				payload += len(p.Data) - 34 - int(p.Data[46]>>4)*4
			}
			largest = max(largest, len(p.Data))
		}
		return payload >= size
	})
	t.Logf("the largest packet has %d bytes", largest)
	if largest < 20000 {
		t.Errorf("the largest packet has %d bytes: nothing was offloaded", largest)
	}
}

// TestDownAndUp checks that a capture survives an interface that goes down, and
// one that is deleted and made anew, without a privilege.
func TestDownAndUp(t *testing.T) {
	a, b := pair(t)
	r := a.capture(live.Options{Interface: "v0", Promiscuous: true, Filter: "udp port 7000"})
	b.send("10.77.0.1:7000", "before")
	r.first("before")
	a.Up("v0", false)
	r.until("a gap", func() bool { return len(r.gaps) == 1 })
	a.Up("v0", true)
	r.until("its end", func() bool { return len(r.gaps) == 2 })
	b.send("10.77.0.1:7000", "after")
	r.first("after")
	a.On("v0", func(h *nl.Handle, l nl.Link) error { return h.LinkDel(l) })
	r.until("another gap", func() bool { return len(r.gaps) == 3 })
	a.Link(b.Space, "v0", nil, nil)
	r.until("its end", func() bool { return len(r.gaps) == 4 })
	b.raw("v0", udpFrame("made anew"))
	r.first("made anew")
	a.On("v0", func(_ *nl.Handle, l nl.Link) error {
		if l.Attrs().Promisc != 1 {
			t.Errorf("promiscuous %d times", l.Attrs().Promisc)
		}
		return nil
	})
	r.mu.Lock()
	gaps := slices.Clone(r.gaps)
	r.mu.Unlock()
	for i, g := range gaps {
		if g.Interface != "v0" || g.Reason == "" || g.Start == 0 || (i%2 == 1) != (g.End >= g.Start) {
			t.Errorf("gap %d: %+v", i, g)
		}
	}
	if gaps[1].Reason != "the interface went down" || gaps[3].Reason != "the interface was removed" {
		t.Errorf("%+v", gaps)
	}
	if s := r.c.Stats(); s.Gaps != 2 {
		t.Errorf("%+v", s)
	}
	// It may also come back as something that the socket cannot take.
	a.On("v0", func(h *nl.Handle, l nl.Link) error { return h.LinkDel(l) })
	r.until("a third gap", func() bool { return len(r.gaps) == 5 })
	tun := a.tun("v0", unix.ARPHRD_NONE)
	defer tun.Close()
	r.fails = true
	a.Up("v0", true)
	if err := r.ended(); !errors.Is(err, live.ErrLink) || !strings.Contains(err.Error(), "came back as another kind") {
		t.Errorf("error %v", err)
	}
}

// tun makes an interface that carries IP packets, which are written to and read
// from the file, and claims the hardware type.
func (s *space) tun(name string, hw int) *os.File {
	s.t.Helper()
	var fd int
	if err := s.Do(func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return err
		}
		r, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, r); err != nil {
			return err
		}
		return unix.IoctlSetInt(fd, unix.TUNSETLINK, hw)
	}); err != nil {
		s.t.Skipf("SKIPPED: no tun interface can be made: %v", err)
	}
	return os.NewFile(uintptr(fd), name)
}

// TestTunnel checks interfaces that carry IP alone, of which PPP is one.
func TestTunnel(t *testing.T) {
	for _, hw := range []int{unix.ARPHRD_NONE, unix.ARPHRD_PPP, unix.ARPHRD_SIT} {
		a := newSpace(t)
		f := a.tun("t0", hw)
		a.Address("t0", "10.79.0.1/24")
		a.Up("t0", true)
		r := a.capture(live.Options{Interface: "t0", Filter: "udp port 7000"})
		all := a.capture(live.Options{Interface: live.Any, Filter: "udp port 7000"})
		a.send("10.79.0.2:7000", "sent by us")
		in := udpFrame("given to us")[14:]
		for _, d := range [][]byte{in, {0x10, 0, 0, 0}, make([]byte, 40)} {
			if _, err := f.Write(d); err != nil && d[0] == 0x45 {
				t.Fatal(err)
			}
		}
		for _, text := range []string{"sent by us", "given to us"} {
			if p := r.first(text); p.Link != packet.LinkRaw || p.Data[0] != 0x45 || p.Data[9] != 17 || p.Length != len(p.Data) {
				t.Errorf("%d: %s: link %d, % x", hw, text, p.Link, p.Data)
			}
			if p := all.first(text); p.Link != packet.LinkSLL || p.Data[16] != 0x45 || int(binary.BigEndian.Uint16(p.Data[2:])) != hw {
				t.Errorf("%d: %s: link %d, % x", hw, text, p.Link, p.Data)
			}
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		for _, p := range r.all {
			if p.Data[0] != 0x45 {
				t.Errorf("%d: not IP: % x", hw, p.Data)
			}
		}
		f.Close()
	}
}

// TestDrops checks that what a reader that sleeps cannot take is dropped by the
// kernel, and that each packet is either fed or counted.
func TestDrops(t *testing.T) {
	a, b := newSpace(t), newSpace(t)
	a.Link(b.Space, "v0", nil, nil)
	var c *live.Capture
	var told, total int64
	if err := a.Do(func() (err error) {
		c, err = live.Open(live.Options{Interface: "v0", Ring: 1, Filter: "udp", OnDrop: func(n, all int64) { told += n; total = all }})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	const sent = 5000
	b.flood(t, "v0", sent, 1000)
	if s := c.Stats(); s.Dropped == 0 || s.Dropped >= sent || s.Freezes == 0 {
		t.Errorf("%+v of %d packets", s, sent)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	var quiet int64
	if err := c.Run(ctx, func(packet.Packet) { n++ }, func(int64) {
		if quiet++; quiet > 2 {
			cancel()
		}
	}); err != nil {
		t.Fatal(err)
	}
	s := c.Stats()
	if s.Packets+s.Dropped != sent || s.Packets != int64(n) {
		t.Errorf("%+v and %d fed, of %d packets", s, n, sent)
	}
	if told != s.Dropped || total != s.Dropped {
		t.Errorf("%d of %d drops were told", told, s.Dropped)
	}
	t.Logf("%+v", s)
}

// TestStop checks that what was captured before the end is fed after it, also
// what the kernel has not handed over by then, and that what takes too long is
// counted.
func TestStop(t *testing.T) {
	const sent = 600
	frame := udpFrame(strings.Repeat("x", 1000))
	for _, slow := range []bool{false, true} {
		t.Run(fmt.Sprint("slow=", slow), func(t *testing.T) {
			a, b := newSpace(t), newSpace(t)
			a.Link(b.Space, "v0", nil, nil)
			var c *live.Capture
			var told int64
			if err := a.Do(func() (err error) {
				c, err = live.Open(live.Options{Interface: "v0", Filter: "udp", OnDrop: func(n, _ int64) { told += n }})
				return err
			}); err != nil {
				t.Fatal(err)
			}
			a.raw("v0", slices.Repeat([][]byte{frame}, sent)...) // all are in the ring when that returns
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			n := 0
			if err := c.Run(ctx, func(packet.Packet) {
				if n++; slow && n == 1 {
					<-time.After(time.Second)
				}
			}, func(int64) {}); err != nil {
				t.Fatal(err)
			}
			s := c.Stats()
			if s.Packets+s.Dropped != sent || s.Packets != int64(n) || (s.Dropped > 0) != slow || told != s.Dropped {
				t.Errorf("%+v, %d fed, %d told of, of %d packets", s, n, told, sent)
			}
			t.Logf("%+v", s)
		})
	}
}

// flood sends n frames of the size as fast as it can.
func (s *space) flood(tb testing.TB, name string, n, size int) {
	tb.Helper()
	if err := s.Do(func() error { return blast(name, n, size, nil) }); err != nil {
		tb.Fatal(err)
	}
}

// TestErrors checks what Open says when it cannot.
func TestErrors(t *testing.T) {
	a, b := newSpace(t), newSpace(t)
	a.Link(b.Space, "v0", nil, nil)
	a.Up("v0", false)
	a.With(func(h *nl.Handle) error {
		return h.LinkAdd(&nl.Veth{LinkAttrs: nl.LinkAttrs{Name: "d0"}, PeerName: "d1"})
	})
	a.Up("d0", true)
	for _, c := range []struct {
		o    live.Options
		is   error
		want string
	}{
		{live.Options{Interface: "eth99"}, live.ErrNoInterface, `capture on "eth99": no such interface; there are ["`},
		{live.Options{Interface: ""}, live.ErrNoInterface, "no such interface"},
		{live.Options{Interface: "a-name-that-is-far-too-long"}, live.ErrNoInterface, "no such interface"},
		{live.Options{Interface: "v0"}, live.ErrDown, `the interface is down: bring it up with "ip link set dev v0 up"`},
		{live.Options{Interface: "d0", Filter: "port x and"}, nil, `packet filter, character 6, at "x and"`},
		{live.Options{Interface: live.Any, Filter: "vlan"}, nil, "VLAN tags are of Ethernet, not of Linux cooked"},
	} {
		err := a.Do(func() error {
			c, err := live.Open(c.o)
			if c != nil {
				c.Close()
			}
			return err
		})
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want one with %q", c.o, err, c.want)
		}
	}
	defer a.tun("nl0", unix.ARPHRD_NETLINK).Close()
	a.Up("nl0", true)
	err := a.Do(func() error { _, err := live.Open(live.Options{Interface: "nl0"}); return err })
	if !errors.Is(err, live.ErrLink) || !strings.Contains(err.Error(), "hardware type 824 (netlink)") {
		t.Errorf("error %v", err)
	}
}

// TestPermission opens a capture in a process that may not.
func TestPermission(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "SLIPS_TEST_OPEN=lo")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"permission: true", "CAP_NET_RAW", "sudo", "setcap cap_net_raw+ep", "AmbientCapabilities"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q lacks %q", out, want)
		}
	}
}

// openBare is the process of TestPermission.
func openBare() {
	runtime.LockOSThread()
	if err := noPrivileges(); err != nil {
		fmt.Println("capset:", err)
		return
	}
	_, err := live.Open(live.Options{Interface: os.Getenv("SLIPS_TEST_OPEN")})
	fmt.Printf("permission: %v, %v\n", errors.Is(err, live.ErrPermission), err)
}

// TestOneProcessor checks that a capture and what it feeds get along on one
// processor.
func TestOneProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	a, b := pair(t)
	r := a.capture(live.Options{Interface: "v0"})
	for i := range 20 {
		b.send("10.77.0.1:7000", fmt.Sprintf("number %d.", i))
		r.first(fmt.Sprintf("number %d.", i))
	}
}

// TestMeter checks a capture and the meter together: a flow of real sockets
// comes out as a record.
func TestMeter(t *testing.T) {
	a, b := pair(t)
	var c *live.Capture
	if err := a.Do(func() (err error) { c, err = live.Open(live.Options{Interface: "v0"}); return err }); err != nil {
		t.Fatal(err)
	}
	wake := make(chan struct{}, 1)
	s := packet.NewSource("live", "v0", packet.Options{UDPInactivity: 200 * time.Millisecond}, func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- c.Meter(ctx, t.Context(), s) }()
	b.send("10.77.0.1:7000", "a datagram")
	found := false
	limit := time.After(patience)
	in := s.Input()
	for open := true; open; {
		select {
		case batch, ok := <-in.C:
			if open = ok; !ok {
				break
			}
			for _, f := range batch.Flows {
				if f.Kind == flow.Conn && f.DstPort == 7000 && !found {
					found = true
					cancel()
				}
			}
			batch.Release()
		case <-limit:
			t.Fatal("no record came")
		}
	}
	if err := <-done; err != nil || !found {
		t.Errorf("error %v, found %v", err, found)
	}
}
