package feeds

import (
	"bytes"
	"cmp"
	_ "embed" // for feeds.yaml
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/slips-go/slips/feeds/format"
	"github.com/slips-go/slips/feeds/intel"
)

// defaults is the list of feeds that the program knows.
//
//go:embed feeds.yaml
var defaults string

// DefaultYAML returns the text of the embedded feeds.yaml.
func DefaultYAML() []byte { return []byte(defaults) }

// Bounds of a configuration and what a feed has that says nothing else.
const (
	maxConfig     = 1 << 20 // bytes of a file
	maxSources    = 1000
	defaultPeriod = 24 * time.Hour
	minPeriod     = time.Minute // a shorter one is a mistake, and a burden for who runs the feed
	maxPeriod     = 366 * 24 * time.Hour
	defaultSize   = 64 << 20 // bytes
	maxMaxSize    = 1 << 30  // bytes; larger feeds would not fit into the index
)

// Sources returns the feeds of the embedded list, extended and overridden by
// the file at path, if any: a feed of the same name keeps what the file does
// not give. They are in the order of their names. The error joins everything
// that is wrong, each with file and line.
func Sources(path string) ([]Source, error) {
	all := make(map[string]*Source)
	c := decoder{file: "feeds.yaml (embedded)", sources: all}
	c.read([]byte(defaults))
	builtin := slices.Collect(maps.Keys(all))
	if path != "" {
		text, err := readFile(path, maxConfig)
		if err != nil {
			return nil, fmt.Errorf("feeds: %w", err)
		}
		c.file, c.dir, c.builtin, c.decided = path, filepath.Dir(path), true, make(map[string]bool)
		c.read(text)
		for _, name := range builtin {
			if !c.builtin && !c.decided[name] {
				all[name].Enabled = false
			}
		}
	}
	if err := errors.Join(c.problems...); err != nil {
		return nil, err
	}
	out := make([]Source, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, *all[name])
	}
	return out, nil
}

// decoder reads feeds.yaml strictly: an unknown key or a bad value is a
// problem with its line, and reading goes on.
type decoder struct {
	file, dir string
	sources   map[string]*Source
	problems  []error
	builtin   bool            // the feeds of the embedded list are on as it says
	decided   map[string]bool // feeds of which the file says whether they are on
}

func (d *decoder) bad(n *yaml.Node, text string, args ...any) {
	d.problems = append(d.problems, fmt.Errorf("%s:%d: "+text, append([]any{d.file, n.Line}, args...)...))
}

// setter takes the value of one key.
type setter func(*yaml.Node) error

func (d *decoder) read(text []byte) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return // empty, or comments alone
	} else if err != nil {
		d.problems = append(d.problems, fmt.Errorf("%s: %w", d.file, err))
		return
	}
	if err := dec.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		d.problems = append(d.problems, fmt.Errorf("%s: more than one YAML document", d.file))
		return
	}
	d.mapping(doc.Content[0], "", map[string]setter{
		"builtin": boolean(&d.builtin),
		"feeds": func(n *yaml.Node) error {
			d.feeds(n)
			return nil
		},
	})
}

// mapping hands the values of a mapping to the setters of its keys.
func (d *decoder) mapping(n *yaml.Node, prefix string, keys map[string]setter) {
	if n.Kind != yaml.MappingNode {
		d.bad(n, "%swant keys and values", prefix)
		return
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		set := keys[k.Value]
		switch {
		case set == nil:
			d.bad(k, "%sunknown key %q, known are %s", prefix, k.Value, strings.Join(slices.Sorted(maps.Keys(keys)), ", "))
		case seen[k.Value]:
			d.bad(k, "%skey %s is given twice", prefix, k.Value)
		default:
			if err := set(v); err != nil {
				d.bad(v, "%s%s: %w", prefix, k.Value, err)
			}
		}
		seen[k.Value] = true
	}
}

func (d *decoder) feeds(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.bad(n, "feeds: want the names of feeds as keys")
		return
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case !isName(k.Value):
			d.bad(k, "feed %q: a name has 1 to 64 of the characters a-z, 0-9, - and _, begins with a letter or digit and not with %q", k.Value, localPrefix)
		case seen[k.Value]:
			d.bad(k, "feed %s is given twice", k.Value)
		case len(d.sources) >= maxSources && d.sources[k.Value] == nil:
			d.bad(k, "more than %d feeds", maxSources)
			return
		default:
			d.feed(k, v)
		}
		seen[k.Value] = true
	}
}

