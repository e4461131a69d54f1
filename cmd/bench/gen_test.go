//go:build unix

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/zeek"
)

func gen(t *testing.T, o genOptions) map[string][]byte {
	t.Helper()
	o.dir = filepath.Join(t.TempDir(), "logs")
	if err := o.write(io.Discard); err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	for k := range numLogs {
		name := k.String() + ".log"
		text, err := os.ReadFile(filepath.Join(o.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = text
	}
	return files
}

// decode decodes every line, and writes what it says as text, because the
// records die with the next line. JSON has durations of more digits than TSV,
// which do not count.
func decode(t *testing.T, name string, text []byte) (records []string) {
	t.Helper()
	log, _ := zeek.LogName(name)
	d := zeek.New(log)
	var f flow.Flow
	for line := range bytes.Lines(text) {
		err := d.Decode(&f, bytes.TrimSuffix(line, []byte("\n")))
		if errors.Is(err, flow.ErrHeader) {
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, line)
		}
		if f.Kind.String()+".log" != name {
			t.Fatalf("%s: a record of kind %s", name, f.Kind)
		}
		records = append(records, fmt.Sprint(f.Time, f.Duration/1000, f.UID, f.Src, f.Dst, f.SrcPort, f.DstPort, f.Proto, f.Service,
			f.RawState, f.History, f.OrigBytes, f.RespBytes, f.OrigPkts, f.RespPkts, f.OrigIPBytes, f.RespIPBytes))
	}
	return records
}

// Two runs make the same bytes, another seed makes others, all lines are
// records of their logs, and JSON and TSV hold the same ones.
func TestGenerate(t *testing.T) {
	o := genOptions{records: 20_000, rate: 100, seed: 7, logs: "all", format: "json"}
	json := gen(t, o)
	for name, text := range gen(t, o) {
		if !bytes.Equal(text, json[name]) {
			t.Errorf("%s: two runs differ", name)
		}
	}
	other := o
	other.seed = 8
	if bytes.Equal(gen(t, other)["conn.log"], json["conn.log"]) {
		t.Error("the seed does not matter")
	}
	o.format = "tsv"
	total := 0
	for name, text := range gen(t, o) {
		fromTSV := decode(t, name, text)
		fromJSON := decode(t, name, json[name])
		if d := cmp.Diff(fromJSON, fromTSV); d != "" {
			t.Errorf("%s: JSON and TSV hold different records", name)
		}
		if len(fromJSON) == 0 {
			t.Errorf("%s is empty", name)
		}
		total += len(fromJSON)
	}
	if total != 20_000 {
		t.Errorf("%d records, want 20000", total)
	}
}

// The network is what the measurements say it is.
func TestWorld(t *testing.T) {
	sources, targets := make(map[netip.Addr]int), make(map[netip.Addr]bool)
	const n = 1_000_000
	late := 0
	var high int64
	q := &queue{write: func(r *record) {
		sources[r.src]++
		if r.src == scanner {
			targets[r.dst] = true
		}
		if end := r.ts + max(r.dur, 0); end < high {
			late++ // written behind one that ended later, as Zeek does
		} else {
			high = end
		}
	}}
	w := newWorld(1, n, 100, false, q.put, q.advance)
	w.calm = true // in bursts it takes longer until each host has come
	w.run()
	q.drain()
	if len(targets) != scanned {
		t.Errorf("the scanner touched %d targets, want %d", len(targets), scanned)
	}
	if len(sources) != numHosts+2 {
		t.Errorf("%d sources, want %d hosts, the gateway and the scanner", len(sources), numHosts)
	}
	if share := sources[gateway] * 100 / n; share < 5 || share > 20 {
		t.Errorf("the gateway has %d %% of the records", share)
	}
	if late == 0 {
		t.Error("the order is not that of a log that is written while connections end")
	}
}

func TestGenerateRefuses(t *testing.T) {
	good := genOptions{dir: filepath.Join(t.TempDir(), "x"), records: 1, rate: 1, logs: "conn", format: "json"}
	for name, change := range map[string]func(*genOptions){
		"no directory":       func(o *genOptions) { o.dir = "" },
		"existing directory": func(o *genOptions) { o.dir = t.TempDir() },
		"no records":         func(o *genOptions) { o.records = 0 },
		"no rate":            func(o *genOptions) { o.rate = 0 },
		"logs":               func(o *genOptions) { o.logs = "dns" },
		"format":             func(o *genOptions) { o.format = "xml" },
	} {
		o := good
		change(&o)
		if err := o.write(io.Discard); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := good.write(io.Discard); err != nil {
		t.Error(err)
	}
}

// Both baselines read every record.
func TestBaselines(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	o := genOptions{dir: dir, records: 5000, rate: 100, seed: 1, logs: "all", format: "json"}
	if err := o.write(io.Discard); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for name, base := range map[string]func([]string, io.Writer) error{"json": baseJSON, "newline": baseNewline} {
		var out bytes.Buffer
		if err := base(files, &out); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Contains(out.Bytes(), []byte(`"records":5000,`)) {
			t.Errorf("%s: %s", name, out.Bytes())
		}
	}
}
