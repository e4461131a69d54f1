package block

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"
)

// Action says what a Record is about.
type Action string

// The actions. Each but Refuse and Fail is a change of what is blocked, or of
// who is isolated.
const (
	ActBlock   Action = "block"
	ActExtend  Action = "extend"  // a block ends later than it did
	ActUnblock Action = "unblock" // an operator ended it
	ActExpire  Action = "expire"  // it ended by itself
	ActRelease Action = "release" // we ended it, because it must not be blocked any more
	ActRefuse  Action = "refuse"
	ActFind    Action = "find"    // it was in the firewall and we did not know it, such as after a restart, or somebody else put its end off
	ActRestore Action = "restore" // it was gone from the firewall before its end, and was put back
	ActFail    Action = "fail"    // the firewall did not take it; it is tried again, and the record of the change follows
	ActIsolate Action = "isolate" // by ARP, besides being blocked
	ActRejoin  Action = "rejoin"  // the isolation ended
)

// Record is a line of the audit log.
type Record struct {
	Time     time.Time `json:"time"`
	Action   Action    `json:"action"`
	Prefix   string    `json:"prefix"` // without its length when it is one address
	Until    time.Time `json:"until,omitzero"`
	Offences int       `json:"offences,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Alert    string    `json:"alert,omitempty"`
	Evidence []string  `json:"evidence,omitempty"`
	By       string    `json:"by,omitempty"` // the operator who asked for the block; of ActUnblock, who ended it
	DryRun   bool      `json:"dry_run,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// WriteRecord writes one record to an audit log, with one Write.
func WriteRecord(w io.Writer, r Record) error {
	a := newAudit(w)
	a.begin()
	return errors.Join(a.add(r), a.end())
}

// Log is an audit log that others write besides a Manager, such as an Isolator
// that works for it. None of them writes while the Manager carries something
// out, so that what follows from a change comes behind it. What others write may
// thus wait for the firewall.
type Log struct {
	mu sync.Mutex
	w  io.Writer
}

// NewLog returns a Log that writes to w, which nobody else needs to lock.
func NewLog(w io.Writer) *Log { return &Log{w: w} }

// Write implements io.Writer, for all but the Manager.
func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// audit collects records and writes them with one Write. A log that cannot be
// written does not stop blocking: the Manager reports it.
type audit struct {
	w       io.Writer
	log     *Log // that w is of; nil when it is nobody else's
	buf     bytes.Buffer
	enc     *json.Encoder // into buf
	torn    bool          // the last Write ended within a line
	records int
}

func newAudit(w io.Writer) *audit {
	if w == nil {
		w = io.Discard
	}
	a := &audit{w: w}
	if l, ok := w.(*Log); ok {
		a.w, a.log = l.w, l
	}
	a.enc = json.NewEncoder(&a.buf)
	a.enc.SetEscapeHTML(false)
	return a
}

// begin keeps others from writing, until end has written what was added.
func (a *audit) begin() {
	if a.log != nil {
		a.log.mu.Lock()
	}
}

func (a *audit) end() error {
	if a.log != nil {
		defer a.log.mu.Unlock()
	}
	return a.flush()
}

// maxAuditBuffer is how much waits for Flush at most, in bytes.
const maxAuditBuffer = 1 << 20

func (a *audit) add(r Record) error {
	r.Time = r.Time.UTC()
	if !r.Until.IsZero() {
		r.Until = r.Until.UTC().Truncate(time.Millisecond)
	}
	a.records++
	if err := a.enc.Encode(r); err != nil {
		return fmt.Errorf("encode a record of the audit log: %w", err)
	}
	if a.buf.Len() > maxAuditBuffer {
		return a.flush()
	}
	return nil
}

// flush writes what was added. After an error that is lost, and what comes next
// begins a line of its own.
func (a *audit) flush() error {
	if a.buf.Len() == 0 {
		return nil
	}
	if a.torn {
		if _, err := a.w.Write([]byte{'\n'}); err != nil {
			a.buf.Reset()
			return fmt.Errorf("write the audit log: %w", err)
		}
		a.torn = false
	}
	n, err := a.w.Write(a.buf.Bytes())
	a.torn = err != nil && n > 0 && a.buf.Bytes()[n-1] != '\n'
	a.buf.Reset()
	if err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	return nil
}

// Text returns a prefix as people write it: one address without its length.
func Text(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
