package profiler_test

import (
	"testing"

	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler"
)

// touchBomb panics where it is only asked to read ahead.
type touchBomb struct{}

func (touchBomb) Handle(*modules.Context, *none, *flow.Flow) {}
func (touchBomb) Touch(*none, *flow.Flow) uint32             { panic("touch") }

// A module that panics while it reads ahead is reported, loses that ability, and
// holds nobody up.
func TestTouchPanics(t *testing.T) {
	sp := define(modules.Meta{Name: "bomb", Scope: modules.PerWindow, Kinds: flow.Of(flow.Conn)}, modules.Rule[none](touchBomb{}), "OK")
	run, err := sp.New(sp.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(1, 64)
	cfg.Strict, cfg.PanicLimit = false, 2
	e, err := profiler.New(cfg, []profiler.Loaded{{Spec: sp, Run: run}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out record
	if err := e.Run(t.Context(), profiler.Inputs{Initial: []flow.Input{feed("conn", traffic(1, 500)["conn"], 50)}}, &out); err != nil {
		t.Fatal(err)
	}
	if m := e.Stats().Snapshot().Modules[0]; m.Panics != 1 || m.Calls == 0 {
		t.Errorf("%+v, want one panic and all calls", m)
	}
}
