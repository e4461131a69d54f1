package doh_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/doh"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, doh.Spec, "testdata/*.txtar") }

// TestProviders says which hosts are those of a provider.
func TestProviders(t *testing.T) {
	r, err := doh.Spec.New(doh.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		host string
		want bool
	}{
		{"dns.google", true},
		{"DNS.Google", true},
		{"dns.google:443", true},
		{"x.dns.quad9.net", true},
		{"chrome.cloudflare-dns.com", true},
		{"", false},
		{".", false},
		{"google", false},
		{"xdns.google", false},
		{"dns.google.example.com", false},
		{"quad9.net", false},
		{"-cloudflare-dns.com", false},
		{strings.Repeat("a.", 60) + "dns.google", true},
		{strings.Repeat("a.", 150) + "dns.google", false},
	} {
		f := new(flow.Flow)
		f.Reset(flow.HTTP)
		f.Src, f.Dst, f.HTTP.Host = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("203.0.113.1"), c.host
		if got := r.Chooser().Wants(f); got != c.want {
			t.Errorf("%q: %v, want %v", c.host, got, c.want)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, n := range []int{-1, 0, 1001} {
		_, err := doh.Spec.New(&doh.Config{MaxPerWindow: n}, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("max_per_window: %d", n)) {
			t.Errorf("%d: error %v", n, err)
		}
	}
}

// TestRealTraffic finds no encrypted DNS in traffic from before there was any.
func TestRealTraffic(t *testing.T) {
	for _, e := range modtest.Evidence(t, doh.Spec, modtest.Datasets(t, "zeek/njrat/conn.log", "zeek/simda-dga/http.log")...) {
		t.Error(e.Description)
	}
}
