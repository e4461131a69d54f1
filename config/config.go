// Package config loads the configuration of the program: defaults, a YAML
// file, the environment and the command line, each layer over the one before.
//
// It is strict. An unknown key, a value of the wrong type or out of range is
// an error that says where it was given, what is allowed, and which valid
// name comes nearest. Only cmd imports this package; every other package
// defines its own config struct and is handed it.
package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/viper"
)

// Config is the effective configuration. It is read-only after Load.
type Config struct {
	Parameters     Parameters     `yaml:"parameters"`
	Detection      Detection      `yaml:"detection"`
	DisabledAlerts DisabledAlerts `yaml:"DisabledAlerts"`
	Profiler       Profiler       `yaml:"profiler"`
	Follow         Follow         `yaml:"follow"`
	Zeekscripts    Zeekscripts    `yaml:"zeekscripts"`
	Packet         Packet         `yaml:"packet"`
	Output         Output         `yaml:"output"`
	Feeds          Feeds          `yaml:"feeds"`
	Whitelists     Whitelists     `yaml:"whitelists"`
	Modules        Modules        `yaml:"modules"`

	// Warnings are for the user: things that were given and ignored.
	Warnings []string `yaml:"-"`

	extra    map[string]any // name of a section -> pointer to its config struct
	sections map[string]any // module name -> pointer to its config struct
	leaves   []leaf
	settings map[string]setting // effective, by canonical key
}

// Parameters is the section of the traffic and of how it is looked at.
type Parameters struct {
	TimeWindowWidth    Width        `yaml:"time_window_width"`
	AnalysisDirection  Direction    `yaml:"analysis_direction"`
	ClientIPs          Networks     `yaml:"client_ips"`
	ExportLabeledFlows bool         `yaml:"export_labeled_flows"`
	ExportFormat       ExportFormat `yaml:"export_format"`
	ExportLetters      bool         `yaml:"export_letters"`
	ExportTimeline     bool         `yaml:"export_timeline"`
	MetadataDir        bool         `yaml:"metadata_dir"`
	Verbose            int          `yaml:"verbose"` // 0 to 3

	// Of packets, from an interface or a capture.
	Engine                  Engine   `yaml:"engine"`
	PcapFilter              string   `yaml:"pcapfilter"` // BPF; empty: all
	TCPInactivityTimeout    Minutes  `yaml:"tcp_inactivity_timeout"`
	Rotation                bool     `yaml:"rotation"` // of the logs of a live Zeek
	DefaultRotationInterval Interval `yaml:"default_rotation_interval"`
	KeepRotatedFilesFor     Interval `yaml:"keep_rotated_files_for"` // 0: for ever
	DeleteZeekFiles         bool     `yaml:"delete_zeek_files"`
}

// Zeekscripts is the section of the Zeek that Slips starts.
type Zeekscripts struct {
	// Zeek is the program, or the folder it is installed in; empty: looked for.
	Zeek string `yaml:"zeek"`
	// Scripts are loaded behind ours.
	Scripts []string `yaml:"scripts"`
}

// Packet is the section of the built-in meter.
type Packet struct {
	Promiscuous    bool `yaml:"promiscuous"`
	RingBuffer     int  `yaml:"ring_buffer"`     // MiB of each interface
	MaxConnections int  `yaml:"max_connections"` // of each interface or capture at a time
}

// Detection is the section of what makes an alert.
type Detection struct {
	// EvidenceDetectionThreshold is what has to add up per minute of window.
	EvidenceDetectionThreshold float64 `yaml:"evidence_detection_threshold"`
	// FirstEvidenceWeight is the weight of the greatest evidence of a type;
	// each further one weighs half of the one before.
	FirstEvidenceWeight float64 `yaml:"first_evidence_weight"`
	// CorroborationWeight is what each further kind of behaviour adds to the
	// factor of the sum.
	CorroborationWeight float64 `yaml:"corroboration_weight"`
}

// DisabledAlerts is the section of evidence that is not wanted.
type DisabledAlerts struct {
	DisabledDetections []string `yaml:"disabled_detections"` // exact evidence types
}

