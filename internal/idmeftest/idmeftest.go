// Package idmeftest checks IDMEFv2 messages for tests. Nothing but tests may
// import it.
package idmeftest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

var (
	uuidPattern     = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)
	timePattern     = regexp.MustCompile(`^\d{4}-(0\d|1[012])-([0-2]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?(Z|[-+]([01]\d|2[0-3]):[0-5]\d)?$`)
	namePattern     = regexp.MustCompile(`^[a-zA-Z0-9]+$`)
	geoPattern      = regexp.MustCompile(`^[-+]?\d+(\.\d*)?(, ?[-+]?\d+(\.\d*)?){1,2}$`)
	unlocodePattern = regexp.MustCompile(`^[A-Z]{2} ?[A-Z]{3}$`)
	protocolPattern = regexp.MustCompile(`^[a-zA-Z0-9](-?[a-zA-Z0-9])*$`)
	hashPattern     = regexp.MustCompile(`^[a-zA-Z0-9-]+:([a-fA-F0-9]{2})+$`)
	ipPattern       = regexp.MustCompile(ipv4 + `|` + ipv6)
)

const (
	octet = `(25[0-5]|2[0-4]\d|[01]?\d?\d)`
	quad  = `(` + octet + `\.){3}` + octet
	ipv4  = `^` + quad + `$`
	h16   = `[0-9a-fA-F]{1,4}`
	// The eight shapes of a shortened address, and IPv4 inside IPv6.
	ipv6 = `^((` + h16 + `:){7}` + h16 + `|(` + h16 + `:){1,7}:|(` + h16 + `:){1,6}:` + h16 + `|(` + h16 + `:){1,5}(:` + h16 + `){1,2}` +
		`|(` + h16 + `:){1,4}(:` + h16 + `){1,3}|(` + h16 + `:){1,3}(:` + h16 + `){1,4}|(` + h16 + `:){1,2}(:` + h16 + `){1,5}` +
		`|` + h16 + `:(:` + h16 + `){1,6}|:((:` + h16 + `){1,7}|:)|::(ffff(:0{1,4})?:)?` + quad + `)$`
)

// rule checks one value and returns what is wrong with it, or "".
type rule func(v any) string

func str(v any) string {
	if _, ok := v.(string); !ok {
		return "is no string"
	}
	return ""
}

func match(p *regexp.Regexp) rule {
	return func(v any) string {
		s, ok := v.(string)
		if !ok || !p.MatchString(s) {
			return fmt.Sprintf("%v does not match %s", v, p)
		}
		return ""
	}
}

func oneOf(list string) rule {
	words := strings.Fields(list)
	return func(v any) string {
		s, ok := v.(string)
		if !ok || !slices.Contains(words, s) {
			return fmt.Sprintf("%v is none of %s", v, list)
		}
		return ""
	}
}

// number checks a range; integers only when whole.
func number(lo, hi float64, whole bool) rule {
	return func(v any) string {
		n, ok := v.(json.Number)
		if !ok {
			return "is no number"
		}
		f, err := n.Float64()
		if err != nil || f < lo || f > hi {
			return fmt.Sprintf("%v is not in %v..%v", n, lo, hi)
		}
		if _, err := n.Int64(); whole && err != nil {
			return fmt.Sprintf("%v is no integer", n)
		}
		return ""
	}
}

func array(r rule) rule {
	return func(v any) string {
		l, ok := v.([]any)
		if !ok {
			return "is no array"
		}
		for i, e := range l {
			if s := r(e); s != "" {
				return fmt.Sprintf("[%d] %s", i, s)
			}
		}
		return ""
	}
}

// object checks a closed set of keys.
func object(required string, keys map[string]rule) rule {
	return func(v any) string {
		m, ok := v.(map[string]any)
		if !ok {
			return "is no object"
		}
		for k := range strings.FieldsSeq(required) {
			if _, ok := m[k]; !ok {
				return "lacks " + k
			}
		}
		for k, v := range m {
			r, ok := keys[k]
			if !ok {
				return "has the unknown key " + k
			}
			if s := r(v); s != "" {
				return k + ": " + s
			}
		}
		return ""
	}
}

