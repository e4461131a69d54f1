package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// detachedEnv tells a process that it was started by Detach; its value is
	// the path of the pid file.
	detachedEnv = "SLIPS_DETACHED"
	// readyFD is the descriptor by which the process says that it is ready:
	// the first after stdin, stdout and stderr.
	readyFD = 3
	// readyByte is what it says.
	readyByte = 'r'
	// maxOutput bounds what an error repeats of the last words of a process.
	maxOutput = 4 << 10
	// grace is how long a process that was asked to end may take before it is
	// killed, when it was given up before it was ready.
	grace = 5 * time.Second
	// pollEvery is how often Stop looks whether the process has ended.
	pollEvery = 20 * time.Millisecond
)

// ErrNotRunning says that no process holds the pid file.
var ErrNotRunning = errors.New("it is not running")

// RunningError says that a process holds the pid file already.
type RunningError struct {
	PID  int
	File string
}

// Error implements error.
func (e *RunningError) Error() string {
	return fmt.Sprintf("it is already running, with pid %d (pid file %q)", e.PID, e.File)
}

// StartError says that the detached process ended, or was given up, before it
// was ready.
type StartError struct {
	Code   int    // its exit code; -1 when a signal ended it
	State  string // "exit status 2", "signal: killed"
	Output string // its last words, which are in the log as well
	Log    string
	Err    error // why it was given up; nil when it ended by itself
}

// Error implements error. The last words of the process come first: they say
// what is wrong.
func (e *StartError) Error() string {
	s := "the detached process ended before it was ready (" + e.State + ")"
	if e.Err != nil {
		s = "the detached process was given up before it was ready: " + e.Err.Error()
	}
	if e.Output != "" {
		s = e.Output + "\n" + s
	}
	return s + fmt.Sprintf("; its output is in %q", e.Log)
}

// Unwrap returns why the process was given up.
func (e *StartError) Unwrap() error { return e.Err }

// Options say what Detach starts.
type Options struct {
	Program string   // empty: this program
	Args    []string // without the name of the program
	Env     []string // nil: the environment of this process
	PIDFile string
	Log     string // a file that stdout and stderr are appended to
	// Own, unless nil, gives a new log to the user that the process becomes.
	Own func(log *os.File) error
}

// Detach starts a program in a session of its own, away from the terminal, in
// the same working folder, and waits until the process says that it is ready
// (see Attach). It returns the pid then. A process that ended before gives a
// *StartError with what it said and its exit code; one that is not ready when
// ctx ends is ended. While another process holds the pid file the error is a
// *RunningError.
func Detach(ctx context.Context, o Options) (int, error) {
	file, err := filepath.Abs(o.PIDFile)
	if err != nil {
		return 0, fmt.Errorf("start detached: %w", err)
	}
	if pid, err := Running(file); err != nil {
		return 0, err
	} else if pid != 0 {
		return 0, &RunningError{PID: pid, File: file}
	}
	if o.Program == "" {
		if o.Program, err = os.Executable(); err != nil {
			return 0, fmt.Errorf("start detached: find this program: %w", err)
		}
	}
	if o.Env == nil {
		o.Env = os.Environ()
	}
	if err := os.MkdirAll(filepath.Dir(o.Log), 0o750); err != nil {
		return 0, fmt.Errorf("start detached: make the folder of its log: %w", err)
	}
	const mode = os.O_WRONLY | os.O_APPEND | syscall.O_NOFOLLOW
	log, err := os.OpenFile(o.Log, mode|os.O_CREATE|os.O_EXCL, 0o640)
	fresh := err == nil
	if errors.Is(err, fs.ErrExist) {
		log, err = os.OpenFile(o.Log, mode, 0)
	}
	if err != nil {
		return 0, fmt.Errorf("start detached: open its log: %w", err)
	}
	defer func() { _ = log.Close() }() // the process writes it, not we
	st, err := log.Stat()
	if err == nil && fresh && o.Own != nil {
		err = o.Own(log)
	}
	if err != nil {
		return 0, fmt.Errorf("start detached: open its log: %w", err)
	}
	from, to, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("start detached: %w", err)
	}
	defer func() { _ = from.Close() }() // only read

	cmd := exec.Command(o.Program, o.Args...) //nolint:noctx // it outlives ctx once it is ready
	cmd.Env = append(without(o.Env, detachedEnv), detachedEnv+"="+file)
	cmd.Stdout, cmd.Stderr = log, log // and stdin is the null device
	cmd.ExtraFiles = []*os.File{to}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = to.Close() // so that the pipe ends with the process
	if err != nil {
		return 0, fmt.Errorf("start detached: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = from.SetReadDeadline(time.Unix(1, 0)) }) // a pipe has deadlines
	var b [1]byte
	n, _ := from.Read(b[:]) // whatever the error: it did not say that it is ready
	stop()
	if n == 1 && b[0] == readyByte {
		pid := cmd.Process.Pid
		return pid, cmd.Process.Release()
	}
	return 0, failure(ctx, cmd, o.Log, st.Size(), file)
}

// failure waits for the end of a process that is not ready and says why.
func failure(ctx context.Context, cmd *exec.Cmd, log string, from int64, file string) error {
	given := ctx.Err()
	if given != nil {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		kill := time.AfterFunc(grace, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
	} else {
		stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
		defer stop()
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("wait for the detached process: %w", err)
	}
	if pid, err := Running(file); err == nil && pid != 0 {
		return &RunningError{PID: pid, File: file} // another one was quicker
	}
	return &StartError{
		Code: cmd.ProcessState.ExitCode(), State: cmd.ProcessState.String(), Output: tail(log, from), Log: log, Err: given,
	}
}

// tail returns the end of what was written to a log behind from.
func tail(path string, from int64) string {
	f, err := os.Open(path)
	if err != nil {
		return "" // the error says where to look
	}
	defer func() { _ = f.Close() }() // only read
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return ""
	}
	cut := st.Size()-from > maxOutput
	if cut {
		from = st.Size() - maxOutput
	}
	b, err := io.ReadAll(io.NewSectionReader(f, from, maxOutput))
	if err != nil {
		return ""
	}
	s := strings.ToValidUTF8(string(b), "?")
	if cut {
		_, s, _ = strings.Cut(s, "\n")
	}
	return strings.TrimSpace(s)
}

// without returns an environment without one variable.
func without(env []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(s string) bool { return strings.HasPrefix(s, name+"=") })
}