// isName reports whether a feed may have that name, which is part of the names
// of its files.
func isName(s string) bool {
	if s == "" || len(s) > 64 || s[0] == '-' || s[0] == '_' || strings.HasPrefix(s, localPrefix) {
		return false
	}
	return strings.IndexFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_'
	}) < 0
}

func (d *decoder) feed(k, v *yaml.Node) {
	s := d.sources[k.Value]
	if s == nil {
		s = &Source{Name: k.Value, Enabled: true, Level: 2, Period: defaultPeriod, MaxSize: defaultSize}
	}
	prefix := "feed " + s.Name + ": "
	before := len(d.problems)
	d.mapping(v, prefix, map[string]setter{
		"provider": text(&s.Provider), "url": d.url(s), "path": d.place(s), "format": oneOf(&s.Format, format.Names()),
		"kinds": kinds(&s.Kinds), "level": level(&s.Level), "tags": texts(&s.Tags), "period": duration(&s.Period, minPeriod),
		"enabled": boolean(&s.Enabled), "max_size": size(&s.MaxSize), "expires_after": duration(&s.ExpiresAfter, 0),
		"headers": headers(&s.Headers), "key_file": d.path(&s.KeyFile), "user": text(&s.User), "may_be_empty": boolean(&s.MayBeEmpty),
		"private": boolean(&s.Private), "license": text(&s.License), "note": text(&s.Note),
		"columns": func(n *yaml.Node) error {
			c := &s.Columns
			d.mapping(n, prefix+"columns: ", map[string]setter{
				"header": boolean(&c.Header), "separator": text(&c.Separator), "comment": text(&c.Comment), "value": text(&c.Value),
				"kind": text(&c.Kind), "level": text(&c.Level), "confidence": text(&c.Confidence), "description": text(&c.Description),
				"tags": text(&c.Tags), "since": text(&c.Since), "expires": text(&c.Expires), "rank": text(&c.Rank),
			})
			return nil
		},
		"taxii": func(n *yaml.Node) error {
			d.mapping(n, prefix+"taxii: ", map[string]setter{"collection": text(&s.Collection)})
			return nil
		},
	})
	given := func(key string) bool {
		for i := 0; i < len(v.Content); i += 2 {
			if v.Content[i].Value == key {
				return true
			}
		}
		return false
	}
	if given("enabled") && d.decided != nil {
		d.decided[s.Name] = true
	}
	if given("url") && given("path") {
		d.bad(k, "%swant either url or path", prefix)
	}
	if len(d.problems) > before {
		return
	}
	if err := s.check(); err != nil {
		d.bad(k, "%s%w", prefix, err)
		return
	}
	d.sources[s.Name] = s
}

// check finds what does not go together.
func (s *Source) check() error {
	switch {
	case (s.URL == "") == (s.Path == ""):
		return errors.New("want either url or path")
	case s.Format == "":
		return errors.New("format is missing")
	case s.taxii() && (s.Format != "stix" || s.URL == ""):
		return errors.New("taxii goes with a url and format stix")
	case s.User != "" && s.KeyFile == "":
		return errors.New("user needs key_file for its password")
	case s.Columns != (format.Columns{}) && s.Format != "csv":
		return errors.New("columns go with format csv")
	}
	uses := strings.Contains(s.URL, "{key}")
	for _, v := range s.Headers {
		uses = uses || strings.Contains(v, "{key}")
	}
	if uses && s.KeyFile == "" {
		return errors.New("{key} needs key_file")
	}
	if s.URL == "" {
		return nil
	}
	u, err := url.Parse(s.URL)
	if err != nil {
		return errors.New("url cannot be read")
	}
	s.Provider = cmp.Or(s.Provider, u.Hostname())
	if s.KeyFile != "" && u.Scheme == "http" && !loopback(u.Hostname()) {
		return errors.New("a key is sent over https only")
	}
	return nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

func scalar(n *yaml.Node) (string, error) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return "", errors.New("want one value")
	}
	return n.Value, nil
}

// parsed makes a setter of a function that reads text.
func parsed[T any](to *T, parse func(string) (T, error)) setter {
	return func(n *yaml.Node) error {
		s, err := scalar(n)
		if err != nil {
			return err
		}
		v, err := parse(s)
		if err == nil {
			*to = v
		}
		return err
	}
}

func text(to *string) setter {
	return parsed(to, func(s string) (string, error) { return s, nil })
}

func boolean(to *bool) setter {
	return parsed(to, func(s string) (bool, error) {
		if s != "true" && s != "false" {
			return false, fmt.Errorf("%q is neither true nor false", s)
		}
		return s == "true", nil
	})
}

