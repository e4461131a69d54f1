package main

import "testing"

func TestPercent(t *testing.T) {
	for _, c := range []struct {
		liveMB uint64
		want   int
	}{{0, maxPercent}, {1, maxPercent}, {8, 900}, {20, 300}, {40, 100}, {50, 75}, {80, 75}, {1000, 75}} {
		if got := percent(c.liveMB << 20); got != c.want {
			t.Errorf("%d MB live: %d %%, want %d %%", c.liveMB, got, c.want)
		}
	}
}
