package proto

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"
	"unsafe"

	"github.com/slips-go/slips/parsers/flow"
)

// Bounds of DNS.
const (
	maxDNSPending = 50       // queries of a connection that wait for an answer, as in Zeek
	maxDNSWait    = 60_000e6 // ns after which a query counts as not answered; servers that ask others take up to half of it
	maxDNSAnswers = 512      // answers of a message that are printed
	maxDNSMessage = 64 << 10 // of a message over TCP, by its length field
	maxNameHops   = 64       // pointers of a compressed name; each leads backwards
	dnsHeader     = 12       // bytes
	dnsQR         = 0x8000   // flag bits
	dnsAA         = 0x0400   //
	dnsTC         = 0x0200   //
	dnsRD         = 0x0100   //
	dnsRA         = 0x0080   //
	opUpdate      = 5        // opcode of RFC 2136
	maxTXT        = 8 << 10  // bytes of one printed answer
)

// dnsPort reports whether DNS or its relatives live on a UDP port: DNS, mDNS,
// LLMNR, NetBIOS names.
func dnsPort(p uint16) bool { return p == 53 || p == 5353 || p == 5355 || p == 137 }

// dnsQuery is a query that waits for its answer.
type dnsQuery struct {
	id, qtype, qclass uint16
	flags             uint16
	asked             bool // it has a question
	t                 int64
	name              []byte
}

// dnsAnalyzer joins queries and answers of one connection.
type dnsAnalyzer struct {
	set       *Set
	conn      Conn
	tcp       bool
	netbios   bool
	confirmed bool
	off       bool       // over TCP: lost in the stream, or not DNS
	pending   []dnsQuery // the oldest first; those behind len keep their memory
	part      [2][]byte  // messages over TCP that are not whole
	bad       int        // messages in sequence that were not DNS
}

func (s *Set) newDNS(c Conn, tcp, netbios bool) *dnsAnalyzer {
	a := s.dns.get()
	a.reset()
	a.set, a.conn, a.tcp, a.netbios = s, c, tcp, netbios
	return a
}

// reset empties a, keeping a bounded part of its memory.
func (a *dnsAnalyzer) reset() {
	*a = dnsAnalyzer{pending: a.pending[:0], part: [2][]byte{spare(a.part[0]), spare(a.part[1])}}
}

// Wants implements Analyzer.
func (a *dnsAnalyzer) Wants(Dir) bool { return !a.off }

// Held implements Analyzer.
func (a *dnsAnalyzer) Held() int {
	n := int(unsafe.Sizeof(*a)) + cap(a.part[0]) + cap(a.part[1]) + cap(a.pending)*int(unsafe.Sizeof(dnsQuery{}))
	for _, q := range a.pending[:cap(a.pending)] {
		n += cap(q.name)
	}
	return n
}

// Gap implements Analyzer. The lengths that frame messages are lost with it,
// but when none has begun: then whole messages may be what is missing.
func (a *dnsAnalyzer) Gap(d Dir, _, _ int64) { a.off = a.off || a.tcp && len(a.part[d]) > 0 }

// End implements Analyzer.
func (a *dnsAnalyzer) End(int64) {
	for len(a.pending) > 0 {
		a.unanswered(0)
	}
	a.off = true
}

// Data implements Analyzer.
func (a *dnsAnalyzer) Data(d Dir, data []byte, t int64) {
	for len(a.pending) > 0 && max(t-a.pending[0].t, a.pending[0].t-t) > maxDNSWait { // a clock may be set back
		a.unanswered(0)
	}
	if a.off {
		return
	}
	if !a.tcp {
		a.message(data, t)
		return
	}
	for len(data) > 0 && !a.off {
		part := &a.part[d]
		if len(*part) == 0 && len(data) >= 2 { // a whole message needs no copy
			if n := int(binary.BigEndian.Uint16(data)); len(data) >= 2+n {
				a.message(data[2:2+n], t)
				data = data[2+n:]
				continue
			}
		}
		need := 2
		if len(*part) >= 2 {
			need = 2 + int(binary.BigEndian.Uint16(*part))
		}
		n := min(need-len(*part), len(data))
		*part = append(*part, data[:n]...)
		data = data[n:]
		if len(*part) > 2 && len(*part) == need {
			a.message((*part)[2:], t)
			*part = (*part)[:0]
		} else if len(*part) == 2 && binary.BigEndian.Uint16(*part) < dnsHeader {
			a.malformed()
			*part = (*part)[:0]
		}
	}
}

