package zeekscripts

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience is for what has to happen and takes long on a busy machine.
const patience = 30 * time.Second

// next returns what comes over a channel, which must be something.
func next[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s", what)
	}
	panic("unreachable")
}

// files returns the names of everything below dir but the logs.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path != dir && !strings.HasSuffix(path, ".log") {
			names = append(names, d.Name())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestFind(t *testing.T) {
	programs, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	place := func(program string) string { // a folder with zeek in it
		dir := t.TempDir()
		if err := os.Symlink(filepath.Join(programs, program), filepath.Join(dir, "zeek")); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	good, old, newer, nonsense := place("good"), place("old"), place("new"), place("nonsense")
	ctx := t.Context()

	find := func(ctx context.Context, configured string, path, usual []string) (Zeek, error) {
		return search{path: path, usual: usual}.find(ctx, configured)
	}

	z, err := find(ctx, "", []string{t.TempDir(), "", ".", good}, nil)
	if err != nil || z.Version != "8.0.10" || z.Path != filepath.Join(good, "zeek") {
		t.Errorf("in PATH: %v, %v", z, err)
	}
	if z, err = find(ctx, "", []string{old, nonsense}, []string{good}); err != nil || z.Version != "8.0.10" {
		t.Errorf("in a usual folder, behind an old one: %v, %v", z, err)
	}
	if _, err = find(ctx, "", []string{t.TempDir()}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("nowhere: %v", err)
	}
	var v *VersionError
	if _, err = find(ctx, "", []string{old, newer}, nil); !errors.As(err, &v) || v.Version != "5.2.2" {
		t.Errorf("too old: %v", err)
	}
	if _, err = find(ctx, newer, []string{good}, nil); !errors.As(err, &v) || v.Version != "10.0.0-dev.7" {
		t.Errorf("too new: %v", err)
	}
	if _, err = find(ctx, filepath.Join(good, "zeek"), nil, nil); err != nil {
		t.Errorf("configured: %v", err)
	}
	if _, err = find(ctx, filepath.Join(good, "nope"), []string{good}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("a configured path that is wrong: %v", err)
	}
	if _, err = find(ctx, t.TempDir(), []string{good}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("a configured folder that is empty: %v", err)
	}
	if _, err = find(ctx, "find.go", nil, nil); err == nil || !strings.Contains(err.Error(), "not an executable") {
		t.Errorf("a file that is no program: %v", err)
	}
	if _, err = find(ctx, nonsense, nil, nil); err == nil || len(err.Error()) > 2000 || !strings.Contains(err.Error(), "not what zeek answers") {
		t.Errorf("nonsense: %v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err = find(ctx, place("mute"), nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer: %v", err)
	}
}

// Root does not run what others may change, unless it is told to.
func TestFindForRoot(t *testing.T) {
	var evil, good string
	s := search{refuse: func(path string) string {
		if strings.HasPrefix(path, evil) {
			return "somebody owns it"
		}
		return ""
	}}
	place := func(program string) string {
		dir := t.TempDir()
		if err := os.Symlink(fake(t, program).Path, filepath.Join(dir, "zeek")); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	evil, good = place("good"), place("good")
	s.path, s.usual = []string{evil}, []string{good}
	if z, err := s.find(t.Context(), ""); err != nil || z.Path != filepath.Join(good, "zeek") {
		t.Errorf("behind one that others may change: %v, %v", z, err)
	}
	s.usual = nil
	_, err := s.find(t.Context(), "")
	if err == nil || errors.Is(err, ErrNotFound) {
		t.Fatalf("no other: %v", err)
	}
	for _, w := range []string{evil, "somebody owns it", "zeekscripts.zeek"} {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in %v", w, err)
		}
	}
	s.usual = []string{place("old")}
	var v *VersionError
	if _, err := s.find(t.Context(), ""); !errors.As(err, &v) || !strings.Contains(err.Error(), "zeekscripts.zeek") {
		t.Errorf("beside an old one: %v", err)
	}
	if z, err := s.find(t.Context(), evil); err != nil || z.Path != filepath.Join(evil, "zeek") {
		t.Errorf("configured: %v, %v", z, err)
	}
}

func TestChangeable(t *testing.T) {
	us := uint32(os.Getuid())
	base := t.TempDir()
	if why := changeable(base, us); why != "" {
		t.Skipf("NOT TESTED: temporary files lie where others may put things: %s", why)
	}
	at := func(name string) string { return filepath.Join(base, name) }
	folder := func(name string, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.Mkdir(at(name), 0o700), os.Chmod(at(name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.WriteFile(at(name), nil, 0o700), os.Chmod(at(name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, at(name)); err != nil {
			t.Fatal(err)
		}
	}
	folder("bin", 0o755)
	folder("open", 0o777)
	folder("group", 0o775)
	folder("sticky", 0o777|os.ModeSticky)
	folder("open/sub", 0o755)
	for _, dir := range []string{"bin", "open", "group", "sticky", "open/sub"} {
		file(dir+"/zeek", 0o755)
	}
	file("bin/world", 0o757)
	file("bin/group", 0o775)
	link("../open/zeek", "bin/relative")
	link(at("open/sub/../zeek"), "bin/absolute")
	link("../sticky/zeek", "bin/harmless")
	link("../open/back", "bin/through") // others may change the link in the middle
	link("../bin/zeek", "open/back")
	link("loop", "bin/loop")
	link("nowhere", "bin/dangling")
	for name, want := range map[string]string{
		"bin/zeek": "", "sticky/zeek": "", "bin/harmless": "",
		"open/zeek": "others may write to", "group/zeek": "others may write to", "open/sub/zeek": "others may write to",
		"bin/world": "others may write to", "bin/group": "others may write to", "bin/relative": "others may write to",
		"bin/absolute": "others may write to", "bin/through": "others may write to",
		"bin/loop": "too many symbolic links", "bin/dangling": "no such file",
	} {
		if got := changeable(at(name), us); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if us != 0 {
		if got := changeable(at("bin/zeek"), 0); !strings.Contains(got, "belongs to the user") {
			t.Errorf("ours, for root: %q", got)
		}
		return
	}
	file("bin/owned", 0o755)
	folder("theirs", 0o755)
	file("theirs/zeek", 0o755)
	link("zeek", "sticky/link")
	if err := errors.Join(os.Chown(at("bin/owned"), 12345, 0), os.Chown(at("theirs"), 12345, 0), os.Lchown(at("sticky/link"), 12345, 0)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bin/owned", "theirs/zeek", "sticky/link"} {
		if got := changeable(at(name), 0); !strings.Contains(got, "belongs to the user 12345") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// The version is asked as another user.
func TestFindAs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can be another user")
	}
	dir, err := os.MkdirTemp("/tmp", "slips-zeek-") //nolint:usetesting // another user may not get to those folders
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(dir, "zeek")
	if err := os.WriteFile(p, []byte("#!/bin/sh\necho \"zeek version 8.0.$(id -u)\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	z, err := Find(t.Context(), p, &syscall.Credential{Uid: 12345, Gid: 12345})
	if err != nil || z.Version != "8.0.12345" {
		t.Errorf("asked as 12345: %v, %v", z, err)
	}
}

func TestNewRefuses(t *testing.T) {
	z := fake(t, "good")
	for name, o := range map[string]Options{
		"no zeek":         {Dir: "d", Pcap: "p"},
		"no folder":       {Zeek: z, Pcap: "p"},
		"no source":       {Zeek: z, Dir: "d"},
		"two sources":     {Zeek: z, Dir: "d", Pcap: "p", Interfaces: []string{"lo"}},
		"twice":           {Zeek: z, Dir: "d", Interfaces: []string{"lo", "lo"}},
		"one folder":      {Zeek: z, Dir: "d", Interfaces: []string{"a:b", "a_b"}},
		"filter of other": {Zeek: z, Dir: "d", Interfaces: []string{"lo"}, Filters: map[string]string{"eth0": "tcp"}},
		"rotation":        {Zeek: z, Dir: "d", Interfaces: []string{"lo"}, Rotation: time.Millisecond},
		"negative":        {Zeek: z, Dir: "d", Interfaces: []string{"lo"}, Retention: -1},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestPcapErrors(t *testing.T) {
	pcap := filepath.Join(t.TempDir(), "a.pcap")
	if err := os.WriteFile(pcap, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, program, pcap, want string }{
		{"missing program", "no-such-program", pcap, "the program cannot be run"},
		{"dying", "dying", pcap, "CAP_NET_RAW"},
		{"hanging", "hanging", pcap, "nothing was heard of it"},
		{"babble", "babble", pcap, "without having begun"},
		{"missing pcap", "good", pcap + "x", "no such file"},
		{"folder", "good", filepath.Dir(pcap), "is a folder"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := New(Options{Zeek: fake(t, c.program), Pcap: c.pcap, Dir: dir, StartTimeout: 300 * time.Millisecond, Grace: 50 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			if c.name == "babble" || c.name == "dying" {
				s.o.StartTimeout = patience
			}
			err = s.Run(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 8000 {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
			if l := leftovers(t, dir); len(l) > 0 {
				t.Errorf("left: %q", l)
			}
		})
	}
}

// Zeek gets the packets whatever the file's name, and messages keep that.
func TestPcapNames(t *testing.T) {
	good := fake(t, "good")
	for _, name := range []string{"-x.pcap", "a::b.pcap", "af_packet::c"} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.WriteFile(name, []byte("packets"), 0o600); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), "with::colons")
			ready := make(chan string, 1)
			s, err := New(Options{Zeek: good, Pcap: name, Dir: dir, OnReady: func(s string) { ready <- s }})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := next(t, ready, "start"); filepath.Base(got) != name {
				t.Errorf("began to read %q", got)
			}
			b, err := os.ReadFile(filepath.Join(dir, "args.txt"))
			if err != nil {
				t.Fatal(err)
			}
			args := strings.Fields(string(b))
			if len(args) < 4 || args[2] != "-r" || args[3] != "-" {
				t.Errorf("arguments: %q", args)
			}
			if b, err := os.ReadFile(filepath.Join(dir, "pcap.txt")); err != nil || string(b) != "packets" {
				t.Errorf("zeek read %q, %v", b, err)
			}
			if l := leftovers(t, dir); !slices.Equal(l, []string{"args.txt", "pcap.txt"}) {
				t.Errorf("left: %q", l)
			}
			if b, err := os.ReadFile(name); err != nil || string(b) != "packets" {
				t.Errorf("the pcap itself: %q, %v", b, err)
			}
		})
	}
	pcap := filepath.Join(t.TempDir(), "a::b.pcap")
	if err := os.WriteFile(pcap, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	zeek := filepath.Join(t.TempDir(), "zeek")
	if err := os.WriteFile(zeek, []byte("#!/bin/sh\necho \"fatal error: problem with trace file $4\" >&2; exit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Zeek: Zeek{Path: zeek}, Pcap: pcap, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "a::b.pcap") || strings.Contains(err.Error(), scriptsDir) ||
		!strings.Contains(err.Error(), "problem with trace file") {
		t.Errorf("the message names another file: %v", err)
	}
}

// Packets that are made on the way come to Zeek as a file does, and who makes
// them is not waited for when Zeek ends before.
func TestPackets(t *testing.T) {
	for program, want := range map[string]string{"good": "", "dying": "permission to capture"} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteString("packets"); err != nil {
			t.Fatal(err)
		}
		if program == "good" {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		s, err := New(Options{Zeek: fake(t, program), Pcap: "of no file", Packets: r, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		err = s.Run(t.Context())
		if (want == "") != (err == nil) || err != nil && (!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "of no file")) {
			t.Errorf("%s: %v", program, err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "pcap.txt")); program == "good" && (err != nil || string(b) != "packets") {
			t.Errorf("zeek read %q, %v", b, err)
		}
		_, _ = r.Close(), w.Close()
	}
}

func TestPcapIntoOldLogs(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "conn.log"), []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Zeek: fake(t, "good"), Pcap: "main_test.go", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "already holds logs") {
		t.Errorf("got %v", err)
	}
}

func TestLive(t *testing.T) {
	dir := t.TempDir()
	ready := make(chan string, 8)
	s, stop := live(t, Options{
		Zeek: fake(t, "good"), Interfaces: []string{"lo", "x::y"}, Dir: dir, Filter: "ip or arp", Filters: map[string]string{"lo": "net 10.0.0.0/8"},
		Extra: []string{"site/more.zeek"}, OnReady: func(i string) { ready <- i },
	})
	got := []string{next(t, ready, "start"), next(t, ready, "start")}
	slices.Sort(got)
	if !slices.Equal(got, []string{"lo", "x::y"}) {
		t.Errorf("started: %q", got)
	}
	b, err := os.ReadFile(filepath.Join(s.Dirs()[0], "args.txt"))
	if err != nil {
		t.Fatal(err)
	}
	args := string(b)
	for _, w := range []string{"-C -i lo ", "-f (ip or arp) and (net 10.0.0.0/8) ", "__load__.zeek ", "site/more.zeek"} {
		if !strings.Contains(args, w) {
			t.Errorf("arguments %q lack %q", args, w)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	for _, d := range s.Dirs() {
		if l := leftovers(t, d); !slices.Equal(l, []string{"args.txt"}) {
			t.Errorf("left: %q", l)
		}
		if n, err := logsIn(d); err != nil || !slices.Equal(n, []string{"conn.log"}) {
			t.Errorf("logs: %q, %v", n, err)
		}
	}
}

func TestSettings(t *testing.T) {
	s, err := New(Options{Zeek: fake(t, "good"), Interfaces: []string{"lo"}, Dir: t.TempDir(), TCPInactivity: 90 * time.Minute, Rotation: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	got := (&watch{s: s, live: true}).settings()
	for _, w := range []string{"redef tcp_inactivity_timeout = 5400.000sec;\n", "redef Log::default_rotation_interval = 86400.000sec;\n"} {
		if !strings.Contains(got, w) {
			t.Errorf("%q lacks %q", got, w)
		}
	}
	if got := (&watch{s: s}).settings(); strings.Contains(got, "rotation") {
		t.Errorf("the logs of a pcap are rotated: %q", got)
	}
	if got, want := quote("a\"b\\c\n"), `"a\"b\\c\x0a"`; got != want {
		t.Errorf("quote: %s, want %s", got, want)
	}
}

func TestNoInterface(t *testing.T) {
	s, err := New(Options{Zeek: fake(t, "good"), Interfaces: []string{"slips-none0"}, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	var e *StartError
	if err := s.Run(t.Context()); !errors.As(err, &e) || !strings.Contains(err.Error(), "no such interface; there are") {
		t.Errorf("got %v", err)
	}
}

func TestFirstStartFails(t *testing.T) {
	s, err := New(Options{Zeek: fake(t, "dying"), Interfaces: []string{"lo"}, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	var e *StartError
	err = s.Run(t.Context())
	if !errors.As(err, &e) || !strings.Contains(e.Reason, "CAP_NET_RAW") || !strings.Contains(e.Zeek, "permission to capture") {
		t.Errorf("got %v", err)
	}
}

func TestIgnoresSIGTERM(t *testing.T) {
	dir := t.TempDir()
	ready := make(chan string, 1)
	var n notebook
	_, stop := live(t, Options{
		Zeek: fake(t, "stubborn"), Interfaces: []string{"lo"}, Dir: dir, Grace: 50 * time.Millisecond, Log: n.logger(),
		OnReady: func(i string) { ready <- i },
	})
	next(t, ready, "start")
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(n.String(), "does not end when it is told to") {
		t.Errorf("nothing said: %s", n.String())
	}
	if l := leftovers(t, dir); len(l) > 0 {
		t.Errorf("left: %q", l)
	}
}

func TestCrashAndRestart(t *testing.T) {
	dir := t.TempDir()
	ready := make(chan string, 8)
	gaps := make(chan Gap, 8)
	_, stop := live(t, Options{
		Zeek: fake(t, "crashing"), Interfaces: []string{"lo"}, Dir: dir,
		OnReady: func(i string) {
			if l := leftovers(t, dir); !slices.Equal(l, []string{"starts.txt"}) {
				t.Errorf("left for one who is killed: %q", l)
			}
			ready <- i
		},
		OnGap: func(g Gap) { gaps <- g },
	})
	next(t, ready, "first start")
	g := next(t, gaps, "gap")
	if g.Interface != "lo" || g.Starts != 2 || !g.To.After(g.From) || g.Err == nil || !strings.Contains(g.Err.Error(), "segmentation fault") {
		t.Errorf("gap: %+v", g)
	}
	next(t, ready, "third start")
	if err := stop(); err != nil {
		t.Error(err)
	}
	logs, err := logsIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(logs) != 3 || logs[0] != "conn.log" && logs[2] != "conn.log" {
		t.Errorf("the logs of the crashed are gone: %q", logs)
	}
	for _, l := range logs {
		if l != "conn.log" && !rotated.MatchString(l) {
			t.Errorf("%q is not named like a rotated log", l)
		}
	}
}

// The gap of a Zeek that hangs begins where it was heard of last. That nothing is
// heard is told soon, and once.
func TestHangsLater(t *testing.T) {
	gaps, losses, blind := make(chan Gap, 8), make(chan Loss, 10000), make(chan time.Time, 8)
	var n notebook
	const silence = time.Second
	_, stop := live(t, Options{
		Zeek: fake(t, "silent"), Interfaces: []string{"lo"}, Dir: t.TempDir(), Silence: silence, quiet: 50 * time.Millisecond, Log: n.logger(),
		OnGap:   func(g Gap) { gaps <- g },
		OnBlind: func(_ string, since time.Time) { blind <- since },
		OnLoss: func(l Loss) {
			select {
			case losses <- l:
			default:
			}
		},
	})
	since := next(t, blind, "word of the silence")
	g := next(t, gaps, "gap")
	if g.Err == nil || !strings.Contains(g.Err.Error(), "hangs") || since.IsZero() || !g.From.Equal(since) || g.To.Sub(g.From) < silence {
		t.Errorf("gap of %s, and blind since %s: %+v", g.To.Sub(g.From), since, g)
	}
	if said := strings.Count(n.String(), "nothing is heard of zeek"); said != 1 {
		t.Errorf("told %d times: %s", said, n.String())
	}
	want := Loss{Source: "lo", Log: "stats", Time: time.Unix(1700000000, 5e8).UTC(), Dropped: 10, Of: 100, Percent: 10}
	if l := next(t, losses, "loss"); l != want {
		t.Errorf("loss %+v, want %+v", l, want)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	var last time.Time
	for len(blind) > 0 {
		last = <-blind
	}
	if !last.IsZero() {
		t.Errorf("it runs again, and is said to be blind since %s", last)
	}
}

// A Zeek of which nothing was heard for a while, and then is, goes on; one of
// which nothing is heard until the end was blind until the end.
func TestQuietForAWhile(t *testing.T) {
	for _, again := range []bool{true, false} {
		dir := t.TempDir()
		gaps, blind := make(chan Gap, 8), make(chan time.Time, 8)
		_, stop := live(t, Options{
			Zeek: fake(t, "quiet"), Interfaces: []string{"lo"}, Dir: dir, quiet: 500 * time.Millisecond,
			OnGap: func(g Gap) { gaps <- g }, OnBlind: func(_ string, since time.Time) { blind <- since },
		})
		since := next(t, blind, "word of the silence")
		if since.IsZero() {
			t.Error("heard of again before nothing was heard")
		}
		if again {
			if err := os.WriteFile(filepath.Join(dir, "speak"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if now := next(t, blind, "word of its end"); !now.IsZero() {
				t.Errorf("blind since %s", now)
			}
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if again && len(gaps) > 0 || !again && (len(gaps) != 1 || !(<-gaps).From.Equal(since)) {
			t.Errorf("heard of again: %v, and wrong gaps", again)
		}
	}
}

// A Zeek that comes no further in a capture is ended, whatever it reads from.
func TestHangsInCapture(t *testing.T) {
	pcap := filepath.Join(t.TempDir(), "x.pcap")
	if err := os.WriteFile(pcap, []byte("packets"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, packets := range []io.Reader{nil, strings.NewReader("packets")} {
		var n notebook
		dir := t.TempDir()
		s, err := New(Options{
			Zeek: fake(t, "stuck"), Pcap: pcap, Dir: dir, Packets: packets, Silence: 300 * time.Millisecond, poll: 10 * time.Millisecond, Log: n.logger(),
			OnReady: func(string) {
				if l := leftovers(t, dir); len(l) > 0 {
					t.Errorf("left for one who is killed: %q", l)
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		err = s.Run(t.Context())
		if start := (*StartError)(nil); err == nil || errors.As(err, &start) || !strings.Contains(err.Error(), "it has read no packet and written nothing for 300ms") {
			t.Errorf("got %v", err)
		}
		if !strings.Contains(n.String(), "zeek hangs and is ended") {
			t.Errorf("nothing is said: %s", n.String())
		}
		if l := leftovers(t, dir); len(l) > 0 {
			t.Errorf("left: %q", l)
		}
	}
}

// How far Zeek has come shows from outside, and that packets are not there yet is
// not its fault.
func TestFeed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pcap")
	if err := os.WriteFile(path, make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Zeek: fake(t, "good"), Pcap: path, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	f, err := (&watch{s: s, source: path}).packets()
	if err != nil {
		t.Fatal(err)
	}
	defer f.file.Close()
	if n, waits := f.at(); n != 0 || waits {
		t.Errorf("at the beginning: %d, %v", n, waits)
	}
	cat := exec.CommandContext(t.Context(), "cat")
	cat.Stdin = f.file
	if err := cat.Run(); err != nil {
		t.Fatal(err)
	}
	if n, waits := f.at(); n != 5000 || waits {
		t.Errorf("at the end: %d, %v", n, waits)
	}
	made := make(source)
	f = &feed{from: made}
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, f)
		done <- err
	}()
	made <- 7
	made <- 0 // taken by the next Read
	if n, waits := f.at(); n != 7 || !waits {
		t.Errorf("in the middle: %d, %v", n, waits)
	}
	close(made)
	if err := next(t, done, "end"); err != nil {
		t.Fatal(err)
	}
	if n, waits := f.at(); n != 7 || waits {
		t.Errorf("behind the end: %d, %v", n, waits)
	}
}

// source gives as many bytes at a time as it is told. It waits for more at 0.
type source chan int

func (s source) Read([]byte) (int, error) {
	n, ok := <-s
	if ok && n == 0 {
		n, ok = <-s
	}
	if !ok {
		return 0, io.EOF
	}
	return n, nil
}

// An interface that comes while Zeek starts is the one that Zeek opens.
func TestInterfaceComesLate(t *testing.T) {
	dir := t.TempDir()
	looks, quit := make(chan int), make(chan struct{})
	var index atomic.Int64
	var n notebook
	_, stop := live(t, Options{
		Zeek: fake(t, "slow"), Interfaces: []string{"lo"}, Dir: dir, Log: n.logger(),
		index: func(string) int {
			n := int(index.Load())
			select {
			case looks <- n:
			case <-quit:
			}
			return n
		},
	})
	if n := next(t, looks, "first look"); n != 0 {
		t.Errorf("first look: %d", n)
	}
	index.Store(7)
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		next(t, looks, "further look")
	}
	if starts := strings.Count(n.String(), "zeek started"); starts != 1 {
		t.Errorf("started %d times: %s", starts, n.String())
	}
	close(quit)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// The reason why a Zeek ended is not what it happened to say last.
func TestVerdict(t *testing.T) {
	for _, c := range []struct{ script, said, want string }{
		{"kill -KILL $$", "listening on vb", `zeek on "vb": it was ended by the signal killed`},
		{"kill -SEGV $$", "", `zeek on "vb": it was ended by the signal segmentation fault`},
		{"kill -ABRT $$", "fatal error: out of memory\nlistening on vb", `zeek on "vb": it was ended by the signal aborted: zeek says "fatal error: out of memory"`},
		{"exit 3", "goodbye", `zeek on "vb": it ended with exit code 3: zeek says "goodbye"`},
		{"exit 3", "", `zeek on "vb": it ended with exit code 3`},
	} {
		p := &process{w: &watch{source: "vb", live: true}}
		p.out.each = func(string) {}
		if _, err := p.out.Write([]byte(c.said + "\n")); err != nil {
			t.Fatal(err)
		}
		ended := exec.CommandContext(t.Context(), "sh", "-c", c.script).Run()
		if err := p.verdict(true, ended, nil); err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", c.script, err, c.want)
		}
	}
}

func TestGarbled(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"conn.log": "{\"ts\":1}\n", "dns.log": "#separator \\x09\n", "http.log": "\x00\x00\x00", "ssl.2026-11-20-00-00-00.log": "\xff noise", "ftp.log": "", "x.txt": "\x00",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Garbled(dir)
	if want := []string{"http.log", "ssl.2026-11-20-00-00-00.log"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if got, err := Garbled(filepath.Join(dir, "none")); err != nil || got != nil {
		t.Errorf("no folder: %q, %v", got, err)
	}
}

// A program that does not tell its version leaves nothing behind when it is given up.
func TestNoVersionNoOrphan(t *testing.T) {
	for _, script := range []string{"sleep 1000", "sleep 1000 >/dev/null 2>&1 & echo 'no version'"} {
		dir := t.TempDir()
		pipe := filepath.Join(dir, "alive.fifo")
		if err := syscall.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
		zeek := filepath.Join(dir, "zeek")
		if err := os.WriteFile(zeek, []byte("#!/bin/sh\nexec 9> '"+pipe+"'\n"+script+"\nexit 1\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := ask(ctx, zeek, nil)
			done <- err
		}()
		f, err := os.Open(pipe) // waits until the program has opened it too
		if err != nil {
			t.Fatal(err)
		}
		if script == "sleep 1000" {
			cancel()
		}
		if err := next(t, done, "end of the question"); err == nil {
			t.Error("a version was told")
		}
		gone := make(chan error, 1)
		go func() {
			_, err := io.ReadAll(f) // ends when nobody holds the other end
			gone <- err
		}()
		if err := next(t, gone, "end of the orphan"); err != nil {
			t.Error(err)
		}
		cancel()
		f.Close()
	}
}

// An interface that goes away and comes back has another number in the kernel.
func TestInterfaceDisappears(t *testing.T) {
	ip := func(args ...string) error { return exec.CommandContext(t.Context(), "ip", args...).Run() }
	name := fmt.Sprintf("slz%d", os.Getpid()%100000)
	if err := ip("link", "add", name, "type", "veth", "peer", "name", name+"p"); err != nil {
		t.Skipf("NOT TESTED: no interface can be made here: %v", err)
	}
	defer exec.Command("ip", "link", "del", name).Run()
	ready, gaps := make(chan string, 8), make(chan Gap, 8)
	_, stop := live(t, Options{
		Zeek: fake(t, "good"), Interfaces: []string{name}, Dir: t.TempDir(), OnReady: func(i string) { ready <- i }, OnGap: func(g Gap) { gaps <- g },
	})
	next(t, ready, "start")
	if err := ip("link", "del", name); err != nil {
		t.Fatal(err)
	}
	if g := next(t, gaps, "gap"); g.Err == nil || !strings.Contains(g.Err.Error(), "disappeared") {
		t.Errorf("gap: %+v", g)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestLossAndReports(t *testing.T) {
	losses := make(chan Loss, 8)
	var n notebook
	_, stop := live(t, Options{
		Zeek: fake(t, "losing"), Interfaces: []string{"lo"}, Dir: t.TempDir(), Log: n.logger(), OnLoss: func(l Loss) { losses <- l },
	})
	want := []Loss{
		{Source: "lo", Log: "stats", Time: time.Unix(1700000000, 5e8).UTC(), Dropped: 100, Of: 1000, Percent: 10},
		{Source: "lo", Log: "capture_loss", Time: time.Unix(1700000060, 5e8).UTC(), Dropped: 5, Of: 20, Percent: 25},
	}
	for _, w := range want {
		if l := next(t, losses, "loss"); l != w {
			t.Errorf("loss %+v, want %+v", l, w)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(n.String(), "something broke") {
		t.Errorf("reporter.log is not read: %s", n.String())
	}
}

// Every packet is counted, and few lost ones are no reason to warn.
func TestStats(t *testing.T) {
	var sum packets
	lines := make(chan packets, 100)
	losses := make(chan Loss, 100)
	_, stop := live(t, Options{
		Zeek: fake(t, "counting"), Interfaces: []string{"lo"}, Dir: t.TempDir(), OnLoss: func(l Loss) { losses <- l },
		OnStats: func(source string, n, dropped int64) {
			if source != "lo" {
				t.Errorf("stats of %q", source)
			}
			lines <- packets{n, dropped}
		},
	})
	add := func(n packets) {
		sum.taken += n.taken
		sum.dropped += n.dropped
	}
	for range 60 { // one for each minute of an hour
		n := next(t, lines, "line of stats.log")
		if n != (packets{60_000_000, 50_000}) {
			t.Errorf("a line says %+v", n)
		}
		add(n)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	close(lines)
	for n := range lines {
		add(n)
	}
	if want := (packets{60*60_000_000 + 8, 60*50_000 + 2}); sum != want {
		t.Errorf("in all %+v, want %+v", sum, want)
	}
	close(losses)
	for l := range losses {
		if l.Dropped != 2 || l.Of != 10 {
			t.Errorf("warned of %+v", l)
		}
	}
}

// A supervisor that is killed takes Zeek with it, even one that ignores SIGTERM.
func TestKilledSupervisorLeavesNoOrphan(t *testing.T) {
	if alivePath(1) == "" {
		t.Skip("NOT TESTED: only on Linux does the kernel end the children of the killed")
	}
	dir := t.TempDir()
	pipe := filepath.Join(dir, "alive.fifo")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := helper(t, fake(t, "stubborn").Path, dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(pipe) // waits until the fake has opened it too
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the supervisor says %q: %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	gone := make(chan error, 1)
	go func() {
		_, err := io.ReadAll(f) // ends when nobody holds the other end
		gone <- err
	}()
	if err := next(t, gone, "end of the orphan"); err != nil {
		t.Error(err)
	}
	if l := leftovers(t, dir); !slices.Equal(l, []string{"alive.fifo"}) {
		t.Errorf("left: %q", l)
	}
}

// Logs go when their retention has ended. That of what an earlier run has left,
// which may not have been read, begins anew.
func TestSweep(t *testing.T) {
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for _, c := range []struct {
		name  string
		began time.Duration // before now
		read  func(path string) bool
		left  []string
	}{
		{"long ago", 10 * day, nil, []string{"conn.log", "conn.notes.log", "dns.2026-11-21-23-00-00.log"}},
		{"one retention ago", day, nil, []string{"conn.log", "conn.notes.log", "dns.2026-11-21-23-00-00.log"}},
		{"just now", 0, nil, []string{"conn.2026-11-20-00-00-00-1.log", "conn.2026-11-20-00-00-00.log", "conn.log", "conn.notes.log", "dns.2026-11-21-23-00-00.log"}},
		{
			"just now, and one is read", 0, func(path string) bool { return filepath.Base(path) == "conn.2026-11-20-00-00-00.log" },
			[]string{"conn.2026-11-20-00-00-00-1.log", "conn.log", "conn.notes.log", "dns.2026-11-21-23-00-00.log"},
		},
	} {
		dir := t.TempDir()
		for name, age := range map[string]time.Duration{
			"conn.2026-11-20-00-00-00.log":   2 * day,
			"conn.2026-11-20-00-00-00-1.log": 2 * day,
			"dns.2026-11-21-23-00-00.log":    time.Hour,
			"conn.log":                       2 * day, // quiet, and still written
			"conn.notes.log":                 2 * day, // not ours
			"conn.2026-11-20-00-00-00.txt":   2 * day,
		} {
			p := filepath.Join(dir, name)
			if err := os.WriteFile(p, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(p, now, now.Add(-age)); err != nil {
				t.Fatal(err)
			}
		}
		s, err := New(Options{Zeek: fake(t, "good"), Interfaces: []string{"lo"}, Dir: dir, Retention: day, Read: c.read})
		if err != nil {
			t.Fatal(err)
		}
		w := &watch{s: s, source: "lo", dir: dir, live: true, began: now.Add(-c.began)}
		n, err := w.sweep(now)
		if want := 5 - len(c.left); err != nil || c.read == nil && n != want || c.read != nil && n != 0 {
			t.Errorf("%s: removed %d, %v", c.name, n, err)
		}
		if n2, err := w.sweep(now); err != nil || n+n2 != 5-len(c.left) { // when what was read is saved
			t.Errorf("%s: removed %d, %v", c.name, n+n2, err)
		}
		if got, err := logsIn(dir); err != nil || !slices.Equal(got, c.left) {
			t.Errorf("%s: left %q, %v", c.name, got, err)
		}
	}
}

// A Zeek that was killed with us long ago has left logs that are read on after
// the next start: none of them is removed by then.
func TestStartKeepsLogs(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-72 * time.Hour)
	for _, name := range []string{"conn.log", "conn.2026-11-20-00-00-00.log"} {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte("{\"uid\":\"unread\"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(p, old, old); err != nil {
			t.Fatal(err)
		}
	}
	ready := make(chan string, 1)
	indexed := make(chan string, 100)
	_, stop := live(t, Options{
		Zeek: fake(t, "good"), Interfaces: []string{"lo"}, Dir: dir, Retention: 24 * time.Hour, OnReady: func(i string) { ready <- i },
		index: func(string) int { // asked at each look
			select {
			case indexed <- "":
			default:
			}
			return 1
		},
	})
	next(t, ready, "start")
	for range 4 {
		next(t, indexed, "look")
	}
	if err := stop(); err != nil { // which waits for the one that removes
		t.Error(err)
	}
	names, err := logsIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	unread := 0
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), "unread") {
			continue
		}
		unread++
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if set := name != "conn.2026-11-20-00-00-00.log"; set == st.ModTime().Before(old.Add(time.Hour)) {
			t.Errorf("%s was written at %s", name, st.ModTime())
		}
	}
	if unread != 2 {
		t.Errorf("of two logs nobody has read %d are left: %q", unread, names)
	}
}

func TestFollower(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	f := &follower{path: path}
	defer f.close()
	read := func() (got []string) {
		f.lines(func(b []byte) { got = append(got, string(b)) })
		return got
	}
	write := func(s string, flag int) {
		t.Helper()
		w, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|flag, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteString(s); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(); got != nil {
		t.Errorf("no file: %q", got)
	}
	write("a\nb", os.O_APPEND)
	if got := read(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("half a line: %q", got)
	}
	write("c\n", os.O_APPEND)
	if got := read(); !slices.Equal(got, []string{"bc"}) {
		t.Errorf("its other half: %q", got)
	}
	write("last words\n", os.O_APPEND)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write("new\nlonger than before\n", os.O_APPEND)
	if got := read(); !slices.Equal(got, []string{"last words", "new", "longer than before"}) {
		t.Errorf("rotated: %q", got)
	}
	write("still written\n", os.O_APPEND)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := read(); !slices.Equal(got, []string{"still written"}) {
		t.Errorf("removed: %q", got)
	}
	write("again\n", os.O_APPEND)
	if got := read(); !slices.Equal(got, []string{"again"}) {
		t.Errorf("there again: %q", got)
	}
	write("x\n", os.O_TRUNC)
	if got := read(); !slices.Equal(got, []string{"x"}) {
		t.Errorf("emptied: %q", got)
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("fatal error: x\nslips: zeek is ready\n"), 3)
	f.Add([]byte("\x1b[2J\xff\xfe\x00\n\n"), 1)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		n := 0
		l := lines{each: func(s string) {
			n++
			if s == "" || len(s) > 4*maxLine || strings.ContainsAny(s, "\x1b\x00\n") {
				t.Errorf("line %q", s)
			}
		}}
		cut = min(max(cut, 0), len(b))
		for _, p := range [][]byte{b[:cut], b[cut:]} {
			if k, err := l.Write(p); k != len(p) || err != nil {
				t.Fatalf("wrote %d, %v", k, err)
			}
		}
		l.flush()
		if len(l.kept) > maxKept || n > strings.Count(string(b), "\n")+1 {
			t.Errorf("%d lines, %d kept", n, len(l.kept))
		}
		_ = l.last()
	})
}

// A Zeek is not blamed for a time in which we stood still ourselves.
func TestPause(t *testing.T) {
	for _, c := range []struct {
		gap    time.Duration
		silent bool
	}{{time.Second, true}, {90 * time.Second, false}} {
		w := &watch{s: &Supervisor{o: Options{Silence: time.Minute, quiet: time.Hour, poll: time.Second}}, log: slog.New(slog.DiscardHandler)}
		h := newHealth(w)
		h.alive = time.Now().Add(-2 * time.Minute)
		h.ticked = time.Now().Add(-c.gap)
		h.resume()
		if got := h.silent(); got != c.silent {
			t.Errorf("after a tick that was %v late: silent %t, want %t", c.gap, got, c.silent)
		}
		if time.Since(h.ticked) > time.Second {
			t.Errorf("the tick is not noted")
		}
	}
}
