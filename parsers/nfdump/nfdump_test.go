package nfdump

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/parsers/flow"
)

const (
	header16 = "ts,te,td,sa,da,sp,dp,pr,flg,fwd,stos,ipkt,ibyt,opkt,obyt,in,out,sas,das,smk,dmk,dtos,dir,nh,nhb,svln,dvln," +
		"ismc,odmc,idmc,osmc,mpls1,mpls2,mpls3,mpls4,mpls5,mpls6,mpls7,mpls8,mpls9,mpls10,cl,sl,al,ra,eng,exid,tr"
	tail16 = ",0,0,0,0,0,0,0,0,0.0.0.0,0.0.0.0,0,20,00:00:5e:00:53:01,00:00:00:00:00:00,00:00:5e:00:53:02,00:00:00:00:00:00," +
		"0-0-0,0-0-0,0-0-0,0-0-0,0-0-0,0-0-0,0-0-0,0-0-0,0-0-0,0-0-0,    0.000,    0.000,    0.000,192.0.2.1,0/58,1,1970-01-01 00:00:00.000"
	line16   = "2024-03-01 12:00:00,2024-03-01 12:00:02,1.500,10.1.1.1,192.0.2.9,40000,443,TCP,...AP.SF,0,0,12,1216,12,2349" + tail16
	header17 = "firstSeen,duration,proto,srcAddr,srcPort,dstAddr,dstPort,packets,bytes,flows"
	longLine = "2024-03-01 12:00:00.125     00:00:01.500 TCP           10.1.1.1:40000 ->        192.0.2.9:443   ...AP.SF   0       12     1216     1"
)

