package archtest

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
)

// tree makes files of pairs of name and text.
func tree(pairs ...string) fstest.MapFS {
	m := make(fstest.MapFS)
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return m
}

// with returns m with one more file, or another text of one.
func with(m fstest.MapFS, name, text string) fstest.MapFS {
	n := maps.Clone(m)
	n[name] = &fstest.MapFile{Data: []byte(text)}
	return n
}

func without(m fstest.MapFS, name string) fstest.MapFS {
	n := maps.Clone(m)
	delete(n, name)
	return n
}

// expect fails the test unless the problems are those that hold the texts, in
// order.
func expect(t *testing.T, problems []string, want ...string) {
	t.Helper()
	if len(problems) != len(want) {
		t.Errorf("%d problems, want %d: %q", len(problems), len(want), problems)
		return
	}
	for i, w := range want {
		if !strings.Contains(problems[i], w) {
			t.Errorf("%q, want something about %q", problems[i], w)
		}
	}
}

func sources(t *testing.T, fsys fs.FS) []source {
	t.Helper()
	files, err := parse(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// config is that of the module "ok".
type config struct {
	Limit int    `yaml:"limit"`
	Name  string `yaml:"name"`
}

func spec(name string) modules.Spec {
	return modules.Define(modules.Meta{
		Name: name, Doc: "a thing", Kinds: flow.Of(flow.Conn), Emits: []evidence.Spec{{
			Type: "A_THING", Tactic: evidence.Discovery, MITRE: []string{"T1046"}, Subject: "host", Over: "window", Doc: "a thing",
		}},
	}, config{Limit: 3, Name: "x"}, func(config, modules.Env) (modules.Rule[struct{}], error) { return nil, nil })
}

const readme = "# ok\n\n## Detects\n\nA thing.\n\n## Evidence\n\n`A_THING`\n\n## Configuration\n\n" +
	"```yaml\n# The limit.\nlimit: 3\nname: x\n```\n\n## Limits\n\nNone.\n\n## Example\n\n`testdata/a.txtar`: a thing.\n"

func module() fstest.MapFS {
	return tree("modules/ok/ok.go", "package ok\n", "modules/ok/ok_test.go", "package ok\n", "modules/ok/README.md", readme,
		"modules/ok/testdata/a.txtar", "x", "modules/all/all.go", "package all\n", "modules/modtest/m.go", "package modtest\n")
}

func TestPlantedModules(t *testing.T) {
	good := module()
	check := func(m fstest.MapFS, specs ...modules.Spec) []string { return checkModules(m, sources(t, m), specs) }
	expect(t, check(good, spec("ok")))
	expect(t, check(good, spec("ok"), spec("ok")), "twice")
	expect(t, check(good), "modules/ok is not in modules/all")
	expect(t, check(good, spec("ok"), spec("gone")), "gone has no folder")
	expect(t, check(with(good, "modules/ok/ok.go", "package okay\n"), spec("ok")), "package okay, want ok")
	expect(t, check(without(good, "modules/ok/README.md"), spec("ok")), "no README.md")
	expect(t, check(without(good, "modules/ok/testdata/a.txtar"), spec("ok")), "no testdata")
	expect(t, check(without(good, "modules/ok/ok_test.go"), spec("ok")), "no *_test.go")
	bare := spec("ok")
	bare.Emits = nil
	expect(t, check(good, bare), "lacks Doc, Emits or Kinds")
	for _, change := range []func(*evidence.Spec){
		func(e *evidence.Spec) { e.Tactic = "mischief" }, func(e *evidence.Spec) { e.Subject = "" },
		func(e *evidence.Spec) { e.Over = "" }, func(e *evidence.Spec) { e.Doc = "" },
	} {
		poor := spec("ok")
		poor.Emits = slices.Clone(poor.Emits)
		change(&poor.Emits[0])
		expect(t, check(good, poor), "lacks a known Tactic")
	}
	poor := spec("ok")
	poor.Emits = slices.Clone(poor.Emits)
	poor.Emits[0].MITRE = nil
	expect(t, check(good, poor), "no ATT&CK technique")
}

func TestPlantedReadmes(t *testing.T) {
	check := func(text string) []string {
		return checkReadme(with(module(), "modules/ok/README.md", text), spec("ok"))
	}
	swap := func(old, replacement string) []string {
		if strings.Count(readme, old) != 1 {
			t.Fatalf("%q is not in the README once", old)
		}
		return check(strings.Replace(readme, old, replacement, 1))
	}
	expect(t, check(readme))
	expect(t, swap("# ok\n", "# okay\n"), "headings")
	expect(t, swap("## Limits", "## Bounds"), "headings", `"## Limits" says nothing`)
	expect(t, check(readme+"\n## More\n\nx\n"), "headings")
	expect(t, swap("A thing.", ""), `"## Detects" says nothing`)
	expect(t, swap("`A_THING`", "`ANOTHER_THING`"), "A_THING")
	expect(t, swap("limit: 3", "limit: 4"), "differs from the defaults")
	expect(t, swap("limit: 3\n", ""), "differs from the defaults") // a key that is not shown
	expect(t, swap("name: x", "nam: x"), "nam not found")
	expect(t, swap("```yaml", "```"), "0 yaml blocks")
	expect(t, swap("testdata/a.txtar", "testdata/b.txtar"), "b.txtar")
	expect(t, swap("`testdata/a.txtar`", "a case"), "names no")
	expect(t, checkReadme(without(module(), "modules/ok/README.md"), spec("ok")), "README.md")
}

func TestPlantedPackageComments(t *testing.T) {
	check := func(pairs ...string) []string { return checkPackageComments(sources(t, tree(pairs...))) }
	expect(t, check("a/a.go", "// Package a is.\npackage a\n", "a/b.go", "package a\n", "a/a_test.go", "package a\n",
		"cmd/x/main.go", "//go:build unix\n\n// Command x is.\npackage main\n", "a/testdata/bad.go", "package bad\n"))
	expect(t, check("a/a.go", "package a\n"), "in 0 files")
	expect(t, check("a/a.go", "// Package a is.\npackage a\n", "a/b.go", "// Package a is too.\npackage a\n"), "in 2 files")
	expect(t, check("a/a.go", "// Package b is.\npackage a\n"), "does not begin")
	expect(t, check("cmd/x/main.go", "// Package main is.\npackage main\n"), "does not begin")
	expect(t, check("a/a.go", "// Package a is.\npackage a\n", "a/a_test.go", "// Package a tests.\npackage a\n"), "in a test")
	expect(t, check("a/a.go", "// Package a is.\n\npackage a\n"), "in 0 files") // an empty line cuts it off
}

func TestPlantedImports(t *testing.T) {
	table := map[string]layer{
		"parsers/flow": {},
		"modules/*":    {own: []string{"parsers/flow"}, foreign: []string{"example.com/ok"}, pure: true},
	}
	leaf := "package flow\n"
	check := func(pairs ...string) []string {
		return checkImports(sources(t, tree(append([]string{"parsers/flow/flow.go", leaf, "modules/a/ok.go", "package a\n"}, pairs...)...)), table)
	}
	imports := func(p string) string { return "package a\n\nimport _ \"" + p + "\"\n" }
	own := modulePath + "/"
	expect(t, check("modules/a/a.go", imports(own+"parsers/flow"), "modules/a/b.go", imports("example.com/ok/sub"), "modules/a/c.go", imports("strings"),
		"modules/a/a_test.go", imports(own+"profiler"), "modules/a/b_test.go", imports("github.com/google/go-cmp/cmp"), "modules/a/c_test.go", imports("os")))
	expect(t, check("modules/a/a.go", imports(own+"modules/b")), "may not import modules/b")
	expect(t, check("modules/a/a.go", imports(own+"profiler")), "may not import profiler")
	expect(t, check("modules/a/a.go", imports("example.com/other")), "may not import example.com/other")
	expect(t, check("modules/a/a_test.go", imports("github.com/stretchr/testify/require")), "testify")
	expect(t, check("modules/a/a.go", imports("os")), "may not import os")
	expect(t, check("modules/a/a.go", imports("net/http")), "may not import net/http")
	expect(t, check("modules/a/a.go", imports("sync")), "may not import sync")
	expect(t, check("modules/a/a.go", imports("testing")), "imports testing")
	expect(t, check("modules/a/a_test.go", imports(own+"cmd/slips")), "nobody imports a command")
	expect(t, check("util/a.go", "package util\n"), "util: not in the table")
	table["gone"] = layer{}
	expect(t, check(), "gone: in the table")
}

func TestPlantedSleep(t *testing.T) {
	const sleeps = "package a\n\nimport \"time\"\n\nfunc f() { time.Sleep(1) }\n"
	expect(t, checkSleep(sources(t, tree("a/a_test.go", sleeps))), "time.Sleep in a test")
	expect(t, checkSleep(sources(t, tree("a/a.go", sleeps, "a/a_test.go", strings.Replace(sleeps, "import", "import _ \"testing/synctest\"\n\nimport", 1)))))
}

func TestPlantedMakefile(t *testing.T) {
	expect(t, checkMakefile("X := 1\nbuild: ## it\n\tgo build\nall: build ## all\n"))
	expect(t, checkMakefile("build:\n\tgo build\n"), "build has no ## help")
}

func TestPlantedState(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{
		"go.mod": "module planted.example/p\n\ngo 1.26\n",
		// What may be there.
		"good/good.go": `package good

import (
	"errors"
	"fmt"
	"regexp"
)

type row struct{ names []string; next *row }

var ErrX = errors.New("x")
var table = map[string]row{"a": {names: []string{"b"}}}
var list = [...]string{"a", "b"}
var word = regexp.MustCompile("a")
var _ fmt.Stringer = T{}

type T struct{}

func (T) String() string {
	x := list // a copy
	x[0] = "c"
	list := []int{1} // another one of this name
	list[0]++
	return word.String() + x[0] + table["a"].names[0]
}
`,
		"bad/bad.go": `package bad

import (
	"sync"
	"sync/atomic"
)

type T struct{ n int }

func (t *T) Inc() { t.n++ }

var (
	assigned int
	element  = map[string]int{}
	deleted  = map[string]int{}
	counted  [3]int
	field    T
	address  int
	method   T
	mutex    sync.Mutex
	wrapped  struct{ n atomic.Int64 }
	channel  = make(chan int)
	pointer  = new(T)
	ranged   int
	Exported int
)

func init() {}

func f() *int {
	assigned = 1
	element["a"] = 1
	delete(deleted, "a")
	counted[1]++
	field.n += 2
	method.Inc()
	for ranged = range 3 {
	}
	return &address
}
`,
		"other/other.go":  "package other\n\nimport \"planted.example/p/bad\"\n\nfunc f() { bad.Exported = 1 }\n",
		"bad/bad_test.go": "package bad\n\nvar inTest int\n\nfunc init() { inTest = 1 }\n",
	}
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, checkState(t, dir),
		"init: functions that run by themselves",
		"bad.Exported: a package-level variable is assigned to",
		"bad.address: a package-level variable has its address taken",
		"bad.assigned: a package-level variable is assigned to",
		"bad.channel: a package-level channel",
		"bad.counted: a package-level variable is assigned to",
		"bad.deleted: a package-level variable is changed by delete",
		"bad.element: a package-level variable is assigned to",
		"bad.field: a package-level variable is assigned to",
		"bad.method: a package-level variable has its address taken by a method",
		"bad.mutex: a package-level variable of sync",
		"bad.pointer: a package-level pointer",
		"bad.ranged: a package-level variable is assigned to",
		"bad.wrapped: a package-level variable of sync/atomic",
	)
	expect(t, checkState(t, dir, "/bad", "/other"))
}
