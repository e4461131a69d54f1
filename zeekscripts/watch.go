package zeekscripts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// scriptsDir is the folder of the unpacked scripts inside that of the logs.
	// It is ours and removed when Zeek has ended.
	scriptsDir = ".slips-scripts"
	// settings is the script with what Options say.
	settings = "settings.zeek"
	// pcapLink stands for a pcap whose own path Zeek would not understand. It is
	// relative to the folder of the logs, whose path may be no better.
	pcapLink = scriptsDir + "/pcap"
	// plugin is what Zeek takes for the end of the name of a kind of source.
	plugin = "::"
	// readyWord is what managed.zeek says when packets will be read.
	readyWord = "slips: zeek is ready"
	// stable is how long Zeek must have run for the backoff to begin anew.
	stable = 5 * time.Minute
)

// watch runs the Zeek of one source, again and again when it is live.
type watch struct {
	s      *Supervisor
	source string
	dir    string
	live   bool
	log    *slog.Logger
}

// run returns nil when ctx has ended or the pcap was read.
func (w *watch) run(ctx context.Context) error {
	if err := w.prepare(); err != nil {
		return fmt.Errorf("preparing zeek on %q: %w", w.source, err)
	}
	defer w.cleanUp()
	var janitor sync.WaitGroup
	defer janitor.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if w.live && w.s.o.Retention > 0 {
		janitor.Go(func() { w.expire(ctx) })
	}
	delay := w.s.o.backoff
	var gap *Gap
	for ctx.Err() == nil {
		if err := w.setAside(); err != nil {
			return fmt.Errorf("preparing zeek on %q: %w", w.source, err)
		}
		if gap != nil {
			gap.Starts++
		}
		p := &process{w: w, started: time.Now(), ready: make(chan struct{})}
		p.onReady = func() {
			if gap != nil {
				gap.To = time.Now()
				w.s.gap(*gap)
				gap = nil
			}
			w.s.ready(w.source)
		}
		began, err := p.run(ctx)
		switch {
		case ctx.Err() != nil:
		case err == nil && !w.live:
			return nil
		case !w.live, !began && gap == nil:
			return err
		case err == nil:
			err = fmt.Errorf("zeek on %q ended by itself", w.source)
			fallthrough
		default:
			if gap == nil {
				gap = &Gap{Interface: w.source, From: time.Now(), Err: err}
			}
			if time.Since(p.started) >= stable {
				delay = w.s.o.backoff
			}
			w.log.Error("zeek ended and is started again", "err", err, "in", delay)
			pause(ctx, delay)
			delay = min(2*delay, w.s.o.maxBackoff)
		}
	}
	if gap != nil {
		gap.To = time.Now()
		w.s.gap(*gap)
	}
	return nil
}

// pause waits for d or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// prepare makes the folder and unpacks the scripts into it.
func (w *watch) prepare() error {
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		return err
	}
	dir := filepath.Join(w.dir, scriptsDir)
	if err := os.RemoveAll(dir); err != nil { // of a run that was killed
		return err
	}
	if err := install(dir, append(Names(), managed)); err != nil {
		return err
	}
	if w.argument() == pcapLink {
		if err := os.Symlink(w.source, filepath.Join(w.dir, pcapLink)); err != nil {
			return err
		}
	}
	return replace(filepath.Join(dir, settings), []byte(w.settings()))
}

// argument is the source as Zeek, which runs in the folder of the logs, is
// told of it.
func (w *watch) argument() string {
	if !w.live && strings.Contains(w.source, plugin) {
		return pcapLink
	}
	return w.source
}

// users puts the path that the user knows into what Zeek says.
func (w *watch) users(s string) string {
	if arg := w.argument(); arg != w.source {
		return strings.ReplaceAll(s, arg, w.source)
	}
	return s
}

