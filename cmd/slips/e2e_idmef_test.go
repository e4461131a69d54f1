package main

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slips-go/slips/internal/idmeftest"
)

// Every line of alerts.json is a valid IDMEFv2 message, on all traffic there is.
func TestIDMEFv2(t *testing.T) {
	x := idmeftest.New()
	check := func(t *testing.T, input string) {
		t.Helper()
		out := filepath.Join(t.TempDir(), "out")
		if code, text := runProgram(t, "-f", input, "-o", out, "--analysis-direction", "all"); code != exitOK && code != exitInput {
			t.Fatalf("exit code %d: %s", code, text)
		}
		got := results(t, out)
		for _, line := range got.whole(t, "alerts.json") {
			if err := x.Validate([]byte(line)); err != nil {
				t.Error(err)
			}
		}
	}
	for _, name := range []string{"demo", "benign", "suricata", "argus"} {
		t.Run(name, func(t *testing.T) { check(t, testdata("captures", name)) })
	}
	t.Run("datasets", func(t *testing.T) {
		root := dataset(t, ".")
		var dirs []string
		must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && !strings.Contains(path, "/pcap/protocols/") {
				dirs = append(dirs, filepath.Dir(path))
			}
			return err
		}))
		dirs = slices.Compact(dirs)
		for i, dir := range dirs {
			if testing.Short() && i%10 != 0 || strings.HasSuffix(dir, "datasets") || strings.HasSuffix(dir, "pcap") {
				continue
			}
			name, err := filepath.Rel(root, dir)
			must(t, err)
			t.Run(filepath.ToSlash(name), func(t *testing.T) {
				t.Parallel()
				check(t, dir)
			})
		}
	})
}
