package online

import (
	"context"
	"slices"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/parsers/flow"
)

// service asks one service about one subject. It is called by one goroutine at
// a time, with a context that has the service's time limit. Of the part it
// fills what the service says; Found must be set.
//
// An error is a *quotaError, a *refusedError, a *subjectError, or any other,
// which means that the service did not answer.
type service interface {
	ask(ctx context.Context, s subject) (flow.LookupPart, error)
}

// spec is what the package knows of a service.
type spec struct {
	name   string // as in the configuration, in answers and in logs
	asks   []occasion
	limits func(*Config) Limits
	build  func(*Options) (service, error)
	narrow func(subject) subject // to what is sent; nil: all but the port
}

// occasion is when a service is asked about which kinds.
type occasion struct {
	why   Why
	kinds []intel.Kind
}

func (s *spec) wants(why Why, of intel.Kind) bool {
	return slices.ContainsFunc(s.asks, func(o occasion) bool { return o.why == why && slices.Contains(o.kinds, of) })
}

// key returns what of a subject is sent to the service and kept in its cache.
func (s *spec) key(x subject) subject {
	if s.narrow != nil {
		return s.narrow(x)
	}
	x.port = 0
	return x
}

// specs is the table of the services: which one answers which kind, and when
// it is asked.
func specs() []*spec {
	address, hosts := []intel.Kind{intel.Address}, []intel.Kind{intel.Address, intel.Domain}
	hashes := []intel.Kind{intel.MD5, intel.SHA1, intel.SHA256}
	return []*spec{
		{
			name: "rdns", asks: []occasion{{Evidence, address}},
			limits: func(c *Config) Limits { return c.RDNS.Limits }, build: newReverse,
		},
		{
			name: "rdap", asks: []occasion{{NewDomain, []intel.Kind{intel.Domain}}, {Evidence, hosts}},
			limits: func(c *Config) Limits { return c.RDAP.Limits }, build: newRDAP, narrow: registered,
		},
		{
			name: "virustotal", asks: []occasion{{Evidence, append(hosts[:2:2], intel.URL)}, {File, hashes}},
			limits: func(c *Config) Limits { return c.VirusTotal.Limits }, build: newVirusTotal,
		},
		{
			name: "pdns", asks: []occasion{{Evidence, address}},
			limits: func(c *Config) Limits { return c.PassiveDNS.Limits }, build: newPassiveDNS,
		},
		{
			name: "urlhaus",
			asks: []occasion{
				{NewURL, []intel.Kind{intel.URL}},
				{Evidence, append(hosts[:2:2], intel.URL)},
				{File, []intel.Kind{intel.MD5, intel.SHA256}}, // it has no SHA-1
			},
			limits: func(c *Config) Limits { return c.URLhaus.Limits }, build: newURLhaus,
		},
		{
			name: "hashlookup", asks: []occasion{{File, hashes}},
			limits: func(c *Config) Limits { return c.Hashlookup.Limits }, build: newHashlookup,
		},
		{
			name: "dnsbl", asks: []occasion{{Inbound, address}},
			limits: func(c *Config) Limits { return c.DNSBL.Limits }, build: newDNSBL,
		},
		{
			name: "abuseipdb", asks: []occasion{{Evidence, address}},
			limits: func(c *Config) Limits { return c.AbuseIPDB.Limits }, build: newAbuseIPDB,
		},
		{
			name: "greynoise", asks: []occasion{{Evidence, address}},
			limits: func(c *Config) Limits { return c.GreyNoise.Limits }, build: newGreyNoise,
		},
		{
			name: "jarm", asks: []occasion{{C2, address}},
			limits: func(c *Config) Limits { return c.JARM }, build: newJARM,
			narrow: func(s subject) subject { return s }, // the port is what it is about
		},
	}
}
