package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/config"
	"github.com/slips-go/slips/internal/privilege"
	"github.com/slips-go/slips/parsers"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/packet"
	"github.com/slips-go/slips/parsers/packet/bpf"
	"github.com/slips-go/slips/parsers/packet/live"
	"github.com/slips-go/slips/profiler"
	"github.com/slips-go/slips/zeekscripts"
)

// zeekFiles is the folder of the logs of a Zeek that the run starts, relative
// to the output directory.
const zeekFiles = "zeek_files"

// attemptDelay is how long a handshake in a capture waits for an answer, as our
// settings for Zeek have it: what is sent again and again counts as one attempt.
// On an interface it is 5 s, the meter's default, for a scanner cannot be
// blocked before.
const attemptDelay = time.Minute

// liveCloseDelay is how long the meter waits on an interface for a last word
// of a connection that is closed or was rejected. Zeek waits 5 s, which is as
// long as a scanner would go on before it can be blocked. Systems that try
// again when they are rejected do so within half a second.
const liveCloseDelay = time.Second

// packetSet is the packets among the inputs of a run: captures and interfaces,
// and who turns them into records. Without any it is empty and does nothing.
type packetSet struct {
	captures   []*trace
	begin      int64             // time of the first packet where all inputs are captures, unix ns; else 0
	streams                      // those of captures, and others
	interfaces []string          // captured on live
	filters    map[string]string // of single interfaces, besides o.Config.Parameters.PcapFilter
	zeek       zeekscripts.Zeek  // Path is empty when the built-in meter reads
	why        string            // why there is no Zeek, to tell

	meters    []*meter
	watched   *watched // by Zeek, the interfaces; nil: they are not
	byZeek    bool     // Zeek has read packets
	byMeter   bool     // and so has the meter
	broken    bool     // Zeek does not start, whatever it is to read
	temporary string   // the folder to remove at the end
	zeekDirs  []string // of logs that a Zeek of ours writes

	named map[string]bool // sources

	log *slog.Logger // once there is an output
	ui  UI

	mu       sync.Mutex // guards what is below
	failed   []error
	told     map[string]*export.InterfaceSummary // by interface
	finished func(path string) bool              // see follow
	blind    map[string]time.Time                // since when nothing is heard of the Zeek on an interface
}

// meter is a capture or an interface that the built-in meter reads.
type meter struct {
	capture *trace
	tap     *live.Capture // of an interface; else of a capture
	link    packet.Link   // of the first packet of a capture
	src     *packet.Source
}

// openPackets finds the packets among the inputs, decides who reads them, and
// opens interfaces, before there is an output. It returns the paths that are
// left, and changes nothing.
func openPackets(ctx context.Context, o *runOptions) (s *packetSet, rest []string, err error) {
	s = &packetSet{
		interfaces: o.Interfaces, filters: map[string]string{}, named: map[string]bool{}, log: discard(), ui: quietUI{},
		told: map[string]*export.InterfaceSummary{}, blind: map[string]time.Time{}, streams: streams{heads: map[string]*bufio.Reader{}, others: map[string]string{}},
	}
	for _, name := range s.interfaces {
		s.told[name] = &export.InterfaceSummary{Name: name}
	}
	opened := s
	defer func() {
		if err != nil {
			err = errors.Join(err, opened.close())
		}
	}()
	if rest, err = s.find(ctx, o); err != nil {
		return nil, nil, err
	}
	if len(rest) == 0 && len(s.interfaces) == 0 {
		s.begin = s.firstPacket()
	}
	if i := slices.IndexFunc(s.captures, s.stream); i >= 0 && o.Config.Parameters.Engine == config.Zeek {
		return nil, nil, badFlags("--engine zeek: Zeek reads packets from a file, and not from standard input or a pipe (%s)", s.captures[i].path)
	}
	if s.empty() {
		return s, rest, nil
	}
	if err := bpf.Check(o.Config.Parameters.PcapFilter); err != nil {
		return nil, nil, &codeError{exitUsage, err}
	}
	if err := s.look(o); err != nil {
		return nil, nil, err
	}
	if err := s.choose(ctx, o.Config, o.User); err != nil {
		return nil, nil, err
	}
	if s.zeek.Path == "" {
		return s, rest, s.openTaps(o)
	}
	return s, rest, nil
}

