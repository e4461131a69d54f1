// Package nfdump decodes the text that nfdump prints: its CSV in the layouts
// of versions 1.6, 1.7 and csv-fast, and its formats line, long, extended,
// biline and bilong, with or without -N, with blanks or TABs between.
//
// Times without a zone are read as UTC: nfdump prints the local time of the
// machine it ran on and does not say which that was.
//
// # Which side began
//
// NetFlow records one direction of a connection, and "nfdump -b" puts two
// together in the order in which they were exported. So the printed source is
// not always who began. The decoder turns a record round where that is plain:
// a SYN without ACK shows the one who began; a lone SYN with ACK, and a RST
// with ACK but without SYN from the lower port, are answers; and, as
// "nfdump -B" does it, what comes from a port below 1024 and goes to one that
// is not is taken for an answer as well. Without this, every refused port of
// a scan would look as if the victim scanned the scanner.
//
// The packets and bytes of a half that was turned are the responder's, and
// the originator's are 0.
//
// # State
//
// A TCP record is established when ACK is set and with it PSH or FIN, or SYN
// in more than one packet (the third step of the handshake), or more than
// three packets without RST. Where the flags are not printed, and for other
// protocols, it takes more than three packets; except for TCP, whose refusals
// have both, packets of both sides do too. A UDP answer always is established.
// ICMP gets its state from its type.
//
// nfcapd's binary files are not decoded; see IsBinary.
package nfdump

import (
	"bytes"

	"github.com/slips-go/slips/parsers/flow"
)

// Decoder turns lines into records. It remembers the columns of the last CSV
// header; until it meets one it assumes the order of "nfdump -q -o csv" of
// versions 1.6 to 1.7.2. A Decoder serves one goroutine.
type Decoder struct {
	columns []column // nil: the order of 1.6
	broken  bool     // the last CSV header could not be used
	cells   [numColumns][]byte
}

// New returns a decoder that has seen no header yet.
func New() *Decoder { return &Decoder{} }

// IsHeader reports whether line names columns, as opposed to holding a
// record. Whoever spreads the lines of a file over several decoders shows
// such a line to each of them, in its place. It is cheap on records.
func (d *Decoder) IsHeader(line []byte) bool {
	line = trim(line)
	return mayBeProse(line) && (countNames(line) >= minNames || textHeader(line))
}

// Decode turns one line, with or without its line end, into dst, which it
// resets first; dst.Kind is flow.Conn. Counts printed as "1.2 M" are as exact
// as that.
//
// Strings in dst alias line or memory of dst. The error is flow.ErrHeader for
// lines that name columns, sum up, or are empty; flow.ErrIgnored for
// aggregates that have lost their destination and protocol; a
// *flow.SyntaxError otherwise. After an error dst is not to be trusted. After
// a CSV header that cannot be used, such as that of a statistic, CSV records
// are refused until the next header.
func (d *Decoder) Decode(dst *flow.Flow, line []byte) error {
	dst.Reset(flow.Conn)
	dst.Sensor = flow.Nfdump
	line = trim(line)
	if mayBeProse(line) {
		switch {
		case len(line) == 0, line[0] == '#', prose(line), textHeader(line):
			return flow.ErrHeader
		case countNames(line) >= minNames:
			return d.adopt(line)
		}
	}
	d.cells = [numColumns][]byte{}
	if bytes.IndexByte(line, ',') >= 0 {
		switch {
		case sums(line):
			return flow.ErrHeader
		case d.broken:
			return &flow.SyntaxError{Err: flow.ErrNoHeader}
		}
		if err := d.split(line); err != nil {
			return err
		}
	} else if err := d.scan(line); err != nil {
		return err
	}
	return d.fill(dst)
}

