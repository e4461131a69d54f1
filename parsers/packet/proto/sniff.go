package proto

import (
	"bytes"
	"encoding/binary"
	"unsafe"
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
	windows  bool         // it is SMB or DCE/RPC
	found    serviceMarks // what else is in those
	modbus   bool         // the port is Modbus'
	asked    bool         // the client asked for a remote desktop
	socks    byte         // the version in which the client asked a proxy; 0: it did not
	off      bool
}

// sniffer returns the analyzer of a connection to a port, or of a tunnel that
// is so many levels deep in one.
func (s *Set) sniffer(c Conn, respPort uint16, level int) *sniffer {
	a := s.sniffers.get()
	a.reset()
	a.set, a.conn, a.port, a.level, a.modbus = s, c, tcpPort(respPort), level, respPort == 502
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

// Held implements Analyzer.
func (a *sniffer) Held() int {
	n := int(unsafe.Sizeof(*a)) + cap(a.held[0]) + cap(a.held[1])
	if a.inner != nil {
		n += a.inner.Held()
	}
	return n
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
	if inner := a.proxy(d, data, t); inner != nil {
		a.inner = inner
		return
	}
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
	if a.windows {
		a.inside(data)
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
	if name := a.service(d, b); name != "" {
		a.said = true
		a.conn.Service(name)
		if a.windows = name == "smb" || name == "dce_rpc"; name == "dce_rpc" {
			a.found |= markRPC
		}
	}
}

// service is name without saying it.
func (a *sniffer) service(d Dir, b []byte) string {
	switch d {
	case Orig:
		switch {
		case len(b) > 10 && b[0] == 3 && b[1] == 0 && b[5] == 0xe0 && int(b[2])<<8|int(b[3]) == len(b):
			a.asked = bytes.Contains(b, []byte("Cookie: mstshash="))
		case bytes.Contains(b[:min(len(b), 256)], []byte("<stream:stream")):
			return "xmpp"
		case isIRC(b):
			return "irc"
		case len(b) >= 8 && (string(b[4:8]) == "\x04\xd2\x16\x2f" || string(b[4:8]) == "\x00\x03\x00\x00") && b[0] == 0 && b[1] == 0:
			return "postgresql"
		case len(b) >= 10 && b[0] == 0x10 && (string(b[4:8]) == "MQTT" || string(b[4:10]) == "MQIsdp" || string(b[5:9]) == "MQTT"):
			return "mqtt"
		}
	case Resp:
		switch {
		case bytes.HasPrefix(b, []byte("+OK")) && a.segments[Orig] == 0: // other servers say it too, when asked
			return "pop3"
		case bytes.HasPrefix(b, []byte("* OK")), bytes.HasPrefix(b, []byte("* PREAUTH")):
			return "imap"
		case len(b) > 8 && b[3] == 0 && b[4] == 10 && int(b[0])|int(b[1])<<8|int(b[2])<<16 == len(b)-4 && b[5] >= '0' && b[5] <= '9':
			return "mysql"
		case bytes.HasPrefix(b, []byte("RFB 00")):
			return "rfb"
		case a.asked && len(b) > 6 && b[0] == 3 && b[5] == 0xd0:
			return "rdp"
		case len(b) >= 10 && b[0] == 5 && b[1] == 100:
			return "dnp3_tcp"
		}
	}
	switch {
	case len(b) > 8 && b[0] == 0 && (string(b[4:8]) == "\xffSMB" || string(b[4:8]) == "\xfeSMB"):
		return "smb"
	case isRPC(b):
		return "dce_rpc"
	case len(b) > 16 && int(binary.BigEndian.Uint32(b)) == len(b)-4 && isKerberos(b[4:]):
		return "krb_tcp"
	case a.modbus && len(b) >= 8 && b[2] == 0 && b[3] == 0 && int(binary.BigEndian.Uint16(b[4:])) == len(b)-6:
		return "modbus"
	}
	return ""
}

// isIRC reports whether a client registers at a chat server.
func isIRC(b []byte) bool {
	b = bytes.TrimLeft(b, " \r\n")
	for _, verb := range [...]string{"nick ", "cap ls", "pass "} {
		if len(b) > len(verb) && is(b[:len(verb)], verb) {
			return verb != "pass " || containsFold(b[:min(len(b), 256)], "nick ")
		}
	}
	// USER has four parameters; that of FTP and POP3 has one.
	line, _, _ := bytes.Cut(b, []byte{'\n'})
	return len(line) > 5 && is(line[:5], "user ") && bytes.Count(line, []byte{' '}) >= 4
}

// isRPC reports whether b begins with the header of a DCE/RPC call, version 5,
// of a length that may be.
func isRPC(b []byte) bool {
	return len(b) >= 16 && b[0] == 5 && b[1] <= 1 && b[2] < 20 && b[4] == 0x10 && b[5] == 0 && b[6] == 0 && b[7] == 0 &&
		int(binary.LittleEndian.Uint16(b[8:])) >= 16
}

// isKerberos reports whether b begins with a message of Kerberos (RFC 4120):
// the tag of one, and version 5 near its begin.
func isKerberos(b []byte) bool {
	switch b[0] {
	case 0x6a, 0x6c: // requests
		return bytes.Contains(b[:min(len(b), 24)], []byte("\xa1\x03\x02\x01\x05\xa2\x03\x02\x01"))
	case 0x6b, 0x6d, 0x7e: // answers, errors
		return bytes.Contains(b[:min(len(b), 24)], []byte("\xa0\x03\x02\x01\x05\xa1\x03\x02\x01"))
	}
	return false
}

// serviceMarks are what was found inside of SMB and DCE/RPC.
type serviceMarks uint8

const (
	markRPC serviceMarks = 1 << iota
	markGSSAPI
	markNTLM
	markKerberos
)

// marks are the bytes by which the protocols of logins and calls inside of SMB
// and DCE/RPC are told: a bind, the object identifier of SPNEGO (RFC 4178),
// NTLM's signature, a ticket behind the identifier of Kerberos (RFC 4121).
var marks = [...]struct {
	mark serviceMarks
	name string
	text string
}{
	{markRPC, "dce_rpc", "\x05\x00\x0b\x03\x10\x00\x00\x00"},
	{markGSSAPI, "gssapi", "\x06\x06\x2b\x06\x01\x05\x05\x02"},
	{markNTLM, "ntlm", "NTLMSSP\x00"},
	{markKerberos, "krb", "\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02\x01\x00\x6e"},
}

// inside looks for what SMB and DCE/RPC carry.
func (a *sniffer) inside(b []byte) {
	for _, m := range marks {
		if a.found&m.mark == 0 && bytes.Contains(b, []byte(m.text)) {
			a.found |= m.mark
			a.conn.Service(m.name)
		}
	}
}

// UDPService returns Zeek's name of a service over UDP that has no analyzer,
// by one of its first datagrams; empty if it is none of a few.
func UDPService(respPort uint16, b []byte) string {
	if len(b) < 5 {
		return ""
	}
	switch respPort {
	case 161, 162:
		if b[0] == derSequence && bytes.Contains(b[:min(len(b), 8)], []byte{2, 1}) { // the version, 0 to 3
			return "snmp"
		}
	case 514:
		if b[0] == '<' {
			return "syslog"
		}
	case 1812:
		if b[0] >= 1 && b[0] <= 5 && len(b) >= 20 && int(binary.BigEndian.Uint16(b[2:])) <= len(b) {
			return "radius"
		}
	case 20000:
		if b[0] == 5 && b[1] == 100 && len(b) >= 10 {
			return "dnp3_udp"
		}
	}
	switch {
	case isKerberos(b):
		return "krb"
	case isSIP(b):
		return "sip"
	}
	return ""
}

// isSIP reports whether b begins with a request or an answer of SIP, RFC 3261.
func isSIP(b []byte) bool {
	if bytes.HasPrefix(b, []byte("SIP/2.0 ")) {
		return true
	}
	if b[0] < 'A' || b[0] > 'Z' {
		return false
	}
	line, _, ok := bytes.Cut(b, []byte("\r\n"))
	return ok && bytes.HasSuffix(line, []byte(" SIP/2.0"))
}
