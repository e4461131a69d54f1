// Package coverage says what a sensor does not log, and what therefore cannot
// be found: which logs and fields are not there, which types of evidence are
// off or weaker without them, and what would bring them.
//
// What each module needs is the table of table.go, which a test makes out of
// the cases of the modules by taking logs and fields away.
package coverage

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// row says what one module makes one type of evidence of.
type row struct {
	module string
	typ    evidence.Type
	off    []string // without any one of these it finds nothing; a+b: without both
	fewer  []string // without these it finds less, or is less sure
	more   []string // without these it takes more for what it is not
}

const (
	// Of each kind the first sampleAll records are looked at, and one in
	// sampleOne of those behind: a field that is logged at all shows in them.
	sampleAll = 1000
	sampleOne = 64

	// So many records that another log goes with, as connections of its service,
	// without one record of that log mean that it is switched off; fewer may be on
	// their way, or cut short.
	minSigns = 5

	// A follower judges when connections have been logged for judgeConn of
	// stream time, or anything for judgeAny where there are none. Ten minutes
	// are time for each client to resolve a name and to open a session of TLS,
	// and shorter than an operator who has just set it up looks away. Stream
	// time is that of the wall for who follows a live sensor, and needs no clock.
	judgeConn = 10 * time.Minute
	judgeAny  = time.Hour
)

// Watch looks at records and notes what they have. It is told of every record
// by one goroutine, as a profiler.Flows; the other methods are for the same
// goroutine, or for any when no more records come. It does not allocate.
type Watch struct {
	specs  []modules.Spec
	things []thing
	fields [flow.NumKinds][]int // of things that can be told by records and were not seen yet
	had    []bool               // by thing: seen, or in a header
	ruled  []bool               // by thing: a header has no such field
	chance []int32              // by thing: records looked at that could have had it
	certs  int                  // the thing certFiles

	records [flow.NumKinds]int64
	files   flow.KindSet // logs that are there, whatever is in them
	sensors [4]int64     // records by flow.Sensor
	signs   [flow.NumKinds]int64
	meter   flow.KindSet // what the built-in meter can give, when it reads the packets
	scripts bool         // Zeek has ours loaded

	tell             func(*Report) // nil: told already, or not wanted
	begun, conn      bool
	since, sinceConn int64
}

// New returns a Watch for modules that are to run. tell, unless it is nil, is
// called once, from within Flow, as soon as a follower can judge.
func New(specs []modules.Spec, tell func(*Report)) *Watch {
	w := &Watch{specs: specs, things: things(), tell: tell}
	w.had, w.ruled, w.chance = make([]bool, len(w.things)), make([]bool, len(w.things)), make([]int32, len(w.things))
	for i, x := range w.things {
		if x.name == certFiles {
			w.certs = i
		}
		if x.seen != nil {
			k := kindOf(x.name)
			w.fields[k] = append(w.fields[k], i)
		}
	}
	return w
}

// Log notes that there is a log of the kinds, be it without a record.
func (w *Watch) Log(kinds flow.KindSet) { w.files |= kinds &^ flow.NoKind }

// Meter notes that packets are read by the built-in meter, which can give
// records of the kinds.
func (w *Watch) Meter(kinds flow.KindSet) { w.meter |= kinds }

// Scripts notes that the Zeek which writes the logs has our scripts loaded.
func (w *Watch) Scripts() { w.scripts = true }

// Header notes the fields that a log of the kind has for certain, and with them
// those that it has not.
func (w *Watch) Header(kind flow.Kind, fields []string) {
	w.Log(flow.Of(kind))
	for i, x := range w.things {
		if kindOf(x.name) != kind || inValues(x.name) {
			continue
		}
		has := slices.Contains(fields, fieldOf(x.name)) || x.also != "" && slices.Contains(fields, x.also)
		w.had[i] = w.had[i] || has
		w.ruled[i] = w.ruled[i] || !has
	}
}

// Flow implements profiler.Flows.
func (w *Watch) Flow(f *flow.Flow, _ profile.Window) {
	k := f.Kind
	w.records[k]++
	if n := w.records[k]; n > sampleAll && n%sampleOne != 0 {
		return
	}
	w.look(f)
	if w.tell != nil {
		w.judge(f)
	}
}

