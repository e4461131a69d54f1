package online

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// Config is the section "enrichment" of the configuration.
type Config struct {
	// Never lists addresses, networks and domains (with all below them) that
	// no service is told of.
	Never []string `yaml:"never"`
	// URLQueries sends URLs with what stands behind the question mark. That
	// part may hold passwords and names of people, so it is cut by default.
	URLQueries bool `yaml:"url_queries"`

	RDNS       Resolver `yaml:"rdns"`
	RDAP       RDAP     `yaml:"rdap"`
	VirusTotal Service  `yaml:"virustotal"`
	PassiveDNS Service  `yaml:"pdns"`
	URLhaus    Service  `yaml:"urlhaus"`
	Hashlookup Service  `yaml:"hashlookup"`
	DNSBL      DNSBL    `yaml:"dnsbl"`
	AbuseIPDB  Service  `yaml:"abuseipdb"`
	GreyNoise  Service  `yaml:"greynoise"`
	// JARM connects to the suspected server itself, which so learns that it
	// is looked at.
	JARM Limits `yaml:"jarm"`
}

// Limits are what every service has.
type Limits struct {
	Enabled       bool          `yaml:"enabled"`
	Timeout       time.Duration `yaml:"timeout"`         // of one question
	RatePerMinute int           `yaml:"rate_per_minute"` // requests; they are spaced evenly
	Queue         int           `yaml:"queue"`           // questions that may wait
	Cache         time.Duration `yaml:"cache"`           // how long an answer holds
	Negative      time.Duration `yaml:"negative"`        // how long "not known" and a failure hold
	CacheEntries  int           `yaml:"cache_entries"`   // answers kept
}

// Service is one with an address and, mostly, a key.
type Service struct {
	Limits  `yaml:",inline"`
	URL     string `yaml:"url"`      // base, without the path of a request
	KeyFile string `yaml:"key_file"` // file with the key in its first line; pdns: the account in the first, the key in the second
	KeyEnv  string `yaml:"key_env"`  // name of the environment variable with the key, "account:key" for pdns; used when there is no file
}

// Resolver is the service of reverse DNS.
type Resolver struct {
	Limits `yaml:",inline"`
	Server string `yaml:"server"` // "address:port"; empty: the system's resolver
}

// DNSBL is the service of a block list in the DNS.
type DNSBL struct {
	Limits  `yaml:",inline"`
	Server  string `yaml:"server"` // "address:port"; empty: the system's resolver
	Zone    string `yaml:"zone"`
	KeyFile string `yaml:"key_file"` // of a Spamhaus DQS account, whose zone is zen.dq.spamhaus.net
	KeyEnv  string `yaml:"key_env"`
}

// RDAP is the service of registrations.
type RDAP struct {
	Limits `yaml:",inline"`
	URL    string `yaml:"url"`   // folder of IANA's bootstrap files
	Whois  string `yaml:"whois"` // "host:port" of IANA's WHOIS, which knows the servers to fall back to; empty: no WHOIS
}

// DefaultConfig returns the settings with every service off.
func DefaultConfig() Config {
	const day = 24 * time.Hour
	limits := func(timeout time.Duration, perMinute, queue int, cache time.Duration) Limits {
		return Limits{Timeout: timeout, RatePerMinute: perMinute, Queue: queue, Cache: cache, Negative: 300 * time.Second, CacheEntries: 10_000}
	}
	return Config{
		Never: []string{},
		RDNS:  Resolver{Limits: limits(5*time.Second, 600, 1024, day)},
		RDAP: RDAP{
			Limits: limits(10*time.Second, 60, 512, 7*day),
			URL:    "https://data.iana.org/rdap/", Whois: "whois.iana.org:43",
		},
		// Four a minute is what a free key may do; three days as in the original.
		VirusTotal: Service{Limits: limits(15*time.Second, 4, 256, 3*day), URL: "https://www.virustotal.com/api/v3/"},
		PassiveDNS: Service{Limits: limits(15*time.Second, 10, 256, 7*day), URL: "https://api.riskiq.net/pt/v2/"},
		URLhaus:    Service{Limits: limits(10*time.Second, 60, 512, day), URL: "https://urlhaus-api.abuse.ch/v1/"},
		Hashlookup: Service{Limits: limits(10*time.Second, 60, 512, day), URL: "https://hashlookup.circl.lu/"},
		DNSBL:      DNSBL{Limits: limits(2*time.Second, 300, 1024, 6*time.Hour), Zone: "zen.spamhaus.org"},
		AbuseIPDB:  Service{Limits: limits(10*time.Second, 30, 256, day), URL: "https://api.abuseipdb.com/api/v2/"},
		GreyNoise:  Service{Limits: limits(10*time.Second, 10, 256, day), URL: "https://api.greynoise.io/v3/"},
		JARM:       limits(30*time.Second, 6, 64, day),
	}
}

// The ranges of the limits.
const (
	maxTimeout = 5 * time.Minute
	maxRate    = 60_000
	maxQueue   = 100_000 // a job is some 300 bytes
	maxCache   = 365 * 24 * time.Hour
	maxEntries = 1_000_000 // an answer is some 500 bytes
)

