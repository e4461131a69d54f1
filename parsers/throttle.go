package parsers

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/slips-go/slips/parsers/flow"
)

const (
	logFirst = 5                // rejected lines logged of one reason before it is throttled
	logEvery = 10 * time.Second // one line at most in this time after that
)

// throttle logs rejected lines of one source, few of each reason. It serves
// one goroutine.
type throttle struct {
	log    *slog.Logger
	level  slog.Level
	now    func() time.Time
	source string
	seen   map[string]*reasonLog
}

type reasonLog struct {
	logged     int
	last       time.Time
	suppressed int64
}

// reject logs a rejected line, or counts it as not logged.
func (t *throttle) reject(reason string, err error, path string, line int64) {
	r := t.seen[reason]
	if r == nil {
		if t.seen == nil {
			t.seen = make(map[string]*reasonLog)
		}
		r = new(reasonLog)
		t.seen[reason] = r
	}
	now := t.now()
	if r.logged >= logFirst && now.Sub(r.last) < logEvery {
		r.suppressed++
		return
	}
	attrs := []any{"source", t.source, "file", path, "line", line, "reason", reason}
	var syntax *flow.SyntaxError
	if errors.As(err, &syntax) {
		if syntax.Field != "" {
			attrs = append(attrs, "field", syntax.Field)
		}
		if syntax.Value != "" {
			attrs = append(attrs, "value", syntax.Value)
		}
	}
	if r.suppressed > 0 {
		attrs = append(attrs, "suppressed", r.suppressed)
	}
	t.log.Log(context.Background(), t.level, "line rejected", attrs...)
	r.logged++
	r.last, r.suppressed = now, 0
}

// flush says how many lines were not logged, when the source ends.
func (t *throttle) flush() {
	for _, reason := range sortedKeys(t.seen) {
		if n := t.seen[reason].suppressed; n > 0 {
			t.log.Log(context.Background(), t.level, "more lines were rejected", "source", t.source, "reason", reason, "suppressed", n)
		}
	}
}
