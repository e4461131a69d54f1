//go:build unix

// Command bench measures slips from the outside: how long it takes for logs
// of a known size, beside programs that do much less, and how soon it notices
// what is written to a log that it follows. It also makes the logs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: bench COMMAND [FLAG...]; "bench COMMAND -h" lists the flags

  gen           make logs
  gen-feeds     make lists of indicators and a whitelist
  e2e           run slips and the baselines on them, and compare
  follow        measure the time from a line in a log to evidence on disk
  base-json     baseline (a): parse each line of the files with fastjson, read its fields
  base-newline  baseline (b): find the newlines in the files
`

func main() {
	// A signal ends the programs that are measured, and what they leave
	// behind is removed.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	default:
		_, _ = fmt.Fprintf(os.Stderr, "bench: %v\n", err) // there is nobody else to tell
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch command {
	case "gen":
		return generate(args, stdout)
	case "gen-feeds":
		return generateFeeds(args, stdout)
	case "e2e":
		return endToEnd(ctx, args, stdout)
	case "follow":
		return follow(ctx, args, stdout)
	case "base-json":
		return baseJSON(args, stdout)
	case "base-newline":
		return baseNewline(args, stdout)
	}
	_, _ = io.WriteString(os.Stderr, usage) // there is nobody else to tell
	return flag.ErrHelp
}

// parseFlags parses args, which must hold nothing but flags.
func parseFlags(fs *flag.FlagSet, args []string) error {
	if err := fs.Parse(args); err != nil {
		return flag.ErrHelp // the FlagSet has told what is wrong
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("%s: unexpected argument %q", fs.Name(), fs.Arg(0))
	}
	return nil
}
