package format

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/slips-go/slips/feeds/intel"
)

const (
	maxPatternDepth = 32   // brackets inside brackets
	maxComparisons  = 4096 // of one pattern
)

// stix reads a STIX 2 bundle, or the envelope in which TAXII hands out objects:
// of both the array "objects".
func (p *parser) stix() error {
	return p.records(nothing, p.stixObject)
}

func (p *parser) stixObject(raw json.RawMessage) error {
	var o struct {
		Type           string
		Pattern        string
		PatternType    string `json:"pattern_type"`
		Revoked        bool
		ValidFrom      word `json:"valid_from"`
		ValidUntil     word `json:"valid_until"`
		Confidence     float64
		Name           string
		Description    string
		Labels         []string
		IndicatorTypes []string `json:"indicator_types"`
	}
	if !p.decode(raw, &o) {
		return nil
	}
	if o.Type != "indicator" {
		p.rep.Comments++
		return nil
	}
	switch {
	case o.Revoked:
		p.reject("revoked", o.Pattern, ErrRevoked)
		return nil
	case o.PatternType != "" && o.PatternType != "stix":
		p.reject("pattern_type", o.PatternType, ErrType)
		return nil
	case slices.Contains(o.IndicatorTypes, "benign") || slices.Contains(o.Labels, "benign"):
		p.reject("indicator_types", o.Pattern, ErrBenign)
		return nil
	}
	values, err := patternValues(o.Pattern)
	if err != nil {
		p.reject("pattern", o.Pattern, err)
		return nil
	}
	m := meta{
		level: confident(o.Confidence), description: o.Name, tags: p.tagList(o.IndicatorTypes, o.Labels),
		since: p.time(string(o.ValidFrom)), expires: p.time(string(o.ValidUntil)),
	}
	if m.description == "" {
		m.description = o.Description
	}
	for _, v := range values {
		if err := p.put("pattern", v.kind, v.text, m); err != nil {
			return err
		}
	}
	return nil
}

// found is one value that a pattern looks for.
type found struct {
	kind intel.Kind
	text string
}

// patternValues returns the values any of which makes a STIX pattern true.
//
// Each side of an OR is enough. Of an AND, one side may name values and the
// other say more about them (a port, a file name); two sides that both name
// values are enough each only if they are hashes, which are then of one file.
// Otherwise neither is bad alone, and the pattern is refused; so it is if
// something must be seen repeatedly or at some time. WITHIN changes nothing
// for one value and is passed over, and so are comparisons other than
// equality, IN and ISSUBSET.
func patternValues(pattern string) ([]found, error) {
	if len(pattern) > maxLine {
		return nil, ErrPattern
	}
	p := &query{rest: pattern}
	p.next()
	values, err := p.or(0, false)
	if err == nil && (p.tok != "" || p.bad) {
		err = ErrPattern
	}
	if err == nil && len(values) == 0 {
		err = ErrType
	}
	if err != nil {
		return nil, err
	}
	return values, nil
}

// query reads a pattern token by token.
type query struct {
	rest    string
	tok     string // "" at the end; a literal begins with its quote
	bad     bool
	literal string // text of a quoted token
	n       int    // comparisons
}

// next reads a token: a bracket, a comma, an operator, a quoted text, or a
// word, which includes the quoted parts of an object path.
func (p *query) next() {
	p.rest = strings.TrimLeft(p.rest, " \t\r\n")
	if p.rest == "" {
		p.tok = ""
		return
	}
	n := 1
	switch c := p.rest[0]; {
	case c == '\'':
		p.quoted(0)
		return
	case strings.IndexByte("[](),", c) >= 0:
	case strings.IndexByte("=!<>", c) >= 0:
		for n < len(p.rest) && strings.IndexByte("=!<>", p.rest[n]) >= 0 {
			n++
		}
	default:
		for n < len(p.rest) {
			c := p.rest[n]
			if c == '\'' || c == '"' { // hashes.'SHA-256', and t'2020-…'
				end := strings.IndexByte(p.rest[n+1:], c)
				if end < 0 {
					p.bad = true
					break
				}
				n += end + 2
				continue
			}
			if c == '[' { // resolves_to_refs[*]
				end := strings.IndexByte(p.rest[n:], ']')
				if end < 0 || end > 8 || !strings.Contains(p.rest[:n], ":") {
					break
				}
				n += end + 1
				continue
			}
			if strings.IndexByte(" \t\r\n](),=!<>", c) >= 0 {
				break
			}
			n++
		}
	}
	p.tok, p.rest = p.rest[:n], p.rest[n:]
}

// quoted reads a text in quotes, in which a backslash takes the character
// behind it as it is.
func (p *query) quoted(start int) {
	var b strings.Builder
	for i := start + 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '\\' && i+1 < len(p.rest):
			i++
			b.WriteByte(p.rest[i])
		case c == '\'':
			p.tok, p.literal, p.rest = "'", b.String(), p.rest[i+1:]
			return
		default:
			b.WriteByte(c)
		}
	}
	p.bad, p.tok, p.rest = true, "", ""
}

func (p *query) keyword(words ...string) bool {
	for _, w := range words {
		if strings.EqualFold(p.tok, w) {
			return true
		}
	}
	return false
}

// take moves past tok, and fails when it is another.
func (p *query) take(tok string) error {
	if p.tok != tok {
		return ErrPattern
	}
	p.next()
	return nil
}

