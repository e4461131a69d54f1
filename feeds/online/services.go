package online

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/parsers/flow"
)

// unknown is the answer of a service that does not know the subject.
func unknown() flow.LookupPart { return flow.LookupPart{Found: flow.False} }

// keyed makes the client of a service that wants its key in a header.
func keyed(c *Service, header string) (*web, error) {
	key, err := needKey(c.KeyFile, c.KeyEnv)
	if err != nil {
		return nil, err
	}
	return newWeb(c.URL, http.Header{header: {key}})
}

// virusTotal is VirusTotal's API in version 3.
type virusTotal struct{ *web }

// maxSeconds is the greatest time in unix s that still fits in ns.
const maxSeconds = 1<<63/1e9 - 1

// vtKey is the length of VirusTotal's keys.
const vtKey = 64

func newVirusTotal(o *Options) (service, error) {
	w, err := keyed(&o.Config.VirusTotal, "X-Apikey")
	if err != nil {
		return nil, err
	}
	if n := len(w.header.Get("X-Apikey")); n != vtKey {
		return nil, fmt.Errorf("its key has %d characters: want %d", n, vtKey)
	}
	return virusTotal{w}, nil
}

func (v virusTotal) ask(ctx context.Context, s subject) (p flow.LookupPart, err error) {
	var r struct {
		Data struct {
			Attributes struct {
				Stats struct {
					Malicious, Suspicious, Harmless, Undetected number
				} `json:"last_analysis_stats"`
				Threat struct {
					Label string `json:"suggested_threat_label"`
				} `json:"popular_threat_classification"`
				Tags    words
				ASN     number
				ASOwner string `json:"as_owner"`
				Country string
				Created number `json:"creation_date"`
			}
		}
	}
	id, folder, gui := s.text, "files", "file"
	switch s.kind {
	case intel.Address:
		folder, gui = "ip_addresses", "ip-address"
	case intel.Domain:
		folder, gui = "domains", "domain"
	case intel.URL:
		id, folder, gui = base64.RawURLEncoding.EncodeToString([]byte(s.text)), "urls", "url"
	default: // hashes
	}
	switch err := v.get(ctx, &r, nil, folder, id); {
	case errors.Is(err, errNotFound):
		return unknown(), nil
	case err != nil:
		return p, err
	}
	a := &r.Data.Attributes
	p.Found = flow.True
	p.Malicious = a.Stats.Malicious.count() + a.Stats.Suspicious.count()
	p.Total = p.Malicious + a.Stats.Harmless.count() + a.Stats.Undetected.count()
	if p.Total > 0 {
		p.Score = float64(p.Malicious) / float64(p.Total)
	}
	p.Verdict, p.Tags, p.Country = a.Threat.Label, a.Tags, country(a.Country)
	p.ASN, p.ASOrg = a.ASN.asn(), a.ASOwner
	if s.kind == intel.Domain && a.Created > 0 && a.Created < maxSeconds {
		p.Registered = int64(a.Created) * int64(time.Second)
	}
	if s.kind == intel.URL { // the page of a URL has another name than the question
		return p, nil
	}
	p.Link = "https://www.virustotal.com/gui/" + gui + "/" + id
	return p, nil
}

// passiveDNS is RiskIQ's, now Microsoft's, PassiveTotal in version 2.
type passiveDNS struct{ *web }

func newPassiveDNS(o *Options) (service, error) {
	c := &o.Config.PassiveDNS
	lines, err := readKey(c.KeyFile, c.KeyEnv)
	if err != nil {
		return nil, err
	}
	if len(lines) == 1 { // account:key
		account, key, _ := strings.Cut(lines[0], ":")
		lines = []string{account, key}
	}
	if len(lines) < 2 || lines[0] == "" || lines[1] == "" {
		return nil, errors.New("enabled without an account and a key: set key_file or key_env")
	}
	auth := base64.StdEncoding.EncodeToString([]byte(lines[0] + ":" + lines[1]))
	w, err := newWeb(c.URL, http.Header{"Authorization": {"Basic " + auth}})
	return passiveDNS{w}, err
}

// maxPassive is how many of the latest names are taken, as in the original.
const maxPassive = 10

