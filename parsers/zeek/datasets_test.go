package zeek

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/slips-go/slips/parsers/flow"
)

// datasets returns the folder of real traffic, or skips the test.
func datasets(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("SLIPS_DATASETS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "datasets")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("SKIPPED: no real traffic to decode: %v (set SLIPS_DATASETS)", err)
	}
	return dir
}

// tally is what became of the lines of one file.
type tally struct {
	records, ignored int
	rejects          map[string]int
	first            error
}

func (c tally) String() string {
	var r []string
	for k, n := range c.rejects {
		r = append(r, fmt.Sprintf("%s %d", k, n))
	}
	sort.Strings(r)
	return fmt.Sprintf("%d records, %d ignored, rejected: %s", c.records, c.ignored, strings.Join(r, ", "))
}

// eachLine calls do for the lines of a file; what a broken gzip stream holds
// up to where it breaks.
func eachLine(t testing.TB, path string, do func(line []byte)) {
	t.Helper()
	fh, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer fh.Close()
	var r io.Reader = fh
	if strings.HasSuffix(path, ".gz") {
		if r, err = gzip.NewReader(fh); err != nil {
			t.Fatal(err)
		}
	}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<22)
	for sc.Scan() {
		do(sc.Bytes())
	}
	if err := sc.Err(); err != nil && !strings.Contains(path, "corrupt") {
		t.Fatal(err)
	}
}

// wantFiles says what a file must give where something is odd about it or
// others rely on it. A file that is not named here must give no reject.
var wantFiles = map[string]string{
	"zeek/isc-2021-10/conn.log":         "3230 records, 0 ignored, rejected: ",
	"zeek/isc-2021-10/kerberos.log":     "101 records, 0 ignored, rejected: ",
	"zeek/isc-2021-10/dpd.log":          "0 records, 28 ignored, rejected: ",
	"zeek/isc-2021-10/email_alerts.log": "0 records, 0 ignored, rejected: cannot tell which log the record belongs to 3",
	"zeek/portscan/conn.log":            "4504 records, 0 ignored, rejected: ",
	"zeek/njrat/conn.log":               "992 records, 0 ignored, rejected: ",
	"zeek/njrat/labeled-conn.log":       "992 records, 0 ignored, rejected: ",
	"zeek/test9-mixed/conn.log":         "576 records, 0 ignored, rejected: ",
	"zeek/test9-mixed/files.log":        "936 records, 0 ignored, rejected: ",
	"zeek/test10-mixed/conn.log":        "141 records, 0 ignored, rejected: ",
	"zeek/test10-mixed/weird.log":       "2 records, 0 ignored, rejected: ",
	// One row was edited by hand and lost three tabs to single blanks.
	"zeek/test10-mixed/notice.log":                               "12 records, 0 ignored, rejected: wrong number of columns 1",
	"zeek/test13-malicious-dhcpscan/dhcp.log":                    "10 records, 0 ignored, rejected: ",
	"zeek/mixed-008/data/conn.log.labeled":                       "5663 records, 0 ignored, rejected: ",
	"zeek/mixed-012/data/notice.log.labeled":                     "284 records, 0 ignored, rejected: ",
	"benign/ubuntu-2023-02-25/conn.log.labeled":                  "3445 records, 0 ignored, rejected: ",
	"benign/win7ad-2023-02-26/conn.log.labeled":                  "2363 records, 0 ignored, rejected: ",
	"scale/maccdc-06/conn.log.gz":                                "154727 records, 0 ignored, rejected: ",
	"scale/maccdc-06/http.log.gz":                                "61062 records, 0 ignored, rejected: ",
	"parsers/has_unknown_field/http.log":                         "4 records, 0 ignored, rejected: wrong number of columns 1",
	"parsers/text_file/conn.log":                                 "0 records, 0 ignored, rejected: not a record of this format 5",
	"parsers/truncated/conn.log":                                 "58 records, 0 ignored, rejected: wrong number of columns 1",
	"parsers/truncated/conn_json.log":                            "2 records, 0 ignored, rejected: invalid JSON 1, invalid port 1",
	"parsers/truncated/conn_top.log":                             "0 records, 0 ignored, rejected: no #fields line before the first record 59",
	"parsers/zat/http.log.corrupt.gz":                            "150 records, 0 ignored, rejected: ",
	"parsers/zat/conn_date_issue.log":                            "3 records, 0 ignored, rejected: ",
	"parsers/open_sni/open_conn.17_32_32-18_00_00.log.gz":        "12 records, 0 ignored, rejected: ",
	"parsers/proxy_rolling/conn.16:00:00-17:00:00.log.gz":        "7260 records, 0 ignored, rejected: ",
	"parsers/proxy_rolling/stats.16:00:00-17:00:00.log.gz":       "0 records, 36 ignored, rejected: ",
	"parsers/proxy_rolling/known_certs.16:02:19-17:00:00.log.gz": "112 records, 0 ignored, rejected: ",
}