// malformed counts a message. A stream that is not DNS is left alone.
func (a *dnsAnalyzer) malformed() {
	a.set.Stats.Malformed++
	if a.bad++; a.tcp && (a.bad > 2 || !a.confirmed) {
		a.off = true
	}
}

// message takes one DNS message.
func (a *dnsAnalyzer) message(m []byte, t int64) {
	if len(m) < dnsHeader {
		a.malformed()
		return
	}
	flags := binary.BigEndian.Uint16(m[2:])
	id := binary.BigEndian.Uint16(m)
	if op := flags >> 11 & 15; op != 0 && op != opUpdate && !a.netbios {
		return // neither a query nor an update: Zeek does not read them
	}
	questions, answers := int(binary.BigEndian.Uint16(m[4:])), int(binary.BigEndian.Uint16(m[6:]))
	records := answers + int(binary.BigEndian.Uint16(m[8:])) + int(binary.BigEndian.Uint16(m[10:]))
	if questions > 64 || !a.confirmed && questions == 0 && records > len(m)/11 { // a record takes 11 bytes at least
		a.malformed()
		return
	}
	q := dnsQuery{id: id, flags: flags, t: t, name: a.set.name[:0]}
	off := dnsHeader
	for range questions {
		var ok bool
		q.name, off, ok = appendName(q.name[:0], m, off)
		if !ok || off+4 > len(m) {
			a.malformed()
			return
		}
		q.asked = true
		q.qtype, q.qclass = binary.BigEndian.Uint16(m[off:]), binary.BigEndian.Uint16(m[off+2:])
		off += 4
	}
	if op := flags >> 11 & 15; op == opUpdate && !a.netbios && records > 0 {
		// An update is about the names in its records; the question is the zone.
		if name, _, ok := appendName(q.name[len(q.name):], m, off); ok && len(name) > 0 {
			q.name = name
		}
	}
	a.set.name = q.name
	a.bad = 0
	if !a.confirmed {
		a.confirmed = true
		a.conn.Service("dns")
	}
	if flags&dnsQR == 0 {
		a.query(&q)
	} else {
		a.answer(&q, m, off, answers, records)
	}
}

// query remembers a query.
func (a *dnsAnalyzer) query(q *dnsQuery) {
	if len(a.pending) >= maxDNSPending {
		a.set.Stats.Overflows++
		a.unanswered(0)
	}
	n := len(a.pending)
	if n < cap(a.pending) {
		a.pending = a.pending[:n+1]
	} else {
		a.pending = append(a.pending, dnsQuery{})
	}
	p := &a.pending[n]
	name := append(p.name[:0], q.name...)
	*p = *q
	p.name = name
}

// drop takes a pending query away, keeping its memory behind the others.
func (a *dnsAnalyzer) drop(i int) {
	p := a.pending[i]
	copy(a.pending[i:], a.pending[i+1:])
	a.pending[len(a.pending)-1] = p
	a.pending = a.pending[:len(a.pending)-1]
}

// unanswered writes a pending query out.
func (a *dnsAnalyzer) unanswered(i int) {
	f := a.conn.Record(flow.DNS, a.pending[i].t)
	a.fill(f, &a.pending[i])
	a.conn.Emit(f)
	a.drop(i)
}

// fill sets what the query says.
func (a *dnsAnalyzer) fill(f *flow.Flow, q *dnsQuery) {
	p := f.DNS
	p.TransID = q.id
	p.AA, p.TC = flow.False, flow.TriOf(q.flags&dnsTC != 0)
	p.RD, p.RA = flow.TriOf(q.flags&dnsRD != 0), flow.False
	p.Reject = flow.False
	if q.asked {
		p.QType, p.QClass = qtypeName(f, q.qtype), qclassName(f, q.qclass)
	}
	name := q.name
	if a.netbios {
		if q.asked && q.qtype == 33 {
			p.QType = "NBSTAT" // RFC 1002 used the number before SRV did
		}
		var b [16]byte
		name = netbiosName(b[:0], name)
	}
	p.Query = a.set.text(f, name)
}

