package host

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	nl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/slips-go/slips/alerts/block"
	"github.com/slips-go/slips/internal/netspace"
)

// space returns a Host in a network namespace and a file system of its own,
// and a handle to change the namespace.
func space(t *testing.T) (*Host, *nl.Handle) {
	t.Helper()
	ns := netspace.New(t, "following the network")
	h := ns.Handle()
	t.Cleanup(h.Close)
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	return &Host{root: root, netNS: ns.FD(), log: slog.New(slog.DiscardHandler)}, h
}

func (h *Host) resolv(t *testing.T, server string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.root, "etc/resolv.conf"), []byte("nameserver "+server+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestWatch follows addresses, routes and servers as they come and go.
func TestWatch(t *testing.T) {
	h, handle := space(t)
	h.resolv(t, "192.0.2.53")
	got := make(chan block.Network, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- h.Watch(ctx, func(n block.Network) { got <- n }) }()
	until := func(what string, ok func(block.Network) bool) block.Network {
		t.Helper()
		deadline := time.After(look + 10*time.Second)
		for {
			select {
			case n := <-got:
				if ok(n) {
					return n
				}
			case <-deadline:
				t.Fatalf("%s was not seen", what)
			}
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	loopback := addrs("127.0.0.1", "::1")
	if diff := cmp.Diff(block.Network{Own: loopback, DNS: addrs("192.0.2.53")}, until("the beginning", func(block.Network) bool { return true }), compare); diff != "" {
		t.Error(diff)
	}
	link := &nl.Veth{LinkAttrs: nl.LinkAttrs{Name: "d0"}, PeerName: "d1"}
	if err := handle.LinkAdd(link); err != nil {
		cancel()
		<-done
		t.Skipf("SKIPPED: a veth pair cannot be made: %v", err)
	}
	addr := func(s string) *nl.Addr {
		a, err := nl.ParseAddr(s)
		must(err)
		a.Flags = unix.IFA_F_NODAD
		return a
	}
	must(handle.AddrAdd(link, addr("10.9.8.7/24")))
	must(handle.LinkSetUp(link))
	peer, err := handle.LinkByName("d1")
	must(err)
	must(handle.LinkSetUp(peer))
	must(handle.AddrAdd(link, &nl.Addr{IPNet: addr("2001:db8::7/64").IPNet, Flags: unix.IFA_F_NODAD}))
	must(handle.RouteAdd(&nl.Route{LinkIndex: link.Index, Gw: net.ParseIP("10.9.8.1")}))
	must(handle.RouteAdd(&nl.Route{LinkIndex: link.Index, Gw: net.ParseIP("fe80::99"), Dst: addr("2001:db8:7::/48").IPNet, Table: 77}))
	h.resolv(t, "192.0.2.54")
	n := until("all of it", func(n block.Network) bool {
		return slices.Contains(n.Gateways, netip.MustParseAddr("fe80::99")) && slices.Contains(n.DNS, netip.MustParseAddr("192.0.2.54"))
	})
	n.Own = slices.DeleteFunc(n.Own, netip.Addr.IsLinkLocalUnicast) // whatever the kernel made of the MAC
	n.Local = slices.DeleteFunc(n.Local, func(p netip.Prefix) bool { return p.Addr().IsLinkLocalUnicast() })
	want := block.Network{
		Own: addrs("10.9.8.7", "127.0.0.1", "::1", "2001:db8::7"), Gateways: addrs("10.9.8.1", "fe80::99"), DNS: addrs("192.0.2.54"),
		Local: []netip.Prefix{netip.MustParsePrefix("10.9.8.0/24"), netip.MustParsePrefix("2001:db8::/64")},
	}
	if diff := cmp.Diff(want, n, compare); diff != "" {
		t.Error(diff)
	}
	start := time.Now()
	must(handle.LinkDel(link))
	until("the end of the interface", func(n block.Network) bool { return slices.Equal(n.Own, loopback) && len(n.Gateways) == 0 })
	if d := time.Since(start); d > look-time.Second {
		t.Errorf("a change of the interface was seen after %v, by chance", d)
	}
	cancel()
	must(<-done)
}

// TestSnapshot looks at this machine, without privilege.
func TestSnapshot(t *testing.T) {
	n, err := New(slog.New(slog.DiscardHandler)).Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(n.Own, netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("127.0.0.1 is not among own addresses %v", n.Own)
	}
	t.Logf("%+v", n)
}
