package bpf

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
)

// kind is what a token is.
type kind uint8

const (
	end    kind = iota
	punct       // an operator or a parenthesis; text is its one spelling
	number      // num
	dotted      // an IPv4 address of two to four parts
	six         // addr
	mac         // bytes
	word        // keywords among them
	quoted      // a name behind a backslash, never a keyword
)

// token is the smallest part of an expression.
type token struct {
	kind kind
	pos  int
	text string
	num  uint32
	addr netip.Addr
	mac  [6]byte
}

// is reports whether t is the operator or keyword.
func (t token) is(s string) bool { return (t.kind == punct || t.kind == word) && t.text == s }

// spellings are the operators that are written in more than one way.
var spellings = map[string]string{
	"&&": "and", "||": "or", "not": "!", "==": "=", "length": "len", "link": "ether", "fddi": "ether",
	"tr": "ether", "wlan": "ether", "ppp": "ether", "slip": "ether",
}

// constants are names of numbers: offsets, TCP flags and ICMP types.
var constants = map[string]uint32{
	"icmptype": 0, "icmpcode": 1, "icmp-echoreply": 0, "icmp-unreach": 3, "icmp-sourcequench": 4, "icmp-redirect": 5,
	"icmp-echo": 8, "icmp-routeradvert": 9, "icmp-routersolicit": 10, "icmp-timxceed": 11, "icmp-paramprob": 12,
	"icmp-tstamp": 13, "icmp-tstampreply": 14, "icmp-ireq": 15, "icmp-ireqreply": 16, "icmp-maskreq": 17, "icmp-maskreply": 18,
	"icmp6type": 0, "icmp6code": 1, "icmp6-destinationunreach": 1, "icmp6-packettoobig": 2, "icmp6-timeexceeded": 3,
	"icmp6-parameterproblem": 4, "icmp6-echo": 128, "icmp6-echoreply": 129, "icmp6-multicastlistenerquery": 130,
	"icmp6-multicastlistenerreportv1": 131, "icmp6-multicastlistenerdone": 132, "icmp6-routersolicit": 133,
	"icmp6-routeradvert": 134, "icmp6-neighborsolicit": 135, "icmp6-neighboradvert": 136, "icmp6-redirect": 137,
	"icmp6-routerrenum": 138, "icmp6-nodeinformationquery": 139, "icmp6-nodeinformationresponse": 140,
	"icmp6-ineighbordiscoverysolicit": 141, "icmp6-ineighbordiscoveryadvert": 142, "icmp6-multicastlistenerreportv2": 143,
	"icmp6-homeagentdiscoveryrequest": 144, "icmp6-homeagentdiscoveryreply": 145, "icmp6-mobileprefixsolicit": 146,
	"icmp6-mobileprefixadvert": 147, "icmp6-certpathsolicit": 148, "icmp6-certpathadvert": 149,
	"icmp6-multicastrouteradvert": 151, "icmp6-multicastroutersolicit": 152, "icmp6-multicastrouterterm": 153,
	"tcpflags": 13, "tcp-fin": 1, "tcp-syn": 2, "tcp-rst": 4, "tcp-push": 8, "tcp-ack": 16, "tcp-urg": 32, "tcp-ece": 64,
	"tcp-cwr": 128,
}

// scan splits an expression into tokens, the longest that fits first, as
// tcpdump does: "80-443" is one word and "1 - 2" are three tokens.
func scan(s string) ([]token, error) {
	var all []token
	for i := 0; i < len(s); {
		if strings.IndexByte(" \t\r\n", s[i]) >= 0 {
			i++
			continue
		}
		t, n, err := next(s, i)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
		i += n
	}
	return append(all, token{kind: end, pos: len(s)}), nil
}

// next returns the token at i and its length.
func next(s string, i int) (token, int, error) {
	t := token{pos: i}
	if n := t.address(s[i:]); n > 0 {
		return t, n, nil
	}
	if n := run(s[i:]); n > 0 {
		t.text = s[i : i+n]
		if err := t.classify(); err != "" {
			return t, 0, &Error{s, i, err}
		}
		return t, n, nil
	}
	if s[i] == '\\' {
		n := strings.IndexAny(s[i+1:], " !()\r\n\t")
		if n < 0 {
			n = len(s) - i - 1
		}
		if n == 0 {
			return t, 0, &Error{s, i, `a name is missing behind the backslash`}
		}
		t.kind, t.text = quoted, s[i+1:i+1+n]
		return t, n + 1, nil
	}
	n := 1
	if i+1 < len(s) {
		switch s[i : i+2] {
		case ">=", "<=", "!=", "==", "<<", ">>", "&&", "||":
			n = 2
		}
	}
	if n == 1 && strings.IndexByte("+-*/%:[]!<>()&|^=", s[i]) < 0 {
		return t, 0, &Error{s, i, "this character has no meaning in a filter"}
	}
	t.kind, t.text = punct, s[i:i+n]
	if c, ok := spellings[t.text]; ok {
		t.text = c
	}
	return t, n, nil
}

