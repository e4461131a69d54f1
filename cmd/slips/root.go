package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slips-go/slips/alerts/block"
	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/config"
	"github.com/slips-go/slips/feeds/geo"
	"github.com/slips-go/slips/feeds/online"
	"github.com/slips-go/slips/internal/service"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/packet/bpf"
	"github.com/slips-go/slips/parsers/packet/live"
	"github.com/slips-go/slips/zeekscripts"
)

// The exit codes. They are part of the interface: help and README list them.
const (
	exitOK          = 0
	exitInternal    = 1 // a fault of the program
	exitUsage       = 2 // command line or configuration
	exitInput       = 3 // some or all input could not be read; the rest was analysed
	exitOutput      = 4 // results could not be written
	exitInterrupted = 5 // stopped before the end of its files
	exitSensor      = 6 // an interface or Zeek cannot be used, or was lost
	exitPermission  = 7 // the system does not let us capture or block
	exitBlock       = 8 // the firewall cannot be used, or a block was refused
)

// codeError carries the exit code that an error leads to.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string { return e.err.Error() }
func (e *codeError) Unwrap() error { return e.err }

// codeOf returns the exit code for an error.
func codeOf(err error) int {
	var (
		code     *codeError
		filter   *bpf.Error
		start    *zeekscripts.StartError
		write    *export.WriteError
		occupied *export.OccupiedError
		out      *outputError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return code.code
	case errors.As(err, &write), errors.As(err, &occupied), errors.As(err, &out), errors.Is(err, export.ErrInUse),
		errors.Is(err, export.ErrChanged):
		return exitOutput
	case errors.As(err, &filter), errors.Is(err, bpf.ErrNothing):
		return exitUsage
	case errors.Is(err, live.ErrPermission), errors.Is(err, zeekscripts.ErrPermission), errors.Is(err, block.ErrPermission):
		return exitPermission
	case errors.Is(err, live.ErrNoInterface), errors.Is(err, live.ErrDown), errors.Is(err, live.ErrLink), errors.Is(err, live.ErrUnsupported),
		errors.As(err, &start):
		return exitSensor
	case errors.Is(err, block.ErrUnsupported):
		return exitBlock
	}
	return exitInternal
}

// program is what the commands share: the world they run in.
type program struct {
	env            []string
	stdin          io.Reader
	stdout, stderr io.Writer
	specs          []modules.Spec

	configFile string   // -c
	set        []string // --set

	daemon *service.Daemon // this process is a run that was detached; nil: it is not
	sole   bool            // nothing but the program goes on in the process

	code int // of a run that ended without an error
}

// getenv returns the value of a variable; empty when it is not set.
func (p *program) getenv(name string) string {
	for _, e := range slices.Backward(p.env) {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// Main runs the program and returns its exit code. It reads and changes
// nothing outside its arguments and the paths they name, so that tests can
// run it many times in one process. Cancelling ctx ends a run cleanly.
func Main(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return start(ctx, args, env, stdin, stdout, stderr, false)
}

// start is Main. sole says that nothing else goes on in the process, which then
// gives up the privileges that it does not need.
func start(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer, sole bool) int {
	daemon, env, err := service.Attach(env)
	p := &program{env: env, stdin: stdin, stdout: stdout, stderr: stderr, specs: specs(), daemon: daemon, sole: sole}
	if err != nil {
		p.complain(err)
		return exitInternal
	}
	defer func() { _ = daemon.Close() }() // the kernel gives up what it holds in any case
	args = oldSpelling(args)
	root := p.root(args)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err = root.ExecuteContext(ctx)
	if err == nil {
		return p.code
	}
	code := codeOf(err)
	for line := range strings.SplitSeq(strings.TrimRight(err.Error(), "\n"), "\n") {
		_, _ = fmt.Fprintf(stderr, "slips: %s\n", printable(line)) // when stderr is gone there is nobody to tell
	}
	var flag *flagError
	if errors.As(err, &flag) {
		_, _ = fmt.Fprintln(stderr, `slips: run "slips --help" for usage`)
	}
	return code
}

// oldSpelling turns what the command line of the Python version has, and no
// library reads, into what this one has.
func oldSpelling(args []string) []string {
	out := slices.Clone(args)
	for i, a := range out {
		switch {
		case a == "--":
			return out
		case a == "-ap":
			out[i] = "--access-point"
		case a == "--clearblocking" && len(out) == 1:
			return []string{"unblock", "--all"}
		}
	}
	return out
}

// flagError is a mistake on the command line for which help helps.
type flagError struct{ err error }

func (e *flagError) Error() string { return e.err.Error() }
func (e *flagError) Unwrap() error { return e.err }

func badFlags(format string, args ...any) error {
	return &codeError{exitUsage, &flagError{fmt.Errorf(format, args...)}}
}

const longHelp = `Slips reads packets, or the logs of Zeek, Suricata, Argus or nfdump, follows each
host through time windows, and reports hosts that behave like attackers or infected
machines: evidence for each thing it finds, an alert when enough adds up. It can
block them.

Results go to a directory (-o, default output/<input>_<time>/):
  alerts/alerts.log        what was found, to read
  alerts/evidence.jsonl    each piece of evidence, to process
  alerts/alerts.jsonl      each alert and the evidence behind it
  alerts/alerts.json       both, as IDMEFv2 messages
  summary.json, slips.log  counts, and what happened

Exit codes:
  0  all went well
  1  a fault of the program
  2  wrong command line or configuration
  3  some or all input could not be read (the rest was analysed)
  4  results could not be written
  5  stopped by a signal before the end of its files
  6  an interface or Zeek cannot be used
  7  no permission to capture or to block; the message names the capability
  8  the firewall cannot be used, or what was asked of it was refused
  N  of --exit-code-on-alert: all went well, and there were alerts`

const examples = `  slips -f zeek-logs/                    analyse a directory of logs
  slips -f conn.log dns.log -o results   analyse two logs, results in results/
  slips --follow /opt/zeek/logs/current -o /var/lib/slips
                                         follow logs as they grow; started again
                                         with the same -o it goes on where it was
  slips -f capture.pcap                  analyse packets, by Zeek where it is installed
  sudo slips -i eth0 --block=dry-run     watch an interface, log what would be blocked
  zcat eve.json.gz | slips -f -          read standard input
  slips -f logs --json | jq .profile     evidence and alerts for a pipe
  slips -f logs --set modules.dga.min_names=20
  slips config show                      all settings and their meaning`

// root builds the command tree. Flags are fields of values made here, never
// of the package.
func (p *program) root(args []string) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:           "slips {-f PATH... | --follow PATH... | -i INTERFACE...} [-o DIR] [-c FILE]",
		Short:         "Find hosts that behave badly in network logs",
		Long:          longHelp,
		Example:       examples,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, rest []string) error {
			f.changed = cmd.Flags().Changed
			return p.run(cmd.Context(), &f, rest, append([]string{"slips"}, args...))
		},
	}
	cmd.SetVersionTemplate("{{.Version}}\n")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return badFlags("%w", err) })
	cmd.PersistentFlags().StringVarP(&p.configFile, "config", "c", "", "configuration `FILE` (default $SLIPS_CONFIG; without either, built-in settings)")
	cmd.PersistentFlags().StringArrayVar(&p.set, "set", nil, "set one configuration key, as `KEY=VALUE`; may be repeated")
	f.register(cmd.Flags())
	cmd.AddCommand(p.configCommand(), p.modulesCommand(), p.timelineCommand(), p.evalCommand(), p.selftestCommand(), p.feedsCommand(),
		p.lookupCommand(), p.huntCommand(), p.whitelistCommand(), p.enrichCommand(), p.blockCommand(), p.unblockCommand(),
		p.blocksCommand(), p.healthCommand(), p.zeekScriptsCommand(), p.versionCommand())
	return cmd
}

