package parsers

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/slips-go/slips/parsers/argus"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/nfdump"
	"github.com/slips-go/slips/parsers/packet"
	"github.com/slips-go/slips/parsers/suricata"
	"github.com/slips-go/slips/parsers/zeek"
)

// Decoder turns the lines of one file into records. Decode resets dst first.
// Strings in dst point into line or into memory of dst: they are valid as
// long as line is not changed and until the next decode into the same dst.
// Errors are flow.ErrHeader, flow.ErrIgnored or a *flow.SyntaxError; after one
// dst is not to be trusted.
//
// IsHeader reports whether line changes what the lines behind it mean; after
// a restart those are decoded again before reading goes on in mid-file. line
// has no newline. A Decoder serves one goroutine.
type Decoder interface {
	Decode(dst *flow.Flow, line []byte) error
	IsHeader(line []byte) bool
}

// format is one format of logs. sniff looks at the first bytes of a file,
// fresh makes a decoder for the log of the name, which may be empty.
type format struct {
	name  string
	sniff func(head []byte) bool
	fresh func(log string) Decoder
	kinds func(head []byte, log string) flow.KindSet // see flow.Input
}

// anyKind is format.kinds where every line may be something else.
func anyKind([]byte, string) flow.KindSet { return 0 }

// flows is format.kinds of the formats that know connections only.
func flows([]byte, string) flow.KindSet { return flow.Of(flow.Conn, flow.ARP) }

// formats returns the formats in the order in which they are tried.
func formats() []format {
	return []format{
		{"zeek", zeek.Sniff, func(log string) Decoder { return zeek.New(log) }, zeek.Kinds},
		{"suricata", suricata.Sniff, func(string) Decoder { return suricata.New() }, anyKind},
		{"argus", argus.Sniff, func(string) Decoder { return argus.New() }, flows},
		{"nfdump", nfdump.Sniff, func(string) Decoder { return nfdump.New() }, flows},
	}
}

var (
	_ Decoder = (*zeek.Decoder)(nil)
	_ Decoder = (*suricata.Decoder)(nil)
	_ Decoder = (*argus.Decoder)(nil)
	_ Decoder = (*nfdump.Decoder)(nil)
)

// recognise finds the format of a file from its first bytes. When several
// formats claim it, the one that can decode most of its first lines wins,
// then the one that the file's name speaks for, then the first.
func recognise(all []format, head []byte, name string) (*format, error) {
	switch {
	case nfdump.IsBinary(head):
		return nil, ErrBinaryNfdump
	case packet.IsCapture(head):
		return nil, ErrPackets
	}
	var claims []*format
	for i := range all {
		if all[i].sniff(head) {
			claims = append(claims, &all[i])
		}
	}
	switch len(claims) {
	case 0:
		return nil, ErrUnrecognised
	case 1:
		return claims[0], nil
	}
	best, most := (*format)(nil), -1
	for _, f := range claims {
		n := 2 * decodable(f.fresh(hint(logOf(f.name, name))), head)
		if hints(f.name, name) {
			n++
		}
		if n > most {
			best, most = f, n
		}
	}
	return best, nil
}

// decodable counts the records among the first lines of head that dec can
// decode.
func decodable(dec Decoder, head []byte) int {
	const enough = 32
	var dst flow.Flow
	n := 0
	for range enough {
		line, rest, ok := bytes.Cut(head, []byte{'\n'})
		if !ok {
			break
		}
		if decodeLine(dec, &dst, line) == nil {
			n++
		}
		head = rest
	}
	return n
}

// hints reports whether a file's name is usual for the format.
func hints(format, name string) bool {
	name = strings.ToLower(name)
	switch format {
	case "zeek":
		_, ok := zeek.LogName(name)
		return ok
	case "suricata":
		return strings.HasPrefix(name, "eve")
	case "argus":
		return strings.Contains(name, "binetflow") || strings.Contains(name, "argus")
	}
	return strings.Contains(name, "nfdump") || strings.Contains(name, "nfcapd")
}

// decodeLine decodes a line but for the NUL bytes that it may begin with: a
// writer whose log was truncated under him and who goes on at his old place
// leaves a hole. A duration with which times would overflow is none.
func decodeLine(dec Decoder, dst *flow.Flow, line []byte) error {
	if len(line) > 0 && line[0] == 0 {
		line = bytes.TrimLeft(line, "\x00")
	}
	err := dec.Decode(dst, line)
	if err == nil && (dst.Duration < 0 || dst.Duration > flow.MaxDuration) {
		return &flow.SyntaxError{Field: "duration", Err: flow.ErrNumber}
	}
	return err
}

