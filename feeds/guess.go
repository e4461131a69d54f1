package feeds

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/slips-go/slips/feeds/format"
	"github.com/slips-go/slips/feeds/intel"
)

const (
	guessBytes = 64 << 10 // of a file are looked at: the longest heads of comments are some KiB
	guessRows  = 200      // lines that are no comments
	guessDepth = 3        // of a JSON document: {"data": [{…}]} is the deepest that is needed
)

// guessFile is guess for an open file.
func guessFile(path string, f io.ReaderAt) (string, format.Columns, error) {
	head := make([]byte, guessBytes)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", format.Columns{}, err
	}
	how, columns := guess(path, head[:n])
	return how, columns, nil
}

// guess tells how a file is to be read by its name and its first bytes, of
// which it looks at guessBytes; columns are those of format csv. It goes by
// what publishers write: the names of columns, the keys of JSON, the form of
// most lines.
func guess(path string, head []byte) (how string, columns format.Columns) {
	name := filepath.Base(path)
	for _, packed := range []string{".gz", ".zst", ".zip"} {
		name = strings.TrimSuffix(name, packed)
	}
	if how := ownFormat(name); how != "" {
		return how, columns
	}
	ext := filepath.Ext(name)
	switch ext {
	case ".intel":
		return "zeek", columns
	case ".netset", ".ipset":
		return "netset", columns
	}
	if len(head) >= guessBytes {
		head = head[:guessBytes]
		if end := bytes.LastIndexByte(head, '\n'); end > 0 {
			head = head[:end] // without the line that is cut
		}
	}
	head = bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n")
	if len(head) > 0 && (head[0] == '{' || head[0] == '[') {
		if how := guessJSON(head); how != "" {
			return how, columns
		}
	}
	comments, rows := sample(head)
	if how := guessText(comments, rows); how != "" {
		return how, columns
	}
	if ext == ".csv" || ext == ".tsv" {
		return guessTable(comments, rows)
	}
	return "lines", columns
}

// guessJSON goes by the keys of the first levels; nothing for a document of
// another sort.
func guessJSON(head []byte) string {
	keys, top := make(map[string]bool), make(map[string]bool)
	type level struct{ object, key bool } // key: a string is the next key
	var open []level
	for d := json.NewDecoder(bytes.NewReader(head)); ; {
		t, err := d.Token()
		if err != nil {
			break // of the end that was cut
		}
		at := len(open) - 1
		switch t {
		case json.Delim('{'), json.Delim('['):
			open = append(open, level{object: t == json.Delim('{'), key: true})
			continue
		case json.Delim('}'), json.Delim(']'):
			open = open[:at]
			at--
		}
		if at < 0 || !open[at].object {
			continue
		}
		if key, ok := t.(string); ok && open[at].key {
			open[at].key = false
			if key = strings.ToLower(key); at < guessDepth {
				keys[key] = true
			}
			if at == 0 {
				top[key] = true
			}
			continue
		}
		open[at].key = true
	}
	switch {
	case top["objects"]:
		return "stix"
	case keys["event"]:
		return "misp"
	case top["list"]:
		return "misp_warninglist"
	case top["cidr"], top["asn"] && top["asname"]:
		return "spamhaus_drop"
	case keys["domainaddress"]:
		return "cert_pl"
	case top["fseen"]:
		return "rstcloud"
	case keys["ioc"], keys["ioc_value"]:
		return "threatfox"
	case keys["url_status"]:
		return "urlhaus"
	case keys["ip_address"] && keys["malware"]:
		return "feodo"
	}
	return ""
}

// sample parts the first lines into comments, without what marks them, and
// others.
func sample(head []byte) (comments, rows []string) {
	for line := range bytes.Lines(head) {
		text := string(bytes.TrimSpace(line))
		switch {
		case text == "":
		case text[0] == '#', text[0] == ';', strings.HasPrefix(text, "//"):
			comments = append(comments, strings.TrimLeft(text, "#;/ "))
		case len(rows) < guessRows:
			rows = append(rows, text)
		}
	}
	return comments, rows
}

