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

func decodeFile(t testing.TB, path string) tally {
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
	name, _ := LogName(path)
	d := New(name)
	c := tally{rejects: map[string]int{}}
	var f flow.Flow
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<22)
	for sc.Scan() {
		err := d.Decode(&f, sc.Bytes())
		switch {
		case err == nil:
			c.records++
		case errors.Is(err, flow.ErrHeader):
		case errors.Is(err, flow.ErrIgnored):
			c.ignored++
		default:
			c.rejects[flow.Reason(err)]++
			if c.first == nil {
				c.first = err
			}
		}
	}
	if err := sc.Err(); err != nil && !strings.Contains(path, "corrupt") {
		t.Fatal(err)
	}
	return c
}

func TestScan(t *testing.T) {
	dir := datasets(t)
	filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if e.IsDir() && (e.Name() == "argus" || e.Name() == "suricata" || e.Name() == "nfdump") || !strings.Contains(path, ".log") {
			return nil
		}
		if e.IsDir() {
			return nil
		}
		fh, _ := os.Open(path)
		head := make([]byte, 1<<16)
		n, _ := io.ReadFull(fh, head)
		fh.Close()
		name, ok := LogName(path)
		c := decodeFile(t, path)
		rel, _ := filepath.Rel(dir, path)
		if !strings.Contains(rel, "zeek-logs") || len(c.rejects) > 0 {
			t.Logf("%-60s %-12s %v sniff=%v %v %v", rel, name, ok, Sniff(head[:n]), c, c.first)
		}
		return nil
	})
}
