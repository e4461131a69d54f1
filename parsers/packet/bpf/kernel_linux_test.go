package bpf_test

import (
	"errors"
	"testing"

	xbpf "golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/slips-go/slips/parsers/packet"
	"github.com/slips-go/slips/parsers/packet/bpf"
)

// attach gives a program to a socket.
func attach(fd int, p []xbpf.RawInstruction) error {
	f := make([]unix.SockFilter, len(p))
	for i, r := range p {
		f[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]})
}

// TestAgainstKernel gives each program to the kernel, which must take it, and
// sends packets through a local socket that filters with it: what arrives must
// be what Match accepts. No privilege is needed for this.
func TestAgainstKernel(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	buf := make([]byte, 4096)
	sent, arrived := 0, 0
	for _, s := range builtFrames() {
		for i, expr := range expressions {
			if live, err := bpf.CompileLive(expr, s.link, 0); err == nil {
				if err := attach(pair[1], live); err != nil {
					t.Errorf("%s: %q: live: %v", dlts[s.link], expr, err)
				}
			}
			code, err := bpf.Compile(expr, s.link, 0)
			if err != nil {
				continue
			}
			if err := attach(pair[1], code); err != nil {
				t.Errorf("%s: %q: %v", dlts[s.link], expr, err)
				continue
			}
			p, err := bpf.NewProgram(code)
			if err != nil {
				t.Fatal(err)
			}
			for k := i % 23; k < len(s.all); k += 23 {
				d := s.all[k].Data
				if err := unix.Send(pair[0], d, 0); err != nil {
					t.Fatal(err)
				}
				sent++
				_, err := unix.Read(pair[1], buf)
				if err != nil && !errors.Is(err, unix.EAGAIN) {
					t.Fatal(err)
				}
				if err == nil {
					arrived++
				}
				if got := p.Match(d, len(d)); got != (err == nil) {
					t.Fatalf("%s: %q: %v, the kernel says %v\n% x\n%s", dlts[s.link], expr, got, err == nil, d, disassemble(code))
				}
			}
		}
	}
	t.Logf("%d packets sent, %d arrived", sent, arrived)
	if arrived == 0 || arrived == sent {
		t.Error("the packets tell nothing")
	}
}

// TestKernelTakesLarge checks that the kernel takes a program with far jumps.
func TestKernelTakesLarge(t *testing.T) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	code, err := bpf.Compile(largeFilter(), packet.LinkEthernet, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := attach(fd, code); err != nil {
		t.Errorf("%d instructions: %v", len(code), err)
	}
}
