package sshguess_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/sshguess"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, sshguess.Spec, "testdata/*.txtar") }

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
			run, err := sshguess.Spec.New(&sshguess.Config{Threshold: c.threshold}, modules.Env{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			cx := modules.NewContext(&modules.Host{Emit: func(e evidence.Evidence) {
				got = append(got, fmt.Sprint(e.Count, e.Confidence, e.Step))
			}})
			st := run.NewState()
			for range c.records {
				run.Handle(cx, st, failed(c.attempts, c.banner))
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestStateIsBounded tries more servers than the limit allows.
func TestStateIsBounded(t *testing.T) {
	run, err := sshguess.Spec.New(sshguess.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	st := run.NewState().(*sshguess.State)
	cx := modules.NewContext(&modules.Host{Emit: func(e evidence.Evidence) { t.Errorf("reported: %v", e) }})
	for i := range 10_000 {
		f := failed(8, strings.Repeat("x", 1000))
		f.Dst = netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
		run.Handle(cx, st, f)
	}
	if len(st.Campaigns) != 4096 || st.Dropped != 10_000-4096 {
		t.Errorf("%d servers, %d dropped", len(st.Campaigns), st.Dropped)
	}
	for _, c := range st.Campaigns {
		if len(c.Banner) > 255 {
			t.Fatalf("a banner of %d bytes is kept", len(c.Banner))
		}
	}
}

func TestConfig(t *testing.T) {
	for _, n := range []int{0, -9, 1_000_001} {
		_, err := sshguess.Spec.New(&sshguess.Config{Threshold: n}, modules.Env{})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("ssh_attempt_threshold: %d", n)) {
			t.Errorf("threshold %d: error %v", n, err)
		}
	}
}

// TestRealTraffic finds the guesses of a real client, and none in a network
// where people mistype their passwords.
func TestRealTraffic(t *testing.T) {
	es := modtest.Evidence(t, sshguess.Spec, modtest.Datasets(t, "pcap/zeek-logs/ssh_sshguess/ssh.log")...)
	if len(es) != 4 || es[0].Count != 10 || es[0].Confidence != 0.54 || es[3].Count != 24 || es[3].Attacker.Value != "192.168.56.1" {
		t.Errorf("%+v", es)
	}
	for _, e := range modtest.Evidence(t, sshguess.Spec, modtest.Datasets(t, "pcap/zeek-logs/test7-malicious/ssh.log")...) {
		t.Errorf("nobody guesses there: %s", e.Description)
	}
}
