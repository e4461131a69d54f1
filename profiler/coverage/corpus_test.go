package coverage

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/tools/txtar"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/internal/selftest"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/all"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/zeek"
	"github.com/slips-go/slips/profiler"
)

// The corpus are the cases of all modules, and the capture of the self-test.
// Thinned out, they show what each type of evidence is found by.

// log is a log of Zeek.
type log struct {
	name  string
	kind  flow.Kind
	text  []byte
	lines [][]byte
}

// trial is a module with its settings and the logs of one case.
type trial struct {
	name string
	spec modules.Spec
	cfg  func() any
	view *intel.View
	logs []log
}

// bears reports whether a trial has any of some things.
func (c *trial) bears(things []string) bool {
	for _, l := range c.logs {
		for _, x := range things {
			if x == l.kind.String() || inValues(x) && (x == certFiles) == (l.kind == flow.Files) {
				return true
			}
			for _, f := range names(l.kind, x) {
				if bytes.Contains(l.text, []byte(f)) {
					return true
				}
			}
		}
	}
	return false
}

// names returns the fields of a log that a thing stands for.
func names(k flow.Kind, name string) (list []string) {
	if kindOf(name) != k || inValues(name) {
		return nil
	}
	list = append(list, fieldOf(name))
	for _, x := range things() {
		if x.name == name && x.also != "" {
			list = append(list, x.also)
		}
	}
	return list
}

// trials returns the corpus by module.
func trials(t testing.TB) map[string][]trial {
	t.Helper()
	list := make(map[string][]trial)
	capture := captured(t)
	for _, spec := range all.Specs() {
		paths, err := filepath.Glob("../../modules/" + spec.Name + "/testdata/*.txtar")
		if err != nil || len(paths) == 0 {
			t.Fatalf("module %s has no cases (%v)", spec.Name, err)
		}
		for _, p := range paths {
			if c := read(t, spec, p); len(c.logs) > 0 {
				list[spec.Name] = append(list[spec.Name], c)
			}
		}
		list[spec.Name] = append(list[spec.Name], trial{name: spec.Name + " in the capture of the self-test", spec: spec, cfg: spec.Defaults, logs: capture})
	}
	return list
}

// read reads a case. The logs of other sensors are left out.
func read(t testing.TB, spec modules.Spec, path string) trial {
	t.Helper()
	ar, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := trial{name: path, spec: spec, cfg: spec.Defaults}
	for _, f := range ar.Files {
		switch f.Name {
		case "config.yaml":
			c.cfg = func() any {
				cfg := spec.Defaults()
				if err := yaml.Unmarshal(f.Data, cfg); err != nil {
					t.Fatalf("%s: %v", path, err)
				}
				return cfg
			}
		case "feeds":
			if c.view, err = modtest.View(string(f.Data)); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		case "want":
		default:
			if l, ok := split(f.Name, f.Data); ok {
				c.logs = append(c.logs, l)
			}
		}
	}
	return c
}

