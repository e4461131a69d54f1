package export

import (
	"cmp"
	"net/netip"
	"strconv"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/evidence"
)

// AppendEvidence appends the line of evidence.jsonl for e, newline included.
func AppendEvidence(b []byte, e *evidence.Evidence) []byte { return appendEvidence(b, e, appendFacts) }

// AppendKnownEvidence is AppendEvidence with all that is known about both sides:
// names, hardware address and vendor, when it was first and last seen.
func AppendKnownEvidence(b []byte, e *evidence.Evidence) []byte {
	return appendEvidence(b, e, appendKeys)
}

func appendEvidence(b []byte, e *evidence.Evidence, known func([]byte, *evidence.Known) []byte) []byte {
	b = appendString(append(b, `{"id":`...), e.ID)
	b = appendString(append(b, `,"type":`...), string(e.Type))
	b = appendJSONTime(append(b, `,"time":`...), e.Time)
	b = appendAddr(append(b, `,"profile":`...), e.Profile)
	b = appendWindow(b, e.Window, e.WindowStart, e.WindowEnd)
	b = appendEntity(append(b, `,"attacker":`...), e.Attacker, known)
	b = appendEntity(append(b, `,"victim":`...), e.Victim, known)
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
	if a.Known != nil {
		b = appendKnown(append(b, `,"known":`...), a.Known)
	}
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
		if c.Peer.Kind != evidence.None {
			b = appendEntity(append(b, `,"peer":`...), c.Peer, appendKeys)
		}
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
func appendEntity(b []byte, e evidence.Entity, known func([]byte, *evidence.Known) []byte) []byte {
	kind := e.Kind.String()
	if kind == "" {
		return append(b, "null"...)
	}
	b = append(append(append(b, `{"`...), kind...), `":`...)
	b = appendString(b, e.Value)
	b = append(append(append(b, `,"direction":"`...), e.Direction.String()...), `","port":`...)
	b = strconv.AppendUint(b, uint64(e.Port), 10)
	if e.Known != nil {
		b = known(b, e.Known)
	}
	return append(b, '}')
}

// appendFacts appends what follows from the address or name alone, a key for
// each thing that is known. The lines of evidence.jsonl have no more than
// that: names and times depend on what else was read by then, and evidence
// found when following has to be that of a replay.
func appendFacts(b []byte, k *evidence.Known) []byte {
	if k.Country != "" {
		b = appendString(append(b, `,"country":`...), k.Country)
	}
	if k.City != "" {
		b = appendString(append(b, `,"city":`...), k.City)
	}
	if k.ASN != 0 {
		b = strconv.AppendUint(append(b, `,"asn":`...), uint64(k.ASN), 10)
		b = appendString(append(b, `,"as":`...), k.AS)
	}
	if len(k.Feeds) > 0 {
		b = appendStrings(append(b, `,"feeds":`...), k.Feeds)
	}
	return b
}

// appendKnown appends all that is known as an object.
func appendKnown(b []byte, k *evidence.Known) []byte {
	start := len(b)
	b = appendKeys(b, k)
	if len(b) == start {
		return append(b, "{}"...)
	}
	b[start] = '{' // in the place of the first comma
	return append(b, '}')
}

// appendKeys appends all that is known, a key for each thing.
func appendKeys(b []byte, k *evidence.Known) []byte {
	b = appendFacts(b, k)
	if len(k.Names) > 0 {
		b = append(b, `,"names":[`...)
		for i, n := range k.Names {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(append(b, `{"name":`...), n.Name)
			b = append(appendString(append(b, `,"from":`...), n.From), '}')
		}
		b = append(b, ']')
	}
	if k.Rank > 0 {
		b = strconv.AppendInt(append(b, `,"rank":`...), int64(k.Rank), 10)
	}
	if k.MAC != "" {
		b = appendString(append(b, `,"mac":`...), k.MAC)
	}
	if k.Vendor != "" {
		b = appendString(append(b, `,"vendor":`...), k.Vendor)
	}
	if k.FirstSeen != 0 {
		b = appendJSONTime(append(b, `,"first_seen":`...), k.FirstSeen)
		b = appendJSONTime(append(b, `,"last_seen":`...), k.LastSeen)
	}
	return b
}
