package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// On a full disk the program says so and ends with its exit code; what is
// in the files are whole lines.
func TestDiskFull(t *testing.T) {
	for _, how := range []string{"-f", "--follow"} {
		t.Run(how, func(t *testing.T) {
			disk := t.TempDir()
			if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=160k"); err != nil {
				t.Skipf("NOT TESTED: cannot mount a small file system: %v", err)
			}
			defer func() { must(t, syscall.Unmount(disk, 0)) }()
			dir := t.TempDir()
			var b strings.Builder
			for host := range 250 {
				b.WriteString(strings.ReplaceAll(connLines(host*20, host*20+20), "10.0.0.5", fmt.Sprint("10.0.0.", host+1)))
			}
			writeFile(t, filepath.Join(dir, "conn.log"), b.String())
			out := filepath.Join(disk, "out")
			code, said := runProgram(t, how, dir, "-o", out)
			if code != exitOutput || !strings.Contains(said, "no space left on device") {
				t.Errorf("exit code %d, want %d: %s", code, exitOutput, said)
			}
			o := &outcome{dir: out}
			for _, name := range goldenFiles() {
				o.whole(t, name)
			}
			if len(o.unique(t, "evidence.jsonl", "id")) == 0 {
				t.Error("no evidence: the test shows nothing")
			}
		})
	}
}
