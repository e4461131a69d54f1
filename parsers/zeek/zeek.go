// Package zeek decodes the lines of Zeek's logs, in Zeek's own columns and in
// JSON, into flow records. It reads no files and starts nothing.
package zeek

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/valyala/fastjson"

	"github.com/slips-go/slips/parsers/flow"
)

// maxLine bounds the lines that are decoded, in bytes. The longest that Zeek
// was seen to write are certificates of some 100 KB; a line that is much
// longer is not one record, and would make every buffer behind it grow.
const maxLine = 1 << 20

// Decoder turns lines of one log, or of one stream that mixes logs, into
// records. It remembers the log's header, so every log needs one of its own.
// A Decoder serves one goroutine.
type Decoder struct {
	hint     *log // from the name of the file, nil when that says nothing
	hintOpen bool
	head     header

	last  *log      // the log of the latest JSON record, the first guess for the next
	next  [][]uint8 // by log.id and position of a field: position of the one that came behind it last
	json  fastjson.Parser
	key   []byte   // name of a nested field
	buf   []byte   // unescaped text on its way to Hold, numbers of the fallback
	parts []string // columns of an odd line

	// What set collects for finish while a record is decoded.
	seen     marks
	timeElse string // @timestamp
	from, to netip.Addr
	items    int  // elements of the list at hand
	full     bool // the list at hand has a better source already
}

// New returns a decoder for a log of the given name, as LogName gives it: a
// hint for lines that do not say which log they come from. "" means that
// nothing is known; names that are no log of Zeek mean the same.
func New(name string) *Decoder {
	d := &Decoder{next: make([][]uint8, len(logs)+1)}
	d.hint, d.hintOpen = find(name)
	d.head.reset()
	return d
}

// Decode decodes one line, without its newline, into dst, which it resets
// first. The strings in dst alias line or memory of dst: they live until line
// changes or dst is decoded into again.
//
// It returns flow.ErrHeader for lines that begin with '#' and for blank
// lines, flow.ErrIgnored for records of logs that no detector uses, and a
// *flow.SyntaxError otherwise; dst is not to be trusted then. After an error
// the Decoder is as ready for the next line as before.
func (d *Decoder) Decode(dst *flow.Flow, line []byte) error {
	if len(line) > maxLine {
		return &flow.SyntaxError{Value: clip(flow.Alias(line)), Err: flow.ErrTooLong}
	}
	s := strings.TrimSuffix(flow.Alias(line), "\r")
	switch {
	case s != "" && s[0] == '{':
		return d.object(dst, s)
	case s != "" && s[0]-'0' <= 9: // columns mostly begin with the time
		return d.row(dst, s)
	}
	switch t := indented(s); {
	case t == "":
		return flow.ErrHeader
	case t[0] == '#':
		return d.header(t)
	case t[0] == '{':
		return d.object(dst, t)
	}
	return d.row(dst, s)
}

// IsHeader reports whether line is one of the '#' lines that tell how the
// lines behind it are to be read. A reader that goes on in the middle of a
// log decodes those again first; of each directive the latest is enough.
func (d *Decoder) IsHeader(line []byte) bool {
	t := indented(flow.Alias(line))
	if t == "" || t[0] != '#' {
		return false
	}
	switch name, _ := directive(t); name {
	case "#separator", "#set_separator", "#empty_field", "#unset_field", "#path", "#fields":
		return true
	}
	return false
}

// indented returns s without what may stand before a header or an object: a
// byte order mark, blanks.
func indented(s string) string { return strings.TrimLeft(strings.TrimPrefix(s, "\ufeff"), " \t") }

// start makes f and d ready for a record of log l.
func (d *Decoder) start(f *flow.Flow, l *log) {
	f.Reset(l.kind)
	d.seen, d.timeElse = 0, ""
	if l.kind == flow.Files {
		d.from, d.to = netip.Addr{}, netip.Addr{}
	}
}

// fault is what goes wrong with one field. It is wrapped on the way out, where
// the cost does not matter.
func fault(field, value string, reason error) error {
	return &flow.SyntaxError{Field: field, Value: clip(value), Err: reason}
}

func clip(s string) string { return strings.Clone(s[:min(len(s), 64)]) }

