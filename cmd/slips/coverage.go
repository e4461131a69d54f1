package main

import (
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/coverage"
	"github.com/slips-go/slips/profiler/profile"
)

// covered watches for what the sensor does not log, and says so once: before a
// replay of logs by how they begin, for a follower once it can judge, and else
// at the end. summary.json has what the whole run showed.
type covered struct {
	*coverage.Watch
	specs []modules.Spec
	told  bool // by the sequencer's goroutine, or when it is over
}

// watchCoverage makes r.cover.
func (r *run) watchCoverage() {
	r.cover = new(covered)
	for _, m := range r.o.Modules {
		r.cover.specs = append(r.cover.specs, m.Spec)
	}
	var tell func(*coverage.Report)
	if r.o.Follow {
		tell = r.tellCoverage
	}
	r.cover.Watch = coverage.New(r.cover.specs, tell)
}

// glance judges logs by how they begin, when all of them can be, and tells the
// watch who reads packets. It is called before anything runs.
func (r *run) glance() {
	for _, in := range r.packets.inputs() {
		r.cover.Meter(in.Kinds)
	}
	packets := len(r.packets.captures)+len(r.packets.interfaces) > 0
	if r.packets.byZeek {
		r.cover.Scripts()
	}
	if packets || r.o.Follow {
		return
	}
	w := coverage.New(r.cover.specs, nil)
	known := true
	all := r.set.Glance(func(kinds flow.KindSet, fields []string) {
		known = known && kinds != 0
		w.Log(kinds)
		for k := range flow.NumKinds {
			if kinds.Single() && kinds.Has(k) && fields != nil {
				w.Header(k, fields)
				r.cover.Header(k, fields)
			}
		}
	}, func(f *flow.Flow) { w.Flow(f, profile.Window{}) })
	if all && known && len(r.set.Inputs) > 0 {
		r.tellCoverage(w.Report())
	}
}

// tellCoverage tells the user and slips.log what is missing.
func (r *run) tellCoverage(c *coverage.Report) {
	r.cover.told = true
	c.Log(r.log.With("part", "coverage"))
	lines := c.Lines()
	if !r.o.Follow && r.o.Config.Parameters.Verbose < 2 && len(lines) > 1 {
		lines = lines[:1] // who reads what is over can do little about it, and slips.log has all
	}
	for _, line := range lines {
		r.ui.Note(line)
	}
}

// judgeCoverage returns what the whole run showed, and tells it if nothing was
// told before.
func (r *run) judgeCoverage() *coverage.Report {
	c := r.cover.Report()
	if !r.cover.told && len(c.Records) > 0 {
		r.tellCoverage(c)
	}
	return c
}
