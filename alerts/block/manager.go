package block

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options is what a Manager is made of. Config, Blocker, Guard, Log and Now
// must be given.
type Options struct {
	Config  Config
	Blocker Blocker // not called in a dry run, but for a DryRunner
	Guard   *Guard
	// Spare says why a prefix that an alert asks for is not to be blocked, empty
	// if it is: what changes by itself, such as a whitelist. Operators are not
	// bound by it. nil spares nobody. The goroutine of Run calls it.
	Spare func(netip.Prefix) string
	// Audit takes a line of JSON for every change; nil for none. It is written
	// by the goroutine of Run.
	Audit io.Writer
	// Tell is told what Audit is, for people who watch; nil for nobody. The
	// goroutine of Run calls it.
	Tell func(Record)
	// StateFile is where offences are kept between runs; empty for nowhere. A
	// dry run neither reads nor writes it.
	StateFile string
	Log       *slog.Logger
	Now       func() time.Time // the wall clock
}

// Cutter is what a Blocker may be able to do besides: end the connections that
// hosts have now. It returns how many it found, also with an error. One that
// wraps errors.ErrUnsupported says what this machine cannot do. The Manager
// calls it from a goroutine of its own, beside other calls. Blocked packets are
// dropped without it, but what waits would go on when the block ends.
type Cutter interface {
	Cut(ctx context.Context, prefixes []netip.Prefix) (int, error)
}

// Watcher is what a Blocker may be able to do besides: tell when somebody else
// changes what it has in the firewall. Watch calls changed after each such
// change, and when it may have missed one, until ctx is done, and then returns
// nil. changed does not wait, and may be called once too often; after the
// Blocker's own changes it must not be, or the Manager would look in vain. The
// Manager calls Watch from a goroutine of its own, beside other calls.
type Watcher interface {
	Watch(ctx context.Context, changed func()) error
}

// DryRunner is what a Blocker may be able to do besides: take part in a dry
// run. NewManager calls it, with a Blocker that blocks nobody, and uses what it
// returns, which must not block anybody either.
type DryRunner interface {
	DryRun(inner Blocker) Blocker
}

// The bounds and intervals of a Manager.
const (
	queueSize   = 4096                   // requests that wait; alerts come some a minute, a flood of them is dropped and counted
	maxBatch    = 100_000                // requests in one step of the firewall
	checkEvery  = time.Minute            // between two looks at the firewall, if nobody tells of a change
	settle      = 100 * time.Millisecond // from a change that somebody tells of to a look; changes come in groups
	lookPause   = time.Second            // between two such looks: others may change the firewall all the time
	endPause    = time.Second            // between two looks for blocks that have ended
	retryFirst  = time.Second            // after a failure; doubled up to checkEvery
	slack       = 2 * time.Second        // by which two ends may differ and be the same
	stopTimeout = 3 * time.Second        // for what is in the queue at the end
	callTimeout = 30 * time.Second       // for one call of the Blocker
	cutPause    = time.Second            // between two looks through all connections
	maxLogged   = 10                     // lines for one step; more are summed up. The audit log has all
	maxOwed     = 100                    // records of one host that wait for the firewall; the log has each as "fail" already
)

// Stats counts what a Manager did since it was made.
type Stats struct {
	Blocked   int              // now
	Blocks    int64            // new ones
	Extended  int64            // ends put off
	Unchanged int64            // requests for what was blocked for as long already
	Refused   map[string]int64 // by reason
	Dropped   int64            // requests lost because the queue was full
	Expired   int64
	Unblocked int64 // by operators
	Released  int64 // by us, because they must not be blocked any more
	Found     int64 // in the firewall, unknown to us
	Restored  int64 // put back
	Damaged   int64 // times that parts of the firewall were missing
	Failures  int64 // calls of the firewall that failed
	Cut       int64 // connections
	Forgotten int64 // offenders, because there were too many
	Unaudited int64 // errors of the audit log
}

