package proto

import (
	"bytes"
	"crypto/md5" //nolint:gosec // HASSH is defined by MD5
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"unsafe"

	"github.com/slips-go/slips/parsers/flow"
)

// Bounds of SSH.
const (
	maxBanner     = 255      // bytes, RFC 4253 section 4.2
	maxPreamble   = 32       // lines before the banner
	maxSSHPacket  = 40 << 10 // bytes; RFC 4253 section 6.1 asks for 35,000
	maxUndecided  = 256      // encrypted segments of the server after which the outcome stays open
	sshKexInit    = 20
	sshNewKeys    = 21
	sshKexReply   = 31 // of Diffie-Hellman and its elliptic sisters; with group exchange it carries the group
	sshGroupReply = 33
	sshLists      = 10 // name lists in KEXINIT
	sshAgreed     = 8  // of them, those in which the sides agree on a name; the others are languages

	maxNameList = 4 << 10 // bytes of a list that are looked for what both sides know; those of OpenSSH have 500
	maxNames    = 256     // names of one; the longest known have 30
)

// The name lists of KEXINIT in their order.
const (
	listKex = iota
	listHostKey
	listCipherOut // client to server
	listCipherIn
	listMACOut
	listMACIn
	listZipOut
	listZipIn
)

// sshSide is one direction.
type sshSide struct {
	banner    []byte
	lines     int
	line      lineBuf
	packet    []byte // one that is not whole
	kex       []byte // payload of KEXINIT
	lists     [sshLists]span
	hasKex    bool
	encrypted bool
	off       bool
}

// sshAnalyzer reads banners and key exchange, and guesses from sizes whether
// a login succeeded.
type sshAnalyzer struct {
	set     *Set
	conn    Conn
	side    [2]sshSide
	t       int64
	said    bool
	done    bool
	gap     bool
	hostKey [sha256.Size]byte
	hasKey  bool

	names    [sshAgreed]span // what both sides know and the client likes best, in its KEXINIT; empty: nothing
	exchange bool            // the key exchange sends its group first

	// The guess is Zeek's. A server's first encrypted segment that answers the
	// client accepts the service "ssh-userauth". SSH_MSG_USERAUTH_SUCCESS is
	// 16 bytes shorter; the first of another size is a refusal, and those of
	// equal size are refusals too.
	asked    bool // the client has sent something encrypted
	accept   int  // size of the segment that accepted the service
	refusal  int
	banner   bool // a segment that is too long for a refusal was skipped
	attempts int
	outcome  flow.Tri
	segments int
}

func (s *Set) newSSH(c Conn) *sshAnalyzer {
	a := s.ssh.get()
	a.reset()
	a.set, a.conn = s, c
	return a
}

// reset empties a, keeping a bounded part of its memory.
func (a *sshAnalyzer) reset() {
	old := a.side
	*a = sshAnalyzer{}
	for d := range a.side {
		n := &a.side[d]
		n.banner, n.packet, n.kex, n.line = old[d].banner[:0], spare(old[d].packet), spare(old[d].kex), old[d].line
		n.line.reset()
	}
}

// Wants implements Analyzer.
func (a *sshAnalyzer) Wants(d Dir) bool { return !a.done && !a.side[d].off }

// Held implements Analyzer.
func (a *sshAnalyzer) Held() int {
	n := int(unsafe.Sizeof(*a))
	for d := range a.side {
		s := &a.side[d]
		n += cap(s.banner) + cap(s.line.buf) + cap(s.packet) + cap(s.kex)
	}
	return n
}

// Gap implements Analyzer. Before encryption the framing is lost; behind it
// only a size.
func (a *sshAnalyzer) Gap(d Dir, _, _ int64) {
	a.gap = true
	if s := &a.side[d]; !s.encrypted {
		s.off = true
	}
}

// End implements Analyzer.
func (a *sshAnalyzer) End(int64) { a.write() }

// Data implements Analyzer.
func (a *sshAnalyzer) Data(d Dir, data []byte, t int64) {
	s := &a.side[d]
	for len(data) > 0 && !s.off && !a.done {
		switch {
		case s.encrypted:
			a.sizes(d, len(data))
			return
		case d == Orig && a.version() == 1:
			a.oneSSH(data)
			return
		case len(s.banner) == 0:
			line, ok := s.line.next(a.set, &data)
			if !ok {
				if len(s.line.buf) > maxBanner {
					a.violation(d)
				}
				return
			}
			a.takeBanner(d, line, t)
		default:
			data = a.packets(d, data)
		}
	}
}

func (a *sshAnalyzer) violation(d Dir) {
	a.set.Stats.Malformed++
	a.side[d].off = true
	if len(a.side[Orig].banner) == 0 || len(a.side[Resp].banner) == 0 {
		a.side[d.other()].off = true
	}
}

