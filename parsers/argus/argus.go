// Package argus decodes the text that Argus' client ra writes with a
// delimiter ("ra -c ,"), known as binetflow: one bidirectional flow a line,
// cells separated by commas or TABs, most often under a line that names the
// columns.
//
// Times without a zone are read as UTC: ra prints the local time of the
// machine it ran on and does not say which that was.
//
// The columns that ra aligns with blanks when it is given no delimiter are
// recognised and refused: that output has no date, cuts long addresses and
// port names short, and glues ports to addresses.
package argus

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"github.com/slips-go/slips/parsers/flow"
)

// Decoder turns lines into records. It remembers the columns that the last
// header named; until it meets a header it assumes the order that ra is
// usually asked for (StartTime, Dur, Proto, SrcAddr, Sport, Dir, DstAddr,
// Dport, State, sTos, dTos, TotPkts, TotBytes, SrcBytes, SrcPkts, Label), the
// last column being optional. A Decoder serves one goroutine.
type Decoder struct {
	layout *layout // nil: the usual order, separator told by the line
	broken bool    // the last header could not be understood
	cells  [numColumns][]byte
}

// New returns a decoder that has seen no header yet.
func New() *Decoder { return &Decoder{} }

// IsHeader reports whether line names columns, as opposed to holding a
// record. Whoever spreads the lines of a file over several decoders shows
// such a line to each of them, in its place. It is cheap on records.
func (d *Decoder) IsHeader(line []byte) bool {
	line = bytes.TrimSpace(line)
	return mayBeHeader(line) && countNames(line, separatorOf(line)) >= minNames
}

// Decode turns one line, with or without its line end, into dst, which it
// resets first. dst.Kind is flow.Conn, or flow.ARP for who-has exchanges
// between two IP addresses.
//
// Strings in dst alias line or memory of dst. The error is flow.ErrHeader for
// a line that names columns, is empty or starts with "#"; flow.ErrIgnored for
// the management records of Argus itself ("man") and for link-layer traffic
// without IP addresses; a *flow.SyntaxError otherwise. After an error dst is
// not to be trusted. After a header that cannot be used, records are refused
// until the next header: reading them by other columns would be guessing.
//
// What Argus calls source becomes the originator, except where the direction
// points to the left only ("<-", "<?"): then the sides are swapped.
//
// Where a file has TotPkts but no packets of either side, as the CTU-13 files
// do, they are shared out in proportion to the bytes, at least one for a side
// that sent any; the sum stays exact. With no count of either side at all the
// originator gets the whole.
func (d *Decoder) Decode(dst *flow.Flow, line []byte) error {
	dst.Reset(flow.Conn)
	dst.Sensor = flow.Argus
	for n := len(line); n > 0 && (line[n-1] == '\n' || line[n-1] == '\r'); n = len(line) {
		line = line[:n-1]
	}
	if mayBeHeader(line) {
		text := bytes.TrimSpace(line)
		if len(text) == 0 || text[0] == '#' {
			return flow.ErrHeader
		}
		if sep := separatorOf(text); countNames(text, sep) >= minNames {
			return d.adopt(text, sep)
		}
	}
	if d.broken {
		return &flow.SyntaxError{Err: flow.ErrNoHeader}
	}
	if err := d.split(line); err != nil {
		return err
	}
	return d.fill(dst)
}

// adopt takes over the columns of a header.
func (d *Decoder) adopt(header []byte, sep byte) error {
	l, err := newLayout(header, sep)
	d.broken = err != nil
	if err != nil {
		return err
	}
	d.layout = l
	return flow.ErrHeader
}

// split cuts the line into d.cells by the layout in force.
func (d *Decoder) split(line []byte) error {
	l := d.layout
	if l == nil {
		l = &usualTAB
		if bytes.Count(line, []byte{','}) > 5 {
			l = &usualCSV
		}
	}
	d.cells = [numColumns][]byte{}
	rest, more := line, true
	for i, c := range l.left {
		if !more {
			if i < l.least {
				return columnsError(line, i, l)
			}
			return nil
		}
		var cell []byte
		if n := bytes.IndexByte(rest, l.sep); n >= 0 {
			cell, rest = rest[:n], rest[n+1:]
		} else {
			cell, rest, more = rest, nil, false
		}
		d.cells[c] = trim(cell)
	}
	if !l.text {
		if more {
			return columnsError(line, len(l.left)+1+bytes.Count(rest, []byte{l.sep}), l)
		}
		return nil
	}
	// What the user's data holds is anybody's guess, separators included, so
	// the columns behind it are counted from the right.
	behind := bytes.Count(rest, []byte{l.sep}) + 1
	if !more {
		behind = 0
	}
	if behind < l.between+len(l.right) {
		if len(l.left)+behind < l.least {
			return columnsError(line, len(l.left)+behind, l)
		}
		return nil
	}
	for i := len(l.right) - 1; i >= 0; i-- {
		n := bytes.LastIndexByte(rest, l.sep)
		d.cells[l.right[i]] = trim(rest[n+1:])
		rest = rest[:max(n, 0)]
	}
	return nil
}