// stdinPath stands for standard input.
const stdinPath = "-"

func (s *packetSet) empty() bool { return len(s.captures) == 0 && len(s.interfaces) == 0 }

// look checks the interfaces, and narrows the wired side of an access point to
// what is sent into its network: the rest passes the other side too.
func (s *packetSet) look(o *runOptions) error {
	for _, name := range s.interfaces {
		if _, err := net.InterfaceByName(name); err != nil && name != live.Any {
			return &codeError{exitSensor, fmt.Errorf("interface %q: %w; there are %s", name, err, interfaceNames())}
		}
	}
	if !o.AccessPoint {
		return nil
	}
	wired := s.interfaces[1]
	p, err := networkOf(wired)
	if err != nil {
		return &codeError{exitSensor, err}
	}
	s.filters[wired] = "dst net " + p.String()
	return nil
}

// interfaceNames lists the interfaces of this machine.
func interfaceNames() string {
	list, err := net.Interfaces()
	if err != nil {
		return "none that can be listed: " + err.Error()
	}
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return strings.Join(names, ", ")
}

// networkOf returns the IPv4 network of an interface.
func networkOf(name string) (netip.Prefix, error) {
	addrs, err := addressesOf(name)
	if err != nil {
		return netip.Prefix{}, err
	}
	for _, p := range addrs {
		if p.Addr().Is4() {
			return p.Masked(), nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("interface %q has no IPv4 network, which --access-point needs of the wired side", name)
}

// choose decides between Zeek and the meter. A Zeek that the configuration
// names has to work, whatever the engine. It is asked for its version as the
// user whom the process becomes; nil: as who we are.
func (s *packetSet) choose(ctx context.Context, c *config.Config, user *privilege.User) error {
	engine := c.Parameters.Engine
	if engine == config.Builtin {
		return nil
	}
	z, err := zeekscripts.Find(ctx, c.Zeekscripts.Zeek, user.Credential())
	switch {
	case ctx.Err() != nil:
		return &codeError{exitInterrupted, errors.New("stopped before it began")}
	case err == nil:
		s.zeek = z
	case engine == config.Zeek || c.Zeekscripts.Zeek != "":
		return &codeError{exitSensor, withoutZeek(err)}
	case errors.Is(err, zeekscripts.ErrNotFound):
		s.why = "Zeek is not installed"
	default:
		s.why = err.Error()
	}
	return nil
}

// openTaps opens the interfaces for the meter.
func (s *packetSet) openTaps(o *runOptions) error {
	for _, name := range s.interfaces {
		c, err := live.Open(live.Options{
			Interface: name, Filter: both(o.Config.Parameters.PcapFilter, s.filters[name]), Promiscuous: o.Config.Packet.Promiscuous,
			Ring: o.Config.Packet.RingBuffer << 20, OnGap: s.tapGap, OnDrop: func(n, total int64) { s.dropped(name, n, total) },
		})
		if err != nil {
			return errors.Join(err, s.close())
		}
		s.meters = append(s.meters, &meter{tap: c})
	}
	return nil
}

// both joins two filters.
func both(a, b string) string {
	a, b = strings.TrimSpace(a), strings.TrimSpace(b)
	if a == "" || b == "" {
		return cmp.Or(a, b)
	}
	return "(" + a + ") and (" + b + ")"
}

// prepare makes what is left after the output directory is there: it runs Zeek
// over captures, and returns the folders of Zeek's logs as further paths. A
// resumed run keeps the logs that are there.
func (s *packetSet) prepare(ctx context.Context, r *run, wake func()) (paths []string, err error) {
	if s.empty() {
		return nil, nil
	}
	s.log, s.ui = r.log, r.ui
	if s.zeek.Path == "" && s.why != "" {
		r.ui.Note(s.why + "; packets are read by the built-in meter")
	}
	folder := r.dir.Path(zeekFiles)
	defer func() {
		for _, dir := range paths {
			if abs, err := filepath.Abs(dir); err == nil {
				s.zeekDirs = append(s.zeekDirs, abs)
			}
		}
	}()
	if r.info.Resumed == 0 {
		if err := os.RemoveAll(folder); err != nil {
			return nil, &export.WriteError{Path: folder, Err: err}
		}
	}
	if s.zeek.Path != "" && r.o.Config.Parameters.DeleteZeekFiles {
		s.temporary = folder
	}
	if dirs, err := s.watch(ctx, r, folder); err != nil {
		return nil, err
	} else if paths = dirs; ctx.Err() != nil {
		return paths, nil
	}
	if s.watched == nil && paths == nil && r.info.Resumed > 0 {
		paths = s.leftByZeek(folder)
	}
	by := "the built-in meter"
	if s.zeek.Path != "" {
		by = "Zeek " + s.zeek.Version
	}
	r.log.Info("packets are read by "+by, "captures", len(s.captures), "interfaces", s.interfaces, "zeek", s.zeek.Path)
	defer func() { r.info.Engine = s.engine() }()
	s.meterTaps(r, wake)
	for _, c := range s.captures {
		name := s.nameOf(c.path)
		dir, why, err := s.runZeek(ctx, r, c, name)
		switch {
		case errors.Is(err, errUnreadable):
			continue
		case err != nil:
			return nil, err
		case ctx.Err() != nil:
			return paths, nil
		case dir != "":
			paths = append(paths, dir)
			continue
		case why != "":
			r.log.Warn("Zeek does not work here, so the packets are read by the built-in meter", "path", c.path, "reason", why)
		}
		s.byMeter = true
		r.ui.Note(fmt.Sprintf("%s: %s, read by the built-in meter", c.path, c))
		m := &meter{capture: c}
		options := s.meterOptions(r.o.Config)
		options.AttemptDelay = attemptDelay
		if options.Keep, err = s.keep(m, r.o.Config.Parameters.PcapFilter); err != nil {
			return nil, err
		}
		m.src = packet.NewSource(name, c.path, options, wake)
		s.meters = append(s.meters, m)
	}
	return paths, nil
}

// meterTaps has the meter read the interfaces that are open for it.
func (s *packetSet) meterTaps(r *run, wake func()) {
	for i, m := range s.meters {
		name := s.interfaces[i]
		options := s.meterOptions(r.o.Config)
		options.CloseDelay, options.RefusedDelay = liveCloseDelay, liveCloseDelay
		if iso := r.firewall.isolator(); iso != nil { // what we tell, and what comes of it, is no attack
			options.Keep = func(p packet.Packet) bool { return !iso.Involved(p.Data) }
		}
		m.src = packet.NewSource(name, name, options, wake)
		s.byMeter = true
		r.ui.Note("interface " + name + ": packets are read by the built-in meter")
	}
}

// engine says who has read the packets; before that who will.
func (s *packetSet) engine() string {
	byZeek := fmt.Sprintf("zeek %s (%s)", s.zeek.Version, s.zeek.Path)
	switch {
	case s.empty():
		return ""
	case s.byZeek && s.byMeter:
		return byZeek + " and " + string(config.Builtin)
	case s.byMeter || s.zeek.Path == "":
		return string(config.Builtin)
	}
	return byZeek
}

// nameOf returns the name of a capture's source: its last element, or the whole
// path when another has that.
func (s *packetSet) nameOf(path string) string {
	name := filepath.Base(path) // of "-" that is "-"
	if s.named[name] {
		name = path
	}
	s.named[name] = true
	return name
}

func (s *packetSet) meterOptions(c *config.Config) packet.Options {
	return packet.Options{
		LocalNets: homes(c.Parameters.ClientIPs), TCPInactivity: c.Parameters.TCPInactivityTimeout.Duration(),
		MaxConns: c.Packet.MaxConnections,
		Full: func(r packet.Reason, n int64) {
			s.log.Warn("the meter has no more room and leaves something out; the oldest of what is one-sided goes first", "what", r.String(), "so_far", n)
		},
	}
}

// keep returns what filters the packets of a capture. A filter that does not
// fit the capture's link type is the capture's problem, told once.
func (s *packetSet) keep(m *meter, expr string) (func(packet.Packet) bool, error) {
	f, err := bpf.NewFilter(expr)
	if err != nil {
		return nil, err
	}
	first, all, told := true, strings.TrimSpace(expr) == "", false
	return func(p packet.Packet) bool {
		if first {
			m.link, first = p.Link, false
		}
		if all {
			return true
		}
		ok, err := f.Match(p)
		if err != nil && !told {
			told = true
			s.fail(m.capture.path, err)
		}
		return ok
	}, nil
}

// watched is a Zeek on each interface, from its start on.
type watched struct {
	ready chan struct{} // closed when all of them read packets
	ended chan struct{} // closed when none is left
	err   error         // why, behind ended
	stop  context.CancelFunc
}

// watch starts a Zeek on each interface and waits until they read packets. It
// returns the folders of their logs. When they cannot start and the engine may be
// chosen, the meter takes the interfaces, with the right to open them that was
// kept for Zeek, and then gives that up.
func (s *packetSet) watch(ctx context.Context, r *run, folder string) ([]string, error) {
	if len(s.interfaces) == 0 || s.zeek.Path == "" {
		return nil, nil
	}
	dirs, err := s.supervise(ctx, r, folder)
	if err != nil {
		return nil, err
	}
	select {
	case <-s.watched.ready:
		s.byZeek = true
		return dirs, nil
	case <-s.watched.ended:
	}
	s.watched.stop()
	err = s.watched.err
	s.watched = nil
	start := (*zeekscripts.StartError)(nil)
	switch {
	case ctx.Err() != nil:
		return dirs, err
	case !errors.As(err, &start):
		return nil, err
	case r.o.Config.Parameters.Engine != config.Auto:
		return nil, withoutZeek(err)
	}
	if left := s.takeOver(r); left != nil {
		return nil, fmt.Errorf("%w; nor can the built-in meter capture: %w", err, left)
	}
	r.log.Warn("Zeek cannot start here, so packets are read by the built-in meter (--engine zeek insists on Zeek)", "reason", err)
	if r.info.Resumed == 0 {
		if err := os.RemoveAll(folder); err != nil {
			return nil, &export.WriteError{Path: folder, Err: err}
		}
		return nil, nil
	}
	return dirs, nil // what a Zeek has left there before a restart is still to be read
}

// leftByZeek returns the folders of the logs that a Zeek wrote before a restart
// without it. They are read on.
func (s *packetSet) leftByZeek(folder string) (dirs []string) {
	for _, name := range s.interfaces {
		dir := filepath.Join(folder, folderOf(name))
		if logs, err := filepath.Glob(filepath.Join(dir, "*.log")); err == nil && len(logs) > 0 {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// folderOf is the name of an interface as that of a folder.
func folderOf(name string) string { return strings.NewReplacer("/", "_", ":", "_").Replace(name) }

// forget has a saved engine forget where it was in the logs of Zeek, when the
// run before has read and removed them as it was configured to.
func (s *packetSet) forget(r *run, c *profiler.Checkpoint) {
	if c == nil || !r.o.Config.Parameters.DeleteZeekFiles {
		return
	}
	for _, name := range s.interfaces {
		dir := r.dir.Path(filepath.Join(zeekFiles, folderOf(name)))
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		for source, in := range c.Inputs {
			if ofDir(source, dir) {
				in.Pos = flow.Position{}
				c.Inputs[source] = in
			}
		}
	}
}

// ofDir reports whether a source is a log in a folder that was given as an input.
func ofDir(source, dir string) bool {
	label := filepath.Dir(source)
	return label == dir || label == filepath.Base(dir)
}

// follow tells whom to ask whether a log has been read to its end.
func (s *packetSet) follow(finished func(path string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = finished
}

// wasRead reports whether a log has been read to its end.
func (s *packetSet) wasRead(path string) bool {
	s.mu.Lock()
	finished := s.finished
	s.mu.Unlock()
	return finished != nil && finished(path)
}

// keepLogs has Zeek's logs kept for the next run, because not all was read.
func (s *packetSet) keepLogs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.temporary = ""
}

// withoutZeek adds to the error of a Zeek that did not start what else there is.
func withoutZeek(err error) error { return fmt.Errorf("%w (--engine builtin does without)", err) }

// takeOver opens the interfaces for the meter in place of Zeek.
func (s *packetSet) takeOver(r *run) (err error) {
	s.zeek = zeekscripts.Zeek{}
	if err := s.openTaps(&r.o); err != nil {
		return err
	}
	if r.privilege, err = r.dropPrivileges(); err != nil {
		return err
	}
	r.log.Info("privileges", "left", r.privilege)
	return nil
}

// supervise starts a Zeek on each interface, and returns the folders of their
// logs.
func (s *packetSet) supervise(ctx context.Context, r *run, folder string) ([]string, error) {
	c := r.o.Config
	if len(s.interfaces) == 1 { // with more the supervisor makes a folder of each
		folder = filepath.Join(folder, folderOf(s.interfaces[0]))
	}
	filters := maps.Clone(s.filters)
	if r.firewall.isolator() != nil {
		for _, name := range s.interfaces {
			filters[name] = both(filters[name], notOurARP(name))
		}
	}
	w := &watched{ready: make(chan struct{}), ended: make(chan struct{})}
	waiting := make(map[string]bool)
	for _, name := range s.interfaces {
		waiting[name] = true
	}
	version := s.zeek.Version
	o := zeekscripts.Options{
		Zeek: s.zeek, Interfaces: s.interfaces, Dir: folder, Filter: c.Parameters.PcapFilter, Filters: filters,
		TCPInactivity: c.Parameters.TCPInactivityTimeout.Duration(), Retention: c.Parameters.KeepRotatedFilesFor.Duration(),
		Extra: c.Zeekscripts.Scripts, Log: r.log,
		OnReady: func(source string) {
			r.ui.Note(fmt.Sprintf("interface %s: packets are read by Zeek %s", source, version))
			if waiting[source] {
				if delete(waiting, source); len(waiting) == 0 {
					close(w.ready)
				}
			}
		},
		OnGap: func(g zeekscripts.Gap) {
			s.gap(g.Interface, g.To.Sub(g.From), g.Err)
		},
		OnBlind: s.unheard, Read: s.wasRead,
		OnStats: s.counted,
	}
	if c.Parameters.Rotation {
		o.Rotation = c.Parameters.DefaultRotationInterval.Duration()
	}
	supervisor, err := zeekscripts.New(o)
	if err != nil {
		return nil, err
	}
	dirs := supervisor.Dirs()
	for _, dir := range dirs { // followed from the start, before Zeek has made anything
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, &export.WriteError{Path: dir, Err: err}
		}
	}
	ctx, w.stop = context.WithCancel(ctx)
	s.watched = w
	go func() {
		defer close(w.ended)
		w.err = supervisor.Run(ctx)
	}()
	return dirs, nil
}

// notOurARP is a filter for a Zeek that shall not take the ARP of our own
// isolation for an attack: what we send and are answered. It cannot know whom we
// isolate, as the meter does. It is empty for an interface without such an address.
func notOurARP(name string) string {
	i, err := net.InterfaceByName(name)
	if err != nil || len(i.HardwareAddr) != 6 {
		return ""
	}
	return fmt.Sprintf("not (arp and ether host %s)", i.HardwareAddr)
}

// inputs returns where the meters' records come out.
func (s *packetSet) inputs() (in []flow.Input) {
	for _, m := range s.meters {
		in = append(in, m.src.Input())
	}
	return in
}

// run returns what has to run beside the pipeline. Interfaces are watched until
// ctx is done, and captures read until reading is. drain is called when a Zeek
// that is told to end has written all it knows.
func (s *packetSet) run(ctx, reading context.Context, drain func()) (tasks []func() error) {
	for _, m := range s.meters {
		tasks = append(tasks, func() error { return s.meter(ctx, reading, m) })
	}
	if w := s.watched; w != nil {
		tasks = append(tasks, func() error {
			defer drain()
			select {
			case <-w.ended:
			case <-ctx.Done():
				w.stop()
				<-w.ended
			}
			for _, dir := range s.zeekDirs {
				s.garbled(dir, dir)
			}
			return w.err
		})
	}
	return tasks
}

// meter reads a capture to its end, or an interface until ctx is done.
func (s *packetSet) meter(ctx, reading context.Context, m *meter) error {
	if m.tap != nil {
		return m.tap.Meter(ctx, reading, m.src)
	}
	failed := false
	j := s.join(reading, m.capture, func(path string, err error) {
		failed = true
		s.fail(path, err)
	})
	defer j.close()
	for n := 0; n%checkEvery != 0 || reading.Err() == nil; n++ {
		p, err := j.Next()
		if err != nil {
			break
		}
		m.src.Feed(reading, p)
	}
	m.src.Close(reading)
	st := m.src.Stats()
	switch unknown := st.Counts[packet.UnknownLink]; {
	case failed:
	case unknown > 0 && unknown == st.Packets-st.Filtered:
		s.fail(m.capture.path, fmt.Errorf("no packet could be read: link type %d is not understood", m.link))
	case st.Packets == 0:
		s.ui.Note("warning: " + m.capture.path + " has no packets")
	case st.Records == 0 && len(st.Reasons()) > 0:
		s.fail(m.capture.path, fmt.Errorf("nothing could be made of its %d packets: %s", st.Packets-st.Filtered, foremost(st.Reasons())))
	case st.Filtered > 0 && st.Filtered == st.Packets:
		s.log.Warn("the filter lets no packet through; in a file, packets with VLAN tags are seen by \"vlan and (...)\" alone", "path", m.capture.path, "packets", st.Packets)
	}
	return nil
}

// foremost says what was counted most often.
func foremost(reasons map[string]int64) string {
	names := slices.SortedFunc(maps.Keys(reasons), func(a, b string) int {
		return cmp.Or(cmp.Compare(reasons[b], reasons[a]), strings.Compare(a, b))
	})
	return fmt.Sprintf("%s (%d)", names[0], reasons[names[0]])
}

func (s *packetSet) fail(path string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = append(s.failed, &parsers.Problem{Path: path, Err: err})
}

// gap tells of a time in which an interface was not watched.
func (s *packetSet) gap(name string, d time.Duration, why error) {
	s.mu.Lock()
	t := s.told[name]
	t.Gaps++
	t.Blind += d.Seconds()
	s.mu.Unlock()
	s.log.Warn("an interface was not watched", "interface", name, "for", d.Round(time.Millisecond), "reason", why)
}

// unheard notes since when nothing is heard of the Zeek on an interface; zero: it
// is heard of again.
func (s *packetSet) unheard(name string, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if since.IsZero() {
		delete(s.blind, name)
	} else {
		s.blind[name] = since
	}
}

// unwatched says which interfaces are not watched now, or may not be, for who
// asks how the run does; nothing when all of them are.
func (s *packetSet) unwatched() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for _, name := range slices.Sorted(maps.Keys(s.blind)) {
		list = append(list, fmt.Sprintf("nothing is heard of Zeek on %s since %s", name, s.blind[name].UTC().Format(time.TimeOnly)))
	}
	return strings.Join(list, "; ")
}

// garbled notes as problems of an input the files that its Zeek has written in
// place of logs.
func (s *packetSet) garbled(input, dir string) {
	names, err := zeekscripts.Garbled(dir)
	if err != nil {
		s.fail(input, err)
	}
	for _, name := range names {
		s.fail(input, fmt.Errorf("what Zeek wrote as %s is no log", name))
	}
}

// faults returns a problem for each log of a Zeek of ours that has lines which
// are no records: Zeek is broken, or something else writes there. One whose end
// is cut is no wonder where a Zeek was killed. Logs without any record are
// told of elsewhere.
func (s *packetSet) faults(sources []profiler.SourceStats, restarts int) (p []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cut := int64(restarts)
	for _, t := range s.told {
		cut += int64(t.Gaps)
	}
	for _, x := range sources {
		if !slices.ContainsFunc(s.zeekDirs, func(dir string) bool { return ofDir(x.Name, dir) }) {
			continue
		}
		var records, rejected int64
		for _, n := range x.Kinds {
			records += n
		}
		for _, n := range x.Rejected {
			rejected += n
		}
		if rejected > cut && (records > 0 || x.Ignored > 0) {
			p = append(p, &parsers.Problem{Path: x.Name, Err: fmt.Errorf("%d of the lines that Zeek wrote are no records", rejected)})
		}
	}
	return p
}

// tapGap tells of a gap of the meter, when it begins and when it is over.
func (s *packetSet) tapGap(g live.Gap) {
	if g.End == 0 {
		s.log.Warn("the interface is not watched; it is taken up again when it is back", "interface", g.Interface, "reason", g.Reason)
		return
	}
	s.gap(g.Interface, time.Duration(g.End-g.Start), errors.New(g.Reason))
}

// dropped tells of packets that came faster than the meter takes them: of the
// first, and whenever they have doubled.
func (s *packetSet) dropped(name string, _, total int64) {
	s.mu.Lock()
	t := s.told[name]
	tell := total >= 2*t.Dropped
	if tell {
		t.Dropped = total
	}
	s.mu.Unlock()
	if tell {
		s.log.Warn("packets were lost because they came too fast", "interface", name, "lost_so_far", total)
	}
}

// counted takes up what a Zeek says it has seen and lost since it said so last.
func (s *packetSet) counted(source string, packets, dropped int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.told[source]; t != nil {
		t.Packets += packets
		t.Dropped += dropped
	}
}

// problems returns the captures that could not be read to their end.
func (s *packetSet) problems() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]error(nil), s.failed...)
}

