package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/feeds/online"
)

func (p *program) enrichCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "enrich OUTPUT",
		Short: "Ask online services about what a run has found",
		Long: `Ask the online services that are switched on in the configuration (section
enrichment) about what a run over finished logs would have liked to know, and write
the answers to OUTPUT/enrichment/lookup.log. Run again over the logs and that file
to have them judged:

  slips -f LOGS -o OUTPUT          with services switched on
  slips enrich OUTPUT
  slips -f LOGS OUTPUT/enrichment/lookup.log -o OUTPUT2

A run that follows its logs asks by itself. docs/privacy.md says what is sent to
whom. Services have limits: with a free key VirusTotal answers four questions a
minute. What was answered is kept, so a command that was stopped goes on where it
was.`,
		Args: exactly(1, "the output directory of a run"),
		RunE: func(cmd *cobra.Command, args []string) error { return p.enrich(cmd.Context(), args[0]) },
	}
}

func (p *program) enrich(ctx context.Context, dir string) (err error) {
	c, err := p.load("")
	if err != nil {
		return err
	}
	if !anyService(onlineConfig(c)) {
		return &codeError{exitUsage, errors.New("no online service is switched on: see the section enrichment in \"slips config show\", and docs/privacy.md")}
	}
	questions, err := readQuestions(filepath.Join(dir, filepath.FromSlash(questionsFile)))
	if errors.Is(err, fs.ErrNotExist) {
		return &codeError{exitInput, fmt.Errorf("%s: no questions: they are written down by a run with a service switched on", dir)}
	}
	if err != nil {
		return &codeError{exitInput, err}
	}
	path := filepath.Join(dir, filepath.FromSlash(lookupLog))
	f, err := online.OpenLog(path)
	if err != nil {
		return &export.WriteError{Path: path, Err: err}
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	a, err := newAsker(c, online.NewWriter(f), p.stderrLog())
	if err != nil {
		return err
	}
	asking, stop := context.WithCancel(ctx)
	defer stop()
	g, gctx := errgroup.WithContext(asking)
	g.Go(func() error { return a.Run(gctx) })
	g.Go(func() error {
		defer stop()
		return p.putQuestions(gctx, a, questions)
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if err := p.print(enrichText(a, len(questions), path)); err != nil {
		return err
	}
	if n := a.Unwritten(); n > 0 {
		return &export.WriteError{Path: path, Err: fmt.Errorf("%d answers were lost", n)}
	}
	if ctx.Err() != nil {
		p.code = exitInterrupted
	}
	return nil
}

const (
	// underWay is how many subjects wait at a time: less than any queue drops.
	underWay = 32
	// glance is how often it is looked whether there is room.
	glance = 20 * time.Millisecond
)

// putQuestions puts the questions as fast as they are answered, and returns
// when all are.
func (p *program) putQuestions(ctx context.Context, a *online.Asker, questions []online.Question) error {
	t := time.NewTicker(glance)
	defer t.Stop()
	for {
		for len(questions) > 0 && a.Waiting() < underWay {
			a.Ask(questions[0])
			questions = questions[1:]
		}
		if len(questions) == 0 && a.Waiting() == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

func enrichText(a *online.Asker, questions int, path string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s questions\n", thousands(int64(questions)))
	w := columns(&b)
	row(w, "service", "state", "asked", "found", "not known", "failed", "from before", "dropped")
	for _, s := range a.Status() {
		dropped := int64(0)
		for _, n := range s.Dropped {
			dropped += n
		}
		state := s.State
		if s.Reason != "" {
			state += ": " + s.Reason
		}
		row(w, s.Service, printable(state), thousands(s.Asked), thousands(s.Found), thousands(s.Unknown), thousands(s.Failed),
			thousands(s.Cached), thousands(dropped))
	}
	_ = w.Flush() // into memory
	refused := a.Refused()
	for _, reason := range slices.Sorted(maps.Keys(refused)) {
		fmt.Fprintf(&b, "not sent: %s, %s\n", thousands(refused[reason]), reason)
	}
	fmt.Fprintf(&b, "answers in %s\n", path)
	return b.String()
}
