package format

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"

	"github.com/slips-go/slips/feeds/intel"
)

// comment reports whether the line is one, and counts it.
func (p *parser) comment(line string) bool {
	if line[0] != '#' && line[0] != ';' && !strings.HasPrefix(line, "//") {
		return false
	}
	p.rep.Comments++
	return true
}

// entry parts a line from the comment behind it, which begins with #, ; or //
// behind a blank: URLs have these characters inside.
func entry(line string) (value, remark string) {
	for i := 1; i < len(line); i++ {
		if c := line[i-1]; c != ' ' && c != '\t' {
			continue
		}
		switch rest := line[i:]; {
		case rest[0] == '#', rest[0] == ';', strings.HasPrefix(rest, "//"):
			return strings.TrimSpace(line[:i]), strings.TrimSpace(strings.TrimLeft(rest, "#;/"))
		}
	}
	return line, ""
}

// lines reads one indicator a line. Words behind it describe it, as does a
// comment. Lines of a hosts file give their names.
func (p *parser) lines() error {
	return p.each(func(line string) error {
		if p.comment(line) {
			return nil
		}
		value, remark := entry(line)
		if _, _, ok := span(value); ok {
			return p.put("", intel.NoKind, value, meta{level: intel.FeedLevel, description: remark})
		}
		if i := strings.IndexAny(value, " \t"); i > 0 {
			if isSink(value[:i]) {
				return p.names(strings.Fields(value[i:]), remark)
			}
			if remark == "" {
				remark = strings.TrimSpace(value[i:])
			}
			value = value[:i]
		}
		return p.put("", intel.NoKind, value, meta{level: intel.FeedLevel, description: remark})
	})
}

// isSink reports whether s is an address that hosts files send names to.
func isSink(s string) bool {
	if !mayBeIP(s) {
		return false
	}
	a, err := netip.ParseAddr(s)
	return err == nil && (a.IsUnspecified() || a.IsLoopback())
}

// hosts reads a hosts file that sends bad names to nowhere: a sink address and
// names. Lines with a name alone are taken too.
func (p *parser) hosts() error {
	return p.each(func(line string) error {
		if p.comment(line) {
			return nil
		}
		value, remark := entry(line)
		words := strings.Fields(value)
		switch {
		case isSink(words[0]):
			return p.names(words[1:], remark)
		case len(words) > 1:
			p.reject("", line, ErrType) // where a good name lives
			return nil
		}
		return p.names(words, remark)
	})
}

func (p *parser) names(names []string, remark string) error {
	if len(names) == 0 {
		p.reject("", "", ErrColumns)
	}
	for _, n := range names {
		if isLocalName(n) {
			p.reject("", n, ErrLocalName)
			continue
		}
		if err := p.put("", intel.NoKind, n, meta{level: intel.FeedLevel, description: remark}); err != nil {
			return err
		}
	}
	return nil
}

// isLocalName knows the names that stand at the top of each hosts file.
func isLocalName(s string) bool {
	switch strings.ToLower(s) {
	case "localhost", "localhost.localdomain", "localhost6", "localhost6.localdomain6", "local", "broadcasthost", "0.0.0.0",
		"ip6-localhost", "ip6-loopback", "ip6-localnet", "ip6-mcastprefix", "ip6-allnodes", "ip6-allrouters", "ip6-allhosts":
		return true
	}
	return false
}

// ipsum reads "address TAB number of lists that have it". Its publisher calls
// those on three lists and more worth blocking; from six on they are rarely
// wrong.
func (p *parser) ipsum() error {
	return p.each(func(line string) error {
		if p.comment(line) {
			return nil
		}
		words := strings.Fields(line)
		m := plain()
		if len(words) > 1 {
			n, err := strconv.Atoi(words[1])
			if err != nil || n < 1 {
				p.reject("count", words[1], ErrColumns)
				return nil
			}
			switch {
			case n < 3:
				m.level = low
			case n < 6:
				m.level = medium
			default:
				m.level = high
			}
			m.description = "on " + strconv.Itoa(n) + " lists"
		}
		return p.put("ip", intel.NoKind, words[0], m)
	})
}

// otx reads AlienVault's reputation.generic: "address # what it does CC,city,
// latitude,longitude".
func (p *parser) otx() error {
	return p.each(func(line string) error {
		if p.comment(line) {
			return nil
		}
		value, remark, _ := strings.Cut(line, "#")
		remark, _, _ = strings.Cut(remark, ",")
		return p.put("", intel.NoKind, value, meta{level: intel.FeedLevel, description: strings.TrimSpace(remark)})
	})
}