// or reads a run of alternatives. inside says that it is between the brackets
// of one observation.
func (p *query) or(depth int, inside bool) ([]found, error) {
	all, err := p.and(depth, inside)
	for err == nil && p.keyword("OR") {
		p.next()
		var more []found
		if more, err = p.and(depth, inside); err == nil {
			all = append(all, more...)
		}
	}
	return all, err
}

func (p *query) and(depth int, inside bool) ([]found, error) {
	all, err := p.operand(depth, inside)
	for err == nil && (p.keyword("AND") || !inside && p.keyword("FOLLOWEDBY")) {
		p.next()
		var more []found
		if more, err = p.operand(depth, inside); err != nil {
			break
		}
		if len(all) > 0 && len(more) > 0 && !(inside && hashesOnly(all) && hashesOnly(more)) {
			return nil, ErrCondition
		}
		all = append(all, more...)
	}
	return all, err
}

func hashesOnly(all []found) bool {
	return !slices.ContainsFunc(all, func(f found) bool {
		return f.kind != intel.MD5 && f.kind != intel.SHA1 && f.kind != intel.SHA256 && f.kind != intel.CertSHA1
	})
}

// operand reads what stands between AND and OR: something in brackets, or a
// comparison.
func (p *query) operand(depth int, inside bool) ([]found, error) {
	if depth > maxPatternDepth || p.bad {
		return nil, ErrPattern
	}
	var closing string
	switch {
	case p.tok == "(":
		closing = ")"
	case p.tok == "[" && !inside:
		closing, inside = "]", true
	case inside:
		return p.comparison()
	default:
		return nil, ErrPattern
	}
	outside := closing == "]" || !inside
	p.next()
	all, err := p.or(depth+1, inside)
	if err == nil {
		err = p.take(closing)
	}
	for err == nil && outside && p.keyword("WITHIN", "REPEATS", "START") {
		if !p.keyword("WITHIN") {
			return nil, ErrCondition
		}
		p.next()
		p.next() // the number
		if !p.keyword("SECONDS") {
			return nil, ErrPattern
		}
		p.next()
	}
	return all, err
}

// comparison reads "path operator literal".
func (p *query) comparison() ([]found, error) {
	if p.n++; p.n > maxComparisons {
		return nil, ErrPattern
	}
	not := false
	if p.keyword("NOT") {
		not = true
		p.next()
	}
	if p.keyword("EXISTS") {
		p.next()
		p.next()
		return nil, nil
	}
	path := p.tok
	if !strings.Contains(path, ":") {
		return nil, ErrPattern
	}
	p.next()
	if p.keyword("NOT") {
		not = true
		p.next()
	}
	op := strings.ToUpper(p.tok)
	p.next()
	var literals []string
	if op == "IN" {
		if err := p.take("("); err != nil {
			return nil, err
		}
		for {
			literals = append(literals, p.value())
			p.next()
			if p.tok != "," {
				break
			}
			p.next()
		}
		if err := p.take(")"); err != nil {
			return nil, err
		}
	} else {
		literals = []string{p.value()}
		p.next()
	}
	if p.bad || slices.Contains(literals, "") && op != "=" && op != "!=" {
		return nil, ErrPattern
	}
	k, ok := pathKind(path)
	if not || !ok {
		return nil, nil
	}
	switch op {
	case "=", "==", "IN", "ISSUBSET":
	case "!=", "<>", "<", ">", "<=", ">=", "LIKE", "MATCHES", "ISSUPERSET":
		return nil, nil
	default:
		return nil, ErrPattern
	}
	var all []found
	for _, l := range literals {
		all = append(all, found{k, l})
	}
	return all, nil
}

// value returns the text of the literal at hand.
func (p *query) value() string {
	if p.tok == "'" {
		return p.literal
	}
	if _, err := strconv.ParseFloat(p.tok, 64); err != nil && !p.keyword("true", "false") && !strings.HasSuffix(p.tok, "'") {
		p.bad = true
	}
	return p.tok
}

// pathKind returns what an object path names. NoKind: what it looks like.
func pathKind(path string) (intel.Kind, bool) {
	object, rest, _ := strings.Cut(path, ":")
	rest = strings.ToLower(strings.NewReplacer("'", "", `"`, "", "-", "", "[*]", "", "[0]", "").Replace(rest))
	if h, ok := strings.CutPrefix(rest, "hashes."); ok {
		switch object {
		case "x509-certificate":
			return intel.CertSHA1, h == "sha1"
		case "file", "artifact":
			switch h {
			case "md5":
				return intel.MD5, true
			case "sha1":
				return intel.SHA1, true
			case "sha256":
				return intel.SHA256, true
			}
		}
		return intel.NoKind, false
	}
	switch object + ":" + rest {
	case "ipv4-addr:value", "ipv6-addr:value":
		return intel.Address, true
	case "domain-name:value":
		return intel.Domain, true
	case "url:value":
		return intel.URL, true
	case "email-addr:value", "email-message:from_ref.value", "email-message:sender_ref.value":
		return intel.Email, true
	case "autonomous-system:number":
		return intel.ASN, true
	case "network-traffic:dst_ref.value", "network-traffic:src_ref.value", "domain-name:resolves_to_refs.value":
		return intel.NoKind, true
	}
	return intel.NoKind, false
}
