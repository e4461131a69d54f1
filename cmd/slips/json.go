package main

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"sync"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/alerts/export"
)

// jsonUI writes the objects of alerts/evidence.jsonl and alerts/alerts.jsonl
// to standard output, in one stream and in order, with all that is known about the addresses in them. What people want to know goes to standard error.
type jsonUI struct {
	out, err io.Writer
	quiet    bool
	mu       sync.Mutex // for err
}

var _ screen = (*jsonUI)(nil)

func (j *jsonUI) Evidence(e *evidence.Evidence, _ float64) error {
	return j.line(export.AppendKnownEvidence(nil, e))
}

func (j *jsonUI) Alert(a *alerts.Alert) error { return j.line(export.AppendAlert(nil, a)) }

func (j *jsonUI) line(text []byte) error {
	if _, err := j.out.Write(harmless(text)); err != nil {
		return &outputError{err}
	}
	return nil
}

// harmless escapes the control characters that JSON allows in strings but
// terminals obey: DEL and those of Latin-1.
func harmless(text []byte) []byte {
	control := func(r rune) bool { return 0x7f <= r && r < 0xa0 }
	if bytes.IndexFunc(text, control) < 0 {
		return text
	}
	var out []byte
	for _, r := range string(text) {
		if control(r) {
			out = fmt.Appendf(out, `\u%04x`, r)
			continue
		}
		out = append(out, string(r)...)
	}
	return out
}

// Host does nothing: the stream has addresses only.
func (j *jsonUI) Host(netip.Addr, string) {}

// Progress does nothing: a pipe has no bar.
func (j *jsonUI) Progress(int64, int64, uint64) {}

func (j *jsonUI) close() {}

func (j *jsonUI) Note(text string) {
	if j.quiet {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, _ = fmt.Fprintf(j.err, "slips: %s\n", printable(text)) // when stderr is gone there is nobody to tell
}

func (j *jsonUI) summary(o *runOptions, s *export.Summary) {
	if !j.quiet {
		_, _ = io.WriteString(j.err, summaryText(o, s)) // as above
	}
}