// fill makes the record out of d.cells.
func (d *Decoder) fill(f *flow.Flow) error {
	c := &d.cells
	f.Proto = flow.ParseProto(flow.Alias(c[colProto]))
	if len(c[colProto]) == 0 {
		return reject(colProto, nil, flow.ErrMissing)
	}
	var (
		ok  bool
		err error
	)
	if f.Time, ok = parseTime(c[colStart]); !ok {
		return timeError(colStart, c[colStart])
	}
	if f.Src, err = address(c[colSrcAddr]); err != nil {
		return reject(colSrcAddr, c[colSrcAddr], err)
	}
	if f.Dst, err = address(c[colDstAddr]); err != nil {
		return reject(colDstAddr, c[colDstAddr], err)
	}
	if string(c[colProto]) == "0" && (f.Src.IsUnspecified() || f.Dst.IsUnspecified()) {
		return flow.ErrIgnored // "nfdump -A srcip" and the like
	}
	if err := d.duration(f); err != nil {
		return err
	}
	if err := d.ports(f); err != nil {
		return err
	}
	for _, n := range [...]struct {
		column column
		to     *int64
	}{{colInPkts, &f.OrigPkts}, {colInBytes, &f.OrigBytes}, {colOutPkts, &f.RespPkts}, {colOutBytes, &f.RespBytes}} {
		if cell := c[n.column]; len(cell) > 0 {
			if *n.to, ok = parseCount(cell); !ok {
				return reject(n.column, cell, flow.ErrNumber)
			}
		}
	}
	f.OrigIPBytes, f.RespIPBytes = f.OrigBytes, f.RespBytes
	for _, n := range [...]column{colDstVLAN, colSrcVLAN} {
		if cell := c[n]; len(cell) > 0 && string(cell) != "0" {
			if f.VLAN, ok = parsePort(cell); !ok {
				return reject(n, cell, flow.ErrNumber)
			}
		}
	}
	f.SrcMAC, f.DstMAC = mac(c[colSrcMAC]), mac(c[colDstMAC])
	if s := flow.Alias(c[colLabel]); s != "<none>" {
		f.Label = s
	}
	f.RawState = flow.Alias(c[colFlags])
	interpret(f, parseFlags(f.RawState))
	f.UID = uid(f)
	return nil
}

// duration sets f.Duration from the duration, or from the end where there is
// none.
func (d *Decoder) duration(f *flow.Flow) error {
	if cell := d.cells[colDuration]; len(cell) > 0 {
		ns, ok := parseDuration(cell)
		if !ok {
			return reject(colDuration, cell, flow.ErrNumber)
		}
		f.Duration = ns
		return nil
	}
	if cell := d.cells[colEnd]; len(cell) > 0 {
		end, ok := parseTime(cell)
		if !ok {
			return timeError(colEnd, cell)
		}
		f.Duration = max(end-f.Time, 0)
	}
	return nil
}

// ports sets the ports. For ICMP, nfdump has the type and the code in the
// place of the destination port, as "8.0" or as one number, 256 times the
// type and the code.
func (d *Decoder) ports(f *flow.Flow) error {
	src, dst := d.cells[colSrcPort], d.cells[colDstPort]
	if len(src) == 0 || len(dst) == 0 {
		return nil
	}
	var ok bool
	if f.Proto.IsICMP() {
		typ, code, dotted := bytes.Cut(dst, []byte{'.'})
		if !dotted {
			p, ok := parsePort(dst)
			if !ok {
				return reject(colDstPort, dst, flow.ErrPort)
			}
			f.SrcPort, f.DstPort, f.HasPorts = p>>8, p&0xff, true
			return nil
		}
		if f.SrcPort, ok = parsePort(typ); !ok || f.SrcPort > 0xff {
			return reject(colDstPort, dst, flow.ErrPort)
		}
		if f.DstPort, ok = parsePort(code); !ok || f.DstPort > 0xff {
			return reject(colDstPort, dst, flow.ErrPort)
		}
		f.HasPorts = true
		return nil
	}
	if f.SrcPort, ok = parsePort(src); !ok {
		return reject(colSrcPort, src, flow.ErrPort)
	}
	if f.DstPort, ok = parsePort(dst); !ok {
		return reject(colDstPort, dst, flow.ErrPort)
	}
	switch f.Proto {
	case flow.TCP, flow.UDP, flow.SCTP:
		f.HasPorts = true
	default: // nfdump prints 0 where a protocol has none
		f.HasPorts = f.SrcPort != 0 || f.DstPort != 0
	}
	return nil
}

