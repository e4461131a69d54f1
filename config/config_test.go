package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.yaml.in/yaml/v3"
)

// fan is a module config with a key of each sort.
type fan struct {
	MinHosts int           `yaml:"min_hosts"`
	After    time.Duration `yaml:"after"`
	Names    []string      `yaml:"names"`
	Ratio    float64       `yaml:"ratio"`
	Deep     struct {
		Level uint8 `yaml:"level"`
	} `yaml:"deep"`
	Rules []rule `yaml:"rules"`
	cache int
}

type rule struct {
	Name   string  `yaml:"name"`
	Weight float64 `yaml:"weight"`
}

type longconn struct {
	Threshold float64 `yaml:"long_connection_threshold"`
}

type empty struct{}

// testModules returns fresh defaults, as modules.Spec.Defaults does.
func testModules() []Module {
	f := &fan{MinHosts: 5, After: time.Hour, Names: []string{"x"}, Ratio: 0.5, cache: 9}
	f.Deep.Level = 1
	return []Module{
		{Name: "fan", Defaults: f, Emits: []string{"FAN_IN", "FAN_OUT"}},
		{Name: "longconn", Defaults: &longconn{Threshold: 1500}, Emits: []string{"LONG_CONNECTION"}},
		{Name: "plain", Defaults: &empty{}},
	}
}

func load(t *testing.T, o Options) *Config {
	t.Helper()
	o.Modules = testModules()
	c, err := Load(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(text), "\n")
			want, ok := strings.CutPrefix(first, "# wantErr: ")
			if !ok {
				t.Fatal("the first line is not # wantErr: …")
			}
			_, err = Load(Options{Path: path, Modules: testModules()})
			if err == nil {
				t.Fatalf("no error, want %q", want)
			}
			if !strings.Contains(err.Error(), want) {
				t.Errorf("got error\n%v\nwant in it\n%s", err, want)
			}
			if !strings.HasPrefix(err.Error(), path) {
				t.Errorf("error does not begin with the file's name: %v", err)
			}
		})
	}
}

func TestEveryMistakeIsNamed(t *testing.T) {
	_, err := Load(Options{
		Path: "testdata/bad/several.yaml", Env: []string{"SLIPS_PROFILER_LANES=many"},
		Overrides: []Override{{"follow.poll_interval", "never", "--set"}},
	})
	got := strings.Count(fmt.Sprint(err), "\n") + 1
	if got != 4 {
		t.Errorf("%d mistakes named, want 4:\n%v", got, err)
	}
}

// Each good file is read, written and read again: nothing may change.
func TestGoodFilesRoundTrip(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			first := load(t, Options{Path: path})
			again := filepath.Join(t.TempDir(), "again.yaml")
			if err := os.WriteFile(again, first.YAML(), 0o600); err != nil {
				t.Fatal(err)
			}
			second := load(t, Options{Path: again})
			if d := cmp.Diff(values(first), values(second), compareNetworks, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("changed by writing and reading:\n%s\n%s", d, first.YAML())
			}
			if first.Hash() != second.Hash() {
				t.Error("the hash changed")
			}
		})
	}
}

var compareNetworks = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

// values returns the effective value of each key.
func values(c *Config) map[string]any {
	m := map[string]any{}
	for _, l := range c.leaves {
		m[l.key] = l.value.Interface()
	}
	return m
}

