package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/block"
	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/config"
	"github.com/slips-go/slips/internal/privilege"
	"github.com/slips-go/slips/internal/service"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler"
	"github.com/slips-go/slips/profiler/coverage"
	"github.com/slips-go/slips/profiler/profile"
)

// A follower that is asked to stop reads what is in the files for drainTime;
// what it has not read by then it reads after the next start. Together with
// what is under way it ends well within the five seconds that service
// managers and people allow.
const (
	drainTime      = 3 * time.Second
	textNotAllRead = "stopping before all that is in the files was read; the next start reads the rest"
)

// analyse runs the pipeline: readers, engine, alerts, output. When ctx is done
// it stops reading, finishes what was read, and returns without an error.
func analyse(ctx context.Context, o runOptions, ui UI) (result, error) {
	if problems := missing(o.Paths); len(problems) == len(o.Paths) && !o.Follow {
		return result{Problems: problems}, nil // before an output directory is made for nothing
	}
	named, err := readLists(&o)
	if err != nil {
		return result{}, err
	}
	r := &run{o: o, ui: ui}
	if err := r.acquire(ctx); err != nil {
		return result{}, err
	}
	saved, err := r.claim()
	if err == nil {
		err = r.open(saved)
	}
	if err != nil {
		return result{}, errors.Join(r.refused(err), r.release())
	}
	// A follower that is stopped this early still reads what is there.
	if err := r.openKnowledge(context.WithoutCancel(ctx), named); err != nil {
		return result{}, errors.Join(r.refused(err), r.close())
	}
	r.know.names(&r.info)
	if err := errors.Join(r.metadata(), r.openService()); err != nil {
		return result{}, errors.Join(r.refused(err), r.close())
	}
	res, err := r.do(ctx, saved)
	var write *export.WriteError
	if errors.As(err, &write) {
		err = r.refused(err)
	}
	return res, errors.Join(err, r.close())
}

// acquire opens what takes a privilege, interfaces and the firewall, and then
// gives privileges up. A run that only reads gives them up before.
func (r *run) acquire(ctx context.Context) (err error) {
	if r.o.readsOnly() {
		return r.acquireFiles(ctx)
	}
	// What is lacking is said by what needs it.
	_ = privilege.Raise(privilege.NetRaw, privilege.NetAdmin)
	if r.packets, r.paths, err = openPackets(ctx, &r.o); err != nil {
		return err
	}
	var network block.Network
	if r.machine, network, err = newOwnNetwork(&r.o); err == nil {
		r.firewall, err = openFirewall(ctx, &r.o, network)
	}
	if err == nil {
		if r.machine != nil {
			r.machine.firewall = r.firewall
		}
		r.privilege, err = r.dropPrivileges()
	}
	if err != nil {
		return errors.Join(err, r.release())
	}
	return nil
}

// acquireFiles is acquire for a run that only reads: captures and logs are
// looked into without what is not needed for that.
func (r *run) acquireFiles(ctx context.Context) (err error) {
	if r.o.Sole {
		_, none := os.Stat(r.o.Output)
		if r.privilege, err = r.dropPrivileges(); err != nil {
			return err
		}
		defer func() {
			if err != nil && none != nil {
				_ = os.Remove(r.o.Output) // made for nothing; if it cannot be removed it is empty
			}
		}()
	}
	r.packets, r.paths, err = openPackets(ctx, &r.o)
	return err
}

// openService finds out whom to tell how the run does.
func (r *run) openService() (err error) {
	if r.privilege != "" {
		r.log.Info("privileges", "left", r.privilege)
	}
	r.service = &services{daemon: r.o.Daemon, health: r.o.Health, log: r.log}
	if r.o.Follow && r.o.Env != nil {
		r.service.notify, err = service.NewNotifier(r.o.Env, r.log)
	}
	return err
}

// release gives back what acquire opened.
func (r *run) release() error {
	return errors.Join(r.packets.close(), r.firewall.close())
}