func (s passiveDNS) ask(ctx context.Context, x subject) (p flow.LookupPart, err error) {
	type resolution struct {
		Resolve  string
		LastSeen string // "2006-01-02 15:04:05", so that text sorts like time
	}
	var r struct{ Results []resolution }
	switch err := s.get(ctx, &r, url.Values{"query": {x.text}}, "dns", "passive"); {
	case errors.Is(err, errNotFound):
		return unknown(), nil
	case err != nil:
		return p, err
	}
	slices.SortStableFunc(r.Results, func(a, b resolution) int { return strings.Compare(b.LastSeen, a.LastSeen) })
	for _, x := range r.Results {
		if name, ok := asciiName(x.Resolve); ok && len(p.Names) < maxPassive && !slices.Contains(p.Names, name) {
			p.Names = append(p.Names, name)
		}
	}
	if len(p.Names) == 0 {
		return unknown(), nil
	}
	p.Found = flow.True
	return p, nil
}

// urlHaus is abuse.ch's URLhaus in version 1.
type urlHaus struct{ *web }

func newURLhaus(o *Options) (service, error) {
	w, err := keyed(&o.Config.URLhaus, "Auth-Key")
	return urlHaus{w}, err
}

// scan is what VirusTotal said about a file that URLhaus has.
type scan struct {
	Result  string // "20 / 60"
	Percent number
}

// fill puts the opinions into an answer.
func (s *scan) fill(p *flow.LookupPart) {
	if s == nil {
		return
	}
	bad, all, _ := strings.Cut(s.Result, "/")
	b, err := strconv.Atoi(strings.TrimSpace(bad))
	a, err2 := strconv.Atoi(strings.TrimSpace(all))
	if err == nil && err2 == nil && 0 <= b && b <= a {
		p.Malicious, p.Total = b, a
	}
	p.Score = float64(s.Percent) / 100
}

func (u urlHaus) ask(ctx context.Context, s subject) (p flow.LookupPart, err error) {
	var r struct {
		Status    string `json:"query_status"`
		Reference string `json:"urlhaus_reference"`
		Threat    string
		URLStatus string `json:"url_status"`
		Tags      words
		Payloads  []struct {
			Signature  string
			VirusTotal *scan
		}
		URLCount   number `json:"url_count"`
		URLs       []struct{ Tags words }
		Blacklists map[string]any
		FileType   string `json:"file_type"`
		Signature  string
		VirusTotal *scan
	}
	path, field := "payload", s.kind.String()+"_hash"
	switch s.kind {
	case intel.URL:
		path, field = "url", "url"
	case intel.Address, intel.Domain:
		path, field = "host", "host"
	default: // hashes
	}
	if err := u.post(ctx, &r, path+"/", url.Values{field: {s.text}}); err != nil {
		if errors.Is(err, errNotFound) {
			return p, errors.New("it answered 404 Not Found: the base URL is wrong")
		}
		return p, err
	}
	switch r.Status {
	case "ok":
	case "no_results", "invalid_url", "invalid_host", "invalid_md5_hash", "invalid_sha256_hash":
		return unknown(), nil
	case "unknown_auth_key", "no_auth_key":
		return p, &refusedError{"it does not know the key"}
	default:
		return p, fmt.Errorf("it answered with the status %q", clip(r.Status))
	}
	p.Found, p.Link, p.Tags = flow.True, r.Reference, r.Tags
	switch s.kind {
	case intel.URL:
		p.Verdict = join(r.Threat, r.URLStatus)
		if len(r.Payloads) > 0 {
			p.Verdict = join(p.Verdict, r.Payloads[0].Signature)
			r.Payloads[0].VirusTotal.fill(&p)
		}
	case intel.Address, intel.Domain:
		p.Verdict = fmt.Sprintf("%d URLs", r.URLCount.count())
		for _, x := range r.URLs {
			for _, t := range x.Tags {
				if !slices.Contains(p.Tags, t) && len(p.Tags) < maxItems {
					p.Tags = append(p.Tags, t)
				}
			}
		}
		p.Malicious, p.Total = 0, len(r.Blacklists)
		for l, v := range r.Blacklists {
			if v, ok := v.(string); ok && v != "not listed" && v != "" {
				p.Lists = append(p.Lists, l)
				p.Malicious++
			}
		}
		slices.Sort(p.Lists)
	default:
		p.Verdict = join(r.Signature, r.FileType)
		r.VirusTotal.fill(&p)
	}
	return p, nil
}

// join puts two texts together where both are there.
func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + ", " + b
}

// hashLookup is CIRCL's hashlookup, which knows files, most of them good.
type hashLookup struct{ *web }

func newHashlookup(o *Options) (service, error) {
	w, err := newWeb(o.Config.Hashlookup.URL, nil)
	return hashLookup{w}, err
}

