package dga_test

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/dga"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, dga.Spec, "testdata/*.txtar") }

func missing(name string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.DNS)
	f.Src, f.UID, f.DNS.Query, f.DNS.RCode = netip.MustParseAddr("10.0.0.1"), "D"+name, name, "NXDOMAIN"
	return f
}

// run hands the module each name of the list, those that start with + as
// found, and returns its state and the last evidence.
func run(t *testing.T, names ...string) (*dga.State, evidence.Evidence, int) {
	t.Helper()
	r, err := dga.Spec.New(dga.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	var last evidence.Evidence
	n := 0
	st := r.NewState().(*dga.State)
	cx := modules.NewContext(&modules.Host{Emit: func(e evidence.Evidence) { last, n = e, n+1 }})
	for _, name := range names {
		f := missing(strings.TrimPrefix(name, "+"))
		if f.DNS.Query != name {
			f.DNS.RCode, f.DNS.Answers = "NOERROR", []string{"203.0.113.1"}
		}
		if r.Chooser().Wants(f) {
			r.Handle(cx, st, f)
		}
	}
	return st, last, n
}

// TestNames says of each list of names how many of them count, and how many
// of those look random.
func TestNames(t *testing.T) {
	for _, c := range []struct {
		name         string
		names        string
		want, random int64
	}{
		{"different domains", "a.com b.com c.org", 3, 0},
		{"the same in other letters, and with a dot", "www.xq.com WWW.XQ.com xq.com.", 1, 0},
		{"names below one domain", "a.xq.com b.xq.com c.d.xq.com", 1, 0},
		{"one label under many suffixes", "xq.com xq.net xq.co.uk", 1, 0},
		{"domains that a service gives away", "xq.ddns.net yq.ddns.net", 2, 0},
		{"single labels", "wpad qwertz com", 0, 0},
		{"service names", "_ldap._tcp.dc.example.com _kerberos.example.com", 0, 0},
		{"private zones", "a.local b.LOCAL c.lan d.in-addr.arpa e.corp f.internal g.home.arpa h.mynet i.onion", 0, 0},
		{"a name that only looks private", "local.com mylan", 1, 0},
		{"block lists", "1.2.3.4.zen.blocker.org 255.255.0.1.zen.blocker.org", 0, 0},
		{"roots beside the public one", "acdbejk.bazar bdehk.bit", 2, 1},
		{"nothing", " . .. .com com. co.uk", 0, 0},
		{"words", "silvergarden.com marketwinter.net candleforest.org thunderpocket.info", 4, 0},
		{"letters", "xkqzvbnwt.com pqjxzkvw.net wrtzpsdfg.org qhzkvmw.info", 4, 4},
		{"letters and digits", "a8f3k2m9x1.com 7bd0e31f.net", 2, 2},
		{"abbreviations and names in other letters are left alone", "xkqz.com xn--80ak6aa92e.com", 2, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if st, _, _ := run(t, strings.Split(c.names, " ")...); st.Names != c.want || st.Random != c.random {
				t.Errorf("%q: %d count, %d random, want %d and %d", c.names, st.Names, st.Random, c.want, c.random)
			}
		})
	}
}

// TestConfidence compares hosts by what speaks for an algorithm.
func TestConfidence(t *testing.T) {
	letters := func(n int) (names []string) { // random, of 9 to 13 letters
		x := uint32(7)
		for range n {
			var b []byte
			for range 9 + x>>8%5 {
				x = x*1664525 + 1013904223
				b = append(b, 'a'+byte(x>>24)%26)
			}
			names = append(names, string(b)+".com")
		}
		return names
	}
	words := strings.Fields("sea garden marketplace winter bridge candlelight fox thunder pocket up summer copperfield button window interplanetary river")
	pairs := func(prefix string, n int) (names []string) {
		for i := range n {
			names = append(names, prefix+words[i%16]+words[(i/16+i*5)%16]+words[i/64]+".com")
		}
		return names
	}
	found := func(n int, names []string) []string {
		for range n {
			names = append([]string{"+www.example.com"}, names...)
		}
		return names
	}
	for _, c := range []struct {
		name     string
		names    []string
		min, max float64
	}{
		{"ten generated", found(3, letters(10)), 0.5, 0.8},
		{"twenty generated", found(3, letters(20)), 1, 1},
		{"twenty generated of a busy host", found(2000, letters(20)), 0.8, 1},
		{"ten of words", found(3, pairs("", 10)), 0.2, 0.2},
		{"forty of words", found(3, pairs("", 40)), 0.8, 0.8},
		{"eighty of words", found(3, pairs("", 80)), 1, 1},
		{"eighty of words below a domain", found(3, pairs("ads.", 80)), 0.2, 0.2},
		{"160 of words where nothing resolves", pairs("", 160), 0.3, 0.3},
		{"160 of words among 16,000 that resolve", found(16000, pairs("", 160)), 0.6, 0.65},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, e, _ := run(t, c.names...); e.Confidence < c.min || e.Confidence > c.max {
				t.Errorf("%s; confidence %v, want %v to %v", e.Description, e.Confidence, c.min, c.max)
			}
		})
	}
}

// TestStateIsBounded feeds more names than the limit allows.
func TestStateIsBounded(t *testing.T) {
	var names []string
	for i := range 50_000 {
		names = append(names, fmt.Sprintf("n%d.com", i))
	}
	st, last, n := run(t, names...)
	if st.Seen.Len() != 8192 || st.Dropped < 41_000 || len(st.UIDs) != evidence.MaxUIDs {
		t.Errorf("%d names, %d uids, %d dropped", st.Seen.Len(), len(st.UIDs), st.Dropped)
	}
	if n != 20 || last.Count != 7680 || last.Confidence != 1 || last.Step != 20 {
		t.Errorf("%d evidence, the last of %d names with confidence %v, step %d", n, last.Count, last.Confidence, last.Step)
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(st); err != nil || b.Len() > 200_000 {
		t.Errorf("the state takes %d bytes, %v", b.Len(), err)
	}
}

func TestConfig(t *testing.T) {
	for _, n := range []int{-1, 0, 1, 8193} {
		_, err := dga.Spec.New(&dga.Config{MinNames: n}, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("min_names: %d", n)) {
			t.Errorf("min_names %d: error %v", n, err)
		}
	}
}

// TestRealTraffic finds the host that has Simda under both of its addresses,
// and nothing in networks whose malware has no such algorithm.
func TestRealTraffic(t *testing.T) {
	most := make(map[string]float64)
	for _, e := range modtest.Evidence(t, dga.Spec, modtest.Datasets(t, "zeek/simda-dga/dns.log")...) {
		most[e.Attacker.Value] += e.Confidence
	}
	// By half of its address the host asks for 15 such names, by the other for 113.
	if len(most) != 2 || most["192.168.1.116"] < 0.5 || most["fd77:48a1:c0bb:0:b96c:506d:6c7f:e8be"] < 2.5 {
		t.Errorf("Simda: sum of confidence by host: %v", most)
	}
	for _, log := range []string{"zeek/isc-2021-10/dns.log", "zeek/test9-mixed/dns.log", "zeek/test10-mixed/dns.log", "suricata/eve-scanned-home.json"} {
		for _, e := range modtest.Evidence(t, dga.Spec, modtest.Datasets(t, log)...) {
			t.Errorf("%s: no such malware there: %s", log, e.Description)
		}
	}
}
