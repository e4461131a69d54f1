package packet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	readBuffer = 256 << 10 // bytes read at a time
	maxWindow  = 128 << 20 // zstd window, what --long=27 asks for: bounds the memory a file can claim
	maxCapture = 1 << 20   // bytes of a packet; loopback and offloading make up to 256 KiB
	checkEvery = 1024      // packets between looks at the context
)

var (
	// ErrFormat is what Read returns for what is no capture.
	ErrFormat = errors.New("not a packet capture (pcap, pcapng)")
	// ErrCorrupt is what Read returns when the rest of a capture cannot be read.
	// What came before was analysed.
	ErrCorrupt = errors.New("capture damaged or cut short")
)

// magics are the first bytes of captures: pcap with µs and ns in both byte
// orders, and pcapng.
var magics = [...]string{"\xd4\xc3\xb2\xa1", "\xa1\xb2\xc3\xd4", "\x4d\x3c\xb2\xa1", "\xa1\xb2\x3c\x4d", "\x0a\x0d\x0d\x0a"}

// IsCapture reports whether a file that begins with head is a capture. Of one
// that is packed it cannot tell: unpack the head first.
func IsCapture(head []byte) bool {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m)) {
			return true
		}
	}
	return false
}

// Reader reads the packets of a capture file: pcap or pcapng, plain or packed
// by gzip or zstd, which are told by the first bytes.
type Reader struct {
	next    func() ([]byte, gopacket.CaptureInfo, error)
	link    Link
	mixed   bool // the link type comes with each packet
	swapped bool // the length on the wire may come before that of what was captured
	from    *Unpacked
	buf     []byte // of a packet that is read without pcapgo
}

