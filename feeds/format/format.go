// Package format reads threat intelligence feeds: one parser for each format
// that feeds are published in. It turns their entries into indicators in
// canonical form, and counts by reason what it refuses.
//
// It reads plain streams. Who downloads also unpacks gzip and zip (ThreatFox
// and URLhaus publish their full lists zipped, Tranco its list).
package format

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/slips-go/slips/feeds/intel"
)

// Options say how a feed is to be read.
type Options struct {
	// Format is one of Names.
	Format string
	// Kinds are what entries may be; others are refused. Empty: what the format
	// says, or else what an entry looks like. Address and Range stand for each
	// other. An entry that fits several, such as 32 hexadecimal digits where both
	// JA3 and JA3S are listed, becomes one indicator of each.
	Kinds   []intel.Kind
	Columns Columns // of csv
	// Private keeps addresses and ranges that are not globally reachable: for an
	// operator's own list, and for lists of what is harmless.
	Private bool
	// Now is the time by which entries have ended. Zero: none has.
	Now time.Time
}

// Columns say where a csv feed has what. A column is its name in the header,
// in either case, or its number from 1; empty: there is none. A header may
// stand in a comment. With numbers alone nothing is taken for a header unless
// Header says that the first line is one.
type Columns struct {
	Header      bool   `yaml:"header"`
	Separator   string `yaml:"separator"` // one character, or "tab"; empty: a comma
	Comment     string `yaml:"comment"`   // what comments begin with; empty: "#"
	Value       string `yaml:"value"`     // empty: column 1
	Kind        string `yaml:"kind"`      // as intel.ParseKind has it, or a usual name of it
	Level       string `yaml:"level"`     // info to critical
	Confidence  string `yaml:"confidence"`
	Description string `yaml:"description"`
	Tags        string `yaml:"tags"` // separated by commas, semicolons or bars
	Since       string `yaml:"since"`
	Expires     string `yaml:"expires"`
	Rank        string `yaml:"rank"` // of popular
}

// Report is what became of a feed.
type Report struct {
	Lines      int            // lines, or records of a JSON feed
	Comments   int            // of them: blank, comments, headers, objects of other types
	Indicators int            // handed to add
	Rejected   map[string]int // entries refused, by reason
	Notes      map[string]int // entries taken with a change, by what changed
	Examples   []Reject       // the first maxExamples that were refused
}

// Reject is one refused entry.
type Reject struct {
	Line   int    // from 1; of a JSON feed the number of the record
	Field  string // column or key; empty: the whole line
	Text   string // its first maxExample bytes
	Reason string
}

// String says where and why the entry was refused.
func (r *Reject) String() string {
	if r.Field == "" {
		return fmt.Sprintf("line %d: %q: %s", r.Line, r.Text, r.Reason)
	}
	return fmt.Sprintf("line %d: field %s: %q: %s", r.Line, r.Field, r.Text, r.Reason)
}

const (
	maxLine     = 64 << 10 // bytes; the longest entries, URLs, end far below
	maxValue    = 64 << 20 // bytes of one JSON value that is held whole: the largest MISP events and warning lists are half of it
	maxExamples = 20
	maxExample  = 120     // bytes of a rejected text
	maxText     = 256     // bytes of a description, which ends in alerts
	maxTags     = 16      // of one entry
	maxTag      = 64      // bytes
	maxShared   = 1 << 16 // texts remembered to be shared, of a feed where all differ
)

// Errors for a whole feed that is not what it should be.
var (
	ErrHTML      = errors.New("a web page in place of a feed")
	ErrNotText   = errors.New("json in place of text")
	ErrNotJSON   = errors.New("not json")
	ErrPacked    = errors.New("compressed or binary data in place of text")
	ErrNoColumns = errors.New("no header with the declared columns")
	// ErrValueHashes refuses the hashes.csv of a MISP feed: it holds the MD5 of
	// each attribute's text, not of files.
	ErrValueHashes = errors.New("hashes of values, not of files")
	// ErrWarningType refuses a MISP warninglist of regular expressions or
	// substrings, which are no indicators.
	ErrWarningType = errors.New("this type of warninglist is not supported")
	ErrRefused     = errors.New("the server says why it gives none")
)

// ErrFormat says that no format has that name.
var ErrFormat = errors.New("unknown format")

type shape uint8

const (
	text shape = 1 << iota
	jsonValue
	either = text | jsonValue
)

// format is one way to publish a feed.
type format struct {
	name  string
	shape shape
	kinds []intel.Kind // when Options has none
	parse func(*parser) error
}

