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
			c, err := p.load("")
			if err != nil {
				return err
			}
			v, err := p.quarry(args)
			if err != nil {
				return err
			}
			if places := openPlaces(cmd.Context(), c, p.stderrLog()); len(places.Sources()) > 0 {
				v = v.WithAS(places.AS) // for AS numbers
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
		kinds := []intel.Kind{in.Kind}
		switch in.Kind {
		case intel.Address, intel.Range, intel.Domain: // the index finds the one in the other; a rank is no find
		default:
			kinds = format.Alike(in.Kind) // 32 digits may be many things
		}
		for _, in.Kind = range kinds {
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
	bad     int64 // lines of logs and results that could not be read
	finds   int64
	by      map[string]int64
	err     error // of standard output
}

var _ profiler.Flows = (*hunter)(nil)

func (h *hunter) run(ctx context.Context, in []string) error {
	h.by = map[string]int64{}
	var problems []error
	var texts, dirs []string
	for _, path := range in {
		t, d, err := outputsBelow(path)
		problems = append(problems, err...)
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
	if h.bad > 0 {
		fmt.Fprintf(&b, "%s lines could not be read\n", thousands(h.bad))
	}
	if h.records+h.lines == 0 && len(problems) == 0 && ctx.Err() == nil {
		problems = append(problems, fmt.Errorf("%s: no logs or results there", strings.Join(in, ", ")))
	}
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
// directories and files that hold logs: each directory for itself, since the
// reader takes a tree for one network.
func outputsBelow(path string) (texts, logs []string, problems []error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, nil, []error{err}
	}
	if !st.IsDir() {
		if slices.Contains(resultNames(), filepath.Base(path)) {
			return []string{path}, nil, nil
		}
		return nil, []string{path}, nil
	}
	var dirs []string // in the order of the walk
	files := map[string][]string{}
	err = filepath.WalkDir(path, func(name string, e fs.DirEntry, err error) error {
		dir := filepath.Dir(name)
		switch {
		case err != nil:
			problems = append(problems, err) // and what can be listed is searched
			return nil
		case !e.Type().IsRegular():
			return nil
		}
		if st, err := e.Info(); err != nil || st.Size() == 0 {
			return nil //nolint:nilerr // it is gone, and an empty file may be a log and may be none
		}
		switch {
		case slices.Contains(resultNames(), e.Name()):
			texts = append(texts, name)
			return nil
		case files[dir] == nil:
			dirs = append(dirs, dir)
		}
		files[dir] = append(files[dir], name)
		return nil
	})
	if err != nil {
		problems = append(problems, err)
	}
	for _, dir := range dirs {
		// The reader of a directory without logs would go on below it, where
		// those directories are searched for themselves.
		yes, err := anyLog(files[dir])
		if err != nil {
			problems = append(problems, err...)
		}
		if yes {
			logs = append(logs, dir)
		}
	}
	return texts, logs, problems
}

// anyLog reports whether one of the files is a log, and what is wrong with
// those before it that are something else than other files.
func anyLog(files []string) (yes bool, problems []error) {
	for _, path := range files {
		set, err := parsers.Open(parsers.Options{Paths: []string{path}})
		if err != nil {
			return false, append(problems, err)
		}
		if len(set.Inputs) > 0 {
			return true, problems
		}
		for _, p := range set.Problems {
			if !errors.Is(p, parsers.ErrUnrecognised) {
				problems = append(problems, p)
			}
		}
	}
	return false, problems
}

// logs searches the logs in paths.
func (h *hunter) logs(ctx context.Context, paths []string) (problems []error, err error) {
	for _, path := range paths {
		set, err := parsers.Open(parsers.Options{Paths: []string{path}})
		if err != nil {
			return problems, err
		}
		problems = append(problems, set.Problems...)
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
		rejected, unusable := rejectedLines(engine)
		h.bad += rejected
		problems = append(problems, unusable...)
		if err != nil && ctx.Err() == nil {
			return problems, err
		}
		if h.err != nil || ctx.Err() != nil {
			break
		}
	}
	return problems, nil
}

// rejectedLines returns how many lines were rejected, and a problem for each
// source that has such lines and no records.
func rejectedLines(engine *profiler.Engine) (all int64, unusable []error) {
	for _, s := range engine.Stats().Snapshot().Sources {
		if slices.Contains(resultNames(), filepath.Base(s.Name)) {
			continue // it lies beside the logs, and is searched as text
		}
		var records, rejected int64
		for _, n := range s.Kinds {
			records += n
		}
		for _, n := range s.Rejected {
			rejected += n
		}
		all += rejected
		if records == 0 && s.Ignored == 0 && rejected > 0 {
			unusable = append(unusable, &parsers.Problem{Path: s.Name, Err: fmt.Errorf("no record could be read: %d lines were rejected", rejected)})
		}
	}
	return all, unusable
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
	var bad int64
	var first error
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
			if err != nil { // a line that was cut when the program was killed
				if bad++; first == nil {
					first = fmt.Errorf("%s: %w", where, err)
				}
				continue
			}
			hunt.JSON(h.view, v, once)
			continue
		}
		for cell := range strings.SplitSeq(string(line), "\t") {
			hunt.Text(h.view, cell, once)
		}
	}
	h.bad += bad
	if err := sc.Err(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if first != nil {
		return fmt.Errorf("%w (lines that cannot be read: %d)", first, bad)
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
