package proto

import (
	"bytes"
	"crypto/md5"  //nolint:gosec // feeds of files list MD5 and SHA-1
	"crypto/sha1" //nolint:gosec // feeds of files list MD5 and SHA-1
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"strings"

	"github.com/slips-go/slips/parsers/flow"
)

// Bounds of files.
const (
	maxHashed   = 64 << 20 // bytes of a file that is hashed; malware is smaller by far
	maxFilename = 256      // bytes
)

// file is a file that passes: the body of a message, if it is of a type that
// can do harm. Pages, pictures and films are most of all bytes, and no feed
// lists them.
type file struct {
	on        bool
	seen      int64
	typ       string
	name      []byte
	sums      [3]hash.Hash // MD5, SHA-1, SHA-256; made when first needed
	unhashed  bool         // bytes are missing, or there are too many
	id        uint64
	t         int64
	announced int64 // length; -1: not known
}

// harmful reports whether content of a type is worth a record and hashes. The
// empty type is that of bytes which are nothing that is known.
func harmful(mime string) bool {
	kind, sub, _ := strings.Cut(mime, "/")
	switch kind {
	case "image", "audio", "video":
		return false
	case "text":
		return strings.HasPrefix(sub, "x-") || sub == "rtf"
	}
	return !strings.HasPrefix(sub, "ocsp") && !strings.HasPrefix(sub, "font") && sub != "javascript" && !strings.HasSuffix(sub, "xml") && sub != "ogg"
}

// begin starts a file.
func (x *file) begin(typ string, id uint64, announced, t int64) {
	*x = file{on: true, typ: typ, name: x.name, sums: x.sums, id: id, announced: announced, t: t}
	if x.sums[0] == nil {
		x.sums = [3]hash.Hash{md5.New(), sha1.New(), sha256.New()} //nolint:gosec // feeds of files list MD5 and SHA-1
	}
	for _, s := range x.sums {
		s.Reset()
	}
	x.unhashed = announced > maxHashed
}

// held returns the bytes of memory behind x.
func (x *file) held() int {
	const hashes = 512 // bytes that the three of them take
	if x.sums[0] == nil {
		return cap(x.name)
	}
	return cap(x.name) + hashes
}

func (x *file) write(b []byte) {
	if x.seen += int64(len(b)); x.seen > maxHashed {
		x.unhashed = true
	}
	if !x.unhashed {
		for _, s := range x.sums {
			s.Write(b)
		}
	}
}

// fuid prints the id of a file as Zeek's look.
func fuid(f *flow.Flow, id uint64) string {
	var b [17]byte
	b[0] = 'F'
	return f.Hold(hexText(b[:1], binary.BigEndian.AppendUint64(nil, id)))
}

// end writes the record. whole says that the file came to its end.
func (x *file) end(s *Set, c Conn, d Dir, source string, whole bool) {
	if !x.on {
		return
	}
	x.on = false
	f := c.Record(flow.Files, x.t)
	p := f.Files
	p.FUID, p.Source, p.MIMEType = fuid(f, x.id), source, x.typ
	p.Filename = s.text(f, x.name)
	p.SeenBytes, p.TotalBytes = x.seen, max(x.announced, 0)
	p.LocalOrig, p.IsOrig = f.LocalOrig, flow.TriOf(d == Orig)
	p.ConnUIDs = append(p.ConnUIDs, f.UID)
	if max(x.seen, x.announced) > maxHashed {
		s.Stats.LargeFiles++
	}
	if whole && !x.unhashed {
		p.Analyzers = append(p.Analyzers, "MD5", "SHA1", "SHA256")
		for i, to := range [3]*string{&p.MD5, &p.SHA1, &p.SHA256} {
			var b [sha256.Size]byte
			*to = held(f, x.sums[i].Sum(b[:0]))
		}
	}
	if d == Resp { // the sender is the Src
		f.Src, f.Dst, f.SrcPort, f.DstPort = f.Dst, f.Src, f.DstPort, f.SrcPort
		f.SrcMAC, f.DstMAC = f.DstMAC, f.SrcMAC
		f.LocalOrig, f.LocalResp = f.LocalResp, f.LocalOrig
	}
	c.Emit(f)
	x.name = x.name[:0]
}

// filename returns the name in a Content-Disposition header.
func filename(value []byte) []byte {
	for rest := value; ; {
		_, after, ok := bytes.Cut(rest, []byte{';'})
		if !ok {
			return nil
		}
		rest = bytes.TrimLeft(after, " \t")
		if len(rest) < 9 || !is(rest[:9], "filename=") {
			continue
		}
		name := rest[9:]
		if len(name) > 0 && name[0] == '"' {
			name, _, _ = bytes.Cut(name[1:], []byte{'"'})
		} else {
			name, _, _ = bytes.Cut(name, []byte{';'})
		}
		return bytes.TrimSpace(name[:min(len(name), maxFilename)])
	}
}
