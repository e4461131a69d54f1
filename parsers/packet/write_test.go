package packet

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What is written is read again, to the nanosecond.
func TestWriter(t *testing.T) {
	want := []Packet{
		{Time: 1_700_000_000_123_456_789, Data: []byte("whole"), Length: 5, Link: LinkSLL2},
		{Time: 0, Data: []byte{}, Length: 60, Link: LinkSLL2},
		{Time: 4_294_967_295_999_999_999, Data: bytes.Repeat([]byte("x"), 1500), Length: 9000, Link: LinkSLL2},
	}
	var b bytes.Buffer
	w, err := NewWriter(&b, LinkSLL2)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range want {
		if err := w.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if w.Write(Packet{Link: LinkEthernet}) == nil || w.Write(Packet{Time: -1, Link: LinkSLL2}) == nil || w.Write(Packet{Time: 4_294_967_296e9, Link: LinkSLL2}) == nil {
		t.Error("another link type, or a time that does not fit, is no error")
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []Packet
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p.Data = bytes.Clone(p.Data)
		got = append(got, p)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
