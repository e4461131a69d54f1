package zeekscripts

import (
	"bufio"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// u16s returns numbers as they stand in a message, two bytes each.
func u16s(n ...uint16) (b []byte) {
	for _, v := range n {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return b
}

// counted returns b behind its length in size bytes.
func counted(size int, b []byte) []byte {
	l := binary.BigEndian.AppendUint32(nil, uint32(len(b)))
	return append(l[4-size:], b...)
}

// extension is one of a hello.
func extension(code uint16, b []byte) []byte { return append(u16s(code), counted(2, b)...) }

// hello is a record of TLS with a hello: typ 1 is the client's, 2 the server's.
func hello(typ byte, random string, ciphers, exts []byte) string {
	b := append(u16s(0x0303), random...)
	b = append(b, 0) // session
	b = append(b, ciphers...)
	if typ == 1 {
		b = append(b, 1, 0)
	} else {
		b = append(b, 0)
	}
	b = append(b, counted(2, exts)...)
	b = append([]byte{typ}, counted(3, b)...)
	return string(append([]byte{22, 3, 1}, counted(2, b)...))
}

func md5Hex(s string) string {
	h := md5.Sum([]byte(s))
	return hex.EncodeToString(h[:])
}

func sha12(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])[:12]
}

func TestTLSFingerprints(t *testing.T) {
	z := real(t)
	name := append([]byte{0}, counted(2, []byte("dns.quad9.net"))...)
	alpn := counted(1, []byte("h2"))
	exts := slices.Concat(
		extension(0x3a3a, nil), // GREASE
		extension(0, counted(2, name)),
		extension(10, counted(2, u16s(0xdada, 29, 23))),
		extension(11, []byte{2, 0, 1}),
		extension(13, counted(2, u16s(0x0403, 0x0804))),
		extension(16, counted(2, alpn)),
		extension(43, counted(1, u16s(0x8a8a, 0x0304, 0x0303))),
	)
	ciphers := counted(2, u16s(0x1a1a, 0x1302, 0x1301, 0xc02f))
	random := strings.Repeat("r", 32)
	retry, err := hex.DecodeString("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
	if err != nil {
		t.Fatal(err)
	}

	c := newCapture()
	k := c.connect("10.0.0.5:40000", "10.9.9.9:443")
	k.says(0, hello(1, random, ciphers, exts))
	k.says(1, hello(2, string(retry), u16s(0x1302), extension(43, u16s(0x0304))))
	k.says(0, hello(1, random, counted(2, u16s(0x1302)), exts[4:])) // another one, which does not count
	k.says(1, hello(2, random, u16s(0x1301), slices.Concat(extension(43, u16s(0x0304)), extension(51, u16s(29, 1, 0x4141)))))
	k.close()
	// Nothing at all in the hello, to a resolver by its address.
	k = c.connect("10.0.0.5:40001", "9.9.9.9:443")
	k.says(0, hello(1, random, counted(2, u16s(0x0035)), nil))
	k.close()
	// The address of a resolver, where the name says that something else is asked for.
	k = c.connect("10.0.0.5:40002", "5.1.66.255:443")
	k.says(0, hello(1, random, counted(2, u16s(0x0035)), extension(0, counted(2, append([]byte{0}, counted(2, []byte("www.example.org"))...)))))
	k.close()
	// The same without a name.
	k = c.connect("10.0.0.5:40003", "5.1.66.255:443")
	k.says(0, hello(1, random, counted(2, u16s(0x0035)), nil))
	k.close()
	// A name below that of a resolver; more ciphers than are counted in two digits.
	many := make([]uint16, 120)
	for i := range many {
		many[i] = uint16(i + 1)
	}
	k = c.connect("10.0.0.5:40004", "10.9.9.9:443")
	k.says(0, hello(1, random, counted(2, u16s(many...)), slices.Concat(
		extension(0, counted(2, append([]byte{0}, counted(2, []byte("AMS01.dnscry.pt"))...))),
		extension(16, counted(2, counted(1, []byte{0xab, 'x', 0xcd}))))))
	k.close()

	got := readLog(t, readPcap(t, z, c.write(t)), "ssl")
	dashes := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(many)), "-"), "[]")
	var hexes []string
	for _, n := range many {
		hexes = append(hexes, fmt.Sprintf("%04x", n))
	}
	want := map[string]record{
		"40000": {
			"ja3":    md5Hex("771,4866-4865-49199,0-10-11-13-16-43,29-23,0-1"),
			"ja3s":   md5Hex("771,4865,43-51"),
			"ja4":    "t13d0306h2_" + sha12("1301,1302,c02f") + "_" + sha12("000a,000b,000d,002b_0403,0804"),
			"is_doh": true,
		},
		"40001": {"ja3": md5Hex("771,53,,,"), "ja4": "t12i010000_" + sha12("0035") + "_000000000000", "is_doh": true},
		"40002": {"ja4": "t12d010100_" + sha12("0035") + "_000000000000", "is_doh": false},
		"40003": {"is_doh": true},
		"40004": {
			"ja3": md5Hex("771," + dashes + ",0-16,,"), "ja4": "t12d9902ad_" + sha12(strings.Join(hexes, ",")) + "_000000000000", "is_doh": true,
		},
	}
	seen := 0
	for _, r := range got {
		for name, w := range want[r.text("id.orig_p")] {
			seen++
			if r[name] != w {
				t.Errorf("port %s: %s is %v, want %v", r.text("id.orig_p"), name, r[name], w)
			}
		}
	}
	if len(got) != len(want) || seen != 13 {
		t.Errorf("%d records, %d fields", len(got), seen)
	}
	if _, ok := got[1]["ja3s"]; ok {
		t.Errorf("a JA3S without a ServerHello: %v", got[1])
	}
}

