package arp

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/slips-go/slips/alerts/block"
)

// state is how far the isolation of a host is.
type state int

const (
	waiting  state = iota // for hardware addresses
	isolated              // the pairs are told
	leaving               // the pairs are told the truth
)

// target is a host that is isolated, or is to be.
type target struct {
	addr  netip.Addr
	entry block.Entry
	port  *port
	state state
	mac   MAC
	macs  []MAC // all that lies went to, first the one it was isolated at
	fake  MAC
	peers map[netip.Addr]*pair
	truth int       // times that the truth was told
	next  time.Time // to tell the truth; to look for peers
	mute  bool      // that it does not answer is reported
}

// pair is a target and a host that it must not reach.
type pair struct {
	addr netip.Addr
	mac  MAC       // to which the last lie went
	told bool      // there was one
	step int       // of gaps
	next time.Time // to tell
	last time.Time // told
}

// gaps are the pauses after the first times that a pair is told; behind them
// it is Config.Every. The second comes when Linux takes another answer again.
func gaps() []time.Duration { return []time.Duration{250 * time.Millisecond, 1100 * time.Millisecond} }

// truths are the pauses between the times that the truth is told.
func truths() []time.Duration {
	return []time.Duration{500 * time.Millisecond, time.Second, time.Second}
}

// heard is a frame that a port received, or the end of its wire.
type heard struct {
	port *port
	wire wire
	m    message
	err  error
}

// loop is Run at work.
type loop struct {
	*Isolator
	targets map[netip.Addr]*target
	refused map[netip.Prefix]string
	owners  map[netip.Addr]netip.Addr // what is blocked -> another host that had its hardware address
	frames  chan heard
	readers sync.WaitGroup
	look    time.Time // at hardware addresses, own addresses and refusals again
	silent  bool      // a failure to send is reported
}