func (h hashLookup) ask(ctx context.Context, s subject) (p flow.LookupPart, err error) {
	var r struct {
		Malicious words   `json:"KnownMalicious"`
		Trust     *number `json:"hashlookup:trust"` // 0 to 100
		FileName  string
		Source    string `json:"source"`
	}
	switch err := h.get(ctx, &r, nil, "lookup", s.kind.String(), s.text); {
	case errors.Is(err, errNotFound):
		return unknown(), nil
	case err != nil:
		return p, err
	}
	p.Found, p.Verdict = flow.True, join("known", r.Source)
	p.Total = 1
	for _, l := range r.Malicious {
		p.Lists = append(p.Lists, strings.Fields(l)...)
	}
	if len(p.Lists) > 0 {
		p.Verdict, p.Malicious, p.Score = "known malicious", 1, 1
		if r.Trust != nil {
			p.Score = min(max(100-float64(*r.Trust), 0), 100) / 100
		}
	}
	return p, nil
}

// abuseIPDB is AbuseIPDB's check in version 2.
type abuseIPDB struct{ *web }

func newAbuseIPDB(o *Options) (service, error) {
	w, err := keyed(&o.Config.AbuseIPDB, "Key")
	return abuseIPDB{w}, err
}

// abuseDays is how far back reports count.
const abuseDays = 90

func (a abuseIPDB) ask(ctx context.Context, s subject) (p flow.LookupPart, err error) {
	var r struct {
		Data *struct {
			Score     number `json:"abuseConfidenceScore"` // 0 to 100
			Reports   number `json:"totalReports"`
			Users     number `json:"numDistinctUsers"`
			Country   string `json:"countryCode"`
			ISP       string
			Usage     string `json:"usageType"`
			Tor       bool   `json:"isTor"`
			White     bool   `json:"isWhitelisted"`
			Hostnames words
		}
	}
	q := url.Values{"ipAddress": {s.text}, "maxAgeInDays": {strconv.Itoa(abuseDays)}}
	if err := a.get(ctx, &r, q, "check"); err != nil {
		return p, err
	}
	d := r.Data
	if d == nil {
		return p, errors.New("the answer has no data")
	}
	p.Country, p.ASOrg, p.Names = country(d.Country), d.ISP, d.Hostnames
	p.Found = flow.False
	p.Link = "https://www.abuseipdb.com/check/" + s.text
	if d.Usage != "" {
		p.Tags = append(p.Tags, d.Usage)
	}
	if d.Tor {
		p.Tags = append(p.Tags, "tor")
	}
	if d.White {
		p.Tags = append(p.Tags, "whitelisted")
	}
	if d.Reports > 0 {
		p.Found, p.Score = flow.True, float64(d.Score)/100
		p.Verdict = fmt.Sprintf("%d reports by %d users in %d days", d.Reports.count(), d.Users.count(), abuseDays)
	}
	return p, nil
}

// greyNoise is GreyNoise's community API in version 3.
type greyNoise struct{ *web }

func newGreyNoise(o *Options) (service, error) {
	c := &o.Config.GreyNoise
	lines, err := readKey(c.KeyFile, c.KeyEnv)
	if err != nil {
		return nil, err
	}
	var h http.Header
	if lines != nil { // it answers without one too, but less often
		h = http.Header{"Key": {lines[0]}}
	}
	w, err := newWeb(c.URL, h)
	return greyNoise{w}, err
}

func (g greyNoise) ask(ctx context.Context, s subject) (p flow.LookupPart, err error) {
	var r struct {
		Noise, Riot    bool
		Classification string
		Name, Link     string
	}
	switch err := g.get(ctx, &r, nil, "community", s.text); {
	case errors.Is(err, errNotFound):
		return unknown(), nil
	case err != nil:
		return p, err
	}
	if !r.Noise && !r.Riot && r.Classification == "" {
		return unknown(), nil
	}
	p.Found, p.Verdict, p.Link = flow.True, r.Classification, r.Link
	p.Total = 1
	if r.Classification == "malicious" {
		p.Malicious, p.Score = 1, 1
	}
	if r.Noise {
		p.Tags = append(p.Tags, "noise")
	}
	if r.Riot {
		p.Tags = append(p.Tags, "riot")
	}
	if r.Name != "" && r.Name != "unknown" {
		p.ASOrg = r.Name
	}
	return p, nil
}

// country returns an ISO 3166-1 alpha-2 code, or nothing when it is none.
func country(s string) string {
	s = strings.ToUpper(strings.TrimSpace(s))
	if len(s) != 2 || s[0] < 'A' || s[0] > 'Z' || s[1] < 'A' || s[1] > 'Z' {
		return ""
	}
	return s
}

// asn returns the number of an autonomous system as "64500" or "AS64500"; 0
// when it is none.
func asn(s string) uint32 {
	s = strings.TrimSpace(s)
	if len(s) > 2 && strings.EqualFold(s[:2], "as") {
		s = s[2:]
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}
