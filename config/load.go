package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

const envPrefix = "SLIPS_"

// loader reads the layers and collects what is wrong with them.
type loader struct {
	config   *Config
	problems []error
}

func (l *loader) problem(origin, format string, args ...any) {
	l.problems = append(l.problems, fmt.Errorf("%s: %s", origin, fmt.Sprintf(format, args...)))
}

// merge puts a layer over those before it.
func (l *loader) merge(v *viper.Viper, layer map[string]setting) {
	tree := map[string]any{}
	for key, s := range layer {
		at, parts := tree, strings.Split(key, ".")
		for _, p := range parts[:len(parts)-1] {
			sub, ok := at[p].(map[string]any)
			if !ok {
				sub = map[string]any{}
				at[p] = sub
			}
			at = sub
		}
		at[parts[len(parts)-1]] = s
	}
	if err := v.MergeConfigMap(tree); err != nil {
		l.problem("configuration", "%v", err)
	}
}

func (l *loader) leaf(key string) (leaf, bool) {
	for _, f := range l.config.leaves {
		if f.key == key {
			return f, true
		}
	}
	return leaf{}, false
}

// renamed returns the key that a key of older configurations has become.
func renamed(key string) string {
	switch strings.Replace(key, "flowalerts.", "flow_alerts.", 1) {
	case "flow_alerts.long_connection_threshold":
		return "modules.longconn.long_connection_threshold"
	case "flow_alerts.data_exfiltration_threshold":
		return "modules.upload.data_exfiltration_threshold"
	case "flow_alerts.ssh_succesful_detection_threshold":
		return "modules.sshlogin.ssh_succesful_detection_threshold"
	case "brute_force_detector.ssh_attempt_threshold":
		return "modules.bruteforce.ssh_attempt_threshold"
	case "parameters.export_strato_letters":
		return "parameters.export_letters"
	case "threatintelligence.local_threat_intelligence_files":
		return "feeds.local"
	case "threatintelligence.download_path_for_remote_threat_intelligence":
		return "feeds.directory"
	}
	return key
}

// isOldSection reports whether older configurations have a section of that
// name whose keys were renamed.
func isOldSection(name string) bool {
	return name == "flow_alerts" || name == "flowalerts" || name == "brute_force_detector" || name == "threatintelligence"
}

// isRetired reports whether the key or section of older configurations has no
// meaning in this version. It is refused, but with a better reason than
// "unknown".
func isRetired(key string) bool {
	switch section, _, _ := strings.Cut(key, "."); section {
	case "update", "modes", "Debug", "flow_ml_detection", "flowmldetection", "anomaly_detection_https", "virustotal",
		"threatintelligence", "exporting_alerts", "cesnet", "Docker", "Profiling", "web_interface",
		"global_p2p", "local_p2p":
		return true
	}
	switch key {
	case "whitelists.online_whitelist", "whitelists.online_whitelist_update_period", "output.stdout", "output.stderr", "output.logs", "parameters.debug",
		"parameters.store_a_copy_of_zeek_files", "parameters.store_zeek_files_in_the_output_dir", "parameters.permanent_dir",
		"parameters.deletePrevdb", "parameters.label",
		"parameters.wait_for_modules_to_finish", "detection.popup_alerts", "modules.timeline_human_timestamp",
		"flow_alerts.entropy_threshold", "flowalerts.entropy_threshold", "flow_alerts.pastebin_download_threshold",
		"flowalerts.pastebin_download_threshold":
		return true
	}
	return false
}

// unknown reports a key that is not there.
func (l *loader) unknown(origin, key string) {
	if isRetired(key) {
		l.problem(origin, "%s: a setting of the Python version that has no effect in this one: remove it", key)
		return
	}
	if near := l.suggest(key); near != "" {
		l.problem(origin, "%s: unknown key, did you mean %s?", key, near)
		return
	}
	l.problem(origin, "%s: unknown key", key)
}

// suggest looks for the key among its siblings first, then anywhere by its
// last part, because users put right names into wrong sections.
func (l *loader) suggest(key string) string {
	var parent, name string
	if i := strings.LastIndexByte(key, '.'); i >= 0 {
		parent, name = key[:i+1], key[i+1:]
	} else {
		name = key
	}
	var siblings, all, names []string
	for _, f := range l.config.leaves {
		if rest, ok := strings.CutPrefix(f.key, parent); ok {
			first, _, _ := strings.Cut(rest, ".")
			siblings = append(siblings, first)
		}
		all, names = append(all, f.key), append(names, f.name())
	}
	if near := nearest(name, siblings); near != "" {
		return parent + near
	}
	if near := nearest(name, names); near != "" {
		return all[slices.Index(names, near)]
	}
	return nearest(key, all)
}

