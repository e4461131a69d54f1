package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/config"
	"github.com/slips-go/slips/internal/eval"
)

// evalFlags are the flags of "slips eval".
type evalFlags struct {
	truth, base, output                string
	scenarios                          []string
	sweep, json, markdown, overwriting bool
}

func (p *program) evalCommand() *cobra.Command {
	var f evalFlags
	cmd := &cobra.Command{
		Use:   "eval {--truth FILE [--base DIR] | LABELLED...}",
		Short: "Compare alerts with the truth about labelled captures",
		Long: `Analyse captures of which the truth is known, as "slips -f" would, and tell how
far the alerts agree with it, host-window by host-window, and what evidence is
behind each error. -c and --set apply, so settings can be tried.

The truth is in a file (--truth), an array of JSON objects with the fields
  id          name of the scenario
  path        of a log, a directory of logs, or a pcap beside which there is
              zeek-logs/NAME/; relative to --base. Of a Zeek log all logs in
              its directory are read.
  label_kind  how bad windows are found: rule, per-flow or scenario
  infected, attackers, monitored
              lists of addresses
  rules       objects with orig, resp, port (of the responder), proto: one or
              a list of each; tag, flows (how many there should be)
or in the logs: Zeek and Argus logs with labels (columns label, detailedlabel;
Malicious, Malware, Botnet or Attack is bad), each argument a capture of its own.

` + eval.Definitions,
		Example: `  slips eval --truth datasets/ground_truth.json --sweep
  slips eval --truth datasets/ground_truth.json --scenario isc --set modules.portscan.min_hosts=10
  slips eval conn.log.labeled --json | jq .total`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.evaluate(cmd.Context(), &f, args)
		},
	}
	s := cmd.Flags()
	s.SortFlags = false
	s.StringVar(&f.truth, "truth", "", "`FILE` with the truth about captures")
	s.StringVar(&f.base, "base", "", "`DIR` that the paths in it start from (default: that of the file)")
	s.StringArrayVar(&f.scenarios, "scenario", nil, "only the scenarios whose id contains `TEXT`; may be repeated")
	s.BoolVar(&f.sweep, "sweep", false, "tell what other thresholds would give")
	s.BoolVar(&f.json, "json", false, "print JSON")
	s.BoolVar(&f.markdown, "markdown", false, "print Markdown")
	s.StringVarP(&f.output, "output", "o", "", "keep the results of each run in a directory of `DIR`")
	s.BoolVar(&f.overwriting, "overwrite", false, "replace the results of an earlier run there")
	return cmd
}

// evaluate is the command eval.
func (p *program) evaluate(ctx context.Context, f *evalFlags, args []string) error {
	list, err := f.list(args)
	if err != nil {
		return err
	}
	c, err := p.load("", config.Override{Key: "parameters.export_labeled_flows", Value: "false", Origin: "eval"})
	if err != nil {
		return err
	}
	for _, w := range c.Warnings {
		p.complain(errors.New("warning: " + w))
	}
	output := f.output
	if output == "" {
		if output, err = os.MkdirTemp("", "slips-eval-"); err != nil {
			return &codeError{exitOutput, fmt.Errorf("directory for the results of the runs: %w", err)}
		}
		defer func() { _ = os.RemoveAll(output) }() // what is left of it is in the system's care
	}
	var results []*eval.Result
	for _, s := range list {
		res, err := p.scenario(ctx, f, c, s, filepath.Join(output, s.ID))
		switch {
		case ctx.Err() != nil:
			p.complain(errors.New("stopped before the end of the evaluation"))
			p.code = exitInterrupted
			return nil
		case err != nil:
			return fmt.Errorf("scenario %s: %w", s.ID, err)
		case res != nil:
			results = append(results, res)
		}
	}
	if len(results) == 0 {
		return &codeError{exitInput, errors.New("there is no capture to evaluate")}
	}
	r := eval.NewReport(alertConfig(c), c.Parameters.TimeWindowWidth.Duration(), results)
	if f.sweep {
		r.AddSweep(eval.Settings(c.Detection.EvidenceDetectionThreshold))
	}
	return p.printReport(f, r)
}

func (p *program) printReport(f *evalFlags, r *eval.Report) error {
	switch {
	case f.json:
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return fmt.Errorf("BUG: evaluation: %w", err)
		}
		return p.print(string(harmless(text)) + "\n")
	case f.markdown:
		return p.print(clean(r.Markdown()))
	}
	return p.print(clean(r.Text()))
}

// clean is printable for a text of many lines.
func clean(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = printable(strings.TrimRight(lines[i], " "))
	}
	return strings.Join(lines, "\n")
}

