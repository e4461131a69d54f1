package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/slips-go/slips/internal/privilege"
)

// somebody is a user whom the system does not know.
const somebody = 60123

// rights is what the kernel says about the rights of a process, of which all
// threads must say the same. Sets of capabilities are without leading zeros.
func rights(t *testing.T, pid int) map[string]string {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	must(t, err)
	all := map[string]string{}
	for i, name := range files {
		status, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has ended
		}
		must(t, err)
		for line := range strings.Lines(string(status)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			switch key {
			case "Uid", "Gid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs":
				value = strings.Join(strings.Fields(value), ",")
				if strings.HasPrefix(key, "Cap") {
					value = strings.TrimLeft(value, "0")
				}
				if i > 0 && all[key] != value {
					t.Errorf("%s: threads have %q and %q", key, all[key], value)
				}
				all[key] = value
			}
		}
	}
	return all
}

// needRoot skips where no privileges are there to be given up.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: root that reads files and gives up its rights; root is needed")
	}
	if err := privilege.Supported(); err != nil {
		t.Skipf("NOT TESTED: root that reads files and gives up its rights: %v", err)
	}
}

// openFolder returns a folder that everybody may look into, of an owner.
func openFolder(t *testing.T, owner int) string {
	t.Helper()
	dir := t.TempDir()
	enterable(t, dir)
	must(t, os.Chown(dir, owner, owner))
	return dir
}

// enterable lets everybody into a folder of a test.
func enterable(t *testing.T, dir string) {
	t.Helper()
	for d := dir; d != filepath.Clean(os.TempDir()) && d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
}

// secret writes a file that its owner alone may read.
func secret(t *testing.T, path, text string, owner int) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
	must(t, os.Chown(path, owner, owner))
}

// ownedBy checks that all in a folder is of an owner.
func ownedBy(t *testing.T, dir string, owner uint32) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		must(t, err)
		st, err := d.Info()
		must(t, err)
		if sys, ok := st.Sys().(*syscall.Stat_t); !ok || sys.Uid != owner {
			t.Errorf("%s is of another owner than %d: %v", path, owner, sys)
		}
		return nil
	}))
}

// as runs the program as sudo of a user does; 0 is root that has logged in.
func as(t *testing.T, uid int, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "slips", args...)
	cmd.Env = append(os.Environ(), "SUDO_UID=", "SUDO_GID=")
	if uid != 0 {
		cmd.Env = append(os.Environ(), fmt.Sprintf("SUDO_UID=%d", uid), fmt.Sprintf("SUDO_GID=%d", uid))
	}
	return cmd
}

// Root that follows logs has given up all but the right to read them, and reads
// what root alone may, also what appears later and what is rotated.
func TestRootFollowsWithoutItsRights(t *testing.T) {
	needRoot(t)
	for _, uid := range []int{somebody, 0} {
		t.Run(fmt.Sprint(uid), func(t *testing.T) {
			dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out") // in folders that root alone may enter
			log := filepath.Join(dir, "conn.log")
			secret(t, log, connLines(0, 10), 0)
			cmd := as(t, uid, "--follow", dir, "-o", out, "-q", "--set", "follow.poll_interval=20ms", "--set", "profiler.checkpoint_interval=100ms")
			var text bytes.Buffer
			cmd.Stdout, cmd.Stderr = &text, &text
			must(t, cmd.Start())
			p := &process{cmd: cmd, done: make(chan struct{})}
			go func() {
				p.err = cmd.Wait()
				close(p.done)
			}()
			wait(t, "the first records", func() bool { return begun(out) })
			who := fmt.Sprintf("%d,%d,%d,%d", uid, uid, uid, uid)
			want := map[string]string{
				"Uid": who, "Gid": who, "CapInh": "", "CapPrm": "4", "CapEff": "4", "CapBnd": "", "CapAmb": "", "NoNewPrivs": "1",
			}
			if got := rights(t, cmd.Process.Pid); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("it has %v, want %v", got, want)
			}
			must(t, os.Rename(log, filepath.Join(dir, "conn.2023-11-14-22-13-20.log")))
			secret(t, log, connLines(10, 20), 0)
			secret(t, filepath.Join(dir, "dns.log"), `{"ts":1700000015.5,"uid":"D1","id.orig_h":"10.0.0.5","id.orig_p":5353,"id.resp_h":"10.0.0.1","id.resp_p":53,"proto":"udp","query":"example.org"}`+"\n", 0)
			wait(t, "what appears later to be read", func() bool {
				state := readFile(t, filepath.Join(out, filepath.FromSlash(stateFile)))
				return strings.Contains(state, "dns.log")
			})
			if code := p.end(t, syscall.SIGTERM); code != 0 {
				t.Fatalf("exit code %d: %s", code, text.String())
			}
			if got := results(t, out); got.summary.Kinds["conn"] != 20 || got.summary.Kinds["dns"] != 1 {
				t.Errorf("%v: %s", got.summary.Kinds, text.String())
			}
			ownedBy(t, out, uint32(uid))
		})
	}
}