func TestAllKinds(t *testing.T) {
	c := load(t, Options{Path: "testdata/good/all_kinds.yaml"})
	want := Default()
	want.Parameters = Parameters{
		TimeWindowWidth: OneWindow, AnalysisDirection: All, ExportLabeledFlows: true, ExportFormat: JSONL, ExportLetters: true, ExportTimeline: true, Verbose: 3,
		Engine: Builtin, PcapFilter: "not port 22", TCPInactivityTimeout: Minutes(5 * time.Minute),
		DefaultRotationInterval: Interval(24 * time.Hour), KeepRotatedFilesFor: Interval(48 * time.Hour), DeleteZeekFiles: true,
		ClientIPs: Networks{
			netip.MustParsePrefix("10.0.0.5/32"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("2001:db8::1/128"),
		},
	}
	want.Detection.EvidenceDetectionThreshold = 1
	want.DisabledAlerts.DisabledDetections = []string{"FAN_IN"}
	want.Profiler.Lanes = 2
	want.Profiler.LateGrace = 90 * time.Second
	want.Profiler.IdleAfter = 1500 * time.Millisecond
	want.Follow.PollInterval = 90 * time.Second
	want.Modules.Disable = []string{"fan"}
	for _, d := range []string{
		cmp.Diff(want.Parameters, c.Parameters, compareNetworks), cmp.Diff(want.Detection, c.Detection),
		cmp.Diff(want.DisabledAlerts, c.DisabledAlerts), cmp.Diff(want.Profiler, c.Profiler),
		cmp.Diff(want.Follow, c.Follow), cmp.Diff(want.Output, c.Output), cmp.Diff(want.Modules, c.Modules),
	} {
		if d != "" {
			t.Error(d)
		}
	}
	f, ok := c.Module("fan").(*fan)
	if !ok {
		t.Fatalf("section fan is %T", c.Module("fan"))
	}
	wantFan := &fan{MinHosts: 7, After: 90 * time.Minute, Names: []string{"a", "b, c"}, Ratio: 0.5, Rules: []rule{{"x", 3}}, cache: 9}
	wantFan.Deep.Level = 2
	if d := cmp.Diff(wantFan, f, cmp.AllowUnexported(fan{})); d != "" {
		t.Error(d)
	}
	if c.Enabled("fan") || !c.Enabled("longconn") {
		t.Error("only fan should be switched off")
	}
	if c.Module("nobody") != nil {
		t.Error("a section for a module that is not there")
	}
}

func TestOldNames(t *testing.T) {
	c := load(t, Options{Path: "testdata/good/old_names.yaml"})
	if got := c.Module("longconn").(*longconn).Threshold; got != 200 {
		t.Errorf("threshold %v, want 200", got)
	}
	if !c.Parameters.ExportLetters || c.Parameters.ExportTimeline {
		t.Errorf("letters %v, timeline %v, want only letters", c.Parameters.ExportLetters, c.Parameters.ExportTimeline)
	}
}

// The file with the comments, the code's defaults and an empty configuration
// are the same thing, and each key has its comment.
func TestTemplateIsDefault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "slips.yaml")
	if err := os.WriteFile(path, DefaultYAML(), 0o600); err != nil {
		t.Fatal(err)
	}
	l, c := loader{config: Default()}, Default()
	if err := l.config.addModules(nil); err != nil {
		t.Fatal(err)
	}
	if err := c.addModules(nil); err != nil {
		t.Fatal(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(DefaultYAML(), &doc); err != nil {
		t.Fatal(err)
	}
	// The sections of modules are compared where the modules are known, in cmd/slips.
	prune(doc.Content[0], "", c.keys())
	got := l.walkAll(path, doc.Content[0])
	if err := errors.Join(l.problems...); err != nil {
		t.Fatal(err)
	}
	for _, f := range c.leaves {
		s, ok := got[f.key]
		if !ok {
			t.Errorf("%s is not in slips.yaml", f.key)
			continue
		}
		if d := cmp.Diff(f.value.Interface(), s.value, compareNetworks); d != "" {
			t.Errorf("%s: the code and slips.yaml differ: %s", f.key, d)
		}
	}
	uncommented(t, "", doc.Content[0])
}

func (l *loader) walkAll(path string, n *yaml.Node) map[string]setting {
	out := map[string]setting{}
	l.walk(path, "", n, out)
	return out
}

func uncommented(t *testing.T, prefix string, n *yaml.Node) {
	t.Helper()
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.HeadComment == "" && k.LineComment == "" && v.LineComment == "" {
			t.Errorf("slips.yaml:%d: %s%s has no comment", k.Line, prefix, k.Value)
		}
		if v.Kind == yaml.MappingNode {
			uncommented(t, prefix+k.Value+".", v)
		}
	}
}

func TestPrecedence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte("profiler: {lanes: 1, max_windows: 11, max_profiles: 111}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := load(t, Options{
		Path:      path,
		Env:       []string{"PATH=/bin", "SLIPS_PROFILER_LANES=2", "SLIPS_PROFILER_MAX_WINDOWS=22"},
		Overrides: []Override{{"profiler.lanes", "3", "--lanes"}},
	})
	want := Profiler{Lanes: 3, MaxWindows: 22, MaxProfiles: 111, IdleAfter: 2 * time.Second, CheckpointInterval: 10 * time.Second}
	if d := cmp.Diff(want, c.Profiler); d != "" {
		t.Error(d)
	}
	for key, want := range map[string]string{
		"profiler.lanes": "--lanes", "profiler.max_windows": "SLIPS_PROFILER_MAX_WINDOWS",
		"profiler.max_profiles": path + ":1", "profiler.idle_after": "",
		"profiler": "--lanes, " + path + ":1, SLIPS_PROFILER_MAX_WINDOWS",
	} {
		if got := c.Origin(key); got != want {
			t.Errorf("origin of %s is %q, want %q", key, got, want)
		}
	}
	if !strings.Contains(string(c.YAML()), "lanes: 3 # from --lanes") {
		t.Errorf("the effective configuration does not say where lanes come from:\n%s", c.YAML())
	}
}

