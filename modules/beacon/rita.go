package beacon

import (
	"math"
	"slices"
)

// The functions of this file are the four scores of RITA 5 as published, over
// whatever series they are given. See the README for where the module hands
// them another series than RITA does.

// quartiles returns the medians of the lower half, of all and of the upper
// half of sorted values. The middle one of an odd number is in neither half.
func quartiles(sorted []float64) (q1, q2, q3 float64) {
	n := len(sorted)
	return median(sorted[:n/2]), median(sorted), median(sorted[(n+1)/2:])
}

func median(sorted []float64) float64 {
	n := len(sorted)
	switch {
	case n == 0:
		return 0
	case n%2 == 1:
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// minValues is how many values a score needs.
const minValues = 3

// spread is the mean of two terms: how symmetric the values lie round their
// median (Bowley's skew), and how near to it (median absolute deviation). The
// second is dflt when the median is less than 1. mad is the deviation. The
// values are gone afterwards.
func spread(v []float64, dflt float64) (score, middle, mad float64) {
	if len(v) < minValues {
		return 0, 0, 0
	}
	slices.Sort(v)
	q1, q2, q3 := quartiles(v)
	skew := 0.0
	if q3-q1 >= 10 && q2 != q1 && q2 != q3 {
		skew = (q1 + q3 - 2*q2) / (q3 - q1)
	}
	for i := range v {
		v[i] = math.Abs(v[i] - q2)
	}
	slices.Sort(v)
	mad = median(v)
	near := dflt
	if q2 >= 1 {
		near = max(0, (q2-mad)/q2)
	}
	return (1 - math.Abs(skew) + near) / 2, q2, mad
}

// timestampScore judges the times between check-ins, in seconds, none of them 0.
func timestampScore(deltas []float64) float64 {
	s, _, _ := spread(slices.Clone(deltas), 1)
	return s
}

// sizeScore judges the bytes sent per check-in.
func sizeScore(bytes []float64) float64 {
	s, _, _ := spread(slices.Clone(bytes), 0)
	return s
}

const (
	bins = 24 // of RITA's histogram
	// minBimodal is how many bins must be in use before two levels of use mean
	// anything, and minDuration before their run does.
	minBimodal  = 11
	minDuration = 6
)

// histogramScore judges how evenly the check-ins fall into bins of equal
// width: all the same, or two levels of use, such as working hours and night.
func histogramScore(counts []int) float64 {
	sum, used, most := 0, 0, 0
	for _, c := range counts {
		sum += c
		most = max(most, c)
		if c > 0 {
			used++
		}
	}
	if sum == 0 {
		return 0
	}
	mean, dev := float64(sum)/float64(len(counts)), 0.0
	for _, c := range counts {
		dev += (float64(c) - mean) * (float64(c) - mean)
	}
	even := max(0, 1-math.Sqrt(dev/float64(len(counts)))/mean)
	if used < minBimodal {
		return even
	}
	width := max(1, int(math.Ceil(0.05*float64(most))))
	modes := make([]int, most/width+1)
	for _, c := range counts {
		if c > 0 {
			modes[c/width]++
		}
	}
	slices.Sort(modes)
	n := len(modes)
	top := modes[n-1]
	if n > 1 {
		top += modes[n-2]
	}
	return max(even, min(1, float64(top)/float64(used-1)))
}

// durationScore judges how long the check-ins go on: covered is the share of
// the whole time between the first and the last, counts their histogram.
func durationScore(counts []int, covered float64) float64 {
	used := 0
	for _, c := range counts {
		if c > 0 {
			used++
		}
	}
	if used < minDuration {
		return 0
	}
	return min(1, max(covered, float64(longestRun(counts, true))/(bins/2)))
}

// longestRun returns the length of the longest run of bins in use. It goes on
// from the last to the first when wrap is set.
func longestRun(counts []int, wrap bool) int {
	n := len(counts)
	end, run, best := n, 0, 0
	if wrap {
		end = 2 * n
	}
	for i := range end {
		if run++; counts[i%n] == 0 {
			run = 0
		}
		best = max(best, run)
	}
	return min(best, n)
}

// severity turns a score into a confidence by RITA's table: nothing up to 0.5,
// then straight lines through 0.4 at 0.7, 0.6 at 0.9 and 0.8 at 1.
func severity(score float64) float64 {
	table := [...][2]float64{{0.5, 0.2}, {0.7, 0.4}, {0.9, 0.6}, {1, 0.8}}
	if score < table[0][0] {
		return 0
	}
	for i := 1; i < len(table); i++ {
		a, b := table[i-1], table[i]
		if score <= b[0] {
			return a[1] + (b[1]-a[1])*(score-a[0])/(b[0]-a[0])
		}
	}
	return table[len(table)-1][1]
}
