package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/block"
	"github.com/slips-go/slips/alerts/block/arp"
	"github.com/slips-go/slips/alerts/block/nft"
	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/config"
	"github.com/slips-go/slips/internal/service"
)

// Where blocking writes to, relative to the output directory.
const (
	blocksFile    = "alerts/blocks.jsonl"
	offendersFile = "state/offenders.json"
)

// blockConfig is the section "block".
type blockConfig struct {
	Enabled      bool `yaml:"enabled"`
	block.Config `yaml:",inline"`
	// ARPIsolate isolates what is blocked from its neighbours too.
	ARPIsolate bool       `yaml:"arp_isolate"`
	ARP        arp.Config `yaml:"arp"`
	// Socket is where "slips block" and its kin reach the running program;
	// empty: a usual place, see controlSockets.
	Socket string `yaml:"socket"`
}

func defaultBlockConfig() blockConfig {
	b := blockConfig{Config: block.Defaults(), ARP: arp.Defaults()}
	b.AllowList = []string{}
	return b
}

// blockSection returns the settings of blocking.
func blockSection(c *config.Config) *blockConfig { return section[blockConfig](c, "block") }

// systemSocket is where the program is reached that root has started.
const systemSocket = "/run/slips/control.sock"

// controlSockets returns where a running program may be reached, the likeliest
// first. A run listens at the first.
func controlSockets(c *config.Config, getenv func(string) string) []string {
	const name = "control.sock"
	switch b := blockSection(c); {
	case b.Socket != "":
		return []string{b.Socket}
	case getenv("RUNTIME_DIRECTORY") != "": // of a service of systemd; the first of a list
		return []string{filepath.Join(filepath.SplitList(getenv("RUNTIME_DIRECTORY"))[0], name)}
	case os.Geteuid() == 0:
		return []string{systemSocket}
	case getenv("XDG_RUNTIME_DIR") != "":
		return []string{filepath.Join(getenv("XDG_RUNTIME_DIR"), "slips", name), systemSocket}
	}
	return []string{filepath.Join(os.TempDir(), fmt.Sprintf("slips-%d", os.Geteuid()), name), systemSocket}
}

// firewall is blocking in a run: the manager of blocks, and what tells it whom
// never to block. A nil *firewall blocks nobody.
type firewall struct {
	cfg     blockConfig
	log     *slog.Logger
	manager *block.Manager
	nft     *nft.Firewall // nil in a dry run
	arp     *arp.Isolator // nil when nobody is to be isolated
	control net.Listener
	audit   *logFile
	guard   atomic.Pointer[block.Guard]
	ending  func() bool // the run is asked to stop

	allow []block.Allowed

	mu      sync.Mutex    // held while the guard is replaced, so that the newest stays
	network block.Network // of this machine

	offenders   map[netip.Addr]offender // of open windows; at most max_blocked
	whitelisted map[netip.Addr]bool     // that the audit log has
}

// openFirewall opens what needs a privilege, before there is an output: the
// kernel's nftables and the control socket. network is this machine's.
func openFirewall(ctx context.Context, o *runOptions, network block.Network) (*firewall, error) {
	cfg := *blockSection(o.Config)
	if !cfg.Enabled {
		return nil, nil
	}
	w := &firewall{
		cfg: cfg, log: discard(), network: network, offenders: map[netip.Addr]offender{}, whitelisted: map[netip.Addr]bool{},
		ending: func() bool { return ctx.Err() != nil },
	}
	var err error
	if w.allow, err = cfg.Allowed(); err != nil {
		return nil, &codeError{exitUsage, fmt.Errorf("block.%w", err)}
	}
	if err := w.use(network); err != nil {
		return nil, err
	}
	if !cfg.DryRun {
		w.nft, err = nft.Open(nft.Config{
			Now: time.Now, Refuse: func(p netip.Prefix) string { return w.guard.Load().Protects(p, true) },
		})
		if err != nil {
			return nil, blockError(err)
		}
	}
	if w.control, err = listen(ctx, o); err != nil {
		return nil, errors.Join(&codeError{exitBlock, fmt.Errorf("control socket (block.socket names another place): %w", err)}, w.close())
	}
	return w, nil
}

