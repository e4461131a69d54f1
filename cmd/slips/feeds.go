package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/config"
	"github.com/slips-go/slips/feeds"
	"github.com/slips-go/slips/feeds/format"
	"github.com/slips-go/slips/feeds/geo"
	"github.com/slips-go/slips/feeds/intel"
)

func (p *program) feedsCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "feeds",
		Short: "Fetch and look after threat intelligence",
	}, p.feedsUpdateCommand(), p.feedsListCommand(), p.feedsStatusCommand(), p.feedsCheckCommand())
}

// loadFeeds returns the manager of the feeds with what is on this machine.
func (p *program) loadFeeds(ctx context.Context) (*config.Config, *feeds.Manager, error) {
	c, err := p.load("")
	if err != nil {
		return nil, nil, err
	}
	m, err := feedsManager(c, p.stderrLog())
	if err != nil {
		return nil, nil, err
	}
	if _, err := m.Load(ctx); err != nil {
		return nil, nil, &codeError{exitInput, err}
	}
	return c, m, nil
}

// stderrLog tells warnings of a command on standard error.
func (p *program) stderrLog() *slog.Logger {
	return slog.New(slog.NewTextHandler(p.stderr, &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func (p *program) feedsUpdateCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "update [NAME...]",
		Short: "Fetch the feeds now, or those named",
		Long: `Fetch the feeds that are enabled, or those named, check what came, and make the
index anew. A version that does not look like the feed, because it has shrunk to
a tenth or is an HTML page, is refused and the one before stays.

Databases of countries and autonomous systems that feeds.databases names are
fetched too. Nothing but these servers is contacted, and nothing about your
traffic is sent: docs/privacy.md has the list.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, m, err := p.loadFeeds(cmd.Context())
			if err != nil {
				return err
			}
			if feedsDirectory(c) == "" {
				return &codeError{exitUsage, errors.New("no place to keep feeds: set feeds.directory")}
			}
			known, _ := m.Status() // a feed whose state is damaged has a name all the same
			for _, name := range args {
				if !slices.ContainsFunc(known, func(s feeds.Status) bool { return s.Name == name && !s.Local }) {
					return badFlags("feeds update: there is no feed %q, \"slips feeds list\" names them", name)
				}
			}
			results, err := m.Update(cmd.Context(), feeds.UpdateOptions{Names: args, Force: force})
			text, failed := updateText(results)
			if e := p.print(text); e != nil {
				return e
			}
			if err != nil {
				return &codeError{exitOutput, err}
			}
			if len(args) == 0 {
				more, err := p.fetchPlaces(cmd.Context(), c)
				if err != nil {
					return err
				}
				failed += more
			}
			if failed > 0 {
				return &codeError{exitInput, fmt.Errorf("%d could not be updated; what was there before stays in use", failed)}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "take versions that look wrong, as long as they can be read")
	return cmd
}

// updateText reports what came of an update, and how many feeds have failed.
func updateText(results []feeds.Result) (text string, failed int) {
	var b strings.Builder
	w := columns(&b)
	row(w, "feed", "outcome", "entries", "before", "rejected", "why")
	for _, r := range results {
		n := 0
		for _, k := range r.Rejected {
			n += k
		}
		if r.Outcome == feeds.Failed || r.Outcome == feeds.Refused {
			failed++
		}
		row(w, r.Name, string(r.Outcome), thousands(int64(r.Count)), thousands(int64(r.Was)), thousands(int64(n)), printable(r.Reason))
	}
	_ = w.Flush() // into memory
	return b.String(), failed
}

// fetchPlaces fetches the databases that are configured.
func (p *program) fetchPlaces(ctx context.Context, c *config.Config) (failed int, err error) {
	if len(c.Feeds.Databases) == 0 {
		return 0, nil
	}
	dir := geoDirectory(c)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, &export.WriteError{Path: dir, Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 20 * time.Second, ResponseHeaderTimeout: time.Minute,
	}}
	for _, d := range geo.Catalogue() {
		if !slices.Contains(c.Feeds.Databases, d.Name) {
			continue
		}
		f, err := geo.Fetch(ctx, client, d, dir, time.Now())
		switch {
		case err != nil:
			failed++
			p.complain(err)
		case !f.Changed:
			err = p.print(fmt.Sprintf("%s: unchanged\n", d.Name))
		default:
			err = p.print(fmt.Sprintf("%s: %s networks, %s\n", d.Name, thousands(int64(f.Networks)), f.What))
		}
		if out := (*outputError)(nil); errors.As(err, &out) {
			return failed, err
		}
	}
	return failed, nil
}

func (p *program) feedsListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the feeds and databases that can be used",
		Args:  atMost(0),
		RunE: func(*cobra.Command, []string) error {
			c, err := p.load("")
			if err != nil {
				return err
			}
			sources, err := feeds.Sources(c.Feeds.File)
			if err != nil {
				return &codeError{exitUsage, err}
			}
			var b strings.Builder
			w := columns(&b)
			row(w, "feed", "enabled", "level", "period", "tags", "from")
			for _, s := range sources {
				row(w, s.Name, yesNo(s.Enabled), s.Level.String(), period(s.Period), strings.Join(s.Tags, " "), cmp.Or(s.URL, s.Path))
				if s.Note != "" {
					row(w, "", "", "", "", "", "  ("+s.Note+")")
				}
			}
			row(w)
			row(w, "database", "enabled", "", "", "has", "from")
			for _, d := range geo.Catalogue() {
				row(w, d.Name, yesNo(slices.Contains(c.Feeds.Databases, d.Name)), "", "", d.What, d.URL+" ("+d.License+")")
			}
			_ = w.Flush() // into memory
			return p.print(b.String())
		},
	}
}

func (p *program) feedsStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Tell how old the feeds are, what is in them, and what went wrong",
		Args:  atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, m, err := p.loadFeeds(cmd.Context())
			if err != nil {
				return err
			}
			list, problems := m.Status()
			if err := p.print(statusText(c, m, list, openPlaces(cmd.Context(), c, p.stderrLog()), time.Now())); err != nil {
				return err
			}
			if problems != nil {
				return &codeError{exitInput, problems}
			}
			return nil
		},
	}
}

func statusText(c *config.Config, m *feeds.Manager, list []feeds.Status, places *geo.DB, now time.Time) string {
	var b strings.Builder
	w := columns(&b)
	row(w, "feed", "entries", "age", "checked", "level", "kinds", "state")
	idle := 0
	for i := range list {
		s := &list[i]
		if !s.Enabled && s.Meta.Count == 0 && s.Damaged == "" {
			idle++
			continue
		}
		state := s.State()
		checked, age := "never", "-"
		if s.Meta.Checked != 0 {
			checked = ago(now.Sub(time.Unix(s.Meta.Checked, 0)))
		}
		if s.Age > 0 {
			age = ago(s.Age)
		}
		if s.Local {
			checked = "local"
		}
		row(w, s.Name, thousands(int64(s.Meta.Count)), age, checked, s.Level.String(), kindsText(s.Meta.Kinds), printable(state))
	}
	_ = w.Flush() // into memory
	if idle > 0 {
		fmt.Fprintf(&b, "\n%d more feeds are disabled and empty: \"slips feeds list\"\n", idle)
	}
	snap := m.View().Snapshot()
	kinds := map[string]int{}
	for k, n := range snap.Counts {
		if n > 0 {
			kinds[intel.Kind(k).String()] = n
		}
	}
	if n := indicators(snap); n > 0 {
		fmt.Fprintf(&b, "\nindex: %s indicators (%s) in %s\n", thousands(int64(n)), kindsText(kinds), cmp.Or(feedsDirectory(c), "memory"))
	} else {
		fmt.Fprintf(&b, "\nindex: empty; \"slips feeds update\" fetches the feeds that are enabled\n")
	}
	for _, s := range places.Sources() {
		fmt.Fprintf(&b, "places: %s, %s, %s networks, built %s\n", filepath.Base(s.Path), s.What, thousands(int64(s.Networks)), time.Unix(s.Built, 0).UTC().Format(time.DateOnly))
		if s.Credit != "" {
			fmt.Fprintf(&b, "  %s\n", s.Credit)
		}
	}
	return b.String()
}

// indicators returns how many there are.
func indicators(s intel.Snapshot) (n int) {
	for _, k := range s.Counts {
		n += k
	}
	return n
}

func (p *program) feedsCheckCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Read a file as a feed and tell what is in it and what is wrong with it",
		Args:  exactly(1, "one file"),
		RunE: func(_ *cobra.Command, args []string) error {
			if name != "" && !slices.Contains(format.Names(), name) {
				return badFlags("--format %q: want one of %s", name, strings.Join(format.Names(), ", "))
			}
			rep, err := feeds.Check(args[0], feeds.Source{Name: "check", Format: name}, time.Now())
			if err != nil {
				return &codeError{exitInput, err}
			}
			if err := p.print(checkText(args[0], &rep)); err != nil {
				return err
			}
			if rep.Verdict != "" {
				return &codeError{exitInput, fmt.Errorf("%s would be refused: %s", args[0], rep.Verdict)}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "format", "", "`FORMAT` of the file (default: its name and content tell)")
	return cmd
}

func checkText(path string, rep *feeds.CheckReport) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: format %s, %s lines, %s indicators: %s\n", path, rep.Format, thousands(int64(rep.Report.Lines)),
		thousands(int64(rep.Report.Indicators)), cmp.Or(kindsText(rep.Kinds), "none"))
	if c := rep.Columns; rep.Format == "csv" {
		for _, x := range [][2]string{
			{"value", c.Value},
			{"kind", c.Kind},
			{"level", c.Level},
			{"confidence", c.Confidence},
			{"description", c.Description},
			{"tags", c.Tags},
			{"since", c.Since},
			{"expires", c.Expires},
		} {
			if x[1] != "" {
				fmt.Fprintf(&b, "  column %s: %s\n", x[0], printable(x[1]))
			}
		}
	}
	for _, in := range rep.Examples {
		fmt.Fprintf(&b, "  %s %s %s\n", in.Kind, printable(indicatorText(&in)), printable(in.Description))
	}
	for _, reason := range slices.Sorted(maps.Keys(rep.Report.Rejected)) {
		fmt.Fprintf(&b, "rejected: %s, %s\n", thousands(int64(rep.Report.Rejected[reason])), reason)
	}
	for i := range rep.Report.Examples {
		fmt.Fprintf(&b, "  %s:%s\n", path, printable(rep.Report.Examples[i].String()))
	}
	return b.String()
}

// indicatorText is what an indicator names.
func indicatorText(in *intel.Indicator) string {
	switch in.Kind {
	case intel.Address:
		return in.Prefix.Addr().String()
	case intel.Range:
		return in.Prefix.String()
	default:
		return in.Value
	}
}

func (p *program) lookupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "lookup INDICATOR...",
		Short: "Tell what the feeds know about addresses, names, URLs, hashes, fingerprints",
		Long: `Tell which feeds list an indicator, since when, at which level and with which
tags, and which of their entries it is that matches: the thing itself, a parent
of the name, a network that the address is in. The way indicators are defanged in
reports (hxxp://, example[.]org) is understood. Nobody is asked.

Exit code 0: all are known. 3: some are not, or are no indicators.`,
		Example: "  slips lookup 198.51.100.7 evil[.]example hxxp://evil.example/a.exe",
		Args:    atLeastOne("an indicator"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, m, err := p.loadFeeds(cmd.Context())
			if err != nil {
				return err
			}
			v := m.View()
			places := openPlaces(cmd.Context(), c, p.stderrLog())
			if len(places.Sources()) > 0 {
				v = v.WithAS(places.AS)
			}
			if indicators(v.Snapshot()) == 0 {
				p.complain(errors.New("there are no feeds on this machine yet: \"slips feeds update\" fetches them"))
			}
			unknown := 0
			for _, text := range args {
				a, err := feeds.Lookup(v, text)
				if err != nil {
					unknown++
					p.complain(err)
					continue
				}
				if len(a.Hits) == 0 {
					unknown++
				}
				if err := p.print(answerText(&a, places, time.Now())); err != nil {
					return err
				}
			}
			if unknown > 0 {
				p.code = exitInput
			}
			return nil
		},
	}
}

func answerText(a *feeds.Answer, places *geo.DB, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s)", printable(a.Value), a.Kind)
	if addr, err := netip.ParseAddr(a.Value); err == nil {
		at := places.Lookup(addr)
		if at.Country != "" {
			fmt.Fprintf(&b, ", %s", strings.TrimLeft(at.City+" "+at.Country, " "))
		}
	}
	if a.ASN != 0 {
		fmt.Fprintf(&b, ", AS%d %s", a.ASN, printable(a.AS))
	}
	if a.Rank > 0 {
		fmt.Fprintf(&b, ", number %s of the popular domains", thousands(int64(a.Rank)))
	}
	b.WriteByte('\n')
	if len(a.Hits) == 0 {
		b.WriteString("  no feed lists it\n")
	}
	for _, h := range a.Hits {
		for _, l := range h.Listings {
			fmt.Fprintf(&b, "  %s lists %s, level %s", l.Feed.Name, printable(h.Indicator), l.Level.String())
			if l.Since != 0 {
				fmt.Fprintf(&b, ", since %s", time.Unix(l.Since, 0).UTC().Format(time.DateOnly))
			}
			if l.Expires != 0 {
				word := "until"
				if l.Expires <= now.Unix() {
					word = "EXPIRED at" // it goes with the next index
				}
				fmt.Fprintf(&b, ", %s %s", word, time.Unix(l.Expires, 0).UTC().Format(time.RFC3339))
			}
			if tags := slices.Concat(l.Feed.Tags, l.Tags); len(tags) > 0 {
				fmt.Fprintf(&b, ", tags %s", printable(strings.Join(tags, " ")))
			}
			if l.Description != "" {
				fmt.Fprintf(&b, ": %s", printable(l.Description))
			}
			fmt.Fprintf(&b, " (feed of %s)\n", time.Unix(l.Feed.Updated, 0).UTC().Format(time.DateOnly))
		}
	}
	return b.String()
}

// columns returns what sets columns of text.
func columns(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) }

// row writes a line of a table; empty columns at its end leave no blanks.
func row(w io.Writer, cells ...string) {
	for len(cells) > 0 && cells[len(cells)-1] == "" {
		cells = cells[:len(cells)-1]
	}
	_, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) // into memory
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// kindsText says how many there are of each kind: "domain 12, ip 7".
func kindsText(kinds map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		parts = append(parts, k+" "+thousands(int64(kinds[k])))
	}
	return strings.Join(parts, ", ")
}

// period shows a duration in the greatest unit that it is a multiple of.
func period(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= day && d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return d.String()
}

// ago shows how long ago something was, roughly.
func ago(d time.Duration) string {
	switch {
	case d < 0:
		return "in the future"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}