// brief writes what the cases look at: everything but the UID.
func brief(f *flow.Flow) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s %s", f.Kind, time.Unix(0, f.Time).UTC().Format("2006-01-02T15:04:05.999999999"), time.Duration(f.Duration), f.Proto)
	fmt.Fprintf(&b, " %s", f.Src)
	if f.HasPorts {
		fmt.Fprintf(&b, " %d", f.SrcPort)
	}
	fmt.Fprintf(&b, " > %s", f.Dst)
	if f.HasPorts {
		fmt.Fprintf(&b, " %d", f.DstPort)
	}
	fmt.Fprintf(&b, " %q %s", f.RawState, f.State)
	fmt.Fprintf(&b, " pkts %d/%d bytes %d/%d", f.OrigPkts, f.RespPkts, f.OrigBytes, f.RespBytes)
	if f.OrigIPBytes != f.OrigBytes || f.RespIPBytes != f.RespBytes {
		fmt.Fprintf(&b, " ip bytes %d/%d", f.OrigIPBytes, f.RespIPBytes)
	}
	for _, s := range []struct{ k, v string }{{"label", f.Label}, {"smac", f.SrcMAC}, {"dmac", f.DstMAC}} {
		if s.v != "" {
			fmt.Fprintf(&b, " %s=%s", s.k, s.v)
		}
	}
	if f.VLAN != 0 {
		fmt.Fprintf(&b, " vlan=%d", f.VLAN)
	}
	return b.String()
}

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		want  string
	}{
		{
			"csv of 1.6",
			[]string{header16, line16},
			`conn 2024-03-01T12:00:00 1.5s tcp 10.1.1.1 40000 > 192.0.2.9 443 "...AP.SF" Established pkts 12/12 bytes 1216/2349 smac=00:00:5e:00:53:01 dmac=00:00:5e:00:53:02 vlan=20`,
		},
		{
			"csv of 1.6 without header (-q)",
			[]string{line16 + "\r\n"},
			`conn 2024-03-01T12:00:00 1.5s tcp 10.1.1.1 40000 > 192.0.2.9 443 "...AP.SF" Established pkts 12/12 bytes 1216/2349 smac=00:00:5e:00:53:01 dmac=00:00:5e:00:53:02 vlan=20`,
		},
		{
			"csv of 1.7.3, no flags",
			[]string{header17, "2024-03-01 12:00:00.125,1.500,6,10.1.1.1,40000,192.0.2.9,443,12,1216,1"},
			`conn 2024-03-01T12:00:00.125 1.5s tcp 10.1.1.1 40000 > 192.0.2.9 443 "" Established pkts 12/0 bytes 1216/0`,
		},
		{
			"csv-fast, times in ms",
			[]string{
				"cnt,af,firstSeen,lastSeen,proto,srcAddr,srcPort,dstAddr,dstPort,srcAS,dstAS,input,output,flags,srcTos,packets,bytes",
				"1,2,1709294400125,1709294401625,6,10.1.1.1,40000,192.0.2.9,443,0,0,0,0,......S.,0,1,60",
			},
			`conn 2024-03-01T12:00:00.125 1.5s tcp 10.1.1.1 40000 > 192.0.2.9 443 "......S." Not Established pkts 1/0 bytes 60/0`,
		},
		{
			"csv with own columns: raw seconds, label",
			[]string{"firstSeen,proto,srcAddr,dstAddr,srcPort,dstPort,label", "1709294400.125,17,2001:db8::1,2001:db8::2,5000,5001,bad"},
			`conn 2024-03-01T12:00:00.125 0s udp 2001:db8::1 5000 > 2001:db8::2 5001 "" Not Established pkts 0/0 bytes 0/0 label=bad`,
		},
		{
			"icmp in csv: type and code in one number",
			[]string{strings.NewReplacer("40000,443,TCP", "0,2048,ICMP", "...AP.SF", "........", "12,1216,12,2349", "1,28,0,0").Replace(line16)},
			`conn 2024-03-01T12:00:00 1.5s icmp 10.1.1.1 8 > 192.0.2.9 0 "........" ICMP Echo pkts 1/0 bytes 28/0 smac=00:00:5e:00:53:01 dmac=00:00:5e:00:53:02 vlan=20`,
		},
		{
			"icmp in csv of 1.7.3",
			[]string{header17, "2024-03-01 12:00:00.125,0.000,1,10.1.1.1,0,192.0.2.9,3.3,1,60,1"},
			`conn 2024-03-01T12:00:00.125 0s icmp 10.1.1.1 3 > 192.0.2.9 3 "" ICMP Port Unreachable pkts 1/0 bytes 60/0`,
		},
		{
			"long",
			[]string{longLine},
			`conn 2024-03-01T12:00:00.125 1.5s tcp 10.1.1.1 40000 > 192.0.2.9 443 "...AP.SF" Established pkts 12/0 bytes 1216/0`,
		},
		{
			"line, 1.6: duration in seconds",
			[]string{"2024-03-01 12:00:00.125     1.500 UDP           10.1.1.1:40000 ->        192.0.2.9:5353         2      160     1"},
			`conn 2024-03-01T12:00:00.125 1.5s udp 10.1.1.1 40000 > 192.0.2.9 5353 "" Not Established pkts 2/0 bytes 160/0`,
		},
		{
			"extended, units",
			[]string{"2024-03-01 12:00:00.125     00:10:00.000 TCP           10.1.1.1:40000 ->        192.0.2.9:443   .AP.SF   0    1.2 M    1.5 G     2000   20.0 M   1250     1"},
			`conn 2024-03-01T12:00:00.125 10m0s tcp 10.1.1.1 40000 > 192.0.2.9 443 ".AP.SF" Established pkts 1200000/0 bytes 1500000000/0`,
		},
		{
			"longer than a day",
			[]string{strings.Replace(longLine, "    00:00:01.500", " 2d 03:04:05.006", 1)},
			`conn 2024-03-01T12:00:00.125 51h4m5.006s tcp 10.1.1.1 40000 > 192.0.2.9 443 "...AP.SF" Established pkts 12/0 bytes 1216/0`,
		},
		{
			"biline: out is the answer",
			[]string{"2024-03-01 12:00:00.125     00:00:01.500 TCP           10.1.1.1:40000 <->       192.0.2.9:443         10       12     2349     1216     2"},
			`conn 2024-03-01T12:00:00.125 1.5s tcp 10.1.1.1 40000 > 192.0.2.9 443 "" Established pkts 12/10 bytes 1216/2349`,
		},
		{
			"bilong",
			[]string{"2024-03-01 12:00:00.125     00:00:01.500 TCP           10.1.1.1:40000 <->       192.0.2.9:443   ......S.   0        1        1       40       60     2"},
			`conn 2024-03-01T12:00:00.125 1.5s tcp 10.1.1.1 40000 > 192.0.2.9 443 "......S." Not Established pkts 1/1 bytes 60/40`,
		},
		{
			"TABs",
			[]string{strings.Join(strings.Fields(longLine), "\t")},
			`conn 2024-03-01T12:00:00.125 1.5s tcp 10.1.1.1 40000 > 192.0.2.9 443 "...AP.SF" Established pkts 12/0 bytes 1216/0`,
		},
		{
			"IPv6",
			[]string{"2024-03-01 12:00:00.125     00:00:01.500 UDP        2001:db8::1.40000 ->      2001:db8::2.5353   ........   0        2      160     1"},
			`conn 2024-03-01T12:00:00.125 1.5s udp 2001:db8::1 40000 > 2001:db8::2 5353 "........" Not Established pkts 2/0 bytes 160/0`,
		},
		{
			"IPv6 in an IPv4 coat",
			[]string{"2024-03-01 12:00:00.125     00:00:01.500 UDP        ::ffff:10.1.1.1.40000 ->      ::ffff:10.1.1.2.5353   ........   0        2      160     1"},
			`conn 2024-03-01T12:00:00.125 1.5s udp ::ffff:10.1.1.1 40000 > ::ffff:10.1.1.2 5353 "........" Not Established pkts 2/0 bytes 160/0`,
		},
		{
			"icmp in text",
			[]string{"2024-03-01 12:00:00.125     00:00:00.000 ICMP          10.1.1.1:0     ->        192.0.2.9:8.0   ........   0        1       28     1"},
			`conn 2024-03-01T12:00:00.125 0s icmp 10.1.1.1 8 > 192.0.2.9 0 "........" ICMP Echo pkts 1/0 bytes 28/0`,
		},
		{
			"icmp6 in text",
			[]string{"2024-03-01 12:00:00.125     00:00:00.000 ICMP6       fe80::dead.0     ->       fe80::beef.3.0   ........   0        1      100     1"},
			`conn 2024-03-01T12:00:00.125 0s ipv6-icmp fe80::dead 3 > fe80::beef 0 "........" Not Established pkts 1/0 bytes 100/0`,
		},
		{
			"an address without a port",
			[]string{strings.Replace(longLine, "192.0.2.9:443", "192.0.2.9", 1)},
			`conn 2024-03-01T12:00:00.125 1.5s tcp 10.1.1.1 > 192.0.2.9 "...AP.SF" Established pkts 12/0 bytes 1216/0`,
		},
		{
			"refused, in a format without flags",
			[]string{"2024-03-01 12:00:00.125     00:00:00.000 TCP           10.1.1.1:40000 <->       192.0.2.9:902          1        1       40       60     2"},
			`conn 2024-03-01T12:00:00.125 0s tcp 10.1.1.1 40000 > 192.0.2.9 902 "" Not Established pkts 1/1 bytes 60/40`,
		},
		{
			"igmp has no ports",
			[]string{"2024-03-01 12:00:00.125     4.781 IGMP          10.1.1.1:0     ->      224.0.0.252:0     ......   0        4      128     1"},
			`conn 2024-03-01T12:00:00.125 4.781s igmp 10.1.1.1 > 224.0.0.252 "......" Established pkts 4/0 bytes 128/0`,
		},
		{
			"refused: the lower port with RST and ACK answers",
			[]string{"2024-03-01 12:00:00.125     00:00:00.000 TCP          192.0.2.9:8443  ->         10.1.1.1:40000 ...A.R..   0        1       40     1"},
			`conn 2024-03-01T12:00:00.125 0s tcp 10.1.1.1 40000 > 192.0.2.9 8443 "...A.R.." Not Established pkts 0/1 bytes 0/40`,
		},
		{
			"a client that resets began nevertheless",
			[]string{"2024-03-01 12:00:00.125     00:00:00.000 TCP           10.1.1.1:40000 ->        192.0.2.9:8443  ...A.R..   0        1       40     1"},
			`conn 2024-03-01T12:00:00.125 0s tcp 10.1.1.1 40000 > 192.0.2.9 8443 "...A.R.." Not Established pkts 1/0 bytes 40/0`,
		},
		{
			"a lone SYN with ACK answers, whatever the ports",
			[]string{"2024-03-01 12:00:00.125     00:00:00.000 TCP           10.1.1.1:40000 ->        192.0.2.9:2000  ...A..S.   0        1       40     1"},
			`conn 2024-03-01T12:00:00.125 0s tcp 192.0.2.9 2000 > 10.1.1.1 40000 "...A..S." Not Established pkts 0/1 bytes 0/40`,
		},
		{
			"a scan from a low port is no answer",
			[]string{"2024-03-01 12:00:00.125     00:00:00.000 TCP           10.1.1.1:53    ->        192.0.2.9:8443  ......S.   0        1       40     1"},
			`conn 2024-03-01T12:00:00.125 0s tcp 10.1.1.1 53 > 192.0.2.9 8443 "......S." Not Established pkts 1/0 bytes 40/0`,
		},
		{
			"a name server answers",
			[]string{"2024-03-01 12:00:00.125     00:00:00.000 UDP          192.0.2.9:53    ->         10.1.1.1:40000 ........   0        1      126     1"},
			`conn 2024-03-01T12:00:00.125 0s udp 10.1.1.1 40000 > 192.0.2.9 53 "........" Established pkts 0/1 bytes 0/126`,
		},
		{
			"nfdump -b put the server first",
			[]string{"2024-03-01 12:00:00.125     00:00:06.887 TCP          192.0.2.9:21    <->         10.1.1.1:24000 ...AP.SF   0        9       10      604     1676     2"},
			`conn 2024-03-01T12:00:00.125 6.887s tcp 10.1.1.1 24000 > 192.0.2.9 21 "...AP.SF" Established pkts 9/10 bytes 604/1676`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, f := New(), new(flow.Flow)
			var err error
			for _, l := range c.lines {
				err = d.Decode(f, []byte(l))
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, brief(f)); diff != "" {
				t.Error(diff)
			}
			if f.Sensor != flow.Nfdump || len(f.UID) != 17 || f.UID[0] != 'N' {
				t.Errorf("sensor %v, uid %q", f.Sensor, f.UID)
			}
		})
	}
}