func (a *sshAnalyzer) takeBanner(d Dir, line []byte, t int64) {
	s := &a.side[d]
	if !bytes.HasPrefix(line, []byte("SSH-")) {
		if s.lines++; s.lines > maxPreamble || d == Orig { // a server may greet first
			a.violation(d)
		}
		return
	}
	if a.t == 0 {
		a.t = t
	}
	s.banner = append(s.banner, line[:min(len(line), maxBanner)]...)
	if i := bytes.IndexByte(s.banner[4:], '-'); i >= 0 {
		typ := "SSH::CLIENT"
		if d == Resp {
			typ = "SSH::SERVER"
		}
		a.set.software(a.conn, t, typ, s.banner[4+i+1:], d == Resp)
	}
	a.side[Resp].off = a.side[Resp].off || a.version() == 1
}

// oneSSH takes the first packet of a client of version 1: its session key
// shows that it is one.
func (a *sshAnalyzer) oneSSH(b []byte) {
	const sessionKey = 3
	a.side[Orig].off = true
	if len(b) > 12 {
		if pad := 8 - int(b[3]&7); b[4+pad] == sessionKey {
			a.confirm()
		}
	}
}

func (a *sshAnalyzer) confirm() {
	if !a.said {
		a.said = true
		a.conn.Service("ssh")
	}
}

// version returns the version that the two sides agree on; 0: not known, or none.
func (a *sshAnalyzer) version() int {
	c, s := a.side[Orig].banner, a.side[Resp].banner
	if len(c) < 8 || len(s) < 8 {
		return 0
	}
	both := func(b []byte) bool { return bytes.HasPrefix(b[4:], []byte("1.99")) }
	two := func(b []byte) bool { return b[4] == '2' || both(b) }
	switch {
	case two(c) && two(s):
		return 2
	case c[4] == '1' && s[4] == '1':
		return 1
	}
	return 0
}

// packets takes unencrypted packets and returns the data behind NEWKEYS.
func (a *sshAnalyzer) packets(d Dir, data []byte) []byte {
	s := &a.side[d]
	for len(data) > 0 {
		need := 4
		if len(s.packet) >= 4 {
			need += int(binary.BigEndian.Uint32(s.packet)) // bounded below
		}
		n := min(need-len(s.packet), len(data))
		s.packet = append(s.packet, data[:n]...)
		data = data[n:]
		if len(s.packet) < 4 {
			return nil
		}
		size := binary.BigEndian.Uint32(s.packet)
		if size < 2 || size > maxSSHPacket {
			a.violation(d)
			return nil
		}
		if len(s.packet) < 4+int(size) {
			continue
		}
		body, pad := s.packet[5:], int(s.packet[4])
		s.packet = s.packet[:0]
		if pad >= len(body) {
			a.violation(d)
			return nil
		}
		if body = body[:len(body)-pad]; a.take(d, body) {
			s.encrypted = true
			return data
		}
	}
	return nil
}

// take takes the payload of a packet and reports whether encryption begins.
func (a *sshAnalyzer) take(d Dir, p []byte) (keys bool) {
	s := &a.side[d]
	switch p[0] {
	case sshNewKeys:
		if a.version() == 2 {
			a.confirm() // as Zeek, which takes no banner for proof
		}
		return true
	case sshKexInit:
		if s.hasKex || len(p) < 17 {
			return false
		}
		s.kex = append(s.kex[:0], p...)
		c := cursor{b: s.kex[17:]}
		for i := range s.lists {
			n := c.u32()
			from := len(s.kex) - len(c.b)
			if c.take(n); c.bad {
				return false
			}
			s.lists[i] = span{uint32(from), uint32(from + n)}
		}
		if s.hasKex = true; a.side[d.other()].hasKex {
			a.agree()
		}
	case sshKexReply, sshGroupReply:
		if d == Orig || a.hasKey || a.exchange != (p[0] == sshGroupReply) || len(p) < 5 {
			return false
		}
		if n := int(binary.BigEndian.Uint32(p[1:])); n > 0 && n <= len(p)-5 {
			a.hostKey, a.hasKey = sha256.Sum256(p[5:5+n]), true
		}
	}
	return false
}

// agree finds what both sides know, once both lists of everything are there.
func (a *sshAnalyzer) agree() {
	c, s := &a.side[Orig], &a.side[Resp]
	var known [maxNames][]byte
	for list := range a.names {
		n := 0
		for rest := shortList(s.lists[list].of(s.kex)); len(rest) > 0 && n < maxNames; n++ {
			known[n], rest, _ = bytes.Cut(rest, []byte{','})
		}
		slices.SortFunc(known[:n], bytes.Compare)
		all := c.lists[list]
		at := all.from
		for rest := shortList(all.of(c.kex)); len(rest) > 0; {
			var name []byte
			name, rest, _ = bytes.Cut(rest, []byte{','})
			if _, ok := slices.BinarySearchFunc(known[:n], name, bytes.Compare); ok {
				a.names[list] = span{at, at + uint32(len(name))} //nolint:gosec // within a packet
				break
			}
			at += uint32(len(name)) + 1 //nolint:gosec // within a packet
		}
	}
	a.exchange = bytes.Contains(a.agreed(listKex), []byte("group-exchange"))
}

