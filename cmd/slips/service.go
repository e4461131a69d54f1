package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/internal/privilege"
	"github.com/slips-go/slips/internal/service"
)

const (
	// startWithin is how long a detached run may take until it reads.
	startWithin = 2 * time.Minute
	// stopWithin is how long it may take to write what it knows.
	stopWithin = time.Minute
	// healthEvery is how often progress is looked at.
	healthEvery = 10 * time.Second
	// statusEvery is how often "systemctl status" gets something new to show.
	statusEvery = 10 * time.Second
	// daemonLog takes what a detached run prints, in the output directory.
	daemonLog = "daemon.log"
)

// services is what a run tells those who run it: a service manager and the
// process that detached it. The zero value has nobody to tell.
type services struct {
	notify *service.Notifier // nil: nobody
	daemon *service.Daemon   // nil: not detached
	pulse  service.Pulse     // beats with each round of the engine
	health string            // file to touch; empty: none
	log    *slog.Logger
}

// say reports what could not be told. It is no reason to stop.
func (s *services) say(err error) {
	if err != nil {
		s.log.Warn("who runs this program cannot be told how it does", "err", err)
	}
}

// ready tells that the run reads its input.
func (s *services) ready(status string) {
	s.say(s.daemon.Ready())
	if s.notify != nil {
		s.say(s.notify.Ready(status))
	}
}

// reloading tells that lists are read again, until end is called.
func (s *services) reloading(status string) (end func()) {
	if s.notify == nil {
		return func() {}
	}
	s.say(s.notify.Reloading())
	return func() { s.say(s.notify.Ready(status)) }
}

// run returns what has to run beside the pipeline until ctx is done; stopping
// is told when asked ends, before that.
func (s *services) run(ctx, asked context.Context, progress, blind func() string) (tasks []func() error) {
	if s.health != "" {
		tasks = append(tasks, func() error {
			turns := s.pulse.Watch()
			alive := func() bool { return turns() && blind() == "" } // the watchdog does not ask: a restart of ours helps nobody
			if err := (service.Health{Path: s.health, Every: healthEvery}).Run(ctx, alive); err != nil {
				return &export.WriteError{Path: s.health, Err: err}
			}
			return nil
		})
	}
	if s.notify == nil || !s.notify.Enabled() {
		return tasks
	}
	return append(tasks,
		func() error { return s.notify.Run(ctx, s.pulse.Watch()) },
		func() error {
			t := time.NewTicker(statusEvery)
			defer t.Stop()
			for {
				select {
				case <-asked.Done():
					s.say(s.notify.Stopping())
					return nil
				case <-ctx.Done():
					return nil
				case <-t.C:
					s.say(s.notify.Status(progress()))
				}
			}
		},
	)
}

// healthCommand is for the health check of a container.
func (p *program) healthCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "health FILE",
		Short: "Say whether a run makes progress",
		Long:  "Say whether the run with --health-file FILE makes progress: the exit code is 0 when it\ndoes and 1 when it stands still or is not there.",
		Args:  exactly(1, "the file of --health-file"),
		RunE: func(_ *cobra.Command, args []string) error {
			return service.Health{Path: args[0], Every: healthEvery}.Check(time.Now())
		},
	}
}

// detach starts the same run away from the terminal and waits until it reads.
func (p *program) detach(ctx context.Context, f *runFlags, o *runOptions, args []string) error {
	if err := o.User.MkdirAll(o.Output, 0o755); err != nil {
		return &codeError{exitOutput, err}
	}
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	file := p.pidFile(f)
	if err := (*privilege.User)(nil).MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return &codeError{exitOutput, err}
	}
	pid, err := service.Detach(ctx, service.Options{Args: args, Env: p.env, PIDFile: file, Log: filepath.Join(o.Output, daemonLog), Own: o.User.OwnIn(o.Output)})
	var failed *service.StartError
	var running *service.RunningError
	switch {
	case errors.As(err, &failed) && failed.Code > 0:
		return &codeError{failed.Code, errors.New(strings.TrimPrefix(err.Error(), "slips: "))}
	case errors.As(err, &running), errors.Is(err, service.ErrNotPrivate):
		return &codeError{exitUsage, err}
	case err != nil:
		return err
	}
	stop := "slips -S"
	if f.pidFile != "" {
		stop += " --pidfile " + printable(f.pidFile)
	}
	return p.print(fmt.Sprintf("slips runs as process %d; results are in %s; %q stops it\n", pid, printable(o.Output), stop))
}

// stopDetached ends a detached run.
func (p *program) stopDetached(f *runFlags) error {
	pid, err := service.Stop(p.pidFile(f), stopWithin)
	if errors.Is(err, service.ErrNotRunning) {
		return &codeError{exitUsage, err}
	}
	if err != nil {
		return err
	}
	return p.print(fmt.Sprintf("process %d has ended\n", pid))
}

func (p *program) pidFile(f *runFlags) string {
	if f.pidFile != "" {
		return f.pidFile
	}
	return service.DefaultPlaces(p.getenv).PIDFile
}
