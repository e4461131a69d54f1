//go:build unix

package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// What "bench gen-feeds" makes: as many indicators as a well-supplied site has,
// in the proportions of public feeds, and the longest whitelist anybody keeps.
const (
	feedDomains   = 1_000_000
	feedAddresses = 300_000
	feedRanges    = 50_000
	feedURLs      = 100_000
	feedHashes    = 50_000
	feedWhite     = 10_000
)

// generateFeeds is "bench gen-feeds": lists of indicators that no record of the
// generated traffic names, but for a few, and a whitelist.
func generateFeeds(args []string, _ io.Writer) error {
	fs := flag.NewFlagSet("bench gen-feeds", flag.ContinueOnError)
	dir := fs.String("o", "", "directory to make")
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	if *dir == "" {
		return errors.New("gen-feeds: -o is missing")
	}
	if err := os.MkdirAll(filepath.Join(*dir, "lists"), 0o755); err != nil {
		return fmt.Errorf("gen-feeds: %w", err)
	}
	var errs []error
	write := func(name string, n int, line func(w io.Writer, h uint64)) {
		f, err := os.Create(filepath.Join(*dir, name))
		if err != nil {
			errs = append(errs, err)
			return
		}
		w := bufio.NewWriter(f)
		for i := range n {
			line(w, scatter(uint64(i)))
		}
		errs = append(errs, w.Flush(), f.Close())
	}
	say := func(w io.Writer, format string, args ...any) {
		_, _ = fmt.Fprintf(w, format, args...) // Flush tells
	}
	// The first part of an address of the lists is one that the generated
	// traffic does not use for the outside, so nearly nothing is found and what
	// is measured is looking.
	address := func(h uint64) string {
		return fmt.Sprintf("%d.%d.%d.%d", 60+h%30, byte(h>>8), byte(h>>16), byte(h>>24))
	}
	write("lists/domains.txt", feedDomains, func(w io.Writer, h uint64) { say(w, "h%x.m%x.com\n", h&0xffff, h>>24) })
	write("lists/addresses.txt", feedAddresses, func(w io.Writer, h uint64) { say(w, "%s\n", address(h)) })
	write("lists/ranges.netset", feedRanges, func(w io.Writer, h uint64) {
		say(w, "%d.%d.%d.0/%d\n", 60+h%30, byte(h>>8), byte(h>>16), 20+h>>32%5)
	})
	write("lists/urls.txt", feedURLs, func(w io.Writer, h uint64) { say(w, "http://m%x.net/%x/b.sh\n", h>>24, h&0xffff) })
	write("lists/hashes.txt", feedHashes, func(w io.Writer, h uint64) { say(w, "%016x%016x%016x%016x\n", h, h*3, h*5, h*7) })
	n := 0
	write("whitelist.conf", feedWhite, func(w io.Writer, h uint64) {
		n++
		ignore := "alerts"
		if n%2 == 0 {
			ignore = "both"
		}
		if n%3 == 0 {
			say(w, "domain,w%x.org,both,%s\n", h>>24, ignore)
		} else {
			say(w, "ip,%s,both,%s\n", address(^h), ignore)
		}
	})
	return errors.Join(errs...)
}

// scatter spreads numbers over 64 bits, each to another one (splitmix64).
func scatter(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
