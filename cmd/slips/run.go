package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/config"
	"github.com/slips-go/slips/internal/privilege"
	"github.com/slips-go/slips/internal/service"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/profiler"
)

// runOptions is everything a run depends on, resolved: analyse needs neither
// flags nor the environment.
type runOptions struct {
	Paths []string // files and directories; "-" is Stdin
	// Interfaces are captured on live. There is at least one of these or of Paths.
	Interfaces  []string
	AccessPoint bool            // Interfaces are the wireless and the wired side of one
	Sole        bool            // nothing else goes on in the process, so it may give up privileges also when it only reads
	User        *privilege.User // who the process becomes once interfaces are open; nil: it stays who it is
	Socket      string          // where "slips block" reaches the run
	Follow      bool            // inputs grow, as they do on interfaces; go on until the context ends
	Format      string          // "auto" or the name of a sensor
	Stdin       io.Reader       // for the path "-"
	Output      string          // directory of the results, never empty
	Overwrite   bool            // an earlier run's results there may be removed
	Config      *config.Config
	Modules     []module        // those switched on, in the order they run
	types       []evidence.Type // that all modules emit
	names       []string        // of all modules
	Command     []string        // command line, for the metadata
	Version     string
	Start       time.Time           // wall clock at which the program began
	Watch       profiler.Flows      // is told of each record, in their order; may be nil
	Reload      <-chan os.Signal    // asks the run to read lists again and open its log anew; nil: never
	Env         func(string) string // variables of the environment; nil: there are none
	Health      string              // file to touch while the run makes progress; empty: none
	Daemon      *service.Daemon     // the run is one that was detached; nil: it is not
}

// module is a detection module with its settings.
type module struct {
	Spec   modules.Spec
	Config any // pointer, for Spec.New
}

// result is what is left to tell when a run has ended.
type result struct {
	Summary  export.Summary
	Problems []error // input that could not be read, in whole or in part: exit code 3
}

// UI shows a run while it goes on. The pipeline calls it from one goroutine,
// Note excepted, which any may call. Evidence and Alert return an error when
// the output is of no use without them; the run shall end then.
type UI interface {
	alerts.Sink
	// Host tells the name of a host, for alerts that come later.
	Host(ip netip.Addr, name string)
	// Progress tells how far reading has come: bytes of all inputs, and
	// records so far. It may be called often.
	Progress(read, total int64, records uint64)
	// Note tells the user something in one line.
	Note(text string)
}

// runFlags are the flags of a run.
type runFlags struct {
	files, follow, disable           []string
	output, format, flows, direction string
	lanes, verbose, alertCode        int
	quiet, json, noColor, overwrite  bool
	interfaces                       []string
	engine, filter, access, block    string
	user, pidFile, health            string
	daemon, stop, isolate            bool
	letters, timeline                bool
	cpuProfile, memProfile           string
	changed                          func(flag string) bool
}

func formats() []string { return []string{"auto", "zeek", "suricata", "argus", "nfdump"} }

