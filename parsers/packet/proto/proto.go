// Package proto turns the payload of connections into the records that a
// sensor would log of it: DNS, HTTP, TLS and DTLS with their certificates,
// SSH, SMTP, FTP, DHCP, QUIC and the software that speaks them. The values are
// printed as Zeek prints them, so that detectors find the same in both.
//
// The parsers are incremental and keep a bounded amount of each connection.
// They are told bytes and times, and know neither packets nor clocks.
package proto

import (
	_ "embed"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/slips-go/slips/parsers/flow"
)

// Dir is a direction of a connection.
type Dir uint8

// The directions.
const (
	Orig Dir = iota // from the originator
	Resp            // from the responder
)

// other returns the opposite direction.
func (d Dir) other() Dir { return 1 - d }

// Conn is a connection as an analyzer sees it.
type Conn interface {
	// Record returns an empty record of kind k that began at t (unix ns), with
	// what is known of the connection in place: uid, addresses, ports, MACs …
	// The analyzer fills its part and calls Emit with it before it calls
	// anything else of the Conn. All text of the record is held by the record.
	Record(k flow.Kind, t int64) *flow.Flow
	Emit(f *flow.Flow)
	// Hosts returns the addresses of the originator and the responder.
	Hosts() (orig, resp netip.Addr)
	// Service says that the payload was understood as a protocol, by Zeek's
	// name of it. An analyzer says each name once.
	Service(name string)
	// Expect says that a connection from orig to resp and port may come, and
	// what it will carry. Both are the word of a client or a server, not a fact.
	Expect(orig, resp netip.Addr, port uint16, service string)
}

// Analyzer turns the payload of one connection into records. It is used by
// one goroutine at a time and survives any input.
type Analyzer interface {
	// Data gives the next bytes of one direction: of a stream in order and
	// without overlap, as far as possible one segment a call, for the sizes of
	// segments tell something about encrypted protocols; of UDP one datagram a
	// call. The analyzer does not keep data. t is the packet's time, unix ns.
	Data(d Dir, data []byte, t int64)
	// Gap says that n bytes of a stream are missing, at least 1.
	Gap(d Dir, n, t int64)
	// End says that nothing comes any more. What is pending is emitted.
	End(t int64)
	// Wants reports whether more of a direction is of use. Once false it stays so.
	Wants(d Dir) bool
	// Held returns the bytes of memory that the analyzer takes, its buffers by
	// their capacity. It costs little, for it is asked after each segment.
	Held() int
}

// Bounds of what is kept of a connection, in bytes unless said otherwise.
const (
	maxLine      = 16 << 10 // a line of text; servers themselves accept 8 KB to 16 KB
	maxText      = 64 << 10 // the header lines of a message that are kept
	maxHandshake = 64 << 10 // a TLS handshake message; certificate chains are 2 to 10 KB
	maxIdle      = 8 << 10  // a buffer that a free analyzer may hold on to
	maxFree      = 128      // free analyzers of a sort; together they hold less than 50 MB
	maxFreeSniff = 1 << 10  // free sniffers, which every connection has and which hold at most 5 KB each
	maxSlots     = 4        // requests or commands whose memory a free analyzer may hold on to
)

// Stats counts what analyzers could not take, since the Set was made.
type Stats struct {
	LongLines      int64 // lines of text over the bound, kept in part
	LongText       int64 // header lines, recipients and answers that were dropped because a message had too many
	LongHandshakes int64 // messages of TLS, QUIC and SOCKS over the bound, and chains of certificates, not read to the end
	Malformed      int64 // messages that were not of their protocol after all
	Overflows      int64 // requests and exchanges that were written out early or not matched because too many waited
	LargeFiles     int64 // files over the bound, not hashed
	Undecrypted    int64 // QUIC packets that look like Initials and could not be opened
}

// Reasons returns the counts that are not zero by texts that say what happened.
func (s Stats) Reasons() map[string]int64 {
	m := make(map[string]int64)
	for _, x := range [...]struct {
		text string
		n    int64
	}{
		{"lines of text cut", s.LongLines},
		{"header lines dropped", s.LongText},
		{"handshakes too long", s.LongHandshakes},
		{"messages malformed", s.Malformed},
		{"too many requests without answer", s.Overflows},
		{"files too large to hash", s.LargeFiles},
		{"QUIC packets not decrypted", s.Undecrypted},
	} {
		if x.n != 0 {
			m[x.text] = x.n
		}
	}
	return m
}

