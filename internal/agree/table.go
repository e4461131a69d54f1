package agree

import (
	"fmt"
	"slices"
	"strings"
)

// Bar is the least share that must agree, in percent, of all captures of a
// table together.
type Bar struct {
	What string // as in Capture.Scores
	Min  float64
}

// Bars returns what is asked for: the first six by issue 5, where a name of TLS
// is found when its record is, the rest by ourselves.
func Bars() []Bar {
	return []Bar{
		{"conn", 99},
		{"conn.state", 97},
		{"conn.bytes", 97},
		{"dns", 99},
		{"ssl", 99},
		{"ssl.server_name", 99},
		{"conn.history", 97},
		{"conn.service", 95},
		{"conn.community_id", 99},
	}
}

// Table is what the comparison of several captures found.
type Table struct {
	Captures []*Capture
}

// Add adds a capture.
func (t *Table) Add(c *Capture) { t.Captures = append(t.Captures, c) }

// Total returns the captures that are judged as one, without the differences.
func (t *Table) Total() *Capture { return t.sum("total", false) }

// sum adds up those captures of which the clock is set back, or the others.
func (t *Table) sum(name string, setBack bool) *Capture {
	sum := &Capture{Name: name, Scores: make(map[string]Score), Extra: make(map[string]int), SetBack: setBack}
	for _, c := range t.Captures {
		if c.SetBack != setBack {
			continue
		}
		for k, s := range c.Scores {
			x := sum.Scores[k]
			sum.Scores[k] = Score{x.Good + s.Good, x.All + s.All}
		}
		for k, n := range c.Extra {
			sum.Extra[k] += n
		}
		sum.Rejected += c.Rejected
	}
	return sum
}

// Missed returns the bars that the total misses, one line each. Connections
// of the meter that Zeek does not have count as connections that do not agree.
func (t *Table) Missed() []string {
	var all []string
	total := t.Total()
	for _, b := range Bars() {
		s := total.Scores[b.What]
		if b.What == "conn" {
			s.All += total.Extra["conn"]
		}
		if p := s.Percent(); p < b.Min {
			all = append(all, fmt.Sprintf("%s agrees in %.2f %% (%d of %d), want %.0f %%", b.What, p, s.Good, s.All, b.Min))
		}
	}
	return all
}

// String returns the table: a line for each capture in which something does
// not agree, or for all when they are few; their total beside the bars, and
// that of the captures that are not judged; and a line for each field of each
// log.
func (t *Table) String() string {
	const few = 8
	var b strings.Builder
	bars := Bars()
	fmt.Fprintf(&b, "%-36s %7s %6s", "capture", "conns", "extra")
	for _, x := range bars {
		fmt.Fprintf(&b, " %11s", short(x.What))
	}
	b.WriteByte('\n')
	line := func(c *Capture) {
		fmt.Fprintf(&b, "%-36.36s %7d %6d", c.Name, c.Scores["conn"].All, c.Extra["conn"])
		for _, x := range bars {
			if s := c.Scores[x.What]; s.All > 0 {
				fmt.Fprintf(&b, " %9.2f %%", s.Percent())
			} else {
				fmt.Fprintf(&b, " %11s", "-")
			}
		}
		b.WriteByte('\n')
	}
	alike := 0
	for _, c := range t.Captures {
		same := c.Extra["conn"] == 0
		for _, x := range bars {
			s := c.Scores[x.What]
			same = same && s.Good == s.All
		}
		if same && len(t.Captures) > few {
			alike++
			continue
		}
		line(c)
	}
	if alike > 0 {
		fmt.Fprintf(&b, "and %d captures in which all of this agrees\n", alike)
	}
	total := t.Total()
	line(total)
	if back := t.sum("not judged: the clock is set back", true); len(back.Scores) > 0 || len(back.Extra) > 0 {
		line(back)
	}
	fmt.Fprintf(&b, "%-36s %7s %6s", "asked for", "", "")
	for _, x := range bars {
		fmt.Fprintf(&b, " %9.0f %%", x.Min)
	}
	b.WriteString("\n\n")
	if total.Rejected > 0 {
		fmt.Fprintf(&b, "%d lines of Zeek's logs were not decoded\n", total.Rejected)
	}
	for _, l := range comparedLogs() {
		s := total.Scores[l.name]
		if s.All == 0 && total.Extra[l.name] == 0 {
			continue
		}
		fmt.Fprintf(&b, "%-10s %6d of %6d records %7.2f %%, %d more of ours\n", l.name, s.Good, s.All, s.Percent(), total.Extra[l.name])
		for _, f := range l.fields {
			if s := total.Scores[l.name+"."+f.name]; s.All > 0 {
				fmt.Fprintf(&b, "    %-18s %6d of %6d %7.2f %%\n", f.name, s.Good, s.All, s.Percent())
			}
		}
	}
	return b.String()
}

// short names a bar in the head of the table.
func short(what string) string {
	switch what {
	case "conn":
		return "connections"
	case "ssl.server_name":
		return "SNI"
	case "conn.community_id":
		return "community"
	case "dns":
		return "DNS queries"
	case "ssl":
		return "TLS"
	}
	return what[strings.IndexByte(what, '.')+1:]
}

// Differences returns how often each thing differs in the captures that are
// judged, the most frequent first, with the first examples of each.
func (t *Table) Differences(examples int) string {
	type sort struct {
		what string
		n    int
		some []string
	}
	byWhat := make(map[string]*sort)
	for _, c := range t.Captures {
		if c.SetBack {
			continue
		}
		for _, d := range c.Diffs {
			what := d.What
			switch {
			case d.Ours == "none":
				what += ", missing"
			case d.Zeek == "none" && d.Ours == "there":
				what += ", only ours"
			}
			s := byWhat[what]
			if s == nil {
				s = &sort{what: what}
				byWhat[what] = s
			}
			if s.n++; len(s.some) < examples {
				s.some = append(s.some, c.Name+": "+d.String())
			}
		}
	}
	all := make([]*sort, 0, len(byWhat))
	for _, s := range byWhat {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *sort) int {
		if a.n != b.n {
			return b.n - a.n
		}
		return strings.Compare(a.what, b.what)
	})
	var b strings.Builder
	for _, s := range all {
		fmt.Fprintf(&b, "%5d %s\n", s.n, s.what)
		for _, x := range s.some {
			fmt.Fprintf(&b, "      %s\n", x)
		}
	}
	return b.String()
}
