package bpf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	xbpf "golang.org/x/net/bpf"

	"github.com/slips-go/slips/parsers/packet"
	"github.com/slips-go/slips/parsers/packet/bpf"
)

// dlts are tcpdump's names of the link types.
var dlts = map[packet.Link]string{
	packet.LinkEthernet: "EN10MB", packet.LinkRaw: "RAW", packet.LinkSLL: "LINUX_SLL", packet.LinkSLL2: "LINUX_SLL2",
	packet.LinkNull: "NULL", packet.LinkLoop: "LOOP", packet.LinkPPP: "PPP",
}

// expressions are compared with tcpdump on every link type for which tcpdump
// compiles them.
var expressions = strings.Split(strings.TrimSpace(`
ip
ip6
arp
rarp
tcp
udp
icmp
icmp6
sctp
igmp
igrp
pim
vrrp
ah
esp
atalk
aarp
decnet
lat
stp
ipx
iso
netbeui
not ip
! ip
not not ip
not (ip or ip6)
ip and tcp
ip && tcp || udp
tcp or udp and ip6
tcp and not ip6
host 10.0.0.1
host 192.0.2.80
not host 10.0.0.1
src host 10.0.0.1
dst host 10.0.0.1
src 10.0.0.1
dst 10.0.0.1
src or dst 10.0.0.1
dst or src host 10.0.0.1
src and dst 10.0.0.1
ip host 10.0.0.1
arp host 10.0.0.1
rarp host 10.0.0.1
arp src 10.0.0.1
host 10.0.0.1 and 192.0.2.80
host 10.0.0.1 or 192.0.2.80 or 10.9.9.9
host (10.0.0.1 or 10.0.0.2)
src not 10.0.0.1
host 10.0.0.1 and not 192.0.2.80
host 10.0.0.1 and (192.0.2.80 or 10.0.0.2)
host 0x0a000001
host 167772161
host 10.0
host 2001:db8::1
src host 2001:db8::1
dst host 2001:db8::2
ip6 host 2001:db8::1
host ::ffff:1.2.3.4
net 10
net 10.0
net 10.0.0
net 10.0.0.0/8
net 10.0/16
src net 10.0.0.0/30
dst net 192.0.2.0/24
net 192.0.2.0 mask 255.255.255.0
net 0.0.0.0/0
not net 10.0.0.0/8
ip net 10.0.0.0/8
arp net 10.0.0.0/8
net 10.0.0.0/8 and not net 10.0.0.0/24
src net 10.0.0.0/8 and dst net 10.0.0.0/8
net 2001:db8::/32
net fe80::/10
net ::/0
ip6 net 2001:db8::/33
src net 2001:db8::/127
dst net ff00::/8
port 80
port 53
port 80 or 443
port 80 or 443 or 53
port (80 or 443)
not port 80
not port 80 or 443
port 80 and not 443
tcp port 80
udp port 53
sctp port 80
src port 80
dst port 80
src or dst port 80
src and dst port 53
tcp src port 80
tcp dst port 80 or 443
udp dst port domain
port http
port https
port domain
tcp port ssh
port 0120
port 0x50
portrange 1-100
portrange 80
tcp portrange 1-1023
udp portrange 53-53
src portrange 1024-65535
dst portrange 100-1
portrange ssh-100
portrange http-https
portrange 20-ssh
tcp port 80 and host 10.0.0.1
tcp src port 80 and dst 10.0.0.1 or 192.0.2.80
port 80 or net 10.0.0.0/24
port 80 or 443 or host 10.0.0.1
proto 6
proto \udp
ip proto 17
ip proto \tcp
ip proto (6 or 17)
ip6 proto 58
ip6 proto \tcp
ip proto 47
ip proto \gre or \esp
ether proto 0x800
ether proto \ip
ether proto \arp or \ip6
ether proto 0x42
link proto 0x86dd
ether host 02:00:00:00:00:01
ether src 02:00:00:00:00:01
ether dst 02:00:00:00:00:02
ether src or dst 2:0:0:0:0:2
ether host 0200.0000.0001
ether host 020000000001
ether host 02-00-00-00-00-01
not ether host 02:00:00:00:00:01
broadcast
multicast
ether broadcast
ether multicast
not broadcast and not multicast
ip broadcast
ip multicast
ip6 multicast
vlan
vlan 7
vlan (7)
vlan and ip
vlan 7 and port 80
vlan and vlan
vlan 7 and vlan 8
vlan 7 and vlan 8 and tcp
not vlan
ip or vlan and ip
vlan 7 or vlan 8
(vlan 7 or 1=1) and host 10.0.0.1
mpls
mpls 100
mpls 100 and ip
mpls and mpls
mpls 100 and mpls 200 and host 10.0.0.1
mpls and tcp port 80
pppoed
pppoes
pppoes 5
pppoes and ip
pppoes 5 and host 10.0.0.1 and port 80
inbound
outbound
not outbound and ip
less 60
greater 60
less 60 or greater 1000
len > 100
len >= 60 and len <= 60
length != 60
60 < len
len - 14 = 46
1 = 1
1 + 1 = 2
tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn
tcp[tcpflags] & (tcp-syn|tcp-ack) != 0
tcp[tcpflags] = tcp-syn
tcp[13] & 2 != 0
(tcp[13] & 2) != 0
((tcp[13] & 2)) != (0)
tcp[13] == 2 or tcp[13] == 18
tcp[2:2] = 80
tcp[0:2] > 1023 and tcp[2:2] < 1024
tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420
tcp[(tcp[12]>>2):4] = 0x47455420 and port 80
udp[4:2] > 20
udp[8:2] & 0x8000 = 0
udp[0:2] = udp[2:2]
icmp[icmptype] = icmp-echo
icmp[icmptype] != icmp-echo and icmp[icmptype] != icmp-echoreply
icmp[0] = 8
icmp6[icmp6type] = icmp6-neighborsolicit
icmp6[0] == 128
ip[0] & 0xf > 5
ip[6:2] & 0x1fff != 0
ip[6] & 0x20 != 0
ip[8] < 64
ip[2:2] > 576
ip[9] = 6
ip[12:4] = 0x0a000001
ip[ip[0] & 0xf] = 5
ip[2:2] - ((ip[0] & 0xf) << 2) > 20
(ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2) != 0
tcp port 80 and (((ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2)) != 0)
ip[300] = 1
ip6[6] = 6
ip6[40] = 0
arp[6:2] = 1
arp[7] = 2
ether[0] & 1 = 0
ether[0] & 1 = 0 and ether[6] & 1 = 0
ether[12:2] = 0x800
ether[20:2] & 0x1fff = 0
ether[len - 1] = 0
ip[0] * 2 = 138
ip[0] / 5 = 13
-ip[0] + 69 = 0
ip[0] | 1 = 69 and ip[1] + ip[2] * 3 - 4 >= 0
tcp[4:4] >> 16 & 0xff << 1 > 3
(ip[8] ^ 64) = 0
(ip[8] % 64) = 0
ip and not tcp and not udp and not icmp
(tcp or udp) and (port 53 or port 80) and not (host 10.0.0.1 and port 80)
not (host 10.0.0.1 or host 10.0.0.2) or (tcp and dst port 443)
tcp and port 80 or udp and port 53 or icmp
((((tcp))))
not tcp port 80 and not udp port 53
(ip6 and tcp) or (ip and udp)
ip proto \icmp and icmp[0] = 3 and icmp[1] = 3
tcp[tcpflags] & tcp-rst != 0 and src net 192.0.2.0/24
host 10.0.0.1 and tcp port 80 and greater 100
src net 10.0.0.0/8 and not dst net 10.0.0.0/8 and not dst net 192.0.2.0/24
`), "\n")

