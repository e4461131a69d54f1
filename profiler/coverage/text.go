package coverage

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
)

const (
	maxLines   = 12  // of Lines
	maxNames   = 3   // types that a line names
	minRecords = 100 // of what a sensor wrote; fewer are a sample, of which nobody expects all logs
)

// concerned returns the types of those effects that a thing has a part in.
func concerned(list []Effect, things ...string) (types []evidence.Type) {
	for _, e := range list {
		if slices.ContainsFunc(things, func(x string) bool { return slices.Contains(e.Missing, x) }) {
			types = append(types, e.Type)
		}
	}
	return types
}

// gap is what is missing of one log.
type gap struct {
	what        string
	off, weaker []evidence.Type
	noisier     []evidence.Type
	hint        string
}

// gaps returns what is missing for certain, the worst first.
func (r *Report) gaps() (list []gap) {
	add := func(what, hint string, things ...string) {
		g := gap{what, concerned(r.Off, things...), concerned(r.Weaker, things...), concerned(r.Noisier, things...), hint}
		if len(g.off)+len(g.weaker)+len(g.noisier) > 0 {
			list = append(list, g)
		}
	}
	for i, m := range r.MissingLogs {
		switch {
		case m.Why == Suppressed && m.Signs > 0:
			add(fmt.Sprintf("no %s log, though %d records of others go with one", m.Log, m.Signs), m.Hint, m.Log)
		case m.Why == Suppressed:
			add("no "+m.Log+" log", m.Hint, m.Log)
		case m.Why == Unwritten: // those that the same helps against are together
			same := func(x MissingLog) bool { return x.Why == Unwritten && x.Hint == m.Hint }
			if slices.IndexFunc(r.MissingLogs, same) < i {
				continue
			}
			var logs []string
			for _, x := range r.MissingLogs[i:] {
				if same(x) {
					logs = append(logs, x.Log)
				}
			}
			add("no "+strings.Join(logs, ", ")+" log", m.Hint, logs...)
		}
	}
	for i, m := range r.MissingFields { // in the same way, of each log
		first := slices.IndexFunc(r.MissingFields, func(x MissingField) bool { return x.Log == m.Log && x.Hint == m.Hint })
		if first < i {
			continue
		}
		var fields, things []string
		for _, x := range r.MissingFields[i:] {
			if x.Log == m.Log && x.Hint == m.Hint {
				fields, things = append(fields, x.Field), append(things, x.Log+"."+x.Field)
			}
		}
		add(m.Log+" log without "+strings.Join(fields, ", "), m.Hint, things...)
	}
	slices.SortStableFunc(list, func(a, b gap) int {
		return cmp.Or(cmp.Compare(len(b.off), len(a.off)), cmp.Compare(len(b.weaker), len(a.weaker)), cmp.Compare(len(b.noisier), len(a.noisier)))
	})
	return list
}

// quiet returns the logs that are not there, perhaps for lack of such traffic.
func (r *Report) quiet() (logs []string) {
	for _, m := range r.MissingLogs {
		if m.Why == NoTraffic {
			logs = append(logs, m.Log)
		}
	}
	return logs
}

// some names the first types of a list.
func some(types []evidence.Type) string {
	var names []string
	for i, t := range types {
		if i == maxNames && len(types) > maxNames+1 {
			return strings.Join(names, ", ") + fmt.Sprintf(" and %d more", len(types)-i)
		}
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}

func (g *gap) String() string {
	var parts []string
	for _, p := range []struct {
		types []evidence.Type
		what  string
	}{{g.off, "off"}, {g.weaker, "weaker"}, {g.noisier, "with more false alarms"}} {
		if len(p.types) > 0 {
			parts = append(parts, some(p.types)+" "+p.what)
		}
	}
	text := g.what + ": " + strings.Join(parts, "; ")
	if g.hint != "" {
		text += " (" + g.hint + ")"
	}
	return text
}

// certainlyOff returns how many types of evidence cannot be found although there may be
// such traffic.
func (r *Report) certainlyOff() (n int) {
	for _, e := range r.Off {
		if e.Certain {
			n++
		}
	}
	return n
}

// Lines returns the report for a terminal: at most twelve lines, none when
// nothing is missing for certain, or of a handful of records.
func (r *Report) Lines() []string {
	gaps, total := r.gaps(), int64(0)
	for _, n := range r.Records {
		total += n
	}
	if len(gaps) == 0 || total < minRecords {
		return nil
	}
	lines := []string{fmt.Sprintf("the input lacks what detections need: %d of %d types of evidence cannot be found, %d are weaker, %d have more false alarms (all in slips.log)",
		r.certainlyOff(), r.Types, len(r.Weaker), len(r.Noisier))}
	quiet := r.quiet()
	room := maxLines - 1
	if len(quiet) > 0 {
		room--
	}
	for i := range gaps {
		if i == room-1 && len(gaps) > room {
			lines = append(lines, fmt.Sprintf("  and %d more logs or fields", len(gaps)-i))
			break
		}
		lines = append(lines, "  "+gaps[i].String())
	}
	if len(quiet) > 0 {
		lines = append(lines, "  no traffic seen that belongs into: "+strings.Join(quiet, ", ")+" (or these logs are switched off)")
	}
	return lines
}

// Log writes all of the report, a line for each log, field and type.
func (r *Report) Log(log *slog.Logger) {
	log.Info("what the input has", "sensor", r.Sensor, "records", r.Records, "types", r.Types, "off", len(r.Off), "weaker", len(r.Weaker), "noisier", len(r.Noisier))
	for _, m := range r.MissingLogs {
		log.Info("a log is not there", "log", m.Log, "why", string(m.Why), "signs", m.Signs, "off", m.Off, "hint", m.Hint)
	}
	for _, m := range r.MissingFields {
		log.Info("a field is not there", "log", m.Log, "field", m.Field, "off", m.Off, "hint", m.Hint)
	}
	for _, l := range []struct {
		what string
		list []Effect
	}{{"cannot be found", r.Off}, {"is found less often or with less certainty", r.Weaker}, {"has more false alarms", r.Noisier}} {
		for _, e := range l.list {
			log.Info("a type of evidence "+l.what, "type", string(e.Type), "modules", e.Modules, "missing", e.Missing, "certain", e.Certain)
		}
	}
}