// most reports whether more than half of the rows are so.
func most(rows []string, so func(string) bool) bool {
	n := 0
	for _, r := range rows {
		if so(r) {
			n++
		}
	}
	return 2*n > len(rows)
}

// guessText knows the text formats that can be told by what is in them.
func guessText(comments, rows []string) string {
	heads := slices.Clone(comments)
	if len(rows) > 0 {
		heads = append(heads, rows[0])
	}
	ipsum := false
	for _, h := range heads {
		if strings.HasPrefix(h, "fields\t") {
			return "zeek"
		}
		if how := byColumns(cells(h, ',')); how != "" {
			return how
		}
		ipsum = ipsum || strings.Contains(strings.ToLower(h), "ipsum")
	}
	isNumber := func(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
	switch {
	case ipsum && most(rows, func(r string) bool { w := strings.Fields(r); return len(w) == 2 && isNumber(w[1]) }):
		return "ipsum"
	case most(rows, func(r string) bool {
		w := strings.Fields(r)
		return len(w) > 1 && slices.Contains([]string{"0.0.0.0", "127.0.0.1", "::", "::1"}, w[0])
	}):
		return "hosts"
	case slices.ContainsFunc(rows, func(r string) bool { return strings.HasPrefix(r, "ExitAddress ") }):
		return "tor"
	case most(rows, func(r string) bool { c := cells(r, ','); return len(c) == 2 && isNumber(c[0]) && isIndicator(c[1]) }):
		return "tranco"
	}
	return ""
}

// byColumns knows the lists of abuse.ch by the names of their columns.
func byColumns(names []string) string {
	has := func(name string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return plainName(n) == name })
	}
	dst := has("dst_ip") || has("dstip")
	switch {
	case has("ioc_value") && has("ioc_type"):
		return "threatfox"
	case has("url") && has("url_status"):
		return "urlhaus"
	case has("ja3_md5"):
		return "sslbl_ja3"
	case has("sha1") && has("listingreason"):
		return "sslbl_cert"
	case dst && has("malware"):
		return "feodo"
	case dst && has("firstseen"):
		return "sslbl_ip"
	}
	return ""
}

// plainName is the name of a column without the differences of taste.
func plainName(s string) string {
	return strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(strings.TrimSpace(s)))
}

// cells parts one line of a table; nil when it cannot be.
func cells(line string, sep rune) []string {
	r := csv.NewReader(strings.NewReader(line))
	r.Comma, r.LazyQuotes, r.TrimLeadingSpace = sep, true, true
	c, err := r.Read()
	if err != nil {
		return nil
	}
	return c
}

func isIndicator(s string) bool {
	_, _, err := format.Detect(s)
	return err == nil
}

func isLevel(s string) bool {
	_, err := intel.ParseLevel(strings.ToLower(strings.TrimSpace(s)))
	return err == nil
}

// guessTable finds out which columns of a CSV file say what: by their names if
// they have some, or else where the indicators are. The list of the original,
// which is indicator, level, description and tag without a header, is told by
// its levels.
func guessTable(comments, rows []string) (string, format.Columns) {
	if len(rows) == 0 {
		return "slips_iocs", format.Columns{}
	}
	t := grid{sep: ','}
	for _, sep := range ",\t;|" {
		if strings.ContainsRune(rows[0], sep) {
			t.sep = sep
			break
		}
	}
	t.fill(rows[1:])
	if c, ok := t.named(cells(rows[0], t.sep)); ok {
		return "csv", c
	}
	t.fill(rows)
	if t.width() < 2 || t.sep == ',' && t.most(0, isIndicator) && t.most(1, isLevel) {
		return "slips_iocs", format.Columns{}
	}
	for _, line := range slices.Backward(comments) {
		if c, ok := t.named(cells(line, t.sep)); ok {
			return "csv", c
		}
	}
	value := t.best(func(int) bool { return true })
	if value < 0 {
		return "slips_iocs", format.Columns{} // to be told what is wrong with it
	}
	return "csv", format.Columns{Value: strconv.Itoa(value + 1), Separator: t.separator()}
}

