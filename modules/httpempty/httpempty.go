// Package httpempty reports hosts that ask for the front page of a well-known
// site again and again, as malware does to learn whether it is online.
package httpempty

import (
	"fmt"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
)

// Empty is the evidence this module emits.
const Empty evidence.Type = "EMPTY_CONNECTIONS"

// Config holds the sites and the threshold.
type Config struct {
	// MinRequests is how many requests to one site in a window are reported first, at least 2.
	MinRequests int64 `yaml:"min_requests"`
	// Hosts are the sites, 1 to 100, each with and without "www." in front.
	Hosts []string `yaml:"hosts"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "httpempty",
	Doc:   "empty requests to well-known sites, to learn whether one is online",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.HTTP),
	Needs: flow.Of(flow.HTTP),
	Emits: []evidence.Spec{{
		Type: Empty, Level: evidence.Medium, Tactic: evidence.Discovery, MITRE: []string{"T1016.001"}, Subject: "site", Over: "window", Method: "Threshold",
		Doc: "a host sent empty requests to a well-known site to learn whether it is online",
	}},
}, Config{MinRequests: 4, Hosts: []string{"bing.com", "google.com", "yandex.com", "yahoo.com", "duckduckgo.com", "gmail.com"}}, New)

// maxHosts bounds the list, which is walked for each request for "/".
const maxHosts = 100

// State is what the module remembers of one profile in one window.
type State struct {
	Sites map[string]Count // by the name in the configuration
}

// Count is what was asked of one site.
type Count struct {
	N    int64
	Step int
	UIDs []string // at most evidence.MaxUIDs
}

type rule struct {
	min   int64
	hosts []string
}

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MinRequests < 2 {
		return nil, fmt.Errorf("min_requests: %d is not at least 2", c.MinRequests)
	}
	if len(c.Hosts) < 1 || len(c.Hosts) > maxHosts {
		return nil, fmt.Errorf("hosts: %d names, want 1 to %d", len(c.Hosts), maxHosts)
	}
	r := rule{min: c.MinRequests}
	for _, h := range c.Hosts {
		if !strings.Contains(h, ".") || strings.ContainsAny(h, "/: ") {
			return nil, fmt.Errorf("hosts: %q is no name of a site", h)
		}
		r.hosts = append(r.hosts, strings.ToLower(h))
	}
	return r, nil
}

// Wants implements modules.Chooser. A request for the front page without a
// body is the whole of what tells such a check.
func (r rule) Wants(f *flow.Flow) bool {
	return front(f.HTTP.URI) && f.HTTP.RequestLen == 0 && r.site(f.HTTP.Host) != ""
}

// front reports whether a URI is that of a front page, also in the long form
// that proxies are sent.
func front(uri string) bool {
	if len(uri) > 8 && strings.EqualFold(uri[:7], "http://") {
		return strings.IndexByte(uri[7:], '/') == len(uri)-8
	}
	return uri == "/"
}

// site returns the name in the configuration that a Host header is for.
func (r rule) site(host string) string {
	if i := strings.IndexByte(host, ':'); i >= 0 { // the port
		host = host[:i]
	}
	if len(host) > 4 && strings.EqualFold(host[:4], "www.") {
		host = host[4:]
	}
	for _, h := range r.hosts {
		if len(h) == len(host) && strings.EqualFold(h, host) {
			return h
		}
	}
	return ""
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	site := r.site(f.HTTP.Host)
	c := st.Sites[site]
	c.N++
	if len(c.UIDs) < evidence.MaxUIDs && f.UID != "" {
		c.UIDs = append(c.UIDs, strings.Clone(f.UID))
	}
	step := modules.Step(c.N, r.min)
	report := step > c.Step
	c.Step = step
	if st.Sites == nil {
		st.Sites = make(map[string]Count)
	}
	st.Sites[site] = c
	if !report {
		return
	}
	e := evidence.Evidence{
		Type: Empty, Level: evidence.Medium, Confidence: 0.6,
		Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
		Victim:   evidence.Entity{Kind: evidence.Domain, Value: site, Direction: evidence.Dst, Port: f.DstPort},
		Description: fmt.Sprintf("%s sent %d empty requests for the front page of %s, as programs do to learn whether they are online.",
			f.Src, c.N, site),
		Proto: f.Proto.String(), DstPort: f.DstPort,
		UIDs: append([]string(nil), c.UIDs...), Count: c.N, Subject: site, Step: step,
	}
	cx.Emit(e)
}
