package whitelist

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/parsers/flow"
)

// short writes findings as "line applies side: why".
func short(fs []Finding) []string {
	var s []string
	for _, f := range fs {
		s = append(s, strings.TrimSpace(fmt.Sprintf("%d %v %s: %s", f.Rule.Line, f.Applies, f.Side, f.Why)))
	}
	return s
}

func TestExplainFlow(t *testing.T) {
	l := mustParse(t,
		"ip,1.2.3.4,dst,flows",
		"ip,1.2.3.4&port=443,src,flows",
		"ip,10.0.0.1,src,alerts",
		"ip,1.2.0.0/16,dst,both,2020-01-01",
		"ip,10.0.0.1&dst.port=80,src,flows",
		"ip,9.9.9.9,both,both",
		"ja3,6734f37431670b3ab4292b8f60f29984&src.ip=10.0.0.2,src,both",
	)
	f := with(tls("1.2.3.4", "a.example"), func(f *flow.Flow) { f.SSL.JA3 = "6734f37431670b3ab4292b8f60f29984" })
	want := []string{
		"1 true dst: all its conditions hold",
		"2 false dst: its value is on the dst side, and it is about src",
		"3 false src: its conditions hold, but it ignores evidence and not the record",
		"4 false dst: it expired at 2020-01-02T00:00:00Z",
		"5 false src: not so: dst.port=80",
		"7 false : not so: src.ip=10.0.0.2",
	}
	if d := cmp.Diff(want, short(l.ExplainFlow(f))); d != "" {
		t.Error(d)
	}
}

func TestExplainEvidence(t *testing.T) {
	l := mustParse(t,
		"organization,apple,dst,alerts",
		"ip,17.0.0.1,dst,flows",
		"evidence,BEACON,both,alerts",
		"domain,good.example,dst,alerts",
		"evidence,BEACON&src.ip=10.0.0.2,src,alerts",
	)
	e := to(ip("17.0.0.1", evidence.Dst, &evidence.Known{Feeds: []string{"x"}, Names: []evidence.Name{{Name: "good.example", From: "dns"}}}))
	no := ": it says who the peer is, and that does not count here: a feed names something, the address has names that are not listed, or it is the profile's own"
	want := []string{
		"1 false dst" + no,
		"2 false dst: its conditions hold, but it ignores records and not the evidence",
		"3 true : all its conditions hold",
		"4 false dst" + no,
		"5 false : not so: src.ip=10.0.0.2",
	}
	if d := cmp.Diff(want, short(l.ExplainEvidence(&e))); d != "" {
		t.Error(d)
	}
}

func TestExplainValue(t *testing.T) {
	l := mustParse(t,
		"ip,17.0.0.1,dst,flows",
		"range,17.0.0.0/16,both,both,2020-01-01",
		"organization,apple,src,alerts",
		"ip,10.0.0.5&dst.ip=17.0.0.1&dst.port=443/tcp,src,alerts",
		"domain,good.example,dst,both",
		"mac,00:1b:44:11:3a:b7,both,both",
		"asn,AS714,both,alerts",
		"port,443,dst,flows",
		"ja3,6734f37431670b3ab4292b8f60f29984,both,flows",
		"evidence,BEACON&dst.organization=apple,both,alerts",
		"module,beacon,both,alerts",
	)
	for in, want := range map[string][]string{
		"17.0.0.1": {
			"1 true dst: it ignores records that have it as dst",
			"2 false both: it expired at 2020-01-02T00:00:00Z",
			"3 true src: it ignores evidence that have it as src, and no feed names it",
			"4 true dst: it ignores evidence that have it as dst, if also ip=10.0.0.5 and dst.port=443/tcp",
			"10 true dst: it ignores evidence that have it as dst, if also evidence=BEACON, and no feed names it",
		},
		"9.9.9.9":                          nil,
		"WWW.good.example.":                {"5 true dst: it ignores records and evidence that have it as dst"},
		"bad.example":                      nil,
		"com":                              nil,
		"00-1b-44-11-3a-b7":                {"6 true both: it ignores records and evidence"},
		"AS714":                            {"3 true src: it ignores evidence that have it as src, and no feed names it", "7 true both: it ignores evidence, and no feed names it", "10 true dst: it ignores evidence that have it as dst, if also evidence=BEACON, and no feed names it"},
		"443":                              {"8 true dst: it ignores records that have it as dst"},
		"443/udp":                          {"8 true dst: it ignores records that have it as dst"},
		"443/tcp":                          {"4 true dst: it ignores evidence that have it as dst, if also ip=10.0.0.5 and dst.ip=17.0.0.1", "8 true dst: it ignores records that have it as dst"},
		"6734F37431670b3ab4292b8f60f29984": {"9 true : it ignores records"},
		"BEACON":                           {"10 true : it ignores evidence, if also dst.organization=apple, and no feed names it"},
		"beacon":                           {"11 true : it ignores evidence"},
	} {
		got, err := l.ExplainValue(in, now)
		if err != nil {
			t.Error(err)
		}
		if d := cmp.Diff(want, short(got)); d != "" {
			t.Errorf("%s: %s", in, d)
		}
	}
	for _, in := range []string{"", "a b", "http://x/", "1.2.3.4/8/9"} {
		if _, err := l.ExplainValue(in, now); err == nil {
			t.Errorf("%q was understood", in)
		}
	}
}

// TestSharedRead asks one list from several goroutines; the race detector sees
// whether it is written to.
func TestSharedRead(t *testing.T) {
	l := mustParse(t, "organization,apple,dst,both", "domain,good.example,both,both", "port,443/tcp,dst,both")
	done := make(chan bool)
	for range 4 {
		go func() {
			w := NewFlows(l, new(Tally))
			e := to(ip("17.0.0.1", evidence.Dst, nil))
			ok := true
			for i := range 100 {
				_, a := l.Evidence(&e)
				ok = ok && a && w.Ignore(conn("10.0.0.1", netip.AddrFrom4([4]byte{17, 0, 0, byte(i)}).String(), 1)) && len(l.ExplainEvidence(&e)) > 0
			}
			done <- ok
		}()
	}
	for range 4 {
		if !<-done {
			t.Error("another answer from another goroutine")
		}
	}
}
