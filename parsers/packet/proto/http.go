package proto

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"unsafe"

	"github.com/slips-go/slips/parsers/flow"
)

// Bounds of HTTP.
const (
	maxHTTPPending = 100     // requests that wait for an answer, as in Zeek
	maxProxied     = 16      // headers of proxies that are kept
	maxSniff       = 1 << 10 // bytes of a body that tell its type
	maxPacked      = 4 << 10 // bytes of a packed body that are unpacked for that
	maxTunnels     = 2       // levels of tunnels in tunnels
	maxLost        = 256     // segments in which the beginning of a message is looked for
	maxHeaderName  = 64      // bytes of a name whose value stands in the next line
	maxReuse       = 2 << 10 // bytes of memory that a request leaves to the next
)

// span is a piece of a text.
type span struct{ from, to uint32 }

func (s span) of(b []byte) []byte { return b[s.from:s.to] }

// httpRequest is a request that waits for the end of its answer, and what is
// known of the answer.
type httpRequest struct {
	t     int64
	depth int
	text  []byte // the memory of the spans

	method, uri, host, referrer, agent, user, version, message span
	proxied                                                    [maxProxied]span
	nproxied                                                   int
	asked, password                                            bool
	old                                                        bool // of version 0.9
	status                                                     int
	reqLen, respLen                                            int64
	mime                                                       [2]string // constants
	files                                                      [2]uint64 // ids of the bodies; 0: none
}

// keep copies b into the request's text. All requests of a connection that
// wait share one bound.
func (a *httpAnalyzer) keep(r *httpRequest, b []byte) span {
	if a.kept+len(b) > maxText {
		a.set.Stats.LongText++
		return span{}
	}
	a.kept += len(b)
	n := len(r.text)
	r.text = append(r.text, b...)
	return span{uint32(n), uint32(len(r.text))}
}

// httpState is where one side of a connection is.
type httpState uint8

const (
	httpStart     httpState = iota // before a request or status line
	httpHeaders                    // in the header lines
	httpBody                       // in a body of known length
	httpChunk                      // before a line with the size of a chunk
	httpChunkData                  // in a chunk
	httpChunkEnd                   // before the empty line behind a chunk
	httpTrailer                    // in the header lines behind the last chunk
	httpRest                       // in a body that ends with the connection
	httpLost                       // somewhere: bytes were missing
	httpOff                        // no more HTTP
)

// httpSide is one direction.
type httpSide struct {
	line   lineBuf
	state  httpState
	remain int64  // bytes of the body or the chunk that are to come
	body   int64  // bytes of the body that came
	length int64  // Content-Length; -1: none
	packed string // Content-Encoding that is unpacked: "gzip", "deflate"; else empty
	opaque bool   // any other Content-Encoding
	chunks bool
	modern bool    // of version 1.1; those before have no chunks
	head   []byte  // beginning of the body
	told   bool    // its type was looked for
	coding bool    // the last header line was Transfer-Encoding
	open   []byte  // name in the last header line, when its value is to come
	ocsp   bool    // Content-Type says so
	socket bool    // Upgrade says WebSocket
	tail   [4]byte // the last bytes of the body
	torn   bool    // bytes of it were missing
	file   file
}

func (h *httpSide) begin() {
	h.remain, h.body, h.length, h.packed, h.opaque, h.chunks, h.told = 0, 0, -1, "", false, false, false
	h.head = h.head[:0]
	h.torn, h.coding, h.ocsp, h.socket = false, false, false, false
	h.open = h.open[:0]
	h.file.on, h.file.name = false, h.file.name[:0]
}

// httpAnalyzer reads HTTP/0.9 to 1.1 in both directions, pipelined or not.
type httpAnalyzer struct {
	set       *Set
	conn      Conn
	side      [2]httpSide
	pending   []*httpRequest // the oldest first; those behind len are free, and keep their memory
	reqBody   int            // index in pending of the request whose body comes; -1: none
	depth     int
	now       int64 // time of the last data
	kept      int   // bytes of text of all pending
	confirmed bool
	inner     Analyzer // of a tunnel
	level     int      // of tunnels around it
	lost      int      // segments without HTTP before there was any
	browser   bool     // the software was told
	server    bool
}

