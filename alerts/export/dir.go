package export

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/evidence"
)

// The files of an output directory, relative to it.
const (
	evidenceJSONL = "alerts/evidence.jsonl"
	alertsJSONL   = "alerts/alerts.jsonl"
	alertsLog     = "alerts/alerts.log"
	alertsJSON    = "alerts/alerts.json"
	spoolDir      = "flows/spool"
	configFile    = "metadata/slips.yaml"
	runFile       = "metadata/run.json"
	lockFile      = "metadata/lock"
	summaryFile   = "summary.json"
)

// Mode says what Create does about output that is already there.
type Mode uint8

// The modes.
const (
	Fresh     Mode = iota // refuse a directory that holds the output of a run
	Overwrite             // remove the output of the earlier run, and nothing else
	Continue              // go on behind it: call Resume before the first write
)

// Options are the settings of an output directory. The zero value is that of
// a replay into a new directory.
type Options struct {
	Mode       Mode
	Version    string           // of the program, for the analyser's model in IDMEFv2
	AnalyzerIP netip.Addr       // of this machine in live runs; invalid is written as 0.0.0.0
	Clock      func() time.Time // CreateTime in IDMEFv2 for live runs; nil: stream time
	Location   *time.Location   // of times in alerts.log; nil: UTC
	Flows      FlowFormat       // NoFlows, FlowsTSV or FlowsJSONL
	Letters    bool             // write flows/letters.tsv
	Timeline   bool             // write flows/timeline.jsonl
	Both       bool             // analysis direction "all": letters and timeline have the side of the destination too
}

// OccupiedError says that a directory holds the output of another run.
type OccupiedError struct {
	Path  string // the directory
	Found string // what gives it away, relative to Path
}

// Error implements error.
func (e *OccupiedError) Error() string {
	return fmt.Sprintf("output directory %q holds the output of another run (%s)", e.Path, e.Found)
}

// ErrInUse is what Create returns, wrapped, when another process is writing
// to the directory.
var ErrInUse = errors.New("another process is writing to it")

// Dir is the output directory of a run. It is an alerts.Sink. One goroutine
// calls its methods; only the writers of records may be used by others.
type Dir struct {
	path     string
	opts     Options
	lock     *os.File
	files    []*outFile // in the order of names
	flows    *FlowWriter
	letters  *LetterWriter
	timeline *TimelineWriter
	records  []recorder // those of the three above that there are
	buf      []byte     // the line being made
	note     []byte     // the note inside it
	header   []byte     // the analyser of IDMEFv2 messages up to its method
}

var _ alerts.Sink = (*Dir)(nil)

// recorder is a writer that is told of every record. One goroutine tells it,
// and that of the Dir calls these methods.
type recorder interface {
	Flush() error
	Err() error
	file() string // its name, relative to the output directory
	lost() int64
	mark() (int64, error)
	resume(mark int64, known bool) error
	close() error
}

// names lists the alert files; Dir.files has them in the same order.
var names = [...]string{evidenceJSONL, alertsJSONL, alertsLog, alertsJSON}

const (
	fileEvidence = iota
	fileAlerts
	fileLog
	fileIDMEF
)

