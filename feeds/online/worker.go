package online

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/slips-go/slips/parsers/flow"
)

// worker asks one service, one question at a time.
type worker struct {
	spec   *spec
	limits Limits
	svc    service
	all    *Asker
	queue  chan *job
	rate   pace  // used by run alone
	health pulse // used by run alone

	mu      sync.Mutex // guards what is below
	pending map[subject]*job
	cache   *lru[subject, kept]
	recent  *lru[asker, int64] // stream time until which a host gets no second answer
	counts  Counts
	stopped string // why no question is taken any more
	paused  string // why none is asked for now
}

// job is a subject that is to be asked about, and who wants to know.
type job struct {
	subject subject
	waiting []question // guarded by the worker's mu
}

// asker is a host and what it is asked about.
type asker struct {
	src     netip.Addr
	subject subject
}

// kept is an answer in the cache.
type kept struct {
	until  time.Time
	part   flow.LookupPart
	failed bool // such an answer does not outlive the program
}

func newWorker(s *spec, l Limits, svc service, a *Asker) *worker {
	return &worker{
		spec: s, limits: l, svc: svc, all: a,
		queue: make(chan *job, l.Queue), rate: newPace(l.RatePerMinute),
		pending: make(map[subject]*job),
		cache:   newLRU[subject, kept](l.CacheEntries), recent: newLRU[asker, int64](maxRecent),
		counts: Counts{Dropped: make(map[string]int64)},
	}
}

// put takes a question: answers it from the cache, joins it to one that is on
// its way, or queues it.
func (w *worker) put(q question) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts.Questions++
	if w.stopped != "" {
		w.counts.Dropped["stopped"]++
		return
	}
	key := w.spec.key(q.subject)
	who := w.asker(q)
	if until, ok := w.recent.get(who); ok && q.Time < until && q.Time > until-2*repeat {
		w.counts.Repeated++
		return
	}
	if k, ok := w.cache.get(key); ok && q.asked.Before(k.until) {
		select {
		case w.all.ready <- answered{q, w.spec.name, k.part}:
			w.counts.Cached++
			w.recent.put(who, q.Time+w.hold(k.failed))
		default:
			w.counts.Dropped["answers full"]++
		}
		return
	}
	if j := w.pending[key]; j != nil {
		if len(j.waiting) >= maxWaiting {
			w.counts.Dropped["waiting full"]++
			return
		}
		j.waiting = append(j.waiting, q)
		w.counts.Merged++
		w.recent.put(who, q.Time+repeat)
		return
	}
	j := &job{subject: key, waiting: []question{q}}
	select {
	case w.queue <- j:
		w.pending[key] = j
		w.recent.put(who, q.Time+repeat)
	default:
		w.counts.Dropped["queue full"]++
	}
}

func (w *worker) asker(q question) asker {
	who := asker{q.Src, q.subject}
	who.subject.port = w.spec.key(q.subject).port
	return who
}

// hold returns for how long a host gets no second answer, in stream time: after
// a failure only until the service is asked again.
func (w *worker) hold(failed bool) int64 {
	if failed {
		return min(int64(w.limits.Negative), repeat)
	}
	return repeat
}

// run asks until ctx ends.
func (w *worker) run(ctx context.Context) {
	if c, ok := w.svc.(interface{ close() }); ok {
		defer c.close()
	}
	for {
		select {
		case <-ctx.Done():
			w.stop("the program ends", "shutdown")
			return
		case j := <-w.queue:
			w.answer(ctx, j)
		}
	}
}

// stop lets no further question in and drops those that wait.
func (w *worker) stop(why, count string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped == "" {
		w.stopped = why
	}
	for _, j := range w.pending {
		w.counts.Dropped[count] += int64(len(j.waiting))
	}
	clear(w.pending)
	for {
		select {
		case <-w.queue:
		default:
			return
		}
	}
}