func TestARP(t *testing.T) {
	z := real(t)
	c := newCapture()
	c.arp(1, macA, "10.0.0.1", make([]byte, 6), "10.0.0.2")
	c.arp(2, macA, "10.0.0.2", macB, "10.0.0.1")
	got := readLog(t, readPcap(t, z, c.write(t)), "arp")
	want := []record{
		{
			"operation": "request", "src_mac": "02:00:00:00:00:0a", "dst_mac": "02:00:00:00:00:0b", "orig_h": "10.0.0.1", "resp_h": "10.0.0.2",
			"orig_hw": "02:00:00:00:00:0a", "resp_hw": "00:00:00:00:00:00",
		},
		{
			"operation": "reply", "src_mac": "02:00:00:00:00:0a", "dst_mac": "02:00:00:00:00:0b", "orig_h": "10.0.0.2", "resp_h": "10.0.0.1",
			"orig_hw": "02:00:00:00:00:0a", "resp_hw": "02:00:00:00:00:0b",
		},
	}
	check(t, got, want)
}

// check compares the fields that are wanted.
func check(t *testing.T, got, want []record) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d: %v", len(got), len(want), got)
	}
	for i, w := range want {
		for name, v := range w {
			if got[i][name] != v {
				t.Errorf("record %d: %s is %v, want %v", i, name, got[i][name], v)
			}
		}
	}
}

// notices returns the notices whose name ends so.
func notices(t *testing.T, dir, name string) (all []record) {
	t.Helper()
	for _, r := range readLog(t, dir, "notice") {
		if strings.HasSuffix(r.text("note"), name) {
			all = append(all, r)
		}
	}
	return all
}

func TestICMPScans(t *testing.T) {
	z := real(t)
	c := newCapture()
	for i := range 300 {
		c.icmp(8, "10.0.0.9", fmt.Sprintf("10.1.%d.%d", i/250, i%250+1))
		c.icmp(8, "10.0.0.8", "10.1.0.1") // one host, again and again, is no scan
	}
	for i := range 9 {
		c.icmp(13, "10.0.0.7", fmt.Sprintf("10.1.0.%d", i+1))
		c.icmp(17, "10.0.0.6", fmt.Sprintf("10.1.0.%d", i+1))
		c.icmp(8, "10.0.0.4", fmt.Sprintf("10.1.0.%d", i%4+1)) // one host too few
	}
	dir := readPcap(t, z, c.write(t))
	got := notices(t, dir, "ICMP::ICMPAddressScan")
	if n := 255 / 5; len(got) != n { // what comes then says nothing new for an hour
		t.Errorf("%d notices of echo requests, want %d", len(got), n)
	}
	if m := got[50].text("msg"); m != "10.0.0.9 performed ICMP Address scan on 255 hosts" || got[50].text("n") != "255" {
		t.Errorf("message %q", m)
	}
	for _, r := range got {
		if r.text("src") != "10.0.0.9" {
			t.Errorf("notice about %s", r.text("src"))
		}
	}
	check(t, notices(t, dir, "ICMP::TimestampScan"), []record{{"src": "10.0.0.7", "msg": "10.0.0.7 performed ICMP Timestamp scan on 5 hosts"}})
	check(t, notices(t, dir, "ICMP::AddressMaskScan"), []record{{"src": "10.0.0.6", "msg": "10.0.0.6 performed ICMP AddressMask scan on 5 hosts"}})
}

