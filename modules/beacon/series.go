package beacon

import (
	"math"
)

// Event is one check-in: all connections that began in one second.
type Event struct {
	T      uint32 // s of unix time
	Sent   uint32 // bytes from the originator
	Got    uint32 // bytes from the responder
	Failed bool   // nobody answered, or the answer was no
}

// add puts e into events, which are in order of time and a few more than
// maxEvents at most. It reports whether e is a check-in of its own: one in a second that has one
// already is not, nor one from before all that is remembered.
func add(events []Event, e Event) ([]Event, bool) {
	i := len(events)
	for i > 0 && events[i-1].T > e.T { // nearly always the newest
		i--
	}
	if i > 0 && events[i-1].T == e.T {
		if p := &events[i-1]; !e.Failed {
			p.Failed = false
		}
		return events, false
	}
	if len(events) >= maxEvents && events[len(events)-maxEvents].T > e.T {
		return events, false
	}
	if len(events) >= maxEvents+slack {
		n := copy(events, events[slack:])
		events, i = events[:n], i-slack
	}
	events = append(events, Event{})
	copy(events[i+1:], events[i:])
	events[i] = e
	return events, true
}

// slack is how many check-ins more than are judged a series may hold, so that
// the old ones need not go one by one.
const slack = maxEvents / 4

// latest returns those of the check-ins that are judged.
func latest(events []Event) []Event { return events[max(0, len(events)-maxEvents):] }

// Scores is what a series of check-ins looks like.
type Scores struct {
	Total                      float64 // mean of those below that there are
	Time, Size, Hist, Duration float64 // Size is -1 when no bytes are known
	Period                     float64 // s
	Jitter                     float64 // share of the period by which half of the check-ins are off at most
	Span                       int64   // s between first and last
	N                          int     // check-ins judged
	Failed                     float64 // share of them
	Small                      bool    // all but the same few bytes each time
	Tiny                       bool    // so few that it does not matter whether they are the same
}

const (
	// minSteady, in seconds, and maxJitter are the median pause and the share
	// of it by which half of the pauses are off at most, for them to be the same.
	minSteady, maxJitter = 10, 0.1
	// perBin is how many check-ins a bin of the histogram has in the mean.
	// With fewer, chance alone makes an even beacon look uneven.
	perBin = 4
	// smallReply is how many bytes, sent and received in the mean, are little;
	// pieces of music, films and copies of files are larger.
	smallReply = 16 << 10
	// tiny is how many bytes either way, with headers, are an exchange of a few
	// words: a TCP connection without any has some 300.
	tiny = 512
	// steady is the share of the median size up to which sizes are the same.
	steady = 0.05
)

// judge scores the latest of at least three check-ins.
func judge(events []Event) Scores {
	events = latest(events)
	n := len(events)
	var room [2][maxEvents]float64
	deltas, sent := room[0][:0], room[1][:0]
	failed, got := 0, 0.0
	for i, e := range events {
		if i > 0 {
			deltas = append(deltas, float64(e.T-events[i-1].T))
		}
		if e.Sent > 0 {
			sent = append(sent, float64(e.Sent))
		}
		if e.Failed {
			failed++
		}
		got += float64(e.Got)
	}
	first, last := events[0].T, events[n-1].T
	s := Scores{N: n, Span: int64(last - first), Failed: float64(failed) / float64(n), Size: -1}
	var mad float64
	s.Time, s.Period, mad = spread(deltas, 1)
	if s.Period > 0 {
		s.Jitter = mad / s.Period
	}
	if s.Period >= minSteady && s.Jitter <= maxJitter {
		// A few orders carried out in between make the rest look skewed, but
		// that half of the pauses are the same is no chance.
		s.Time = max(s.Time, 1-s.Jitter)
	}
	if s.Time < minTime || 2*s.Period*float64(n-1) < float64(s.Span) {
		// Check-ins of several connections have several sorts of pauses, and
		// the median may be one of the short ones.
		if p, strength := period(events); strength >= minStrength {
			s.Time, s.Period, s.Jitter = max(s.Time, strength), p, 0
		}
	}
	if len(sent) >= n/2 {
		var size float64
		s.Size, size, mad = spread(sent, 0)
		s.Small = mad <= steady*size && size <= smallReply && got <= smallReply*float64(n)
		s.Tiny = size <= tiny && got <= tiny*float64(n)
	}
	counts := histogram(events, max(1, min(bins, n/perBin)))
	s.Hist = histogramScore(counts)
	s.Duration = min(1, float64(longestRun(counts, false))/math.Ceil(float64(len(counts))/2))
	if s.Size < 0 {
		s.Total = (s.Time + s.Hist + s.Duration) / 3
	} else {
		s.Total = (s.Time + s.Size + s.Hist + s.Duration) / 4
	}
	s.Total = math.Round(1000*s.Total) / 1000
	return s
}

