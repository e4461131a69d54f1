package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
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
	captures   []string          // files; "-" is stdin
	stdin      io.Reader         // what was looked at of standard input included
	interfaces []string          // captured on live
	filters    map[string]string // of single interfaces, besides o.Config.Parameters.PcapFilter
	zeek       zeekscripts.Zeek  // Path is empty when the built-in meter reads
	why        string            // why there is no Zeek, to tell

	meters     []*meter
	supervisor *zeekscripts.Supervisor // of interfaces
	temporary  string                  // the folder to remove at the end

	named map[string]bool // sources

	log *slog.Logger // once there is an output
	ui  UI

	mu     sync.Mutex // guards what is below
	failed []error
	told   map[string]*export.InterfaceSummary // by interface
}

// meter is a capture or an interface that the built-in meter reads.
type meter struct {
	path string        // of a capture
	tap  *live.Capture // of an interface
	link packet.Link   // of the first packet of a capture
	src  *packet.Source
}

// openPackets finds the packets among the inputs, decides who reads them, and
// opens interfaces, before there is an output. It returns the paths that are
// left, and changes nothing.
func openPackets(ctx context.Context, o *runOptions) (s *packetSet, rest []string, err error) {
	s = &packetSet{
		interfaces: o.Interfaces, filters: map[string]string{}, named: map[string]bool{}, log: discard(), ui: quietUI{},
		told: map[string]*export.InterfaceSummary{},
	}
	for _, name := range s.interfaces {
		s.told[name] = &export.InterfaceSummary{Name: name}
	}
	for _, path := range o.Paths {
		switch {
		case o.Follow || o.Format != "auto" && o.Format != "":
			rest = append(rest, path)
		case path == stdinPath && s.looksInto(ctx, o), path != stdinPath && isCapture(path):
			s.captures = append(s.captures, path)
		default:
			rest = append(rest, path)
		}
	}
	if slices.Contains(s.captures, stdinPath) && o.Config.Parameters.Engine == config.Zeek {
		return nil, nil, badFlags("--engine zeek: Zeek reads packets from a file, and not from standard input")
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

// looksInto reports whether packets come on standard input, by how it begins.
// What was read of it is read again by whoever reads it. A pipe on which
// nothing comes keeps a goroutine waiting when ctx ends.
func (s *packetSet) looksInto(ctx context.Context, o *runOptions) bool {
	b := bufio.NewReaderSize(o.Stdin, 64<<10)
	o.Stdin, s.stdin = b, b
	capture := make(chan bool, 1)
	go func() {
		head, _ := b.Peek(4) // what is shorter is no capture
		capture <- packet.IsCapture(head)
	}()
	select {
	case is := <-capture:
		return is
	case <-ctx.Done():
		o.Stdin = strings.NewReader("") // b is the goroutine's
		return false
	}
}

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
		return &codeError{exitSensor, fmt.Errorf("%w (--engine builtin does without)", err)}
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
	if r.info.Resumed == 0 {
		if err := os.RemoveAll(folder); err != nil {
			return nil, &export.WriteError{Path: folder, Err: err}
		}
	}
	if s.zeek.Path != "" && r.o.Config.Parameters.DeleteZeekFiles {
		s.temporary = folder
	}
	r.info.Engine = s.engine()
	by := "the built-in meter"
	if s.zeek.Path != "" {
		by = "Zeek " + s.zeek.Version
	}
	r.log.Info("packets are read by "+by, "captures", len(s.captures), "interfaces", s.interfaces, "zeek", s.zeek.Path)
	for _, path := range s.captures {
		name := s.nameOf(path)
		if name == "" {
			continue // given twice
		}
		dir, why, err := s.runZeek(ctx, r, path, name)
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
			r.log.Warn("Zeek does not work here, so the packets are read by the built-in meter", "path", path, "reason", why)
		}
		r.ui.Note(path + ": a packet capture, read by the built-in meter")
		m := &meter{path: path}
		options := s.meterOptions(r.o.Config)
		options.AttemptDelay = attemptDelay
		if options.Keep, err = s.keep(m, r.o.Config.Parameters.PcapFilter); err != nil {
			return nil, err
		}
		m.src = packet.NewSource(name, path, options, wake)
		s.meters = append(s.meters, m)
	}
	for i, m := range s.meters {
		if m.tap != nil {
			name := s.interfaces[i]
			options := s.meterOptions(r.o.Config)
			options.CloseDelay = liveCloseDelay
			if iso := r.firewall.isolator(); iso != nil { // what we tell, and what comes of it, is no attack
				options.Keep = func(p packet.Packet) bool { return !iso.Involved(p.Data) }
			}
			m.src = packet.NewSource(name, name, options, wake)
			r.ui.Note("interface " + name + ": packets are read by the built-in meter")
		}
	}
	if len(s.interfaces) == 0 || s.zeek.Path == "" {
		return paths, nil
	}
	dirs, err := s.supervise(r, folder)
	return append(paths, dirs...), err
}

// engine says who reads the packets.
func (s *packetSet) engine() string {
	switch {
	case s.empty():
		return ""
	case s.zeek.Path == "":
		return string(config.Builtin)
	}
	return fmt.Sprintf("zeek %s (%s)", s.zeek.Version, s.zeek.Path)
}

