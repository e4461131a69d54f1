package export

import (
	"cmp"
	"encoding/hex"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/evidence"
)

// idmefStart is how each message begins; the id follows.
const idmefStart = `{"Version":"2.0.3","ID":"`

// isMethod reports whether s is an analyser method that IDMEFv2 knows.
func isMethod(s string) bool {
	switch s {
	case "Biometric", "Signature", "Monitor", "Policy", "Statistical", "AI", "Heat", "Movement", "Blackhole",
		"Heuristic", "Integrity", "Honeypot", "Tarpit", "Recon", "Correlation", "Threshold":
		return true
	}
	return false
}

// appendAnalyzer appends the Analyzer up to the value of its method.
func appendAnalyzer(b []byte, o Options) []byte {
	ip := o.AnalyzerIP
	if !ip.IsValid() {
		ip = netip.IPv4Unspecified()
	}
	b = appendIP(append(b, `,"Analyzer":{`...), ip)
	b = appendString(append(b, `,"Name":"Slips","Model":`...), strings.TrimSpace("slips "+o.Version))
	return append(b, `,"Category":["NIDS"],"Data":["Flow","Network"],"Method":["`...)
}

// appendIP appends the key IP with a in a form that the schema's pattern
// accepts: IPv4 as IPv4, and without a zone, of which the pattern knows few.
func appendIP(b []byte, a netip.Addr) []byte {
	return append(a.Unmap().WithZone("").AppendTo(append(b, `"IP":"`...)), '"')
}

// appendHead appends what events and incidents begin with, behind the id.
func (d *Dir) appendHead(b []byte, id, method, status, severity string, created, start int64, conf float64) []byte {
	if d.opts.Clock != nil {
		created = d.opts.Clock().UnixNano()
	}
	if !isMethod(method) {
		method = "Heuristic"
	}
	b = appendString(append(b, idmefStart[:len(idmefStart)-1]...), id)
	b = append(append(append(b, d.header...), method...), `"]},"Status":"`...)
	b = append(append(b, status...), `","Severity":"`...)
	b = append(append(b, severity...), `","StartTime":`...)
	b = appendJSONTime(b, start)
	b = appendJSONTime(append(b, `,"CreateTime":`...), created)
	return appendFloat(append(b, `,"Confidence":`...), unit(conf))
}

// unit clips v to 0..1, which the schema asks for.
func unit(v float64) float64 {
	if !(v > 0) {
		return 0
	}
	return min(v, 1)
}

// appendEvent appends the line of alerts.json for e.
func (d *Dir) appendEvent(b []byte, e *evidence.Evidence, accumulated float64) []byte {
	b = d.appendHead(b, e.ID, e.Method, "Event", severity(e.Level), cmp.Or(e.Key.At, e.Time), e.Time, e.Confidence)
	b = appendString(append(b, `,"Description":`...), e.Description)
	if len(e.MITRE) > 0 {
		b = appendStrings(append(b, `,"AltCategory":`...), e.MITRE)
	}
	b = append(b, `,"Source":[`...)
	b = append(appendParty(b, e, e.Attacker, true), ']')
	if e.Victim.Kind.String() != "" {
		b = append(b, `,"Target":[`...)
		b = append(appendParty(b, e, e.Victim, false), ']')
	}
	b = appendAttachments(b, e)

	// The note is JSON inside a JSON string, as consumers of the reference's
	// output expect it.
	note := appendStrings(append(d.note[:0], `{"uids":`...), e.UIDs)
	note = appendFloat(append(note, `,"accumulated_threat_level":`...), accumulated)
	note = appendString(append(note, `,"threat_level":`...), e.Level.String())
	note = appendString(append(note, `,"confidence":`...), confidenceWord(e.Confidence))
	note = append(strconv.AppendInt(append(note, `,"timewindow":`...), e.Window, 10), '}')
	d.note = note
	b = appendString(append(b, `,"Note":`...), note)
	return append(b, "}\n"...)
}

// appendIncident appends the line of alerts.json for a. The end of the window
// sits in the note, because the revisions of the format disagree about the
// name of the key.
func (d *Dir) appendIncident(b []byte, a *alerts.Alert) []byte {
	b = d.appendHead(b, a.ID, "Heuristic", "Incident", severity(a.Level), a.At, a.WindowStart, a.Confidence)
	b = append(b, `,"Source":[{`...)
	if a.Profile.IsValid() {
		b = appendIP(b, a.Profile)
		if k := a.Known; k != nil {
			if len(k.Names) > 0 {
				b = appendString(append(b, `,"Hostname":`...), k.Names[0].Name)
			}
			b = appendString(append(b, `,"Note":`...), appendKnown(nil, k))
		}
	}
	b = appendStrings(append(b, `}],"CorrelID":`...), a.EvidenceIDs)
	note := appendFloat(append(d.note[:0], `{"accumulated_threat_level":`...), a.Score)
	note = appendString(append(note, `,"explanation":`...), a.Explain())
	note = strconv.AppendInt(append(note, `,"timewindow":`...), a.Window, 10)
	note = append(appendJSONTime(append(note, `,"EndTime":`...), a.WindowEnd), '}')
	d.note = note
	b = appendString(append(b, `,"Note":`...), note)
	return append(b, "}\n"...)
}