// histogram counts the events in n bins between the first and the last.
func histogram(events []Event, n int) []int {
	counts := make([]int, n)
	first := uint64(events[0].T)
	span := uint64(events[len(events)-1].T) - first + 1
	for _, e := range events {
		counts[(uint64(e.T)-first)*uint64(n)/span]++
	}
	return counts
}

const (
	buckets = 512 // of the autocorrelation
	// minPeriods is how often a period must have come round.
	minPeriods = 6
	// minStrength is the correlation from which a period is one.
	minStrength = 0.7
	// multiples is over how many multiples of a lag the mean is taken.
	multiples = 3
)

// kernel spreads a check-in over five buckets (1, 2, 3, 2, 1), so that one that
// is a little off still correlates; smeared is its correlation with itself.
var smeared = [...]float64{19, 16, 10, 4, 1}

const kernel = 9 // its sum

// period finds the time after which the check-ins best repeat themselves: the
// autocorrelation of their density, the mean over the first multiples of a
// lag. It returns 0, 0 where there is none. Check-ins are few, so it counts
// the differences between them in place of multiplying densities.
func period(events []Event) (seconds, strength float64) {
	n := len(events)
	if n < 2*minEvents {
		return 0, 0
	}
	first, last := events[0].T, events[n-1].T
	width := max(1, float64(last-first+1)/buckets)
	used := int(float64(last-first)/width) + 1
	var bucket [maxEvents]int
	var pairs [buckets]float64 // of check-ins, by the buckets between them
	pairs[0] = float64(n)
	for j, e := range events {
		bucket[j] = int(float64(e.T-first) / width)
		for i := range j {
			d := bucket[j] - bucket[i]
			if pairs[d]++; d == 0 {
				pairs[d]++ // either way round
			}
		}
	}
	product := func(lag int) float64 {
		sum := smeared[0] * pairs[lag]
		for k := 1; k < len(smeared); k++ {
			below := lag - k
			if below < 0 {
				below = -below
			}
			sum += smeared[k] * (pairs[below] + pairs[min(lag+k, buckets-1)])
		}
		return sum / float64(used-lag)
	}
	mean := float64(n*kernel) / float64(used)
	variance := product(0) - mean*mean
	if variance <= 0 {
		return 0, 0
	}
	var r [buckets]float64
	for lag := 1; lag <= min(used/2+1, used-1); lag++ {
		r[lag] = (product(lag) - mean*mean) / variance
	}
	low := 1.0 // a period too short to be told apart has no valley before it
	for lag := 1; lag <= used/minPeriods; lag++ {
		low = min(low, r[lag])
		if lag < len(smeared) || low > minStrength/2 {
			continue
		}
		sum := 0.0
		for k := 1; k <= multiples; k++ {
			// The multiple of a rounded lag may be a bucket off.
			sum += max(r[k*lag-1], r[k*lag], r[k*lag+1])
		}
		if m := sum / multiples; m > strength+0.02 { // the shortest of equals
			seconds, strength = float64(lag)*width, m
		}
	}
	return seconds, strength
}
