package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
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
	if !onlineConfig(c).Enabled() {
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
	known, err := readAnswers(path)
	if err != nil {
		return &codeError{exitInput, err}
	}
	f, err := online.OpenLog(path)
	if err != nil {
		return &export.WriteError{Path: path, Err: err}
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	a, err := newAsker(c, &newAnswers{to: online.NewWriter(f), known: known}, p.stderrLog())
	if err != nil {
		return err
	}
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var status []online.Status
	var stuck error
	g, gctx := errgroup.WithContext(asking)
	g.Go(func() error {
		if err := a.Run(gctx); err != nil { // the answers are in lookup.log
			p.complain(err)
		}
		return nil
	})
	g.Go(func() error {
		defer stop()
		stuck = putQuestions(gctx, a, questions, patience)
		status = a.Status() // as long as the services are not stopped
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	text, missing := enrichText(a, status, len(questions), path)
	if err := p.print(text); err != nil {
		return err
	}
	if n := a.Unwritten(); n > 0 {
		return &export.WriteError{Path: path, Err: fmt.Errorf("%d answers were lost", n)}
	}
	switch {
	case ctx.Err() != nil:
		p.code = exitInterrupted
	case stuck != nil:
		return &codeError{exitInput, stuck}
	case missing > 0:
		return &codeError{exitInput, fmt.Errorf("%d questions have no answer: the same command asks them again", missing)}
	}
	return nil
}

// answerKey tells answers apart.
type answerKey struct {
	Service string     `json:"service"`
	Of      string     `json:"of"`
	Subject string     `json:"subject"`
	UID     string     `json:"uid"`
	Src     netip.Addr `json:"id.orig_h"`
	Dst     netip.Addr `json:"id.resp_h"`
}

// readAnswers returns what a log of answers holds, but for those that only say
// that a service failed.
func readAnswers(path string) (map[answerKey]bool, error) {
	known := map[answerKey]bool{}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return known, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, maxLine)
	for sc.Scan() {
		var l struct {
			answerKey
			Error string `json:"error"`
		}
		if json.Unmarshal(sc.Bytes(), &l) == nil && l.Error == "" { // a line that was cut is written again
			known[l.answerKey] = true
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return known, nil
}

// newAnswers records those answers that are not in the log yet: those that are
// come from the cache when a command is repeated.
type newAnswers struct {
	to    online.Recorder
	known map[answerKey]bool
}

// Record implements online.Recorder.
func (n *newAnswers) Record(a online.Answer) error {
	key := answerKey{a.Service, a.Of, a.Subject, a.UID, a.Src, a.Dst}
	if n.known[key] {
		return nil
	}
	n.known[key] = a.Error == ""
	return n.to.Record(a)
}

const (
	// underWay is how many subjects wait at a time: less than any queue drops.
	underWay = 32
	// glance is how often it is looked whether there is room.
	glance = 20 * time.Millisecond
	// patience is how long all services that have something to do may be left
	// alone, because they fail or their quota is used up: after that it is a
	// matter of hours.
	patience = 3 * time.Minute
)

// putQuestions puts the questions as fast as they are answered, and returns
// when all are, or with an error when nobody has answered for so long.
func putQuestions(ctx context.Context, a *online.Asker, questions []online.Question, patience time.Duration) error {
	t := time.NewTicker(glance)
	defer t.Stop()
	last := time.Now()
	for {
		for len(questions) > 0 && a.Waiting() < underWay {
			a.Ask(questions[0])
			questions = questions[1:]
		}
		if len(questions) == 0 && a.Waiting() == 0 {
			return nil
		}
		if why := paused(a); why == "" {
			last = time.Now()
		} else if time.Since(last) > patience {
			return fmt.Errorf("%d questions wait in vain (%s): the same command goes on later", len(questions)+a.Waiting(), why)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// paused says why none of the services that have something to do is asked;
// nothing when one is.
func paused(a *online.Asker) string {
	var why []string
	for _, s := range a.Status() {
		switch {
		case s.Queued == 0 || s.State == "stopped":
		case s.State == "on":
			return ""
		default:
			why = append(why, s.Service+": "+s.Reason)
		}
	}
	return strings.Join(why, "; ")
}

// enrichText tells what came of the questions, and how many a service left
// without an answer.
func enrichText(a *online.Asker, status []online.Status, questions int, path string) (text string, missing int64) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s questions\n", thousands(int64(questions)))
	w := columns(&b)
	row(w, "service", "state", "asked", "found", "not known", "failed", "from before", "dropped")
	for _, s := range status {
		dropped := int64(0)
		for _, n := range s.Dropped {
			dropped += n
		}
		missing += s.Failed + dropped
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
	return b.String(), missing
}
