package adabuse_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/adabuse"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, adabuse.Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for want, c := range map[string]adabuse.Config{
		"min_tickets: 1": {MinTickets: 1, MinHosts: 5, MinTries: 20},
		"min_hosts: 129": {MinTickets: 6, MinHosts: 129, MinTries: 20},
		"min_tries: 0":   {MinTickets: 6, MinHosts: 5},
	} {
		if _, err := adabuse.Spec.New(&c, modules.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", c, err, want)
		}
	}
}

func record(kind flow.Kind, sec int, src, dst string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(kind)
	f.Time, f.UID = (1_700_000_000+int64(sec))*1e9, fmt.Sprintf("C%d", sec)
	f.Src, f.Dst = netip.MustParseAddr(src), netip.MustParseAddr(dst)
	return f
}

// TestOrderOfLogs holds the module to the same evidence whichever log is
// ahead: a controller that is asked within ten minutes is one, and one that
// is asked later was not known.
func TestOrderOfLogs(t *testing.T) {
	var rpc, conns []*flow.Flow
	for i, src := range []string{"10.0.0.5", "10.0.0.6", "10.0.0.7"} {
		f := record(flow.DCERPC, 10*i, src, "10.0.0.2")
		f.DCERPC.Endpoint, f.DCERPC.Operation = "drsuapi", "DRSGetNCChanges"
		rpc = append(rpc, f)
	}
	for i, dst := range []string{"10.0.0.2", "10.0.0.6", "10.0.0.7"} {
		f := record(flow.Conn, []int{0, 500, 1000}[i], "10.0.0.9", dst)
		f.DstPort, f.State = 389, flow.Established
		conns = append(conns, f)
	}
	got := modtest.Skew(t, adabuse.Spec, adabuse.Spec.Defaults(), rpc, conns)
	if len(got) != 2 || !strings.Contains(got[0], "10.0.0.5") || !strings.Contains(got[1], "10.0.0.7") {
		t.Errorf("%q", got)
	}
}

// TestStateIsBounded has thousands of hosts do all of it.
func TestStateIsBounded(t *testing.T) {
	b := modtest.NewBench[adabuse.State](t, adabuse.Spec, adabuse.Spec.Defaults())
	for i := range 30_000 {
		src, dst := fmt.Sprintf("10.1.%d.%d", i>>8, i&255), fmt.Sprintf("10.2.%d.%d", i>>8, i&255)
		for _, op := range []string{"drsuapi DRSGetNCChanges", "drsuapi DRSBind", "netlogon NetrServerReqChallenge", "samr SamrGetMembersInGroup", "srvsvc NetrShareEnum"} {
			f := record(flow.DCERPC, i, src, dst)
			f.DCERPC.Endpoint, f.DCERPC.Operation, _ = strings.Cut(op, " ")
			b.Handle(f)
			f.Src = netip.MustParseAddr("10.0.0.1") // and one that asks all
			b.Handle(f)
		}
		k := record(flow.Kerberos, i, src, "10.0.0.2")
		k.Kerberos.RequestType, k.Kerberos.Success, k.Kerberos.Cipher, k.Kerberos.Service = "TGS", flow.True, "rc4-hmac", fmt.Sprint("a/b", i)
		b.Handle(k)
	}
	if b.Size() > 2<<20 || len(b.State.Pending) > 256 || b.State.Dropped == 0 {
		t.Errorf("%d bytes, %d pending, %d dropped", b.Size(), len(b.State.Pending), b.State.Dropped)
	}
}

// TestRealTraffic finds who listed a group's members in a domain, and takes
// nothing of its daily work, or of single captures, for more.
func TestRealTraffic(t *testing.T) {
	dir := "zeek/isc-2021-10/"
	es := modtest.Evidence(t, adabuse.Spec, modtest.Datasets(t, dir+"conn.log", dir+"dce_rpc.log", dir+"kerberos.log")...)
	if len(es) != 1 || es[0].Attacker.Value != "10.10.22.158" || es[0].Level != evidence.Low {
		t.Errorf("%+v", es)
	}
	for _, f := range []string{"pcap/zeek-logs/krb_kerberos_tso/dce_rpc.log", "pcap/zeek-logs/krb_kerberos_tso/kerberos.log", "pcap/zeek-logs/dce-rpc_mapi/dce_rpc.log", "pcap/zeek-logs/dce-rpc_dce_rpc_netlogon/dce_rpc.log"} {
		for _, e := range modtest.Evidence(t, adabuse.Spec, modtest.Datasets(t, f)...) {
			t.Errorf("%s: no abuse there: %s", f, e.Description)
		}
	}
}
