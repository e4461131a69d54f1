package proto

import (
	"bytes"
	"net/netip"
	"unsafe"

	"github.com/slips-go/slips/parsers/flow"
)

// Bounds of SMTP.
const (
	maxMailCommands = 64  // commands that wait for a reply
	maxRecipients   = 100 // of a message
	maxHops         = 16  // Received headers that are read
	maxReply        = 512 // bytes of a reply that are kept
	maxBrackets     = 32  // of a Received header that are looked into; there are two to four
	maxBracketed    = 64  // bytes in one that may be an address; IPv6 ones take up to 50
)

// mailCommand is a command that waits for its reply.
type mailCommand uint8

const (
	mailOther mailCommand = iota
	mailData
	mailDot // the end of a message
	mailLast
	mailTLS
	mailAuth
)

// smtpAnalyzer reads mail on its way, up to STARTTLS.
type smtpAnalyzer struct {
	set     *Set
	conn    Conn
	line    [2]lineBuf
	part    lineBuf // of a message in chunks
	waits   []mailCommand
	tls     *tlsAnalyzer
	off     [2]bool
	said    bool
	inData  bool   // the client sends a message
	inHead  bool   // its header lines
	header  []byte // a header line with those that continue it
	chunk   int64  // bytes of a BDAT chunk to come
	last    bool   // it is the last of the message
	body    bool   // they are a message's
	auth    bool   // the client's next line answers a challenge
	replied bool   // the server has said something
	bad     int

	t                                         int64 // when the record began
	begun                                     bool
	depth                                     int    // messages that were handed over
	text                                      []byte // the memory of the spans
	helo                                      []byte
	from, mailfrom, subject, id, agent, reply span
	rcpt, to                                  []span
	path                                      []netip.Addr
	active                                    bool // something is worth a record
	mail                                      bool // a message is under way
	isTLS                                     bool
}

func (s *Set) newSMTP(c Conn) *smtpAnalyzer {
	a := s.smtp.get()
	a.reset()
	a.set, a.conn = s, c
	return a
}

// reset empties a, keeping a bounded part of its memory.
func (a *smtpAnalyzer) reset() {
	o := *a
	*a = smtpAnalyzer{
		waits: o.waits[:0], line: o.line, part: o.part, header: spare(o.header), text: spare(o.text), helo: o.helo[:0],
		rcpt: o.rcpt[:0], to: o.to[:0], path: o.path[:0],
	}
	a.line[0].reset()
	a.line[1].reset()
	a.part.reset()
}

// Wants implements Analyzer.
func (a *smtpAnalyzer) Wants(d Dir) bool {
	if a.tls != nil {
		return a.tls.Wants(d)
	}
	return !a.off[d]
}

// Held implements Analyzer.
func (a *smtpAnalyzer) Held() int {
	n := int(unsafe.Sizeof(*a)) + cap(a.line[0].buf) + cap(a.line[1].buf) + cap(a.part.buf) + cap(a.waits) + cap(a.header) +
		cap(a.text) + cap(a.helo) + (cap(a.rcpt)+cap(a.to))*int(unsafe.Sizeof(span{})) + cap(a.path)*int(unsafe.Sizeof(netip.Addr{}))
	if a.tls != nil {
		n += a.tls.Held()
	}
	return n
}

// Gap implements Analyzer. A gap inside of a message does no harm but for
// headers in it.
func (a *smtpAnalyzer) Gap(d Dir, n, t int64) {
	switch {
	case a.tls != nil:
		a.tls.Gap(d, n, t)
	case d == Orig && a.chunk >= n:
		a.chunk -= n
		a.inHead = false
	case d == Orig && a.inData:
		a.line[d].reset()
		a.inHead = false
	default:
		a.line[d].reset()
	}
}

// End implements Analyzer.
func (a *smtpAnalyzer) End(t int64) {
	if a.inHead {
		a.headerEnd()
	}
	if a.active {
		a.write()
	}
	if a.tls != nil {
		a.tls.End(t)
	}
	a.off = [2]bool{true, true}
}

