package format

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/slips-go/slips/feeds/intel"
)

// warninglist reads a MISP warninglist: a list of what is harmless though it
// turns up among indicators, so its entries come with the tag harmless. Those of
// type "string" match exactly in MISP; a domain among them covers its children
// here.
func (p *parser) warninglist() error {
	var list struct {
		Name string
		Type string
		List []word
	}
	d := p.document()
	if err := d.next(&list); err != nil {
		return err
	}
	if err := d.end(); err != nil {
		return err
	}
	k := intel.NoKind
	switch list.Type {
	case "cidr":
		k = intel.Range
	case "hostname":
		k = intel.Domain
	case "string", "":
	default:
		return fmt.Errorf("%w: %q", ErrWarningType, list.Type)
	}
	tags := p.tags(harmless, ",")
	for _, v := range list.List {
		p.rep.Lines++
		if err := p.put("list", k, string(v), meta{level: 0, description: list.Name, tags: tags}); err != nil {
			return err
		}
	}
	return nil
}

type mispTag struct{ Name string }

type mispAttribute struct {
	Type      string
	Value     word
	Comment   string
	ToIDS     *bool `json:"to_ids"`
	Deleted   bool
	Timestamp word
	FirstSeen word `json:"first_seen"`
	Tag       []mispTag
}

type mispEvent struct {
	Info        string
	ThreatLevel word `json:"threat_level_id"`
	Tag         []mispTag
	Attribute   []mispAttribute
	Object      []struct {
		Comment   string
		Deleted   bool
		Attribute []mispAttribute
	}
}

// misp reads events of MISP: {"Event": …}, an array of them, or the answer of
// a search. An event is held whole, since its level and tags may stand behind
// its attributes.
func (p *parser) misp() error {
	if !p.json {
		return p.valueHashes()
	}
	d := p.document()
	var top json.RawMessage
	if err := d.next(&top); err != nil {
		return err
	}
	if err := d.end(); err != nil {
		return err
	}
	return p.mispValue(top, 0)
}

// valueHashes says of the hashes.csv in a MISP feed that it is of no use.
func (p *parser) valueHashes() error {
	return p.each(func(line string) error {
		h, _, ok := strings.Cut(line, ",")
		if _, err := hash(strings.Trim(h, `"`), 32); ok && err == nil {
			return ErrValueHashes
		}
		return ErrNotJSON
	})
}

// mispValue finds the events in an answer. Three levels of wrapping are enough
// for all that MISP gives out.
func (p *parser) mispValue(raw json.RawMessage, depth int) error {
	if depth > 3 {
		return nil
	}
	if raw[0] == '[' {
		var list []json.RawMessage
		if err := json.Unmarshal(raw, &list); err != nil {
			return err
		}
		for _, r := range list {
			if err := p.mispValue(r, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	var top struct {
		Event    *mispEvent
		Response json.RawMessage
	}
	if raw[0] != '{' || json.Unmarshal(raw, &top) != nil {
		p.reject("", string(raw[:min(len(raw), maxExample)]), ErrJSON)
		return nil
	}
	switch {
	case top.Event != nil:
		return p.mispEvent(top.Event)
	case len(top.Response) > 0:
		return p.mispValue(top.Response, depth+1)
	}
	return fmt.Errorf("%w: no event", ErrJSON)
}

func (p *parser) mispEvent(e *mispEvent) error {
	m := meta{level: intel.FeedLevel, description: e.Info}
	switch e.ThreatLevel {
	case "1":
		m.level = high
	case "2":
		m.level = medium
	case "3":
		m.level = low
	}
	names := tagNames(e.Tag)
	list := func(all []mispAttribute, comment string, deleted bool) error {
		for i := range all {
			a := &all[i]
			p.rep.Lines++
			a.Deleted = a.Deleted || deleted
			if a.Comment == "" {
				a.Comment = comment
			}
			if err := p.mispAttribute(a, m, names); err != nil {
				return err
			}
		}
		return nil
	}
	if err := list(e.Attribute, "", false); err != nil {
		return err
	}
	for _, o := range e.Object {
		if err := list(o.Attribute, o.Comment, o.Deleted); err != nil {
			return err
		}
	}
	return nil
}

func tagNames(all []mispTag) (names []string) {
	for _, t := range all {
		names = append(names, t.Name)
	}
	return names
}

// mispAttribute lists an attribute that its publisher means for detection. Of
// "filename|md5" and the like the part of use is taken; both of "domain|ip".
func (p *parser) mispAttribute(a *mispAttribute, m meta, tags []string) error {
	v := string(a.Value)
	switch {
	case a.Deleted:
		p.reject(a.Type, v, ErrRevoked)
		return nil
	case a.ToIDS != nil && !*a.ToIDS:
		p.reject(a.Type, v, ErrBenign)
		return nil
	}
	m.tags = p.tagList(tags, tagNames(a.Tag))
	if a.Comment != "" {
		m.description += ": " + a.Comment
	}
	m.since = p.time(anyOf(a.FirstSeen, a.Timestamp))
	if a.Type == "domain|ip" {
		name, ip, _ := strings.Cut(v, "|")
		if err := p.put(a.Type, intel.Domain, name, m); err != nil {
			return err
		}
		return p.put(a.Type, intel.Address, ip, m)
	}
	typ := strings.ToLower(a.Type)
	if typ == "malware-sample" {
		typ = "filename|md5"
	}
	k, ok := kindOf(typ)
	if !ok || k == intel.NoKind {
		p.reject("type", a.Type, ErrType)
		return nil
	}
	if _, h, ok := strings.Cut(v, "|"); ok {
		if strings.HasPrefix(typ, "filename|") {
			v = h
		} else {
			v, _, _ = strings.Cut(v, "|")
		}
	}
	return p.put(a.Type, k, v, m)
}
