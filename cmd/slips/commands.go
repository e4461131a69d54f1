package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/slips-go/slips/config"
	"github.com/slips-go/slips/modules"
)

// print writes the product of a command to standard output.
func (p *program) print(text string) error {
	if _, err := io.WriteString(p.stdout, text); err != nil {
		return &outputError{err}
	}
	return nil
}

// atMost is cobra.MaximumNArgs with an error that leads to the right exit code.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return badFlags("%s: unexpected argument %q", cmd.CommandPath(), args[n])
		}
		return nil
	}
}

// exactly is cobra.ExactArgs with an error that leads to the right exit code.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return badFlags("%s: want %s, and %d arguments are given", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}

// atLeastOne asks for arguments.
func atLeastOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return badFlags("%s: want %s", cmd.CommandPath(), what)
		}
		return nil
	}
}

// group makes a command that only has others below it.
func group(cmd *cobra.Command, below ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(below...)
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return badFlags("%s: unknown command %q", cmd.CommandPath(), args[0])
		}
		return cmd.Help()
	}
	return cmd
}

func (p *program) configCommand() *cobra.Command {
	var defaults bool
	show := &cobra.Command{
		Use:   "show [FILE]",
		Short: "Print the effective configuration, with comments",
		Long: `Print the configuration that a run would have: defaults, FILE (or -c), the
environment and --set, in this order. A setting that is not the default says
where it comes from. The output is a valid configuration file.`,
		Example: "  slips config show --defaults > slips.yaml\n  SLIPS_PROFILER_LANES=2 slips config show my.yaml",
		Args:    atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			q := *p
			if defaults {
				if len(args) > 0 {
					return badFlags("--defaults and a file cannot be combined")
				}
				q.env, q.set, q.configFile = nil, nil, ""
			}
			c, err := q.loadArg(args)
			if err != nil {
				return err
			}
			return p.print(string(c.YAML()))
		},
	}
	show.Flags().BoolVar(&defaults, "defaults", false, "leave files, environment and --set aside")
	check := &cobra.Command{
		Use:     "check [FILE]",
		Short:   "Check a configuration, and say what is wrong with it",
		Long:    "Check FILE (or -c) as a run would load it, environment and --set included.\nThe exit code is 0 when all is well and 2 when not.",
		Example: "  slips config check my.yaml",
		Args:    atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := p.loadArg(args)
			if err != nil {
				return err
			}
			for _, w := range c.Warnings {
				p.complain(errors.New("warning: " + w))
			}
			return p.print("configuration OK\n")
		},
	}
	return group(&cobra.Command{Use: "config", Short: "Show or check the configuration"}, show, check)
}

func (p *program) loadArg(args []string) (*config.Config, error) {
	if len(args) == 1 {
		if args[0] == "" {
			return nil, badFlags("the path of the configuration file is empty")
		}
		return p.load(args[0])
	}
	return p.load("")
}

// moduleInfo is a module in "slips modules --json".
type moduleInfo struct {
	Name     string         `json:"name"`
	Doc      string         `json:"doc"`
	Enabled  bool           `json:"enabled"`
	Scope    string         `json:"scope"`
	Kinds    []string       `json:"kinds"`
	Evidence []evidenceInfo `json:"evidence"`
}

type evidenceInfo struct {
	Type    string   `json:"type"`
	Level   string   `json:"threat_level"`
	Tactic  string   `json:"tactic"`
	MITRE   []string `json:"mitre"`
	Subject string   `json:"subject"`
	Over    string   `json:"over"`
	Doc     string   `json:"doc"`
}

func (p *program) modulesCommand() *cobra.Command {
	var asJSON, asMarkdown bool
	var profiled string
	cmd := &cobra.Command{
		Use:   "modules",
		Short: "List the detection modules",
		Long:  "List the detection modules in the order they run: the evidence each reports,\nits level and MITRE ATT&CK techniques, and whether it is switched on.",
		Args:  atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			profiling := cmd.Flags().Changed("profile")
			switch {
			case asJSON && asMarkdown:
				return badFlags("--json and --markdown cannot be combined")
			case profiling && asMarkdown:
				return badFlags("--profile and --markdown cannot be combined")
			case profiling && profiled == "":
				return badFlags("--profile: the path is empty")
			case profiling:
				return p.profileModules(profiled, asJSON)
			}
			c, err := p.load("")
			if err != nil {
				return err
			}
			infos := describe(p.specs, c)
			switch {
			case asJSON:
				text, err := json.MarshalIndent(infos, "", "  ")
				if err != nil {
					return fmt.Errorf("BUG: list of modules: %w", err)
				}
				return p.print(string(text) + "\n")
			case asMarkdown:
				return p.print(moduleMarkdown(infos))
			}
			return p.print(moduleTable(infos))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&asMarkdown, "markdown", false, "print docs/modules.md")
	cmd.Flags().StringVar(&profiled, "profile", "", "print what each module cost in the run whose output directory is `DIR`")
	return cmd
}

