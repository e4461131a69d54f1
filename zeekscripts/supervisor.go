package zeekscripts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Defaults of Options.
const (
	DefaultTCPInactivity = time.Hour        // what a silent connection of TCP is kept for
	DefaultStartTimeout  = time.Minute      // compiling the scripts takes a second or two
	DefaultGrace         = 10 * time.Second // to write out what is open
	DefaultSilence       = time.Minute      // a live Zeek says every 5 s that it lives
	DefaultStall         = 5 * time.Minute  // a packet of a pcap takes microseconds
	quietFor             = 20 * time.Second // after which somebody is told that nothing is heard
)

// Options say what to run and who wants to hear of it. Interfaces or Pcap is
// needed, and Zeek and Dir; the rest may be zero. The callbacks are called by
// goroutines that Run waits for, one at a time, and must not block.
type Options struct {
	Zeek Zeek

	// Interfaces are captured on live, each by a Zeek of its own. A name with
	// "::", as "af_packet::eth0", is left to Zeek to understand.
	Interfaces []string
	// Pcap is a file of packets, pcap or pcapng, read once to its end.
	Pcap string
	// Packets, which may be nil, is what is read in place of that file, in its
	// format; Pcap is then but what messages call it. Run may leave a Read of it
	// behind until that returns, if Zeek ends before the packets do.
	Packets io.Reader

	// Dir is the folder of the logs, used by nobody else. It is made when it is
	// not there. With several interfaces each has a folder in it: see Dirs.
	Dir string

	// Filter is a BPF filter for all, Filters one more for single interfaces.
	Filter  string
	Filters map[string]string

	TCPInactivity time.Duration // 0: DefaultTCPInactivity
	Rotation      time.Duration // 0: never; for interfaces only
	Retention     time.Duration // what rotated logs are kept for; 0: for ever
	Extra         []string      // further scripts or definitions for the command line

	StartTimeout time.Duration // how long Zeek may take to begin; 0: DefaultStartTimeout
	Grace        time.Duration // between SIGTERM and SIGKILL; 0: DefaultGrace

	// Silence is how long nothing is heard of a Zeek that is taken to hang, or for
	// how long it has come no further in a pcap; 0: DefaultSilence or DefaultStall.
	Silence time.Duration

	// Read, which may be nil, says of a rotated log that all of it has been read.
	// What an earlier run has left is else kept for another Retention. It may be
	// called at any time, also by several goroutines.
	Read func(path string) bool

	Log *slog.Logger // nil: nothing is logged

	// OnReady is called when Zeek has compiled its scripts and opened its
	// source, after each start, with the interface (or the pcap).
	OnReady func(source string)
	// OnGap is called when a live Zeek runs again, or when Run ends without. If it
	// is nil gaps are logged.
	OnGap func(Gap)
	// OnBlind is called when an interface is not watched any more, or nothing has
	// been heard of its Zeek for some time, with when it was heard of last; and
	// with the zero time when it is watched again.
	OnBlind func(source string, since time.Time)
	// OnLoss is called when Zeek says that it has lost so many packets that
	// somebody should know.
	OnLoss func(Loss)
	// OnStats is called each minute and at the end of each Zeek, with the packets
	// that it has processed since the last call and those that were dropped
	// because it was too slow. The sums are all packets of the interface (or the
	// pcap), but for the last minute of a Zeek that crashed.
	OnStats func(source string, packets, dropped int64)

	// For tests.
	backoff, maxBackoff, poll, quiet time.Duration
	index                            func(source string) int
}

// Gap is a time in which an interface was not watched.
type Gap struct {
	Interface string
	From, To  time.Time
	Starts    int   // how often Zeek was started in it
	Err       error // why the Zeek before it ended
}

// Loss is what Zeek says about packets that it did not get.
type Loss struct {
	Source  string    // the interface
	Log     string    // "stats": packets dropped on the way to Zeek; "capture_loss": acknowledgements of data not seen
	Time    time.Time // of the measurement
	Dropped int64     // packets, or acknowledgements
	Of      int64     // packets that arrived, or all acknowledgements
	Percent float64
}