func (s *Set) newHTTP(c Conn, level int) *httpAnalyzer {
	a := s.http.get()
	a.reset()
	a.set, a.conn, a.level = s, c, level
	return a
}

// reset empties a, keeping a bounded part of its memory.
func (a *httpAnalyzer) reset() {
	old := *a
	if cap(old.pending) > maxSlots {
		old.pending = nil
	}
	for _, r := range old.pending[:cap(old.pending)] {
		if r != nil && cap(r.text) > maxReuse {
			r.text = nil
		}
	}
	*a = httpAnalyzer{pending: old.pending[:0], reqBody: -1}
	for d := range a.side {
		a.side[d].line, a.side[d].head, a.side[d].file = old.side[d].line, spare(old.side[d].head), old.side[d].file
		a.side[d].line.reset()
		a.side[d].begin()
	}
}

// Wants implements Analyzer.
func (a *httpAnalyzer) Wants(d Dir) bool {
	if a.inner != nil {
		return a.inner.Wants(d)
	}
	return a.side[d].state != httpOff
}

// Held implements Analyzer.
func (a *httpAnalyzer) Held() int {
	n := int(unsafe.Sizeof(*a)) + cap(a.pending)*int(unsafe.Sizeof(a))
	for _, r := range a.pending[:cap(a.pending)] {
		if r != nil {
			n += int(unsafe.Sizeof(*r)) + cap(r.text)
		}
	}
	for d := range a.side {
		h := &a.side[d]
		n += cap(h.line.buf) + cap(h.head) + cap(h.open) + h.file.held()
	}
	if a.inner != nil {
		n += a.inner.Held()
	}
	return n
}

// Gap implements Analyzer.
func (a *httpAnalyzer) Gap(d Dir, n, t int64) {
	if a.inner != nil {
		a.inner.Gap(d, n, t)
		return
	}
	h := &a.side[d]
	switch {
	case (h.state == httpBody || h.state == httpChunkData) && n <= h.remain:
		h.remain -= n
		h.torn, h.file.unhashed = true, true
		h.body += n // Zeek counts what was announced and not seen
		a.count(d)
		a.tell(d)
		if h.remain == 0 {
			a.bodyEnd(d, t)
		}
	case h.state == httpRest || h.state == httpOff:
		h.torn, h.file.unhashed = true, true
		a.tell(d)
	default:
		if h.state == httpBody || h.state == httpChunkData { // the gap goes beyond the end of the message
			h.chunks, h.file.unhashed = false, true
			a.messageEnd(d, t)
		}
		h.state = httpLost
		h.line.reset()
	}
}

// End implements Analyzer.
func (a *httpAnalyzer) End(t int64) {
	if a.inner != nil {
		a.inner.End(t)
	}
	for d := range a.side {
		a.tell(Dir(d))
		rest := a.side[d].state == httpRest
		if rest {
			a.unpacked(Dir(d))
		}
		a.side[d].file.end(a.set, a.conn, Dir(d), "HTTP", rest)
	}
	for len(a.pending) > 0 {
		a.write()
	}
	a.side[Orig].state, a.side[Resp].state = httpOff, httpOff
}

// Data implements Analyzer.
func (a *httpAnalyzer) Data(d Dir, data []byte, t int64) {
	if a.inner != nil {
		a.inner.Data(d, data, t)
		return
	}
	a.now = t
	h := &a.side[d]
	for len(data) > 0 {
		switch h.state {
		case httpOff:
			return
		case httpLost: // a message that begins with a segment finds the way back
			if d == Orig && !isHTTPRequest(data) || d == Resp && !isStatus(data) {
				if a.lost++; a.lost > maxLost && !a.confirmed {
					a.stop()
				}
				return
			}
			h.state = httpStart
			for d == Resp && len(a.pending) > 1 { // the answers that are missing were to what was asked before
				a.write()
			}
		case httpBody, httpChunkData:
			n := min(int64(len(data)), h.remain)
			a.content(d, data[:n])
			data = data[n:]
			if h.remain -= n; h.remain == 0 {
				a.bodyEnd(d, t)
			}
		case httpRest:
			a.content(d, data)
			return
		default:
			line, ok := h.line.nextCR(a.set, &data)
			if !ok {
				if h.state == httpStart && !a.confirmed && len(h.line.buf) > 64 && !plausible(d, h.line.buf) {
					a.stop()
				}
				return
			}
			a.takeLine(d, line, t)
			if a.inner != nil { // a tunnel has begun; it starts with what the other side says next
				if len(data) > 0 {
					a.inner.Data(d, data, t)
				}
				return
			}
		}
	}
}

