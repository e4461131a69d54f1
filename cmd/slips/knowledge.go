package main

import (
	"cmp"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slips-go/slips/alerts/dossier"
	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/alerts/whitelist"
	"github.com/slips-go/slips/config"
	"github.com/slips-go/slips/feeds"
	"github.com/slips-go/slips/feeds/geo"
	"github.com/slips-go/slips/feeds/hunt"
	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/feeds/online"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler"
	"github.com/slips-go/slips/profiler/profile"
)

// knowledge is what a run knows besides its traffic: what the feeds list,
// where addresses are, what is not to be reported, and whom it may ask.
type knowledge struct {
	log    *slog.Logger
	feeds  *feeds.Manager // nil when switched off
	places *geo.DB
	views  atomic.Pointer[views]

	list    atomic.Pointer[whitelist.List]
	watch   *whitelist.Watcher // nil: the list never changes
	reading sync.Mutex         // for watch
	check   func(*whitelist.List) error
	ignored *ignorer
	tally   whitelist.Tally
	popular bool // evidence about popular domains weighs less

	book *dossier.Book // the sink's goroutine alone uses it
	used *intel.View   // by book

	changed atomic.Bool // feeds or whitelist, since the metadata was written

	asker     *online.Asker // nil: nobody is asked
	questions *questionFile // of a replay; nil otherwise
	answers   *os.File
}

// feedsDirectory returns where feeds are kept; empty when there is no place.
func feedsDirectory(c *config.Config) string {
	if c.Feeds.Directory != "" {
		return c.Feeds.Directory
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "slips", "feeds")
}

// geoDirectory returns where databases of places are kept; empty when there is
// no place.
func geoDirectory(c *config.Config) string {
	if dir := feedsDirectory(c); c.Feeds.Geo == "" && dir != "" {
		return filepath.Join(dir, "geo")
	}
	return c.Feeds.Geo
}

// feedSources reads which feeds there are.
func feedSources(c *config.Config) ([]feeds.Source, error) {
	sources, err := feeds.Sources(c.Feeds.File)
	if err != nil {
		return nil, &codeError{exitUsage, err}
	}
	if c.Feeds.Local != "" {
		if st, err := os.Stat(c.Feeds.Local); err != nil {
			return nil, &codeError{exitUsage, fmt.Errorf("feeds.local: %w", err)}
		} else if !st.IsDir() {
			return nil, &codeError{exitUsage, fmt.Errorf("feeds.local: %s is no directory", c.Feeds.Local)}
		}
	}
	return sources, nil
}

// feedsManager returns the manager of the feeds that there are.
func feedsManager(c *config.Config, log *slog.Logger) (*feeds.Manager, error) {
	sources, err := feedSources(c)
	if err != nil {
		return nil, err
	}
	return managerOf(c, sources, log)
}

// managerOf returns the manager of feeds.
func managerOf(c *config.Config, sources []feeds.Source, log *slog.Logger) (*feeds.Manager, error) {
	return feeds.New(feeds.Options{
		Dir: feedsDirectory(c), Sources: sources, Local: c.Feeds.Local, Version: version(), Offline: !c.Feeds.Refresh, Log: log,
	})
}

// openPlaces opens the databases of places. One that cannot be used is told of
// and left out.
func openPlaces(ctx context.Context, c *config.Config, log *slog.Logger) *geo.DB {
	dir := geoDirectory(c)
	if dir == "" {
		return nil
	}
	db, err := geo.Open(ctx, dir)
	if err != nil && (c.Feeds.Geo != "" || !errors.Is(err, fs.ErrNotExist)) {
		for line := range strings.SplitSeq(err.Error(), "\n") { // it joins one for each
			log.Warn("a database of places is not used", "err", line)
		}
	}
	return db
}

// lists are the feeds and the whitelist that the operator names.
type lists struct {
	sources []feeds.Source
	list    *whitelist.List // nil when switched off
}

