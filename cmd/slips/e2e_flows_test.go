//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slips-go/slips/parsers"
)

// flowKeys are the columns of labelled flows that tell which record it is.
func flowKeys() []string {
	return []string{"ts", "uid", "kind", "src", "sport", "dst", "dport", "proto", "duration", "orig_bytes", "window"}
}

// flows returns the labelled flows that a run has written, each as its key
// columns; nil when it was not asked for any. It checks what must be true of
// any such file.
func (o *outcome) flows(t testing.TB) (list lines, labels map[string]int) {
	t.Helper()
	if o.summary.Flows == nil {
		return nil, nil
	}
	labels = make(map[string]int)
	var header []string
	path := filepath.Join(o.dir, "flows", "labeled_flows.")
	text, err := os.ReadFile(path + "jsonl")
	if err != nil {
		text, err = os.ReadFile(path + "tsv")
		must(t, err)
		first, _, _ := strings.Cut(string(text), "\n")
		header = strings.Split(first, "\t")
		text = text[len(first)+1:]
	}
	for line := range strings.Lines(string(text)) {
		v := make(map[string]any)
		if header == nil {
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Fatalf("labelled flows: %v in %.300q", err, line)
			}
		} else {
			cols := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
			if len(cols) != len(header) || !strings.HasSuffix(line, "\n") {
				t.Fatalf("labelled flows: %d columns, want %d: %.300q", len(cols), len(header), line)
			}
			for i, name := range header {
				if v[name] = cols[i]; cols[i] == "-" {
					v[name] = nil
				}
			}
		}
		var key strings.Builder
		for _, k := range flowKeys() {
			fmt.Fprintf(&key, "%v ", v[k])
		}
		list = append(list, key.String())
		labels[fmt.Sprintf("%v %v", v["src"], v["label"])]++
	}
	if n := o.summary.Flows; n.Records != int64(len(list)) || n.Pending != 0 || n.Records != o.summary.Records {
		t.Errorf("summary.json says that of %d records %d were labelled and %d wait; the file has %d", o.summary.Records, n.Records, n.Pending, len(list))
	}
	return list, labels
}

// sameFlows checks that two runs wrote the same records as labelled flows, if any.
func sameFlows(t testing.TB, want, got *outcome) {
	t.Helper()
	a, _ := want.flows(t)
	b, _ := got.flows(t)
	sameSet(t, "labelled flows", a, b)
}

// recordsIn reads logs without the engine and returns when and between whom
// each record was.
func recordsIn(t testing.TB, path string) lines {
	t.Helper()
	set, err := parsers.Open(parsers.Options{Paths: []string{path}})
	must(t, err)
	var list lines
	var mu sync.Mutex
	var readers sync.WaitGroup
	readers.Go(func() { _ = set.Run(t.Context()) }) // always nil
	for _, in := range set.Inputs {
		readers.Go(func() {
			for b := range in.C {
				mu.Lock()
				for i := range b.Flows {
					f := &b.Flows[i]
					dst := "<nil>"
					if f.Dst.IsValid() {
						dst = f.Dst.String()
					}
					list = append(list, fmt.Sprintln(time.Unix(0, f.Time).UTC().Format("2006-01-02T15:04:05.000000000Z07:00"), f.Kind, dst))
				}
				mu.Unlock()
				b.Release()
			}
		})
	}
	readers.Wait()
	return list
}

// Each record of the input is in the labelled flows once, in both formats.
func TestLabelledFlows(t *testing.T) {
	for name, input := range sources() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := input(t)
			tsv, jsonl := replayed(t, path, "--export-flows", "tsv"), replayed(t, path, "--export-flows", "jsonl")
			a, labels := tsv.flows(t)
			b, same := jsonl.flows(t)
			if fmt.Sprint(labels) != fmt.Sprint(same) {
				t.Errorf("labels are %v as TSV and %v as JSON", labels, same)
			}
			if len(a) != len(b) {
				t.Errorf("%d flows as TSV and %d as JSON", len(a), len(b))
			}
			var got lines
			for _, line := range a {
				f := strings.Fields(line)
				got = append(got, fmt.Sprintln(f[0], f[2], f[5]))
			}
			sameSet(t, "records", recordsIn(t, path), got)
			for host := range tsv.alerts.hosts() {
				if tsv.blames(host) && labels[host+" malicious"] == 0 {
					t.Errorf("no malicious flow of %s, which was alerted on: %v", host, labels)
				}
			}
			if name == "demo" && (labels["192.168.10.21 malicious"] > 0 || labels["192.168.10.66 benign"] == 0) {
				t.Errorf("labels: %v", labels)
			}
		})
	}
}

// The one window of only_one_tw closes at the end, when all alerts are known.
func TestLabelledFlowsInOneWindow(t *testing.T) {
	dir := t.TempDir()
	// A scan that is an alert only after several rounds of the engine.
	quiet := strings.NewReplacer("10.0.0.5", "10.0.0.7", "S0", "SF", `"S"`, `"ShADadFf"`).Replace(connLines(100, 4100))
	writeFile(t, filepath.Join(dir, "conn.log"), connLines(0, 8)+quiet+connLines(4100, 4140))
	labels := make(map[string]int)
	for _, width := range []string{"only_one_tw", "1000000000"} {
		_, all := replayed(t, dir, "--export-flows", "tsv", "--set", "parameters.time_window_width="+width).flows(t)
		labels[width] = all["10.0.0.5 malicious"]
	}
	if labels["only_one_tw"] != labels["1000000000"] || labels["only_one_tw"] < 10 {
		t.Errorf("malicious flows by width: %v", labels)
	}
}

// blames reports whether an alert on a host names flows. A notice about a host
// may name none.
func (o *outcome) blames(host string) bool {
	named := make(map[string]bool)
	for _, line := range o.evidence {
		v := object(line)
		uids, _ := v["uids"].([]any)
		named[text(v["id"])] = len(uids) > 0
	}
	for _, line := range o.alerts {
		v := object(line)
		ids, _ := v["evidence_ids"].([]any)
		if v["profile"] == host && slices.ContainsFunc(ids, func(id any) bool { return named[text(id)] }) {
			return true
		}
	}
	return false
}

// So it is when the follower was killed and stopped on the way.
func TestLabelledFlowsAfterKills(t *testing.T) {
	for name, input := range sources() {
		for end, v := range map[string]violence{"kill": {kills: 6}, "stop": {kills: 4, graceful: true}} {
			for _, format := range []string{"tsv", "jsonl"} {
				if testing.Short() && (name != "demo" || v.graceful) {
					continue
				}
				t.Run(strings.Join([]string{name, end, format}, "/"), func(t *testing.T) {
					t.Parallel()
					disturb(t, input(t), style{}, v, seedOf(name+end+format), "--export-flows", format)
				})
			}
		}
	}
}