// Enabled reports whether any service is switched on.
func (c *Config) Enabled() bool {
	return slices.ContainsFunc(specs(), func(s *spec) bool { return s.limits(c).Enabled })
}

// Validate returns all that is wrong with the settings, one line each with key
// and value. Settings of services that are off are looked at too.
func (c *Config) Validate() error {
	var errs []error
	bad := func(key string, value any, want string) {
		if s, ok := value.(string); ok {
			value = fmt.Sprintf("%q", s)
		}
		errs = append(errs, fmt.Errorf("%s: %v: want %s", key, value, want))
	}
	for _, n := range c.Never {
		if _, _, ok := parseNever(n); !ok {
			bad("never", n, "an address, a network or a domain")
		}
	}
	for _, s := range specs() {
		l := s.limits(c)
		if l.Timeout < time.Millisecond || l.Timeout > maxTimeout {
			bad(s.name+".timeout", l.Timeout, "1ms to "+maxTimeout.String())
		}
		if l.RatePerMinute < 1 || l.RatePerMinute > maxRate {
			bad(s.name+".rate_per_minute", l.RatePerMinute, fmt.Sprint("1 to ", maxRate))
		}
		if l.Queue < 1 || l.Queue > maxQueue {
			bad(s.name+".queue", l.Queue, fmt.Sprint("1 to ", maxQueue))
		}
		if l.Cache < 0 || l.Cache > maxCache {
			bad(s.name+".cache", l.Cache, "0s to "+maxCache.String())
		}
		if l.Negative < 0 || l.Negative > maxCache {
			bad(s.name+".negative", l.Negative, "0s to "+maxCache.String())
		}
		if l.CacheEntries < 1 || l.CacheEntries > maxEntries {
			bad(s.name+".cache_entries", l.CacheEntries, fmt.Sprint("1 to ", maxEntries))
		}
	}
	for _, s := range []struct{ name, url string }{
		{"rdap", c.RDAP.URL},
		{"virustotal", c.VirusTotal.URL},
		{"pdns", c.PassiveDNS.URL},
		{"urlhaus", c.URLhaus.URL},
		{"hashlookup", c.Hashlookup.URL},
		{"abuseipdb", c.AbuseIPDB.URL},
		{"greynoise", c.GreyNoise.URL},
	} {
		u, err := url.Parse(s.url)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
			bad(s.name+".url", s.url, "a URL such as https://api.example/v1/")
		case u.User != nil:
			errs = append(errs, fmt.Errorf("%s.url: it holds a user: keys belong into key_file", s.name)) // and not into messages
		}
	}
	for _, s := range []struct{ name, server string }{{"rdns", c.RDNS.Server}, {"dnsbl", c.DNSBL.Server}} {
		if _, err := netip.ParseAddrPort(s.server); s.server != "" && err != nil {
			bad(s.name+".server", s.server, "address:port, or nothing for the system's resolver")
		}
	}
	if host, port, ok := strings.Cut(c.RDAP.Whois, ":"); c.RDAP.Whois != "" && (!ok || host == "" || port == "") {
		bad("rdap.whois", c.RDAP.Whois, "host:port, or nothing for no WHOIS")
	}
	if zone, ok := asciiName(c.DNSBL.Zone); !ok || !strings.Contains(zone, ".") {
		bad("dnsbl.zone", c.DNSBL.Zone, "the name of a zone")
	}
	return errors.Join(errs...)
}

// maxKey bounds a key's file, in bytes. A larger one is some other file.
const maxKey = 4096

// readKey returns the lines of a key's file, or what the environment has in
// its place; nil when neither is configured. The value is in no error.
func readKey(file, env string) ([]string, error) {
	switch {
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("reading the key: %w", err)
		}
		defer func() { _ = f.Close() }() // it was only read
		b, err := io.ReadAll(io.LimitReader(f, maxKey+1))
		if err != nil {
			return nil, fmt.Errorf("reading the key: %w", err)
		}
		if len(b) > maxKey {
			return nil, fmt.Errorf("key_file: %q: larger than %d bytes: want a key", file, maxKey)
		}
		var lines []string
		for l := range strings.Lines(string(b)) {
			if l = strings.TrimSpace(l); l != "" {
				lines = append(lines, l)
			}
		}
		if len(lines) == 0 {
			return nil, fmt.Errorf("key_file: %q: empty: want a key", file)
		}
		return lines, checkKey("key_file", file, lines)
	case env != "":
		v := strings.TrimSpace(os.Getenv(env))
		if v == "" {
			return nil, fmt.Errorf("key_env: %q: not set: want a key in it", env)
		}
		return []string{v}, checkKey("key_env", env, []string{v})
	}
	return nil, nil
}

// checkKey refuses what cannot stand in a header.
func checkKey(setting, value string, lines []string) error {
	for _, l := range lines {
		for i := range len(l) {
			if l[i] <= ' ' || l[i] > '~' {
				return fmt.Errorf("%s: %q: holds what no key has", setting, value)
			}
		}
	}
	return nil
}

// needKey is readKey for a service that does nothing without one.
func needKey(file, env string) (string, error) {
	lines, err := readKey(file, env)
	if err != nil {
		return "", err
	}
	if lines == nil {
		return "", errors.New("enabled without a key: set key_file or key_env")
	}
	return lines[0], nil
}
