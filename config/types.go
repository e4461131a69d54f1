package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Width is the length of a time window in stream time.
type Width time.Duration

// OneWindow is the width that "only_one_tw" stands for: two hundred years of
// 365 days, the value of profiler.OneWindow.
const OneWindow = Width(200 * 365 * 24 * time.Hour)

// widest is the greatest width in seconds, a hundred years: more than any
// traffic has, and far enough from the end of int64 nanoseconds.
const widest = 100 * 365 * 24 * 3600

const oneWindowText = "only_one_tw"

var errWidth = errors.New("want a whole number of seconds above 0 and up to 3153600000, or " + oneWindowText)

// Duration returns the width as a time.Duration.
func (w Width) Duration() time.Duration { return time.Duration(w) }

// Single reports whether everything shall go into one window.
func (w Width) Single() bool { return w == OneWindow }

// String returns the width as it is written in the file.
func (w Width) String() string {
	if w.Single() {
		return oneWindowText
	}
	return strconv.FormatInt(int64(time.Duration(w)/time.Second), 10)
}

// UnmarshalYAML reads seconds or only_one_tw.
func (w *Width) UnmarshalYAML(n *yaml.Node) error {
	if n.Value == oneWindowText {
		*w = OneWindow
		return nil
	}
	s, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil || s < 1 || s > widest {
		return errWidth
	}
	*w = Width(time.Duration(s) * time.Second)
	return nil
}

// MarshalYAML writes what UnmarshalYAML reads.
func (w Width) MarshalYAML() (any, error) {
	if w.Single() {
		return oneWindowText, nil
	}
	return int64(time.Duration(w) / time.Second), nil
}

// Direction says whose flows a profile is made of.
type Direction string

// The directions: flows that the host originated, or those that it received
// as well.
const (
	Out Direction = "out"
	All Direction = "all"
)

// UnmarshalYAML reads out or all.
func (d *Direction) UnmarshalYAML(n *yaml.Node) error { return oneOf(d, n, Out, All) }

// ExportFormat is the format of the exported flows.
type ExportFormat string

// The formats.
const (
	TSV   ExportFormat = "tsv"
	JSONL ExportFormat = "jsonl"
)

// UnmarshalYAML reads tsv or jsonl. The older name of the latter, json, is
// accepted too.
func (f *ExportFormat) UnmarshalYAML(n *yaml.Node) error {
	if n.Value == "json" {
		*f = JSONL
		return nil
	}
	return oneOf(f, n, TSV, JSONL)
}

// Engine is what turns packets into records.
type Engine string

// The engines: Zeek where there is one, Zeek alone, the built-in meter alone.
const (
	Auto    Engine = "auto"
	Zeek    Engine = "zeek"
	Builtin Engine = "builtin"
)

// UnmarshalYAML reads auto, zeek or builtin.
func (e *Engine) UnmarshalYAML(n *yaml.Node) error { return oneOf(e, n, Auto, Zeek, Builtin) }

// Interval is a duration that may also be written as Zeek and older
// configurations do: "1day", "30 mins".
type Interval time.Duration

// Duration returns the interval as a time.Duration.
func (i Interval) Duration() time.Duration { return time.Duration(i) }

// UnmarshalYAML reads a number and a unit.
func (i *Interval) UnmarshalYAML(n *yaml.Node) error {
	d, ok := interval(n.Value)
	if !ok {
		return errors.New("want a duration such as 90s, 12h or 1day")
	}
	*i = Interval(d)
	return nil
}

// MarshalYAML writes what UnmarshalYAML reads.
func (i Interval) MarshalYAML() (any, error) { return shortDuration(time.Duration(i)), nil }

// Minutes is an Interval of which a number without a unit means minutes.
type Minutes time.Duration

// Duration returns the minutes as a time.Duration.
func (m Minutes) Duration() time.Duration { return time.Duration(m) }

// UnmarshalYAML reads a number of minutes, or a number and a unit.
func (m *Minutes) UnmarshalYAML(n *yaml.Node) error {
	text := n.Value
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		text += "min"
	}
	d, ok := interval(text)
	if !ok {
		return errors.New("want a number of minutes, or a duration such as 90s or 1h")
	}
	*m = Minutes(d)
	return nil
}

// MarshalYAML writes what UnmarshalYAML reads.
func (m Minutes) MarshalYAML() (any, error) {
	if d := time.Duration(m); d%time.Minute == 0 {
		return int64(d / time.Minute), nil
	}
	return shortDuration(time.Duration(m)), nil
}

// interval reads a duration in Go's or in Zeek's way of writing; nothing but 0
// goes without a unit.
func interval(text string) (time.Duration, bool) {
	text = strings.TrimSpace(text)
	if d, err := time.ParseDuration(text); err == nil {
		return d, d >= 0
	}
	cut := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if cut <= 0 {
		return 0, false
	}
	v, err := strconv.ParseFloat(text[:cut], 64)
	unit := map[string]time.Duration{
		"usec": time.Microsecond, "msec": time.Millisecond, "sec": time.Second, "second": time.Second, "min": time.Minute,
		"minute": time.Minute, "hr": time.Hour, "hour": time.Hour, "day": 24 * time.Hour,
	}[strings.TrimSuffix(strings.TrimSpace(text[cut:]), "s")]
	if err != nil || unit == 0 || v*float64(unit) > math.MaxInt64/2 {
		return 0, false
	}
	return time.Duration(v * float64(unit)), true
}

func oneOf[T ~string](dst *T, n *yaml.Node, allowed ...T) error {
	if n.Kind == yaml.ScalarNode && slices.Contains(allowed, T(n.Value)) {
		*dst = T(n.Value)
		return nil
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		names[i] = string(a)
	}
	return errors.New("want " + strings.Join(names, " or "))
}

// Networks holds networks; a single address is a network of one.
type Networks []netip.Prefix

// UnmarshalYAML reads a list of addresses and networks.
func (n *Networks) UnmarshalYAML(node *yaml.Node) error {
	var texts []string
	if err := node.Decode(&texts); err != nil {
		return errors.New("want a list of addresses and networks, such as [10.0.0.5, 192.168.0.0/16]")
	}
	out := make(Networks, 0, len(texts))
	for _, t := range texts {
		if a, err := netip.ParseAddr(t); err == nil && a.Zone() == "" {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(t)
		if err != nil {
			return fmt.Errorf("%q is neither an address nor a network such as 192.168.0.0/16", t)
		}
		if p.Masked() != p {
			return fmt.Errorf("%q has host bits set: did you mean %q or %q?", t, p.Masked(), p.Addr())
		}
		out = append(out, p)
	}
	*n = out
	return nil
}

// MarshalYAML writes what UnmarshalYAML reads.
func (n Networks) MarshalYAML() (any, error) {
	texts := make([]string, len(n))
	for i, p := range n {
		if texts[i] = p.String(); p.IsSingleIP() {
			texts[i] = p.Addr().String()
		}
	}
	return texts, nil
}

// duration reads "90s" or a number of seconds, which is how older
// configurations write times.
func duration(text string) (time.Duration, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return d, nil
	}
	s, err := strconv.ParseFloat(text, 64)
	if err != nil || !(s >= -1e9 && s <= 1e9) {
		return 0, errors.New("want a duration such as 250ms, 30s or 5m")
	}
	return time.Duration(s * float64(time.Second)), nil
}

// shortDuration writes 1h instead of 1h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