// listen makes the control socket. Its folder stays ours, so that the user whom
// the process becomes cannot have it put something else there.
func listen(ctx context.Context, o *runOptions) (net.Listener, error) {
	dir := filepath.Dir(o.Socket)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := service.Private(dir); err != nil {
		return nil, err
	}
	if st, err := os.Lstat(dir); err != nil {
		return nil, err
	} else if st.Mode().Type() == fs.ModeSymlink { // who made it could have it name another folder
		if err := service.Private(filepath.Dir(dir)); err != nil {
			return nil, fmt.Errorf("%q is a link: %w", dir, err)
		}
	}
	uid, gid := -1, -1
	if o.User != nil {
		uid, gid = o.User.UID, o.User.GID
	}
	return block.Listen(ctx, o.Socket, uid, gid)
}

// blockError gives what blocking failed with its exit code.
func blockError(err error) error {
	if errors.Is(err, block.ErrPermission) {
		return &codeError{exitPermission, err}
	}
	return &codeError{exitBlock, err}
}

// prepare makes the manager once the output directory is there.
func (w *firewall) prepare(r *run) error {
	if w == nil {
		return nil
	}
	w.log = r.log.With("part", "block")
	var err error
	if w.audit, err = openLog(r.dir.Path(blocksFile), r.o.Overwrite); err != nil {
		return err
	}
	audit := block.NewLog(w.audit)
	opt := block.Options{
		Config: w.cfg.Config, Guard: w.guard.Load(), Audit: audit, StateFile: r.dir.Path(offendersFile), Log: w.log, Now: time.Now,
		Spare: r.know.spares, Tell: func(x block.Record) { w.follow(x); tellBlock(r.ui, x) },
	}
	if w.nft != nil {
		opt.Blocker = w.nft
	}
	if w.cfg.ARPIsolate {
		if w.arp, err = arp.New(opt.Blocker, arp.Options{
			Config: w.cfg.ARP, Interfaces: r.o.Interfaces, Network: w.network, Guard: opt.Guard, Audit: audit, Log: w.log, Now: time.Now,
		}); err != nil {
			return &codeError{exitBlock, err}
		}
		opt.Blocker = w.arp
	}
	w.manager, err = block.NewManager(opt)
	return err
}

// isolator returns what isolates hosts; nil for nothing.
func (w *firewall) isolator() *arp.Isolator {
	if w == nil {
		return nil
	}
	return w.arp
}

// tellBlock shows who watches the run what has become of a decision.
func tellBlock(ui UI, r block.Record) {
	var what string
	switch r.Action {
	case block.ActBlock:
		what = "is blocked until " + until(r.Until)
		if r.DryRun {
			what = "would be blocked until " + until(r.Until)
		}
	case block.ActRefuse:
		what = "is not blocked"
	case block.ActUnblock:
		what = "is not blocked any more"
	default: // slips.log and the audit log have it
		return
	}
	text := r.Prefix + " " + what
	if r.By != "" {
		text += ", by " + r.By
	}
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	ui.Note(text)
}

// use takes up what this machine's network is now. What traffic says about
// gateways and servers is not used: one forged packet would make its sender a
// host that is never blocked.
func (w *firewall) use(n block.Network) error {
	if w == nil {
		return nil
	}
	g, err := block.NewGuard(n, w.allow)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.network = n
	w.guard.Store(g)
	if w.manager != nil {
		w.manager.Protect(g)
	}
	if w.arp != nil {
		return w.arp.Protect(g, n)
	}
	return nil
}