// look notes what a record has.
func (w *Watch) look(f *flow.Flow) {
	w.sensors[f.Sensor&3]++
	switch {
	case f.Kind == flow.Conn && f.Service != "":
		for s := range strings.SplitSeq(f.Service, ",") {
			if k := kindOfService(s); k != flow.NumKinds {
				w.signs[k]++
			}
		}
	case f.Kind == flow.SSL && len(f.SSL.CertFPs) > 0:
		w.signs[flow.X509]++
		w.chance[w.certs]++ // files.log could have them too
	case f.Kind == flow.HTTP && len(f.HTTP.RespFUIDs) > 0:
		w.signs[flow.Files]++
	}
	left := w.fields[f.Kind]
	for n := 0; n < len(left); {
		i := left[n]
		x := &w.things[i]
		switch {
		case x.seen(f):
			w.had[i] = true
			left[n] = left[len(left)-1]
			left = left[:len(left)-1]
			continue
		case x.of == nil || x.of(f):
			w.chance[i]++
		}
		n++
	}
	w.fields[f.Kind] = left
}

// kindOfService returns the log that the analyzer of a service writes, which
// conn.log names; NumKinds when there is none of interest.
func kindOfService(s string) flow.Kind {
	switch s {
	case "dns":
		return flow.DNS
	case "http":
		return flow.HTTP
	case "ssl", "tls":
		return flow.SSL
	case "quic":
		return flow.QUIC
	case "ssh":
		return flow.SSH
	case "smtp":
		return flow.SMTP
	case "ftp":
		return flow.FTP
	case "dhcp":
		return flow.DHCP
	case "rdp":
		return flow.RDP
	case "smb":
		return flow.SMB
	case "krb", "krb_tcp":
		return flow.Kerberos
	case "ntlm":
		return flow.NTLM
	case "dce_rpc":
		return flow.DCERPC
	case "mysql":
		return flow.MySQL
	}
	return flow.NumKinds
}

// judge tells once enough was seen.
func (w *Watch) judge(f *flow.Flow) {
	if !w.begun {
		w.begun, w.since = true, f.At
	}
	if f.Kind == flow.Conn && !w.conn {
		w.conn, w.sinceConn = true, f.At
	}
	if w.conn && f.At-w.sinceConn >= int64(judgeConn) || f.At-w.since >= int64(judgeAny) {
		tell := w.tell
		w.tell = nil
		tell(w.Report())
	}
}

// Why says how certain it is that a log is missing.
type Why string

// The reasons.
const (
	Unwritten  Why = "not written" // a sensor as installed does not write it, whatever the traffic
	Suppressed Why = "suppressed"  // another log shows such traffic, and this one does not
	NoTraffic  Why = "no traffic"  // nothing shows such traffic: there may be none
)

// MissingLog is a log that is not there.
type MissingLog struct {
	Log   string `json:"log"`
	Why   Why    `json:"why"`
	Signs int64  `json:"signs,omitempty"` // records of other logs that such a log goes with, among those looked at
	Hint  string `json:"hint"`
	Off   int    `json:"off"` // types of evidence that are off for this and perhaps more
}

// MissingField is a field that a log which is there does not have.
type MissingField struct {
	Log   string `json:"log"`
	Field string `json:"field"`
	Hint  string `json:"hint"`
	Off   int    `json:"off"` // as above
}

// Effect says what a type of evidence suffers from what is missing.
type Effect struct {
	Type    evidence.Type `json:"type"`
	Modules []string      `json:"modules"` // that are concerned
	Missing []string      `json:"missing"` // "ssl.ja3", or "http" for a log
	Hints   []string      `json:"hints"`
	// Certain is false when all that is missing are logs of traffic that there
	// may be none of: then nothing is lost. Only what is off is listed then.
	Certain bool `json:"certain"`
}

