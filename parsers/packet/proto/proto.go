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
}

// Bounds of what is kept of a connection, in bytes unless said otherwise.
const (
	maxLine      = 16 << 10 // a line of text; servers themselves accept 8 KB to 16 KB
	maxText      = 64 << 10 // the header lines of a message that are kept
	maxHandshake = 64 << 10 // a TLS handshake message; certificate chains are 2 to 10 KB
	maxIdle      = 8 << 10  // a buffer that a free analyzer may hold on to
	maxFree      = 256      // free analyzers of a sort; together they hold less than 50 MB
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
		s.sniffers.put(a)
	case *dnsAnalyzer:
		a.reset()
		s.dns.put(a)
	case *httpAnalyzer:
		if a.inner != nil {
			s.Free(a.inner)
		}
		a.reset()
		s.http.put(a)
	case *tlsAnalyzer:
		a.reset()
		s.tls.put(a)
	case *sshAnalyzer:
		a.reset()
		s.ssh.put(a)
	case *smtpAnalyzer:
		if a.tls != nil {
			s.Free(a.tls)
		}
		a.reset()
		s.smtp.put(a)
	case *ftpAnalyzer:
		if a.tls != nil {
			s.Free(a.tls)
		}
		a.reset()
		s.ftp.put(a)
	case *socksAnalyzer:
		if a.inner != nil {
			s.Free(a.inner)
		}
	case *quicAnalyzer:
		a.reset()
		s.quic.put(a)
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

func (p *pool[T]) put(v *T) {
	if len(p.free) < maxFree {
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

// text copies b into the record as Zeek prints it: what is neither printable
// ASCII nor valid UTF-8 becomes \xHH.
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

// appendEscaped appends b to dst as text describes.
func appendEscaped(dst, b []byte) []byte {
	for i := 0; i < len(b); {
		c := b[i]
		if c >= utf8.RuneSelf {
			if r, n := utf8.DecodeRune(b[i:]); r != utf8.RuneError {
				dst = append(dst, b[i:i+n]...)
				i += n
				continue
			}
		}
		if c < ' ' || c > '~' {
			dst = append(dst, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
		} else {
			dst = append(dst, c)
		}
		i++
	}
	return dst
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
}

func (l *lineBuf) reset() { *l = lineBuf{buf: spare(l.buf)} }

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
