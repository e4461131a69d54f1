// Package archtest holds tests of the repository itself: what the compiler and
// the linters cannot see. Each check is a function that returns what is wrong,
// and has a test that plants the fault it is there for.
package archtest

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/all"
)

const (
	root       = "../.."
	modulePath = "github.com/slips-go/slips"
)

// source is one Go file of the repository.
type source struct {
	path, dir string // from the root, with slashes
	test      bool
	ast       *ast.File
	imports   []string
}

// parse reads all Go files below fsys but those of other modules and of test
// data.
func parse(fsys fs.FS) ([]source, error) {
	var files []source
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, nested := fs.Stat(fsys, path.Join(name, "go.mod"))
			if name != "." && (nested == nil || strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		text, err := fs.ReadFile(fsys, name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // somebody removed it just now
		}
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		s := source{path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), ast: f}
		for _, i := range f.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, p)
		}
		files = append(files, s)
		return nil
	})
	return files, err
}

// repository returns the files of this repository.
func repository(t *testing.T) []source {
	t.Helper()
	files, err := parse(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 50 {
		t.Fatalf("only %d Go files found below %s", len(files), root)
	}
	return files
}

func report(t *testing.T, problems []string) {
	t.Helper()
	for _, p := range problems {
		t.Error(p)
	}
}

// notModules are the folders of modules/ that hold no module.
func notModules() []string { return []string{"all", "modtest"} }

// checkModules finds folders that are not in the list of modules, and modules
// whose folder, package and name differ or that miss something.
func checkModules(fsys fs.FS, files []source, specs []modules.Spec) (problems []string) {
	listed := make(map[string]bool)
	for _, s := range specs {
		if listed[s.Name] {
			problems = append(problems, fmt.Sprintf("modules/all: %s is listed twice", s.Name))
		}
		listed[s.Name] = true
	}
	dirs := make(map[string]bool)
	for _, f := range files {
		parent, name := path.Split(f.dir)
		if parent != "modules/" || slices.Contains(notModules(), name) || f.test {
			continue
		}
		dirs[name] = true
		if f.ast.Name.Name != name {
			problems = append(problems, fmt.Sprintf("%s: package %s, want %s", f.path, f.ast.Name.Name, name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(dirs)) {
		if !listed[name] {
			problems = append(problems, fmt.Sprintf("modules/%s is not in modules/all", name))
		}
		for _, pattern := range []string{"README.md", "*_test.go", "testdata/*.txtar"} {
			if found, err := fs.Glob(fsys, "modules/"+name+"/"+pattern); err != nil || len(found) == 0 {
				problems = append(problems, fmt.Sprintf("modules/%s has no %s", name, pattern))
			}
		}
	}
	for _, s := range specs {
		if !dirs[s.Name] {
			problems = append(problems, fmt.Sprintf("module %s has no folder of that name", s.Name))
		}
		if s.Doc == "" || len(s.Emits) == 0 || s.Kinds == 0 {
			problems = append(problems, fmt.Sprintf("module %s: its Meta lacks Doc, Emits or Kinds", s.Name))
		}
		for _, e := range s.Emits {
			if !slices.Contains(evidence.Tactics(), e.Tactic) || e.Subject == "" || e.Over == "" || e.Doc == "" {
				problems = append(problems, fmt.Sprintf("module %s: %s lacks a known Tactic, a Subject, Over or Doc", s.Name, e.Type))
			}
			if len(e.MITRE) == 0 && e.Tactic != evidence.Context && e.Type != "SIGNATURE_ALERT" { // its techniques come with the rule
				problems = append(problems, fmt.Sprintf("module %s: %s has no ATT&CK technique", s.Name, e.Type))
			}
		}
	}
	return problems
}

func TestModules(t *testing.T) {
	report(t, checkModules(os.DirFS(root), repository(t), all.Specs()))
}

// sections are the headings of a module's README, in order, behind its name.
func sections() []string {
	return []string{"## Detects", "## Evidence", "## Configuration", "## Limits", "## Example"}
}

var (
	fence   = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")
	example = regexp.MustCompile("`(testdata/[a-z0-9-]+\\.txtar)`")
)

// checkReadme finds what is wrong with the README of a module.
func checkReadme(fsys fs.FS, spec modules.Spec) (problems []string) {
	name := "modules/" + spec.Name + "/README.md"
	bad := func(format string, args ...any) {
		problems = append(problems, name+": "+fmt.Sprintf(format, args...))
	}
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		return []string{err.Error()}
	}
	var headings []string
	body := make(map[string]string)
	heading, fenced := "", false
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		if strings.HasPrefix(line, "#") && !fenced {
			heading = strings.TrimSpace(line)
			headings = append(headings, heading)
			continue
		}
		body[heading] += line
	}
	if want := append([]string{"# " + spec.Name}, sections()...); !slices.Equal(headings, want) {
		bad("its headings are %q, want %q", headings, want)
	}
	for _, s := range sections() {
		if strings.TrimSpace(body[s]) == "" {
			bad("%q says nothing", s)
		}
	}
	for _, e := range spec.Emits {
		if !strings.Contains(body["## Evidence"], "`"+string(e.Type)+"`") {
			bad("%q does not name `%s`", "## Evidence", e.Type)
		}
	}
	blocks := fence.FindAllStringSubmatch(body["## Configuration"], -1)
	if len(blocks) != 1 {
		bad("%q has %d yaml blocks, want 1", "## Configuration", len(blocks))
		return problems
	}
	// Decoded over nothing, so that a key which is not shown is noticed.
	want := spec.Defaults()
	got := reflect.New(reflect.TypeOf(want).Elem()).Interface()
	d := yaml.NewDecoder(strings.NewReader(blocks[0][1]))
	d.KnownFields(true)
	if err := d.Decode(got); err != nil && !errors.Is(err, io.EOF) {
		bad("%q: %v", "## Configuration", err)
	} else if diff := cmp.Diff(want, got); diff != "" {
		bad("%q differs from the defaults (-defaults +README):\n%s", "## Configuration", diff)
	}
	m := example.FindStringSubmatch(body["## Example"])
	if m == nil {
		bad("%q names no `testdata/….txtar`", "## Example")
	} else if _, err := fs.Stat(fsys, "modules/"+spec.Name+"/"+m[1]); err != nil {
		bad("%q: %v", "## Example", err)
	}
	return problems
}

func TestReadmes(t *testing.T) {
	for _, s := range all.Specs() {
		report(t, checkReadme(os.DirFS(root), s))
	}
}

// checkPackageComments finds packages whose comment is not in exactly one file.
func checkPackageComments(files []source) (problems []string) {
	type key struct{ dir, name string }
	comments, code := make(map[key][]string), make(map[key]bool)
	for _, f := range files {
		if !f.test {
			code[key{f.dir, f.ast.Name.Name}] = true
		}
	}
	seen := make(map[key]bool)
	for _, f := range files {
		k := key{f.dir, f.ast.Name.Name}
		if f.test && (code[k] || strings.HasSuffix(k.name, "_test")) {
			if f.ast.Doc != nil && !strings.HasSuffix(k.name, "_test") {
				problems = append(problems, f.path+": a package comment in a test of package "+k.name)
			}
			continue // the comment belongs into the code
		}
		seen[k] = true
		if f.ast.Doc == nil {
			continue
		}
		text := f.ast.Doc.Text()
		if text == "" {
			continue // a build constraint or a directive
		}
		comments[k] = append(comments[k], f.path)
		want := "Package " + k.name + " "
		if k.name == "main" {
			want = "Command " + path.Base(f.dir) + " "
		}
		if !strings.HasPrefix(text, want) {
			problems = append(problems, fmt.Sprintf("%s: the package comment does not begin with %q", f.path, want))
		}
	}
	for k := range seen {
		if n := len(comments[k]); n != 1 {
			problems = append(problems, fmt.Sprintf("%s: the comment of package %s is in %d files, want 1: %v", k.dir, k.name, n, comments[k]))
		}
	}
	slices.Sort(problems)
	return problems
}

func TestPackageComments(t *testing.T) { report(t, checkPackageComments(repository(t))) }

// checkSleep finds tests that wait for the clock. Inside testing/synctest
// nothing waits.
func checkSleep(files []source) (problems []string) {
	for _, f := range files {
		if !f.test || slices.Contains(f.imports, "testing/synctest") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Sleep" {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" {
					problems = append(problems, f.path+": time.Sleep in a test; poll with a deadline or use testing/synctest")
				}
			}
			return true
		})
	}
	return slices.Compact(problems)
}

