package bruteforce_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/bruteforce"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, bruteforce.Spec, "testdata/*.txtar") }

func failed(attempts int, banner string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.SSH)
	f.Src, f.Dst, f.DstPort = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.22"), 22
	f.SSH.AuthSuccess, f.SSH.AuthAttempts, f.SSH.Client = flow.False, attempts, banner
	return f
}

// TestBuckets holds the module to the attempts at which it reports, and to
// the confidences, for some thresholds and banners.
func TestBuckets(t *testing.T) {
	for _, c := range []struct {
		threshold, records, attempts int
		banner                       string
		want                         []string
	}{
		{9, 80, 1, "", []string{"9 0.5 1", "10 0.52 2", "12 0.56 3", "16 0.63 4", "24 0.79 5", "40 1 6", "72 1 7"}},
		{9, 12, 1, "SSH-2.0-OpenSSH_9.6", []string{"9 0.52 1", "10 0.54 2", "12 0.58 3"}},
		{9, 10, 1, "SSH-2.0-libssh2_1.11.0", []string{"9 0.57 1", "10 0.59 2"}},
		{9, 10, 1, "SSH-2.0-JSCH-0.1.54", []string{"9 0.57 1", "10 0.59 2"}},
		{9, 4, 6, "", []string{"12 0.56 3", "18 0.67 4", "24 0.79 5"}},
		{9, 9, 0, "", []string{"9 0.5 1"}},
		{9, 9, -1, "", []string{"9 0.5 1"}},
		{9, 1, 1 << 40, "", []string{"10000 1 14"}},
		{1, 3, 1, "", []string{"1 0.5 1", "2 0.51 2"}},
		{40, 41, 1, "", []string{"40 1 1", "41 1 2"}},
	} {
		t.Run(fmt.Sprintf("%d/%d/%s", c.threshold, c.attempts, c.banner), func(t *testing.T) {
			b := modtest.NewBench[bruteforce.State](t, bruteforce.Spec, &bruteforce.Config{Threshold: c.threshold, MinSessions: 20, MinServers: 10})
			var got []string
			b.Host.Emit = func(e evidence.Evidence) {
				got = append(got, fmt.Sprint(e.Count, e.Confidence, e.Step))
			}
			for range c.records {
				b.Handle(failed(c.attempts, c.banner))
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestStateIsBounded tries more servers than the limit allows, and then many
// accounts on one of them, which are counted all the same.
func TestStateIsBounded(t *testing.T) {
	b := modtest.NewBench[bruteforce.State](t, bruteforce.Spec, bruteforce.Spec.Defaults())
	n := 0
	b.Host.Emit = func(evidence.Evidence) { n++ }
	for i := range 20_000 {
		f := failed(8, strings.Repeat("x", 1000))
		f.Dst = netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
		f.UID = fmt.Sprintf("C%017d", i)
		b.Handle(f)
		c := new(flow.Flow)
		c.Reset(flow.Conn)
		c.Src, c.Dst, c.DstPort, c.Proto, c.OrigBytes, c.RespBytes = f.Src, f.Dst, 23, flow.TCP, 100, 100
		for range 20 {
			b.Handle(c)
		}
	}
	if n == 0 || len(b.State.Pending) != 256 || b.State.Dropped == 0 {
		t.Errorf("%d reports, %d pending, %d dropped", n, len(b.State.Pending), b.State.Dropped)
	}
	for i := range 100_000 {
		f := new(flow.Flow)
		f.Reset(flow.Kerberos)
		f.Src, f.Dst, f.DstPort, f.UID = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 88, fmt.Sprintf("C%017d", i)
		f.Kerberos.RequestType, f.Kerberos.ErrorMsg, f.Kerberos.Client = "AS", "KDC_ERR_PREAUTH_FAILED", fmt.Sprint("user", i)
		b.Handle(f)
	}
	if n := b.State.Campaigns.Len(); n > 2048 {
		t.Errorf("%d servers", n)
	}
	if n := b.Size(); n > 1<<20 {
		t.Errorf("a state of %d bytes", n)
	}
}

// TestHandleDoesNotAllocate holds failures that are not reported to no
// memory, once their server is known.
func TestHandleDoesNotAllocate(t *testing.T) {
	b := modtest.NewBench[bruteforce.State](t, bruteforce.Spec, bruteforce.Spec.Defaults())
	f := failed(1, "SSH-2.0-libssh")
	for range 100 {
		b.Handle(f)
	}
	if n := testing.AllocsPerRun(10, func() { b.Handle(f) }); n != 0 {
		t.Errorf("%v allocations for a failure", n)
	}
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]bruteforce.Config{
		"ssh_attempt_threshold: 0": {MinSessions: 1, MinServers: 1},
		"min_sessions: -9":         {Threshold: 1, MinSessions: -9, MinServers: 1},
		"min_servers: 1000001":     {Threshold: 1, MinSessions: 1, MinServers: 1_000_001},
	} {
		if _, err := bruteforce.Spec.New(&c, modules.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", c, err, want)
		}
	}
}

// TestOrderOfLogs holds the module to the same evidence whichever log is ahead.
func TestOrderOfLogs(t *testing.T) {
	var conns, sshs []*flow.Flow
	for i := range 120 {
		at := int64(1_700_000_000_000_000_000) + int64(i)*int64(5*time.Second)
		c := new(flow.Flow)
		c.Reset(flow.Conn)
		c.Time, c.UID, c.Proto, c.DstPort, c.OrigBytes, c.RespBytes = at, fmt.Sprintf("C%d", i), flow.TCP, 22, 1400, 1900
		c.Src, c.Dst = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.22")
		if i%2 == 0 {
			c.Dst = netip.MustParseAddr("192.0.2.23")
		}
		conns = append(conns, c)
		if i%2 == 0 || i > 110 { // one server's sessions are logged, the other's only long afterwards
			s := failed(1, "")
			s.Time, s.UID, s.Dst = at, c.UID, c.Dst
			sshs = append(sshs, s)
		}
	}
	got := modtest.Skew(t, bruteforce.Spec, bruteforce.Spec.Defaults(), sshs, conns)
	byConn := 0
	for _, l := range got {
		if strings.Contains(l, "short connections") {
			byConn++
			if strings.Contains(l, "192.0.2.23") {
				t.Errorf("judged by its connections although its log is there: %s", l)
			}
		}
	}
	if byConn != 1 {
		t.Errorf("%d reports by connections, want that of the server that ssh.log names too late: %q", byConn, got)
	}
}

// TestRealTraffic finds the guesses of a real client, with its log and by its
// connections, and none where people mistype their passwords, where hosts
// scan, and in benign traffic.
func TestRealTraffic(t *testing.T) {
	es := modtest.Evidence(t, bruteforce.Spec, modtest.Datasets(t, "pcap/zeek-logs/ssh_sshguess/ssh.log")...)
	if len(es) != 4 || es[0].Count != 10 || es[0].Confidence != 0.54 || es[3].Count != 24 || es[3].Attacker.Value != "192.168.56.1" {
		t.Errorf("%+v", es)
	}
	for _, f := range []string{
		"pcap/zeek-logs/test7-malicious/ssh.log", "zeek/horizontal-scan/conn.log", "zeek/portscan/conn.log", "zeek/isc-2021-10/conn.log",
		"zeek/isc-2021-10/ntlm.log", "zeek/isc-2021-10/kerberos.log", "zeek/test9-mixed/http.log", "zeek/simda-dga/http.log",
		"benign/ubuntu-2023-02-25/conn.log.labeled", "benign/win7ad-2023-02-26/conn.log.labeled",
		"argus/benign-bittorrent-normal-7.binetflow", "suricata/eve-scanned-home.json",
	} {
		for _, e := range modtest.Evidence(t, bruteforce.Spec, modtest.Datasets(t, f)...) {
			t.Errorf("%s: nobody guesses there: %s", f, e.Description)
		}
	}
}
