package eval

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// maxErrors bounds the errors of one kind that Text and Markdown show of a
// scenario; JSON has them all.
const maxErrors = 40

// table is a heading and its rows.
type table struct {
	head []string
	rows [][]string
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) text(b *strings.Builder) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0) // a strings.Builder takes everything
	_, _ = fmt.Fprintln(w, strings.Join(t.head, "\t"))
	for _, r := range t.rows {
		_, _ = fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	_ = w.Flush()
}

func (t *table) markdown(b *strings.Builder) {
	line := func(cells []string) {
		b.WriteString("| ")
		b.WriteString(strings.Join(cells, " | "))
		b.WriteString(" |\n")
	}
	escaped := func(cells []string) []string {
		out := make([]string, len(cells))
		for i, c := range cells {
			out[i] = escape(c)
		}
		return out
	}
	line(escaped(t.head))
	line(slices.Repeat([]string{"---"}, len(t.head)))
	for _, r := range t.rows {
		line(escaped(r))
	}
}

// escape makes text safe within Markdown: what it says is from the network.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "*", `\*`, "_", `\_`, "`", "\\`", "<", "&lt;", "[", `\[`, "\n", " ").Replace(s)
}

func decimal(v float64) string { return strconv.FormatFloat(v, 'f', 3, 64) }

func optional(v *float64) string {
	if v == nil {
		return "-"
	}
	return decimal(*v)
}

func count(n int) string { return strconv.Itoa(n) }

// Text shows the report on a terminal.
func (r *Report) Text() string {
	var b strings.Builder
	r.write(&b, (*table).text, func(title string) { b.WriteString("\n" + strings.ToUpper(title) + "\n") }, "  ", func(s string) string { return s })
	return strings.TrimPrefix(b.String(), "\n")
}

// Markdown shows the report as a document.
func (r *Report) Markdown() string {
	var b strings.Builder
	b.WriteString("<!-- Written by \"make eval\". Do not edit. -->\n\n# Evaluation\n")
	r.write(&b, (*table).markdown, func(title string) { b.WriteString("\n## " + title + "\n\n") }, "- ", escape)
	b.WriteString("\n## Definitions\n\n" + Definitions)
	return b.String()
}

// Definitions says what the report counts.
const Definitions = `A host-window is a host and a time window in which it sent at least one record, or on which there was an alert. The hosts are
those that the truth calls monitored; where it names none, all private and home addresses that are the source of a record, and the infected
and attacking hosts.

A host-window is bad when the host is infected or attacks, and: with label_kind "rule", a connection that it sent in that window matches one of the rules; with
"per-flow", a record that the host sent is labelled as malicious; with "scenario", it is the window of the first connection that matches a rule, or a later
one. An alert on that host in that window says that it is bad. From the two come true and false positives (TP, FP) and negatives (TN, FN):

- precision TP/(TP+FP), recall TP/(TP+FN), F1 their harmonic mean, false-positive rate (FPR) FP/(FP+TN), and Matthews' correlation coefficient (MCC);
- alerts per benign host-day: the alerts on hosts that are neither infected nor attacking, over their host-windows times the width of a window, or the
  length of the capture where that is less.

An infected or attacking host meets the bar when there is an alert in its first bad window or the one after that. Addresses outside that sent something are
not judged; how many of them there is evidence about, and alerts on, is told.
`

