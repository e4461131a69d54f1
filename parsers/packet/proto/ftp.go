package proto

import (
	"bytes"
	"net/netip"
	"strconv"
	"unsafe"

	"github.com/slips-go/slips/parsers/flow"
)

// Bounds of FTP.
const (
	maxFTPCommands = 20      // that wait for a reply, as in Zeek
	maxFTPUser     = 128     // bytes, as in Zeek
	maxFTPArg      = 4 << 10 // bytes of an argument or a reply, as in Zeek
)

// ftpCommand is a command and what was said to it.
type ftpCommand struct {
	t     int64
	verb  []byte // in capitals
	arg   []byte
	reply []byte // the text of the last reply
	code  int
}

// ftpAnalyzer reads the control connection of FTP.
type ftpAnalyzer struct {
	set      *Set
	conn     Conn
	line     [2]lineBuf
	commands []ftpCommand // the oldest first; those behind len keep their memory
	tls      *tlsAnalyzer
	off      [2]bool
	said     bool
	multi    int // code of a reply of several lines that goes on
	user     []byte
	dir      []byte // working directory, from that of the login if its own is not known; of joinPath
	rooted   bool   // dir is known from the root on
	url      []byte // scratch
	password bool
	bad      int

	passive  flow.Tri // how the data connection of the last command is made; Unset: it has none
	dataOrig netip.Addr
	dataResp netip.Addr
	dataPort uint16
}

func (s *Set) newFTP(c Conn) *ftpAnalyzer {
	a := s.ftp.get()
	a.reset()
	a.set, a.conn = s, c
	return a
}

// reset empties a, keeping a bounded part of its memory.
func (a *ftpAnalyzer) reset() {
	o := *a
	if cap(o.commands) > maxSlots {
		o.commands = nil
	}
	*a = ftpAnalyzer{line: o.line, commands: o.commands[:0], user: o.user[:0], dir: o.dir[:0], url: spare(o.url)}
	a.line[0].reset()
	a.line[1].reset()
}

// Wants implements Analyzer.
func (a *ftpAnalyzer) Wants(d Dir) bool {
	if a.tls != nil {
		return a.tls.Wants(d)
	}
	return !a.off[d]
}

// Held implements Analyzer.
func (a *ftpAnalyzer) Held() int {
	n := int(unsafe.Sizeof(*a)) + cap(a.line[0].buf) + cap(a.line[1].buf) + cap(a.user) + cap(a.dir) + cap(a.url) +
		cap(a.commands)*int(unsafe.Sizeof(ftpCommand{}))
	for _, c := range a.commands[:cap(a.commands)] {
		n += cap(c.verb) + cap(c.arg) + cap(c.reply)
	}
	if a.tls != nil {
		n += a.tls.Held()
	}
	return n
}

// Gap implements Analyzer.
func (a *ftpAnalyzer) Gap(d Dir, n, t int64) {
	if a.tls != nil {
		a.tls.Gap(d, n, t)
		return
	}
	a.line[d].reset()
}

// End implements Analyzer.
func (a *ftpAnalyzer) End(t int64) {
	for len(a.commands) > 0 {
		a.finish()
	}
	if a.tls != nil {
		a.tls.End(t)
	}
	a.off = [2]bool{true, true}
}

// Data implements Analyzer.
func (a *ftpAnalyzer) Data(d Dir, data []byte, t int64) {
	for len(data) > 0 && !a.off[d] {
		if a.tls != nil {
			a.tls.Data(d, data, t)
			return
		}
		line, ok := a.line[d].next(a.set, &data)
		if !ok {
			return
		}
		if d == Orig {
			a.command(line, t)
		} else {
			a.reply(line)
		}
	}
}

func (a *ftpAnalyzer) confirm() {
	if !a.said {
		a.said = true
		a.conn.Service("ftp")
	}
}

func (a *ftpAnalyzer) violation() {
	a.set.Stats.Malformed++
	if a.bad++; a.bad > 16 || !a.said {
		a.off = [2]bool{true, true}
	}
}

