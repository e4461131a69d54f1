package nfdump

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
	colOther column = iota // not read
	colStart
	colEnd
	colDuration
	colSrcAddr
	colDstAddr
	colSrcPort
	colDstPort
	colProto
	colFlags
	colInPkts
	colInBytes
	colOutPkts
	colOutBytes
	colSrcVLAN
	colDstVLAN
	colSrcMAC
	colDstMAC
	colLabel
	numColumns
)

// columnNames are the names of version 1.6, for messages.
var columnNames = [numColumns]string{
	"", "ts", "te", "td", "sa", "da", "sp", "dp", "pr", "flg", "ipkt", "ibyt", "opkt", "obyt", "svln", "dvln", "ismc",
	"idmc", "lbl",
}

// columnOf gives the column of a name in a CSV header.
func columnOf(name []byte) column {
	if len(name) < 2 || len(name) > 12 {
		return colOther
	}
	switch strings.ToLower(string(name)) {
	case "ts", "firstseen":
		return colStart
	case "te", "lastseen":
		return colEnd
	case "td", "duration":
		return colDuration
	case "sa", "srcaddr":
		return colSrcAddr
	case "da", "dstaddr":
		return colDstAddr
	case "sp", "srcport":
		return colSrcPort
	case "dp", "dstport":
		return colDstPort
	case "pr", "proto":
		return colProto
	case "flg", "flags":
		return colFlags
	case "ipkt", "pkt", "packets", "inpackets":
		return colInPkts
	case "ibyt", "byt", "bytes", "inbytes":
		return colInBytes
	case "opkt", "outpackets":
		return colOutPkts
	case "obyt", "outbytes":
		return colOutBytes
	case "svln", "srcvlan":
		return colSrcVLAN
	case "dvln", "dstvlan":
		return colDstVLAN
	case "ismc", "insrcmac":
		return colSrcMAC
	case "idmc", "indstmac":
		return colDstMAC
	case "lbl", "label":
		return colLabel
	}
	return colOther
}

const (
	minNames   = 3   // so many column names make a line a CSV header
	maxColumns = 256 // nfdump knows about 120; more is not its output
	minUsual   = 15  // columns of a line without a header, up to obyt
)

// usualOrder begins the lines of "nfdump -q -o csv", which have no header.
var usualOrder = [...]column{
	colStart, colEnd, colDuration, colSrcAddr, colDstAddr, colSrcPort, colDstPort, colProto, colFlags, colOther, colOther,
	colInPkts, colInBytes, colOutPkts, colOutBytes, colOther, colOther, colOther, colOther, colOther, colOther, colOther,
	colOther, colOther, colOther, colSrcVLAN, colDstVLAN, colSrcMAC, colOther, colDstMAC,
}

// adopt takes over the columns of a CSV header.
func (d *Decoder) adopt(header []byte) error {
	d.broken = true
	if bytes.Count(header, []byte{','}) >= maxColumns {
		return &flow.SyntaxError{Value: clip(header), Err: errManyColumns}
	}
	var (
		all  []column
		seen [numColumns]bool
	)
	for name := range bytes.SplitSeq(header, []byte{','}) {
		c := columnOf(trim(name))
		if c != colOther && seen[c] {
			return &flow.SyntaxError{Field: columnNames[c], Value: clip(header), Err: errTwice}
		}
		seen[c] = true
		all = append(all, c)
	}
	for _, c := range [...]column{colStart, colProto, colSrcAddr, colDstAddr} {
		if !seen[c] {
			return &flow.SyntaxError{Field: columnNames[c], Value: clip(header), Err: errNoColumn}
		}
	}
	d.columns, d.broken = all, false
	return flow.ErrHeader
}

var (
	errManyColumns = fmt.Errorf("%w: more than %d columns", flow.ErrBadHeader, maxColumns)
	errTwice       = fmt.Errorf("%w: column named twice", flow.ErrBadHeader)
	errNoColumn    = fmt.Errorf("%w: no such column", flow.ErrBadHeader)
	errShortened   = fmt.Errorf("%w: cut short by nfdump, which -6 prevents", flow.ErrAddress)
)