func TestGateway(t *testing.T) {
	z := real(t)
	message := func(typ byte, relay string, options ...byte) []byte {
		b := make([]byte, 236)
		b[0], b[1], b[2] = 2, 1, 6 // BOOTREPLY, Ethernet
		binary.BigEndian.PutUint32(b[4:], 7)
		copy(b[16:], []byte{10, 0, 0, 77})
		a := netip.MustParseAddr(relay).As4()
		copy(b[24:], a[:])
		copy(b[28:], macA)
		b = append(b, 99, 130, 83, 99, 53, 1, typ)
		return append(append(b, options...), 255)
	}
	server, client := netip.MustParseAddrPort("10.0.0.2:67"), netip.MustParseAddrPort("10.0.0.77:68")
	c := newCapture()
	c.udp(server, client, message(2, "0.0.0.0", 3, 8, 10, 0, 0, 1, 10, 0, 0, 3)) // two routers
	c.udp(server, client, message(5, "0.0.0.0", 3, 4, 10, 0, 0, 1))              // the same again
	c.udp(server, client, message(5, "10.5.0.1"))                                // a relay, and no router named
	c.udp(server, client, message(5, "0.0.0.0"))                                 // neither
	dir := readPcap(t, z, c.write(t))
	check(t, notices(t, dir, "Gateway_addr_identified"), []record{{"src": "10.0.0.1"}, {"src": "10.5.0.1"}})
	if d := readLog(t, dir, "dhcp"); len(d) == 0 || d[0].text("router") != "10.0.0.1" {
		t.Errorf("dhcp.log: %v", d)
	}
}