// claim returns the state to go on from, if there is one, or makes the output
// directory that of this run.
func (r *run) claim() (*savedState, error) {
	saved, err := loadState(&r.o)
	if err == nil && r.o.Follow && saved == nil {
		err = claim(&r.o)
	}
	return saved, err
}

// missing returns what is wrong with paths that cannot be looked at.
func missing(paths []string) []error {
	var p []error
	for _, path := range paths {
		if path == "-" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			p = append(p, err)
		}
	}
	return p
}

// run is one run of the pipeline.
type run struct {
	o      runOptions
	ui     UI
	dir    *export.Dir
	log    *slog.Logger
	file   *logFile // slips.log
	alerts *alerts.Manager
	know   *knowledge

	packets   *packetSet
	paths     []string    // inputs that are no packets
	firewall  *firewall   // nil: nobody is blocked
	machine   *ownNetwork // nil: nobody wants to know
	privilege string      // what is left, to tell
	wasRoot   bool        // before it gave up privileges
	service   *services
	engine    *profiler.Engine
	cover     *covered
	set       *parsers.Set
	info      export.Run
	before    int64 // records of the runs before a restart
	closed    int64 // the window that closeWindows was last called in
}

// open makes or takes up the output directory.
func (r *run) open(saved *savedState) error {
	o, c := &r.o, r.o.Config
	opt := export.Options{
		Version: release, Letters: c.Parameters.ExportLetters, Timeline: c.Parameters.ExportTimeline,
		Both: c.Parameters.AnalysisDirection == config.All,
	}
	switch {
	case saved != nil:
		opt.Mode = export.Continue
	case o.Overwrite:
		opt.Mode = export.Overwrite
	}
	if c.Parameters.ExportLabeledFlows {
		opt.Flows = export.FlowFormat(c.Parameters.ExportFormat)
	}
	var err error
	r.dir, err = export.Create(o.Output, opt)
	if occupied := (*export.OccupiedError)(nil); errors.As(err, &occupied) && o.Follow && stillborn(o.Output) {
		opt.Mode = export.Overwrite
		r.dir, err = export.Create(o.Output, opt)
	}
	if err != nil {
		return err
	}
	if r.file, err = openLog(r.dir.Path("slips.log"), saved == nil); err != nil {
		return errors.Join(err, r.dir.Close())
	}
	r.log = newLog(r.file, c.Parameters.Verbose, r.ui)
	r.info = export.Run{Version: o.Version, CommandLine: o.Command, Inputs: o.sources(), Start: o.Start}
	if saved != nil {
		r.info.Resumed = saved.Resumed + 1
	}
	return nil
}

func (r *run) metadata() error {
	var c []byte
	if r.o.Config.Parameters.MetadataDir {
		c = r.o.Config.YAML()
	}
	return r.dir.WriteMetadata(r.info, c)
}

func (r *run) close() error {
	return errors.Join(r.know.close(), r.release(), r.dir.Close(), r.file.Close())
}

