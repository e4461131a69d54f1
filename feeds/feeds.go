// Package feeds keeps threat intelligence fresh: it fetches feeds, checks what
// came before it replaces what there is, stores it, compiles all of it into
// one index and hands out the index as an *intel.View.
//
// A Manager works on one directory. A feed there is its last good content and
// a small JSON file about it; the JSON file names the content, so replacing it
// is the one step that makes a new version count. The index belongs to what it
// was made of by a key, so a program that starts opens it without parsing
// anything while nothing has changed. Stale beats wrong: a version that does
// not look like the feed is refused and said so, and the old one stays.
package feeds

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/slips-go/slips/feeds/format"
	"github.com/slips-go/slips/feeds/intel"
)

// Source is one feed as it is configured: a section of feeds.yaml.
type Source struct {
	Name     string // key in feeds.yaml; also a file name
	Provider string // who runs it; default: the host of URL
	URL      string // http, https or file; {key} stands for the key
	Path     string // a local file instead of URL
	Format   string // one of format.Names
	Kinds    []intel.Kind
	Columns  format.Columns // of format csv
	Level    intel.Level
	Tags     []string
	Period   time.Duration // between two checks
	Enabled  bool
	MaxSize  int64 // bytes, uncompressed
	// ExpiresAfter is how long entries live after the feed was last updated; 0:
	// for ever. Objects of a collection and events of MISP live that long after
	// their own last change.
	ExpiresAfter time.Duration
	Headers      map[string]string // sent with each request; {key} stands for the key
	KeyFile      string            // file that holds the API key or password
	User         string            // for basic authentication, with the key as its password
	Collection   string            // of a TAXII server: id, alias or title; URL is its API root or discovery
	MayBeEmpty   bool              // a version without any entry is believed
	Private      bool              // addresses that are not globally reachable are kept
	License      string            // terms of use
	Note         string            // for people

	local bool // a file of the directory of local lists
}

// maxEvent bounds one event of a MISP feed, bytes. The largest of CIRCL's are
// some MB.
const maxEvent = 32 << 20

// misp says that the source is a MISP feed: a manifest and a file per event.
func (s *Source) misp() bool {
	return s.Format == "misp" && (strings.HasSuffix(s.URL, "/") || strings.HasSuffix(s.URL, "/manifest.json"))
}

func (s *Source) taxii() bool { return s.Collection != "" }

// where is how messages name the place of the feed. It never holds a key.
func (s *Source) where() string {
	if s.Path != "" {
		return s.Path
	}
	return s.URL
}

// parse reads stored content and calls add for each indicator that is not past
// its end at now. updated is when the content was last changed.
func (s *Source) parse(r io.Reader, now time.Time, updated int64, add func(intel.Indicator) error) (format.Report, error) {
	o := format.Options{Format: s.Format, Kinds: s.Kinds, Columns: s.Columns, Private: s.Private, Now: now}
	expired := 0
	keep := func(in intel.Indicator) error {
		if s.ExpiresAfter > 0 && !s.taxii() && !s.misp() {
			if end := updated + int64(s.ExpiresAfter/time.Second); in.Expires == 0 || in.Expires > end {
				in.Expires = end
			}
		}
		if in.Expires != 0 && in.Expires <= now.Unix() {
			expired++
			return nil
		}
		return add(in)
	}
	var rep format.Report
	var err error
	if s.misp() {
		rep, err = parseEvents(r, o, keep)
	} else {
		rep, err = format.Parse(r, o, keep)
	}
	rep.Indicators -= expired
	if expired > 0 {
		reject(&rep, format.ErrExpired.Error(), expired)
	}
	return rep, err
}

func reject(rep *format.Report, reason string, n int) {
	if rep.Rejected == nil {
		rep.Rejected = make(map[string]int)
	}
	rep.Rejected[reason] += n
}

// parseEvents reads MISP events, one in each line.
func parseEvents(r io.Reader, o format.Options, add func(intel.Indicator) error) (format.Report, error) {
	var all format.Report
	err := eachLine(r, maxEvent, func(event []byte) error {
		rep, err := format.Parse(strings.NewReader(string(event)), o, add)
		all.Lines += rep.Lines
		all.Indicators += rep.Indicators
		for reason, n := range rep.Rejected {
			reject(&all, reason, n)
		}
		all.Examples = append(all.Examples, rep.Examples...)
		all.Examples = all.Examples[:min(len(all.Examples), maxExamples)]
		return err
	})
	return all, err
}

// maxExamples is how many rejected entries a report shows.
const maxExamples = 20

// faults returns how many entries were not understood. Those that were, and
// are not wanted, are no fault of the feed.
func faults(rep format.Report) int {
	n := 0
	for reason, k := range rep.Rejected {
		n += k
		for _, fine := range []error{
			format.ErrExpired, format.ErrRevoked, format.ErrKind, format.ErrType, format.ErrBenign, format.ErrCondition, format.ErrLocalName,
		} {
			if reason == fine.Error() {
				n -= k
			}
		}
	}
	return n
}

// Bounds of what is believed about a new version of a feed.
const (
	shrinkFrom = 50 // entries of the old version from which on shrinking is looked at: small lists do empty
	shrinkTo   = 10 // the new one has to have at least a shrinkTo-th of the old one
)

// suspicious says why the new version of a feed is not to be believed, or
// nothing. was is the number of entries of the last good one.
func (s *Source) suspicious(rep format.Report, was int) string {
	bad := faults(rep)
	got := rep.Indicators + rep.Rejected[format.ErrExpired.Error()]
	switch {
	case bad > got:
		return fmt.Sprintf("%d of %d entries were rejected: %s", bad, bad+got, first(rep))
	case got == 0 && !s.MayBeEmpty:
		return "it has no entries"
	case was >= shrinkFrom && got*shrinkTo <= was && (got > 0 || !s.MayBeEmpty):
		return fmt.Sprintf("it shrank from %d to %d entries", was, got)
	case s.local && bad > 0:
		return first(rep)
	}
	return ""
}

// first describes the first rejected entry of a report.
func first(rep format.Report) string {
	if len(rep.Examples) == 0 {
		return "none is shown"
	}
	return rep.Examples[0].String()
}

// ErrBusy is returned when another process works on the directory.
var ErrBusy = errors.New("another process refreshes the feeds")
