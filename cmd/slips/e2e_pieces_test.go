//go:build unix

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/slips-go/slips/parsers/packet"
)

// captureOf is a capture of packets.
func captureOf(t *testing.T, list []packet.Packet) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := packet.NewWriter(&b, packet.LinkEthernet)
	must(t, err)
	for _, p := range list {
		must(t, w.Write(p))
	}
	must(t, w.Flush())
	return b.Bytes()
}

// talks is a capture of three connections that last 40 s each, at the same time.
func talks(t *testing.T) []packet.Packet {
	t.Helper()
	var list []packet.Packet
	for second := range 40 {
		for n := range 3 {
			client, server := net.IP{10, 0, 0, 5}, net.IP{10, 0, 1, byte(n + 1)}
			ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: client, DstIP: server}
			tcp := &layers.TCP{SrcPort: layers.TCPPort(40000 + n), DstPort: 9999, ACK: true, Window: 1024}
			var payload gopacket.Payload
			k := uint32(second / 2)
			switch second {
			case 0:
				tcp.SYN, tcp.ACK, tcp.Seq = true, false, 1000
			case 1:
				tcp.SYN, tcp.Seq, tcp.Ack = true, 2000, 1001
			case 38, 39:
				tcp.FIN, tcp.Seq, tcp.Ack = true, 1001+10*(k-1), 2001+10*(k-1)
			default:
				tcp.PSH, tcp.Seq, tcp.Ack, payload = true, 1001+10*(k-1), 2001+10*(k-1), gopacket.Payload("0123456789")
			}
			if second%2 == 1 {
				ip.SrcIP, ip.DstIP, tcp.SrcPort, tcp.DstPort = ip.DstIP, ip.SrcIP, tcp.DstPort, tcp.SrcPort
				switch second {
				case 1:
				case 39:
					tcp.Seq, tcp.Ack = tcp.Ack, tcp.Seq+1
				default:
					tcp.Seq, tcp.Ack = tcp.Ack, tcp.Seq+10
				}
			}
			must(t, tcp.SetNetworkLayerForChecksum(ip))
			eth := &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 5}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 6}, EthernetType: layers.EthernetTypeIPv4}
			b := gopacket.NewSerializeBuffer()
			must(t, gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, eth, ip, tcp, payload))
			at := (1_700_000_000+int64(second))*1e9 + int64(n)*1e6
			list = append(list, packet.Packet{Time: at, Data: bytes.Clone(b.Bytes()), Length: len(b.Bytes()), Link: packet.LinkEthernet})
		}
	}
	return list
}

// labelled are the lines of the connections that a run was told to write down,
// without their uids, which depend on the program that reads packets.
func labelled(t *testing.T, out string) (list []string) {
	t.Helper()
	for line := range strings.Lines(readFile(t, filepath.Join(out, "flows", "labeled_flows.jsonl"))) {
		v := object(line)
		if v["kind"] != "conn" {
			continue
		}
		list = append(list, fmt.Sprint(v["src"], v["dst"], v["state"], v["orig_bytes"], v["resp_bytes"], v["duration"]))
	}
	slices.Sort(list)
	return list
}

// engines are the programs that read packets here.
func engines(t *testing.T) map[string][]string {
	t.Helper()
	m := map[string][]string{"builtin": {"--engine", "builtin"}}
	if zeek := os.Getenv("SLIPS_ZEEK"); zeek != "" {
		m["zeek"] = []string{"--engine", "zeek", "--set", "zeekscripts.zeek=" + zeek}
	} else {
		t.Log("NOT TESTED: captures in several files with a real Zeek; set SLIPS_ZEEK to the program")
	}
	return m
}