// plausible reports whether an unfinished first line may become one of HTTP.
func plausible(d Dir, b []byte) bool {
	if d == Resp {
		n := min(len(b), len("HTTP/"))
		return is(b[:n], "HTTP/"[:n])
	}
	m := methodLen(b)
	return m > 0 && (m == len(b) || b[m] == ' ')
}

// stop gives the connection up.
func (a *httpAnalyzer) stop() {
	if !a.confirmed {
		a.set.Stats.Malformed++
	}
	a.side[Orig].state, a.side[Resp].state = httpOff, httpOff
}

func (a *httpAnalyzer) takeLine(d Dir, line []byte, t int64) {
	h := &a.side[d]
	switch h.state {
	case httpStart:
		if len(line) == 0 {
			return
		}
		if d == Orig {
			a.request(line, t)
		} else {
			a.reply(line, t)
		}
	case httpHeaders:
		if len(line) == 0 {
			a.headersEnd(d, t)
			return
		}
		a.header(d, line, t)
	case httpChunk:
		n, ok := parseChunk(line)
		switch {
		case !ok:
			a.set.Stats.Malformed++
			a.messageEnd(d, t)
			h.state = httpLost
		case n == 0:
			h.state = httpTrailer
		default:
			h.remain, h.state = n, httpChunkData
		}
	case httpChunkEnd:
		h.state = httpChunk
	case httpTrailer:
		if len(line) == 0 {
			a.messageEnd(d, t)
		}
	default: // no lines in the other states
	}
}

// http2Preface is how clients of HTTP/2 begin, RFC 9113 section 3.4, for those
// of HTTP/1 to refuse it. Nothing behind it is of HTTP/1.
const http2Preface = "PRI * HTTP/2"

// methodLen returns how many bytes of b could be a method: capitals, digits
// and the signs that occur in some.
func methodLen(b []byte) int {
	for i, c := range b {
		if !('A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return i
		}
		if i >= 32 {
			return 0
		}
	}
	return len(b)
}

// isHTTPRequest reports whether b begins with a request line.
func isHTTPRequest(b []byte) bool {
	n := methodLen(b)
	if n < 3 || n+2 > len(b) || b[n] != ' ' || bytes.HasPrefix(b, []byte(http2Preface)) {
		return false
	}
	if knownMethod(b[:n]) {
		return true
	}
	end := indexByte(b, '\n')
	return end > 0 && versionAt(trimCR(b[:end])) > n // behind a URI
}

// isStatus reports whether b begins with a status line.
func isStatus(b []byte) bool { return len(b) > 8 && is(b[:7], "HTTP/1.") }

// versionAt returns where the blank before "HTTP/1.1" stands in a request
// line that ends with it; 0: nowhere.
func versionAt(line []byte) int {
	line = bytes.TrimRight(line, " \t")
	i := bytes.LastIndexByte(line, ' ')
	if i <= 0 || len(line)-i < len(" HTTP/1") || !bytes.EqualFold(line[i+1:i+6], []byte("HTTP/")) {
		return 0
	}
	return i
}

// knownMethod reports whether Zeek knows a method by name.
func knownMethod(m []byte) bool {
	switch string(m) {
	case "GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "CONNECT", "PROPFIND", "PROPPATCH", "MKCOL", "COPY",
		"MOVE", "LOCK", "UNLOCK", "POLL", "REPORT", "SUBSCRIBE", "BMOVE", "SEARCH", "QUERY":
		return true
	}
	return false
}

func (a *httpAnalyzer) confirm() {
	if !a.confirmed {
		a.confirmed = true
		a.conn.Service("http")
	}
}

