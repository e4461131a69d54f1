package main

import (
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