// severity maps a level to IDMEFv2, which has nothing above High.
func severity(l evidence.Level) string {
	switch l {
	case evidence.Info:
		return "Info"
	case evidence.Low:
		return "Low"
	case evidence.Medium:
		return "Medium"
	default:
		return "High"
	}
}

func confidenceWord(c float64) string {
	switch {
	case c >= 0.80:
		return "High"
	case c >= 0.55:
		return "Medium"
	default:
		return "low"
	}
}

// appendParty appends a Source or a Target. Both are closed sets of keys:
// what has no key of its own, a URL, goes into the note.
func appendParty(b []byte, e *evidence.Evidence, p evidence.Entity, source bool) []byte {
	b = append(b, '{')
	host, note, attachment := "", "", ""
	switch p.Kind {
	case evidence.IP:
		if a, err := netip.ParseAddr(p.Value); err == nil {
			b = append(appendIP(b, a), ',')
		} else {
			host = p.Value
		}
	case evidence.Domain:
		host = p.Value
	case evidence.URL:
		if u, err := url.Parse(p.Value); err == nil {
			host = u.Hostname()
		}
		note = string(append(appendString([]byte(`{"url":`), p.Value), '}'))
	case evidence.Hash:
		if hashName(p.Value) != "" {
			attachment = attachmentName(source)
		} else {
			note = string(append(appendString([]byte(`{"hash":`), p.Value), '}'))
		}
	default: // nobody to name: an empty object is valid
	}
	if k := p.Known; k != nil {
		if host == "" && len(k.Names) > 0 {
			host = k.Names[0].Name
		}
		if note == "" {
			note = string(appendKnown(nil, k))
		}
		if k.Country != "" {
			b = append(appendString(append(b, `"Location":`...), strings.TrimLeft(k.City+" "+k.Country, " ")), ',')
		}
		if source && len(k.Feeds) > 0 {
			b = append(appendStrings(append(b, `"TI":`...), k.Feeds), ',')
		}
	}
	if host != "" {
		b = append(appendString(append(b, `"Hostname":`...), host), ',')
	}
	if note != "" {
		b = append(appendString(append(b, `"Note":`...), note), ',')
	}
	port := p.Port
	if port == 0 && p.Direction == evidence.Src {
		port = e.SrcPort
	} else if port == 0 {
		port = e.DstPort
	}
	if port != 0 { // 0 is no port to the schema
		b = append(strconv.AppendUint(append(b, `"Port":[`...), uint64(port), 10), "],"...)
	}
	if source && isProtocol(e.Proto) {
		b = append(appendString(append(b, `"Protocol":[`...), strings.ToUpper(e.Proto)), "],"...)
	}
	if attachment != "" {
		b = append(append(append(b, `"Attachment":["`...), attachment...), `"],`...)
	}
	if b[len(b)-1] == ',' {
		b = b[:len(b)-1]
	}
	return append(b, '}')
}

// appendAttachments appends the files whose hashes are attacker or victim.
func appendAttachments(b []byte, e *evidence.Evidence) []byte {
	n := 0
	for i, p := range [...]evidence.Entity{e.Attacker, e.Victim} {
		f := hashName(p.Value)
		if p.Kind != evidence.Hash || f == "" {
			continue
		}
		if n == 0 {
			b = append(b, `,"Attachment":[`...)
		} else {
			b = append(b, ',')
		}
		n++
		b = append(append(append(b, `{"Name":"`...), attachmentName(i == 0)...), `","Hash":["`...)
		b = append(append(append(append(b, f...), ':'), p.Value...), `"]}`...)
	}
	if n > 0 {
		b = append(b, ']')
	}
	return b
}

func attachmentName(source bool) string {
	if source {
		return "source"
	}
	return "target"
}

// hashName returns the function that gives a hash of this length; "" when s
// is no hash in hexadecimal.
func hashName(s string) string {
	if _, err := hex.DecodeString(s); err != nil {
		return ""
	}
	switch len(s) {
	case 32:
		return "md5"
	case 40:
		return "sha1"
	case 64:
		return "sha256"
	}
	return ""
}

// isProtocol reports whether s is letters and digits with single hyphens
// between them, the form of IANA's names.
func isProtocol(s string) bool {
	hyphen := true
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
			hyphen = false
		case c == '-' && !hyphen:
			hyphen = true
		default:
			return false
		}
	}
	return !hyphen
}