func idmefSchema() rule {
	ip, port, texts := match(ipPattern), number(1, 65535, true), array(str)
	ids, attachments := array(match(uuidPattern)), array(match(namePattern))
	when := match(timePattern)
	place := map[string]rule{"GeoLocation": match(geoPattern), "UnLocation": match(unlocodePattern), "Location": str}
	with := func(m map[string]rule) map[string]rule {
		maps.Copy(m, place)
		return m
	}
	return object("Version ID CreateTime Analyzer", map[string]rule{
		"Version": oneOf("2.0.3"), "ID": match(uuidPattern), "Entity": str, "Description": str, "Note": str,
		"Cause":    oneOf("Normal Error Malicious Malfunction Natural Unknown"),
		"Status":   oneOf("Event Incident"),
		"Severity": oneOf("Unknown Info Low Medium High"), "Confidence": number(0, 1, false),
		"CreateTime": when, "StartTime": when, "CeaseTime": when, "DeleteTime": when,
		"AltNames": texts, "AltCategory": texts, "Ref": texts, "AggrCondition": texts,
		"CorrelID": ids, "PredID": ids, "RelID": ids,
		"Category": array(oneOf("Abusive.Spam Malicious.Botnet Recon.Scanning Attempt.Login Other.Undetermined")), // those that could apply
		"Analyzer": object("IP Name Model Category Data Method", with(map[string]rule{
			"IP": ip, "Name": str, "Hostname": str, "Model": str,
			"Type":     oneOf("Cyber Physical Availability Combined"),
			"Category": array(oneOf("DDOS SPAM AV EDR FW NIDS HIDS WIDS PROX WAF HPT LOG IAM VPN ETL RASP BAST NAC SIEM NMS")),
			"Data":     array(oneOf("External Reporting Connection Datagram Content Data File Flow Log Protocol Host Network Alert Relay Auth SNMP")),
			"Method": array(oneOf("Biometric Signature Monitor Policy Statistical AI Heat Movement Blackhole Heuristic Integrity " +
				"Honeypot Tarpit Recon Correlation Threshold")),
		})),
		"Source": array(object("", with(map[string]rule{
			"IP": ip, "Hostname": str, "Note": str, "TI": texts, "User": str, "Email": str,
			"Protocol": array(match(protocolPattern)), "Port": array(port), "Attachment": attachments, "Observable": attachments,
		}))),
		"Target": array(object("", with(map[string]rule{
			"IP": ip, "Hostname": str, "Note": str, "Service": str, "User": str, "Email": str,
			"Port": array(port), "Attachment": attachments, "Observable": attachments,
		}))),
		"Attachment": array(object("Name", map[string]rule{
			"Name": match(namePattern), "FileName": str, "Hash": array(match(hashPattern)), "Size": number(0, 1<<53, true),
			"Ref": texts, "ExternalURI": texts, "Note": str, "ContentType": str, "ContentEncoding": str, "Content": str,
		})),
	})
}

// Validator checks messages against the JSON schema of IDMEFv2 revision 0.3
// ("2.0.3"), as published with the libraries of the format and restated here:
// closed objects, required keys, patterns, enumerations and ranges. It may be
// used by several goroutines.
type Validator struct{ schema rule }

// New returns a Validator.
func New() Validator { return Validator{idmefSchema()} }

// Validate returns what is wrong with one message, a JSON object, or nil.
// Beyond the schema, references to attachments must lead somewhere and notes
// must be JSON.
func (x Validator) Validate(line []byte) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		return err
	}
	if s := x.schema(v); s != "" {
		return fmt.Errorf("%s in %s", s, line)
	}
	if n, ok := v["Note"].(string); !ok || !json.Valid([]byte(n)) {
		return fmt.Errorf("note is no JSON: %q", n)
	}
	have := map[any]bool{}
	for _, a := range list(v["Attachment"]) {
		have[a.(map[string]any)["Name"]] = true //nolint:errcheck // the schema has checked it
	}
	used := 0
	for _, p := range append(list(v["Source"]), list(v["Target"])...) {
		for _, a := range list(p.(map[string]any)["Attachment"]) { //nolint:errcheck // the schema has checked it
			used++
			if !have[a] {
				return fmt.Errorf("no attachment %v in %s", a, line)
			}
		}
	}
	if used != len(have) {
		return fmt.Errorf("%d attachments, %d used in %s", len(have), used, line)
	}
	return nil
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}