// load loads the configuration with the overrides of the command at hand on
// top of those of --set.
func (p *program) load(path string, overrides ...config.Override) (*config.Config, error) {
	if path == "" {
		path = p.configFile
	}
	if path == "" {
		path = p.getenv("SLIPS_CONFIG")
	}
	o := config.Options{Path: path, Env: p.env}
	for _, s := range p.set {
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			return nil, badFlags("--set %q: want KEY=VALUE", s)
		}
		o.Overrides = append(o.Overrides, config.Override{Key: key, Value: value, Origin: "--set"})
	}
	o.Overrides = append(o.Overrides, overrides...)
	services, blocking := online.DefaultConfig(), defaultBlockConfig()
	o.Sections = []config.Section{{Name: "enrichment", Defaults: &services}, {Name: "block", Defaults: &blocking}}
	for _, s := range p.specs {
		m := config.Module{Name: s.Name, Defaults: s.Defaults()}
		for _, e := range s.Emits {
			m.Emits = append(m.Emits, string(e.Type))
		}
		o.Modules = append(o.Modules, m)
	}
	c, err := config.Load(o)
	if err != nil {
		return nil, &codeError{exitUsage, err}
	}
	if err := errors.Join(p.checkModules(c), checkSections(c)); err != nil {
		return nil, &codeError{exitUsage, err}
	}
	return c, nil
}

// onlineConfig returns the settings of the online services.
func onlineConfig(c *config.Config) *online.Config {
	return section[online.Config](c, "enrichment")
}

// section returns the settings of a section that load has registered.
func section[T any](c *config.Config, name string) *T {
	s, ok := c.Section(name).(*T)
	if !ok {
		panic("BUG: the configuration was loaded without the section " + name)
	}
	return s
}

// checkSections judges what the configuration cannot judge by itself.
func checkSections(c *config.Config) error {
	var errs []error
	add := func(section string, err error) {
		if err == nil {
			return
		}
		if from := c.Origin(section); from != "" {
			section = from + ": " + section
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			errs = append(errs, errors.New(section+"."+line))
		}
	}
	add("enrichment", onlineConfig(c).Validate())
	add("block", blockSection(c).Validate())
	add("block.arp", blockSection(c).ARP.Validate())
	for _, name := range c.Feeds.Databases {
		if !slices.ContainsFunc(geo.Catalogue(), func(d geo.Database) bool { return d.Name == name }) {
			add("feeds", fmt.Errorf("databases: %q: no such database, \"slips feeds list\" names them", name))
		}
	}
	return errors.Join(errs...)
}

// checkModules lets each module judge its settings, switched off or not, and
// adds where they were given.
func (p *program) checkModules(c *config.Config) error {
	var errs []error
	for _, s := range p.specs {
		_, err := s.New(c.Module(s.Name), modules.Env{Log: discard(), Width: c.Parameters.TimeWindowWidth.Duration()})
		if err == nil {
			continue
		}
		if from := c.Origin("modules." + s.Name); from != "" {
			err = fmt.Errorf("%s: %w", from, err)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// outputName returns the name of the directory that a run without -o makes.
func outputName(paths []string, now time.Time) string {
	name := "stdin"
	if paths[0] != "-" {
		name = baseName(paths[0])
	}
	if len(paths) > 1 {
		name += "+" + strconv.Itoa(len(paths)-1)
	}
	return name + "_" + now.Format("2006-01-02_15:04:05")
}

// isTerminal reports whether w is a terminal, and its width in columns.
func isTerminal(w any) (width int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile {
		return 0, false
	}
	return terminalWidth(int(f.Fd()))
}
