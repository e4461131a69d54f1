package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// checkState finds init functions and package-level state in the production
// code of the module at dir: variables that are written to, whose address is
// taken, or whose type is made to change. Tables that are only read are no
// state.
//
// What it cannot see: a map or slice that is handed to a function which
// changes it. The problems have the path and name of the variable in front.
func checkState(t *testing.T, dir string, except ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps", "-json=ImportPath,Dir,GoFiles,Export,Module,Error", "./...")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	type pkg struct {
		ImportPath, Dir, Export string
		GoFiles                 []string
		Module                  *struct{ Main bool }
	}
	exports := make(map[string]string)
	var own []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath] = p.Export
		if p.Module != nil && p.Module.Main && len(p.GoFiles) > 0 {
			own = append(own, p)
		}
	}
	s := state{fset: token.NewFileSet(), vars: make(map[string]types.Object), found: make(map[string]bool)}
	imp := importer.ForCompiler(s.fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	type checked struct {
		files []*ast.File
		info  *types.Info
	}
	var all []checked
	for _, p := range own {
		if slices.ContainsFunc(except, func(e string) bool { return strings.HasSuffix(p.ImportPath, e) }) {
			continue
		}
		c := checked{info: &types.Info{
			Defs: make(map[*ast.Ident]types.Object), Uses: make(map[*ast.Ident]types.Object),
			Selections: make(map[*ast.SelectorExpr]*types.Selection), Types: make(map[ast.Expr]types.TypeAndValue),
		}}
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(s.fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			c.files = append(c.files, f)
		}
		conf := types.Config{Importer: imp}
		tp, err := conf.Check(p.ImportPath, s.fset, c.files, c.info)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range tp.Scope().Names() {
			if v, ok := tp.Scope().Lookup(name).(*types.Var); ok {
				s.vars[p.ImportPath+"."+name] = v
				if why := changes(v.Type(), nil); why != "" {
					s.add(v.Pos(), p.ImportPath+"."+name, why)
				}
			}
		}
		all = append(all, c)
	}
	for _, c := range all { // now that all variables are known
		s.info = c.info
		for _, f := range c.files {
			ast.Inspect(f, s.visit)
		}
	}
	problems := make([]string, 0, len(s.found))
	for p := range s.found {
		problems = append(problems, p)
	}
	slices.Sort(problems)
	return problems
}

type state struct {
	fset  *token.FileSet
	info  *types.Info
	vars  map[string]types.Object // package-level variables by path and name
	found map[string]bool
}

func (s *state) add(at token.Pos, name, why string) {
	p := s.fset.Position(at)
	s.found[fmt.Sprintf("%s: %s (%s:%d)", name, why, p.Filename, p.Line)] = true
}

// changes says why a variable of type t is state by its nature, or nothing.
func changes(t types.Type, seen []types.Type) string {
	if slices.Contains(seen, t) {
		return ""
	}
	seen = append(seen, t)
	if n, ok := types.Unalias(t).(*types.Named); ok {
		if p := n.Obj().Pkg(); p != nil {
			switch p.Path() {
			case "sync", "sync/atomic":
				return "a package-level variable of " + p.Path()
			case "regexp": // does not change
				return ""
			}
		}
	}
	switch u := t.Underlying().(type) {
	case *types.Chan:
		return "a package-level channel"
	case *types.Pointer:
		if n, ok := types.Unalias(u.Elem()).(*types.Named); ok && n.Obj().Pkg() != nil && n.Obj().Pkg().Path() == "regexp" {
			return ""
		}
		return "a package-level pointer, and what it points to may change"
	case *types.Struct:
		for f := range u.Fields() {
			if _, pointer := f.Type().Underlying().(*types.Pointer); pointer {
				continue // part of a table that is read
			}
			if why := changes(f.Type(), seen); why != "" {
				return why
			}
		}
	case *types.Array:
		return changes(u.Elem(), seen)
	}
	return ""
}

// global returns the package-level variable that e is, or is part of.
func (s *state) global(e ast.Expr) types.Object {
	for {
		switch x := e.(type) {
		case *ast.ParenExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.SelectorExpr:
			if o := s.known(x.Sel); o != nil {
				return o // of another package
			}
			e = x.X
		case *ast.Ident:
			return s.known(x)
		default:
			return nil
		}
	}
}

func (s *state) known(i *ast.Ident) types.Object {
	v, ok := s.info.Uses[i].(*types.Var)
	if !ok || v.Pkg() == nil || v.Parent() != v.Pkg().Scope() {
		return nil
	}
	if s.vars[v.Pkg().Path()+"."+v.Name()] == nil {
		return nil
	}
	return v
}

func (s *state) mark(e ast.Expr, what string) {
	if o := s.global(e); o != nil {
		s.add(e.Pos(), o.Pkg().Path()+"."+o.Name(), "a package-level variable "+what)
	}
}

func (s *state) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.FuncDecl:
		if n.Name.Name == "init" && n.Recv == nil {
			s.add(n.Pos(), "init", "functions that run by themselves are not for this repository")
		}
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			for _, l := range n.Lhs {
				s.mark(l, "is assigned to")
			}
		}
	case *ast.IncDecStmt:
		s.mark(n.X, "is assigned to")
	case *ast.RangeStmt:
		if n.Tok == token.ASSIGN {
			for _, e := range []ast.Expr{n.Key, n.Value} {
				if e != nil {
					s.mark(e, "is assigned to")
				}
			}
		}
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			s.mark(n.X, "has its address taken")
		}
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 {
			if _, builtin := s.info.Uses[f].(*types.Builtin); builtin && slices.Contains([]string{"delete", "clear", "copy"}, f.Name) {
				s.mark(n.Args[0], "is changed by "+f.Name)
			}
		}
	case *ast.SelectorExpr:
		sel := s.info.Selections[n]
		if sel == nil || sel.Kind() != types.MethodVal {
			break
		}
		if sig, ok := sel.Obj().Type().(*types.Signature); ok && sig.Recv() != nil {
			_, wants := sig.Recv().Type().(*types.Pointer)
			_, has := s.info.Types[n.X].Type.Underlying().(*types.Pointer)
			if wants && !has {
				s.mark(n.X, "has its address taken by a method")
			}
		}
	}
	return true
}

// readOnly are tables that are handed on by their address because they are
// large, to functions that only read them.
func readOnly() []string {
	return []string{
		"parsers/argus.usualTAB", "parsers/argus.usualCSV", // layouts of columns
		"parsers/zeek.sniffSchema", "parsers/zeek.ignored", // a schema, and a log that stands for all that are not used
	}
}

// The harness of the modules' tests has a flag, which testing wants so.
func TestState(t *testing.T) {
	used := make(map[string]bool)
	for _, p := range checkState(t, root, "/modules/modtest") {
		name, _, _ := strings.Cut(strings.TrimPrefix(p, modulePath+"/"), ":")
		if slices.Contains(readOnly(), name) && !strings.Contains(p, "is assigned to") {
			used[name] = true
			continue
		}
		t.Error(p)
	}
	for _, name := range readOnly() {
		if !used[name] {
			t.Errorf("%s needs no exception any more", name)
		}
	}
}