// The flags that decide; nfdump prints each in its place or a dot.
const (
	flagFIN uint8 = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
)

// parseFlags reads what nfdump prints as flags: letters among dots, or a
// number behind 0x in old versions. Anything else has none.
func parseFlags(s string) uint8 {
	var n uint8
	if len(s) > 2 && s[:2] == "0x" {
		for i := range len(s) - 2 {
			v, ok := hexDigit(s[i+2])
			if !ok {
				return 0
			}
			n = n<<4 | v
		}
		return n & (flagFIN | flagSYN | flagRST | flagPSH | flagACK)
	}
	for i := range len(s) {
		switch s[i] {
		case 'F':
			n |= flagFIN
		case 'S':
			n |= flagSYN
		case 'R':
			n |= flagRST
		case 'P':
			n |= flagPSH
		case 'A':
			n |= flagACK
		}
	}
	return n
}

// interpret turns a record of an answer round and sets the state.
func interpret(f *flow.Flow, flags uint8) {
	switch {
	case f.Proto.IsICMP():
		f.State = icmpState(f.Proto, f.SrcPort, f.DstPort)
		return
	case f.Proto == flow.TCP && flags != 0:
		f.State = tcpState(flags, f.OrigPkts)
	default:
		f.State = flow.NotEstablished
		both := f.OrigPkts > 0 && f.RespPkts > 0
		if both && f.Proto != flow.TCP || f.OrigPkts+f.RespPkts > 3 {
			f.State = flow.Established
		}
	}
	if !answers(f, flags) {
		return
	}
	if f.Proto == flow.UDP {
		f.State = flow.Established
	}
	f.Src, f.Dst = f.Dst, f.Src
	f.SrcPort, f.DstPort = f.DstPort, f.SrcPort
	f.SrcMAC, f.DstMAC = f.DstMAC, f.SrcMAC
	f.OrigPkts, f.RespPkts = f.RespPkts, f.OrigPkts
	f.OrigBytes, f.RespBytes = f.RespBytes, f.OrigBytes
	f.OrigIPBytes, f.RespIPBytes = f.RespIPBytes, f.OrigIPBytes
}

// answers reports whether the printed source of f did not begin.
func answers(f *flow.Flow, flags uint8) bool {
	if !f.HasPorts {
		return false
	}
	fromService := f.SrcPort != 0 && f.SrcPort < 1024 && f.DstPort >= 1024
	if f.Proto != flow.TCP {
		return fromService
	}
	switch flags & (flagSYN | flagACK | flagRST | flagPSH | flagFIN) {
	case flagSYN | flagACK:
		if f.OrigPkts == 1 {
			return true
		}
	case flagACK | flagRST:
		if f.RespPkts == 0 && f.SrcPort < f.DstPort {
			return true
		}
	}
	return fromService && (flags&flagSYN == 0 || flags&flagACK != 0)
}

// tcpState gives the state by the flags of the printed source, which sent so
// many packets.
func tcpState(flags uint8, pkts int64) flow.State {
	switch {
	case flags&flagACK == 0:
	case flags&(flagPSH|flagFIN) != 0,
		flags&flagSYN != 0 && pkts > 1,
		flags&flagRST == 0 && pkts > 3:
		return flow.Established
	}
	return flow.NotEstablished
}

// icmpState gives the state by type and code.
func icmpState(p flow.Proto, typ, code uint16) flow.State {
	v6 := p == flow.ICMP6
	switch {
	case !v6 && typ == 8, v6 && typ == 128:
		return flow.ICMPEcho
	case !v6 && typ == 0, v6 && typ == 129:
		return flow.ICMPReply
	case !v6 && typ == 3 && code == 1, v6 && typ == 1 && code == 3:
		return flow.ICMPHostUnreachable
	case !v6 && typ == 3 && code == 3, v6 && typ == 1 && code == 4:
		return flow.ICMPPortUnreachable
	}
	return flow.NotEstablished
}
