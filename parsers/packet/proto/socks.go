package proto

import (
	"bytes"
	"unsafe"

	"github.com/slips-go/slips/parsers/flow"
)

// maxSOCKS bounds what is kept of each direction until the proxy has answered,
// in bytes: a login of user and password takes up to 513.
const maxSOCKS = 1 << 10

// socksAnalyzer reads what a client asks of a proxy, SOCKS 5 (RFC 1928), and
// hands what goes through it on.
type socksAnalyzer struct {
	set   *Set
	conn  Conn
	level int // of tunnels around it
	inner *sniffer
	buf   [2][]byte
	login [2]bool // is still to come
	asked bool
	off   bool
}

// proxy looks whether a client asks a SOCKS proxy, which its answer confirms,
// and returns the analyzer of the rest; nil otherwise.
func (a *sniffer) proxy(d Dir, b []byte, t int64) Analyzer {
	switch {
	case d == Orig && a.segments[Orig] == 1 && a.segments[Resp] == 0:
		switch {
		case len(b) > 2 && b[0] == 5 && int(b[1]) == len(b)-2 && b[1] < 10:
			a.socks = 5
		case len(b) > 8 && b[0] == 4 && (b[1] == 1 || b[1] == 2) && bytes.IndexByte(b[8:min(len(b), 41)], 0) >= 0:
			a.socks = 4
		}
		return nil
	case d == Orig || a.socks == 0 || a.segments[Resp] != 1:
		return nil
	case a.level >= maxTunnels:
		return nil
	}
	s := &socksAnalyzer{set: a.set, conn: a.conn, level: a.level}
	switch {
	case a.socks == 5 && len(b) == 2 && b[0] == 5 && (b[1] < 10 && b[1] != 4 || b[1] == 0xff):
		s.login = [2]bool{b[1] == 2, b[1] == 2}
		s.off = b[1] != 0 && b[1] != 2
	case a.socks == 4 && len(b) == 8 && b[0] == 0 && b[1] >= 0x5a && b[1] <= 0x5d:
		s.reply(b[1] == 0x5a, t)
	default:
		return nil
	}
	a.held = [2][]byte{a.held[0][:0], a.held[1][:0]}
	return s
}

// Wants implements Analyzer.
func (a *socksAnalyzer) Wants(d Dir) bool {
	if a.inner != nil {
		return a.inner.Wants(d)
	}
	return !a.off
}

// Held implements Analyzer.
func (a *socksAnalyzer) Held() int {
	n := int(unsafe.Sizeof(*a)) + cap(a.buf[0]) + cap(a.buf[1])
	if a.inner != nil {
		n += a.inner.Held()
	}
	return n
}

// Gap implements Analyzer.
func (a *socksAnalyzer) Gap(d Dir, n, t int64) {
	if a.inner != nil {
		a.inner.Gap(d, n, t)
		return
	}
	a.off = true
}

// End implements Analyzer.
func (a *socksAnalyzer) End(t int64) {
	if a.inner != nil {
		a.inner.End(t)
	}
	a.off = true
}

// Data implements Analyzer.
func (a *socksAnalyzer) Data(d Dir, data []byte, t int64) {
	if a.inner != nil {
		a.inner.Data(d, data, t)
		return
	}
	if a.off {
		return
	}
	if len(a.buf[d])+len(data) > maxSOCKS {
		a.set.Stats.LongHandshakes++
		a.off = true
		return
	}
	a.buf[d] = append(a.buf[d], data...)
	if a.login[d] && !a.skipLogin(d) {
		return
	}
	n := socksLen(a.buf[d])
	switch {
	case n < 0:
		a.off = true
	case n == 0 || len(a.buf[d]) < n: // not whole
	case d == Orig:
		if !a.asked {
			a.asked = true
			a.buf[Orig] = a.buf[Orig][n:] // what is behind it goes through
		}
	case a.asked:
		ok := a.buf[Resp][1] == 0
		a.buf[Resp] = a.buf[Resp][n:]
		a.reply(ok, t)
	}
}

// skipLogin drops a user's name and password (RFC 1929), or the answer to
// them. It reports whether they were there whole.
func (a *socksAnalyzer) skipLogin(d Dir) bool {
	b := a.buf[d]
	n := 2
	if d == Orig {
		if len(b) > 1 {
			n += int(b[1]) + 1
		}
		if len(b) >= n && n > 2 {
			n += int(b[n-1])
		}
	}
	if len(b) < max(n, 2) || d == Orig && n == 2 {
		return false
	}
	a.buf[d], a.login[d] = b[n:], false
	return len(a.buf[d]) > 0
}

// socksLen returns the length of a request or a reply; 0: too little is there
// to tell, -1: it is none.
func socksLen(b []byte) int {
	if len(b) > 0 && b[0] != 5 {
		return -1
	}
	if len(b) < 5 {
		return 0
	}
	switch b[3] {
	case 1:
		return 10
	case 3:
		return 7 + int(b[4])
	case 4:
		return 22
	}
	return -1
}

// reply takes the proxy's answer.
func (a *socksAnalyzer) reply(ok bool, t int64) {
	a.conn.Service("socks")
	if !ok {
		a.off = true
		return
	}
	proxied(a.conn, "Tunnel::SOCKS", t)
	a.inner = a.set.sniffer(a.conn, 0, a.level+1)
	for d, b := range a.buf {
		if len(b) > 0 {
			a.inner.Data(Dir(d), b, t)
		}
	}
	a.buf = [2][]byte{}
}

// proxied writes the record of a tunnel through a proxy. Those of one client
// are the same tunnel for Zeek, which leaves the client's port out.
func proxied(c Conn, kind string, t int64) {
	f := c.Record(flow.Tunnel, t)
	f.SrcPort = 0
	f.Tunnel.Type, f.Tunnel.Action = kind, "Tunnel::DISCOVER"
	c.Emit(f)
}
