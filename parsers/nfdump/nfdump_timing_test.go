package nfdump

import (
	"testing"

	"github.com/slips-go/slips/parsers/flow"
)

var timed = []struct{ name, header, line string }{
	{"csv", header16, line16},
	{"csv17", header17, "2024-03-01 12:00:00.125,1.500,6,10.1.1.1,40000,192.0.2.9,443,12,1216,1"},
	{"long", "", longLine},
	{"v6", "", "2024-03-01 12:00:00.125 1d 00:00:01.500 UDP 2001:db8::1.53 -> 2001:db8::2.5353 ........ 0 2 1.6 M 1"},
	{"icmp", "", "2024-03-01 12:00:00.125 0.000 ICMP 10.1.1.1:0 <-> 10.1.1.2:8.0 ........ 0 1 1 28 28 1"},
}

// TestAllocations holds the decoder at no allocations for a record once its
// memory is warm.
func TestAllocations(t *testing.T) {
	for _, c := range timed {
		t.Run(c.name, func(t *testing.T) {
			d, f, line := New(), new(flow.Flow), []byte(c.line)
			_ = d.Decode(f, []byte(c.header))
			if n := testing.AllocsPerRun(100, func() {
				if err := d.Decode(f, line); err != nil {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

// Run it with "go test -run xxx -bench . ./parsers/nfdump".
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