// Create makes the output directory and opens its files. It fails with an
// *OccupiedError when the directory holds another run's output and the mode
// does not allow that, with ErrInUse when a process is writing there, and
// with a *WriteError when the directory is not writable.
func Create(path string, o Options) (_ *Dir, err error) {
	if o.Location == nil {
		o.Location = time.UTC
	}
	if st, err := os.Stat(path); err == nil && !st.IsDir() {
		return nil, fmt.Errorf("output directory %q is a file", path)
	}
	if o.Mode == Fresh {
		found, err := Occupied(path)
		if err != nil {
			return nil, err
		}
		if found != "" {
			return nil, &OccupiedError{path, found}
		}
	}
	for _, d := range []string{"alerts", "metadata"} {
		if err := os.MkdirAll(filepath.Join(path, d), 0o755); err != nil {
			return nil, fmt.Errorf("output directory is not writable: %w", &WriteError{filepath.Join(path, d), err})
		}
	}
	d := &Dir{path: path, opts: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if d.lock, err = os.OpenFile(d.Path(lockFile), os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, fmt.Errorf("output directory is not writable: %w", &WriteError{d.Path(lockFile), err})
	}
	if err := lock(d.lock); err != nil {
		return nil, fmt.Errorf("output directory %q: %w", path, err)
	}
	if o.Mode == Overwrite {
		if err := d.clear(); err != nil {
			return nil, err
		}
	}
	for i, n := range names {
		key := [...]lineKey{idLine(`{"id":"`), idLine(`{"id":"`), logLine, idLine(idmefStart)}[i]
		f, err := openFile(d.Path(n), key)
		if err != nil {
			return nil, fmt.Errorf("output directory is not writable: %w", err)
		}
		d.files = append(d.files, f)
	}
	if o.Flows != NoFlows {
		if d.flows, err = newFlowWriter(path, o.Flows); err != nil {
			return nil, err
		}
		d.records = append(d.records, d.flows)
	}
	if o.Letters {
		if d.letters, err = newLetterWriter(path, o.Both); err != nil {
			return nil, err
		}
		d.records = append(d.records, d.letters)
	}
	if o.Timeline {
		if d.timeline, err = newTimelineWriter(path, o.Both); err != nil {
			return nil, err
		}
		d.records = append(d.records, d.timeline)
	}
	d.header = appendAnalyzer(nil, o)
	return d, nil
}

// Occupied returns the first file found that a run has left in the directory
// at path, relative to it; "" for none.
func Occupied(path string) (string, error) {
	for _, n := range []string{runFile, summaryFile} {
		if _, err := os.Lstat(filepath.Join(path, filepath.FromSlash(n))); err == nil {
			return n, nil
		}
	}
	list, err := os.ReadDir(filepath.Join(path, "alerts"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return "", nil // making the directory will say what is wrong, if anything is
	}
	if err != nil {
		return "", fmt.Errorf("output directory %q: %w", path, err)
	}
	for _, f := range list {
		if !f.IsDir() {
			return "alerts/" + f.Name(), nil
		}
	}
	return "", nil
}

// clear removes the files that an earlier run has written.
func (d *Dir) clear() error {
	all := append(slices.Clone(names[:]), configFile, runFile, summaryFile, flowsPath(FlowsTSV), flowsPath(FlowsJSONL), lettersFile, TimelineFile)
	for _, n := range all {
		if err := os.Remove(d.Path(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the output of an earlier run: %w", &WriteError{d.Path(n), err})
		}
	}
	if err := os.RemoveAll(d.Path(spoolDir)); err != nil {
		return fmt.Errorf("remove the output of an earlier run: %w", &WriteError{d.Path(spoolDir), err})
	}
	return nil
}

// Path returns the path of a file in the directory. The name is relative and
// has forward slashes, such as "metadata/run.json".
func (d *Dir) Path(name string) string { return filepath.Join(d.path, filepath.FromSlash(name)) }

// Flows returns the writer of labelled flows; nil when they were not asked for.
func (d *Dir) Flows() *FlowWriter { return d.flows }

// Letters returns the writer of behavioural letters; nil when they were not
// asked for.
func (d *Dir) Letters() *LetterWriter { return d.letters }

// Timeline returns the writer of the timeline; nil when it was not asked for.
func (d *Dir) Timeline() *TimelineWriter { return d.timeline }

// Evidence implements alerts.Sink. The lines are in the files after the next Flush.
func (d *Dir) Evidence(e *evidence.Evidence, accumulated float64) error {
	var errs [4]error
	d.buf = AppendEvidence(d.buf[:0], e)
	errs[0] = d.files[fileEvidence].line(d.buf)
	d.buf = d.appendLogEvidence(d.buf[:0], e)
	errs[1] = d.files[fileLog].line(d.buf)
	d.buf = d.appendEvent(d.buf[:0], e, accumulated)
	errs[2] = d.files[fileIDMEF].line(d.buf)
	if d.flows != nil {
		errs[3] = d.flows.Evidence(e, accumulated)
	}
	return errors.Join(errs[:]...)
}

// Alert implements alerts.Sink. The lines are in the files after the next Flush.
func (d *Dir) Alert(a *alerts.Alert) error {
	var errs [4]error
	d.buf = AppendAlert(d.buf[:0], a)
	errs[0] = d.files[fileAlerts].line(d.buf)
	d.buf = d.appendLogAlert(d.buf[:0], a)
	errs[1] = d.files[fileLog].line(d.buf)
	d.buf = d.appendIncident(d.buf[:0], a)
	errs[2] = d.files[fileIDMEF].line(d.buf)
	if d.flows != nil {
		errs[3] = d.flows.Alert(a)
	}
	return errors.Join(errs[:]...)
}

// Flush hands everything written so far to the operating system: readers of
// the files see it, and a killed process does not take it along.
func (d *Dir) Flush() error {
	var errs []error
	for _, f := range d.files {
		errs = append(errs, f.flush())
	}
	for _, w := range d.records {
		errs = append(errs, w.Flush())
	}
	return errors.Join(errs...)
}

// Err returns the write errors met so far, joined; nil for none.
func (d *Dir) Err() error {
	var errs []error
	for _, f := range d.files {
		errs = append(errs, f.err)
	}
	for _, w := range d.records {
		errs = append(errs, w.Err())
	}
	return errors.Join(errs...)
}

// Lost returns how many lines could not be written.
func (d *Dir) Lost() int64 {
	var n int64
	for _, f := range d.files {
		n += f.lost
	}
	for _, w := range d.records {
		n += w.lost()
	}
	return n
}

// Marks flushes, makes the files survive a power cut, and returns by name how
// much of each goes with what was written so far, for the checkpoint: its
// size, or less while lines that a crash left are coming again. With labelled flows and letters the
// checkpoint also needs what Save of their writers gives, before anything else is written.
func (d *Dir) Marks() (map[string]int64, error) {
	if err := d.Flush(); err != nil {
		return nil, err
	}
	marks := make(map[string]int64)
	for i, f := range d.files {
		if err := f.sync(); err != nil {
			return nil, err
		}
		marks[names[i]] = f.mark()
	}
	for _, w := range d.records {
		size, err := w.mark()
		if err != nil {
			return nil, err
		}
		marks[w.file()] = size
	}
	return marks, nil
}

// Resume makes the files fit the checkpoint that marks come from: see the
// package comment. A file without a mark was empty then. It is called once,
// in mode Continue, before anything is written and before Load of the writers;
// without a checkpoint marks is nil. The error wraps ErrChanged when a file
// is shorter than its mark.
func (d *Dir) Resume(marks map[string]int64, clean bool) error {
	for i, f := range d.files {
		var err error
		if clean {
			err = f.truncate(marks[names[i]])
		} else {
			err = f.readBack(marks[names[i]])
		}
		if err != nil {
			return fmt.Errorf("resume: %w", err)
		}
	}
	for _, w := range d.records {
		mark, known := marks[w.file()]
		if err := w.resume(mark, known); err != nil {
			return fmt.Errorf("resume: %w", err)
		}
	}
	return nil
}

// Close writes out what is left, labelled flows and letters of open windows included, and
// closes the files. The Dir must not be used after that.
func (d *Dir) Close() error {
	var errs []error
	for _, f := range d.files {
		errs = append(errs, f.close())
	}
	for _, w := range d.records {
		errs = append(errs, w.close())
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close()) // which gives the lock up
	}
	return errors.Join(errs...)
}

// Run is the content of metadata/run.json: what was run on what.
type Run struct {
	Version     string     `json:"version"`
	CommandLine []string   `json:"command_line"`
	Inputs      []string   `json:"inputs"`
	Start       time.Time  `json:"start"`            // wall clock
	End         *time.Time `json:"end"`              // nil while it runs
	Resumed     int        `json:"times_resumed"`    // restarts so far
	Engine      string     `json:"engine,omitempty"` // who read packets: "builtin" or Zeek, its version and path

	Feeds     *FeedsUsed     `json:"feeds"`     // null when there are none
	Places    []PlacesUsed   `json:"places"`    // databases of countries and autonomous systems
	Whitelist *WhitelistUsed `json:"whitelist"` // null when there is none
}

// FeedsUsed names the snapshot of the feeds that a run looked things up in:
// runs with the same ID looked into the same indicators.
type FeedsUsed struct {
	ID         string         `json:"id"`
	Built      time.Time      `json:"built"`
	Indicators map[string]int `json:"indicators"` // by kind
	Feeds      []FeedUsed     `json:"feeds"`
}

// FeedUsed is one feed in a snapshot.
type FeedUsed struct {
	Name    string    `json:"name"`
	Updated time.Time `json:"updated"`
	Count   int       `json:"count"`
}

// PlacesUsed is a database of countries or autonomous systems.
type PlacesUsed struct {
	Path   string    `json:"path"`
	Type   string    `json:"type"`
	Built  time.Time `json:"built"`
	Credit string    `json:"credit,omitempty"`
}

// WhitelistUsed is a whitelist.
type WhitelistUsed struct {
	Name    string `json:"name"`
	SHA256  string `json:"sha256"`
	Entries int    `json:"entries"`
}

// WriteMetadata writes metadata/run.json and, unless config is nil,
// metadata/slips.yaml with the effective configuration. It is called at the
// start, so that the directory is known as a run's, and again at the end.
func (d *Dir) WriteMetadata(r Run, config []byte) error {
	if config != nil {
		if err := replaceFile(d.Path(configFile), config); err != nil {
			return err
		}
	}
	if r.CommandLine == nil {
		r.CommandLine = []string{}
	}
	if r.Inputs == nil {
		r.Inputs = []string{}
	}
	if r.Places == nil {
		r.Places = []PlacesUsed{}
	}
	return d.writeJSON(runFile, r)
}

// WriteSummary writes summary.json. It sorts s.Sources and s.Modules by name.
func (d *Dir) WriteSummary(s *Summary) error {
	s.normalise()
	return d.writeJSON(summaryFile, s)
}

func (d *Dir) writeJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return replaceFile(d.Path(name), append(b, '\n'))
}