// Run isolates what is blocked until ctx is done, and then tells everybody the
// truth and closes the sockets. What fails is reported and tried again. It may
// be called once.
func (i *Isolator) Run(ctx context.Context) error {
	l := &loop{
		Isolator: i, targets: make(map[netip.Addr]*target), refused: make(map[netip.Prefix]string), owners: make(map[netip.Addr]netip.Addr),
		frames: make(chan heard, queueFrames),
	}
	quit := make(chan struct{})
	for _, p := range i.ports {
		l.read(p, quit)
	}
	defer func() {
		close(quit)
		_ = i.Close() // sockets that have nothing to lose
		l.readers.Wait()
	}()
	l.work(ctx, quit, false)
	if len(l.targets) == 0 {
		return nil
	}
	for _, t := range l.sorted() {
		l.release(t, i.o.Now(), "the program stops")
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	l.work(last, quit, true)
	return nil
}

// work does what is due until ctx is done. At the end nobody is taken up any
// more, and it returns when nobody is left.
func (l *loop) work(ctx context.Context, quit <-chan struct{}, end bool) {
	heard := false            // and nothing else happened
	var due time.Time         // when something else is to
	timer := time.NewTimer(0) //nolint:forbidigo // caches of neighbours live by the wall clock
	defer timer.Stop()
	for ctx.Err() == nil {
		now := l.o.Now()
		if !end && (!heard || !now.Before(due)) {
			l.adopt(now)
		}
		l.reopen(now, quit)
		due = l.step(now)
		if end && len(l.targets) == 0 {
			return
		}
		timer.Reset(max(due.Sub(now), tick))
		heard = false
		select {
		case <-ctx.Done():
		case <-l.kick:
		case h := <-l.frames:
			heard = true
			l.hear(h)
			for range len(l.frames) { // a flood costs one look at all targets for many frames
				l.hear(<-l.frames)
			}
		case <-timer.C:
		}
	}
}

// read starts the goroutine that hands on what p receives. It ends with the
// wire, or when quit is closed.
func (l *loop) read(p *port, quit <-chan struct{}) {
	w := p.wire
	if w == nil {
		return
	}
	l.readers.Go(func() {
		b := make([]byte, 256) // more than ARP with padding
		for {
			n, err := w.receive(b)
			h := heard{port: p, wire: w, err: err}
			if err == nil {
				var ok bool
				if h.m, ok = parse(b[:n]); !ok {
					continue
				}
			}
			select {
			case l.frames <- h:
			case <-quit:
				return
			}
			if err != nil {
				return
			}
		}
	})
}

// sorted returns the targets in the order of their addresses.
func (l *loop) sorted() []*target {
	return slices.SortedFunc(maps.Values(l.targets), func(a, b *target) int { return a.addr.Compare(b.addr) })
}

// guards is what must not be isolated, as of one moment.
type guards struct {
	network, guard *block.Guard
	gates          []netip.Addr
}

// protects returns why p must not be isolated; empty if it may be.
func (g guards) protects(p netip.Prefix) string {
	for _, g := range []*block.Guard{g.network, g.guard} {
		if why := g.Protects(p, true); why != "" {
			return why
		}
	}
	return ""
}

func (l *loop) guards() guards {
	l.mu.Lock()
	defer l.mu.Unlock()
	return guards{l.network, l.guard, l.gates}
}

// adopt makes targets of what is wanted, and releases what is not any more.
func (l *loop) adopt(now time.Time) {
	l.mu.Lock()
	maps.DeleteFunc(l.wanted, func(_ netip.Prefix, e block.Entry) bool { return !e.Until.After(now) })
	wanted := maps.Clone(l.wanted)
	again := l.changed
	l.changed = false
	l.mu.Unlock()
	if !now.Before(l.look) {
		l.refresh(now)
		again = true
	}
	g := l.guards()
	for _, t := range l.sorted() {
		if t.state == leaving {
			continue
		}
		p := block.Single(t.addr)
		if e, ok := wanted[p]; !ok {
			l.release(t, now, "the block has ended")
		} else if why := g.protects(p); again && why != "" {
			l.release(t, now, why)
		} else if _, ok := t.port.local(t.addr); again && !ok {
			l.release(t, now, notLocal)
		} else {
			t.entry = e
		}
	}
	maps.DeleteFunc(l.refused, func(p netip.Prefix, _ string) bool { _, ok := wanted[p]; return !ok })
	maps.DeleteFunc(l.owners, func(a, _ netip.Addr) bool { _, ok := wanted[block.Single(a)]; return !ok })
	for _, p := range slices.SortedFunc(maps.Keys(wanted), netip.Prefix.Compare) {
		t := l.targets[p.Addr()]
		if _, ok := l.refused[p]; ok && !again || t != nil && p.IsSingleIP() && t.state != leaving {
			continue
		}
		port, why := l.judge(p, g)
		if why != "" {
			l.refuse(wanted[p], why)
			continue
		}
		if t == nil {
			t = &target{addr: p.Addr(), peers: make(map[netip.Addr]*pair)}
			l.targets[t.addr] = t
		}
		t.entry, t.port, t.state, t.next = wanted[p], port, waiting, now
	}
}

// judge returns where p is isolated, or why it is not, as far as can be said
// without its hardware address.
func (l *loop) judge(p netip.Prefix, g guards) (*port, string) {
	switch {
	case !p.IsSingleIP():
		return nil, "a network, and hosts are isolated"
	case !p.Addr().Is4():
		return nil, "IPv6, which does not use ARP"
	}
	if why := g.protects(p); why != "" {
		return nil, why
	}
	i := slices.IndexFunc(l.ports, func(q *port) bool { return q.neighbour(p.Addr()) })
	if i < 0 {
		return nil, notLocal
	}
	if l.number(isolated) >= l.o.Config.Max || l.number(waiting) >= maxWaiting {
		return nil, full
	}
	return l.ports[i], ""
}

const full = "max is reached"

// number returns how many targets are in state s.
func (l *loop) number(s state) (n int) {
	for _, t := range l.targets {
		if t.state == s {
			n++
		}
	}
	return n
}

// refuse notes that a host is not isolated, once for each reason.
func (l *loop) refuse(e block.Entry, why string) {
	if l.refused[e.Prefix] == why {
		return
	}
	l.refused[e.Prefix] = why
	l.count(func(s *Stats) { s.Refused[why]++ })
	text := block.Text(e.Prefix)
	l.o.Log.Info("not isolated", "prefix", text, "why", why, "alert", e.Alert, "by", e.By)
	l.write(block.Record{Action: block.ActRefuse, Prefix: text, Reason: "not isolated: " + why, Alert: e.Alert, By: e.By})
}

// refresh looks at the interfaces, and asks again for the hardware addresses
// of targets and gateways. Those of other peers are asked for in the end.
func (l *loop) refresh(now time.Time) {
	gates := l.guards().gates
	l.look = now.Add(refresh)
	for _, p := range l.ports {
		used := make(map[netip.Addr]bool) // and whether it is asked for
		for _, t := range l.targets {
			if t.port != p {
				continue
			}
			for a := range t.peers {
				used[a] = used[a] || slices.Contains(gates, a)
			}
			used[t.addr] = true
		}
		for _, a := range l.owners { // asked for when it matters
			if _, ok := used[a]; !ok {
				used[a] = false
			}
		}
		for a, h := range p.hosts {
			if ask, ok := used[a]; ok && ask && h.known && !h.asking {
				h.ask(now)
			} else if !ok && !h.asking && now.Sub(h.failed) >= silence {
				delete(p.hosts, a)
			}
		}
		if p.wire == nil {
			continue
		}
		v, err := p.wire.look()
		if err != nil {
			l.lost(p, err)
			continue
		}
		p.view = v
	}
	l.noteLocals()
}

// lost closes a port that does not work any more. reopen tries again.
func (l *loop) lost(p *port, err error) {
	l.count(func(s *Stats) { s.Failures++ })
	if p.down != err.Error() {
		p.down = err.Error()
		l.o.Log.Warn("nobody is isolated on an interface until it is back", "interface", p.name, "err", err)
	}
	_ = p.close() // a socket that has nothing to lose
	p.retry = l.o.Now().Add(l.o.Config.Every)
}

// reopen opens what was lost.
func (l *loop) reopen(now time.Time, quit <-chan struct{}) {
	for _, p := range l.ports {
		if p.wire != nil || now.Before(p.retry) {
			continue
		}
		if err := p.open(); err != nil {
			l.lost(p, err)
			continue
		}
		p.down = ""
		l.o.Log.Info("hosts are isolated on an interface again", "interface", p.name)
		l.noteLocals()
		l.read(p, quit)
	}
}

// step does what is due at all ports and targets, and returns when something
// is due next.
func (l *loop) step(now time.Time) time.Time {
	next := now.Add(refresh)
	if l.look.After(now) {
		next = l.look
	}
	due := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	g := l.guards()
	for _, t := range l.sorted() {
		switch t.state {
		case waiting:
			l.isolate(t, g, now)
		case isolated, leaving:
			l.follow(t, g, now)
		}
		if t.state == leaving { // maybe since a moment ago
			if l.tellTruth(t, now) {
				due(t.next)
			}
			continue
		}
		due(t.entry.Until)
		if t.state != isolated {
			continue // an answer, or the next refresh, wakes us
		}
		if !now.Before(t.next) {
			for _, a := range t.gates(g) { // one that was away, or is new
				l.pair(t, a, now)
			}
			t.next = now.Add(refresh)
		}
		due(t.next)
		for _, q := range t.peers {
			if l.tellPair(t, q, now) {
				due(q.next)
			}
		}
	}
	for _, p := range l.ports { // last, for the targets have just said whom to ask for
		if p.wire == nil {
			due(p.retry)
			continue
		}
		for a, h := range p.hosts {
			if h.asking {
				l.askFor(p, a, h, now)
				due(h.next)
			}
		}
	}
	l.count(func(s *Stats) {
		s.Isolated, s.Peers = 0, 0
		for _, t := range l.targets {
			if t.state == isolated {
				s.Isolated++
				s.Peers += len(t.peers)
			}
		}
	})
	return next
}

// askFor asks for the hardware address of a, or gives up, when it is time.
// h.next is when there is something to do next.
func (l *loop) askFor(p *port, a netip.Addr, h *host, now time.Time) {
	if now.Before(h.next) {
		return
	}
	from, ok := p.local(a)
	if h.tries == askTries || !ok {
		h.asking, h.failed = false, now // and h.next is now: who waits for it shall know
		return
	}
	l.send(p, ask(p.mac, from.Addr(), a))
	h.tries++
	h.next = now.Add(askAgain)
}

// isolate begins with t when everything is known for it.
func (l *loop) isolate(t *target, g guards, now time.Time) {
	p := t.port
	h := p.host(t.addr, now)
	wait := h != nil && !h.known && h.asking
	missing := ""
	if h == nil || !h.known {
		missing = "it does not answer to ARP"
	}
	gates := t.gates(g)
	found := 0
	for _, a := range gates {
		gh := p.host(a, now)
		switch {
		case gh == nil:
		case gh.known:
			found++
		default:
			wait = wait || gh.asking
		}
	}
	if missing == "" && len(gates) > 0 && found == 0 {
		missing = "no gateway answers to ARP"
	}
	if wait || p.wire == nil {
		return
	}
	if missing != "" {
		if !t.mute {
			t.mute = true
			l.o.Log.Warn("not isolated yet", "prefix", t.addr, "why", missing, "alert", t.entry.Alert, "by", t.entry.By)
			l.write(block.Record{Action: block.ActFail, Prefix: t.addr.String(), Reason: "not isolated yet", Alert: t.entry.Alert, By: t.entry.By, Error: missing})
		}
		return
	}
	why, wait := l.shares(t, h.mac, gates, now)
	if wait {
		return
	}
	if why == "" && l.number(isolated) >= l.o.Config.Max {
		why = full
	}
	if why != "" {
		l.refuse(t.entry, why)
		l.leave(t, now)
		return
	}
	t.move(h.mac)
	t.fake = l.unused(p, t.addr)
	t.state, t.mute, t.next = isolated, false, now
	for _, a := range gates {
		l.pair(t, a, now)
	}
	l.noteTold()
	l.count(func(s *Stats) { s.Isolations++ })
	delete(l.refused, block.Single(t.addr))
	verb := "isolated"
	if l.dry {
		verb = "would have isolated"
	}
	l.o.Log.Info(verb, "prefix", t.addr, "interface", p.name, "mac", t.mac, "gateways", gates, "told", t.fake, "until", t.entry.Until, "alert", t.entry.Alert, "by", t.entry.By)
	l.write(block.Record{
		Action: block.ActIsolate, Prefix: t.addr.String(), Until: t.entry.Until, Offences: t.entry.Offences, Alert: t.entry.Alert, By: t.entry.By,
		Reason: fmt.Sprintf("on %s, at %s, told as %s, gateways %v", p.name, t.mac, t.fake, gates),
	})
}

// noteTold tells Ours and Involved what is told. A host that is told the truth
// is part of it until it is forgotten.
func (l *loop) noteTold() {
	a := &affair{fakes: make(map[MAC]MAC, len(l.targets)), own: make(map[MAC]bool), targets: make(map[[4]byte]bool, len(l.targets))}
	for _, t := range l.targets {
		if t.state == isolated || t.state == leaving {
			a.fakes[t.fake], a.own[t.port.mac], a.targets[t.addr.As4()] = t.port.mac, true, true
		}
	}
	l.affair.Store(a)
}

// gates returns the gateways that t must not reach.
func (t *target) gates(g guards) (list []netip.Addr) {
	for _, a := range g.gates {
		if t.port.neighbour(a) && a != t.addr {
			list = append(list, a)
		}
	}
	return list
}

// move notes that the lies for t go to m from now on.
func (t *target) move(m MAC) {
	if t.mac = m; !slices.Contains(t.macs, m) {
		t.macs = append(t.macs, m)
	}
}

// follow sends what t is told to the hardware address that it says it has by
// now, unless that is somebody else's: what t says may be meant for us.
func (l *loop) follow(t *target, g guards, now time.Time) {
	h := t.port.hosts[t.addr]
	if h == nil || !h.known || h.mac == t.mac {
		return
	}
	seen := slices.Contains(t.macs, h.mac)
	if !seen && len(t.macs) > maxMoves {
		return
	}
	why, wait := l.shares(t, h.mac, t.gates(g), now)
	switch {
	case wait:
	case why != "":
		if t.state == isolated {
			l.drop(t, now, why)
		}
	default:
		if !seen {
			l.o.Log.Warn("an isolated host has another hardware address", "prefix", t.addr, "was", t.mac, "is", h.mac)
		}
		t.move(h.mac)
		for _, q := range t.peers { // whose times are not looked at when t leaves
			l.pair(t, q.addr, now)
		}
	}
}

// drop releases t though it is blocked, for its hardware address has become
// one at which it must not be isolated. It is judged again at the next refresh.
func (l *loop) drop(t *target, now time.Time, why string) {
	l.release(t, now, "its hardware address has changed: "+why)
	l.refuse(t.entry, why)
}

// shares returns why t must not be isolated at the hardware address m, or that
// an answer is to be waited for: what is only remembered of others may be what
// this host was called before, so they are asked.
func (l *loop) shares(t *target, m MAC, gates []netip.Addr, now time.Time) (why string, wait bool) {
	p := t.port
	switch {
	case !m.host():
		return "its hardware address is none of a host", false
	case m.virtual():
		return "it has a hardware address that routers share", false
	}
	for _, q := range l.ports {
		if m == q.mac {
			return "it has our hardware address (proxy ARP)", false
		}
	}
	for _, a := range gates {
		if h := p.hosts[a]; h != nil && h.known && h.mac == m {
			return "it has the gateway's hardware address (proxy ARP, or it poses as the gateway)", false
		}
	}
	others := p.also(m, t.addr)
	if len(others) == 0 {
		return "", false
	}
	room := maxAsking - p.asking()
	sure := func(h *host) bool {
		if h.sure(now) {
			return true
		}
		if wait = true; !h.asking && room > 0 {
			room--
			h.ask(now)
		}
		return false
	}
	if h := p.hosts[t.addr]; h != nil && !sure(h) {
		return "", true
	}
	for _, a := range others[:min(len(others), maxAsking)] {
		if o := l.targets[a]; o != nil && o.port == p && o.state != leaving {
			continue // another address of what is isolated, or is to be
		}
		h := p.host(a, now)
		if h == nil || !p.neighbour(a) {
			return l.shared(t, a), false // it cannot be asked
		}
		if sure(h) && h.heard.After(h.failed) && h.mac == m {
			return l.shared(t, a), false
		}
	}
	return "", wait
}

// shared notes that a has the hardware address of t, and says it.
func (l *loop) shared(t *target, a netip.Addr) string {
	l.owners[t.addr] = a
	return fmt.Sprintf("%s has its hardware address too", a)
}

// unused returns a hardware address for a that nobody is known to have.
func (l *loop) unused(p *port, a netip.Addr) (m MAC) {
	for n := range byte(8) { // one try is enough but for who knows what we would tell
		m = fake(p.mac, a, n)
		taken := false
		for _, c := range p.cached {
			taken = taken || c == m
		}
		for _, h := range p.hosts {
			taken = taken || h.mac == m
		}
		if !taken {
			break
		}
	}
	return m
}

// pair makes t and a be told soon, if they are a pair or can become one.
func (l *loop) pair(t *target, a netip.Addr, now time.Time) {
	q := t.peers[a]
	if q == nil {
		if l.isOwn(a) { // of another interface: we do not fool ourselves
			return
		}
		var h *host
		if len(t.peers) < maxPeers && t.port.asking() < maxAsking {
			h = t.port.host(a, now)
		}
		if h == nil {
			l.count(func(s *Stats) { s.Crowded++ })
			return
		}
		if !h.known && !h.asking {
			return // it did not answer a moment ago
		}
		q = &pair{addr: a}
		t.peers[a] = q
	}
	if q.step = 0; now.Sub(q.last) >= react {
		q.next = now
	} else if soon := q.last.Add(react); soon.Before(q.next) {
		q.next = soon
	}
}

func (l *loop) isOwn(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.own, a)
}