// TestDatasets decodes every Zeek log of the real traffic. JSON lines are
// decoded both ways, and must give the same.
func TestDatasets(t *testing.T) {
	dir := datasets(t)
	seen := map[string]bool{}
	total := map[flow.Kind]int{}
	for _, top := range []string{"zeek", "benign", "parsers", "scale", filepath.Join("pcap", "zeek-logs")} {
		if top == "scale" && testing.Short() {
			continue
		}
		err := filepath.WalkDir(filepath.Join(dir, top), func(path string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() || !hasComponent(e.Name(), "log") {
				return err
			}
			rel, _ := filepath.Rel(dir, path)
			rel = filepath.ToSlash(rel)
			seen[rel] = true
			name, _ := LogName(path)
			d, other := New(name), New(name)
			c := tally{rejects: map[string]int{}}
			var f, g flow.Flow
			eachLine(t, path, func(line []byte) {
				err := d.Decode(&f, line)
				switch {
				case err == nil:
					c.records++
					total[f.Kind]++
					bounded(t, &f)
				case errors.Is(err, flow.ErrHeader):
				case errors.Is(err, flow.ErrIgnored):
					c.ignored++
				default:
					proper(t, err)
					c.rejects[flow.Reason(err)]++
					if c.first == nil {
						c.first = err
					}
				}
				if len(line) > 0 && line[0] == '{' && c.records < 500 { // enough of each, for the careful way is slow
					same(t, string(line), &f, err, &g, other.careful(&g, string(line)))
				}
			})
			if want, ok := wantFiles[rel]; ok && c.String() != want {
				t.Errorf("%s: %v, want %s\n%v", rel, c, want, c.first)
			} else if !ok && len(c.rejects) > 0 {
				t.Errorf("%s: %v\n%v", rel, c, c.first)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	for rel := range wantFiles {
		if !seen[rel] && !(testing.Short() && strings.HasPrefix(rel, "scale/")) {
			t.Errorf("%s is not there", rel)
		}
	}
	t.Log("records by kind:", total)
}

// What others rely on, in real records.
func TestDatasetFields(t *testing.T) {
	dir := datasets(t)
	count := func(rel string, match func(*flow.Flow) bool) int {
		n := 0
		name, _ := LogName(rel)
		d := New(name)
		var f flow.Flow
		eachLine(t, filepath.Join(dir, rel), func(line []byte) {
			if d.Decode(&f, line) == nil && match(&f) {
				n++
			}
		})
		return n
	}
	for _, c := range []struct {
		what, file string
		want       int
		match      func(*flow.Flow) bool
	}{
		{"flows to the njRAT server", "zeek/njrat/conn.log", 237, func(f *flow.Flow) bool {
			return f.Src == ip("192.168.1.115") && f.Dst == ip("41.108.179.197") && f.DstPort == 1177
		}},
		{"flows labelled malicious", "zeek/njrat/labeled-conn.log", 244, func(f *flow.Flow) bool { return f.Label == "Malicious" }},
		{"NXDOMAIN of Simda", "zeek/simda-dga/dns.log", 129, func(f *flow.Flow) bool {
			return f.DNS.RCode == "NXDOMAIN" && f.DNS.Response
		}},
		{"JA3S of a Tor client", "zeek/test9-mixed/ssl.log", 1, func(f *flow.Flow) bool {
			return f.Dst == ip("123.33.22.11") && f.SSL.JA3S != ""
		}},
		{"hardware addresses", "benign/win7ad-2023-02-26/conn.log.labeled", 2363, func(f *flow.Flow) bool {
			return len(f.SrcMAC) == 17 && len(f.DstMAC) == 17
		}},
		{"connections that go on", "parsers/json_with_all_fields/open_conn.log", 59, func(f *flow.Flow) bool { return f.Open }},
		{"TXT answers", "zeek/test10-mixed/dns.log", 13, func(f *flow.Flow) bool {
			return len(f.DNS.Answers) > 0 && strings.HasPrefix(f.DNS.Answers[0], "TXT ")
		}},
		{"names that are not ASCII, unescaped", "zeek/test10-mixed/dns.log", 8, func(f *flow.Flow) bool {
			return strings.HasPrefix(f.DNS.Query, "as’s imac.")
		}},
		{"bad SMTP logins", "zeek/test14-malicious/smtp.log", 4, func(f *flow.Flow) bool {
			return f.Dst == ip("80.75.42.226") && strings.Contains(f.SMTP.LastReply, "bad smtp-auth user")
		}},
	} {
		if got := count(c.file, c.match); got != c.want {
			t.Errorf("%s in %s: %d, want %d", c.what, c.file, got, c.want)
		}
	}
}