// settings is Options as a script: values need no quoting for a shell.
func (w *watch) settings() string {
	var b strings.Builder
	fmt.Fprintf(&b, "redef tcp_inactivity_timeout = %ssec;\n", seconds(w.s.o.TCPInactivity))
	if !w.live {
		return b.String()
	}
	if w.s.o.Rotation > 0 {
		fmt.Fprintf(&b, "redef Log::default_rotation_interval = %ssec;\n", seconds(w.s.o.Rotation))
	}
	if path := alivePath(os.Getpid()); path != "" {
		fmt.Fprintf(&b, "redef Slips::supervisor = %s;\n", quote(path))
	}
	return b.String()
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) }

// cleanUp removes what is not a log.
func (w *watch) cleanUp() {
	if err := os.RemoveAll(filepath.Join(w.dir, scriptsDir)); err != nil {
		w.log.Warn("the unpacked scripts of zeek cannot be removed", "err", err)
	}
	_ = os.Remove(filepath.Join(w.dir, ".state")) // Zeek's, if it is empty
}

// rotated is the name of a log that Zeek, or setAside, has moved out of the way.
var rotated = regexp.MustCompile(`^[0-9A-Za-z_]+\.[0-9]{4}(-[0-9]{2}){5}(-[0-9]+)?\.log$`)

// setAside renames what an earlier Zeek left as Zeek renames it on rotation:
// the next one would empty the files, and somebody may still read them.
func (w *watch) setAside() error {
	names, err := logsIn(w.dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if rotated.MatchString(n) {
			continue
		}
		stem := strings.TrimSuffix(n, ".log") + "." + time.Now().UTC().Format("2006-01-02-15-04-05")
		to := filepath.Join(w.dir, stem+".log")
		for i := 1; ; i++ {
			if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
				break
			}
			to = filepath.Join(w.dir, stem+"-"+strconv.Itoa(i)+".log")
		}
		if err := os.Rename(filepath.Join(w.dir, n), to); err != nil {
			return err
		}
	}
	return nil
}

// expire removes rotated logs when they are old enough, until ctx ends.
func (w *watch) expire(ctx context.Context) {
	every := min(max(w.s.o.Retention/4, w.s.o.poll), time.Hour)
	for ctx.Err() == nil {
		if n, err := Expire(w.dir, time.Now().Add(-w.s.o.Retention)); err != nil {
			w.log.Warn("rotated logs cannot be removed", "err", err)
		} else if n > 0 {
			w.log.Info("old rotated logs removed", "files", n)
		}
		pause(ctx, every)
	}
}

// Expire removes the rotated logs in dir that were last written before a time,
// and says how many. Logs that are being written are left, and everything
// whose name is not that of a rotated log.
func Expire(dir string, before time.Time) (int, error) {
	names, err := logsIn(dir)
	if err != nil {
		return 0, fmt.Errorf("removing old logs: %w", err)
	}
	n := 0
	var errs []error
	for _, name := range names {
		path := filepath.Join(dir, name)
		st, err := os.Lstat(path)
		if err != nil || !rotated.MatchString(name) || !st.ModTime().Before(before) {
			continue
		}
		if err := os.Remove(path); err != nil {
			errs = append(errs, fmt.Errorf("removing old logs: %w", err))
			continue
		}
		n++
	}
	return n, errors.Join(errs...)
}

// process is one Zeek.
type process struct {
	w       *watch
	started time.Time
	ready   chan struct{} // closed at readyWord
	onReady func()
	out     lines
	all     packets // as Zeek's last words say; to be read when it has ended
}

// args is Zeek's command line.
func (p *process) args() []string {
	o := &p.w.s.o
	args := []string{"-C"} // cards compute checksums after the capture
	if p.w.live {
		args = append(args, "-i", p.w.source)
	} else {
		args = append(args, "-D", "-r", p.w.argument()) // without chance, the same capture has the same uids
	}
	if f := p.w.s.filter(p.w.source); f != "" {
		args = append(args, "-f", f)
	}
	dir := filepath.Join(p.w.dir, scriptsDir)
	args = append(args, filepath.Join(dir, "__load__.zeek"), filepath.Join(dir, managed), filepath.Join(dir, settings))
	return append(args, o.Extra...)
}