// run returns what has to run beside the pipeline until ctx is done.
func (w *firewall) run(ctx context.Context) (tasks []func() error) {
	if w == nil {
		return nil
	}
	if w.arp != nil {
		tasks = append(tasks, func() error { return w.arp.Run(ctx) })
	}
	return append(tasks,
		func() error {
			if err := w.manager.Run(ctx); err != nil {
				return blockError(err)
			}
			return nil
		},
		func() error {
			if err := w.manager.Serve(ctx, w.control); err != nil {
				w.log.Error("\"slips block\", \"unblock\" and \"blocks\" do not reach this run any more", "err", err)
			}
			return nil
		},
	)
}

// close gives back what was opened. Blocks stay, and end by themselves.
func (w *firewall) close() error {
	if w == nil {
		return nil
	}
	var errs []error
	if w.manager == nil && w.control != nil { // else Serve has closed it
		errs = append(errs, w.control.Close())
	}
	if w.nft != nil {
		errs = append(errs, w.nft.Close())
	}
	if w.audit != nil {
		errs = append(errs, w.audit.Close())
	}
	return errors.Join(errs...)
}

// Evidence implements alerts.Sink. A host that goes on after its block has ended
// gets no further alert in the same window until its score has doubled, so it is
// blocked again for what it does. So is one whose request was lost, and one that
// an operator has freed and that now does what it had not done by then.
func (w *firewall) Evidence(e *evidence.Evidence, _ float64) error {
	if !alerts.Counts(e) {
		return nil
	}
	w.mu.Lock()
	o, ok := w.offenders[e.Profile]
	if !ok || o.window != e.Window {
		w.mu.Unlock()
		return nil
	}
	lost, why := o.lost, ""
	isNew := !slices.Contains(o.types, e.Type)
	switch {
	case lost != nil:
	case !o.until.IsZero() && time.Now().After(o.until):
		why = "goes on after a block"
	case o.freed && isNew:
		why = "new after an unblock"
	}
	if isNew {
		o.types = append(o.types, e.Type)
	}
	if lost != nil || why != "" {
		o.until, o.lost, o.freed = time.Time{}, nil, false // until the manager has said what became of it
	}
	w.offenders[e.Profile] = o
	w.mu.Unlock()
	switch {
	case lost != nil:
		r := *lost
		r.At, r.EvidenceIDs = time.Unix(0, e.Time), append(slices.Clip(r.EvidenceIDs), e.ID)
		w.submit(e.Profile, r, lost)
	case why != "":
		r := block.Request{
			Prefix: block.Single(e.Profile), At: time.Unix(0, e.Time), Window: o.width,
			Reason: why + ": " + string(e.Type), AlertID: o.alert, EvidenceIDs: []string{e.ID},
		}
		w.submit(e.Profile, r, &r)
	}
	return nil
}