// Profiler is the section of the engine: sizes and times.
type Profiler struct {
	Lanes              int           `yaml:"lanes"`               // 0: chosen by the program
	MaxProfiles        int           `yaml:"max_profiles"`        // held at once
	MaxWindows         int           `yaml:"max_windows"`         // held at once per profile
	LateGrace          time.Duration `yaml:"late_grace"`          // stream time that a window stays open after its end; 0: the width of a window
	IdleAfter          time.Duration `yaml:"idle_after"`          // wall time after which a quiet source no longer holds up the others
	CheckpointInterval time.Duration `yaml:"checkpoint_interval"` // wall time between two saved states of a follower
}

// Follow is the section of reading logs that grow.
type Follow struct {
	PollInterval time.Duration `yaml:"poll_interval"`
}

// Output is the section of where results go.
type Output struct {
	Directory string `yaml:"directory"` // parent of the directories of runs without -o
}

// Feeds is the section of threat intelligence.
type Feeds struct {
	Enabled bool `yaml:"enabled"`
	// Directory holds what was fetched and the index made of it; empty: the
	// user's cache directory.
	Directory string `yaml:"directory"`
	// File is the operator's own feeds.yaml, which extends and overrides the
	// built-in one.
	File string `yaml:"file"`
	// Local is a directory of the operator's own lists.
	Local string `yaml:"local"`
	// Refresh fetches the feeds while following.
	Refresh bool `yaml:"refresh"`
	// Geo is a directory of databases in MaxMind's format; empty: geo in Directory.
	Geo string `yaml:"geo"`
	// Databases names those that are fetched into Geo with the feeds.
	Databases []string `yaml:"databases"`
}

// Whitelists is the section of what is not to be reported, under the names
// that older configurations have.
type Whitelists struct {
	EnableLocalWhitelist  bool   `yaml:"enable_local_whitelist"`
	LocalWhitelistPath    string `yaml:"local_whitelist_path"` // empty: the built-in one
	EnableOnlineWhitelist bool   `yaml:"enable_online_whitelist"`
}

// Modules is the section of the detection modules. The settings of each
// module stand beside Disable, under the module's name.
type Modules struct {
	Disable []string `yaml:"disable"`
}

// Default returns the configuration without modules that a run has when
// nothing is configured.
func Default() *Config {
	return &Config{
		Parameters: Parameters{
			TimeWindowWidth: Width(time.Hour), AnalysisDirection: Out, ClientIPs: Networks{},
			ExportFormat: JSONL, MetadataDir: true, Verbose: 1,
			Engine: Auto, TCPInactivityTimeout: Minutes(time.Hour), Rotation: true,
			DefaultRotationInterval: Interval(24 * time.Hour), KeepRotatedFilesFor: Interval(24 * time.Hour),
		},
		Detection:      Detection{EvidenceDetectionThreshold: 0.25, FirstEvidenceWeight: 15, CorroborationWeight: 0.25},
		DisabledAlerts: DisabledAlerts{DisabledDetections: []string{}},
		Profiler: Profiler{
			MaxProfiles: 100_000, MaxWindows: 50, IdleAfter: 2 * time.Second,
			CheckpointInterval: 10 * time.Second,
		},
		Follow:      Follow{PollInterval: 250 * time.Millisecond},
		Zeekscripts: Zeekscripts{Scripts: []string{}},
		Packet:      Packet{Promiscuous: true, RingBuffer: 32, MaxConnections: 1 << 17},
		Output:      Output{Directory: "output"},

		Feeds:      Feeds{Enabled: true, Databases: []string{}},
		Whitelists: Whitelists{EnableLocalWhitelist: true, EnableOnlineWhitelist: true},

		Modules: Modules{Disable: []string{}},
	}
}

// Module is what Load has to know about a detection module.
type Module struct {
	Name     string
	Defaults any      // pointer to a fresh struct with yaml tags and the defaults; Load decodes into it
	Emits    []string // evidence types, for checking disabled_detections
}

// Section is a section that another package has the settings of.
type Section struct {
	Name     string
	Defaults any // pointer to a fresh struct with yaml tags and the defaults; Load decodes into it
}

// Override is one setting from the command line.
type Override struct {
	Key    string // canonical, "profiler.lanes"
	Value  string // as it would stand in the file; lists may also be written a,b,c
	Origin string // for messages, "--lanes"
}

