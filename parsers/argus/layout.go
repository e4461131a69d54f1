package argus

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/slips-go/slips/parsers/flow"
)

// column is a column that the decoder reads. Several names may lead to one.
type column uint8

const (
	colOther column = iota // known or not, it is not read
	colStart
	colLast
	colDur
	colProto
	colSrcAddr
	colSrcPort
	colDir
	colDstAddr
	colDstPort
	colState
	colPkts
	colBytes
	colSrcPkts
	colDstPkts
	colSrcBytes
	colDstBytes
	colVID
	colVLAN
	colSrcMAC
	colDstMAC
	colService
	colLabel
	numColumns

	colUserData = numColumns // never read; may hold separators
)

// columnNames are ra's names, for messages.
var columnNames = [numColumns]string{
	"", "StartTime", "LastTime", "Dur", "Proto", "SrcAddr", "Sport", "Dir", "DstAddr", "Dport", "State", "TotPkts",
	"TotBytes", "SrcPkts", "DstPkts", "SrcBytes", "DstBytes", "sVid", "sVlan", "SrcMac", "DstMac", "Service", "Label",
}

// columnOf gives the column of a name: what ra prints in its header, or the
// name by which ra is asked for it. Case does not matter.
func columnOf(name []byte) column {
	if len(name) == 0 || len(name) > 16 {
		return colOther
	}
	switch strings.ToLower(string(name)) {
	case "starttime", "stime":
		return colStart
	case "lasttime", "ltime", "endtime":
		return colLast
	case "dur", "duration":
		return colDur
	case "proto":
		return colProto
	case "srcaddr", "saddr":
		return colSrcAddr
	case "sport", "srcport":
		return colSrcPort
	case "dir":
		return colDir
	case "dstaddr", "daddr":
		return colDstAddr
	case "dport", "dstport":
		return colDstPort
	case "state":
		return colState
	case "totpkts", "pkts":
		return colPkts
	case "totbytes", "bytes":
		return colBytes
	case "srcpkts", "spkts":
		return colSrcPkts
	case "dstpkts", "dpkts":
		return colDstPkts
	case "srcbytes", "sbytes":
		return colSrcBytes
	case "dstbytes", "dbytes":
		return colDstBytes
	case "svid":
		return colVID
	case "svlan":
		return colVLAN
	case "srcmac", "smac":
		return colSrcMAC
	case "dstmac", "dmac":
		return colDstMAC
	case "service", "appproto":
		return colService
	case "label":
		return colLabel
	case "srcudata", "dstudata", "suser", "duser", "sudata", "dudata":
		return colUserData
	}
	return colOther
}

const (
	minNames   = 3   // so many column names make a line a header
	maxColumns = 256 // ra knows about 200; more is not its output
)

// layout says where the columns of a line are.
type layout struct {
	sep     byte
	left    []column // from the left, up to the user's data if there is some
	between int      // columns from the first of the user's data to the last
	right   []column // behind the user's data
	text    bool     // there is user's data
	least   int      // so many cells a line must have
}

// usualOrder is the order of a file without a header.
var usualOrder = [...]column{
	colStart, colDur, colProto, colSrcAddr, colSrcPort, colDir, colDstAddr, colDstPort, colState, colOther, colOther,
	colPkts, colBytes, colSrcBytes, colSrcPkts, colLabel,
}

var (
	usualCSV = layout{sep: ',', left: usualOrder[:], least: len(usualOrder) - 1}
	usualTAB = layout{sep: '\t', left: usualOrder[:], least: len(usualOrder) - 1}
)

// newLayout reads a header.
func newLayout(header []byte, sep byte) (*layout, error) {
	if sep == ' ' {
		return nil, &flow.SyntaxError{Value: clip(header), Err: errAligned}
	}
	if bytes.Count(header, []byte{sep}) >= maxColumns {
		return nil, &flow.SyntaxError{Value: clip(header), Err: errManyColumns}
	}
	var (
		all         []column
		seen        [numColumns]bool
		first, last = -1, -1
	)
	for name := range bytes.SplitSeq(header, []byte{sep}) {
		c := columnOf(trim(name))
		switch {
		case c == colUserData:
			if first < 0 {
				first = len(all)
			}
			last, c = len(all), colOther
		case c != colOther && seen[c]:
			return nil, &flow.SyntaxError{Field: columnNames[c], Value: clip(header), Err: errTwice}
		default:
			seen[c] = true
		}
		all = append(all, c)
	}
	for _, c := range [...]column{colStart, colProto, colSrcAddr, colDstAddr} {
		if !seen[c] {
			return nil, &flow.SyntaxError{Field: columnNames[c], Value: clip(header), Err: errNoColumn}
		}
	}
	l := &layout{sep: sep, left: all, least: len(all)}
	if sep == '\t' {
		// ra cuts blank cells off the end of a line, TABs included.
		for l.least > 0 && mayBeCut(all[l.least-1]) {
			l.least--
		}
	}
	if first >= 0 {
		l.left, l.right, l.between, l.text = all[:first], all[last+1:], last+1-first, true
	}
	return l, nil
}