func formats() []format {
	ips := []intel.Kind{intel.Address, intel.Range}
	return []format{
		{"cert_pl", jsonValue, []intel.Kind{intel.Domain}, (*parser).certPL},
		{"csv", text, nil, (*parser).csv},
		{"feodo", either, ips, abuse(feodo)},
		{"hosts", text, []intel.Kind{intel.Domain}, (*parser).hosts},
		{"ipsum", text, ips, (*parser).ipsum},
		{"lines", text, nil, (*parser).lines},
		{"maltrail", text, nil, (*parser).maltrail},
		{"misp", either, nil, (*parser).misp},
		{"misp_warninglist", jsonValue, nil, (*parser).warninglist},
		{"netset", text, ips, (*parser).lines},
		{"otx", text, ips, (*parser).otx},
		{"rita", text, nil, (*parser).lines},
		{"rstcloud", either, nil, (*parser).rstcloud},
		{"slips_fp_hashes", text, []intel.Kind{intel.MD5, intel.SHA1, intel.SHA256}, (*parser).knownGood},
		{"slips_iocs", text, nil, slipsList},
		{"slips_ja3", text, []intel.Kind{intel.JA3, intel.JA3S}, slipsList},
		{"slips_jarm", text, []intel.Kind{intel.JARM}, slipsList},
		{"spamhaus_drop", either, []intel.Kind{intel.Range, intel.ASN}, (*parser).drop},
		{"sslbl_cert", text, []intel.Kind{intel.CertSHA1}, abuse(sslblCert)},
		{"sslbl_ip", text, ips, abuse(sslblIP)},
		{"sslbl_ja3", text, []intel.Kind{intel.JA3}, abuse(sslblJA3)},
		{"stix", jsonValue, nil, (*parser).stix},
		{"threatfox", either, nil, abuse(threatfox)},
		{"tor", text, ips, (*parser).tor},
		{"tranco", text, []intel.Kind{intel.Popular}, tranco},
		{"urlhaus", either, []intel.Kind{intel.URL}, abuse(urlhaus)},
		{"zeek", text, nil, (*parser).zeek},
	}
}

// Names returns the formats in alphabetical order.
func Names() []string {
	var names []string
	for _, f := range formats() {
		names = append(names, f.name)
	}
	return names
}

// Parse reads one feed and calls add for each indicator, in the order of the
// feed. add may keep the indicator; Tags are shared among indicators and must
// not be changed. An error of add ends the reading and comes back wrapped.
//
// Entries that are refused cost nothing but themselves: they are counted in
// the report. An error is about the feed as a whole, and the indicators before
// it are then not to be used.
func Parse(r io.Reader, o Options, add func(intel.Indicator) error) (Report, error) {
	p := &parser{
		Options: o, add: add, shared: make(map[string]string), tagsets: make(map[string][]string),
		rep: Report{Rejected: make(map[string]int), Notes: make(map[string]int)},
	}
	i, ok := slices.BinarySearchFunc(formats(), o.Format, func(f format, name string) int { return cmp.Compare(f.name, name) })
	if !ok {
		return p.rep, fmt.Errorf("reading a feed: %w %q", ErrFormat, o.Format)
	}
	f := formats()[i]
	if p.kinds = o.Kinds; len(p.kinds) == 0 {
		p.kinds = f.kinds
	}
	if !o.Now.IsZero() {
		p.now = o.Now.Unix()
	}
	p.r = bufio.NewReaderSize(r, maxLine)
	err := p.sniff(f.shape)
	if err == nil {
		err = f.parse(p)
	}
	if err != nil {
		return p.rep, fmt.Errorf("reading a feed of format %s: %w", o.Format, err)
	}
	return p.rep, nil
}

// parser reads one feed.
type parser struct {
	Options
	kinds []intel.Kind // wanted; empty: all
	now   int64        // unix s; 0: nothing has ended
	add   func(intel.Indicator) error
	rep   Report

	r       *bufio.Reader
	json    bool // the feed begins as JSON does
	shared  map[string]string
	tagsets map[string][]string
}

