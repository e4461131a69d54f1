package main

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/alerts/export"
)

// screen is a UI with what only the run command needs.
type screen interface {
	UI
	close()                                   // takes the progress bar away
	summary(o *runOptions, s *export.Summary) // after close
}

// outputError says that standard output cannot be written.
type outputError struct{ err error }

func (e *outputError) Error() string { return "standard output: " + e.err.Error() }
func (e *outputError) Unwrap() error { return e.err }

// ui returns the UI that the flags ask for.
func (p *program) ui(f *runFlags, o *runOptions) screen {
	switch {
	case f.json:
		return &jsonUI{out: p.stdout, err: p.stderr, quiet: f.quiet}
	case f.quiet:
		return quietUI{}
	}
	h := &humanUI{
		out: p.stdout, err: p.stderr, verbose: o.Config.Parameters.Verbose >= 2, width: defaultWidth,
		names: map[netip.Addr]string{}, start: o.Start, now: time.Now,
	}
	width, terminal := isTerminal(p.stdout)
	if terminal {
		h.width = max(width, minWidth)
	}
	h.color = terminal && !f.noColor && p.getenv("NO_COLOR") == "" && p.getenv("TERM") != "dumb"
	if o.Follow || p.getenv("TERM") == "dumb" {
		return h
	}
	if _, h.errTerminal = isTerminal(p.stderr); terminal {
		h.outTerminal, h.screen = true, p.stdout
	} else if h.errTerminal {
		h.screen = p.stderr
	}
	return h
}

// terminalWidth returns the width of the terminal at a file descriptor.
func terminalWidth(fd int) (width int, ok bool) {
	if !term.IsTerminal(fd) {
		return 0, false
	}
	width, _, err := term.GetSize(fd)
	if err != nil || width <= 0 {
		width = defaultWidth
	}
	return width, true
}

const (
	defaultWidth = 155   // columns, where there is no terminal to ask
	minWidth     = 40    // narrower ones get lines of this length
	maxNames     = 10000 // hosts whose names are kept for alerts
	barDelay     = time.Second
)

// quietUI shows nothing: errors are the business of the run command.
type quietUI struct{}

var _ screen = quietUI{}

func (quietUI) Evidence(*evidence.Evidence, float64) error { return nil }
func (quietUI) Alert(*alerts.Alert) error                  { return nil }
func (quietUI) Host(netip.Addr, string)                    {}
func (quietUI) Progress(int64, int64, uint64)              {}
func (quietUI) Note(string)                                {}
func (quietUI) close()                                     {}
func (quietUI) summary(*runOptions, *export.Summary)       {}

// humanUI shows alerts as they come, a progress bar on long runs, and a
// summary.
type humanUI struct {
	out, err    io.Writer
	screen      io.Writer // where a progress bar may go; nil: nowhere
	outTerminal bool
	errTerminal bool
	color       bool
	verbose     bool
	width       int
	start       time.Time
	now         func() time.Time
	names       map[netip.Addr]string

	mu       sync.Mutex // for what follows, and for writing
	progress *mpb.Progress
	bar      *mpb.Bar
	text     atomic.Value // string beside the bar; mpb's goroutine reads it
}

var _ screen = (*humanUI)(nil)

// write prints text, above the progress bar where that is on the same
// terminal. Results are in the output directory, so a terminal that went away
// is no reason to stop.
func (h *humanUI) write(w io.Writer, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.progress != nil && (w == h.out && h.outTerminal || w == h.err && h.errTerminal) {
		w = h.progress
	}
	_, _ = io.WriteString(w, text)
}

func (h *humanUI) Note(text string) { h.write(h.err, "slips: "+printable(text)+"\n") }

func (h *humanUI) Host(ip netip.Addr, name string) {
	if _, known := h.names[ip]; known || len(h.names) < maxNames {
		h.names[ip] = strings.Clone(name)
	}
}

// Evidence prints a line when asked for detail.
func (h *humanUI) Evidence(e *evidence.Evidence, _ float64) error {
	if h.verbose {
		text := fmt.Sprintf("%s (TW %d) IP %s: %s [%s, %s, confidence %s]", clock(e.Time), e.Window, h.host(e.Profile),
			printable(e.Description), e.Type, e.Level, number(e.Confidence))
		peer := e.Peer()
		h.write(h.out, h.lines(text, "  ", "")+h.about("    ", e.Profile.String(), e.Self())+h.about("    ", peer.Value, peer.Known))
	}
	return nil
}

// about is a line of what is known about somebody; empty for nothing.
func (h *humanUI) about(indent, who string, k *evidence.Known) string {
	text := k.Text()
	if text == "" {
		return ""
	}
	return h.lines(indent+printable(who)+": "+printable(text), indent+"  ", "")
}

