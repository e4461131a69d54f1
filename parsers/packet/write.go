package packet

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// Writer writes a capture in the pcap format with nanoseconds
// (draft-ietf-opsawg-pcap), whose packets have all one link type.
type Writer struct {
	w    *bufio.Writer
	link Link
	head [16]byte
}

// NewWriter writes the head of a capture.
func NewWriter(w io.Writer, link Link) (*Writer, error) {
	x := &Writer{w: bufio.NewWriterSize(w, readBuffer), link: link}
	var h [24]byte
	binary.LittleEndian.PutUint32(h[0:], 0xa1b23c4d)
	binary.LittleEndian.PutUint16(h[4:], 2)
	binary.LittleEndian.PutUint16(h[6:], 4)
	binary.LittleEndian.PutUint32(h[16:], maxCapture)
	binary.LittleEndian.PutUint32(h[20:], uint32(link))
	if _, err := x.w.Write(h[:]); err != nil {
		return nil, fmt.Errorf("write a capture: %w", err)
	}
	return x, nil
}

// Write writes a packet. One of another link type, or of a time that the format
// has no room for, is an error.
func (x *Writer) Write(p Packet) error {
	if p.Link != x.link {
		return fmt.Errorf("write a capture: a packet of link type %d among those of %d", p.Link, x.link)
	}
	if p.Time < 0 || p.Time/1e9 > 1<<32-1 {
		return fmt.Errorf("write a capture: the time %d ns is before 1970 or after 2106", p.Time)
	}
	binary.LittleEndian.PutUint32(x.head[0:], uint32(p.Time/1e9)) //nolint:gosec // see above
	binary.LittleEndian.PutUint32(x.head[4:], uint32(p.Time%1e9)) //nolint:gosec // less than 2^30
	binary.LittleEndian.PutUint32(x.head[8:], uint32(len(p.Data)))
	binary.LittleEndian.PutUint32(x.head[12:], uint32(max(p.Length, len(p.Data)))) //nolint:gosec // as it was read
	if _, err := x.w.Write(x.head[:]); err != nil {
		return fmt.Errorf("write a capture: %w", err)
	}
	if _, err := x.w.Write(p.Data); err != nil {
		return fmt.Errorf("write a capture: %w", err)
	}
	return nil
}

// Flush writes out what is buffered.
func (x *Writer) Flush() error {
	if err := x.w.Flush(); err != nil {
		return fmt.Errorf("write a capture: %w", err)
	}
	return nil
}