// sniff refuses what is no feed of the shape before any of it is read.
func (p *parser) sniff(want shape) error {
	head, err := p.r.Peek(3)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if bytes.HasPrefix(head, []byte("\xef\xbb\xbf")) {
		if _, err := p.r.Discard(3); err != nil {
			return err
		}
	}
	if head, err = p.r.Peek(4096); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")), bytes.HasPrefix(head, []byte("PK\x03\x04")),
		bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")), bytes.IndexByte(head, 0) >= 0:
		return ErrPacked
	}
	head = bytes.TrimLeft(head, " \t\r\n")
	if len(head) > 1 && head[0] == '<' && (isLetter(head[1]) || head[1] == '!' || head[1] == '?') {
		return ErrHTML
	}
	if len(head) > 0 && (head[0] == '{' || head[0] == '[') {
		next := bytes.TrimLeft(head[1:], " \t\r\n")
		p.json = len(next) == 0 || strings.IndexByte(`{["]}`, next[0]) >= 0
	}
	switch {
	case want == text && p.json:
		return ErrNotText
	case want == jsonValue && !p.json && len(head) > 0:
		return ErrNotJSON
	}
	return nil
}

// meta is what an entry says besides the indicator. The texts may alias a line.
type meta struct {
	level          intel.Level
	description    string
	tags           []string // from parser.tags
	since, expires int64
	rank           int
}

// plain is an entry that says nothing but its indicator.
func plain() meta { return meta{level: intel.FeedLevel} }

// put lists an entry: as kind, or as what it looks like when kind is NoKind.
// The error is add's; refusals are counted.
func (p *parser) put(field string, kind intel.Kind, value string, m meta) error {
	value = refang(strings.TrimSpace(value))
	if m.expires != 0 && m.expires < p.now {
		p.reject(field, value, ErrExpired)
		return nil
	}
	if kind == intel.NoKind || kind == intel.Address || kind == intel.Range {
		if lo, hi, ok := span(value); ok {
			return p.putSpan(field, value, lo, hi, m)
		}
	}
	kinds, err := p.asWhat(kind, value)
	if err != nil {
		p.reject(field, value, err)
		return nil
	}
	for _, k := range kinds {
		c, err := canonical(k, value)
		if err == nil {
			err = c.usable(p.Private)
		}
		if err != nil {
			p.reject(field, value, err)
			return nil
		}
		if c.note != "" {
			p.rep.Notes[c.note]++
		}
		if err := p.list(c.ind, m); err != nil {
			return err
		}
	}
	return nil
}

// asWhat returns the kinds that a value of this kind is listed as.
func (p *parser) asWhat(kind intel.Kind, value string) ([]intel.Kind, error) {
	k := kind
	if k == intel.NoKind {
		k = look(value)
		if k == intel.NoKind && isDigits(value) && len(p.kinds) == 1 && p.kinds[0] == intel.ASN {
			k = intel.ASN // elsewhere a bare number may be a rank, a count, an id
		}
	}
	switch {
	case k == intel.NoKind && p.oneSort():
		return p.kinds[:1], nil // to be told what is wrong with it
	case k == intel.NoKind:
		return nil, ErrUnrecognised
	case len(p.kinds) == 0:
		return []intel.Kind{k}, nil
	}
	var kinds []intel.Kind
	for _, a := range Alike(k) {
		if slices.Contains(p.kinds, a) && (kind == intel.NoKind || a == kind || isIP(a)) {
			kinds = append(kinds, a)
		}
	}
	if len(kinds) == 0 {
		return nil, ErrKind
	}
	if isIP(kinds[0]) {
		kinds = kinds[:1] // the text decides between the two
	}
	return kinds, nil
}

// oneSort reports whether the kinds that are wanted look alike, so that it is
// clear what a value was meant to be.
func (p *parser) oneSort() bool {
	if len(p.kinds) == 0 {
		return false
	}
	alike := Alike(p.kinds[0])
	return !slices.ContainsFunc(p.kinds, func(k intel.Kind) bool { return !slices.Contains(alike, k) })
}

func isIP(k intel.Kind) bool { return k == intel.Address || k == intel.Range }

// putSpan lists the networks that make up the addresses from lo to hi.
func (p *parser) putSpan(field, value string, lo, hi ipAddr, m meta) error {
	if len(p.kinds) > 0 && !slices.ContainsFunc(p.kinds, isIP) {
		p.reject(field, value, ErrKind)
		return nil
	}
	prefixes, err := networks(lo, hi, p.Private)
	if err != nil {
		p.reject(field, value, err)
		return nil
	}
	for _, n := range prefixes {
		if err := p.list(ofPrefix(n), m); err != nil {
			return err
		}
	}
	return nil
}

// list hands over an indicator with what its entry says.
func (p *parser) list(ind intel.Indicator, m meta) error {
	ind.Value = strings.Clone(ind.Value)
	ind.Level, ind.Since, ind.Expires, ind.Rank = m.level, m.since, m.expires, m.rank
	ind.Description, ind.Tags = p.share(m.description), m.tags
	p.rep.Indicators++
	if err := p.add(ind); err != nil {
		return fmt.Errorf("line %d: %w", p.rep.Lines, err)
	}
	return nil
}

