package export

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/evidence"
)

// logLayout is the format of times in alerts.log.
const logLayout = "2006-01-02T15:04:05.000000Z07:00"

// ipColumns is the width of the address in alerts.log.
const ipColumns = 26

// appendLogEvidence appends the line of alerts.log for e.
func (d *Dir) appendLogEvidence(b []byte, e *evidence.Evidence) []byte {
	b = d.appendLogTime(b, e.Time)
	b = append(strconv.AppendInt(append(b, " (TW "...), e.Window, 10), "): Src IP "...)
	b = append(appendPadded(b, e.Profile), ". Detected "...)
	if s := strings.TrimRight(e.Description, ". \t\r\n"); s != "" {
		b = append(appendText(b, s), ". "...)
	}
	b = append(append(append(b, threatLevel...), e.Level.String()...), '.')
	b = appendAbout(b, "source", e.Self())
	p := e.Peer()
	b = appendAbout(b, p.Value, p.Known)
	return append(b, '\n')
}

const threatLevel = "Threat level: "

// appendAbout appends what is known about somebody.
func appendAbout(b []byte, who string, k *evidence.Known) []byte {
	text := k.Text()
	if text == "" {
		return b
	}
	b = append(appendText(append(b, " ["...), who), ": "...)
	return append(appendText(b, text), ']')
}

// appendLogAlert appends the line of alerts.log for a.
func (d *Dir) appendLogAlert(b []byte, a *alerts.Alert) []byte {
	b = append(d.appendLogTime(b, a.Time), ": Src IP "...)
	b = append(appendPadded(b, a.Profile), ". Generated an alert given enough evidence on timewindow "...)
	b = append(strconv.AppendInt(b, a.Window, 10), ". (stream time "...)
	b = append(d.appendLogTime(b, a.At), ") "...)
	b = append(appendText(b, a.Explain()), '.')
	return append(appendAbout(b, "source", a.Known), '\n')
}

// logLine is the lineKey of alerts.log. A line about evidence is known by all
// of it but for what is known about the hosts, which may be more or less after
// a crash. One about an alert is known by what is between its times: after a
// crash the same alert may be raised by other evidence, found in another order
// than before, and has other times then.
func logLine(line []byte) ([]byte, bool) {
	key, whole := wholeLine(line)
	when, rest, ok := bytes.Cut(key, []byte(": Src IP "))
	end := bytes.LastIndex(rest, []byte(". (stream time "))
	if !ok || end < 0 || bytes.IndexByte(when, ' ') >= 0 { // evidence has its window behind the time
		if i := bytes.LastIndex(key, []byte(threatLevel)); i >= 0 {
			if j := bytes.IndexByte(key[i:], '.'); j >= 0 {
				return key[:i+j], whole
			}
		}
		return key, whole
	}
	return rest[:end], whole && (bytes.HasSuffix(rest, []byte{'.'}) || bytes.HasSuffix(rest, []byte{']'}))
}

func (d *Dir) appendLogTime(b []byte, t int64) []byte {
	return time.Unix(0, t).In(d.opts.Location).AppendFormat(b, logLayout)
}

func appendPadded(b []byte, a netip.Addr) []byte {
	n := len(b)
	if a.Zone() != "" { // which is free text
		b = appendText(b, a.String())
	} else {
		b = a.AppendTo(b)
	}
	for len(b)-n < ipColumns {
		b = append(b, ' ')
	}
	return b
}
