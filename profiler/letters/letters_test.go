package letters

import (
	"bytes"
	"encoding/gob"
	"math"
	"net/netip"
	"strings"
	"testing"
)

// flow is one flow of a tuple; times in seconds.
type flow struct {
	start, duration float64
	size            int64
}

func ns(s float64) int64 { return int64(math.Round(s * 1e9)) }

// spell returns the symbols of flows, separated by blanks.
func spell(flows ...flow) string {
	var t Tuple
	var all []string
	for _, f := range flows {
		all = append(all, string(t.Add(nil, ns(f.start), ns(f.duration), f.size)))
	}
	return strings.Join(all, " ")
}

// The examples of the reference, section 7.
func TestConformance(t *testing.T) {
	for _, c := range []struct {
		want  string
		flows []flow
	}{
		{"1 1 a, a,", []flow{{1000, 0.05, 200}, {1010, 0.05, 200}, {1020, 0.05, 200}, {1030, 0.05, 200}}},
		{"1 1 00R", []flow{{1000, 0.05, 200}, {1010, 0.05, 200}, {9000, 0.05, 200}}},
		{"5 5 E+", []flow{{1000, 1, 500}, {1060, 1, 500}, {1130, 1, 500}}},
		// A flow at time 0 is a flow like others.
		{"1 1 a,", []flow{{0, 0.05, 200}, {10, 0.05, 200}, {20, 0.05, 200}}},
	} {
		if got := spell(c.flows...); got != c.want {
			t.Errorf("%v: %s, want %s", c.flows, got, c.want)
		}
	}
}

// Every letter of the table.
func TestTable(t *testing.T) {
	gaps := []struct{ t1, t2 float64 }{{}, {100, 100}, {100, 120}, {100, 400}, {100, 10}}
	sizes, durations := []int64{100, 500, 5000}, []float64{0.05, 5, 50}
	for row, want := range []string{"123456789", "abcdefghi", "ABCDEFGHI", "rstuvwxyz", "RSTUVWXYZ"} {
		var got []byte
		for _, size := range sizes {
			for _, d := range durations {
				var x Tuple
				if row > 0 {
					x.Add(nil, ns(1000), 0, 0)
					x.Add(nil, ns(1000+gaps[row].t1), 0, 0)
				}
				got = append(got, x.Add(nil, ns(1000+gaps[row].t1+gaps[row].t2), ns(d), size)[0])
			}
		}
		if string(got) != want {
			t.Errorf("row %d: %s, want %s", row, got, want)
		}
	}
}

