package eval

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/slips-go/slips/parsers/flow"
)

// Kind says how the bad windows of a scenario are found.
type Kind string

// The kinds.
const (
	ByRule  Kind = "rule"     // by the connections that match a rule
	PerFlow Kind = "per-flow" // by the labels in the log
	Whole   Kind = "scenario" // from the first connection that matches a rule on
)

// Scenario is what is known about one capture.
type Scenario struct {
	ID        string
	Path      string // as the truth has it
	Format    string
	Kind      Kind
	Infected  []netip.Addr
	Attackers []netip.Addr
	Monitored []netip.Addr // the only hosts that are judged; empty: see the package comment
	Rules     []Rule
	Expect    []string // what a good detector says, in words
	ByLabel   bool     // Infected are the hosts whose flows are labelled as malicious
	Notes     []string // for the user: what is odd about the truth
}

func (s *Scenario) isTarget(a netip.Addr) bool {
	return slices.Contains(s.Infected, a) || slices.Contains(s.Attackers, a)
}

// Rule matches connections that are surely bad. What is empty matches all.
type Rule struct {
	Orig, Resp []netip.Addr
	Port       []uint16 // of the responder
	Proto      string
	Tag        string
	Flows      int64 // how many connections it should match; 0: not known
}

func (r *Rule) match(f *flow.Flow) bool {
	return f.Kind == flow.Conn && oneOf(r.Orig, f.Src.Unmap()) && oneOf(r.Resp, f.Dst.Unmap()) && oneOf(r.Port, f.DstPort) &&
		(r.Proto == "" || r.Proto == f.Proto.String() || r.Proto == "icmp" && f.Proto.IsICMP())
}

func oneOf[T comparable](list []T, v T) bool { return len(list) == 0 || slices.Contains(list, v) }

func (r *Rule) name(i int) string {
	if r.Tag != "" {
		return strconv.Quote(r.Tag)
	}
	return strconv.Itoa(i)
}

// LabelledScenario returns the truth about a log that carries it itself.
func LabelledScenario(id, path string) *Scenario {
	return &Scenario{ID: id, Path: path, Kind: PerFlow, ByLabel: true}
}

// ParseTruth reads a ground-truth file: a JSON array of scenarios. name is that
// of the file, for the errors, which name scenario and field too. A field that
// is not known becomes a note of its scenario.
func ParseTruth(name string, text []byte) ([]*Scenario, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("%s:%d: %w", name, 1+bytes.Count(text[:min(syntax.Offset, int64(len(text)))], []byte{'\n'}), err)
		}
		return nil, fmt.Errorf("%s: want an array of scenarios: %w", name, err)
	}
	if len(raw) == 0 {
		return nil, fmt.Errorf("%s: there is no scenario in it", name)
	}
	var list []*Scenario
	for i, r := range raw {
		s, err := parseScenario(r)
		if err != nil {
			where := strconv.Itoa(i)
			if s != nil && s.ID != "" {
				where += " (" + s.ID + ")"
			}
			return nil, fmt.Errorf("%s: scenario %s: %w", name, where, err)
		}
		if slices.ContainsFunc(list, func(x *Scenario) bool { return x.ID == s.ID }) {
			return nil, fmt.Errorf("%s: scenario %d: id: %q comes twice", name, i, s.ID)
		}
		list = append(list, s)
	}
	return list, nil
}

// fields are those of a JSON object that were not asked for yet.
type fields map[string]json.RawMessage

// object decodes raw, which is valid JSON.
func object(raw json.RawMessage) (fields, error) {
	f := make(fields)
	if json.Unmarshal(raw, &f) != nil || f == nil {
		return nil, errors.New("want an object")
	}
	return f, nil
}

// take decodes the field of a name into v and reports whether it was there.
func (f fields) take(name string, v any) (bool, error) {
	raw, ok := f[name]
	delete(f, name)
	if !ok || string(raw) == "null" {
		return false, nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return true, fmt.Errorf("%s: %w", name, plain(err))
	}
	return true, nil
}

// plain takes the name of the Go type's field out of an error of package json.
func plain(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Errorf("%s is not what is wanted here (%s)", wrong.Value, wrong.Type)
	}
	return err
}