// readLists reads them, and finds mistakes in them and in the keys of services
// before the run makes an output directory for nothing.
func readLists(o *runOptions) (l lists, err error) {
	c := o.Config
	if c.Feeds.Enabled {
		if l.sources, err = feedSources(c); err != nil {
			return l, err
		}
	}
	if c.Whitelists.EnableLocalWhitelist {
		if l.list, err = readWhitelist(c, o.types, o.names); err != nil {
			return l, err
		}
	}
	if onlineConfig(c).Enabled() { // a service without its key is a mistake, whether it is asked now or by "slips enrich"
		_, err = newAsker(c, nil, discard())
	}
	return l, err
}

// openKnowledge reads what is on this machine, and asks nobody.
func (r *run) openKnowledge(ctx context.Context, named lists) error {
	o, c := &r.o, r.o.Config
	k := &knowledge{log: r.log, popular: c.Whitelists.EnableOnlineWhitelist, book: dossier.New(dossier.Options{})}
	r.know = k
	k.places = openPlaces(ctx, c, r.log)
	if c.Feeds.Enabled {
		var err error
		if k.feeds, err = managerOf(c, named.sources, r.log); err != nil {
			return err
		}
		if _, err := k.feeds.Load(ctx); err != nil {
			return err
		}
	}
	k.look()
	if named.list != nil {
		k.useWhitelist(o, named.list)
	}
	return k.openAsker(r)
}

// look takes up a new view of the feeds, if there is one, and returns the view
// in use. Any goroutine may call it.
func (k *knowledge) look() *intel.View {
	if k.feeds == nil {
		return nil // a view that knows nothing
	}
	v, last := k.feeds.View(), k.views.Load()
	if last != nil && last.plain == v {
		return last.full
	}
	next := &views{v, v}
	if len(k.places.Sources()) > 0 {
		next.full = v.WithAS(k.places.AS)
	}
	if !k.views.CompareAndSwap(last, next) {
		return k.look() // another goroutine was faster
	}
	if last != nil {
		s := v.Snapshot()
		k.log.Info("the feeds have changed; what comes from here on is looked up in the new index", "index", s.ID, "feeds", len(s.Feeds))
		k.changed.Store(true)
	}
	return next.full
}

// views is a snapshot of the feeds, and the same with autonomous systems.
type views struct{ plain, full *intel.View }

// useWhitelist makes list the whitelist.
func (k *knowledge) useWhitelist(o *runOptions, list *whitelist.List) {
	c := o.Config
	home := homes(c.Parameters.ClientIPs)
	k.check = func(l *whitelist.List) error { return l.Check(o.types, o.names) }
	for _, n := range list.Notices() {
		k.log.Warn("whitelist", "notice", n)
	}
	if n := len(list.Expired(o.Start.UnixNano())); n > 0 {
		k.log.Info("entries of the whitelist have expired", "entries", n)
	}
	list = list.WithHome(home)
	k.list.Store(list)
	k.ignored = &ignorer{flows: whitelist.NewFlows(list, &k.tally), home: home}
	k.ignored.flows.Listed = func(f *flow.Flow) (listed bool) {
		hunt.Flow(k.look(), f, func(hunt.Hit) { listed = true })
		return listed
	}
	if o.Follow && c.Whitelists.LocalWhitelistPath != "" {
		k.watch = whitelist.NewWatcher(c.Whitelists.LocalWhitelistPath, list)
	}
}

// readWhitelist reads the whitelist that is configured, for types of evidence
// and modules that there are.
func readWhitelist(c *config.Config, types []evidence.Type, modules []string) (list *whitelist.List, err error) {
	if path := c.Whitelists.LocalWhitelistPath; path != "" {
		list, err = whitelist.Load(path)
	} else {
		list, err = whitelist.Default()
	}
	if err == nil {
		err = list.Check(types, modules)
	}
	if err != nil {
		return nil, &codeError{exitUsage, err}
	}
	return list, nil
}

// watchEvery is how often the whitelist is looked at for changes.
const watchEvery = 2 * time.Second

// watchWhitelist takes up changes of the whitelist until ctx is done.
func (k *knowledge) watchWhitelist(ctx context.Context) error {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			k.readWhitelist()
		}
	}
}

