//go:build unix

package export

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestDiskFullInTheMiddle: a write that gets half through leaves whole lines.
func TestDiskFullInTheMiddle(t *testing.T) {
	var old syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old))
	path := filepath.Join(t.TempDir(), "f")
	o, err := openFile(path, wholeLine)
	must(t, err)
	for range 10 {
		must(t, o.line([]byte("123456789\n")))
	}
	// A limit on the file size makes the kernel write a part, as a disk does
	// that fills up. Go ignores SIGXFSZ.
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 55, Max: old.Max}))
	err = o.flush()
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old))
	if !errors.Is(err, syscall.EFBIG) {
		t.Fatalf("error is %v", err)
	}
	if got := read(t, path); got != strings.Repeat("123456789\n", 5) || o.size != 50 || o.lost != 5 {
		t.Errorf("file is %q, size %d, lost %d", got, o.size, o.lost)
	}
}
