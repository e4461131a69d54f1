// Package online asks services on the Internet about what the traffic showed:
// who owns an address, when a name was registered, who calls a file bad. It is
// never on a flow's path. Ask puts a question into a bounded queue and
// returns; Run asks the services, one question at a time each, and hands every
// answer to a recorder, which appends it to lookup.log. The program follows
// that log as one more input, so an answer has its place in the order of the
// records, and a replay that is given the log sees the same answers.
//
// Every service is off until it is configured. Only public addresses, names
// below a public suffix, URLs of such hosts and hashes of files ever leave the
// machine.
package online

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/parsers/flow"
)

// Why says what gave rise to a question. It decides which services are asked.
type Why string

// The reasons.
const (
	Evidence  Why = "evidence"   // an address, a name or a URL stands in an evidence
	NewDomain Why = "new_domain" // a host asked for a name it had not asked for before
	NewURL    Why = "new_url"    // a host fetched a URL it had not fetched before
	File      Why = "file"       // a file was transferred; the subject is its hash
	Inbound   Why = "inbound"    // an address from outside opened a connection
	C2        Why = "c2"         // a server is thought to command hosts; the subject is its address, with a port
)

// Question is one thing to ask about. Ask copies what it keeps of it.
type Question struct {
	Of      intel.Kind // Address, Domain, URL, MD5, SHA1 or SHA256
	Subject string     // in intel's canonical form; a URL may also carry its scheme
	Why     Why

	Src     netip.Addr // the host whose traffic gave rise to the question
	Dst     netip.Addr // the peer, if there is one
	DstPort uint16
	UID     string // of the connection
	Time    int64  // stream time, unix ns
}

// Answer is what one service said to one question: a line of lookup.log.
type Answer struct {
	// Time is the stream time of the question plus the wall time until the
	// answer, unix ns. It never decreases from one answer to the next.
	Time    int64
	UID     string
	Src     netip.Addr
	Dst     netip.Addr
	DstPort uint16

	flow.LookupPart // shared with other answers: read only
}

// Recorder takes the answers. One goroutine calls Record, with one answer at a
// time; it may keep the answer.
type Recorder interface {
	Record(Answer) error
}

// Options are what an Asker needs.
type Options struct {
	Config    Config
	Recorder  Recorder
	CacheFile string                // where answers outlive a restart; empty: nowhere
	Own       func(netip.Addr) bool // whether an address belongs to the observed network and so is not to be sent; nil: none
	Log       *slog.Logger
	Now       func() time.Time // wall clock; nil: time.Now

	dial dialer // how tests keep connections on this machine; nil: the system's
}

// dialer opens connections that are not HTTP: DNS, WHOIS and JARM.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// repeat is how long a host that asks about the same subject again gets no
// second answer, in stream time: the usual width of a time window, so that
// each window can have its own.
const repeat = int64(time.Hour)

// The bounds of memory.
const (
	maxReady   = 1024      // answers on their way to the recorder
	maxWaiting = 64        // questions that wait for one answer
	maxRecent  = 64 << 10  // hosts and subjects remembered to tell repetitions, per service
	saveEvery  = 10 * 60e9 // ns between two copies of the cache on disk
)

// Asker asks. Its methods may be called by any goroutine; Run once.
type Asker struct {
	opts    Options
	filter  filter
	workers []*worker
	ready   chan answered

	mu        sync.Mutex
	refused   map[string]int64
	unwritten int64
}

// answered is an answer that has no time yet.
type answered struct {
	question
	service string
	part    flow.LookupPart
}

// question is a Question whose subject was looked at.
type question struct {
	Question
	subject subject
	asked   time.Time // wall clock
}

// New makes an Asker and reads the keys of the services that are enabled and the
// answers of earlier runs. It starts nothing. The error joins all that is wrong.
func New(o Options) (*Asker, error) { return newAsker(o, specs()) }

func newAsker(o Options, table []*spec) (*Asker, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.dial == nil {
		o.dial = new(net.Dialer).DialContext
	}
	if err := o.Config.Validate(); err != nil {
		return nil, err
	}
	a := &Asker{opts: o, ready: make(chan answered, maxReady), refused: make(map[string]int64)}
	a.filter = newFilter(&o.Config, o.Own)
	var errs []error
	for _, s := range table {
		l := s.limits(&o.Config)
		if !l.Enabled {
			continue
		}
		svc, err := s.build(&o)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
			continue
		}
		a.workers = append(a.workers, newWorker(s, l, svc, a))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	a.load() // before the first question, which it may answer
	return a, nil
}