// frames are what the filters are tried on, of one link type.
type frames struct {
	link packet.Link
	all  []packet.Packet
}

// theirs returns the program that tcpdump makes of an expression.
func theirs(tb testing.TB, link packet.Link, expr string, options ...string) ([]xbpf.RawInstruction, error) {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), "tcpdump", append(options, "-y", dlts[link], "-ddd", "--", expr)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.New(strings.TrimSpace(stderr.String()))
	}
	var p []xbpf.RawInstruction
	for _, l := range strings.Split(strings.TrimSpace(string(out)), "\n")[1:] {
		var r xbpf.RawInstruction
		if _, err := fmt.Sscan(l, &r.Op, &r.Jt, &r.Jf, &r.K); err != nil {
			tb.Fatalf("tcpdump -ddd %q: %q: %v", expr, l, err)
		}
		p = append(p, r)
	}
	return p, nil
}

func needTcpdump(tb testing.TB) {
	tb.Helper()
	if _, err := exec.LookPath("tcpdump"); err != nil {
		tb.Skip("SKIPPED: no tcpdump to compare filters with (apt-get install tcpdump)")
	}
}

// differs reports what tcpdump 4.99 with libpcap 1.10.3 does otherwise, and why.
func differs(link packet.Link, expr string) string {
	switch {
	case (expr == "inbound" || expr == "outbound" || strings.Contains(expr, "outbound")) && link != packet.LinkSLL && link != packet.LinkSLL2:
		return "a file does not tell; tcpdump -y compiles for the kernel"
	case link == packet.LinkSLL2 && (expr == "atalk" || expr == "aarp" || expr == "stp" || expr == "ipx" || expr == "iso" ||
		expr == "netbeui" || expr == "ether proto 0x42"):
		return "libpcap takes LLC service access points for types"
	case link == packet.LinkPPP && strings.Contains(expr, "pppoe"):
		return "an Ethernet type is looked for where PPP has its own numbers"
	case strings.HasPrefix(expr, "(ip[2:2]"):
		return "libpcap forgets the protocol of the right operand of a calculation"
	}
	return ""
}

