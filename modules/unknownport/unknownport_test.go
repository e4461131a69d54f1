package unknownport_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/unknownport"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, unknownport.Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for want, c := range map[string]unknownport.Config{
		"max_ports: 0":              {},
		"max_ports: 65":             {MaxPorts: 65},
		`known_ports: "80"`:         {MaxPorts: 1, KnownPorts: []string{"80"}},
		`known_ports: "80/sctp"`:    {MaxPorts: 1, KnownPorts: []string{"80/sctp"}},
		`known_ports: "0/tcp"`:      {MaxPorts: 1, KnownPorts: []string{"0/tcp"}},
		`known_ports: "9-8/tcp"`:    {MaxPorts: 1, KnownPorts: []string{"9-8/tcp"}},
		`known_ports: "1-65536/tcp`: {MaxPorts: 1, KnownPorts: []string{"1-65536/tcp"}},
		`known_ports: "http/tcp"`:   {MaxPorts: 1, KnownPorts: []string{"http/tcp"}},
	} {
		if _, err := unknownport.Spec.New(&c, modules.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %s", c, err, want)
		}
	}
}

// conn is a connection of 10.0.0.1 to the n-th host.
func conn(n int, port uint16) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.Conn)
	f.Src, f.Dst = netip.MustParseAddr("10.0.0.1"), netip.AddrFrom4([4]byte{20, byte(n >> 16), byte(n >> 8), byte(n)})
	f.SrcPort, f.DstPort, f.HasPorts, f.Proto, f.State, f.UID = 40000, port, true, flow.TCP, flow.Established, fmt.Sprint("C", n)
	return f
}

// TestStateIsBounded feeds a scan of 100,000 hosts and of all ports, and as
// many FTP data ports.
func TestStateIsBounded(t *testing.T) {
	run, err := unknownport.Spec.New(unknownport.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	st := run.NewState().(*unknownport.State)
	cx := modules.NewContext(&modules.Host{
		Now: 1, After: func(time.Duration, uint64) {}, Emit: func(e evidence.Evidence) { t.Errorf("reported: %v", e) },
	})
	ftp := new(flow.Flow)
	ftp.Reset(flow.FTP)
	for i := range 100_000 {
		run.Handle(cx, st, conn(i, uint16(50001+i/50_000)))
		run.Handle(cx, st, conn(1, uint16(i)))
		ftp.Dst, ftp.FTP.DataPort = conn(i, 0).Dst, uint16(1+i%60000)
		run.Handle(cx, st, ftp)
	}
	hosts, uids := 0, 0
	for _, p := range st.Ports {
		hosts, uids = max(hosts, len(p.Hosts)), max(uids, len(p.UIDs))
	}
	if len(st.Ports) != 10 || hosts != 6 || uids > 10 || st.Data.Len() > 512 {
		t.Errorf("%d ports, %d hosts and %d uids of one, %d FTP data ports", len(st.Ports), hosts, uids, st.Data.Len())
	}
	run.CloseWindow(cx, st, profile.Window{})
	f := conn(7, 60001)
	if n := testing.AllocsPerRun(100, func() { run.Handle(cx, st, f) }); n != 0 {
		t.Errorf("%v allocations for one more peer", n)
	}
}

// TestRealTraffic finds the ports of a bot, at the level of one that is kept
// in use where it worked, and little where only honest programs are.
func TestRealTraffic(t *testing.T) {
	got := make(map[uint16]evidence.Level)
	for _, e := range modtest.Evidence(t, unknownport.Spec, modtest.Datasets(t, "zeek/isc-2021-10/conn.log")...) {
		if e.Attacker.Value != "10.10.22.156" {
			t.Errorf("another host than the bot: %s", e.Description)
		}
		got[e.DstPort] = e.Level
	}
	if want := "map[6881:low 32100:low 61200:low 65400:medium]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	for _, file := range []string{
		"benign/ubuntu-2023-02-25/conn.log.labeled", "benign/win7ad-2023-02-26/conn.log.labeled",
	} {
		for _, e := range modtest.Evidence(t, unknownport.Spec, modtest.Datasets(t, file)...) {
			t.Errorf("%s: %s", file, e.Description)
		}
	}
	for _, e := range modtest.Evidence(t, unknownport.Spec, modtest.Datasets(t, "argus/benign-bittorrent-normal-7.binetflow")...) {
		if e.Attacker.Value == "10.0.0.46" {
			t.Errorf("BitTorrent: %s", e.Description)
		}
	}
}