// readWhitelist takes up a change of the whitelist, if there is one.
func (k *knowledge) readWhitelist() {
	k.reading.Lock()
	defer k.reading.Unlock()
	l, err := k.watch.Changed()
	if err == nil && l != nil {
		err = k.check(l)
	}
	switch {
	case err != nil:
		k.log.Error("the whitelist has changed and is not used; the one before stays", "err", err)
	case l != nil:
		k.log.Info("the whitelist has changed", "entries", l.Len())
		l = l.WithHome(k.ignored.home)
		k.list.Store(l)
		k.ignored.next.Store(l)
		k.changed.Store(true)
	}
}

// reload looks at once for what is looked at from time to time. Any goroutine
// may call it.
func (k *knowledge) reload(ctx context.Context) {
	if k.watch != nil {
		k.readWhitelist()
	}
	if k.feeds != nil {
		if _, err := k.feeds.Load(ctx); err != nil && ctx.Err() == nil {
			k.log.Error("the feeds cannot be read again; those before stay", "err", err)
		}
	}
}

// spares says by which entry of the whitelist a host is not to be blocked;
// empty if by none. Conditions of an entry are taken to hold. Any goroutine may
// call it.
func (k *knowledge) spares(p netip.Prefix) string {
	l := k.list.Load()
	if l == nil || !p.IsSingleIP() {
		return ""
	}
	found, err := l.ExplainValue(p.Addr().String(), time.Now().UnixNano())
	if err != nil {
		return ""
	}
	for _, f := range found {
		if f.Applies && f.Rule.Alerts && f.Rule.Direction != "dst" {
			return fmt.Sprintf("whitelist: %s, line %d: %s", l.Name(), f.Rule.Line, f.Rule.Text)
		}
	}
	return ""
}

// ignorer is the whitelist as the engine sees it.
type ignorer struct {
	flows *whitelist.Flows
	next  atomic.Pointer[whitelist.List] // to be used from the next record on
	home  []netip.Prefix
}

var _ profiler.Ignorer = (*ignorer)(nil)

// Ignore implements profiler.Ignorer.
func (i *ignorer) Ignore(f *flow.Flow) bool {
	if i.next.Load() != nil {
		i.flows.Replace(i.next.Swap(nil))
	}
	return i.flows.Ignore(f)
}

// Where answers and questions are kept, relative to the output directory.
const (
	lookupLog     = "enrichment/lookup.log"
	questionsFile = "enrichment/questions.jsonl"
	answersCache  = "online.json" // in the directory of the feeds
)

// newAsker returns the asker of the services that are configured. Without a
// recorder it is of use to nobody, and only shows that they can be asked.
func newAsker(c *config.Config, to online.Recorder, log *slog.Logger) (*online.Asker, error) {
	home := homes(c.Parameters.ClientIPs)
	own := func(a netip.Addr) bool {
		return !profile.IsPublic(a) || slices.ContainsFunc(home, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	cache := ""
	if dir := feedsDirectory(c); dir != "" && to != nil {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			log.Warn("answers of online services are not kept for later runs", "err", err)
		} else {
			cache = filepath.Join(dir, answersCache)
		}
	}
	a, err := online.New(online.Options{Config: *onlineConfig(c), Recorder: to, CacheFile: cache, Own: own, Log: log})
	if err != nil {
		return nil, &codeError{exitUsage, fmt.Errorf("enrichment: %w", err)}
	}
	return a, nil
}

// openAsker opens what questions and answers are written to.
func (k *knowledge) openAsker(r *run) error {
	if !onlineConfig(r.o.Config).Enabled() {
		return nil
	}
	if err := os.MkdirAll(r.dir.Path("enrichment"), 0o755); err != nil {
		return &export.WriteError{Path: r.dir.Path("enrichment"), Err: err}
	}
	if !r.o.Follow {
		var err error
		k.questions, err = newQuestionFile(r.dir.Path(questionsFile))
		return err
	}
	path := r.dir.Path(lookupLog)
	if r.info.Resumed == 0 { // what lies there was told to the run before, whose results are replaced
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return &export.WriteError{Path: path, Err: err}
		}
	}
	f, err := online.OpenLog(path)
	if err != nil {
		return &export.WriteError{Path: path, Err: err}
	}
	k.answers = f
	k.asker, err = newAsker(r.o.Config, online.NewWriter(f), k.log)
	return err
}

