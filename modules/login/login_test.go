package login_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules/login"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, login.Spec, "testdata/*.txtar") }

// TestStateIsBounded tries many users with long names.
func TestStateIsBounded(t *testing.T) {
	b := modtest.NewBench[login.State](t, login.Spec, login.Spec.Defaults())
	b.Host.Emit = func(e evidence.Evidence) {
		if len(e.Description) > 300 {
			t.Fatalf("a description of %d bytes", len(e.Description))
		}
	}
	for i := range 10_000 {
		f := new(flow.Flow)
		f.Reset(flow.Login)
		f.Src, f.Dst, f.DstPort, f.UID = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 23, fmt.Sprintf("C%017d", i)
		f.Login.Success, f.Login.User = flow.False, fmt.Sprint("user", i, strings.Repeat("x", 1000))
		b.Handle(f)
	}
	if b.Size() > 1<<17 {
		t.Errorf("a state of %d bytes", b.Size())
	}
}
