package tail

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func put(t *testing.T, data string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.log")
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func gz(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func zst(t *testing.T, text string) string {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return string(w.EncodeAll([]byte(text), nil))
}

// all reads a file to its end in blocks of size and returns its lines, with
// "!" and the error in the place of what is wrong. It checks the offsets.
func all(t *testing.T, f *File, size int) []string {
	t.Helper()
	var out []string
	var buf []byte
	add := func(from int64, data []byte) {
		if got := f.Offset() - from; got != int64(len(data)) {
			t.Errorf("offset moved by %d for %d bytes", got, len(data))
		}
		for l := range strings.Lines(string(data)) {
			out = append(out, l)
		}
	}
	for {
		from := f.Offset()
		data, err := f.Next(buf, size)
		buf = data
		switch {
		case err == nil:
			if len(data) == 0 || data[len(data)-1] != '\n' {
				t.Fatalf("block %q is not whole lines", data)
			}
			add(from, data)
		case errors.Is(err, ErrTooLong):
			out = append(out, fmt.Sprintf("!too long, to %d", f.Offset()))
		case errors.Is(err, io.EOF):
			from = f.Offset()
			last, err := f.Last(buf)
			if errors.Is(err, ErrTooLong) {
				return append(out, fmt.Sprintf("!too long, to %d", f.Offset()))
			}
			add(from, last)
			return out
		default:
			var c *CorruptError
			if !errors.As(err, &c) {
				t.Fatalf("unexpected error %v", err)
			}
			return append(out, "!corrupt")
		}
	}
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", 300_000)
	plain := "one\ntwo\r\n\n\x00NUL\x00\n" + long + "\nlast without newline"
	want := []string{"one\n", "two\r\n", "\n", "\x00NUL\x00\n", long + "\n", "last without newline"}
	for name, data := range map[string]string{
		"plain":        plain,
		"gzip":         gz(t, plain),
		"gzip members": gz(t, plain[:6]) + gz(t, "") + gz(t, plain[6:]),
		"zstd":         zst(t, plain),
		"zstd frames":  zst(t, plain[:7]) + zst(t, plain[7:]),
		"zstd skip":    "\x50\x2a\x4d\x18\x03\x00\x00\x00abc" + zst(t, plain),
	} {
		for _, size := range []int{1, 7, 64, 4096, 256 << 10, 1 << 20} {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				f, err := Open(put(t, data))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if diff := cmp.Diff(want, all(t, f, size)); diff != "" {
					t.Error(diff)
				}
				if f.Consumed() != int64(len(data)) {
					t.Errorf("consumed %d of %d bytes", f.Consumed(), len(data))
				}
				s, err := Stream("-", iotest.OneByteReader(strings.NewReader(data)))
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if diff := cmp.Diff(want, all(t, s, size)); diff != "" {
					t.Error("stream", diff)
				}
			})
		}
	}
}

