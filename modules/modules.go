// Package modules is the contract between the engine and the detection modules.
//
// A module finds; it does not decide, act, wait or write. It is called for one
// record at a time, by one goroutine at a time for any one state, and all it
// may remember lies in that state.
package modules

import (
	"encoding/gob"
	"fmt"
	"log/slog"
	"math/bits"
	"net/netip"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Scope says what one value of a module's state belongs to.
type Scope uint8

// The scopes.
const (
	PerWindow  Scope = iota // one S per profile and time window, dropped when the window closes
	PerProfile              // one S per profile, dropped when the profile is evicted
	Network                 // one S; the module sees every record, on the network lane
)

// String returns the name of the scope for docs/modules.md.
func (s Scope) String() string { return [...]string{"window", "profile", "network", ""}[s&3] }

// Meta describes a module. It has no side effects.
type Meta struct {
	Name  string          // folder, config key, log and metric label
	Doc   string          // one line
	Scope Scope           // what a state belongs to
	Kinds flow.KindSet    // records delivered to Handle
	Needs flow.KindSet    // of Kinds, those it cannot do without: it is off when no input bears one of them; empty: any of Kinds will do
	Emits []evidence.Spec // closed list; emitting another type is a bug
}

// Env is what a module may hold on to.
type Env struct {
	Log   *slog.Logger  // nil in a Spec's New: nothing is logged; a module is always handed one
	Width time.Duration // of a time window
}

// Rule is the code of one module. It must not change after New: all that
// changes lives in S, so one Rule serves every lane without a lock.
//
// S and what it holds have exported fields only and no interfaces, channels
// or functions: the engine saves it with encoding/gob for a restart. A map or
// slice that was empty comes back nil, so check before writing to a map.
type Rule[S any] interface {
	// Handle looks at one record. f, and all it points to, is valid only
	// until Handle returns: clone the strings you keep.
	Handle(cx *Context, st *S, f *flow.Flow)
}

// Chooser is a Rule that has no use for most records of its kinds. Wants sees
// each record first, without a state: where it says no, Handle is not called
// and no state is made, which is what keeps modules free for benign traffic.
type Chooser interface {
	// Wants must depend on f and the rule alone.
	Wants(f *flow.Flow) bool
}

// Looker is a Rule that wants the records that name something the feeds know.
// Looks sees a record while there is no state for it: where it says no, Handle
// is not called and no state is made. Once there is a state Handle gets every
// record that it Wants, so it must look for itself.
type Looker interface {
	// Looks must depend on v, f and the rule alone.
	Looks(v *intel.View, f *flow.Flow) bool
}

// Toucher is a Rule of scope PerWindow that wants most records and looks them
// up in large tables. Touch is called for a run of records before Handle is
// called for the first of them, and reads the places that Handle will read:
// then the memory of all comes at once. It changes nothing; its result means
// nothing.
type Toucher[S any] interface {
	Touch(st *S, f *flow.Flow) uint32
}

// WindowCloser is a Rule of scope PerWindow that also wants the end of a window.
type WindowCloser[S any] interface {
	CloseWindow(cx *Context, st *S, w profile.Window)
}

// TimerFirer is a Rule that sets timers with Context.After.
type TimerFirer[S any] interface {
	Fire(cx *Context, st *S, key uint64)
}

// Spec is a module with its types erased. Only Define makes one.
type Spec struct {
	Meta
	Defaults func() any // a pointer to a fresh config holding the defaults
	New      func(cfg any, env Env) (Runner, error)
}

// Runner is a module as the engine sees it.
type Runner interface {
	NewState() any
	Chooser() Chooser // nil: every record is wanted
	Looker() Looker   // nil: it does not look records up to choose them
	Touches() bool
	Touch(st any, f *flow.Flow) uint32
	Handle(cx *Context, st any, f *flow.Flow)
	CloseWindow(cx *Context, st any, w profile.Window)
	Fire(cx *Context, st any, key uint64)
	Save(enc *gob.Encoder, st any) error
	Load(dec *gob.Decoder) (any, error)
}

// Define makes a Spec from typed parts, so no module writes a type assertion.
// C is a struct of exported fields with yaml tags.
func Define[C, S any](m Meta, defaults C, build func(C, Env) (Rule[S], error)) Spec {
	return Spec{
		Meta:     m,
		Defaults: func() any { c := defaults; return &c },
		New: func(cfg any, env Env) (Runner, error) {
			c, ok := cfg.(*C)
			if !ok {
				return nil, fmt.Errorf("module %s: config is %T, want *%T", m.Name, cfg, *new(C))
			}
			if env.Log == nil {
				env.Log = slog.New(slog.DiscardHandler)
			}
			r, err := build(*c, env)
			if err != nil {
				return nil, fmt.Errorf("module %s: %w", m.Name, err)
			}
			run := runner[S]{rule: r}
			run.closer, _ = r.(WindowCloser[S])
			run.firer, _ = r.(TimerFirer[S])
			run.toucher, _ = r.(Toucher[S])
			return run, nil
		},
	}
}

type runner[S any] struct {
	rule    Rule[S]
	closer  WindowCloser[S]
	firer   TimerFirer[S]
	toucher Toucher[S]
}

func (r runner[S]) NewState() any { return new(S) }

func (r runner[S]) Chooser() Chooser {
	c, _ := r.rule.(Chooser)
	return c
}

func (r runner[S]) Looker() Looker {
	l, _ := r.rule.(Looker)
	return l
}

func (r runner[S]) Touches() bool { return r.toucher != nil }

func (r runner[S]) Touch(st any, f *flow.Flow) uint32 { return r.toucher.Touch(st.(*S), f) }

func (r runner[S]) Handle(cx *Context, st any, f *flow.Flow) { r.rule.Handle(cx, st.(*S), f) }

func (r runner[S]) CloseWindow(cx *Context, st any, w profile.Window) {
	if r.closer != nil {
		r.closer.CloseWindow(cx, st.(*S), w)
	}
}

func (r runner[S]) Fire(cx *Context, st any, key uint64) {
	if r.firer != nil {
		r.firer.Fire(cx, st.(*S), key)
	}
}

func (r runner[S]) Save(enc *gob.Encoder, st any) error { return enc.Encode(box[S]{V: st.(*S)}) }

func (r runner[S]) Load(dec *gob.Decoder) (any, error) {
	var b box[S]
	if err := dec.Decode(&b); err != nil {
		return nil, err
	}
	if b.V == nil { // gob leaves out a state that is all zero
		b.V = new(S)
	}
	return b.V, nil
}

// box wraps a state because gob refuses a struct without fields at the top.
type box[S any] struct {
	V     *S
	Dummy bool
}

// Host is the engine's side of a Context.
type Host struct {
	Now     int64
	Record  int64 // start time of the record at hand, unix ns
	Profile profile.ID
	Window  profile.Window
	Role    profile.Role
	Net     *profile.Network
	Intel   *intel.View
	At      func(t int64) profile.Window
	Emit    func(evidence.Evidence)
	After   func(d time.Duration, key uint64)
	Ask     func(Question)
}

// Question is what a module would like to know and cannot learn from the
// traffic. It is put to the online services that are configured, if any are,
// and the answer comes as a record of kind flow.Lookup: later, or never.
type Question struct {
	Why     Why
	Of      intel.Kind
	Subject string     // in intel's canonical form
	Src     netip.Addr // the host whose traffic gives rise to it; zero: the profile at hand
	Dst     netip.Addr // the peer; invalid when there is none
	DstPort uint16
	UID     string
}

// Why says what an answer is for, which decides who is asked.
type Why string

// The reasons.
const (
	NewDomain Why = "new_domain" // a host asked for a domain that was not seen before
	File      Why = "file"       // a file crossed the network
	Request   Why = "new_url"    // a host fetched something
	Inbound   Why = "inbound"    // somebody outside came to a host of ours
	Suspect   Why = "c2"         // a server behaves like one that commands malware
	Evidence  Why = "evidence"   // something was found about it
)

// Context is what a module may do during one call. It must not be kept.
type Context struct{ h *Host }

// NewContext is for the engine; a module is handed its Context.
func NewContext(h *Host) *Context { return &Context{h} }

// Now returns the time in the stream, in unix nanoseconds: the latest start
// time seen in the record's source, or the time a timer was set for. It never
// goes back for records of one kind.
func (c *Context) Now() int64 { return c.h.Now }

// Profile returns the profile the record belongs to. In scope Network it is
// the originator.
func (c *Context) Profile() profile.ID { return c.h.Profile }

// Role says which side of the flow the profile is.
func (c *Context) Role() profile.Role { return c.h.Role }

// Window returns the time window of the record's start time.
func (c *Context) Window() profile.Window { return c.h.Window }

// WindowAt returns the window that time t, unix ns, lies in.
func (c *Context) WindowAt(t int64) profile.Window { return c.h.At(t) }

// Network returns what is known about the monitored network.
func (c *Context) Network() *profile.Network { return c.h.Net }

// Intel returns what the feeds list: the same snapshot for every record of a
// replay. It is never nil to use.
func (c *Context) Intel() *intel.View { return c.h.Intel }

// Asks reports whether questions are passed on.
func (c *Context) Asks() bool { return c.h.Ask != nil }

// Ask puts a question to the online services that are configured. The strings
// of q must be clones. Ask costs next to nothing and may lead to nothing, so
// ask once for each subject.
func (c *Context) Ask(q Question) {
	if c.h.Ask == nil {
		return
	}
	if !q.Src.IsValid() {
		q.Src = c.h.Profile
	}
	c.h.Ask(q)
}

// Emit reports e. An e without a profile is about the profile at hand, one
// without a time about the record at hand; its time decides its window. When
// no record is at hand (Fire, CloseWindow) Time must be set.
func (c *Context) Emit(e evidence.Evidence) {
	if !e.Profile.IsValid() {
		e.Profile = c.h.Profile
	}
	if e.Time == 0 {
		e.Time = c.h.Record
	}
	c.h.Emit(e)
}

// After asks for Fire(key) once the stream has advanced by d, for the state
// at hand. A timer of a closed window or an evicted profile is void.
func (c *Context) After(d time.Duration, key uint64) { c.h.After(d, key) }

// Step places n on a log scale that starts at first and doubles: 0 below
// first, 1 from first on, 2 from 2*first, 3 from 4*first … A module reports a
// subject when its step grows, and puts the step into Evidence.Step.
func Step(n, first int64) int {
	if n < first || first <= 0 {
		return 0
	}
	return bits.Len64(uint64(n / first))
}

// FineStep is Step with a step half way between each two, so that what
// grows is told at first, 1.5*first, 2*first, 3*first, 4*first … It is for what
// becomes more certain with each new target, as a scan does.
func FineStep(n, first int64) int {
	s := Step(n, first)
	if s == 0 {
		return 0
	}
	base := first << (s - 1)
	if n >= base+(base+1)/2 {
		return 2 * s
	}
	return 2*s - 1
}
