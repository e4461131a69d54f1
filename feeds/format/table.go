package format

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/slips-go/slips/feeds/intel"
)

// role is what a column says.
type role uint8

const (
	colValue role = iota
	colKind
	colLevel
	colConfidence
	colDescription
	colDetail // appended to the description
	colTags
	colSince
	colExpires
	colRank
	numRoles
)

// table is the form of a CSV feed.
type table struct {
	sep     byte
	comment string
	names   [numRoles][]string // of columns, in lower case; the first that a header has counts
	order   [numRoles]int      // numbers from 1 for a feed without header; 0: none
	header  header
	plain   bool // a line of one cell is an indicator alone
	// otherwise is the level of an entry whose level is none.
	otherwise intel.Level
}

type header uint8

const (
	headerMaybe  header = iota // adopted when one is found before the first entry
	headerNeeded               // with all names
	headerFirst                // the first line is one and says nothing new
)

func (t *table) lookup(cells []string) (order [numRoles]int, found int) {
	for r, names := range t.names {
		for _, n := range names {
			if order[r] == 0 {
				for i, c := range cells {
					if strings.EqualFold(strings.TrimSpace(c), n) {
						order[r] = i + 1
						found++
						break
					}
				}
			}
		}
	}
	return order, found
}

// read reads a feed of form t.
func (p *parser) read(t table) error {
	order, headed := t.order, t.header == headerMaybe && len(t.names[colValue]) == 0
	declared := 0
	for _, n := range t.names {
		declared += min(len(n), 1)
	}
	var missing error
	err := p.each(func(line string) error {
		if text, ok := strings.CutPrefix(line, t.comment); ok {
			p.rep.Comments++
			if headed || t.header == headerFirst {
				return nil
			}
			cells, err := p.split(strings.TrimLeft(text, "# "), t.sep)
			if err != nil {
				return nil // prose
			}
			if o, n := t.lookup(cells); o[colValue] > 0 && (t.header == headerMaybe || n == declared) {
				order, headed = o, true
				t.fill(&order)
			}
			return nil
		}
		cells, err := p.split(line, t.sep)
		if !headed {
			headed = true
			o, n := t.lookup(cells)
			switch {
			case t.header == headerFirst:
				p.rep.Comments++
				return nil
			case t.header == headerNeeded && n < declared:
				missing = fmt.Errorf("line %d: %q: %w", p.rep.Lines, clean(line, maxExample), ErrNoColumns)
				return missing
			case o[colValue] > 0:
				order = o
				t.fill(&order)
				p.rep.Comments++
				return nil
			case err == nil && t.header == headerMaybe && isTitle(cells, t.order[colValue]):
				p.rep.Comments++
				return nil
			}
		}
		if err != nil {
			p.reject("", line, err)
			return nil
		}
		return p.row(&t, order, cells)
	})
	if err == nil && t.header == headerNeeded && !headed && p.rep.Lines > 0 {
		return ErrNoColumns
	}
	return err
}

// isTitle reports whether the n-th cell of a first line is a word and no
// indicator: people name columns as they like.
func isTitle(cells []string, n int) bool {
	if n < 1 || n > len(cells) {
		return false
	}
	text := strings.TrimSpace(cells[n-1])
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' && r != ' ' }) {
		return false
	}
	_, _, err := Detect(text)
	return err != nil
}

// fill takes columns declared by number into an order that a header gave.
func (t *table) fill(order *[numRoles]int) {
	if t.header == headerNeeded {
		for r, n := range t.order {
			order[r] = max(order[r], n)
		}
	}
}