// On the edges of the classes and just behind them.
func TestBoundaries(t *testing.T) {
	for _, c := range []struct {
		what, want string
		flows      []flow
	}{
		{"size 250", "1", []flow{{1, 0, 250}}},
		{"size 251", "4", []flow{{1, 0, 251}}},
		{"size 1100", "4", []flow{{1, 0, 1100}}},
		{"size 1101", "7", []flow{{1, 0, 1101}}},
		{"size below 0", "1", []flow{{1, 0, -1}}},
		{"duration 0.1", "1", []flow{{1, 0.1, 0}}},
		{"duration above 0.1", "2", []flow{{1, 0.100000001, 0}}},
		{"duration 10", "2", []flow{{1, 10, 0}}},
		{"duration above 10", "3", []flow{{1, 10.000000001, 0}}},
		{"duration below 0", "1", []flow{{1, -3, 0}}},
		{"ratio 1.05", "1 1 a+", []flow{{0, 0, 0}, {100, 0, 0}, {205, 0, 0}}},
		{"ratio above 1.05", "1 1 A+", []flow{{0, 0, 0}, {100, 0, 0}, {205.0001, 0, 0}}},
		{"ratio 1.3, the other way", "1 1 A+", []flow{{0, 0, 0}, {130, 0, 0}, {230, 0, 0}}},
		{"ratio above 1.3", "1 1 r+", []flow{{0, 0, 0}, {100, 0, 0}, {230.0001, 0, 0}}},
		{"ratio 5", "1 1 r*", []flow{{0, 0, 0}, {100, 0, 0}, {600, 0, 0}}},
		{"ratio above 5", "1 1 R*", []flow{{0, 0, 0}, {100, 0, 0}, {600.0001, 0, 0}}},
		{"both together", "1 1 a", []flow{{7, 0, 0}, {7, 0, 0}, {7, 0, 0}}},
		{"T1 of 0", "1 1 a,", []flow{{7, 0, 0}, {7, 0, 0}, {17, 0, 0}}},
		{"T2 of 0", "1 1 a", []flow{{7, 0, 0}, {17, 0, 0}, {17, 0, 0}}},
		{"5 s", "1 1 a.", []flow{{0, 0, 0}, {5, 0, 0}, {10, 0, 0}}},
		{"above 5 s", "1 1 a,", []flow{{0, 0, 0}, {5, 0, 0}, {10.000000001, 0, 0}}},
		{"60 s", "1 1 a,", []flow{{0, 0, 0}, {60, 0, 0}, {120, 0, 0}}},
		{"above 60 s", "1 1 a+", []flow{{0, 0, 0}, {60, 0, 0}, {120.1, 0, 0}}},
		{"300 s", "1 1 a+", []flow{{0, 0, 0}, {300, 0, 0}, {600, 0, 0}}},
		{"above 300 s", "1 1 a*", []flow{{0, 0, 0}, {300, 0, 0}, {600.1, 0, 0}}},
		{"below an hour", "1 1 a*", []flow{{0, 0, 0}, {3600, 0, 0}, {7199.9, 0, 0}}},
		{"an hour", "1 1 0a*", []flow{{0, 0, 0}, {3600, 0, 0}, {7200, 0, 0}}},
		{"above an hour", "1 1 0a", []flow{{0, 0, 0}, {3600, 0, 0}, {7200.1, 0, 0}}},
		{"two hours", "1 1 00a", []flow{{0, 0, 0}, {7200, 0, 0}, {14400, 0, 0}}},
		{"the second flow has no T2", "1 1", []flow{{0, 0, 0}, {36000, 0, 0}}},
	} {
		if got := spell(c.flows...); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

// A flow that began before the last one counts by its distance.
func TestOutOfOrder(t *testing.T) {
	for _, c := range []struct {
		want  string
		flows []flow
	}{
		{"1 1 r, r,", []flow{{1000, 0, 0}, {1020, 0, 0}, {1010, 0, 0}, {1040, 0, 0}}},
		{"1 1 a, a,", []flow{{1030, 0, 0}, {1020, 0, 0}, {1010, 0, 0}, {1000, 0, 0}}},
		{"1 1 00R", []flow{{9000, 0, 0}, {9010, 0, 0}, {1800, 0, 0}}},
	} {
		if got := spell(c.flows...); got != c.want {
			t.Errorf("%v: %s, want %s", c.flows, got, c.want)
		}
	}
}

// No times make it panic, overflow, or write without end.
func TestExtremes(t *testing.T) {
	var x Tuple
	edges := []int64{math.MinInt64, math.MaxInt64, 0, -1, math.MinInt64, 1, math.MaxInt64}
	for _, s := range edges {
		for _, d := range edges {
			if b := x.Add(nil, s, d, d); len(b) < 1 || len(b) > MaxZeros+2 {
				t.Fatalf("%d %d: %.50q of %d bytes", s, d, b, len(b))
			}
		}
	}
	if got := spell(flow{0, 0, 0}, flow{1, 0, 0}, flow{3e9, 0, 0}); got != "1 1 "+strings.Repeat("0", MaxZeros)+"R" {
		t.Errorf("a gap of 95 years: %.20q, %d bytes", got, len(got))
	}
}

// A tuple goes on where it was when it was saved.
func TestSaved(t *testing.T) {
	starts := []float64{0, 60, 130, 131, 9000, 8000}
	for cut := range starts {
		var want, got Tuple
		var a, b []byte
		for i, s := range starts {
			if i == cut {
				var buf bytes.Buffer
				if err := gob.NewEncoder(&buf).Encode(got); err != nil {
					t.Fatal(err)
				}
				got = Tuple{}
				if err := gob.NewDecoder(&buf).Decode(&got); err != nil {
					t.Fatal(err)
				}
			}
			a, b = want.Add(a, ns(s), 1, 1), got.Add(b, ns(s), 1, 1)
		}
		if string(a) != string(b) {
			t.Errorf("saved before flow %d: %s, want %s", cut, b, a)
		}
	}
}

func TestAddDoesNotAllocate(t *testing.T) {
	var x Tuple
	b := make([]byte, 0, 64)
	start := int64(0)
	if n := testing.AllocsPerRun(100, func() {
		start += 7300 * second
		b = x.Add(b[:0], start, 1, 1)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAppendID(t *testing.T) {
	for want, peer := range map[string]string{"x 192.0.2.1-443-tcp": "192.0.2.1", "x 2001:db8::1-443-tcp": "2001:db8::1"} {
		if got := string(AppendID([]byte("x "), netip.MustParseAddr(peer), 443, "tcp")); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	var x Tuple
	buf := make([]byte, 0, 64)
	b.ReportAllocs()
	for i := range b.N {
		buf = x.Add(buf[:0], int64(i)*second, second, 500)
	}
}