// grid is the rows of a table.
type grid struct {
	sep  rune
	rows [][]string
}

func (g *grid) fill(rows []string) {
	g.rows = g.rows[:0]
	for _, r := range rows {
		g.rows = append(g.rows, cells(r, g.sep))
	}
}

func (g *grid) separator() string {
	switch g.sep {
	case ',':
		return ""
	case '\t':
		return "tab"
	}
	return string(g.sep)
}

func (g *grid) width() (n int) {
	for _, r := range g.rows {
		n = max(n, len(r))
	}
	return n
}

// count returns how many rows have such a cell in column i, and how many have
// one that is not empty.
func (g *grid) count(i int, so func(string) bool) (n, of int) {
	for _, r := range g.rows {
		if i < len(r) && r[i] != "" {
			of++
			if so(r[i]) {
				n++
			}
		}
	}
	return n, of
}

func (g *grid) most(i int, so func(string) bool) bool {
	n, of := g.count(i, so)
	return 2*n > of
}

// best returns the column with the most indicators of those that may be it; -1
// when none is in more than half of the rows that have it.
func (g *grid) best(may func(int) bool) int {
	best, most := -1, 0
	for i := range g.width() {
		if n, of := g.count(i, isIndicator); may(i) && n > most && 2*n > of {
			best, most = i, n
		}
	}
	return best
}

// named returns what the columns say if names are those of the table.
func (g *grid) named(names []string) (c format.Columns, ok bool) {
	taken := make(map[int]bool)
	plain := make([]string, len(names))
	for i, n := range names {
		if _, err := strconv.Atoi(n); err == nil || strings.TrimSpace(n) == "" || isIndicator(n) {
			taken[i] = true // cannot be named
		}
		plain[i] = plainName(n)
	}
	value := g.best(func(i int) bool { return i < len(names) && !taken[i] && slices.Contains(valueNames(), plain[i]) })
	if value < 0 {
		return c, false
	}
	taken[value] = true
	// find returns the first free column for which is holds, which no other
	// gets then.
	find := func(is func(int) bool) string {
		for i := range names {
			if !taken[i] && is(i) {
				taken[i] = true
				return strings.TrimSpace(names[i])
			}
		}
		return ""
	}
	among := func(all ...string) func(int) bool { return func(i int) bool { return slices.Contains(all, plain[i]) } }
	c = format.Columns{Value: strings.TrimSpace(names[value]), Separator: g.separator()}
	c.Level = find(func(i int) bool {
		return among("level", "threat_level", "severity", "risk")(i) && g.most(i, isLevel)
	})
	c.Confidence = find(among("confidence", "confidence_level"))
	c.Tags = find(among("tags", "tag", "labels"))
	c.Since = find(among("first_seen", "firstseen", "first_seen_utc", "dateadded", "date_added", "added", "listingdate", "created", "date", "since"))
	c.Expires = find(among("expires", "expires_at", "expiration", "expiry", "valid_until"))
	for _, word := range []string{"description", "reason", "comment", "malware", "threat", "family", "signature", "note"} {
		if c.Description == "" {
			c.Description = find(func(i int) bool {
				return strings.Contains(plain[i], word) && !strings.Contains(plain[i], "date") && !g.most(i, isIndicator)
			})
		}
	}
	return c, true
}

// valueNames are what columns of indicators are called.
func valueNames() []string {
	return []string{
		"indicator", "indicators", "indicator_value", "ioc", "iocs", "ioc_value", "observable", "value",
		"ip", "ips", "ipv4", "ipv6", "ip_address", "ipaddress", "address", "addr", "dst_ip", "dstip", "src_ip", "srcip", "network", "netblock",
		"cidr", "subnet", "range", "prefix", "domain", "domains", "domain_name", "hostname", "host", "fqdn", "url", "uri", "email",
		"hash", "md5", "md5_hash", "sha1", "sha_1", "sha1_hash", "sha256", "sha_256", "sha256_hash", "ja3", "ja3_md5", "ja3_hash", "ja3s", "ja4", "jarm",
	}
}
