package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/slips-go/slips/alerts/export"
)

// moduleCost is what one module cost in a run.
type moduleCost struct {
	Name     string  `json:"name"`
	Calls    int64   `json:"calls"`
	Seconds  float64 `json:"seconds"` // estimated from the calls that were timed
	Share    float64 `json:"share"`   // of the time of all modules
	NS       float64 `json:"ns_per_call"`
	Evidence int64   `json:"evidence"`
}

// profileModules prints what the modules cost in the run whose output is in
// dir. One call in 256 is timed, so the times are estimates; the choice which
// records a module wants is not in them.
func (p *program) profileModules(dir string, asJSON bool) error {
	path := filepath.Join(dir, "summary.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return &codeError{exitInput, fmt.Errorf("no summary of a run: %w", err)}
	}
	var s export.Summary
	if err := json.Unmarshal(data, &s); err != nil {
		return &codeError{exitInput, fmt.Errorf("%s is not the summary of a run: %w", path, err)}
	}
	costs, total := costsOf(s.Modules)
	if asJSON {
		text, err := json.MarshalIndent(costs, "", "  ")
		if err != nil {
			return fmt.Errorf("BUG: cost of modules: %w", err)
		}
		return p.print(string(text) + "\n")
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "MODULE\tCALLS\tSECONDS\tSHARE\tNS/CALL\tEVIDENCE\t") // a strings.Builder takes everything
	for _, c := range costs {
		_, _ = fmt.Fprintf(w, "%s\t%d\t%.3f\t%.1f %%\t%.0f\t%d\t\n", c.Name, c.Calls, c.Seconds, 100*c.Share, c.NS, c.Evidence)
	}
	_ = w.Flush() // as above
	fmt.Fprintf(&b, "all modules: about %.3f s of processor time in a run of %.3f s, over %d records; one call in 256 was timed\n",
		total, s.Wall, s.Records)
	return p.print(b.String())
}

// costsOf returns what the modules cost, the dearest first, and all together in seconds.
func costsOf(mods []export.ModuleSummary) (costs []moduleCost, total float64) {
	for _, m := range mods {
		c := moduleCost{Name: m.Name, Calls: m.Calls, Evidence: m.Evidence}
		if m.Samples > 0 {
			c.NS = float64(m.SampledNS) / float64(m.Samples)
			c.Seconds = c.NS * float64(m.Calls) / 1e9
		}
		total += c.Seconds
		costs = append(costs, c)
	}
	for i := range costs {
		if total > 0 {
			costs[i].Share = costs[i].Seconds / total
		}
	}
	slices.SortStableFunc(costs, func(a, b moduleCost) int {
		return cmp.Or(cmp.Compare(b.Seconds, a.Seconds), cmp.Compare(a.Name, b.Name))
	})
	return costs, total
}
