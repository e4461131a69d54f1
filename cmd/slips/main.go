// Command slips finds hosts that behave like attackers or infected machines in
// the logs of Zeek, Suricata and Argus.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// With somebody listening for SIGPIPE, writing to a closed pipe is an
	// error like any other, and the output directory is left complete.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first signal drains; the second one kills
	os.Exit(Main(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}