// answer writes an answer out, with the query it belongs to if that was seen.
// Queries of equal id are answered in order, as those of mDNS, all of which
// have id 0.
func (a *dnsAnalyzer) answer(r *dnsQuery, m []byte, off, answers, records int) {
	q, found := r, -1
	for i := range a.pending {
		if a.pending[i].id == r.id {
			q, found = &a.pending[i], i
			break
		}
	}
	f := a.conn.Record(flow.DNS, q.t)
	a.fill(f, q)
	p := f.DNS
	p.Response = true
	p.RCode = rcodeName(r.flags)
	p.AA, p.RA = flow.TriOf(r.flags&dnsAA != 0), flow.TriOf(r.flags&dnsRA != 0)
	p.TC = flow.TriOf(r.flags&dnsTC != 0)
	p.Reject = flow.TriOf(records == 0 && r.asked || r.flags&15 != 0 && !r.asked)
	rtt := int64(0)
	if found >= 0 && r.t > q.t {
		rtt = r.t - q.t
	}
	if !q.asked && p.Query == "" && answers > 0 {
		if name, _, ok := appendName(a.set.name[:0], m, off); ok {
			a.set.name = name
			p.Query = a.set.text(f, name)
		}
	}
	if answers > maxDNSAnswers {
		answers = maxDNSAnswers
		a.set.Stats.LongText++
	}
	for text := 0; answers > 0; answers-- {
		if text > maxText { // names that are one and the same in the message are printed each time
			a.set.Stats.LongText++
			break
		}
		before := len(p.Answers)
		next, ok := a.record(f, m, off)
		if !ok {
			a.set.Stats.Malformed++
			break
		}
		p.RTT = rtt // of what was answered alone, as Zeek
		off = next
		for _, s := range p.Answers[before:] {
			text += len(s)
		}
	}
	a.conn.Emit(f)
	if found >= 0 {
		a.drop(found)
	}
}

// record prints the resource record at off and returns where the next begins.
func (a *dnsAnalyzer) record(f *flow.Flow, m []byte, off int) (next int, ok bool) {
	owner := off
	off, ok = skipName(m, off)
	if !ok || off+10 > len(m) {
		return 0, false
	}
	typ := binary.BigEndian.Uint16(m[off:])
	ttl := binary.BigEndian.Uint32(m[off+4:])
	n := int(binary.BigEndian.Uint16(m[off+8:]))
	off += 10
	next = off + n
	if next > len(m) {
		return 0, false
	}
	s := a.set
	b, logged := s.buf[:0], true
	data := m[off:next]
	switch typ {
	case 1, 28: // A, AAAA
		addr, ok := netip.AddrFromSlice(data)
		if !ok || addr.Is4() != (typ == 1) {
			return next, true
		}
		b = addr.AppendTo(b)
	case 2, 5, 12: // NS, CNAME, PTR
		b = a.target(b, m, off)
	case 15: // MX
		b = a.target(b, m, off+2)
	case 33: // SRV
		if a.netbios { // NBSTAT
			logged = false
			break
		}
		b = a.target(b, m, off+6)
	case 6: // SOA: the primary server
		b = a.target(b, m, off)
	case 16, 99: // TXT, SPF
		for first := true; len(data) > 0; first = false {
			k := int(data[0])
			if 1+k > len(data) || len(b) > maxTXT {
				break
			}
			if !first {
				b = append(b, ' ')
			}
			b = append(b, "TXT "...)
			if typ == 99 {
				copy(b[len(b)-4:], "SPF ")
			}
			b = strconv.AppendInt(b, int64(k), 10)
			b = append(b, ' ')
			b = appendEscaped(b, data[1:1+k])
			data = data[1+k:]
		}
		logged = len(b) > 0
	case 29: // LOC
		if len(data) < 4 {
			return next, true
		}
		b = append(b, "LOC:  "...)
		for i, c := range data[1:4] {
			if i > 0 {
				b = append(b, ' ')
			}
			b = strconv.AppendInt(b, int64(c), 10)
		}
	case 43: // DS
		if len(data) < 4 {
			return next, true
		}
		b = append(b, "DS "...)
		b = strconv.AppendInt(b, int64(data[2]), 10)
		b = append(b, ' ')
		b = strconv.AppendInt(b, int64(data[3]), 10)
	case 44: // SSHFP
		b = append(b, "SSHFP: "...)
		b = hexText(b, data[min(2, len(data)):min(len(data), 66)])
	case 46: // RRSIG
		if len(data) < 18 {
			return next, true
		}
		b = append(b, "RRSIG "...)
		b = strconv.AppendInt(b, int64(binary.BigEndian.Uint16(data)), 10)
		b = append(b, ' ')
		n := len(b)
		if b = a.target(b, m, off+18); len(b) == n {
			b = append(b, "<Root>"...)
		}
	case 47: // NSEC
		b = append(b, "NSEC "...)
		b = a.target(b, m, owner)
		b = append(b, ' ')
		b = a.target(b, m, off)
	case 48: // DNSKEY
		if len(data) < 4 {
			return next, true
		}
		b = append(b, "DNSKEY "...)
		b = strconv.AppendInt(b, int64(data[3]), 10)
	case 50:
		b = append(b, "NSEC3"...)
	case 51:
		b = append(b, "NSEC3PARAM"...)
	case 11, 13, 32, 35, 41, 64, 65, 249, 250, 257: // not among the answers that Zeek prints
		logged = false
	default:
		b = append(b, "<unknown type="...)
		b = strconv.AppendInt(b, int64(typ), 10)
		b = append(b, '>')
	}
	s.buf = b[:0]
	if logged {
		f.DNS.Answers = append(f.DNS.Answers, f.Hold(b))
		f.DNS.TTLs = append(f.DNS.TTLs, int64(ttl))
	}
	return next, true
}