// reject counts a refused entry.
func (p *parser) reject(field, value string, reason error) {
	p.rep.Rejected[reason.Error()]++
	if len(p.rep.Examples) < maxExamples {
		p.rep.Examples = append(p.rep.Examples, Reject{
			Line: p.rep.Lines, Field: strings.Clone(field), Text: clean(value, maxExample), Reason: reason.Error(),
		})
	}
}

// share returns a description that may be kept, the same string for the same
// text: most feeds have few different ones.
func (p *parser) share(s string) string {
	if s == "" {
		return ""
	}
	if t, ok := p.shared[s]; ok {
		return t
	}
	t := clean(s, maxText)
	if len(p.shared) < maxShared {
		p.shared[strings.Clone(s)] = t
	}
	return t
}

// tags returns the tags in s, which are separated by any byte of seps.
func (p *parser) tags(s, seps string) []string {
	if s == "" {
		return nil
	}
	if t, ok := p.tagsets[s]; ok {
		return t
	}
	t := tidy(strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(seps, r) }))
	if len(p.tagsets) < maxShared {
		p.tagsets[strings.Clone(s)] = t
	}
	return t
}

// tagList is tags for those that come as a list.
func (p *parser) tagList(lists ...[]string) []string {
	return p.tags(strings.Join(slices.Concat(lists...), "\n"), "\n")
}

// tidy drops empty tags and those that stand for none, and bounds the rest.
func tidy(raw []string) []string {
	var tags []string
	for _, t := range raw {
		t = clean(t, maxTag)
		if len(tags) < maxTags && t != "" && t != "-" && !strings.EqualFold(t, "none") && !strings.EqualFold(t, "null") && !slices.Contains(tags, t) {
			tags = append(tags, t)
		}
	}
	return tags
}

// clean returns a copy of s as one line of valid UTF-8 and at most limit bytes.
func clean(s string, limit int) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r // an invalid byte comes as, and becomes, U+FFFD
	}, strings.ToValidUTF8(s[:min(len(s), 4*limit)], "\uFFFD")))
	if len(s) > limit {
		for limit > 0 && !utf8.RuneStart(s[limit]) {
			limit--
		}
		s = strings.TrimSpace(s[:limit])
	}
	return strings.Clone(s)
}

// level returns the level of that name; when there is none, otherwise, which
// is noted.
func (p *parser) level(name string, otherwise intel.Level) intel.Level {
	if l, err := intel.ParseLevel(strings.ToLower(strings.TrimSpace(name))); err == nil {
		return l
	}
	p.rep.Notes["unknown level"]++
	return otherwise
}

const (
	low intel.Level = iota + 1
	medium
	high
)

// confident turns a confidence in percent into a level by the bands of STIX
// 2.1, appendix A: below 30 is low, below 70 medium. 0 says nothing.
func confident(percent float64) intel.Level {
	switch {
	case !(percent > 0):
		return intel.FeedLevel
	case percent < 30:
		return low
	case percent < 70:
		return medium
	}
	return high
}

// time reads a time; one that cannot be read is noted, and the entry taken
// without.
func (p *parser) time(s string) int64 {
	s = strings.TrimSpace(s)
	if s == "" || s == "-" || strings.EqualFold(s, "none") || strings.EqualFold(s, "null") {
		return 0
	}
	t, ok := parseTime(s)
	if !ok {
		p.rep.Notes["unreadable time"]++
	}
	return t
}

// line returns the next line without its end, valid until the next call. Too
// long ones are rejected here.
func (p *parser) line() (string, error) {
	for {
		b, err := p.r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			p.rep.Lines++
			p.reject("", string(b[:maxExample]), ErrTooLong)
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = p.r.ReadSlice('\n')
			}
			if err == nil {
				continue
			}
			b = nil
		}
		if err != nil && (!errors.Is(err, io.EOF) || len(b) == 0) {
			return "", err
		}
		p.rep.Lines++
		return strings.TrimRight(string(b), "\r\n"), nil
	}
}

// each calls do for every line that is not blank.
func (p *parser) each(do func(string) error) error {
	for {
		line, err := p.line()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after line %d: %w", p.rep.Lines, err)
		}
		if line = strings.TrimSpace(line); line == "" {
			p.rep.Comments++
			continue
		}
		if err := do(line); err != nil {
			return err
		}
	}
}
