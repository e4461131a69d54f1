package online

import (
	"errors"
	"fmt"
	"time"
)

// pace is a token bucket kept as the time at which it will be full again. It
// holds what may be asked in a second, at least one.
type pace struct {
	every time.Duration // between two tokens
	slack time.Duration // how much earlier than evenly spaced a request may be
	due   time.Time     // when the next one would go if they were evenly spaced
}

func newPace(perMinute int) pace {
	every := time.Minute / time.Duration(perMinute)
	return pace{every: every, slack: time.Duration(max(perMinute/60-1, 0)) * every}
}

// take takes a token, or returns how long it will be until there is one.
func (p *pace) take(now time.Time) time.Duration {
	if p.due.Before(now) {
		p.due = now
	}
	if wait := p.due.Sub(now) - p.slack; wait > 0 {
		return wait
	}
	p.due = p.due.Add(p.every)
	return 0
}

// The times of the circuit breaker and of quotas. After breakAfter failures
// in a row a service is left alone for breakFirst, then gets one question; the
// pause doubles with each of these that fails.
const (
	breakAfter = 5
	breakFirst = time.Minute
	breakMost  = 15 * time.Minute
	quotaFirst = time.Minute // without a Retry-After; doubles too
	quotaMost  = time.Hour
	quotaLimit = 24 * time.Hour // of a Retry-After
)

// pulse is the circuit breaker of a service and its quota.
type pulse struct {
	failures int           // in a row
	broken   time.Duration // the pause that ended last or goes on; 0: the circuit is closed
	full     time.Duration // likewise of quotas
	until    time.Time
}

// wait returns how long the service is to be left alone.
func (p *pulse) wait(now time.Time) time.Duration { return max(p.until.Sub(now), 0) }

// failed notes that the service did not answer and returns how long it is to
// be left alone for that.
func (p *pulse) failed(now time.Time) time.Duration {
	if p.failures++; p.failures < breakAfter {
		return 0
	}
	p.broken = min(max(2*p.broken, breakFirst), breakMost)
	p.until = now.Add(p.broken)
	return p.broken
}

// quota notes that the service was asked too much.
func (p *pulse) quota(now time.Time, after time.Duration) time.Duration {
	if after > 0 {
		after = min(after, quotaLimit)
	} else {
		p.full = min(max(2*p.full, quotaFirst), quotaMost)
		after = p.full
	}
	p.until = now.Add(after)
	return after
}

// ok notes an answer and reports whether the circuit was open before.
func (p *pulse) ok() bool {
	was := p.broken > 0
	*p = pulse{}
	return was
}

// quotaError says that the service was asked too much.
type quotaError struct {
	after time.Duration // 0: not said
}

// Error says that the quota is used up.
func (e *quotaError) Error() string { return "its quota is used up" }

// refusedError says that the service does not want us: a wrong key mostly.
// Asking again is of no use.
type refusedError struct{ why string }

// Error returns what the service objects to.
func (e *refusedError) Error() string { return e.why }

// subjectError says that there is no answer about this subject; the service
// is well.
type subjectError struct{ why string }

// Error returns why there is none.
func (e *subjectError) Error() string { return e.why }

func oddly(format string, args ...any) error { return &subjectError{fmt.Sprintf(format, args...)} }

// isSaid reports whether an error is something the service said, even if it
// said it late.
func isSaid(err error) bool {
	var q *quotaError
	var r *refusedError
	var s *subjectError
	return errors.As(err, &q) || errors.As(err, &r) || errors.As(err, &s)
}