// target prints the name at off.
func (a *dnsAnalyzer) target(b, m []byte, off int) []byte {
	if name, _, ok := appendName(a.set.name[:0], m, off); ok {
		a.set.name = name
		return appendEscaped(b, name)
	}
	return b
}

// appendName appends the name at off of message m to dst in lower case and
// without a final dot, and returns where the name ends in the message.
func appendName(dst, m []byte, off int) (name []byte, end int, ok bool) {
	start := len(dst)
	limit := off // pointers lead to before the part they stand in, so that names end
	for hops := 0; ; {
		if off >= len(m) {
			return dst, 0, false
		}
		n := int(m[off])
		switch n & 0xc0 {
		case 0:
			off++
			if n == 0 {
				if hops == 0 {
					end = off
				}
				return dst, end, true
			}
			if off+n > len(m) || len(dst)-start+n+1 > 255 {
				return dst, 0, false
			}
			if len(dst) > start {
				dst = append(dst, '.')
			}
			for _, c := range m[off : off+n] {
				if 'A' <= c && c <= 'Z' {
					c += 'a' - 'A'
				}
				dst = append(dst, c)
			}
			off += n
		case 0xc0:
			if off+2 > len(m) {
				return dst, 0, false
			}
			if hops == 0 {
				end = off + 2
			}
			off = n&0x3f<<8 | int(m[off+1])
			if hops++; hops > maxNameHops || off >= limit {
				return dst, 0, false
			}
			limit = off
		default:
			return dst, 0, false
		}
	}
}

// skipName returns where the name at off ends.
func skipName(m []byte, off int) (end int, ok bool) {
	for off < len(m) {
		n := int(m[off])
		switch {
		case n == 0:
			return off + 1, true
		case n >= 0xc0:
			return off + 2, off+2 <= len(m)
		case n >= 0x40:
			return 0, false
		}
		off += 1 + n
	}
	return 0, false
}

// netbiosName decodes the first-level encoding of a NetBIOS name (RFC 1001
// section 14.1): two letters for a byte, 15 bytes padded with blanks and one
// for its type, which is left out.
func netbiosName(dst, name []byte) []byte {
	label, _, _ := bytes.Cut(name, []byte{'.'})
	if len(label) != 32 {
		return name
	}
	for i := 0; i < 30; i += 2 {
		hi, lo := label[i]-'a', label[i+1]-'a'
		if hi > 15 || lo > 15 {
			return name
		}
		dst = append(dst, hi<<4|lo)
	}
	return bytes.TrimRight(dst, " \x00")
}

