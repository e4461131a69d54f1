package format

import (
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/profiler/profile"
)

// inForm fails when an indicator is not what the package promises.
func inForm(t *testing.T, i intel.Indicator, private bool) {
	t.Helper()
	text := i.Value
	switch i.Kind {
	case intel.Address, intel.Range:
		p := i.Prefix
		if !p.IsValid() || p.Masked() != p || p.Addr().Is4In6() || p.Addr().Zone() != "" || (i.Kind == intel.Address) != p.IsSingleIP() || text != "" {
			t.Fatalf("%v %v %q", i.Kind, p, text)
		}
		if !private && (!profile.IsPublic(p.Addr()) || !profile.IsPublic(last(p))) {
			t.Fatalf("%v is not public", p)
		}
		text = p.String()
	default:
		if i.Prefix.IsValid() || text == "" {
			t.Fatalf("%+v", i)
		}
	}
	again, err := Canonical(i.Kind, text)
	if err != nil || again.Kind != i.Kind || again.Value != i.Value || again.Prefix != i.Prefix {
		t.Fatalf("%v %q becomes %q %v: %v", i.Kind, text, again.Value, again.Prefix, err)
	}
	if len(i.Value) > maxURL || len(i.Description) > maxText || len(i.Tags) > maxTags || i.Since < 0 || i.Expires < 0 || i.Rank < 0 {
		t.Fatalf("out of bounds: %+v", i)
	}
	for _, s := range append(i.Tags, i.Value, i.Description) {
		if !utf8.ValidString(s) || strings.ContainsAny(s, "\r\n\x00") {
			t.Fatalf("not a line of text: %q", s)
		}
	}
	if i.Level > 4 && i.Level != intel.FeedLevel {
		t.Fatalf("level %d", i.Level)
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range feedCases() {
		f.Add(c.o.Format, c.in, c.o.Private)
	}
	f.Fuzz(func(t *testing.T, format, in string, private bool) {
		o := Options{Format: format, Private: private, Now: now}
		if format == "csv" && private {
			o.Columns = Columns{Value: "ioc", Kind: "type", Level: "3"}
		}
		got, rep, err := parse(o, in)
		if rep.Indicators != len(got) || rep.Lines < 0 || len(rep.Examples) > maxExamples {
			t.Fatalf("%+v", rep)
		}
		for _, e := range rep.Examples {
			if len(e.Text) > maxExample || e.Line > rep.Lines || rep.Rejected[e.Reason] == 0 {
				t.Fatalf("%+v", e)
			}
		}
		var bytewise []string
		rep2, err2 := Parse(iotest.OneByteReader(strings.NewReader(in)), o, func(i intel.Indicator) error {
			inForm(t, i, private)
			bytewise = append(bytewise, show(i))
			return nil
		})
		if d := cmp.Diff(got, bytewise); d != "" || (err == nil) != (err2 == nil) || err == nil && !cmp.Equal(rep, rep2) {
			t.Fatalf("read byte by byte: %v, %v: %s %s", err, err2, d, cmp.Diff(rep, rep2))
		}
	})
}

func FuzzDetect(f *testing.F) {
	for _, s := range []string{
		"1.2.3.4:80", "1.2.3.0/24", "::ffff:1.2.3.4/97", "a.example.com.", "*.b\u00fc.example", "hxxps[://]u@a[.]b:443/x?y#z", "a.b/?http://c", "http://[::1%1]:0/", md5a, ja4a,
		jarma, "AS64500", "a@b.c", "http://a.b://x", "((.).).com", "\uff41\u3002com", "fxp://x.y/[.]", "x(dot)y.z/(dot)", "p://x.y/://x.y[.]", "A://[::]/0",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, v, err := Detect(s)
		if err != nil {
			if k != intel.NoKind || v != "" {
				t.Fatal(k, v, err)
			}
			return
		}
		ind, err := Canonical(k, v)
		if err != nil {
			t.Fatalf("%v %q of %q: %v", k, v, s, err)
		}
		inForm(t, ind, true)
		if k == intel.URL {
			return // without its scheme it may look like a range
		}
		k2, v2, err := Detect(v)
		if k == intel.ASN {
			k2, v2, err = Detect("AS" + v)
		}
		if err != nil || k2 != k || v2 != v {
			t.Fatalf("%q: %v %q, then %v %q %v", s, k, v, k2, v2, err)
		}
	})
}

func FuzzPattern(f *testing.F) {
	f.Add("[ipv4-addr:value = '1.1.1.1' AND (file:hashes.'SHA-256' IN ('x', 'y') OR a:b[*].c LIKE 'z')] FOLLOWEDBY [NOT url:value != 'x'] WITHIN 5 SECONDS")
	f.Add("[x:y = t'2020' AND EXISTS x:y] REPEATS 5 TIMES")
	f.Fuzz(func(t *testing.T, s string) {
		values, err := patternValues(s)
		if (err == nil) != (len(values) > 0) {
			t.Fatal(values, err)
		}
		for _, v := range values {
			if len(v.text) > len(s) {
				t.Fatalf("%q is longer than the pattern", v.text)
			}
		}
	})
}