// Manager turns requests into blocks, one step of the firewall for all that
// wait, and keeps the firewall as it should be.
//
// Submit may be called by any goroutine and never waits. Block, Unblock and
// Blocks wait for Run, which does all the work.
type Manager struct {
	opt     Options
	blocker Blocker
	log     *slog.Logger
	now     func() time.Time

	queue   chan Request
	calls   chan func(context.Context)
	kick    chan struct{} // the guard has changed
	done    chan struct{} // Run has returned
	guard   atomic.Pointer[Guard]
	dropped atomic.Int64
	cut     atomic.Int64

	mu    sync.Mutex
	stats Stats

	// Of the goroutine of Run.
	policy  policy
	audit   *audit
	wanted  map[netip.Prefix]Entry
	nets    map[netip.Prefix]bool     // those of wanted that are no single address
	owed    map[netip.Prefix][]Record // changes of wanted that the firewall has not taken yet
	toCut   []netip.Prefix
	next    time.Time     // no block ends before; zero when there is none
	failing string        // the failure that was reported last; empty when all is well
	retry   time.Duration // until the next try; 0 when all is well
	soon    bool          // a call has failed since the timer was set
	unsaved bool          // offences that are not in the state file
}

// NewManager returns a Manager that has not touched anything yet.
func NewManager(o Options) (*Manager, error) {
	if err := o.Config.Validate(); err != nil {
		return nil, err
	}
	if o.Guard == nil || o.Log == nil || o.Now == nil || o.Blocker == nil && !o.Config.DryRun {
		return nil, errors.New("a manager of blocks needs a guard, a log, a clock and a blocker")
	}
	m := &Manager{
		opt: o, blocker: o.Blocker, log: o.Log, now: o.Now,
		queue: make(chan Request, queueSize), calls: make(chan func(context.Context)),
		kick: make(chan struct{}, 1), done: make(chan struct{}),
		stats:  Stats{Refused: make(map[string]int64)},
		policy: policy{cfg: o.Config, offenders: make(map[netip.Prefix]offender)},
		audit:  newAudit(o.Audit),
		wanted: make(map[netip.Prefix]Entry), nets: make(map[netip.Prefix]bool), owed: make(map[netip.Prefix][]Record),
	}
	if o.Config.DryRun {
		m.blocker, m.opt.StateFile = NewMemory(o.Now), ""
		if d, ok := o.Blocker.(DryRunner); ok {
			m.blocker = d.DryRun(m.blocker)
		}
	}
	m.guard.Store(o.Guard)
	return m, nil
}

// Submit asks for a block and does not wait for it. The error is ErrFull or
// ErrStopped; what became of the request is in the audit log.
func (m *Manager) Submit(r Request) error {
	select {
	case <-m.done:
		return ErrStopped
	default:
	}
	select {
	case m.queue <- r:
		return nil
	default:
		m.dropped.Add(1)
		return ErrFull
	}
}