// run returns the length of a word or number: letters, digits, and between
// them also dots, dashes and underscores.
func run(s string) int {
	if !alnum(s[0]) {
		return 0
	}
	last := 1
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case alnum(c) || c == '.':
			last = i + 1
		case c != '-' && c != '_':
			return last
		}
	}
	return last
}

func alnum(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' }

// address takes an IPv6 or colon-separated hardware address, the longest there
// is at the beginning of s. Its longest form has 45 bytes.
func (t *token) address(s string) int {
	n := 0
	for n < len(s) && n < 46 && (s[n] == ':' || s[n] == '.' || strings.IndexByte("0123456789abcdefABCDEF", s[n]) >= 0) {
		n++
	}
	for ; n > 1 && strings.Count(s[:n], ":") >= 2; n-- {
		if a, err := netip.ParseAddr(s[:n]); err == nil && a.Is6() {
			t.kind, t.addr, t.text = six, a, s[:n]
			return n
		}
		if m, ok := octets(strings.Split(s[:n], ":")); ok {
			t.kind, t.mac, t.text = mac, m, s[:n]
			return n
		}
	}
	return 0
}

// octets reads six numbers of one or two hexadecimal digits.
func octets(parts []string) (m [6]byte, ok bool) {
	if len(parts) != 6 {
		return m, false
	}
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 16, 8)
		if err != nil || len(p) > 2 {
			return m, false
		}
		m[i] = byte(v)
	}
	return m, true
}

// classify tells what a word of letters and digits is.
func (t *token) classify() string {
	s := t.text
	for _, sep := range [...]string{"-", "."} {
		if m, ok := octets(strings.Split(s, sep)); ok {
			t.kind, t.mac = mac, m
			return ""
		}
	}
	if h := strings.ReplaceAll(s, ".", ""); len(h) == 12 && (len(s) == 12 || len(s) == 14 && s[4] == '.' && s[9] == '.') {
		if b, err := hex.DecodeString(h); err == nil {
			t.kind, t.mac = mac, [6]byte(b)
			return ""
		}
	}
	if v, ok := constants[s]; ok {
		t.kind, t.num = number, v
		return ""
	}
	if s[0] < '0' || s[0] > '9' {
		t.kind = word
		if c, ok := spellings[s]; ok {
			t.text = c
		}
		return ""
	}
	numeric := func(s string) bool {
		hexed := len(s) > 2 && s[0] == '0' && s[1]|0x20 == 'x'
		digits := "0123456789"
		if hexed {
			s, digits = s[2:], "0123456789abcdefABCDEF"
		}
		return s != "" && strings.Trim(s, digits) == ""
	}
	if numeric(s) {
		// A leading zero makes it octal, as in C.
		base := 10
		switch digits := s; {
		case len(s) > 2 && s[1]|0x20 == 'x':
			base, s = 16, s[2:]
		case len(digits) > 1 && s[0] == '0':
			base = 8
		}
		v, err := strconv.ParseUint(s, base, 32)
		if err != nil {
			return "this number is malformed or does not fit into 32 bits"
		}
		t.kind, t.num = number, uint32(v)
		return ""
	}
	parts := strings.Split(s, ".")
	all := len(parts) > 1 && len(parts) <= 4
	for _, p := range parts {
		all = all && numeric(p)
	}
	t.kind = word
	if all {
		t.kind = dotted
	}
	return ""
}

// ipv4 reads an address of one to four parts, left-justified, and how many
// bits were given.
func ipv4(s string) (a uint32, bits int, ok bool) {
	for p := range strings.SplitSeq(s, ".") {
		v, err := strconv.ParseUint(p, 10, 8)
		if err != nil || bits == 32 {
			return 0, 0, false
		}
		bits += 8
		a |= uint32(v) << (32 - bits)
	}
	return a, bits, true
}
