package feeds

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/slips-go/slips/feeds/intel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a web server whose pages a test changes.
type site struct {
	mu    sync.Mutex
	pages map[string]func(http.ResponseWriter, *http.Request)
	asked []string // paths
}

func newSite() *site {
	return &site{pages: make(map[string]func(http.ResponseWriter, *http.Request))}
}

func (s *site) set(path string, page func(http.ResponseWriter, *http.Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages[path] = page
}

// text serves text with an ETag that belongs to it.
func (s *site) text(path, text string) {
	s.set(path, func(w http.ResponseWriter, r *http.Request) {
		etag := fmt.Sprintf(`"%x"`, len(text))
		w.Header().Set("ETag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = io.WriteString(w, text)
	})
}

func (s *site) status(path string, code int) {
	s.set(path, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	page := s.pages[r.URL.Path]
	s.asked = append(s.asked, r.URL.Path)
	s.mu.Unlock()
	if page == nil {
		http.NotFound(w, r)
		return
	}
	page(w, r)
}

func (s *site) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// RoundTrip implements http.RoundTripper without a network, for tests in a
// bubble, where a goroutine that waits for the network would stop the clock.
func (s *site) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

func serve(t *testing.T, s *site) string {
	t.Helper()
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return srv.URL
}

func source(name, url string) Source {
	return Source{
		Name: name, URL: url, Format: "lines", Level: 2, Period: time.Hour, Enabled: true, MaxSize: 1 << 20, Provider: "test",
	}
}

func manager(t *testing.T, o Options) *Manager {
	t.Helper()
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "feeds")
	}
	if o.Jitter == nil {
		o.Jitter = func() float64 { return 0.5 }
	}
	o.Version = "1.2.3"
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// update checks one feed and returns what came of it.
func update(t *testing.T, m *Manager, force bool, names ...string) Result {
	t.Helper()
	rs, err := m.Update(t.Context(), UpdateOptions{Names: names, Force: force})
	if err != nil {
		t.Fatal(err)
	}
	if len(rs) != 1 {
		t.Fatalf("%d results, want 1", len(rs))
	}
	return rs[0]
}

func knows(v *intel.View, addr string) bool { return v.Address(netip.MustParseAddr(addr)).OK() }

// addresses returns n lines of a feed.
func addresses(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "9.9.%d.%d\n", i/250, i%250+1)
	}
	return b.String()
}

// A feed is fetched, asked about with its ETag, replaced when it changes, and
// opened again without asking or compiling.
func TestUpdate(t *testing.T) {
	s := newSite()
	base := serve(t, s)
	var agent string
	s.set("/a", func(w http.ResponseWriter, r *http.Request) {
		agent = r.UserAgent()
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("Last-Modified", "Sun, 01 Nov 2020 10:00:00 GMT")
		_, _ = io.WriteString(w, "# a list\n9.9.9.1\n9.9.9.2\n")
	})
	src := source("a", base+"/a")
	m := manager(t, Options{Sources: []Source{src}})
	r := update(t, m, false, "a")
	if r.Outcome != Added || r.Count != 2 || r.Was != 0 {
		t.Fatalf("%+v", r)
	}
	if agent != "slips/1.2.3" {
		t.Errorf("User-Agent %q", agent)
	}
	if !knows(m.View(), "9.9.9.1") || knows(m.View(), "9.9.9.3") {
		t.Error("the view does not have what the feed lists")
	}
	feeds := m.View().Snapshot().Feeds
	if len(feeds) != 1 || feeds[0].Updated != time.Date(2020, 11, 1, 10, 0, 0, 0, time.UTC).Unix() || feeds[0].Count != 2 {
		t.Errorf("feeds of the view: %+v", feeds)
	}

	var condition string
	s.set("/a", func(w http.ResponseWriter, r *http.Request) {
		condition = r.Header.Get("If-None-Match") + r.Header.Get("If-Modified-Since")
		w.WriteHeader(http.StatusNotModified)
	})
	if r := update(t, m, false, "a"); r.Outcome != Unchanged || r.Count != 2 {
		t.Fatalf("%+v", r)
	}
	if want := `"1"Sun, 01 Nov 2020 10:00:00 GMT`; condition != want {
		t.Errorf("asked with %q, want %q", condition, want)
	}
	s.text("/a", "9.9.9.2\n9.9.9.3\n")
	if r := update(t, m, false); r.Outcome != Changed || r.Count != 2 || r.Was != 2 {
		t.Fatalf("%+v", r)
	}
	if knows(m.View(), "9.9.9.1") || !knows(m.View(), "9.9.9.3") {
		t.Error("the view is not that of the new version")
	}

	before := s.requests()
	again := manager(t, Options{Dir: m.o.Dir, Sources: []Source{src}})
	v, err := again.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !knows(v, "9.9.9.3") || v.Snapshot().ID != m.View().Snapshot().ID {
		t.Error("the loaded view is another one")
	}
	if c := again.Counts(); c.Opened != 1 || c.Compiled != 0 || s.requests() != before {
		t.Errorf("loading was not just opening: %+v", c)
	}
	st, err := again.Status()
	if err != nil || len(st) != 1 || st[0].Meta.Count != 2 || st[0].Meta.Kinds["ip"] != 2 || st[0].Meta.Checked == 0 {
		t.Errorf("status %+v, %v", st, err)
	}

	// Gone from the configuration: gone from the index; see TestSharedDirectory.
	other := manager(t, Options{Dir: m.o.Dir, Sources: []Source{source("b", base+"/b")}})
	if v, err := other.Load(t.Context()); err != nil || knows(v, "9.9.9.3") {
		t.Errorf("a feed that is not configured is in use (%v)", err)
	}
	s.text("/b", "9.9.9.4\n")
	update(t, other, false, "b")
	if files, _ := filepath.Glob(other.store.path("*" + indexSuffix)); len(files) != 1 {
		t.Errorf("indexes %q, want one", files)
	}
}