func oneOf(to *string, names []string) setter {
	return parsed(to, func(s string) (string, error) {
		if !slices.Contains(names, s) {
			return "", fmt.Errorf("%q is not one of %s", s, strings.Join(names, ", "))
		}
		return s, nil
	})
}

func level(to *intel.Level) setter { return parsed(to, intel.ParseLevel) }

// duration reads Go's notation and whole days, "7d"; 0 is allowed where least
// is 0.
func duration(to *time.Duration, least time.Duration) setter {
	return parsed(to, func(s string) (time.Duration, error) {
		v, err := time.ParseDuration(s)
		if days, ok := strings.CutSuffix(s, "d"); ok {
			var n uint64
			n, err = strconv.ParseUint(days, 10, 16)
			v = time.Duration(n) * 24 * time.Hour
		}
		switch {
		case s == "0" && least == 0:
			return 0, nil
		case err != nil:
			return 0, fmt.Errorf("%q is not a time such as 90m, 12h or 7d", s)
		case v < least || v > maxPeriod:
			return 0, fmt.Errorf("%q is not from %s to %s", s, least, maxPeriod)
		}
		return v, nil
	})
}

// size reads a number of bytes: 500000, 64KiB, 200MiB.
func size(to *int64) setter {
	return parsed(to, func(s string) (int64, error) {
		digits, unit := s, int64(1)
		for suffix, n := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
			if d, ok := strings.CutSuffix(s, suffix); ok {
				digits, unit = d, n
			}
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 32)
		if err != nil || n < 1 || n > maxMaxSize/unit {
			return 0, fmt.Errorf("%q is not a size from 1 to 1GiB, such as 500000 or 200MiB", s)
		}
		return n * unit, nil
	})
}

func texts(to *[]string) setter {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.SequenceNode {
			return errors.New("want a list")
		}
		out := make([]string, 0, len(n.Content))
		for _, e := range n.Content {
			s, err := scalar(e)
			if err != nil {
				return err
			}
			out = append(out, s)
		}
		*to = out
		return nil
	}
}

func kinds(to *[]intel.Kind) setter {
	return func(n *yaml.Node) error {
		var names []string
		if err := texts(&names)(n); err != nil {
			return err
		}
		out := make([]intel.Kind, 0, len(names))
		for _, name := range names {
			k := intel.ParseKind(name)
			if k == intel.NoKind {
				return fmt.Errorf("%q is no kind of indicator", name)
			}
			out = append(out, k)
		}
		*to = out
		return nil
	}
}

func headers(to *map[string]string) setter {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.MappingNode {
			return errors.New("want names and values")
		}
		out := make(map[string]string)
		for i := 0; i+1 < len(n.Content); i += 2 {
			name, value := n.Content[i].Value, n.Content[i+1].Value
			odd := func(c rune) bool { return c <= ' ' || c >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c) }
			if n.Content[i+1].Kind != yaml.ScalarNode || name == "" || strings.ContainsFunc(name, odd) || strings.ContainsAny(value, "\r\n\x00") {
				return fmt.Errorf("%q is no header", name)
			}
			out[name] = value
		}
		*to = out
		return nil
	}
}

// url takes http, https and file; the last becomes a path.
func (d *decoder) url(s *Source) setter {
	return func(n *yaml.Node) error {
		v, err := scalar(n)
		if err != nil {
			return err
		}
		u, err := url.Parse(v)
		if err != nil {
			return fmt.Errorf("%q is no URL", v)
		}
		switch {
		case u.Scheme == "file" && u.Host == "" && filepath.IsAbs(u.Path):
			s.URL, s.Path = "", filepath.Clean(u.Path)
			return nil
		case u.User != nil:
			return errors.New("a name or password does not belong into a URL: use user and key_file")
		case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
			return fmt.Errorf("%q is not a URL of http, https or file", v)
		}
		if p := u.Port(); p != "" {
			if _, err := strconv.ParseUint(p, 10, 16); err != nil {
				return fmt.Errorf("%q has a bad port", v)
			}
		}
		s.URL, s.Path = v, ""
		return nil
	}
}

// place takes a path in place of a URL.
func (d *decoder) place(s *Source) setter {
	return func(n *yaml.Node) error {
		if err := d.path(&s.Path)(n); err != nil {
			return err
		}
		s.URL = ""
		return nil
	}
}

// path takes a path, which is relative to the file that names it.
func (d *decoder) path(to *string) setter {
	return parsed(to, func(s string) (string, error) {
		if s != "" && !filepath.IsAbs(s) {
			s = filepath.Join(d.dir, s)
		}
		return s, nil
	})
}