// add returns a new request at the end of pending.
func (a *httpAnalyzer) add(t int64) *httpRequest {
	if len(a.pending) >= maxHTTPPending {
		a.set.Stats.Overflows++
		a.write()
	}
	n := len(a.pending)
	if n < cap(a.pending) {
		a.pending = a.pending[:n+1]
	} else {
		a.pending = append(a.pending, nil)
	}
	if a.pending[n] == nil {
		a.pending[n] = new(httpRequest)
	}
	r := a.pending[n]
	a.depth++
	*r = httpRequest{t: t, depth: a.depth, text: r.text[:0]}
	if cap(r.text) > maxReuse {
		r.text = nil
	}
	return r
}

func (a *httpAnalyzer) request(line []byte, t int64) {
	n := methodLen(line)
	rest := line[n:]
	at := versionAt(line)
	if n == 0 || len(rest) == 0 || rest[0] != ' ' && rest[0] != '\t' || at == 0 && !knownMethod(line[:n]) {
		if !a.confirmed {
			a.stop()
			return
		}
		a.set.Stats.Malformed++
		a.side[Orig].state = httpLost
		return
	}
	uri := rest
	if at >= n {
		uri = line[n:at]
	}
	uri = bytes.Trim(uri, " \t")
	h := &a.side[Orig]
	h.begin()
	r := a.add(t)
	a.reqBody = len(a.pending) - 1
	r.asked = true
	r.method = a.keep(r, line[:n])
	a.set.uri = unescapeURI(a.set.uri[:0], uri)
	r.uri = a.keep(r, a.set.uri)
	if bytes.HasPrefix(line, []byte(http2Preface)) { // as Zeek: a request at a port of HTTP, and no service
		a.side[Orig].state, a.side[Resp].state = httpOff, httpOff
		return
	}
	if at > 0 || a.depth > 1 || len(a.pending) > 0 && knownMethod(line[:n]) {
		a.confirm()
	}
	h.modern = at > 0 && bytes.HasSuffix(bytes.TrimRight(line, " \t"), []byte("/1.1"))
	if at == 0 { // HTTP/0.9: the answer is a body without a head
		h.state, r.old = httpStart, true
		a.reqBody = -1
	} else {
		h.state = httpHeaders
	}
	if !knownMethod(r.method.of(r.text)) {
		f := a.conn.Record(flow.Weird, t)
		f.Weird.Name, f.Weird.Addl, f.Weird.Source = "unknown_HTTP_method", a.set.text(f, r.method.of(r.text)), "HTTP"
		f.Weird.Notice = flow.False
		a.conn.Emit(f)
	}
}