// tor reads the bulk list of exits, one address a line, and exit-addresses,
// where the lines "ExitAddress address date time" matter.
func (p *parser) tor() error {
	return p.each(func(line string) error {
		if p.comment(line) {
			return nil
		}
		words := strings.Fields(line)
		m := meta{level: intel.FeedLevel, description: "Tor exit"}
		switch words[0] {
		case "ExitNode", "Published", "LastStatus":
			p.rep.Comments++
			return nil
		case "ExitAddress":
			if len(words) < 2 {
				p.reject("", line, ErrColumns)
				return nil
			}
			m.since = p.time(strings.Join(words[2:], " "))
			return p.put("ExitAddress", intel.NoKind, words[1], m)
		}
		return p.put("", intel.NoKind, line, m)
	})
}

// drop reads Spamhaus DROP: "network ; SBL number", or one JSON object a line,
// of networks or of autonomous systems.
func (p *parser) drop() error {
	return p.each(func(line string) error {
		if line[0] != '{' {
			if p.comment(line) {
				return nil
			}
			value, sbl, _ := strings.Cut(line, ";")
			return p.put("", intel.NoKind, value, meta{level: intel.FeedLevel, description: strings.TrimSpace(sbl)})
		}
		var rec struct {
			Type, CIDR, SBLID, ASName, Domain string
			ASN                               uint32
		}
		if err := json.Unmarshal([]byte(line), &rec); err != nil {
			p.reject("", line, ErrJSON)
			return nil
		}
		switch {
		case rec.Type == "metadata":
			p.rep.Comments++
			return nil
		case rec.ASN != 0:
			return p.put("asn", intel.ASN, strconv.FormatUint(uint64(rec.ASN), 10), meta{level: intel.FeedLevel, description: rec.ASName})
		}
		return p.put("cidr", intel.Range, rec.CIDR, meta{level: intel.FeedLevel, description: rec.SBLID})
	})
}

// maltrail reads static trails, where comments name the reference of the lines
// that follow, and trails.csv: trail, info, reference. Trails that are a path
// without a host, or a pattern, are refused.
func (p *parser) maltrail() error {
	reference, fresh := "", false // the first of the block of references
	return p.each(func(line string) error {
		if p.comment(line) {
			if _, r, ok := strings.Cut(line, "Reference:"); ok && !fresh {
				reference, fresh = strings.TrimSpace(r), true
			}
			return nil
		}
		fresh = false
		var value string
		m := meta{level: intel.FeedLevel, description: reference}
		if strings.Contains(line, ",") {
			cells, err := p.split(line, ',')
			if err != nil {
				p.reject("", line, err)
				return nil
			}
			if len(cells) < 2 || strings.EqualFold(cells[0], "trail") {
				p.rep.Comments++
				return nil
			}
			value, m.description = cells[0], cells[1]
			if len(cells) > 2 && cells[2] != "" {
				m.description += " (" + cells[2] + ")"
			}
		} else {
			value, _ = entry(line)
		}
		if value == "" || value[0] == '/' || strings.ContainsAny(value, "()\\+^$|") {
			p.reject("trail", value, ErrType)
			return nil
		}
		return p.put("trail", intel.NoKind, value, m)
	})
}

// harmless is the tag of what is no indicator of anything bad.
const harmless = "known_good"

// knownGood reads the original's list of files that are often mistaken:
// description, hash, hash …, where the description may be missing. Each comes
// back with the tag harmless.
func (p *parser) knownGood() error {
	tags := p.tags(harmless, ",")
	return p.each(func(line string) error {
		if p.comment(line) {
			return nil
		}
		cells, err := p.split(line, ',')
		if err != nil {
			p.reject("", line, err)
			return nil
		}
		first := len(cells) // the descriptions have commas too
		for first > 0 && isHex(cells[first-1]) && len(cells[first-1]) >= 32 {
			first--
		}
		if first == len(cells) {
			p.reject("hash", cells[first-1], ErrHash)
		}
		description := strings.Join(cells[:first], ", ")
		for _, c := range cells[first:] {
			if err := p.put("hash", intel.NoKind, c, meta{level: 0, description: description, tags: tags}); err != nil {
				return err
			}
		}
		return nil
	})
}