// fill makes the record out of d.cells.
func (d *Decoder) fill(f *flow.Flow) error {
	c := &d.cells
	if len(c[colProto]) == 0 {
		return reject(colProto, nil, flow.ErrMissing)
	}
	var ok bool
	if f.Time, ok = parseTime(c[colStart]); !ok {
		return timeError(colStart, c[colStart])
	}
	proto := flow.Alias(c[colProto])
	if strings.EqualFold(proto, "man") {
		return flow.ErrIgnored
	}
	f.Proto = flow.ParseProto(proto)
	if f.Proto == flow.ProtoOther && overUDP(proto) {
		f.Proto = flow.UDP
		f.Service = lower(f, c[colProto])
	}

	left, reason := address(c[colSrcAddr])
	if reason != nil {
		return d.notIP(f.Proto, colSrcAddr, reason)
	}
	right, reason := address(c[colDstAddr])
	if reason != nil {
		return d.notIP(f.Proto, colDstAddr, reason)
	}
	if f.Proto == flow.ProtoARP {
		start := f.Time
		f.Reset(flow.ARP)
		f.Sensor, f.Proto, f.Time = flow.Argus, flow.ProtoARP, start
		f.ARP.Operation = "request"
	}
	f.Src, f.Dst = left, right

	if err := d.duration(f); err != nil {
		return err
	}
	swap, ok := direction(c[colDir])
	if !ok {
		return reject(colDir, c[colDir], flow.ErrNotRecord)
	}
	if err := d.ports(f); err != nil {
		return err
	}
	if err := d.counts(f); err != nil {
		return err
	}
	f.SrcMAC, f.DstMAC = mac(c[colSrcMAC]), mac(c[colDstMAC])
	if swap {
		turn(f)
	}
	if err := d.vlan(f); err != nil {
		return err
	}
	f.RawState = flow.Alias(c[colState])
	if f.Kind == flow.Conn {
		f.State = interpret(f.RawState, f.OrigPkts+f.RespPkts)
	}
	if s := c[colService]; len(s) > 0 && string(s) != "-" {
		f.Service = lower(f, s)
	}
	f.Label, f.DetailedLabel = label(flow.Alias(c[colLabel]))
	f.UID = uid(f)
	return nil
}

// notIP says what becomes of a record whose address in column c is not one.
func (d *Decoder) notIP(p flow.Proto, c column, reason error) error {
	if p == flow.ProtoOther || p == flow.ProtoARP || p == flow.ProtoUnknown {
		if linkLayer(d.cells[colSrcAddr]) && linkLayer(d.cells[colDstAddr]) {
			return flow.ErrIgnored
		}
	}
	return reject(c, d.cells[c], reason)
}

// duration sets f.Duration from Dur, or from LastTime where there is no Dur.
func (d *Decoder) duration(f *flow.Flow) error {
	if cell := d.cells[colDur]; len(cell) > 0 {
		ns, ok := parseSeconds(cell)
		if !ok {
			return reject(colDur, cell, flow.ErrNumber)
		}
		f.Duration = ns
		return nil
	}
	if cell := d.cells[colLast]; len(cell) > 0 {
		end, ok := parseTime(cell)
		if !ok {
			return timeError(colLast, cell)
		}
		f.Duration = max(end-f.Time, 0)
	}
	return nil
}