func (f *runFlags) register(s *pflag.FlagSet) {
	s.SortFlags = false
	s.StringArrayVarP(&f.files, "file", "f", nil, "analyse `PATH`: a log or capture, a directory of either, a pipe, or - for standard input; more may follow")
	s.StringArrayVarP(&f.follow, "follow", "g", nil, "follow the logs at `PATH` as they grow, until stopped; more may follow")
	s.StringArrayVarP(&f.interfaces, "interface", "i", nil, "capture on `INTERFACE` until stopped; may be repeated (needs CAP_NET_RAW)")
	s.StringVar(&f.access, "access-point", "", "capture on the two sides of an access point, `WIRELESS,WIRED`")
	s.StringVar(&f.engine, "engine", "", "`ENGINE` that reads packets: auto, zeek, builtin (default: Zeek where it is installed)")
	s.StringVarP(&f.filter, "pcapfilter", "F", "", "look at packets that match the BPF `FILTER` alone, such as \"not port 22\"")
	s.StringVarP(&f.block, "block", "p", "", "block hosts with alerts, with -i and --follow: `HOW` is on, or dry-run to log what would be done (needs CAP_NET_ADMIN)")
	s.Lookup("block").NoOptDefVal = blockOn
	s.BoolVar(&f.isolate, "arp-isolate", false, "with --block and -i: keep blocked hosts of the local network from their neighbours too, by false ARP answers")
	s.StringVarP(&f.output, "output", "o", "", "`DIR` for the results")
	s.BoolVar(&f.overwrite, "overwrite", false, "replace the results of an earlier run in the output directory")
	s.StringVar(&f.format, "format", "auto", "`FORMAT` of the input: "+strings.Join(formats(), ", "))
	s.StringVar(&f.direction, "analysis-direction", "", "`WHICH`: out, flows belong to the host that opened them, or all, to both sides")
	s.StringArrayVar(&f.disable, "disable", nil, "switch a `MODULE` off; may be repeated")
	s.StringVar(&f.flows, "export-flows", "", "write flows/labeled_flows, as `FORMAT` tsv or jsonl")
	s.BoolVar(&f.letters, "export-letters", false, "write flows/letters.tsv, the behaviour of each host towards each peer and port as letters")
	s.BoolVar(&f.timeline, "export-timeline", false, "write flows/timeline.jsonl, what each host did, for \"slips timeline\"")
	s.IntVar(&f.lanes, "lanes", 0, "run modules on `N` lanes (default: chosen by the program)")
	s.IntVar(&f.alertCode, "exit-code-on-alert", 0, "exit with `N` (10 to 125) when there were alerts")
	s.BoolVarP(&f.quiet, "quiet", "q", false, "print nothing but errors")
	s.BoolVar(&f.json, "json", false, "print evidence and alerts as JSON lines, and nothing else, on standard output")
	s.BoolVar(&f.noColor, "no-color", false, "no colours (also with $NO_COLOR, or when the output is no terminal)")
	s.CountVarP(&f.verbose, "verbose", "v", "tell more: -v evidence as it comes, -vv details for finding faults")
	s.BoolVarP(&f.daemon, "daemon", "D", false, "run away from the terminal; results go to /var/log/slips or the user's own place")
	s.BoolVarP(&f.stop, "stopdaemon", "S", false, "stop the run that -D has started")
	s.StringVar(&f.pidFile, "pidfile", "", "`FILE` with the number of the process of -D, for several at a time")
	s.StringVar(&f.health, "health-file", "", "touch `FILE` while the run makes progress, for \"slips health FILE\"")
	s.StringVar(&f.user, "user", "", "become this `USER` once what needs root is open (default: $SUDO_UID, or who owns the output directory)")
	s.BoolP("version", "V", false, "print the version")
	s.StringVar(&f.cpuProfile, "cpuprofile", "", "write a CPU profile to `FILE`")
	s.StringVar(&f.memProfile, "memprofile", "", "write a heap profile to `FILE`")
	s.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		switch name {
		case "filepath": // the names that these flags had in the Python version
			name = "file"
		case "growing":
			name = "follow"
		case "blocking":
			name = "block"
		}
		return pflag.NormalizedName(name)
	})
	for _, name := range []string{"cpuprofile", "memprofile"} {
		if err := s.MarkHidden(name); err != nil {
			panic("BUG: " + err.Error())
		}
	}
}

// The values of --block.
const (
	blockOn     = "on"
	blockOff    = "off"
	blockDryRun = "dry-run"
)

func blockValues() []string { return []string{blockOn, blockOff, blockDryRun} }

// inputs returns what is to be read: interfaces, or the paths of a flag and the
// arguments behind it.
func (f *runFlags) inputs(rest []string) (paths, interfaces []string, err error) {
	live := len(f.interfaces) > 0 || f.changed("access-point")
	switch {
	case !live:
		paths, err = f.paths(rest)
		return paths, nil, err
	case len(f.files) > 0:
		return nil, nil, badFlags("-i captures packets as they come and -f reads what is there: run one of them at a time")
	case len(f.follow) > 0:
		return nil, nil, badFlags("-i and --follow cannot be combined: --follow reads what another sensor writes, and needs no interface")
	case len(f.interfaces) > 0 && f.changed("access-point"):
		return nil, nil, badFlags("-i and --access-point cannot be combined: the latter names both interfaces")
	case len(rest) > 0 && slices.Contains(blockValues(), rest[0]):
		return nil, nil, badFlags("unexpected argument %q: the value of --block is attached to it, as in --block=%s", rest[0], rest[0])
	case len(rest) > 0:
		return nil, nil, badFlags("unexpected argument %q: each interface has an -i of its own, and a filter stands behind -F", rest[0])
	}
	interfaces = f.interfaces
	if f.changed("access-point") {
		interfaces = strings.Split(f.access, ",")
		if len(interfaces) != 2 {
			return nil, nil, badFlags("--access-point %q: want two interfaces, WIRELESS,WIRED", f.access)
		}
	}
	for i, name := range interfaces {
		if name == "" || slices.Contains(interfaces[:i], name) {
			return nil, nil, badFlags("interface %q: empty, or given twice", name)
		}
	}
	return nil, interfaces, nil
}

