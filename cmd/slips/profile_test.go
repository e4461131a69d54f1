package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/export"
)

func TestCostsOf(t *testing.T) {
	got, total := costsOf([]export.ModuleSummary{
		{Name: "idle"},
		{Name: "cheap", Calls: 1000, Samples: 4, SampledNS: 4_000_000},
		{Name: "dear", Calls: 1000, Samples: 2, SampledNS: 6_000_000, Evidence: 7},
	})
	want := []moduleCost{
		{Name: "dear", Calls: 1000, Seconds: 3, Share: 0.75, NS: 3e6, Evidence: 7},
		{Name: "cheap", Calls: 1000, Seconds: 1, Share: 0.25, NS: 1e6},
		{Name: "idle"},
	}
	if d := cmp.Diff(want, got); d != "" || total != 4 {
		t.Errorf("total %v, (-want +got):\n%s", total, d)
	}
}

// A directory that holds no run is a problem of the input, and what would be
// left aside is refused.
func TestProfileRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args []string
		code int
		said string
	}{
		{[]string{"--profile", dir}, exitInput, "summary.json"},
		{[]string{"--profile", ""}, exitUsage, "--profile"},
		{[]string{"--profile", dir, "--markdown"}, exitUsage, "--markdown"},
	} {
		code, stdout, stderr := runMain(t, nil, append([]string{"modules"}, c.args...)...)
		if code != c.code || stdout != "" || !strings.Contains(stderr, c.said) {
			t.Errorf("%q: exit code %d, want %d: %.100q, %q", c.args, code, c.code, stdout, stderr)
		}
	}
	writeFile(t, filepath.Join(dir, "summary.json"), "[]")
	if code, _, stderr := runMain(t, nil, "modules", "--profile", dir); code != exitInput {
		t.Errorf("a summary that is none: exit code %d: %s", code, stderr)
	}
}