// Root that reads files keeps no right that their permissions make needless.
func TestRootReadsWithoutItsRights(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name   string
		uid    int
		owner  int // of the capture
		engine string
		want   string // capabilities left
		bound  string
	}{
		{"the user's", somebody, somebody, "builtin", "none", ""},
		{"root's", somebody, 0, "builtin", "CAP_DAC_READ_SEARCH", ""},
		{"root's, by root", 0, 0, "builtin", "CAP_DAC_READ_SEARCH", ""},
		{"the user's, by root", 0, somebody, "builtin", "CAP_DAC_READ_SEARCH", ""},
		{"the user's, Zeek", somebody, somebody, "zeek", "none", "3000"},
		{"root's, Zeek", somebody, 0, "zeek", "CAP_DAC_READ_SEARCH", "3000"},
		{"the user's, by root, Zeek", 0, somebody, "zeek", "CAP_DAC_READ_SEARCH", "3000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := openFolder(t, c.uid)
			capture, out := filepath.Join(dir, "scan.pcap"), filepath.Join(dir, "out")
			secret(t, capture, string(scanCapture(t, 30)), c.owner)
			args := []string{"-f", capture, "-o", out, "-q", "--engine", c.engine}
			if c.engine == "zeek" { // which tells what rights it has itself
				zeek := filepath.Join(dir, "zeek")
				must(t, os.WriteFile(zeek, []byte("#!/bin/sh\ncat /proc/self/status > \"$PWD/status.txt\"\nexec "+realZeek(t)+" \"$@\"\n"), 0o755))
				args = append(args, "--set", "zeekscripts.zeek="+zeek)
			}
			cmd := as(t, c.uid, args...)
			cmd.Dir = dir
			if text, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			if got := results(t, out); got.summary.Kinds["conn"] != 30 {
				t.Errorf("%v", got.summary.Kinds)
			}
			left := fmt.Sprintf(`left="uid %d, gid %d, capabilities: %s, no new privileges"`, c.uid, c.uid, c.want)
			if log := readFile(t, filepath.Join(out, "slips.log")); !strings.Contains(log, left) {
				t.Errorf("slips.log does not say %s: %.500s", left, log)
			}
			ownedBy(t, out, uint32(c.uid))
			if c.engine != "zeek" {
				return
			}
			status, err := os.ReadFile(filepath.Join(out, zeekFiles, "scan.pcap", "status.txt"))
			must(t, err)
			for key, want := range map[string]string{"CapPrm": "", "CapEff": "", "CapAmb": "", "CapBnd": c.bound, "NoNewPrivs": "1"} {
				_, rest, _ := strings.Cut(string(status), key+":")
				value, _, _ := strings.Cut(rest, "\n")
				if got := strings.TrimLeft(strings.TrimSpace(value), "0"); got != want {
					t.Errorf("Zeek has %s %q, want %q", key, got, want)
				}
			}
		})
	}
}

// What an earlier run of root has left, and who root becomes may not write, is
// said.
func TestRootSaysWhyItCannotWrite(t *testing.T) {
	needRoot(t)
	dir := openFolder(t, 0)
	capture, out := filepath.Join(dir, "scan.pcap"), filepath.Join(dir, "out")
	writeFile(t, capture, string(scanCapture(t, 3)))
	for _, c := range []struct {
		name  string
		owner int // of what is in the folder, not of the folder
		uid   int
		args  []string
		code  int
		says  string
	}{
		{"root's results, for a user", 0, somebody, nil, exitOutput, "root has become the user 60123"},
		{"root's results, for root", 0, somebody, []string{"--user", "root"}, exitOK, ""},
		{"a user's results, for root", somebody, 0, []string{"--user", "root"}, exitOutput, "root has given up its capabilities"},
		{"a user's results, for that user", somebody, 0, []string{"--user", "60123:60123"}, exitOK, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			must(t, os.RemoveAll(out))
			analyseFiles(t, out, capture)
			must(t, filepath.WalkDir(out, func(path string, _ fs.DirEntry, err error) error {
				must(t, err)
				return os.Lchown(path, c.owner, c.owner)
			}))
			text, err := as(t, c.uid, append([]string{"-f", capture, "-o", out, "-q", "--overwrite", "--engine", "builtin"}, c.args...)...).CombinedOutput()
			code := 0
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				code = exit.ExitCode()
			} else {
				must(t, err)
			}
			if code != c.code || !strings.Contains(string(text), c.says) {
				t.Errorf("exit code %d, want %d and %q: %s", code, c.code, c.says, text)
			}
		})
	}
}
