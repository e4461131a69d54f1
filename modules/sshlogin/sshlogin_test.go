package sshlogin_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/sshlogin"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, sshlogin.Spec, "testdata/*.txtar") }

const base = 1_700_000_000 // s

func record(k flow.Kind, sec float64, uid, dst string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(k)
	f.Time = base*1e9 + int64(sec*1e9)
	f.Src, f.Dst, f.DstPort, f.Proto, f.UID = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr(dst), 22, flow.TCP, uid
	return f
}

func ssh(sec float64, uid, dst string, success flow.Tri) *flow.Flow {
	f := record(flow.SSH, sec, uid, dst)
	f.SSH.AuthSuccess = success
	return f
}

func conn(sec float64, uid, dst string, bytes int64) *flow.Flow {
	f := record(flow.Conn, sec, uid, dst)
	f.State, f.Service, f.OrigBytes, f.RespBytes = flow.Established, "ssh", bytes/3, bytes-bytes/3
	return f
}

// reported returns the uids and the step of each evidence, and what its
// description says between the server and the confidence.
func reported(lines []string) []string {
	var out []string
	for _, l := range lines {
		p := strings.Fields(l)
		_, how, _ := strings.Cut(l, ":22")
		how, _, _ = strings.Cut(how, "; confidence")
		out = append(out, p[8]+" "+p[6]+how)
	}
	return out
}

// TestOrderOfLogs holds the module to the same evidence whichever log is
// ahead, by a few records or by all of them.
func TestOrderOfLogs(t *testing.T) {
	const server = "192.0.2.22"
	for _, c := range []struct {
		name string
		ssh  []*flow.Flow
		conn []*flow.Flow
		want []string
	}{
		{
			"Zeek's word is enough",
			[]*flow.Flow{ssh(0, "S1", server, flow.True)},
			nil,
			[]string{"uids=S1 step=1; detected by Zeek"},
		},
		{
			"with the bytes when the connection ends soon, without when it goes on",
			[]*flow.Flow{ssh(0, "S1", server, flow.True), ssh(100, "S2", "192.0.2.23", flow.True), ssh(300, "S3", "192.0.2.24", flow.False)},
			[]*flow.Flow{conn(0, "S1", server, 100), conn(400, "X", "192.0.2.99", 1), conn(100, "S2", "192.0.2.23", 99)},
			[]string{"uids=S1 step=1, 100 bytes; detected by Zeek", "uids=S2 step=1; detected by Zeek"},
		},
		{
			"unknown to Zeek: more than 4290 bytes",
			[]*flow.Flow{ssh(0, "S1", server, flow.Unset), ssh(1, "S2", "192.0.2.23", flow.Unset)},
			[]*flow.Flow{conn(0, "S1", server, 4290), conn(1, "S2", "192.0.2.23", 4291)},
			[]string{"uids=S2 step=1, 4291 bytes; detected by Slips, by the bytes of the session"},
		},
		{
			"a login that Zeek saw fail is none, however many bytes",
			[]*flow.Flow{ssh(0, "S1", server, flow.False)},
			[]*flow.Flow{conn(0, "S1", server, 9999)},
			nil,
		},
		{
			"hours may lie between the two records",
			[]*flow.Flow{ssh(0, "S1", server, flow.Unset), ssh(9000, "S2", server, flow.False)},
			[]*flow.Flow{conn(8000, "X", server, 1), conn(0, "S1", server, 5000)},
			[]string{"uids=S1 step=1, 5000 bytes; detected by Slips, by the bytes of the session"},
		},
		{
			"no connection record, no bytes, no evidence",
			[]*flow.Flow{ssh(0, "S1", server, flow.Unset)},
			[]*flow.Flow{conn(0, "S9", server, 5000)},
			nil,
		},
		{
			"again when the number of logins doubles",
			[]*flow.Flow{
				ssh(0, "S1", server, flow.True), ssh(10, "S2", server, flow.Unset), ssh(20, "S3", server, flow.True),
				ssh(30, "S4", server, flow.True), ssh(3600, "S5", server, flow.True),
			},
			[]*flow.Flow{conn(10, "S2", server, 7000), conn(7200, "X", server, 1)},
			[]string{
				"uids=S2,S1 step=2; detected by Zeek",
				"uids=S2 step=1, 7000 bytes; detected by Slips, by the bytes of the session",
				"uids=S2,S1,S3,S4 step=3; detected by Zeek",
				"uids=S5 step=1; detected by Zeek",
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			logs := [][]*flow.Flow{c.ssh, c.conn}
			if c.conn == nil {
				logs = logs[:1]
			}
			got := reported(modtest.Skew(t, sshlogin.Spec, sshlogin.Spec.Defaults(), logs...))
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestNotConsidered lists connections whose bytes say nothing about a login.
func TestNotConsidered(t *testing.T) {
	with := func(change func(*flow.Flow)) *flow.Flow {
		f := conn(0, "S1", "192.0.2.22", 5000)
		change(f)
		return f
	}
	for name, f := range map[string]*flow.Flow{
		"another protocol": with(func(f *flow.Flow) { f.Service = "http" }),
		"not established":  with(func(f *flow.Flow) { f.State = flow.NotEstablished }),
		"still open":       with(func(f *flow.Flow) { f.Open = true }),
		"no uid":           with(func(f *flow.Flow) { f.UID = "" }),
		"only headers": with(func(f *flow.Flow) {
			f.Sensor, f.OrigPkts, f.RespPkts = flow.Suricata, 10, 10 // 1320 bytes of headers
		}),
	} {
		t.Run(name, func(t *testing.T) {
			s := ssh(0, "S1", "192.0.2.22", flow.Unset)
			if got := modtest.Skew(t, sshlogin.Spec, sshlogin.Spec.Defaults(), []*flow.Flow{s}, []*flow.Flow{f}); len(got) > 0 {
				t.Errorf("reported: %v", got)
			}
		})
	}
}

// TestStateIsBounded feeds halves that never meet.
func TestStateIsBounded(t *testing.T) {
	b := modtest.NewBench[sshlogin.State](t, sshlogin.Spec, sshlogin.Spec.Defaults())
	for i := range 5000 {
		for _, f := range []*flow.Flow{
			ssh(float64(i), fmt.Sprintf("S%d", i), "192.0.2.22", flow.Unset), conn(float64(i), fmt.Sprintf("C%d", i), "192.0.2.22", 1),
			ssh(float64(i), fmt.Sprintf("T%d", i), "192.0.2.22", flow.True),
		} {
			b.Handle(f)
		}
	}
	if b.State.Sessions.Len() > 512 || b.State.Conns.Len() > 512 || len(b.State.Logins) > 512 || b.State.Dropped < 3*(5000-512) || len(b.Evidence) > 0 {
		t.Errorf("%d sessions, %d connections, %d logins, %d dropped, %d reported", b.State.Sessions.Len(), b.State.Conns.Len(), len(b.State.Logins), b.State.Dropped, len(b.Evidence))
	}
}

func TestOtherConnectionsDoNotAllocate(t *testing.T) {
	b := modtest.NewBench[sshlogin.State](t, sshlogin.Spec, sshlogin.Spec.Defaults())
	f := conn(0, "C1", "192.0.2.22", 5000)
	f.Service, f.DstPort = "ssl", 443
	if n := testing.AllocsPerRun(100, func() { b.Handle(f) }); n != 0 {
		t.Errorf("%v allocations for a connection that is not SSH", n)
	}
}

func TestConfig(t *testing.T) {
	_, err := sshlogin.Spec.New(&sshlogin.Config{Threshold: 0}, modules.Env{})
	if err == nil || !strings.Contains(err.Error(), "ssh_succesful_detection_threshold: 0") {
		t.Errorf("error %v", err)
	}
}

// TestRealTraffic finds the two logins of one capture, and none in another
// where a client fails eleven times with about 5,000 bytes each.
func TestRealTraffic(t *testing.T) {
	dir := "pcap/zeek-logs/test7-malicious/"
	es := modtest.Evidence(t, sshlogin.Spec, modtest.Datasets(t, dir+"ssh.log", dir+"conn.log")...)
	if len(es) != 2 || es[0].Attacker.Value != "192.168.2.1" || es[0].Victim.Value != "192.168.2.16" || es[1].Count != 2 {
		t.Errorf("%+v", es)
	}
	dir = "pcap/zeek-logs/ssh_sshguess/"
	for _, e := range modtest.Evidence(t, sshlogin.Spec, modtest.Datasets(t, dir+"ssh.log", dir+"conn.log")...) {
		t.Errorf("no login succeeded there: %s", e.Description)
	}
}