// tellPair tells t and q that the other is where nobody is, when it is time,
// and reports whether q.next is to come.
func (l *loop) tellPair(t *target, q *pair, now time.Time) bool {
	h := t.port.host(q.addr, now)
	switch {
	case h == nil || !h.known && !h.asking || h.known && (h.mac == t.mac || h.mac == t.port.mac):
		if !q.told { // else it is told the truth in the end
			delete(t.peers, q.addr)
		}
		return false
	case !h.known:
		return false // the answer wakes us
	case now.Before(q.next):
		return true
	}
	q.mac, q.told, q.last = h.mac, true, now
	l.lie(t, t.mac, t.addr, q.addr)
	l.lie(t, q.mac, q.addr, t.addr)
	pause := l.o.Config.Every
	if g := gaps(); q.step < len(g) {
		pause = g[q.step]
		q.step++
	}
	q.next = now.Add(pause)
	return true
}

// lie tells the host at to that addr is where nobody is.
func (l *loop) lie(t *target, to MAC, toAddr, addr netip.Addr) {
	if l.dry {
		return
	}
	for _, f := range tell(t.port.mac, to, toAddr, addr, t.fake) {
		l.send(t.port, f)
	}
}

// release begins to tell the truth to t and its pairs.
func (l *loop) release(t *target, now time.Time, why string) {
	was := t.state
	l.leave(t, now)
	if was != isolated {
		return
	}
	l.count(func(s *Stats) { s.Rejoined++ })
	l.o.Log.Info("not isolated any more", "prefix", t.addr, "interface", t.port.name, "hosts", len(t.peers), "why", why)
	l.write(block.Record{Action: block.ActRejoin, Prefix: t.addr.String(), Reason: why, Offences: t.entry.Offences, Alert: t.entry.Alert, By: t.entry.By})
}

