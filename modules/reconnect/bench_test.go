package reconnect

import (
	"bytes"
	"encoding/gob"
	"net/netip"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
)

// bench runs the module on one state, without the engine.
type bench struct {
	run modules.Runner
	st  any
	h   modules.Host
	cx  *modules.Context
	got []evidence.Evidence
}

func newBench(t testing.TB) *bench {
	t.Helper()
	run, err := Spec.New(Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{run: run, st: run.NewState()}
	b.h.Emit = func(e evidence.Evidence) { b.got = append(b.got, e) }
	b.cx = modules.NewContext(&b.h)
	return b
}

func (b *bench) handle(f flow.Flow) { b.run.Handle(b.cx, b.st, &f) }

// reload sends the state through gob.
func (b *bench) reload(t testing.TB) {
	t.Helper()
	var buf bytes.Buffer
	if err := b.run.Save(gob.NewEncoder(&buf), b.st); err != nil {
		t.Fatal(err)
	}
	st, err := b.run.Load(gob.NewDecoder(&buf))
	if err != nil {
		t.Fatal(err)
	}
	b.st = st
}

var attacker = netip.MustParseAddr("10.0.0.1")

// host returns the n-th address of a block.
func host(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{20, byte(n >> 16), byte(n >> 8), byte(n)})
}