// answer asks about one subject until there is an answer or none to be had.
func (w *worker) answer(ctx context.Context, j *job) {
	for {
		if !w.wait(ctx) {
			return // run sees that ctx is over, and drops the job with the others
		}
		w.count(func(c *Counts) { c.Asked++ })
		limited, cancel := context.WithTimeout(ctx, w.limits.Timeout)
		part, err := w.svc.ask(limited, j.subject)
		late := limited.Err() != nil
		cancel()
		if err != nil && ctx.Err() != nil {
			return
		}
		if err != nil && late && !isSaid(err) {
			err = fmt.Errorf("no answer within %v", w.limits.Timeout)
		}
		now := w.all.opts.Now()
		var quota *quotaError
		var refused *refusedError
		var odd *subjectError
		switch {
		case errors.As(err, &quota):
			w.count(func(c *Counts) { c.Quota++ })
			pause := w.health.quota(now, quota.after)
			w.pause(fmt.Sprintf("its quota is used up, for %v", pause))
			continue
		case errors.As(err, &refused):
			w.all.opts.Log.Warn("an online service refuses us and is asked no more", "service", w.spec.name, "why", refused.Error())
			w.count(func(c *Counts) { c.Failed++ })
			w.stop(refused.Error(), "stopped")
			return
		case errors.As(err, &odd):
			w.recovered()
			w.finish(j, flow.LookupPart{Error: clip(err.Error())}, true)
		case err != nil:
			if pause := w.health.failed(now); pause > 0 {
				w.all.opts.Log.Warn("an online service does not answer and is left alone", "service", w.spec.name, "for", pause, "err", err)
				w.pause(err.Error())
			}
			w.finish(j, flow.LookupPart{Error: clip(err.Error())}, true)
		default:
			w.recovered()
			w.finish(j, bound(part), false)
		}
		return
	}
}

// wait returns when a request may go out; false when ctx ends before.
func (w *worker) wait(ctx context.Context) bool {
	for {
		now := w.all.opts.Now()
		d := w.health.wait(now)
		if d == 0 {
			d = w.rate.take(now)
		}
		if d == 0 {
			return ctx.Err() == nil
		}
		t := time.NewTimer(d)
		select {
		case <-ctx.Done():
			t.Stop()
			return false
		case <-t.C:
		}
	}
}

func (w *worker) recovered() {
	if w.health.ok() {
		w.all.opts.Log.Info("an online service answers again", "service", w.spec.name)
	}
	w.pause("")
}

func (w *worker) pause(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paused = why
}

func (w *worker) count(f func(*Counts)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.counts)
}

// finish keeps an answer and gives it to all that wait for it.
func (w *worker) finish(j *job, part flow.LookupPart, failed bool) {
	hold := w.limits.Negative
	w.mu.Lock()
	switch {
	case failed:
		w.counts.Failed++
	case part.Found == flow.True:
		w.counts.Found++
		hold = w.limits.Cache
	default:
		w.counts.Unknown++
	}
	w.cache.put(j.subject, kept{w.all.opts.Now().Add(hold), part, failed})
	delete(w.pending, j.subject)
	waiting := j.waiting // nobody adds to it from here on
	for _, q := range waiting {
		w.recent.put(w.asker(q), q.Time+w.hold(failed))
	}
	w.mu.Unlock()
	for _, q := range waiting {
		w.all.ready <- answered{q, w.spec.name, part} // the recorder outlives the workers
	}
}

func (w *worker) status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := Status{Service: w.spec.name, State: "on", Queued: len(w.pending), Counts: w.counts}
	s.Dropped = maps.Clone(w.counts.Dropped)
	switch {
	case w.stopped != "":
		s.State, s.Reason = "stopped", w.stopped
	case w.paused != "":
		s.State, s.Reason = "paused", w.paused
	}
	return s
}

// The bounds of what an answer may bring along: it is kept in memory, written
// to a log and shown to people.
const (
	maxText  = 512 // bytes of one text
	maxItems = 32  // elements of one list
)

// bound cuts an answer to those bounds.
func bound(p flow.LookupPart) flow.LookupPart {
	for _, s := range []*string{&p.Error, &p.Verdict, &p.Link, &p.Registrant, &p.ASOrg, &p.Country, &p.JARM} {
		*s = clip(*s)
	}
	for _, l := range []*[]string{&p.Lists, &p.Tags, &p.Names} {
		var out []string
		for _, s := range *l {
			if s = clip(s); s != "" && len(out) < maxItems {
				out = append(out, s)
			}
		}
		*l = out
	}
	p.Malicious, p.Total = max(p.Malicious, 0), max(p.Total, 0)
	if !(p.Score >= 0 && p.Score <= 1) {
		p.Score = 0
	}
	return p
}

// clip returns s as valid text of at most maxText bytes, of its own.
func clip(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.Clone(strings.ToValidUTF8(s, "")) // a character that was cut goes whole
}