// TestAgainstTcpdump compiles all expressions for all link types as tcpdump
// does, and runs both programs on all packets that there are.
func TestAgainstTcpdump(t *testing.T) {
	needTcpdump(t)
	sets := builtFrames()
	sets = append(sets, captured(t)...)
	by := map[packet.Link][]packet.Packet{}
	for _, s := range sets {
		for _, p := range s.all {
			// tcpdump knows the address families of its own system alone.
			if s.link == packet.LinkNull && len(p.Data) > 0 && p.Data[0] != 2 && p.Data[0] != 10 {
				continue
			}
			by[s.link] = append(by[s.link], p)
		}
	}
	compared, accepted, rejected, larger, ours, others := 0, 0, 0, 0, 0, 0
	for link := range dlts {
		if len(by[link]) == 0 {
			t.Fatalf("no packets of %s", dlts[link])
		}
		for _, expr := range expressions {
			if why := differs(link, expr); why != "" {
				continue
			}
			want, wantErr := theirs(t, link, expr)
			got, gotErr := bpf.Compile(expr, link, 262144)
			if (wantErr != nil) != (gotErr != nil) {
				t.Errorf("%s: %q: error %v, of tcpdump %v", dlts[link], expr, gotErr, wantErr)
				continue
			}
			if gotErr != nil {
				continue
			}
			if len(got) > len(want) {
				larger++
			}
			g, err := bpf.NewProgram(got)
			if err != nil {
				t.Fatalf("%s: %q: %v", dlts[link], expr, err)
			}
			ours, others = ours+len(got), others+len(want)
			w, err := bpf.NewProgram(want)
			if err != nil {
				t.Fatalf("%s: %q: tcpdump's program: %v", dlts[link], expr, err)
			}
			// tcpdump's optimizer changes the order of tests and leaves some out,
			// so of a packet that was cut in the middle of what is tested its
			// programs with and without it may say different things. One of the
			// two must be ours.
			plain, err := theirs(t, link, expr, "-O")
			if err != nil {
				t.Fatal(err)
			}
			o, err := bpf.NewProgram(plain)
			if err != nil {
				t.Fatalf("%s: %q: tcpdump's program: %v", dlts[link], expr, err)
			}
			for i, p := range by[link] {
				gm, wm := g.Match(p.Data, p.Length), o.Match(p.Data, p.Length)
				if gm != wm || len(p.Data) >= p.Length {
					wm = w.Match(p.Data, p.Length)
				}
				if gm != wm {
					t.Errorf("%s: %q: packet %d of %d bytes (%d captured): %v, tcpdump says %v\n% x\n%v\n%v", dlts[link], expr, i, p.Length,
						len(p.Data), gm, wm, p.Data[:min(len(p.Data), 90)], disassemble(got), disassemble(want))
					break
				}
				if compared++; gm {
					accepted++
				} else {
					rejected++
				}
			}
		}
	}
	t.Logf("%d expressions, %d comparisons, %d accepted, %d rejected; %d programs are larger than tcpdump's; %d instructions, its %d", len(expressions), compared,
		accepted, rejected, larger, ours, others)
	if accepted == 0 || rejected == 0 {
		t.Error("the packets tell nothing")
	}
}

