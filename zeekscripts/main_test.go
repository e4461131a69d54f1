package zeekscripts

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain runs a supervisor instead of the tests when it is asked to, so that
// a test can kill it.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SLIPS_TEST_SUPERVISE"); dir != "" {
		z, err := Find(context.Background(), os.Getenv("SLIPS_TEST_ZEEK"), nil)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		s, err := New(Options{Zeek: z, Dir: dir, Interfaces: []string{"lo"}, OnReady: func(string) { _, _ = os.Stdout.WriteString("ready\n") }})
		if err == nil {
			err = s.Run(context.Background())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// fake returns one of the programs in testdata.
func fake(t *testing.T, name string) Zeek {
	t.Helper()
	p, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return Zeek{Path: p, Version: "8.0.0"}
}

// real returns the Zeek of SLIPS_ZEEK, PATH or the usual folders.
func real(t *testing.T) Zeek {
	t.Helper()
	z, err := Find(t.Context(), os.Getenv("SLIPS_ZEEK"), nil)
	if err != nil {
		t.Skipf("NOT TESTED against a real zeek: %v; set SLIPS_ZEEK to its path", err)
	}
	return z
}

// dataset returns a capture of the shared data sets.
func dataset(t *testing.T, name string) string {
	t.Helper()
	root := os.Getenv("SLIPS_DATASETS")
	if root == "" {
		root = "../../shared/datasets"
	}
	p, err := filepath.Abs(filepath.Join(root, "pcap", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p); err != nil {
		t.Skipf("NOT TESTED on real traffic: %v; set SLIPS_DATASETS to its folder", err)
	}
	return p
}

// record is a line of a log.
type record map[string]any

// text returns a field as it stands in the log; empty when it is not there.
func (r record) text(name string) string {
	switch v := r[name].(type) {
	case nil:
		return ""
	case string:
		return v
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
}

// readLog returns the records of a log; none when there is no such file.
func readLog(t *testing.T, dir, name string) []record {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, name+".log"))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []record
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		var r record
		if err := json.Unmarshal(sc.Bytes(), &r); err != nil {
			t.Fatalf("%s.log is not JSON: %v: %q", name, err, sc.Text())
		}
		all = append(all, r)
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// notebook is a log for people that a test reads.
type notebook struct {
	mu sync.Mutex
	b  strings.Builder
}

func (n *notebook) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.Write(b)
}

func (n *notebook) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.String()
}

func (n *notebook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(n, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// readPcap runs Zeek on a capture and returns the folder of its logs.
func readPcap(t *testing.T, z Zeek, pcap string) string {
	t.Helper()
	dir := t.TempDir()
	var n notebook
	s, err := New(Options{Zeek: z, Pcap: pcap, Dir: dir, Log: n.logger()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(n.String(), "\n") {
		if strings.Contains(line, scriptsDir) && strings.Contains(line, "zeek says") {
			t.Errorf("zeek complains of our scripts: %s", line)
		}
	}
	for _, r := range readLog(t, dir, "reporter") {
		if strings.Contains(r.text("location"), scriptsDir) || r.text("level") == "Reporter::ERROR" {
			t.Errorf("zeek reports: %v", r)
		}
	}
	return dir
}

// live starts a supervisor on interfaces; the function it returns stops it
// and returns what Run returned.
func live(t *testing.T, o Options) (s *Supervisor, stop func() error) {
	t.Helper()
	if o.poll == 0 {
		o.poll = 10 * time.Millisecond
	}
	if o.backoff == 0 {
		o.backoff = 10 * time.Millisecond
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	var result error
	stop = func() error {
		once.Do(func() {
			cancel()
			result = <-done
		})
		return result
	}
	t.Cleanup(func() { _ = stop() })
	return s, stop
}

// helper is this test program as a supervisor of its own.
func helper(t *testing.T, zeek, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "SLIPS_TEST_SUPERVISE="+dir, "SLIPS_TEST_ZEEK="+zeek)
	cmd.Stderr = os.Stderr
	return cmd
}