// Protect replaces the guard. What is blocked and must not be by the new one
// is released.
func (m *Manager) Protect(g *Guard) {
	m.guard.Store(g)
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// call runs f in the goroutine of Run and waits for it.
func (m *Manager) call(ctx context.Context, f func(context.Context)) error {
	finished := make(chan struct{})
	select {
	case m.calls <- func(ctx context.Context) { defer close(finished); f(ctx) }:
	case <-m.done:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	<-finished // Run does each call that it has taken
	return nil
}

// Block does what Submit asks for, and waits. An error that wraps ErrRefused
// says why not; any other, that the firewall did not take it yet.
func (m *Manager) Block(ctx context.Context, r Request) (Decision, error) {
	var out []outcome
	if err := m.call(ctx, func(ctx context.Context) { out = m.decide(ctx, []Request{r}) }); err != nil {
		return Decision{}, err
	}
	return out[0].decision, out[0].err
}

// Unblock ends blocks on behalf of an operator and forgets their offences.
// Without prefixes it ends all. It returns those that were blocked, sorted, and
// what StillBlocked says about the prefixes. An alert can block them again: what
// must never be blocked belongs on the allow-list.
func (m *Manager) Unblock(ctx context.Context, by, reason string, prefixes ...netip.Prefix) (ended []netip.Prefix, still []error, err error) {
	var failed error
	err = m.call(ctx, func(ctx context.Context) {
		if failed = m.check(ctx, false); failed != nil {
			return
		}
		if ended, failed = m.unblock(ctx, by, reason, prefixes); failed != nil || len(prefixes) == 0 {
			return
		}
		left := slices.SortedFunc(maps.Keys(m.wanted), netip.Prefix.Compare)
		for _, p := range prefixes {
			if p, err := Canonical(p); err == nil { // unblock has looked
				if err := StillBlocked(p, left); err != nil {
					still = append(still, err)
				}
			}
		}
	})
	return ended, still, cmp.Or(err, failed)
}

// Blocks returns what is blocked, sorted.
func (m *Manager) Blocks(ctx context.Context) ([]Entry, error) {
	var list []Entry
	err := m.call(ctx, func(context.Context) {
		now := m.now()
		for _, e := range m.wanted {
			if e.Until.After(now) {
				list = append(list, e)
			}
		}
	})
	slices.SortFunc(list, byPrefix)
	return list, err
}

// Stats returns the counts of now.
func (m *Manager) Stats() Stats {
	m.mu.Lock()
	s := m.stats
	s.Refused = maps.Clone(s.Refused)
	m.mu.Unlock()
	s.Dropped, s.Cut = m.dropped.Load(), m.cut.Load()
	return s
}

func (m *Manager) count(f func(s *Stats)) {
	m.mu.Lock()
	f(&m.stats)
	m.stats.Blocked = len(m.wanted)
	m.stats.Forgotten = m.policy.forgotten
	m.mu.Unlock()
}

// Run carries requests out until ctx is done, and then those in the queue. It
// leaves the blocks to end by themselves. It fails at the start only, when the
// firewall cannot be used; what fails later is reported and tried again. It
// may be called once.
func (m *Manager) Run(ctx context.Context) error {
	defer m.finish()
	// The end of ctx must not make what was taken from the queue fail: nobody
	// would try it again.
	work := context.WithoutCancel(ctx)
	if m.opt.StateFile != "" {
		offenders, err := loadState(m.opt.StateFile)
		if err != nil {
			m.log.Warn("offences of former runs are not known; every host starts anew", "err", err)
		} else {
			m.policy.offenders = offenders
			m.policy.forget(m.now())
		}
	}
	if err := m.check(work, true); err != nil {
		return err
	}
	cutter, _ := m.blocker.(Cutter)
	cuts := make(chan []netip.Prefix)
	changes := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(cuts)
	wg.Go(func() { m.cutAll(ctx, cutter, cuts) })
	if w, ok := m.blocker.(Watcher); ok {
		wg.Go(func() { m.watch(ctx, w, changes) })
	}

	timer := time.NewTimer(checkEvery) //nolint:forbidigo // the firewall is looked at by the wall clock, whatever the traffic does
	defer timer.Stop()
	look, due, looked := time.NewTimer(checkEvery), false, time.Time{} //nolint:forbidigo // as above
	defer look.Stop()
	look.Stop()                                           // until somebody tells of a change
	ends, armed := time.NewTimer(checkEvery), time.Time{} //nolint:forbidigo // as above
	defer ends.Stop()
	ends.Stop() // until there is a block
	for {
		var out chan []netip.Prefix
		if cutter == nil {
			m.toCut = nil
		} else if len(m.toCut) > 0 {
			out = cuts
		}
		if !m.next.Equal(armed) {
			armed = m.next
			ends.Reset(max(armed.Sub(m.now()), endPause))
		}
		select {
		case r := <-m.queue:
			m.decide(work, m.take(r))
		case f := <-m.calls:
			f(work)
		case <-m.kick:
			m.recheck(work)
		case out <- m.toCut:
			m.toCut = nil
		case <-changes:
			if !due {
				due = true
				look.Reset(min(max(lookPause-m.now().Sub(looked), settle), lookPause))
			}
		case <-look.C:
			due, looked = false, m.now()
			_ = m.check(work, false) // a failure is reported there, and tried again
		case <-ends.C:
			armed = time.Time{}
			m.end()
		case <-timer.C:
			if err := m.check(work, false); err == nil {
				m.save()
			}
			m.soon = false
			timer.Reset(cmp.Or(m.retry, checkEvery))
		case <-ctx.Done():
			m.stop(work)
			return nil
		}
		if m.soon {
			m.soon = false
			timer.Reset(m.retry)
		}
	}
}

// watch has w tell of changes of the firewall.
func (m *Manager) watch(ctx context.Context, w Watcher, changes chan<- struct{}) {
	err := w.Watch(ctx, func() {
		select {
		case changes <- struct{}{}:
		default: // it will be looked at anyway
		}
	})
	if err != nil && ctx.Err() == nil {
		m.log.Warn("what others change in the firewall is not seen at once; it is looked at every minute all the same", "err", err)
	}
}

// take returns r and all that waits behind it.
func (m *Manager) take(r Request) []Request {
	batch := []Request{r}
	for len(batch) < maxBatch {
		select {
		case r := <-m.queue:
			batch = append(batch, r)
		default:
			return batch
		}
	}
	return batch
}

// stop carries out what is in the queue, writes down what has ended, and saves
// the offences.
func (m *Manager) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	select {
	case r := <-m.queue:
		m.decide(ctx, m.take(r))
	default:
	}
	m.end()
	m.save()
}

// finish lets nobody wait for Run any more, and counts what came too late.
func (m *Manager) finish() {
	close(m.done)
	for {
		select {
		case <-m.queue:
			m.dropped.Add(1)
		default:
			return
		}
	}
}

// cutAll ends the connections of what comes from cuts, at most once in cutPause.
func (m *Manager) cutAll(ctx context.Context, c Cutter, cuts <-chan []netip.Prefix) {
	said := make(map[bool]bool) // of what this machine cannot do, and of what has failed
	for prefixes := range cuts {
		n, err := c.Cut(ctx, prefixes)
		m.cut.Add(int64(n))
		if lacking := errors.Is(err, errors.ErrUnsupported); err != nil && !said[lacking] && ctx.Err() == nil {
			said[lacking] = true
			m.log.Warn("connections of blocked hosts are not ended at once; their packets are dropped all the same", "err", err)
		}
		select {
		case <-time.After(cutPause): //nolint:forbidigo // a pause of the machine, not of the traffic
		case <-ctx.Done():
		}
	}
}

// save writes the offences down if any are new.
func (m *Manager) save() {
	if m.opt.StateFile == "" || !m.unsaved {
		return
	}
	m.policy.forget(m.now())
	if err := saveState(m.opt.StateFile, m.policy.offenders); err != nil {
		m.log.Error("offences are not saved", "err", err)
		return
	}
	m.unsaved = false
}

// step has nobody else write to the audit log until what it returns is called,
// which writes down what was added meanwhile.
func (m *Manager) step() func() {
	m.audit.begin()
	return func() { m.audited(m.audit.end()) }
}

// write adds a record to the audit log.
func (m *Manager) write(r Record) {
	r.Time, r.DryRun = m.now(), m.opt.Config.DryRun
	if m.opt.Tell != nil {
		m.opt.Tell(r)
	}
	m.audited(m.audit.add(r))
}

func (m *Manager) audited(err error) {
	if err == nil {
		return
	}
	first := false
	m.count(func(s *Stats) { s.Unaudited++; first = s.Unaudited == 1 })
	if first {
		m.log.Error("changes of blocks are not written down", "err", err)
	}
}

// outcome is what became of a request.
type outcome struct {
	decision Decision
	err      error
}

// change is what one step does to one prefix.
type change struct {
	entry   Entry // what the firewall is told
	old     Entry // what was wanted before the step
	blocked bool  // there was such an entry
	asked   []int // places of the requests that led to it, in their order
}

// decide makes decisions of requests and carries them out in one step. It
// returns one outcome for each request.
func (m *Manager) decide(ctx context.Context, batch []Request) []outcome {
	defer m.step()()
	now := m.now()
	out := make([]outcome, len(batch))
	step := make(map[netip.Prefix]*change)
	var changes []*change
	for i, r := range batch {
		d, err := m.judge(r, now)
		out[i] = outcome{d, err}
		if err != nil {
			m.refuse(r, err)
			continue
		}
		old, blocked := m.wanted[d.Prefix]
		if d.Extends && !d.Until.After(old.Until) {
			out[i].decision.Until = old.Until
			m.count(func(s *Stats) { s.Unchanged++ })
			continue
		}
		c := step[d.Prefix]
		if c == nil {
			c = &change{old: old, blocked: blocked}
			step[d.Prefix] = c
			changes = append(changes, c)
		}
		c.entry = d.entry()
		c.asked = append(c.asked, i)
		m.want(c.entry)
	}
	if len(changes) > 0 {
		m.carryOut(ctx, changes, out)
	}
	return out
}

// judge decides about one request.
func (m *Manager) judge(r Request, now time.Time) (Decision, error) {
	p, err := Canonical(r.Prefix)
	if err != nil {
		return Decision{}, err
	}
	d := Decision{Prefix: p, Reason: r.Reason, AlertID: r.AlertID, EvidenceIDs: r.EvidenceIDs, By: r.By}
	if why := m.guard.Load().Protects(p, r.By != ""); why != "" {
		return d, fmt.Errorf("%w: %s", ErrRefused, why)
	}
	if r.By == "" && m.opt.Spare != nil {
		if why := m.opt.Spare(p); why != "" {
			return d, fmt.Errorf("%w: %s", ErrRefused, why)
		}
	}
	old, blocked := m.wanted[p]
	if blocked && !old.Until.After(now) {
		m.expire(old)
		blocked = false
	}
	if d.Extends = blocked; blocked {
		d.Offences = max(old.Offences, 1)
	} else {
		d.Offences = m.policy.offence(p, now)
	}
	d.Until = m.policy.until(r, d.Offences, now)
	if d.Until.Before(now.Add(minDuration)) {
		return d, fmt.Errorf("%w: it was too long ago", ErrRefused)
	}
	if blocked {
		return d, nil
	}
	if len(m.wanted) >= m.opt.Config.MaxBlocked {
		m.expireAll(now)
	}
	if len(m.wanted) >= m.opt.Config.MaxBlocked {
		return d, fmt.Errorf("%w: max_blocked is reached", ErrRefused)
	}
	if !p.IsSingleIP() {
		for q := range m.nets {
			if p.Overlaps(q) {
				return d, fmt.Errorf("%w: it overlaps another blocked network", ErrRefused)
			}
		}
	}
	return d, nil
}

func (m *Manager) refuse(r Request, err error) {
	why := strings.TrimPrefix(err.Error(), ErrRefused.Error()+": ")
	short, _, _ := strings.Cut(why, ",") // without what differs from host to host
	if strings.HasPrefix(short, "holds ") {
		short = "holds what is protected"
	}
	m.count(func(s *Stats) { s.Refused[short]++ })
	text := Text(r.Prefix)
	m.write(Record{Action: ActRefuse, Prefix: text, Reason: why, Alert: r.AlertID, Evidence: r.EvidenceIDs, By: r.By})
	m.log.Info("not blocked", "prefix", text, "why", why, "alert", r.AlertID)
}

// carryOut tells the firewall of changes, and writes a record for each request
// that led to one: each has its own alert and evidence.
func (m *Manager) carryOut(ctx context.Context, changes []*change, out []outcome) {
	entries := make([]Entry, len(changes))
	for i, c := range changes {
		entries[i] = c.entry
	}
	err := m.firewall(ctx, func(ctx context.Context) error { return m.blocker.Block(ctx, entries) })
	if errors.Is(err, ErrRefused) {
		// The blocker knows better than the guard. One that is refused must not
		// keep the others from being blocked.
		if len(changes) > 1 {
			for _, c := range changes {
				m.carryOut(ctx, []*change{c}, out)
			}
			return
		}
		m.undo(changes[0], out, err)
		return
	}
	for i, c := range changes {
		p := c.entry.Prefix
		m.policy.remember(p, c.entry.Offences, c.entry.Until)
		m.unsaved = true
		if err == nil {
			m.settle(p)
			m.toCut = append(m.toCut, p)
		}
		var last Record
		for _, at := range c.asked {
			last = out[at].decision.record()
			if err != nil {
				out[at].err = fmt.Errorf("block %s: %w", last.Prefix, err)
				m.fail(p, last, err)
			} else {
				m.took(last)
			}
		}
		if err == nil && i < maxLogged {
			m.log.Info(m.verb(last.Action), "prefix", last.Prefix, "until", last.Until, "offences", last.Offences, "alert", last.Alert, "reason", last.Reason)
		}
	}
	if n := len(changes) - maxLogged; n > 0 && err == nil {
		m.log.Info(m.verb(ActBlock)+" more, see the audit log", "hosts", n)
	}
	m.count(func(*Stats) {})
}

// undo forgets a change that the firewall has refused.
func (m *Manager) undo(c *change, out []outcome, err error) {
	if c.blocked {
		m.want(c.old)
	} else {
		m.forgetEntry(c.entry.Prefix)
	}
	for _, at := range c.asked {
		d := out[at].decision
		out[at].err = err
		m.refuse(Request{Prefix: d.Prefix, AlertID: d.AlertID, EvidenceIDs: d.EvidenceIDs, By: d.By}, err)
	}
}

// record returns what the audit log has of d when the firewall has taken it.
func (d Decision) record() Record {
	r := Record{
		Action: ActBlock, Prefix: Text(d.Prefix), Until: d.Until, Offences: d.Offences, Reason: d.Reason, Alert: d.AlertID,
		Evidence: d.EvidenceIDs, By: d.By,
	}
	if d.Extends {
		r.Action = ActExtend
	}
	return r
}

// took counts and writes down a change that the firewall has taken.
func (m *Manager) took(r Record) {
	m.count(func(s *Stats) {
		if r.Action == ActExtend {
			s.Extended++
		} else {
			s.Blocks++
		}
	})
	m.write(r)
}

// fail writes down a change that the firewall has not taken. It is owed then:
// the next look puts it in place.
func (m *Manager) fail(p netip.Prefix, r Record, err error) {
	if len(m.owed[p]) < maxOwed {
		m.owed[p] = append(m.owed[p], r)
	}
	r.Reason, r.Action, r.Error = string(r.Action)+": "+r.Reason, ActFail, err.Error()
	m.write(r)
}

// settle writes down that the firewall has what was owed, and reports whether
// anything was.
func (m *Manager) settle(p netip.Prefix) bool {
	owed := m.owed[p]
	for _, r := range owed {
		m.took(r)
	}
	delete(m.owed, p)
	return len(owed) > 0
}

// verb returns what the log says for an action that changes the firewall.
func (m *Manager) verb(a Action) string {
	v := "blocked"
	if a == ActExtend {
		v = "blocked for longer"
	}
	if m.opt.Config.DryRun {
		v = "would have " + v
	}
	return v
}

// firewall makes one call of the Blocker, and reports a failure that is new.
func (m *Manager) firewall(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := f(ctx)
	switch {
	case err == nil:
		if m.failing != "" {
			m.log.Info("the firewall works again")
		}
		m.failing, m.retry = "", 0
	case errors.Is(err, ErrRefused), errors.Is(err, ErrDamaged), errors.Is(ctx.Err(), context.Canceled):
	default:
		m.count(func(s *Stats) { s.Failures++ })
		if err.Error() != m.failing {
			m.failing = err.Error()
			m.log.Error("the firewall did not take a change; it is tried again", "err", err)
		}
		m.soon = m.soon || m.retry == 0 // a try is due already otherwise
		m.retry = min(max(2*m.retry, retryFirst), checkEvery)
	}
	return err
}

func (m *Manager) want(e Entry) {
	m.wanted[e.Prefix] = e
	if m.next.IsZero() || e.Until.Before(m.next) {
		m.next = e.Until
	}
	if !e.Prefix.IsSingleIP() {
		m.nets[e.Prefix] = true
	}
}

func (m *Manager) forgetEntry(p netip.Prefix) {
	delete(m.wanted, p)
	delete(m.nets, p)
	delete(m.owed, p)
}

func (m *Manager) expire(e Entry) {
	m.forgetEntry(e.Prefix)
	m.count(func(s *Stats) { s.Expired++ })
	m.write(Record{Action: ActExpire, Prefix: Text(e.Prefix), Until: e.Until, Offences: e.Offences, Alert: e.Alert, By: e.By})
}

// expireAll takes note of the blocks that have ended.
func (m *Manager) expireAll(now time.Time) {
	if m.next.IsZero() || m.next.After(now) {
		return
	}
	var ended []Entry
	m.next = time.Time{}
	for _, e := range m.wanted {
		if !e.Until.After(now) {
			ended = append(ended, e)
		} else if m.next.IsZero() || e.Until.Before(m.next) {
			m.next = e.Until
		}
	}
	slices.SortFunc(ended, byPrefix)
	for _, e := range ended {
		m.expire(e)
	}
}

// end writes down which blocks have ended.
func (m *Manager) end() {
	defer m.step()()
	m.expireAll(m.now())
}

// sorted returns the wanted entries, so that logs have one order.
func (m *Manager) sorted() []Entry {
	return slices.SortedFunc(maps.Values(m.wanted), byPrefix)
}

func byPrefix(a, b Entry) int { return a.Prefix.Compare(b.Prefix) }

// unblock ends the blocks of prefixes, of all when there are none.
func (m *Manager) unblock(ctx context.Context, by, reason string, prefixes []netip.Prefix) ([]netip.Prefix, error) {
	defer m.step()()
	var found []netip.Prefix
	if len(prefixes) == 0 {
		found = slices.Collect(maps.Keys(m.wanted))
	}
	for _, p := range prefixes {
		p, err := Canonical(p)
		if err != nil {
			return nil, err
		}
		if _, ok := m.wanted[p]; ok {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, netip.Prefix.Compare)
	found = slices.Compact(found)
	if len(found) == 0 {
		return nil, nil
	}
	if err := m.firewall(ctx, func(ctx context.Context) error { return m.blocker.Unblock(ctx, found) }); err != nil {
		return nil, fmt.Errorf("unblock: %w", err)
	}
	for _, p := range found {
		e := m.wanted[p]
		m.forgetEntry(p)
		delete(m.policy.offenders, p)
		m.write(Record{Action: ActUnblock, Prefix: Text(p), Until: e.Until, Offences: e.Offences, Alert: e.Alert, By: by, Reason: reason})
	}
	m.unsaved = true
	m.count(func(s *Stats) { s.Unblocked += int64(len(found)) })
	m.log.Info("unblocked", "hosts", len(found), "by", by)
	return found, nil
}

// release ends blocks that the guard does not allow.
func (m *Manager) release(ctx context.Context, entries []Entry) {
	if len(entries) == 0 {
		return
	}
	prefixes := make([]netip.Prefix, len(entries))
	for i, e := range entries {
		prefixes[i] = e.Prefix
	}
	if err := m.firewall(ctx, func(ctx context.Context) error { return m.blocker.Unblock(ctx, prefixes) }); err != nil {
		return // they are found again at the next look
	}
	for _, e := range entries {
		m.released(e, m.guard.Load().Protects(e.Prefix, true))
	}
}

// released notes that a block is gone because of why.
func (m *Manager) released(e Entry, why string) {
	m.forgetEntry(e.Prefix)
	m.write(Record{Action: ActRelease, Prefix: Text(e.Prefix), Until: e.Until, Reason: why, Alert: e.Alert, By: e.By})
	m.log.Warn("unblocked what must not be blocked", "prefix", Text(e.Prefix), "why", why)
	m.count(func(s *Stats) { s.Released++ })
}

// recheck releases what the guard protects by now.
func (m *Manager) recheck(ctx context.Context) {
	defer m.step()()
	var wrong []Entry
	for _, e := range m.sorted() {
		if m.guard.Load().Protects(e.Prefix, true) != "" {
			wrong = append(wrong, e)
		}
	}
	m.release(ctx, wrong)
}

// check compares the firewall with what is wanted and makes it so. At the
// start, what is missing is no damage.
func (m *Manager) check(ctx context.Context, start bool) error {
	defer m.step()()
	var got []Entry
	err := m.firewall(ctx, func(ctx context.Context) error {
		var err error
		got, err = m.blocker.List(ctx)
		return err
	})
	damaged := errors.Is(err, ErrDamaged)
	if err != nil && !damaged {
		return fmt.Errorf("look at the firewall: %w", err)
	}
	now := m.now()
	m.expireAll(now)
	seen := make(map[netip.Prefix]bool, len(got))
	var wrong, missing []Entry
	slices.SortFunc(got, byPrefix)
	for _, e := range got {
		seen[e.Prefix] = true
		w, known := m.wanted[e.Prefix]
		switch {
		case m.guard.Load().Protects(e.Prefix, true) != "":
			wrong = append(wrong, e)
		case !known && e.Until.After(now.Add(slack)): // else it is one of ours that has just ended
			m.find(e)
		case !known:
		case e.Until.Before(w.Until.Add(-slack)):
			missing = append(missing, w)
		case e.Until.After(w.Until.Add(slack)):
			m.settle(w.Prefix)
			w.Until = e.Until
			m.want(w)
			m.write(Record{
				Action: ActFind, Prefix: Text(w.Prefix), Until: w.Until, Offences: w.Offences, Alert: w.Alert, By: w.By, Reason: "somebody else put the end off",
			})
		default: // a call that failed may have been carried out all the same
			m.settle(w.Prefix)
		}
	}
	for _, w := range m.sorted() {
		switch {
		case seen[w.Prefix]:
		case m.guard.Load().Protects(w.Prefix, true) != "":
			wrong = append(wrong, w)
		case w.Until.After(now.Add(slack)):
			missing = append(missing, w)
		}
	}
	slices.SortFunc(missing, byPrefix)
	m.release(ctx, wrong)
	var failed error
	if damaged || start || len(missing) > 0 {
		m.count(func(s *Stats) {
			if damaged && !start {
				s.Damaged++
			}
		})
		if damaged && !start {
			m.log.Warn("the firewall's part of the blocks was removed by somebody else; it is put back", "err", err, "blocks", len(m.wanted))
		}
		missing, failed = m.putBack(ctx, missing)
	}
	restored := 0
	for _, w := range missing {
		m.toCut = append(m.toCut, w.Prefix)
		if !m.settle(w.Prefix) {
			restored++
			m.write(Record{Action: ActRestore, Prefix: Text(w.Prefix), Until: w.Until, Offences: w.Offences, Alert: w.Alert, By: w.By})
		}
	}
	if restored > 0 {
		m.log.Warn("blocks were missing in the firewall and are put back", "blocks", restored)
	}
	if n := len(missing) - restored; n > 0 {
		m.log.Info(m.verb(ActBlock)+" what the firewall did not take before", "hosts", n)
	}
	m.count(func(s *Stats) { s.Restored += int64(restored) })
	if failed != nil {
		return fmt.Errorf("put the blocks in place: %w", failed)
	}
	return nil
}

// putBack blocks entries that were missing and returns those that are blocked
// now. One that the firewall refuses is given up, or it would keep the others
// out for ever.
func (m *Manager) putBack(ctx context.Context, missing []Entry) (back []Entry, err error) {
	put := func(list []Entry) error {
		return m.firewall(ctx, func(ctx context.Context) error { return m.blocker.Block(ctx, list) })
	}
	if err = put(missing); err == nil {
		return missing, nil
	}
	if !errors.Is(err, ErrRefused) {
		return nil, err
	}
	for _, e := range missing {
		err := put([]Entry{e})
		switch {
		case err == nil:
			back = append(back, e)
		case errors.Is(err, ErrRefused):
			m.released(e, strings.TrimPrefix(err.Error(), ErrRefused.Error()+": "))
		default:
			return back, err
		}
	}
	if len(back) == 0 {
		return nil, put(nil) // the firewall's other parts
	}
	return back, nil
}

// find takes over a block that is in the firewall already.
func (m *Manager) find(e Entry) {
	m.want(e)
	if e.Offences > m.policy.offenders[e.Prefix].Count {
		m.unsaved = true
	}
	m.policy.remember(e.Prefix, max(e.Offences, m.policy.offenders[e.Prefix].Count, 1), e.Until)
	m.count(func(s *Stats) { s.Found++ })
	m.write(Record{Action: ActFind, Prefix: Text(e.Prefix), Until: e.Until, Offences: e.Offences, Alert: e.Alert, By: e.By})
}
