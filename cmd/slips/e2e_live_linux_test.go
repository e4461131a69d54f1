package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slips-go/slips/internal/netspace"
	"github.com/slips-go/slips/internal/privilege"
)

const (
	victim   = "10.77.0.1"
	attacker = "10.77.0.2"
)

// wire makes two hosts on one wire, and a web server on the first.
func wire(t *testing.T) (here, there *netspace.Space) {
	t.Helper()
	here = netspace.New(t, "live runs and blocking end to end")
	there = netspace.New(t, "live runs and blocking end to end")
	here.Link(there, "wire", []string{victim + "/24"}, []string{attacker + "/24", "10.77.0.3/24"})
	l := here.Listen(victim + ":8080")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	return here, there
}

// reaches reports whether the web server answers.
func reaches(from *netspace.Space, local string) bool {
	var c net.Conn
	err := from.Do(func() (err error) {
		d := net.Dialer{Timeout: time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(local)}}
		c, err = d.Dial("tcp", victim+":8080")
		return err
	})
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// scanFrom tries ports that nobody listens on, from one thread, until ctx ends.
func scanFrom(t *testing.T, from *netspace.Space, ports int) {
	t.Helper()
	scanPorts(t, from, 1000, ports)
}

func scanPorts(t *testing.T, from *netspace.Space, first, ports int) {
	t.Helper()
	err := from.Do(func() error {
		for port := first; port < first+ports; port++ {
			d := net.Dialer{Timeout: 2 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(attacker)}}
			c, err := d.Dial("tcp", net.JoinHostPort(victim, strconv.Itoa(port)))
			if err == nil {
				_ = c.Close()
				return errors.New("a port is open that should not be")
			}
			if !errors.Is(err, syscall.ECONNREFUSED) {
				return nil // blocked on the way
			}
		}
		return nil
	})
	must(t, err)
}

// watchOn starts the program in a namespace and waits until it captures.
func watchOn(t *testing.T, in *netspace.Space, out string, args ...string) *process {
	t.Helper()
	p := &process{
		cmd:  exec.CommandContext(t.Context(), "slips", append(args, "-o", out, "--set", "block.socket="+filepath.Join(filepath.Dir(out), "control.sock"))...),
		done: make(chan struct{}), run: filepath.Join(out, "metadata", "run.json"),
	}
	p.was = p.metadata()
	said, err := os.Create(filepath.Join(filepath.Dir(out), "said"))
	must(t, err)
	p.cmd.Stdout, p.cmd.Stderr = said, said
	must(t, in.Start(p.cmd))
	must(t, said.Close())
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	wait(t, "the interface to be captured on", func() bool {
		select {
		case <-p.done:
			t.Fatalf("it ended: %v: %s", p.err, p.said())
		default:
		}
		log, err := os.ReadFile(filepath.Join(out, "slips.log"))
		return err == nil && bytes.Contains(log, []byte("packets are read"))
	})
	return p
}

// said returns what a process of watchOn has printed.
func (p *process) said() string {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(filepath.Dir(p.run))), "said"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// tell runs a command of the program in the namespace.
func tell(t *testing.T, in *netspace.Space, out string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "slips", append(args, "--set", "block.socket="+filepath.Join(filepath.Dir(out), "control.sock"))...)
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	must(t, in.Start(cmd))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("slips %s: %v: %s", strings.Join(args, " "), err, text.String())
	}
	return text.String()
}

// changes reads the audit log.
func changes(t *testing.T, out string) (list []map[string]any) {
	t.Helper()
	for line := range strings.Lines(readFile(t, filepath.Join(out, "alerts", "blocks.jsonl"))) {
		var m map[string]any
		must(t, json.Unmarshal([]byte(line), &m))
		list = append(list, m)
	}
	return list
}