func TestSleep(t *testing.T) { report(t, checkSleep(repository(t))) }

// The documents that are generated are what the program prints.
func TestGenerated(t *testing.T) {
	got, err := os.ReadFile(root + "/docs/modules.md")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", "./cmd/slips", "modules", "--markdown")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	want, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf(`docs/modules.md is not current, run "make generate" (-want +got):%s`, "\n"+d)
	}
}

// The papers that a user or a contributor looks for are there.
func TestPapers(t *testing.T) {
	for _, name := range []string{"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "docs/architecture.md"} {
		if info, err := os.Stat(root + "/" + name); err != nil || info.Size() == 0 {
			t.Errorf("%s is missing or empty (%v)", name, err)
		}
	}
}

var target = regexp.MustCompile(`(?m)^([a-z0-9-]+):(.*)$`)

// checkMakefile finds targets that "make help" does not explain.
func checkMakefile(text string) (problems []string) {
	for _, m := range target.FindAllStringSubmatch(text, -1) {
		if !strings.Contains(m[2], "## ") {
			problems = append(problems, fmt.Sprintf("Makefile: target %s has no ## help", m[1]))
		}
	}
	return problems
}

func TestMakefile(t *testing.T) {
	text, err := os.ReadFile(root + "/Makefile")
	if err != nil {
		t.Fatal(err)
	}
	report(t, checkMakefile(string(text)))
}