// Set makes analyzers and keeps what they share: tables, scratch memory and
// those that are free for reuse. One goroutine uses it at a time, together
// with the analyzers that it made.
type Set struct {
	Stats Stats

	ciphers map[uint16]string
	buf     []byte // scratch for one value of text
	name    []byte // scratch for one DNS name
	uri     []byte // scratch for one URI
	seen    map[uint64]struct{}
	inflate inflater
	judge   judge

	sniffers pool[sniffer]
	dns      pool[dnsAnalyzer]
	http     pool[httpAnalyzer]
	tls      pool[tlsAnalyzer]
	ssh      pool[sshAnalyzer]
	smtp     pool[smtpAnalyzer]
	ftp      pool[ftpAnalyzer]
	quic     pool[quicAnalyzer]
}

//go:embed ciphers.txt
var cipherNames string // of TLS, IANA's registry and the drafts that were in use: code in hex, name

// NewSet returns a Set without analyzers.
func NewSet() *Set {
	s := &Set{ciphers: make(map[uint16]string, 512), seen: make(map[uint64]struct{})}
	for line := range strings.Lines(cipherNames) {
		code, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(code, 16, 16); err == nil {
			s.ciphers[uint16(n)] = name
		}
	}
	return s
}

// TCP returns the analyzer of a TCP connection, which finds the protocol by
// the payload and, where that says nothing, by the port.
func (s *Set) TCP(c Conn, _, respPort uint16) Analyzer {
	return s.sniffer(c, respPort, 0)
}

// UDP returns the analyzer of a UDP flow whose first datagram, in either
// direction, is first; nil when no analyzer has use for it.
func (s *Set) UDP(c Conn, origPort, respPort uint16, first []byte) Analyzer {
	switch {
	case dnsPort(respPort) || dnsPort(origPort):
		return s.newDNS(c, false, respPort == 137 || origPort == 137)
	case isQUICInitial(first):
		return s.newQUIC(c)
	case isDTLS(first):
		return s.newTLS(c, true)
	case isDNSQuery(first):
		return s.newDNS(c, false, false)
	}
	return nil
}

// LaterUDP returns the analyzer of a UDP flow for which UDP had none, by one of
// its next datagrams; nil when there is none: hosts look for a way to each
// other first and then speak DTLS.
func (s *Set) LaterUDP(c Conn, b []byte) Analyzer {
	if isDTLS(b) {
		return s.newTLS(c, true)
	}
	return nil
}

// Free takes an analyzer of this Set back once it has ended. Nobody may use
// it after that.
func (s *Set) Free(a Analyzer) {
	switch a := a.(type) {
	case *sniffer:
		if a.inner != nil {
			s.Free(a.inner)
		}
		a.reset()
		s.sniffers.put(a, maxFreeSniff)
	case *dnsAnalyzer:
		a.reset()
		s.dns.put(a, maxFree)
	case *httpAnalyzer:
		if a.inner != nil {
			s.Free(a.inner)
		}
		a.reset()
		s.http.put(a, maxFree)
	case *tlsAnalyzer:
		a.reset()
		s.tls.put(a, maxFree)
	case *sshAnalyzer:
		a.reset()
		s.ssh.put(a, maxFree)
	case *smtpAnalyzer:
		if a.tls != nil {
			s.Free(a.tls)
		}
		a.reset()
		s.smtp.put(a, maxFree)
	case *ftpAnalyzer:
		if a.tls != nil {
			s.Free(a.tls)
		}
		a.reset()
		s.ftp.put(a, maxFree)
	case *socksAnalyzer:
		if a.inner != nil {
			s.Free(a.inner)
		}
	case *quicAnalyzer:
		a.reset()
		s.quic.put(a, maxFree)
	}
}

// pool holds values for reuse.
type pool[T any] struct{ free []*T }

// get returns a value that was put back, or a new one.
func (p *pool[T]) get() *T {
	if n := len(p.free); n > 0 {
		v := p.free[n-1]
		p.free = p.free[:n-1]
		return v
	}
	return new(T)
}

// put takes a value back while fewer than so many are free.
func (p *pool[T]) put(v *T, most int) {
	if len(p.free) < most {
		p.free = append(p.free, v)
	}
}

// spare returns b emptied for reuse, or nothing when it is too big to keep.
func spare(b []byte) []byte {
	if cap(b) > maxIdle {
		return nil
	}
	return b[:0]
}

// text copies b into the record as Zeek prints it in its JSON logs: see
// appendEscaped.
func (s *Set) text(f *flow.Flow, b []byte) string {
	for _, c := range b {
		if c < ' ' || c > '~' {
			s.buf = appendEscaped(s.buf[:0], b)
			return f.Hold(s.buf)
		}
	}
	return f.Hold(b)
}

