package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The garbage collector of Go lets the heap grow to twice what is live. Here
// little is live (the states of the modules) and much passes through (batches
// of records), so a small live heap would be collected all the time, and a
// larger one would take twice its size. pace keeps the heap at heapFloor while
// less than half of that is live, and at 1¾ times the live heap above.
const (
	heapFloor  = 80 << 20 // bytes
	minPercent = 75       // growth of the heap between collections, as in GOGC
	maxPercent = 2000
	paceEvery  = 200 * time.Millisecond
)

// percent returns the setting of the collector for a live heap of so many bytes.
func percent(live uint64) int {
	if live == 0 {
		return maxPercent
	}
	return int(min(max(100*(heapFloor-min(live, heapFloor))/live, minPercent), maxPercent))
}

// pace sets the collector until ctx is done. It leaves it alone when the user
// has set GOGC.
func pace(ctx context.Context, getenv func(string) string) {
	if getenv("GOGC") != "" {
		return
	}
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	t := time.NewTicker(paceEvery)
	defer t.Stop()
	last := 0
	for {
		metrics.Read(sample)
		if p := percent(sample[0].Value.Uint64()); p != last {
			debug.SetGCPercent(p)
			last = p
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
