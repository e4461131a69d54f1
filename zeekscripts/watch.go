package zeekscripts

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// scriptsDir is the folder of the unpacked scripts inside that of the logs.
	// It is ours and removed when Zeek has ended.
	scriptsDir = ".slips-scripts"
	// settings is the script with what Options say.
	settings = "settings.zeek"
	// plugin is what Zeek takes for the end of the name of a kind of source.
	plugin = "::"
	// stdin is what Zeek calls its standard input. It gets a pcap there, which
	// so need not be one that it may open, nor have a name that it understands.
	stdin = "-"
	// ofStdin is how Zeek's messages call it.
	ofStdin = "trace file " + stdin
	// readyWord is what managed.zeek says when packets will be read.
	readyWord = "slips: zeek is ready"
	// aliveWord is what it says again and again when it captures live.
	aliveWord = "slips: zeek is alive"
	// maxWords bounds what an error quotes of Zeek, in bytes.
	maxWords = 500
	// stable is how long Zeek must have run for the backoff to begin anew.
	stable = 5 * time.Minute
)

// watch runs the Zeek of one source, again and again when it is live.
type watch struct {
	s      *Supervisor
	source string
	dir    string
	live   bool
	began  time.Time       // what is older was left by an earlier run
	read   map[string]bool // logs of it that were read when sweep looked last
	log    *slog.Logger
}

