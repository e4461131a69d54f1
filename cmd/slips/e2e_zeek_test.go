//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// realZeek returns the Zeek to test with.
func realZeek(t testing.TB) string {
	t.Helper()
	path := os.Getenv("SLIPS_ZEEK")
	if path == "" {
		t.Skip("NOT TESTED: runs of a real Zeek; set SLIPS_ZEEK to the program")
	}
	return path
}

// fakeZeek writes a program that gives its version as Zeek does, and otherwise
// runs the lines of shell.
func fakeZeek(t testing.TB, version, lines string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "zeek")
	must(t, os.WriteFile(path, []byte("#!/bin/sh\nif [ \"$1\" = --version ]; then echo \"zeek version "+version+"\"; exit 0; fi\n"+lines+"\n"), 0o755))
	return path
}

// A capture is read by Zeek, packed or not; the results are the same bytes
// again, and Zeek's logs are kept or not, as the configuration says.
func TestZeekReadsCapture(t *testing.T) {
	t.Parallel()
	zeek := realZeek(t)
	dir := t.TempDir()
	capture := filepath.Join(dir, "scan.pcap")
	writeFile(t, capture, string(scanCapture(t, 30)))
	var first string
	for _, name := range []string{"one", "two"} {
		out := filepath.Join(dir, name)
		keep := name == "one"
		args := []string{"-f", capture, "-o", out, "--engine", "zeek", "--set", "zeekscripts.zeek=" + zeek}
		if !keep {
			args = append(args, "--set", "parameters.delete_zeek_files=true", "--lanes", "3")
		}
		if code, said := runProgram(t, args...); code != exitOK {
			t.Fatalf("exit code %d: %s", code, said)
		}
		got := results(t, out)
		if got.summary.Kinds["conn"] != 30 || got.evidence.types("10.0.0.5")["HORIZONTAL_PORT_SCAN"] == 0 || len(got.alerts) == 0 {
			t.Errorf("%v, %d alerts, %v", got.summary.Kinds, len(got.alerts), got.evidence.types("10.0.0.5"))
		}
		text := readFile(t, filepath.Join(out, "alerts", "evidence.jsonl"))
		if !keep && text != first {
			t.Error("two runs of Zeek on one capture give other bytes")
		}
		first = text
		if _, err := os.Stat(filepath.Join(out, zeekFiles, "scan.pcap", "conn.log")); (err == nil) != keep {
			t.Errorf("Zeek's logs, with delete_zeek_files %v: %v", !keep, err)
		}
		if run := readFile(t, filepath.Join(out, "metadata", "run.json")); !strings.Contains(run, `"engine": "zeek `) {
			t.Errorf("run.json does not name the engine: %s", run)
		}
	}
}

// A Zeek that cannot work gives way to the meter, unless it was asked for.
func TestBrokenZeek(t *testing.T) {
	t.Parallel()
	capture := filepath.Join(t.TempDir(), "scan.pcap")
	writeFile(t, capture, string(scanCapture(t, 30)))
	dies := fakeZeek(t, "8.0.1", "echo 'fatal error: cannot work' >&2; exit 1")
	for _, c := range []struct {
		name, zeek, engine string
		code               int
		says               string
	}{
		{"dies, auto", dies, "auto", exitOK, "built-in meter"},
		{"dies, asked for", dies, "zeek", exitSensor, `zeek says "fatal error: cannot work"`},
		{"too old", fakeZeek(t, "5.2.0", ""), "zeek", exitSensor, "is version 5.2.0, and versions 6 to 9 are supported"},
		{"too old but named", fakeZeek(t, "5.2.0", ""), "auto", exitSensor, "--engine builtin does without"},
		{"no Zeek at all", fakeZeek(t, "x", ""), "zeek", exitSensor, "which is not what zeek answers"},
		{"missing", "/no/such/zeek", "zeek", exitSensor, `the configured zeek "/no/such/zeek" cannot be run`},
		{"not wanted", "/no/such/zeek", "builtin", exitOK, "built-in meter"},
		{"nonsense", fakeZeek(t, "8.0.1", "echo 'slips: zeek is ready' >&2; echo '{\"ts\": nonsense' > conn.log; exit 0"), "zeek", exitInput, "no logs in this directory"},
		{"dies on the way", fakeZeek(t, "8.0.1", "echo 'slips: zeek is ready' >&2; kill -9 $$"), "zeek", exitInput, "ended by the signal killed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "out")
			code, said := runProgram(t, "-f", capture, "-o", out, "--engine", c.engine, "--set", "zeekscripts.zeek="+c.zeek)
			if log, err := os.ReadFile(filepath.Join(out, "slips.log")); err == nil {
				said += string(log)
			}
			if code != c.code || !strings.Contains(said, c.says) {
				t.Errorf("exit code %d, want %d and %q in: %s", code, c.code, c.says, said)
			}
		})
	}
}