func TestLogins(t *testing.T) {
	z := real(t)
	c := newCapture()
	// Wrong, then right.
	k := c.connect("10.0.0.5:40000", "10.0.0.9:23")
	k.says(1, "\xff\xfd\x18\r\nbox login: ")
	k.says(0, "root\r\n")
	k.says(1, "root\r\nPassword: ")
	k.says(0, "12345\r\n")
	k.says(1, "\r\n\r\nLogin incorrect\r\nbox login: ")
	k.says(0, "admin\r\n")
	k.says(1, "admin\r\nPassword: ")
	k.says(0, "secret77\r\n")
	k.says(1, "\r\nLast login: Sat Nov 21 10:00:00 from 10.0.0.5\r\n$ ")
	k.says(0, "ls\r\n")
	k.close()
	// Gives up at the prompt: nobody knows whether it was let in.
	k = c.connect("10.0.0.5:40001", "10.0.0.9:2323")
	k.says(1, "login: ")
	k.says(0, "guest\r\n")
	k.says(1, "guest\r\nPassword: ")
	k.says(0, "guest\r\n")
	k.close()
	// Only looks.
	k = c.connect("10.0.0.5:40002", "10.0.0.9:23")
	k.says(1, "login: ")
	k.close()
	// rsh, let in and refused.
	for i, reply := range []string{"\x00uid=0(root)\n", "\x01Permission denied.\n"} {
		k = c.connect(fmt.Sprintf("10.0.0.5:%d", 1000+i), "10.0.0.9:514")
		k.says(0, "\x00alice\x00bob\x00id\x00")
		k.says(1, reply)
		k.close()
	}
	// Syslog on the port of rsh.
	k = c.connect("10.0.0.5:40003", "10.0.0.9:514")
	k.says(0, "<13>Nov 22 12:00:00 box app: hello\n")
	k.close()
	// rlogin.
	k = c.connect("10.0.0.5:1010", "10.0.0.9:513")
	k.says(0, "\x00carol\x00dave\x00vt100/9600\x00")
	k.says(1, "\x00Password: ")
	k.says(0, "x\r")
	k.says(1, "\r\nLogin incorrect\r\n")
	k.close()

	dir := readPcap(t, z, c.write(t))
	got := readLog(t, dir, "login")
	slices.SortStableFunc(got, func(a, b record) int { return strings.Compare(a.text("id.orig_p"), b.text("id.orig_p")) })
	check(t, got, []record{
		{"id.orig_p": 1000., "service": "rsh", "success": true, "user": "bob", "client_user": "alice", "password": nil},
		{"id.orig_p": 1001., "service": "rsh", "success": false, "user": "bob", "client_user": "alice", "password": nil},
		{"id.orig_p": 1010., "service": "rlogin", "success": false, "user": "dave", "client_user": "carol"},
		{"id.orig_p": 40000., "service": "telnet", "success": false, "user": "root", "password": true, "proto": "tcp", "confused": false},
		{"id.orig_p": 40000., "service": "telnet", "success": true, "user": "admin", "password": true},
		{"id.orig_p": 40001., "service": "telnet", "success": nil, "user": "guest", "password": true},
	})
	b, err := os.ReadFile(filepath.Join(dir, "login.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"12345", "secret77"} {
		if strings.Contains(string(b), secret) {
			t.Errorf("the password %q is in login.log", secret)
		}
	}
}

func TestLinkFields(t *testing.T) {
	z := real(t)
	c := newCapture()
	c.udp(netip.MustParseAddrPort("10.0.0.5:5000"), netip.MustParseAddrPort("10.0.0.9:5001"), []byte("x"), 100, 7)
	check(t, readLog(t, readPcap(t, z, c.write(t)), "conn"), []record{{
		"vlan": 100., "inner_vlan": 7., "orig_l2_addr": "02:00:00:00:00:0a", "resp_l2_addr": "02:00:00:00:00:0b",
		// Computed by the definition: SHA-1 of seed, addresses, protocol and ports.
		"community_id": communityID("10.0.0.5", "10.0.0.9", 17, 5000, 5001),
	}})
}

func TestHashes(t *testing.T) {
	z := real(t)
	c := newCapture()
	k := c.connect("10.0.0.5:40000", "10.0.0.9:80")
	k.says(0, "GET /a HTTP/1.1\r\nHost: h\r\nUser-Agent: Wget/1.20\r\n\r\n")
	k.says(1, "HTTP/1.1 200 OK\r\nServer: nginx/1.2.3\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")
	k.close()
	dir := readPcap(t, z, c.write(t))
	check(t, readLog(t, dir, "files"), []record{{"md5": md5Hex("hello"), "sha1": "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"}})
	if got := readLog(t, dir, "software"); len(got) != 2 {
		t.Errorf("software.log of hosts outside and inside: %v", got)
	}
}

// Each field and log on traffic that others recorded.
func TestOnDatasets(t *testing.T) {
	z := real(t)
	for _, c := range []struct {
		pcap, log, field, value string // value "" stands for any
		atLeast                 int
	}{
		{"test8-malicious.pcap", "arp", "operation", "request", 100},
		{"test12-icmp-portscan.pcap", "notice", "note", "ICMP::ICMPAddressScan", 2},
		{"test-cc-capture-1.pcap", "ssl", "ja4", "", 10},
		{"protocols/tls_chrome-34-google.pcap", "ssl", "ja3", "", 1},
		{"protocols/tls_tls1.2.pcap", "ssl", "ja3s", "", 1},
		{"protocols/tls_dtls1_2.pcap", "ssl", "ja4", "", 1},
		{"protocols/tls_hrr.pcap", "ssl", "ja3s", "907bf3ecef1c987c889946b737b43de8", 1},
		{"protocols/dhcp_dhcp.pcap", "notice", "note", "Slips::Gateway_addr_identified", 1},
		{"protocols/http_get-gzip.pcap", "files", "sha1", "", 1},
		{"protocols/tls_tls1.2.pcap", "files", "sha1", "3367a1824a6013c02a3e25bbe4da863387faf134", 1}, // of a certificate
		{"protocols/q-in-q.pcap", "conn", "inner_vlan", "", 1},
		{"protocols/markofu_arp.pcap", "arp", "orig_hw", "", 1},
		{"protocols/communityid_tcp.pcap", "conn", "community_id", "", 1},
	} {
		t.Run(c.pcap, func(t *testing.T) {
			n := 0
			for _, r := range readLog(t, readPcap(t, z, dataset(t, c.pcap)), c.log) {
				if v := r.text(c.field); v != "" && (c.value == "" || v == c.value) {
					n++
				}
			}
			if n < c.atLeast {
				t.Errorf("%s.log has %d records with %s, want %d", c.log, n, c.field, c.atLeast)
			}
		})
	}
}

// An operator's Zeek loads what Install writes: with JSON off, beside site
// scripts, and behind a package that has some of the same fields already.
func TestInstall(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "slips")
	if err := Install(dir); err != nil {
		t.Fatal(err)
	}
	if err := Install(dir); err != nil { // again, as on an update
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, Names()) || slices.Contains(got, managed) {
		t.Errorf("installed %q", got)
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Install(filepath.Join(file, "x")); err == nil {
		t.Error("no error below a file")
	}

	z := real(t)
	other := filepath.Join(t.TempDir(), "other.zeek")
	if err := os.WriteFile(other, []byte(`
@load base/protocols/ssl
module Other;
export { redef enum Notice::Type += { Nothing }; }
redef record SSL::Info += { ja3: string &log &optional; ja3s: string &log &optional; ja4: string &log &optional; is_DoH: bool &log &optional; };
redef record DHCP::Info += { router: addr &log &optional; };
module ARP;
export { redef enum Log::ID += { LOG }; }
module Login;
export { redef enum Log::ID += { LOG }; }
`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{dir}, {"local", dir}, {other, dir}} {
		cmd := exec.CommandContext(t.Context(), z.Path, append([]string{"--parse-only"}, args...)...)
		cmd.Dir = t.TempDir()
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), dir) {
			t.Errorf("zeek %q: %v: %s", args, err, out)
		}
	}
}