// split cuts a line of CSV into d.cells.
func (d *Decoder) split(line []byte) error {
	columns, exact := d.columns, true
	if columns == nil {
		columns, exact = usualOrder[:], false
	}
	rest, more := line, true
	for i, c := range columns {
		if !more {
			if exact || i < minUsual {
				return columnsError(line, i, len(columns))
			}
			return nil
		}
		var cell []byte
		if n := bytes.IndexByte(rest, ','); n >= 0 { //nolint:modernize // bytes.Cut is a tenth slower
			cell, rest = rest[:n], rest[n+1:]
		} else {
			cell, rest, more = rest, nil, false
		}
		d.cells[c] = trim(cell)
	}
	if exact && more {
		return columnsError(line, len(columns)+1+bytes.Count(rest, []byte{','}), len(columns))
	}
	return nil
}

// scan cuts a line of the text formats into d.cells. They are told apart by
// the arrow, the flags and the number of counts:
//
//	line     date time duration proto src:port -> dst:port packets bytes flows
//	long     … -> dst:port flags tos packets bytes flows
//	extended … -> dst:port flags tos packets bytes pps bps bpp flows
//	biline   … <-> dst:port out-packets in-packets out-bytes in-bytes flows
//	bilong   … <-> dst:port flags tos out-packets in-packets out-bytes in-bytes flows
func (d *Decoder) scan(line []byte) error {
	date, rest := token(line)
	clock, rest := token(rest)
	if len(date) == 0 || len(clock) == 0 || date[0] < '0' || date[0] > '9' {
		return &flow.SyntaxError{Value: clip(line), Err: flow.ErrNotRecord}
	}
	d.cells[colStart] = line[:len(line)-len(rest)] // both, with what is between
	dur, rest := token(rest)
	if n := len(dur); n > 1 && dur[n-1] == 'd' { // "1d 02:03:04.567"
		from := rest
		_, rest = token(rest)
		d.cells[colDuration] = line[len(line)-len(from)-n : len(line)-len(rest)]
	} else {
		d.cells[colDuration] = dur
	}
	d.cells[colProto], rest = token(rest)
	src, rest := token(rest)
	arrow, rest := token(rest)
	dst, rest := token(rest)
	both := string(arrow) == "<->"
	if !both && string(arrow) != "->" {
		return &flow.SyntaxError{Value: clip(line), Err: flow.ErrNotRecord}
	}
	d.cells[colSrcAddr], d.cells[colSrcPort] = endpoint(src)
	d.cells[colDstAddr], d.cells[colDstPort] = endpoint(dst)

	var counts [8][]byte
	n, begin, flags := 0, 0, false // begin is where the last count does
	if word, after := token(rest); isFlags(word) {
		d.cells[colFlags], rest, flags = word, after, true
		if _, rest = token(rest); len(rest) == 0 { // tos
			return &flow.SyntaxError{Value: clip(line), Err: flow.ErrTruncated}
		}
	}
	for len(rest) > 0 {
		var word []byte
		if word, rest = token(rest); len(word) == 0 {
			break
		}
		if n > 0 && len(word) == 1 && isUnit(word[0]) {
			// "1.2 M" is one count: take the blank and the unit along.
			counts[n-1] = line[begin : len(line)-len(rest)]
			continue
		}
		if n == len(counts) {
			return columnsError(line, n+1, n)
		}
		counts[n], n = word, n+1
		begin = len(line) - len(rest) - len(word)
	}
	switch {
	case both && n == 5:
		d.cells[colOutPkts], d.cells[colInPkts], d.cells[colOutBytes], d.cells[colInBytes] = counts[0], counts[1], counts[2], counts[3]
	case !both && (n == 3 || flags && n == 6):
		d.cells[colInPkts], d.cells[colInBytes] = counts[0], counts[1]
	default:
		return &flow.SyntaxError{Value: clip(line), Err: fmt.Errorf("%w: %d counts", flow.ErrColumns, n)}
	}
	return nil
}

// token cuts the first word off b; blanks and TABs part words.
func token(b []byte) (word, rest []byte) {
	i := 0
	for i < len(b) && (b[i] == ' ' || b[i] == '\t') {
		i++
	}
	j := i
	for j < len(b) && b[j] != ' ' && b[j] != '\t' {
		j++
	}
	return b[i:j], b[j:]
}

// isFlags reports whether word is TCP flags as nfdump prints them.
func isFlags(word []byte) bool {
	switch len(word) {
	case 4: // 0xff
		return word[0] == '0' && word[1] == 'x'
	case 6, 8: // UAPRSF, later CEUAPRSF
		for _, b := range word {
			if bytes.IndexByte([]byte(".CEUAPRSFX"), b) < 0 {
				return false
			}
		}
		return true
	}
	return false
}