// mayBeCut reports whether cells of c are empty often enough that a line
// without them is no sign of damage.
func mayBeCut(c column) bool { return c == colOther || c >= colVID }

var (
	errAligned = fmt.Errorf("%w: ra's aligned output has no date and cuts values short; write it with "+
		"ra -n -u -c , -s stime dur proto saddr sport dir daddr dport state stos dtos pkts bytes sbytes spkts", flow.ErrBadHeader)
	errManyColumns = fmt.Errorf("%w: more than %d columns", flow.ErrBadHeader, maxColumns)
	errTwice       = fmt.Errorf("%w: column named twice", flow.ErrBadHeader)
	errNoColumn    = fmt.Errorf("%w: no such column", flow.ErrBadHeader)
)

// mayBeHeader reports whether line, by its first character, may be something
// else than a record that starts with its time, which nearly all do.
func mayBeHeader(line []byte) bool {
	return len(line) == 0 || line[0] < '0' || line[0] > '9'
}

// separatorOf gives the separator of a header: the one that occurs in it,
// TAB and comma before rarer choices, blanks last.
func separatorOf(header []byte) byte {
	for _, sep := range [...]byte{'\t', ',', ';', '|'} {
		if bytes.IndexByte(header, sep) >= 0 {
			return sep
		}
	}
	return ' '
}

// countNames counts the cells of line that name columns, up to minNames.
func countNames(line []byte, sep byte) int {
	n := 0
	for len(line) > 0 && n < minNames {
		name, rest, _ := bytes.Cut(line, []byte{sep})
		if columnOf(trim(name)) != colOther {
			n++
		}
		line = rest
	}
	return n
}

// Sniff reports whether head, the start of a file and perhaps cut in
// mid-line, looks like text that Decode reads: a header, or a record in the
// usual order, within the first lines that are not empty or comments.
func Sniff(head []byte) bool {
	const tries = 3
	var (
		d Decoder
		f flow.Flow
	)
	for range tries {
		var line []byte
		for len(line) == 0 || line[0] == '#' {
			if len(head) == 0 {
				return false
			}
			line, head, _ = bytes.Cut(head, []byte{'\n'})
			line = trim(line)
		}
		if d.IsHeader(line) {
			return true
		}
		// An arrow between commas or TABs is what no other sensor writes.
		if err := d.Decode(&f, line); err == nil && bytes.ContainsAny(d.cells[colDir], "<->?") || errors.Is(err, flow.ErrIgnored) {
			return true
		}
	}
	return false
}

// columnsError reports a line of n cells.
func columnsError(line []byte, n int, l *layout) error {
	want := len(l.left) + l.between + len(l.right)
	return &flow.SyntaxError{Value: clip(line), Err: fmt.Errorf("%w: %d instead of %d", flow.ErrColumns, n, want)}
}

// reject reports a cell that cannot be read.
func reject(c column, cell []byte, why error) error {
	return &flow.SyntaxError{Field: columnNames[c], Value: clip(cell), Err: why}
}

// timeError reports a cell that is not a time.
func timeError(c column, cell []byte) error {
	if len(cell) == 0 {
		return reject(c, cell, flow.ErrMissing)
	}
	return reject(c, cell, flow.ErrTime)
}

// portError reports a cell that is not a port.
func portError(c column, cell []byte) error {
	if len(cell) > 0 && (cell[0] < '0' || cell[0] > '9') {
		return reject(c, cell, errPortName)
	}
	return reject(c, cell, flow.ErrPort)
}

var errPortName = fmt.Errorf("%w: a name not known here; ra -n prints numbers", flow.ErrPort)

// clip copies what a message shows of foreign text.
func clip(b []byte) string { return string(b[:min(len(b), 64)]) }