// list returns the scenarios that the flags and arguments name, their paths
// as given.
func (f *evalFlags) list(args []string) ([]*eval.Scenario, error) {
	switch {
	case f.json && f.markdown:
		return nil, badFlags("--json and --markdown cannot be combined")
	case f.truth != "" && len(args) > 0:
		return nil, badFlags("--truth and labelled logs cannot be combined")
	case f.truth == "" && len(args) == 0:
		return nil, badFlags("nothing to do: name labelled logs, or the truth about some with --truth")
	case f.truth == "" && f.base != "":
		return nil, badFlags("--base is of no use without --truth")
	}
	if f.truth == "" {
		var list []*eval.Scenario
		taken := make(map[string]bool)
		for _, path := range args {
			if path == "" || path == "-" {
				return nil, badFlags("%q is no path of a labelled log", path)
			}
			name := baseName(path)
			id := name
			for n := 2; taken[id]; n++ {
				id = fmt.Sprintf("%s-%d", name, n)
			}
			taken[id] = true
			list = append(list, eval.LabelledScenario(id, path))
		}
		return f.chosen(list)
	}
	text, err := os.ReadFile(f.truth)
	if err != nil {
		return nil, &codeError{exitInput, fmt.Errorf("truth: %w", err)}
	}
	list, err := eval.ParseTruth(f.truth, text)
	if err != nil {
		return nil, &codeError{exitUsage, err}
	}
	return f.chosen(list)
}

// chosen returns the scenarios that --scenario asks for.
func (f *evalFlags) chosen(list []*eval.Scenario) ([]*eval.Scenario, error) {
	if len(f.scenarios) == 0 {
		return list, nil
	}
	var some []*eval.Scenario
	for _, s := range list {
		if slices.ContainsFunc(f.scenarios, func(t string) bool { return strings.Contains(s.ID, t) }) {
			some = append(some, s)
		}
	}
	if len(some) == 0 {
		return nil, badFlags("--scenario %q: there is none with such an id", f.scenarios)
	}
	return some, nil
}

// scenario analyses one capture. One that is not there, or from which no record
// could be read, is a problem of the input, and the others are evaluated.
func (p *program) scenario(ctx context.Context, f *evalFlags, c *config.Config, s *eval.Scenario, output string) (*eval.Result, error) {
	path, err := f.input(s)
	if err != nil {
		p.complain(fmt.Errorf("scenario %s: %w", s.ID, err))
		p.code = exitInput
		return nil, nil
	}
	observer := eval.NewObserver(s, homes(c.Parameters.ClientIPs), alertConfig(c), c.Parameters.TimeWindowWidth.Duration())
	res, err := analyse(ctx, runOptions{
		Paths: []string{path}, Format: "auto", Output: output, Overwrite: f.overwriting, Config: c, Modules: p.enabled(c),
		Command: []string{"slips", "eval"}, Version: version(), Start: time.Now(), Watch: observer,
	}, evalUI{observer: observer})
	if err != nil {
		return nil, err
	}
	for _, problem := range res.Problems {
		p.complain(fmt.Errorf("scenario %s: %w", s.ID, problem))
		p.code = exitInput
	}
	switch {
	case res.Summary.Records == 0 && len(res.Problems) > 0: // which say why
		return nil, nil
	case res.Summary.Records == 0:
		err = errors.New("no record could be read")
	case s.ByLabel && !observer.Labelled():
		err = errors.New("no record carries a label (columns label, detailedlabel)")
	default:
		return observer.Result(), nil
	}
	p.complain(fmt.Errorf("scenario %s: %s: %w", s.ID, path, err))
	p.code = exitInput
	return nil, nil
}

// input returns the path to analyse for a scenario.
func (f *evalFlags) input(s *eval.Scenario) (string, error) {
	if s.ByLabel {
		_, err := os.Stat(s.Path)
		return s.Path, err
	}
	base := f.base
	if base == "" {
		base = filepath.Dir(f.truth)
	}
	path := filepath.FromSlash(s.Path)
	if !filepath.IsAbs(path) {
		path = filepath.Join(base, path)
	}
	switch ext := filepath.Ext(path); ext {
	case ".pcap", ".pcapng", ".cap":
		logs := filepath.Join(filepath.Dir(path), "zeek-logs", strings.TrimSuffix(filepath.Base(path), ext))
		if _, err := os.Stat(logs); errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("%s cannot be read by itself, and its Zeek logs are not in %s", path, logs)
		} else if err != nil {
			return "", err
		}
		return logs, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.IsDir() && strings.HasPrefix(s.Format, "zeek") {
		// The other logs of the sensor lie beside it; of copies of one log the
		// labelled one is read.
		return filepath.Dir(path), nil
	}
	return path, nil
}

// evalUI tells an observer what there was and shows nothing.
type evalUI struct {
	quietUI
	observer *eval.Observer
}

var _ UI = evalUI{}

// Evidence implements alerts.Sink.
func (u evalUI) Evidence(e *evidence.Evidence, accumulated float64) error {
	return u.observer.Evidence(e, accumulated)
}

// Alert implements alerts.Sink.
func (u evalUI) Alert(a *alerts.Alert) error { return u.observer.Alert(a) }
