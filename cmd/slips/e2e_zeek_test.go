//go:build unix

package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slips-go/slips/parsers/packet"
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

// A capture that is cut short, as one of a tcpdump that was killed is, gives what
// was in it also with Zeek, which by itself throws everything away. One whose
// packets were captured in part goes to the meter, unless Zeek was asked for.
func TestZeekOnDamagedCapture(t *testing.T) {
	t.Parallel()
	zeek := realZeek(t)
	dir := t.TempDir()
	whole := scanCapture(t, 60)
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		writeFile(t, path, string(text))
		return path
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write(whole)
	must(t, errors.Join(err, z.Close()))
	snapped := snap(t, whole)
	for _, c := range []struct {
		name, path, engine string
		code               int
		conns              int64
		says               string
	}{
		{"cut", write("cut.pcap", whole[:len(whole)-7]), "zeek", exitInput, 59, "damaged or cut short"},
		{"packed", write("whole.pcap.gz", packed.Bytes()), "zeek", exitOK, 60, "read by Zeek"},
		{"packed and cut", write("cut.pcap.gz", packed.Bytes()[:packed.Len()-20]), "zeek", exitInput, -1, "damaged or cut short"},
		{"in part", write("snap.pcap", snapped), "auto", exitOK, 60, "built-in meter"},
		{"in part, Zeek wanted", write("snap2.pcap", snapped), "zeek", exitOK, -1, "captured in part"},
		{"no head, Zeek wanted", write("head.pcap", whole[:10]), "zeek", exitInput, 0, "not a packet capture"},
		{"no packets", write("empty.pcap", whole[:24]), "zeek", exitOK, 0, "read by Zeek"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "out")
			code, said := runProgram(t, "-f", c.path, "-o", out, "--engine", c.engine, "--set", "zeekscripts.zeek="+zeek)
			said += readFile(t, filepath.Join(out, "slips.log"))
			if code != c.code || !strings.Contains(said, c.says) {
				t.Fatalf("exit code %d, want %d and %q in: %s", code, c.code, c.says, said)
			}
			// The last packet of what is cut may be the answer to the last attempt.
			if got := results(t, out); c.conns >= 0 && got.summary.Kinds["conn"] != c.conns {
				t.Errorf("%v, want %d connections", got.summary.Kinds, c.conns)
			}
			if left, err := filepath.Glob(filepath.Join(out, zeekFiles, "*.pcap")); err != nil || slices.ContainsFunc(left, isFile) {
				t.Errorf("copies are left: %v %v", left, err)
			}
		})
	}
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// snap makes a capture say that its packets were longer than what it has.
func snap(t testing.TB, capture []byte) []byte {
	t.Helper()
	r, err := packet.NewReader(bytes.NewReader(capture))
	must(t, err)
	defer r.Close()
	var b bytes.Buffer
	w, err := packet.NewWriter(&b, packet.LinkEthernet)
	must(t, err)
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		p.Length = len(p.Data) + 10
		must(t, w.Write(p))
	}
	must(t, w.Flush())
	return b.Bytes()
}