// What does not look like the feed is refused, and the old version stays.
func TestRefused(t *testing.T) {
	s := newSite()
	base := serve(t, s)
	good := addresses(100)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 20<<20))
	_ = z.Close()
	var two bytes.Buffer
	a := zip.NewWriter(&two)
	for _, name := range []string{"x", "y"} {
		if _, err := a.Create(name); err != nil {
			t.Fatal(err)
		}
	}
	_ = a.Close()
	for _, c := range []struct {
		name, text string
		why        string // empty: taken
	}{
		{"html", "<!DOCTYPE html><html><body>Sign in</body></html>", "web page"},
		{"empty", "", "no entries"},
		{"comments alone", "# moved\n", "no entries"},
		{"shrunk", addresses(10), "shrank from 100 to 10"},
		{"nearly shrunk", addresses(11), ""},
		{"garbage", strings.Repeat("no indicator here!\n", 60) + addresses(50), "60 of 110 entries were rejected: line 1:"},
		{"half garbage", strings.Repeat("no indicator here!\n", 50) + addresses(50), ""},
		{"too large", strings.Repeat("# comment\n", 2<<20/10), "larger than 1048576 bytes"},
		{"gzip bomb", bomb.String(), "larger than 1048576 bytes"},
		{"two files in a zip", two.String(), "more than one file"},
		{"binary", "\x00\x01\x02\x03", "compressed or binary"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := manager(t, Options{Sources: []Source{source("a", base+"/a")}})
			s.text("/a", good)
			update(t, m, false, "a")
			s.set("/a", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, c.text) })
			r := update(t, m, false, "a")
			if c.why == "" {
				if r.Outcome != Changed {
					t.Fatalf("%+v", r)
				}
				return
			}
			if r.Outcome != Refused || !strings.Contains(r.Reason, c.why) || r.Count != 100 {
				t.Fatalf("%+v, want refused: %q", r, c.why)
			}
			v, err := manager(t, Options{Dir: m.o.Dir, Sources: m.sources}).Load(t.Context())
			if err != nil || v.Snapshot().Counts[intel.Address] != 100 {
				t.Errorf("the old version does not stay (%v)", err)
			}
			st, err := m.Status()
			if err != nil || !strings.Contains(st[0].Meta.Refused, c.why) || st[0].Meta.Fails != 1 || st[0].Meta.Count != 100 {
				t.Errorf("status %+v, %v", st, err)
			}
			s.text("/a", good+"9.9.200.1\n")
			if r := update(t, m, false, "a"); r.Outcome != Changed || r.Count != 101 {
				t.Errorf("not taken when it is good again: %+v", r)
			}
			if st, _ := m.Status(); st[0].Meta.Refused != "" || st[0].Meta.Fails != 0 {
				t.Errorf("the refusal is still told: %+v", st[0].Meta)
			}
		})
	}
	t.Run("forced", func(t *testing.T) {
		m := manager(t, Options{Sources: []Source{source("a", base+"/a")}})
		s.text("/a", good)
		update(t, m, false, "a")
		s.text("/a", addresses(3))
		if r := update(t, m, true, "a"); r.Outcome != Changed || r.Count != 3 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("may be empty", func(t *testing.T) {
		src := source("a", base+"/a")
		src.MayBeEmpty = true
		m := manager(t, Options{Sources: []Source{src}})
		s.text("/a", good)
		update(t, m, false, "a")
		s.text("/a", "# none today\n")
		if r := update(t, m, false, "a"); r.Outcome != Changed || r.Count != 0 {
			t.Errorf("%+v", r)
		}
	})
}

// Packed feeds are unpacked: by gzip, zip, and on the way.
func TestPacked(t *testing.T) {
	s := newSite()
	base := serve(t, s)
	var gz bytes.Buffer
	z := gzip.NewWriter(&gz)
	_, _ = io.WriteString(z, addresses(7))
	_ = z.Close()
	var zipped bytes.Buffer
	a := zip.NewWriter(&zipped)
	w, err := a.Create("list.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(w, addresses(7))
	_ = a.Close()
	for _, c := range []struct{ name, body, encoding string }{
		{"gz", gz.String(), ""}, {"zip", zipped.String(), ""}, {"transfer", gz.String(), "gzip"},
	} {
		s.set("/a", func(w http.ResponseWriter, _ *http.Request) {
			if c.encoding != "" {
				w.Header().Set("Content-Encoding", c.encoding)
			}
			_, _ = io.WriteString(w, c.body)
		})
		m := manager(t, Options{Sources: []Source{source("a", base+"/a")}})
		if r := update(t, m, false, "a"); r.Outcome != Added || r.Count != 7 {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
}

// Servers that misbehave cost a failed check and nothing else.
func TestServers(t *testing.T) {
	s := newSite()
	base := serve(t, s)
	s.set("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	s.set("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/a", http.StatusMovedPermanently) })
	s.text("/a", addresses(3))
	s.status("/gone", http.StatusGone)
	s.status("/unasked", http.StatusNotModified)
	for _, c := range []struct{ path, want string }{
		{"/loop", "redirect refused: more than 5"}, {"/gone", "410 Gone"}, {"/unasked", "304"}, {"/none", "404"}, {"/moved", ""},
	} {
		m := manager(t, Options{Sources: []Source{source("a", base+c.path)}})
		r := update(t, m, false, "a")
		if c.want == "" {
			if r.Outcome != Added {
				t.Errorf("%s: %+v", c.path, r)
			}
			continue
		}
		if r.Outcome != Failed || !strings.Contains(r.Reason, c.want) || strings.Contains(r.Reason, base) {
			t.Errorf("%s: %+v, want failed: %q", c.path, r, c.want)
		}
		if v, err := m.Load(t.Context()); err != nil || v.Snapshot().Counts[intel.Address] != 0 {
			t.Errorf("%s: loading after it: %v", c.path, err)
		}
	}
	if n := s.requests(); n != 6+1+1+1+2 {
		t.Errorf("%d requests: some were tried again although that mends nothing", n)
	}
}

// Certificates are verified, and a redirect leads neither out of TLS nor the
// key to another host.
func TestTLS(t *testing.T) {
	s := newSite()
	s.text("/a", addresses(3))
	srv := httptest.NewTLSServer(s)
	defer srv.Close()
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	m := manager(t, Options{Sources: []Source{source("a", srv.URL+"/a")}})
	if r := update(t, m, false, "a"); r.Outcome != Failed || !strings.Contains(r.Reason, "certificate") {
		t.Errorf("a certificate of nobody is accepted: %+v", r)
	}

	plain := newSite()
	leaked := "nothing"
	plain.set("/a", func(w http.ResponseWriter, r *http.Request) {
		leaked = r.Header.Get("Auth-Key") + r.Header.Get("Authorization") + r.Header.Get("Referer")
		_, _ = io.WriteString(w, addresses(3))
	})
	elsewhere := serve(t, plain)
	s.set("/down", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere+"/a", http.StatusFound) })
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	m = manager(t, Options{Sources: []Source{source("a", srv.URL+"/down")}, Transport: tr})
	if r := update(t, m, false, "a"); r.Outcome != Failed || !strings.Contains(r.Reason, `from https to "http"`) {
		t.Errorf("%+v", r)
	}

	key := filepath.Join(t.TempDir(), "key")
	write(t, key, "s3cret\n")
	first := newSite()
	var sent string
	first.set("/x", func(w http.ResponseWriter, r *http.Request) {
		sent = r.Header.Get("Auth-Key") + " " + r.URL.Query().Get("k")
		http.Redirect(w, r, elsewhere+"/a", http.StatusFound)
	})
	src := source("a", serve(t, first)+"/x?k={key}")
	src.KeyFile, src.User, src.Headers = key, "me", map[string]string{"Auth-Key": "{key}"}
	m = manager(t, Options{Sources: []Source{src}})
	if r := update(t, m, false, "a"); r.Outcome != Added {
		t.Errorf("%+v", r)
	}
	if sent != "s3cret s3cret" || leaked != "" {
		t.Errorf("sent %q to the feed, %q to another host", sent, leaked)
	}
	files, err := os.ReadDir(m.o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if text, _ := os.ReadFile(m.store.path(f.Name())); bytes.Contains(text, []byte("s3cret")) {
			t.Errorf("%s holds the key", f.Name())
		}
	}
	for _, c := range []struct{ text, want string }{{"", "does not hold one line"}, {"a\nb", "does not hold one line"}} {
		write(t, key, c.text)
		if r := update(t, m, false, "a"); r.Outcome != Failed || !strings.Contains(r.Reason, c.want) || r.Count != 3 {
			t.Errorf("key %q: %+v", c.text, r)
		}
	}
}

// A server in trouble is asked again with pauses, and left alone for as long
// as it says.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		at := func() time.Time { return time.Now() }
		fail := 2
		s.set("/a", func(w http.ResponseWriter, _ *http.Request) {
			if fail--; fail >= 0 {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			_, _ = io.WriteString(w, addresses(3))
		})
		m := manager(t, Options{Sources: []Source{source("a", "https://e.org/a")}, Transport: s})
		begin := at()
		if r := update(t, m, false, "a"); r.Outcome != Added || s.requests() != 3 {
			t.Errorf("%+v after %d requests", r, s.requests())
		}
		if took := at().Sub(begin); took != 3750*time.Millisecond { // 1 s and 2 s, each and a quarter
			t.Errorf("took %s", took)
		}

		fail = 1 << 30
		before := s.requests()
		if r := update(t, m, false, "a"); r.Outcome != Failed || !strings.Contains(r.Reason, "500 Internal") || s.requests()-before != tries {
			t.Errorf("%+v after %d requests", r, s.requests()-before)
		}

		busy := func(after string) func(http.ResponseWriter, *http.Request) {
			first := true
			return func(w http.ResponseWriter, _ *http.Request) {
				if first {
					first = false
					w.Header().Set("Retry-After", after)
					w.WriteHeader(http.StatusTooManyRequests)
					return
				}
				_, _ = io.WriteString(w, addresses(4))
			}
		}
		s.set("/a", busy("20"))
		begin = at()
		if r := update(t, m, false, "a"); r.Outcome != Changed || at().Sub(begin) != 20*time.Second {
			t.Errorf("%+v after %s", r, at().Sub(begin))
		}
		s.set("/a", busy(at().Add(3*time.Hour).UTC().Format(http.TimeFormat)))
		begin = at()
		if r := update(t, m, false, "a"); r.Outcome != Failed || at().Sub(begin) != 0 {
			t.Errorf("%+v after %s", r, at().Sub(begin))
		}
		st, err := m.Status()
		if err != nil {
			t.Fatal(err)
		}
		if next := time.Unix(st[0].Meta.Next, 0).Sub(at()); next < 2*time.Hour+59*time.Minute || next > 3*time.Hour+time.Minute {
			t.Errorf("next check in %s, the server said three hours", next)
		}

		s.set("/a", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		begin = at()
		if r := update(t, m, false, "a"); r.Outcome != Failed || !strings.Contains(r.Reason, "no whole answer within 5m") {
			t.Errorf("%+v", r)
		}
		if took := at().Sub(begin); took != fileTimeout {
			t.Errorf("a server that does not answer held us up for %s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := m.Update(ctx, UpdateOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("interrupted: %v", err)
		}
	})
}

// Run checks feeds by their periods, publishes what changed and ends with its
// context.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.text("/fast", "9.9.1.1\n")
		s.text("/slow", "9.9.2.1\n")
		slow := source("slow", "https://e.org/slow")
		slow.Period = 24 * time.Hour
		m := manager(t, Options{Sources: []Source{source("fast", "https://e.org/fast"), slow}, Transport: s})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		pass := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		synctest.Wait()
		if v := m.View(); !knows(v, "9.9.1.1") || !knows(v, "9.9.2.1") || s.requests() != 2 {
			t.Fatalf("after the start: %d requests", s.requests())
		}
		pass(50 * time.Minute)
		if s.requests() != 2 {
			t.Errorf("%d requests before any period is over", s.requests())
		}
		first := m.View()
		pass(15 * time.Minute)
		if s.requests() != 3 || m.View() != first {
			t.Errorf("%d requests after an hour, want 3, or another view although nothing changed", s.requests())
		}
		s.text("/fast", "9.9.1.1\n9.9.1.22\n")
		pass(65 * time.Minute)
		if !knows(m.View(), "9.9.1.22") || m.View() == first {
			t.Error("the new version is not published")
		}
		if !knows(first, "9.9.1.1") || knows(first, "9.9.1.22") {
			t.Error("the old view has changed")
		}
		pass(24 * time.Hour)
		c := m.Counts()
		if c.Checks < 24 || c.Checks > 32 {
			t.Errorf("%d checks in 26 hours of a feed per hour and one per day", c.Checks)
		}
		s.status("/fast", http.StatusNotFound)
		before := s.requests()
		pass(6 * time.Hour)
		if n := s.requests() - before; n < 5 || n > 16 {
			t.Errorf("%d requests in six hours to a feed that fails", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Local lists are read when they change; one with a fault is not used, and the
// good one is still there after a restart.
func TestRunLocal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := t.TempDir()
		m := manager(t, Options{Local: local})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		pass := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		write(t, filepath.Join(local, "own_malicious_iocs.csv"), "# mine\n9.9.3.1,high,lab\n")
		pass(2 * pollLocal)
		if !knows(m.View(), "9.9.3.1") {
			t.Error("a new local list is not read")
		}
		write(t, filepath.Join(local, "own_malicious_iocs.csv"), "# mine\n9.9.3.2,high,lab\nnot one,high,typing error\n")
		pass(2 * pollLocal)
		if !knows(m.View(), "9.9.3.1") || knows(m.View(), "9.9.3.2") {
			t.Error("a bad edit is in use")
		}
		st, err := m.Status()
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(st, func(s Status) bool { return s.Local })
		if i < 0 || !strings.Contains(st[i].Meta.Refused, "line 3") {
			t.Errorf("status does not tell of the bad edit: %+v", st)
		}
		restarted := manager(t, Options{Dir: m.o.Dir, Local: local})
		if v, err := restarted.Load(t.Context()); err != nil || !knows(v, "9.9.3.1") || knows(v, "9.9.3.2") {
			t.Errorf("a bad edit is in use after a restart (%v)", err)
		}
		if err := os.Remove(filepath.Join(local, "own_malicious_iocs.csv")); err != nil {
			t.Fatal(err)
		}
		pass(2 * pollLocal)
		if knows(m.View(), "9.9.3.1") {
			t.Error("a local list that was removed is in use")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Without a network, or when told to stay off it, what is on disk works.
func TestOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.text("/a", addresses(60))
		src := source("a", "https://e.org/a")
		m := manager(t, Options{Sources: []Source{src}, Transport: s})
		update(t, m, false, "a")
		down := roundTripper(func(*http.Request) (*http.Response, error) { return nil, errors.New("network is unreachable") })
		m = manager(t, Options{Dir: m.o.Dir, Sources: m.sources, Transport: down})
		if r := update(t, m, false, "a"); r.Outcome != Failed || !strings.Contains(r.Reason, "network is unreachable") || r.Count != 60 {
			t.Errorf("%+v", r)
		}
		if !knows(m.View(), "9.9.0.1") {
			t.Error("nothing is known without a network")
		}
		before := s.requests()
		m = manager(t, Options{Dir: m.o.Dir, Sources: m.sources, Transport: s, Offline: true})
		ctx, cancel := context.WithTimeout(t.Context(), 48*time.Hour)
		defer cancel()
		if err := m.Run(ctx); err != nil {
			t.Error(err)
		}
		if s.requests() != before || !knows(m.View(), "9.9.0.1") {
			t.Errorf("%d requests although offline", s.requests()-before)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Of two processes on a directory one refreshes, and the other takes what it
// made.
func TestTwoProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.text("/a", "9.9.9.1\n")
		dir := filepath.Join(t.TempDir(), "feeds")
		src := []Source{source("a", "https://e.org/a")}
		one := manager(t, Options{Dir: dir, Sources: src, Transport: s})
		two := manager(t, Options{Dir: dir, Sources: src, Transport: s})
		update(t, one, false, "a")
		unlock, err := one.store.lock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := two.Update(t.Context(), UpdateOptions{}); !errors.Is(err, ErrBusy) {
			t.Errorf("both at once: %v", err)
		}
		if v, err := two.Load(t.Context()); err != nil || !knows(v, "9.9.9.1") {
			t.Errorf("loading while another refreshes: %v", err)
		}
		unlock()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- two.Run(ctx) }()
		synctest.Wait()
		s.text("/a", "9.9.9.1\n9.9.9.2\n")
		update(t, one, false, "a")
		before := s.requests()
		time.Sleep(2 * pollIndex)
		synctest.Wait()
		if !knows(two.View(), "9.9.9.2") || s.requests() != before {
			t.Errorf("the other process did not take over the new index, or fetched the feed again")
		}
		if c := two.Counts(); c.Compiled != 0 {
			t.Errorf("it compiled %d indexes", c.Compiled)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// states returns what is said of each feed.
func states(t *testing.T, m *Manager) map[string]string {
	t.Helper()
	all, err := m.Status()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	for i := range all {
		out[all[i].Name] = all[i].State()
	}
	return out
}

// A server that trickles, or stops in the middle, is given up soon, one that is
// slow only at first is not.
func TestSlow(t *testing.T) {
	for name, c := range map[string]struct {
		chunk int
		every time.Duration
		code  int
		took  time.Duration // until it is given up; 0: it is not
	}{
		"trickles":           {50, time.Second, http.StatusOK, slowAfter},
		"stops":              {2000, time.Hour, http.StatusOK, slowAfter},
		"comes in gulps":     {45 << 10, 20 * time.Second, http.StatusOK, 0}, // of 60 KiB
		"enough":             {slowRate * 2, time.Second, http.StatusOK, 0},
		"trickles and fails": {50, time.Second, http.StatusNotFound, slowAfter},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				text := strings.Repeat("# a comment of a line that is long enough\n", 1500) + addresses(3)
				m := manager(t, Options{
					Sources: []Source{source("a", "https://e.org/a")},
					Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
						body := &slowBody{ctx: r.Context(), r: strings.NewReader(text), chunk: c.chunk, every: c.every}
						return &http.Response{StatusCode: c.code, Header: make(http.Header), Body: body, Request: r}, nil
					}),
				})
				begin := time.Now()
				r := update(t, m, false, "a")
				took := time.Since(begin)
				switch {
				case c.took == 0 && (r.Outcome != Added || r.Count != 3):
					t.Errorf("%+v after %s", r, took)
				case c.took != 0 && (r.Outcome != Failed || took != c.took):
					t.Errorf("%+v after %s, want %s", r, took, c.took)
				case c.took != 0 && c.code == http.StatusOK && r.Reason != errSlow.Error():
					t.Errorf("reason %q", r.Reason)
				}
			})
		})
	}
}

// slowBody gives a chunk now and then.
type slowBody struct {
	ctx   context.Context
	r     io.Reader
	chunk int
	every time.Duration
}

func (b *slowBody) Read(p []byte) (int, error) {
	if err := sleep(b.ctx, b.every); err != nil {
		return 0, err
	}
	return b.r.Read(p[:min(len(p), b.chunk)])
}

func (b *slowBody) Close() error { return nil }

// All tries of a feed together have an end.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.set("/a", func(w http.ResponseWriter, r *http.Request) {
			if sleep(r.Context(), 2*time.Minute) == nil {
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
		m := manager(t, Options{Sources: []Source{source("a", "https://e.org/a")}, Transport: s})
		begin := time.Now()
		if r := update(t, m, false, "a"); r.Outcome != Failed || time.Since(begin) != fileTimeout || s.requests() != 3 {
			t.Errorf("%+v after %s and %d requests", r, time.Since(begin), s.requests())
		}
	})
}