// submit asks for a block of an offender. When too many requests wait, which the
// manager counts, again is what its next evidence asks for.
//
// While the run ends, what it has seen is still judged, and blocked: the kernel
// ends the block. Who reads of it would look for a slips that runs.
func (w *firewall) submit(a netip.Addr, r block.Request, again *block.Request) {
	if !w.cfg.DryRun && w.ending() {
		r.Reason += "; blocked while stopping: it ends by itself, and \"slips unblock " + a.String() + "\" frees it before"
	}
	if err := w.manager.Submit(r); !errors.Is(err, block.ErrFull) {
		return // a manager that has stopped takes no other request either
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if o, ok := w.offenders[a]; ok {
		o.lost = again
		w.offenders[a] = o
	}
}

// Alert implements alerts.Sink: the host is blocked, or the audit log says why
// not. It does not wait for the firewall.
func (w *firewall) Alert(a *alerts.Alert) error {
	width := time.Duration(a.WindowEnd - a.WindowStart)
	w.mu.Lock()
	o, known := w.offenders[a.Profile]
	if !known && len(w.offenders) >= w.cfg.MaxBlocked {
		maps.DeleteFunc(w.offenders, func(_ netip.Addr, o offender) bool { return o.window < a.Window })
		if len(w.offenders) >= w.cfg.MaxBlocked {
			clear(w.offenders)
		}
	}
	if !known || o.window != a.Window {
		o.types = nil
	}
	for i := range a.Contributions {
		if t := a.Contributions[i].Type; !slices.Contains(o.types, t) {
			o.types = append(o.types, t)
		}
	}
	w.offenders[a.Profile] = offender{alert: a.ID, window: a.Window, width: width, types: o.types, until: o.until}
	w.mu.Unlock()
	r := block.Request{
		Prefix: block.Single(a.Profile), At: time.Unix(0, a.At), Window: width,
		Reason: a.Explain(), AlertID: a.ID, EvidenceIDs: a.EvidenceIDs,
	}
	w.submit(a.Profile, r, &r)
	return nil
}

// offender is a host with an alert in its window.
type offender struct {
	alert  string
	window int64
	width  time.Duration
	types  []evidence.Type // of its evidence in the window, up to now
	freed  bool            // by an operator, since its last alert
	until  time.Time       // the end of its block; zero: it is not blocked, or nobody knows yet
	lost   *block.Request  // that did not fit into the manager's queue; nil: none
}

// follow notes until when offenders are blocked, and whom an operator has freed.
func (w *firewall) follow(r block.Record) {
	a, err := netip.ParseAddr(r.Prefix)
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	o, ok := w.offenders[a]
	if !ok {
		return
	}
	switch r.Action {
	case block.ActBlock, block.ActExtend, block.ActFind, block.ActRestore, block.ActExpire:
		o.until, o.freed = r.Until, false
	case block.ActUnblock, block.ActRelease, block.ActRefuse:
		o.until, o.lost, o.freed = time.Time{}, nil, o.freed || r.Action == block.ActUnblock
	default: // nothing that changes until when
		return
	}
	w.offenders[a] = o
}

// spared writes into the audit log that a host is not blocked because the
// whitelist drops what is found about it: once for each host, until too many
// are known.
func (w *firewall) spared(e *evidence.Evidence, rule string) {
	if w == nil || !alerts.Counts(e) {
		return
	}
	w.mu.Lock()
	if len(w.whitelisted) >= maxSpared {
		clear(w.whitelisted)
	}
	known := w.whitelisted[e.Profile]
	w.whitelisted[e.Profile] = true
	w.mu.Unlock()
	if known {
		return
	}
	err := block.WriteRecord(w.audit, block.Record{
		Time: time.Now(), Action: block.ActRefuse, Prefix: e.Profile.String(), Reason: "whitelist: " + rule + " drops evidence",
		Evidence: []string{e.ID}, DryRun: w.cfg.DryRun,
	})
	if err != nil {
		w.log.Error("the audit log cannot be written", "err", err)
	}
}

// maxSpared is how many hosts are remembered that the whitelist has spared.
const maxSpared = 10_000

// summary says what blocking did; nil when nobody was to be blocked.
func (w *firewall) summary() *export.BlockSummary {
	if w == nil || w.manager == nil {
		return nil
	}
	s := w.manager.Stats()
	sum := &export.BlockSummary{
		DryRun: w.cfg.DryRun, Blocked: s.Blocked, Blocks: s.Blocks, Extended: s.Extended, Refused: s.Refused, Expired: s.Expired,
		Unblocked: s.Unblocked, Restored: s.Restored, Failures: s.Failures, Dropped: s.Dropped,
		Released: s.Released, Damaged: s.Damaged, Unaudited: s.Unaudited,
	}
	if w.arp != nil {
		a := w.arp.Stats()
		sum.Unaudited += a.Unaudited
		sum.Isolation = &export.IsolationSummary{
			Isolations: a.Isolations, Rejoined: a.Rejoined, Refused: a.Refused, Crowded: a.Crowded, Failures: a.Failures,
		}
	}
	return sum
}