// left returns the names of the fields that nobody asked for.
func (f fields) left() []string {
	var list []string
	for name := range f {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// some is a list, or one value that stands for a list of one.
type some[T any] []T

// UnmarshalJSON reads a value or an array of them.
func (s *some[T]) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]T)(s))
	}
	var one T
	if err := json.Unmarshal(b, &one); err != nil {
		return err
	}
	*s = some[T]{one}
	return nil
}

func (f fields) addresses(name string) ([]netip.Addr, error) {
	var texts some[string]
	if _, err := f.take(name, &texts); err != nil {
		return nil, err
	}
	var list []netip.Addr
	for _, t := range texts {
		a, err := netip.ParseAddr(t)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is no IP address", name, t)
		}
		list = append(list, a.Unmap())
	}
	return list, nil
}

func parseScenario(raw json.RawMessage) (*Scenario, error) {
	f, err := object(raw)
	if err != nil {
		return nil, err
	}
	s := &Scenario{}
	var kind string
	var rules []json.RawMessage
	var expect some[string]
	var ignored json.RawMessage
	for _, x := range []struct {
		name string
		to   any
	}{
		{"id", &s.ID},
		{"path", &s.Path},
		{"format", &s.Format},
		{"label_kind", &kind},
		{"rules", &rules},
		{"expect", &expect},
		{"note", &ignored},
		{"source", &ignored},
		{"flows_total", &ignored},
		{"flows_matched", &ignored},
	} {
		if _, err := f.take(x.name, x.to); err != nil {
			return s, err
		}
	}
	s.Kind, s.Expect = Kind(kind), expect
	switch {
	case s.ID == "":
		return s, errors.New("id: is missing")
	case strings.ContainsAny(s.ID, "/\\"), s.ID == ".", s.ID == "..":
		return s, fmt.Errorf("id: %q cannot be the name of a directory", s.ID)
	case s.Path == "":
		return s, errors.New("path: is missing")
	case s.Kind != ByRule && s.Kind != PerFlow && s.Kind != Whole:
		return s, fmt.Errorf("label_kind: %q: want rule, per-flow or scenario", kind)
	}
	if s.Infected, err = f.addresses("infected"); err != nil {
		return s, err
	}
	if s.Attackers, err = f.addresses("attackers"); err != nil {
		return s, err
	}
	if s.Monitored, err = f.addresses("monitored"); err != nil {
		return s, err
	}
	for i, r := range rules {
		f, err := object(r)
		if err != nil {
			return s, fmt.Errorf("rules[%d]: %w", i, err)
		}
		rule, notes, err := parseRule(f)
		if err != nil {
			return s, fmt.Errorf("rules[%d].%w", i, err)
		}
		for _, n := range notes {
			s.Notes = append(s.Notes, fmt.Sprintf("rules[%d]: %s", i, n))
		}
		s.Rules = append(s.Rules, rule)
	}
	if s.Kind == ByRule && len(s.Rules) == 0 && len(s.Infected)+len(s.Attackers) > 0 {
		return s, errors.New("rules: label_kind is rule and there are bad hosts, but no rule")
	}
	for _, name := range f.left() {
		s.Notes = append(s.Notes, fmt.Sprintf("the field %q is not known and was ignored", name))
	}
	return s, nil
}

func parseRule(f fields) (r Rule, notes []string, err error) {
	var port some[uint16]
	for _, x := range []struct {
		name string
		to   any
	}{{"port", &port}, {"proto", &r.Proto}, {"tag", &r.Tag}, {"flows", &r.Flows}} {
		if _, err := f.take(x.name, x.to); err != nil {
			return r, nil, err
		}
	}
	r.Port, r.Proto = port, strings.ToLower(r.Proto)
	if r.Orig, err = f.addresses("orig"); err != nil {
		return r, nil, err
	}
	if r.Resp, err = f.addresses("resp"); err != nil {
		return r, nil, err
	}
	for _, name := range f.left() {
		notes = append(notes, fmt.Sprintf("the field %q is not known and was ignored", name))
	}
	return r, notes, nil
}
