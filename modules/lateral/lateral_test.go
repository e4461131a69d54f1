package lateral_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/lateral"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, lateral.Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for _, n := range []int{0, 1, 2049} {
		want := fmt.Sprintf("min_hosts: %d is not between 2 and 2048", n)
		if _, err := lateral.Spec.New(&lateral.Config{MinHosts: n}, modules.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// TestStateIsBounded has a worm reach, and write to, 50,000 hosts.
func TestStateIsBounded(t *testing.T) {
	b := modtest.NewBench[lateral.State](t, lateral.Spec, lateral.Spec.Defaults())
	fanouts := 0
	b.Host.Emit = func(e evidence.Evidence) {
		if e.Type == lateral.Fanout {
			fanouts++
		}
	}
	for i := range 50_000 {
		uid := fmt.Sprintf("C%017d", i)
		c, s := new(flow.Flow), new(flow.Flow)
		c.Reset(flow.Conn)
		c.Proto, c.State, c.OrigBytes, c.RespBytes = flow.TCP, flow.Established, 1000, 1000
		s.Reset(flow.SMB)
		s.SMB.Action, s.SMB.Path, s.SMB.Name = "SMB::FILE_WRITE", `\\x\ADMIN$`, strings.Repeat("x", 1000)+".exe"
		for _, f := range []*flow.Flow{c, s} {
			f.Src, f.Dst, f.DstPort, f.UID = netip.MustParseAddr("10.0.0.1"), netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 445, uid
			b.Handle(f)
		}
	}
	if b.Size() > 1<<20 || fanouts != 13 { // 8, 16 … 32,768
		t.Errorf("%d bytes, %d fan-outs", b.Size(), fanouts)
	}
}

// TestRealTraffic finds the infected host that opens the service managers of
// others in a domain, and nothing else: not in the domain's daily work, not
// in benign traffic.
func TestRealTraffic(t *testing.T) {
	dir := "zeek/isc-2021-10/"
	es := modtest.Evidence(t, lateral.Spec, modtest.Datasets(t, dir+"conn.log", dir+"dce_rpc.log", dir+"smb_files.log", dir+"smb_mapping.log", dir+"http.log")...)
	if len(es) != 1 || es[0].Attacker.Value != "10.10.22.156" || es[0].Type != lateral.RemoteService {
		t.Errorf("%+v", es)
	}
	for _, f := range []string{
		"benign/ubuntu-2023-02-25/conn.log.labeled", "benign/win7ad-2023-02-26/conn.log.labeled",
		"argus/benign-bittorrent-normal-7.binetflow", "pcap/zeek-logs/smb_smb2_100_small_files/smb_files.log", "pcap/zeek-logs/krb_kerberos_tso/dce_rpc.log",
	} {
		for _, e := range modtest.Evidence(t, lateral.Spec, modtest.Datasets(t, f)...) {
			t.Errorf("%s: nobody spreads there: %s", f, e.Description)
		}
	}
}
