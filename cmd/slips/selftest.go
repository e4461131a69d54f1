package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/config"
	"github.com/slips-go/slips/feeds"
	"github.com/slips-go/slips/feeds/online"
	"github.com/slips-go/slips/internal/selftest"
)

const selftestHelp = `Analyse a small capture that is built into the program, in which each type of
evidence occurs at least once, and say which of them were found. This is a run
like any other: -c, --set and the environment apply, so it shows what a
configuration switches off. What the capture needs takes the place of your
own: its home network (10.0.0.0/8, whatever client_ips says), its feeds, lists
and database of autonomous systems, the built-in whitelist, and recorded
answers of online services. Nobody is asked and nothing is fetched.

The exit code is 0 when all that is switched on was found, else 3.`

func (p *program) selftestCommand() *cobra.Command {
	var asJSON bool
	var keep string
	cmd := &cobra.Command{
		Use:     "selftest",
		Short:   "Find each type of evidence in a built-in capture",
		Long:    selftestHelp,
		Example: "  slips selftest\n  slips selftest -c my.yaml --json\n  slips selftest -o /tmp/selftest",
		Args:    atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("output") && keep == "" {
				return badFlags("-o: the path is empty")
			}
			r, err := p.selftest(cmd.Context(), keep)
			if err != nil {
				return err
			}
			text := selftestTable(r)
			if asJSON {
				b, err := json.MarshalIndent(r, "", "  ")
				if err != nil {
					return fmt.Errorf("BUG: outcome of the self-test: %w", err)
				}
				text = string(b) + "\n"
			}
			if !r.OK() {
				p.code = exitInput
			}
			return p.print(text)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVarP(&keep, "output", "o", "", "keep the capture and the results in `DIR`")
	return cmd
}

// selftest runs the pipeline over the built-in capture, in a temporary
// directory unless keep names another.
func (p *program) selftest(ctx context.Context, keep string) (_ *selftest.Report, err error) {
	failed := func(err error) error { return &codeError{exitOutput, fmt.Errorf("selftest: %w", err)} }
	if keep == "" {
		if keep, err = os.MkdirTemp("", "slips-selftest-"); err != nil {
			return nil, failed(err)
		}
		defer func() {
			if e := os.RemoveAll(keep); e != nil && err == nil {
				err = failed(e)
			}
		}()
	}
	logs := filepath.Join(keep, "capture")
	if err := os.MkdirAll(keep, 0o755); err != nil {
		return nil, failed(err)
	}
	if err := os.Mkdir(logs, 0o755); err != nil { // what lies there already would be analysed too
		return nil, failed(err)
	}
	if err := selftest.Unpack(logs); err != nil {
		return nil, failed(err)
	}
	q := *p
	q.set = append(q.set[:len(q.set):len(q.set)], "parameters.client_ips="+selftest.Home)
	o, err := q.options(&runFlags{
		files: []string{logs}, format: "auto", output: filepath.Join(keep, "results"), changed: func(string) bool { return false },
	}, nil, []string{"slips", "selftest"})
	if err != nil {
		return nil, err
	}
	interrupted := &codeError{exitInterrupted, errors.New("stopped before the end of the self-test")}
	if err := learn(ctx, filepath.Join(keep, "knowledge"), o.Config); ctx.Err() != nil {
		return nil, interrupted
	} else if err != nil {
		return nil, failed(err)
	}
	ui := new(collectUI)
	res, err := analyse(ctx, *o, ui)
	switch {
	case err != nil:
		return nil, err
	case ctx.Err() != nil:
		return nil, interrupted
	case len(res.Problems) > 0:
		return nil, &codeError{exitInput, errors.Join(res.Problems...)}
	}
	cases, err := selftest.Cases()
	if err != nil {
		return nil, fmt.Errorf("BUG: selftest: %w", err)
	}
	return selftest.Judge(p.specs, cases, selftest.Settings{
		Enabled: o.Config.Enabled, Disabled: o.Config.DisabledAlerts.DisabledDetections, Given: given(o.Config),
	}, ui.found), nil
}

// learn has a configuration look traffic up in what belongs to the capture and
// in nothing else, whatever was configured. It takes the way of an operator:
// feeds that are files are checked, stored and compiled by an update, and local
// lists and databases are found in their directories.
func learn(ctx context.Context, dir string, c *config.Config) error {
	known, err := selftest.UnpackKnowledge(dir)
	if err != nil {
		return err
	}
	c.Feeds = config.Feeds{
		Enabled: true, Directory: filepath.Join(dir, "store"), File: known.File, Local: known.Local, Geo: known.Geo, Databases: []string{},
	}
	c.Whitelists = config.Default().Whitelists
	*onlineConfig(c) = online.DefaultConfig() // all services are off
	m, err := feedsManager(c, discard())
	if err != nil {
		return err
	}
	names, err := fileFeeds(known.File)
	if err != nil {
		return err
	}
	results, err := m.Update(ctx, feeds.UpdateOptions{Names: names})
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range results {
		if r.Outcome != feeds.Added {
			errs = append(errs, fmt.Errorf("feed %s: %s", r.Name, r.Reason))
		}
	}
	return errors.Join(errs...)
}

// fileFeeds returns the names of the feeds that are files on this machine.
func fileFeeds(path string) (names []string, err error) {
	sources, err := feeds.Sources(path)
	for _, s := range sources {
		if s.Path != "" {
			names = append(names, s.Name)
		}
	}
	return names, err
}

// given returns the settings that bear on what a module finds and are not left
// out, with the places where they stand.
func given(c *config.Config) func(string) []string {
	return func(module string) (list []string) {
		for _, key := range []string{
			"modules." + module, "parameters.time_window_width", "parameters.analysis_direction", "profiler.max_profiles",
			"profiler.max_windows", "profiler.late_grace",
		} {
			if from := c.Origin(key); from != "" {
				list = append(list, key+" ("+from+")")
			}
		}
		return list
	}
}

// selftestTable is for people: a line for each module and type.
func selftestTable(r *selftest.Report) string {
	const most = 120 // characters of a description; the JSON has all
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "EVIDENCE\tMODULE\tRESULT\tWHAT WAS FOUND") // a strings.Builder takes everything
	for _, x := range r.Results {
		text := x.Description
		if x.Status != selftest.Fired {
			text = x.Reason
		}
		if runes := []rune(text); len(runes) > most && x.Status == selftest.Fired {
			text = string(runes[:most-1]) + "…"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", x.Type, x.Module, x.Status, printable(text))
	}
	_ = w.Flush() // as above
	if len(r.Missing) > 0 {
		b.WriteString("\nNot in this version:\n")
		for _, m := range r.Missing {
			_, _ = fmt.Fprintf(w, "  %s\t%s\n", m.Type, m.Reason)
		}
		_ = w.Flush()
	}
	fmt.Fprintf(&b, "\nOf the %d types of the Python version %d are built.\n", r.Reference.Of, r.Reference.Built)
	fmt.Fprintf(&b, "%s pairs of evidence type and module fired\n%s evidence types fired\n", ofAll(r.Pairs), ofAll(r.Types))
	return b.String()
}

// ofAll is "3 of 4", or "3 of 4 (1 off)", to be followed by what they are.
func ofAll(c selftest.Count) string {
	if c.Off > 0 {
		return fmt.Sprintf("%d of %d (%d off)", c.Fired, c.Of, c.Off)
	}
	return fmt.Sprintf("%d of %d", c.Fired, c.Of)
}

// collectUI keeps the evidence of a run.
type collectUI struct{ found []evidence.Evidence }

var _ UI = (*collectUI)(nil)

func (u *collectUI) Evidence(e *evidence.Evidence, _ float64) error {
	u.found = append(u.found, *e)
	return nil
}
func (*collectUI) Alert(*alerts.Alert) error     { return nil }
func (*collectUI) Host(netip.Addr, string)       {}
func (*collectUI) Progress(int64, int64, uint64) {}
func (*collectUI) Note(string)                   {}