func (r *Report) write(b *strings.Builder, show func(*table, *strings.Builder), title func(string), item string, esc func(string) string) {
	title("Host-windows")
	fmt.Fprintf(b, "Windows of %s, alert at %s points (evidence_detection_threshold %s).\n\n",
		span(time.Duration(r.Width*float64(time.Second))), trim(r.Threshold), esc(trim(r.Setting)))
	t := table{head: []string{"scenario", "hosts", "windows", "TP", "FP", "TN", "FN", "precision", "recall", "F1", "FPR", "MCC", "alerts per benign host-day"}}
	for _, s := range append(slices.Clone(r.Scenarios), &r.Total) {
		t.row(s.ID, count(s.Hosts), count(s.HostWindows), count(s.TP), count(s.FP), count(s.TN), count(s.FN), optional(s.Precision),
			optional(s.Recall), optional(s.F1), optional(s.FPR), optional(s.MCC), optional(s.AlertsPerBenignHostDay))
	}
	show(&t, b)

	if len(r.Total.Targets) > 0 {
		title("Infected and attacking hosts")
		t = table{head: []string{"scenario", "host", "first bad window", "first alert", "delay", "bar"}}
		for _, s := range r.Scenarios {
			for _, x := range s.Targets {
				t.row(append([]string{s.ID}, x.cells()...)...)
			}
		}
		show(&t, b)
	}
	if r.Total.Outside.Sources > 0 {
		title("Outside hosts")
		t = table{head: []string{"scenario", "sources", "with evidence", "with alerts"}}
		for _, s := range r.Scenarios {
			if s.Outside.Sources > 0 {
				t.row(s.ID, count(s.Outside.Sources), count(s.Outside.WithEvidence), count(s.Outside.WithAlerts))
			}
		}
		show(&t, b)
	}
	for _, missed := range []bool{false, true} {
		r.errors(b, missed, title, item, esc)
	}
	if len(r.Sweep) > 0 {
		title("Other thresholds")
		t = table{head: []string{"threshold", "points", "TP", "FP", "TN", "FN", "precision", "recall", "F1", "FPR", "MCC", "bars met", ""}}
		for _, x := range r.Sweep {
			mark := map[float64]string{0.08: "sensitive", 0.25: "default", 0.43: "insensitive"}[x.Setting]
			if x.Current {
				mark = strings.TrimPrefix(mark+", this run", ", ")
			}
			t.row(trim(x.Setting), trim(x.Threshold), count(x.TP), count(x.FP), count(x.TN), count(x.FN), optional(x.Precision), optional(x.Recall),
				optional(x.F1), optional(x.FPR), optional(x.MCC), fmt.Sprintf("%d of %d", x.Met, x.Targets), mark)
		}
		show(&t, b)
	}
	var notes []string
	for _, s := range r.Scenarios {
		for _, n := range s.Notes {
			notes = append(notes, s.ID+": "+n)
		}
	}
	if len(notes) > 0 {
		title("Notes")
		for _, n := range notes {
			b.WriteString(item + esc(n) + "\n")
		}
	}
}

// cells are the columns that tell about a target.
func (t *Target) cells() []string {
	alert, delay, bar := "none", "-", "MISSED"
	if t.FirstAlert != nil {
		alert = fmt.Sprintf("%d (%s)", t.FirstAlert.Window, t.FirstAlert.Start)
		delay = strconv.FormatInt(*t.Delay, 10)
	}
	if t.Met {
		bar = "MET"
	}
	return []string{t.Host.String(), fmt.Sprintf("%d (%s)", t.FirstBad.Window, t.FirstBad.Start), alert, delay, bar}
}

// errors shows the windows with wrong verdicts of one sort, and what is behind them.
func (r *Report) errors(b *strings.Builder, missed bool, title func(string), item string, esc func(string) string) {
	name := "False alerts"
	if missed {
		name = "Missed windows"
	}
	told := false
	for _, s := range r.Scenarios {
		shown := 0
		for i := range s.Errors {
			e := &s.Errors[i]
			if e.Missed != missed {
				continue
			}
			if !told {
				title(name)
				told = true
			}
			if shown++; shown <= maxErrors {
				e.write(b, s.ID, item, esc)
			}
		}
		if shown > maxErrors {
			fmt.Fprintf(b, "%s%s: %d more\n", item, esc(s.ID), shown-maxErrors)
		}
	}
}

func (e *Error) write(b *strings.Builder, id, item string, esc func(string) string) {
	fmt.Fprintf(b, "%s%s %s window %d (%s): score %s", item, esc(id), e.Host, e.Window, e.Start, esc(e.Sum))
	if e.Bad > 0 {
		fmt.Fprintf(b, ", %d of %d records are bad", e.Bad, e.Records)
	}
	if len(e.Evidence) == 0 {
		b.WriteString(", no evidence")
	}
	b.WriteByte('\n')
	var nothing []string
	for _, x := range e.Evidence {
		if x.Level == "" {
			nothing = append(nothing, fmt.Sprintf("%d × %s", x.Count, x.Type))
			continue
		}
		fmt.Fprintf(b, "  %s%s: %s (%d × %s, %s, confidence %s): %s\n", item, trim(x.Value), esc(string(x.Type)), x.Count, x.Level, x.Tactic,
			decimal(x.Confidence), esc(x.Example))
	}
	if len(nothing) > 0 {
		fmt.Fprintf(b, "  %s0: %s\n", item, esc(strings.Join(nothing, ", ")))
	}
}

// span shows a duration as 1h and not as 1h0m0s.
func span(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// trim shows a number with three decimals at most.
func trim(v float64) string {
	s := strconv.FormatFloat(v, 'f', 3, 64)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}
