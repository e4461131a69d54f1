package zeekscripts

import (
	"strings"
	"sync"
)

const (
	// maxLine bounds a line of Zeek's output; what is longer is cut.
	maxLine = 2 << 10
	// maxKept is how many of the last lines are kept for an error.
	maxKept = 8
)

// lines takes apart what a program writes, of whatever kind it is. It may be
// written to by one goroutine while another asks for the last lines.
type lines struct {
	each func(string) // called for each line that is not empty

	mu   sync.Mutex
	part []byte
	kept []string
}

// Write implements io.Writer and never fails.
func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range b {
		if c == '\n' {
			l.end()
		} else if len(l.part) < maxLine {
			l.part = append(l.part, c)
		}
	}
	return len(b), nil
}

// flush ends a last line that has no end.
func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
}

func (l *lines) end() {
	s := strings.TrimSpace(strings.Map(printable, strings.ToValidUTF8(string(l.part), "?")))
	l.part = l.part[:0]
	if s == "" {
		return
	}
	if s != readyWord && s != aliveWord {
		if len(l.kept) == maxKept {
			l.kept = append(l.kept[:0], l.kept[1:]...)
		}
		l.kept = append(l.kept, s)
	}
	l.each(s)
}

// printable replaces what could confuse a terminal.
func printable(r rune) rune {
	if r < ' ' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
		return '?'
	}
	return r
}

// complains reports whether a line speaks of an error.
func complains(line string) bool { return strings.Contains(strings.ToLower(line), "error") }

// last returns the line that says most about an end: the last with "error" in
// it, else the last.
func (l *lines) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.kept) - 1; i >= 0; i-- {
		if complains(l.kept[i]) {
			return l.kept[i]
		}
	}
	if len(l.kept) == 0 {
		return ""
	}
	return l.kept[len(l.kept)-1]
}