// Daemon is a process that Detach started, seen by itself.
type Daemon struct {
	file  *os.File // locked
	path  string
	ready *os.File
}

// Attach returns the Daemon that this process is, or nil when it was not
// started by Detach, and the environment without what is between the two. It
// takes the pid file, whose lock the process holds until it ends, and is to be
// called once, before anything else: while the process may still make files
// where the pid file is.
func Attach(env []string) (*Daemon, []string, error) {
	var path string
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, detachedEnv+"="); ok {
			path = v
		}
	}
	if path == "" {
		return nil, env, nil
	}
	env = without(env, detachedEnv)
	unix.CloseOnExec(readyFD)
	var st unix.Stat_t
	if err := unix.Fstat(readyFD, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil, env, fmt.Errorf("the environment has %s, but this process was not started detached", detachedEnv)
	}
	d := &Daemon{path: path, ready: os.NewFile(readyFD, "ready")}
	var err error
	if d.file, err = take(path); err != nil {
		return nil, env, errors.Join(err, d.ready.Close())
	}
	return d, env, nil
}

// Ready tells the process that started this one that all is well, and lets it
// go. Calls after the first do nothing.
func (d *Daemon) Ready() error {
	if d == nil || d.ready == nil {
		return nil
	}
	_, err := d.ready.Write([]byte{readyByte})
	if errors.Is(err, syscall.EPIPE) {
		err = nil // it was killed while it waited; we go on
	}
	err = errors.Join(err, d.ready.Close())
	d.ready = nil
	if err != nil {
		return fmt.Errorf("say that the detached process is ready: %w", err)
	}
	return nil
}

// Close takes the pid file away: the process is about to end. The lock stays
// until it has.
func (d *Daemon) Close() error {
	if d == nil {
		return nil
	}
	// A process that is no longer root may not be allowed to remove the file,
	// but can always empty it.
	if err := d.file.Truncate(0); err != nil {
		return fmt.Errorf("empty the pid file: %w", err)
	}
	if err := os.Remove(d.path); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) &&
		!errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("remove the pid file: %w", err)
	}
	return nil
}

// take makes the pid file, locks it and writes the pid into it.
//
// The lock is one of fcntl(2), not of flock(2): the kernel knows which process
// holds it and says so, so nobody depends on what stands in the file, which
// may be of a process that is long gone; and children do not inherit it.
func take(path string) (*os.File, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of the pid file: %w", err)
	}
	if err := Private(dir); err != nil {
		return nil, err
	}
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o644)
		if err != nil {
			return nil, fmt.Errorf("open the pid file: %w", err)
		}
		lock := whole()
		err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock)
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EAGAIN) {
			pid, err := holder(f)
			_ = f.Close() // nothing was written
			if err != nil {
				return nil, err
			}
			if pid == 0 {
				continue // it ended just now
			}
			return nil, &RunningError{PID: pid, File: path}
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock the pid file %q: %w", path, err), f.Close())
		}
		ours, err := f.Stat()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("look at the pid file: %w", err), f.Close())
		}
		there, err := os.Lstat(path)
		if err != nil || !os.SameFile(ours, there) {
			_ = f.Close() // who had it before removed it between our opening and locking it
			continue
		}
		if err := f.Truncate(0); err != nil {
			return nil, errors.Join(fmt.Errorf("write the pid file: %w", err), f.Close())
		}
		if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
			return nil, errors.Join(fmt.Errorf("write the pid file: %w", err), f.Close())
		}
		return f, nil
	}
}

