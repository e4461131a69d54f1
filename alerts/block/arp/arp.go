// Package arp keeps an attacker in the local network from reaching the gateway
// and its neighbours, by telling both sides of each pair that the other is at
// a hardware address that nobody has. It stands between the Manager and the
// firewall:
//
//	Manager -> Isolator -> nft.Firewall
//
// The firewall stops what passes this machine; a neighbour's traffic to others
// does not. ARP isolation is an attack by its means, so it is off unless asked
// for, is as narrow as does the job, and everything is taken back.
//
// # Who is isolated
//
// What the Manager blocks, when it is one IPv4 address in a local network of
// one of the interfaces. Never: gateways, own addresses, DNS and DHCP servers,
// network and broadcast addresses, whatever the Guard protects, a host that
// shares its hardware address with us or a gateway (proxy ARP, or a router's
// other address), with another host that answers, or has a virtual one of
// routers, and more hosts than Config.Max. An attacker that answers with the
// address of a victim would have us fool that one.
//
// # Who is told
//
// The attacker, and those that it must not reach: the gateways of its network,
// and hosts about which it asks the network, or that ask for it, while it is
// isolated. Asking is a
// broadcast, and who has nothing in the cache must ask, so no neighbour has to
// be told in advance, and none that never has to do with the attacker is
// touched. Both sides are told: a neighbour that believed the attacker at its
// true address would check it now and then by itself, and the attacker learns
// the neighbour's from that. All goes to one machine each, nothing is broadcast.
//
// A pair is told at once, twice again in the next seconds, for true answers
// may come in between, every Config.Every, and whenever one of the two asks.
//
// # The end
//
// When the block ends, for whatever reason, and when Run ends, those who were
// told are told the truth, four times in 2.5 s, about hardware addresses that
// are asked for again. If this program is killed, caches heal by themselves: a
// Linux host doubts what it has not heard for 15 to 45 s, and asks again some
// 10 s later.
package arp

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slips-go/slips/alerts/block"
)

// Config holds the settings of ARP isolation.
type Config struct {
	// Every is how often everybody is told again. Linux takes what it is told
	// for true for 15 s at least, so it has no reason to ask in between.
	Every time.Duration `yaml:"every"`
	// Max is how many hosts are isolated at a time; more are refused.
	Max int `yaml:"max"`
}

// Defaults returns the settings that slips.yaml ships with.
func Defaults() Config { return Config{Every: 10 * time.Second, Max: 16} }

// Validate reports the first setting that makes no sense, by its key and value.
func (c Config) Validate() error {
	if c.Every < time.Second || c.Every > time.Minute {
		return fmt.Errorf("every is %v, want 1s to 1m", c.Every)
	}
	if c.Max < 1 || c.Max > 1024 {
		return fmt.Errorf("max is %d, want 1 to 1024", c.Max)
	}
	return nil
}

// Options is what an Isolator is made of. Config, Interfaces, Guard, Log and
// Now must be given.
type Options struct {
	Config     Config
	Interfaces []string
	Network    block.Network // as it is now; Protect replaces both
	Guard      *block.Guard
	// Audit takes a line for each host that is isolated, told the truth again,
	// or refused; nil for none. A block.Log, which the Manager has too, brings
	// these lines behind those of the blocks that they follow from.
	Audit io.Writer
	Log   *slog.Logger
	Now   func() time.Time
	// NetNS is a descriptor of the network namespace to work in; 0 is that of
	// the caller.
	NetNS int
}

// The bounds and intervals.
const (
	maxPeers    = 256                    // told because of one attacker: a /24 and some; more are counted
	maxHosts    = 4096                   // hosts of one interface that are known, or did not answer lately
	maxAsking   = 256                    // of them asked for at a time, as an attacker may make us ask: 512 frames/s
	maxMoves    = 4                      // times that a target is followed to a new hardware address; later ones are told nothing
	maxWaiting  = 64                     // hosts that are to be isolated and have not answered yet
	queueFrames = 256                    // read and not looked at; the kernel drops what is beyond its own queue
	askAgain    = 500 * time.Millisecond // between two questions about a host
	askTries    = 4                      // then nobody has the address
	refresh     = time.Minute            // hardware addresses, own addresses and refusals are looked at again
	silence     = 30 * time.Second       // a host that did not answer is not asked for again
	tick        = 20 * time.Millisecond  // the shortest pause: what is due within it is done together
	react       = 100 * time.Millisecond // a pair that asks all the time is told at most so often
	stopTimeout = 5 * time.Second        // to tell the truth when Run ends; it takes 2.5 s
)

// Stats counts what an Isolator did since it was made.
type Stats struct {
	Isolated   int              // hosts, now
	Isolations int64            // hosts
	Rejoined   int64            // hosts
	Refused    map[string]int64 // hosts, by reason
	Peers      int              // pairs of an isolated host and one that it must not reach, now
	Crowded    int64            // times a pair was not told because there are too many
	Frames     int64            // sent
	Failures   int64            // frames that could not be sent, interfaces that could not be opened
	Unaudited  int64            // errors of the audit log
}

