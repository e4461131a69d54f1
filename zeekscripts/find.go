package zeekscripts

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The major versions of Zeek that the scripts are written for.
const (
	MinVersion = 6
	MaxVersion = 9
)

// askTimeout is how long "zeek --version" may take, which on an idle machine
// is a few milliseconds.
const askTimeout = 10 * time.Second

var (
	// ErrNotFound says that there is no Zeek on the machine.
	ErrNotFound = errors.New("zeek is not installed")
	// ErrPermission is in a StartError when Zeek may not capture packets.
	ErrPermission = errors.New("no permission to capture packets")
)

// VersionError says that a Zeek is there and is too old or too new.
type VersionError struct {
	Path    string
	Version string
}

// Error implements error.
func (e *VersionError) Error() string {
	return fmt.Sprintf("zeek at %q is version %s, and versions %d to %d are supported", e.Path, e.Version, MinVersion, MaxVersion)
}

// Zeek is an installed Zeek.
type Zeek struct {
	Path    string // absolute
	Version string // "8.0.10", "9.0.0-dev.12"
}

// usual are the folders that packages and builds of Zeek put it into.
var usual = [...]string{
	"/usr/local/zeek/bin", "/opt/zeek/bin", "/opt/zeek-lts/bin", "/opt/zeek-nightly/bin", "/usr/local/bin", "/usr/bin",
	"/opt/homebrew/bin", "/opt/local/bin", "/opt/security-onion/zeek/bin",
}

var versionText = regexp.MustCompile(`version ([0-9]{1,4})\.([0-9]{1,4})([0-9A-Za-z.+~-]*)`)

// Find looks for a Zeek of a supported version. A configured path, which is
// that of the program or of the folder it is installed in, is the only place
// looked at when it is not empty; else PATH and the usual folders are, in this
// order. For root, a program there that others may change is passed over: it
// would run with root's rights. The version is asked as the user that as says,
// or as the one we are if it is nil. The error is ErrNotFound, a *VersionError
// (of the first that was found) or says what went wrong when Zeek was asked for
// its version, or which program was passed over.
func Find(ctx context.Context, configured string, as *syscall.Credential) (Zeek, error) {
	s := search{path: filepath.SplitList(os.Getenv("PATH")), usual: usual[:], as: as}
	if os.Geteuid() == 0 {
		s.refuse = func(path string) string { return changeable(path, 0) }
	}
	return s.find(ctx, configured)
}

// search is where Find looks, and how.
type search struct {
	path, usual []string
	refuse      func(path string) string // why a program must not be run; nil: all may
	as          *syscall.Credential
}

func (s search) find(ctx context.Context, configured string) (Zeek, error) {
	if configured != "" {
		var errs []error
		for _, p := range []string{configured, filepath.Join(configured, "bin", "zeek"), filepath.Join(configured, "zeek")} {
			if runnable(p) == nil {
				return ask(ctx, p, s.as)
			}
		}
		errs = append(errs, runnable(configured))
		return Zeek{}, fmt.Errorf("the configured zeek %q cannot be run: %w", configured, errors.Join(errs...))
	}
	var first, refused error
	seen := make(map[string]bool)
	for _, dir := range slices.Concat(s.path, s.usual) {
		if dir == "" || !filepath.IsAbs(dir) {
			continue // the working folder is nobody's place for a program that runs as root
		}
		p := filepath.Join(dir, "zeek")
		if seen[p] || runnable(p) != nil {
			continue
		}
		seen[p] = true
		if s.refuse != nil {
			if why := s.refuse(p); why != "" {
				refused = cmp.Or(refused, fmt.Errorf("zeek at %q is not run by root, for %s; if it is to be trusted, name it as zeekscripts.zeek", p, why))
				continue
			}
		}
		z, err := ask(ctx, p, s.as)
		if err == nil {
			return z, nil
		}
		if first == nil {
			first = err
		}
	}
	switch {
	case first != nil && refused != nil:
		return Zeek{}, fmt.Errorf("%w; %w", first, refused)
	case first != nil || refused != nil:
		return Zeek{}, cmp.Or(first, refused)
	}
	return Zeek{}, fmt.Errorf("%w: looked in PATH and in %s", ErrNotFound, strings.Join(s.usual, ", "))
}