// paths returns the inputs: those of the flag and the arguments behind it.
func (f *runFlags) paths(rest []string) ([]string, error) {
	switch {
	case len(f.files) > 0 && len(f.follow) > 0:
		return nil, badFlags("-f and --follow cannot be combined: files that are complete and files that grow are read in different ways")
	case len(f.files) > 0:
		return nonEmpty(append(f.files, rest...))
	case len(f.follow) > 0:
		if slices.Contains(f.follow, "-") || slices.Contains(rest, "-") {
			return nil, badFlags("standard input cannot be followed: use -f -, which reads it until it ends")
		}
		return nonEmpty(append(f.follow, rest...))
	case len(rest) > 0:
		return nil, badFlags("unknown command %q: to analyse files, use -f", rest[0])
	}
	return nil, badFlags("nothing to do: name logs or captures with -f, growing logs with --follow, or interfaces with -i")
}

func nonEmpty(paths []string) ([]string, error) {
	seen := map[string]bool{}
	for _, path := range paths {
		if path == "" {
			return nil, badFlags("a path is empty")
		}
		if path == "-" && seen[path] {
			return nil, badFlags("standard input is named twice")
		}
		seen[path] = true
	}
	return paths, nil
}

// overrides returns the settings that flags stand for.
func (f *runFlags) overrides() []config.Override {
	var o []config.Override
	add := func(key, value, flag string) { o = append(o, config.Override{Key: key, Value: value, Origin: flag}) }
	if f.changed("lanes") {
		add("profiler.lanes", strconv.Itoa(f.lanes), "--lanes")
	}
	if f.changed("analysis-direction") {
		add("parameters.analysis_direction", f.direction, "--analysis-direction")
	}
	if f.changed("export-flows") {
		add("parameters.export_labeled_flows", "true", "--export-flows")
		add("parameters.export_format", f.flows, "--export-flows")
	}
	if f.changed("export-letters") {
		add("parameters.export_letters", strconv.FormatBool(f.letters), "--export-letters")
	}
	if f.changed("export-timeline") {
		add("parameters.export_timeline", strconv.FormatBool(f.timeline), "--export-timeline")
	}
	if f.changed("engine") {
		add("parameters.engine", f.engine, "--engine")
	}
	if f.changed("pcapfilter") {
		add("parameters.pcapfilter", f.filter, "-F")
	}
	if f.changed("block") {
		add("block.enabled", strconv.FormatBool(f.block != blockOff), "--block")
		if f.block == blockDryRun {
			add("block.dry_run", "true", "--block")
		}
	}
	if f.changed("arp-isolate") {
		add("block.arp_isolate", strconv.FormatBool(f.isolate), "--arp-isolate")
	}
	if f.verbose > 0 {
		add("parameters.verbose", strconv.Itoa(min(1+f.verbose, 3)), "-v")
	}
	return o
}

// options checks the flags and resolves them.
func (p *program) options(f *runFlags, rest, command []string) (*runOptions, error) {
	paths, interfaces, err := f.inputs(rest)
	if err != nil {
		return nil, err
	}
	live := len(interfaces) > 0 || len(f.follow) > 0
	switch {
	case f.changed("block") && !slices.Contains(blockValues(), f.block):
		return nil, badFlags("--block=%s: want on, off or dry-run", f.block)
	case f.changed("block") && f.block != blockOff && !live:
		return nil, badFlags("--block is for -i and --follow: what -f reads is over")
	case f.changed("health-file") && (!live || f.health == ""):
		return nil, badFlags("--health-file names a file, and is for -i and --follow")
	case !slices.Contains(formats(), f.format):
		return nil, badFlags("--format %q: want one of %s", f.format, strings.Join(formats(), ", "))
	case f.changed("exit-code-on-alert") && (f.alertCode < 10 || f.alertCode > 125):
		return nil, badFlags("--exit-code-on-alert %d: want 10 to 125, because lower codes have a meaning and shells use the higher ones", f.alertCode)
	case f.changed("output") && f.output == "":
		return nil, badFlags("-o: the path is empty")
	}
	o := f.overrides()
	cfg, err := p.load("", o...)
	if err != nil {
		return nil, err
	}
	if len(f.disable) > 0 { // in addition to what is configured
		list := strings.Join(append(slices.Clone(cfg.Modules.Disable), f.disable...), ",")
		if cfg, err = p.load("", append(o, config.Override{Key: "modules.disable", Value: list, Origin: "--disable"})...); err != nil {
			return nil, err
		}
	}
	run := &runOptions{
		Env: p.getenv, Daemon: p.daemon, Health: f.health,
		Paths: paths, Interfaces: interfaces, AccessPoint: f.changed("access-point"),
		Follow: live, Format: f.format, Stdin: p.stdin, Output: f.output, Overwrite: f.overwrite,
		Config: cfg, Command: command, Version: version(), Start: time.Now(),
	}
	if run.Output == "" && f.daemon {
		run.Output = service.DefaultPlaces(p.getenv).Output
	}
	if run.Output == "" {
		run.Output = filepath.Join(cfg.Output.Directory, outputName(slices.Concat(paths, interfaces), run.Start))
	}
	if info, err := os.Stat(run.Output); err == nil && !info.IsDir() {
		return nil, &codeError{exitOutput, fmt.Errorf("output directory: %s is a file", run.Output)}
	}
	if blockSection(cfg).Enabled && !live { // by the configuration, which serves other runs too
		blockSection(cfg).Enabled = false
	}
	if b := blockSection(cfg); b.ARPIsolate && (!b.Enabled || len(interfaces) == 0) {
		if f.isolate {
			return nil, badFlags("--arp-isolate is for runs with --block and -i: it works on the interfaces that are named")
		}
		b.ARPIsolate = false
	}
	run.Socket = controlSockets(cfg, p.getenv)[0]
	if p.sole || !run.readsOnly() {
		if run.User, err = privilege.Choose(f.user, p.getenv, run.Output); err != nil {
			return nil, &codeError{exitUsage, err}
		}
	}
	run.Modules = p.enabled(cfg)
	run.types, run.names = p.known()
	return run, nil
}

