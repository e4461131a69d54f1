package sshversion_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/sshversion"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, sshversion.Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for _, n := range []int{0, 1, 65} {
		want := fmt.Sprintf("max_versions: %d is not between 2 and 64", n)
		if _, err := sshversion.Spec.New(&sshversion.Config{MaxVersions: n}, modules.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

var host = netip.MustParseAddr("10.0.0.1")

func at(f *flow.Flow, sec int) *flow.Flow {
	f.Time, f.Src, f.UID = (1_700_000_000+int64(sec))*1e9, host, fmt.Sprintf("C%d", sec)
	return f
}

func banner(sec int, client string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.SSH)
	f.SSH.Client = client
	f.Dst = netip.MustParseAddr("10.0.0.2")
	return at(f, sec)
}

func software(sec, minor int) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.Software)
	f.Software.Type, f.Software.Name, f.Software.Major, f.Software.Minor = "SSH::CLIENT", "OpenSSH", 8, minor
	return at(f, sec)
}

// TestOrderOfLogs holds the module to the same evidence whichever log is ahead.
func TestOrderOfLogs(t *testing.T) {
	var ssh []*flow.Flow
	for i := range 20 {
		ssh = append(ssh, banner(60*i, fmt.Sprintf("SSH-2.0-OpenSSH_8.%d", i/10)))
	}
	for name, c := range map[string]struct {
		software []*flow.Flow
		want     int
	}{
		"none":                   {nil, 1},
		"one version":            {[]*flow.Flow{software(0, 0), software(3000, 0)}, 0},
		"two versions":           {[]*flow.Flow{software(0, 0), software(600, 1), software(3000, 1)}, 1},
		"of long after only":     {[]*flow.Flow{software(3000, 0)}, 1},
		"of a few minutes after": {[]*flow.Flow{software(200, 0), software(3000, 0)}, 0},
	} {
		logs := [][]*flow.Flow{ssh}
		if c.software != nil {
			logs = append(logs, c.software)
		}
		if got := modtest.Skew(t, sshversion.Spec, sshversion.Spec.Defaults(), logs...); len(got) != c.want {
			t.Errorf("%s: %q, want %d", name, got, c.want)
		}
	}
}

// TestStateIsBounded shows ever other banners.
func TestStateIsBounded(t *testing.T) {
	b := modtest.NewBench[sshversion.State](t, sshversion.Spec, sshversion.Spec.Defaults())
	for i := range 1000 {
		b.Handle(banner(i, fmt.Sprint("SSH-2.0-v", i)))
	}
	if len(b.State.Pending) > 64 || len(b.Evidence) > 0 {
		t.Errorf("%d banners wait, %d reported", len(b.State.Pending), len(b.Evidence))
	}
}

// TestRealTraffic finds a client that changed within seconds.
func TestRealTraffic(t *testing.T) {
	es := modtest.Evidence(t, sshversion.Spec, modtest.Datasets(t, "zeek/test9-mixed/software.log")...)
	if len(es) != 1 || es[0].Attacker.Value != "192.168.1.247" {
		t.Errorf("%+v", es)
	}
}