// isDNSQuery reports whether b is, to the last byte, an ordinary query: what
// is looked for on ports that say nothing.
func isDNSQuery(b []byte) bool {
	if len(b) < dnsHeader+5 || len(b) > 512 {
		return false
	}
	flags := binary.BigEndian.Uint16(b[2:])
	if flags&^(dnsRD|0x30) != 0 || binary.BigEndian.Uint16(b[4:]) != 1 || binary.BigEndian.Uint32(b[6:]) != 0 ||
		binary.BigEndian.Uint16(b[10:]) > 2 {
		return false
	}
	off, ok := skipName(b, dnsHeader)
	if !ok || off+4 > len(b) || b[dnsHeader] >= 0x40 {
		return false
	}
	for _, c := range b[dnsHeader:off] {
		if c > '~' {
			return false
		}
	}
	if binary.BigEndian.Uint16(b[off+2:]) != 1 || qtypes[binary.BigEndian.Uint16(b[off:])] == "" {
		return false
	}
	if off += 4; binary.BigEndian.Uint16(b[10:]) == 0 {
		return off == len(b)
	}
	return off+11 <= len(b) // EDNS
}

// qtypes are the names of the types of DNS records, as Zeek has them.
var qtypes = map[uint16]string{
	1: "A", 2: "NS", 3: "MD", 4: "MF", 5: "CNAME", 6: "SOA", 7: "MB", 8: "MG", 9: "MR", 10: "NULL", 11: "WKS", 12: "PTR",
	13: "HINFO", 14: "MINFO", 15: "MX", 16: "TXT", 17: "RP", 18: "AFSDB", 19: "X25", 20: "ISDN", 21: "RT", 22: "NSAP",
	23: "NSAP-PTR", 24: "SIG", 25: "KEY", 26: "PX", 27: "GPOS", 28: "AAAA", 29: "LOC", 30: "NXT", 31: "EID",
	32: "NIMLOC", 33: "SRV", 34: "ATMA", 35: "NAPTR", 36: "KX", 37: "CERT", 38: "A6", 39: "DNAME", 40: "SINK",
	41: "OPT", 42: "APL", 43: "DS", 44: "SSHFP", 45: "IPSECKEY", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 49: "DHCID",
	50: "NSEC3", 51: "NSEC3PARAM", 52: "TLSA", 53: "SMIMEA", 55: "HIP", 56: "NINFO", 57: "RKEY", 58: "TALINK",
	59: "CDS", 60: "CDNSKEY", 61: "OPENPGPKEY", 62: "CSYNC", 63: "ZONEMD", 64: "SVCB", 65: "HTTPS", 99: "SPF",
	100: "UINFO", 101: "UID", 102: "GID", 103: "UNSPEC", 104: "NID", 105: "L32", 106: "L64", 107: "LP", 108: "EUI48",
	109: "EUI64", 249: "TKEY", 250: "TSIG", 251: "IXFR", 252: "AXFR", 253: "MAILB", 254: "MAILA", 255: "*",
	256: "URI", 257: "CAA", 32768: "TA", 32769: "DLV", 65281: "WINS", 65282: "WINS-R", 65422: "XPF", 65521: "INTEGRITY",
}

var rcodes = [16]string{
	"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSet", "NOTAUTH",
	"NOTZONE", "unassigned-11", "unassigned-12", "unassigned-13", "unassigned-14", "unassigned-15",
}

func rcodeName(n uint16) string { return rcodes[n&15] }

func qtypeName(f *flow.Flow, n uint16) string {
	if name := qtypes[n]; name != "" {
		return name
	}
	return numbered(f, "query-", n)
}

func qclassName(f *flow.Flow, n uint16) string {
	switch n {
	case 1:
		return "C_INTERNET"
	case 2:
		return "C_CSNET"
	case 3:
		return "C_CHAOS"
	case 4:
		return "C_HESIOD"
	case 254:
		return "C_NONE"
	case 255:
		return "C_ANY"
	}
	return numbered(f, "qclass-", n)
}

// numbered returns prefix with n in decimal behind it, held by f.
func numbered(f *flow.Flow, prefix string, n uint16) string {
	var b [32]byte
	return f.Hold(strconv.AppendUint(append(b[:0], prefix...), uint64(n), 10))
}