// leave is release without a word. It forgets t at once if nobody was told.
func (l *loop) leave(t *target, now time.Time) {
	was := t.state
	t.state, t.truth, t.next = leaving, 0, now
	for a, q := range t.peers {
		if !q.told {
			delete(t.peers, a)
			continue
		}
		if other := l.targets[a]; other != nil && other.state == isolated && other.port == t.port {
			// That one is isolated on its own account: the two hear the truth
			// about each other when it is released.
			if other.peers[t.addr] == nil && len(other.peers) < maxPeers {
				other.peers[t.addr] = &pair{addr: t.addr, mac: t.mac, next: now}
			}
			delete(t.peers, a)
			continue
		}
		if h := t.port.hosts[a]; h != nil {
			h.ask(now)
		}
	}
	if was != isolated && len(t.peers) == 0 {
		delete(l.targets, t.addr)
		l.noteTold()
		return
	}
	if h := t.port.hosts[t.addr]; h != nil {
		h.ask(now)
	}
}

// tellTruth tells t and its pairs where the other is, when it is time, and
// reports whether there is more to tell.
func (l *loop) tellTruth(t *target, now time.Time) bool {
	if now.Before(t.next) {
		return true
	}
	p := t.port
	for a, q := range t.peers {
		if h := p.hosts[a]; h != nil && h.known {
			q.mac = h.mac
		}
		if l.dry {
			continue
		}
		frames := tell(p.mac, q.mac, a, t.addr, t.mac)
		for _, m := range t.macs {
			if m != q.mac { // it knows where it is itself
				frames = append(frames, tell(p.mac, m, t.addr, a, q.mac)...)
			}
		}
		for _, f := range frames {
			l.send(p, f)
		}
	}
	pauses := truths()
	if t.truth == len(pauses) {
		delete(l.targets, t.addr)
		l.noteTold() // what a capture still brings of it is some seconds old by now
		return false
	}
	t.next = now.Add(pauses[t.truth])
	t.truth++
	return true
}