func TestDecodeFailure(t *testing.T) {
	csv := func(old, new string) []string { return []string{header16, strings.Replace(line16, old, new, 1)} }
	text := func(old, new string) []string { return []string{strings.Replace(longLine, old, new, 1)} }
	for _, c := range []struct {
		name  string
		lines []string
		want  error
		field string
	}{
		{"csv header", []string{header16}, flow.ErrHeader, ""},
		{"csv header of 1.7.3", []string{header17}, flow.ErrHeader, ""},
		{"text header", []string{"Date first seen             Duration     Proto      Src IP Addr:Port          Dst IP Addr:Port   Packets    Bytes Flows"}, flow.ErrHeader, ""},
		{"text header with TABs", []string{"Date flow start\tDuration\tProto\tSrc\tIP\tAddr:Port"}, flow.ErrHeader, ""},
		{"empty", []string{""}, flow.ErrHeader, ""},
		{"summary", []string{"Summary: total flows: 12, total bytes: 3456, total packets: 78, avg bps: 58357, avg pps: 140, avg bpp: 51"}, flow.ErrHeader, ""},
		{"window", []string{"Time window: 2024-03-01 12:00:00 - 2024-03-01 12:00:33"}, flow.ErrHeader, ""},
		{"processed", []string{"Total flows processed: 12, passed: 12, Blocks skipped: 0, Bytes read: 1234"}, flow.ErrHeader, ""},
		{"sys", []string{"Sys: 0.0115s User: 0.0075s Wall: 0.0179s flows/second: 256349.9 Runtime: 0.0179s"}, flow.ErrHeader, ""},
		{"none", []string{"No matching flows"}, flow.ErrHeader, ""},
		{"csv summary", []string{header16, "Summary"}, flow.ErrHeader, ""},
		{"csv summary's header", []string{header16, "flows,bytes,packets,avg_bps,avg_pps,avg_bpp"}, flow.ErrHeader, ""},
		{"csv summary's numbers", []string{header16, "12,3456,78,900,1,44"}, flow.ErrHeader, ""},
		{"aggregate by source", []string{header16, strings.NewReplacer("192.0.2.9,40000,443,TCP", "0.0.0.0,0,0,0").Replace(line16)}, flow.ErrIgnored, ""},
		{"header of a statistic", []string{"ts,te,td,pr,val,fl,flP,ipkt,ipktP,ibyt,ibytP,ipps,ibps,ibpp"}, flow.ErrBadHeader, "sa"},
		{"statistic", []string{"ts,te,td,pr,val,fl,flP,ipkt,ipktP,ibyt,ibytP,ipps,ibps,ibpp", "2024-03-01 12:00:00,2024-03-01 12:00:01,1.0,any,10.1.1.1,1,1.0,1,1.0,1,1.0,1,1,1"}, flow.ErrNoHeader, ""},
		{"column twice", []string{"ts,firstSeen,sa,da,pr"}, flow.ErrBadHeader, "ts"},
		{"endless header", []string{header16 + strings.Repeat(",x", 300)}, flow.ErrBadHeader, ""},
		{"cut csv", []string{header16, line16[:120]}, flow.ErrColumns, ""},
		{"cut csv without header", []string{line16[:60]}, flow.ErrColumns, ""},
		{"extra column", []string{header16, line16 + ",1"}, flow.ErrColumns, ""},
		{"csv: time", csv("2024-03-01 12:00:00", "2024-02-30 12:00:00"), flow.ErrTime, "ts"},
		{"csv: no time", csv("2024-03-01 12:00:00", ""), flow.ErrMissing, "ts"},
		{"csv: unknown time", csv("2024-03-01 12:00:00", "0000-00-00 00:00:00.000"), flow.ErrTime, "ts"},
		{"csv: address", csv("10.1.1.1", "10.1.1"), flow.ErrAddress, "sa"},
		{"csv: zone", csv("10.1.1.1", "fe80::1%2"), flow.ErrAddress, "sa"},
		{"csv: no address", csv("192.0.2.9", ""), flow.ErrMissing, "da"},
		{"csv: port", csv(",443,", ",65536,"), flow.ErrPort, "dp"},
		{"csv: dotted port of TCP", csv(",443,", ",8.0,"), flow.ErrPort, "dp"},
		{"csv: no protocol", csv("TCP", ""), flow.ErrMissing, "pr"},
		{"csv: packets", csv(",12,1216,", ",-12,1216,"), flow.ErrNumber, "ipkt"},
		{"csv: bytes", csv(",1216,", ",99999999999999999999,"), flow.ErrNumber, "ibyt"},
		{"csv: duration", csv("1.500", "1.5s"), flow.ErrNumber, "td"},
		{"csv: vlan", csv(",20,", ",trunk,"), flow.ErrNumber, "dvln"},
		{"text: shortened IPv6", []string{"2024-03-01 12:00:00.125     00:00:01.500 TCP   2001:db..00:1234.24000 -> 2001:db8::21.21    ...APRSF   0        9      604     1"}, flow.ErrAddress, "sa"},
		{"text: no arrow", text("->", "to"), flow.ErrNotRecord, ""},
		{"text: cut", []string{longLine[:len(longLine)-10]}, flow.ErrColumns, ""},
		{"text: cut behind the flags", []string{longLine[:strings.Index(longLine, "SF")+2]}, flow.ErrTruncated, ""},
		{"text: too many counts", []string{longLine + " 1 1 1 1 1 1 1"}, flow.ErrColumns, ""},
		{"text: time", text("12:00:00.125", "25:00:00.125"), flow.ErrTime, "ts"},
		{"text: seconds", text("12:00:00.125", "12:00:60.000"), flow.ErrTime, "ts"},
		{"text: duration", text("00:00:01.500", "00:00:0x"), flow.ErrNumber, "td"},
		{"text: endless days", text("00:00:01.500", "99999999d 00:00:01.500"), flow.ErrNumber, "td"},
		{"text: unit", text("1216", "1.x M"), flow.ErrNumber, "ibyt"},
		{"text: huge", text("1216", "99999999 T"), flow.ErrNumber, "ibyt"},
		{"json", []string{`{"type":"FLOW"}`}, flow.ErrNotRecord, ""},
		{"raw", []string{"  src addr     =     192.0.2.1"}, flow.ErrNotRecord, ""},
		{"pipe", []string{"2|1709294400125|1709294400125|6|0|0|0|3221225985|52324|0|0|0|3221225986|902|2852|2852|0|0|2|0|1|60"}, flow.ErrNotRecord, ""},
		{"NULs", []string{strings.Repeat("\x00", 40)}, flow.ErrNotRecord, ""},
		{"binary", []string{"\x0c\xa5\x01\x00\x00\x02"}, flow.ErrNotRecord, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, f := New(), new(flow.Flow)
			last := len(c.lines) - 1
			for _, l := range c.lines[:last] {
				_ = d.Decode(f, []byte(l))
			}
			for range 2 { // a failure must not change what comes next
				err := d.Decode(f, []byte(c.lines[last]))
				if !errors.Is(err, c.want) {
					t.Fatalf("got %v, want %v", err, c.want)
				}
				var syntax *flow.SyntaxError
				if errors.As(err, &syntax) {
					if syntax.Field != c.field || len(syntax.Value) > 64 {
						t.Errorf("field %q, want %q; value %q", syntax.Field, c.field, syntax.Value)
					}
				} else if c.want != flow.ErrHeader && c.want != flow.ErrIgnored {
					t.Errorf("%T is no *flow.SyntaxError", err)
				}
			}
		})
	}
}