// A real Zeek on a real interface, from the start to the last log.
func TestLiveReal(t *testing.T) {
	z := real(t)
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED live: capturing needs root")
	}
	dir := t.TempDir()
	ready := make(chan string, 1)
	var n notebook
	var sum packets
	_, stop := live(t, Options{
		Zeek: z, Interfaces: []string{"lo"}, Dir: dir, Filter: "udp port 47123", Rotation: time.Hour, Log: n.logger(),
		OnReady: func(i string) { ready <- i },
		OnStats: func(_ string, taken, dropped int64) {
			sum.taken += taken
			sum.dropped += dropped
		},
	})
	next(t, ready, "start")
	from, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	// Zeek is ready some time before it looks at its interface.
	to := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 47123}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 100 {
		<-tick.C
		if _, err := from.WriteTo([]byte("x"), to); err != nil {
			t.Log(err) // the port is closed, and the kernel says so
		}
	}
	if err := stop(); err != nil {
		t.Fatalf("%v\n%s", err, n.String())
	}
	logs, err := logsIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	conns := 0
	for _, l := range logs {
		if name, _, _ := strings.Cut(l, "."); name == "conn" {
			conns += len(readLog(t, dir, strings.TrimSuffix(l, ".log")))
			if l != "conn.log" && !rotated.MatchString(l) {
				t.Errorf("%q is not taken for a rotated log", l)
			}
		}
	}
	if conns == 0 {
		t.Errorf("no connection in %q\n%s", logs, n.String())
	}
	// What came since the last line of stats.log counts too, though the log is rotated at the end.
	if all := lastWords(t, dir); sum != all || all.taken == 0 {
		t.Errorf("told of %+v, and zeek says at its end %+v", sum, all)
	}
	if l := leftovers(t, dir); len(l) > 0 {
		t.Errorf("left: %q", l)
	}
}

