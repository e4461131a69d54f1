// Package selftest holds a capture in which each module finds each type of
// evidence that it can find, the lists of indicators that go with it, and says
// what of it a run has found.
package selftest

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
)

// The capture and the lists are written by "go test ./internal/selftest
// -update" from the scenes in scenes_test.go.
//
//go:embed capture knowledge
var files embed.FS

const (
	dir      = "capture"
	manifest = "cases.json"
	lists    = "knowledge"
)

// Home is the network that the hosts of the capture are in. A run over it
// must take this one for its own.
const Home = "10.0.0.0/8"

// Case is one thing to be found in the capture.
type Case struct {
	Module string        `json:"module"`
	Type   evidence.Type `json:"type"`
	Host   netip.Addr    `json:"host"` // the profile of the evidence; no other case has it for this module and type
	What   string        `json:"what"` // what happens there
}

// Cases returns what is to be found in the capture.
func Cases() ([]Case, error) {
	text, err := files.ReadFile(dir + "/" + manifest)
	if err != nil {
		return nil, err
	}
	var list []Case
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", manifest, err)
	}
	return list, nil
}

// Unpack writes the logs of the capture into a directory, which must be there.
func Unpack(to string) error {
	logs, err := fs.ReadDir(files, dir)
	if err != nil {
		return err
	}
	for _, l := range logs {
		if l.Name() == manifest {
			continue
		}
		text, err := files.ReadFile(dir + "/" + l.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, l.Name()), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Knowledge says where the things are that the capture is looked up in.
type Knowledge struct {
	File  string // a feeds.yaml of feeds that are files beside it
	Local string // directory of local lists
	Geo   string // directory of databases of places
}

// UnpackKnowledge writes what the capture is looked up in into a directory,
// which is made if it is not there. A run that does not know it finds nothing
// of what the feeds list.
func UnpackKnowledge(to string) (Knowledge, error) {
	all, err := fs.Sub(files, lists)
	if err != nil {
		return Knowledge{}, err
	}
	if err := os.CopyFS(to, all); err != nil {
		return Knowledge{}, err
	}
	return Knowledge{File: filepath.Join(to, "feeds.yaml"), Local: filepath.Join(to, "local"), Geo: filepath.Join(to, "geo")}, nil
}

// Status says what became of a case.
type Status string

// The statuses.
const (
	Fired  Status = "fired"  // the evidence came, about the right host
	Off    Status = "off"    // the configuration does not want it
	Failed Status = "FAILED" // it did not come
)

// Settings is what the configuration of a run says about modules.
type Settings struct {
	Enabled  func(module string) bool
	Disabled []string                     // types of evidence that are not wanted
	Given    func(module string) []string // settings that bear on the module and are given somewhere; nil: none
}

// Result is one pair of module and type of evidence.
type Result struct {
	Type        evidence.Type `json:"type"`
	Module      string        `json:"module"`
	Status      Status        `json:"status"`
	Host        string        `json:"host,omitempty"`
	What        string        `json:"what,omitempty"`
	Description string        `json:"description,omitempty"` // of the evidence
	Reason      string        `json:"reason,omitempty"`      // why it is off, or may have failed
}

// Missing is a type of evidence of the reference that this version does not
// have.
type Missing struct {
	Type   evidence.Type `json:"type"`
	Reason string        `json:"reason"`
}

// Report is the outcome of a self-test.
type Report struct {
	Results   []Result  `json:"results"`
	Missing   []Missing `json:"not_in_this_version"`
	Types     Count     `json:"types"`
	Pairs     Count     `json:"pairs"`
	Reference Built     `json:"reference"` // types of the Python version
}

// Built is how many types this version can find of how many, whatever fired.
type Built struct {
	Built int `json:"built"`
	Of    int `json:"of"`
}

// Count is how many of how many.
type Count struct {
	Fired int `json:"fired"`
	Off   int `json:"off"`
	Of    int `json:"of"`
}

// OK reports whether all that is switched on was found.
func (r *Report) OK() bool {
	return !slices.ContainsFunc(r.Results, func(x Result) bool { return x.Status == Failed })
}

// Judge compares what a run over the capture has found with what its modules
// can find. The list of types comes from the modules alone: one without a
// case fails.
func Judge(specs []modules.Spec, cases []Case, s Settings, found []evidence.Evidence) *Report {
	r := &Report{Results: []Result{}, Missing: []Missing{}}
	status := make(map[evidence.Type]Status) // the best among the modules that have it
	for _, spec := range specs {
		for _, e := range spec.Emits {
			x := judge(spec.Name, e.Type, cases, s, found)
			r.Results = append(r.Results, x)
			r.Pairs.add(x.Status)
			if old, ok := status[e.Type]; !ok || rank(x.Status) > rank(old) {
				status[e.Type] = x.Status
			}
		}
	}
	for _, st := range status {
		r.Types.add(st)
	}
	for _, t := range reference() {
		r.Reference.Of++
		if _, ok := status[t.Type]; ok {
			r.Reference.Built++
			continue
		}
		reason := t.why
		if reason == "" {
			reason = "no module reports it"
		}
		r.Missing = append(r.Missing, Missing{t.Type, reason})
	}
	return r
}

func (c *Count) add(s Status) {
	c.Of++
	switch s {
	case Fired:
		c.Fired++
	case Off:
		c.Off++
	case Failed:
	}
}

// rank orders statuses for a type that several modules have: it has fired when
// one found it, and has failed rather than being off.
func rank(s Status) int { return slices.Index([]Status{Off, Failed, Fired}, s) }

func judge(module string, typ evidence.Type, cases []Case, s Settings, found []evidence.Evidence) Result {
	x := Result{Type: typ, Module: module, Status: Failed}
	i := slices.IndexFunc(cases, func(c Case) bool { return c.Module == module && c.Type == typ })
	if i >= 0 {
		x.Host, x.What = cases[i].Host.String(), cases[i].What
	}
	switch {
	case !s.Enabled(module):
		x.Status, x.Reason = Off, "the module is switched off (modules.disable)"
		return x
	case slices.Contains(s.Disabled, string(typ)):
		x.Status, x.Reason = Off, "this evidence is not wanted (DisabledAlerts.disabled_detections)"
		return x
	case i < 0:
		x.Reason = "the capture has no case for it"
		return x
	}
	for _, e := range found {
		if e.Module == module && e.Type == typ && e.Profile == cases[i].Host {
			x.Status, x.Description = Fired, e.Description
			return x
		}
	}
	x.Reason = "not found in the capture"
	if s.Given != nil {
		if given := s.Given(module); len(given) > 0 {
			x.Reason += ", perhaps because of " + strings.Join(given, ", ")
		}
	}
	return x
}
