package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// leaf is one key that can be set.
type leaf struct {
	key   string        // canonical, "modules.dga.min_names"
	value reflect.Value // the field, settable
}

// set stores a copy of v, a value of the field's own type.
func (l leaf) set(v any) { l.value.Set(reflect.ValueOf(v)) }

// env returns the name of the environment variable for the key.
func (l leaf) env() string {
	return envPrefix + strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		}
		return '_'
	}, l.key)
}

// name returns the last part of the key.
func (l leaf) name() string { return l.key[strings.LastIndexByte(l.key, '.')+1:] }

// leavesOf lists the keys of the struct that p points to, in its order.
func leavesOf(prefix string, p any) ([]leaf, error) {
	v := reflect.ValueOf(p)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return nil, fmt.Errorf("BUG: configuration of %q is %T, want a pointer to a struct", strings.TrimSuffix(prefix, "."), p)
	}
	var out []leaf
	v = v.Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		tag, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case !f.IsExported(), tag == "-":
			continue
		case tag == "" && !strings.Contains(opts, "inline"):
			tag = strings.ToLower(f.Name) // as package yaml does
		}
		sub := prefix + tag
		if f.Type.Kind() != reflect.Struct || isScalar(f.Type) {
			out = append(out, leaf{sub, v.Field(i)})
			continue
		}
		if tag != "" {
			sub += "."
		}
		ls, err := leavesOf(sub, v.Field(i).Addr().Interface())
		if err != nil {
			return nil, err
		}
		out = append(out, ls...)
	}
	return out, nil
}

// isScalar reports whether a struct type stands for one value.
func isScalar(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[yaml.Unmarshaler]()) ||
		p.Implements(reflect.TypeFor[interface{ UnmarshalText([]byte) error }]())
}

// decode returns n as a value of type t, checked for type but not for range.
func decode(n *yaml.Node, t reflect.Type) (any, error) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.ShortTag() == "!!null" && n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) == 0 {
		return nil, errors.New("no value given: want " + wants(t))
	}
	if t == reflect.TypeFor[time.Duration]() {
		if n.Kind != yaml.ScalarNode {
			return nil, errors.New("want " + wants(t))
		}
		d, err := duration(n.Value)
		return d, err
	}
	if k := t.Kind(); reflect.Int <= k && k <= reflect.Uintptr && !isScalar(t) && n.ShortTag() != "!!int" {
		return nil, errors.New("want " + wants(t)) // package yaml would cut 1.5 to 1
	}
	p := reflect.New(t)
	if err := decodeInto(n, p.Interface()); err != nil {
		var te *yaml.TypeError
		if errors.As(err, &te) {
			return nil, errors.New("want " + wants(t))
		}
		return nil, err
	}
	v := p.Elem()
	if k := v.Kind(); (k == reflect.Float64 || k == reflect.Float32) && (math.IsNaN(v.Float()) || math.IsInf(v.Float(), 0)) {
		return nil, errors.New("want a finite number")
	}
	if v.Kind() == reflect.Slice && v.IsNil() {
		v.Set(reflect.MakeSlice(t, 0, 0))
	}
	return v.Interface(), nil
}

// decodeInto decodes lists and maps through text, because a node cannot be
// decoded strictly and their elements may be structs.
func decodeInto(n *yaml.Node, p any) error {
	if n.Kind == yaml.ScalarNode {
		return n.Decode(p)
	}
	text, err := yaml.Marshal(n)
	if err != nil {
		return err
	}
	d := yaml.NewDecoder(strings.NewReader(string(text)))
	d.KnownFields(true)
	return d.Decode(p)
}

// wants describes the values of a type to a person.
func wants(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "a duration such as 250ms, 30s or 5m"
	case reflect.TypeFor[Width]():
		return strings.TrimPrefix(errWidth.Error(), "want ")
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number from 0 on"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.String:
		return "text"
	case reflect.Slice, reflect.Array:
		return "a list such as [a, b], each " + wants(t.Elem())
	case reflect.Map:
		return "a mapping"
	}
	return "a value of type " + t.String()
}

// nearest returns the candidate that name was most likely meant to be, or "".
func nearest(name string, candidates []string) string {
	best, limit := "", max(2, len(name)/3)
	for _, c := range candidates {
		if d := distance(strings.ToLower(name), strings.ToLower(c)); d <= limit {
			best, limit = c, d-1
		}
	}
	return best
}

// distance is the number of single-byte edits, swaps of neighbours included,
// that lead from a to b.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 { // no key is that long
		return max(len(a), len(b))
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