// isSection reports whether key has keys below it.
func (l *loader) isSection(key string) bool {
	for _, f := range l.config.leaves {
		if strings.HasPrefix(f.key, key+".") {
			return true
		}
	}
	_, module := l.config.sections[strings.TrimPrefix(key, "modules.")]
	return module && strings.HasPrefix(key, "modules.")
}

// file reads a YAML file's text.
func (l *loader) file(path string, text []byte) map[string]setting {
	var doc, second yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(text))
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF): // nothing but comments
		return nil
	case err != nil:
		l.problems = append(l.problems, syntaxError(path, err))
		return nil
	}
	if err := d.Decode(&second); err == nil {
		l.problem(fmt.Sprintf("%s:%d", path, second.Line), "a second document: one file holds one configuration")
	} else if !errors.Is(err, io.EOF) {
		l.problems = append(l.problems, syntaxError(path, err))
	}
	out := map[string]setting{}
	l.walk(path, "", doc.Content[0], out)
	return out
}

// yamlLine finds the line number in a message of package yaml.
var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

func syntaxError(path string, err error) error {
	msg := err.Error()
	m := yamlLine.FindStringSubmatch(msg)
	if m == nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	at := path
	if m[1] != "" {
		at += ":" + m[1]
	}
	return fmt.Errorf("%s: not valid YAML: %s", at, msg[len(m[0]):])
}

// walk reads the mapping n, which stands under prefix ("parameters."). It
// goes no deeper than the keys that exist, so aliases cannot make it endless.
func (l *loader) walk(path, prefix string, n *yaml.Node, out map[string]setting) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	origin := fmt.Sprintf("%s:%d", path, n.Line)
	switch {
	case n.ShortTag() == "!!null": // a section whose keys are all commented out
		return
	case n.Kind != yaml.MappingNode:
		what := strings.TrimSuffix(prefix, ".")
		if what == "" {
			what = "the file"
		}
		l.problem(origin, "%s: %q: want keys with values below it", what, clip(n.Value))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		key, origin := prefix+k.Value, fmt.Sprintf("%s:%d", path, k.Line)
		if at := seen[k.Value]; at != 0 {
			l.problem(origin, "%s: given twice, first in line %d", clip(key), at)
			continue
		}
		seen[k.Value] = k.Line
		if prefix == "" && isOldSection(key) || l.isSection(key) {
			l.walk(path, key+".", v, out)
			continue
		}
		f, ok := l.leaf(renamed(key))
		if !ok {
			l.unknown(origin, clip(key))
			continue
		}
		if before, twice := out[f.key]; twice {
			l.problem(origin, "%s: given twice, first as %s in %s", key, f.key, before.origin)
			continue
		}
		val, err := decode(v, f.value.Type())
		if err != nil {
			l.problem(origin, "%s: %s%v", key, quoteScalar(v), err)
			continue
		}
		out[f.key] = setting{val, origin}
	}
}

// environment reads the variables that begin with SLIPS_.
func (l *loader) environment(env []string) map[string]setting {
	byName := map[string]leaf{}
	sections, names := map[string]bool{}, []string{}
	for _, f := range l.config.leaves {
		byName[f.env()] = f
		names = append(names, f.env())
		first, _, _ := strings.Cut(f.key, ".")
		sections[leaf{key: first}.env()+"_"] = true
	}
	out := map[string]setting{}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		f, ok := byName[name]
		if !ok {
			l.strange(name, names, sections)
			continue
		}
		if _, val, ok := l.text(f.key, value, name); ok {
			out[f.key] = setting{val, name}
		}
	}
	return out
}

// strange judges a SLIPS_ variable that names no key. One that begins like a
// section is a slip of the pen and an error; others may belong to other
// programs, so they are only mentioned.
func (l *loader) strange(name string, names []string, sections map[string]bool) {
	near := nearest(name, names)
	if near != "" {
		near = ", did you mean " + near + "?"
	}
	for s := range sections {
		if strings.HasPrefix(name, s) {
			l.problem(name, "environment variable for no known key%s", near)
			return
		}
	}
	if name != "SLIPS_CONFIG" && name != "SLIPS_DATASETS" {
		l.config.Warnings = append(l.config.Warnings, "environment variable "+name+" is for no known key and ignored"+near)
	}
}

