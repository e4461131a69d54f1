package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/profiler"
)

func (p *program) timelineCommand() *cobra.Command {
	var window int64
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "timeline DIR [HOST]",
		Short: "Tell what the hosts of a run did",
		Long: `Tell what each host did in each time window of the run whose output directory
is DIR, in the order of time, with evidence and alerts among it. HOST is an address,
or a name from DHCP. What the sensor's logs say of one connection is one entry;
addresses carry the names that were resolved to them before. The run must have had
--export-timeline.`,
		Example: "  slips -f zeek-logs/ -o results --export-timeline\n  slips timeline results 192.168.1.7 --window 2",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return badFlags("%s: name the output directory of a run", cmd.CommandPath())
			}
			return atMost(2)(cmd, args)
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			t := timeline{dir: args[0], json: asJSON}
			if len(args) == 2 {
				t.host = args[1]
			}
			if cmd.Flags().Changed("window") {
				t.window = &window
			}
			return p.timeline(&t)
		},
	}
	cmd.Flags().Int64Var(&window, "window", 0, "only time window `N`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return cmd
}

// timeline is what is asked for, and what the first look at the files gave.
type timeline struct {
	dir, host string
	window    *int64 // nil: all
	json      bool

	hosts  map[string]string // address -> name, from DHCP
	wanted map[string]bool   // profiles; nil: all
	names  resolved
	groups map[hostWindow]*places
	broken int // lines that are not what they should be
}

// hostWindow is a host and one of its windows.
type hostWindow struct {
	profile string // "" in records that have no host
	window  int64
}

// compare orders groups: addresses by value, the one that is none last.
func (g hostWindow) compare(h hostWindow) int {
	a, errA := netip.ParseAddr(g.profile)
	b, errB := netip.ParseAddr(h.profile)
	switch {
	case g.profile == h.profile && g.window < h.window:
		return -1
	case g.profile == h.profile && g.window > h.window:
		return 1
	case errA != nil && errB != nil:
		return strings.Compare(g.profile, h.profile)
	case errA != nil:
		return 1
	case errB != nil:
		return -1
	}
	return a.Compare(b)
}

// places says where the lines of a group are, by file.
type places [3]offsets

// The files that a timeline is made of, by their index in places.
const (
	inTimeline = iota
	inEvidence
	inAlerts
)

func timelineFiles() [3]string {
	return [3]string{export.TimelineFile, "alerts/evidence.jsonl", "alerts/alerts.jsonl"}
}

// offsets is a growing list of numbers that rises, as bytes: a busy run has
// many millions of lines.
type offsets struct {
	b    []byte
	last int64
}

func (o *offsets) add(n int64) {
	o.b = binary.AppendUvarint(o.b, uint64(n-o.last))
	o.last = n
}

func (o *offsets) each(f func(int64) error) error {
	at := int64(0)
	for b := o.b; len(b) > 0; {
		d, n := binary.Uvarint(b)
		at += int64(d)
		b = b[n:]
		if err := f(at); err != nil {
			return err
		}
	}
	return nil
}

// timeline prints what is asked for.
func (p *program) timeline(t *timeline) (err error) {
	var files [3]*lineFile
	for i, name := range timelineFiles() {
		f, err := os.Open(filepath.Join(t.dir, filepath.FromSlash(name)))
		if err != nil {
			return &codeError{exitInput, t.explain(err, i)}
		}
		defer func() { _ = f.Close() }() // only read
		files[i] = &lineFile{f: f}
	}
	if err := t.readHosts(); err != nil {
		return &codeError{exitInput, err}
	}
	if err := t.choose(); err != nil {
		return err
	}
	t.groups = make(map[hostWindow]*places)
	for i, f := range files {
		if err := t.scan(f, i); err != nil {
			return &codeError{exitInput, err}
		}
	}
	defer func() {
		if t.broken > 0 {
			p.complain(fmt.Errorf("%d lines in %s cannot be read and are left out", t.broken, t.dir))
		}
	}()
	if len(t.groups) == 0 {
		return &codeError{exitInput, t.nothing()}
	}
	t.names.settle()
	out := bufio.NewWriter(p.stdout)
	keys := make([]hostWindow, 0, len(t.groups))
	for g := range t.groups {
		keys = append(keys, g)
	}
	slices.SortFunc(keys, hostWindow.compare)
	for i, g := range keys {
		w, err := t.read(files, g)
		if err != nil {
			return &codeError{exitInput, err}
		}
		if i > 0 && !t.json {
			_ = out.WriteByte('\n') // out remembers its errors
		}
		if t.json {
			w.writeJSON(out)
		} else {
			w.writeText(out)
		}
		if err := out.Flush(); err != nil {
			return &outputError{err}
		}
	}
	return nil
}

