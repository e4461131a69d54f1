package format

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/profiler/profile"
)

// realFeed returns a file of the shared feeds, or skips the test.
func realFeed(tb testing.TB, pattern string) []string {
	tb.Helper()
	dir := os.Getenv("SLIPS_FEEDS")
	if dir == "" {
		dir = "../../../shared/feeds"
	}
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		tb.Fatal(err)
	}
	if len(files) == 0 {
		tb.Skipf("no real feeds: %s is not in %s (set SLIPS_FEEDS)", pattern, dir)
	}
	return files
}

// plainPublic is asked of real lists in place of the code under test: is every
// address of the network public? It tries the edges of each /24.
func plainPublic(p netip.Prefix) bool {
	a, end := p.Masked().Addr(), last(p.Masked())
	for a.IsValid() && !end.Less(a) {
		if !profile.IsPublic(a) {
			return false
		}
		b := a.As4()
		if p.Bits() <= 24 {
			b[3] = 255
			if !profile.IsPublic(netip.AddrFrom4(b)) {
				return false
			}
		}
		a = netip.AddrFrom4(b).Next()
	}
	return true
}

// TestFireHOL counts each list anew: what is not a comment is one entry, and
// only what is not public may be refused.
func TestFireHOL(t *testing.T) {
	files := append(realFeed(t, "firehol-mirror/*.netset"), realFeed(t, "firehol-mirror/*.ipset")...)
	total := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var want []netip.Prefix
		entries, comments := 0, 0
		for line := range bytes.Lines(data) {
			s := strings.TrimSpace(string(line))
			if s == "" || s[0] == '#' {
				comments++
				continue
			}
			entries++
			if !strings.Contains(s, "/") {
				s += "/32"
			}
			if p := netip.MustParsePrefix(s); plainPublic(p) {
				want = append(want, p)
			}
		}
		var got []netip.Prefix
		rep, err := Parse(bytes.NewReader(data), Options{Format: "netset"}, func(i intel.Indicator) error {
			if (i.Kind == intel.Address) != i.Prefix.IsSingleIP() {
				t.Errorf("%s: %v is a %v", file, i.Prefix, i.Kind)
			}
			got = append(got, i.Prefix)
			return nil
		})
		if err != nil || !slices.Equal(got, want) || rep.Comments != comments || rep.Lines != entries+comments || len(rep.Notes) != 0 {
			t.Errorf("%s: %v; %d indicators of %d, %d comments of %d, %v", file, err, len(got), len(want), rep.Comments, comments, rep.Notes)
		}
		if rep.Rejected[ErrNotPublic.Error()] != entries-len(want) || len(rep.Rejected) > 1 {
			t.Errorf("%s: %v, where %d are not public", file, rep.Rejected, entries-len(want))
		}
		total += len(got)
		t.Logf("%s: %d entries, rejected %v", filepath.Base(file), entries, rep.Rejected)
	}
	t.Logf("%d lists, %d indicators", len(files), total)
}

func TestIPsum(t *testing.T) {
	data, err := os.ReadFile(realFeed(t, "ipsum/ipsum.txt")[0])
	if err != nil {
		t.Fatal(err)
	}
	var want, got [4]int // by level
	for line := range bytes.Lines(data) {
		f := strings.Fields(string(line))
		if line[0] == '#' || len(f) != 2 {
			continue
		}
		switch {
		case len(f[1]) > 1 || f[1] >= "6":
			want[3]++
		case f[1] >= "3":
			want[2]++
		default:
			want[1]++
		}
	}
	rep, err := Parse(bytes.NewReader(data), Options{Format: "ipsum"}, func(i intel.Indicator) error {
		got[i.Level]++
		return nil
	})
	refused := 0
	for _, n := range rep.Rejected {
		refused += n
	}
	sum := func(a [4]int) int { return a[1] + a[2] + a[3] }
	if err != nil || sum(got)+refused != sum(want) || sum(got) < 100_000 || rep.Rejected[ErrNotPublic.Error()] != refused {
		t.Errorf("%v: %v of %v, rejected %v", err, got, want, rep.Rejected)
	}
	for l := range got {
		if got[l] > want[l] {
			t.Errorf("%d of level %d, there are %d", got[l], l, want[l])
		}
	}
	t.Log(got, rep.Rejected)
}

// TestSSLBL reads the real certificate list, and the same under its wrong name
// as JA3: there each line must be refused.
func TestSSLBL(t *testing.T) {
	data, err := os.ReadFile(realFeed(t, "sslbl/sslblacklist.csv")[0])
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]bool)
	for line := range strings.Lines(string(data)) {
		if h, _, ok := strings.Cut(line, ","); ok {
			if b, err := hex.DecodeString(h); err == nil && len(b) == 20 {
				want[hex.EncodeToString(b)] = true
			}
		}
	}
	rep, err := Parse(bytes.NewReader(data), Options{Format: "sslbl_cert"}, func(i intel.Indicator) error {
		if i.Kind != intel.CertSHA1 || !want[i.Value] || i.Since < 1388534400 || i.Description == "" {
			t.Errorf("%+v", i)
		}
		delete(want, i.Value)
		return nil
	})
	if err != nil || len(want) > 0 || rep.Indicators < 5000 || rep.Comments != 1 || len(rep.Rejected)+len(rep.Notes) > 0 {
		t.Errorf("%v, %d not read, %+v", err, len(want), rep)
	}
	rep, err = Parse(bytes.NewReader(data), Options{Format: "sslbl_ja3"}, func(intel.Indicator) error { return nil })
	if err != nil || rep.Indicators != 0 || rep.Rejected[ErrHash.Error()]+rep.Rejected[ErrKind.Error()] < 5000 {
		t.Errorf("read as ja3: %v %+v", err, rep)
	}
}

func TestZeekIntel(t *testing.T) {
	data, err := os.ReadFile(realFeed(t, "intel_example.intel")[0])
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]int)
	entries := 0
	for line := range strings.Lines(string(data)) {
		if f := strings.Split(strings.TrimSpace(line), "\t"); line[0] != '#' && len(f) == 5 {
			want[f[1]]++
			entries++
		}
	}
	got := make(map[string]int)
	rep, err := Parse(bytes.NewReader(data), Options{Format: "zeek"}, func(i intel.Indicator) error {
		switch i.Kind {
		case intel.Address:
			got["Intel::ADDR"]++
		case intel.Domain:
			got["Intel::DOMAIN"]++
		case intel.MD5, intel.SHA1, intel.SHA256:
			got["Intel::FILE_HASH"]++
		default:
			t.Errorf("%+v", i)
		}
		if i.Description == "" || len(i.Tags) != 1 {
			t.Errorf("%+v", i)
		}
		return nil
	})
	refused := 0
	for _, n := range rep.Rejected {
		refused += n
	}
	if err != nil || rep.Indicators+refused != entries || refused > entries/100 {
		t.Errorf("%v: %v of %v, rejected %v", err, got, want, rep.Rejected)
	}
	for _, e := range rep.Examples {
		t.Log(e.String())
	}
	t.Log(got)
}