// unescapeURI appends a URI with %41 read as A, as Zeek logs it. A percent
// sign that begins no escape stays; of two the first is dropped.
func unescapeURI(dst, u []byte) []byte {
	for i := 0; i < len(u); i++ {
		c := u[i]
		if c == '%' && i+1 < len(u) {
			if u[i+1] == '%' {
				continue
			}
			if i+2 < len(u) {
				hi, lo := unhex(u[i+1]), unhex(u[i+2])
				if hi < 16 && lo < 16 {
					dst = append(dst, hi<<4|lo)
					i += 2
					continue
				}
			}
		}
		dst = append(dst, c)
	}
	return dst
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

func (a *httpAnalyzer) reply(line []byte, t int64) {
	if len(line) < 5 || !is(line[:5], "HTTP/") {
		if !a.confirmed {
			a.stop()
			return
		}
		if len(a.pending) > 0 && a.pending[0].old && a.pending[0].status == 0 { // the answer of version 0.9 is a body
			h := &a.side[Resp]
			h.begin()
			h.state = httpRest
			a.pending[0].version = a.keep(a.pending[0], []byte("0.9"))
			h.body++ // the end of the line
			a.content(Resp, line)
			return
		}
		a.set.Stats.Malformed++
		a.side[Resp].state = httpLost
		return
	}
	version, rest, _ := bytes.Cut(line[5:], []byte{' '})
	rest = bytes.TrimLeft(rest, " ")
	digits := 0
	status := 0
	for digits < len(rest) && digits < 3 && '0' <= rest[digits] && rest[digits] <= '9' {
		status = status*10 + int(rest[digits]-'0')
		digits++
	}
	if digits == 0 {
		a.set.Stats.Malformed++
		if !a.confirmed {
			a.stop()
		}
		return
	}
	a.confirm()
	if len(a.pending) == 0 {
		a.add(t)
	}
	r := a.pending[0]
	r.status = status
	r.version = a.keep(r, version)
	if rest = rest[digits:]; len(rest) == 0 {
		rest = []byte("<empty>")
	}
	r.message = a.keep(r, bytes.TrimLeft(rest, " "))
	h := &a.side[Resp]
	h.begin()
	h.state, h.modern = httpHeaders, string(version) == "1.1"
}

// of returns the request that the message of a side belongs to, or nil.
func (a *httpAnalyzer) of(d Dir) *httpRequest {
	switch {
	case d == Resp && len(a.pending) > 0:
		return a.pending[0]
	case d == Orig && a.reqBody >= 0 && a.reqBody < len(a.pending):
		return a.pending[a.reqBody]
	}
	return nil
}

// header takes one header line. One that continues the line before it is of
// use when that has no value.
func (a *httpAnalyzer) header(d Dir, line []byte, t int64) {
	h := &a.side[d]
	name, value, ok := bytes.Cut(line, []byte{':'})
	if line[0] == ' ' || line[0] == '\t' {
		h.chunks = h.chunks || h.coding && containsFold(line, "chunked")
		name, value, ok = h.open, line, len(h.open) > 0
	} else {
		h.coding = false
	}
	if !ok {
		return
	}
	name, value = bytes.TrimRight(name, " \t"), bytes.Trim(value, " \t")
	h.open = h.open[:0]
	if len(value) == 0 {
		if len(name) <= maxHeaderName {
			h.open = append(h.open, name...)
		}
		return
	}
	r := a.of(d)
	if r == nil {
		return
	}
	switch {
	case is(name, "content-length"):
		n, ok := parseLength(token(value))
		if !ok {
			a.set.Stats.Malformed++
			return
		}
		h.length = n
		return
	case is(name, "transfer-encoding"):
		h.coding = true
		h.chunks = h.chunks || containsFold(value, "chunked")
		return
	case is(name, "content-type"):
		h.ocsp = is(value, ocspTypes[d])
		return
	case is(name, "content-disposition"):
		h.file.name = append(h.file.name[:0], filename(value)...)
		return
	case is(name, "content-encoding"):
		switch {
		case containsFold(value, "gzip"):
			h.packed = "gzip"
		case is(token(value), "deflate"):
			h.packed = "deflate"
		case len(value) > 0 && !is(value, "identity"):
			h.opaque = true
		}
		return
	}
	if d == Resp {
		switch {
		case is(name, "upgrade"):
			h.socket = is(value, "websocket")
		case is(name, "server"):
			if !a.server {
				a.server = true
				a.set.software(a.conn, t, "HTTP::SERVER", value, true)
			}
		case is(name, "x-powered-by"):
			a.set.software(a.conn, t, "HTTP::APPSERVER", value, true)
		}
		return
	}
	switch {
	case is(name, "host"):
		r.host = a.keep(r, value)
	case is(name, "user-agent"):
		r.agent = a.keep(r, value)
		if !a.browser {
			a.browser = true
			a.set.software(a.conn, t, "HTTP::BROWSER", value, false)
		}
	case is(name, "referer"):
		r.referrer = a.keep(r, value)
	case is(name, "authorization"), is(name, "proxy-authorization"):
		a.authorization(r, value)
	default:
		if i := proxyHeader(name); i != "" && r.nproxied < maxProxied {
			s := a.keep(r, []byte(i))
			a.keep(r, []byte(" -> "))
			if v := a.keep(r, value); v.to > 0 {
				r.proxied[r.nproxied] = span{s.from, v.to}
				r.nproxied++
			}
		}
	}
}

// ocspTypes are the types of requests and answers about certificates, which
// do not show in the bytes.
var ocspTypes = [2]string{"application/ocsp-request", "application/ocsp-response"}

// proxyHeader returns the name in capitals of a header that proxies add.
func proxyHeader(name []byte) string {
	for _, n := range [...]string{
		"FORWARDED", "X-FORWARDED-FOR", "X-FORWARDED-FROM", "CLIENT-IP", "VIA", "XROXY-CONNECTION", "PROXY-CONNECTION",
	} {
		if is(name, n) {
			return n
		}
	}
	return ""
}

// authorization takes the user of Basic credentials; of the password only
// that there is one.
func (a *httpAnalyzer) authorization(r *httpRequest, value []byte) {
	if len(value) < 6 || !is(value[:6], "basic ") {
		return
	}
	text, err := base64.StdEncoding.AppendDecode(a.set.uri[:0], bytes.TrimSpace(value[6:]))
	a.set.uri = text
	colon := indexByte(text, ':')
	if err != nil || colon < 0 {
		r.user = a.keep(r, []byte("<problem-decoding>"))
		return
	}
	r.user, r.password = a.keep(r, text[:colon]), true
}

// headersEnd decides what comes behind the header lines.
func (a *httpAnalyzer) headersEnd(d Dir, t int64) {
	h := &a.side[d]
	r := a.of(d)
	if r == nil {
		h.state = httpLost
		return
	}
	if d == Resp {
		switch {
		case r.status == 101:
			if h.socket {
				a.conn.Service("websocket")
			}
			a.message(d, t)
			a.tunnel()
			return
		case r.status == 200 && string(r.method.of(r.text)) == "CONNECT":
			a.messageEnd(d, t)
			proxied(a.conn, "Tunnel::HTTP", t)
			a.tunnel()
			return
		case r.status < 200 && r.status >= 100, r.status == 204, r.status == 304, string(r.method.of(r.text)) == "HEAD":
			a.messageEnd(d, t)
			return
		}
	}
	h.chunks = h.chunks && h.modern
	switch {
	case h.chunks:
		h.state = httpChunk
	case h.length > 0:
		h.state, h.remain = httpBody, h.length
	case h.length == 0 || d == Orig:
		a.messageEnd(d, t)
	default:
		h.state = httpRest
	}
}

// tunnel hands the connection over to what is inside.
func (a *httpAnalyzer) tunnel() {
	for len(a.pending) > 0 {
		a.write()
	}
	if a.level >= maxTunnels {
		a.stop()
		return
	}
	a.inner = a.set.sniffer(a.conn, 0, a.level+1)
}

// message ends an interim answer, of which the record keeps the status.
func (a *httpAnalyzer) message(d Dir, _ int64) {
	a.side[d].state = httpStart
}

// content takes bytes of a body.
func (a *httpAnalyzer) content(d Dir, b []byte) {
	h := &a.side[d]
	h.body += int64(len(b))
	if n := len(b); n >= len(h.tail) {
		copy(h.tail[:], b[n-len(h.tail):])
	} else {
		copy(h.tail[:], h.tail[n:])
		copy(h.tail[len(h.tail)-n:], b)
	}
	a.count(d)
	if !h.told {
		room := maxSniff
		if h.packed != "" {
			room = maxPacked
		}
		n := min(len(b), room-len(h.head))
		h.head = append(h.head, b[:n]...)
		if len(h.head) == room {
			a.tell(d)
		}
		b = b[n:]
	}
	if h.file.on {
		h.file.write(b)
	}
}

// count sets the length of the body so far.
func (a *httpAnalyzer) count(d Dir) {
	if r := a.of(d); r != nil && d == Orig {
		r.reqLen = a.side[d].body
	} else if r != nil {
		r.respLen = a.side[d].body
	}
}

// tell finds the type of the body from what came of it.
func (a *httpAnalyzer) tell(d Dir) {
	h := &a.side[d]
	r := a.of(d)
	if h.told || len(h.head) == 0 || r == nil {
		return
	}
	h.told = true
	head := h.head
	if h.packed != "" {
		head = a.set.inflate.head(h.packed, head)
	}
	if h.opaque || len(head) == 0 {
		return
	}
	if r.mime[d] = mimeType(head); r.mime[d] == "" && h.ocsp {
		r.mime[d] = ocspTypes[d]
	}
	if h.packed == "" && harmful(r.mime[d]) { // what comes packed is not unpacked to be hashed
		orig, resp := a.conn.Hosts()
		r.files[d] = flow.HashMix(flow.HashMix(flow.HashAddr(orig), flow.HashAddr(resp)), uint64(r.t)+uint64(2*r.depth)+uint64(d))
		h.file.begin(r.mime[d], r.files[d], h.length, a.now)
		h.file.unhashed = h.file.unhashed || h.torn || d == Resp && r.status == 206 // that is a part of a file
		h.file.write(h.head)
	}
}

// bodyEnd ends a body or a chunk.
func (a *httpAnalyzer) bodyEnd(d Dir, t int64) {
	if a.side[d].chunks {
		a.side[d].state = httpChunkEnd
		return
	}
	a.messageEnd(d, t)
}

// messageEnd ends a message; with an answer its request is done.
func (a *httpAnalyzer) messageEnd(d Dir, _ int64) {
	a.tell(d)
	a.unpacked(d)
	a.side[d].file.end(a.set, a.conn, d, "HTTP", true)
	a.side[d].state = httpStart
	if d == Orig {
		a.reqBody = -1
		return
	}
	r := a.of(Resp)
	if r == nil || r.status >= 100 && r.status < 200 {
		return
	}
	a.write()
}

// maxRatio is how much deflate packs at best.
const maxRatio = 1032

// unpacked sets the length of a body that came packed by gzip to that of what
// is in it, which Zeek logs too: the last four bytes say it, RFC 1952.
func (a *httpAnalyzer) unpacked(d Dir) {
	h := &a.side[d]
	r := a.of(d)
	if r == nil || h.packed != "gzip" || h.torn || h.body < 18 {
		return
	}
	n := int64(binary.LittleEndian.Uint32(h.tail[:]))
	if n > h.body*maxRatio {
		return
	}
	if d == Orig {
		r.reqLen = n
	} else {
		r.respLen = n
	}
}

// write writes the oldest request out and drops it.
func (a *httpAnalyzer) write() {
	r := a.pending[0]
	f := a.conn.Record(flow.HTTP, r.t)
	p := f.HTTP
	p.TransDepth = r.depth
	text := func(s span) string { return a.set.text(f, s.of(r.text)) }
	p.Method, p.URI, p.Host, p.Referrer = text(r.method), text(r.uri), text(r.host), text(r.referrer)
	p.UserAgent, p.Version, p.StatusMsg, p.Username = text(r.agent), text(r.version), text(r.message), text(r.user)
	p.HasPassword = r.password
	for _, s := range r.proxied[:r.nproxied] {
		p.Proxied = append(p.Proxied, text(s))
	}
	p.StatusCode, p.RequestLen, p.ResponseLen = r.status, r.reqLen, r.respLen
	if r.mime[Orig] != "" {
		p.OrigMIMETypes = append(p.OrigMIMETypes, r.mime[Orig])
	}
	if r.mime[Resp] != "" {
		p.RespMIMETypes = append(p.RespMIMETypes, r.mime[Resp])
	}
	if r.files[Orig] != 0 {
		p.OrigFUIDs = append(p.OrigFUIDs, fuid(f, r.files[Orig]))
	}
	if r.files[Resp] != 0 {
		p.RespFUIDs = append(p.RespFUIDs, fuid(f, r.files[Resp]))
	}
	a.conn.Emit(f)

	a.kept -= len(r.text)
	copy(a.pending, a.pending[1:])
	a.pending[len(a.pending)-1] = r
	a.pending = a.pending[:len(a.pending)-1]
	if a.reqBody >= 0 {
		a.reqBody--
	}
}

// parseChunk reads the size of a chunk, in hexadecimal, with extensions.
func parseChunk(line []byte) (n int64, ok bool) {
	i := 0
	for ; i < len(line); i++ {
		v := unhex(line[i])
		if v > 15 {
			break
		}
		if n >= 1<<55 {
			return 0, false
		}
		n = n<<4 | int64(v)
	}
	return n, i > 0
}

// token returns the value of a header up to what may follow it.
func token(value []byte) []byte {
	if i := bytes.IndexAny(value, ";, \t"); i >= 0 {
		return value[:i]
	}
	return value
}

// parseLength reads a Content-Length.
func parseLength(b []byte) (n int64, ok bool) {
	if len(b) == 0 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' || n > 1<<55 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// is reports whether b is s, whatever the case of ASCII letters.
func is(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if lower(c) != lower(s[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// containsFold reports whether s, in lower case, occurs in b.
func containsFold(b []byte, s string) bool {
	for i := 0; i+len(s) <= len(b); i++ {
		if is(b[i:i+len(s)], s) {
			return true
		}
	}
	return false
}

func indexByte(b []byte, c byte) int { return bytes.IndexByte(b, c) }