// A scan is seen on the wire by the meter, the scanner is blocked, and what the
// operator says counts. How long it takes is told, not judged: machines differ.
func TestScanIsBlocked(t *testing.T) {
	here, there := wire(t)
	out := filepath.Join(t.TempDir(), "out")
	p := watchOn(t, here, out, "-i", "wire", "--engine", "builtin", "--block")
	if !reaches(there, attacker) {
		t.Fatalf("the server does not answer before the scan: %s", p.said())
	}
	start := time.Now()
	scanFrom(t, there, 300)
	scanned := time.Since(start)
	wait(t, "the scanner to be blocked", func() bool { return !reaches(there, attacker) })
	at, err := time.Parse(time.RFC3339Nano, text(changes(t, out)[0]["time"]))
	must(t, err)
	t.Logf("the scan took %v; the scanner was blocked %v after its first packet", scanned, at.Sub(start))
	if !reaches(there, "10.77.0.3") {
		t.Error("the scanner's neighbour is blocked too")
	}
	if list := tell(t, here, out, "blocks"); !strings.Contains(list, attacker) {
		t.Errorf("slips blocks: %s", list)
	}
	if text := tell(t, here, out, "unblock", attacker, "--reason", "test"); !strings.Contains(text, attacker+" is not blocked any more") {
		t.Errorf("slips unblock: %s", text)
	}
	if !reaches(there, attacker) {
		t.Error("the server does not answer after slips unblock")
	}
	tell(t, here, out, "block", attacker, "--for", "2s")
	if reaches(there, attacker) {
		t.Error("the server answers after slips block")
	}
	wait(t, "the block to end by itself", func() bool { return reaches(there, attacker) })
	if code := p.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d: %s", code, p.said())
	}
	var actions []string
	for _, c := range changes(t, out) {
		actions = append(actions, text(c["action"]))
		if c["action"] == "block" && c["by"] == nil {
			if ids, ok := c["evidence"].([]any); !ok || len(ids) == 0 || text(c["alert"]) == "" {
				t.Errorf("a block without its evidence: %v", c)
			}
		}
	}
	if got := strings.Join(actions, " "); !strings.HasPrefix(got, "block ") || !strings.Contains(got, "unblock") {
		t.Errorf("audit log: %s", got)
	}
	if got := results(t, out); got.evidence.types(attacker)["VERTICAL_PORT_SCAN"] == 0 {
		t.Errorf("evidence: %v", got.evidence.types(attacker))
	}
}

// A dry run decides and writes down, and nobody is blocked.
func TestDryRunBlocksNobody(t *testing.T) {
	here, there := wire(t)
	out := filepath.Join(t.TempDir(), "out")
	p := watchOn(t, here, out, "-i", "wire", "--engine", "builtin", "--block=dry-run")
	scanFrom(t, there, 300)
	wait(t, "the decision", func() bool { return len(changes(t, out)) > 0 })
	if c := changes(t, out)[0]; c["dry_run"] != true || c["action"] != "block" || c["prefix"] != attacker {
		t.Errorf("the decision is %v", c)
	}
	if !reaches(there, attacker) {
		t.Error("a dry run blocks")
	}
	if list := tell(t, here, out, "blocks"); !strings.Contains(list, attacker) || !strings.Contains(list, "dry run") {
		t.Errorf("slips blocks: %s", list)
	}
	if code := p.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d: %s", code, p.said())
	}
}

// A host that goes on when a short block has ended is blocked again, for longer,
// though its score does not double for another alert at once.
func TestOffenderGoesOn(t *testing.T) {
	here, there := wire(t)
	out := filepath.Join(t.TempDir(), "out")
	p := watchOn(t, here, out, "-i", "wire", "--engine", "builtin", "--block", "--set", "block.duration=4s")
	first := 10_000
	var blocks []map[string]any
	wait(t, "the second block", func() bool {
		scanPorts(t, there, first, 20)
		first += 20
		blocks = nil
		for _, c := range changes(t, out) {
			if c["action"] == "block" {
				blocks = append(blocks, c)
			}
		}
		return len(blocks) >= 2
	})
	if n, ok := blocks[1]["offences"].(float64); !ok || n != 2 {
		t.Errorf("the second block is %v", blocks[1])
	}
	if code := p.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d: %s", code, p.said())
	}
}