// endpoint parts an address and a port: "1.2.3.4:80", "fe80::1.80", and for
// ICMP "1.2.3.4:8.0" and "fe80::1.8.0".
func endpoint(b []byte) (addr, port []byte) {
	last := bytes.LastIndexByte(b, ':')
	if last < 0 {
		return b, nil
	}
	if bytes.IndexByte(b, ':') == last {
		return b[:last], b[last+1:]
	}
	dot := bytes.IndexByte(b[last:], '.')
	if dot < 0 {
		return b, nil
	}
	if bytes.Count(b[last:], []byte{'.'}) > 3 { // ::ffff:1.2.3.4.80
		for range 3 {
			dot += 1 + bytes.IndexByte(b[last+dot+1:], '.')
		}
	}
	return b[:last+dot], b[last+dot+1:]
}

// mayBeProse reports whether line, by its first character, may be something
// else than a record, which begins with a digit.
func mayBeProse(line []byte) bool {
	return len(line) == 0 || line[0] < '0' || line[0] > '9'
}

// textHeader reports whether line is the first line of a text format.
func textHeader(line []byte) bool {
	return bytes.HasPrefix(line, []byte("Date first seen")) || bytes.HasPrefix(line, []byte("Date flow start"))
}

// prose reports whether line is one of those that nfdump prints around the
// records.
func prose(line []byte) bool {
	for _, s := range [...]string{
		"Summary", "flows,bytes,packets,", "Time window:", "Total flows processed:", "Total records processed:", "Sys:", "No matching flows",
		"No matched flows", "Aggregated flows", "Top ", "Ident:", "Byte limit:", "Packet limit:", "Flow limit:",
	} {
		if len(line) >= len(s) && string(line[:len(s)]) == s {
			return true
		}
	}
	return false
}

// sums reports whether line holds the six numbers that end "-o csv".
func sums(line []byte) bool {
	commas := 0
	for i, b := range line {
		switch {
		case b == ',':
			commas++
		case b < '0' || b > '9':
			return false
		}
		if commas > 5 || i > 128 {
			return false
		}
	}
	return commas == 5
}

// countNames counts the cells of line that name columns, up to minNames.
func countNames(line []byte) int {
	n := 0
	for len(line) > 0 && n < minNames {
		name, rest, _ := bytes.Cut(line, []byte{','})
		if columnOf(trim(name)) != colOther {
			n++
		}
		line = rest
	}
	return n
}

// Sniff reports whether head, the start of a file and perhaps cut in
// mid-line, looks like text that Decode reads: a header or a record within
// the first lines that are not empty, comments or sums. It is false for
// nfcapd's binary files.
func Sniff(head []byte) bool {
	const tries = 3
	if IsBinary(head) {
		return false
	}
	var (
		d Decoder
		f flow.Flow
	)
	for range tries {
		var line []byte
		for len(line) == 0 || line[0] == '#' || prose(line) {
			if len(head) == 0 {
				return false
			}
			line, head, _ = bytes.Cut(head, []byte{'\n'})
			line = trim(line)
		}
		if err := d.Decode(&f, line); err == nil || errors.Is(err, flow.ErrHeader) || errors.Is(err, flow.ErrIgnored) {
			return true
		}
	}
	return false
}

// IsBinary reports whether head, the start of a file, is that of a file of
// nfcapd in either byte order. Such files are not decoded here: "nfdump -o
// csv -r FILE" turns one into text that is.
func IsBinary(head []byte) bool {
	if len(head) < 4 {
		return false
	}
	const maxVersion = 15 // 1 and 2 so far; this much room keeps text out
	switch {
	case head[0] == 0x0c && head[1] == 0xa5:
		return head[2] > 0 && head[2] <= maxVersion && head[3] == 0
	case head[0] == 0xa5 && head[1] == 0x0c:
		return head[3] > 0 && head[3] <= maxVersion && head[2] == 0
	}
	return false
}

// columnsError reports a line of n cells.
func columnsError(line []byte, n, want int) error {
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

// clip copies what a message shows of foreign text.
func clip(b []byte) string { return string(b[:min(len(b), 64)]) }
