package modtest

import (
	"os"
	"path/filepath"
	"testing"
)

// Datasets returns the paths of files of real traffic, which are no part of
// the repository: below $SLIPS_DATASETS, or beside the repository. It skips
// the test, and says so, when one of them is not there.
func Datasets(t *testing.T, names ...string) []string {
	t.Helper()
	dir := os.Getenv("SLIPS_DATASETS")
	if dir == "" {
		dir = "../../../shared/datasets" // of the folder of a module
	}
	var paths []string
	for _, n := range names {
		p := filepath.Join(dir, filepath.FromSlash(n))
		if _, err := os.Stat(p); err != nil {
			t.Skipf("SKIPPED, no real traffic to test on: %v (set SLIPS_DATASETS)", err)
		}
		paths = append(paths, p)
	}
	return paths
}