// A host that the whitelist keeps quiet about is not blocked, and the audit log
// says by which line.
func TestWhitelistedIsSpared(t *testing.T) {
	here, there := wire(t)
	dir := t.TempDir()
	out, white := filepath.Join(dir, "out"), filepath.Join(dir, "whitelist.conf")
	writeFile(t, white, "ip,"+attacker+",both,alerts\n")
	p := watchOn(t, here, out, "-i", "wire", "--engine", "builtin", "--block", "--set", "whitelists.local_whitelist_path="+white)
	scanFrom(t, there, 300)
	wait(t, "the refusal", func() bool { return len(changes(t, out)) > 0 })
	if c := changes(t, out)[0]; c["action"] != "refuse" || c["prefix"] != attacker || !strings.Contains(text(c["reason"]), "whitelist.conf, line 1") {
		t.Errorf("the audit log has %v", c)
	}
	if !reaches(there, attacker) {
		t.Error("a whitelisted host is blocked")
	}
	if code := p.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d: %s", code, p.said())
	}
}

// Zeek is started on the interface, what it logs is followed, and both end
// together: no process of it is left, and what it knew at the end counts.
func TestZeekWatches(t *testing.T) {
	zeek := realZeek(t)
	here, there := wire(t)
	out := filepath.Join(t.TempDir(), "out")
	p := watchOn(t, here, out, "-i", "wire", "--engine", "zeek", "--set", "zeekscripts.zeek="+zeek)
	wait(t, "Zeek to begin", func() bool { return strings.Contains(p.said(), "packets are read by Zeek") })
	scanFrom(t, there, 100)
	wait(t, "Zeek to log the scan", func() bool {
		text, err := os.ReadFile(filepath.Join(out, zeekFiles, "wire", "conn.log"))
		return err == nil && bytes.Count(text, []byte("\n")) > 50
	})
	if code := p.end(t, syscall.SIGTERM); code != 0 {
		t.Fatalf("exit code %d: %s", code, p.said())
	}
	got := results(t, out)
	if got.summary.Kinds["conn"] < 100 || got.evidence.types(attacker)["VERTICAL_PORT_SCAN"] == 0 {
		t.Errorf("%v, %v", got.summary.Kinds, got.evidence.types(attacker))
	}
	if left := processesOf(t, out); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
}

// A Zeek that is there and cannot start gives way to the meter, which captures
// with the right that was kept for Zeek, and gives it up. Who insists on Zeek
// hears why there is none.
func TestZeekThatCannotStart(t *testing.T) {
	here, there := wire(t)
	for _, c := range []struct{ name, zeek, says, sudo string }{
		{"crashes", fakeZeek(t, "8.0.1", "echo 'fatal error: no such thing' >&2; kill -SEGV $$"), "no such thing", "0"},
		{"refuses scripts", fakeZeek(t, "8.0.1", "echo 'error in x.zeek, line 1: unknown identifier' >&2; exit 1"), "a script cannot be compiled", "0"},
		{"ends at once", fakeZeek(t, "8.0.1", "exit 0"), "without having begun to read packets", "0"},
		{"for a user", fakeZeek(t, "8.0.1", "exit 0"), "without having begun to read packets", strconv.Itoa(somebody)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("SUDO_UID", c.sudo)
			t.Setenv("SUDO_GID", c.sudo)
			enterable(t, filepath.Dir(c.zeek))
			out := filepath.Join(openFolder(t, 0), "out")
			args := []string{"-i", "wire", "--set", "zeekscripts.zeek=" + c.zeek}
			if c.sudo != "0" && privilege.Supported() != nil { // built with cgo: root would write through links of that user
				cmd := exec.CommandContext(t.Context(), "slips", append(args, "-o", out)...)
				var text bytes.Buffer
				cmd.Stdout, cmd.Stderr = &text, &text
				must(t, here.Start(cmd))
				var exit *exec.ExitError
				if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitPermission || !strings.Contains(text.String(), "CGO_ENABLED=0") {
					t.Errorf("root that cannot become a user: %v: %s", err, text.String())
				}
				return
			}
			p := watchOn(t, here, out, append(args, "--engine", "auto")...)
			scanFrom(t, there, 100)
			wait(t, "evidence", func() bool {
				text, err := os.ReadFile(filepath.Join(out, "alerts", "evidence.jsonl"))
				return err == nil && len(text) > 0
			})
			if run := readFile(t, p.run); !strings.Contains(run, `"engine": "builtin"`) {
				t.Errorf("run.json does not name the engine: %s", run)
			}
			if !strings.Contains(readFile(t, filepath.Join(out, "slips.log")), "built with cgo") { // which gives nothing up
				who := strings.Join([]string{c.sudo, c.sudo, c.sudo, c.sudo}, ",")
				if r := rights(t, p.cmd.Process.Pid); r["Uid"] != who || r["CapEff"] != "" || r["NoNewPrivs"] != "1" {
					t.Errorf("the meter goes on as %v", r)
				}
			}
			if code := p.end(t, syscall.SIGTERM); code != 0 {
				t.Fatalf("exit code %d: %s", code, p.said())
			}
			if said := p.said(); !strings.Contains(said, c.says) || !strings.Contains(said, "read by the built-in meter") || strings.Contains(said, "read by Zeek") {
				t.Errorf("it says: %s", said)
			}
			got := results(t, out)
			if got.summary.Kinds["conn"] < 100 || got.summary.Extra.Engine != "builtin" || len(got.summary.Interfaces) != 1 || got.summary.Interfaces[0].Packets == 0 {
				t.Errorf("%v, engine %q, %+v", got.summary.Kinds, got.summary.Extra.Engine, got.summary.Interfaces)
			}
			if _, err := os.Stat(filepath.Join(out, zeekFiles)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the folder of Zeek's logs: %v", err)
			}

			cmd := exec.CommandContext(t.Context(), "slips", append(args, "--engine", "zeek", "-o", out+"2")...)
			var text bytes.Buffer
			cmd.Stdout, cmd.Stderr = &text, &text
			must(t, here.Start(cmd))
			err := cmd.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != exitSensor || !strings.Contains(text.String(), c.says) {
				t.Errorf("--engine zeek: %v: %s", err, text.String())
			}
		})
	}
}