// Report says what the input does not have. Its lists are sorted, and never nil.
type Report struct {
	Sensor  string           `json:"sensor"`  // that most of the records come from
	Records map[string]int64 `json:"records"` // by log
	Types   int              `json:"types"`   // of evidence that the modules know

	MissingLogs   []MissingLog   `json:"missing_logs"`
	MissingFields []MissingField `json:"missing_fields"`
	Off           []Effect       `json:"off"`     // cannot be found
	Weaker        []Effect       `json:"weaker"`  // found less often, or with less certainty
	Noisier       []Effect       `json:"noisier"` // more false alarms
}

// Report returns what was not seen so far.
func (w *Watch) Report() *Report {
	r := &Report{
		Sensor: w.name(), Records: map[string]int64{},
		MissingLogs: []MissingLog{}, MissingFields: []MissingField{}, Off: []Effect{}, Weaker: []Effect{}, Noisier: []Effect{},
	}
	gone := make(map[string]bool)    // things that are not there
	certain := make(map[string]bool) // of these, by more than that nothing was seen
	hints := make(map[string]string)
	w.logs(r, gone, certain, hints)
	w.missingFields(r, gone, certain, hints)
	w.effects(r, gone, certain, hints)
	for i := range r.MissingLogs {
		r.MissingLogs[i].Off = len(concerned(r.Off, r.MissingLogs[i].Log))
	}
	for i := range r.MissingFields {
		r.MissingFields[i].Off = len(concerned(r.Off, r.MissingFields[i].Log+"."+r.MissingFields[i].Field))
	}
	return r
}

// sensor returns the one that most of the records came from.
func (w *Watch) sensor() flow.Sensor {
	best := flow.Zeek
	for s, n := range w.sensors {
		if n > w.sensors[best] {
			best = flow.Sensor(s)
		}
	}
	return best
}

// has reports whether a field was seen.
func (w *Watch) has(name string) bool {
	i := slices.IndexFunc(w.things, func(x thing) bool { return x.name == name })
	return i >= 0 && w.had[i]
}

// there reports whether a log is there.
func (w *Watch) there(k flow.Kind) bool { return w.records[k] > 0 || w.files.Has(k) }

// logs finds the logs that are missing, of those that a module has a use for.
func (w *Watch) logs(r *Report, gone, certain map[string]bool, hints map[string]string) {
	used := make(map[string]bool)
	for _, x := range w.rows() {
		for _, name := range slices.Concat(x.off, x.fewer, x.more) {
			for name := range strings.SplitSeq(name, "+") {
				used[kindOf(name).String()] = true
			}
		}
	}
	for k := range flow.NumKinds {
		name := k.String()
		if n := w.records[k]; n > 0 {
			r.Records[name] = n
		}
		if !used[name] || w.there(k) || k == flow.X509 && w.has("ssl.subject") { // which says the same
			continue
		}
		m := MissingLog{Log: name, Why: NoTraffic, Signs: w.signs[k], Hint: w.logHint(k)}
		switch {
		case w.unwritten(k):
			m.Why = Unwritten
		case m.Signs >= minSigns, k == flow.Conn:
			m.Why = Suppressed
		}
		gone[name], certain[name], hints[name] = true, m.Why != NoTraffic, m.Hint
		r.MissingLogs = append(r.MissingLogs, m)
	}
	slices.SortFunc(r.MissingLogs, func(a, b MissingLog) int { return cmp.Compare(a.Log, b.Log) })
}

// missingFields finds the fields that logs which are there do not have.
func (w *Watch) missingFields(r *Report, gone, certain map[string]bool, hints map[string]string) {
	absent := func(i int) bool {
		x := &w.things[i]
		return !w.had[i] && (w.ruled[i] || x.seen != nil && w.chance[i] >= x.min)
	}
	for i, x := range w.things {
		k := kindOf(x.name)
		hints[x.name] = w.fieldHint(x)
		if hints[x.name] == "" {
			continue // the sensor has other fields, and modules know that
		}
		if !w.there(k) && gone[k.String()] {
			gone[x.name], certain[x.name], hints[x.name] = true, certain[k.String()], hints[k.String()]
			continue
		}
		if absent(i) {
			gone[x.name], certain[x.name] = true, true
		}
	}
	for i := range w.things {
		x := &w.things[i]
		if !w.there(kindOf(x.name)) || !gone[x.name] {
			continue
		}
		// A log that there was no traffic for would have the same, but it does not
		// have what is in the values of another.
		lacks := func(y string) bool { return gone[y] && (certain[y] || inValues(y)) }
		if x.instead != "" && !slices.ContainsFunc(strings.Split(x.instead, "+"), lacks) {
			delete(gone, x.name)
			continue
		}
		r.MissingFields = append(r.MissingFields, MissingField{Log: kindOf(x.name).String(), Field: fieldOf(x.name), Hint: hints[x.name]})
	}
	slices.SortFunc(r.MissingFields, func(a, b MissingField) int {
		return cmp.Or(cmp.Compare(a.Log, b.Log), cmp.Compare(a.Field, b.Field))
	})
}