// Data implements Analyzer.
func (a *smtpAnalyzer) Data(d Dir, data []byte, t int64) {
	for len(data) > 0 && !a.off[d] {
		if a.tls != nil {
			a.tls.Data(d, data, t)
			return
		}
		if d == Orig && a.chunk > 0 {
			n := min(int64(len(data)), a.chunk)
			if part := data[:n]; a.inHead {
				a.bdat(part)
			}
			data = data[n:]
			if a.chunk -= n; a.chunk == 0 && a.last && a.inHead { // a message of header lines alone
				a.bdat([]byte("\n\n"))
			}
			continue
		}
		line, ok := a.line[d].next(a.set, &data)
		if !ok {
			return
		}
		if !a.begun {
			a.begun, a.t = true, t
		}
		switch {
		case d == Resp:
			a.takeReply(line, t)
		case a.inData:
			a.messageLine(line, t)
		default:
			a.command(line, t)
		}
	}
}

// bdat takes a part of a message that comes in chunks.
func (a *smtpAnalyzer) bdat(part []byte) {
	for len(part) > 0 && a.inHead {
		line, ok := a.part.next(a.set, &part)
		if !ok {
			return
		}
		a.headerLine(line)
	}
}

// keep copies b into the record's text.
func (a *smtpAnalyzer) keep(b []byte) span {
	if len(a.text)+len(b) > maxText {
		a.set.Stats.LongText++
		return span{}
	}
	n := len(a.text)
	a.text = append(a.text, b...)
	return span{uint32(n), uint32(len(a.text))}
}

func (a *smtpAnalyzer) wait(c mailCommand) {
	if len(a.waits) < maxMailCommands {
		a.waits = append(a.waits, c)
	} else {
		a.set.Stats.Overflows++
	}
}

func (a *smtpAnalyzer) confirm() {
	if !a.said {
		a.said = true
		a.conn.Service("smtp")
	}
}

// command takes a line of the client.
func (a *smtpAnalyzer) command(line []byte, t int64) {
	if a.auth {
		return // an answer to a challenge; the server's next reply ends it
	}
	verb, arg, _ := bytes.Cut(line, []byte{' '})
	arg = bytes.TrimSpace(arg)
	switch {
	case is(verb, "helo"), is(verb, "ehlo"):
		a.confirm()
		a.helo = append(a.helo[:0], arg[:min(len(arg), 1024)]...)
		a.wait(mailOther)
	case is(verb, "mail"):
		a.confirm()
		if a.mail { // the reply to the message before was not seen
			a.write()
		}
		if !a.active {
			a.t = t
		}
		a.active, a.mail = true, true
		if m := address(arg); len(m) > 0 {
			a.mailfrom = a.keep(m)
		}
		a.wait(mailOther)
	case is(verb, "rcpt"):
		a.active, a.mail = true, true
		if m := address(arg); len(a.rcpt) >= maxRecipients {
			a.set.Stats.LongText++
		} else if len(m) > 0 {
			a.rcpt = append(a.rcpt, a.keep(m))
		}
		a.wait(mailOther)
	case is(verb, "data"):
		a.wait(mailData)
		if !a.replied { // only the client's side is seen
			a.startMessage()
		}
	case is(verb, "bdat"):
		a.chunkCommand(arg)
	case is(verb, "starttls"):
		a.wait(mailTLS)
	case is(verb, "auth"):
		a.active = true
		a.auth = true
		a.wait(mailAuth)
	case len(verb) == 0:
	default:
		if methodLen(verb) != len(verb) || len(verb) > 16 {
			a.violation()
			return
		}
		a.wait(mailOther)
	}
}

