package proto

import (
	"bytes"
	"encoding/binary"
)

// Bounds of the search for a protocol.
const (
	maxSniffBytes    = 32 << 10 // of a direction in which a handshake may begin
	maxSniffSegments = 64
	maxHeld          = 1 << 10 // bytes kept until it is known whose they are
	maxHeldSegments  = 32
)

// portProtocol is what a port stands for.
type portProtocol uint8

const (
	portNone portProtocol = iota
	portDNS
	portHTTP
	portTLS
	portSSH
	portSMTP
	portFTP
)

// tcpPort returns what Zeek expects on a port.
func tcpPort(p uint16) portProtocol {
	switch p {
	case 53, 5353, 5355:
		return portDNS
	case 80, 81, 631, 1080, 3128, 8000, 8080, 8888:
		return portHTTP
	case 443, 563, 585, 614, 636, 853, 989, 990, 992, 993, 995, 5223:
		return portTLS
	case 22:
		return portSSH
	case 25, 587:
		return portSMTP
	case 21, 2811:
		return portFTP
	}
	return portNone
}

// sniffer finds the protocol of a TCP connection by its first bytes, hands
// the connection on, and goes on looking for a while where it is none of
// those with an analyzer: TLS may begin after a few lines of IMAP, POP3, XMPP,
// MySQL, PostgreSQL, LDAP or SOCKS.
type sniffer struct {
	set      *Set
	conn     Conn
	port     portProtocol
	level    int // of tunnels around it
	inner    Analyzer
	held     [2][]byte // the first bytes, for the analyzer to come
	when     [2]int64
	bytes    [2]int
	segments [2]int
	gap      [2]bool
	said     bool
	off      bool
}

// sniffer returns the analyzer of a connection to a port, or of a tunnel that
// is so many levels deep in one.
func (s *Set) sniffer(c Conn, respPort uint16, level int) *sniffer {
	a := s.sniffers.get()
	a.reset()
	a.set, a.conn, a.port, a.level = s, c, tcpPort(respPort), level
	return a
}

// reset empties a, keeping a bounded part of its memory.
func (a *sniffer) reset() { *a = sniffer{held: [2][]byte{a.held[0][:0], a.held[1][:0]}} }

// Wants implements Analyzer.
func (a *sniffer) Wants(d Dir) bool {
	if a.inner != nil {
		return a.inner.Wants(d)
	}
	return !a.off && a.bytes[d] < maxSniffBytes && a.segments[d] < maxSniffSegments
}

// Gap implements Analyzer.
func (a *sniffer) Gap(d Dir, n, t int64) {
	if a.inner != nil {
		a.inner.Gap(d, n, t)
		return
	}
	a.gap[d] = true
	a.held[d] = a.held[d][:0]
}

// End implements Analyzer.
func (a *sniffer) End(t int64) {
	if a.inner == nil && !a.off && (len(a.held[0]) > 0 || len(a.held[1]) > 0) && a.port != portNone {
		a.start(a.byPort(), t, true)
	}
	if a.inner != nil {
		a.inner.End(t)
	}
	a.off = true
}

// Data implements Analyzer.
func (a *sniffer) Data(d Dir, data []byte, t int64) {
	if a.inner != nil {
		a.inner.Data(d, data, t)
		return
	}
	if len(data) == 0 || !a.Wants(d) {
		return
	}
	a.bytes[d] += len(data)
	a.segments[d]++
	head := data
	held := len(a.held[d]) > 0
	if held {
		a.held[d] = append(a.held[d], data[:min(len(data), maxHeld)]...)
		head = a.held[d]
	}
	inner := a.recognise(d, head)
	if inner == nil && held { // TLS may begin with any segment
		if inner = a.recognise(d, data); inner != nil {
			a.held[d] = a.held[d][:0]
			held = false
		}
	}
	guess := false
	if inner == nil && a.port != portNone && !a.wait(d, head) {
		inner, guess = a.byPort(), true
		if a.port == portHTTP && !plausible(d, head) { // picked up in the middle
			a.gap = [2]bool{true, true}
		}
	}
	if inner != nil {
		if held { // data is behind what was held, all but what did not fit
			a.held[d] = a.held[d][:len(a.held[d])-min(len(data), maxHeld)]
		}
		a.start(inner, t, guess)
		a.inner.Data(d, data, t)
		return
	}
	if !a.said {
		a.name(d, head)
	}
	if !held && a.wait(d, data) && len(data) <= maxHeld {
		a.held[d] = append(a.held[d][:0], data...)
		a.when[d] = t
	} else if !a.wait(d, head) || len(a.held[d]) >= maxHeld {
		a.held[d] = a.held[d][:0]
	}
}