// lastWords returns what a Zeek said about its packets when it ended.
func lastWords(t *testing.T, dir string) (all packets) {
	t.Helper()
	names, err := logsIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range names {
		if !strings.HasPrefix(l, "reporter.") {
			continue
		}
		for _, r := range readLog(t, dir, strings.TrimSuffix(l, ".log")) {
			if m := received.FindStringSubmatch(r.text("message")); m != nil {
				if _, err := fmt.Sscan(m[1]+" "+m[2], &all.taken, &all.dropped); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return all
}

// Captures of any name are read, and all of their packets are counted.
func TestPcapNamesReal(t *testing.T) {
	z := real(t)
	c := newCapture()
	for range 10 {
		c.icmp(8, "10.0.0.1", "10.0.0.2")
	}
	made := c.write(t)
	for _, name := range []string{"-x.pcap", "a::b.pcap", "af_packet::c"} {
		pcap := filepath.Join(filepath.Dir(made), name)
		if err := os.Rename(made, pcap); err != nil {
			t.Fatal(err)
		}
		made = pcap
		var sum packets
		s, err := New(Options{Zeek: z, Pcap: pcap, Dir: t.TempDir(), OnStats: func(source string, taken, dropped int64) {
			if source != pcap {
				t.Errorf("stats of %q", source)
			}
			sum.taken += taken
			sum.dropped += dropped
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(t.Context()); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if len(readLog(t, s.Dirs()[0], "conn")) != 1 || sum != (packets{taken: 10}) {
			t.Errorf("%q: %v, %+v", name, readLog(t, s.Dirs()[0], "conn"), sum)
		}
	}
	if err := os.WriteFile(made, []byte("no packets"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Zeek: z, Pcap: made, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no pcap or pcapng") || !strings.Contains(err.Error(), filepath.Base(made)) || strings.Contains(err.Error(), ofStdin) {
		t.Errorf("no capture: %v", err)
	}
}

// idle is a live Zeek, not started yet, to which no packets come, with settings.
// It is ended with the context, when the test runs out of patience.
func idle(t *testing.T, settings string) (context.Context, *exec.Cmd) {
	t.Helper()
	z := real(t)
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED live: capturing needs root")
	}
	dir, err := filepath.Abs("scripts")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, z.Path, "-i", "lo", "-f", "udp port 9", dir, filepath.Join(dir, managed), "-e", settings)
	cmd.Dir = t.TempDir()
	return ctx, cmd
}

// A Zeek whose program has capabilities of its own is not ended by the kernel
// with its supervisor, and ends itself.
func TestEndsWithoutSupervisor(t *testing.T) {
	ctx, cmd := idle(t, `redef Slips::supervisor = "/proc/none"; redef Slips::supervisor_interval = 50msec;`)
	if out, err := cmd.CombinedOutput(); err != nil || ctx.Err() != nil {
		t.Errorf("it does not end: %v, %v: %s", err, ctx.Err(), out)
	}
}

// A live Zeek says that it lives also when no packet comes, as often as it shall.
func TestSaysThatItLives(t *testing.T) {
	_, cmd := idle(t, `redef Slips::sign_of_life = 50msec;`)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	alive := 0
	for sc := bufio.NewScanner(out); alive < 20 && sc.Scan(); {
		if sc.Text() == aliveWord {
			alive++
		}
	}
	proc := fmt.Sprintf("/proc/%d/fd", cmd.Process.Pid)
	open, err := os.ReadDir(proc)
	stderr, err2 := os.Readlink(filepath.Join(proc, "2"))
	if err != nil || err2 != nil {
		t.Errorf("what it has open: %v, %v", err, err2)
	}
	n := 0
	for _, fd := range open {
		if to, err := os.Readlink(filepath.Join(proc, fd.Name())); err == nil && to == stderr {
			n++
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if alive < 20 || n > 3 { // its own, and that of a line at most
		t.Errorf("said %d times that it lives, and has standard error open %d times", alive, n)
	}
}

// What is wrong is said in our words and in Zeek's.
func TestStartErrorsReal(t *testing.T) {
	z := real(t)
	bad := filepath.Join(t.TempDir(), "bad.zeek")
	if err := os.WriteFile(bad, []byte("event zeek_init() { nonsense }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pcap := newCapture().write(t)
	for _, c := range []struct {
		name, want string
		input      bool // is at fault
		o          Options
	}{
		{"no pcap", "the file is no pcap", true, Options{Pcap: "scripts_test.go"}},
		{"filter", "the BPF filter cannot be compiled", true, Options{Pcap: pcap, Filter: "tcp and ("}},
		{"script", "a script cannot be compiled", false, Options{Pcap: pcap, Extra: []string{bad}}},
		{"no script", "a script of Zeek's own is missing", false, Options{Pcap: pcap, Extra: []string{"no/such"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Zeek, c.o.Dir = z, t.TempDir()
			s, err := New(c.o)
			if err != nil {
				t.Fatal(err)
			}
			err = s.Run(t.Context())
			if start := (*StartError)(nil); !errors.As(err, &start) || !strings.Contains(err.Error(), c.want) || start.Input != c.input {
				t.Errorf("got %v, want %q, of the input: %v", err, c.want, c.input)
			}
		})
	}
	// An empty capture is no error.
	readPcap(t, z, pcap)
}