func TestEnvironment(t *testing.T) {
	c := load(t, Options{Env: []string{
		"SLIPS_PARAMETERS_TIME_WINDOW_WIDTH=600", "SLIPS_DISABLEDALERTS_DISABLED_DETECTIONS=FAN_IN, FAN_OUT",
		"SLIPS_MODULES_FAN_NAMES=", "SLIPS_MODULES_FAN_DEEP_LEVEL=4", "SLIPS_PARAMETERS_CLIENT_IPS=[10.0.0.0/8]",
		"SLIPS_OUTPUT_DIRECTORY=123", "SLIPS_DATASETS=/x", "SLIPS_CONFIG=/y", "SLIPS_COLOUR=red",
	}})
	if got := c.Parameters.TimeWindowWidth.Duration(); got != 10*time.Minute {
		t.Errorf("width %v", got)
	}
	if d := cmp.Diff([]string{"FAN_IN", "FAN_OUT"}, c.DisabledAlerts.DisabledDetections); d != "" {
		t.Error(d)
	}
	f := c.Module("fan").(*fan)
	if len(f.Names) != 0 || f.Deep.Level != 4 {
		t.Errorf("fan is %+v", f)
	}
	if c.Output.Directory != "123" {
		t.Errorf("a text that looks like a number became %q", c.Output.Directory)
	}
	if len(c.Parameters.ClientIPs) != 1 {
		t.Errorf("client ips %v", c.Parameters.ClientIPs)
	}
	if d := cmp.Diff([]string{"environment variable SLIPS_COLOUR is for no known key and ignored"}, c.Warnings); d != "" {
		t.Error(d)
	}
}

func TestEnvironmentFailures(t *testing.T) {
	for env, want := range map[string]string{
		"SLIPS_PARAMETERS_TIME_WINDOW_WIDHT=600": "SLIPS_PARAMETERS_TIME_WINDOW_WIDHT: environment variable for no known key, did you mean SLIPS_PARAMETERS_TIME_WINDOW_WIDTH?",
		"SLIPS_PROFILER_LANES=":                  `SLIPS_PROFILER_LANES: profiler.lanes: "": no value given: want a whole number`,
		"SLIPS_PROFILER_LANES=2.5":               `SLIPS_PROFILER_LANES: profiler.lanes: "2.5": want a whole number`,
		"SLIPS_MODULES_DISABLE=fann":             `SLIPS_MODULES_DISABLE: modules.disable: "fann": no such module, did you mean "fan"?`,
		"SLIPS_MODULES_DISABLE=[a":               `SLIPS_MODULES_DISABLE: modules.disable: "[a": want a list such as a,b`,
		"SLIPS_PROFILER_MAX_WINDOWS=-1":          `SLIPS_PROFILER_MAX_WINDOWS: profiler.max_windows: "-1": want a whole number from 1`,
	} {
		_, err := Load(Options{Env: []string{env}, Modules: testModules()})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", env, err, want)
		}
	}
}

func TestOverrideFailures(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"profiler.lane", "1", `--set: profiler.lane: unknown key, did you mean profiler.lanes?`},
		{"profiler", "1", `--set: profiler: unknown key`},
		{"", "1", `--set: : unknown key`},
		{"profiler.lanes", "a", `--set: profiler.lanes: "a": want a whole number`},
		{"modules.disable", "[{a: b}]", `--set: modules.disable: "[{a: b}]": want a list`},
		{"parameters.export_labeled_flows", "[", `want true or false`},
	} {
		_, err := Load(Options{Overrides: []Override{{c.key, c.value, "--set"}}, Modules: testModules()})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%s: got %v, want %s", c.key, c.value, err, c.want)
		}
	}
}