// do connects the parts, in the state of saved if that still fits, and runs them.
func (r *run) do(ctx context.Context, saved *savedState) (result, error) {
	o, c := &r.o, r.o.Config
	width := c.Parameters.TimeWindowWidth.Duration()
	var err error
	sinks := []alerts.Sink{r.dir, r.ui}
	if r.firewall != nil {
		if err := r.firewall.prepare(r); err != nil {
			return result{}, err
		}
		sinks = append(sinks, r.firewall)
	}
	r.alerts, err = alerts.New(alertConfig(c), width, alerts.Tee(sinks...))
	if err != nil {
		return result{}, err
	}
	var mods []profiler.Loaded
	for _, m := range o.Modules {
		if r.know.asks() {
			m.Spec.Needs &^= flow.Of(flow.Lookup) // the answers are on their way, or to be asked for
		}
		x, err := m.Spec.New(m.Config, modules.Env{Log: r.log.With("module", m.Spec.Name), Width: width})
		if err != nil {
			return result{}, err
		}
		mods = append(mods, profiler.Loaded{Spec: m.Spec, Run: x})
	}
	pc := profiler.Config{
		Lanes: c.Profiler.Lanes, Width: width, Grace: c.Profiler.LateGrace, Both: c.Parameters.AnalysisDirection == config.All,
		Origin: r.packets.begin, MaxProfiles: c.Profiler.MaxProfiles, MaxWindows: c.Profiler.MaxWindows, Home: homes(c.Parameters.ClientIPs),
		Follow: o.Follow, IdleAfter: c.Profiler.IdleAfter, Now: time.Now, Log: r.log,
		Intel: r.know.look, Ask: r.know.asks(), Names: true, Network: r.machine.look(),
	}
	if r.know.ignored != nil {
		pc.Ignore = r.know.ignored
	}
	if pc.Lanes == 0 {
		pc.Lanes = defaultLanes
	}
	if o.Follow {
		pc.Checkpoint = c.Profiler.CheckpointInterval
	}
	r.watchCoverage()
	pc.Flows = r.recorders()
	var positions map[string]flow.Position
	var engine *profiler.Checkpoint
	if saved != nil {
		r.packets.forget(r, saved.Engine)
		positions, engine = saved.positions(), saved.Engine
		if why := saved.unfit(o); engine != nil && why != "" {
			r.log.Warn("the saved state does not fit: reading goes on where it stopped, with empty windows", "reason", why)
			engine, saved.Clean = engine.Strip(), false
		}
		if err := r.dir.Resume(saved.Marks, saved.Clean); err != nil {
			return result{}, err
		}
		if saved.Engine != nil {
			if err := saved.load(r, !engine.Bare); err != nil {
				return result{}, fmt.Errorf("cannot use the saved state in %s (--overwrite starts afresh): %w", r.dir.Path(stateFile), err)
			}
			r.log.Info("continuing", "records", saved.Engine.Seq, "restarts", r.info.Resumed)
			r.before = int64(engine.Seq)
		}
	}
	if r.engine, err = profiler.New(pc, mods, engine); err != nil {
		return result{}, err
	}
	wake := make(chan struct{}, 1)
	paths, err := r.packets.prepare(ctx, r, func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err == nil && !r.packets.empty() {
		err = r.metadata() // which names the engine now
	}
	if err != nil {
		return result{}, err
	}
	paths = append(paths, r.paths...)
	if r.know.answers != nil {
		paths = append(paths, r.dir.Path(lookupLog))
	}
	r.set, err = parsers.Open(parsers.Options{
		Paths: paths, Format: o.Format, Follow: o.Follow, Stdin: o.Stdin, Resume: positions,
		Poll: c.Follow.PollInterval, Wake: wake, Others: !r.packets.empty(), Own: r.packets.zeekDirs, Log: r.log,
	})
	if err != nil {
		return result{}, err
	}
	r.packets.follow(r.set.Finished)
	r.glance()
	if o.Follow {
		// From here on a kill finds a state that is not that of a clean end.
		if err := r.save(&savedState{Engine: engine}); err != nil {
			return result{}, err
		}
	}
	err = r.pump(ctx, wake)
	problems := slices.Concat(r.set.Problems, r.set.Failed(), r.packets.problems(), r.packets.faults(r.engine.Stats().Snapshot().Sources, r.info.Resumed), r.unusable())
	for _, err := range problems {
		if p := (*parsers.Problem)(nil); errors.As(err, &p) {
			p.Path = r.packets.userPath(p.Path)
		}
	}
	if err != nil {
		return result{Problems: problems}, errors.Join(err, r.summarise(nil))
	}
	if w := r.dir.Flows(); w != nil {
		err = errors.Join(err, r.closeWindows(endOfStream))
	}
	if w := r.dir.Letters(); w != nil {
		err = errors.Join(err, w.Finish())
	}
	err = errors.Join(err, r.dir.Flush())
	var s export.Summary
	err = errors.Join(err, r.summarise(&s))
	return result{Summary: s, Problems: problems}, err
}

// alertConfig returns the settings of what makes an alert.
func alertConfig(c *config.Config) alerts.Config {
	return alerts.Config{
		EvidenceDetectionThreshold: c.Detection.EvidenceDetectionThreshold,
		FirstEvidenceWeight:        c.Detection.FirstEvidenceWeight,
		CorroborationWeight:        c.Detection.CorroborationWeight,
		DisabledDetections:         c.DisabledAlerts.DisabledDetections,
	}
}

// unusable returns a problem for each source that has lines and no records.
func (r *run) unusable() []error {
	var p []error
	for _, s := range r.engine.Stats().Snapshot().Sources {
		var records, rejected int64
		for _, n := range s.Kinds {
			records += n
		}
		for _, n := range s.Rejected {
			rejected += n
		}
		if records == 0 && s.Ignored == 0 && rejected > 0 {
			p = append(p, &parsers.Problem{Path: s.Name, Err: fmt.Errorf("no record could be read: %d lines were rejected", rejected)})
		}
	}
	return p
}

// defaultLanes is what profiler.lanes: 0 stands for. On two cores the second
// lane gained a fifth: see docs/decisions/0005-lanes.md.
const defaultLanes = 2

func homes(n config.Networks) []netip.Prefix { return []netip.Prefix(n) }

// pump runs readers and engine until the input has ended or ctx is done.
func (r *run) pump(ctx context.Context, wake <-chan struct{}) error {
	// Packets come until live ends, by the user or because something failed. The
	// readers stop on their own context, the engine when its inputs end.
	live, halt := context.WithCancel(ctx)
	defer halt()
	reading, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	read := make(chan struct{}) // closed when the readers have ended
	drain := func() {
		r.set.Drain()
		time.AfterFunc(drainTime, func() {
			select {
			case <-read:
			default:
				done, total := r.set.Progress()
				r.log.Warn(textNotAllRead, "bytes_left", total-done)
				r.packets.keepLogs()
			}
			stop()
		})
	}
	unhook := context.AfterFunc(ctx, func() {
		switch {
		case !r.o.Follow:
			stop()
		case r.packets.watched == nil: // else once Zeek has written what it knew
			drain()
		}
	})
	defer unhook()

	in := profiler.Inputs{Initial: slices.Concat(r.set.Inputs, r.packets.inputs()), Later: r.set.More, Wake: wake}
	if r.o.Follow {
		t := time.NewTicker(time.Second)
		defer t.Stop()
		in.Tick = t.C
	}
	g, gctx := errgroup.WithContext(context.WithoutCancel(ctx))
	g.Go(func() error {
		defer close(read)
		return r.set.Run(reading)
	})
	if r.o.Reload != nil {
		g.Go(func() error { return r.reload(reading) })
	}
	for _, task := range slices.Concat(
		r.packets.run(live, reading, drain), r.know.run(reading, r.o.Follow), r.firewall.run(reading), r.machine.run(reading, r.log),
		r.service.run(reading, ctx, r.progress, r.packets.unwatched),
	) {
		g.Go(task)
	}
	// When one of them fails, those that would go on without an end shall not.
	unhalt := context.AfterFunc(gctx, halt)
	defer unhalt()
	r.service.ready(r.status())
	g.Go(func() error {
		defer halt()
		defer stop() // when the output fails, reading on is of no use
		return r.engine.Run(gctx, in, (*sink)(r))
	})
	return g.Wait()
}

// progress is status with how far the run is.
func (r *run) progress() string {
	text := r.status() + "; " + thousands(r.engine.Stats().Records()) + " records"
	if blind := r.packets.unwatched(); blind != "" {
		text += "; " + blind
	}
	return text
}

// status says in a few words what the run does.
func (r *run) status() string {
	text := "reads " + strings.Join(r.o.sources(), ", ")
	switch {
	case r.firewall == nil:
	case r.firewall.cfg.DryRun:
		text += "; logs what it would block"
	default:
		text += "; blocks"
	}
	return text
}

// sink is a run as the engine's Sink: evidence to the alerts, and what they
// let through to the output and the screen.
type sink run

var _ profiler.Sink = (*sink)(nil)

// Evidence implements profiler.Sink.
func (s *sink) Evidence(e *evidence.Evidence) error {
	if rule, dropped := s.know.describe(e); dropped {
		s.firewall.spared(e, rule)
		return nil
	}
	s.know.askAbout(e)
	if !s.o.Follow {
		s.alerts.Advance(e.Key.At)
	}
	return s.alerts.Evidence(e)
}

// News implements profiler.Sink.
func (s *sink) News(n profiler.News) error {
	s.know.news(&n)
	if h := n.Host; h != nil && h.Name != "" {
		s.ui.Host(h.IP, h.Name)
	}
	return nil
}

// Round implements profiler.Sink.
func (s *sink) Round(low int64) error {
	if s.o.Follow { // evidence is in no order, but none is older
		s.alerts.Advance(low)
	}
	r := (*run)(s)
	r.service.pulse.Beat()
	if err := r.closeWindows(low); err != nil {
		return err
	}
	if r.know.changed.Swap(false) {
		r.know.names(&r.info)
		if err := r.metadata(); err != nil {
			return err
		}
	}
	if s.o.Follow {
		if err := s.dir.Flush(); err != nil {
			return err
		}
	} else {
		read, total := s.set.Progress()
		s.ui.Progress(read, total, uint64(s.engine.Stats().Records()))
	}
	return s.dir.Err()
}

// Checkpoint implements profiler.Sink.
func (s *sink) Checkpoint(c *profiler.Checkpoint) error {
	return (*run)(s).save(&savedState{Engine: c, Clean: c.Clean})
}

const endOfStream = int64(math.MaxInt64)

// closeWindows writes the labelled flows of windows for which no more alerts
// are expected at stream time low: those that ended two widths before, which
// is also when the alerts forget them.
func (r *run) closeWindows(low int64) error {
	w := r.dir.Flows()
	if w == nil || low < 0 {
		return nil
	}
	width := r.o.Config.Parameters.TimeWindowWidth.Duration()
	if low < endOfStream {
		if width > math.MaxInt64/4 {
			return nil // the sums below do not fit into an int64, nor would any window end before the stream
		}
		low -= 2 * int64(width)
		n := r.engine.WindowAt(low).N
		if n == r.closed {
			return nil
		}
		r.closed = n
	}
	return w.CloseBefore(low, width)
}

// recorder is a writer that takes every record.
type recorder interface {
	Flow(f *flow.Flow, w profile.Window) error
}

// recorders is all that is told of every record.
type recorders struct {
	cover   *coverage.Watch
	watch   profiler.Flows // may be nil
	writers []recorder
}

// recorders returns what is to be told of every record.
func (r *run) recorders() profiler.Flows {
	t := recorders{cover: r.cover.Watch, watch: r.o.Watch}
	if w := r.dir.Flows(); w != nil {
		t.writers = append(t.writers, w)
	}
	if w := r.dir.Letters(); w != nil {
		t.writers = append(t.writers, w)
	}
	if w := r.dir.Timeline(); w != nil {
		t.writers = append(t.writers, w)
	}
	return t
}

// Flow implements profiler.Flows. The writers remember their errors, and the
// sink asks for them.
func (t recorders) Flow(f *flow.Flow, w profile.Window) {
	t.cover.Flow(f, w)
	if t.watch != nil {
		t.watch.Flow(f, w)
	}
	for _, x := range t.writers {
		_ = x.Flow(f, w)
	}
}