// row lists what one line says.
func (p *parser) row(t *table, order [numRoles]int, cells []string) error {
	cell := func(r role) string {
		if n := order[r]; n > 0 && n <= len(cells) {
			return cells[n-1]
		}
		return ""
	}
	if t.plain && len(cells) == 1 {
		return p.put("", intel.NoKind, cells[0], plain())
	}
	v := cell(colValue)
	if v == "" {
		p.reject("value", strings.Join(cells, string(t.sep)), ErrColumns)
		return nil
	}
	k := intel.NoKind
	if name := cell(colKind); name != "" {
		var ok bool
		if k, ok = kindOf(name); !ok {
			p.reject("kind", name, ErrType)
			return nil
		}
	}
	m := meta{level: intel.FeedLevel, description: cell(colDescription), tags: p.tags(cell(colTags), ",;|"), since: p.time(cell(colSince))}
	m.expires = p.time(cell(colExpires))
	if d := cell(colDetail); d != "" {
		m.description = strings.TrimPrefix(m.description+", "+d, ", ")
	}
	if c := cell(colConfidence); c != "" {
		f, err := strconv.ParseFloat(c, 64)
		if err != nil {
			p.rep.Notes["unreadable confidence"]++
		}
		m.level = confident(f)
	}
	if l := cell(colLevel); l != "" || order[colLevel] > 0 && t.otherwise != intel.FeedLevel {
		m.level = p.level(l, t.otherwise)
	}
	if n := order[colRank]; n > 0 {
		r, err := strconv.Atoi(cell(colRank))
		if err != nil || r < 1 {
			p.reject("rank", cell(colRank), ErrColumns)
			return nil
		}
		m.rank = r
	}
	return p.put("value", k, v, m)
}

// split cuts a line into cells at sep. A cell may be in double quotes, inside
// of which they are doubled; blanks around cells are dropped, also before a
// quote. A quoted cell must end on its line.
func (p *parser) split(line string, sep byte) ([]string, error) {
	var cells []string
	for {
		for line != "" && line[0] != sep && (line[0] == ' ' || line[0] == '\t') {
			line = line[1:]
		}
		if line == "" || line[0] != '"' {
			cell, rest, more := strings.Cut(line, string(rune(sep)))
			cells = append(cells, strings.TrimSpace(cell))
			if !more {
				return cells, nil
			}
			line = rest
			continue
		}
		line = line[1:]
		var cell strings.Builder
		for {
			i := strings.IndexByte(line, '"')
			if i < 0 {
				return nil, ErrQuotes
			}
			cell.WriteString(line[:i])
			if line = line[i+1:]; line == "" || line[0] != '"' {
				break
			}
			cell.WriteByte('"')
			line = line[1:]
		}
		junk, rest, more := strings.Cut(line, string(rune(sep)))
		cells = append(cells, strings.TrimSpace(cell.String()+junk))
		if !more {
			return cells, nil
		}
		line = rest
	}
}

// kindOf returns the kind that feeds mean by a name; NoKind for names that
// leave it to the look of the value. It reports false for unknown ones.
func kindOf(name string) (intel.Kind, bool) {
	name = strings.ToLower(strings.TrimSpace(name))
	if k := intel.ParseKind(name); k != intel.NoKind {
		return k, true
	}
	switch name {
	case "ip:port", "ipv4", "ipv6", "ip-src", "ip-dst", "ip-src|port", "ip-dst|port", "addr", "address", "ip_address", "cidr", "subnet",
		"netblock", "ipv4-addr", "ipv6-addr":
		return intel.Address, true
	case "hostname", "host", "fqdn", "domain-name", "hostname|port":
		return intel.Domain, true
	case "uri":
		return intel.URL, true
	case "md5_hash", "filename|md5":
		return intel.MD5, true
	case "sha1_hash", "sha-1", "filename|sha1":
		return intel.SHA1, true
	case "sha256_hash", "sha-256", "filename|sha256":
		return intel.SHA256, true
	case "x509-fingerprint-sha1", "cert_hash", "ssl_sha1":
		return intel.CertSHA1, true
	case "ja3-fingerprint-md5":
		return intel.JA3, true
	case "jarm-fingerprint":
		return intel.JARM, true
	case "ja4-fingerprint", "ja4-plus":
		return intel.JA4, true
	case "as", "autonomous-system":
		return intel.ASN, true
	case "email-src", "email-dst", "email-reply-to", "email-addr", "e-mail":
		return intel.Email, true
	case "hash", "file_hash", "filehash", "indicator", "ioc":
		return intel.NoKind, true
	}
	return intel.NoKind, false
}

