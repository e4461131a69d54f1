package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/slips-go/slips/parsers/packet"
)

// scanCapture is a capture of one host that knocks at a port of many.
func scanCapture(t *testing.T, hosts int) []byte {
	t.Helper()
	var file bytes.Buffer
	w := pcapgo.NewWriter(&file)
	must(t, w.WriteFileHeader(65536, layers.LinkTypeEthernet))
	for i := range hosts {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.IP{10, 0, 0, 5}, DstIP: net.IP{10, 0, 1, byte(i + 1)}}
		tcp := &layers.TCP{SrcPort: layers.TCPPort(40000 + i), DstPort: 445, SYN: true, Window: 1024, Seq: uint32(i)}
		must(t, tcp.SetNetworkLayerForChecksum(ip))
		eth := &layers.Ethernet{SrcMAC: net.HardwareAddr{0, 0x17, 0xf2, 0, 0, 5}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 1, byte(i + 1)}, EthernetType: layers.EthernetTypeIPv4}
		b := gopacket.NewSerializeBuffer()
		must(t, gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, eth, ip, tcp))
		at := time.Unix(1_700_000_000+int64(i), 0)
		must(t, w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(b.Bytes()), Length: len(b.Bytes())}, b.Bytes()))
	}
	return file.Bytes()
}

// A capture is read by the built-in meter, which is said; the results do not
// depend on lanes, and a capture that is cut short gives what was in it and an
// exit code that says so.
func TestPacketCapture(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	whole, cut := filepath.Join(dir, "scan.pcap"), filepath.Join(dir, "cut.pcap")
	text := scanCapture(t, 30)
	writeFile(t, whole, string(text))
	writeFile(t, cut, string(text[:len(text)-20]))
	var first string
	for i, lanes := range []string{"1", "3"} {
		out := filepath.Join(dir, "out"+lanes)
		code, said := runProgram(t, "-f", whole, "-o", out, "--lanes", lanes, "--engine", "builtin")
		if log := readFile(t, filepath.Join(out, "slips.log")); code != exitOK || !strings.Contains(log, "built-in meter") {
			t.Fatalf("exit code %d: %s\n%s", code, said, log)
		}
		got := results(t, out)
		if got.summary.Kinds["conn"] != 30 || got.evidence.types("10.0.0.5")["HORIZONTAL_PORT_SCAN"] == 0 || len(got.alerts) == 0 {
			t.Errorf("%v, %d alerts, %v", got.summary.Kinds, len(got.alerts), got.evidence.types("10.0.0.5"))
		}
		b, err := os.ReadFile(filepath.Join(out, "alerts", "evidence.jsonl"))
		must(t, err)
		if i > 0 && string(b) != first {
			t.Error("the evidence depends on the lanes")
		}
		first = string(b)
		if log := readFile(t, filepath.Join(out, "alerts", "alerts.log")); !strings.Contains(log, "MAC 00:17:f2:00:00:05 Apple") {
			t.Errorf("the vendor of the host's card is not told: %.500s", log)
		}
	}
	out := filepath.Join(dir, "outcut")
	code, said := runProgram(t, "-f", cut, "-o", out)
	if code != exitInput || !strings.Contains(said, "cut.pcap") {
		t.Errorf("exit code %d: %s", code, said)
	}
	if got := results(t, out); got.summary.Kinds["conn"] != 29 {
		t.Errorf("%v", got.summary.Kinds)
	}
}

