package feeds

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/feeds/intel"
)

func byName(t *testing.T, sources []Source, name string) Source {
	t.Helper()
	for _, s := range sources {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no feed %s", name)
	return Source{}
}

// The embedded list reads, and says of each feed what a user has to know.
func TestDefaults(t *testing.T) {
	sources, err := Sources("")
	if err != nil {
		t.Fatal(err)
	}
	if len(sources) < 45 {
		t.Errorf("only %d feeds", len(sources))
	}
	for _, s := range sources {
		if s.Provider == "" || !s.Enabled && s.Note == "" {
			t.Errorf("feed %s has no provider, or is off and does not say why", s.Name)
		}
		if s.Enabled && s.KeyFile != "" {
			t.Errorf("feed %s is on and needs a key", s.Name)
		}
		if !strings.HasPrefix(s.URL, "https://") {
			t.Errorf("feed %s: %s is not https", s.Name, s.URL)
		}
	}
	for name, want := range map[string]string{
		"feodo": "high", "threatfox": "high", "urlhaus": "high", "sslbl-certificates": "high", "firehol-level1": "low",
		"tor-exits": "info", "ipsum": "medium",
	} {
		if s := byName(t, sources, name); s.Level.String() != want || !s.Enabled {
			t.Errorf("feed %s: level %s, enabled %v, want %s and on", name, s.Level.String(), s.Enabled, want)
		}
	}
	if tor := byName(t, sources, "tor-exits"); !cmp.Equal(tor.Tags, []string{"tor-exit"}) {
		t.Errorf("tags of tor-exits: %q", tor.Tags)
	}
	if _, err := New(Options{Sources: sources}); err != nil {
		t.Error(err)
	}
}

// "builtin: false" leaves what the file itself switches on, wherever it stands.
func TestBuiltin(t *testing.T) {
	for _, text := range []string{
		"builtin: false\nfeeds:\n  feodo: { enabled: true }\n  urlhaus: { level: low }\n  tranco: { enabled: false }\n  ours: { path: x, format: lines }\n",
		"feeds:\n  feodo: { enabled: true }\n  ours: { path: x, format: lines }\nbuiltin: false\n",
	} {
		path := filepath.Join(t.TempDir(), "own.yaml")
		write(t, path, text)
		sources, err := Sources(path)
		if err != nil {
			t.Fatal(err)
		}
		var on []string
		for _, s := range sources {
			if s.Enabled {
				on = append(on, s.Name)
			}
		}
		if d := cmp.Diff([]string{"feodo", "ours"}, on); d != "" {
			t.Errorf("feeds that are on (-want +got):\n%s", d)
		}
	}
	path := filepath.Join(t.TempDir(), "own.yaml")
	write(t, path, "builtin: no\n")
	if _, err := Sources(path); err == nil || !strings.Contains(err.Error(), "own.yaml:1: builtin: ") {
		t.Error(err)
	}
}

// A file of one's own adds feeds and changes some of a known one.
func TestSourcesOverride(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "own.yaml")
	write(t, path, `
feeds:
  feodo: { level: critical, period: 2h }
  firehol-level1: { path: lists/level1.netset }
  tor-exits: { enabled: false }
  ours:
    url: file:///srv/ours.csv
    format: csv
    columns: { value: ioc, kind: "2", separator: tab }
    kinds: [ip, ja3]
    tags: []
    max_size: 2MiB
    expires_after: 7d
  remote:
    url: https://ti.example.org/taxii2/root/
    format: stix
    user: reader
    key_file: secret
    taxii: { collection: high }
    headers: { X-Api: "{key}" }
`)
	sources, err := Sources(path)
	if err != nil {
		t.Fatal(err)
	}
	feodo := byName(t, sources, "feodo")
	if feodo.Level != 4 || feodo.Period != 2*time.Hour || feodo.Format != "feodo" || feodo.URL == "" {
		t.Errorf("feodo: %+v", feodo)
	}
	if f := byName(t, sources, "firehol-level1"); f.URL != "" || f.Path != filepath.Join(dir, "lists/level1.netset") {
		t.Errorf("firehol-level1 is at %q %q", f.URL, f.Path)
	}
	if byName(t, sources, "tor-exits").Enabled {
		t.Error("tor-exits is on")
	}
	ours := byName(t, sources, "ours")
	want := Source{
		Name: "ours", Path: "/srv/ours.csv", Format: "csv", Kinds: []intel.Kind{intel.Address, intel.JA3}, Level: 2, Tags: []string{},
		Period: 24 * time.Hour, Enabled: true, MaxSize: 2 << 20, ExpiresAfter: 7 * 24 * time.Hour,
	}
	want.Columns.Value, want.Columns.Kind, want.Columns.Separator = "ioc", "2", "tab"
	if d := cmp.Diff(want, ours, cmp.AllowUnexported(Source{})); d != "" {
		t.Errorf("ours (-want +got):\n%s", d)
	}
	remote := byName(t, sources, "remote")
	if remote.Collection != "high" || remote.KeyFile != filepath.Join(dir, "secret") || remote.Provider != "ti.example.org" || !remote.taxii() {
		t.Errorf("remote: %+v", remote)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// What is wrong is named with its line.
func TestSourcesBad(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"feeds:\n  a: {url: https://e.org, format: lines, colour: red}", `own.yaml:2: feed a: unknown key "colour", known are`},
		{"feeds:\n  a:\n    url: https://e.org\n    format: lines\n    level: evil", `own.yaml:5: feed a: level: "evil" is not one of info`},
		{"feeds:\n  a: {url: https://e.org, format: exe}", `own.yaml:2: feed a: format: "exe" is not one of`},
		{"feeds:\n  a: {url: 'ftp://e.org/x', format: lines}", `"ftp://e.org/x" is not a URL of http`},
		{"feeds:\n  a: {url: 'https://u:p@e.org/x', format: lines}", `does not belong into a URL`},
		{"feeds:\n  a: {format: lines}", `own.yaml:2: feed a: want either url or path`},
		{"feeds:\n  a: {url: https://e.org, path: x, format: lines}", `want either url or path`},
		{"feeds:\n  a: {url: https://e.org}", `format is missing`},
		{"feeds:\n  a: {url: https://e.org, format: lines, period: 1s}", `"1s" is not from 1m0s`},
		{"feeds:\n  a: {url: https://e.org, format: lines, period: soon}", `"soon" is not a time`},
		{"feeds:\n  a: {url: https://e.org, format: lines, max_size: 9GiB}", `"9GiB" is not a size`},
		{"feeds:\n  a: {url: https://e.org, format: lines, enabled: maybe}", `"maybe" is neither true nor false`},
		{"feeds:\n  a: {url: https://e.org, format: lines, kinds: [car]}", `"car" is no kind`},
		{"feeds:\n  a: {url: https://e.org, format: lines, kinds: ip}", `kinds: want a list`},
		{"feeds:\n  a: {url: https://e.org, format: lines, headers: {'a b': c}}", `"a b" is no header`},
		{"feeds:\n  a: {url: 'https://e.org/{key}', format: lines}", `{key} needs key_file`},
		{"feeds:\n  a: {url: 'http://e.org/{key}', format: lines, key_file: k}", `a key is sent over https only`},
		{"feeds:\n  a: {url: https://e.org, format: lines, user: me}", `user needs key_file`},
		{"feeds:\n  a: {url: https://e.org, format: lines, taxii: {collection: x}}", `taxii goes with`},
		{"feeds:\n  a: {url: https://e.org, format: lines, columns: {value: x}}", `columns go with format csv`},
		{"feeds:\n  a: {url: https://e.org, format: csv, columns: {colour: x}}", `columns: unknown key "colour"`},
		{"feeds:\n  ../a: {url: https://e.org, format: lines}", `feed "../a": a name has`},
		{"feeds:\n  local-a: {url: https://e.org, format: lines}", `feed "local-a": a name has`},
		{"feeds:\n  a: {url: https://e.org, format: lines}\n  a: {enabled: false}", `own.yaml:3: feed a is given twice`},
		{"feeds: [a]", `want the names of feeds as keys`},
		{"fedes: {}", `unknown key "fedes", known are builtin, feeds`},
		{"feeds: {}\n---\nfeeds: {}", `more than one YAML document`},
		{"\tfeeds: {", `own.yaml: yaml:`},
		{"- a", `want keys and values`},
	} {
		path := filepath.Join(t.TempDir(), "own.yaml")
		write(t, path, c.text)
		if _, err := Sources(path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v, want %q", c.text, err, c.want)
		}
	}
	for _, text := range []string{"", "# nothing\n", "feeds:\n", "feeds: {}\n"} {
		path := filepath.Join(t.TempDir(), "own.yaml")
		write(t, path, text)
		if _, err := Sources(path); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzSources(f *testing.F) {
	f.Add("feeds:\n  a: {url: https://e.org, format: lines, columns: {value: x}, headers: {a: b}}")
	f.Add("feeds: {a: {<<: *x}, b: [1, 2], c: &d {path: x}}")
	f.Fuzz(func(t *testing.T, text string) {
		d := decoder{file: "fuzz", sources: make(map[string]*Source)}
		d.read([]byte(text))
		if len(d.problems) > 0 {
			return
		}
		for name, s := range d.sources {
			if s.Name != name || !isName(name) || s.check() != nil || s.MaxSize < 1 || s.MaxSize > maxMaxSize || s.Period < minPeriod {
				t.Fatalf("accepted %+v", *s)
			}
		}
	})
}

// The columns that the embedded list declares are those that the feeds have.
func TestDefaultColumns(t *testing.T) {
	sources, err := Sources("")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		want map[string]int
	}{
		"stalkerware":            {"type,indicator,app\ndomain,spy.example.com,Spy\nipv4,9.9.9.1,Spy\n", map[string]int{"domain": 1, "ip": 1}},
		"targeted-threats":       {"\"type\",\"ioc\",\"family\",\"country\",\"reference\"\n\"ip_address\",\"9.9.9.1\",\"RAT\",\"\",\"https://e.org\"\n", map[string]int{"ip": 1}},
		"civilsphere":            {"# Feed\n#\"type\",\"ioc\",\"description\",\"date_added\"\ndomain,a.example.com,x::y,2020/11/14\nip,9.9.9.1,x,\n", map[string]int{"domain": 1, "ip": 1}},
		"ctu-aip-24h":            {"# comment\n1,9.9.9.1,0.5\n2,9.9.9.2,0.4\n", map[string]int{"ip": 2}},
		"emerging-threats-block": {"# Spamhaus\n9.9.128.0/20\n\n# Feodo\n9.9.9.1\n", map[string]int{"range": 1, "ip": 1}},
		"tranco":                 {"1,example.com\r\n2,example.net\r\n", map[string]int{"popular": 2}},
		"spamhaus-asndrop":       {"{\"asn\":64496,\"rir\":\"arin\",\"domain\":\"e.org\",\"cc\":\"US\",\"asname\":\"X\"}\n{\"type\":\"metadata\",\"timestamp\":1}\n", map[string]int{"asn": 1}},
	} {
		path := filepath.Join(t.TempDir(), "feed")
		write(t, path, c.text)
		rep, err := Check(path, byName(t, sources, name), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
		if err != nil || rep.Verdict != "" || !cmp.Equal(rep.Kinds, c.want) || len(rep.Report.Rejected) != 0 {
			t.Errorf("%s: %v, %q, %v rejected %v, want %v", name, err, rep.Verdict, rep.Kinds, rep.Report.Rejected, c.want)
		}
	}
}