// finish fills what follows from several fields and checks that the record
// has what its kind cannot do without.
func (d *Decoder) finish(f *flow.Flow, l *log, open bool) error {
	f.Open = open
	if d.seen&hasTime == 0 {
		if d.timeElse == "" {
			return fault("ts", "", flow.ErrMissing)
		}
		t, ok := parseTime(d.timeElse)
		if !ok {
			return fault("@timestamp", d.timeElse, flow.ErrTime)
		}
		f.Time = t
	}
	f.HasPorts = d.seen&(hasSrcPort|hasDstPort) == hasSrcPort|hasDstPort

	switch l.kind {
	case flow.X509, flow.Weird:
		return nil // these need no addresses
	case flow.Files:
		d.finishFiles(f)
		return nil
	case flow.DHCP:
		return finishDHCP(f)
	case flow.Notice:
		finishNotice(f)
		return nil
	case flow.Known:
		f.Known.Log = l.name
		if !f.Src.IsValid() && f.Known.MAC == "" {
			return fault("host", "", flow.ErrMissing)
		}
		return nil
	case flow.Lookup:
		switch {
		case f.Lookup.Service == "":
			return fault("service", "", flow.ErrMissing)
		case f.Lookup.Subject == "":
			return fault("subject", "", flow.ErrMissing)
		}
		return nil // the host that gave rise to the question may have no address
	case flow.Software:
		if !f.Src.IsValid() {
			return fault("host", "", flow.ErrMissing)
		}
		return nil
	case flow.Conn:
		if f.RawState == "" {
			f.State = interpret("")
		}
	case flow.ARP:
		f.Proto = flow.ProtoARP
	case flow.DNS:
		f.DNS.Response = f.DNS.RCode != ""
	case flow.SMB:
		f.SMB.Log = l.name
	default: // nothing more to set
	}
	if !f.Src.IsValid() {
		return fault("id.orig_h", "", flow.ErrMissing)
	}
	if !f.Dst.IsValid() {
		return fault("id.resp_h", "", flow.ErrMissing)
	}
	return nil
}

// finishFiles makes Src the sender and Dst the receiver. Logs up to Zeek 5
// list them (tx_hosts, rx_hosts); later ones have the connection and say
// which side sent.
func (d *Decoder) finishFiles(f *flow.Flow) {
	p := f.Files
	switch orig, resp := f.Src, f.Dst; {
	case d.from.IsValid() || d.to.IsValid():
		f.Src, f.Dst = d.from, d.to
		switch {
		case f.Src == resp && f.Dst == orig:
			f.SrcPort, f.DstPort = f.DstPort, f.SrcPort
		case f.Src != orig || f.Dst != resp:
			f.SrcPort, f.DstPort, f.HasPorts = 0, 0, false
		}
	case p.IsOrig == flow.False:
		f.Src, f.Dst = resp, orig
		f.SrcPort, f.DstPort = f.DstPort, f.SrcPort
	}
	switch {
	case len(p.ConnUIDs) == 0 && f.UID != "":
		p.ConnUIDs = append(p.ConnUIDs, f.UID)
	case f.UID == "" && len(p.ConnUIDs) > 0:
		f.UID = p.ConnUIDs[0]
	case f.UID == "":
		f.UID = p.FUID
	}
}

// finishDHCP puts the client and the server into Src and Dst. Logs before
// Zeek 2.6 have the connection instead, with 0.0.0.0 for a client that has no
// address yet and the broadcast address for a server it does not know.
func finishDHCP(f *flow.Flow) error {
	p := f.DHCP
	if !p.Client.IsValid() && f.Src.IsValid() && !f.Src.IsUnspecified() {
		p.Client = f.Src
	}
	if !p.Server.IsValid() && f.Dst.IsValid() && f.Dst != broadcast {
		p.Server = f.Dst
	}
	for _, a := range [3]netip.Addr{p.Client, p.Requested, p.Assigned} {
		if a.IsValid() && !a.IsUnspecified() {
			f.Src = a
			break
		}
	}
	if p.Server.IsValid() {
		f.Dst = p.Server
	}
	if f.SrcMAC == "" {
		f.SrcMAC = p.MAC
	}
	if f.UID == "" && len(p.UIDs) > 0 {
		f.UID = p.UIDs[0]
	}
	if !f.Src.IsValid() && !f.Dst.IsValid() && p.MAC == "" {
		return fault("client_addr", "", flow.ErrMissing)
	}
	return nil
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func finishNotice(f *flow.Flow) {
	p := f.Notice
	if !f.Src.IsValid() {
		f.Src = p.Src
	}
	if !f.Dst.IsValid() {
		f.Dst = p.Dst
	}
	if f.DstPort == 0 {
		f.DstPort = p.Port
	}
}

// errSlow is what the quick ways return for lines that they leave to the
// careful ones, errOther for a line of another log than expected. No caller of
// the package sees them.
var (
	errSlow  = errors.New("BUG: zeek: line for the careful path")
	errOther = errors.New("BUG: zeek: line of another log")
)