// Feeds that another configuration uses stay in the directory, and go when
// nobody has checked them for long.
func TestSharedDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.text("/a", addresses(60))
		s.text("/b", "8.8.9.1\n")
		a, b := source("a", "https://e.org/a"), source("b", "https://e.org/b")
		ma := manager(t, Options{Sources: []Source{a}, Transport: s})
		var log bytes.Buffer
		mb := manager(t, Options{Sources: []Source{b}, Transport: s, Dir: ma.o.Dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
		update(t, ma, false)
		write(t, ma.store.path(".tmp-1"), "half")
		update(t, mb, false)
		if knows(mb.View(), "9.9.0.1") || !knows(mb.View(), "8.8.9.1") {
			t.Error("the index is not that of the feeds that are configured")
		}
		if exists(ma.store.path(".tmp-1")) {
			t.Error("a temporary file is left")
		}
		v, err := manager(t, Options{Sources: []Source{a}, Dir: ma.o.Dir, Transport: s, Offline: true}).Load(t.Context())
		if err != nil || !knows(v, "9.9.0.1") {
			t.Fatal("the other configuration has lost its feed", err)
		}
		time.Sleep(keepUnknown - time.Hour)
		update(t, mb, false)
		meta, err := ma.store.meta("a")
		if err != nil || !exists(ma.store.path(meta.Content)) {
			t.Fatal("gone too soon", err)
		}
		time.Sleep(time.Hour)
		update(t, mb, false)
		if exists(ma.store.path("a"+metaSuffix)) || exists(ma.store.path(meta.Content)) || !strings.Contains(log.String(), "feed=a") {
			t.Errorf("still there, or it is not said: %s", log.String())
		}
	})
}