// command takes a line of the client.
func (a *ftpAnalyzer) command(line []byte, t int64) {
	for len(line) > 0 && line[0] >= 0xf0 { // Telnet's interrupt before ABOR
		line = line[1:]
	}
	verb, arg, _ := bytes.Cut(line, []byte{' '})
	arg = bytes.TrimLeft(arg, " ")
	if len(verb) < 3 || len(verb) > 16 || methodLen(verb) != len(verb) {
		if len(line) > 0 {
			a.violation()
		}
		return
	}
	// A command that has its reply is done when the next one comes.
	if len(a.commands) > 0 && a.commands[0].code != 0 {
		a.finish()
	}
	if len(a.commands) >= maxFTPCommands {
		a.set.Stats.Overflows++
		a.finish()
	}
	n := len(a.commands)
	if n < cap(a.commands) {
		a.commands = a.commands[:n+1]
	} else {
		a.commands = append(a.commands, ftpCommand{})
	}
	c := &a.commands[n]
	*c = ftpCommand{t: t, verb: append(c.verb[:0], bytes.ToUpper(verb)...), arg: append(c.arg[:0], arg[:min(len(arg), maxFTPArg)]...), reply: c.reply[:0]}
	switch string(c.verb) {
	case "USER":
		a.confirm()
		a.user = append(a.user[:0], arg[:min(len(arg), maxFTPUser)]...)
		a.password = false
	case "PASS":
		a.password = len(arg) > 0
		c.arg = c.arg[:0] // never kept
	case "PORT":
		if addr, port, ok := parsePort(arg); ok {
			a.channel(false, addr, port)
		}
	case "EPRT":
		if addr, port, ok := parseEPRT(arg); ok {
			a.channel(false, addr, port)
		}
	case "CLNT":
		a.set.software(a.conn, t, "FTP::CLIENT", c.arg, false)
	}
}

// channel notes the data connection that is agreed on.
func (a *ftpAnalyzer) channel(passive bool, addr netip.Addr, port uint16) {
	orig, resp := a.conn.Hosts()
	a.passive, a.dataResp, a.dataPort = flow.TriOf(passive), addr, port
	if a.dataOrig = resp; passive {
		a.dataOrig = orig
	}
	a.conn.Expect(a.dataOrig, addr, port, "ftp-data")
}

// reply takes a line of the server.
func (a *ftpAnalyzer) reply(line []byte) {
	code := 0
	if len(line) >= 3 {
		for _, c := range line[:3] {
			if c < '0' || c > '9' {
				code = 0
				break
			}
			code = code*10 + int(c-'0')
		}
	}
	more := len(line) > 3 && line[3] == '-'
	switch {
	case a.multi != 0 && (code != a.multi || more): // inside of a reply of several lines
		if code == 0 || more || len(line) < 4 || line[3] != ' ' {
			return
		}
		a.multi = 0 // it was not ended as it should
	case code < 100 || code > 699:
		a.violation()
		return
	}
	if a.multi = 0; more {
		a.multi = code
	}
	if len(a.commands) == 0 {
		if code == 220 {
			a.confirm()
		}
		return
	}
	c := &a.commands[0]
	text := line[min(4, len(line)):]
	again := c.code >= 200 // one reply moves on; what a server says beyond it does not
	c.code = code
	c.reply = append(c.reply[:0], text[:min(len(text), maxFTPArg)]...)
	if more {
		return
	}
	a.confirm()
	switch {
	case code == 227 && string(c.verb) == "PASV":
		if i := bytes.IndexFunc(text, func(r rune) bool { return '0' <= r && r <= '9' }); i >= 0 {
			if addr, port, ok := parsePort(text[i:]); ok {
				a.channel(true, addr, port)
			}
		}
	case code == 229 && string(c.verb) == "EPSV":
		if _, channel, ok := bytes.Cut(text, []byte{'('}); ok {
			if addr, port, ok := parseEPRT(channel); ok {
				if !addr.IsValid() {
					_, addr = a.conn.Hosts()
				}
				a.channel(true, addr, port)
			}
		}
	case code == 234 && string(c.verb) == "AUTH":
		a.finish()
		a.tls = a.set.newTLS(a.conn, false)
		return
	case (code == 250 || code == 200) && !again && (string(c.verb) == "CWD" || string(c.verb) == "CDUP"):
		if string(c.verb) == "CDUP" {
			a.dir = joinPath(a.dir[:0], a.dir, []byte(".."))
		} else {
			a.dir = joinPath(a.dir[:0], a.dir, c.arg)
			a.rooted = a.rooted || len(c.arg) > 0 && c.arg[0] == '/'
		}
	case code == 257 && (string(c.verb) == "PWD" || string(c.verb) == "XPWD"):
		if _, rest, ok := bytes.Cut(text, []byte{'"'}); ok {
			if dir, _, ok := bytes.Cut(rest, []byte{'"'}); ok {
				a.dir, a.rooted = joinPath(a.dir[:0], nil, dir), len(dir) > 0 && dir[0] == '/'
			}
		}
	}
	if len(a.commands) > 1 && code >= 200 {
		a.finish()
	}
}

// logged are the commands that get a record: Zeek's, and the two of a login,
// for what guesses passwords shows in them.
func logged(verb []byte) bool {
	switch string(verb) {
	case "APPE", "DELE", "RETR", "STOR", "STOU", "ACCT", "PORT", "PASV", "EPRT", "EPSV", "PASS":
		return true
	}
	return false
}

// finish writes the oldest command out and drops it.
func (a *ftpAnalyzer) finish() {
	c := &a.commands[0]
	if logged(c.verb) || string(c.verb) == "USER" && c.code >= 400 {
		a.write(c)
	}
	first := *c
	copy(a.commands, a.commands[1:])
	a.commands[len(a.commands)-1] = first
	a.commands = a.commands[:len(a.commands)-1]
	if n := len(a.commands); n > 0 {
		return
	}
	a.passive = flow.Unset
}

