package bpf_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	xbpf "golang.org/x/net/bpf"

	"github.com/slips-go/slips/parsers/packet"
	"github.com/slips-go/slips/parsers/packet/bpf"
)

// TestErrors checks that what is wrong or not supported is refused where it
// stands and in these words.
func TestErrors(t *testing.T) {
	for _, c := range []struct{ expr, want string }{
		{"5", `character 1, at "5": expected a condition`},
		{"1.2.3.4 or 5.6.7.8", `character 1, at "1.2.3.4 or 5.6.7.8": expected a condition such as host`},
		{"host", "at its end: expected an address"},
		{"host www.example.com", `character 6, at "www.example.com": expected an address: names are not looked up`},
		{"net localnet", "names are not looked up"},
		{"host 300.1.1.1", "no IPv4 address"},
		{"port 70000", `character 6, at "70000": a port is a number up to 65535`},
		{"port nosuchservice", `no service is called "nosuchservice" here`},
		{"tcp port ntp", "the service ntp is one of udp"},
		{"portrange 1-2-3", "expected two ports"},
		{"port 1-2", `no service is called "1-2"`},
		{"ip proto tcp", `character 10, at "tcp": expected a protocol's number, or its name behind a backslash; tcp is a keyword: write \tcp`},
		{"ip proto 256", "at most 255"},
		{"ether proto 1000", "LLC service access point"},
		{"ether host 1.2.3.4", "expected a hardware address"},
		{"host 1:2:3:4:5:6", `stands behind "ether host"`},
		{"ip host fe80::1", "behind ip6 or no protocol"},
		{"ip6 host 1.2.3.4", "behind ip, arp, rarp or no protocol"},
		{"tcp host 1.2.3.4", "not behind tcp"},
		{"net 10.0.0.1/8", "bits beyond its mask"},
		{"net 10.0.0.1 mask 255.0.0.0", "bits beyond its mask"},
		{"net 10.0.0.0/33", "a prefix length up to 32"},
		{"net fe80::1/64", "bits beyond its prefix length"},
		{"net 10/8", "at least two parts before the slash"},
		{"host 10.0.0.0/8", `a mask stands behind "net"`},
		{"icmp port 80", "ports are of tcp, udp and sctp, not of icmp"},
		{"port 1.2.3.4", "expected a port, not an address"},
		{"port 80 or", "at its end: expected"},
		{"(port 80", `at its end: expected ")"`},
		{"port 80)", `character 8, at ")": expected "and", "or" or the end`},
		{"(port 80) or 443", "there are none before it to carry over"},
		{"tcp or 443", "there are none before it to carry over"},
		{"port 80 443", `at "443": expected "and"`},
		{"ip tcp", `at "tcp": expected "and"`},
		{"gateway foo", `character 1, at "gateway foo": "gateway" is not supported`},
		{"ip protochain 6", `"protochain" is not supported`},
		{"type mgt", `"type" is not supported`},
		{"geneve", `"geneve" is not supported`},
		{"vlan 5000", "expected a number up to 4095"},
		{"mpls 1048576", "expected a number up to 1048575"},
		{"tcp[13:3] = 1", `character 8, at "3] = 1": expected a size of 1, 2 or 4 bytes`},
		{"tcp[13", `at its end: expected "]"`},
		{"tcp[13]", "at its end: expected a comparison"},
		{"tcp[13] = ", "at its end: expected a number, len"},
		{"esp[0] = 1", "the bytes of esp cannot be asked for"},
		{"len / 0 = 1", "division by zero"},
		{"len << 32 = 1", "a shift by more than 31 bits"},
		{"len + 1 % 2 = 1", "put what % joins into parentheses"},
		{"99999999999 = 1", "does not fit into 32 bits"},
		{"09 = 1", "malformed"},
		{"port 80 ; rm", `character 9, at "; rm": this character has no meaning`},
		{"ether", "at its end: expected host, src"},
		{"arp broadcast", "broadcast is not of arp"},
		{`ip proto \`, "a name is missing behind the backslash"},
		{"inbound", "does not tell the direction"},
		{"ip and", "at its end: expected a condition"},
		{"not", "at its end: expected a condition"},
		{"and ip", `character 1, at "and ip": expected a condition`},
		{"vlan and mpls and vlan", `VLAN tags are of Ethernet, not of MPLS`},
		{"mpls and arp", "of what MPLS carries only IP"},
		{strings.Repeat("(", 200) + "ip" + strings.Repeat(")", 200), "more than 100"},
		{strings.Repeat("not ", 200) + "ip", "more than 100"},
		{strings.Repeat("ip or ", 20000) + "ip", "the limit is 65536"},
	} {
		_, err := bpf.Compile(c.expr, packet.LinkEthernet, 0)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40q: error %v, want one with %q", c.expr, err, c.want)
		}
	}
	_, err := bpf.Compile("ip and (port 80 or prot 5)", packet.LinkEthernet, 0)
	var e *bpf.Error
	if !errors.As(err, &e) || e.Pos != 19 {
		t.Errorf("error %v at %+v, want position 19", err, e)
	}
	for _, c := range []struct {
		expr string
		link packet.Link
		want string
	}{
		{"arp", packet.LinkRaw, "accepts no packet of raw IP"},
		{"vlan", packet.LinkRaw, "VLAN tags are of Ethernet, not of raw IP"},
		{"ether host 1:2:3:4:5:6", packet.LinkSLL, "no hardware addresses"},
		{"broadcast", packet.LinkSLL, "no hardware addresses"},
		{"mpls", packet.LinkNull, "MPLS is of Ethernet and PPP"},
		{"ip", packet.LinkWiFi, "link type 105 is not supported"},
		{"1 = 2", packet.LinkEthernet, "accepts no packet"},
	} {
		if _, err := bpf.Compile(c.expr, c.link, 0); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q on %d: error %v, want one with %q", c.expr, c.link, err, c.want)
		}
	}
}

// TestSnaplen checks what an accepted packet is cut to, and that no expression
// accepts all.
func TestSnaplen(t *testing.T) {
	for _, c := range []struct {
		snaplen int
		want    uint32
	}{{0, 262144}, {-1, 262144}, {96, 96}, {1 << 20, 1 << 20}} {
		p, err := bpf.Compile("", packet.LinkEthernet, c.snaplen)
		if err != nil || len(p) != 1 || p[0].K != c.want {
			t.Errorf("snaplen %d: %v, %v", c.snaplen, p, err)
		}
	}
}

// largeFilter is a list of networks that needs jumps further than 255
// instructions.
func largeFilter() string {
	var b strings.Builder
	b.WriteString("tcp and not (")
	for i := range 250 {
		fmt.Fprintf(&b, "net 10.%d.0.0/16 or ", i)
	}
	return b.String() + "port 9)"
}

// TestLarge compares each answer of a large filter, and checks that one that is
// too large for the kernel is refused.
func TestLarge(t *testing.T) {
	code, err := bpf.Compile(largeFilter(), packet.LinkEthernet, 0)
	if err != nil {
		t.Fatal(err)
	}
	p, err := bpf.NewProgram(code)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions", len(code))
	for i := range 256 {
		for port := uint16(8); port <= 9; port++ {
			d := append(append(make([]byte, 12), 8, 0), ipv4("192.0.2.1", fmt.Sprintf("10.%d.1.1", i), 6, 0, 0, seg(1, port, 2, ""))...)
			if got, want := p.Match(d, 0), i >= 250 && port != 9; got != want {
				t.Fatalf("10.%d.1.1 port %d: %v, want %v", i, port, got, want)
			}
		}
	}
	var many strings.Builder
	for i := range 1500 {
		fmt.Fprintf(&many, "host 2001:db8::%x or ", i+1)
	}
	if _, err := bpf.Compile(many.String()+"ip", packet.LinkEthernet, 0); err == nil || !strings.Contains(err.Error(), "the kernel runs 4096") {
		t.Errorf("error %v, want one of the program's size", err)
	}
}

// TestLive checks the programs for the kernel by what they ask it for. That
// the kernel takes them and finds the right packets is tested in the package
// live.
func TestLive(t *testing.T) {
	for _, c := range []struct {
		expr string
		asks []uint32
	}{
		{"ip", nil},
		{"inbound", []uint32{0xfffff004}},
		{"vlan and ip", []uint32{0xfffff030}},
		{"vlan 7", []uint32{0xfffff030, 0xfffff02c}},
	} {
		p, err := bpf.CompileLive(c.expr, packet.LinkEthernet, 0)
		if err != nil {
			t.Errorf("%q: %v", c.expr, err)
			continue
		}
		var asks []uint32
		for _, i := range p {
			if i.K >= 0xfffff000 {
				asks = append(asks, i.K)
			}
		}
		if fmt.Sprint(asks) != fmt.Sprint(c.asks) {
			t.Errorf("%q asks for %#x, want %#x", c.expr, asks, c.asks)
		}
		if _, err := bpf.NewProgram(p); (err != nil) != (c.asks != nil) {
			t.Errorf("%q: run on a file: %v", c.expr, err)
		}
	}
	if _, err := bpf.CompileLive("ip broadcast", packet.LinkEthernet, 0); err == nil {
		t.Error("ip broadcast was compiled without a mask")
	}
}

// TestFilter checks a file of several link types.
func TestFilter(t *testing.T) {
	if _, err := bpf.NewFilter("port"); err == nil {
		t.Error("no error")
	}
	f, err := bpf.NewFilter("arp or tcp port 80 or vlan")
	if err != nil {
		t.Fatal(err)
	}
	body := ipv4("10.0.0.1", "10.0.0.2", 6, 0, 0, seg(1, 80, 2, ""))
	eth := append(append(make([]byte, 12), 8, 0), body...)
	for i, c := range []struct {
		p    packet.Packet
		want bool
		err  string
	}{
		{packet.Packet{Data: eth, Link: packet.LinkEthernet}, true, ""},
		{packet.Packet{Data: eth[:30], Length: len(eth), Link: packet.LinkEthernet}, false, ""},
		{packet.Packet{Data: body, Link: packet.LinkRaw}, false, "VLAN tags are of Ethernet"},
		{packet.Packet{Data: body, Link: packet.LinkRaw}, false, "VLAN tags are of Ethernet"},
		{packet.Packet{Data: body, Link: packet.LinkWiFi}, false, "link type 105"},
	} {
		got, err := f.Match(c.p)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%d: %v, %v", i, got, err)
		}
	}
	f, err = bpf.NewFilter("arp")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.Match(packet.Packet{Data: body, Link: packet.LinkRaw}); got || err != nil {
		t.Errorf("ARP of raw IP: %v, %v", got, err)
	}
}

// TestProgramRefused checks that no program is run that the kernel would refuse.
func TestProgramRefused(t *testing.T) {
	ret := xbpf.RawInstruction{Op: 6}
	for i, p := range [][]xbpf.RawInstruction{
		nil,
		{{Op: 0x28, K: 12}},
		{{Op: 5, K: 1}, ret},
		{{Op: 5, K: 1<<32 - 1}, ret},
		{{Op: 0x15, Jt: 1}, ret},
		{{Op: 0x15, Jf: 200}, ret},
		{{Op: 0x34}, ret},
		{{Op: 0x94}, ret},
		{{Op: 0x64, K: 32}, ret},
		{{Op: 0x02, K: 16}, ret},
		{{Op: 0x60, K: 1 << 30}, ret},
		{{Op: 0xffff}, ret},
		{{Op: 0xc4}, ret},
		{{Op: 0x30, K: 0xfffff000}, ret},
		make([]xbpf.RawInstruction, 5000),
	} {
		if _, err := bpf.NewProgram(p); err == nil {
			t.Errorf("program %d was taken", i)
		}
	}
}

// FuzzCompile checks that any text gives a program or an error that points
// into it, that the program is one that the kernel would take, and that it does
// on any packet what golang.org/x/net/bpf makes of it.
func FuzzCompile(f *testing.F) {
	for _, e := range expressions {
		f.Add(e, uint32(1), []byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x08\x00\x45\x00\x00\x28"))
	}
	f.Add("port 80 or (443 and not vlan (5)", uint32(101), []byte("\x45"))
	f.Add("src 0.0.0.0.0", uint32(1), []byte{})
	f.Add("len-1^ip[len%3]>4", uint32(276), []byte("\x60"))
	f.Fuzz(func(t *testing.T, expr string, link uint32, data []byte) {
		code, err := bpf.Compile(expr, packet.Link(link), 0)
		if err != nil {
			var e *bpf.Error
			if errors.As(err, &e) && (e.Pos < 0 || e.Pos > len(expr)) {
				t.Fatalf("position %d of %q", e.Pos, expr)
			}
			return
		}
		p, err := bpf.NewProgram(code)
		if err != nil {
			t.Fatalf("%q: %v", expr, err)
		}
		all, ok := xbpf.Disassemble(code)
		if !ok {
			t.Fatalf("%q: an instruction that nobody knows", expr)
		}
		vm, err := xbpf.NewVM(all)
		if err != nil {
			t.Fatalf("%q: %v", expr, err)
		}
		n, err := vm.Run(data)
		if err != nil {
			if strings.Contains(err.Error(), "NegateA") {
				return // which that machine does not know
			}
			t.Fatalf("%q: %v", expr, err)
		}
		if got := p.Match(data, len(data)); got != (n != 0) {
			t.Fatalf("%q: %v; another machine says %d", expr, got, n)
		}
		if _, err := bpf.CompileLive(expr, packet.Link(link), 0); err != nil && !strings.Contains(err.Error(), "packet filter") {
			t.Fatal(err)
		}
	})
}

// BenchmarkCompile compiles about the largest filter that there may be.
func BenchmarkCompile(b *testing.B) {
	var text strings.Builder
	for i := 0; text.Len() < 64<<10-50; i++ {
		fmt.Fprintf(&text, "host ::%x or ", i+1)
	}
	for b.Loop() {
		if _, err := bpf.Compile(text.String()+"ip", packet.LinkEthernet, 0); err == nil {
			b.Fatal("it fits")
		}
	}
}

// ldxLen is the instruction "ldx #len" (BPF_LDX | BPF_W | BPF_LEN).
const ldxLen = 0x81

// TestLdxLen has the length of a packet in X and not in A.
func TestLdxLen(t *testing.T) {
	ret := xbpf.RawInstruction{Op: 0x16} // ret a
	for name, c := range map[string]struct {
		code []xbpf.RawInstruction
		want bool
	}{
		"x":        {[]xbpf.RawInstruction{{Op: ldxLen}, ret}, false},
		"x into a": {[]xbpf.RawInstruction{{Op: ldxLen}, {Op: 0x87}, ret}, true}, // txa
	} {
		p, err := bpf.NewProgram(c.code)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Match([]byte("0"), 1); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}

// BenchmarkMatch runs a usual filter on a packet that passes all of it.
func BenchmarkMatch(b *testing.B) {
	code, err := bpf.Compile("tcp port 80 or 443 and not net 10.0.0.0/8", packet.LinkEthernet, 0)
	if err != nil {
		b.Fatal(err)
	}
	p, err := bpf.NewProgram(code)
	if err != nil {
		b.Fatal(err)
	}
	d := append(append(make([]byte, 12), 8, 0), ipv4("192.0.2.1", "192.0.2.2", 6, 0, 0, seg(1, 443, 2, ""))...)
	b.ReportAllocs()
	for b.Loop() {
		if !p.Match(d, len(d)) {
			b.Fatal("not accepted")
		}
	}
}

// FuzzProgram checks that programs of others, which NewProgram took, do on any
// packet what golang.org/x/net/bpf makes of them where that runs them. It takes
// "ldx #len" for "ld #len", so programs with that are left out; TestLdxLen has it.
func FuzzProgram(f *testing.F) {
	f.Add([]byte("\x00\x28\x00\x00\x00\x00\x00\x0c\x00\x15\x00\x01\x00\x00\x08\x00\x00\x06\x00\x00\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"),
		[]byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x08\x00\x45"))
	f.Fuzz(func(t *testing.T, code, data []byte) {
		var raw []xbpf.RawInstruction
		for ; len(code) >= 8; code = code[8:] {
			raw = append(raw, xbpf.RawInstruction{
				Op: uint16(code[0])<<8 | uint16(code[1]), Jt: code[2], Jf: code[3], K: binary.BigEndian.Uint32(code[4:]),
			})
		}
		p, err := bpf.NewProgram(raw)
		if err != nil || slices.ContainsFunc(raw, func(i xbpf.RawInstruction) bool { return i.Op == ldxLen }) {
			return
		}
		got := p.Match(data, len(data))
		all, ok := xbpf.Disassemble(raw)
		if !ok {
			return
		}
		vm, err := xbpf.NewVM(all)
		if err != nil {
			return // it wants more of a program than the kernel
		}
		n, err := vm.Run(data)
		if err == nil && got != (n != 0) {
			t.Fatalf("%v; another machine says %d\n%s", got, n, disassemble(raw))
		}
	})
}
