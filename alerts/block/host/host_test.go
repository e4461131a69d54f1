package host

import (
	"io/fs"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/slips-go/slips/alerts/block"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func addrs(list ...string) []netip.Addr {
	var a []netip.Addr
	for _, s := range list {
		a = append(a, netip.MustParseAddr(s))
	}
	return a
}

var compare = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestFiles(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	var n block.Network
	new(memory).add(fstest.MapFS{
		"etc/resolv.conf":                 file("# made by hand\nnameserver 127.0.0.53\n\tnameserver  fe80::1%eth0 \nnameserver\nsearch nameserver 9.9.9.9\n;nameserver 8.8.8.8\nnameserver ten\n"),
		"run/systemd/resolve/resolv.conf": file("nameserver 192.0.2.53\nnameserver 192.0.2.53"),
		"run/systemd/netif/leases/2":      file("# This is private data.\nADDRESS=10.0.0.7\nSERVER_ADDRESS=10.0.0.1\nDNS=10.0.0.2 10.0.0.3\nROUTER=10.0.0.1\n"),
		"var/lib/dhcp/dhclient.eth0.leases": file(`lease {
  interface "eth0";
  fixed-address 10.1.0.7;
  option routers 10.1.0.1;
  option dhcp-server-identifier 10.1.0.1;
  option domain-name-servers 10.1.0.2,10.1.0.3;
  renew 3 2026/11/25 10:00:00;
}
lease {
  option dhcp-server-identifier 10.1.0.9;
}
`),
		"var/lib/NetworkManager/internal-uuid-eth0.lease": file("SERVER_ADDRESS=10.2.0.1\n"),
		"var/lib/NetworkManager/secret_key":               file("SERVER_ADDRESS=10.3.0.1\n"),
	}, &n)
	want := block.Network{
		DNS:  addrs("10.0.0.2", "10.0.0.3", "10.1.0.2", "10.1.0.3", "127.0.0.53", "192.0.2.53", "fe80::1"),
		DHCP: addrs("10.0.0.1", "10.1.0.1", "10.1.0.9", "10.2.0.1"),
	}
	if diff := cmp.Diff(want, normal(n), compare); diff != "" {
		t.Error(diff)
	}
}

func FuzzFiles(f *testing.F) {
	f.Add("nameserver 1.2.3.4\nSERVER_ADDRESS=1.2.3.4\n  option domain-name-servers 1.2.3.4, ::1;")
	f.Add("=\n;\noption \noption x")
	f.Fuzz(func(t *testing.T, s string) {
		dhcp, dns := lease([]byte(s))
		for _, a := range append(append(dhcp, dns...), nameservers([]byte(s))...) {
			if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
				t.Errorf("%v from %q", a, s)
			}
		}
		if strings.Count(s, "\n") == 0 && len(nameservers([]byte(s))) > 1 {
			t.Errorf("more than one server in the line %q", s)
		}
	})
}

// guarded is a file system of which some may not be read any more.
type guarded struct {
	fstest.MapFS
	not string // what begins with it
}

func (g guarded) Open(name string) (fs.File, error) {
	if g.not != "" && strings.HasPrefix(name, g.not) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return g.MapFS.Open(name)
}

func (g guarded) ReadDir(name string) ([]fs.DirEntry, error) {
	if _, err := g.Open(name); err != nil {
		return nil, err
	}
	return g.MapFS.ReadDir(name)
}

// TestPrivileges drops them: servers that were known stay protected, also when
// other files change, and are forgotten when it is seen that their file is gone.
func TestPrivileges(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	root := guarded{MapFS: fstest.MapFS{
		"etc/resolv.conf": file("nameserver 192.0.2.53"),
		"var/lib/NetworkManager/internal-1-eth0.lease": file("SERVER_ADDRESS=10.0.0.1\n"),
	}}
	var m memory
	look := func() block.Network {
		var n block.Network
		m.add(root, &n)
		return normal(n)
	}
	want := block.Network{DNS: addrs("192.0.2.53"), DHCP: addrs("10.0.0.1")}
	for _, not := range []string{"", "var/lib/NetworkManager", "var/lib/NetworkManager/internal"} {
		root.not = not
		if diff := cmp.Diff(want, look(), compare); diff != "" {
			t.Errorf("without %q: %s", not, diff)
		}
	}
	root.not = "var/lib/NetworkManager"
	root.MapFS["etc/resolv.conf"] = file("nameserver 192.0.2.54")
	want.DNS = addrs("192.0.2.54")
	if diff := cmp.Diff(want, look(), compare); diff != "" {
		t.Error("other servers", diff)
	}
	root.not = ""
	delete(root.MapFS, "var/lib/NetworkManager/internal-1-eth0.lease")
	want.DHCP = nil
	if diff := cmp.Diff(want, look(), compare); diff != "" {
		t.Error("gone", diff)
	}
}
