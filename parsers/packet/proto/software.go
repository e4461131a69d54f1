package proto

import (
	"bytes"
	"net/netip"

	"github.com/slips-go/slips/parsers/flow"
)

// maxSoftware bounds the memory of what software was told: 16 bytes each.
// When it is full it begins anew, and some is told a second time.
const maxSoftware = 1 << 16

// maxVersion is the greatest number in a version that is read as one.
const maxVersion = 1 << 30

// software writes a record of software that introduced itself, once for each
// host. server says that it is the responder's.
func (s *Set) software(c Conn, t int64, typ string, banner []byte, server bool) {
	if len(banner) == 0 {
		return
	}
	orig, resp := c.Hosts()
	host := orig
	if server {
		host = resp
	}
	h := flow.Hash(flow.HashAddr(host), typ)
	for _, b := range banner {
		h = flow.HashMix(h, uint64(b))
	}
	if _, told := s.seen[h]; told {
		return
	}
	if len(s.seen) >= maxSoftware {
		clear(s.seen)
	}
	s.seen[h] = struct{}{}
	f := c.Record(flow.Software, t)
	if server {
		f.Src, f.SrcPort, f.SrcMAC = resp, f.DstPort, f.DstMAC
	} else {
		f.Src, f.SrcPort = orig, 0
	}
	f.Dst, f.DstPort, f.DstMAC, f.HasPorts = netip.Addr{}, 0, "", false
	p := f.Software
	p.Type = typ
	p.Unparsed = s.text(f, banner)
	v := parseSoftware(banner)
	p.Name = s.text(f, v.name)
	p.Major, p.Minor, p.Minor2 = v.number[0], v.number[1], v.number[2]
	p.Addl = s.text(f, v.addl)
	c.Emit(f)
}

// version is what a banner says; the slices alias it.
type version struct {
	name, addl []byte
	number     [4]int // -1: not there
}

// parseSoftware reads names and versions such as "nginx/1.18.0 (Ubuntu)",
// "OpenSSH_7.6p1 Ubuntu-4ubuntu0.3" and those of browsers.
func parseSoftware(b []byte) version {
	for _, all := range [...]string{"Mozilla/", "Opera/"} { // what all of them call themselves
		if n := len(all); len(b) > n && string(b[:n]) == all && '0' <= b[n] && b[n] <= '9' {
			return parseBrowser(b)
		}
	}
	return parseVersion(b)
}

// browsers are the marks of browsers in the order in which they are looked
// for: later ones call themselves by the names of earlier ones as well.
var browsers = []struct{ mark, name string }{
	{"Opera ", "Opera"},
	{"OPR/", "Opera"},
	{"MSIE ", "MSIE"},
	{"Trident/", "MSIE"},
	{"Edge/", "Edge"},
	{"Edg/", "Edge"},
	{"Version/", "Safari"},
	{"Firefox/", "Firefox"},
	{"Netscape/", "Netscape"},
	{"Thunderbird/", "Thunderbird"},
	{"Chrome/", "Chrome"},
	{"AdobeAIR/", "AdobeAIR"},
	{"AppleWebKit/", "Unspecified WebKit"},
	{"Java/", "Java"},
	{"Opera/", "Opera"},
}

func parseBrowser(b []byte) version {
	for _, br := range browsers {
		i := bytes.Index(b, []byte(br.mark))
		if i < 0 || br.mark == "Version/" && !bytes.Contains(b, []byte("Safari/")) {
			continue
		}
		v := version{name: []byte(br.name)}
		v.number, _ = numbers(b[i+len(br.mark):])
		if br.mark == "Trident/" || br.mark == "MSIE " { // compatibility modes lie; the engine does not
			if _, engine, ok := bytes.Cut(b, []byte("Trident/")); ok {
				if n, _ := numbers(engine); n[0] >= 4 {
					v.number = [4]int{n[0] + 4, 0, -1, -1}
				}
			}
		}
		return v
	}
	return version{name: []byte("<unknown browser>"), number: [4]int{-1, -1, -1, -1}}
}

// numbers reads up to four numbers with dots between them, and returns what
// is behind them.
func numbers(b []byte) (n [4]int, rest []byte) {
	n = [4]int{-1, -1, -1, -1}
	for i := range n {
		k, v := 0, 0
		for k < len(b) && '0' <= b[k] && b[k] <= '9' {
			if v < maxVersion {
				v = v*10 + int(b[k]-'0')
			}
			k++
		}
		if k == 0 {
			return n, b
		}
		n[i] = v
		b = b[k:]
		if len(b) < 2 || b[0] != '.' && b[0] != '-' && b[0] != '_' || b[1] < '0' || b[1] > '9' {
			return n, b
		}
		if i < len(n)-1 {
			b = b[1:]
		}
	}
	return n, b
}

// parseVersion reads "name/1.2.3 more": the version begins with the first
// digits behind a separator that are at least two characters long.
func parseVersion(b []byte) version {
	v := version{number: [4]int{-1, -1, -1, -1}}
	at := -1
	for i := 0; i+1 < len(b); i++ {
		if b[i] < '0' || b[i] > '9' {
			continue
		}
		if c := b[i+1]; !('0' <= c && c <= '9' || c == '.' || c == '-' || c == '_' || c == ',' || c == ' ') {
			continue
		}
		at = i
		break
	}
	if at < 0 { // "name/1" and the like
		if n := len(b); n > 2 && '0' <= b[n-1] && b[n-1] <= '9' && (b[n-2] == '/' || b[n-2] == '_' || b[n-2] == ' ' || b[n-2] == '-') {
			at = n - 1
		}
	}
	if at < 0 {
		v.name = bytes.TrimSpace(b)
		return v
	}
	name := bytes.TrimRight(b[:at], " /-_(v.")
	v.name = bytes.TrimSpace(bytes.TrimPrefix(name, []byte("(")))
	var rest []byte
	v.number, rest = numbers(b[at:])
	rest = bytes.TrimLeft(rest, " ,;-_./")
	if len(rest) > 0 && rest[0] == '(' {
		rest = rest[1:]
	}
	end := bytes.IndexAny(rest, " -_.,;()[]{}")
	if end < 0 {
		end = len(rest)
	}
	v.addl = rest[:end]
	return v
}
