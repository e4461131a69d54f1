package main

import (
	"bytes"
	"errors"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/slips-go/slips/internal/netspace"
)

// knock sends a datagram to ports that nobody listens on. Such flows are open
// for a minute.
func knock(t *testing.T, from *netspace.Space, ports int) {
	t.Helper()
	must(t, from.Do(func() error {
		for port := 20_000; port < 20_000+ports; port++ {
			d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(attacker)}}
			c, err := d.Dial("udp", net.JoinHostPort(victim, strconv.Itoa(port)))
			if err != nil {
				return err
			}
			if _, err := c.Write([]byte("x")); err != nil {
				return err
			}
			must(t, c.Close())
		}
		return nil
	}))
}

// ask runs a command of the program in the namespace, and returns what it says
// and its exit code.
func ask(t *testing.T, in *netspace.Space, out string, args ...string) (said string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "slips", append(args, "--set", "block.socket="+filepath.Join(filepath.Dir(out), "control.sock"))...)
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	must(t, in.Start(cmd))
	err := cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return text.String(), cmd.ProcessState.ExitCode()
}

// What is found out at the end of a run blocks, says that nobody will be there,
// and the host can be freed all the same.
func TestBlockAtTheEnd(t *testing.T) {
	here, there := wire(t)
	out := filepath.Join(t.TempDir(), "out")
	p := watchOn(t, here, out, "-i", "wire", "--engine", "builtin", "--block")
	knock(t, there, 300)
	if !reaches(there, "10.77.0.3") {
		t.Fatalf("the server does not answer: %s", p.said())
	}
	if code := p.end(t, syscall.SIGTERM); code != 0 {
		t.Fatalf("exit code %d: %s", code, p.said())
	}
	const says = `blocked while stopping: it ends by itself, and "slips unblock 10.77.0.2" frees it before`
	list := changes(t, out)
	if len(list) == 0 || list[0]["action"] != "block" || !strings.HasSuffix(text(list[0]["reason"]), says) {
		t.Fatalf("the audit log has %v", list)
	}
	if !strings.Contains(p.said(), says) {
		t.Errorf("it does not say so: %s", p.said())
	}
	for _, c := range []struct {
		args []string
		says string
		code int
	}{
		{[]string{"blocks"}, attacker, 0},
		{[]string{"unblock", "10.77.0.0/24"}, "10.77.0.2, a part of 10.77.0.0/24, is still blocked by itself", exitBlock},
		{[]string{"unblock", attacker}, attacker + " is not blocked any more", 0},
		{[]string{"unblock", attacker}, "nothing of it was blocked", 0},
	} {
		if said, code := ask(t, here, out, c.args...); !strings.Contains(said, c.says) || code != c.code {
			t.Errorf("slips %v: exit code %d: %s", c.args, code, said)
		}
	}
	if !reaches(there, attacker) {
		t.Error("the server does not answer after slips unblock")
	}
}

// What an operator names is not freed as long as a network holds it, and that
// is no success. The list says who has blocked it, and why, also when the slips
// that was told is gone.
func TestBlockedNetwork(t *testing.T) {
	here, _ := wire(t)
	out := filepath.Join(t.TempDir(), "out")
	p := watchOn(t, here, out, "-i", "wire", "--engine", "builtin", "--block")
	commands := []struct {
		args []string
		says string
		code int
	}{
		{[]string{"unblock", "10.95.0.7"}, "10.95.0.7 is still blocked, as a part of 10.95.0.0/24: unblock that", exitBlock},
		{[]string{"unblock", "10.96.0.7"}, "nothing of it was blocked", 0},
		{[]string{"blocks"}, ": ticket 4711", 0},
		{[]string{"blocks", "--json"}, `"reason": "ticket 4711"`, 0},
	}
	tell(t, here, out, "block", "10.95.0.0/24", "--reason", "ticket 4711")
	for _, running := range []bool{true, false} {
		if !running {
			if code := p.end(t, syscall.SIGTERM); code != 0 {
				t.Errorf("exit code %d: %s", code, p.said())
			}
		}
		for _, c := range commands {
			said, code := ask(t, here, out, c.args...)
			if !strings.Contains(said, c.says) || code != c.code || strings.Contains(said, `"alert"`) ||
				strings.Contains(said, "no slips is running") != (!running && !slices.Contains(c.args, "--json")) {
				t.Errorf("slips %v, running %v: exit code %d: %s", c.args, running, code, said)
			}
		}
	}
}