func TestTCPState(t *testing.T) {
	for _, c := range []struct {
		flags string
		pkts  int64
		want  flow.State
	}{
		{"......S.", 1, flow.NotEstablished},
		{"......S.", 9, flow.NotEstablished},
		{".....RS.", 2, flow.NotEstablished},
		{"...A..S.", 1, flow.NotEstablished},
		{"...A..S.", 2, flow.Established},
		{"...A.RS.", 3, flow.Established},
		{"...AP.SF", 9, flow.Established},
		{"...A...F", 1, flow.Established},
		{"...AP...", 1, flow.Established},
		{".AP.SF", 9, flow.Established},
		{"...A....", 1, flow.NotEstablished},
		{"...A....", 4, flow.Established},
		{"...A.R..", 9, flow.NotEstablished},
		{"..U.P..F", 1, flow.NotEstablished},
		{"0x1b", 9, flow.Established},
		{"0xc2", 9, flow.NotEstablished},
		{"0xzz", 9, flow.NotEstablished},
	} {
		if got := tcpState(parseFlags(c.flags), c.pkts); got != c.want {
			t.Errorf("%q with %d packets: %v, want %v", c.flags, c.pkts, got, c.want)
		}
	}
}

func TestICMPState(t *testing.T) {
	for _, c := range []struct {
		p         flow.Proto
		typ, code uint16
		want      flow.State
	}{
		{flow.ICMP, 8, 0, flow.ICMPEcho},
		{flow.ICMP, 0, 0, flow.ICMPReply},
		{flow.ICMP, 3, 1, flow.ICMPHostUnreachable},
		{flow.ICMP, 3, 3, flow.ICMPPortUnreachable},
		{flow.ICMP, 3, 13, flow.NotEstablished},
		{flow.ICMP, 128, 0, flow.NotEstablished},
		{flow.ICMP6, 128, 0, flow.ICMPEcho},
		{flow.ICMP6, 129, 0, flow.ICMPReply},
		{flow.ICMP6, 1, 3, flow.ICMPHostUnreachable},
		{flow.ICMP6, 1, 4, flow.ICMPPortUnreachable},
		{flow.ICMP6, 8, 0, flow.NotEstablished},
		{flow.ICMP6, 135, 0, flow.NotEstablished},
	} {
		if got := icmpState(c.p, c.typ, c.code); got != c.want {
			t.Errorf("%v %d %d: %v, want %v", c.p, c.typ, c.code, got, c.want)
		}
	}
}