// Options say what to load.
type Options struct {
	Path      string // YAML file; empty: none
	Env       []string
	Overrides []Override
	Modules   []Module
	Sections  []Section
}

// maxFile bounds the size of a configuration file, in bytes. A larger one is
// some other file given by mistake.
const maxFile = 1 << 20

// setting is a value with the place it comes from. Viper keeps the layers
// apart by it and never looks inside, so its folding of case does no harm.
type setting struct {
	value  any
	origin string // "slips.yaml:12", "SLIPS_PROFILER_LANES", "--lanes"; empty: default
}

// Load returns the effective configuration. The error joins everything that
// is wrong, one line each, so that a user can mend it in one go.
func Load(o Options) (*Config, error) {
	c := Default()
	if err := c.addModules(o.Modules); err != nil {
		return nil, err
	}
	if err := c.addSections(o.Sections); err != nil {
		return nil, err
	}
	v := viper.New()
	for _, l := range c.leaves {
		v.SetDefault(l.key, setting{value: l.value.Interface()})
	}
	l := loader{config: c}
	if o.Path != "" {
		text, err := readFile(o.Path)
		if err != nil {
			return nil, err
		}
		l.merge(v, l.file(o.Path, text))
	}
	l.merge(v, l.environment(o.Env))
	for _, s := range o.Overrides {
		if leaf, val, ok := l.text(s.Key, s.Value, s.Origin); ok {
			v.Set(leaf.key, setting{val, s.Origin})
		}
	}
	for _, leaf := range c.leaves {
		s, ok := v.Get(leaf.key).(setting)
		if !ok {
			return nil, fmt.Errorf("BUG: key %s was lost between the layers", leaf.key)
		}
		leaf.set(s.value)
		c.settings[leaf.key] = s
	}
	if len(l.problems) == 0 {
		l.validate(o.Modules)
	}
	if err := errors.Join(l.problems...); err != nil {
		return nil, err
	}
	return c, nil
}

func readFile(path string) (text []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	text, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("configuration: %w", err)
	case len(text) > maxFile:
		return nil, fmt.Errorf("configuration: %s: larger than %d bytes, so hardly a configuration file", path, maxFile)
	}
	return text, nil
}

// addModules registers the keys of the sections and of the modules.
func (c *Config) addModules(mods []Module) error {
	c.sections, c.settings = map[string]any{}, map[string]setting{}
	var err error
	if c.leaves, err = leavesOf("", c); err != nil {
		return err
	}
	for _, m := range mods {
		if _, twice := c.sections[m.Name]; twice || m.Name == "disable" {
			return fmt.Errorf("BUG: module name %q is taken", m.Name)
		}
		c.sections[m.Name] = m.Defaults
		ls, err := leavesOf("modules."+m.Name+".", m.Defaults)
		if err != nil {
			return err
		}
		c.leaves = append(c.leaves, ls...)
	}
	return nil
}

// addSections registers the keys of the sections of other packages.
func (c *Config) addSections(sections []Section) error {
	c.extra = map[string]any{}
	for _, s := range sections {
		ls, err := leavesOf(s.Name+".", s.Defaults)
		if err != nil {
			return err
		}
		c.leaves = append(c.leaves, ls...)
		c.extra[s.Name] = s.Defaults
	}
	return nil
}

// Section returns the pointer that the Section of that name was loaded into;
// nil for a name that Load was not given.
func (c *Config) Section(name string) any { return c.extra[name] }

// Module returns the pointer that the Module of that name was loaded into,
// for its Spec.New; nil for a name that Load was not given.
func (c *Config) Module(name string) any { return c.sections[name] }

// Enabled reports whether the module of that name is switched on.
func (c *Config) Enabled(name string) bool { return !slices.Contains(c.Modules.Disable, name) }

// Origin says where the value of a key was given: "slips.yaml:12", the name
// of a variable or of a flag; empty for a default. For a section such as
// "modules.dga" it names the places of its keys that are not defaults.
func (c *Config) Origin(key string) string {
	if s, ok := c.settings[key]; ok {
		return s.origin
	}
	var from []string
	for _, l := range c.leaves {
		if o := c.settings[l.key].origin; o != "" && strings.HasPrefix(l.key, key+".") {
			from = append(from, o)
		}
	}
	return strings.Join(from, ", ")
}