// StartError says that Zeek did not begin to work. The message is in our
// words, with Zeek's behind them.
type StartError struct {
	Source string // the interface or pcap
	Reason string // what is wrong and what helps
	Zeek   string // Zeek's last words
	Input  bool   // what it was to read is at fault, not Zeek or its scripts
	Err    error
}

// Error implements error.
func (e *StartError) Error() string {
	s := fmt.Sprintf("zeek did not start on %q: %s", e.Source, e.Reason)
	if e.Zeek != "" {
		s += ": zeek says " + fmt.Sprintf("%q", e.Zeek)
	}
	return s
}

// Unwrap returns the error behind it.
func (e *StartError) Unwrap() error { return e.Err }

// Supervisor runs one Zeek for a pcap or one for each interface.
type Supervisor struct {
	o    Options
	call sync.Mutex // callbacks come one at a time
}

// New checks the options. It starts nothing.
func New(o Options) (*Supervisor, error) {
	switch {
	case o.Zeek.Path == "":
		return nil, errors.New("running zeek: no zeek given")
	case o.Dir == "":
		return nil, errors.New("running zeek: no folder for its logs given")
	case o.Pcap == "" && len(o.Interfaces) == 0:
		return nil, errors.New("running zeek: neither an interface nor a pcap given")
	case o.Pcap != "" && len(o.Interfaces) > 0:
		return nil, errors.New("running zeek: both interfaces and a pcap given")
	}
	for _, d := range []struct {
		name string
		d    time.Duration
	}{
		{"tcp inactivity timeout", o.TCPInactivity},
		{"rotation", o.Rotation},
		{"retention", o.Retention},
		{"start timeout", o.StartTimeout},
		{"grace", o.Grace},
		{"silence", o.Silence},
	} {
		if d.d < 0 {
			return nil, fmt.Errorf("running zeek: %s: %s is less than nothing", d.name, d.d)
		}
	}
	if o.Rotation > 0 && o.Rotation < time.Second {
		return nil, fmt.Errorf("running zeek: rotation: %s is less than a second", o.Rotation)
	}
	seen := make(map[string]bool)
	for _, i := range o.Interfaces {
		if i == "" || seen[folder(i)] {
			return nil, fmt.Errorf("running zeek: interface %q is empty or given twice", i)
		}
		seen[folder(i)] = true
	}
	for i := range o.Filters {
		if !seen[folder(i)] {
			return nil, fmt.Errorf("running zeek: there is a filter for %q, which is not among the interfaces", i)
		}
	}
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, fmt.Errorf("running zeek: %w", err)
	}
	if o.Pcap != "" {
		if o.Pcap, err = filepath.Abs(o.Pcap); err != nil {
			return nil, fmt.Errorf("running zeek: %w", err)
		}
	}
	o.TCPInactivity = cmp.Or(o.TCPInactivity, DefaultTCPInactivity)
	o.StartTimeout = cmp.Or(o.StartTimeout, DefaultStartTimeout)
	o.Grace = cmp.Or(o.Grace, DefaultGrace)
	if o.Silence == 0 {
		if o.Silence = DefaultSilence; o.Pcap != "" {
			o.Silence = DefaultStall
		}
	}
	o.backoff = cmp.Or(o.backoff, time.Second)
	o.maxBackoff = cmp.Or(o.maxBackoff, time.Minute)
	o.poll = cmp.Or(o.poll, 5*time.Second)
	o.quiet = cmp.Or(o.quiet, min(quietFor, o.Silence))
	if o.index == nil {
		o.index = index
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Supervisor{o: o}, nil
}

// Dirs returns the folders in which logs appear: of each interface, in the
// order of Options, or of the pcap.
func (s *Supervisor) Dirs() []string {
	if len(s.o.Interfaces) < 2 {
		return []string{s.o.Dir}
	}
	var dirs []string
	for _, i := range s.o.Interfaces {
		dirs = append(dirs, filepath.Join(s.o.Dir, folder(i)))
	}
	return dirs
}

// folder is the name of an interface as that of a folder.
func folder(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '/' || r == ':' || r == 0 {
			return '_'
		}
		return r
	}, strings.TrimLeft(name, "."))
}

