package dnsarpa_test

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/dnsarpa"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, dnsarpa.Spec, "testdata/*.txtar") }

// run asks for the names, each so long after the one before, and returns the
// state and the evidence.
func run(t *testing.T, step time.Duration, names ...string) (any, []evidence.Evidence) {
	t.Helper()
	r, err := dnsarpa.Spec.New(dnsarpa.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	var got []evidence.Evidence
	st, cx := r.NewState(), modules.NewContext(&modules.Host{Emit: func(e evidence.Evidence) { got = append(got, e) }})
	for i, n := range names {
		f := new(flow.Flow)
		f.Reset(flow.DNS)
		f.Src, f.UID, f.Time, f.DNS.Query = netip.MustParseAddr("10.0.0.1"), "C", int64(i)*int64(step), n
		if r.Chooser().Wants(f) {
			r.Handle(cx, st, f)
		}
	}
	return st, got
}

// TestNames says which names are those of addresses.
func TestNames(t *testing.T) {
	nibbles := strings.Repeat("0.", 31)
	for _, c := range []struct {
		format string // %d differs from name to name
		want   bool
	}{
		{"%d.1.168.192.in-addr.arpa", true},
		{"%d.1.168.192.IN-ADDR.ARPA.", true},
		{"%x." + nibbles + "ip6.arpa", true},
		{"%d.168.192.in-addr.arpa", false}, // a network
		{"a%d.b.c.d.e.in-addr.arpa", false},
		{"%x.0.0.0.ip6.arpa", false},
		{"lb%d._dns-sd._udp.0.168.192.in-addr.arpa", false},
		{"n%d.1.1.1.home.arpa", false},
		{"%d.1.168.192.in-addr.arpa.example.com", false},
		{"%d.arpa", false},
	} {
		var names []string
		for i := range 12 {
			names = append(names, fmt.Sprintf(c.format, i+1))
		}
		if _, got := run(t, time.Millisecond, names...); len(got) > 0 != c.want {
			t.Errorf("%s: %v, want %v", c.format, got, c.want)
		}
	}
}

// TestStateIsBounded walks through 200,000 addresses, fast and slowly.
func TestStateIsBounded(t *testing.T) {
	for _, step := range []time.Duration{time.Millisecond, 300 * time.Millisecond} {
		var names []string
		for i := range 200_000 {
			names = append(names, fmt.Sprintf("%d.%d.%d.10.in-addr.arpa", i%256, i/256%256, i/65536))
		}
		st, got := run(t, step, names...)
		if fast := step == time.Millisecond; fast != (len(got) > 0) || len(got) > 12 {
			t.Errorf("every %v: %d reports", step, len(got))
		}
		var b bytes.Buffer
		if err := gob.NewEncoder(&b).Encode(st); err != nil || b.Len() > 400_000 {
			t.Errorf("the state takes %d bytes, %v", b.Len(), err)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		cfg  dnsarpa.Config
		want string
	}{
		{dnsarpa.Config{MinNames: 1, Within: time.Second}, "min_names: 1"},
		{dnsarpa.Config{MinNames: 101, Within: time.Second}, "min_names: 101"},
		{dnsarpa.Config{MinNames: 10, Within: time.Millisecond}, "within: 1ms"},
		{dnsarpa.Config{MinNames: 10, Within: 2 * time.Hour}, "within: 2h"},
	} {
		if _, err := dnsarpa.Spec.New(&c.cfg, modules.Env{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want %s", c.cfg, err, c.want)
		}
	}
}

// TestRealTraffic finds nothing where nobody walks through a network.
func TestRealTraffic(t *testing.T) {
	for _, log := range []string{
		"zeek/simda-dga/dns.log", "zeek/isc-2021-10/dns.log", "zeek/test9-mixed/dns.log", "zeek/test10-mixed/dns.log",
		"pcap/zeek-logs/test7-malicious/dns.log", "suricata/eve-scanned-home.json",
	} {
		for _, e := range modtest.Evidence(t, dnsarpa.Spec, modtest.Datasets(t, log)...) {
			t.Errorf("%s: %s", log, e.Description)
		}
	}
}
