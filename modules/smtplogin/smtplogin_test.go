package smtplogin_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/smtplogin"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, smtplogin.Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for want, c := range map[string]smtplogin.Config{
		"min_logins: 1":  {MinLogins: 1, Within: time.Second},
		"min_logins: 33": {MinLogins: 33, Within: time.Second},
		"within: 0s":     {MinLogins: 3},
		"within: 2h":     {MinLogins: 3, Within: 2 * time.Hour},
	} {
		if _, err := smtplogin.Spec.New(&c, modules.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", c, err, want)
		}
	}
}

// TestStateIsBounded is refused by many servers.
func TestStateIsBounded(t *testing.T) {
	b := modtest.NewBench[smtplogin.State](t, smtplogin.Spec, smtplogin.Spec.Defaults())
	bursts := 0
	b.Host.Emit = func(e evidence.Evidence) {
		if e.Type == smtplogin.Bruteforce {
			bursts++
		}
	}
	for i := range 100_000 {
		f := new(flow.Flow)
		f.Reset(flow.SMTP)
		f.Time, f.UID = int64(i)*int64(time.Millisecond), fmt.Sprintf("C%017d", i)
		f.Src, f.Dst = netip.MustParseAddr("10.0.0.1"), netip.AddrFrom4([4]byte{192, byte(i >> 16), byte(i >> 8), byte(i)})
		f.SMTP.LastReply = "535 no"
		b.Handle(f)
	}
	if b.Size() > 1<<20 || bursts != 16 { // 33,333 bursts, told when they double
		t.Errorf("%d bytes, %d bursts", b.Size(), bursts)
	}
}

// TestRealTraffic finds the guesses of a spam bot.
func TestRealTraffic(t *testing.T) {
	n := 0
	for _, e := range modtest.Evidence(t, smtplogin.Spec, modtest.Datasets(t, "zeek/test14-malicious/smtp.log")...) {
		if e.Type == smtplogin.Bruteforce && e.Attacker.Value == "10.1.11.101" && e.Victim.Value == "80.75.42.226" && e.Level == evidence.High {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d times guessing, want once", n)
	}
	for _, e := range modtest.Evidence(t, smtplogin.Spec, modtest.Datasets(t, "zeek/isc-2021-10/smtp.log")...) {
		t.Errorf("no login is refused there: %s", e.Description)
	}
}