// Wants reports whether a question of that sort would be asked of any service,
// so that callers need not make it.
func (a *Asker) Wants(why Why, of intel.Kind) bool {
	return slices.ContainsFunc(a.workers, func(w *worker) bool { return w.spec.wants(why, of) })
}

// Ask takes a question. It never blocks: a question that finds no room is
// counted and forgotten, and one that must not leave the machine is refused.
func (a *Asker) Ask(q Question) {
	if !a.Wants(q.Why, q.Of) {
		return
	}
	s, canonical, refusal := a.filter.look(q.Of, q.Subject)
	if refusal != "" {
		a.mu.Lock()
		a.refused[refusal]++
		a.mu.Unlock()
		return
	}
	s.port = q.DstPort
	q.Subject, q.UID = strings.Clone(canonical), strings.Clone(q.UID)
	x := question{Question: q, subject: s, asked: a.opts.Now()}
	for _, w := range a.workers {
		if w.spec.wants(q.Why, q.Of) {
			w.put(x)
		}
	}
}

// Run asks until ctx ends, then writes the answers that are there and the
// cache. What still waits to be asked is dropped and counted. An answer that
// cannot be recorded is counted; the first one is logged.
func (a *Asker) Run(ctx context.Context) error {
	if len(a.workers) == 0 {
		return nil
	}
	var asking, recording sync.WaitGroup
	over := make(chan struct{})
	var err error
	recording.Go(func() { err = a.record(over) })
	for _, w := range a.workers {
		asking.Go(func() { w.run(ctx) })
	}
	asking.Wait()
	close(over)
	recording.Wait()
	return err
}

// record gives the answers their times and hands them on, until over is
// closed and no answer is left.
func (a *Asker) record(over <-chan struct{}) error {
	save := time.NewTicker(saveEvery)
	defer save.Stop()
	var last int64
	for {
		select {
		case x := <-a.ready:
			a.write(x, &last)
		case <-save.C:
			if err := a.save(); err != nil {
				a.opts.Log.Warn("the cache of online answers was not written", "err", err)
			}
		case <-over:
			for {
				select {
				case x := <-a.ready:
					a.write(x, &last)
					continue
				default:
				}
				return a.save()
			}
		}
	}
}

func (a *Asker) write(x answered, last *int64) {
	passed := max(0, a.opts.Now().Sub(x.asked))
	*last = max(*last, x.Time+int64(passed))
	ans := Answer{Time: *last, UID: x.UID, Src: x.Src, Dst: x.Dst, DstPort: x.DstPort, LookupPart: x.part}
	ans.Service, ans.Of, ans.Subject = x.service, x.Of.String(), x.Subject
	err := a.opts.Recorder.Record(ans)
	if err == nil {
		return
	}
	a.mu.Lock()
	a.unwritten++
	first := a.unwritten == 1
	a.mu.Unlock()
	if first {
		a.opts.Log.Error("an online answer was not recorded; further ones are counted", "err", err)
	}
}

// Counts are what became of the questions to one service.
type Counts struct {
	Questions int64            // that reached it
	Asked     int64            // requests that left the machine, those included that failed
	Found     int64            // answers of a service that knows the subject
	Unknown   int64            // answers of a service that does not
	Failed    int64            // requests without an answer
	Cached    int64            // questions answered from the cache
	Merged    int64            // questions that joined one on its way
	Repeated  int64            // questions a host had an answer to
	Quota     int64            // times the service said that it had been asked too much
	Dropped   map[string]int64 // by reason
}

// Status is how one service does.
type Status struct {
	Service string
	State   string // "on", "paused" (it failed, or its quota is used up), "stopped"
	Reason  string // of a state that is not "on"
	Queued  int    // questions that wait
	Counts
}

// Status returns how the enabled services do, in a fixed order.
func (a *Asker) Status() []Status {
	out := make([]Status, 0, len(a.workers))
	for _, w := range a.workers {
		out = append(out, w.status())
	}
	return out
}

// Refused returns how many questions were not let out, by reason.
func (a *Asker) Refused() map[string]int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.refused)
}

// Unwritten returns how many answers could not be recorded.
func (a *Asker) Unwritten() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.unwritten
}