func TestFileFailures(t *testing.T) {
	if _, err := Load(Options{Path: filepath.Join(t.TempDir(), "none.yaml")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Load(Options{Path: t.TempDir()}); err == nil {
		t.Error("a directory was read as a file")
	}
	big := filepath.Join(t.TempDir(), "big.yaml")
	if err := os.WriteFile(big, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(Options{Path: big}); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("big file: %v", err)
	}
}

func TestModuleMistakes(t *testing.T) {
	for name, mods := range map[string][]Module{
		"twice":        {{Name: "a", Defaults: &empty{}}, {Name: "a", Defaults: &empty{}}},
		"reserved":     {{Name: "disable", Defaults: &empty{}}},
		"not a struct": {{Name: "a", Defaults: new(int)}},
		"no pointer":   {{Name: "a", Defaults: empty{}}},
		"nil":          {{Name: "a"}},
	} {
		if _, err := Load(Options{Modules: mods}); err == nil || !strings.Contains(err.Error(), "BUG") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Viper folds case and variables fold dots, so neither may make two keys one.
func TestKeysStayApart(t *testing.T) {
	c := load(t, Options{})
	folded, variables := map[string]bool{}, map[string]bool{}
	for _, l := range c.leaves {
		if folded[strings.ToLower(l.key)] || variables[l.env()] {
			t.Errorf("%s falls together with another key", l.key)
		}
		folded[strings.ToLower(l.key)], variables[l.env()] = true, true
	}
}

func TestHash(t *testing.T) {
	base := load(t, Options{}).Hash()
	for set, changes := range map[string]bool{
		"parameters.time_window_width=600": true, "modules.fan.min_hosts=6": true, "modules.disable=fan": true,
		"DisabledAlerts.disabled_detections=FAN_IN": true, "detection.first_evidence_weight=9": true,
		"detection.corroboration_weight=0": true,
		"parameters.client_ips=10.0.0.1":   true, "profiler.max_profiles=7": true,
		"profiler.lanes=2": false, "follow.poll_interval=1s": false, "output.directory=x": false,
		"parameters.verbose=3": false, "profiler.checkpoint_interval=1s": false, "modules.fan.min_hosts=5": false,
		"parameters.export_letters=true": false, "parameters.export_timeline=true": false,
	} {
		key, value, _ := strings.Cut(set, "=")
		got := load(t, Options{Overrides: []Override{{key, value, "--set"}}}).Hash()
		if (got != base) != changes {
			t.Errorf("%s: hash changed: %v, want %v", set, got != base, changes)
		}
	}
	mods := testModules()
	slices.Reverse(mods)
	c, err := Load(Options{Modules: mods})
	if err != nil || c.Hash() != base {
		t.Errorf("the order of modules changed the hash (%v)", err)
	}
}

// Two programs in one process do not share settings.
func TestNoSharedState(t *testing.T) {
	a := load(t, Options{Overrides: []Override{{"modules.fan.names", "p,q", "x"}, {"modules.disable", "fan", "x"}}})
	b := load(t, Options{})
	if d := cmp.Diff([]string{"x"}, b.Module("fan").(*fan).Names); d != "" {
		t.Error(d)
	}
	if !b.Enabled("fan") || a.Enabled("fan") {
		t.Error("modules.disable is shared")
	}
}

func TestNearest(t *testing.T) {
	names := []string{"time_window_width", "analysis_direction", "lanes", "disable"}
	for in, want := range map[string]string{
		"time_window_width": "time_window_width", "time_windw_widht": "time_window_width", "LANES": "lanes", "lane": "lanes",
		"nales": "lanes", "disabled": "disable", "zzzz": "", strings.Repeat("a", 200): "",
	} {
		if got := nearest(in, names); got != want {
			t.Errorf("nearest(%q) = %q, want %q", in, got, want)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"ab", "ba", 1}, {"kitten", "sitting", 3}, {"abc", "abc", 0}, {"ca", "abc", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestShortDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Hour: "1h", 90 * time.Minute: "1h30m", time.Minute: "1m", 61 * time.Second: "1m1s",
		250 * time.Millisecond: "250ms", 10 * time.Hour: "10h", 10 * time.Minute: "10m", 3610 * time.Second: "1h0m10s",
	} {
		got := shortDuration(d)
		if back, err := duration(got); got != want || err != nil || back != d {
			t.Errorf("shortDuration(%v) = %q, want %q; read back %v, %v", d, got, want, back, err)
		}
	}
}

// Whatever stands in the file: an error or a configuration, never a panic,
// and what was accepted can be written and read again.
func FuzzFile(f *testing.F) {
	for _, glob := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml", "slips.yaml"} {
		files, err := filepath.Glob(glob)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range files {
			text, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(Options{Path: path, Modules: testModules()})
		if err != nil {
			return
		}
		if err := os.WriteFile(path, c.YAML(), 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := Load(Options{Path: path, Modules: testModules()})
		if err != nil {
			t.Fatalf("own output refused: %v\n%s", err, c.YAML())
		}
		if again.Hash() != c.Hash() {
			t.Fatalf("changed by writing:\n%s\n%s", c.YAML(), again.YAML())
		}
	})
}
