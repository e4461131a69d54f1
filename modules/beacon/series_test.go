package beacon

import (
	"math"
	"slices"
	"testing"
)

// Events come in any order, and a second counts once.
func TestAdd(t *testing.T) {
	var ev []Event
	own := 0
	for _, at := range []uint32{50, 20, 30, 20, 10, 60, 30} {
		var ok bool
		if ev, ok = add(ev, Event{T: at, Failed: at != 30 || own > 3}); ok {
			own++
		}
	}
	var got []uint32
	for _, e := range ev {
		got = append(got, e.T)
	}
	if own != 5 || !slices.Equal(got, []uint32{10, 20, 30, 50, 60}) {
		t.Errorf("%d: %v", own, got)
	}
	if ev[2].Failed {
		t.Error("one answer in a second is an answer")
	}
	for i := range 500 {
		ev, _ = add(ev, Event{T: uint32(1000 + i)})
	}
	if len(ev) > maxEvents+slack {
		t.Errorf("%d events", len(ev))
	}
	if ev = latest(ev); len(ev) != maxEvents || ev[0].T != 1500-maxEvents || ev[maxEvents-1].T != 1499 {
		t.Errorf("%d from %d to %d", len(ev), ev[0].T, ev[len(ev)-1].T)
	}
	if _, ok := add(ev, Event{T: 5}); ok {
		t.Error("from before all that is remembered")
	}
	if ev, ok := add(ev, Event{T: 2000}); !ok || !slices.IsSortedFunc(ev, func(a, b Event) int { return int(a.T) - int(b.T) }) {
		t.Error("not in order")
	}
}

func at(times ...uint32) []Event {
	var ev []Event
	for _, x := range times {
		ev, _ = add(ev, Event{T: x, Sent: 300})
	}
	return ev
}

// The autocorrelation finds the period that differing pauses hide.
func TestPeriod(t *testing.T) {
	var twice, thrice, chance []uint32
	seed := uint64(1)
	x := 0.0
	for i := range uint32(24) {
		twice = append(twice, 600*i, 600*i+40)
		thrice = append(thrice, 300*i, 300*i+11, 300*i+90)
	}
	for range 96 {
		seed = seed*6364136223846793005 + 1442695040888963407
		x -= 100 * math.Log(float64(seed>>11+1)/(1<<53))
		chance = append(chance, uint32(x))
	}
	if p, s := period(at(twice...)); math.Abs(p-600) > 30 || s < minStrength {
		t.Errorf("two connections every 600 s: %v, %v", p, s)
	}
	if p, s := period(at(thrice...)); math.Abs(p-300) > 15 || s < minStrength {
		t.Errorf("three connections every 300 s: %v, %v", p, s)
	}
	if p, s := period(at(chance...)); s >= minStrength {
		t.Errorf("by chance: %v, %v", p, s)
	}
	if s := judge(at(twice...)); math.Abs(s.Period-600) > 30 || s.Time < minTime {
		t.Errorf("judged: %+v", s)
	}
	var short []uint32
	for i := range uint32(96) {
		short = append(short, 4*i+900*(i/48)) // the buckets are 2.5 s wide
	}
	if s := judge(at(short...)); s.Period != 4 {
		t.Errorf("every 4 s with a pause in the middle: %+v", s)
	}
	if _, s := period(at(0, 60, 120, 180, 240)); s != 0 {
		t.Errorf("five are too few: %v", s)
	}
}

// Half of the pauses the same is a beacon even if orders were carried out in
// between; without, RITA's skew takes it for chance.
func TestSteady(t *testing.T) {
	x := uint32(0)
	times := []uint32{0}
	for _, d := range []uint32{300, 306, 20, 303, 304, 9, 304, 307, 90, 90, 304, 312, 305, 15, 306} {
		x += d
		times = append(times, x)
	}
	ev := at(times...)
	var deltas []float64
	for i := 1; i < len(ev); i++ {
		deltas = append(deltas, float64(ev[i].T-ev[i-1].T))
	}
	if s := timestampScore(deltas); s > 0.6 {
		t.Errorf("RITA: %v", s)
	}
	if s := judge(ev); s.Time < 0.9 {
		t.Errorf("got %+v", s)
	}
}

// TestLatest says how far the time score of the latest 96 check-ins is from
// that of the thousand of a day, as the README states: for intervals that are
// off by up to a half, the worst that is to be found.
func TestLatest(t *testing.T) {
	const days = 300
	var off []float64
	pass := 0
	for seed := range random(days) {
		r, x := seed<<32, 0.0
		var times []uint32
		for range 1000 {
			times = append(times, uint32(x))
			x += r.between(43, 129)
		}
		var all []float64
		for i := 1; i < len(times); i++ {
			all = append(all, float64(times[i]-times[i-1]))
		}
		s, whole := judge(at(times...)), timestampScore(all)
		if s.N != maxEvents || s.Duration != 1 || s.Size != 1 {
			t.Fatalf("%+v", s)
		}
		if s.Time >= minTime && s.Jitter <= maxOff {
			pass++
		}
		off = append(off, math.Abs(s.Time-whole))
	}
	slices.Sort(off)
	if m := off[days/2]; m > 0.05 {
		t.Errorf("half of them are off by more than %.3f", m)
	}
	if m := off[days*95/100]; m > 0.13 {
		t.Errorf("one in twenty is off by more than %.3f", m)
	}
	if pass < days*97/100 {
		t.Errorf("%d of %d are steady", pass, days)
	}
}