// runnable returns nil when path is a file that somebody may execute.
func runnable(path string) error {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: no such file", ErrNotFound)
	case err != nil:
		return err
	case st.IsDir():
		return fmt.Errorf("%w: there is no bin/zeek in this folder", ErrNotFound)
	case !st.Mode().IsRegular() || st.Mode()&0o111 == 0:
		return errors.New("it is not an executable file")
	}
	return nil
}

// maxLinks bounds a chain of symbolic links, as in the kernel.
const maxLinks = 40

// changeable returns why somebody else than root and the user us could put
// another program at path, which is absolute; empty if nobody can. It goes the
// way that the kernel goes, through every folder and symbolic link.
func changeable(path string, us uint32) string {
	at, todo := "/", strings.Split(path, "/")
	for links := 0; ; {
		st, err := os.Lstat(at)
		if err != nil {
			return err.Error()
		}
		sys, ok := st.Sys().(*syscall.Stat_t)
		switch {
		case !ok:
			return fmt.Sprintf("the owner of %q is not known", at)
		case sys.Uid != 0 && sys.Uid != us:
			return fmt.Sprintf("%q belongs to the user %d", at, sys.Uid)
		case st.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(at)
			if err != nil {
				return err.Error()
			}
			if links++; links > maxLinks {
				return fmt.Sprintf("%q leads through too many symbolic links", path)
			}
			if at = filepath.Dir(at); filepath.IsAbs(to) {
				at = "/"
			}
			todo = slices.Concat(strings.Split(to, "/"), todo)
		case st.Mode().Perm()&0o022 != 0 && !(st.IsDir() && st.Mode()&fs.ModeSticky != 0):
			return fmt.Sprintf("others may write to %q", at)
		}
		for len(todo) > 0 && (todo[0] == "" || todo[0] == ".") {
			todo = todo[1:]
		}
		if len(todo) == 0 {
			return ""
		}
		at, todo = filepath.Join(at, todo[0]), todo[1:] // with "..", of a path without links
	}
}

// ask asks the program at path for its version, as a user.
func ask(ctx context.Context, path string, as *syscall.Credential) (Zeek, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Zeek{}, fmt.Errorf("asking zeek for its version: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Stdout = &limited{b: &out, left: 4 << 10} // more than a version is nonsense
	cmd.Stderr = cmd.Stdout
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: as}
	cmd.Cancel = func() error { // with what it may have started
		killGroup(cmd.Process.Pid, syscall.SIGKILL)
		return nil
	}
	err = cmd.Run()
	if cmd.Process != nil {
		killGroup(cmd.Process.Pid, syscall.SIGKILL) // what it has left behind
	}
	m := versionText.FindStringSubmatch(out.String())
	switch {
	case ctx.Err() != nil:
		return Zeek{}, fmt.Errorf("asking %q for its version: no answer: %w", path, ctx.Err())
	case m == nil && err != nil:
		return Zeek{}, fmt.Errorf("asking %q for its version: %w: %q", path, err, clip(strings.TrimSpace(out.String()), 200))
	case m == nil:
		return Zeek{}, fmt.Errorf("asking %q for its version: it answers %q, which is not what zeek answers", path, clip(strings.TrimSpace(out.String()), 200))
	}
	z := Zeek{Path: path, Version: m[1] + "." + m[2] + m[3]}
	if major, err := strconv.Atoi(m[1]); err != nil || major < MinVersion || major > MaxVersion {
		return Zeek{}, &VersionError{Path: path, Version: z.Version}
	}
	return z, nil
}

// limited keeps the first bytes that are written to it and takes the rest.
type limited struct {
	b    *bytes.Buffer
	left int
}

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.b.Write(p[:n])
	l.left -= n
	return len(p), nil
}

// clip returns at most n bytes of s.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