// Isolator is a block.Blocker that leaves blocking to another one, and isolates
// what is blocked in the local networks. Run does the work; the methods of
// Blocker do not wait for it.
type Isolator struct {
	inner block.Blocker
	o     Options
	dry   bool
	ports []*port // of the goroutine of Run, once that is started

	affair atomic.Pointer[affair] // what Ours and Involved go by

	kick chan struct{} // what is wanted has changed
	mu   sync.Mutex
	// What mu protects.
	wanted  map[netip.Prefix]block.Entry // blocked in a local network
	locals  []netip.Prefix               // the networks of the interfaces
	guard   *block.Guard                 // what the allow-list says besides
	network *block.Guard                 // what the network says
	gates   []netip.Addr                 // gateways
	own     []netip.Addr                 // our addresses
	changed bool                         // the guards, since Run looked
	stats   Stats
}

var (
	_ block.Blocker   = (*Isolator)(nil)
	_ block.Cutter    = (*Isolator)(nil)
	_ block.Watcher   = (*Isolator)(nil)
	_ block.DryRunner = (*Isolator)(nil)
)

// New opens a socket on each interface, which takes CAP_NET_RAW, and sends
// nothing. Interfaces that have no ARP are passed over; it fails when none is
// left. Run or Close ends it. The inner Blocker may be nil for a dry run, when
// block.NewManager brings one.
func New(inner block.Blocker, o Options) (*Isolator, error) {
	return open(inner, o, func(name string) (wire, error) { return dial(name, o.NetNS) })
}

// errNoARP says that an interface is of a kind that ARP has no use for.
var errNoARP = errors.New("it has no ARP")

func open(inner block.Blocker, o Options, dial func(string) (wire, error)) (*Isolator, error) {
	if err := o.Config.Validate(); err != nil {
		return nil, fmt.Errorf("arp isolation: %w", err)
	}
	if o.Guard == nil || o.Log == nil || o.Now == nil {
		return nil, errors.New("arp isolation needs a guard, a log and a clock")
	}
	i := &Isolator{
		inner: inner, o: o, kick: make(chan struct{}, 1), wanted: make(map[netip.Prefix]block.Entry),
		stats: Stats{Refused: make(map[string]int64)},
	}
	if err := i.Protect(o.Guard, o.Network); err != nil {
		return nil, err
	}
	var errs []error
	for _, name := range o.Interfaces {
		p := &port{name: name, dial: func() (wire, error) { return dial(name) }, hosts: make(map[netip.Addr]*host)}
		err := p.open()
		switch {
		case errors.Is(err, errNoARP):
			errs = append(errs, err)
			o.Log.Warn("nobody is isolated on an interface", "interface", name, "err", err)
			continue
		case err != nil:
			return nil, errors.Join(err, i.Close())
		}
		i.ports = append(i.ports, p)
	}
	if len(i.ports) == 0 {
		return nil, fmt.Errorf("arp isolation: no interface to work on: %w", errors.Join(errs...))
	}
	i.noteLocals()
	if !slices.ContainsFunc(i.locals, func(p netip.Prefix) bool { return p.Addr().Is4() }) {
		o.Log.Warn("nobody can be isolated, for the interfaces have no IPv4 address", "interfaces", o.Interfaces)
	}
	return i, nil
}

