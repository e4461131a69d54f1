package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slips-go/slips/feeds/oui"
)

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	csv := write(t, dir, "a.csv", "Registry,Assignment,Organization Name,Organization Address\r\nMA-L,001122,\"Old, Inc.\",Somewhere\r\nMA-S,001123456,Small,\r\n")
	json := write(t, dir, "b.json", `{"001122": "New Corp.\n1 Road\nTown"}`)
	out := filepath.Join(dir, "table.bin")
	if err := run(out, []string{csv, json}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for mac, want := range map[string]string{"001122000000": "New", "001123456000": "Small"} {
		if got := oui.Table(b).Vendor(mac); got != want {
			t.Errorf("%s: %q, want %q", mac, got, want)
		}
	}
}

func TestRunRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, want := range map[string]string{
		write(t, dir, "a.csv", "x,y,z,a\n"):      "titles",
		write(t, dir, "empty.csv", ""):           "titles",
		write(t, dir, "b.csv", "a,b\n"):          "fields",
		write(t, dir, "b.json", "[]"):            "unmarshal",
		write(t, dir, "bad.json", `{"00": "x"}`): "digits",
		write(t, dir, "none.json", `{}`):         "no entries",
		write(t, dir, "a.txt", ""):               "neither",
		filepath.Join(dir, "missing.csv"):        "missing.csv",
	} {
		out := filepath.Join(dir, "table.bin")
		if err := run(out, []string{name}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s: a table is written", name)
		}
	}
}
