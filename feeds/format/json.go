package format

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/slips-go/slips/feeds/intel"
)

// document reads a JSON feed piece by piece, each of at most maxValue bytes.
type document struct {
	*json.Decoder
	r    io.Reader
	left int64
}

func (p *parser) document() *document {
	d := &document{r: p.r, left: maxValue}
	d.Decoder = json.NewDecoder(d)
	return d
}

// Read is for the decoder.
func (d *document) Read(b []byte) (int, error) {
	if d.left <= 0 {
		return 0, fmt.Errorf("a value of more than %d bytes", maxValue)
	}
	n, err := d.r.Read(b[:min(int64(len(b)), d.left)])
	d.left -= int64(n)
	return n, err
}

// next reads one value into v.
func (d *document) next(v any) error {
	d.left = maxValue
	return notEOF(d.Decode(v))
}

// token reads one token.
func (d *document) token() (json.Token, error) {
	d.left = maxValue
	t, err := d.Token()
	return t, notEOF(err)
}

// notEOF: a JSON feed that just ends was cut short.
func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// array calls do for each element of the array that begins here. Its opening
// bracket was read.
func (d *document) array(do func(json.RawMessage) error) error {
	for d.More() {
		var raw json.RawMessage
		if err := d.next(&raw); err != nil {
			return err
		}
		if err := do(raw); err != nil {
			return err
		}
	}
	_, err := d.token()
	return err
}

// end refuses what follows the one value of a feed.
func (d *document) end() error {
	d.left = maxValue
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = ErrJSON
		}
		return fmt.Errorf("behind the end: %w", err)
	}
	return nil
}

// records calls do for each element of a feed that is an array, or an object
// of which some members are arrays of records. scalar is told the members that
// are no arrays or objects. An empty feed has none.
func (p *parser) records(scalar func(key, text string), do func(json.RawMessage) error) error {
	d := p.document()
	t, err := d.Token()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	record := func(raw json.RawMessage) error {
		p.rep.Lines++
		return do(raw)
	}
	switch t {
	case json.Delim('['):
		if err := d.array(record); err != nil {
			return p.within(err)
		}
	case json.Delim('{'):
		for d.More() {
			key, err := d.token()
			if err != nil {
				return p.within(err)
			}
			if err := d.member(func(text string) { scalar(fmt.Sprint(key), text) }, record); err != nil {
				return p.within(err)
			}
		}
		if _, err := d.token(); err != nil {
			return p.within(err)
		}
	default:
		return ErrJSON
	}
	return d.end()
}

func (p *parser) within(err error) error {
	return fmt.Errorf("after record %d: %w", p.rep.Lines, err)
}

// member reads the value of one member: of an array each record, of a scalar
// its text, of an object nothing.
func (d *document) member(scalar func(string), record func(json.RawMessage) error) error {
	t, err := d.token()
	if err != nil {
		return err
	}
	switch t {
	case json.Delim('['):
		return d.array(record)
	case json.Delim('{'):
		for depth := 1; depth > 0; {
			switch t, err = d.token(); {
			case err != nil:
				return err
			case t == json.Delim('{') || t == json.Delim('['):
				depth++
			case t == json.Delim('}') || t == json.Delim(']'):
				depth--
			}
		}
	default:
		scalar(fmt.Sprint(t))
	}
	return nil
}

// decode reads a record; one of the wrong form is rejected.
func (p *parser) decode(raw json.RawMessage, v any) bool {
	if err := json.Unmarshal(raw, v); err != nil {
		p.reject("", string(raw[:min(len(raw), maxExample)]), ErrJSON)
		return false
	}
	return true
}

// word is a string, a number or a truth value; other values are empty.
type word string

// UnmarshalJSON is for package json.
func (w *word) UnmarshalJSON(b []byte) error {
	*w = ""
	switch {
	case len(b) > 0 && b[0] == '"':
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		*w = word(s)
	case len(b) > 0 && b[0] != '{' && b[0] != '[' && string(b) != "null":
		*w = word(b)
	}
	return nil
}

// words is a list of strings, or one string of them separated by commas.
type words []string

// UnmarshalJSON is for package json.
func (w *words) UnmarshalJSON(b []byte) error {
	*w = nil
	if len(b) > 0 && b[0] == '[' {
		var list []word
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
		for _, s := range list {
			*w = append(*w, string(s))
		}
		return nil
	}
	var s word
	if err := s.UnmarshalJSON(b); err != nil {
		return err
	}
	if s != "" {
		*w = strings.Split(string(s), ",")
	}
	return nil
}

