package coverage

import (
	"flag"
	"fmt"
	"go/format"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/all"
	"github.com/slips-go/slips/parsers/flow"
)

// updating reports whether -update was given, a flag of modtest: the table is
// to be rewritten from what the modules find.
func updating() bool { return flag.Lookup("update").Value.String() == "true" }

// essential are the fields without which a line of a log is no record, or which
// only name a thing that is found in other ways.
func essential(name string) bool {
	switch fieldOf(name) {
	case "ts", "uid", "_path", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "proto", "fuid":
		return true
	}
	switch name {
	case "arp.orig_h", "arp.resp_h", "arp.operation", "software.host", "notice.src", "notice.note", "files.tx_hosts", "files.rx_hosts":
		return true
	}
	// Answers of online services and alerts of Suricata are no logs of Zeek.
	return kindOf(name) == flow.Lookup || kindOf(name) == flow.Alert
}

// strength is how much a case found of one type.
type strength struct {
	n      int
	weight float64 // sum of confidence by level
}

// effects is what the corpus shows about one module.
type effects struct {
	t     *testing.T
	cases []trial
	base  []map[evidence.Type]strength
}

func weigh(f found) map[evidence.Type]strength {
	m := make(map[evidence.Type]strength)
	for typ, pieces := range f {
		s := strength{n: len(pieces)}
		for _, p := range pieces {
			s.weight += p.weight
		}
		m[typ] = s
	}
	return m
}

func observe(t *testing.T, cases []trial) *effects {
	t.Helper()
	e := &effects{t: t, cases: cases}
	for i := range cases {
		e.base = append(e.base, weigh(play(t, &cases[i])))
	}
	return e
}

// without runs all cases without some things.
func (e *effects) without(gone ...string) []map[evidence.Type]strength {
	e.t.Helper()
	out := slices.Clone(e.base)
	for i := range e.cases {
		if e.cases[i].bears(gone) {
			out[i] = weigh(play(e.t, &e.cases[i], gone...))
		}
	}
	return out
}

// total is how many pieces of a type there are.
func total(all []map[evidence.Type]strength, typ evidence.Type) (n int) {
	for _, m := range all {
		n += m[typ].n
	}
	return n
}

// compare says whether in any case less, or more, is found of a type.
func compare(before, after []map[evidence.Type]strength, typ evidence.Type) (fewer, more bool) {
	for i := range before {
		a, b := before[i][typ], after[i][typ]
		fewer = fewer || b.n < a.n || b.n == a.n && b.weight < 0.99*a.weight
		more = more || b.n > a.n
	}
	return fewer, more
}

// maxCut bounds how many things are taken away together.
const maxCut = 4

// derive makes the rows of a module from what it finds without things.
func derive(t *testing.T, spec modules.Spec, cases []trial, fields []string) (rows []row) {
	t.Helper()
	e := observe(t, cases)
	var all []string
	for k := range flow.NumKinds {
		if !spec.Kinds.Has(k) || essential(k.String()) {
			continue
		}
		all = append(all, k.String())
		for _, f := range fields {
			if kindOf(f) == k && !essential(f) {
				all = append(all, f)
			}
		}
	}
	single := make(map[string][]map[evidence.Type]strength)
	for _, x := range all {
		single[x] = e.without(x)
	}
	for _, em := range spec.Emits {
		r := row{module: spec.Name, typ: em.Type}
		if total(e.base, em.Type) == 0 {
			if spec.Needs != flow.Of(flow.Alert) {
				t.Errorf("%s: no case on logs of Zeek finds %s", spec.Name, em.Type)
			}
			rows = append(rows, r)
			continue
		}
		var partial []string
		for _, x := range all {
			switch fewer, more := compare(e.base, single[x], em.Type); {
			case total(single[x], em.Type) == 0:
				r.off = append(r.off, x)
			case fewer:
				r.fewer, partial = append(r.fewer, x), append(partial, x)
				if more {
					r.more = append(r.more, x)
				}
			case more:
				r.more = append(r.more, x)
			}
		}
		r.off = append(r.off, e.cuts(em.Type, partial)...)
		rows = append(rows, r)
	}
	return rows
}