func TestCount(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "1216": 1216, "1.2 M": 1200000, "1.2M": 1200000, "12 M": 12000000, "10.5 G": 10500000000, "2.0 T": 2000000000000, "1.5 K": 1500,
		"1.0000001 M": 1000000,
	} {
		if got, ok := parseCount([]byte(s)); !ok || got != want {
			t.Errorf("%q: %d %v, want %d", s, got, ok, want)
		}
	}
	for _, s := range []string{"", "M", " M", "1. M", ".5 M", "-1", "1.5", "1e3", "9999999 T", "1 X", "1.a M"} {
		if got, ok := parseCount([]byte(s)); ok {
			t.Errorf("%q is taken for %d", s, got)
		}
	}
}

func TestTime(t *testing.T) {
	const at = 1709294400 * int64(1e9) // 2024-03-01T12:00:00Z
	for s, want := range map[string]int64{
		"2024-03-01 12:00:00": at, "2024-03-01 12:00:00.123": at + 123e6, "2024-03-01\t12:00:00.123": at + 123e6, "2024-03-01T12:00:00.123456": at + 123456e3,
		"1709294400": at, "1709294400.123": at + 123e6, "1709294400123": at + 123e6, "0": 0, "1970-01-01 00:00:00": 0,
	} {
		if got, ok := parseTime([]byte(s)); !ok || got != want {
			t.Errorf("%q: %d %v, want %d", s, got, ok, want)
		}
	}
	for _, s := range []string{
		"", "x", "-1", "2024-03-01", "2024-03-01 12:00", "2024-03-01 12:00:0", "2024/03/01 12:00:00", "2024-03-00 12:00:00", "2023-02-29 12:00:00", "2024-03-01 24:00:00",
		"2024-03-01 12:00:60", "2024-03-01 12:00:100", "2024-03-01 12:00:00.", "2024-03-01 12:00:00x", "1969-12-31 23:59:59", "2101-01-01 00:00:00", "99999999999999999",
	} {
		if got, ok := parseTime([]byte(s)); ok {
			t.Errorf("%q is taken for %d", s, got)
		}
	}
	// Every day up to the limit agrees with package time.
	for day := time.Unix(0, 0).UTC(); day.Unix() < flow.MaxTime/1e9; day = day.AddDate(0, 0, 1) {
		if got, ok := parseTime([]byte(day.Format("2006-01-02 15:04:05"))); !ok || got != day.UnixNano() {
			t.Fatalf("%v: %d %v", day, got, ok)
		}
	}
}