// abuseJSON reads the JSON that abuse.ch publishes: an array of records, an
// object of arrays by id (exports of ThreatFox and URLhaus), or the answer of
// an API.
func (p *parser) abuseJSON() error {
	status := ""
	err := p.records(func(key, text string) {
		if key == "query_status" || key == "error" {
			status = clean(text, maxExample)
		}
	}, func(raw json.RawMessage) error {
		var rec struct {
			IOC        word  `json:"ioc"`
			IOCValue   word  `json:"ioc_value"`
			IOCType    word  `json:"ioc_type"`
			ThreatType word  `json:"threat_type"`
			Printable  word  `json:"malware_printable"`
			FirstUTC   word  `json:"first_seen_utc"`
			First      word  `json:"first_seen"`
			Confidence word  `json:"confidence_level"`
			Tags       words `json:"tags"`
			URL        word  `json:"url"`
			Threat     word  `json:"threat"`
			DateAdded  word  `json:"dateadded"`
			DateAdded2 word  `json:"date_added"`
			IP         word  `json:"ip_address"`
			Malware    word  `json:"malware"`
		}
		if !p.decode(raw, &rec) {
			return nil
		}
		v := anyOf(rec.IOCValue, rec.IOC, rec.URL, rec.IP)
		if v == "" {
			p.reject("", string(raw[:min(len(raw), maxExample)]), ErrColumns)
			return nil
		}
		k := intel.NoKind
		if rec.IOCType != "" {
			var ok bool
			if k, ok = kindOf(string(rec.IOCType)); !ok {
				p.reject("ioc_type", string(rec.IOCType), ErrType)
				return nil
			}
		}
		m := meta{
			level: intel.FeedLevel, tags: p.tagList(rec.Tags), description: anyOf(rec.Printable, rec.Threat, rec.Malware),
			since: p.time(anyOf(rec.FirstUTC, rec.First, rec.DateAdded, rec.DateAdded2)),
		}
		if rec.ThreatType != "" {
			m.description = strings.TrimPrefix(m.description+", "+string(rec.ThreatType), ", ")
		}
		if rec.Confidence != "" {
			f, err := strconv.ParseFloat(string(rec.Confidence), 64)
			if err != nil {
				p.rep.Notes["unreadable confidence"]++
			}
			m.level = confident(f)
		}
		return p.put("value", k, v, m)
	})
	if err == nil && p.rep.Lines == 0 && status != "" && status != "ok" && status != "no_result" {
		return fmt.Errorf("%w: %q", ErrRefused, status)
	}
	return err
}

// anyOf returns the first word that is not empty.
func anyOf(all ...word) string {
	for _, w := range all {
		if w != "" {
			return string(w)
		}
	}
	return ""
}

// certPL reads domains.json of hole.cert.pl. Its publisher keeps names for
// ever, while they are bad for days: as the original does, one is used for
// seven days.
func (p *parser) certPL() error {
	const use = 7 * 86400 // s
	return p.records(nothing, func(raw json.RawMessage) error {
		var rec struct{ DomainAddress, InsertDate, DeleteDate word }
		if !p.decode(raw, &rec) {
			return nil
		}
		if rec.DeleteDate != "" {
			p.reject("DeleteDate", string(rec.DomainAddress), ErrRevoked)
			return nil
		}
		m := plain()
		if m.since = p.time(string(rec.InsertDate)); m.since != 0 {
			m.expires = m.since + use
		}
		return p.put("DomainAddress", intel.NoKind, string(rec.DomainAddress), m)
	})
}

// nothing is for feeds whose other members do not matter.
func nothing(string, string) {}

// rstcloud reads the free feeds of RST Cloud: one JSON object a line.
func (p *parser) rstcloud() error {
	return p.each(func(line string) error {
		var rec struct {
			IP           struct{ V4, V6 word }
			Domain, URL  word
			MD5          word
			SHA1, SHA256 word
			FSeen        word
			Src          struct{ Name words }
			Tags         struct{ Str words }
			Threat       words
			FP           struct{ Alarm word }
		}
		if !p.decode(json.RawMessage(line), &rec) {
			return nil
		}
		v := anyOf(rec.IP.V4, rec.IP.V6, rec.URL, rec.Domain, rec.SHA256, rec.SHA1, rec.MD5)
		switch {
		case v == "":
			p.reject("", line, ErrColumns)
			return nil
		case rec.FP.Alarm == "true":
			p.reject("fp.alarm", v, ErrBenign)
			return nil
		}
		m := meta{level: intel.FeedLevel, tags: p.tagList(rec.Tags.Str, rec.Threat), since: p.time(string(rec.FSeen))}
		if len(rec.Src.Name) > 0 {
			m.description = rec.Src.Name[0]
		}
		return p.put("value", intel.NoKind, v, m)
	})
}
