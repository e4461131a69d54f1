// Command slips finds hosts that behave like attackers or infected machines in
// the logs of Zeek, Suricata and Argus.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	// With somebody listening for SIGPIPE, writing to a closed pipe is an
	// error like any other, and the output directory is left complete.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	// Caught from here on, not from when the goroutine gets its turn.
	c := make(chan os.Signal, 4)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	go watch(c, stop)
	os.Exit(start(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr, true))
}

// impatience is how long after the first signal another one is taken for the
// same: some programs send one to a process and to its group.
const impatience = time.Second

// watch lets the first signal end the run in good order, and a later one at
// once, as if nobody had caught it.
func watch(c <-chan os.Signal, stop func()) {
	<-c
	first := time.Now()
	stop()
	for s := range c {
		if time.Since(first) < impatience {
			continue
		}
		signal.Reset(os.Interrupt, syscall.SIGTERM)
		if p, err := os.FindProcess(os.Getpid()); err != nil || p.Signal(s) != nil {
			os.Exit(1)
		}
	}
}
