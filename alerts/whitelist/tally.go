package whitelist

import (
	"cmp"
	"slices"
	"sync"
)

// Tally counts what each rule suppresses, over all reloads of a list. Any
// goroutine may use it. The zero value is ready.
type Tally struct {
	mu     sync.Mutex
	counts map[string]*Count // by the text of the rule: its line changes with edits
}

// Count is what one rule has suppressed.
type Count struct {
	Line     int    `json:"line"` // in the list in which it last matched
	Rule     string `json:"rule"`
	Flows    int64  `json:"flows"`
	Evidence int64  `json:"evidence"`
}

func (t *Tally) flow(r *Rule) { t.add(r, 1, 0) }

// Evidence counts an evidence that a rule has suppressed, as List.Evidence
// returned it.
func (t *Tally) Evidence(r Rule) { t.add(&r, 0, 1) }

func (t *Tally) add(r *Rule, flows, evidence int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = make(map[string]*Count)
	}
	c := t.counts[r.Text]
	if c == nil {
		c = &Count{Rule: r.Text}
		t.counts[r.Text] = c
	}
	c.Line = r.Line
	c.Flows += flows
	c.Evidence += evidence
}

// Counts returns the rules that have matched, by line and text.
func (t *Tally) Counts() []Count {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Count, 0, len(t.counts))
	for _, c := range t.counts {
		all = append(all, *c)
	}
	slices.SortFunc(all, func(a, b Count) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Rule, b.Rule)) })
	return all
}

// Restore adds the counts of a checkpoint.
func (t *Tally) Restore(counts []Count) {
	for _, c := range counts {
		t.add(&Rule{Line: c.Line, Text: c.Rule}, c.Flows, c.Evidence)
	}
}