// logOf returns what the rotations of one log have in common: the log's name
// for Zeek, else the file's name without compression and number or date. It
// is also what the decoder is told.
func logOf(format, name string) string {
	name = strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), ".zst")
	stem := name
	if i := strings.LastIndexAny(name, ".-"); i > 0 && isNumber(name[i+1:]) && strings.Contains(name[:i], ".") {
		stem = name[:i] // eve.json.1, conn.log-20211010
	}
	if format != "zeek" {
		return stem
	}
	for _, n := range []string{name, stem} {
		if log, ok := zeek.LogName(n); ok {
			return log
		}
	}
	return stem
}

// writerOf returns which of several loggers wrote a file, by its name; empty
// when it does not say.
func writerOf(format, name string) string {
	if format != "zeek" {
		return ""
	}
	return zeek.Writer(name)
}

func isNumber(s string) bool {
	return s != "" && len(s) <= 14 && strings.Trim(s, "0123456789") == ""
}

// hint is what a decoder is told about the log it reads.
func hint(log string) string { return strings.TrimSuffix(log, filepath.Ext(log)) }

// headSize is how much of a file is looked at to recognise it, bytes,
// uncompressed; firstLook is enough for nearly all.
const (
	headSize  = 64 << 10
	firstLook = 4 << 10
)

// opening is what the beginning of a file tells.
type opening struct {
	print    string // fingerprint; empty while there is no whole record line
	end      int64  // unix ns at which the first record ended, when it could be decoded
	known    bool   // the first record could be decoded
	foreign  bool   // no record in the head belongs to a log that is known
	labelled bool
	kinds    flow.KindSet // of the file's records; 0: not known
	copy     copyKey
}

// copyKey is what copies of one log agree in: the hash of all of the first
// record but its labels. Part of it would not do: there may be many records
// of one kind at the same time and without a uid.
type copyKey [sha1.Size]byte

// read decodes the head of a file up to its first record. whole means that
// the head is all of the file, so that a last line without newline counts.
//
// The fingerprint is the hash of everything up to and with the first line
// that is not a header, so that it stays the same when the file grows, is
// renamed or compressed, and differs between files whose headers are alike.
// When not even that line ends within headSize, the head itself is hashed.
func (o *opening) read(dec Decoder, head []byte, whole bool) {
	for at := 0; at < len(head); {
		line := head[at:]
		end := bytes.IndexByte(line, '\n')
		switch {
		case end >= 0:
			line = line[:end]
			at += end + 1
		case whole:
			at = len(head)
		default:
			if o.print == "" && len(head) >= headSize {
				o.print = digest(head[:headSize])
			}
			return
		}
		var dst flow.Flow
		err := decodeLine(dec, &dst, line)
		if err == flow.ErrHeader { //nolint:errorlint // decoders return it bare
			continue
		}
		if o.print == "" {
			o.print = digest(head[:at])
		}
		if err != nil {
			o.foreign = errors.Is(err, flow.ErrUnknownKind)
			continue
		}
		o.foreign, o.known = false, true
		o.end = dst.Time + dst.Duration
		o.labelled = dst.Label != "" || dst.DetailedLabel != ""
		o.copy = keyOf(&dst)
		return
	}
}

// keyOf hashes a record.
func keyOf(f *flow.Flow) (k copyKey) {
	h := sha1.New()
	hash := func(v reflect.Value) {
		for i := range v.NumField() {
			switch name := v.Type().Field(i); {
			case !name.IsExported(), name.Anonymous:
			case name.Name == "Label", name.Name == "DetailedLabel":
			case v.Field(i).Kind() != reflect.Pointer:
				_, _ = fmt.Fprintf(h, "%s=%q\n", name.Name, fmt.Sprint(v.Field(i).Interface()))
			case !v.Field(i).IsNil():
				_, _ = fmt.Fprintf(h, "%s=%q\n", name.Name, fmt.Sprintf("%+v", v.Field(i).Elem().Interface()))
			}
		}
	}
	hash(reflect.ValueOf(f).Elem())
	if f.Parts != nil {
		hash(reflect.ValueOf(f.Parts).Elem())
	}
	h.Sum(k[:0])
	return k
}

// digest hashes the beginning of a file. The newline behind the last line
// does not count: it may still be missing.
func digest(b []byte) string {
	sum := sha1.Sum(bytes.TrimSuffix(b[:min(len(b), headSize)], []byte{'\n'}))
	return hex.EncodeToString(sum[:])
}