// A Zeek that has begun and crashes is started again, and not replaced.
func TestZeekThatCrashesLater(t *testing.T) {
	here, _ := wire(t)
	zeek := fakeZeek(t, "8.0.1", "echo x >> starts; echo 'slips: zeek is ready' >&2; [ $(wc -l < starts) = 1 ] && exit 1; exec sleep 100")
	out := filepath.Join(t.TempDir(), "out")
	p := watchOn(t, here, out, "-i", "wire", "--set", "zeekscripts.zeek="+zeek)
	wait(t, "Zeek to begin again", func() bool { return strings.Count(p.said(), "packets are read by Zeek") == 2 })
	if code := p.end(t, syscall.SIGTERM); code != 0 || strings.Contains(p.said(), "meter") {
		t.Errorf("exit code %d: %s", code, p.said())
	}
	if run := readFile(t, p.run); !strings.Contains(run, `"engine": "zeek 8.0.1 (`) {
		t.Errorf("run.json does not name the engine: %s", run)
	}
}

// A detached run on an interface comes back once Zeek reads packets.
func TestDetachedZeek(t *testing.T) {
	zeek := realZeek(t)
	here, there := wire(t)
	dir := t.TempDir()
	out, pid := filepath.Join(dir, "out"), filepath.Join(dir, "run", "slips.pid")
	tell(t, here, out, "-D", "-i", "wire", "--engine", "zeek", "--set", "zeekscripts.zeek="+zeek, "-o", out, "--pidfile", pid)
	scanFrom(t, there, 50)
	wait(t, "Zeek to log the scan", func() bool { // what still waits in the kernel when Zeek ends is lost
		text, err := os.ReadFile(filepath.Join(out, zeekFiles, "wire", "conn.log"))
		return err == nil && bytes.Count(text, []byte("\n")) >= 50
	})
	tell(t, here, out, "-S", "--pidfile", pid)
	if got := results(t, out); got.summary.Kinds["conn"] < 50 {
		t.Errorf("%v", got.summary.Kinds)
	}
	if left := processesOf(t, out); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
}

