package export

import (
	"cmp"
	"net/netip"
	"strconv"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/evidence"
)

// AppendEvidence appends the line of evidence.jsonl for e, newline included.
func AppendEvidence(b []byte, e *evidence.Evidence) []byte {
	b = appendString(append(b, `{"id":`...), e.ID)
	b = appendString(append(b, `,"type":`...), string(e.Type))
	b = appendJSONTime(append(b, `,"time":`...), e.Time)
	b = appendAddr(append(b, `,"profile":`...), e.Profile)
	b = appendWindow(b, e.Window, e.WindowStart, e.WindowEnd)
	b = appendEntity(append(b, `,"attacker":`...), e.Attacker)
	b = appendEntity(append(b, `,"victim":`...), e.Victim)
	b = appendString(append(b, `,"threat_level":`...), e.Level.String())
	b = appendFloat(append(b, `,"confidence":`...), e.Confidence)
	b = appendString(append(b, `,"description":`...), e.Description)
	b = appendString(append(b, `,"module":`...), e.Module)
	b = appendString(append(b, `,"proto":`...), e.Proto)
	b = strconv.AppendUint(append(b, `,"dst_port":`...), uint64(e.DstPort), 10)
	b = strconv.AppendUint(append(b, `,"src_port":`...), uint64(e.SrcPort), 10)
	b = appendStrings(append(b, `,"uids":`...), e.UIDs)
	b = strconv.AppendInt(append(b, `,"count":`...), cmp.Or(e.Count, int64(len(e.UIDs))), 10)
	b = appendStrings(append(b, `,"mitre":`...), e.MITRE)
	b = appendString(append(b, `,"tactic":`...), string(e.Tactic))
	return append(b, "}\n"...)
}

// AppendAlert appends the line of alerts.jsonl for a, newline included.
func AppendAlert(b []byte, a *alerts.Alert) []byte {
	b = appendString(append(b, `{"id":`...), a.ID)
	b = appendAddr(append(b, `,"profile":`...), a.Profile)
	b = appendWindow(b, a.Window, a.WindowStart, a.WindowEnd)
	b = appendJSONTime(append(b, `,"time":`...), a.Time)
	b = appendFloat(append(b, `,"score":`...), a.Score)
	b = appendFloat(append(b, `,"base":`...), a.Base)
	b = appendFloat(append(b, `,"factor":`...), a.Factor)
	b = appendStrings(append(b, `,"tactics":`...), a.Tactics)
	b = appendFloat(append(b, `,"threshold":`...), a.Threshold)
	b = appendFloat(append(b, `,"confidence":`...), a.Confidence)
	b = appendString(append(b, `,"threat_level":`...), a.Level.String())
	b = appendStrings(append(b, `,"evidence_ids":`...), a.EvidenceIDs)
	b = append(b, `,"contributions":[`...)
	for i := range a.Contributions {
		c := &a.Contributions[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(append(b, `{"id":`...), c.ID)
		b = appendString(append(b, `,"type":`...), string(c.Type))
		b = appendString(append(b, `,"tactic":`...), string(c.Tactic))
		b = appendString(append(b, `,"threat_level":`...), c.Level.String())
		b = appendFloat(append(b, `,"confidence":`...), c.Confidence)
		b = appendFloat(append(b, `,"weight":`...), c.Weight)
		b = appendFloat(append(b, `,"value":`...), c.Value)
		b = append(b, '}')
	}
	b = strconv.AppendInt(append(b, `],"omitted":`...), int64(a.Omitted), 10)
	return append(b, "}\n"...)
}

func appendWindow(b []byte, n, start, end int64) []byte {
	b = strconv.AppendInt(append(b, `,"window":`...), n, 10)
	b = appendJSONTime(append(b, `,"window_start":`...), start)
	return appendJSONTime(append(b, `,"window_end":`...), end)
}

// appendAddr appends an address as a JSON string; null when there is none.
func appendAddr(b []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return append(b, "null"...)
	}
	if a.Zone() != "" { // which is free text
		return appendString(b, a.String())
	}
	return append(a.AppendTo(append(b, '"')), '"')
}

// appendEntity appends {"ip": value, "direction": …, "port": …}, with the
// sort of the entity as the first key; null when there is none.
func appendEntity(b []byte, e evidence.Entity) []byte {
	kind := e.Kind.String()
	if kind == "" {
		return append(b, "null"...)
	}
	b = append(append(append(b, `{"`...), kind...), `":`...)
	b = appendString(b, e.Value)
	b = append(append(append(b, `,"direction":"`...), e.Direction.String()...), `","port":`...)
	return append(strconv.AppendUint(b, uint64(e.Port), 10), '}')
}
