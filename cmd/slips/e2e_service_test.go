//go:build unix

package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// A service manager hears that the run is ready, that it goes on when nothing
// comes in, that it reloads, and that it ends.
func TestServiceManager(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "n"), Net: "unixgram"})
	must(t, err)
	defer func() { _ = socket.Close() }() // only read
	logs, out, health := filepath.Join(dir, "logs"), filepath.Join(dir, "out"), filepath.Join(dir, "health")
	must(t, os.Mkdir(logs, 0o755))
	white := filepath.Join(dir, "whitelist.conf")
	writeFile(t, white, "ip,192.0.2.1,both,both\n")
	p := &process{cmd: exec.CommandContext(t.Context(), "slips", "--follow", logs, "-o", out, "--health-file", health,
		"--set", "whitelists.local_whitelist_path="+white), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "n"), "WATCHDOG_USEC=3000000")
	p.cmd.Stdout, p.cmd.Stderr = &p.text, &p.text
	must(t, p.cmd.Start())
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	hear := func(want string) {
		t.Helper()
		b := make([]byte, 4096)
		must(t, socket.SetReadDeadline(time.Now().Add(30*time.Second)))
		for {
			n, err := socket.Read(b)
			if err != nil {
				t.Fatalf("%q is not said: %v", want, err)
			}
			if strings.HasPrefix(string(b[:n]), want) {
				return
			}
		}
	}
	hear("READY=1\nSTATUS=reads " + logs)
	hear("WATCHDOG=1")
	hear("WATCHDOG=1")
	checkUp := func(want int) {
		t.Helper()
		var text bytes.Buffer
		if code := Main(t.Context(), []string{"health", health}, nil, nil, &text, &text); code != want {
			t.Errorf("health: exit code %d, want %d: %s", code, want, text.String())
		}
	}
	checkUp(exitOK)
	// slips.log goes on under its name, and the whitelist is read at once.
	must(t, os.Rename(filepath.Join(out, "slips.log"), filepath.Join(out, "slips.log.1")))
	writeFile(t, white, "ip,192.0.2.1,both,both\nip,192.0.2.2,both,both\n")
	must(t, p.cmd.Process.Signal(syscall.SIGHUP))
	hear("RELOADING=1")
	hear("READY=1")
	if log := readFile(t, filepath.Join(out, "slips.log")); !strings.Contains(log, "reloaded") {
		t.Errorf("the new slips.log says %q", log)
	}
	if both := readFile(t, filepath.Join(out, "slips.log.1")) + readFile(t, filepath.Join(out, "slips.log")); !strings.Contains(both, "the whitelist has changed") {
		t.Errorf("the whitelist was not read again: %s", both)
	}
	must(t, p.cmd.Process.Signal(syscall.SIGTERM))
	hear("STOPPING=1")
	<-p.done
	if p.err != nil {
		t.Errorf("%v: %s", p.err, p.text.String())
	}
	checkUp(exitInternal)
}

// -D comes back when the run reads, a second one is refused, and -S ends it in
// good order. What is wrong is said by -D itself.
func TestDetachedRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	logs, out, pid := filepath.Join(dir, "logs"), filepath.Join(dir, "out"), filepath.Join(dir, "run", "slips.pid")
	must(t, os.Mkdir(logs, 0o755))
	slips := func(want int, says string, args ...string) {
		t.Helper()
		var text bytes.Buffer
		cmd := exec.CommandContext(t.Context(), "slips", args...)
		cmd.Stdout, cmd.Stderr = &text, &text
		code := 0
		if err := cmd.Run(); err != nil {
			code = cmd.ProcessState.ExitCode()
		}
		if code != want || !strings.Contains(text.String(), says) {
			t.Fatalf("slips %s: exit code %d, want %d and %q in: %s", strings.Join(args, " "), code, want, says, text.String())
		}
	}
	slips(exitUsage, "not running", "-S", "--pidfile", pid)
	slips(exitOutput, "is a file", "-D", "--follow", logs, "-o", os.Args[0], "--pidfile", pid)
	slips(exitUsage, "no such module", "-D", "--follow", logs, "-o", out, "--pidfile", pid, "--disable", "nothing")
	slips(exitOK, "slips runs as process", "-D", "--follow", logs, "-o", out, "--pidfile", pid)
	slips(exitUsage, "", "-D", "--follow", logs, "-o", filepath.Join(dir, "other"), "--pidfile", pid)
	slips(exitOK, "has ended", "-S", "--pidfile", pid)
	results(t, out)
	slips(exitOK, "slips runs as process", "-D", "--follow", logs, "-o", out, "--pidfile", pid) // it goes on
	slips(exitOK, "has ended", "-S", "--pidfile", pid)
}

// The flags in the files for service managers and containers are flags that
// there are.
func TestDeployedFlags(t *testing.T) {
	t.Parallel()
	var f runFlags
	s := pflag.NewFlagSet("slips", pflag.ContinueOnError)
	f.register(s)
	flag := regexp.MustCompile(`(?:^|[\s\[,"=])(--?[a-z][a-z-]*)`)
	for _, name := range []string{"systemd/slips.service", "systemd/follow.conf", "systemd/slips.env", "docker/compose.yaml"} {
		used := 0
		for line := range strings.Lines(readFile(t, filepath.Join("..", "..", "config", filepath.FromSlash(name)))) {
			line = strings.TrimSpace(line)
			if !strings.HasPrefix(line, "ExecStart=/usr/bin/slips") && !strings.HasPrefix(line, "command:") {
				continue
			}
			for _, m := range flag.FindAllStringSubmatch(line, -1) {
				used++
				known := s.Lookup(strings.TrimLeft(m[1], "-")) != nil
				if !strings.HasPrefix(m[1], "--") {
					known = s.ShorthandLookup(m[1][1:2]) != nil
				}
				if !known {
					t.Errorf("%s: there is no flag %s", name, m[1])
				}
			}
		}
		if used == 0 && name != "systemd/slips.env" {
			t.Errorf("%s: no flag was found", name)
		}
	}
}