// chunkCommand takes BDAT, RFC 3030: its size and whether it is the last.
func (a *smtpAnalyzer) chunkCommand(arg []byte) {
	size, rest, _ := bytes.Cut(arg, []byte{' '})
	n, ok := parseLength(size)
	if !ok {
		a.set.Stats.Malformed++
		a.wait(mailOther)
		return
	}
	if !a.body {
		a.body, a.inHead = true, true
		a.header = a.header[:0]
		a.part.reset()
	}
	a.chunk = n
	if a.last = is(bytes.TrimSpace(rest), "last"); a.last {
		a.wait(mailLast)
	} else {
		a.wait(mailOther)
	}
}

// violation counts lines that are not SMTP; after some the connection is
// given up.
func (a *smtpAnalyzer) violation() {
	a.set.Stats.Malformed++
	if a.bad++; a.bad > 8 || !a.said {
		a.off = [2]bool{true, true}
	}
}

func (a *smtpAnalyzer) startMessage() {
	a.inData, a.inHead = true, true
	a.header = a.header[:0]
}

// messageLine takes a line of a message.
func (a *smtpAnalyzer) messageLine(line []byte, _ int64) {
	if len(line) == 1 && line[0] == '.' {
		if a.inHead {
			a.headerEnd()
		}
		a.inData, a.inHead = false, false
		a.wait(mailDot)
		if !a.replied {
			a.write()
		}
		return
	}
	if a.inHead {
		if len(line) > 1 && line[0] == '.' { // dots are doubled
			line = line[1:]
		}
		a.headerLine(line)
	}
}

// headerLine takes a header line of a message, or the empty line that ends
// them.
func (a *smtpAnalyzer) headerLine(line []byte) {
	if len(line) > 0 && (line[0] == ' ' || line[0] == '\t') {
		if len(a.header)+len(line) <= maxLine {
			a.header = append(a.header, line...)
		}
		return
	}
	a.headerEnd()
	if len(line) == 0 {
		a.inHead = false
		return
	}
	a.header = append(a.header[:0], line...)
}

// headerEnd takes the header line that is whole now.
func (a *smtpAnalyzer) headerEnd() {
	name, value, ok := bytes.Cut(a.header, []byte{':'})
	if !ok {
		a.header = a.header[:0]
		return
	}
	value = bytes.Trim(value, " \t")
	switch {
	case is(name, "from"):
		a.from = a.keep(value)
	case is(name, "subject"):
		a.subject = a.keep(value)
	case is(name, "message-id"):
		a.id = a.keep(value)
	case is(name, "x-mailer"), is(name, "user-agent"), is(name, "x-user-agent"):
		a.agent = a.keep(value)
	case is(name, "to"):
		for len(value) > 0 && len(a.to) < maxRecipients {
			var one []byte
			if one, value = cutAddress(value); len(one) > 0 {
				a.to = append(a.to, a.keep(one))
			}
		}
	case is(name, "received"):
		if addr, ok := lastAddress(value); ok && len(a.path) < maxHops {
			a.path = append(a.path, addr)
		}
	}
	a.header = a.header[:0]
}

// takeReply takes a line of the server.
func (a *smtpAnalyzer) takeReply(line []byte, t int64) {
	if len(line) < 3 || line[0] < '1' || line[0] > '5' || line[1] < '0' || line[1] > '9' || line[2] < '0' || line[2] > '9' {
		a.violation()
		return
	}
	code := int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	more := len(line) > 3 && line[3] == '-'
	if a.reply.to == uint32(len(a.text)) && a.reply.to > a.reply.from { // replace the reply before it
		a.text = a.text[:a.reply.from]
	}
	kept := line[:min(len(line), maxReply)]
	a.reply = a.keep(kept)
	if a.reply.to > a.reply.from+3 {
		a.text[a.reply.from+3] = ' '
	}
	if more {
		return
	}
	if first := !a.replied && len(a.waits) == 0; first {
		a.replied = true
		if code == 220 {
			a.confirm()
		}
		return
	}
	a.replied = true
	if len(a.waits) == 0 {
		return
	}
	c := a.waits[0]
	if c == mailAuth && code == 334 { // a challenge: the command goes on
		return
	}
	copy(a.waits, a.waits[1:])
	a.waits = a.waits[:len(a.waits)-1]
	switch c {
	case mailData:
		if code == 354 {
			a.startMessage()
		}
	case mailDot, mailLast:
		a.body = false
		a.write()
		a.depth++
	case mailAuth:
		a.auth = false
		if code == 535 { // one record for each refusal, so that they can be counted
			a.write()
		}
	case mailTLS:
		if code == 220 {
			a.isTLS, a.active = true, true
			a.write()
			a.tls = a.set.newTLS(a.conn, false)
		}
	case mailOther:
	}
	_ = t
}