func describe(specs []modules.Spec, c *config.Config) []moduleInfo {
	out := []moduleInfo{}
	for _, s := range specs {
		m := moduleInfo{
			Name: s.Name, Doc: s.Doc, Enabled: c.Enabled(s.Name), Scope: s.Scope.String(), Kinds: list(s.Kinds.Names()),
			Evidence: []evidenceInfo{},
		}
		for _, e := range s.Emits {
			m.Evidence = append(m.Evidence, evidenceInfo{
				string(e.Type), e.Level.String(), string(e.Tactic), list(e.MITRE), e.Subject, e.Over, e.Doc,
			})
		}
		out = append(out, m)
	}
	return out
}

// moduleTable is for people: a line for each evidence type.
func moduleTable(infos []moduleInfo) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "MODULE\tON\tEVIDENCE\tLEVEL\tMITRE\tRECORDS\tSTATE PER") // a strings.Builder takes everything
	for _, m := range infos {
		on := "on"
		if !m.Enabled {
			on = "off"
		}
		name, kinds, scope := m.Name, strings.Join(m.Kinds, ","), m.Scope
		for _, e := range m.Evidence {
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", name, on, e.Type, e.Level, dash(strings.Join(e.MITRE, ",")), kinds, scope)
			name, on, kinds, scope = "", "", "", ""
		}
		if len(m.Evidence) == 0 {
			_, _ = fmt.Fprintf(w, "%s\t%s\t-\t-\t-\t%s\t%s\n", name, on, kinds, scope)
		}
	}
	_ = w.Flush() // as above
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// moduleMarkdown is docs/modules.md.
func moduleMarkdown(infos []moduleInfo) string {
	var b strings.Builder
	b.WriteString("<!-- Written by \"slips modules --markdown\". Do not edit. -->\n\n# Detection modules\n\n" +
		"In the order they run. Each module's folder has a README with its rules, settings and limits.\n\n" +
		"| module | what it finds | records | state per |\n|---|---|---|---|\n")
	for _, m := range infos {
		fmt.Fprintf(&b, "| [%s](../modules/%s/README.md) | %s | %s | %s |\n", m.Name, m.Name, cell(m.Doc), strings.Join(m.Kinds, ", "), m.Scope)
	}
	b.WriteString("\n## Evidence\n\nThe level is the default; a module's README says where it differs. Each subject is reported once in a time window, and again\n" +
		"when it has grown. Evidence of several tactics corroborates ([decision 6](decisions/0006-weighing.md)); `context` adds nothing to a score.\n\n" +
		"| type | level | tactic | MITRE ATT&CK | subject | over | module | meaning |\n|---|---|---|---|---|---|---|---|\n")
	for _, m := range infos {
		for _, e := range m.Evidence {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", e.Type, e.Level, e.Tactic, dash(strings.Join(e.MITRE, ", ")),
				cell(e.Subject), cell(e.Over), m.Name, cell(e.Doc))
		}
	}
	return b.String()
}

// list makes an empty list of a missing one, for JSON.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// cell makes text fit into a cell of a Markdown table.
func cell(s string) string { return strings.NewReplacer("|", `\|`, "\n", " ").Replace(s) }

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  atMost(0),
		RunE:  func(*cobra.Command, []string) error { return p.print(version() + "\n") },
	}
}

// release is the version that outputs carry: of two builds of one release the
// outputs are the same.
const release = "0.1.0"

// version says what this program was built from: the go command knows.
func version() string {
	commit, dirty := "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				commit = " " + s.Value[:min(12, len(s.Value))]
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = " (modified)"
			}
		}
	}
	return fmt.Sprintf("slips %s%s%s %s %s/%s", release, commit, dirty, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