// nameOf returns the name of a capture's source: its last element, or the whole
// path when another has that; empty for one that has been given already.
func (s *packetSet) nameOf(path string) string {
	name := filepath.Base(path) // of "-" that is "-"
	if s.named[name] {
		name = path
	}
	if s.named[name] {
		return ""
	}
	s.named[name] = true
	return name
}

func (s *packetSet) meterOptions(c *config.Config) packet.Options {
	return packet.Options{
		LocalNets: homes(c.Parameters.ClientIPs), TCPInactivity: c.Parameters.TCPInactivityTimeout.Duration(),
		MaxConns: c.Packet.MaxConnections,
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
			s.fail(m.path, err)
		}
		return ok
	}, nil
}

// supervise makes the supervisor of a Zeek for each interface, which run
// starts, and returns the folders of their logs.
func (s *packetSet) supervise(r *run, folder string) ([]string, error) {
	c := r.o.Config
	if len(s.interfaces) == 1 { // with more the supervisor makes a folder of each
		folder = filepath.Join(folder, strings.NewReplacer("/", "_", ":", "_").Replace(s.interfaces[0]))
	}
	if r.firewall.isolator() != nil {
		for _, name := range s.interfaces {
			s.filters[name] = both(s.filters[name], notOurARP(name))
		}
	}
	o := zeekscripts.Options{
		Zeek: s.zeek, Interfaces: s.interfaces, Dir: folder, Filter: c.Parameters.PcapFilter, Filters: s.filters,
		TCPInactivity: c.Parameters.TCPInactivityTimeout.Duration(), Retention: c.Parameters.KeepRotatedFilesFor.Duration(),
		Extra: c.Zeekscripts.Scripts, Log: r.log,
		OnReady: func(source string) {
			r.ui.Note(fmt.Sprintf("interface %s: packets are read by Zeek %s", source, s.zeek.Version))
			r.service.ready(r.status())
		},
		OnGap: func(g zeekscripts.Gap) {
			s.gap(g.Interface, g.To.Sub(g.From), g.Err)
		},
		OnStats: s.counted,
	}
	if c.Parameters.Rotation {
		o.Rotation = c.Parameters.DefaultRotationInterval.Duration()
	}
	var err error
	if s.supervisor, err = zeekscripts.New(o); err != nil {
		return nil, err
	}
	dirs := s.supervisor.Dirs()
	for _, dir := range dirs { // followed from the start, before Zeek has made anything
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, &export.WriteError{Path: dir, Err: err}
		}
	}
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
	if s.supervisor != nil {
		tasks = append(tasks, func() error {
			defer drain()
			err := s.supervisor.Run(ctx)
			if start := (*zeekscripts.StartError)(nil); errors.As(err, &start) {
				return fmt.Errorf("%w (--engine builtin does without)", err)
			}
			return err
		})
	}
	return tasks
}

// meter reads a capture to its end, or an interface until ctx is done.
func (s *packetSet) meter(ctx, reading context.Context, m *meter) error {
	if m.tap != nil {
		return m.tap.Meter(ctx, reading, m.src)
	}
	f, err := s.open(reading, m.path)
	if err != nil {
		m.src.Close(reading)
		s.fail(m.path, err)
		return nil
	}
	defer func() { _ = f.Close() }() // only read
	// The context may have ended by now because all records were taken.
	st, err := m.src.Read(reading, f)
	switch unknown := st.Counts[packet.UnknownLink]; {
	case err != nil && !errors.Is(err, context.Canceled):
		s.fail(m.path, err)
	case unknown > 0 && unknown == st.Packets-st.Filtered:
		s.fail(m.path, fmt.Errorf("no packet could be read: link type %d is not understood", m.link))
	case st.Filtered > 0 && st.Filtered == st.Packets:
		s.log.Warn("the filter lets no packet through; in a file, packets with VLAN tags are seen by \"vlan and (...)\" alone", "path", m.path, "packets", st.Packets)
	}
	return nil
}

// open opens a capture. Reading from standard input ends with ctx, though the
// goroutine that waits for a silent pipe stays until something comes.
func (s *packetSet) open(ctx context.Context, path string) (io.ReadCloser, error) {
	if path != stdinPath {
		return os.Open(path)
	}
	from, to := io.Pipe()
	go func() {
		_, err := io.Copy(to, s.stdin)
		_ = to.CloseWithError(err) // which returns nil always; without an error it is the end of the file
	}()
	stop := context.AfterFunc(ctx, func() { _ = from.CloseWithError(context.Canceled) })
	return &stoppable{from, stop}, nil
}

// stoppable is a pipe that somebody else may end.
type stoppable struct {
	*io.PipeReader
	stop func() bool
}

// Close implements io.Closer.
func (s *stoppable) Close() error {
	s.stop()
	return s.PipeReader.Close()
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
	for _, m := range s.meters {
		if m.tap != nil {
			m.tap.Close()
		}
	}
	if s.temporary != "" {
		errs = append(errs, os.RemoveAll(s.temporary))
	}
	return errors.Join(errs...)
}