// Alert prints who is thought malicious, and why.
func (h *humanUI) Alert(a *alerts.Alert) error {
	var b strings.Builder
	b.WriteString(h.lines(fmt.Sprintf("%s IP %s detected as malicious in timewindow %d (start %s, stop %s) given the following evidence:",
		clock(a.Time), h.host(a.Profile), a.Window, clock(a.WindowStart), clock(a.WindowEnd)), "", red))
	b.WriteString(h.about("    ", a.Profile.String(), a.Known))
	told := map[string]bool{}
	for _, c := range a.Contributions {
		b.WriteString(h.lines(fmt.Sprintf("    - Detected %s Threat level: %s, adds %s.", sentence(printable(c.Description)), c.Level, number(c.Value)), "          ", cyan))
		if !told[c.Peer.Value] { // the same peer may be behind many of them
			told[c.Peer.Value] = true
			b.WriteString(h.about("      ", c.Peer.Value, c.Peer.Known))
		}
	}
	if a.Omitted > 0 {
		b.WriteString(h.lines(fmt.Sprintf("    - and %d more that add nothing, in alerts/evidence.jsonl", a.Omitted), "", cyan))
	}
	b.WriteString(h.lines("    "+printable(a.Explain()), "          ", cyan))
	h.write(h.out, b.String())
	return nil
}

// host names a host for people.
func (h *humanUI) host(ip netip.Addr) string {
	if name := h.names[ip]; name != "" {
		return ip.String() + " (" + printable(name) + ")"
	}
	return ip.String()
}

// The colours.
const (
	red   = "\x1b[1;31m"
	cyan  = "\x1b[36m"
	reset = "\x1b[0m"
)

// lines wraps text to the width, with an indent before all lines but the
// first, and colours each line by itself, so that one cut off by a pager does
// not colour the rest.
func (h *humanUI) lines(text, indent, color string) string {
	var b strings.Builder
	for _, l := range wrap(text, h.width, indent) {
		if h.color && color != "" {
			l = color + l + reset
		}
		b.WriteString(l)
		b.WriteByte('\n')
	}
	return b.String()
}

// wrap breaks text into lines of at most width characters, at blanks where it
// can. Width is at least twice the indent.
func wrap(text string, width int, indent string) []string {
	var out []string
	for utf8.RuneCountInString(text) > width {
		// cut is where the line ends, next where the rest begins.
		cut, blank, n := len(text), -1, 0
		for i, r := range text {
			if n == width {
				cut = i
				break
			}
			if r == ' ' && strings.TrimLeft(text[:i], " ") != "" {
				blank = i
			}
			n++
		}
		if cut < len(text) && text[cut] == ' ' {
			blank = cut
		}
		if blank > 0 {
			cut = blank
		}
		out = append(out, strings.TrimRight(text[:cut], " "))
		text = indent + strings.TrimLeft(text[cut:], " ")
	}
	return append(out, text)
}

// printable makes text from the network harmless for a terminal: what is not
// printable becomes an escape.
func printable(s string) string {
	clean := func(r rune) bool { return unicode.IsPrint(r) && r != utf8.RuneError }
	if strings.IndexFunc(s, func(r rune) bool { return !clean(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case clean(r):
			b.WriteRune(r)
		case r == utf8.RuneError:
			_, n := utf8.DecodeRuneInString(s[i:])
			if n == 1 {
				fmt.Fprintf(&b, `\x%02x`, s[i])
			} else {
				b.WriteString(`\ufffd`)
			}
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}

// sentence ends s with a full stop.
func sentence(s string) string {
	if s = strings.TrimRight(s, " "); s == "" || strings.HasSuffix(s, ".") {
		return s
	}
	return s + "."
}

// clock shows stream time, unix ns, to a person: UTC, to the second.
func clock(t int64) string { return time.Unix(0, t).UTC().Format("2006-01-02T15:04:05Z") }

// number shows a small number without noise.
func number(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) }

// Progress shows or moves the bar. Short runs do without one.
func (h *humanUI) Progress(read, total int64, records uint64) {
	elapsed := h.now().Sub(h.start)
	if h.screen == nil || total <= 0 || elapsed < barDelay {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text.Store(progressText(read, total, records, elapsed))
	if h.progress == nil {
		h.progress = mpb.New(mpb.WithOutput(h.screen), mpb.WithAutoRefresh())
		h.bar = h.progress.New(total, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"),
			mpb.BarRemoveOnComplete(), mpb.BarWidth(24),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + h.text.Load().(string) }))) //nolint:errcheck // nothing else is stored
	}
	h.bar.SetTotal(total, false)
	// A full bar would end itself; close does that.
	h.bar.SetCurrent(min(read, total-1))
}

// progressText tells how far a run is and how long it will take.
func progressText(read, total int64, records uint64, elapsed time.Duration) string {
	s := elapsed.Seconds()
	text := fmt.Sprintf("%3d %%  %s of %s  %s/s  %s records/s", min(100*read/total, 100), size(read), size(total),
		size(int64(float64(read)/s)), thousands(int64(float64(records)/s)))
	if read > 0 && read < total {
		left := time.Duration(s * float64(total-read) / float64(read) * float64(time.Second))
		text += "  " + left.Round(time.Second).String() + " left"
	}
	return text
}

func (h *humanUI) close() {
	h.mu.Lock()
	p, bar := h.progress, h.bar
	h.progress, h.bar = nil, nil
	h.mu.Unlock()
	if p != nil {
		bar.Abort(true)
		p.Wait()
	}
}

func (h *humanUI) summary(o *runOptions, s *export.Summary) { h.write(h.out, summaryText(o, s)) }