// summarise adds what the meters did not use to the counts of their sources,
// and what interfaces saw and lost. Called once they have ended.
func (s *packetSet) summarise(sum *export.Summary) {
	for _, m := range s.meters {
		if m.src == nil {
			continue
		}
		name := m.src.Input().Name
		if m.tap != nil {
			t, x := s.told[name], m.tap.Stats()
			t.Packets, t.Dropped, t.Cut = x.Packets, x.Dropped, x.Cut
		}
		for i := range sum.Sources {
			if sum.Sources[i].Name != name {
				continue
			}
			if sum.Sources[i].Rejected == nil {
				sum.Sources[i].Rejected = map[string]int64{}
			}
			sum.Sources[i].Remarks = m.src.Stats().Remarks()
			for reason, n := range m.src.Stats().Reasons() {
				sum.Sources[i].Rejected["packets: "+reason] += n
				sum.Rejected["packets: "+reason] += n
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.interfaces {
		sum.Interfaces = append(sum.Interfaces, *s.told[name])
	}
}

// close gives interfaces back and removes what the configuration does not want
// kept.
func (s *packetSet) close() error {
	if s == nil {
		return nil
	}
	var errs []error
	if s.watched != nil {
		s.watched.stop()
		<-s.watched.ended // its error was told by run, if it got so far
	}
	for _, m := range s.meters {
		if m.tap != nil {
			m.tap.Close()
		}
	}
	errs = append(errs, s.endStreams())
	s.mu.Lock()
	temporary := s.temporary
	s.mu.Unlock()
	if temporary != "" {
		errs = append(errs, os.RemoveAll(temporary))
	}
	return errors.Join(errs...)
}
