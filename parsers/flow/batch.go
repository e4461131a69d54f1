package flow

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// ErrHeader is what a decoder returns for a line that describes the lines
// after it, or is empty: nothing is wrong and nothing is counted.
var ErrHeader = errors.New("header line")

// ErrIgnored is what a decoder returns for a whole record of a sort that no
// detector uses, such as Suricata's stats. It is counted, not reported.
var ErrIgnored = errors.New("record not used")

// SyntaxError says which line could not be decoded and why. Decoders fill
// Field, Value and Err; the reader adds Source and Line.
type SyntaxError struct {
	Source string // path, or "-" for standard input
	Line   int64  // counted from 1
	Field  string // the sensor's name of the field; empty when the whole line is wrong
	Value  string // the offending text, a copy, cut at 64 bytes; may be empty
	Err    error  // one of the Err… values of this package, or wraps one
}

// Error implements error.
func (e *SyntaxError) Error() string {
	s := e.Err.Error()
	if e.Field != "" {
		s = fmt.Sprintf("field %s: %s", e.Field, s)
	}
	if e.Value != "" {
		s += fmt.Sprintf(": %q", e.Value)
	}
	if e.Source != "" {
		s = fmt.Sprintf("%s:%d: %s", e.Source, e.Line, s)
	}
	return s
}

// Unwrap gives the reason.
func (e *SyntaxError) Unwrap() error { return e.Err }

// The reasons for which a line is rejected. They are also the keys of the
// counts in summary.json, through Reason.
var (
	ErrNotRecord   = errors.New("not a record of this format")
	ErrJSON        = errors.New("invalid JSON")
	ErrNoHeader    = errors.New("no #fields line before the first record")
	ErrColumns     = errors.New("wrong number of columns")
	ErrMissing     = errors.New("field missing")
	ErrAddress     = errors.New("invalid address")
	ErrPort        = errors.New("invalid port")
	ErrTime        = errors.New("invalid time")
	ErrNumber      = errors.New("invalid number")
	ErrTooLong     = errors.New("line too long")
	ErrTooDeep     = errors.New("nested too deep")
	ErrTruncated   = errors.New("truncated input")
	ErrBadHeader   = errors.New("header line not understood")
	ErrUnknownKind = errors.New("cannot tell which log the record belongs to")
)

var reasons = []error{
	ErrNotRecord, ErrJSON, ErrNoHeader, ErrColumns, ErrMissing, ErrAddress, ErrPort, ErrTime, ErrNumber, ErrTooLong,
	ErrTooDeep, ErrTruncated, ErrBadHeader, ErrUnknownKind,
}

// Reason returns the short text under which err is counted.
func Reason(err error) string {
	for _, r := range reasons {
		if errors.Is(err, r) {
			return r.Error()
		}
	}
	return "other"
}

// MinTime and MaxTime bound the times that a record may carry, in unix ns:
// the sensors' epoch, and 2100-01-01. What lies outside is a decoding error
// in disguise, and a clock that followed it could not come back.
const (
	MinTime int64 = 0
	MaxTime int64 = 4102444800 * 1e9
	// MaxDuration is 100 years in ns: with it no sum of a time and a duration
	// overflows.
	MaxDuration int64 = 100 * 365 * 24 * 3600 * 1e9
)

// Reject counts lines that were not decoded.
type Reject struct {
	Before  int    // index in Batch.Flows of the first record behind the line
	Reason  string // from Reason; "" for ignored records
	Ignored bool
}

// Mark says what the reader of a source knows beyond the records.
type Mark uint8

// The marks.
const (
	More  Mark = iota // more records may be at hand at once
	Idle              // the reader has caught up with a growing source
	Ended             // the source has ended; nothing comes behind this batch
)

// Batch is a run of records of one source, in the source's order, with the
// memory that their strings alias. Its reader fills it, the sequencer passes
// its records on, and Release gives it back once every user is done.
type Batch struct {
	Flows   []Flow
	Data    []byte // the lines
	Rejects []Reject
	Segment Segment // the file the lines come from
	Mark    Mark
	End     int64 // offset in the segment behind the last line, decoded or not; 0: no lines

	refs atomic.Int32
	free func(*Batch)
}

// Segment is one file of a source: a log that is written, rotated or
// compressed keeps its Segment.
type Segment struct {
	Path  string // as first opened, for messages
	Print string // fingerprint: hex SHA-1 of its first bytes, uncompressed; how it is found again
	N     int    // 0, 1, 2 … within the source
}

// NewBatch returns an empty batch held once, which goes to free when it is
// released as often as it is held.
func NewBatch(free func(*Batch)) *Batch {
	b := &Batch{free: free}
	b.refs.Store(1)
	return b
}

// Reuse makes a batch that went through free ready to be filled again, held once.
func (b *Batch) Reuse() {
	b.Flows, b.Data, b.Rejects = b.Flows[:0], b.Data[:0], b.Rejects[:0]
	b.Segment, b.Mark, b.End = Segment{}, More, 0
	b.refs.Store(1)
}

// Hold adds a user. Any goroutine that holds the batch may call it.
func (b *Batch) Hold() { b.refs.Add(1) }

// Release takes one user away. The last one gives the batch back, and nobody
// may touch it or its records after that.
func (b *Batch) Release() {
	switch n := b.refs.Add(-1); {
	case n == 0 && b.free != nil:
		b.free(b)
	case n < 0:
		panic("BUG: flow.Batch released too often")
	}
}

// Next returns the next record to decode into, growing Flows by one. The
// caller takes it back with Drop when decoding fails.
func (b *Batch) Next() *Flow {
	n := len(b.Flows)
	if n < cap(b.Flows) {
		b.Flows = b.Flows[:n+1]
	} else {
		b.Flows = append(b.Flows, Flow{})
	}
	return &b.Flows[n]
}

// Drop takes the last record away, keeping its memory for the next one.
func (b *Batch) Drop() { b.Flows = b.Flows[:len(b.Flows)-1] }

// Input is one source of records: a log with its rotations, a file, a stream.
type Input struct {
	Name string // unique, the same after a restart; it decides between records of equal time
	// Kinds are those that records of the source can be of; 0 when its reader
	// does not know.
	Kinds KindSet
	// C carries the source's batches in order. The reader closes it behind the
	// batch marked Ended, or after its context ends.
	C <-chan *Batch
}

// Position says how far a source was read: where to go on after a restart.
type Position struct {
	Segment Segment  // the file last read from
	Offset  int64    // bytes of it, uncompressed, that need not be read again
	Done    []string // fingerprints of the files before it
}
