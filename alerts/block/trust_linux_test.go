package block

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

const stranger = 65534 // "nobody"

// as runs f as another user, in a thread that ends with it.
func as(t *testing.T, uid int, f func() error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: it takes root to be somebody else too")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock, so that nobody else gets the thread
		if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); e != 0 {
			done <- e
			return
		}
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// forger answers every question with a lie, and tells what it was sent.
func forger(t *testing.T, l net.Listener) (heard chan string) {
	t.Helper()
	heard = make(chan string, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, `{"blocks":[{"prefix":"192.0.2.1"}]}`)
			_ = c.(*net.UnixConn).CloseWrite()
			b, _ := io.ReadAll(c)
			_ = c.Close()
			heard <- string(b)
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return heard
}

// listenAs has a user listen at path.
func listenAs(t *testing.T, uid int, path string) chan string {
	t.Helper()
	var l net.Listener
	as(t, uid, func() (err error) {
		l, err = net.Listen("unix", path)
		if err == nil {
			l.(*net.UnixListener).SetUnlinkOnClose(false)
		}
		return err
	})
	return forger(t, l)
}

// TestStranger asks sockets that somebody else has put where ours may be. It
// tells them nothing, and believes them nothing.
func TestStranger(t *testing.T) {
	dir := t.TempDir()
	check(t, os.Chmod(filepath.Dir(dir), 0o755)) // the package testing keeps it to us
	in := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
	shared := in("shared") // as /tmp is
	check(t, os.Mkdir(shared, 0o755), os.Chmod(shared, 0o777|os.ModeSticky))
	as(t, stranger, func() error {
		return errors.Join(os.Mkdir(filepath.Join(shared, "his"), 0o755), os.Symlink(in("ours"), filepath.Join(shared, "hislink")))
	})
	for _, name := range []string{"ours", "open", "shared/ours"} {
		check(t, os.Mkdir(in(name), 0o755))
	}
	check(t, os.Chmod(in("open"), 0o777), os.Symlink(in("ours"), in("link")))

	his := listenAs(t, stranger, in("shared", "his", "s"))
	mine := listenAs(t, 0, in("ours", "s"))
	open := listenAs(t, 0, in("open", "s"))
	tmp := listenAs(t, 0, in("shared", "ours", "s"))
	// His socket in our folder, and ours in his.
	moved := listenAs(t, stranger, in("shared", "his", "t"))
	check(t, os.Rename(in("shared", "his", "t"), in("ours", "t")))
	given := listenAs(t, 0, in("ours", "u"))
	check(t, os.Rename(in("ours", "u"), in("shared", "his", "u")))

	for _, c := range []struct {
		path  string
		heard chan string
		want  string // in the error; empty: it is asked
	}{
		{in("ours", "s"), mine, ""},
		{in("link", "s"), mine, ""},
		{in("shared", "ours", "s"), tmp, ""},
		{in("shared", "his", "s"), his, "in a folder of nobody (uid 65534), who is neither root nor you"},
		{in("shared", "his", "u"), given, "in a folder of nobody (uid 65534)"},
		{in("shared", "hislink", "s"), mine, "in a folder of nobody (uid 65534)"},
		{in("ours", "t"), moved, "listens nobody (uid 65534), who is neither root nor you"},
		{in("open", "s"), open, "others may write to"},
	} {
		r, err := Ask(t.Context(), c.path, Command{Do: DoList})
		heard := <-c.heard
		if c.want == "" {
			if err != nil || len(r.Blocks) != 1 || heard == "" {
				t.Errorf("%s: %+v, %v; it heard %q", c.path, r, err, heard)
			}
			continue
		}
		if !errors.Is(err, ErrStranger) || !strings.Contains(err.Error(), c.want) || len(r.Blocks) != 0 || heard != "" {
			t.Errorf("%s: %+v, %v, want %q; it heard %q", c.path, r, err, c.want, heard)
		}
	}
}

// TestServiceUser asks a program that runs as a user of its own, in the folder
// that root has made for it, as systemd does.
func TestServiceUser(t *testing.T) {
	if os.Geteuid() != 0 || !rootsAlone("/run") {
		t.Skip("SKIPPED: it takes root, and a /run that is root's alone")
	}
	dir, err := os.MkdirTemp("/run", "slips-test-") //nolint:usetesting // others may write above t.TempDir
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	check(t, os.Chmod(dir, 0o750), os.Chown(dir, stranger, -1))
	path := filepath.Join(dir, "s")
	heard := listenAs(t, stranger, path)
	if r, err := Ask(t.Context(), path, Command{Do: DoList}); err != nil || len(r.Blocks) != 1 || <-heard == "" {
		t.Errorf("%+v, %v", r, err)
	}
	check(t, os.Chmod(dir, 0o770))
	if _, err := Ask(t.Context(), path, Command{Do: DoList}); !errors.Is(err, ErrStranger) {
		t.Errorf("a group may write to the folder: %v", err)
	}
}