// Whatever a killed process leaves behind, and whatever is damaged on disk,
// the next one works, and says what it left out.
func TestCrash(t *testing.T) {
	s := newSite()
	base := serve(t, s)
	s.text("/a", addresses(60))
	s.text("/b", "8.8.9.1\n8.8.9.2\n")
	src := []Source{source("a", base+"/a"), source("b", base+"/b")}
	fresh := func(t *testing.T) *Manager {
		t.Helper()
		m := manager(t, Options{Sources: src})
		if _, err := m.Update(t.Context(), UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		return manager(t, Options{Dir: m.o.Dir, Sources: src})
	}
	content := func(t *testing.T, m *Manager, name string) string {
		t.Helper()
		meta, err := m.store.meta(name)
		if err != nil {
			t.Fatal(err)
		}
		return m.store.path(meta.Content)
	}
	t.Run("between temp and rename", func(t *testing.T) {
		m := fresh(t)
		write(t, m.store.path(".tmp-123"), "half")
		write(t, m.store.path("a.0123456789abcdef"+contentSuffix), "committed, but its meta file was not")
		if v, err := m.Load(t.Context()); err != nil || !knows(v, "9.9.0.1") {
			t.Fatal(err)
		}
		if _, err := m.Update(t.Context(), UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		var names []string
		entries, err := os.ReadDir(m.o.Dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		want := []string{
			filepath.Base(content(t, m, "a")), "a" + metaSuffix, filepath.Base(content(t, m, "b")), "b" + metaSuffix,
			m.opened.File, indexMeta, "lock",
		}
		slices.Sort(want)
		if d := cmp.Diff(want, names); d != "" {
			t.Errorf("files (-want +got):\n%s", d)
		}
	})
	t.Run("index damaged", func(t *testing.T) {
		m := fresh(t)
		idx, err := m.store.index()
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(m.store.path(idx.File))
		if err != nil {
			t.Fatal(err)
		}
		text[len(text)/2] ^= 0xff
		write(t, m.store.path(idx.File), string(text))
		v, err := m.Load(t.Context())
		if err != nil || !knows(v, "9.9.0.1") || m.Counts().Compiled != 1 {
			t.Errorf("%v, %+v", err, m.Counts())
		}
	})
	for name, text := range map[string]string{"index empty": "", "index cut": `{"file": "x`, "index elsewhere": `{"file": "../../etc/passwd"}`} {
		t.Run(name, func(t *testing.T) {
			m := fresh(t)
			write(t, m.store.path(indexMeta), text)
			if v, err := m.Load(t.Context()); err != nil || !knows(v, "9.9.0.1") || m.Counts().Compiled != 1 {
				t.Errorf("%v, %+v", err, m.Counts())
			}
		})
	}
	t.Run("content damaged", func(t *testing.T) {
		m := fresh(t)
		write(t, content(t, m, "a"), "not zstd")
		_ = os.Remove(m.store.path(indexMeta))
		v, err := m.Load(t.Context())
		if err != nil || knows(v, "9.9.0.1") || !knows(v, "8.8.9.1") || m.Counts().Damaged != 1 {
			t.Errorf("%v, %+v", err, m.Counts())
		}
		if got := states(t, m); !strings.HasPrefix(got["a"], "damaged, left out of the index: feed a: ") || got["b"] != "in use" {
			t.Errorf("states %q", got)
		}
		if r := update(t, m, false, "a"); r.Count != 60 {
			t.Errorf("%+v", r)
		}
		if got := states(t, m); got["a"] != "in use" {
			t.Errorf("mended, and the states are %q", got)
		}
		if !knows(m.View(), "9.9.0.1") {
			t.Error("a damaged feed is not mended by an update")
		}
	})
	t.Run("meta damaged", func(t *testing.T) {
		m := fresh(t)
		write(t, m.store.path("a"+metaSuffix), "{")
		if v, err := m.Load(t.Context()); err != nil || knows(v, "9.9.0.1") || !knows(v, "8.8.9.1") {
			t.Error(err)
		}
		if _, err := m.Status(); err == nil {
			t.Error("status does not say that the file is damaged")
		}
		if r := update(t, m, false, "a"); r.Outcome != Added || !knows(m.View(), "9.9.0.1") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("read only", func(t *testing.T) {
		m := fresh(t)
		m.o.Version = "another" // so the index does not fit
		m.store.dir = m.o.Dir
		if err := os.Remove(m.store.path("lock")); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(m.store.path("lock"), 0o755); err != nil { // root may write anywhere, but not to a directory
			t.Fatal(err)
		}
		v, err := m.Load(t.Context())
		if err != nil || !knows(v, "9.9.0.1") || m.Counts().Compiled != 1 {
			t.Errorf("%v, %+v", err, m.Counts())
		}
	})
}

// Entries end as their feed says, and stay out of an index made later.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.text("/a", addresses(60))
		s.text("/b", "8.8.9.1\n")
		src := source("a", "https://e.org/a")
		src.ExpiresAfter = 48 * time.Hour
		m := manager(t, Options{Sources: []Source{src, source("b", "https://e.org/b")}, Transport: s})
		if _, err := m.Update(t.Context(), UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		got := m.View().Address(netip.MustParseAddr("9.9.0.1")).At(0).Expires
		if want := time.Now().Add(48 * time.Hour).Unix(); got != want {
			t.Errorf("expires %d, want %d", got, want)
		}
		time.Sleep(47 * time.Hour)
		if v, err := m.Load(t.Context()); err != nil || !knows(v, "9.9.0.1") {
			t.Error("gone before its end", err)
		}
		time.Sleep(2 * time.Hour)
		if v, err := m.Load(t.Context()); err != nil || knows(v, "9.9.0.1") || !knows(v, "8.8.9.1") {
			t.Error("there after its end", err)
		}
	})
}

// A machine without feeds has an empty view, and nothing is written to it.
func TestNothing(t *testing.T) {
	sources, err := Sources("")
	if err != nil {
		t.Fatal(err)
	}
	m := manager(t, Options{Sources: sources, Local: filepath.Join(t.TempDir(), "none")})
	v, err := m.Load(t.Context())
	if err != nil || v.Has(intel.Address) || exists(m.o.Dir) {
		t.Errorf("%v", err)
	}
	if _, err := m.Update(t.Context(), UpdateOptions{Names: []string{"no-such"}}); err == nil {
		t.Error("a feed that there is not")
	}
}