func TestIsHeader(t *testing.T) {
	d := New()
	for s, want := range map[string]bool{
		header16: true, header17 + "\r\n": true, "Date first seen     Duration": true, "Date flow start\tDuration": true,
		line16: false, longLine: false, "": false, "Summary": false, "flows,bytes,packets,avg_bps": false, "StartTime,Dur,Proto,SrcAddr": false,
	} {
		if got := d.IsHeader([]byte(s)); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestSniff(t *testing.T) {
	for s, want := range map[string]bool{
		header16 + "\n" + line16: true, header16[:40]: true, line16: true, longLine + "\n": true, longLine + "\n" + longLine[:20]: true,
		"Date flow start\tDuration\n": true, "\n\n" + header17: true, "Summary\n" + line16: true,
		"": false, "\x0c\xa5\x01\x00" + longLine: false, "No matching flows\n": false, `{"a":1}`: false,
		"StartTime,Dur,Proto,SrcAddr,Sport,Dir,DstAddr,Dport,State\n": false, "2024-03-01 12:00:00 something happened\n": false,
		"2024/03/01 12:00:00.5,1,tcp,10.1.1.1,1,->,192.0.2.9,2,S_RA,0,0,2,120,60,1,\n": false,
		"ts,te,td,pr,val,fl,flP,ipkt,ipktP\n2024-03-01 12:00:00,x\n":                   false,
	} {
		if got := Sniff([]byte(s)); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestIsBinary(t *testing.T) {
	for s, want := range map[string]bool{
		"\x0c\xa5\x01\x00\x00\x00": true, "\x0c\xa5\x02\x00": true, "\xa5\x0c\x00\x01": true,
		"": false, "\x0c\xa5": false, "\x0c\xa5\x00\x00": false, "\x0c\xa5ab": false, "\xa5\x0c\x01\x00": false, longLine: false,
	} {
		if got := IsBinary([]byte(s)); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

// Both halves of a connection carry the same UID when they start together.
func TestUIDOfHalves(t *testing.T) {
	var there, back flow.Flow
	if err := errors.Join(
		New().Decode(&there, []byte("2024-03-01 12:00:00.125 0.0 TCP 10.1.1.1:40000 -> 192.0.2.9:902 ......S. 0 1 60 1")),
		New().Decode(&back, []byte("2024-03-01 12:00:00.125 0.0 TCP 192.0.2.9:902 -> 10.1.1.1:40000 ...A.R.. 0 1 40 1")),
	); err != nil {
		t.Fatal(err)
	}
	if there.UID != back.UID {
		t.Errorf("%q and %q", there.UID, back.UID)
	}
}

// datasets is where the real traffic lies; the test is skipped without it.
func datasets(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("SLIPS_DATASETS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "datasets")
	}
	if _, err := os.Stat(filepath.Join(dir, "nfdump")); err != nil {
		t.Skipf("NO REAL TRAFFIC: set SLIPS_DATASETS or put it at ../shared/datasets of the repository: %v", err)
	}
	return filepath.Join(dir, "nfdump")
}

// tally decodes data and counts what comes out.
func tally(t *testing.T, data []byte) string {
	t.Helper()
	if !Sniff(data[:min(len(data), 1<<16)]) {
		t.Error("not recognised")
	}
	var (
		d                         = New()
		f                         flow.Flow
		states                    [8]int
		records, turned, rejected int
		ignored, pkts, bytesSum   int64
	)
	for line := range bytes.Lines(data) {
		switch err := d.Decode(&f, line); {
		case err == nil:
			records++
			states[f.State]++
			pkts += f.OrigPkts + f.RespPkts
			bytesSum += f.OrigBytes + f.RespBytes
			if f.OrigPkts == 0 {
				turned++
			}
		case err == flow.ErrIgnored:
			ignored++
		case err != flow.ErrHeader:
			rejected++
			t.Log(err)
		}
	}
	var got strings.Builder
	fmt.Fprintf(&got, "records %d, packets %d, bytes %d, answers %d, ignored %d, rejected %d;", records, pkts, bytesSum, turned, ignored, rejected)
	for s := flow.Established; s <= flow.ICMPPortUnreachable; s++ {
		if states[s] > 0 {
			fmt.Fprintf(&got, " %s %d,", s, states[s])
		}
	}
	return strings.TrimSuffix(got.String(), ",")
}

func TestDatasetsText(t *testing.T) {
	dir := datasets(t)
	for _, c := range []struct{ file, want string }{
		{"nfcapd.sample1", "records 35, packets 155, bytes 40267, answers 6, ignored 0, rejected 0; Established 27, Not Established 8"},
		{"nfcapd.sample2", "records 167, packets 2032, bytes 512792, answers 3, ignored 0, rejected 0; Established 167"},
	} {
		t.Run(c.file, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(dir, c.file))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, tally(t, data)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What nfdump itself prints of one file, in every format: its own closing
// line says 4593 flows, 241025 bytes and 4652 packets.
func TestDatasetsNfdump(t *testing.T) {
	file := filepath.Join(datasets(t), "test1-malicious.nfdump")
	head, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !IsBinary(head) || Sniff(head) {
		t.Error("not seen to be binary")
	}
	nfdump, err := exec.LookPath("nfdump")
	if err != nil {
		t.Skipf("NO NFDUMP, its formats are not tried (apt-get install nfdump): %v", err)
	}
	const (
		halves = "records 4593, packets 4652, bytes 241025, answers 2276, ignored 0, rejected 0; Established 14, Not Established 4579"
		whole  = "records 2398, packets 4652, bytes 241025, answers 81, ignored 0, rejected 0; Established 12, Not Established 2386"
	)
	for _, c := range []struct {
		name, want string
		args       []string
	}{
		{"csv", halves, []string{"-o", "csv"}},
		{"csv, plain and quiet", halves, []string{"-q", "-N", "-o", "csv"}},
		{"csv of both directions", whole, []string{"-b", "-N", "-o", "csv"}},
		{"line", "records 4593, packets 4652, bytes 241025, answers 2276, ignored 0, rejected 0; Established 13, Not Established 4580", []string{"-o", "line"}},
		{"long", halves, []string{"-o", "long"}},
		{"long, plain", halves, []string{"-N", "-o", "long"}},
		{"long, wide", halves, []string{"-6", "-o", "long"}},
		{"extended", halves, []string{"-o", "extended"}},
		{"bilong of both directions", whole, []string{"-b", "-o", "bilong"}},
		{"biline of both directions", whole, []string{"-b", "-o", "biline"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command(nfdump, append([]string{"-r", file}, c.args...)...)
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, tally(t, out)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		header16 + "\n" + line16, header17 + "\n2024-03-01 12:00:00.125,1.500,6,10.1.1.1,40000,192.0.2.9,443,12,1216,1", longLine,
		"2024-03-01 12:00:00.125     1d 00:00:01.500 UDP        ::ffff:10.1.1.1.40000 ->      ::ffff:10.1.1.2.5353   ........   0        2      1.6 M     1",
		"2024-03-01 12:00:00.125 0.0 ICMP6 fe80::1.0 <-> fe80::2.3.0 1 2 3 4 5", "Summary\nflows,bytes,packets\n1,2,3,4,5,6", "1709294400125 x",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		Sniff(data)
		d, used := New(), new(flow.Flow)
		for line := range bytes.Lines(data) {
			before := bytes.Clone(line)
			header := d.IsHeader(line)
			err := d.Decode(used, line)
			if !bytes.Equal(before, line) {
				t.Fatal("the line was written to")
			}
			var syntax *flow.SyntaxError
			switch {
			case err == nil:
				if header {
					t.Fatal("a header is a record")
				}
				if used.Time < flow.MinTime || used.Time > flow.MaxTime || used.Duration < 0 || !used.Src.IsValid() || !used.Dst.IsValid() ||
					used.OrigPkts < 0 || used.RespPkts < 0 || used.OrigBytes < 0 || used.RespBytes < 0 || used.State == flow.StateUnknown {
					t.Fatal(brief(used))
				}
			case errors.As(err, &syntax):
				if flow.Reason(err) == "other" || len(syntax.Value) > 64 {
					t.Fatalf("%v", err)
				}
				_ = err.Error()
			case err != flow.ErrHeader && err != flow.ErrIgnored:
				t.Fatalf("%T: %v", err, err)
			}
		}
	})
}
