package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/slips-go/slips/alerts/export"
)

// maxSources bounds the sources that the summary on the terminal lists; an
// archive has thousands, and summary.json has them all.
const maxSources = 20

// summaryText is the table that closes a run.
func summaryText(o *runOptions, s *export.Summary) string {
	var t table
	t.title("Records", thousands(s.Records))
	counted(&t, s.Kinds)
	if len(s.Sources) > 1 {
		t.title("Sources", thousands(int64(len(s.Sources))))
		t.sources(s.Sources)
	}
	if n := sum(s.Rejected); n > 0 {
		t.title("Rejected lines", thousands(n))
		counted(&t, s.Rejected)
	}
	remarks := map[string]int64{}
	for _, x := range s.Sources {
		for what, n := range x.Remarks {
			remarks[what] += n
		}
	}
	if len(remarks) > 0 {
		t.title("Remarks", "")
		counted(&t, remarks)
	}
	t.title("Profiles", thousands(s.Profiles.Seen))
	t.title("Evidence", thousands(s.Evidence.Total))
	counted(&t, s.Evidence.Types)
	t.title("Alerts", thousands(s.Alerts))
	for _, x := range []struct {
		name string
		n    int64
	}{
		{"Records not used by any module", s.Ignored},
		{"Late records (analysed)", s.Late},
		{"Records that the whitelist ignores", s.Whitelist.Flows},
		{"Evidence that the whitelist ignores", s.Whitelist.Evidence},
		{"Records lost", s.Dropped},
		{"Profiles forgotten early", s.Profiles.Evicted},
		{"Lines not written", s.Output.LostLines},
	} {
		if x.n > 0 {
			t.title(x.name, thousands(x.n))
		}
	}
	if by, ok := s.Extra[engineKey].(string); ok {
		t.title("Packets read by", printable(by))
	}
	for _, i := range s.Interfaces {
		t.title("Interface "+printable(i.Name), interfaceText(i))
	}
	if b := s.Blocks; b != nil {
		title := "Blocks"
		if b.DryRun {
			title = "Blocks (dry run)"
		}
		t.title(title, thousands(b.Blocks))
		counted(&t, b.Refused)
	}
	for _, m := range s.Modules {
		if m.Panics > 0 {
			t.title("Faults in module "+m.Name+" (see slips.log)", thousands(m.Panics))
		}
	}
	t.title("Time", fmt.Sprintf("%s, %s records/s", seconds(s.Wall), thousands(int64(s.Rate))))
	if s.PeakRSS > 0 {
		t.title("Peak memory", size(s.PeakRSS))
	}
	t.title("Results", printable(o.Output))
	return t.String()
}

// interfaceText says what was seen on an interface, and what was not.
func interfaceText(i export.InterfaceSummary) string {
	var parts []string
	if i.Packets > 0 {
		parts = append(parts, thousands(i.Packets)+" packets")
	}
	parts = append(parts, thousands(i.Dropped)+" lost")
	if i.Gaps > 0 {
		parts = append(parts, fmt.Sprintf("%d times not watched, %s in all", i.Gaps, seconds(i.Blind)))
	}
	return strings.Join(parts, ", ")
}

// table is text in two columns.
type table struct {
	rows [][2]string
}

func (t *table) title(name, value string) { t.rows = append(t.rows, [2]string{name, value}) }

// counted adds the rows of a map, the largest count first.
func counted[K ~string](t *table, m map[K]int64) {
	keys := slices.SortedFunc(maps.Keys(m), func(a, b K) int { return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b)) })
	for _, k := range keys {
		t.title("  "+printable(string(k)), thousands(m[k]))
	}
}

// sources adds a row for each source that had anything to say.
func (t *table) sources(list []export.SourceSummary) {
	for i, s := range list {
		if i == maxSources {
			t.title("  …", fmt.Sprintf("%d more, in summary.json", len(list)-i))
			return
		}
		text := thousands(s.Records)
		if n := sum(s.Rejected); n > 0 {
			text += ", " + thousands(n) + " rejected"
		}
		if s.Late > 0 {
			text += ", " + thousands(s.Late) + " late"
		}
		if s.Error != "" {
			text += ": " + printable(s.Error)
		}
		t.title("  "+printable(s.Name), text)
	}
}

func sum[K comparable](m map[K]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}

// String returns the rows with values aligned.
func (t *table) String() string {
	width := 0
	for _, r := range t.rows {
		width = max(width, utf8.RuneCountInString(r[0]))
	}
	width = min(width, 60)
	var b strings.Builder
	b.WriteByte('\n')
	for _, r := range t.rows {
		pad := max(0, width-utf8.RuneCountInString(r[0]))
		fmt.Fprintf(&b, "%s%s  %s\n", r[0], strings.Repeat(" ", pad), r[1])
	}
	return b.String()
}

// thousands shows 1234567 as 1,234,567.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// size shows bytes with three digits that matter, in decimal units.
func size(n int64) string {
	v, unit := float64(n), 0
	units := [...]string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	for v >= 999.5 && unit < len(units)-1 {
		v /= 1000
		unit++
	}
	if unit == 0 || v >= 99.95 {
		return fmt.Sprintf("%.0f %s", v, units[unit])
	}
	return fmt.Sprintf("%.1f %s", v, units[unit])
}

// seconds shows a run's time.
func seconds(s float64) string {
	if s < 60 {
		return fmt.Sprintf("%.2f s", s)
	}
	return time.Duration(s * float64(time.Second)).Round(time.Second).String()
}