// asks reports whether questions lead to anything.
func (k *knowledge) asks() bool { return k.asker != nil || k.questions != nil }

// ask passes a question on.
func (k *knowledge) ask(q online.Question) {
	switch {
	case k.asker != nil:
		k.asker.Ask(q)
	case k.questions != nil:
		k.questions.add(q)
	}
}

// askAbout asks about what evidence names, but for the own network.
func (k *knowledge) askAbout(e *evidence.Evidence) {
	if !k.asks() || e.Level == evidence.Info {
		return
	}
	p := e.Peer()
	q := online.Question{Why: online.Evidence, Src: e.Profile, Subject: p.Value, DstPort: p.Port, Time: e.Time}
	if len(e.UIDs) > 0 {
		q.UID = e.UIDs[0]
	}
	switch p.Kind {
	case evidence.IP:
		q.Of = intel.Address
		q.Dst, _ = netip.ParseAddr(p.Value) // what is no address is refused
	case evidence.Domain:
		q.Of = intel.Domain
	case evidence.URL:
		q.Of = intel.URL
	case evidence.Hash:
		q.Of = map[int]intel.Kind{32: intel.MD5, 40: intel.SHA1, 64: intel.SHA256}[len(p.Value)]
	case evidence.None:
	}
	if q.Of != intel.NoKind {
		k.ask(q)
	}
}

// run keeps what is known fresh until ctx is done.
func (k *knowledge) run(ctx context.Context, follow bool) (tasks []func() error) {
	if !follow {
		return nil
	}
	if k.feeds != nil {
		tasks = append(tasks, func() error { return k.feeds.Run(ctx) })
	}
	if k.watch != nil {
		tasks = append(tasks, func() error { return k.watchWhitelist(ctx) })
	}
	if k.asker != nil {
		tasks = append(tasks, func() error {
			if err := k.asker.Run(ctx); err != nil { // the answers are in lookup.log
				k.log.Warn("answers of online services are not kept for later runs", "err", err)
			}
			return nil
		})
	}
	return tasks
}

// close closes what is written to.
func (k *knowledge) close() error {
	var errs []error
	if k == nil {
		return nil
	}
	if k.questions != nil {
		if n := k.questions.dropped; n > 0 {
			k.log.Warn("there are too many questions for one file, and the last ones are left out", "questions", maxQuestions, "dropped", n)
		}
		errs = append(errs, k.questions.close())
	}
	if k.answers != nil {
		errs = append(errs, k.answers.Close())
	}
	return errors.Join(errs...)
}

// news takes what the engine has learnt.
func (k *knowledge) news(n *profiler.News) {
	switch {
	case n.Sighting != nil:
		if s := n.Sighting; s.Name == "" {
			k.book.Seen(s.IP, n.At)
		} else {
			k.book.Sighting(s.IP, s.Name, s.From, n.At)
		}
	case n.Host != nil:
		if n.Host.MAC != "" {
			k.book.MAC(n.Host.IP, n.Host.MAC)
		}
		if n.Host.Name != "" {
			k.book.Sighting(n.Host.IP, n.Host.Name, "dhcp", n.At)
		}
	case n.Question != nil:
		q := n.Question
		k.ask(online.Question{
			Of: q.Of, Subject: q.Subject, Why: online.Why(q.Why), Src: q.Src, Dst: q.Dst, DstPort: q.DstPort, UID: q.UID, Time: n.At,
		})
	}
}

