package modtest

import (
	"bytes"
	"encoding/gob"
	"net/netip"
	"testing"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Bench runs a module on one state of type S, without the engine: for tests
// of bounds and allocations, and of records too many to write down.
type Bench[S any] struct {
	Runner   modules.Runner
	State    *S
	Host     modules.Host        // what the module sees of the engine, for the test to change
	Evidence []evidence.Evidence // what was found, unless the test changed Host.Emit

	t  testing.TB
	cx *modules.Context
}

// NewBench returns a bench with an empty state. cfg is a config of spec, such
// as its defaults. Windows are an hour long, nothing is known about the
// network, the profile is the client, and timers never fire.
func NewBench[S any](t testing.TB, spec modules.Spec, cfg any) *Bench[S] {
	t.Helper()
	run, err := spec.New(cfg, modules.Env{Width: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	b := &Bench[S]{Runner: run, t: t}
	b.set(run.NewState())
	b.Host = modules.Host{
		Net: &profile.Network{}, After: func(time.Duration, uint64) {},
		At:   func(at int64) profile.Window { return profile.WindowOf(at, 0, int64(time.Hour)) },
		Emit: func(e evidence.Evidence) { b.Evidence = append(b.Evidence, e) },
	}
	b.cx = modules.NewContext(&b.Host)
	return b
}

// Handle hands a record to the module, whether it wants it or not, at the
// time of the record and for its originator.
func (b *Bench[S]) Handle(f *flow.Flow) {
	b.Host.Now, b.Host.Record, b.Host.Window, b.Host.Profile = f.Time, f.Time, b.Host.At(f.Time), f.Src
	b.Runner.Handle(b.cx, b.State, f)
}

// Fire lets a timer of the module fire.
func (b *Bench[S]) Fire(key uint64) { b.Runner.Fire(b.cx, b.State, key) }

// Reload does to the state what a restart does.
func (b *Bench[S]) Reload() {
	b.t.Helper()
	st, err := b.Runner.Load(gob.NewDecoder(b.saved()))
	if err != nil {
		b.t.Fatal(err)
	}
	b.set(st)
}

func (b *Bench[S]) set(st any) {
	b.t.Helper()
	var ok bool
	if b.State, ok = st.(*S); !ok {
		b.t.Fatalf("the state of the module is %T, not %T", st, b.State)
	}
}

// Size returns how many bytes the state takes when it is saved.
func (b *Bench[S]) Size() int {
	b.t.Helper()
	return b.saved().Len()
}

func (b *Bench[S]) saved() *bytes.Buffer {
	b.t.Helper()
	var buf bytes.Buffer
	if err := b.Runner.Save(gob.NewEncoder(&buf), b.State); err != nil {
		b.t.Fatal(err)
	}
	return &buf
}

// Public returns the n-th of sixteen million public addresses.
func Public(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{20, byte(n >> 16), byte(n >> 8), byte(n)})
}

// Record returns a record of 10.0.0.7 and port 80 of 203.0.114.9, that many
// seconds into a day of 2023.
func Record(k flow.Kind, sec float64, uid string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(k)
	f.Time = 1_700_000_000*1e9 + int64(sec*1e9)
	f.Src, f.Dst = netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("203.0.114.9")
	f.SrcPort, f.DstPort, f.HasPorts, f.Proto, f.UID = 50000, 80, true, flow.TCP, uid
	return f
}