// text reads a value that stands outside a file.
func (l *loader) text(key, value, origin string) (leaf, any, bool) {
	f, ok := l.leaf(renamed(key))
	if !ok {
		l.unknown(origin, clip(key))
		return leaf{}, nil, false
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Value: value}
	switch t := f.value.Type(); {
	case t.Kind() == reflect.Slice:
		list, err := listNode(value)
		if err != nil {
			l.problem(origin, "%s: %q: want a list such as a,b", f.key, clip(value))
			return leaf{}, nil, false
		}
		n = list
	case t.Kind() == reflect.String:
		n.SetString(value)
	}
	val, err := decode(n, f.value.Type())
	if err != nil {
		l.problem(origin, "%s: %q: %v", f.key, clip(value), err)
		return leaf{}, nil, false
	}
	return f, val, true
}

// listNode reads [a, b] or a,b.
func listNode(value string) (*yaml.Node, error) {
	if strings.HasPrefix(strings.TrimSpace(value), "[") {
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(value), &doc); err != nil {
			return nil, err
		}
		return doc.Content[0], nil
	}
	n := &yaml.Node{Kind: yaml.SequenceNode}
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item != "" {
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: item})
		}
	}
	return n, nil
}

// validate checks ranges and names, once all layers are in.
func (l *loader) validate(mods []Module) {
	c := l.config
	bad := func(key string, value any, want string) {
		origin := c.settings[key].origin
		if origin == "" {
			origin = "default"
		}
		l.problem(origin, "%s: %q: want %s", key, fmt.Sprint(value), want)
	}
	between := func(key string, v, low, high int) {
		if v < low || v > high {
			bad(key, v, fmt.Sprintf("a whole number from %d to %d", low, high))
		}
	}
	between("parameters.verbose", c.Parameters.Verbose, 0, 3)
	between("profiler.lanes", c.Profiler.Lanes, 0, 256)
	between("profiler.max_profiles", c.Profiler.MaxProfiles, 1, 100_000_000)
	between("profiler.max_windows", c.Profiler.MaxWindows, 1, 1_000_000)
	if v := c.Detection.EvidenceDetectionThreshold; v <= 0 || v > 1000 {
		bad("detection.evidence_detection_threshold", v, "a number above 0 and up to 1000")
	}
	if v := c.Detection.FirstEvidenceWeight; v <= 0 || v > 1000 {
		bad("detection.first_evidence_weight", v, "a number above 0 and up to 1000")
	}
	if v := c.Detection.CorroborationWeight; v < 0 || v > 10 {
		bad("detection.corroboration_weight", v, "a number from 0 to 10")
	}
	between("packet.ring_buffer", c.Packet.RingBuffer, 1, 4096)
	between("packet.max_connections", c.Packet.MaxConnections, 1024, 1<<24)
	for _, d := range []struct {
		key          string
		v, low, high time.Duration
	}{
		{"parameters.tcp_inactivity_timeout", c.Parameters.TCPInactivityTimeout.Duration(), time.Second, 30 * 24 * time.Hour},
		{"parameters.default_rotation_interval", c.Parameters.DefaultRotationInterval.Duration(), time.Second, 366 * 24 * time.Hour},
		{"parameters.keep_rotated_files_for", c.Parameters.KeepRotatedFilesFor.Duration(), 0, 100 * 366 * 24 * time.Hour},
		{"profiler.late_grace", c.Profiler.LateGrace, 0, 24 * time.Hour},
		{"profiler.idle_after", c.Profiler.IdleAfter, time.Millisecond, 24 * time.Hour},
		{"profiler.checkpoint_interval", c.Profiler.CheckpointInterval, 100 * time.Millisecond, 24 * time.Hour},
		{"follow.poll_interval", c.Follow.PollInterval, time.Millisecond, time.Hour},
	} {
		if d.v < d.low || d.v > d.high {
			bad(d.key, shortDuration(d.v), fmt.Sprintf("a duration from %s to %s", shortDuration(d.low), shortDuration(d.high)))
		}
	}
	if c.Output.Directory == "" {
		bad("output.directory", "", "a path")
	}
	var names, types []string
	for _, m := range mods {
		names, types = append(names, m.Name), append(types, m.Emits...)
	}
	l.members("modules.disable", c.Modules.Disable, names, "module")
	l.members("DisabledAlerts.disabled_detections", c.DisabledAlerts.DisabledDetections, types, "evidence type")
}

// members checks that each of the given names is one of the valid ones.
func (l *loader) members(key string, given, valid []string, what string) {
	for _, g := range given {
		if slices.Contains(valid, g) {
			continue
		}
		near := nearest(g, valid)
		if near != "" {
			near = fmt.Sprintf(", did you mean %q?", near)
		}
		l.problem(l.config.settings[key].origin, "%s: %q: no such %s%s", key, clip(g), what, near)
	}
}

// quoteScalar quotes a value for a message; a list or mapping is not repeated.
func quoteScalar(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		return ""
	}
	return fmt.Sprintf("%q: ", clip(n.Value))
}

// clip bounds foreign text in messages.
func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}