// send sends a frame, and reports the first that cannot be.
func (l *loop) send(p *port, f []byte) {
	if p.wire == nil {
		return
	}
	err := p.wire.send(f)
	first := err != nil && !l.silent
	l.silent = err != nil
	l.count(func(s *Stats) {
		if err != nil {
			s.Failures++
		} else {
			s.Frames++
		}
	})
	if first {
		l.o.Log.Warn("a frame of ARP was not sent", "interface", p.name, "err", err)
	}
}

// hear learns from a frame, and acts when it is about a target.
func (l *loop) hear(h heard) {
	p, m, now := h.port, h.m, l.o.Now()
	if h.wire != p.wire {
		return // of before it was lost
	}
	if h.err != nil {
		l.lost(p, h.err)
		return
	}
	if m.sha == p.mac || l.isFake(m.sha) {
		return
	}
	l.expose(p, m, now)
	l.learn(p, m, now)
	for _, a := range []struct{ target, peer netip.Addr }{{m.spa, m.tpa}, {m.tpa, m.spa}} {
		t := l.targets[a.target]
		if t == nil || t.port != p || t.state != isolated {
			continue
		}
		if a.peer == a.target { // it tells everybody its address
			for _, q := range t.peers {
				l.pair(t, q.addr, now)
			}
		} else if p.neighbour(a.peer) {
			l.pair(t, a.peer, now)
		}
	}
}