func disassemble(p []xbpf.RawInstruction) string {
	var b strings.Builder
	for i, r := range p {
		fmt.Fprintf(&b, "(%03d) %v\n", i, r.Disassemble())
	}
	return b.String()
}

// TestTcpdumpReads runs the real program on a file of the built packets, which
// also compares how programs are run and what it takes from a file alone. The
// packets are whole, for the reason that TestAgainstTcpdump tells, and none has
// Linux's number of IPv6, which tcpdump -r does not look for.
func TestTcpdumpReads(t *testing.T) {
	needTcpdump(t)
	for _, s := range builtFrames() {
		if _, ok := dlts[s.link]; !ok {
			continue
		}
		s.all = slices.DeleteFunc(s.all, func(p packet.Packet) bool {
			return len(p.Data) < max(p.Length, 4) ||
				(s.link == packet.LinkNull || s.link == packet.LinkLoop) && (p.Data[0] == 10 || p.Data[3] == 10)
		})
		path := filepath.Join(t.TempDir(), "a.pcap")
		if err := os.WriteFile(path, pcap(s), 0o600); err != nil {
			t.Fatal(err)
		}
		for i, expr := range expressions {
			if i%4 != 0 || differs(s.link, expr) != "" {
				continue
			}
			out := filepath.Join(t.TempDir(), strconv.Itoa(i))
			cmd := exec.CommandContext(t.Context(), "tcpdump", "-r", path, "-w", out, "--", expr)
			_, theirErr := cmd.CombinedOutput()
			code, err := bpf.Compile(expr, s.link, 0)
			if (err != nil) != (theirErr != nil) {
				t.Errorf("%s: %q: error %v, of tcpdump %v", dlts[s.link], expr, err, theirErr)
			}
			if err != nil || theirErr != nil {
				continue
			}
			p, err := bpf.NewProgram(code)
			if err != nil {
				t.Fatal(err)
			}
			var got frames
			got.link = s.link
			for _, f := range s.all {
				if p.Match(f.Data, f.Length) {
					got.all = append(got.all, f)
				}
			}
			want, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if g := pcap(got); !bytes.Equal(g[24:], want[24:]) {
				t.Errorf("%s: %q: %d packets of %d are accepted; tcpdump -r takes others", dlts[s.link], expr, len(got.all), len(s.all))
			}
		}
	}
}

// pcap writes a capture file as tcpdump does.
func pcap(s frames) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	b = binary.LittleEndian.AppendUint16(b, 2)
	b = binary.LittleEndian.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...)
	b = binary.LittleEndian.AppendUint32(b, 262144)
	b = binary.LittleEndian.AppendUint32(b, uint32(s.link))
	for _, p := range s.all {
		b = binary.LittleEndian.AppendUint32(b, uint32(p.Time/1e9))
		b = binary.LittleEndian.AppendUint32(b, 0)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p.Data)))
		b = binary.LittleEndian.AppendUint32(b, uint32(p.Length))
		b = append(b, p.Data...)
	}
	return b
}

// perFile are the packets taken of one capture of the data sets.
const perFile = 400

// captured reads the beginnings of the captures of the data sets.
func captured(t *testing.T) []frames {
	t.Helper()
	var sets []frames
	dir := filepath.Join("..", "..", "..", "..", "shared", "datasets", "pcap")
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(filepath.Ext(path), ".pcap") {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		r, err := packet.NewReader(f)
		if err != nil {
			return nil // not what this test is about
		}
		defer r.Close()
		for range perFile {
			p, err := r.Next()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Logf("%s: %v", path, err)
				}
				break
			}
			p.Data = slices.Clone(p.Data)
			sets = append(sets, frames{p.Link, []packet.Packet{p}})
		}
		return nil
	})
	if err != nil || len(sets) == 0 {
		t.Logf("NOT TESTED on real captures: %s: %v", dir, err)
	}
	return sets
}
