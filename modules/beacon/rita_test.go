package beacon

import (
	"bufio"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
)

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 0.0005 {
		t.Errorf("%s: got %.4f, want %.4f", what, got, want)
	}
}

func repeat(v float64, n int) []float64 {
	l := make([]float64, n)
	for i := range l {
		l[i] = v
	}
	return l
}

func TestQuartiles(t *testing.T) {
	for _, tt := range []struct {
		in         []float64
		q1, q2, q3 float64
	}{
		{[]float64{7, 15, 36, 39, 40, 41}, 15, 37.5, 40},
		{[]float64{6, 7, 15, 36, 39, 40, 41, 42, 43, 47, 49}, 15, 40, 43},
		{[]float64{1, 2, 3}, 1, 2, 3},
		{[]float64{1, 2, 3, 4}, 1.5, 2.5, 3.5},
	} {
		if q1, q2, q3 := quartiles(tt.in); q1 != tt.q1 || q2 != tt.q2 || q3 != tt.q3 {
			t.Errorf("%v: got %v, %v, %v", tt.in, q1, q2, q3)
		}
	}
}

func TestTimeAndSize(t *testing.T) {
	near(t, "too few", timestampScore(repeat(60, 2)), 0)
	near(t, "all the same", timestampScore(repeat(60, 3)), 1)
	// 10, 20, 60, 100, 300: quartiles 15, 60, 200; skew (15+200-120)/185; deviations 0, 40, 40, 50, 240.
	near(t, "skewed", timestampScore([]float64{10, 20, 60, 100, 300}), (1-95.0/185+20.0/60)/2)
	// The same quartiles less than 10 apart: no skew.
	near(t, "narrow", timestampScore([]float64{1, 1, 2, 4, 9}), (1+0.5)/2)
	near(t, "an outlier of the median", timestampScore([]float64{60, 60, 60, 60, 4000}), 1)
	near(t, "no bytes at all", sizeScore(repeat(0, 5)), 0.5)
	near(t, "the same bytes", sizeScore(repeat(500, 5)), 1)
	near(t, "most far above the median", timestampScore([]float64{1, 1, 1, 2, 900, 900, 900}), (1-897.0/899+0.5)/2)
}

func TestHistogramAndDuration(t *testing.T) {
	all := func(n ...int) []int { return n }
	flat := make([]int, bins)
	for i := range flat {
		flat[i] = 12
	}
	near(t, "flat", histogramScore(flat), 1)
	near(t, "flat goes on", durationScore(flat, 0), 1)
	near(t, "nothing", histogramScore(make([]int, bins)), 0)
	one := make([]int, bins)
	one[3] = 100
	near(t, "one bin", histogramScore(one), 0)
	near(t, "one bin is short", durationScore(one, 1), 0)
	// Two levels of use in 11 bins: uneven, but two modes make up all of them.
	two := make([]int, bins)
	for i := range 11 {
		two[i] = 10 + 90*(i&1)
	}
	near(t, "two levels", histogramScore(two), 1)
	two[10] = 0
	if s := histogramScore(two); s != 0 {
		t.Errorf("ten bins are not judged by their modes: %v", s)
	}
	near(t, "uneven", histogramScore(all(1, 2, 3)), 1-math.Sqrt(2.0/3)/2)
	run := make([]int, bins)
	for i := range 4 {
		run[i], run[bins-1-i] = 1, 1
	}
	near(t, "eight hours round midnight", durationScore(run, 0.1), 8.0/12)
	near(t, "covered", durationScore(run, 0.9), 0.9)
	if n := longestRun(run, false); n != 4 {
		t.Errorf("run of %d, want 4", n)
	}
}

func TestSeverity(t *testing.T) {
	for score, want := range map[float64]float64{0.49: 0, 0.5: 0.2, 0.6: 0.3, 0.7: 0.4, 0.8: 0.5, 0.9: 0.6, 0.95: 0.7, 1: 0.8} {
		near(t, strconv.FormatFloat(score, 'f', 2, 64), severity(score), want)
	}
}

// TestGolden checks against RITA's own test. For 10.55.100.111 and
// www.alexa.com that has 0.999 for times, 1 for duration and 0.937 for the
// histogram of 607 connections; the 289 of them in http.log come near. The
// logs with the 20,054 of 165.227.216.194, four times 1, are not to be had:
// a series as regular as that stands for them.
func TestGolden(t *testing.T) {
	f, err := os.Open("testdata/rita-alexa.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var deltas []float64
	at, times := 0, []int{0}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if strings.HasPrefix(sc.Text(), "#") {
			continue
		}
		for s := range strings.FieldsSeq(sc.Text()) {
			n, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			at += n
			times, deltas = append(times, at), append(deltas, float64(n))
		}
	}
	if len(times) != 289 {
		t.Fatalf("%d times", len(times))
	}
	counts := make([]int, bins)
	for _, x := range times {
		counts[x*bins/86_400]++
	}
	if s := timestampScore(deltas); math.Abs(s-0.999) > 0.0015 {
		t.Errorf("times: %.4f, RITA has 0.999", s)
	}
	near(t, "duration", durationScore(counts, float64(at)/86_400), 1)
	if s := histogramScore(counts); s < 0.93 || s > 1 {
		t.Errorf("histogram: %.4f, RITA has 0.937 with twice the connections", s)
	}
	// 20,054 in a day, four or five seconds apart.
	every := make([]float64, 20_053)
	counts = make([]int, bins)
	sum := 0
	for i := range every {
		every[i] = float64(4 + min(1, i%3))
		sum += int(every[i])
		counts[min(bins-1, sum*bins/86_400)]++
	}
	near(t, "dnscat2: times", timestampScore(every), 1)
	near(t, "dnscat2: duration", durationScore(counts, 1), 1)

	// The module sees the latest 96 of the 289, which come to the same.
	var ev []Event
	for _, x := range times {
		ev, _ = add(ev, Event{T: uint32(x), Sent: 400})
	}
	if s := judge(ev); s.N != maxEvents || s.Time < 0.98 || s.Total < 0.95 || math.Abs(s.Period-300) > 1 {
		t.Errorf("latest: %+v", s)
	}
}
