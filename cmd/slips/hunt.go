package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/valyala/fastjson"
	"golang.org/x/sync/errgroup"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/feeds"
	"github.com/slips-go/slips/feeds/format"
	"github.com/slips-go/slips/feeds/hunt"
	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/parsers"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler"
	"github.com/slips-go/slips/profiler/profile"
)

func (p *program) huntCommand() *cobra.Command {
	var in []string
	var limit int
	cmd := &cobra.Command{
		Use:   "hunt INDICATOR|FILE... --in PATH",
		Short: "Search logs and the results of earlier runs for indicators",
		Long: `Search everything below PATH, logs of any format that Slips reads and what
earlier runs of it wrote, for indicators: addresses, networks, names and all
below them, URLs, hashes, fingerprints, e-mail addresses, AS numbers. A FILE is a
list in any format that "slips feeds check" understands.

Each find is a line: time, log, both ends, the field, its value, and the
indicator. Exit code 0: something was found. 3: something could not be read.
5: nothing was found.`,
		Example: "  slips hunt evil[.]example 198.51.100.0/24 --in /var/log/zeek\n  slips hunt iocs.csv --in output/ --in logs/",
		Args:    atLeastOne("an indicator, or a file of them"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(in) == 0 {
				return badFlags("hunt: say where with --in PATH")
			}
			if limit < 0 {
				return badFlags("--limit %d: want 0 or more", limit)
			}
			v, err := p.quarry(args)
			if err != nil {
				return err
			}
			h := &hunter{p: p, view: v, limit: limit}
			return h.run(cmd.Context(), in)
		},
	}
	cmd.Flags().StringArrayVar(&in, "in", nil, "`PATH` to search: a log, an output, or a directory of them; may be repeated")
	cmd.Flags().IntVar(&limit, "limit", 0, "stop printing after `N` finds; they are counted all the same (0: no limit)")
	return cmd
}