// shortList returns the names at the beginning of a list that count: what is
// compared for each packet's worth of bytes must stay little.
func shortList(b []byte) []byte {
	if len(b) <= maxNameList {
		return b
	}
	return b[:bytes.LastIndexByte(b[:maxNameList+1], ',')+1]
}

// agreed returns the algorithm of a list that both sides know and the client
// likes best; nil if there is none.
func (a *sshAnalyzer) agreed(list int) []byte {
	if s := a.names[list]; s.to > s.from {
		return s.of(a.side[Orig].kex)
	}
	return nil
}

// sizes takes the size of a segment of encrypted bytes.
func (a *sshAnalyzer) sizes(d Dir, n int) {
	if d == Orig {
		a.asked = true
		return
	}
	if zip := a.agreed(listZipIn); !a.asked || string(zip) == "zlib" || string(zip) == "zlib@openssh.com" {
		if a.segments++; a.segments > maxUndecided {
			a.side[Resp].off = true
		}
		return
	}
	if a.segments++; a.segments > maxUndecided {
		a.side[Resp].off = true
		return
	}
	switch {
	case a.accept == 0:
		a.accept = n
	case n+16 == a.accept:
		a.outcome = flow.True
		a.attempts++
		a.write()
	case a.refusal == 0:
		if !a.banner && n-a.accept > 256 { // a message of the day
			a.banner = true
			return
		}
		a.refusal = n
	case n == a.refusal:
		a.outcome = flow.False
		a.attempts++
	}
}

// hassh returns the MD5 of the algorithms a side offers, in the order that
// HASSH defines.
func (a *sshAnalyzer) hassh(d Dir) (sum [md5.Size]byte, ok bool) {
	s := &a.side[d]
	if !s.hasKex {
		return sum, false
	}
	order := [4]int{listKex, listCipherOut, listMACOut, listZipOut}
	if d == Resp {
		order = [4]int{listKex, listCipherIn, listMACIn, listZipIn}
	}
	b := a.set.buf[:0]
	for i, l := range order {
		if i > 0 {
			b = append(b, ';')
		}
		b = append(b, s.lists[l].of(s.kex)...)
	}
	a.set.buf = b[:0]
	return md5.Sum(b), true //nolint:gosec // HASSH is defined by MD5
}

// write writes the record, once, if a banner was seen.
func (a *sshAnalyzer) write() {
	if a.done {
		return
	}
	a.done = true
	if len(a.side[Orig].banner) == 0 && len(a.side[Resp].banner) == 0 {
		return
	}
	f := a.conn.Record(flow.SSH, a.t)
	p := f.SSH
	s := a.set
	p.Version = a.version()
	p.Client, p.Server = s.text(f, a.side[Orig].banner), s.text(f, a.side[Resp].banner)
	p.AuthSuccess, p.AuthAttempts = a.outcome, a.attempts
	if a.side[Orig].hasKex && a.side[Resp].hasKex {
		pair := func(out, in int) string {
			x, y := a.agreed(out), a.agreed(in)
			if !bytes.Equal(x, y) {
				b := append(s.buf[:0], "To server: "...)
				b = append(b, x...)
				b = append(b, ", to client: "...)
				s.buf = append(b, y...)
				return s.text(f, append([]byte(nil), s.buf...))
			}
			return s.text(f, x)
		}
		p.KexAlg, p.HostKeyAlg = s.text(f, a.agreed(listKex)), s.text(f, a.agreed(listHostKey))
		p.CipherAlg, p.MACAlg = pair(listCipherOut, listCipherIn), pair(listMACOut, listMACIn)
		p.CompressionAlg = pair(listZipOut, listZipIn)
	}
	if sum, ok := a.hassh(Orig); ok {
		p.HASSH = held(f, sum[:])
	}
	if sum, ok := a.hassh(Resp); ok {
		p.HASSHServer = held(f, sum[:])
	}
	if a.hasKey {
		b := append(s.buf[:0], "SHA256:"...)
		b = base64.RawStdEncoding.AppendEncode(b, a.hostKey[:])
		p.HostKey = f.Hold(b)
		s.buf = b[:0]
	}
	switch {
	case f.LocalOrig == flow.True && f.LocalResp == flow.False:
		p.Direction = "OUTBOUND"
	case f.LocalOrig == flow.False && f.LocalResp == flow.True:
		p.Direction = "INBOUND"
	}
	a.conn.Emit(f)
}
