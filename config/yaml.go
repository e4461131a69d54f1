package config

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // for slips.yaml
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// template is the default configuration with its comments.
//
//go:embed slips.yaml
var template string

// DefaultYAML returns the documented default configuration, the text of
// config/slips.yaml.
func DefaultYAML() []byte { return []byte(template) }

// YAML returns the effective configuration, complete and with comments. What
// is not a default says where it comes from. Load reads it back to the same
// values.
func (c *Config) YAML() []byte {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(template), &doc); err != nil {
		panic(fmt.Sprintf("BUG: slips.yaml: %v", err))
	}
	root := doc.Content[0]
	prune(root, "", c.keys())
	for _, l := range c.leaves {
		n := at(root, strings.Split(l.key, "."))
		fill(n, l)
		if o := c.settings[l.key].origin; o != "" {
			n.LineComment = "from " + o
		}
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&doc); err != nil {
		panic(fmt.Sprintf("BUG: configuration cannot be written: %v", err))
	}
	return spaced(b.Bytes())
}

// spaced puts back the empty lines that package yaml drops: before a comment
// that stands further out than the line before it, so where a section begins.
func spaced(text []byte) []byte {
	var out []byte
	last := 0
	for line := range bytes.Lines(text) {
		body := bytes.TrimLeft(line, " ")
		indent := len(line) - len(body)
		if body[0] == '#' && indent < last {
			out = append(out, '\n')
		}
		if body[0] != '\n' {
			last = indent
		}
		out = append(out, line...)
	}
	return out
}

func (c *Config) keys() []string {
	keys := make([]string, len(c.leaves))
	for i, l := range c.leaves {
		keys[i] = l.key
	}
	return keys
}

// prune takes the settings of modules out that this program does not have.
func prune(n *yaml.Node, prefix string, keys []string) {
	kept := n.Content[:0]
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, v := prefix+n.Content[i].Value, n.Content[i+1]
		below := slices.ContainsFunc(keys, func(k string) bool { return strings.HasPrefix(k, key+".") })
		if !below && !slices.Contains(keys, key) {
			continue
		}
		if below && v.Kind == yaml.MappingNode {
			prune(v, key+".", keys)
		}
		kept = append(kept, n.Content[i], v)
	}
	n.Content = kept
}

// at returns the value node at path, making what is missing.
func at(n *yaml.Node, path []string) *yaml.Node {
	for _, p := range path {
		if n.Kind != yaml.MappingNode { // a section of which the template has no key
			*n = yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		}
		var next *yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == p {
				next = n.Content[i+1]
			}
		}
		if next == nil {
			next = &yaml.Node{Kind: yaml.ScalarNode}
			k := &yaml.Node{}
			k.SetString(p)
			n.Content = append(n.Content, k, next)
		}
		n = next
	}
	return n
}

// fill puts the value of l into n, keeping comments.
func fill(n *yaml.Node, l leaf) {
	head, line, foot := n.HeadComment, n.LineComment, n.FootComment
	*n = *encode(l.value.Interface())
	n.HeadComment, n.LineComment, n.FootComment = head, line, foot
}

// encode returns v as a node in the form in which users write it.
func encode(v any) *yaml.Node {
	n := new(yaml.Node)
	if d, ok := v.(time.Duration); ok {
		n.SetString(shortDuration(d))
		return n
	}
	if err := n.Encode(v); err != nil {
		panic(fmt.Sprintf("BUG: %T cannot be written as YAML: %v", v, err))
	}
	if n.Kind == yaml.SequenceNode {
		n.Style = yaml.FlowStyle
	}
	return n
}

// isHarmless reports whether a key changes how a run works but not what it
// finds.
func isHarmless(key string) bool {
	switch key {
	case "profiler.lanes", "profiler.idle_after", "profiler.checkpoint_interval", "parameters.verbose",
		"parameters.metadata_dir", "parameters.export_letters", "parameters.export_timeline", "parameters.engine",
		"parameters.rotation", "parameters.default_rotation_interval", "parameters.keep_rotated_files_for",
		"parameters.delete_zeek_files":
		return true
	}
	for _, section := range []string{"follow.", "output.", "feeds.", "enrichment.", "zeekscripts.", "packet.", "block."} { // lists change under a run in any case
		if strings.HasPrefix(key, section) {
			return true
		}
	}
	return false
}

// Hash returns a fingerprint, in hex, of everything that changes results: a
// saved state made under another fingerprint must not be continued as if
// nothing had happened. Lanes, intervals, places and the detail of the log
// are not part of it.
func (c *Config) Hash() string {
	lines := make([]string, 0, len(c.leaves))
	for _, l := range c.leaves {
		if isHarmless(l.key) {
			continue
		}
		text, err := yaml.Marshal(encode(l.value.Interface()))
		if err != nil {
			panic(fmt.Sprintf("BUG: %s cannot be written as YAML: %v", l.key, err))
		}
		lines = append(lines, l.key+": "+string(text))
	}
	slices.Sort(lines) // the order of modules in the program is not configuration
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	return hex.EncodeToString(sum[:])
}