// run returns nil when ctx has ended or the pcap was read.
func (w *watch) run(ctx context.Context) error {
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
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
		if err := w.prepare(); err != nil {
			return fmt.Errorf("preparing zeek on %q: %w", w.source, err)
		}
		if gap != nil {
			gap.Starts++
		}
		p := &process{w: w, started: time.Now(), ready: make(chan struct{})}
		p.onReady = func() {
			w.removeScripts() // it has read them, and so nothing is left when we are killed
			if gap != nil {
				w.s.blind(w.source, time.Time{})
				gap.To = time.Now()
				w.s.gap(*gap)
				gap = nil
			}
			w.s.ready(w.source)
		}
		began, err := p.run(ctx)
		switch {
		case ctx.Err() != nil:
			if p.unheard { // until the end
				gap = &Gap{Interface: w.source, From: p.until, Err: fmt.Errorf("nothing was heard of zeek on %q any more", w.source)}
			}
		case err == nil && !w.live:
			return nil
		case !w.live, !began && gap == nil:
			return err
		case err == nil:
			err = fmt.Errorf("zeek on %q ended by itself", w.source)
			fallthrough
		default:
			if gap == nil {
				gap = &Gap{Interface: w.source, From: p.until, Err: err}
				w.s.blind(w.source, gap.From)
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

// prepare sets aside what an earlier Zeek has left and unpacks the scripts for
// the next one.
func (w *watch) prepare() error {
	if err := w.setAside(); err != nil {
		return err
	}
	dir := filepath.Join(w.dir, scriptsDir)
	if err := os.RemoveAll(dir); err != nil { // of a run that was killed
		return err
	}
	if err := install(dir, append(Names(), managed)); err != nil {
		return err
	}
	return replace(filepath.Join(dir, settings), []byte(w.settings()))
}

// users puts the path that the user knows into what Zeek says.
func (w *watch) users(s string) string {
	if !w.live {
		return strings.ReplaceAll(s, ofStdin, "trace file "+w.source)
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

// removeScripts removes the unpacked scripts.
func (w *watch) removeScripts() {
	if err := os.RemoveAll(filepath.Join(w.dir, scriptsDir)); err != nil {
		w.log.Warn("the unpacked scripts of zeek cannot be removed", "err", err)
	}
}

// cleanUp removes what is not a log.
func (w *watch) cleanUp() {
	w.removeScripts()
	_ = os.Remove(filepath.Join(w.dir, ".state")) // Zeek's, if it is empty
}

// rotated is the name of a log that Zeek, or setAside, has moved out of the way.
var rotated = regexp.MustCompile(`^[0-9A-Za-z_]+\.[0-9]{4}(-[0-9]{2}){5}(-[0-9]+)?\.log$`)

// setAside renames what an earlier Zeek left as Zeek renames it on rotation:
// the next one would empty the files, and somebody may still read them. They
// count as written now: their retention begins when they can be read on.
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
		if err := os.Chtimes(to, time.Time{}, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// expire removes rotated logs when they are old enough, until ctx ends.
func (w *watch) expire(ctx context.Context) {
	every := min(max(w.s.o.Retention/4, w.s.o.poll), time.Hour)
	for ctx.Err() == nil {
		if n, err := w.sweep(time.Now()); err != nil {
			w.log.Warn("rotated logs cannot be removed", "err", err)
		} else if n > 0 {
			w.log.Info("old rotated logs removed", "files", n)
		}
		pause(ctx, every)
	}
}

// sweep removes the rotated logs whose retention has ended, and says how many.
// The retention of what an earlier run has left begins with this one, which
// reads it on, unless it is known that it need not. Logs that are being written
// are left, and everything whose name is not that of a rotated log.
func (w *watch) sweep(now time.Time) (int, error) {
	names, err := logsIn(w.dir)
	if err != nil {
		return 0, fmt.Errorf("removing old logs: %w", err)
	}
	n := 0
	var errs []error
	before := w.read
	w.read = make(map[string]bool)
	for _, name := range names {
		path := filepath.Join(w.dir, name)
		st, err := os.Lstat(path)
		if err != nil || !rotated.MatchString(name) {
			continue
		}
		from := st.ModTime()
		if w.began.After(from) {
			w.read[name] = w.s.o.Read != nil && w.s.o.Read(path)
			if !w.read[name] || !before[name] { // how far it has read is saved by the next look
				from = w.began
			}
		}
		if now.Sub(from) < w.s.o.Retention {
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
	alive   chan struct{} // gets aliveWord
	out     lines
	all     packets // as Zeek's last words say; to be read when it has ended

	// For who called run:
	until   time.Time // when it is known to have worked last
	unheard bool      // nothing had been heard of it for long
}

// args is Zeek's command line.
func (p *process) args() []string {
	o := &p.w.s.o
	args := []string{"-C"} // cards compute checksums after the capture
	if p.w.live {
		args = append(args, "-i", p.w.source)
	} else {
		args = append(args, "-D", "-r", stdin) // without chance, the same capture has the same uids
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
	p.alive = make(chan struct{}, 1)
	p.out.each = p.line
	cmd := exec.Command(p.w.s.o.Zeek.Path, p.args()...) //nolint:noctx // ended by signals to its group, see stop
	cmd.Dir, cmd.Env, cmd.SysProcAttr = p.w.dir, environment(), attributes()
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	cmd.WaitDelay = time.Second // for children of Zeek that hold its output open
	var in *feed
	if !p.w.live {
		if in, err = p.w.packets(); err != nil {
			return false, fmt.Errorf("running zeek on a pcap: %w", err)
		}
		defer func() { _ = in.file.Close() }() // only read
		cmd.Stdin = in.file
	}
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
	defer func() {
		h.end(p.all)
		if p.until, p.unheard = time.Now(), h.unheard; h.unheard {
			p.until = h.alive
		}
	}()
	index := p.w.s.o.index(p.w.source)
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
			h.alive = time.Now()
			if i := p.w.s.o.index(p.w.source); i != 0 { // the one that it opened may have come since it was started
				index = i
			}
			starting.Stop()
			p.onReady()
		case <-starting.C:
			if !began {
				why = fmt.Errorf("nothing was heard of it for %s", p.w.s.o.StartTimeout)
				err = p.stop(group, done)
				return false, p.verdict(false, err, why)
			}
		case <-p.alive:
			h.heard()
		case <-tick.C:
			h.resume()
			select {
			case <-p.alive:
				h.heard()
			default:
			}
			h.poll()
			switch {
			case !began:
			case !p.w.live:
				if h.stalls(in) {
					why = fmt.Errorf("zeek on %q hangs: it has read no packet and written nothing for %s", p.w.source, p.w.s.o.Silence)
					p.w.log.Warn("zeek hangs and is ended", "reason", why)
				}
			case h.silent():
				why = fmt.Errorf("zeek on %q hangs: nothing was heard of it for %s", p.w.source, p.w.s.o.Silence)
			case p.w.s.o.index(p.w.source) != index:
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

// index is the kernel's number of an interface; 0 when there is none. Zeek
// survives that its interface goes down, and does not notice that it is gone:
// one that comes back by the same name has another number.
func index(name string) int {
	if i, err := net.InterfaceByName(name); err == nil {
		return i.Index
	}
	return 0
}

// packets opens what a Zeek that is not live reads. It gets a file itself, and
// needs no right to open it; what is made on the way comes through a pipe, which
// breaks when it is closed.
func (w *watch) packets() (*feed, error) {
	if w.s.o.Packets == nil {
		file, err := os.Open(w.source)
		return &feed{file: file}, err
	}
	from, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	f := &feed{file: from, from: w.s.o.Packets}
	go func() { // not by exec, which would wait for a Read that goes on when Zeek has ended
		_, _ = io.Copy(to, f) // an end of either is the end
		_ = to.Close()
	}()
	return f, nil
}

// feed is what a Zeek that is not live reads.
type feed struct {
	file *os.File  // Zeek's standard input
	from io.Reader // what goes into it, when it is a pipe

	n     atomic.Int64 // bytes read from from
	waits atomic.Bool  // for more of them
}

// Read implements io.Reader for the pipe.
func (f *feed) Read(b []byte) (int, error) {
	f.waits.Store(true)
	n, err := f.from.Read(b)
	f.waits.Store(false)
	f.n.Add(int64(n))
	return n, err
}

// at returns how far Zeek has come, and whether it is not for Zeek to go on.
func (f *feed) at() (n int64, waits bool) {
	if f.from != nil {
		return f.n.Load(), f.waits.Load()
	}
	n, err := f.file.Seek(0, io.SeekCurrent) // which Zeek moves: the descriptor is one with its
	return n, err != nil
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
	switch s {
	case aliveWord:
		select {
		case p.alive <- struct{}{}:
		default:
		}
		return
	case readyWord:
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
var causes = [...]struct {
	word, reason string
	input        bool // for StartError
}{
	{"permission", "", false}, // replaced by noPermission
	{"not permitted", "", false},
	{"no such device", "there is no such interface", true},
	{"that device is not up", "the interface is down; bring it up with \"ip link set dev … up\"", true},
	{"bad pcap filter", "the BPF filter cannot be compiled", true},
	{"unknown file format", "the file is no pcap or pcapng", true},
	{"bad dump file format", "the file is no pcap or pcapng", true},
	{"truncated dump file", "the file ends in the middle of a packet", true},
	{"problem with trace file", "the file of packets cannot be read", true},
	{"problem with interface", "the interface cannot be opened", true},
	{"can't find", "a script of Zeek's own is missing: is the installation whole?", false},
	{"already defined", "a script defines what another one has defined: see the scripts given beside ours", false},
	{"error in", "a script cannot be compiled", false},
	{"cannot open shared object", "a library that zeek needs is missing", false},
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
		// What it said last is no reason for a signal, unless it is an error.
		if _, killed := signalOf(err); last == "" || killed && !complains(last) {
			return fmt.Errorf("zeek on %q: %s", p.w.source, endOf(err))
		}
		return fmt.Errorf("zeek on %q: %s: zeek says %q", p.w.source, endOf(err), clip(last, maxWords))
	}
	last = clip(last, maxWords)
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
			e.Input = c.input
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
	if sig, ok := signalOf(err); ok {
		return "it was ended by the signal " + sig.String()
	}
	return fmt.Sprintf("it ended with exit code %d", exit.ExitCode())
}

// signalOf returns the signal that has ended a process, if one has.
func signalOf(err error) (syscall.Signal, bool) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0, false
	}
	ws, ok := exit.Sys().(syscall.WaitStatus)
	return ws.Signal(), ok && ws.Signaled()
}