// A folder of captures that one program has written one after the other is one
// capture: connections that span its files are one, whoever reads them, and
// whether the folder is named or its files are.
func TestCaptureInPieces(t *testing.T) {
	t.Parallel()
	list := talks(t)
	for engine, args := range engines(t) {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			whole, pieces := filepath.Join(dir, "whole.pcap"), filepath.Join(dir, "pieces")
			writeFile(t, whole, string(captureOf(t, list)))
			var named []string
			for i := range 4 { // the names are not in the order of time
				name := filepath.Join(pieces, fmt.Sprintf("ring_%05d_202311142213%02d.pcap", (i+2)%4+1, 20+10*i))
				text := string(captureOf(t, list[30*i:30*i+30]))
				if i == 2 {
					name, text = name+".gz", pressed(text)
				}
				writeFile(t, name, text)
				named = append([]string{name}, named...)
			}
			must(t, os.Rename(named[1], strings.TrimSuffix(named[1], ".gz"))) // the content counts
			named[1] = strings.TrimSuffix(named[1], ".gz")
			writeFile(t, filepath.Join(pieces, "README"), "Buy milk.\n")
			writeFile(t, filepath.Join(pieces, "empty.pcap"), "")
			var want []string
			for i, in := range [][]string{{whole}, {pieces}, named} {
				out := filepath.Join(dir, fmt.Sprint("out", i))
				code, said := runProgram(t, slices.Concat([]string{"-f"}, in, []string{"-o", out, "--export-flows", "jsonl"}, args)...)
				if code != exitOK {
					t.Fatalf("%v: exit code %d: %s", in, code, said)
				}
				got := results(t, out)
				if i > 0 && got.summary.Kinds["conn"] != 3 {
					t.Errorf("%v: %v", in, got.summary.Kinds)
				}
				if lines := labelled(t, out); want == nil {
					want = lines
				} else if !slices.Equal(want, lines) {
					t.Errorf("%v: %q, want %q", in, lines, want)
				}
			}
			if len(want) != 3 || !strings.Contains(want[0], "180") {
				t.Errorf("the capture as one file has %q", want)
			}
		})
	}
}

// Windows begin with the first packet, whoever reads the packets, and not with
// the first record, which here is of what came later and was over sooner.
func TestWindowsBeginWithPackets(t *testing.T) {
	t.Parallel()
	list := talks(t)
	dir := t.TempDir()
	// A question for names and its answer, 5 s behind the first packet.
	text := "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x00\x00\x01\x00\x01"
	for i, data := range []string{text, strings.Replace(text, "\x01\x00\x00\x01", "\x81\x83\x00\x01", 1)} {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IP{10, 0, 0, 5}, DstIP: net.IP{10, 0, 0, 1}}
		udp := &layers.UDP{SrcPort: 5353, DstPort: 53}
		if i > 0 {
			ip.SrcIP, ip.DstIP, udp.SrcPort, udp.DstPort = ip.DstIP, ip.SrcIP, udp.DstPort, udp.SrcPort
		}
		must(t, udp.SetNetworkLayerForChecksum(ip))
		eth := &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 5}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 6}, EthernetType: layers.EthernetTypeIPv4}
		b := gopacket.NewSerializeBuffer()
		must(t, gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, eth, ip, udp, gopacket.Payload(data)))
		p := packet.Packet{Time: list[15].Time + int64(i+1)*1e5, Data: bytes.Clone(b.Bytes()), Length: len(b.Bytes()), Link: packet.LinkEthernet}
		list = slices.Insert(list, 16+i, p)
	}
	path := filepath.Join(dir, "x.pcap")
	writeFile(t, path, string(captureOf(t, list)))
	for engine, args := range engines(t) {
		out := filepath.Join(dir, engine)
		if code, said := runProgram(t, slices.Concat([]string{"-f", path, "--set", "parameters.time_window_width=10", "-o", out, "--export-flows", "jsonl"}, args)...); code != exitOK {
			t.Fatalf("%s: exit code %d: %s", engine, code, said)
		}
		windows := map[any]any{}
		for line := range strings.Lines(readFile(t, filepath.Join(out, "flows", "labeled_flows.jsonl"))) {
			v := object(line)
			windows[v["kind"]] = v["window"]
		}
		if windows["conn"] != 1.0 || windows["dns"] != 1.0 {
			t.Errorf("%s: the windows of the records are %v, want 1", engine, windows)
		}
	}
}