// wait reports whether more bytes may tell what these are: too few of them,
// or a greeting that mail and file servers have in common.
func (a *sniffer) wait(d Dir, head []byte) bool {
	if a.segments[d] > maxHeldSegments {
		return false
	}
	if len(head) < 6 || d == Orig && a.port == portNone && isHTTPRequest(head) && indexByte(head, '\n') < 0 {
		return true
	}
	return d == Resp && a.segments[Orig] == 0 && bytes.HasPrefix(head, []byte("220")) && a.port != portSMTP && a.port != portFTP
}

// start hands the connection on, with what was held. guess says that the
// payload does not show where it begins.
func (a *sniffer) start(inner Analyzer, t int64, guess bool) {
	a.inner = inner
	first, second := Resp, Orig
	if len(a.held[Orig]) > 0 && a.when[Orig] < a.when[Resp] {
		first, second = Orig, Resp
	}
	for _, d := range [2]Dir{first, second} {
		if guess && a.gap[d] {
			inner.Gap(d, 1, t)
		}
		if len(a.held[d]) > 0 {
			inner.Data(d, a.held[d], a.when[d])
			a.held[d] = a.held[d][:0]
		}
	}
}

// recognise returns the analyzer for a direction that begins with head; nil
// when head does not say.
func (a *sniffer) recognise(d Dir, head []byte) Analyzer {
	s, c := a.set, a.conn
	switch {
	case isTLS(head), isSSLv2Hello(head) && d == Orig:
		return s.newTLS(c, false)
	case bytes.HasPrefix(head, []byte("SSH-1.")), bytes.HasPrefix(head, []byte("SSH-2.")):
		return s.newSSH(c)
	case d == Orig && isHTTPRequest(head), d == Resp && isStatus(head):
		if d == Orig && versionOf(head) == 0 && a.port != portHTTP {
			return nil // "GET x" may be anything
		}
		return s.newHTTP(c, a.level)
	case d == Orig && len(head) > 5 && (is(head[:5], "ehlo ") || is(head[:5], "helo ")):
		return s.newSMTP(c)
	case d == Orig && len(head) > 5 && (is(head[:5], "user ") || is(head[:5], "auth ")) && bytes.HasPrefix(a.held[Resp], []byte("220")):
		return s.newFTP(c)
	case d == Resp && a.port == portNone && bytes.HasPrefix(head, []byte("220")):
		line, _, whole := bytes.Cut(head, []byte{'\n'})
		switch {
		case !whole:
		case containsFold(line, "smtp"):
			return s.newSMTP(c)
		case containsFold(line, "ftp"):
			return s.newFTP(c)
		}
	case d == Orig && len(head) > 2+dnsHeader && int(binary.BigEndian.Uint16(head)) == len(head)-2 && isDNSQuery(head[2:]):
		return s.newDNS(c, true, false)
	}
	// A client of MySQL asks for TLS with 36 bytes, and its hello may follow in the same segment.
	if d == Orig && len(head) > 42 && head[0] == 32 && head[1] == 0 && head[2] == 0 && head[3] == 1 && isTLS(head[36:]) {
		t := s.newTLS(c, false)
		return &skipping{Analyzer: t, n: 36}
	}
	return nil
}

// skipping leaves out the first bytes of the originator.
type skipping struct {
	Analyzer
	n int
}

