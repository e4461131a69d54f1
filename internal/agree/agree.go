// Package agree says how far the records of the built-in meter agree with the
// logs that a Zeek wrote of the same packets. Both are compared as the
// detectors see them: Zeek's logs go through the decoder that reads them in a
// run.
package agree

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/zeek"
)

const (
	maxLine   = 1 << 20 // bytes of a line of a log; the longest of Zeek are certificates of some 100 KB
	sameStart = 1e6     // ns by which starts and durations may differ: the 1 ms
)

// Score counts how often something agrees.
type Score struct{ Good, All int }

// add counts one comparison.
func (s *Score) add(ok bool) {
	s.All++
	if ok {
		s.Good++
	}
}

// Percent returns the share that agrees; 100 when nothing was compared.
func (s Score) Percent() float64 {
	if s.All == 0 {
		return 100
	}
	return 100 * float64(s.Good) / float64(s.All)
}

// Difference is something in which the meter and Zeek do not agree.
type Difference struct {
	What       string // "conn", a record that one side lacks, or "conn.state"
	Record     string // what identifies the record
	Ours, Zeek string // the values, or "none" and "there"
}

// String returns the difference in one line.
func (d Difference) String() string {
	return fmt.Sprintf("%s of %s: %q, zeek %q", d.What, d.Record, d.Ours, d.Zeek)
}

// Capture is what the comparison of one capture found.
type Capture struct {
	Name   string
	Scores map[string]Score // by "conn" for records found, "conn.state" for fields of those
	Extra  map[string]int   // records of the meter that Zeek does not have, by log
	Diffs  []Difference
	// Rejected counts lines of Zeek's logs that our decoder did not take.
	Rejected int
	// SetBack says that the clock of the capture is set back on the way, as where
	// captures were put together. Zeek's clock stays where it was, and so all
	// connections behind the step are over at once: it writes each packet as one
	// of its own. The meter goes on with the clock that it finds, so such a
	// capture is shown and not judged.
	SetBack bool
}

// Compare compares the records that the meter made of a capture with the
// JSON or TSV logs in dir. A log that is not there is an empty one; it is an
// error when dir is not there or a log cannot be read. The order of ours does
// not matter, and nothing of it is kept or changed.
func Compare(name string, ours []*flow.Flow, dir string) (*Capture, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("comparing %s: %w", name, err)
	}
	c := &Capture{Name: name, Scores: make(map[string]Score), Extra: make(map[string]int)}
	for _, l := range comparedLogs() {
		theirs, err := c.readLog(filepath.Join(dir, l.name+".log"), l.name)
		if err != nil {
			return nil, fmt.Errorf("comparing %s: %w", name, err)
		}
		c.log(&l, ours, theirs)
	}
	return c, nil
}

// log compares the records of one log.
func (c *Capture) log(l *compared, ours, theirs []*flow.Flow) {
	mine := make(map[string][]*flow.Flow)
	n := 0
	for _, f := range ours {
		if f.Kind == l.kind && (l.skip == nil || !l.skip(f)) {
			k := l.key(f)
			mine[k] = append(mine[k], f)
			n++
		}
	}
	theirs = slices.DeleteFunc(slices.Clone(theirs), func(f *flow.Flow) bool { return l.skip != nil && l.skip(f) })
	slices.SortStableFunc(theirs, func(a, b *flow.Flow) int { return cmp.Compare(a.Time, b.Time) })
	for _, z := range theirs {
		k := l.key(z)
		best := -1
		for i, f := range mine[k] {
			if best < 0 || apart(f.Time, z.Time) < apart(mine[k][best].Time, z.Time) {
				best = i
			}
		}
		found := best >= 0 && (!l.timed || apart(mine[k][best].Time, z.Time) < sameStart)
		c.score(l.name, found)
		if !found {
			c.Diffs = append(c.Diffs, Difference{l.name, l.text(z), "none", "there"})
			continue
		}
		n--
		f := mine[k][best]
		mine[k] = slices.Delete(mine[k], best, best+1)
		for _, x := range l.fields {
			a, b := x.text(f), x.text(z)
			if x.of != nil && !x.of(z) {
				continue
			}
			ok := a == b
			if x.near {
				p, _ := strconv.ParseInt(a, 10, 64) // both are written as whole ns
				q, _ := strconv.ParseInt(b, 10, 64)
				ok = apart(p, q) < sameStart
			}
			c.score(l.name+"."+x.name, ok)
			if !ok {
				c.Diffs = append(c.Diffs, Difference{l.name + "." + x.name, l.text(z), a, b})
			}
		}
	}
	if n == 0 {
		return
	}
	c.Extra[l.name] += n
	keys := make([]string, 0, len(mine))
	for k := range mine {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		for _, f := range mine[k] {
			c.Diffs = append(c.Diffs, Difference{l.name, l.text(f), "there", "none"})
		}
	}
}

func (c *Capture) score(what string, ok bool) {
	s := c.Scores[what]
	s.add(ok)
	c.Scores[what] = s
}

// apart returns how far two times are from each other.
func apart(a, b int64) int64 { return max(a-b, b-a) }

// readLog returns the records of a log of Zeek, none when there is no such
// file. Lines that our decoder rejects are counted: no detector would see them.
func (c *Capture) readLog(path, name string) ([]*flow.Flow, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening a log: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was read only
	d := zeek.New(name)
	var all []*flow.Flow
	s := bufio.NewScanner(f)
	s.Buffer(nil, maxLine)
	for s.Scan() {
		rec := new(flow.Flow)
		switch err := d.Decode(rec, slices.Clone(s.Bytes())); { // the strings alias the line
		case err == nil:
			all = append(all, rec)
		case errors.Is(err, flow.ErrHeader), errors.Is(err, flow.ErrIgnored):
		default:
			c.Rejected++
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return all, nil
}