// csv reads a feed by its declared columns.
func (p *parser) csv() error {
	c := &p.Columns
	t := table{sep: ',', comment: c.Comment, otherwise: intel.FeedLevel}
	if t.comment == "" {
		t.comment = "#"
	}
	switch {
	case c.Separator == "tab":
		t.sep = '\t'
	case len(c.Separator) == 1 && c.Separator != `"`:
		t.sep = c.Separator[0]
	case c.Separator != "":
		return fmt.Errorf("separator %q: not one character", c.Separator)
	}
	if c.Header {
		t.header = headerFirst
	}
	for r, col := range map[role]string{
		colValue: c.Value, colKind: c.Kind, colLevel: c.Level, colConfidence: c.Confidence, colDescription: c.Description, colTags: c.Tags,
		colSince: c.Since, colExpires: c.Expires, colRank: c.Rank,
	} {
		switch n, err := strconv.Atoi(col); {
		case col == "":
		case err != nil:
			t.names[r] = []string{col}
			t.header = headerNeeded
		case n < 1:
			return fmt.Errorf("column %d: they count from 1", n)
		default:
			t.order[r] = n
		}
	}
	if c.Value == "" {
		t.order[colValue] = 1
	}
	return p.read(t)
}

// slipsList reads the original's own lists: indicator, level, description, tag.
// A level that is none is medium, as there.
func slipsList(p *parser) error {
	return p.read(table{
		sep: ',', comment: "#", otherwise: medium,
		order: [numRoles]int{colValue: 1, colLevel: 2, colDescription: 3, colTags: 4},
	})
}

// tranco reads "rank,domain".
func tranco(p *parser) error {
	return p.read(table{sep: ',', comment: "#", order: [numRoles]int{colRank: 1, colValue: 2}, otherwise: intel.FeedLevel})
}

// The lists of abuse.ch. Their columns grew over the years, so the header,
// mostly the last comment, is believed before the usual order.
func threatfox() table {
	return table{
		names: [numRoles][]string{
			colValue: {"ioc_value"}, colKind: {"ioc_type"}, colDescription: {"malware_printable"}, colDetail: {"threat_type"},
			colConfidence: {"confidence_level"}, colTags: {"tags"}, colSince: {"first_seen_utc"},
		},
		order: [numRoles]int{colValue: 3, colKind: 4, colDetail: 5, colDescription: 8, colConfidence: 10, colTags: 13, colSince: 1},
	}
}

func urlhaus() table {
	return table{
		names: [numRoles][]string{colValue: {"url"}, colDescription: {"threat"}, colTags: {"tags"}, colSince: {"dateadded"}},
		order: [numRoles]int{colValue: 3, colDescription: 6, colTags: 7, colSince: 2},
	}
}

func feodo() table {
	return table{
		names: [numRoles][]string{colValue: {"dst_ip", "dstip"}, colDescription: {"malware"}, colSince: {"first_seen_utc", "firstseen"}},
		order: [numRoles]int{colValue: 2, colDescription: 6, colSince: 1},
	}
}

func sslblCert() table {
	return table{
		names: [numRoles][]string{colValue: {"sha1"}, colDescription: {"listingreason"}, colSince: {"listingdate"}},
		order: [numRoles]int{colValue: 2, colDescription: 3, colSince: 1},
	}
}

func sslblJA3() table {
	return table{
		names: [numRoles][]string{colValue: {"ja3_md5"}, colDescription: {"listingreason"}, colSince: {"firstseen"}},
		order: [numRoles]int{colValue: 1, colDescription: 4, colSince: 2},
	}
}

func sslblIP() table {
	return table{
		names: [numRoles][]string{colValue: {"dstip"}, colSince: {"firstseen"}},
		order: [numRoles]int{colValue: 2, colSince: 1},
	}
}

// abuse reads a list of abuse.ch: CSV, JSON, or one indicator a line.
func abuse(form func() table) func(*parser) error {
	return func(p *parser) error {
		if p.json {
			return p.abuseJSON()
		}
		t := form()
		t.sep, t.comment, t.otherwise = ',', "#", intel.FeedLevel
		t.plain = true
		return p.read(t)
	}
}