// expose drops a target that has moved to what turns out to be the hardware
// address of another host. That one is told the truth, and the others where
// the target was before. The address at which a target was found is its own:
// that it poses as others from there is no reason.
func (l *loop) expose(p *port, m message, now time.Time) {
	for _, t := range l.targets {
		if t.port != p || t.state != isolated || t.mac != m.sha || t.addr == m.spa || !p.neighbour(m.spa) {
			continue
		}
		if t.mac == t.macs[0] && l.owners[t.addr] != m.spa {
			continue
		}
		if h := p.host(m.spa, now); h != nil && !h.known {
			h.mac, h.known = m.sha, true
		} else if h != nil && h.mac != m.sha {
			continue // it poses as that one
		}
		t.mac = t.macs[0]
		l.drop(t, now, l.shared(t, m.spa))
		return
	}
}

func (l *loop) isFake(m MAC) bool {
	for _, t := range l.targets {
		if t.fake == m && t.state != waiting {
			return true
		}
	}
	return false
}

// learn takes an answer to a question of ours. What a target says about others
// is not believed.
func (l *loop) learn(p *port, m message, now time.Time) {
	h := p.hosts[m.spa]
	if h == nil || m.op != opReply || m.tha != p.mac || !h.asking {
		if t := l.targets[m.spa]; t != nil && t.port == p && h != nil && !h.asking && (!h.known || m.sha != h.mac) {
			h.ask(now) // it is there, or it is somebody else
		}
		return
	}
	for _, t := range l.targets {
		if t.port == p && t.addr != m.spa && t.state != waiting && (t.mac == m.sha || t.macs[0] == m.sha) {
			return
		}
	}
	h.mac, h.known, h.asking, h.failed, h.heard = m.sha, true, false, time.Time{}, now // follow does the rest for a target
}