// ports sets the ports, and for ICMP the type and the code: ra packs both
// into Sport, the type in the low byte. Its Dport then is the identifier of
// an echo, or the port that was not reachable, and has no place in a Flow.
func (d *Decoder) ports(f *flow.Flow) error {
	src, dst := d.cells[colSrcPort], d.cells[colDstPort]
	switch f.Proto {
	case flow.TCP, flow.UDP, flow.SCTP:
		if len(src) == 0 || len(dst) == 0 {
			return nil
		}
		var ok bool
		if f.SrcPort, ok = parsePort(src); !ok {
			return portError(colSrcPort, src)
		}
		if f.DstPort, ok = parsePort(dst); !ok {
			return portError(colDstPort, dst)
		}
		f.HasPorts = true
	case flow.ICMP, flow.ICMP6:
		if len(src) == 0 {
			return nil
		}
		p, ok := parsePort(src)
		if !ok {
			return portError(colSrcPort, src)
		}
		f.SrcPort, f.DstPort, f.HasPorts = p&0xff, p>>8, true
	default: // elsewhere ra prints other things there, such as the SPI of ESP
	}
	return nil
}

// counts sets the packets and bytes of both sides.
func (d *Decoder) counts(f *flow.Flow) error {
	var n [numColumns]int64
	for _, c := range [...]column{colPkts, colBytes, colSrcPkts, colDstPkts, colSrcBytes, colDstBytes} {
		cell := d.cells[c]
		if len(cell) == 0 {
			n[c] = -1
			continue
		}
		v, ok := parseCount(cell)
		if !ok {
			return reject(c, cell, flow.ErrNumber)
		}
		n[c] = v
	}
	var ok bool
	if f.OrigBytes, f.RespBytes, ok = halves(n[colBytes], n[colSrcBytes], n[colDstBytes]); !ok {
		return reject(colSrcBytes, d.cells[colSrcBytes], errMoreThanTotal)
	}
	pkts, src := n[colPkts], n[colSrcPkts]
	if pkts > 0 && src < 0 && n[colDstPkts] < 0 {
		src = share(pkts, f.OrigBytes, f.RespBytes)
	}
	if f.OrigPkts, f.RespPkts, ok = halves(pkts, src, n[colDstPkts]); !ok {
		return reject(colSrcPkts, d.cells[colSrcPkts], errMoreThanTotal)
	}
	return nil
}

// vlan sets the VLAN from the identifier, or from the tag that holds it.
func (d *Decoder) vlan(f *flow.Flow) error {
	for _, c := range [...]column{colVID, colVLAN} {
		cell := d.cells[c]
		if len(cell) == 0 {
			continue
		}
		v, ok := parsePort(cell)
		if !ok {
			return reject(c, cell, flow.ErrNumber)
		}
		f.VLAN = v & 0xfff
		return nil
	}
	return nil
}

var errMoreThanTotal = fmt.Errorf("%w: more than the total", flow.ErrNumber)

// halves completes the counts of both sides by the total; -1 is unknown.
func halves(total, src, dst int64) (orig, resp int64, ok bool) {
	switch {
	case src >= 0 && dst >= 0:
		return src, dst, true
	case src >= 0 && total >= 0:
		return src, total - src, src <= total
	case dst >= 0 && total >= 0:
		return total - dst, dst, dst <= total
	}
	return max(src, total, 0), max(dst, 0), true
}

// share estimates how many of pkts packets the originator sent, from the
// bytes of both sides. With no bytes of the responder it is all of them.
func share(pkts, orig, resp int64) int64 {
	switch {
	case resp <= 0 || pkts < 1:
		return pkts
	case orig <= 0:
		return 0
	}
	n := int64(float64(pkts)*(float64(orig)/(float64(orig)+float64(resp))) + 0.5)
	return min(max(n, 1), max(pkts-1, 1))
}

// turn swaps the sides of f. The type and code of ICMP belong to neither.
func turn(f *flow.Flow) {
	f.Src, f.Dst = f.Dst, f.Src
	f.SrcMAC, f.DstMAC = f.DstMAC, f.SrcMAC
	f.OrigBytes, f.RespBytes = f.RespBytes, f.OrigBytes
	f.OrigPkts, f.RespPkts = f.RespPkts, f.OrigPkts
	if !f.Proto.IsICMP() {
		f.SrcPort, f.DstPort = f.DstPort, f.SrcPort
	}
}

// direction reads ra's arrow and says whether the originator stands on the
// right of it.
func direction(cell []byte) (swap, ok bool) {
	switch string(cell) {
	case "->", "<->", "<?>", "?>", "?", "-", "", "who", "tel":
		return false, true
	case "<-", "<?":
		return true, true
	}
	// Older versions draw the middle as "o" or "|" for a time-out or a reset.
	if len(cell) > 3 {
		return false, false
	}
	var l, r bool
	for i, b := range cell {
		switch {
		case b == '<' && i == 0:
			l = true
		case b == '>' && i == len(cell)-1:
			r = true
		case b != '-' && b != '?' && b != 'o' && b != '|' && b != '*' && b != '.':
			return false, false
		}
	}
	return l && !r, true
}

