package online

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/slips-go/slips/feeds/intel"
)

func TestDefaultsAskNobody(t *testing.T) {
	c := DefaultConfig()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	a, err := New(Options{Config: c})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range specs() {
		if s.limits(&c).Enabled {
			t.Errorf("%s is on", s.name)
		}
		for _, o := range s.asks {
			for _, k := range o.kinds {
				if a.Wants(o.why, k) {
					t.Errorf("%v is wanted for %s", k, o.why)
				}
			}
		}
	}
	a.Ask(Question{Of: intel.Address, Subject: publicV4, Why: Evidence})
	if err := a.Run(t.Context()); err != nil || len(a.Status()) != 0 || len(a.Refused()) != 0 {
		t.Errorf("%v, %v, %v", err, a.Status(), a.Refused())
	}
}

// The names in the table, in the configuration and in the fields are one.
func TestNamesOfServices(t *testing.T) {
	c := DefaultConfig()
	b, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := yaml.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	for _, s := range specs() {
		section, ok := m[s.name].(map[string]any)
		if !ok || section["enabled"] != false || section["timeout"] == nil {
			t.Errorf("%s: %v", s.name, m[s.name])
		}
		delete(m, s.name)
	}
	if len(m) != 2 { // never, url_queries
		t.Errorf("sections that are no service: %v", m)
	}
}

func TestValidate(t *testing.T) {
	c := DefaultConfig()
	c.Never = []string{"10.0.0.0/8", "a b", "example.com"}
	c.VirusTotal.RatePerMinute = 0
	c.VirusTotal.URL = "virustotal.com"
	c.RDNS.Timeout = -1
	c.RDNS.Server = "resolver.example:53"
	c.JARM.Queue = 1 << 30
	c.DNSBL.Zone = "zen"
	c.RDAP.Whois = "whois.iana.org"
	c.RDAP.Cache = -1
	c.RDAP.Negative = -1
	c.RDAP.CacheEntries = 0
	c.URLhaus.URL = "https://user:" + testKey + "@x.example/"
	err := c.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	want := strings.Split(`never: "a b": want an address, a network or a domain
rdns.timeout: -1ns: want 1ms to 5m0s
rdap.cache: -1ns: want 0s to 8760h0m0s
rdap.negative: -1ns: want 0s to 8760h0m0s
rdap.cache_entries: 0: want 1 to 1000000
virustotal.rate_per_minute: 0: want 1 to 60000
jarm.queue: 1073741824: want 1 to 100000
virustotal.url: "virustotal.com": want a URL such as https://api.example/v1/
urlhaus.url: it holds a user: keys belong into key_file
rdns.server: "resolver.example:53": want address:port, or nothing for the system's resolver
rdap.whois: "whois.iana.org": want host:port, or nothing for no WHOIS
dnsbl.zone: "zen": want the name of a zone`, "\n")
	if d := cmp.Diff(want, strings.Split(err.Error(), "\n")); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if _, err := New(Options{Config: c}); err == nil {
		t.Error("New took it")
	}
}

func TestKeys(t *testing.T) {
	t.Setenv("SLIPS_TEST_KEY", "fromenv")
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, []byte(strings.Repeat("x", maxKey+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file, env string
		want      []string
		err       string
	}{
		"none":         {},
		"file":         {file: keyFile(t, "", " abc ", "def"), want: []string{"abc", "def"}},
		"file and env": {file: keyFile(t, "abc"), env: "SLIPS_TEST_KEY", want: []string{"abc"}},
		"env":          {env: "SLIPS_TEST_KEY", want: []string{"fromenv"}},
		"env unset":    {env: "SLIPS_TEST_NO_KEY", err: `key_env: "SLIPS_TEST_NO_KEY": not set`},
		"no file":      {file: filepath.Join(t.TempDir(), "x"), err: "reading the key"},
		"empty":        {file: keyFile(t, " "), err: "empty: want a key"},
		"large":        {file: big, err: "larger than 4096 bytes"},
		"odd":          {file: keyFile(t, "s3cret\x01"), err: "holds what no key has"},
	} {
		got, err := readKey(c.file, c.env)
		if (err == nil) != (c.err == "") || err != nil && (!strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("%s: error %v, want %q", name, err, c.err)
		}
		if d := cmp.Diff(c.want, got); d != "" && err == nil {
			t.Errorf("%s: (-want +got)\n%s", name, d)
		}
	}
}

// A service that is on without its key is an error that names it, not one that
// asks in vain; all of them are named at once.
func TestEnabledWithoutAKey(t *testing.T) {
	c := DefaultConfig()
	for _, s := range []*Service{&c.VirusTotal, &c.PassiveDNS, &c.URLhaus, &c.AbuseIPDB, &c.Hashlookup, &c.GreyNoise} {
		s.Enabled = true
	}
	_, err := New(Options{Config: c})
	want := `virustotal: enabled without a key: set key_file or key_env
pdns: enabled without an account and a key: set key_file or key_env
urlhaus: enabled without a key: set key_file or key_env
abuseipdb: enabled without a key: set key_file or key_env`
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant\n%s", err, want)
	}
	c = DefaultConfig()
	c.VirusTotal.Enabled, c.VirusTotal.KeyFile = true, keyFile(t, "s3cret")
	if _, err := New(Options{Config: c}); err == nil || err.Error() != "virustotal: its key has 6 characters: want 64" {
		t.Errorf("%v", err)
	}
}
