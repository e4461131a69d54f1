package main

import (
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
)

// The same input gives the same bytes, on any number of lanes and processors.
func TestSameBytesOnAnyLanes(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	for _, c := range []struct {
		name  string
		input func(testing.TB) string
		few   bool // it is large
		args  []string
	}{
		{"demo", captured("demo"), false, nil},
		{"demo-all", captured("demo"), false, []string{"--analysis-direction", "all"}},
		{"suricata", captured("suricata"), false, nil},
		{"argus", captured("argus"), false, nil},
		{"isc-2021-10", shared("zeek/isc-2021-10"), false, nil},
		{"test9-mixed", shared("zeek/test9-mixed"), false, nil},
		{"eve-scanned-home", shared("suricata/eve-scanned-home.json"), false, []string{"--analysis-direction", "all"}},
		{"bittorrent", shared("argus/benign-bittorrent-normal-7.binetflow"), false, nil},
		{
			"few profiles", shared("argus/benign-bittorrent-normal-7.binetflow"), false,
			[]string{"--analysis-direction", "all", "--set", "profiler.max_profiles=50", "--set", "parameters.time_window_width=120"},
		},
		{"maccdc-06", shared("scale/maccdc-06"), true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			input := c.input(t)
			if c.few && testing.Short() {
				t.Skip("large")
			}
			analyse := func(lanes, procs int) map[string]string {
				runtime.GOMAXPROCS(procs)
				out := filepath.Join(t.TempDir(), "out")
				analyseFiles(t, out, append([]string{input, "--lanes", fmt.Sprint(lanes)}, c.args...)...)
				return bytesOf(t, out)
			}
			want := analyse(1, before)
			if len(want["evidence.jsonl"]) == 0 {
				t.Fatal("no evidence: the test shows nothing")
			}
			for _, lanes := range []int{1, 2, 3, 5} {
				for _, procs := range []int{1, 2, 4} {
					if c.few && lanes != procs+1 || testing.Short() && lanes%2 == 1 {
						continue
					}
					for name, text := range analyse(lanes, procs) {
						if text != want[name] {
							t.Errorf("lanes %d, GOMAXPROCS %d: %s differs from that of one lane", lanes, procs, name)
						}
					}
				}
			}
		})
	}
}

// captured returns a capture of the repository, shared one of the data sets.
func captured(name string) func(testing.TB) string {
	return func(testing.TB) string { return testdata("captures", name) }
}

func shared(name string) func(testing.TB) string {
	return func(t testing.TB) string {
		t.Helper()
		return dataset(t, name)
	}
}
