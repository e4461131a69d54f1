package packet

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// captures returns the folder of captures, or skips the test. How far the meter
// agrees with Zeek on them is tested in internal/agree.
func captures(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(cmp.Or(os.Getenv("SLIPS_DATASETS"), "../../../shared/datasets"), "pcap")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("NOT TESTED on real traffic: %v; SLIPS_DATASETS names the folder of the data sets", err)
	}
	return dir
}

// fileNames returns the captures of a folder.
func fileNames(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	for _, p := range []string{"*.pcap", "protocols/*.pcap", "protocols/*.pcapng", "protocols/*.cap"} {
		m, err := filepath.Glob(filepath.Join(dir, p))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m...)
	}
	return all
}

// base is the name of a capture without folder and ending.
func base(path string) string {
	return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
}