func (a *ftpAnalyzer) write(c *ftpCommand) {
	f := a.conn.Record(flow.FTP, c.t)
	p := f.FTP
	s := a.set
	p.User = s.text(f, a.user)
	p.HasPassword = a.password
	p.Command = s.text(f, c.verb)
	switch string(c.verb) {
	case "APPE", "DELE", "RETR", "STOR", "STOU":
		b := append(a.url[:0], "ftp://"...)
		_, resp := a.conn.Hosts()
		if resp.Is4() {
			b = resp.AppendTo(b)
		} else {
			b = append(b, '[')
			b = resp.AppendTo(b)
			b = append(b, ']')
		}
		if !a.rooted && (len(c.arg) == 0 || c.arg[0] != '/') {
			b = append(b, "/."...) // as Zeek writes it
		}
		b = joinPath(b, a.dir, c.arg)
		a.url = b
		p.Arg = s.text(f, b)
	case "PASS":
		p.Arg = "<hidden>"
	default:
		p.Arg = s.text(f, c.arg)
	}
	p.ReplyCode = c.code
	p.ReplyMsg = s.text(f, c.reply)
	if a.passive != flow.Unset {
		switch string(c.verb) {
		case "PORT", "EPRT", "PASV", "EPSV":
			p.DataPassive, p.DataOrig, p.DataResp, p.DataPort = a.passive, a.dataOrig, a.dataResp, a.dataPort
			a.passive = flow.Unset
		}
	}
	if (string(c.verb) == "RETR" || string(c.verb) == "SIZE") && len(c.reply) > 0 {
		p.FileSize = sizeIn(c.reply)
	}
	a.conn.Emit(f)
}

// sizeIn returns the number before "bytes" in a reply; 0: none.
func sizeIn(b []byte) int64 {
	i := bytes.Index(b, []byte(" bytes"))
	if i < 0 {
		return 0
	}
	from := i
	for from > 0 && '0' <= b[from-1] && b[from-1] <= '9' {
		from--
	}
	n, _ := parseLength(b[from:i])
	return n
}

// joinPath appends dir, which came from it, and name with . and .. taken out.
func joinPath(dst, dir, name []byte) []byte {
	start := len(dst)
	if len(name) == 0 || name[0] != '/' {
		dst = append(dst, bytes.TrimSuffix(dir, []byte{'/'})...)
	}
	for p := name; len(p) > 0; {
		var part []byte
		part, p, _ = bytes.Cut(p, []byte{'/'})
		switch {
		case len(part) == 0, string(part) == ".":
		case string(part) == "..":
			if i := bytes.LastIndexByte(dst[start:], '/'); i >= 0 {
				dst = dst[:start+i]
			}
		default:
			dst = append(append(dst, '/'), part...)
		}
	}
	if len(dst) == start || len(name) > 0 && name[len(name)-1] == '/' {
		dst = append(dst, '/')
	}
	if len(dst)-start > maxFTPArg {
		dst = dst[:start+maxFTPArg]
	}
	return dst
}

// parsePort reads "192,168,0,1,28,86", which may have text behind it.
func parsePort(b []byte) (addr netip.Addr, port uint16, ok bool) {
	var n [6]int
	for i := range n {
		k := 0
		for k < len(b) && k < 4 && '0' <= b[k] && b[k] <= '9' {
			n[i] = n[i]*10 + int(b[k]-'0')
			k++
		}
		if k == 0 || n[i] > 255 {
			return addr, 0, false
		}
		if b = b[k:]; i < 5 {
			if len(b) == 0 || b[0] != ',' {
				return addr, 0, false
			}
			b = b[1:]
		}
	}
	return netip.AddrFrom4([4]byte{byte(n[0]), byte(n[1]), byte(n[2]), byte(n[3])}), uint16(n[4]<<8 | n[5]), true
}

// parseEPRT reads "|1|192.168.0.1|7254|" or "|||7254|" with any sign between
// the fields, RFC 2428. The address is not valid where there is none.
func parseEPRT(b []byte) (addr netip.Addr, port uint16, ok bool) {
	if len(b) < 4 {
		return addr, 0, false
	}
	fields := bytes.SplitN(b[1:], b[:1], 4)
	if len(fields) < 4 {
		return addr, 0, false
	}
	n, err := strconv.ParseUint(string(fields[2]), 10, 16)
	if err != nil || n == 0 {
		return addr, 0, false
	}
	if len(fields[1]) > 0 {
		if addr, err = netip.ParseAddr(string(fields[1])); err != nil {
			return addr, 0, false
		}
		addr = addr.WithZone("")
	}
	return addr, uint16(n), true
}