// known returns the types of evidence and the modules that there are.
func (p *program) known() (types []evidence.Type, names []string) {
	for _, s := range p.specs {
		names = append(names, s.Name)
		for _, e := range s.Emits {
			types = append(types, e.Type)
		}
	}
	return types, names
}

// enabled returns the modules that a configuration switches on, in the order
// they run.
func (p *program) enabled(c *config.Config) (list []module) {
	for _, s := range p.specs {
		if c.Enabled(s.Name) {
			list = append(list, module{s, c.Module(s.Name)})
		}
	}
	return list
}

// run is the root command.
func (p *program) run(ctx context.Context, f *runFlags, rest, command []string) (err error) {
	if f.stop {
		return p.stopDetached(f)
	}
	o, err := p.options(f, rest, command)
	if err != nil {
		return err
	}
	o.Sole = p.sole
	if f.daemon && p.daemon == nil {
		return p.detach(ctx, f, o, command[1:])
	}
	stopProfile, err := profiles(f.cpuProfile, f.memProfile)
	if err != nil {
		return &codeError{exitOutput, err}
	}
	defer func() { err = errors.Join(err, stopProfile()) }()

	ui := p.ui(f, o)
	for _, w := range o.Config.Warnings {
		ui.Note("warning: " + w)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	reload, end := p.hangUps(o, stop)
	defer end()
	o.Reload = reload
	pacing, stopPacing := context.WithCancel(context.WithoutCancel(ctx))
	var paced sync.WaitGroup
	paced.Go(func() { pace(pacing, p.getenv) })
	res, err := analyse(ctx, *o, ui)
	stopPacing()
	paced.Wait()
	interrupted := ctx.Err() != nil && !o.Follow
	ui.close()
	for _, problem := range res.Problems {
		p.complain(problem)
	}
	if err != nil {
		return err
	}
	if len(res.Summary.Sources) > 0 { // with nothing read there is nothing to sum up
		ui.summary(o, &res.Summary)
	}
	switch {
	case interrupted:
		p.complain(errors.New("stopped before the end of the input"))
		p.code = exitInterrupted
	case len(res.Problems) > 0:
		p.code = exitInput
	case res.Summary.Alerts > 0:
		p.code = f.alertCode
	}
	return nil
}

// complain prints an error that does not end the run.
func (p *program) complain(err error) {
	_, _ = fmt.Fprintf(p.stderr, "slips: %s\n", printable(err.Error())) // when stderr is gone there is nobody to tell
}

// profiles starts the profiles of the hidden flags.
func profiles(cpu, mem string) (stop func() error, err error) {
	var cpuFile *os.File
	if cpu != "" {
		if cpuFile, err = os.Create(cpu); err != nil {
			return nil, err
		}
		if err := pprof.StartCPUProfile(cpuFile); err != nil {
			return nil, errors.Join(err, cpuFile.Close())
		}
	}
	return func() error {
		var errs []error
		if cpuFile != nil {
			pprof.StopCPUProfile()
			errs = append(errs, cpuFile.Close())
		}
		if mem != "" {
			errs = append(errs, heapProfile(mem))
		}
		return errors.Join(errs...)
	}, nil
}

func heapProfile(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	runtime.GC() // the profile shows what the last collection left
	return errors.Join(pprof.WriteHeapProfile(f), f.Close())
}

// baseName returns the last element of a path, also of "." and "..".
func baseName(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if name := filepath.Base(path); name != string(filepath.Separator) {
		return name
	}
	return "root"
}
