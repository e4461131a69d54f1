package tail

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// Whole compressed files are told from cut ones, wherever the cut is.
func TestComplete(t *testing.T) {
	text := bytes.Repeat([]byte("some text and more\n"), 500)
	var zip bytes.Buffer
	for range 2 { // two members in one file
		w := gzip.NewWriter(&zip)
		if _, err := w.Write(text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	path := filepath.Join(t.TempDir(), "packed")
	for name, packed := range map[string][]byte{"gzip": zip.Bytes(), "zstd": enc.EncodeAll(text, nil)} {
		for n := 4; n <= len(packed); n++ {
			if err := os.WriteFile(path, packed[:n], 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := Complete(path)
			if err != nil {
				t.Fatal(err)
			}
			want := n == len(packed) || name == "gzip" && n == len(packed)/2 // one member is a file too
			if got != want {
				t.Errorf("%s cut at %d of %d: complete %t", name, n, len(packed), got)
			}
		}
	}
	if _, err := Complete(path + ".missing"); err == nil {
		t.Error("no error for a missing file")
	}
}

// A hole at the beginning is no part of the head, nor of a line when it is too
// long for one, and offsets behind it are right.
func TestHoles(t *testing.T) {
	for _, hole := range []int{1, headSize - 1, headSize, 3*headSize + 7, MaxLine + 5} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, append(make([]byte, hole), "one\ntwo\nthree\n"...), 0o600); err != nil {
			t.Fatal(err)
		}
		head, _, err := Head(path, 9)
		if err != nil || string(head) != "one\ntwo\nt" {
			t.Errorf("hole of %d: head %q, %v", hole, head, err)
		}
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if head, err := f.Head(100); err != nil || string(head) != "one\ntwo\nthree\n" {
			t.Errorf("hole of %d: head %q, %v", hole, head, err)
		}
		if n, err := f.Skip(int64(hole+4), nil); n != 1 || err != nil {
			t.Errorf("hole of %d: skipped %d lines, %v", hole, n, err)
		}
		data, err := f.Next(nil, 100)
		if err != nil || string(data) != "two\nthree\n" || f.Offset() != int64(hole+14) {
			t.Errorf("hole of %d: %q at %d, %v", hole, data, f.Offset(), err)
		}
		f.Close()
	}
}
