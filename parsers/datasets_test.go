package parsers

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/parsers/flow"
)

// datasets returns the folder of real traffic, which is not part of the
// repository.
func datasets(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("SLIPS_DATASETS")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "datasets")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("SKIPPED: no real traffic at %s; set SLIPS_DATASETS to check against it", dir)
	}
	return dir
}

// readAll reads paths with the real decoders.
func readAll(t *testing.T, paths ...string) *run {
	t.Helper()
	r := start(t, Options{Paths: paths}, formats())
	r.finish()
	return r
}

func TestDatasets(t *testing.T) {
	dir := datasets(t)
	for path, want := range map[string]map[string]int{
		"parsers/proxy_rolling": {
			"proxy_rolling/conn": 7550, "proxy_rolling/dns": 3209, "proxy_rolling/http": 2368, "proxy_rolling/known_certs": 112,
			"proxy_rolling/ssl": 2736, "proxy_rolling/x509": 114, "proxy_rolling/capture_loss": 0, "proxy_rolling/stats": 0,
		},
		"zeek/portscan":                  {"portscan/conn": 4504},
		"zeek/njrat":                     {"njrat/conn": 992}, // and not the unlabelled copy
		"zeek/mixed-008":                 nil,                 // its logs are one level down
		"benign/ubuntu-2023-02-25":       {"ubuntu-2023-02-25/conn": 3445},
		"suricata/eve-scanned-home.json": {"eve-scanned-home.json": 5000},
		"argus/labelled-tabs.binetflow":  {"labelled-tabs.binetflow": 6723},
		"nfdump/nfcapd.sample1":          {"nfcapd.sample1": 35}, // text, whatever its name says
	} {
		t.Run(path, func(t *testing.T) {
			r := readAll(t, filepath.Join(dir, path))
			if len(r.set.Problems)+len(r.set.Failed()) > 0 {
				t.Errorf("problems %v, %v", r.set.Problems, r.set.Failed())
			}
			got := make(map[string]int)
			for name, g := range r.by {
				got[name] = len(g.records)
				if len(g.rejects) > 0 && path != "zeek/mixed-008" {
					t.Errorf("%s: rejects %v", name, g.rejects)
				}
			}
			if want == nil {
				if got["mixed-008/data/conn"] == 0 || len(got) != 7 {
					t.Errorf("sources %v", got)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDatasetCorruptGzip(t *testing.T) {
	dir := datasets(t)
	r := readAll(t, filepath.Join(dir, "parsers/zat/http.log.corrupt.gz"))
	g := r.by["http.log.corrupt.gz"]
	if g == nil || len(g.records) < 100 || g.rejects[flow.ErrTruncated.Error()] != 1 || len(r.set.Failed()) != 1 {
		t.Fatalf("%s failed %v", r.summary(), r.set.Failed())
	}
	if !strings.Contains(r.log.String(), "the rest of the file cannot be read") {
		t.Error("not logged")
	}
}

func TestDatasetOpenSNI(t *testing.T) {
	dir := datasets(t)
	r := readAll(t, filepath.Join(dir, "parsers/open_sni"))
	got := make(map[string]int)
	for name, g := range r.by {
		got[name] = len(g.records)
	}
	want := map[string]int{"open_sni/open_conn": 24, "open_sni/open_http": 2, "open_sni/open_ssl": 4}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// What is named like a log but is none, and captures, are refused with the
// reason, and what is beside them is still read.
func TestDatasetProblems(t *testing.T) {
	dir := datasets(t)
	for path, want := range map[string]error{
		"parsers/text_file":             ErrNoLogs,
		"parsers/text_file/conn.log":    ErrUnrecognised,
		"pcap":                          ErrPackets,
		"pcap/test7-malicious.pcap":     ErrPackets,
		"nfdump/test1-malicious.nfdump": ErrBinaryNfdump,
		"nothing/here":                  fs.ErrNotExist,
	} {
		r := readAll(t, filepath.Join(dir, path), filepath.Join(dir, "zeek/horizontal-scan"))
		wantProblem(t, r.set.Problems, filepath.Base(path), want)
		if len(r.by["horizontal-scan/conn"].records) != 41 {
			t.Errorf("%s: what is beside it gave %s", path, r.summary())
		}
	}
}

// Every folder of logs is recognised, and every log that carries records
// gives some.
func TestDatasetFolders(t *testing.T) {
	dir := datasets(t)
	var folders []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && !strings.Contains(path, "/pcap") && filepath.Base(path) != "text_file" {
			names, _ := os.ReadDir(path)
			if slices.ContainsFunc(names, func(e os.DirEntry) bool {
				return e.Type().IsRegular() && !strings.HasSuffix(e.Name(), ".md") && e.Name() != "ground_truth.json"
			}) {
				folders = append(folders, path)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range append(folders, filepath.Join(dir, "pcap/zeek-logs")) {
		r := readAll(t, folder)
		n := 0
		for _, g := range r.by {
			n += len(g.records)
		}
		problems := r.set.Problems
		if filepath.Base(folder) == "truncated" { // has a log whose header was cut off
			wantProblem(t, problems, "conn_top.log", flow.ErrNoHeader)
			problems = problems[1:]
		}
		if n == 0 || len(problems) > 0 {
			t.Errorf("%s: %d records, problems %v", folder, n, r.set.Problems)
		}
		if read, total := r.set.Progress(); read != total {
			t.Errorf("%s: read %d of %d bytes", folder, read, total)
		}
		t.Logf("%s: %d sources, %d records, %d files passed over", folder, len(r.by), n, r.set.Skipped())
	}
}