// describe puts what is known beside evidence, and says whether the whitelist
// drops it.
func (k *knowledge) describe(e *evidence.Evidence) (rule string, dropped bool) {
	if v := k.look(); v != k.used {
		k.used = v
		k.book.Use(k.places, v)
	}
	for _, x := range [...]evidence.Entity{e.Attacker, e.Victim} {
		if x.Kind == evidence.IP {
			if a, err := netip.ParseAddr(x.Value); err == nil {
				k.book.Seen(a, e.Time)
			}
		}
	}
	k.book.Describe(e)
	if rule, yes := k.list.Load().Evidence(e); yes {
		k.tally.Evidence(rule)
		return fmt.Sprintf("%s, line %d: %s", k.list.Load().Name(), rule.Line, rule.Text), true
	}
	// An address goes by its names, and which of them are known when following
	// depends on which log was written first: that must not show in evidence.
	if p := e.Peer(); k.popular && (p.Kind == evidence.Domain || p.Kind == evidence.URL) {
		e.Confidence *= whitelist.Weigh(e)
	}
	return "", false
}

// save writes the state for a checkpoint.
func (k *knowledge) save(enc *gob.Encoder) error {
	if err := k.book.Save(enc); err != nil {
		return err
	}
	if err := enc.Encode(k.tally.Counts()); err != nil {
		return fmt.Errorf("save the counts of the whitelist: %w", err)
	}
	if err := enc.Encode(k.ignored != nil); err != nil {
		return fmt.Errorf("save the whitelist: %w", err)
	}
	if k.ignored == nil {
		return nil
	}
	return k.ignored.flows.Save(enc)
}

// load takes up what save wrote.
func (k *knowledge) load(dec *gob.Decoder) error {
	if err := k.book.Load(dec); err != nil {
		return err
	}
	var counts []whitelist.Count
	if err := dec.Decode(&counts); err != nil {
		return fmt.Errorf("load the counts of the whitelist: %w", err)
	}
	k.tally.Restore(counts)
	var had bool
	if err := dec.Decode(&had); err != nil {
		return fmt.Errorf("load the whitelist: %w", err)
	}
	if !had || k.ignored == nil {
		return nil
	}
	return k.ignored.flows.Load(dec)
}

// names puts what is in use into the metadata.
func (k *knowledge) names(info *export.Run) {
	if s := k.look().Snapshot(); len(s.Feeds) > 0 {
		u := &export.FeedsUsed{ID: s.ID, Built: time.Unix(s.Built, 0).UTC(), Indicators: map[string]int{}}
		for kind, n := range s.Counts {
			if n > 0 {
				u.Indicators[intel.Kind(kind).String()] = n
			}
		}
		for _, f := range s.Feeds {
			u.Feeds = append(u.Feeds, export.FeedUsed{Name: f.Name, Updated: time.Unix(f.Updated, 0).UTC(), Count: f.Count})
		}
		slices.SortFunc(u.Feeds, func(a, b export.FeedUsed) int { return cmp.Compare(a.Name, b.Name) })
		info.Feeds = u
	}
	info.Places = nil
	for _, s := range k.places.Sources() {
		info.Places = append(info.Places, export.PlacesUsed{Path: s.Path, Type: s.Type, Built: time.Unix(s.Built, 0).UTC(), Credit: s.Credit})
	}
	if l := k.list.Load(); l != nil {
		info.Whitelist = &export.WhitelistUsed{Name: l.Name(), SHA256: l.Digest(), Entries: l.Len()}
	}
}

// summarise fills in what was kept quiet and who was asked.
func (k *knowledge) summarise(s *export.Summary) {
	for _, c := range k.tally.Counts() {
		s.Whitelist.Flows += c.Flows
		s.Whitelist.Evidence += c.Evidence
		s.Whitelist.Rules = append(s.Whitelist.Rules, export.RuleSummary{Line: c.Line, Rule: c.Rule, Flows: c.Flows, Evidence: c.Evidence})
	}
	if k.asker != nil {
		for _, x := range k.asker.Status() {
			s.Enrichment = append(s.Enrichment, export.ServiceSummary{
				Service: x.Service, State: x.State, Reason: x.Reason, Questions: x.Questions, Asked: x.Asked, Found: x.Found,
				Failed: x.Failed, Cached: x.Cached, Dropped: x.Dropped,
			})
		}
	}
}