// ErrNotPrivate says that somebody else may make files in a folder.
var ErrNotPrivate = errors.New("the folder can be written to by others")

// Private returns an error when others than root and this user may make files
// in a folder: with a link in place of what is to be made there they could have
// us write elsewhere, and take what is made for theirs.
func Private(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at a folder: %w", err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && (sys.Uid != 0 && int(sys.Uid) != os.Geteuid() || st.Mode().Perm()&0o022 != 0) {
		return fmt.Errorf("%w: %q (%s, uid %d)", ErrNotPrivate, dir, st.Mode(), sys.Uid)
	}
	return nil
}

// whole is a lock for writing of a whole file.
func whole() unix.Flock_t { return unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart} }

// holder returns the pid of the process that holds the lock; 0 for none.
func holder(f *os.File) (int, error) {
	lock := whole()
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, fmt.Errorf("ask who holds the pid file %q: %w", f.Name(), err)
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	if lock.Pid <= 0 { // in another container
		return 0, fmt.Errorf("the pid file %q is held by a process that cannot be seen from here", f.Name())
	}
	return int(lock.Pid), nil
}

// Running returns the pid of the process that holds the pid file; 0 when there
// is none. It must not be called by that process: closing the file releases
// the lock.
func Running(path string) (int, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("open the pid file: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	return holder(f)
}

// Stop asks the process that holds the pid file to end (SIGTERM), waits until
// it has, for timeout at most, and returns its pid. ErrNotRunning stands for
// none. Nothing but the holder of the lock is ever sent a signal.
func Stop(path string, timeout time.Duration) (int, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("stop: %w: there is no pid file %q", ErrNotRunning, path)
	}
	if err != nil {
		return 0, fmt.Errorf("stop: open the pid file: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	pid, err := holder(f)
	if err != nil {
		return 0, fmt.Errorf("stop: %w", err)
	}
	if pid == 0 {
		return 0, fmt.Errorf("stop: %w: nobody holds the pid file %q", ErrNotRunning, path)
	}
	// On Linux this holds on to the very process, so that the signal cannot
	// reach another that gets the same number; and it is the holder still.
	p, err := os.FindProcess(pid)
	if err != nil {
		return pid, fmt.Errorf("stop the process %d: %w", pid, err)
	}
	defer func() { _ = p.Release() }() // it is not our child
	if now, err := holder(f); err != nil || now != pid {
		return pid, err // it has ended meanwhile
	}
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return pid, fmt.Errorf("stop the process %d: %w", pid, err)
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	end := time.NewTimer(timeout)
	defer end.Stop()
	for {
		if now, err := holder(f); err != nil || now != pid {
			return pid, err
		}
		select {
		case <-tick.C:
		case <-end.C:
			return pid, fmt.Errorf("stop: the process %d has not ended within %s; it may still be writing results", pid, timeout)
		}
	}
}

// Places are where a detached process keeps what belongs to it.
type Places struct {
	PIDFile string
	Output  string // the folder of results
}

// DefaultPlaces returns the usual places for the user of this process: those
// of the system for root, else those of the XDG base directory specification.
func DefaultPlaces(env func(string) string) Places {
	return places(env, os.Geteuid(), os.TempDir(), runtime.GOOS)
}

func places(env func(string) string, uid int, temp, goos string) Places {
	if uid == 0 {
		run := "/run"
		if goos != "linux" {
			run = "/var/run"
		}
		return Places{PIDFile: run + "/slips/slips.pid", Output: "/var/log/slips"}
	}
	own := filepath.Join(temp, "slips-"+strconv.Itoa(uid))
	p := Places{PIDFile: filepath.Join(own, "slips.pid"), Output: filepath.Join(own, "output")}
	if dir := env("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		p.PIDFile = filepath.Join(dir, "slips", "slips.pid")
	}
	if dir := env("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		p.Output = filepath.Join(dir, "slips")
	} else if home := env("HOME"); filepath.IsAbs(home) {
		p.Output = filepath.Join(home, ".local", "state", "slips")
	}
	return p
}