// rows returns those of the modules that run.
func (w *Watch) rows() []row {
	return slices.DeleteFunc(table(), func(x row) bool {
		return !slices.ContainsFunc(w.specs, func(s modules.Spec) bool { return s.Name == x.module })
	})
}

// missed returns what of a list is gone: of a+b both are.
func missed(list []string, gone map[string]bool) (names []string) {
	for _, set := range list {
		all := strings.Split(set, "+")
		if !slices.ContainsFunc(all, func(x string) bool { return !gone[x] && !gone[kindOf(x).String()] }) {
			names = append(names, all...)
		}
	}
	return names
}

// effects finds what the types of evidence suffer. A type is off when it is in
// each module that has it, and else weaker.
func (w *Watch) effects(r *Report, gone, certain map[string]bool, hints map[string]string) {
	type sum struct {
		modules                int
		off, weaker, noisier   []string // modules
		offBy, weakBy, noisyBy []string // what is missing
	}
	sums := make(map[evidence.Type]*sum)
	for _, x := range w.rows() {
		s := sums[x.typ]
		if s == nil {
			s = new(sum)
			sums[x.typ] = s
		}
		s.modules++
		if w.elsewhere(x.module) {
			s.modules-- // what it is made of does not come from the sensor
			continue
		}
		if by := missed(x.off, gone); len(by) > 0 {
			s.off, s.offBy = append(s.off, x.module), append(s.offBy, by...)
			continue
		}
		if by := missed(x.fewer, gone); len(by) > 0 {
			s.weaker, s.weakBy = append(s.weaker, x.module), append(s.weakBy, by...)
		}
		if by := missed(x.more, gone); len(by) > 0 {
			s.noisier, s.noisyBy = append(s.noisier, x.module), append(s.noisyBy, by...)
		}
	}
	effect := func(typ evidence.Type, modules, by []string, sure bool) Effect {
		e := Effect{Type: typ, Modules: modules, Missing: []string{}, Hints: []string{}}
		slices.Sort(by)
		for _, name := range slices.Compact(by) {
			if log := kindOf(name).String(); name != log && gone[log] || sure && !certain[name] {
				continue // the log says it; or nothing may be lost
			}
			e.Missing = append(e.Missing, name)
			e.Certain = e.Certain || certain[name]
			if h := hints[name]; h != "" && !slices.Contains(e.Hints, h) {
				e.Hints = append(e.Hints, h)
			}
		}
		return e
	}
	r.Types = len(sums)
	for _, typ := range slices.Sorted(maps.Keys(sums)) {
		s := sums[typ]
		switch {
		case len(s.off) > 0 && len(s.off) == s.modules:
			r.Off = append(r.Off, effect(typ, s.off, s.offBy, false))
		case len(s.off)+len(s.weaker) > 0:
			if e := effect(typ, slices.Concat(s.off, s.weaker), slices.Concat(s.offBy, s.weakBy), true); e.Certain {
				r.Weaker = append(r.Weaker, e)
			}
		}
		if len(s.noisier) > 0 {
			if e := effect(typ, s.noisier, s.noisyBy, true); e.Certain {
				r.Noisier = append(r.Noisier, e)
			}
		}
	}
}

// elsewhere reports whether a module lives on what no sensor logs by itself:
// answers of online services, or alerts of signatures.
func (w *Watch) elsewhere(module string) bool {
	for _, s := range w.specs {
		if s.Name == module {
			return s.Needs.Has(flow.Lookup) || s.Needs.Has(flow.Alert)
		}
	}
	return false
}