// captured returns the logs of the capture of the self-test.
func captured(t testing.TB) (logs []log) {
	t.Helper()
	dir := t.TempDir()
	if err := selftest.Unpack(dir); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(f.Name(), ".gz") {
			z, err := gzip.NewReader(bytes.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			if text, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		if l, ok := split(f.Name(), text); ok {
			logs = append(logs, l)
		}
	}
	return logs
}

func split(name string, data []byte) (log, bool) {
	stem, ok := zeek.LogName(name)
	if !ok {
		return log{}, false
	}
	kinds := zeek.Kinds(nil, stem)
	l := log{name: name, text: data}
	for k := range flow.NumKinds {
		if kinds.Has(k) {
			l.kind = k
		}
	}
	for line := range bytes.Lines(data) {
		l.lines = append(l.lines, bytes.TrimSuffix(line, []byte("\n")))
	}
	return l, true
}

var sha1 = regexp.MustCompile(`"([0-9a-f]{40})"`)

// without returns the log without some things; ok is false when it is one of
// them itself.
func (l log) without(t testing.TB, things []string) (_ log, ok bool) {
	t.Helper()
	var fields []string
	for _, x := range things {
		if x == l.kind.String() {
			return log{}, false
		}
		fields = append(fields, names(l.kind, x)...)
	}
	values := slices.Contains(things, certFPs) && (l.kind == flow.SSL || l.kind == flow.X509) || slices.Contains(things, certFiles) && l.kind == flow.Files
	if len(fields) == 0 && !values {
		return l, true
	}
	thin := log{name: l.name, kind: l.kind}
	var keep []bool
	for _, line := range l.lines {
		switch {
		case bytes.HasPrefix(line, []byte("{")):
			var keys map[string]json.RawMessage
			if err := json.Unmarshal(line, &keys); err != nil {
				t.Fatal(err)
			}
			for _, f := range fields {
				delete(keys, f)
			}
			if values && l.kind == flow.Files && string(keys["source"]) == `"SSL"` {
				delete(keys, "sha1")
			}
			if values && l.kind != flow.Files { // as if by SHA-256, so that they still lead to x509.log
				for _, f := range []string{"cert_chain_fps", "fingerprint"} {
					if v := keys[f]; v != nil {
						keys[f] = sha1.ReplaceAll(v, []byte(`"${1}000000000000000000000000"`))
					}
				}
			}
			text, err := json.Marshal(keys)
			if err != nil {
				t.Fatal(err)
			}
			line = text
		case bytes.HasPrefix(line, []byte("#fields")), bytes.HasPrefix(line, []byte("#types")):
			cols := bytes.Split(line, []byte("\t"))
			if bytes.HasPrefix(line, []byte("#fields")) {
				keep = keep[:0]
				for _, c := range cols[1:] {
					keep = append(keep, !slices.Contains(fields, string(c)))
				}
			}
			line = append(append(bytes.Clone(cols[0]), '\t'), pick(cols[1:], keep)...)
		case len(line) > 0 && line[0] != '#':
			line = pick(bytes.Split(line, []byte("\t")), keep)
		}
		thin.lines = append(thin.lines, line)
	}
	return thin, true
}

func pick(cols [][]byte, keep []bool) []byte {
	var kept [][]byte
	for i, c := range cols {
		if i >= len(keep) || keep[i] {
			kept = append(kept, c)
		}
	}
	return bytes.Join(kept, []byte("\t"))
}

// fieldsOf returns the names of the fields in logs of the corpus, "kind.field".
func fieldsOf(t testing.TB, list map[string][]trial) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	for _, cases := range list {
		for _, c := range cases {
			for _, l := range c.logs {
				for _, line := range l.lines {
					switch {
					case bytes.HasPrefix(line, []byte("{")):
						var keys map[string]json.RawMessage
						if err := json.Unmarshal(line, &keys); err != nil {
							t.Fatal(err)
						}
						for k := range keys {
							names[l.kind.String()+"."+k] = true
						}
					case bytes.HasPrefix(line, []byte("#fields\t")):
						for k := range strings.SplitSeq(string(line[8:]), "\t") {
							names[l.kind.String()+"."+k] = true
						}
					}
				}
			}
		}
	}
	return names
}

// records decodes a log. Lines that cannot be decoded without what was taken
// away are no records.
func (l log) records() []*flow.Batch {
	name, _ := zeek.LogName(l.name)
	d := zeek.New(name)
	var out []*flow.Batch
	for i, line := range l.lines {
		b := flow.NewBatch(nil)
		b.Data = bytes.Clone(line)
		b.Segment = flow.Segment{Path: l.name, Print: l.name}
		f := b.Next()
		if d.Decode(f, b.Data) == nil {
			f.End = int64(i + 1)
			out = append(out, b)
		}
	}
	return out
}

// piece is one piece of evidence.
type piece struct {
	weight float64 // confidence by level
}

// found is what a trial found, by type of evidence.
type found map[evidence.Type][]piece

// play runs a trial without some things.
func play(t testing.TB, c *trial, gone ...string) found {
	t.Helper()
	rule, err := c.spec.New(c.cfg(), modules.Env{Width: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	e, err := profiler.New(profiler.Config{
		Lanes: 1, Width: time.Hour, Strict: true, Now: time.Now, Intel: func() *intel.View { return c.view }, Ask: true,
	}, []profiler.Loaded{{Spec: c.spec, Run: rule}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var in profiler.Inputs
	for _, l := range c.logs {
		thin, ok := l.without(t, gone)
		if !ok {
			continue
		}
		batches := thin.records()
		ch := make(chan *flow.Batch, len(batches)+1)
		for _, b := range batches {
			ch <- b
		}
		end := flow.NewBatch(nil)
		end.Mark = flow.Ended
		ch <- end
		close(ch)
		in.Initial = append(in.Initial, flow.Input{Name: l.name, C: ch})
	}
	s := collect{found: make(found)}
	if err := e.Run(t.Context(), in, &s); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return s.found
}

// collect is a Sink that keeps what was found.
type collect struct{ found found }

func (c *collect) Evidence(e *evidence.Evidence) error {
	c.found[e.Type] = append(c.found[e.Type], piece{weight: e.Confidence * float64(e.Level+1)})
	return nil
}
func (*collect) News(profiler.News) error              { return nil }
func (*collect) Round(int64) error                     { return nil }
func (*collect) Checkpoint(*profiler.Checkpoint) error { return nil }
