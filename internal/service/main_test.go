package service

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// TestMain is one of the processes that the tests start when it is asked to.
func TestMain(m *testing.M) {
	switch role := os.Getenv("TEST_SERVICE"); role {
	case "":
		goleak.VerifyTestMain(m)
	case "parent":
		os.Exit(parent())
	default:
		os.Exit(daemon(role))
	}
}

// daemon is a detached process, of the kind that role names.
func daemon(role string) int {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	d, env, err := Attach(os.Environ())
	if err != nil || d == nil {
		fmt.Fprintln(os.Stderr, "cannot attach:", err)
		return 6
	}
	switch role {
	case "fails":
		fmt.Fprintln(os.Stderr, "interface \"eth9\" is not there")
		return 3
	case "hangs":
		fmt.Println("still starting")
		<-term
		return 0
	case "stubborn":
		signal.Reset(syscall.SIGTERM)
		signal.Ignore(syscall.SIGTERM)
	case "child", "fails with a child":
		c := exec.Command("sleep", "60")
		if err := c.Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println("child", c.Process.Pid)
		if role != "child" {
			return 3
		}
	}
	sid, err := unix.Getsid(0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err == nil {
		tty.Close()
	}
	in, _ := os.Stdin.Stat()
	null, _ := os.Stat(os.DevNull)
	dir, _ := os.Getwd()
	fmt.Printf("pid %d\nleader %t\nterminal %t\nnull %t\ndir %s\nleft %t\nargs %s\n", os.Getpid(), sid == os.Getpid(), tty != nil,
		os.SameFile(in, null), dir, strings.Contains(strings.Join(env, "\n"), detachedEnv), strings.Join(os.Args[1:], " "))
	if err := d.Ready(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	<-term // a stubborn one waits for SIGKILL
	fmt.Println("ended")
	if err := d.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// parent detaches a process and ends.
func parent() int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := Detach(ctx, Options{
		Env: append(os.Environ(), "TEST_SERVICE=obeys"), PIDFile: os.Getenv("TEST_PIDFILE"), Log: os.Getenv("TEST_LOG"),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
