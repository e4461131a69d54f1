package feeds

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slips-go/slips/feeds/intel"
)

// Real files go all the way through: read, stored, compiled, opened, and each
// of their entries is found.
func TestRealFeeds(t *testing.T) {
	root := os.Getenv("SLIPS_FEEDS")
	if root == "" {
		root = filepath.Join("..", "..", "shared", "feeds")
	}
	if !exists(root) {
		t.Skipf("no real feeds: %s is not there (SLIPS_FEEDS)", root)
	}
	var sources []Source
	for _, f := range []struct{ name, path, format string }{
		{"ipsum", "ipsum/ipsum.txt", "ipsum"},
		{"level1", "firehol-mirror/firehol_level1.netset", "netset"},
		{"level2", "firehol-mirror/firehol_level2.netset", "netset"},
		{"blocklist", "firehol-mirror/blocklist_de.ipset", "netset"},
		{"tor", "firehol-mirror/tor_exits.ipset", "netset"},
		{"zeek", "intel_example.intel", "zeek"},
		{"certs", "sslbl/sslblacklist.csv", "sslbl_cert"},
	} {
		path, err := filepath.Abs(filepath.Join(root, f.path))
		if err != nil {
			t.Fatal(err)
		}
		if !exists(path) {
			t.Skipf("no real feeds: %s is not there", path)
		}
		s := source(f.name, "")
		s.Path, s.Format, s.MaxSize = path, f.format, 64<<20
		sources = append(sources, s)
	}
	m := manager(t, Options{Sources: sources})
	results, err := m.Update(t.Context(), UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		t.Logf("%s: %s, %d entries, rejected %v %s", r.Name, r.Outcome, r.Count, r.Rejected, r.Reason)
		if r.Outcome != Added || r.Count == 0 {
			t.Errorf("%+v", r)
		}
	}
	v := m.View()
	text, err := os.ReadFile(sources[3].Path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	n := 0
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		a, err := netip.ParseAddr(line)
		if err != nil {
			continue // a range
		}
		n++
		found := false
		match := v.Address(a)
		for i := range match.Len() {
			found = found || match.At(i).Feed.Name == "blocklist"
		}
		if !found {
			t.Errorf("%s is in the feed and not in the view", a)
		}
	}
	if n < 100 {
		t.Errorf("only %d addresses compared", n)
	}
	t.Logf("%d indicators of all kinds: %v", m.opened.Indicators, v.Snapshot().Counts)
}

// million is a feed of a million names.
func million(b *testing.B) *Manager {
	b.Helper()
	var text bytes.Buffer
	for i := range 1_000_000 {
		fmt.Fprintf(&text, "host%d.domain%d.example%d.net\n", i, i%5003, i%977)
	}
	path := filepath.Join(b.TempDir(), "names.txt")
	if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
		b.Fatal(err)
	}
	s := source("names", "")
	s.Path, s.MaxSize, s.Kinds = path, 256<<20, []intel.Kind{intel.Domain}
	m, err := New(Options{Dir: filepath.Join(b.TempDir(), "feeds"), Sources: []Source{s}})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := m.Update(b.Context(), UpdateOptions{}); err != nil {
		b.Fatal(err)
	}
	return m
}

// What a run waits for when nothing has changed.
func BenchmarkLoad(b *testing.B) {
	m := million(b)
	b.ReportAllocs()
	for b.Loop() {
		m.opened, m.maps = indexInfo{}, 0
		v, err := m.Load(b.Context())
		if err != nil || !v.Domain("host7.domain7.example7.net").OK() {
			b.Fatal(err)
		}
	}
	if c := m.Counts(); c.Compiled != 1 {
		b.Fatalf("%+v", c)
	}
}

// What a changed feed costs: all stored content is read and compiled.
func BenchmarkCompile(b *testing.B) {
	m := million(b)
	entries := m.entries()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := compile(b.Context(), m.store, entries, nil, m.now()); err != nil {
			b.Fatal(err)
		}
	}
}