func TestEmpty(t *testing.T) {
	for name, data := range map[string]string{"plain": "", "gzip": gz(t, ""), "zstd": zst(t, "")} {
		f, err := Open(put(t, data))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if got := all(t, f, 100); got != nil {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// Lines around the limit, in files that give all or single blocks at a time.
func TestTooLong(t *testing.T) {
	fits := strings.Repeat("a", MaxLine-1) + "\n"
	for name, c := range map[string]struct {
		data string
		want []string
	}{
		"fits":      {fits + "b\n", []string{fits, "b\n"}},
		"one more":  {"0\n" + "x" + fits + "b\nc\nd", []string{"0\n", fmt.Sprintf("!too long, to %d", MaxLine+3), "b\n", "c\n", "d"}},
		"last":      {"0\n" + fits + "x" + fits[1:] + fits[:MaxLine-1] + "zz", []string{"0\n", fits, "x" + fits[1:], fmt.Sprintf("!too long, to %d", 3*MaxLine+3)}},
		"two":       {"xxx" + fits + "xxxx" + fits + "end\n", []string{fmt.Sprintf("!too long, to %d", MaxLine+3), fmt.Sprintf("!too long, to %d", 2*MaxLine+7), "end\n"}},
		"100 MB":    {strings.Repeat("y", 100_000_000) + "\nz\n", []string{"!too long, to 100000001", "z\n"}},
		"100 MB gz": {gz(t, strings.Repeat("y", 100_000_000)+"\nz\n"), []string{"!too long, to 100000001", "z\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := Open(put(t, c.data))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got := all(t, f, 64<<10)
			if len(got) != len(c.want) {
				t.Fatalf("%d lines, want %d", len(got), len(c.want))
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("line %d: %.40q (%d bytes), want %.40q (%d)", i, got[i], len(got[i]), c.want[i], len(c.want[i]))
				}
			}
			if cap(f.held) > keepHeld {
				t.Errorf("keeps %d bytes", cap(f.held))
			}
		})
	}
}

func TestCorrupt(t *testing.T) {
	var text strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&text, "%d line %d\n", i, i*i)
	}
	for name, packed := range map[string]string{"gzip": gz(t, text.String()), "zstd": zst(t, text.String())} {
		for _, cut := range []int{1, 3, 5, 9, len(packed) / 3, len(packed) - 9, len(packed) - 1} {
			f, err := Open(put(t, packed[:cut]))
			if err != nil {
				t.Fatalf("%s cut at %d: %v", name, cut, err)
			}
			got := all(t, f, 4096)
			f.Close()
			if cut > 4 && (len(got) == 0 || got[len(got)-1] != "!corrupt") {
				t.Errorf("%s cut at %d of %d: no error", name, cut, len(packed))
			}
			if cut > 4 && !strings.HasPrefix(text.String(), strings.Join(got[:len(got)-1], "")) {
				t.Errorf("%s cut at %d: wrong lines", name, cut)
			}
			if cut == len(packed)-1 && len(got) != 20001 && name == "gzip" {
				t.Errorf("%s cut at its end: %d lines, want all 20000", name, len(got)-1)
			}
		}
		bad := []byte(packed)
		bad[len(bad)/2] ^= 0xff
		f, err := Open(put(t, string(bad)))
		if err != nil {
			t.Fatal(err)
		}
		if got := all(t, f, 4096); got[len(got)-1] != "!corrupt" {
			t.Errorf("%s with a flipped byte: no error", name)
		}
		f.Close()
	}
	// Garbage behind a whole member.
	f, err := Open(put(t, gz(t, "a\nb\n")+"garbage"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if diff := cmp.Diff([]string{"a\n", "b\n", "!corrupt"}, all(t, f, 100)); diff != "" {
		t.Error(diff)
	}
}

func TestGrowing(t *testing.T) {
	path := put(t, "one\ntw")
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	next := func(want string) {
		t.Helper()
		got, err := f.Next(nil, 64)
		if string(got) != want || (err != nil) != (want == "") || err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}
	grow := func(text string) {
		t.Helper()
		w, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if _, err := w.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	next("one\n")
	next("")
	grow("o\nthree")
	next("two\n")
	next("")
	for range 100 {
		grow("e")
		next("")
	}
	if f.Held() != 105 {
		t.Errorf("holds %d bytes", f.Held())
	}
	grow("\n")
	next("three" + strings.Repeat("e", 100) + "\n")
	if same, err := f.Rewritten(); same || err != nil {
		t.Errorf("rewritten %t, %v", same, err)
	}
	f.Limit(f.Consumed() + 2)
	grow("x\ny\n")
	next("x\n")
	next("")
}

// A line too long that grows in pieces is passed over without being kept.
func TestGrowingTooLong(t *testing.T) {
	path := put(t, "")
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	piece := bytes.Repeat([]byte("z"), 1<<20)
	for range 40 {
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Next(nil, 4096); len(got) > 0 || !errors.Is(err, io.EOF) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if cap(f.held) > MaxLine+chunk {
			t.Fatalf("keeps %d bytes", cap(f.held))
		}
	}
	if _, err := w.WriteString("z\nnext\n"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"!too long, to 41943042", "next\n"}, all(t, f, 4096)); diff != "" {
		t.Error(diff)
	}
}

func TestRewritten(t *testing.T) {
	for name, c := range map[string]struct {
		before, after string
		want          bool
	}{
		"same":             {"abc\n", "abc\n", false},
		"grown":            {"abc\n", "abc\ndef\n", false},
		"empty grown":      {"", "abc\n", false},
		"shorter":          {"abc\ndef\n", "abc\n", true},
		"empty":            {"abc\n", "", true},
		"other bytes":      {"abc\n", "xbc\n", true},
		"other and longer": {"abc\n", "xbc\ndefghi\n", true},
		"hole":             {"abc\n", "\x00\x00\x00\x00def\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			path := put(t, c.before)
			f, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			all(t, f, 100)
			if err := os.WriteFile(path, []byte(c.after), 0o644); err != nil {
				t.Fatal(err)
			}
			if got, err := f.Rewritten(); got != c.want || err != nil {
				t.Errorf("got %t, %v", got, err)
			}
		})
	}
}

func TestSkip(t *testing.T) {
	var text strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&text, "line %d %s\n", i, strings.Repeat("pad", i%100))
	}
	ls := strings.SplitAfter(text.String(), "\n")
	for name, data := range map[string]string{"plain": text.String(), "gzip": gz(t, text.String())} {
		offset := int64(0)
		for i := range 3000 {
			if i%97 == 0 || i > 2997 {
				f, err := Open(put(t, data))
				if err != nil {
					t.Fatal(err)
				}
				var seen []string
				n, err := f.Skip(offset, func(l []byte) { seen = append(seen, string(l)+"\n") })
				if err != nil || n != int64(i) || len(seen) != i || f.Offset() != offset {
					t.Fatalf("%s: skip to %d: %d lines, %d seen, offset %d, %v", name, offset, n, len(seen), f.Offset(), err)
				}
				if got := strings.Join(append(seen, all(t, f, 500)...), ""); got != text.String() {
					t.Fatalf("%s: skip to %d: text differs", name, offset)
				}
				f.Close()
			}
			offset += int64(len(ls[i]))
		}
	}
	f, err := Open(put(t, "short\n"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := f.Skip(100, nil); err == nil || n != 1 {
		t.Errorf("skip beyond the end: %d lines, %v", n, err)
	}
}

func TestHead(t *testing.T) {
	text := strings.Repeat("0123456789", 100)
	for _, data := range []string{text, gz(t, text), zst(t, text), gz(t, text+strings.Repeat("random", 1000))[:60]} {
		head, packing, err := Head(put(t, data), 20)
		if err != nil || string(head) != text[:20] || packing != Detect([]byte(data)) {
			t.Errorf("head %q, %v, %v", head, packing, err)
		}
	}
	if _, _, err := Head(filepath.Join(t.TempDir(), "none"), 20); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, _, err := Head(t.TempDir(), 20); err == nil {
		t.Error("a directory has no head")
	}
}

// FuzzBlocks holds the lines against the text, whatever the block size, the
// reads and the offset to go on from.
func FuzzBlocks(f *testing.F) {
	f.Add([]byte("a\nbb\n\nccc"), uint8(3), uint8(2), uint16(2))
	f.Add([]byte("\n\n\n"), uint8(1), uint8(1), uint16(1))
	f.Add(bytes.Repeat([]byte("long line "), 300), uint8(16), uint8(7), uint16(0))
	f.Fuzz(func(t *testing.T, text []byte, size, piece uint8, from uint16) {
		if Detect(text) != Plain {
			t.Skip()
		}
		r, err := Stream("-", &pieces{data: text, n: int(piece) + 1})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		begin := bytes.LastIndexByte(text[:min(int(from), len(text))], '\n') + 1
		if _, err := r.Skip(int64(begin), nil); err != nil {
			t.Fatalf("skip to %d of %d: %v", begin, len(text), err)
		}
		var want []string
		for l := range strings.Lines(string(text[begin:])) {
			want = append(want, l)
		}
		if diff := cmp.Diff(want, all(t, r, int(size)+1)); diff != "" {
			t.Error(diff)
		}
	})
}

// pieces gives data n bytes at a time.
type pieces struct {
	data []byte
	n    int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.n)], p.data)
	p.data = p.data[n:]
	return n, nil
}