// Packets may come through a pipe; what does not begin like a capture is read as
// a log all the same.
func TestPacketsOnStandardInput(t *testing.T) {
	t.Parallel()
	log := `{"ts":1700000000.5,"uid":"C1","id.orig_h":"10.0.0.5","id.orig_p":1025,"id.resp_h":"10.0.0.9","id.resp_p":80,"proto":"tcp","conn_state":"REJ"}` + "\n"
	for _, c := range []struct {
		name, input string
		args        []string
		code        int
		conns       int64
	}{
		{name: "capture", input: string(scanCapture(t, 30)), conns: 30},
		{name: "packed capture", input: pressed(string(scanCapture(t, 30))), conns: 30},
		{name: "log", input: log, conns: 1},
		{name: "packed log", input: pressed(log), conns: 1},
		{name: "empty"},
		{name: "zeek", input: string(scanCapture(t, 30)), args: []string{"--engine", "zeek"}, code: exitUsage},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "out")
			var text bytes.Buffer
			if code := Main(t.Context(), append([]string{"-f", "-", "-o", out, "-q"}, c.args...), nil, strings.NewReader(c.input), &text, &text); code != c.code {
				t.Fatalf("exit code %d, want %d: %s", code, c.code, text.String())
			}
			if c.conns > 0 {
				if got := results(t, out).summary.Kinds["conn"]; got != c.conns {
					t.Errorf("%d connections, want %d", got, c.conns)
				}
			}
		})
	}
}

// A capture of which nothing can be read is a problem, and says which link type
// it has; a filter that lets nothing through is told.
func TestUnreadableCapture(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w, err := packet.NewWriter(&b, 201)
	must(t, err)
	for i := range 5 {
		must(t, w.Write(packet.Packet{Time: int64(1_700_000_000+i) * 1e9, Data: []byte("nothing that we know"), Link: 201}))
	}
	must(t, w.Flush())
	dir := t.TempDir()
	odd, scan := filepath.Join(dir, "odd.pcap"), filepath.Join(dir, "scan.pcap")
	writeFile(t, odd, b.String())
	writeFile(t, scan, string(scanCapture(t, 5)))
	if code, said := runProgram(t, "-f", odd, "-o", filepath.Join(dir, "a"), "--engine", "builtin"); code != exitInput || !strings.Contains(said, "link type 201 is not understood") {
		t.Errorf("exit code %d: %s", code, said)
	}
	code, said := runProgram(t, "-f", scan, "-o", filepath.Join(dir, "b"), "--engine", "builtin", "-F", "udp")
	if log := readFile(t, filepath.Join(dir, "b", "slips.log")); code != exitOK || !strings.Contains(log, "the filter lets no packet through") {
		t.Errorf("exit code %d: %s", code, said)
	}
	var cut bytes.Buffer // what is there of each packet ends in the header of Ethernet
	w, err = packet.NewWriter(&cut, packet.LinkEthernet)
	must(t, err)
	for i := range 5 {
		must(t, w.Write(packet.Packet{Time: int64(1_700_000_000+i) * 1e9, Data: []byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00\x45\x00"), Length: 60, Link: packet.LinkEthernet}))
	}
	must(t, w.Flush())
	writeFile(t, odd, cut.String())
	if code, said := runProgram(t, "-f", odd, "-o", filepath.Join(dir, "d"), "--engine", "builtin"); code != exitInput || !strings.Contains(said, "nothing could be made of its 5 packets: ") {
		t.Errorf("packets that are cut: exit code %d: %s", code, said)
	}
	writeFile(t, odd, "")
	if code, said := runProgram(t, "-f", odd, "-o", filepath.Join(dir, "e")); code != exitInput || !strings.Contains(said, "an empty file") {
		t.Errorf("an empty file: exit code %d: %s", code, said)
	}
	writeFile(t, odd, string(captureOf(t, nil)))
	if code, _, said := runMain(t, nil, "-f", odd, "-o", filepath.Join(dir, "g"), "--engine", "builtin"); code != exitOK || !strings.Contains(said, "odd.pcap has no packets") {
		t.Errorf("no packets: exit code %d: %s", code, said)
	}
	writeFile(t, odd, string(scanCapture(t, 5))[:10])
	if code, said := runProgram(t, "-f", odd, "-o", filepath.Join(dir, "c"), "--engine", "builtin"); code != exitInput || !strings.Contains(said, "not a packet capture") {
		t.Errorf("a head that is cut short: exit code %d: %s", code, said)
	}
}
