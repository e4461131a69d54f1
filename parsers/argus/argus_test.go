package argus

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/parsers/flow"
)

const (
	csvHeader = "StartTime,Dur,Proto,SrcAddr,Sport,Dir,DstAddr,Dport,State,sTos,dTos,TotPkts,TotBytes,SrcBytes,SrcPkts,Label"
	tcpLine   = "2024/03/01 12:00:00.500000,1.250000,tcp,10.1.1.1,40000,   ->,192.0.2.9,443,FSPA_FSPA,0,0,10,5000,1000,4,flow=Normal-Web"
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
	for _, s := range []struct{ k, v string }{
		{"label", f.Label}, {"detail", f.DetailedLabel}, {"service", f.Service}, {"smac", f.SrcMAC}, {"dmac", f.DstMAC},
	} {
		if s.v != "" {
			fmt.Fprintf(&b, " %s=%s", s.k, s.v)
		}
	}
	if f.VLAN != 0 {
		fmt.Fprintf(&b, " vlan=%d", f.VLAN)
	}
	return b.String()
}

// decode runs lines through one decoder and gives the last one's result.
func decode(t *testing.T, lines ...string) (string, error) {
	t.Helper()
	d, f := New(), new(flow.Flow)
	for i, l := range lines {
		err := d.Decode(f, []byte(l))
		if i == len(lines)-1 {
			if err != nil {
				return "", err
			}
			if f.Sensor != flow.Argus || len(f.UID) != 17 || f.UID[0] != 'A' {
				t.Errorf("sensor %v, uid %q", f.Sensor, f.UID)
			}
			return brief(f), nil
		}
	}
	return "", nil
}

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		want  string
	}{
		{
			"csv with header",
			[]string{csvHeader, tcpLine},
			`conn 2024-03-01T12:00:00.5 1.25s tcp 10.1.1.1 40000 > 192.0.2.9 443 "FSPA_FSPA" Established pkts 4/6 bytes 1000/4000 label=Normal-Web`,
		},
		{
			"csv without header",
			[]string{tcpLine + "\r\n"},
			`conn 2024-03-01T12:00:00.5 1.25s tcp 10.1.1.1 40000 > 192.0.2.9 443 "FSPA_FSPA" Established pkts 4/6 bytes 1000/4000 label=Normal-Web`,
		},
		{
			"tabs without header or label",
			[]string{"1709294400.000000001\t0.5\tudp\t10.1.1.1\t5353\t  <->\t10.1.1.2\t53\tCON\t0\t0\t2\t200\t80\t1"},
			`conn 2024-03-01T12:00:00.000000001 500ms udp 10.1.1.1 5353 > 10.1.1.2 53 "CON" Established pkts 1/1 bytes 80/120`,
		},
		{
			"tabs, empty label cut off by ra",
			[]string{
				strings.ReplaceAll(csvHeader, ",", "\t"),
				"1709294400.0\t0.0\ttcp\t10.1.1.1\t1\t   ->\t10.1.1.2\t2\tS_\t0\t\t1\t60\t60\t1",
			},
			`conn 2024-03-01T12:00:00 0s tcp 10.1.1.1 1 > 10.1.1.2 2 "S_" Not Established pkts 1/0 bytes 60/0`,
		},
		{
			"names by which ra is asked, any case and order",
			[]string{
				"PROTO,saddr,Sport,daddr,dport,stime,ltime,State,spkts,dpkts,sbytes,dbytes,smac,dmac,svid,service",
				"tcp,10.1.1.1,1,10.1.1.2,2,2024-03-01 12:00:00,2024-03-01 12:00:03.5,CON,3,2,300,200,00:00:5e:00:53:01,00:00:5e:00:53:02,20,HTTP",
			},
			`conn 2024-03-01T12:00:00 3.5s tcp 10.1.1.1 1 > 10.1.1.2 2 "CON" Established pkts 3/2 bytes 300/200 service=http smac=00:00:5e:00:53:01 dmac=00:00:5e:00:53:02 vlan=20`,
		},
		{
			"header again in mid-file, other order",
			[]string{csvHeader, tcpLine, "StartTime,Proto,SrcAddr,DstAddr,State", "2024/03/01 12:00:00,gre,10.0.0.1,10.0.0.2,INT"},
			`conn 2024-03-01T12:00:00 0s gre 10.0.0.1 > 10.0.0.2 "INT" Not Established pkts 0/0 bytes 0/0`,
		},
		{
			"vlan tag with priority",
			[]string{"StartTime,Proto,SrcAddr,DstAddr,State,sVlan", "2024/03/01 12:00:00,gre,10.0.0.1,10.0.0.2,INT,0x5014"},
			`conn 2024-03-01T12:00:00 0s gre 10.0.0.1 > 10.0.0.2 "INT" Not Established pkts 0/0 bytes 0/0 vlan=20`,
		},
		{
			"the right side began",
			[]string{strings.Replace(tcpLine, "   ->", "  <- ", 1)},
			`conn 2024-03-01T12:00:00.5 1.25s tcp 192.0.2.9 443 > 10.1.1.1 40000 "FSPA_FSPA" Established pkts 6/4 bytes 4000/1000 label=Normal-Web`,
		},
		{
			"only the right side seen, mid-stream",
			[]string{strings.Replace(tcpLine, "   ->", " <? ", 1)},
			`conn 2024-03-01T12:00:00.5 1.25s tcp 192.0.2.9 443 > 10.1.1.1 40000 "FSPA_FSPA" Established pkts 6/4 bytes 4000/1000 label=Normal-Web`,
		},
		{
			"hex tcp ports",
			[]string{"2024/03/01 12:00:00.5,1,tcp,10.1.1.1,0x9c40,->,192.0.2.9,0x01BB,S_RA,0,0,2,120,60,1,"},
			`conn 2024-03-01T12:00:00.5 1s tcp 10.1.1.1 40000 > 192.0.2.9 443 "S_RA" Not Established pkts 1/1 bytes 60/60`,
		},
		{
			"service names, ra without -n",
			[]string{"2024/03/01 12:00:00.5,1,tcp,10.1.1.1,40000,->,192.0.2.9,https,SPA_SPA,0,0,2,120,60,1,"},
			`conn 2024-03-01T12:00:00.5 1s tcp 10.1.1.1 40000 > 192.0.2.9 443 "SPA_SPA" Established pkts 1/1 bytes 60/60`,
		},
		{
			"icmp echo",
			[]string{"2024/03/01 12:00:00,0,icmp,10.1.1.1,0x0008,   ->,10.1.1.2,0x1234,ECO,0,,2,144,144,2,"},
			`conn 2024-03-01T12:00:00 0s icmp 10.1.1.1 8 > 10.1.1.2 0 "ECO" ICMP Echo pkts 2/0 bytes 144/0`,
		},
		{
			"icmp port unreachable: code in the high byte",
			[]string{"2024/03/01 12:00:00,0,icmp,10.1.1.1,0x0303,   ->,10.1.1.2,0x1abc,URP,0,,1,173,173,1,"},
			`conn 2024-03-01T12:00:00 0s icmp 10.1.1.1 3 > 10.1.1.2 3 "URP" ICMP Port Unreachable pkts 1/0 bytes 173/0`,
		},
		{
			"icmp host unreachable",
			[]string{"2024/03/01 12:00:00,0,icmp,10.1.1.1,0x0103,   ->,10.1.1.2,0x0123,URH,0,,1,171,171,1,"},
			`conn 2024-03-01T12:00:00 0s icmp 10.1.1.1 3 > 10.1.1.2 1 "URH" ICMP Host Unreachable pkts 1/0 bytes 171/0`,
		},
		{
			"icmp swapped keeps type and code",
			[]string{"2024/03/01 12:00:00,0,icmp,10.1.1.1,0x0303,  <-,10.1.1.2,0x1abc,URP,0,,1,173,0,0,"},
			`conn 2024-03-01T12:00:00 0s icmp 10.1.1.2 3 > 10.1.1.1 3 "URP" ICMP Port Unreachable pkts 1/0 bytes 173/0`,
		},
		{
			"icmp6 neighbour solicitation, decimal",
			[]string{"2024/03/01 12:00:00.511685\t0.0\tipv6-icmp\t::\t135\t   ->\tff02::1:ff00:1\t0\tNNS\t0\t\t1\t78\t78\t1\tflow=Background"},
			`conn 2024-03-01T12:00:00.511685 0s ipv6-icmp :: 135 > ff02::1:ff00:1 0 "NNS" Not Established pkts 1/0 bytes 78/0 label=Background`,
		},
		{
			"igmp has no ports",
			[]string{"2024/03/01 12:00:00,1,igmp,10.1.1.1,,   ->,224.0.0.22,,INT,192,,15,600,600,15,"},
			`conn 2024-03-01T12:00:00 1s igmp 10.1.1.1 > 224.0.0.22 "INT" Not Established pkts 15/0 bytes 600/0`,
		},
		{
			"the SPI of esp is no port",
			[]string{"2024/03/01 12:00:00,1,esp,10.1.1.1,,   ->,10.1.1.2,0x1a2b3c4d,INT,0,,15,600,600,15,"},
			`conn 2024-03-01T12:00:00 1s esp 10.1.1.1 > 10.1.1.2 "INT" Not Established pkts 15/0 bytes 600/0`,
		},
		{
			"rtp is udp, as in CTU-13",
			[]string{"2024/03/01 12:00:00,1,rtp,10.1.1.1,4000,  <->,10.1.1.2,4002,CON,0,0,4,600,300,2,"},
			`conn 2024-03-01T12:00:00 1s udp 10.1.1.1 4000 > 10.1.1.2 4002 "CON" Established pkts 2/2 bytes 300/300 service=rtp`,
		},
		{
			"arp who-has",
			[]string{"2024/03/01 12:00:00,1,arp,10.1.1.1,,  who,10.1.1.2,,INT,,,3,126,126,3,flow=Background-ARP"},
			`arp 2024-03-01T12:00:00 1s arp 10.1.1.1 > 10.1.1.2 "INT"  pkts 3/0 bytes 126/0 label=Background-ARP`,
		},
		{
			"packets shared out by bytes, CTU-13 layout",
			[]string{
				"StartTime,Dur,Proto,SrcAddr,Sport,Dir,DstAddr,Dport,State,sTos,dTos,TotPkts,TotBytes,SrcBytes,Label",
				"2011/08/10 09:00:00.5,3550.25,udp,10.1.1.1,1600,  <->,10.1.1.2,6881,CON,0,0,4,276,156,flow=Background-UDP-Established",
			},
			`conn 2011-08-10T09:00:00.5 59m10.25s udp 10.1.1.1 1600 > 10.1.1.2 6881 "CON" Established pkts 2/2 bytes 156/120 label=Background-UDP-Established`,
		},
		{
			"user data with separators",
			[]string{
				"StartTime,Dur,Proto,SrcAddr,Sport,Dir,DstAddr,Dport,State,TotPkts,TotBytes,SrcBytes,srcUdata,dstUdata,Label",
				"2024/03/01 12:00:00,1,tcp,10.1.1.1,1,->,10.1.1.2,80,SPA_SPA,10,1000,900,s[9]=GET /a,b,,d[5]=a,,,b,flow=Bad",
			},
			`conn 2024-03-01T12:00:00 1s tcp 10.1.1.1 1 > 10.1.1.2 80 "SPA_SPA" Established pkts 9/1 bytes 900/100 label=Bad`,
		},
		{
			"user data last and empty",
			[]string{
				"StartTime,Proto,SrcAddr,DstAddr,State,Label,srcUdata,dstUdata",
				"2024/03/01 12:00:00,gre,10.1.1.1,10.1.1.2,INT,flow=Bad:seen=2,,",
			},
			`conn 2024-03-01T12:00:00 0s gre 10.1.1.1 > 10.1.1.2 "INT" Not Established pkts 0/0 bytes 0/0 label=Bad detail=seen=2`,
		},
		{
			"semicolons",
			[]string{strings.ReplaceAll(csvHeader, ",", ";"), strings.ReplaceAll(tcpLine, ",", ";")},
			`conn 2024-03-01T12:00:00.5 1.25s tcp 10.1.1.1 40000 > 192.0.2.9 443 "FSPA_FSPA" Established pkts 4/6 bytes 1000/4000 label=Normal-Web`,
		},
		{
			"the broadcast address by name, no service",
			[]string{"StartTime,Proto,SrcAddr,DstAddr,State,SrcMac,DstMac,AppProto", "2024/03/01 12:00:00,gre,10.1.1.1,10.1.1.2,INT,00:00:5e:00:53:01,Broadcast,-"},
			`conn 2024-03-01T12:00:00 0s gre 10.1.1.1 > 10.1.1.2 "INT" Not Established pkts 0/0 bytes 0/0 smac=00:00:5e:00:53:01 dmac=ff:ff:ff:ff:ff:ff`,
		},
		{
			"a label without flow=",
			[]string{strings.Replace(tcpLine, "flow=Normal-Web", "Malicious", 1)},
			`conn 2024-03-01T12:00:00.5 1.25s tcp 10.1.1.1 40000 > 192.0.2.9 443 "FSPA_FSPA" Established pkts 4/6 bytes 1000/4000 label=Malicious`,
		},
		{
			"tcp without ports",
			[]string{"2024/03/01 12:00:00,1,tcp,10.1.1.1,,->,10.1.1.2,,CON,0,0,4,600,300,2,"},
			`conn 2024-03-01T12:00:00 1s tcp 10.1.1.1 > 10.1.1.2 "CON" Established pkts 2/2 bytes 300/300`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := decode(t, c.lines...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDecodeFailure(t *testing.T) {
	cut := func(old, new string) []string { return []string{strings.Replace(tcpLine, old, new, 1)} }
	for _, c := range []struct {
		name  string
		lines []string
		want  error
		field string
	}{
		{"header", []string{csvHeader}, flow.ErrHeader, ""},
		{"empty", []string{" \r\n"}, flow.ErrHeader, ""},
		{"comment", []string{"# made by hand"}, flow.ErrHeader, ""},
		{"man", []string{"2024/03/01 12:00:00,0.045,man,0,0,,0,0,STA,,,0,0,0,0,"}, flow.ErrIgnored, ""},
		{"llc", []string{"2024/03/01 12:00:00.0,0.0,llc,00:00:00:00:00:00,0,   ->,00:00:00:00:00:00,0,INT,,,1,60,60,1,flow=Background"}, flow.ErrIgnored, ""},
		{"rarp to everybody", []string{"2024/03/01 12:00:00,0,rarp,00:00:5e:00:53:01,,  tel,Broadcast,,INT,,,1,60,60,1,"}, flow.ErrIgnored, ""},
		{"cut line", []string{tcpLine[:60]}, flow.ErrColumns, ""},
		{"missing column under a header", []string{csvHeader, strings.TrimSuffix(tcpLine, ",flow=Normal-Web")}, flow.ErrColumns, ""},
		{"extra column", []string{csvHeader, tcpLine + ",x"}, flow.ErrColumns, ""},
		{"no date, as ra prints without a format", cut("2024/03/01 12:00:00.500000", "12:00:00.500000"), flow.ErrTime, "StartTime"},
		{"31 February", cut("03/01", "02/31"), flow.ErrTime, "StartTime"},
		{"before 1970", cut("2024", "1969"), flow.ErrTime, "StartTime"},
		{"after 2100", cut("2024", "2101"), flow.ErrTime, "StartTime"},
		{"negative epoch", cut("2024/03/01 12:00:00.500000", "-5.0"), flow.ErrTime, "StartTime"},
		{"no time", cut("2024/03/01 12:00:00.500000", ""), flow.ErrMissing, "StartTime"},
		{"no protocol", cut("tcp", ""), flow.ErrMissing, "Proto"},
		{"bad address", cut("10.1.1.1", "10.1.1.300"), flow.ErrAddress, "SrcAddr"},
		{"no address", cut("192.0.2.9", ""), flow.ErrMissing, "DstAddr"},
		{"tcp between MAC addresses", cut("10.1.1.1", "00:00:5e:00:53:01"), flow.ErrAddress, "SrcAddr"},
		{"zone", cut("10.1.1.1", "fe80::1%eth0"), flow.ErrAddress, "SrcAddr"},
		{"big port", cut("40000", "70000"), flow.ErrPort, "Sport"},
		{"big hex port", cut("443", "0x10000"), flow.ErrPort, "Dport"},
		{"service name cut short", cut("443", "micro*"), flow.ErrPort, "Dport"},
		{"negative duration", cut("1.250000", "-1.25"), flow.ErrNumber, "Dur"},
		{"abbreviated count", cut(",10,5000", ",10,5.0K"), flow.ErrNumber, "TotBytes"},
		{"more source packets than packets", cut("1000,4", "1000,40"), flow.ErrNumber, "SrcPkts"},
		{"odd direction", cut("   ->", "to"), flow.ErrNotRecord, "Dir"},
		{"aligned output", []string{"         StartTime      Flgs  Proto            SrcAddr  Sport   Dir            DstAddr  Dport  TotPkts   TotBytes State "}, flow.ErrBadHeader, ""},
		{"record under aligned output", []string{"  StartTime  Proto   SrcAddr  Sport  Dir DstAddr", "   21:42:06.939527  e  tcp  192.0.2.1.59856  ->  192.0.2.2.http"}, flow.ErrNoHeader, ""},
		{"header without source", []string{"StartTime,Dur,Proto,DstAddr"}, flow.ErrBadHeader, "SrcAddr"},
		{"header with a column twice", []string{"StartTime,stime,Proto,SrcAddr,DstAddr"}, flow.ErrBadHeader, "StartTime"},
		{"endless header", []string{csvHeader + strings.Repeat(",x", 300)}, flow.ErrBadHeader, ""},
		{"record behind a bad header", []string{csvHeader, "StartTime,Dur,Proto,DstAddr", tcpLine}, flow.ErrNoHeader, ""},
		{"json", []string{`{"event_type":"flow","src_ip":"10.0.0.1"}`}, flow.ErrColumns, ""},
		{"NULs", []string{strings.Repeat("\x00", 40)}, flow.ErrColumns, ""},
		{"commas", []string{strings.Repeat(",", 15)}, flow.ErrMissing, "Proto"},
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

func TestState(t *testing.T) {
	for _, c := range []struct {
		raw  string
		pkts int64
		want flow.State
	}{
		{"FSPA_FSPA", 9, flow.Established},
		{"SRPA_SPA", 9, flow.Established},
		{"S_SA", 2, flow.NotEstablished},
		{"SR_SA", 3, flow.NotEstablished},
		{"S_RA", 2, flow.NotEstablished},
		{"S_", 1, flow.NotEstablished},
		{"_", 1, flow.NotEstablished},
		{"PA_PA", 9, flow.Established},
		{"FRPA_PA", 9, flow.Established},
		{"FPA_FA", 9, flow.NotEstablished},
		{"A_PA", 9, flow.NotEstablished},
		{"FSPAEC_FSPAE", 9, flow.Established},
		{"FSA_SRA", 9, flow.Established},
		{"CON", 2, flow.Established},
		{"EST", 2, flow.Established},
		{"UNK", 1, flow.Established},
		{"CLO", 8, flow.Established},
		{"INT", 1, flow.NotEstablished},
		{"REQ", 1, flow.NotEstablished},
		{"ACC", 2, flow.NotEstablished},
		{"RST", 3, flow.NotEstablished},
		{"RST", 4, flow.Established},
		{"FIN", 3, flow.NotEstablished},
		{"FIN", 4, flow.Established},
		{"TIM", 1, flow.NotEstablished},
		{"TIM", 20, flow.Established},
		{"ECO", 1, flow.ICMPEcho},
		{"ECR", 1, flow.ICMPReply},
		{"URH", 1, flow.ICMPHostUnreachable},
		{"URHPRO", 1, flow.ICMPHostUnreachable},
		{"URP", 1, flow.ICMPPortUnreachable},
		{"ECO_ECR", 2, flow.ICMPEcho},
		{"URFIL", 9, flow.NotEstablished},
		{"TXD", 9, flow.NotEstablished},
		{"NNS", 1, flow.NotEstablished},
		{"", 9, flow.NotEstablished},
		{"s", 1, flow.NotEstablished},
		{"sR", 2, flow.NotEstablished},
		{"sSEfC", 9, flow.Established},
		{"S0", 31, flow.NotEstablished},
		{"REJ", 2, flow.NotEstablished},
		{"RSTOS0", 9, flow.NotEstablished},
		{"RSTRH", 9, flow.NotEstablished},
		{"SH", 9, flow.NotEstablished},
		{"SHR", 9, flow.NotEstablished},
		{"S1", 1, flow.Established},
		{"SF", 1, flow.Established},
		{"S2", 1, flow.Established},
		{"S3", 1, flow.Established},
		{"RSTO", 1, flow.Established},
		{"RSTR", 1, flow.Established},
		{"RSTP", 1, flow.Established},
		{"OTH", 1, flow.Established},
	} {
		if got := interpret(c.raw, c.pkts); got != c.want {
			t.Errorf("%q with %d packets: %v, want %v", c.raw, c.pkts, got, c.want)
		}
	}
}

func TestDirection(t *testing.T) {
	for _, c := range []struct {
		arrow    string
		swap, ok bool
	}{
		{"->", false, true},
		{"<->", false, true},
		{"<?>", false, true},
		{"?>", false, true},
		{"who", false, true},
		{"", false, true},
		{"<-", true, true},
		{"<?", true, true},
		{"<o", true, true},
		{"<|", true, true},
		{"o>", false, true},
		{"<|>", false, true},
		{"-<", false, false},
		{"abc", false, false},
		{"<-->", false, false},
		{"8.8.8.8", false, false},
	} {
		if swap, ok := direction([]byte(c.arrow)); swap != c.swap || ok != c.ok {
			t.Errorf("%q: swap %v, ok %v", c.arrow, swap, ok)
		}
	}
}

func TestTime(t *testing.T) {
	const at = 1709294400 * int64(1e9) // 2024-03-01T12:00:00Z
	for s, want := range map[string]int64{
		"1709294400": at, "1709294400.5": at + 5e8, "1709294400.123456789": at + 123456789, "1709294400.1234567899": at + 123456789,
		"2024-03-01T13:00:00.25+0100": at + 25e7, "2024-03-01T13:00:00.25+01:00": at + 25e7, "2024-03-01 12:00:00.5": at + 5e8,
		"2024-03-01 12:00:00": at, "2024-03-01 07:00:00.5-0500": at + 5e8, "2024/03/01 13:00:00.5+0100": at + 5e8,
		"2024/03/01 12:00:00.500000": at + 5e8, "2024/03/01 12:00:00": at, "2024-03-01 13:00:00+0100": at, "2024-03-01T12:00:00": at,
		"2024-03-01T13:00:00+01": at, "2024-03-01T12:00:00Z": at, "2024/03/01-12:00:00": at, "2024/03/01.12:00:00.000001": at + 1000,
		"0": 0, "1970/01/01 00:00:00": 0, "2000-02-29 00:00:00": 951782400 * 1e9,
	} {
		if got, ok := parseTime([]byte(s)); !ok || got != want {
			t.Errorf("%q: %d %v, want %d", s, got, ok, want)
		}
	}
	for _, s := range []string{
		"", ".", "1.", "x", "-1", "1e9", "12:00:00", "2024-03-01", "2024-03-01 12:00", "2024-3-1 12:00:00", "2024-03/01 12:00:00", "2024-13-01 12:00:00",
		"2024-00-01 12:00:00", "2024-04-31 12:00:00", "2023-02-29 12:00:00", "1900-02-29 00:00:00", "2024-03-01 24:00:00", "2024-03-01 12:60:00", "2024-03-01 12:00:61",
		"2024-03-01 12:00:00.", "2024-03-01 12:00:00.5x", "2024-03-01 12:00:00+1", "2024-03-01 12:00:00+24:00", "2024-03-01 12:00:00+01-00", "2024-03-01x12:00:00",
		"4102444801", "99999999999999999999", "1969-12-31 23:59:59", "1970-01-01 00:00:00+0100",
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

func TestPort(t *testing.T) {
	for s, want := range map[string]uint16{
		"0": 0, "443": 443, "65535": 65535, "0x0": 0, "0xFFff": 65535, "0x0035": 53, "ftp": 21, "ssh": 22, "domain": 53, "www": 80,
		"netbios-ssn": 139, "microsoft-ds": 445, "ms-wbt-server": 3389, "mdns": 5353, "http-alt": 8080,
	} {
		if got, ok := parsePort([]byte(s)); !ok || got != want {
			t.Errorf("%q: %d %v, want %d", s, got, ok, want)
		}
	}
	for _, s := range []string{"", "0x", "0xg", "0x10000", "65536", "-1", "12a", " 1", "netbi*", "99999999999999999999"} {
		if got, ok := parsePort([]byte(s)); ok {
			t.Errorf("%q is taken for %d", s, got)
		}
	}
}

func TestShare(t *testing.T) {
	for _, c := range []struct{ pkts, orig, resp, want int64 }{
		{10, 100, 100, 5}, {10, 1, 1000000, 1}, {10, 1000000, 1, 9}, {1, 5, 5, 1}, {2, 5, 500, 1}, {7, 100, 0, 7}, {7, 0, 100, 0}, {0, 5, 5, 0},
	} {
		got := share(c.pkts, c.orig, c.resp)
		if got != c.want || got < 0 || got > c.pkts {
			t.Errorf("share(%d, %d, %d) = %d, want %d", c.pkts, c.orig, c.resp, got, c.want)
		}
	}
}

func TestIsHeader(t *testing.T) {
	d := New()
	for s, want := range map[string]bool{
		csvHeader: true, strings.ReplaceAll(csvHeader, ",", "\t") + "\r\n": true, strings.ToUpper(csvHeader): true,
		"saddr,daddr,stime": true, "  StartTime  Proto  SrcAddr ": true,
		tcpLine: false, "": false, "#fields\tts\tuid": false, "StartTime,Dur": false, `{"a":1}`: false,
	} {
		if got := d.IsHeader([]byte(s)); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestSniff(t *testing.T) {
	for s, want := range map[string]bool{
		csvHeader + "\n" + tcpLine: true, csvHeader[:100]: true, tcpLine + "\n" + tcpLine[:30]: true,
		"# note\n\n" + strings.ReplaceAll(tcpLine, ",", "\t"):     true,
		"2024/03/01 12:00:00,0.045,man,0,0,,0,0,STA,,,0,0,0,0,\n": true,
		"": false, "#separator \\x09\n#fields\tts\tuid\n1.5\tCab\t10.0.0.1\t1\t10.0.0.2\t2\ttcp\t-\t1\t2\t3\tSF\t-\t-\t0\tS": false,
		`{"ts":1.5,"id.orig_h":"10.0.0.1"}`: false, "a,b,c,d,e,f,g,h\n1,2,3,4,5,6,7,8\n": false, "\x0c\xa5\x01\x00": false,
		"2024-03-01 12:00:00,2024-03-01 12:00:00,0.000,10.0.0.1,10.0.0.2,52324,902,TCP,......S.,0,0,1,60,0,0,0": false,
		strings.Repeat(",", 15): false, "ts,te,td,sa,da,sp,dp,pr,flg,fwd,stos,ipkt,ibyt\n": false,
	} {
		if got := Sniff([]byte(s)); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

// A UID is the same for the same record in any decoder, and another for
// another record.
func TestUID(t *testing.T) {
	seen := make(map[string]string)
	for _, l := range []string{
		tcpLine, strings.Replace(tcpLine, ".500000", ".500001", 1), strings.Replace(tcpLine, "40000", "40001", 1),
		strings.Replace(tcpLine, "10.1.1.1", "10.1.1.2", 1), strings.Replace(tcpLine, "tcp", "udp", 1), strings.Replace(tcpLine, "443", "444", 1),
	} {
		var a, b flow.Flow
		if err := errors.Join(New().Decode(&a, []byte(l)), New().Decode(&b, []byte(l))); err != nil {
			t.Fatal(err)
		}
		if a.UID != b.UID {
			t.Errorf("%q and %q for %q", a.UID, b.UID, l)
		}
		if before, ok := seen[a.UID]; ok {
			t.Errorf("%q for %q and %q", a.UID, before, l)
		}
		seen[a.UID] = l
	}
}

// A Flow is used again for lines of all sorts; nothing of one may show in the next.
func TestReuse(t *testing.T) {
	d, used := New(), new(flow.Flow)
	lines := []string{
		tcpLine, "2024/03/01 12:00:00,1,arp,10.1.1.1,,  who,10.1.1.2,,INT,,,3,126,126,3,flow=Background-ARP",
		"2024/03/01 12:00:00,1,RTP,10.1.1.1,4000,  <->,10.1.1.2,4002,CON,0,0,4,600,300,2,", "broken", tcpLine[:50],
		"2024/03/01 12:00:00,1,igmp,10.1.1.1,,   ->,224.0.0.22,,INT,192,,15,600,600,15,",
	}
	for range 2 {
		for _, l := range lines {
			fresh := new(flow.Flow)
			err, want := d.Decode(used, []byte(l)), New().Decode(fresh, []byte(l))
			if (err == nil) != (want == nil) {
				t.Fatalf("%q: %v, fresh %v", l, err, want)
			}
			if err == nil && (brief(used) != brief(fresh) || used.UID != fresh.UID) {
				t.Errorf("%q:\nused  %s\nfresh %s", l, brief(used), brief(fresh))
			}
		}
	}
}

// datasets is where the real traffic lies; the test is skipped without it.
func datasets(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("SLIPS_DATASETS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "datasets")
	}
	if _, err := os.Stat(filepath.Join(dir, "argus")); err != nil {
		t.Skipf("NO REAL TRAFFIC: set SLIPS_DATASETS or put it at ../shared/datasets of the repository: %v", err)
	}
	return filepath.Join(dir, "argus")
}

func TestDatasets(t *testing.T) {
	dir := datasets(t)
	// The states are those that counting the State column by hand gives.
	for _, c := range []struct{ file, want string }{
		{"benign-bittorrent-normal-7.binetflow", "conn 9797, arp 0, ignored 0, rejected 0, headers 1; Established 1754, Not Established 6620, ICMP Echo 1346, ICMP Host Unreachable 18, ICMP Port Unreachable 59"},
		{"labelled-tabs.binetflow", "conn 6721, arp 2, ignored 2, rejected 0, headers 1; Established 6335, Not Established 382, ICMP Port Unreachable 4"},
		{"test11-portscan.binetflow", "conn 66, arp 0, ignored 0, rejected 0, headers 1; Not Established 20, ICMP Echo 46"},
		{"test2-malicious.binetflow", "conn 6751, arp 0, ignored 0, rejected 0, headers 1; Established 6586, Not Established 115, ICMP Echo 6, ICMP Port Unreachable 44"},
		{"test5-mixed.binetflow", "conn 296, arp 2, ignored 2, rejected 0, headers 1; Established 282, Not Established 13, ICMP Port Unreachable 1"},
	} {
		t.Run(c.file, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(dir, c.file))
			if err != nil {
				t.Fatal(err)
			}
			if !Sniff(data[:min(len(data), 1<<16)]) {
				t.Error("not recognised")
			}
			var (
				d                          = New()
				f                          flow.Flow
				kinds                      [flow.NumKinds]int
				states                     [8]int
				ignored, rejected, headers int
			)
			lines := bufio.NewScanner(bytes.NewReader(data))
			lines.Buffer(nil, 1<<20)
			for lines.Scan() {
				switch err := d.Decode(&f, lines.Bytes()); err {
				case nil:
					kinds[f.Kind]++
					states[f.State]++
				case flow.ErrHeader:
					headers++
				case flow.ErrIgnored:
					ignored++
				default:
					rejected++
					t.Log(err)
				}
			}
			var got strings.Builder
			fmt.Fprintf(&got, "conn %d, arp %d, ignored %d, rejected %d, headers %d;", kinds[flow.Conn], kinds[flow.ARP], ignored, rejected, headers)
			for s := flow.Established; s <= flow.ICMPPortUnreachable; s++ {
				if states[s] > 0 {
					fmt.Fprintf(&got, " %s %d,", s, states[s])
				}
			}
			if diff := cmp.Diff(c.want, strings.TrimSuffix(got.String(), ",")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(csvHeader + "\n" + tcpLine))
	f.Add([]byte(strings.ReplaceAll(csvHeader+"\n"+tcpLine, ",", "\t")))
	f.Add([]byte("2024/03/01 12:00:00,1,arp,10.1.1.1,,  who,10.1.1.2,,INT,,,3,126,126,3,flow=Background-ARP"))
	f.Add([]byte("2024/03/01 12:00:00,0.045,man,0,0,,0,0,STA,,,0,0,0,0,"))
	f.Add([]byte("StartTime,Proto,SrcAddr,DstAddr,srcUdata,sVlan,dstUdata,Label\n1.5,icmp,::1,::2,s[3]=a,b,0x5014,d[0]=,flow=x"))
	f.Add([]byte("stime;saddr;daddr;proto;sport;dport;dir\n2024-03-01T13:00:00.25+01:00;fe80::1;fe80::2;udp;0x35;domain;<?"))
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
				check(t, used)
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

// check holds what is true of every record.
func check(t *testing.T, f *flow.Flow) {
	t.Helper()
	switch {
	case f.Kind != flow.Conn && f.Kind != flow.ARP:
		t.Fatalf("kind %v", f.Kind)
	case f.Time < flow.MinTime || f.Time > flow.MaxTime || f.Duration < 0:
		t.Fatalf("time %d, duration %d", f.Time, f.Duration)
	case !f.Src.IsValid() || !f.Dst.IsValid():
		t.Fatal("no address")
	case f.OrigPkts < 0 || f.RespPkts < 0 || f.OrigBytes < 0 || f.RespBytes < 0:
		t.Fatalf("negative count: %s", brief(f))
	case f.Kind == flow.Conn && f.State == flow.StateUnknown:
		t.Fatal("no state")
	}
}