// processesOf lists the processes that work in a folder.
func processesOf(t *testing.T, dir string) (list []string) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	must(t, err)
	for _, l := range links {
		if cwd, err := os.Readlink(l); err == nil && strings.HasPrefix(cwd, dir) {
			list = append(list, l)
		}
	}
	return list
}

// A run that is killed leaves no Zeek behind, and the next one goes on where it
// was.
func TestKilledRunLeavesNoZeek(t *testing.T) {
	zeek := realZeek(t)
	here, there := wire(t)
	out := filepath.Join(t.TempDir(), "out")
	args := []string{"-i", "wire", "--engine", "zeek", "--set", "zeekscripts.zeek=" + zeek, "--set", "profiler.checkpoint_interval=200ms"}
	p := watchOn(t, here, out, args...)
	wait(t, "Zeek to begin", func() bool { return strings.Contains(p.said(), "packets are read by Zeek") })
	scanFrom(t, there, 100)
	wait(t, "evidence", func() bool {
		text, err := os.ReadFile(filepath.Join(out, "alerts", "evidence.jsonl"))
		return err == nil && len(text) > 0
	})
	p.end(t, syscall.SIGKILL)
	wait(t, "Zeek to end", func() bool { return len(processesOf(t, out)) == 0 })
	p = watchOn(t, here, out, args...)
	wait(t, "Zeek to begin again", func() bool { return strings.Contains(p.said(), "packets are read by Zeek") })
	if code := p.end(t, syscall.SIGTERM); code != 0 {
		t.Fatalf("exit code %d: %s", code, p.said())
	}
	if got := results(t, out); got.evidence.types(attacker)["VERTICAL_PORT_SCAN"] == 0 { // results checks that no line is there twice
		t.Errorf("evidence: %v", got.evidence.types(attacker))
	}
}

// What fails beside the pipeline ends a live run, and does not leave it
// capturing for nobody.
func TestLiveRunFails(t *testing.T) {
	here, _ := wire(t)
	for _, engine := range []string{"builtin", "zeek"} {
		t.Run(engine, func(t *testing.T) {
			args := []string{"-i", "wire", "-o", filepath.Join(t.TempDir(), "out"), "--engine", engine, "--health-file", "/proc/none/health"}
			if engine == "zeek" {
				args = append(args, "--set", "zeekscripts.zeek="+realZeek(t))
			}
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, "slips", args...)
			var text bytes.Buffer
			cmd.Stdout, cmd.Stderr = &text, &text
			must(t, here.Start(cmd))
			err := cmd.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != exitOutput || !strings.Contains(text.String(), "/proc/none") {
				t.Errorf("%v, want exit code %d: %s", err, exitOutput, text.String())
			}
		})
	}
}

// A blocked host cannot free itself, nor make itself one that is never blocked,
// by what it says it is.
func TestForgedServerIsBlocked(t *testing.T) {
	here, there := wire(t)
	out := filepath.Join(t.TempDir(), "out")
	p := watchOn(t, here, out, "-i", "wire", "--engine", "builtin", "--block")
	forge := func() {
		must(t, there.Do(func() error {
			c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(attacker), Port: 67}, &net.UDPAddr{IP: net.ParseIP(victim), Port: 68})
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }() // it was sent or it was not
			m := make([]byte, 236, 300)
			m[0], m[1], m[2] = 2, 1, 6 // BOOTREPLY, Ethernet
			copy(m[16:], []byte{10, 77, 0, 9})
			m = append(m, 99, 130, 83, 99, 53, 1, 5, 54, 4, 10, 77, 0, 2, 3, 4, 10, 77, 0, 2, 51, 4, 0, 0, 14, 16, 255) // ACK: it is server and router
			_, err = c.Write(m)
			return err
		}))
	}
	forge()
	scanFrom(t, there, 300)
	wait(t, "the scanner to be blocked", func() bool { return !reaches(there, attacker) })
	until := time.Now().Add(2 * time.Second)
	wait(t, "nothing to happen", func() bool { // a try to connect takes a second, and the message is taken up within
		forge()
		if reaches(there, attacker) {
			t.Fatal("a forged DHCP message ends the block")
		}
		return time.Now().After(until)
	})
	if code := p.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d: %s", code, p.said())
	}
}