// cuts finds the smallest sets of things without which together nothing of a
// type is found, where each alone leaves something: logs up to maxCut, and
// pairs of anything.
func (e *effects) cuts(typ evidence.Type, partial []string) (found []string) {
	var logs []string
	for _, x := range partial {
		if fieldOf(x) == "" {
			logs = append(logs, x)
		}
	}
	var minimal [][]string
	try := func(set []string) {
		for _, m := range minimal {
			if !slices.ContainsFunc(m, func(x string) bool { return !covered(x, set) }) {
				return // a part of it is enough
			}
		}
		if total(e.without(set...), typ) == 0 {
			minimal = append(minimal, set)
		}
	}
	for n := 2; n <= min(maxCut, len(logs)); n++ {
		if n > 2 && len(logs) > 8 {
			break // as PASSWORD_GUESSING, which each log shows in its own way
		}
		for set := range subsets(logs, n) {
			try(set)
		}
	}
	for set := range subsets(partial, 2) {
		if kindOf(set[0]) == kindOf(set[1]) && (fieldOf(set[0]) == "" || fieldOf(set[1]) == "") {
			continue // a log, and a field of it
		}
		try(set)
	}
	for _, m := range minimal {
		found = append(found, strings.Join(m, "+"))
	}
	return found
}

// covered reports whether a thing is gone when those of a set are.
func covered(x string, set []string) bool {
	return slices.Contains(set, x) || slices.Contains(set, kindOf(x).String())
}

// subsets gives all subsets of n elements.
func subsets(of []string, n int) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		var pick func(from int, set []string) bool
		pick = func(from int, set []string) bool {
			if len(set) == n {
				return yield(slices.Clone(set))
			}
			for i := from; i < len(of); i++ {
				if !pick(i+1, append(set, of[i])) {
					return false
				}
			}
			return true
		}
		pick(0, nil)
	}
}

// The table says what the cases of the modules show: for each type of
// evidence what it cannot be found without, what it is found less often
// without, and without what there are more false alarms. A new module, a new
// field that one looks at, a case of another kind: each shows here.
func TestTable(t *testing.T) {
	if testing.Short() {
		t.Skip("plays all cases once for each field that they have")
	}
	list := trials(t)
	known := make(map[string]bool)
	also := make(map[string]bool)
	for _, x := range things() {
		known[x.name] = true
		if x.also != "" {
			also[kindOf(x.name).String()+"."+x.also] = true
		}
	}
	var fields []string
	for _, f := range slices.Sorted(maps.Keys(fieldsOf(t, list))) {
		if !also[f] { // goes together with the field that it is another name of
			fields = append(fields, f)
		}
	}
	fields = append(fields, certFPs, certFiles)
	slices.Sort(fields)
	var rows []row
	for _, spec := range all.Specs() {
		rows = append(rows, derive(t, spec, list[spec.Name], fields)...)
	}
	for _, r := range rows {
		for _, x := range slices.Concat(r.off, r.fewer, r.more) {
			for x := range strings.SplitSeq(x, "+") {
				if fieldOf(x) != "" && !known[x] {
					t.Errorf("%s of %s depends on %s, which is not in things", r.typ, r.module, x)
				}
				delete(also, x)
			}
		}
	}
	if updating() {
		text, err := format.Source(source(rows))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("table.go", text, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(table(), rows, cmp.AllowUnexported(row{})); diff != "" {
		t.Errorf("the table is not what the modules show; run \"go test ./profiler/coverage -run TestTable -update\" and read what changes (-table +modules):\n%s", diff)
	}
}

// source writes the table as code.
func source(rows []row) []byte {
	var b strings.Builder
	b.WriteString("// Code generated by \"go test ./profiler/coverage -run TestTable -update\"; DO NOT EDIT.\n\npackage coverage\n\n" +
		"// table returns what the cases of the modules and the capture of the self-test\n// show when logs and fields are taken away. Things joined by + are only missed\n// together.\nfunc table() []row {\n\treturn []row{\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "\t\t{\n\t\t\tmodule: %q, typ: %q,\n", r.module, r.typ)
		for _, l := range []struct {
			name string
			list []string
		}{{"off", r.off}, {"fewer", r.fewer}, {"more", r.more}} {
			if len(l.list) > 0 {
				fmt.Fprintf(&b, "\t\t\t%s: []string{%s},\n", l.name, `"`+strings.Join(l.list, `", "`)+`"`)
			}
		}
		b.WriteString("\t\t},\n")
	}
	b.WriteString("\t}\n}\n")
	return []byte(b.String())
}

// Each pair of module and type of evidence has one row.
func TestEveryTypeHasARow(t *testing.T) {
	have := make(map[string]bool)
	for _, r := range table() {
		have[r.module+" "+string(r.typ)] = true
	}
	for _, s := range all.Specs() {
		for _, e := range s.Emits {
			key := s.Name + " " + string(e.Type)
			if !have[key] {
				t.Errorf("%s has no row; run \"go test ./profiler/coverage -run TestTable -update\"", key)
			}
			delete(have, key)
		}
	}
	for key := range have {
		t.Errorf("%s has a row, and no module reports it", key)
	}
}
