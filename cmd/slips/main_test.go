package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/config"
)

func TestMain(m *testing.M) {
	testscript.Main(homeless{m}, map[string]func(){"slips": main})
}

// homeless runs tests without the user's home: the feeds and answers that a
// cache directory holds would change what is found, and tests must not change
// them.
type homeless struct{ m *testing.M }

func (h homeless) Run() int {
	dir, err := os.MkdirTemp("", "slips-test-home-")
	if err == nil {
		err = errors.Join(os.Setenv("HOME", dir), os.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache")))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := h.m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// The scripts run the program as users do. What needs the pipeline says so
// with [!wired] and starts to count when wire.go connects it.
func TestScripts(t *testing.T) {
	text, err := os.ReadFile("wire.go")
	if err != nil {
		t.Fatal(err)
	}
	wired := !bytes.Contains(text, []byte("the pipeline is not wired"))
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Condition: func(cond string) (bool, error) {
			if cond == "wired" {
				return wired, nil
			}
			return cond == "root" && os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// exits CODE PROGRAM ARG... checks the exit code.
			"exits": exits,
			// await FILE TEXT waits until FILE holds TEXT, at most 20 s.
			"await": await,
		},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG...]")
	}
	code := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		code = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if code != args[0] {
		ts.Fatalf("exit code %s, want %s", code, args[0])
	}
}

func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE TEXT")
	}
	look, deadline := time.NewTicker(5*time.Millisecond), time.After(20*time.Second)
	defer look.Stop()
	for {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && bytes.Contains(text, []byte(args[1])) {
			return
		}
		select {
		case <-look.C:
		case <-deadline:
			ts.Fatalf("%s does not hold %q: %s%v", args[0], args[1], text, err)
		}
	}
}

// runMain runs the program in this process.
func runMain(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = Main(t.Context(), args, env, strings.NewReader(""), &out, &err)
	return code, out.String(), err.String()
}

// slips.yaml, the defaults of the code, those of every module and those of
// package alerts are the same, and each key in the file has a comment.
// (Package config tests its own sections without the modules.)
func TestShippedConfigIsDefault(t *testing.T) {
	shipped := string(config.DefaultYAML())
	code, got, stderr := runMain(t, nil, "config", "show")
	if code != 0 {
		t.Fatal(stderr)
	}
	if d := cmp.Diff(shipped, got); d != "" {
		t.Errorf("slips.yaml and the effective configuration without any differ (-file +code):\n%s", d)
	}
	file := filepath.Join(t.TempDir(), "slips.yaml")
	if err := os.WriteFile(file, config.DefaultYAML(), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &program{specs: specs()}
	c, err := p.load(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.specs {
		if d := cmp.Diff(s.Defaults(), c.Module(s.Name)); d != "" {
			t.Errorf("module %s: %s", s.Name, d)
		}
	}
	d := alerts.Defaults()
	if d.EvidenceDetectionThreshold != c.Detection.EvidenceDetectionThreshold || d.FirstEvidenceWeight != c.Detection.FirstEvidenceWeight ||
		d.CorroborationWeight != c.Detection.CorroborationWeight {
		t.Errorf("alerts has %+v, slips.yaml %+v", d, c.Detection)
	}
	if code, text, stderr := runMain(t, nil, "config", "show", file); code != 0 || uncomment(text) != shipped {
		t.Errorf("slips.yaml given as a file changes something: %s%s", stderr, cmp.Diff(shipped, uncomment(text)))
	}
	var before string
	for line := range strings.Lines(shipped) {
		text := strings.TrimSpace(line)
		if strings.Contains(text, ":") && text[0] != '#' && !strings.HasPrefix(before, "#") {
			t.Errorf("slips.yaml: no comment before %q", text)
		}
		before = text
	}
}

// uncomment takes the notes on origins away.
func uncomment(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if before, _, ok := strings.Cut(line, " # from "); ok {
			line = before + "\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

// Main can be run twice at once in one process.
func TestMainHasNoState(t *testing.T) {
	for range 4 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if code := Main(context.Background(), []string{"config", "show", "--set", "profiler.lanes=7"}, nil, nil, &out, &out); code != 0 {
				t.Error(out.String())
			}
			if !strings.Contains(out.String(), "lanes: 7") {
				t.Error("the setting is not shown")
			}
		})
	}
}