// environment is ours without what would change the names of logs or load
// something else.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(s string) bool {
		name, _, _ := strings.Cut(s, "=")
		switch name {
		case "ZEEK_PREFIXES", "ZEEK_LOG_SUFFIX", "ZEEK_PROFILER_FILE", "ZEEK_SEED_FILE", "ZEEK_SEED_VALUES", "ZEEK_DEBUG_LOG_STDERR",
			"ZEEK_DEBUG_LOG_STREAMS", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC":
			return true
		}
		return false
	})
}

// run starts Zeek and returns when it has ended. began says whether it got so
// far as to read packets. A nil error stands for exit code 0.
func (p *process) run(ctx context.Context) (began bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	p.out.each = p.line
	cmd := exec.Command(p.w.s.o.Zeek.Path, p.args()...) //nolint:noctx // ended by signals to its group, see stop
	cmd.Dir, cmd.Env, cmd.SysProcAttr = p.w.dir, environment(), attributes()
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	cmd.WaitDelay = time.Second // for children of Zeek that hold its output open
	done := make(chan error, 1)
	up := make(chan error, 1)
	go func() {
		// The kernel kills Zeek when the thread that started it ends, and Go
		// ends idle threads as it likes: so this one is kept until Zeek is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		up <- err
		if err == nil {
			done <- cmd.Wait()
		}
	}()
	if err := <-up; err != nil {
		return false, &StartError{Source: p.w.source, Reason: "the program cannot be run", Err: err, Zeek: err.Error()}
	}
	group := cmd.Process.Pid
	p.w.log.Debug("zeek started", "pid", group, "args", cmd.Args)

	h := newHealth(p.w)
	defer func() { h.end(p.all) }()
	index := p.w.index()
	starting := time.NewTimer(p.w.s.o.StartTimeout)
	defer starting.Stop()
	tick := time.NewTicker(p.w.s.o.poll)
	defer tick.Stop()
	ready := p.ready
	var why error // why we stopped it
	for {
		select {
		case err = <-done:
			killGroup(group, syscall.SIGKILL) // what Zeek may have started
			p.out.flush()
			select {
			case <-p.ready:
				if !began {
					began = true
					p.onReady()
				}
			default:
			}
			return began, p.verdict(began, err, why)
		case <-ready:
			ready, began = nil, true
			starting.Stop()
			p.onReady()
		case <-starting.C:
			if !began {
				why = fmt.Errorf("nothing was heard of it for %s", p.w.s.o.StartTimeout)
				err = p.stop(group, done)
				return false, p.verdict(false, err, why)
			}
		case <-tick.C:
			h.poll()
			switch {
			case !began || !p.w.live:
			case h.silent():
				why = fmt.Errorf("zeek on %q hangs: its stats.log was last written %s ago", p.w.source, p.w.s.o.Silence)
			case p.w.index() != index:
				why = fmt.Errorf("the interface %q disappeared", p.w.source)
			}
			if why != nil {
				_ = p.stop(group, done)
				return began, why
			}
		case <-ctx.Done():
			err = p.stop(group, done)
			return began, errors.Join(ctx.Err(), err)
		}
	}
}

// index is the kernel's number of the interface; 0 when there is none. Zeek
// survives that its interface goes down, and does not notice that it is gone:
// one that comes back by the same name has another number.
func (w *watch) index() int {
	if i, err := net.InterfaceByName(w.source); err == nil {
		return i.Index
	}
	return 0
}

// stop ends the group: SIGTERM, some time to write out what is open, SIGKILL.
// It returns what Zeek ended with.
func (p *process) stop(group int, done <-chan error) error {
	defer p.out.flush()
	killGroup(group, syscall.SIGTERM)
	grace := time.NewTimer(p.w.s.o.Grace)
	defer grace.Stop()
	select {
	case err := <-done:
		killGroup(group, syscall.SIGKILL)
		return err
	case <-grace.C:
	}
	p.w.log.Warn("zeek does not end when it is told to and is killed", "after", p.w.s.o.Grace)
	killGroup(group, syscall.SIGKILL)
	return <-done
}