// interpret gives the state of a connection of so many packets in all.
//
// With "ra -Zb" the state is the TCP flags of both sides, "FSPA_FSPA"; a
// connection is established when both sides show SYN and ACK, or both pushed
// data. Otherwise it is a word. RST, FIN and TIM (timed out) say how a
// connection ended, not whether there was one, so the packets decide. CLO is
// closed in good order, hence was established. Hand-edited files carry
// Zeek's words, which mean what they mean in Zeek. "ra -z" prints letters
// behind a small s: E says established.
func interpret(s string, pkts int64) flow.State {
	switch s {
	case "CON", "EST", "CLO", "UNK":
		return flow.Established
	case "INT", "REQ", "ACC":
		return flow.NotEstablished
	case "S0", "REJ", "RSTOS0", "RSTRH", "SH", "SHR":
		return flow.NotEstablished
	case "S1", "SF", "S2", "S3", "RSTO", "RSTR", "RSTP", "OTH":
		return flow.Established
	}
	a, b, two := strings.Cut(s, "_")
	switch {
	case strings.Contains(a, "ECO"):
		return flow.ICMPEcho
	case strings.Contains(a, "ECR"):
		return flow.ICMPReply
	case strings.Contains(a, "URH"):
		return flow.ICMPHostUnreachable
	case strings.Contains(a, "URP"):
		return flow.ICMPPortUnreachable
	}
	established := false
	switch {
	case two:
		established = strings.Contains(a, "S") && strings.Contains(a, "A") &&
			strings.Contains(b, "S") && strings.Contains(b, "A") ||
			strings.Contains(a, "PA") && strings.Contains(b, "PA")
	case strings.HasPrefix(s, "s"):
		established = strings.Contains(s, "E")
	case strings.Contains(s, "UNK"), strings.Contains(s, "CON"), strings.Contains(s, "EST"):
		established = true
	case strings.Contains(s, "INT"):
	case strings.Contains(s, "RST"), strings.Contains(s, "FIN"), s == "TIM":
		established = pkts > 3
	}
	if established {
		return flow.Established
	}
	return flow.NotEstablished
}

// label splits ground truth like "flow=Background-UDP" or
// "flow=Malware;tool=x" into what the flow is and the rest.
func label(s string) (name, rest string) {
	before, after, ok := strings.Cut(s, "flow=")
	if !ok {
		return s, ""
	}
	if n := strings.IndexAny(after, ";:,"); n >= 0 {
		return after[:n], after[n+1:]
	}
	return after, strings.TrimRight(before, ";:,")
}

// overUDP reports whether Argus names a protocol that it recognised inside
// of UDP where the transport should be.
func overUDP(proto string) bool {
	return strings.EqualFold(proto, "rtp") || strings.EqualFold(proto, "rtcp") || strings.EqualFold(proto, "udt")
}

// address reads an IP address; a zone is not part of one here.
func address(cell []byte) (netip.Addr, error) {
	if len(cell) == 0 {
		return netip.Addr{}, flow.ErrMissing
	}
	if bytes.IndexByte(cell, '%') >= 0 || linkLayer(cell) {
		return netip.Addr{}, flow.ErrAddress
	}
	a, err := netip.ParseAddr(flow.Alias(cell))
	if err != nil {
		return netip.Addr{}, flow.ErrAddress
	}
	return a, nil
}

// mac returns a MAC address; without -n ra has a name for the one of all.
func mac(cell []byte) string {
	if string(cell) == "Broadcast" {
		return "ff:ff:ff:ff:ff:ff"
	}
	return flow.Alias(cell)
}

// linkLayer reports whether cell is what ra prints as the address of a record
// without IP: nothing, "0", a MAC address, or the name of a group of those.
func linkLayer(cell []byte) bool {
	switch string(cell) {
	case "", "0", "Broadcast":
		return true
	}
	if len(cell) != 17 {
		return false
	}
	for i, b := range cell {
		if i%3 == 2 {
			if b != ':' {
				return false
			}
		} else if _, ok := hexDigit(b); !ok {
			return false
		}
	}
	return true
}