// NewReader reads the head of a capture. The error wraps ErrFormat when it is none.
func NewReader(r io.Reader) (*Reader, error) {
	u, err := Unpack(r)
	if err != nil {
		return nil, err
	}
	p := &Reader{from: u}
	if err := p.open(u.b); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// How packed files begin (RFC 1952, RFC 8878).
var (
	gzipMagic = [2]byte{0x1f, 0x8b}
	zstdMagic = [4]byte{0x28, 0xb5, 0x2f, 0xfd}
)

// IsPacked reports whether a file that begins with head, of 4 bytes or more, is
// one that Unpack unpacks.
func IsPacked(head []byte) bool {
	return bytes.HasPrefix(head, gzipMagic[:]) || bytes.HasPrefix(head, zstdMagic[:])
}

// Unpacked is what is in a file that may be packed.
type Unpacked struct {
	b    *bufio.Reader
	zstd *zstd.Decoder
	// Packed says that it was.
	Packed bool
}

// Unpack looks whether r is packed, by gzip or zstd, and unpacks it as it is
// read. The error wraps ErrFormat when it only seems to be.
func Unpack(r io.Reader) (*Unpacked, error) {
	u := &Unpacked{b: bufio.NewReaderSize(r, readBuffer)}
	head, _ := u.b.Peek(4) // what is short is no capture either
	switch {
	case bytes.HasPrefix(head, gzipMagic[:]):
		z, err := gzip.NewReader(u.b)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		u.b, u.Packed = bufio.NewReaderSize(z, readBuffer), true
	case bytes.HasPrefix(head, zstdMagic[:]):
		z, err := zstd.NewReader(u.b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		u.b, u.zstd, u.Packed = bufio.NewReaderSize(z, readBuffer), z, true
	}
	return u, nil
}

// Head returns how it begins, up to n bytes and a few thousand; fewer when there
// are no more.
func (u *Unpacked) Head(n int) []byte {
	b, _ := u.b.Peek(n) // what is short is what there is
	return b
}

// Read implements io.Reader.
func (u *Unpacked) Read(p []byte) (int, error) { return u.b.Read(p) }

// Close gives memory back. It does not close what is read from.
func (u *Unpacked) Close() {
	if u.zstd != nil {
		u.zstd.Close()
	}
}

// open reads the head of what is unpacked.
func (r *Reader) open(b *bufio.Reader) error {
	head, _ := b.Peek(4)
	if !IsCapture(head) {
		return ErrFormat
	}
	if head[0] == 0x0a {
		ng, err := pcapgo.NewNgReader(b, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
		if err != nil {
			return fmt.Errorf("%w: %w", ErrFormat, err)
		}
		r.mixed, r.next = true, ng.ZeroCopyReadPacketData
		return nil
	}
	p, err := pcapgo.NewReader(r.oldVersion(b))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	// The upper bits say how long the checksum behind a frame is.
	r.link, r.next = Link(p.LinkType())&0xffff, p.ZeroCopyReadPacketData
	return nil
}

// oldVersion makes version 2.4 of pcap out of the ones before it, which pcapgo
// does not take: they differ in the order of two lengths only.
func (r *Reader) oldVersion(b *bufio.Reader) *bufio.Reader {
	const major, minor, current = 4, 6, 4 // where the versions are, as 16 bits
	head, _ := b.Peek(8)                  // what is short is refused by who reads it
	if len(head) < 8 {
		return b
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[0] == 0xa1 {
		order = binary.BigEndian
	}
	if order.Uint16(head[major:]) != 2 || order.Uint16(head[minor:]) >= current {
		return b
	}
	r.swapped = true
	head = slices.Clone(head)
	order.PutUint16(head[minor:], current)
	b.Discard(len(head)) //nolint:errcheck // they were there
	r.from.b = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(head), b), readBuffer)
	return r.from.b
}

// Next returns the next packet, whose data is valid until the call after it.
// The error is io.EOF at the end, or wraps ErrCorrupt.
func (r *Reader) Next() (Packet, error) {
	data, ci, err := r.next()
	if err != nil && r.swapped && ci.CaptureLength > ci.Length {
		ci.CaptureLength, ci.Length = ci.Length, ci.CaptureLength
	}
	if err != nil && !r.mixed && (ci.CaptureLength > ci.Length || r.swapped && ci.CaptureLength < ci.Length) && ci.CaptureLength <= maxCapture {
		// Some programs write a wrong length on the wire, which pcapgo does not
		// take, and libpcap does. The packet itself is still to be read.
		r.buf = slices.Grow(r.buf[:0], ci.CaptureLength)[:ci.CaptureLength]
		data = r.buf
		if _, err = io.ReadFull(r.from.b, data); err == io.EOF { //nolint:errorlint // ReadFull returns it bare
			err = io.ErrUnexpectedEOF
		}
	}
	if err != nil {
		if err == io.EOF && ci.CaptureLength == 0 { //nolint:errorlint // the bare one alone is the end, unless a header came
			return Packet{}, io.EOF
		}
		return Packet{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if len(data) > maxCapture {
		data = data[:maxCapture]
	}
	p := Packet{Data: data, Length: ci.Length, Link: r.link}
	if !ci.Timestamp.IsZero() { // simple packets of pcapng have no time: all are of 1970, as libpcap has it
		p.Time = ci.Timestamp.UnixNano()
	}
	if r.mixed {
		p.Link = LinkNull
		if len(ci.AncillaryData) > 0 {
			if l, ok := ci.AncillaryData[0].(layers.LinkType); ok {
				p.Link = Link(l)
			}
		}
	}
	return p, nil
}

// Packed reports whether the capture is packed.
func (r *Reader) Packed() bool { return r.from.Packed }

// Close gives memory back. It does not close what is read from.
func (r *Reader) Close() { r.from.Close() }

// Read feeds a capture to a new Meter, to its end or until ctx is done. When
// the capture cannot be read to its end, what came before was emitted all the
// same, and the error wraps ErrFormat or ErrCorrupt.
func Read(ctx context.Context, r io.Reader, o Options) (Stats, error) {
	m := New(o)
	err := readAll(ctx, r, m.Feed)
	m.End()
	return m.Stats(), err
}

// readAll calls feed with the packets of a capture.
func readAll(ctx context.Context, r io.Reader, feed func(Packet)) error {
	p, err := NewReader(r)
	if err != nil {
		return fmt.Errorf("reading a capture: %w", err)
	}
	defer p.Close()
	for n := 0; ; n++ {
		if n%checkEvery == 0 && ctx.Err() != nil {
			return nil
		}
		pkt, err := p.Next()
		if err == io.EOF { //nolint:errorlint // Next returns it bare
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a capture behind packet %d: %w", n, err)
		}
		feed(pkt)
	}
}
