package portzero

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, Spec, "testdata/*.txtar") }

var attacker = netip.MustParseAddr("10.0.0.1")

func conn(n int, sport, dport uint16) flow.Flow {
	return flow.Flow{
		Kind: flow.Conn, Src: attacker, Dst: modtest.Public(n), SrcPort: sport, DstPort: dport, HasPorts: true, Proto: flow.TCP,
		State: flow.NotEstablished, UID: "C1",
	}
}

// answered is a flow whose responder sent something.
func answered(f flow.Flow) flow.Flow {
	f.RespPkts, f.State = 1, flow.Established
	return f
}

func list(es []evidence.Evidence) string {
	var s []string
	for _, e := range es {
		s = append(s, fmt.Sprintf("%s %s %s>%s @%d:%d", e.Profile, e.Attacker.Direction, e.Attacker.Value, e.Victim.Value, e.Step, e.Count))
	}
	return strings.Join(s, "\n")
}

func TestCasesInMemory(t *testing.T) {
	for _, tt := range []struct {
		name string
		feed func(h func(flow.Flow))
		want string // profile, direction, attacker>victim, step:flows
	}{
		{"from port 0", func(h func(flow.Flow)) { h(conn(1, 0, 80)) }, "10.0.0.1 src 10.0.0.1>20.0.0.1 @1:1"},
		{"to port 0, which answers", func(h func(flow.Flow)) { h(answered(conn(1, 40000, 0))) }, "20.0.0.1 dst 20.0.0.1>10.0.0.1 @1:1"},
		{"a probe of port 0", func(h func(flow.Flow)) { h(conn(1, 40000, 0)) }, "10.0.0.1 src 10.0.0.1>20.0.0.1 @1:1"},
		{"both: the originator's", func(h func(flow.Flow)) { h(conn(1, 0, 0)) }, "10.0.0.1 src 10.0.0.1>20.0.0.1 @1:1"},
		{"port 1", func(h func(flow.Flow)) { h(conn(1, 1, 1)) }, ""},
		{"ports not logged", func(h func(flow.Flow)) {
			f := conn(1, 0, 0)
			f.HasPorts = false
			h(f)
		}, ""},
		{"protocols without ports", func(h func(flow.Flow)) {
			for p := flow.ProtoUnknown; p <= flow.ProtoOther; p++ {
				if f := conn(1, 0, 0); p != flow.TCP && p != flow.UDP && p != flow.SCTP {
					f.Proto = p
					h(f)
				}
			}
		}, ""},
		{"open, and open, and ended: one flow", func(h func(flow.Flow)) {
			for range 3 {
				f := conn(1, 0, 80)
				f.Open = true
				h(f)
			}
			h(conn(1, 0, 80))
		}, "10.0.0.1 src 10.0.0.1>20.0.0.1 @1:1"},
		{"multicast", func(h func(flow.Flow)) {
			f := conn(1, 0, 0)
			f.Dst = netip.MustParseAddr("224.0.0.1")
			h(f)
		}, ""},
		{"no source", func(h func(flow.Flow)) {
			f := conn(1, 0, 0)
			f.Src = netip.Addr{}
			h(f)
		}, ""},
		{"at each doubling", func(h func(flow.Flow)) {
			for range 10 {
				h(conn(1, 0, 80))
			}
		}, "10.0.0.1 src 10.0.0.1>20.0.0.1 @1:1\n10.0.0.1 src 10.0.0.1>20.0.0.1 @2:2\n" +
			"10.0.0.1 src 10.0.0.1>20.0.0.1 @3:4\n10.0.0.1 src 10.0.0.1>20.0.0.1 @4:8"},
		{"protocols and sides apart", func(h func(flow.Flow)) {
			h(conn(1, 0, 80))
			f := conn(1, 0, 80)
			f.Proto = flow.UDP
			h(f)
			h(answered(conn(1, 40000, 0)))
		}, "10.0.0.1 src 10.0.0.1>20.0.0.1 @1:1\n10.0.0.1 src 10.0.0.1>20.0.0.1 @1:1\n20.0.0.1 dst 20.0.0.1>10.0.0.1 @1:1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, reload := range []bool{false, true} {
				b := modtest.NewBench[State](t, Spec, Spec.Defaults())
				tt.feed(func(f flow.Flow) {
					b.Handle(&f)
					if reload {
						b.Reload()
					}
				})
				if got := list(b.Evidence); got != tt.want {
					t.Errorf("reload %v: got\n%s\nwant\n%s", reload, got, tt.want)
				}
			}
		})
	}
}

// With both hosts analysed, the flow is told once.
func TestServerSide(t *testing.T) {
	b := modtest.NewBench[State](t, Spec, Spec.Defaults())
	b.Host.Role = profile.Server
	f := conn(1, 0, 80)
	b.Handle(&f)
	if len(b.Evidence) != 0 {
		t.Errorf("got %v", b.Evidence)
	}
}

// Two hosts that meet the same port 0 are two subjects of its owner.
func TestSubjectNamesBothHosts(t *testing.T) {
	b := modtest.NewBench[State](t, Spec, Spec.Defaults())
	f := answered(conn(1, 40000, 0))
	b.Handle(&f)
	f = answered(conn(1, 40000, 0))
	f.Src = modtest.Public(9)
	b.Handle(&f)
	f = conn(2, 0, 80)
	b.Handle(&f)
	seen := map[string]bool{}
	for _, e := range b.Evidence {
		seen[e.Subject] = true
	}
	if !seen["with 10.0.0.1|tcp"] || !seen["to 20.0.0.2|tcp"] {
		t.Errorf("subjects: %v", seen)
	}
}

func TestBounds(t *testing.T) {
	b := modtest.NewBench[State](t, Spec, Spec.Defaults())
	for i := range 100_000 {
		f := conn(i, 0, 80)
		b.Handle(&f)
	}
	if n := b.State.Pairs.Len(); n > maxPairs {
		t.Errorf("%d pairs kept, at most %d wanted", n, maxPairs)
	}
	if len(b.Evidence) != freeSubjects-1 {
		t.Errorf("%d evidence", len(b.Evidence))
	}
}
