package selftest

import (
	"bytes"
	"compress/gzip"
	"flag"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/all"
)

var update = flag.Bool("update", false, "rewrite the capture")

// maxSize bounds the capture: it is in each binary and in each clone.
const maxSize = 300_000

// The capture is what the scenes make of it.
func TestCapture(t *testing.T) {
	want, err := perform(scenes())
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		rewrite(t, want)
	}
	size, seen := 0, make(map[string]bool)
	for _, path := range embedded(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		size += len(text)
		name, packed := strings.CutSuffix(path, ".gz")
		seen[name] = true
		if packed {
			text = unpacked(t, text)
		}
		if !bytes.Equal(text, want[name]) {
			t.Errorf(`%s is not what the scenes write; run "go test ./internal/selftest -update"`, name)
		}
	}
	for name := range want {
		if !seen[name] {
			t.Errorf("%s is missing", name)
		}
	}
	if size > maxSize {
		t.Errorf("the capture has %d bytes, want at most %d", size, maxSize)
	}
}

// embedded returns the paths of what is built into the program.
func embedded(t *testing.T) (paths []string) {
	t.Helper()
	for _, root := range []string{dir, lists} {
		err := fs.WalkDir(os.DirFS("."), root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				paths = append(paths, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

func rewrite(t *testing.T, want map[string][]byte) {
	t.Helper()
	for _, root := range []string{dir, lists} {
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range want {
		if slices.Contains(large(), name) {
			z, err := compress(text)
			if err != nil {
				t.Fatal(err)
			}
			name, text = name+".gz", z
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func unpacked(t *testing.T, text []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// Each type that a module emits has one case, and each case is of such a type,
// with a host that no other case has.
func TestEveryTypeHasACase(t *testing.T) {
	cases, err := Cases()
	if err != nil {
		t.Fatal(err)
	}
	type pair struct {
		module string
		typ    evidence.Type
	}
	have, hosts := make(map[pair]bool), make(map[netip.Addr]bool)
	for _, c := range cases {
		p := pair{c.Module, c.Type}
		if have[p] {
			t.Errorf("%s of module %s has two cases", c.Type, c.Module)
		}
		if hosts[c.Host] {
			t.Errorf("%s of module %s: another case is about %s too", c.Type, c.Module, c.Host)
		}
		have[p], hosts[c.Host] = true, true
		// Only who came from outside is told of as somebody outside.
		abroad := c.Type == "THREAT_INTELLIGENCE_FROM_BLACKLISTED_IP"
		if c.What == "" || netip.MustParsePrefix(Home).Contains(c.Host) == abroad {
			t.Errorf("%s of module %s: the case does not say what happens, or %s is on the wrong side of %s", c.Type, c.Module, c.Host, Home)
		}
	}
	for _, s := range all.Specs() {
		for _, e := range s.Emits {
			if !have[pair{s.Name, e.Type}] {
				t.Errorf("%s of module %s has no case: write a scene for it in scenes_test.go", e.Type, s.Name)
			}
			delete(have, pair{s.Name, e.Type})
		}
	}
	for p := range have {
		t.Errorf("module %s does not report %s", p.module, p.typ)
	}
}

// Each of the 65 types of the Python version is built, or there is a reason.
func TestReference(t *testing.T) {
	built := make(map[evidence.Type]bool)
	for _, s := range all.Specs() {
		for _, e := range s.Emits {
			built[e.Type] = true
		}
	}
	seen := make(map[evidence.Type]bool)
	for _, r := range reference() {
		if seen[r.Type] {
			t.Errorf("%s is listed twice", r.Type)
		}
		seen[r.Type] = true
		if built[r.Type] != (r.why == "") {
			t.Errorf("%s: built is %v, and the reason why not is %q", r.Type, built[r.Type], r.why)
		}
	}
	if len(seen) != 65 {
		t.Errorf("%d types, want 65", len(seen))
	}
}

// What was found, what is off, and what is missing.
func TestJudge(t *testing.T) {
	specs := []modules.Spec{
		{Meta: modules.Meta{Name: "a", Emits: []evidence.Spec{{Type: "X"}, {Type: "Y"}}}},
		{Meta: modules.Meta{Name: "b", Emits: []evidence.Spec{{Type: "X"}, {Type: "Z"}}}},
		{Meta: modules.Meta{Name: "c", Emits: []evidence.Spec{{Type: "LOGIN"}}}},
	}
	host := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, n}) }
	cases := []Case{{"a", "X", host(1), "x"}, {"a", "Y", host(2), "y"}, {"b", "X", host(3), "x"}, {"c", "LOGIN", host(5), "l"}}
	found := []evidence.Evidence{
		{Module: "a", Type: "X", Profile: host(1), Description: "found X"},
		{Module: "a", Type: "Y", Profile: host(9)},                         // about another host
		{Module: "a", Type: "X", Profile: host(3)},                         // by another module
		{Module: "b", Type: "Z", Profile: host(4), Description: "no case"}, // there is no case
	}
	s := Settings{
		Enabled: func(m string) bool { return m != "c" },
		Given:   func(m string) []string { return map[string][]string{"b": {"b.min = 9"}}[m] },
	}
	r := Judge(specs, cases, s, found)
	want := map[string]Status{"a X": Fired, "a Y": Failed, "b X": Failed, "b Z": Failed, "c LOGIN": Off}
	got := make(map[string]Status)
	for _, x := range r.Results {
		got[x.Module+" "+string(x.Type)] = x.Status
		if x.Status != Fired && x.Reason == "" || x.Status == Fired && x.Description != "found X" {
			t.Errorf("%+v", x)
		}
		if x.Module == "b" && x.Type == "X" && !strings.Contains(x.Reason, "b.min = 9") {
			t.Errorf("the reason does not name the setting: %q", x.Reason)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if r.OK() {
		t.Error("all is well, although three are missing")
	}
	if want := (Count{1, 1, 4}); r.Types != want { // X fired, Y and Z failed, LOGIN is off
		t.Errorf("types: %+v, want %+v", r.Types, want)
	}
	if want := (Count{1, 1, 5}); r.Pairs != want {
		t.Errorf("pairs: %+v, want %+v", r.Pairs, want)
	}
	if r.Reference != (Built{1, 65}) || len(r.Missing) != 64 {
		t.Errorf("of the reference %+v, %d are missing", r.Reference, len(r.Missing))
	}
	s.Disabled = []string{"Y", "Z"}
	cases[2].Host = host(1)
	found = append(found, evidence.Evidence{Module: "b", Type: "X", Profile: host(1)})
	if r := Judge(specs, cases, s, found); !r.OK() || r.Types != (Count{1, 3, 4}) {
		t.Errorf("%+v", r)
	}
}