// killGroup signals a process group; that there is none any more is what is wanted.
func killGroup(group int, sig syscall.Signal) { _ = syscall.Kill(-group, sig) }

// line takes one line of Zeek's output.
func (p *process) line(s string) {
	if s == readyWord {
		select {
		case <-p.ready:
		default:
			close(p.ready)
		}
		return
	}
	if m := received.FindStringSubmatch(s); m != nil {
		taken, err := strconv.ParseInt(m[1], 10, 64)
		dropped, err2 := strconv.ParseInt(m[2], 10, 64)
		if err == nil && err2 == nil {
			p.all = packets{max(p.all.taken, taken), max(p.all.dropped, dropped)} // it may say it twice
		}
		return
	}
	p.w.log.Debug("zeek says", "line", p.w.users(s))
}

// received is what a live Zeek says last: "… 12 packets received on interface
// eth0, 3 (20.00%) dropped, 0 (0.00%) not processed".
var received = regexp.MustCompile(`\b([0-9]+) packets received on interface .*, ([0-9]+) \([^)]*\) dropped\b`)

// causes are Zeek's words for what an operator can do something about. The
// first that occurs counts.
var causes = [...]struct{ word, reason string }{
	{"permission", ""}, // replaced by noPermission
	{"not permitted", ""},
	{"no such device", "there is no such interface"},
	{"that device is not up", "the interface is down; bring it up with \"ip link set dev … up\""},
	{"bad pcap filter", "the BPF filter cannot be compiled"},
	{"unknown file format", "the file is no pcap or pcapng"},
	{"bad dump file format", "the file is no pcap or pcapng"},
	{"truncated dump file", "the file ends in the middle of a packet"},
	{"problem with trace file", "the file of packets cannot be read"},
	{"problem with interface", "the interface cannot be opened"},
	{"can't find", "a script of Zeek's own is missing: is the installation whole?"},
	{"already defined", "a script defines what another one has defined: see the scripts given beside ours"},
	{"error in", "a script cannot be compiled"},
	{"cannot open shared object", "a library that zeek needs is missing"},
}

const noPermission = "it may not capture packets: that takes the capability CAP_NET_RAW; run slips with sudo, or give it to zeek " +
	"with \"setcap cap_net_raw,cap_net_admin=eip <zeek>\""

// verdict is the error of a Zeek that has ended.
func (p *process) verdict(began bool, err, why error) error {
	if err == nil && why == nil {
		if began {
			return nil
		}
		why = errors.New("it ended without having begun to read packets")
	}
	last := p.w.users(p.out.last())
	if began {
		return fmt.Errorf("zeek on %q: %s: zeek says %q", p.w.source, endOf(err), last)
	}
	e := &StartError{Source: p.w.source, Zeek: last, Err: errors.Join(why, err)}
	switch {
	case why != nil:
		e.Reason = why.Error()
	default:
		e.Reason = endOf(err)
	}
	low := strings.ToLower(last)
	for _, c := range causes {
		if strings.Contains(low, c.word) {
			if e.Reason = c.reason; e.Reason == "" {
				e.Reason, e.Err = noPermission, errors.Join(ErrPermission, e.Err)
			}
			return e
		}
	}
	if p.w.live && why == nil && missingCapability() {
		e.Reason, e.Err = noPermission, errors.Join(ErrPermission, e.Err)
	}
	return e
}

// endOf says how a process ended.
func endOf(err error) string {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		if err == nil {
			return "it ended"
		}
		return err.Error()
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return "it was ended by the signal " + ws.Signal().String()
	}
	return fmt.Sprintf("it ended with exit code %d", exit.ExitCode())
}