// What is wrong with one of the files of a folder is told, and the others are
// read; captures of other networks are apart; folders below are looked into
// when there is nothing else.
func TestFolderOfCaptures(t *testing.T) {
	t.Parallel()
	list := talks(t)
	var turns [2][]packet.Packet
	for i, p := range list {
		turns[i%2] = append(turns[i%2], p)
	}
	half := func(i int) string { return string(captureOf(t, list[60*i:60*i+60])) }
	log := `{"ts":1700000000.5,"uid":"C1","id.orig_h":"10.0.0.5","id.orig_p":1025,"id.resp_h":"10.0.0.9","id.resp_p":80,"proto":"tcp","conn_state":"REJ"}` + "\n"
	stats := `{"ts":1700000000.0,"peer":"zeek","mem":1}` + "\n"
	for _, c := range []struct {
		name    string
		files   map[string]string
		code    int
		conns   int64
		sources []string
		says    []string
	}{
		{name: "one of them cut short", files: map[string]string{"a1.pcap": half(0)[:len(half(0))-5], "a2.pcap": half(1)}, code: exitInput, conns: 3, sources: []string{"a*.pcap"}, says: []string{"a1.pcap", "cut short"}},
		{name: "one of them no capture", files: map[string]string{"a1.pcap": half(0), "a2.pcap": half(1), "a3.pcap": "x"}, code: exitInput, conns: 3, sources: []string{"a*.pcap"}, says: []string{"a3.pcap", "not a packet capture"}},
		{name: "apart", files: map[string]string{"b.pcap": half(0), "a.pcap": half(1)}, conns: 6, sources: []string{"a.pcap", "b.pcap"}},
		{name: "tcpdump -C", files: map[string]string{"x.pcap": half(0), "x.pcap1": half(1)}, conns: 3, sources: []string{"x.pcap*"}},
		{name: "at the same time", files: map[string]string{"rx0.pcap": string(captureOf(t, turns[0])), "rx1.pcap": string(captureOf(t, turns[1]))}, conns: 3, sources: []string{"rx*.pcap"}},
		{name: "below", files: map[string]string{"mon/a1.pcap": half(0), "mon/a2.pcap": half(1), "tue/notes": "x"}, conns: 3, sources: []string{"a*.pcap"}},
		{name: "below, of two folders", files: map[string]string{"mon/a1.pcap": half(0), "tue/a2.pcap": half(1)}, conns: 6, sources: []string{"a1.pcap", "a2.pcap"}},
		{name: "with logs", files: map[string]string{"a.pcap": half(0), "conn.log": log}, code: exitUsage, says: []string{"has captures (such as a.pcap) and logs (such as conn.log)", "*.pcap"}},
		{name: "with logs that are not used", files: map[string]string{"a.pcap": half(0), "stats.log": stats}, conns: 3, sources: []string{"a.pcap"}},
		{name: "logs, with captures below", files: map[string]string{"old/a.pcap": half(0), "conn.log": log}, conns: 1, sources: []string{"dir/conn"}},
		{name: "none that is whole", files: map[string]string{"a.pcap": "nonsense"}, code: exitInput, says: []string{"no logs in this directory"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, out := filepath.Join(t.TempDir(), "dir"), filepath.Join(t.TempDir(), "out")
			for name, text := range c.files {
				writeFile(t, filepath.Join(dir, name), text)
			}
			code, said := runProgram(t, "-f", dir, "-o", out, "--engine", "builtin")
			if code != c.code {
				t.Fatalf("exit code %d, want %d: %s", code, c.code, said)
			}
			for _, says := range c.says {
				if !strings.Contains(said, says) {
					t.Errorf("it does not say %q: %s", says, said)
				}
			}
			if c.conns == 0 {
				return
			}
			got := results(t, out)
			var sources []string
			for _, s := range got.summary.Sources {
				sources = append(sources, s.Name)
			}
			if got.summary.Kinds["conn"] != c.conns || !slices.Equal(sources, c.sources) {
				t.Errorf("%v of %q, want %d of %q", got.summary.Kinds, sources, c.conns, c.sources)
			}
		})
	}
}

