package format

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/slips-go/slips/feeds/intel"
)

// zeek reads a file of Zeek's intelligence framework: cells separated by TABs
// under a line "#fields". meta.source becomes a tag: these files often gather
// several feeds.
func (p *parser) zeek() error {
	var fields map[string]int
	err := p.each(func(line string) error {
		if rest, ok := strings.CutPrefix(line, "#fields"); ok {
			p.rep.Comments++
			fields = make(map[string]int)
			for i, f := range strings.Split(strings.TrimLeft(rest, "\t "), "\t") {
				fields[strings.TrimSpace(f)] = i + 1
			}
			if fields["indicator"] == 0 || fields["indicator_type"] == 0 {
				return fmt.Errorf("line %d: %q: %w", p.rep.Lines, clean(line, maxExample), ErrNoColumns)
			}
			return nil
		}
		if p.comment(line) {
			return nil
		}
		if fields == nil {
			return fmt.Errorf("line %d: %q: %w", p.rep.Lines, clean(line, maxExample), ErrNoColumns)
		}
		cells := strings.Split(line, "\t")
		cell := func(names ...string) string {
			for _, n := range names {
				if i := fields[n]; i > 0 && i <= len(cells) && cells[i-1] != "-" && cells[i-1] != "(empty)" && cells[i-1] != "" {
					return unescape(strings.TrimSpace(cells[i-1]))
				}
			}
			return ""
		}
		value, typ := cell("indicator"), cell("indicator_type")
		if value == "" || typ == "" {
			p.reject("indicator", line, ErrColumns)
			return nil
		}
		k, ok := kindOf(strings.TrimPrefix(typ, "Intel::"))
		if !ok {
			p.reject("indicator_type", typ, ErrType)
			return nil
		}
		m := meta{level: intel.FeedLevel, description: cell("meta.desc", "meta.url"), tags: p.tags(cell("meta.source"), "\n")}
		if c := cell("meta.confidence", "meta.cif_confidence", "confidence"); c != "" {
			f, err := strconv.ParseFloat(c, 64)
			if err != nil {
				p.rep.Notes["unreadable confidence"]++
			}
			m.level = confident(f)
		}
		if s := cell("meta.severity", "meta.cif_severity"); s != "" {
			m.level = p.level(s, m.level)
		}
		return p.put("indicator", k, value, m)
	})
	return err
}

// unescape undoes Zeek's \x2c.
func unescape(s string) string {
	if !strings.Contains(s, `\x`) {
		return s
	}
	var b strings.Builder
	for {
		i := strings.Index(s, `\x`)
		if i < 0 || i+4 > len(s) {
			b.WriteString(s)
			return b.String()
		}
		if c, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
			b.WriteString(s[:i])
			b.WriteByte(byte(c))
			s = s[i+4:]
		} else {
			b.WriteString(s[:i+2])
			s = s[i+2:]
		}
	}
}