// Close closes the sockets of an Isolator that is not run. Run closes them
// itself.
func (i *Isolator) Close() error {
	var errs []error
	for _, p := range i.ports {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}

// DryRun implements block.DryRunner: from now on inner blocks, and nobody is
// told anything that is not true. Hardware addresses are asked for, so the log
// says what would be done. It must not be called once Run is.
func (i *Isolator) DryRun(inner block.Blocker) block.Blocker {
	i.inner, i.dry = inner, true
	return i
}

// Protect replaces what must not be isolated. Whoever is isolated and must not
// be any more is told the truth. Any goroutine may call it.
func (i *Isolator) Protect(g *block.Guard, n block.Network) error {
	own, err := block.NewGuard(n, nil)
	if err != nil {
		return fmt.Errorf("arp isolation: %w", err)
	}
	i.mu.Lock()
	i.guard, i.network, i.gates, i.own, i.changed = g, own, n.Gateways, n.Own, true
	i.mu.Unlock()
	i.wake()
	return nil
}

func (i *Isolator) wake() {
	select {
	case i.kick <- struct{}{}:
	default:
	}
}

// Block implements block.Blocker.
func (i *Isolator) Block(ctx context.Context, entries []block.Entry) error {
	if err := i.inner.Block(ctx, entries); err != nil {
		return err
	}
	i.take(entries, true)
	return nil
}

// Unblock implements block.Blocker.
func (i *Isolator) Unblock(ctx context.Context, prefixes []netip.Prefix) error {
	if err := i.inner.Unblock(ctx, prefixes); err != nil {
		return err
	}
	i.mu.Lock()
	for _, p := range prefixes {
		if p, err := block.Canonical(p); err == nil {
			delete(i.wanted, p)
		}
	}
	i.mu.Unlock()
	i.wake()
	return nil
}

// List implements block.Blocker. What is blocked and not isolated, as after a
// restart, is isolated.
func (i *Isolator) List(ctx context.Context) ([]block.Entry, error) {
	list, err := i.inner.List(ctx)
	if err == nil || errors.Is(err, block.ErrDamaged) {
		i.take(list, false)
	}
	return list, err
}

// Cut implements block.Cutter.
func (i *Isolator) Cut(ctx context.Context, prefixes []netip.Prefix) (int, error) {
	if c, ok := i.inner.(block.Cutter); ok {
		return c.Cut(ctx, prefixes)
	}
	return 0, nil
}

// Watch implements block.Watcher.
func (i *Isolator) Watch(ctx context.Context, changed func()) error {
	if w, ok := i.inner.(block.Watcher); ok {
		return w.Watch(ctx, changed)
	}
	<-ctx.Done()
	return nil
}

// notLocal is the reason that is the rule: most of what is blocked is not in
// the local network, and nothing is written about it.
const notLocal = "not in a local network of the interfaces"

// take notes what is blocked.
func (i *Isolator) take(entries []block.Entry, count bool) {
	i.mu.Lock()
	woken := false
	for _, e := range entries {
		p, err := block.Canonical(e.Prefix)
		if err != nil {
			continue
		}
		if !overlaps(i.locals, p) {
			if count {
				i.stats.Refused[notLocal]++
			}
			continue
		}
		e.Prefix = p
		woken = woken || i.wanted[p] != e
		i.wanted[p] = e
	}
	i.mu.Unlock()
	if woken {
		i.wake()
	}
}

func overlaps(list []netip.Prefix, p netip.Prefix) bool {
	for _, q := range list {
		if q.Overlaps(p) {
			return true
		}
	}
	return false
}

// affair is what the frames of an isolation can be told by.
type affair struct {
	fakes   map[MAC]MAC      // addresses that are told -> ours on that network
	own     map[MAC]bool     // ours, where somebody is isolated
	targets map[[4]byte]bool // who is isolated, or was a moment ago
}

// Ours reports whether a frame of Ethernet that was captured on one of the
// interfaces is what an Isolator tells that is not true. A detection of ARP
// spoofing would find it. Any goroutine may call it, for every frame.
func (i *Isolator) Ours(b []byte) bool {
	a := i.affair.Load()
	if a == nil || len(b) < frameLen || b[12] != etherARP>>8 || b[13] != etherARP&0xff {
		return false
	}
	own, ok := a.fakes[MAC(b[22:28])]
	return ok && own == MAC(b[6:12])
}

// Involved reports whether a frame is ARP that there would not be without the
// isolation of somebody, or that cannot be told from it: what we send and get
// while we isolate, what isolated hosts say and are asked, and all that goes to
// an address that we have told. A detection that saw it would accuse those who
// were lied to. Any goroutine may call it, for every frame.
func (i *Isolator) Involved(b []byte) bool {
	a := i.affair.Load()
	if a == nil || len(a.targets) == 0 || len(b) < frameLen || b[12] != etherARP>>8 || b[13] != etherARP&0xff {
		return false
	}
	if a.own[MAC(b[0:6])] || a.own[MAC(b[6:12])] || a.targets[[4]byte(b[28:32])] || a.targets[[4]byte(b[38:42])] {
		return true
	}
	_, to := a.fakes[MAC(b[0:6])]
	_, about := a.fakes[MAC(b[32:38])]
	return to || about
}

// Stats returns the counts of now.
func (i *Isolator) Stats() Stats {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := i.stats
	s.Refused = maps.Clone(s.Refused)
	return s
}

func (i *Isolator) count(f func(s *Stats)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f(&i.stats)
}

// noteLocals tells take which networks there are.
func (i *Isolator) noteLocals() {
	var locals []netip.Prefix
	for _, p := range i.ports {
		for _, a := range p.addrs {
			locals = append(locals, a.Masked())
		}
	}
	i.mu.Lock()
	i.locals = locals
	i.mu.Unlock()
}

// write adds a line to the audit log.
func (i *Isolator) write(r block.Record) {
	if i.o.Audit == nil {
		return
	}
	r.Time, r.DryRun = i.o.Now(), i.dry
	if err := block.WriteRecord(i.o.Audit, r); err != nil {
		first := false
		i.count(func(s *Stats) { s.Unaudited++; first = s.Unaudited == 1 })
		if first {
			i.o.Log.Error("isolations are not written down", "err", err)
		}
	}
}

// fake returns the nth hardware address that is told for addr on a network
// where ours is own. It is locally administered (the bit 02), and the same
// after a restart, so that an operator can tell what is ours in a cache.
func fake(own MAC, addr netip.Addr, n byte) MAC {
	b := append([]byte("slips arp isolation"), own[:]...)
	b = append(b, addr.AsSlice()...)
	sum := sha256.Sum256(append(b, n))
	return MAC{2, sum[0], sum[1], sum[2], sum[3], sum[4]}
}