// explain says what it means that a file is not there.
func (t *timeline) explain(err error, file int) error {
	if !errors.Is(err, fs.ErrNotExist) || file != inTimeline {
		return err
	}
	if found, _ := export.Occupied(t.dir); found == "" {
		return fmt.Errorf("%s is not the output directory of a run", t.dir)
	}
	return fmt.Errorf("the run in %s wrote no timeline: analyse the logs again with --export-timeline, or with parameters.export_timeline set", t.dir)
}

// nothing says why there is nothing to print.
func (t *timeline) nothing() error {
	what := "the timeline of the run in " + t.dir
	switch {
	case t.host != "" && t.window != nil:
		return fmt.Errorf("%s has nothing of %s in timewindow %d", what, t.host, *t.window)
	case t.host != "":
		return fmt.Errorf("%s has nothing of %s", what, t.host)
	case t.window != nil:
		return fmt.Errorf("%s has nothing in timewindow %d", what, *t.window)
	}
	return errors.New(what + " is empty")
}

// readHosts reads the names of hosts. A run that was killed left none.
func (t *timeline) readHosts() error {
	t.hosts = make(map[string]string)
	text, err := os.ReadFile(filepath.Join(t.dir, "metadata", "hosts.jsonl"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		var h profiler.Host
		if json.Unmarshal([]byte(line), &h) == nil && h.Name != "" {
			t.hosts[h.IP.String()] = h.Name
		}
	}
	return nil
}

// choose finds the profiles that the host on the command line stands for.
func (t *timeline) choose() error {
	if t.host == "" {
		return nil
	}
	t.wanted = make(map[string]bool)
	if a, err := netip.ParseAddr(t.host); err == nil {
		t.wanted[a.String()] = true
		return nil
	}
	for ip, name := range t.hosts {
		if strings.EqualFold(name, t.host) {
			t.wanted[ip] = true
		}
	}
	if len(t.wanted) == 0 {
		return &codeError{exitUsage, fmt.Errorf("%q is neither an address nor the name of a host in this run", t.host)}
	}
	return nil
}

// scan notes where the lines of each group are, and the names that addresses have.
func (t *timeline) scan(f *lineFile, file int) error {
	for at := int64(0); ; {
		line, err := f.line(at)
		if errors.Is(err, io.EOF) {
			return nil // or half a line, of a run that is under way
		}
		if err != nil {
			return err
		}
		var x struct {
			Profile string `json:"profile"`
			Window  int64  `json:"window"`
			dnsAnswer
		}
		start := at
		at += int64(len(line))
		if json.Unmarshal(line, &x) != nil {
			t.broken++
			continue
		}
		if file == inTimeline && x.Kind == "dns" {
			t.names.add(&x.dnsAnswer)
		}
		if t.wanted != nil && !t.wanted[x.Profile] || t.window != nil && *t.window != x.Window {
			continue
		}
		g := hostWindow{x.Profile, x.Window}
		if t.groups[g] == nil {
			t.groups[g] = new(places)
		}
		t.groups[g][file].add(start)
	}
}

// read reads the lines of a group.
func (t *timeline) read(files [3]*lineFile, g hostWindow) (*account, error) {
	a := newAccount(g, t.hosts[g.profile], &t.names, t.json)
	for i, take := range [3]func([]byte) error{a.activity, a.evidence, a.alert} {
		err := t.groups[g][i].each(func(at int64) error {
			line, err := files[i].line(at)
			if err != nil {
				return err
			}
			if take(line) != nil {
				t.broken++
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", files[i].f.Name(), err)
		}
	}
	a.settle()
	return a, nil
}

// lineFile reads lines of a file, most of them one after the other.
type lineFile struct {
	f  *os.File
	r  *bufio.Reader
	at int64
}

// line returns the line at an offset, with its newline. Without one it is io.EOF.
func (l *lineFile) line(at int64) ([]byte, error) {
	const ahead = 64 << 10
	if l.r == nil {
		l.r = bufio.NewReaderSize(l.f, ahead)
	}
	if d := at - l.at; d > 0 && d < ahead {
		if _, err := l.r.Discard(int(d)); err != nil {
			return nil, err
		}
	} else if d != 0 {
		if _, err := l.f.Seek(at, io.SeekStart); err != nil {
			return nil, err
		}
		l.r.Reset(l.f)
	}
	line, err := l.r.ReadBytes('\n')
	l.at = at + int64(len(line))
	return line, err
}