// A named pipe is taken as standard input is: packets go to the meter, logs are
// read as logs, also when there are several and one comes after the other.
func TestNamedPipes(t *testing.T) {
	t.Parallel()
	log := func(uid string) string {
		return `{"ts":1700000000.5,"uid":"` + uid + `","id.orig_h":"10.0.0.5","id.orig_p":1025,"id.resp_h":"10.0.0.9","id.resp_p":80,"proto":"tcp","conn_state":"REJ"}` + "\n"
	}
	long := strings.Repeat(log("C9"), 3000) // more than a pipe holds
	scan := string(scanCapture(t, 30))
	for _, c := range []struct {
		name  string
		pipes map[string]string
		args  []string
		code  int
		conns int64
		says  string
	}{
		{name: "packets", pipes: map[string]string{"p": scan}, conns: 30},
		{name: "packets, packed", pipes: map[string]string{"p": pressed(scan)}, conns: 30},
		{name: "packets, for Zeek", pipes: map[string]string{"p": scan}, args: []string{"--engine", "zeek"}, code: exitUsage, says: "from standard input or a pipe"},
		{name: "a log", pipes: map[string]string{"p": log("C1")}, conns: 1},
		{name: "a long log, packed", pipes: map[string]string{"p": pressed(long)}, conns: 3000},
		{name: "several", pipes: map[string]string{"p": scan, "q": log("C1"), "r": long}, conns: 3031},
		{name: "nothing", pipes: map[string]string{"p": ""}},
		{name: "nonsense", pipes: map[string]string{"p": strings.Repeat("Buy milk. ", 10)}, code: exitInput, says: "/p: "},
		{name: "a format that is named", pipes: map[string]string{"p": log("C1")}, args: []string{"--format", "zeek"}, conns: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
			args := []string{"-o", out, "--engine", "builtin"}
			var writing sync.WaitGroup
			for name, text := range c.pipes {
				path := filepath.Join(dir, name)
				must(t, syscall.Mkfifo(path, 0o600))
				args = append(args, "-f", path)
				writing.Go(func() {
					f, err := os.OpenFile(path, os.O_WRONLY, 0)
					if err == nil {
						_, _ = io.WriteString(f, text) // who does not want it closes the pipe
						err = f.Close()
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			code, said := runProgram(t, append(args, c.args...)...)
			writing.Wait()
			if code != c.code || !strings.Contains(said, c.says) {
				t.Fatalf("exit code %d, want %d and %q: %s", code, c.code, c.says, said)
			}
			if strings.Contains(said, "slips-pipes-") {
				t.Errorf("it names a path that nobody knows: %s", said)
			}
			if c.code != exitOK {
				return
			}
			if got := results(t, out); got.summary.Kinds["conn"] != c.conns {
				t.Errorf("%v, want %d connections", got.summary.Kinds, c.conns)
			} else if len(got.summary.Sources) != len(c.pipes) || got.summary.Sources[0].Name != "p" {
				t.Errorf("sources: %+v", got.summary.Sources)
			}
		})
	}
}

// A pipe into which nobody writes does not keep the program from ending.
func TestSilentPipe(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "p")
	must(t, syscall.Mkfifo(path, 0o600))
	p := launch(t, filepath.Join(t.TempDir(), "out"), "-f", path)
	var silent *os.File
	wait(t, "the pipe to be opened", func() bool {
		var err error
		silent, err = os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0) // fails as long as nobody reads
		return err == nil
	})
	defer func() { must(t, silent.Close()) }()
	if code := p.end(t, syscall.SIGTERM); code != exitInterrupted {
		t.Errorf("exit code %d: %s", code, p.text.String())
	}
}