// quarry makes a view of what is hunted.
func (p *program) quarry(args []string) (*intel.View, error) {
	b := intel.NewBuilder()
	feed := b.AddFeed(intel.Feed{Name: "hunt", Provider: "hunt"})
	add := func(in intel.Indicator) error {
		if in.Kind == intel.Popular {
			in.Kind, in.Rank = intel.Domain, 0
		}
		for _, k := range format.Alike(in.Kind) { // 32 digits may be many things
			if k != intel.Address && k != intel.Range {
				in.Kind = k
			}
			if err := b.Add(feed, in); err != nil {
				return err
			}
		}
		return nil
	}
	var errs []error
	for _, arg := range args {
		if st, err := os.Stat(arg); err == nil && st.Mode().IsRegular() {
			if err := p.quarryFile(arg, add); err != nil {
				errs = append(errs, err)
			}
			continue
		}
		k, value, err := format.Detect(arg)
		if err == nil {
			var in intel.Indicator
			if in, err = format.Canonical(k, value); err == nil {
				err = add(in)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%w (and there is no file of that name)", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, &codeError{exitUsage, err}
	}
	v, err := intel.Open(b.Compile(time.Now().Unix()))
	if err != nil {
		return nil, fmt.Errorf("BUG: the index of what is hunted: %w", err)
	}
	return v, nil
}

// hunter searches and prints.
type hunter struct {
	p       *program
	view    *intel.View
	limit   int
	records int64
	lines   int64
	finds   int64
	by      map[string]int64
	err     error // of standard output
}

var _ profiler.Flows = (*hunter)(nil)

func (h *hunter) run(ctx context.Context, in []string) error {
	h.by = map[string]int64{}
	var problems []error
	for _, path := range in {
		if _, err := os.Stat(path); err != nil {
			problems = append(problems, err)
		}
	}
	var texts, dirs []string
	for _, path := range in {
		t, d, err := outputsBelow(path)
		if err != nil {
			problems = append(problems, err)
		}
		texts, dirs = append(texts, t...), append(dirs, d...)
	}
	more, err := h.logs(ctx, dirs)
	if err != nil {
		return err
	}
	problems = append(problems, more...)
	for _, path := range texts {
		if err := h.text(ctx, path); err != nil {
			problems = append(problems, err)
		}
		if h.err != nil || ctx.Err() != nil {
			break
		}
	}
	if h.err != nil {
		return &outputError{h.err}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s finds in %s records and %s lines of results\n", thousands(h.finds), thousands(h.records), thousands(h.lines))
	names := sortedByCount(h.by)
	for _, n := range names[:min(len(names), 20)] {
		fmt.Fprintf(&b, "  %s: %s\n", printable(n), thousands(h.by[n]))
	}
	if len(names) > 20 {
		fmt.Fprintf(&b, "  and %d more indicators\n", len(names)-20)
	}
	if err := h.p.print(b.String()); err != nil {
		return err
	}
	for _, problem := range problems {
		h.p.complain(problem)
	}
	switch {
	case ctx.Err() != nil:
		h.p.code = exitInterrupted
	case len(problems) > 0:
		h.p.code = exitInput
	case h.finds == 0:
		h.p.code = exitInterrupted
	}
	return nil
}

// resultNames are the files of earlier runs that are searched as text.
func resultNames() []string {
	return []string{"evidence.jsonl", "alerts.jsonl", "alerts.json", "timeline.jsonl", "labeled_flows.jsonl", "labeled_flows.tsv", "hosts.jsonl", "questions.jsonl"}
}

// outputsBelow finds the results of earlier runs below path, and the
// directories and files that may hold logs: each directory for itself, since
// the reader takes a tree for one network.
func outputsBelow(path string) (texts, logs []string, err error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, nil, nil //nolint:nilerr // it was told of already
	}
	if !st.IsDir() {
		if slices.Contains(resultNames(), filepath.Base(path)) {
			return []string{path}, nil, nil
		}
		return nil, []string{path}, nil
	}
	has := map[string]bool{}
	err = filepath.WalkDir(path, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !e.Type().IsRegular() {
			return nil
		}
		if slices.Contains(resultNames(), e.Name()) {
			texts = append(texts, name)
			return nil
		}
		if dir := filepath.Dir(name); !has[dir] && filepath.Base(dir) != "alerts" && filepath.Base(dir) != "metadata" {
			has[dir] = true
			logs = append(logs, dir)
		}
		return nil
	})
	return texts, logs, err
}

// logs searches the logs in paths.
func (h *hunter) logs(ctx context.Context, paths []string) (problems []error, err error) {
	for _, path := range paths {
		set, err := parsers.Open(parsers.Options{Paths: []string{path}})
		if err != nil {
			return problems, err
		}
		for _, p := range set.Problems {
			// A directory without logs is what the results of a run are in.
			if st, err := os.Stat(path); err != nil || !st.IsDir() || !errors.Is(p, parsers.ErrNoLogs) {
				problems = append(problems, p)
			}
		}
		if len(set.Inputs) == 0 {
			continue
		}
		engine, err := profiler.New(profiler.Config{Lanes: 1, Width: profiler.OneWindow, Now: time.Now, Flows: h}, nil, nil)
		if err != nil {
			return problems, err
		}
		g, gctx := errgroup.WithContext(ctx)
		reading, stop := context.WithCancel(gctx)
		g.Go(func() error { return set.Run(reading) })
		g.Go(func() error {
			defer stop()
			return engine.Run(gctx, profiler.Inputs{Initial: set.Inputs, Later: set.More}, nobody{})
		})
		err = g.Wait()
		stop()
		problems = append(problems, set.Failed()...)
		if err != nil && ctx.Err() == nil {
			return problems, err
		}
		if h.err != nil || ctx.Err() != nil {
			break
		}
	}
	return problems, nil
}

// nobody takes what an engine without modules finds.
type nobody struct{}

func (nobody) Evidence(*evidence.Evidence) error     { return nil }
func (nobody) News(profiler.News) error              { return nil }
func (nobody) Round(int64) error                     { return nil }
func (nobody) Checkpoint(*profiler.Checkpoint) error { return nil }

// Flow implements profiler.Flows.
func (h *hunter) Flow(f *flow.Flow, _ profile.Window) {
	h.records++
	hunt.Flow(h.view, f, func(x hunt.Hit) {
		end := func(a interface{ String() string }, valid bool, port uint16) string {
			if !valid {
				return "-"
			}
			if port == 0 {
				return a.String()
			}
			return fmt.Sprintf("%s:%d", a, port)
		}
		h.found(fmt.Sprintf("%s %s %s %s > %s", time.Unix(0, f.Time).UTC().Format(time.RFC3339), f.Kind, f.UID,
			end(f.Src, f.Src.IsValid(), f.SrcPort), end(f.Dst, f.Dst.IsValid(), f.DstPort)), x)
	})
}

func (h *hunter) found(where string, x hunt.Hit) {
	h.finds++
	name := x.Match.Indicator()
	if _, known := h.by[name]; known || len(h.by) < maxNames {
		h.by[strings.Clone(name)]++
	}
	if h.err != nil || h.limit > 0 && h.finds > int64(h.limit) {
		return
	}
	field := x.Field
	if field != "" {
		field += " "
	}
	text := printable(where) + " " + printable(field+x.Value)
	if name != x.Value {
		text += " (" + printable(name) + ")"
	}
	h.err = h.p.print(text + "\n")
}

// maxLine bounds a line of results, bytes: those of Slips are far shorter.
const maxLine = 4 << 20

// text searches a file of results.
func (h *hunter) text(ctx context.Context, path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sc := bufio.NewScanner(f)
	sc.Buffer(make([]byte, 64<<10), maxLine)
	var parser fastjson.Parser
	for n := 1; sc.Scan(); n++ {
		if h.err != nil || ctx.Err() != nil {
			return nil
		}
		h.lines++
		where := fmt.Sprintf("%s:%d", path, n)
		seen := map[string]bool{} // an event names its host many times
		once := func(x hunt.Hit) {
			if key := x.Field + " " + x.Match.Indicator(); !seen[key] {
				seen[key] = true
				h.found(where, x)
			}
		}
		line := sc.Bytes()
		if bytes.HasPrefix(line, []byte("{")) {
			v, err := parser.ParseBytes(line)
			if err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
			hunt.JSON(h.view, v, once)
			continue
		}
		for cell := range strings.SplitSeq(string(line), "\t") {
			hunt.Text(h.view, cell, once)
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// sortedByCount returns the keys, the most frequent first.
func sortedByCount(m map[string]int64) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if m[a] != m[b] {
			return int(min(max(m[b]-m[a], -1), 1))
		}
		return strings.Compare(a, b)
	})
	return keys
}

// quarryFile adds the indicators of a list.
func (p *program) quarryFile(path string, add func(intel.Indicator) error) error {
	rep, err := feeds.Read(path, &feeds.Source{Name: "hunt"}, time.Now(), add)
	if err != nil {
		return err
	}
	for i := range rep.Examples {
		p.complain(fmt.Errorf("%s:%s", path, rep.Examples[i].String()))
	}
	if rep.Indicators == 0 {
		return fmt.Errorf("%s: no indicators in it", path)
	}
	return nil
}
