package intel

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// sample has indicators of every kind.
func sample(tb testing.TB, n int) []byte {
	tb.Helper()
	items := generator{rand.New(rand.NewPCG(1, 2))}.items(n)
	for k, s := range map[Kind]string{
		JA3: strings.Repeat("a", 32), JA3S: strings.Repeat("b", 32), JA4: "t13d", JARM: strings.Repeat("c", 62), CertSHA1: strings.Repeat("d", 40),
		MD5: strings.Repeat("e", 32), SHA1: strings.Repeat("f", 40), SHA256: strings.Repeat("0", 64), ASN: "64500", Email: "a@b.example",
	} {
		items = append(items, item{1, text(k, s)})
	}
	return compile(tb, append(items, item{0, ip("192.0.2.1")}, item{0, ip("2001:db8::1")})...)
}

// Bytes that are damaged anywhere are refused.
func TestDamage(t *testing.T) {
	good := sample(t, 50)
	refused := func(what string, b []byte) {
		t.Helper()
		var fe *FormatError
		if v, err := Open(b); v != nil || !errors.As(err, &fe) || fe.Reason == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	b := slices.Clone(good)
	// The first levels of the ranges are large and alike: some bytes of them do.
	for i := range b {
		if i > 6000 && i%997 != 0 {
			continue
		}
		b[i] ^= 1 << (i % 8)
		refused("bit flipped", b)
		b[i] = good[i]
	}
	for _, n := range []int{0, 1, 11, 12, headerSize - 1, headerSize, len(good) / 2, len(good) - 8, len(good) - 1} {
		refused("cut off", good[:n])
	}
	refused("longer", append(slices.Clone(good), 0))
	refused("another file", []byte(strings.Repeat("<html>", 100)))
	b[len(magic)]++
	if _, err := Open(b); err == nil || !strings.Contains(err.Error(), "compile them anew") {
		t.Errorf("another version: %v", err)
	}
	if _, err := Open(good); err != nil {
		t.Error(err)
	}
}

// resum makes the checksum right again.
func resum(b []byte) {
	if len(b) >= headerSize {
		le.PutUint32(b[8:], checksum(b))
	}
}

// use asks a View for everything, and checks what can be checked of any answer.
func use(tb testing.TB, v *View, names ...string) {
	tb.Helper()
	look := func(m Match) {
		n := m.Len()
		if m.OK() != (n > 0) {
			tb.Fatalf("%v with %d listings", m.OK(), n)
		}
		for i := range min(n, 3) {
			if l := m.At(i); l.Feed == nil || l.Level > 4 {
				tb.Fatalf("listing %+v", l)
			}
			m.IndicatorAt(i)
		}
		m.Level()
		m.Kind()
		m.Harmless()
		m.Private()
	}
	for _, s := range append(names, "a.b", "x.A.longlabel.eightlet.", "a@b.example", "t13d", strings.Repeat("e", 32)) {
		look(v.Domain(s))
		v.Rank(s)
		look(v.URL(s, 8080, "/a?x=1"))
		look(v.URL("a.b", 80, s))
		for k := range NumKinds {
			look(v.Text(k, s))
		}
		if a, err := netip.ParseAddr(s); err == nil {
			look(v.Address(a))
		}
	}
	for _, s := range []string{"192.0.2.1", "2001:db8::1", "0.0.0.0", "255.255.255.255", "255.0.255.1", "::", "ff00:ff::ff"} {
		look(v.Address(netip.MustParseAddr(s)))
	}
	look(v.ASN(64500))
	n := 0
	v.Each(func(_ Kind, _ string, m Match) bool {
		look(m)
		n++
		return n < 100
	})
	v.Snapshot()
}

// Structures that are damaged under a right checksum are refused or answer, but
// never panic, hang or take memory for what is not there.
func TestDamagedStructure(t *testing.T) {
	good := sample(t, 200)
	r := rand.New(rand.NewPCG(5, 5))
	opened, refused := 0, 0
	b := make([]byte, len(good))
	for range 1500 {
		copy(b, good)
		for range 1 + r.IntN(4) {
			i := 12 + r.IntN(len(b)-12)
			if r.IntN(2) == 0 { // where the small sections are
				i = 12 + r.IntN(min(len(b)-12, 30000))
			}
			switch r.IntN(3) {
			case 0:
				b[i] ^= 1 << r.IntN(8)
			case 1:
				b[i] = 0xff
			case 2:
				b[i] = 0
			}
		}
		resum(b)
		v, err := Open(b)
		if err != nil {
			refused++
			continue
		}
		opened++
		use(t, v)
	}
	if opened < 100 || refused < 100 {
		t.Errorf("%d opened, %d refused: the test does not reach both", opened, refused)
	}
}

// FuzzOpen damages a small compiled form: each three bytes of the input are a place
// and a value. Inputs that begin with the magic are opened as they are.
func FuzzOpen(f *testing.F) {
	small := compile(f,
		item{0, text(Domain, "bad.example")}, item{1, text(Domain, "a.bad.example")}, item{0, text(URL, "a.b/a?x=1")}, item{0, text(URL, "a.b/a")},
		item{0, ip("192.0.2.1")}, item{1, text(MD5, strings.Repeat("e", 32))}, item{2, Indicator{Kind: Popular, Value: "a.b", Rank: 3}},
	)
	large := sample(f, 30)
	f.Add([]byte{}, false)
	f.Add([]byte{0, 40, 1}, false)
	f.Add([]byte{0, 12, 9, 0, 60, 255}, true)
	f.Add(slices.Clone(small), false)
	f.Fuzz(func(t *testing.T, edits []byte, ranges bool) {
		b := slices.Clone(small)
		if ranges {
			b = slices.Clone(large)
		}
		if strings.HasPrefix(string(edits), magic) {
			b = slices.Clone(edits)
		} else {
			for ; len(edits) >= 3; edits = edits[3:] {
				at := 12 + (int(edits[0])<<8|int(edits[1]))%(len(b)-12)
				b[at] = edits[2]
			}
		}
		resum(b)
		v, err := Open(b)
		if err != nil {
			var fe *FormatError
			if !errors.As(err, &fe) {
				t.Fatal(err)
			}
			return
		}
		use(t, v, "bad.example", "a.bad.example")
	})
}

// FuzzLookup asks anything of a good View, and checks it against what must hold:
// what is found is what was asked for.
func FuzzLookup(f *testing.F) {
	v := open(f, sample(f, 500))
	for _, s := range []string{"a.b", "A.b.", "", ".", "a..b", "255.255.0.0", "ff00::1", "/a?x=1", "http://a.b:8080/a", "a@b.example", "[::1]:80"} {
		f.Add(s, "/a?x", uint16(8080))
	}
	f.Fuzz(func(t *testing.T, s, uri string, port uint16) {
		use(t, v, s)
		if m := v.Domain(s); m.OK() {
			name, is := strings.ToLower(strings.TrimSuffix(s, ".")), m.Indicator()
			if name != is && !strings.HasSuffix(name, "."+is) || m.Exact() != (name == is) {
				t.Errorf("%q is found as %q", s, is)
			}
		}
		if m := v.URL(s, port, uri); m.OK() {
			in := text(URL, m.Indicator())
			if err := in.Check(); err != nil {
				t.Error(err)
			}
			if uri != "" && uri[0] == '/' && !strings.HasPrefix(uri, in.Value[strings.IndexByte(in.Value, '/'):]) {
				t.Errorf("%q %q is found as %q", s, uri, in.Value)
			}
		}
		if a, err := netip.ParseAddr(s); err == nil {
			if m := v.Address(a); m.OK() {
				p, err := netip.ParsePrefix(m.Indicator())
				if err == nil && !p.Contains(a.Unmap().WithZone("")) || err != nil && m.Indicator() != a.Unmap().WithZone("").String() {
					t.Errorf("%s is found as %s", s, m.Indicator())
				}
			}
		}
	})
}

// FuzzAdd adds anything: what is taken is found again as it was given, and
// compiling it twice gives the same bytes.
func FuzzAdd(f *testing.F) {
	f.Add(uint8(Domain), "bad.example", "1.2.3.0/24", "d", "t")
	f.Add(uint8(URL), "bad.example:443/x?y", "::/1", "", "")
	f.Add(uint8(Range), "", "192.0.2.1/32", "", "")
	f.Add(uint8(Email), "a@b", "ff::1/127", "\xff", "\x80")
	f.Add(uint8(ASN), "64500", "", "", "")
	f.Fuzz(func(t *testing.T, kind uint8, value, prefix, description, tag string) {
		p, _ := netip.ParsePrefix(prefix)
		in := Indicator{Kind: Kind(kind), Value: value, Prefix: p, Level: 1, Description: description, Tags: []string{tag}, Rank: 1}
		b := NewBuilder()
		if err := b.Add(b.AddFeed(Feed{Name: "f"}), in); err != nil {
			return
		}
		compiled := b.Compile(1)
		if !slices.Equal(compiled, b.Compile(1)) {
			t.Fatal("compiled twice")
		}
		v := open(t, compiled)
		var m Match
		switch in.Kind {
		case Address, Range:
			m = v.Address(p.Addr())
		case Domain:
			m = v.Domain(value)
		case URL:
			host, path, _ := strings.Cut(value, "/")
			m = v.URL(host, 0, "/"+path)
		case ASN:
			v.Each(func(_ Kind, _ string, x Match) bool { m = x; return true })
		case Popular:
			if v.Rank(value) != 1 {
				t.Fatalf("%q has no rank", value)
			}
			return
		default:
			m = v.Text(in.Kind, value)
		}
		if m.Len() != 1 || m.Exact() == (m.Kind() == Range) || m.At(0).Description != shorten(description, maxDescription) {
			t.Fatalf("%s %q %s: found %q", in.Kind, value, p, m.Indicator())
		}
	})
}
