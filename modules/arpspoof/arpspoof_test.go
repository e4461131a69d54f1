package arpspoof_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/arpspoof"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, arpspoof.Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for want, change := range map[string]func(*arpspoof.Config){
		`min_unasked: 2 is`:     func(c *arpspoof.Config) { c.MinUnasked = 2 },
		`min_unasked: 10001 is`: func(c *arpspoof.Config) { c.MinUnasked = 10_001 },
	} {
		c := arpspoof.Spec.Defaults().(*arpspoof.Config)
		change(c)
		_, err := arpspoof.Spec.New(c, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), "module arpspoof: "+want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func arp(sec float64, op, src, dst, mac, target string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.ARP)
	f.Time, f.Src, f.Dst = int64(sec*1e9), netip.MustParseAddr(src), netip.MustParseAddr(dst)
	f.ARP.Operation, f.ARP.SenderHW, f.ARP.TargetHW = op, mac, target
	f.SrcMAC = mac
	return f
}

const all = "ff:ff:ff:ff:ff:ff"

func mac(n int) string {
	return fmt.Sprintf("00:0a:%02x:%02x:%02x:01", byte(n>>16), byte(n>>8), byte(n))
}

// TestStrength says how sure the module gets of what it sees. The host
// 10.0.0.7 is a, the gateway 10.0.0.1 g, the rival 10.0.0.66 x.
func TestStrength(t *testing.T) {
	const a, g, x = "00:0a:00:00:00:07", "00:0a:00:00:00:01", "00:0a:00:00:00:66"
	own := []*flow.Flow{
		arp(0, "request", "10.0.0.7", "10.0.0.1", a, ""), arp(0, "request", "10.0.0.1", "10.0.0.7", g, ""),
		arp(0, "request", "10.0.0.66", "10.0.0.9", x, ""), arp(0, "request", "10.0.0.8", "10.0.0.9", mac(8), ""),
	}
	claim := func(sec float64, ip, hw string) *flow.Flow { return arp(sec, "reply", ip, ip, hw, all) }
	for _, c := range []struct {
		name    string
		gateway string
		records []*flow.Flow
		want    string
	}{
		{"one claim", "", []*flow.Flow{claim(1, "10.0.0.7", x)}, "0.15"},
		{"the same again", "", []*flow.Flow{claim(1, "10.0.0.7", x), claim(2, "10.0.0.7", x)}, "0.15"},
		{"the gateway's", "10.0.0.1", []*flow.Flow{claim(1, "10.0.0.1", x)}, "0.50"},
		{"of two stations", "", []*flow.Flow{claim(1, "10.0.0.7", x), claim(2, "10.0.0.8", x)}, "0.15 0.50"},
		{"of two stations, one the gateway", "10.0.0.1", []*flow.Flow{claim(1, "10.0.0.7", x), claim(2, "10.0.0.1", x)}, "0.15 0.80"},
		{
			"the owner speaks up thrice", "",
			[]*flow.Flow{
				claim(1, "10.0.0.7", x), claim(2, "10.0.0.7", a), claim(3, "10.0.0.7", x), claim(4, "10.0.0.7", a),
				claim(5, "10.0.0.7", x), claim(6, "10.0.0.7", a), claim(7, "10.0.0.7", x),
			},
			"0.15 0.50",
		},
		{"after ten minutes without a word", "", []*flow.Flow{claim(601, "10.0.0.7", x)}, "0.20 low"},
		{"just before", "", []*flow.Flow{claim(600, "10.0.0.7", x)}, "0.15"},
		{"in the other virtual network", "", []*flow.Flow{vlan(claim(1, "10.0.0.7", x), 7)}, "0.20 low"},
		{"an answer to a question", "", []*flow.Flow{
			arp(1, "request", "10.0.0.8", "10.0.0.7", mac(8), ""), arp(2, "reply", "10.0.0.7", "10.0.0.8", x, mac(8)),
		}, ""},
		{"an answer much later", "", []*flow.Flow{
			arp(1, "request", "10.0.0.8", "10.0.0.7", mac(8), ""), arp(7, "reply", "10.0.0.7", "10.0.0.8", x, mac(8)),
		}, "0.15"},
		{"a station that is not known otherwise", "", []*flow.Flow{claim(1, "10.0.0.7", mac(99))}, ""},
		{"and claims two", "", []*flow.Flow{claim(1, "10.0.0.7", mac(99)), claim(2, "10.0.0.8", mac(99))}, "0.50"},
		{"a shared hardware address", "", []*flow.Flow{claim(1, "10.0.0.7", "00:00:5e:00:01:07"), claim(2, "10.0.0.8", "00:00:0c:07:ac:01")}, ""},
		{"in capital letters", "", []*flow.Flow{claim(1, "10.0.0.7", strings.ToUpper(a))}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			b := modtest.NewBench[arpspoof.State](t, arpspoof.Spec, arpspoof.Spec.Defaults())
			b.Host.Emit = func(e evidence.Evidence) {
				if e.Type != arpspoof.MITM {
					return
				}
				s := fmt.Sprintf("%.2f", e.Confidence)
				if e.Level != evidence.Critical {
					s += " " + e.Level.String()
				}
				got = append(got, s)
			}
			if c.gateway != "" {
				b.Host.Net = &profile.Network{Gateway: netip.MustParseAddr(c.gateway)}
			}
			for _, f := range own {
				b.Handle(f)
			}
			for _, f := range c.records {
				b.Handle(f)
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got %s, want %s", s, c.want)
			}
		})
	}
}

func vlan(f *flow.Flow, n uint16) *flow.Flow {
	f.VLAN = n
	return f
}

// TestBounds invents stations, addresses and questions.
func TestBounds(t *testing.T) {
	b := modtest.NewBench[arpspoof.State](t, arpspoof.Spec, arpspoof.Spec.Defaults())
	for i := range 50_000 {
		sec := float64(i) / 100
		ip := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String()
		b.Handle(arp(sec, "request", ip, "10.9.9.9", mac(i), ""))
		b.Handle(arp(sec, "reply", "10.9.9.9", ip, mac(i), mac(7)))
		b.Handle(arp(sec, "reply", ip, "10.9.9.8", mac(i+1), all))
	}
	s := b.State
	if s.Owners.Len() > 8192 || s.Stations.Len() > 8192 || s.Asked.Len() > 16384 || s.Rivals.Len() > 512 || s.Claims.Len() > 2048 {
		t.Errorf("%d owners, %d stations, %d questions, %d rivals, %d claims", s.Owners.Len(), s.Stations.Len(), s.Asked.Len(), s.Rivals.Len(), s.Claims.Len())
	}
	if n := b.Size(); n > 3<<20 {
		t.Errorf("the state takes %d bytes", n)
	}
}

func TestRealTraffic(t *testing.T) {
	for _, name := range []string{"zeek/test16-malicious/arp.log", "zeek/test9-mixed/arp.log"} {
		got := modtest.Evidence(t, arpspoof.Spec, modtest.Datasets(t, name)...)
		if len(got) != 1 || got[0].Type != arpspoof.Unsolicited || got[0].Level != evidence.Low || got[0].Profile.String() != "192.168.1.15" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, e := range modtest.Evidence(t, arpspoof.Spec, modtest.Datasets(t, "argus/labelled-tabs.binetflow")...) {
		t.Errorf("benign: %s", e.Description)
	}
}
