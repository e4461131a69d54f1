package argus

import (
	"strings"
	"testing"

	"github.com/slips-go/slips/parsers/flow"
)

var timed = []struct{ name, header, line string }{
	{"csv", csvHeader, tcpLine},
	{"tab", strings.ReplaceAll(csvHeader, ",", "\t"), strings.ReplaceAll(tcpLine, ",", "\t")},
	{"icmp", csvHeader, "2024/03/01 12:00:00,0,icmp,10.1.1.1,0x0303,   <-,10.1.1.2,0x1abc,URP,0,,1,173,0,0,flow=x"},
	{"v6", csvHeader, "2024/03/01 12:00:00+01:00,0,udp,2001:db8::1,53,   ->,2001:db8::2,domain,CON,0,,2,173,100,1,"},
	{"arp", csvHeader, "2024/03/01 12:00:00,1,arp,10.1.1.1,,  who,10.1.1.2,,INT,,,3,126,126,3,flow=Background-ARP"},
	{"man", csvHeader, "2024/03/01 12:00:00,0.045,man,0,0,,0,0,STA,,,0,0,0,0,"},
	{
		"udata", "StartTime,Dur,Proto,SrcAddr,Sport,Dir,DstAddr,Dport,State,TotPkts,TotBytes,SrcBytes,srcUdata,dstUdata,Service,Label",
		"2024/03/01 12:00:00,1,tcp,10.1.1.1,1,->,10.1.1.2,80,SPA_SPA,10,1000,900,s[640]=" + strings.Repeat("QUJD", 160) + ",d[3]=abc,HTTP,flow=Bad",
	},
}

// TestAllocations holds the decoder at no allocations for a record once its
// memory is warm.
func TestAllocations(t *testing.T) {
	for _, c := range timed {
		t.Run(c.name, func(t *testing.T) {
			d, f, line := New(), new(flow.Flow), []byte(c.line)
			_ = d.Decode(f, []byte(c.header))
			if n := testing.AllocsPerRun(100, func() {
				if err := d.Decode(f, line); err != nil && err != flow.ErrIgnored {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

// Run it with "go test -run xxx -bench . ./parsers/argus".
func BenchmarkDecode(b *testing.B) {
	for _, c := range timed {
		b.Run(c.name, func(b *testing.B) {
			d, f, line := New(), new(flow.Flow), []byte(c.line)
			_ = d.Decode(f, []byte(c.header))
			b.SetBytes(int64(len(line) + 1))
			b.ReportAllocs()
			for b.Loop() {
				_ = d.Decode(f, line)
			}
		})
	}
}