// Run runs Zeek until the pcap is read or ctx ends, which is no error. The
// first start on an interface must succeed; later Zeek is started again for as
// long as it takes. When one interface fails at the first start the others are
// stopped. When Run returns, no process and no file but the logs is left.
func (s *Supervisor) Run(ctx context.Context) error {
	sources := s.o.Interfaces
	if s.o.Pcap != "" {
		if err := s.checkPcap(); err != nil {
			return err
		}
		sources = []string{s.o.Pcap}
	} else if err := s.checkInterfaces(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(sources))
	var wg sync.WaitGroup
	for i, dir := range s.Dirs() {
		wg.Go(func() {
			w := &watch{s: s, source: sources[i], dir: dir, live: s.o.Pcap == "", began: time.Now(), log: s.o.Log.With("source", sources[i])}
			if errs[i] = w.run(ctx); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// checkPcap finds what can be found without Zeek.
func (s *Supervisor) checkPcap() error {
	if s.o.Packets == nil {
		if st, err := os.Stat(s.o.Pcap); err != nil {
			return fmt.Errorf("running zeek on a pcap: %w", err)
		} else if st.IsDir() {
			return fmt.Errorf("running zeek on a pcap: %q is a folder", s.o.Pcap)
		}
	}
	old, err := logsIn(s.o.Dir)
	if err != nil {
		return fmt.Errorf("running zeek on a pcap: %w", err)
	}
	if len(old) > 0 {
		return fmt.Errorf("running zeek on a pcap: the folder %q already holds logs such as %q", s.o.Dir, old[0])
	}
	return nil
}

// checkInterfaces finds interfaces that are not there, which Zeek says less
// clearly.
func (s *Supervisor) checkInterfaces() error {
	all, err := net.Interfaces()
	if err != nil {
		s.o.Log.Debug("interfaces cannot be listed", "err", err)
		return nil
	}
	var names []string
	known := map[string]bool{"any": true}
	for _, i := range all {
		names = append(names, i.Name)
		known[i.Name] = true
	}
	for _, i := range s.o.Interfaces {
		if !known[i] && !strings.Contains(i, plugin) {
			return &StartError{
				Source: i, Reason: "there is no such interface; there are " + strings.Join(names, ", "), Input: true, Err: fs.ErrNotExist,
			}
		}
	}
	return nil
}

// filter is the BPF filter of a source; empty when all packets are wanted.
func (s *Supervisor) filter(source string) string {
	all, one := strings.TrimSpace(s.o.Filter), strings.TrimSpace(s.o.Filters[source])
	switch {
	case all == "":
		return one
	case one == "":
		return all
	}
	return "(" + all + ") and (" + one + ")"
}

func (s *Supervisor) ready(source string) {
	if s.o.OnReady != nil {
		s.call.Lock()
		defer s.call.Unlock()
		s.o.OnReady(source)
	}
}

func (s *Supervisor) gap(g Gap) {
	if s.o.OnGap == nil {
		s.o.Log.Warn("an interface was not watched", "source", g.Interface, "from", g.From, "for", g.To.Sub(g.From).Round(time.Millisecond),
			"starts", g.Starts, "err", g.Err)
		return
	}
	s.call.Lock()
	defer s.call.Unlock()
	s.o.OnGap(g)
}

func (s *Supervisor) blind(source string, since time.Time) {
	if s.o.OnBlind != nil {
		s.call.Lock()
		defer s.call.Unlock()
		s.o.OnBlind(source, since)
	}
}

func (s *Supervisor) stats(source string, n packets) {
	if s.o.OnStats != nil {
		s.call.Lock()
		defer s.call.Unlock()
		s.o.OnStats(source, n.taken, n.dropped)
	}
}

func (s *Supervisor) loss(l Loss) {
	s.o.Log.Warn("zeek lost packets", "source", l.Source, "log", l.Log, "dropped", l.Dropped, "of", l.Of, "percent", l.Percent)
	if s.o.OnLoss != nil {
		s.call.Lock()
		defer s.call.Unlock()
		s.o.OnLoss(l)
	}
}