const hexDigits = "0123456789abcdef"

// appendEscaped appends b to dst as text. What is no ASCII stays when all of b
// is text of UTF-8; else every byte of it becomes \xHH, for then it is no text.
// Control characters become \xHH too: those that JSON has an escape of Zeek
// leaves as they are, which would break a line or a terminal.
func appendEscaped(dst, b []byte) []byte {
	whole := isText(b)
	for _, c := range b {
		switch {
		case c >= ' ' && c <= '~', c >= utf8.RuneSelf && whole:
			dst = append(dst, c)
		default:
			dst = append(dst, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return dst
}

// isText reports whether b is UTF-8 without what Zeek does not take for text:
// control characters other than those of JSON, those of private use, and the
// specials at the end of the basic plane.
func isText(b []byte) bool {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError: // U+FFFD itself is one of the specials
			return false
		case r < ' ' && r != '\b' && r != '\f' && r != '\n' && r != '\r' && r != '\t', r >= 0x7f && r <= 0x9f,
			r >= 0xe000 && r <= 0xf8ff, r >= 0xfff0 && r <= 0xffff:
			return false
		}
		b = b[n:]
	}
	return true
}

// hexText appends the hexadecimal digits of b.
func hexText(dst, b []byte) []byte {
	for _, c := range b {
		dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
	}
	return dst
}

// lineBuf puts lines together that come in pieces.
type lineBuf struct {
	buf  []byte // the beginning of the line
	done bool   // buf was returned and begins anew
	long bool   // the rest of the line is dropped
	cr   bool   // the data so far ended with a CR
}

func (l *lineBuf) reset() { *l = lineBuf{buf: spare(l.buf)} }

// nextCR is next for a protocol in which a CR alone ends a line too, as it does
// for some clients: who takes it for text does not see what they do.
func (l *lineBuf) nextCR(s *Set, data *[]byte) (line []byte, ok bool) {
	b := *data
	if l.cr && !l.done && len(b) > 0 && b[0] != '\n' {
		l.done, l.cr = true, false
		return trimCR(l.buf), true
	}
	if l.done {
		l.buf, l.done, l.long = l.buf[:0], false, false
	}
	i := lineEnd(b)
	if len(l.buf) == 0 && !l.long && i+1 < len(b) && i <= maxLine { // a line in one piece, as most are
		if *data = b[i+1:]; b[i] == '\r' && b[i+1] == '\n' {
			*data = b[i+2:]
		}
		return b[:i], true
	}
	if l.cr = i == len(b)-1 && b[i] == '\r'; l.cr || i == len(b) || b[i] == '\n' || b[i+1] == '\n' {
		return l.next(s, data)
	}
	head := b[:i+1]
	if line, ok = l.next(s, &head); ok { // no: there is no LF
		return line, true
	}
	*data, l.done = b[i+1:], true
	return trimCR(l.buf), true
}

// lineEnd returns where the first CR or LF of b stands, or its length. It looks
// no farther than a few times that, so that many short lines cost no more than
// the bytes they have.
func lineEnd(b []byte) int {
	for n := 64; ; n *= 4 {
		part := b[:min(n, len(b))]
		if i := indexByte(part, '\n'); i >= 0 {
			part = part[:i]
		}
		i := indexByte(part, '\r')
		switch {
		case i >= 0:
			return i
		case len(part) < n:
			return len(part)
		}
	}
}

// next cuts a line off *data and returns it without its end, CR LF or LF. The
// line is valid until the next call. ok is false when the line's end has not
// come; all of *data is kept then. A line over the bound comes cut.
func (l *lineBuf) next(s *Set, data *[]byte) (line []byte, ok bool) {
	if l.done {
		l.buf, l.done, l.long = l.buf[:0], false, false
	}
	b := *data
	end := indexByte(b, '\n')
	if end >= 0 && len(l.buf) == 0 && end <= maxLine && !l.long {
		*data = b[end+1:]
		return trimCR(b[:end]), true
	}
	part := b
	if end >= 0 {
		part, *data = b[:end], b[end+1:]
	} else {
		*data = nil
	}
	if room := maxLine - len(l.buf); len(part) > room {
		part = part[:room]
		if !l.long {
			l.long = true
			s.Stats.LongLines++
		}
	}
	l.buf = append(l.buf, part...)
	if end < 0 {
		return nil, false
	}
	l.done = true
	return trimCR(l.buf), true
}

func trimCR(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\r' {
		return b[:n-1]
	}
	return b
}
