package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"time"

	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/parsers"
)

// engineKey is the key in export.Summary.Extra of who has read the packets.
const engineKey = "engine"

// summarise writes summary.json and the end of the run to the metadata, and
// fills in s unless it is nil.
func (r *run) summarise(s *export.Summary) error {
	if s == nil {
		s = new(export.Summary)
	}
	x := r.engine.Stats().Snapshot()
	a := r.alerts.Stats()
	wall := time.Since(r.o.Start).Seconds()
	*s = export.Summary{
		Version: r.o.Version, Records: x.Records, Kinds: map[string]int64{}, Rejected: map[string]int64{}, Late: x.Late,
		Profiles: export.ProfileSummary{Seen: x.ProfilesSeen, Evicted: x.Evicted},
		Evidence: export.EvidenceSummary{Total: a.Total, Types: a.Evidence, Duplicates: a.Duplicates, Disabled: a.Disabled},
		Alerts:   a.Alerts, Stream: export.Span(x.First, x.Last), Output: export.OutputSummary{LostLines: r.dir.Lost()},
		Wall: wall, PeakRSS: peakRSS(),
	}
	if x.Records == 0 {
		s.Stream = export.StreamSummary{}
	}
	if wall > 0 {
		s.Rate = float64(x.Records-r.before) / wall
	}
	failed := map[string]string{}
	for _, err := range r.set.Failed() {
		var p *parsers.Problem
		if errors.As(err, &p) {
			failed[p.Path] = p.Err.Error()
		}
	}
	for _, src := range x.Sources {
		y := export.SourceSummary{Name: src.Name, Late: src.Late, Ignored: src.Ignored, Rejected: src.Rejected, Error: failed[src.Name]}
		for k, n := range src.Kinds {
			y.Records += n
			s.Kinds[k] += n
		}
		for k, n := range src.Rejected {
			s.Rejected[k] += n
		}
		s.Ignored += src.Ignored
		s.Sources = append(s.Sources, y)
	}
	for _, m := range x.Modules {
		s.Modules = append(s.Modules, export.ModuleSummary{
			Name: m.Name, Missing: m.Missing, Calls: m.Calls, SampledNS: m.Nanos, Samples: m.Samples, Evidence: m.Evidence, Panics: m.Panics,
		})
	}
	if w := r.dir.Flows(); w != nil {
		f := w.Stats()
		s.Flows = &f
	}
	if w := r.dir.Letters(); w != nil {
		l := w.Stats()
		s.Letters = &l
	}
	r.know.summarise(s)
	r.packets.summarise(s)
	s.Blocks = r.firewall.summary()
	s.Extra = map[string]any{"coverage": r.judgeCoverage()}
	if r.info.Engine != "" {
		s.Extra[engineKey] = r.info.Engine
	}
	end := time.Now()
	r.info.End = &end
	return errors.Join(r.dir.WriteSummary(s), r.metadata(), r.hosts())
}

// hosts writes metadata/hosts.jsonl: what the traffic told about hosts.
func (r *run) hosts() error {
	path := r.dir.Path("metadata/hosts.jsonl")
	err := replaceFile(path, func(f *os.File) error {
		w := bufio.NewWriter(f)
		enc := json.NewEncoder(w)
		for _, h := range r.engine.Hosts() {
			if err := enc.Encode(h); err != nil {
				return err
			}
		}
		return w.Flush()
	})
	if err != nil {
		return &export.WriteError{Path: path, Err: err}
	}
	return nil
}