// write writes the record and begins the next.
func (a *smtpAnalyzer) write() {
	f := a.conn.Record(flow.SMTP, a.t)
	p := f.SMTP
	text := func(s span) string { return a.set.text(f, s.of(a.text)) }
	p.TransDepth = a.depth + 1
	p.Helo = a.set.text(f, a.helo)
	p.MailFrom, p.From, p.Subject, p.LastReply = text(a.mailfrom), text(a.from), text(a.subject), text(a.reply)
	p.UserAgent, p.MsgID = text(a.agent), text(a.id)
	for _, s := range a.rcpt {
		p.RcptTo = append(p.RcptTo, text(s))
	}
	for _, s := range a.to {
		p.To = append(p.To, text(s))
	}
	orig, resp := a.conn.Hosts()
	var b [64]byte
	p.Path = append(p.Path, f.Hold(resp.AppendTo(b[:0])), f.Hold(orig.AppendTo(b[:0])))
	for _, addr := range a.path {
		if addr != orig && addr != resp {
			p.Path = append(p.Path, f.Hold(addr.AppendTo(b[:0])))
		}
	}
	p.TLS = flow.TriOf(a.isTLS)
	t, agent := a.t, a.agent
	a.conn.Emit(f)
	if agent.to > agent.from && len(a.path) == 0 {
		a.set.software(a.conn, t, "SMTP::MAIL_CLIENT", agent.of(a.text), false)
	}
	a.text, a.begun, a.active, a.mail = a.text[:0], false, false, false
	a.from, a.mailfrom, a.subject, a.id, a.agent, a.reply = span{}, span{}, span{}, span{}, span{}, span{}
	a.rcpt, a.to, a.path = a.rcpt[:0], a.to[:0], a.path[:0]
}

// address returns the first mail address in an argument such as
// "FROM:<a@b.c> SIZE=1".
func address(b []byte) []byte {
	at := indexByte(b, '@')
	if at < 0 {
		return nil
	}
	from := bytes.LastIndexAny(b[:at], "<,: \t") + 1
	end := bytes.IndexAny(b[at:], ">,; \t")
	if end < 0 {
		end = len(b) - at
	}
	if from == at || end == 1 {
		return nil
	}
	return b[from : at+end]
}

// cutAddress cuts the first address off a list, at a comma outside of quotes.
func cutAddress(b []byte) (one, rest []byte) {
	quoted := false
	for i, c := range b {
		switch {
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			return bytes.Trim(b[:i], " \t"), b[i+1:]
		}
	}
	return bytes.Trim(b, " \t"), nil
}

// lastAddress returns the address of the sender in a Received header: the
// second of those in brackets or parentheses where there are two, as Zeek has it.
func lastAddress(b []byte) (addr netip.Addr, ok bool) {
	n := 0
	for range maxBrackets {
		i := bytes.IndexAny(b, "[(")
		if i < 0 || n == 2 {
			break
		}
		b = b[i+1:]
		end := bytes.IndexAny(b[:min(len(b), maxBracketed)], "])")
		if end < 0 {
			continue
		}
		s := bytes.TrimPrefix(b[:end], []byte("IPv6:"))
		if bytes.Contains(s, []byte{'['}) {
			continue
		}
		if a, err := netip.ParseAddr(string(s)); err == nil {
			addr, ok = a.WithZone(""), true
			n++
		}
	}
	return addr, ok
}
