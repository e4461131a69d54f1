package login_test

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/login"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, login.Spec, "testdata/*.txtar") }

// TestStateIsBounded tries many users with long names.
func TestStateIsBounded(t *testing.T) {
	run, err := login.Spec.New(login.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	st := run.NewState()
	cx := modules.NewContext(&modules.Host{Emit: func(e evidence.Evidence) {
		if len(e.Description) > 300 {
			t.Fatalf("a description of %d bytes", len(e.Description))
		}
	}})
	for i := range 10_000 {
		f := new(flow.Flow)
		f.Reset(flow.Login)
		f.Src, f.Dst, f.DstPort, f.UID = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 23, fmt.Sprintf("C%017d", i)
		f.Login.Success, f.Login.User = flow.False, fmt.Sprint("user", i, strings.Repeat("x", 1000))
		run.Handle(cx, st, f)
	}
	var b bytes.Buffer
	if err := run.Save(gob.NewEncoder(&b), st); err != nil {
		t.Fatal(err)
	}
	if b.Len() > 1<<17 {
		t.Errorf("a state of %d bytes", b.Len())
	}
}