// Data implements Analyzer.
func (a *skipping) Data(d Dir, data []byte, t int64) {
	if d == Orig && a.n > 0 {
		n := min(a.n, len(data))
		a.n, data = a.n-n, data[n:]
	}
	a.Analyzer.Data(d, data, t)
}

// versionOf returns whether the first line of a request carries a version.
func versionOf(b []byte) int {
	end := indexByte(b, '\n')
	if end < 0 {
		if i := bytes.Index(b, []byte(" HTTP/")); i > 0 {
			return i
		}
		if len(b) >= 512 { // a long URI
			return 1
		}
		return 0
	}
	return versionAt(trimCR(b[:end]))
}

// byPort returns the analyzer that the port stands for.
func (a *sniffer) byPort() Analyzer {
	s, c := a.set, a.conn
	switch a.port {
	case portDNS:
		return s.newDNS(c, true, false)
	case portHTTP:
		return s.newHTTP(c, a.level)
	case portTLS:
		return s.newTLS(c, false)
	case portSSH:
		return s.newSSH(c)
	case portSMTP:
		return s.newSMTP(c)
	case portFTP:
		return s.newFTP(c)
	default: // portNone
	}
	return nil
}

// name tells the services that have no analyzer by their first bytes.
func (a *sniffer) name(d Dir, b []byte) {
	var name string
	switch {
	case d == Resp && bytes.HasPrefix(b, []byte("+OK")):
		name = "pop3"
	case d == Resp && (bytes.HasPrefix(b, []byte("* OK")) || bytes.HasPrefix(b, []byte("* PREAUTH"))):
		name = "imap"
	case d == Resp && len(b) > 8 && b[3] == 0 && b[4] == 10 && int(b[0])|int(b[1])<<8|int(b[2])<<16 == len(b)-4 && b[5] >= '0' && b[5] <= '9':
		name = "mysql"
	case d == Resp && bytes.HasPrefix(b, []byte("RFB 00")):
		name = "rfb"
	case len(b) > 8 && b[0] == 0 && (string(b[4:8]) == "\xffSMB" || string(b[4:8]) == "\xfeSMB"):
		name = "smb"
	case d == Orig && len(b) > 10 && b[0] == 3 && b[1] == 0 && b[5] == 0xe0 && int(b[2])<<8|int(b[3]) == len(b):
		name = "rdp"
	case d == Orig && bytes.Contains(b[:min(len(b), 256)], []byte("<stream:stream")):
		name = "xmpp"
	case d == Orig && (bytes.HasPrefix(b, []byte("NICK ")) || bytes.HasPrefix(b, []byte("CAP LS"))):
		name = "irc"
	case d == Orig && len(b) >= 8 && (string(b[4:8]) == "\x04\xd2\x16\x2f" || string(b[4:8]) == "\x00\x03\x00\x00") && b[0] == 0 && b[1] == 0:
		name = "postgresql"
	case d == Orig && len(b) >= 3 && b[0] == 5 && int(b[1])+2 == len(b) && b[1] > 0 && b[1] < 8:
		name = "socks"
	default:
		return
	}
	a.said = true
	a.conn.Service(name)
}

// UDPService returns Zeek's name of a service over UDP that has no analyzer,
// by its first datagram; empty if it is none of a few.
func UDPService(origPort, respPort uint16, b []byte) string {
	switch port := respPort; {
	case port == 123 && len(b) >= 48 && b[0]&7 != 0 && b[0]>>3&7 >= 1 && b[0]>>3&7 <= 4:
		return "ntp"
	case port == 161 || port == 162:
		if len(b) > 4 && b[0] == derSequence {
			return "snmp"
		}
	case port == 88 && len(b) > 4 && (b[0] == 0x6a || b[0] == 0x6c):
		return "krb"
	case port == 514 && len(b) > 3 && b[0] == '<':
		return "syslog"
	case port == 5060 || origPort == 5060:
		if bytes.Contains(b[:min(len(b), 512)], []byte("SIP/2.0")) {
			return "sip"
		}
	}
	return ""
}
